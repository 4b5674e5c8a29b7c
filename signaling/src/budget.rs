//! How much of something may be spent: a supply that fills again with time.

use std::time::{Duration, Instant};

/// A supply. Reads no clock.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    full: f64,
    per_second: f64,
    left: f64,
    at: Instant,
}

impl Budget {
    /// A full supply of `full` that gains `per_second`.
    pub(crate) fn new(full: usize, per_second: usize, now: Instant) -> Budget {
        Budget {
            full: full as f64,
            per_second: per_second as f64,
            left: full as f64,
            at: now,
        }
    }

    /// Takes `amount` if there is so much. What is larger than the full supply passes when the
    /// supply is full: it must pass some time.
    pub(crate) fn spend(&mut self, amount: usize, now: Instant) -> bool {
        let gained: Duration = now.saturating_duration_since(self.at);
        self.at = self.at.max(now);
        self.left = (self.left + gained.as_secs_f64() * self.per_second).min(self.full);
        let amount = (amount as f64).min(self.full);
        let is_enough = amount <= self.left;
        if is_enough {
            self.left -= amount;
        }
        is_enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_only_the_rate() {
        let now = Instant::now();
        let mut budget = Budget::new(10, 2, now);
        assert_eq!((0..20).filter(|_| budget.spend(1, now)).count(), 10);
        let later = now + Duration::from_secs(3);
        assert_eq!((0..20).filter(|_| budget.spend(1, later)).count(), 6);
        assert!(!budget.spend(1, now), "time does not run backwards");
        let later = later + Duration::from_secs(3600);
        assert!(
            budget.spend(1000, later),
            "more than all of it passes when it is full"
        );
        assert!(!budget.spend(1, later));
    }
}
