//! What it costs to put a frame of three packets for fifty destinations into a burst.

// `criterion_group!` makes a public function without a word about it.
#![allow(missing_docs)]

use std::net::SocketAddr;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use udp_batch::Burst;

const DESTINATIONS: u16 = 50;
const PACKETS: u16 = 3;

/// The last packet of a frame is shorter.
const LENGTHS: [usize; PACKETS as usize] = [1200, 1200, 700];

fn fill(burst: &mut Burst, mut add: impl FnMut(&mut Burst, SocketAddr, usize)) {
    burst.clear();
    for port in 1..=DESTINATIONS {
        let destination = SocketAddr::from(([10, 0, 0, 1], port));
        for length in LENGTHS {
            add(burst, destination, length);
        }
    }
    assert_eq!(burst.messages().len(), usize::from(DESTINATIONS));
}

fn bursts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("burst");
    group.throughput(Throughput::Elements(u64::from(DESTINATIONS * PACKETS)));
    let mut burst = Burst::new(256 * 1500, 256);
    group.bench_function("commit", |bencher| {
        bencher.iter(|| {
            fill(&mut burst, |burst, destination, length| {
                std::hint::black_box(burst.spare());
                burst.commit(destination, length);
            });
        });
    });
    let packet = [7; 1200];
    group.bench_function("push", |bencher| {
        bencher.iter(|| {
            fill(&mut burst, |burst, destination, length| {
                assert!(burst.push(destination, &packet[..length]));
            });
        });
    });
}

criterion_group!(all, bursts);
criterion_main!(all);
