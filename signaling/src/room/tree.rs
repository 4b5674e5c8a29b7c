//! The room's part of a conference that spreads over a tree of nodes.
//!
//! People at other nodes who are on stage are participants like others, without a connection: their
//! tracks come over lines, under ids that whoever joins rooms and tree chose. That one is told ([`News`])
//! who is here, what they publish, and what is wanted of tracks from elsewhere.
//!
//! Invariants:
//! - A track from elsewhere is published and ended in the media core by who showed it here, never by the
//!   room.
//! - Wishes are what clients asked for, and not what lines leave of it: a picture that is paused for
//!   a thin line is wanted still.

// Clients of older versions read these fields.
#![allow(deprecated)]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use livekit_protocol as proto;
use proto::{DisconnectReason, TrackSource, TrackType, participant_info::State};
use sfu::{Codec, Command, ConnectionId, Encoding, Quality, Selection, TrackId};

use super::backup::Encoded;
use super::publish::layers_of;
use super::{Effect, Moment, Participant, ParticipantKey, Room, Track, make_sid, texts_size};
use crate::cascade::{Source, TrackInfo};
use crate::token::ConferenceGrant;

/// How often what is wanted of a track is told at once between two ticks; what changes more often is told
/// with the tick. So no client makes the tree busy by changing its mind quickly.
const WANTED_BURST: u8 = 8;

/// What is told of a room to whoever joins it to the tree.
#[derive(Clone, Debug)]
pub enum News {
    /// Somebody of the conference is here.
    Joined {
        /// By which the room tells people apart.
        who: ParticipantKey,
        /// As granted.
        identity: Arc<str>,
        /// As shown.
        name: Arc<str>,
        /// As granted.
        grant: Arc<ConferenceGrant>,
    },
    /// And is here no longer.
    Left {
        /// Who.
        who: ParticipantKey,
    },
    /// What somebody publishes from now on.
    Tracks {
        /// Who.
        who: ParticipantKey,
        /// All of it.
        tracks: Vec<Published>,
    },
    /// Somebody opened or closed the microphone.
    Microphone {
        /// Who.
        who: ParticipantKey,
        /// Whether it is open.
        is_open: bool,
    },
    /// How loud those are who speak, in dB below full scale (RFC 6464).
    Loudness(Vec<(ParticipantKey, u8)>),
    /// What clients here want of a track from elsewhere.
    Wanted {
        /// Which.
        track: TrackId,
        /// None: nobody wants it.
        quality: Option<Quality>,
    },
}

/// A track of somebody here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// In the media core.
    pub track: TrackId,
    /// What others are told of it, but for its number.
    pub source: Source,
    /// As in [`TrackInfo`].
    pub sizes: [(u16, u16); 3],
}

/// Somebody at another node.
#[derive(Clone, Debug)]
pub struct Elsewhere {
    /// By which the conference tells its people apart.
    pub identity: String,
    /// As shown.
    pub name: String,
    /// As shown to clients.
    pub attributes: HashMap<String, String>,
    /// UTC milliseconds.
    pub joined: i64,
    /// Whether the microphone is closed.
    pub is_muted: bool,
    /// What the media core has of it here.
    pub tracks: Vec<(TrackId, TrackInfo)>,
}

/// What viewers want of one track.
#[derive(Debug, Default)]
struct Wanted {
    /// How many want it in which quality at most.
    viewers: [u32; 3],
    told: Option<Quality>,
    /// How often it was told since the last tick.
    times: u8,
}

impl Wanted {
    /// The best that anybody wants, if that is to be told now.
    fn news(&mut self) -> Option<Option<Quality>> {
        let best = [Quality::High, Quality::Medium, Quality::Low];
        let best = best
            .into_iter()
            .find(|quality| self.viewers[*quality as usize] > 0);
        if best == self.told || self.times >= WANTED_BURST {
            return None;
        }
        self.told = best;
        self.times += 1;
        Some(best)
    }
}

/// What was last told of somebody here.
#[derive(Debug, Default)]
struct Told {
    tracks: Vec<Published>,
    is_microphone_closed: bool,
}

/// What a room of the tree keeps.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// How many of the participants are elsewhere.
    pub(super) elsewhere: usize,
    /// How many are in the conference at other nodes, on stage or not.
    pub(super) others: u32,
    told: HashMap<ParticipantKey, Told>,
    wanted: BTreeMap<TrackId, Wanted>,
}

#[cfg(test)]
impl Tree {
    /// What was last told to be wanted of a track.
    pub(super) fn told(&self, track: TrackId) -> Option<Quality> {
        self.wanted.get(&track)?.told
    }
}

fn source_of(track: &Track) -> Source {
    match TrackSource::try_from(track.source()) {
        Ok(TrackSource::Camera) => Source::Camera,
        Ok(TrackSource::Microphone) => Source::Microphone,
        Ok(TrackSource::ScreenShare) => Source::Screen,
        Ok(TrackSource::ScreenShareAudio) => Source::ScreenSound,
        _ if track.is_video() => Source::Camera,
        _ => Source::Microphone,
    }
}

fn track_source(source: Source) -> TrackSource {
    match source {
        Source::Camera => TrackSource::Camera,
        Source::Microphone => TrackSource::Microphone,
        Source::Screen => TrackSource::ScreenShare,
        Source::ScreenSound => TrackSource::ScreenShareAudio,
    }
}

/// LiveKit's description of a picture's layers.
fn video_layers(sizes: &[(u16, u16); 3]) -> Vec<proto::VideoLayer> {
    let qualities = [
        proto::VideoQuality::Low,
        proto::VideoQuality::Medium,
        proto::VideoQuality::High,
    ];
    let all = sizes.iter().zip(qualities);
    all.filter(|((width, height), _)| *width > 0 && *height > 0)
        .map(|((width, height), quality)| proto::VideoLayer {
            quality: quality as i32,
            width: u32::from(*width),
            height: u32::from(*height),
            ..Default::default()
        })
        .collect()
}

fn sizes_of(track: &Track) -> [(u16, u16); 3] {
    let mut sizes = [(0, 0); 3];
    for layer in track.layers() {
        let within = |pixels: u32| u16::try_from(pixels).unwrap_or(u16::MAX);
        sizes[layer.quality as usize] = (within(layer.width), within(layer.height));
    }
    sizes
}

impl Room {
    /// From now on the room is a conference of the tree.
    pub fn spread(&mut self) {
        self.tree.get_or_insert_default();
    }

    /// Whether it is one.
    pub fn is_spread(&self) -> bool {
        self.tree.is_some()
    }

    pub(super) fn tell_tree(&mut self, news: News) {
        if self.tree.is_some() {
            self.effects.push(Effect::Tree(news));
        }
    }

    // ---- who is here --------------------------------------------------------------------------

    /// Tells what somebody here publishes, where that has changed.
    pub(super) fn tell_published(&mut self, key: ParticipantKey) {
        let (Some(tree), Some(participant)) = (&mut self.tree, self.participants.get(&key)) else {
            return;
        };
        if !participant.is_of_tree {
            return;
        }
        let of = |id: &TrackId| Some((*id, self.tracks.get(id)?));
        let live = participant.tracks.iter().filter_map(of);
        let live: Vec<(TrackId, &Track)> = live.filter(|(_, track)| track.is_live()).collect();
        let is_told = |track: &Track| !track.is_video() || !track.info.muted;
        let published = live.iter().filter(|(_, track)| is_told(track));
        let tracks: Vec<Published> = published
            .map(|(id, track)| Published {
                track: *id,
                source: source_of(track),
                sizes: sizes_of(track),
            })
            .collect();
        let mut microphones = live
            .iter()
            .filter(|(_, track)| source_of(track) == Source::Microphone)
            .peekable();
        let told = tree.told.entry(key).or_default();
        let is_closed = match microphones.peek() {
            Some(_) => microphones.all(|(_, track)| track.info.muted),
            None => told.is_microphone_closed,
        };
        let mut news = Vec::new();
        // What closes a microphone is said before what asks for its sound.
        if std::mem::replace(&mut told.is_microphone_closed, is_closed) != is_closed {
            let is_open = !is_closed;
            news.push(News::Microphone { who: key, is_open });
        }
        if told.tracks != tracks {
            told.tracks.clone_from(&tracks);
            news.push(News::Tracks { who: key, tracks });
        }
        for one in news {
            self.tell_tree(one);
        }
    }

    /// Tells how loud people here are.
    pub(super) fn tell_loudness(&mut self, loudest: &BTreeMap<ParticipantKey, u8>) {
        if self.tree.is_none() {
            return;
        }
        let is_here = |key: &ParticipantKey| {
            let one = self.participants.get(key);
            one.is_some_and(|one| one.is_of_tree)
        };
        let here = loudest.iter().filter(|(key, _)| is_here(key));
        let here: Vec<(ParticipantKey, u8)> = here.map(|(key, level)| (*key, *level)).collect();
        if !here.is_empty() {
            self.tell_tree(News::Loudness(here));
        }
    }

    pub(super) fn left_tree(&mut self, key: ParticipantKey, participant: &Participant) {
        let Some(tree) = &mut self.tree else { return };
        tree.told.remove(&key);
        if participant.is_elsewhere {
            tree.elsewhere -= 1;
        }
        for (id, subscription) in &participant.subscriptions {
            self.want(*id, Some(subscription.selection()), None);
        }
        if participant.is_of_tree {
            self.tell_tree(News::Left { who: key });
        }
    }

    /// The identity of somebody of the conference who is here.
    pub fn identity_of(&self, who: ParticipantKey) -> Option<&str> {
        let one = self.participants.get(&who);
        one.filter(|one| one.is_of_tree)
            .map(|one| one.info.identity.as_str())
    }

    /// A stay is over, as the conference says.
    pub fn end_stay(&mut self, who: ParticipantKey, reason: DisconnectReason, at: Moment) {
        self.now = at.now;
        if self.identity_of(who).is_some() {
            let action = Some(proto::leave_request::Action::Disconnect);
            self.remove(who, reason, action, at.now);
        }
    }

    /// What the conference lets somebody here do.
    pub fn set_rights(
        &mut self,
        who: ParticipantKey,
        may_be_heard: bool,
        may_publish: bool,
        at: Moment,
    ) {
        self.now = at.now;
        let Some(one) = self.participants.get(&who).filter(|one| one.is_of_tree) else {
            return;
        };
        let identity = one.info.identity.clone();
        let mut permission = one.permission().clone();
        let can_publish = one.is_publishing_granted && may_publish;
        if permission.can_publish != can_publish {
            permission.can_publish = can_publish;
            self.set_permission(who, permission);
        }
        if may_be_heard {
            return;
        }
        let Some(one) = self.participants.get(&who) else {
            return;
        };
        let open = one.tracks.iter().filter_map(|id| self.tracks.get(id));
        let open = open.filter(|track| source_of(track) == Source::Microphone && !track.info.muted);
        let sids: Vec<String> = open.map(|track| track.info.sid.clone()).collect();
        for sid in sids {
            let _ = self.mute_published(&identity, &sid, true);
        }
    }

    // ---- who is elsewhere ---------------------------------------------------------------------

    /// How many there are at other nodes.
    pub fn set_others(&mut self, others: u32, at: Moment) {
        self.now = at.now;
        if let Some(tree) = &mut self.tree {
            tree.others = others;
        }
    }

    /// Shows somebody at another node, or what has changed there.
    pub fn show(&mut self, one: Elsewhere, at: Moment) {
        self.now = at.now;
        if self.tree.is_none() {
            return;
        }
        let known = self.by_identity.get(&one.identity).copied();
        let key = match known {
            Some(key) if self.participants[&key].is_elsewhere => key,
            here => {
                if let Some(here) = here {
                    let action = Some(proto::leave_request::Action::Disconnect);
                    self.remove(here, DisconnectReason::DuplicateIdentity, action, at.now);
                }
                self.bring(&one, at)
            }
        };
        let is_same = |info: &proto::ParticipantInfo| {
            info.name == one.name && info.attributes == one.attributes
        };
        let participant = self.participants.get_mut(&key).expect("it is here now");
        let mut is_changed = known.is_none() || !is_same(&participant.info);
        let old = texts_size("", &participant.info.attributes);
        participant.info.name.clone_from(&one.name);
        participant.info.attributes.clone_from(&one.attributes);
        self.text_bytes = self.text_bytes - old + texts_size("", &one.attributes);
        let gone: Vec<TrackId> = participant
            .tracks
            .iter()
            .copied()
            .filter(|id| one.tracks.iter().all(|(kept, _)| kept != id))
            .collect();
        for id in gone {
            is_changed |= self.drop_track(id).is_some();
        }
        let mut new = Vec::new();
        for (id, info) in &one.tracks {
            let is_muted = info.source == Source::Microphone && one.is_muted;
            match self.tracks.get_mut(id) {
                Some(track) => {
                    is_changed |= std::mem::replace(&mut track.info.muted, is_muted) != is_muted;
                }
                None => {
                    self.bring_track(key, *id, info, is_muted);
                    new.push(*id);
                }
            }
        }
        if is_changed || !new.is_empty() {
            self.announce(key, false);
        }
        if !new.is_empty() {
            // Clients take a track only of a participant they know.
            self.tell_news_of(key);
        }
        for id in new {
            self.reconcile_track(id);
        }
        self.reconcile_views();
    }

    fn bring(&mut self, one: &Elsewhere, at: Moment) -> ParticipantKey {
        let key = ParticipantKey(self.next_number());
        let connection = ConnectionId(self.next_id());
        let info = proto::ParticipantInfo {
            sid: make_sid(&mut self.random, "PA_"),
            identity: one.identity.clone(),
            state: State::Active as i32,
            joined_at: one.joined / 1000,
            joined_at_ms: one.joined,
            version: 1,
            permission: Some(proto::ParticipantPermission {
                can_publish: true,
                ..Default::default()
            }),
            ..Default::default()
        };
        self.by_identity.insert(one.identity.clone(), key);
        let participant = Participant {
            is_elsewhere: true,
            is_connected: true,
            ..Participant::new(key, info, connection, connection, at.now)
        };
        self.participants.insert(key, participant);
        if let Some(tree) = &mut self.tree {
            tree.elsewhere += 1;
        }
        key
    }

    fn bring_track(&mut self, owner: ParticipantKey, id: TrackId, info: &TrackInfo, muted: bool) {
        let is_video = matches!(info.source, Source::Camera | Source::Screen);
        let source = track_source(info.source);
        let layers = video_layers(&info.sizes);
        let (width, height) = layers.last().map_or((0, 0), |one| (one.width, one.height));
        let codec = if is_video { Codec::Vp8 } else { Codec::Opus };
        let sid = make_sid(
            &mut self.random,
            super::publish::sid_prefix(is_video, source as i32),
        );
        let encoded = Encoded {
            is_live: true,
            layers: if is_video {
                layers_of(&layers, width, height)
            } else {
                Vec::new()
            },
            ..Default::default()
        };
        let kind = if is_video {
            TrackType::Video
        } else {
            TrackType::Audio
        };
        let info = proto::TrackInfo {
            sid: sid.clone(),
            r#type: kind as i32,
            source: source as i32,
            muted,
            width,
            height,
            mime_type: codec.mime_type().to_owned(),
            codecs: vec![proto::SimulcastCodecInfo {
                mime_type: codec.mime_type().to_owned(),
                layers: layers.clone(),
                ..Default::default()
            }],
            layers,
            ..Default::default()
        };
        self.by_track_sid.insert(sid, id);
        self.tracks
            .insert(id, Track::of(owner, info, vec![encoded]));
        if let Some(participant) = self.participants.get_mut(&owner) {
            participant.tracks.push(id);
            participant.info.is_publisher = true;
        }
    }

    /// Somebody at another node is no longer on stage.
    pub fn hide(&mut self, identity: &str, at: Moment) {
        self.now = at.now;
        let key = self.by_identity.get(identity).copied();
        if let Some(key) = key.filter(|key| self.participants[key].is_elsewhere) {
            self.remove(key, DisconnectReason::ClientInitiated, None, at.now);
            self.reconcile_views();
        }
    }

    /// The media core told the codec of a track from elsewhere.
    pub(super) fn came_from_elsewhere(&mut self, id: TrackId, codec: Codec) -> bool {
        let Some(track) = self.tracks.get(&id) else {
            return false;
        };
        let owner = self.participants.get(&track.owner());
        let is_elsewhere = owner.is_some_and(|owner| owner.is_elsewhere);
        if is_elsewhere && track.info.mime_type != codec.mime_type() {
            self.codec_changed(id, Encoding::Primary, codec);
        }
        is_elsewhere
    }

    /// A track from elsewhere is shown no more: who is sent it is sent it no longer. `false`: it is of
    /// somebody here.
    pub(super) fn forget_elsewhere(&mut self, id: TrackId, owner: ParticipantKey) -> bool {
        let owner = self.participants.get(&owner);
        if !owner.is_some_and(|owner| owner.is_elsewhere) {
            return false;
        }
        let viewers = self.participants.values();
        let viewers = viewers.filter(|one| one.subscriptions.contains_key(&id));
        let viewers: Vec<ConnectionId> = viewers.map(|one| one.subscriber).collect();
        for connection in viewers {
            self.media(Command::Unsubscribe {
                connection,
                track: id,
            });
        }
        if let Some(tree) = &mut self.tree
            && tree
                .wanted
                .remove(&id)
                .is_some_and(|one| one.told.is_some())
        {
            self.tell_tree(News::Wanted {
                track: id,
                quality: None,
            });
        }
        true
    }

    /// Somebody's wish for a track has changed.
    pub(super) fn want(
        &mut self,
        id: TrackId,
        before: Option<Selection>,
        after: Option<Selection>,
    ) {
        let Some(tree) = &mut self.tree else { return };
        let Some(track) = self.tracks.get(&id) else {
            return;
        };
        let owner = self.participants.get(&track.owner());
        if !owner.is_some_and(|owner| owner.is_elsewhere) {
            return;
        }
        let wanted = tree.wanted.entry(id).or_default();
        let quality =
            |one: Option<Selection>| one.filter(|one| one.is_enabled).map(|one| one.quality);
        if let Some(old) = quality(before) {
            let viewers = &mut wanted.viewers[old as usize];
            *viewers = viewers.saturating_sub(1);
        }
        if let Some(new) = quality(after) {
            wanted.viewers[new as usize] += 1;
        }
        if let Some(quality) = wanted.news() {
            self.tell_tree(News::Wanted { track: id, quality });
        }
    }

    /// Tells what had to wait.
    pub(super) fn tick_tree(&mut self) {
        let Some(tree) = &mut self.tree else { return };
        let mut news = Vec::new();
        for (id, wanted) in &mut tree.wanted {
            wanted.times = 0;
            let quality = wanted.news();
            news.extend(quality.map(|quality| News::Wanted {
                track: *id,
                quality,
            }));
        }
        for one in news {
            self.tell_tree(one);
        }
        for key in self.participants.keys().copied().collect::<Vec<_>>() {
            self.tell_published(key);
        }
    }
}
