//! One node of the cascade: its lines, the tree as it sees it, and its conferences.
//!
//! Told are envelopes that were opened (`seal`), media that was heard on a line, and what its own
//! clients do; with each comes the time. Out come envelopes, commands for the media core and events
//! for clients ([`Output`]), and when it wants to be woken. It does no IO, reads no clock and draws no
//! lots.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::channel::{Arrival, Channel, Role};
use super::conference::{AWAY_TIME, Conference, Denied, Newcomer, RESYNC_TIME};
use super::identity::{
    ConferenceId, Epoch, Identity, Incarnation, Moment, NodeId, OrganisationId, Place, Quality,
    Session, Time, TrackId,
};
use super::line::{Cause, Change, Line};
use super::message::{
    ActId, Announcement, Batch, Deed, Direction, Envelope, HOPS_BOUND, Heartbeat, Hop, Item, Key,
    LogEntry, MediaLine, Message, PROTOCOL, PROTOCOL_OLDEST, Participant, Rights, Speakers,
    TrackInfo,
};
use super::rule::Rule;
use super::seal::Seal;
use super::topology::Topology;

/// How often lines are looked at. It adds to the time in which a loss is noticed.
pub(crate) const TICK: Duration = Duration::from_millis(125);

/// How long a neighbour that was below may have another way up before what it said is void. Longer
/// than it takes to say so itself.
const STRANGER_AFTER: Duration = Duration::from_secs(3);

/// How often such neighbours are looked for.
const STRANGERS_INTERVAL: Duration = Duration::from_secs(1);

/// Conferences at one node at a time.
pub(crate) const CONFERENCES_BOUND: usize = 1024;

/// Conferences of which a heartbeat tells how many people are there.
const TOTALS_BOUND: usize = 64;

/// Why something from another node was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The sender has no line to this node.
    NoLine,
    /// It comes from an incarnation that is over, or is for one of ours, or has come before.
    Stale,
    /// It comes from an epoch that is over.
    StaleEpoch,
    /// It speaks for a node that is not below the sender.
    NotBelow,
    /// Only a parent, or only a child, may say it.
    NotTheirs,
    /// It is more than the bounds allow.
    TooMuch,
    /// Whoever does it may not.
    NotAllowed,
    /// Its end of the media line can't be one.
    Media,
    /// An announcement that does not hold, for this reason.
    Announcement(&'static str),
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A chair has removed it.
    Removed,
    /// The same identity has joined elsewhere.
    Replaced,
}

/// What the clients of a conference are to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody is on stage, or has changed there.
    Staged(Arc<Participant>),
    /// Somebody is no longer on stage.
    OffStage(Identity),
    /// Who is heard and who speaks.
    Speakers(Arc<Speakers>),
    /// The epoch has changed; `is_own`: this node decides, as the way up is lost.
    Epoch {
        /// The new one.
        epoch: Epoch,
        /// Whether it is this node's.
        is_own: bool,
    },
    /// Somebody said something.
    Chat(Arc<LogEntry>),
    /// What a client here may do has changed.
    Rights {
        /// Which client's stay.
        session: Session,
        /// Whether its sound may be sent.
        may_be_heard: bool,
        /// Whether it may publish at all. If not, its tracks have ended.
        may_publish: bool,
    },
    /// A client's stay is over; it is to be disconnected.
    Over {
        /// Which.
        session: Session,
        /// For what reason.
        why: Why,
    },
    /// A track that somebody here wanted has ended.
    TrackEnded(TrackId),
    /// The conference is over.
    Ended,
}

/// What a node has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To be signed and sent.
    Send(Envelope),
    /// From now on a track is to be sent to a neighbour, in up to this layer, or no longer.
    Forward {
        /// In which conference.
        conference: ConferenceId,
        /// Which track.
        track: TrackId,
        /// To whom.
        to: NodeId,
        /// How much of it.
        layer: Option<Quality>,
    },
    /// The best layer of a client's track that anybody wants.
    Layers {
        /// In which conference.
        conference: ConferenceId,
        /// Which track.
        track: TrackId,
        /// None: nobody wants it.
        layer: Option<Quality>,
    },
    /// A client is to be asked for a keyframe.
    AskKeyframe {
        /// In which conference.
        conference: ConferenceId,
        /// Of which track.
        track: TrackId,
        /// Of which layer.
        layer: Quality,
    },
    /// To the clients of a conference.
    Event {
        /// Which conference.
        conference: ConferenceId,
        /// What happened.
        event: Event,
    },
    /// A line went up or down, and why.
    Line {
        /// To whom.
        neighbour: NodeId,
        /// Why it is down; `None`: it is up.
        cause: Option<Cause>,
    },
    /// There is a line to this neighbour now, or none any more.
    Neighbour {
        /// To whom.
        neighbour: NodeId,
        /// Whether there is one.
        is_there: bool,
    },
    /// What a neighbour says of its end of the media line has changed.
    Media {
        /// Who says it.
        neighbour: NodeId,
        /// Of the neighbour.
        incarnation: Incarnation,
        /// What it says.
        media: Option<MediaLine>,
    },
    /// To be kept in the node's file before anybody is told more.
    Log {
        /// In which conference.
        conference: ConferenceId,
        /// What took effect.
        entry: Arc<LogEntry>,
    },
    /// Something was not taken; for the operator's log.
    Refused {
        /// From whom.
        from: NodeId,
        /// Why.
        why: Refusal,
    },
}

/// What waits to go out.
pub(crate) enum Out {
    Send(NodeId, Message),
    Forward(ConferenceId, TrackId, NodeId, Option<Quality>),
    Layers(ConferenceId, TrackId, Option<Quality>),
    AskKeyframe(ConferenceId, TrackId, Quality),
    Event(ConferenceId, Event),
    Line(NodeId, Option<Cause>),
    Neighbour(NodeId, bool),
    Media(NodeId, Incarnation, Option<MediaLine>),
    Log(ConferenceId, Arc<LogEntry>),
    Refused(NodeId, Refusal),
}

/// What a node is woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    Tick,
    Channel(ConferenceId, NodeId),
    Grace(ConferenceId),
    Voices(ConferenceId),
    Keyframes(ConferenceId),
    Away(ConferenceId),
    Linger(ConferenceId),
    Restarted(ConferenceId, NodeId),
}

/// Those who want to be woken, the earliest first.
#[derive(Default)]
pub(crate) struct Timers(BinaryHeap<Reverse<(Time, Timer)>>);

impl Timers {
    pub(crate) fn push(&mut self, at: Time, timer: Timer) {
        self.0.push(Reverse((at, timer)));
    }

    fn next(&self) -> Option<Time> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    fn pop(&mut self, now: Time) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        self.0.pop().map(|Reverse((_, timer))| timer)
    }
}

/// What a conference needs of its node.
pub(crate) struct Context<'a> {
    pub(crate) moment: Moment,
    pub(crate) started: Time,
    pub(crate) incarnation: Incarnation,
    pub(crate) lines: &'a BTreeMap<NodeId, Line>,
    pub(crate) topology: &'a Topology,
    pub(crate) out: &'a mut VecDeque<Out>,
    pub(crate) timers: &'a mut Timers,
    pub(crate) streams: &'a Cell<u32>,
}

/// Counts the streams of this node's incarnation.
fn new_stream(streams: &Cell<u32>) -> u32 {
    streams.set(streams.get() + 1);
    streams.get()
}

impl Context<'_> {
    pub(crate) fn me(&self) -> NodeId {
        self.topology.place.node
    }

    /// The number of a stream that there was not before.
    pub(crate) fn new_stream(&self) -> u32 {
        new_stream(self.streams)
    }

    pub(crate) fn is_up(&self, node: NodeId) -> bool {
        self.lines.get(&node).is_some_and(Line::is_up)
    }

    pub(crate) fn send(&mut self, to: NodeId, message: Message) {
        self.out.push_back(Out::Send(to, message));
    }

    pub(crate) fn refuse(&mut self, from: NodeId, why: Refusal) {
        self.out.push_back(Out::Refused(from, why));
    }
}

/// What a node is told at its start.
pub struct NodeConfig {
    /// What it is.
    pub place: Place,
    /// Parent and second way, the better first.
    pub ways: Vec<NodeId>,
    /// Neighbours at its level, which are a way up when nothing else is left.
    pub siblings: Vec<NodeId>,
    /// How often it was started, this time counted; from its file.
    pub incarnation: Incarnation,
    /// The conferences' logs, from its file.
    pub logs: Vec<(ConferenceId, NodeId, Vec<Arc<LogEntry>>)>,
}

/// One node.
pub struct Node {
    incarnation: Incarnation,
    started: Time,
    seal: Arc<dyn Seal>,
    lines: BTreeMap<NodeId, Line>,
    topology: Topology,
    conferences: BTreeMap<ConferenceId, Conference>,
    stored: BTreeMap<ConferenceId, Vec<Arc<LogEntry>>>,
    away: BTreeMap<NodeId, Time>,
    /// Neighbours that were below us and whose way up leads elsewhere, and since when.
    strangers: BTreeMap<NodeId, Time>,
    strangers_sought: Time,
    out: VecDeque<Out>,
    timers: Timers,
    sessions: u32,
    acts: u32,
    streams: Cell<u32>,
}

impl Node {
    /// Starts a node. Its lines are added afterwards, to parents and children alike.
    pub fn new(config: NodeConfig, seal: Arc<dyn Seal>, moment: Moment) -> Node {
        let NodeConfig {
            place,
            ways,
            siblings,
            incarnation,
            logs,
        } = config;
        let mut node = Node {
            incarnation,
            started: moment.now,
            topology: Topology::new(place, incarnation, ways, siblings, &*seal),
            seal,
            lines: BTreeMap::new(),
            conferences: BTreeMap::new(),
            stored: BTreeMap::new(),
            away: BTreeMap::new(),
            strangers: BTreeMap::new(),
            strangers_sought: moment.now,
            out: VecDeque::new(),
            timers: Timers::default(),
            sessions: 0,
            acts: 0,
            streams: Cell::new(0),
        };
        node.timers.push(moment.now, Timer::Tick);
        for (conference, root, entries) in logs {
            node.stored.insert(conference, entries);
            if root == place.node {
                node.make(moment, conference, root);
            }
        }
        node
    }

    /// Takes up a line to an enrolled neighbour.
    pub fn add_line(&mut self, moment: Moment, neighbour: NodeId) {
        if let Entry::Vacant(line) = self.lines.entry(neighbour) {
            line.insert(Line::new(moment.now));
            self.out.push_back(Out::Neighbour(neighbour, true));
        }
    }

    /// A neighbour was revoked: from now on nothing of it is taken, and nothing that it said stays.
    pub fn remove_line(&mut self, moment: Moment, neighbour: NodeId) {
        if self.lines.remove(&neighbour).is_some() {
            self.out.push_back(Out::Neighbour(neighbour, false));
            self.topology_lost(neighbour);
            self.choose_way(moment);
            for id in self.conference_ids() {
                self.with(moment, id, |conference, ctx| {
                    conference.forget_neighbour(ctx, neighbour);
                });
            }
        }
    }

    /// The node's key has changed: it announces itself anew, signed with the new one.
    pub fn announce(&mut self, moment: Moment) {
        self.topology.announce(&*self.seal);
        self.node_changed([self.topology.place.node]);
        if let Some(up) = self.topology.up {
            self.flush_topology(moment, up);
        }
    }

    // What it is asked.

    /// What the node is.
    pub fn place(&self) -> Place {
        self.topology.place
    }

    /// How often it was started.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The neighbour that is its way up.
    pub fn way(&self) -> Option<NodeId> {
        self.topology.way
    }

    /// The node, its way up, that one's, and so on.
    pub fn path(&self) -> &[Hop] {
        &self.topology.path
    }

    /// All to whom it has a line, up or down.
    pub fn neighbours(&self) -> Vec<NodeId> {
        self.lines.keys().copied().collect()
    }

    /// The line to a neighbour.
    pub fn line(&self, neighbour: NodeId) -> Option<&Line> {
        self.lines.get(&neighbour)
    }

    /// What all nodes below say of themselves.
    pub fn below(&self) -> impl Iterator<Item = &Arc<Announcement>> {
        self.topology.announcements()
    }

    /// The conferences that it takes part in.
    pub fn conference_ids(&self) -> Vec<ConferenceId> {
        self.conferences.keys().copied().collect()
    }

    fn of<T>(&self, id: ConferenceId, ask: impl FnOnce(&Conference) -> T) -> Option<T> {
        self.conferences.get(&id).map(ask)
    }

    /// The node that holds a conference, as whoever joined or told of it said.
    pub fn root(&self, id: ConferenceId) -> Option<NodeId> {
        self.of(id, |one| one.root)
    }

    /// The epoch that a conference is in here; `None`: not known.
    pub fn epoch(&self, id: ConferenceId) -> Option<Epoch> {
        self.of(id, Conference::epoch).flatten()
    }

    /// Whether this node decides in a conference.
    pub fn is_own_epoch(&self, id: ConferenceId) -> bool {
        self.of(id, Conference::is_own).unwrap_or(false)
    }

    /// Whether a conference is over, as far as is known here.
    pub fn is_ended(&self, id: ConferenceId) -> bool {
        self.of(id, |one| one.is_ended).unwrap_or(false)
    }

    /// Who is on stage.
    pub fn stage(&self, id: ConferenceId) -> Vec<Arc<Participant>> {
        self.of(id, |one| one.stage().values().cloned().collect())
            .unwrap_or_default()
    }

    /// Who is heard and who speaks.
    pub fn speakers(&self, id: ConferenceId) -> Arc<Speakers> {
        self.of(id, |one| one.speakers.clone()).unwrap_or_default()
    }

    /// Somebody at this node or below.
    pub fn participant(&self, id: ConferenceId, identity: &Identity) -> Option<Arc<Participant>> {
        self.of(id, |one| one.roster.get(identity).cloned())?
    }

    /// Everybody at this node and below.
    pub fn people(&self, id: ConferenceId) -> Vec<Arc<Participant>> {
        self.of(id, |one| one.roster.people().cloned().collect())
            .unwrap_or_default()
    }

    /// A page of those at this node and below, in the order of their identities.
    pub fn page(
        &self,
        id: ConferenceId,
        after: Option<&Identity>,
        limit: usize,
        is_wanted: impl Fn(&Participant) -> bool,
    ) -> Vec<Arc<Participant>> {
        self.of(id, |one| one.roster.page(after, limit, is_wanted))
            .unwrap_or_default()
    }

    /// How many of each organisation are at this node and below.
    pub fn counts(&self, id: ConferenceId) -> BTreeMap<OrganisationId, u32> {
        self.of(id, |one| one.roster.counts().clone())
            .unwrap_or_default()
    }

    /// How many are in the conference, as far as is known here.
    pub fn total(&self, id: ConferenceId) -> u32 {
        self.of(id, Conference::total).unwrap_or(0)
    }

    /// Branches below that can't be reached now.
    pub fn away(&self, id: ConferenceId) -> Vec<NodeId> {
        self.of(id, Conference::away).unwrap_or_default()
    }

    /// What is known to have been taken from somebody.
    pub fn rights(&self, id: ConferenceId, identity: &Identity) -> Rights {
        self.of(id, |one| one.rights(identity)).unwrap_or_default()
    }

    /// What took effect, here and in epochs below.
    pub fn log(&self, id: ConferenceId) -> Vec<Arc<LogEntry>> {
        self.of(id, |one| one.log().cloned().collect())
            .unwrap_or_default()
    }

    /// The sessions of this node's clients.
    pub fn sessions(&self, id: ConferenceId) -> Vec<(u32, Identity)> {
        self.of(id, |one| {
            let all = one.sessions().iter();
            all.map(|(number, who)| (*number, who.clone())).collect()
        })
        .unwrap_or_default()
    }

    /// All that is sent to neighbours: of which track, to whom, how much.
    pub fn forwards(&self, id: ConferenceId) -> Vec<(TrackId, NodeId, Quality)> {
        self.of(id, |one| one.wishes.forwards().collect())
            .unwrap_or_default()
    }

    /// What of a track is sent to a neighbour.
    pub fn forwarded(&self, id: ConferenceId, track: TrackId, to: NodeId) -> Option<Quality> {
        self.of(id, |one| one.wishes.forwarded(track, to)).flatten()
    }

    /// What the clients of this node want, with what all of them hear.
    pub fn wanted(&self, id: ConferenceId) -> Vec<(TrackId, Quality)> {
        self.of(id, |one| one.wishes.local().collect())
            .unwrap_or_default()
    }

    /// The neighbour from which a track of another node comes, if one is known now.
    pub fn source(&mut self, moment: Moment, id: ConferenceId, track: TrackId) -> Option<NodeId> {
        self.within(moment, id, |one, ctx| one.source(ctx, track))?
    }

    // What it is told.

    /// Does something with a conference that is there.
    fn within<T>(
        &mut self,
        moment: Moment,
        id: ConferenceId,
        work: impl FnOnce(&mut Conference, &mut Context<'_>) -> T,
    ) -> Option<T> {
        let conference = self.conferences.get_mut(&id)?;
        let mut ctx = Context {
            moment,
            started: self.started,
            incarnation: self.incarnation,
            lines: &self.lines,
            topology: &self.topology,
            out: &mut self.out,
            timers: &mut self.timers,
            streams: &self.streams,
        };
        Some(work(conference, &mut ctx))
    }

    /// The same, and forgets a conference in which nobody is any more.
    fn with<T>(
        &mut self,
        moment: Moment,
        id: ConferenceId,
        work: impl FnOnce(&mut Conference, &mut Context<'_>) -> T,
    ) -> Option<T> {
        let result = self.within(moment, id, work)?;
        let conference = self.conferences.get(&id)?;
        if conference.is_idle(self.topology.place.node) && !conference.is_ended {
            self.conferences.remove(&id);
        }
        Some(result)
    }

    fn make(&mut self, moment: Moment, id: ConferenceId, root: NodeId) -> bool {
        if self.conferences.contains_key(&id) {
            return true;
        }
        if self.conferences.len() >= CONFERENCES_BOUND {
            // Those that are over are the first to be forgotten.
            let over = self.conferences.values().find(|one| one.is_ended);
            let Some(over) = over.map(|one| one.id) else {
                return false;
            };
            self.conferences.remove(&over);
        }
        let entries = self.stored.remove(&id).unwrap_or_default();
        let is_root = root == self.topology.place.node;
        self.conferences.insert(id, Conference::new(id, root));
        self.within(moment, id, |conference, ctx| {
            if is_root {
                conference.open_epoch(ctx);
            }
            conference.restore(ctx, entries);
        });
        true
    }

    /// Opens a conference of which this node is the root. A conference is also made by whoever joins it.
    pub fn open(&mut self, moment: Moment, id: ConferenceId) -> bool {
        self.make(moment, id, self.topology.place.node)
    }

    /// A client joins a conference, whose root its token names.
    pub fn join(
        &mut self,
        moment: Moment,
        id: ConferenceId,
        root: NodeId,
        newcomer: Newcomer,
    ) -> Result<Session, Denied> {
        if id == ConferenceId::TOPOLOGY || !self.make(moment, id, root) {
            return Err(Denied::Full);
        }
        self.sessions += 1;
        let number = self.sessions;
        let level = self.topology.place.level;
        self.with(moment, id, |conference, ctx| {
            conference.join(ctx, number, newcomer, level)
        })
        .unwrap_or(Err(Denied::Full))
    }

    fn client<T>(
        &mut self,
        moment: Moment,
        id: ConferenceId,
        work: impl FnOnce(&mut Conference, &mut Context<'_>) -> Result<T, Denied>,
    ) -> Result<T, Denied> {
        self.with(moment, id, work)
            .unwrap_or(Err(Denied::NoSession))
    }

    /// A client leaves.
    pub fn leave(
        &mut self,
        moment: Moment,
        id: ConferenceId,
        session: Session,
    ) -> Result<(), Denied> {
        self.client(moment, id, |one, ctx| one.leave(ctx, session))
    }

    /// What a client publishes from now on.
    pub fn set_tracks(
        &mut self,
        moment: Moment,
        id: ConferenceId,
        session: Session,
        tracks: Vec<TrackInfo>,
    ) -> Result<(), Denied> {
        self.client(moment, id, |one, ctx| one.set_tracks(ctx, session, tracks))
    }

    /// A client opens or closes its own microphone.
    pub fn set_microphone(
        &mut self,
        moment: Moment,
        id: ConferenceId,
        session: Session,
        is_open: bool,
    ) -> Result<(), Denied> {
        self.client(moment, id, |one, ctx| {
            one.set_microphone(ctx, session, is_open)
        })
    }

    /// A client does something to the conference; it takes effect where the epoch's root is.
    pub fn act(
        &mut self,
        moment: Moment,
        id: ConferenceId,
        session: Session,
        deed: Deed,
    ) -> Result<ActId, Denied> {
        self.acts += 1;
        let act = ActId {
            node: self.topology.place.node,
            incarnation: self.incarnation,
            number: self.acts,
        };
        self.client(moment, id, |one, ctx| one.act(ctx, session, act, deed))?;
        Ok(act)
    }

    /// A client wants a track of another, or no longer.
    pub fn want(
        &mut self,
        moment: Moment,
        id: ConferenceId,
        session: Session,
        track: TrackId,
        quality: Option<Quality>,
    ) -> Result<(), Denied> {
        self.client(moment, id, |one, ctx| {
            one.want(ctx, session, track, quality)
        })
    }

    /// What all clients here together want of a track of another node, where whoever joins them to the
    /// core knows better than each of them; or no longer.
    pub fn want_here(
        &mut self,
        moment: Moment,
        id: ConferenceId,
        track: TrackId,
        quality: Option<Quality>,
    ) {
        self.with(moment, id, |one, ctx| one.want_here(ctx, track, quality));
    }

    /// A client needs a keyframe.
    pub fn ask_keyframe(
        &mut self,
        moment: Moment,
        id: ConferenceId,
        track: TrackId,
        layer: Quality,
    ) {
        self.with(moment, id, |one, ctx| one.keyframe_asked(ctx, track, layer));
    }

    /// A keyframe of a track has come, from a client or over a line.
    pub fn keyframe_came(&mut self, id: ConferenceId, track: TrackId, layer: Quality) {
        let is_here = track.session.node == self.topology.place.node;
        if let Some(conference) = self.conferences.get_mut(&id) {
            conference.wishes.keyframe_came(track, layer, is_here);
        }
    }

    /// How loud a client is now, in dB below full scale (RFC 6464).
    pub fn loudness(&mut self, moment: Moment, id: ConferenceId, session: Session, level: u8) {
        self.with(moment, id, |one, ctx| one.loudness(ctx, session, level));
    }

    /// Something authenticated came on a line's media connection.
    pub fn heard_media(&mut self, moment: Moment, from: NodeId) {
        if let Some(line) = self.lines.get_mut(&from) {
            line.heard_media(moment.now);
        }
    }

    /// A line's media connection is silent or gone: that need not be waited for.
    pub fn lost_media(&mut self, moment: Moment, from: NodeId) {
        let change = self
            .lines
            .get_mut(&from)
            .and_then(|line| line.lost_media(moment.now));
        if let Some(change) = change {
            self.line_changed(moment, from, change);
        }
    }

    /// From now on a neighbour is told this of our end of the media line, at once.
    pub fn say_media(&mut self, moment: Moment, to: NodeId, media: Option<MediaLine>) {
        if let Some(line) = self.lines.get_mut(&to)
            && line.media != media
        {
            line.media = media;
            line.hasten(moment.now);
            self.beat(moment);
        }
    }

    /// An envelope came; its signature was checked.
    pub fn receive(&mut self, moment: Moment, envelope: Envelope) {
        let Envelope {
            from,
            to,
            incarnation,
            to_incarnation,
            number,
            message,
        } = envelope;
        let now = moment.now;
        let Some(line) = self
            .lines
            .get_mut(&from)
            .filter(|_| to == self.topology.place.node)
        else {
            self.out.push_back(Out::Refused(from, Refusal::NoLine));
            return;
        };
        let is_restart = Rule::RestartExposed.holds()
            && line.incarnation.is_some_and(|known| known < incarnation);
        if line.incarnation.is_some_and(|known| incarnation < known) {
            self.out.push_back(Out::Refused(from, Refusal::Stale));
            return;
        }
        let knows_us = to_incarnation == Some(self.incarnation);
        let is_heartbeat = matches!(message, Message::Heartbeat(_));
        let is_batch = matches!(message, Message::Batch(_));
        if !knows_us && !is_heartbeat {
            self.out.push_back(Out::Refused(from, Refusal::Stale));
            return;
        }
        let is_new = line.incarnation != Some(incarnation);
        if !is_batch && !is_new && number <= line.number_heard {
            // A batch has a sequence of its own; of all else only news counts.
            self.out.push_back(Out::Refused(from, Refusal::Stale));
            return;
        }
        if is_new && line.media_told.take().is_some() {
            // What it was before has lost its media line with everything else.
            self.out.push_back(Out::Media(from, incarnation, None));
        }
        let change = line.heard(now, incarnation);
        line.number_heard = line.number_heard.max(number);
        let is_down = line.state() == super::message::LineState::Down;
        if let Some(change) = change {
            self.line_changed(moment, from, change);
        }
        if is_restart {
            for id in self.conference_ids() {
                self.with(moment, id, |conference, ctx| {
                    conference.neighbour_restarted(ctx, from, incarnation);
                });
            }
        }
        match message {
            Message::Heartbeat(beat) => self.heartbeat(moment, from, &beat, knows_us),
            // What comes on a line that is down is sent again when it is up.
            _ if is_down => {}
            Message::Batch(batch) => self.batch(moment, from, incarnation, batch),
            Message::Acknowledge {
                conference,
                stream,
                next,
            } => {
                if conference == ConferenceId::TOPOLOGY {
                    if let Some(channel) = self.topology.channels.get_mut(&from) {
                        channel.acknowledged(stream, next);
                        if channel.role == Role::Leaving && channel.is_idle() {
                            self.topology.channels.remove(&from);
                        }
                    }
                    self.flush_topology(moment, from);
                } else {
                    self.with(moment, conference, |one, ctx| {
                        one.acknowledged(ctx, from, stream, next);
                    });
                }
            }
            Message::Unknown { conference, stream } => {
                if conference == ConferenceId::TOPOLOGY {
                    self.topology_unknown(moment, from, stream);
                } else {
                    self.with(moment, conference, |one, ctx| {
                        one.unknown(ctx, from, stream)
                    });
                }
            }
            Message::Loudness { conference, voices } => {
                self.with(moment, conference, |one, ctx| {
                    one.voices_heard(ctx, from, &voices);
                });
            }
            Message::Keyframe {
                conference,
                track,
                layer,
            } => {
                self.with(moment, conference, |one, ctx| {
                    one.keyframe_asked(ctx, track, layer);
                });
            }
        }
    }

    fn heartbeat(&mut self, moment: Moment, from: NodeId, beat: &Heartbeat, knows_us: bool) {
        let Some(line) = self.lines.get_mut(&from) else {
            return;
        };
        let path = line.path.clone();
        match &beat.media {
            Some(media) if !media.is_sound() => {
                self.out.push_back(Out::Refused(from, Refusal::Media));
            }
            media if *media != line.media_told => {
                line.media_told.clone_from(media);
                let incarnation = line.incarnation.unwrap_or_default();
                self.out
                    .push_back(Out::Media(from, incarnation, media.clone()));
            }
            _ => {}
        }
        let change = line.heartbeat(moment.now, beat, knows_us);
        let is_moved = *path != *line.path;
        if let Some(change) = change {
            self.line_changed(moment, from, change);
        } else if is_moved {
            self.choose_way(moment);
        }
        if self.topology.way == Some(from) {
            for (id, total) in &beat.totals {
                if let Some(conference) = self.conferences.get_mut(id) {
                    conference.total_above = *total;
                }
            }
        }
    }

    fn line_changed(&mut self, moment: Moment, neighbour: NodeId, change: Change) {
        match change {
            Change::Up => {
                self.out.push_back(Out::Line(neighbour, None));
                self.away.remove(&neighbour);
                if let Some(channel) = self.topology.channels.get_mut(&neighbour) {
                    channel.resume();
                    channel.completes &= channel.role != Role::Leaving;
                }
                self.choose_way(moment);
                self.flush_topology(moment, neighbour);
                for id in self.conference_ids() {
                    self.with(moment, id, |one, ctx| one.line_up(ctx, neighbour));
                }
            }
            Change::Down(cause) => {
                self.out.push_back(Out::Line(neighbour, Some(cause)));
                self.away.insert(neighbour, moment.now);
                if let Some(channel) = self.topology.channels.get_mut(&neighbour) {
                    channel.suspend();
                }
                self.choose_way(moment);
                for id in self.conference_ids() {
                    self.with(moment, id, |one, ctx| one.line_down(ctx, neighbour, cause));
                }
            }
        }
    }

    fn choose_way(&mut self, moment: Moment) {
        let before = self.topology.way;
        if !self.topology.choose(moment.now, &self.lines, &*self.seal) {
            return;
        }
        for line in self.lines.values_mut() {
            line.hasten(moment.now);
        }
        self.beat(moment);
        let way = self.topology.way;
        if way != before {
            self.topology_moved(moment);
            for id in self.conference_ids() {
                self.with(moment, id, |one, ctx| one.way_changed(ctx, way));
            }
        }
    }

    // Which nodes there are.

    fn topology_moved(&mut self, moment: Moment) {
        let Some(way) = self.topology.way else { return };
        if let Some(old) = self.topology.up.filter(|old| *old != way)
            && let Some(channel) = self.topology.channels.get_mut(&old)
        {
            channel.role = Role::Leaving;
            channel.restart(new_stream(&self.streams), None);
            channel.completes = false;
            channel.mark(Key::Leave);
            self.flush_topology(moment, old);
        }
        self.topology.up = Some(way);
        let channel = self.topology.channels.entry(way);
        channel.or_insert_with(|| Channel::new(Role::Up)).role = Role::Up;
        self.restart_topology(way, None);
        self.flush_topology(moment, way);
    }

    fn restart_topology(&mut self, way: NodeId, answers: Option<u32>) {
        let nodes: Vec<NodeId> = self.topology.nodes().collect();
        if let Some(channel) = self.topology.channels.get_mut(&way) {
            channel.restart(new_stream(&self.streams), answers);
            if channel.role == Role::Up {
                for node in nodes {
                    channel.mark(Key::Node(node));
                }
            }
        }
    }

    fn topology_unknown(&mut self, moment: Moment, from: NodeId, stream: u32) {
        let Some(channel) = self.topology.channels.get(&from) else {
            return;
        };
        if channel.stream() != stream {
            return;
        }
        if channel.role == Role::Leaving {
            self.topology.channels.remove(&from);
            return;
        }
        self.restart_topology(from, None);
        self.flush_topology(moment, from);
    }

    fn flush_topology(&mut self, moment: Moment, node: NodeId) {
        let now = moment.now;
        let Some(mut channel) = self.topology.channels.remove(&node) else {
            return;
        };
        if !self.lines.get(&node).is_some_and(Line::is_up) || channel.role == Role::Down {
            self.topology.channels.insert(node, channel);
            return;
        }
        let knows_all = now >= self.started + RESYNC_TIME;
        let state = |key: &Key| match key {
            Key::Node(node) => Some(self.topology.item(*node)),
            Key::Leave => Some(Item::Leave),
            _ => None,
        };
        let root = self.topology.place.node;
        let is_complete = knows_all && channel.role == Role::Up;
        let batches = channel.flush(now, ConferenceId::TOPOLOGY, root, None, is_complete, state);
        for batch in batches {
            self.out.push_back(Out::Send(node, Message::Batch(batch)));
        }
        let timer = Timer::Channel(ConferenceId::TOPOLOGY, node);
        if channel.completes && !knows_all && channel.role == Role::Up {
            self.timers.push(self.started + RESYNC_TIME, timer);
        }
        if let Some(at) = channel.deadline()
            && !channel.is_armed
        {
            channel.is_armed = true;
            self.timers.push(at, timer);
        }
        self.topology.channels.insert(node, channel);
    }

    fn node_changed(&mut self, nodes: impl IntoIterator<Item = NodeId>) {
        let up = self.topology.up;
        if let Some(channel) = up.and_then(|up| self.topology.channels.get_mut(&up)) {
            for node in nodes {
                channel.mark(Key::Node(node));
            }
        }
    }

    fn topology_lost(&mut self, neighbour: NodeId) {
        let swept = self.topology.sweep(neighbour, None);
        self.topology.channels.remove(&neighbour);
        if self.topology.up == Some(neighbour) {
            self.topology.up = None;
        }
        self.away.remove(&neighbour);
        self.node_changed(swept);
    }

    fn topology_batch(
        &mut self,
        moment: Moment,
        from: NodeId,
        incarnation: Incarnation,
        batch: Batch,
    ) {
        let conference = ConferenceId::TOPOLOGY;
        let stream = batch.stream;
        let begins = matches!(batch.items.first(), Some(Item::Begin { .. }));
        if !self.topology.channels.contains_key(&from) {
            if !begins {
                let unknown = Message::Unknown { conference, stream };
                self.out.push_back(Out::Send(from, unknown));
                return;
            }
            self.topology
                .channels
                .insert(from, Channel::new(Role::Down));
        }
        let Some(channel) = self.topology.channels.get_mut(&from) else {
            return;
        };
        if channel.role != Role::Down {
            // Our way up takes us for its own: a ring, in which one is about to give up.
            self.out.push_back(Out::Refused(from, Refusal::NotTheirs));
            if channel.role == Role::Leaving {
                channel.role = Role::Down;
                channel.restart(new_stream(&self.streams), None);
            }
            return;
        }
        let mut changed = Vec::new();
        match channel.arrive(incarnation, batch) {
            Arrival::Unknown => {
                let unknown = Message::Unknown { conference, stream };
                self.out.push_back(Out::Send(from, unknown));
                return;
            }
            Arrival::Stale => {
                self.out.push_back(Out::Refused(from, Refusal::Stale));
                return;
            }
            Arrival::Again => {}
            Arrival::Apply(batches) => {
                let generation = channel.generation;
                for item in batches.iter().flat_map(|batch| batch.items.iter()) {
                    let is_fit = item.is_within_bounds() && item.direction() != Direction::Down;
                    match item {
                        Item::Node { announcement, hops } if is_fit && hops.len() <= HOPS_BOUND => {
                            let node = announcement.place.node;
                            let (announcement, hops) = (announcement.clone(), hops.clone());
                            let seal = &*self.seal;
                            match self.topology.announced(
                                from,
                                generation,
                                announcement,
                                hops,
                                seal,
                            ) {
                                Ok(true) => changed.push(node),
                                Ok(false) => {}
                                Err(why) => {
                                    let why = Refusal::Announcement(why);
                                    self.out.push_back(Out::Refused(from, why));
                                    if self.topology.gone(from, node) {
                                        changed.push(node);
                                    }
                                }
                            }
                        }
                        Item::NodeGone(node) => {
                            if self.topology.gone(from, *node) {
                                changed.push(*node);
                            }
                        }
                        Item::Complete => {
                            changed.extend(self.topology.sweep(from, Some(generation)))
                        }
                        Item::Leave => {
                            changed.extend(self.topology.sweep(from, None));
                        }
                        Item::Begin { .. } => {}
                        _ => self.out.push_back(Out::Refused(from, Refusal::NotTheirs)),
                    }
                }
            }
        }
        if let Some(channel) = self.topology.channels.get_mut(&from)
            && let Some((stream, next)) = channel.acknowledgement()
        {
            let acknowledge = Message::Acknowledge {
                conference,
                stream,
                next,
            };
            self.out.push_back(Out::Send(from, acknowledge));
        }
        if !changed.is_empty() {
            self.node_changed(changed);
            if let Some(up) = self.topology.up {
                self.flush_topology(moment, up);
            }
            for id in self.conference_ids() {
                self.with(moment, id, |one, ctx| {
                    one.refresh_all(ctx);
                    one.flush(ctx);
                });
            }
        }
    }

    fn batch(&mut self, moment: Moment, from: NodeId, incarnation: Incarnation, batch: Batch) {
        let id = batch.conference;
        if id == ConferenceId::TOPOLOGY {
            self.topology_batch(moment, from, incarnation, batch);
            return;
        }
        if !self.conferences.contains_key(&id) {
            let (stream, conference) = (batch.stream, id);
            let root = match batch.items.first() {
                Some(Item::Begin { root, .. }) => Some(*root),
                _ => None,
            };
            if root.is_none_or(|root| !self.make(moment, id, root)) {
                let unknown = Message::Unknown { conference, stream };
                self.out.push_back(Out::Send(from, unknown));
                return;
            }
        }
        self.with(moment, id, |one, ctx| {
            one.receive(ctx, from, incarnation, batch)
        });
    }

    // Time.

    /// When it wants to be woken.
    pub fn next_timeout(&self) -> Time {
        self.timers.next().unwrap_or(Time(u64::MAX))
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, moment: Moment) {
        while let Some(timer) = self.timers.pop(moment.now) {
            match timer {
                Timer::Tick => self.tick(moment),
                Timer::Channel(ConferenceId::TOPOLOGY, node) => {
                    if let Some(channel) = self.topology.channels.get_mut(&node) {
                        channel.is_armed = false;
                        self.flush_topology(moment, node);
                    }
                }
                Timer::Channel(id, node) => {
                    self.with(moment, id, |one, ctx| one.repeat(ctx, node));
                }
                Timer::Grace(id) => {
                    self.with(moment, id, Conference::grace_over);
                }
                Timer::Voices(id) => {
                    self.with(moment, id, Conference::report_voices);
                }
                Timer::Keyframes(id) => {
                    self.with(moment, id, Conference::repeat_keyframes);
                }
                Timer::Away(id) => {
                    self.with(moment, id, Conference::expire_away);
                }
                Timer::Restarted(id, node) => {
                    self.with(moment, id, |one, ctx| one.restart_over(ctx, node));
                }
                Timer::Linger(id) => {
                    self.with(moment, id, Conference::linger_over);
                }
            }
        }
    }

    fn tick(&mut self, moment: Moment) {
        let now = moment.now;
        self.timers.push(now + TICK, Timer::Tick);
        let looked = self.lines.iter_mut();
        let changes: Vec<(NodeId, Change)> = looked
            .filter_map(|(node, line)| Some((*node, line.look(now)?)))
            .collect();
        for (node, change) in changes {
            self.line_changed(moment, node, change);
        }
        self.choose_way(moment);
        let gone = self
            .away
            .iter()
            .filter(|(_, since)| now.since(**since) >= AWAY_TIME);
        let gone: Vec<NodeId> = gone.map(|(node, _)| *node).collect();
        for node in gone {
            self.away.remove(&node);
            if self.topology.up != Some(node) {
                self.topology_lost(node);
            }
            if let Some(up) = self.topology.up {
                self.flush_topology(moment, up);
            }
        }
        if now.since(self.strangers_sought) >= STRANGERS_INTERVAL {
            self.strangers_sought = now;
            self.part_from_strangers(moment);
        }
        self.beat(moment);
    }

    /// Whoever has another way up is no longer below us, also if it forgot to say so.
    fn part_from_strangers(&mut self, moment: Moment) {
        let me = self.topology.place.node;
        let is_below =
            |channel: Option<&Channel>| channel.is_some_and(|one| one.role == Role::Down);
        let mut gone = Vec::new();
        for (node, line) in &self.lines {
            let is_child = line.is_way(me);
            if !line.is_up() || is_child || line.path.is_empty() {
                self.strangers.remove(node);
                continue;
            }
            let is_known = is_below(self.topology.channels.get(node))
                || self
                    .conferences
                    .values()
                    .any(|one| is_below(one.channels.get(node)));
            if is_known {
                let since = *self.strangers.entry(*node).or_insert(moment.now);
                if moment.now.since(since) >= STRANGER_AFTER {
                    gone.push(*node);
                }
            }
        }
        for node in gone {
            self.strangers.remove(&node);
            if is_below(self.topology.channels.get(&node)) {
                self.topology_lost(node);
                if let Some(up) = self.topology.up {
                    self.flush_topology(moment, up);
                }
            }
            for id in self.conference_ids() {
                self.with(moment, id, |one, ctx| one.part_from(ctx, node));
            }
        }
    }

    /// Sends the heartbeats that are due.
    fn beat(&mut self, moment: Moment) {
        for (node, line) in &mut self.lines {
            if !line.heartbeat_is_due(moment.now) {
                continue;
            }
            let is_below = |one: &&Conference| {
                let channel = one.channels.get(node);
                channel.is_some_and(|channel| channel.role == Role::Down)
            };
            let below = self.conferences.values().filter(is_below);
            let totals = below.take(TOTALS_BOUND).map(|one| (one.id, one.total()));
            let beat = Heartbeat {
                version: PROTOCOL,
                oldest: PROTOCOL_OLDEST,
                state: line.state(),
                path: self.topology.path.clone(),
                totals: totals.collect(),
                media: line.media.clone(),
            };
            self.out
                .push_back(Out::Send(*node, Message::Heartbeat(Box::new(beat))));
        }
    }

    /// What is to be done, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        loop {
            return Some(match self.out.pop_front()? {
                Out::Send(to, message) => {
                    let Some(line) = self.lines.get_mut(&to) else {
                        continue;
                    };
                    line.number_sent += 1;
                    Output::Send(Envelope {
                        from: self.topology.place.node,
                        to,
                        incarnation: self.incarnation,
                        to_incarnation: line.incarnation,
                        number: line.number_sent,
                        message,
                    })
                }
                Out::Forward(conference, track, to, layer) => Output::Forward {
                    conference,
                    track,
                    to,
                    layer,
                },
                Out::Layers(conference, track, layer) => Output::Layers {
                    conference,
                    track,
                    layer,
                },
                Out::AskKeyframe(conference, track, layer) => Output::AskKeyframe {
                    conference,
                    track,
                    layer,
                },
                Out::Event(conference, event) => Output::Event { conference, event },
                Out::Line(neighbour, cause) => Output::Line { neighbour, cause },
                Out::Neighbour(neighbour, is_there) => Output::Neighbour {
                    neighbour,
                    is_there,
                },
                Out::Media(neighbour, incarnation, media) => Output::Media {
                    neighbour,
                    incarnation,
                    media,
                },
                Out::Log(conference, entry) => Output::Log { conference, entry },
                Out::Refused(from, why) => Output::Refused { from, why },
            });
        }
    }
}
