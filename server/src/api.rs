//! The meeting endpoints of the web client: what a code opens, and the token to join with.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rand::Rng;
use serde::{Deserialize, Serialize};
use signaling::Hub;
use signaling::token::{Claims, VideoGrant};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::guesses::Guesses;
use crate::meetings::{Code, Meeting, Meetings};
use crate::problem::{Language, Problem};

/// The longest request body, in bytes.
const MAX_BODY: usize = 16 * 1024;

/// The longest name, in characters.
const MAX_NAME: usize = 64;

/// How long a join token opens the door; once inside, nobody needs it but to come back.
const TOKEN_TIME: Duration = Duration::from_secs(6 * 3600);

/// How long a seat can be taken again.
const SEAT_TIME: Duration = Duration::from_secs(24 * 3600);

/// The name of the key with which the server signs for its own meetings.
pub(crate) const OWN_KEY: &str = "terrace";

/// What the endpoints work with.
pub(crate) struct Api {
    pub(crate) hub: Arc<Hub>,
    pub(crate) meetings: Meetings,
    pub(crate) secret: String,
    pub(crate) guesses: Mutex<Guesses>,
    pub(crate) trusted_proxies: Vec<IpAddr>,
}

/// The routes under `/api`.
pub(crate) fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/api/meetings/{code}", get(show))
        .route("/api/meetings/{code}/join", post(join))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(api)
}

#[derive(Serialize)]
struct Shown {
    code: String,
    name: String,
    ends_at: Option<String>,
    participants: usize,
}

async fn show(
    State(api): State<Arc<Api>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path(code): Path<String>,
    headers: HeaderMap,
) -> Response {
    let address = api.address(peer, &headers);
    match api.open(&code, address).await {
        Ok(meeting) => no_store(Json(Shown {
            participants: api.hub.participants_in(&meeting.id),
            ends_at: ends_at(&meeting),
            code: meeting.code.to_string(),
            name: meeting.name,
        })),
        Err(problem) => problem.in_language(Language::of(&headers)),
    }
}

#[derive(Deserialize)]
struct Join {
    name: String,
    seat: Option<String>,
}

#[derive(Serialize)]
struct Joined {
    url: &'static str,
    token: String,
    identity: String,
    seat: String,
    meeting: JoinedMeeting,
}

#[derive(Serialize)]
struct JoinedMeeting {
    code: String,
    name: String,
    ends_at: Option<String>,
}

/// What a seat says: who sat where. Signed, so that nobody takes another's.
#[derive(Serialize, Deserialize)]
struct Seat {
    sub: String,
    meeting: String,
    exp: u64,
}

async fn join(
    State(api): State<Arc<Api>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path(code): Path<String>,
    headers: HeaderMap,
    body: Result<Json<Join>, JsonRejection>,
) -> Response {
    let address = api.address(peer, &headers);
    let outcome = async {
        let Json(join) = body.map_err(|_| Problem::InvalidRequest)?;
        let name = join.name.trim();
        if name.is_empty() || name.chars().count() > MAX_NAME || name.chars().any(char::is_control) {
            return Err(Problem::InvalidName);
        }
        if api.hub.is_draining() {
            return Err(Problem::Draining);
        }
        let meeting = api.open(&code, address).await?;
        let kept = join.seat.as_deref().and_then(|seat| api.sitter(seat, &meeting.id));
        if kept.is_none() && api.hub.is_full() {
            return Err(Problem::ServerFull);
        }
        let identity = kept.unwrap_or_else(|| format!("guest-{:016x}", rand::rng().random::<u64>()));
        api.let_in(name, identity, meeting)
    };
    match outcome.await {
        Ok(joined) => no_store(Json(joined)),
        Err(problem) => problem.in_language(Language::of(&headers)),
    }
}

impl Api {
    /// The meeting of a code that is open now. Wrong codes are counted against the address.
    async fn open(&self, code: &str, address: IpAddr) -> Result<Meeting, Problem> {
        let guesses = || self.guesses.lock().expect("guesses are only counted under this lock");
        if let Some(retry_after) = guesses().wait(address, Instant::now()) {
            return Err(Problem::TooManyAttempts { retry_after });
        }
        let found = match code.parse::<Code>() {
            Ok(code) => self.meetings.find(&code).await.map_err(|error| {
                tracing::error!(%error, "meetings can't be read: look at the data folder and its disk");
                Problem::Internal
            })?,
            Err(_) => None,
        };
        match found {
            None => {
                guesses().wrong(address, Instant::now());
                Err(Problem::MeetingNotFound)
            }
            Some(meeting) if meeting.has_ended(OffsetDateTime::now_utc()) => Err(Problem::MeetingEnded),
            Some(meeting) => Ok(meeting),
        }
    }

    /// Who sat on a seat of this meeting.
    fn sitter(&self, seat: &str, meeting: &str) -> Option<String> {
        let key = DecodingKey::from_secret(self.secret.as_bytes());
        let seat = jsonwebtoken::decode::<Seat>(seat, &key, &Validation::new(Algorithm::HS256)).ok()?.claims;
        (seat.meeting == meeting).then_some(seat.sub)
    }

    fn let_in(&self, name: &str, identity: String, meeting: Meeting) -> Result<Joined, Problem> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = Claims {
            iss: OWN_KEY.into(),
            sub: identity.clone(),
            name: name.into(),
            exp: now + TOKEN_TIME.as_secs(),
            video: VideoGrant {
                room: meeting.id.clone(),
                room_join: true,
                can_update_own_metadata: Some(true),
                ..VideoGrant::default()
            },
            ..Claims::default()
        };
        let seat = Seat { sub: identity.clone(), meeting: meeting.id.clone(), exp: now + SEAT_TIME.as_secs() };
        let key = EncodingKey::from_secret(self.secret.as_bytes());
        let sign_seat = || jsonwebtoken::encode(&Header::new(Algorithm::HS256), &seat, &key).ok();
        let (Ok(token), Some(seat)) = (self.hub.keys().sign(&claims), sign_seat()) else {
            tracing::error!("a join token can't be signed: look at the key in the data folder");
            return Err(Problem::Internal);
        };
        Ok(Joined {
            url: "",
            token,
            identity,
            seat,
            meeting: JoinedMeeting {
                ends_at: ends_at(&meeting),
                code: meeting.code.to_string(),
                name: meeting.name,
            },
        })
    }

    /// The client's address; behind a trusted proxy, the last one that it names.
    fn address(&self, peer: SocketAddr, headers: &HeaderMap) -> IpAddr {
        if !self.trusted_proxies.contains(&peer.ip()) {
            return peer.ip();
        }
        headers
            .get("x-forwarded-for")
            .and_then(|value| value.to_str().ok()?.rsplit(',').next()?.trim().parse().ok())
            .unwrap_or(peer.ip())
    }
}

fn ends_at(meeting: &Meeting) -> Option<String> {
    meeting.ends_at.and_then(|end| end.format(&Rfc3339).ok())
}

fn no_store(body: impl IntoResponse) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], body).into_response()
}
