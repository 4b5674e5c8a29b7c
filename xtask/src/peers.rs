//! `cargo xtask bench peers` and `curves`: Terrace beside other servers and the floor, and as rooms grow, by
//! `load-tests`; sections of `docs/performance.md`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::bench::machine;
use crate::install;
use crate::page::write_section;
use crate::parts::build_server;
use crate::run::{is_installed, npm_install, run, run_with, target, tools};

/// The version of LiveKit's server that is built; Go 1.24 compiles it.
const LIVEKIT: &str = "v1.9.12";

/// Where LiveKit's server is, if it is not on the path.
const LIVEKIT_VARIABLE: &str = "LIVEKIT_SERVER";

/// How long building LiveKit's server may take.
const LIVEKIT_BUDGET: Duration = Duration::from_secs(1200);

const BUILD_BUDGET: Duration = Duration::from_secs(1800);

/// All repetitions together.
const BENCH_BUDGET: Duration = Duration::from_secs(3600);

/// What measures, and what is measured.
struct Built {
    program: String,
    terrace: String,
    /// For what comes of it.
    folder: PathBuf,
}

fn build() -> Result<Built> {
    npm_install("web-client")?;
    build_server(BUILD_BUDGET)?;
    run(
        ".",
        BUILD_BUDGET,
        "cargo",
        &["build", "--release", "-p", "load-tests"],
    )?;
    let folder = target().join("bench");
    std::fs::create_dir_all(&folder)?;
    // A copy, so that a build that goes on meanwhile does not change what is measured.
    let terrace = folder.join("terrace");
    std::fs::copy(target().join("release/terrace"), &terrace).context("the built server")?;
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    Ok(Built {
        program: text(target().join("release/load-test")),
        terrace: text(terrace),
        folder,
    })
}

impl Built {
    /// Runs `load-test COMMAND`; returns the section that it wrote.
    fn measure(&self, command: &str, more: &[&str]) -> Result<String> {
        let folder = self.folder.to_string_lossy();
        let mut words = vec![command, "--terrace", &self.terrace, "--out", &folder];
        words.extend(more);
        run(".", BENCH_BUDGET, &self.program, &words)?;
        let section = std::fs::read_to_string(self.folder.join(format!("{command}.md")))?;
        Ok(format!("{}\n\nMeasured on {}.", section.trim(), machine()))
    }
}

/// Builds what is missing, measures, and writes the section. `words` go to `load-test curves`.
pub(crate) fn curves(words: &[&str]) -> Result<()> {
    let section = build()?.measure("curves", words)?;
    write_section("curves", &section)
}

/// Builds what is missing, measures, and writes the section. `words` go to `load-test overload`.
pub(crate) fn overload(words: &[&str]) -> Result<()> {
    let section = build()?.measure("overload", words)?;
    write_section("overload", &section)
}

/// Builds what is missing, measures, and writes the section. `words` go to `load-test peers`.
pub(crate) fn peers(words: &[&str]) -> Result<()> {
    let built = build()?;
    let mut others = Vec::new();
    let mut absent = Vec::new();
    for (option, name, found) in [
        ("--livekit", "LiveKit", livekit()),
        ("--janus", "Janus", janus()),
    ] {
        match found {
            Ok(program) => others.extend([option.to_owned(), program]),
            Err(error) => {
                println!("{name} is left out: {error:#}");
                absent.push(format!("{name} ({error:#})"));
            }
        }
    }
    let others = others.iter().map(String::as_str);
    let words: Vec<&str> = others.chain(words.iter().copied()).collect();
    let mut section = built.measure("peers", &words)?;
    if !absent.is_empty() {
        section.push_str(&format!(" Not measured: {}.", absent.join(", ")));
    }
    write_section("peers", &section)
}

/// LiveKit's server: named by a variable, on the path, built before, or built now.
fn livekit() -> Result<String> {
    if let Ok(program) = std::env::var(LIVEKIT_VARIABLE) {
        return Ok(program);
    }
    if is_installed("livekit-server") {
        return Ok("livekit-server".into());
    }
    let folder = tools().join(format!("livekit-{LIVEKIT}"));
    let program = folder.join("server");
    if !program.exists() {
        if !is_installed("go") {
            bail!("there is no Go to build it with; {LIVEKIT_VARIABLE} may name its program");
        }
        std::fs::create_dir_all(&folder)?;
        let folder = std::fs::canonicalize(&folder)?;
        let module = format!("github.com/livekit/livekit-server/cmd/server@{LIVEKIT}");
        run_with(
            ".",
            LIVEKIT_BUDGET,
            "go",
            &["install", &module],
            &[("GOBIN", &folder.to_string_lossy())],
        )?;
    }
    Ok(std::fs::canonicalize(program)?
        .to_string_lossy()
        .into_owned())
}

fn janus() -> Result<String> {
    if !is_installed("janus") {
        install::package("janus", "/usr/bin/janus")?;
    }
    Ok("janus".into())
}
