//! Who receives what: wishes, permission, layers, and what publishers need not send.

// Clients of older versions read these fields.
#![allow(deprecated)]

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use livekit_protocol as proto;
use proto::signal_response::Message;
use sfu::{Command, ConnectionId, Encoding, Layer, Quality, Selection, TrackId};

use super::backup::Encoded;
use super::{
    CallError, LAYER_HOLD, NEWS_LEAST, Participant, ParticipantKey, Room, TRACK_IDS_BOUND, Track,
};

/// How long after a track was agreed its publisher is told again which layers are wanted. A client knows its own track
/// only some time after the answer, and a busy one long after it; what comes before goes unheard, and a backup codec that
/// was asked for then would never come.
const WANTED_REPEATED: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
];

/// A track being sent to a participant.
#[derive(Debug)]
pub struct Subscription {
    selection: Selection,
    pub(super) is_agreed: bool,
    /// The participant's line has no room for it.
    pub(super) is_paused_for_line: bool,
}

/// How a client shows a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    is_disabled: bool,
    quality: i32,
    width: u32,
    height: u32,
    /// Pictures a second; 0: as many as there are.
    frame_rate: u32,
    /// More than 0: before others, on a thin line.
    priority: u32,
}

/// Whom a publisher lets have its tracks.
#[derive(Debug, Default)]
pub(super) enum Allow {
    /// Everybody.
    #[default]
    Everybody,
    /// By identity or sid, which tracks; `None` is all.
    Only(HashMap<String, Option<HashSet<String>>>),
}

impl Subscription {
    pub(super) fn selection(&self) -> Selection {
        self.selection
    }

    pub(super) fn new(selection: Selection) -> Subscription {
        Subscription {
            selection,
            is_agreed: false,
            is_paused_for_line: false,
        }
    }
}

impl Allow {
    fn allows(&self, identity: &str, sid: &str, track_sid: &str) -> bool {
        match self {
            Allow::Everybody => true,
            Allow::Only(list) => [identity, sid].into_iter().any(|name| {
                list.get(name).is_some_and(|tracks| {
                    tracks
                        .as_ref()
                        .is_none_or(|tracks| tracks.contains(track_sid))
                })
            }),
        }
    }
}

/// How much larger than a layer a picture may be shown before the next layer is called for.
/// A tile a few pixels over a layer's size is not worth twice the bits.
const SIZE_TOLERANCE: f32 = 1.1;

/// The lowest layer whose size covers the shown size.
fn covering(layers: &[Layer], width: u32, height: u32) -> Quality {
    let covers = |have: u32, shown: u32| have as f32 * SIZE_TOLERANCE >= shown as f32;
    layers
        .iter()
        .filter(|layer| layer.width > 0 && layer.height > 0)
        .find(|layer| covers(layer.width, width) && covers(layer.height, height))
        .map_or(Quality::High, |layer| layer.quality)
}

fn select(settings: Option<&Settings>, layers: &[Layer], is_adaptive: bool) -> Selection {
    let Some(settings) = settings else {
        // An adaptive client says soon how large it shows the track; until then the first
        // picture comes soonest in the smallest layer.
        let quality = if is_adaptive && layers.len() > 1 {
            Quality::Low
        } else {
            Quality::High
        };
        return Selection::of(quality);
    };
    let off = settings.quality == proto::VideoQuality::Off as i32;
    let quality = if settings.width > 0 && settings.height > 0 {
        covering(layers, settings.width, settings.height)
    } else {
        match proto::VideoQuality::try_from(settings.quality) {
            Ok(proto::VideoQuality::Low) => Quality::Low,
            Ok(proto::VideoQuality::Medium) => Quality::Medium,
            _ => Quality::High,
        }
    };
    Selection {
        is_enabled: !settings.is_disabled && !off,
        quality,
        area: settings.width.saturating_mul(settings.height),
        is_pinned: settings.priority > 0,
        frame_rate: settings.frame_rate,
    }
}

/// The name of a codec as clients write it, such as `vp8`.
fn bare_name(mime_type: &str) -> String {
    mime_type
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .to_lowercase()
}

/// Which qualities a publisher shall send, of three always.
fn qualities_of(encoded: &Encoded) -> Vec<proto::SubscribedQuality> {
    let offered: BTreeSet<Quality> = encoded.layers.iter().map(|layer| layer.quality).collect();
    // With fewer layers than three, wanting one that is not offered wants the next lower. Of a backup
    // that is not published nothing is offered yet.
    let best = encoded.told_wanted.map(|told| {
        offered
            .iter()
            .rev()
            .find(|quality| **quality <= told)
            .or(offered.first())
            .copied()
            .unwrap_or(told)
    });
    [
        (Quality::Low, proto::VideoQuality::Low),
        (Quality::Medium, proto::VideoQuality::Medium),
        (Quality::High, proto::VideoQuality::High),
    ]
    .into_iter()
    .map(|(quality, name)| proto::SubscribedQuality {
        quality: name as i32,
        enabled: best.is_some_and(|best| quality <= best),
    })
    .collect()
}

/// The stream that a track shares with what is seen or heard together with it. Browsers play tracks
/// of one stream in time with each other. Not over two connections: over one, answers say which track
/// is sent on which m-line, but over two a client learns a track's SID from its id or its stream's,
/// and a browser keeps a track's first id when its m-line is used again.
fn stream_of(source: proto::TrackSource) -> Option<&'static str> {
    match source {
        proto::TrackSource::Camera | proto::TrackSource::Microphone => Some("camera"),
        proto::TrackSource::ScreenShare | proto::TrackSource::ScreenShareAudio => {
            Some("screen_share")
        }
        proto::TrackSource::Unknown => None,
    }
}

fn is_wanted(subscriber: &Participant, id: TrackId, track: &Track) -> bool {
    track.is_live()
        && subscriber.permission().can_subscribe
        && subscriber
            .wishes
            .get(&id)
            .copied()
            .unwrap_or(subscriber.is_auto_subscribe)
}

fn is_allowed(subscriber: &Participant, owner: &Participant, track: &Track) -> bool {
    owner.allow.allows(
        &subscriber.info.identity,
        &subscriber.info.sid,
        &track.info.sid,
    )
}

impl Room {
    fn tracks_by_sid<'a>(&self, sids: impl Iterator<Item = &'a String>) -> BTreeSet<TrackId> {
        sids.take(TRACK_IDS_BOUND)
            .filter_map(|sid| self.by_track_sid.get(sid).copied())
            .collect()
    }

    /// Whether somebody wants another's track and is let have it.
    pub(super) fn may_have(&self, key: ParticipantKey, id: TrackId) -> bool {
        let Some(track) = self.tracks.get(&id) else {
            return false;
        };
        let both = (
            self.participants.get(&key),
            self.participants.get(&track.owner),
        );
        matches!(both, (Some(subscriber), Some(owner)) if owner.key != key
            && is_wanted(subscriber, id, track)
            && is_allowed(subscriber, owner, track))
    }

    /// Makes one subscription what it should be now.
    fn reconcile(&mut self, key: ParticipantKey, id: TrackId) {
        let Some(track) = self.tracks.get(&id) else {
            return;
        };
        let Some(subscriber) = self.participants.get(&key) else {
            return;
        };
        let Some(owner) = self.participants.get(&track.owner) else {
            return;
        };
        if owner.key == key {
            return;
        }
        if let Some(view) = &subscriber.view {
            if view.concerns(&owner.info.identity) {
                self.reconcile_view(key);
            }
            return;
        }
        let is_wanted = is_wanted(subscriber, id, track);
        let is_allowed = is_allowed(subscriber, owner, track);
        let owner_sid = owner.info.sid.clone();
        let track_sid = track.info.sid.clone();
        let stream = stream_of(track.info.source()).filter(|_| subscriber.is_single);
        let stream_name = format!("{owner_sid}|{}", stream.unwrap_or(&track_sid));
        let connection = subscriber.subscriber;
        let is_subscribed = subscriber.subscriptions.contains_key(&id);
        let was_denied = subscriber.denied.contains(&id);
        let selection = select(
            subscriber.settings.get(&id),
            track.layers(),
            subscriber.is_adaptive,
        );
        let should = is_wanted && is_allowed;
        let is_denied = is_wanted && !is_allowed;
        let subscriber = self.participants.get_mut(&key).expect("found above");
        if is_denied {
            subscriber.denied.insert(id);
        } else {
            subscriber.denied.remove(&id);
        }
        if should && !is_subscribed {
            subscriber
                .subscriptions
                .insert(id, Subscription::new(selection));
            self.want(id, None, Some(selection));
        } else if !should && is_subscribed {
            let old = subscriber.subscriptions.remove(&id);
            self.want(id, old.map(|old| old.selection), None);
        }
        if is_denied != was_denied && (is_denied || is_allowed) {
            let update = proto::SubscriptionPermissionUpdate {
                participant_sid: owner_sid.clone(),
                track_sid: track_sid.clone(),
                allowed: is_allowed,
            };
            self.tell(key, Message::SubscriptionPermissionUpdate(update));
        }
        if should && !is_subscribed {
            self.media(Command::Subscribe {
                connection,
                track: id,
                stream_name,
                track_name: track_sid,
                selection,
            });
        } else if !should && is_subscribed {
            self.media(Command::Unsubscribe {
                connection,
                track: id,
            });
        }
    }

    pub(super) fn reconcile_subscriber(&mut self, key: ParticipantKey) {
        if self
            .participants
            .get(&key)
            .is_some_and(|p| p.view.is_some())
        {
            self.reconcile_view(key);
            return;
        }
        for id in self.tracks.keys().copied().collect::<Vec<_>>() {
            self.reconcile(key, id);
        }
    }

    pub(super) fn reconcile_track(&mut self, id: TrackId) {
        for key in self.participants.keys().copied().collect::<Vec<_>>() {
            self.reconcile(key, id);
        }
    }

    /// Asks a single connection again for the places that its lost session may not have heard of.
    pub(super) fn retell_places(&mut self, key: ParticipantKey) {
        let Some(participant) = self.participants.get(&key) else {
            return;
        };
        if !participant.is_single {
            return;
        }
        let (mut num_audios, mut num_videos) = (0, 0);
        for (id, subscription) in &participant.subscriptions {
            if !subscription.is_agreed
                && let Some(track) = self.tracks.get(id)
            {
                *(if track.is_video() {
                    &mut num_videos
                } else {
                    &mut num_audios
                }) += 1;
            }
        }
        if num_audios + num_videos > 0 {
            let message = proto::MediaSectionsRequirement {
                num_audios,
                num_videos,
            };
            self.tell(key, Message::MediaSectionsRequirement(message));
        }
    }

    pub(super) fn update_subscription(
        &mut self,
        key: ParticipantKey,
        update: &proto::UpdateSubscription,
    ) {
        let sids = update.track_sids.iter().chain(
            update
                .participant_tracks
                .iter()
                .flat_map(|tracks| &tracks.track_sids),
        );
        for id in self.tracks_by_sid(sids) {
            let Some(participant) = self.participants.get_mut(&key) else {
                return;
            };
            participant.wishes.insert(id, update.subscribe);
            self.reconcile(key, id);
        }
    }

    /// Subscribes or unsubscribes a participant for it.
    pub fn update_subscriptions_of(
        &mut self,
        identity: &str,
        update: &proto::UpdateSubscription,
    ) -> Result<(), CallError> {
        let key = self.by_identity(identity)?;
        self.update_subscription(key, update);
        Ok(())
    }

    pub(super) fn update_settings(
        &mut self,
        key: ParticipantKey,
        update: &proto::UpdateTrackSettings,
    ) {
        let settings = Settings {
            is_disabled: update.disabled,
            quality: update.quality,
            width: update.width,
            height: update.height,
            frame_rate: update.fps,
            priority: update.priority,
        };
        for id in self.tracks_by_sid(update.track_sids.iter()) {
            if let Some(participant) = self.participants.get_mut(&key) {
                participant.settings.insert(id, settings);
            }
            self.reselect(key, id);
        }
    }

    pub(super) fn disable_tracks(&mut self, key: ParticipantKey, sids: &[String]) {
        for id in self.tracks_by_sid(sids.iter()) {
            if let Some(participant) = self.participants.get_mut(&key) {
                let settings = participant.settings.entry(id).or_insert(Settings {
                    is_disabled: true,
                    quality: proto::VideoQuality::High as i32,
                    width: 0,
                    height: 0,
                    frame_rate: 0,
                    priority: 0,
                });
                settings.is_disabled = true;
            }
            self.reselect(key, id);
        }
    }

    fn reselect(&mut self, key: ParticipantKey, id: TrackId) {
        let Some(track) = self.tracks.get(&id) else {
            return;
        };
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let selection = select(
            participant.settings.get(&id),
            track.layers(),
            participant.is_adaptive,
        );
        let connection = participant.subscriber;
        if let Some(subscription) = participant.subscriptions.get_mut(&id)
            && subscription.selection != selection
        {
            let old = std::mem::replace(&mut subscription.selection, selection);
            self.want(id, Some(old), Some(selection));
            self.media(Command::Select {
                connection,
                track: id,
                selection,
            });
        }
    }

    pub(super) fn reselect_track(&mut self, id: TrackId) {
        for key in self.participants.keys().copied().collect::<Vec<_>>() {
            self.reselect(key, id);
        }
    }

    pub(super) fn update_permission_of_tracks(
        &mut self,
        key: ParticipantKey,
        permission: &proto::SubscriptionPermission,
    ) {
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let mut left = TRACK_IDS_BOUND;
        let allow = if permission.all_participants {
            Allow::Everybody
        } else {
            let mut list = HashMap::new();
            for grant in permission.track_permissions.iter().take(TRACK_IDS_BOUND) {
                let tracks: Option<HashSet<String>> = (!grant.all_tracks)
                    .then(|| grant.track_sids.iter().take(left).cloned().collect());
                left -= tracks.as_ref().map_or(0, HashSet::len);
                for name in [&grant.participant_identity, &grant.participant_sid] {
                    if !name.is_empty() {
                        list.insert(name.clone(), tracks.clone());
                    }
                }
            }
            Allow::Only(list)
        };
        participant.next_allow = Some(allow);
        self.allow_next(key);
    }

    /// Puts in force whom a participant lets have its tracks: now, or with the next tick that may,
    /// since every change may be news for everybody.
    pub(super) fn allow_next(&mut self, key: ParticipantKey) {
        let now = self.now;
        let others = self.participants.len();
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        if participant.next_allow.is_none() {
            return;
        }
        // For each of the others it costs a message per track.
        let cost = participant.tracks.len().max(1) * NEWS_LEAST;
        if others > 1 && !participant.news.spend(cost, now) {
            return;
        }
        participant.allow = participant.next_allow.take().unwrap_or_default();
        for id in participant.tracks.clone() {
            self.reconcile_track(id);
        }
    }

    pub(super) fn codec_not_accepted(&mut self, connection: ConnectionId, id: TrackId) {
        let Some(key) = self.by_connection.get(&connection).copied() else {
            return;
        };
        let Some(track) = self.tracks.get(&id) else {
            return;
        };
        let message = proto::SubscriptionResponse {
            track_sid: track.info.sid.clone(),
            err: proto::SubscriptionError::SeCodecUnsupported as i32,
        };
        self.tell(key, Message::SubscriptionResponse(message));
    }

    /// Tells a subscriber that a picture is paused, or goes on. The protocol has no word for the
    /// reason: a line that is told as poor before is one.
    pub(super) fn stream_paused(
        &mut self,
        connection: ConnectionId,
        id: TrackId,
        is_paused: bool,
        is_for_line: bool,
    ) {
        let Some(key) = self.by_connection.get(&connection).copied() else {
            return;
        };
        let subscriber = self.participants.get_mut(&key);
        if let Some(one) = subscriber.and_then(|one| one.subscriptions.get_mut(&id)) {
            one.is_paused_for_line = is_for_line;
        }
        if is_for_line {
            self.tell_own_quality(key);
        }
        let Some(track) = self.tracks.get(&id) else {
            return;
        };
        let Some(owner) = self.participants.get(&track.owner) else {
            return;
        };
        let state = if is_paused {
            proto::StreamState::Paused
        } else {
            proto::StreamState::Active
        };
        let message = proto::StreamStateUpdate {
            stream_states: vec![proto::StreamStateInfo {
                participant_sid: owner.info.sid.clone(),
                track_sid: track.info.sid.clone(),
                state: state as i32,
            }],
        };
        self.tell(key, Message::StreamStateUpdate(message));
    }

    // ---- what publishers need not send --------------------------------------------------------

    /// The media core tells the best layer of an encoding that is to be sent to anybody. More than the
    /// publisher was told: it hears of it at once.
    pub(super) fn layers_wanted(
        &mut self,
        id: TrackId,
        encoding: Encoding,
        wanted: Option<Quality>,
    ) {
        let Some(track) = self.tracks.get_mut(&id) else {
            return;
        };
        let is_live = track.is_live();
        let Some(encoded) = track.encodings.get_mut(encoding as usize) else {
            return;
        };
        encoded.wanted = wanted;
        if is_live && wanted > encoded.told_wanted {
            encoded.told_wanted = wanted;
            encoded.less_wanted_since = None;
            self.tell_wanted(id);
        }
    }

    /// Less wanted for long enough: the publisher hears of it.
    pub(super) fn tell_wanted_layers(&mut self, now: Instant) {
        let mut changed = BTreeSet::new();
        let videos = self.tracks.iter_mut();
        for (id, track) in videos.filter(|(_, track)| track.is_video() && track.is_live()) {
            if let (Some(live), Some(repeated)) = (track.live_since, &mut track.wanted_told)
                && let Some(after) = WANTED_REPEATED.get(*repeated)
                && now.saturating_duration_since(live) >= *after
            {
                *repeated += 1;
                changed.insert(*id);
            }
            for encoded in &mut track.encodings {
                if encoded.wanted == encoded.told_wanted {
                    encoded.less_wanted_since = None;
                    continue;
                }
                let since = *encoded.less_wanted_since.get_or_insert(now);
                // More was wanted before the track was live.
                if encoded.wanted > encoded.told_wanted
                    || now.saturating_duration_since(since) >= LAYER_HOLD
                {
                    encoded.told_wanted = encoded.wanted;
                    encoded.less_wanted_since = None;
                    changed.insert(*id);
                }
            }
        }
        for id in changed {
            self.tell_wanted(id);
        }
    }

    /// Tells a publisher again what its lost session may not have heard of.
    pub(super) fn retell_wanted(&mut self, key: ParticipantKey) {
        let tracks = self.participants.get(&key).map(|one| one.tracks.clone());
        for id in tracks.unwrap_or_default() {
            let is_video = |track: &Track| track.is_video() && track.is_live();
            if self.tracks.get(&id).is_some_and(is_video) {
                self.tell_wanted(id);
            }
        }
    }

    fn tell_wanted(&mut self, id: TrackId) {
        let Some(track) = self.tracks.get_mut(&id) else {
            return;
        };
        track.wanted_told.get_or_insert(0);
        let mut subscribed_codecs: Vec<proto::SubscribedCodec> = Vec::new();
        for (encoded, info) in track.encodings.iter().zip(&track.info.codecs) {
            let codec = bare_name(&info.mime_type);
            // A backup in the primary codec is none: the client would take it for the other.
            if subscribed_codecs.iter().all(|one| one.codec != codec) {
                let qualities = qualities_of(encoded);
                subscribed_codecs.push(proto::SubscribedCodec { codec, qualities });
            }
        }
        let owner = track.owner;
        let update = proto::SubscribedQualityUpdate {
            track_sid: track.info.sid.clone(),
            // For clients that know of one codec only.
            subscribed_qualities: subscribed_codecs
                .first()
                .map(|primary| primary.qualities.clone())
                .unwrap_or_default(),
            subscribed_codecs,
        };
        self.tell(owner, Message::SubscribedQualityUpdate(update));
    }

    /// Whether a track's sid is known.
    pub fn has_track(&self, sid: &str) -> bool {
        self.by_track_sid.contains_key(sid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers() -> Vec<Layer> {
        vec![
            Layer {
                quality: Quality::Low,
                width: 320,
                height: 180,
            },
            Layer {
                quality: Quality::Medium,
                width: 640,
                height: 360,
            },
            Layer {
                quality: Quality::High,
                width: 1280,
                height: 720,
            },
        ]
    }

    #[test]
    fn the_lowest_layer_that_covers_the_tile_is_chosen() {
        for (width, height, expected) in [
            (160, 90, Quality::Low),
            (320, 180, Quality::Low),
            (340, 190, Quality::Low),
            (400, 225, Quality::Medium),
            (640, 360, Quality::Medium),
            (800, 450, Quality::High),
            (3840, 2160, Quality::High),
        ] {
            assert_eq!(
                covering(&layers(), width, height),
                expected,
                "{width}x{height}"
            );
        }
        assert_eq!(covering(&[], 100, 100), Quality::High);
    }

    #[test]
    fn an_allow_list_names_people_and_tracks() {
        let list = HashMap::from([
            ("ana".to_owned(), None),
            ("PA_bo".to_owned(), Some(HashSet::from(["TR_1".to_owned()]))),
        ]);
        let allow = Allow::Only(list);
        assert!(allow.allows("ana", "PA_ana", "TR_9"));
        assert!(allow.allows("bo", "PA_bo", "TR_1"));
        assert!(!allow.allows("bo", "PA_bo", "TR_2"));
        assert!(!allow.allows("cy", "PA_cy", "TR_1"));
    }
}
