//! A province of nodes on a virtual clock, with people who come and go, lines that fail and nodes that
//! restart, drawn by lot; after each round an oracle says whether what is promised holds.
//!
//! Everything is the code of a server but the carrier, the media, which is only counted, and the
//! people. The same seed plays the same. It knows the cascade only by what it exports, so that an
//! example can run it without the code of tests (`cargo xtask simulate cascade`).

pub(crate) mod oracle;
pub(crate) mod script;
pub(crate) mod tree;
pub(crate) mod world;

use std::time::Instant;

use serde::Serialize;

use script::Script;
use tree::Shape;

/// What is to be played.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// How many villages; the other levels follow.
    pub(crate) villages: usize,
    /// Of all lots.
    pub(crate) seed: u64,
    /// Of virtual time.
    pub(crate) minutes: u64,
    /// Tell on standard error how far it is.
    pub(crate) is_told: bool,
}

/// What became of it.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Report {
    /// As given.
    pub(crate) seed: u64,
    /// Nodes of each level, the uppermost first.
    pub(crate) nodes: [usize; 5],
    /// Lines between them, second ways and siblings included.
    pub(crate) lines: usize,
    /// Virtual seconds that were played.
    pub(crate) virtual_seconds: f64,
    /// Real seconds that it took.
    pub(crate) seconds: f64,
    /// Resident memory at its most, in megabytes, where the system tells.
    pub(crate) peak_megabytes: Option<u64>,
    /// What happened, by name.
    pub(crate) counts: std::collections::BTreeMap<&'static str, u64>,
    /// How often each invariant was checked.
    pub(crate) checked: std::collections::BTreeMap<&'static str, u64>,
    /// The first violation.
    pub(crate) violation: Option<String>,
}

/// Plays until the time is over or something is violated.
pub(crate) fn run(options: Options) -> Report {
    let begin = Instant::now();
    let shape = Shape::liaoning(options.villages, options.seed);
    let mut script = Script::new(&shape, options.seed);
    let end = options.minutes * 60_000;
    let mut told = 0;
    while script.world.now < end && script.world.violation().is_none() {
        script.round();
        if options.is_told && script.world.now >= told + 10_000 {
            told = script.world.now;
            eprintln!(
                "{:>5.0} s of {}: {} people, {} messages, {:.0} s taken",
                told as f64 / 1000.0,
                end / 1000,
                script.present(),
                script.world.count("messages"),
                begin.elapsed().as_secs_f64(),
            );
        }
    }
    script.finish();
    Report {
        seed: options.seed,
        nodes: shape.counts(),
        lines: script.world.line_count(),
        virtual_seconds: script.world.now as f64 / 1000.0,
        seconds: begin.elapsed().as_secs_f64(),
        peak_megabytes: peak_megabytes(),
        counts: script.world.counts.clone(),
        checked: script.world.checked.clone(),
        violation: script.world.violation().map(str::to_owned),
    }
}

/// The most memory that this process had, where Linux tells.
fn peak_megabytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes / 1024)
}

#[cfg(test)]
mod tests;
