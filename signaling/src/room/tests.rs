//! What a room does, told by its messages and commands.

use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use sfu::{Channel, Codec, Encoding, LineReport, Quality, Selection};

use super::*;

mod backup;
mod crowd;
mod tree;

struct World {
    room: Room,
    now: Instant,
    unix_ms: i64,
    messages: Vec<(SessionId, Response)>,
    closes: Vec<(SessionId, String)>,
    commands: Vec<Command>,
    news: Vec<crate::room::tree::News>,
}

fn permission() -> proto::ParticipantPermission {
    crate::token::VideoGrant::default().permission()
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
        let room = Room::new(
            7,
            settings,
            Arc::new(Node {
                id: "ND".into(),
                ..Default::default()
            }),
            1,
            Moment {
                now,
                unix_ms: 1_000_000,
            },
        );
        World {
            room,
            now,
            unix_ms: 1_000_000,
            messages: Vec::new(),
            closes: Vec::new(),
            commands: Vec::new(),
            news: Vec::new(),
        }
    }

    fn at(&self) -> Moment {
        Moment {
            now: self.now,
            unix_ms: self.unix_ms,
        }
    }

    fn settle(&mut self) {
        for effect in self.room.take_effects() {
            match effect {
                Effect::Send { session, message } => {
                    let decoded = proto::SignalResponse::decode(message).unwrap();
                    self.messages.push((session, decoded.message.unwrap()));
                }
                Effect::Close {
                    session, reason, ..
                } => self.closes.push((session, reason)),
                Effect::Media(command) => self.commands.push(command),
                Effect::Tree(news) => self.news.push(news),
            }
        }
    }

    fn clear(&mut self) {
        self.messages.clear();
        self.commands.clear();
        self.closes.clear();
    }

    fn join_with(&mut self, number: u64, change: impl FnOnce(&mut Newcomer)) -> SessionId {
        let session = SessionId(number);
        let mut newcomer = Newcomer {
            session,
            identity: format!("p{number}"),
            name: format!("P {number}"),
            metadata: String::new(),
            attributes: HashMap::new(),
            kind: 0,
            permission: permission(),
            client_protocol: 1,
            capabilities: Vec::new(),
            is_single: true,
            is_auto_subscribe: true,
            is_adaptive: false,
            add_tracks: Vec::new(),
            offer: None,
            hears_others: true,
            view: None,
            conference: None,
        };
        change(&mut newcomer);
        let at = self.at();
        self.room.join(newcomer, at);
        self.settle();
        let key = self.room.by_session[&session];
        let connection = self.room.participants[&key].subscriber;
        self.event(Event::Connected {
            connection,
            remote: None,
        });
        session
    }

    fn join(&mut self, number: u64) -> SessionId {
        self.join_with(number, |_| {})
    }

    fn event(&mut self, event: Event) {
        self.room.on_event(event, self.now);
        self.settle();
    }

    fn say(&mut self, session: SessionId, request: Request) {
        let at = self.at();
        self.room.handle(session, request, at).unwrap();
        self.settle();
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.room.tick(self.now);
        self.settle();
    }

    fn connections(&self, session: SessionId) -> (ConnectionId, ConnectionId) {
        let participant = &self.room.participants[&self.room.by_session[&session]];
        (participant.publisher, participant.subscriber)
    }

    fn sid(&self, session: SessionId) -> String {
        self.room.participants[&self.room.by_session[&session]]
            .info
            .sid
            .clone()
    }

    fn camera(cid: &str) -> proto::AddTrackRequest {
        let layer = |quality: proto::VideoQuality, width, height| proto::VideoLayer {
            quality: quality as i32,
            width,
            height,
            ..Default::default()
        };
        proto::AddTrackRequest {
            cid: cid.into(),
            r#type: proto::TrackType::Video as i32,
            source: proto::TrackSource::Camera as i32,
            width: 1280,
            height: 720,
            layers: vec![
                layer(proto::VideoQuality::Low, 320, 180),
                layer(proto::VideoQuality::Medium, 640, 360),
                layer(proto::VideoQuality::High, 1280, 720),
            ],
            simulcast_codecs: vec![proto::SimulcastCodec {
                codec: "h264".into(),
                cid: cid.into(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    /// Publishes a camera; returns the track's sid and id.
    fn publish(&mut self, session: SessionId) -> (String, TrackId) {
        self.say(session, Request::AddTrack(Self::camera("cam")));
        let sid = self
            .told(session)
            .find_map(|message| match message {
                Response::TrackPublished(published) => published.track.clone().map(|t| t.sid),
                _ => None,
            })
            .unwrap();
        let track = self
            .commands
            .iter()
            .find_map(|command| match command {
                Command::Publish { track, .. } => Some(*track),
                _ => None,
            })
            .unwrap();
        self.event(Event::Published {
            track,
            encoding: Encoding::Primary,
            mid: "0".into(),
            codec: Codec::H264,
        });
        (sid, track)
    }

    fn told(&self, session: SessionId) -> impl Iterator<Item = &Response> {
        self.messages
            .iter()
            .filter(move |(to, _)| *to == session)
            .map(|(_, message)| message)
    }

    fn infos(&self, session: SessionId) -> Vec<&proto::ParticipantInfo> {
        self.told(session)
            .filter_map(|message| match message {
                Response::Update(update) => Some(&update.participants),
                _ => None,
            })
            .flatten()
            .collect()
    }

    fn leave_of(&self, session: SessionId) -> Option<(DisconnectReason, Action)> {
        self.told(session).find_map(|message| match message {
            Response::Leave(leave) => Some((leave.reason(), leave.action())),
            _ => None,
        })
    }

    fn selects(&self) -> Vec<Selection> {
        self.commands
            .iter()
            .filter_map(|command| match command {
                Command::Select { selection, .. } => Some(*selection),
                _ => None,
            })
            .collect()
    }
}

#[test]
fn a_join_is_answered_first_and_two_connections_are_opened_for_the_older_protocol() {
    let mut world = World::new();
    let ana = world.join_with(1, |newcomer| newcomer.is_single = false);
    let Some(Response::Join(join)) = world.told(ana).next() else {
        panic!("join comes first")
    };
    assert!(join.subscriber_primary);
    assert_eq!(join.participant.as_ref().unwrap().state(), State::Joined);
    let roles: Vec<_> = world
        .commands
        .iter()
        .filter_map(|command| match command {
            Command::Open { role, .. } => Some(*role),
            _ => None,
        })
        .collect();
    assert_eq!(
        roles,
        [Role::Subscribe],
        "the other one waits for something to publish"
    );
    assert_eq!(world.infos(ana).last().unwrap().state(), State::Active);
    let (_, subscriber) = world.connections(ana);
    world.event(Event::Offer {
        connection: subscriber,
        sdp: "o1".into(),
    });
    world.event(Event::Offer {
        connection: subscriber,
        sdp: "o2".into(),
    });
    let ids: Vec<_> = world
        .told(ana)
        .filter_map(|message| match message {
            Response::Offer(offer) => Some(offer.id),
            _ => None,
        })
        .collect();
    assert_eq!(ids, [1, 2]);
    world.clear();
    let answer = |id| proto::SessionDescription {
        id,
        ..Default::default()
    };
    world.say(ana, Request::Answer(answer(1)));
    assert!(
        world.commands.is_empty(),
        "an answer to an older offer is not for the new one"
    );
    world.say(ana, Request::Answer(answer(2)));
    assert!(matches!(world.commands[..], [Command::Answer { .. }]));
}

#[test]
fn an_answer_carries_the_id_of_its_offer_and_the_mids() {
    let mut world = World::new();
    let offer = proto::SessionDescription {
        id: 9,
        sdp: "v=0".into(),
        ..Default::default()
    };
    let ana = world.join_with(1, |newcomer| {
        newcomer.offer = Some(offer);
        newcomer.add_tracks = vec![World::camera("cam")];
    });
    let order: Vec<_> = world
        .commands
        .iter()
        .map(|command| match command {
            Command::Open { .. } => "open",
            Command::Publish { .. } => "publish",
            Command::Offer { .. } => "offer",
            _ => "other",
        })
        .collect();
    assert_eq!(order, ["open", "publish", "offer"]);
    let (connection, _) = world.connections(ana);
    let mids = vec![("3".to_owned(), "TR_x".to_owned())];
    world.event(Event::Answer {
        connection,
        sdp: "a".into(),
        mids,
    });
    let Some(Response::Answer(answer)) = world.told(ana).last() else {
        panic!()
    };
    assert_eq!(
        (answer.id, answer.mid_to_track_id["3"].as_str()),
        (9, "TR_x")
    );
}

#[test]
fn a_track_is_shown_and_subscribed_when_it_is_live_and_gone_when_it_ends() {
    let mut world = World::new();
    let (ana, bo) = (world.join(1), world.join(2));
    let cy = world.join_with(3, |newcomer| newcomer.is_auto_subscribe = false);
    world.clear();
    let (sid, track) = world.publish(ana);
    assert!(sid.starts_with("TR_VC"));
    let shown = &world.infos(bo).last().unwrap().tracks[0];
    assert_eq!(
        (shown.sid.as_str(), shown.mime_type.as_str()),
        (sid.as_str(), "video/H264")
    );
    let (_, bo_connection) = world.connections(bo);
    let subscribes: Vec<_> = world
        .commands
        .iter()
        .filter_map(|command| match command {
            Command::Subscribe {
                connection,
                stream_name,
                track_name,
                ..
            } => Some((*connection, stream_name.clone(), track_name.clone())),
            _ => None,
        })
        .collect();
    let stream = format!("{}|camera", world.sid(ana));
    assert_eq!(subscribes, [(bo_connection, stream, sid.clone())]);
    world.clear();
    let wish = |subscribe| proto::UpdateSubscription {
        track_sids: vec![sid.clone()],
        subscribe,
        ..Default::default()
    };
    world.say(cy, Request::Subscription(wish(true)));
    world.say(bo, Request::Subscription(wish(false)));
    assert!(matches!(
        world.commands[..],
        [Command::Subscribe { .. }, Command::Unsubscribe { .. }]
    ));
    let (_, cy_connection) = world.connections(cy);
    world.event(Event::Subscribed {
        connection: cy_connection,
        track,
    });
    assert!(
        world
            .told(ana)
            .any(|message| matches!(message, Response::TrackSubscribed(_)))
    );
    world.event(Event::CodecNotAccepted {
        connection: cy_connection,
        track,
    });
    assert!(
        world
            .told(cy)
            .any(|message| matches!(message, Response::SubscriptionResponse(_)))
    );
    for (is_paused, is_line_full, expected) in [
        (true, false, proto::StreamState::Paused),
        (false, true, proto::StreamState::Active),
        (true, true, proto::StreamState::Paused),
    ] {
        world.clear();
        world.event(Event::Paused {
            connection: cy_connection,
            track,
            is_paused,
            is_line_full,
        });
        // What is paused for the line is so for a line that is poor, and this is told first.
        let is_told_poor = matches!(
            world.told(cy).next(),
            Some(Response::ConnectionQuality(update))
                if update.updates[0].quality() == ConnectionQuality::Poor
        );
        assert_eq!(is_told_poor, is_paused && is_line_full);
        let states: Vec<_> = world
            .told(cy)
            .filter_map(|message| match message {
                Response::StreamStateUpdate(update) => Some(update.stream_states.clone()),
                _ => None,
            })
            .flatten()
            .collect();
        assert_eq!(states.len(), 1);
        assert_eq!(states[0].state(), expected);
        assert_eq!(states[0].track_sid, sid);
        assert_eq!(states[0].participant_sid, world.sid(ana));
    }
    world.clear();
    world.event(Event::Ended {
        track,
        encoding: Encoding::Primary,
    });
    assert!(world.infos(bo).last().unwrap().tracks.is_empty());
    assert!(!world.infos(bo).last().unwrap().is_publisher);
}

#[test]
fn a_camera_and_its_microphone_share_a_stream_over_one_connection() {
    let mut world = World::new();
    let ana = world.join(1);
    world.join(2);
    world.join_with(3, |newcomer| newcomer.is_single = false);
    world.clear();
    let names = |world: &World| -> Vec<_> {
        let subscribes = world.commands.iter().filter_map(|command| match command {
            Command::Subscribe {
                stream_name,
                track_name,
                ..
            } => Some((stream_name.clone(), track_name.clone())),
            _ => None,
        });
        subscribes.collect()
    };
    let (camera, _) = world.publish(ana);
    let mut named = names(&world);
    world.publish_microphone(ana);
    named.extend(names(&world));
    let microphone = named.last().unwrap().1.clone();
    let owner = world.sid(ana);
    let expected = [
        ("camera", &camera),
        (camera.as_str(), &camera),
        ("camera", &microphone),
        (microphone.as_str(), &microphone),
    ];
    let expected = expected.map(|(stream, track)| (format!("{owner}|{stream}"), track.clone()));
    assert_eq!(named, expected);
}

#[test]
fn publishing_needs_the_grant_and_the_source() {
    let mut world = World::new();
    let ana = world.join_with(1, |newcomer| newcomer.permission.can_publish = false);
    let bo = world.join_with(2, |newcomer| {
        newcomer.permission.can_publish_sources = vec![proto::TrackSource::Microphone as i32];
    });
    world.clear();
    for session in [ana, bo] {
        world.say(session, Request::AddTrack(World::camera("cam")));
        let Some(Response::RequestResponse(response)) = world.told(session).last() else {
            panic!()
        };
        assert_eq!(
            response.reason(),
            proto::request_response::Reason::NotAllowed
        );
    }
    assert!(world.commands.is_empty());
    let cy = world.join(3);
    world.clear();
    for number in 0..=TRACKS_PER_PARTICIPANT {
        world.say(
            cy,
            Request::AddTrack(World::camera(&format!("cam{number}"))),
        );
    }
    let Some(Response::RequestResponse(response)) = world.told(cy).last() else {
        panic!()
    };
    assert_eq!(
        response.reason(),
        proto::request_response::Reason::LimitExceeded
    );
}

#[test]
fn losing_the_grant_ends_what_was_published_and_received() {
    let mut world = World::new();
    let (ana, bo) = (world.join(1), world.join(2));
    world.publish(ana);
    world.clear();
    let request = |identity: &str, change: fn(&mut proto::ParticipantPermission)| {
        let mut changed = permission();
        change(&mut changed);
        proto::UpdateParticipantRequest {
            identity: identity.into(),
            permission: Some(changed),
            ..Default::default()
        }
    };
    world
        .room
        .update_participant(request("p2", |p| p.can_subscribe = false))
        .unwrap();
    world.settle();
    assert!(matches!(world.commands[..], [Command::Unsubscribe { .. }]));
    world
        .room
        .update_participant(request("p1", |p| p.can_publish = false))
        .unwrap();
    world.settle();
    assert!(
        world
            .told(ana)
            .any(|message| matches!(message, Response::TrackUnpublished(_)))
    );
    assert!(world.infos(bo).last().unwrap().tracks.is_empty());
}

#[test]
fn the_same_identity_again_sends_the_first_away() {
    let mut world = World::new();
    let (ana, bo) = (world.join(1), world.join(2));
    world.clear();
    world.join_with(3, |newcomer| newcomer.identity = "p1".into());
    assert_eq!(
        world.leave_of(ana),
        Some((DisconnectReason::DuplicateIdentity, Action::Disconnect))
    );
    assert_eq!(world.closes[0].0, ana);
    let states: Vec<_> = world.infos(bo).iter().map(|info| info.state()).collect();
    assert_eq!(states, [State::Disconnected, State::Joined, State::Active]);
    let at = world.at();
    assert_eq!(
        world.room.handle(ana, Request::Ping(1), at),
        Err(Refusal::Stale)
    );
}

#[test]
fn a_lost_session_is_resumed_with_its_media_or_ends_after_its_time() {
    let mut world = World::new();
    let ana = world.join_with(1, |newcomer| newcomer.is_single = false);
    let bo = world.join(2);
    let sid = world.sid(ana);
    world.room.session_lost(ana, world.now);
    world.pass(RESUME_TIME / 2);
    world.clear();
    let at = world.at();
    assert!(!world.room.resume("PA_other", "p1", SessionId(10), at));
    assert!(!world.room.resume(&sid, "p2", SessionId(10), at));
    assert!(world.room.resume(&sid, "p1", SessionId(10), at));
    world.settle();
    let new = SessionId(10);
    assert!(matches!(
        world.told(new).next(),
        Some(Response::Reconnect(_))
    ));
    assert_eq!(world.infos(new).len(), 2);
    assert!(matches!(world.commands[..], [Command::RestartIce { .. }]));
    assert!(world.infos(bo).is_empty(), "the others hear nothing of it");
    world.room.session_lost(new, world.now);
    // Its sound and pictures go on: the others notice nothing yet.
    world.pass(RESUME_TIME_WITH_MEDIA - Duration::from_secs(1));
    assert!(world.infos(bo).is_empty(), "it is still seen and heard");
    world.pass(Duration::from_secs(1));
    assert_eq!(world.infos(bo).last().unwrap().state(), State::Disconnected);
    assert_eq!(world.room.participant_count(), 1);
}

#[test]
fn who_lost_its_session_and_falls_silent_is_gone_after_the_shorter_time() {
    let mut world = World::new();
    let (ana, bo) = (world.join(1), world.join(2));
    let (connection, _) = world.connections(ana);
    world.room.session_lost(ana, world.now);
    world.event(Event::Silent { connection });
    world.pass(RESUME_TIME - Duration::from_secs(1));
    assert_eq!(world.room.participant_count(), 2);
    world.clear();
    world.pass(Duration::from_secs(1));
    assert_eq!(world.infos(bo).last().unwrap().state(), State::Disconnected);
}

#[test]
fn who_comes_back_into_its_own_place_has_its_hand_still_up() {
    let mut world = World::new();
    let ana = world.join_with(1, |newcomer| newcomer.permission.can_update_metadata = true);
    let bo = world.join(2);
    let hand = |value: &str| {
        Request::UpdateMetadata(proto::UpdateParticipantMetadata {
            attributes: HashMap::from([("hand".to_owned(), value.to_owned())]),
            ..Default::default()
        })
    };
    world.say(ana, hand("17"));
    let came = world.infos(bo).last().unwrap().joined_at_ms;
    world.now += Duration::from_secs(100);
    world.unix_ms += 100_000;
    world.clear();
    let again = world.join_with(1001, |newcomer| {
        newcomer.identity = "p1".into();
        newcomer.permission.can_update_metadata = true;
        newcomer.attributes = HashMap::from([("office".to_owned(), "water".to_owned())]);
    });
    let info = world.infos(bo).last().copied().unwrap().clone();
    assert_eq!((info.state(), info.joined_at_ms), (State::Active, came));
    assert_eq!(info.attributes["hand"], "17");
    assert_eq!(info.attributes["office"], "water");
    // Who left on purpose begins anew.
    world.say(again, Request::Leave(proto::LeaveRequest::default()));
    world.clear();
    world.join_with(1002, |newcomer| newcomer.identity = "p1".into());
    let info = world.infos(bo).last().copied().unwrap();
    assert!(info.attributes.is_empty());
    assert_eq!(info.joined_at_ms, came + 100_000);
}

#[test]
fn a_lost_line_is_told_to_the_others_and_its_owner_hears_that_it_is_poor() {
    let mut world = World::new();
    let (ana, bo) = (world.join(1), world.join(2));
    world.pass(QUALITY_INTERVAL);
    let (connection, _) = world.connections(ana);
    world.event(Event::Silent { connection });
    world.clear();
    world.pass(QUALITY_INTERVAL);
    let sid = world.sid(ana);
    let told = |world: &World, to: SessionId| -> Vec<_> {
        world
            .told(to)
            .filter_map(|message| match message {
                Response::ConnectionQuality(update) => Some(&update.updates),
                _ => None,
            })
            .flatten()
            .filter(|update| update.participant_sid == sid)
            .map(|update| update.quality())
            .collect()
    };
    assert_eq!(told(&world, bo), [ConnectionQuality::Lost]);
    // Of LOST its client would throw its session away, though ICE brings media back in place.
    assert_eq!(told(&world, ana), [ConnectionQuality::Poor]);
    world.clear();
    world.room.session_lost(ana, world.now);
    let at = world.at();
    assert!(world.room.resume(&sid, "p1", SessionId(10), at));
    world.settle();
    assert_eq!(told(&world, SessionId(10)), [ConnectionQuality::Poor]);
}

#[test]
fn a_killed_browser_is_gone_soon_and_lost_media_alone_calls_for_a_fresh_start() {
    let mut world = World::new();
    let (ana, bo) = (world.join(1), world.join(2));
    let (connection, _) = world.connections(ana);
    world.event(Event::Closed {
        connection,
        reason: "silent",
    });
    world.room.session_lost(ana, world.now);
    world.pass(GONE_TIME);
    assert_eq!(world.room.participant_count(), 1);
    let (connection, _) = world.connections(bo);
    world.event(Event::Closed {
        connection,
        reason: "silent",
    });
    world.pass(GONE_TIME);
    assert_eq!(
        world.leave_of(bo),
        Some((DisconnectReason::ConnectionTimeout, Action::Reconnect))
    );
}

#[test]
fn a_client_that_never_answers_is_sent_away() {
    let mut world = World::new();
    let ana = world.join_with(1, |newcomer| newcomer.is_single = false);
    let (_, connection) = world.connections(ana);
    world.event(Event::Offer {
        connection,
        sdp: "o".into(),
    });
    world.pass(ANSWER_TIME);
    assert_eq!(
        world.leave_of(ana),
        Some((DisconnectReason::StateMismatch, Action::Reconnect))
    );
}

#[test]
fn the_layer_follows_the_size_and_disabling_stops() {
    let mut world = World::new();
    let (ana, bo) = (world.join(1), world.join(2));
    let (sid, _) = world.publish(ana);
    world.clear();
    let settings = |disabled, width, height| {
        Request::TrackSetting(proto::UpdateTrackSettings {
            track_sids: vec![sid.clone()],
            disabled,
            width,
            height,
            quality: proto::VideoQuality::High as i32,
            ..Default::default()
        })
    };
    world.say(bo, settings(false, 320, 180));
    world.say(bo, settings(false, 640, 360));
    world.say(bo, settings(false, 640, 360));
    world.say(bo, settings(true, 640, 360));
    let mut slower = settings(false, 640, 360);
    if let Request::TrackSetting(settings) = &mut slower {
        settings.fps = 15;
    }
    world.say(bo, slower);
    let enabled = |quality, area| Selection {
        area,
        ..Selection::of(quality)
    };
    let (small, middle) = (
        enabled(Quality::Low, 320 * 180),
        enabled(Quality::Medium, 640 * 360),
    );
    let off = Selection {
        is_enabled: false,
        ..middle
    };
    let slower = Selection {
        frame_rate: 15,
        ..middle
    };
    assert_eq!(world.selects(), [small, middle, off, slower]);
}

#[test]
fn a_layer_that_nobody_wants_is_stopped_after_a_while_and_started_at_once() {
    let mut world = World::new();
    let (ana, _bo) = (world.join(1), world.join(2));
    let (_, track) = world.publish(ana);
    world.clear();
    let now_wanted = |quality| Event::LayersWanted {
        track,
        encoding: Encoding::Primary,
        quality,
    };
    let wanted = |world: &World| {
        world
            .told(ana)
            .filter_map(|message| match message {
                Response::SubscribedQualityUpdate(update) => Some(
                    update.subscribed_codecs[0]
                        .qualities
                        .iter()
                        .filter(|q| q.enabled)
                        .count(),
                ),
                _ => None,
            })
            .last()
    };
    world.event(now_wanted(Some(Quality::Low)));
    world.pass(Duration::from_millis(500));
    assert_eq!(wanted(&world), None);
    world.pass(LAYER_HOLD);
    assert_eq!(wanted(&world), Some(1));
    world.event(now_wanted(Some(Quality::High)));
    assert_eq!(wanted(&world), Some(3));
    world.event(now_wanted(None));
    world.pass(Duration::from_millis(500));
    world.pass(LAYER_HOLD);
    assert_eq!(wanted(&world), Some(0));
}

#[test]
fn what_is_wanted_of_a_new_track_is_told_again_to_a_client_that_may_not_have_known_it() {
    let mut world = World::new();
    let (ana, _bo) = (world.join(1), world.join(2));
    let (_, track) = world.publish(ana);
    world.event(Event::LayersWanted {
        track,
        encoding: Encoding::Primary,
        quality: Some(Quality::Low),
    });
    let told = |world: &mut World, seconds| {
        world.clear();
        for _ in 0..10 * seconds {
            world.pass(Duration::from_millis(100));
        }
        let is_update =
            |message: &&Response| matches!(message, Response::SubscribedQualityUpdate(_));
        world.told(ana).filter(is_update).count()
    };
    assert_eq!(told(&mut world, 12), 1 + 3);
    assert_eq!(told(&mut world, 30), 0);
}

#[test]
fn muting_is_told_and_only_its_owner_unmutes() {
    let mut world = World::new();
    let (ana, bo) = (world.join(1), world.join(2));
    let (sid, _) = world.publish(ana);
    world.clear();
    world.room.mute_published("p1", &sid, true).unwrap();
    world.settle();
    assert!(world.infos(bo).last().unwrap().tracks[0].muted);
    assert!(
        world
            .told(ana)
            .any(|message| matches!(message, Response::Mute(mute) if mute.muted))
    );
    assert_eq!(
        world.room.mute_published("p1", &sid, false),
        Err(CallError::RemoteUnmute)
    );
    assert_eq!(
        world.room.mute_published("p1", "TR_none", true),
        Err(CallError::NoTrack)
    );
    world.say(
        ana,
        Request::Mute(proto::MuteTrackRequest { sid, muted: false }),
    );
    assert!(!world.infos(bo).last().unwrap().tracks[0].muted);
}

#[test]
fn data_is_signed_by_the_server_and_reaches_whom_it_names() {
    let mut world = World::new();
    let (ana, bo) = (world.join(1), world.join(2));
    let _cy = world.join(3);
    let mute = world.join_with(4, |newcomer| newcomer.permission.can_publish_data = false);
    world.clear();
    let packet = |to: &[&str]| proto::DataPacket {
        participant_identity: "forged".into(),
        participant_sid: "PA_forged".into(),
        destination_identities: to.iter().map(|text| (*text).to_owned()).collect(),
        value: Some(proto::data_packet::Value::ChatMessage(
            proto::ChatMessage::default(),
        )),
        ..Default::default()
    };
    let send = |world: &mut World, from: SessionId, packet: proto::DataPacket| {
        world.clear();
        let (connection, _) = world.connections(from);
        let payload = packet.encode_to_vec().into();
        world.event(Event::Data {
            connection,
            channel: Channel::Reliable,
            payload,
        });
        match world.commands.first() {
            Some(Command::SendData {
                connections,
                payload,
                ..
            }) => Some((
                connections.clone(),
                proto::DataPacket::decode(&**payload).unwrap(),
            )),
            _ => None,
        }
    };
    let (to, got) = send(&mut world, ana, packet(&[])).unwrap();
    assert_eq!(to.len(), 3);
    assert_eq!(got.participant_identity, "p1");
    assert_eq!(got.participant_sid, world.sid(ana));
    let (to, _) = send(&mut world, ana, packet(&["p2"])).unwrap();
    assert_eq!(to, [world.connections(bo).1]);
    assert!(send(&mut world, mute, packet(&[])).is_none());
    let mut numbered = packet(&[]);
    numbered.sequence = 5;
    assert!(send(&mut world, ana, numbered.clone()).is_some());
    assert!(
        send(&mut world, ana, numbered).is_none(),
        "sent again after a resume"
    );
}

#[test]
fn attributes_are_merged_and_need_the_grant() {
    let mut world = World::new();
    let ana = world.join_with(1, |newcomer| {
        newcomer.permission.can_update_metadata = true;
        newcomer.attributes = HashMap::from([("a".into(), "1".into()), ("b".into(), "2".into())]);
    });
    let bo = world.join(2);
    world.clear();
    let update = |request_id| {
        Request::UpdateMetadata(proto::UpdateParticipantMetadata {
            attributes: HashMap::from([("a".into(), String::new()), ("c".into(), "3".into())]),
            request_id,
            ..Default::default()
        })
    };
    world.say(ana, update(4));
    let attributes = &world.infos(bo).last().unwrap().attributes;
    assert_eq!(attributes.len(), 2);
    assert!(!attributes.contains_key("a"));
    let answered = |world: &World, session| {
        world.told(session).find_map(|message| match message {
            Response::RequestResponse(response) => Some((response.request_id, response.reason())),
            _ => None,
        })
    };
    use proto::request_response::Reason;
    assert_eq!(answered(&world, ana), Some((4, Reason::Ok)));
    world.say(bo, update(5));
    assert_eq!(answered(&world, bo), Some((5, Reason::NotAllowed)));
}

#[test]
fn a_publisher_chooses_who_may_have_its_tracks() {
    let mut world = World::new();
    let (ana, bo, cy) = (world.join(1), world.join(2), world.join(3));
    world.publish(ana);
    world.clear();
    let allow = proto::SubscriptionPermission {
        all_participants: false,
        track_permissions: vec![proto::TrackPermission {
            participant_identity: "p2".into(),
            all_tracks: true,
            ..Default::default()
        }],
    };
    world.say(ana, Request::SubscriptionPermission(allow));
    assert!(matches!(world.commands[..], [Command::Unsubscribe { .. }]));
    let heard = |world: &World, session| {
        world
            .told(session)
            .filter_map(|message| match message {
                Response::SubscriptionPermissionUpdate(update) => Some(update.allowed),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(heard(&world, cy), [false]);
    assert!(heard(&world, bo).is_empty());
    let everybody = proto::SubscriptionPermission {
        all_participants: true,
        ..Default::default()
    };
    world.say(ana, Request::SubscriptionPermission(everybody));
    assert_eq!(heard(&world, cy), [false, true]);
    assert!(matches!(
        world.commands.last(),
        Some(Command::Subscribe { .. })
    ));
}

#[test]
fn a_hidden_participant_is_never_named() {
    let mut world = World::new();
    let ana = world.join(1);
    world.clear();
    let ghost = world.join_with(2, |newcomer| newcomer.permission.hidden = true);
    let bo = world.join(3);
    assert!(world.infos(ana).iter().all(|info| info.identity == "p3"));
    let Some(Response::Join(join)) = world.told(bo).next() else {
        panic!()
    };
    assert_eq!(join.other_participants.len(), 1);
    world.say(ghost, Request::Leave(proto::LeaveRequest::default()));
    assert!(world.infos(ana).iter().all(|info| info.identity == "p3"));
}

#[test]
fn speakers_and_quality_are_told_on_change_only() {
    let mut world = World::new();
    let (ana, bo) = (world.join(1), world.join(2));
    let (_, track) = world.publish(ana);
    world.clear();
    let levels = |level| Event::AudioLevels(vec![(track, level)]);
    world.event(levels(20));
    world.event(levels(20));
    let speakers = |world: &World| {
        world
            .told(bo)
            .filter(|message| matches!(message, Response::SpeakersChanged(_)))
            .count()
    };
    assert_eq!(speakers(&world), 1);
    world.pass(QUALITY_INTERVAL);
    world.pass(QUALITY_INTERVAL);
    let (connection, _) = world.connections(ana);
    let report = LineReport {
        loss_up: Some(1.0),
        ..Default::default()
    };
    world.event(Event::Line { connection, report });
    world.pass(QUALITY_INTERVAL);
    world.event(Event::Silent { connection });
    world.pass(QUALITY_INTERVAL);
    let qualities: Vec<_> = world
        .told(bo)
        .filter_map(|message| match message {
            Response::ConnectionQuality(update) => Some(update.updates.clone()),
            _ => None,
        })
        .map(|updates| updates[0].quality())
        .collect();
    use proto::ConnectionQuality;
    assert_eq!(
        qualities,
        [
            ConnectionQuality::Excellent,
            ConnectionQuality::Poor,
            ConnectionQuality::Lost
        ]
    );
}

#[test]
fn a_speaker_ends_though_silence_is_reported_once_or_never() {
    let mut world = World::new();
    let (ana, bo) = (world.join(1), world.join(2));
    let (_, track) = world.publish(ana);
    world.event(Event::AudioLevels(vec![(track, 20)]));
    world.clear();
    world.event(Event::AudioLevels(Vec::new()));
    for _ in 0..8 {
        world.pass(Duration::from_millis(500));
    }
    let ended = world.told(bo).any(|message| {
        matches!(message, Response::SpeakersChanged(change) if !change.speakers[0].active)
    });
    assert!(ended);
}

#[test]
fn a_drained_or_empty_room_says_so_and_ends() {
    let mut world = World::new();
    let ana = world.join(1);
    assert!(!world.room.is_over(world.now + Duration::from_secs(1000)));
    let now = world.now;
    world
        .room
        .close(DisconnectReason::ServerShutdown, Action::Reconnect, now);
    world.settle();
    assert_eq!(
        world.leave_of(ana),
        Some((DisconnectReason::ServerShutdown, Action::Reconnect))
    );
    assert!(!world.room.is_over(now + Duration::from_secs(19)));
    assert!(world.room.is_over(now + Duration::from_secs(20)));
}

#[test]
fn a_monstrous_description_ends_its_session() {
    let mut world = World::new();
    let ana = world.join(1);
    let at = world.at();
    for sdp in [
        "x".repeat(SDP_BOUND + 1),
        "\nm=".repeat(MEDIA_LINES_BOUND + 1),
    ] {
        let offer = proto::SessionDescription {
            sdp,
            ..Default::default()
        };
        let refused = world.room.handle(ana, Request::Offer(offer), at);
        assert!(matches!(refused, Err(Refusal::Broken(_))));
    }
}

/// Answers to requests, by reason.
fn reasons(world: &World, session: SessionId) -> Vec<request_response::Reason> {
    world
        .told(session)
        .filter_map(|message| match message {
            Response::RequestResponse(response) => Some(response.reason()),
            _ => None,
        })
        .collect()
}

#[test]
fn a_source_of_pictures_is_not_one_of_sound() {
    use proto::{TrackSource, TrackType};
    let sources = [
        (TrackSource::Camera, TrackType::Video),
        (TrackSource::Microphone, TrackType::Audio),
        (TrackSource::ScreenShare, TrackType::Video),
        (TrackSource::ScreenShareAudio, TrackType::Audio),
    ];
    for (granted, _) in sources {
        let mut world = World::new();
        let ana = world.join_with(1, |newcomer| {
            newcomer.permission.can_publish_sources = vec![granted as i32];
        });
        for (source, own) in sources {
            for kind in [TrackType::Video, TrackType::Audio, TrackType::Data] {
                world.clear();
                let request = proto::AddTrackRequest {
                    cid: format!("{source:?} {kind:?}"),
                    r#type: kind as i32,
                    source: source as i32,
                    ..Default::default()
                };
                world.say(ana, Request::AddTrack(request));
                let is_published = !world.commands.is_empty();
                assert_eq!(
                    is_published,
                    source == granted && kind == own,
                    "{granted:?}: {source:?} as {kind:?}"
                );
                assert_eq!(reasons(&world, ana).is_empty(), is_published);
            }
        }
        let unnamed = proto::AddTrackRequest {
            cid: "unnamed".into(),
            r#type: TrackType::Video as i32,
            ..Default::default()
        };
        world.clear();
        world.say(ana, Request::AddTrack(unnamed));
        assert_eq!(reasons(&world, ana), [request_response::Reason::NotAllowed]);
    }
}

#[test]
fn a_refusal_does_not_repeat_a_long_request() {
    let mut world = World::new();
    let ana = world.join_with(1, |newcomer| newcomer.permission.can_update_metadata = true);
    let request = proto::AddTrackRequest {
        cid: "c".into(),
        name: "x".repeat(500_000),
        ..World::camera("c")
    };
    world.clear();
    world.say(ana, Request::AddTrack(request));
    world.say(
        ana,
        Request::UpdateMetadata(proto::UpdateParticipantMetadata {
            metadata: "x".repeat(500_000),
            ..Default::default()
        }),
    );
    use request_response::Reason;
    assert_eq!(
        reasons(&world, ana),
        [Reason::InvalidRequest, Reason::LimitExceeded]
    );
    for (_, message) in &world.messages {
        assert!(encode(message.clone()).len() < ECHO_BOUND);
    }
}

fn set_metadata(world: &mut World, session: SessionId, metadata: String) {
    world.say(
        session,
        Request::UpdateMetadata(proto::UpdateParticipantMetadata {
            metadata,
            request_id: 1,
            ..Default::default()
        }),
    );
}

#[test]
fn quick_changes_reach_the_others_together_and_the_last_of_them_does() {
    let mut world = World::new();
    let ana = world.join_with(1, |newcomer| newcomer.permission.can_update_metadata = true);
    let bo = world.join(2);
    world.clear();
    for number in 0..1000 {
        set_metadata(&mut world, ana, format!("{number} {}", "x".repeat(60_000)));
    }
    let heard: usize = world.infos(bo).iter().map(|info| info.encoded_len()).sum();
    assert!(heard <= NEWS_BURST, "{heard}");
    assert_eq!(reasons(&world, ana).len(), 1000, "each is answered");
    world.clear();
    for _ in 0..4 {
        world.pass(Duration::from_millis(500));
    }
    let last = world.infos(bo).last().unwrap().metadata.clone();
    assert!(last.starts_with("999 "));
    assert_eq!(world.infos(bo).len(), 1);
    let versions: Vec<_> = world.infos(ana).iter().map(|info| info.version).collect();
    assert!(versions.is_sorted());
}

#[test]
fn a_few_cannot_fill_the_room_with_text_until_nobody_can_join() {
    let mut world = World::new();
    let sessions: Vec<_> = (0..40)
        .map(|number| {
            world.join_with(number, |newcomer| {
                newcomer.permission.can_update_metadata = true
            })
        })
        .collect();
    for session in sessions {
        set_metadata(&mut world, session, "x".repeat(METADATA_BOUND));
    }
    world.clear();
    let late = world.join_with(99, |newcomer| {
        newcomer.metadata = "x".repeat(METADATA_BOUND)
    });
    let Some(join @ Response::Join(_)) = world.told(late).next() else {
        panic!("no join")
    };
    let length = encode(join.clone()).len();
    assert!(length < ROOM_TEXT_BOUND + 64 * 1024, "{length}");
}

#[test]
fn a_publisher_that_changes_its_mind_quickly_is_followed_at_leisure() {
    let mut world = World::new();
    let (ana, bo) = (world.join(1), world.join(2));
    let (_, track) = world.publish(ana);
    world.clear();
    for number in 0..1001 {
        let permission = proto::SubscriptionPermission {
            all_participants: number % 2 == 1,
            track_permissions: Vec::new(),
        };
        world.say(ana, Request::SubscriptionPermission(permission));
    }
    assert!(world.told(bo).count() <= NEWS_BURST / NEWS_LEAST);
    for _ in 0..4 {
        world.pass(Duration::from_millis(500));
    }
    let key = world.room.by_session[&bo];
    assert!(
        !world.room.participants[&key]
            .subscriptions
            .contains_key(&track)
    );
}

#[test]
fn bad_data_is_complained_of_now_and_then() {
    let mut world = World::new();
    let (ana, bo) = (world.join(1), world.join(2));
    let (connection, _) = world.connections(ana);
    world.clear();
    let long: std::sync::Arc<[u8]> = vec![0; DATA_BOUND + 1].into();
    let noise: std::sync::Arc<[u8]> = vec![0xff; 10].into();
    for payload in [long, noise.clone(), noise.clone()] {
        let channel = Channel::Reliable;
        world.event(Event::Data {
            connection,
            channel,
            payload,
        });
    }
    assert_eq!(
        reasons(&world, ana),
        [request_response::Reason::LimitExceeded]
    );
    world.now += COMPLAINT_INTERVAL;
    let channel = Channel::Lossy;
    world.event(Event::Data {
        connection,
        channel,
        payload: noise,
    });
    assert_eq!(reasons(&world, ana).len(), 2);
    assert!(world.commands.is_empty() && world.told(bo).next().is_none());
}

#[test]
fn another_ones_sid_resumes_nothing() {
    let mut world = World::new();
    let (ana, bo) = (world.join(1), world.join(2));
    let (sid, at) = (world.sid(ana), world.at());
    assert!(!world.room.resume(&sid, "p2", SessionId(3), at));
    assert!(!world.room.resume("", "p1", SessionId(3), at));
    assert!(!world.room.resume(&sid, "", SessionId(3), at));
    world.settle();
    assert!(world.closes.is_empty());
    assert!(world.room.by_session.contains_key(&ana) && world.room.by_session.contains_key(&bo));
}

#[test]
fn who_never_connects_media_is_sent_away_with_the_reason() {
    let mut world = World::new();
    let at = world.at();
    let mut newcomer = Newcomer {
        session: SessionId(1),
        identity: "ana".into(),
        name: String::new(),
        metadata: String::new(),
        attributes: HashMap::new(),
        kind: 0,
        permission: permission(),
        client_protocol: 1,
        capabilities: Vec::new(),
        is_single: false,
        is_auto_subscribe: true,
        is_adaptive: false,
        add_tracks: Vec::new(),
        offer: None,
        hears_others: true,
        view: None,
        conference: None,
    };
    let key = world.room.join(newcomer.clone(), at);
    let connection = world.room.participants[&key].subscriber;
    world.event(Event::Offer {
        connection,
        sdp: "o".into(),
    });
    let answer = proto::SessionDescription {
        id: 1,
        ..Default::default()
    };
    world.say(SessionId(1), Request::Answer(answer));
    world.event(Event::Closed {
        connection,
        reason: "the client never connected",
    });
    world.pass(GONE_TIME);
    let failed = Some((DisconnectReason::JoinFailure, Action::Disconnect));
    assert_eq!(world.leave_of(SessionId(1)), failed);
    assert!(world.closes[0].1.contains("UDP"), "{}", world.closes[0].1);

    newcomer.session = SessionId(2);
    newcomer.is_single = true;
    let at = world.at();
    world.room.join(newcomer, at);
    world.pass(JOIN_TIME);
    assert_eq!(world.leave_of(SessionId(2)), failed);
}

#[test]
fn names_that_lie_are_refused() {
    for name in ["a\nb", "\u{1b}[2J", "\u{202e}gnp", "a\0"] {
        assert!(!is_plain(name));
        let mut world = World::new();
        let ana = world.join_with(1, |newcomer| newcomer.permission.can_update_metadata = true);
        world.clear();
        world.say(
            ana,
            Request::UpdateMetadata(proto::UpdateParticipantMetadata {
                name: name.into(),
                ..Default::default()
            }),
        );
        assert_eq!(
            reasons(&world, ana),
            [request_response::Reason::InvalidRequest]
        );
    }
    assert!(is_plain("王主任 (3 楼) — 👍"));
}

proptest::proptest! {
    #[test]
    fn any_message_is_survived(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let mut world = World::new();
        let ana = world.join(1);
        if let Ok(proto::SignalRequest { message: Some(message) }) =
            proto::SignalRequest::decode(&*bytes)
        {
            let at = world.at();
            let _ = world.room.handle(ana, message, at);
        }
        let connection = ConnectionId(7 << 32 | 2);
        world.event(Event::Data { connection, channel: Channel::Lossy, payload: bytes.into() });
    }
}

fn speaker_view() -> Option<Vec<ViewPlace>> {
    Some(vec![ViewPlace {
        mid: "0".into(),
        is_video: true,
        whom: Whom::Speaker,
    }])
}

impl World {
    /// What was placed since the last [`World::clear`], by mid.
    fn placed(&self) -> Vec<(String, Option<TrackId>)> {
        self.commands
            .iter()
            .filter_map(|command| match command {
                Command::Place { mid, track, .. } => Some((mid.clone(), *track)),
                _ => None,
            })
            .collect()
    }

    /// A microphone that is heard; returns its id.
    fn publish_microphone(&mut self, session: SessionId) -> TrackId {
        self.clear();
        let request = proto::AddTrackRequest {
            cid: "mic".into(),
            r#type: proto::TrackType::Audio as i32,
            source: proto::TrackSource::Microphone as i32,
            ..Default::default()
        };
        self.say(session, Request::AddTrack(request));
        let published = self.commands.iter().find_map(|command| match command {
            Command::Publish { track, .. } => Some(*track),
            _ => None,
        });
        let track = published.unwrap();
        self.event(Event::Published {
            track,
            encoding: Encoding::Primary,
            mid: "1".into(),
            codec: Codec::Opus,
        });
        track
    }
}

#[test]
fn a_player_is_shown_whom_it_asked_for_when_they_come_and_no_second_offer_is_asked() {
    let mut world = World::new();
    let player = world.join_with(1, |newcomer| {
        newcomer.hears_others = false;
        newcomer.view = Some(vec![
            ViewPlace {
                mid: "a".into(),
                is_video: true,
                whom: Whom::Identity("p2".into()),
            },
            ViewPlace {
                mid: "b".into(),
                is_video: false,
                whom: Whom::Identity("p2".into()),
            },
        ]);
    });
    assert!(world.commands.iter().any(|command| matches!(
        command,
        Command::Open {
            role: Role::View,
            ..
        }
    )));
    assert!(world.placed().is_empty());
    let other = world.join(3);
    world.publish(other);
    assert!(world.placed().is_empty(), "nobody asked for p3");
    let wanted = world.join(2);
    world.clear();
    let (_, camera) = world.publish(wanted);
    assert_eq!(world.placed(), [("a".into(), Some(camera))]);
    let microphone = world.publish_microphone(wanted);
    assert_eq!(world.placed(), [("b".into(), Some(microphone))]);
    world.clear();
    world.event(Event::Ended {
        track: camera,
        encoding: Encoding::Primary,
    });
    let again = world.publish(wanted).1;
    assert_eq!(world.placed(), [("a".into(), Some(again))]);
    world.clear();
    let mut permission = permission();
    permission.can_subscribe = false;
    world
        .room
        .update_participant(proto::UpdateParticipantRequest {
            identity: "p1".into(),
            permission: Some(permission),
            ..Default::default()
        })
        .unwrap();
    world.settle();
    assert_eq!(world.placed(), [("a".into(), None), ("b".into(), None)]);
    assert!(
        world
            .told(player)
            .all(|message| !matches!(message, Response::MediaSectionsRequirement(_)))
    );
    world.clear();
    world.room.send_data(proto::SendDataRequest {
        data: b"x".to_vec(),
        destination_identities: vec!["p1".into()],
        ..Default::default()
    });
    world.settle();
    assert!(world.commands.is_empty(), "a player has no data channel");
}

#[test]
fn a_player_follows_the_first_speaker_and_holds_in_silence() {
    let mut world = World::new();
    world.join_with(1, |newcomer| newcomer.view = speaker_view());
    let mut voices = Vec::new();
    for number in [2, 3, 4] {
        let session = world.join_with(number, |newcomer| {
            newcomer.permission.hidden = number == 4;
        });
        world.clear();
        let camera = world.publish(session).1;
        voices.push((world.publish_microphone(session), camera));
    }
    let [(first, first_camera), (second, second_camera), (hidden, _)] = voices[..] else {
        unreachable!()
    };
    let mut levels = |levels: &[(TrackId, u8)], times: usize| {
        world.clear();
        for _ in 0..times {
            world.now += Duration::from_millis(200);
            world.event(Event::AudioLevels(levels.to_vec()));
        }
        world.placed()
    };
    assert_eq!(levels(&[], 5), [], "nobody has spoken");
    assert_eq!(
        levels(&[(hidden, 5)], 5),
        [],
        "the list names no hidden one"
    );
    let to_first = [("0".to_owned(), Some(first_camera))];
    let to_second = [("0".to_owned(), Some(second_camera))];
    assert_eq!(levels(&[(first, 20)], 3), to_first);
    assert_eq!(levels(&[], 30), [], "the last speaker stays");
    assert_eq!(levels(&[(second, 20)], 3), to_second);
    // A louder one is followed only after a while, while the other goes on speaking.
    let both = [(first, 5), (second, 30)];
    assert_eq!(levels(&both, 5), []);
    assert_eq!(levels(&both, 10), to_first);
}
