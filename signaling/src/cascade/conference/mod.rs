//! One conference at one node: who is below, who is on stage, who is heard, what is wanted.
//!
//! Upwards goes what is below (people, what they do), downwards what the root of the epoch decided
//! (stage, speakers, what was taken from whom), and wishes go to where tracks come from. A node whose
//! way up is lost decides itself, in an epoch of its own, until it is told everything again.
//!
//! Invariants:
//! - A neighbour speaks only for people at nodes that are below it.
//! - Nobody is taken off the roster because somebody else does not know of them: only because who
//!   spoke for them said that they left, said everything and not them, or was away for too long.
//! - What closes a microphone is never undone by what had not seen it.

mod media;
mod people;
mod stage;
mod telling;
mod way;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::cascade::channel::{Arrival, Channel, Role};
use crate::cascade::identity::{
    ConferenceId, Epoch, Identity, Incarnation, Level, NodeId, OrganisationId, Quality, Session,
    Source, TEXT_BOUND, Time, TrackId,
};
use crate::cascade::line::Cause;
use crate::cascade::message::{
    AWAY_BOUND, Act, ActId, Batch, CHAT_BOUND, Deed, Direction, HEARD_BOUND, Item, Key, LogEntry,
    Message, Participant, Rights, STAGE_BOUND, Speakers, TRACKS_BOUND, TrackInfo, Voice,
};
use crate::cascade::node::{Context, Event, Out, Refusal, Timer, Why};
use crate::cascade::roster::{Claim, PEOPLE_BOUND, Roster};
use crate::cascade::rule::Rule;
use crate::cascade::speaker::{REPORT_INTERVAL, TAKEOVER_MARGIN, Voices};
use crate::cascade::wishes::{Change, KEYFRAME_REPEAT, Upstream, Wishes};

/// How long a branch whose way up has restarted waits for it before it goes on alone. A killed
/// process that is back at once does not make an epoch.
pub const RESTART_GRACE: Duration = Duration::from_millis(1500);

/// How long a branch waits for a parent that is there but does not know the epoch.
pub const EPOCH_WAIT: Duration = Duration::from_millis(2500);

/// How long after its start a node does not say that somebody is not there: those below have yet to
/// find it again. Longer than a line takes to be noticed and made anew.
pub const RESYNC_TIME: Duration = Duration::from_secs(6);

/// How long the people of a branch that is cut off stay on the roster above. Longer keeps their places
/// over a long outage; shorter shows sooner who is really there.
pub const AWAY_TIME: Duration = Duration::from_secs(60);

/// Acts that wait for a way up or an epoch.
const WAITING_BOUND: usize = 256;

/// Entries of one conference's log.
pub const LOG_BOUND: usize = 100_000;

/// The loudest that the open floor puts on stage at a time.
pub const FLOOR_BOUND: usize = 8;

/// How long who was put on stage by the open floor stays after the last word, if the place is needed.
const FLOOR_KEEP: Duration = Duration::from_secs(5);

/// The viewer that stands for all people of this node, who hear whoever is heard.
const EVERYBODY: u32 = 0;

/// The viewer that stands for the room here, where wishes are told for all its clients together.
const ROOM: u32 = u32::MAX;

/// Who wants to join, as its verified token says.
#[derive(Clone, Debug)]
pub struct Newcomer {
    /// By which the conference tells its people apart.
    pub identity: Identity,
    /// As shown.
    pub name: Arc<str>,
    /// Of the person.
    pub organisation: OrganisationId,
    /// The branch of which the grant makes it a chair.
    pub chair_of: Option<NodeId>,
}

/// Why somebody can't join or do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The conference is over.
    #[error("the conference is over")]
    Ended,
    /// There are as many as there may be.
    #[error("the conference is full")]
    Full,
    /// A name or text is too long, or there are too many tracks.
    #[error("more than the conference takes")]
    TooMuch,
    /// That session is not, or no longer, at this node.
    #[error("the session is over")]
    NoSession,
    /// A chair has taken the right.
    #[error("the chair has taken this right")]
    NotAllowed,
}

/// What was taken from somebody, and which of its stays are over.
#[derive(Clone, Debug, Default, PartialEq)]
struct Authority {
    rights: Rights,
    removed: Option<Session>,
    replaced: Option<Session>,
}

/// What the root of an epoch decides.
#[derive(Debug, Default)]
struct Own {
    /// In the order in which they came. Somebody who is not there keeps the place.
    stage: Vec<Identity>,
    is_floor_open: bool,
    /// Those whom the open floor put on stage, and when they last spoke.
    by_floor: BTreeMap<Identity, Time>,
}

/// One conference at one node.
pub(crate) struct Conference {
    pub(crate) id: ConferenceId,
    pub(crate) root: NodeId,
    pub(crate) is_ended: bool,
    epoch: Option<Epoch>,
    epochs_opened: u32,
    own: Option<Own>,
    /// The neighbour that is our way up, and whether all that it knows has been told since it is.
    up: Option<NodeId>,
    is_confirmed: bool,
    /// The epoch that the way up has told, to be entered when it has told everything.
    offered: Option<Epoch>,
    /// The newest epoch of each root that was heard of.
    newest: BTreeMap<NodeId, u64>,
    /// When to go on alone.
    grace: Option<Time>,
    pub(crate) roster: Roster,
    authority: BTreeMap<Identity, Authority>,
    /// The stage as the way up tells it.
    told_stage: BTreeMap<Identity, (u32, Arc<Participant>)>,
    told_speakers: Arc<Speakers>,
    told_generation: u32,
    /// The stage as it is shown here and told below.
    stage: BTreeMap<Identity, Arc<Participant>>,
    pub(crate) speakers: Arc<Speakers>,
    voices: Voices,
    is_listening: bool,
    pub(crate) wishes: Wishes,
    is_watching_keyframes: bool,
    heard_wanted: BTreeSet<TrackId>,
    sessions: BTreeMap<u32, Identity>,
    log: BTreeMap<(NodeId, u64), Arc<LogEntry>>,
    log_number: u64,
    /// Of each node the last act that took effect.
    done: BTreeMap<NodeId, (Incarnation, u32)>,
    waiting: Vec<Arc<Act>>,
    /// Branches that can't be reached: our own children since when, and what children say.
    away: BTreeMap<NodeId, Time>,
    away_below: BTreeMap<NodeId, Vec<NodeId>>,
    pub(crate) channels: BTreeMap<NodeId, Channel>,
    /// Children that have told everything since their line was last up.
    steady: BTreeSet<NodeId>,
    touched: Vec<NodeId>,
    /// How many there are in all, as the way up says.
    pub(crate) total_above: u32,
}

impl Conference {
    pub(crate) fn new(id: ConferenceId, root: NodeId) -> Conference {
        Conference {
            id,
            root,
            is_ended: false,
            epoch: None,
            epochs_opened: 0,
            own: None,
            up: None,
            is_confirmed: false,
            offered: None,
            newest: BTreeMap::new(),
            grace: None,
            roster: Roster::default(),
            authority: BTreeMap::new(),
            told_stage: BTreeMap::new(),
            told_speakers: Arc::default(),
            told_generation: 0,
            stage: BTreeMap::new(),
            speakers: Arc::default(),
            voices: Voices::default(),
            is_listening: false,
            wishes: Wishes::default(),
            is_watching_keyframes: false,
            heard_wanted: BTreeSet::new(),
            sessions: BTreeMap::new(),
            log: BTreeMap::new(),
            log_number: 0,
            done: BTreeMap::new(),
            waiting: Vec::new(),
            away: BTreeMap::new(),
            away_below: BTreeMap::new(),
            channels: BTreeMap::new(),
            steady: BTreeSet::new(),
            touched: Vec::new(),
            total_above: 0,
        }
    }

    pub(crate) fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    pub(crate) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    pub(crate) fn stage(&self) -> &BTreeMap<Identity, Arc<Participant>> {
        &self.stage
    }

    pub(crate) fn log(&self) -> impl Iterator<Item = &Arc<LogEntry>> {
        self.log.values()
    }

    pub(crate) fn sessions(&self) -> &BTreeMap<u32, Identity> {
        &self.sessions
    }

    pub(crate) fn away(&self) -> Vec<NodeId> {
        let below = self.away_below.values().flatten();
        let mut all: Vec<NodeId> = self.away.keys().chain(below).copied().collect();
        all.sort_unstable();
        all.dedup();
        all.truncate(AWAY_BOUND);
        all
    }

    pub(crate) fn total(&self) -> u32 {
        if self.own.is_some() {
            self.roster.len() as u32
        } else {
            self.total_above
        }
    }

    /// What is known to have been taken from somebody.
    pub(crate) fn rights(&self, identity: &Identity) -> Rights {
        let of = |one: &Authority| one.rights.clone();
        self.authority.get(identity).map(of).unwrap_or_default()
    }

    /// Nothing is left to do here.
    pub(crate) fn is_idle(&self, me: NodeId) -> bool {
        self.root != me && self.channels.is_empty() && self.sessions.is_empty()
    }

    fn children(&self) -> Vec<NodeId> {
        let all = self.channels.iter();
        all.filter(|(_, channel)| channel.role == Role::Down)
            .map(|(node, _)| *node)
            .collect()
    }

    fn mark(&mut self, node: NodeId, key: Key) {
        if let Some(channel) = self.channels.get_mut(&node)
            && channel.role != Role::Leaving
        {
            channel.mark(key);
            self.touch(node);
        }
    }

    fn touch(&mut self, node: NodeId) {
        if let Some(channel) = self.channels.get_mut(&node)
            && !channel.is_touched
        {
            channel.is_touched = true;
            self.touched.push(node);
        }
    }

    fn mark_up(&mut self, key: Key) {
        if let Some(up) = self.up {
            self.mark(up, key);
        }
    }

    fn mark_down(&mut self, key: &Key) {
        for (node, channel) in &mut self.channels {
            if channel.role == Role::Down {
                channel.mark(key.clone());
                if !channel.is_touched {
                    channel.is_touched = true;
                    self.touched.push(*node);
                }
            }
        }
    }

    fn tell(&self, ctx: &mut Context<'_>, event: Event) {
        ctx.out.push_back(Out::Event(self.id, event));
    }
}
