//! When connections want to be called: a wheel of turns, so that setting a time costs the same
//! with ten connections as with ten thousand.

use std::time::{Duration, Instant};

use crate::command::ConnectionId;

/// How far apart two turns are. Shorter is more exact; longer calls more connections at once.
const TURN: Duration = Duration::from_millis(10);

/// Turns until the wheel comes round. What is due later is looked at once on the way.
const TURNS: u64 = 1024;

/// Which connections are due when. A connection is called at the turn after its time, so at most
/// [`TURN`] late.
pub(crate) struct Wheel {
    start: Instant,
    /// Nothing stands at turns before this one.
    current: u64,
    slots: Vec<Vec<ConnectionId>>,
    /// One bit a slot: something stands there.
    taken: [u64; (TURNS / 64) as usize],
}

impl Wheel {
    pub(crate) fn new(now: Instant) -> Self {
        Wheel {
            start: now,
            current: 0,
            slots: vec![Vec::new(); TURNS as usize],
            taken: [0; (TURNS / 64) as usize],
        }
    }

    /// Has a connection called at `time`. `turn` is the turn at which it stands, if any; one that is
    /// sooner stays, and whoever is called too soon sets its time again.
    pub(crate) fn set(&mut self, id: ConnectionId, time: Instant, turn: &mut Option<u64>) {
        let since = time.saturating_duration_since(self.start).as_nanos();
        let wanted = u64::try_from(since.div_ceil(TURN.as_nanos())).unwrap_or(u64::MAX);
        let wanted = wanted.clamp(self.current, self.current + TURNS - 1);
        if turn.is_some_and(|turn| turn <= wanted) {
            return;
        }
        *turn = Some(wanted);
        let slot = wanted % TURNS;
        self.slots[slot as usize].push(id);
        self.taken[(slot / 64) as usize] |= 1 << (slot % 64);
    }

    /// When [`Wheel::due`] has something next.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.next_turn().map(|turn| self.at(turn))
    }

    /// A connection whose turn has come, with that turn; it stands there no longer. It is to be
    /// ignored if it stands at another one by now.
    pub(crate) fn due(&mut self, now: Instant) -> Option<(ConnectionId, u64)> {
        loop {
            let Some(turn) = self.next_turn().filter(|turn| self.at(*turn) <= now) else {
                let passed = now.saturating_duration_since(self.start).as_nanos() / TURN.as_nanos();
                self.current = self.current.max(passed as u64);
                return None;
            };
            self.current = turn;
            let slot = turn % TURNS;
            match self.slots[slot as usize].pop() {
                Some(id) => return Some((id, turn)),
                None => self.taken[(slot / 64) as usize] &= !(1 << (slot % 64)),
            }
        }
    }

    fn at(&self, turn: u64) -> Instant {
        self.start + Duration::from_nanos(TURN.as_nanos() as u64 * turn)
    }

    fn next_turn(&self) -> Option<u64> {
        let first = self.current % TURNS;
        let words = self.taken.len() as u64;
        // The word of the current slot comes twice: its upper part first, its lower part last.
        (0..=words).find_map(|step| {
            let at = (first / 64 + step) % words;
            let mask = match step {
                0 => u64::MAX << (first % 64),
                step if step == words => !(u64::MAX << (first % 64)),
                _ => u64::MAX,
            };
            let bits = self.taken[at as usize] & mask;
            let slot = at * 64 + u64::from(bits.trailing_zeros());
            (bits != 0).then(|| self.current + (slot + TURNS - first) % TURNS)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is set and set again: nobody is called before the time, and everybody within
        /// two turns after it, called at the times that the wheel names.
        #[test]
        fn everyone_is_called_in_time(
            steps in proptest::collection::vec((0..20_u64, 0..30_000_u64, 0..40_u64), 1..300),
        ) {
            let start = Instant::now();
            let mut wheel = Wheel::new(start);
            let mut now = start;
            let mut times: BTreeMap<u64, Instant> = BTreeMap::new();
            let mut turns: BTreeMap<u64, Option<u64>> = BTreeMap::new();
            for (id, later, pause) in steps {
                let time = now + Duration::from_millis(later);
                times.insert(id, time);
                wheel.set(ConnectionId(id), time, turns.entry(id).or_default());
                let until = now + Duration::from_millis(pause);
                while let Some(next) = wheel.next().filter(|next| *next <= until) {
                    now = now.max(next);
                    while let Some((ConnectionId(id), turn)) = wheel.due(now) {
                        if turns[&id] != Some(turn) {
                            continue;
                        }
                        turns.insert(id, None);
                        let time = times[&id];
                        if time > now {
                            wheel.set(ConnectionId(id), time, turns.get_mut(&id).unwrap());
                        } else {
                            prop_assert!(now - time <= 2 * TURN, "{:?} late", now - time);
                            times.remove(&id);
                        }
                    }
                }
                now = until;
                prop_assert!(times.values().all(|time| *time + 2 * TURN >= now));
            }
        }
    }
}
