//! Once made, nothing allocates: counted by the allocator itself.

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use udp_batch::{Burst, Receiver, Sender};

/// Far longer than loopback takes.
const PATIENCE: Duration = Duration::from_secs(10);

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every request is handed to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the rules of `alloc`, which are the same there.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from the system's allocator, by `alloc` above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn sending_and_receiving_allocate_nothing() {
    let here = UdpSocket::bind("127.0.0.1:0").unwrap();
    let there = UdpSocket::bind("127.0.0.1:0").unwrap();
    here.set_nonblocking(true).unwrap();
    there.set_nonblocking(true).unwrap();
    let destination = there.local_addr().unwrap();
    let refused = SocketAddr::from(([255, 255, 255, 255], 9));
    let mut burst = Burst::new(100_000, 64);
    let mut sender = Sender::new(&here);
    let mut receiver = Receiver::new(32, 2048);
    let (mut sent, mut failed, mut received) = (0, 0, 0);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..100 {
        for _ in 0..10 {
            assert!(burst.push(destination, &[1; 1000]));
        }
        assert!(burst.push(refused, &[1; 1000]));
        sent += sender.send(&here, &mut burst, |_| failed += 1).datagrams;
        let begin = Instant::now();
        while received < sent && begin.elapsed() < PATIENCE {
            if receiver.receive(&there).is_ok() {
                received += receiver.datagrams().count();
            }
        }
    }
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert_eq!((sent, failed, received), (1000, 100, 1000));
    // The test's harness has threads of its own, which may do something meanwhile.
    assert!(allocations < 10, "{allocations} allocations");
}
