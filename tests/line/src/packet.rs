//! Packets in buffers that are used again.

use std::cell::RefCell;
use std::rc::Rc;

/// Free buffers, each as long as the largest packet.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    free: Rc<RefCell<Vec<Vec<u8>>>>,
    size: usize,
}

impl Pool {
    /// A pool of buffers of `size` bytes; it grows to as many as were ever used at once.
    pub(crate) fn new(size: usize) -> Pool {
        Pool {
            free: Rc::default(),
            size,
        }
    }

    /// A buffer with whatever was in it last.
    pub(crate) fn take(&self) -> Packet {
        let bytes = self.free.borrow_mut().pop();
        Packet {
            bytes: bytes.unwrap_or_else(|| vec![0; self.size]),
            pool: self.clone(),
        }
    }
}

/// A buffer that goes back to its pool when it is dropped.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    pool: Pool,
}

impl Clone for Packet {
    fn clone(&self) -> Packet {
        let mut copy = self.pool.take();
        copy.bytes.copy_from_slice(&self.bytes);
        copy
    }
}

impl Drop for Packet {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.pool.free.borrow_mut().push(bytes);
    }
}

/// Whether an IP packet goes to a multicast address (RFC 5771: 224.0.0.0/4; RFC 4291 §2.7:
/// ff00::/8), or is none at all.
pub(crate) fn is_multicast(packet: &[u8]) -> bool {
    match packet.first().map(|first| first >> 4) {
        Some(4) => packet.get(16).is_none_or(|byte| byte >> 4 == 0xe),
        Some(6) => packet.get(24).is_none_or(|byte| *byte == 0xff),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_packet_s_buffer_is_used_again() {
        let pool = Pool::new(10);
        let mut packet = pool.take();
        packet.bytes[3] = 9;
        let copy = packet.clone();
        assert_eq!(copy.bytes, packet.bytes);
        let address = packet.bytes.as_ptr();
        drop(packet);
        assert_eq!(pool.take().bytes.as_ptr(), address);
    }

    #[test]
    fn only_packets_to_one_receiver_are_passed() {
        let v4 = |last: [u8; 4]| {
            let mut packet = [0; 20];
            packet[0] = 0x45;
            packet[16..].copy_from_slice(&last);
            packet
        };
        assert!(is_multicast(&v4([224, 0, 0, 22])) && is_multicast(&v4([239, 1, 2, 3])));
        assert!(!is_multicast(&v4([10, 77, 0, 2])) && !is_multicast(&v4([255, 1, 2, 3])));
        let v6 = |first: u8| {
            let mut packet = [0; 40];
            packet[0] = 0x60;
            packet[24] = first;
            packet
        };
        assert!(is_multicast(&v6(0xff)) && !is_multicast(&v6(0xfd)));
        assert!(is_multicast(&[]) && is_multicast(&[0x45]) && is_multicast(&[0x10; 60]));
    }
}
