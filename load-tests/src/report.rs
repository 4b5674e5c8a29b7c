//! What a run found, in the shape of its JSON file.

use std::collections::{BTreeMap, HashMap};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::door::Kind;
use crate::media::{Outcome, TIMELINE_STEP};
use crate::metrics::SentCounts;
use crate::process::Usage;
use crate::scenario::{Codec, Scenario};
use crate::source::SourceId;
use crate::stats::{Count, Quantiles, Receiver, Window, latencies};

/// A thread of clients that is busy for a greater share of its time may be late with everything.
const BUSY_SHARE: f64 = 0.85;

/// A thread of clients that waits for a processor for a greater share of its time was starved.
const WAITING_SHARE: f64 = 0.10;

/// When one frame in a hundred goes out later than this, in milliseconds, the load is not the
/// scenario's any more.
const LATE_MS: f64 = 5.0;

/// Who began to join so long before the end of the measurement should be inside and see something,
/// in nanoseconds.
const GRACE: u64 = 3_000_000_000;

/// A run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The scenario's name.
    pub scenario: String,
    /// What it plays.
    pub about: String,
    /// The kind of server.
    pub server: String,
    /// How long was measured, in seconds.
    pub seconds: f64,
    /// Clients in the scenario.
    pub clients: u64,
    /// Why the figures are not to be trusted; nothing if they are.
    pub invalid: Vec<String>,
    /// Failures on the way, in words.
    pub failures: Vec<String>,
    /// SRTP profiles, and on how many connections each was agreed.
    pub srtp_profiles: BTreeMap<String, u32>,
    /// Packets and latencies of all subscribers together.
    pub total: Total,
    /// What the server cost; absent if its process id was not given.
    pub process: Option<ServerCost>,
    /// Whether this program kept up.
    pub generator: GeneratorCost,
    /// Each stay of a client that receives.
    pub subscribers: Vec<Subscriber>,
    /// Latency and packets over the time of the measurement.
    pub timeline: Vec<Step>,
}

/// Packets and latencies of all subscribers together.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Total {
    /// Packets sent by all sources within the window.
    pub sent: u64,
    /// Packets over all subscribers.
    #[serde(flatten)]
    pub count: Count,
    /// Packets that never came.
    pub lost: u64,
    /// Share of the expected packets that never came, 0 to 1.
    pub loss: f64,
    /// How often RTP numbers or times ceased to follow the sender's on a stream.
    pub jumps: u64,
    /// Of these, the audio.
    pub audio: OneKind,
    /// Of these, the video.
    pub video: OneKind,
    /// From the stamp before sending to the kernel's receive stamp, in milliseconds.
    pub latency_ms: Quantiles,
    /// From beginning to join (or the speaker's begin, if later) to a whole keyframe, in milliseconds.
    pub first_keyframe_ms: Quantiles,
    /// From a speaker's turn to a whole keyframe of it at each subscriber, in milliseconds.
    pub turn_keyframe_ms: Option<Quantiles>,
    /// From beginning to join to the first connection that is up, in milliseconds.
    pub connected_ms: Quantiles,
    /// Keyframes that the server asked of sources.
    pub keyframe_requests: u64,
}

/// Packets of audio or of video.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct OneKind {
    /// Packets that were to come.
    pub expected: u64,
    /// Packets that never came.
    pub lost: u64,
    /// In milliseconds.
    pub latency_ms: Quantiles,
}

impl OneKind {
    fn new(count: Count, latency: &Histogram<u32>) -> OneKind {
        OneKind {
            expected: count.expected,
            lost: count.lost(),
            latency_ms: Quantiles::of_latencies(latency),
        }
    }
}

/// What the server's process cost within the window.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ServerCost {
    /// Processor time of all threads per packet that reached a subscriber, in microseconds; absent
    /// if nobody sends.
    pub cpu_us_per_packet: Option<f64>,
    /// Processor time per second, in cores.
    pub cores: f64,
    /// Time in which its threads could run but had no processor, per second.
    pub waiting: f64,
    /// Packets in and out per time that a thread slept and was woken.
    pub packets_per_wake_up: f64,
    /// Datagrams in one message to the kernel (joined by segmentation), if the server counts them.
    pub packets_per_message: Option<f64>,
    /// Datagrams in one call that sends, if the server counts them.
    pub packets_per_call: Option<f64>,
    /// Resident memory before the first client, in kB.
    pub rss_before_kb: u64,
    /// Resident memory at the end, in kB.
    pub rss_kb: u64,
    /// What each client added, in kB.
    pub rss_per_client_kb: f64,
}

/// Whether the generator kept up within the window.
#[derive(Clone, Debug, Default, Serialize)]
pub struct GeneratorCost {
    /// Whether it had no more to give: the load was not the scenario's any more.
    pub was_starved: bool,
    /// Processor time of the busiest thread of clients per second, in cores.
    pub busiest_thread: f64,
    /// Time in which the thread that waited longest could run but had no processor, per second.
    pub longest_waiting: f64,
    /// How late frames went out, in milliseconds.
    pub lateness_ms: Quantiles,
    /// Datagrams that a full socket did not take.
    pub unsent: u64,
    /// Resident memory of this program at the end, in kB.
    pub rss_kb: u64,
}

/// One stay of a client that receives.
#[derive(Clone, Debug, Serialize)]
pub struct Subscriber {
    /// Group and number.
    pub name: String,
    /// Packets of all sources.
    #[serde(flatten)]
    pub count: Count,
    /// Packets that never came.
    pub lost: u64,
    /// In milliseconds.
    pub latency_ms: Quantiles,
    /// When it began to join, in seconds since the measurement's begin.
    pub began: f64,
    /// From beginning to join to the first connection that is up, in milliseconds.
    pub connected_ms: Option<f64>,
    /// From beginning to join to the first whole keyframe, in milliseconds.
    pub first_keyframe_ms: Option<f64>,
}

/// A step of the timeline.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    /// Its begin since the window's, in seconds.
    pub at: f64,
    /// Packets received a second.
    pub packets: f64,
    /// In milliseconds.
    pub latency_ms: Quantiles,
    /// Of these, the audio.
    pub audio: StepKind,
    /// Of these, the video.
    pub video: StepKind,
}

/// Packets of audio or of video within a step.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct StepKind {
    /// Packets received a second.
    pub packets: f64,
    /// In milliseconds.
    pub latency_ms: Quantiles,
}

impl StepKind {
    fn new(latency: &Histogram<u32>) -> StepKind {
        StepKind {
            packets: latency.len() as f64 / (TIMELINE_STEP as f64 / 1e9),
            latency_ms: Quantiles::of_latencies(latency),
        }
    }
}

/// Where a client belongs.
#[derive(Clone, Debug)]
pub struct Belonging {
    /// Its room.
    pub room: u32,
    /// Its sources.
    pub sources: Vec<SourceId>,
    /// Whether it receives.
    pub receives: bool,
}

/// What the runner knows beside what the clients counted.
pub struct Run<'a> {
    /// What was played.
    pub scenario: &'a Scenario,
    /// The kind of server.
    pub server: &'a str,
    /// When was measured.
    pub window: Window,
    /// Where each client belongs, by its name.
    pub clients: HashMap<String, Belonging>,
    /// The server's memory before, and what it used within the window.
    pub server_usage: Option<(u64, Usage)>,
    /// What the server says that it sent within the window.
    pub server_sent: Option<SentCounts>,
    /// This program's memory at the end, in bytes.
    pub own_memory: u64,
    /// Failures of joins, in words.
    pub failures: Vec<String>,
}

fn milliseconds(from: u64, to: u64) -> f64 {
    to.saturating_sub(from) as f64 / 1e6
}

impl Report {
    /// Adds up.
    pub fn new(run: Run<'_>, outcome: Outcome) -> Report {
        let window = run.window;
        let sources: HashMap<SourceId, _> = outcome
            .sources
            .iter()
            .map(|source| (source.plan.id, source))
            .collect();
        let mut total = Total {
            sent: outcome
                .sources
                .iter()
                .map(|source| source.sent.count())
                .sum(),
            jumps: outcome
                .receivers
                .iter()
                .map(|receiver| receiver.jumps)
                .sum(),
            keyframe_requests: outcome
                .sources
                .iter()
                .map(|source| source.keyframe_requests)
                .sum(),
            ..Total::default()
        };
        let (mut audio, mut video) = (
            (Count::default(), latencies()),
            (Count::default(), latencies()),
        );
        let (mut connected, mut pictures, mut turns) = (Vec::new(), Vec::new(), Vec::new());
        let mut subscribers = Vec::new();
        let (mut never_connected, mut blind) = (0, 0);
        for receiver in &outcome.receivers {
            let Some(client) = run.clients.get(&receiver.name) else {
                continue;
            };
            let had_time = receiver.began + GRACE < window.to && !receiver.has_left;
            if receiver.connected.is_none() && had_time {
                never_connected += 1;
            }
            let connected_ms = receiver
                .connected
                .map(|at| milliseconds(receiver.began, at));
            connected.extend(connected_ms);
            if !client.receives {
                continue;
            }
            let (mut heard, mut seen) = (Count::default(), Count::default());
            for other in run.clients.values() {
                let is_own = other.sources == client.sources && !client.sources.is_empty();
                if other.room != client.room || is_own {
                    continue;
                }
                for source in other.sources.iter().filter_map(|id| sources.get(id)) {
                    let of_kind = match source.plan.codec {
                        Codec::Opus => &mut heard,
                        _ => &mut seen,
                    };
                    of_kind.add(owed(receiver, source.plan.id, source.sent, window));
                }
            }
            let mut first: Option<f64> = None;
            for ((source, turn), at) in &receiver.first_keyframes {
                let begin = sources
                    .get(source)
                    .and_then(|source| source.turns.get(turn))
                    .copied()
                    .unwrap_or(0);
                let took = milliseconds(receiver.began.max(begin), *at);
                if begin > receiver.began && run.scenario.turn_seconds.is_some() {
                    turns.push(took);
                } else {
                    first = Some(first.map_or(took, |first| first.min(took)));
                }
            }
            pictures.extend(first);
            if first.is_none() && had_time && receiver.connected.is_some() {
                blind += 1;
            }
            let mut count = heard;
            count.add(seen);
            total.count.add(count);
            audio.0.add(heard);
            video.0.add(seen);
            audio.1 += &receiver.audio_latency;
            video.1 += &receiver.video_latency;
            let mut latency = receiver.audio_latency.clone();
            latency += &receiver.video_latency;
            subscribers.push(Subscriber {
                name: receiver.name.clone(),
                count,
                lost: count.lost(),
                latency_ms: Quantiles::of_latencies(&latency),
                began: (receiver.began as f64 - window.from as f64) / 1e9,
                connected_ms,
                first_keyframe_ms: first,
            });
        }
        total.lost = subscribers.iter().map(|one| one.lost).sum();
        total.loss = total.lost as f64 / total.count.expected.max(1) as f64;
        total.audio = OneKind::new(audio.0, &audio.1);
        total.video = OneKind::new(video.0, &video.1);
        audio.1 += &video.1;
        total.latency_ms = Quantiles::of_latencies(&audio.1);
        total.connected_ms = Quantiles::of(&mut connected);
        total.first_keyframe_ms = Quantiles::of(&mut pictures);
        total.turn_keyframe_ms = (!turns.is_empty()).then(|| Quantiles::of(&mut turns));
        let seconds = window.seconds();
        let generator = generator(&outcome, run.own_memory, seconds);
        let process = run.server_usage.map(|(before, usage)| ServerCost {
            packets_per_message: run.server_sent.and_then(|sent| sent.per_message()),
            packets_per_call: run.server_sent.and_then(|sent| sent.per_call()),
            ..server(before, &usage, &total, run.scenario, seconds)
        });
        let mut invalid = doubts(&generator, outcome.threads.is_empty());
        // A server that is short of processor time does right to let nobody in.
        if never_connected > 0 && run.scenario.rivals.is_none() {
            invalid.push(format!("{never_connected} clients were never connected"));
        }
        let has_pictures = outcome
            .sources
            .iter()
            .any(|source| source.plan.codec != Codec::Opus);
        // The floor asks nobody for keyframes.
        let is_asking = run.server != Kind::Floor.name() && run.scenario.turn_seconds.is_none();
        if has_pictures && blind > 0 && is_asking {
            invalid.push(format!("{blind} subscribers never saw a keyframe"));
        }
        if total.sent > 0 && total.count.received == 0 {
            invalid.push("nothing arrived".into());
        }
        let timeline = outcome.timeline.iter().map(|(step, moment)| {
            let mut all = moment.audio.clone();
            all += &moment.video;
            let all = StepKind::new(&all);
            Step {
                at: *step as f64 * TIMELINE_STEP as f64 / 1e9,
                packets: all.packets,
                latency_ms: all.latency_ms,
                audio: StepKind::new(&moment.audio),
                video: StepKind::new(&moment.video),
            }
        });
        let mut failures = run.failures;
        failures.extend(outcome.failures.iter().cloned());
        Report {
            scenario: run.scenario.name.clone(),
            about: run.scenario.about.clone(),
            server: run.server.to_owned(),
            seconds,
            clients: run.scenario.clients(),
            invalid,
            failures,
            srtp_profiles: outcome
                .profiles
                .iter()
                .map(|(profile, count)| (profile.name().to_owned(), *count))
                .collect(),
            total,
            process,
            generator,
            subscribers,
            timeline: timeline.collect(),
        }
    }
}

/// What a receiver was owed by a source. Nothing at all came: it was owed all if it was there.
fn owed(receiver: &Receiver, source: SourceId, sent: crate::stats::Sent, window: Window) -> Count {
    match receiver.tallies.get(&source) {
        Some(tally) => tally.count(sent, receiver.has_left),
        None => {
            let was_there = receiver.connected.is_some_and(|at| at < window.from);
            Count {
                expected: if was_there && !receiver.has_left {
                    sent.count()
                } else {
                    0
                },
                ..Count::default()
            }
        }
    }
}

fn generator(outcome: &Outcome, own_memory: u64, seconds: f64) -> GeneratorCost {
    let share = |of: fn(&Usage) -> u64| {
        outcome
            .threads
            .iter()
            .map(|usage| of(usage) as f64 / 1e9 / seconds)
            .fold(0.0, f64::max)
    };
    let mut cost = GeneratorCost {
        was_starved: false,
        busiest_thread: share(|usage| usage.cpu),
        longest_waiting: share(|usage| usage.waited),
        lateness_ms: Quantiles::of_latencies(&outcome.lateness),
        unsent: outcome.unsent,
        rss_kb: own_memory / 1024,
    };
    cost.was_starved = !doubts(&cost, outcome.threads.is_empty()).is_empty();
    cost
}

fn server(
    before: u64,
    usage: &Usage,
    total: &Total,
    scenario: &Scenario,
    seconds: f64,
) -> ServerCost {
    let out = total.count.received as f64;
    ServerCost {
        cpu_us_per_packet: (out > 0.0).then(|| usage.cpu as f64 / 1000.0 / out),
        cores: usage.cpu as f64 / 1e9 / seconds,
        waiting: usage.waited as f64 / 1e9 / seconds,
        packets_per_wake_up: (total.sent as f64 + out) / usage.wake_ups.max(1) as f64,
        packets_per_message: None,
        packets_per_call: None,
        rss_before_kb: before / 1024,
        rss_kb: usage.resident / 1024,
        rss_per_client_kb: usage.resident.saturating_sub(before) as f64
            / 1024.0
            / scenario.clients() as f64,
    }
}

/// Reasons not to trust a run in which this program did not keep up.
fn doubts(cost: &GeneratorCost, is_unknown: bool) -> Vec<String> {
    let mut doubts = Vec::new();
    if is_unknown {
        doubts.push("the generator could not read its own processor time".into());
    }
    if cost.busiest_thread > BUSY_SHARE {
        doubts.push(format!(
            "the generator was busy for {:.0} % of the time: give it more threads or a smaller scenario",
            cost.busiest_thread * 100.0
        ));
    }
    if cost.longest_waiting > WAITING_SHARE {
        doubts.push(format!(
            "the generator waited for a processor for {:.0} % of the time: give it a core of its own",
            cost.longest_waiting * 100.0
        ));
    }
    if cost.lateness_ms.p99 > LATE_MS {
        doubts.push(format!(
            "one frame in a hundred went out {:.1} ms late or later",
            cost.lateness_ms.p99
        ));
    }
    if cost.unsent > 0 {
        doubts.push(format!(
            "{} datagrams were not sent: the socket was full",
            cost.unsent
        ));
    }
    doubts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::SourceOutcome;
    use crate::schedule::Beat;
    use crate::source::SourcePlan;
    use crate::stats::{Sent, latencies};

    const WINDOW: Window = Window {
        from: 9_000_000_000,
        to: 10_000_000_000,
    };

    fn outcome(receivers: Vec<Receiver>) -> Outcome {
        Outcome {
            receivers,
            sources: vec![SourceOutcome {
                plan: SourcePlan {
                    id: 0,
                    codec: Codec::Opus,
                    beat: Beat::audio(),
                    is_clip: false,
                },
                sent: Sent { from: 10, to: 60 },
                turns: HashMap::from([(0, 500_000_000)]),
                keyframe_requests: 2,
            }],
            lateness: latencies(),
            timeline: BTreeMap::new(),
            threads: vec![Usage::default()],
            unsent: 0,
            failures: Vec::new(),
            profiles: BTreeMap::new(),
        }
    }

    fn report(receivers: Vec<Receiver>) -> Report {
        let scenario = Scenario::load("smoke").unwrap();
        let client = |receives, sources| Belonging {
            room: 0,
            sources,
            receives,
        };
        let run = Run {
            scenario: &scenario,
            server: "terrace",
            window: WINDOW,
            clients: HashMap::from([
                ("speaker-0".into(), client(false, vec![0])),
                ("viewer-0".into(), client(true, vec![])),
                ("viewer-1".into(), client(true, vec![])),
            ]),
            server_usage: Some((
                0,
                Usage {
                    cpu: 490_000,
                    wake_ups: 33,
                    ..Usage::default()
                },
            )),
            server_sent: None,
            own_memory: 0,
            failures: Vec::new(),
        };
        Report::new(run, outcome(receivers))
    }

    fn viewer(name: &str) -> Receiver {
        let mut receiver = Receiver::new(name.into(), 100_000_000);
        receiver.connected = Some(200_000_000);
        receiver
    }

    #[test]
    fn who_got_nothing_lost_everything() {
        let mut lucky = viewer("viewer-0");
        for sequence in 9..59 {
            let stamp = crate::payload::Stamp {
                sequence,
                sent: WINDOW.from - 100 + (sequence - 9) * 100,
                ..Default::default()
            };
            lucky.note(&stamp, stamp.sent + 300_000, WINDOW);
        }
        let report = report(vec![lucky, viewer("viewer-1")]);
        assert_eq!(report.total.count.expected, 100);
        assert_eq!(report.total.count.received, 49);
        assert_eq!(report.total.lost, 51);
        assert_eq!(report.subscribers[1].lost, 50);
        let process = report.process.unwrap();
        assert_eq!(process.cpu_us_per_packet, Some(10.0));
        assert_eq!(process.packets_per_wake_up, 3.0);
        assert!((report.total.latency_ms.p50 - 0.3).abs() < 0.01);
        assert!(report.invalid.is_empty(), "{:?}", report.invalid);
    }

    #[test]
    fn a_starved_generator_makes_a_run_invalid() {
        let cost = GeneratorCost {
            busiest_thread: 0.95,
            longest_waiting: 0.2,
            unsent: 1,
            ..GeneratorCost::default()
        };
        assert_eq!(doubts(&cost, false).len(), 3);
        assert!(doubts(&GeneratorCost::default(), false).is_empty());
    }

    #[test]
    fn nothing_at_all_is_no_result() {
        assert!(!report(Vec::new()).invalid.is_empty());
    }
}
