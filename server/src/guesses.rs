//! Wrong meeting codes, counted per address and in all. Right ones cost nothing.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use signaling::visitors::block;

/// How long a wrong code is remembered.
pub(crate) const WINDOW: Duration = Duration::from_secs(5 * 60);
/// Wrong codes from one address within [`WINDOW`]. A whole office behind one address mistypes now
/// and then; twenty leave room for that.
pub(crate) const PER_ADDRESS: u32 = 20;
/// Wrong codes from everywhere within [`WINDOW`]. At this rate a guess among 10^10 codes with a
/// thousand meetings running hits once in months.
pub(crate) const IN_ALL: u32 = 2_000;
/// Addresses remembered at most.
const ADDRESSES: usize = 10_000;

#[derive(Clone, Copy)]
struct Count {
    since: Instant,
    failures: u32,
}

#[derive(Default)]
struct State {
    by_address: HashMap<IpAddr, Count>,
    all: Option<Count>,
}

/// The counters.
#[derive(Default)]
pub(crate) struct Guesses(Mutex<State>);

impl Guesses {
    /// Whether an address may try a code now; `Err` is how long it must wait.
    pub(crate) fn may_try(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let state = self.0.lock().expect("no panic while counting");
        let wait = |count: Option<&Count>, bound: u32| {
            count
                .filter(|count| count.failures >= bound)
                .map(|count| WINDOW.saturating_sub(now.saturating_duration_since(count.since)))
                .filter(|wait| !wait.is_zero())
        };
        match wait(state.by_address.get(&block(address)), PER_ADDRESS)
            .or_else(|| wait(state.all.as_ref(), IN_ALL))
        {
            Some(wait) => Err(wait),
            None => Ok(()),
        }
    }

    /// Counts a wrong code.
    pub(crate) fn failed(&self, address: IpAddr, now: Instant) {
        let mut state = self.0.lock().expect("no panic while counting");
        let is_current = |count: &Count| now.saturating_duration_since(count.since) < WINDOW;
        if state.by_address.len() >= ADDRESSES {
            state.by_address.retain(|_, count| is_current(count));
        }
        let fresh = Count {
            since: now,
            failures: 0,
        };
        if state.by_address.len() < ADDRESSES || state.by_address.contains_key(&block(address)) {
            let count = state.by_address.entry(block(address)).or_insert(fresh);
            if !is_current(count) {
                *count = fresh;
            }
            count.failures += 1;
        }
        let all = state.all.get_or_insert(fresh);
        if !is_current(all) {
            *all = fresh;
        }
        all.failures += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_guesses_waits_and_others_do_not() {
        let guesses = Guesses::default();
        let (bad, good): (IpAddr, IpAddr) =
            ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let now = Instant::now();
        for _ in 0..PER_ADDRESS {
            assert!(guesses.may_try(bad, now).is_ok());
            guesses.failed(bad, now);
        }
        assert_eq!(guesses.may_try(bad, now), Err(WINDOW));
        assert!(guesses.may_try(good, now).is_ok());
        assert!(guesses.may_try(bad, now + WINDOW).is_ok());
    }

    #[test]
    fn many_addresses_together_are_bounded_too() {
        let guesses = Guesses::default();
        let now = Instant::now();
        for number in 0..IN_ALL {
            guesses.failed(IpAddr::V4(number.into()), now);
        }
        assert!(
            guesses
                .may_try("198.51.100.9".parse().unwrap(), now)
                .is_err()
        );
    }

    #[test]
    fn a_64_block_of_ipv6_is_one_address() {
        assert_eq!(
            block("2001:db8::1".parse().unwrap()),
            block("2001:db8::ffff:1".parse().unwrap())
        );
        assert_ne!(
            block("2001:db8::1".parse().unwrap()),
            block("2001:db8:0:1::1".parse().unwrap())
        );
        assert_eq!(
            block("::ffff:192.0.2.1".parse().unwrap()),
            block("192.0.2.1".parse().unwrap())
        );
    }
}
