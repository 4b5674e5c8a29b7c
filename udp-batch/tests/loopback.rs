//! Real sockets on loopback.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime};

use udp_batch::{Burst, MAX_BATCH, Receiver, Sender, join_arrivals, stamp_arrivals};

/// Far longer than loopback takes; a test that gets here has failed.
const PATIENCE: Duration = Duration::from_secs(10);

const LOOPBACKS: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];

/// A destination that the kernel refuses at once: broadcasting was not asked for.
const REFUSED: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::BROADCAST), 9);

fn socket(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket2::SockRef::from(&socket)
        .set_recv_buffer_size(4 << 20)
        .unwrap();
    socket
}

/// Receives until there are `count` datagrams.
fn take(socket: &UdpSocket, receiver: &mut Receiver, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
    let begin = Instant::now();
    let mut taken = Vec::new();
    while taken.len() < count {
        assert!(
            begin.elapsed() < PATIENCE,
            "{} of {count} came",
            taken.len()
        );
        match receiver.receive(socket) {
            Ok(_) => taken.extend(
                receiver
                    .datagrams()
                    .map(|datagram| (datagram.source, datagram.contents.to_vec())),
            ),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
    taken
}

/// Until a datagram is there.
fn wait(socket: &UdpSocket) {
    let begin = Instant::now();
    while socket.peek(&mut [0; 1]).is_err() {
        assert!(begin.elapsed() < PATIENCE, "nothing came");
        std::thread::yield_now();
    }
}

fn datagram(number: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (number * 7 + at) as u8).collect()
}

#[test]
fn mixed_sizes_to_two_peers_arrive_whole_and_in_order_on_both_families() {
    for address in LOOPBACKS {
        let here = socket(address);
        let peers = [socket(address), socket(address)];
        let mut sender = Sender::new(&here);
        assert!(sender.is_segmenting(), "Linux 4.18 and later can");
        let mut burst = Burst::new(1 << 20, 256);
        let mut pushed = BTreeMap::<usize, Vec<Vec<u8>>>::new();
        let lengths = [1200, 1200, 80, 1200, 0, 1, 1172, 1172, 1172, 3, 3];
        for (number, length) in lengths.iter().cycle().take(200).enumerate() {
            let to = usize::from(number % 23 > 11);
            let packet = datagram(number, *length);
            assert!(burst.push(peers[to].local_addr().unwrap(), &packet));
            pushed.entry(to).or_default().push(packet);
        }
        let messages = burst.messages().len();
        let sent = sender.send(&here, &mut burst, |failure| panic!("{failure}"));
        assert_eq!((sent.datagrams, sent.messages), (200, messages));
        assert!(messages < 150 && sent.calls == messages.div_ceil(64));
        assert!(sender.is_segmenting() && burst.is_empty());
        let mut receiver = Receiver::new(MAX_BATCH, 2048);
        for (to, expected) in pushed {
            let taken = take(&peers[to], &mut receiver, expected.len());
            let source = here.local_addr().unwrap();
            assert!(taken.iter().all(|(from, _)| *from == source));
            let contents: Vec<_> = taken.into_iter().map(|(_, contents)| contents).collect();
            assert_eq!(contents, expected);
        }
    }
}

#[test]
fn a_whole_message_of_64_and_the_largest_datagram_go_out() {
    for address in LOOPBACKS {
        let (here, there) = (socket(address), socket(address));
        let to = there.local_addr().unwrap();
        let mut burst = Burst::new(1 << 20, 8);
        for number in 0..64 {
            assert!(burst.push(to, &datagram(number, 1000)));
        }
        assert!(burst.push(to, &datagram(64, udp_batch::MAX_PAYLOAD)));
        assert_eq!(burst.messages().len(), 2);
        let mut sender = Sender::new(&here);
        let sent = sender.send(&here, &mut burst, |failure| panic!("{failure}"));
        assert_eq!((sent.datagrams, sent.calls), (65, 1));
        let taken = take(&there, &mut Receiver::new(4, 65_535), 65);
        for (number, (_, contents)) in taken.iter().enumerate().take(64) {
            assert_eq!(*contents, datagram(number, 1000));
        }
        assert_eq!(taken[64].1, datagram(64, udp_batch::MAX_PAYLOAD));
    }
}

#[test]
fn a_refused_destination_in_the_middle_costs_only_its_own_datagrams() {
    let (here, there) = (socket(LOOPBACKS[0]), socket(LOOPBACKS[0]));
    let to = there.local_addr().unwrap();
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut burst = Burst::new(1 << 20, 64);
    let mut number = 0;
    for destination in [REFUSED, to, REFUSED, to, nowhere, to, nowhere] {
        for _ in 0..3 {
            assert!(burst.push(destination, &datagram(number, 500)));
            number += 1;
        }
    }
    let mut sender = Sender::new(&here);
    let mut failures = BTreeMap::new();
    let sent = sender.send(&here, &mut burst, |failure| {
        *failures.entry(failure.destination).or_insert(0) += failure.datagrams;
    });
    assert_eq!((sent.datagrams, sent.failed), (9, 12));
    assert_eq!(failures, BTreeMap::from([(REFUSED, 6), (nowhere, 6)]));
    assert!(
        sender.is_segmenting(),
        "a bad destination is no reason to stop joining"
    );
    let taken = take(&there, &mut Receiver::new(32, 2048), 9);
    let expected = [3, 4, 5, 9, 10, 11, 15, 16, 17].map(|number| datagram(number, 500));
    assert!(taken.iter().map(|(_, contents)| contents).eq(&expected));
}

#[test]
fn a_datagram_longer_than_the_capacity_is_marked_and_the_next_one_is_whole() {
    for address in LOOPBACKS {
        let (here, there) = (socket(address), socket(address));
        let to = there.local_addr().unwrap();
        let mut burst = Burst::new(1 << 16, 8);
        assert!(burst.push(to, &[1; 101]) && burst.push(to, &[2; 100]) && burst.push(to, &[]));
        Sender::new(&here).send(&here, &mut burst, |failure| panic!("{failure}"));
        let mut receiver = Receiver::new(8, 100);
        let mut seen = Vec::new();
        let begin = Instant::now();
        while seen.len() < 3 {
            assert!(begin.elapsed() < PATIENCE);
            if receiver.receive(&there).is_ok() {
                seen.extend(
                    receiver
                        .datagrams()
                        .map(|datagram| (datagram.contents.len(), datagram.is_truncated)),
                );
            }
        }
        assert_eq!(seen, [(100, true), (100, false), (0, false)]);
    }
}

#[test]
fn at_most_a_batch_is_taken_at_once_and_an_empty_socket_does_not_wait() {
    let (here, there) = (socket(LOOPBACKS[0]), socket(LOOPBACKS[0]));
    let mut receiver = Receiver::new(8, 100);
    let error = receiver.receive(&there).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    let begin = Instant::now();
    // On a busy machine a call may come between two arrivals.
    loop {
        assert!(begin.elapsed() < PATIENCE, "never were 8 taken and then 3");
        let mut burst = Burst::new(1 << 16, 32);
        for number in 0..11 {
            assert!(burst.push(there.local_addr().unwrap(), &[number; 10]));
        }
        Sender::new(&here).send(&here, &mut burst, |failure| panic!("{failure}"));
        let mut calls = Vec::new();
        while calls.iter().sum::<usize>() < 11 {
            wait(&there);
            let taken = receiver.receive(&there).unwrap();
            assert_eq!(receiver.datagrams().count(), taken);
            calls.push(taken);
        }
        assert!(receiver.receive(&there).is_err());
        assert_eq!(receiver.datagrams().count(), 0);
        if calls == [8, 3] {
            return;
        }
    }
}

#[test]
fn arrivals_are_stamped_by_the_kernel_when_asked_for() {
    for address in LOOPBACKS {
        let (here, there) = (socket(address), socket(address));
        stamp_arrivals(&there).unwrap();
        let before = SystemTime::now();
        here.send_to(b"now", there.local_addr().unwrap()).unwrap();
        wait(&there);
        let mut receiver = Receiver::new(1, 100);
        receiver.receive(&there).unwrap();
        let at = receiver.datagrams().next().unwrap().arrived_at.unwrap();
        // The system's clock may be set in between; only a wrong unit is off by more.
        assert!(at >= before - PATIENCE && at <= SystemTime::now() + PATIENCE);
    }
}

#[test]
fn joined_arrivals_are_told_apart_again() {
    for address in LOOPBACKS {
        let (here, there) = (socket(address), socket(address));
        join_arrivals(&there).unwrap();
        let mut burst = Burst::new(1 << 20, 64);
        let lengths = [1200, 1200, 1200, 7, 300, 300];
        for (number, length) in lengths.iter().enumerate() {
            assert!(burst.push(there.local_addr().unwrap(), &datagram(number, *length)));
        }
        Sender::new(&here).send(&here, &mut burst, |failure| panic!("{failure}"));
        let mut receiver = Receiver::new(32, 65_535);
        let (mut buffers, mut contents) = (0, Vec::new());
        while contents.len() < lengths.len() {
            wait(&there);
            buffers += receiver.receive(&there).unwrap();
            contents.extend(
                receiver
                    .datagrams()
                    .map(|datagram| datagram.contents.to_vec()),
            );
        }
        assert_eq!(buffers, 2, "the kernel handed over each message as it was");
        let expected: Vec<_> = lengths
            .iter()
            .enumerate()
            .map(|(number, length)| datagram(number, *length))
            .collect();
        assert_eq!(contents, expected);
    }
}

#[test]
fn an_icmp_error_on_a_connected_socket_is_told_and_the_next_call_goes_on() {
    let here = socket(LOOPBACKS[0]);
    let closed = socket(LOOPBACKS[0]).local_addr().unwrap();
    here.connect(closed).unwrap();
    let mut sender = Sender::new(&here);
    let mut burst = Burst::new(1000, 8);
    assert!(burst.push(closed, b"anybody?"));
    assert_eq!(sender.send(&here, &mut burst, |_| {}).datagrams, 1);
    let mut receiver = Receiver::new(8, 100);
    let begin = Instant::now();
    let error = loop {
        assert!(begin.elapsed() < PATIENCE);
        match receiver.receive(&here) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
            told => break told.unwrap_err(),
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    let error = receiver.receive(&here).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
}

/// Runs an ignored test of this file in a network namespace of its own, which goes with the
/// process, after a shell script has set up its loopback interface.
#[cfg(target_os = "linux")]
fn in_a_namespace(script: &str, test: &str) {
    let script = format!("ip link set lo up && {script} && exec \"$0\" \"$@\"");
    let output = std::process::Command::new("unshare")
        .args(["--net", "sh", "-ec", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", test])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    if !told.contains("running 1 test") {
        let why = String::from_utf8_lossy(&output.stderr);
        println!("skipped: such a network namespace can't be made here: {why}");
        return;
    }
    assert!(
        output.status.success() && told.contains("1 passed"),
        "{told}"
    );
}

/// Loopback frees a datagram's buffer at once, so a sender there is never blocked; a queue that
/// lets 20 megabits per second through makes it so.
#[cfg(target_os = "linux")]
#[test]
fn a_full_buffer_stops_the_burst_and_the_next_call_goes_on_where_it_stopped() {
    in_a_namespace(
        "tc qdisc add dev lo root tbf rate 20mbit burst 3kb limit 4mb",
        "inside_a_slow_namespace",
    );
}

#[test]
#[ignore = "run by a_full_buffer_stops_the_burst_and_the_next_call_goes_on_where_it_stopped"]
fn inside_a_slow_namespace() {
    let (here, there) = (socket(LOOPBACKS[0]), socket(LOOPBACKS[0]));
    socket2::SockRef::from(&here)
        .set_send_buffer_size(4096)
        .unwrap();
    let to = there.local_addr().unwrap();
    let mut burst = Burst::new(1 << 20, 300);
    let mut expected = Vec::new();
    for number in 0..100 {
        // Each fourth one ends a message, so that a call is stopped between messages.
        let packet = datagram(number, if number % 4 == 3 { 900 } else { 1000 });
        assert!(burst.push(to, &packet));
        expected.push(packet);
    }
    let mut sender = Sender::new(&here);
    let (mut datagrams, mut blocked) = (0, 0);
    let begin = Instant::now();
    while !burst.is_empty() {
        assert!(begin.elapsed() < PATIENCE);
        let sent = sender.send(&here, &mut burst, |failure| panic!("{failure}"));
        datagrams += sent.datagrams;
        assert_eq!(burst.datagrams(), 100 - datagrams);
        assert_eq!(sent.is_blocked, !burst.is_empty());
        blocked += usize::from(sent.is_blocked);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(blocked > 0, "the buffer was never full");
    let taken = take(&there, &mut Receiver::new(32, 2048), 100);
    assert!(taken.iter().map(|(_, contents)| contents).eq(&expected));
}

#[cfg(target_os = "linux")]
#[test]
fn segments_larger_than_the_interface_takes_go_as_datagrams_of_their_own() {
    in_a_namespace("ip link set lo mtu 1400", "inside_a_narrow_namespace");
}

#[test]
#[ignore = "run by segments_larger_than_the_interface_takes_go_as_datagrams_of_their_own"]
fn inside_a_narrow_namespace() {
    let (here, there) = (socket(LOOPBACKS[0]), socket(LOOPBACKS[0]));
    let to = there.local_addr().unwrap();
    let mut burst = Burst::new(1 << 20, 8);
    let expected: Vec<_> = [1390, 1390, 1000, 1372, 1372, 1372]
        .iter()
        .enumerate()
        .map(|(number, length)| datagram(number, *length))
        .collect();
    for packet in &expected {
        assert!(burst.push(to, packet));
    }
    let mut sender = Sender::new(&here);
    let sent = sender.send(&here, &mut burst, |failure| panic!("{failure}"));
    // 1,390 bytes and 28 of headers go in two fragments each; 1,372 fit exactly.
    assert_eq!((sent.datagrams, sent.messages), (6, 4));
    assert!(sender.is_segmenting());
    let taken = take(&there, &mut Receiver::new(32, 2048), 6);
    assert!(taken.iter().map(|(_, contents)| contents).eq(&expected));
}
