//! Servers of every kind as child processes with settings of their own, on free ports and in a folder that goes away.

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::door::{Address, Endpoint, Kind};
use crate::scenario::CLIENT_BOUND;
use crate::srtp::Profile;

/// How long a server may take to answer.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// How long a server may take to end when it is told to.
const END_WITHIN: Duration = Duration::from_secs(8);

/// How often a starting or ending server is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// How much of its log is told when it does not start, in bytes.
const LOG_END: usize = 600;

/// How many ports are tried.
const PORT_TRIES: u32 = 50;

/// The key that all servers are given.
const KEY: &str = "devkey";
/// Its secret: LiveKit wants 32 characters.
const SECRET: &str = "a-secret-for-load-tests-only-0000";

/// A server to be measured.
#[derive(Clone, Debug)]
pub enum Candidate {
    /// Terrace's binary.
    Terrace(PathBuf),
    /// LiveKit's server.
    LiveKit(PathBuf),
    /// Janus.
    Janus(PathBuf),
    /// The floor: this program itself.
    Floor {
        /// The binary `load-test`.
        program: PathBuf,
        /// At which SRTP profile.
        profile: Profile,
    },
}

impl Candidate {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Candidate::Terrace(_) => Kind::Terrace,
            Candidate::LiveKit(_) => Kind::Livekit,
            Candidate::Janus(_) => Kind::Janus,
            Candidate::Floor { .. } => Kind::Floor,
        }
    }
}

/// A server that runs; it ends with this value.
pub struct Server {
    child: Child,
    address: String,
    metrics: Option<String>,
    /// Settings, data and log; removed at the end.
    folder: tempfile::TempDir,
}

impl Server {
    /// Where and how its clients come in.
    pub fn address(&self) -> Address {
        Address {
            server: self.address.clone(),
            key: (KEY.into(), SECRET.into()),
            profile: Profile::Aes128Gcm,
            endpoint: Endpoint::default(),
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Where it serves its metrics, if it counts what it joins.
    pub fn metrics(&self) -> Option<&str> {
        self.metrics.as_deref()
    }

    /// Its process id.
    pub fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let process = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(process, rustix::process::Signal::TERM);
        let begin = Instant::now();
        while begin.elapsed() < END_WITHIN {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(LOOK);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command whose process runs on one core, if one is named. `taskset` runs the program in its own
/// place, so that the child's id is the program's.
pub fn on_core(core: Option<usize>, program: &Path) -> Command {
    let Some(core) = core else {
        return Command::new(program);
    };
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(program);
    command
}

/// A TCP and UDP port that nobody listens on.
fn free_port() -> Result<u16> {
    for _ in 0..PORT_TRIES {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        if UdpSocket::bind(("0.0.0.0", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port")
}

/// Starts a server and waits until it listens. All know the key that [`Server::address`] has.
///
/// # Errors
/// When it does not start; the message has the end of its log.
pub fn start(candidate: &Candidate, core: Option<usize>) -> Result<Server> {
    let folder = tempfile::tempdir()?;
    let (port, media, metrics) = (free_port()?, free_port()?, free_port()?);
    let write = |name: &str, text: String| -> Result<PathBuf> {
        let file = folder.path().join(name);
        std::fs::write(&file, text)?;
        Ok(file)
    };
    let mut address = format!("http://127.0.0.1:{port}");
    let mut command = match candidate {
        Candidate::Terrace(program) => {
            // The shipped settings, but for what only a load test needs: more clients than one
            // server is meant for, all of which share one address, and plain HTTP, which spares
            // them certificates.
            let mut command = on_core(core, program);
            command
                .args(["serve", "--dev"])
                .env("TERRACE_HTTP__LISTEN", format!("127.0.0.1:{port}"))
                .env("TERRACE_MEDIA__LISTEN", format!("0.0.0.0:{media}"))
                .env("TERRACE_METRICS__LISTEN", format!("127.0.0.1:{metrics}"))
                .env("TERRACE_DATA_DIR", folder.path().join("data"))
                .env(format!("TERRACE_KEYS__{}", KEY.to_uppercase()), SECRET)
                .env("TERRACE_LIMITS__CONNECTIONS_PER_ADDRESS", "0")
                .env("TERRACE_LIMITS__SESSIONS_PER_ADDRESS", "0")
                .env("TERRACE_LIMITS__PARTICIPANTS", CLIENT_BOUND.to_string());
            command
        }
        Candidate::LiveKit(program) => {
            let settings = write(
                "livekit.yaml",
                format!(
                    "port: {port}\nbind_addresses: [127.0.0.1]\nrtc:\n  udp_port: {media}\n  \
                     use_external_ip: false\nkeys:\n  {KEY}: {SECRET}\nlogging:\n  level: warn\n"
                ),
            )?;
            let mut command = on_core(core, program);
            command.arg("--config").arg(settings);
            command
        }
        Candidate::Janus(program) => {
            write(
                "janus.jcfg",
                "general: { debug_level = 3 }\nmedia: { rtp_port_range = \"20000-40000\" }\n"
                    .into(),
            )?;
            write(
                "janus.transport.http.jcfg",
                format!("general: {{ http = true, port = {port}, ip = \"127.0.0.1\" }}\n"),
            )?;
            address.push_str("/janus");
            let mut command = on_core(core, program);
            command
                .arg("--configs-folder")
                .arg(folder.path())
                .arg("--disable-colors");
            command
        }
        Candidate::Floor { program, profile } => {
            address = format!("127.0.0.1:{port}");
            let mut command = on_core(core, program);
            command
                .args(["floor", "--listen", &format!("0.0.0.0:{port}")])
                .args(["--profile", profile.name()])
                .args(["--metrics", &format!("127.0.0.1:{metrics}")]);
            command
        }
    };
    let log = std::fs::File::create(folder.path().join("log"))?;
    let name = candidate.kind().name();
    let child = command
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("can't start {name}"))?;
    let mut server = Server {
        child,
        address,
        metrics: matches!(candidate, Candidate::Terrace(_) | Candidate::Floor { .. })
            .then(|| format!("http://127.0.0.1:{metrics}/metrics")),
        folder,
    };
    let is_ready = |server: &Server| match candidate {
        Candidate::Floor { .. } => server.log().contains("ready"),
        _ => TcpStream::connect(("127.0.0.1", port)).is_ok(),
    };
    let begin = Instant::now();
    while !is_ready(&server) {
        let log = server.log();
        let end = log.get(log.len().saturating_sub(LOG_END)..).unwrap_or(&log);
        if let Some(status) = server.child.try_wait()? {
            bail!(
                "{name} does not start: it ended with {status}: {}",
                end.trim()
            );
        }
        if begin.elapsed() > READY_WITHIN {
            bail!("{name} does not listen: {}", end.trim());
        }
        std::thread::sleep(LOOK);
    }
    Ok(server)
}
