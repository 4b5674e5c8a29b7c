//! A client of the floor: keys are known beforehand, one datagram says who it is, the rest is SRTP.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::floor::{Hello, RTP_HEADER, extended, write_header};
use crate::payload::Stamp;
use crate::scenario::Codec;
use crate::source::{Packet, SourceId};
use crate::srtp::{Context, Profile, header_length};

/// How often a client says again who it is until the floor answers.
const HELLO_INTERVAL: Duration = Duration::from_millis(100);

pub(crate) struct Plain {
    hello: Hello,
    floor: SocketAddr,
    seal: Context,
    open: Context,
    tag: usize,
    pub(crate) is_connected: bool,
    pub(crate) deadline: Instant,
    pub(crate) outgoing: VecDeque<(SocketAddr, Vec<u8>)>,
}

impl Plain {
    pub(crate) fn new(floor: SocketAddr, hello: Hello, profile: Profile, now: Instant) -> Plain {
        Plain {
            seal: Context::from_seed(profile, &hello.seed(true)),
            open: Context::from_seed(profile, &hello.seed(false)),
            tag: profile.tag(),
            hello,
            floor,
            is_connected: false,
            deadline: now,
            outgoing: VecDeque::new(),
        }
    }

    pub(crate) fn tick(&mut self, now: Instant) {
        if self.is_connected {
            self.deadline = now + Duration::from_secs(3600);
            return;
        }
        self.outgoing
            .push_back((self.floor, self.hello.write().to_vec()));
        self.deadline = now + HELLO_INTERVAL;
    }

    /// The stamp of a packet; `None` for what is none.
    pub(crate) fn receive(&mut self, datagram: &mut [u8]) -> Option<Stamp> {
        if Hello::read(datagram).is_some() {
            self.is_connected = true;
            return None;
        }
        let header = header_length(datagram)?;
        let (_, rollover) = extended(datagram)?;
        let length = self.open.open(datagram, header, rollover).ok()?;
        Stamp::read(&datagram[header..length])
    }

    pub(crate) fn send(&mut self, source: SourceId, codec: Codec, packet: &Packet) -> Result<()> {
        let length = RTP_HEADER + packet.payload.len();
        let mut datagram = vec![0; length + self.tag];
        let rollover = write_header(
            &mut datagram,
            codec == Codec::Opus,
            packet.marker,
            packet.sequence,
            packet.timestamp,
            source,
            packet.sequence as u16,
        );
        datagram[RTP_HEADER..length].copy_from_slice(&packet.payload);
        self.seal
            .seal(&mut datagram, RTP_HEADER, length, rollover)?;
        self.outgoing.push_back((self.floor, datagram));
        Ok(())
    }
}
