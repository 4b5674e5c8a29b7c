//! Connection quality from what is measured on a participant's lines.
//!
//! Both ways count by themselves, as do the two connections of one who has two: sound that arrives
//! whole does not make up for sound that is sent and lost.

use livekit_protocol::ConnectionQuality;
use sfu::LineReport;

/// How much of the old loss stays in each report, of which one comes every two seconds. More
/// forgives a single burst; less says sooner that the line is bad, and that it is well again.
const SMOOTHING: f32 = 0.4;
/// Reports without a word of loss before it counts as none: a client that only listens tells of
/// its sound every five seconds, and one that is sent nothing tells nothing.
const PATIENCE: u8 = 3;
/// Above this share of lost packets a line is good, not excellent: repair has work to do.
const LOSS_GOOD: Threshold = Threshold {
    enter: 0.04,
    leave: 0.025,
};
/// Above this share of lost packets a line is poor: repair comes too late for sound, and words
/// are missed.
const LOSS_POOR: Threshold = Threshold {
    enter: 0.10,
    leave: 0.06,
};
/// Above this round-trip time, in seconds, a line is good, not excellent: people notice the pause.
const ROUND_TRIP_GOOD: Threshold = Threshold {
    enter: 0.25,
    leave: 0.2,
};
/// Above this round-trip time, in seconds, a line is poor: people talk into each other's words.
const ROUND_TRIP_POOR: Threshold = Threshold {
    enter: 0.6,
    leave: 0.5,
};

/// Where a quality begins, and where it ends again. Without the gap a line at the edge would be
/// told anew to everybody every other second.
#[derive(Debug, Clone, Copy)]
struct Threshold {
    enter: f32,
    leave: f32,
}

impl Threshold {
    fn is_passed(self, value: f32, is_beyond: bool) -> bool {
        value > if is_beyond { self.leave } else { self.enter }
    }
}

/// The share of packets lost in one direction.
#[derive(Debug, Default, Clone, Copy)]
struct Loss {
    share: f32,
    reports_without: u8,
}

impl Loss {
    fn report(&mut self, share: Option<f32>) {
        let share = match share.filter(|share| share.is_finite()) {
            Some(share) => {
                self.reports_without = 0;
                share.clamp(0.0, 1.0)
            }
            None if self.reports_without < PATIENCE => {
                self.reports_without += 1;
                return;
            }
            None => 0.0,
        };
        self.share = self.share * SMOOTHING + share * (1.0 - SMOOTHING);
    }
}

/// Which of a participant's connections something is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The one that brings what the client receives; of a single connection, the only one.
    Subscriber,
    /// The other one, which carries what the client publishes.
    Publisher,
}

/// One participant's line.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    up: Loss,
    down: Loss,
    round_trip: f32,
    is_subscriber_silent: bool,
    is_publisher_silent: bool,
    /// What it was at the last report.
    heard: ConnectionQuality,
}

impl Default for Line {
    fn default() -> Line {
        Line {
            up: Loss::default(),
            down: Loss::default(),
            round_trip: 0.0,
            is_subscriber_silent: false,
            is_publisher_silent: false,
            heard: ConnectionQuality::Excellent,
        }
    }
}

impl Line {
    /// Takes in a report of a single connection (`None`) or of one of two.
    pub fn report(&mut self, end: Option<End>, report: &LineReport) {
        if end != Some(End::Subscriber) {
            self.up.report(report.loss_up);
        }
        if end != Some(End::Publisher) {
            self.down.report(report.loss_down);
        }
        if let Some(round_trip) = report.round_trip {
            self.round_trip =
                self.round_trip * SMOOTHING + round_trip.as_secs_f32() * (1.0 - SMOOTHING);
        }
        let was_poor = self.heard == ConnectionQuality::Poor;
        let was_good = was_poor || self.heard == ConnectionQuality::Good;
        let loss = self.loss();
        self.heard = if LOSS_POOR.is_passed(loss, was_poor)
            || ROUND_TRIP_POOR.is_passed(self.round_trip, was_poor)
        {
            ConnectionQuality::Poor
        } else if LOSS_GOOD.is_passed(loss, was_good)
            || ROUND_TRIP_GOOD.is_passed(self.round_trip, was_good)
        {
            ConnectionQuality::Good
        } else {
            ConnectionQuality::Excellent
        };
    }

    /// Whether anything comes from the client on a single connection (`None`) or on one of two.
    pub fn set_silent(&mut self, end: Option<End>, is_silent: bool) {
        match end {
            None | Some(End::Subscriber) => self.is_subscriber_silent = is_silent,
            Some(End::Publisher) => self.is_publisher_silent = is_silent,
        }
    }

    /// Whether nothing comes from the client on a connection that it uses.
    pub fn is_silent(&self) -> bool {
        self.is_subscriber_silent || self.is_publisher_silent
    }

    fn loss(&self) -> f32 {
        self.up.share.max(self.down.share)
    }

    /// In LiveKit's words, with a score from 1 (worst) to 5.
    pub fn quality(&self) -> (ConnectionQuality, f32) {
        if self.is_silent() {
            return (ConnectionQuality::Lost, 0.0);
        }
        let score = (5.0 - self.loss() * 25.0 - self.round_trip * 2.0).clamp(1.0, 5.0);
        (self.heard, score)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use ConnectionQuality::{Excellent, Good, Lost, Poor};
    use rand::{Rng, SeedableRng, rngs::StdRng};

    /// Packets within one report of somebody whose sound alone is sent.
    const PACKETS: usize = 100;

    fn lost_up(share: f32) -> LineReport {
        LineReport {
            loss_up: Some(share),
            ..LineReport::default()
        }
    }

    /// What of [`PACKETS`] is lost with this probability, as a report.
    fn drawn(dice: &mut StdRng, loss: f64) -> LineReport {
        let lost = (0..PACKETS).filter(|_| dice.random_bool(loss)).count();
        lost_up(lost as f32 / PACKETS as f32)
    }

    #[test]
    fn it_says_what_people_would_say_and_stays_with_it() {
        for (loss, expected) in [
            (0.0, &[Excellent][..]),
            (0.02, &[Excellent, Good]),
            (0.05, &[Good, Excellent]),
            (0.15, &[Poor]),
            (0.30, &[Poor]),
            (1.0, &[Poor]),
        ] {
            let (mut changes, mut odd, mut told) = (0, 0, 0);
            for seed in 0..100 {
                let mut dice = StdRng::seed_from_u64(seed);
                let mut line = Line::default();
                // Six seconds to get to know the line.
                for _ in 0..3 {
                    line.report(None, &drawn(&mut dice, loss));
                }
                // Then five minutes.
                let mut before = line.quality().0;
                for _ in 0..150 {
                    line.report(None, &drawn(&mut dice, loss));
                    let quality = line.quality().0;
                    changes += usize::from(quality != before);
                    odd += usize::from(!expected.contains(&quality));
                    told += 1;
                    before = quality;
                }
            }
            assert!(
                odd * 200 < told,
                "{loss}: {odd} of {told} are none of {expected:?}"
            );
            // At most one change in half a minute, also at an edge.
            assert!(
                changes * 15 < told,
                "{loss}: {changes} changes in {told} reports"
            );
        }
    }

    #[test]
    fn it_turns_poor_and_is_well_again_within_seconds() {
        for (loss, reports_until_poor) in [(0.15, 2), (0.30, 1)] {
            let mut line = Line::default();
            for _ in 0..reports_until_poor {
                line.report(None, &lost_up(loss));
            }
            assert_eq!(line.quality().0, Poor, "{loss}");
            for _ in 0..10 {
                line.report(None, &lost_up(loss));
            }
            line.report(None, &lost_up(0.0));
            line.report(None, &lost_up(0.0));
            assert_ne!(line.quality().0, Poor, "{loss}: after four seconds");
            line.report(None, &lost_up(0.0));
            assert_eq!(line.quality().0, Excellent, "{loss}: after six seconds");
        }
    }

    #[test]
    fn a_long_round_trip_counts_as_well() {
        for (milliseconds, expected) in [(50, Excellent), (300, Good), (800, Poor)] {
            let mut line = Line::default();
            let report = LineReport {
                round_trip: Some(Duration::from_millis(milliseconds)),
                ..LineReport::default()
            };
            for _ in 0..5 {
                line.report(None, &report);
            }
            assert_eq!(line.quality().0, expected, "{milliseconds} ms");
        }
    }

    #[test]
    fn one_direction_that_is_well_does_not_hide_the_other() {
        let mut line = Line::default();
        let bad_down = LineReport {
            loss_down: Some(0.3),
            ..LineReport::default()
        };
        for _ in 0..5 {
            line.report(Some(End::Subscriber), &bad_down);
            line.report(Some(End::Publisher), &lost_up(0.0));
        }
        assert_eq!(line.quality().0, Poor);
    }

    #[test]
    fn who_tells_seldom_is_believed_until_it_tells_no_more() {
        let mut line = Line::default();
        let bad = lost_up(0.3);
        let nothing = LineReport::default();
        for report in [bad, nothing, nothing, bad, nothing, nothing] {
            line.report(None, &report);
            assert_eq!(line.quality().0, Poor);
        }
        for _ in 0..6 {
            line.report(None, &nothing);
        }
        assert_eq!(line.quality().0, Excellent);
    }

    #[test]
    fn silence_on_either_connection_is_a_lost_line() {
        let mut line = Line::default();
        line.set_silent(Some(End::Publisher), true);
        line.set_silent(Some(End::Subscriber), true);
        line.set_silent(Some(End::Subscriber), false);
        assert_eq!(line.quality().0, Lost);
        line.set_silent(Some(End::Publisher), false);
        assert_eq!(line.quality().0, Excellent);
        line.set_silent(None, true);
        assert_eq!(line.quality().0, Lost);
    }

    #[test]
    fn a_report_that_is_no_number_changes_nothing() {
        let mut line = Line::default();
        line.report(None, &lost_up(f32::NAN));
        assert_eq!(line.quality(), (Excellent, 5.0));
    }
}
