//! `cargo xtask simulate cascade`: a province of nodes on a virtual clock, in release mode.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Plays and passes on what is told: one line of JSON on standard output, how far it is on standard
/// error. Fails if something promised does not hold.
pub(crate) fn cascade(options: &[&str]) -> Result<()> {
    let status = Command::new("cargo")
        .args(["run", "-q", "--release", "-p", "signaling"])
        .args(["--example", "cascade", "--"])
        .args(options)
        .stdin(Stdio::null())
        .status()
        .context("cargo can't be started")?;
    if !status.success() {
        bail!("the simulation ended with {status}");
    }
    Ok(())
}
