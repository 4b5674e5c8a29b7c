//! `cargo xtask demo`: one node and one example meeting on this machine.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::run::{root, run, target};

const BUILD_BUDGET: Duration = Duration::from_secs(1800);

/// Builds what is needed, runs the server and prints where the meeting is.
pub(crate) fn demo() -> Result<()> {
    let begin = Instant::now();
    println!("[1/3] building the web client");
    if !root().join("web-client/node_modules").exists() {
        run(
            "web-client",
            BUILD_BUDGET,
            "npm",
            &["ci", "--no-audit", "--no-fund"],
        )?;
    }
    run("web-client", BUILD_BUDGET, "npm", &["run", "build"])?;
    println!("[2/3] building the server");
    run(
        ".",
        BUILD_BUDGET,
        "cargo",
        &["build", "--release", "--bin", "terrace"],
    )?;
    println!("[3/3] starting ({} s so far)", begin.elapsed().as_secs());
    let terrace = target().join("release/terrace");
    let data = target().join("demo");
    std::fs::create_dir_all(&data)?;
    let set = |command: &mut Command| {
        command
            .env_remove("TERRACE_TOOLS_DIR")
            .env("TERRACE_DATA_DIR", &data)
            .current_dir(root());
    };
    let mut create = Command::new(&terrace);
    set(&mut create);
    let meeting = create
        .args(["meeting", "create", "--dev", "--name", "示范会议"])
        .stderr(Stdio::inherit())
        .output()
        .context("can't make the example meeting")?;
    if !meeting.status.success() {
        bail!("the example meeting could not be made");
    }
    println!("\n{}", String::from_utf8_lossy(&meeting.stdout));
    println!("Open the link in two browser tabs. Ctrl-C ends the demo.\n");
    let mut serve = Command::new(&terrace);
    set(&mut serve);
    let status = serve.args(["serve", "--dev"]).status()?;
    if !status.success() {
        bail!("the server ended with {status}");
    }
    Ok(())
}
