//! A published track: its layers as they arrive, and who is subscribed.
//!
//! The same picture may come in two encodings, each in a codec and on an m-line of its own. Their
//! layers stand in one list, so that a subscriber changes from one to the other as it does between
//! layers: at a keyframe, under one SSRC, with numbers and time that run on.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustc_hash::FxHashMap;
use str0m::media::{Mid, Pt, Rid};
use str0m::rtp::{ExtensionValues, Ssrc};

use crate::command::{ConnectionId, Encoding, Publication, Quality, TrackId, TrackKind};
use crate::dependency::Dependencies;
use crate::encoding::Encodings;
use crate::ladder::Meter;
use crate::layer::Standing;
use crate::payload::Vp8;
use crate::subscription::Subscription;

/// A layer without a packet for this long is not live, and its subscribers are moved. Longer than
/// the pauses of a screen share at one frame per second.
pub(crate) const LAYER_SILENCE: Duration = Duration::from_millis(2500);

/// A layer is given up when a less sharp one went on without it for so many pictures, and for so
/// long. Shorter, and a burst of loss is taken for it; longer, and viewers look at a picture that stands.
const GIVEN_UP_PICTURES: f64 = 10.0;
const GIVEN_UP_AFTER: Duration = Duration::from_millis(600);

/// What has a number so far below the highest begins anew, and was not asked for again.
const REPAIRED_MOST: u64 = 1024;

/// How long a keyframe request for one layer suppresses the next.
/// Shorter makes a newcomer's picture appear sooner; longer saves the publisher's uplink
/// when a hundred people join in the same second.
const KEYFRAME_REQUEST_INTERVAL: Duration = Duration::from_millis(300);

/// Packets remembered per layer of a picture, for all who miss one: over a second of 4 Mbit/s.
const VIDEO_REMEMBERED: usize = 512;

/// Packets remembered of sound, which go along with later ones.
const AUDIO_REMEMBERED: usize = 32;

/// So many of the newest packets may have overtaken the first one of a keyframe, for a subscriber to
/// start with it nevertheless.
const OVERTAKING: u64 = 16;

/// A received packet, decrypted.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    /// Extended sequence number of the publisher's stream.
    pub(crate) sequence: u64,
    pub(crate) timestamp: u32,
    pub(crate) marker: bool,
    /// The publisher's payload type.
    pub(crate) payload_type: Pt,
    pub(crate) payload: Arc<[u8]>,
    pub(crate) arrived: Instant,
    pub(crate) starts_keyframe: bool,
    pub(crate) standing: Standing,
    pub(crate) vp8: Option<Vp8>,
    /// Header extensions that go on to subscribers.
    pub(crate) extensions: ExtensionValues,
}

/// A packet without layers whose bytes are all alike.
#[cfg(any(test, fuzzing))]
pub(crate) fn plain_packet(sequence: u64, size: u16, arrived: Instant) -> Packet {
    Packet {
        sequence,
        timestamp: sequence as u32 * 90,
        marker: true,
        payload_type: 96.into(),
        payload: vec![sequence as u8; usize::from(size)].into(),
        arrived,
        starts_keyframe: false,
        standing: Standing::default(),
        vp8: None,
        extensions: ExtensionValues::default(),
    }
}

/// The last packets of a layer in clear, from which every subscriber's misses are sent again.
#[derive(Debug)]
pub(crate) struct Recent {
    /// By the sequence number modulo their count; none before the first packet.
    slots: Vec<Option<Arc<Packet>>>,
    capacity: usize,
    newest: u64,
}

impl Recent {
    pub(crate) fn new(kind: TrackKind) -> Self {
        Recent {
            slots: Vec::new(),
            capacity: match kind {
                TrackKind::Video => VIDEO_REMEMBERED,
                TrackKind::Audio => AUDIO_REMEMBERED,
            },
            newest: 0,
        }
    }

    pub(crate) fn remember(&mut self, packet: &Arc<Packet>) {
        let sequence = packet.sequence;
        if self.slots.is_empty() || self.newest.abs_diff(sequence) >= self.capacity as u64 {
            self.clear();
            self.slots.resize(self.capacity, None);
            self.newest = sequence;
        }
        self.newest = self.newest.max(sequence);
        let at = sequence as usize % self.capacity;
        self.slots[at] = Some(packet.clone());
    }

    /// Forgets everything, as when the source begins anew.
    pub(crate) fn clear(&mut self) {
        self.slots.clear();
        self.newest = 0;
    }

    pub(crate) fn get(&self, sequence: u64) -> Option<&Arc<Packet>> {
        let slot = self.slots.get(sequence as usize % self.capacity)?;
        slot.as_ref().filter(|packet| packet.sequence == sequence)
    }

    pub(crate) fn newest(&self) -> Option<&Arc<Packet>> {
        self.get(self.newest)
    }

    /// Whether a subscriber can start with `packet`. A keyframe's start that was repaired late may
    /// be too old for that.
    pub(crate) fn can_start_with(&self, packet: &Packet) -> bool {
        self.newest < packet.sequence + OVERTAKING
    }

    /// What was sent after `sequence` and came before it.
    pub(crate) fn after(&self, sequence: u64) -> impl Iterator<Item = &Arc<Packet>> {
        let newest = self.newest.min(sequence + OVERTAKING);
        (sequence + 1..=newest).filter_map(|sequence| self.get(sequence))
    }
}

/// One layer of an encoding; without simulcast it has one.
#[derive(Debug)]
pub(crate) struct LayerState {
    pub(crate) encoding: Encoding,
    pub(crate) quality: Quality,
    pub(crate) rid: Option<Rid>,
    pub(crate) ssrc: Option<Ssrc>,
    /// When something new came last: a packet that had to be asked for again is old.
    pub(crate) last_packet: Option<Instant>,
    /// The highest sequence number that came.
    highest: Option<u64>,
    /// What is missing of it can be asked for again, and is.
    pub(crate) is_repairable: bool,
    pub(crate) is_repaired: bool,
    /// The publisher's pair of wall clock and RTP time from its last sender report, and when that
    /// came.
    pub(crate) report: Option<(SystemTime, u32, Instant)>,
    pub(crate) recent: Recent,
    pub(crate) dependencies: Dependencies,
    pub(crate) meter: Meter,
    keyframe_asked: Option<Instant>,
}

impl LayerState {
    pub(crate) fn new(quality: Quality, rid: Option<Rid>, kind: TrackKind) -> Self {
        LayerState {
            encoding: Encoding::Primary,
            quality,
            rid,
            ssrc: None,
            last_packet: None,
            highest: None,
            is_repairable: false,
            is_repaired: true,
            report: None,
            recent: Recent::new(kind),
            dependencies: Dependencies::default(),
            meter: Meter::default(),
            keyframe_asked: None,
        }
    }

    /// The layer begins anew, under another SSRC.
    pub(crate) fn begin(&mut self, ssrc: Ssrc) {
        self.ssrc = Some(ssrc);
        self.highest = None;
        self.is_repaired = true;
        self.recent.clear();
        self.dependencies = Dependencies::default();
    }

    /// Its stream ended.
    pub(crate) fn end(&mut self) {
        (self.ssrc, self.last_packet) = (None, None);
        self.recent.clear();
    }

    /// A packet came.
    pub(crate) fn came(&mut self, sequence: u64, now: Instant) {
        let is_old = |highest| sequence <= highest && highest - sequence < REPAIRED_MOST;
        if self.highest.is_some_and(is_old) {
            return;
        }
        (self.highest, self.last_packet) = (Some(sequence), Some(now));
    }

    pub(crate) fn is_live(&self, now: Instant) -> bool {
        self.last_packet
            .is_some_and(|last| now.saturating_duration_since(last) < LAYER_SILENCE)
    }

    /// Whether a keyframe may be asked for now; remembers that it was.
    pub(crate) fn may_ask_keyframe(&mut self, now: Instant) -> bool {
        let waits = self
            .keyframe_asked
            .is_some_and(|asked| now.saturating_duration_since(asked) < KEYFRAME_REQUEST_INTERVAL);
        if !waits {
            self.keyframe_asked = Some(now);
        }
        !waits
    }

    /// When a keyframe was last asked for.
    #[cfg(test)]
    pub(crate) fn keyframe_asked(&self) -> Option<Instant> {
        self.keyframe_asked
    }

    /// Where `packet` lies on the publisher's wall clock, by its last sender report.
    pub(crate) fn wall_clock(&self, timestamp: u32, clock_rate: u32) -> Option<f64> {
        let (ntp, rtp, _) = self.report?;
        let since_epoch = ntp
            .duration_since(SystemTime::UNIX_EPOCH)
            .ok()?
            .as_secs_f64();
        let offset = f64::from(timestamp.wrapping_sub(rtp) as i32);
        Some(since_epoch + offset / f64::from(clock_rate))
    }
}

/// A published track.
pub(crate) struct Track {
    pub(crate) id: TrackId,
    pub(crate) owner: ConnectionId,
    pub(crate) publication: Publication,
    pub(crate) encodings: Encodings,
    /// Its sound comes in RED.
    pub(crate) is_red: bool,
    pub(crate) is_muted: bool,
    /// Those of the backup come last.
    pub(crate) layers: Vec<LayerState>,
    pub(crate) subscriptions: Vec<Subscription>,
    /// Where in `subscriptions` a connection's is.
    places: FxHashMap<ConnectionId, usize>,
    /// Sum and count of RFC 6464 levels since the last report.
    pub(crate) loudness: (u32, u32),
    /// How loud it was last, 0 (loudest) to 127; `None` where nothing came.
    pub(crate) level: Option<u8>,
}

impl Track {
    pub(crate) fn new(id: TrackId, owner: ConnectionId, publication: Publication) -> Self {
        Track {
            id,
            owner,
            encodings: Encodings::new(publication.backup),
            publication,
            is_red: false,
            is_muted: false,
            layers: Vec::new(),
            subscriptions: Vec::new(),
            places: FxHashMap::default(),
            loudness: (0, 0),
            level: None,
        }
    }

    pub(crate) fn clock_rate(&self) -> u32 {
        match self.publication.kind {
            TrackKind::Audio => 48_000,
            TrackKind::Video => 90_000,
        }
    }

    pub(crate) fn subscription(&mut self, connection: ConnectionId) -> Option<&mut Subscription> {
        let at = *self.places.get(&connection)?;
        self.subscriptions.get_mut(at)
    }

    pub(crate) fn of(&self, connection: ConnectionId) -> Option<&Subscription> {
        let at = *self.places.get(&connection)?;
        self.subscriptions.get(at)
    }

    /// Adds a subscriber; it must have none here yet.
    pub(crate) fn add(&mut self, subscription: Subscription) {
        let at = self.subscriptions.len();
        self.places.insert(subscription.connection, at);
        self.subscriptions.push(subscription);
    }

    pub(crate) fn remove(&mut self, connection: ConnectionId) -> Option<Subscription> {
        let at = self.places.remove(&connection)?;
        let removed = self.subscriptions.swap_remove(at);
        if let Some(moved) = self.subscriptions.get(at) {
            self.places.insert(moved.connection, at);
        }
        Some(removed)
    }

    /// Leaves a packet out for everybody who gets its layer.
    pub(crate) fn skip(&mut self, layer: usize, sequence: u64) {
        for one in &mut self.subscriptions {
            if one.current == Some(layer) {
                one.rewrite.skip(sequence, None);
            }
        }
    }

    /// What may be chosen of an encoding: each layer's quality, and whether it is live and of it.
    pub(crate) fn choices(&self, encoding: Encoding, now: Instant) -> Vec<(Quality, bool)> {
        let is_choice = |layer: &LayerState| layer.encoding == encoding && self.is_sent(layer, now);
        let choice = |layer: &LayerState| (layer.quality, is_choice(layer));
        self.layers.iter().map(choice).collect()
    }

    /// Whether the publisher sends a layer.
    pub(crate) fn is_sent(&self, layer: &LayerState, now: Instant) -> bool {
        layer.is_live(now) && !self.goes_on_without(layer)
    }

    /// Whether a less sharp layer has come for so long without `layer` that its publisher has given
    /// it up, as browsers do when their own line gets thinner.
    fn goes_on_without(&self, layer: &LayerState) -> bool {
        let Some(last) = layer.last_packet else {
            return false;
        };
        let mut below = self
            .layers
            .iter()
            .filter(|other| other.encoding == layer.encoding && other.quality < layer.quality);
        below.any(|other| {
            let Some(rate) = other.meter.frame_rate(u8::MAX) else {
                return false;
            };
            let pictures = Duration::try_from_secs_f64(GIVEN_UP_PICTURES / rate);
            let silence = pictures.map_or(LAYER_SILENCE, |pictures| pictures.max(GIVEN_UP_AFTER));
            other
                .last_packet
                .is_some_and(|at| at.saturating_duration_since(last) > silence)
        })
    }

    /// The layer of a stream on one of the client's m-lines.
    pub(crate) fn layer_of(&self, mid: Mid, rid: Option<Rid>) -> Option<usize> {
        let encoding = self.encodings.on(mid)?;
        let of = || {
            let layers = self.layers.iter().enumerate();
            layers.filter(|(_, layer)| layer.encoding == encoding)
        };
        let is_single = of().count() == 1;
        of().find(|(_, layer)| is_single || layer.rid == rid)
            .map(|(at, _)| at)
    }

    /// The encoding that those shall have who take both.
    pub(crate) fn common(&self) -> Encoding {
        self.encodings
            .common(self.subscriptions.iter().map(|one| one.takes))
    }

    /// Forgets the backup's layers, and what was sent of them.
    pub(crate) fn end_backup(&mut self) {
        self.layers
            .retain(|layer| layer.encoding == Encoding::Primary);
        self.encodings[Encoding::Backup].mid = None;
        let count = self.layers.len();
        for one in &mut self.subscriptions {
            for at in [&mut one.current, &mut one.target] {
                *at = at.filter(|layer| *layer < count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Standing;

    #[test]
    fn a_layer_is_given_up_when_the_one_below_goes_on_without_it() {
        let publication = Publication {
            cid: "camera".into(),
            kind: TrackKind::Video,
            codecs: Vec::new(),
            layers: Vec::new(),
            is_red_allowed: false,
            is_screen: false,
            backup: None,
        };
        // Pictures a second below, how often both come, and after how many milliseconds of the lower
        // one alone the upper one is no longer to be had.
        for (rate, lasts, is_alone, expected) in [
            (30, 5000, true, 600),
            (25, 5000, true, 600),
            (15, 5000, true, 666),
            (7, 5000, true, 1428),
            // Neither comes: a screen that stands.
            (1, 2000, false, 0),
            (30, 2000, false, 0),
        ] {
            let mut now = Instant::now();
            let mut track = Track::new(TrackId(1), ConnectionId(1), publication.clone());
            for quality in [Quality::Low, Quality::High] {
                track
                    .layers
                    .push(LayerState::new(quality, None, TrackKind::Video));
            }
            let every = Duration::from_secs(1) / rate;
            let picture = Standing {
                begins_picture: true,
                ..Standing::default()
            };
            let come = |track: &mut Track, now: Instant, count: usize| {
                for layer in &mut track.layers[..count] {
                    layer.meter.add(&picture, 1000, now);
                    layer.last_packet = Some(now);
                }
            };
            let mut read = now;
            for _ in 0..rate * 6 {
                now += every;
                come(&mut track, now, 2);
                if now - read >= Duration::from_millis(250) {
                    read = now;
                    track.layers.iter_mut().for_each(|one| one.meter.read(now));
                }
            }
            let begin = now;
            let is_high = |track: &Track, now| track.choices(Encoding::Primary, now)[1].1;
            while is_high(&track, now) && now - begin < Duration::from_millis(lasts) {
                now += every;
                if is_alone {
                    come(&mut track, now, 1);
                }
            }
            let alone = now - begin;
            if is_alone {
                // Up to the first picture after that.
                let least = Duration::from_millis(expected);
                let bounds = least..=least + every + Duration::from_millis(5);
                assert!(bounds.contains(&alone), "{rate}: {alone:?}");
            } else {
                assert!(alone.as_millis() >= lasts.into(), "{rate}: {alone:?}");
            }
        }
    }
}
