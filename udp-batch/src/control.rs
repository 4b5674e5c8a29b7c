//! Control messages (cmsg(3)): the segment size that is asked for, and what the kernel tells of a
//! datagram that arrived.

use std::mem::{align_of, offset_of, size_of};
use std::time::{Duration, SystemTime};

/// Bytes from a control message's begin to its data: `CMSG_LEN(0)`.
// SAFETY: only arithmetic on the argument; it is `unsafe` for being a macro in C.
const HEADER: usize = unsafe { libc::CMSG_LEN(0) } as usize;

/// `UDP_SEGMENT` with its size in bytes, as udp(7) describes it: `CMSG_SPACE(sizeof(uint16_t))`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct SegmentControl {
    header: libc::cmsghdr,
    size: u16,
}

const _: () = {
    assert!(offset_of!(SegmentControl, size) == HEADER);
    // SAFETY: only arithmetic on the argument.
    assert!(size_of::<SegmentControl>() == unsafe { libc::CMSG_SPACE(2) } as usize);
    assert!(align_of::<SegmentControl>() >= align_of::<usize>());
};

impl SegmentControl {
    pub(crate) fn new(size: u16) -> SegmentControl {
        // SAFETY: `cmsghdr` is plain integers, for which zeros are valid. It is not written as a
        // literal because it has private padding on some platforms.
        let mut header: libc::cmsghdr = unsafe { std::mem::zeroed() };
        header.cmsg_len = (HEADER + size_of::<u16>()) as _;
        header.cmsg_level = libc::SOL_UDP;
        header.cmsg_type = libc::UDP_SEGMENT;
        SegmentControl { header, size }
    }
}

/// Room for a time stamp and a segment size: `CMSG_SPACE` of each is at most 32 bytes.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(crate) struct ArrivalControl([u8; 64]);

const _: () = assert!(align_of::<ArrivalControl>() >= align_of::<libc::cmsghdr>());

/// What control messages tell of a datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) segment_size: Option<usize>,
    pub(crate) arrived_at: Option<SystemTime>,
}

impl ArrivalControl {
    pub(crate) const EMPTY: ArrivalControl = ArrivalControl([0; 64]);
    pub(crate) const CAPACITY: usize = 64;

    /// Reads the first `length` bytes, as the kernel wrote them.
    pub(crate) fn read(&self, length: usize) -> Arrival {
        read(&self.0[..length.min(Self::CAPACITY)])
    }
}

fn read(mut bytes: &[u8]) -> Arrival {
    let mut arrival = Arrival::default();
    while bytes.len() >= HEADER.max(size_of::<libc::cmsghdr>()) {
        // SAFETY: there are enough bytes for a `cmsghdr`, any bytes are a valid one, and the read
        // asks for no alignment.
        let header = unsafe { bytes.as_ptr().cast::<libc::cmsghdr>().read_unaligned() };
        // Wider on some platforms' C libraries than on others.
        #[allow(clippy::unnecessary_cast)]
        let length = header.cmsg_len as usize;
        let Some(data) = bytes.get(HEADER..length) else {
            break;
        };
        match (header.cmsg_level, header.cmsg_type) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                arrival.segment_size = data
                    .first_chunk()
                    .and_then(|size| usize::try_from(i32::from_ne_bytes(*size)).ok());
            }
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => arrival.arrived_at = time(data),
            _ => {}
        }
        let next = length.next_multiple_of(size_of::<usize>());
        bytes = bytes.get(next..).unwrap_or_default();
    }
    arrival
}

/// A `timespec` since 1970.
fn time(data: &[u8]) -> Option<SystemTime> {
    if data.len() < size_of::<libc::timespec>() {
        return None;
    }
    // SAFETY: there are enough bytes for a `timespec`, any bytes are a valid one, and the read asks
    // for no alignment.
    let time = unsafe { data.as_ptr().cast::<libc::timespec>().read_unaligned() };
    let since = Duration::new(
        u64::try_from(time.tv_sec).ok()?,
        u32::try_from(time.tv_nsec)
            .ok()
            .filter(|nanoseconds| *nanoseconds < 1_000_000_000)?,
    );
    SystemTime::UNIX_EPOCH.checked_add(since)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; (HEADER + data.len()).next_multiple_of(size_of::<usize>())];
        let length = HEADER + data.len();
        let at = offset_of!(libc::cmsghdr, cmsg_len);
        bytes[at..at + size_of::<usize>()].copy_from_slice(&length.to_ne_bytes());
        let at = offset_of!(libc::cmsghdr, cmsg_level);
        bytes[at..at + 4].copy_from_slice(&level.to_ne_bytes());
        let at = offset_of!(libc::cmsghdr, cmsg_type);
        bytes[at..at + 4].copy_from_slice(&kind.to_ne_bytes());
        bytes[HEADER..length].copy_from_slice(data);
        bytes
    }

    #[test]
    fn a_time_and_a_segment_size_are_read_beside_what_is_not_known() {
        let time = [5_i64.to_ne_bytes(), 7_i64.to_ne_bytes()].concat();
        let mut bytes = message(libc::SOL_IP, libc::IP_TOS, &[1]);
        bytes.extend(message(libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS, &time));
        bytes.extend(message(
            libc::SOL_UDP,
            libc::UDP_GRO,
            &1200_i32.to_ne_bytes(),
        ));
        assert_eq!(
            read(&bytes),
            Arrival {
                segment_size: Some(1200),
                arrived_at: Some(SystemTime::UNIX_EPOCH + Duration::new(5, 7)),
            }
        );
    }

    #[test]
    fn a_segment_control_has_the_manual_page_s_layout() {
        let control = SegmentControl::new(1200);
        assert_eq!(control.header.cmsg_len, (HEADER + 2) as _);
        assert_eq!(control.header.cmsg_level, 17);
        assert_eq!(control.header.cmsg_type, 103);
        assert_eq!(control.size, 1200);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            read(&bytes);
        }

        #[test]
        fn no_length_makes_it_fail(length in any::<usize>(), data in any::<[u8; 16]>()) {
            let mut bytes = message(libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS, &data);
            bytes[..size_of::<usize>()].copy_from_slice(&length.to_ne_bytes());
            read(&bytes);
        }
    }
}
