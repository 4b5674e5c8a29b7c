//! The carrier: nodes, the lines between them, and what is under way, by the virtual millisecond.
//!
//! A message on a line is lost or comes after the line's delay and some more; media is only whether it
//! comes, and which track and layer is sent on. All that nodes do is handed to the oracle's notes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use signaling::cascade::seal::Seal;
use signaling::cascade::{
    ConferenceId, Deed, Envelope, Event, Identity, Incarnation, Item, LogEntry, MESSAGE_BOUND,
    MediaLine, Message, Moment, Newcomer, Node, NodeConfig, NodeId, OrganisationId, Output, Place,
    Quality, Register, Session, Time, TrackId, Why,
};

use super::tree::Shape;

/// Milliseconds between looks at lines that carry media but no control.
const MEDIA_PULSE: u64 = 250;

/// How long an encoder takes to make a keyframe, in milliseconds.
const ENCODER: u64 = 40;

/// How many milliseconds ahead are kept one by one.
const WHEEL: usize = 8192;

/// Signs nothing and believes everything: the carrier of a simulation forges nothing.
struct Trusting;

impl Seal for Trusting {
    fn sign(&self, _: &[u8]) -> Vec<u8> {
        Vec::new()
    }

    fn is_signed_by(&self, _: NodeId, _: &[u8], _: &[u8]) -> bool {
        true
    }
}

/// A line's state, from its upper end (0) or from its lower end (1).
#[derive(Clone, Debug)]
pub(crate) struct Link {
    /// Upper and lower end.
    pub(crate) ends: [usize; 2],
    /// Whether control sent by each end arrives.
    pub(crate) control: [bool; 2],
    /// Whether media sent by each end arrives.
    pub(crate) media: [bool; 2],
    /// Part of the messages that is lost.
    pub(crate) loss: f64,
    /// One way, in milliseconds.
    pub(crate) delay: u64,
    /// Of control, sent by each end.
    pub(crate) bytes: [u64; 2],
    /// When it last changed.
    pub(crate) changed: u64,
}

impl Link {
    /// Whether everything gets through, but for some loss.
    pub(crate) fn is_whole(&self) -> bool {
        self.control == [true; 2] && self.media == [true; 2] && self.loss < 0.1
    }
}

/// A node's place, whether it runs, and its file.
pub(crate) struct Slot {
    /// `None`: killed.
    pub(crate) node: Option<Box<Node>>,
    /// When it last started or was killed.
    pub(crate) changed: u64,
    incarnation: Incarnation,
    logs: BTreeMap<ConferenceId, (NodeId, Vec<Arc<LogEntry>>)>,
    links: BTreeMap<usize, usize>,
    scheduled: u64,
    /// How wrong its clock is, in milliseconds.
    skew: i64,
}

/// Something under way.
enum Coming {
    Message(usize, Box<Envelope>),
    Wake(usize),
    Picture(usize, ConferenceId, TrackId, Quality),
    MediaPulse,
}

/// What happened to clients, for the script.
#[derive(Clone, Debug)]
pub(crate) enum Notice {
    /// The stage or the speakers have changed at a node.
    Shown(usize, ConferenceId),
    /// A client's stay is over.
    Over(ConferenceId, Session, Why),
}

/// The nodes and what is between them.
pub(crate) struct World {
    /// Virtual milliseconds.
    pub(crate) now: u64,
    /// By their place in the shape.
    pub(crate) slots: Vec<Slot>,
    shape: Shape,
    /// All lines.
    pub(crate) links: Vec<Link>,
    /// Of all lots.
    pub(crate) rng: StdRng,
    wheel: VecDeque<Vec<Coming>>,
    later: BTreeMap<u64, Vec<Coming>>,
    /// Part of messages that come twice, and that are late.
    pub(crate) unruly: f64,
    /// For the script.
    pub(crate) notices: Vec<Notice>,
    /// What neighbours were heard to say of media lines: by whom, of whom.
    pub(crate) media: Vec<(usize, usize, Option<MediaLine>)>,
    /// What happened, by name.
    pub(crate) counts: BTreeMap<&'static str, u64>,
    /// How often each invariant was checked.
    pub(crate) checked: BTreeMap<&'static str, u64>,
    violation: Option<String>,
    conferences: BTreeMap<ConferenceId, NodeId>,
    /// When each layer's keyframe was last asked of its encoder.
    keyframes: BTreeMap<(TrackId, Quality), u64>,
    /// Who waits for a first picture of what, and since when.
    pub(crate) waiting: BTreeMap<(usize, TrackId), u64>,
    /// The longest that anybody waited, where nothing was in the way.
    pub(crate) longest_wait: u64,
    /// The line on which the next so many keyframe requests are lost.
    pub(crate) keyframes_lost_on: Option<(usize, u32)>,
    chats: BTreeMap<(usize, ConferenceId, signaling::cascade::Epoch), u64>,
    /// Each closing of a microphone that took effect.
    pub(crate) closings: BTreeMap<(ConferenceId, Identity), Vec<Register>>,
    /// What was seen by who last opened its microphone.
    pub(crate) openings: BTreeMap<(ConferenceId, Identity), Register>,
    /// Somebody of whom all messages are counted, and those that were.
    pub(crate) watched: Option<(Identity, BTreeSet<Told>)>,
}

/// A message: between which places, in which stream, and its number there.
type Told = (usize, usize, u32, u64);

/// The id of a node by its place.
pub(crate) fn node_id(at: usize) -> NodeId {
    NodeId(at as u128 + 1)
}

/// The place of a node by its id.
pub(crate) fn place_of(node: NodeId) -> usize {
    node.0 as usize - 1
}

impl World {
    /// All nodes started, none of their lines up yet.
    pub(crate) fn new(shape: &Shape, seed: u64) -> World {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut links = Vec::new();
        let mut slots: Vec<Slot> = Vec::new();
        for _ in &shape.spots {
            slots.push(Slot {
                node: None,
                changed: 0,
                incarnation: 0,
                logs: BTreeMap::new(),
                links: BTreeMap::new(),
                scheduled: u64::MAX,
                skew: rng.random_range(-120_000..120_000),
            });
        }
        for (at, spot) in shape.spots.iter().enumerate() {
            for other in spot.ways.iter().chain(&spot.siblings) {
                if slots[at].links.contains_key(other) {
                    continue;
                }
                slots[at].links.insert(*other, links.len());
                slots[*other].links.insert(at, links.len());
                links.push(Link {
                    ends: [*other, at],
                    control: [true; 2],
                    media: [true; 2],
                    loss: 0.005,
                    delay: rng.random_range(4..25),
                    bytes: [0; 2],
                    changed: 0,
                });
            }
        }
        let mut world = World {
            now: 0,
            slots,
            shape: shape.clone(),
            links,
            rng,
            wheel: (0..WHEEL).map(|_| Vec::new()).collect(),
            later: BTreeMap::new(),
            unruly: 0.0,
            notices: Vec::new(),
            media: Vec::new(),
            counts: BTreeMap::new(),
            checked: BTreeMap::new(),
            violation: None,
            conferences: BTreeMap::new(),
            keyframes: BTreeMap::new(),
            waiting: BTreeMap::new(),
            longest_wait: 0,
            keyframes_lost_on: None,
            chats: BTreeMap::new(),
            closings: BTreeMap::new(),
            openings: BTreeMap::new(),
            watched: None,
        };
        for at in 0..world.slots.len() {
            world.start(at);
        }
        world.push(MEDIA_PULSE, Coming::MediaPulse);
        world
    }

    /// How many lines there are.
    pub(crate) fn line_count(&self) -> usize {
        self.links.len()
    }

    /// The first violation.
    pub(crate) fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    /// Something is not as promised.
    pub(crate) fn violated(&mut self, what: String) {
        let at = self.now as f64 / 1000.0;
        self.violation
            .get_or_insert_with(|| format!("{at:.3} s: {what}"));
    }

    /// Something happened once more.
    pub(crate) fn note(&mut self, what: &'static str) {
        *self.counts.entry(what).or_insert(0) += 1;
    }

    /// An invariant was checked so many times.
    pub(crate) fn check(&mut self, what: &'static str, times: usize) {
        *self.checked.entry(what).or_insert(0) += times as u64;
    }

    /// How often something happened.
    pub(crate) fn count(&self, what: &'static str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }

    /// The time as a node sees it.
    pub(crate) fn moment(&self, at: usize) -> Moment {
        let unix_ms = 1_800_000_000_000i64 + self.now as i64 + self.slots[at].skew;
        Moment {
            now: Time(self.now),
            unix_ms: unix_ms as u64,
        }
    }

    /// A node that runs.
    pub(crate) fn node(&self, at: usize) -> Option<&Node> {
        self.slots[at].node.as_deref()
    }

    /// The line between two nodes.
    pub(crate) fn link_between(&self, one: usize, other: usize) -> Option<usize> {
        self.slots[one].links.get(&other).copied()
    }

    /// Starts a node that does not run.
    pub(crate) fn start(&mut self, at: usize) {
        let moment = self.moment(at);
        let id = |at: &usize| node_id(*at);
        let spot = &self.shape.spots[at];
        let slot = &mut self.slots[at];
        slot.incarnation += 1;
        slot.changed = self.now;
        let logs = slot.logs.iter();
        let config = NodeConfig {
            place: Place {
                node: node_id(at),
                level: spot.level,
                organisation: OrganisationId(at as u128 + 1),
            },
            ways: spot.ways.iter().map(id).collect(),
            siblings: spot.siblings.iter().map(id).collect(),
            incarnation: slot.incarnation,
            logs: logs
                .map(|(conference, (root, entries))| (*conference, *root, entries.clone()))
                .collect(),
        };
        let mut node = Node::new(config, Arc::new(Trusting), moment);
        for other in slot.links.keys() {
            node.add_line(moment, node_id(*other));
        }
        slot.node = Some(Box::new(node));
        slot.scheduled = u64::MAX;
        // Not all begin in the same millisecond.
        let at_first = self.now + self.rng.random_range(1..100);
        self.slots[at].scheduled = at_first;
        self.push(at_first, Coming::Wake(at));
    }

    /// Kills a node: what is not in its file is lost.
    pub(crate) fn kill(&mut self, at: usize) {
        self.slots[at].node = None;
        self.slots[at].changed = self.now;
        self.waiting.retain(|(node, _), _| *node != at);
        self.chats.retain(|(node, _, _), _| *node != at);
    }

    fn push(&mut self, at: u64, coming: Coming) {
        let at = at.max(self.now + 1);
        let ahead = (at - self.now) as usize;
        if ahead < WHEEL {
            self.wheel[ahead].push(coming);
        } else {
            self.later.entry(at).or_default().push(coming);
        }
    }

    /// Plays until a time.
    pub(crate) fn run_until(&mut self, end: u64) {
        while self.now < end && self.violation.is_none() {
            self.now += 1;
            let mut due = self.wheel.pop_front().unwrap_or_default();
            let mut next = self.wheel.pop_front().unwrap_or_default();
            due.append(&mut next);
            self.wheel.push_front(Vec::new());
            self.wheel.push_back(Vec::new());
            if let Some(later) = self.later.remove(&self.now) {
                due.extend(later);
            }
            for coming in due {
                self.come(coming);
            }
        }
    }

    fn come(&mut self, coming: Coming) {
        match coming {
            Coming::Message(link, envelope) => {
                let to = place_of(envelope.to);
                let from = place_of(envelope.from);
                let moment = self.moment(to);
                let upper = usize::from(self.links[link].ends[0] != from);
                let has_media = self.links[link].media[upper];
                let Some(node) = self.slots[to].node.as_mut() else {
                    return;
                };
                if has_media {
                    node.heard_media(moment, envelope.from);
                }
                node.receive(moment, *envelope);
                self.settle(to);
            }
            Coming::Wake(at) => {
                if self.slots[at].scheduled != self.now {
                    return;
                }
                self.slots[at].scheduled = u64::MAX;
                let moment = self.moment(at);
                if let Some(node) = self.slots[at].node.as_mut() {
                    node.handle_timeout(moment);
                    self.settle(at);
                }
            }
            Coming::Picture(at, conference, track, layer) => {
                self.picture(at, conference, track, layer)
            }
            Coming::MediaPulse => {
                for link in 0..self.links.len() {
                    for end in 0..2 {
                        let one = &self.links[link];
                        let (from, to) = (one.ends[end], one.ends[1 - end]);
                        // With control comes media, as far as it does; see `Coming::Message`.
                        let is_alone = one.media[end] && (!one.control[end] || one.loss >= 0.1);
                        if is_alone && self.slots[from].node.is_some() {
                            let moment = self.moment(to);
                            if let Some(node) = self.slots[to].node.as_mut() {
                                node.heard_media(moment, node_id(from));
                            }
                        }
                    }
                }
                self.push(self.now + MEDIA_PULSE, Coming::MediaPulse);
            }
        }
    }

    /// A keyframe comes to a node, which sends it on.
    fn picture(&mut self, at: usize, conference: ConferenceId, track: TrackId, layer: Quality) {
        let Some(node) = self.slots[at].node.as_mut() else {
            return;
        };
        node.keyframe_came(conference, track, layer);
        let forwards = node.forwards(conference);
        if let Some(since) = self.waiting.remove(&(at, track)) {
            self.longest_wait = self.longest_wait.max(self.now - since);
            self.note("first pictures");
        }
        for (one, to, quality) in forwards {
            let is_same = one == track && (quality == layer || place_of(track.session.node) != at);
            let to = place_of(to);
            if !is_same {
                continue;
            }
            if let Some(link) = self.link_between(at, to) {
                let end = usize::from(self.links[link].ends[0] != at);
                if self.links[link].media[end] {
                    let when = self.now + self.links[link].delay;
                    self.push(when, Coming::Picture(to, conference, track, layer));
                }
            }
        }
    }

    /// Lets somebody do something at a node, and does what follows.
    pub(crate) fn at<T>(
        &mut self,
        at: usize,
        work: impl FnOnce(&mut Node, Moment) -> T,
    ) -> Option<T> {
        let moment = self.moment(at);
        let node = self.slots[at].node.as_mut()?;
        let result = work(node, moment);
        self.settle(at);
        Some(result)
    }

    /// Somebody joins at a node.
    pub(crate) fn join(
        &mut self,
        at: usize,
        conference: ConferenceId,
        newcomer: Newcomer,
    ) -> Option<Session> {
        let root = *self.conferences.get(&conference)?;
        self.at(at, |node, moment| {
            node.join(moment, conference, root, newcomer)
        })?
        .ok()
    }

    /// Opens a conference at its root.
    pub(crate) fn open(&mut self, at: usize, conference: ConferenceId) {
        self.conferences.insert(conference, node_id(at));
        self.slots[at]
            .logs
            .insert(conference, (node_id(at), Vec::new()));
        self.at(at, |node, moment| node.open(moment, conference));
    }

    fn settle(&mut self, at: usize) {
        while let Some(output) = self.slots[at]
            .node
            .as_mut()
            .and_then(|node| node.poll_output())
        {
            self.follow(at, output);
        }
        if let Some(node) = &self.slots[at].node {
            let next = node.next_timeout().0.max(self.now + 1);
            if next < self.slots[at].scheduled {
                self.slots[at].scheduled = next;
                self.push(next, Coming::Wake(at));
            }
        }
    }

    fn follow(&mut self, at: usize, output: Output) {
        match output {
            Output::Send(envelope) => self.send(at, envelope),
            Output::AskKeyframe {
                conference,
                track,
                layer,
            } => {
                self.note("keyframe requests");
                let last = self.keyframes.insert((track, layer), self.now);
                self.check("keyframe interval", 1);
                let interval = signaling::cascade::KEYFRAME_INTERVAL.as_millis() as u64;
                if last.is_some_and(|last| self.now < last + interval) {
                    self.violated(format!("two keyframes of {track:?} within {interval} ms"));
                }
                self.push(
                    self.now + ENCODER,
                    Coming::Picture(at, conference, track, layer),
                );
            }
            Output::Log { conference, entry } => {
                let root = self
                    .conferences
                    .get(&conference)
                    .copied()
                    .unwrap_or_default();
                if entry.epoch.root == node_id(at) {
                    self.note("acts");
                    if let Deed::Mute(target) = &entry.act.deed
                        && let Some(node) = self.node(at)
                    {
                        let closed = node.rights(conference, target).microphone;
                        let key = (conference, target.clone());
                        self.closings.entry(key).or_default().push(closed);
                    }
                }
                let (_, entries) = self.slots[at]
                    .logs
                    .entry(conference)
                    .or_insert((root, Vec::new()));
                entries.push(entry);
            }
            Output::Event { conference, event } => self.event(at, conference, event),
            Output::Line { cause, .. } => {
                self.note(if cause.is_some() {
                    "lines lost"
                } else {
                    "lines found"
                });
            }
            Output::Refused { .. } => self.note("refused"),
            Output::Forward { .. } => self.note("changes of what is sent on"),
            Output::Media {
                neighbour, media, ..
            } => self.media.push((at, place_of(neighbour), media)),
            Output::Layers { .. } | Output::Neighbour { .. } => {}
        }
    }

    fn event(&mut self, at: usize, conference: ConferenceId, event: Event) {
        match event {
            Event::Staged(_) | Event::OffStage(_) | Event::Speakers(_) => {
                self.notices.push(Notice::Shown(at, conference));
            }
            Event::Over { session, why } => {
                self.notices.push(Notice::Over(conference, session, why))
            }
            Event::Chat(entry) => {
                self.check("chat once and in order", 1);
                let last = self.chats.entry((at, conference, entry.epoch)).or_insert(0);
                let before = std::mem::replace(last, entry.number);
                if before >= entry.number {
                    let number = entry.number;
                    self.violated(format!("node {at} was told entry {number} after {before}"));
                }
            }
            Event::Epoch { .. } => self.note("epochs entered"),
            Event::TrackEnded(track) => {
                self.waiting.remove(&(at, track));
            }
            Event::Rights { .. } | Event::Ended => {}
        }
    }

    fn send(&mut self, at: usize, envelope: Envelope) {
        let to = place_of(envelope.to);
        let Some(link) = self.link_between(at, to) else {
            return;
        };
        let size = envelope.message.size();
        let end = usize::from(self.links[link].ends[0] != at);
        *self.counts.entry("messages").or_insert(0) += 1;
        *self.counts.entry("bytes").or_insert(0) += size as u64;
        self.links[link].bytes[end] += size as u64;
        if let Message::Batch(batch) = &envelope.message {
            self.note("batches");
            self.check("message size", 1);
            if size > MESSAGE_BOUND {
                self.violated(format!("a message of {size} bytes"));
            }
            if let Some((watched, seen)) = &mut self.watched
                && batch.items.iter().any(|item| speaks_of(item, watched))
            {
                seen.insert((at, to, batch.stream, batch.sequence));
            }
        }
        let one = &self.links[link];
        let is_keyframe = matches!(envelope.message, Message::Keyframe { .. });
        let loss = one.loss;
        if is_keyframe
            && let Some((on, left)) = &mut self.keyframes_lost_on
            && *on == link
            && *left > 0
        {
            *left -= 1;
            return;
        }
        if !one.control[end] || self.rng.random_bool(loss) {
            self.note("lost");
            return;
        }
        let delay = one.delay;
        let jitter = self.rng.random_range(0..3);
        if self.unruly > 0.0 && self.rng.random_bool(self.unruly) {
            let late = self.now + delay + self.rng.random_range(0..400);
            self.push(late, Coming::Message(link, Box::new(envelope.clone())));
        }
        let late = if self.unruly > 0.0 && self.rng.random_bool(self.unruly) {
            self.rng.random_range(0..300)
        } else {
            0
        };
        let when = self.now + delay + jitter + late;
        self.push(when, Coming::Message(link, Box::new(envelope)));
    }
}

fn speaks_of(item: &Item, identity: &Identity) -> bool {
    match item {
        Item::Participant(one) | Item::Stage(one) => one.identity == *identity,
        Item::Gone(one) | Item::OffStage(one) => one == identity,
        Item::Authority { identity: one, .. } => one == identity,
        _ => false,
    }
}
