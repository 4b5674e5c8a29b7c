//! Backup codecs: a publisher whose codec not everybody takes sends its picture in a second one too,
//! while somebody needs it.
//!
//! A client announces both codecs with its track, and the second one again, with its own id, when it
//! is asked for it. Who is sent which is the media core's choice, by what each connection agreed
//! to take; the publisher hears for each codec which layers of it anybody is to be sent.

use std::time::Instant;

use livekit_protocol as proto;
use proto::BackupCodecPolicy;
use proto::request_response::Reason;
use proto::signal_response::Message;
use sfu::{Codec, Command, Encoding, Layer, Quality, TrackId};

use super::publish::layers_of;
use super::{ParticipantKey, Room};

/// In a room of fewer than this, a publisher that leaves it to the server sends one codec to all as
/// soon as somebody needs the backup. In a larger one, one old device shall not make everybody's
/// picture worse; LiveKit's servers draw the line there too.
pub const REGRESSION_BELOW: usize = 5;

/// A track in one codec, as its publisher announced it.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    /// The client's id of it; none of a backup that is not published.
    pub(super) cid: String,
    pub(super) is_live: bool,
    pub(super) layers: Vec<Layer>,
    /// The best layer that is to be sent to anybody, as the media core last told.
    pub(super) wanted: Option<Quality>,
    /// The best layer that the publisher was last told somebody wants; `None` is none at all.
    pub(super) told_wanted: Option<Quality>,
    /// Since when less than that is wanted.
    pub(super) less_wanted_since: Option<Instant>,
}

/// Why a backup is not taken.
type Refused = (Reason, &'static str);

impl Room {
    /// The track whose backup a client may publish now.
    pub(super) fn backup_of(
        &self,
        key: ParticipantKey,
        request: &proto::AddTrackRequest,
    ) -> Result<TrackId, Refused> {
        let id = self.by_track_sid.get(&request.sid).copied();
        let own = id.and_then(|id| Some((id, self.tracks.get(&id)?)));
        let Some((id, track)) = own.filter(|(_, track)| track.owner() == key) else {
            return Err((
                Reason::NotFound,
                "a backup codec is published for a track of one's own",
            ));
        };
        let at = Encoding::Backup as usize;
        let announced = track.encodings.get(at).zip(track.info.codecs.get(at));
        let Some((backup, info)) = announced else {
            return Err((
                Reason::InvalidRequest,
                "the track was announced without a backup codec",
            ));
        };
        let is_it = |codec: &proto::SimulcastCodec| {
            Codec::from_name(&codec.codec) == Codec::from_name(&info.mime_type)
        };
        if !matches!(&request.simulcast_codecs[..], [one] if is_it(one)) {
            return Err((
                Reason::InvalidRequest,
                "this is not the backup codec that the track was announced with",
            ));
        }
        if !track.is_live() {
            return Err((
                Reason::InvalidRequest,
                "the backup codec comes after the track itself",
            ));
        }
        if !backup.cid.is_empty() {
            return Err((
                Reason::LimitExceeded,
                "the track's backup codec is published already",
            ));
        }
        Ok(id)
    }

    /// Takes the backup of a track that [`Room::backup_of`] found.
    pub(super) fn add_backup(
        &mut self,
        key: ParticipantKey,
        id: TrackId,
        request: proto::AddTrackRequest,
    ) {
        let count = self.participant_count();
        let Some(track) = self.tracks.get_mut(&id) else {
            return;
        };
        let codec = request.simulcast_codecs.into_iter().next();
        let codec = codec.unwrap_or_default();
        let layers = match codec.layers.is_empty() {
            true => request.layers,
            false => codec.layers,
        };
        let replaces = match track.info.backup_codec_policy() {
            BackupCodecPolicy::Regression => true,
            BackupCodecPolicy::PreferRegression => count < REGRESSION_BELOW,
            BackupCodecPolicy::Simulcast => false,
        };
        let Some((backup, info)) = track.encoding(Encoding::Backup) else {
            return;
        };
        backup.cid.clone_from(&request.cid);
        backup.layers = layers_of(&layers, request.width, request.height);
        info.cid.clone_from(&request.cid);
        info.layers = layers;
        let response = proto::TrackPublishedResponse {
            cid: request.cid.clone(),
            track: Some(track.info.clone()),
        };
        self.media(Command::PublishBackup {
            track: id,
            cid: request.cid,
            replaces,
        });
        self.tell(key, Message::TrackPublished(response));
    }

    /// The client stopped an encoding. A backup may come again.
    pub(super) fn encoding_ended(&mut self, id: TrackId, encoding: Encoding) {
        if encoding == Encoding::Primary {
            self.end_track(id, false);
            return;
        }
        let Some(track) = self.tracks.get_mut(&id) else {
            return;
        };
        if let Some((backup, info)) = track.encoding(encoding) {
            *backup = Encoded {
                wanted: backup.wanted,
                ..Encoded::default()
            };
            *info = proto::SimulcastCodecInfo {
                mime_type: std::mem::take(&mut info.mime_type),
                ..Default::default()
            };
        }
    }
}
