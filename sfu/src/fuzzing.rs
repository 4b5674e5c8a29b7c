//! The door for the fuzz targets in `../fuzz`: what can be reached only from inside. Each function
//! makes of a fuzzer's bytes what a property test makes of its strategy, and runs the same check. The
//! benchmarks come in by it too, for single steps.

#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;

mod line;
mod live;
pub(crate) mod plain;
mod steps;

pub use line::words;
pub use live::datagrams;
pub use plain::without_handshake;
pub use steps::{AT_ONCE, steps};

use std::cell::RefCell;
use std::time::Instant;

use arbitrary::{Result, Unstructured};

use crate::egress::stage::{Stage, Step};
use crate::shard::{Shard, ShardConfig};
use crate::{dependency, header, payload, redundancy, rtcp};

/// Steps that one input plays at most.
const STEPS: usize = 200;

const SERVER: ([u8; 4], u16) = ([10, 0, 0, 1], 7882);

/// The shard of a thread lasts for many inputs, and every input has connections of its own: making a
/// shard costs as much as playing an input.
struct Home {
    shard: Shard,
    now: Instant,
    next: u64,
}

impl Home {
    /// The first of a hundred ids that were never used.
    fn next(&mut self) -> u64 {
        self.next += 100;
        self.next - 100
    }
}

fn at_home<T>(play: impl FnOnce(&mut Home) -> T) -> T {
    thread_local! {
        static HOME: RefCell<Option<Home>> = const { RefCell::new(None) };
    }
    HOME.with_borrow_mut(|home| {
        play(home.get_or_insert_with(|| {
            let now = Instant::now();
            let config = ShardConfig {
                candidates: vec![SERVER.into()],
            };
            Home {
                shard: Shard::new(config, now),
                now,
                next: 0,
            }
        }))
    })
}

/// Plays steps on a subscriber's stream; see `no_index_is_ever_sealed_twice`.
///
/// # Errors
/// The input has ended.
pub fn egress(data: &[u8]) -> Result<()> {
    let mut input = Unstructured::new(data);
    let mut stage = Stage::new(input.int_in_range(60_000..=70_000)?);
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        stage.play(step(&mut input)?);
    }
    stage.play(Step::Flush);
    Ok(())
}

fn step(input: &mut Unstructured<'_>) -> Result<Step> {
    Ok(match input.int_in_range(0..=7_u8)? {
        0 => Step::Packets {
            lost: input.int_in_range(0..=3)?,
            count: input.int_in_range(1..=6)?,
            size: input.int_in_range(1..=1400)?,
        },
        1 => Step::Late {
            behind: input.int_in_range(0..=40)?,
        },
        2 => Step::Switch {
            jump: input.arbitrary()?,
        },
        3 => Step::Flush,
        4 => {
            let count = input.int_in_range(0..=20_usize)?;
            let behind = (0..count).map(|_| input.arbitrary());
            Step::Nack {
                behind: behind.collect::<Result<_>>()?,
            }
        }
        5 => Step::Report,
        6 => Step::Renew,
        _ => Step::Wait {
            milliseconds: input.int_in_range(0..=3000)?,
        },
    })
}

/// Reads the bytes as a compound of reports, and writes reports from them.
///
/// # Errors
/// The input has ended.
pub fn reports(data: &[u8]) -> Result<()> {
    rtcp::check_read(data);
    crate::estimate::check_arrivals(data);
    let mut input = Unstructured::new(data);
    let numbers = input.arbitrary()?;
    rtcp::check_written(numbers, &String::from_utf8_lossy(input.take_rest()));
    Ok(())
}

/// Reads the bytes as payloads of every codec, and writes headers with elements from them.
///
/// # Errors
/// The input has ended.
pub fn payloads(data: &[u8]) -> Result<()> {
    payload::check(data, (0x1234, 5, 6));
    dependency::check(data);
    redundancy::check(data);
    let mut input = Unstructured::new(data);
    payload::check(data, input.arbitrary()?);
    let two_byte = input.arbitrary()?;
    let mut values = Vec::new();
    while !input.is_empty() && values.len() < 16 {
        let id = input.arbitrary()?;
        // Most values are short.
        let length = input.int_in_range(0..=300_u16)?;
        let length = if input.arbitrary()? {
            length
        } else {
            length % 20
        };
        let length = usize::from(length).min(input.len());
        values.push((id, input.bytes(length)?.to_vec()));
    }
    header::check(&values, two_byte);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::replay::{Target, damaged, whole};
    use super::*;

    const TARGETS: &[Target] = &[
        ("datagram", datagrams),
        ("egress", egress),
        ("payloads", payloads),
        ("reports", reports),
        ("words", words),
    ];

    #[test]
    fn what_fuzzing_begins_with_is_survived() {
        whole(TARGETS);
    }

    proptest! {
        // Every case is one of every target.
        #![proptest_config(ProptestConfig {
            cases: ProptestConfig::default().cases / 8,
            ..ProptestConfig::default()
        })]
        #[test]
        fn damaged_seeds_are_survived(
            place: prop::sample::Index,
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            length: prop::sample::Index,
        ) {
            damaged(TARGETS, place, &damage, length);
        }
    }
}
