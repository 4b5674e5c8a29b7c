//! Who watches, as a browser does: opens what comes, misses what does not, tells when what came, plays
//! pictures and asks for a keyframe where they stand still.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::scene::Watcher;
use super::svc::{Decoded, Seen, Shape};
use crate::command::{ConnectionId, TrackId};
use crate::estimate::write_arrivals;
use crate::fuzzing::plain;
use crate::line::Way;
use crate::srtp::Keys;

/// A picture that stands still for so long because a packet is missing is given up for a keyframe.
const PATIENCE: Duration = Duration::from_millis(1000);

/// Between two requests for a keyframe of one picture.
const ASKS_EVERY: Duration = Duration::from_millis(500);

/// What is missing is asked for so many times, and no longer than this.
const TRIES: u32 = 10;
const MISSED_FOR: Duration = Duration::from_millis(1500);

/// The clock by which it tells when what came, in microseconds at the beginning.
pub(super) const CLOCK: i64 = 77_000_000;

/// Connectivity checks and reports.
const CHECKS_EVERY: Duration = Duration::from_millis(2500);
const REPORTS_EVERY: Duration = Duration::from_millis(1000);

/// A datagram of media, opened.
#[derive(Clone, Debug)]
pub(super) struct Opened {
    /// Extended sequence number.
    pub(super) index: u64,
    timestamp: u32,
    marker: bool,
    /// It came too late to be left out, and goes on for its number.
    pub(super) is_filling: bool,
    transport: Option<u16>,
    pub(super) payload: Vec<u8>,
    pub(super) length: usize,
}

/// What is shown of one camera.
struct Player {
    shape: Shape,
    decoded: Decoded,
    /// `None`: what came too late to be left out, and only fills its number.
    waiting: BTreeMap<u64, Option<Seen>>,
    next: Option<u64>,
    stuck_since: Option<Instant>,
    asked: Option<Instant>,
}

impl Player {
    fn take(&mut self, index: u64, seen: Option<Seen>) {
        if self.next.is_none_or(|next| index >= next) {
            self.waiting.insert(index, seen);
        }
    }

    /// The length of the whole picture that begins at a number, in packets.
    fn whole(&self, first: u64) -> Option<u64> {
        let mut expected = first;
        for (sequence, seen) in self.waiting.range(first..) {
            if *sequence != expected {
                return None;
            }
            expected += 1;
            if seen.as_ref().is_some_and(|seen| seen.marker) {
                return Some(expected - first);
            }
        }
        None
    }

    /// A whole keyframe later than `next`.
    fn keyframe(&self) -> Option<u64> {
        let mut all = self
            .waiting
            .iter()
            .filter(|(_, seen)| seen.as_ref().is_some_and(Seen::begins_keyframe));
        all.find(|(sequence, _)| self.whole(**sequence).is_some())
            .map(|(sequence, _)| *sequence)
    }

    /// The length of a picture within which its stream was stopped, before a keyframe.
    fn cut(&self, first: u64) -> Option<u64> {
        let mut time = None;
        for (expected, (sequence, seen)) in (first..).zip(self.waiting.range(first..)) {
            if *sequence != expected {
                return None;
            }
            let Some(seen) = seen else {
                continue;
            };
            if *time.get_or_insert(seen.time) != seen.time {
                return seen.begins_keyframe().then_some(expected - first);
            }
            if seen.marker {
                return None;
            }
        }
        None
    }

    /// Whether the first packet from a number on is a keyframe's.
    fn is_key(&self, from: u64) -> bool {
        let mut seen = self
            .waiting
            .range(from..)
            .filter_map(|(_, seen)| seen.as_ref());
        seen.next().is_some_and(|seen| seen.since_key == 0)
    }

    /// Plays all that can be; how many pictures.
    fn play(&mut self) -> usize {
        let before = self.decoded.shown.len();
        loop {
            if let Some(next) = self.next
                && let Some(length) = self.cut(next)
            {
                self.waiting = self.waiting.split_off(&(next + length));
                self.next = Some(next + length);
                self.decoded.forget_numbers();
            }
            if let Some(next) = self.next
                && let Some(length) = self.whole(next)
                && (!self.decoded.is_stuck || self.is_key(next))
            {
                let later = self.waiting.split_off(&(next + length));
                let packets = std::mem::replace(&mut self.waiting, later).into_values();
                let picture: Vec<Seen> = packets.flatten().collect();
                if picture.len() as u64 != length {
                    self.decoded.forget_numbers();
                }
                self.decoded.picture(self.shape, &picture);
                self.next = Some(next + length);
                self.stuck_since = None;
                continue;
            }
            let Some(keyframe) = self.keyframe() else {
                break;
            };
            if let Some(next) = self.next {
                self.decoded.gap((keyframe - next) as usize);
            }
            self.waiting = self.waiting.split_off(&keyframe);
            self.next = Some(keyframe);
        }
        self.decoded.shown.len() - before
    }

    /// Whether a keyframe is asked for now.
    fn asks(&mut self, now: Instant) -> bool {
        if self.waiting.is_empty() {
            self.stuck_since = None;
            return false;
        }
        let since = *self.stuck_since.get_or_insert(now);
        let asks = now - since >= PATIENCE && self.asked.is_none_or(|at| now - at >= ASKS_EVERY);
        if asks {
            self.asked = Some(now);
            self.decoded.is_stuck = true;
        }
        asks
    }
}

/// What is received on one m-line.
pub(super) struct Stream {
    pub(super) track: TrackId,
    ssrc: u32,
    rtx: Option<u32>,
    /// `None`: sound.
    player: Option<Player>,
    /// What left the shard, and the lowest and highest number of it.
    left: HashSet<u64>,
    left_range: Option<(u64, u64)>,
    newest: Option<u64>,
    /// Since when it is missed, when it was asked for, and how often.
    missing: BTreeMap<u64, (Instant, Option<Instant>, u32)>,
    expected: u32,
    received: u32,
    /// The middle of the last sender report's time, and when it came.
    report: Option<(u32, Instant)>,
    pub(super) is_paused: bool,
    /// The last picture, or since when there could be one.
    pub(super) shown: Instant,
    pub(super) pictures: usize,
    /// Sound that came within [`IN_TIME`], and all that left.
    pub(super) in_time: usize,
    pub(super) sent: usize,
}

/// Sound that waits longer is late for its jitter buffer.
const IN_TIME: f64 = 0.15;

/// What a datagram is, and of which stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Media(usize),
    Repair(usize),
    Padding,
}

pub(super) struct Viewer {
    pub(super) connection: ConnectionId,
    pub(super) address: SocketAddr,
    user: String,
    password: String,
    name: String,
    keys: Keys,
    /// Opens what leaves.
    ours: Keys,
    pub(super) streams: Vec<Stream>,
    pub(super) watcher: Watcher,
    pub(super) way: Way,
    highest: HashMap<u32, u64>,
    /// Of transport-wide numbers: when each came that was not told yet, the newest that came, and
    /// up to where was told.
    came: BTreeMap<u64, i64>,
    transport: Option<u64>,
    told: u64,
    next: [Instant; 3],
    pub(super) faults: Vec<String>,
}

/// The description of a viewer's places.
pub(super) fn offer(name: &str, videos: usize, sounds: usize) -> String {
    let count = videos + sounds;
    let mids: Vec<String> = (0..count).map(|mid| mid.to_string()).collect();
    let mut sdp = format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\na=extmap-allow-mixed\r\n",
        mids.join(" ")
    );
    let transport = format!(
        "a=recvonly\r\na=ice-ufrag:{name}\r\na=ice-pwd:passwordpasswordpassword\r\n\
         a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n\
         a=setup:actpass\r\na=rtcp-mux\r\na=rtcp-rsize\r\n\
         a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
         a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n"
    );
    for mid in 0..count {
        if mid < videos {
            sdp += "m=video 9 UDP/TLS/RTP/SAVPF 96 97 98 99 45 46\r\n";
        } else {
            sdp += "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n";
        }
        sdp += &format!("c=IN IP4 0.0.0.0\r\na=mid:{mid}\r\n{transport}");
        if mid < videos {
            sdp += "a=extmap:9 https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension\r\n";
            for (media, repair, codec) in [(96, 97, "VP8"), (98, 99, "VP9"), (45, 46, "AV1")] {
                sdp += &format!(
                    "a=rtpmap:{media} {codec}/90000\r\na=rtcp-fb:{media} transport-cc\r\na=rtcp-fb:{media} nack\r\n\
                     a=rtcp-fb:{media} nack pli\r\na=rtpmap:{repair} rtx/90000\r\na=fmtp:{repair} apt={media}\r\n"
                );
            }
        } else {
            sdp += "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n\
                    a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\na=rtcp-fb:111 transport-cc\r\n";
        }
    }
    sdp
}

fn attribute<'a>(sdp: &'a str, name: &str) -> Option<&'a str> {
    sdp.lines().find_map(|line| line.strip_prefix(name))
}

/// The extended number nearest to the newest.
fn extended(newest: u64, low: u16) -> u64 {
    let ahead = low.wrapping_sub(newest as u16) as i16;
    newest.saturating_add_signed(i64::from(ahead))
}

impl Stream {
    pub(super) fn is_sound(&self) -> bool {
        self.player.is_none()
    }
}

impl Viewer {
    /// By our answer, and which track is in which place.
    pub(super) fn new(
        at: usize,
        connection: ConnectionId,
        (answer, places): (&str, &[(String, TrackId)]),
        shape_of: impl Fn(TrackId) -> Option<Shape>,
        (watcher, seed): (Watcher, u64),
        now: Instant,
    ) -> Viewer {
        let mut streams = Vec::new();
        for section in answer.split("m=").skip(1) {
            let mid = attribute(section, "a=mid:").expect("a name");
            let Some((_, track)) = places.iter().find(|(of, _)| of == mid) else {
                continue;
            };
            let number = |text: &str| text.split(' ').next()?.parse().ok();
            let ssrc = attribute(section, "a=ssrc:").and_then(number);
            let rtx = attribute(section, "a=ssrc-group:FID ")
                .and_then(|pair| pair.split(' ').nth(1)?.parse().ok());
            streams.push(Stream {
                track: *track,
                ssrc: ssrc.expect("an SSRC"),
                rtx,
                player: shape_of(*track).map(|shape| Player {
                    shape,
                    decoded: Decoded::new(),
                    waiting: BTreeMap::new(),
                    next: None,
                    stuck_since: None,
                    asked: None,
                }),
                left: HashSet::new(),
                left_range: None,
                newest: None,
                missing: BTreeMap::new(),
                expected: 0,
                received: 0,
                report: None,
                is_paused: false,
                shown: now,
                pictures: 0,
                in_time: 0,
                sent: 0,
            });
        }
        let keys = |is_client| {
            Keys::new(plain::PROFILE, &plain::material(), is_client).expect("its length")
        };
        Viewer {
            connection,
            address: SocketAddr::from(([10, 0, 1, at as u8 + 1], 5000)),
            user: attribute(answer, "a=ice-ufrag:").expect("a user").into(),
            password: attribute(answer, "a=ice-pwd:").expect("a password").into(),
            name: format!("view{at}"),
            keys: keys(true),
            ours: keys(false),
            streams,
            way: Way::new(watcher.line.clone(), seed),
            watcher,
            highest: HashMap::new(),
            came: BTreeMap::new(),
            transport: None,
            told: 0,
            next: [now; 3],
            faults: Vec::new(),
        }
    }

    /// A connectivity check.
    pub(super) fn check(&self) -> Vec<u8> {
        let name = format!("{}:{}", self.user, self.name);
        plain::check(&name, &self.password, true)
    }

    /// Opens a datagram that leaves for it.
    pub(super) fn open(&mut self, datagram: &[u8]) -> Option<(Kind, Opened)> {
        let ssrc = u32::from_be_bytes(datagram[8..12].try_into().expect("four bytes"));
        let low = u16::from_be_bytes([datagram[2], datagram[3]]);
        let highest = self.highest.entry(ssrc).or_insert(u64::from(low));
        let index = extended(*highest, low);
        *highest = (*highest).max(index);
        let has_extension = datagram[0] & 0x10 != 0;
        let words = usize::from(u16::from_be_bytes([datagram[14], datagram[15]]));
        let header = if has_extension { 16 + 4 * words } else { 12 };
        let opened = self
            .ours
            .sealer
            .unseal(header, (index >> 16) as u32, datagram);
        let Some(payload) = opened else {
            self.faults.push(format!("{ssrc}: {index} can't be opened"));
            return None;
        };
        let is_padding = datagram[0] & 0x20 != 0;
        let kind = if is_padding {
            Kind::Padding
        } else if let Some(at) = self.streams.iter().position(|one| one.ssrc == ssrc) {
            Kind::Media(at)
        } else if let Some(at) = self.streams.iter().position(|one| one.rtx == Some(ssrc)) {
            Kind::Repair(at)
        } else {
            self.faults.push(format!("{ssrc} is of nobody"));
            return None;
        };
        let opened = Opened {
            index,
            timestamp: u32::from_be_bytes(datagram[4..8].try_into().expect("four bytes")),
            marker: datagram[1] & 0x80 != 0,
            is_filling: false,
            transport: has_extension
                .then(|| transport(datagram[12] == 0x10, &datagram[16..header]))
                .flatten(),
            payload,
            length: datagram.len(),
        };
        if let Kind::Media(at) = kind {
            self.leaves(at, &opened);
        }
        Some((kind, opened))
    }

    /// Notes a new packet that leaves; the first is a keyframe's.
    fn leaves(&mut self, at: usize, opened: &Opened) {
        let stream = &mut self.streams[at];
        stream.sent += 1;
        let (low, high) = stream.left_range.unwrap_or((opened.index, opened.index));
        stream.left_range = Some((low.min(opened.index), high.max(opened.index)));
        if !stream.left.insert(opened.index) {
            self.faults.push(format!("{} left twice", opened.index));
        }
        if let Some(player) = &mut stream.player
            && stream.left.len() == 1
        {
            let seen = seen(player.shape, opened.index, opened);
            if seen.since_key != 0 || seen.part != 0 || seen.shown.spatial != 0 {
                self.faults.push("no keyframe at the beginning".into());
            }
            player.next = Some(opened.index);
        }
    }

    /// Numbers between those that left which never did.
    pub(super) fn holes(&self) -> usize {
        let hole = |stream: &Stream| {
            let (low, high) = stream.left_range?;
            Some((high - low + 1) as usize - stream.left.len())
        };
        self.streams.iter().filter_map(hole).sum()
    }

    /// A datagram has arrived after so many seconds on the way.
    pub(super) fn arrived(
        &mut self,
        now: Instant,
        micros: i64,
        (kind, opened): (Kind, Opened),
        took: f64,
    ) {
        if let Some(number) = opened.transport {
            let number = match self.transport {
                None => {
                    self.told = u64::from(number) + (1 << 20);
                    self.told
                }
                Some(newest) => extended(newest, number),
            };
            self.transport = Some(self.transport.map_or(number, |newest| newest.max(number)));
            if number >= self.told {
                self.came.insert(number, micros);
            }
        }
        let (at, index) = match kind {
            Kind::Padding => return,
            Kind::Media(at) => (at, opened.index),
            Kind::Repair(at) => {
                let Some(newest) = self.streams[at].newest else {
                    return;
                };
                let low = u16::from_be_bytes([opened.payload[0], opened.payload[1]]);
                (at, extended(newest, low))
            }
        };
        let stream = &mut self.streams[at];
        if let Kind::Media(_) = kind {
            stream.received += 1;
            let newest = *stream.newest.get_or_insert(index);
            for number in newest + 1..index {
                stream.missing.insert(number, (now, None, 0));
            }
            stream.expected += index.saturating_sub(newest) as u32;
            stream.newest = Some(newest.max(index));
            let late = 1.0e-3 * self.way.line.delay_milliseconds + IN_TIME;
            stream.in_time += usize::from(took <= late);
        }
        stream.missing.remove(&index);
        let Some(player) = &mut stream.player else {
            return;
        };
        let own = match kind {
            Kind::Repair(_) => Opened {
                payload: opened.payload[2..].to_vec(),
                ..opened
            },
            _ => opened,
        };
        let seen = (!own.is_filling).then(|| seen(player.shape, index, &own));
        player.take(index, seen);
        let pictures = player.play();
        let faults = player.decoded.faults.drain(..);
        let seconds = (micros - CLOCK) as f64 / 1e6;
        self.faults
            .extend(faults.map(|fault| format!("{seconds:.2} s, {:?}: {fault}", stream.track)));
        if pictures > 0 {
            stream.shown = now;
            stream.pictures += pictures;
        }
    }

    /// A sender report that came, sealed.
    pub(super) fn report(&mut self, now: Instant, datagram: &[u8]) {
        let mut compound = datagram.to_vec();
        if self.keys.opener.open(&mut compound).is_err() || compound.len() < 20 {
            return;
        }
        let ssrc = u32::from_be_bytes(compound[4..8].try_into().expect("four bytes"));
        let middle = u32::from_be_bytes(compound[10..14].try_into().expect("four bytes"));
        if compound[1] == 200
            && let Some(stream) = self.streams.iter_mut().find(|one| one.ssrc == ssrc)
        {
            stream.report = Some((middle, now));
        }
    }

    /// What it has to say now: sealed reports, and checks.
    pub(super) fn tick(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let [tells, reports, checks] = &mut self.next;
        let due = |next: &mut Instant, every| {
            let is_due = *next <= now;
            if is_due {
                *next = now + every;
            }
            is_due
        };
        let tells = due(tells, Duration::from_millis(self.watcher.tells_every));
        let reports = due(reports, REPORTS_EVERY);
        if due(checks, CHECKS_EVERY) {
            out.push(self.check());
        }
        let round_trip = Duration::from_secs_f64(self.way.line.delay_milliseconds / 500.0 + 0.02);
        let mut compound = vec![0x80, 201, 0, 1, 0, 0, 0, 1];
        let empty = compound.len();
        let mut feedback = |count: u8, kind: u8, ssrc: u32, body: &[u8]| {
            compound.extend([0x80 | count, kind]);
            compound.extend((2 + body.len() as u16 / 4).to_be_bytes());
            compound.extend(1_u32.to_be_bytes());
            compound.extend(ssrc.to_be_bytes());
            compound.extend(body);
        };
        for stream in &mut self.streams {
            if let Some(player) = &mut stream.player {
                stream
                    .missing
                    .retain(|_, (since, _, tries)| now - *since < MISSED_FOR && *tries < TRIES);
                let mut body = Vec::new();
                for (number, (_, asked, tries)) in &mut stream.missing {
                    if asked.is_none_or(|at| now - at >= round_trip) {
                        (*asked, *tries) = (Some(now), *tries + 1);
                        body.extend((*number as u16).to_be_bytes());
                        body.extend([0, 0]);
                    }
                }
                if !body.is_empty() {
                    feedback(1, 205, stream.ssrc, &body);
                }
                if player.asks(now) {
                    feedback(1, 206, stream.ssrc, &[]);
                }
            } else {
                stream.missing.clear();
            }
            if reports && stream.newest.is_some() {
                let lost = stream.expected.saturating_sub(stream.received);
                let lost = 256 * lost / stream.expected.max(1);
                (stream.expected, stream.received) = (0, 0);
                let (middle, delay) = stream.report.map_or((0, 0), |(middle, came)| {
                    (middle, ((now - came).as_secs_f64() * 65536.0) as u32)
                });
                let mut body = stream.ssrc.to_be_bytes().to_vec();
                body.extend((lost.min(255) << 24).to_be_bytes());
                body.extend((stream.newest.unwrap_or(0) as u32).to_be_bytes());
                body.extend(0_u32.to_be_bytes());
                body.extend(middle.to_be_bytes());
                body.extend(delay.to_be_bytes());
                // A receiver report of one block is laid out as feedback on its SSRC is.
                feedback(1, 201, stream.ssrc, &body[4..]);
            }
        }
        if tells && let Some((newest, _)) = self.came.last_key_value() {
            let newest = *newest;
            let base = self.told.max(newest.saturating_sub(900));
            let arrivals: Vec<Option<i64>> = (base..=newest)
                .map(|number| self.came.get(&number).copied())
                .collect();
            let mut body = write_arrivals(base as u16, &arrivals);
            body.resize(body.len().next_multiple_of(4), 0);
            self.told = newest + 1;
            self.came.clear();
            feedback(15, 205, 0, &body);
        }
        if compound.len() > empty {
            self.keys.sealer.seal_report(&mut compound);
            out.push(compound);
        }
        out
    }

    /// What was wrong with what came.
    pub(super) fn take_faults(&mut self) -> Vec<String> {
        std::mem::take(&mut self.faults)
    }
}

fn seen(shape: Shape, index: u64, opened: &Opened) -> Seen {
    Seen::new(
        shape,
        index,
        opened.timestamp,
        opened.marker,
        &opened.payload,
    )
}

/// The transport-wide number among header extensions of either form.
fn transport(is_long: bool, mut rest: &[u8]) -> Option<u16> {
    while let [head, tail @ ..] = rest {
        if *head == 0 {
            rest = tail;
            continue;
        }
        let (id, length, value) = if is_long {
            (*head, usize::from(*tail.first()?), &tail[1..])
        } else {
            (head >> 4, usize::from(head & 15) + 1, tail)
        };
        if id == 3 {
            return Some(u16::from_be_bytes([value[0], value[1]]));
        }
        rest = &value[length..];
    }
    None
}
