//! The state machine: who publishes, who subscribes, and what happens to a packet.
//!
//! Feed it with [`Shard::receive`], [`Shard::command`] and [`Shard::advance`]; after each, take
//! everything from [`Shard::poll_transmit`] and [`Shard::poll_event`] and call again no later than
//! [`Shard::deadline`].

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use str0m::ice::StunMessage;
use str0m::media::Mid;
use str0m::net::{DatagramRecv, Protocol, Receive};
use str0m::rtp::RtpPacket;
use str0m::{Event as RtcEvent, IceConnectionState, Input};

use crate::command::{
    Codec, Command, ConnectionId, Event, Publication, Quality, Role, Selection, TrackId, TrackKind,
};
use crate::egress::{self, Outgoing};
use crate::payload::{Vp8, starts_keyframe};
use crate::peer::{Bound, Peer, Wanted, codec_of, passed_on};
use crate::rewrite::Rewrite;
use crate::subscription::{Mapped, Subscription};
use crate::track::{LayerState, Packet, Track};

/// How often loudness is reported. Shorter follows a quick exchange better; longer costs fewer
/// messages in a hall of hundreds.
const AUDIO_LEVEL_INTERVAL: Duration = Duration::from_millis(200);

/// How often dead layers, silent clients and waiting subscribers are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_millis(250);

/// A connection with nothing accepted for this long is silent. Browsers check every 2.5 s or less.
const SILENT_AFTER: Duration = Duration::from_secs(6);

/// A silent connection is given up after this long. Long enough for a lift or a change of network.
const CLOSE_AFTER: Duration = Duration::from_secs(60);

/// A connection that has a description but never connects is given up after this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Client addresses remembered per connection; a client that moves between more is asked by STUN
/// again.
const ADDRESSES_PER_CONNECTION: usize = 8;

/// What a shard must be told before it starts.
#[derive(Clone, Debug, Default)]
pub struct ShardConfig {
    /// The addresses at which clients reach it, told to them as ICE candidates.
    pub candidates: Vec<SocketAddr>,
}

/// A datagram to be sent.
#[derive(Clone, Debug)]
pub struct Transmit {
    /// One of [`ShardConfig::candidates`].
    pub source: SocketAddr,
    /// The client.
    pub destination: SocketAddr,
    /// The datagram.
    pub contents: Vec<u8>,
}

/// Running totals; they only grow, but for the first three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections now.
    pub connections: u64,
    /// Tracks now.
    pub tracks: u64,
    /// Subscriptions now.
    pub subscriptions: u64,
    /// Datagrams received.
    pub datagrams_in: u64,
    /// Datagrams sent.
    pub datagrams_out: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Datagrams of nobody known.
    pub strangers: u64,
    /// Connections that the engine failed on.
    pub failures: u64,
}

/// The media core of one thread.
pub struct Shard {
    config: ShardConfig,
    peers: HashMap<ConnectionId, Box<Peer>>,
    tracks: HashMap<TrackId, Track>,
    by_fragment: HashMap<String, ConnectionId>,
    by_address: HashMap<SocketAddr, ConnectionId>,
    deadlines: BTreeSet<(Instant, ConnectionId)>,
    /// The deadline under which each connection stands in `deadlines`.
    due: HashMap<ConnectionId, Instant>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    engine_events: VecDeque<(ConnectionId, RtcEvent)>,
    /// Connections written to in this turn and not drained yet.
    written: BTreeSet<ConnectionId>,
    receivers: Vec<Outgoing>,
    next_sweep: Instant,
    next_levels: Instant,
    was_loud: bool,
    totals: Totals,
}

impl Shard {
    /// A shard without connections.
    pub fn new(config: ShardConfig, now: Instant) -> Self {
        Shard {
            config,
            peers: HashMap::new(),
            tracks: HashMap::new(),
            by_fragment: HashMap::new(),
            by_address: HashMap::new(),
            deadlines: BTreeSet::new(),
            due: HashMap::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            engine_events: VecDeque::new(),
            written: BTreeSet::new(),
            receivers: Vec::new(),
            next_sweep: now + SWEEP_INTERVAL,
            next_levels: now + AUDIO_LEVEL_INTERVAL,
            was_loud: false,
            totals: Totals::default(),
        }
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let transmit = self.transmits.pop_front()?;
        self.totals.datagrams_out += 1;
        self.totals.bytes_out += transmit.contents.len() as u64;
        Some(transmit)
    }

    /// The next thing to tell.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Shard::advance`] is due.
    pub fn deadline(&self) -> Instant {
        let own = self.next_sweep.min(self.next_levels);
        self.deadlines
            .first()
            .map_or(own, |(deadline, _)| own.min(*deadline))
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

    /// A datagram from `source` that arrived at the candidate `destination`.
    pub fn receive(
        &mut self,
        now: Instant,
        source: SocketAddr,
        destination: SocketAddr,
        datagram: &[u8],
    ) {
        self.totals.datagrams_in += 1;
        self.totals.bytes_in += datagram.len() as u64;
        let Some(id) = self.owner_of(source, datagram) else {
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
        }
        self.by_address.insert(source, id);
        let outcome = catch_unwind(AssertUnwindSafe(|| peer.input(input)));
        self.conclude(id, outcome);
        self.drain(id, now);
        self.settle(now);
    }

    /// Does what is due at `now`.
    pub fn advance(&mut self, now: Instant) {
        while let Some(&(deadline, id)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_first();
            self.due.remove(&id);
            let Some(peer) = self.peers.get_mut(&id) else {
                continue;
            };
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                peer.flush_data();
                peer.input(Input::Timeout(now))
            }));
            self.conclude(id, outcome);
            self.drain(id, now);
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
        match command {
            Command::Open { connection, role } => {
                let peer = Peer::new(connection, role, &self.config.candidates, now);
                self.peers.insert(connection, Box::new(peer));
                self.after_negotiation(connection, now);
            }
            Command::Offer { connection, sdp } => self.offered(connection, &sdp, now),
            Command::Answer { connection, sdp } => self.answered(connection, &sdp, now),
            Command::Candidate {
                connection,
                candidate,
            } => {
                if let Some(peer) = self.peers.get_mut(&connection) {
                    peer.candidate(&candidate);
                    self.drain(connection, now);
                }
            }
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
                self.after_negotiation(connection, now);
            }
            Command::Unsubscribe { connection, track } => {
                if let Some(track) = self.tracks.get_mut(&track) {
                    track
                        .subscriptions
                        .retain(|one| one.connection != connection);
                }
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
                        self.lose(connection, "the client does not read its data channel");
                    }
                }
            }
            Command::Close { connection } => {
                if let Some(peer) = self.peers.get_mut(&connection) {
                    peer.close();
                    self.drain(connection, now);
                    self.forget(connection, now);
                }
            }
        }
        self.settle(now);
    }

    /// Whose datagram it is: STUN requests by user name, everything else by address.
    fn owner_of(&self, source: SocketAddr, datagram: &[u8]) -> Option<ConnectionId> {
        // RFC 7983: STUN begins with 0 to 3.
        if datagram.first().is_some_and(|first| *first <= 3) {
            let message = StunMessage::parse(datagram).ok()?;
            if message.is_binding_request() {
                let (local, _) = message.split_username()?;
                return self.by_fragment.get(local).copied();
            }
        }
        self.by_address.get(&source).copied()
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
            RtcEvent::RtpPacket(packet) => self.packet(id, packet, now),
            RtcEvent::Connected => {
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.is_connected = true;
                    let remote = peer.addresses.last().copied();
                    self.events.push_back(Event::Connected {
                        connection: id,
                        remote,
                    });
                }
            }
            RtcEvent::KeyframeRequest(request) => {
                let Some(track) = self
                    .peers
                    .get(&id)
                    .and_then(|peer| peer.sent_on(request.mid))
                else {
                    return;
                };
                let layer = self
                    .tracks
                    .get_mut(&track)
                    .and_then(|track| track.subscription(id))
                    .and_then(|one| one.current.or(one.target));
                if let Some(layer) = layer {
                    self.ask_keyframe(track, layer, now);
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
                let is_single = track.layers.len() == 1;
                if let Some(layer) = track
                    .layers
                    .iter_mut()
                    .find(|layer| is_single || layer.rid == feedback.rid)
                {
                    let info = feedback.sender_info;
                    layer.report = Some((info.ntp_time, info.rtp_time.numer() as u32));
                }
            }
            RtcEvent::ChannelOpen(channel, label) => {
                let Some(peer) = self.peers.get_mut(&id) else {
                    return;
                };
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
                if let Some(channel) = self
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
            RtcEvent::MediaEgressStats(stats) => {
                if let (Some(peer), Some(loss)) = (self.peers.get_mut(&id), stats.loss) {
                    peer.line.loss_down = Some(peer.line.loss_down.unwrap_or(0.0).max(loss));
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
            RtcEvent::Closed => self.lose(id, "the client closed the connection"),
            _ => {}
        }
    }

    fn offered(&mut self, id: ConnectionId, sdp: &str, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| peer.accept_offer(sdp, now)));
        let answered = match outcome {
            Ok(Ok(answered)) => answered,
            Ok(Err(reason)) => {
                self.events.push_back(Event::Refused {
                    connection: id,
                    reason,
                });
                return;
            }
            Err(_) => {
                self.fail(id);
                return;
            }
        };
        for track in answered.ended {
            self.events.push_back(Event::Ended { track });
            self.remove_track(track, now);
        }
        self.events.push_back(Event::Answer {
            connection: id,
            sdp: answered.sdp,
            mids: answered.mids,
        });
        self.bind(answered.bound);
        for (track, mid) in answered.agreed {
            self.agree(id, track, mid, now);
        }
        self.after_negotiation(id, now);
    }

    fn answered(&mut self, id: ConnectionId, sdp: &str, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        match catch_unwind(AssertUnwindSafe(|| peer.accept_answer(sdp, now))) {
            Ok(Ok(agreed)) => {
                for (track, mid) in agreed {
                    self.agree(id, track, mid, now);
                }
            }
            Ok(Err(reason)) => self.events.push_back(Event::Refused {
                connection: id,
                reason,
            }),
            Err(_) => {
                self.fail(id);
                return;
            }
        }
        self.after_negotiation(id, now);
    }

    /// Offers, asks for places, and notes new ICE credentials, as a change may have called for.
    fn after_negotiation(&mut self, id: ConnectionId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if let Some(sdp) = peer.make_offer() {
            self.events.push_back(Event::Offer {
                connection: id,
                sdp,
            });
        }
        if let Some((audio, video)) = peer.places_needed() {
            self.events.push_back(Event::PlacesNeeded {
                connection: id,
                audio,
                video,
            });
        }
        self.by_fragment.insert(peer.user_fragment(), id);
        self.drain(id, now);
    }

    fn publish(
        &mut self,
        id: ConnectionId,
        track: TrackId,
        publication: Publication,
        now: Instant,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.announced.push((track, publication.clone()));
        self.tracks
            .insert(track, Track::new(track, id, publication));
        let bound = peer.bind_late();
        self.bind(bound);
        self.drain(id, now);
    }

    fn bind(&mut self, bound: Vec<Bound>) {
        for Bound {
            track: id,
            mid,
            codec,
            rids,
        } in bound
        {
            let Some(track) = self.tracks.get_mut(&id) else {
                continue;
            };
            track.mid = Some(mid);
            track.codec = Some(codec);
            track.layers = if rids.is_empty() {
                vec![LayerState::new(Quality::High, None)]
            } else {
                let count = rids.len();
                rids.into_iter()
                    .enumerate()
                    .map(|(at, rid)| {
                        LayerState::new(quality_of(&rid.to_string(), at, count), Some(rid))
                    })
                    .collect()
            };
            self.events.push_back(Event::Published {
                track: id,
                mid: mid.to_string(),
                codec,
            });
        }
    }

    fn subscribe(
        &mut self,
        connection: ConnectionId,
        id: TrackId,
        stream_name: String,
        track_name: String,
        selection: Selection,
    ) {
        let (Some(track), Some(peer)) = (self.tracks.get_mut(&id), self.peers.get_mut(&connection))
        else {
            return;
        };
        if track.subscription(connection).is_some() || peer.role == Role::Publish {
            return;
        }
        let clock_rate = track.clock_rate();
        track.subscriptions.push(Subscription {
            connection,
            selection,
            mid: None,
            current: None,
            target: None,
            rewrite: Rewrite::new(clock_rate),
            mapped: None,
        });
        peer.want(Wanted {
            track: id,
            kind: track.publication.kind,
            stream_name,
            track_name,
        });
    }

    fn agree(&mut self, connection: ConnectionId, track: TrackId, mid: Mid, now: Instant) {
        let Some(one) = self
            .tracks
            .get_mut(&track)
            .and_then(|track| track.subscription(connection))
        else {
            return;
        };
        one.mid = Some(mid);
        if let Some(peer) = self.peers.get_mut(&connection) {
            peer.keep_for_repair(mid);
        }
        self.events
            .push_back(Event::Subscribed { connection, track });
        self.aim(track, now);
    }

    /// Sets every subscriber's target layer anew and asks for the keyframes that they wait for.
    fn aim(&mut self, id: TrackId, now: Instant) {
        let Some(track) = self.tracks.get_mut(&id) else {
            return;
        };
        let mut asked = [false; 8];
        for at in 0..track.subscriptions.len() {
            let target = track.choose(track.subscriptions[at].selection, now);
            let one = &mut track.subscriptions[at];
            if target.is_none() {
                one.current = None;
            }
            one.target = target;
            if let (true, Some(layer)) = (one.is_waiting(), target) {
                asked[layer.min(7)] = true;
            }
        }
        if track.publication.kind == TrackKind::Video {
            for (layer, _) in asked.iter().enumerate().filter(|(_, asked)| **asked) {
                self.ask_keyframe(id, layer, now);
            }
        }
    }

    fn ask_keyframe(&mut self, id: TrackId, layer: usize, now: Instant) {
        let Some(track) = self.tracks.get_mut(&id) else {
            return;
        };
        let (Some(mid), owner) = (track.mid, track.owner) else {
            return;
        };
        let Some(layer) = track.layers.get_mut(layer) else {
            return;
        };
        if track.publication.kind == TrackKind::Audio || !layer.may_ask_keyframe(now) {
            return;
        }
        let rid = layer.rid;
        if let Some(peer) = self.peers.get_mut(&owner) {
            peer.ask_keyframe(mid, rid);
            self.written.insert(owner);
        }
    }

    /// A media packet of a client.
    fn packet(&mut self, id: ConnectionId, packet: RtpPacket, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let ssrc = packet.header.ssrc;
        let known = peer
            .sources
            .iter()
            .find(|(of, _, _)| *of == ssrc)
            .map(|(_, track, layer)| (*track, *layer));
        let (track_id, layer) = match known {
            Some(known) => known,
            None => {
                let Some((track, rid)) = peer.find_source(ssrc) else {
                    return;
                };
                let Some(state) = self.tracks.get_mut(&track) else {
                    return;
                };
                let single = state.layers.len() == 1;
                let Some(layer) = state
                    .layers
                    .iter()
                    .position(|layer| single || layer.rid == rid)
                else {
                    return;
                };
                state.layers[layer].ssrc = Some(ssrc);
                peer.sources.push((ssrc, track, layer));
                (track, layer)
            }
        };
        let Some(track) = self.tracks.get_mut(&track_id) else {
            return;
        };
        let Some((params, is_red)) = peer.received_as(packet.header.payload_type) else {
            return;
        };
        let Some(codec) = codec_of(&params) else {
            return;
        };
        if track.codec != Some(codec) {
            track.codec = Some(codec);
            track
                .subscriptions
                .iter_mut()
                .for_each(|one| one.mapped = None);
            self.events.push_back(Event::CodecChanged {
                track: track_id,
                codec,
            });
        }
        let state = &mut track.layers[layer];
        let was_live = state.is_live(now);
        state.last_packet = Some(now);
        if track.is_muted {
            return;
        }
        if let Some(level) = packet.header.ext_vals.audio_level {
            track.loudness.0 += u32::from(level.unsigned_abs().min(127));
            track.loudness.1 += 1;
        }
        if packet.payload.is_empty() {
            // Padding that probes the line; it has a number, and so has its place in the output.
            // Browsers send such only on RTX, which the engine keeps.
            return;
        }
        let received = Packet {
            sequence: *packet.seq_no,
            timestamp: packet.header.timestamp,
            marker: packet.header.marker,
            payload_type: packet.header.payload_type,
            starts_keyframe: starts_keyframe(codec, &packet.payload),
            vp8: if codec == Codec::Vp8 {
                Vp8::parse(&packet.payload)
            } else {
                None
            },
            extensions: passed_on(&packet.header.ext_vals),
            payload: packet.payload,
            arrived: now,
        };
        if !was_live {
            self.aim(track_id, now);
        }
        self.forward(track_id, layer, received, &params, is_red);
        self.send_all(now);
    }

    /// Puts a packet on the list of everyone who gets it; starts those who waited for it.
    fn forward(
        &mut self,
        id: TrackId,
        layer: usize,
        packet: Packet,
        params: &str0m::format::PayloadParams,
        is_red: bool,
    ) {
        let Some(track) = self.tracks.get_mut(&id) else {
            return;
        };
        let is_video = track.publication.kind == TrackKind::Video;
        let clock_rate = track.clock_rate();
        let mut behind: Vec<Packet> = Vec::new();
        let mut late: Vec<(usize, Packet)> = Vec::new();
        self.receivers.clear();
        for at in 0..track.subscriptions.len() {
            let Some(mid) = track.subscriptions[at].mid else {
                continue;
            };
            let starts = track.subscriptions[at].target == Some(layer)
                && track.subscriptions[at].current != Some(layer)
                && packet.starts_keyframe;
            if starts {
                let step = track.subscriptions[at].current.and_then(|old| {
                    let new = track.layers[layer].wall_clock(packet.timestamp, clock_rate)?;
                    let last = track.layers[old].recent.back()?;
                    let old = track.layers[old].wall_clock(last.timestamp, clock_rate)?;
                    Some(((new - old) * f64::from(clock_rate)) as i64)
                });
                let one = &mut track.subscriptions[at];
                one.rewrite.switch(&packet, step, &mut rand::rng());
                one.current = Some(layer);
                if behind.is_empty() {
                    let overtook = |other: &&Packet| other.sequence > packet.sequence;
                    behind = track.layers[layer]
                        .recent
                        .iter()
                        .filter(overtook)
                        .cloned()
                        .collect();
                }
                late.extend(behind.iter().map(|packet| (at, packet.clone())));
            }
            let one = &mut track.subscriptions[at];
            if one.current != Some(layer) {
                continue;
            }
            let Some(peer) = self.peers.get(&one.connection) else {
                continue;
            };
            let mapped = match one.mapped {
                Some(mapped) if mapped.source == packet.payload_type => mapped,
                _ => {
                    let sent = peer.send_as(mid, params, is_red);
                    let mapped = Mapped {
                        source: packet.payload_type,
                        target: sent.map(|(target, _)| target),
                        unwrap_red: sent.is_some_and(|(_, unwrap)| unwrap),
                    };
                    if mapped.target.is_none() {
                        let connection = one.connection;
                        self.events.push_back(Event::CodecNotAccepted {
                            connection,
                            track: id,
                        });
                    }
                    one.mapped = Some(mapped);
                    mapped
                }
            };
            let Some(payload_type) = mapped.target else {
                continue;
            };
            if let Some(numbers) = one.rewrite.number(&packet) {
                self.receivers.push(Outgoing {
                    connection: one.connection,
                    mid,
                    payload_type,
                    unwrap_red: mapped.unwrap_red,
                    numbers,
                });
            }
        }
        track.layers[layer].remember(&packet);
        self.send(&packet, is_video);
        for (at, packet) in late {
            let Some(one) = self
                .tracks
                .get_mut(&id)
                .and_then(|track| track.subscriptions.get_mut(at))
            else {
                continue;
            };
            let (
                Some(mid),
                Some(Mapped {
                    target: Some(payload_type),
                    unwrap_red,
                    ..
                }),
            ) = (one.mid, one.mapped)
            else {
                continue;
            };
            if let Some(numbers) = one.rewrite.number(&packet) {
                let connection = one.connection;
                self.receivers = vec![Outgoing {
                    connection,
                    mid,
                    payload_type,
                    unwrap_red,
                    numbers,
                }];
                self.send(&packet, is_video);
            }
        }
    }

    fn send(&mut self, packet: &Packet, is_video: bool) {
        let receivers = std::mem::take(&mut self.receivers);
        egress::send(
            &mut self.peers,
            packet,
            is_video,
            &receivers,
            packet.arrived,
        );
        self.written
            .extend(receivers.iter().map(|receiver| receiver.connection));
        self.receivers = receivers;
        self.receivers.clear();
    }

    /// Drains everyone written to, so that each packet has left before the next is written.
    fn send_all(&mut self, now: Instant) {
        for id in std::mem::take(&mut self.written) {
            self.drain(id, now);
        }
    }

    fn report_levels(&mut self) {
        let mut levels = Vec::new();
        for track in self.tracks.values_mut() {
            let (sum, count) = std::mem::take(&mut track.loudness);
            if let Some(level) = sum.checked_div(count) {
                levels.push((track.id, level as u8));
            }
        }
        let is_loud = !levels.is_empty();
        if is_loud || self.was_loud {
            self.events.push_back(Event::AudioLevels(levels));
        }
        self.was_loud = is_loud;
    }

    fn sweep(&mut self, now: Instant) {
        let tracks: Vec<TrackId> = self.tracks.keys().copied().collect();
        for track in tracks {
            self.aim(track, now);
        }
        let mut lost = Vec::new();
        for peer in self.peers.values_mut() {
            let quiet = now.saturating_duration_since(peer.heard);
            if peer.is_connected {
                if quiet > CLOSE_AFTER {
                    lost.push((peer.id, "nothing came from the client for too long"));
                } else if quiet > SILENT_AFTER && !peer.is_silent {
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
            self.lose(id, reason);
        }
    }

    fn drain(&mut self, id: ConnectionId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let (transmits, events) = (&mut self.transmits, &mut self.engine_events);
        let outcome = catch_unwind(AssertUnwindSafe(|| peer.drain(now, transmits, events)));
        let deadline = peer.deadline;
        if let Some(old) = self.due.insert(id, deadline) {
            self.deadlines.remove(&(old, id));
        }
        self.deadlines.insert((deadline, id));
        self.conclude(id, outcome);
    }

    /// A failure of the engine costs the connection.
    fn conclude(
        &mut self,
        id: ConnectionId,
        outcome: std::thread::Result<Result<(), str0m::RtcError>>,
    ) {
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => self.fail(id),
        }
    }

    fn fail(&mut self, id: ConnectionId) {
        self.totals.failures += 1;
        self.lose(id, "the engine could not go on with what the client sent");
    }

    fn lose(&mut self, id: ConnectionId, reason: &'static str) {
        if self.peers.contains_key(&id) {
            self.forget(id, Instant::now());
            self.events.push_back(Event::Closed {
                connection: id,
                reason,
            });
        }
    }

    fn forget(&mut self, id: ConnectionId, now: Instant) {
        let own: Vec<TrackId> = self
            .tracks
            .values()
            .filter(|track| track.owner == id)
            .map(|track| track.id)
            .collect();
        for track in own {
            self.remove_track(track, now);
        }
        for track in self.tracks.values_mut() {
            track.subscriptions.retain(|one| one.connection != id);
        }
        self.peers.remove(&id);
        self.by_fragment.retain(|_, of| *of != id);
        self.by_address.retain(|_, of| *of != id);
        if let Some(deadline) = self.due.remove(&id) {
            self.deadlines.remove(&(deadline, id));
        }
        self.written.remove(&id);
    }

    fn remove_track(&mut self, id: TrackId, now: Instant) {
        let Some(track) = self.tracks.remove(&id) else {
            return;
        };
        if let Some(peer) = self.peers.get_mut(&track.owner) {
            peer.forget_track(id);
        }
        for one in track.subscriptions {
            if let Some(peer) = self.peers.get_mut(&one.connection) {
                peer.unwant(id);
                self.after_negotiation(one.connection, now);
            }
        }
    }
}

/// LiveKit's clients name their layers q, h and f; others are ranked by their order.
fn quality_of(rid: &str, at: usize, count: usize) -> Quality {
    match (rid, count - at) {
        ("q", _) => Quality::Low,
        ("h", _) => Quality::Medium,
        ("f", _) | (_, 1) => Quality::High,
        (_, 2) => Quality::Medium,
        _ => Quality::Low,
    }
}
