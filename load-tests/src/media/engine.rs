//! The thread of many clients: one loop that sends what is due, reads what has come, and keeps the clients' timers.
//!
//! What is due is sent before anything is read, so that a burst of received packets does not delay the schedule.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::net::{SocketAddr, UdpSocket as StdUdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver as Inbox, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use hdrhistogram::Histogram;
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token, Waker};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use str0m::crypto::dtls::DtlsCert;
use str0m::rtp::Ssrc;
use tokio::sync::oneshot;
use udp_batch::{Burst, Receiver as BatchReceiver, Sender as BatchSender};

use super::plain::Plain;
use super::webrtc::{Happened, WebRtc};
use super::{
    Command, ConnectionId, Line, MediaConfig, Outcome, Progress, Reply, SourceOutcome, StayId,
    TIMELINE_STEP, WireKind, profile,
};
use crate::payload::Stamp;
use crate::process::Usage;
use crate::source::{Source, SourceId, SourcePlan, nanoseconds, wall_clock};
use crate::stats::{Receiver, Window, latencies};

/// Timers of clients are kept on this grid: finer would wake the thread for one client at a time.
const GRID: Duration = Duration::from_millis(5);

/// Kernel buffer asked for in each direction of a client's socket, in bytes.
const SOCKET_BUFFER: usize = 1 << 20;

/// The longest datagram taken.
const MAX_DATAGRAM: usize = 2048;

/// Datagrams taken from one socket per call.
const BATCH: usize = 32;

/// Batches taken from one socket before the others get their turn.
const BATCHES_PER_TURN: usize = 4;

/// A source that is behind by more than this skips what it missed.
const CATCH_UP: Duration = Duration::from_millis(200);

/// Who has seen no whole keyframe for so long asks for one, and again after it.
const KEYFRAME_PATIENCE: Duration = Duration::from_millis(500);

/// How many failures are kept in words.
const FAILURES_KEPT: usize = 5;

const WAKE: Token = Token(usize::MAX);

enum Wire {
    WebRtc(Box<WebRtc>),
    Plain(Box<Plain>),
}

/// A video stream that comes in.
struct Incoming {
    ssrc: Ssrc,
    turn: u16,
    since: Instant,
}

struct Connection {
    stay: StayId,
    socket: UdpSocket,
    sender: BatchSender,
    loss: f64,
    wire: Wire,
    is_connected: bool,
    waiting: Vec<Reply<()>>,
    sources: Vec<SourceId>,
    incoming: HashMap<SourceId, Incoming>,
    next_look: Instant,
}

impl Connection {
    fn deadline(&self) -> Instant {
        match &self.wire {
            Wire::WebRtc(wire) => wire.deadline,
            Wire::Plain(wire) => wire.deadline,
        }
    }
}

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
    timeline: BTreeMap<u64, Histogram<u32>>,
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
            waiting: Vec::new(),
            sources: Vec::new(),
            incoming: HashMap::new(),
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
            self.sources
                .entry(plan.id)
                .or_insert_with(|| Source::new(*plan, is_on));
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

    fn send_due(&mut self) {
        loop {
            let now = Instant::now();
            match self.due.peek() {
                Some(Reverse((due, _, _))) if *due <= now => {}
                _ => return,
            }
            let Some(Reverse((due, id, at))) = self.due.pop() else {
                return;
            };
            let Some(connection) = self.connections.get_mut(&at) else {
                continue;
            };
            let Some(source) = self.sources.get_mut(&id) else {
                continue;
            };
            let late = now.saturating_duration_since(due);
            if source.is_on {
                if self.window.holds(wall_clock()) {
                    self.lateness.saturating_record(late.as_micros() as u64);
                }
                let mut failure = None;
                let mut count = 0;
                let codec = source.plan.codec;
                let wire = &mut connection.wire;
                source.frame(self.window, |packet| {
                    count += 1;
                    let sent = match wire {
                        Wire::WebRtc(wire) => wire.send(id, packet, now),
                        Wire::Plain(wire) => wire.send(id, codec, &packet),
                    };
                    failure = failure.take().or(sent.err());
                });
                self.progress.sent.fetch_add(count, Ordering::Relaxed);
                if let Some(error) = failure {
                    self.fail(&error);
                }
                self.flush(at);
                self.take_happened(at, now, 0);
            }
            let period = self.sources[&id].plan.beat.period;
            let mut next = due + period;
            if late > CATCH_UP {
                while next < now {
                    next += period;
                }
            }
            self.due.push(Reverse((next, id, at)));
        }
    }

    fn read(&mut self) {
        for id in std::mem::take(&mut self.readable) {
            let mut batches = 0;
            while let Some(connection) = self.connections.get(&id) {
                match self.batch.receive(&connection.socket) {
                    Ok(count) => {
                        self.take_batch(id);
                        if count < BATCH {
                            break;
                        }
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                    // ICMP errors of earlier sends; they concern no packet of ours.
                    Err(_) => {}
                }
                batches += 1;
                if batches == BATCHES_PER_TURN {
                    self.readable.push(id);
                    break;
                }
            }
            self.send_due();
        }
    }

    fn take_batch(&mut self, id: ConnectionId) {
        // The batch is lent to nobody else while its datagrams are looked at.
        let batch = std::mem::replace(&mut self.batch, BatchReceiver::new(1, 1));
        for datagram in batch.datagrams() {
            let now = Instant::now();
            let Some(connection) = self.connections.get_mut(&id) else {
                break;
            };
            if is_media(datagram.contents)
                && connection.loss > 0.0
                && self.random.random_bool(connection.loss)
            {
                continue;
            }
            let arrived = datagram.arrived_at.map_or_else(wall_clock, nanoseconds);
            let result = match &mut connection.wire {
                Wire::WebRtc(wire) => wire
                    .receive(datagram.source, datagram.contents, now)
                    .map(|()| None),
                Wire::Plain(wire) => Ok(wire.receive(&mut datagram.contents.to_vec())),
            };
            match result {
                Ok(Some(stamp)) => self.note(id, &stamp, Ssrc::from(0), arrived, now),
                Ok(None) => {}
                Err(error) => {
                    self.drop_connection(id, &error);
                    break;
                }
            }
            self.take_happened(id, now, arrived);
        }
        self.batch = batch;
        self.flush(id);
    }

    fn note(&mut self, id: ConnectionId, stamp: &Stamp, ssrc: Ssrc, arrived: u64, now: Instant) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let Some((receiver, _)) = self.stays.get(&connection.stay) else {
            return;
        };
        self.progress.received.fetch_add(1, Ordering::Relaxed);
        if stamp.is_video {
            let incoming = connection
                .incoming
                .entry(stamp.source)
                .or_insert_with(|| Incoming {
                    ssrc,
                    turn: stamp.turn,
                    since: now,
                });
            incoming.ssrc = ssrc;
            if incoming.turn != stamp.turn {
                incoming.turn = stamp.turn;
                incoming.since = now;
            }
        }
        let latency = self.receivers[*receiver].note(stamp, arrived, self.window);
        if let Some(latency) = latency {
            let step = (stamp.sent - self.window.from) / TIMELINE_STEP;
            self.timeline
                .entry(step)
                .or_insert_with(latencies)
                .saturating_record(latency);
        }
    }

    fn take_happened(&mut self, id: ConnectionId, now: Instant, arrived: u64) {
        loop {
            let Some(connection) = self.connections.get_mut(&id) else {
                return;
            };
            let happened = match &mut connection.wire {
                Wire::WebRtc(wire) => wire.take_happened(),
                Wire::Plain(wire) => {
                    (wire.is_connected && !connection.is_connected).then_some(Happened::Connected)
                }
            };
            match happened {
                None => return,
                Some(Happened::Connected) => self.connected(id),
                Some(Happened::Closed) => {
                    self.drop_connection(id, &anyhow!("a connection was closed by the server"));
                }
                Some(Happened::Payload(ssrc, payload)) => {
                    if let Some(stamp) = Stamp::read(&payload) {
                        self.note(id, &stamp, ssrc, arrived, now);
                    }
                }
                Some(Happened::KeyframeWanted(source)) => {
                    if let Some(source) = self.sources.get_mut(&source) {
                        source.ask_keyframe();
                    }
                }
            }
        }
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

    /// Sends what a connection has ready.
    fn flush(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        loop {
            let next = match &mut connection.wire {
                Wire::WebRtc(wire) => wire.take_outgoing(),
                Wire::Plain(wire) => wire.outgoing.pop_front(),
            };
            let Some((destination, datagram)) = next else {
                break;
            };
            if is_media(&datagram)
                && connection.loss > 0.0
                && self.random.random_bool(connection.loss)
            {
                continue;
            }
            if !self.burst.push(destination, &datagram) {
                self.unsent += send(connection, &mut self.burst);
                let fits = self.burst.push(destination, &datagram);
                self.unsent += u64::from(!fits);
            }
        }
        if !self.burst.is_empty() {
            self.unsent += send(connection, &mut self.burst);
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

    fn tick(&mut self, id: ConnectionId) {
        let now = Instant::now();
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.deadline() <= now {
            let result = match &mut connection.wire {
                Wire::WebRtc(wire) => wire.tick(now),
                Wire::Plain(wire) => {
                    wire.tick(now);
                    Ok(())
                }
            };
            if let Err(error) = result {
                self.drop_connection(id, &error);
                return;
            }
        }
        self.look_for_pictures(id, now);
        self.flush(id);
        self.take_happened(id, now, wall_clock());
    }

    /// Who sees packets of a camera but no keyframe asks for one, as a decoder would.
    fn look_for_pictures(&mut self, id: ConnectionId, now: Instant) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.next_look > now {
            return;
        }
        connection.next_look = now + KEYFRAME_PATIENCE;
        let Some((receiver, _)) = self.stays.get(&connection.stay) else {
            return;
        };
        let receiver = &self.receivers[*receiver];
        let Wire::WebRtc(wire) = &mut connection.wire else {
            return;
        };
        for (source, incoming) in &mut connection.incoming {
            if now.duration_since(incoming.since) >= KEYFRAME_PATIENCE
                && !receiver.has_picture(*source, incoming.turn)
            {
                incoming.since = now;
                // A failure shows itself at the next input.
                let _ = wire.ask_keyframe(incoming.ssrc, now);
            }
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
        if self.connections.contains_key(&id) {
            // After the measurement servers close what their clients leave.
            if wall_clock() < self.window.to {
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

/// Sends a burst; returns how many datagrams the socket did not take.
fn send(connection: &mut Connection, burst: &mut Burst) -> u64 {
    let sent = connection.sender.send(&connection.socket, burst, |_| {});
    let left = burst.datagrams() + sent.failed;
    burst.clear();
    left as u64
}

/// RTP and RTCP, by RFC 7983.
fn is_media(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(128..=191))
}

fn open_socket(address: SocketAddr) -> Result<StdUdpSocket> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None)
        .context("no more sockets: raise the limit of open files (ulimit -n)")?;
    // Smaller buffers than asked for only lose bursts earlier, which the results show.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.set_nonblocking(true)?;
    socket
        .bind(&address.into())
        .with_context(|| format!("can't open a UDP socket on {}", address.ip()))?;
    udp_batch::stamp_arrivals(&socket).context("this kernel does not stamp arrivals")?;
    Ok(socket.into())
}
