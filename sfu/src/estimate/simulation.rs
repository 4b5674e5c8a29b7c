//! The estimate on simulated lines, beside str0m's own on the same lines.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use str0m::bwe::{Bitrate, BweKind};
use str0m::change::SdpAnswer;
use str0m::media::{Direction, MediaKind};
use str0m::net::{DatagramRecv, Protocol, Receive};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};

use super::{Budget, Estimate, OVERHEAD, arrivals};
use crate::line::{Line, Way};

const MILLISECOND: Duration = Duration::from_millis(1);
const FRAME: u32 = 33;
/// How often the receiver tells what came, in milliseconds; browsers take 50 to 250.
const FEEDBACK: u32 = 100;
const PAYLOAD: usize = 1100;
/// What an encoder makes at most.
const WANTED: f64 = 4e6;

#[derive(Debug)]
struct Outcome {
    /// Of what the line could have carried of what is wanted, from a moment on.
    used: f64,
    mean_wait: f64,
    /// Of twenty packets one waits longer, in milliseconds.
    long_wait: f64,
    /// The estimate each second.
    estimates: Vec<f64>,
}

impl Outcome {
    fn kilobits(&self) -> Vec<f64> {
        self.estimates.iter().map(|one| one / 1000.0).collect()
    }

    fn of(way: &Way, media: &[(f64, usize)], from: f64, to: f64, estimates: Vec<f64>) -> Outcome {
        let bits: f64 = media
            .iter()
            .filter(|(at, _)| (from..to).contains(at))
            .map(|(_, bytes)| *bytes as f64 * 8.0)
            .sum();
        let steps = ((to - from) * 100.0) as usize;
        let could: f64 = (0..steps)
            .map(|at| way.line.rate(from + at as f64 / 100.0).min(WANTED) / 100.0)
            .sum();
        let (mean_wait, long_wait) = way.waited(from);
        Outcome {
            used: bits / could / (1.0 - way.line.loss),
            mean_wait,
            long_wait,
            estimates,
        }
    }
}

fn bits(estimate: &Estimate, now: Instant) -> f64 {
    match estimate.budget(now) {
        Budget::Bits(rate) => rate as f64,
        Budget::Unknown => 500_000.0,
        Budget::Unlimited => WANTED,
    }
}

/// A sender that follows our estimate at once, frame by frame.
fn ours(line: &Line, seconds: u32, from: f64) -> Outcome {
    let begin = Instant::now();
    let mut estimate = Estimate::new(begin);
    let mut way = Way::new(line.clone(), 7);
    let mut sequence = 65_000_u16;
    let mut flights: VecDeque<(u16, f64)> = VecDeque::new();
    let mut came: Vec<(u16, i64)> = Vec::new();
    let mut told = sequence;
    let mut feedback: VecDeque<(f64, Vec<u8>)> = VecDeque::new();
    let mut media = Vec::new();
    let mut estimates = Vec::new();
    let mut rest = 0.0;
    for tick in 0..seconds * 1000 {
        let now = begin + MILLISECOND * tick;
        let at = f64::from(tick) / 1000.0;
        let mut send = |estimate: &mut Estimate, bytes: usize, is_media: bool| {
            estimate.sent(now, Some(sequence), bytes);
            if let Some(arrives) = way.carry(at, bytes) {
                flights.push_back((sequence, arrives));
                if is_media {
                    media.push((arrives, bytes + OVERHEAD));
                }
            }
            sequence = sequence.wrapping_add(1);
        };
        if tick % FRAME == 0 {
            let rate = bits(&estimate, now);
            rest += rate.min(WANTED) * f64::from(FRAME) / 8000.0;
            while rest > 0.0 {
                send(&mut estimate, PAYLOAD, true);
                rest -= (PAYLOAD + OVERHEAD) as f64;
            }
        }
        if tick % 5 == 0 {
            while estimate.padding(now) > 0 {
                send(&mut estimate, 280, false);
            }
        }
        while flights.front().is_some_and(|(_, arrives)| *arrives <= at) {
            let (sequence, arrives) = flights.pop_front().unwrap();
            came.push((sequence, (arrives * 1e6) as i64 / 250 * 250 + 999_000_000));
        }
        if tick % FEEDBACK == 0
            && let Some((newest, _)) = came.last()
        {
            let count = newest.wrapping_sub(told).wrapping_add(1);
            let mut arrivals = vec![None; usize::from(count)];
            for (sequence, arrived) in &came {
                arrivals[usize::from(sequence.wrapping_sub(told))] = Some(*arrived);
            }
            let body = arrivals::write(told, &arrivals);
            told = newest.wrapping_add(1);
            came.clear();
            feedback.push_back((at + line.delay_milliseconds / 1000.0, body));
        }
        while feedback.front().is_some_and(|(due, _)| *due <= at) {
            let (_, body) = feedback.pop_front().unwrap();
            estimate.arrivals(now, &body);
        }
        if tick % 250 == 0 {
            estimate.advance(now);
        }
        if tick % 50 == 0 {
            estimate.probe(now, WANTED as u64);
        }
        if tick % 1000 == 0 {
            estimates.push(bits(&estimate, now));
        }
    }
    Outcome::of(&way, &media, from, f64::from(seconds), estimates)
}

/// Two ends of str0m, of which the first sends over the line and the second reports over another
/// that only delays.
struct Pair {
    ends: Vec<Rtc>,
    deadlines: [Instant; 2],
    way: Way,
    /// When they arrive, at which end.
    flights: Vec<(f64, usize, Vec<u8>)>,
    rate: f64,
    media: Vec<(f64, usize)>,
    is_connected: bool,
}

impl Pair {
    /// Takes everything out of an end until it only waits.
    fn drain(&mut self, end: usize, at: f64) {
        loop {
            match self.ends[end].poll_output().unwrap() {
                Output::Timeout(deadline) => {
                    self.deadlines[end] = deadline;
                    return;
                }
                Output::Transmit(transmit) => self.fly(1 - end, at, transmit.contents.to_vec()),
                Output::Event(Event::EgressBitrateEstimate(BweKind::Twcc { estimate, .. })) => {
                    self.rate = estimate.as_f64();
                }
                Output::Event(Event::RtpPacket(packet)) if packet.payload.len() > 100 => {
                    let bytes = packet.payload.len() + 40 + OVERHEAD;
                    self.media.push((at, bytes));
                }
                Output::Event(_) => {}
            }
        }
    }

    fn fly(&mut self, to: usize, at: f64, bytes: Vec<u8>) {
        let arrives = if to == 1 && self.is_connected {
            self.way.carry(at, bytes.len())
        } else {
            Some(at + self.way.line.delay_milliseconds / 1000.0)
        };
        self.flights
            .extend(arrives.map(|arrives| (arrives, to, bytes)));
    }

    /// What has arrived, in its order.
    fn due(&mut self, at: f64) -> Vec<(f64, usize, Vec<u8>)> {
        let is_connected = self.is_connected;
        let mut due = Vec::new();
        self.flights.retain(|one| {
            let is_due = one.0 <= at || !is_connected;
            if is_due {
                due.push(one.clone());
            }
            !is_due
        });
        due.sort_by(|one, other| one.0.total_cmp(&other.0));
        due
    }
}

/// The same with str0m's estimate and pacer.
fn theirs(line: &Line, seconds: u32, from: f64) -> Outcome {
    let begin = Instant::now();
    let addresses = ["10.0.0.1:5000", "10.0.0.2:5000"].map(|one| one.parse().unwrap());
    let mut ends: Vec<Rtc> = (0..2)
        .map(|at| {
            let mut rtc = RtcConfig::new()
                .set_rtp_mode(true)
                .enable_bwe((at == 0).then(|| Bitrate::kbps(500)))
                .build(begin);
            rtc.add_local_candidate(Candidate::host(addresses[at], "udp").unwrap());
            rtc
        })
        .collect();
    let mut api = ends[0].sdp_api();
    let mid = api.add_media(MediaKind::Video, Direction::SendOnly, None, None, None);
    let (offer, pending) = api.apply().unwrap();
    let answer: SdpAnswer = ends[1].sdp_api().accept_offer(offer).unwrap();
    ends[0].sdp_api().accept_answer(pending, answer).unwrap();
    ends[0]
        .bwe()
        .set_bitrate(Bitrate::ZERO, Bitrate::from(WANTED as u64));
    let mut pair = Pair {
        ends,
        deadlines: [begin; 2],
        way: Way::new(line.clone(), 7),
        flights: Vec::new(),
        rate: 500_000.0,
        media: Vec::new(),
        is_connected: false,
    };
    let (mut rest, mut sequence) = (0.0, 1_u64);
    let mut estimates = Vec::new();
    // Connecting takes no time of the comparison.
    let mut connected = 0;
    for tick in 0.. {
        let now = begin + MILLISECOND * tick;
        let since = if pair.is_connected {
            tick - connected
        } else {
            0
        };
        let at = f64::from(since) / 1000.0;
        if since >= seconds * 1000 {
            break;
        }
        if pair.is_connected && since % FRAME == 0 {
            let mut is_written = false;
            rest += f64::min(pair.rate, WANTED) * f64::from(FRAME) / 8000.0;
            while rest > 0.0 {
                let pt = pair.ends[0].media(mid).unwrap().remote_pts()[0];
                let mut direct = pair.ends[0].direct_api();
                let stream = direct.stream_tx_by_mid(mid, None).unwrap();
                let mut payload = vec![0x10, 0];
                payload.resize(PAYLOAD - 40, 1);
                let write = RtpWrite::new(pt, sequence.into(), since * 90, now, payload);
                stream.write_rtp(write);
                sequence += 1;
                rest -= (PAYLOAD + OVERHEAD) as f64;
                pair.drain(0, at);
                // The pacer is asked at once.
                is_written = true;
            }
            if is_written {
                pair.deadlines[0] = now;
            }
        }
        for end in 0..2 {
            if pair.deadlines[end] <= now {
                pair.ends[end].handle_input(Input::Timeout(now)).unwrap();
                pair.drain(end, at);
            }
        }
        for (_, end, bytes) in pair.due(at) {
            let receive = Receive {
                proto: Protocol::Udp,
                source: addresses[1 - end],
                destination: addresses[end],
                contents: DatagramRecv::try_from(&bytes[..]).unwrap(),
            };
            pair.ends[end]
                .handle_input(Input::Receive(now, receive))
                .unwrap();
            pair.drain(end, at);
        }
        if !pair.is_connected && pair.ends.iter().all(Rtc::is_connected) {
            (pair.is_connected, connected) = (true, tick);
        }
        if pair.is_connected && since % 1000 == 0 {
            estimates.push(pair.rate);
        }
        assert!(tick < seconds * 1000 + 5000, "never connected");
    }
    Outcome::of(&pair.way, &pair.media, from, f64::from(seconds), estimates)
}

fn lines() -> Vec<(&'static str, Line)> {
    let steady = Line::steady;
    let stepped = Line {
        rates: vec![(0.0, 3e6), (20.0, 3e5), (40.0, 3e6)],
        ..steady(0.0)
    };
    let lossy = |loss| Line {
        loss,
        ..steady(2e6)
    };
    vec![
        ("300 kbit/s", steady(3e5)),
        ("1 Mbit/s", steady(1e6)),
        ("3 Mbit/s", steady(3e6)),
        ("3 Mbit/s, 300 kbit/s, 3 Mbit/s", stepped),
        ("2 Mbit/s, 2 % loss", lossy(0.02)),
        ("2 Mbit/s, 5 % loss", lossy(0.05)),
        ("2 Mbit/s, 15 % loss", lossy(0.15)),
        ("2 Mbit/s, 30 % loss", lossy(0.3)),
        (
            "2 Mbit/s, 20 ms jitter",
            Line {
                jitter: 20.0,
                ..steady(2e6)
            },
        ),
        (
            "2 Mbit/s, 300 ms round trip",
            Line {
                delay_milliseconds: 150.0,
                ..steady(2e6)
            },
        ),
        (
            "3 Mbit/s, another flow of 1.5 from 20 to 40 s",
            Line {
                other: Some((20.0, 40.0, 1.5e6)),
                ..steady(3e6)
            },
        ),
    ]
}

/// Both on every line, for the table of docs/performance.md: `cargo test -p sfu --lib compared --
/// --nocapture`.
#[test]
fn compared() {
    for (name, line) in lines() {
        let (ours, theirs) = (ours(&line, 60, 5.0), theirs(&line, 60, 5.0));
        for (whose, one) in [("ours", &ours), ("str0m", &theirs)] {
            println!(
                "| {name} | {whose} | {:.0} % | {:.0} | {:.0} |",
                100.0 * one.used,
                one.mean_wait,
                one.long_wait
            );
        }
        println!("{:.0?}", ours.kilobits());
        // A hundredth more of the line is not worth the queue that it takes.
        assert!(
            ours.used > theirs.used - 0.015,
            "{name}: {ours:?} {theirs:?}"
        );
        // Who leaves a part of a line unused has less of a queue; so short a one is nobody's harm.
        let bound = (1.2 * theirs.long_wait).max(120.0);
        assert!(ours.long_wait < bound, "{name}: {ours:?} {theirs:?}");
    }
}

/// Whatever a line loses by itself, it is soon known to, and what is sent does not go up and down with
/// the dice.
#[test]
fn a_line_that_loses_at_any_rate_is_used_steadily() {
    for percent in (6..=36).step_by(2) {
        let line = Line {
            loss: f64::from(percent) / 100.0,
            ..Line::steady(50e6)
        };
        let one = ours(&line, 40, 10.0);
        let least = one.estimates[10..].iter().copied().fold(WANTED, f64::min);
        assert!(least > 0.9 * WANTED, "{percent} %: {:.0?}", one.kilobits());
    }
}
