//! The fixed scenario whose instructions are counted by `cargo xtask bench instructions`: one camera
//! seen by twenty, without sockets, on a virtual clock. Prints how many datagrams were forwarded
//! while it was measured.

#[expect(dead_code, reason = "the simulation uses the rest")]
#[path = "../tests/world/mod.rs"]
mod world;

use std::time::Duration;

use sfu::{Quality, Selection};
use world::{Link, World};

fn main() {
    let mut world = World::new(1, Link::default());
    world.add_publisher(false);
    for _ in 0..20 {
        world.add_subscriber(Selection::of(Quality::High));
    }
    world.run(Duration::from_secs(3));
    let before = world.totals();
    world.measure();
    world.run(Duration::from_secs(5));
    println!("{}", world.totals().datagrams_out - before.datagrams_out);
}
