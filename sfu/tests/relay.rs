//! Nodes in a row, whose lines carry what is published at one of them to viewers at all others.

#[expect(dead_code, reason = "the other tests use the rest")]
mod world;

use std::time::Duration;

use sfu::{
    Codec, Command, ConnectionId, End, Event, Publication, Quality, RelayEnd, Role, Selection,
    TrackKind,
};
use world::{Link, Reader, TRACK, World};

const SECOND: Duration = Duration::from_secs(1);

fn line() -> Link {
    Link {
        delay: Duration::from_millis(15),
        ..Link::default()
    }
}

/// The upper end sends the track down, and the lower takes it, under the same id.
fn send_down(world: &mut World, nodes: (usize, usize), ends: (ConnectionId, ConnectionId)) {
    world.go_to(nodes.0);
    world.tell(Command::Subscribe {
        connection: ends.0,
        track: TRACK,
        stream_name: String::new(),
        track_name: "camera of ana".into(),
        selection: Selection::of(Quality::High),
    });
    world.go_to(nodes.1);
    world.tell(Command::Publish {
        connection: ends.1,
        track: TRACK,
        publication: Publication {
            cid: "camera of ana".into(),
            kind: TrackKind::Video,
            codecs: vec![Codec::Vp8],
            backup: None,
            layers: Vec::new(),
            is_red_allowed: true,
            is_screen: false,
        },
    });
}

/// A row of nodes, the first of which has a publisher, each with a viewer.
fn row(seed: u64, count: usize, link: Link) -> World {
    let mut world = World::new(seed, Link::default());
    world.add_publisher(true);
    world.add_subscriber(Selection::of(Quality::High));
    for lower in 1..count {
        world.add_node();
        let (_, above, below) = world.join(lower - 1, lower, link);
        send_down(&mut world, (lower - 1, lower), (above, below));
        world.add_subscriber(Selection::of(Quality::High));
    }
    world
}

fn sees_whole_pictures(world: &World, viewer: usize, least: usize) {
    let read = Reader::read(world.received(viewer));
    assert!(read.frames > least, "viewer {viewer}: {read:?}");
    assert_eq!(read.faults, Vec::<String>::new(), "viewer {viewer}");
    assert_eq!(
        read.layers.last().map(String::as_str),
        Some("f"),
        "viewer {viewer}"
    );
}

#[test]
fn a_picture_is_seen_at_every_node_of_a_row() {
    let mut world = row(1, 5, line());
    world.run(5 * SECOND);
    for viewer in 0..5 {
        sees_whole_pictures(&world, viewer, 90);
    }
}

#[test]
fn what_is_lost_on_a_line_is_repaired_there() {
    let lossy = Link {
        loss: 0.02,
        ..line()
    };
    let mut world = row(2, 4, lossy);
    world.run(10 * SECOND);
    for viewer in 0..4 {
        sees_whole_pictures(&world, viewer, 230);
    }
}

#[test]
fn a_line_costs_the_same_for_one_viewer_and_for_twenty() {
    let cost = |viewers: usize| {
        let mut world = row(3, 2, line());
        world.go_to(1);
        for _ in 1..viewers {
            world.add_subscriber(Selection::of(Quality::High));
        }
        world.run(5 * SECOND);
        let before = world.went_down(0);
        world.run(5 * SECOND);
        for viewer in 0..=viewers {
            sees_whole_pictures(&world, viewer, 180);
        }
        world.went_down(0).1 - before.1
    };
    let (one, twenty) = (cost(1) as f64, cost(20) as f64);
    assert!(
        (twenty / one - 1.0).abs() < 0.02,
        "{one} and {twenty} bytes"
    );
}

#[test]
fn the_layer_on_a_line_is_the_best_that_is_wanted_below() {
    let mut world = row(4, 3, line());
    world.run(3 * SECOND);
    let below = |world: &mut World, quality: Option<Quality>| {
        let selection = Selection {
            is_enabled: quality.is_some(),
            ..Selection::of(quality.unwrap_or(Quality::Low))
        };
        for viewer in [1, 2] {
            world.go_to(viewer);
            world.select(viewer, selection);
        }
        world.run(2 * SECOND);
        let before = world.went_down(0);
        world.run(2 * SECOND);
        let after = world.went_down(0);
        (after.0 - before.0, after.1 - before.1)
    };
    below(&mut world, Some(Quality::Low));
    let layer = |world: &World| Reader::read(world.received(2)).layers.last().cloned();
    assert_eq!(layer(&world).as_deref(), Some("q"));
    let (datagrams, bytes) = below(&mut world, None);
    // Checks, reports, and what the data channel's heartbeat costs.
    assert!(
        datagrams < 40 && bytes < 8000,
        "{datagrams} of {bytes} bytes"
    );
    below(&mut world, Some(Quality::High));
    assert_eq!(layer(&world).as_deref(), Some("f"));
    assert_eq!(Reader::read(world.received(2)).faults, Vec::<String>::new());
}

#[test]
fn a_track_that_is_no_longer_taken_costs_nothing() {
    let mut world = row(10, 2, line());
    world.run(3 * SECOND);
    world.go_to(1);
    world.tell(Command::Unpublish { track: TRACK });
    // The word goes up at once, and what was under way comes down.
    world.run(SECOND / 10);
    let before = world.went_down(0);
    world.run(2 * SECOND);
    let (datagrams, _) = world.went_down(0);
    assert!(datagrams - before.0 < 40, "{}", datagrams - before.0);
}

#[test]
fn a_line_that_was_cut_is_back_at_once() {
    for seconds in [2, 10, 40] {
        let mut world = row(5, 3, line());
        world.run(3 * SECOND);
        world.set_line(0, line(), true);
        world.run(seconds * SECOND);
        let before = world.received(2).len();
        world.set_line(0, line(), false);
        world.run(SECOND);
        assert!(world.received(2).len() > before, "after {seconds} s");
        world.run(2 * SECOND);
        let read = Reader::read(world.received(2));
        assert!(!read.is_stuck, "after {seconds} s: {read:?}");
        for node in 0..3 {
            world.go_to(node);
            let is_closed = world.told(|event| matches!(event, Event::Closed { .. }));
            assert!(!is_closed, "node {node} after {seconds} s");
        }
    }
}

#[test]
fn a_track_that_ended_and_came_back_goes_on() {
    let mut world = row(6, 2, line());
    world.run(3 * SECOND);
    world.go_to(0);
    let above = ConnectionId(10_000);
    world.tell(Command::Unsubscribe {
        connection: above,
        track: TRACK,
    });
    world.run(SECOND);
    let before = world.received(1).len();
    world.run(SECOND);
    assert_eq!(world.received(1).len(), before);
    world.go_to(0);
    world.tell(Command::Subscribe {
        connection: above,
        track: TRACK,
        stream_name: String::new(),
        track_name: "camera of ana".into(),
        selection: Selection::of(Quality::High),
    });
    world.run(2 * SECOND);
    assert!(world.received(1).len() > before + 100);
    assert_eq!(Reader::read(world.received(1)).faults, Vec::<String>::new());
}

#[test]
fn a_line_whose_lower_end_has_a_new_address_goes_on() {
    let mut world = row(7, 3, line());
    world.run(3 * SECOND);
    for at in 1..=3 {
        world.map_line(0, format!("10.3.0.{at}:4000").parse().unwrap());
        let before = world.received(2).len();
        world.run(2 * SECOND);
        // The upper end holds on to the old address for half a second, and to its data channel too.
        assert!(world.received(2).len() > before + 60, "change {at}");
        world.go_to(0);
        let select = |world: &mut World, quality| {
            for viewer in [1, 2] {
                world.go_to(viewer);
                world.select(viewer, Selection::of(quality));
            }
            world.run(2 * SECOND);
            Reader::read(world.received(2)).layers.last().cloned()
        };
        assert_eq!(select(&mut world, Quality::Low).as_deref(), Some("q"));
        assert_eq!(select(&mut world, Quality::High).as_deref(), Some("f"));
    }
    assert_eq!(Reader::read(world.received(2)).faults, Vec::<String>::new());
}

#[test]
fn another_certificate_than_was_told_is_refused() {
    let mut world = World::new(8, Link::default());
    world.add_publisher(true);
    world.add_node();
    world.spoil_fingerprint();
    let (_, above, below) = world.join(0, 1, line());
    send_down(&mut world, (0, 1), (above, below));
    world.add_subscriber(Selection::of(Quality::High));
    world.run(5 * SECOND);
    assert!(world.received(0).is_empty());
    let is_closed =
        |event: &Event| matches!(event, Event::Closed { connection, .. } if *connection == below);
    world.go_to(1);
    assert!(world.told(is_closed));
}

#[test]
fn what_the_other_end_tells_is_checked_before_the_engine_has_it() {
    let mut world = World::new(9, Link::default());
    let ends: [(&str, &str, &str); 4] = [
        ("us", "passwordpasswordpassword", "sha-256 00:11"),
        ("user", "short", "sha-256 00:11"),
        ("user\r\n", "passwordpasswordpassword", "sha-256 00:11"),
        ("user", "passwordpasswordpassword", "nothing"),
    ];
    for (at, (user, password, fingerprint)) in ends.into_iter().enumerate() {
        let connection = ConnectionId(20_000 + at as u64);
        world.tell(Command::Open {
            connection,
            role: Role::Relay(End::Lower),
            takes_rsa: false,
        });
        world.tell(Command::Relay {
            connection,
            other: RelayEnd {
                user: user.into(),
                password: password.into(),
                fingerprint: fingerprint.into(),
                addresses: vec!["10.0.0.9:1".parse().unwrap()],
            },
        });
        let is_refused = |event: &Event| matches!(event, Event::Refused { connection: of, .. } if *of == connection);
        assert!(world.told(is_refused), "end {at}");
    }
    assert_eq!(world.totals().failures, 0);
}
