//! The one door through which media leaves: a packet and who gets it go in, sealed datagrams come
//! out.
//!
//! The engine (str0m) never sees what is sent here. It lends its say in the descriptions, and
//! everything else about an outgoing stream is ours: numbers, sealing, repair, reports. Two writers
//! of one (SSRC, index) under one key would give the key away, so [`Outlet::may_leave`] lets nothing
//! of the engine's pass that bears one of our SSRCs, and no index is sealed twice.

#[cfg(any(test, fuzzing))]
pub(crate) mod stage;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use str0m::ice::{StunMessage, TransId};
use str0m::media::{Mid, Pt};
use udp_batch::Burst;

use crate::command::ConnectionId;
use crate::estimate::Estimate;
use crate::header::{self, Element, Header};
use crate::part::Part;
use crate::payload::red_primary;
use crate::rewrite::Numbers;
use crate::rtcp::{self, SenderReport};
use crate::shard::Transmit;
use crate::srtp::{Keys, Refused, Sealer, Window};
use crate::track::Packet;

/// A packet older than this comes too late for any picture.
const KEPT_FOR: Duration = Duration::from_secs(2);

/// Of a hundred bytes sent, so many may be sent again; a bad line needs more than a good one has
/// lost.
const REPAIR_PERCENT: usize = 75;

/// Where the line itself loses such a share, what is missed is sent twice: repairs are lost too, and asking
/// again takes another round trip.
const REPAIR_TWICE: f64 = 0.1;

/// Where it loses such a share and carries twice what is wanted, every packet of a picture is sent twice
/// from the beginning: the second one so much later, that a burst of loss does not take both.
const SECOND_AFTER: Duration = Duration::from_millis(10);

/// Packets that wait for that at most.
const SECONDS: usize = 512;

/// Bytes of repair that a stream may save up while nothing is lost.
const REPAIR_SAVED: usize = 64 * 1024;

/// Packets sent again that are remembered, so that what is asked for twice within a round trip is
/// sent once.
const REPAIRED: usize = 128;

/// What is asked for again within this time was asked for before the repair could come; used until
/// a report tells the round trip.
const FIRST_ROUND_TRIP: Duration = Duration::from_millis(30);

/// Packets at the beginning of a stream that say which m-line they are for, beside the SSRC in the
/// description.
const NAMED: u32 = 64;

/// How often a stream that sends reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Reports remembered to tell the round trip from their echo.
const REPORTS: usize = 4;

/// Connectivity checks remembered until they are answered.
const CHECKS: usize = 16;

/// While the path in use is heard from, another one that is nominated waits; browsers nominate every
/// path that works.
const PATH_SILENCE: Duration = Duration::from_millis(500);

/// Bytes that a packet may have beside its payload: header, header extensions (the longest is a
/// dependency descriptor of 255), tag.
const ROOM: usize = 512;

/// The longest datagram that is sent: the engine's and ours are below 1,500 bytes, and a packet
/// that came with 2,048 may go out with more beside it.
const LONGEST: usize = 2048 + ROOM;

/// Bytes and messages of what is sent at once: a few hundred packets, so that the first does not
/// wait for the last one's sealing.
const BURST_BYTES: usize = 256 * 1500;
const BURST_MESSAGES: usize = 256;

/// Bytes of padding in one packet: the most that their count, a byte, can tell.
const PADDING: usize = 255;

/// The bit of a header that says that there is padding.
const PADDED: u8 = 0x20;

/// Seconds between the beginnings of NTP's time and Unix's.
const NTP_BEFORE_UNIX: f64 = 2_208_988_800.0;

/// One receiver of a packet, and how it is numbered for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing {
    pub(crate) connection: ConnectionId,
    pub(crate) mid: Mid,
    pub(crate) payload_type: Pt,
    pub(crate) unwrap_red: bool,
    /// It is the last of its picture that this receiver gets.
    pub(crate) marker: bool,
    pub(crate) numbers: Numbers,
}

/// A packet that waits to be sealed, with what else was forwarded in the same turn.
struct Pending {
    packet: Arc<Packet>,
    to: Outgoing,
}

/// The ids under which a subscriber takes header extensions on an m-line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ExtensionIds {
    pub(crate) mid: Option<u8>,
    pub(crate) transport: Option<u8>,
    pub(crate) audio_level: Option<u8>,
    pub(crate) orientation: Option<u8>,
    pub(crate) dependency: Option<u8>,
}

/// What an m-line's description says of what we send on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub(crate) extensions: ExtensionIds,
    /// Payload types and those of their repair.
    pub(crate) repair_types: Vec<(u8, u8)>,
    /// The longer form of header extensions is taken (`a=extmap-allow-mixed`).
    pub(crate) two_byte: bool,
    pub(crate) cname: String,
}

impl Agreed {
    /// The transport-wide number that a packet was sent with; the next one has the next.
    fn number(&self, next: &mut u16) -> Option<u16> {
        self.extensions.transport?;
        let number = *next;
        *next = next.wrapping_add(1);
        Some(number)
    }
}

/// A packet as it was sent, for repair.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) packet: Arc<Packet>,
    pub(crate) numbers: Numbers,
    pub(crate) payload_type: Pt,
    pub(crate) marker: bool,
}

/// What is sent on one m-line.
#[derive(Debug)]
struct Stream {
    mid: Mid,
    ssrc: u32,
    rtx: Option<u32>,
    agreed: Agreed,
    sealed: Window,
    repair_sequence: u64,
    repair_saved: usize,
    /// Sequence numbers sent again, and when; the oldest first.
    repaired: VecDeque<(u16, Instant)>,
    packets: u32,
    octets: u32,
    /// Of the last packet.
    timestamp: u32,
    reported: Option<Instant>,
    reported_packets: u32,
    /// The middle of the NTP time of the last reports, and when they were sent.
    reports: VecDeque<(u32, Instant)>,
    /// The highest number that the receiver told, with its cycles.
    told: Option<u32>,
}

impl Stream {
    fn new(mid: Mid, ssrc: u32, rtx: Option<u32>) -> Stream {
        Stream {
            mid,
            ssrc,
            rtx,
            agreed: Agreed::default(),
            sealed: Window::default(),
            // Below 2^15, so that the roll-over counter is 0 for everyone.
            repair_sequence: u64::from(rand::random::<u16>() >> 1),
            repair_saved: REPAIR_SAVED / 2,
            repaired: VecDeque::new(),
            packets: 0,
            octets: 0,
            timestamp: 0,
            reported: None,
            reported_packets: 0,
            reports: VecDeque::new(),
            told: None,
        }
    }
}

/// How often what is missed is sent again.
fn copies(estimate: &Estimate) -> usize {
    if estimate.own_loss() >= REPAIR_TWICE {
        2
    } else {
        1
    }
}

/// The way of a connection's media to its client.
pub(crate) struct Outlet {
    keys: Option<Keys>,
    /// Our address and the client's, of the nominated pair, and when it was last heard from.
    path: Option<(SocketAddr, SocketAddr, Instant)>,
    /// Connectivity checks not answered yet: id, our address, the client's, whether it nominates.
    checks: VecDeque<(TransId, SocketAddr, SocketAddr, bool)>,
    streams: Vec<Stream>,
    pending: Vec<Pending>,
    /// Pictures are sent twice.
    is_doubled: bool,
    /// What will be sent a second time, the SSRC that it was sent with, and when.
    seconds: VecDeque<(Instant, u32, Sent)>,
    /// SSRCs that will not be used again, of which the client was not told yet.
    ended: Vec<u32>,
    /// Of the next packet, over all streams.
    transport_sequence: u16,
    /// What the line carries.
    pub(crate) estimate: Estimate,
    round_trip: Option<Duration>,
    sent_bytes: u64,
}

impl Outlet {
    pub(crate) fn new(now: Instant) -> Outlet {
        Outlet {
            keys: None,
            path: None,
            checks: VecDeque::new(),
            streams: Vec::new(),
            pending: Vec::new(),
            is_doubled: false,
            seconds: VecDeque::new(),
            ended: Vec::new(),
            transport_sequence: rand::random(),
            estimate: Estimate::new(now),
            round_trip: None,
            sent_bytes: 0,
        }
    }

    pub(crate) fn set_keys(&mut self, keys: Keys) {
        self.keys = Some(keys);
    }

    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// Our streams' m-lines, SSRCs and those of their repair.
    pub(crate) fn lent(&self) -> impl Iterator<Item = (Mid, u32, Option<u32>)> {
        self.streams
            .iter()
            .map(|stream| (stream.mid, stream.ssrc, stream.rtx))
    }

    /// Takes over what an m-line's description says. A new SSRC is a new stream.
    pub(crate) fn adopt(&mut self, mid: Mid, ssrc: u32, rtx: Option<u32>, agreed: Agreed) {
        let stream = match self.streams.iter_mut().find(|stream| stream.mid == mid) {
            Some(stream) => stream,
            None => {
                self.streams.push(Stream::new(mid, ssrc, rtx));
                self.streams.last_mut().expect("one was pushed")
            }
        };
        if stream.ssrc != ssrc {
            *stream = Stream::new(mid, ssrc, rtx);
        }
        stream.rtx = rtx;
        stream.agreed = agreed;
        if stream.agreed.extensions.transport.is_some() {
            self.estimate.expect_feedback();
        }
    }

    /// Makes an m-line's stream another one: what is sent there from now on has nothing to do with
    /// what was.
    pub(crate) fn renew(&mut self, mid: Mid, ssrc: u32, rtx: u32) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.mid == mid) {
            let rtx = stream.rtx.map(|_| rtx);
            self.ended.push(stream.ssrc);
            *stream = Stream::new(mid, ssrc, rtx);
        }
    }

    /// Ends what is sent on an m-line.
    pub(crate) fn stop(&mut self, mid: Mid) {
        if let Some(at) = self.streams.iter().position(|stream| stream.mid == mid) {
            self.ended.push(self.streams.remove(at).ssrc);
        }
    }

    /// Ends everything that is sent.
    pub(crate) fn end(&mut self) {
        let ended = self.streams.drain(..).map(|stream| stream.ssrc);
        self.ended.extend(ended);
    }

    /// Tells the client what will not be sent any more.
    pub(crate) fn say_goodbye(&mut self, transmits: &mut VecDeque<Transmit>) {
        let (Some(keys), Some(path)) = (&mut self.keys, self.path) else {
            return;
        };
        for ssrc in self.ended.drain(..) {
            let mut datagram = Vec::with_capacity(64);
            rtcp::write_goodbye(&mut datagram, ssrc);
            if !keys.sealer.seal_report(&mut datagram) {
                return;
            }
            self.sent_bytes += datagram.len() as u64;
            transmits.push_back(Transmit {
                source: path.0,
                destination: path.1,
                contents: datagram,
            });
        }
    }

    /// Bytes sent so far.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// Where the other end was last, when nothing has come from there for a while.
    pub(crate) fn silent_way(&self, now: Instant) -> Option<SocketAddr> {
        let is_silent = |heard| now.saturating_duration_since(heard) >= PATH_SILENCE;
        self.path
            .filter(|(_, _, heard)| is_silent(*heard))
            .map(|(_, remote, _)| remote)
    }

    /// A datagram of the client came from `remote` at `local`.
    pub(crate) fn heard(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr) {
        if let Some((ours, theirs, heard)) = &mut self.path
            && (*ours, *theirs) == (local, remote)
        {
            *heard = now;
        }
    }

    /// From now on sends between two addresses, ours and the other end's, which the engine has chosen.
    pub(crate) fn take_way(&mut self, (ours, theirs): (SocketAddr, SocketAddr), now: Instant) {
        self.path = Some((ours, theirs, now));
    }

    /// A connectivity check that the engine is given; it will answer if it is right.
    pub(crate) fn checked(
        &mut self,
        check: &StunMessage<'_>,
        local: SocketAddr,
        remote: SocketAddr,
    ) {
        if check.is_binding_request() {
            if self.checks.len() == CHECKS {
                self.checks.pop_front();
            }
            self.checks
                .push_back((check.trans_id(), local, remote, check.use_candidate()));
        }
    }

    /// Whether a datagram of the engine may leave. Its answer to a check is noted on the way.
    pub(crate) fn may_leave(&mut self, now: Instant, datagram: &[u8]) -> bool {
        match *datagram {
            [0..=3, ..] => {
                self.note_answer(now, datagram);
                true
            }
            // RTP and RTCP (RFC 7983), told apart by the second byte (RFC 5761 §4).
            [128..=191, 192..=223, ..] if datagram.len() >= 8 => {
                let ssrc = u32::from_be_bytes(datagram[4..8].try_into().expect("four bytes"));
                let is_of = |stream: &Stream| stream.ssrc == ssrc || stream.rtx == Some(ssrc);
                !self.streams.iter().any(is_of)
            }
            [128..=191, ..] => false,
            _ => true,
        }
    }

    fn note_answer(&mut self, now: Instant, datagram: &[u8]) {
        let Ok(answer) = StunMessage::parse(datagram) else {
            return;
        };
        if !answer.is_successful_binding_response() {
            return;
        }
        let id = answer.trans_id();
        let Some(at) = self.checks.iter().position(|(of, ..)| *of == id) else {
            return;
        };
        let Some((_, local, remote, nominates)) = self.checks.remove(at) else {
            return;
        };
        // A client whose address changed under it keeps checking, and not all nominate anew.
        let is_free = self.path.map_or(nominates, |(ours, theirs, heard)| {
            (ours, theirs) == (local, remote)
                || now.saturating_duration_since(heard) >= PATH_SILENCE
        });
        if is_free {
            self.path = Some((local, remote, now));
        }
    }

    /// Puts a packet on the list of what is sent next. Returns whether it is the first there.
    pub(crate) fn push(&mut self, packet: &Arc<Packet>, to: &Outgoing) -> bool {
        self.pending.push(Pending {
            packet: packet.clone(),
            to: *to,
        });
        self.pending.len() == 1
    }

    /// Seals everything on the list into the burst of its path; a burst that is full is handed to
    /// `send`, which empties it.
    pub(crate) fn seal_pending(
        &mut self,
        now: Instant,
        bursts: &mut Bursts,
        send: &mut impl FnMut(SocketAddr, &mut Burst),
    ) {
        let mut pending = std::mem::take(&mut self.pending);
        if let Some((source, destination, _)) = self.path {
            for one in &pending {
                bursts.add(source, destination, send, |room| self.seal(now, one, room));
            }
        }
        pending.clear();
        self.pending = pending;
    }

    /// Writes and seals a packet at the beginning of `room`; returns its length in bytes.
    fn seal(&mut self, now: Instant, pending: &Pending, room: &mut [u8]) -> Option<usize> {
        let Pending { packet, to } = pending;
        let keys = self.keys.as_mut()?;
        let stream = self
            .streams
            .iter_mut()
            .find(|stream| stream.mid == to.mid)?;
        let payload = if to.unwrap_red {
            red_primary(&packet.payload).filter(|primary| !primary.is_empty())?
        } else {
            &*packet.payload
        };
        if !stream.sealed.admit(to.numbers.sequence) {
            return None;
        }
        let header = Header {
            marker: to.marker,
            payload_type: *to.payload_type,
            sequence: to.numbers.sequence as u16,
            timestamp: to.numbers.timestamp,
            ssrc: stream.ssrc,
        };
        let is_named = stream.packets < NAMED;
        let begin = write_header(
            room,
            &header,
            packet,
            stream,
            is_named,
            self.transport_sequence,
        )?;
        let roll_over = (to.numbers.sequence >> 16) as u32;
        let parts = [&[], payload];
        let length = seal_payload(&keys.sealer, room, begin, roll_over, parts, &to.numbers)?;
        let number = stream.agreed.number(&mut self.transport_sequence);
        self.estimate.sent(now, number, length);
        stream.packets = stream.packets.wrapping_add(1);
        stream.timestamp = to.numbers.timestamp;
        stream.octets = stream.octets.wrapping_add(payload.len() as u32);
        let earned = payload.len() * REPAIR_PERCENT / 100;
        stream.repair_saved = (stream.repair_saved + earned).min(REPAIR_SAVED);
        self.sent_bytes += length as u64;
        if self.is_doubled && stream.rtx.is_some() && self.seconds.len() < SECONDS {
            let sent = Sent {
                packet: packet.clone(),
                numbers: to.numbers,
                payload_type: to.payload_type,
                marker: to.marker,
            };
            let second = (now + SECOND_AFTER, stream.ssrc, sent);
            self.seconds.push_back(second);
        }
        Some(length)
    }

    /// What is sent again because it is missed, beside what is sent, as a share of it.
    pub(crate) fn repaired(&self) -> f64 {
        self.estimate.loss() * copies(&self.estimate) as f64
    }

    /// Whether pictures are to be sent twice, where there is room for it.
    pub(crate) fn gains_by_doubling(&self) -> bool {
        self.estimate.own_loss() >= REPAIR_TWICE && Part::Doubled.is_there()
    }

    /// Whether pictures are sent twice.
    pub(crate) fn is_doubled(&self) -> bool {
        self.is_doubled
    }

    /// From now on sends pictures twice, or not.
    pub(crate) fn set_doubled(&mut self, is_doubled: bool) {
        self.is_doubled = is_doubled;
        if !is_doubled {
            self.seconds.clear();
        }
    }

    /// Sends what is due of the second packets.
    pub(crate) fn send_seconds(&mut self, now: Instant, transmits: &mut VecDeque<Transmit>) {
        while let Some((due, ssrc, sent)) = self.seconds.pop_front() {
            if due > now {
                self.seconds.push_front((due, ssrc, sent));
                return;
            }
            if let Some(at) = self.streams.iter().position(|stream| stream.ssrc == ssrc) {
                self.send_again(now, at, &sent, transmits);
            }
        }
    }

    /// Sends again what a subscriber misses; `find` tells what was sent under a number.
    pub(crate) fn repair(
        &mut self,
        now: Instant,
        ssrc: u32,
        sequences: impl Iterator<Item = u16>,
        mut find: impl FnMut(u16) -> Option<Sent>,
        transmits: &mut VecDeque<Transmit>,
    ) {
        let of = |stream: &Stream| stream.ssrc == ssrc && stream.rtx.is_some();
        let Some(at) = self.streams.iter().position(of) else {
            return;
        };
        let copies = copies(&self.estimate);
        let round_trip = self.round_trip.unwrap_or(FIRST_ROUND_TRIP);
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < round_trip;
        let stream = &mut self.streams[at];
        while stream
            .repaired
            .front()
            .is_some_and(|(_, at)| !is_recent(at))
        {
            stream.repaired.pop_front();
        }
        for sequence in sequences {
            let stream = &mut self.streams[at];
            if stream.repaired.iter().any(|(of, _)| *of == sequence) {
                continue;
            }
            let Some(sent) = find(sequence) else {
                continue;
            };
            if now.saturating_duration_since(sent.packet.arrived) > KEPT_FOR {
                continue;
            }
            let length = copies * (sent.packet.payload.len() + 2);
            if stream.repair_saved < length {
                return;
            }
            stream.repair_saved -= length;
            if stream.repaired.len() == REPAIRED {
                stream.repaired.pop_front();
            }
            stream.repaired.push_back((sequence, now));
            for _ in 0..copies {
                self.send_again(now, at, &sent, transmits);
            }
        }
    }

    /// Sends a packet of a stream once more (RFC 4588), where the receiver takes that.
    fn send_again(
        &mut self,
        now: Instant,
        at: usize,
        sent: &Sent,
        transmits: &mut VecDeque<Transmit>,
    ) {
        let (Some(keys), Some((source, destination, _))) = (&mut self.keys, self.path) else {
            return;
        };
        let stream = &mut self.streams[at];
        let types = &stream.agreed.repair_types;
        let repair_type = types.iter().find(|(of, _)| *of == *sent.payload_type);
        let (Some((_, payload_type)), Some(ssrc)) = (repair_type.copied(), stream.rtx) else {
            return;
        };
        let header = Header {
            marker: sent.marker,
            payload_type,
            sequence: stream.repair_sequence as u16,
            timestamp: sent.numbers.timestamp,
            ssrc,
        };
        let mut contents = vec![0; ROOM + 2 + sent.packet.payload.len()];
        let number = self.transport_sequence;
        let begin = write_header(&mut contents, &header, &sent.packet, stream, true, number);
        let roll_over = (stream.repair_sequence >> 16) as u32;
        let original = (sent.numbers.sequence as u16).to_be_bytes();
        let parts = [&original[..], &sent.packet.payload];
        let length = begin.and_then(|begin| {
            let numbers = &sent.numbers;
            seal_payload(
                &keys.sealer,
                &mut contents,
                begin,
                roll_over,
                parts,
                numbers,
            )
        });
        let Some(length) = length else {
            return;
        };
        contents.truncate(length);
        let number = stream.agreed.number(&mut self.transport_sequence);
        self.estimate.sent(now, number, length);
        stream.repair_sequence += 1;
        self.sent_bytes += length as u64;
        transmits.push_back(Transmit {
            source,
            destination,
            contents,
        });
    }

    /// Sends the padding of a probe that is due (RFC 3550 §5.1), as packets of repair that hold
    /// nothing.
    pub(crate) fn pad(&mut self, now: Instant, transmits: &mut VecDeque<Transmit>) {
        let (Some(keys), Some(path)) = (&mut self.keys, self.path) else {
            return;
        };
        let padded = self.streams.iter_mut().find_map(|stream| {
            let payload_type = stream.agreed.repair_types.first()?.1;
            // Also before the first picture, which may wait for what the probe finds.
            let is_told = stream.agreed.extensions.transport.is_some();
            let rtx = stream.rtx.filter(|_| is_told)?;
            Some((stream, payload_type, rtx))
        });
        let Some((stream, payload_type, ssrc)) = padded else {
            return;
        };
        while self.estimate.padding(now) > 0 {
            let header = Header {
                marker: false,
                payload_type,
                sequence: stream.repair_sequence as u16,
                timestamp: stream.timestamp,
                ssrc,
            };
            let mut datagram = vec![0; ROOM];
            let transport = self.transport_sequence.to_be_bytes();
            let elements = [
                (stream.agreed.extensions.mid, stream.mid.as_bytes()),
                (stream.agreed.extensions.transport, &transport[..]),
            ]
            .map(|(id, value)| Element {
                id: id.unwrap_or_default(),
                value,
            });
            let two_byte = stream.agreed.two_byte;
            let Some(begin) = header::write(&mut datagram, &header, &elements, two_byte) else {
                return;
            };
            datagram[0] |= PADDED;
            datagram.truncate(begin + PADDING + keys.sealer.tag_length());
            datagram[begin + PADDING - 1] = PADDING as u8;
            let roll_over = (stream.repair_sequence >> 16) as u32;
            keys.sealer.seal(begin, roll_over, &mut datagram);
            let number = stream.agreed.number(&mut self.transport_sequence);
            self.estimate.sent(now, number, datagram.len());
            stream.repair_sequence += 1;
            self.sent_bytes += datagram.len() as u64;
            transmits.push_back(Transmit {
                source: path.0,
                destination: path.1,
                contents: datagram,
            });
        }
    }

    /// Reports what was sent on an m-line, where it is time to: at the publisher's time `ntp` its
    /// clock said `timestamp`, in the subscriber's numbers.
    pub(crate) fn report(
        &mut self,
        now: Instant,
        mid: Mid,
        ntp: SystemTime,
        timestamp: u32,
        transmits: &mut VecDeque<Transmit>,
    ) {
        let (Some(keys), Some(path)) = (&mut self.keys, self.path) else {
            return;
        };
        let Some(stream) = self.streams.iter_mut().find(|stream| stream.mid == mid) else {
            return;
        };
        let is_early = stream
            .reported
            .is_some_and(|at| now.saturating_duration_since(at) < REPORT_INTERVAL);
        if is_early || stream.packets == stream.reported_packets {
            return;
        }
        let ntp = ntp_of(ntp);
        let report = SenderReport {
            ssrc: stream.ssrc,
            ntp,
            timestamp,
            packets: stream.packets,
            octets: stream.octets,
        };
        let mut datagram = Vec::with_capacity(128);
        rtcp::write_report(&mut datagram, &report, &stream.agreed.cname);
        if !keys.sealer.seal_report(&mut datagram) {
            return;
        }
        stream.reported = Some(now);
        stream.reported_packets = stream.packets;
        if stream.reports.len() == REPORTS {
            stream.reports.pop_front();
        }
        stream.reports.push_back(((ntp >> 16) as u32, now));
        self.sent_bytes += datagram.len() as u64;
        transmits.push_back(Transmit {
            source: path.0,
            destination: path.1,
            contents: datagram,
        });
    }

    /// Opens a compound packet of the client.
    ///
    /// # Errors
    /// It is not the client's, or there are no keys yet.
    pub(crate) fn open(&mut self, datagram: &[u8]) -> Result<Vec<u8>, Refused> {
        let keys = self.keys.as_mut().ok_or(Refused)?;
        let mut compound = datagram.to_vec();
        keys.opener.open(&mut compound)?;
        Ok(compound)
    }

    /// The m-line of one of our SSRCs.
    pub(crate) fn mid_of(&self, ssrc: u32) -> Option<Mid> {
        self.streams
            .iter()
            .find(|stream| stream.ssrc == ssrc)
            .map(|stream| stream.mid)
    }

    /// Learns the round trip from a receiver's echo of a report; how many packets it speaks of, where
    /// the SSRC is ours.
    pub(crate) fn received(&mut self, now: Instant, reception: &rtcp::Reception) -> Option<u32> {
        let stream = self
            .streams
            .iter_mut()
            .find(|stream| stream.ssrc == reception.ssrc)?;
        let before = stream.told.replace(reception.highest);
        let count = before.map_or(stream.packets, |before| {
            reception.highest.wrapping_sub(before)
        });
        let sent = stream
            .reports
            .iter()
            .find(|(middle, _)| *middle == reception.last_report && *middle != 0);
        if let Some((_, sent)) = sent {
            let waited = Duration::from_secs_f64(f64::from(reception.delay) / 65_536.0);
            let round_trip = now.saturating_duration_since(*sent).saturating_sub(waited);
            self.round_trip = Some(round_trip);
        }
        // A receiver that speaks of more than was ever sent is not believed.
        Some(count.min(stream.packets))
    }
}

/// Writes a payload, given in two parts of which the second is the publisher's, behind a header that
/// ends at `begin`, and seals both; returns the packet's length. `None`: there is no room for it.
// A call of its own costs each forwarded packet 40 instructions.
#[inline(always)]
fn seal_payload(
    sealer: &Sealer,
    room: &mut [u8],
    begin: usize,
    roll_over: u32,
    [own, published]: [&[u8]; 2],
    numbers: &Numbers,
) -> Option<usize> {
    let middle = begin + own.len();
    let end = middle + published.len();
    let room = room.get_mut(..end + sealer.tag_length())?;
    room[begin..middle].copy_from_slice(own);
    room[middle..end].copy_from_slice(published);
    if let Some(vp8) = numbers.vp8 {
        vp8.write_over(&mut room[middle..end]);
    }
    sealer.seal(begin, roll_over, room);
    Some(room.len())
}

/// Writes a packet's header for a subscriber; returns where its payload begins. `None`: there is no
/// room for it.
fn write_header(
    room: &mut [u8],
    header: &Header,
    packet: &Packet,
    stream: &Stream,
    is_named: bool,
    transport_sequence: u16,
) -> Option<usize> {
    let ids = &stream.agreed.extensions;
    let values = &packet.extensions;
    let transport = transport_sequence.to_be_bytes();
    let level = values.audio_level.map(|level| {
        let voice = u8::from(values.voice_activity.unwrap_or(false)) << 7;
        [voice | level.unsigned_abs().min(127)]
    });
    let orientation = values.video_orientation.map(|way| [way as u8]);
    let dependency = crate::peer::dependency_descriptor(values);
    let mut elements = [Element { id: 0, value: &[] }; 5];
    let mut used = 0;
    let mid = stream.mid;
    let candidates: [(Option<u8>, Option<&[u8]>); 5] = [
        (ids.mid, is_named.then(|| mid.as_bytes())),
        (ids.transport, Some(&transport)),
        (ids.audio_level, level.as_ref().map(|level| &level[..])),
        (ids.orientation, orientation.as_ref().map(|way| &way[..])),
        (ids.dependency, dependency),
    ];
    for (id, value) in candidates {
        if let (Some(id), Some(value)) = (id, value) {
            elements[used] = Element { id, value };
            used += 1;
        }
    }
    header::write(room, header, &elements[..used], stream.agreed.two_byte)
}

/// What waits to be sent, by our address that it is sent from.
pub(crate) struct Bursts {
    bursts: Vec<(SocketAddr, Burst)>,
}

impl Bursts {
    pub(crate) fn new(sources: &[SocketAddr]) -> Bursts {
        let burst = |source: &SocketAddr| (*source, Burst::new(BURST_BYTES, BURST_MESSAGES));
        Bursts {
            bursts: sources.iter().map(burst).collect(),
        }
    }

    /// Adds a datagram that `write` writes into the room it is given, whose length it returns.
    pub(crate) fn add(
        &mut self,
        source: SocketAddr,
        destination: SocketAddr,
        send: &mut impl FnMut(SocketAddr, &mut Burst),
        write: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) {
        let Some((_, burst)) = self.bursts.iter_mut().find(|(of, _)| *of == source) else {
            return;
        };
        if burst.spare().len() < LONGEST {
            send(source, burst);
            burst.clear();
        }
        if let Some(length) = write(burst.spare()) {
            burst.commit(destination, length);
        }
    }

    /// Sends what is left.
    pub(crate) fn flush(&mut self, send: &mut impl FnMut(SocketAddr, &mut Burst)) {
        for (source, burst) in &mut self.bursts {
            if !burst.is_empty() {
                send(*source, burst);
                burst.clear();
            }
        }
    }
}

/// Seconds since 1900 in the upper half, their fraction in the lower.
fn ntp_of(time: SystemTime) -> u64 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64();
    ((since + NTP_BEFORE_UNIX) * 4_294_967_296.0) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::stage::{Stage, Step};

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..3_u8, 1..6_u8, 1..1400_u16)
                .prop_map(|(lost, count, size)| Step::Packets { lost, count, size }),
            1 => (0..40_u8).prop_map(|behind| Step::Late { behind }),
            1 => any::<u16>().prop_map(|jump| Step::Switch { jump }),
            4 => Just(Step::Flush),
            2 => proptest::collection::vec(any::<u8>(), 0..20)
                .prop_map(|behind| Step::Nack { behind }),
            1 => Just(Step::Report),
            1 => Just(Step::Renew),
            1 => (0..3000_u16).prop_map(|milliseconds| Step::Wait { milliseconds }),
        ]
    }

    proptest! {
        /// Whatever happens: what leaves can be opened by the subscriber, no index is used twice
        /// under one SSRC, and transport-wide numbers count on by one.
        #[test]
        fn no_index_is_ever_sealed_twice(
            first in 60_000..70_000_u64,
            steps in proptest::collection::vec(step(), 1..120),
        ) {
            let mut stage = Stage::new(first);
            for step in steps {
                stage.play(step);
            }
        }
    }

    /// Found by the property above.
    #[test]
    fn a_stream_may_be_renewed_twice_in_a_row() {
        let mut stage = Stage::new(60_000);
        stage.play(Step::Renew);
        stage.play(Step::Renew);
    }

    #[test]
    fn what_is_missed_is_sent_once_within_a_round_trip() {
        let mut stage = Stage::new(65_530);
        let packets = |count| Step::Packets {
            lost: 0,
            count,
            size: 200,
        };
        stage.play(packets(20));
        stage.play(Step::Nack {
            behind: vec![3, 4, 5],
        });
        assert_eq!(stage.repaired, 3);
        stage.play(Step::Nack {
            behind: vec![3, 4, 6],
        });
        assert_eq!(stage.repaired, 4, "two were on their way");
        stage.play(Step::Wait { milliseconds: 40 });
        stage.play(Step::Nack { behind: vec![3] });
        assert_eq!(stage.repaired, 5, "it was lost again");
        stage.play(Step::Wait { milliseconds: 2500 });
        stage.play(Step::Nack { behind: vec![3, 8] });
        assert_eq!(stage.repaired, 5, "too late for any picture");
    }
}
