//! Runs a command within a time budget.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a running command is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// The top folder of the checkout.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the checkout")
        .into()
}

/// Where cargo builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Where tools and environments made for the tests are kept.
pub(crate) fn tools() -> PathBuf {
    std::env::var_os("TERRACE_TOOLS_DIR").map_or_else(|| target().join("tools"), PathBuf::from)
}

/// Whether a program is on the path.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Runs `program` in `folder`, shows its output, and fails when it fails or is not done in time;
/// it is then ended together with everything it started.
pub(crate) fn run(folder: &str, budget: Duration, program: &str, arguments: &[&str]) -> Result<()> {
    let folder = root().join(folder);
    // Progress is printed by the children too: what stands before must not come after.
    std::io::Write::flush(&mut std::io::stdout()).ok();
    // `timeout` of the coreutils ends the whole process group.
    let mut child = Command::new("timeout")
        .arg("--kill-after=10")
        .arg(budget.as_secs().max(1).to_string())
        .arg(program)
        .args(arguments)
        .current_dir(folder)
        .spawn()
        .with_context(|| format!("can't run {program}"))?;
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(LOOK);
    };
    if status.success() {
        return Ok(());
    }
    let line = format!("{program} {}", arguments.join(" "));
    if begin.elapsed() >= budget {
        bail!("{line}: not done within {} s", budget.as_secs());
    }
    bail!("{line}: {status}")
}
