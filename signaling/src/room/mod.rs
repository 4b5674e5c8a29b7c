//! One room: who is in it, what they publish, and who receives what.
//!
//! The room is told what clients and the media core do, and leaves [`Effect`]s: messages to
//! sessions and commands to the media core, in the order in which they must happen. It does no
//! IO, reads no clock and starts no task.
//!
//! Invariants:
//! - A message of a session that is not a participant's current one changes nothing.
//! - What a participant may do is asked of its permission at every step, also after it changed.
//! - A track is shown to others only while it is live, and every subscription is to a live track
//!   that its publisher lets the subscriber have.
//! - A hidden participant is never named to others, and one who is not announced (see [`roster`])
//!   by nothing but its own data messages.

mod backup;
mod data;
mod diagnostics;
pub mod line;
mod offer;
mod publish;
mod roster;
pub mod speakers;
mod subscribe;
#[cfg(test)]
mod tests;
pub mod tree;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_response::Message;
use proto::{ConnectionQuality, DisconnectReason};
use proto::{leave_request::Action, participant_info::State, request_response};
use rand::{Rng, SeedableRng, rngs::StdRng};
use sfu::{Command, ConnectionId, Event, Role, TrackId};

use crate::budget::Budget;
use crate::log_limit::LogLimit;
use crate::token::ConferenceGrant;

pub use backup::REGRESSION_BELOW;
pub use data::DATA_BOUND;
pub(crate) use diagnostics::Diagnostics;
use line::{End, Line};
pub(crate) use offer::check_formats;
#[cfg(any(test, fuzzing))]
pub(crate) use offer::{Announced, name_tracks, open_bundle_only};
pub use publish::Track;
pub(crate) use publish::may_publish;
use roster::Roster;
pub use roster::{CROWD, CROWD_NO_MORE};
use speakers::Speakers;
pub use subscribe::Subscription;
pub use view::{FOLLOW_TIME, ViewPlace, Whom};

/// How long a participant whose WebSocket was lost and of whom nothing is heard stays, waiting to
/// resume. Longer survives a longer cut; shorter clears away a killed browser sooner.
pub const RESUME_TIME: Duration = Duration::from_secs(20);
/// How long a participant whose WebSocket was lost stays while its media goes on: it is seen and
/// heard, and taking it away would be the only thing that the others notice. As long as a lost
/// media connection may be away while the WebSocket holds.
pub const RESUME_TIME_WITH_MEDIA: Duration = Duration::from_secs(60);
/// How long a participant with neither WebSocket nor media connection stays.
pub const GONE_TIME: Duration = Duration::from_secs(3);
/// How long a newcomer may take to connect its media.
pub const JOIN_TIME: Duration = Duration::from_secs(40);
/// How long a client may take to answer an offer. Clients that are busy or in the background
/// take seconds; one that never answers must not hold its place.
pub const ANSWER_TIME: Duration = Duration::from_secs(20);
/// After this long without a report of levels everybody counts as silent, once per tick, until
/// no speaker is left: the media core reports silence only once.
pub const LEVELS_TIME: Duration = Duration::from_millis(700);
/// How often changes of loudness are told in a crowd; who begins and who ends is told at once.
pub const LOUDNESS_INTERVAL: Duration = Duration::from_secs(1);
/// How often connection quality is told, if any changed.
pub const QUALITY_INTERVAL: Duration = Duration::from_secs(1);
/// The same in a crowd, where each time is a message to a thousand.
pub const QUALITY_INTERVAL_IN_CROWD: Duration = Duration::from_secs(3);
/// How many participants' quality is told to all at once, at most; the next ones' comes next time.
pub const QUALITIES_AT_ONCE: usize = 200;
/// How long nobody must want a layer before its publisher is told to stop it.
pub const LAYER_HOLD: Duration = Duration::from_secs(6);
/// How often a client shall ping, told to it in seconds.
pub const PING_INTERVAL: Duration = Duration::from_secs(5);
/// After this long without anything from a client its session is over.
pub const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// The most tracks that one participant may publish.
pub const TRACKS_PER_PARTICIPANT: usize = 32;
/// The longest identity, name, track name or client track id, in bytes.
pub const NAME_BOUND: usize = 256;
/// The most metadata of a participant or room, in bytes.
pub const METADATA_BOUND: usize = 64 * 1024;
/// The most that all attributes of a participant take, in bytes.
pub const ATTRIBUTES_BOUND: usize = 64 * 1024;
/// The most that the metadata and attributes of all participants of a room take, in bytes.
/// Everybody who comes is told all of it in one message, so a few must not be able to make that
/// message too long for anybody to join.
pub const ROOM_TEXT_BOUND: usize = 1024 * 1024;
/// The longest SDP that is looked at, in bytes.
pub const SDP_BOUND: usize = 256 * 1024;
/// The most m-lines of an SDP that is looked at; the media core takes no more.
pub const MEDIA_LINES_BOUND: usize = 256;
/// The most offers that may wait for their answers.
pub const PENDING_OFFERS: usize = 16;
/// The most track ids in one request.
pub const TRACK_IDS_BOUND: usize = 4096;
/// The longest request that an answer repeats, in bytes.
const ECHO_BOUND: usize = 4 * 1024;
/// The most text of others (the media core, a client) in a log line or a close frame, in bytes.
const REASON_BOUND: usize = 200;

/// What one participant's changes may cost each of the others at once, in bytes: what is over it
/// is told later, together with what has changed by then. Far below what waits for a slow reader
/// at most, so that nobody can make others lose their sessions by changing something quickly.
pub const NEWS_BURST: usize = 1024 * 1024;
/// The same per second, in the long run.
pub const NEWS_PER_SECOND: usize = 128 * 1024;
/// What the shortest news counts for, in bytes.
const NEWS_LEAST: usize = 4 * 1024;
/// How often a participant is told that what it sends was not passed on.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(5);

static SDP_REFUSED: LogLimit = LogLimit::of(5);
static DATA_REFUSED: LogLimit = LogLimit::new();
static METADATA_REFUSED: LogLimit = LogLimit::new();
// A meeting that ends abruptly is worth its lines.
static TIMED_OUT: LogLimit = LogLimit::of(100);
static MEDIA_CONNECTED: LogLimit = LogLimit::of(200);
static MEDIA_CLOSED: LogLimit = LogLimit::of(200);

/// LiveKit's protocol version that is spoken.
pub const PROTOCOL_VERSION: i32 = 16;
/// The version that clients see. SDKs compare it to turn features on (RPC from 1.8, SVC with
/// several layers from 1.7).
pub const SERVER_VERSION: &str = "1.9.0";

/// A point in time, both ways.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// For durations.
    pub now: Instant,
    /// For people: UTC milliseconds since 1970.
    pub unix_ms: i64,
}

/// One WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// One participant within its room; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParticipantKey(pub u32);

/// What shall happen outside.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send an encoded `SignalResponse`.
    Send {
        /// To whom.
        session: SessionId,
        /// The message.
        message: Bytes,
    },
    /// Close a WebSocket after what was sent before.
    Close {
        /// Which.
        session: SessionId,
        /// Whether the client did what it must not.
        is_fault: bool,
        /// Why, for the client's log.
        reason: String,
    },
    /// Tell the media core.
    Media(Command),
    /// Tell whoever joins the room to the tree.
    Tree(tree::News),
}

/// Why a message ends its session. The text goes to the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The message breaks the protocol or a bound.
    #[error("{0}")]
    Broken(String),
    /// The session is not a participant's current one.
    #[error("this session is over")]
    Stale,
}

/// Why a server call could not be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No such participant.
    #[error("participant does not exist")]
    NoParticipant,
    /// No such track.
    #[error("track is not found")]
    NoTrack,
    /// Only its owner may unmute a microphone.
    #[error("remote unmute not enabled")]
    RemoteUnmute,
    /// Too much of something.
    #[error("a field is too long")]
    TooLong,
    /// A name with control characters.
    #[error("a name has control characters")]
    NotPlain,
}

/// What the clients of all rooms are told of the server.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Its id, new for each process.
    pub id: String,
    /// STUN and TURN servers.
    pub ice_servers: Vec<proto::IceServer>,
}

/// What a room is made with.
#[derive(Clone, Debug)]
pub struct RoomSettings {
    /// Its name.
    pub name: String,
    /// How long it stays while nobody has come.
    pub empty_timeout: Duration,
    /// How long it stays after the last has gone.
    pub departure_timeout: Duration,
    /// The most participants; 0 is no limit.
    pub max_participants: u32,
    /// Its metadata.
    pub metadata: String,
}

/// What is known of somebody who joins.
#[derive(Clone, Debug)]
pub struct Newcomer {
    /// The WebSocket.
    pub session: SessionId,
    /// The identity granted.
    pub identity: String,
    /// The name shown.
    pub name: String,
    /// Metadata.
    pub metadata: String,
    /// Attributes.
    pub attributes: HashMap<String, String>,
    /// LiveKit's kind.
    pub kind: i32,
    /// What they may do.
    pub permission: proto::ParticipantPermission,
    /// `ClientInfo.client_protocol`.
    pub client_protocol: i32,
    /// `ClientInfo.capabilities`.
    pub capabilities: Vec<i32>,
    /// One connection (`/rtc/v1`) or two (`/rtc`).
    pub is_single: bool,
    /// Whether to subscribe to everything.
    pub is_auto_subscribe: bool,
    /// Whether the client tells the size at which it shows each track.
    pub is_adaptive: bool,
    /// Tracks announced with the join.
    pub add_tracks: Vec<proto::AddTrackRequest>,
    /// The offer that came with the join.
    pub offer: Option<proto::SessionDescription>,
    /// Whether it is a client that is told of the others and gets their data messages; an encoder
    /// or player is not.
    pub hears_others: bool,
    /// A player's m-lines: it only receives, over one connection, and what they show.
    pub view: Option<Vec<ViewPlace>>,
    /// Who it is in a conference of the tree.
    pub conference: Option<Arc<ConferenceGrant>>,
}

#[derive(Clone, Debug)]
struct PendingOffer {
    id: u32,
    sdp: String,
    since: Instant,
}

/// Somebody in the room.
#[derive(Debug)]
pub struct Participant {
    key: ParticipantKey,
    info: proto::ParticipantInfo,
    session: Option<SessionId>,
    lost_since: Option<Instant>,
    joined: Instant,
    is_single: bool,
    is_auto_subscribe: bool,
    is_adaptive: bool,
    /// Carries what the client publishes.
    publisher: ConnectionId,
    is_publisher_open: bool,
    /// Carries what the client receives; the same as `publisher` in a single connection.
    subscriber: ConnectionId,
    is_connected: bool,
    is_publisher_connected: bool,
    /// Since when the connection that makes the participant active is gone.
    media_lost: Option<(Instant, &'static str)>,
    /// Ids of the client's offers whose answers are awaited, in order.
    offers_in: VecDeque<u32>,
    /// The shard's offer that awaits its answer.
    offer_out: Option<PendingOffer>,
    next_offer: u32,
    tracks: Vec<TrackId>,
    subscriptions: BTreeMap<TrackId, Subscription>,
    /// What the client asked for by track, where it differs from `is_auto_subscribe`.
    wishes: HashMap<TrackId, bool>,
    settings: HashMap<TrackId, subscribe::Settings>,
    denied: HashSet<TrackId>,
    allow: subscribe::Allow,
    line: Line,
    told_quality: Option<i32>,
    /// What its changes may still cost the others.
    news: Budget,
    /// It changed and not all know; whether it is to be told itself.
    untold: Option<bool>,
    /// It changed whom it lets have its tracks, and that is not in force yet.
    next_allow: Option<subscribe::Allow>,
    complained: Option<Instant>,
    last_reliable: u32,
    /// Track ids in the client's offers that stand for announced ones; see [`offer`].
    aliases: HashMap<String, String>,
    hears_others: bool,
    view: Option<view::View>,
    /// What others are told of it, encoded; none since its last change.
    entry: Option<Bytes>,
    /// It waits to be in the next news.
    is_in_news: bool,
    /// The newest number when it was told the whole roster.
    told_at: u32,
    /// It is at another node, and has no connection here.
    is_elsewhere: bool,
    /// It is here, and the tree is told of it.
    is_of_tree: bool,
    /// Whether its token lets it publish, whatever was taken from it since.
    is_publishing_granted: bool,
}

impl Participant {
    /// Somebody who has nothing yet but its connections.
    fn new(
        key: ParticipantKey,
        info: proto::ParticipantInfo,
        publisher: ConnectionId,
        subscriber: ConnectionId,
        now: Instant,
    ) -> Participant {
        Participant {
            key,
            is_publishing_granted: info.permission.as_ref().is_some_and(|p| p.can_publish),
            info,
            session: None,
            lost_since: None,
            joined: now,
            is_single: true,
            is_auto_subscribe: false,
            is_adaptive: false,
            publisher,
            subscriber,
            is_connected: false,
            is_publisher_connected: false,
            is_publisher_open: false,
            media_lost: None,
            offers_in: VecDeque::new(),
            offer_out: None,
            next_offer: 1,
            tracks: Vec::new(),
            subscriptions: BTreeMap::new(),
            wishes: HashMap::new(),
            settings: HashMap::new(),
            denied: HashSet::new(),
            allow: subscribe::Allow::Everybody,
            line: Line::default(),
            told_quality: None,
            news: Budget::new(NEWS_BURST, NEWS_PER_SECOND, now),
            untold: None,
            next_allow: None,
            complained: None,
            last_reliable: 0,
            aliases: HashMap::new(),
            hears_others: false,
            view: None,
            entry: None,
            is_in_news: false,
            told_at: key.0,
            is_elsewhere: false,
            is_of_tree: false,
        }
    }

    /// What others are told of it, without its tracks.
    pub fn info(&self) -> &proto::ParticipantInfo {
        &self.info
    }

    fn permission(&self) -> &proto::ParticipantPermission {
        self.info
            .permission
            .as_ref()
            .expect("every participant is made with a permission")
    }

    fn is_hidden(&self) -> bool {
        self.permission().hidden
    }

    /// Which of its two connections one is; `None` when it has but one.
    fn end_of(&self, connection: ConnectionId) -> Option<End> {
        match self.is_single {
            true => None,
            false if connection == self.publisher => Some(End::Publisher),
            false => Some(End::Subscriber),
        }
    }

    /// How good its line is. One that has no room for a picture is poor, however little it loses;
    /// with it a client knows a picture paused for its line from one paused by a busy node.
    fn quality(&self) -> (ConnectionQuality, f32) {
        let (quality, score) = self.line.quality();
        let is_full = self
            .subscriptions
            .values()
            .any(|one| one.is_paused_for_line);
        match quality {
            ConnectionQuality::Good | ConnectionQuality::Excellent if is_full => {
                (ConnectionQuality::Poor, score.min(2.0))
            }
            _ => (quality, score),
        }
    }

    /// How long it stays without a WebSocket.
    fn resume_time(&self) -> Duration {
        match self.is_connected && !self.line.is_silent() {
            true => RESUME_TIME_WITH_MEDIA,
            false => RESUME_TIME,
        }
    }
}

/// A room.
#[derive(Debug)]
pub struct Room {
    serial: u32,
    sid: String,
    settings: RoomSettings,
    node: Arc<Node>,
    created: Moment,
    participants: BTreeMap<ParticipantKey, Participant>,
    /// What it keeps as a conference of the tree, if it is one.
    tree: Option<tree::Tree>,
    tracks: BTreeMap<TrackId, Track>,
    by_session: HashMap<SessionId, ParticipantKey>,
    by_connection: HashMap<ConnectionId, ParticipantKey>,
    by_identity: HashMap<String, ParticipantKey>,
    by_track_sid: HashMap<String, TrackId>,
    roster: Roster,
    hidden: usize,
    /// What the metadata and attributes of all take, in bytes.
    text_bytes: usize,
    next: u32,
    random: StdRng,
    speakers: Speakers<ParticipantKey>,
    levels_heard: Instant,
    loudness_told: Instant,
    empty_since: Option<Instant>,
    was_occupied: bool,
    quality_told: Instant,
    /// The time at which the room was last told anything.
    now: Instant,
    effects: Vec<Effect>,
}

/// Encodes a message for a session.
pub fn encode(message: Message) -> Bytes {
    proto::SignalResponse {
        message: Some(message),
    }
    .encode_to_vec()
    .into()
}

fn leave(reason: DisconnectReason, action: Action) -> Message {
    Message::Leave(proto::LeaveRequest {
        can_reconnect: action == Action::Reconnect,
        reason: reason as i32,
        action: action as i32,
        regions: None,
    })
}

/// Why a session ended that did nothing wrong, for the client's log.
fn words_of(reason: DisconnectReason) -> &'static str {
    match reason {
        DisconnectReason::ClientInitiated => "the client left",
        DisconnectReason::DuplicateIdentity => "somebody with the same identity came",
        DisconnectReason::ServerShutdown => "the server is restarting",
        DisconnectReason::ParticipantRemoved => "it was removed from the room",
        DisconnectReason::RoomDeleted => "the room was deleted",
        DisconnectReason::RoomClosed => "the room's time was over",
        other => other.as_str_name(),
    }
}

/// The message that ends a session which never became a participant's.
pub fn refusal(reason: DisconnectReason, action: Action) -> Bytes {
    encode(leave(reason, action))
}

const SID_LETTERS: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789";

fn make_sid(random: &mut StdRng, prefix: &str) -> String {
    let mut sid = String::with_capacity(prefix.len() + 12);
    sid.push_str(prefix);
    for _ in 0..12 {
        sid.push(SID_LETTERS[random.random_range(0..SID_LETTERS.len())] as char);
    }
    sid
}

fn texts_size(metadata: &str, attributes: &HashMap<String, String>) -> usize {
    metadata.len() + attributes_size(attributes)
}

fn attributes_size(attributes: &HashMap<String, String>) -> usize {
    attributes
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum()
}

/// Whether a text may stand in lists and logs: no control characters, and nothing that makes text
/// run another way than it is written.
pub fn is_plain(text: &str) -> bool {
    let turns = |c| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}');
    !text.chars().any(|c| c.is_control() || turns(c))
}

/// A text of others, made fit for a log line or a close frame.
fn short(text: &str) -> String {
    let mut end = text.len().min(REASON_BOUND);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let line = |c: char| if c.is_control() { ' ' } else { c };
    text[..end].chars().map(line).collect()
}

/// Checks an SDP against its bounds and for what the engine must not see.
pub fn check_sdp(sdp: &str) -> Result<(), Refusal> {
    if sdp.len() > SDP_BOUND {
        return Err(Refusal::Broken(format!(
            "session description over {SDP_BOUND} bytes"
        )));
    }
    let lines = sdp
        .match_indices("\nm=")
        .take(MEDIA_LINES_BOUND + 1)
        .count();
    if lines > MEDIA_LINES_BOUND {
        return Err(Refusal::Broken(format!(
            "session description with over {MEDIA_LINES_BOUND} m-lines"
        )));
    }
    check_formats(sdp).map_err(Refusal::Broken)
}

impl Room {
    /// An empty room. `serial` is its number in this process; connection and track ids carry it.
    pub fn new(
        serial: u32,
        settings: RoomSettings,
        node: Arc<Node>,
        seed: u64,
        at: Moment,
    ) -> Room {
        let mut random = StdRng::seed_from_u64(seed);
        Room {
            serial,
            sid: make_sid(&mut random, "RM_"),
            settings,
            node,
            created: at,
            participants: BTreeMap::new(),
            tree: None,
            tracks: BTreeMap::new(),
            by_session: HashMap::new(),
            by_connection: HashMap::new(),
            by_identity: HashMap::new(),
            by_track_sid: HashMap::new(),
            roster: Roster::new(at.now),
            hidden: 0,
            text_bytes: 0,
            next: 0,
            random,
            speakers: Speakers::default(),
            levels_heard: at.now,
            loudness_told: at.now,
            empty_since: Some(at.now),
            was_occupied: false,
            quality_told: at.now,
            now: at.now,
            effects: Vec::new(),
        }
    }

    /// The serial of the room that made a connection or track id.
    pub fn serial_of(id: u64) -> u32 {
        (id >> 32) as u32
    }

    fn next_number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    fn next_id(&mut self) -> u64 {
        (u64::from(self.serial) << 32) | u64::from(self.next_number())
    }

    /// What is to be done, in order.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The number that its ids begin with.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// The room's name.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// How many are in it here, hidden ones not counted.
    pub fn participant_count(&self) -> usize {
        self.participants.len() - self.hidden - self.elsewhere()
    }

    /// How many of the participants are at other nodes.
    fn elsewhere(&self) -> usize {
        self.tree.as_ref().map_or(0, |tree| tree.elsewhere)
    }

    /// How many clients are told to be in it: of a conference of the tree all, on stage or not.
    fn told_count(&self) -> usize {
        let others = self.tree.as_ref().map_or(0, |tree| tree.others as usize);
        self.participant_count() + others
    }

    /// How many tracks are live.
    pub fn track_count(&self) -> usize {
        self.tracks.values().filter(|track| track.is_live()).count()
    }

    /// Whether somebody with this identity is in it.
    pub fn has(&self, identity: &str) -> bool {
        self.by_identity.contains_key(identity)
    }

    /// Whether another with this identity may come in.
    pub fn has_place_for(&self, identity: &str) -> bool {
        self.settings.max_participants == 0
            || self.participant_count() < self.settings.max_participants as usize
            || self.has(identity)
    }

    /// Changes what [`Room::new`] was told, where the new value is not its zero.
    pub fn configure(&mut self, settings: RoomSettings) {
        if !settings.empty_timeout.is_zero() {
            self.settings.empty_timeout = settings.empty_timeout;
        }
        if !settings.departure_timeout.is_zero() {
            self.settings.departure_timeout = settings.departure_timeout;
        }
        if settings.max_participants != 0 {
            self.settings.max_participants = settings.max_participants;
        }
        if !settings.metadata.is_empty() {
            self.settings.metadata = settings.metadata;
        }
    }

    /// LiveKit's description of the room.
    pub fn info(&self) -> proto::Room {
        proto::Room {
            sid: self.sid.clone(),
            name: self.settings.name.clone(),
            empty_timeout: self.settings.empty_timeout.as_secs() as u32,
            departure_timeout: self.settings.departure_timeout.as_secs() as u32,
            max_participants: self.settings.max_participants,
            creation_time: self.created.unix_ms / 1000,
            creation_time_ms: self.created.unix_ms,
            enabled_codecs: enabled_codecs(),
            metadata: self.settings.metadata.clone(),
            num_participants: self.told_count() as u32,
            num_publishers: self
                .tracks
                .values()
                .filter(|track| track.is_live())
                .map(Track::owner)
                .collect::<BTreeSet<_>>()
                .len() as u32,
            ..Default::default()
        }
    }

    /// Whether the room's time is over.
    pub fn is_over(&self, now: Instant) -> bool {
        let timeout = if self.was_occupied {
            self.settings.departure_timeout
        } else {
            self.settings.empty_timeout
        };
        self.empty_since
            .is_some_and(|since| now.saturating_duration_since(since) >= timeout)
    }

    // ---- telling ------------------------------------------------------------------------------

    fn tell(&mut self, to: ParticipantKey, message: Message) {
        if let Some(session) = self.participants.get(&to).and_then(|p| p.session) {
            self.effects.push(Effect::Send {
                session,
                message: encode(message),
            });
        }
    }

    fn send(&mut self, session: SessionId, message: Bytes) {
        self.effects.push(Effect::Send { session, message });
    }

    fn tell_all(&mut self, message: Message) {
        self.send_all(&encode(message));
    }

    /// Sends the same bytes to every client.
    fn send_all(&mut self, message: &Bytes) {
        for participant in self.participants.values() {
            if participant.hears_others
                && let Some(session) = participant.session
            {
                self.effects.push(Effect::Send {
                    session,
                    message: message.clone(),
                });
            }
        }
    }

    fn media(&mut self, command: Command) {
        self.effects.push(Effect::Media(command));
    }

    /// A participant with its tracks: live ones, or all for itself.
    fn full_info(&self, key: ParticipantKey, all_tracks: bool) -> Option<proto::ParticipantInfo> {
        let participant = self.participants.get(&key)?;
        let mut info = participant.info.clone();
        info.tracks = participant
            .tracks
            .iter()
            .filter_map(|id| self.tracks.get(id))
            .filter(|track| all_tracks || track.is_live())
            .map(|track| track.info.clone())
            .collect();
        Some(info)
    }

    // ---- coming -------------------------------------------------------------------------------

    fn server_info(&self) -> proto::ServerInfo {
        proto::ServerInfo {
            edition: proto::server_info::Edition::Standard as i32,
            version: SERVER_VERSION.to_owned(),
            protocol: PROTOCOL_VERSION,
            node_id: self.node.id.clone(),
            ..Default::default()
        }
    }

    fn client_configuration() -> proto::ClientConfiguration {
        proto::ClientConfiguration {
            resume_connection: proto::ClientConfigSetting::Enabled as i32,
            ..Default::default()
        }
    }

    /// Lets somebody in; whoever has the same identity goes, and leaves its attributes and the time
    /// of its coming to the newcomer.
    pub fn join(&mut self, mut newcomer: Newcomer, at: Moment) -> ParticipantKey {
        self.now = at.now;
        let mut joined_at = at.unix_ms;
        if let Some(twin) = self.by_identity.get(&newcomer.identity).copied() {
            // Mostly it is the same person, whose line fell: the place in the room is its own still.
            let seat = &self.participants[&twin].info;
            joined_at = seat.joined_at_ms;
            if newcomer.permission.can_update_metadata {
                let mut attributes = seat.attributes.clone();
                attributes.extend(std::mem::take(&mut newcomer.attributes));
                newcomer.attributes = attributes;
            }
            self.remove(
                twin,
                DisconnectReason::DuplicateIdentity,
                Some(Action::Disconnect),
                at.now,
            );
        }
        if self.text_bytes + texts_size(&newcomer.metadata, &newcomer.attributes) > ROOM_TEXT_BOUND
        {
            // Whoever filled the room with text must not keep others out of it.
            newcomer.metadata.clear();
            newcomer.attributes.clear();
            self.log_metadata_refused(&newcomer.identity, "the room has too much metadata");
        }
        let is_view = newcomer.view.is_some();
        let key = ParticipantKey(self.next_number());
        let publisher = ConnectionId(self.next_id());
        let subscriber = if newcomer.is_single {
            publisher
        } else {
            ConnectionId(self.next_id())
        };
        let info = proto::ParticipantInfo {
            sid: make_sid(&mut self.random, "PA_"),
            identity: newcomer.identity,
            state: State::Joined as i32,
            metadata: newcomer.metadata,
            joined_at: joined_at / 1000,
            joined_at_ms: joined_at,
            name: newcomer.name,
            version: 1,
            permission: Some(newcomer.permission),
            kind: newcomer.kind,
            attributes: newcomer.attributes,
            client_protocol: newcomer.client_protocol,
            capabilities: newcomer.capabilities,
            ..Default::default()
        };
        self.by_identity.insert(info.identity.clone(), key);
        self.text_bytes += texts_size(&info.metadata, &info.attributes);
        self.participants.insert(
            key,
            Participant {
                session: Some(newcomer.session),
                is_single: newcomer.is_single,
                is_auto_subscribe: newcomer.is_auto_subscribe,
                is_adaptive: newcomer.is_adaptive,
                is_publisher_open: newcomer.is_single,
                hears_others: newcomer.hears_others,
                view: newcomer.view.map(view::View::new),
                is_of_tree: newcomer.conference.is_some(),
                ..Participant::new(key, info, publisher, subscriber, at.now)
            },
        );
        if let Some(grant) = newcomer.conference {
            let info = &self.participants[&key].info;
            let (identity, name) = (info.identity.as_str().into(), info.name.as_str().into());
            self.tell_tree(tree::News::Joined {
                who: key,
                identity,
                name,
                grant,
            });
        }
        self.by_session.insert(newcomer.session, key);
        self.by_connection.insert(publisher, key);
        self.by_connection.insert(subscriber, key);
        self.empty_since = None;
        self.was_occupied = true;
        if self.participants[&key].is_hidden() {
            self.hidden += 1;
        }
        self.look_at_size();

        let response = proto::JoinResponse {
            room: Some(self.info()),
            participant: self.full_info(key, true),
            server_version: SERVER_VERSION.to_owned(),
            ice_servers: self.node.ice_servers.clone(),
            subscriber_primary: !newcomer.is_single,
            client_configuration: Some(Self::client_configuration()),
            ping_timeout: PING_TIMEOUT.as_secs() as i32,
            ping_interval: PING_INTERVAL.as_secs() as i32,
            server_info: Some(self.server_info()),
            enabled_publish_codecs: enabled_codecs(),
            fast_publish: true,
            ..Default::default()
        };
        let others = if newcomer.hears_others {
            self.others(key)
        } else {
            Vec::new()
        };
        self.send(newcomer.session, roster::join_response(&response, &others));
        if newcomer.is_single {
            let role = if is_view { Role::View } else { Role::Single };
            self.media(Command::Open {
                connection: publisher,
                role,
                takes_rsa: !newcomer.hears_others,
            });
        } else {
            // The other one is opened when there is something to publish; most only watch.
            self.media(Command::Open {
                connection: subscriber,
                role: Role::Subscribe,
                takes_rsa: false,
            });
        }
        self.announce(key, false);
        for request in newcomer.add_tracks {
            self.add_track(key, request);
        }
        if let Some(offer) = newcomer.offer {
            self.take_offer(key, offer);
        }
        // After the offer, so that the places it brings are counted.
        self.reconcile_subscriber(key);
        self.tell_present(key);
        key
    }

    /// Tells a newcomer what is otherwise told only on change.
    fn tell_present(&mut self, key: ParticipantKey) {
        let active = self.speakers.active();
        if !active.is_empty() {
            let speakers = self.speaker_infos(active);
            self.tell(
                key,
                Message::SpeakersChanged(proto::SpeakersChanged { speakers }),
            );
        }
        let updates: Vec<_> = self
            .roster
            .announced()
            .chain((!self.roster.is_announced(key)).then_some(key))
            .filter_map(|key| self.participants.get(&key))
            .filter(|participant| participant.told_quality.is_some())
            .map(|participant| match participant.key == key {
                true => to_itself(quality_info(participant)),
                false => quality_info(participant),
            })
            .collect();
        if !updates.is_empty() {
            self.tell(key, qualities(updates));
        }
    }

    /// Whether a participant with this sid and identity is here to be resumed.
    pub fn can_resume(&self, sid: &str, identity: &str) -> bool {
        self.by_identity
            .get(identity)
            .and_then(|key| self.participants.get(key))
            .is_some_and(|participant| {
                participant.info.sid == sid && participant.media_lost.is_none()
            })
    }

    /// Gives a participant a new session. `false` if there is none such.
    pub fn resume(&mut self, sid: &str, identity: &str, session: SessionId, at: Moment) -> bool {
        self.now = at.now;
        if !self.can_resume(sid, identity) {
            return false;
        }
        let key = self.by_identity[identity];
        let participant = self.participants.get_mut(&key).expect("it can be resumed");
        let old = participant.session.replace(session);
        participant.lost_since = None;
        if let Some(offer) = &mut participant.offer_out {
            offer.since = at.now;
        }
        let last_message_seq = participant.last_reliable;
        let (is_single, subscriber) = (participant.is_single, participant.subscriber);
        let pending = participant.offer_out.clone();
        if let Some(old) = old {
            self.by_session.remove(&old);
            self.effects.push(Effect::Close {
                session: old,
                is_fault: false,
                reason: "resumed by another connection".into(),
            });
        }
        self.by_session.insert(session, key);
        self.tell(
            key,
            Message::Reconnect(proto::ReconnectResponse {
                ice_servers: self.node.ice_servers.clone(),
                client_configuration: Some(Self::client_configuration()),
                server_info: Some(self.server_info()),
                last_message_seq,
            }),
        );
        self.tell(
            key,
            Message::RoomUpdate(proto::RoomUpdate {
                room: Some(self.info()),
            }),
        );
        self.retell_roster(key);
        self.tell_present(key);
        self.retell_places(key);
        self.retell_wanted(key);
        if !is_single {
            match pending {
                Some(offer) => self.tell_offer(key, &offer),
                // The client waits for new credentials of the connection that it does not offer.
                None => self.media(Command::RestartIce {
                    connection: subscriber,
                }),
            }
        }
        true
    }

    // ---- going --------------------------------------------------------------------------------

    /// A WebSocket ended without a leave: its participant stays to be resumed.
    pub fn session_lost(&mut self, session: SessionId, now: Instant) {
        if let Some(key) = self.by_session.remove(&session)
            && let Some(participant) = self.participants.get_mut(&key)
        {
            participant.session = None;
            participant.lost_since = Some(now);
        }
    }

    /// Ends a session that broke the protocol, and its participant.
    pub fn refuse(&mut self, session: SessionId, reason: &str, now: Instant) {
        self.now = now;
        if let Some(key) = self.by_session.get(&session).copied() {
            self.remove_saying(
                key,
                DisconnectReason::StateMismatch,
                Some(Action::Disconnect),
                reason,
                now,
            );
        }
    }

    fn remove(
        &mut self,
        key: ParticipantKey,
        reason: DisconnectReason,
        action: Option<Action>,
        now: Instant,
    ) {
        self.remove_as(key, reason, action, (false, words_of(reason)), now);
    }

    /// Takes a participant out whose client did what it must not, or did not what it must.
    fn remove_saying(
        &mut self,
        key: ParticipantKey,
        reason: DisconnectReason,
        action: Option<Action>,
        text: &str,
        now: Instant,
    ) {
        self.remove_as(key, reason, action, (true, text), now);
    }

    /// Takes a participant out of the room; with `action`, its client is told to leave.
    fn remove_as(
        &mut self,
        key: ParticipantKey,
        reason: DisconnectReason,
        action: Option<Action>,
        (is_fault, text): (bool, &str),
        now: Instant,
    ) {
        if let Some(action) = action {
            self.tell(key, leave(reason, action));
        }
        let was_speaking = self.speakers.remove(key);
        for track in self
            .participants
            .get(&key)
            .map(|p| p.tracks.clone())
            .unwrap_or_default()
        {
            self.drop_track(track);
        }
        let Some(mut participant) = self.participants.remove(&key) else {
            return;
        };
        if let Some(session) = participant.session.take() {
            self.by_session.remove(&session);
            self.effects.push(Effect::Close {
                session,
                is_fault,
                reason: text.to_owned(),
            });
        }
        for connection in BTreeSet::from([participant.publisher, participant.subscriber]) {
            self.by_connection.remove(&connection);
            self.media(Command::Close { connection });
        }
        self.by_identity.remove(&participant.info.identity);
        self.text_bytes -= texts_size(&participant.info.metadata, &participant.info.attributes);
        if participant.is_hidden() {
            self.hidden -= 1;
        } else if was_speaking {
            let speakers = vec![proto::SpeakerInfo {
                sid: participant.info.sid.clone(),
                level: 0.0,
                active: false,
            }];
            let change = proto::SpeakersChanged { speakers };
            self.tell_all(Message::SpeakersChanged(change));
        }
        self.take_off(key, &participant.info, reason);
        self.left_tree(key, &participant);
        self.look_at_size();
        if self.participants.len() == self.elsewhere() {
            self.empty_since.get_or_insert(now);
        }
    }

    /// Sends everybody out; the room is then to be forgotten.
    pub fn close(&mut self, reason: DisconnectReason, action: Action, now: Instant) {
        for key in self.participants.keys().copied().collect::<Vec<_>>() {
            // Nobody needs to hear of the others' going: all go.
            self.tell(key, leave(reason, action));
            if let Some(participant) = self.participants.get_mut(&key)
                && let Some(session) = participant.session.take()
            {
                self.by_session.remove(&session);
                let reason = words_of(reason).to_owned();
                self.effects.push(Effect::Close {
                    session,
                    is_fault: false,
                    reason,
                });
            }
        }
        for key in self.participants.keys().copied().collect::<Vec<_>>() {
            self.remove(key, reason, None, now);
        }
    }

    // ---- what a client says -------------------------------------------------------------------

    /// Handles a client's message.
    pub fn handle(
        &mut self,
        session: SessionId,
        message: proto::signal_request::Message,
        at: Moment,
    ) -> Result<(), Refusal> {
        use proto::signal_request::Message as Request;
        self.now = at.now;
        let key = *self.by_session.get(&session).ok_or(Refusal::Stale)?;
        match message {
            Request::Offer(offer) => {
                check_sdp(&offer.sdp)?;
                let waiting = self.participants.get(&key).map_or(0, |p| p.offers_in.len());
                if waiting >= PENDING_OFFERS {
                    return Err(Refusal::Broken("too many offers at once".into()));
                }
                self.take_offer(key, offer);
            }
            Request::Answer(answer) => {
                check_sdp(&answer.sdp)?;
                self.take_answer(key, answer);
            }
            // An ICE-lite node answers where the client's checks come from.
            Request::Trickle(_) => {}
            Request::AddTrack(request) => self.add_track(key, request),
            Request::Mute(request) => self.client_mutes(key, &request),
            Request::Subscription(update) => {
                self.update_subscription(key, &update);
            }
            Request::TrackSetting(settings) => self.update_settings(key, &settings),
            Request::Leave(_) => {
                self.remove(key, DisconnectReason::ClientInitiated, None, at.now);
            }
            #[expect(deprecated, reason = "older clients send it")]
            Request::UpdateLayers(update) => self.update_layers(key, &update),
            Request::SubscriptionPermission(permission) => {
                self.update_permission_of_tracks(key, &permission);
            }
            Request::SyncState(state) => self.sync(key, state, at.now),
            Request::Ping(timestamp) => {
                let _ = timestamp;
                self.tell(key, Message::Pong(at.unix_ms));
            }
            Request::PingReq(ping) => self.tell(
                key,
                Message::PongResp(proto::Pong {
                    last_ping_timestamp: ping.timestamp,
                    timestamp: at.unix_ms,
                }),
            ),
            Request::UpdateMetadata(request) => self.client_updates_metadata(key, request),
            Request::UpdateAudioTrack(request) => self.update_audio_track(key, &request),
            Request::UpdateVideoTrack(request) => self.update_video_track(key, &request),
            Request::Simulate(_) => {
                tracing::debug!(room = self.settings.name, "a simulated failure was ignored");
            }
            Request::PublishDataTrackRequest(request) => self.tell(
                key,
                Message::RequestResponse(proto::RequestResponse {
                    reason: proto::request_response::Reason::UnsupportedType as i32,
                    message: "data tracks are not offered by this server".into(),
                    request: Some(proto::request_response::Request::PublishDataTrack(request)),
                    ..Default::default()
                }),
            ),
            Request::UnpublishDataTrackRequest(_)
            | Request::UpdateDataSubscription(_)
            | Request::StoreDataBlobRequest(_)
            | Request::GetDataBlobRequest(_) => {}
        }
        Ok(())
    }

    fn take_offer(&mut self, key: ParticipantKey, description: proto::SessionDescription) {
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let announced: Vec<_> = participant
            .tracks
            .iter()
            .filter_map(|id| self.tracks.get(id))
            .flat_map(|track| {
                let published = track.encodings.iter().filter(|one| !one.cid.is_empty());
                published.map(|one| offer::Announced {
                    cid: one.cid.clone(),
                    is_video: track.is_video(),
                    is_live: one.is_live,
                })
            })
            .collect();
        let sdp = offer::name_tracks(&description.sdp, &announced, &mut participant.aliases);
        let sdp = offer::open_bundle_only(&sdp);
        participant.offers_in.push_back(description.id);
        if let Some(connection) = self.open_publisher(key) {
            self.media(Command::Offer { connection, sdp });
        }
    }

    /// The connection that a participant publishes on, opened if it is not yet.
    fn open_publisher(&mut self, key: ParticipantKey) -> Option<ConnectionId> {
        let participant = self.participants.get_mut(&key)?;
        let connection = participant.publisher;
        if !std::mem::replace(&mut participant.is_publisher_open, true) {
            let role = Role::Publish;
            self.media(Command::Open {
                connection,
                role,
                takes_rsa: false,
            });
        }
        Some(connection)
    }

    fn take_answer(&mut self, key: ParticipantKey, answer: proto::SessionDescription) {
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        // SDKs before offers were numbered answer with id 0.
        match &participant.offer_out {
            Some(offer) if answer.id == 0 || offer.id == answer.id => {
                participant.offer_out = None;
                let connection = participant.subscriber;
                self.media(Command::Answer {
                    connection,
                    sdp: answer.sdp,
                });
            }
            _ => tracing::debug!(id = answer.id, "an answer to no open offer was ignored"),
        }
    }

    fn tell_offer(&mut self, key: ParticipantKey, offer: &PendingOffer) {
        self.tell(
            key,
            Message::Offer(proto::SessionDescription {
                r#type: "offer".into(),
                sdp: offer.sdp.clone(),
                id: offer.id,
                ..Default::default()
            }),
        );
    }

    fn client_updates_metadata(
        &mut self,
        key: ParticipantKey,
        request: proto::UpdateParticipantMetadata,
    ) {
        use proto::request_response::Reason;
        let Some(participant) = self.participants.get(&key) else {
            return;
        };
        let request_id = request.request_id;
        let (reason, message) = if !participant.permission().can_update_metadata {
            (
                Reason::NotAllowed,
                "does not have permission to update own metadata",
            )
        } else {
            match self.set_metadata(
                key,
                &request.metadata,
                &request.name,
                request.attributes.clone(),
            ) {
                Ok(()) => {
                    self.step_forward(key);
                    (Reason::Ok, "")
                }
                Err(CallError::NotPlain) => {
                    (Reason::InvalidRequest, "the name has control characters")
                }
                Err(_) => (
                    Reason::LimitExceeded,
                    "metadata, name or attributes are too long",
                ),
            }
        };
        if reason != Reason::Ok {
            self.log_metadata_refused(&self.identity(key), message);
        }
        // Only failures and numbered requests are answered: older SDKs number none.
        if request_id != 0 || reason != Reason::Ok {
            self.tell(
                key,
                Message::RequestResponse(proto::RequestResponse {
                    request_id,
                    reason: reason as i32,
                    message: message.into(),
                    request: (request.encoded_len() <= ECHO_BOUND)
                        .then_some(proto::request_response::Request::UpdateMetadata(request)),
                }),
            );
        }
    }

    fn log_metadata_refused(&self, identity: &str, reason: &str) {
        if let Some(suppressed) = METADATA_REFUSED.pass(self.now) {
            tracing::warn!(
                room = self.settings.name,
                participant = identity,
                reason,
                suppressed,
                "metadata, a name or attributes were refused"
            );
        }
    }

    /// Empty `metadata` and `name` leave theirs as they are; an attribute's empty value deletes it.
    fn set_metadata(
        &mut self,
        key: ParticipantKey,
        metadata: &str,
        name: &str,
        attributes: HashMap<String, String>,
    ) -> Result<(), CallError> {
        let participant = self
            .participants
            .get_mut(&key)
            .ok_or(CallError::NoParticipant)?;
        let before = texts_size(&participant.info.metadata, &participant.info.attributes);
        let of_others = self.text_bytes - before;
        if metadata.len() > METADATA_BOUND || name.len() > NAME_BOUND {
            return Err(CallError::TooLong);
        }
        if !is_plain(name) {
            return Err(CallError::NotPlain);
        }
        let mut merged = participant.info.attributes.clone();
        for (attribute, value) in attributes {
            if value.is_empty() {
                merged.remove(&attribute);
            } else {
                merged.insert(attribute, value);
            }
        }
        let kept = if metadata.is_empty() {
            &participant.info.metadata
        } else {
            metadata
        };
        let text_bytes = of_others + texts_size(kept, &merged);
        if attributes_size(&merged) > ATTRIBUTES_BOUND || text_bytes > ROOM_TEXT_BOUND {
            return Err(CallError::TooLong);
        }
        self.text_bytes = text_bytes;
        participant.info.attributes = merged;
        if !metadata.is_empty() {
            participant.info.metadata = metadata.to_owned();
        }
        if !name.is_empty() {
            participant.info.name = name.to_owned();
        }
        self.announce(key, true);
        Ok(())
    }

    fn sync(&mut self, key: ParticipantKey, state: proto::SyncState, now: Instant) {
        let Some(participant) = self.participants.get(&key) else {
            return;
        };
        let knows_lost_track = state.publish_tracks.iter().any(|published| {
            published.track.as_ref().is_some_and(|told| {
                !participant.tracks.iter().any(|id| {
                    self.tracks
                        .get(id)
                        .is_some_and(|track| track.info.sid == told.sid)
                })
            })
        });
        if knows_lost_track {
            // It believes in a track that is gone: only a fresh start makes both agree.
            self.remove(
                key,
                DisconnectReason::StateMismatch,
                Some(Action::Reconnect),
                now,
            );
            return;
        }
        if let Some(subscription) = &state.subscription {
            self.update_subscription(key, subscription);
        }
        if !state.track_sids_disabled.is_empty() {
            self.disable_tracks(key, &state.track_sids_disabled);
        }
    }

    // ---- what the server's API says -----------------------------------------------------------

    fn by_identity(&self, identity: &str) -> Result<ParticipantKey, CallError> {
        self.by_identity
            .get(identity)
            .copied()
            .ok_or(CallError::NoParticipant)
    }

    /// Somebody here: only their own node changes anything of people elsewhere.
    fn here_by_identity(&self, identity: &str) -> Result<ParticipantKey, CallError> {
        let key = self.by_identity(identity)?;
        let is_elsewhere = self.participants[&key].is_elsewhere;
        (!is_elsewhere)
            .then_some(key)
            .ok_or(CallError::NoParticipant)
    }

    /// Everybody, hidden ones too.
    pub fn list(&self) -> Vec<proto::ParticipantInfo> {
        self.participants
            .keys()
            .filter_map(|key| self.full_info(*key, false))
            .collect()
    }

    /// One participant.
    pub fn find(&self, identity: &str) -> Result<proto::ParticipantInfo, CallError> {
        self.full_info(self.by_identity(identity)?, false)
            .ok_or(CallError::NoParticipant)
    }

    /// Sends a participant out.
    pub fn expel(&mut self, identity: &str, now: Instant) -> Result<(), CallError> {
        let key = self.here_by_identity(identity)?;
        self.remove(
            key,
            DisconnectReason::ParticipantRemoved,
            Some(Action::Disconnect),
            now,
        );
        Ok(())
    }

    /// Changes a participant's metadata, name, attributes and permission.
    pub fn update_participant(
        &mut self,
        request: proto::UpdateParticipantRequest,
    ) -> Result<proto::ParticipantInfo, CallError> {
        let key = self.here_by_identity(&request.identity)?;
        self.set_metadata(key, &request.metadata, &request.name, request.attributes)?;
        if let Some(permission) = request.permission {
            self.set_permission(key, permission);
        }
        self.full_info(key, false).ok_or(CallError::NoParticipant)
    }

    fn set_permission(&mut self, key: ParticipantKey, permission: proto::ParticipantPermission) {
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let was_hidden = participant.is_hidden();
        participant.info.permission = Some(permission);
        let hides = !was_hidden && participant.is_hidden();
        let appears = was_hidden && !participant.is_hidden();
        let forbidden: Vec<_> = participant
            .tracks
            .iter()
            .copied()
            .filter(|id| {
                self.tracks.get(id).is_some_and(|track| {
                    !publish::may_publish(participant.permission(), track.source())
                })
            })
            .collect();
        for track in forbidden {
            self.end_track(track, true);
        }
        self.reconcile_subscriber(key);
        if hides {
            self.hidden += 1;
            let info = self.participants[&key].info.clone();
            self.take_off(key, &info, DisconnectReason::UnknownReason);
        } else if appears {
            self.hidden -= 1;
        }
        self.announce(key, true);
        if hides || appears {
            self.look_at_size();
        }
    }

    /// Changes the room's metadata.
    pub fn set_room_metadata(&mut self, metadata: String) -> Result<(), CallError> {
        if metadata.len() > METADATA_BOUND {
            return Err(CallError::TooLong);
        }
        self.settings.metadata = metadata;
        self.tell_room();
        Ok(())
    }

    // ---- what the media core says -------------------------------------------------------------

    /// Handles an event of one of this room's connections or tracks.
    pub fn on_event(&mut self, event: Event, now: Instant) {
        self.now = now;
        match event {
            // A line between nodes is of no room.
            Event::RelayEnd { .. } => {}
            Event::Answer {
                connection,
                sdp,
                mids,
            } => {
                let Some(key) = self.by_connection.get(&connection).copied() else {
                    return;
                };
                let id = self
                    .participants
                    .get_mut(&key)
                    .and_then(|participant| participant.offers_in.pop_front())
                    .unwrap_or_default();
                self.tell(
                    key,
                    Message::Answer(proto::SessionDescription {
                        r#type: "answer".into(),
                        sdp,
                        id,
                        mid_to_track_id: mids.into_iter().collect(),
                    }),
                );
            }
            Event::Offer { connection, sdp } => {
                let Some(key) = self.by_connection.get(&connection).copied() else {
                    return;
                };
                let Some(participant) = self.participants.get_mut(&key) else {
                    return;
                };
                let offer = PendingOffer {
                    id: participant.next_offer,
                    sdp,
                    since: now,
                };
                participant.next_offer += 1;
                participant.offer_out = Some(offer.clone());
                self.tell_offer(key, &offer);
            }
            Event::Refused { connection, reason } => {
                let Some(key) = self.by_connection.get(&connection).copied() else {
                    return;
                };
                let reason = short(&reason);
                if let Some(suppressed) = SDP_REFUSED.pass(now) {
                    tracing::warn!(
                        room = self.settings.name,
                        participant = self.identity(key),
                        reason,
                        suppressed,
                        "a session description was refused"
                    );
                }
                // Its client waits for an answer that can't be given: it shall start afresh.
                self.remove_saying(
                    key,
                    DisconnectReason::StateMismatch,
                    Some(Action::Reconnect),
                    &format!("session description refused: {reason}"),
                    now,
                );
            }
            Event::PlacesNeeded {
                connection,
                audio,
                video,
            } => {
                let Some(key) = self.by_connection.get(&connection).copied() else {
                    return;
                };
                let message = proto::MediaSectionsRequirement {
                    num_audios: audio,
                    num_videos: video,
                };
                self.tell(key, Message::MediaSectionsRequirement(message));
            }
            Event::Connected { connection, remote } => self.connected(connection, remote),
            Event::Silent { connection } => self.set_silent(connection, true),
            Event::Resumed { connection } => self.set_silent(connection, false),
            Event::Closed { connection, reason } => self.media_closed(connection, reason, now),
            Event::Published {
                track,
                encoding,
                mid,
                codec,
            } => {
                if !self.came_from_elsewhere(track, codec) {
                    self.track_live(track, encoding, mid, codec);
                }
            }
            Event::CodecChanged {
                track,
                encoding,
                codec,
            } => self.codec_changed(track, encoding, codec),
            Event::Ended { track, encoding } => self.encoding_ended(track, encoding),
            Event::Subscribed { connection, track } => self.subscribed(connection, track),
            Event::CodecNotAccepted { connection, track } => {
                self.codec_not_accepted(connection, track);
            }
            Event::Paused {
                connection,
                track,
                is_paused,
                is_line_full,
            } => {
                let is_for_line = is_paused && is_line_full;
                self.stream_paused(connection, track, is_paused, is_for_line);
            }
            Event::LayersWanted {
                track,
                encoding,
                quality,
            } => self.layers_wanted(track, encoding, quality),
            // What was asked for is the hub's to tell.
            Event::ChannelOpen { .. } | Event::Account { .. } => {}
            Event::Data {
                connection,
                channel,
                payload,
            } => {
                self.forward_data(connection, channel, &payload);
            }
            Event::AudioLevels(levels) => {
                self.levels_heard = now;
                self.audio_levels(&levels);
            }
            Event::Line { connection, report } => {
                if let Some(participant) = self
                    .by_connection
                    .get(&connection)
                    .and_then(|key| self.participants.get_mut(key))
                {
                    let end = participant.end_of(connection);
                    participant.line.report(end, &report);
                }
            }
        }
    }

    fn identity(&self, key: ParticipantKey) -> String {
        self.participants
            .get(&key)
            .map(|p| p.info.identity.clone())
            .unwrap_or_default()
    }

    fn connected(&mut self, connection: ConnectionId, remote: Option<std::net::SocketAddr>) {
        let Some(key) = self.by_connection.get(&connection).copied() else {
            return;
        };
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        if let Some(suppressed) = MEDIA_CONNECTED.pass(self.now) {
            tracing::info!(
                room = self.settings.name,
                participant = participant.info.identity,
                connection = connection.0 & u64::from(u32::MAX),
                remote = remote.map(tracing::field::display),
                suppressed,
                "media connected"
            );
        }
        if connection == participant.publisher {
            participant.is_publisher_connected = true;
        }
        // The subscriber connection is the primary one of two.
        if connection == participant.subscriber && !participant.is_connected {
            participant.is_connected = true;
            participant.info.state = State::Active as i32;
            self.announce(key, true);
        }
    }

    fn set_silent(&mut self, connection: ConnectionId, is_silent: bool) {
        let Some(key) = self.by_connection.get(&connection) else {
            return;
        };
        let Some(participant) = self.participants.get_mut(key) else {
            return;
        };
        let end = participant.end_of(connection);
        participant.line.set_silent(end, is_silent);
    }

    fn media_closed(&mut self, connection: ConnectionId, reason: &'static str, now: Instant) {
        let Some(key) = self.by_connection.remove(&connection) else {
            return;
        };
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        if let Some(suppressed) = MEDIA_CLOSED.pass(now) {
            tracing::info!(
                room = self.settings.name,
                participant = participant.info.identity,
                reason,
                suppressed,
                "media connection closed"
            );
        }
        if connection == participant.publisher {
            // The shard has forgotten its tracks.
            participant.offers_in.clear();
            let tracks = participant.tracks.clone();
            let was_unused = !participant.is_single && !participant.is_publisher_connected;
            for track in tracks {
                self.end_track(track, true);
            }
            if was_unused {
                // A listener's first connection, never connected: a fresh one waits in its place.
                let fresh = ConnectionId(self.next_id());
                let participant = self.participants.get_mut(&key).expect("found above");
                participant.publisher = fresh;
                participant.is_publisher_open = false;
                self.by_connection.insert(fresh, key);
                return;
            }
        }
        // The client's leave may be on its way; see `tick`.
        if let Some(participant) = self.participants.get_mut(&key) {
            participant.media_lost = Some((now, reason));
        }
    }

    fn speaker_infos(
        &self,
        changes: Vec<speakers::Change<ParticipantKey>>,
    ) -> Vec<proto::SpeakerInfo> {
        changes
            .into_iter()
            .filter_map(|change| {
                let participant = self.participants.get(&change.who)?;
                (!participant.is_hidden()).then(|| proto::SpeakerInfo {
                    sid: participant.info.sid.clone(),
                    level: change.level,
                    active: change.is_active,
                })
            })
            .collect()
    }

    /// Whether an empty level report would change anything.
    pub fn has_voices(&self) -> bool {
        !self.speakers.is_empty()
    }

    fn audio_levels(&mut self, levels: &[(TrackId, u8)]) {
        let mut loudest: BTreeMap<ParticipantKey, u8> = BTreeMap::new();
        for (id, level) in levels {
            if let Some(track) = self.tracks.get(id)
                && !track.info.muted
            {
                let slot = loudest.entry(track.owner()).or_insert(*level);
                *slot = (*slot).min(*level);
            }
        }
        let since = self.now.saturating_duration_since(self.loudness_told);
        self.tell_loudness(&loudest);
        let with_loudness = !self.roster.is_crowd || since >= LOUDNESS_INTERVAL;
        if with_loudness {
            self.loudness_told = self.now;
        }
        let changes = self.speakers.report(&loudest, with_loudness);
        self.follow_speakers();
        let speakers = self.speaker_infos(changes);
        if !speakers.is_empty() {
            self.tell_all(Message::SpeakersChanged(proto::SpeakersChanged {
                speakers,
            }));
        }
    }

    // ---- time ---------------------------------------------------------------------------------

    /// Does what is due; call about twice a second.
    pub fn tick(&mut self, now: Instant) {
        self.now = now;
        let since = |then: Instant| now.saturating_duration_since(then);
        let mut due = Vec::new();
        for participant in self.participants.values() {
            let lost = participant.lost_since.map(since);
            let media_lost = participant.media_lost.map(|(at, _)| since(at));
            let is_late = |limit| {
                participant
                    .offer_out
                    .as_ref()
                    .is_some_and(|offer| since(offer.since) >= limit)
            };
            let verdict = match (lost, media_lost) {
                (Some(lost), None) if lost >= participant.resume_time() => Some((
                    DisconnectReason::SignalClose,
                    Action::Disconnect,
                    "its WebSocket was lost and did not come back",
                )),
                (Some(lost), Some(media)) if lost.min(media) >= GONE_TIME => Some((
                    DisconnectReason::SignalClose,
                    Action::Disconnect,
                    "its WebSocket and its media were lost",
                )),
                (None, Some(media)) if media >= GONE_TIME && !participant.is_connected => Some((
                    DisconnectReason::JoinFailure,
                    Action::Disconnect,
                    "media could not connect: is the server's UDP port within reach?",
                )),
                (None, Some(media)) if media >= GONE_TIME => Some((
                    DisconnectReason::ConnectionTimeout,
                    Action::Reconnect,
                    "media was lost",
                )),
                (None, None) if participant.is_connected && is_late(ANSWER_TIME) => Some((
                    DisconnectReason::StateMismatch,
                    Action::Reconnect,
                    "an offer was not answered in time: connect again",
                )),
                (None, None) if is_late(ANSWER_TIME) => Some((
                    DisconnectReason::JoinFailure,
                    Action::Disconnect,
                    "the first offer was not answered in time",
                )),
                (None, None)
                    if !participant.is_connected && since(participant.joined) >= JOIN_TIME =>
                {
                    Some((
                        DisconnectReason::JoinFailure,
                        Action::Disconnect,
                        "media was not connected in time",
                    ))
                }
                _ => None,
            };
            due.extend(
                verdict.map(|(reason, action, text)| (participant.key, reason, action, text)),
            );
        }
        for (key, reason, action, text) in due {
            let lost = self.participants.get(&key).and_then(|p| p.media_lost);
            let text = match lost {
                Some((_, why)) if reason == DisconnectReason::ConnectionTimeout => {
                    format!("{text}: {why}")
                }
                _ => text.to_owned(),
            };
            if let Some(suppressed) = TIMED_OUT.pass(now) {
                tracing::info!(
                    room = self.settings.name,
                    participant = self.identity(key),
                    reason = text,
                    suppressed,
                    "participant timed out"
                );
            }
            self.remove_saying(key, reason, Some(action), &text, now);
        }
        self.tell_untold();
        self.tell_due_news(now);
        self.tick_roster();
        self.tick_tree();
        if since(self.levels_heard) >= LEVELS_TIME && !self.speakers.is_empty() {
            self.audio_levels(&[]);
        }
        let interval = match self.roster.is_crowd {
            true => QUALITY_INTERVAL_IN_CROWD,
            false => QUALITY_INTERVAL,
        };
        if since(self.quality_told) >= interval {
            self.quality_told = now;
            self.tell_quality();
        }
        self.tell_wanted_layers(now);
    }

    /// Tells what had to wait; see [`NEWS_BURST`].
    fn tell_untold(&mut self) {
        let untold: Vec<_> = self
            .participants
            .values()
            .filter_map(|participant| Some((participant.key, participant.untold?)))
            .collect();
        for (key, to_itself) in untold {
            self.announce(key, to_itself);
        }
        for key in self.participants.keys().copied().collect::<Vec<_>>() {
            self.allow_next(key);
        }
    }

    /// Tells a client, now and then, that what it sends is not passed on.
    fn complain(&mut self, key: ParticipantKey, reason: request_response::Reason, message: &str) {
        let now = self.now;
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        if let Some(suppressed) = DATA_REFUSED.pass(now) {
            tracing::warn!(
                room = self.settings.name,
                participant = participant.info.identity,
                reason = message,
                suppressed,
                "a data message was not passed on"
            );
        }
        let is_told = participant
            .complained
            .is_some_and(|at| now.saturating_duration_since(at) < COMPLAINT_INTERVAL);
        if !is_told {
            participant.complained = Some(now);
            self.tell(
                key,
                Message::RequestResponse(proto::RequestResponse {
                    reason: reason as i32,
                    message: message.into(),
                    ..Default::default()
                }),
            );
        }
    }

    /// Tells a participant at once how good its line is.
    fn tell_own_quality(&mut self, key: ParticipantKey) {
        if let Some(participant) = self.participants.get(&key) {
            let update = to_itself(quality_info(participant));
            self.tell(key, qualities(vec![update]));
        }
    }

    fn tell_quality(&mut self) {
        let mut updates = Vec::new();
        let mut own = Vec::new();
        for participant in self.participants.values_mut() {
            let quality = participant.quality().0 as i32;
            let is_known = participant.is_connected && !participant.is_elsewhere;
            if !is_known || participant.told_quality == Some(quality) {
                continue;
            }
            if !self.roster.is_announced(participant.key) {
                own.push((participant.key, quality_info(participant)));
            } else if updates.len() < QUALITIES_AT_ONCE {
                updates.push(quality_info(participant));
            } else {
                continue;
            }
            participant.told_quality = Some(quality);
        }
        for (key, update) in own {
            self.tell(key, qualities(vec![to_itself(update)]));
        }
        if updates.is_empty() {
            return;
        }
        let for_others = encode(qualities(updates.clone()));
        for participant in self.participants.values() {
            let Some(session) = participant.session.filter(|_| participant.hears_others) else {
                continue;
            };
            let is_lost = participant.told_quality == Some(ConnectionQuality::Lost as i32);
            let message = if is_lost {
                let for_it = updates.iter().cloned().map(|update| {
                    match update.participant_sid == participant.info.sid {
                        true => to_itself(update),
                        false => update,
                    }
                });
                encode(qualities(for_it.collect()))
            } else {
                for_others.clone()
            };
            self.effects.push(Effect::Send { session, message });
        }
    }
}

fn qualities(updates: Vec<proto::ConnectionQualityInfo>) -> Message {
    Message::ConnectionQuality(proto::ConnectionQualityUpdate { updates })
}

fn quality_info(participant: &Participant) -> proto::ConnectionQualityInfo {
    let (quality, score) = participant.quality();
    proto::ConnectionQualityInfo {
        participant_sid: participant.info.sid.clone(),
        quality: quality as i32,
        score,
    }
}

/// What a participant is told of its own line: never that it is lost. Whoever hears this was
/// reached, its own checks tell it within seconds that media is not, and ICE brings that back in
/// place; but LiveKit's clients throw the whole session away after ten seconds of it, and everybody
/// would see them leave and come.
fn to_itself(mut update: proto::ConnectionQualityInfo) -> proto::ConnectionQualityInfo {
    if update.quality == ConnectionQuality::Lost as i32 {
        update.quality = ConnectionQuality::Poor as i32;
        update.score = 1.0;
    }
    update
}

/// The codecs that may be published.
pub fn enabled_codecs() -> Vec<proto::Codec> {
    [
        "audio/opus",
        "audio/red",
        "video/VP8",
        "video/VP9",
        "video/H264",
        "video/AV1",
        "video/rtx",
    ]
    .into_iter()
    .map(|mime| proto::Codec {
        mime: mime.to_owned(),
        fmtp_line: String::new(),
    })
    .collect()
}
