//! Keeps a stream of bad input from becoming a stream of log lines.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How often one kind of warning may be logged. Shorter shows more of an attack, longer keeps
/// more of the log for everything else.
const INTERVAL: Duration = Duration::from_secs(10);

/// One kind of warning.
#[derive(Debug, Default)]
pub struct LogLimit(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    suppressed: u64,
}

impl LogLimit {
    /// A kind of warning that was never logged.
    pub const fn new() -> LogLimit {
        LogLimit(Mutex::new(State {
            last: None,
            suppressed: 0,
        }))
    }

    /// `Some(number of lines left out since the last)` when a line may be logged now.
    pub fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().expect("no panic while counting");
        match state.last {
            Some(last) if now.saturating_duration_since(last) < INTERVAL => {
                state.suppressed += 1;
                None
            }
            _ => {
                state.last = Some(now);
                Some(std::mem::take(&mut state.suppressed))
            }
        }
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
}
