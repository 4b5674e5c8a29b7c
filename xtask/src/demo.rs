//! `cargo xtask demo`: one node and one example meeting on this machine.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::run::{
    build_client, is_asked_to_end, is_installed, npm_install, root, run, target, tell_to_end, wait,
};

const BUILD_BUDGET: Duration = Duration::from_secs(1800);

/// How long the server may take to be ready.
const START_BUDGET: Duration = Duration::from_secs(30);

/// What `terrace serve --dev` listens on: pages and signalling, metrics, and media.
const PAGES: &str = "127.0.0.1:7880";
const METRICS: &str = "127.0.0.1:7889";
const MEDIA: &str = "0.0.0.0:7882";

/// Programs that must be there, and what brings them.
const NEEDED: [(&str, &str); 3] = [
    ("node", "Node.js 20 or newer"),
    ("npm", "npm, which comes with Node.js"),
    ("cc", "a C compiler: apt-get install build-essential"),
];

/// Builds what is needed, runs the server and prints where the meeting is.
pub(crate) fn demo() -> Result<()> {
    let begin = Instant::now();
    check_programs()?;
    check_ports()?;
    println!("[1/3] building the web client");
    npm_install("web-client")?;
    build_client(BUILD_BUDGET)?;
    println!("[2/3] building the server (the first time takes some minutes)");
    run(
        ".",
        BUILD_BUDGET,
        "cargo",
        &["build", "--release", "--bin", "terrace"],
    )?;
    println!("[3/3] starting the server");
    let data = target().join("demo");
    let meeting = meeting(&data)?;
    let server = terrace(&data, &["serve", "--dev"])
        .stdout(Stdio::null())
        .spawn()
        .context("can't start the server")?;
    let server = ready(server)?;
    println!(
        "\n{}\n\n\
         Open the link in two tabs of a browser on this machine; in the second one, change the name\n\
         (改名字) before joining. A page on another machine would get no camera: browsers want TLS there.\n\
         Ready after {} s. Ctrl-C ends the demo.\n",
        meeting.trim(),
        begin.elapsed().as_secs()
    );
    let status = wait(server)?;
    if !is_asked_to_end() {
        bail!("the server ended by itself with {status}");
    }
    println!("The demo has ended. Its meeting will be there again next time.");
    Ok(())
}

fn check_programs() -> Result<()> {
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(program, _)| !is_installed(program))
        .map(|(_, words)| *words)
        .collect();
    if !missing.is_empty() {
        bail!("install these first: {}", missing.join("; "));
    }
    Ok(())
}

/// Says before the long build, not after it, that another server is in the way.
fn check_ports() -> Result<()> {
    for (address, is_free) in [
        (PAGES, TcpListener::bind(PAGES).is_ok()),
        (METRICS, TcpListener::bind(METRICS).is_ok()),
        (MEDIA, UdpSocket::bind(MEDIA).is_ok()),
    ] {
        if !is_free {
            bail!("{address} is in use: end the other server (an earlier demo?) and try again");
        }
    }
    Ok(())
}

/// The `terrace` command with the demo's data folder and none of the caller's settings.
fn terrace(data: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(target().join("release/terrace"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TERRACE_") {
            command.env_remove(name);
        }
    }
    command
        .env("TERRACE_DATA_DIR", data)
        .env("RUST_LOG", "warn")
        .current_dir(root())
        .args(words)
        .stderr(Stdio::inherit());
    command
}

/// The words about the example meeting of an earlier demo, else of a new one.
fn meeting(data: &Path) -> Result<String> {
    let ask = |words: &[&str]| -> Result<String> {
        let output = terrace(data, words).output().context("can't run terrace")?;
        if !output.status.success() {
            bail!("terrace {} failed", words.join(" "));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let listed = ask(&["meeting", "list", "--dev"])?;
    match listed.split("\n\n").find(|one| !one.trim().is_empty()) {
        Some(first) => Ok(first.to_owned()),
        None => ask(&["meeting", "create", "--dev", "--name", "示范会议"]),
    }
}

/// Waits until the server takes participants.
fn ready(mut server: Child) -> Result<Child> {
    let begin = Instant::now();
    loop {
        if let Some(status) = server.try_wait()? {
            bail!("the server ended with {status}");
        }
        if is_ready() {
            return Ok(server);
        }
        if is_asked_to_end() || begin.elapsed() > START_BUDGET {
            tell_to_end(&server);
            wait(server)?;
            bail!("the server did not become ready");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn is_ready() -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(METRICS)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(stream, "GET /readyz HTTP/1.0\r\nHost: {METRICS}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.split(' ').nth(1) == Some("200"))
    };
    ask().unwrap_or(false)
}
