//! What a shard is told and what it tells: the only words between signalling and media.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::account::Account;
use crate::relay::{End, RelayEnd};

/// One WebRTC connection (one `RTCPeerConnection` of a client), chosen by the caller, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// One published track, chosen by the caller, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrackId(pub u64);

/// Who offers on a connection and what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The client offers and only sends media: the first connection of LiveKit's two.
    Publish,
    /// The shard offers and only sends media: the second of LiveKit's two.
    /// The shard offers once at [`Command::Open`], with both data channels.
    Subscribe,
    /// The client offers and media goes both ways; the client brings `recvonly` m-lines as places
    /// for what it will receive.
    Single,
    /// The client offers and only receives, as a WHEP player does. It negotiates once: each of its
    /// `recvonly` m-lines is a place in which [`Command::Place`] sends one track after another.
    /// The answer names the first picture and the first sound of the offer as one stream, the
    /// second ones as the next.
    View,
    /// An end of the line to another node, over which any number of tracks go both ways. Nothing is
    /// offered or answered: [`Event::RelayEnd`] tells what the other end must know, and
    /// [`Command::Relay`] what it told. [`Command::Publish`] takes from the line, and
    /// [`Command::Subscribe`] offers to it, what has the same name on both ends: there `cid`, here
    /// `track_name`.
    Relay(End),
}

/// Audio or video.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TrackKind {
    /// Opus, or Opus in RED.
    Audio,
    /// Any of the video codecs.
    Video,
}

/// A media codec, by its registered name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// RFC 7587.
    Opus,
    /// RFC 7741.
    Vp8,
    /// RFC 9628.
    Vp9,
    /// RFC 6184.
    H264,
    /// AV1 RTP payload format 1.0.
    Av1,
}

impl Codec {
    /// The media type as LiveKit writes it, such as `video/VP8`.
    pub fn mime_type(self) -> &'static str {
        match self {
            Codec::Opus => "audio/opus",
            Codec::Vp8 => "video/VP8",
            Codec::Vp9 => "video/VP9",
            Codec::H264 => "video/H264",
            Codec::Av1 => "video/AV1",
        }
    }

    /// The codec of a media type or of a bare codec name (`vp8`, `video/h264`), in any case.
    pub fn from_name(name: &str) -> Option<Codec> {
        let bare = name.rsplit('/').next().unwrap_or(name);
        match bare.to_ascii_lowercase().as_str() {
            "opus" | "red" => Some(Codec::Opus),
            "vp8" => Some(Codec::Vp8),
            "vp9" => Some(Codec::Vp9),
            "h264" => Some(Codec::H264),
            "av1" => Some(Codec::Av1),
            _ => None,
        }
    }
}

/// Which of a track's encodings: the same picture may be sent in two codecs, each on an m-line and in
/// layers of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// In the codec that its publisher chose; a track lives as long as this.
    #[default]
    Primary,
    /// For those who don't take the primary codec; comes and goes with [`Command::PublishBackup`].
    Backup,
}

impl Encoding {
    /// Both.
    pub const ALL: [Encoding; 2] = [Encoding::Primary, Encoding::Backup];
}

/// The quality of a simulcast layer, or of a spatial layer within one stream (SVC), of which the
/// uppermost is [`Quality::High`]; in LiveKit's words; ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Quality {
    /// rid `q`.
    Low,
    /// rid `h`.
    Medium,
    /// rid `f`, and a track without simulcast.
    High,
}

/// A layer that the publisher announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Which layer.
    pub quality: Quality,
    /// Width in pixels, as announced.
    pub width: u32,
    /// Height in pixels, as announced.
    pub height: u32,
}

/// A track that a client is about to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The client's own id of the track: the second word of `a=msid` in its offer.
    pub cid: String,
    /// Audio or video.
    pub kind: TrackKind,
    /// Codecs in the order in which the answer shall list them; the rest follow.
    pub codecs: Vec<Codec>,
    /// What the client would send as well for those who don't take the first one, when it is asked to
    /// ([`Event::LayersWanted`]).
    pub backup: Option<Codec>,
    /// The announced layers, lowest first; empty for audio.
    pub layers: Vec<Layer>,
    /// Whether Opus may come in RED (RFC 2198); false for stereo and end-to-end encrypted sound.
    pub is_red_allowed: bool,
    /// A shared screen, which goes before cameras on a thin line.
    pub is_screen: bool,
}

/// What a subscriber wants of a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Whether anything is to be sent at all.
    pub is_enabled: bool,
    /// The best layer wanted. A lower one is sent while this one is not there.
    pub quality: Quality,
    /// Pixels of the place where it is shown, 0 where unknown; the larger picture is the last to
    /// suffer on a thin line.
    pub area: u32,
    /// It goes before others that are not a screen or the speaker's.
    pub is_pinned: bool,
    /// So many pictures a second are enough; 0: as many as there are. Fewer are sent where the stream
    /// has temporal layers.
    pub frame_rate: u32,
}

impl Selection {
    /// A wish for up to a quality, of a place that nothing is known of.
    pub fn of(quality: Quality) -> Selection {
        Selection {
            is_enabled: true,
            quality,
            area: 0,
            is_pinned: false,
            frame_rate: 0,
        }
    }
}

/// The two data channels of the LiveKit protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Label `_reliable`: ordered, retransmitted.
    Reliable,
    /// Label `_lossy`: unordered, never retransmitted.
    Lossy,
}

/// What a shard is told. Commands for an unknown connection or track are ignored: they may have
/// crossed its end.
#[derive(Clone, Debug)]
pub enum Command {
    /// Makes a connection. A [`Role::Subscribe`] answers with [`Event::Offer`].
    Open {
        /// The new connection.
        connection: ConnectionId,
        /// Who offers and what it carries.
        role: Role,
        /// Whether the client may have an RSA certificate, as encoders and players have that are
        /// no browsers.
        takes_rsa: bool,
    },
    /// The client's SDP offer; answered with [`Event::Answer`] or [`Event::Refused`].
    /// Announce its tracks with [`Command::Publish`] before.
    Offer {
        /// The connection.
        connection: ConnectionId,
        /// The offer's SDP text.
        sdp: String,
    },
    /// The client's SDP answer to the last [`Event::Offer`].
    Answer {
        /// The connection.
        connection: ConnectionId,
        /// The answer's SDP text.
        sdp: String,
    },
    /// Joins the end of a line between nodes ([`Role::Relay`]) to the other one, once. Leads to
    /// [`Event::Connected`], or to [`Event::Refused`] where the other end's words can't be right.
    Relay {
        /// The connection.
        connection: ConnectionId,
        /// What the other end told.
        other: RelayEnd,
    },
    /// Makes the shard offer again with new ICE credentials ([`Role::Subscribe`] only).
    RestartIce {
        /// The connection.
        connection: ConnectionId,
    },
    /// Announces a track; it goes live with the offer that brings its m-line.
    Publish {
        /// The connection that will carry it.
        connection: ConnectionId,
        /// The new track.
        track: TrackId,
        /// What it is.
        publication: Publication,
    },
    /// Announces the backup of a live track that has a backup codec; it begins with the offer that
    /// brings its m-line. Who doesn't take the primary codec is sent it.
    PublishBackup {
        /// The track.
        track: TrackId,
        /// The client's own id of it.
        cid: String,
        /// While anybody needs it, everybody who takes it is sent it, so that the client may stop
        /// sending the other.
        replaces: bool,
    },
    /// Ends a track, its backup and all its subscriptions.
    Unpublish {
        /// The track.
        track: TrackId,
    },
    /// While muted nothing of the track is forwarded and it is never loud.
    Mute {
        /// The track.
        track: TrackId,
        /// Whether it is muted.
        is_muted: bool,
    },
    /// Sends a track to a connection. Leads to [`Event::Offer`] ([`Role::Subscribe`]) or
    /// [`Event::PlacesNeeded`] ([`Role::Single`]) where the connection has no place free, and to
    /// [`Event::Subscribed`] once it is agreed. Subscribing before the track is live is allowed.
    Subscribe {
        /// The subscriber's connection.
        connection: ConnectionId,
        /// The track.
        track: TrackId,
        /// The first word of `a=msid`: `PARTICIPANT_SID|STREAM`. Clients play what shares a stream
        /// in time with each other.
        stream_name: String,
        /// The second word of `a=msid`: the track's SID.
        track_name: String,
        /// What is wanted to begin with.
        selection: Selection,
    },
    /// Stops sending a track to a connection.
    Unsubscribe {
        /// The subscriber's connection.
        connection: ConnectionId,
        /// The track.
        track: TrackId,
    },
    /// Sends a track in a place of a [`Role::View`] connection, instead of what was sent there, or
    /// nothing. The client sees one stream that goes on: numbers and time run on over the change,
    /// and pictures begin with a keyframe. Ignored where the place was not offered, is not of the
    /// track's kind, or the track is sent to the connection already. Leads to
    /// [`Event::Subscribed`]; [`Command::Select`] and [`Command::Unsubscribe`] hold as for others.
    Place {
        /// The viewer's connection.
        connection: ConnectionId,
        /// The mid of the place's m-line.
        mid: String,
        /// What is sent there from now on.
        track: Option<TrackId>,
        /// What is wanted of it to begin with.
        selection: Selection,
    },
    /// Changes what a subscriber wants.
    Select {
        /// The subscriber's connection.
        connection: ConnectionId,
        /// The track.
        track: TrackId,
        /// What is wanted now.
        selection: Selection,
    },
    /// Sends one message on a data channel of several connections. A connection whose channel is
    /// not open yet gets reliable messages when it opens (a bounded number), lossy ones not.
    SendData {
        /// The receivers.
        connections: Vec<ConnectionId>,
        /// Which channel.
        channel: Channel,
        /// The message, up to the channel's message size.
        payload: Arc<[u8]>,
    },
    /// Asks what a connection is sent and why, and what comes over it; answered with
    /// [`Event::Account`], also for an unknown one.
    Explain {
        /// The connection.
        connection: ConnectionId,
    },
    /// Ends a connection, its tracks and its subscriptions; no [`Event::Closed`] follows.
    Close {
        /// The connection.
        connection: ConnectionId,
    },
}

/// How a connection's media fared since the last report.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LineReport {
    /// Share of packets lost from the client to us, 0–1; `None` when nothing was received.
    pub loss_up: Option<f32>,
    /// Share of packets lost from us to the client, as it reported, 0–1.
    pub loss_down: Option<f32>,
    /// Round-trip time.
    pub round_trip: Option<Duration>,
    /// Bytes received since the last report.
    pub bytes_up: u64,
    /// Bytes sent since the last report.
    pub bytes_down: u64,
    /// What the line from us to the client carries by our estimate, in bits per second; `None` while
    /// nothing is known.
    pub available_down: Option<u64>,
    /// How long packets wait in queues on that way.
    pub queue_down: Duration,
}

/// What a shard tells.
#[derive(Clone, Debug)]
pub enum Event {
    /// The answer to [`Command::Offer`].
    Answer {
        /// The connection.
        connection: ConnectionId,
        /// The answer's SDP text.
        sdp: String,
        /// For each place in use, the m-line's mid and the track sent in it, by `track_name`.
        mids: Vec<(String, String)>,
    },
    /// The shard's offer; answer with [`Command::Answer`].
    Offer {
        /// The connection.
        connection: ConnectionId,
        /// The offer's SDP text.
        sdp: String,
    },
    /// What the other end of a line between nodes must be told; follows [`Command::Open`].
    RelayEnd {
        /// The connection.
        connection: ConnectionId,
        /// This end.
        end: RelayEnd,
    },
    /// An offer or answer, or the other end of a line, could not be taken; the connection stays as it
    /// was.
    Refused {
        /// The connection.
        connection: ConnectionId,
        /// Why, in words for the client's log.
        reason: String,
    },
    /// A [`Role::Single`] client must bring this many more `recvonly` m-lines in a new offer.
    PlacesNeeded {
        /// The connection.
        connection: ConnectionId,
        /// More audio places.
        audio: u32,
        /// More video places.
        video: u32,
    },
    /// ICE and DTLS are up for the first time.
    Connected {
        /// The connection.
        connection: ConnectionId,
        /// The client's address.
        remote: Option<SocketAddr>,
    },
    /// Nothing authenticated has come from the client for some seconds; it may come back.
    Silent {
        /// The connection.
        connection: ConnectionId,
    },
    /// Media from a silent client has come back.
    Resumed {
        /// The connection.
        connection: ConnectionId,
    },
    /// The connection is gone (closed by the client, failed DTLS, or silent for too long) and the
    /// shard has forgotten it, its tracks and its subscriptions.
    Closed {
        /// The connection.
        connection: ConnectionId,
        /// Why, in words for the log.
        reason: &'static str,
    },
    /// The m-line of a track's encoding was agreed. With that of the primary one the track can be
    /// announced to others.
    Published {
        /// The track.
        track: TrackId,
        /// Which of its encodings.
        encoding: Encoding,
        /// Its m-line's mid.
        mid: String,
        /// The codec agreed, first in the answer.
        codec: Codec,
    },
    /// The codec of an encoding's packets is another than was told.
    CodecChanged {
        /// The track.
        track: TrackId,
        /// Which of its encodings.
        encoding: Encoding,
        /// The codec of its packets.
        codec: Codec,
    },
    /// The client stopped the m-line of a track's encoding. With the primary one the track ends.
    Ended {
        /// The track.
        track: TrackId,
        /// Which of its encodings.
        encoding: Encoding,
    },
    /// The subscriber's m-line for a track was agreed; media flows from now on.
    Subscribed {
        /// The subscriber's connection.
        connection: ConnectionId,
        /// The track.
        track: TrackId,
    },
    /// The subscriber's client accepts none of the track's codecs.
    CodecNotAccepted {
        /// The subscriber's connection.
        connection: ConnectionId,
        /// The track.
        track: TrackId,
    },
    /// A subscriber's picture is not sent for now, or is sent again: the subscriber's line or the
    /// processor is full.
    Paused {
        /// The subscriber's connection.
        connection: ConnectionId,
        /// The track.
        track: TrackId,
        /// Whether it is sent no more.
        is_paused: bool,
        /// Whether the line is what has no room for it; otherwise the processor.
        is_line_full: bool,
    },
    /// The best layer of an encoding that is to be sent to anybody, after what lines and the processor
    /// leave of the wishes: nobody gets what is above it. Of a backup that is not published yet:
    /// somebody needs it.
    LayersWanted {
        /// The track.
        track: TrackId,
        /// Which of its encodings.
        encoding: Encoding,
        /// Its best layer; `None`: nobody gets any.
        quality: Option<Quality>,
    },
    /// The client opened one of its data channels, or accepted ours.
    ChannelOpen {
        /// The connection.
        connection: ConnectionId,
        /// Which.
        channel: Channel,
    },
    /// A message from the client.
    Data {
        /// The connection.
        connection: ConnectionId,
        /// Which channel it came on.
        channel: Channel,
        /// The message.
        payload: Arc<[u8]>,
    },
    /// How loud each audio track was since the last report: RFC 6464 levels smoothed over it, 0
    /// (loudest) to 127 (silence). Only tracks that sent something are listed; comes every
    /// `AUDIO_LEVEL_INTERVAL`, also once with an empty list when everything fell silent.
    AudioLevels(Vec<(TrackId, u8)>),
    /// Per connection, every `LINE_REPORT_INTERVAL`.
    Line {
        /// The connection.
        connection: ConnectionId,
        /// How it fared.
        report: LineReport,
    },
    /// The answer to [`Command::Explain`].
    Account {
        /// The connection.
        connection: ConnectionId,
        /// What is to be said of it; `None`: there is no such connection.
        account: Option<Arc<Account>>,
    },
}
