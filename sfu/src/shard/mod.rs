//! The state machine: who publishes, who subscribes, and what happens to a packet.
//!
//! Feed it with [`Shard::receive`], [`Shard::command`] and [`Shard::advance`]; after each, take
//! everything by [`Shard::flush`] and [`Shard::poll_event`] and call again no later than
//! [`Shard::deadline`].

mod budget;
mod explain;
mod forward;
mod negotiate;
mod relay;
pub(crate) mod report;
#[cfg(test)]
mod simulation;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use str0m::crypto::dtls::DtlsCert;
use str0m::ice::StunMessage;
use str0m::net::{DatagramRecv, Protocol, Receive};
use str0m::{Event as RtcEvent, IceConnectionState, Input};
use udp_batch::Burst;

use crate::command::{Command, ConnectionId, Event, Role, TrackId};
use crate::egress::{Bursts, Outgoing};
use crate::peer::Peer;
use crate::shed::Shed;
use crate::track::Track;
use crate::wheel::Wheel;

/// How often loudness is reported. Shorter follows a quick exchange better; longer costs fewer
/// messages in a hall of hundreds.
const AUDIO_LEVEL_INTERVAL: Duration = Duration::from_millis(200);

/// Media that waited longer than this to be looked at is left out: what can't keep up gets ever
/// further behind, and a voice is better with gaps than late. Longer than a processor is away for a
/// moment.
const LATE: Duration = Duration::from_millis(250);

/// While what is looked at waited longer than this, pictures wait for their repair, so that all the
/// time there is goes to sound. Half of what a jitter buffer of sound holds at most.
const BEHIND: Duration = Duration::from_millis(100);

/// How often dead layers, silent clients and waiting subscribers are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_millis(250);

/// A connection with nothing accepted for this long is silent. Browsers check every 2.5 s or less.
const SILENT_AFTER: Duration = Duration::from_secs(6);

/// The same on a line between nodes, whose ends check each other twice a second: a branch must know within
/// three seconds that it is cut off.
const RELAY_SILENT_AFTER: Duration = Duration::from_millis(2000);

/// A silent connection is given up after this long. Long enough for a lift or a change of network.
const CLOSE_AFTER: Duration = Duration::from_secs(60);

/// Likewise a line between nodes, which is back at once when its outage ends.
const CLOSE_RELAY_AFTER: Duration = Duration::from_secs(120);

/// A connection that has a description but never connects is given up after this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// New connections get a new certificate after so long; the old one stays theirs who have it.
const CERTIFICATE_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Client addresses remembered per connection; a client that moves between more is asked by STUN
/// again.
const ADDRESSES_PER_CONNECTION: usize = 8;

/// Addresses that a connection may come from in its life. The engine keeps each, and compares a
/// new one with all; a phone that walks through a city uses a dozen in an hour.
const ADDRESSES_IN_ALL: u32 = 128;

/// Data channels that a client may open in a connection's life; the protocol has three.
const CHANNELS_IN_ALL: u32 = 16;

/// What a shard must be told before it starts.
#[derive(Clone, Debug, Default)]
pub struct ShardConfig {
    /// The addresses at which clients reach it, told to them as ICE candidates.
    pub candidates: Vec<SocketAddr>,
}

/// A datagram to be sent.
#[derive(Debug)]
pub(crate) struct Transmit {
    /// One of [`ShardConfig::candidates`].
    pub(crate) source: SocketAddr,
    /// The client.
    pub(crate) destination: SocketAddr,
    pub(crate) contents: Vec<u8>,
}

/// Running totals; they only grow, but for the first four.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections now.
    pub connections: u64,
    /// Tracks now.
    pub tracks: u64,
    /// Subscriptions now.
    pub subscriptions: u64,
    /// Thousandths of about the last second in which the thread was not waiting.
    pub busy: u64,
    /// Datagrams received.
    pub datagrams_in: u64,
    /// Datagrams sent.
    pub datagrams_out: u64,
    /// Messages that they were joined into for the kernel to cut.
    pub messages_out: u64,
    /// Times that messages were handed to the kernel.
    pub sends: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Datagrams of nobody known.
    pub strangers: u64,
    /// Media datagrams left out because they had waited too long.
    pub late: u64,
    /// Connections that the engine failed on.
    pub failures: u64,
}

impl std::iter::Sum for Totals {
    /// Of several shards; as busy as the busiest.
    fn sum<I: Iterator<Item = Totals>>(all: I) -> Totals {
        all.fold(Totals::default(), |one, other| Totals {
            connections: one.connections + other.connections,
            tracks: one.tracks + other.tracks,
            subscriptions: one.subscriptions + other.subscriptions,
            busy: one.busy.max(other.busy),
            datagrams_in: one.datagrams_in + other.datagrams_in,
            datagrams_out: one.datagrams_out + other.datagrams_out,
            messages_out: one.messages_out + other.messages_out,
            sends: one.sends + other.sends,
            bytes_in: one.bytes_in + other.bytes_in,
            bytes_out: one.bytes_out + other.bytes_out,
            strangers: one.strangers + other.strangers,
            late: one.late + other.late,
            failures: one.failures + other.failures,
        })
    }
}

/// The media core of one thread.
pub struct Shard {
    config: ShardConfig,
    peers: FxHashMap<ConnectionId, Box<Peer>>,
    tracks: FxHashMap<TrackId, Track>,
    by_fragment: HashMap<String, ConnectionId>,
    by_address: HashMap<SocketAddr, ConnectionId>,
    wheel: Wheel,
    /// Of the last input.
    now: Instant,
    transmits: VecDeque<Transmit>,
    /// Connections with packets that wait to be sealed.
    to_seal: Vec<ConnectionId>,
    bursts: Bursts,
    events: VecDeque<Event>,
    engine_events: VecDeque<(ConnectionId, RtcEvent)>,
    /// Connections written to in this turn and not drained yet.
    written: BTreeSet<ConnectionId>,
    receivers: Vec<Outgoing>,
    /// Connections whose line is being probed, and when padding is due next.
    probed: Vec<ConnectionId>,
    next_padding: Instant,
    next_sweep: Instant,
    next_levels: Instant,
    was_loud: bool,
    shed: Shed,
    /// What is looked at now waited for longer than [`BEHIND`].
    is_behind: bool,
    /// What new connections show, and when it was made.
    certificate: Option<(DtlsCert, Instant)>,
    totals: Totals,
}

impl Shard {
    /// A shard without connections.
    pub fn new(config: ShardConfig, now: Instant) -> Self {
        Shard {
            bursts: Bursts::new(&config.candidates),
            to_seal: Vec::new(),
            config,
            peers: FxHashMap::default(),
            tracks: FxHashMap::default(),
            by_fragment: HashMap::new(),
            by_address: HashMap::new(),
            wheel: Wheel::new(now),
            now,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            engine_events: VecDeque::new(),
            written: BTreeSet::new(),
            receivers: Vec::new(),
            probed: Vec::new(),
            next_padding: now,
            next_sweep: now + SWEEP_INTERVAL,
            next_levels: now + AUDIO_LEVEL_INTERVAL,
            was_loud: false,
            shed: Shed::default(),
            is_behind: false,
            certificate: None,
            totals: Totals::default(),
        }
    }

    /// Hands everything there is to send to `send`, in bursts and with the candidate that each is
    /// sent from. What `send` leaves in a burst is lost, as on a line.
    pub fn flush(&mut self, mut send: impl FnMut(SocketAddr, &mut Burst)) {
        let mut counted = |source: SocketAddr, burst: &mut Burst| {
            self.totals.datagrams_out += burst.datagrams() as u64;
            self.totals.messages_out += burst.messages().len() as u64;
            self.totals.sends += 1;
            let bytes: usize = burst.messages().iter().map(|one| one.range().len()).sum();
            self.totals.bytes_out += bytes as u64;
            send(source, burst);
        };
        for transmit in self.transmits.drain(..) {
            let Transmit {
                source,
                destination,
                contents,
            } = transmit;
            self.bursts.add(source, destination, &mut counted, |room| {
                room.get_mut(..contents.len())?.copy_from_slice(&contents);
                Some(contents.len())
            });
        }
        for id in self.to_seal.drain(..) {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.outlet
                    .seal_pending(self.now, &mut self.bursts, &mut counted);
            }
        }
        self.bursts.flush(&mut counted);
    }

    /// The next thing to tell.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Tells how busy the thread was lately, in thousandths, so that something is given up while it
    /// has no rest. To be called a few times a second.
    pub fn set_busy(&mut self, now: Instant, busy: u64) {
        // About a second long: the last report counts a quarter.
        self.totals.busy = (3 * self.totals.busy + busy) / 4;
        if self.shed.update(now, busy) {
            self.aim_all(now);
            self.settle(now);
        }
    }

    /// When [`Shard::advance`] is due.
    pub fn deadline(&self) -> Instant {
        let mut own = self.next_sweep.min(self.next_levels);
        if !self.probed.is_empty() {
            own = own.min(self.next_padding);
        }
        self.wheel.next().map_or(own, |next| own.min(next))
    }

    /// The totals so far.
    pub fn totals(&self) -> Totals {
        Totals {
            connections: self.peers.len() as u64,
            tracks: self.tracks.len() as u64,
            subscriptions: self
                .tracks
                .values()
                .map(|track| track.subscriptions.len() as u64)
                .sum(),
            ..self.totals
        }
    }

    /// Whether a datagram that waited so long in the kernel is media that comes too late for anybody.
    /// It is counted then, and not to be given to [`Shard::receive`]: checks and reports are what
    /// holds a connection. To be called before [`Shard::receive`] where the time is known.
    pub fn is_late(&mut self, waited: Duration, datagram: &[u8]) -> bool {
        let is_media = matches!(datagram, [128..=191, ..]) && !report::is_report(datagram);
        let is_late = waited > LATE && is_media;
        self.is_behind = waited > BEHIND;
        self.totals.late += u64::from(is_late);
        is_late
    }

    /// A datagram from `source` that arrived at the candidate `destination`.
    pub fn receive(
        &mut self,
        now: Instant,
        source: SocketAddr,
        destination: SocketAddr,
        datagram: &[u8],
    ) {
        self.now = now;
        self.totals.datagrams_in += 1;
        self.totals.bytes_in += datagram.len() as u64;
        let Some((id, found_by_name)) = self.owner_of(source, datagram) else {
            self.totals.strangers += 1;
            return;
        };
        let Ok(contents) = DatagramRecv::try_from(datagram) else {
            self.totals.strangers += 1;
            return;
        };
        let input = Input::Receive(
            now,
            Receive {
                proto: Protocol::Udp,
                source,
                destination,
                contents,
            },
        );
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if !peer.accepts(&input) {
            self.totals.strangers += 1;
            return;
        }
        if !peer.addresses.contains(&source) && peer.addresses_seen == ADDRESSES_IN_ALL {
            self.totals.strangers += 1;
            return;
        }
        if found_by_name {
            peer.checked_from(source, now);
        }
        let silence = now.saturating_duration_since(peer.heard);
        let is_back = peer.outlet.estimate.heard_again(now, silence);
        peer.heard = now;
        if std::mem::take(&mut peer.is_silent) {
            self.events.push_back(Event::Resumed { connection: id });
        }
        if !peer.addresses.contains(&source) {
            if peer.addresses.len() == ADDRESSES_PER_CONNECTION {
                let oldest = peer.addresses.remove(0);
                self.by_address.remove(&oldest);
            }
            peer.addresses.push(source);
            peer.addresses_seen += 1;
        }
        if found_by_name {
            self.by_address.insert(source, id);
        }
        peer.outlet.heard(now, destination, source);
        if let Ok(check) = StunMessage::parse(datagram) {
            peer.outlet.checked(&check, destination, source);
        }
        if is_back {
            peer.lowered = None;
            for track in self.share_line(id, now) {
                self.aim(track, now);
            }
        }
        if report::is_report(datagram) && !self.reported(id, datagram, now) {
            self.settle(now);
            return;
        }
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| peer.input(input)));
        self.conclude(id, outcome, now);
        self.drain(id, now);
        self.settle(now);
    }

    /// Does what is due at `now`.
    pub fn advance(&mut self, now: Instant) {
        self.now = now;
        while let Some((id, turn)) = self.wheel.due(now) {
            let Some(peer) = self.peers.get_mut(&id) else {
                continue;
            };
            if peer.turn != Some(turn) {
                continue;
            }
            peer.turn = None;
            if peer.deadline > now {
                self.wheel.set(id, peer.deadline, &mut peer.turn);
                continue;
            }
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                peer.flush_data();
                peer.input(Input::Timeout(now))
            }));
            self.conclude(id, outcome, now);
            self.drain(id, now);
        }
        if !self.probed.is_empty() && now >= self.next_padding {
            self.pad(now);
        }
        if now >= self.next_levels {
            self.next_levels = now + AUDIO_LEVEL_INTERVAL;
            self.report_levels();
        }
        if now >= self.next_sweep {
            self.next_sweep = now + SWEEP_INTERVAL;
            self.sweep(now);
        }
        self.settle(now);
    }

    /// Does what it is told.
    pub fn command(&mut self, now: Instant, command: Command) {
        self.now = now;
        match command {
            Command::Open {
                connection,
                role,
                takes_rsa,
            } => {
                let certificate = self.certificate(now);
                let candidates = &self.config.candidates;
                let peer = Peer::new(connection, role, takes_rsa, candidates, certificate, now);
                self.peers.insert(connection, Box::new(peer));
                if let Role::Relay(_) = role {
                    self.tell_end(connection);
                }
                self.after_negotiation(connection, now);
            }
            Command::Relay { connection, other } => self.join(connection, &other, now),
            Command::Offer { connection, sdp } => self.offered(connection, &sdp, now),
            Command::Answer { connection, sdp } => self.answered(connection, &sdp, now),
            Command::RestartIce { connection } => {
                if let Some(peer) = self.peers.get_mut(&connection) {
                    peer.restart_ice();
                    self.after_negotiation(connection, now);
                }
            }
            Command::Publish {
                connection,
                track,
                publication,
            } => {
                self.publish(connection, track, publication, now);
            }
            Command::PublishBackup {
                track,
                cid,
                replaces,
            } => self.publish_backup(track, cid, replaces, now),
            Command::Unpublish { track } => self.remove_track(track, now),
            Command::Mute { track, is_muted } => {
                if let Some(track) = self.tracks.get_mut(&track) {
                    track.is_muted = is_muted;
                    if !is_muted {
                        // What was not forwarded must not look lost: everyone starts anew.
                        track
                            .subscriptions
                            .iter_mut()
                            .for_each(|one| one.current = None);
                    }
                }
            }
            Command::Subscribe {
                connection,
                track,
                stream_name,
                track_name,
                selection,
            } => {
                self.subscribe(connection, track, stream_name, track_name, selection);
                self.offer_stream(connection, track, now);
                self.after_negotiation(connection, now);
            }
            Command::Place {
                connection,
                mid,
                track,
                selection,
            } => self.place(connection, mid.as_str().into(), track, selection, now),
            Command::Unsubscribe { connection, track } => {
                self.end_subscription(connection, track);
                if let Some(peer) = self.peers.get_mut(&connection) {
                    peer.unwant(track);
                    self.after_negotiation(connection, now);
                }
            }
            Command::Select {
                connection,
                track,
                selection,
            } => {
                if let Some(one) = self
                    .tracks
                    .get_mut(&track)
                    .and_then(|track| track.subscription(connection))
                {
                    one.selection = selection;
                    self.aim(track, now);
                }
            }
            Command::SendData {
                connections,
                channel,
                payload,
            } => {
                for connection in connections {
                    let Some(peer) = self.peers.get_mut(&connection) else {
                        continue;
                    };
                    if peer.send_data(channel, &payload) {
                        self.drain(connection, now);
                    } else {
                        self.lose(connection, "the client does not read its data channel", now);
                    }
                }
            }
            Command::Explain { connection } => {
                let account = self.explain(connection, now).map(Arc::new);
                self.events.push_back(Event::Account {
                    connection,
                    account,
                });
            }
            Command::Close { connection } => {
                if let Some(peer) = self.peers.get_mut(&connection) {
                    peer.outlet.end();
                    peer.outlet.say_goodbye(&mut self.transmits);
                    peer.close();
                    self.drain(connection, now);
                    self.forget(connection, now);
                }
            }
        }
        self.settle(now);
    }

    /// The certificate of new connections. They share one, as making it is the dearest part of a
    /// connection.
    fn certificate(&mut self, now: Instant) -> Option<DtlsCert> {
        let is_fresh = |made: Instant| now.saturating_duration_since(made) < CERTIFICATE_AGE;
        if !self
            .certificate
            .as_ref()
            .is_some_and(|(_, made)| is_fresh(*made))
        {
            self.certificate = crate::tap::make_certificate().map(|made| (made, now));
        }
        self.certificate
            .as_ref()
            .map(|(certificate, _)| certificate.clone())
    }

    /// Whose datagram it is: STUN requests by user name (then `true`), everything else by address.
    fn owner_of(&self, source: SocketAddr, datagram: &[u8]) -> Option<(ConnectionId, bool)> {
        // RFC 7983: STUN begins with 0 to 3.
        if datagram.first().is_some_and(|first| *first <= 3) {
            let message = StunMessage::parse(datagram).ok()?;
            if message.is_binding_request() {
                let (local, _) = message.split_username()?;
                return self.by_fragment.get(local).map(|id| (*id, true));
            }
        }
        self.by_address.get(&source).map(|id| (*id, false))
    }

    /// Handles what the engines told until nothing is left.
    fn settle(&mut self, now: Instant) {
        loop {
            while let Some((id, event)) = self.engine_events.pop_front() {
                self.engine_event(id, event, now);
            }
            let written = std::mem::take(&mut self.written);
            if written.is_empty() {
                break;
            }
            for id in written {
                self.drain(id, now);
            }
        }
    }

    fn engine_event(&mut self, id: ConnectionId, event: RtcEvent, now: Instant) {
        match event {
            RtcEvent::RtpPacket(packet) => {
                self.packet(id, *packet.seq_no, &packet.header, packet.payload, now);
            }
            RtcEvent::Connected => {
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.is_connected = true;
                    let remote = peer.addresses.last().copied();
                    self.events.push_back(Event::Connected {
                        connection: id,
                        remote,
                    });
                    self.begin_places(id, now);
                }
            }
            RtcEvent::SenderFeedback(feedback) => {
                let Some(track) = self
                    .peers
                    .get(&id)
                    .and_then(|peer| peer.track_of(feedback.mid))
                else {
                    return;
                };
                let Some(track) = self.tracks.get_mut(&track) else {
                    return;
                };
                if let Some(layer) = track.layer_of(feedback.mid, feedback.rid) {
                    let info = feedback.sender_info;
                    track.layers[layer].report = Some((
                        info.ntp_time,
                        info.rtp_time.numer() as u32,
                        feedback.received_at,
                    ));
                }
            }
            RtcEvent::ChannelOpen(channel, label) => {
                let Some(peer) = self.peers.get_mut(&id) else {
                    return;
                };
                peer.channels_seen += 1;
                if peer.channels_seen > CHANNELS_IN_ALL {
                    self.lose(id, "the client opened too many data channels", now);
                    return;
                }
                if let Some(channel) = peer.channel_opened(channel, &label) {
                    peer.flush_data();
                    self.written.insert(id);
                    self.events.push_back(Event::ChannelOpen {
                        connection: id,
                        channel,
                    });
                }
            }
            RtcEvent::ChannelBufferedAmountLow(_) => {
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.flush_data();
                    self.written.insert(id);
                }
            }
            RtcEvent::ChannelData(data) => {
                if self.peers.get(&id).is_some_and(|peer| peer.relay.is_some()) {
                    let heard = || self.heard_word(id, &data.data, now);
                    if catch_unwind(AssertUnwindSafe(heard)).is_err() {
                        self.fail(id, now);
                    }
                } else if let Some(channel) = self
                    .peers
                    .get(&id)
                    .and_then(|peer| peer.channel_of(data.id))
                {
                    self.events.push_back(Event::Data {
                        connection: id,
                        channel,
                        payload: data.data.into(),
                    });
                }
            }
            RtcEvent::PeerStats(stats) => {
                if let Some(peer) = self.peers.get_mut(&id) {
                    let report = peer.report_line(&stats);
                    self.events.push_back(Event::Line {
                        connection: id,
                        report,
                    });
                }
            }
            RtcEvent::IceConnectionStateChange(IceConnectionState::Disconnected) => {
                // ICE-lite hears of nothing but missing checks; `sweep` decides by what arrives.
            }
            RtcEvent::Closed => self.lose(id, "the client closed the connection", now),
            _ => {}
        }
    }

    fn aim_all(&mut self, now: Instant) {
        let tracks: Vec<TrackId> = self.tracks.keys().copied().collect();
        for track in tracks {
            self.aim(track, now);
        }
    }

    fn sweep(&mut self, now: Instant) {
        self.report_sent(now);
        self.share_lines(now);
        self.aim_all(now);
        let mut lost = Vec::new();
        for peer in self.peers.values_mut() {
            let quiet = now.saturating_duration_since(peer.heard);
            if peer.is_connected {
                let (silence, patience) = match peer.role {
                    Role::Relay(_) => (RELAY_SILENT_AFTER, CLOSE_RELAY_AFTER),
                    _ => (SILENT_AFTER, CLOSE_AFTER),
                };
                if quiet > patience {
                    lost.push((peer.id, "nothing came from the client for too long"));
                } else if quiet > silence && !peer.is_silent {
                    peer.is_silent = true;
                    self.events.push_back(Event::Silent {
                        connection: peer.id,
                    });
                }
            } else if let Some(since) = peer.connecting_since
                && now.saturating_duration_since(since) > CONNECT_TIMEOUT
            {
                lost.push((peer.id, "the client never connected"));
            }
            if !peer.is_alive() {
                lost.push((peer.id, "the connection ended"));
            }
        }
        for (id, reason) in lost {
            self.lose(id, reason, now);
        }
    }

    fn drain(&mut self, id: ConnectionId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let (transmits, events) = (&mut self.transmits, &mut self.engine_events);
        let outcome = catch_unwind(AssertUnwindSafe(|| peer.drain(now, transmits, events)));
        self.wheel.set(id, peer.deadline, &mut peer.turn);
        self.conclude(id, outcome, now);
    }

    /// A failure of the engine costs the connection.
    fn conclude(
        &mut self,
        id: ConnectionId,
        outcome: std::thread::Result<Result<(), str0m::RtcError>>,
        now: Instant,
    ) {
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(connection = id.0, %error, "the engine gave up");
                self.fail(id, now);
            }
            Err(_) => self.fail(id, now),
        }
    }

    fn fail(&mut self, id: ConnectionId, now: Instant) {
        self.totals.failures += 1;
        self.lose(
            id,
            "the engine could not go on with what the client sent",
            now,
        );
    }

    fn lose(&mut self, id: ConnectionId, reason: &'static str, now: Instant) {
        if self.peers.contains_key(&id) {
            self.forget(id, now);
            self.events.push_back(Event::Closed {
                connection: id,
                reason,
            });
        }
    }

    fn forget(&mut self, id: ConnectionId, now: Instant) {
        let Some(peer) = self.peers.remove(&id) else {
            return;
        };
        for track in peer.published() {
            self.remove_track(track, now);
        }
        for track in peer.subscribed() {
            if let Some(track) = self.tracks.get_mut(&track) {
                track.remove(id);
            }
        }
        for fragment in &peer.fragments {
            self.by_fragment.remove(fragment);
        }
        for address in &peer.addresses {
            if self.by_address.get(address) == Some(&id) {
                self.by_address.remove(address);
            }
        }
        self.written.remove(&id);
    }
}
