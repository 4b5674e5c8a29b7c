//! Which packets of a stream with spatial and temporal layers (SVC) one subscriber gets: a pure
//! choice for each packet.
//!
//! A subscriber gets everything up to one spatial and one temporal layer. So what it gets is whole
//! when it goes down, which it does with the next picture. Upwards it goes where what it gets from
//! then on needs nothing that it did not get: in time where the stream says so, in space at a
//! keyframe. No picture falls apart over a change.

use std::collections::VecDeque;

use crate::layer::{Indices, Standing};
use crate::track::Packet;

/// After so many pictures without a way up in time a keyframe is asked for. Encoders that offer ways
/// do it several times a second.
const PATIENCE: u16 = 90;

/// Changes that are remembered for what is sent again; more than fit between a packet and its repair.
const REMEMBERED: usize = 8;

/// What a subscriber gets of a stream's layers.
#[derive(Debug)]
pub(crate) struct LayerFilter {
    /// Up to where it gets everything.
    current: Indices,
    /// The source's number from which on it does, and what held before.
    since: u64,
    before: Indices,
    /// The last such numbers, and up to where everything went on from each on; the newest last.
    past: VecDeque<(u64, Indices)>,
    /// Up to where it shall get everything.
    target: Indices,
    /// The newest packet of the source.
    newest: u64,
    /// Pictures without a way up in time since one is wanted.
    waited: u16,
    /// Everything goes on, as it did and shall.
    is_open: bool,
}

impl LayerFilter {
    pub(crate) fn new() -> LayerFilter {
        LayerFilter {
            current: Indices::ALL,
            since: 0,
            before: Indices::ALL,
            past: VecDeque::new(),
            target: Indices::ALL,
            newest: 0,
            waited: 0,
            is_open: true,
        }
    }

    /// Up to where everything goes on now.
    pub(crate) fn current(&self) -> Indices {
        self.current
    }

    /// Up to where everything shall go on.
    pub(crate) fn target(&self) -> Indices {
        self.target
    }

    /// Sets up to where everything shall go on.
    pub(crate) fn aim(&mut self, target: Indices) {
        self.target = target;
        self.settle();
    }

    /// Begins with a keyframe of a source, which lets everything be reached.
    pub(crate) fn begin(&mut self, first: &Packet) {
        (self.current, self.before) = (self.target, self.target);
        self.since = first.sequence;
        self.newest = first.sequence;
        self.waited = 0;
        self.remember();
        self.settle();
    }

    fn remember(&mut self) {
        if self.past.len() == REMEMBERED {
            self.past.pop_front();
        }
        self.past.push_back((self.since, self.current));
    }

    fn settle(&mut self) {
        let all = [self.before, self.current, self.target];
        self.is_open = all.iter().all(|one| *one == Indices::ALL);
    }

    /// Whether only a keyframe gets it to its target, or to what there is `live` of the stream.
    pub(crate) fn needs_keyframe(&self, live: impl FnOnce() -> Indices) -> bool {
        if self.current == self.target {
            return false;
        }
        let goal = self.target.min(live());
        goal.spatial > self.current.spatial
            || (goal.temporal > self.current.temporal && self.waited >= PATIENCE)
    }

    /// Whether a packet goes on; with it the filter may come nearer to its target.
    #[inline]
    pub(crate) fn admits(&mut self, packet: &Packet) -> bool {
        let is_newest = packet.sequence > self.newest;
        self.newest = self.newest.max(packet.sequence);
        self.is_open || {
            if is_newest && self.current != self.target {
                self.turn(packet);
            }
            self.at(packet.sequence).admits(packet.standing.indices)
        }
    }

    /// Whether a packet that goes on ends its picture, for what is left out of it would have followed.
    #[inline]
    pub(crate) fn ends_picture(&self, packet: &Packet) -> bool {
        let Standing {
            indices,
            ends_frame,
            ..
        } = packet.standing;
        let is_uppermost = || indices.spatial == self.at(packet.sequence).spatial;
        packet.marker || (!self.is_open && ends_frame && is_uppermost())
    }

    /// Whether a packet that is sent again ended its picture when it was sent first.
    pub(crate) fn ended_picture(&self, packet: &Packet) -> bool {
        let Standing {
            indices,
            ends_frame,
            ..
        } = packet.standing;
        packet.marker || (ends_frame && indices.spatial == self.held(packet.sequence).spatial)
    }

    /// What held when a packet was sent first.
    pub(crate) fn held(&self, sequence: u64) -> Indices {
        let mut past = self.past.iter().rev();
        past.find(|(since, _)| *since <= sequence)
            .map_or(self.before, |(_, limit)| *limit)
    }

    /// What held when a packet was new.
    fn at(&self, sequence: u64) -> Indices {
        if sequence >= self.since {
            self.current
        } else {
            self.before
        }
    }

    #[cold]
    fn turn(&mut self, packet: &Packet) {
        let mut next = self.current.min(self.target);
        if packet.starts_keyframe {
            next = self.target;
        } else if !packet.standing.begins_picture {
            return;
        } else if next.temporal < self.target.temporal {
            match packet.standing.raises {
                Some((from, to)) if from <= next.temporal && to > next.temporal => {
                    next.temporal = to.min(self.target.temporal);
                    self.waited = 0;
                }
                _ => self.waited = self.waited.saturating_add(1),
            }
        }
        if next != self.current {
            self.before = self.current;
            self.since = packet.sequence;
            self.current = next;
            self.remember();
            self.settle();
        }
        if next.temporal >= self.target.temporal {
            self.waited = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const BEGINS: u8 = 1;
    const ENDS: u8 = 2;
    const KEY: u8 = 4;
    const MARKER: u8 = 8;

    fn packet(
        sequence: u64,
        (spatial, temporal): (u8, u8),
        bits: u8,
        raises: Option<(u8, u8)>,
    ) -> Packet {
        let is = |bit| bits & bit != 0;
        Packet {
            standing: Standing {
                indices: Indices { spatial, temporal },
                begins_picture: is(BEGINS),
                ends_frame: is(ENDS),
                raises,
            },
            starts_keyframe: is(KEY),
            marker: is(MARKER),
            ..crate::track::plain_packet(sequence, 10, Instant::now())
        }
    }

    fn limit(spatial: u8, temporal: u8) -> Indices {
        Indices { spatial, temporal }
    }

    /// A filter that got everything up to `current` from a keyframe on, and shall get up to `target`.
    fn filter(current: Indices, target: Indices) -> LayerFilter {
        let mut filter = LayerFilter::new();
        filter.aim(current);
        filter.begin(&packet(10, (0, 0), BEGINS | KEY, None));
        filter.aim(target);
        filter
    }

    #[test]
    fn what_is_above_is_left_out_and_what_is_left_ends_the_picture() {
        for (limit, indices, bits, is_admitted, ends) in [
            (limit(0, 0), (0, 0), 0, true, false),
            (limit(0, 0), (0, 0), ENDS, true, true),
            (limit(0, 0), (1, 0), ENDS, false, false),
            (limit(0, 0), (0, 1), ENDS, false, true),
            (limit(1, 1), (0, 0), ENDS, true, false),
            (limit(1, 1), (1, 1), ENDS, true, true),
            (limit(1, 1), (2, 0), ENDS | MARKER, false, true),
            (Indices::ALL, (2, 2), ENDS, true, false),
            (Indices::ALL, (1, 0), ENDS | MARKER, true, true),
        ] {
            let mut filter = filter(limit, limit);
            let packet = packet(11, indices, bits, None);
            let found = (filter.admits(&packet), filter.ends_picture(&packet));
            assert_eq!(found, (is_admitted, ends), "{limit:?} {indices:?}");
        }
    }

    #[test]
    fn it_goes_down_with_a_picture_and_up_where_the_stream_lets_it() {
        let (low, middle, all) = (limit(0, 0), limit(1, 1), limit(2, 2));
        for (current, target, indices, bits, raises, expected) in [
            // Down: not within a picture.
            (all, low, (1, 0), 0, None, all),
            (all, low, (0, 0), BEGINS, None, low),
            (all, low, (0, 2), BEGINS, None, low),
            // Up at a keyframe.
            (low, all, (0, 0), BEGINS | KEY, None, all),
            // In space at nothing else; in time where it is said.
            (low, all, (0, 0), BEGINS, None, low),
            (low, all, (0, 0), BEGINS, Some((0, 255)), limit(0, 2)),
            (low, middle, (0, 0), BEGINS, Some((0, 255)), limit(0, 1)),
            (low, all, (0, 0), 0, Some((0, 255)), low),
            // VP8's way: with a frame of the layer to be reached, one by one.
            (low, limit(0, 2), (0, 2), BEGINS, Some((1, 2)), low),
            (low, limit(0, 2), (0, 1), BEGINS, Some((0, 1)), limit(0, 1)),
            (
                limit(0, 1),
                limit(0, 2),
                (0, 2),
                BEGINS,
                Some((1, 2)),
                limit(0, 2),
            ),
            // Down in one and up in the other.
            (
                limit(2, 0),
                limit(0, 2),
                (0, 0),
                BEGINS,
                Some((0, 255)),
                limit(0, 2),
            ),
        ] {
            let mut filter = filter(current, target);
            filter.admits(&packet(11, indices, bits, raises));
            assert_eq!(
                filter.current(),
                expected,
                "{current:?} to {target:?} at {indices:?}"
            );
        }
    }

    #[test]
    fn what_is_sent_again_ends_its_picture_as_it_did_before_all_changes() {
        let mut filter = filter(limit(0, 0), limit(2, 0));
        let lowest = packet(11, (0, 0), BEGINS | ENDS, None);
        assert!(filter.admits(&lowest) && filter.ends_picture(&lowest));
        filter.admits(&packet(20, (0, 0), BEGINS | KEY, None));
        filter.aim(limit(1, 0));
        filter.admits(&packet(30, (0, 0), BEGINS, None));
        for (sequence, indices, is_end) in [
            (11, (0, 0), true),
            (21, (0, 0), false),
            (21, (2, 0), true),
            (31, (1, 0), true),
        ] {
            let again = packet(sequence, indices, ENDS, None);
            assert_eq!(
                filter.ended_picture(&again),
                is_end,
                "{sequence} {indices:?}"
            );
        }
        filter.aim(Indices::ALL);
        filter.begin(&packet(40, (0, 0), BEGINS | KEY, None));
        assert!(filter.ended_picture(&lowest));
    }

    #[test]
    fn what_comes_late_changes_nothing_and_is_judged_by_what_held_then() {
        let mut filter = filter(limit(1, 0), limit(0, 0));
        assert!(filter.admits(&packet(20, (0, 0), BEGINS, None)));
        assert!(!filter.admits(&packet(21, (1, 0), 0, None)));
        let late = packet(19, (1, 0), ENDS, None);
        assert!(filter.admits(&late) && filter.ends_picture(&late));
        assert!(!filter.admits(&packet(18, (2, 0), ENDS | MARKER, None)));
        filter.aim(limit(1, 0));
        filter.admits(&packet(15, (0, 0), BEGINS | KEY, None));
        assert_eq!(filter.current(), limit(0, 0), "an old keyframe");
    }

    #[test]
    fn a_keyframe_is_needed_to_go_up_in_space_and_when_no_way_in_time_comes() {
        let mut filter = filter(limit(0, 0), Indices::ALL);
        assert!(filter.needs_keyframe(|| limit(1, 0)));
        assert!(
            !filter.needs_keyframe(|| limit(0, 2)),
            "there is nothing above in space"
        );
        for sequence in 11..11 + u64::from(PATIENCE) {
            assert!(!filter.needs_keyframe(|| limit(0, 2)));
            filter.admits(&packet(sequence, (0, 0), BEGINS, None));
        }
        assert!(filter.needs_keyframe(|| limit(0, 2)));
        assert!(!filter.needs_keyframe(|| limit(0, 0)));
        filter.admits(&packet(200, (0, 0), BEGINS | KEY, None));
        assert!(!filter.needs_keyframe(|| limit(2, 2)));
        assert_eq!(filter.current(), Indices::ALL);
    }
}
