//! The single steps of a packet's way, for `../../benches/hot.rs`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use crate::command::{Quality, TrackId, TrackKind};
use crate::header::{self, Element, Header};
use crate::rewrite::{Rewrite, Source};
use crate::rtcp::{self, SenderReport};
use crate::srtp::{Keys, Profile};
use crate::track::{LayerState, Packet, plain_packet};

/// How often a step is taken in one call, so that the call itself costs nothing.
pub const AT_ONCE: u64 = 100;

/// Reports that are opened before they come again, under a window that has not seen them.
const REPORTS: usize = 10_000;

const PROFILES: [(Profile, &str); 3] = [
    (Profile::Aes128CmHmacSha1_80, "AES128_CM_SHA1_80"),
    (Profile::AeadAes128Gcm, "AEAD_AES_128_GCM"),
    (Profile::AeadAes256Gcm, "AEAD_AES_256_GCM"),
];

/// Each step's name, and what takes it [`AT_ONCE`] times.
pub fn steps() -> Vec<(String, Box<dyn FnMut()>)> {
    let mut all: Vec<(String, Box<dyn FnMut()>)> = vec![
        ("header".into(), header()),
        ("remember".into(), remember()),
        ("find".into(), find()),
        ("number".into(), number()),
        ("find the source of a number".into(), source_of()),
    ];
    for (profile, name) in PROFILES {
        for (size, what) in [(1200, "picture"), (120, "sound")] {
            all.push((format!("seal {what}, {name}"), seal(profile, size)));
        }
        all.push((format!("open a report, {name}"), open(profile)));
    }
    all
}

fn times(mut step: impl FnMut(u64) + 'static) -> Box<dyn FnMut()> {
    let mut next = 0;
    Box::new(move || {
        for _ in 0..AT_ONCE {
            next += 1;
            step(next);
        }
    })
}

fn keys(profile: Profile, is_client: bool) -> Keys {
    let material: Vec<u8> = (0..profile.material_length() as u8).collect();
    Keys::new(profile, &material, is_client).expect("the material has its length")
}

fn fields(sequence: u64) -> Header {
    Header {
        marker: false,
        payload_type: 96,
        sequence: sequence as u16,
        timestamp: 90 * sequence as u32,
        ssrc: 0x1000_0001,
    }
}

/// A header with what most have: the transport-wide number and the orientation.
fn header() -> Box<dyn FnMut()> {
    let mut room = [0; 64];
    times(move |sequence| {
        let transport = (sequence as u16).to_be_bytes();
        let elements = [
            Element {
                id: 3,
                value: &transport,
            },
            Element {
                id: 13,
                value: &[0],
            },
        ];
        black_box(header::write(&mut room, &fields(sequence), &elements, true));
    })
}

fn seal(profile: Profile, size: usize) -> Box<dyn FnMut()> {
    let sealer = keys(profile, false).sealer;
    let mut room = vec![0; 20 + size + sealer.tag_length()];
    let begin = header::write(&mut room, &fields(0), &[], true).expect("there is room");
    times(move |sequence| {
        room[2..4].copy_from_slice(&(sequence as u16).to_be_bytes());
        sealer.seal(begin, (sequence >> 16) as u32, black_box(&mut room));
    })
}

/// A subscriber's report with its names, sealed as it came.
fn open(profile: Profile) -> Box<dyn FnMut()> {
    let mut theirs = keys(profile, true).sealer;
    let report = SenderReport {
        ssrc: 7,
        ntp: 1 << 40,
        timestamp: 9,
        packets: 3,
        octets: 300,
    };
    let sealed: Vec<Vec<u8>> = (0..REPORTS)
        .map(|_| {
            let mut one = Vec::new();
            rtcp::write_report(&mut one, &report, "PA_abcdefghijkl");
            assert!(theirs.seal_report(&mut one), "the key is fresh");
            one
        })
        .collect();
    let mut ours = keys(profile, false).opener;
    let mut room = Vec::with_capacity(256);
    times(move |next| {
        let at = next as usize % REPORTS;
        if at == 0 {
            ours = keys(profile, false).opener;
        }
        room.clear();
        room.extend_from_slice(&sealed[at]);
        assert!(ours.open(black_box(&mut room)).is_ok(), "it is new");
    })
}

/// So many packets of a source, one after another.
fn packets() -> Vec<Arc<Packet>> {
    let now = Instant::now();
    (0..1024)
        .map(|sequence| Arc::new(plain_packet(sequence, 1200, now)))
        .collect()
}

fn layer() -> LayerState {
    LayerState::new(Quality::High, None, TrackKind::Video)
}

fn remember() -> Box<dyn FnMut()> {
    let (mut layer, packets) = (layer(), packets());
    times(move |next| {
        let packet = &packets[next as usize % packets.len()];
        layer.recent.remember(black_box(packet));
    })
}

fn find() -> Box<dyn FnMut()> {
    let (mut layer, packets) = (layer(), packets());
    for packet in &packets {
        layer.recent.remember(packet);
    }
    times(move |next| {
        let sequence = packets.len() as u64 - 1 - next % 256;
        assert!(black_box(layer.recent.get(sequence)).is_some());
    })
}

fn following(packets: &[Arc<Packet>]) -> Rewrite {
    let mut rewrite = Rewrite::new(90_000);
    let source = Source {
        track: TrackId(1),
        layer: 0,
    };
    rewrite.switch(source, &packets[0], None, &mut rand::rng());
    rewrite
}

fn number() -> Box<dyn FnMut()> {
    let packets = packets();
    let mut rewrite = following(&packets);
    times(move |next| {
        let packet = &packets[next as usize % packets.len()];
        black_box(rewrite.number(black_box(packet)));
    })
}

fn source_of() -> Box<dyn FnMut()> {
    let packets = packets();
    let mut rewrite = following(&packets);
    let numbers = packets.iter().filter_map(|packet| rewrite.number(packet));
    let last = numbers.last().expect("all are numbered").sequence;
    times(move |next| {
        let sequence = (last - next % 256) as u16;
        assert!(black_box(rewrite.source_of(sequence)).is_some());
    })
}
