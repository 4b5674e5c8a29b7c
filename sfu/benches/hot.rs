//! What a frame of a camera costs the shard, from the publisher's three packets to the datagrams of
//! everyone who sees it, and what they report and ask for meanwhile: without sockets, on the
//! simulation's clock. And what single steps of that way cost, where the door to them is open:
//! `RUSTFLAGS="--cfg fuzzing" cargo bench -p sfu`.

// `criterion_group!` makes a public function without a word about it.
#![allow(missing_docs)]

#[expect(dead_code, reason = "the simulation uses the rest")]
#[path = "../tests/world/mod.rs"]
mod world;

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sfu::{Quality, Selection};
use world::{Link, World};

const FRAME: Duration = Duration::from_millis(33);
const PACKETS_PER_FRAME: u64 = 3;

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    // The clients around the shard take ten times as long as it does.
    group.sample_size(20);
    group.warm_up_time(Duration::from_millis(200));
    group.measurement_time(Duration::from_secs(1));
    let lossy = Link {
        loss: 0.02,
        ..Link::default()
    };
    for (name, viewers, link) in [
        ("1 viewer", 1, Link::default()),
        ("10 viewers", 10, Link::default()),
        ("50 viewers", 50, Link::default()),
        ("50 viewers, 2 % lost and repaired", 50, lossy),
    ] {
        let mut world = World::new(1, link);
        world.add_publisher(false);
        for _ in 0..viewers {
            world.add_subscriber(Selection::of(Quality::High));
        }
        world.run(Duration::from_secs(3));
        world.measure();
        group.throughput(Throughput::Elements(PACKETS_PER_FRAME * viewers));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|frames| {
                world.take_spent();
                for _ in 0..frames {
                    world.run(FRAME);
                    world.forget_received();
                }
                world.take_spent()
            });
        });
    }
}

#[cfg(fuzzing)]
fn steps(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("step");
    group.warm_up_time(Duration::from_millis(200));
    group.measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Elements(sfu::fuzzing::AT_ONCE));
    for (name, mut step) in sfu::fuzzing::steps() {
        group.bench_function(name, |bencher| bencher.iter(&mut step));
    }
}

#[cfg(not(fuzzing))]
fn steps(_: &mut Criterion) {}

criterion_group!(hot, frames, steps);
criterion_main!(hot);
