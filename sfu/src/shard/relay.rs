//! Lines between nodes: what is offered to the other end, and what is taken of what it offers.

use std::time::Instant;

use super::Shard;
use crate::command::{ConnectionId, Encoding, Event, Quality, TrackId, TrackKind};
use crate::relay::{End, RelayEnd, Word};
use crate::track::LayerState;

impl Shard {
    pub(super) fn tell_end(&mut self, id: ConnectionId) {
        if let Some(peer) = self.peers.get_mut(&id) {
            let end = peer.relay_end(&self.config.candidates);
            self.events.push_back(Event::RelayEnd {
                connection: id,
                end,
            });
        }
    }

    pub(super) fn join(&mut self, id: ConnectionId, other: &RelayEnd, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        match peer.join(other, now) {
            Ok(()) => {
                if peer
                    .relay
                    .as_ref()
                    .is_some_and(|relay| relay.end == End::Lower)
                {
                    // Answers to our checks are told by where they come from.
                    for address in &other.addresses {
                        self.by_address.insert(*address, id);
                        peer.addresses.push(*address);
                    }
                }
                self.drain(id, now);
            }
            Err(reason) => self.events.push_back(Event::Refused {
                connection: id,
                reason,
            }),
        }
    }

    /// How many streams the other end of a line offers.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn streams_offered(&self, id: ConnectionId) -> usize {
        let relay = self.peers.get(&id).and_then(|peer| peer.relay.as_ref());
        relay.map_or(0, |relay| relay.offered.len())
    }

    /// Offers a track that is live to the other end of a line that was subscribed to it.
    pub(super) fn offer_stream(&mut self, id: ConnectionId, track: TrackId, now: Instant) {
        let (Some(peer), Some(state)) = (self.peers.get_mut(&id), self.tracks.get(&track)) else {
            return;
        };
        let Some(codec) = state.encodings[Encoding::Primary].codec else {
            return;
        };
        if let Some((mid, word)) = peer.offer_stream(track, codec, &state.publication) {
            peer.say(&word);
            self.agree(id, &[(track, mid)], now);
            self.written.insert(id);
        }
    }

    /// Offers a track that became live to all lines that wait for it.
    pub(super) fn offer_streams(&mut self, track: TrackId, now: Instant) {
        let Some(state) = self.tracks.get(&track) else {
            return;
        };
        let waiting = state.subscriptions.iter().filter(|one| one.mid.is_none());
        let lines: Vec<ConnectionId> = waiting
            .map(|one| one.connection)
            .filter(|id| self.peers.get(id).is_some_and(|peer| peer.relay.is_some()))
            .collect();
        for id in lines {
            self.offer_stream(id, track, now);
        }
    }

    /// Takes a track from a line, where its other end offers it.
    pub(super) fn take_stream(&mut self, id: ConnectionId, name: &str, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let taken = peer.relay.as_ref().and_then(|relay| relay.taken.get(name));
        let Some(track) = taken.and_then(|track| self.tracks.get_mut(track)) else {
            return;
        };
        let kind = track.publication.kind;
        let Some((track_id, stream)) = peer.take_stream(name, kind) else {
            return;
        };
        let Some(codec) = stream.codec() else {
            return;
        };
        track.publication.is_screen = stream.is_screen;
        track.publication.is_red_allowed = stream.is_red_allowed;
        let encoding = &mut track.encodings[Encoding::Primary];
        encoding.mid = Some(stream.mid.as_str().into());
        encoding.codec = Some(codec);
        encoding.told_wanted = None;
        if track.layers.is_empty() {
            track
                .layers
                .push(LayerState::new(Quality::High, None, kind));
            self.events.push_back(Event::Published {
                track: track_id,
                encoding: Encoding::Primary,
                mid: stream.mid.clone(),
                codec,
            });
        }
        if kind == TrackKind::Audio {
            peer.say_wanted(track_id, Some(Quality::High));
        }
        self.written.insert(id);
        self.aim(track_id, now);
        self.offer_streams(track_id, now);
    }

    /// The other end of a line said something.
    pub(crate) fn heard_word(&mut self, id: ConnectionId, bytes: &[u8], now: Instant) {
        let Some(word) = Word::read(bytes) else {
            self.lose(id, "the other end of the line said what is no word", now);
            return;
        };
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        match word {
            Word::Offer(stream) => {
                self.withdrawn(id, &stream.name, now);
                let Some(relay) = self.peers.get_mut(&id).and_then(|peer| peer.relay.as_mut())
                else {
                    return;
                };
                if !relay.may_offer(&stream) {
                    self.lose(
                        id,
                        "the other end of the line offered a stream that can't be",
                        now,
                    );
                    return;
                }
                let name = stream.name.clone();
                relay.offered.insert(name.clone(), stream);
                self.take_stream(id, &name, now);
            }
            Word::End { name } => self.withdrawn(id, &name, now),
            Word::Want { name, quality } => {
                let Some(track) = peer.offered_as(&name) else {
                    // It crossed the stream's end.
                    return;
                };
                let one = self
                    .tracks
                    .get_mut(&track)
                    .and_then(|track| track.subscription(id));
                if let Some(one) = one {
                    one.selection.is_enabled = quality.is_some();
                    one.selection.quality = quality.map_or(Quality::Low, Into::into);
                    for track in self.share_line(id, now) {
                        self.aim(track, now);
                    }
                    self.aim(track, now);
                }
            }
        }
    }

    /// What was offered under a name is no longer to be had. The track stays, and goes on when it is
    /// offered again.
    fn withdrawn(&mut self, id: ConnectionId, name: &str, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some(relay) = peer.relay.as_mut() else {
            return;
        };
        let Some(stream) = relay.offered.remove(name) else {
            return;
        };
        let taken = relay.taken.get(name).copied();
        peer.drop_stream(&stream);
        self.written.insert(id);
        let Some((id, track)) = taken.and_then(|id| Some((id, self.tracks.get_mut(&id)?))) else {
            return;
        };
        track.encodings[Encoding::Primary].mid = None;
        for layer in &mut track.layers {
            layer.end();
        }
        for one in &mut track.subscriptions {
            one.current = None;
        }
        self.aim(id, now);
    }
}
