//! Sending a burst: what to do when the kernel takes a part, refuses, or is full.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use crate::burst::{Burst, Piece};
use crate::{AsSocket, system};

/// A segment of this many bytes fits every path: IPv6's smallest MTU (1,280, RFC 8200 §5) less its
/// header (40) and UDP's (8). A larger one may have been refused for its size alone.
const FITS_EVERY_PATH: usize = 1232;

/// What became of one call of [`Sender::send`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Datagrams that the kernel took.
    pub datagrams: usize,
    /// Their bytes, without headers.
    pub bytes: usize,
    /// Messages that they went out in.
    pub messages: usize,
    /// System calls made.
    pub calls: usize,
    /// Datagrams that were given up, each told by a [`Failure`].
    pub failed: usize,
    /// The socket's buffer is full: the rest waits in the burst for the next call.
    pub is_blocked: bool,
}

/// Datagrams that could not be sent.
#[derive(Debug)]
pub struct Failure {
    /// Where they were to go.
    pub destination: SocketAddr,
    /// How many they were.
    pub datagrams: usize,
    /// What the kernel said, such as `NetworkUnreachable`. On a connected socket it may be about an
    /// earlier datagram (an ICMP error that came since).
    pub error: io::Error,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} datagrams to {} can't be sent: {}",
            self.datagrams, self.destination, self.error
        )
    }
}

/// Sends bursts through one socket.
#[derive(Debug)]
pub struct Sender {
    is_segmenting: bool,
}

impl Sender {
    /// A sender for `socket`; one sender is for one socket, since it learns what that can do.
    pub fn new(socket: &impl AsSocket) -> Sender {
        Sender {
            is_segmenting: system::can_segment(socket),
        }
    }

    /// Whether joined messages go out whole and the kernel cuts them. Once false it stays so: the
    /// system has no `UDP_SEGMENT`, or refused a message with it that it took without.
    pub fn is_segmenting(&self) -> bool {
        self.is_segmenting
    }

    /// Sends what is in `burst`, in order. Afterwards the burst is empty, or `is_blocked` is true
    /// and the burst holds the rest: call again when the socket is writable, or clear it.
    ///
    /// A message that can't be sent costs itself: `failed` is called with it and the ones after it
    /// go on.
    pub fn send(
        &mut self,
        socket: &impl AsSocket,
        burst: &mut Burst,
        failed: impl FnMut(Failure),
    ) -> Sent {
        self.send_by(burst, failed, |pieces| system::send(socket, pieces))
    }

    /// `send` with the system call as an argument: it takes pieces and says how many of them, at
    /// least one, went out; an error is about the first.
    fn send_by(
        &mut self,
        burst: &mut Burst,
        mut failed: impl FnMut(Failure),
        mut send: impl FnMut(&mut dyn Iterator<Item = Piece<'_>>) -> io::Result<usize>,
    ) -> Sent {
        let mut sent = Sent::default();
        // The first message was refused whole, for a reason that may be the joining itself.
        let mut is_joining_suspect = false;
        loop {
            let first = burst.pieces(self.is_segmenting).next().map(|piece| {
                let fits_every_path = piece.segment_size <= FITS_EVERY_PATH;
                let datagrams = piece.datagrams();
                (
                    piece.destination,
                    datagrams,
                    piece.is_joined(),
                    fits_every_path,
                )
            });
            let Some((destination, datagrams, is_joined, fits_every_path)) = first else {
                burst.clear();
                return sent;
            };
            sent.calls += 1;
            let outcome = send(&mut burst.pieces(self.is_segmenting));
            match outcome {
                Ok(0) => {
                    sent.is_blocked = true;
                    return sent;
                }
                Ok(count) => {
                    for piece in burst.pieces(self.is_segmenting).take(count) {
                        sent.datagrams += piece.datagrams();
                        sent.bytes += piece.contents.len();
                        sent.messages += 1;
                    }
                    for _ in 0..count {
                        burst.remove_first(self.is_segmenting);
                    }
                    self.is_segmenting &= !is_joining_suspect;
                    is_joining_suspect = false;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    sent.is_blocked = true;
                    return sent;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_joined && system::may_be_for_joining(&error) => {
                    is_joining_suspect = fits_every_path;
                    burst.split_first();
                }
                Err(error) => {
                    is_joining_suspect = false;
                    sent.failed += datagrams;
                    failed(Failure {
                        destination,
                        datagrams,
                        error,
                    });
                    burst.remove_first(self.is_segmenting);
                }
            }
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::burst::MAX_SEGMENTS;

    fn peer(number: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, number], 9))
    }

    fn error(number: i32) -> io::Error {
        io::Error::from_raw_os_error(number)
    }

    /// A kernel that answers as it is told.
    #[derive(Debug, Default)]
    struct Kernel {
        /// Ways of the coming calls; when they are used up, everything is taken.
        ways: VecDeque<Way>,
        /// What it says to a message to be cut.
        refuses_joined: Option<i32>,
        /// The largest datagram that it takes.
        mtu: Option<usize>,
        unreachable: Option<SocketAddr>,
        taken: Vec<(SocketAddr, Vec<u8>)>,
    }

    #[derive(Clone, Copy, Debug)]
    enum Way {
        Full,
        Interrupted,
        Takes(usize),
    }

    impl Kernel {
        fn send(&mut self, pieces: &mut dyn Iterator<Item = Piece<'_>>) -> io::Result<usize> {
            let limit = match self.ways.pop_front() {
                Some(Way::Full) => return Err(error(libc::EAGAIN)),
                Some(Way::Interrupted) => return Err(error(libc::EINTR)),
                Some(Way::Takes(limit)) => limit,
                None => usize::MAX,
            };
            let mut count = 0;
            for piece in pieces.take(limit) {
                match self.refusal(&piece) {
                    Some(number) if count == 0 => return Err(error(number)),
                    Some(_) => break,
                    None => {}
                }
                count += 1;
                let cuts = piece.contents.chunks(piece.segment_size.max(1));
                if piece.contents.is_empty() {
                    self.taken.push((piece.destination, Vec::new()));
                }
                self.taken
                    .extend(cuts.map(|cut| (piece.destination, cut.to_vec())));
            }
            Ok(count)
        }

        fn refusal(&self, piece: &Piece<'_>) -> Option<i32> {
            if self.unreachable == Some(piece.destination) {
                return Some(libc::ENETUNREACH);
            }
            if piece.is_joined() && self.mtu.is_some_and(|mtu| piece.segment_size > mtu) {
                return Some(libc::EINVAL);
            }
            self.refuses_joined.filter(|_| piece.is_joined())
        }
    }

    fn burst(packets: &[(u8, usize)]) -> Burst {
        let mut burst = Burst::new(200_000, 200);
        for (at, (to, length)) in packets.iter().enumerate() {
            assert!(burst.push(peer(*to), &vec![at as u8; *length]));
        }
        burst
    }

    fn sender() -> Sender {
        Sender {
            is_segmenting: true,
        }
    }

    #[test]
    fn an_unreachable_destination_costs_its_own_message_only() {
        let mut kernel = Kernel {
            unreachable: Some(peer(2)),
            ..Kernel::default()
        };
        let mut failures = Vec::new();
        let mut burst = burst(&[(1, 50), (1, 50), (2, 50), (2, 50), (3, 50)]);
        let sent = sender().send_by(
            &mut burst,
            |failure| failures.push((failure.destination, failure.datagrams)),
            |pieces| kernel.send(pieces),
        );
        assert_eq!(failures, [(peer(2), 2)]);
        assert_eq!(
            sent,
            Sent {
                datagrams: 3,
                bytes: 150,
                messages: 2,
                calls: 3,
                failed: 2,
                is_blocked: false
            }
        );
    }

    #[test]
    fn a_full_buffer_leaves_the_rest_for_the_next_call() {
        let mut kernel = Kernel {
            ways: [Way::Takes(1), Way::Interrupted, Way::Full].into(),
            ..Kernel::default()
        };
        let mut burst = burst(&[(1, 50), (2, 50), (3, 50)]);
        let mut sender = sender();
        let sent = sender.send_by(&mut burst, |_| {}, |pieces| kernel.send(pieces));
        assert!(sent.is_blocked && sent.datagrams == 1 && burst.datagrams() == 2);
        let sent = sender.send_by(&mut burst, |_| {}, |pieces| kernel.send(pieces));
        assert!(!sent.is_blocked && sent.datagrams == 2 && burst.is_empty());
    }

    #[test]
    fn where_joining_is_refused_everything_goes_datagram_by_datagram_from_then_on() {
        for number in [libc::EIO, libc::EINVAL, libc::ENOPROTOOPT] {
            let mut kernel = Kernel {
                refuses_joined: Some(number),
                ..Kernel::default()
            };
            let mut sender = sender();
            let mut burst = burst(&[(1, 50), (1, 50), (2, 50), (2, 50)]);
            let sent = sender.send_by(&mut burst, |_| {}, |pieces| kernel.send(pieces));
            assert_eq!((sent.datagrams, sent.failed), (4, 0));
            assert!(!sender.is_segmenting());
        }
    }

    #[test]
    fn a_message_too_large_for_its_path_does_not_end_joining_for_the_others() {
        let mut kernel = Kernel {
            mtu: Some(1400),
            ..Kernel::default()
        };
        let mut sender = sender();
        let mut burst = burst(&[(1, 1450), (1, 1450), (2, 50), (2, 50)]);
        let sent = sender.send_by(&mut burst, |_| {}, |pieces| kernel.send(pieces));
        assert_eq!((sent.datagrams, sent.messages), (4, 3));
        assert!(sender.is_segmenting());
    }

    proptest! {
        #[test]
        fn every_datagram_is_sent_or_told_as_failed_once_and_in_order(
            packets in prop::collection::vec((0_u8..4, 0_usize..5), 0..150),
            ways in prop::collection::vec(prop_oneof![
                Just(Way::Full), Just(Way::Interrupted), (1_usize..5).prop_map(Way::Takes),
            ], 0..100),
            refuses_joined in prop::option::of(Just(libc::EIO)),
            unreachable in prop::option::of((0_u8..4).prop_map(peer)),
        ) {
            let mut kernel = Kernel {
                ways: ways.into(), refuses_joined, unreachable, ..Kernel::default()
            };
            let mut sender = sender();
            let mut burst = burst(&packets);
            let (mut datagrams, mut failed, mut told) = (0, 0, 0);
            loop {
                let sent = sender.send_by(
                    &mut burst,
                    |failure| {
                        assert_eq!(Some(failure.destination), unreachable);
                        assert!(failure.datagrams <= MAX_SEGMENTS);
                        told += failure.datagrams;
                    },
                    |pieces| kernel.send(pieces),
                );
                datagrams += sent.datagrams;
                failed += sent.failed;
                prop_assert_eq!(burst.datagrams() + datagrams + failed, packets.len());
                if !sent.is_blocked {
                    break;
                }
            }
            prop_assert!(burst.is_empty());
            prop_assert_eq!(failed, told);
            let expected: Vec<_> = packets
                .iter()
                .enumerate()
                .map(|(at, (to, length))| (peer(*to), vec![at as u8; *length]))
                .filter(|(to, _)| Some(*to) != unreachable)
                .collect();
            prop_assert_eq!(kernel.taken, expected);
        }
    }
}
