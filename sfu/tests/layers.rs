//! Streams with temporal and spatial layers through the shard: whatever is left out for a viewer, what
//! it gets decodes, by the dependencies of its frames, and has no gaps.

#[expect(dead_code, reason = "the simulation uses the rest")]
mod world;

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sfu::account::{LineState, Reason};
use sfu::{Codec, Event, Quality, Selection};
use world::svc::{Decoded, Shape};
use world::{Link, World};

const SECOND: Duration = Duration::from_secs(1);

/// A publisher of a stream and viewers of it.
fn meeting(seed: u64, shape: Shape, layers: &[&'static str], viewers: usize) -> World {
    let mut world = World::new(seed, Link::default());
    world.add_layered(layers, shape);
    for _ in 0..viewers {
        world.add_subscriber(Selection::of(Quality::High));
    }
    world.run(3 * SECOND);
    world
}

fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for codec in [Codec::Vp9, Codec::Av1] {
        for (spatial, temporal) in [(3, 3), (3, 1), (2, 3), (1, 3), (1, 2)] {
            for is_key_only in [false, true] {
                shapes.push(Shape {
                    is_key_only,
                    ..Shape::new(codec, spatial, temporal)
                });
            }
        }
    }
    shapes.push(Shape::new(Codec::Vp8, 1, 3));
    shapes.push(Shape::new(Codec::Vp8, 1, 2));
    shapes
}

/// Up to where a viewer decoded in the last second; it must have been without a fault all along.
fn top(world: &World, shape: Shape, viewer: usize) -> (u8, u8) {
    let decoded = Decoded::read(shape, world.received(viewer));
    assert_eq!(decoded.faults, Vec::<String>::new(), "{shape:?}");
    assert!(!decoded.is_stuck, "{shape:?}");
    let last = decoded.shown.last().expect("something is shown").picture;
    let since = decoded.shown.iter().position(|one| one.picture + 20 > last);
    decoded.top_since(since.unwrap_or(0))
}

#[test]
fn a_viewer_gets_the_layers_that_it_wants_and_others_get_all() {
    for shape in shapes() {
        let mut world = meeting(1, shape, &["f"], 2);
        let all = (shape.spatial - 1, shape.temporal - 1);
        assert_eq!(top(&world, shape, 0), all, "{shape:?}");
        for quality in [
            Quality::Low,
            Quality::Medium,
            Quality::High,
            Quality::Low,
            Quality::High,
        ] {
            world.select(0, Selection::of(quality));
            world.run(2 * SECOND);
            let below = Quality::High as u8 - quality as u8;
            let expected = (all.0.saturating_sub(below), all.1);
            assert_eq!(top(&world, shape, 0), expected, "{shape:?} {quality:?}");
            assert_eq!(top(&world, shape, 1), all, "{shape:?}");
        }
        let decoded = Decoded::read(shape, world.received(0));
        assert_eq!(decoded.gaps, 0, "{shape:?}");
        let seen = decoded.shown.last().unwrap().picture - decoded.shown[0].picture;
        assert_eq!(
            decoded.shown.len() as u32,
            seen + 1,
            "no picture is left out"
        );
    }
}

#[test]
fn fewer_pictures_a_second_are_sent_where_fewer_are_enough() {
    for shape in shapes() {
        let mut world = meeting(2, shape, &["f"], 1);
        let all = shape.temporal - 1;
        let before = world.keyframe_requests();
        for (frame_rate, expected) in [
            (0, all),
            // 7.5 and 15 a second are what the layers of 30 have; two layers have 15.
            (6, 0),
            (15, all.saturating_sub(1)),
            (30, all),
            (1, 0),
            (24, all),
        ] {
            let wish = Selection {
                frame_rate,
                ..Selection::of(Quality::High)
            };
            world.select(0, wish);
            world.run(2 * SECOND);
            assert_eq!(top(&world, shape, 0).1, expected, "{shape:?} {frame_rate}");
        }
        assert_eq!(Decoded::read(shape, world.received(0)).gaps, 0, "{shape:?}");
        assert_eq!(
            world.keyframe_requests(),
            before,
            "{shape:?} needs no keyframe"
        );
    }
}

#[test]
fn what_is_lost_on_the_way_is_repaired_whatever_is_left_out() {
    for (seed, shape) in (10..).zip(shapes()) {
        let mut world = meeting(seed, shape, &["f"], 2);
        world.set_link(Link {
            delay: Duration::from_millis(20),
            jitter: Duration::from_millis(12),
            loss: 0.02,
            duplicates: 0.02,
        });
        for (quality, frame_rate) in [
            (Quality::Low, 0),
            (Quality::High, 8),
            (Quality::Medium, 15),
            (Quality::Low, 8),
            (Quality::High, 0),
        ] {
            let wish = Selection {
                frame_rate,
                ..Selection::of(quality)
            };
            world.select(0, wish);
            world.run(2 * SECOND);
        }
        world.set_link(Link::default());
        world.run(3 * SECOND);
        for viewer in 0..2 {
            let decoded = Decoded::read(shape, world.received(viewer));
            assert!(!decoded.is_stuck, "{shape:?}: the picture stands");
            let share = decoded.gaps as f64 / world.received(viewer).len() as f64;
            assert!(
                share < 0.02,
                "{shape:?}, viewer {viewer}: {share} not repaired"
            );
            let last = decoded.shown.last().unwrap().picture;
            let since = decoded.shown.iter().position(|one| one.picture + 20 > last);
            let all = (shape.spatial - 1, shape.temporal - 1);
            assert_eq!(
                decoded.top_since(since.unwrap()),
                all,
                "{shape:?}, viewer {viewer}"
            );
        }
    }
}

#[test]
fn temporal_layers_of_simulcast_streams_run_on_over_a_change() {
    let shape = Shape::new(Codec::Vp8, 1, 3);
    let mut world = meeting(3, shape, &["q", "h", "f"], 2);
    for (quality, frame_rate, expected) in [
        (Quality::Low, 7, ('q', 0)),
        (Quality::High, 7, ('f', 0)),
        (Quality::Medium, 0, ('h', 2)),
        (Quality::High, 15, ('f', 1)),
    ] {
        let wish = Selection {
            frame_rate,
            ..Selection::of(quality)
        };
        world.select(0, wish);
        world.run(2 * SECOND);
        let (_, temporal) = top(&world, shape, 0);
        let last = *Decoded::read(shape, world.received(0))
            .shown
            .last()
            .unwrap();
        assert_eq!((last.name, temporal), expected);
    }
    assert_eq!(Decoded::read(shape, world.received(0)).gaps, 0);
    assert_eq!(top(&world, shape, 1).1, 2, "another's wish changes nothing");
}

#[test]
fn a_thin_line_and_the_step_that_it_leaves_can_be_read_in_the_account() {
    let shape = Shape {
        size: 1100,
        ..Shape::new(Codec::Vp9, 3, 3)
    };
    let mut world = meeting(5, shape, &["f"], 2);
    world.narrow(0, 1.3e6);
    world.run(20 * SECOND);
    let thin = world.account(0);
    let line = thin.line;
    assert_eq!(line.state, LineState::Limited, "{line:?}");
    let left = line.for_pictures.unwrap();
    assert!(Some(left) <= line.estimate, "{line:?}");
    assert!((10..200).contains(&line.round_trip.unwrap().as_millis()));
    let picture = &thin.pictures[0];
    assert_eq!(picture.reason, Reason::Line, "{picture:?}");
    let (best, sent) = (picture.steps.last().unwrap(), picture.sent.unwrap());
    assert_eq!((best.spatial, best.temporal), (2, 2));
    assert!(picture.steps.is_sorted_by_key(|step| step.bits));
    assert!(sent.spatial < 2 && sent.bits <= left, "{picture:?}");
    assert!(best.bits * 115 / 100 > left, "{line:?} {picture:?}");
    assert_eq!(picture.given, picture.sent);

    let other = world.account(1);
    assert_eq!(other.pictures[0].reason, Reason::All);
    assert_eq!(other.pictures[0].sent.unwrap().spatial, 2);

    let published = world.publishers_account();
    let camera = &published.published[0];
    assert_eq!(camera.wanted, Some(Quality::High));
    let counts: Vec<_> = camera.layers.iter().map(|one| one.subscribers).collect();
    assert_eq!((counts[2], counts.iter().sum()), (1, 2), "{camera:?}");
    assert!(camera.layers.iter().all(|one| one.temporal_layers == 3));
}

/// Why a viewer's picture was no better, in turn, over a while.
fn reasons(world: &mut World, viewer: usize, time: Duration) -> Vec<Reason> {
    let step = SECOND / 8;
    let mut reasons = Vec::new();
    for _ in 0..time.as_millis() / step.as_millis() {
        world.run(step);
        reasons.push(world.account(viewer).pictures[0].reason);
    }
    reasons.dedup();
    reasons
}

#[test]
fn why_a_picture_is_no_better_is_told_as_it_changes() {
    let shape = Shape {
        size: 1100,
        ..Shape::new(Codec::Vp9, 3, 3)
    };
    let mut world = meeting(6, shape, &["f"], 0);
    let viewer = world.add_subscriber(Selection::of(Quality::High));
    assert_eq!(
        reasons(&mut world, viewer, 5 * SECOND),
        [Reason::Unmeasured, Reason::Keyframe, Reason::All]
    );
    world.narrow(viewer, 0.45e6);
    let told = reasons(&mut world, viewer, 10 * SECOND);
    assert_eq!(told.last(), Some(&Reason::Line), "{told:?}");
}

#[test]
fn a_thin_line_carries_fewer_layers_and_no_pause() {
    for codec in [Codec::Vp9, Codec::Av1] {
        let shape = Shape {
            size: 1100,
            ..Shape::new(codec, 3, 3)
        };
        // Six packets a picture: about 1.7 Mbit/s, a third of it for each spatial layer, and of each
        // a quarter for the lowest temporal one.
        let mut world = meeting(4, shape, &["f"], 2);
        for (rate, spatial, temporals) in [
            (1.3e6, 0..=1, 2..=2),
            (0.45e6, 0..=0, 0..=1),
            (4e6, 2..=2, 2..=2),
        ] {
            world.narrow(0, rate);
            world.run(25 * SECOND);
            let decoded = Decoded::read(shape, world.received(0));
            let last = decoded.shown.last().unwrap().picture;
            let since = decoded.shown.iter().position(|one| one.picture + 60 > last);
            let top = decoded.top_since(since.unwrap());
            assert!(
                spatial.contains(&top.0) && temporals.contains(&top.1),
                "{codec:?} at {rate}: {top:?}"
            );
        }
        assert!(
            !world.told(|event| matches!(
                event,
                Event::Paused {
                    is_paused: true,
                    ..
                }
            )),
            "{codec:?}"
        );
        assert_eq!(
            top(&world, shape, 1),
            (2, 2),
            "another's line changes nothing"
        );
    }
}

#[test]
fn lines_that_change_leave_what_decodes() {
    for (seed, shape) in (100..).zip(shapes()) {
        let mut random = StdRng::seed_from_u64(seed);
        let layers: &[&str] = if shape.spatial > 1 || random.random_bool(0.5) {
            &["f"]
        } else {
            &["q", "h", "f"]
        };
        let shape = Shape {
            size: random.random_range(300..1150),
            ..shape
        };
        let mut world = meeting(seed, shape, layers, 2);
        for _ in 0..3 {
            world.narrow(0, random.random_range(0.2e6..3e6));
            world.run(5 * SECOND);
        }
        world.narrow(0, 20e6);
        world.run(12 * SECOND);
        for viewer in 0..2 {
            let decoded = Decoded::read(shape, world.received(viewer));
            assert_eq!(decoded.faults, Vec::<String>::new(), "{seed}: {shape:?}");
            assert!(!decoded.is_stuck, "{seed}: {shape:?}, viewer {viewer}");
        }
    }
}
