//! The meeting door: `/api/meetings/{code}` and `/api/meetings/{code}/join`, and the check of
//! everybody who comes in with one of the server's own tokens.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use signaling::token::{Claims, KeyRing, VideoGrant};
use signaling::{Gate, Hub};

use crate::guesses::Guesses;
use crate::meetings::{MEETING_KEY, Meeting, Meetings, now_ms, read_code, read_name};
use crate::problem::{Kind, Language, Problem};

/// The longest request, in bytes.
const BODY_BOUND: usize = 16 * 1024;
/// How long a guest's token is valid in a meeting without an end.
const TOKEN_VALIDITY: Duration = Duration::from_secs(12 * 60 * 60);
/// How long a seat keeps its identity.
const SEAT_VALIDITY: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The name under which seats are signed.
const SEAT_KEY: &str = "seat";
/// How soon a meeting that was ended elsewhere, or whose time is over, ends here.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// What the door needs.
pub(crate) struct Door {
    /// Rooms.
    pub(crate) hub: Arc<Hub>,
    /// Meetings.
    pub(crate) meetings: Meetings,
    /// Signs tokens and seats; see [`own_keys`].
    pub(crate) keys: KeyRing,
    /// Wrong codes.
    pub(crate) guesses: Guesses,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub(crate) trusted_proxies: Vec<IpAddr>,
}

/// The server's own keys, out of one secret.
pub(crate) fn own_keys(secret: &str) -> KeyRing {
    KeyRing::new([
        (MEETING_KEY.to_owned(), secret.to_owned()),
        // A seat must never pass as a token, so it is signed with another secret.
        (SEAT_KEY.to_owned(), format!("seat:{secret}")),
    ])
}

/// The endpoints.
pub(crate) fn router(door: Arc<Door>) -> Router {
    Router::new()
        .route("/api/meetings/{code}", get(show))
        .route("/api/meetings/{code}/join", post(join))
        .route("/api", any(nothing))
        .route("/api/{*rest}", any(nothing))
        .layer(DefaultBodyLimit::max(BODY_BOUND))
        .with_state(door)
}

async fn nothing(headers: HeaderMap) -> Problem {
    Kind::NotFound.told(Language::of(&headers))
}

#[derive(Serialize)]
struct Shown {
    code: String,
    name: String,
    ends_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    participants: Option<usize>,
}

fn rfc3339(ms: i64) -> Option<String> {
    let time = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok()?;
    time.format(&time::format_description::well_known::Rfc3339)
        .ok()
}

impl Shown {
    fn of(meeting: &Meeting, participants: Option<usize>) -> Shown {
        Shown {
            code: meeting.code.clone(),
            name: meeting.name.clone(),
            ends_at: meeting.ends_at.and_then(rfc3339),
            participants,
        }
    }
}

/// The address that a visitor comes from.
pub(crate) fn visitor(peer: IpAddr, headers: &HeaderMap, trusted: &[IpAddr]) -> IpAddr {
    if !trusted.contains(&peer.to_canonical()) {
        return peer;
    }
    // The rightmost address that none of our proxies has is the one that a proxy of ours saw.
    headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|text| text.trim().parse::<IpAddr>().ok())
        .rfind(|address| !trusted.contains(&address.to_canonical()))
        .unwrap_or(peer)
}

impl Door {
    async fn find(
        &self,
        code: &str,
        address: IpAddr,
        language: Language,
    ) -> Result<Meeting, Problem> {
        let now = Instant::now();
        if let Err(wait) = self.guesses.may_try(address, now) {
            let wait = wait.as_secs().max(1);
            return Err(Kind::TooManyAttempts.told(language).retry_after(wait));
        }
        let found = match read_code(code) {
            Some(code) => self.meetings.by_code(&code).await.map_err(|error| {
                tracing::error!(%error, "the meetings can't be read: check data_dir and its disk");
                Kind::Internal.told(language)
            })?,
            None => None,
        };
        match found {
            None => {
                self.guesses.failed(address, now);
                Err(Kind::MeetingNotFound.told(language))
            }
            Some(meeting) if meeting.is_over(now_ms()) => Err(Kind::MeetingEnded.told(language)),
            Some(meeting) => Ok(meeting),
        }
    }

    fn seated_identity(&self, seat: &str, meeting: &Meeting) -> Option<String> {
        let claims = self.keys.verify(seat, std::time::SystemTime::now()).ok()?;
        let fits = claims.iss == SEAT_KEY && claims.video.room == meeting.id;
        (fits && !claims.sub.is_empty()).then_some(claims.sub)
    }

    fn claims(&self, iss: &str, identity: &str, meeting: &Meeting, validity: Duration) -> Claims {
        let now = now_ms();
        let mut end = now + validity.as_millis() as i64;
        if let Some(ends_at) = meeting.ends_at {
            end = end.min(ends_at);
        }
        Claims {
            iss: iss.to_owned(),
            sub: identity.to_owned(),
            exp: (end / 1000).max(0) as u64,
            nbf: Some((now / 1000).max(0) as u64),
            video: VideoGrant {
                room: meeting.id.clone(),
                ..Default::default()
            },
            ..Default::default()
        }
    }
}

fn no_store(body: impl IntoResponse) -> Response {
    let mut response = body.into_response();
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn show(
    State(door): State<Arc<Door>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path(code): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let language = Language::of(&headers);
    let address = visitor(peer.ip(), &headers, &door.trusted_proxies);
    let meeting = door.find(&code, address, language).await?;
    let participants = door.hub.participants_in(&meeting.id);
    Ok(no_store(Json(Shown::of(&meeting, Some(participants)))))
}

#[derive(Deserialize)]
struct JoinBody {
    #[serde(default)]
    name: String,
    #[serde(default)]
    seat: Option<String>,
}

#[derive(Serialize)]
struct Admission {
    url: String,
    token: String,
    identity: String,
    seat: String,
    meeting: Shown,
}

async fn join(
    State(door): State<Arc<Door>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path(code): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let language = Language::of(&headers);
    if door.hub.is_draining() {
        return Err(Kind::Draining.told(language));
    }
    let address = visitor(peer.ip(), &headers, &door.trusted_proxies);
    let meeting = door.find(&code, address, language).await?;
    let body: JoinBody =
        serde_json::from_slice(&body).map_err(|_| Kind::InvalidRequest.told(language))?;
    let name = read_name(&body.name).ok_or_else(|| Kind::InvalidName.told(language))?;
    if door.hub.is_full() {
        return Err(Kind::ServerFull.told(language));
    }
    let identity = body
        .seat
        .and_then(|seat| door.seated_identity(&seat, &meeting))
        .unwrap_or_else(|| format!("guest-{}", uuid::Uuid::now_v7().simple()));
    if door.hub.is_overloaded_for(&meeting.id, &identity) {
        return Err(Kind::Overloaded.told(language));
    }
    let mut claims = door.claims(MEETING_KEY, &identity, &meeting, TOKEN_VALIDITY);
    claims.name = name;
    claims.video.room_join = true;
    claims.video.can_publish = Some(true);
    claims.video.can_subscribe = Some(true);
    claims.video.can_publish_data = Some(true);
    claims.video.can_update_own_metadata = Some(true);
    let seat = door.claims(SEAT_KEY, &identity, &meeting, SEAT_VALIDITY);
    let sign = |claims: &Claims| {
        door.keys.sign(claims).map_err(|error| {
            tracing::error!(%error, "a token could not be signed");
            Kind::Internal.told(language)
        })
    };
    Ok(no_store((
        StatusCode::OK,
        Json(Admission {
            url: String::new(),
            token: sign(&claims)?,
            seat: sign(&seat)?,
            identity,
            meeting: Shown::of(&meeting, None),
        }),
    )))
}

/// Lets nobody into a meeting that is over, whatever token they have.
pub(crate) struct MeetingGate(pub(crate) Meetings);

impl Gate for MeetingGate {
    fn may_enter<'a>(
        &'a self,
        claims: &'a Claims,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>> {
        Box::pin(async move {
            if claims.iss == SEAT_KEY {
                return Err("a seat is no token".to_owned());
            }
            let found = self.0.by_id(&claims.video.room).await.map_err(|error| {
                tracing::error!(%error, "the meetings can't be read: check data_dir and its disk");
                "the meeting can't be looked up: try again".to_owned()
            })?;
            match found {
                Some(meeting) if meeting.is_over(now_ms()) => {
                    Err("the meeting has ended".to_owned())
                }
                Some(_) => Ok(()),
                None if claims.iss == MEETING_KEY => Err("there is no such meeting".to_owned()),
                None => Ok(()),
            }
        })
    }
}

/// Ends the rooms of meetings that are over, for as long as the server runs.
pub(crate) async fn watch(door: Arc<Door>) {
    let mut interval = tokio::time::interval(WATCH_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        for room in door.hub.room_names() {
            match door.meetings.by_id(&room).await {
                Ok(Some(meeting)) if meeting.is_over(now_ms()) => {
                    tracing::info!(meeting = meeting.id, "the meeting is over");
                    door.hub.delete_room(&room);
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(%error, "the meetings can't be read: check data_dir and its disk");
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_trusted_proxy_says_where_a_visitor_comes_from() {
        let proxy: IpAddr = "10.0.0.1".parse().unwrap();
        let visitor_address: IpAddr = "192.0.2.9".parse().unwrap();
        let headers = HeaderMap::from_iter([(
            header::HeaderName::from_static("x-forwarded-for"),
            HeaderValue::from_static("203.0.113.1, 192.0.2.9, 10.0.0.1"),
        )]);
        assert_eq!(visitor(proxy, &headers, &[proxy]), visitor_address);
        assert_eq!(
            visitor(visitor_address, &headers, &[proxy]),
            visitor_address
        );
        assert_eq!(visitor(proxy, &HeaderMap::new(), &[proxy]), proxy);
    }
}
