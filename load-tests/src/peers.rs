//! Several servers side by side: the same scenarios against each in turn, over and over, as ratios to the floor of
//! the same repetition.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::bench::{Bench, Played, PlayedCost};
use crate::door::Kind;
use crate::page::known;
use crate::scenario::Scenario;
use crate::servers::Candidate;
use crate::srtp::Profile;

/// What to compare.
#[derive(clap::Args, Clone, Debug)]
pub struct Arguments {
    /// LiveKit's server, if there is one
    #[arg(long)]
    livekit: Option<PathBuf>,
    /// Janus, if there is one
    #[arg(long)]
    janus: Option<PathBuf>,
    /// Scenarios, with commas between them
    #[arg(long, value_delimiter = ',', default_value = "f50,m10")]
    scenarios: Vec<String>,
    /// How often everything is measured
    #[arg(long, default_value_t = 5)]
    repetitions: u32,
    #[command(flatten)]
    bench: Bench,
    /// The folder for peers.jsonl (one run a line) and peers.md (the table)
    #[arg(long)]
    out: PathBuf,
}

/// A run of one server, beside the floor's of the same repetition.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) server: &'static str,
    scenario: String,
    repetition: u32,
    profile: String,
    pub(crate) played: Played,
    pub(crate) cost: PlayedCost,
    /// Multiples of the floor: processor time, and latency at its 50th and 99th percentile.
    pub(crate) ratio: Option<[f64; 3]>,
}

impl Row {
    pub(crate) fn new(
        kind: Kind,
        scenario: &Scenario,
        repetition: u32,
        profile: Profile,
        played: Played,
    ) -> Result<Row> {
        Ok(Row {
            server: kind.name(),
            scenario: scenario.name.clone(),
            repetition,
            profile: profile.name().to_owned(),
            cost: played
                .process
                .clone()
                .context("the run says nothing of the server's process")?,
            played,
            ratio: None,
        })
    }

    /// Becomes a multiple of the floor.
    pub(crate) fn compare(&mut self, floor: Option<&Row>) {
        self.ratio = floor.and_then(|floor| ratio(self, floor));
    }

    pub(crate) fn json(&self) -> Value {
        let total = &self.played.total;
        json!({
            "server": self.server,
            "scenario": self.scenario,
            "repetition": self.repetition,
            "cpu_us_per_packet": self.cost.cpu_us_per_packet,
            "floor_ratio": self.ratio.map(|ratio| ratio[0]),
            "loss": total.loss,
            "packets_expected": total.expected,
            "packets_received": total.received,
            "packets_lost": total.lost,
            "packets_duplicated": total.duplicates,
            "packets_reordered": total.reordered,
            "jumps": total.jumps,
            "latency_ms": total.latency_ms,
            "latency_floor_ratio": self.ratio.map(|ratio| json!({ "p50": ratio[1], "p99": ratio[2] })),
            "first_keyframe_ms": total.first_keyframe_ms,
            "rss_kb": self.cost.rss_kb,
            "rss_per_client_kb": self.cost.rss_per_client_kb,
            "cores": self.cost.cores,
            "server_waiting": self.cost.waiting,
            "packets_per_wake_up": self.cost.packets_per_wake_up,
            "packets_per_message": self.cost.packets_per_message,
            "packets_per_call": self.cost.packets_per_call,
            "srtp_profile": self.profile,
            "generator_busiest_thread": self.played.generator.busiest_thread,
            "generator_longest_waiting": self.played.generator.longest_waiting,
            "generator_rss_kb": self.played.generator.rss_kb,
            "invalid": self.played.invalid,
            "failures": self.played.failures,
        })
    }
}

/// Measures all, and writes the rows and the table.
///
/// # Errors
/// When a server can't be started, or Terrace can't be measured at all.
pub fn compare(arguments: &Arguments) -> Result<()> {
    let scenarios: Vec<Scenario> = arguments
        .scenarios
        .iter()
        .map(|name| Scenario::load(name))
        .collect::<Result<_>>()?;
    std::fs::create_dir_all(&arguments.out)
        .with_context(|| format!("can't make the folder {}", arguments.out.display()))?;
    let lines = arguments.out.join("peers.jsonl");
    let mut lines = std::fs::File::create(&lines)
        .with_context(|| format!("can't write {}", lines.display()))?;
    let candidates: Vec<Candidate> = [
        Some(arguments.bench.terrace()),
        arguments.livekit.clone().map(Candidate::LiveKit),
        arguments.janus.clone().map(Candidate::Janus),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut rows: Vec<Row> = Vec::new();
    for repetition in 1..=arguments.repetitions {
        for scenario in &scenarios {
            let mut of_this = Vec::new();
            let mut floors: BTreeMap<Profile, Row> = BTreeMap::new();
            // Each repetition begins with another server, so that none is always first.
            let first = repetition as usize % candidates.len();
            for candidate in candidates[first..].iter().chain(&candidates[..first]) {
                let server = candidate.kind().name();
                println!(
                    "{} of {repetition}/{}: {server}",
                    scenario.name, arguments.repetitions
                );
                let played = arguments.bench.play(&scenario.name, &[], candidate);
                let played = match played {
                    Ok(played) => played,
                    Err(error) => {
                        println!("  {server} could not be measured: {error:#}");
                        continue;
                    }
                };
                let Some(profile) = played.profile() else {
                    println!("  {server} agreed on no SRTP profile");
                    continue;
                };
                if let std::collections::btree_map::Entry::Vacant(floor) = floors.entry(profile) {
                    println!("  the floor at {}", profile.name());
                    let program = std::env::current_exe().context("this program's own file")?;
                    let candidate = Candidate::Floor { program, profile };
                    let played = arguments.bench.play(&scenario.name, &[], &candidate)?;
                    floor.insert(Row::new(
                        Kind::Floor,
                        scenario,
                        repetition,
                        profile,
                        played,
                    )?);
                }
                of_this.push(Row::new(
                    candidate.kind(),
                    scenario,
                    repetition,
                    profile,
                    played,
                )?);
            }
            for row in &mut of_this {
                let floor = floors.values().find(|floor| floor.profile == row.profile);
                row.compare(floor);
            }
            for floor in floors.into_values() {
                of_this.push(Row {
                    ratio: Some([1.0; 3]),
                    ..floor
                });
            }
            for row in of_this {
                writeln!(lines, "{}", row.json())?;
                println!(
                    "  {:<8} {:>6} µs a packet, {:>5.2} × floor, {} lost, p50 {:.2} ms, p99 {:.2} ms{}",
                    row.server,
                    known(row.cost.cpu_us_per_packet, 2),
                    row.ratio.map_or(f64::NAN, |ratio| ratio[0]),
                    row.played.total.lost,
                    row.played.total.latency_ms.p50,
                    row.played.total.latency_ms.p99,
                    if row.played.invalid.is_empty() {
                        ""
                    } else {
                        "  (not counted)"
                    },
                );
                rows.push(row);
            }
        }
    }
    let table = table(&scenarios, &rows, arguments.repetitions);
    println!("\n{table}");
    std::fs::write(arguments.out.join("peers.md"), table)?;
    if !rows.iter().any(|row| row.server == "terrace") {
        bail!("Terrace could not be measured");
    }
    Ok(())
}

/// Nothing if one of the two is not to be trusted.
fn ratio(row: &Row, floor: &Row) -> Option<[f64; 3]> {
    if !row.played.invalid.is_empty() || !floor.played.invalid.is_empty() {
        return None;
    }
    let latency = |row: &Row| row.played.total.latency_ms;
    Some([
        row.cost.cpu_us_per_packet? / floor.cost.cpu_us_per_packet?,
        latency(row).p50 / latency(floor).p50,
        latency(row).p99 / latency(floor).p99,
    ])
}

/// Median with least and most, as `1.32 (1.30–1.41)`.
fn spread(values: impl Iterator<Item = f64>, digits: usize) -> String {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    if values.is_empty() {
        return "–".into();
    }
    let (least, most) = (values[0], values[values.len() - 1]);
    // Of an even number the mean of the two in the middle.
    let median = (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0;
    format!("{median:.digits$} ({least:.digits$}–{most:.digits$})")
}

/// The table, in Markdown.
fn table(scenarios: &[Scenario], rows: &[Row], repetitions: u32) -> String {
    let mut out = String::from("## Servers side by side\n\n");
    let _ = write!(
        out,
        "Medians of {repetitions} interleaved repetitions (least–most). *Floor* is a program that only decrypts,\n\
         encrypts with a new header and sends in batches; each server is compared with the floor at the same SRTP\n\
         profile in the same repetition. Server and generator have one core each. Latency runs from just before a\n\
         packet is sent to the kernel's receive stamp at the subscriber. *Per message / per call* are the packets that\n\
         a server hands to the kernel joined in one message, and in one call; only Terrace and the floor count them.\n\
         mediasoup is left out: it is a library without signalling of its own. Runs in which the generator was\n\
         starved are not counted.\n"
    );
    for scenario in scenarios {
        let _ = write!(
            out,
            "\n**{}**: {}.\n\n\
             | Server | SRTP | CPU µs per forwarded packet | × floor | lost | latency p50 × floor | p99 × floor | \
             packets per wake-up | per message / per call | kB per client | runs |\n\
             |---|---|---|---|---|---|---|---|---|---|---|\n",
            scenario.name, scenario.about
        );
        let mut groups: BTreeMap<(usize, &str, &str), Vec<&Row>> = BTreeMap::new();
        let order = ["floor", "terrace", "livekit", "janus"];
        for row in rows.iter().filter(|row| row.scenario == scenario.name) {
            let place = order.iter().position(|name| *name == row.server);
            groups
                .entry((place.unwrap_or(order.len()), row.server, &row.profile))
                .or_default()
                .push(row);
        }
        for ((_, server, profile), rows) in groups {
            let valid = || rows.iter().filter(|row| row.played.invalid.is_empty());
            let ratio = |of: usize| {
                spread(
                    valid().filter_map(move |row| row.ratio.map(|ratio| ratio[of])),
                    2,
                )
            };
            let lost: u64 = valid().map(|row| row.played.total.lost).sum();
            let expected: u64 = valid().map(|row| row.played.total.expected).sum();
            let _ = writeln!(
                out,
                "| {server} | {profile} | {} | {} | {lost} of {expected} | {} | {} | {} | {} / {} | {} | {} of {} |",
                spread(valid().filter_map(|row| row.cost.cpu_us_per_packet), 2),
                ratio(0),
                ratio(1),
                ratio(2),
                spread(valid().map(|row| row.cost.packets_per_wake_up), 1),
                spread(valid().filter_map(|row| row.cost.packets_per_message), 1),
                spread(valid().filter_map(|row| row.cost.packets_per_call), 1),
                spread(valid().map(|row| row.cost.rss_per_client_kb), 0),
                valid().count(),
                rows.len(),
            );
        }
    }
    out
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::bench::{PlayedGenerator, PlayedKind, PlayedTotal};
    use crate::stats::Quantiles;

    pub(crate) fn example(server: &'static str, cpu: f64, invalid: bool) -> Row {
        let quantiles = Quantiles {
            p50: cpu / 10.0,
            p95: 1.0,
            p99: cpu / 5.0,
            max: 2.0,
        };
        let cost = PlayedCost {
            cpu_us_per_packet: Some(cpu),
            cores: 0.5,
            waiting: 0.0,
            packets_per_wake_up: 4.0,
            packets_per_message: Some(3.0),
            packets_per_call: None,
            rss_before_kb: 100,
            rss_kb: 1000,
            rss_per_client_kb: 64.0,
        };
        Row {
            server,
            scenario: "f50".into(),
            repetition: 1,
            profile: "aes-128-gcm".into(),
            played: Played {
                invalid: invalid.then(|| "starved".to_owned()).into_iter().collect(),
                failures: Vec::new(),
                seconds: 1.0,
                clients: 51,
                srtp_profiles: BTreeMap::from([
                    ("aes-128-gcm".into(), 2),
                    ("aes-256-gcm".into(), 5),
                ]),
                total: PlayedTotal {
                    sent: 10,
                    expected: 100,
                    received: 99,
                    lost: 1,
                    loss: 0.01,
                    duplicates: 0,
                    reordered: 0,
                    jumps: 0,
                    latency_ms: quantiles,
                    first_keyframe_ms: quantiles,
                    connected_ms: quantiles,
                    audio: PlayedKind::default(),
                    video: PlayedKind::default(),
                },
                process: Some(cost.clone()),
                generator: PlayedGenerator {
                    was_starved: invalid,
                    busiest_thread: 0.4,
                    longest_waiting: 0.0,
                    rss_kb: 1000,
                },
            },
            cost,
            ratio: None,
        }
    }

    #[test]
    fn a_server_is_a_multiple_of_the_floor_of_its_repetition() {
        let floor = example("floor", 4.0, false);
        let row = example("terrace", 5.0, false);
        assert_eq!(ratio(&row, &floor).unwrap()[0], 1.25);
        assert!(ratio(&row, &example("floor", 4.0, true)).is_none());
        assert_eq!(row.played.profile(), Some(Profile::Aes256Gcm));
    }

    #[test]
    fn a_row_has_the_fields_that_others_read() {
        let json = example("terrace", 5.0, false).json();
        for field in [
            "server",
            "scenario",
            "cpu_us_per_packet",
            "floor_ratio",
            "loss",
            "latency_ms",
            "rss_kb",
            "repetition",
        ] {
            assert!(json.get(field).is_some(), "{field}");
        }
    }

    #[test]
    fn a_spread_is_the_median_with_least_and_most() {
        assert_eq!(spread([3.0, 1.0, 2.0].into_iter(), 1), "2.0 (1.0–3.0)");
        assert_eq!(spread([1.0, 2.0].into_iter(), 1), "1.5 (1.0–2.0)");
        assert_eq!(spread(std::iter::empty(), 1), "–");
    }

    #[test]
    fn the_table_leaves_out_what_is_not_to_be_trusted() {
        let rows = [
            Row {
                ratio: Some([1.5, 1.2, 1.1]),
                ..example("terrace", 6.0, false)
            },
            example("terrace", 60.0, true),
            example("floor", 4.0, false),
        ];
        let scenario = Scenario::load("f50").unwrap();
        let table = table(&[scenario], &rows, 2);
        assert!(table.contains(
            "| terrace | aes-128-gcm | 6.00 (6.00–6.00) | 1.50 (1.50–1.50) | 1 of 100 |"
        ));
        assert!(table.contains("| 4.0 (4.0–4.0) | 3.0 (3.0–3.0) / – | 64 (64–64) |"));
        assert!(table.contains("1 of 2 |"));
        let floor = table.find("| floor").unwrap();
        assert!(floor < table.find("| terrace").unwrap());
    }
}
