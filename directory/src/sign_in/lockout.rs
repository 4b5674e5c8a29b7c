//! How wrong attempts are slowed down, so that guessing is hopeless and nobody can keep somebody else out for long.
//!
//! An attempt is counted under what is tried from where, under the name alone, and under the address alone. The first
//! count is strict. The one of the name is lenient and its pauses are short, for anybody in the world can raise it.

use std::net::IpAddr;
use std::time::Duration;

use crate::Timestamp;

/// How fast attempts are slowed down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How many wrong ones are free.
    pub free: u32,
    /// The pause after the next one; it doubles with each after that.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
}

/// Of one name from one address: nine guesses in the first hour, then four an hour.
pub(super) const PAIR: Policy = Policy {
    free: 5,
    first: Duration::from_secs(4),
    longest: Duration::from_secs(15 * 60),
};

/// Of one name from anywhere: its owner waits a minute at most, and who guesses has one try in it.
pub(super) const LOGIN: Policy = Policy {
    free: 20,
    first: Duration::from_secs(2),
    longest: Duration::from_secs(60),
};

/// Of one address with whatever names: a county's people may share one.
pub(super) const ADDRESS: Policy = Policy {
    free: 50,
    first: Duration::from_secs(1),
    longest: Duration::from_secs(5 * 60),
};

/// Of the second factor of somebody whose password was right.
pub(super) const FACTOR: Policy = Policy {
    free: 5,
    first: Duration::from_secs(4),
    longest: Duration::from_secs(5 * 60),
};

/// After how long without an attempt all is forgotten.
pub(super) const FORGET: Duration = Duration::from_secs(24 * 3600);

/// How many were wrong, and until when the next has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Wrong ones without a right one.
    pub failures: u32,
    /// The last attempt.
    pub last_at: Timestamp,
    /// Before this, no other is looked at.
    pub blocked_until: Timestamp,
}

impl Counter {
    /// Nothing was tried.
    pub const NONE: Counter = Counter {
        failures: 0,
        last_at: Timestamp::from_millis(i64::MIN),
        blocked_until: Timestamp::from_millis(i64::MIN),
    };

    /// Counts one more attempt, as wrong until it is right; or says until when it must wait.
    pub fn attempt(self, policy: Policy, now: Timestamp) -> Result<Counter, Timestamp> {
        if now < self.blocked_until {
            return Err(self.blocked_until);
        }
        let is_forgotten = now.since(self.last_at) >= FORGET;
        let failures = if is_forgotten {
            1
        } else {
            self.failures.saturating_add(1)
        };
        let pause = match failures.checked_sub(policy.free + 1) {
            None => Duration::ZERO,
            Some(doubled) => {
                let factor = 1_u32.checked_shl(doubled).unwrap_or(u32::MAX);
                policy.first.saturating_mul(factor).min(policy.longest)
            }
        };
        Ok(Counter {
            failures,
            last_at: now,
            blocked_until: now.after(pause),
        })
    }
}

/// What counts as one address: of IPv6 whole networks, of which anybody has one (RFC 6177).
pub(super) fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MORNING;

    /// How many attempts are looked at within a time, of somebody who tries without a pause.
    fn attempts(policy: Policy, time: Duration) -> u32 {
        let (mut counter, mut now, mut count) = (Counter::NONE, MORNING, 0);
        while now.since(MORNING) < time {
            match counter.attempt(policy, now) {
                Ok(next) => {
                    counter = next;
                    count += 1;
                }
                Err(until) => now = until,
            }
        }
        count
    }

    #[test]
    fn guessing_is_slow() {
        let day = Duration::from_secs(24 * 3600);
        assert!(attempts(PAIR, day) < 120, "{}", attempts(PAIR, day));
        assert!(attempts(LOGIN, day) < 1_500, "{}", attempts(LOGIN, day));
        assert!(attempts(FACTOR, day) < 320, "{}", attempts(FACTOR, day));
    }

    #[test]
    fn nobody_is_kept_out_by_others_for_longer_than_a_minute() {
        let (mut counter, mut now) = (Counter::NONE, MORNING);
        for _ in 0..10_000 {
            match counter.attempt(LOGIN, now) {
                Ok(next) => counter = next,
                Err(until) => {
                    assert!(until.since(now) <= Duration::from_secs(60));
                    now = until;
                }
            }
        }
    }

    #[test]
    fn a_few_mistakes_cost_nothing_and_old_ones_are_forgotten() {
        let mut counter = Counter::NONE;
        for _ in 0..PAIR.free {
            counter = counter.attempt(PAIR, MORNING).unwrap();
        }
        counter = counter.attempt(PAIR, MORNING).unwrap();
        assert_eq!(
            counter.attempt(PAIR, MORNING),
            Err(MORNING.after(PAIR.first))
        );
        let later = MORNING.after(FORGET);
        assert_eq!(counter.attempt(PAIR, later).unwrap().failures, 1);
        let full = Counter {
            failures: u32::MAX,
            ..counter
        };
        let next = full.attempt(PAIR, MORNING.after(PAIR.first)).unwrap();
        assert_eq!(
            next.blocked_until,
            MORNING.after(PAIR.first).after(PAIR.longest)
        );
    }

    #[test]
    fn a_network_is_one_address() {
        let text = |address: &str| network(address.parse().unwrap());
        assert_eq!(text("2001:db8::1"), text("2001:db8::ffff:2"));
        assert_ne!(text("2001:db8::1"), text("2001:db8:0:1::1"));
        assert_eq!(text("::ffff:192.0.2.1"), text("192.0.2.1"));
    }
}
