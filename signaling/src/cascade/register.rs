//! A switch that several may close and that closing wins: a microphone, or the right to publish.
//!
//! Two halves of a conference that can't hear each other may both close and open it. When they are
//! one again, it is open only if whoever opened it had seen every closing. That is a pair of version
//! vectors, merged entry by entry: the same whatever comes in which order and how often.

use serde::{Deserialize, Serialize};

use super::identity::{Epoch, NodeId};
use super::rule::Rule;

/// Authorities that one switch remembers. Each epoch's root that ever closed it counts as one; the
/// tree has five levels, and a person's path has as many roots.
pub(crate) const AUTHORITIES_BOUND: usize = 16;

/// Authority and its latest closing.
type Versions = Vec<(NodeId, u64)>;

/// A switch; open when new.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// The latest closing by each authority.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    closed: Versions,
    /// The closings that the latest opening had seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    opened: Versions,
}

fn version(of: &Versions, authority: NodeId) -> u64 {
    of.iter()
        .find(|(node, _)| *node == authority)
        .map_or(0, |(_, version)| *version)
}

/// Whether `into` changed.
fn merge(into: &mut Versions, other: &Versions) -> bool {
    let mut is_changed = false;
    for (node, version) in other {
        let is_full = into.len() >= AUTHORITIES_BOUND;
        match into.iter_mut().find(|(own, _)| own == node) {
            Some((_, own)) if *own >= *version => {}
            Some((_, own)) => {
                *own = *version;
                is_changed = true;
            }
            None if is_full => {}
            None => {
                into.push((*node, *version));
                is_changed = true;
            }
        }
    }
    into.sort_unstable();
    is_changed
}

impl Register {
    /// Nobody ever closed it.
    pub fn is_new(&self) -> bool {
        self.closed.is_empty()
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.closed
            .iter()
            .all(|(node, closing)| version(&self.opened, *node) >= *closing)
    }

    /// The root of an epoch closes it, once more if it is closed.
    pub fn close(&mut self, epoch: Epoch) {
        let next = (version(&self.closed, epoch.root) + 1).max(epoch.number << 16);
        merge(&mut self.closed, &vec![(epoch.root, next)]);
    }

    /// Somebody who has seen all closings that are known here opens it.
    pub fn open(&mut self) {
        self.opened.clone_from(&self.closed);
    }

    /// Takes in what another node knows; whether that changed anything.
    pub fn merge(&mut self, other: &Register) -> bool {
        if !Rule::MuteWins.holds() && !other.is_new() && other.is_open() && !self.is_open() {
            *self = other.clone();
            return true;
        }
        let is_closed_more = merge(&mut self.closed, &other.closed);
        merge(&mut self.opened, &other.opened) || is_closed_more
    }

    /// Whether every closing that `other` knows is known here.
    pub fn has_seen(&self, other: &Register) -> bool {
        let all = other.closed.iter();
        all.into_iter()
            .all(|(node, closing)| version(&self.closed, *node) >= *closing)
    }

    /// About how many bytes it takes in a message.
    pub(crate) fn size(&self) -> usize {
        24 + (self.closed.len() + self.opened.len()) * 64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn epoch(root: u128, number: u64) -> Epoch {
        Epoch {
            root: NodeId(root),
            number,
        }
    }

    #[test]
    fn mute_wins_over_an_opening_that_had_not_seen_it() {
        let mut branch = Register::default();
        let mut main = Register::default();
        branch.close(epoch(2, 1));
        branch.open();
        main.close(epoch(1, 1));
        main.merge(&branch);
        branch.merge(&main);
        assert_eq!(main, branch);
        assert!(!main.is_open());
        main.open();
        branch.merge(&main);
        assert!(branch.is_open());
    }

    #[test]
    fn a_root_that_forgot_its_closings_still_closes() {
        let mut known = Register::default();
        known.close(epoch(1, 1));
        known.close(epoch(1, 1));
        known.open();
        let mut fresh = Register::default();
        fresh.close(epoch(1, 2));
        known.merge(&fresh);
        assert!(!known.is_open());
    }

    proptest! {
        #[test]
        fn order_and_repetition_do_not_matter(acts in prop::collection::vec((0..3usize, 0..4u8, 0..3usize), 0..40)) {
            let mut all = vec![Register::default(); 3];
            for (at, act, other) in acts {
                match act {
                    0 => all[at].close(epoch(at as u128, 1)),
                    1 => all[at].open(),
                    _ => {
                        let other = all[other].clone();
                        all[at].merge(&other);
                    }
                }
            }
            let mut forward = Register::default();
            let mut backward = Register::default();
            for one in &all {
                forward.merge(one);
                forward.merge(one);
            }
            for one in all.iter().rev() {
                backward.merge(one);
            }
            prop_assert_eq!(&forward, &backward);
            let again = forward.clone();
            prop_assert!(!forward.merge(&again));
        }
    }
}
