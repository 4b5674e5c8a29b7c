//! Whether a queue grows on the way: the trend of the one-way delay (draft-ietf-rmcat-gcc-02 §5,
//! with the line through the last points in place of the Kalman filter, as browsers do).

use std::collections::VecDeque;

/// Packets sent within this are one group, in microseconds: a picture's packets leave at once, and
/// what delays the last of them is their own length.
const GROUP: i64 = 5_000;

/// Longest group of packets that arrive together after having been held up, in microseconds.
const LONGEST_BURST: i64 = 100_000;

/// After a pause of the line as long as this everything begins anew, in microseconds.
const PAUSE: i64 = 3_000_000;

/// Groups that the line is drawn through.
const POINTS: usize = 20;

/// Weight of what was in the smoothed delay.
const SMOOTHING: f64 = 0.9;

/// Differences after which the slope counts in full.
const MOST_DELTAS: u32 = 60;

const GAIN: f64 = 4.0;

/// The threshold of the trend in milliseconds, where it begins and its bounds.
const THRESHOLD: f64 = 12.5;
const THRESHOLD_BOUNDS: (f64, f64) = (6.0, 600.0);

/// How quickly the threshold follows a trend above and below it, per millisecond.
const FOLLOW_UP: f64 = 0.0087;
const FOLLOW_DOWN: f64 = 0.039;

/// A trend so much above the threshold is a jump of the route, which is not followed.
const JUMP: f64 = 15.0;

/// The trend must stay above the threshold for so long, in milliseconds.
const OVERUSE_TIME: f64 = 10.0;

/// What the trend says of the line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Usage {
    #[default]
    Normal,
    /// A queue grows.
    Over,
    /// A queue empties.
    Under,
}

#[derive(Clone, Copy, Debug)]
struct Group {
    first_sent: i64,
    last_sent: i64,
    first_arrived: i64,
    last_arrived: i64,
}

/// The trend of one connection.
#[derive(Debug)]
pub(crate) struct Trend {
    group: Option<Group>,
    before: Option<Group>,
    /// Arrival and smoothed delay in milliseconds.
    points: VecDeque<(f64, f64)>,
    deltas: u32,
    /// Sum of the differences of delay, in milliseconds.
    delay: f64,
    smoothed: f64,
    threshold: f64,
    threshold_at: Option<f64>,
    over_for: Option<f64>,
    over_count: u32,
    trend: f64,
    usage: Usage,
}

impl Default for Trend {
    fn default() -> Self {
        Trend {
            group: None,
            before: None,
            points: VecDeque::new(),
            deltas: 0,
            delay: 0.0,
            smoothed: 0.0,
            threshold: THRESHOLD,
            threshold_at: None,
            over_for: None,
            over_count: 0,
            trend: 0.0,
            usage: Usage::Normal,
        }
    }
}

impl Trend {
    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }

    /// Takes a packet's times in microseconds, each of a clock of its own; packets come in the order
    /// in which they were sent.
    pub(crate) fn add(&mut self, sent: i64, arrived: i64) {
        let Some(group) = &mut self.group else {
            self.group = Some(Group::of(sent, arrived));
            return;
        };
        if sent < group.first_sent {
            return;
        }
        if (arrived - group.last_arrived).abs() > PAUSE {
            *self = Trend::default();
            self.group = Some(Group::of(sent, arrived));
            return;
        }
        if group.holds(sent, arrived) {
            group.last_sent = group.last_sent.max(sent);
            group.last_arrived = group.last_arrived.max(arrived);
            return;
        }
        let ended = std::mem::replace(group, Group::of(sent, arrived));
        if let Some(before) = self.before.replace(ended) {
            let sent = (ended.last_sent - before.last_sent) as f64 / 1000.0;
            let arrival = (ended.last_arrived - before.last_arrived) as f64 / 1000.0;
            if arrival >= 0.0 {
                self.update(sent, arrival, ended.last_arrived as f64 / 1000.0);
            }
        }
    }

    fn update(&mut self, sent: f64, arrival: f64, now: f64) {
        self.deltas = (self.deltas + 1).min(MOST_DELTAS);
        self.delay += arrival - sent;
        self.smoothed = SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * self.delay;
        if self.points.len() == POINTS {
            self.points.pop_front();
        }
        self.points.push_back((now, self.smoothed));
        if self.points.len() == POINTS
            && let Some(slope) = slope(&self.points)
        {
            let trend = f64::from(self.deltas) * slope * GAIN;
            self.judge(trend, sent, now);
        }
    }

    fn judge(&mut self, trend: f64, sent: f64, now: f64) {
        if trend > self.threshold {
            let over_for = match self.over_for {
                // In the middle of the time since the group before.
                None => sent / 2.0,
                Some(over_for) => over_for + sent,
            };
            self.over_for = Some(over_for);
            self.over_count += 1;
            if over_for > OVERUSE_TIME && self.over_count > 1 && trend >= self.trend {
                self.over_for = Some(0.0);
                self.over_count = 0;
                self.usage = Usage::Over;
            }
        } else {
            self.over_for = None;
            self.over_count = 0;
            self.usage = if trend < -self.threshold {
                Usage::Under
            } else {
                Usage::Normal
            };
        }
        self.trend = trend;
        let since = self
            .threshold_at
            .map_or(0.0, |at| (now - at).clamp(0.0, 100.0));
        self.threshold_at = Some(now);
        if trend.abs() <= self.threshold + JUMP {
            let follow = if trend.abs() < self.threshold {
                FOLLOW_DOWN
            } else {
                FOLLOW_UP
            };
            let (low, high) = THRESHOLD_BOUNDS;
            let moved = follow * (trend.abs() - self.threshold) * since;
            self.threshold = (self.threshold + moved).clamp(low, high);
        }
    }
}

impl Group {
    fn of(sent: i64, arrived: i64) -> Group {
        Group {
            first_sent: sent,
            last_sent: sent,
            first_arrived: arrived,
            last_arrived: arrived,
        }
    }

    /// Whether a packet belongs to this group: sent with it, or held up with it and let go at once.
    fn holds(&self, sent: i64, arrived: i64) -> bool {
        let later = arrived - self.last_arrived;
        let is_let_go = later - (sent - self.last_sent) < 0
            && later <= GROUP
            && arrived - self.first_arrived < LONGEST_BURST;
        sent - self.first_sent <= GROUP || is_let_go
    }
}

/// The slope of the line with the least squares through the points.
fn slope(points: &VecDeque<(f64, f64)>) -> Option<f64> {
    let count = points.len() as f64;
    let (x, y) = points
        .iter()
        .fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (x, y) = (x / count, y / count);
    let (above, below) = points.iter().fold((0.0, 0.0), |(above, below), point| {
        let from = point.0 - x;
        (above + from * (point.1 - y), below + from * from)
    });
    (below > 0.0).then(|| above / below)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet each 10 ms whose delay is as `delay` says, in milliseconds; what the trend said.
    fn usages(count: i64, delay: impl Fn(i64) -> f64) -> Vec<Usage> {
        let mut trend = Trend::default();
        (0..count)
            .map(|at| {
                let sent = at * 10_000;
                trend.add(sent, sent + 7_000_000 + (delay(at) * 1000.0) as i64);
                trend.usage()
            })
            .collect()
    }

    #[test]
    fn a_steady_delay_is_normal_whatever_the_clocks_say() {
        assert!(
            usages(500, |_| 40.0)
                .iter()
                .all(|one| *one == Usage::Normal)
        );
        // 100 parts in a million of drift.
        let drift = usages(5000, |at| at as f64 * 0.001);
        assert!(drift.iter().all(|one| *one == Usage::Normal));
    }

    #[test]
    fn a_queue_that_grows_is_found_soon_and_one_that_empties_is_told_from_it() {
        let grows = usages(200, |at| (at - 100).max(0) as f64 * 5.0);
        let found = grows.iter().position(|one| *one == Usage::Over).unwrap();
        assert!((100..125).contains(&found), "{found}");
        let empties = usages(200, |at| 400.0 - (at - 100).max(0) as f64 * 4.0);
        assert!(empties[..100].iter().all(|one| *one == Usage::Normal));
        assert!(empties.contains(&Usage::Under) && !empties.contains(&Usage::Over));
    }

    #[test]
    fn jitter_is_no_trend() {
        let mut seed = 1_u64;
        let mut jitter = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 40) as f64 / f64::from(1 << 24) * 20.0
        };
        let noise: Vec<f64> = (0..3000).map(|_| jitter()).collect();
        let told = usages(3000, |at| noise[at as usize]);
        let over = told.iter().filter(|one| **one == Usage::Over).count();
        assert!(over < 30, "{over} of 3000");
    }
}
