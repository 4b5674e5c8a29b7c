//! One picture in two codecs through the shard: who gets which, and what the publisher need not send.

#[expect(dead_code, reason = "the other tests use the rest")]
mod world;

use std::time::Duration;

use sfu::{Codec, Encoding, Event, Quality, Role, Selection};
use world::svc::{Decoded, Shape};
use world::{Link, World};

const SECOND: Duration = Duration::from_secs(1);

const PRIMARY: char = 'f';
const BACKUP: char = 'b';

fn av1() -> Shape {
    Shape::new(Codec::Av1, 1, 1)
}

fn vp8() -> Shape {
    Shape::new(Codec::Vp8, 1, 1)
}

/// A publisher of AV1 with VP8 for those who need it, and a viewer who takes both.
fn meeting(seed: u64) -> World {
    let mut world = World::new(seed, Link::default());
    world.add_with_backup(av1(), Codec::Vp8);
    world.add_subscriber(Selection::of(Quality::High));
    world.run(2 * SECOND);
    assert_eq!(seen(&world, 0), [PRIMARY]);
    assert_eq!(wanted(&world), (Some(Quality::High), None));
    world
}

/// In which encodings a viewer saw the picture, one after another; everything decoded.
fn seen(world: &World, viewer: usize) -> Vec<char> {
    // One who comes again has an SSRC of its own.
    let packets = world.received(viewer);
    let ssrc = packets.last().map(|last| last.header.ssrc);
    let since = packets.iter().position(|one| Some(one.header.ssrc) == ssrc);
    let decoded = Decoded::read(av1(), &packets[since.unwrap_or(0)..]);
    assert_eq!(decoded.faults, Vec::<String>::new());
    assert_eq!(decoded.gaps, 0);
    let mut names: Vec<char> = decoded.shown.iter().map(|one| one.name).collect();
    names.dedup();
    names
}

/// The longest time without a picture that a viewer saw, in pictures.
fn longest_gap(world: &World, viewer: usize) -> u32 {
    let mut times: Vec<_> = world
        .received(viewer)
        .iter()
        .map(|packet| packet.header.timestamp)
        .collect();
    times.dedup();
    let steps = times.windows(2).map(|two| two[1].wrapping_sub(two[0]));
    steps.max().unwrap_or(0) / 2970
}

fn wanted(world: &World) -> (Option<Quality>, Option<Quality>) {
    (
        world.wanted(Encoding::Primary),
        world.wanted(Encoding::Backup),
    )
}

fn not_accepted(world: &World) -> bool {
    world.told(|event| matches!(event, Event::CodecNotAccepted { .. }))
}

#[test]
fn who_does_not_take_the_primary_codec_gets_the_backup_and_the_others_keep_what_they_have() {
    let mut world = meeting(1);
    let old = world.add_old(Role::Subscribe);
    world.run(SECOND);
    assert_eq!(wanted(&world), (Some(Quality::High), Some(Quality::High)));
    assert!(world.received(old).is_empty());
    world.add_backup(&["b"], vp8(), false);
    world.run(2 * SECOND);
    assert_eq!(seen(&world, old), [BACKUP]);
    assert_eq!(seen(&world, 0), [PRIMARY]);
    assert!(!not_accepted(&world), "there is a codec for it");

    world.unsubscribe(old);
    world.run(SECOND);
    assert_eq!(wanted(&world), (Some(Quality::High), None));
    world.stop_layer("b");
    world.run(5 * SECOND);
    assert_eq!(seen(&world, 0), [PRIMARY]);

    world.resubscribe(old);
    world.run(SECOND);
    assert_eq!(wanted(&world), (Some(Quality::High), Some(Quality::High)));
    world.start_layer("b");
    world.run(2 * SECOND);
    assert_eq!(seen(&world, old), [BACKUP]);
    assert_eq!(seen(&world, 0), [PRIMARY]);
}

#[test]
fn what_is_taken_goes_by_offers_as_by_answers() {
    for role in [Role::Subscribe, Role::Single, Role::View] {
        let mut world = meeting(5);
        let old = world.add_old(role);
        world.run(SECOND);
        let asked = (Some(Quality::High), Some(Quality::High));
        assert_eq!(wanted(&world), asked, "{role:?}");
        world.add_backup(&["b"], vp8(), false);
        world.run(2 * SECOND);
        assert_eq!(seen(&world, old), [BACKUP], "{role:?}");
    }
}

#[test]
fn a_backup_that_replaces_is_everybodys_while_somebody_needs_it_and_nobodys_picture_stands_still() {
    let mut world = meeting(2);
    let old = world.add_old(Role::Subscribe);
    world.run(SECOND);
    world.add_backup(&["b"], vp8(), true);
    world.run(2 * SECOND);
    assert_eq!(seen(&world, 0), [PRIMARY, BACKUP]);
    assert_eq!(seen(&world, old), [BACKUP]);
    assert_eq!(wanted(&world), (None, Some(Quality::High)));
    world.stop_layer("f");
    world.run(5 * SECOND);
    assert_eq!(wanted(&world), (None, Some(Quality::High)));

    world.unsubscribe(old);
    world.run(SECOND);
    assert_eq!(
        wanted(&world),
        (Some(Quality::High), Some(Quality::High)),
        "the backup is sent until the other comes again"
    );
    world.start_layer("f");
    world.run(SECOND);
    assert_eq!(seen(&world, 0), [PRIMARY, BACKUP, PRIMARY]);
    assert_eq!(wanted(&world), (Some(Quality::High), None));
    let gap = longest_gap(&world, 0);
    assert!(gap <= 3, "{gap} pictures");
}

#[test]
fn a_backup_that_never_comes_takes_nothing_from_those_who_do_not_need_it() {
    let mut world = meeting(3);
    world.add_old(Role::Subscribe);
    world.run(10 * SECOND);
    assert_eq!(wanted(&world), (Some(Quality::High), Some(Quality::High)));
    assert_eq!(seen(&world, 0), [PRIMARY]);
}

#[test]
fn a_backup_in_simulcast_layers_is_chosen_from_like_any_picture() {
    let mut world = meeting(4);
    let old = world.add_old(Role::Subscribe);
    world.add_backup(&["q", "b"], vp8(), true);
    world.run(2 * SECOND);
    for viewer in [0, old] {
        world.select(viewer, Selection::of(Quality::Low));
    }
    world.run(2 * SECOND);
    assert_eq!(wanted(&world), (None, Some(Quality::Low)));
    assert_eq!(seen(&world, 0).last(), Some(&'q'));
    assert_eq!(seen(&world, old).last(), Some(&'q'));
    world.select(0, Selection::of(Quality::High));
    world.run(2 * SECOND);
    assert_eq!(seen(&world, 0).last(), Some(&BACKUP));
    assert_eq!(seen(&world, old).last(), Some(&'q'));
}
