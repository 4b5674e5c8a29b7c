//! Probes: for a moment more is sent than before, and how much of it comes through tells whether the
//! line carries it.

use std::time::{Duration, Instant};

/// How long a probe is sent at least, in microseconds, and how many bits it has.
const LENGTH: i64 = 40_000;
const BITS: f64 = 8.0 * 2400.0;

/// After this, what was not told of a probe does not count, in microseconds.
const PATIENCE: i64 = 1_500_000;

/// Packets that must come.
const LEAST: u32 = 5;

/// Below this part of what was sent, the line carries no more than what came.
const CARRIED: f64 = 0.9;

/// What comes so much later than it was sent, in microseconds, may be the receiver's own unrest.
const UNREST: i64 = 20_000;

/// What came more quickly than it was sent by this was held up on the way, and says nothing.
const BUNCHED: f64 = 2.0;

/// Of what came, this is sure.
const SURE: f64 = 0.95;

/// Between probes that fail; it doubles.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// How many times the rate is tried, at the beginning and later.
const FIRST_FACTOR: f64 = 6.0;
const FACTOR: f64 = 2.0;

/// Probes without any feedback, after which there will be none.
const UNANSWERED: u32 = 3;

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Carried {
    pub(crate) rate: f64,
    /// The line carries all that was tried.
    pub(crate) is_all: bool,
}

/// The packets of a probe.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) id: u8,
    rate: f64,
    length: i64,
    began: i64,
    sent_bytes: usize,
    sent_count: u32,
    first_sent: i64,
    last_sent: i64,
    last_bytes: usize,
    last_sequence: u16,
    /// Feedback tells of the last packet, or of what was sent after it.
    is_told: bool,
    came_bytes: usize,
    came_count: u32,
    first_bytes: usize,
    first_came: i64,
    last_came: i64,
}

impl Cluster {
    pub(crate) fn new(id: u8, micros: i64, rate: f64) -> Cluster {
        Cluster {
            id,
            rate,
            length: LENGTH.max((BITS / rate * 1e6) as i64),
            began: micros,
            sent_bytes: 0,
            sent_count: 0,
            first_sent: micros,
            last_sent: micros,
            last_bytes: 0,
            last_sequence: 0,
            is_told: false,
            came_bytes: 0,
            came_count: 0,
            first_bytes: 0,
            first_came: 0,
            last_came: 0,
        }
    }

    pub(crate) fn is_sending(&self, micros: i64) -> bool {
        micros - self.began < self.length
    }

    pub(crate) fn is_over(&self, micros: i64) -> bool {
        micros - self.began > PATIENCE
    }

    /// Bytes that should have been sent by now and were not.
    pub(crate) fn due(&self, micros: i64) -> usize {
        if !self.is_sending(micros) {
            return 0;
        }
        // The first packets stand for what comes until the next time.
        let due = self.rate * (micros - self.began + LENGTH / 8) as f64 / 8e6;
        (due as usize).saturating_sub(self.sent_bytes)
    }

    pub(crate) fn sent(&mut self, micros: i64, sequence: u16, bytes: usize) {
        if self.sent_count == 0 {
            self.first_sent = micros;
        }
        self.sent_count += 1;
        self.sent_bytes += bytes;
        (self.last_sent, self.last_bytes, self.last_sequence) = (micros, bytes, sequence);
    }

    pub(crate) fn told(&mut self, sequence: u16) {
        self.is_told |= sequence == self.last_sequence;
    }

    pub(crate) fn came(&mut self, arrived: i64, bytes: usize) {
        if self.came_count == 0 {
            (self.first_came, self.first_bytes, self.last_came) = (arrived, bytes, arrived);
        }
        self.came_count += 1;
        self.came_bytes += bytes;
        self.first_came = self.first_came.min(arrived);
        self.last_came = self.last_came.max(arrived);
    }

    /// What it found; `Some(None)`: nothing. `None`: it is not over. `own` is the share that the line
    /// loses by itself.
    pub(crate) fn verdict(&self, micros: i64, own: f64) -> Option<Option<Carried>> {
        if self.is_sending(micros) || !(self.is_told || self.is_over(micros)) {
            return None;
        }
        Some(self.carried(own))
    }

    fn carried(&self, own: f64) -> Option<Carried> {
        let sent_for = self.last_sent - self.first_sent;
        let came_for = self.last_came - self.first_came;
        if self.came_count < LEAST || sent_for <= 0 {
            return None;
        }
        let rate = |bytes: usize, micros: i64| bytes as f64 * 8e6 / micros.max(1) as f64;
        let sent = rate(self.sent_bytes - self.last_bytes, sent_for);
        let came = rate(self.came_bytes - self.first_bytes, came_for) / (1.0 - own);
        if came > BUNCHED * sent {
            return None;
        }
        Some(if came < CARRIED * sent && came_for - sent_for > UNREST {
            Carried {
                rate: SURE * came,
                is_all: false,
            }
        } else {
            Carried {
                rate: sent,
                is_all: true,
            }
        })
    }
}

/// When the next probe is due.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    next: Option<Instant>,
    pause: Duration,
    count: u32,
    id: u8,
    is_steady: bool,
    /// When a probe was last judged.
    pub(crate) judged: Option<Instant>,
}

impl Schedule {
    /// How many times the rate may be tried now.
    pub(crate) fn due(&mut self, now: Instant, has_feedback: bool) -> Option<f64> {
        if self.next.is_some_and(|next| now < next) || (!has_feedback && self.count >= UNANSWERED) {
            return None;
        }
        self.count = self.count.saturating_add(1);
        Some(if self.is_steady { FACTOR } else { FIRST_FACTOR })
    }

    pub(crate) fn next_id(&mut self) -> u8 {
        self.id = self.id % 63 + 1;
        self.id
    }

    pub(crate) fn succeeded(&mut self, now: Instant) {
        self.is_steady = true;
        self.pause = Duration::ZERO;
        self.next = Some(now);
    }

    pub(crate) fn failed(&mut self, now: Instant) {
        self.is_steady = true;
        self.pause = (self.pause * 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        self.next = Some(now + self.pause);
    }

    /// Not now.
    pub(crate) fn wait(&mut self, now: Instant) {
        let next = now + SHORTEST_PAUSE;
        self.next = Some(self.next.map_or(next, |set| set.max(next)));
    }

    /// The line may be another one.
    pub(crate) fn begin_anew(&mut self, now: Instant) {
        self.is_steady = false;
        self.pause = Duration::ZERO;
        self.next = Some(now);
    }
}
