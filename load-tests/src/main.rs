//! `load-test`: plays scenarios against a server, is the floor, compares servers.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use load_tests::door::{Address, Endpoint, Kind};
use load_tests::page::known;
use load_tests::report::Report;
use load_tests::run::{self, Options};
use load_tests::scenario::{BUNDLED, Scenario};
use load_tests::srtp::Profile;
use load_tests::{curve, curves, overload, peers};

/// Real WebRTC clients in numbers, and what a server makes of them
#[derive(Parser)]
#[command(name = "load-test", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Plays a scenario against a server and reports
    Run(RunArguments),
    /// Runs the yardstick: a forwarder that only decrypts, encrypts and sends
    Floor {
        /// The UDP address to listen on
        #[arg(long, default_value = "127.0.0.1:7990")]
        listen: SocketAddr,
        /// The SRTP profile, as the server beside it negotiated it
        #[arg(long, value_enum, default_value = "aes-128-gcm")]
        profile: Profile,
        /// The TCP address for its metrics
        #[arg(long)]
        metrics: Option<SocketAddr>,
    },
    /// Plays the same scenarios against several servers in turn and writes the ratios
    Peers(peers::Arguments),
    /// Plays a scenario with a growing count of one group and plots what it costs
    Curve(curve::Arguments),
    /// Measures the curves of docs/performance.md
    Curves(curves::Arguments),
    /// Measures what Terrace gives up when its processor is full
    Overload(overload::Arguments),
    /// Lists the scenarios that come with the program
    Scenarios,
}

#[derive(Args)]
struct RunArguments {
    /// A scenario's name, or a TOML file
    scenario: String,
    /// The server: http://host:port (Janus: …/janus), or host:port for the floor
    #[arg(long)]
    server: String,
    /// What kind of server it is
    #[arg(long, value_enum, default_value = "terrace")]
    kind: Kind,
    /// The LiveKit protocol's endpoint, for kinds that speak it
    #[arg(long, value_enum, default_value = "rtc")]
    door: Endpoint,
    /// The server's process id on this machine, to measure what it costs
    #[arg(long)]
    pid: Option<u32>,
    /// Where it serves its metrics, to know how many packets it joins: http://host:port/metrics
    #[arg(long)]
    metrics: Option<String>,
    /// What the names of rooms begin with: WORD-0, WORD-1, …; unique unless given
    #[arg(long, value_name = "WORD")]
    rooms: Option<String>,
    /// The folder for report.json and report.html
    #[arg(long)]
    out: Option<PathBuf>,
    /// The API key that the server knows
    #[arg(long, default_value = "devkey")]
    key: String,
    /// Its secret
    #[arg(long, default_value = "secret")]
    secret: String,
    /// The floor's SRTP profile
    #[arg(long, value_enum, default_value = "aes-128-gcm")]
    profile: Profile,
    /// The local address of the clients
    #[arg(long)]
    bind: Option<IpAddr>,
    /// Threads of clients
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Seed of what is left to chance
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Measures for so many seconds instead of the scenario's
    #[arg(long)]
    seconds: Option<f64>,
    /// Another count of a group in each room, as GROUP=COUNT; may be given several times
    #[arg(long, value_parser = group_count)]
    count: Vec<(String, u32)>,
    /// Another count of processes that take processor time from the server
    #[arg(long)]
    rivals: Option<u32>,
    /// Prints no progress
    #[arg(long)]
    quiet: bool,
}

fn group_count(text: &str) -> Result<(String, u32)> {
    let (group, count) = text.split_once('=').context("such as viewer=100")?;
    Ok((group.to_owned(), count.parse()?))
}

fn main() -> Result<()> {
    // What the clients' engines say, for looking into a connection that fails: RUST_LOG=str0m=debug.
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    match Arguments::parse().command {
        Command::Run(arguments) => play(&arguments),
        Command::Floor {
            listen,
            profile,
            metrics,
        } => load_tests::floor::serve(listen, profile, metrics),
        Command::Peers(arguments) => peers::compare(&arguments),
        Command::Curve(arguments) => curve::draw(&arguments),
        Command::Curves(arguments) => curves::draw(&arguments),
        Command::Overload(arguments) => overload::draw(&arguments),
        Command::Scenarios => {
            for (name, text) in BUNDLED {
                println!("{name:<12} {}", Scenario::parse(name, text)?.about);
            }
            Ok(())
        }
    }
}

fn play(arguments: &RunArguments) -> Result<()> {
    let mut scenario = Scenario::load(&arguments.scenario)?;
    if let Some(seconds) = arguments.seconds {
        scenario.seconds = seconds;
    }
    for (group, count) in &arguments.count {
        scenario.set_count(group, *count)?;
    }
    if let Some(count) = arguments.rivals {
        scenario.set_rivals(count)?;
    }
    let bound = run::time_bound(&scenario);
    let options = Options {
        scenario,
        kind: arguments.kind,
        address: Address {
            server: arguments.server.clone(),
            key: (arguments.key.clone(), arguments.secret.clone()),
            profile: arguments.profile,
            endpoint: arguments.door,
        },
        process: arguments.pid,
        metrics: arguments.metrics.clone(),
        rooms: arguments.rooms.clone(),
        bind: arguments.bind,
        threads: arguments.threads.clamp(1, 16),
        seed: arguments.seed,
        shows_progress: !arguments.quiet,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(async {
        tokio::select! {
            report = tokio::time::timeout(bound, run::play(&options)) => {
                report.context("the run did not end in its time")?
            }
            _ = tokio::signal::ctrl_c() => bail!("stopped"),
        }
    })?;
    print(&report);
    if let Some(folder) = &arguments.out {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("can't make the folder {}", folder.display()))?;
        let write = |name: &str, text: String| {
            let file = folder.join(name);
            std::fs::write(&file, text).with_context(|| format!("can't write {}", file.display()))
        };
        write("report.json", serde_json::to_string_pretty(&report)?)?;
        write("report.html", report.page()?)?;
        println!("wrote report.json and report.html to {}", folder.display());
    }
    Ok(())
}

fn print(report: &Report) {
    let total = &report.total;
    println!(
        "{} on {}: {} of {} packets, {} lost, {} reordered, {} duplicates, {} jumps; \
         latency p50 {:.2}, p99 {:.2}, max {:.2} ms; \
         first keyframe p50 {:.0}, p99 {:.0} ms",
        report.scenario,
        report.server,
        total.count.received,
        total.count.expected,
        total.lost,
        total.count.reordered,
        total.count.duplicates,
        total.jumps,
        total.latency_ms.p50,
        total.latency_ms.p99,
        total.latency_ms.max,
        total.first_keyframe_ms.p50,
        total.first_keyframe_ms.p99,
    );
    if let Some(cost) = &report.process {
        println!(
            "server: {} µs per forwarded packet, {:.3} cores, {:.1} packets per wake-up, {} per message, {} per call, \
             {} kB, {:.0} kB per client; SRTP {:?}",
            known(cost.cpu_us_per_packet, 2),
            cost.cores,
            cost.packets_per_wake_up,
            known(cost.packets_per_message, 1),
            known(cost.packets_per_call, 1),
            cost.rss_kb,
            cost.rss_per_client_kb,
            report.srtp_profiles,
        );
    }
    println!(
        "generator: busy {:.1} %, waiting {:.1} %, late p99 {:.2} ms, {} kB",
        report.generator.busiest_thread * 100.0,
        report.generator.longest_waiting * 100.0,
        report.generator.lateness_ms.p99,
        report.generator.rss_kb,
    );
    for line in &report.invalid {
        println!("not to be trusted: {line}");
    }
    for line in &report.failures {
        println!("failure: {line}");
    }
}
