//! Clients come in by WebSocket, with a media core that only writes down what it is told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use futures_util::{SinkExt as _, StreamExt as _};
use prost::Message as _;
use sfu::{Command, Event};
use signaling::proto;
use signaling::proto::signal_request::Message as Request;
use signaling::proto::signal_response::Message as Response;
use signaling::room::Room;
use signaling::token::{Claims, KeyRing, VideoGrant};
use signaling::{Hub, HubConfig, Media, event_queue};
use tokio_tungstenite::tungstenite::Message as Frame;

#[derive(Default)]
struct Notes {
    commands: Mutex<Vec<(usize, Command)>>,
    /// By shard.
    busy: [AtomicU64; SHARDS],
}

const SHARDS: usize = 2;

impl Notes {
    fn set_busy(&self, busy: u64) {
        for shard in &self.busy {
            shard.store(busy, Ordering::Relaxed);
        }
    }
}

impl Media for Notes {
    fn shards(&self) -> usize {
        SHARDS
    }

    fn send(&self, shard: usize, command: Command) {
        self.commands.lock().unwrap().push((shard, command));
    }

    fn busy(&self, shard: usize) -> u64 {
        self.busy[shard].load(Ordering::Relaxed)
    }
}

struct Server {
    hub: Arc<Hub>,
    notes: Arc<Notes>,
    address: std::net::SocketAddr,
}

fn keys() -> KeyRing {
    KeyRing::new([(
        "key".to_owned(),
        "a secret of at least thirty-two bytes".to_owned(),
    )])
}

fn token(identity: &str, change: impl FnOnce(&mut VideoGrant)) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let mut video = VideoGrant {
        room: "room".into(),
        room_join: true,
        ..Default::default()
    };
    change(&mut video);
    keys()
        .sign(&Claims {
            iss: "key".into(),
            sub: identity.into(),
            exp: now + 600,
            video,
            ..Default::default()
        })
        .unwrap()
}

async fn server() -> Server {
    let notes = Arc::new(Notes::default());
    let config = HubConfig {
        keys: keys(),
        limits: Default::default(),
        gate: None,
        ice_servers: vec![signaling::IceServer {
            url: "turn:turn.example.net".into(),
            username: "user".into(),
            credential: "secret".into(),
        }],
    };
    let hub = Hub::new(config, notes.clone());
    let (sink, queue) = event_queue();
    std::mem::forget(sink);
    tokio::spawn(hub.clone().run(queue));
    let app = signaling::session::router(hub.clone())
        .merge(signaling::twirp::router(hub.clone()))
        .merge(signaling::whip::router(hub.clone()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    Server {
        hub,
        notes,
        address,
    }
}

type Socket =
    tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

impl Server {
    async fn open(&self, path: &str) -> Result<Socket, tokio_tungstenite::tungstenite::Error> {
        let url = format!("ws://{}{path}", self.address);
        Ok(tokio_tungstenite::connect_async(url).await?.0)
    }

    async fn join(&self, identity: &str) -> (Socket, proto::JoinResponse) {
        let token = token(identity, |_| {});
        let mut socket = self
            .open(&format!("/rtc?access_token={token}"))
            .await
            .unwrap();
        let Some(Response::Join(join)) = hear(&mut socket).await else {
            panic!("no join")
        };
        (socket, join)
    }

    async fn status(&self, path: &str) -> u16 {
        match self.open(path).await {
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => {
                response.status().as_u16()
            }
            Err(other) => panic!("{other}"),
            Ok(_) => 101,
        }
    }
}

async fn hear(socket: &mut Socket) -> Option<Response> {
    loop {
        let frame = tokio::time::timeout(Duration::from_secs(10), socket.next())
            .await
            .unwrap();
        match frame {
            Some(Ok(Frame::Binary(bytes))) => {
                return proto::SignalResponse::decode(bytes).unwrap().message;
            }
            Some(Ok(Frame::Close(_)) | Err(_)) | None => return None,
            Some(Ok(_)) => {}
        }
    }
}

async fn hear_until<T>(socket: &mut Socket, pick: impl Fn(&Response) -> Option<T>) -> T {
    loop {
        let response = hear(socket).await.expect("the socket stays open");
        if let Some(picked) = pick(&response) {
            return picked;
        }
    }
}

async fn say(socket: &mut Socket, message: Request) {
    let request = proto::SignalRequest {
        message: Some(message),
    };
    socket
        .send(Frame::Binary(request.encode_to_vec().into()))
        .await
        .unwrap();
}

fn join_request(request: &proto::JoinRequest) -> String {
    let wrapped = proto::WrappedJoinRequest {
        compression: 0,
        join_request: request.encode_to_vec(),
    };
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(wrapped.encode_to_vec())
}

#[tokio::test]
async fn two_meet_and_one_leaves() {
    let server = server().await;
    let (mut ana, join) = server.join("ana").await;
    assert!(join.subscriber_primary);
    let (mut bo, join) = server.join("bo").await;
    assert_eq!(join.other_participants[0].identity, "ana");
    let state = hear_until(&mut ana, |response| match response {
        Response::Update(update) => Some(update.participants[0].state),
        _ => None,
    })
    .await;
    assert_eq!(state, proto::participant_info::State::Joined as i32);
    say(
        &mut bo,
        Request::PingReq(proto::Ping {
            timestamp: 5,
            rtt: 0,
        }),
    )
    .await;
    let pong = hear_until(&mut bo, |response| match response {
        Response::PongResp(pong) => Some(pong.last_ping_timestamp),
        _ => None,
    })
    .await;
    assert_eq!(pong, 5);
    say(&mut bo, Request::Leave(proto::LeaveRequest::default())).await;
    let reason = hear_until(&mut ana, |response| match response {
        Response::Update(update) => Some(update.participants[0].disconnect_reason()),
        _ => None,
    })
    .await;
    assert_eq!(reason, proto::DisconnectReason::ClientInitiated);
}

#[tokio::test]
async fn one_connection_brings_its_offer_along() {
    let server = server().await;
    let request = proto::JoinRequest {
        publisher_offer: Some(proto::SessionDescription {
            r#type: "offer".into(),
            sdp: "v=0".into(),
            id: 3,
            ..Default::default()
        }),
        ..Default::default()
    };
    let path = format!(
        "/rtc/v1?access_token={}&join_request={}",
        token("ana", |_| {}),
        join_request(&request)
    );
    let mut ana = server.open(&path).await.unwrap();
    let Some(Response::Join(join)) = hear(&mut ana).await else {
        panic!("no join")
    };
    assert!(!join.subscriber_primary);
    let connection = server
        .notes
        .commands
        .lock()
        .unwrap()
        .iter()
        .find_map(|(_, command)| match command {
            Command::Offer { connection, sdp } if sdp == "v=0" => Some(*connection),
            _ => None,
        })
        .unwrap();
    server.hub.on_event(
        0,
        Event::Answer {
            connection,
            sdp: "answer".into(),
            mids: Vec::new(),
        },
    );
    let id = hear_until(&mut ana, |response| match response {
        Response::Answer(answer) => Some(answer.id),
        _ => None,
    })
    .await;
    assert_eq!(id, 3);
}

#[tokio::test]
async fn a_cut_session_is_resumed_and_an_unknown_one_starts_afresh() {
    let server = server().await;
    let (ana, join) = server.join("ana").await;
    let sid = join.participant.unwrap().sid;
    drop(ana);
    let token = token("ana", |_| {});
    let resume = |sid: &str| format!("/rtc?access_token={token}&reconnect=1&sid={sid}");
    let mut ana = server.open(&resume(&sid)).await.unwrap();
    assert!(matches!(hear(&mut ana).await, Some(Response::Reconnect(_))));
    let mut lost = server.open(&resume("PA_unknown")).await.unwrap();
    let Some(Response::Leave(leave)) = hear(&mut lost).await else {
        panic!("no leave")
    };
    assert_eq!(leave.action(), proto::leave_request::Action::Reconnect);
    assert_eq!(server.hub.counts().participants, 1);
}

#[tokio::test]
async fn clients_are_told_of_ice_servers_when_they_join_and_when_they_resume() {
    let server = server().await;
    let (ana, join) = server.join("ana").await;
    let told = [proto::IceServer {
        urls: vec!["turn:turn.example.net".into()],
        username: "user".into(),
        credential: "secret".into(),
    }];
    assert_eq!(join.ice_servers, told);
    drop(ana);
    let sid = join.participant.unwrap().sid;
    let token = token("ana", |_| {});
    let path = format!("/rtc?access_token={token}&reconnect=1&sid={sid}");
    let mut ana = server.open(&path).await.unwrap();
    let Some(Response::Reconnect(reconnect)) = hear(&mut ana).await else {
        panic!("no reconnect")
    };
    assert_eq!(reconnect.ice_servers, told);
}

const TWO_CODECS: &str = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 opus/48000/2\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 VP8/90000\r\n";

#[tokio::test]
async fn a_payload_type_of_two_codecs_is_refused_before_the_engine_sees_it() {
    let server = server().await;
    let offer = proto::SessionDescription {
        r#type: "offer".into(),
        sdp: TWO_CODECS.into(),
        ..Default::default()
    };
    let request = proto::JoinRequest {
        publisher_offer: Some(offer.clone()),
        ..Default::default()
    };
    let path = format!(
        "/rtc/v1?access_token={}&join_request={}",
        token("ana", |_| {}),
        join_request(&request)
    );
    assert_eq!(server.status(&path).await, 400);
    let answer = proto::SessionDescription {
        r#type: "answer".into(),
        ..offer.clone()
    };
    for said in [Request::Offer(offer), Request::Answer(answer)] {
        let (mut ana, _) = server.join("ana").await;
        say(&mut ana, said).await;
        let close = loop {
            match ana.next().await.unwrap().unwrap() {
                Frame::Close(close) => break close.unwrap(),
                _ => continue,
            }
        };
        assert_eq!(u16::from(close.code), 1008);
        assert!(
            close
                .reason
                .contains("payload type 96 stands for two codecs"),
            "{}",
            close.reason
        );
    }
    let notes = server.notes.commands.lock().unwrap();
    let reached = notes
        .iter()
        .any(|(_, command)| matches!(command, Command::Offer { .. } | Command::Answer { .. }));
    assert!(!reached);
}

#[tokio::test]
async fn bad_tokens_and_requests_are_refused_before_the_upgrade() {
    let server = server().await;
    assert_eq!(server.status("/rtc").await, 401);
    assert_eq!(server.status("/rtc?access_token=a.b.c").await, 401);
    let no_join = token("ana", |video| video.room_join = false);
    assert_eq!(
        server.status(&format!("/rtc?access_token={no_join}")).await,
        401
    );
    let good = token("ana", |_| {});
    assert_eq!(
        server
            .status(&format!("/rtc/v1?access_token={good}&join_request=AAAA"))
            .await,
        400
    );
    server.hub.drain();
    assert_eq!(
        server.status(&format!("/rtc?access_token={good}")).await,
        503
    );
}

#[tokio::test]
async fn rooms_are_spread_over_shards_and_a_full_one_takes_nobody_new() {
    let server = server().await;
    let path = |room: &str, identity: &str| {
        let token = token(identity, |video| video.room = room.into());
        format!("/rtc?access_token={token}")
    };
    let mut sockets = Vec::new();
    for room in ["a", "b", "c", "d"] {
        sockets.push(server.open(&path(room, "ana")).await.unwrap());
    }
    let shard_of_rooms = || -> BTreeMap<u32, usize> {
        let commands = server.notes.commands.lock().unwrap();
        let opened = commands
            .iter()
            .filter_map(|(shard, command)| match command {
                Command::Open { connection, .. } => Some((Room::serial_of(connection.0), *shard)),
                _ => None,
            });
        opened.collect()
    };
    let on_first = || {
        let shards = shard_of_rooms().into_values();
        shards.filter(|shard| *shard == 0).count()
    };
    eventually(|| shard_of_rooms().len() == 4).await;
    assert_eq!(on_first(), 2, "two rooms on each shard");

    // The first room opened lies on the first shard, the second on the second.
    server.notes.busy[0].store(signaling::hub::OVERLOADED, Ordering::Relaxed);
    eventually(|| server.hub.is_overloaded_for("a", "bo")).await;
    assert!(!server.hub.is_overloaded_for("b", "bo"));
    assert!(
        !server.hub.is_overloaded_for("e", "bo"),
        "there is room for a new one"
    );
    assert_eq!(server.status(&path("a", "bo")).await, 503);
    for room in ["b", "e", "f"] {
        sockets.push(server.open(&path(room, "bo")).await.unwrap());
    }
    eventually(|| shard_of_rooms().len() == 6).await;
    assert_eq!(on_first(), 2, "new rooms go where there is time");
}

/// Waits until it is so.
async fn eventually(is_so: impl Fn() -> bool) {
    let is_so = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), is_so)
        .await
        .unwrap();
}

#[tokio::test]
async fn while_the_media_core_is_overloaded_only_those_inside_may_come_again() {
    let server = server().await;
    let (ana, join) = server.join("ana").await;
    let is_overloaded = async |busy: u64, wanted: bool| {
        server.notes.set_busy(busy);
        eventually(|| server.hub.is_overloaded_for("room", "bo") == wanted).await;
    };
    is_overloaded(signaling::hub::OVERLOADED, true).await;
    let path = |identity| format!("/rtc?access_token={}", token(identity, |_| {}));
    let Err(tokio_tungstenite::tungstenite::Error::Http(refused)) = server.open(&path("bo")).await
    else {
        panic!("it was let in")
    };
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "5");
    let words = String::from_utf8(refused.into_body().unwrap()).unwrap();
    assert!(words.contains("as busy as it can be"), "{words}");
    let (status, headers, problem) = whip::post(
        signaling::whip::router(server.hub.clone()),
        "/whip/room",
        "studio",
        whip::OFFER,
    )
    .await;
    assert_eq!(
        (status.as_u16(), &headers["retry-after"]),
        (503, &"5".parse().unwrap())
    );
    assert_eq!(problem["code"], "overloaded");
    assert_eq!(server.hub.counts().overloaded, 2);

    drop(ana);
    let sid = join.participant.unwrap().sid;
    let resume = format!("{}&reconnect=1&sid={sid}", path("ana"));
    let mut ana = server.open(&resume).await.unwrap();
    assert!(matches!(hear(&mut ana).await, Some(Response::Reconnect(_))));
    server.join("ana").await;

    // A little less is not enough: what the last ones brought may still be coming.
    server.notes.set_busy(signaling::hub::AT_EASE);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(server.status(&path("bo")).await, 503);
    is_overloaded(signaling::hub::AT_EASE - 1, false).await;
    server.join("bo").await;
}

#[tokio::test]
async fn noise_costs_its_session_and_the_others_feel_nothing() {
    let server = server().await;
    let (mut bo, _) = server.join("bo").await;
    for noise in [
        Frame::Binary(vec![0xff; 40].into()),
        Frame::Text("{}".into()),
    ] {
        let (mut ana, _) = server.join("ana").await;
        ana.send(noise).await.unwrap();
        let leave = hear_until(&mut ana, |response| match response {
            Response::Leave(leave) => Some(leave.clone()),
            _ => None,
        })
        .await;
        assert_eq!(leave.reason(), proto::DisconnectReason::StateMismatch);
    }
    say(&mut bo, Request::Ping(1)).await;
    hear_until(&mut bo, |response| {
        matches!(response, Response::Pong(_)).then_some(())
    })
    .await;
    assert_eq!(server.hub.counts().participants, 1);
}

#[tokio::test]
async fn draining_tells_clients_to_come_back() {
    let server = server().await;
    let (mut ana, _) = server.join("ana").await;
    server.hub.drain();
    let leave = hear_until(&mut ana, |response| match response {
        Response::Leave(leave) => Some(leave.clone()),
        _ => None,
    })
    .await;
    assert_eq!(leave.reason(), proto::DisconnectReason::ServerShutdown);
    assert_eq!(leave.action(), proto::leave_request::Action::Reconnect);
    assert!(hear(&mut ana).await.is_none());
}

mod whip {
    use axum::Router;
    use axum::body::Body;
    use axum::http::{HeaderMap, Request, StatusCode, header};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    pub(super) const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
        a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=fingerprint:sha-256 AB\r\n\
        a=setup:actpass\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:0\r\na=sendonly\r\n\
        a=rtpmap:96 VP8/90000\r\n";

    pub(super) async fn post(
        app: Router,
        path: &str,
        identity: &str,
        offer: &str,
    ) -> (StatusCode, HeaderMap, serde_json::Value) {
        let request = Request::post(path)
            .header("content-type", "application/sdp")
            .header(
                "authorization",
                format!("Bearer {}", token(identity, |_| {})),
            )
            .body(Body::from(offer.to_owned()))
            .unwrap();
        let response = app.oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or_default();
        (parts.status, parts.headers, body)
    }

    async fn until_there(server: &Server) {
        let is_there = async {
            while server.hub.participants_in("room") == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), is_there)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn while_the_server_drains_encoders_and_players_are_told_to_come_back() {
        let server = server().await;
        let app = signaling::whip::router(server.hub.clone());
        server.hub.drain();
        let watching = OFFER.replace("sendonly", "recvonly");
        for (path, offer) in [("/whip/room", OFFER), ("/whep/room", &watching)] {
            let (status, headers, problem) = post(app.clone(), path, "studio", offer).await;
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(problem["code"], "draining");
            assert_eq!(
                problem["detail"],
                "the server is restarting: try again in a moment"
            );
            assert_eq!(headers[header::RETRY_AFTER], "5");
        }
    }

    /// The media core here never answers, so a session is still beginning when something ends it.
    #[tokio::test]
    async fn a_session_that_is_ended_as_it_begins_hears_why() {
        for (ending, words) in [
            ("twin", "somebody with the same identity came"),
            ("removed", "it was removed from the room"),
            ("room deleted", "the room was deleted"),
            ("draining", "the server is restarting"),
        ] {
            let server = server().await;
            let app = signaling::whip::router(server.hub.clone());
            let begun = tokio::spawn(async move { post(app, "/whip/room", "studio", OFFER).await });
            until_there(&server).await;
            match ending {
                "twin" => drop(server.join("studio").await),
                "removed" => {
                    let admin = token("", |video| video.room_admin = true);
                    let body = r#"{"room":"room","identity":"studio"}"#;
                    twirp::call(&server.hub, "RemoveParticipant", &admin, body).await;
                }
                "room deleted" => assert!(server.hub.delete_room("room")),
                _ => server.hub.drain(),
            }
            let (status, _, problem) = begun.await.unwrap();
            assert_eq!(status, StatusCode::CONFLICT, "{ending}");
            assert_eq!(problem["code"], "ended");
            let detail = problem["detail"].as_str().unwrap();
            assert_eq!(
                detail,
                format!("the session was ended as it began: {words}")
            );
        }
    }
}

mod twirp {
    use axum::body::Body;
    use axum::http::{Request, StatusCode};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    pub(super) async fn call(
        hub: &Arc<Hub>,
        method: &str,
        token: &str,
        body: &str,
    ) -> (StatusCode, serde_json::Value) {
        let request = Request::post(format!("/twirp/livekit.RoomService/{method}"))
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .body(Body::from(body.to_owned()))
            .unwrap();
        let response = signaling::twirp::router(hub.clone())
            .oneshot(request)
            .await
            .unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn rooms_are_made_listed_and_deleted_with_the_grants_for_it() {
        let server = server().await;
        let hub = &server.hub;
        let creator = token("", |video| video.room_create = true);
        let lister = token("", |video| video.room_list = true);
        let body = r#"{"name":"r","empty_timeout":60,"maxParticipants":3}"#;
        let (status, error) = call(hub, "CreateRoom", &lister, body).await;
        assert_eq!(
            (status, &error["code"]),
            (StatusCode::FORBIDDEN, &"permission_denied".into())
        );
        let (status, room) = call(hub, "CreateRoom", &creator, body).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(room["maxParticipants"], 3);
        let (_, rooms) = call(hub, "ListRooms", &lister, "{}").await;
        assert_eq!(rooms["rooms"][0]["name"], "r");
        let (status, _) = call(hub, "DeleteRoom", &creator, r#"{"room":"r"}"#).await;
        assert_eq!(status, StatusCode::OK);
        let (status, error) = call(hub, "DeleteRoom", &creator, r#"{"room":"r"}"#).await;
        assert_eq!(
            (status, &error["code"]),
            (StatusCode::NOT_FOUND, &"not_found".into())
        );
        let (status, error) = call(hub, "ListRooms", "x", "{}").await;
        assert_eq!(
            (status, &error["code"]),
            (StatusCode::UNAUTHORIZED, &"unauthenticated".into())
        );
        let (status, _) = call(hub, "PerformRpc", &creator, "{}").await;
        assert_eq!(status, StatusCode::NOT_IMPLEMENTED);
        assert_eq!(
            call(hub, "Dance", &creator, "{}").await.0,
            StatusCode::NOT_FOUND
        );
        assert_eq!(
            call(hub, "ListRooms", &lister, "{").await.0,
            StatusCode::BAD_REQUEST
        );
    }

    #[tokio::test]
    async fn a_moderator_removes_somebody_from_its_own_room_only() {
        let server = server().await;
        let (mut ana, _) = server.join("ana").await;
        let other = token("", |video| {
            video.room = "other".into();
            video.room_admin = true;
        });
        let admin = token("", |video| video.room_admin = true);
        let body = r#"{"room":"room","identity":"ana"}"#;
        let (status, _) = call(&server.hub, "RemoveParticipant", &other, body).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        let (_, found) = call(&server.hub, "GetParticipant", &admin, body).await;
        assert_eq!(found["identity"], "ana");
        let (status, _) = call(&server.hub, "RemoveParticipant", &admin, body).await;
        assert_eq!(status, StatusCode::OK);
        let reason = hear_until(&mut ana, |response| match response {
            Response::Leave(leave) => Some(leave.reason()),
            _ => None,
        })
        .await;
        assert_eq!(reason, proto::DisconnectReason::ParticipantRemoved);
    }
}
