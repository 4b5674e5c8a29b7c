//! `line up`: a line for tests in any language.

use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use line::control::{ControlSocket, serve};
use line::{Config, Line, unavailable};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};

/// What test runners take for "skipped" (automake and others).
const SKIPPED: u8 = 77;

/// How long the command has to end after it was asked to; then it is killed.
const END_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Parser)]
#[command(
    about = "A line to test on: two network namespaces, and packets passed between them as badly as told"
)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Sets a line up and runs a command beside it; without one, prints where the line is and
    /// takes requests on standard input until that ends or SIGTERM comes.
    Up {
        /// The line's description (TOML); without it everything passes at once.
        #[arg(long)]
        config: Option<PathBuf>,
        /// Runs outside the namespaces with LINE_A, LINE_B (their names), LINE_A_IPV4,
        /// LINE_A_IPV6, LINE_B_IPV4, LINE_B_IPV6 and LINE_CONTROL (a Unix socket) in its
        /// environment. Its exit code is this program's.
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Removes what lines that were killed left behind; the next line does it as well.
    Clean,
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().action {
        Action::Up { config, command } => up(config, &command),
        Action::Clean => {
            line::remove_leftovers();
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn up(config: Option<PathBuf>, command: &[String]) -> Result<ExitCode> {
    let config = match config {
        None => Config::default(),
        Some(path) => {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("can't read {}", path.display()))?;
            Config::from_toml(&text).with_context(|| format!("in {}", path.display()))?
        }
    };
    if let Some(why) = unavailable() {
        eprintln!("skipped: no line can be set up here: {why}");
        return Ok(ExitCode::from(SKIPPED));
    }
    // Before there is anything to be left behind.
    let mut signals = Signals::new()?;
    let line = Line::up(&config)?;
    let socket = ControlSocket::open(line.control()).context("the control socket")?;
    if command.is_empty() {
        let ready = json!({"ready": {"a": line.a(), "b": line.b(), "control": socket.path()}});
        println!("{ready}");
        io::stdout().flush()?;
        let (control, end) = (line.control(), signals.end()?);
        std::thread::spawn(move || {
            let input = BufReader::new(io::stdin());
            if let Err(error) = serve(&control, input, io::stdout()) {
                eprintln!("standard input: {error}");
            }
            end.ask();
        });
        signals.wait_for_end()?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut child = Command::new(&command[0])
        .args(&command[1..])
        .env("LINE_A", &line.a().namespace)
        .env("LINE_B", &line.b().namespace)
        .env("LINE_A_IPV4", line.a().ipv4.to_string())
        .env("LINE_A_IPV6", line.a().ipv6.to_string())
        .env("LINE_B_IPV4", line.b().ipv4.to_string())
        .env("LINE_B_IPV6", line.b().ipv6.to_string())
        .env("LINE_CONTROL", socket.path())
        .spawn()
        .with_context(|| format!("can't run {}", command[0]))?;
    let status = signals.wait_for(&mut child)?;
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    Ok(ExitCode::from(u8::try_from(code.unwrap_or(1)).unwrap_or(1)))
}

/// Signals, and the wish to end, as something that can be waited for.
struct Signals {
    is_asked_to_end: Arc<AtomicBool>,
    woken: UnixStream,
    wake: UnixStream,
}

/// Lets another thread ask for the end.
struct AskToEnd {
    is_asked_to_end: Arc<AtomicBool>,
    wake: UnixStream,
}

impl AskToEnd {
    fn ask(mut self) {
        self.is_asked_to_end.store(true, Ordering::SeqCst);
        // A full pipe wakes as well.
        let _ = self.wake.write(&[1]);
    }
}

impl Signals {
    fn new() -> Result<Signals> {
        let (woken, wake) = UnixStream::pair()?;
        let is_asked_to_end = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT, SIGHUP, SIGCHLD] {
            if signal != SIGCHLD {
                // First the flag, then what wakes the one who reads it.
                signal_hook::flag::register(signal, is_asked_to_end.clone())?;
            }
            signal_hook::low_level::pipe::register(signal, wake.try_clone()?)?;
        }
        Ok(Signals {
            is_asked_to_end,
            woken,
            wake,
        })
    }

    fn end(&self) -> Result<AskToEnd> {
        Ok(AskToEnd {
            is_asked_to_end: self.is_asked_to_end.clone(),
            wake: self.wake.try_clone()?,
        })
    }

    fn is_asked_to_end(&self) -> bool {
        self.is_asked_to_end.load(Ordering::SeqCst)
    }

    /// Until a signal comes, or the time is over.
    fn wait(&mut self, limit: Option<Duration>) -> Result<()> {
        self.woken.set_read_timeout(limit)?;
        // Interrupted, or over time: the caller looks again in any case.
        let _ = self.woken.read(&mut [0; 64]);
        Ok(())
    }

    fn wait_for_end(&mut self) -> Result<()> {
        while !self.is_asked_to_end() {
            self.wait(None)?;
        }
        Ok(())
    }

    /// Waits for the child; when the end is asked for, passes that on to it.
    fn wait_for(&mut self, child: &mut Child) -> Result<ExitStatus> {
        let mut asked: Option<Instant> = None;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            match asked {
                None if self.is_asked_to_end() => {
                    asked = Some(Instant::now());
                    kill_process(Pid::from_child(child), Signal::TERM)?;
                }
                Some(asked) if asked.elapsed() > END_PATIENCE => child.kill()?,
                _ => {}
            }
            self.wait(asked.map(|_| Duration::from_millis(100)))?;
        }
    }
}
