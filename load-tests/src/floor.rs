//! The floor: a forwarder that does only what no server can avoid, so that servers can be told as multiples of it.
//!
//! Per packet in, one decryption; per packet out, one encryption with a rewritten header; batched receiving and
//! sending. No ICE, no DTLS, no RTCP, no repair, no choice of layers: a client says who it is in one datagram, and
//! the keys follow from that. It protects nothing and is for measuring only.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use udp_batch::{Burst, MAX_BATCH, Receiver, Sender, Sent};

use crate::metrics;
use crate::srtp::{Context, FIXED_HEADER, Profile, header_length};

/// Bytes of every packet's header: the fixed one and one extension of two words, which servers
/// have for the transport-wide number.
pub(crate) const RTP_HEADER: usize = FIXED_HEADER + 8;

/// Datagrams sent at once: the first must not wait for the last one's encryption.
const FLUSH_DATAGRAMS: usize = 256;

/// The longest datagram taken.
const MAX_DATAGRAM: usize = 1500;

/// Kernel buffer asked for in each direction, in bytes.
const SOCKET_BUFFER: usize = 4 << 20;

/// How much higher than the publisher's the numbers are that a subscriber gets.
const RENUMBERING: u32 = 1000;

/// What a client says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Its number within the run.
    pub client: u32,
    /// Its room.
    pub room: u32,
    /// Whether it receives the others of its room.
    pub receives: bool,
}

impl Hello {
    const MAGIC: [u8; 4] = *b"FLR1";

    /// As a datagram, which is no RTP packet by its first byte.
    pub(crate) fn write(&self) -> [u8; 13] {
        let mut datagram = [0; 13];
        datagram[..4].copy_from_slice(&Self::MAGIC);
        datagram[4..8].copy_from_slice(&self.client.to_be_bytes());
        datagram[8..12].copy_from_slice(&self.room.to_be_bytes());
        datagram[12] = u8::from(self.receives);
        datagram
    }

    pub(crate) fn read(datagram: &[u8]) -> Option<Hello> {
        let datagram: &[u8; 13] = datagram.try_into().ok()?;
        let word = |at: usize| {
            u32::from_be_bytes(
                datagram[at..at + 4]
                    .try_into()
                    .expect("4 bytes are 4 bytes"),
            )
        };
        (datagram[..4] == Self::MAGIC).then(|| Hello {
            client: word(4),
            room: word(8),
            receives: datagram[12] == 1,
        })
    }

    /// What the keys of a direction are made from.
    pub(crate) fn seed(&self, is_from_client: bool) -> [u8; 5] {
        let [a, b, c, d] = self.client.to_be_bytes();
        [a, b, c, d, u8::from(is_from_client)]
    }
}

/// Writes a header of [`RTP_HEADER`] bytes; returns the roll-over counter to seal with. Its low
/// byte rides in the extension, as both ends know nothing of each other's past.
pub(crate) fn write_header(
    to: &mut [u8],
    is_audio: bool,
    marker: bool,
    sequence: u64,
    timestamp: u32,
    ssrc: u32,
    transport_number: u16,
) -> u32 {
    let payload_type = if is_audio { 111 } else { 96 };
    let rollover = (sequence >> 16) as u32 & 0xff;
    to[0] = 0x90;
    to[1] = payload_type | u8::from(marker) << 7;
    to[2..4].copy_from_slice(&(sequence as u16).to_be_bytes());
    to[4..8].copy_from_slice(&timestamp.to_be_bytes());
    to[8..12].copy_from_slice(&ssrc.to_be_bytes());
    to[12..17].copy_from_slice(&[0xbe, 0xde, 0, 1, 0x12]);
    to[17..19].copy_from_slice(&transport_number.to_be_bytes());
    to[19] = rollover as u8;
    rollover
}

/// The sequence number with its roll-overs, and the roll-over counter.
pub(crate) fn extended(packet: &[u8]) -> Option<(u32, u32)> {
    let rollover = u32::from(*packet.get(RTP_HEADER - 1)?);
    let sequence = u32::from(u16::from_be_bytes([packet[2], packet[3]]));
    Some((rollover << 16 | sequence, rollover))
}

struct Client {
    address: SocketAddr,
    hello: Hello,
    seal: Context,
    open: Context,
    transport_number: u16,
}

/// A decrypted packet in the scratch buffer.
struct Opened {
    from: usize,
    begin: usize,
    length: usize,
}

/// The forwarder without its socket: datagrams in, a burst out.
struct Floor {
    profile: Profile,
    clients: Vec<Client>,
    by_address: HashMap<SocketAddr, usize>,
    /// Who receives, by room.
    rooms: HashMap<u32, Vec<usize>>,
    scratch: Vec<u8>,
    opened: Vec<Opened>,
}

impl Floor {
    fn new(profile: Profile) -> Floor {
        Floor {
            profile,
            clients: Vec::new(),
            by_address: HashMap::new(),
            rooms: HashMap::new(),
            scratch: Vec::with_capacity(MAX_BATCH * MAX_DATAGRAM),
            opened: Vec::with_capacity(MAX_BATCH),
        }
    }

    /// Takes one datagram; true if it is to be sent back as a welcome.
    fn take(&mut self, source: SocketAddr, datagram: &[u8]) -> bool {
        if let Some(hello) = Hello::read(datagram) {
            self.welcome(source, hello);
            return true;
        }
        let Some(&from) = self.by_address.get(&source) else {
            return false;
        };
        let (Some(header), Some((_, rollover))) = (header_length(datagram), extended(datagram))
        else {
            return false;
        };
        let begin = self.scratch.len();
        self.scratch.extend_from_slice(datagram);
        match self.clients[from]
            .open
            .open(&mut self.scratch[begin..], header, rollover)
        {
            Ok(length) => self.opened.push(Opened {
                from,
                begin,
                length,
            }),
            Err(_) => self.scratch.truncate(begin),
        }
        false
    }

    fn welcome(&mut self, source: SocketAddr, hello: Hello) {
        if self.by_address.contains_key(&source) {
            return;
        }
        let number = self.clients.len();
        self.clients.push(Client {
            address: source,
            hello,
            seal: Context::from_seed(self.profile, &hello.seed(false)),
            open: Context::from_seed(self.profile, &hello.seed(true)),
            transport_number: 0,
        });
        self.by_address.insert(source, number);
        if hello.receives {
            self.rooms.entry(hello.room).or_default().push(number);
        }
    }

    /// Forwards what was taken, destination by destination.
    fn forward(&mut self, burst: &mut Burst, mut flush: impl FnMut(&mut Burst)) {
        let mut at = 0;
        // Runs of packets of one room: nearly always all of them.
        while at < self.opened.len() {
            let room = self.clients[self.opened[at].from].hello.room;
            let run = self.opened[at..]
                .iter()
                .take_while(|packet| self.clients[packet.from].hello.room == room)
                .count();
            let packets = &self.opened[at..at + run];
            at += run;
            for &to in self.rooms.get(&room).into_iter().flatten() {
                let client = &mut self.clients[to];
                for packet in packets.iter().filter(|packet| packet.from != to) {
                    if burst.datagrams() >= FLUSH_DATAGRAMS
                        || burst.spare().len() < packet.length + 16
                    {
                        flush(burst);
                    }
                    let whole = &self.scratch[packet.begin..packet.begin + packet.length];
                    seal(client, whole, burst);
                }
            }
        }
        if !burst.is_empty() {
            flush(burst);
        }
        self.scratch.clear();
        self.opened.clear();
    }
}

fn seal(client: &mut Client, packet: &[u8], burst: &mut Burst) {
    let Some((sequence, _)) = extended(packet) else {
        return;
    };
    let room = burst.spare();
    let timestamp = u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]);
    let ssrc = u32::from_be_bytes([packet[8], packet[9], packet[10], packet[11]]);
    room[RTP_HEADER..packet.len()].copy_from_slice(&packet[RTP_HEADER..]);
    let rollover = write_header(
        room,
        packet[1] & 0x7f == 111,
        packet[1] & 0x80 != 0,
        u64::from(sequence.wrapping_add(RENUMBERING)),
        timestamp,
        !ssrc,
        client.transport_number,
    );
    client.transport_number = client.transport_number.wrapping_add(1);
    if let Ok(length) = client.seal.seal(room, RTP_HEADER, packet.len(), rollover) {
        burst.commit(client.address, length);
    }
}

/// What was sent, for whoever asks.
#[derive(Debug, Default)]
struct Counters {
    datagrams: AtomicU64,
    messages: AtomicU64,
    calls: AtomicU64,
}

impl Counters {
    fn add(&self, sent: &Sent) {
        for (total, more) in [
            (&self.datagrams, sent.datagrams),
            (&self.messages, sent.messages),
            (&self.calls, sent.calls),
        ] {
            total.fetch_add(more as u64, Ordering::Relaxed);
        }
    }

    /// As servers write them.
    fn text(&self) -> String {
        [
            (metrics::DATAGRAMS, &self.datagrams),
            (metrics::MESSAGES, &self.messages),
            (metrics::CALLS, &self.calls),
        ]
        .map(|(name, total)| format!("{name} {}\n", total.load(Ordering::Relaxed)))
        .concat()
    }

    /// Answers every request with them.
    fn serve(&self, listener: &TcpListener) {
        for mut stream in listener.incoming().flatten() {
            let text = self.text();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
                text.len()
            );
            // Who asked and went away again needs no answer.
            let _ = stream
                .set_read_timeout(Some(Duration::from_secs(1)))
                .and_then(|()| stream.read(&mut [0; 1024]))
                .and_then(|_| stream.write_all(answer.as_bytes()));
        }
    }
}

/// Listens and forwards until the process is ended. Says `ready` and its address on standard output.
///
/// # Errors
/// When the address can't be listened on.
pub fn serve(listen: SocketAddr, profile: Profile, metrics: Option<SocketAddr>) -> Result<()> {
    let counters = Arc::new(Counters::default());
    if let Some(address) = metrics {
        let listener =
            TcpListener::bind(address).with_context(|| format!("can't listen on TCP {address}"))?;
        let counters = counters.clone();
        std::thread::spawn(move || counters.serve(&listener));
    }
    let domain = socket2::Domain::for_address(listen);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None)?;
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.set_nonblocking(true)?;
    socket
        .bind(&listen.into())
        .with_context(|| format!("can't listen on UDP {listen}"))?;
    let mut socket = UdpSocket::from_std(socket.into());
    println!("ready {}", socket.local_addr()?);
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(8);
    poll.registry()
        .register(&mut socket, Token(0), Interest::READABLE)?;
    let mut floor = Floor::new(profile);
    let mut receiver = Receiver::new(MAX_BATCH, MAX_DATAGRAM);
    let mut burst = Burst::new(FLUSH_DATAGRAMS * MAX_DATAGRAM, FLUSH_DATAGRAMS);
    let mut sender = Sender::new(&socket);
    let mut send = |burst: &mut Burst| {
        counters.add(&sender.send(&socket, burst, |_| {}));
        // What a full buffer does not take is lost, as it would be for a server.
        burst.clear();
    };
    loop {
        match receiver.receive(&socket) {
            Ok(count) => {
                for datagram in receiver.datagrams() {
                    if floor.take(datagram.source, datagram.contents) {
                        // Without room there are more than enough hellos; the client says it again.
                        let _ = burst.push(datagram.source, datagram.contents);
                    }
                }
                floor.forward(&mut burst, &mut send);
                if count == MAX_BATCH {
                    continue;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            // ICMP errors of earlier sends.
            Err(_) => continue,
        }
        match poll.poll(&mut events, Some(Duration::from_secs(60))) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                return Err(error).context("waiting for packets");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn hello(client: u32, room: u32, receives: bool) -> Hello {
        Hello {
            client,
            room,
            receives,
        }
    }

    fn packet(of: &Hello, sequence: u64) -> Vec<u8> {
        let mut packet = vec![7; 100 + 16];
        let rollover = write_header(&mut packet, false, true, sequence, 90_000, 5, 0);
        let seal = Context::from_seed(Profile::Aes128Gcm, &of.seed(true));
        let length = seal.seal(&mut packet, RTP_HEADER, 100, rollover).unwrap();
        packet.truncate(length);
        packet
    }

    #[test]
    fn a_packet_reaches_everybody_else_in_its_room_and_nobody_outside() {
        let mut floor = Floor::new(Profile::Aes128Gcm);
        let clients = [
            hello(0, 1, false),
            hello(1, 1, true),
            hello(2, 1, true),
            hello(3, 2, true),
        ];
        for (client, port) in clients.iter().zip(1..) {
            assert!(floor.take(address(port), &client.write()));
        }
        // Across the roll-over, and in one batch.
        for sequence in [65_535, 65_536] {
            assert!(!floor.take(address(1), &packet(&clients[0], sequence)));
        }
        let mut burst = Burst::new(100_000, 64);
        let mut sent = Vec::new();
        floor.forward(&mut burst, |burst| {
            for message in burst.messages() {
                let bytes = burst.arena()[message.range()].to_vec();
                sent.push((message.destination(), message.datagrams(), bytes));
            }
            burst.clear();
        });
        let to: Vec<(SocketAddr, usize)> = sent.iter().map(|(to, n, _)| (*to, *n)).collect();
        assert_eq!(to, [(address(2), 2), (address(3), 2)]);
        let (_, _, mut bytes) = sent.remove(0);
        let first = &mut bytes[..116];
        let open = Context::from_seed(Profile::Aes128Gcm, &clients[1].seed(false));
        let (sequence, rollover) = extended(first).unwrap();
        assert_eq!(sequence, 65_535 + RENUMBERING);
        assert_eq!(open.open(first, RTP_HEADER, rollover).unwrap(), 100);
        assert_eq!(first[RTP_HEADER..100], [7; 80]);
        assert_ne!(first[8..12], 5u32.to_be_bytes());
    }

    #[test]
    fn strangers_and_forgeries_are_dropped() {
        let mut floor = Floor::new(Profile::Aes128Gcm);
        let client = hello(0, 1, false);
        floor.take(address(1), &hello(1, 1, false).write());
        floor.take(address(9), &packet(&client, 0));
        floor.take(address(1), &packet(&client, 0));
        floor.take(address(1), &[0x80; 3]);
        assert!(floor.opened.is_empty());
    }
}
