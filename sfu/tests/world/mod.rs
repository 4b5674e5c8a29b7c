//! The virtual clock, network and clients of the simulation. Clients are str0m too, but speak
//! SDP, ICE, DTLS and SRTP with the shard as a browser would.

#[allow(dead_code, reason = "for tests/layers.rs")]
pub(crate) mod svc;

use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sfu::account::Account;
use sfu::{
    Burst, Channel, Codec, Command, ConnectionId, Encoding, End, Event, Publication, Quality, Role,
    Selection, Shard, ShardConfig, Totals, TrackId, TrackKind,
};
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::channel::ChannelId;
use str0m::media::{
    Direction, KeyframeRequestKind, MediaKind, Mid, Rid, Simulcast, SimulcastLayer,
};
use str0m::net::{DatagramRecv, Protocol, Receive};
use str0m::rtp::{Extension, ExtensionMap, RtpPacket, RtpWrite};
use str0m::{Candidate, Event as RtcEvent, Input, Output, Rtc, RtcConfig};
use svc::{Position, Shape};

pub(crate) const TRACK: TrackId = TrackId(1);
const TRACK_NAME: &str = "TR_1";
const FRAME: Duration = Duration::from_millis(33);
/// How often clients count what they were asked for.
const STATS_INTERVAL: Duration = Duration::from_secs(1);
/// How often viewers look whether they can decode.
const DECODE: Duration = Duration::from_millis(300);
const PACKETS_PER_FRAME: u8 = 3;
const BURST_BYTES: usize = 256 * 1500;
const BURST_MESSAGES: usize = 256;

/// What waits longer before a narrow line is lost.
const QUEUE: Duration = Duration::from_millis(300);

/// How the network treats datagrams, in both directions.
#[derive(Clone, Copy)]
pub(crate) struct Link {
    pub(crate) delay: Duration,
    pub(crate) jitter: Duration,
    pub(crate) loss: f64,
    pub(crate) duplicates: f64,
}

impl Default for Link {
    fn default() -> Self {
        Link {
            delay: Duration::from_millis(5),
            jitter: Duration::ZERO,
            loss: 0.0,
            duplicates: 0.0,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Node(usize),
    Client(usize),
}

/// A shard at an address of its own.
struct Node {
    shard: Shard,
    address: SocketAddr,
    events: Vec<Event>,
}

/// A line between two nodes.
struct Line {
    upper: (usize, ConnectionId),
    lower: (usize, ConnectionId),
    link: Link,
    is_cut: bool,
    /// Under which address the upper node sees the lower one.
    seen_as: Option<SocketAddr>,
    /// Datagrams from above, and their bytes.
    down: (u64, u64),
}

#[derive(PartialEq, Eq)]
struct Flight {
    due: Instant,
    order: u64,
    to: To,
    source: SocketAddr,
    bytes: Vec<u8>,
}

impl Ord for Flight {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.due, other.order).cmp(&(self.due, self.order))
    }
}

impl PartialOrd for Flight {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

struct Client {
    rtc: Rtc,
    /// The node at which it is.
    home: usize,
    id: ConnectionId,
    address: SocketAddr,
    deadline: Instant,
    pending: Option<SdpPendingOffer>,
    /// The mid of the place that it offered last.
    place: String,
    received: Vec<RtpPacket>,
    messages: Vec<Vec<u8>>,
    channels: Vec<ChannelId>,
    is_cut: bool,
    /// Bits per second of its line from the shard, and when what waits there has left.
    narrow: Option<(f64, Instant)>,
}

struct Encoder {
    client: usize,
    track: TrackId,
    mid: Mid,
    rid: Option<Rid>,
    name: &'static str,
    sequence: u64,
    timestamp: u32,
    frame: u32,
    wants_key: bool,
    is_stopped: bool,
    /// Layers within the stream.
    svc: Option<(Shape, Position)>,
}

pub(crate) struct World {
    pub(crate) now: Instant,
    nodes: Vec<Node>,
    lines: Vec<Line>,
    /// Where clients and commands go.
    home: usize,
    /// The next line's upper end is told by another certificate than it has.
    is_forged: bool,
    is_measured: bool,
    /// Time inside of `measured_` functions.
    spent: Duration,
    /// Bursts to be used again: fresh memory would cost what is measured page faults.
    spare: Vec<Burst>,
    clients: Vec<Client>,
    viewers: Vec<usize>,
    encoders: Vec<Encoder>,
    next_frame: Instant,
    next_decode: Instant,
    flights: BinaryHeap<Flight>,
    order: u64,
    link: Link,
    random: StdRng,
    keyframe_requests: usize,
    /// How often packets of each layer were asked for again.
    asked_again: HashMap<Rid, u64>,
    last_answer: String,
    waits: Duration,
}

// What happens inside these is counted by `cargo xtask bench instructions`.

#[inline(never)]
fn measured_receive(
    shard: &mut Shard,
    now: Instant,
    source: SocketAddr,
    server: SocketAddr,
    datagram: &[u8],
) {
    shard.receive(now, source, server, datagram);
}

#[inline(never)]
fn measured_advance(shard: &mut Shard, now: Instant) {
    shard.advance(now);
}

#[inline(never)]
fn measured_flush(shard: &mut Shard, take: impl FnMut(SocketAddr, &mut Burst)) {
    shard.flush(take);
}

impl World {
    /// From now on the shard's work is done inside of `measured_` functions.
    pub(crate) fn measure(&mut self) {
        self.is_measured = true;
    }

    /// The shard's working time since the last call, where it is measured.
    #[allow(dead_code, reason = "for benches/hot.rs")]
    pub(crate) fn take_spent(&mut self) -> Duration {
        std::mem::take(&mut self.spent)
    }

    /// Has viewers forget what they received, so that a long run stays small; they ask for no
    /// keyframe then.
    #[allow(dead_code, reason = "for benches/hot.rs")]
    pub(crate) fn forget_received(&mut self) {
        for client in &mut self.clients {
            client.received.clear();
        }
        self.next_decode = self.now + DECODE;
    }

    pub(crate) fn totals(&self) -> Totals {
        self.nodes[self.home].shard.totals()
    }

    pub(crate) fn new(seed: u64, link: Link) -> Self {
        let now = Instant::now();
        let mut world = World {
            now,
            nodes: Vec::new(),
            lines: Vec::new(),
            home: 0,
            is_forged: false,
            is_measured: false,
            spent: Duration::ZERO,
            spare: Vec::new(),
            clients: Vec::new(),
            viewers: Vec::new(),
            encoders: Vec::new(),
            next_frame: now,
            next_decode: now,
            flights: BinaryHeap::new(),
            order: 0,
            link,
            random: StdRng::seed_from_u64(seed),
            keyframe_requests: 0,
            asked_again: HashMap::new(),
            last_answer: String::new(),
            waits: Duration::ZERO,
        };
        world.add_node();
        world
    }

    /// Another node, at which clients are and commands go from now on.
    pub(crate) fn add_node(&mut self) -> usize {
        let at = self.nodes.len();
        let address = SocketAddr::from(([10, 0, 0, at as u8 + 1], 7882));
        let config = ShardConfig {
            candidates: vec![address],
        };
        self.nodes.push(Node {
            shard: Shard::new(config, self.now),
            address,
            events: Vec::new(),
        });
        self.home = at;
        at
    }

    /// From now on clients are, and commands go, there.
    pub(crate) fn go_to(&mut self, node: usize) {
        self.home = node;
    }

    /// Joins two nodes; returns the line's number, and the connections of its upper and lower end.
    pub(crate) fn join(
        &mut self,
        upper: usize,
        lower: usize,
        link: Link,
    ) -> (usize, ConnectionId, ConnectionId) {
        let at = self.lines.len();
        let ids = [2 * at, 2 * at + 1].map(|at| ConnectionId(10_000 + at as u64));
        self.lines.push(Line {
            upper: (upper, ids[0]),
            lower: (lower, ids[1]),
            link,
            is_cut: false,
            seen_as: None,
            down: (0, 0),
        });
        let mut ends = Vec::new();
        for (node, connection, end) in [(upper, ids[0], End::Upper), (lower, ids[1], End::Lower)] {
            self.go_to(node);
            let role = Role::Relay(end);
            self.command(Command::Open {
                connection,
                role,
                takes_rsa: false,
            });
            let told = self.nodes[node]
                .events
                .iter()
                .rev()
                .find_map(|event| match event {
                    Event::RelayEnd {
                        connection: of,
                        end,
                    } if *of == connection => Some(end.clone()),
                    _ => None,
                });
            ends.push(told.expect("an end is told when it is opened"));
        }
        if std::mem::take(&mut self.is_forged) {
            let fingerprint = &mut ends[0].fingerprint;
            let last = fingerprint
                .pop()
                .map(|digit| if digit == '0' { '1' } else { '0' });
            fingerprint.extend(last);
        }
        for (node, connection, other) in [(upper, ids[0], 1), (lower, ids[1], 0)] {
            self.go_to(node);
            let other = ends[other].clone();
            self.command(Command::Relay { connection, other });
        }
        (at, ids[0], ids[1])
    }

    pub(crate) fn set_line(&mut self, line: usize, link: Link, is_cut: bool) {
        (self.lines[line].link, self.lines[line].is_cut) = (link, is_cut);
    }

    pub(crate) fn spoil_fingerprint(&mut self) {
        self.is_forged = true;
    }

    /// From now on the upper node sees the lower one under another address, and the old one leads nowhere.
    pub(crate) fn map_line(&mut self, line: usize, address: SocketAddr) {
        self.lines[line].seen_as = Some(address);
    }

    /// Datagrams that went down a line so far, and their bytes.
    pub(crate) fn went_down(&self, line: usize) -> (u64, u64) {
        self.lines[line].down
    }

    /// Says something to the shard of the present node.
    pub(crate) fn tell(&mut self, command: Command) {
        self.command(command);
    }

    fn events(&self) -> &[Event] {
        &self.nodes[self.home].events
    }

    /// From now on datagrams wait for so long before the shard looks at them.
    #[allow(dead_code, reason = "not for benches/hot.rs")]
    pub(crate) fn set_waits(&mut self, waits: Duration) {
        self.waits = waits;
    }

    fn client(&mut self) -> usize {
        self.client_of(RtcConfig::new().set_stats_interval(Some(STATS_INTERVAL)))
    }

    fn client_of(&mut self, config: RtcConfig) -> usize {
        let at = self.clients.len();
        let address: SocketAddr = format!("10.1.{}.{}:5000", at / 200, at % 200 + 1)
            .parse()
            .unwrap();
        let mut extensions = ExtensionMap::standard();
        let descriptor = Extension::with_serializer(svc::DESCRIPTOR_URI, svc::DescriptorExtension);
        extensions.set(9, descriptor);
        let mut rtc = config
            .set_rtp_mode(true)
            .set_extension_map(extensions)
            .build(self.now);
        rtc.add_local_candidate(Candidate::host(address, "udp").unwrap());
        self.clients.push(Client {
            rtc,
            home: self.home,
            id: ConnectionId(at as u64 + 1),
            address,
            deadline: self.now,
            pending: None,
            place: String::new(),
            received: Vec::new(),
            messages: Vec::new(),
            channels: Vec::new(),
            is_cut: false,
            narrow: None,
        });
        at
    }

    pub(crate) fn add_publisher(&mut self, is_simulcast: bool) {
        let layers: &[&'static str] = if is_simulcast {
            &["q", "h", "f"]
        } else {
            &["f"]
        };
        self.add_camera(TRACK, layers);
    }

    /// A client that sends one track in so many layers, or in one without simulcast.
    pub(crate) fn add_camera(&mut self, track: TrackId, layers: &[&'static str]) {
        self.add_encoders(track, layers, None, None);
    }

    /// A client that sends one track with layers within each of its streams.
    #[allow(dead_code, reason = "for tests/layers.rs")]
    pub(crate) fn add_layered(&mut self, layers: &[&'static str], shape: Shape) {
        self.add_encoders(TRACK, layers, Some(shape), None);
    }

    /// A client that sends one track, named `f`, and would send it in another codec too.
    #[allow(dead_code, reason = "for tests/backup.rs")]
    pub(crate) fn add_with_backup(&mut self, shape: Shape, backup: Codec) {
        self.add_encoders(TRACK, &["f"], Some(shape), Some(backup));
    }

    /// The client of the track sends it in its other codec too, under names of their own.
    #[allow(dead_code, reason = "for tests/backup.rs")]
    pub(crate) fn add_backup(&mut self, layers: &[&'static str], shape: Shape, replaces: bool) {
        let at = self.encoders[0].client;
        self.command(Command::PublishBackup {
            track: TRACK,
            cid: "backup".into(),
            replaces,
        });
        self.send(at, "backup", TRACK, layers, Some(shape));
    }

    fn add_encoders(
        &mut self,
        track: TrackId,
        layers: &[&'static str],
        shape: Option<Shape>,
        backup: Option<Codec>,
    ) {
        let at = self.client();
        let id = self.clients[at].id;
        self.command(Command::Open {
            connection: id,
            role: Role::Publish,
            takes_rsa: false,
        });
        let publication = Publication {
            cid: "camera".into(),
            kind: TrackKind::Video,
            codecs: vec![shape.map_or(Codec::Vp8, |shape| shape.codec)],
            backup,
            layers: Vec::new(),
            is_red_allowed: true,
            is_screen: false,
        };
        self.command(Command::Publish {
            connection: id,
            track,
            publication,
        });
        self.send(at, "camera", track, layers, shape);
    }

    /// Offers an m-line, and encodes for it.
    fn send(
        &mut self,
        at: usize,
        cid: &str,
        track: TrackId,
        layers: &[&'static str],
        shape: Option<Shape>,
    ) {
        let is_simulcast = layers.len() > 1;
        let id = self.clients[at].id;
        let rtc = &mut self.clients[at].rtc;
        let mut api = rtc.sdp_api();
        let simulcast = is_simulcast.then(|| Simulcast {
            send: layers.iter().map(|rid| SimulcastLayer::new(rid)).collect(),
            recv: Vec::new(),
        });
        let mid = api.add_media(
            MediaKind::Video,
            Direction::SendOnly,
            Some("stream".into()),
            Some(cid.into()),
            simulcast,
        );
        let (offer, pending) = api.apply().unwrap();
        self.clients[at].pending = Some(pending);
        for name in layers {
            self.encoders.push(Encoder {
                client: at,
                track,
                mid,
                rid: is_simulcast.then(|| Rid::from(*name)),
                name,
                // Near the wrap of the 16-bit number, so that every run rolls over.
                sequence: u64::from(self.random.random_range(65_400..65_530u16)),
                timestamp: self.random.random(),
                frame: 0,
                wants_key: true,
                is_stopped: false,
                svc: shape.map(|shape| (shape, Position::default())),
            });
        }
        self.drain_client(at);
        self.command(Command::Offer {
            connection: id,
            sdp: offer.to_sdp_string(),
        });
    }

    pub(crate) fn add_subscriber(&mut self, selection: Selection) -> usize {
        let at = self.client();
        self.subscribe_by(at, selection)
    }

    /// A viewer of the track that takes VP8 and nothing else.
    #[allow(dead_code, reason = "for tests/backup.rs")]
    pub(crate) fn add_old(&mut self, role: Role) -> usize {
        let at = self.client_of(RtcConfig::new().clear_codecs().enable_vp8(true));
        match role {
            Role::Single => self.single_by(at),
            Role::View => {
                let viewer = self.view_by(at);
                self.place(viewer, Some(TRACK));
                viewer
            }
            _ => self.subscribe_by(at, Selection::of(Quality::High)),
        }
    }

    fn subscribe_by(&mut self, at: usize, selection: Selection) -> usize {
        let connection = self.clients[at].id;
        self.viewers.push(at);
        self.command(Command::Open {
            connection,
            role: Role::Subscribe,
            takes_rsa: false,
        });
        self.subscribe(connection, selection);
        self.viewers.len() - 1
    }

    /// A client with one connection that offers a place for video.
    pub(crate) fn add_single(&mut self) -> usize {
        let at = self.client();
        self.single_by(at)
    }

    fn single_by(&mut self, at: usize) -> usize {
        let connection = self.clients[at].id;
        self.viewers.push(at);
        self.command(Command::Open {
            connection,
            role: Role::Single,
            takes_rsa: false,
        });
        self.subscribe(connection, Selection::of(Quality::High));
        self.offer_places(at);
        self.viewers.len() - 1
    }

    /// A client that only receives, in one place for video.
    pub(crate) fn add_view(&mut self) -> usize {
        let at = self.client();
        self.view_by(at)
    }

    fn view_by(&mut self, at: usize) -> usize {
        let connection = self.clients[at].id;
        self.viewers.push(at);
        self.command(Command::Open {
            connection,
            role: Role::View,
            takes_rsa: false,
        });
        self.offer_places(at);
        self.viewers.len() - 1
    }

    /// Sends a track, or nothing, in the place of a client that only receives.
    pub(crate) fn place(&mut self, viewer: usize, track: Option<TrackId>) {
        let at = self.viewers[viewer];
        let command = Command::Place {
            connection: self.clients[at].id,
            mid: self.clients[at].place.clone(),
            track,
            selection: Selection::of(Quality::High),
        };
        self.command(command);
    }

    pub(crate) fn end_track(&mut self, track: TrackId) {
        self.encoders.retain(|encoder| encoder.track != track);
        self.command(Command::Unpublish { track });
    }

    fn offer_places(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let mut api = client.rtc.sdp_api();
        let mid = api.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
        let (offer, pending) = api.apply().unwrap();
        client.place = mid.to_string();
        client.pending = Some(pending);
        let connection = client.id;
        self.drain_client(at);
        self.command(Command::Offer {
            connection,
            sdp: offer.to_sdp_string(),
        });
    }

    fn subscribe(&mut self, connection: ConnectionId, selection: Selection) {
        self.command(Command::Subscribe {
            connection,
            track: TRACK,
            stream_name: format!("PA_1|{TRACK_NAME}"),
            track_name: TRACK_NAME.into(),
            selection,
        });
    }

    pub(crate) fn unsubscribe(&mut self, viewer: usize) {
        let connection = self.clients[self.viewers[viewer]].id;
        self.command(Command::Unsubscribe {
            connection,
            track: TRACK,
        });
    }

    pub(crate) fn resubscribe(&mut self, viewer: usize) {
        let connection = self.clients[self.viewers[viewer]].id;
        self.subscribe(connection, Selection::of(Quality::High));
    }

    /// The m-lines of the shard's last offer.
    pub(crate) fn lines_offered(&self) -> usize {
        let last = self.events().iter().rev().find_map(|event| match event {
            Event::Offer { sdp, .. } => Some(sdp),
            _ => None,
        });
        last.map_or(0, |sdp| {
            sdp.lines().filter(|line| line.starts_with("m=")).count()
        })
    }

    pub(crate) fn select(&mut self, viewer: usize, selection: Selection) {
        let connection = self.clients[self.viewers[viewer]].id;
        self.command(Command::Select {
            connection,
            track: TRACK,
            selection,
        });
    }

    pub(crate) fn send_data(&mut self, channel: Channel, message: &[u8]) {
        let connections = self.viewers.iter().map(|at| self.clients[*at].id).collect();
        self.command(Command::SendData {
            connections,
            channel,
            payload: message.into(),
        });
    }

    pub(crate) fn set_link(&mut self, link: Link) {
        self.link = link;
    }

    /// From now on a viewer's line from the shard carries so many bits per second, with a queue of
    /// [`QUEUE`].
    #[allow(dead_code, reason = "for tests/layers.rs")]
    pub(crate) fn narrow(&mut self, viewer: usize, bits_per_second: f64) {
        let at = self.viewers[viewer];
        self.clients[at].narrow = Some((bits_per_second, self.now));
    }

    pub(crate) fn stop_layer(&mut self, name: &str) {
        self.set_stopped(name, true);
    }

    /// Begins to send a layer again, with a keyframe.
    #[allow(dead_code, reason = "for tests/backup.rs")]
    pub(crate) fn start_layer(&mut self, name: &str) {
        self.set_stopped(name, false);
    }

    fn set_stopped(&mut self, name: &str, is_stopped: bool) {
        let named = self.encoders.iter_mut();
        for encoder in named.filter(|encoder| encoder.name == name) {
            encoder.is_stopped = is_stopped;
            encoder.wants_key |= !is_stopped;
        }
    }

    /// The last of what the shard told that is wanted of an encoding.
    #[allow(dead_code, reason = "for tests/backup.rs")]
    pub(crate) fn wanted(&self, of: Encoding) -> Option<Quality> {
        let mut told = self.events().iter().rev().filter_map(|event| match event {
            Event::LayersWanted {
                encoding, quality, ..
            } if *encoding == of => Some(*quality),
            _ => None,
        });
        told.next()?
    }

    pub(crate) fn cut(&mut self, viewer: usize) {
        let at = self.viewers[viewer];
        self.clients[at].is_cut = true;
    }

    pub(crate) fn heal(&mut self, viewer: usize) {
        let at = self.viewers[viewer];
        self.clients[at].is_cut = false;
    }

    pub(crate) fn noise(&mut self, first: u8, size: usize) {
        let mut bytes: Vec<u8> = (0..size).map(|_| self.random.random()).collect();
        if let Some(byte) = bytes.first_mut() {
            *byte = first;
        }
        let strangers: SocketAddr = "10.9.9.9:1".parse().unwrap();
        // From a stranger, and under the address of somebody known.
        for source in [strangers, self.clients[0].address] {
            let node = &mut self.nodes[self.home];
            node.shard.receive(self.now, source, node.address, &bytes);
            self.take_from_shard(self.home);
        }
    }

    pub(crate) fn received(&self, viewer: usize) -> &[RtpPacket] {
        &self.clients[self.viewers[viewer]].received
    }

    pub(crate) fn messages(&self, viewer: usize) -> &[Vec<u8>] {
        &self.clients[self.viewers[viewer]].messages
    }

    pub(crate) fn keyframe_requests(&self) -> usize {
        self.keyframe_requests
    }

    /// How often the publisher was asked again for packets of a layer.
    #[allow(dead_code, reason = "not for benches/hot.rs")]
    pub(crate) fn asked_again(&self, layer: &str) -> u64 {
        self.asked_again
            .get(&Rid::from(layer))
            .copied()
            .unwrap_or(0)
    }

    pub(crate) fn told(&self, is: impl Fn(&Event) -> bool) -> bool {
        self.events().iter().any(is)
    }

    /// What the shard says of a viewer's connection.
    #[allow(dead_code, reason = "not for benches/hot.rs")]
    pub(crate) fn account(&mut self, viewer: usize) -> Arc<Account> {
        let connection = self.clients[self.viewers[viewer]].id;
        self.account_of(connection)
            .expect("a viewer's connection is there")
    }

    /// What the shard says of the first client, who publishes.
    #[allow(dead_code, reason = "not for benches/hot.rs")]
    pub(crate) fn publishers_account(&mut self) -> Arc<Account> {
        self.account_of(self.clients[0].id)
            .expect("the publisher's connection is there")
    }

    #[allow(dead_code, reason = "not for benches/hot.rs")]
    pub(crate) fn account_of(&mut self, connection: ConnectionId) -> Option<Arc<Account>> {
        self.command(Command::Explain { connection });
        match self.nodes[self.home].events.pop() {
            Some(Event::Account {
                connection: of,
                account,
            }) if of == connection => account,
            other => panic!("no account, but {other:?}"),
        }
    }

    pub(crate) fn answers_name_track(&self) -> bool {
        self.last_answer
            .contains(&format!("a=msid:PA_1|{TRACK_NAME} {TRACK_NAME}"))
    }

    /// Reports how busy the shard's thread was, four times a second for a while.
    pub(crate) fn run_busy(&mut self, time: Duration, busy: u64) {
        let step = Duration::from_millis(250);
        for _ in 0..time.as_millis() / step.as_millis() {
            self.nodes[0].shard.set_busy(self.now, busy);
            self.run(step);
        }
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let clients = self.clients.iter().map(|client| client.deadline).min();
            let flight = self.flights.peek().map(|flight| flight.due);
            let next = [
                self.nodes.iter().map(|node| node.shard.deadline()).min(),
                clients,
                flight,
                Some(self.next_frame.min(self.next_decode)),
            ]
            .into_iter()
            .flatten()
            .min()
            .unwrap()
            .max(self.now);
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
            self.turn();
        }
    }

    fn turn(&mut self) {
        while self
            .flights
            .peek()
            .is_some_and(|flight| flight.due <= self.now)
        {
            let flight = self.flights.pop().unwrap();
            match flight.to {
                To::Node(at) => {
                    let node = &mut self.nodes[at];
                    let (source, address) = (flight.source, node.address);
                    if node.shard.is_late(self.waits, &flight.bytes) {
                        continue;
                    }
                    if self.is_measured {
                        let begin = Instant::now();
                        measured_receive(&mut node.shard, self.now, source, address, &flight.bytes);
                        self.spent += begin.elapsed();
                    } else {
                        node.shard.receive(self.now, source, address, &flight.bytes);
                    }
                    self.take_from_shard(at);
                }
                To::Client(at) => {
                    let client = &mut self.clients[at];
                    if let Ok(contents) = DatagramRecv::try_from(&flight.bytes[..]) {
                        let receive = Receive {
                            proto: Protocol::Udp,
                            source: flight.source,
                            destination: client.address,
                            contents,
                        };
                        client
                            .rtc
                            .handle_input(Input::Receive(self.now, receive))
                            .unwrap();
                        self.drain_client(at);
                    }
                }
            }
        }
        for at in 0..self.clients.len() {
            if self.clients[at].deadline <= self.now {
                self.clients[at]
                    .rtc
                    .handle_input(Input::Timeout(self.now))
                    .unwrap();
                self.drain_client(at);
            }
        }
        if self.next_frame <= self.now {
            self.next_frame = self.now + FRAME;
            self.encode();
        }
        if self.next_decode <= self.now {
            self.next_decode = self.now + DECODE;
            self.decode();
        }
        for at in 0..self.nodes.len() {
            let node = &mut self.nodes[at];
            if node.shard.deadline() > self.now {
                continue;
            }
            if self.is_measured {
                let begin = Instant::now();
                measured_advance(&mut node.shard, self.now);
                self.spent += begin.elapsed();
            } else {
                node.shard.advance(self.now);
            }
            self.take_from_shard(at);
        }
    }

    /// A viewer that can't decode asks for a keyframe, as browsers do.
    fn decode(&mut self) {
        for at in self.viewers.clone() {
            let client = &mut self.clients[at];
            let Some(last) = client.received.last() else {
                continue;
            };
            let shape = self.encoders.iter().find_map(|encoder| encoder.svc);
            let is_stuck = match shape {
                Some((shape, _)) => svc::Decoded::read(shape, &client.received).is_stuck,
                None => Reader::read(&client.received).is_stuck,
            };
            if is_stuck {
                let ssrc = last.header.ssrc;
                if let Some(stream) = client.rtc.direct_api().stream_rx(&ssrc) {
                    stream.request_keyframe(KeyframeRequestKind::Pli);
                }
                self.drain_client(at);
            }
        }
    }

    fn encode(&mut self) {
        for layer in 0..self.encoders.len() {
            let client = self.encoders[layer].client;
            if !self.clients[client].rtc.is_connected() {
                continue;
            }
            let is_key = std::mem::take(&mut self.encoders[layer].wants_key);
            self.encoders[layer].frame += 1;
            self.encoders[layer].timestamp = self.encoders[layer].timestamp.wrapping_add(2970);
            if self.encoders[layer].is_stopped {
                continue;
            }
            for part in self.encoders[layer].picture(is_key) {
                let encoder = &mut self.encoders[layer];
                let sequence = encoder.sequence;
                encoder.sequence += 1;
                let (mid, rid, timestamp) = (encoder.mid, encoder.rid, encoder.timestamp);
                let codec = match encoder.svc.map(|(shape, _)| shape.codec) {
                    Some(Codec::Vp9) => str0m::format::Codec::Vp9,
                    Some(Codec::Av1) => str0m::format::Codec::Av1,
                    _ => str0m::format::Codec::Vp8,
                };
                let rtc = &mut self.clients[client].rtc;
                let params = rtc.codec_config().params();
                let pt = params
                    .iter()
                    .find(|one| one.spec().codec == codec)
                    .unwrap()
                    .pt();
                let mut direct = rtc.direct_api();
                let Some(stream) = direct.stream_tx_by_mid(mid, rid) else {
                    continue;
                };
                let mut extensions = str0m::rtp::ExtensionValues {
                    mid: Some(mid),
                    rid,
                    ..Default::default()
                };
                if let Some(descriptor) = part.descriptor {
                    extensions.user_values.set(svc::Descriptor(descriptor));
                }
                let write = RtpWrite::new(pt, sequence.into(), timestamp, self.now, part.payload)
                    .marker(part.marker)
                    .ext_vals(extensions)
                    .nackable(true);
                if sequence < 65_540 {
                    stream.set_rtx_cache(1024, Duration::from_secs(3), Some(0.5));
                }
                stream.write_rtp(write);
                self.drain_client(client);
            }
        }
    }

    fn command(&mut self, command: Command) {
        self.nodes[self.home].shard.command(self.now, command);
        self.take_from_shard(self.home);
    }

    fn take_from_shard(&mut self, node: usize) {
        let mut bursts = Vec::new();
        let new = || Burst::new(BURST_BYTES, BURST_MESSAGES);
        let spare = &mut self.spare;
        let take = |_, burst: &mut Burst| {
            bursts.push(std::mem::replace(burst, spare.pop().unwrap_or_else(new)));
        };
        if self.is_measured {
            let begin = Instant::now();
            measured_flush(&mut self.nodes[node].shard, take);
            self.spent += begin.elapsed();
        } else {
            self.nodes[node].shard.flush(take);
        }
        let mut sent = Vec::new();
        for burst in &bursts {
            for message in burst.messages() {
                let contents = &burst.arena()[message.range()];
                let datagrams = contents.chunks(message.segment_size().max(1));
                sent.extend(datagrams.map(|datagram| (message.destination(), datagram.to_vec())));
            }
        }
        bursts.iter_mut().for_each(Burst::clear);
        self.spare.append(&mut bursts);
        let source = self.nodes[node].address;
        for (destination, datagram) in sent {
            let is_at = |client: &Client| client.address == destination;
            if let Some(at) = self.clients.iter().position(is_at) {
                self.fly(To::Client(at), source, datagram);
            } else {
                self.cross(node, destination, datagram);
            }
        }
        while let Some(event) = self.nodes[node].shard.poll_event() {
            self.told_by_shard(node, &event);
            self.nodes[node].events.push(event);
        }
    }

    /// A datagram goes over the line that leads to an address, if there is one.
    fn cross(&mut self, from: usize, destination: SocketAddr, bytes: Vec<u8>) {
        let nodes = &self.nodes;
        let mut source = nodes[from].address;
        let mut to = None;
        for line in &mut self.lines {
            let (upper, lower) = (line.upper.0, line.lower.0);
            let below = line.seen_as.unwrap_or(nodes[lower].address);
            if (upper, below) == (from, destination) {
                line.down.0 += 1;
                line.down.1 += bytes.len() as u64;
                to = Some((lower, line.link, line.is_cut));
            } else if (lower, nodes[upper].address) == (from, destination) {
                source = below;
                to = Some((upper, line.link, line.is_cut));
            }
        }
        if let Some((to, link, false)) = to {
            let usual = std::mem::replace(&mut self.link, link);
            self.fly(To::Node(to), source, bytes);
            self.link = usual;
        }
    }

    fn told_by_shard(&mut self, node: usize, event: &Event) {
        let home = std::mem::replace(&mut self.home, node);
        self.answer(event);
        self.home = home;
    }

    fn answer(&mut self, event: &Event) {
        match event {
            Event::Offer { connection, sdp } => {
                let at = self.at(*connection);
                if self.clients[at].is_cut {
                    return;
                }
                let offer = SdpOffer::from_sdp_string(sdp).unwrap();
                let answer = self.clients[at].rtc.sdp_api().accept_offer(offer).unwrap();
                self.drain_client(at);
                self.command(Command::Answer {
                    connection: *connection,
                    sdp: answer.to_sdp_string(),
                });
            }
            Event::Answer {
                connection, sdp, ..
            } => {
                let at = self.at(*connection);
                self.last_answer = sdp.clone();
                let answer = SdpAnswer::from_sdp_string(sdp).unwrap();
                let pending = self.clients[at].pending.take().unwrap();
                self.clients[at]
                    .rtc
                    .sdp_api()
                    .accept_answer(pending, answer)
                    .unwrap();
                self.drain_client(at);
            }
            Event::PlacesNeeded {
                connection,
                video: 1..,
                ..
            } => {
                let at = self.at(*connection);
                self.offer_places(at);
            }
            Event::Refused { connection, reason } => {
                let is_client = self.clients.iter().any(|client| client.id == *connection);
                assert!(!is_client, "refused: {reason}");
            }
            _ => {}
        }
    }

    fn at(&self, id: ConnectionId) -> usize {
        self.clients
            .iter()
            .position(|client| client.id == id)
            .unwrap()
    }

    fn fly(&mut self, to: To, source: SocketAddr, bytes: Vec<u8>) {
        let client = match to {
            To::Client(at) => Some(at),
            To::Node(_) => None,
        };
        let cut = client.is_some_and(|at| self.clients[at].is_cut);
        if cut || self.random.random_bool(self.link.loss) {
            return;
        }
        let copies = if self.random.random_bool(self.link.duplicates) {
            2
        } else {
            1
        };
        let mut waits = Duration::ZERO;
        if let Some(at) = client
            && let Some((rate, free)) = &mut self.clients[at].narrow
        {
            waits = free.saturating_duration_since(self.now);
            if waits > QUEUE {
                return;
            }
            waits += Duration::from_secs_f64(8.0 * (bytes.len() + 28) as f64 / *rate);
            *free = self.now + waits;
        }
        for _ in 0..copies {
            let jitter = self.link.jitter.mul_f64(self.random.random());
            let due = self.now + waits + self.link.delay + jitter;
            self.order += 1;
            let order = self.order;
            self.flights.push(Flight {
                due,
                order,
                to,
                source,
                bytes: bytes.clone(),
            });
        }
    }

    fn drain_client(&mut self, at: usize) {
        loop {
            let client = &mut self.clients[at];
            match client.rtc.poll_output().unwrap() {
                Output::Timeout(deadline) => {
                    if deadline > self.now {
                        client.deadline = deadline;
                        return;
                    }
                    client.rtc.handle_input(Input::Timeout(self.now)).unwrap();
                }
                Output::Transmit(transmit) => {
                    let (source, is_cut) = (client.address, client.is_cut);
                    let home = client.home;
                    if !is_cut {
                        self.fly(To::Node(home), source, transmit.contents.to_vec());
                    }
                }
                Output::Event(RtcEvent::RtpPacket(packet)) => client.received.push(packet),
                Output::Event(RtcEvent::ChannelOpen(id, _)) => client.channels.push(id),
                Output::Event(RtcEvent::ChannelData(data)) => {
                    client.messages.push(data.data.clone())
                }
                Output::Event(RtcEvent::MediaEgressStats(stats)) => {
                    if let Some(layer) = stats.rid {
                        self.asked_again.insert(layer, stats.nacks);
                    }
                }
                Output::Event(RtcEvent::KeyframeRequest(request)) => {
                    self.keyframe_requests += 1;
                    for encoder in &mut self.encoders {
                        let asked = (request.mid, request.rid);
                        if encoder.client == at && (encoder.mid, encoder.rid) == asked {
                            encoder.wants_key = true;
                        }
                    }
                }
                Output::Event(_) => {}
            }
        }
    }
}

impl Encoder {
    /// The packets of its next picture.
    fn picture(&mut self, is_key: bool) -> Vec<svc::Part> {
        if let Some((shape, at)) = &mut self.svc {
            at.since_key = if is_key { 0 } else { at.since_key + 1 };
            at.picture = self.frame;
            at.tl0 = at
                .tl0
                .wrapping_add(u8::from(shape.temporal_of(at.since_key) == 0));
            return svc::picture(*shape, self.name, *at);
        }
        let part = |part| svc::Part {
            payload: vp8(self, is_key, part),
            marker: part + 1 == PACKETS_PER_FRAME,
            descriptor: None,
        };
        (0..PACKETS_PER_FRAME).map(part).collect()
    }
}

/// A VP8 packet whose content tells which layer, frame and part it is.
fn vp8(encoder: &Encoder, is_key: bool, part: u8) -> Vec<u8> {
    let starts = part == 0;
    let picture = encoder.frame as u16 & 0x7fff;
    let mut payload = vec![
        0x80 | if starts { 0x10 } else { 0 },
        0xf0,
        0x80 | (picture >> 8) as u8,
        picture as u8,
        encoder.frame as u8,
        encoder.frame as u8 & 0x1f,
        u8::from(!is_key),
        encoder.name.as_bytes()[0],
        part,
        u8::from(is_key),
    ];
    payload.extend(encoder.frame.to_be_bytes());
    payload.resize(600, 0x55);
    payload
}

/// What a decoder would make of a stream: it begins at a keyframe, and after a packet that never
/// came it waits for the next one.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    pub(crate) frames: usize,
    pub(crate) layers: Vec<String>,
    /// Packets that never came.
    pub(crate) gaps: usize,
    /// What no loss excuses.
    pub(crate) faults: Vec<String>,
    /// Nothing decodes until a keyframe.
    pub(crate) is_stuck: bool,
}

struct Seen {
    sequence: u64,
    time: u32,
    layer: u8,
    frame: u32,
    part: u8,
    picture: u16,
}

impl Seen {
    fn of(packet: &RtpPacket) -> (Seen, bool) {
        let bytes = &packet.payload;
        let seen = Seen {
            sequence: *packet.seq_no,
            time: packet.header.timestamp,
            layer: bytes[7],
            frame: u32::from_be_bytes(bytes[10..14].try_into().unwrap()),
            part: bytes[8],
            picture: u16::from_be_bytes([bytes[2] & 0x7f, bytes[3]]),
        };
        (seen, bytes[9] == 1)
    }
}

impl Reader {
    pub(crate) fn read(packets: &[RtpPacket]) -> Reader {
        // A subscription that came after another on the same m-line has an SSRC of its own.
        let ssrc = packets.last().map(|packet| packet.header.ssrc);
        let of_stream = |packet: &&RtpPacket| Some(packet.header.ssrc) == ssrc;
        let mut packets: Vec<&RtpPacket> = packets.iter().filter(of_stream).collect();
        packets.sort_by_key(|packet| *packet.seq_no);
        let mut read = Reader {
            is_stuck: true,
            ..Reader::default()
        };
        let mut before: Option<Seen> = None;
        for packet in packets {
            let (seen, is_key) = Seen::of(packet);
            let begins_anew = is_key && seen.part == 0;
            if let Some(before) = &before {
                read.follow(before, &seen, is_key);
            }
            if begins_anew {
                read.is_stuck = false;
            }
            let name = char::from(seen.layer).to_string();
            if !read.is_stuck && read.layers.last() != Some(&name) {
                read.layers.push(name);
                if !begins_anew {
                    read.fault(&seen, "layer changed without a keyframe");
                }
            }
            read.frames += usize::from(seen.part == 0 && !read.is_stuck);
            before = Some(seen);
        }
        read
    }

    fn fault(&mut self, at: &Seen, what: &str) {
        self.faults.push(format!("{}: {what}", at.sequence));
    }

    fn follow(&mut self, before: &Seen, seen: &Seen, is_key: bool) {
        let missing = (seen.sequence - before.sequence - 1) as usize;
        let step = seen.time.wrapping_sub(before.time) as i32;
        let is_same_frame = seen.layer == before.layer && seen.frame == before.frame;
        if is_same_frame && (step != 0 || seen.picture != before.picture) {
            self.fault(seen, "a frame has two times or pictures");
        }
        if !is_same_frame && step <= 0 {
            self.fault(seen, "time went back");
        }
        if missing > 0 {
            self.gaps += missing;
            self.is_stuck = true;
            return;
        }
        if is_same_frame && seen.part != before.part + 1 {
            self.fault(seen, "a frame fell apart");
        }
        if !is_same_frame {
            if seen.picture != (before.picture + 1) & 0x7fff {
                self.fault(seen, "the picture id jumped");
            }
            if seen.part != 0
                || (seen.layer == before.layer && before.part + 1 != PACKETS_PER_FRAME)
            {
                self.fault(seen, "a frame is not whole");
            }
            if seen.layer == before.layer && seen.frame != before.frame + 1 && !is_key {
                self.fault(seen, "a frame that this one needs was left out");
            }
        }
    }
}
