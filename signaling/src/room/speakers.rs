//! Who is speaking: levels smoothed, with hysteresis, told only when they change.

use std::collections::BTreeMap;

/// A participant this loud becomes a speaker, in dB below full scale (RFC 6464).
const LOUD: f32 = 40.0;
/// A speaker this loud stays one.
const STILL_LOUD: f32 = 48.0;
/// How many reports below [`STILL_LOUD`] end a speaker. More bridges pauses between words; fewer
/// follow a quick exchange.
const QUIET_REPORTS: u8 = 3;
/// How much of the old level stays in each report that is quieter.
const SMOOTHING: f32 = 0.5;
/// Levels are told in steps this fine, so that small changes are not sent.
const LEVEL_STEPS: f32 = 8.0;
/// Silence, in dB below full scale.
const SILENCE: f32 = 127.0;

/// A change to tell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change<K> {
    /// Who.
    pub who: K,
    /// How loud, 0–1.
    pub level: f32,
    /// Whether they speak.
    pub is_active: bool,
}

#[derive(Clone, Copy, Debug)]
struct Voice {
    smoothed: f32,
    quiet_reports: u8,
    is_active: bool,
    told: f32,
}

/// The speakers of a room.
#[derive(Debug)]
pub struct Speakers<K>(BTreeMap<K, Voice>);

impl<K: Ord + Copy> Default for Speakers<K> {
    fn default() -> Self {
        Speakers(BTreeMap::new())
    }
}

fn linear(decibel: f32) -> f32 {
    let level = 10f32.powf(-decibel / 20.0).clamp(0.0, 1.0);
    (level * LEVEL_STEPS).ceil() / LEVEL_STEPS
}

impl<K: Ord + Copy> Speakers<K> {
    /// Whether anybody is remembered, so that silence is worth reporting.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One report: each loudest level per participant, absent ones being silent.
    /// Returns what changed, loudest first: who began and who ended, and with `with_loudness` who
    /// became louder or softer.
    pub fn report(&mut self, levels: &BTreeMap<K, u8>, with_loudness: bool) -> Vec<Change<K>> {
        for who in levels.keys() {
            self.0.entry(*who).or_insert(Voice {
                smoothed: SILENCE,
                quiet_reports: 0,
                is_active: false,
                told: 0.0,
            });
        }
        let mut changes = Vec::new();
        self.0.retain(|who, voice| {
            let now = levels.get(who).map_or(SILENCE, |level| f32::from(*level));
            // A voice is heard at its first word, and fades slowly.
            voice.smoothed = if now <= voice.smoothed {
                now
            } else {
                voice.smoothed * SMOOTHING + now * (1.0 - SMOOTHING)
            };
            if voice.smoothed <= LOUD || (voice.is_active && voice.smoothed <= STILL_LOUD) {
                voice.quiet_reports = 0;
            } else {
                voice.quiet_reports = voice.quiet_reports.saturating_add(1);
            }
            let was_active = voice.is_active;
            if !was_active {
                voice.is_active = voice.smoothed <= LOUD;
            } else if voice.quiet_reports >= QUIET_REPORTS {
                voice.is_active = false;
            }
            let level = if voice.is_active {
                linear(voice.smoothed)
            } else {
                0.0
            };
            let is_other = with_loudness && voice.is_active && level != voice.told;
            if was_active != voice.is_active || is_other {
                voice.told = level;
                changes.push(Change {
                    who: *who,
                    level,
                    is_active: voice.is_active,
                });
            }
            voice.is_active || levels.contains_key(who)
        });
        changes.sort_by(|a, b| b.level.total_cmp(&a.level));
        changes
    }

    /// Forgets a participant; `true` if they were speaking.
    pub fn remove(&mut self, who: K) -> bool {
        self.0.remove(&who).is_some_and(|voice| voice.is_active)
    }

    /// Who speaks now, loudest first.
    pub fn active(&self) -> Vec<Change<K>> {
        let mut all: Vec<_> = self
            .0
            .iter()
            .filter(|(_, voice)| voice.is_active)
            .map(|(who, voice)| Change {
                who: *who,
                level: voice.told,
                is_active: true,
            })
            .collect();
        all.sort_by(|a, b| b.level.total_cmp(&a.level));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(speakers: &mut Speakers<u32>, levels: &[(u32, u8)]) -> Vec<Change<u32>> {
        speakers.report(&levels.iter().copied().collect(), true)
    }

    #[test]
    fn a_voice_is_told_once_until_it_ends() {
        let mut speakers = Speakers::default();
        let begin = report(&mut speakers, &[(1, 20), (2, 90)]);
        assert_eq!(begin.len(), 1);
        assert!(begin[0].is_active && begin[0].who == 1 && begin[0].level > 0.0);
        assert!(report(&mut speakers, &[(1, 20), (2, 90)]).is_empty());
        let mut ended = Vec::new();
        for _ in 0..8 {
            ended.extend(
                report(&mut speakers, &[])
                    .into_iter()
                    .filter(|c| !c.is_active),
            );
        }
        assert_eq!(
            ended,
            [Change {
                who: 1,
                level: 0.0,
                is_active: false
            }]
        );
        assert!(speakers.is_empty());
    }

    #[test]
    fn a_short_pause_does_not_end_a_speaker() {
        let mut speakers = Speakers::default();
        report(&mut speakers, &[(1, 25)]);
        for level in [127, 127, 25, 25] {
            assert!(
                report(&mut speakers, &[(1, level)])
                    .iter()
                    .all(|change| change.is_active)
            );
        }
        assert_eq!(speakers.active().len(), 1);
    }

    #[test]
    fn the_loudest_comes_first() {
        let mut speakers = Speakers::default();
        let begin = report(&mut speakers, &[(1, 30), (2, 5), (3, 15)]);
        assert_eq!(
            begin.iter().map(|change| change.who).collect::<Vec<_>>(),
            [2, 3, 1]
        );
    }
}
