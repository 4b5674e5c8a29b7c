//! Who is heard and who speaks: the loudest are told upwards, and the root of the epoch decides.
//!
//! Because one node decides and the decision comes down the tree as a state, all levels agree; and
//! because at most [`HEARD_BOUND`] voices are chosen, no line carries more than these.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::identity::{Identity, Time};
use super::message::{HEARD_BOUND, Speakers, Voice};
use super::rule::Rule;

/// How often the loudest are told upwards. Four hops of this and of a line's delay, with
/// [`TAKEOVER_TIME`] and the way down, must stay below a second.
pub const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// A voice that is not reported for so long is silent.
const VOICE_TIME: Duration = Duration::from_millis(400);

/// A voice this loud speaks, in dB below full scale (RFC 6464).
const LOUD: u8 = 45;

/// How much louder than the speaker somebody must be to take over while it speaks.
pub(crate) const TAKEOVER_MARGIN: u8 = 6;

/// For how long. Shorter follows an interjection; longer is late for a dialogue.
const TAKEOVER_TIME: Duration = Duration::from_millis(250);

/// Who is heard stays so for this long after the last word, if the place is needed.
const KEEP_TIME: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug)]
struct Heard {
    level: u8,
    at: Time,
    /// It was not told upwards yet. Each word is told once: a voice that falls silent does not echo from
    /// hop to hop.
    is_new: bool,
}

/// The loudest, as far as one node has heard.
#[derive(Debug, Default)]
pub(crate) struct Voices {
    voices: BTreeMap<Identity, Heard>,
    /// When who is chosen last spoke.
    last_loud: BTreeMap<Identity, Time>,
    challenger: Option<(Identity, Time)>,
}

impl Voices {
    pub(crate) fn is_silent(&self) -> bool {
        self.voices.is_empty()
    }

    pub(crate) fn heard(&mut self, now: Time, identity: &Identity, level: u8) {
        // However many speak at once, only so many can matter.
        if self.voices.len() >= 4096 && !self.voices.contains_key(identity) {
            return;
        }
        self.voices.insert(
            identity.clone(),
            Heard {
                level,
                at: now,
                is_new: true,
            },
        );
    }

    pub(crate) fn remove(&mut self, identity: &Identity) {
        self.voices.remove(identity);
        self.last_loud.remove(identity);
    }

    /// How loud somebody is; silence where nothing is heard.
    pub(crate) fn level(&self, identity: &Identity) -> u8 {
        let voice = self.voices.get(identity);
        voice.map_or(u8::MAX, |voice| voice.level)
    }

    fn expire(&mut self, now: Time) {
        self.voices
            .retain(|_, voice| now.since(voice.at) < VOICE_TIME);
    }

    /// The loudest now, loudest first; not more than are told.
    pub(crate) fn loudest(&mut self, now: Time) -> Vec<Voice> {
        self.expire(now);
        let mut all: Vec<Voice> = self
            .voices
            .iter()
            .filter(|(_, voice)| voice.level <= LOUD)
            .map(|(identity, voice)| Voice {
                identity: identity.clone(),
                level: voice.level,
            })
            .collect();
        all.sort_by(|a, b| (a.level, &a.identity).cmp(&(b.level, &b.identity)));
        if Rule::LoudestHeard.holds() {
            all.truncate(HEARD_BOUND);
        }
        all
    }

    /// The loudest of which nothing was told yet.
    pub(crate) fn news(&mut self, now: Time) -> Vec<Voice> {
        let mut loudest = self.loudest(now);
        loudest.retain(|voice| {
            let heard = self.voices.get_mut(&voice.identity);
            heard.is_some_and(|heard| std::mem::replace(&mut heard.is_new, false))
        });
        loudest
    }

    /// Decides anew. `eligible`: who may be heard.
    pub(crate) fn decide(
        &mut self,
        now: Time,
        eligible: &BTreeSet<Identity>,
        current: &Speakers,
    ) -> Speakers {
        let loudest = self.loudest(now);
        self.last_loud.retain(|one, _| eligible.contains(one));
        for voice in loudest
            .iter()
            .filter(|one| eligible.contains(&one.identity))
        {
            self.last_loud.insert(voice.identity.clone(), now);
        }
        Speakers {
            dominant: self.dominant(now, &loudest, eligible, current),
            heard: self.choose_heard(now, &loudest, eligible, current),
        }
    }

    fn choose_heard(
        &self,
        now: Time,
        loudest: &[Voice],
        eligible: &BTreeSet<Identity>,
        current: &Speakers,
    ) -> Vec<Identity> {
        // Where there is room for all, nobody's first word is cut off.
        if eligible.len() <= HEARD_BOUND || !Rule::LoudestHeard.holds() {
            return eligible.iter().cloned().collect();
        }
        let kept = current.heard.iter().filter(|one| eligible.contains(*one));
        let mut heard: Vec<Identity> = kept.cloned().collect();
        let level = |identity: &Identity| {
            let voice = self.voices.get(identity);
            voice.map_or(u8::MAX, |voice| voice.level)
        };
        for voice in loudest {
            if !eligible.contains(&voice.identity) || heard.contains(&voice.identity) {
                continue;
            }
            if heard.len() < HEARD_BOUND {
                heard.push(voice.identity.clone());
                continue;
            }
            let quietest = (0..heard.len()).max_by_key(|at| {
                let last = self.last_loud.get(&heard[*at]).copied();
                (level(&heard[*at]), now.since(last.unwrap_or_default()))
            });
            if let Some(at) = quietest {
                let last = self.last_loud.get(&heard[at]).copied();
                let is_over = last.is_none_or(|last| now.since(last) > KEEP_TIME);
                let is_louder = level(&heard[at]) >= voice.level.saturating_add(TAKEOVER_MARGIN);
                if is_over || is_louder {
                    heard[at] = voice.identity.clone();
                }
            }
        }
        for one in eligible {
            if heard.len() >= HEARD_BOUND {
                break;
            }
            if !heard.contains(one) {
                heard.push(one.clone());
            }
        }
        heard.sort();
        heard
    }

    fn dominant(
        &mut self,
        now: Time,
        loudest: &[Voice],
        eligible: &BTreeSet<Identity>,
        current: &Speakers,
    ) -> Option<Identity> {
        let speaker = current
            .dominant
            .clone()
            .filter(|one| eligible.contains(one));
        let Some(first) = loudest.iter().find(|one| eligible.contains(&one.identity)) else {
            self.challenger = None;
            return speaker;
        };
        let Some(speaker) = speaker else {
            return Some(first.identity.clone());
        };
        if first.identity == speaker {
            self.challenger = None;
            return Some(speaker);
        }
        let level = self.voices.get(&speaker).map_or(u8::MAX, |one| one.level);
        if level > LOUD {
            self.challenger = None;
            return Some(first.identity.clone());
        }
        if first.level.saturating_add(TAKEOVER_MARGIN) > level {
            self.challenger = None;
            return Some(speaker);
        }
        match &self.challenger {
            Some((one, since)) if *one == first.identity => {
                if now.since(*since) >= TAKEOVER_TIME {
                    self.challenger = None;
                    return Some(first.identity.clone());
                }
            }
            _ => self.challenger = Some((first.identity.clone(), now)),
        }
        Some(speaker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_louder_one_takes_over_an_interjection_does_not_and_silence_changes_nothing() {
        let mut voices = Voices::default();
        let [a, b]: [Identity; 2] = ["a".into(), "b".into()];
        let eligible = BTreeSet::from([a.clone(), b.clone()]);
        let mut speakers = Speakers::default();
        let mut at = |ms: u64, levels: &[(&Identity, u8)]| {
            for (who, level) in levels {
                voices.heard(Time(ms), who, *level);
            }
            speakers = voices.decide(Time(ms), &eligible, &speakers);
            speakers.dominant.clone().unwrap()
        };
        assert_eq!(at(0, &[(&a, 30)]), a);
        assert_eq!(at(100, &[(&a, 30), (&b, 20)]), a, "not at once");
        assert_eq!(at(200, &[(&a, 30), (&b, 60)]), a);
        assert_eq!(at(300, &[(&a, 30), (&b, 20)]), a);
        assert_eq!(at(600, &[(&a, 30), (&b, 20)]), b);
        assert_eq!(at(700, &[(&a, 30), (&b, 28)]), b);
        assert_eq!(at(5000, &[]), b, "nobody speaks");
        assert_eq!(at(5100, &[(&a, 40)]), a);
    }

    #[test]
    fn of_two_thousand_open_microphones_eight_are_heard() {
        let mut voices = Voices::default();
        let people = (0..2000).map(|number| Identity(format!("{number:04}").into()));
        let people: BTreeSet<Identity> = people.collect();
        let mut speakers = Speakers::default();
        for round in 0..20u64 {
            for (number, one) in people.iter().enumerate() {
                voices.heard(
                    Time(round * 100),
                    one,
                    20 + ((number as u64 * 7 + round) % 60) as u8,
                );
            }
            assert_eq!(voices.loudest(Time(round * 100)).len(), HEARD_BOUND);
            speakers = voices.decide(Time(round * 100), &people, &speakers);
            assert_eq!(speakers.heard.len(), HEARD_BOUND);
        }
    }
}
