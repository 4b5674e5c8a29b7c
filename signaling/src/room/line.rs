//! Connection quality from what is measured on a participant's lines.

use livekit_protocol::ConnectionQuality;
use sfu::LineReport;

/// How much of the old loss stays in each report.
const SMOOTHING: f32 = 0.6;
/// Above this share of lost packets the line is good, not excellent.
const LOSS_GOOD: f32 = 0.02;
/// Above this share of lost packets the line is poor.
const LOSS_POOR: f32 = 0.08;
/// Above this round-trip time, in seconds, the line is good, not excellent.
const ROUND_TRIP_GOOD: f32 = 0.25;
/// Above this round-trip time, in seconds, the line is poor.
const ROUND_TRIP_POOR: f32 = 0.6;

/// One participant's line.
#[derive(Debug, Default, Clone, Copy)]
pub struct Line {
    loss: f32,
    round_trip: f32,
    is_silent: bool,
}

impl Line {
    /// Takes in a report.
    pub fn report(&mut self, report: &LineReport) {
        let loss = report
            .loss_up
            .unwrap_or(0.0)
            .max(report.loss_down.unwrap_or(0.0));
        let loss = if loss.is_finite() {
            loss.clamp(0.0, 1.0)
        } else {
            0.0
        };
        self.loss = self.loss * SMOOTHING + loss * (1.0 - SMOOTHING);
        if let Some(round_trip) = report.round_trip {
            self.round_trip =
                self.round_trip * SMOOTHING + round_trip.as_secs_f32() * (1.0 - SMOOTHING);
        }
    }

    /// Whether anything comes from the client.
    pub fn set_silent(&mut self, is_silent: bool) {
        self.is_silent = is_silent;
    }

    /// In LiveKit's words, with a score from 1 (worst) to 5.
    pub fn quality(&self) -> (ConnectionQuality, f32) {
        if self.is_silent {
            return (ConnectionQuality::Lost, 0.0);
        }
        let score = (5.0 - self.loss * 25.0 - self.round_trip * 2.0).clamp(1.0, 5.0);
        let quality = if self.loss > LOSS_POOR || self.round_trip > ROUND_TRIP_POOR {
            ConnectionQuality::Poor
        } else if self.loss > LOSS_GOOD || self.round_trip > ROUND_TRIP_GOOD {
            ConnectionQuality::Good
        } else {
            ConnectionQuality::Excellent
        };
        (quality, score)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_and_silence_lower_the_quality_and_it_recovers() {
        let mut line = Line::default();
        assert_eq!(line.quality().0, ConnectionQuality::Excellent);
        let bad = LineReport {
            loss_up: Some(0.3),
            ..Default::default()
        };
        for _ in 0..5 {
            line.report(&bad);
        }
        assert_eq!(line.quality().0, ConnectionQuality::Poor);
        line.set_silent(true);
        assert_eq!(line.quality().0, ConnectionQuality::Lost);
        line.set_silent(false);
        for _ in 0..10 {
            line.report(&LineReport::default());
        }
        assert_eq!(line.quality().0, ConnectionQuality::Excellent);
    }
}
