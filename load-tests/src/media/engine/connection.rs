//! A peer connection and its socket.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket as StdUdpSocket};
use std::time::Instant;

use anyhow::{Context, Result};
use mio::net::UdpSocket;
use str0m::rtp::Ssrc;
use udp_batch::{Burst, Sender as BatchSender};

use crate::media::plain::Plain;
use crate::media::webrtc::WebRtc;
use crate::media::{Reply, StayId};
use crate::source::SourceId;

/// Kernel buffer asked for in each direction of a client's socket, in bytes.
const SOCKET_BUFFER: usize = 1 << 20;

/// What a connection is made of.
pub(super) enum Wire {
    WebRtc(Box<WebRtc>),
    Plain(Box<Plain>),
}

/// A video stream that comes in.
pub(super) struct Incoming {
    pub(super) ssrc: Ssrc,
    pub(super) turn: u16,
    pub(super) since: Instant,
}

/// How a server numbers the packets of a source: what it adds to the sender's numbers and times.
/// Both stay the same while the stream does, or decoders and repair are led astray.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Numbering {
    pub(super) ssrc: Ssrc,
    pub(super) sequence: u64,
    pub(super) timestamp: u32,
}

impl Numbering {
    /// Whether this is another one on the same stream. A rounded time may be off by a tick.
    pub(super) fn has_jumped(&self, to: &Numbering) -> bool {
        let apart = self.timestamp.wrapping_sub(to.timestamp) as i32;
        self.ssrc == to.ssrc && (self.sequence != to.sequence || apart.abs() > 1)
    }
}

/// A peer connection with its socket.
pub(super) struct Connection {
    pub(super) stay: StayId,
    pub(super) socket: UdpSocket,
    pub(super) sender: BatchSender,
    pub(super) loss: f64,
    pub(super) wire: Wire,
    pub(super) is_connected: bool,
    /// It has said that it goes.
    pub(super) is_leaving: bool,
    pub(super) waiting: Vec<Reply<()>>,
    pub(super) sources: Vec<SourceId>,
    pub(super) incoming: HashMap<SourceId, Incoming>,
    pub(super) numbering: HashMap<SourceId, Numbering>,
    pub(super) next_look: Instant,
}

impl Connection {
    /// When its engine wants to be called.
    pub(super) fn deadline(&self) -> Instant {
        match &self.wire {
            Wire::WebRtc(wire) => wire.deadline,
            Wire::Plain(wire) => wire.deadline,
        }
    }
}

/// Sends a burst; returns how many datagrams the socket did not take.
pub(super) fn send(connection: &mut Connection, burst: &mut Burst) -> u64 {
    let sent = connection.sender.send(&connection.socket, burst, |_| {});
    let left = burst.datagrams() + sent.failed;
    burst.clear();
    left as u64
}

/// RTP and RTCP, by RFC 7983.
pub(super) fn is_media(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(128..=191))
}

pub(super) fn open_socket(address: SocketAddr) -> Result<StdUdpSocket> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None)
        .context("no more sockets: raise the limit of open files (ulimit -n)")?;
    // Smaller buffers than asked for only lose bursts earlier, which the results show.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.set_nonblocking(true)?;
    socket
        .bind(&address.into())
        .with_context(|| format!("can't open a UDP socket on {}", address.ip()))?;
    udp_batch::stamp_arrivals(&socket).context("this kernel does not stamp arrivals")?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_go_on_do_not_jump() {
        let numbering = |ssrc: u32, sequence, timestamp| Numbering {
            ssrc: ssrc.into(),
            sequence,
            timestamp,
        };
        let one = numbering(1, 7, u32::MAX);
        assert!(!one.has_jumped(&one));
        assert!(!one.has_jumped(&numbering(1, 7, 0)), "rounded");
        assert!(!one.has_jumped(&numbering(2, 9, 90)), "another stream");
        assert!(one.has_jumped(&numbering(1, 8, u32::MAX)));
        assert!(one.has_jumped(&numbering(1, 7, 90)));
    }
}
