//! What a server costs as one group of a scenario grows: a row and a point for each count.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use plotters::style::{BLACK, BLUE, GREEN, RED, RGBColor};

use crate::bench::{Bench, Played, PlayedCost};
use crate::door::Kind;
use crate::page::{STYLE, Series, escape, known, marks, plot, series};
use crate::peers::Row;
use crate::scenario::Scenario;
use crate::servers::Candidate;

/// The floor's colour.
const GREY: RGBColor = RGBColor(140, 140, 140);

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
    #[command(flatten)]
    bench: Bench,
    /// The folder for curve.jsonl (one run a line) and curve.html
    #[arg(long)]
    out: PathBuf,
}

/// A scenario whose group grows.
#[derive(Clone, Debug)]
pub(crate) struct Curve {
    pub(crate) scenario: Scenario,
    pub(crate) group: String,
    pub(crate) counts: Vec<u32>,
    /// Whether the floor is measured too.
    pub(crate) has_floor: bool,
}

/// What was measured with one count.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    pub(crate) count: u32,
    pub(crate) row: Row,
}

impl Point {
    pub(crate) fn played(&self) -> &Played {
        &self.row.played
    }

    pub(crate) fn cost(&self) -> &PlayedCost {
        &self.row.cost
    }

    pub(crate) fn is_valid(&self) -> bool {
        self.row.played.invalid.is_empty()
    }

    /// The generator had no more to give: what was measured is its limit and not the server's.
    pub(crate) fn is_generators_limit(&self) -> bool {
        self.row.played.generator.was_starved
    }

    /// Packets that reached subscribers, a second.
    pub(crate) fn packets_per_second(&self) -> f64 {
        self.row.played.total.received as f64 / self.row.played.seconds
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        let mut json = self.row.json();
        json["count"] = self.count.into();
        json["packets_per_second"] = self.packets_per_second().into();
        json["generator_starved"] = self.is_generators_limit().into();
        json
    }
}

/// Measures, and writes the rows and the page with its plots.
///
/// # Errors
/// When the scenario has no such group, or a file can't be written. A count that can't be played
/// ends the curve.
pub fn draw(arguments: &Arguments) -> Result<()> {
    let curve = Curve {
        scenario: Scenario::load(&arguments.scenario)?,
        group: arguments.group.clone(),
        counts: arguments.counts.clone(),
        has_floor: false,
    };
    let (points, _) = curve.measure(&arguments.bench)?;
    let mut page = head(&format!("{} as it grows", curve.scenario.name));
    curve.plots(&points, &mut page)?;
    page.push_str("</html>");
    write(&arguments.out, "curve.jsonl", &lines(&points))?;
    write(&arguments.out, "curve.html", &page)
}

/// One row a line.
pub(crate) fn lines<'a>(points: impl IntoIterator<Item = &'a Point>) -> String {
    let lines = points
        .into_iter()
        .map(|point| format!("{}\n", point.json()));
    lines.collect()
}

pub(crate) fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("can't make the folder {}", folder.display()))?;
    let file = folder.join(name);
    std::fs::write(&file, text).with_context(|| format!("can't write {}", file.display()))
}

pub(crate) fn head(title: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\
         <style>{STYLE}</style><h1>{title}</h1>"
    )
}

impl Curve {
    /// Measures count after count, Terrace and the floor in turn. A count that can't be played ends
    /// the curve; the reason is returned with it.
    pub(crate) fn measure(&self, bench: &Bench) -> Result<(Vec<Point>, Option<String>)> {
        let terrace = bench.terrace();
        let mut points = Vec::new();
        for &count in &self.counts {
            let played = match self.play(bench, count, &terrace) {
                Ok(played) => played,
                Err(error) => {
                    let reason = format!("{count} × {} could not be played: {error:#}", self.group);
                    println!("{}: {reason}", self.scenario.name);
                    return Ok((points, Some(reason)));
                }
            };
            let profile = played.profile().context("no SRTP profile was agreed on")?;
            let floor = self.has_floor.then(|| -> Result<Row> {
                let program = std::env::current_exe().context("this program's own file")?;
                let floor = Candidate::Floor { program, profile };
                let played = self.play(bench, count, &floor)?;
                Row::new(Kind::Floor, &self.scenario, 1, profile, played)
            });
            let floor = floor.transpose()?;
            let mut row = Row::new(Kind::Terrace, &self.scenario, 1, profile, played)?;
            row.compare(floor.as_ref());
            for row in [Some(row), floor].into_iter().flatten() {
                let point = Point { count, row };
                println!("{}", self.line(&point));
                points.push(point);
            }
        }
        Ok((points, None))
    }

    fn play(&self, bench: &Bench, count: u32, candidate: &Candidate) -> Result<Played> {
        // That it can be played is known before a server is started.
        self.scenario.clone().set_count(&self.group, count)?;
        bench.play(
            &self.scenario.name,
            &[(self.group.clone(), count)],
            candidate,
        )
    }

    fn line(&self, point: &Point) -> String {
        let (cost, total) = (point.cost(), &point.played().total);
        format!(
            "{} with {} × {} on {}: {:.3} cores, {} µs a packet, {} kB, {:.0} kB per client, p50 {:.2} ms, p99 {:.2} ms, \
             {} lost{}",
            self.scenario.name,
            point.count,
            self.group,
            point.row.server,
            cost.cores,
            known(cost.cpu_us_per_packet, 2),
            cost.rss_kb,
            cost.rss_per_client_kb,
            total.latency_ms.p50,
            total.latency_ms.p99,
            total.lost,
            if point.is_valid() {
                String::new()
            } else {
                format!(
                    "  (not to be trusted: {})",
                    point.played().invalid.join("; ")
                )
            },
        )
    }

    /// Appends the plots. Where the generator had no more to give stands a cross and no line.
    pub(crate) fn plots(&self, points: &[Point], out: &mut String) -> Result<()> {
        let _ = write!(
            out,
            "<h2>{}: {}, as the count of {} grows</h2>",
            escape(&self.scenario.name),
            escape(&self.scenario.about),
            escape(&self.group),
        );
        let over = |server: Kind, is_valid: bool, value: &dyn Fn(&Point) -> Option<f64>| {
            points
                .iter()
                .filter(|point| point.row.server == server.name() && point.is_valid() == is_valid)
                .filter_map(|point| Some((f64::from(point.count), value(point)?)))
                .collect::<Vec<_>>()
        };
        let both = |value: &dyn Fn(&Point) -> Option<f64>| -> Vec<Series> {
            vec![
                series("terrace", BLUE, over(Kind::Terrace, true, value)),
                series("floor", GREY, over(Kind::Floor, true, value)),
                marks("not to be trusted", RED, over(Kind::Terrace, false, value)),
                marks("floor, neither", GREY, over(Kind::Floor, false, value)),
            ]
        };
        let own = |name, color, value: &dyn Fn(&Point) -> Option<f64>| {
            series(name, color, over(Kind::Terrace, true, value))
        };
        let share = |lost: u64, expected: u64| {
            (expected > 0).then(|| lost as f64 * 100.0 / expected as f64)
        };
        let sends = |value: f64, point: &Point| (point.played().total.sent > 0).then_some(value);
        for (title, unit, all) in [
            ("Processor time", "cores", both(&|it| Some(it.cost().cores))),
            (
                "Processor time per forwarded packet",
                "µs",
                both(&|it| it.cost().cpu_us_per_packet),
            ),
            (
                "Packets to subscribers",
                "packets/s",
                both(&|it| sends(it.packets_per_second(), it)),
            ),
            (
                "Packets per wake-up, per message and per call",
                "packets",
                vec![
                    own("wake-up", BLUE, &|it| {
                        sends(it.cost().packets_per_wake_up, it)
                    }),
                    own("message", GREEN, &|it| it.cost().packets_per_message),
                    own("call", BLACK, &|it| it.cost().packets_per_call),
                ],
            ),
            (
                "Memory",
                "kB",
                vec![own("terrace", BLUE, &|it| Some(it.cost().rss_kb as f64))],
            ),
            (
                "Latency",
                "ms",
                vec![
                    own("p50", BLUE, &|it| {
                        sends(it.played().total.latency_ms.p50, it)
                    }),
                    own("audio p99", GREEN, &|it| {
                        let audio = it.played().total.audio;
                        (audio.expected > 0).then_some(audio.latency_ms.p99)
                    }),
                    own("video p99", RED, &|it| {
                        let video = it.played().total.video;
                        (video.expected > 0).then_some(video.latency_ms.p99)
                    }),
                    series(
                        "floor p50",
                        GREY,
                        over(Kind::Floor, true, &|it| {
                            Some(it.played().total.latency_ms.p50)
                        }),
                    ),
                ],
            ),
            (
                "Loss",
                "%",
                vec![
                    own("audio", GREEN, &|it| {
                        share(
                            it.played().total.audio.lost,
                            it.played().total.audio.expected,
                        )
                    }),
                    own("video", RED, &|it| {
                        share(
                            it.played().total.video.lost,
                            it.played().total.video.expected,
                        )
                    }),
                ],
            ),
            (
                "Joining",
                "ms",
                vec![
                    own("connected p99", GREEN, &|it| {
                        Some(it.played().total.connected_ms.p99)
                    }),
                    own("first keyframe p99", BLUE, &|it| {
                        sends(it.played().total.first_keyframe_ms.p99, it)
                    }),
                ],
            ),
            (
                "The generator's thread",
                "cores",
                both(&|it| Some(it.played().generator.busiest_thread)),
            ),
        ] {
            plot(out, title, &self.group, unit, &all)?;
        }
        Ok(())
    }
}
