//! What a burst's messages describe is what was put in, in order and within the kernel's limits,
//! and it arrives so.

#![no_main]

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use udp_batch::{Burst, MAX_PAYLOAD, MAX_SEGMENTS, Receiver, Sender};

/// Beyond this a receiver's buffer may be full.
const SENT_BYTES: usize = 60_000;
const SENT_DATAGRAMS: usize = 48;

#[derive(Arbitrary, Debug)]
struct Input {
    bytes: u32,
    messages: u8,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Commit { to: u8, length: Length },
    Push { to: u8, length: Length },
    Clear,
    Send,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Length {
    Short(u8),
    Usual,
    Any(u16),
    /// Everything that there is room for.
    Rest,
}

struct Sockets {
    out: UdpSocket,
    sender: Sender,
    inward: [UdpSocket; 3],
    receiver: Receiver,
}

thread_local! {
    static SOCKETS: std::cell::RefCell<Sockets> = Sockets::new().into();
}

impl Sockets {
    fn new() -> Sockets {
        let bind = || UdpSocket::bind("127.0.0.1:0").expect("a port of the loopback interface");
        let out = bind();
        let inward = [bind(), bind(), bind()];
        for socket in &inward {
            socket
                .set_read_timeout(Some(Duration::from_secs(2)))
                .expect("a timeout");
        }
        Sockets {
            sender: Sender::new(&out),
            out,
            inward,
            receiver: Receiver::new(32, MAX_PAYLOAD),
        }
    }

    fn address(&self, to: u8) -> SocketAddr {
        let socket = &self.inward[usize::from(to) % self.inward.len()];
        socket.local_addr().expect("it is bound")
    }

    fn send(&mut self, burst: &mut Burst, expected: &[(SocketAddr, Vec<u8>)]) {
        let sent = self
            .sender
            .send(&self.out, burst, |failure| panic!("{failure}"));
        assert!(!sent.is_blocked && burst.is_empty());
        assert_eq!(sent.datagrams, expected.len());
        for socket in &self.inward {
            let own = socket.local_addr().expect("it is bound");
            let mut expected = expected.iter().filter(|(to, _)| *to == own).peekable();
            while expected.peek().is_some() {
                socket.peek(&mut [0]).expect("what was sent arrives");
                self.receiver.receive(socket).expect("something waits");
                for datagram in self.receiver.datagrams() {
                    assert!(!datagram.is_truncated);
                    let next = expected.next().expect("no more than was sent");
                    assert!(datagram.contents == next.1, "in order and unchanged");
                }
            }
        }
    }
}

/// Cuts the messages up as the kernel would and compares.
fn check(burst: &Burst, expected: &[(SocketAddr, Vec<u8>)], messages: usize) {
    assert_eq!(burst.datagrams(), expected.len());
    assert_eq!(burst.is_empty(), expected.is_empty());
    assert!(burst.messages().len() <= messages);
    let mut expected = expected.iter();
    for message in burst.messages() {
        let contents = &burst.arena()[message.range()];
        assert!(message.datagrams() <= MAX_SEGMENTS && contents.len() <= MAX_PAYLOAD);
        let mut cuts: Vec<_> = contents.chunks(message.segment_size().max(1)).collect();
        if cuts.is_empty() {
            cuts.push(&[]);
        }
        assert_eq!(cuts.len(), message.datagrams());
        for cut in cuts {
            let (to, datagram) = expected.next().expect("no more than was put in");
            assert!(message.destination() == *to && cut == datagram);
        }
    }
    assert!(expected.next().is_none());
}

fuzz_target!(|input: Input| {
    SOCKETS.with_borrow_mut(|sockets| {
        let messages = usize::from(input.messages) % 100;
        let mut burst = Burst::new(input.bytes as usize % 200_000, messages);
        let mut expected: Vec<(SocketAddr, Vec<u8>)> = Vec::new();
        for (at, step) in input.steps.into_iter().enumerate() {
            match step {
                Step::Commit { to, length } | Step::Push { to, length } => {
                    let is_full = burst.messages().len() == messages;
                    let room = burst.spare().len();
                    assert!(!is_full || room == 0);
                    let length = match length {
                        Length::Short(length) => usize::from(length),
                        Length::Usual => 1200,
                        Length::Any(length) => usize::from(length),
                        Length::Rest => room,
                    };
                    let destination = sockets.address(to);
                    let datagram = vec![at as u8; length];
                    let fits = !is_full && length <= room;
                    if let Step::Push { .. } = step {
                        assert_eq!(burst.push(destination, &datagram), fits);
                    } else if fits {
                        burst.spare()[..length].copy_from_slice(&datagram);
                        burst.commit(destination, length);
                    }
                    if fits {
                        expected.push((destination, datagram));
                    }
                }
                Step::Clear => {
                    check(&burst, &expected, messages);
                    burst.clear();
                    expected.clear();
                }
                Step::Send => {
                    check(&burst, &expected, messages);
                    let bytes: usize = expected.iter().map(|(_, datagram)| datagram.len()).sum();
                    if bytes <= SENT_BYTES && expected.len() <= SENT_DATAGRAMS {
                        sockets.send(&mut burst, &expected);
                        expected.clear();
                    }
                }
            }
        }
        check(&burst, &expected, messages);
    });
});
