//! The system calls on Linux. Everything that the kernel is given pointers to lives on the stack of
//! the call or is lent to it, and every pointer is made anew for each call.

use std::io;
use std::mem::{self, MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use crate::address::RawAddress;
use crate::burst::Piece;
use crate::control::{ArrivalControl, SegmentControl};
use crate::receive::{MAX_BATCH, Slot};

/// Messages given to one `sendmmsg`.
const MESSAGES_PER_CALL: usize = 64;

/// Whether the kernel knows `UDP_SEGMENT`. One that does not would ignore the control message and
/// send everything as one large datagram.
pub(crate) fn can_segment(socket: &impl AsFd) -> bool {
    let mut size: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: both pointers are to locals that live through the call, and `length` is the size of
    // the first.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw mut size).cast(),
            &raw mut length,
        )
    };
    result == 0
}

/// Whether an error about a message to be cut may be about the cutting: no checksum offload or a
/// transformed route (`EIO`), checksums off or a segment larger than the path (`EINVAL`, in later
/// kernels `EMSGSIZE`), not known at all (`ENOPROTOOPT`, `EOPNOTSUPP`).
pub(crate) fn may_be_for_joining(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE | libc::ENOPROTOOPT | libc::EOPNOTSUPP)
    )
}

fn switch_on(socket: &impl AsFd, level: libc::c_int, name: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the pointer is to a local that lives through the call, and the length is its size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

pub(crate) fn stamp_arrivals(socket: &impl AsFd) -> io::Result<()> {
    switch_on(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS)
}

pub(crate) fn join_arrivals(socket: &impl AsFd) -> io::Result<()> {
    switch_on(socket, libc::SOL_UDP, libc::UDP_GRO)
}

/// Sends the first of `pieces`, as many as go into one call; returns how many went out, or the
/// error of the first.
pub(crate) fn send(
    socket: &impl AsFd,
    pieces: &mut dyn Iterator<Item = Piece<'_>>,
) -> io::Result<usize> {
    let mut addresses = [RawAddress::EMPTY; MESSAGES_PER_CALL];
    let mut vectors = [EMPTY_VECTOR; MESSAGES_PER_CALL];
    let mut controls = [const { MaybeUninit::<SegmentControl>::uninit() }; MESSAGES_PER_CALL];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MESSAGES_PER_CALL];
    let mut count = 0;
    let places = addresses.iter_mut().zip(&mut vectors).zip(&mut controls);
    for ((piece, header), ((address, vector), control)) in pieces.zip(&mut headers).zip(places) {
        let mut message = empty_header();
        message.msg_namelen = address.write(piece.destination) as libc::socklen_t;
        message.msg_name = ptr::from_mut(address).cast();
        // The kernel only reads what is to be sent; `iovec` has no constant form.
        vector.iov_base = piece.contents.as_ptr().cast_mut().cast();
        vector.iov_len = piece.contents.len();
        message.msg_iov = vector;
        message.msg_iovlen = 1;
        if piece.is_joined()
            && let Ok(size) = u16::try_from(piece.segment_size)
        {
            message.msg_control = ptr::from_mut(control.write(SegmentControl::new(size))).cast();
            message.msg_controllen = size_of::<SegmentControl>() as _;
        }
        header.write(libc::mmsghdr {
            msg_hdr: message,
            msg_len: 0,
        });
        count += 1;
    }
    // SAFETY: the first `count` headers were written above. Their pointers are to elements of the
    // local arrays and to the pieces' contents, which are borrowed until this function returns;
    // each length is that of what its pointer is to.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_fd().as_raw_fd(),
            headers.as_mut_ptr().cast(),
            count,
            libc::MSG_DONTWAIT as _,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Receives what is waiting into `buffer`, `capacity` bytes for each of `slots`; returns how many
/// slots were filled.
pub(crate) fn receive(
    socket: &impl AsFd,
    buffer: &mut [u8],
    capacity: usize,
    slots: &mut [Slot],
) -> io::Result<usize> {
    let mut addresses = [RawAddress::EMPTY; MAX_BATCH];
    let mut vectors = [EMPTY_VECTOR; MAX_BATCH];
    let mut controls = [ArrivalControl::EMPTY; MAX_BATCH];
    let mut headers = [libc::mmsghdr {
        msg_hdr: empty_header(),
        msg_len: 0,
    }; MAX_BATCH];
    let count = slots.len().min(MAX_BATCH).min(buffer.len() / capacity);
    let places = addresses.iter_mut().zip(&mut vectors).zip(&mut controls);
    for (((header, room), ((address, vector), control)), _) in headers
        .iter_mut()
        .zip(buffer.chunks_exact_mut(capacity))
        .zip(places)
        .zip(0..count)
    {
        let message = &mut header.msg_hdr;
        message.msg_name = ptr::from_mut(address).cast();
        message.msg_namelen = RawAddress::CAPACITY as libc::socklen_t;
        vector.iov_base = room.as_mut_ptr().cast();
        vector.iov_len = room.len();
        message.msg_iov = vector;
        message.msg_iovlen = 1;
        message.msg_control = ptr::from_mut(control).cast();
        message.msg_controllen = ArrivalControl::CAPACITY as _;
    }
    let received = loop {
        // SAFETY: the first `count` headers' pointers are to elements of the local arrays and to
        // disjoint parts of `buffer`, all alive and not otherwise used during the call; each length
        // is that of what its pointer is to. No timeout is given.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_fd().as_raw_fd(),
                headers.as_mut_ptr(),
                count as libc::c_uint,
                (libc::MSG_DONTWAIT | libc::MSG_WAITFORONE) as _,
                ptr::null_mut(),
            )
        };
        match usize::try_from(received) {
            Ok(received) => break received,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    };
    for (slot, ((header, address), control)) in slots
        .iter_mut()
        .zip(headers.iter().zip(&addresses).zip(&controls))
        .take(received)
    {
        let message = &header.msg_hdr;
        // Wider on some platforms' C libraries than on others.
        #[allow(clippy::unnecessary_cast)]
        let arrival = control.read(message.msg_controllen as usize);
        *slot = Slot {
            source: address
                .read(message.msg_namelen as usize)
                .unwrap_or(Slot::EMPTY.source),
            length: (header.msg_len as usize).min(capacity),
            segment_size: arrival.segment_size,
            is_truncated: message.msg_flags & libc::MSG_TRUNC != 0,
            arrived_at: arrival.arrived_at,
        };
    }
    Ok(received)
}

const EMPTY_VECTOR: libc::iovec = libc::iovec {
    iov_base: ptr::null_mut(),
    iov_len: 0,
};

fn empty_header() -> libc::msghdr {
    // SAFETY: `msghdr` is integers and raw pointers, for which zeros are valid. It is not written as
    // a literal because it has private padding on some platforms.
    unsafe { mem::zeroed() }
}
