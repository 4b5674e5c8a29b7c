//! A line on a virtual clock, for the simulations: what is sent over it waits in its queue, and comes
//! later or never.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::estimate::OVERHEAD;

/// A line with a rate from each moment on, a queue of so much time, and what else it does.
#[derive(Clone)]
pub(crate) struct Line {
    /// From so many seconds on, so many bits per second.
    pub(crate) rates: Vec<(f64, f64)>,
    pub(crate) queue_milliseconds: f64,
    pub(crate) delay_milliseconds: f64,
    pub(crate) loss: f64,
    /// At most so many milliseconds more, evenly spread, without overtaking.
    pub(crate) jitter: f64,
    /// Another flow's bits per second between two moments in seconds, which yields to nobody.
    pub(crate) other: Option<(f64, f64, f64)>,
}

impl Line {
    pub(crate) fn steady(rate: f64) -> Line {
        Line {
            rates: vec![(0.0, rate)],
            queue_milliseconds: 300.0,
            delay_milliseconds: 25.0,
            loss: 0.0,
            jitter: 0.0,
            other: None,
        }
    }

    pub(crate) fn rate(&self, at: f64) -> f64 {
        let rate = self.rates.iter().rev().find(|(from, _)| *from <= at);
        let taken = self
            .other
            .filter(|(from, to, _)| (*from..*to).contains(&at));
        rate.unwrap().1 - taken.map_or(0.0, |(_, _, rate)| rate)
    }
}

/// A line in use.
pub(crate) struct Way {
    pub(crate) line: Line,
    random: StdRng,
    /// When what is queued has left, in seconds.
    free: f64,
    last: f64,
    /// Waits of what was sent, in milliseconds, with when it was sent.
    pub(crate) waits: Vec<(f64, f64)>,
}

impl Way {
    pub(crate) fn new(line: Line, seed: u64) -> Way {
        Way {
            line,
            random: StdRng::seed_from_u64(seed),
            free: 0.0,
            last: 0.0,
            waits: Vec::new(),
        }
    }

    /// When a datagram of so many bytes arrives that is sent now; `None`: it is lost.
    pub(crate) fn carry(&mut self, now: f64, bytes: usize) -> Option<f64> {
        let wait = (self.free - now).max(0.0);
        if wait * 1000.0 > self.line.queue_milliseconds {
            return None;
        }
        self.waits.push((now, wait * 1000.0));
        self.free = now + wait + (bytes + OVERHEAD) as f64 * 8.0 / self.line.rate(now);
        if self.random.random_bool(self.line.loss) {
            return None;
        }
        let jitter = self.line.jitter * self.random.random::<f64>();
        let arrives = self.free + (self.line.delay_milliseconds + jitter) / 1000.0;
        self.last = self.last.max(arrives);
        Some(self.last)
    }

    pub(crate) fn waited(&self, from: f64) -> (f64, f64) {
        let mut waits: Vec<f64> = self
            .waits
            .iter()
            .filter(|one| one.0 >= from)
            .map(|one| one.1)
            .collect();
        waits.sort_by(f64::total_cmp);
        let mean = waits.iter().sum::<f64>() / waits.len().max(1) as f64;
        (
            mean,
            waits.get(waits.len() * 95 / 100).copied().unwrap_or(0.0),
        )
    }
}
