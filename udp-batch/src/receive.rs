//! Taking what has arrived.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::SystemTime;

use crate::{AsSocket, system};

/// The most that one call takes from the kernel; more would make those who wait for the first
/// datagram's answer wait for the last one's arrival.
pub const MAX_BATCH: usize = 32;

/// One datagram that arrived. It lives until the next [`Receiver::receive`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Who sent it. An IPv6 socket that takes IPv4 as well shows those as `::ffff:a.b.c.d`.
    pub source: SocketAddr,
    /// Its bytes.
    pub contents: &'a [u8],
    /// The datagram was longer than the receiver's capacity and `contents` is only its beginning.
    pub is_truncated: bool,
    /// When the kernel got it, by the system's clock; only after [`stamp_arrivals`], on Linux.
    pub arrived_at: Option<SystemTime>,
}

/// What one `msghdr` received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) source: SocketAddr,
    pub(crate) length: usize,
    /// Bytes of each datagram but the last, where the kernel joined several.
    pub(crate) segment_size: Option<usize>,
    pub(crate) is_truncated: bool,
    pub(crate) arrived_at: Option<SystemTime>,
}

impl Slot {
    pub(crate) const EMPTY: Slot = Slot {
        source: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)),
        length: 0,
        segment_size: None,
        is_truncated: false,
        arrived_at: None,
    };
}

/// Buffers for received datagrams.
#[derive(Debug)]
pub struct Receiver {
    buffer: Box<[u8]>,
    capacity: usize,
    slots: Box<[Slot]>,
    received: usize,
}

impl Receiver {
    /// Takes up to `batch` datagrams per call (1 to [`MAX_BATCH`]; others are brought into that
    /// range) of up to `capacity` bytes each (at least 1). After [`join_arrivals`] the capacity
    /// has to be 65,535.
    pub fn new(batch: usize, capacity: usize) -> Receiver {
        let batch = batch.clamp(1, MAX_BATCH);
        let capacity = capacity.max(1);
        Receiver {
            buffer: vec![0; batch * capacity].into(),
            capacity,
            slots: vec![Slot::EMPTY; batch].into(),
            received: 0,
        }
    }

    /// Takes the datagrams that are waiting, and forgets those of the call before. Returns how many
    /// buffers were filled: when fewer than the batch, the socket was empty.
    ///
    /// # Errors
    /// `WouldBlock` when none is waiting. Any other error is about the socket, or (an ICMP error)
    /// about a datagram that was sent through it before; it may be called again.
    pub fn receive(&mut self, socket: &impl AsSocket) -> io::Result<usize> {
        self.received = 0;
        self.received = system::receive(socket, &mut self.buffer, self.capacity, &mut self.slots)?;
        Ok(self.received)
    }

    /// The datagrams of the last call, in order of arrival.
    pub fn datagrams(&self) -> Datagrams<'_> {
        Datagrams {
            receiver: self,
            at: 0,
            offset: 0,
        }
    }
}

/// The datagrams of one [`Receiver::receive`].
#[derive(Clone, Debug)]
pub struct Datagrams<'a> {
    receiver: &'a Receiver,
    at: usize,
    /// Bytes of the slot that were given out already.
    offset: usize,
}

impl<'a> Iterator for Datagrams<'a> {
    type Item = Datagram<'a>;

    fn next(&mut self) -> Option<Datagram<'a>> {
        let receiver = self.receiver;
        let slot = receiver.slots[..receiver.received].get(self.at)?;
        let begin = self.at * receiver.capacity + self.offset;
        let rest = slot.length - self.offset;
        let length = match slot.segment_size {
            Some(size) if size > 0 => rest.min(size),
            _ => rest,
        };
        let is_last = length == rest;
        if is_last {
            self.at += 1;
            self.offset = 0;
        } else {
            self.offset += length;
        }
        Some(Datagram {
            source: slot.source,
            contents: &receiver.buffer[begin..begin + length],
            is_truncated: slot.is_truncated && is_last,
            arrived_at: slot.arrived_at,
        })
    }
}

/// Has the kernel stamp each datagram's arrival (`SO_TIMESTAMPNS`, socket(7)), in nanoseconds.
///
/// # Errors
/// `Unsupported` elsewhere than on Linux; or what the kernel says.
pub fn stamp_arrivals(socket: &impl AsSocket) -> io::Result<()> {
    system::stamp_arrivals(socket)
}

/// Lets the kernel hand over consecutive datagrams of one sender joined (`UDP_GRO`, udp(7)); they
/// are told apart again here. Worth it where few peers send much. One call then takes up to the
/// batch times 64 datagrams, and needs a capacity of 65,535.
///
/// # Errors
/// `Unsupported` elsewhere than on Linux; or what the kernel says (`ENOPROTOOPT` before 5.0).
pub fn join_arrivals(socket: &impl AsSocket) -> io::Result<()> {
    system::join_arrivals(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_datagrams_are_told_apart_and_only_the_last_is_cut_off() {
        let mut receiver = Receiver::new(2, 10);
        receiver.buffer.copy_from_slice(b"aabbc-----dddddddddd");
        receiver.slots[0].length = 5;
        receiver.slots[0].segment_size = Some(2);
        receiver.slots[1].length = 10;
        receiver.slots[1].segment_size = Some(6);
        receiver.slots[1].is_truncated = true;
        receiver.received = 2;
        let seen: Vec<_> = receiver
            .datagrams()
            .map(|datagram| (datagram.contents, datagram.is_truncated))
            .collect();
        assert_eq!(
            seen,
            [
                (&b"aa"[..], false),
                (b"bb", false),
                (b"c", false),
                (b"dddddd", false),
                (b"dddd", true)
            ]
        );
    }

    #[test]
    fn an_empty_datagram_is_one() {
        let mut receiver = Receiver::new(1, 10);
        receiver.received = 1;
        assert_eq!(receiver.datagrams().count(), 1);
    }

    #[test]
    fn sizes_out_of_range_are_brought_into_it() {
        let receiver = Receiver::new(1000, 0);
        assert_eq!((receiver.slots.len(), receiver.capacity), (MAX_BATCH, 1));
    }
}
