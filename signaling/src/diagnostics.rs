//! What a participant is sent and why, for who may moderate its room:
//! `GET /rooms/{room}/participants/{identity}/diagnostics`.
//!
//! The media core is asked when somebody asks here, and only then. Its answers come as events and
//! find those who wait for them in [`Questions`].

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use sfu::ConnectionId;
use sfu::account::Account;
use tokio::sync::oneshot;

use crate::hub::Hub;
use crate::log_limit::LogLimit;
use crate::problem::Problem;
use crate::room::{CallError, Diagnostics};
use crate::session::bearer;
use crate::token::TokenError;
use crate::visitors::{Place, Places};

/// The most requests that wait for the media core at once. An operator's page has one for each
/// participant that it shows.
const QUESTIONS: usize = 32;
/// How long the media core may take to answer. It answers within a turn; later, its thread stands
/// still, and waiting longer would not help.
const ANSWER_TIME: Duration = Duration::from_secs(3);

static REFUSED: LogLimit = LogLimit::new();

/// The endpoint.
pub fn router(hub: Arc<Hub>) -> Router {
    Router::new()
        .route(
            "/rooms/{room}/participants/{identity}/diagnostics",
            get(show),
        )
        .with_state(hub)
}

/// What the media core says of a connection; `None`: there is no such connection.
type Answer = Option<Arc<Account>>;

/// Who waits for which connection's account.
pub(crate) struct Questions {
    waiting: Mutex<Vec<(ConnectionId, oneshot::Sender<Answer>)>>,
    places: Arc<Places>,
}

impl Questions {
    pub(crate) fn new() -> Questions {
        Questions {
            waiting: Mutex::default(),
            places: Places::new(QUESTIONS, 0),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<(ConnectionId, oneshot::Sender<Answer>)>> {
        self.waiting
            .lock()
            .expect("the list of questions is only looked through and changed")
    }

    /// A place for one request, given back when dropped.
    fn place(&self) -> Result<Place, Problem> {
        let full = |_| Problem::not_now("too many diagnostics are asked for at once");
        self.places.take(None).map_err(full)
    }

    /// Waits for a connection's account. To be called before the media core is asked.
    fn expect(&self, connection: ConnectionId) -> oneshot::Receiver<Answer> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting();
        // Who does not wait any more was answered too late, or went away.
        waiting.retain(|(_, sender)| !sender.is_closed());
        waiting.push((connection, sender));
        receiver
    }

    /// Tells a connection's account to all who wait for it.
    pub(crate) fn answer(&self, connection: ConnectionId, account: Option<&Arc<Account>>) {
        let is_of = |(of, _): &mut (ConnectionId, _)| *of == connection;
        for (_, sender) in self.waiting().extract_if(.., is_of) {
            let _ = sender.send(account.cloned());
        }
    }
}

fn no_room() -> Problem {
    Problem::not_found("no_room", "there is no such room")
}

fn no_participant() -> Problem {
    Problem::not_found("no_participant", "there is no such participant in the room")
}

async fn show(
    State(hub): State<Arc<Hub>>,
    Path((room, identity)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    check_token(&hub, &headers, &room).inspect_err(|error| {
        if let Some(suppressed) = REFUSED.pass(Instant::now()) {
            tracing::warn!(reason = %error, suppressed, "a request for diagnostics was refused");
        }
    })?;
    let _place = hub.questions.place()?;
    let diagnostics = ask(&hub, &room, &identity).await?;
    let unkept = [(header::CACHE_CONTROL, "no-store")];
    Ok((unkept, Json(diagnostics)).into_response())
}

/// The same as for the RoomService.
fn check_token(hub: &Hub, headers: &HeaderMap, room: &str) -> Result<(), TokenError> {
    let token = bearer(headers).unwrap_or_default();
    let claims = hub.keys().verify(token, SystemTime::now())?;
    claims.require_admin(room)
}

async fn ask(hub: &Hub, room: &str, identity: &str) -> Result<Diagnostics, Problem> {
    let (asked, expected) = hub
        .in_room(room, |room, _| {
            let asked = room.explain(identity)?;
            let expected = asked.connections().map(|one| hub.questions.expect(one));
            Ok::<_, CallError>((asked, expected.collect::<Vec<_>>()))
        })
        .ok_or_else(no_room)?
        .map_err(|_| no_participant())?;
    let answers = tokio::time::timeout(ANSWER_TIME, async {
        let mut answers = Vec::new();
        for expected in expected {
            answers.push(expected.await.ok()?);
        }
        Some(answers)
    });
    let answers = answers.await.ok().flatten().ok_or_else(|| {
        Problem::new(
            StatusCode::GATEWAY_TIMEOUT,
            "no_answer",
            "the media core did not answer in time: its thread is overloaded or stands still",
        )
    })?;
    hub.in_room(room, |room, _| room.diagnostics(asked, &answers))
        .ok_or_else(no_room)?
        .ok_or_else(no_participant)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::{OnceLock, Weak};
    use std::time::UNIX_EPOCH;

    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt as _;
    use serde_json::Value;
    use sfu::account::{
        Account, Layer, Line, LineState, Picture, Processor, Published, Rank, Reason, Sound, Step,
    };
    use sfu::{Codec, Command, Event, Quality, Selection, TrackId};
    use tower::ServiceExt as _;

    use super::*;
    use crate::hub::{HubConfig, Media, Outlet, outbox};
    use crate::proto;
    use crate::token::{Claims, KeyRing, VideoGrant};

    /// A media core that has tracks and says an account of every connection, or nothing.
    #[derive(Default)]
    struct Core {
        hub: OnceLock<Weak<Hub>>,
        is_silent: bool,
        tracks: Mutex<Vec<TrackId>>,
        asked: Mutex<Vec<ConnectionId>>,
    }

    impl Media for Core {
        fn send(&self, shard: usize, command: Command) {
            match command {
                Command::Publish { track, .. } => self.tracks.lock().unwrap().push(track),
                Command::Explain { connection } => {
                    self.asked.lock().unwrap().push(connection);
                    let account = Some(Arc::new(account(&self.tracks.lock().unwrap())));
                    let answer = Event::Account {
                        connection,
                        account,
                    };
                    if !self.is_silent {
                        let hub = self.hub.get().and_then(Weak::upgrade).unwrap();
                        hub.on_event(shard, answer);
                    }
                }
                _ => {}
            }
        }
    }

    /// One in which there is something everywhere.
    fn account(tracks: &[TrackId]) -> Account {
        let step = Step {
            quality: Quality::Low,
            spatial: 0,
            temporal: 2,
            frame_rate: Some(14.96),
            bits: 150_000,
        };
        let picture = |track: &TrackId| Picture {
            track: *track,
            rank: Rank::Speaker,
            wanted: Selection::of(Quality::High),
            steps: vec![step, step],
            given: Some(step),
            sent: None,
            reason: Reason::Keyframe,
        };
        let sound = |track: &TrackId| Sound {
            track: *track,
            is_red: true,
            redundancy: 2,
            bits: Some(40_000),
            reason: Reason::All,
        };
        let layer = Layer {
            quality: Quality::High,
            is_received: true,
            bits: Some(1_700_000),
            frame_rate: None,
            temporal_layers: 3,
            subscribers: 2,
        };
        let published = |track: &TrackId| Published {
            track: *track,
            codec: Some(Codec::Vp8),
            is_muted: false,
            layers: vec![layer],
            wanted: Some(Quality::High),
            subscribers: 2,
        };
        Account {
            line: Line {
                state: LineState::Limited,
                estimate: Some(1_000_000),
                budget: Some(900_000),
                for_pictures: Some(860_000),
                sound: 40_000,
                given: 190_000,
                sent: Some(200_000),
                is_probing: true,
                loss: 0.012_345,
                own_loss: 0.0,
                is_doubled: false,
                round_trip: Some(Duration::from_micros(23_450)),
                queue: Duration::ZERO,
            },
            processor: Processor::Lowest,
            pictures: tracks.iter().map(picture).collect(),
            sounds: tracks.iter().map(sound).collect(),
            left_out: 0,
            published: tracks.iter().map(published).collect(),
        }
    }

    fn keys() -> KeyRing {
        KeyRing::new([(
            "key".to_owned(),
            "a secret of at least thirty-two bytes".to_owned(),
        )])
    }

    fn claims(identity: &str, video: VideoGrant) -> Claims {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Claims {
            iss: "key".into(),
            sub: identity.into(),
            exp: now.as_secs() + 600,
            attributes: HashMap::new(),
            video,
            ..Claims::default()
        }
    }

    fn grant(room: &str, is_admin: bool) -> VideoGrant {
        VideoGrant {
            room: room.into(),
            room_join: true,
            room_admin: is_admin,
            ..VideoGrant::default()
        }
    }

    fn token(video: VideoGrant) -> String {
        keys().sign(&claims("chair", video)).unwrap()
    }

    /// A room with somebody who has published a camera, over one connection or two.
    fn meeting(core: Core, is_single: bool) -> (Arc<Hub>, Arc<Core>, Outlet) {
        let core = Arc::new(core);
        let config = HubConfig {
            keys: keys(),
            limits: Default::default(),
            gate: None,
            ice_servers: Vec::new(),
        };
        let hub = Hub::new(config, core.clone());
        core.hub.set(Arc::downgrade(&hub)).unwrap();
        let (outbox, outlet) = outbox();
        let mut newcomer = crate::session::newcomer(&hub, &claims("ana/1", grant("room", false)));
        newcomer.is_single = is_single;
        newcomer.add_tracks = vec![proto::AddTrackRequest {
            cid: "camera".into(),
            r#type: proto::TrackType::Video as i32,
            source: proto::TrackSource::Camera as i32,
            ..Default::default()
        }];
        hub.join("room", newcomer, outbox).unwrap();
        (hub, core, outlet)
    }

    async fn get(hub: &Arc<Hub>, path: &str, token: &str) -> (u16, Value) {
        let request = Request::get(path)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .body(Body::empty())
            .unwrap();
        let response = router(hub.clone()).oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    /// Of the participant `ana/1`.
    const PATH: &str = "/rooms/room/participants/ana%2F1/diagnostics";

    #[tokio::test]
    async fn who_may_moderate_the_room_reads_what_is_sent_and_why() {
        let (hub, core, _outlet) = meeting(Core::default(), true);
        let (status, read) = get(&hub, PATH, &token(grant("room", true))).await;
        assert_eq!(status, 200, "{read}");
        assert_eq!(
            (&read["room"], &read["identity"]),
            (&"room".into(), &"ana/1".into())
        );
        let line = &read["receives"]["line"];
        assert_eq!(line["state"], "limited");
        assert_eq!(line["for_pictures"], 860_000);
        assert_eq!(line["loss"], 0.0123);
        assert_eq!(line["round_trip_ms"], 23.5);
        assert_eq!(read["receives"]["processor"], "lowest");
        let picture = &read["receives"]["pictures"][0];
        assert_eq!(picture["publisher"], "ana/1");
        assert_eq!(picture["source"], "camera");
        assert_eq!(
            (&picture["rank"], &picture["reason"]),
            (&"speaker".into(), &"keyframe".into())
        );
        assert_eq!(picture["steps"][1]["bitrate"], 150_000);
        assert_eq!(picture["given"]["frame_rate"], 15.0);
        assert_eq!(picture["sent"], Value::Null);
        let sound = &read["receives"]["sounds"][0];
        assert_eq!(
            (&sound["sent"], &sound["red"]),
            (&true.into(), &true.into())
        );
        let published = &read["publishes"][0];
        assert!(published["track"].as_str().unwrap().starts_with("TR_"));
        assert_eq!(published["codec"], "video/VP8");
        assert_eq!(published["layers"][0]["subscribers"], 2);
        assert_eq!(core.asked.lock().unwrap().len(), 1);
        assert!(hub.questions.waiting().is_empty());
    }

    #[tokio::test]
    async fn both_connections_of_one_who_has_two_are_asked() {
        let (hub, core, _outlet) = meeting(Core::default(), false);
        let (status, read) = get(&hub, PATH, &token(grant("room", true))).await;
        assert_eq!(status, 200);
        let asked = core.asked.lock().unwrap();
        assert!(asked.len() == 2 && asked[0] != asked[1], "{asked:?}");
        assert_eq!(read["publishes"].as_array().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn others_may_not_and_what_is_not_there_is_not_found() {
        let (hub, core, _outlet) = meeting(Core::default(), true);
        let admin = token(grant("room", true));
        let nobody = "/rooms/room/participants/bo/diagnostics";
        let nowhere = "/rooms/other/participants/ana/diagnostics";
        for (path, token, status, code) in [
            (PATH, String::new(), 401, "no_access"),
            (PATH, "not a token".into(), 401, "no_access"),
            (PATH, token(grant("room", false)), 403, "not_granted"),
            (PATH, token(grant("other", true)), 403, "not_granted"),
            // Whether there is such a room is not told either.
            (nowhere, admin.clone(), 403, "not_granted"),
            (nowhere, token(grant("other", true)), 404, "no_room"),
            (nobody, admin, 404, "no_participant"),
        ] {
            let (found, problem) = get(&hub, path, &token).await;
            assert_eq!((found, &problem["code"]), (status, &code.into()), "{path}");
        }
        assert!(core.asked.lock().unwrap().is_empty(), "nobody is asked");
    }

    #[tokio::test(start_paused = true)]
    async fn a_media_core_that_stands_still_is_waited_for_by_few_and_not_long() {
        let core = Core {
            is_silent: true,
            ..Core::default()
        };
        let (hub, _, _outlet) = meeting(core, true);
        let admin = token(grant("room", true));
        let ask = || {
            let (hub, admin) = (hub.clone(), admin.clone());
            tokio::spawn(async move { get(&hub, PATH, &admin).await })
        };
        let asking: Vec<_> = (0..=QUESTIONS).map(|_| ask()).collect();
        let mut found = HashMap::new();
        for asking in asking {
            let (status, _) = asking.await.unwrap();
            *found.entry(status).or_insert(0) += 1;
        }
        assert_eq!(found, HashMap::from([(503, 1), (504, QUESTIONS)]));
        assert_eq!(hub.questions.places.taken(), 0);
        // The next one clears away what those left behind.
        assert_eq!(get(&hub, PATH, &admin).await.0, 504);
        assert_eq!(hub.questions.waiting().len(), 1);
    }
}
