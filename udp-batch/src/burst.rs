//! Datagrams on their way out: one arena, and messages that are ranges of it.
//!
//! Invariant: a message's bytes are its datagrams one after the other, all of the same length but
//! the last, which may be shorter; that is what `UDP_SEGMENT` cuts up again (udp(7)). Order is
//! kept: a datagram joins the message before it or begins a new one.

use std::net::SocketAddr;
use std::ops::Range;

/// The most datagrams in one message. Linux takes 64 in every version that has `UDP_SEGMENT`
/// (4.18), and 128 in later ones.
pub const MAX_SEGMENTS: usize = 64;

/// The most bytes in one message and in one datagram: what fits an IPv4 packet (65,535) beside its
/// header (20) and UDP's (8). IPv6 would take 20 more.
pub const MAX_PAYLOAD: usize = 65_507;

/// Consecutive datagrams to one destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    destination: SocketAddr,
    start: usize,
    end: usize,
    segment_size: usize,
    /// To be sent datagram by datagram: it was refused as a whole.
    is_split: bool,
}

impl Message {
    /// Where to.
    pub fn destination(&self) -> SocketAddr {
        self.destination
    }

    /// Its bytes in [`Burst::arena`].
    pub fn range(&self) -> Range<usize> {
        self.start..self.end
    }

    /// Bytes of each datagram but the last, which has the rest.
    pub fn segment_size(&self) -> usize {
        self.segment_size
    }

    /// How many datagrams it is; at least one, which may be empty.
    pub fn datagrams(&self) -> usize {
        (self.end - self.start)
            .div_ceil(self.segment_size.max(1))
            .max(1)
    }

    fn takes(&self, destination: SocketAddr, length: usize) -> bool {
        let bytes = self.end - self.start;
        self.destination == destination
            && !self.is_split
            && length > 0
            && length <= self.segment_size
            && bytes.is_multiple_of(self.segment_size)
            && self.datagrams() < MAX_SEGMENTS
            && bytes + length <= MAX_PAYLOAD
    }

    /// Bytes that go out at once.
    fn step(&self, is_segmenting: bool) -> usize {
        if is_segmenting && !self.is_split {
            (self.end - self.start).max(1)
        } else {
            self.segment_size.max(1)
        }
    }
}

/// What one `msghdr` sends: a message, or one datagram of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    pub(crate) destination: SocketAddr,
    pub(crate) contents: &'a [u8],
    pub(crate) segment_size: usize,
}

impl Piece<'_> {
    /// Whether it is more than one datagram, so that the kernel has to cut it.
    pub(crate) fn is_joined(&self) -> bool {
        self.contents.len() > self.segment_size
    }

    pub(crate) fn datagrams(&self) -> usize {
        self.contents
            .len()
            .div_ceil(self.segment_size.max(1))
            .max(1)
    }
}

/// Datagrams collected for sending, in order.
///
/// Two ways to add one: [`Burst::push`] copies it; or the caller builds it in [`Burst::spare`] and
/// says by [`Burst::commit`] how long it became, so that it is written once and sealed in place.
#[derive(Debug)]
pub struct Burst {
    arena: Box<[u8]>,
    used: usize,
    messages: Vec<Message>,
    /// Index of the first message not yet sent whole.
    next: usize,
    max_messages: usize,
    datagrams: usize,
}

impl Burst {
    /// Room for `bytes` of datagrams in at most `messages` messages. Both are allocated here and
    /// never grow.
    pub fn new(bytes: usize, messages: usize) -> Burst {
        Burst {
            arena: vec![0; bytes].into(),
            used: 0,
            messages: Vec::with_capacity(messages),
            next: 0,
            max_messages: messages,
            datagrams: 0,
        }
    }

    /// Room for the next datagram; what is in it is left from earlier ones. At most
    /// [`MAX_PAYLOAD`] bytes, and none when the burst has all the messages that it may: then send
    /// it first.
    pub fn spare(&mut self) -> &mut [u8] {
        if self.messages.len() >= self.max_messages {
            return &mut [];
        }
        let end = self.arena.len().min(self.used + MAX_PAYLOAD);
        &mut self.arena[self.used..end]
    }

    /// Adds the first `length` bytes of [`Burst::spare`] as one datagram.
    ///
    /// # Panics
    /// When `length` is more than `spare` has, or `spare` was empty for lack of messages.
    pub fn commit(&mut self, destination: SocketAddr, length: usize) {
        assert!(
            self.messages.len() < self.max_messages && length <= self.spare().len(),
            "a datagram is committed only into the room that spare() gave"
        );
        let start = self.used;
        self.used += length;
        self.datagrams += 1;
        if let Some(last) = self.messages[self.next..].last_mut()
            && last.takes(destination, length)
        {
            last.end = self.used;
            return;
        }
        self.messages.push(Message {
            destination,
            start,
            end: self.used,
            segment_size: length,
            is_split: false,
        });
    }

    /// Adds a copy of `datagram`; false when there is no room for it, and then nothing was added.
    #[must_use]
    pub fn push(&mut self, destination: SocketAddr, datagram: &[u8]) -> bool {
        if self.messages.len() >= self.max_messages {
            return false;
        }
        let Some(room) = self.spare().get_mut(..datagram.len()) else {
            return false;
        };
        room.copy_from_slice(datagram);
        self.commit(destination, datagram.len());
        true
    }

    /// The messages that wait to be sent. Of one that was sent in part, what remains.
    pub fn messages(&self) -> &[Message] {
        &self.messages[self.next..]
    }

    /// The bytes that the messages' ranges are of.
    pub fn arena(&self) -> &[u8] {
        &self.arena[..self.used]
    }

    /// How many datagrams wait to be sent.
    pub fn datagrams(&self) -> usize {
        self.datagrams
    }

    /// Whether nothing waits to be sent.
    pub fn is_empty(&self) -> bool {
        self.messages().is_empty()
    }

    /// Drops what waits and makes the whole room free again.
    pub fn clear(&mut self) {
        self.messages.clear();
        self.used = 0;
        self.next = 0;
        self.datagrams = 0;
    }

    /// What is to be sent, in order: whole messages where the kernel cuts them, else datagrams.
    pub(crate) fn pieces(&self, is_segmenting: bool) -> impl Iterator<Item = Piece<'_>> {
        self.messages().iter().flat_map(move |message| {
            let step = message.step(is_segmenting);
            (message.start..message.end.max(message.start + 1))
                .step_by(step)
                .map(move |start| Piece {
                    destination: message.destination,
                    contents: &self.arena[start..message.end.min(start + step)],
                    segment_size: message.segment_size,
                })
        })
    }

    /// Takes out the first piece, which was sent or is given up.
    pub(crate) fn remove_first(&mut self, is_segmenting: bool) {
        let Some(message) = self.messages.get_mut(self.next) else {
            return;
        };
        let before = message.datagrams();
        message.start += message.step(is_segmenting);
        if message.start >= message.end {
            self.next += 1;
            self.datagrams -= before;
        } else {
            self.datagrams -= before - message.datagrams();
        }
    }

    /// Has the first message sent datagram by datagram.
    pub(crate) fn split_first(&mut self) {
        if let Some(message) = self.messages.get_mut(self.next) {
            message.is_split = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peer(number: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, number], 9))
    }

    fn shapes(burst: &Burst) -> Vec<(usize, usize)> {
        burst
            .messages()
            .iter()
            .map(|message| (message.datagrams(), message.range().len()))
            .collect()
    }

    #[test]
    fn equal_datagrams_to_one_destination_become_one_message_with_a_shorter_last_one() {
        let mut burst = Burst::new(100_000, 16);
        for length in [1200, 1200, 1200, 80, 1200, 1300] {
            assert!(burst.push(peer(1), &vec![7; length]));
        }
        assert!(burst.push(peer(2), &[7; 1300]));
        assert_eq!(shapes(&burst), [(4, 3680), (1, 1200), (1, 1300), (1, 1300)]);
        assert_eq!(burst.datagrams(), 7);
    }

    #[test]
    fn a_message_has_at_most_64_datagrams_and_65507_bytes() {
        let mut burst = Burst::new(200_000, 16);
        for _ in 0..65 {
            assert!(burst.push(peer(1), &[1; 100]));
        }
        for _ in 0..50 {
            assert!(burst.push(peer(2), &[1; 1400]));
        }
        assert_eq!(
            shapes(&burst),
            [(64, 6400), (1, 100), (46, 64_400), (4, 5600)]
        );
    }

    #[test]
    fn an_empty_datagram_stands_alone() {
        let mut burst = Burst::new(1000, 8);
        for length in [0, 0, 5, 0, 5] {
            assert!(burst.push(peer(1), &vec![1; length]));
        }
        assert_eq!(shapes(&burst), [(1, 0), (1, 0), (1, 5), (1, 0), (1, 5)]);
    }

    #[test]
    fn a_full_burst_takes_nothing_more_until_it_is_cleared() {
        let mut burst = Burst::new(100, 2);
        assert!(burst.push(peer(1), &[1; 60]));
        assert!(!burst.push(peer(1), &[1; 41]));
        assert!(burst.push(peer(2), &[1; 40]));
        assert!(!burst.push(peer(2), &[]));
        assert!(burst.spare().is_empty());
        burst.clear();
        assert!(burst.is_empty());
        assert_eq!(burst.spare().len(), 100);
    }

    #[test]
    fn nothing_joins_a_message_that_was_sent_or_split() {
        let mut burst = Burst::new(1000, 8);
        assert!(burst.push(peer(1), &[1; 10]));
        burst.remove_first(true);
        assert!(burst.push(peer(1), &[2; 10]));
        burst.split_first();
        assert!(burst.push(peer(1), &[3; 10]));
        assert_eq!(shapes(&burst), [(1, 10), (1, 10)]);
    }

    proptest! {
        #[test]
        fn what_is_joined_is_what_was_pushed_and_nothing_more_could_be_joined(
            packets in prop::collection::vec((0_u8..3, prop_oneof![
                Just(0_usize), Just(100), Just(1200), Just(1400), 0_usize..1500, Just(MAX_PAYLOAD),
            ]), 0..300),
        ) {
            let mut burst = Burst::new(400_000, 100);
            let mut pushed = Vec::new();
            for (at, (to, length)) in packets.into_iter().enumerate() {
                let packet = vec![at as u8; length];
                if burst.push(peer(to), &packet) {
                    pushed.push((peer(to), packet));
                }
            }
            prop_assert_eq!(burst.datagrams(), pushed.len());
            let cut: Vec<_> = burst
                .pieces(false)
                .map(|piece| (piece.destination, piece.contents.to_vec()))
                .collect();
            prop_assert_eq!(cut, pushed);
            for message in burst.messages() {
                prop_assert!(message.datagrams() <= MAX_SEGMENTS);
                prop_assert!(message.range().len() <= MAX_PAYLOAD);
            }
            for pair in burst.messages().windows(2) {
                prop_assert!(!pair[0].takes(pair[1].destination, pair[1].segment_size));
                prop_assert_eq!(pair[0].end, pair[1].start);
            }
            let whole: Vec<_> = burst.pieces(true).collect();
            prop_assert_eq!(whole.len(), burst.messages().len());
        }

        #[test]
        fn taking_out_pieces_leaves_exactly_the_rest(
            lengths in prop::collection::vec(0_usize..4, 1..60),
            ways in prop::collection::vec(any::<(bool, bool)>(), 60),
        ) {
            let mut burst = Burst::new(1000, 100);
            for (at, length) in lengths.iter().enumerate() {
                prop_assert!(burst.push(peer(1), &vec![at as u8; *length]));
            }
            for (is_segmenting, is_to_split) in ways {
                if is_to_split {
                    burst.split_first();
                }
                let cut = |burst: &Burst| -> Vec<Vec<u8>> {
                    burst.pieces(false).map(|piece| piece.contents.to_vec()).collect()
                };
                let before = cut(&burst);
                prop_assert_eq!(before.len(), burst.datagrams());
                let taken = burst.pieces(is_segmenting).next().map_or(0, |piece| piece.datagrams());
                burst.remove_first(is_segmenting);
                prop_assert_eq!(&before[taken..], &cut(&burst)[..]);
            }
        }
    }
}
