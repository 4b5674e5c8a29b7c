//! A room that is a conference of the tree.

use super::*;
use crate::cascade::{NodeId, OrganisationId, Source, TrackInfo};
use crate::room::tree::{Elsewhere, News};

const SIZES: [(u16, u16); 3] = [(320, 180), (640, 360), (1280, 720)];
const CAMERA: TrackId = TrackId(0x99_0000_0001);

fn grant() -> Option<Arc<ConferenceGrant>> {
    Some(Arc::new(ConferenceGrant {
        root: NodeId(1),
        organisation: OrganisationId(2),
        chair_of: None,
    }))
}

fn world() -> World {
    let mut world = World::new();
    world.room.spread();
    world
}

/// Somebody at another node, with a camera.
fn speaker(tracks: &[TrackId]) -> Elsewhere {
    let camera = TrackInfo {
        number: 1,
        source: Source::Camera,
        sizes: SIZES,
    };
    Elsewhere {
        identity: "far".into(),
        name: "Far".into(),
        attributes: HashMap::from([("terrace.level".to_owned(), "county".to_owned())]),
        joined: 5_000,
        is_muted: false,
        tracks: tracks.iter().map(|id| (*id, camera)).collect(),
    }
}

impl World {
    fn show(&mut self, one: Elsewhere) {
        let at = self.at();
        self.room.show(one, at);
        self.settle();
    }

    fn wanted(&mut self) -> Vec<Option<Quality>> {
        let news = std::mem::take(&mut self.news);
        let wanted = news.into_iter().filter_map(|news| match news {
            News::Wanted { track, quality } if track == CAMERA => Some(quality),
            _ => None,
        });
        wanted.collect()
    }
}

#[test]
fn somebody_elsewhere_is_a_participant_like_others_until_they_go() {
    let mut world = world();
    let ana = world.join_with(1, |newcomer| newcomer.conference = grant());
    world.clear();
    world.show(speaker(&[CAMERA]));
    let info = world.infos(ana).last().copied().cloned().unwrap();
    assert_eq!(info.identity, "far");
    assert_eq!(info.state(), State::Active);
    assert_eq!(info.attributes["terrace.level"], "county");
    assert_eq!(info.tracks.len(), 1);
    assert!(
        world
            .commands
            .iter()
            .any(|command| matches!(command, Command::Subscribe { track: CAMERA, .. }))
    );
    assert_eq!(world.wanted(), [Some(Quality::High)]);
    assert_eq!(world.room.participant_count(), 1);

    world.clear();
    let at = world.at();
    world.room.hide("far", at);
    world.settle();
    let info = world.infos(ana).last().copied().cloned().unwrap();
    assert_eq!(info.state(), State::Disconnected);
    assert_eq!(world.wanted(), [None]);
    // It may be under way to others still: whoever brought it ends it.
    let commands = &world.commands;
    assert!(
        commands
            .iter()
            .any(|command| matches!(command, Command::Unsubscribe { track: CAMERA, .. }))
    );
    assert!(
        !commands
            .iter()
            .any(|command| matches!(command, Command::Unpublish { .. }))
    );
}

#[test]
fn what_is_wanted_is_the_best_that_anybody_here_asked_for() {
    let mut world = world();
    let people = [1, 2].map(|number| {
        world.join_with(number, |newcomer| {
            newcomer.conference = grant();
            newcomer.is_adaptive = true;
        })
    });
    world.show(speaker(&[CAMERA]));
    assert_eq!(world.wanted(), [Some(Quality::Low)], "for both, once");
    let sid = world.infos(people[0]).last().unwrap().tracks[0].sid.clone();
    let ask = |world: &mut World, session, disabled, width, height| {
        let settings = proto::UpdateTrackSettings {
            track_sids: vec![sid.clone()],
            disabled,
            width,
            height,
            ..Default::default()
        };
        world.say(session, Request::TrackSetting(settings));
        world.wanted()
    };
    let high = ask(&mut world, people[0], false, 1280, 720);
    assert_eq!(high, [Some(Quality::High)]);
    assert_eq!(ask(&mut world, people[1], false, 640, 360), []);
    let medium = ask(&mut world, people[0], true, 0, 0);
    assert_eq!(medium, [Some(Quality::Medium)]);
    let at = world.at();
    let key = world.room.by_session[&people[1]];
    world
        .room
        .end_stay(key, DisconnectReason::ParticipantRemoved, at);
    world.settle();
    assert_eq!(world.wanted(), [None]);
}

#[test]
fn who_changes_their_mind_quickly_does_not_make_the_tree_busy() {
    let mut world = world();
    let ana = world.join_with(1, |newcomer| newcomer.conference = grant());
    world.show(speaker(&[CAMERA]));
    let sid = world.infos(ana).last().unwrap().tracks[0].sid.clone();
    for time in 0..101 {
        let settings = proto::UpdateTrackSettings {
            track_sids: vec![sid.clone()],
            disabled: time % 2 == 0,
            ..Default::default()
        };
        world.say(ana, Request::TrackSetting(settings));
    }
    assert!(world.wanted().len() < 10);
    world.pass(Duration::from_millis(500));
    world.pass(Duration::from_millis(500));
    assert_eq!(world.room.tree.as_ref().unwrap().told(CAMERA), None);
}

#[test]
fn the_tree_is_told_what_people_here_publish_and_whether_they_may_be_heard() {
    let mut world = world();
    let ana = world.join_with(1, |newcomer| newcomer.conference = grant());
    assert!(matches!(&world.news[..], [News::Joined { identity, .. }] if &**identity == "p1"));
    world.news.clear();
    let (sid, track) = world.publish(ana);
    let told = std::mem::take(&mut world.news);
    let [News::Tracks { tracks, .. }] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(tracks[0].track, track);
    assert_eq!((tracks[0].source, tracks[0].sizes), (Source::Camera, SIZES));
    // A picture that stands still is as good as none.
    world.say(
        ana,
        Request::Mute(proto::MuteTrackRequest { sid, muted: true }),
    );
    assert!(matches!(&world.news[..], [News::Tracks { tracks, .. }] if tracks.is_empty()));
    world.news.clear();
    let key = world.room.by_session[&ana];
    let at = world.at();
    world.room.set_rights(key, true, false, at);
    world.settle();
    assert!(!world.room.participants[&key].permission().can_publish);
    world.room.set_rights(key, true, true, at);
    world.settle();
    assert!(world.room.participants[&key].permission().can_publish);
    world.say(ana, Request::Leave(proto::LeaveRequest::default()));
    assert!(matches!(world.news.last(), Some(News::Left { who }) if *who == key));
}

#[test]
fn people_elsewhere_hold_no_room_open_and_cannot_be_changed_from_here() {
    let mut world = world();
    let ana = world.join_with(1, |newcomer| newcomer.conference = grant());
    world.show(speaker(&[CAMERA]));
    assert_eq!(
        world.room.expel("far", world.now),
        Err(CallError::NoParticipant)
    );
    world.pass(JOIN_TIME * 2);
    assert!(world.room.has("far"), "it has no media to connect here");
    world.say(ana, Request::Leave(proto::LeaveRequest::default()));
    world.pass(Duration::from_secs(21));
    assert!(world.room.is_over(world.now));
}
