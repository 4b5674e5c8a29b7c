//! Offers and answers, and what comes of them: tracks that are live, subscriptions that are agreed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use str0m::media::Mid;

use super::Shard;
use crate::command::{
    ConnectionId, Encoding, Event, Publication, Quality, Role, Selection, TrackId,
};
use crate::peer::{Announced, Bound, Wanted};
use crate::rewrite::Rewrite;
use crate::subscription::Subscription;
use crate::track::{LayerState, Track};

/// ICE user name fragments remembered per connection: the current one, and the one before it while a
/// restart is under way.
const FRAGMENTS_PER_CONNECTION: usize = 2;

impl Shard {
    pub(super) fn offered(&mut self, id: ConnectionId, sdp: &str, now: Instant) {
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
                self.fail(id, now);
                return;
            }
        };
        for (track, encoding) in answered.ended {
            self.events.push_back(Event::Ended { track, encoding });
            match encoding {
                Encoding::Primary => self.remove_track(track, now),
                Encoding::Backup => self.remove_backup(track, now),
            }
        }
        self.events.push_back(Event::Answer {
            connection: id,
            sdp: answered.sdp,
            mids: answered.mids,
        });
        self.bind(answered.bound);
        self.agree(id, &answered.agreed, now);
        self.after_negotiation(id, now);
    }

    pub(super) fn answered(&mut self, id: ConnectionId, sdp: &str, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        match catch_unwind(AssertUnwindSafe(|| peer.accept_answer(sdp, now))) {
            Ok(Ok(agreed)) => self.agree(id, &agreed, now),
            Ok(Err(reason)) => self.events.push_back(Event::Refused {
                connection: id,
                reason,
            }),
            Err(_) => {
                self.fail(id, now);
                return;
            }
        }
        self.after_negotiation(id, now);
    }

    /// Offers, asks for places, and notes new ICE credentials, as a change may have called for.
    pub(super) fn after_negotiation(&mut self, id: ConnectionId, now: Instant) {
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
        let fragment = peer.user_fragment();
        if !peer.fragments.contains(&fragment) {
            if peer.fragments.len() == FRAGMENTS_PER_CONNECTION {
                let oldest = peer.fragments.remove(0);
                self.by_fragment.remove(&oldest);
            }
            peer.fragments.push(fragment.clone());
            self.by_fragment.insert(fragment, id);
        }
        self.drain(id, now);
    }

    pub(super) fn publish(
        &mut self,
        id: ConnectionId,
        track: TrackId,
        publication: Publication,
        now: Instant,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.announced.push(Announced {
            track,
            encoding: Encoding::Primary,
            publication: publication.clone(),
        });
        let name = publication.cid.clone();
        self.tracks
            .insert(track, Track::new(track, id, publication));
        if let Some(relay) = &mut peer.relay {
            relay.taken.insert(name.clone(), track);
            self.take_stream(id, &name, now);
        } else {
            let bound = peer.bind_late();
            self.bind(bound);
        }
        self.drain(id, now);
    }

    pub(super) fn publish_backup(
        &mut self,
        id: TrackId,
        cid: String,
        replaces: bool,
        now: Instant,
    ) {
        let Some(track) = self.tracks.get_mut(&id) else {
            return;
        };
        let owner = track.owner;
        let (Some(codec), Some(peer)) = (track.publication.backup, self.peers.get_mut(&owner))
        else {
            return;
        };
        if track.encodings[Encoding::Primary].mid.is_none() || peer.has_backup(id) {
            return;
        }
        track.encodings.backup_replaces = replaces;
        peer.announced.push(Announced {
            track: id,
            encoding: Encoding::Backup,
            publication: Publication {
                cid,
                codecs: vec![codec],
                ..track.publication.clone()
            },
        });
        let bound = peer.bind_late();
        self.bind(bound);
        self.drain(owner, now);
    }

    fn remove_backup(&mut self, id: TrackId, now: Instant) {
        let Some(track) = self.tracks.get_mut(&id) else {
            return;
        };
        track.end_backup();
        let layers = track.layers.len();
        if let Some(peer) = self.peers.get_mut(&track.owner) {
            peer.forget_backup(id, layers);
        }
        self.aim(id, now);
    }

    pub(super) fn bind(&mut self, bound: Vec<Bound>) {
        for Bound {
            track: id,
            encoding,
            mid,
            codec,
            rids,
        } in bound
        {
            let Some(track) = self.tracks.get_mut(&id) else {
                continue;
            };
            let kind = track.publication.kind;
            track.encodings[encoding].mid = Some(mid);
            track.encodings[encoding].codec = Some(codec);
            let mut layers = if rids.is_empty() {
                vec![LayerState::new(Quality::High, None, kind)]
            } else {
                let count = rids.len();
                let is_livekit = rids
                    .iter()
                    .all(|rid| ["q", "h", "f"].contains(&rid.to_string().as_str()));
                rids.into_iter()
                    .enumerate()
                    .map(|(at, rid)| {
                        let name = rid.to_string();
                        let name = if is_livekit { name.as_str() } else { "" };
                        LayerState::new(quality_of(name, at, count), Some(rid), kind)
                    })
                    .collect()
            };
            layers
                .iter_mut()
                .for_each(|layer| layer.encoding = encoding);
            track.layers.extend(layers);
            self.events.push_back(Event::Published {
                track: id,
                encoding,
                mid: mid.to_string(),
                codec,
            });
            self.offer_streams(id, self.now);
        }
    }

    pub(super) fn subscribe(
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
        if track.subscription(connection).is_some()
            || matches!(peer.role, Role::Publish | Role::View)
        {
            return;
        }
        let clock_rate = track.clock_rate();
        let rewrite = Rewrite::new(clock_rate);
        let selection = Selection {
            // Over a line between nodes nothing is sent before it is wanted there.
            is_enabled: selection.is_enabled && peer.relay.is_none(),
            ..selection
        };
        track.add(Subscription::new(connection, selection, rewrite));
        peer.want(Wanted {
            track: id,
            kind: track.publication.kind,
            stream_name,
            track_name,
        });
    }

    /// Sends a track in a viewer's place instead of what was sent there.
    pub(super) fn place(
        &mut self,
        connection: ConnectionId,
        mid: Mid,
        track: Option<TrackId>,
        selection: Selection,
        now: Instant,
    ) {
        let sent = self
            .peers
            .get_mut(&connection)
            .and_then(|peer| peer.view_place(mid))
            .and_then(|place| place.wanted.take());
        if let Some(sent) = sent {
            self.end_subscription(connection, sent.track);
        }
        let place = self
            .peers
            .get_mut(&connection)
            .and_then(|peer| peer.view_place(mid));
        let (Some(place), Some(id)) = (place, track) else {
            return;
        };
        let Some(track) = self.tracks.get_mut(&id) else {
            return;
        };
        let kind = track.publication.kind;
        if place.kind != kind || track.subscription(connection).is_some() {
            return;
        }
        place.wanted = Some(Wanted {
            track: id,
            kind,
            stream_name: String::new(),
            track_name: String::new(),
        });
        let rewrite = place.rewrite.take();
        let clock_rate = track.clock_rate();
        let rewrite = rewrite.unwrap_or_else(|| Rewrite::new(clock_rate));
        track.add(Subscription::new(connection, selection, rewrite));
        let peer = self.peers.get(&connection);
        if peer.is_some_and(|peer| peer.is_connected) {
            self.agree(connection, &[(id, mid)], now);
        }
    }

    /// Begins to send what stands in a viewer's places. Not sooner than this: a player that misses
    /// the first keyframe may not ask for another.
    pub(super) fn begin_places(&mut self, connection: ConnectionId, now: Instant) {
        let placed = self
            .peers
            .get(&connection)
            .map(|peer| peer.placed())
            .unwrap_or_default();
        self.agree(connection, &placed, now);
    }

    /// Takes a connection from a track's subscribers.
    pub(super) fn end_subscription(&mut self, connection: ConnectionId, id: TrackId) {
        let Some(track) = self.tracks.get_mut(&id) else {
            return;
        };
        let ended = track.remove(connection);
        if let Some(ended) = ended
            && let (Some(mid), Some(peer)) = (ended.mid, self.peers.get_mut(&connection))
        {
            peer.keep_numbers(mid, ended.rewrite);
        }
    }

    /// Notes the m-lines of tracks. What a line leaves of them is known before their first keyframe:
    /// within a stream, going up again would cost another one.
    pub(super) fn agree(
        &mut self,
        connection: ConnectionId,
        agreed: &[(TrackId, Mid)],
        now: Instant,
    ) {
        let mut tracks = Vec::new();
        for (id, mid) in agreed.iter().copied() {
            let (Some(track), Some(peer)) = (self.tracks.get_mut(&id), self.peers.get(&connection))
            else {
                continue;
            };
            let takes = peer.takes(mid);
            let (encoding, _) = track.encodings.of(takes, track.common());
            if let Some(one) = track.subscription(connection) {
                one.mid = Some(mid);
                one.takes = takes;
                one.encoding = encoding;
                tracks.push(id);
                self.events.push_back(Event::Subscribed {
                    connection,
                    track: id,
                });
            }
        }
        if tracks.is_empty() {
            return;
        }
        tracks.extend(self.share_line(connection, now));
        for track in tracks {
            self.aim(track, now);
        }
    }

    pub(super) fn remove_track(&mut self, id: TrackId, now: Instant) {
        let Some(track) = self.tracks.remove(&id) else {
            return;
        };
        if let Some(peer) = self.peers.get_mut(&track.owner) {
            peer.forget_track(id);
            self.written.insert(track.owner);
        }
        for one in track.subscriptions {
            if let Some(peer) = self.peers.get_mut(&one.connection) {
                peer.unwant(id);
                if let Some(mid) = one.mid {
                    peer.keep_numbers(mid, one.rewrite);
                }
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
