//! A shard with everybody of a scene, on a virtual clock: senders' packets go in, what leaves crosses
//! each watcher's line, and what watchers tell comes back.

use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use str0m::rtp::{ExtensionValues, RtpHeader};
use udp_batch::Burst;

use super::scene::{Camera, STRETCH, STRETCHES, Scene};
use super::svc::{Position, Shape, picture};
use super::tally::{Sent, Tally};
use super::viewer::{CLOCK, Kind, Opened, Viewer, offer};
use crate::command::{
    Codec, Command, ConnectionId, Event, Publication, Quality, Role, TrackId, TrackKind,
};
use crate::fuzzing::plain;
use crate::peer::{Bound, codec_of, describe};
use crate::shard::{Shard, ShardConfig};

const SERVER: ([u8; 4], u16) = ([10, 0, 0, 1], 7882);

/// The first connections are senders'; watchers' come from here on.
const WATCHERS: u64 = 100;

/// How long a sender's packets take.
const UPLINK: Duration = Duration::from_millis(20);

/// Signalling tells senders of less only after so long.
const TOLD_LATER: Duration = Duration::from_secs(6);

/// How often watchers look what there is to tell.
const TICK: Duration = Duration::from_millis(10);

/// Between two packets of sound, and the bytes of one.
const SOUND_EVERY: Duration = Duration::from_millis(20);
const SOUND_BYTES: usize = 80;

/// Who is silent sends one of so many packets.
const SILENT: u32 = 20;

/// What is measured is measured so often.
pub(super) const SAMPLE: Duration = Duration::from_millis(100);

/// One stream of a sender.
struct Encoder {
    ssrc: u32,
    name: &'static str,
    shape: Option<Shape>,
    position: Position,
    sequence: u64,
    timestamp: u32,
    wants_key: bool,
    asked: Option<Instant>,
    /// Nothing is sent before this, while signalling says so.
    is_stopped: bool,
}

/// A track with its streams.
struct Source {
    track: TrackId,
    owner: usize,
    /// Among the pictures; `None`: sound.
    picture: Option<usize>,
    camera: Option<Camera>,
    encoders: Vec<Encoder>,
    every: Duration,
    payload_type: u8,
    /// The best that anybody gets, as it was told, and what will be told when.
    wanted: Option<Quality>,
    later: Option<(Instant, Option<Quality>)>,
}

enum What {
    Frame(usize),
    /// To the shard.
    Media(usize, Box<(u64, RtpHeader, Arc<[u8]>)>),
    /// To a watcher; when it left.
    Down(usize, Instant, Box<(Kind, Opened)>),
    Report(usize, Vec<u8>),
    Up(usize, Vec<u8>),
    Tick(usize),
    Sample,
    Stretch(usize),
}

struct Due {
    at: Instant,
    order: u64,
    what: What,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Due {}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

pub(super) struct Stage {
    pub(super) shard: Shard,
    scene: Scene,
    pub(super) begin: Instant,
    pub(super) now: Instant,
    due: BinaryHeap<Due>,
    order: u64,
    random: StdRng,
    sources: Vec<Source>,
    pub(super) viewers: Vec<Viewer>,
    pub(super) tallies: Vec<Tally>,
    stretch: usize,
    answers: Vec<(String, Vec<(String, String)>)>,
}

fn header(
    source: &Source,
    encoder: &Encoder,
    marker: bool,
    extensions: ExtensionValues,
) -> RtpHeader {
    RtpHeader {
        version: 2,
        has_padding: false,
        has_extension: true,
        csrc_count: 0,
        marker,
        payload_type: source.payload_type.into(),
        sequence_number: encoder.sequence as u16,
        timestamp: encoder.timestamp,
        ssrc: encoder.ssrc.into(),
        csrc: [0; 15],
        ext_vals: extensions,
        header_len: 20,
    }
}

/// Whether a packet is above what held when it was new.
fn is_filling(shard: &Shard, viewer: &Viewer, kind: Kind, opened: &Opened) -> bool {
    let (at, number) = match kind {
        Kind::Padding => return false,
        Kind::Media(at) => (at, opened.index as u16),
        Kind::Repair(at) => (
            at,
            u16::from_be_bytes([opened.payload[0], opened.payload[1]]),
        ),
    };
    let track = &shard.tracks[&viewer.streams[at].track];
    let Some(one) = track.of(viewer.connection) else {
        return false;
    };
    let Some((deltas, source)) = one.rewrite.source_of(number) else {
        return false;
    };
    let layer = deltas.source.layer;
    let packet = track.layers[layer].recent.get(source);
    let is_above =
        packet.is_some_and(|packet| !one.filter.held(source).admits(packet.standing.indices));
    one.current == Some(layer) && is_above
}

impl Stage {
    pub(super) fn new(scene: Scene, seed: u64) -> Stage {
        let begin = Instant::now();
        let config = ShardConfig {
            candidates: vec![SERVER.into()],
        };
        let mut stage = Stage {
            shard: Shard::new(config, begin),
            begin,
            now: begin,
            due: BinaryHeap::new(),
            order: 0,
            random: StdRng::seed_from_u64(seed ^ 0x5eed),
            sources: Vec::new(),
            viewers: Vec::new(),
            tallies: Vec::new(),
            stretch: 0,
            answers: Vec::new(),
            scene,
        };
        plain::without_handshake(true);
        stage.publish();
        stage.watch(seed);
        plain::without_handshake(false);
        stage
    }

    fn publish(&mut self) {
        let mut pictures = 0;
        for owner in 0..self.scene.senders.len() {
            let connection = ConnectionId(owner as u64);
            self.command(Command::Open {
                connection,
                role: Role::Publish,
                takes_rsa: false,
            });
            let cameras = self.scene.senders[owner].pictures.clone();
            for camera in cameras {
                self.add_source(owner, Some((pictures, camera)));
                pictures += 1;
            }
            if self.scene.senders[owner].has_sound {
                self.add_source(owner, None);
            }
        }
    }

    fn add_source(&mut self, owner: usize, camera: Option<(usize, Camera)>) {
        let connection = ConnectionId(owner as u64);
        let track = TrackId(self.sources.len() as u64);
        let (picture, camera) = camera.unzip();
        let kind = if camera.is_some() {
            TrackKind::Video
        } else {
            TrackKind::Audio
        };
        let layers: Vec<(&'static str, Option<Shape>)> = match &camera {
            Some(camera) => camera
                .layers
                .iter()
                .map(|(name, shape)| (*name, Some(*shape)))
                .collect(),
            None => vec![("f", None)],
        };
        let codec = layers[0].1.map_or(Codec::Opus, |shape| shape.codec);
        self.command(Command::Publish {
            connection,
            track,
            publication: Publication {
                cid: track.0.to_string(),
                kind,
                codecs: vec![codec],
                layers: Vec::new(),
                is_red_allowed: false,
                is_screen: camera.as_ref().is_some_and(|camera| camera.is_screen),
                backup: None,
            },
        });
        let rids = if layers.len() > 1 {
            layers.iter().map(|(name, _)| (*name).into()).collect()
        } else {
            Vec::new()
        };
        self.shard.bind(vec![Bound {
            encoding: crate::command::Encoding::Primary,
            track,
            mid: track.0.to_string().as_str().into(),
            codec,
            rids,
        }]);
        let peer = self.shard.peers.get_mut(&connection).expect("it is open");
        let is_of = |payload_type: &u8| {
            let found = peer.received_as((*payload_type).into());
            found.is_some_and(|(params, is_red)| !is_red && codec_of(&params) == Some(codec))
        };
        let payload_type = (0..128).find(is_of).expect("all codecs are there");
        let mut encoders = Vec::new();
        for (at, (name, shape)) in layers.into_iter().enumerate() {
            let ssrc = 1000 + 10 * track.0 as u32 + at as u32;
            peer.sources.push((ssrc.into(), track, at));
            let state = &mut self
                .shard
                .tracks
                .get_mut(&track)
                .expect("it is there")
                .layers[at];
            state.begin(ssrc.into());
            encoders.push(Encoder {
                ssrc,
                name,
                shape,
                position: Position::default(),
                sequence: self.random.random_range(60_000..66_000),
                timestamp: self.random.random(),
                wants_key: true,
                asked: None,
                is_stopped: false,
            });
        }
        let every = camera.as_ref().map_or(SOUND_EVERY, |camera| {
            Duration::from_secs(1) / camera.frame_rate
        });
        let first = self.now + every.mul_f64(self.random.random());
        self.plan(first, What::Frame(self.sources.len()));
        self.sources.push(Source {
            track,
            owner,
            picture,
            camera,
            encoders,
            every,
            payload_type,
            wanted: Some(Quality::High),
            later: None,
        });
    }

    fn watch(&mut self, seed: u64) {
        for at in 0..self.scene.watchers.len() {
            let connection = ConnectionId(WATCHERS + at as u64);
            self.command(Command::Open {
                connection,
                role: Role::Single,
                takes_rsa: false,
            });
            let watcher = self.scene.watchers[at].clone();
            for source in 0..self.sources.len() {
                let Source { track, picture, .. } = self.sources[source];
                let first = watcher.wishes[0].first().copied();
                let selection = picture.map_or(first, |at| Some(watcher.wishes[0][at]));
                self.command(Command::Subscribe {
                    connection,
                    track,
                    stream_name: format!("PA{}", self.sources[source].owner),
                    track_name: track.0.to_string(),
                    selection: selection.expect("there is a picture"),
                });
            }
            let videos = self.sources.iter().filter(|one| one.picture.is_some());
            let videos = videos.count();
            let sdp = offer(&format!("view{at}"), videos, self.sources.len() - videos);
            self.command(Command::Offer { connection, sdp });
            let (answer, mids) = self.answers.pop().expect("a right offer is answered");
            let places: Vec<(String, TrackId)> = mids
                .into_iter()
                .map(|(mid, name)| (mid, TrackId(name.parse().expect("a number"))))
                .collect();
            let sources = &self.sources;
            let shape_of = |track: TrackId| sources[track.0 as usize].encoders[0].shape;
            let seed = seed.wrapping_mul(31) + at as u64;
            let viewer = Viewer::new(
                at,
                connection,
                (&answer, &places),
                shape_of,
                (watcher, seed),
                self.now,
            );
            let check = viewer.check();
            let address = viewer.address;
            self.tallies
                .push(Tally::new(viewer.streams.len(), self.now));
            self.viewers.push(viewer);
            self.receive(address, &check);
            self.plan(self.now, What::Tick(at));
        }
        self.begin_stretch(0);
        self.plan(self.now + SAMPLE, What::Sample);
        for stretch in 1..STRETCHES {
            let at = self.now + Duration::from_secs_f64(STRETCH * stretch as f64);
            self.plan(at, What::Stretch(stretch));
        }
    }

    fn plan(&mut self, at: Instant, what: What) {
        self.order += 1;
        self.due.push(Due {
            at,
            order: self.order,
            what,
        });
    }

    /// Seconds since the beginning.
    pub(super) fn seconds(&self) -> f64 {
        (self.now - self.begin).as_secs_f64()
    }

    /// Plays the whole scene.
    pub(super) fn run(&mut self) {
        self.run_until(STRETCH * STRETCHES as f64);
    }

    pub(super) fn run_until(&mut self, seconds: f64) {
        let end = self.begin + Duration::from_secs_f64(seconds);
        loop {
            let shard = self.shard.deadline().max(self.now);
            let next = self.due.peek().map_or(end, |due| due.at);
            if shard.min(next) >= end {
                self.now = end;
                return;
            }
            if shard <= next {
                self.now = shard;
                self.shard.advance(self.now);
                self.take();
            } else if let Some(due) = self.due.pop() {
                self.now = due.at;
                self.play(due.what);
            }
        }
    }

    fn play(&mut self, what: What) {
        match what {
            What::Frame(source) => self.frame(source),
            What::Media(owner, packet) => {
                let (sequence, header, payload) = *packet;
                let owner = ConnectionId(owner as u64);
                self.shard.now = self.now;
                self.shard
                    .packet(owner, sequence, &header, payload, self.now);
                self.shard.settle(self.now);
                self.take();
            }
            What::Down(at, left, opened) => {
                let micros = (self.now - self.begin).as_micros() as i64 + CLOCK;
                let took = (self.now - left).as_secs_f64();
                self.viewers[at].arrived(self.now, micros, *opened, took);
            }
            What::Report(at, datagram) => self.viewers[at].report(self.now, &datagram),
            What::Up(at, datagram) => self.receive(self.viewers[at].address, &datagram),
            What::Tick(at) => {
                let delay = self.viewers[at].way.line.delay_milliseconds;
                for datagram in self.viewers[at].tick(self.now) {
                    let arrives = self.now + Duration::from_secs_f64(delay / 1000.0);
                    self.plan(arrives, What::Up(at, datagram));
                }
                self.plan(self.now + TICK, What::Tick(at));
            }
            What::Sample => {
                self.sample();
                self.plan(self.now + SAMPLE, What::Sample);
            }
            What::Stretch(stretch) => self.begin_stretch(stretch),
        }
    }

    fn begin_stretch(&mut self, stretch: usize) {
        self.stretch = stretch;
        for at in 0..self.viewers.len() {
            let viewer = &mut self.viewers[at];
            let (loss, jitter) = viewer.watcher.unrest[stretch];
            (viewer.way.line.loss, viewer.way.line.jitter) = (loss, jitter);
            let connection = viewer.connection;
            let wishes = viewer.watcher.wishes[stretch].clone();
            for place in 0..self.viewers[at].streams.len() {
                self.viewers[at].streams[place].shown = self.now;
                let track = self.viewers[at].streams[place].track;
                let Some(picture) = self.sources[track.0 as usize].picture else {
                    continue;
                };
                self.command(Command::Select {
                    connection,
                    track,
                    selection: wishes[picture],
                });
            }
            let now = self.now;
            self.tallies[at].begin_stretch(now);
        }
    }

    /// A picture, or a packet of sound.
    fn frame(&mut self, at: usize) {
        let now = self.now;
        self.plan(now + self.sources[at].every, What::Frame(at));
        if let Some((when, quality)) = self.sources[at].later
            && when <= now
        {
            self.sources[at].later = None;
            self.told(at, quality);
        }
        let source = &mut self.sources[at];
        let liveliness = source
            .picture
            .map_or(1.0, |picture| self.scene.liveliness[self.stretch][picture]);
        let mut packets: Vec<(u64, RtpHeader, Arc<[u8]>)> = Vec::new();
        for layer in 0..source.encoders.len() {
            let state = &mut self
                .shard
                .tracks
                .get_mut(&source.track)
                .expect("it is there")
                .layers[layer];
            let encoder = &mut source.encoders[layer];
            let clock = if source.picture.is_some() {
                90_000.0
            } else {
                48_000.0
            };
            let ticks = (source.every.as_secs_f64() * clock).round() as u32;
            encoder.timestamp = encoder.timestamp.wrapping_add(ticks);
            if let Some(asked) = state.keyframe_asked()
                && now >= asked + self.scene.keyframe_after
                && encoder.asked != Some(asked)
            {
                encoder.asked = Some(asked);
                encoder.wants_key = true;
            }
            if encoder.is_stopped {
                continue;
            }
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
            state.report = Some((time + (now - self.begin), encoder.timestamp, now));
            let Some(shape) = encoder.shape else {
                let is_loud = self.scene.speakers[self.stretch] == source.owner;
                // Who is silent sends now and then only.
                if !is_loud && !(encoder.timestamp / ticks).is_multiple_of(SILENT) {
                    continue;
                }
                let extensions = ExtensionValues {
                    audio_level: Some(if is_loud { -20 } else { -90 }),
                    ..ExtensionValues::default()
                };
                let payload = vec![1; SOUND_BYTES].into();
                let encoder = &source.encoders[layer];
                packets.push((
                    encoder.sequence,
                    header(source, encoder, false, extensions),
                    payload,
                ));
                source.encoders[layer].sequence += 1;
                continue;
            };
            let is_key = std::mem::take(&mut encoder.wants_key);
            let position = &mut encoder.position;
            position.picture += 1;
            position.since_key = if is_key { 0 } else { position.since_key + 1 };
            let temporal = shape.temporal_of(position.since_key);
            position.tl0 = position.tl0.wrapping_add(u8::from(temporal == 0));
            // Lower temporal layers have more to say.
            let weight = match (shape.temporal, temporal) {
                (1, _) => 1.0,
                (_, 0) => 1.5,
                (_, 1) => 1.0,
                _ => 0.75,
            };
            let noise: f64 = self.random.random_range(0.8..1.2);
            let size = shape.size as f64 * weight * liveliness * noise;
            let shape = Shape {
                size: (size as usize).clamp(40, 1200),
                ..shape
            };
            let parts = picture(shape, encoder.name, encoder.position);
            for part in parts {
                let mut extensions = ExtensionValues::default();
                if let Some(descriptor) = part.descriptor {
                    describe(&mut extensions, descriptor);
                }
                let encoder = &source.encoders[layer];
                packets.push((
                    encoder.sequence,
                    header(source, encoder, part.marker, extensions),
                    part.payload.into(),
                ));
                source.encoders[layer].sequence += 1;
            }
        }
        let owner = source.owner;
        for (order, packet) in packets.into_iter().enumerate() {
            let is_late = self.random.random_bool(self.scene.late);
            let late = if is_late {
                Duration::from_millis(self.random.random_range(20..120))
            } else {
                Duration::ZERO
            };
            let arrives = now + UPLINK + Duration::from_micros(50 * order as u64) + late;
            self.plan(arrives, What::Media(owner, Box::new(packet)));
        }
    }

    /// Signalling tells a sender what somebody gets: more at once, less later.
    fn layers_wanted(&mut self, track: TrackId, quality: Option<Quality>) {
        let at = track.0 as usize;
        if !self.sources[at]
            .camera
            .as_ref()
            .is_some_and(|camera| camera.is_told)
        {
            return;
        }
        if quality >= self.sources[at].wanted {
            self.sources[at].later = None;
            self.told(at, quality);
        } else {
            self.sources[at].later = Some((self.now + TOLD_LATER, quality));
        }
    }

    fn told(&mut self, at: usize, quality: Option<Quality>) {
        let source = &mut self.sources[at];
        source.wanted = quality;
        let is_simulcast = source.encoders.len() > 1;
        let all = [Quality::Low, Quality::Medium, Quality::High];
        for (layer, encoder) in source.encoders.iter_mut().enumerate() {
            let needs = if is_simulcast {
                all[layer]
            } else {
                Quality::Low
            };
            let is_stopped = quality.is_none_or(|quality| quality < needs);
            // What begins again does so with a keyframe.
            encoder.wants_key |= encoder.is_stopped && !is_stopped;
            encoder.is_stopped = is_stopped;
        }
    }

    fn command(&mut self, command: Command) {
        self.shard.command(self.now, command);
        self.take();
    }

    fn receive(&mut self, from: SocketAddr, datagram: &[u8]) {
        self.shard.receive(self.now, from, SERVER.into(), datagram);
        self.take();
    }

    /// Takes everything that the shard gives.
    fn take(&mut self) {
        let mut left = Vec::new();
        self.shard.flush(|_, burst: &mut Burst| {
            for message in burst.messages() {
                let contents = &burst.arena()[message.range()];
                let datagrams = contents.chunks(message.segment_size().max(1));
                left.extend(datagrams.map(|one| (message.destination(), one.to_vec())));
            }
        });
        let mut sent: HashMap<(usize, usize), bool> = HashMap::new();
        for (destination, datagram) in left {
            let is_at = |viewer: &Viewer| viewer.address == destination;
            let Some(at) = self.viewers.iter().position(is_at) else {
                continue;
            };
            self.fly(at, datagram, &mut sent);
        }
        while let Some(event) = self.shard.poll_event() {
            match event {
                Event::Answer { sdp, mids, .. } => self.answers.push((sdp, mids)),
                Event::LayersWanted { track, quality, .. } => self.layers_wanted(track, quality),
                Event::Paused {
                    connection,
                    track,
                    is_paused,
                    ..
                } => {
                    let at = (connection.0 - WATCHERS) as usize;
                    let Some(viewer) = self.viewers.get_mut(at) else {
                        continue;
                    };
                    for stream in &mut viewer.streams {
                        if stream.track == track {
                            stream.is_paused = is_paused;
                            stream.shown = self.now;
                        }
                    }
                }
                Event::Refused { reason, .. } => panic!("refused: {reason}"),
                Event::Closed { reason, .. } => panic!("closed: {reason}"),
                _ => {}
            }
        }
        for ((at, stream), was_paused) in sent {
            let viewer = &mut self.viewers[at];
            if was_paused && viewer.streams[stream].is_paused {
                viewer.faults.push("sent what was told to be paused".into());
            }
        }
    }

    fn fly(&mut self, at: usize, datagram: Vec<u8>, sent: &mut HashMap<(usize, usize), bool>) {
        let viewer = &mut self.viewers[at];
        let delay = Duration::from_secs_f64(viewer.way.line.delay_milliseconds / 1000.0);
        match *datagram {
            [128..=191, 192..=223, ..] => {
                self.plan(self.now + delay, What::Report(at, datagram));
                return;
            }
            [128..=191, ..] => {}
            _ => return,
        }
        let Some((kind, mut opened)) = viewer.open(&datagram) else {
            return;
        };
        opened.is_filling = is_filling(&self.shard, viewer, kind, &opened);
        if let Kind::Media(stream) = kind {
            sent.insert((at, stream), viewer.streams[stream].is_paused);
        }
        let is_sound = match kind {
            Kind::Media(stream) => {
                let track = viewer.streams[stream].track;
                self.sources[track.0 as usize].picture.is_none()
            }
            _ => false,
        };
        let seconds = (self.now - self.begin).as_secs_f64();
        let arrives = viewer.way.carry(seconds, opened.length);
        self.tallies[at].sent(Sent {
            kind,
            is_sound,
            bytes: opened.length + crate::estimate::OVERHEAD,
            has_come: arrives.is_some(),
        });
        if let Some(arrives) = arrives {
            let arrives = self.begin + Duration::from_secs_f64(arrives);
            let left = self.now;
            self.plan(arrives, What::Down(at, left, Box::new((kind, opened))));
        }
    }

    fn sample(&mut self) {
        let seconds = self.seconds();
        for at in 0..self.viewers.len() {
            let viewer = &self.viewers[at];
            self.tallies[at].sample(&self.shard, viewer, (self.now, seconds));
        }
    }
}
