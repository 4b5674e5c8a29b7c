//! A packet's way through the shard: from its layer to everyone who gets it.

use std::sync::Arc;
use std::time::Instant;

use str0m::rtp::RtpHeader;

use super::Shard;
use crate::command::{Codec, ConnectionId, Encoding, Event, TrackId, TrackKind};
use crate::egress::Outgoing;
use crate::layer::Indices;
use crate::payload::describe;
use crate::peer::{codec_of, dependency_descriptor, passed_on};
use crate::redundancy::Wrapped;
use crate::rewrite::Source;
use crate::subscription::{Ceiling, Mapped};
use crate::track::{LAYER_SILENCE, Packet};
use crate::{ladder, layer};

/// SSRCs that a client may send in a connection's life; the engine keeps each. Three layers of a
/// screen share started a thousand times.
const SOURCES_IN_ALL: u32 = 4096;

impl Shard {
    /// Sets every subscriber's target layer anew and asks for the keyframes that they wait for.
    pub(super) fn aim(&mut self, id: TrackId, now: Instant) {
        let Some(track) = self.tracks.get_mut(&id) else {
            return;
        };
        let (mut asked, mut got) = ([false; 8], [false; 8]);
        let choices = Encoding::ALL.map(|encoding| track.choices(encoding, now));
        let is_video = track.publication.kind == TrackKind::Video;
        let common = track.common();
        let mut best = [None; 2];
        for one in &mut track.subscriptions {
            one.by_processor = if is_video {
                self.shed.of(one.connection)
            } else {
                Ceiling::None
            };
            let wanted = one.by_processor.of(one.selection);
            let allowed = one.by_line.of(wanted);
            let (shall, meanwhile) = track.encodings.of(one.takes, common);
            let choose = |encoding: Encoding| layer::choose(&choices[encoding as usize], allowed);
            let target = choose(shall).or_else(|| choose(meanwhile?));
            one.encoding = target.map_or(shall, |layer| track.layers[layer].encoding);
            if allowed.is_enabled {
                // What is sent meanwhile must not be stopped before the other is there.
                for encoding in [shall, one.encoding] {
                    let best = &mut best[encoding as usize];
                    *best = (*best).max(Some(allowed.quality));
                }
            }
            if let Some(layer) = target {
                let limit =
                    ladder::limit(&track.layers, layer, allowed.quality, allowed.frame_rate);
                one.filter.aim(Indices {
                    temporal: limit.temporal.min(one.by_line.temporal()),
                    ..limit
                });
            }
            let is_paused = one.by_processor == Ceiling::Nothing || one.by_line == Ceiling::Nothing;
            if is_video && std::mem::replace(&mut one.is_paused, is_paused) != is_paused {
                self.events.push_back(Event::Paused {
                    connection: one.connection,
                    track: id,
                    is_paused,
                    is_line_full: one.by_processor != Ceiling::Nothing,
                });
            }
            if target.is_none() {
                one.current = None;
            }
            one.target = target;
            for layer in [one.current, target].into_iter().flatten() {
                got[layer.min(7)] = true;
            }
            let Some(layer) = target else {
                continue;
            };
            let live = || track.layers[layer].meter.live(now, LAYER_SILENCE);
            let is_below = one.current == target && one.filter.needs_keyframe(live);
            if one.is_waiting() || is_below {
                asked[layer.min(7)] = true;
            }
        }
        if is_video {
            // What nobody gets, or its publisher gave up, is not asked for again: it would take the room of
            // what is wanted.
            for (at, layer) in track.layers.iter_mut().enumerate() {
                let (_, is_sent) = choices[layer.encoding as usize][at];
                let shall = got[at.min(7)] && is_sent;
                if shall == layer.is_repaired || !layer.is_repairable {
                    continue;
                }
                let (Some(ssrc), Some(peer)) = (layer.ssrc, self.peers.get_mut(&track.owner))
                else {
                    continue;
                };
                peer.ask_again(ssrc, shall);
                layer.is_repaired = shall;
            }
            for encoding in Encoding::ALL {
                let quality = best[encoding as usize];
                let told = &mut track.encodings[encoding].told_wanted;
                if told.replace(quality) == Some(quality) {
                    continue;
                }
                match self.peers.get_mut(&track.owner) {
                    Some(peer) if peer.relay.is_some() => {
                        peer.say_wanted(id, quality);
                        self.written.insert(track.owner);
                    }
                    _ => self.events.push_back(Event::LayersWanted {
                        track: id,
                        encoding,
                        quality,
                    }),
                }
            }
            for (layer, _) in asked.iter().enumerate().filter(|(_, asked)| **asked) {
                self.ask_keyframe(id, layer, now);
            }
        }
    }

    pub(super) fn ask_keyframe(&mut self, id: TrackId, layer: usize, now: Instant) {
        let Some(track) = self.tracks.get_mut(&id) else {
            return;
        };
        let owner = track.owner;
        let Some(layer) = track.layers.get_mut(layer) else {
            return;
        };
        // A layer of which nothing has come yet begins with a keyframe.
        let Some(ssrc) = layer.ssrc else {
            return;
        };
        if track.publication.kind == TrackKind::Audio || !layer.may_ask_keyframe(now) {
            return;
        }
        if let Some(peer) = self.peers.get_mut(&owner) {
            peer.ask_keyframe(ssrc);
            self.written.insert(owner);
        }
    }

    /// A media packet of a client: its extended number, its header and what is in it.
    pub(super) fn packet(
        &mut self,
        id: ConnectionId,
        sequence: u64,
        header: &RtpHeader,
        payload: Arc<[u8]>,
        now: Instant,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let ssrc = header.ssrc;
        let known = peer
            .sources
            .iter()
            .find(|(of, _, _)| *of == ssrc)
            .map(|(_, track, layer)| (*track, *layer));
        let (track_id, layer) = match known {
            Some(known) => known,
            None => {
                let Some((track, mid, rid)) = peer.find_source(ssrc) else {
                    return;
                };
                let Some(state) = self.tracks.get_mut(&track) else {
                    return;
                };
                let Some(layer) = state.layer_of(mid, rid) else {
                    return;
                };
                state.layers[layer].begin(ssrc);
                peer.sources.push((ssrc, track, layer));
                peer.sources_seen += 1;
                if peer.sources_seen > SOURCES_IN_ALL {
                    self.lose(id, "the client sent too many streams", now);
                    return;
                }
                (track, layer)
            }
        };
        let Some(track) = self.tracks.get_mut(&track_id) else {
            return;
        };
        let Some((params, is_red)) = peer.received_as(header.payload_type) else {
            return;
        };
        let Some(codec) = codec_of(&params) else {
            return;
        };
        let encoding = track.layers[layer].encoding;
        if track.encodings[encoding].codec.replace(codec) != Some(codec) {
            track
                .subscriptions
                .iter_mut()
                .for_each(|one| one.mapped = None);
            self.events.push_back(Event::CodecChanged {
                track: track_id,
                encoding,
                codec,
            });
        }
        track.is_red = is_red;
        let state = &mut track.layers[layer];
        let was_live = state.is_live(now);
        state.came(sequence, now);
        state.is_repairable = params.resend().is_some();
        let mut told = describe(codec, &payload);
        // VP9's payload tells the same. VP8's does not beside a descriptor: browsers leave out there what
        // they say here.
        if codec != Codec::Vp9
            && let Some(descriptor) = dependency_descriptor(&header.ext_vals)
            && let Some(of) = state.dependencies.read(sequence, descriptor)
        {
            told.standing = of.standing;
            told.top_spatial = of.top.map(|top| top.spatial);
        }
        let top = state.meter.top();
        if let Some(spatial) = told.top_spatial {
            state.meter.set_top_spatial(spatial);
        }
        state.meter.add(&told.standing, payload.len(), now);
        let is_other = state.meter.top() != top;
        if track.is_muted {
            return;
        }
        if let Some(level) = header.ext_vals.audio_level {
            track.loudness.0 += u32::from(level.unsigned_abs().min(127));
            track.loudness.1 += 1;
        }
        if payload.is_empty() {
            // Padding that probes the line; it is for us alone.
            track.skip(layer, sequence);
            return;
        }
        let received = Packet {
            sequence,
            timestamp: header.timestamp,
            marker: header.marker,
            payload_type: header.payload_type,
            starts_keyframe: told.starts_keyframe,
            standing: told.standing,
            vp8: told.vp8,
            extensions: passed_on(&header.ext_vals),
            payload,
            arrived: now,
        };
        if !was_live || is_other {
            self.aim(track_id, now);
        }
        self.forward(track_id, layer, Arc::new(received), &params, is_red);
    }

    /// Puts a packet on the list of everyone who gets it; starts those who waited for it.
    pub(super) fn forward(
        &mut self,
        id: TrackId,
        layer: usize,
        packet: Arc<Packet>,
        params: &str0m::format::PayloadParams,
        is_red: bool,
    ) {
        let Some(track) = self.tracks.get_mut(&id) else {
            return;
        };
        let clock_rate = track.clock_rate();
        let waits = self.is_behind && track.publication.kind == TrackKind::Video;
        let is_red_allowed = track.publication.is_red_allowed;
        let mut wrapped = Wrapped::default();
        let mut redundant: Vec<(Arc<Packet>, Outgoing)> = Vec::new();
        let mut behind: Vec<Arc<Packet>> = Vec::new();
        let mut late: Vec<(usize, Arc<Packet>)> = Vec::new();
        self.receivers.clear();
        for at in 0..track.subscriptions.len() {
            let Some(mid) = track.subscriptions[at].mid else {
                continue;
            };
            let starts = track.subscriptions[at].target == Some(layer)
                && track.subscriptions[at].current != Some(layer)
                && packet.starts_keyframe
                && !waits
                && track.layers[layer].recent.can_start_with(&packet);
            if starts {
                let step = track.subscriptions[at].current.and_then(|old| {
                    let new = track.layers[layer].wall_clock(packet.timestamp, clock_rate)?;
                    let last = track.layers[old].recent.newest()?;
                    let old = track.layers[old].wall_clock(last.timestamp, clock_rate)?;
                    Some(((new - old) * f64::from(clock_rate)) as i64)
                });
                let one = &mut track.subscriptions[at];
                let source = Source { track: id, layer };
                one.rewrite.switch(source, &packet, step, &mut rand::rng());
                one.filter.begin(&packet);
                one.current = Some(layer);
                if behind.is_empty() {
                    let recent = &track.layers[layer].recent;
                    behind = recent.after(packet.sequence).cloned().collect();
                }
                late.extend(behind.iter().map(|packet| (at, packet.clone())));
            }
            let one = &mut track.subscriptions[at];
            if one.current != Some(layer) {
                continue;
            }
            let Some(peer) = self.peers.get_mut(&one.connection) else {
                continue;
            };
            if packet.starts_keyframe {
                peer.outlet.estimate.keyframe(packet.arrived);
            }
            let mapped = match one.mapped {
                Some(mapped) if mapped.source == packet.payload_type => mapped,
                _ => {
                    let mapped =
                        peer.send_as(mid, packet.payload_type, params, is_red, is_red_allowed);
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
            // One that waits has its number too, by which its receiver asks for it.
            if let Some((numbers, marker)) = one.take(&packet)
                && !waits
            {
                let to = Outgoing {
                    connection: one.connection,
                    mid,
                    payload_type,
                    unwrap_red: mapped.unwrap_red,
                    marker,
                    numbers,
                };
                let depth = peer.redundancy.depth();
                // What comes as RED has one along already.
                if let Some((red, opus)) = mapped.red.filter(|_| depth > usize::from(is_red))
                    && let Some(made) =
                        wrapped.of(&packet, is_red, &track.layers[layer].recent, depth, opus)
                {
                    redundant.push((
                        made,
                        Outgoing {
                            payload_type: red,
                            ..to
                        },
                    ));
                } else if let Some((_, opus)) = mapped.red.filter(|_| is_red)
                    && peer.redundancy.is_left_out()
                {
                    self.receivers.push(Outgoing {
                        payload_type: opus,
                        unwrap_red: true,
                        ..to
                    });
                } else {
                    self.receivers.push(to);
                }
            }
        }
        track.layers[layer].recent.remember(&packet);
        self.send(&packet);
        for (packet, to) in redundant {
            self.receivers.push(to);
            self.send(&packet);
        }
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
            if let Some((numbers, marker)) = one.take(&packet) {
                let connection = one.connection;
                self.receivers = vec![Outgoing {
                    connection,
                    mid,
                    payload_type,
                    unwrap_red,
                    marker,
                    numbers,
                }];
                self.send(&packet);
            }
        }
    }

    pub(super) fn send(&mut self, packet: &Arc<Packet>) {
        for to in self.receivers.drain(..) {
            if let Some(peer) = self.peers.get_mut(&to.connection)
                && peer.outlet.push(packet, &to)
            {
                self.to_seal.push(to.connection);
            }
        }
    }

    pub(super) fn report_levels(&mut self) {
        let mut levels = Vec::new();
        for track in self.tracks.values_mut() {
            let (sum, count) = std::mem::take(&mut track.loudness);
            track.level = sum.checked_div(count).map(|level| level as u8);
            levels.extend(track.level.map(|level| (track.id, level)));
        }
        let is_loud = !levels.is_empty();
        if is_loud || self.was_loud {
            self.events.push_back(Event::AudioLevels(levels));
        }
        self.was_loud = is_loud;
    }
}
