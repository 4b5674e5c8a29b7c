//! A camera or microphone: makes packets on its beat and remembers what it sent.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::clip::Clip;
use crate::payload::{Packetiser, Place, Stamp};
use crate::scenario::Codec;
use crate::schedule::Beat;
use crate::stats::{Sent, Window};

/// Requests for a keyframe within this time of the last one are taken for repetitions.
const KEYFRAME_INTERVAL: Duration = Duration::from_millis(200);

/// The number of a source within a run.
pub type SourceId = u32;

/// What a source is.
#[derive(Clone, Copy, Debug)]
pub struct SourcePlan {
    /// Its number.
    pub id: SourceId,
    /// What it sends.
    pub codec: Codec,
    /// How often and how much.
    pub beat: Beat,
    /// Whether it sends the clip.
    pub is_clip: bool,
}

/// Nanoseconds since 1970.
pub fn wall_clock() -> u64 {
    nanoseconds(SystemTime::now())
}

/// A moment in nanoseconds since 1970.
pub fn nanoseconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64)
}

/// A packet to be sent.
#[derive(Debug)]
pub(crate) struct Packet {
    /// RTP payload, stamped.
    pub(crate) payload: Vec<u8>,
    /// Last packet of a frame.
    pub(crate) marker: bool,
    /// RTP time.
    pub(crate) timestamp: u32,
    /// Number within the source; what the RTP sequence counts.
    pub(crate) sequence: u64,
}

/// A source that runs.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) plan: SourcePlan,
    packetiser: Packetiser,
    pub(crate) is_on: bool,
    turn: u16,
    sequence: u64,
    frame: u32,
    ticks: f64,
    wants_key: bool,
    last_key: u64,
    /// What was sent within the window.
    pub(crate) sent: Sent,
    /// When each turn's first packet was sent, in nanoseconds since 1970.
    pub(crate) turns: HashMap<u16, u64>,
    /// Requests for keyframes that came.
    pub(crate) keyframe_requests: u64,
}

impl Source {
    pub(crate) fn new(plan: SourcePlan, clip: Option<Arc<Clip>>, is_on: bool) -> Source {
        Source {
            plan,
            packetiser: match clip {
                Some(clip) => Packetiser::of_clip(clip),
                None => Packetiser::new(plan.codec, plan.beat.bytes),
            },
            is_on,
            turn: 0,
            sequence: 0,
            frame: 0,
            ticks: 0.0,
            wants_key: plan.codec != Codec::Opus,
            last_key: 0,
            sent: Sent::default(),
            turns: HashMap::new(),
            keyframe_requests: 0,
        }
    }

    /// Turns it on or off. Coming on begins a turn, with a keyframe.
    pub(crate) fn set_on(&mut self, is_on: bool) {
        if is_on && !self.is_on {
            self.turn = self.turn.wrapping_add(u16::from(!self.turns.is_empty()));
            self.wants_key = self.plan.codec != Codec::Opus;
        }
        self.is_on = is_on;
    }

    /// Somebody needs a keyframe.
    pub(crate) fn ask_keyframe(&mut self) {
        self.keyframe_requests += 1;
        let since = wall_clock().saturating_sub(self.last_key);
        self.wants_key |= u128::from(since) > KEYFRAME_INTERVAL.as_nanos();
    }

    /// Makes the next frame; `send` gets each packet as soon as it is stamped.
    pub(crate) fn frame(&mut self, window: Window, mut send: impl FnMut(Packet)) {
        let wants_key = std::mem::take(&mut self.wants_key);
        let (packets, is_key) = self.packetiser.begin(self.plan.beat.packets, wants_key);
        for index in 0..packets {
            let mut payload = self.packetiser.payload(Place {
                index,
                packets,
                is_key,
            });
            let now = wall_clock();
            let stamp = Stamp {
                source: self.plan.id,
                turn: self.turn,
                is_video: self.plan.codec != Codec::Opus,
                is_key,
                sequence: self.sequence,
                sent: now,
                frame: self.frame,
                packets: packets as u16,
            };
            stamp.write(&mut payload);
            if is_key {
                self.last_key = now;
            }
            self.turns.entry(self.turn).or_insert(now);
            if window.holds(now) {
                self.sent.note(self.sequence);
            }
            send(Packet {
                payload,
                marker: index + 1 == packets,
                timestamp: self.ticks as u64 as u32,
                sequence: self.sequence,
            });
            self.sequence += 1;
        }
        self.frame += 1;
        self.ticks += self.plan.beat.ticks;
        self.packetiser.next_frame();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Video;

    fn camera() -> Source {
        let beat = Beat::video(&Video {
            codec: Codec::Vp8,
            kbps: 2000,
            frame_packets: Some(3),
            clip: false,
        });
        Source::new(
            SourcePlan {
                id: 4,
                codec: Codec::Vp8,
                beat,
                is_clip: false,
            },
            None,
            true,
        )
    }

    fn stamps(source: &mut Source) -> Vec<Stamp> {
        let mut stamps = Vec::new();
        source.frame(Window::CLOSED, |packet| {
            stamps.push(Stamp::read(&packet.payload).unwrap());
        });
        stamps
    }

    #[test]
    fn a_turn_begins_with_a_keyframe() {
        let mut source = camera();
        let first = stamps(&mut source);
        assert!(first.iter().all(|stamp| stamp.is_key && stamp.turn == 0));
        assert_eq!(stamps(&mut source).len(), 3);
        source.set_on(false);
        source.set_on(true);
        let again = stamps(&mut source);
        assert!(again[0].is_key && again[0].turn == 1);
        assert_eq!(again[0].sequence, first.len() as u64 + 3);
        assert_eq!(source.turns.len(), 2);
    }

    #[test]
    fn repeated_requests_cost_one_keyframe() {
        let mut source = camera();
        stamps(&mut source);
        source.ask_keyframe();
        source.ask_keyframe();
        assert!(!stamps(&mut source)[0].is_key);
        assert_eq!(source.keyframe_requests, 2);
        source.last_key = 0;
        source.ask_keyframe();
        assert!(stamps(&mut source)[0].is_key);
        assert!(!stamps(&mut source)[0].is_key);
    }
}
