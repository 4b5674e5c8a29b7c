//! The thread of many clients: one loop that sends what is due, reads what has come, and keeps the clients' timers.
//!
//! What is due is sent before anything is read, so that a burst of received packets does not delay the schedule.

mod connection;
mod traffic;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver as Inbox, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use hdrhistogram::Histogram;
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token, Waker};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use str0m::crypto::dtls::DtlsCert;
use tokio::sync::oneshot;
use udp_batch::{Burst, Receiver as BatchReceiver, Sender as BatchSender};

use self::connection::{Connection, Wire, open_socket};
use super::plain::Plain;
use super::webrtc::WebRtc;
use super::{
    Command, ConnectionId, Line, MediaConfig, Outcome, Progress, SourceOutcome, StayId, WireKind,
    profile,
};
use crate::process::Usage;
use crate::source::{Source, SourceId, SourcePlan, wall_clock};
use crate::stats::{Moment, Receiver, Window, latencies};

/// Timers of clients are kept on this grid: finer would wake the thread for one client at a time.
const GRID: Duration = Duration::from_millis(5);

/// The longest datagram taken.
const MAX_DATAGRAM: usize = 2048;

/// Datagrams taken from one socket per call.
const BATCH: usize = 32;

/// How many failures are kept in words.
const FAILURES_KEPT: usize = 5;

const WAKE: Token = Token(usize::MAX);

pub(super) fn start(
    config: MediaConfig,
    number: u64,
    progress: Arc<Progress>,
) -> Result<(Sender<Command>, Arc<Waker>, JoinHandle<()>)> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
    let (commands, inbox) = mpsc::channel();
    let certificate = profile::crypto()
        .dtls_provider
        .generate_certificate()
        .context("no certificate for DTLS could be made")?;
    let random = SmallRng::seed_from_u64(config.seed ^ number);
    let now = Instant::now();
    let engine = Engine {
        config,
        poll,
        certificate,
        random,
        progress,
        began: now,
        next_grid: now,
        stays: HashMap::new(),
        receivers: Vec::new(),
        connections: HashMap::new(),
        sources: HashMap::new(),
        off: HashMap::new(),
        due: BinaryHeap::new(),
        readable: Vec::new(),
        batch: BatchReceiver::new(BATCH, MAX_DATAGRAM),
        burst: Burst::new(128 * MAX_DATAGRAM, 128),
        window: Window::CLOSED,
        usage_at_begin: None,
        usage: None,
        lateness: latencies(),
        timeline: BTreeMap::new(),
        unsent: 0,
        failures: Vec::new(),
    };
    let handle = std::thread::Builder::new()
        .name(format!("clients-{number}"))
        .spawn(move || engine.run(inbox))?;
    Ok((commands, waker, handle))
}

struct Engine {
    config: MediaConfig,
    poll: Poll,
    certificate: DtlsCert,
    random: SmallRng,
    progress: Arc<Progress>,
    began: Instant,
    next_grid: Instant,
    stays: HashMap<StayId, (usize, f64)>,
    receivers: Vec<Receiver>,
    connections: HashMap<ConnectionId, Connection>,
    sources: HashMap<SourceId, Source>,
    /// Sources turned on or off before they exist.
    off: HashMap<SourceId, bool>,
    due: BinaryHeap<Reverse<(Instant, SourceId, ConnectionId)>>,
    readable: Vec<ConnectionId>,
    batch: BatchReceiver,
    burst: Burst,
    window: Window,
    usage_at_begin: Option<Usage>,
    usage: Option<Usage>,
    lateness: Histogram<u32>,
    timeline: BTreeMap<u64, Moment>,
    unsent: u64,
    failures: Vec<String>,
}

impl Engine {
    fn run(mut self, inbox: Inbox<Command>) {
        let mut events = Events::with_capacity(1024);
        loop {
            if let Err(error) = self.poll.poll(&mut events, Some(self.wait()))
                && error.kind() != std::io::ErrorKind::Interrupted
            {
                self.fail(&anyhow!(error).context("waiting for packets"));
                return;
            }
            for event in &events {
                if event.token() != WAKE {
                    self.readable.push(ConnectionId(event.token().0 as u64));
                }
            }
            loop {
                match inbox.try_recv() {
                    Ok(Command::Finish(reply)) => {
                        self.finish(reply);
                        return;
                    }
                    Ok(command) => self.command(command),
                    Err(mpsc::TryRecvError::Disconnected) => return,
                    Err(mpsc::TryRecvError::Empty) => break,
                }
            }
            self.send_due();
            self.read();
            self.keep_time();
        }
    }

    fn wait(&self) -> Duration {
        if !self.readable.is_empty() {
            return Duration::ZERO;
        }
        let send = self.due.peek().map(|Reverse((due, _, _))| *due);
        let next = send.map_or(self.next_grid, |send| send.min(self.next_grid));
        next.saturating_duration_since(Instant::now())
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Begin { stay, name, loss } => {
                self.stays.insert(stay, (self.receivers.len(), loss));
                self.receivers.push(Receiver::new(name, wall_clock()));
            }
            Command::Open {
                connection,
                stay,
                kind,
                reply,
            } => {
                let _ = reply.send(self.open(connection, stay, kind));
            }
            Command::Offer {
                connection,
                lines,
                reply,
            } => {
                let plans: Vec<SourcePlan> = lines
                    .iter()
                    .filter_map(|line| match line {
                        Line::Send { plan, .. } => Some(*plan),
                        _ => None,
                    })
                    .collect();
                let offer = self.change(connection, |wire, now| wire.offer(&lines, now));
                self.attach(connection, &plans);
                let _ = reply.send(offer);
            }
            Command::AcceptOffer {
                connection,
                sdp,
                reply,
            } => {
                let answer = self.change(connection, |wire, now| wire.accept_offer(&sdp, now));
                let _ = reply.send(answer);
            }
            Command::AcceptAnswer {
                connection,
                sdp,
                reply,
            } => {
                let done = self.change(connection, |wire, now| wire.accept_answer(&sdp, now));
                let _ = reply.send(done);
            }
            Command::AddCandidate {
                connection,
                candidate,
            } => {
                // A late candidate of a connection that is gone is no failure.
                let _ = self.change(connection, |wire, now| wire.add_candidate(&candidate, now));
            }
            Command::WaitConnected { connection, reply } => {
                // Without the connection the reply is dropped, which tells the one who waits.
                if let Some(connection) = self.connections.get_mut(&connection) {
                    if connection.is_connected {
                        let _ = reply.send(Ok(()));
                    } else {
                        connection.waiting.push(reply);
                    }
                }
            }
            Command::Goodbye { stay } => {
                let own = |connection: &&mut Connection| connection.stay == stay;
                for connection in self.connections.values_mut().filter(own) {
                    connection.is_leaving = true;
                }
            }
            Command::Leave { stay } => self.leave(stay),
            Command::SetOn { source, is_on } => {
                self.off.insert(source, is_on);
                if let Some(source) = self.sources.get_mut(&source) {
                    source.set_on(is_on);
                }
            }
            Command::Measure(window) => self.window = window,
            // Taken by the loop.
            Command::Finish(_) => {}
        }
    }

    fn open(&mut self, id: ConnectionId, stay: StayId, kind: WireKind) -> Result<()> {
        let (_, loss) = *self
            .stays
            .get(&stay)
            .ok_or_else(|| anyhow!("the client has left"))?;
        let socket = open_socket(SocketAddr::new(self.config.address, 0))?;
        let mut socket = UdpSocket::from_std(socket);
        self.poll
            .registry()
            .register(&mut socket, Token(id.0 as usize), Interest::READABLE)?;
        let local = socket.local_addr()?;
        let now = Instant::now();
        let (wire, plans) = match kind {
            WireKind::WebRtc => {
                let codecs = &self.config.codecs;
                let wire = WebRtc::new(local, codecs, &self.certificate, now)?;
                (Wire::WebRtc(Box::new(wire)), Vec::new())
            }
            WireKind::Plain {
                floor,
                hello,
                profile,
                plans,
            } => {
                let wire = Plain::new(floor, hello, profile, now);
                (Wire::Plain(Box::new(wire)), plans)
            }
        };
        let connection = Connection {
            stay,
            sender: BatchSender::new(&socket),
            socket,
            loss,
            wire,
            is_connected: false,
            is_leaving: false,
            waiting: Vec::new(),
            sources: Vec::new(),
            incoming: HashMap::new(),
            numbering: HashMap::new(),
            next_look: now,
        };
        self.connections.insert(id, connection);
        self.attach(id, &plans);
        Ok(())
    }

    /// The connection sends these sources from when it is up.
    fn attach(&mut self, id: ConnectionId, plans: &[SourcePlan]) {
        for plan in plans {
            let is_on = self.off.get(&plan.id).copied().unwrap_or(true);
            self.sources.entry(plan.id).or_insert_with(|| {
                let clip = self.config.clip.clone().filter(|_| plan.is_clip);
                Source::new(*plan, clip, is_on)
            });
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.sources.push(plan.id);
                if connection.is_connected {
                    self.schedule(id, plan.id);
                }
            }
        }
    }

    fn schedule(&mut self, connection: ConnectionId, source: SourceId) {
        let Some(known) = self.sources.get(&source) else {
            return;
        };
        let beat = known.plan.beat;
        let start = self.began + beat.phase(source);
        let periods = Instant::now()
            .saturating_duration_since(start)
            .as_secs_f64()
            / beat.period.as_secs_f64();
        let due = start + beat.period.mul_f64(periods.ceil());
        self.due.push(Reverse((due, source, connection)));
    }

    /// Changes a WebRTC connection and sends and notes what comes of it.
    fn change<T>(
        &mut self,
        id: ConnectionId,
        change: impl FnOnce(&mut WebRtc, Instant) -> Result<T>,
    ) -> Result<T> {
        let now = Instant::now();
        let connection = self
            .connections
            .get_mut(&id)
            .ok_or_else(|| anyhow!("the connection is closed"))?;
        let Wire::WebRtc(wire) = &mut connection.wire else {
            return Err(anyhow!("the floor has no descriptions"));
        };
        let result = change(wire, now);
        self.flush(id);
        self.take_happened(id, now, 0);
        result
    }

    fn connected(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if std::mem::replace(&mut connection.is_connected, true) {
            return;
        }
        self.progress.connected.fetch_add(1, Ordering::Relaxed);
        for reply in connection.waiting.drain(..) {
            let _ = reply.send(Ok(()));
        }
        if let Some((receiver, _)) = self.stays.get(&connection.stay) {
            self.receivers[*receiver]
                .connected
                .get_or_insert_with(wall_clock);
        }
        for source in connection.sources.clone() {
            self.schedule(id, source);
        }
    }

    fn keep_time(&mut self) {
        let now = Instant::now();
        if now < self.next_grid {
            return;
        }
        self.next_grid = now + GRID;
        self.take_usage();
        let due: Vec<ConnectionId> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.deadline() <= now || connection.next_look <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.tick(id);
            self.send_due();
        }
    }

    /// Notes this thread's use of the processor at the borders of the window.
    fn take_usage(&mut self) {
        let now = wall_clock();
        if self.usage.is_some() || now < self.window.from {
            return;
        }
        let Ok(usage) = Usage::of_this_thread() else {
            return;
        };
        match &self.usage_at_begin {
            None => self.usage_at_begin = Some(usage),
            Some(begin) if now >= self.window.to => self.usage = Some(usage.since(begin)),
            Some(_) => {}
        }
    }

    fn leave(&mut self, stay: StayId) {
        let now = Instant::now();
        let ids: Vec<ConnectionId> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.stay == stay)
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            let _ = self.change(id, |wire, _| wire.close(now));
            self.remove(id);
        }
        if let Some((receiver, _)) = self.stays.remove(&stay) {
            self.receivers[receiver].has_left = true;
        }
    }

    fn remove(&mut self, id: ConnectionId) {
        if let Some(mut connection) = self.connections.remove(&id) {
            if connection.is_connected {
                self.progress.connected.fetch_sub(1, Ordering::Relaxed);
            }
            // Closing the descriptor deregisters it too.
            let _ = self.poll.registry().deregister(&mut connection.socket);
        }
    }

    fn drop_connection(&mut self, id: ConnectionId, error: &anyhow::Error) {
        if let Some(connection) = self.connections.get(&id) {
            // After the measurement servers close what their clients leave.
            if wall_clock() < self.window.to && !connection.is_leaving {
                self.progress.closed.fetch_add(1, Ordering::Relaxed);
                self.fail(error);
            }
            self.remove(id);
        }
    }

    fn fail(&mut self, error: &anyhow::Error) {
        if self.failures.len() < FAILURES_KEPT {
            self.failures.push(format!("{error:#}"));
        }
    }

    fn finish(mut self, reply: oneshot::Sender<Outcome>) {
        let stays: Vec<StayId> = self.stays.keys().copied().collect();
        // They are there at the end: closing them is no leaving.
        for stay in stays {
            if let Some((receiver, _)) = self.stays.get(&stay).copied() {
                self.leave(stay);
                self.receivers[receiver].has_left = false;
            }
        }
        let sources = self.sources.into_values().map(|source| SourceOutcome {
            plan: source.plan,
            sent: source.sent,
            turns: source.turns,
            keyframe_requests: source.keyframe_requests,
        });
        let outcome = Outcome {
            receivers: self.receivers,
            sources: sources.collect(),
            lateness: self.lateness,
            timeline: self.timeline,
            threads: self.usage.into_iter().collect(),
            unsent: self.unsent,
            failures: self.failures,
            profiles: profile::agreed(),
        };
        // Nobody waits any more when the run was broken off.
        let _ = reply.send(outcome);
    }
}
