//! `cargo xtask bench peers`: Terrace beside other servers and the floor, by `load-tests`; a section of
//! `docs/performance.md`.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::bench::machine;
use crate::install;
use crate::page::write_section;
use crate::parts::build_server;
use crate::run::{is_installed, npm_install, run, run_with, target, tools};

/// The version of LiveKit's server that is built: the newest that Go 1.24 compiles.
const LIVEKIT: &str = "v1.9.9";

/// Where LiveKit's server is, if it is not on the path.
const LIVEKIT_VARIABLE: &str = "LIVEKIT_SERVER";

/// How long building LiveKit's server may take.
const LIVEKIT_BUDGET: Duration = Duration::from_secs(1200);

const BUILD_BUDGET: Duration = Duration::from_secs(1800);

/// All repetitions together.
const BENCH_BUDGET: Duration = Duration::from_secs(3600);

/// Builds what is missing, measures, and writes the section. `words` go to `load-test peers`.
pub(crate) fn peers(words: &[&str]) -> Result<()> {
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
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let mut arguments = vec![
        "peers".to_owned(),
        "--terrace".into(),
        text(&terrace),
        "--out".into(),
        text(&folder),
    ];
    let mut absent = Vec::new();
    for (option, name, found) in [
        ("--livekit", "LiveKit", livekit()),
        ("--janus", "Janus", janus()),
    ] {
        match found {
            Ok(program) => arguments.extend([option.to_owned(), program]),
            Err(error) => {
                println!("{name} is left out: {error:#}");
                absent.push(format!("{name} ({error:#})"));
            }
        }
    }
    arguments.extend(words.iter().map(|word| (*word).to_owned()));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let program = text(&target().join("release/load-test"));
    run(".", BENCH_BUDGET, &program, &arguments)?;
    let table = std::fs::read_to_string(folder.join("peers.md"))?;
    let mut section = format!("{}\n\nMeasured on {}.", table.trim(), machine());
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
