//! What is given up when the processor is full: pictures, and the sharpest first; sound last.
//!
//! A level from 0 to 200 rises quickly while the thread has no rest and falls slowly when it has.
//! Every subscriber has a rank from 0 to 99. Below 100, pictures of those whose rank is below the
//! level are sent in their lowest layer; above, those whose rank is below the rest get none. The
//! rank is the connection's, so that it is not somebody else's picture every second.

use std::time::{Duration, Instant};

use crate::command::{ConnectionId, Quality};
use crate::subscription::Ceiling;

/// Thousandths of the time that the thread works, from which on something is given up.
const FULL: u64 = 950;

/// Below this, what was given up comes back. Far enough below that it does not go again at once.
const ROOM: u64 = 800;

/// By how much the level rises at the first report of a full processor; at each that follows, by so
/// much more. What waits meanwhile comes too late.
const RISE: u32 = 12;

/// By how much it falls, and how often.
const FALL: u32 = 4;
const FALL_INTERVAL: Duration = Duration::from_secs(1);

/// After a rise nothing comes back for so long.
const HOLD: Duration = Duration::from_secs(5);

const RANKS: u32 = 100;

/// How much is given up now.
#[derive(Debug, Default)]
pub(crate) struct Shed {
    level: u32,
    /// Reports of a full processor in a row.
    full: u32,
    changed: Option<Instant>,
}

impl Shed {
    /// Takes a report of how busy the thread was, in thousandths; whether anything changes.
    pub(crate) fn update(&mut self, now: Instant, busy: u64) -> bool {
        let waits = |pause| {
            self.changed
                .is_some_and(|at| now.saturating_duration_since(at) < pause)
        };
        self.full = if busy >= FULL {
            self.full.saturating_add(1)
        } else {
            0
        };
        let level = if self.full > 0 {
            let rise = RISE.saturating_mul(self.full);
            self.level.saturating_add(rise).min(2 * RANKS)
        } else if busy < ROOM && self.level > 0 && !waits(FALL_INTERVAL) {
            self.level.saturating_sub(FALL)
        } else {
            return false;
        };
        let is_rise = level > self.level;
        let is_changed = level != self.level;
        self.level = level;
        self.changed = Some(if is_rise {
            now + HOLD - FALL_INTERVAL
        } else {
            now
        });
        is_changed
    }

    /// What is left of a connection's pictures.
    pub(crate) fn of(&self, connection: ConnectionId) -> Ceiling {
        // Fibonacci hashing spreads numbers that follow one another.
        let mixed = connection.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        let rank = (mixed % u64::from(RANKS)) as u32;
        if self.level > RANKS + rank {
            Ceiling::Nothing
        } else if self.level > rank {
            Ceiling::Layer {
                quality: Quality::Low,
                temporal: u8::MAX,
            }
        } else {
            Ceiling::None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_lose_sharpness_before_any_is_lost_and_come_back_slowly() {
        let mut now = Instant::now();
        let mut shed = Shed::default();
        let counts = |shed: &Shed| {
            let all = (1..=1000).map(|id| shed.of(ConnectionId(id)));
            let blunt = all.clone().filter(|loss| *loss != Ceiling::None).count();
            let none = all.filter(|loss| *loss == Ceiling::Nothing).count();
            (blunt, none)
        };
        assert_eq!(counts(&shed), (0, 0));
        now += Duration::from_millis(250);
        assert!(shed.update(now, 1000));
        let (blunt, none) = counts(&shed);
        assert!((80..160).contains(&blunt) && none == 0, "{blunt} {none}");
        for _ in 0..2 {
            now += Duration::from_millis(250);
            assert!(shed.update(now, 1000));
        }
        let (blunt, none) = counts(&shed);
        assert!((640..800).contains(&blunt) && none == 0, "{blunt} {none}");
        assert!(!shed.update(now, 900), "neither full nor free");
        for _ in 0..3 {
            now += Duration::from_millis(250);
            shed.update(now, 1000);
        }
        let (blunt, none) = counts(&shed);
        assert!(
            blunt == 1000 && (350..530).contains(&none),
            "{blunt} {none}"
        );
        assert!(
            !shed.update(now + Duration::from_secs(9), 900),
            "neither full nor free"
        );
        assert!(!shed.update(now + Duration::from_secs(3), 100), "too soon");
        let mut seconds = 0;
        while counts(&shed) != (0, 0) {
            now += Duration::from_millis(250);
            shed.update(now, 100);
            seconds += 1;
            assert!(seconds < 400, "it never comes back");
        }
        assert!(
            seconds > 100,
            "it came back within {seconds} quarters of a second"
        );
    }
}
