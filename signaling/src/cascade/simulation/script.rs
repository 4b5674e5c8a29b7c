//! What happens: who joins, speaks, is muted and moves, which lines fail and which nodes restart, all by
//! lot. After each stretch of trouble everything is whole again, and the oracle looks.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng;
use signaling::cascade::{
    ConferenceId, Deed, Identity, Level, Newcomer, OrganisationId, Quality, Session, Source,
    TrackId, TrackInfo, Why,
};

use super::oracle;
use super::tree::Shape;
use super::world::{Notice, World, node_id};

/// Milliseconds of trouble in each round.
const TROUBLE: u64 = 18_000;

/// Milliseconds in which all is whole before the oracle looks. Longer than a node that has restarted
/// takes to speak of everybody, and than a branch takes to return to its better way.
const REST: u64 = 14_000;

/// Milliseconds within which a cut is known, and within which what was cut is one again.
const KNOWN_WITHIN: u64 = 3000;

/// Milliseconds within which all levels agree on the speaker.
const AGREED_WITHIN: u64 = 1000;

/// Milliseconds between two reports of how loud somebody is.
const LEVELS: u64 = 100;

/// The conference that spans everything.
pub(crate) const MAIN: ConferenceId = ConferenceId(1);

/// Somebody who may be in a conference.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    /// By which the conference knows them.
    pub(crate) identity: Identity,
    /// Which conference.
    pub(crate) conference: ConferenceId,
    /// Where, by the node's place.
    pub(crate) home: usize,
    /// Of which branch they are a chair.
    pub(crate) chair_of: Option<usize>,
    /// The present stay.
    pub(crate) session: Option<Session>,
    /// They are away and come back then.
    back: Option<u64>,
    /// What they watch.
    pub(crate) wanted: BTreeMap<TrackId, Quality>,
    /// A stranger's picture that they watch beside the stage.
    patrol: Option<TrackId>,
}

/// Something to do later.
#[derive(Clone, Debug)]
enum Later {
    Mend(usize),
    IsKnown(usize, u64),
    IsHealed(usize, u64),
    Start(usize),
    Choose(usize, ConferenceId),
    Drop(usize, ConferenceId, Session),
}

/// The play.
pub(crate) struct Script {
    /// Nodes and lines.
    pub(crate) world: World,
    /// Everybody.
    pub(crate) people: Vec<Person>,
    by_session: BTreeMap<(ConferenceId, Session), usize>,
    at_node: BTreeMap<(usize, ConferenceId), BTreeSet<usize>>,
    later: BTreeMap<u64, Vec<Later>>,
    choosing: BTreeSet<(usize, ConferenceId)>,
    talkers: Vec<(usize, u8)>,
    rounds: u64,
    /// Of acts and troubles by the second.
    pace: f64,
    conferences: Vec<(ConferenceId, usize)>,
}

impl Script {
    /// Everybody is set, nobody has joined.
    pub(crate) fn new(shape: &Shape, seed: u64) -> Script {
        let mut world = World::new(shape, seed);
        world.unruly = 0.01;
        let cities = shape.spots.iter().enumerate();
        let cities = cities
            .filter(|(_, spot)| spot.level == Level::City)
            .map(|(at, _)| at);
        let city = cities.max().unwrap_or(0);
        let conferences = vec![(MAIN, 0), (ConferenceId(2), city)];
        for (conference, root) in &conferences {
            world.open(*root, *conference);
        }
        let mut script = Script {
            world,
            people: Vec::new(),
            by_session: BTreeMap::new(),
            at_node: BTreeMap::new(),
            later: BTreeMap::new(),
            choosing: BTreeSet::new(),
            talkers: Vec::new(),
            rounds: 0,
            pace: (shape.spots.len() as f64 / 600.0).clamp(2.0, 12.0),
            conferences: conferences.clone(),
        };
        let is_below_city = |mut at: usize| loop {
            if at == city {
                return true;
            }
            match shape.spots[at].ways.first() {
                Some(up) => at = *up,
                None => return false,
            }
        };
        for (at, spot) in shape.spots.iter().enumerate() {
            script.add(MAIN, at, (spot.level != Level::Village).then_some(at));
            if script.world.rng.random_ratio(1, 5) {
                script.add(MAIN, at, None);
            }
            if is_below_city(at) && (at == city || script.world.rng.random_ratio(1, 3)) {
                script.add(ConferenceId(2), at, (at == city).then_some(at));
            }
        }
        script
    }

    fn add(&mut self, conference: ConferenceId, home: usize, chair_of: Option<usize>) {
        let number = self.people.len();
        let back = Some(self.world.rng.random_range(1500..9000));
        self.people.push(Person {
            identity: Identity(format!("{}-{number}", conference.0).into()),
            conference,
            home,
            chair_of,
            session: None,
            back,
            wanted: BTreeMap::new(),
            patrol: None,
        });
    }

    /// How many are in conferences.
    pub(crate) fn present(&self) -> usize {
        self.by_session.len()
    }

    fn do_later(&mut self, at: u64, what: Later) {
        self.later.entry(at).or_default().push(what);
    }

    // What people do.

    fn join(&mut self, number: usize) {
        let person = &self.people[number];
        let newcomer = Newcomer {
            identity: person.identity.clone(),
            name: person.identity.0.clone(),
            organisation: OrganisationId(person.home as u128 + 1),
            chair_of: person.chair_of.map(node_id),
        };
        let (conference, home) = (person.conference, person.home);
        let Some(session) = self.world.join(home, conference, newcomer) else {
            let back = self.world.now + 500;
            self.people[number].back = Some(back);
            return;
        };
        self.world.note("joins");
        self.by_session.insert((conference, session), number);
        self.at_node
            .entry((home, conference))
            .or_default()
            .insert(number);
        let person = &mut self.people[number];
        person.session = Some(session);
        person.back = None;
        person.wanted.clear();
        self.publish(number);
        self.choose_later(home, conference);
    }

    fn publish(&mut self, number: usize) {
        let Person {
            conference,
            home,
            session: Some(session),
            ..
        } = self.people[number]
        else {
            return;
        };
        let track = |number, source| TrackInfo {
            number,
            source,
            sizes: Default::default(),
        };
        let tracks = vec![track(1, Source::Microphone), track(2, Source::Camera)];
        self.world.at(home, |node, moment| {
            node.set_tracks(moment, conference, session, tracks)
        });
    }

    fn forget(&mut self, number: usize) {
        let person = &mut self.people[number];
        let (home, conference) = (person.home, person.conference);
        if let Some(session) = person.session.take() {
            self.by_session.remove(&(conference, session));
            if let Some(all) = self.at_node.get_mut(&(home, conference)) {
                all.remove(&number);
            }
        }
        for track in std::mem::take(&mut person.wanted).into_keys() {
            self.stop_waiting(home, conference, track);
        }
    }

    fn stop_waiting(&mut self, home: usize, conference: ConferenceId, track: TrackId) {
        let others = self.at_node.get(&(home, conference)).into_iter().flatten();
        let mut others = others.map(|one| &self.people[*one]);
        if !others.any(|one| one.wanted.contains_key(&track)) {
            self.world.waiting.remove(&(home, track));
        }
    }

    fn leave(&mut self, number: usize, back: u64) {
        let person = &mut self.people[number];
        person.back = Some(back);
        let (home, conference, session) = (person.home, person.conference, person.session);
        if let Some(session) = session {
            self.forget(number);
            self.world
                .at(home, |node, moment| node.leave(moment, conference, session));
            self.world.note("leaves");
        }
    }

    fn act(&mut self, number: usize, deed: Deed) {
        let person = &self.people[number];
        let (home, conference) = (person.home, person.conference);
        if let Some(session) = person.session {
            self.world.at(home, |node, moment| {
                node.act(moment, conference, session, deed)
            });
        }
    }

    fn open_microphone(&mut self, number: usize, is_open: bool) {
        let person = &self.people[number];
        let (home, conference, identity) =
            (person.home, person.conference, person.identity.clone());
        let Some(session) = person.session else {
            return;
        };
        let done = self.world.at(home, |node, moment| {
            let seen = node.rights(conference, &identity).microphone;
            node.set_microphone(moment, conference, session, is_open)
                .map(|()| seen)
        });
        if let Some(Ok(seen)) = done
            && is_open
        {
            let opening = self
                .world
                .openings
                .entry((conference, identity))
                .or_default();
            opening.merge(&seen);
        }
    }

    fn choose_later(&mut self, at: usize, conference: ConferenceId) {
        if self.choosing.insert((at, conference)) {
            let when = self.world.now + self.world.rng.random_range(10..120);
            self.do_later(when, Later::Choose(at, conference));
        }
    }

    /// The clients of a node choose what to watch: the speaker, and some of the stage.
    fn choose(&mut self, at: usize, conference: ConferenceId) {
        let Some(node) = self.world.node(at) else {
            return;
        };
        let all = self
            .at_node
            .get(&(at, conference))
            .cloned()
            .unwrap_or_default();
        if all.is_empty() {
            return;
        }
        let speakers = node.speakers(conference);
        let stage = node.stage(conference);
        let camera = |one: &signaling::cascade::Participant| {
            one.track_ids()
                .find(|(_, source)| *source == Source::Camera)
                .map(|(track, _)| track)
        };
        for number in all {
            let person = &self.people[number];
            let Some(session) = person.session else {
                continue;
            };
            let mut wanted = BTreeMap::new();
            for one in stage
                .iter()
                .skip(number % 3)
                .take(2)
                .filter(|one| one.identity != person.identity)
            {
                let quality = if number % 2 == 0 {
                    Quality::Low
                } else {
                    Quality::Medium
                };
                wanted.extend(camera(one).map(|track| (track, quality)));
            }
            let speaker = stage
                .iter()
                .find(|one| Some(&one.identity) == speakers.dominant.as_ref());
            if let Some(one) = speaker.filter(|one| one.identity != person.identity) {
                let quality = if number % 4 == 0 {
                    Quality::Medium
                } else {
                    Quality::High
                };
                wanted.extend(camera(one).map(|track| (track, quality)));
            }
            wanted.extend(person.patrol.map(|track| (track, Quality::Low)));
            let before = std::mem::replace(&mut self.people[number].wanted, wanted.clone());
            for track in before.keys().filter(|track| !wanted.contains_key(track)) {
                self.stop_waiting(at, conference, *track);
                self.world.at(at, |node, moment| {
                    node.want(moment, conference, session, *track, None)
                });
            }
            for (track, quality) in &wanted {
                if before.get(track) != Some(quality) {
                    if !before.contains_key(track) && track.session.node != node_id(at) {
                        let now = self.world.now;
                        self.world.waiting.entry((at, *track)).or_insert(now);
                    }
                    self.world.at(at, |node, moment| {
                        node.want(moment, conference, session, *track, Some(*quality))
                    });
                }
            }
        }
    }

    // What happens to lines and nodes.

    fn hurt(&mut self, link: usize, cure: u64) {
        if !self.world.links[link].is_whole() {
            return;
        }
        let kind = self.world.rng.random_range(0..8);
        let now = self.world.now;
        let one = &mut self.world.links[link];
        match kind {
            0..=2 => (one.control, one.media) = ([false; 2], [false; 2]),
            3 => (one.control, one.media) = ([false, true], [false, true]),
            4 => (one.control, one.media) = ([true, false], [true, false]),
            5 => one.control = [false; 2],
            6 => one.media = [false; 2],
            _ => one.loss = 0.2,
        }
        one.changed = now;
        let is_cut = kind < 7;
        self.world.note("lines hurt");
        if is_cut {
            self.do_later(now + KNOWN_WITHIN, Later::IsKnown(link, now));
        }
        self.do_later(cure, Later::Mend(link));
    }

    fn mend(&mut self, link: usize) {
        let now = self.world.now;
        let one = &mut self.world.links[link];
        if !one.is_whole() {
            (one.control, one.media) = ([true; 2], [true; 2]);
            one.loss = 0.005;
            one.changed = now;
            self.do_later(now + KNOWN_WITHIN, Later::IsHealed(link, now));
        }
    }

    fn kill(&mut self, at: usize, back: u64) {
        if self.world.slots[at].node.is_none() {
            return;
        }
        self.world.note("restarts");
        self.world.kill(at);
        for (conference, _) in self.conferences.clone() {
            let all = self
                .at_node
                .get(&(at, conference))
                .cloned()
                .unwrap_or_default();
            for number in all {
                self.forget(number);
                self.people[number].back = Some(back + self.world.rng.random_range(300..2500));
            }
        }
        self.do_later(back, Later::Start(at));
    }

    fn do_now(&mut self, what: Later) {
        match what {
            Later::Mend(link) => self.mend(link),
            Later::Start(at) => self.world.start(at),
            Later::Drop(at, conference, session) => {
                self.world
                    .at(at, |node, moment| node.leave(moment, conference, session));
            }
            Later::Choose(at, conference) => {
                self.choosing.remove(&(at, conference));
                self.choose(at, conference);
            }
            Later::IsKnown(link, since) => {
                let one = &self.world.links[link];
                if one.changed == since && !one.is_whole() {
                    oracle::is_known(&mut self.world, link, since);
                }
            }
            Later::IsHealed(link, since) => {
                if self.world.links[link].changed == since {
                    oracle::is_healed(self, link, since);
                }
            }
        }
    }

    // Time.

    /// Plays until a time, with what was set for then.
    pub(crate) fn run_until(&mut self, end: u64) {
        while self.world.now < end && self.world.violation().is_none() {
            let next = self.later.keys().next().copied().unwrap_or(u64::MAX);
            let next_levels = (self.world.now / LEVELS + 1) * LEVELS;
            self.world.run_until(end.min(next).min(next_levels));
            for notice in std::mem::take(&mut self.world.notices) {
                match notice {
                    Notice::Shown(at, conference) => self.choose_later(at, conference),
                    Notice::Over(conference, session, why) => {
                        if let Some(number) = self.by_session.get(&(conference, session)).copied() {
                            self.forget(number);
                            // Who was replaced is elsewhere; who was removed comes again.
                            let wait = if why == Why::Removed { 3000 } else { 0 };
                            if wait > 0 {
                                self.people[number].back = Some(self.world.now + wait);
                            }
                        }
                    }
                }
            }
            while let Some(first) = self.later.first_entry()
                && *first.key() <= self.world.now
            {
                for what in first.remove() {
                    self.do_now(what);
                }
            }
            if self.world.now.is_multiple_of(LEVELS) {
                self.talk();
            }
        }
    }

    fn talk(&mut self) {
        for (number, level) in self.talkers.clone() {
            let person = &self.people[number];
            let (home, conference) = (person.home, person.conference);
            if let Some(session) = person.session {
                let level = level + self.world.rng.random_range(0..3);
                self.world.at(home, |node, moment| {
                    node.loudness(moment, conference, session, level)
                });
            }
        }
        let now = self.world.now;
        if now.is_multiple_of(500) {
            let due = (0..self.people.len())
                .filter(|one| self.people[*one].back.is_some_and(|back| back <= now));
            for number in due.collect::<Vec<_>>() {
                self.people[number].back = None;
                if self.people[number].session.is_none() {
                    self.join(number);
                }
            }
        }
    }

    fn anybody(&mut self) -> usize {
        self.world.rng.random_range(0..self.people.len())
    }

    /// One of those who are on stage of the conference that spans everything.
    fn on_stage(&mut self) -> Option<usize> {
        let stage = self.world.node(0)?.stage(MAIN);
        if stage.is_empty() {
            return None;
        }
        let one = &stage[self.world.rng.random_range(0..stage.len())];
        self.by_session.get(&(MAIN, one.session)).copied()
    }

    fn new_talkers(&mut self) {
        self.talkers.clear();
        for level in [20, 26, 30] {
            if let Some(number) = self.on_stage() {
                self.talkers.push((number, level));
            }
        }
        // All over the tree microphones are open.
        for _ in 0..12 {
            let number = self.anybody();
            self.talkers
                .push((number, self.world.rng.random_range(30..60)));
        }
    }

    fn some_act(&mut self) {
        let chairs = (0..self.people.len()).filter(|one| {
            let person = &self.people[*one];
            person.chair_of.is_some() && person.session.is_some()
        });
        let chairs: Vec<usize> = chairs.collect();
        if chairs.is_empty() {
            return;
        }
        // Mostly the chair of all acts, now and then that of a branch.
        let chair = if self.world.rng.random_ratio(2, 3) {
            chairs[0]
        } else {
            chairs[self.world.rng.random_range(0..chairs.len())]
        };
        let target = match self.world.rng.random_range(0..2) {
            0 => self.on_stage(),
            _ => None,
        };
        let target = target.unwrap_or_else(|| self.anybody());
        let identity = self.people[target].identity.clone();
        let deed = match self.world.rng.random_range(0..20) {
            0..=6 => Deed::Stage(identity),
            7..=9 => Deed::OffStage(identity),
            10..=13 => Deed::Mute(identity),
            14 => Deed::Remove(identity),
            15 => Deed::Revoke(identity),
            16 => Deed::Restore(identity),
            17 => Deed::OpenFloor(self.world.rng.random_bool(0.5)),
            _ => Deed::Chat("好".into()),
        };
        self.act(chair, deed);
        let speaker = self.anybody();
        self.act(speaker, Deed::Chat("听得到吗".into()));
    }

    fn some_trouble(&mut self, until: u64) {
        let now = self.world.now;
        let cure = (now + self.world.rng.random_range(300..12_000)).min(until);
        let lot = self.world.rng.random_range(0..10);
        if lot < 6 {
            let link = if self.world.rng.random_ratio(1, 4) {
                // A line near the top, which cuts off many.
                self.world
                    .rng
                    .random_range(0..self.world.links.len().min(120))
            } else {
                self.world.rng.random_range(0..self.world.links.len())
            };
            self.hurt(link, cure);
        } else if lot < 9 {
            let at = if self.world.rng.random_ratio(1, 4) {
                self.world
                    .rng
                    .random_range(0..self.world.slots.len().min(120))
            } else {
                self.world.rng.random_range(0..self.world.slots.len())
            };
            let back = (now + self.world.rng.random_range(100..6000)).min(until);
            self.kill(at, back);
        }
    }

    fn some_life(&mut self) {
        let number = self.anybody();
        let now = self.world.now;
        match self.world.rng.random_range(0..10) {
            0..=2 => {
                let back = now + self.world.rng.random_range(1000..20_000);
                self.leave(number, back);
            }
            3..=4 if self.people[number].chair_of.is_none() => {
                // The same person comes in elsewhere, and the old connection is still there.
                let home = self.world.rng.random_range(0..self.world.slots.len());
                let is_within =
                    self.people[number].conference == MAIN && self.world.node(home).is_some();
                if is_within && self.people[number].session.is_some() {
                    self.world.note("moves");
                    let mut twin = self.people[number].clone();
                    twin.home = home;
                    twin.session = None;
                    twin.wanted.clear();
                    twin.patrol = None;
                    self.retire(number);
                    self.people[number] = twin;
                    self.join(number);
                }
            }
            5..=6 => self.open_microphone(number, true),
            7 => self.open_microphone(number, false),
            _ => {
                let other = self.anybody();
                let is_same = self.people[other].conference == self.people[number].conference;
                let track = self.people[other]
                    .session
                    .filter(|_| is_same && other != number);
                let track = track.map(|session| TrackId {
                    session,
                    number: 2,
                    source: Source::Camera,
                });
                let is_elsewhere = self.people[other].home != self.people[number].home;
                self.people[number].patrol = track.filter(|_| is_elsewhere);
                let (home, conference) = (self.people[number].home, self.people[number].conference);
                self.choose_later(home, conference);
            }
        }
    }

    /// The old connection of somebody who is elsewhere stays at its node until that hears of it, or
    /// until it times out.
    fn retire(&mut self, number: usize) {
        let person = &self.people[number];
        let (home, conference) = (person.home, person.conference);
        if let Some(session) = person.session {
            let timeout = self.world.now + 5000;
            self.later
                .entry(timeout)
                .or_default()
                .push(Later::Drop(home, conference, session));
            self.by_session.remove(&(conference, session));
            if let Some(all) = self.at_node.get_mut(&(home, conference)) {
                all.remove(&number);
            }
        }
        let wanted = std::mem::take(&mut self.people[number].wanted);
        for track in wanted.into_keys() {
            self.stop_waiting(home, conference, track);
        }
    }

    /// One stretch of trouble, one of rest, and the oracle.
    pub(crate) fn round(&mut self) {
        let begin = self.world.now;
        if self.rounds == 0 {
            // All join, and some are put on stage.
            self.run_until(begin + 12_000);
            for _ in 0..40 {
                let number = self.anybody();
                let identity = self.people[number].identity.clone();
                self.act(0, Deed::Stage(identity));
            }
        }
        self.rounds += 1;
        let begin = self.world.now;
        let whole = begin + TROUBLE;
        while self.world.now < whole && self.world.violation().is_none() {
            let pause = (1000.0 / self.pace * self.world.rng.random_range(0.2..1.8)) as u64 + 1;
            self.run_until((self.world.now + pause).min(whole));
            match self.world.rng.random_range(0..8) {
                0 => self.new_talkers(),
                1..=2 => self.some_act(),
                3..=4 => self.some_trouble(whole),
                _ => self.some_life(),
            }
        }
        for link in 0..self.world.links.len() {
            self.mend(link);
        }
        for number in 0..self.people.len() {
            // Who is away stays so, or comes soon.
            if let Some(back) = self.people[number].back {
                self.people[number].back = (back < whole + 3000).then_some(back);
            }
        }
        self.run_until(whole + REST - 4000);
        self.speak_in_quiet();
        self.run_until(whole + REST - 1500);
        let joined = self.join_in_quiet();
        self.run_until(whole + REST);
        if self.world.violation().is_none() {
            oracle::join_was_cheap(self, joined);
            oracle::validate(self);
        }
        for number in 0..self.people.len() {
            if self.people[number].session.is_none() && self.people[number].back.is_none() {
                self.people[number].back =
                    Some(self.world.now + self.world.rng.random_range(0..3000));
            }
        }
    }

    /// Somebody else speaks; within a second all agree on who.
    fn speak_in_quiet(&mut self) {
        self.talkers.clear();
        self.run_until(self.world.now + 1000);
        let Some(number) = self.on_stage() else {
            return;
        };
        let identity = self.people[number].identity.clone();
        let Some(root) = self.world.node(0) else {
            return;
        };
        let stage = root.stage(MAIN);
        let is_able = stage.iter().any(|one| {
            one.identity == identity && one.rights.may_be_heard() && one.microphone().is_some()
        });
        if !is_able || stage.len() < 2 {
            return;
        }
        self.talkers.push((number, 20));
        self.run_until(self.world.now + AGREED_WITHIN);
        oracle::speaker_is_agreed(self, &identity);
    }

    /// Somebody joins while nothing else happens, and every message that speaks of them is counted.
    fn join_in_quiet(&mut self) -> Option<usize> {
        let absent = (0..self.people.len()).rev().find(|one| {
            let person = &self.people[*one];
            person.conference == MAIN && person.session.is_none() && person.back.is_none()
        });
        let number = absent?;
        let identity = self.people[number].identity.clone();
        let is_on_stage = self
            .world
            .node(0)?
            .stage(MAIN)
            .iter()
            .any(|one| one.identity == identity);
        let is_known = !self.world.node(0)?.rights(MAIN, &identity).is_new();
        let is_there = self.world.node(0)?.participant(MAIN, &identity).is_some();
        if is_on_stage || is_known || is_there {
            return None;
        }
        self.world.watched = Some((identity, BTreeSet::new()));
        self.join(number);
        self.people[number].session.is_some().then_some(number)
    }

    /// Sums up.
    pub(crate) fn finish(&mut self) {
        let busiest = self
            .world
            .links
            .iter()
            .flat_map(|link| link.bytes)
            .max()
            .unwrap_or(0);
        let seconds = (self.world.now / 1000).max(1);
        self.world
            .counts
            .insert("bytes per second on the busiest line", busiest / seconds);
        let wait = self.world.longest_wait;
        self.world
            .counts
            .insert("longest wait for a picture, ms", wait);
        let events = self.present() as u64;
        self.world.counts.insert("people at the end", events);
    }

    /// The conferences and their roots.
    pub(crate) fn conferences(&self) -> &[(ConferenceId, usize)] {
        &self.conferences
    }
}
