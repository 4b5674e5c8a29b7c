//! What a participant is sent and why, and what it publishes, in JSON's shape: the media core's
//! account with the room's names. Rates are in bits per second.

use std::sync::Arc;
use std::time::Duration;

use livekit_protocol as proto;
use serde::Serialize;
use sfu::account::{self, Account, LineState, Processor, Rank, Reason};
use sfu::{Command, ConnectionId, Quality, TrackId};

use super::{CallError, ParticipantKey, Room};

/// Whose account the media core was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    key: ParticipantKey,
    /// What carries what it receives.
    pub(crate) subscriber: ConnectionId,
    /// What carries what it publishes; the same in a single connection.
    pub(crate) publisher: ConnectionId,
}

/// A participant's diagnostics.
#[derive(Debug, Serialize)]
pub(crate) struct Diagnostics {
    room: String,
    identity: String,
    sid: String,
    /// `None`: there is no connection that it could receive over.
    receives: Option<Receives>,
    publishes: Vec<Published>,
}

#[derive(Debug, Serialize)]
struct Receives {
    line: Line,
    processor: &'static str,
    pictures: Vec<Picture>,
    sounds: Vec<Sound>,
    left_out: usize,
}

#[derive(Debug, Serialize)]
struct Line {
    state: &'static str,
    estimate: Option<u64>,
    budget: Option<u64>,
    for_pictures: Option<u64>,
    sound: u64,
    given: u64,
    sent: Option<u64>,
    probing: bool,
    loss: f64,
    own_loss: f64,
    doubled: bool,
    round_trip_ms: Option<f64>,
    queue_ms: f64,
}

/// A track as the room knows it.
#[derive(Debug, Serialize)]
struct Named {
    track: String,
    publisher: String,
    source: String,
}

#[derive(Debug, Serialize)]
struct Picture {
    #[serde(flatten)]
    named: Named,
    rank: &'static str,
    wanted: Wanted,
    steps: Vec<Step>,
    given: Option<Step>,
    sent: Option<Step>,
    reason: &'static str,
}

#[derive(Debug, Serialize)]
struct Wanted {
    enabled: bool,
    quality: &'static str,
    area: u32,
    frame_rate: u32,
}

#[derive(Debug, Serialize)]
struct Step {
    quality: &'static str,
    spatial: u8,
    temporal: u8,
    frame_rate: Option<f64>,
    bitrate: u64,
}

#[derive(Debug, Serialize)]
struct Sound {
    #[serde(flatten)]
    named: Named,
    sent: bool,
    red: bool,
    redundancy: usize,
    bitrate: Option<u64>,
    reason: &'static str,
}

#[derive(Debug, Serialize)]
struct Published {
    #[serde(flatten)]
    named: Named,
    codec: Option<&'static str>,
    muted: bool,
    wanted: Option<&'static str>,
    subscribers: usize,
    layers: Vec<Layer>,
}

#[derive(Debug, Serialize)]
struct Layer {
    quality: &'static str,
    received: bool,
    bitrate: Option<u64>,
    frame_rate: Option<f64>,
    temporal_layers: u8,
    subscribers: usize,
}

fn quality(quality: Quality) -> &'static str {
    match quality {
        Quality::Low => "low",
        Quality::Medium => "medium",
        Quality::High => "high",
    }
}

fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::All => "all",
        Reason::Negotiating => "negotiating",
        Reason::Hidden => "hidden",
        Reason::Codec => "codec",
        Reason::Muted => "muted",
        Reason::Publisher => "publisher",
        Reason::Processor => "processor",
        Reason::Line => "line",
        Reason::Unmeasured => "unmeasured",
        Reason::Hold => "hold",
        Reason::Keyframe => "keyframe",
    }
}

/// With so many digits as mean something.
fn rounded(value: f64, digits: i32) -> f64 {
    let unit = 10_f64.powi(digits);
    (value * unit).round() / unit
}

fn milliseconds(time: Duration) -> f64 {
    rounded(time.as_secs_f64() * 1000.0, 1)
}

impl From<&account::Line> for Line {
    fn from(line: &account::Line) -> Line {
        Line {
            state: match line.state {
                LineState::Unmeasured => "unmeasured",
                LineState::Unlimited => "unlimited",
                LineState::Limited => "limited",
                LineState::Interrupted => "interrupted",
            },
            estimate: line.estimate,
            budget: line.budget,
            for_pictures: line.for_pictures,
            sound: line.sound,
            given: line.given,
            sent: line.sent,
            probing: line.is_probing,
            loss: rounded(line.loss, 4),
            own_loss: rounded(line.own_loss, 4),
            doubled: line.is_doubled,
            round_trip_ms: line.round_trip.map(milliseconds),
            queue_ms: milliseconds(line.queue),
        }
    }
}

impl From<&account::Step> for Step {
    fn from(step: &account::Step) -> Step {
        Step {
            quality: quality(step.quality),
            spatial: step.spatial,
            temporal: step.temporal,
            frame_rate: step.frame_rate.map(|rate| rounded(rate, 1)),
            bitrate: step.bits,
        }
    }
}

impl From<&account::Layer> for Layer {
    fn from(layer: &account::Layer) -> Layer {
        Layer {
            quality: quality(layer.quality),
            received: layer.is_received,
            bitrate: layer.bits,
            frame_rate: layer.frame_rate.map(|rate| rounded(rate, 1)),
            temporal_layers: layer.temporal_layers,
            subscribers: layer.subscribers,
        }
    }
}

impl Room {
    /// Asks the media core what a participant is sent and why, and what it publishes.
    pub(crate) fn explain(&mut self, identity: &str) -> Result<Asked, CallError> {
        let key = self.by_identity(identity)?;
        let participant = &self.participants[&key];
        let asked = Asked {
            key,
            subscriber: participant.subscriber,
            publisher: participant.publisher,
        };
        for connection in asked.connections() {
            self.media(Command::Explain { connection });
        }
        Ok(asked)
    }

    /// Puts the media core's accounts, in the order of [`Asked::connections`], into words. `None`: the
    /// participant has left meanwhile.
    pub(crate) fn diagnostics(
        &self,
        asked: Asked,
        accounts: &[Option<Arc<Account>>],
    ) -> Option<Diagnostics> {
        let participant = self.participants.get(&asked.key)?;
        let of_subscriber = accounts.first().and_then(Option::as_deref);
        let of_publisher = accounts.last().and_then(Option::as_deref);
        let published = of_publisher.map_or(&[][..], |account| &account.published);
        Some(Diagnostics {
            room: self.settings.name.clone(),
            identity: participant.info.identity.clone(),
            sid: participant.info.sid.clone(),
            receives: of_subscriber.map(|account| self.receives(account)),
            publishes: published
                .iter()
                .filter_map(|track| self.published(track))
                .collect(),
        })
    }

    fn receives(&self, account: &Account) -> Receives {
        let picture = |picture: &account::Picture| {
            Some(Picture {
                named: self.named(picture.track)?,
                rank: match picture.rank {
                    Rank::Screen => "screen",
                    Rank::Speaker => "speaker",
                    Rank::Pinned => "pinned",
                    Rank::Other => "other",
                },
                wanted: Wanted {
                    enabled: picture.wanted.is_enabled,
                    quality: quality(picture.wanted.quality),
                    area: picture.wanted.area,
                    frame_rate: picture.wanted.frame_rate,
                },
                steps: picture.steps.iter().map(Step::from).collect(),
                given: picture.given.as_ref().map(Step::from),
                sent: picture.sent.as_ref().map(Step::from),
                reason: reason(picture.reason),
            })
        };
        let sound = |sound: &account::Sound| {
            Some(Sound {
                named: self.named(sound.track)?,
                sent: sound.reason == Reason::All,
                red: sound.is_red,
                redundancy: sound.redundancy,
                bitrate: sound.bits,
                reason: reason(sound.reason),
            })
        };
        Receives {
            line: Line::from(&account.line),
            processor: match account.processor {
                Processor::All => "all",
                Processor::Lowest => "lowest",
                Processor::Nothing => "nothing",
            },
            pictures: account.pictures.iter().filter_map(picture).collect(),
            sounds: account.sounds.iter().filter_map(sound).collect(),
            left_out: account.left_out,
        }
    }

    fn published(&self, track: &account::Published) -> Option<Published> {
        Some(Published {
            named: self.named(track.track)?,
            codec: track.codec.map(sfu::Codec::mime_type),
            muted: track.is_muted,
            wanted: track.wanted.map(quality),
            subscribers: track.subscribers,
            layers: track.layers.iter().map(Layer::from).collect(),
        })
    }

    /// `None` for a track that has ended meanwhile.
    fn named(&self, id: TrackId) -> Option<Named> {
        let track = self.tracks.get(&id)?;
        let source: proto::TrackSource = track.info.source();
        Some(Named {
            track: track.info.sid.clone(),
            publisher: self.identity(track.owner()),
            source: source.as_str_name().to_lowercase(),
        })
    }
}

impl Asked {
    /// The connections whose accounts were asked for, that of the subscriber first.
    pub(crate) fn connections(self) -> impl Iterator<Item = ConnectionId> {
        let publisher = (self.publisher != self.subscriber).then_some(self.publisher);
        [self.subscriber].into_iter().chain(publisher)
    }
}
