//! Session descriptions on their whole way: the checks of the room, and the media core's engine.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Instant;

use arbitrary::Result;
use sfu::{
    Codec, Command, ConnectionId, Event, Publication, Quality, Role, Selection, Shard, ShardConfig,
    TrackId, TrackKind,
};

use crate::room::{Announced, check_sdp, name_tracks, open_bundle_only};

/// Descriptions of one input at most, one after another on the same connection.
const DESCRIPTIONS: usize = 3;

/// The line between two descriptions.
const BETWEEN: &str = "====\n";

/// Lasts for many inputs, each of which has a connection of its own.
struct Home {
    shard: Shard,
    now: Instant,
    next: u64,
}

thread_local! {
    static HOME: RefCell<Option<Home>> = const { RefCell::new(None) };
}

/// Reads the bytes as descriptions of a client, whose kind the first byte tells: offers, or answers
/// in which `@0` is the first mid of our offer, `@1` the second.
///
/// # Errors
/// The input has ended.
pub fn descriptions(data: &[u8]) -> Result<()> {
    let [kind, text @ ..] = data else {
        return Err(arbitrary::Error::NotEnoughData);
    };
    let text = String::from_utf8_lossy(text);
    let role = [Role::Publish, Role::Single, Role::View, Role::Subscribe][usize::from(*kind % 4)];
    HOME.with_borrow_mut(|home| {
        let home = home.get_or_insert_with(|| {
            let now = Instant::now();
            let config = ShardConfig {
                candidates: vec![([127, 0, 0, 1], 7882).into()],
            };
            Home {
                shard: Shard::new(config, now),
                now,
                next: 0,
            }
        });
        #[cfg(fuzzing)]
        sfu::fuzzing::without_handshake(true);
        home.play(role, &text);
        #[cfg(fuzzing)]
        sfu::fuzzing::without_handshake(false);
    });
    Ok(())
}

impl Home {
    fn play(&mut self, role: Role, text: &str) {
        let connection = ConnectionId(self.next);
        let other = ConnectionId(self.next + 1);
        self.next += 10;
        self.command(Command::Open {
            connection,
            role,
            takes_rsa: false,
        });
        let publisher = if role == Role::Subscribe {
            self.command(Command::Open {
                connection: other,
                role: Role::Publish,
                takes_rsa: false,
            });
            other
        } else {
            connection
        };
        let tracks = [("camera", TrackKind::Video), ("mic", TrackKind::Audio)];
        for (at, (cid, kind)) in tracks.into_iter().enumerate() {
            let track = TrackId(connection.0 + at as u64);
            self.command(Command::Publish {
                connection: publisher,
                track,
                publication: Publication {
                    cid: cid.into(),
                    kind,
                    codecs: vec![Codec::Vp9, Codec::H264],
                    backup: None,
                    layers: Vec::new(),
                    is_red_allowed: true,
                    is_screen: false,
                },
            });
            if role == Role::Subscribe {
                self.command(Command::Subscribe {
                    connection,
                    track,
                    stream_name: "PA|camera".into(),
                    track_name: format!("TR_{at}"),
                    selection: Selection::of(Quality::High),
                });
            }
        }
        let mut aliases = HashMap::new();
        let mut offered = self.offer();
        for text in text.split(BETWEEN).take(DESCRIPTIONS) {
            if role == Role::Subscribe {
                let Some(offer) = offered.take() else {
                    break;
                };
                let mut text = text.to_owned();
                let mids = offer.lines().filter_map(|line| line.strip_prefix("a=mid:"));
                for (at, mid) in mids.enumerate().take(10) {
                    text = text.replace(&format!("@{at}"), mid);
                }
                if check_sdp(&text).is_err() {
                    break;
                }
                self.command(Command::Answer {
                    connection,
                    sdp: text,
                });
                offered = self.offer();
                continue;
            }
            let announced = tracks.map(|(cid, kind)| Announced {
                cid: cid.into(),
                is_video: kind == TrackKind::Video,
                is_live: false,
            });
            if check_sdp(text).is_err() {
                break;
            }
            let named = name_tracks(text, &announced, &mut aliases);
            assert_eq!(named.matches('\n').count(), text.matches('\n').count());
            let sdp = open_bundle_only(&named);
            let lines = m_lines(&sdp);
            self.command(Command::Offer { connection, sdp });
            let mut is_answered = false;
            while let Some(event) = self.shard.poll_event() {
                match event {
                    Event::Answer { sdp, .. } => {
                        is_answered = true;
                        assert_eq!(m_lines(&sdp), lines, "as many as were offered");
                        crate::whip::check_answer(&sdp, text);
                    }
                    Event::Refused { .. } => is_answered = true,
                    _ => {}
                }
            }
            assert!(is_answered, "answered or refused");
        }
        for connection in [connection, other] {
            self.command(Command::Close { connection });
        }
        self.offer();
        let totals = self.shard.totals();
        assert_eq!((totals.connections, totals.tracks), (0, 0));
    }

    fn command(&mut self, command: Command) {
        self.shard.command(self.now, command);
        self.shard.flush(|_, _| {});
        assert_eq!(self.shard.totals().failures, 0, "the engine goes on");
    }

    /// Our last offer.
    fn offer(&mut self) -> Option<String> {
        let mut last = None;
        while let Some(event) = self.shard.poll_event() {
            if let Event::Offer { sdp, .. } = event {
                last = Some(sdp);
            }
        }
        last
    }
}

fn m_lines(sdp: &str) -> usize {
    sdp.lines().filter(|line| line.starts_with("m=")).count()
}
