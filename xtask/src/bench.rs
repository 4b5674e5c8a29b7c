//! `cargo xtask bench session`: what a participant costs, and how soon it sees something; a section of
//! `docs/performance.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::page::write_section;
use crate::parts::{build_server, python_environment};
use crate::run::{npm_install, root, wait};

/// How often memory is measured, and how many joins are timed on each endpoint.
const ROUNDS: &str = "3";
const JOINS: &str = "40";

/// Participants by whose memory the cost of one is counted: the biggest room that is measured.
const BIGGEST: u32 = 50;

#[derive(Deserialize)]
struct Joins {
    /// Seconds on `/rtc/v1`.
    one: Vec<f64>,
    /// Seconds on `/rtc`.
    two: Vec<f64>,
}

#[derive(Deserialize)]
struct Python {
    memory: Memory,
    first_frame: Joins,
}

#[derive(Deserialize)]
struct Memory {
    idle: Vec<BTreeMap<u32, f64>>,
    publishing: Vec<BTreeMap<u32, f64>>,
}

#[derive(Deserialize)]
struct Chromium {
    version: String,
    first_frame: Joins,
}

/// Measures and writes the section.
pub(crate) fn session() -> Result<()> {
    let python = python_environment(Duration::from_secs(300))?;
    npm_install("tests/browser")?;
    build_server(Duration::from_secs(1800))?;
    let sdk: Python = measure(
        "tests/python",
        &python("python3"),
        &["bench_session.py", "--rounds", ROUNDS, "--joins", JOINS],
    )?;
    let chromium: Chromium = measure("tests/browser", "node", &["bench/first-frame.mjs", JOINS])?;
    let text = section(&machine(), &sdk, &chromium)?;
    write_section("session", &text)?;
    println!("{text}");
    Ok(())
}

pub(crate) fn measure<T: serde::de::DeserializeOwned>(
    folder: &str,
    program: &str,
    arguments: &[&str],
) -> Result<T> {
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(root().join(folder))
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't run {program}"))?;
    let mut output = child.stdout.take().context("no output")?;
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut output, &mut text).map(|_| text)
    });
    let status = wait(child)?;
    if !status.success() {
        bail!("{program} {}: {status}", arguments.join(" "));
    }
    let text = reader.join().expect("reading does not panic")?;
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).with_context(|| format!("{program} printed no results"))
}

/// The machine in words that name nobody.
pub(crate) fn machine() -> String {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let model = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| {
            line.strip_prefix("model name")?
                .split_once(": ")
                .map(|(_, name)| name.to_owned())
        })
        .unwrap_or_else(|| "unknown processor".to_owned());
    let gigabytes = read("/proc/meminfo")
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemTotal:")?
                .trim()
                .split(' ')
                .next()?
                .parse::<f64>()
                .ok()
        })
        .map_or(0.0, |kilobytes| kilobytes / 1024.0 / 1024.0);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cores} cores ({model}), {gigabytes:.0} GB of memory, Linux")
}

/// The value below which `share` of the sorted values lie.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let index = (last as f64 * share).round() as usize;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

pub(crate) fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values
}

fn section(machine: &str, sdk: &Python, chromium: &Chromium) -> Result<String> {
    let mut out = format!(
        "## A session\n\nTerrace {}, release build, on {machine}. Clients and server share the machine, so the times are upper\n\
         bounds. Everything was measured in turn, not one after the other.\n\n\
         ### Memory\n\n\
         Resident memory of the server in MB, median of {} rounds (least–most), each with a new process. The\n\
         participants are those of the LiveKit SDK for Python in one room. *Silent* ones publish nothing. In the\n\
         other row one of them sends a camera (VP8, 320×180) and a microphone, and all others receive both.\n\n\
         | Participants |",
        env!("CARGO_PKG_VERSION"),
        sdk.memory.idle.len(),
    );
    let sizes: Vec<u32> = sdk
        .memory
        .idle
        .first()
        .context("no rounds")?
        .keys()
        .copied()
        .collect();
    for size in &sizes {
        let _ = write!(out, " {size} |");
    }
    let _ = writeln!(out, " each |\n|---|{}---|", "---|".repeat(sizes.len()));
    for (name, rounds) in [
        ("silent", &sdk.memory.idle),
        ("one sends, all receive", &sdk.memory.publishing),
    ] {
        let _ = write!(out, "| {name} |");
        for size in &sizes {
            let values = sorted(rounds.iter().filter_map(|round| round.get(size).copied()));
            let megabytes = |share| quantile(&values, share) / 1e6;
            let _ = write!(
                out,
                " {:.1} ({:.1}–{:.1}) |",
                megabytes(0.5),
                megabytes(0.0),
                megabytes(1.0)
            );
        }
        let each = sorted(rounds.iter().filter_map(|round| {
            Some((round.get(&BIGGEST)? - round.get(&0)?) / f64::from(BIGGEST) / 1e6)
        }));
        let _ = writeln!(out, " **{:.2}** |", quantile(&each, 0.5));
    }
    let _ = write!(
        out,
        "\n*Each* is what {BIGGEST} participants add, divided by {BIGGEST}.\n\n\
         ### From joining to the first picture\n\n\
         Seconds from the call that joins to the first decoded picture of a camera that is already on (VP8,\n\
         640×360), {} joins each. It contains the WebSocket, ICE, DTLS, and the wait for a keyframe.\n\n\
         | Client | Endpoint | p50 | p95 | least–most |\n|---|---|---|---|---|\n",
        sdk.first_frame.one.len(),
    );
    let browser = format!("Chromium {}", chromium.version);
    for (client, joins) in [
        (browser.as_str(), &chromium.first_frame),
        ("LiveKit SDK for Python", &sdk.first_frame),
    ] {
        for (endpoint, values) in [("`/rtc/v1`", &joins.one), ("`/rtc`", &joins.two)] {
            let values = sorted(values.iter().copied());
            let at = |share| quantile(&values, share);
            let _ = writeln!(
                out,
                "| {client} | {endpoint} | {:.2} | {:.2} | {:.2}–{:.2} |",
                at(0.5),
                at(0.95),
                at(0.0),
                at(1.0)
            );
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values = sorted([3.0, 1.0, 2.0]);
        assert_eq!(quantile(&values, 0.0), 1.0);
        assert_eq!(quantile(&values, 0.5), 2.0);
        assert_eq!(quantile(&values, 0.95), 3.0);
        assert!(quantile(&[], 0.5).is_nan());
    }
}
