//! One datagram per call, for systems other than Linux.

use std::io;
use std::mem::MaybeUninit;

use socket2::{MaybeUninitSlice, SockRef};

use crate::AsSocket;
use crate::burst::Piece;
use crate::receive::Slot;

pub(crate) fn can_segment(_: &impl AsSocket) -> bool {
    false
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn may_be_for_joining(_: &io::Error) -> bool {
    false
}

pub(crate) fn stamp_arrivals(_: &impl AsSocket) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn join_arrivals(_: &impl AsSocket) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Sends pieces, each one datagram, until one fails; an error is about the first.
pub(crate) fn send(
    socket: &impl AsSocket,
    pieces: &mut dyn Iterator<Item = Piece<'_>>,
) -> io::Result<usize> {
    let socket = SockRef::from(socket);
    let mut count = 0;
    for piece in pieces {
        match socket.send_to(piece.contents, &piece.destination.into()) {
            Ok(_) => count += 1,
            Err(error) if count == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(count)
}

/// Receives what is waiting into `buffer`, `capacity` bytes for each of `slots`; returns how many
/// slots were filled.
pub(crate) fn receive(
    socket: &impl AsSocket,
    buffer: &mut [u8],
    capacity: usize,
    slots: &mut [Slot],
) -> io::Result<usize> {
    let socket = SockRef::from(socket);
    let mut count = 0;
    for (slot, room) in slots.iter_mut().zip(buffer.chunks_exact_mut(capacity)) {
        // SAFETY: initialised bytes are valid as maybe uninitialised ones, and socket2 promises to
        // write only initialised bytes there, so that `room` is whole when the loan ends.
        let room = unsafe { &mut *(std::ptr::from_mut(room) as *mut [MaybeUninit<u8>]) };
        match socket.recv_from_vectored(&mut [MaybeUninitSlice::new(room)]) {
            Ok((length, flags, source)) => {
                *slot = Slot {
                    source: source.as_socket().unwrap_or(Slot::EMPTY.source),
                    length: length.min(capacity),
                    is_truncated: flags.is_truncated(),
                    ..Slot::EMPTY
                };
                count += 1;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => break,
            Err(error) if count == 0 => return Err(error),
            // It comes again with the next call, or it was about a datagram sent earlier.
            Err(_) => break,
        }
    }
    Ok(count)
}

#[cfg(all(test, not(miri)))]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn socket(address: &str) -> UdpSocket {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }

    #[test]
    fn datagrams_come_as_they_went_and_a_longer_one_is_marked() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (here, there) = (socket(address), socket(address));
            let destination = there.local_addr().unwrap();
            let piece = |contents| Piece {
                destination,
                contents,
                segment_size: 4,
            };
            let sent = send(
                &here,
                &mut [piece(b"abcd"), piece(b"long one"), piece(b"")].into_iter(),
            );
            assert_eq!(sent.unwrap(), 3);
            let mut buffer = [0; 18];
            let mut slots = [Slot::EMPTY; 3];
            let received = receive(&there, &mut buffer, 6, &mut slots).unwrap();
            assert_eq!(received, 3);
            let seen: Vec<_> = slots
                .iter()
                .map(|slot| (slot.source, slot.length, slot.is_truncated))
                .collect();
            let source = here.local_addr().unwrap();
            assert_eq!(
                seen,
                [(source, 4, false), (source, 6, true), (source, 0, false)]
            );
            assert_eq!(&buffer[..12], b"abcd\0\0long o");
            let error = receive(&there, &mut buffer, 6, &mut slots).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        }
        assert!(!can_segment(&socket("127.0.0.1:0")));
        assert!(stamp_arrivals(&socket("127.0.0.1:0")).is_err());
        assert!(join_arrivals(&socket("127.0.0.1:0")).is_err());
    }
}
