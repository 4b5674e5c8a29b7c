//! `cargo xtask bench estimate` and `lines`: what the estimate makes of simulated lines beside str0m's, and what a viewer
//! in Chromium sees and hears over bad ones; sections of `docs/performance.md`.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::Deserialize;

use crate::bench::{machine, measure};
use crate::page::write_section;
use crate::parts::build_server;
use crate::run::{npm_install, output, target};

const BUDGET: Duration = Duration::from_secs(1800);

/// What a viewer had of one line.
#[derive(Deserialize)]
struct Seen {
    name: String,
    /// Share of the sound that was made up.
    concealed: f64,
    /// The longest stretch of almost nothing but that, in seconds.
    stall: f64,
    freezes: f64,
    /// Seconds.
    frozen: f64,
    frames: f64,
    /// Packets sent again that came.
    repaired: f64,
    received: f64,
    /// Milliseconds: median, 95th percentile, longest.
    queue: [f64; 3],
    /// From so many seconds on the picture was so wide.
    widths: Vec<(f64, u32)>,
}

/// Simulates and writes the section.
pub(crate) fn estimate() -> Result<()> {
    let words = [
        "test",
        "-q",
        "-p",
        "sfu",
        "--lib",
        "compared",
        "--",
        "--nocapture",
    ];
    let told = output(BUDGET, "cargo", &words)?;
    let rows: Vec<&str> = told.lines().filter(|line| line.starts_with("| ")).collect();
    if rows.is_empty() {
        bail!("the simulation told nothing");
    }
    let section = format!(
        "## The estimate on simulated lines\n\nA sender that follows the estimate at once, for a minute, of which the first \
         five seconds do not count: ours, and\nstr0m's with its pacer, on the same lines with the same dice. *Used* is the \
         part of what the line can carry (at most\n4 Mbit/s are wanted) that arrives as media; *queue* is how long packets \
         wait for their turn, on average and for the\n95th of a hundred. Each queue holds 300 ms, each way takes 25 ms \
         unless said otherwise.\n\n\
         | line | estimate | used | queue ms | 95 % |\n|---|---|---|---|---|\n{}\n\n\
         A virtual clock: the same on every machine.",
        rows.join("\n")
    );
    println!("{section}");
    write_section("estimate", &section)
}

/// Measures and writes the section.
pub(crate) fn lines() -> Result<()> {
    npm_install("tests/browser")?;
    build_server(BUDGET)?;
    let line = target().join("release/line");
    let command = "ip netns exec $LINE_A node bench/lines.mjs";
    let words = [
        "up",
        "--config",
        "long/lossy.toml",
        "--",
        "sh",
        "-c",
        command,
    ];
    let all: Vec<Seen> = measure("tests/browser", &line.to_string_lossy(), &words)?;
    let mut section = String::from(
        "## Bad lines in Chromium\n\nOne publishes a camera of noise (VP8 in layers, 960×540 and 1.2 Mbit/s at most) and a \
         microphone; one watches.\nThe viewer has a line with 50 ms of round trip, and where it says *uplink* the publisher has it. By the viewer's own\nstatistics. *Made up* is the \
         share of the sound that was concealed,\n*stall* the longest time of nothing else. *Queue* is the line's own: \
         median, 95 %, longest. Rates have\na queue of 300 ms.\n\n\
         | line | sound made up | stall s | pictures/s | frozen (s in all) | repaired of received | queue ms | width of the \
         picture from second |\n|---|---|---|---|---|---|---|---|\n",
    );
    for seen in all {
        let widths: Vec<String> = seen
            .widths
            .iter()
            .map(|(at, width)| format!("{at:.0}: {width}"))
            .collect();
        let _ = writeln!(
            section,
            "| {} | {:.1} % | {:.1} | {:.0} | {:.0} ({:.1}) | {:.0} of {:.0} | {:.0}, {:.0}, {:.0} | {} |",
            seen.name,
            100.0 * seen.concealed,
            seen.stall,
            seen.frames,
            seen.freezes,
            seen.frozen,
            seen.repaired,
            seen.received,
            seen.queue[0],
            seen.queue[1],
            seen.queue[2],
            widths.join(", ")
        );
    }
    let _ = write!(
        section,
        "\nMeasured on {}, which runs everything.",
        machine()
    );
    println!("{section}");
    write_section("lines", &section)
}
