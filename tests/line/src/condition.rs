//! What a line does to packets in one direction, and how it changes.

use std::num::NonZeroU64;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The longest delay, jitter and queue, and the longest time that a bad packet of numbers can ask
/// for: a minute is more than any line that people talk over.
const LONGEST: Duration = Duration::from_secs(60);

/// The fastest rate, in kilobits per second; more than the line can carry.
const FASTEST_KBIT: u64 = 100_000_000;

/// The largest queue in bytes; more is bounded by what a line holds at all.
const LARGEST_QUEUE: u64 = 1 << 30;

/// How long a packet waits at most for its turn on a line with a rate, unless a queue was set. Home
/// routers keep 50 to 500 ms.
const DEFAULT_QUEUE: Duration = Duration::from_millis(100);

/// Losses in bursts after Gilbert and Elliott: a state that packets enter and leave by chance, with
/// a loss of its own. A burst is `1 / leave` packets long on average, and of all packets
/// `enter / (enter + leave)` are in one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Burst {
    /// Probability that a burst begins with the next packet, from 0 to 1. At 0 there are none.
    pub enter: f64,
    /// Probability that it is over before the next packet, from 0 to 1.
    pub leave: f64,
    /// Probability that a packet in a burst is lost, from 0 to 1.
    #[serde(default = "certain")]
    pub loss: f64,
}

fn certain() -> f64 {
    1.0
}

/// How much may wait for its turn; what comes then is dropped (drop tail).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Bytes, beside the packet that is being sent.
    Bytes(u64),
    /// As many bytes as pass in this time at the rate of the moment.
    Time(Duration),
}

/// One direction of a line at one moment. The default passes everything at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Condition {
    /// How long each packet is under way.
    pub delay: Duration,
    /// Each packet's delay differs from `delay` by up to this in either direction, evenly, but is
    /// never below zero.
    pub jitter: Duration,
    /// Whether a packet may overtake another by its jitter; otherwise it waits for the one before.
    pub is_reordering: bool,
    /// Probability that a packet outside a burst is lost, each by itself.
    pub loss: f64,
    /// Losses in bursts.
    pub burst: Burst,
    /// Probability that a packet arrives twice.
    pub duplicate: f64,
    /// Bits of IP packets per second.
    pub rate: Option<NonZeroU64>,
    /// What may wait while there is a rate.
    pub queue: Queue,
    /// Whether the line is cut: what would go onto it is dropped, what is under way arrives.
    pub is_out: bool,
}

impl Default for Condition {
    fn default() -> Condition {
        Condition {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            is_reordering: false,
            loss: 0.0,
            burst: Burst {
                enter: 0.0,
                leave: 1.0,
                loss: 1.0,
            },
            duplicate: 0.0,
            rate: None,
            queue: Queue::Time(DEFAULT_QUEUE),
            is_out: false,
        }
    }
}

/// Which way packets go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// From end A to end B.
    AToB,
    /// From end B to end A.
    BToA,
    /// Both, each by itself.
    #[default]
    Both,
}

/// A change of conditions. What is not given stays as it was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Change {
    /// When, in seconds since the line came up; what is past (or not given) happens at once.
    pub second: f64,
    /// For which direction; without it for both.
    pub direction: Way,
    /// See [`Condition::delay`], in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<f64>,
    /// See [`Condition::jitter`], in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter_ms: Option<f64>,
    /// See [`Condition::is_reordering`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reorder: Option<bool>,
    /// See [`Condition::loss`], from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// See [`Burst`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<Burst>,
    /// See [`Condition::duplicate`], from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<f64>,
    /// See [`Condition::rate`], in kilobits (1,000 bits) per second; 0 is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_kbit: Option<u64>,
    /// See [`Queue::Bytes`]; takes the place of `queue_ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_bytes: Option<u64>,
    /// See [`Queue::Time`], in milliseconds; takes the place of `queue_bytes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_ms: Option<f64>,
    /// See [`Condition::is_out`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outage: Option<bool>,
}

/// A value that no line has.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{name} is {value}; it has to be from 0 to {most}")]
pub struct OutOfRange {
    name: &'static str,
    value: f64,
    most: f64,
}

fn check(name: &'static str, value: Option<f64>, most: f64) -> Result<(), OutOfRange> {
    match value {
        Some(value) if !(0.0..=most).contains(&value) => Err(OutOfRange { name, value, most }),
        _ => Ok(()),
    }
}

fn milliseconds(value: f64) -> Duration {
    Duration::from_secs_f64(value / 1000.0)
}

impl Change {
    /// Whether every value is one that a line can have; [`Change::apply`] relies on it.
    ///
    /// # Errors
    /// The first value that is not.
    pub fn check(&self) -> Result<(), OutOfRange> {
        let longest = LONGEST.as_secs_f64() * 1000.0;
        let burst = self.burst;
        check("second", Some(self.second), 1e9)?;
        check("delay_ms", self.delay_ms, longest)?;
        check("jitter_ms", self.jitter_ms, longest)?;
        check("loss", self.loss, 1.0)?;
        check("burst.enter", burst.map(|burst| burst.enter), 1.0)?;
        check("burst.leave", burst.map(|burst| burst.leave), 1.0)?;
        check("burst.loss", burst.map(|burst| burst.loss), 1.0)?;
        check("duplicate", self.duplicate, 1.0)?;
        let rate = self.rate_kbit.map(|rate| rate as f64);
        check("rate_kbit", rate, FASTEST_KBIT as f64)?;
        let bytes = self.queue_bytes.map(|bytes| bytes as f64);
        check("queue_bytes", bytes, LARGEST_QUEUE as f64)?;
        check("queue_ms", self.queue_ms, longest)
    }

    /// When, since the line came up.
    pub fn at(&self) -> Duration {
        Duration::from_secs_f64(self.second)
    }

    /// `condition` with what is given here.
    #[must_use]
    pub fn apply(&self, mut condition: Condition) -> Condition {
        if let Some(delay) = self.delay_ms {
            condition.delay = milliseconds(delay);
        }
        if let Some(jitter) = self.jitter_ms {
            condition.jitter = milliseconds(jitter);
        }
        if let Some(rate) = self.rate_kbit {
            condition.rate = NonZeroU64::new(rate * 1000);
        }
        if let Some(bytes) = self.queue_bytes {
            condition.queue = Queue::Bytes(bytes);
        }
        if let Some(time) = self.queue_ms {
            condition.queue = Queue::Time(milliseconds(time));
        }
        condition.is_reordering = self.reorder.unwrap_or(condition.is_reordering);
        condition.loss = self.loss.unwrap_or(condition.loss);
        condition.burst = self.burst.unwrap_or(condition.burst);
        condition.duplicate = self.duplicate.unwrap_or(condition.duplicate);
        condition.is_out = self.outage.unwrap_or(condition.is_out);
        condition
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_stays_and_the_last_queue_counts() {
        let first: Change =
            toml::from_str("delay_ms = 20.5\nloss = 0.1\nqueue_bytes = 9000\nrate_kbit = 500")
                .unwrap();
        let second: Change = serde_json::from_str(r#"{"queue_ms": 50, "rate_kbit": 0}"#).unwrap();
        let condition = second.apply(first.apply(Condition::default()));
        assert_eq!(
            condition,
            Condition {
                delay: Duration::from_micros(20_500),
                loss: 0.1,
                queue: Queue::Time(Duration::from_millis(50)),
                ..Condition::default()
            }
        );
    }

    #[test]
    fn a_value_that_no_line_has_is_refused_with_its_name() {
        for (text, name) in [
            ("loss = 1.5", "loss"),
            ("delay_ms = -1", "delay_ms"),
            ("jitter_ms = nan", "jitter_ms"),
            ("second = inf", "second"),
            ("rate_kbit = 18446744073709551615", "rate_kbit"),
            ("burst = { enter = 2, leave = 0.5 }", "burst.enter"),
        ] {
            let change: Result<Change, _> = toml::from_str(text);
            // TOML has no integers that large.
            let Ok(change) = change else { continue };
            let error = change.check().unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
        }
        assert!(toml::from_str::<Change>("lost = 0.5").is_err());
    }
}
