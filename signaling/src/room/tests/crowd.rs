//! Many participants: what each client makes of what it is told, and what that costs.

use super::*;

/// A client's roster, kept as LiveKit's SDKs keep theirs: by identity.
#[derive(Debug, Default)]
struct Client {
    identity: String,
    /// By identity: sid and version.
    known: BTreeMap<String, (String, u32)>,
    count: u32,
    updates: usize,
}

impl Client {
    fn hear(&mut self, message: &Response) {
        match message {
            Response::Join(join) => {
                self.identity = join.participant.as_ref().unwrap().identity.clone();
                self.count = join.room.as_ref().unwrap().num_participants;
                self.known.clear();
                for info in &join.other_participants {
                    let known = (info.sid.clone(), info.version);
                    let twin = self.known.insert(info.identity.clone(), known);
                    assert_eq!(twin, None, "{} is there twice", info.identity);
                }
            }
            Response::RoomUpdate(update) => {
                self.count = update.room.as_ref().unwrap().num_participants;
            }
            Response::Update(update) => {
                self.updates += 1;
                let gone = update.participants.iter();
                let gone = gone.filter(|info| info.state() == State::Disconnected);
                let gone: HashSet<&str> = gone.map(|info| info.sid.as_str()).collect();
                for info in &update.participants {
                    self.take(info, &gone);
                }
            }
            _ => {}
        }
    }

    /// `gone` are all in the same message who are gone: who resumes is told of some again.
    fn take(&mut self, info: &proto::ParticipantInfo, gone: &HashSet<&str>) {
        let is_gone = info.state() == State::Disconnected;
        if info.identity == self.identity {
            assert!(!is_gone, "{} is told that it left", self.identity);
            return;
        }
        if let Some((sid, version)) = self.known.get(&info.identity) {
            if is_gone {
                assert!(
                    gone.contains(sid.as_str()),
                    "a going of another time is told"
                );
            }
            assert!(
                *sid != info.sid || info.version >= *version,
                "versions go back"
            );
        }
        if is_gone {
            self.known.remove(&info.identity);
        } else {
            let known = (info.sid.clone(), info.version);
            self.known.insert(info.identity.clone(), known);
        }
    }
}

fn viewer(newcomer: &mut Newcomer) {
    newcomer.permission.can_publish = false;
    newcomer.permission.can_update_metadata = true;
}

struct Hall {
    world: World,
    clients: BTreeMap<SessionId, Client>,
    next: u64,
    bytes: usize,
}

impl Hall {
    fn new() -> Hall {
        Hall {
            world: World::new(),
            clients: BTreeMap::new(),
            next: 1,
            bytes: 0,
        }
    }

    fn settle(&mut self) {
        for (session, message) in self.world.messages.drain(..) {
            self.bytes += message.encoded_len();
            if let Some(client) = self.clients.get_mut(&session) {
                client.hear(&message);
            }
        }
        for (session, _) in self.world.closes.drain(..) {
            self.clients.remove(&session);
        }
        self.world.commands.clear();
    }

    fn come(&mut self, change: impl FnOnce(&mut Newcomer)) -> SessionId {
        let session = SessionId(self.next);
        self.next += 1;
        self.clients.insert(session, Client::default());
        self.world.join_with(session.0, change);
        self.settle();
        session
    }

    fn pass(&mut self, time: Duration) {
        self.world.pass(time);
        self.settle();
    }

    fn leave(&mut self, session: SessionId) {
        self.world
            .say(session, Request::Leave(proto::LeaveRequest::default()));
        self.settle();
    }

    fn attributes(&mut self, session: SessionId) {
        let attributes = HashMap::from([("hand".to_owned(), "1".to_owned())]);
        let request = proto::UpdateParticipantMetadata {
            attributes,
            ..Default::default()
        };
        self.world.say(session, Request::UpdateMetadata(request));
        self.settle();
    }

    fn permit(
        &mut self,
        session: SessionId,
        change: impl FnOnce(&mut proto::ParticipantPermission),
    ) {
        let key = self.world.room.by_session[&session];
        let info = self.world.room.participants[&key].info.clone();
        let mut permission = info.permission.unwrap();
        change(&mut permission);
        let request = proto::UpdateParticipantRequest {
            identity: info.identity,
            permission: Some(permission),
            ..Default::default()
        };
        self.world.room.update_participant(request).unwrap();
        self.world.settle();
        self.settle();
    }

    fn cut_and_resume(&mut self, session: SessionId, meanwhile: impl FnOnce(&mut Hall)) {
        let key = self.world.room.by_session[&session];
        let info = self.world.room.participants[&key].info.clone();
        let client = self.clients.remove(&session).unwrap();
        let now = self.world.now;
        self.world.room.session_lost(session, now);
        meanwhile(self);
        let again = SessionId(self.next);
        self.next += 1;
        self.clients.insert(again, client);
        let at = self.world.at();
        assert!(self.world.room.resume(&info.sid, &info.identity, again, at));
        self.world.settle();
        self.settle();
    }

    fn knows(&self, session: SessionId, other: SessionId) -> bool {
        self.clients[&session]
            .known
            .contains_key(&self.identity(other))
    }

    fn identity(&self, session: SessionId) -> String {
        let key = self.world.room.by_session[&session];
        self.world.room.participants[&key].info.identity.clone()
    }

    /// Everybody knows whoever is announced, and nobody else.
    fn agrees(&mut self) {
        self.pass(Duration::from_secs(3));
        self.pass(Duration::from_secs(3));
        let room = &self.world.room;
        let announced: BTreeMap<String, String> = room
            .participants
            .values()
            .filter(|participant| room.roster.is_announced(participant.key))
            .map(|participant| {
                let info = &participant.info;
                (info.identity.clone(), info.sid.clone())
            })
            .collect();
        for (session, client) in &self.clients {
            let mut expected = announced.clone();
            expected.remove(&client.identity);
            let known: BTreeMap<String, String> = client
                .known
                .iter()
                .map(|(identity, (sid, _))| (identity.clone(), sid.clone()))
                .collect();
            assert_eq!(known, expected, "as {session:?} sees it");
            assert_eq!(client.count as usize, room.participant_count());
        }
        let hidden = room.participants.values().filter(|p| p.is_hidden());
        assert!(hidden.into_iter().all(|p| !room.roster.is_announced(p.key)));
        assert_eq!(room.list().len(), room.participants.len());
    }
}

#[test]
fn viewers_of_a_crowd_are_counted_listed_and_not_announced() {
    let mut hall = Hall::new();
    let speaker = hall.come(|_| {});
    let early: Vec<_> = (1..CROWD).map(|_| hall.come(viewer)).collect();
    let late = hall.come(viewer);
    let later = hall.come(viewer);
    let other = hall.come(|_| {});
    hall.agrees();
    assert!(hall.knows(speaker, early[0]) && hall.knows(late, early[0]));
    assert!(!hall.knows(speaker, late) && !hall.knows(later, late));
    assert!(hall.knows(late, other), "who may speak is announced");
    assert_eq!(hall.clients[&late].count as usize, CROWD + 3);
    let found = hall.world.room.find(&hall.identity(late)).unwrap();
    assert_eq!(found.identity, hall.identity(late), "RoomService has it");

    // Who is let speak is announced, and stays so when it may no longer.
    hall.permit(late, |permission| permission.can_publish = true);
    hall.agrees();
    assert!(hall.knows(later, late));
    hall.permit(late, |permission| permission.can_publish = false);
    hall.agrees();
    assert!(hall.knows(later, late));

    // Who raises a hand is seen; whom the server gives attributes is not.
    let identity = hall.identity(later);
    let request = proto::UpdateParticipantRequest {
        identity: identity.clone(),
        attributes: HashMap::from([("seat".to_owned(), "7".to_owned())]),
        ..Default::default()
    };
    hall.world.room.update_participant(request).unwrap();
    hall.agrees();
    assert!(!hall.knows(speaker, later));
    hall.attributes(later);
    hall.agrees();
    assert!(hall.knows(speaker, later));
}

#[test]
fn a_crowd_that_shrinks_announces_all_and_does_not_change_its_mind_at_every_step() {
    let mut hall = Hall::new();
    let speaker = hall.come(|_| {});
    let early: Vec<_> = (1..CROWD).map(|_| hall.come(viewer)).collect();
    let late: Vec<_> = (0..10).map(|_| hall.come(viewer)).collect();
    for session in &early[..25] {
        hall.leave(*session);
    }
    hall.agrees();
    assert!(!hall.knows(speaker, late[0]), "still a crowd");
    let again = hall.come(viewer);
    hall.agrees();
    assert!(
        !hall.knows(speaker, again),
        "between the two numbers nothing changes"
    );
    for session in &early[25..35] {
        hall.leave(*session);
    }
    hall.agrees();
    assert!(late.iter().all(|one| hall.knows(speaker, *one)));
    assert!(hall.knows(late[0], again));
    let grown: Vec<_> = (0..20).map(|_| hall.come(viewer)).collect();
    hall.agrees();
    assert!(grown.iter().all(|one| hall.knows(speaker, *one)));
}

#[test]
fn a_viewer_of_a_crowd_sees_itself_and_its_own_quality() {
    let mut hall = Hall::new();
    for _ in 0..CROWD {
        hall.come(|_| {});
    }
    let session = SessionId(hall.next);
    hall.world.join_with(session.0, viewer);
    hall.world.pass(QUALITY_INTERVAL_IN_CROWD);
    let sid = hall.world.sid(session);
    let own = hall.world.infos(session);
    assert!(
        own.iter()
            .any(|info| info.sid == sid && info.state() == State::Active)
    );
    let told = |to: SessionId| {
        hall.world.told(to).any(|message| match message {
            Response::ConnectionQuality(update) => {
                update.updates.iter().any(|one| one.participant_sid == sid)
            }
            _ => false,
        })
    };
    assert!(told(session));
    assert!(!told(SessionId(1)));
}

#[test]
fn a_player_is_counted_as_a_viewer_and_hears_nothing_of_the_others() {
    let mut hall = Hall::new();
    let speaker = hall.come(|_| {});
    let player = |newcomer: &mut Newcomer| {
        newcomer.view = speaker_view();
        newcomer.hears_others = false;
    };
    for _ in 1..CROWD {
        hall.come(viewer);
    }
    let late = hall.come(player);
    hall.come(|_| {});
    hall.pass(Duration::from_secs(3));
    assert!(
        !hall.knows(speaker, late),
        "though its token lets it publish"
    );
    assert_eq!(hall.clients[&late].updates, 1, "only its own");
    assert_eq!(hall.clients[&speaker].count as usize, CROWD + 2);
}

#[test]
fn who_hides_leaves_the_roster_and_who_appears_enters_it() {
    let mut hall = Hall::new();
    let (one, two) = (hall.come(|_| {}), hall.come(|_| {}));
    hall.permit(two, |permission| permission.hidden = true);
    hall.agrees();
    assert!(!hall.knows(one, two));
    hall.permit(two, |permission| permission.hidden = false);
    hall.agrees();
    assert!(hall.knows(one, two));
    hall.permit(two, |permission| permission.hidden = true);
    hall.leave(two);
    hall.agrees();
}

#[test]
fn who_was_cut_off_hears_who_left_meanwhile_but_not_of_a_twin_that_is_back() {
    let mut hall = Hall::new();
    let people: Vec<_> = (0..4).map(|_| hall.come(|_| {})).collect();
    let back = hall.identity(people[2]);
    hall.cut_and_resume(people[0], |hall| {
        hall.leave(people[1]);
        hall.leave(people[2]);
        hall.pass(Duration::from_secs(5));
        hall.come(|newcomer| newcomer.identity = back);
    });
    hall.agrees();
}

#[test]
fn who_resumes_just_after_somebody_hid_hears_of_it() {
    let mut hall = Hall::new();
    let people: Vec<_> = (0..CROWD + 5).map(|_| hall.come(|_| {})).collect();
    hall.permit(people[1], |permission| permission.hidden = true);
    hall.cut_and_resume(people[0], |_| {});
    hall.agrees();
}

/// A hall fills within ten seconds: what each is told, and what it costs.
#[test]
fn three_thousand_silent_viewers_and_three_speakers() {
    let mut hall = Hall::new();
    let speaker = |newcomer: &mut Newcomer| newcomer.permission.can_update_metadata = true;
    let speakers: Vec<_> = (0..3).map(|_| hall.come(speaker)).collect();
    for _ in 0..200 {
        for _ in 0..15 {
            hall.come(viewer);
        }
        hall.world.now += Duration::from_millis(50);
        let now = hall.world.now;
        hall.world.room.tell_due_news(now);
        hall.world.settle();
        hall.settle();
        hall.pass(Duration::ZERO);
    }
    hall.agrees();
    assert_eq!(hall.clients.len(), 3003);
    let first = &hall.clients[&speakers[0]];
    assert_eq!((first.known.len(), first.count), (CROWD - 1, 3003));
    let updates = hall.clients.values().map(|client| client.updates).max();
    assert!(
        updates.unwrap() < 300,
        "{updates:?} messages for one client"
    );
    assert!(hall.bytes < 200_000_000, "{} bytes in all", hall.bytes);

    // What a speaker does reaches all in one message, encoded once.
    hall.bytes = 0;
    let session = speakers[0];
    let at = hall.world.at();
    let attributes = HashMap::from([("hand".to_owned(), "1".to_owned())]);
    hall.world
        .room
        .handle(
            session,
            Request::UpdateMetadata(proto::UpdateParticipantMetadata {
                attributes,
                ..Default::default()
            }),
            at,
        )
        .unwrap();
    let mut buffers = HashSet::new();
    let mut sends = 0;
    for effect in hall.world.room.take_effects() {
        if let Effect::Send { message, .. } = effect {
            buffers.insert(message.as_ptr());
            sends += 1;
        }
    }
    assert_eq!(
        (sends, buffers.len()),
        (3003, 2),
        "all the others', and its own"
    );

    // In a crowd small changes of loudness are left out; who begins and ends is not.
    let (_, track) = hall.world.publish(speakers[1]);
    hall.world.clear();
    let mut told = 0;
    for step in 0..20 {
        hall.world.now += Duration::from_millis(200);
        hall.world
            .event(Event::AudioLevels(vec![(track, 5 + step % 2 * 8)]));
        told += hall.world.told(speakers[2]).count();
        hall.world.clear();
    }
    assert!((1..=6).contains(&told), "{told} changes in four seconds");
}

#[derive(Clone, Debug)]
enum Step {
    Come {
        may_publish: bool,
    },
    /// Again with the identity of somebody who is there.
    Twin(usize),
    Leave(usize),
    Hand(usize),
    Permit(usize, bool),
    Hide(usize, bool),
    Resume(usize),
    Pass(u64),
}

fn step() -> impl proptest::strategy::Strategy<Value = Step> {
    use proptest::prelude::*;
    let who = 0..1000_usize;
    prop_oneof![
        4 => any::<bool>().prop_map(|may_publish| Step::Come { may_publish }),
        2 => who.clone().prop_map(Step::Twin),
        3 => who.clone().prop_map(Step::Leave),
        1 => who.clone().prop_map(Step::Hand),
        1 => (who.clone(), any::<bool>()).prop_map(|(at, may)| Step::Permit(at, may)),
        1 => (who.clone(), any::<bool>()).prop_map(|(at, hides)| Step::Hide(at, hides)),
        2 => who.prop_map(Step::Resume),
        3 => (0..200_u64).prop_map(Step::Pass),
    ]
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_happens_all_clients_agree_on_the_roster(
        before in 85..115_usize,
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let mut hall = Hall::new();
        for number in 0..before {
            hall.come(|newcomer| if number % 3 > 0 { viewer(newcomer) });
        }
        for step in steps {
            let sessions: Vec<SessionId> = hall.clients.keys().copied().collect();
            let at = |at: usize| sessions[at % sessions.len()];
            if sessions.is_empty() {
                hall.come(|_| {});
                continue;
            }
            match step {
                Step::Come { may_publish } => {
                    hall.come(|newcomer| if !may_publish { viewer(newcomer) });
                }
                Step::Twin(who) => {
                    let identity = hall.identity(at(who));
                    hall.come(|newcomer| newcomer.identity = identity);
                }
                Step::Leave(who) => hall.leave(at(who)),
                Step::Hand(who) => hall.attributes(at(who)),
                Step::Permit(who, may) => hall.permit(at(who), |p| p.can_publish = may),
                Step::Hide(who, hides) => hall.permit(at(who), |p| p.hidden = hides),
                Step::Resume(who) => hall.cut_and_resume(at(who), |_| {}),
                Step::Pass(time) => {
                    hall.world.now += Duration::from_millis(time);
                    let now = hall.world.now;
                    hall.world.room.tell_due_news(now);
                    hall.world.settle();
                    hall.settle();
                }
            }
        }
        hall.agrees();
    }
}
