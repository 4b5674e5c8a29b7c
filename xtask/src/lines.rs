//! `cargo xtask bench estimate`, `share`, `lines` and `parts`: what the estimate makes of simulated lines beside str0m's,
//! what each part of the share is worth there, what a viewer sees and hears over bad ones, and what each part is worth
//! over these; sections of `docs/performance.md`.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::Deserialize;

use crate::bench::{machine, measure};
use crate::page::write_section;
use crate::parts::{build_server, python_environment};
use crate::run::{build_client, npm_install, output, run, target};

const BUDGET: Duration = Duration::from_secs(1800);

/// Simulations of thousands of meetings take too long with the code of tests.
pub(crate) const OPTIMIZED: [&str; 2] = ["--config", "profile.dev.opt-level=2"];

/// What a viewer had of one line.
#[derive(Deserialize)]
struct Seen {
    name: String,
    #[serde(default)]
    client: String,
    /// Share of the sound that was made up.
    concealed: f64,
    /// The longest stretch of almost nothing but that, in seconds.
    stall: f64,
    freezes: f64,
    /// Seconds, where the client tells.
    frozen: Option<f64>,
    frames: f64,
    /// Packets sent again that came.
    repaired: f64,
    received: f64,
    /// Milliseconds: median, 95th percentile, longest.
    queue: [f64; 3],
    /// From so many seconds on the picture was so wide.
    widths: Vec<(f64, u32)>,
}

/// What ten viewers on ten lines had in one meeting, for a while.
#[derive(Deserialize)]
struct Stage {
    stage: String,
    /// The layers that the publisher sent.
    layers: Vec<String>,
    rows: Vec<Had>,
}

/// What one of them had.
#[derive(Deserialize)]
struct Had {
    line: String,
    /// Share of the sound that was made up.
    concealed: f64,
    frames: f64,
    freezes: f64,
    kilobits: f64,
    /// Of the picture, in the order in which they were seen.
    widths: Vec<u32>,
}

/// The rows of a table that a test of the media core prints.
fn rows(test: &str) -> Result<String> {
    let words = [
        &["test", "-q", "-p", "sfu", "--lib"],
        &OPTIMIZED[..],
        &[test, "--", "--nocapture", "--include-ignored"],
    ]
    .concat();
    let told = output(BUDGET, "cargo", &words)?;
    let rows: Vec<&str> = told.lines().filter(|line| line.starts_with("| ")).collect();
    if rows.is_empty() {
        bail!("the simulation told nothing");
    }
    Ok(rows.join("\n"))
}

/// Simulates and writes the section.
pub(crate) fn share() -> Result<()> {
    let section = format!(
        "## What each part of the share is worth\n\nTwo hundred meetings of a minute, drawn by lot: one to four who send (VP8, VP9 and AV1 in all kinds of layers, sound,\n\
         a screen), one or two who watch over a line of 200 kbit/s to 5 Mbit/s with up to 15 % of loss and 30 ms of jitter that\n\
         changes every twenty seconds, as does what they want. Everything but the ends is the server's own code. The same\n\
         meetings again without one part at a time; what a part is worth is how much worse its row is than the first.\n\
         *Used* is the part of what the line can carry of the pictures that are wanted that arrives; *queue* is how long packets\n\
         wait in the line, the 95th and the 99th of a hundred; *switches* are changes of what is sent of a picture in a minute\n\
         while nothing else changes; *shown* is the time for which a wanted picture moves, *still* are the seconds of a minute for\n\
         which one stands and is not told to be paused; *sound late* is what did not come within 150 ms of the line's own delay.\n\n\
         | without | used | queue 95 % ms | 99 % | switches/min | shown | pictures/s | still s/min | sound late |\n\
         |---|---|---|---|---|---|---|---|---|\n{}\n\n\
         A virtual clock: the same on every machine.",
        rows("simulation::worth")?
    );
    println!("{section}");
    write_section("share", &section)
}

/// Simulates and writes the section.
pub(crate) fn estimate() -> Result<()> {
    let section = format!(
        "## The estimate on simulated lines\n\nA sender that follows the estimate at once, for a minute, of which the first \
         five seconds do not count: ours, and\nstr0m's with its pacer, on the same lines with the same dice. *Used* is the \
         part of what the line can carry (at most\n4 Mbit/s are wanted) that arrives as media; *queue* is how long packets \
         wait for their turn, on average and for the\n95th of a hundred. Each queue holds 300 ms, each way takes 25 ms \
         unless said otherwise.\n\n\
         | line | estimate | used | queue ms | 95 % |\n|---|---|---|---|---|\n{}\n\n\
         A virtual clock: the same on every machine.",
        rows("compared")?
    );
    println!("{section}");
    write_section("estimate", &section)
}

/// Measures and writes the section.
pub(crate) fn lines() -> Result<()> {
    npm_install("tests/browser")?;
    let inside = python_environment(BUDGET)?;
    build_server(BUDGET)?;
    let settings = format!("PYTHON={}", inside("python"));
    let all: Vec<Seen> = at_a_line(&settings, "lossy", "lines")?;
    let mut section = String::from(
        "## Bad lines\n\nOne publishes a camera of noise (VP8 in layers, 960×540 and 1.2 Mbit/s at most) and a \
         microphone in Chromium; one\nwatches. The viewer has a line with 50 ms of round trip; where it says *uplink* the \
         publisher has it. By the viewer's own\nstatistics. *Made up* is the share of the sound that was concealed, *stall* \
         the longest time of nothing else. *Queue* is\nthe line's own: median, 95 %, longest. Rates have a queue of 300 ms\nwhere nothing else is said.\n\n\
         | line | viewer | sound made up | stall s | pictures/s | frozen (s in all) | repaired of received | queue ms | width of the \
         picture from second |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for seen in all {
        let widths: Vec<String> = seen
            .widths
            .iter()
            .map(|(at, width)| format!("{at:.0}: {width}"))
            .collect();
        let _ = writeln!(
            section,
            "| {} | {} | {:.1} % | {:.1} | {:.0} | {:.0} ({}) | {:.0} of {:.0} | {:.0}, {:.0}, {:.0} | {} |",
            seen.name,
            seen.client,
            100.0 * seen.concealed,
            seen.stall,
            seen.frames,
            seen.freezes,
            seen.frozen
                .map_or_else(|| "–".to_owned(), |seconds| format!("{seconds:.1}")),
            seen.repaired,
            seen.received,
            seen.queue[0],
            seen.queue[1],
            seen.queue[2],
            widths.join(", ")
        );
    }
    let stages: Vec<Stage> = at_a_line(&settings, "good", "ten-lines")?;
    section.push_str(
        "\n### Ten lines at once\n\nThe same picture in one meeting, watched by ten of the Python SDK on ten lines of 50 ms of \
         round trip, unless it says\notherwise; what each had in 20 s. *Sent* are the layers that came out of the publisher's \
         encoder meanwhile (`q` 320, `h` 640,\n`f` 960 wide).\n\n\
         | | sent | line | sound made up | pictures/s | frozen | kbit/s of picture | width |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for stage in stages {
        let mut names = (stage.stage, stage.layers.join(" "));
        for had in stage.rows {
            let (name, sent) = std::mem::take(&mut names);
            let widths: Vec<String> = had.widths.iter().map(u32::to_string).collect();
            let _ = writeln!(
                section,
                "| {name} | {sent} | {} | {:.1} % | {:.0} | {:.0} | {:.0} | {} |",
                had.line,
                100.0 * had.concealed,
                had.frames,
                had.freezes,
                had.kilobits,
                widths.join(", ")
            );
        }
    }
    let _ = write!(
        section,
        "\nMeasured on {}, which runs everything.",
        machine()
    );
    println!("{section}");
    write_section("lines", &section)
}

/// Without a part of the share, what viewers had of seven lines.
#[derive(Deserialize)]
struct Without {
    /// Empty: with all.
    part: String,
    seen: Vec<Seen>,
}

/// Measures and writes the section.
pub(crate) fn parts() -> Result<()> {
    npm_install("tests/browser")?;
    let inside = python_environment(BUDGET)?;
    let release = target().join("release");
    let apart = release.join("terrace-leave-out");
    let words = [
        "build",
        "--release",
        "--bin",
        "terrace",
        "--features",
        "sfu/leave-out",
    ];
    build_client(BUDGET)?;
    run(".", BUDGET, "cargo", &words)?;
    std::fs::copy(release.join("terrace"), &apart)?;
    // What is shipped is built last, so that nothing else finds the other.
    build_server(BUDGET)?;
    let settings = format!(
        "PYTHON={} TERRACE_BIN={}",
        inside("python"),
        apart.display()
    );
    let all: Vec<Without> = at_a_line(&settings, "lossy", "parts")?;
    let mut section = String::from(
        "## What each part is worth over real lines\n\nAs in [bad lines](#bad-lines), but seven of the Python SDK watch \
         one publisher at once, each over its line, for a minute;\nthe whole server first, then the same build without one \
         part of the share at a time. Parts that arrange several pictures\nare not here, as there is one. In a cell: pictures \
         a second, how often the picture stood, and the share of the sound that\nwas made up; for the line that changes also \
         seconds until the picture was narrower and until it was whole again (–: not at\nall), and the queue's 95 % in ms.\n\n",
    );
    for (row, Without { part, seen }) in all.iter().enumerate() {
        if row == 0 {
            let names: Vec<&str> = seen.iter().map(|one| one.name.as_str()).collect();
            let _ = writeln!(section, "| without | {} |", names.join(" | "));
            let _ = writeln!(section, "|---|{}", "---|".repeat(names.len()));
        }
        let name = if part.is_empty() { "nothing" } else { part };
        let _ = write!(section, "| {name} |");
        for one in seen {
            let _ = write!(
                section,
                " {:.1}, {:.0}, {:.1} %",
                one.frames,
                one.freezes,
                100.0 * one.concealed
            );
            if one.name.contains("kbit") {
                let (down, up) = followed(&one.widths);
                let tell = |seconds: Option<f64>| {
                    seconds.map_or_else(|| "–".to_owned(), |seconds| format!("{seconds:.1}"))
                };
                let _ = write!(
                    section,
                    "; {}, {}; {:.0}",
                    tell(down),
                    tell(up),
                    one.queue[1]
                );
            }
            section.push_str(" |");
        }
        section.push('\n');
    }
    let _ = write!(
        section,
        "\nMeasured on {}, which runs everything.",
        machine()
    );
    println!("{section}");
    write_section("parts", &section)
}

/// When the line that carries little from 20 s to 40 s has a narrower picture, and when the whole one again: seconds after
/// each change.
fn followed(widths: &[(f64, u32)]) -> (Option<f64>, Option<f64>) {
    let widest = widths.iter().map(|(_, width)| *width).max();
    let first = |from: f64, is_whole: bool| {
        let found = |(at, width): &&(f64, u32)| *at >= from && (Some(*width) == widest) == is_whole;
        widths.iter().find(found).map(|(at, _)| at - from)
    };
    (first(20.0, false), first(40.0, true))
}

/// Runs a script of `tests/browser/bench` at an end of a line, with variables set as the shell does it; returns what it
/// printed.
fn at_a_line<T: serde::de::DeserializeOwned>(
    settings: &str,
    line: &str,
    script: &str,
) -> Result<T> {
    let program = target().join("release/line");
    let config = format!("long/{line}.toml");
    let command = format!("{settings} ip netns exec $LINE_A node bench/{script}.mjs");
    let words = ["up", "--config", &config, "--", "sh", "-c", &command];
    measure("tests/browser", &program.to_string_lossy(), &words)
}
