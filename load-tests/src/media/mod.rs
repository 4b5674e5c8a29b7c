//! Real WebRTC clients, many to a thread: sockets, engines, sources and counts. Knows nothing of any server's
//! signalling, which talks to it through [`Media`].

mod engine;
mod plain;
mod profile;
mod webrtc;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, bail};
use hdrhistogram::Histogram;
use mio::Waker;
use tokio::sync::oneshot;

use crate::clip::Clip;
use crate::floor::Hello;
use crate::process::Usage;
use crate::scenario::Codec;
use crate::source::{SourceId, SourcePlan};
use crate::srtp::Profile;
use crate::stats::{Moment, Receiver, Sent, Window};

/// The length of a step of the timeline, in nanoseconds.
pub const TIMELINE_STEP: u64 = 500_000_000;

/// One stay of a client: from joining to leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StayId(u64);

/// One peer connection of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(u64);

/// An m-line of an offer.
#[derive(Clone, Debug)]
pub enum Line {
    /// Sends a source as the track with this id.
    Send {
        /// The source.
        plan: SourcePlan,
        /// The id of the track in `a=msid`.
        track: String,
    },
    /// Takes an audio track.
    ReceiveAudio,
    /// Takes a video track.
    ReceiveVideo,
    /// Opens a data channel, without which a connection that sends and takes nothing could not be
    /// offered.
    Channel,
}

type Reply<T> = oneshot::Sender<Result<T>>;

/// What a connection is made of.
enum WireKind {
    WebRtc,
    Plain {
        floor: SocketAddr,
        hello: Hello,
        profile: Profile,
        plans: Vec<SourcePlan>,
    },
}

enum Command {
    Begin {
        stay: StayId,
        name: String,
        loss: f64,
    },
    Open {
        connection: ConnectionId,
        stay: StayId,
        kind: WireKind,
        reply: Reply<()>,
    },
    Offer {
        connection: ConnectionId,
        lines: Vec<Line>,
        reply: Reply<String>,
    },
    AcceptOffer {
        connection: ConnectionId,
        sdp: String,
        reply: Reply<String>,
    },
    AcceptAnswer {
        connection: ConnectionId,
        sdp: String,
        reply: Reply<()>,
    },
    AddCandidate {
        connection: ConnectionId,
        candidate: String,
    },
    WaitConnected {
        connection: ConnectionId,
        reply: Reply<()>,
    },
    Goodbye {
        stay: StayId,
    },
    Leave {
        stay: StayId,
    },
    SetOn {
        source: SourceId,
        is_on: bool,
    },
    Measure(Window),
    Finish(oneshot::Sender<Outcome>),
}

/// What is counted while it runs, for a line of progress.
#[derive(Debug, Default)]
pub struct Progress {
    /// Connections that are up.
    pub connected: AtomicU64,
    /// Connections that went down by themselves.
    pub closed: AtomicU64,
    /// Stamped packets sent.
    pub sent: AtomicU64,
    /// Stamped packets received.
    pub received: AtomicU64,
}

/// What a source did.
#[derive(Clone, Debug)]
pub struct SourceOutcome {
    /// The source.
    pub plan: SourcePlan,
    /// What it sent within the window.
    pub sent: Sent,
    /// When each turn began, in nanoseconds since 1970.
    pub turns: HashMap<u16, u64>,
    /// Requests for keyframes that reached it.
    pub keyframe_requests: u64,
}

/// What all threads counted.
#[derive(Debug)]
pub struct Outcome {
    /// All stays.
    pub receivers: Vec<Receiver>,
    /// All sources.
    pub sources: Vec<SourceOutcome>,
    /// How late frames went out, in microseconds, within the window.
    pub lateness: Histogram<u32>,
    /// What came, by step of the window.
    pub timeline: BTreeMap<u64, Moment>,
    /// What each thread used within the window.
    pub threads: Vec<Usage>,
    /// Datagrams that a full socket did not take.
    pub unsent: u64,
    /// The first failures of connections, in words.
    pub failures: Vec<String>,
    /// How many connections agreed on each SRTP profile.
    pub profiles: BTreeMap<Profile, u32>,
}

/// What the clients are like.
#[derive(Clone, Debug)]
pub struct MediaConfig {
    /// The local address of their sockets.
    pub address: IpAddr,
    /// Codecs that they know.
    pub codecs: Vec<Codec>,
    /// What those send who send a clip.
    pub clip: Option<Arc<Clip>>,
    /// How many threads drive them.
    pub threads: usize,
    /// Seed of what is left to chance.
    pub seed: u64,
}

struct Thread {
    commands: Sender<Command>,
    waker: Arc<Waker>,
    handle: Option<JoinHandle<()>>,
}

/// All clients' media.
pub struct Media {
    threads: Vec<Thread>,
    next: AtomicU64,
    progress: Arc<Progress>,
}

impl Media {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system refuses them.
    pub fn start(config: &MediaConfig) -> Result<Media> {
        let progress = Arc::new(Progress::default());
        let threads = (0..config.threads.max(1))
            .map(|number| {
                let (commands, waker, handle) =
                    engine::start(config.clone(), number as u64, progress.clone())?;
                Ok(Thread {
                    commands,
                    waker,
                    handle: Some(handle),
                })
            })
            .collect::<Result<_>>()?;
        Ok(Media {
            threads,
            next: AtomicU64::new(0),
            progress,
        })
    }

    /// Counts so far.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    fn send(&self, number: u64, command: Command) {
        let thread = &self.threads[number as usize % self.threads.len()];
        // A thread that has ended answers nothing, which its callers see by their replies.
        if thread.commands.send(command).is_ok() {
            let _ = thread.waker.wake();
        }
    }

    fn send_all(&self, command: impl Fn() -> Command) {
        for number in 0..self.threads.len() {
            self.send(number as u64, command());
        }
    }

    /// A client comes. Of its media datagrams, `loss` (0 to 1) are thrown away in each direction.
    pub fn begin(&self, name: String, loss: f64) -> StayId {
        let stay = StayId(self.next.fetch_add(1, Ordering::Relaxed));
        self.send(stay.0, Command::Begin { stay, name, loss });
        stay
    }

    /// Opens a peer connection of a client.
    ///
    /// # Errors
    /// When there is no socket for it.
    pub async fn open(&self, stay: StayId) -> Result<ConnectionId> {
        self.open_as(stay, WireKind::WebRtc).await
    }

    /// Opens a client's connection to the floor, on which it sends `plans`.
    ///
    /// # Errors
    /// When there is no socket for it.
    pub async fn open_plain(
        &self,
        stay: StayId,
        floor: SocketAddr,
        hello: Hello,
        profile: Profile,
        plans: Vec<SourcePlan>,
    ) -> Result<ConnectionId> {
        let kind = WireKind::Plain {
            floor,
            hello,
            profile,
            plans,
        };
        self.open_as(stay, kind).await
    }

    async fn open_as(&self, stay: StayId, kind: WireKind) -> Result<ConnectionId> {
        // A client's connections live on one thread: numbers that are congruent.
        let threads = self.threads.len() as u64;
        let fresh = self.next.fetch_add(threads, Ordering::Relaxed);
        let connection = ConnectionId(fresh - fresh % threads + stay.0 % threads);
        self.ask(stay.0, |reply| Command::Open {
            connection,
            stay,
            kind,
            reply,
        })
        .await?;
        Ok(connection)
    }

    async fn ask<T>(&self, number: u64, command: impl FnOnce(Reply<T>) -> Command) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.send(number, command(reply));
        answer
            .await
            .map_err(|_| anyhow!("the connection was closed"))?
    }

    /// Adds m-lines and makes an offer, as SDP.
    ///
    /// # Errors
    /// When the connection is gone or there is nothing to offer.
    pub async fn offer(&self, connection: ConnectionId, lines: Vec<Line>) -> Result<String> {
        self.ask(connection.0, |reply| Command::Offer {
            connection,
            lines,
            reply,
        })
        .await
    }

    /// Takes the server's offer; returns the answer.
    ///
    /// # Errors
    /// When it can't be taken.
    pub async fn accept_offer(&self, connection: ConnectionId, sdp: String) -> Result<String> {
        self.ask(connection.0, |reply| Command::AcceptOffer {
            connection,
            sdp,
            reply,
        })
        .await
    }

    /// Takes the server's answer.
    ///
    /// # Errors
    /// When it can't be taken.
    pub async fn accept_answer(&self, connection: ConnectionId, sdp: String) -> Result<()> {
        self.ask(connection.0, |reply| Command::AcceptAnswer {
            connection,
            sdp,
            reply,
        })
        .await
    }

    /// Takes a candidate of the server (`candidate:…`).
    pub fn add_candidate(&self, connection: ConnectionId, candidate: String) {
        self.send(
            connection.0,
            Command::AddCandidate {
                connection,
                candidate,
            },
        );
    }

    /// Waits until a connection is up.
    ///
    /// # Errors
    /// When it is closed before.
    pub async fn connected(&self, connection: ConnectionId) -> Result<()> {
        self.ask(connection.0, |reply| Command::WaitConnected {
            connection,
            reply,
        })
        .await
    }

    /// A client is about to go: that the server then closes its connections is no failure.
    pub fn says_goodbye(&self, stay: StayId) {
        self.send(stay.0, Command::Goodbye { stay });
    }

    /// A client goes: its connections are closed.
    pub fn leave(&self, stay: StayId) {
        self.send(stay.0, Command::Leave { stay });
    }

    /// Turns a source on or off; sources are on unless they were turned off.
    pub fn set_on(&self, source: SourceId, is_on: bool) {
        self.send_all(|| Command::SetOn { source, is_on });
    }

    /// From now on packets that are sent within the window count.
    pub fn measure(&self, window: Window) {
        self.send_all(|| Command::Measure(window));
    }

    /// Ends all threads and returns what they counted.
    ///
    /// # Errors
    /// When one of them ended by itself.
    pub async fn finish(mut self) -> Result<Outcome> {
        let mut outcome: Option<Outcome> = None;
        for thread in &mut self.threads {
            let (reply, answer) = oneshot::channel();
            if thread.commands.send(Command::Finish(reply)).is_ok() {
                let _ = thread.waker.wake();
            }
            let part = answer
                .await
                .context("a thread of clients ended before its time")?;
            if let Some(handle) = thread.handle.take()
                && handle.join().is_err()
            {
                bail!("a thread of clients broke down");
            }
            match &mut outcome {
                None => outcome = Some(part),
                Some(outcome) => outcome.merge(part),
            }
        }
        outcome.context("there was no thread")
    }
}

impl Outcome {
    fn merge(&mut self, other: Outcome) {
        self.receivers.extend(other.receivers);
        self.sources.extend(other.sources);
        self.lateness += &other.lateness;
        for (step, moment) in other.timeline {
            self.timeline.entry(step).or_default().add(&moment);
        }
        self.threads.extend(other.threads);
        self.unsent += other.unsent;
        self.failures.extend(other.failures);
    }
}
