//! What neighbours tell each other.
//!
//! Two kinds of message cross a line. [`Heartbeat`], [`Message::Loudness`] and [`Message::Keyframe`]
//! may be lost: the next one says it again. Everything else is an [`Item`] in a [`Batch`], which is
//! sent again until it is acknowledged, and applied once and in order (`channel`).
//!
//! Most items are a *state* under a [`Key`]: whoever missed ten changes of it is told the last one.
//! So what waits for a line that is cut is never more than there are people, and what is told when it
//! is back is the difference.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::identity::{
    ConferenceId, Epoch, Identity, Incarnation, Level, NodeId, OrganisationId, Place, Quality,
    Session, Source, TEXT_BOUND, TrackId,
};
use super::register::Register;

/// The version of what is said here.
pub const PROTOCOL: u16 = 1;

/// The oldest version that is still understood.
pub const PROTOCOL_OLDEST: u16 = 1;

/// The largest message, in bytes: what a bus carries without being asked twice.
pub const MESSAGE_BOUND: usize = 64 * 1024;

/// What of it the items of a batch may take. The rest is for the envelope, the signature and their
/// encoding in text.
pub(crate) const ITEMS_BOUND: usize = 40 * 1024;

/// The longest text of a chat or data message, in bytes.
pub(crate) const CHAT_BOUND: usize = 15 * 1024;

/// Tracks of one participant: a microphone, a camera, a screen with its sound, and as many again.
pub const TRACKS_BOUND: usize = 8;

/// The longest way through the tree. There are five levels; a second way or a sibling adds to it.
pub(crate) const HOPS_BOUND: usize = 12;

/// How many are on stage at most, everywhere.
pub const STAGE_BOUND: usize = 64;

/// How many voices of one conference cross a line at most. More lets more be heard at once; each is
/// 40 kbit/s on every line of the tree.
pub const HEARD_BOUND: usize = 8;

/// A published track, as others hear of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackInfo {
    /// Which of the session's tracks.
    pub number: u16,
    /// What it is of.
    pub source: Source,
    /// Of a picture the width and height of each layer that there is, the smallest first; 0 where there is
    /// none, or it is not known.
    #[serde(default, skip_serializing_if = "is_unknown")]
    pub sizes: [(u16, u16); 3],
}

fn is_unknown(sizes: &[(u16, u16); 3]) -> bool {
    *sizes == [(0, 0); 3]
}

/// What may be taken from a participant and given back. Closing wins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    /// Whether the microphone is open. The participant opens and closes it, a chair closes it.
    #[serde(default, skip_serializing_if = "Register::is_new")]
    pub microphone: Register,
    /// The right to publish, which a chair takes and gives back.
    #[serde(default, skip_serializing_if = "Register::is_new")]
    pub publish: Register,
}

impl Rights {
    /// Nothing was ever taken.
    pub fn is_new(&self) -> bool {
        self.microphone.is_new() && self.publish.is_new()
    }

    /// Takes in what another node knows; whether that changed anything.
    pub fn merge(&mut self, other: &Rights) -> bool {
        let is_changed = self.microphone.merge(&other.microphone);
        self.publish.merge(&other.publish) || is_changed
    }

    /// Whether the participant may be heard.
    pub fn may_be_heard(&self) -> bool {
        self.microphone.is_open() && self.publish.is_open()
    }
}

/// Somebody who is there, as the node says at which that is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participant {
    /// By which the conference tells its people apart.
    pub identity: Identity,
    /// This stay.
    pub session: Session,
    /// When it began, in UTC milliseconds by its node's clock.
    pub joined: u64,
    /// The session that it took the place of, as far as its node or one on the way knew.
    pub replaces: Option<Session>,
    /// As shown.
    pub name: Arc<str>,
    /// Of the participant.
    pub organisation: OrganisationId,
    /// Of the node.
    pub level: Level,
    /// The branch of which its grant makes it a chair: the node at that branch's top.
    pub chair_of: Option<NodeId>,
    /// What was taken from it.
    #[serde(default, skip_serializing_if = "Rights::is_new")]
    pub rights: Rights,
    /// What it publishes; at most [`TRACKS_BOUND`].
    pub tracks: Vec<TrackInfo>,
}

impl Participant {
    /// The ids of its tracks.
    pub fn track_ids(&self) -> impl Iterator<Item = (TrackId, Source)> + '_ {
        self.tracks.iter().map(|track| {
            let id = TrackId {
                session: self.session,
                number: track.number,
                source: track.source,
            };
            (id, track.source)
        })
    }

    /// Its microphone's track.
    pub fn microphone(&self) -> Option<TrackId> {
        self.track_ids()
            .find(|(_, source)| *source == Source::Microphone)
            .map(|(id, _)| id)
    }

    /// Whether this stay is later than another of the same identity: whoever knew of the other and
    /// took its place is; else the clocks decide, and then the ids, so that all decide alike.
    pub fn is_newer_than(&self, other: &Participant) -> bool {
        if self.session == other.session {
            return false;
        }
        if self.session.node == other.session.node {
            return self.session > other.session;
        }
        if self.replaces == Some(other.session) {
            return true;
        }
        if other.replaces == Some(self.session) {
            return false;
        }
        (self.joined, self.session) > (other.joined, other.session)
    }

    fn is_within_bounds(&self) -> bool {
        self.tracks.len() <= TRACKS_BOUND
            && self.identity.0.len() <= TEXT_BOUND
            && self.name.len() <= TEXT_BOUND
    }
}

/// What a node says of itself, signed by itself and passed on upwards unchanged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// Who speaks.
    pub place: Place,
    /// Of the speaker.
    pub incarnation: Incarnation,
    /// The neighbour that it takes as its way up.
    pub way: Option<NodeId>,
    /// Grows with each announcement of an incarnation.
    pub number: u32,
    /// By the speaker's key, over all of the above (`seal`).
    pub signature: Vec<u8>,
}

impl Announcement {
    /// What is signed.
    pub fn signed_bytes(&self) -> Vec<u8> {
        let unsigned = Announcement {
            signature: Vec::new(),
            ..self.clone()
        };
        serde_json::to_vec(&unsigned).expect("an announcement has only texts and numbers")
    }
}

/// Which act: by the node at which it was done. Higher numbers are later ones of that node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ActId {
    /// Where it was done.
    pub node: NodeId,
    /// Of that node.
    pub incarnation: Incarnation,
    /// Counts the acts of that incarnation.
    pub number: u32,
}

/// What somebody does to the conference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// Closes somebody's microphone.
    Mute(Identity),
    /// Takes somebody's right to publish.
    Revoke(Identity),
    /// Gives it back.
    Restore(Identity),
    /// Ends somebody's stay.
    Remove(Identity),
    /// Puts somebody on stage.
    Stage(Identity),
    /// Takes somebody off it.
    OffStage(Identity),
    /// Lets the loudest onto the stage by themselves, or no longer.
    OpenFloor(bool),
    /// Ends the conference.
    End,
    /// Says something to all; anybody may.
    Chat(Arc<str>),
}

impl Deed {
    /// On whom it is done.
    pub fn target(&self) -> Option<&Identity> {
        match self {
            Deed::Mute(one)
            | Deed::Revoke(one)
            | Deed::Restore(one)
            | Deed::Remove(one)
            | Deed::Stage(one)
            | Deed::OffStage(one) => Some(one),
            Deed::OpenFloor(_) | Deed::End | Deed::Chat(_) => None,
        }
    }
}

/// Something that somebody does, on its way to the root of the epoch, where it takes effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    /// By which it takes effect once.
    pub id: ActId,
    /// Who.
    pub actor: Identity,
    /// What.
    pub deed: Deed,
}

/// An act that took effect, in the order in which it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// The epoch whose root wrote it.
    pub epoch: Epoch,
    /// Counts the entries of that root, from 1 and over its restarts.
    pub number: u64,
    /// UTC milliseconds by its clock.
    pub at: u64,
    /// What took effect.
    pub act: Arc<Act>,
}

/// Who is heard and who speaks, as the root of the epoch decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Speakers {
    /// Whose picture is shown big.
    pub dominant: Option<Identity>,
    /// Whose voices cross the lines; at most [`HEARD_BOUND`].
    pub heard: Vec<Identity>,
}

/// What a state is of. The order is that in which states are told: what closes a microphone is said
/// before what asks for its sound.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Leave,
    Ended,
    Epoch,
    Authority(Identity),
    Node(NodeId),
    Participant(Identity),
    Away,
    Stage(Identity),
    Speakers,
    Log(NodeId, u64),
    Wish(TrackId),
}

/// One thing told reliably.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Item {
    /// All that follows, until [`Item::Complete`], is everything that the sender knows. What is not in
    /// it is not there.
    Begin {
        /// The conference's root.
        root: NodeId,
        /// The stream of the receiver's that this answers, if it does.
        answers: Option<u32>,
    },
    /// Everything was said that is known.
    Complete,
    /// To the parent: the sender has nothing to do with this conference any more.
    Leave,

    /// To the parent: a node below, and whom this has passed.
    Node {
        /// Its own words.
        announcement: Arc<Announcement>,
        /// From the node itself to the sender, both included.
        hops: Arc<[NodeId]>,
    },
    /// To the parent: a node is no longer below.
    NodeGone(NodeId),
    /// To the parent: somebody below is there, or has changed.
    Participant(Arc<Participant>),
    /// To the parent: somebody is no longer below.
    Gone(Identity),
    /// To the parent: branches below that can't be reached now.
    Away(Vec<NodeId>),
    /// To the parent: what took effect in an epoch of its own.
    Log(Arc<LogEntry>),
    /// To the parent: what somebody below does.
    Act(Arc<Act>),

    /// To a child: the epoch that it is in.
    Epoch(Epoch),
    /// To a child: what was taken from somebody there, and which stays of theirs are over.
    Authority {
        /// Of whom.
        identity: Identity,
        /// What was taken.
        rights: Rights,
        /// A stay that was ended by a chair.
        removed: Option<Session>,
        /// A stay that another has taken the place of.
        replaced: Option<Session>,
    },
    /// To a child: somebody is on stage, or has changed there.
    Stage(Arc<Participant>),
    /// To a child: somebody is no longer on stage.
    OffStage(Identity),
    /// To a child: who is heard.
    Speakers(Arc<Speakers>),
    /// To a child: a chat message.
    Chat(Arc<LogEntry>),
    /// To a child: the conference is over.
    Ended,

    /// To where a track comes from: the best layer that is wanted, or none.
    Wish {
        /// Of which track.
        track: TrackId,
        /// How much of it.
        layer: Option<Quality>,
    },
    /// From where a track came: it has ended, and wishes for it with it.
    NoTrack(TrackId),
}

impl Item {
    /// An upper bound of the bytes that it takes as JSON.
    pub(crate) fn size(&self) -> usize {
        /// What a text takes when each of its bytes is escaped.
        fn text(text: &str) -> usize {
            if text.bytes().all(|b| b >= b' ' && b != b'"' && b != b'\\') {
                text.len() + 2
            } else {
                text.len() * 6 + 2
            }
        }
        const ID: usize = 40;
        const SESSION: usize = 110;
        fn participant(one: &Participant) -> usize {
            let texts = text(&one.identity.0) + text(&one.name);
            let rights = one.rights.microphone.size() + one.rights.publish.size();
            350 + texts + SESSION * 2 + ID * 2 + rights + one.tracks.len() * 110
        }
        fn act(act: &Act) -> usize {
            let deed = match &act.deed {
                Deed::Chat(words) => text(words),
                other => other.target().map_or(0, |target| text(&target.0)),
            };
            SESSION + 100 + text(&act.actor.0) + deed
        }
        32 + match self {
            Item::Begin { .. } => ID + 40,
            Item::Complete | Item::Leave | Item::Ended => 0,
            Item::Node { announcement, hops } => {
                300 + announcement.signature.len() * 4 + hops.len() * ID
            }
            Item::NodeGone(_) => ID,
            Item::Participant(one) | Item::Stage(one) => participant(one),
            Item::Gone(identity) | Item::OffStage(identity) => text(&identity.0),
            Item::Away(nodes) => nodes.len() * ID,
            Item::Log(entry) | Item::Chat(entry) => 200 + act(&entry.act),
            Item::Act(one) => act(one),
            Item::Epoch(_) => ID + 50,
            Item::Authority {
                identity, rights, ..
            } => {
                let rights = rights.microphone.size() + rights.publish.size();
                120 + text(&identity.0) + rights + SESSION * 2
            }
            Item::Speakers(speakers) => {
                let all = speakers.heard.iter().chain(&speakers.dominant);
                60 + all.map(|one| text(&one.0) + 1).sum::<usize>()
            }
            Item::Wish { .. } | Item::NoTrack(_) => SESSION + 100,
        }
    }

    /// Whether what it carries keeps to the bounds.
    pub(crate) fn is_within_bounds(&self) -> bool {
        let is_short = |identity: &Identity| identity.0.len() <= TEXT_BOUND;
        let is_act_short = |act: &Act| {
            let is_chat_short = match &act.deed {
                Deed::Chat(words) => words.len() <= CHAT_BOUND,
                _ => true,
            };
            is_chat_short && is_short(&act.actor) && act.deed.target().is_none_or(is_short)
        };
        match self {
            Item::Node { announcement, hops } => {
                hops.len() <= HOPS_BOUND && announcement.signature.len() <= 128
            }
            Item::Participant(one) | Item::Stage(one) => one.is_within_bounds(),
            Item::Gone(identity) | Item::OffStage(identity) => is_short(identity),
            Item::Authority { identity, .. } => is_short(identity),
            Item::Away(nodes) => nodes.len() <= AWAY_BOUND,
            Item::Log(entry) | Item::Chat(entry) => is_act_short(&entry.act),
            Item::Act(act) => is_act_short(act),
            Item::Speakers(speakers) => {
                speakers.heard.len() <= HEARD_BOUND
                    && speakers
                        .heard
                        .iter()
                        .chain(&speakers.dominant)
                        .all(is_short)
            }
            _ => true,
        }
    }

    /// Who may say it.
    pub(crate) fn direction(&self) -> Direction {
        match self {
            Item::Leave
            | Item::Node { .. }
            | Item::NodeGone(_)
            | Item::Participant(_)
            | Item::Gone(_)
            | Item::Away(_)
            | Item::Log(_)
            | Item::Act(_) => Direction::Up,
            Item::Epoch(_)
            | Item::Authority { .. }
            | Item::Stage(_)
            | Item::OffStage(_)
            | Item::Speakers(_)
            | Item::Chat(_)
            | Item::Ended => Direction::Down,
            Item::Begin { .. } | Item::Complete | Item::Wish { .. } | Item::NoTrack(_) => {
                Direction::Both
            }
        }
    }
}

/// Branches that are told to be away at most; of more the others are not told.
pub(crate) const AWAY_BOUND: usize = 256;

/// Which way an item may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
    Both,
}

/// Items in one message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Of which conference.
    pub conference: ConferenceId,
    /// The epoch that the sender is in, if it knows.
    pub epoch: Option<Epoch>,
    /// The sender's count of new beginnings; a higher one makes lower ones void.
    pub stream: u32,
    /// Counts the batches of a stream, from 0.
    pub sequence: u64,
    /// In order.
    pub items: Arc<[Item]>,
}

impl Batch {
    /// About how many bytes it takes.
    pub fn size(&self) -> usize {
        256 + self.items.iter().map(Item::size).sum::<usize>()
    }
}

/// How a line looks to one end, as in bidirectional forwarding detection (RFC 5880, section 6.2):
/// both ends must have heard each other before either takes the line for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LineState {
    /// Nothing is heard, or not enough.
    #[default]
    Down,
    /// The other end is heard.
    Init,
    /// Both hear each other.
    Up,
}

/// One step of a node's way up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// The node there.
    pub node: NodeId,
    /// Its level.
    pub level: Level,
}

/// Sent at a steady pace on each line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The newest version that the sender speaks.
    pub version: u16,
    /// The oldest that it understands.
    pub oldest: u16,
    /// How the line looks to it.
    pub state: LineState,
    /// The sender, its way up, that one's, and so on to where it ends.
    pub path: Arc<[Hop]>,
    /// To a child: how many there are in conferences that it takes part in.
    pub totals: Vec<(ConferenceId, u32)>,
    /// The sender's end of the media line to the receiver, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media: Option<MediaLine>,
}

/// One end of the media line between two nodes. The lower end begins a line, under a new number each
/// time; the upper end says the number of the one that it has taken up. So each knows in a moment when
/// the other has lost it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaLine {
    /// Counts the lines that the lower end's incarnation has begun.
    pub number: u32,
    /// What the other end must know of this one, until the line is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<sfu::RelayEnd>,
}

impl MediaLine {
    /// Whether an engine may be given what it says.
    pub(crate) fn is_sound(&self) -> bool {
        self.end.as_ref().is_none_or(sfu::RelayEnd::is_sound)
    }
}

/// How loud somebody is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voice {
    /// Who.
    pub identity: Identity,
    /// In dB below full scale (RFC 6464): 0 is the loudest, 127 silence.
    pub level: u8,
}

/// What crosses a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// The line is watched by these.
    Heartbeat(Box<Heartbeat>),
    /// Sent until it is acknowledged.
    Batch(Batch),
    /// All batches of a stream before `next` were applied.
    Acknowledge {
        /// Of which conference.
        conference: ConferenceId,
        /// Of the batches' sender.
        stream: u32,
        /// The sequence number that is awaited.
        next: u64,
    },
    /// The batch's stream is not known here: begin anew.
    Unknown {
        /// Of which conference.
        conference: ConferenceId,
        /// Of the batches' sender.
        stream: u32,
    },
    /// To the parent: the loudest below.
    Loudness {
        /// Of which conference.
        conference: ConferenceId,
        /// Loudest first; at most [`HEARD_BOUND`].
        voices: Vec<Voice>,
    },
    /// To where a track comes from: a picture is needed to begin with.
    Keyframe {
        /// Of which conference.
        conference: ConferenceId,
        /// Of which track.
        track: TrackId,
        /// Of which layer.
        layer: Quality,
    },
}

impl Message {
    /// About how many bytes it takes on a line.
    pub fn size(&self) -> usize {
        match self {
            Message::Heartbeat(beat) => {
                let end = beat.media.as_ref().map_or(0, |media| {
                    30 + media.end.as_ref().map_or(0, |end| {
                        let texts = end.user.len() + end.password.len() + end.fingerprint.len();
                        60 + texts + end.addresses.len() * 50
                    })
                });
                200 + beat.path.len() * 64 + beat.totals.len() * 48 + end
            }
            Message::Batch(batch) => batch.size(),
            Message::Acknowledge { .. } | Message::Unknown { .. } => 200,
            Message::Loudness { voices, .. } => {
                200 + voices
                    .iter()
                    .map(|one| one.identity.0.len() + 24)
                    .sum::<usize>()
            }
            Message::Keyframe { .. } => 300,
        }
    }
}

/// A message with who says it to whom. What is signed (`seal`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Who says it.
    pub from: NodeId,
    /// To whom: nobody else takes it.
    pub to: NodeId,
    /// Of the sender.
    pub incarnation: Incarnation,
    /// Of the receiver, as the sender knows it. Who has restarted takes nothing that was meant for the
    /// one before; so what was recorded can't be played back either.
    pub to_incarnation: Option<Incarnation>,
    /// Counts the envelopes of the sender's incarnation on this line.
    pub number: u64,
    /// What is said.
    pub message: Message,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(node: u128) -> Session {
        Session {
            node: NodeId(node),
            incarnation: u32::MAX,
            number: u32::MAX,
        }
    }

    /// Of each kind one, with the longest texts.
    fn samples() -> Vec<Item> {
        let long = "\u{1}".repeat(TEXT_BOUND);
        let identity = Identity(long.as_str().into());
        let mut rights = Rights::default();
        for root in 0..20 {
            let epoch = Epoch {
                root: NodeId(u128::MAX - root),
                number: u64::from(u32::MAX),
            };
            rights.microphone.close(epoch);
            rights.publish.close(epoch);
        }
        rights.microphone.open();
        rights.publish.open();
        let tracks = (0..TRACKS_BOUND as u16).map(|number| TrackInfo {
            number: u16::MAX - number,
            source: Source::ScreenSound,
            sizes: [(u16::MAX, u16::MAX); 3],
        });
        let node = NodeId(u128::MAX);
        let participant = Arc::new(Participant {
            identity: identity.clone(),
            session: session(u128::MAX),
            joined: u64::MAX,
            replaces: Some(session(u128::MAX)),
            name: long.as_str().into(),
            organisation: OrganisationId(u128::MAX),
            level: Level::Province,
            chair_of: Some(node),
            rights: rights.clone(),
            tracks: tracks.collect(),
        });
        let epoch = Epoch {
            root: node,
            number: u64::MAX,
        };
        let act = |deed| {
            Arc::new(Act {
                id: ActId {
                    node,
                    incarnation: u32::MAX,
                    number: u32::MAX,
                },
                actor: identity.clone(),
                deed,
            })
        };
        let entry = |act| {
            Arc::new(LogEntry {
                epoch,
                number: u64::MAX,
                at: u64::MAX,
                act,
            })
        };
        let place = Place {
            node,
            level: Level::Province,
            organisation: OrganisationId(u128::MAX),
        };
        let chat = Deed::Chat("好".repeat(CHAT_BOUND / 3).into());
        vec![
            Item::Begin {
                root: node,
                answers: Some(u32::MAX),
            },
            Item::Complete,
            Item::Leave,
            Item::Node {
                announcement: Arc::new(Announcement {
                    place,
                    incarnation: u32::MAX,
                    way: Some(node),
                    number: u32::MAX,
                    signature: vec![255; 64],
                }),
                hops: vec![node; HOPS_BOUND].into(),
            },
            Item::NodeGone(node),
            Item::Participant(participant.clone()),
            Item::Gone(identity.clone()),
            Item::Away(vec![node; AWAY_BOUND]),
            Item::Log(entry(act(chat.clone()))),
            Item::Act(act(Deed::OffStage(identity.clone()))),
            Item::Act(act(Deed::OpenFloor(false))),
            Item::Epoch(epoch),
            Item::Authority {
                identity: identity.clone(),
                rights,
                removed: Some(session(u128::MAX)),
                replaced: Some(session(u128::MAX)),
            },
            Item::Stage(participant),
            Item::OffStage(identity.clone()),
            Item::Speakers(Arc::new(Speakers {
                dominant: Some(identity.clone()),
                heard: vec![identity.clone(); HEARD_BOUND],
            })),
            Item::Chat(entry(act(chat))),
            Item::Ended,
            Item::Wish {
                track: TrackId {
                    session: session(u128::MAX),
                    number: u16::MAX,
                    source: Source::ScreenSound,
                },
                layer: Some(Quality::Medium),
            },
        ]
    }

    #[test]
    fn no_item_takes_more_than_it_says_and_all_are_read_back() {
        for item in samples() {
            let json = serde_json::to_string(&item).unwrap();
            assert!(
                json.len() <= item.size(),
                "{} > {}: {json}",
                json.len(),
                item.size()
            );
            assert!(item.is_within_bounds(), "{item:?}");
            assert!(item.size() <= ITEMS_BOUND, "{item:?}");
            assert_eq!(serde_json::from_str::<Item>(&json).unwrap(), item);
        }
    }

    #[test]
    fn of_two_sessions_all_nodes_choose_the_same() {
        let one = |node, joined, replaces| Participant {
            identity: "a".into(),
            session: session(node),
            joined,
            replaces,
            name: "a".into(),
            organisation: OrganisationId(1),
            level: Level::Village,
            chair_of: None,
            rights: Rights::default(),
            tracks: Vec::new(),
        };
        let early = one(1, 10, None);
        let late = one(2, 20, None);
        assert!(late.is_newer_than(&early) && !early.is_newer_than(&late));
        let knowing = one(3, 5, Some(session(2)));
        assert!(
            knowing.is_newer_than(&late),
            "a clock that is slow does not count"
        );
        assert!(!late.is_newer_than(&knowing));
        let same_time = one(4, 20, None);
        assert_ne!(
            same_time.is_newer_than(&late),
            late.is_newer_than(&same_time)
        );
        assert!(!late.is_newer_than(&late));
    }
}
