//! Bounded runs of the fuzz targets in `../fuzz`, the same each time. Without a sanitizer, so that they
//! need nothing but the stable compiler.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::{install, run};

const CARGO_FUZZ: (&str, &str) = ("cargo-fuzz", "0.13.2");

/// The targets, so many runs of each that all take about a minute, and the longest input in bytes: what
/// fuzzing begins with fits in.
const TARGETS: [(&str, u32, u32); 12] = [
    ("batch", 50_000, 2048),
    ("calls", 20_000, 2048),
    ("datagram", 5_000, 2048),
    ("descriptions", 10_000, 8192),
    ("egress", 20_000, 2048),
    ("http-media", 50_000, 8192),
    ("joins", 200_000, 4096),
    ("payloads", 500_000, 2048),
    ("reports", 1_000_000, 2048),
    ("requests", 10_000, 4096),
    ("tokens", 50_000, 2048),
    ("words", 50_000, 2048),
];

/// The runs of each target in the long form.
const LONG_RUNS: u32 = 10_000_000;

/// A minute of all targets.
pub(crate) fn short(budget: Duration) -> Result<()> {
    all(budget, |runs| runs)
}

/// Hours of all targets.
pub(crate) fn long(budget: Duration) -> Result<()> {
    all(budget, |_| LONG_RUNS)
}

fn all(budget: Duration, runs: impl Fn(u32) -> u32) -> Result<()> {
    let begin = Instant::now();
    let left = || budget.saturating_sub(begin.elapsed());
    install::package("g++", "/usr/bin/g++")?;
    let program = install::cargo_tool(CARGO_FUZZ.0, CARGO_FUZZ.1, budget)?;
    let build = ["build", "--sanitizer", "none"];
    run::run(".", left(), &program, &build)?;
    for (target, usual, longest) in TARGETS {
        let corpus = run::target().join("fuzz-corpus").join(target);
        std::fs::remove_dir_all(&corpus).ok();
        std::fs::create_dir_all(&corpus)?;
        let corpus = corpus.to_string_lossy();
        let seeds = format!("fuzz/seeds/{target}");
        let runs = format!("-runs={}", runs(usual));
        let longest = format!("-max_len={longest}");
        let words = [
            "run",
            "--sanitizer",
            "none",
            target,
            &corpus,
            &seeds,
            "--",
            "-seed=1",
            &longest,
            "-len_control=0",
            "-print_final_stats=1",
            &runs,
        ];
        run::run(".", left(), &program, &words)?;
    }
    Ok(())
}
