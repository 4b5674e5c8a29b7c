//! Gives a shard its thread, its sockets and the time.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket as StdUdpSocket};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token, Waker};

use crate::command::{Command, Event};
use crate::shard::{Shard, ShardConfig, Totals};

/// Kernel buffer asked for in each direction, in bytes: a keyframe for a hundred subscribers at
/// once. The kernel may give less.
const SOCKET_BUFFER: usize = 4 << 20;

/// Batches of datagrams read from one socket in one turn before everybody else gets theirs.
const BATCHES_PER_TURN: usize = 2;

/// The longest datagram taken; WebRTC stays below 1,500.
const MAX_DATAGRAM: usize = 2048;

/// How often the shard is told how busy the thread is.
const BUSY_INTERVAL: Duration = Duration::from_millis(250);

/// How often the totals are copied out for others to read.
const TOTALS_INTERVAL: Duration = Duration::from_millis(200);

const WAKE: Token = Token(usize::MAX);

/// Where a shard listens and what it tells clients.
#[derive(Clone, Debug, Default)]
pub struct DriverConfig {
    /// UDP addresses to listen on. An unspecified address (`0.0.0.0`, `[::]`) stands for each of
    /// this machine's addresses of that family.
    pub listen: Vec<SocketAddr>,
    /// Addresses told to clients instead of the listened ones, such as a router's public address
    /// that is forwarded here. Empty: the listened ones.
    pub announce: Vec<IpAddr>,
}

enum Message {
    Command(Command),
    Shutdown,
}

/// A running shard.
#[derive(Clone)]
pub struct ShardHandle {
    messages: Sender<Message>,
    waker: Arc<Waker>,
    totals: Arc<Mutex<Totals>>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
    candidates: Arc<[SocketAddr]>,
}

impl ShardHandle {
    /// Queues a command. Ignored after [`ShardHandle::shutdown`].
    pub fn send(&self, command: Command) {
        if self.messages.send(Message::Command(command)).is_ok() {
            // A failed wake-up only delays the command to the next deadline.
            let _ = self.waker.wake();
        }
    }

    /// The shard's totals, at most a fraction of a second old.
    pub fn metrics(&self) -> Totals {
        *self
            .totals
            .lock()
            .expect("the totals are only copied under this lock")
    }

    /// The addresses at which clients reach the shard.
    pub fn candidates(&self) -> &[SocketAddr] {
        &self.candidates
    }

    /// Ends the shard's thread and waits for it.
    pub fn shutdown(&self) {
        let _ = self.messages.send(Message::Shutdown);
        let _ = self.waker.wake();
        let thread = self
            .thread
            .lock()
            .expect("the thread is only taken under this lock")
            .take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

struct Socket {
    socket: UdpSocket,
    sender: udp_batch::Sender,
    candidate: SocketAddr,
}

/// Opens the sockets and starts the thread; `sink` is called on it with everything the shard
/// tells, and must not block.
///
/// # Errors
/// When an address can't be listened on, or there is none.
pub fn start(
    config: DriverConfig,
    sink: impl FnMut(Event) + Send + 'static,
) -> io::Result<ShardHandle> {
    let poll = Poll::new()?;
    let mut sockets = open_sockets(&config)?;
    for (at, socket) in sockets.iter_mut().enumerate() {
        poll.registry()
            .register(&mut socket.socket, Token(at), Interest::READABLE)?;
    }
    let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
    let (messages, inbox) = mpsc::channel();
    let totals = Arc::new(Mutex::new(Totals::default()));
    let candidates: Arc<[SocketAddr]> = sockets.iter().map(|socket| socket.candidate).collect();
    let shard = Shard::new(
        ShardConfig {
            candidates: candidates.to_vec(),
        },
        Instant::now(),
    );
    let shared = totals.clone();
    let thread = std::thread::Builder::new()
        .name("shard".into())
        .spawn(move || run(poll, sockets, shard, inbox, shared, sink))?;
    Ok(ShardHandle {
        messages,
        waker,
        totals,
        thread: Arc::new(Mutex::new(Some(thread))),
        candidates,
    })
}

fn open_sockets(config: &DriverConfig) -> io::Result<Vec<Socket>> {
    let mut addresses = Vec::new();
    for listen in &config.listen {
        if !listen.ip().is_unspecified() {
            addresses.push(*listen);
            continue;
        }
        let mut own: Vec<IpAddr> = if_addrs::get_if_addrs()?
            .into_iter()
            .map(|interface| interface.ip())
            .filter(|ip| ip.is_ipv4() == listen.is_ipv4() && !is_link_local(ip))
            .collect();
        if own.iter().any(|ip| !ip.is_loopback()) {
            own.retain(|ip| !ip.is_loopback());
        }
        addresses.extend(own.into_iter().map(|ip| SocketAddr::new(ip, listen.port())));
    }
    addresses.sort();
    addresses.dedup();
    let mut sockets = Vec::new();
    for address in addresses {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None)?;
        // Smaller buffers than asked for only mean that bursts are lost earlier.
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // Where the kernel can't, nothing is ever late.
        let _ = udp_batch::stamp_arrivals(&socket);
        socket.set_nonblocking(true)?;
        socket.bind(&address.into()).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("can't listen on UDP {address}: {error}"),
            )
        })?;
        let socket = UdpSocket::from_std(StdUdpSocket::from(socket));
        let local = socket.local_addr()?;
        let announced = config
            .announce
            .iter()
            .find(|ip| ip.is_ipv4() == local.is_ipv4());
        let candidate = SocketAddr::new(announced.copied().unwrap_or(local.ip()), local.port());
        let sender = udp_batch::Sender::new(&socket);
        sockets.push(Socket {
            socket,
            sender,
            candidate,
        });
    }
    if sockets.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::AddrNotAvailable,
            "there is no UDP address to listen on; name one in media.listen",
        ));
    }
    Ok(sockets)
}

fn is_link_local(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn run(
    mut poll: Poll,
    mut sockets: Vec<Socket>,
    mut shard: Shard,
    inbox: Receiver<Message>,
    totals: Arc<Mutex<Totals>>,
    mut sink: impl FnMut(Event),
) {
    let mut events = Events::with_capacity(64);
    let mut batch = udp_batch::Receiver::new(udp_batch::MAX_BATCH, MAX_DATAGRAM);
    let mut readable = vec![true; sockets.len()];
    let mut next_totals = Instant::now();
    let mut waited = Duration::ZERO;
    let mut since = Instant::now();
    loop {
        let before = Instant::now();
        let wait = if readable.iter().any(|readable| *readable) {
            Duration::ZERO
        } else {
            shard.deadline().saturating_duration_since(before)
        };
        if let Err(error) = poll.poll(&mut events, Some(wait))
            && error.kind() != io::ErrorKind::Interrupted
        {
            tracing::error!(%error, "the media thread can't wait for packets and ends; restart the server");
            return;
        }
        if !wait.is_zero() {
            waited += before.elapsed();
        }
        for event in &events {
            if let Some(readable) = readable.get_mut(event.token().0) {
                *readable = true;
            }
        }
        loop {
            match inbox.try_recv() {
                Ok(Message::Command(command)) => shard.command(Instant::now(), command),
                Ok(Message::Shutdown) | Err(mpsc::TryRecvError::Disconnected) => {
                    flush(&mut shard, &mut sockets, &mut sink);
                    return;
                }
                Err(mpsc::TryRecvError::Empty) => break,
            }
        }
        for (socket, readable) in sockets.iter().zip(&mut readable) {
            for _ in 0..BATCHES_PER_TURN {
                match batch.receive(&socket.socket) {
                    Ok(received) => {
                        let (now, wall_clock) = (Instant::now(), SystemTime::now());
                        for datagram in batch.datagrams().filter(|one| !one.is_truncated) {
                            let waited = datagram
                                .arrived_at
                                .and_then(|at| wall_clock.duration_since(at).ok())
                                .unwrap_or_default();
                            if shard.is_late(waited, datagram.contents) {
                                continue;
                            }
                            shard.receive(
                                now,
                                datagram.source,
                                socket.candidate,
                                datagram.contents,
                            );
                        }
                        if received < udp_batch::MAX_BATCH {
                            // It was all that there was; what comes now is announced anew.
                            *readable = false;
                            break;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        *readable = false;
                        break;
                    }
                    // ICMP errors of earlier sends come here; they concern no packet of ours.
                    Err(_) => {}
                }
            }
        }
        let now = Instant::now();
        if shard.deadline() <= now {
            shard.advance(now);
        }
        let passed = now.saturating_duration_since(since);
        if passed >= BUSY_INTERVAL {
            let worked = passed.saturating_sub(waited);
            shard.set_busy(now, (worked.as_micros() * 1000 / passed.as_micros()) as u64);
            (since, waited) = (now, Duration::ZERO);
        }
        if now >= next_totals {
            next_totals = now + TOTALS_INTERVAL;
            *totals
                .lock()
                .expect("the totals are only copied under this lock") = shard.totals();
        }
        flush(&mut shard, &mut sockets, &mut sink);
    }
}

fn flush(shard: &mut Shard, sockets: &mut [Socket], sink: &mut impl FnMut(Event)) {
    shard.flush(|source, burst| {
        let of = |socket: &&mut Socket| socket.candidate == source;
        if let Some(socket) = sockets.iter_mut().find(of) {
            // A full buffer or an unreachable client loses these datagrams; NACK repairs them.
            socket.sender.send(&socket.socket, burst, |_| {});
        }
    });
    while let Some(event) = shard.poll_event() {
        sink(event);
    }
}
