//! Runs a node's control core: one task that is told what arrives, what is done here, and the time,
//! and does what the core says.
//!
//! What took effect in a conference is kept in the file before anybody is told. What is for the media
//! core and for clients goes, in order, to whoever takes the outputs.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use signaling::cascade::seal::{self, SealError};
use signaling::cascade::{
    Cause, Envelope, Item, Message, Moment, Node, NodeConfig, NodeId, Output, Refusal, Time,
};
use signaling::log_limit::LogLimit;
use tokio::sync::{mpsc, oneshot};

use super::bus::{Arrival, Bus};
use super::credentials::Credentials;
use super::store::Store;

/// Things to do that wait for the core.
const WORK_BOUND: usize = 1024;

/// Outputs that wait for whoever takes them, for whom the core waits then.
const OUTPUT_BOUND: usize = 4096;

/// Messages that are taken before the time is looked at again.
const TURN_BOUND: usize = 64;

/// The longest sleep of a core that wants nothing.
const IDLE_AT_MOST: Duration = Duration::from_secs(60);

/// Pairs of node and reason of which refusals are counted apart.
const REFUSALS_BOUND: usize = 256;

static REFUSED: LogLimit = LogLimit::of(10);
static UNKEPT: LogLimit = LogLimit::new();

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// It was not opened.
    #[error(transparent)]
    Sealed(#[from] SealError),
    /// It came where another node speaks.
    #[error("a message of another node than the one that speaks there")]
    WrongSender,
    /// It tells of a node that stands elsewhere by its certificate.
    #[error("an announcement of another place than the node's certificate says")]
    WrongPlace,
    /// It tells of a node whose certificate has not come yet. The sender repeats it.
    #[error("an announcement of a node whose certificate is not here yet")]
    NotKnownYet,
    /// The core did not take it.
    #[error("the control core refused it: {0:?}")]
    Core(Refusal),
}

/// How many messages were refused, of whom and why.
#[derive(Default)]
pub(crate) struct Refusals(Mutex<Vec<(NodeId, Refused, u64)>>);

impl Refusals {
    fn count(&self, from: NodeId, why: Refused) {
        let mut counts = self.0.lock().expect("no panic while it is held");
        let is_same = |(node, reason, _): &(NodeId, Refused, u64)| *node == from && *reason == why;
        match counts.iter().position(is_same) {
            Some(at) => counts[at].2 += 1,
            None if counts.len() < REFUSALS_BOUND => counts.push((from, why, 1)),
            None => {}
        }
        drop(counts);
        if let Some(suppressed) = REFUSED.pass(Instant::now()) {
            tracing::warn!(
                %from,
                reason = %why,
                suppressed,
                "a message from another node was refused; if it goes on, look at that node, or revoke it"
            );
        }
    }

    /// So far.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> Vec<(NodeId, Refused, u64)> {
        self.0.lock().expect("no panic while it is held").clone()
    }

    /// All together.
    pub(crate) fn total(&self) -> u64 {
        let counts = self.0.lock().expect("no panic while it is held");
        counts.iter().map(|(_, _, count)| count).sum()
    }
}

type Work = Box<dyn FnOnce(&mut Node, Moment) + Send>;

/// A running node.
#[derive(Clone)]
pub(crate) struct Cascade {
    work: mpsc::Sender<Work>,
    /// What was refused.
    pub(crate) refusals: Arc<Refusals>,
    /// Lines that carry control and media.
    pub(crate) lines_up: Arc<AtomicU64>,
}

impl Cascade {
    /// Does something with the core, or asks it. `None`: it has ended.
    pub(crate) async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Node, Moment) -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, receiver) = oneshot::channel();
        let work: Work = Box::new(move |node, moment| {
            let _ = sender.send(work(node, moment));
        });
        self.work.send(work).await.ok()?;
        receiver.await.ok()
    }

    /// Starts a node's core. It ends when nobody holds it any more. The second half are its outputs, for
    /// whoever has the media core and the clients: lines, events, and what to forward.
    pub(crate) fn start(
        config: NodeConfig,
        credentials: Arc<Credentials>,
        store: Store,
        bus: Arc<dyn Bus>,
        inbox: mpsc::Receiver<Arrival>,
    ) -> (Cascade, mpsc::Receiver<Output>) {
        let (work, works) = mpsc::channel(WORK_BOUND);
        let (outputs, receiver) = mpsc::channel(OUTPUT_BOUND);
        let cascade = Cascade {
            work,
            refusals: Arc::default(),
            lines_up: Arc::default(),
        };
        let started = tokio::time::Instant::now();
        let seal: Arc<dyn seal::Seal> = credentials.clone();
        let runner = Runner {
            me: config.place.node,
            node: Node::new(config, seal, moment(started)),
            started,
            credentials,
            store,
            bus,
            outputs,
            refusals: cascade.refusals.clone(),
            lines_up: cascade.lines_up.clone(),
            up: BTreeSet::new(),
        };
        tokio::spawn(runner.run(works, inbox));
        (cascade, receiver)
    }
}

fn moment(started: tokio::time::Instant) -> Moment {
    Moment {
        now: Time(started.elapsed().as_millis() as u64),
        unix_ms: crate::meetings::now_ms() as u64,
    }
}

struct Runner {
    me: NodeId,
    node: Node,
    started: tokio::time::Instant,
    credentials: Arc<Credentials>,
    store: Store,
    bus: Arc<dyn Bus>,
    outputs: mpsc::Sender<Output>,
    refusals: Arc<Refusals>,
    lines_up: Arc<AtomicU64>,
    up: BTreeSet<NodeId>,
}

impl Runner {
    async fn run(mut self, mut works: mpsc::Receiver<Work>, mut inbox: mpsc::Receiver<Arrival>) {
        loop {
            let next = Duration::from_millis(self.node.next_timeout().0);
            let wake = self.started + next.min(self.started.elapsed() + IDLE_AT_MOST);
            tokio::select! {
                work = works.recv() => match work {
                    Some(work) => work(&mut self.node, moment(self.started)),
                    None => return,
                },
                Some(arrival) = inbox.recv() => {
                    self.receive(&arrival);
                    for _ in 1..TURN_BOUND {
                        match inbox.try_recv() {
                            Ok(arrival) => self.receive(&arrival),
                            Err(_) => break,
                        }
                    }
                }
                () = tokio::time::sleep_until(wake) => {}
            }
            let now = moment(self.started);
            if self.node.next_timeout() <= now.now {
                self.node.handle_timeout(now);
            }
            self.obey().await;
        }
    }

    fn receive(&mut self, arrival: &Arrival) {
        match self.open(arrival) {
            Ok(envelope) => self.node.receive(moment(self.started), envelope),
            Err(why) => self.refusals.count(arrival.from, why),
        }
    }

    /// Reads what came, and checks who says it and what it says of other nodes.
    fn open(&self, arrival: &Arrival) -> Result<Envelope, Refused> {
        let opened = seal::open(&arrival.message, self.me, &*self.credentials);
        let envelope = opened.inspect_err(|why| {
            if *why == SealError::BadSignature {
                // It may have a new key.
                self.credentials.want(arrival.from);
            }
        })?;
        if envelope.from != arrival.from {
            return Err(Refused::WrongSender);
        }
        if let Message::Batch(batch) = &envelope.message {
            for item in &*batch.items {
                let Item::Node { announcement, .. } = item else {
                    continue;
                };
                let place = announcement.place;
                match self.credentials.place(place.node) {
                    Some(known) if known != place => return Err(Refused::WrongPlace),
                    Some(_) => {}
                    None if self.credentials.is_revoked(place.node) => {}
                    // The core refuses whom nobody knows.
                    None if !self.credentials.want(place.node) => {}
                    None => return Err(Refused::NotKnownYet),
                }
            }
        }
        Ok(envelope)
    }

    /// Does what the core says: first what must be kept, then what is told.
    async fn obey(&mut self) {
        let (mut logs, mut envelopes, mut others) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Send(envelope) => envelopes.push(envelope),
                Output::Log { conference, entry } => {
                    let root = self.node.root(conference).unwrap_or(entry.epoch.root);
                    logs.push((conference, root, entry));
                }
                Output::Refused { from, why } => self.refusals.count(from, Refused::Core(why)),
                Output::Line { neighbour, cause } => {
                    self.line_changed(neighbour, cause);
                    others.push(Output::Line { neighbour, cause });
                }
                Output::Neighbour {
                    neighbour,
                    is_there,
                } => {
                    if !is_there {
                        self.up.remove(&neighbour);
                        self.count_lines();
                    }
                    others.push(Output::Neighbour {
                        neighbour,
                        is_there,
                    });
                }
                other => others.push(other),
            }
        }
        if !logs.is_empty()
            && let Err(error) = self.store.log(&logs).await
            && let Some(suppressed) = UNKEPT.pass(Instant::now())
        {
            tracing::error!(
                error = format!("{error:#}"),
                suppressed,
                "what took effect in a conference can't be kept: is the disk full?"
            );
        }
        for envelope in envelopes {
            match seal::seal(&envelope, &*self.credentials) {
                Ok(message) => self.bus.send(envelope.to, message),
                Err(error) => tracing::error!(%error, "a message can't be sent"),
            }
        }
        for output in others {
            // Nobody may want them.
            let _ = self.outputs.send(output).await;
        }
    }

    fn line_changed(&mut self, neighbour: NodeId, cause: Option<Cause>) {
        match cause {
            None => {
                self.up.insert(neighbour);
                tracing::info!(%neighbour, "the line to a node is up");
            }
            Some(cause) => {
                self.up.remove(&neighbour);
                tracing::warn!(
                    %neighbour,
                    ?cause,
                    "the line to a node is down; this branch goes on by itself until it is back"
                );
            }
        }
        self.count_lines();
    }

    fn count_lines(&self) {
        self.lines_up.store(self.up.len() as u64, Ordering::Relaxed);
    }
}
