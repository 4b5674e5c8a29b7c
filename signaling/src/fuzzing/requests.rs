//! A room with four people of different kinds, whatever they say, and whatever the media core tells.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arbitrary::{Result, Unstructured};
use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use proto::{DisconnectReason, leave_request::Action};
use sfu::{Channel, Codec, Command, ConnectionId, Encoding, Event, LineReport, Quality, TrackId};

use crate::room::{
    Effect, Moment, Newcomer, Node, Refusal, Room, RoomSettings, SessionId, ViewPlace, Whom,
};
use crate::token::VideoGrant;

/// Steps that one input plays at most.
const STEPS: usize = 40;

const PEOPLE: usize = 4;

/// Messages and commands that one step may cause; everybody may be told something of everybody, and
/// of every track.
const CAUSED: usize = 2000;

const SERIAL: u32 = 7;

struct World {
    room: Room,
    now: Instant,
    sessions: Vec<SessionId>,
    /// Not told to close.
    open: BTreeSet<SessionId>,
    participant_sids: Vec<String>,
    track_sids: Vec<String>,
    connections: BTreeSet<ConnectionId>,
    tracks: BTreeSet<TrackId>,
    sent: BTreeSet<(ConnectionId, TrackId)>,
}

/// Plays what an input says in a room.
///
/// # Errors
/// The input has ended.
pub fn requests(data: &[u8]) -> Result<()> {
    let mut input = Unstructured::new(data);
    let mut world = World::new();
    let mut played = Ok(());
    for _ in 0..STEPS {
        if input.is_empty() || played.is_err() {
            break;
        }
        played = world.step(&mut input);
    }
    world.end();
    played
}

fn bytes<'a>(input: &mut Unstructured<'a>) -> Result<&'a [u8]> {
    let length: u16 = input.arbitrary()?;
    let length = usize::from(length % 4096).min(input.len());
    input.bytes(length)
}

impl World {
    fn new() -> World {
        let settings = RoomSettings {
            name: "room".into(),
            empty_timeout: Duration::from_secs(300),
            departure_timeout: Duration::from_secs(20),
            max_participants: 0,
            metadata: String::new(),
        };
        let now = Instant::now();
        let at = Moment {
            now,
            unix_ms: 1_000_000,
        };
        let mut world = World {
            room: Room::new(SERIAL, settings, Arc::new(Node::default()), 1, at),
            now,
            sessions: Vec::new(),
            open: BTreeSet::new(),
            participant_sids: Vec::new(),
            track_sids: Vec::new(),
            connections: BTreeSet::new(),
            tracks: BTreeSet::new(),
            sent: BTreeSet::new(),
        };
        for person in 0..PEOPLE {
            world.join(person, proto::JoinRequest::default());
        }
        world
    }

    fn at(&self) -> Moment {
        Moment {
            now: self.now,
            unix_ms: 1_000_000,
        }
    }

    /// The first is over one connection, the second over two, the third hidden and may only listen,
    /// the fourth a player.
    fn join(&mut self, person: usize, request: proto::JoinRequest) {
        let session = self.next_session();
        let grant = VideoGrant {
            hidden: person == 2,
            can_publish: Some(person != 2),
            can_update_own_metadata: Some(true),
            ..VideoGrant::default()
        };
        let view = || {
            let place = |mid: &str, is_video, whom| ViewPlace {
                mid: mid.into(),
                is_video,
                whom,
            };
            vec![
                place("0", true, Whom::Identity("p0".into())),
                place("1", false, Whom::Identity("p0".into())),
                place("2", true, Whom::Speaker),
                place("3", false, Whom::Speaker),
            ]
        };
        let newcomer = Newcomer {
            session,
            identity: format!("p{person}"),
            name: format!("P {person}"),
            metadata: request.metadata,
            attributes: request.participant_attributes,
            kind: 0,
            permission: grant.permission(),
            client_protocol: 1,
            capabilities: Vec::new(),
            is_single: person != 1,
            is_auto_subscribe: true,
            is_adaptive: false,
            add_tracks: request.add_track_requests,
            offer: request.publisher_offer,
            hears_others: person != 3,
            view: (person == 3).then(view),
            conference: None,
        };
        if person < self.sessions.len() {
            self.sessions[person] = session;
        } else {
            self.sessions.push(session);
        }
        self.open.insert(session);
        let at = self.at();
        self.room.join(newcomer, at);
        self.settle();
    }

    fn next_session(&self) -> SessionId {
        let last = self.sessions.iter().map(|session| session.0).max();
        SessionId(last.unwrap_or(0) + 1)
    }

    /// Takes what the room wants done, and holds it against what was wanted before.
    fn settle(&mut self) {
        let effects = self.room.take_effects();
        assert!(effects.len() <= CAUSED, "{} effects", effects.len());
        for effect in effects {
            match effect {
                Effect::Send { session, message } => {
                    assert!(self.open.contains(&session), "nobody else is told");
                    let message = proto::SignalResponse::decode(message).expect("our own message");
                    match message.message.expect("nothing empty is said") {
                        Response::Join(join) => {
                            let sid = join.participant.expect("who joins is told who it is").sid;
                            self.participant_sids.push(sid);
                        }
                        Response::TrackPublished(published) => {
                            let track = published.track.expect("what is published is told");
                            self.track_sids.push(track.sid);
                        }
                        _ => {}
                    }
                }
                Effect::Close { session, .. } => {
                    assert!(self.open.remove(&session), "closed once");
                }
                Effect::Media(command) => self.commanded(command),
                Effect::Tree(_) => {}
            }
        }
        assert!(self.room.participant_count() <= PEOPLE);
        assert!(self.room.track_count() <= self.tracks.len());
    }

    fn commanded(&mut self, command: Command) {
        match command {
            Command::Open { connection, .. } => {
                assert!(self.connections.insert(connection), "opened once");
            }
            Command::Close { connection } => {
                self.connections.remove(&connection);
                self.sent.retain(|(of, _)| *of != connection);
            }
            Command::Publish { track, .. } => {
                assert!(self.tracks.insert(track), "announced once");
            }
            Command::PublishBackup { track, .. } => {
                assert!(self.tracks.contains(&track), "a backup is a track's");
            }
            Command::Unpublish { track } => self.forget(track),
            Command::Subscribe {
                connection, track, ..
            } => {
                assert!(self.tracks.contains(&track), "only what is there is sent");
                assert!(self.sent.insert((connection, track)), "sent once");
            }
            Command::Unsubscribe { connection, track } => {
                self.sent.remove(&(connection, track));
            }
            _ => {}
        }
    }

    fn forget(&mut self, track: TrackId) {
        self.tracks.remove(&track);
        self.sent.retain(|(_, of)| *of != track);
    }

    fn say(&mut self, session: SessionId, request: Request) {
        let at = self.at();
        match self.room.handle(session, request, at) {
            Ok(()) | Err(Refusal::Stale) => {}
            Err(Refusal::Broken(reason)) => self.room.refuse(session, &reason, self.now),
        }
        self.settle();
    }

    fn event(&mut self, event: Event) {
        self.room.on_event(event, self.now);
        self.settle();
    }

    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let person = input.int_in_range(0..=PEOPLE - 1)?;
        let session = self.sessions[person];
        match input.int_in_range(0..=15_u8)? {
            // As the WebSocket takes it.
            0..=4 => match proto::SignalRequest::decode(bytes(input)?) {
                Ok(request) => {
                    if let Some(message) = request.message {
                        self.say(session, message);
                    }
                }
                Err(_) => {
                    self.room.refuse(session, "not a message", self.now);
                    self.settle();
                }
            },
            5 | 6 => self.speak_of_tracks(session, input)?,
            7 | 8 => {
                let connection = self.connection(input)?;
                let channel = if input.arbitrary()? {
                    Channel::Reliable
                } else {
                    Channel::Lossy
                };
                let payload = bytes(input)?.into();
                self.event(Event::Data {
                    connection,
                    channel,
                    payload,
                });
            }
            9..=12 => self.media_says(input)?,
            13 => {
                if let Ok(request) = proto::JoinRequest::decode(bytes(input)?) {
                    self.join(person, request);
                }
            }
            14 => {
                let index = input.int_in_range(0..=7_usize)?;
                if input.arbitrary()? {
                    self.room.session_lost(session, self.now);
                    self.open.remove(&session);
                    self.settle();
                } else if let Some(sid) = self.participant_sids.get(index).cloned() {
                    let next = self.next_session();
                    self.open.insert(next);
                    let at = self.at();
                    let identity = format!("p{person}");
                    if self.room.resume(&sid, &identity, next, at) {
                        self.sessions[person] = next;
                    } else {
                        self.open.remove(&next);
                    }
                    self.settle();
                }
            }
            _ => {
                self.now += Duration::from_millis(input.int_in_range(0..=30_000)?);
                self.room.tick(self.now);
                self.settle();
            }
        }
        Ok(())
    }

    fn track_sid(&self, input: &mut Unstructured<'_>) -> Result<String> {
        let index = input.int_in_range(0..=15_usize)?;
        let sid = self.track_sids.get(index).cloned();
        Ok(sid.unwrap_or_else(|| "TR_none".into()))
    }

    /// Messages that name what is there, which the fuzzer can't guess.
    fn speak_of_tracks(&mut self, session: SessionId, input: &mut Unstructured<'_>) -> Result<()> {
        let sid = self.track_sid(input)?;
        let request = match input.int_in_range(0..=6_u8)? {
            0 => Request::Mute(proto::MuteTrackRequest {
                sid,
                muted: input.arbitrary()?,
            }),
            1 => Request::Subscription(proto::UpdateSubscription {
                track_sids: vec![sid.clone(), sid],
                subscribe: input.arbitrary()?,
                participant_tracks: Vec::new(),
            }),
            2 => Request::TrackSetting(proto::UpdateTrackSettings {
                track_sids: vec![sid],
                disabled: input.arbitrary()?,
                quality: i32::from(input.arbitrary::<i8>()?),
                width: input.arbitrary()?,
                height: input.arbitrary()?,
                fps: input.arbitrary()?,
                priority: input.arbitrary()?,
            }),
            3 => Request::SubscriptionPermission(proto::SubscriptionPermission {
                all_participants: input.arbitrary()?,
                track_permissions: vec![proto::TrackPermission {
                    participant_identity: format!("p{}", input.int_in_range(0..=4_u8)?),
                    all_tracks: input.arbitrary()?,
                    track_sids: vec![sid],
                    participant_sid: String::new(),
                }],
            }),
            4 => Request::SyncState(proto::SyncState {
                track_sids_disabled: vec![sid.clone()],
                publish_tracks: vec![proto::TrackPublishedResponse {
                    cid: "camera".into(),
                    track: Some(proto::TrackInfo {
                        sid,
                        ..Default::default()
                    }),
                }],
                ..Default::default()
            }),
            5 => Request::UpdateVideoTrack(proto::UpdateLocalVideoTrack {
                track_sid: sid,
                width: input.arbitrary()?,
                height: input.arbitrary()?,
            }),
            _ => {
                let mut request = proto::AddTrackRequest {
                    cid: format!("camera{}", input.int_in_range(0..=9_u8)?),
                    r#type: i32::from(input.arbitrary::<bool>()?),
                    source: i32::from(input.int_in_range(0..=5_u8)?),
                    ..Default::default()
                };
                let codecs: &[&str] = if input.arbitrary()? {
                    request.sid = sid;
                    &["vp8"]
                } else {
                    &["av1", "vp8"]
                };
                let named = codecs.iter().map(|codec| proto::SimulcastCodec {
                    codec: (*codec).into(),
                    ..Default::default()
                });
                request.simulcast_codecs = named.collect();
                Request::AddTrack(request)
            }
        };
        self.say(session, request);
        Ok(())
    }

    fn connection(&self, input: &mut Unstructured<'_>) -> Result<ConnectionId> {
        let index = input.int_in_range(0..=7_usize)?;
        let known = self.connections.iter().nth(index).copied();
        Ok(known.unwrap_or(ConnectionId(u64::from(SERIAL) << 32 | 0xffff)))
    }

    fn media_says(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let connection = self.connection(input)?;
        let index = input.int_in_range(0..=15_usize)?;
        let unknown = TrackId(u64::from(SERIAL) << 32 | 0xffff);
        let track = self.tracks.iter().nth(index).copied().unwrap_or(unknown);
        let encoding = *input.choose(&[Encoding::Primary, Encoding::Primary, Encoding::Backup])?;
        let codec = *input.choose(&[Codec::Opus, Codec::Vp8, Codec::H264, Codec::Av1])?;
        let event = match input.int_in_range(0..=16_u8)? {
            0..=2 => Event::Published {
                track,
                encoding,
                mid: "0".into(),
                codec,
            },
            3 => Event::Connected {
                connection,
                remote: None,
            },
            4 => {
                self.connections.remove(&connection);
                self.sent.retain(|(of, _)| *of != connection);
                Event::Closed {
                    connection,
                    reason: "gone",
                }
            }
            5 => {
                if encoding == Encoding::Primary {
                    self.forget(track);
                }
                Event::Ended { track, encoding }
            }
            6 => Event::Subscribed { connection, track },
            7 => Event::CodecNotAccepted { connection, track },
            8 => Event::Paused {
                connection,
                track,
                is_paused: input.arbitrary()?,
                is_line_full: input.arbitrary()?,
            },
            9 => Event::AudioLevels(vec![(track, input.arbitrary()?)]),
            10 => Event::Line {
                connection,
                report: LineReport {
                    loss_up: Some(f32::from(input.arbitrary::<u8>()?) / 255.0),
                    loss_down: input.arbitrary()?,
                    ..LineReport::default()
                },
            },
            11 => Event::Offer {
                connection,
                sdp: "v=0\r\n".into(),
            },
            12 => Event::Answer {
                connection,
                sdp: "v=0\r\n".into(),
                mids: Vec::new(),
            },
            13 => Event::Refused {
                connection,
                reason: "no".into(),
            },
            14 => Event::PlacesNeeded {
                connection,
                audio: 1,
                video: 1,
            },
            15 => Event::LayersWanted {
                track,
                encoding,
                quality: *input.choose(&[None, Some(Quality::Low), Some(Quality::High)])?,
            },
            _ => Event::CodecChanged {
                track,
                encoding,
                codec,
            },
        };
        self.event(event);
        Ok(())
    }

    /// Sends everybody out, after which nothing is left.
    fn end(&mut self) {
        self.room
            .close(DisconnectReason::RoomClosed, Action::Disconnect, self.now);
        self.settle();
        assert_eq!(self.room.participant_count(), 0);
        assert_eq!(self.room.track_count(), 0);
        assert!(self.open.is_empty(), "every session is told to close");
        assert!(self.connections.is_empty(), "every connection is closed");
        assert!(self.sent.is_empty());
    }
}
