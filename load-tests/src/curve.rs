//! What a server costs as one group of a scenario grows: a row and a point for each count.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result};
use plotters::style::{BLUE, GREEN, RED};
use serde::Serialize;

use crate::bench::{Bench, Played};
use crate::page::{STYLE, escape, plot, series};
use crate::scenario::Scenario;
use crate::servers::Candidate;

/// What to measure.
#[derive(clap::Args, Clone, Debug)]
pub struct Arguments {
    /// A scenario's name
    scenario: String,
    /// The group that grows
    #[arg(long)]
    group: String,
    /// Its counts, with commas between them
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1,10,50,100,200,500,1000"
    )]
    counts: Vec<u32>,
    /// Terrace's binary
    #[arg(long)]
    terrace: PathBuf,
    #[command(flatten)]
    bench: Bench,
    /// The folder for curve.json and curve.html
    #[arg(long)]
    out: PathBuf,
}

#[derive(Serialize)]
struct Point {
    count: u32,
    #[serde(flatten)]
    played: Played,
}

/// Measures, and writes the rows and the page with its plots.
///
/// # Errors
/// When the scenario has no such group, or a file can't be written. A count that can't be played
/// ends the curve.
pub fn draw(arguments: &Arguments) -> Result<()> {
    let mut scenario = Scenario::load(&arguments.scenario)?;
    std::fs::create_dir_all(&arguments.out)
        .with_context(|| format!("can't make the folder {}", arguments.out.display()))?;
    let candidate = Candidate::Terrace(arguments.terrace.clone());
    let mut points = Vec::new();
    for &count in &arguments.counts {
        scenario.set_count(&arguments.group, count)?;
        let counts = [(arguments.group.clone(), count)];
        let played = match arguments
            .bench
            .play(&arguments.scenario, &counts, &candidate)
        {
            Ok(played) => played,
            Err(error) => {
                println!("{count}: {error:#}");
                break;
            }
        };
        if let Some(cost) = &played.process {
            println!(
                "{count}: {:.2} cores, {:.2} µs a packet, {} kB, p50 {:.2} ms, p99 {:.2} ms, {} lost{}",
                cost.cores,
                cost.cpu_us_per_packet,
                cost.rss_kb,
                played.total.latency_ms.p50,
                played.total.latency_ms.p99,
                played.total.lost,
                if played.invalid.is_empty() {
                    ""
                } else {
                    "  (not to be trusted)"
                },
            );
        }
        points.push(Point { count, played });
    }
    let write = |name: &str, text: String| {
        let file = arguments.out.join(name);
        std::fs::write(&file, text).with_context(|| format!("can't write {}", file.display()))
    };
    write("curve.json", serde_json::to_string_pretty(&points)?)?;
    write("curve.html", page(&scenario, &arguments.group, &points)?)
}

fn page(scenario: &Scenario, group: &str, points: &[Point]) -> Result<String> {
    let mut out = String::new();
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{0}</title><style>{STYLE}</style>\
         <h1>{0} as the count of {1} grows</h1>",
        escape(&scenario.name),
        escape(group),
    );
    let over = |value: &dyn Fn(&Played) -> Option<f64>| -> Vec<(f64, f64)> {
        points
            .iter()
            .filter_map(|point| Some((f64::from(point.count), value(&point.played)?)))
            .collect()
    };
    let share = |lost: u64, expected: u64| Some(lost as f64 * 100.0 / expected.max(1) as f64);
    for (title, unit, all) in [
        (
            "Processor time",
            "cores",
            vec![series(
                "server",
                BLUE,
                over(&|it| Some(it.process.as_ref()?.cores)),
            )],
        ),
        (
            "Processor time per forwarded packet",
            "µs",
            vec![series(
                "server",
                BLUE,
                over(&|it| Some(it.process.as_ref()?.cpu_us_per_packet)),
            )],
        ),
        (
            "Memory",
            "kB",
            vec![series(
                "server",
                BLUE,
                over(&|it| Some(it.process.as_ref()?.rss_kb as f64)),
            )],
        ),
        (
            "Latency",
            "ms",
            vec![
                series("p50", BLUE, over(&|it| Some(it.total.latency_ms.p50))),
                series(
                    "audio p99",
                    GREEN,
                    over(&|it| Some(it.total.audio.latency_ms.p99)),
                ),
                series(
                    "video p99",
                    RED,
                    over(&|it| Some(it.total.video.latency_ms.p99)),
                ),
            ],
        ),
        (
            "Loss",
            "%",
            vec![
                series(
                    "audio",
                    GREEN,
                    over(&|it| share(it.total.audio.lost, it.total.audio.expected)),
                ),
                series(
                    "video",
                    RED,
                    over(&|it| share(it.total.video.lost, it.total.video.expected)),
                ),
            ],
        ),
        (
            "Joining",
            "ms",
            vec![
                series(
                    "connected p99",
                    GREEN,
                    over(&|it| Some(it.total.connected_ms.p99)),
                ),
                series(
                    "first keyframe p99",
                    BLUE,
                    over(&|it| Some(it.total.first_keyframe_ms.p99)),
                ),
            ],
        ),
    ] {
        plot(&mut out, title, group, unit, &all)?;
    }
    out.push_str("</html>");
    Ok(out)
}
