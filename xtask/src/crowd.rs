//! `cargo xtask bench crowd`: what participants by the thousand cost signalling; a section of
//! `docs/performance.md`.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;
use serde::Deserialize;

use crate::bench::{machine, measure, quantile, sorted};
use crate::page::write_section;
use crate::parts::{build_server, python_environment};

/// How often each row is measured.
const ROUNDS: &str = "3";

#[derive(Deserialize)]
struct Row {
    count: u32,
    may_publish: bool,
    rounds: Vec<Round>,
}

#[derive(Deserialize)]
struct Round {
    /// From the first join until all knew how many there are, in seconds.
    joined_s: f64,
    /// The server's processor time meanwhile, in seconds.
    cpu_s: f64,
    /// The share of a core that it takes afterwards.
    rest: f64,
    /// By how much its resident memory grew, in bytes.
    memory: f64,
    /// Messages to one participant, and their bytes.
    messages: f64,
    told: f64,
    /// How many others the best informed participant knows.
    known: u32,
}

/// Measures and writes the section.
pub(crate) fn crowd() -> Result<()> {
    let python = python_environment(Duration::from_secs(300))?;
    build_server(Duration::from_secs(1800))?;
    let rows: Vec<Row> = measure(
        "tests/python",
        &python("python3"),
        &["bench_crowd.py", "--rounds", ROUNDS],
    )?;
    let text = section(&machine(), &rows);
    write_section("crowd", &text)?;
    println!("{text}");
    Ok(())
}

fn section(machine: &str, rows: &[Row]) -> String {
    let mut out = format!(
        "## A crowd\n\nTerrace {}, release build, on {machine}. Clients and server share the machine. Participants join one room,\n\
         250 a second, after three speakers; they speak signalling only (a WebSocket and pings, and a media connection that\n\
         the server has prepared and they do not use). Medians of {ROUNDS} rounds (least–most), each with a new process. What each is told is\n\
         counted after its join response.\n\n\
         | Participants | known to each | joined after, s | processor time of the server, s | ms per join | at rest, share of a core | memory, MB | kB each | messages to each | kB told to each |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
        env!("CARGO_PKG_VERSION"),
    );
    for row in rows {
        let of = |value: fn(&Round) -> f64, scale: f64, digits: usize| {
            let values = sorted(row.rounds.iter().map(|round| value(round) * scale));
            let at = |share| quantile(&values, share);
            format!(
                "{:.digits$} ({:.digits$}–{:.digits$})",
                at(0.5),
                at(0.0),
                at(1.0)
            )
        };
        let each = 1.0 / f64::from(row.count);
        let _ = writeln!(
            out,
            "| {} who may {} | {} | {} | {} | {} | {} | {} | **{}** | {} | {} |",
            row.count,
            if row.may_publish {
                "publish"
            } else {
                "only watch"
            },
            row.rounds
                .iter()
                .map(|round| round.known)
                .max()
                .unwrap_or(0),
            of(|round| round.joined_s, 1.0, 1),
            of(|round| round.cpu_s, 1.0, 2),
            of(|round| round.cpu_s, 1000.0 * each, 2),
            of(|round| round.rest, 1.0, 3),
            of(|round| round.memory, 1e-6, 0),
            of(|round| round.memory, 1e-3 * each, 0),
            of(|round| round.messages, 1.0, 0),
            of(|round| round.told, 1e-3, 0),
        );
    }
    out
}
