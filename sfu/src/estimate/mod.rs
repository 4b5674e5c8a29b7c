//! How much a subscriber's line carries: Google congestion control from transport-wide feedback
//! (draft-ietf-rmcat-gcc-02), with probes by padding; of receivers without such feedback, what they
//! estimate themselves or lose.
//!
//! Rates are in bits per second, with IP's and UDP's headers. Pure: it is told the time, the packets
//! sent and the reports, and tells a rate.

mod arrivals;
mod meter;
mod probe;
#[cfg(test)]
mod simulation;
mod trend;

use std::time::{Duration, Instant};

use crate::account::LineState;
#[cfg(any(test, fuzzing))]
pub(crate) use arrivals::check as check_arrivals;
#[cfg(test)]
pub(crate) use arrivals::write as write_arrivals;
use meter::Meter;
use probe::Cluster;
use trend::{Trend, Usage};

use crate::part::Part;

/// What IP and UDP add to a datagram, in bytes.
pub(crate) const OVERHEAD: usize = 28;

/// Packets remembered until feedback tells of them: two seconds of 5 Mbit/s.
const RECORDS: usize = arrivals::MOST;

/// The rate begun with until something is known.
const FIRST: f64 = 500_000.0;

/// Never less: sound and a few pictures a second.
const LEAST: f64 = 60_000.0;

/// Never more: no subscriber is sent that much.
const MOST: f64 = 100_000_000.0;

/// No probe tries less, if so much is needed.
const LEAST_PROBE: f64 = 200_000.0;

/// After overuse, so much of what came through. Browsers take 0.85; a queue is emptied here by
/// [`QUEUE`] besides.
const DECREASE: f64 = 0.92;

/// Where much less is sent than the rate, overuse says little of the rate: it becomes so much of itself.
const DECREASE_UNUSED: f64 = 0.85;

/// Less than this part of the rate is much less.
const UNUSED: f64 = 0.6;

/// Growth in a second while nothing is known of the limit.
const GROWTH: f64 = 1.08;

/// Growth near the limit: a packet of so many bits for each response of the line.
const STEP: f64 = 1200.0 * 8.0;

/// What a response takes beside the round trip: finding overuse.
const RESPONSE: Duration = Duration::from_millis(100);

/// What came through may be exceeded so far, by growing.
const AHEAD: f64 = 1.5;

/// For so long after the first feedback the first probes climb, and little is sent.
const CLIMBS_FOR: Duration = Duration::from_secs(1);

/// Without feedback on what is sent for so long, the line is interrupted.
const INTERRUPTED_AFTER: Duration = Duration::from_secs(1);

/// Feedback older than this is no longer counted on; other reports are then.
const FEEDBACK_LASTS: Duration = Duration::from_secs(10);

/// After a probe, the queue that it made is not taken for overuse for so long.
const PROBE_SETTLES: Duration = Duration::from_millis(400);

/// After a keyframe, the queue that it made is not taken for overuse for so long, unless it is one to be
/// emptied: a picture that begins would be taken back by its own beginning.
const KEYFRAME_SETTLES: Duration = Duration::from_millis(500);

/// A clock that moves so far between two packets is another clock, in microseconds.
const CLOCK_JUMP: i64 = 60_000_000;

/// The shortest delay is looked for over one to two of these, in microseconds.
const SHORTEST_OVER: i64 = 10_000_000;

/// A queue that takes longer than this is emptied by sending less, the less the longer it is.
const QUEUE: f64 = 80.0;
const QUEUE_FULL: f64 = 400.0;

/// With a shorter one, a trend is the receiver's own unrest.
const LEAST_QUEUE: f64 = 8.0;

/// The least part that is left for sending while a queue is emptied.
const QUEUE_LEAVES: f64 = 0.5;

/// More loss than this than the line has by itself is taken for ours.
const LOSS: f64 = 0.1;

/// A window of loss is so long and has so many packets, or is longer and has a few.
const LOSS_WINDOW: (Duration, u32) = (Duration::from_millis(400), 20);
const LOSS_LONG_WINDOW: (Duration, u32) = (Duration::from_secs(2), 5);

/// Loss that stays over so many windows, in spite of sending less and without a queue, is the line's
/// own. Once there was too much, half as much in excess counts too, for it strays by chance.
const LOSS_OWN_AFTER: u32 = 5;

/// No line is taken to lose more than this by itself.
const LOSS_OWN_MOST: f64 = 0.4;

/// With a queue of more than these milliseconds, loss is ours.
const LOSS_QUEUE: f64 = 60.0;

/// A receiver that takes transport-wide numbers has told something within this.
const UNKNOWN_FOR: Duration = Duration::from_secs(2);

/// What may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Budget {
    /// Soon something will be known; until then better little.
    Unknown,
    /// Nothing is known, nor will be soon.
    Unlimited,
    /// So many bits per second.
    Bits(u64),
}

const PENDING: u8 = 1;
const LOST: u8 = 2;
const CAME: u8 = 3;

/// A packet that was sent: 8 bytes, for there are a thousand for each subscriber.
#[derive(Clone, Copy, Default)]
struct Record {
    /// Microseconds of our clock, modulo 2³².
    at: u32,
    bytes: u16,
    /// The upper part of its number, that does not follow from its place.
    lap: u8,
    /// The lower two bits: what became of it; above them the probe that it was sent with.
    state: u8,
}

impl Record {
    fn became(&self) -> u8 {
        self.state & 3
    }

    fn cluster(&self) -> u8 {
        self.state >> 2
    }

    fn set(&mut self, became: u8) {
        self.state = self.state & !3 | became;
    }
}

/// What came through at overuse: the rate at which the line is full, and how far that varies.
#[derive(Debug, Default)]
struct Capacity(Option<(f64, f64)>);

impl Capacity {
    /// How far above (or, negative, below) what it varies within a rate lies, in kbit/s.
    fn beyond(&self, rate: f64) -> f64 {
        let Some((mean, variance)) = self.0 else {
            return 0.0;
        };
        let deviation = (variance * mean).sqrt() * 3.0;
        let far = rate / 1000.0 - mean;
        far - far.clamp(-deviation, deviation)
    }

    /// In kbit/s, for which the bounds of the variance are made.
    fn add(&mut self, rate: f64) {
        let rate = rate / 1000.0;
        self.0 = Some(match self.0 {
            None => (rate, 0.4),
            Some((mean, variance)) => {
                let mean = 0.95 * mean + 0.05 * rate;
                let far = (mean - rate) * (mean - rate) / mean.max(1.0);
                (mean, (0.95 * variance + 0.05 * far).clamp(0.4, 2.5))
            }
        });
    }
}

#[derive(Debug, Default)]
struct Losses {
    since: Option<Instant>,
    expected: u32,
    lost: u32,
    /// Of the last window.
    share: f64,
    /// What the line loses whatever is sent.
    own: f64,
    /// Windows in a row with too much loss, and how many packets were lost in them of how many.
    windows: u32,
    in_them: (u32, u32),
}

/// The estimate for one connection.
pub(crate) struct Estimate {
    begin: Instant,
    /// By the number modulo their count; none before the first packet.
    records: Vec<Record>,
    /// Packets sent since the last feedback.
    unanswered: u32,
    /// The receiver's clock at the last arrival told.
    clock: Option<i64>,
    trend: Trend,
    came: Meter,
    sent: Meter,
    rate: f64,
    /// More than the rate was tried, and did not come through.
    is_limited: bool,
    /// A probe brought all that was needed.
    is_enough: bool,
    capacity: Capacity,
    decreased: Option<Instant>,
    /// When a keyframe was last sent.
    keyframe: Option<Instant>,
    grown: Option<Instant>,
    /// The receiver takes transport-wide numbers.
    is_told: bool,
    first_sent: Option<Instant>,
    first_feedback: Option<Instant>,
    feedback: Option<Instant>,
    round_trip: Duration,
    losses: Losses,
    /// While the line is interrupted, when the rate was last taken down.
    interrupted: Option<Instant>,
    /// What the line carried before it was interrupted, until that was tried again.
    before: Option<f64>,
    /// The shortest delay in this stretch of time and the one before, and when this one began.
    shortest: (Option<i64>, Option<i64>, i64),
    /// Milliseconds that a packet waits on the way, smoothed.
    queue: f64,
    cluster: Option<Cluster>,
    probes: probe::Schedule,
}

impl Estimate {
    pub(crate) fn new(now: Instant) -> Estimate {
        Estimate {
            begin: now,
            records: Vec::new(),
            unanswered: 0,
            clock: None,
            trend: Trend::default(),
            came: Meter::default(),
            sent: Meter::default(),
            rate: FIRST,
            is_limited: false,
            is_enough: false,
            capacity: Capacity::default(),
            decreased: None,
            keyframe: None,
            grown: None,
            is_told: false,
            first_sent: None,
            first_feedback: None,
            feedback: None,
            round_trip: Duration::from_millis(100),
            losses: Losses::default(),
            interrupted: None,
            before: None,
            shortest: (None, None, 0),
            queue: 0.0,
            cluster: None,
            probes: probe::Schedule::default(),
        }
    }

    fn micros(&self, now: Instant) -> i64 {
        now.saturating_duration_since(self.begin).as_micros() as i64
    }

    /// The receiver takes transport-wide numbers, and will tell what came.
    pub(crate) fn expect_feedback(&mut self) {
        self.is_told = true;
    }

    pub(crate) fn budget(&self, now: Instant) -> Budget {
        if self.is_limited {
            let full = ((self.queue - QUEUE) / QUEUE_FULL).clamp(0.0, 1.0 - QUEUE_LEAVES);
            let full = if Part::QueueEmptied.is_there() {
                full
            } else {
                0.0
            };
            return Budget::Bits((self.rate * (1.0 - full)) as u64);
        }
        let waits = |since: Instant, pause| now.saturating_duration_since(since) < pause;
        let is_unknown = match (self.first_sent, self.first_feedback) {
            (_, Some(first)) => waits(first, CLIMBS_FOR),
            (Some(first), None) => waits(first, UNKNOWN_FOR),
            (None, None) => true,
        };
        if self.is_told && is_unknown && !self.is_enough {
            Budget::Unknown
        } else {
            Budget::Unlimited
        }
    }

    /// What is known of the line.
    pub(crate) fn state(&self, now: Instant) -> LineState {
        match self.budget(now) {
            Budget::Unknown => LineState::Unmeasured,
            Budget::Unlimited => LineState::Unlimited,
            Budget::Bits(_) if self.interrupted.is_some() => LineState::Interrupted,
            Budget::Bits(_) => LineState::Limited,
        }
    }

    /// What the line carries, in bits per second, once something was measured.
    pub(crate) fn rate(&self) -> Option<u64> {
        let is_measured = self.is_limited || self.first_feedback.is_some();
        is_measured.then_some(self.rate as u64)
    }

    /// What was sent over the last half second, in bits per second.
    pub(crate) fn sent_rate(&self) -> Option<u64> {
        self.sent.rate().map(|rate| rate as u64)
    }

    /// How long a packet waits on the way.
    pub(crate) fn queue(&self) -> Duration {
        Duration::from_secs_f64(self.queue.max(0.0) / 1000.0)
    }

    /// The share of packets that the line loses by itself, whatever is sent.
    pub(crate) fn own_loss(&self) -> f64 {
        self.losses.own
    }

    /// The share of packets that are lost without a queue, lately.
    pub(crate) fn loss_without_queue(&self) -> f64 {
        if self.queue < LOSS_QUEUE {
            self.losses.share
        } else {
            self.losses.own
        }
    }

    /// The share of packets that the line loses, lately.
    pub(crate) fn loss(&self) -> f64 {
        self.losses.share
    }

    /// A keyframe is sent, many times the size of other pictures at once.
    pub(crate) fn keyframe(&mut self, now: Instant) {
        self.keyframe = Some(now);
    }

    /// A datagram of so many bytes was sent, under a transport-wide number where the receiver takes
    /// them.
    pub(crate) fn sent(&mut self, now: Instant, sequence: Option<u16>, bytes: usize) {
        let micros = self.micros(now);
        let bytes = bytes + OVERHEAD;
        self.sent.add(micros, bytes);
        let Some(sequence) = sequence else {
            return;
        };
        if self.records.is_empty() {
            self.records.resize(RECORDS, Record::default());
            self.first_sent = Some(now);
        }
        let cluster = match &mut self.cluster {
            Some(cluster) if cluster.is_sending(micros) => {
                cluster.sent(micros, sequence, bytes);
                cluster.id
            }
            _ => 0,
        };
        self.unanswered = self.unanswered.saturating_add(1);
        self.records[usize::from(sequence) % RECORDS] = Record {
            at: micros as u32,
            bytes: bytes.min(usize::from(u16::MAX)) as u16,
            lap: (usize::from(sequence) / RECORDS) as u8,
            state: cluster << 2 | PENDING,
        };
    }

    /// Transport-wide feedback, from its base number on.
    pub(crate) fn arrivals(&mut self, now: Instant, body: &[u8]) {
        if self.records.is_empty() {
            return;
        }
        let micros = self.micros(now);
        let mut newest = None;
        // What was told before a fault counts.
        let _ = arrivals::read(body, |sequence, arrived| {
            if let Some(sent) = self.arrival(micros, sequence, arrived) {
                newest = Some(sent);
            }
        });
        let Some(sent) = newest else {
            return;
        };
        self.round_trip = Duration::from_micros((micros - sent).max(0) as u64);
        self.unanswered = 0;
        self.feedback = Some(now);
        self.first_feedback.get_or_insert(now);
        if self.interrupted.is_some() {
            self.begin_anew(now);
        }
        self.judge_probe(now, micros);
        self.judge_losses(now);
        self.adapt(now);
    }

    /// Something came from the receiver after a silence. What the line carried before it was interrupted may be
    /// tried again, where nothing was told of it meanwhile; whether it is so.
    pub(crate) fn heard_again(&mut self, now: Instant, silence: Duration) -> bool {
        let is_old = |at| now.saturating_duration_since(at) >= INTERRUPTED_AFTER;
        let is_back = silence >= INTERRUPTED_AFTER
            && self.before.is_some()
            && self.feedback.is_some_and(is_old);
        if is_back {
            self.begin_anew(now);
        }
        is_back
    }

    /// The line is there again.
    fn begin_anew(&mut self, now: Instant) {
        self.interrupted = None;
        self.losses = Losses {
            own: self.losses.own,
            ..Losses::default()
        };
        self.trend = Trend::default();
        self.queue = 0.0;
        self.unanswered = 0;
        // What was sent meanwhile is lost, a probe too.
        self.cluster = None;
        self.probes.begin_anew(now);
    }

    /// Notes what became of one packet; when it was sent, if it came.
    fn arrival(&mut self, micros: i64, sequence: u16, arrived: Option<i64>) -> Option<i64> {
        let record = &mut self.records[usize::from(sequence) % RECORDS];
        let is_of = usize::from(record.lap) == usize::from(sequence) / RECORDS;
        let before = record.became();
        if !is_of || before == 0 || before == CAME {
            return None;
        }
        let cluster = self
            .cluster
            .as_mut()
            .filter(|cluster| cluster.id == record.cluster());
        let Some(arrived) = arrived else {
            if before == PENDING {
                record.set(LOST);
                self.losses.expected += 1;
                self.losses.lost += 1;
            }
            if let Some(cluster) = cluster {
                cluster.told(sequence);
            }
            return None;
        };
        record.set(CAME);
        if before == LOST {
            self.losses.lost = self.losses.lost.saturating_sub(1);
        } else {
            self.losses.expected += 1;
        }
        let (bytes, at) = (usize::from(record.bytes), record.at);
        let sent = micros - i64::from((micros as u32).wrapping_sub(at));
        let clock = self.clock.unwrap_or(arrived);
        let half = arrivals::WRAP / 2;
        let moved = (arrived - clock + half).rem_euclid(arrivals::WRAP) - half;
        let arrived = if moved.abs() > CLOCK_JUMP {
            self.trend = Trend::default();
            self.came = Meter::default();
            self.shortest = (None, None, micros);
            arrived
        } else {
            clock + moved
        };
        self.clock = Some(arrived);
        if let Some(cluster) = cluster {
            cluster.came(arrived, bytes);
            cluster.told(sequence);
        }
        self.trend.add(sent, arrived);
        self.came.add(arrived, bytes);
        self.delayed(micros, arrived - sent);
        Some(sent)
    }

    fn delayed(&mut self, micros: i64, delay: i64) {
        let (this, last, since) = &mut self.shortest;
        if micros - *since > SHORTEST_OVER {
            (*last, *this, *since) = (*this, None, micros);
        }
        let shortest = this.map_or(delay, |this| this.min(delay));
        *this = Some(shortest);
        let shortest = last.map_or(shortest, |last| last.min(shortest));
        let waited = (delay - shortest) as f64 / 1000.0;
        self.queue += (waited - self.queue) / 8.0;
    }

    /// What came through, with what the line loses by itself.
    fn came_through(&self) -> Option<f64> {
        Some(self.came.rate()? / (1.0 - self.losses.own))
    }

    fn set(&mut self, rate: f64) {
        self.rate = rate.clamp(LEAST, MOST);
    }

    /// Much less is sent than the rate allows.
    fn is_unused(&self) -> bool {
        self.sent
            .rate()
            .is_some_and(|sent| sent < UNUSED * self.rate)
    }

    fn adapt(&mut self, now: Instant) {
        let since = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
        let grown = since(self.grown.replace(now)).unwrap_or_default();
        match self.trend.usage() {
            Usage::Over => {
                let pause = self.round_trip + RESPONSE;
                if self.queue < LEAST_QUEUE
                    || since(self.decreased).is_some_and(|since| since < pause)
                    || self.cluster.is_some()
                    || (self.queue < QUEUE
                        && Part::KeyframeSettles.is_there()
                        && since(self.keyframe).is_some_and(|since| since < KEYFRAME_SETTLES))
                    || since(self.probes.judged).is_some_and(|since| since < PROBE_SETTLES)
                {
                    return;
                }
                self.probes.wait(now);
                self.decreased = Some(now);
                self.is_limited = true;
                // So much is sent, and whatever delays it is not that it is too much.
                let sent = self.sent.rate().unwrap_or(0.0);
                let unused = self
                    .is_unused()
                    .then_some((DECREASE_UNUSED * self.rate).max(sent));
                let came = self.came_through().unwrap_or(self.rate);
                if self.capacity.beyond(came) < 0.0 {
                    self.capacity = Capacity::default();
                }
                if unused.is_none() {
                    self.capacity.add(came);
                }
                self.set((DECREASE * came).max(unused.unwrap_or(0.0)).min(self.rate));
            }
            Usage::Under => {}
            Usage::Normal => {
                if self.losses.windows > 0 {
                    return;
                }
                let Some(came) = self.came_through() else {
                    return;
                };
                if self.capacity.beyond(came) > 0.0 {
                    self.capacity = Capacity::default();
                }
                // Before the limit was ever met, what was sent and came in time is carried, whatever
                // was believed; what comes out of a queue may be more.
                let carried = self.sent.rate().map_or(0.0, |sent| sent.min(came));
                if self.capacity.0.is_none() && self.queue < QUEUE / 2.0 && carried > self.rate {
                    self.set(carried);
                }
                let seconds = grown.as_secs_f64().min(1.0);
                let higher = if self.capacity.0.is_some() {
                    let response = (self.round_trip + RESPONSE).as_secs_f64();
                    self.rate + (STEP / response).max(4000.0) * seconds
                } else {
                    self.rate * GROWTH.powf(seconds)
                };
                let limit = AHEAD * came + 10_000.0;
                if higher > self.rate {
                    self.set(higher.min(limit.max(self.rate)));
                }
            }
        }
    }

    fn judge_losses(&mut self, now: Instant) {
        let Losses {
            since,
            expected,
            lost,
            ..
        } = &mut self.losses;
        let passed = now.saturating_duration_since(*since.get_or_insert(now));
        let is_full = |(time, count): (Duration, u32)| passed >= time && *expected >= count;
        if !is_full(LOSS_WINDOW) && !is_full(LOSS_LONG_WINDOW) {
            return;
        }
        let count = f64::from(*expected);
        let share = f64::from(*lost) / count;
        let many = *lost >= 3;
        let told = (*lost, *expected);
        (*since, *expected, *lost) = (Some(now), 0, 0);
        self.losses.share = share;
        let own = self.losses.own;
        // So far a line that loses as many by itself strays by chance.
        let often = own.max(LOSS / 2.0);
        let chance = 2.0 * (often * (1.0 - often) / count).sqrt();
        let excess = share - own;
        let most = if self.losses.windows > 0 {
            LOSS / 2.0
        } else {
            LOSS + chance
        };
        if excess <= most || !many {
            let weight = if excess < 0.0 { 0.3 } else { 0.1 };
            // A line that loses little has no loss of its own to speak of.
            if own > 0.0 {
                self.losses.own += excess * weight;
            }
            (self.losses.windows, self.losses.in_them) = (0, (0, 0));
            return;
        }
        self.is_limited = true;
        self.probes.wait(now);
        self.decreased = Some(now);
        let is_unused = self.is_unused();
        let sent = self.sent.rate().unwrap_or(self.rate);
        let came = self.came.rate().unwrap_or(sent);
        let is_ours = self.queue > LOSS_QUEUE || share > LOSS_OWN_MOST + LOSS;
        if is_ours && !is_unused {
            self.set((0.95 * came).min(self.rate));
            return;
        }
        self.losses.windows += 1;
        let (all_lost, all) = &mut self.losses.in_them;
        *all_lost += told.0;
        *all += told.1;
        let of_them = f64::from(*all_lost) / f64::from(*all);
        let from = if is_unused {
            self.rate
        } else {
            self.rate.min(sent)
        };
        self.set(from * (1.0 - 0.5 * excess));
        if self.losses.windows >= LOSS_OWN_AFTER && Part::OwnLoss.is_there() {
            self.losses.own = of_them.min(LOSS_OWN_MOST);
            (self.losses.windows, self.losses.in_them) = (0, (0, 0));
            self.probes.begin_anew(now);
        }
    }

    fn judge_probe(&mut self, now: Instant, micros: i64) {
        let own = self.losses.own;
        let Some(verdict) = self
            .cluster
            .as_ref()
            .and_then(|one| one.verdict(micros, own))
        else {
            return;
        };
        self.cluster = None;
        self.probes.judged = Some(now);
        let Some(probe::Carried { rate, is_all }) = verdict else {
            self.probes.failed(now);
            return;
        };
        self.before = None;
        if is_all {
            self.probes.succeeded(now);
        } else {
            self.probes.failed(now);
        }
        if rate > self.rate || !(is_all || self.is_limited) {
            self.set(rate);
        }
        self.is_limited |= !is_all;
    }

    /// Begins a probe where one is due and more is `needed` than the rate.
    pub(crate) fn probe(&mut self, now: Instant, needed: u64) {
        let micros = self.micros(now);
        if let Some(cluster) = &self.cluster {
            if !cluster.is_over(micros) {
                return;
            }
            self.judge_probe(now, micros);
        }
        let needed = needed as f64;
        let is_calm = self.trend.usage() == Usage::Normal
            && self.queue < QUEUE
            && self.interrupted.is_none()
            && self.losses.windows == 0;
        if needed < 1.02 * self.rate {
            self.is_enough |= self.probes.judged.is_some();
            return;
        }
        if !is_calm || !Part::Probes.is_there() {
            return;
        }
        let has_feedback = self.feedback.is_some();
        if let Some(factor) = self.probes.due(now, has_feedback) {
            let most = (factor * self.rate).max(LEAST_PROBE);
            let most = most.max(self.before.unwrap_or(0.0));
            let rate = (1.2 * needed).min(most);
            let id = self.probes.next_id();
            self.cluster = Some(Cluster::new(id, micros, rate));
        }
    }

    /// Whether a probe is being sent.
    pub(crate) fn is_probing(&self, now: Instant) -> bool {
        let micros = self.micros(now);
        let sends = |cluster: &Cluster| cluster.is_sending(micros);
        self.cluster.as_ref().is_some_and(sends)
    }

    /// Whether a probe is being sent, or what came of it is awaited.
    pub(crate) fn awaits_probe(&self, now: Instant) -> bool {
        let micros = self.micros(now);
        let is_awaited = |cluster: &Cluster| !cluster.is_over(micros);
        self.cluster.as_ref().is_some_and(is_awaited)
    }

    /// Bytes of padding to send now, beside what is sent anyway.
    pub(crate) fn padding(&self, now: Instant) -> usize {
        let micros = self.micros(now);
        self.cluster
            .as_ref()
            .map_or(0, |cluster| cluster.due(micros))
    }

    /// To be called a few times a second.
    pub(crate) fn advance(&mut self, now: Instant) {
        self.sent.pass(self.micros(now));
        let Some(feedback) = self.feedback else {
            return;
        };
        if self.sent.rate() == Some(0.0)
            && now.saturating_duration_since(feedback) >= INTERRUPTED_AFTER
        {
            // Nothing is on the way, and nobody tells of it: what was true of the line is over, and it
            // may be probed.
            self.queue = 0.0;
            self.interrupted = None;
            self.trend = Trend::default();
            self.losses = Losses {
                own: self.losses.own,
                share: self.losses.own,
                ..Losses::default()
            };
            return;
        }
        let since = self.interrupted.unwrap_or(feedback);
        if self.unanswered >= 5 && now.saturating_duration_since(since) >= INTERRUPTED_AFTER {
            self.interrupted = Some(now);
            self.is_limited = true;
            self.before.get_or_insert(self.rate);
            self.set(self.rate / 2.0);
        }
    }

    fn has_feedback(&self, now: Instant) -> bool {
        self.feedback
            .is_some_and(|at| now.saturating_duration_since(at) < FEEDBACK_LASTS)
    }

    /// The receiver's own estimate (REMB). It counts where it is about what is sent: more than that
    /// was never tried, and says nothing.
    pub(crate) fn receiver_estimate(&mut self, now: Instant, rate: u64) {
        if self.has_feedback(now) {
            return;
        }
        let rate = rate as f64;
        if self.sent.rate().is_some_and(|sent| rate < 1.1 * sent) {
            self.is_limited = true;
            self.set(rate);
        } else if self.is_limited {
            self.set((1.1 * self.rate).min(rate));
        }
    }

    /// A receiver's report of a lost share.
    pub(crate) fn lost(&mut self, now: Instant, share: f64) {
        if self.has_feedback(now) {
            return;
        }
        self.losses.share = share;
        let since = self.grown.map(|at| now.saturating_duration_since(at));
        if since.is_some_and(|since| since < Duration::from_millis(500)) {
            return;
        }
        self.grown = Some(now);
        let seconds = since.unwrap_or_default().as_secs_f64().min(1.0);
        if share > LOSS {
            let sent = self.sent.rate().unwrap_or(self.rate);
            let rate = if self.is_limited {
                self.rate.min(sent)
            } else {
                sent
            };
            self.is_limited = true;
            self.set(rate * (1.0 - 0.5 * share));
        } else if share < 0.02 && self.is_limited {
            self.set(self.rate * GROWTH.powf(seconds));
        }
    }
}
