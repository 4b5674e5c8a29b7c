//! A subscriber's stream with everything that can happen to it, and the subscriber who checks what
//! leaves: for the property test of [`super`] and the fuzz target `egress`.

use std::collections::{HashMap, HashSet};

use super::*;
use crate::command::TrackId;
use crate::rewrite::{Rewrite, Source};
use crate::srtp::Profile;
use crate::track::plain_packet;

const SSRC: u32 = 0x1000_0001;
const RTX: u32 = 0x2000_0002;

/// What happens to a subscriber's stream.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// The source's next packets come, after a few that are lost.
    Packets {
        lost: u8,
        count: u8,
        size: u16,
    },
    /// An older packet comes, perhaps once more.
    Late {
        behind: u8,
    },
    /// Another source is followed from its next packet on.
    Switch {
        jump: u16,
    },
    /// What waits is sealed.
    Flush,
    /// The subscriber misses these, counted back from the last one.
    Nack {
        behind: Vec<u8>,
    },
    Report,
    /// The m-line becomes another stream.
    Renew,
    Wait {
        milliseconds: u16,
    },
}

pub(crate) struct Stage {
    outlet: Outlet,
    /// The subscriber's side of the same keys.
    keys: Keys,
    bursts: Bursts,
    rewrite: Rewrite,
    random: rand::rngs::StdRng,
    now: Instant,
    next: u64,
    track: u64,
    packets: HashMap<(u64, u64), Arc<Packet>>,
    ssrc: u32,
    last: u16,
    /// Everything that left, by SSRC and index.
    seen: HashSet<(u32, u64)>,
    rtcp_seen: HashSet<u32>,
    highest: HashMap<u32, u64>,
    transport: Option<u16>,
    pub(super) repaired: usize,
}

fn agreed() -> Agreed {
    Agreed {
        extensions: ExtensionIds {
            mid: Some(1),
            transport: Some(3),
            ..ExtensionIds::default()
        },
        repair_types: vec![(96, 97)],
        ..Agreed::default()
    }
}

impl Stage {
    pub(crate) fn new(first: u64) -> Stage {
        let profile = Profile::AeadAes128Gcm;
        let material: Vec<u8> = (0..profile.material_length() as u8).collect();
        let now = Instant::now();
        let source = "10.0.0.1:1".parse().unwrap();
        let mut outlet = Outlet {
            path: Some((source, "10.0.0.2:2".parse().unwrap(), now)),
            ..Outlet::new(now)
        };
        outlet.set_keys(Keys::new(profile, &material, false).unwrap());
        outlet.adopt("0".into(), SSRC, Some(RTX), agreed());
        let mut stage = Stage {
            outlet,
            keys: Keys::new(profile, &material, false).unwrap(),
            // Small, so that it is often full, and quickly made.
            bursts: Bursts {
                bursts: vec![(source, Burst::new(4 * LONGEST, BURST_MESSAGES))],
            },
            rewrite: Rewrite::new(90_000),
            random: rand::SeedableRng::seed_from_u64(first),
            now,
            next: first,
            track: 0,
            packets: HashMap::new(),
            ssrc: SSRC,
            last: 0,
            seen: HashSet::new(),
            rtcp_seen: HashSet::new(),
            highest: HashMap::new(),
            transport: None,
            repaired: 0,
        };
        stage.switch(0);
        stage
    }

    fn switch(&mut self, jump: u16) {
        self.track += 1;
        self.next += u64::from(jump);
        let packet = self.make(64);
        let source = Source {
            track: TrackId(self.track),
            layer: 0,
        };
        self.rewrite.switch(source, &packet, None, &mut self.random);
        self.push(&packet);
    }

    fn make(&mut self, size: u16) -> Arc<Packet> {
        let packet = Arc::new(plain_packet(self.next, size, self.now));
        self.packets.insert((self.track, self.next), packet.clone());
        self.next += 1;
        packet
    }

    fn push(&mut self, packet: &Arc<Packet>) {
        if let Some(numbers) = self.rewrite.number(packet) {
            self.last = numbers.sequence as u16;
            let to = Outgoing {
                connection: ConnectionId(1),
                mid: "0".into(),
                payload_type: 96.into(),
                unwrap_red: false,
                marker: packet.marker,
                numbers,
            };
            self.outlet.push(packet, &to);
        }
    }

    pub(crate) fn play(&mut self, step: Step) {
        let mut transmits = VecDeque::new();
        match step {
            Step::Packets { lost, count, size } => {
                self.next += u64::from(lost);
                for _ in 0..count {
                    let packet = self.make(size);
                    self.push(&packet);
                }
            }
            Step::Late { behind } => {
                let at = (self.track, self.next.saturating_sub(u64::from(behind)));
                if let Some(packet) = self.packets.get(&at).cloned() {
                    self.push(&packet);
                }
            }
            Step::Switch { jump } => self.switch(jump),
            Step::Flush => self.flush(),
            Step::Nack { behind } => {
                self.flush();
                let last = self.last;
                let asked = behind
                    .iter()
                    .map(|back| last.wrapping_sub(u16::from(*back)));
                let (rewrite, packets) = (&self.rewrite, &self.packets);
                let find = |sequence| {
                    let (deltas, source) = rewrite.source_of(sequence)?;
                    let packet = packets.get(&(deltas.source.track.0, source))?.clone();
                    Some(Sent {
                        numbers: deltas.numbers(&packet)?,
                        payload_type: 96.into(),
                        marker: packet.marker,
                        packet,
                    })
                };
                self.outlet
                    .repair(self.now, self.ssrc, asked, find, &mut transmits);
                self.repaired += transmits.len();
            }
            Step::Report => {
                let ntp = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
                self.outlet
                    .report(self.now, "0".into(), ntp, 5, &mut transmits);
            }
            Step::Renew => {
                self.flush();
                self.ssrc += 1;
                let rtx = self.ssrc | 0x4000_0000;
                self.outlet.renew("0".into(), self.ssrc, rtx);
                self.outlet
                    .adopt("0".into(), self.ssrc, Some(rtx), agreed());
                self.rewrite = Rewrite::new(90_000);
                self.switch(0);
                self.outlet.say_goodbye(&mut transmits);
            }
            Step::Wait { milliseconds } => {
                self.now += Duration::from_millis(u64::from(milliseconds));
            }
        }
        for transmit in transmits {
            self.leaves(&transmit.contents);
        }
    }

    fn flush(&mut self) {
        let mut sent = Vec::new();
        let mut take = |_, burst: &mut Burst| {
            for message in burst.messages() {
                let contents = &burst.arena()[message.range()];
                sent.extend(
                    contents
                        .chunks(message.segment_size().max(1))
                        .map(<[u8]>::to_vec),
                );
            }
        };
        self.outlet
            .seal_pending(self.now, &mut self.bursts, &mut take);
        self.bursts.flush(&mut take);
        for datagram in sent {
            self.leaves(&datagram);
        }
    }

    /// Checks a datagram as the subscriber would, and that its index is new.
    fn leaves(&mut self, datagram: &[u8]) {
        if matches!(datagram[1], 192..=223) {
            let word = datagram[datagram.len() - 4..].try_into().unwrap();
            let index = u32::from_be_bytes(word);
            assert!(self.rtcp_seen.insert(index), "SRTCP index {index} again");
            return;
        }
        let low = u16::from_be_bytes([datagram[2], datagram[3]]);
        let ssrc = u32::from_be_bytes(datagram[8..12].try_into().unwrap());
        let words = u16::from_be_bytes([datagram[14], datagram[15]]);
        let header = 16 + 4 * usize::from(words);
        // The index that a receiver estimates (RFC 3711 §3.3.1).
        let highest = *self.highest.get(&ssrc).unwrap_or(&u64::from(low));
        let ahead = low.wrapping_sub(highest as u16) as i16;
        let index = highest.checked_add_signed(i64::from(ahead)).unwrap();
        self.highest.insert(ssrc, highest.max(index));
        assert!(self.seen.insert((ssrc, index)), "{ssrc:x}: {index} again");
        let roll_over = (index >> 16) as u32;
        let opened = self.keys.sealer.unseal(header, roll_over, datagram);
        let opened = opened.expect("the subscriber can open it");
        let payload = if ssrc == RTX || ssrc & 0x4000_0000 != 0 {
            &opened[2..]
        } else {
            &opened[..]
        };
        assert!(
            payload.iter().all(|byte| *byte == payload[0]),
            "one packet's bytes"
        );
        let transport = elements(&datagram[16..header]);
        if let Some(before) = self.transport {
            assert_eq!(transport, before.wrapping_add(1), "transport-wide number");
        }
        self.transport = Some(transport);
    }
}

/// The transport-wide number among one-byte elements.
fn elements(mut rest: &[u8]) -> u16 {
    while let [head, tail @ ..] = rest {
        if *head == 0 {
            rest = tail;
            continue;
        }
        let (id, length) = (head >> 4, usize::from(head & 15) + 1);
        if id == 3 {
            return u16::from_be_bytes([tail[0], tail[1]]);
        }
        rest = &tail[length..];
    }
    panic!("there is no transport-wide number")
}
