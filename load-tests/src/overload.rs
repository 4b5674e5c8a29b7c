//! What Terrace gives up when its processor is full, and how it comes back: the scenario `overload`, in which other
//! processes take most of the server's core for a while.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::bench::Bench;
use crate::report::{Step, StepKind};
use crate::scenario::{Rivals, Scenario};
use crate::stats::quantile;

const SCENARIO: &str = "overload";

/// The group whose members try to join all the while.
const NEWCOMERS: &str = "newcomer";

/// So long the server may take to notice, and everything is caught up with after the end, in seconds.
const ONSET: f64 = 5.0;

/// How long before the end all should be as it was, in seconds.
const CALM: f64 = 10.0;

/// What to measure.
#[derive(clap::Args, Clone, Debug)]
pub struct Arguments {
    #[command(flatten)]
    bench: Bench,
    /// The folder for overload.md and, in a folder for each run, report.json and report.html (the plots)
    #[arg(long)]
    out: PathBuf,
}

/// The part of a report that is told.
#[derive(Debug, Deserialize)]
struct Told {
    seconds: f64,
    invalid: Vec<String>,
    failures: Vec<String>,
    timeline: Vec<Step>,
    subscribers: Vec<Joined>,
}

#[derive(Debug, Deserialize)]
struct Joined {
    name: String,
    began: f64,
    connected_ms: Option<f64>,
}

/// A part of the measured time.
struct Phase {
    name: &'static str,
    from: f64,
    to: f64,
}

/// How many processes share the core: with the first number sound fits into what is left, with the
/// second not even that.
const RIVALS: [u32; 2] = [7, 15];

/// Measures, and writes the reports, their pages and the section.
///
/// # Errors
/// When it can't be played or a file can't be written.
pub fn draw(arguments: &Arguments) -> Result<()> {
    let scenario = Scenario::load(SCENARIO)?;
    let rivals = scenario.rivals.context("the scenario has no rivals")?;
    let bench = &arguments.bench;
    let mut section = format!(
        "## A full processor\n\n{}. Terrace has one core. From {:.0} s to {:.0} s after the begin processes that only \
         compute share it.\n*Shares* are of the packets that each subscriber got before. *Latency* is the median, and the \
         worst 99th percentile, of half\na second. One of the newcomers tries to join every {:.0} s.\n",
        scenario.about,
        rivals.from_seconds,
        rivals.from_seconds + rivals.for_seconds,
        newcomers_each(&scenario)?,
    );
    for count in RIVALS {
        let folder = arguments.out.join(format!("overload-{count}"));
        std::fs::create_dir_all(&folder)?;
        let more = ["--rivals".to_owned(), count.to_string()];
        let told: Told = bench.report(SCENARIO, &more, &bench.terrace(), &folder)?;
        let table = table(&rivals, count, &told)?;
        println!("{table}");
        section.push('\n');
        section.push_str(&table);
    }
    std::fs::write(arguments.out.join("overload.md"), section)?;
    Ok(())
}

fn phases(rivals: &Rivals, seconds: f64) -> [Phase; 6] {
    let (begin, end) = (
        rivals.from_seconds,
        rivals.from_seconds + rivals.for_seconds,
    );
    let phase = |name, from, to| Phase { name, from, to };
    [
        phase("before", 0.0, begin),
        phase("overload begins", begin, begin + ONSET),
        phase("overload goes on", begin + ONSET, end),
        phase("it is over", end, end + ONSET),
        phase("pictures come back", end + ONSET, seconds - CALM),
        phase("after", seconds - CALM, seconds),
    ]
}

fn table(rivals: &Rivals, count: u32, told: &Told) -> Result<String> {
    let phases = phases(rivals, told.seconds);
    let steps = |phase: &Phase| -> Vec<&Step> {
        let (from, to) = (phase.from, phase.to);
        let within = |step: &&Step| step.at >= from && step.at < to;
        told.timeline.iter().filter(within).collect()
    };
    let before = steps(&phases[0]);
    if before.is_empty() {
        bail!("nothing arrived before the overload");
    }
    // Whoever joined later gets packets too.
    let inside = |at: f64| {
        let is_inside = |one: &&Joined| {
            let since = one.connected_ms.map(|took| one.began + took / 1000.0);
            since.is_some_and(|since| since <= at)
        };
        told.subscribers.iter().filter(is_inside).count().max(1) as f64
    };
    let mut out = format!(
        "### {count} others, so that one part in {} is left\n\n\
         | | seconds | audio | audio latency ms | pictures | picture latency ms | newcomers let in |\n\
         |---|---|---|---|---|---|---|\n",
        count + 1,
    );
    let newcomers = || {
        let is_one = |one: &&Joined| one.name.contains(NEWCOMERS);
        told.subscribers.iter().filter(is_one)
    };
    for phase in &phases {
        let steps = steps(phase);
        let kind = |of: fn(&Step) -> StepKind| {
            let at = |share, value: fn(StepKind) -> f64| {
                let mut values: Vec<f64> = steps.iter().map(|step| value(of(step))).collect();
                values.sort_by(f64::total_cmp);
                quantile(&values, share)
            };
            // A step in which nothing came counts as nothing.
            let mean = |steps: &[&Step]| {
                let each = steps.iter().map(|step| of(step).packets / inside(step.at));
                each.sum::<f64>() / steps.len().max(1) as f64
            };
            let share = 100.0 * mean(&steps) / mean(&before).max(f64::MIN_POSITIVE);
            let (middle, worst) = (
                at(0.5, |it| it.latency_ms.p50),
                at(1.0, |it| it.latency_ms.p99),
            );
            format!("{share:.1} % | {middle:.1}, {worst:.0}")
        };
        let came: Vec<&Joined> = newcomers()
            .filter(|one| one.began >= phase.from && one.began < phase.to)
            .collect();
        let inside = came.iter().filter(|one| one.connected_ms.is_some()).count();
        let _ = writeln!(
            out,
            "| {} | {:.0}–{:.0} | {} | {} | {inside} of {} |",
            phase.name,
            phase.from,
            phase.to,
            kind(|step| step.audio),
            kind(|step| step.video),
            came.len(),
        );
    }
    if !told.invalid.is_empty() {
        let _ = writeln!(out, "\nNot to be trusted: {}.", told.invalid.join("; "));
    }
    if let Some(failure) = told.failures.first() {
        let _ = writeln!(
            out,
            "\nWhat the first one who was not let in was told: {failure}."
        );
    }
    Ok(out)
}

/// How far apart newcomers come, in seconds.
fn newcomers_each(scenario: &Scenario) -> Result<f64> {
    let mut groups = scenario.groups.iter();
    let group = groups.find(|group| group.name == NEWCOMERS);
    let group = group.context("the scenario has no newcomers")?;
    Ok(group.arrive_seconds / f64::from(group.count.max(1)))
}
