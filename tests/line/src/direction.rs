//! One direction of a line, without sockets or clocks: packets and the time come in as arguments.
//!
//! A packet's way: the queue, where it waits for its turn while there is a rate; then the wire,
//! which may be cut, lose it or double it; then the time under way. So a lost packet has used its
//! share of the rate, as on a line whose last part is radio.
//!
//! Invariants:
//! - `sent + duplicated = delivered + refused + all drops + waiting`, in packets and in bytes.
//! - Which packets are lost depends on the seed, the probabilities and the packets' order alone;
//!   not on delay, jitter or duplicates, each of which has dice of its own.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::condition::{Condition, Queue};

/// Packets that one direction holds at most, waiting and under way: 200 Mbit/s of 1,200 bytes for
/// three seconds. More would only be memory.
pub const MAX_HELD: usize = 1 << 16;

/// Packets and their bytes (IP headers included).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Tally {
    fn add(&mut self, length: usize) {
        self.packets += 1;
        self.bytes += length as u64;
    }

    fn remove(&mut self, length: usize) {
        self.packets -= 1;
        self.bytes -= length as u64;
    }
}

/// What became of the packets of one direction since the line came up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Came to the line's beginning.
    pub sent: Tally,
    /// Came out at its end.
    pub delivered: Tally,
    /// Came into being on the way.
    pub duplicated: Tally,
    /// Dropped: lost by itself.
    pub lost: Tally,
    /// Dropped: lost in a burst.
    pub lost_in_burst: Tally,
    /// Dropped: no room in the queue.
    pub queue_full: Tally,
    /// Dropped: the line was cut.
    pub outage: Tally,
    /// Dropped: the line held [`MAX_HELD`] packets already.
    pub overflow: Tally,
    /// Dropped: the kernel at the line's end didn't take it.
    pub refused: Tally,
    /// In the queue and under way.
    pub waiting: Tally,
    /// Of these, in the queue, without the packet whose turn it is.
    pub queued: Tally,
}

/// The dice of one direction.
#[derive(Debug)]
struct Dice {
    loss: StdRng,
    duplicate: StdRng,
    jitter: StdRng,
}

#[derive(Debug)]
struct Item<P> {
    packet: P,
    length: usize,
}

#[derive(Debug)]
struct UnderWay<P> {
    due: Duration,
    number: u64,
    item: Item<P>,
}

/// The earliest is the greatest, as the heap gives the greatest first.
impl<P> Ord for UnderWay<P> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

impl<P> PartialOrd for UnderWay<P> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<P> PartialEq for UnderWay<P> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<P> Eq for UnderWay<P> {}

/// One direction of a line. Times are since the line came up and never go back.
#[derive(Debug)]
pub struct Direction<P> {
    condition: Condition,
    dice: Dice,
    is_in_burst: bool,
    /// The packet whose bits are going onto the wire, and when the last one will have gone. None
    /// when there is no rate.
    serving: Option<(Item<P>, Duration)>,
    queue: VecDeque<Item<P>>,
    queued_bytes: u64,
    under_way: BinaryHeap<UnderWay<P>>,
    number: u64,
    last_due: Duration,
    counts: Counts,
}

impl<P: Clone> Direction<P> {
    /// A direction that passes everything at once. Directions of one seed roll the same dice.
    pub fn new(seed: u64) -> Direction<P> {
        let mut seeds = StdRng::seed_from_u64(seed);
        Direction {
            condition: Condition::default(),
            dice: Dice {
                loss: StdRng::from_rng(&mut seeds),
                duplicate: StdRng::from_rng(&mut seeds),
                jitter: StdRng::from_rng(&mut seeds),
            },
            is_in_burst: false,
            serving: None,
            queue: VecDeque::new(),
            queued_bytes: 0,
            under_way: BinaryHeap::new(),
            number: 0,
            last_due: Duration::ZERO,
            counts: Counts::default(),
        }
    }

    /// The condition of the moment.
    pub fn condition(&self) -> Condition {
        self.condition
    }

    /// Changes the condition. A new rate counts for what has not gone onto the wire yet, be it a
    /// part of a packet; a new delay for what goes onto it from now on.
    pub fn set(&mut self, now: Duration, condition: Condition) {
        self.serve(now);
        let before = std::mem::replace(&mut self.condition, condition);
        if let (Some((_, finish)), Some(before)) = (&mut self.serving, before.rate) {
            let bits_left = finish.saturating_sub(now).as_nanos() * u128::from(before.get());
            *finish = match condition.rate {
                None => now,
                Some(rate) => now + nanoseconds(bits_left.div_ceil(u128::from(rate.get()))),
            };
        }
        self.serve(now);
    }

    /// Takes a packet of `length` bytes at the line's beginning.
    pub fn receive(&mut self, now: Duration, packet: P, length: usize) {
        self.serve(now);
        self.counts.sent.add(length);
        if self.counts.waiting.packets >= MAX_HELD as u64 {
            self.counts.overflow.add(length);
            return;
        }
        let item = Item { packet, length };
        if self.serving.is_none() {
            self.counts.waiting.add(length);
            self.begin_serving(now, item);
            self.serve(now);
        } else if self.queued_bytes + length as u64 <= self.queue_limit() {
            self.counts.waiting.add(length);
            self.queued_bytes += length as u64;
            self.queue.push_back(item);
        } else {
            self.counts.queue_full.add(length);
        }
    }

    /// The next packet that comes out at or before `now`, with its length.
    pub fn deliver(&mut self, now: Duration) -> Option<(P, usize)> {
        self.serve(now);
        if self.under_way.peek()?.due > now {
            return None;
        }
        let Item { packet, length } = self.under_way.pop()?.item;
        self.counts.waiting.remove(length);
        self.counts.delivered.add(length);
        Some((packet, length))
    }

    /// Corrects the counts: a packet that was delivered was not taken there.
    pub fn refuse(&mut self, length: usize) {
        self.counts.delivered.remove(length);
        self.counts.refused.add(length);
    }

    /// When [`Direction::deliver`] should be called next.
    pub fn next(&self) -> Option<Duration> {
        let finish = self.serving.as_ref().map(|(_, finish)| *finish);
        let due = self.under_way.peek().map(|first| first.due);
        finish.into_iter().chain(due).min()
    }

    /// What became of the packets, until the last call with a time.
    pub fn counts(&self) -> Counts {
        Counts {
            queued: Tally {
                packets: self.queue.len() as u64,
                bytes: self.queued_bytes,
            },
            ..self.counts
        }
    }

    fn queue_limit(&self) -> u64 {
        match (self.condition.queue, self.condition.rate) {
            (Queue::Bytes(bytes), _) => bytes,
            (Queue::Time(time), Some(rate)) => {
                let bits = time.as_nanos() * u128::from(rate.get()) / 1_000_000_000;
                u64::try_from(bits / 8).unwrap_or(u64::MAX)
            }
            (Queue::Time(_), None) => 0,
        }
    }

    /// Puts onto the wire whatever has had its turn until `now`.
    fn serve(&mut self, now: Duration) {
        while self
            .serving
            .as_ref()
            .is_some_and(|(_, finish)| *finish <= now)
        {
            let Some((item, finish)) = self.serving.take() else {
                return;
            };
            self.onto_wire(finish, item);
            if let Some(next) = self.queue.pop_front() {
                self.queued_bytes -= next.length as u64;
                self.begin_serving(finish, next);
            }
        }
    }

    fn begin_serving(&mut self, now: Duration, item: Item<P>) {
        let time = match self.condition.rate {
            None => Duration::ZERO,
            Some(rate) => {
                let bits = item.length as u128 * 8 * 1_000_000_000;
                nanoseconds(bits.div_ceil(u128::from(rate.get())))
            }
        };
        self.serving = Some((item, now + time));
    }

    fn onto_wire(&mut self, now: Duration, item: Item<P>) {
        let length = item.length;
        if self.condition.is_out {
            self.counts.waiting.remove(length);
            self.counts.outage.add(length);
            return;
        }
        if let Some(cause) = self.draw_loss() {
            self.counts.waiting.remove(length);
            match cause {
                Cause::Alone => self.counts.lost.add(length),
                Cause::InBurst => self.counts.lost_in_burst.add(length),
            }
            return;
        }
        let is_doubled = draws(&mut self.dice.duplicate, self.condition.duplicate);
        if is_doubled && self.counts.waiting.packets < MAX_HELD as u64 {
            self.counts.duplicated.add(length);
            self.counts.waiting.add(length);
            let packet = item.packet.clone();
            self.send_off(now, Item { packet, length });
        }
        self.send_off(now, item);
    }

    /// Two draws for each packet, whatever the probabilities are.
    fn draw_loss(&mut self) -> Option<Cause> {
        let burst = self.condition.burst;
        let changes = if self.is_in_burst {
            burst.leave
        } else {
            burst.enter
        };
        self.is_in_burst ^= draws(&mut self.dice.loss, changes);
        let (loss, cause) = if self.is_in_burst {
            (burst.loss, Cause::InBurst)
        } else {
            (self.condition.loss, Cause::Alone)
        };
        draws(&mut self.dice.loss, loss).then_some(cause)
    }

    fn send_off(&mut self, now: Duration, item: Item<P>) {
        let Condition { delay, jitter, .. } = self.condition;
        let shift = jitter.mul_f64(2.0 * self.dice.jitter.random::<f64>());
        let mut due = now + (delay + shift).saturating_sub(jitter);
        if !self.condition.is_reordering {
            due = due.max(self.last_due);
        }
        self.last_due = self.last_due.max(due);
        self.number += 1;
        self.under_way.push(UnderWay {
            due,
            number: self.number,
            item,
        });
    }
}

enum Cause {
    Alone,
    InBurst,
}

fn draws(dice: &mut StdRng, probability: f64) -> bool {
    dice.random::<f64>() < probability
}

fn nanoseconds(nanoseconds: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX / 4))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use proptest::prelude::*;

    use super::*;
    use crate::condition::{Burst, Change};

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn rate(bits: u64) -> Option<NonZeroU64> {
        NonZeroU64::new(bits)
    }

    fn direction(condition: Condition) -> Direction<u64> {
        let mut direction = Direction::new(7);
        direction.set(Duration::ZERO, condition);
        direction
    }

    /// Everything that comes until `until`, each at its exact time.
    fn arrivals(direction: &mut Direction<u64>, until: Duration) -> Vec<(Duration, u64)> {
        let mut arrivals = Vec::new();
        while let Some(next) = direction.next().filter(|next| *next <= until) {
            while let Some((packet, _)) = direction.deliver(next) {
                arrivals.push((next, packet));
            }
        }
        arrivals
    }

    fn is_balanced(counts: &Counts) -> bool {
        let sum = |parts: &[Tally]| {
            parts.iter().fold((0, 0), |sum, part| {
                (sum.0 + part.packets, sum.1 + part.bytes)
            })
        };
        sum(&[counts.sent, counts.duplicated])
            == sum(&[
                counts.delivered,
                counts.lost,
                counts.lost_in_burst,
                counts.queue_full,
                counts.outage,
                counts.overflow,
                counts.refused,
                counts.waiting,
            ])
    }

    #[test]
    fn a_line_without_conditions_passes_everything_at_once() {
        let mut direction = direction(Condition::default());
        direction.receive(ms(5), 1, 100);
        assert_eq!(direction.next(), Some(ms(5)));
        assert_eq!(direction.deliver(ms(5)), Some((1, 100)));
        assert_eq!(direction.deliver(ms(5)), None);
        assert_eq!(direction.next(), None);
    }

    #[test]
    fn a_rate_spaces_packets_exactly_and_a_full_queue_drops_the_last() {
        // 1,000 bytes at 1 Mbit/s are 8 ms; 3,500 bytes of queue hold three of them.
        let mut direction = direction(Condition {
            delay: ms(20),
            rate: rate(1_000_000),
            queue: Queue::Bytes(3500),
            ..Condition::default()
        });
        for packet in 0..6 {
            direction.receive(Duration::ZERO, packet, 1000);
        }
        assert_eq!(direction.counts().queue_full.packets, 2);
        assert_eq!(
            arrivals(&mut direction, ms(1000)),
            [(ms(28), 0), (ms(36), 1), (ms(44), 2), (ms(52), 3)]
        );
    }

    #[test]
    fn a_queue_in_milliseconds_is_as_long_as_the_rate_makes_it() {
        for (kbit, fit) in [(1000, 5), (2000, 10)] {
            let mut direction = direction(Condition {
                rate: rate(kbit * 1000),
                queue: Queue::Time(ms(40)),
                ..Condition::default()
            });
            for packet in 0..20 {
                direction.receive(Duration::ZERO, packet, 1000);
            }
            // One is being sent, the others wait.
            assert_eq!(direction.counts().waiting.packets, 1 + fit);
        }
    }

    #[test]
    fn a_new_rate_counts_for_the_bits_that_have_not_gone_yet() {
        let slow = Condition {
            rate: rate(1_000_000),
            ..Condition::default()
        };
        let mut direction = direction(slow);
        for packet in 0..3 {
            direction.receive(Duration::ZERO, packet, 1000);
        }
        // Half of the first has gone; the rest goes at double speed: 2 ms, then 4 ms each.
        let fast = Condition {
            rate: rate(2_000_000),
            ..slow
        };
        direction.set(ms(4), fast);
        assert_eq!(arrivals(&mut direction, ms(7)), [(ms(6), 0)],);
        direction.set(ms(7), Condition::default());
        assert_eq!(
            arrivals(&mut direction, ms(7)),
            [(ms(7), 1), (ms(7), 2)],
            "without a rate nothing waits"
        );
    }

    #[test]
    fn an_outage_drops_what_goes_onto_the_wire_and_lets_arrive_what_is_under_way() {
        let up = Condition {
            delay: ms(50),
            ..Condition::default()
        };
        let mut direction = direction(up);
        direction.receive(ms(0), 1, 10);
        let cut = Condition { is_out: true, ..up };
        direction.set(ms(10), cut);
        direction.receive(ms(20), 2, 10);
        direction.set(ms(30), up);
        direction.receive(ms(30), 3, 10);
        assert_eq!(arrivals(&mut direction, ms(99)), [(ms(50), 1), (ms(80), 3)]);
        assert_eq!(direction.counts().outage.packets, 1);
    }

    #[test]
    fn losses_are_as_many_and_as_long_as_gilbert_and_elliott_say() {
        let mut direction = direction(Condition {
            burst: Burst {
                enter: 0.01,
                leave: 0.2,
                loss: 1.0,
            },
            ..Condition::default()
        });
        let (mut lost, mut bursts, mut was_lost) = (0_u32, 0_u32, false);
        for packet in 0..100_000 {
            direction.receive(ms(packet), packet, 100);
            let is_lost = direction.deliver(ms(packet)).is_none();
            lost += u32::from(is_lost);
            bursts += u32::from(is_lost && !was_lost);
            was_lost = is_lost;
        }
        // enter / (enter + leave) = 4.76 %, and 1 / leave = 5 packets each, give or take three
        // standard deviations (196 packets, and 0.15).
        assert_eq!(direction.counts().lost_in_burst.packets, u64::from(lost));
        assert!((4170..5350).contains(&lost), "{lost}");
        let length = f64::from(lost) / f64::from(bursts);
        assert!((4.55..5.45).contains(&length), "{length}");
    }

    #[test]
    fn the_same_packets_are_lost_whatever_else_the_line_does() {
        let lossy = Condition {
            loss: 0.1,
            ..Condition::default()
        };
        let survivors = |condition| {
            let mut direction = direction(condition);
            for packet in 0..1000 {
                direction.receive(ms(packet), packet, 100);
            }
            let mut packets: Vec<_> = arrivals(&mut direction, ms(100_000))
                .into_iter()
                .map(|(_, packet)| packet)
                .collect();
            packets.sort_unstable();
            packets.dedup();
            packets
        };
        let plain = survivors(lossy);
        assert!((860..940).contains(&plain.len()), "{}", plain.len());
        assert_eq!(
            plain,
            survivors(Condition {
                delay: ms(300),
                jitter: ms(200),
                is_reordering: true,
                duplicate: 0.3,
                ..lossy
            })
        );
    }

    #[test]
    fn a_direction_holds_a_bounded_number_of_packets() {
        let mut direction = direction(Condition {
            delay: ms(1000),
            duplicate: 1.0,
            ..Condition::default()
        });
        for packet in 0..MAX_HELD as u64 {
            direction.receive(Duration::ZERO, packet, 10);
        }
        let counts = direction.counts();
        assert_eq!(counts.waiting.packets, MAX_HELD as u64);
        assert_eq!(counts.overflow.packets, MAX_HELD as u64 / 2);
        assert!(is_balanced(&counts));
    }

    #[test]
    fn a_refused_packet_was_not_delivered() {
        let mut direction = direction(Condition::default());
        direction.receive(Duration::ZERO, 1, 10);
        direction.deliver(Duration::ZERO);
        direction.refuse(10);
        let counts = direction.counts();
        assert_eq!((counts.delivered.packets, counts.refused.bytes), (0, 10));
        assert!(is_balanced(&counts));
    }

    fn changes() -> impl Strategy<Value = Change> {
        let some = prop::option::of::<std::ops::Range<f64>>;
        (
            some(0.0..50.0),
            some(0.0..80.0),
            any::<Option<bool>>(),
            some(0.0..0.5),
            some(0.0..0.5),
            prop::option::of(0_u64..3000),
            prop::option::of(0_u64..20_000),
            some(0.0..100.0),
            any::<Option<bool>>(),
        )
            .prop_map(|values| Change {
                delay_ms: values.0,
                jitter_ms: values.1,
                reorder: values.2,
                loss: values.3,
                burst: values.3.map(|enter| Burst {
                    enter,
                    leave: 0.3,
                    loss: 0.9,
                }),
                duplicate: values.4,
                rate_kbit: values.5,
                queue_bytes: values.6,
                queue_ms: values.7,
                outage: values.8,
                ..Change::default()
            })
    }

    #[derive(Clone, Debug)]
    enum Step {
        Receive(usize),
        Change(Change),
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (20_usize..1500).prop_map(Step::Receive),
            1 => changes().prop_map(Step::Change),
            3 => (0_u64..30_000).prop_map(Step::Wait),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn every_packet_is_accounted_for_and_two_runs_are_the_same(steps in steps()) {
            let run = || {
                let mut direction = Direction::new(3);
                let mut now = Duration::ZERO;
                let mut seen = Vec::new();
                for (at, step) in steps.iter().enumerate() {
                    match step {
                        Step::Receive(length) => direction.receive(now, at as u64, *length),
                        Step::Change(change) => {
                            direction.set(now, change.apply(direction.condition()));
                        }
                        Step::Wait(microseconds) => {
                            now += Duration::from_micros(*microseconds);
                            seen.extend(arrivals(&mut direction, now));
                        }
                    }
                    assert!(is_balanced(&direction.counts()), "{:?}", direction.counts());
                    assert!(direction.next().is_none_or(|next| {
                        direction.counts().waiting.packets > 0 || next <= now
                    }));
                }
                direction.set(now, Condition { rate: None, ..direction.condition() });
                seen.extend(arrivals(&mut direction, now + Duration::from_secs(3600)));
                (seen, direction.counts())
            };
            let (seen, counts) = run();
            prop_assert_eq!(counts.waiting, Tally::default());
            prop_assert_eq!(counts.delivered.packets, seen.len() as u64);
            prop_assert!(seen.is_sorted_by_key(|(at, _)| *at));
            prop_assert_eq!((seen, counts), run());
        }

        #[test]
        fn without_reordering_packets_keep_their_order_under_any_jitter(
            jitter in 0_u64..200,
            gaps in prop::collection::vec(0_u64..50, 1..200),
        ) {
            let mut direction = direction(Condition {
                delay: ms(100), jitter: ms(jitter), ..Condition::default()
            });
            let mut now = Duration::ZERO;
            for (packet, gap) in gaps.iter().enumerate() {
                now += ms(*gap);
                direction.receive(now, packet as u64, 100);
            }
            let seen = arrivals(&mut direction, ms(1_000_000));
            prop_assert!(seen.iter().map(|(_, packet)| *packet).eq(0..gaps.len() as u64));
        }

        #[test]
        fn with_reordering_each_delay_is_within_its_jitter(
            (delay, jitter) in (0_u64..100, 0_u64..100),
        ) {
            let mut direction = direction(Condition {
                delay: ms(delay), jitter: ms(jitter), is_reordering: true, ..Condition::default()
            });
            for packet in 0..100 {
                direction.receive(ms(packet), packet, 100);
            }
            for (at, packet) in arrivals(&mut direction, ms(1_000_000)) {
                let took = at - ms(packet);
                prop_assert!(took >= ms(delay).saturating_sub(ms(jitter)));
                prop_assert!(took <= ms(delay + jitter));
            }
        }

        #[test]
        fn a_rate_is_never_exceeded_and_a_waiting_packet_never_idles_the_wire(
            kbit in 1_u64..10_000,
            lengths in prop::collection::vec(20_usize..1500, 1..100),
        ) {
            let mut direction = direction(Condition {
                rate: rate(kbit * 1000), queue: Queue::Bytes(1 << 20), ..Condition::default()
            });
            for (packet, length) in lengths.iter().enumerate() {
                direction.receive(Duration::ZERO, packet as u64, *length);
            }
            let mut bits = 0_u128;
            for (at, packet) in arrivals(&mut direction, Duration::from_secs(1 << 40)) {
                bits += lengths[packet as usize] as u128 * 8;
                let exact = bits * 1_000_000 / u128::from(kbit);
                // Each packet's time is rounded up to the next nanosecond.
                prop_assert!(at.as_nanos() >= exact);
                prop_assert!(at.as_nanos() <= exact + lengths.len() as u128);
            }
        }
    }
}
