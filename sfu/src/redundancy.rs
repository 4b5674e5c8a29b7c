//! Redundant sound (RFC 2198): beside each packet of sound the ones before it are sent once more to who
//! negotiated RED and whose line loses packets. Sound is not sent again when it is missed: it has no
//! stream for repair, and a second packet under the first one's number must not differ from it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::media::Pt;

use crate::payload::{red_older, red_primary};
use crate::track::{Packet, Recent};

/// Shares of loss from which so many earlier packets go along: one, two, three.
const STEPS: [f64; 3] = [0.02, 0.08, 0.18];

/// Fewer go along only after less was lost for so long.
const HOLD: Duration = Duration::from_secs(10);

/// The longest time back that a block can tell (14 bits), and its longest length (10 bits).
const FARTHEST: u32 = 0x3fff;
const LONGEST: usize = 0x3ff;

/// Bytes that a packet with its earlier ones may have.
const PACKET_BOUND: usize = 1100;

/// How many earlier packets of sound go along to a subscriber.
#[derive(Debug, Default)]
pub(crate) struct Redundancy {
    depth: usize,
    /// When so much was last lost.
    needed: Option<Instant>,
    is_short: bool,
}

impl Redundancy {
    /// Takes the share that is lost lately.
    pub(crate) fn follow(&mut self, loss: f64, now: Instant) {
        let depth = STEPS.iter().filter(|step| loss >= **step).count();
        let is_over = self
            .needed
            .is_none_or(|at| now.saturating_duration_since(at) >= HOLD);
        if depth >= self.depth || is_over {
            self.depth = depth;
            self.needed = Some(now);
        }
    }

    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    /// Takes whether the line carries less than is wanted of it.
    pub(crate) fn set_short(&mut self, is_short: bool) {
        self.is_short = is_short;
    }

    /// Not even what the publisher sent along goes along: the line loses nothing that it would repair,
    /// and pictures need the room.
    pub(crate) fn is_left_out(&self) -> bool {
        self.is_short && self.depth == 0
    }
}

/// What packets of sound look like with the ones before them, made once for all who get them alike.
#[derive(Default)]
pub(crate) struct Wrapped(Vec<(usize, Pt, Arc<Packet>)>);

impl Wrapped {
    /// `packet` in RED with `depth` earlier ones, as far as they are there; `opus` is the payload type
    /// inside.
    pub(crate) fn of(
        &mut self,
        packet: &Packet,
        is_red: bool,
        recent: &Recent,
        depth: usize,
        opus: Pt,
    ) -> Option<Arc<Packet>> {
        let is_it = |one: &&(usize, Pt, Arc<Packet>)| (one.0, one.1) == (depth, opus);
        if let Some((.., made)) = self.0.iter().find(is_it) {
            return Some(made.clone());
        }
        let payload = wrap(packet, is_red, recent, depth, *opus)?;
        let made = Arc::new(Packet {
            payload: payload.into(),
            ..packet.clone()
        });
        self.0.push((depth, opus, made.clone()));
        Some(made)
    }
}

fn wrap(packet: &Packet, is_red: bool, recent: &Recent, depth: usize, opus: u8) -> Option<Vec<u8>> {
    let primary = |packet: &Packet| -> Option<std::ops::Range<usize>> {
        let all = packet.payload.len();
        if !is_red {
            return Some(0..all);
        }
        red_primary(&packet.payload).map(|primary| all - primary.len()..all)
    };
    let newest = &packet.payload[primary(packet)?];
    let mut older: Vec<(u32, &[u8])> = Vec::new();
    for back in 1..=depth as u64 {
        if let Some(before) = packet
            .sequence
            .checked_sub(back)
            .and_then(|sequence| recent.get(sequence))
            && let Some(block) = primary(before)
        {
            let since = packet.timestamp.wrapping_sub(before.timestamp);
            older.push((since, &before.payload[block]));
        }
    }
    if is_red {
        // What was lost on the way here may have come along.
        for (since, block) in red_older(&packet.payload) {
            if older.iter().all(|(known, _)| *known != since) {
                older.push((since, block));
            }
        }
    }
    older.retain(|(since, block)| {
        (1..=FARTHEST).contains(since) && (1..=LONGEST).contains(&block.len())
    });
    older.sort_by_key(|(since, _)| *since);
    let mut length = 1 + newest.len();
    let fits = older.iter().take_while(|(_, block)| {
        length += 4 + block.len();
        length <= PACKET_BOUND
    });
    let fitting = fits.count();
    older.truncate(fitting);
    // The oldest comes first.
    older.reverse();
    let mut payload = Vec::with_capacity(length);
    for (since, block) in &older {
        payload.push(0x80 | opus);
        let both = (since << 10) | block.len() as u32;
        payload.extend_from_slice(&both.to_be_bytes()[1..]);
    }
    payload.push(opus & 0x7f);
    for (_, block) in &older {
        payload.extend_from_slice(block);
    }
    payload.extend_from_slice(newest);
    Some(payload)
}

/// Twenty milliseconds of sound.
#[cfg(any(test, fuzzing))]
fn sound(sequence: u64, payload: &[u8]) -> Packet {
    Packet {
        timestamp: sequence as u32 * 960,
        payload: payload.into(),
        ..crate::track::plain_packet(sequence, 0, Instant::now())
    }
}

/// Checks that whatever comes as RED goes on with its newest block, within a packet's bound or as long as
/// that block is.
#[cfg(any(test, fuzzing))]
pub(crate) fn check(payload: &[u8]) {
    let mut recent = Recent::new(crate::command::TrackKind::Audio);
    for sequence in 7..10 {
        recent.remember(&Arc::new(sound(sequence, payload)));
    }
    for depth in 1..=STEPS.len() {
        let made = wrap(&sound(10, payload), true, &recent, depth, 111);
        let newest = red_primary(payload);
        assert_eq!(made.is_some(), newest.is_some());
        if let (Some(made), Some(newest)) = (made, newest) {
            assert_eq!(red_primary(&made), Some(newest));
            assert!(made.len() <= PACKET_BOUND.max(1 + newest.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::TrackKind;

    /// The blocks of a payload, the oldest first: how long before, and what.
    fn blocks(payload: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let older = red_older(payload).map(|(since, block)| (since, block.to_vec()));
        let newest = red_primary(payload).map(|block| (0, block.to_vec()));
        older.chain(newest).collect()
    }

    fn remembered(packets: &[Packet]) -> Recent {
        let mut recent = Recent::new(TrackKind::Audio);
        for packet in packets {
            recent.remember(&Arc::new(packet.clone()));
        }
        recent
    }

    #[test]
    fn what_came_along_is_left_out_only_where_it_repairs_nothing_and_room_is_wanted() {
        let now = Instant::now();
        for (loss, is_short, expected) in [
            (0.0, false, false),
            (0.0, true, true),
            (0.01, true, true),
            (0.03, true, false),
            (0.03, false, false),
        ] {
            let mut redundancy = Redundancy::default();
            redundancy.follow(loss, now);
            redundancy.set_short(is_short);
            assert_eq!(redundancy.is_left_out(), expected, "{loss} {is_short}");
        }
    }

    #[test]
    fn earlier_packets_go_along() {
        let recent = remembered(&[sound(7, b"seven"), sound(8, b"eight"), sound(9, b"nine")]);
        let ten = sound(10, b"ten");
        let of = |depth| blocks(&wrap(&ten, false, &recent, depth, 111).unwrap());
        assert_eq!(of(1), [(960, b"nine".to_vec()), (0, b"ten".to_vec())]);
        assert_eq!(
            of(3),
            [
                (2880, b"seven".to_vec()),
                (1920, b"eight".to_vec()),
                (960, b"nine".to_vec()),
                (0, b"ten".to_vec()),
            ]
        );
    }

    #[test]
    fn what_is_not_there_is_left_out() {
        let recent = remembered(&[sound(7, b"seven"), sound(9, b"")]);
        let ten = sound(10, b"ten");
        let made = blocks(&wrap(&ten, false, &recent, 3, 111).unwrap());
        assert_eq!(made, [(2880, b"seven".to_vec()), (0, b"ten".to_vec())]);
        let alone = wrap(&ten, false, &remembered(&[]), 3, 111).unwrap();
        assert_eq!(alone, b"\x6ften");
    }

    #[test]
    fn red_is_wrapped_anew_and_what_came_along_is_kept() {
        let before = sound(
            8,
            &wrap(&sound(8, b"eight"), false, &remembered(&[]), 1, 63).unwrap(),
        );
        let nine_came = wrap(
            &sound(10, b"ten"),
            false,
            &remembered(&[sound(9, b"nine")]),
            1,
            63,
        );
        let ten = sound(10, &nine_came.unwrap());
        // The ninth was lost; the tenth brought it.
        let made = wrap(&ten, true, &remembered(&[before]), 2, 111).unwrap();
        assert_eq!(
            blocks(&made),
            [
                (1920, b"eight".to_vec()),
                (960, b"nine".to_vec()),
                (0, b"ten".to_vec()),
            ]
        );
        assert_eq!(made[0], 0x80 | 111, "named as the subscriber does");
    }

    #[test]
    fn blocks_stay_within_what_their_header_can_tell() {
        let long = vec![1; 700];
        let mut early = sound(8, b"early");
        early.timestamp = (10_u32 * 960).wrapping_sub(0x4000);
        let recent = remembered(&[early, sound(9, &long)]);
        let made = blocks(&wrap(&sound(10, &long), false, &recent, 2, 111).unwrap());
        assert_eq!(made, [(0, long)], "too early, and together too long");
    }

    #[test]
    fn it_grows_at_once_and_shrinks_after_a_while() {
        let begin = Instant::now();
        let mut redundancy = Redundancy::default();
        let mut after = |seconds, loss| {
            redundancy.follow(loss, begin + Duration::from_secs(seconds));
            redundancy.depth()
        };
        assert_eq!(after(0, 0.01), 0);
        assert_eq!(after(1, 0.03), 1);
        assert_eq!(after(2, 0.3), 3);
        assert_eq!(after(3, 0.0), 3);
        assert_eq!(after(11, 0.1), 3);
        assert_eq!(after(12, 0.1), 2);
        assert_eq!(after(22, 0.0), 0);
    }
}
