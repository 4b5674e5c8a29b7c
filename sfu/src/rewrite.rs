//! The numbers of one outgoing stream: how a packet of whichever layer is numbered for one
//! subscriber.
//!
//! `out = source + delta` for sequence number, timestamp and VP8's running numbers. Deltas change
//! only at [`Rewrite::switch`] and, for the sequence number and VP8's picture id, at
//! [`Rewrite::skip`], so that a gap in the output is a loss in the source, and a subscriber's NACK
//! still means something.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand::Rng;

use crate::command::TrackId;
use crate::payload::Vp8;
use crate::track::Packet;

/// The timestamp after a switch is taken from the sender reports of both layers only if it is
/// within this of what the packets' arrival says; a publisher's wrong clock is not followed.
const SENDER_REPORT_TOLERANCE: Duration = Duration::from_millis(500);

/// Runs of source packets left out on purpose that are remembered, so that a packet older than some
/// of them still finds its number. One older than all of them is too late. Where every other picture
/// is left out, two seconds at 60 a second.
const SKIPPED: usize = 64;

/// Sources followed before the current one, of which a packet may still be asked for again.
const PAST: usize = 3;

/// What an output follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) track: TrackId,
    pub(crate) layer: usize,
}

/// A packet's new numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// Extended sequence number; its upper part is the roll-over counter.
    pub(crate) sequence: u64,
    pub(crate) timestamp: u32,
    /// PictureID, TL0PICIDX and KEYIDX, where the packet has them.
    pub(crate) vp8: Option<Vp8>,
}

/// How much was left out of a source since it is followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct LeftOut {
    packets: u64,
    /// VP8's, whose ids shall run on.
    pictures: u16,
}

/// Source packets that follow one another and were left out.
#[derive(Debug)]
struct Run {
    first: u64,
    /// The source packet after the last one.
    end: u64,
    /// Up to its end, since the switch.
    left_out: LeftOut,
}

/// How a source's numbers become the output's.
#[derive(Debug)]
pub(crate) struct Deltas {
    pub(crate) source: Source,
    /// The output's number at the switch.
    first: u64,
    /// Source packets before this one belong to before the switch, or are too late.
    first_source: u64,
    /// Without what was left out.
    sequence: u64,
    /// What was left out, in order.
    skipped: VecDeque<Run>,
    /// What was left out before the first of these.
    before: LeftOut,
    /// The newest of VP8's pictures that were left out.
    left_out_picture: Option<u16>,
    timestamp: u32,
    picture_id: u16,
    tl0_pic_idx: u8,
    key_idx: u8,
}

#[derive(Debug)]
struct Last {
    /// Of the source that was followed then.
    source: u64,
    sequence: u64,
    timestamp: u32,
    arrived: Instant,
    vp8: Vp8,
}

/// Numbers for one outgoing stream.
#[derive(Debug)]
pub(crate) struct Rewrite {
    deltas: Option<Deltas>,
    /// Oldest first.
    past: VecDeque<Deltas>,
    last: Option<Last>,
    clock_rate: u32,
}

impl Rewrite {
    pub(crate) fn new(clock_rate: u32) -> Self {
        Rewrite {
            deltas: None,
            past: VecDeque::new(),
            last: None,
            clock_rate,
        }
    }

    /// Follows another source from `first` on; it becomes the next packet of the output.
    /// `by_reports` is how far `first` lies after the last forwarded packet by the sender reports
    /// of both sources, in clock units, where both are known.
    pub(crate) fn switch(
        &mut self,
        source: Source,
        first: &Packet,
        by_reports: Option<i64>,
        random: &mut impl Rng,
    ) {
        let vp8 = first.vp8.unwrap_or_default();
        let (sequence, timestamp, next) = match &self.last {
            // The first number lies below 2^15 so that its roll-over counter is 0 for everyone.
            None => (
                u64::from(random.random::<u16>() >> 1),
                random.random(),
                Vp8::default(),
            ),
            Some(last) => {
                let arrival = first.arrived.saturating_duration_since(last.arrived);
                let by_arrival = (arrival.as_secs_f64() * f64::from(self.clock_rate)) as i64;
                let tolerance =
                    (SENDER_REPORT_TOLERANCE.as_secs_f64() * f64::from(self.clock_rate)) as i64;
                let step = by_reports
                    .filter(|step| (step - by_arrival).abs() <= tolerance)
                    .unwrap_or(by_arrival)
                    .clamp(1, i64::from(i32::MAX / 2));
                let next = Vp8 {
                    picture_id: last
                        .vp8
                        .picture_id
                        .map(|(id, wide)| (id.wrapping_add(1), wide)),
                    tl0_pic_idx: last.vp8.tl0_pic_idx.map(|index| index.wrapping_add(1)),
                    key_idx: last.vp8.key_idx.map(|index| index.wrapping_add(1)),
                };
                (
                    last.sequence + 1,
                    last.timestamp.wrapping_add(step as u32),
                    next,
                )
            }
        };
        let id = |vp8: &Vp8| vp8.picture_id.map(|(id, _)| id);
        if let Some(past) = self.deltas.take() {
            if self.past.len() == PAST {
                self.past.pop_front();
            }
            self.past.push_back(past);
        }
        self.deltas = Some(Deltas {
            source,
            first: sequence,
            first_source: first.sequence,
            sequence: sequence.wrapping_sub(first.sequence),
            skipped: VecDeque::new(),
            before: LeftOut::default(),
            left_out_picture: None,
            timestamp: timestamp.wrapping_sub(first.timestamp),
            picture_id: delta(id(&next), id(&vp8), u16::wrapping_sub),
            tl0_pic_idx: delta(next.tl0_pic_idx, vp8.tl0_pic_idx, u8::wrapping_sub),
            key_idx: delta(next.key_idx, vp8.key_idx, u8::wrapping_sub),
        });
    }

    /// A timestamp of the current source in the numbers of the output.
    pub(crate) fn timestamp(&self, source: u32) -> Option<u32> {
        let deltas = self.deltas.as_ref()?;
        Some(source.wrapping_add(deltas.timestamp))
    }

    /// Leaves out a packet of the current source: nothing is sent for it and no number is spent on
    /// it. `picture` is its VP8 picture id, where it has one; pictures are left out whole. Returns
    /// `false` where a later one was numbered already: its number stays unused.
    pub(crate) fn skip(&mut self, source: u64, picture: Option<(u16, bool)>) -> bool {
        let (Some(deltas), Some(last)) = (&mut self.deltas, &self.last) else {
            return true;
        };
        if source <= last.source {
            return deltas.left_out(source).is_none();
        }
        deltas.skip(source, picture);
        true
    }

    /// The numbers of a packet of the current source; `None` for one from before the switch.
    pub(crate) fn number(&mut self, packet: &Packet) -> Option<Numbers> {
        let numbers = self.deltas.as_ref()?.numbers(packet)?;
        let Numbers {
            sequence,
            timestamp,
            vp8,
        } = numbers;
        if self
            .last
            .as_ref()
            .is_none_or(|last| sequence > last.sequence)
        {
            self.last = Some(Last {
                source: packet.sequence,
                sequence,
                timestamp,
                arrived: packet.arrived,
                vp8: vp8.unwrap_or_default(),
            });
        }
        Some(numbers)
    }

    /// The source packet behind a number of the output, and how it was numbered then.
    pub(crate) fn source_of(&self, sequence: u16) -> Option<(&Deltas, u64)> {
        let last = self.last.as_ref()?.sequence;
        let behind = (last as u16).wrapping_sub(sequence);
        let sequence = last.checked_sub(u64::from(behind))?;
        let deltas = self
            .deltas
            .iter()
            .chain(self.past.iter().rev())
            .find(|deltas| sequence >= deltas.first)?;
        Some((deltas, deltas.source_of(sequence)))
    }
}

impl Deltas {
    /// The numbers of a packet of the source; `None` for one from before the switch, or that was left
    /// out.
    #[inline]
    pub(crate) fn numbers(&self, packet: &Packet) -> Option<Numbers> {
        if packet.sequence < self.first_source {
            return None;
        }
        let left_out = self.left_out(packet.sequence)?;
        let sequence = packet
            .sequence
            .wrapping_add(self.sequence)
            .wrapping_sub(left_out.packets);
        let timestamp = packet.timestamp.wrapping_add(self.timestamp);
        let vp8 = packet.vp8.map(|vp8| Vp8 {
            picture_id: vp8.picture_id.map(|(id, wide)| {
                let mask = if wide { 0x7fff } else { 0x7f };
                let id = id.wrapping_add(self.picture_id);
                (id.wrapping_sub(left_out.pictures) & mask, wide)
            }),
            tl0_pic_idx: vp8
                .tl0_pic_idx
                .map(|index| index.wrapping_add(self.tl0_pic_idx)),
            key_idx: vp8
                .key_idx
                .map(|index| index.wrapping_add(self.key_idx) & 0x1f),
        });
        Some(Numbers {
            sequence,
            timestamp,
            vp8,
        })
    }

    /// What was left out before a source packet; `None` where that was left out itself.
    fn left_out(&self, source: u64) -> Option<LeftOut> {
        let run = match self.skipped.back() {
            None => return Some(self.before),
            Some(newest) if newest.end <= source => newest,
            Some(_) => {
                let at = self.skipped.partition_point(|run| run.first <= source);
                match at.checked_sub(1) {
                    None => return Some(self.before),
                    Some(at) => &self.skipped[at],
                }
            }
        };
        (run.end <= source).then_some(run.left_out)
    }

    /// Leaves out a source packet after which none was numbered.
    fn skip(&mut self, source: u64, picture: Option<(u16, bool)>) {
        let after = self.skipped.partition_point(|run| run.first <= source);
        let run = after.checked_sub(1).map(|at| &mut self.skipped[at]);
        let before = run.as_ref().map_or(self.before, |run| run.left_out);
        if run.as_ref().is_some_and(|run| source < run.end) {
            return;
        }
        let is_newer = |(id, is_wide): (u16, bool)| {
            let mask = if is_wide { 0x7fff } else { 0x7f };
            let ahead = |newest: u16| id.wrapping_sub(newest) & mask;
            self.left_out_picture
                .is_none_or(|newest| (1..=mask / 2).contains(&ahead(newest)))
        };
        let pictures = match picture.filter(|picture| is_newer(*picture)) {
            Some((id, _)) => {
                self.left_out_picture = Some(id);
                1
            }
            None => 0,
        };
        let add = |left_out: LeftOut| LeftOut {
            packets: left_out.packets + 1,
            pictures: left_out.pictures.wrapping_add(pictures),
        };
        // It came after some that were left out too.
        for run in self.skipped.range_mut(after..) {
            run.left_out = add(run.left_out);
        }
        match after.checked_sub(1).map(|at| &mut self.skipped[at]) {
            Some(run) if run.end == source => {
                run.end += 1;
                run.left_out = add(run.left_out);
            }
            _ => {
                let run = Run {
                    first: source,
                    end: source + 1,
                    left_out: add(before),
                };
                self.skipped.insert(after, run);
            }
        }
        if self.skipped.len() > SKIPPED
            && let Some(oldest) = self.skipped.pop_front()
        {
            self.before = oldest.left_out;
            self.first_source = oldest.end;
        }
    }

    fn source_of(&self, sequence: u64) -> u64 {
        let source = sequence.wrapping_sub(self.sequence);
        let at = self
            .skipped
            .partition_point(|run| run.end - run.left_out.packets <= source);
        let run = at.checked_sub(1).map(|at| &self.skipped[at]);
        source + run.map_or(self.before, |run| run.left_out).packets
    }
}

fn delta<T: Default>(next: Option<T>, first: Option<T>, subtract: fn(T, T) -> T) -> T {
    match (next, first) {
        (Some(next), Some(first)) => subtract(next, first),
        _ => T::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::track::plain_packet;
    use proptest::prelude::*;

    const SOURCE: Source = Source {
        track: TrackId(1),
        layer: 0,
    };

    fn packet(sequence: u64, timestamp: u32, picture: u16, arrived: Instant) -> Packet {
        Packet {
            sequence,
            timestamp,
            marker: false,
            vp8: Some(Vp8 {
                picture_id: Some((picture, true)),
                tl0_pic_idx: Some(picture as u8),
                key_idx: Some(picture as u8 & 0x1f),
            }),
            ..plain_packet(sequence, 4, arrived)
        }
    }

    proptest! {
        /// Two layers with unrelated numbers, switched between at random: the output counts on by
        /// one, its time never goes back, and the picture ids have no jump.
        #[test]
        fn switches_leave_no_seam(
            start in any::<[u16; 4]>(),
            times in any::<[u32; 2]>(),
            switches in proptest::collection::vec(any::<bool>(), 1..200),
        ) {
            let begin = Instant::now();
            let mut random = rand::rng();
            let mut rewrite = Rewrite::new(90_000);
            let mut current = None;
            let mut previous: Option<Numbers> = None;
            let mut sent: Vec<(Numbers, u64, Packet)> = Vec::new();
            for (index, &layer) in switches.iter().enumerate() {
                let at = begin + Duration::from_millis(33) * index as u32;
                let side = usize::from(layer);
                let packet = packet(
                    u64::from(start[side]) + index as u64,
                    times[side].wrapping_add(2970 * index as u32),
                    (start[side + 2].wrapping_add(index as u16)) & 0x7fff,
                    at,
                );
                if current != Some(layer) {
                    rewrite.switch(SOURCE, &packet, None, &mut random);
                    current = Some(layer);
                }
                let now = rewrite.number(&packet).expect("a packet after its switch");
                let (deltas, source) = rewrite.source_of(now.sequence as u16).unwrap();
                prop_assert_eq!(source, packet.sequence);
                prop_assert_eq!(deltas.numbers(&packet), Some(now));
                sent.push((now, packet.sequence, packet));
                let back = sent.iter().rev().take(3);
                for (numbers, source, packet) in back {
                    let (deltas, found) = rewrite.source_of(numbers.sequence as u16).unwrap();
                    prop_assert_eq!(found, *source);
                    prop_assert_eq!(deltas.numbers(packet), Some(*numbers));
                }
                if let Some(before) = previous {
                    prop_assert_eq!(now.sequence, before.sequence + 1);
                    let step = now.timestamp.wrapping_sub(before.timestamp);
                    prop_assert!((2900..3050).contains(&step), "step {}", step);
                    let (was, is) = (before.vp8.unwrap(), now.vp8.unwrap());
                    prop_assert_eq!((was.picture_id.unwrap().0 + 1) & 0x7fff, is.picture_id.unwrap().0);
                    prop_assert_eq!(was.tl0_pic_idx.unwrap().wrapping_add(1), is.tl0_pic_idx.unwrap());
                    prop_assert_eq!((was.key_idx.unwrap() + 1) & 0x1f, is.key_idx.unwrap());
                } else {
                    prop_assert!(now.sequence < 1 << 15);
                }
                previous = Some(now);
            }
        }
    }

    proptest! {
        /// What is left out leaves no gap, what is late finds its own number, and no number is
        /// given twice.
        #[test]
        fn what_is_left_out_leaves_no_gap(
            kinds in proptest::collection::vec(any::<bool>(), 1..400),
            late in proptest::collection::vec(any::<proptest::sample::Index>(), 0..20),
        ) {
            let now = Instant::now();
            let mut rewrite = Rewrite::new(90_000);
            rewrite.switch(SOURCE, &packet(1000, 0, 1, now), None, &mut rand::rng());
            let first = rewrite.number(&packet(1000, 0, 1, now)).unwrap().sequence;
            let late: std::collections::HashSet<u64> =
                late.iter().map(|index| 1001 + index.index(kinds.len()) as u64).collect();
            let mut expected = first;
            let mut waiting = VecDeque::new();
            for (source, is_media) in (1001..).zip(kinds) {
                if !is_media {
                    rewrite.skip(source, None);
                    continue;
                }
                expected += 1;
                if late.contains(&source) {
                    waiting.push_back((source, expected));
                    continue;
                }
                let numbers = rewrite.number(&packet(source, 0, 1, now)).unwrap();
                prop_assert_eq!(numbers.sequence, expected);
                prop_assert_eq!(rewrite.source_of(expected as u16).unwrap().1, source);
                if let Some((source, expected)) = waiting.pop_front() {
                    // Only what is older than many left out is too late.
                    if let Some(numbers) = rewrite.number(&packet(source, 0, 1, now)) {
                        prop_assert_eq!(numbers.sequence, expected);
                    }
                }
            }
        }
    }

    proptest! {
        /// Pictures left out whole leave a gap neither in the sequence numbers nor in VP8's picture ids,
        /// whatever of them is lost or comes in another order.
        #[test]
        fn pictures_left_out_leave_no_gap(
            pictures in proptest::collection::vec((any::<bool>(), 1..4_u64), 1..150),
            first_picture in 0..0x8000_u16,
            swaps in proptest::collection::vec(any::<proptest::sample::Index>(), 0..20),
            lost in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6),
        ) {
            let now = Instant::now();
            let mut rewrite = Rewrite::new(90_000);
            let begin = packet(999, 0, first_picture, now);
            rewrite.switch(SOURCE, &begin, None, &mut rand::rng());
            let first = rewrite.number(&begin).unwrap();
            let mut packets = Vec::new();
            let (mut source, mut picture) = (1000, first_picture);
            let (mut sequence, mut id) = (first.sequence, first.vp8.unwrap().picture_id.unwrap().0);
            for (is_sent, count) in pictures {
                picture = (picture + 1) & 0x7fff;
                id = (id + u16::from(is_sent)) & 0x7fff;
                for _ in 0..count {
                    sequence += u64::from(is_sent);
                    packets.push((source, picture, is_sent.then_some((sequence, id))));
                    source += 1;
                }
            }
            // Neighbours change places where both are left out, or neither is, within one picture.
            for swap in swaps {
                let at = swap.index(packets.len());
                if at + 1 < packets.len() && packets[at].1 == packets[at + 1].1 {
                    packets.swap(at, at + 1);
                }
            }
            // Of what is left out no packet may be lost, for nobody knows whether it would have been.
            for lost in lost {
                let at = lost.index(packets.len());
                if packets.len() > 1 && packets[at].2.is_some() {
                    packets.remove(at);
                }
            }
            for (source, picture, expected) in packets {
                let packet = packet(source, 0, picture, now);
                let Some((sequence, id)) = expected else {
                    prop_assert!(rewrite.skip(source, packet.vp8.unwrap().picture_id));
                    prop_assert_eq!(rewrite.number(&packet), None, "left out is left out");
                    continue;
                };
                let numbers = rewrite.number(&packet).unwrap();
                prop_assert_eq!(numbers.sequence, sequence);
                prop_assert_eq!(numbers.vp8.unwrap().picture_id, Some((id, true)));
                prop_assert_eq!(rewrite.source_of(sequence as u16).unwrap().1, source);
            }
        }
    }

    #[test]
    fn what_is_left_out_too_late_keeps_its_number() {
        let now = Instant::now();
        let mut rewrite = Rewrite::new(90_000);
        rewrite.switch(SOURCE, &packet(100, 0, 1, now), None, &mut rand::rng());
        let first = rewrite.number(&packet(100, 0, 1, now)).unwrap().sequence;
        let third = rewrite.number(&packet(102, 0, 1, now)).unwrap().sequence;
        assert!(!rewrite.skip(101, None));
        let fourth = rewrite.number(&packet(103, 0, 1, now)).unwrap().sequence;
        assert_eq!([third, fourth], [first + 2, first + 3]);
    }

    #[test]
    fn a_gap_in_the_source_stays_a_gap_and_a_late_packet_finds_its_place() {
        let now = Instant::now();
        let mut rewrite = Rewrite::new(90_000);
        rewrite.switch(SOURCE, &packet(100, 0, 1, now), None, &mut rand::rng());
        let first = rewrite.number(&packet(100, 0, 1, now)).unwrap();
        let third = rewrite.number(&packet(102, 0, 1, now)).unwrap();
        let second = rewrite.number(&packet(101, 0, 1, now)).unwrap();
        assert_eq!(
            [second.sequence, third.sequence],
            [first.sequence + 1, first.sequence + 2]
        );
        assert_eq!(
            rewrite.number(&packet(99, 0, 0, now)),
            None,
            "from before the switch"
        );
    }
}
