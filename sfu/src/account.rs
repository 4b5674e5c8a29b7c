//! What a connection is sent and why, and what it publishes: the words in which a shard answers
//! [`Command::Explain`](crate::Command::Explain).
//!
//! Rates are in bits per second, with the headers of IP, UDP and RTP.

use std::time::Duration;

pub use crate::allocate::Rank;
use crate::command::{Codec, Quality, Selection, TrackId};

/// The most pictures and sounds that one account has: as many as a description has m-lines.
pub const TRACKS_BOUND: usize = 256;

/// An account of one connection, as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    /// The line from us to the client.
    pub line: Line,
    /// What the processor leaves of all pictures.
    pub processor: Processor,
    /// The pictures that the client is subscribed to.
    pub pictures: Vec<Picture>,
    /// The sounds that it is subscribed to.
    pub sounds: Vec<Sound>,
    /// How many more of both there are than [`TRACKS_BOUND`].
    pub left_out: usize,
    /// What the client publishes over this connection.
    pub published: Vec<Published>,
}

/// What is known of how much a line carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineState {
    /// Nothing yet; little is sent until it is.
    Unmeasured,
    /// No limit was met: all that was sent came through.
    Unlimited,
    /// More was tried than came through: the line is the limit.
    Limited,
    /// The client has told nothing for a while of what it is sent.
    Interrupted,
}

/// What a line carries and what it is spent on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// What is known of it.
    pub state: LineState,
    /// The estimate of what it carries; `None` while nothing was measured.
    pub estimate: Option<u64>,
    /// What may be sent: the estimate, or less while a queue is emptied. `None`: no bound is known.
    pub budget: Option<u64>,
    /// What pictures may have of it, after sound and the repair of what is lost.
    pub for_pictures: Option<u64>,
    /// What sound takes.
    pub sound: u64,
    /// What sound takes and what pictures were given.
    pub given: u64,
    /// What was sent over the last half second, with repair and probes.
    pub sent: Option<u64>,
    /// A probe is under way: more was sent for a moment, and what came of it is awaited.
    pub is_probing: bool,
    /// The share of packets lost lately, 0–1.
    pub loss: f64,
    /// The share that the line is taken to lose by itself, whatever is sent, 0–1.
    pub own_loss: f64,
    /// Pictures are sent twice, as the line loses much and has room.
    pub is_doubled: bool,
    /// Round-trip time.
    pub round_trip: Option<Duration>,
    /// How long packets wait in queues on the way, smoothed.
    pub queue: Duration,
}

/// What the processor leaves of a connection's pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processor {
    /// All.
    All,
    /// Their lowest layers.
    Lowest,
    /// None.
    Nothing,
}

/// A picture's size and frame rate among those that there are to choose from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The simulcast layer's quality, or that of the spatial layer.
    pub quality: Quality,
    /// The uppermost spatial layer within the stream, from 0.
    pub spatial: u8,
    /// The uppermost temporal layer within the stream, from 0.
    pub temporal: u8,
    /// Pictures a second; `None` where the stream does not tell where one begins.
    pub frame_rate: Option<f64>,
    /// What it costs.
    pub bits: u64,
}

/// Why a track is not sent, or not in its best step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is: all that is wanted is sent.
    All,
    /// No place for it is agreed with the client yet.
    Negotiating,
    /// The client does not want it now.
    Hidden,
    /// The client does not take the track's codec.
    Codec,
    /// The publisher muted it.
    Muted,
    /// The publisher does not send it, or not this layer of it.
    Publisher,
    /// The processor has no time for more.
    Processor,
    /// More does not fit in what the line carries.
    Line,
    /// The line was not measured yet.
    Unmeasured,
    /// More would fit, but only now did the line carry too little: nothing is raised for a moment.
    Hold,
    /// It begins with the keyframe that is awaited, or with the next packet.
    Keyframe,
}

/// A picture that a client is subscribed to.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// The track.
    pub track: TrackId,
    /// How important it is.
    pub rank: Rank,
    /// What the client wants of it.
    pub wanted: Selection,
    /// What there is to choose from, the cheapest first, up to the best one wanted.
    pub steps: Vec<Step>,
    /// What the line and the processor leave.
    pub given: Option<Step>,
    /// What is sent.
    pub sent: Option<Step>,
    /// Why that isn't the best step.
    pub reason: Reason,
}

/// A sound that a client is subscribed to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sound {
    /// The track.
    pub track: TrackId,
    /// Whether it is sent as RED (RFC 2198).
    pub is_red: bool,
    /// How many earlier packets go along with each, as the line loses so much.
    pub redundancy: usize,
    /// What it costs, as it comes from the publisher; `None` before it was measured.
    pub bits: Option<u64>,
    /// Why it isn't sent; [`Reason::All`] when it is.
    pub reason: Reason,
}

/// A track that the client publishes, in one codec.
#[derive(Clone, Debug, PartialEq)]
pub struct Published {
    /// The track.
    pub track: TrackId,
    /// The codec of its packets.
    pub codec: Option<Codec>,
    /// Whether it is muted.
    pub is_muted: bool,
    /// Its layers, the lowest first.
    pub layers: Vec<Layer>,
    /// The best layer that is to be sent to anybody, as was told last
    /// ([`Event::LayersWanted`](crate::Event::LayersWanted)); `None`: none, or it is a sound.
    pub wanted: Option<Quality>,
    /// How many are subscribed.
    pub subscribers: usize,
}

/// A layer as it comes from the publisher.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layer {
    /// The simulcast layer's quality, or that of the spatial layer.
    pub quality: Quality,
    /// Something of it came lately.
    pub is_received: bool,
    /// What it costs with the spatial layers below it; `None` where it does not come.
    pub bits: Option<u64>,
    /// Pictures a second, where they are told apart.
    pub frame_rate: Option<f64>,
    /// How many temporal layers it has.
    pub temporal_layers: u8,
    /// How many are to be sent this layer as their best.
    pub subscribers: usize,
}
