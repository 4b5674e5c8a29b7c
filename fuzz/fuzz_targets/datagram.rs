//! Any datagrams from any addresses, with right and damaged connectivity checks among them, at a
//! shard with three connections: nothing fails, strangers are counted, and what is sent and told is
//! bounded by what came.

#![no_main]

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use aws_lc_rs::hmac;
use libfuzzer_sys::fuzz_target;
use sfu::{
    Codec, Command, ConnectionId, Event, Publication, Role, Shard, ShardConfig, TrackId, TrackKind,
};
use str0m::Rtc;
use str0m::ice::{StunMessage, TransId};
use str0m::media::{Direction, MediaKind};

const STEPS: usize = 60;

/// Milliseconds that pass in one step are fewer; several give up a silent client.
const WAIT: u64 = 15_000;

/// Datagrams that one that came, or a quarter of a second, may cause: a DTLS flight and its
/// repetitions, checks, answers.
const CAUSED: usize = 32;

#[derive(Arbitrary, Debug)]
enum Step {
    Bytes {
        from: u8,
        bytes: Vec<u8>,
    },
    /// A connectivity check with the right password, perhaps damaged on its way.
    Check {
        connection: u8,
        from: u8,
        nominates: bool,
        damage: Option<(u8, u8)>,
    },
    Wait {
        milliseconds: u16,
    },
}

/// What the clients of a publishing, a single and a viewing connection offer.
static OFFERS: LazyLock<[String; 3]> = LazyLock::new(|| {
    [
        Direction::SendOnly,
        Direction::SendRecv,
        Direction::RecvOnly,
    ]
    .map(|direction| {
        let mut rtc = Rtc::new(Instant::now());
        let mut api = rtc.sdp_api();
        let names = || Some("camera".to_owned());
        for kind in [MediaKind::Audio, MediaKind::Video] {
            api.add_media(kind, direction, names(), names(), None);
        }
        api.add_channel("_reliable".into());
        api.apply()
            .expect("there is something to offer")
            .0
            .to_sdp_string()
    })
});

fn attribute<'a>(sdp: &'a str, name: &str) -> &'a str {
    let find = |line: &'a str| {
        line.strip_prefix("a=")?
            .strip_prefix(name)?
            .strip_prefix(':')
    };
    sdp.lines().find_map(find).expect("a whole description")
}

fn check(to: (&str, &str), from: &str, nominates: bool) -> Vec<u8> {
    let name = format!("{}:{from}", to.0);
    let id = TransId::new();
    let message = StunMessage::binding_request(&name, id, true, 7, 1 << 30, nominates);
    let mut out = vec![0; 256];
    let sign = |key: &[u8], parts: &[&[u8]]| {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
        let tag = hmac::sign(&key, &parts.concat());
        tag.as_ref().try_into().expect("SHA-1 has 20 bytes")
    };
    let length = message
        .to_bytes(Some(to.1.as_bytes()), &mut out, sign)
        .expect("there is room");
    out.truncate(length);
    out
}

struct Stage {
    shard: Shard,
    now: Instant,
    server: SocketAddr,
    /// The user name and password of each connection.
    names: Vec<(String, String)>,
    sent: usize,
    told: usize,
    allowed: usize,
}

impl Stage {
    fn new() -> Stage {
        let now = Instant::now();
        let server = SocketAddr::from(([10, 0, 0, 1], 7882));
        let config = ShardConfig {
            candidates: vec![server],
        };
        let mut stage = Stage {
            shard: Shard::new(config, now),
            now,
            server,
            names: Vec::new(),
            sent: 0,
            told: 0,
            allowed: 0,
        };
        let roles = [Role::Publish, Role::Single, Role::View];
        for (at, (role, sdp)) in roles.into_iter().zip(&*OFFERS).enumerate() {
            stage.open(ConnectionId(at as u64), role, sdp);
        }
        stage
    }

    fn open(&mut self, connection: ConnectionId, role: Role, sdp: &str) {
        let publication = Publication {
            cid: "camera".into(),
            kind: TrackKind::Video,
            codecs: vec![Codec::Vp8],
            layers: Vec::new(),
            is_red_allowed: true,
            is_screen: false,
        };
        let commands = [
            Some(Command::Open { connection, role }),
            (connection.0 < 2).then(|| Command::Publish {
                connection,
                track: TrackId(connection.0),
                publication,
            }),
            Some(Command::Offer {
                connection,
                sdp: sdp.to_owned(),
            }),
        ];
        for command in commands.into_iter().flatten() {
            self.shard.command(self.now, command);
        }
        while let Some(event) = self.shard.poll_event() {
            if let Event::Answer { sdp, .. } = event {
                let name = attribute(&sdp, "ice-ufrag").to_owned();
                self.names
                    .push((name, attribute(&sdp, "ice-pwd").to_owned()));
            }
        }
        assert_eq!(self.names.len() as u64, connection.0 + 1, "it was answered");
    }

    fn receive(&mut self, from: u8, bytes: &[u8]) {
        let source = SocketAddr::from(([10, 0, 1, from % 12], 5000));
        let before = self.shard.totals();
        self.shard.receive(self.now, source, self.server, bytes);
        let after = self.shard.totals();
        assert_eq!(after.datagrams_in, before.datagrams_in + 1);
        assert_eq!(after.bytes_in, before.bytes_in + bytes.len() as u64);
        if from % 12 == 0 {
            assert_eq!(after.strangers, before.strangers + 1, "of nobody known");
        }
        self.taken();
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while self.shard.deadline() <= end {
            self.now = self.now.max(self.shard.deadline());
            self.shard.advance(self.now);
            assert!(self.shard.deadline() > self.now, "time goes on");
            self.taken();
        }
        self.now = end;
        self.allowed += CAUSED * (time.as_millis() / 250) as usize;
    }

    /// Takes everything that the shard gives.
    fn taken(&mut self) {
        self.allowed += CAUSED;
        self.shard.flush(|_, burst| self.sent += burst.datagrams());
        while self.shard.poll_event().is_some() {
            self.told += 1;
        }
        let totals = self.shard.totals();
        assert_eq!(totals.failures, 0);
        assert!(totals.connections <= 3 && totals.tracks <= 2);
        assert!(self.sent <= self.allowed, "{} datagrams", self.sent);
        assert!(self.told <= self.allowed, "{} events", self.told);
    }
}

fuzz_target!(|steps: Vec<Step>| {
    let mut stage = Stage::new();
    for step in steps.into_iter().take(STEPS) {
        match step {
            Step::Bytes { from, bytes } => stage.receive(from, &bytes),
            Step::Check {
                connection,
                from,
                nominates,
                damage,
            } => {
                let at = usize::from(connection) % stage.names.len();
                let (name, password) = &stage.names[at];
                let client = attribute(&OFFERS[at], "ice-ufrag");
                let mut bytes = check((name, password), client, nominates);
                if let Some((at, bits)) = damage {
                    let at = usize::from(at) % bytes.len();
                    bytes[at] ^= bits;
                }
                // Address 0 stays a stranger's.
                stage.receive(from % 11 + 1, &bytes);
            }
            Step::Wait { milliseconds } => {
                stage.wait(Duration::from_millis(u64::from(milliseconds) % WAIT));
            }
        }
    }
});
