//! How cascades failed in the field, each as a test on the virtual clock; the numbers are those of the
//! project's list. What needs media or a bus is tested where these are.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::simulation::script::MAIN;
use super::simulation::tree::Shape;
use super::simulation::world::{World, node_id, place_of};
use super::*;

/// Places in the tree of [`five_levels`].
const PROVINCE: usize = 0;
const CITY: usize = 1;
const COUNTY: usize = 2;
const TOWNSHIP: usize = 3;
const VILLAGE: usize = 4;
const OTHER_VILLAGE: usize = 8;

/// A province with a city, which has two counties, each with a township and its village; the first
/// township has two.
fn shape() -> Shape {
    let mut shape = Shape::province();
    let city = shape.add(Level::City, &[PROVINCE]);
    let county = shape.add(Level::County, &[city]);
    let township = shape.add(Level::Township, &[county]);
    shape.add(Level::Village, &[township]);
    shape.add(Level::Village, &[township]);
    let county = shape.add(Level::County, &[city]);
    let township = shape.add(Level::Township, &[county]);
    shape.add(Level::Village, &[township]);
    shape
}

fn world_of(shape: &Shape) -> World {
    let mut world = World::new(shape, 1);
    for link in &mut world.links {
        link.loss = 0.0;
    }
    world.open(PROVINCE, MAIN);
    world.run_until(8000);
    world
}

fn five_levels() -> World {
    world_of(&shape())
}

fn join(world: &mut World, at: usize, name: &str, chair_of: Option<usize>) -> Session {
    let newcomer = Newcomer {
        identity: name.into(),
        name: name.into(),
        organisation: OrganisationId(at as u128 + 1),
        chair_of: chair_of.map(node_id),
    };
    let session = world.join(at, MAIN, newcomer).expect("the node runs");
    let track = |number, source| TrackInfo {
        number,
        source,
        sizes: Default::default(),
    };
    let tracks = vec![track(1, Source::Microphone), track(2, Source::Camera)];
    world.at(at, |node, moment| {
        node.set_tracks(moment, MAIN, session, tracks)
    });
    session
}

fn act(world: &mut World, at: usize, session: Session, deed: Deed) {
    let done = world.at(at, |node, moment| node.act(moment, MAIN, session, deed));
    assert!(matches!(done, Some(Ok(_))), "{done:?}");
}

fn after(world: &mut World, milliseconds: u64) {
    world.run_until(world.now + milliseconds);
    assert_eq!(world.violation(), None);
}

fn set_line(world: &mut World, one: usize, other: usize, control: [bool; 2], media: [bool; 2]) {
    let link = world.link_between(one, other).expect("there is a line");
    world.links[link].control = control;
    world.links[link].media = media;
}

fn cut(world: &mut World, one: usize, other: usize) {
    set_line(world, one, other, [false; 2], [false; 2]);
}

fn mend(world: &mut World, one: usize, other: usize) {
    set_line(world, one, other, [true; 2], [true; 2]);
}

fn people(world: &World, at: usize) -> BTreeSet<String> {
    let all = world
        .node(at)
        .map(|node| node.people(MAIN))
        .unwrap_or_default();
    all.iter().map(|one| one.identity.to_string()).collect()
}

fn stage(world: &World, at: usize) -> Vec<String> {
    let all = world
        .node(at)
        .map(|node| node.stage(MAIN))
        .unwrap_or_default();
    all.iter().map(|one| one.identity.to_string()).collect()
}

fn epoch(world: &World, at: usize) -> Option<Epoch> {
    world.node(at)?.epoch(MAIN)
}

fn may_be_heard(world: &World, at: usize, name: &str) -> bool {
    let node = world.node(at).expect("the node runs");
    node.rights(MAIN, &name.into()).may_be_heard()
}

fn camera(session: Session) -> TrackId {
    TrackId {
        session,
        number: 2,
        source: Source::Camera,
    }
}

fn forwards(world: &World) -> Vec<(usize, usize, TrackId)> {
    let all = (0..world.slots.len()).filter_map(|at| Some((at, world.node(at)?)));
    let all = all.flat_map(|(at, node)| {
        let forwards = node.forwards(MAIN).into_iter();
        forwards.map(move |(track, to, _)| (at, place_of(to), track))
    });
    all.collect()
}

/// A chair at the province and one person in each of two villages, all on stage.
fn meeting() -> (World, Session, Session, Session) {
    let mut world = five_levels();
    let chair = join(&mut world, PROVINCE, "chair", Some(PROVINCE));
    let one = join(&mut world, VILLAGE, "one", None);
    let other = join(&mut world, OTHER_VILLAGE, "other", None);
    after(&mut world, 1000);
    for name in ["chair", "one", "other"] {
        act(&mut world, PROVINCE, chair, Deed::Stage(name.into()));
    }
    after(&mut world, 1000);
    (world, chair, one, other)
}

fn all_see_all(world: &World) {
    for at in [PROVINCE, VILLAGE, OTHER_VILLAGE] {
        assert_eq!(stage(world, at), ["chair", "one", "other"], "at {at}");
        assert_eq!(epoch(world, at), epoch(world, PROVINCE), "at {at}");
        let node = world.node(at).unwrap();
        let heard = node
            .wanted(MAIN)
            .into_iter()
            .filter(|(track, _)| track.is_sound());
        let heard: BTreeSet<usize> = heard
            .map(|(track, _)| place_of(track.session.node))
            .collect();
        let others = [PROVINCE, VILLAGE, OTHER_VILLAGE]
            .into_iter()
            .filter(|other| *other != at);
        assert_eq!(heard, others.collect(), "at {at}");
    }
    // Each voice crosses each of the seven lines between the three once.
    let sounds = forwards(world)
        .into_iter()
        .filter(|(_, _, track)| track.is_sound());
    assert_eq!(sounds.count(), 3 * 7, "{:?}", forwards(world));
}

#[test]
fn f1_the_last_local_participant_leaves_and_the_conference_goes_on() {
    let (mut world, ..) = meeting();
    let local = join(&mut world, COUNTY, "local", None);
    after(&mut world, 1000);
    world.at(COUNTY, |node, moment| node.leave(moment, MAIN, local));
    after(&mut world, 70_000);
    assert_eq!(
        people(&world, PROVINCE),
        ["chair", "one", "other"].map(str::to_owned).into()
    );
    all_see_all(&world);
}

#[test]
fn f2_a_node_that_restarts_does_not_say_that_nobody_is_there() {
    for middle in [TOWNSHIP, COUNTY, CITY] {
        for pause in [50, 1000, 5000] {
            let (mut world, ..) = meeting();
            world.kill(middle);
            after(&mut world, pause);
            world.start(middle);
            for _ in 0..100 {
                after(&mut world, 100);
                let there = people(&world, PROVINCE);
                assert!(
                    there.contains("one") && there.contains("other"),
                    "{there:?}"
                );
                assert!(stage(&world, VILLAGE).contains(&"one".to_owned()));
            }
            all_see_all(&world);
        }
    }
}

#[test]
fn f2_a_root_that_restarts_knows_its_stage_and_opens_a_later_epoch() {
    let (mut world, ..) = meeting();
    let before = epoch(&world, VILLAGE).unwrap();
    world.kill(PROVINCE);
    after(&mut world, 200);
    world.start(PROVINCE);
    join(&mut world, PROVINCE, "chair", Some(PROVINCE));
    after(&mut world, 9000);
    assert!(epoch(&world, VILLAGE).unwrap().number > before.number);
    all_see_all(&world);
}

#[test]
fn f3_two_halves_each_with_a_chair_become_one_and_both_logs_stay() {
    let (mut world, chair, ..) = meeting();
    let deputy = join(&mut world, COUNTY, "deputy", Some(COUNTY));
    after(&mut world, 1000);
    cut(&mut world, CITY, COUNTY);
    after(&mut world, 3000);
    assert!(world.node(COUNTY).unwrap().is_own_epoch(MAIN));
    assert_eq!(epoch(&world, VILLAGE).unwrap().root, node_id(COUNTY));
    act(&mut world, COUNTY, deputy, Deed::Stage("deputy".into()));
    act(&mut world, PROVINCE, chair, Deed::OffStage("other".into()));
    act(&mut world, PROVINCE, chair, Deed::Stage("other".into()));
    after(&mut world, 1000);
    assert!(stage(&world, VILLAGE).contains(&"deputy".to_owned()));
    mend(&mut world, CITY, COUNTY);
    after(&mut world, 3000);
    all_see_all(&world);
    let log = world.node(PROVINCE).unwrap().log(MAIN);
    let roots: BTreeSet<NodeId> = log.iter().map(|entry| entry.epoch.root).collect();
    assert_eq!(roots, [node_id(PROVINCE), node_id(COUNTY)].into());
}

#[test]
fn f4_a_node_that_restarts_faster_than_any_timer_is_not_believed_to_have_its_people() {
    let (mut world, ..) = meeting();
    world.kill(VILLAGE);
    after(&mut world, 20);
    world.start(VILLAGE);
    after(&mut world, 1500);
    assert!(!people(&world, PROVINCE).contains("one"));
    join(&mut world, VILLAGE, "one", None);
    after(&mut world, 3000);
    all_see_all(&world);
}

#[test]
fn f6_who_moved_is_not_expired_where_they_came_from() {
    let (mut world, ..) = meeting();
    cut(&mut world, TOWNSHIP, VILLAGE);
    after(&mut world, 4000);
    join(&mut world, OTHER_VILLAGE, "one", None);
    after(&mut world, 3 * AWAY_TIME.as_millis() as u64);
    assert!(people(&world, PROVINCE).contains("one"));
    mend(&mut world, TOWNSHIP, VILLAGE);
    after(&mut world, 5000);
    let one = world
        .node(PROVINCE)
        .unwrap()
        .participant(MAIN, &"one".into())
        .unwrap();
    assert_eq!(place_of(one.session.node), OTHER_VILLAGE);
    assert!(
        people(&world, VILLAGE).is_empty(),
        "the old connection is over"
    );
}

#[test]
fn f7_after_each_heal_everybody_sees_and_hears_everybody() {
    for (upper, lower) in [
        (PROVINCE, CITY),
        (CITY, COUNTY),
        (COUNTY, TOWNSHIP),
        (TOWNSHIP, VILLAGE),
    ] {
        for time in [1000, 2400, 4000, 20_000, 70_000] {
            let (mut world, ..) = meeting();
            all_see_all(&world);
            cut(&mut world, upper, lower);
            after(&mut world, time);
            mend(&mut world, upper, lower);
            after(&mut world, 3000);
            all_see_all(&world);
        }
    }
}

#[test]
fn f8_nothing_is_sent_on_after_the_last_wish_is_gone() {
    let (mut world, chair, one, _) = meeting();
    let wish = |world: &mut World, quality| {
        world.at(OTHER_VILLAGE, |node, moment| {
            let session = node.participant(MAIN, &"other".into()).unwrap().session;
            node.want(moment, MAIN, session, camera(one), quality)
        });
    };
    wish(&mut world, Some(Quality::High));
    after(&mut world, 500);
    let of_camera = |world: &World| {
        forwards(world)
            .iter()
            .filter(|(_, _, track)| *track == camera(one))
            .count()
    };
    assert_eq!(
        of_camera(&world),
        6,
        "up three lines and down three, each once"
    );
    wish(&mut world, None);
    after(&mut world, 500);
    assert_eq!(of_camera(&world), 0);
    wish(&mut world, Some(Quality::Low));
    after(&mut world, 500);
    world.kill(OTHER_VILLAGE);
    after(&mut world, 4000);
    assert_eq!(of_camera(&world), 0);
    let _ = chair;
}

#[test]
fn f9_a_branch_knows_within_three_seconds_however_its_line_dies() {
    const BOTH: [bool; 2] = [true; 2];
    for (control, media) in [
        ([false, false], [false, false]),
        ([false, true], [false, true]),
        ([true, false], [true, false]),
        ([false, false], BOTH),
        (BOTH, [false, false]),
        ([true, false], BOTH),
        (BOTH, [false, true]),
    ] {
        let (mut world, ..) = meeting();
        set_line(&mut world, CITY, COUNTY, control, media);
        after(&mut world, 3000);
        let county = world.node(COUNTY).unwrap();
        assert!(county.is_own_epoch(MAIN), "{control:?} {media:?}");
        after(&mut world, 200);
        assert_eq!(world.node(PROVINCE).unwrap().away(MAIN), [node_id(COUNTY)]);
        mend(&mut world, CITY, COUNTY);
        after(&mut world, 3000);
        all_see_all(&world);
    }
}

#[test]
fn f10_a_thousand_who_join_at_once_ask_the_encoder_once_in_an_interval() {
    let mut shape = shape();
    let villages: Vec<usize> = (0..150)
        .map(|_| shape.add(Level::Village, &[TOWNSHIP]))
        .collect();
    let mut world = world_of(&shape);
    let chair = join(&mut world, PROVINCE, "chair", Some(PROVINCE));
    act(&mut world, PROVINCE, chair, Deed::Stage("chair".into()));
    after(&mut world, 500);
    for number in 0..1000 {
        let at = villages[number % villages.len()];
        let session = join(&mut world, at, &format!("p{number}"), None);
        world.at(at, |node, moment| {
            node.want(moment, MAIN, session, camera(chair), Some(Quality::High))
        });
        after(&mut world, 1);
    }
    // That no two requests are closer than the interval the world checks itself.
    after(&mut world, 1000);
    assert!(
        world.count("keyframe requests") <= 8,
        "{}",
        world.count("keyframe requests")
    );
    assert_eq!(people(&world, PROVINCE).len(), 1001);
}

#[test]
fn f11_a_keyframe_request_that_is_lost_is_repeated() {
    for (upper, lower) in [
        (PROVINCE, CITY),
        (CITY, COUNTY),
        (COUNTY, TOWNSHIP),
        (TOWNSHIP, VILLAGE),
    ] {
        let (mut world, chair, ..) = meeting();
        world.at(VILLAGE, |node, moment| {
            let session = node.participant(MAIN, &"one".into()).unwrap().session;
            node.want(moment, MAIN, session, camera(chair), Some(Quality::High))
        });
        world.waiting.insert((VILLAGE, camera(chair)), world.now);
        let link = world.link_between(upper, lower).unwrap();
        world.keyframes_lost_on = Some((link, 3));
        after(&mut world, 2000);
        assert!(world.waiting.is_empty());
        assert!(
            world.longest_wait <= 1000,
            "{} ms over {upper}-{lower}",
            world.longest_wait
        );
    }
}

#[test]
fn f12_who_reconnects_elsewhere_leaves_no_ghost_with_rights() {
    let (mut world, ..) = meeting();
    let old = join(&mut world, TOWNSHIP, "deputy", Some(COUNTY));
    after(&mut world, 1000);
    join(&mut world, COUNTY, "deputy", None);
    after(&mut world, 1000);
    let there = world
        .node(PROVINCE)
        .unwrap()
        .participant(MAIN, &"deputy".into())
        .unwrap();
    assert_eq!(
        (place_of(there.session.node), there.chair_of),
        (COUNTY, None)
    );
    let gone = world.at(TOWNSHIP, |node, moment| {
        node.act(moment, MAIN, old, Deed::Mute("one".into()))
    });
    assert_eq!(gone, Some(Err(Denied::NoSession)));
}

#[test]
fn f13_f14_what_was_done_during_a_cut_is_told_when_it_is_over() {
    let (mut world, chair, ..) = meeting();
    let left = join(&mut world, CITY, "left", None);
    for name in ["removed", "revoked"] {
        join(&mut world, TOWNSHIP, name, None);
    }
    act(&mut world, PROVINCE, chair, Deed::Stage("left".into()));
    after(&mut world, 1000);
    cut(&mut world, CITY, COUNTY);
    after(&mut world, 4000);
    world.at(CITY, |node, moment| node.leave(moment, MAIN, left));
    act(&mut world, PROVINCE, chair, Deed::Mute("one".into()));
    act(&mut world, PROVINCE, chair, Deed::Remove("removed".into()));
    act(&mut world, PROVINCE, chair, Deed::Revoke("revoked".into()));
    after(&mut world, 20_000);
    assert!(
        may_be_heard(&world, VILLAGE, "one"),
        "the branch can't know"
    );
    let one = world
        .node(VILLAGE)
        .unwrap()
        .participant(MAIN, &"one".into())
        .unwrap();
    let sound = one.microphone().unwrap();
    mend(&mut world, CITY, COUNTY);
    for _ in 0..60 {
        after(&mut world, 50);
        let crosses = forwards(&world)
            .iter()
            .any(|(from, to, track)| *track == sound && (*from, *to) == (COUNTY, CITY));
        assert!(!crosses, "not one packet of sound after the heal");
    }
    assert!(!may_be_heard(&world, VILLAGE, "one"));
    assert!(!people(&world, TOWNSHIP).contains("removed"));
    let revoked = world
        .node(TOWNSHIP)
        .unwrap()
        .participant(MAIN, &"revoked".into())
        .unwrap();
    assert!(revoked.tracks.is_empty());
    assert!(!stage(&world, VILLAGE).contains(&"left".to_owned()));
}

#[test]
fn f14_a_mute_outlives_a_restart_and_a_new_session() {
    let (mut world, chair, ..) = meeting();
    act(&mut world, PROVINCE, chair, Deed::Mute("one".into()));
    after(&mut world, 1000);
    world.kill(VILLAGE);
    after(&mut world, 100);
    world.start(VILLAGE);
    after(&mut world, 1500);
    let again = join(&mut world, VILLAGE, "one", None);
    after(&mut world, 3000);
    assert!(!may_be_heard(&world, VILLAGE, "one"));
    world.at(VILLAGE, |node, moment| {
        node.set_microphone(moment, MAIN, again, true)
    });
    after(&mut world, 1000);
    assert!(
        may_be_heard(&world, PROVINCE, "one"),
        "who has seen the mute may open it"
    );
}

#[test]
fn f15_whatever_is_late_or_comes_twice_the_end_is_the_same() {
    let (mut world, chair, ..) = meeting();
    world.unruly = 0.4;
    for round in 0..20 {
        act(
            &mut world,
            PROVINCE,
            chair,
            Deed::Chat(format!("{round}").into()),
        );
        act(&mut world, PROVINCE, chair, Deed::OffStage("one".into()));
        act(&mut world, PROVINCE, chair, Deed::Stage("one".into()));
        after(&mut world, 300);
    }
    world.kill(TOWNSHIP);
    after(&mut world, 100);
    world.start(TOWNSHIP);
    after(&mut world, 9000);
    all_see_all(&world);
}

#[test]
fn f16_in_a_ring_of_parents_and_siblings_nothing_goes_round() {
    let mut shape = shape();
    // The county has its own township as second way, and the townships have each other.
    shape.spots[COUNTY].ways.push(TOWNSHIP);
    shape.spots[TOWNSHIP].siblings.push(7);
    shape.spots[7].siblings.push(TOWNSHIP);
    let mut world = world_of(&shape);
    join(&mut world, PROVINCE, "chair", Some(PROVINCE));
    join(&mut world, VILLAGE, "one", None);
    after(&mut world, 3000);
    let messages = |world: &mut World| {
        let before = world.count("batches");
        after(world, 600_000);
        world.count("batches") - before
    };
    assert_eq!(messages(&mut world), 0, "in rest only heartbeats are sent");
    cut(&mut world, CITY, COUNTY);
    after(&mut world, 20_000);
    // The township reaches the other one; and the county, if at all, by the township.
    assert_eq!(world.node(TOWNSHIP).unwrap().way(), Some(node_id(7)));
    assert_eq!(world.node(COUNTY).unwrap().way(), Some(node_id(TOWNSHIP)));
    assert_eq!(
        world.node(COUNTY).unwrap().path().last().unwrap().node,
        node_id(PROVINCE)
    );
    assert_eq!(epoch(&world, VILLAGE), epoch(&world, PROVINCE));
    mend(&mut world, CITY, COUNTY);
    after(&mut world, 20_000);
    assert_eq!(world.node(COUNTY).unwrap().way(), Some(node_id(CITY)));
    assert_eq!(messages(&mut world), 0);
    assert_eq!(
        people(&world, PROVINCE),
        ["chair", "one"].map(str::to_owned).into()
    );
}

#[test]
fn f17_a_node_with_two_ways_up_takes_the_second() {
    let mut shape = shape();
    shape.spots[TOWNSHIP].ways.push(6);
    let mut world = world_of(&shape);
    let chair = join(&mut world, PROVINCE, "chair", Some(PROVINCE));
    join(&mut world, VILLAGE, "one", None);
    after(&mut world, 1000);
    act(&mut world, PROVINCE, chair, Deed::Stage("one".into()));
    after(&mut world, 1000);
    cut(&mut world, COUNTY, TOWNSHIP);
    after(&mut world, 5000);
    assert_eq!(world.node(TOWNSHIP).unwrap().way(), Some(node_id(6)));
    assert_eq!(epoch(&world, VILLAGE), epoch(&world, PROVINCE));
    after(&mut world, 2 * AWAY_TIME.as_millis() as u64);
    assert!(
        people(&world, PROVINCE).contains("one"),
        "the old path's end takes nobody away"
    );
    assert!(people(&world, COUNTY).is_empty());
    mend(&mut world, COUNTY, TOWNSHIP);
    after(&mut world, 15_000);
    assert_eq!(world.node(TOWNSHIP).unwrap().way(), Some(node_id(COUNTY)));
    assert!(people(&world, 6).is_empty());
    assert!(people(&world, PROVINCE).contains("one"));
}

#[test]
fn f19_a_storm_of_joins_at_one_township_is_over_in_a_moment() {
    let mut shape = shape();
    let villages: Vec<usize> = (0..168)
        .map(|_| shape.add(Level::Village, &[TOWNSHIP]))
        .collect();
    let mut world = world_of(&shape);
    for (number, village) in villages.iter().enumerate() {
        join(&mut world, *village, &format!("p{number}"), None);
    }
    let before = world.count("batches");
    after(&mut world, 1500);
    assert_eq!(people(&world, PROVINCE).len(), 168);
    let each = (world.count("batches") - before) / 168;
    assert!(each <= 12, "{each} messages for each");
}

#[test]
fn f21_a_command_finds_who_joined_three_levels_down_a_moment_ago() {
    let (mut world, chair, ..) = meeting();
    join(&mut world, 5, "new", None);
    // As soon as the chair can know of them.
    while !people(&world, PROVINCE).contains("new") {
        after(&mut world, 1);
    }
    act(&mut world, PROVINCE, chair, Deed::Mute("new".into()));
    after(&mut world, 500);
    assert!(!may_be_heard(&world, 5, "new"));
}

#[test]
fn f22_who_opened_the_conference_leaves_and_nobody_moves() {
    let (mut world, chair, ..) = meeting();
    let before = epoch(&world, VILLAGE);
    world.at(PROVINCE, |node, moment| node.leave(moment, MAIN, chair));
    after(&mut world, 70_000);
    assert_eq!(epoch(&world, VILLAGE), before);
    assert_eq!(stage(&world, VILLAGE), ["one", "other"]);
    assert_eq!(people(&world, PROVINCE).len(), 2);
}

#[test]
fn f23_of_two_thousand_open_microphones_few_cross_a_line_and_all_agree_who_speaks() {
    let mut shape = shape();
    let villages: Vec<usize> = (0..100)
        .map(|number| shape.add(Level::Village, &[[TOWNSHIP, 7][number % 2]]))
        .collect();
    let mut world = world_of(&shape);
    let chair = join(&mut world, PROVINCE, "chair", Some(PROVINCE));
    act(&mut world, PROVINCE, chair, Deed::OpenFloor(true));
    let mut people = Vec::new();
    for number in 0..2000 {
        let at = villages[number % villages.len()];
        people.push((at, join(&mut world, at, &format!("{number:04}"), None)));
    }
    after(&mut world, 3000);
    for loudest in [17, 1400] {
        for _ in 0..20 {
            for (number, (at, session)) in people.iter().enumerate() {
                let level = if number == loudest {
                    10
                } else {
                    25 + (number % 30) as u8
                };
                world.at(*at, |node, moment| {
                    node.loudness(moment, MAIN, *session, level)
                });
            }
            after(&mut world, 50);
        }
        let speaker = Some(Identity(format!("{loudest:04}").into()));
        for at in [PROVINCE, CITY, COUNTY, TOWNSHIP, 7]
            .iter()
            .chain(&villages)
        {
            let speakers = world.node(*at).unwrap().speakers(MAIN);
            assert_eq!(speakers.dominant, speaker, "at {at}");
            assert!(speakers.heard.len() <= HEARD_BOUND);
        }
        let mut lines = std::collections::BTreeMap::new();
        for (from, to, track) in forwards(&world) {
            *lines.entry((from, to)).or_insert(0) += usize::from(track.is_sound());
        }
        assert!(
            lines.values().all(|sounds| *sounds <= HEARD_BOUND),
            "{lines:?}"
        );
    }
}

#[test]
fn the_end_of_a_conference_reaches_also_who_was_cut_off() {
    let (mut world, chair, ..) = meeting();
    cut(&mut world, CITY, COUNTY);
    after(&mut world, 4000);
    act(&mut world, PROVINCE, chair, Deed::End);
    after(&mut world, 70_000);
    assert!(world.node(OTHER_VILLAGE).unwrap().is_ended(MAIN));
    assert!(!world.node(VILLAGE).unwrap().is_ended(MAIN));
    mend(&mut world, CITY, COUNTY);
    after(&mut world, 5000);
    assert!(world.node(VILLAGE).unwrap().is_ended(MAIN));
}

#[test]
fn a_chair_of_a_branch_acts_on_its_branch_only() {
    let (mut world, ..) = meeting();
    let deputy = join(&mut world, COUNTY, "deputy", Some(COUNTY));
    let nobody = join(&mut world, COUNTY, "nobody", None);
    after(&mut world, 1000);
    act(&mut world, COUNTY, nobody, Deed::Mute("one".into()));
    act(&mut world, COUNTY, deputy, Deed::Mute("other".into()));
    act(&mut world, COUNTY, deputy, Deed::End);
    after(&mut world, 1000);
    assert!(may_be_heard(&world, PROVINCE, "one") && may_be_heard(&world, PROVINCE, "other"));
    assert!(!world.node(PROVINCE).unwrap().is_ended(MAIN));
    act(&mut world, COUNTY, deputy, Deed::Mute("one".into()));
    after(&mut world, 1000);
    assert!(!may_be_heard(&world, VILLAGE, "one"));
}

#[test]
fn a_node_that_speaks_for_others_is_not_believed() {
    let (mut world, ..) = meeting();
    let forged = |session: Session| Participant {
        identity: "forged".into(),
        session,
        joined: u64::MAX,
        replaces: None,
        name: "forged".into(),
        organisation: OrganisationId(1),
        level: Level::Village,
        chair_of: Some(node_id(PROVINCE)),
        rights: Rights::default(),
        tracks: Vec::new(),
    };
    let session = Session {
        node: node_id(OTHER_VILLAGE),
        incarnation: 1,
        number: 99,
    };
    let begin = Item::Begin {
        root: node_id(PROVINCE),
        answers: None,
    };
    let items = [
        Item::Participant(Arc::new(forged(session))),
        Item::Ended,
        Item::Stage(Arc::new(forged(session))),
    ];
    for (stream, item) in (1000..).zip(items) {
        let envelope = Envelope {
            from: node_id(TOWNSHIP),
            to: node_id(COUNTY),
            incarnation: 1,
            to_incarnation: Some(1),
            number: 1,
            message: Message::Batch(Batch {
                conference: MAIN,
                epoch: None,
                stream,
                sequence: 0,
                items: vec![begin.clone(), item].into(),
            }),
        };
        world.at(COUNTY, |node, moment| node.receive(moment, envelope));
        after(&mut world, 100);
    }
    assert!(world.count("refused") >= 3);
    assert!(!people(&world, COUNTY).contains("forged"));
    assert!(!stage(&world, PROVINCE).contains(&"forged".to_owned()));
    assert!(!world.node(COUNTY).unwrap().is_ended(MAIN));
}

#[test]
fn an_end_of_a_media_line_is_heard_once_and_not_at_all_if_it_cannot_be_one() {
    let mut world = five_levels();
    let say = |world: &mut World, number, user: &str| {
        let end = sfu::RelayEnd {
            user: user.into(),
            password: "p".repeat(24),
            fingerprint: "sha-256 00".into(),
            addresses: Vec::new(),
        };
        let media = MediaLine {
            number,
            end: Some(end),
        };
        world.at(CITY, |node, moment| {
            node.say_media(moment, node_id(PROVINCE), Some(media));
        });
        after(world, 2000);
        let heard = world.media.iter();
        heard
            .map(|(by, of, media)| (*by, *of, media.as_ref().map(|media| media.number)))
            .collect::<Vec<_>>()
    };
    let told = (PROVINCE, CITY, Some(1));
    assert_eq!(say(&mut world, 1, "user"), [told]);
    assert_eq!(say(&mut world, 2, "not\r\nan end"), [told]);
    // A restart loses it.
    world.kill(CITY);
    after(&mut world, 500);
    world.start(CITY);
    after(&mut world, 2000);
    let last = world.media.last();
    assert_eq!(last, Some(&(PROVINCE, CITY, None)));
}
