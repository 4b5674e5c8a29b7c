//! What one node tells one neighbour of one conference, reliably: once and in order.
//!
//! A channel is an outbox of states ([`Key`]) and events, of which batches are made, some of which
//! are under way at a time, and the place up to which the neighbour's batches were applied. A state
//! that changes ten times while it waits is told once. While the line is cut the outbox keeps what
//! changed, so that the difference is told when it is back; if either end has forgotten the other
//! meanwhile, a new stream begins, in which everything is told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::identity::{ConferenceId, Epoch, Incarnation, NodeId, Time, TrackId};
use super::message::{Batch, ITEMS_BOUND, Item, Key};
use super::rule::Rule;

/// How long a batch is left before it is sent again. Shorter heals a loss sooner; longer suits lines
/// over satellites, where an answer takes 600 ms and each batch would be sent four times.
pub(crate) const REPEAT_AFTER: Duration = Duration::from_millis(200);

/// The longest pause between two tries of one batch, after it was lost again and again.
pub(crate) const REPEAT_AT_MOST: Duration = Duration::from_millis(800);

/// Batches under way at a time. More fill a long line better; fewer gather more changes in each.
pub(crate) const WINDOW: usize = 8;

/// Batches that came before their turn and are kept for it.
const EARLY_BOUND: usize = 16;

/// How often a batch is left that speaks for a node of which nothing is known yet. More bridges a longer
/// delay of its announcement; who speaks for nodes that are not its own stops its own line for as long.
const PUT_BACKS: u32 = 8;

/// Chat messages and acts that wait for a line, the oldest of which go first.
pub(crate) const EVENTS_BOUND: usize = 512;

/// What the neighbour is to the sender of this conference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Our way up.
    Up,
    /// One below us.
    Down,
    /// Was our way up; it only has to hear that it no longer is.
    Leaving,
}

#[derive(Debug)]
struct Flight {
    sequence: u64,
    items: Arc<[Item]>,
    sent: Time,
    tries: u32,
}

/// One end.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) role: Role,
    /// Ours; 0 before the first.
    stream: u32,
    next: u64,
    flights: VecDeque<Flight>,
    dirty: BTreeSet<Key>,
    events: VecDeque<Item>,
    /// A beginning is still to be sent, answering a stream.
    begins: Option<Option<u32>>,
    /// The neighbour shall hear when everything was told.
    pub(crate) completes: bool,
    /// The neighbour's incarnation and stream, and the number that is awaited.
    heard: Option<(Incarnation, u32, u64)>,
    early: BTreeMap<u64, Batch>,
    put_backs: u32,
    /// Wishes that were taken out when the line was lost. A late copy may still bring them, so that they
    /// are told anew.
    voided: BTreeSet<TrackId>,
    /// It is on the list of those to flush.
    pub(crate) is_touched: bool,
    pub(crate) is_armed: bool,
    /// Counts the neighbour's beginnings; what was said before the present one is swept when all was
    /// said.
    pub(crate) generation: u32,
}

/// What a batch that came leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Apply these, in order; then acknowledge.
    Apply(Vec<Batch>),
    /// Nothing to apply; acknowledge what was applied.
    Again,
    /// Its beginning is not known.
    Unknown,
    /// Of a stream that is over.
    Stale,
}

impl Channel {
    pub(crate) fn new(role: Role) -> Channel {
        Channel {
            role,
            stream: 0,
            next: 0,
            flights: VecDeque::new(),
            dirty: BTreeSet::new(),
            events: VecDeque::new(),
            begins: Some(None),
            completes: true,
            heard: None,
            early: BTreeMap::new(),
            put_backs: 0,
            voided: BTreeSet::new(),
            is_touched: false,
            is_armed: false,
            generation: 0,
        }
    }

    /// Begins anew, as a stream that no channel of this node's incarnation had before: the neighbour may
    /// remember one that is forgotten here. The caller marks everything that it knows.
    pub(crate) fn restart(&mut self, stream: u32, answers: Option<u32>) {
        self.stream = stream;
        self.next = 0;
        self.flights.clear();
        self.dirty.clear();
        self.begins = Some(answers);
        self.completes = true;
    }

    pub(crate) fn mark(&mut self, key: Key) {
        self.dirty.insert(key);
    }

    pub(crate) fn push(&mut self, event: Item) {
        if self.events.len() >= EVENTS_BOUND {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// The line is lost: wishes are void, and what somebody does is taken out, to be done elsewhere.
    pub(crate) fn suspend(&mut self) -> Vec<Arc<super::message::Act>> {
        let mut acts = Vec::new();
        let voided = &mut self.voided;
        let mut keep = |item: &Item| match item {
            Item::Act(act) => {
                acts.push(act.clone());
                false
            }
            Item::Wish { track, .. } => {
                voided.insert(*track);
                false
            }
            _ => true,
        };
        for flight in &mut self.flights {
            if !flight.items.iter().all(&mut keep) {
                let kept = flight
                    .items
                    .iter()
                    .filter(|item| !matches!(item, Item::Act(_) | Item::Wish { .. }));
                flight.items = kept.cloned().collect();
            }
        }
        self.events.retain(keep);
        self.dirty.retain(|key| !matches!(key, Key::Wish(_)));
        if !Rule::DifferenceTold.holds() {
            self.dirty.clear();
        }
        acts
    }

    /// The line is back: what is under way is sent again at once, and then all is told.
    pub(crate) fn resume(&mut self) {
        for flight in &mut self.flights {
            flight.sent = Time(0);
            flight.tries = 0;
        }
        self.completes = true;
        let voided = std::mem::take(&mut self.voided);
        self.dirty.extend(voided.into_iter().map(Key::Wish));
    }

    /// Everything was told and acknowledged.
    pub(crate) fn is_idle(&self) -> bool {
        self.flights.is_empty()
            && self.dirty.is_empty()
            && self.events.is_empty()
            && !self.completes
            && self.begins.is_none()
    }

    pub(crate) fn stream(&self) -> u32 {
        self.stream
    }

    /// The stream of the neighbour's that is listened to.
    pub(crate) fn heard_stream(&self) -> Option<u32> {
        self.heard.map(|(_, stream, _)| stream)
    }

    /// Of the neighbour, when it last began.
    pub(crate) fn heard_incarnation(&self) -> Option<Incarnation> {
        self.heard.map(|(incarnation, _, _)| incarnation)
    }

    /// When a batch under way is due to be sent again.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let due = |flight: &Flight| {
            let wait = REPEAT_AFTER * 2u32.pow(flight.tries.min(4));
            flight.sent + wait.min(REPEAT_AT_MOST)
        };
        self.flights.iter().map(due).min()
    }

    /// The batches to send now: those that are due again, and new ones of what waits. `state` says what
    /// there is to say under a key. `is_complete`: everything that is known has been marked.
    pub(crate) fn flush(
        &mut self,
        now: Time,
        conference: ConferenceId,
        root: NodeId,
        epoch: Option<Epoch>,
        is_complete: bool,
        mut state: impl FnMut(&Key) -> Option<Item>,
    ) -> Vec<Batch> {
        let mut batches = Vec::new();
        let batch = |stream, sequence, items: &Arc<[Item]>| Batch {
            conference,
            epoch,
            stream,
            sequence,
            items: items.clone(),
        };
        for flight in &mut self.flights {
            let wait = REPEAT_AFTER * 2u32.pow(flight.tries.min(4));
            if flight.sent + wait.min(REPEAT_AT_MOST) <= now {
                flight.sent = now;
                flight.tries += 1;
                batches.push(batch(self.stream, flight.sequence, &flight.items));
            }
        }
        // The beginning goes alone: what follows it could overtake it.
        let is_beginning = |flight: &Flight| flight.sequence == 0;
        while self.flights.len() < WINDOW && !self.flights.front().is_some_and(is_beginning) {
            let mut items = Vec::new();
            let mut size = 0;
            if let Some(answers) = self.begins.take() {
                items.push(Item::Begin { root, answers });
            }
            while size < ITEMS_BOUND
                && let Some(key) = self.dirty.pop_first()
            {
                let Some(item) = state(&key) else { continue };
                if size + item.size() > ITEMS_BOUND && size > 0 {
                    self.dirty.insert(key);
                    break;
                }
                size += item.size();
                items.push(item);
            }
            while self.dirty.is_empty()
                && let Some(event) = self.events.front()
                && (size + event.size() <= ITEMS_BOUND || size == 0)
            {
                size += event.size();
                items.extend(self.events.pop_front());
            }
            if self.dirty.is_empty() && self.completes && is_complete {
                self.completes = false;
                items.push(Item::Complete);
            }
            if items.is_empty() {
                break;
            }
            let items: Arc<[Item]> = items.into();
            batches.push(batch(self.stream, self.next, &items));
            self.flights.push_back(Flight {
                sequence: self.next,
                items,
                sent: now,
                tries: 0,
            });
            self.next += 1;
        }
        batches
    }

    /// The neighbour has applied what comes before `next`; those items are handed back.
    pub(crate) fn acknowledged(&mut self, stream: u32, next: u64) -> Vec<Arc<[Item]>> {
        let mut done = Vec::new();
        if stream == self.stream && next <= self.next {
            while self
                .flights
                .front()
                .is_some_and(|flight| flight.sequence < next)
            {
                done.extend(self.flights.pop_front().map(|flight| flight.items));
            }
        }
        done
    }

    /// A batch came.
    pub(crate) fn arrive(&mut self, incarnation: Incarnation, batch: Batch) -> Arrival {
        let begins = matches!(batch.items.first(), Some(Item::Begin { .. }));
        match self.heard {
            Some((heard, stream, _)) if (incarnation, batch.stream) < (heard, stream) => {
                return Arrival::Stale;
            }
            Some((heard, stream, _)) if (incarnation, batch.stream) == (heard, stream) => {}
            _ if batch.sequence == 0 && begins => {
                self.heard = Some((incarnation, batch.stream, 0));
                self.early.clear();
                self.generation += 1;
            }
            // Its beginning has not come yet, but it will: it is not acknowledged.
            Some(_) => return Arrival::Again,
            None => return Arrival::Unknown,
        }
        let Some((_, _, awaited)) = &mut self.heard else {
            return Arrival::Unknown;
        };
        if batch.sequence < *awaited {
            if !Rule::AppliedOnce.holds() {
                return Arrival::Apply(vec![batch]);
            }
            return Arrival::Again;
        }
        if batch.sequence > *awaited {
            if self.early.len() < EARLY_BOUND {
                self.early.insert(batch.sequence, batch);
            }
            return Arrival::Again;
        }
        let mut ready = vec![batch];
        *awaited += 1;
        while let Some(next) = self.early.remove(awaited) {
            ready.push(next);
            *awaited += 1;
        }
        Arrival::Apply(ready)
    }

    /// A batch can't be applied yet: it and what follows shall come again. `false`: it has come often
    /// enough.
    pub(crate) fn put_back(&mut self, sequence: u64) -> bool {
        if self.put_backs >= PUT_BACKS {
            self.put_backs = 0;
            return false;
        }
        self.put_backs += 1;
        if let Some((_, _, awaited)) = &mut self.heard {
            *awaited = sequence;
        }
        self.early.clear();
        true
    }

    /// What to acknowledge: the neighbour's stream, and the number that is awaited.
    pub(crate) fn acknowledgement(&self) -> Option<(u32, u64)> {
        self.heard.map(|(_, stream, awaited)| (stream, awaited))
    }

    /// What the neighbour said is not known any more.
    pub(crate) fn forget_heard(&mut self) {
        self.heard = None;
        self.early.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cascade::identity::Identity;

    const CONFERENCE: ConferenceId = ConferenceId(1);

    fn flush(channel: &mut Channel, now: u64) -> Vec<Batch> {
        channel.flush(
            Time(now),
            CONFERENCE,
            NodeId(1),
            None,
            true,
            |key| match key {
                Key::Participant(identity) => Some(Item::Gone(identity.clone())),
                _ => None,
            },
        )
    }

    fn applied(arrival: Arrival) -> Vec<Item> {
        match arrival {
            Arrival::Apply(batches) => {
                let items = batches.iter().flat_map(|batch| batch.items.iter().cloned());
                items.collect()
            }
            _ => Vec::new(),
        }
    }

    #[test]
    fn a_state_that_changes_while_it_waits_is_told_once() {
        let mut channel = Channel::new(Role::Up);
        channel.restart(1, None);
        for _ in 0..10 {
            channel.mark(Key::Participant("a".into()));
        }
        let batches = flush(&mut channel, 0);
        assert_eq!(batches.len(), 1);
        assert_eq!(
            batches[0].items.len(),
            3,
            "a beginning, the state, and the end"
        );
        assert!(flush(&mut channel, 100).is_empty());
        assert_eq!(flush(&mut channel, 200), batches, "it is sent again");
        channel.acknowledged(1, 1);
        assert!(channel.is_idle());
    }

    #[test]
    fn a_hundred_thousand_people_go_into_messages_of_bounded_size() {
        let mut channel = Channel::new(Role::Up);
        channel.restart(1, None);
        for number in 0..100_000 {
            channel.mark(Key::Participant(Identity(format!("{number:060}").into())));
        }
        let mut told = 0;
        loop {
            let batches = flush(&mut channel, 0);
            let Some(last) = batches.last() else { break };
            for batch in &batches {
                let json = serde_json::to_vec(batch).unwrap();
                assert!(json.len() < crate::cascade::message::MESSAGE_BOUND);
                assert!(json.len() <= batch.size());
                told += batch
                    .items
                    .iter()
                    .filter(|item| matches!(item, Item::Gone(_)))
                    .count();
            }
            channel.acknowledged(1, last.sequence + 1);
        }
        assert_eq!(told, 100_000);
    }

    #[test]
    fn who_has_forgotten_says_so_and_everything_begins_anew() {
        let mut sender = Channel::new(Role::Up);
        let mut receiver = Channel::new(Role::Down);
        sender.restart(1, None);
        for batch in flush(&mut sender, 0) {
            applied(receiver.arrive(1, batch));
        }
        sender.acknowledged(1, 1);
        sender.push(Item::Leave);
        let batches = flush(&mut sender, 0);
        let mut fresh = Channel::new(Role::Down);
        assert_eq!(fresh.arrive(1, batches[0].clone()), Arrival::Unknown);
        sender.restart(2, None);
        let again = flush(&mut sender, 0);
        assert!(!applied(fresh.arrive(1, again[0].clone())).is_empty());
        assert_eq!(fresh.arrive(1, batches[0].clone()), Arrival::Stale);
        assert_eq!(fresh.arrive(0, again[0].clone()), Arrival::Stale);
    }

    proptest! {
        #[test]
        fn whatever_the_line_does_events_come_once_and_in_order(
            events in 1..60usize,
            fate in prop::collection::vec(0..4u8, 400),
        ) {
            let mut sender = Channel::new(Role::Up);
            let mut receiver = Channel::new(Role::Down);
            sender.restart(1, None);
            let mut fate = fate.into_iter();
            let mut delayed = Vec::new();
            let mut seen = Vec::new();
            let mut pushed = 0;
            for round in 0..1000u64 {
                if pushed < events {
                    sender.push(Item::Gone(Identity(format!("{pushed}").into())));
                    pushed += 1;
                }
                let mut coming: Vec<Batch> = std::mem::take(&mut delayed);
                coming.reverse();
                for batch in flush(&mut sender, round * 100) {
                    match fate.next().unwrap_or(1) {
                        0 => {}
                        1 => coming.push(batch),
                        2 => coming.extend([batch.clone(), batch]),
                        _ => delayed.push(batch),
                    }
                }
                for batch in coming {
                    seen.extend(applied(receiver.arrive(1, batch)));
                }
                if fate.next().unwrap_or(1) != 0
                    && let Some((stream, next)) = receiver.acknowledgement()
                {
                    sender.acknowledged(stream, next);
                }
            }
            let seen: Vec<String> = seen.iter().filter_map(|item| match item {
                Item::Gone(identity) => Some(identity.0.to_string()),
                _ => None,
            }).collect();
            let all: Vec<String> = (0..events).map(|number| number.to_string()).collect();
            prop_assert_eq!(seen, all);
        }
    }
}
