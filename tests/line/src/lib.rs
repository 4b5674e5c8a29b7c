//! A line to test on: two network namespaces and, between them, a program that passes IP packets
//! as badly as it is told.
//!
//! Each end is a namespace with a TUN device; whatever runs in one reaches the other through the
//! line, by any protocol over IPv4 or IPv6. Each direction has delay, jitter with or without
//! reordering, losses alone and in bursts, duplicates, a rate with a bounded queue, and outages;
//! they change by a schedule or while the line runs. Every packet is counted by what became of it.
//!
//! ```no_run
//! use line::{Change, Config, End, Line};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! if let Some(why) = line::unavailable() {
//!     println!("skipped: {why}");
//!     return Ok(());
//! }
//! let line = Line::up(&Config::from_toml("[[change]]\ndelay_ms = 20\nrate_kbit = 2000")?)?;
//! let socket = line.inside(End::A, || std::net::UdpSocket::bind((line.a().ipv4, 0)))??;
//! let status = line.command(End::B, "ip").arg("address").status()?;
//! line.set(Change { loss: Some(0.02), ..Change::default() })?;
//! println!("{:?}", line.counts()?.a_to_b.lost);
//! # Ok(())
//! # }
//! ```
//!
//! Packets to multicast addresses (the kernel's neighbour and group messages) are not passed and
//! not counted, so that counts are those of the test's own packets. What a line does is in
//! [`Direction`], which is pure; [`Line`] gives it devices and the time.

mod condition;
mod config;
pub mod control;
mod direction;
mod namespace;
mod packet;
mod pump;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::thread::JoinHandle;

use serde::Serialize;

pub use condition::{Burst, Change, Condition, OutOfRange, Queue, Way};
pub use config::{Config, ConfigError};
pub use direction::{Counts, Direction, MAX_HELD, Tally};
pub use namespace::{remove_leftovers, unavailable};
pub use pump::{Control, LineCounts};

use namespace::{DeviceAt, Namespace};

/// What can go wrong with a line.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The description is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A change asks for what no line has.
    #[error(transparent)]
    Change(#[from] OutOfRange),
    /// More changes are to come than a line keeps.
    #[error("10000 changes wait already")]
    TooManyChanges,
    /// The machine doesn't let a line be set up.
    #[error("{0}")]
    Network(String),
    /// Something removed a namespace or a device under the line.
    #[error("the line has ended; its namespace or device is gone")]
    Gone,
}

/// One of a line's two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Packets from here count as `a_to_b`.
    A,
    /// Packets from here count as `b_to_a`.
    B,
}

/// Where an end is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// The network namespace's name, for `ip netns exec`.
    pub namespace: String,
    /// Its address on the line.
    pub ipv4: Ipv4Addr,
    /// Its address on the line.
    pub ipv6: Ipv6Addr,
}

/// A line that is up. When it is dropped, the programs in its own namespaces are ended and
/// everything is removed.
#[derive(Debug)]
pub struct Line {
    control: Control,
    endpoints: [Endpoint; 2],
    namespaces: [Namespace; 2],
    pump: Option<JoinHandle<()>>,
}

impl Line {
    /// Sets a line up, after removing what killed ones left behind.
    ///
    /// # Errors
    /// When the description is wrong, or the machine doesn't let it; [`unavailable`] tells the
    /// usual reasons beforehand.
    pub fn up(config: &Config) -> Result<Line, Error> {
        config.check()?;
        remove_leftovers();
        let namespaces = [
            Namespace::new(config.a.as_deref(), 'a')?,
            Namespace::new(config.b.as_deref(), 'b')?,
        ];
        let network = config.network;
        let device = |at: usize, host| {
            namespaces[at].device(&DeviceAt {
                // Two ends in one namespace have different names as well.
                name: format!("line{network}{}", ["a", "b"][at]),
                mtu: config.mtu,
                network,
                host,
            })
        };
        let devices = [device(0, 1)?, device(1, 2)?];
        let endpoint = |at: usize, host| Endpoint {
            namespace: namespaces[at].name.clone(),
            ipv4: Ipv4Addr::new(10, network, 0, host),
            ipv6: Ipv6Addr::new(0xfd77, network.into(), 0, 0, 0, 0, 0, host.into()),
        };
        let endpoints = [endpoint(0, 1), endpoint(1, 2)];
        let (control, pump) = pump::start(devices, config)
            .map_err(|error| Error::Network(format!("the line's thread: {error}")))?;
        Ok(Line {
            control,
            endpoints,
            namespaces,
            pump: Some(pump),
        })
    }

    /// Where end A is.
    pub fn a(&self) -> &Endpoint {
        &self.endpoints[0]
    }

    /// Where end B is.
    pub fn b(&self) -> &Endpoint {
        &self.endpoints[1]
    }

    /// A command that runs `program` inside an end's namespace, by `ip netns exec`.
    pub fn command(&self, end: End, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args([
            "netns",
            "exec",
            &self.namespaces[end as usize].name,
            program,
        ]);
        command
    }

    /// Runs `work` on a thread of its own inside an end's namespace and waits for it. A socket that
    /// it opens stays there wherever it is used afterwards; a thread that it starts does too.
    ///
    /// # Errors
    /// When the namespace can't be entered.
    pub fn inside<T: Send>(&self, end: End, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        self.namespaces[end as usize].inside(work)
    }

    /// Changes conditions, now or at the second that the change gives; returns the counts of this
    /// moment.
    ///
    /// # Errors
    /// When a value is one that no line has, too many changes wait, or the line is gone.
    pub fn set(&self, change: Change) -> Result<LineCounts, Error> {
        self.control.set(change)
    }

    /// What became of the packets so far.
    ///
    /// # Errors
    /// When the line is gone.
    pub fn counts(&self) -> Result<LineCounts, Error> {
        self.control.counts()
    }

    /// A handle for other threads.
    pub fn control(&self) -> Control {
        self.control.clone()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.control.end();
        if let Some(pump) = self.pump.take() {
            let _ = pump.join();
        }
    }
}
