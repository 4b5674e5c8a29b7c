//! UDP datagrams in batches: many in and many out per system call.
//!
//! - [`Receiver`] takes up to [`MAX_BATCH`] datagrams that are waiting, by `recvmmsg(2)`.
//! - [`Burst`] collects datagrams in one arena and joins consecutive ones to one destination into
//!   messages that the kernel cuts up again (`UDP_SEGMENT`, "generic segmentation offload").
//! - [`Sender`] sends a burst by `sendmmsg(2)`, steps over messages that can't be sent, and goes
//!   on datagram by datagram where the kernel or the interface refuses to cut.
//!
//! On other systems than Linux the same types send and receive one datagram per call.
//!
//! The crate opens no socket, reads no clock and starts no thread, never waits, and allocates
//! nothing after construction. It works with every UDP socket that lends its descriptor
//! ([`AsSocket`]: std's, mio's, tokio's), IPv4 and IPv6. Sockets are used in non-blocking mode: on
//! Linux by a flag with each call, elsewhere the socket must have been set so.
//!
//! ```
//! use std::net::UdpSocket;
//! use udp_batch::{Burst, Receiver, Sender};
//!
//! # fn main() -> std::io::Result<()> {
//! let (here, there) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
//! here.set_nonblocking(true)?;
//! let mut burst = Burst::new(256 * 1500, 256);
//! for packet in [&[1; 1200][..], &[2; 1200], &[3; 80]] {
//!     assert!(burst.push(there.local_addr()?, packet));
//! }
//! let mut sender = Sender::new(&here);
//! let sent = sender.send(&here, &mut burst, |failure| eprintln!("{failure}"));
//! assert_eq!(sent.datagrams, 3);
//!
//! # there.peek(&mut [0])?;
//! there.set_nonblocking(true)?;
//! let mut receiver = Receiver::new(32, 2048);
//! receiver.receive(&there)?;
//! for datagram in receiver.datagrams() {
//!     println!("{} bytes from {}", datagram.contents.len(), datagram.source);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Where `unsafe` is
//!
//! This is the only crate of the workspace that has any: in `linux` around the system calls, in
//! `control` for reading and writing a `cmsghdr`, and in `plain` for lending a buffer to socket2.
//! What joins and counts (`burst`, `send`) and what lays out addresses (`address`) is safe code.
//! The unit tests make no system call, so that Miri can run them:
//!
//! ```sh
//! rustup +nightly component add miri
//! MIRIFLAGS=-Zmiri-disable-isolation PROPTEST_CASES=8 cargo +nightly miri test -p udp-batch --lib
//! ```

#[cfg(target_os = "linux")]
mod address;
mod burst;
#[cfg(target_os = "linux")]
mod control;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(any(not(target_os = "linux"), test))]
mod plain;
mod receive;
mod send;

#[cfg(target_os = "linux")]
use linux as system;
#[cfg(not(target_os = "linux"))]
use plain as system;

pub use burst::{Burst, MAX_PAYLOAD, MAX_SEGMENTS, Message};
pub use receive::{Datagram, Datagrams, MAX_BATCH, Receiver, join_arrivals, stamp_arrivals};
pub use send::{Failure, Sender, Sent};

/// What lends a socket: `AsFd`, as every socket type on Unix has it.
#[cfg(unix)]
pub use std::os::fd::AsFd as AsSocket;
/// What lends a socket: `AsSocket`, as every socket type on Windows has it.
#[cfg(windows)]
pub use std::os::windows::io::AsSocket;
