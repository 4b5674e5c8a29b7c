//! The encodings of a track: in which codecs it comes, and which of them a subscriber is to be sent.

use std::ops::{Index, IndexMut};

use str0m::media::Mid;

use crate::command::{Codec, Encoding, Quality};

/// The codecs that a subscriber takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Codecs(u8);

impl Codecs {
    /// Not known yet: taken for all.
    pub(crate) const ALL: Codecs = Codecs(u8::MAX);

    pub(crate) fn contains(self, codec: Codec) -> bool {
        self.0 & (1 << codec as u8) != 0
    }
}

impl FromIterator<Codec> for Codecs {
    fn from_iter<T: IntoIterator<Item = Codec>>(codecs: T) -> Self {
        Codecs(codecs.into_iter().fold(0, |set, one| set | 1 << one as u8))
    }
}

/// A track in one codec.
#[derive(Debug, Default)]
pub(crate) struct EncodingState {
    /// The m-line, once agreed.
    pub(crate) mid: Option<Mid>,
    /// As agreed or seen; of a backup that is not published yet, as announced.
    pub(crate) codec: Option<Codec>,
    /// The best layer that anybody is to be sent, as it was last told.
    pub(crate) told_wanted: Option<Option<Quality>>,
}

/// A track's encodings.
#[derive(Debug)]
pub(crate) struct Encodings {
    states: [EncodingState; 2],
    /// While anybody needs the backup, everybody who takes it shall have it.
    pub(crate) backup_replaces: bool,
}

impl Index<Encoding> for Encodings {
    type Output = EncodingState;

    fn index(&self, encoding: Encoding) -> &EncodingState {
        &self.states[encoding as usize]
    }
}

impl IndexMut<Encoding> for Encodings {
    fn index_mut(&mut self, encoding: Encoding) -> &mut EncodingState {
        &mut self.states[encoding as usize]
    }
}

impl Encodings {
    /// Not agreed yet; perhaps with a backup.
    pub(crate) fn new(backup: Option<Codec>) -> Encodings {
        let backup = EncodingState {
            codec: backup,
            told_wanted: Some(None),
            ..EncodingState::default()
        };
        Encodings {
            states: [EncodingState::default(), backup],
            backup_replaces: false,
        }
    }

    /// Which of them comes on an m-line.
    pub(crate) fn on(&self, mid: Mid) -> Option<Encoding> {
        let is_on = |encoding: &Encoding| self[*encoding].mid == Some(mid);
        Encoding::ALL.into_iter().find(is_on)
    }

    fn takes_primary(&self, codecs: Codecs) -> bool {
        let codec = self[Encoding::Primary].codec;
        codec.is_none_or(|codec| codecs.contains(codec))
    }

    fn takes_backup(&self, codecs: Codecs) -> bool {
        let codec = self[Encoding::Backup].codec;
        codec.is_some_and(|codec| codecs.contains(codec))
    }

    /// The one that those shall have who take both, among these subscribers.
    pub(crate) fn common(&self, subscribers: impl IntoIterator<Item = Codecs>) -> Encoding {
        let needs_backup = |codecs| !self.takes_primary(codecs) && self.takes_backup(codecs);
        match self.backup_replaces && subscribers.into_iter().any(needs_backup) {
            true => Encoding::Backup,
            false => Encoding::Primary,
        }
    }

    /// What a subscriber shall have, and what it gets while that is not there. Who takes neither is
    /// told so when a packet comes.
    pub(crate) fn of(&self, codecs: Codecs, common: Encoding) -> (Encoding, Option<Encoding>) {
        match (self.takes_primary(codecs), self.takes_backup(codecs)) {
            (true, true) => {
                let other = Encoding::ALL.into_iter().find(|one| *one != common);
                (common, other)
            }
            (false, true) => (Encoding::Backup, None),
            (_, false) => (Encoding::Primary, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Encoding::{Backup, Primary};

    fn track(backup: Option<Codec>, backup_replaces: bool) -> Encodings {
        let mut encodings = Encodings::new(backup);
        encodings[Primary].codec = Some(Codec::Av1);
        encodings.backup_replaces = backup_replaces;
        encodings
    }

    #[test]
    fn a_subscriber_shall_have_the_primary_codec_where_it_takes_it_and_else_the_backup() {
        let track = track(Some(Codec::Vp8), false);
        for (takes, expected) in [
            (vec![Codec::Av1, Codec::Vp8], (Primary, Some(Backup))),
            (vec![Codec::Av1, Codec::H264], (Primary, None)),
            (vec![Codec::Vp8, Codec::H264], (Backup, None)),
            (vec![Codec::H264], (Primary, None)),
        ] {
            let codecs = takes.iter().copied().collect();
            assert_eq!(track.of(codecs, Primary), expected, "{takes:?}");
        }
        assert_eq!(track.of(Codecs::ALL, Primary), (Primary, Some(Backup)));
    }

    #[test]
    fn a_backup_that_replaces_is_everybodys_while_anybody_needs_it() {
        let both: Codecs = [Codec::Av1, Codec::Vp8].into_iter().collect();
        let old: Codecs = [Codec::Vp8].into_iter().collect();
        let new: Codecs = [Codec::Av1].into_iter().collect();
        let neither: Codecs = [Codec::H264].into_iter().collect();
        let replaced = track(Some(Codec::Vp8), true);
        assert_eq!(replaced.common([both, new]), Primary);
        assert_eq!(replaced.common([both, neither]), Primary);
        assert_eq!(replaced.common([both, old]), Backup);
        assert_eq!(replaced.of(both, Backup), (Backup, Some(Primary)));
        assert_eq!(replaced.of(new, Backup), (Primary, None));
        assert_eq!(track(Some(Codec::Vp8), false).common([both, old]), Primary);
        assert_eq!(track(None, true).common([both, old]), Primary);
    }
}
