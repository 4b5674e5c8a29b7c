//! The curves of `docs/performance.md`: what Terrace costs as rooms grow, with words made from the numbers that tell
//! a straight line from a knee, and the server's limit from the generator's.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::bench::Bench;
use crate::curve::{Curve, Point, head, lines, write};
use crate::door::Kind;
use crate::page::known;
use crate::scenario::Scenario;

/// A point lies on a line that is no farther from it than this share of it.
const STRAIGHT: f64 = 0.10;

/// Below this share of a core what else the server does drowns the packets.
const SMALL: f64 = 0.02;

/// From this share of a core on a server on one core has no more to give.
const FULL: f64 = 0.95;

/// Loss above this share is told.
const LOSS: f64 = 0.001;

/// A generator that is busy for less than this share of its time says little about its limit.
const TELLING: f64 = 0.3;

/// What to measure.
#[derive(clap::Args, Clone, Debug)]
pub struct Arguments {
    /// The curves, with commas between them; all unless given
    #[arg(long, value_delimiter = ',')]
    curves: Vec<String>,
    /// Leaves out counts above this
    #[arg(long)]
    most: Option<u32>,
    #[command(flatten)]
    bench: Bench,
    /// The folder for curves.jsonl (one run a line), curves.html (the plots) and curves.md
    #[arg(long)]
    out: PathBuf,
}

/// The scenario, the group that grows, its counts, and whether the floor stands beside it.
const CURVES: [(&str, &str, &[u32], bool); 5] = [
    ("idle", "viewer", &[1, 100, 300, 1000], false),
    ("f200", "viewer", &[1, 100, 300, 1000], false),
    ("picture", "viewer", &[1, 10, 50, 100, 200, 500, 1000], true),
    ("senders", "sender", &[1, 2, 5, 10, 20, 30, 50], true),
    ("meeting", "member", &[2, 5, 10, 15, 20, 30, 50], true),
];

/// Measures all, and writes the rows, the page and the section.
///
/// # Errors
/// When there is no such curve, nothing could be measured, or a file can't be written.
pub fn draw(arguments: &Arguments) -> Result<()> {
    for name in &arguments.curves {
        if CURVES.iter().all(|(scenario, ..)| scenario != name) {
            let names: Vec<&str> = CURVES.iter().map(|(scenario, ..)| *scenario).collect();
            bail!("there is no curve {name}; there are {}", names.join(", "));
        }
    }
    let mut page = head("What Terrace costs as rooms grow");
    let mut all = Vec::new();
    for (scenario, group, counts, has_floor) in CURVES {
        if !arguments.curves.is_empty() && !arguments.curves.iter().any(|name| name == scenario) {
            continue;
        }
        let counts = counts.iter().copied();
        let curve = Curve {
            scenario: Scenario::load(scenario)?,
            group: group.to_owned(),
            counts: counts
                .filter(|count| arguments.most.is_none_or(|most| *count <= most))
                .collect(),
            has_floor,
        };
        let (points, failure) = curve.measure(&arguments.bench)?;
        let text = curve.section(&points, failure.as_deref());
        println!("\n{text}");
        curve.plots(&points, &mut page)?;
        all.push((text, points));
        // Whoever breaks it off has what was measured until then.
        let points = || all.iter().flat_map(|(_, points)| points);
        write(&arguments.out, "curves.jsonl", &lines(points()))?;
        write(&arguments.out, "curves.html", &format!("{page}</html>"))?;
        let texts = all.iter().map(|(text, _)| text.as_str());
        let section = section(texts, points());
        write(&arguments.out, "curves.md", &section)?;
    }
    if all.iter().all(|(_, points)| points.is_empty()) {
        bail!("nothing could be measured");
    }
    Ok(())
}

fn section<'a>(
    texts: impl Iterator<Item = &'a str>,
    points: impl Iterator<Item = &'a Point>,
) -> String {
    let mut out = String::from(
        "## As rooms grow\n\n\
         One run for each count, with a fresh server on one core and the generator on another. *Floor* is a program\n\
         that only decrypts, encrypts with a new header and sends in batches. On loopback the kernel charges the\n\
         receivers' work to the sender, so the server's core is full sooner than behind a network card. Runs marked\n\
         with ✗ say nothing about the server, and no line runs through them.\n",
    );
    // What it sends and takes in for each share of its core.
    let carried = points
        // The floor's clients are no WebRTC clients.
        .filter(|point| point.is_valid() && point.row.server == Kind::Terrace.name())
        .filter_map(|point| {
            let generator = &point.played().generator;
            let packets = point.packets_per_second()
                + point.played().total.sent as f64 / point.played().seconds;
            (generator.busiest_thread > TELLING).then_some(packets / generator.busiest_thread)
        })
        .fold(0.0, f64::max);
    if carried > 0.0 {
        let _ = writeln!(
            out,
            "The generator, real WebRTC clients, carries about {:.0} thousand packets a second on its core.",
            carried / 1000.0
        );
    }
    for text in texts {
        out.push('\n');
        out.push_str(text);
    }
    out
}

impl Curve {
    /// The table and what it says.
    fn section(&self, points: &[Point], failure: Option<&str>) -> String {
        let mut out = format!(
            "### {}, with a growing number of: {}\n\n{}.\n\n",
            self.scenario.name, self.group, self.scenario.about
        );
        let own: Vec<&Point> = points
            .iter()
            .filter(|point| point.row.server == Kind::Terrace.name())
            .collect();
        if self.sends() {
            self.load_table(points, &own, &mut out);
            self.load_words(&own, &mut out);
        } else {
            idle_table(&own, &mut out);
            idle_words(&own, &mut out);
        }
        if let Some(failure) = failure {
            let _ = writeln!(out, "{failure}.");
        }
        out
    }

    fn sends(&self) -> bool {
        let mut groups = self.scenario.groups.iter();
        groups.any(|group| group.audio || group.video.is_some())
    }

    fn load_table(&self, points: &[Point], own: &[&Point], out: &mut String) {
        let _ = writeln!(
            out,
            "| {} | packets/s to subscribers | cores | µs per packet | × floor | per wake-up / message / call | \
             latency p50, p99 ms | lost | MB | generator's core |\n|---|---|---|---|---|---|---|---|---|---|",
            self.group
        );
        for point in own {
            let floor = points
                .iter()
                .find(|other| other.count == point.count && other.row.server == Kind::Floor.name());
            let ratio = match (point.row.ratio, floor) {
                (Some(ratio), _) => format!("{:.2}", ratio[0]),
                (None, Some(floor)) if point.is_valid() && !floor.is_valid() => "✗".to_owned(),
                _ => "–".to_owned(),
            };
            let (cost, total) = (point.cost(), &point.played().total);
            let _ = writeln!(
                out,
                "| {}{} | {:.0} | {:.3} | {} | {ratio} | {:.1} / {} / {} | {:.2}, {:.2} | {} | {:.1} | {:.2} |",
                point.count,
                if point.is_valid() { "" } else { " ✗" },
                point.packets_per_second(),
                cost.cores,
                known(cost.cpu_us_per_packet, 2),
                cost.packets_per_wake_up,
                known(cost.packets_per_message, 1),
                known(cost.packets_per_call, 1),
                total.latency_ms.p50,
                total.latency_ms.p99,
                percent(total.loss),
                cost.rss_kb as f64 / 1024.0,
                point.played().generator.busiest_thread,
            );
        }
        out.push('\n');
    }

    fn load_words(&self, own: &[&Point], out: &mut String) {
        let valid: Vec<&Point> = own.iter().copied().filter(|it| it.is_valid()).collect();
        let free: Vec<&Point> = valid
            .iter()
            .copied()
            .filter(|it| it.cost().cores < FULL)
            .collect();
        out.push_str(&shape(&free));
        match valid.iter().find(|point| point.cost().cores >= FULL) {
            Some(knee) => {
                let _ = writeln!(
                    out,
                    "The knee is at {} × {}: the server's core is full ({:.2} cores for {:.0} packets/s), p99 is {:.1} ms and \
                     {} are lost. One core carries no more.",
                    knee.count,
                    self.group,
                    knee.cost().cores,
                    knee.packets_per_second(),
                    knee.played().total.latency_ms.p99,
                    percent(knee.played().total.loss),
                );
            }
            None => {
                if let Some(last) = valid.last() {
                    let _ = writeln!(
                        out,
                        "No knee of the server was reached: with {} × {} it uses {:.2} of its core.",
                        last.count,
                        self.group,
                        last.cost().cores,
                    );
                }
            }
        }
        if let Some(lossy) = free.iter().find(|it| it.played().total.loss > LOSS) {
            let _ = writeln!(
                out,
                "Packets are lost before the core is full: {} of them with {} × {}.",
                percent(lossy.played().total.loss),
                lossy.count,
                self.group,
            );
        }
        for point in own.iter().filter(|point| !point.is_valid()) {
            let reason = point.played().invalid.join("; ");
            let whose = if point.is_generators_limit() {
                "the generator could not keep up, whatever the server could do"
            } else {
                "the run says nothing"
            };
            let _ = writeln!(
                out,
                "✗ {} × {}: {whose} ({reason}).",
                point.count, self.group
            );
        }
        let each = memory(&valid);
        if let Some(each) = each {
            let _ = writeln!(out, "Each {} adds {each:.0} kB.", self.group);
        }
    }
}

/// Whether processor time is a straight line over packets, and if not, how it bends.
fn shape(free: &[&Point]) -> String {
    let over: Vec<(f64, f64)> = free
        .iter()
        .map(|point| (point.packets_per_second(), point.cost().cores))
        .collect();
    let (Some((base, slope)), [first, second, .., last]) = (line(&over), free) else {
        return String::new();
    };
    let telling = over.iter().filter(|(_, cores)| *cores > SMALL);
    let distance = telling
        .map(|(packets, cores)| (base + slope * packets - cores).abs() / cores)
        .fold(0.0, f64::max);
    let mut out = String::new();
    if distance <= STRAIGHT {
        let _ = writeln!(
            out,
            "Processor time is a straight line over packets: {:.2} % of a core and {:.2} µs for each. Of the points above \
             {:.0} % of a core none is more than {:.0} % off.",
            base * 100.0,
            slope * 1e6,
            SMALL * 100.0,
            distance * 100.0
        );
    } else {
        let before = free[free.len() - 2];
        let _ = writeln!(
            out,
            "Processor time bends: from {} to {} each packet more costs {:.1} µs, from {} to {} it costs {:.1} µs.",
            first.count,
            second.count,
            more(first, second),
            before.count,
            last.count,
            more(before, last),
        );
    }
    if let (Some(at_first), Some(at_last)) = (
        first.cost().cpu_us_per_packet,
        last.cost().cpu_us_per_packet,
    ) {
        let wake_ups = |point: &Point| point.cost().packets_per_wake_up;
        let _ = writeln!(
            out,
            "All told a packet costs {at_first:.1} µs with {} and {at_last:.1} µs with {}; a wake-up carries {:.1} packets \
             there and {:.1} here{}",
            first.count,
            last.count,
            wake_ups(first),
            wake_ups(last),
            if wake_ups(last) > wake_ups(first) && at_last < at_first {
                ", so that more of them share what it costs."
            } else {
                "."
            },
        );
    }
    out
}

/// What each packet more costs between two points, in microseconds.
fn more(from: &Point, to: &Point) -> f64 {
    let packets = to.packets_per_second() - from.packets_per_second();
    (to.cost().cores - from.cost().cores) * 1e6 / packets
}

fn idle_table(own: &[&Point], out: &mut String) {
    out.push_str(
        "| peers | % of a core | resident MB | kB per peer | connected p99 ms | generator: % of a core | MB |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for point in own {
        let (cost, played) = (point.cost(), point.played());
        let _ = writeln!(
            out,
            "| {}{} | {:.2} | {:.1} | {:.0} | {:.0} | {:.1} | {:.0} |",
            point.count,
            if point.is_valid() { "" } else { " ✗" },
            cost.cores * 100.0,
            cost.rss_kb as f64 / 1024.0,
            cost.rss_per_client_kb,
            played.total.connected_ms.p99,
            played.generator.busiest_thread * 100.0,
            played.generator.rss_kb as f64 / 1024.0,
        );
    }
    out.push('\n');
}

fn idle_words(own: &[&Point], out: &mut String) {
    let valid: Vec<&Point> = own.iter().copied().filter(|it| it.is_valid()).collect();
    let over: Vec<(f64, f64)> = valid
        .iter()
        .map(|point| (f64::from(point.count), point.cost().cores))
        .collect();
    if let (Some(each), Some((_, slope))) = (memory(&valid), line(&over)) {
        let _ = writeln!(
            out,
            "Each more peer adds {each:.0} kB, and a hundred of them {:.2} % of a core.",
            slope * 10_000.0
        );
    }
    for point in own.iter().filter(|point| !point.is_valid()) {
        let _ = writeln!(
            out,
            "✗ {}: {}.",
            point.count,
            point.played().invalid.join("; ")
        );
    }
}

/// What each more of the group adds, in kB: from the smallest to the biggest count.
fn memory(points: &[&Point]) -> Option<f64> {
    let (first, last) = (points.first()?, points.last()?);
    let more = last
        .count
        .checked_sub(first.count)
        .filter(|more| *more > 0)?;
    Some((last.cost().rss_kb as f64 - first.cost().rss_kb as f64) / f64::from(more))
}

/// The line through points by least squares: its height at 0 and its slope.
fn line(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (middle, height) = (mean(|it| it.0), mean(|it| it.1));
    let spread: f64 = points.iter().map(|it| (it.0 - middle).powi(2)).sum();
    let together: f64 = points
        .iter()
        .map(|it| (it.0 - middle) * (it.1 - height))
        .sum();
    (spread > 0.0).then(|| {
        let slope = together / spread;
        (height - slope * middle, slope)
    })
}

fn percent(share: f64) -> String {
    if share == 0.0 {
        "0".into()
    } else {
        format!("{:.2} %", share * 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::tests::example;

    fn curve(scenario: &str) -> Curve {
        Curve {
            scenario: Scenario::load(scenario).unwrap(),
            group: "viewer".into(),
            counts: vec![1, 10, 100, 200],
            has_floor: true,
        }
    }

    /// Cores are 0.01 and 10 µs for each packet.
    fn point(server: &'static str, count: u32, is_starved: bool) -> Point {
        let mut row = example(server, 10.0, is_starved);
        let packets = u64::from(count) * 100;
        row.played.total.received = packets;
        row.cost.cores = 0.01 + packets as f64 / 100_000.0;
        row.cost.rss_kb = 1000 + 50 * u64::from(count);
        Point { count, row }
    }

    #[test]
    fn a_line_is_found() {
        let (base, slope) = line(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]).unwrap();
        assert!((base - 1.0).abs() < 1e-9 && (slope - 2.0).abs() < 1e-9);
        assert!(line(&[(1.0, 1.0), (1.0, 2.0)]).is_none());
        assert!(line(&[]).is_none());
    }

    #[test]
    fn a_straight_line_without_a_knee_is_told() {
        let points = [1, 10, 100, 200].map(|count| point("terrace", count, false));
        let text = curve("picture").section(&points, None);
        assert!(
            text.contains("a straight line over packets: 1.00 % of a core and 10.00 µs"),
            "{text}"
        );
        assert!(
            text.contains("No knee of the server was reached: with 200 × viewer"),
            "{text}"
        );
        assert!(text.contains("Each viewer adds 50 kB."), "{text}");
        assert!(!text.contains('✗'), "{text}");
    }

    #[test]
    fn a_bend_is_told_with_its_reason() {
        let mut points = [1, 10, 100, 200].map(|count| point("terrace", count, false));
        points[1].row.cost.cores = 0.2;
        points[3].row.cost.cpu_us_per_packet = Some(5.0);
        points[3].row.cost.packets_per_wake_up = 40.0;
        let text = curve("picture").section(&points, None);
        assert!(
            text.contains("Processor time bends: from 1 to 10"),
            "{text}"
        );
        assert!(text.contains("from 100 to 200 it costs 10.0 µs"), "{text}");
        assert!(text.contains("share what it costs"), "{text}");
    }

    #[test]
    fn a_full_core_is_a_knee_and_left_out_of_the_line() {
        let mut points = [1, 10, 100, 200].map(|count| point("terrace", count, false));
        points[3].row.cost.cores = 0.99;
        points[3].row.played.total.loss = 0.2;
        let text = curve("picture").section(&points, None);
        assert!(text.contains("The knee is at 200 × viewer"), "{text}");
        assert!(text.contains("20.00 % are lost"), "{text}");
        assert!(
            text.contains("straight line over packets: 1.00 %"),
            "{text}"
        );
    }

    #[test]
    fn the_generators_limit_is_not_the_servers() {
        let mut points: Vec<Point> = [1, 10, 100]
            .map(|count| point("terrace", count, false))
            .into();
        points.push(point("terrace", 200, true));
        points[3].row.cost.cores = 0.99;
        let text = curve("picture").section(&points, None);
        assert!(
            text.contains("✗ 200 × viewer: the generator could not keep up"),
            "{text}"
        );
        assert!(text.contains("| 200 ✗ |"), "{text}");
        assert!(text.contains("with 100 × viewer it uses"), "{text}");
        assert!(!text.contains("The knee"), "{text}");
    }

    #[test]
    fn idle_peers_cost_memory_and_little_else() {
        let points = [1, 100].map(|count| point("terrace", count, false));
        let text = curve("idle").section(&points, Some("1000 × viewer could not be played: x"));
        assert!(text.contains("Each more peer adds 50 kB"), "{text}");
        assert!(
            text.ends_with("1000 × viewer could not be played: x.\n"),
            "{text}"
        );
    }
}
