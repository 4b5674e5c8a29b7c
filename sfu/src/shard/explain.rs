//! What a connection is sent and why, told when somebody asks. Only reads: it says what was decided
//! last, and decides nothing.

use std::time::Instant;

use super::Shard;
use super::budget::{for_pictures, rank};
use crate::account::{
    Account, Layer, Line, Picture, Processor, Published, Reason, Sound, Step, TRACKS_BOUND,
};
use crate::command::{ConnectionId, Encoding, Quality, TrackId, TrackKind};
use crate::estimate::Budget;
use crate::ladder;
use crate::layer::Indices;
use crate::peer::Peer;
use crate::subscription::{Ceiling, Mapped, Subscription};
use crate::track::{LAYER_SILENCE, LayerState, Track};

impl Shard {
    pub(crate) fn explain(&self, id: ConnectionId, now: Instant) -> Option<Account> {
        let peer = self.peers.get(&id)?;
        let (mut pictures, mut sounds) = (Vec::new(), Vec::new());
        let subscribed = peer.subscribed();
        for track_id in subscribed.iter().take(TRACKS_BOUND) {
            let Some(track) = self.tracks.get(track_id) else {
                continue;
            };
            let Some(one) = track.of(id) else {
                continue;
            };
            match track.publication.kind {
                TrackKind::Audio => sounds.push(sound(peer, track, one, now)),
                TrackKind::Video => pictures.push(picture(peer, track, one, now)),
            }
        }
        let published = peer.published();
        let published = published.iter().take(TRACKS_BOUND);
        Some(Account {
            line: line(peer, self.bill(id).sound(&peer.redundancy), now),
            processor: match self.shed.of(id) {
                Ceiling::None => Processor::All,
                Ceiling::Layer { .. } => Processor::Lowest,
                Ceiling::Nothing => Processor::Nothing,
            },
            pictures,
            sounds,
            left_out: subscribed.len().saturating_sub(TRACKS_BOUND),
            published: published
                .flat_map(|track| self.published(*track, now))
                .collect(),
        })
    }

    /// A track in each of its encodings.
    fn published(&self, id: TrackId, now: Instant) -> Vec<Published> {
        let Some(track) = self.tracks.get(&id) else {
            return Vec::new();
        };
        let is_there = |encoding: &Encoding| {
            *encoding == Encoding::Primary || track.encodings[*encoding].mid.is_some()
        };
        let told = |encoding: Encoding| Published {
            track: id,
            codec: track.encodings[encoding].codec,
            is_muted: track.is_muted,
            layers: layers(track, encoding, now),
            wanted: track.encodings[encoding].told_wanted.flatten(),
            subscribers: track.subscriptions.len(),
        };
        let all = Encoding::ALL.into_iter();
        all.filter(is_there).map(told).collect()
    }
}

fn line(peer: &Peer, sound: u64, now: Instant) -> Line {
    let estimate = &peer.outlet.estimate;
    let budget = match estimate.budget(now) {
        Budget::Bits(bits) => Some(bits),
        Budget::Unknown | Budget::Unlimited => None,
    };
    Line {
        state: estimate.state(now),
        estimate: estimate.rate(),
        budget,
        for_pictures: budget.map(|bits| for_pictures(bits, &peer.outlet, sound)),
        sound,
        given: peer.spent,
        sent: estimate.sent_rate(),
        is_probing: estimate.awaits_probe(now),
        loss: estimate.loss(),
        own_loss: estimate.own_loss(),
        is_doubled: peer.outlet.is_doubled(),
        round_trip: peer.outlet.round_trip(),
        queue: estimate.queue(),
    }
}

fn sound(peer: &Peer, track: &Track, one: &Subscription, now: Instant) -> Sound {
    let redundancy = peer.redundancy.depth();
    let is_red = |mapped: Mapped| {
        let may_wrap = mapped.red.is_some();
        let is_left_out = may_wrap && peer.redundancy.is_left_out();
        let comes = track.is_red && !mapped.unwrap_red && !is_left_out;
        comes || (may_wrap && redundancy > 0)
    };
    let reason = match withheld(track, one, now) {
        Some(reason) => reason,
        None if one.current.is_none() => Reason::Keyframe,
        None => Reason::All,
    };
    Sound {
        track: track.id,
        is_red: one.mapped.is_some_and(is_red),
        redundancy,
        bits: track
            .layers
            .first()
            .and_then(|layer| layer.meter.rate(Indices::ALL)),
        reason,
    }
}

fn picture(peer: &Peer, track: &Track, one: &Subscription, now: Instant) -> Picture {
    let wanted = one.selection;
    let steps = ladder::steps(
        &track.layers,
        one.encoding,
        wanted.quality,
        wanted.frame_rate,
    );
    let withheld = withheld(track, one, now);
    let sent = match withheld {
        Some(_) => None,
        None => one
            .current
            .and_then(|at| sent(track, at, one.filter.current(), now)),
    };
    let reason = withheld.unwrap_or_else(|| limited_by(track, one, &steps, sent, now));
    let given = left(one.by_processor, &steps)
        .min(left(one.by_line, &steps))
        .filter(|_| wanted.is_enabled && !track.is_muted)
        .and_then(|at| steps.get(at));
    let told = |step: &ladder::Step| told(&track.layers, step);
    Picture {
        track: track.id,
        rank: rank(track, peer.speaker, wanted.is_pinned),
        wanted,
        given: given.map(told),
        sent: sent.as_ref().map(told),
        steps: steps.iter().map(told).collect(),
        reason,
    }
}

fn told(layers: &[LayerState], step: &ladder::Step) -> Step {
    let meter = layers.get(step.layer).map(|layer| &layer.meter);
    Step {
        quality: step.quality,
        spatial: step.limit.spatial,
        temporal: step.limit.temporal,
        frame_rate: meter.and_then(|meter| meter.frame_rate(step.limit.temporal)),
        bits: step.bits,
    }
}

/// What keeps a track from being sent at all, whatever its size.
fn withheld(track: &Track, one: &Subscription, now: Instant) -> Option<Reason> {
    if one.mid.is_none() {
        Some(Reason::Negotiating)
    } else if !one.selection.is_enabled {
        Some(Reason::Hidden)
    } else if one.mapped.is_some_and(|mapped| mapped.target.is_none()) {
        Some(Reason::Codec)
    } else if track.is_muted {
        Some(Reason::Muted)
    } else if !track.layers.iter().any(|layer| track.is_sent(layer, now)) {
        Some(Reason::Publisher)
    } else {
        None
    }
}

/// What is sent of a layer and those within it, as far as the publisher sends it.
fn sent(track: &Track, at: usize, filter: Indices, now: Instant) -> Option<ladder::Step> {
    let layers = &track.layers;
    let layer = layers.get(at).filter(|layer| track.is_sent(layer, now))?;
    let limit = filter.min(layer.meter.live(now, LAYER_SILENCE));
    let alike = layers.iter().filter(|one| one.encoding == layer.encoding);
    let quality = match alike.count() {
        1 => ladder::quality_of(limit.spatial, layer.meter.top().spatial),
        _ => layer.quality,
    };
    Some(ladder::Step {
        layer: at,
        quality,
        limit,
        is_smooth: limit.temporal >= layer.meter.top().temporal,
        bits: layer.meter.rate(limit).unwrap_or(0),
    })
}

/// The best step that a ceiling leaves; the lowest one where all are above it.
fn left(ceiling: Ceiling, steps: &[ladder::Step]) -> Option<usize> {
    let last = steps.len().checked_sub(1)?;
    match ceiling {
        Ceiling::None => Some(last),
        Ceiling::Nothing => None,
        Ceiling::Layer { quality, temporal } => {
            let is_within =
                |step: &ladder::Step| step.quality <= quality && step.limit.temporal <= temporal;
            steps.iter().rposition(is_within).or(Some(0))
        }
    }
}

/// What keeps a picture that may be sent from being sent in the best of its steps.
fn limited_by(
    track: &Track,
    one: &Subscription,
    steps: &[ladder::Step],
    sent: Option<ladder::Step>,
    now: Instant,
) -> Reason {
    let Some(best) = steps.last() else {
        return Reason::Publisher;
    };
    if sent.is_some_and(|sent| sent.layer == best.layer && sent.limit.admits(best.limit)) {
        return Reason::All;
    }
    let by_processor = left(one.by_processor, steps);
    let by_line = left(one.by_line, steps);
    let all = Some(steps.len() - 1);
    if by_line < by_processor {
        return one.line_reason;
    }
    if by_processor < all {
        return Reason::Processor;
    }
    let is_there = track.layers.get(best.layer).is_some_and(|layer| {
        track.is_sent(layer, now) && layer.meter.live(now, LAYER_SILENCE).admits(best.limit)
    });
    if is_there {
        Reason::Keyframe
    } else {
        Reason::Publisher
    }
}

/// An encoding's layers as they come, and how many are to be sent each. With simulcast a stream is one
/// layer, whatever is in it.
fn layers(track: &Track, encoding: Encoding, now: Instant) -> Vec<Layer> {
    let of_encoding: Vec<(usize, &LayerState)> = track
        .layers
        .iter()
        .enumerate()
        .filter(|(_, layer)| layer.encoding == encoding)
        .collect();
    let all: Vec<(usize, Option<u8>, Quality)> = match &of_encoding[..] {
        [(at, one)] => {
            let top = one.meter.top().spatial;
            let spatial = 0..=top;
            spatial
                .map(|spatial| (*at, Some(spatial), ladder::quality_of(spatial, top)))
                .collect()
        }
        all => all
            .iter()
            .map(|(at, layer)| (*at, None, layer.quality))
            .collect(),
    };
    let told = |(at, spatial, quality): (usize, Option<u8>, Quality)| {
        let state = &track.layers[at];
        let (top, live) = (state.meter.top(), state.meter.live(now, LAYER_SILENCE));
        let is_received = track.is_sent(state, now) && spatial.is_none_or(|at| at <= live.spatial);
        let limit = Indices {
            spatial: spatial.unwrap_or(u8::MAX),
            ..Indices::ALL
        };
        let is_aimed = |one: &&Subscription| {
            let uppermost = one.filter.target().spatial.min(top.spatial);
            one.mid.is_some()
                && one.target == Some(at)
                && spatial.is_none_or(|spatial| spatial == uppermost)
        };
        let frame_rate = state.meter.frame_rate(live.temporal);
        Layer {
            quality,
            is_received,
            bits: state.meter.rate(limit).filter(|_| is_received),
            frame_rate: frame_rate.filter(|_| is_received),
            temporal_layers: live.temporal + 1,
            subscribers: track.subscriptions.iter().filter(is_aimed).count(),
        }
    };
    let mut told: Vec<Layer> = all.into_iter().map(told).collect();
    told.sort_by_key(|layer| layer.quality);
    told
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use str0m::RtcConfig;
    use str0m::change::SdpOffer;

    use super::*;
    use crate::account::LineState;
    use crate::command::Quality::{High, Low, Medium};
    use crate::command::{Codec, Command, Event, Publication, Role, Selection};
    use crate::layer::Standing;
    use crate::rewrite::Rewrite;
    use crate::shard::ShardConfig;

    const ID: ConnectionId = ConnectionId(2);

    /// A camera in three simulcast layers that all came until now, with one subscriber that is sent
    /// the best.
    fn camera(now: Instant) -> Track {
        let publication = Publication {
            cid: "camera".into(),
            kind: TrackKind::Video,
            codecs: vec![Codec::Vp8],
            layers: Vec::new(),
            is_red_allowed: false,
            is_screen: false,
            backup: None,
        };
        let mut track = Track::new(TrackId(1), ConnectionId(1), publication);
        for (quality, size) in [(Low, 200), (Medium, 600), (High, 2000)] {
            let mut layer = LayerState::new(quality, None, TrackKind::Video);
            let begin = now - Duration::from_secs(1);
            layer.meter.read(begin);
            for _ in 0..30 {
                let standing = Standing {
                    begins_picture: true,
                    ..Standing::default()
                };
                layer.meter.add(&standing, size, now);
            }
            layer.meter.read(now);
            layer.last_packet = Some(now);
            track.layers.push(layer);
        }
        let mut one = Subscription::new(ID, Selection::of(High), Rewrite::new(90_000));
        one.mid = Some("0".into());
        (one.current, one.target) = (Some(2), Some(2));
        track.add(one);
        track
    }

    /// The quality that is given, the one that is sent, and why.
    fn said(track: &Track, now: Instant) -> (Option<Quality>, Option<Quality>, Reason) {
        let one = track.of(ID).unwrap();
        let steps = ladder::steps(&track.layers, Encoding::Primary, one.selection.quality, 0);
        let peer = Peer::new(ID, Role::Subscribe, false, &[], None, now);
        let picture = picture(&peer, track, one, now);
        assert_eq!(picture.steps.len(), steps.len());
        let quality = |step: Option<Step>| step.map(|step| step.quality);
        (
            quality(picture.given),
            quality(picture.sent),
            picture.reason,
        )
    }

    #[test]
    fn what_holds_a_picture_back_is_named() {
        type Change = fn(&mut Track, &mut Subscription);
        let up_to = |quality| Ceiling::Layer {
            quality,
            temporal: u8::MAX,
        };
        let table: [(Change, Option<Quality>, Option<Quality>, Reason); 16] = [
            (|_, _| {}, Some(High), Some(High), Reason::All),
            (
                // Those below have gone on without it for a second.
                |track, one| {
                    let last = &mut track.layers[2].last_packet;
                    *last = last.map(|at| at - Duration::from_secs(1));
                    (one.current, one.target) = (Some(1), Some(1));
                },
                Some(High),
                Some(Medium),
                Reason::Publisher,
            ),
            (
                |_, one| one.mid = None,
                Some(High),
                None,
                Reason::Negotiating,
            ),
            (
                |_, one| one.selection.is_enabled = false,
                None,
                None,
                Reason::Hidden,
            ),
            (
                |_, one| {
                    one.mapped = Some(Mapped {
                        source: 96.into(),
                        target: None,
                        unwrap_red: false,
                        red: None,
                    });
                },
                Some(High),
                None,
                Reason::Codec,
            ),
            (|track, _| track.is_muted = true, None, None, Reason::Muted),
            (
                |track, _| {
                    track
                        .layers
                        .iter_mut()
                        .for_each(|one| one.last_packet = None)
                },
                Some(High),
                None,
                Reason::Publisher,
            ),
            (
                |track, one| {
                    track.layers[2].last_packet = None;
                    (one.current, one.target) = (Some(1), Some(1));
                },
                Some(High),
                Some(Medium),
                Reason::Publisher,
            ),
            (
                |_, one| one.current = None,
                Some(High),
                None,
                Reason::Keyframe,
            ),
            (
                |_, one| one.selection.quality = Low,
                Some(Low),
                Some(High),
                Reason::Keyframe,
            ),
            (
                |_, one| {
                    one.selection.quality = Low;
                    one.current = Some(0);
                },
                Some(Low),
                Some(Low),
                Reason::All,
            ),
            (
                |_, one| {
                    one.by_processor = Ceiling::Nothing;
                    one.current = None;
                },
                None,
                None,
                Reason::Processor,
            ),
            (
                |_, one| {
                    one.by_line = Ceiling::Nothing;
                    one.current = None;
                },
                None,
                None,
                Reason::Line,
            ),
            (
                |_, one| {
                    one.by_line = Ceiling::Nothing;
                    one.line_reason = Reason::Hold;
                    one.current = None;
                },
                None,
                None,
                Reason::Hold,
            ),
            (
                |track, one| {
                    track.layers[2].last_packet = None;
                    one.by_line = Ceiling::Nothing;
                    one.current = None;
                },
                None,
                None,
                Reason::Line,
            ),
            (
                |_, one| {
                    one.by_processor = Ceiling::Nothing;
                    one.by_line = Ceiling::Nothing;
                    one.current = None;
                },
                None,
                None,
                Reason::Processor,
            ),
        ];
        let now = Instant::now();
        for (at, (change, given, sent, reason)) in table.into_iter().enumerate() {
            let mut track = camera(now);
            let mut one = track.remove(ID).unwrap();
            change(&mut track, &mut one);
            track.add(one);
            assert_eq!(said(&track, now), (given, sent, reason), "row {at}");
        }
        for (by_processor, by_line, given, reason) in [
            (up_to(Low), Ceiling::None, Low, Reason::Processor),
            (Ceiling::None, up_to(Medium), Medium, Reason::Line),
            (up_to(Medium), up_to(Low), Low, Reason::Line),
        ] {
            let mut track = camera(now);
            let one = track.subscription(ID).unwrap();
            (one.by_processor, one.by_line) = (by_processor, by_line);
            one.current = Some(given as usize);
            let expected = (Some(given), Some(given), reason);
            assert_eq!(said(&track, now), expected, "{by_processor:?} {by_line:?}");
        }
    }

    #[test]
    fn after_a_step_down_it_is_the_pause_that_holds_a_picture_back() {
        let mut now = Instant::now();
        let config = ShardConfig {
            candidates: vec!["10.0.0.1:7882".parse().unwrap()],
        };
        let mut shard = Shard::new(config, now);
        let mut track = camera(now);
        track.remove(ID);
        shard.tracks.insert(track.id, track);
        let connection = ID;
        shard.command(
            now,
            Command::Open {
                connection,
                role: Role::Subscribe,
                takes_rsa: false,
            },
        );
        shard.command(
            now,
            Command::Subscribe {
                connection,
                track: TrackId(1),
                stream_name: "PA|camera".into(),
                track_name: "TR".into(),
                selection: Selection::of(High),
            },
        );
        // With the answer to the first offer the second one is due, which has a place for it.
        let Some(Event::Offer { sdp, .. }) = shard.poll_event() else {
            panic!("no offer");
        };
        let offer = SdpOffer::from_sdp_string(&sdp).unwrap();
        let mut client = RtcConfig::new().build(now);
        let answer = client.sdp_api().accept_offer(offer).unwrap();
        let sdp = answer.to_sdp_string();
        shard.command(now, Command::Answer { connection, sdp });
        let track = shard.tracks.get_mut(&TrackId(1)).unwrap();
        let one = track.subscription(ID).unwrap();
        one.mid = Some("0".into());
        (one.current, one.target) = (Some(0), Some(0));
        // The line carries the middle layer, and did not a moment ago.
        let peer = shard.peers.get_mut(&ID).unwrap();
        peer.outlet.estimate.lost(now, 0.2);
        peer.lowered = Some(now);
        for (passed, given, reason) in [
            (Duration::ZERO, Low, Reason::Hold),
            (Duration::from_millis(2100), Medium, Reason::Line),
        ] {
            now += passed;
            shard.share_line(ID, now);
            let account = shard.explain(ID, now).unwrap();
            assert_eq!(account.line.state, LineState::Limited);
            let picture = &account.pictures[0];
            let of = |step: Option<Step>| step.map(|step| step.quality);
            let found = (of(picture.given), of(picture.sent), picture.reason);
            assert_eq!(found, (Some(given), Some(Low), reason), "{account:?}");
        }
    }

    #[test]
    fn layers_are_told_as_they_come_with_how_many_get_them() {
        let now = Instant::now();
        let mut track = camera(now);
        track.layers[2].last_packet = None;
        track.subscription(ID).unwrap().target = Some(1);
        let told = layers(&track, Encoding::Primary, now);
        let found: Vec<_> = told
            .iter()
            .map(|layer| (layer.quality, layer.is_received, layer.subscribers))
            .collect();
        assert_eq!(found, [(Low, true, 0), (Medium, true, 1), (High, false, 0)]);
        assert!(told[1].bits > told[0].bits && told[2].bits.is_none());
        assert_eq!(told[0].frame_rate.map(f64::round), Some(30.0));
    }
}
