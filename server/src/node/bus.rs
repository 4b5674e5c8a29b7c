//! What carries messages between nodes.
//!
//! A bus is not trusted and promises nothing: messages may be lost, doubled, late or forged. What is in
//! them is signed, numbered and sent again by the control core. It never makes its node wait.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use signaling::cascade::NodeId;
use signaling::log_limit::LogLimit;
use tokio::sync::mpsc;

/// Messages that wait for a node. More outlast a longer pause of it; what waits for longer than a line
/// takes to be lost is of no use.
pub(crate) const INBOX_BOUND: usize = 4096;

static FULL: LogLimit = LogLimit::new();

/// A message, sealed, by whom it is said to be.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    /// Whose messages arrive there. What is inside must say the same.
    pub(crate) from: NodeId,
    /// As it came.
    pub(crate) message: Bytes,
}

/// Carries messages of one node to and from its neighbours.
pub(crate) trait Bus: Send + Sync {
    /// From now on what a neighbour says to this node arrives.
    fn listen(&self, neighbour: NodeId);
    /// From now on it does not.
    fn ignore(&self, neighbour: NodeId);
    /// Sends to a neighbour.
    fn send(&self, to: NodeId, message: Vec<u8>);
}

/// Puts a message into a node's inbox; one that finds no place is lost.
pub(crate) fn arrive(inbox: &mpsc::Sender<Arrival>, arrival: Arrival) {
    if inbox.try_send(arrival).is_err()
        && let Some(suppressed) = FULL.pass(Instant::now())
    {
        tracing::warn!(
            suppressed,
            "messages from other nodes were lost: this node has no time to read them"
        );
    }
}

struct Member {
    inbox: mpsc::Sender<Arrival>,
    heard: BTreeSet<NodeId>,
}

/// Carries messages between the nodes of one process.
#[derive(Clone, Default)]
pub(crate) struct Exchange(Arc<Mutex<BTreeMap<NodeId, Member>>>);

impl Exchange {
    /// A node of this process takes part.
    pub(crate) fn join(&self, node: NodeId, inbox: mpsc::Sender<Arrival>) -> MemoryBus {
        let member = Member {
            inbox,
            heard: BTreeSet::new(),
        };
        let mut members = self.0.lock().expect("no panic while it is held");
        members.insert(node, member);
        MemoryBus {
            exchange: self.clone(),
            node,
        }
    }
}

/// One node's end of an [`Exchange`].
pub(crate) struct MemoryBus {
    exchange: Exchange,
    node: NodeId,
}

impl MemoryBus {
    fn with(&self, node: NodeId, work: impl FnOnce(&mut Member)) {
        let mut members = self.exchange.0.lock().expect("no panic while it is held");
        if let Some(member) = members.get_mut(&node) {
            work(member);
        }
    }
}

impl Bus for MemoryBus {
    fn listen(&self, neighbour: NodeId) {
        self.with(self.node, |own| {
            own.heard.insert(neighbour);
        });
    }

    fn ignore(&self, neighbour: NodeId) {
        self.with(self.node, |own| {
            own.heard.remove(&neighbour);
        });
    }

    fn send(&self, to: NodeId, message: Vec<u8>) {
        self.with(to, |other| {
            if other.heard.contains(&self.node) {
                let from = self.node;
                let message = message.into();
                arrive(&other.inbox, Arrival { from, message });
            }
        });
    }
}

impl Drop for MemoryBus {
    fn drop(&mut self) {
        let mut members = self.exchange.0.lock().expect("no panic while it is held");
        members.remove(&self.node);
    }
}
