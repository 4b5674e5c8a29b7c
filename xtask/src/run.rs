//! Runs commands within a time budget, and ends them when xtask itself is told to end.
//!
//! Invariant: nothing that was started here outlives xtask, whether it is stopped by Ctrl-C, by SIGTERM or by a budget.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};

/// How often a running command is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// How long a command that is told to end may take before it is killed, in seconds. A server needs
/// a little more than the 3 s of its drain.
const END_WITHIN: u64 = 10;

/// How long packages for one folder may take to install.
const NPM_BUDGET: Duration = Duration::from_secs(300);

static ASKED_TO_END: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on SIGINT, SIGTERM and SIGHUP end the running command and then xtask.
pub(crate) fn watch_signals() -> Result<()> {
    let flag = ASKED_TO_END.get_or_init(Arc::default);
    for signal in [
        signal_hook::consts::SIGINT,
        signal_hook::consts::SIGTERM,
        signal_hook::consts::SIGHUP,
    ] {
        signal_hook::flag::register(signal, flag.clone())?;
    }
    Ok(())
}

/// Whether xtask was told to end.
pub(crate) fn is_asked_to_end() -> bool {
    ASKED_TO_END
        .get()
        .is_some_and(|flag| flag.load(Ordering::Relaxed))
}

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
    run_with(folder, budget, program, arguments, &[])
}

/// [`run`] with variables on top of the environment.
pub(crate) fn run_with(
    folder: &str,
    budget: Duration,
    program: &str,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> Result<()> {
    // Progress is printed by the children too: what stands before must not come after.
    std::io::Write::flush(&mut std::io::stdout()).ok();
    // `timeout` of the coreutils makes a process group of what it runs and ends the whole group.
    let child = Command::new("timeout")
        .arg(format!("--kill-after={END_WITHIN}"))
        .arg(budget.as_secs().max(1).to_string())
        .arg(program)
        .args(arguments)
        .envs(variables.iter().copied())
        .current_dir(root().join(folder))
        .spawn()
        .with_context(|| format!("can't run {program}"))?;
    let begin = Instant::now();
    let status = wait(child)?;
    if status.success() {
        return Ok(());
    }
    let line = format!("{program} {}", arguments.join(" "));
    if is_asked_to_end() {
        bail!("{line}: stopped");
    }
    if begin.elapsed() >= budget {
        bail!("{line}: not done within {} s", budget.as_secs());
    }
    bail!("{line}: {status}")
}

/// Waits until a child has ended, and ends it when xtask is told to end.
pub(crate) fn wait(mut child: Child) -> Result<ExitStatus> {
    let mut told_at = None;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if is_asked_to_end() {
            let since: Instant = *told_at.get_or_insert_with(|| {
                tell_to_end(&child);
                Instant::now()
            });
            if since.elapsed() > Duration::from_secs(END_WITHIN + 1) {
                child.kill().context("can't end a command")?;
            }
        }
        std::thread::sleep(LOOK);
    }
}

/// Sends SIGTERM: `timeout` passes it on to its group, a server drains.
pub(crate) fn tell_to_end(child: &Child) {
    let process = rustix::process::Pid::from_child(child);
    // A child that ended by itself meanwhile needs no telling.
    rustix::process::kill_process(process, rustix::process::Signal::TERM).ok();
}

/// What `program` prints; fails when it fails or is not done in time.
pub(crate) fn output(budget: Duration, program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new("timeout")
        .arg(budget.as_secs().max(1).to_string())
        .arg(program)
        .args(arguments)
        .current_dir(root())
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| format!("can't run {program}"))?;
    if !output.status.success() {
        bail!("{program} failed");
    }
    String::from_utf8(output.stdout).with_context(|| format!("{program} printed no text"))
}

/// Installs what the lock file of `folder` names, unless it is installed already.
pub(crate) fn npm_install(folder: &str) -> Result<()> {
    let changed = |file: &str| newest_of_file(&root().join(folder).join(file));
    // npm writes the inner lock file last.
    let installed = changed("node_modules/.package-lock.json");
    if installed.is_some() && installed >= changed("package-lock.json") {
        println!("the packages of {folder} are installed");
        return Ok(());
    }
    run(
        folder,
        NPM_BUDGET,
        "npm",
        &["ci", "--no-audit", "--no-fund", "--loglevel=error"],
    )
}

/// What the web client is built from.
const CLIENT_SOURCES: [&str; 6] = [
    "src",
    "public",
    "scripts",
    "index.html",
    "package-lock.json",
    "vite.config.ts",
];

/// Builds the web client unless it is newer than everything it is made from: a new build of it
/// makes the server be linked anew.
pub(crate) fn build_client(budget: Duration) -> Result<()> {
    let folder = root().join("web-client");
    let newest = CLIENT_SOURCES
        .iter()
        .filter_map(|name| newest(&folder.join(name)))
        .max();
    // Written by the last step of the build.
    let built = newest_of_file(&folder.join("dist/index.html.br"));
    if built.is_some() && built > newest {
        println!("the web client is built");
        return Ok(());
    }
    run("web-client", budget, "npm", &["run", "build"])
}

fn newest_of_file(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|it| it.modified()).ok()
}

/// When a file, or a folder or anything in it, was changed last.
fn newest(path: &Path) -> Option<SystemTime> {
    let inside = std::fs::read_dir(path).into_iter().flatten().flatten();
    inside
        .filter_map(|entry| newest(&entry.path()))
        .chain(newest_of_file(path))
        .max()
}
