//! What the two ends of a line between nodes tell each other of the tracks on it.
//!
//! A line is one connection (ICE, DTLS, SCTP) over which both nodes send any number of tracks. It has
//! no description: each end knows the other's credentials and certificate beforehand
//! ([`RelayEnd`]), and says in words on the line's own data channel what it would send ([`Word`]).
//! Who is offered a stream says what it wants of it, and gets nothing before.
//!
//! A track crosses in one stream, in the best layer that is wanted beyond; who sends it changes the
//! layer under the stream, as it does for any subscriber. Streams have SSRCs that were never used on the
//! line before.

use std::net::SocketAddr;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use str0m::media::Mid;

use crate::command::{Codec, Quality, TrackId, TrackKind};

/// The label of the line's data channel, and its number, which both ends know.
pub(crate) const LABEL: &str = "_relay";
pub(crate) const CHANNEL: u16 = 0;

/// Streams that an end may offer at a time. Each may cost the other an m-line of its engine.
pub(crate) const STREAMS: usize = 4096;

/// The longest name of a track on a line, in bytes.
pub const NAME_BOUND: usize = 128;

/// The longest word, in bytes.
pub(crate) const WORD_BOUND: usize = 2048;

/// Addresses of the other end that are tried.
const ADDRESSES: usize = 16;

/// Which end of a line between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// The node that is called, and has an address for it.
    Upper,
    /// The node that calls. It needs no address of its own.
    Lower,
}

/// What the other end must know of one: the credentials of ICE (RFC 8445), the certificate of DTLS.
/// To be told over a way on which both know each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayEnd {
    /// `ice-ufrag`.
    pub user: String,
    /// `ice-pwd`.
    pub password: String,
    /// Of the certificate: the hash function, a space, and its value in hexadecimal (RFC 8122).
    pub fingerprint: String,
    /// Where it can be reached; of an [`End::Lower`] nothing is needed.
    pub addresses: Vec<SocketAddr>,
}

impl RelayEnd {
    /// Whether an engine may be given it (RFC 8839 §5.4).
    pub fn is_sound(&self) -> bool {
        let is_ice = |text: &str, least: usize| {
            (least..=256).contains(&text.len())
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/')
        };
        is_ice(&self.user, 4)
            && is_ice(&self.password, 22)
            && self.fingerprint.len() <= 256
            && self.addresses.len() <= ADDRESSES
    }
}

/// A stream that would be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stream {
    /// Of the track, the same on both ends.
    pub(crate) name: String,
    pub(crate) mid: String,
    pub(crate) ssrc: u32,
    /// Of repair; pictures alone have it.
    pub(crate) rtx: Option<u32>,
    pub(crate) is_video: bool,
    pub(crate) codec: String,
    pub(crate) is_screen: bool,
    pub(crate) is_red_allowed: bool,
}

impl Stream {
    pub(crate) fn kind(&self) -> TrackKind {
        if self.is_video {
            TrackKind::Video
        } else {
            TrackKind::Audio
        }
    }

    pub(crate) fn codec(&self) -> Option<Codec> {
        Codec::from_name(&self.codec).filter(|codec| (*codec == Codec::Opus) != self.is_video)
    }
}

/// What is said on a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Word {
    /// This could be sent. Said anew with another stream when the old one ended.
    Offer(Stream),
    /// It can't be sent any more.
    End { name: String },
    /// So much is wanted of what was offered, from now on.
    Want {
        name: String,
        /// The best layer; nothing is to be sent without.
        quality: Option<Wanted>,
    },
}

/// [`Quality`] as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Wanted {
    Low,
    Medium,
    High,
}

impl From<Quality> for Wanted {
    fn from(quality: Quality) -> Wanted {
        match quality {
            Quality::Low => Wanted::Low,
            Quality::Medium => Wanted::Medium,
            Quality::High => Wanted::High,
        }
    }
}

impl From<Wanted> for Quality {
    fn from(wanted: Wanted) -> Quality {
        match wanted {
            Wanted::Low => Quality::Low,
            Wanted::Medium => Quality::Medium,
            Wanted::High => Quality::High,
        }
    }
}

impl Word {
    /// `None`: it is not one, or longer than a word may be.
    pub(crate) fn read(bytes: &[u8]) -> Option<Word> {
        if bytes.len() > WORD_BOUND {
            return None;
        }
        let word: Word = serde_json::from_slice(bytes).ok()?;
        let name = match &word {
            Word::Offer(stream) => &stream.name,
            Word::End { name } | Word::Want { name, .. } => name,
        };
        (1..=NAME_BOUND).contains(&name.len()).then_some(word)
    }

    pub(crate) fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a word has only texts and numbers")
    }
}

/// What an end keeps of its line.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) end: End,
    /// The next stream's number. Streams of the two ends have different names and SSRCs.
    next: u32,
    /// What the other end offers, by name.
    pub(crate) offered: FxHashMap<String, Stream>,
    /// Tracks that are to be taken from the line.
    pub(crate) taken: FxHashMap<String, TrackId>,
}

impl Relay {
    pub(crate) fn new(end: End) -> Relay {
        Relay {
            end,
            next: 1,
            offered: FxHashMap::default(),
            taken: FxHashMap::default(),
        }
    }

    /// A name for an m-line, and SSRCs for its media and its repair, that were not used on the line
    /// before: two streams of one SSRC under one key would give the key away.
    pub(crate) fn number(&mut self) -> (Mid, u32, u32) {
        let number = self.next;
        self.next += 1;
        let (letter, base) = match self.end {
            End::Upper => ('u', 0x8000_0000),
            End::Lower => ('l', 0),
        };
        let mid = Mid::from(format!("{letter}{number}").as_str());
        (mid, base + 2 * number, base + 2 * number + 1)
    }

    /// Whether what the other end offers fits with what it offered before, so that an engine may be
    /// told of it.
    pub(crate) fn may_offer(&self, stream: &Stream) -> bool {
        let letter = match self.end {
            End::Upper => 'l',
            End::Lower => 'u',
        };
        let number = stream.mid.strip_prefix(letter);
        let is_number = |text: &str| {
            (1..=10).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
        };
        let is_new = |other: &Stream| {
            let of = |one: &Stream| [Some(one.ssrc), one.rtx];
            let ours = of(stream);
            other.mid != stream.mid
                && !of(other)
                    .iter()
                    .flatten()
                    .any(|ssrc| ours.contains(&Some(*ssrc)))
        };
        number.is_some_and(is_number)
            && stream.ssrc != 0
            && stream.rtx != Some(0)
            && stream.rtx != Some(stream.ssrc)
            && stream.codec().is_some()
            && self.offered.len() < STREAMS
            && self.offered.values().all(is_new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(name: &str, number: u32) -> Stream {
        Stream {
            name: name.into(),
            mid: format!("u{number}"),
            ssrc: 2 * number,
            rtx: Some(2 * number + 1),
            is_video: true,
            codec: "video/VP8".into(),
            is_screen: false,
            is_red_allowed: true,
        }
    }

    #[test]
    fn words_are_read_as_they_were_written() {
        for word in [
            Word::Offer(stream("a", 1)),
            Word::End { name: "a".into() },
            Word::Want {
                name: "a".into(),
                quality: Some(Wanted::Medium),
            },
            Word::Want {
                name: "a".into(),
                quality: None,
            },
        ] {
            assert_eq!(Word::read(&word.write()), Some(word));
        }
    }

    #[test]
    fn what_is_no_word_is_not_read() {
        let long = Word::End {
            name: "a".repeat(NAME_BOUND + 1),
        };
        let nameless = Word::End {
            name: String::new(),
        };
        for bytes in [&b"{}"[..], b"", &long.write(), &nameless.write()] {
            assert_eq!(Word::read(bytes), None);
        }
        let mut padded = Word::End { name: "a".into() }.write();
        padded.resize(WORD_BOUND + 1, b' ');
        assert_eq!(Word::read(&padded), None);
    }

    #[test]
    fn an_offer_that_an_engine_could_not_take_is_refused() {
        let mut lower = Relay::new(End::Lower);
        assert!(lower.may_offer(&stream("a", 1)));
        lower.offered.insert("a".into(), stream("a", 1));
        assert!(lower.may_offer(&stream("b", 2)));
        let wrong: [fn(&mut Stream); 9] = [
            |one| one.mid = "u1".into(),
            |one| one.mid = "l2".into(),
            |one| one.mid = "u".into(),
            |one| one.mid = "u12345678901".into(),
            |one| one.ssrc = 2,
            |one| one.rtx = Some(2),
            |one| one.rtx = Some(one.ssrc),
            |one| one.ssrc = 0,
            |one| one.codec = "audio/opus".into(),
        ];
        for (at, spoil) in wrong.into_iter().enumerate() {
            let mut one = stream("b", 2);
            spoil(&mut one);
            assert!(!lower.may_offer(&one), "{at}");
        }
    }

    #[test]
    fn both_ends_streams_differ() {
        let (mut upper, mut lower) = (Relay::new(End::Upper), Relay::new(End::Lower));
        let (above, below) = (upper.number(), lower.number());
        assert_ne!(above.0, below.0);
        assert!(![below.1, below.2].contains(&above.1) && ![below.1, below.2].contains(&above.2));
        assert_ne!(upper.number(), above);
    }
}
