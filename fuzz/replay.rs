//! What the ordinary tests make of the seeds: each is played whole, and damaged a little. Taken in by
//! the crates that have targets (`fuzzing.rs` of each).

use arbitrary::Result;
use proptest::sample::Index;

/// A target's name, by which its seeds lie in `seeds/`, and the target.
pub(crate) type Target = (&'static str, fn(&[u8]) -> Result<()>);

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/");
    let files = std::fs::read_dir(format!("{folder}{name}")).expect("the target has seeds");
    files
        .map(|file| std::fs::read(file.unwrap().path()).unwrap())
        .collect()
}

/// Plays every seed of every target.
pub(crate) fn whole(targets: &[Target]) {
    for (name, target) in targets {
        for seed in seeds(name) {
            let _ = target(&seed);
        }
    }
}

/// Plays one seed of every target, cut and with some bytes changed: a little of what the fuzzer does,
/// without its eyes.
pub(crate) fn damaged(targets: &[Target], place: Index, damage: &[(Index, u8)], length: Index) {
    for (name, target) in targets {
        let seeds = seeds(name);
        let mut seed = seeds[place.index(seeds.len())].clone();
        seed.truncate(length.index(seed.len() * 2 + 1));
        for (at, byte) in damage {
            if !seed.is_empty() {
                let at = at.index(seed.len());
                seed[at] = *byte;
            }
        }
        let _ = target(&seed);
    }
}
