//! What is counted of the packets that arrive.

use std::collections::HashMap;

use hdrhistogram::Histogram;

use crate::payload::Stamp;

/// The longest latency told apart, in microseconds.
const LATENCY_BOUND: u64 = 60_000_000;

/// Decimal digits that a latency keeps.
const LATENCY_DIGITS: u8 = 2;

/// An empty histogram of latencies in microseconds.
pub(crate) fn latencies() -> Histogram<u32> {
    Histogram::new_with_bounds(1, LATENCY_BOUND, LATENCY_DIGITS)
        .expect("the bounds are fixed and fit")
}

/// The measured time, in nanoseconds since 1970: from the first, before the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its begin.
    pub from: u64,
    /// Its end.
    pub to: u64,
}

impl Window {
    /// Nothing is measured yet.
    pub const CLOSED: Window = Window {
        from: u64::MAX,
        to: u64::MAX,
    };

    /// Whether a packet sent then counts.
    pub fn holds(&self, sent: u64) -> bool {
        (self.from..self.to).contains(&sent)
    }

    /// Its length in seconds.
    pub fn seconds(&self) -> f64 {
        self.to.saturating_sub(self.from) as f64 / 1e9
    }
}

/// Which numbers of a source were sent within the window: from the first, before the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// The first number in it.
    pub from: u64,
    /// The number after the last in it.
    pub to: u64,
}

impl Sent {
    /// A packet with the next number was sent.
    pub fn note(&mut self, sequence: u64) {
        if self.to == 0 {
            self.from = sequence;
        }
        self.to = sequence + 1;
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.to - self.from
    }
}

/// How many packets may be repaired that were sent before the first one that came within the window.
const OVERTAKEN: u64 = 4096;

/// What one receiver got of one source.
#[derive(Debug, Default)]
pub struct Tally {
    seen: Vec<u64>,
    was_there_before: bool,
    first: Option<u64>,
    /// The number of the first bit.
    base: u64,
    highest: u64,
    received: u64,
    duplicates: u64,
    reordered: u64,
}

/// A tally against what was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Count {
    /// Packets that were to come.
    pub expected: u64,
    /// Different packets that came.
    pub received: u64,
    /// Packets that came again.
    pub duplicates: u64,
    /// Packets that came after one with a higher number, repaired ones included.
    pub reordered: u64,
}

impl Count {
    /// Packets that never came.
    pub fn lost(&self) -> u64 {
        self.expected.saturating_sub(self.received)
    }

    pub(crate) fn add(&mut self, other: Count) {
        self.expected += other.expected;
        self.received += other.received;
        self.duplicates += other.duplicates;
        self.reordered += other.reordered;
    }
}

impl Tally {
    /// A packet came. True if it counts: sent within the window, for the first time.
    pub fn note(&mut self, stamp: &Stamp, window: Window) -> bool {
        if !window.holds(stamp.sent) {
            self.was_there_before |= stamp.sent < window.from;
            return false;
        }
        if self.first.is_none() {
            self.first = Some(stamp.sequence);
            // What overtook the first packet of the window is owed to who was there before.
            let before = if self.was_there_before { OVERTAKEN } else { 0 };
            self.base = stamp.sequence.saturating_sub(before);
        }
        let Some(at) = stamp.sequence.checked_sub(self.base) else {
            self.reordered += 1;
            return false;
        };
        let (word, bit) = ((at / 64) as usize, 1u64 << (at % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit != 0 {
            self.duplicates += 1;
            return false;
        }
        self.seen[word] |= bit;
        self.received += 1;
        if stamp.sequence < self.highest {
            self.reordered += 1;
        }
        self.highest = self.highest.max(stamp.sequence);
        true
    }

    /// Against what the source sent. Who came within the window is owed what follows the first
    /// packet that reached it; who left within it, what precedes the last one.
    pub fn count(&self, sent: Sent, has_left: bool) -> Count {
        let from = match self.first {
            _ if self.was_there_before => sent.from,
            Some(first) => first,
            None => sent.to,
        };
        let to = match self.first {
            Some(_) if has_left => self.highest + 1,
            None if has_left => from,
            _ => sent.to,
        };
        Count {
            expected: to.saturating_sub(from),
            received: self.received,
            duplicates: self.duplicates,
            reordered: self.reordered,
        }
    }
}

/// A keyframe that is coming in.
#[derive(Debug, Default)]
struct Keyframe {
    frame: u32,
    parts: u16,
}

/// What one client received in one stay.
#[derive(Debug)]
pub struct Receiver {
    /// The client's group and number.
    pub name: String,
    /// When it began to join, in nanoseconds since 1970.
    pub began: u64,
    /// When it was connected.
    pub connected: Option<u64>,
    /// Whether it left before the end.
    pub has_left: bool,
    /// How often a server's numbers or times on a stream ceased to follow the sender's.
    pub jumps: u64,
    /// By source.
    pub tallies: HashMap<u32, Tally>,
    /// Of audio, from the sender's stamp to the kernel's receive stamp, in microseconds.
    pub audio_latency: Histogram<u32>,
    /// The same of video.
    pub video_latency: Histogram<u32>,
    keyframes: HashMap<(u32, u16), Keyframe>,
    /// When the first keyframe of a source's turn was complete, in nanoseconds since 1970.
    pub first_keyframes: HashMap<(u32, u16), u64>,
}

impl Receiver {
    /// A client begins to join.
    pub fn new(name: String, began: u64) -> Receiver {
        Receiver {
            name,
            began,
            connected: None,
            has_left: false,
            jumps: 0,
            tallies: HashMap::new(),
            audio_latency: latencies(),
            video_latency: latencies(),
            keyframes: HashMap::new(),
            first_keyframes: HashMap::new(),
        }
    }

    /// A packet came at `received` nanoseconds since 1970. Its latency in microseconds if it counts.
    pub fn note(&mut self, stamp: &Stamp, received: u64, window: Window) -> Option<u64> {
        if stamp.is_key {
            self.note_keyframe(stamp, received);
        }
        if !self
            .tallies
            .entry(stamp.source)
            .or_default()
            .note(stamp, window)
        {
            return None;
        }
        let latency = received.saturating_sub(stamp.sent) / 1000;
        let histogram = if stamp.is_video {
            &mut self.video_latency
        } else {
            &mut self.audio_latency
        };
        histogram.saturating_record(latency);
        Some(latency)
    }

    /// Whether a whole keyframe of this source's turn came.
    pub fn has_picture(&self, source: u32, turn: u16) -> bool {
        self.first_keyframes.contains_key(&(source, turn))
    }

    fn note_keyframe(&mut self, stamp: &Stamp, received: u64) {
        let key = (stamp.source, stamp.turn);
        if self.first_keyframes.contains_key(&key) {
            return;
        }
        let keyframe = self.keyframes.entry(key).or_default();
        if keyframe.frame != stamp.frame {
            *keyframe = Keyframe {
                frame: stamp.frame,
                parts: 0,
            };
        }
        keyframe.parts += 1;
        if keyframe.parts >= stamp.packets {
            self.first_keyframes.insert(key, received);
            self.keyframes.remove(&key);
        }
    }
}

/// What came within a step of the measured time: latencies in microseconds.
#[derive(Clone, Debug)]
pub struct Moment {
    /// Of audio.
    pub audio: Histogram<u32>,
    /// Of video.
    pub video: Histogram<u32>,
}

impl Default for Moment {
    fn default() -> Moment {
        Moment {
            audio: latencies(),
            video: latencies(),
        }
    }
}

impl Moment {
    pub(crate) fn note(&mut self, is_video: bool, latency: u64) {
        let histogram = if is_video {
            &mut self.video
        } else {
            &mut self.audio
        };
        histogram.saturating_record(latency);
    }

    pub(crate) fn add(&mut self, other: &Moment) {
        self.audio += &other.audio;
        self.video += &other.video;
    }
}

/// Quantiles in the unit of the values.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Quantiles {
    /// Half lie at or below it.
    pub p50: f64,
    /// 95 % lie at or below it.
    pub p95: f64,
    /// 99 % lie at or below it.
    pub p99: f64,
    /// The greatest.
    pub max: f64,
}

impl Quantiles {
    /// Of latencies in microseconds, as milliseconds.
    pub fn of_latencies(histogram: &Histogram<u32>) -> Quantiles {
        let at = |share| histogram.value_at_quantile(share) as f64 / 1000.0;
        Quantiles {
            p50: at(0.5),
            p95: at(0.95),
            p99: at(0.99),
            max: histogram.max() as f64 / 1000.0,
        }
    }

    /// Of values in any unit; all zero if there are none.
    pub fn of(values: &mut [f64]) -> Quantiles {
        values.sort_by(f64::total_cmp);
        Quantiles {
            p50: quantile(values, 0.5),
            p95: quantile(values, 0.95),
            p99: quantile(values, 0.99),
            max: quantile(values, 1.0),
        }
    }
}

/// The sorted value at or below which `share` of them lie; 0 if there are none.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let at = (last as f64 * share).round() as usize;
    sorted.get(at).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window {
        from: 1000,
        to: 2000,
    };

    fn stamp(sequence: u64) -> Stamp {
        Stamp {
            sequence,
            sent: 1000 + sequence,
            ..Stamp::default()
        }
    }

    fn tally(numbers: &[u64]) -> Tally {
        let mut tally = Tally::default();
        for number in numbers {
            tally.note(&stamp(*number), WINDOW);
        }
        tally
    }

    #[test]
    fn losses_duplicates_and_reordering_are_told_apart() {
        let count = tally(&[0, 1, 3, 2, 3, 6, 200]).count(Sent { from: 0, to: 201 }, false);
        assert_eq!(
            count,
            Count {
                expected: 201,
                received: 6,
                duplicates: 1,
                reordered: 1
            }
        );
        assert_eq!(count.lost(), 195);
    }

    #[test]
    fn who_comes_late_is_owed_nothing_from_before() {
        let count = tally(&[50, 51, 53]).count(Sent { from: 0, to: 60 }, false);
        assert_eq!((count.expected, count.lost()), (10, 7));
    }

    #[test]
    fn who_was_there_before_is_owed_all() {
        let mut tally = Tally::default();
        let early = Stamp {
            sent: 900,
            ..Stamp::default()
        };
        assert!(!tally.note(&early, WINDOW));
        tally.note(&stamp(5), WINDOW);
        let count = tally.count(Sent { from: 1, to: 8 }, false);
        assert_eq!((count.expected, count.received), (7, 1));
    }

    #[test]
    fn a_loss_at_the_very_begin_is_repaired() {
        let mut tally = Tally::default();
        let early = Stamp {
            sent: 900,
            ..Stamp::default()
        };
        tally.note(&early, WINDOW);
        for sequence in [3, 1, 2, 4] {
            assert!(tally.note(&stamp(sequence), WINDOW));
        }
        let count = tally.count(Sent { from: 1, to: 5 }, false);
        assert_eq!((count.expected, count.received, count.reordered), (4, 4, 2));
    }

    #[test]
    fn who_leaves_is_owed_what_came_before_the_last() {
        let count = tally(&[10, 12]).count(Sent { from: 0, to: 60 }, true);
        assert_eq!((count.expected, count.received), (3, 2));
        assert_eq!(
            Tally::default()
                .count(Sent { from: 0, to: 60 }, true)
                .expected,
            0
        );
    }

    #[test]
    fn a_keyframe_counts_when_it_is_whole() {
        let mut receiver = Receiver::new("a".into(), 0);
        let part = |frame, sequence| Stamp {
            is_key: true,
            frame,
            packets: 2,
            ..stamp(sequence)
        };
        receiver.note(&part(1, 0), 10, WINDOW);
        receiver.note(&part(2, 4), 20, WINDOW);
        assert!(!receiver.has_picture(0, 0));
        receiver.note(&part(2, 5), 30, WINDOW);
        assert_eq!(receiver.first_keyframes.get(&(0, 0)), Some(&30));
    }

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let mut values: Vec<f64> = (1..=101).rev().map(f64::from).collect();
        let quantiles = Quantiles::of(&mut values);
        assert_eq!((quantiles.p50, quantiles.max), (51.0, 101.0));
        assert_eq!(Quantiles::of(&mut []), Quantiles::default());
    }

    #[test]
    fn what_was_sent_is_counted_within_the_window() {
        let mut sent = Sent::default();
        for number in 7..12 {
            sent.note(number);
        }
        assert_eq!(sent, Sent { from: 7, to: 12 });
        assert_eq!(sent.count(), 5);
    }
}
