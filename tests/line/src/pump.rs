//! The thread that carries packets between the two devices.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use tun_rs::SyncDevice;

use crate::Error;
use crate::condition::{Change, Way};
use crate::config::{Config, MAX_CHANGES};
use crate::direction::{Counts, Direction};
use crate::packet::{Packet, Pool, is_multicast};

/// Packets taken from one device before the other and the deadlines get their turn.
const PACKETS_PER_TURN: usize = 64;

/// What became of the packets of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LineCounts {
    /// When they were taken, in seconds since the line came up.
    pub second: f64,
    /// Of those sent at A.
    pub a_to_b: Counts,
    /// Of those sent at B.
    pub b_to_a: Counts,
}

enum Request {
    Set(Change),
    Counts,
    End,
}

/// A handle to a running line.
#[derive(Clone, Debug)]
pub struct Control {
    requests: Sender<(Request, Sender<Result<LineCounts, Error>>)>,
    wake: Arc<UnixStream>,
}

impl Control {
    /// See [`crate::Line::set`].
    ///
    /// # Errors
    /// When a value is one that no line has, too many changes wait, or the line is gone.
    pub fn set(&self, change: Change) -> Result<LineCounts, Error> {
        change.check()?;
        self.ask(Request::Set(change))
    }

    /// See [`crate::Line::counts`].
    ///
    /// # Errors
    /// When the line is gone.
    pub fn counts(&self) -> Result<LineCounts, Error> {
        self.ask(Request::Counts)
    }

    pub(crate) fn end(&self) {
        // One that has ended by itself doesn't answer.
        let _ = self.ask(Request::End);
    }

    fn ask(&self, request: Request) -> Result<LineCounts, Error> {
        let (answer, answered) = mpsc::channel();
        self.requests
            .send((request, answer))
            .map_err(|_| Error::Gone)?;
        // A full pipe wakes as well.
        let _ = (&*self.wake).write(&[1]);
        answered.recv().map_err(|_| Error::Gone)?
    }
}

/// Starts carrying.
pub(crate) fn start(
    devices: [SyncDevice; 2],
    config: &Config,
) -> io::Result<(Control, JoinHandle<()>)> {
    let (wake, woken) = UnixStream::pair()?;
    wake.set_nonblocking(true)?;
    woken.set_nonblocking(true)?;
    let (requests, inbox) = mpsc::channel();
    let config = config.clone();
    let thread = std::thread::Builder::new()
        .name("line".into())
        .spawn(move || {
            // Made here, as packets' buffers belong to this thread.
            Pump::new(devices, &config, woken, inbox).run();
        })?;
    let control = Control {
        requests,
        wake: Arc::new(wake),
    };
    Ok((control, thread))
}

struct Pump {
    start: Instant,
    /// The last time that the directions were told.
    now: Duration,
    devices: [SyncDevice; 2],
    /// From A's device to B's, and back.
    directions: [Direction<Packet>; 2],
    /// By their time, and in the order in which they came.
    changes: BTreeMap<(Duration, u64), Change>,
    changes_seen: u64,
    pool: Pool,
    woken: UnixStream,
    inbox: Receiver<(Request, Sender<Result<LineCounts, Error>>)>,
}

impl Pump {
    fn new(
        devices: [SyncDevice; 2],
        config: &Config,
        woken: UnixStream,
        inbox: Receiver<(Request, Sender<Result<LineCounts, Error>>)>,
    ) -> Pump {
        let mut pump = Pump {
            start: Instant::now(),
            now: Duration::ZERO,
            devices,
            directions: [
                Direction::new(config.seed),
                // Not the same losses both ways.
                Direction::new(config.seed ^ u64::MAX),
            ],
            changes: BTreeMap::new(),
            changes_seen: 0,
            pool: Pool::new(config.mtu.into()),
            woken,
            inbox,
        };
        for change in &config.changes {
            pump.keep(change.clone());
        }
        pump
    }

    fn keep(&mut self, change: Change) {
        self.changes_seen += 1;
        self.changes
            .insert((change.at(), self.changes_seen), change);
    }

    /// The time, after the changes that were due until it.
    fn tick(&mut self) -> Duration {
        let now = self.start.elapsed();
        while let Some(first) = self.changes.first_entry()
            && first.key().0 <= now
        {
            let ((at, _), change) = first.remove_entry();
            self.now = self.now.max(at);
            for (direction, way) in self.directions.iter_mut().zip([Way::AToB, Way::BToA]) {
                if change.direction == way || change.direction == Way::Both {
                    direction.set(self.now, change.apply(direction.condition()));
                }
            }
        }
        self.now = self.now.max(now);
        self.now
    }

    fn counts(&self) -> LineCounts {
        LineCounts {
            second: self.now.as_secs_f64(),
            a_to_b: self.directions[0].counts(),
            b_to_a: self.directions[1].counts(),
        }
    }

    fn run(mut self) {
        loop {
            self.deliver();
            if !self.answer() {
                return;
            }
            let Some(readable) = self.wait() else {
                return;
            };
            for (at, is_readable) in readable.into_iter().enumerate() {
                if is_readable {
                    self.receive(at);
                }
            }
        }
    }

    /// Waits until a device has a packet, something is due or somebody asks. None when a device is
    /// gone.
    fn wait(&mut self) -> Option<[bool; 2]> {
        let due = self.directions.iter().filter_map(Direction::next);
        let change = self.changes.first_key_value().map(|((at, _), _)| *at);
        let timeout = due.chain(change).min().map(|next| {
            let wait = next.saturating_sub(self.start.elapsed());
            Timespec {
                tv_sec: wait.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: wait.subsec_nanos().into(),
            }
        });
        let [a, b] = &self.devices;
        let mut waits = [
            PollFd::new(a, PollFlags::IN),
            PollFd::new(b, PollFlags::IN),
            PollFd::new(&self.woken, PollFlags::IN),
        ];
        if poll(&mut waits, timeout.as_ref()).is_err() {
            // Interrupted by a signal.
            return Some([false; 2]);
        }
        let found = [waits[0].revents(), waits[1].revents()];
        if !waits[2].revents().is_empty() {
            let mut bytes = [0; 64];
            while (&self.woken).read(&mut bytes).is_ok_and(|count| count > 0) {}
        }
        let lost = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
        if found.iter().any(|found| found.intersects(lost)) {
            return None;
        }
        Some(found.map(|found| found.contains(PollFlags::IN)))
    }

    /// Takes what was sent at one end.
    fn receive(&mut self, at: usize) {
        for _ in 0..PACKETS_PER_TURN {
            let mut packet = self.pool.take();
            let Ok(length) = self.devices[at].recv(&mut packet.bytes) else {
                return;
            };
            if !is_multicast(&packet.bytes[..length]) {
                let now = self.tick();
                self.directions[at].receive(now, packet, length);
            }
        }
    }

    /// Hands over what is due.
    fn deliver(&mut self) {
        let now = self.tick();
        for (direction, device) in self.directions.iter_mut().zip(self.devices.iter().rev()) {
            while let Some((packet, length)) = direction.deliver(now) {
                if device.send(&packet.bytes[..length]).is_err() {
                    direction.refuse(length);
                }
            }
        }
    }

    /// Answers who asked; false when the line is to end.
    fn answer(&mut self) -> bool {
        while let Ok((request, answer)) = self.inbox.try_recv() {
            let told = match request {
                Request::End => return false,
                Request::Set(_) if self.changes.len() >= MAX_CHANGES => Err(Error::TooManyChanges),
                Request::Set(change) => {
                    self.keep(change);
                    self.tick();
                    Ok(self.counts())
                }
                Request::Counts => Ok(self.counts()),
            };
            // Who asked may have gone.
            let _ = answer.send(told);
        }
        true
    }
}
