//! All rooms of this process, and the one place where their effects happen.
//!
//! A room and the outgoing queues of its sessions lie behind one lock, which is never held across
//! an await. Connection and track ids carry their room's serial, so an event of the media core
//! finds its room without a table of connections.

mod tree;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use livekit_protocol as proto;
use proto::{DisconnectReason, leave_request::Action};
use rand::Rng;
use sfu::{Command, ConnectionId, Event, TrackId};
use tokio::sync::{Notify, mpsc};

use crate::diagnostics::Questions;
use crate::ice::IceServer;
use crate::log_limit::LogLimit;
use crate::room::{Effect, Moment, Newcomer, Node, Refusal, Room, RoomSettings, SessionId};
use crate::token::{Claims, KeyRing};
use crate::visitors::{Full, Place, Places};

pub use tree::{LINES, Spreading, TreeNews};

/// The most messages that wait for a client that reads slowly.
pub const OUTGOING_MESSAGES: usize = 512;
/// The most bytes that wait for a client that reads slowly.
pub const OUTGOING_BYTES: usize = 4 * 1024 * 1024;
/// The most events of the media core that may wait before those that can be missed are dropped.
pub const EVENT_BACKLOG: usize = 65_536;
/// The most bytes of data messages among them; what comes beyond is dropped.
pub const EVENT_DATA_BYTES: usize = 64 * 1024 * 1024;
/// How often rooms look at the time.
const TICK: Duration = Duration::from_millis(500);
/// How often news that a room has gathered is looked at. Far below what anybody notices.
const NEWS_TICK: Duration = Duration::from_millis(50);

/// From this busy on (see [`Media::busy`]) nobody new is let in: what is left is for those inside,
/// before their pictures suffer.
pub const OVERLOADED: u64 = 900;
/// For how many looks in a row it must be so: a hall that fills at once is busy for a moment.
const OVERLOADED_LOOKS: u32 = 4;
/// Below this newcomers are let in again. The distance lets what the last ones brought show itself.
pub const AT_EASE: u64 = 800;

static OVERLOAD: LogLimit = LogLimit::new();
static BEHIND: LogLimit = LogLimit::new();
static ROOM_OPENED: LogLimit = LogLimit::of(100);
static ROOM_CLOSED: LogLimit = LogLimit::of(100);

/// The media core, as far as signalling sees it: shards, each with a thread of its own. A room lies
/// on one of them.
pub trait Media: Send + Sync {
    /// How many shards there are: at least one, and always as many.
    fn shards(&self) -> usize {
        1
    }

    /// Hands a command over to a shard; must not block.
    fn send(&self, shard: usize, command: Command);

    /// How much of about the last second a shard was at work, in thousandths.
    fn busy(&self, _shard: usize) -> u64 {
        0
    }
}

/// Who may open or enter a room beyond what the token says.
pub trait Gate: Send + Sync {
    /// `Err` with words for the client when the room is not to be entered (any more).
    fn may_enter<'a>(
        &'a self,
        claims: &'a Claims,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;
}

/// Bounds of the whole server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most rooms.
    pub rooms: usize,
    /// The most participants in all rooms.
    pub participants: usize,
    /// The most participants in one room that sets no bound itself; 0 is no limit.
    pub participants_per_room: u32,
    /// The most sessions from one address; 0 is no limit.
    pub sessions_per_address: usize,
    /// How long a room stays while nobody has come.
    pub empty_timeout: Duration,
    /// How long a room stays after the last has gone.
    pub departure_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            rooms: 10_000,
            participants: 10_000,
            participants_per_room: 0,
            sessions_per_address: 0,
            empty_timeout: Duration::from_secs(300),
            departure_timeout: Duration::from_secs(20),
        }
    }
}

/// What a hub is made with.
pub struct HubConfig {
    /// API keys and secrets.
    pub keys: KeyRing,
    /// Bounds.
    pub limits: Limits,
    /// A further check at the door.
    pub gate: Option<Arc<dyn Gate>>,
    /// STUN and TURN servers that clients are told of.
    pub ice_servers: Vec<IceServer>,
}

/// Where a shard of the media core puts its events.
#[derive(Clone)]
pub struct EventSink {
    shard: usize,
    sender: mpsc::UnboundedSender<(usize, Event)>,
    backlog: Arc<Backlog>,
}

/// What waits between the media core and the hub.
#[derive(Default)]
struct Backlog {
    events: AtomicUsize,
    data_bytes: AtomicUsize,
    dropped: AtomicU64,
}

fn data_length(event: &Event) -> usize {
    match event {
        Event::Data { payload, .. } => payload.len(),
        _ => 0,
    }
}

/// Where the hub takes them.
pub struct EventQueue {
    receiver: mpsc::UnboundedReceiver<(usize, Event)>,
    backlog: Arc<Backlog>,
}

/// The queue from the media core's threads to the hub. The sink is the first shard's.
pub fn event_queue() -> (EventSink, EventQueue) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let backlog = Arc::new(Backlog::default());
    (
        EventSink {
            shard: 0,
            sender,
            backlog: backlog.clone(),
        },
        EventQueue { receiver, backlog },
    )
}

impl EventSink {
    /// The same queue's sink for another shard.
    #[must_use]
    pub fn of_shard(&self, shard: usize) -> EventSink {
        EventSink {
            shard,
            ..self.clone()
        }
    }

    /// Puts an event in. Never blocks; when the hub is far behind, levels, line reports and data
    /// are dropped.
    pub fn put(&self, event: Event) {
        let can_be_missed = matches!(
            event,
            Event::AudioLevels(_) | Event::Line { .. } | Event::Data { .. }
        );
        let length = data_length(&event);
        let is_too_much = self.backlog.events.load(Ordering::Relaxed) > EVENT_BACKLOG
            || self.backlog.data_bytes.load(Ordering::Relaxed) + length > EVENT_DATA_BYTES
                && length > 0;
        if can_be_missed && is_too_much {
            self.backlog.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.backlog.events.fetch_add(1, Ordering::Relaxed);
        self.backlog.data_bytes.fetch_add(length, Ordering::Relaxed);
        let _ = self.sender.send((self.shard, event));
    }
}

/// Something for a WebSocket to do.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Message(Bytes),
    Close { is_fault: bool, reason: String },
}

/// One session's outgoing queue.
#[derive(Clone)]
pub(crate) struct Outbox {
    sender: mpsc::Sender<Outgoing>,
    bytes: Arc<AtomicUsize>,
    kill: Arc<Notify>,
}

/// Its other end.
pub(crate) struct Outlet {
    receiver: mpsc::Receiver<Outgoing>,
    bytes: Arc<AtomicUsize>,
    /// Told when the client reads too slowly.
    pub(crate) kill: Arc<Notify>,
}

pub(crate) fn outbox() -> (Outbox, Outlet) {
    let (sender, receiver) = mpsc::channel(OUTGOING_MESSAGES);
    let bytes = Arc::new(AtomicUsize::new(0));
    let kill = Arc::new(Notify::new());
    (
        Outbox {
            sender,
            bytes: bytes.clone(),
            kill: kill.clone(),
        },
        Outlet {
            receiver,
            bytes,
            kill,
        },
    )
}

impl Outbox {
    fn put(&self, outgoing: Outgoing) -> bool {
        let size = match &outgoing {
            Outgoing::Message(message) => message.len(),
            Outgoing::Close { .. } => 0,
        };
        if self.bytes.fetch_add(size, Ordering::Relaxed) + size > OUTGOING_BYTES {
            self.kill.notify_one();
            return false;
        }
        if self.sender.try_send(outgoing).is_err() {
            self.kill.notify_one();
            return false;
        }
        true
    }
}

impl Outlet {
    pub(crate) async fn next(&mut self) -> Option<Outgoing> {
        let outgoing = self.receiver.recv().await?;
        if let Outgoing::Message(message) = &outgoing {
            self.bytes.fetch_sub(message.len(), Ordering::Relaxed);
        }
        Some(outgoing)
    }
}

struct Inner {
    room: Room,
    sessions: HashMap<SessionId, Outbox>,
    is_closed: bool,
}

/// A room with the queues of its sessions.
pub(crate) struct RoomCell(Mutex<Inner>);

impl RoomCell {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("a room's rules do not panic")
    }
}

#[derive(Default)]
struct Rooms {
    by_name: BTreeMap<String, Arc<RoomCell>>,
    by_serial: HashMap<u32, Arc<RoomCell>>,
    spread: tree::Spread,
}

/// Why somebody can't come in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Barred {
    /// The server is going down.
    #[error("the server is restarting: try again in a moment")]
    Draining,
    /// The media core is at its limit.
    #[error(
        "the server is as busy as it can be without disturbing those inside: try again in a moment"
    )]
    Overloaded,
    /// No more room on this server.
    #[error("the server is full")]
    ServerFull,
    /// No more sessions for this address.
    #[error("too many sessions are open from this address")]
    AddressFull,
    /// No more room in this room.
    #[error("the room has as many participants as it may have")]
    RoomFull,
    /// A room is of the deployment or of this node alone, and who is in it has tokens of the same.
    #[error("the room is for tokens of the other kind: of the deployment, or of an API key")]
    OtherTokens,
    /// The gate said no.
    #[error("{0}")]
    Gate(String),
}

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Rooms open.
    pub rooms: usize,
    /// Participants in them.
    pub participants: usize,
    /// Live tracks.
    pub tracks: usize,
    /// WebSockets open.
    pub sessions: usize,
    /// Joins since start.
    pub joins: u64,
    /// Resumes since start.
    pub resumes: u64,
    /// Joins refused because the media core was at its limit.
    pub overloaded: u64,
    /// Sessions ended for breaking the protocol or a bound.
    pub refused: u64,
    /// Sessions ended for reading too slowly.
    pub slow: u64,
}

/// Whether a shard is at its limit.
#[derive(Default)]
struct Overload {
    is_on: AtomicBool,
    /// How many looks in a row it was too busy.
    looks: AtomicU32,
}

/// All rooms of this process.
pub struct Hub {
    config: HubConfig,
    media: Arc<dyn Media>,
    node: Arc<Node>,
    rooms: Mutex<Rooms>,
    next_room: AtomicU32,
    next_session: AtomicU64,
    is_draining: AtomicBool,
    /// By shard.
    overloads: Vec<Overload>,
    places: Arc<Places>,
    pub(crate) questions: Questions,
    pub(crate) joins: AtomicU64,
    pub(crate) resumes: AtomicU64,
    overloaded: AtomicU64,
    pub(crate) refused: AtomicU64,
    slow: AtomicU64,
    /// Who joins conferences that spread over the tree to the rooms here.
    tree: Mutex<Option<mpsc::UnboundedSender<TreeNews>>>,
}

pub(crate) fn moment() -> Moment {
    let unix = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Moment {
        now: Instant::now(),
        unix_ms: unix.as_millis() as i64,
    }
}

impl Hub {
    /// A hub without rooms.
    pub fn new(config: HubConfig, media: Arc<dyn Media>) -> Arc<Hub> {
        let node = Arc::new(Node {
            id: format!("ND_{:08x}", rand::rng().random::<u32>()),
            ice_servers: config.ice_servers.iter().map(IceServer::message).collect(),
        });
        Arc::new(Hub {
            places: Places::new(0, config.limits.sessions_per_address),
            config,
            overloads: (0..media.shards()).map(|_| Overload::default()).collect(),
            media,
            node,
            rooms: Mutex::default(),
            next_room: AtomicU32::new(1),
            next_session: AtomicU64::new(1),
            is_draining: AtomicBool::new(false),
            questions: Questions::new(),
            joins: AtomicU64::new(0),
            resumes: AtomicU64::new(0),
            overloaded: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            slow: AtomicU64::new(0),
            tree: Mutex::default(),
        })
    }

    /// The API keys.
    pub fn keys(&self) -> &KeyRing {
        &self.config.keys
    }

    pub(crate) fn ice_servers(&self) -> &[IceServer] {
        &self.config.ice_servers
    }

    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.rooms
            .lock()
            .expect("the table of rooms is only looked up and changed")
    }

    fn cells(&self) -> Vec<Arc<RoomCell>> {
        self.rooms().by_name.values().cloned().collect()
    }

    fn cell(&self, name: &str) -> Option<Arc<RoomCell>> {
        self.rooms().by_name.get(name).cloned()
    }

    /// Runs the hub until the queue's other end is gone.
    pub async fn run(self: Arc<Self>, mut events: EventQueue) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut news = tokio::time::interval(NEWS_TICK);
        news.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.receiver.recv() => match event {
                    Some((shard, event)) => {
                        events.backlog.events.fetch_sub(1, Ordering::Relaxed);
                        let length = data_length(&event);
                        events.backlog.data_bytes.fetch_sub(length, Ordering::Relaxed);
                        self.on_event(shard, event);
                    }
                    None => return,
                },
                _ = news.tick() => {
                    for cell in self.cells() {
                        self.with(&cell, |room, at| room.tell_due_news(at.now));
                    }
                }
                _ = tick.tick() => {
                    let dropped = events.backlog.dropped.swap(0, Ordering::Relaxed);
                    if dropped > 0 && let Some(suppressed) = BEHIND.pass(Instant::now()) {
                        tracing::warn!(
                            dropped,
                            suppressed,
                            "data and reports were dropped: participants send more than this \
                             machine can pass on"
                        );
                    }
                    self.tick();
                }
            }
        }
    }

    /// Hands a shard's event to its room.
    pub fn on_event(&self, shard: usize, event: Event) {
        let id = match &event {
            Event::AudioLevels(levels) => {
                self.audio_levels(shard, levels);
                return;
            }
            Event::Account {
                connection,
                account,
            } => {
                self.questions.answer(*connection, account.as_ref());
                return;
            }
            Event::RelayEnd {
                connection: ConnectionId(id),
                ..
            }
            | Event::Answer {
                connection: ConnectionId(id),
                ..
            }
            | Event::Offer {
                connection: ConnectionId(id),
                ..
            }
            | Event::Refused {
                connection: ConnectionId(id),
                ..
            }
            | Event::PlacesNeeded {
                connection: ConnectionId(id),
                ..
            }
            | Event::Connected {
                connection: ConnectionId(id),
                ..
            }
            | Event::Silent {
                connection: ConnectionId(id),
            }
            | Event::Resumed {
                connection: ConnectionId(id),
            }
            | Event::Closed {
                connection: ConnectionId(id),
                ..
            }
            | Event::Subscribed {
                connection: ConnectionId(id),
                ..
            }
            | Event::CodecNotAccepted {
                connection: ConnectionId(id),
                ..
            }
            | Event::Paused {
                connection: ConnectionId(id),
                ..
            }
            | Event::ChannelOpen {
                connection: ConnectionId(id),
                ..
            }
            | Event::Data {
                connection: ConnectionId(id),
                ..
            }
            | Event::Line {
                connection: ConnectionId(id),
                ..
            }
            | Event::Published {
                track: TrackId(id), ..
            }
            | Event::CodecChanged {
                track: TrackId(id), ..
            }
            | Event::LayersWanted {
                track: TrackId(id), ..
            }
            | Event::Ended {
                track: TrackId(id), ..
            } => *id,
        };
        if Room::serial_of(id) == LINES {
            self.tell_tree(TreeNews::Line(event));
            return;
        }
        let cell = {
            let rooms = self.rooms();
            let serial = rooms.spread.room_of(Room::serial_of(id));
            rooms.by_serial.get(&serial).cloned()
        };
        if let Some(cell) = cell {
            self.with(&cell, |room, at| room.on_event(event, at.now));
        }
    }

    /// The shard on which a room lies: its serial says so.
    fn shard_of(&self, serial: u32) -> usize {
        serial as usize % self.overloads.len()
    }

    fn audio_levels(&self, shard: usize, levels: &[(TrackId, u8)]) {
        let mut by_room: HashMap<u32, Vec<(TrackId, u8)>> = HashMap::new();
        let rooms = self.rooms();
        for (track, level) in levels {
            by_room
                .entry(rooms.spread.room_of(Room::serial_of(track.0)))
                .or_default()
                .push((*track, *level));
        }
        let cells: Vec<_> = rooms
            .by_serial
            .iter()
            .filter(|(serial, _)| self.shard_of(**serial) == shard)
            .map(|(serial, cell)| (*serial, cell.clone()))
            .collect();
        drop(rooms);
        for (serial, cell) in cells {
            let levels = by_room.remove(&serial).unwrap_or_default();
            self.with(&cell, |room, at| {
                if !levels.is_empty() || room.has_voices() {
                    room.on_event(Event::AudioLevels(levels), at.now);
                }
            });
        }
    }

    fn tick(&self) {
        self.look_at_load();
        for cell in self.cells() {
            let is_over = self.with(&cell, |room, at| {
                room.tick(at.now);
                room.is_over(at.now)
            });
            if is_over {
                self.close_cell(
                    &cell,
                    DisconnectReason::RoomClosed,
                    Action::Disconnect,
                    |room| room.is_over(Instant::now()),
                );
            }
        }
    }

    fn look_at_load(&self) {
        for (shard, overload) in self.overloads.iter().enumerate() {
            let busy = self.media.busy(shard);
            let was_on = overload.is_on.load(Ordering::Relaxed);
            let looks = if busy >= OVERLOADED {
                overload.looks.fetch_add(1, Ordering::Relaxed) + 1
            } else {
                overload.looks.store(0, Ordering::Relaxed);
                0
            };
            let is_on = looks >= OVERLOADED_LOOKS || was_on && busy >= AT_EASE;
            overload.is_on.store(is_on, Ordering::Relaxed);
            if is_on
                && !was_on
                && let Some(suppressed) = OVERLOAD.pass(Instant::now())
            {
                tracing::warn!(
                    busy,
                    shard,
                    suppressed,
                    "a thread of the media core has no time left: nobody new is let into its rooms \
                     until it has. Spread the rooms over more nodes, or give this one a faster \
                     processor"
                );
            }
        }
    }

    /// Whether somebody can't come in because the room's shard is at its limit, or all are for a room
    /// that is not open. Who is inside may come again: their media is there already.
    pub fn is_overloaded_for(&self, room: &str, identity: &str) -> bool {
        let is_on = |overload: &Overload| overload.is_on.load(Ordering::Relaxed);
        if !self.overloads.iter().any(is_on) {
            return false;
        }
        match self.cell(room) {
            Some(cell) => {
                let inner = cell.lock();
                is_on(&self.overloads[self.shard_of(inner.room.serial())])
                    && !inner.room.has(identity)
            }
            None => self.overloads.iter().all(is_on),
        }
    }

    /// Runs a step of a room and makes its effects happen, in order, under the room's lock.
    fn with<T>(&self, cell: &RoomCell, step: impl FnOnce(&mut Room, Moment) -> T) -> T {
        let mut inner = cell.lock();
        self.with_inner(&mut inner, step)
    }

    fn with_inner<T>(&self, inner: &mut Inner, step: impl FnOnce(&mut Room, Moment) -> T) -> T {
        let at = moment();
        let result = step(&mut inner.room, at);
        loop {
            let effects = inner.room.take_effects();
            if effects.is_empty() {
                return result;
            }
            for effect in effects {
                self.do_effect(inner, effect, at.now);
            }
        }
    }

    fn do_effect(&self, inner: &mut Inner, effect: Effect, now: Instant) {
        let (session, outgoing) = match effect {
            Effect::Media(command) => {
                self.media.send(self.shard_of(inner.room.serial()), command);
                return;
            }
            Effect::Tree(news) => {
                let name = inner.room.name().to_owned();
                self.tell_tree(TreeNews::Room(name, news));
                return;
            }
            Effect::Send { session, message } => (session, Outgoing::Message(message)),
            Effect::Close {
                session,
                is_fault,
                reason,
            } => (session, Outgoing::Close { is_fault, reason }),
        };
        let is_last = matches!(outgoing, Outgoing::Close { .. });
        let Some(outbox) = inner.sessions.get(&session) else {
            return;
        };
        let is_put = outbox.put(outgoing);
        if !is_put {
            // Its task hears of it and says so; see `read_too_slowly`.
            inner.room.session_lost(session, now);
        }
        if is_last || !is_put {
            inner.sessions.remove(&session);
        }
    }

    // ---- rooms --------------------------------------------------------------------------------

    fn settings(&self, name: &str) -> RoomSettings {
        let limits = &self.config.limits;
        RoomSettings {
            name: name.to_owned(),
            empty_timeout: limits.empty_timeout,
            departure_timeout: limits.departure_timeout,
            max_participants: limits.participants_per_room,
            metadata: String::new(),
        }
    }

    /// Opens a room if it is not open. `is_of_tree`: it is a conference of the tree, if it is opened now.
    fn open(&self, name: &str, is_of_tree: bool) -> Result<Arc<RoomCell>, Barred> {
        let mut rooms = self.rooms();
        if let Some(cell) = rooms.by_name.get(name) {
            return Ok(cell.clone());
        }
        if rooms.by_name.len() >= self.config.limits.rooms {
            return Err(Barred::ServerFull);
        }
        if is_of_tree {
            self.spread_in(&mut rooms, name);
        }
        let is_spread = rooms.spread.has(name);
        let serial = if is_spread {
            self.serial_on(tree::SHARD)
        } else {
            self.next_serial(&rooms)
        };
        let seed = rand::rng().random();
        let mut room = Room::new(
            serial,
            self.settings(name),
            self.node.clone(),
            seed,
            moment(),
        );
        if is_spread {
            room.spread();
            rooms.spread.opened(name, serial);
        }
        if let Some(suppressed) = ROOM_OPENED.pass(Instant::now()) {
            tracing::info!(room = name, suppressed, "room opened");
        }
        let inner = Inner {
            room,
            sessions: HashMap::new(),
            is_closed: false,
        };
        let cell = Arc::new(RoomCell(Mutex::new(inner)));
        rooms.by_name.insert(name.to_owned(), cell.clone());
        rooms.by_serial.insert(serial, cell.clone());
        Ok(cell)
    }

    /// A serial that lies on the shard with the most time left; among equals, with the fewest rooms.
    fn next_serial(&self, rooms: &Rooms) -> u32 {
        let mut open = vec![0; self.overloads.len()];
        for serial in rooms.by_serial.keys() {
            open[self.shard_of(*serial)] += 1;
        }
        // In tenths, so that rooms that are opened one after the other do not all follow a trifle.
        let load = |shard: &usize| (self.media.busy(*shard) / 100, open[*shard]);
        self.serial_on((0..open.len()).min_by_key(load).unwrap_or(0))
    }

    /// A serial that lies on a shard.
    fn serial_on(&self, shard: usize) -> u32 {
        let number = self.next_room.fetch_add(1, Ordering::Relaxed);
        number
            .wrapping_mul(self.overloads.len() as u32)
            .wrapping_add(shard as u32)
    }

    fn close_cell(
        &self,
        cell: &RoomCell,
        reason: DisconnectReason,
        action: Action,
        condition: impl FnOnce(&Room) -> bool,
    ) {
        let mut inner = cell.lock();
        if inner.is_closed || !condition(&inner.room) {
            return;
        }
        inner.is_closed = true;
        self.with_inner(&mut inner, |room, at| room.close(reason, action, at.now));
        let name = inner.room.name().to_owned();
        // The table is never locked before a room while a room is held elsewhere: only here.
        drop(inner);
        let mut rooms = self.rooms();
        if rooms
            .by_name
            .get(&name)
            .is_some_and(|known| std::ptr::eq(&**known, cell))
        {
            rooms.by_name.remove(&name);
            rooms.spread.closed(&name);
        }
        rooms
            .by_serial
            .retain(|_, known| !std::ptr::eq(&**known, cell));
        if let Some(suppressed) = ROOM_CLOSED.pass(Instant::now()) {
            let reason = reason.as_str_name();
            tracing::info!(room = name, reason, suppressed, "room closed");
        }
    }

    /// Creates a room, or changes an open one.
    pub fn create_room(&self, settings: RoomSettings) -> Result<proto::Room, Barred> {
        if self.is_draining() {
            return Err(Barred::Draining);
        }
        loop {
            let cell = self.open(&settings.name, false)?;
            let mut inner = cell.lock();
            if inner.is_closed {
                drop(inner);
                std::thread::yield_now();
                continue;
            }
            inner.room.configure(settings);
            return Ok(inner.room.info());
        }
    }

    /// Ends a room for all who are in it. `false` if there is none.
    pub fn delete_room(&self, name: &str) -> bool {
        let Some(cell) = self.cell(name) else {
            return false;
        };
        self.close_cell(
            &cell,
            DisconnectReason::RoomDeleted,
            Action::Disconnect,
            |_| true,
        );
        true
    }

    /// The open rooms, all or those named.
    pub fn list_rooms(&self, names: &[String]) -> Vec<proto::Room> {
        self.cells()
            .iter()
            .map(|cell| cell.lock().room.info())
            .filter(|room| names.is_empty() || names.contains(&room.name))
            .collect()
    }

    /// The names of the open rooms.
    pub fn room_names(&self) -> Vec<String> {
        self.rooms().by_name.keys().cloned().collect()
    }

    /// How many are in a room.
    pub fn participants_in(&self, name: &str) -> usize {
        self.cell(name)
            .map_or(0, |cell| cell.lock().room.participant_count())
    }

    /// Runs a step of an open room. `None` if there is none.
    pub fn in_room<T>(&self, name: &str, step: impl FnOnce(&mut Room, Moment) -> T) -> Option<T> {
        let cell = self.cell(name)?;
        Some(self.with(&cell, step))
    }

    /// Numbers for metrics.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts {
            joins: self.joins.load(Ordering::Relaxed),
            resumes: self.resumes.load(Ordering::Relaxed),
            overloaded: self.overloaded.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            slow: self.slow.load(Ordering::Relaxed),
            ..Counts::default()
        };
        for cell in self.cells() {
            let inner = cell.lock();
            counts.rooms += 1;
            counts.participants += inner.room.participant_count();
            counts.tracks += inner.room.track_count();
            counts.sessions += inner.sessions.len();
        }
        counts
    }

    // ---- coming and going ---------------------------------------------------------------------

    /// Whether somebody with these claims may come in now.
    pub async fn admit(&self, claims: &Claims) -> Result<(), Barred> {
        if self.is_draining() {
            return Err(Barred::Draining);
        }
        if let Some(gate) = &self.config.gate {
            gate.may_enter(claims).await.map_err(Barred::Gate)?;
        }
        let room = &claims.video.room;
        if self.is_overloaded_for(room, &claims.sub) {
            return Err(Barred::Overloaded);
        }
        match self.cell(room) {
            Some(cell) if !cell.lock().room.has_place_for(&claims.sub) => {
                return Err(Barred::RoomFull);
            }
            None if self.rooms().by_name.len() >= self.config.limits.rooms => {
                return Err(Barred::ServerFull);
            }
            _ => {}
        }
        if self.is_full() {
            return Err(Barred::ServerFull);
        }
        Ok(())
    }

    /// The same for somebody who comes in if they may.
    pub(crate) async fn let_in(&self, claims: &Claims) -> Result<(), Barred> {
        self.admit(claims).await.inspect_err(|barred| {
            if *barred == Barred::Overloaded {
                self.overloaded.fetch_add(1, Ordering::Relaxed);
            }
        })
    }

    /// Whether there is place for nobody more.
    pub fn is_full(&self) -> bool {
        let bound = self.config.limits.participants;
        let mut count = 0;
        self.cells().iter().any(|cell| {
            count += cell.lock().room.participant_count();
            count >= bound
        })
    }

    pub(crate) fn next_session(&self) -> SessionId {
        SessionId(self.next_session.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn join(
        &self,
        name: &str,
        newcomer: Newcomer,
        outbox: Outbox,
    ) -> Result<Arc<RoomCell>, Barred> {
        loop {
            if self.is_draining() {
                return Err(Barred::Draining);
            }
            let is_of_tree = newcomer.conference.is_some();
            let cell = self.open(name, is_of_tree)?;
            let mut inner = cell.lock();
            if inner.is_closed {
                // Its time was just over; the table will not have it in a moment.
                drop(inner);
                std::thread::yield_now();
                continue;
            }
            if !inner.room.has_place_for(&newcomer.identity) {
                return Err(Barred::RoomFull);
            }
            if inner.room.is_spread() != is_of_tree {
                return Err(Barred::OtherTokens);
            }
            inner.sessions.insert(newcomer.session, outbox);
            self.with_inner(&mut inner, |room, at| room.join(newcomer, at));
            drop(inner);
            self.joins.fetch_add(1, Ordering::Relaxed);
            return Ok(cell);
        }
    }

    pub(crate) fn resume(
        &self,
        name: &str,
        sid: &str,
        identity: &str,
        session: SessionId,
        outbox: Outbox,
    ) -> Option<Arc<RoomCell>> {
        if self.is_draining() {
            return None;
        }
        let cell = self.cell(name)?;
        let mut inner = cell.lock();
        inner.sessions.insert(session, outbox);
        let is_resumed = self.with_inner(&mut inner, |room, at| {
            room.resume(sid, identity, session, at)
        });
        if !is_resumed {
            inner.sessions.remove(&session);
            return None;
        }
        drop(inner);
        self.resumes.fetch_add(1, Ordering::Relaxed);
        Some(cell)
    }

    pub(crate) fn handle(
        &self,
        cell: &RoomCell,
        session: SessionId,
        message: proto::signal_request::Message,
    ) -> Result<(), Refusal> {
        self.with(cell, |room, at| room.handle(session, message, at))
    }

    pub(crate) fn session_lost(&self, cell: &RoomCell, session: SessionId) {
        let mut inner = cell.lock();
        inner.sessions.remove(&session);
        self.with_inner(&mut inner, |room, at| room.session_lost(session, at.now));
    }

    pub(crate) fn read_too_slowly(&self, cell: &RoomCell, session: SessionId) {
        self.slow.fetch_add(1, Ordering::Relaxed);
        self.session_lost(cell, session);
    }

    /// Takes a place for a session, by where it comes from.
    pub(crate) fn take_place(&self, address: Option<IpAddr>) -> Result<Place, Barred> {
        self.places.take(address).map_err(|full| match full {
            Full::Address => Barred::AddressFull,
            Full::All => Barred::ServerFull,
        })
    }

    pub(crate) fn refuse(&self, cell: &RoomCell, session: SessionId, reason: &str) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.with(cell, |room, at| room.refuse(session, reason, at.now));
    }

    /// Whether the server is going down.
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Sends everybody away, to come back to the next process, and lets nobody in any more.
    pub fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
        for cell in self.cells() {
            self.close_cell(
                &cell,
                DisconnectReason::ServerShutdown,
                Action::Reconnect,
                |_| true,
            );
        }
    }
}
