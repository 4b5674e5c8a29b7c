//! Network namespaces and the TUN device in each (ip-netns(8)), by the program `ip`.
//!
//! A namespace's name holds the process id of its maker, so that what a killed one left behind is
//! known and removed by the next.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tun_rs::{DeviceBuilder, SyncDevice};

use crate::Error;

/// What the names of namespaces and control sockets begin with; the process id follows.
pub(crate) const PREFIX: &str = "terrace-line";

/// Where `ip netns` keeps the names.
const FOLDER: &str = "/run/netns";

/// Packets that the kernel keeps for the line while it does something else; beyond it drops them
/// before they are counted. Some 0.5 s at 200 Mbit/s.
const DEVICE_QUEUE: u32 = 10_000;

/// How long programs inside a namespace have to end when it goes; then they are killed.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// How long the kernel has to make an address reachable; milliseconds are usual.
const ROUTE_PATIENCE: Duration = Duration::from_secs(5);

/// The bits of capabilities(7) that are needed.
const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_SYS_ADMIN: u64 = 1 << 21;

/// Why lines can't be set up on this machine; `None` when they can.
pub fn unavailable() -> Option<String> {
    if !Path::new("/dev/net/tun").exists() {
        return Some("there is no /dev/net/tun".into());
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let held = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .unwrap_or(0);
    if held & CAP_NET_ADMIN == 0 || held & CAP_SYS_ADMIN == 0 {
        return Some("CAP_NET_ADMIN and CAP_SYS_ADMIN are missing; run it as root".into());
    }
    if let Err(error) = Command::new("ip").arg("-V").output() {
        return Some(format!("the program ip (iproute2) can't be run: {error}"));
    }
    None
}

/// Runs `ip` with commands on its standard input, one per line.
fn ip(arguments: &[&str], commands: &str) -> Result<(), Error> {
    let mut child = Command::new("ip")
        .args(arguments)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Error::Network(format!("ip: {error}")))?;
    if let Some(mut input) = child.stdin.take() {
        input
            .write_all(commands.as_bytes())
            .map_err(|error| Error::Network(format!("ip: {error}")))?;
    }
    let output = child
        .wait_with_output()
        .map_err(|error| Error::Network(format!("ip: {error}")))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(Error::Network(format!("ip: {}", why.trim())));
    }
    Ok(())
}

/// A network namespace; one of the line's own goes with it.
#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) name: String,
    is_own: bool,
}

impl Namespace {
    /// Makes one, or uses that of the given name.
    pub(crate) fn new(given: Option<&str>, end: char) -> Result<Namespace, Error> {
        if let Some(name) = given {
            let namespace = Namespace {
                name: name.into(),
                is_own: false,
            };
            if !namespace.path().exists() {
                return Err(Error::Network(format!(
                    "there is no network namespace {name}"
                )));
            }
            return Ok(namespace);
        }
        let (pid, random) = (std::process::id(), rand::random::<u32>());
        let name = format!("{PREFIX}-{pid}-{random:08x}-{end}");
        ip(&[], &format!("netns add {name}\n"))?;
        let namespace = Namespace { name, is_own: true };
        ip(&["-n", &namespace.name], "link set lo up\n")?;
        Ok(namespace)
    }

    fn path(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.name)
    }

    /// Runs `work` on a thread of its own inside the namespace and waits for it. Sockets that it
    /// opens stay there wherever they are used.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        let file = File::open(self.path())?;
        std::thread::scope(|scope| {
            scope
                .spawn(move || {
                    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
                    Ok(work())
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A TUN device in the namespace, up and with its addresses. It goes when it is dropped.
    pub(crate) fn device(&self, device: &DeviceAt) -> Result<SyncDevice, Error> {
        let DeviceAt {
            name,
            mtu,
            network,
            host,
        } = device;
        let tun = self
            .inside(|| {
                let tun = DeviceBuilder::new()
                    .name(name.as_str())
                    .inherit_enable_state()
                    .build_sync()?;
                tun.set_nonblocking(true)?;
                Ok(tun)
            })
            .and_then(|tun: io::Result<SyncDevice>| tun)
            .map_err(|error| Error::Network(format!("a TUN device in {}: {error}", self.name)))?;
        ip(
            &["-n", &self.name],
            &format!(
                "link set dev {name} mtu {mtu} txqueuelen {DEVICE_QUEUE} addrgenmode none\n\
                 address add 10.{network}.0.{host}/24 dev {name}\n\
                 address add fd77:{network:x}::{host}/64 dev {name} nodad\n\
                 link set dev {name} up\n"
            ),
        )?;
        self.wait_for_route(&format!("fd77:{network:x}::{host}"))?;
        Ok(tun)
    }

    /// Waits until packets to an IPv6 address of the namespace are taken. The kernel makes the
    /// route to it in the background, and drops what comes before.
    fn wait_for_route(&self, address: &str) -> Result<(), Error> {
        let begin = Instant::now();
        while begin.elapsed() < ROUTE_PATIENCE {
            let output = Command::new("ip")
                .args(["-6", "-n", &self.name, "route", "show", "table", "local"])
                .arg(address)
                .output()
                .map_err(|error| Error::Network(format!("ip: {error}")))?;
            if !output.stdout.is_empty() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(Error::Network(format!(
            "{address} is not reachable in {} after {ROUTE_PATIENCE:?}",
            self.name
        )))
    }

    /// The processes inside.
    fn pids(&self) -> Vec<Pid> {
        let output = Command::new("ip")
            .args(["netns", "pids", &self.name])
            .output();
        let text = output.map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&text)
            .lines()
            .filter_map(|line| line.trim().parse().ok())
            .filter_map(Pid::from_raw)
            .collect()
    }

    /// Ends what still runs inside. The namespace is the line's own: nothing else can be there but
    /// what was started for it.
    fn end_processes(&self) {
        let begin = Instant::now();
        let mut signal = Signal::TERM;
        loop {
            let pids = self.pids();
            if pids.is_empty() || begin.elapsed() > 2 * END_PATIENCE {
                return;
            }
            if begin.elapsed() > END_PATIENCE {
                signal = Signal::KILL;
            }
            for pid in pids {
                // It may have ended meanwhile.
                let _ = kill_process(pid, signal);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.is_own {
            self.end_processes();
            // What can't be removed now is removed by the next line.
            let _ = ip(&[], &format!("netns delete {}\n", self.name));
        }
    }
}

/// A device to be made.
pub(crate) struct DeviceAt {
    pub(crate) name: String,
    pub(crate) mtu: u16,
    pub(crate) network: u8,
    /// The last number of its addresses.
    pub(crate) host: u8,
}

/// Removes the namespaces and control sockets of lines whose process is gone.
pub fn remove_leftovers() {
    for name in left_in(Path::new(FOLDER)) {
        drop(Namespace { name, is_own: true });
    }
    let folder = std::env::temp_dir();
    for name in left_in(&folder) {
        let _ = std::fs::remove_file(folder.join(name));
    }
}

/// The names in a folder that were made by a process that is gone.
fn left_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| {
            maker(name).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
        })
        .collect()
}

/// The process id in the name of something that a line made.
fn maker(name: &str) -> Option<u32> {
    let rest = name.strip_prefix(PREFIX)?.strip_prefix('-')?;
    rest.split(['-', '.']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_line_made_has_a_maker() {
        assert_eq!(maker("terrace-line-123.sock"), Some(123));
        assert_eq!(maker("terrace-line-123-00c0ffee-a"), Some(123));
        assert_eq!(maker("terrace-line-x-00c0ffee-a"), None);
        assert_eq!(maker("blue"), None);
    }
}
