//! What participants publish: announcing, going live, muting, ending.

// Clients of older versions read and write these fields.
#![allow(deprecated)]

use std::collections::BTreeSet;
use std::time::Instant;

use livekit_protocol as proto;
use prost::Message as _;
use proto::request_response::Reason;
use proto::signal_response::Message;
use proto::{TrackSource, TrackType};
use sfu::{
    Codec, Command, ConnectionId, Encoding, Layer, Publication, Quality, TrackId, TrackKind,
};

use super::backup::Encoded;
use super::{
    CallError, ECHO_BOUND, NAME_BOUND, ParticipantKey, Room, TRACKS_PER_PARTICIPANT, make_sid,
};
use crate::log_limit::LogLimit;

static PUBLISH_REFUSED: LogLimit = LogLimit::new();
static PUBLISHED: LogLimit = LogLimit::of(200);

/// A published track.
#[derive(Debug)]
pub struct Track {
    pub(super) owner: ParticipantKey,
    pub(super) info: proto::TrackInfo,
    was_subscribed: bool,
    /// By [`Encoding`], as `info.codecs` is; the backup only where one was announced.
    pub(super) encodings: Vec<Encoded>,
    /// Since when others are shown it.
    pub(super) live_since: Option<Instant>,
    /// Whether its publisher was told which layers are wanted, and how often that was repeated.
    pub(super) wanted_told: Option<usize>,
}

impl Track {
    /// A track from elsewhere, whose publisher need not be told that somebody has it.
    pub(super) fn of(
        owner: ParticipantKey,
        info: proto::TrackInfo,
        encodings: Vec<Encoded>,
    ) -> Track {
        Track {
            owner,
            info,
            was_subscribed: true,
            encodings,
            live_since: None,
            wanted_told: None,
        }
    }

    fn primary(&self) -> &Encoded {
        &self.encodings[Encoding::Primary as usize]
    }

    /// An encoding, and what others are told of it; none of a backup that was not announced.
    pub(super) fn encoding(
        &mut self,
        encoding: Encoding,
    ) -> Option<(&mut Encoded, &mut proto::SimulcastCodecInfo)> {
        let at = encoding as usize;
        let encoded = self.encodings.get_mut(at)?;
        Some((encoded, self.info.codecs.get_mut(at)?))
    }

    pub(super) fn is_live(&self) -> bool {
        self.primary().is_live
    }

    /// The layers of which a viewer may choose. A backup's are made by the same scale.
    pub(super) fn layers(&self) -> &[Layer] {
        &self.primary().layers
    }

    pub(super) fn owner(&self) -> ParticipantKey {
        self.owner
    }

    pub(super) fn source(&self) -> i32 {
        self.info.source
    }

    pub(super) fn is_video(&self) -> bool {
        self.info.r#type == TrackType::Video as i32
    }
}

/// Whether a permission lets a source be published.
pub(crate) fn may_publish(permission: &proto::ParticipantPermission, source: i32) -> bool {
    permission.can_publish
        && (permission.can_publish_sources.is_empty()
            || permission.can_publish_sources.contains(&source))
}

/// Whether a source is one of pictures or of sound, as the track is.
fn fits(source: i32, is_video: bool) -> bool {
    match TrackSource::try_from(source) {
        Ok(TrackSource::Unknown) => true,
        Ok(TrackSource::Camera | TrackSource::ScreenShare) => is_video,
        Ok(TrackSource::Microphone | TrackSource::ScreenShareAudio) => !is_video,
        Err(_) => false,
    }
}

fn quality(value: i32) -> Option<Quality> {
    match proto::VideoQuality::try_from(value).ok()? {
        proto::VideoQuality::Low => Some(Quality::Low),
        proto::VideoQuality::Medium => Some(Quality::Medium),
        proto::VideoQuality::High => Some(Quality::High),
        proto::VideoQuality::Off => None,
    }
}

pub(super) fn layers_of(layers: &[proto::VideoLayer], width: u32, height: u32) -> Vec<Layer> {
    let mut found: Vec<Layer> = Vec::new();
    for layer in layers {
        if let Some(quality) = quality(layer.quality)
            && !found.iter().any(|known| known.quality == quality)
        {
            found.push(Layer {
                quality,
                width: layer.width,
                height: layer.height,
            });
        }
    }
    if found.is_empty() {
        found.push(Layer {
            quality: Quality::High,
            width,
            height,
        });
    }
    found.sort_by_key(|layer| layer.quality);
    found
}

pub(super) fn sid_prefix(is_video: bool, source: i32) -> &'static str {
    match (
        is_video,
        TrackSource::try_from(source).unwrap_or(TrackSource::Unknown),
    ) {
        (true, TrackSource::Camera) => "TR_VC",
        (true, TrackSource::ScreenShare) => "TR_VS",
        (true, _) => "TR_V",
        (false, TrackSource::Microphone) => "TR_AM",
        (false, TrackSource::ScreenShareAudio) => "TR_AS",
        (false, _) => "TR_A",
    }
}

impl Room {
    pub(super) fn add_track(&mut self, key: ParticipantKey, request: proto::AddTrackRequest) {
        let Some(participant) = self.participants.get(&key) else {
            return;
        };
        let is_video = request.r#type == TrackType::Video as i32;
        let is_audio = request.r#type == TrackType::Audio as i32;
        let known = participant
            .tracks
            .iter()
            .filter_map(|id| self.tracks.get(id))
            .find(|track| {
                let is_same =
                    |one: &Encoded| !one.is_live && !one.cid.is_empty() && one.cid == request.cid;
                track.encodings.iter().any(is_same)
            });
        if let Some(track) = known {
            // Asked again, as after a resume: the same answer.
            let response = proto::TrackPublishedResponse {
                cid: request.cid,
                track: Some(track.info.clone()),
            };
            self.tell(key, Message::TrackPublished(response));
            return;
        }
        let refusal = if !may_publish(participant.permission(), request.source) {
            Some((
                Reason::NotAllowed,
                "does not have permission to publish this source",
            ))
        } else if !is_video && !is_audio {
            Some((
                Reason::UnsupportedType,
                "only audio and video can be published as a track",
            ))
        } else if !fits(request.source, is_video) {
            // Else who may only speak could show pictures that call themselves a microphone.
            Some((
                Reason::InvalidRequest,
                "the track's source is not one of its kind",
            ))
        } else if request.cid.is_empty() {
            Some((Reason::InvalidRequest, "a track needs a cid"))
        } else if [&request.cid, &request.name, &request.stream]
            .into_iter()
            .any(|text| text.len() > NAME_BOUND)
            || request.layers.len() > 16
            || request.simulcast_codecs.len() > 16
            || request
                .simulcast_codecs
                .iter()
                .any(|codec| codec.layers.len() > 16)
            || request.audio_features.len() > 32
            || request.packet_trailer_features.len() > 32
        {
            Some((Reason::InvalidRequest, "a field of the track is too long"))
        } else if !request.sid.is_empty() {
            match self.backup_of(key, &request) {
                Ok(id) => {
                    self.add_backup(key, id, request);
                    return;
                }
                Err(refusal) => Some(refusal),
            }
        } else if participant.tracks.len() >= TRACKS_PER_PARTICIPANT {
            Some((Reason::LimitExceeded, "too many tracks"))
        } else {
            None
        };
        if let Some((reason, message)) = refusal {
            if let Some(suppressed) = PUBLISH_REFUSED.pass(self.now) {
                tracing::warn!(
                    room = self.settings.name,
                    participant = participant.info.identity,
                    reason = message,
                    suppressed,
                    "publishing was refused"
                );
            }
            self.tell(
                key,
                Message::RequestResponse(proto::RequestResponse {
                    reason: reason as i32,
                    message: message.into(),
                    request: (request.encoded_len() <= ECHO_BOUND)
                        .then_some(proto::request_response::Request::AddTrack(request)),
                    ..Default::default()
                }),
            );
            return;
        }
        let first = request.simulcast_codecs.first();
        let mut codecs: Vec<Codec> = Vec::new();
        for codec in &request.simulcast_codecs {
            if let Some(codec) = Codec::from_name(&codec.codec)
                && (codec == Codec::Opus) == is_audio
                && !codecs.contains(&codec)
            {
                codecs.push(codec);
            }
        }
        if codecs.is_empty() {
            codecs.push(if is_video { Codec::Vp8 } else { Codec::Opus });
        }
        let announced = first
            .map(|codec| &codec.layers)
            .filter(|layers| !layers.is_empty());
        let announced = announced.unwrap_or(&request.layers);
        let layers = if is_video {
            layers_of(announced, request.width, request.height)
        } else {
            Vec::new()
        };
        // A codec that names the track's own id is one that the client would rather send than none; a
        // backup has no id before it is published.
        let others = request.simulcast_codecs.iter().skip(1);
        let backup = others
            .filter(|codec| is_video && codec.cid.is_empty())
            .find_map(|codec| Codec::from_name(&codec.codec))
            .filter(|codec| *codec != codecs[0] && *codec != Codec::Opus);
        let mut infos = vec![proto::SimulcastCodecInfo {
            mime_type: codecs[0].mime_type().to_owned(),
            cid: request.cid.clone(),
            layers: announced.clone(),
            video_layer_mode: first.map_or(0, |codec| codec.video_layer_mode),
            ..Default::default()
        }];
        let mut encodings = vec![Encoded {
            cid: request.cid.clone(),
            layers: layers.clone(),
            wanted: Some(Quality::High),
            told_wanted: Some(Quality::High),
            ..Default::default()
        }];
        if let Some(backup) = backup {
            infos.push(proto::SimulcastCodecInfo {
                mime_type: backup.mime_type().to_owned(),
                ..Default::default()
            });
            encodings.push(Encoded::default());
        }
        let sid = make_sid(&mut self.random, sid_prefix(is_video, request.source));
        let id = TrackId(self.next_id());
        let info = proto::TrackInfo {
            sid,
            r#type: request.r#type,
            name: request.name,
            muted: request.muted,
            width: request.width,
            height: request.height,
            simulcast: layers.len() > 1,
            disable_dtx: request.disable_dtx,
            source: request.source,
            layers: announced.clone(),
            mime_type: codecs[0].mime_type().to_owned(),
            codecs: infos,
            stereo: request.stereo,
            disable_red: request.disable_red,
            encryption: request.encryption,
            stream: request.stream,
            audio_features: request.audio_features,
            backup_codec_policy: request.backup_codec_policy,
            packet_trailer_features: request.packet_trailer_features,
            ..Default::default()
        };
        let is_muted = info.muted;
        let Some(connection) = self.open_publisher(key) else {
            return;
        };
        self.media(Command::Publish {
            connection,
            track: id,
            publication: Publication {
                cid: request.cid.clone(),
                kind: if is_video {
                    TrackKind::Video
                } else {
                    TrackKind::Audio
                },
                codecs,
                backup,
                layers,
                is_red_allowed: is_audio && !request.disable_red,
                is_screen: request.source == TrackSource::ScreenShare as i32,
            },
        });
        if is_muted {
            self.media(Command::Mute {
                track: id,
                is_muted,
            });
        }
        self.by_track_sid.insert(info.sid.clone(), id);
        self.tracks.insert(
            id,
            Track {
                owner: key,
                info: info.clone(),
                was_subscribed: false,
                encodings,
                live_since: None,
                wanted_told: None,
            },
        );
        self.participants
            .get_mut(&key)
            .expect("found above")
            .tracks
            .push(id);
        let response = proto::TrackPublishedResponse {
            cid: request.cid,
            track: Some(info),
        };
        self.tell(key, Message::TrackPublished(response));
    }

    /// An encoding's m-line was agreed; with that of the primary one others are shown the track.
    pub(super) fn track_live(
        &mut self,
        id: TrackId,
        encoding: Encoding,
        mid: String,
        codec: Codec,
    ) {
        let Some(track) = self.tracks.get_mut(&id) else {
            return;
        };
        let Some((encoded, info)) = track.encoding(encoding) else {
            return;
        };
        encoded.is_live = true;
        info.mid.clone_from(&mid);
        info.mime_type = codec.mime_type().to_owned();
        let owner = track.owner;
        if encoding == Encoding::Backup {
            self.announce(owner, false);
            return;
        }
        track.live_since.get_or_insert(self.now);
        track.info.mid = mid;
        track.info.mime_type = codec.mime_type().to_owned();
        if let Some(suppressed) = PUBLISHED.pass(self.now) {
            tracing::info!(
                room = self.settings.name,
                participant = self
                    .participants
                    .get(&owner)
                    .map(|p| p.info.identity.as_str()),
                track = track.info.sid,
                codec = codec.mime_type(),
                suppressed,
                "track published"
            );
        }
        if let Some(participant) = self.participants.get_mut(&owner) {
            participant.info.is_publisher = true;
        }
        self.announce(owner, false);
        // Clients take a track only of a participant they know.
        self.tell_news_of(owner);
        self.reconcile_track(id);
    }

    pub(super) fn codec_changed(&mut self, id: TrackId, encoding: Encoding, codec: Codec) {
        let Some(track) = self.tracks.get_mut(&id) else {
            return;
        };
        if encoding == Encoding::Primary {
            track.info.mime_type = codec.mime_type().to_owned();
        }
        if let Some((_, info)) = track.encoding(encoding) {
            info.mime_type = codec.mime_type().to_owned();
        }
        let (owner, is_live) = (track.owner, track.is_live());
        if is_live {
            self.announce(owner, false);
        }
    }

    /// Forgets a track without telling anybody but the media core. Returns its owner and sid.
    pub(super) fn drop_track(&mut self, id: TrackId) -> Option<(ParticipantKey, String, bool)> {
        let track = self.tracks.remove(&id)?;
        self.by_track_sid.remove(&track.info.sid);
        if !self.forget_elsewhere(id, track.owner) {
            self.media(Command::Unpublish { track: id });
        }
        if let Some(owner) = self.participants.get_mut(&track.owner) {
            owner.tracks.retain(|known| *known != id);
            owner.info.is_publisher = owner
                .tracks
                .iter()
                .any(|known| self.tracks.get(known).is_some_and(Track::is_live));
        }
        for participant in self.participants.values_mut() {
            participant.subscriptions.remove(&id);
            participant.wishes.remove(&id);
            participant.settings.remove(&id);
            participant.denied.remove(&id);
            if let Some(view) = &mut participant.view {
                view.forget(id);
            }
        }
        let is_live = track.is_live();
        Some((track.owner, track.info.sid, is_live))
    }

    /// Ends a track; the publisher is told when it does not know.
    pub(super) fn end_track(&mut self, id: TrackId, tell_publisher: bool) {
        let Some((owner, track_sid, was_live)) = self.drop_track(id) else {
            return;
        };
        if tell_publisher {
            let message = proto::TrackUnpublishedResponse { track_sid };
            self.tell(owner, Message::TrackUnpublished(message));
        }
        if was_live {
            self.announce(owner, false);
        }
        self.reconcile_views();
    }

    fn own_track(&self, key: ParticipantKey, sid: &str) -> Option<TrackId> {
        self.participants
            .get(&key)?
            .tracks
            .iter()
            .copied()
            .find(|id| {
                self.tracks
                    .get(id)
                    .is_some_and(|track| track.info.sid == sid || track.primary().cid == sid)
            })
    }

    fn set_muted(&mut self, id: TrackId, is_muted: bool) {
        let Some(track) = self.tracks.get_mut(&id) else {
            return;
        };
        if track.info.muted == is_muted {
            return;
        }
        track.info.muted = is_muted;
        let owner = track.owner;
        let is_live = track.is_live();
        self.media(Command::Mute {
            track: id,
            is_muted,
        });
        if is_live {
            self.announce(owner, false);
        }
    }

    pub(super) fn client_mutes(&mut self, key: ParticipantKey, request: &proto::MuteTrackRequest) {
        if let Some(id) = self.own_track(key, &request.sid) {
            self.set_muted(id, request.muted);
        }
    }

    /// Mutes a track for its owner. Unmuting stays the owner's own act.
    pub fn mute_published(
        &mut self,
        identity: &str,
        sid: &str,
        is_muted: bool,
    ) -> Result<proto::TrackInfo, CallError> {
        let key = self.here_by_identity(identity)?;
        let id = self.own_track(key, sid).ok_or(CallError::NoTrack)?;
        let was_muted = self.tracks.get(&id).ok_or(CallError::NoTrack)?.info.muted;
        if was_muted && !is_muted {
            return Err(CallError::RemoteUnmute);
        }
        self.set_muted(id, is_muted);
        if is_muted {
            let message = proto::MuteTrackRequest {
                sid: sid.to_owned(),
                muted: true,
            };
            self.tell(key, Message::Mute(message));
        }
        self.tracks
            .get(&id)
            .map(|track| track.info.clone())
            .ok_or(CallError::NoTrack)
    }

    pub(super) fn update_layers(&mut self, key: ParticipantKey, update: &proto::UpdateVideoLayers) {
        let Some(id) = self.own_track(key, &update.track_sid) else {
            return;
        };
        let Some(track) = self.tracks.get_mut(&id) else {
            return;
        };
        if !track.is_video() || update.layers.len() > 16 {
            return;
        }
        let layers = layers_of(&update.layers, track.info.width, track.info.height);
        track.info.layers.clone_from(&update.layers);
        if let Some((encoded, info)) = track.encoding(Encoding::Primary) {
            encoded.layers = layers;
            info.layers.clone_from(&update.layers);
        }
        self.reselect_track(id);
    }

    pub(super) fn update_audio_track(
        &mut self,
        key: ParticipantKey,
        request: &proto::UpdateLocalAudioTrack,
    ) {
        let Some(id) = self.own_track(key, &request.track_sid) else {
            return;
        };
        let Some(track) = self.tracks.get_mut(&id) else {
            return;
        };
        if track.is_video() {
            return;
        }
        let features: BTreeSet<i32> = request.features.iter().copied().take(32).collect();
        track.info.stereo = features.contains(&(proto::AudioTrackFeature::TfStereo as i32));
        track.info.disable_dtx = features.contains(&(proto::AudioTrackFeature::TfNoDtx as i32));
        track.info.audio_features = features.into_iter().collect();
        if track.is_live() {
            self.announce(key, false);
        }
    }

    pub(super) fn update_video_track(
        &mut self,
        key: ParticipantKey,
        request: &proto::UpdateLocalVideoTrack,
    ) {
        let Some(id) = self.own_track(key, &request.track_sid) else {
            return;
        };
        let Some(track) = self.tracks.get_mut(&id) else {
            return;
        };
        if !track.is_video() {
            return;
        }
        track.info.width = request.width;
        track.info.height = request.height;
        if track.is_live() {
            self.announce(key, false);
        }
    }

    pub(super) fn subscribed(&mut self, connection: ConnectionId, id: TrackId) {
        let Some(key) = self.by_connection.get(&connection).copied() else {
            return;
        };
        if let Some(subscription) = self
            .participants
            .get_mut(&key)
            .and_then(|p| p.subscriptions.get_mut(&id))
        {
            subscription.is_agreed = true;
        }
        let Some(track) = self.tracks.get_mut(&id) else {
            return;
        };
        if !std::mem::replace(&mut track.was_subscribed, true) {
            let (owner, track_sid) = (track.owner, track.info.sid.clone());
            self.tell(
                owner,
                Message::TrackSubscribed(proto::TrackSubscribed { track_sid }),
            );
        }
    }
}
