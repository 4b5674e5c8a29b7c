//! One measured run: a fresh server on one core, the generator as a process of its own on another.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::door::Endpoint;
use crate::servers::{Candidate, on_core, start};
use crate::srtp::Profile;
use crate::stats::Quantiles;

/// How often a run is played again whose generator was starved.
const RETRIES: u32 = 1;

/// What is measured, where and for how long.
#[derive(clap::Args, Clone, Debug)]
pub struct Bench {
    /// Terrace's binary
    #[arg(long)]
    terrace: PathBuf,
    /// The processor core of the servers
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// The processor core of the generator
    #[arg(long, default_value_t = 1)]
    generator_core: usize,
    /// Measures for so many seconds instead of the scenario's
    #[arg(long)]
    seconds: Option<f64>,
    /// The endpoint of servers that speak the LiveKit protocol
    #[arg(long, value_enum, default_value = "rtc")]
    door: Endpoint,
}

/// The part of a report that is compared.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Played {
    pub(crate) invalid: Vec<String>,
    pub(crate) failures: Vec<String>,
    pub(crate) seconds: f64,
    pub(crate) clients: u64,
    pub(crate) srtp_profiles: BTreeMap<String, u32>,
    pub(crate) total: PlayedTotal,
    pub(crate) process: Option<PlayedCost>,
    pub(crate) generator: PlayedGenerator,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct PlayedTotal {
    pub(crate) sent: u64,
    pub(crate) expected: u64,
    pub(crate) received: u64,
    pub(crate) lost: u64,
    pub(crate) loss: f64,
    pub(crate) duplicates: u64,
    pub(crate) reordered: u64,
    pub(crate) jumps: u64,
    pub(crate) latency_ms: Quantiles,
    pub(crate) first_keyframe_ms: Quantiles,
    pub(crate) connected_ms: Quantiles,
    pub(crate) audio: PlayedKind,
    pub(crate) video: PlayedKind,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct PlayedCost {
    pub(crate) cpu_us_per_packet: Option<f64>,
    pub(crate) cores: f64,
    pub(crate) waiting: f64,
    pub(crate) packets_per_wake_up: f64,
    pub(crate) packets_per_message: Option<f64>,
    pub(crate) packets_per_call: Option<f64>,
    pub(crate) rss_before_kb: u64,
    pub(crate) rss_kb: u64,
    pub(crate) rss_per_client_kb: f64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct PlayedGenerator {
    pub(crate) was_starved: bool,
    pub(crate) busiest_thread: f64,
    pub(crate) longest_waiting: f64,
    pub(crate) rss_kb: u64,
}

impl Played {
    /// The profile that most connections agreed on.
    pub(crate) fn profile(&self) -> Option<Profile> {
        let (name, _) = self.srtp_profiles.iter().max_by_key(|(_, count)| **count)?;
        Profile::ALL
            .into_iter()
            .find(|profile| profile.name() == name)
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct PlayedKind {
    pub(crate) expected: u64,
    pub(crate) lost: u64,
    pub(crate) latency_ms: Quantiles,
}

impl Bench {
    pub(crate) fn terrace(&self) -> Candidate {
        Candidate::Terrace(self.terrace.clone())
    }

    /// Plays, with other counts of some groups; plays again when the generator was starved, each
    /// time against a fresh process.
    pub(crate) fn play(
        &self,
        scenario: &str,
        counts: &[(String, u32)],
        candidate: &Candidate,
    ) -> Result<Played> {
        let mut tries = 0;
        loop {
            let played = self.play_once(scenario, counts, candidate)?;
            if played.invalid.is_empty() || tries == RETRIES {
                return Ok(played);
            }
            println!("  not to be trusted: {}", played.invalid.join("; "));
            tries += 1;
        }
    }

    fn play_once(
        &self,
        scenario: &str,
        counts: &[(String, u32)],
        candidate: &Candidate,
    ) -> Result<Played> {
        let folder = tempfile::tempdir()?;
        let mut words = Vec::new();
        for (group, count) in counts {
            words.extend(["--count".to_owned(), format!("{group}={count}")]);
        }
        self.report(scenario, &words, candidate, folder.path())
    }

    /// Plays once, with more words for the generator, which leaves the report and its page in a
    /// folder; reads what is wanted of the report.
    pub(crate) fn report<T: DeserializeOwned>(
        &self,
        scenario: &str,
        words: &[String],
        candidate: &Candidate,
        folder: &Path,
    ) -> Result<T> {
        let server = start(candidate, Some(self.server_core))?;
        let address = server.address();
        let program = std::env::current_exe().context("this program's own file")?;
        let mut command = on_core(Some(self.generator_core), &program);
        command
            .args(["run", scenario, "--quiet"])
            .args(["--kind", candidate.kind().name()])
            .args(["--server", &address.server])
            .args(["--door", self.door.path()])
            .args(["--key", &address.key.0, "--secret", &address.key.1])
            .args(["--pid", &server.process().to_string()])
            .arg("--out")
            .arg(folder);
        if let Candidate::Floor { profile, .. } = candidate {
            command.args(["--profile", profile.name()]);
        }
        if let Some(metrics) = server.metrics() {
            command.args(["--metrics", metrics]);
        }
        command.args(words);
        if let Some(seconds) = self.seconds {
            command.args(["--seconds", &seconds.to_string()]);
        }
        let output = command.output().context("can't run the generator")?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            // Without the lines of code that it came from.
            let reason = text.split("Stack backtrace").next().unwrap_or_default();
            let words: Vec<&str> = reason.split_whitespace().collect();
            bail!("{}", words.join(" "));
        }
        let text = std::fs::read_to_string(folder.join("report.json"))?;
        serde_json::from_str(&text).context("the generator's report")
    }
}
