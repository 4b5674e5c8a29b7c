//! Keeps a stream of bad input from becoming a stream of log lines.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// In which time the lines of one kind are counted. Shorter shows more of an attack, longer keeps
/// more of the log for everything else.
const INTERVAL: Duration = Duration::from_secs(10);

/// One kind of line.
#[derive(Debug)]
pub struct LogLimit {
    lines: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    since: Option<Instant>,
    passed: u32,
    suppressed: u64,
}

impl LogLimit {
    /// A kind of warning, logged once per interval.
    pub const fn new() -> LogLimit {
        LogLimit::of(1)
    }

    /// A kind of event that is everyday, logged up to `lines` times per interval.
    pub const fn of(lines: u32) -> LogLimit {
        LogLimit {
            lines,
            state: Mutex::new(State {
                since: None,
                passed: 0,
                suppressed: 0,
            }),
        }
    }

    /// `Some(number of lines left out since the last)` when a line may be logged now.
    pub fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().expect("no panic while counting");
        let is_over = state
            .since
            .is_none_or(|since| now.saturating_duration_since(since) >= INTERVAL);
        if is_over {
            state.since = Some(now);
            state.passed = 0;
        }
        if state.passed < self.lines {
            state.passed += 1;
            Some(std::mem::take(&mut state.suppressed))
        } else {
            state.suppressed += 1;
            None
        }
    }
}

impl Default for LogLimit {
    fn default() -> Self {
        LogLimit::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_passes_per_interval_and_the_rest_is_counted() {
        let limit = LogLimit::new();
        let now = Instant::now();
        assert_eq!(limit.pass(now), Some(0));
        assert_eq!(limit.pass(now), None);
        assert_eq!(limit.pass(now + INTERVAL / 2), None);
        assert_eq!(limit.pass(now + INTERVAL), Some(2));
    }

    #[test]
    fn everyday_lines_pass_until_there_are_too_many() {
        let limit = LogLimit::of(3);
        let now = Instant::now();
        let passed = (0..10).filter(|_| limit.pass(now).is_some()).count();
        assert_eq!(passed, 3);
        assert_eq!(limit.pass(now + INTERVAL), Some(7));
    }
}
