//! WHIP (RFC 9725) for encoders and WHEP (draft-ietf-wish-whep) for players: `/whip/{room}` and
//! `/whep/{room}`.
//!
//! An encoder or player is a participant like others: the same tokens let it in, the same room
//! counts, shows, mutes and removes it, and the same bounds hold for it. Only what a client of
//! LiveKit says on its WebSocket is said here by HTTP. The address of its session can't be guessed,
//! and answers only to tokens of the same participant.

mod fragment;
mod offer;
mod resource;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Extension, OriginalUri, Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, post};
use base64::Engine as _;
use rand::RngCore as _;
use tokio::sync::oneshot;

use crate::budget::Budget;
use crate::hub::{Hub, outbox};
use crate::ice::IceServer;
use crate::log_limit::LogLimit;
use crate::problem::{Code, Problem};
use crate::room::{NAME_BOUND, SDP_BOUND, Whom};
use crate::session::{bearer, fit_claims, newcomer};
use crate::token::Claims;
use crate::visitors::Visitor;
use fragment::FRAGMENT_BOUND;
use resource::{IfMatch, Opened, Patched, Resource, Session, description};

/// The most participants that one player watches.
pub const WATCHED_BOUND: usize = 64;
/// Offers at once with one identity in one room.
const OFFERS_BURST: usize = 10;
/// Offers per second with one identity in one room, in the long run. Each sends the former session
/// away, and everybody in the room hears of it.
const OFFERS_PER_SECOND: usize = 1;
/// Identities whose offers are counted; those not heard of for a while are forgotten.
const COUNTED: usize = 10_000;
/// How long after its last offer an identity is counted.
const COUNTED_TIME: Duration = Duration::from_secs(60);

const SDP: &str = "application/sdp";
const SDP_FRAGMENT: &str = "application/trickle-ice-sdpfrag";

static REFUSED: LogLimit = LogLimit::new();

/// Checks that a body is survived as an offer and as a fragment, and what comes of one that is taken.
#[cfg(any(test, fuzzing))]
pub(crate) fn check(text: &str) {
    offer::check(text);
    fragment::check(text);
}

/// Checks what is made of an answer.
#[cfg(any(test, fuzzing))]
pub(crate) fn check_answer(answer: &str, offered: &str) {
    let _ = offer::is_whole(answer);
    let given = offer::as_offered(answer, offered);
    assert!(given.lines().count() >= answer.lines().filter(|line| line.starts_with("m=")).count());
    if let Some(fragment) = fragment::of_answer(answer) {
        assert!(
            matches!(fragment::read(&fragment), Ok(Some(_))),
            "{fragment}"
        );
    }
}

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Publish,
    Watch,
}

impl Use {
    fn name(self) -> &'static str {
        match self {
            Use::Publish => "whip",
            Use::Watch => "whep",
        }
    }
}

/// All sessions of encoders and players.
struct Desk {
    hub: Arc<Hub>,
    links: Vec<HeaderValue>,
    resources: Mutex<HashMap<String, Arc<Resource>>>,
    offers: Mutex<HashMap<(String, String), (Budget, Instant)>>,
}

impl Desk {
    fn resources(&self) -> MutexGuard<'_, HashMap<String, Arc<Resource>>> {
        self.resources
            .lock()
            .expect("the table of sessions is only looked up and changed")
    }

    fn forget(&self, id: &str) {
        self.resources().remove(id);
    }

    /// A name that nobody guesses: 128 random bits.
    fn new_name(&self) -> String {
        let mut bytes = [0; 16];
        rand::rng().fill_bytes(&mut bytes);
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
    }

    /// A strong entity tag (RFC 9110 8.8.3) of a new ICE session.
    fn new_tag(&self) -> String {
        format!("\"{}\"", self.new_name())
    }

    fn may_offer(&self, claims: &Claims) -> bool {
        let now = Instant::now();
        let mut offers = self.offers.lock().expect("no panic while counting");
        if offers.len() >= COUNTED {
            offers.retain(|_, (_, last)| now.saturating_duration_since(*last) < COUNTED_TIME);
        }
        let key = (claims.video.room.clone(), claims.sub.clone());
        if offers.len() >= COUNTED && !offers.contains_key(&key) {
            // So many identities offer at once: their sessions are bounded elsewhere.
            return true;
        }
        let fresh = || (Budget::new(OFFERS_BURST, OFFERS_PER_SECOND, now), now);
        let (budget, last) = offers.entry(key).or_insert_with(fresh);
        *last = now;
        budget.spend(1, now)
    }
}

/// The endpoints of encoders and players.
pub fn router(hub: Arc<Hub>) -> Router {
    let links = hub.ice_servers().iter().filter_map(IceServer::link);
    let links = links.collect();
    let desk = Arc::new(Desk {
        hub,
        links,
        resources: Mutex::default(),
        offers: Mutex::default(),
    });
    Router::new()
        .route("/whip/{room}", endpoint(post(publish)))
        .route("/whep/{room}", endpoint(post(watch)))
        .route("/whip/{room}/{session}", resource_routes(Use::Publish))
        .route("/whep/{room}/{session}", resource_routes(Use::Watch))
        .layer(from_fn(from_anywhere))
        .with_state(desk)
}

fn endpoint(route: MethodRouter<Arc<Desk>>) -> MethodRouter<Arc<Desk>> {
    route
        .options(async || {
            (
                StatusCode::OK,
                [(HeaderName::from_static("accept-post"), SDP)],
            )
        })
        .fallback(async || not_allowed("POST, OPTIONS"))
}

fn resource_routes(used_for: Use) -> MethodRouter<Arc<Desk>> {
    delete(move |desk, path, headers: HeaderMap| end(desk, path, headers, used_for))
        .patch(move |desk, path, headers: HeaderMap, body: Body| {
            patch(desk, path, headers, body, used_for)
        })
        .options(async || {
            (
                StatusCode::OK,
                [(HeaderName::from_static("accept-patch"), SDP_FRAGMENT)],
            )
        })
        .fallback(async || not_allowed("PATCH, DELETE, OPTIONS"))
}

/// Methods kept for later versions of the protocol (RFC 9725 4.2).
fn not_allowed(allowed: &'static str) -> Response {
    let problem = Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("this address takes {allowed}"),
    );
    ([(header::ALLOW, allowed)], problem).into_response()
}

/// Lets pages of all origins use the endpoints (the token is the guard), and logs refusals.
async fn from_anywhere(request: Request, next: Next) -> Response {
    let is_options = request.method() == Method::OPTIONS;
    let mut response = next.run(request).await;
    let status = response.status();
    if status.is_client_error()
        && let Some(suppressed) = REFUSED.pass(Instant::now())
    {
        tracing::warn!(
            status = status.as_u16(),
            reason = response.extensions().get::<Code>().map(|code| code.0),
            suppressed,
            "an encoder's or player's request was refused"
        );
    }
    let headers = response.headers_mut();
    let mut put = |name: HeaderName, value: &'static str| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    put(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    put(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        "Location, Link, ETag, Accept-Post, Accept-Patch, Retry-After, WWW-Authenticate",
    );
    put(header::CACHE_CONTROL, "no-store");
    if is_options {
        put(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            "POST, PATCH, DELETE, OPTIONS",
        );
        put(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "Authorization, Content-Type, If-Match",
        );
        put(header::ACCESS_CONTROL_MAX_AGE, "86400");
    }
    response
}

/// The participant of a request to `room`.
fn participant(desk: &Desk, headers: &HeaderMap, room: &str) -> Result<Claims, Problem> {
    let claims = fit_claims(&desk.hub, bearer(headers).unwrap_or_default())?;
    if claims.video.room == room {
        Ok(claims)
    } else {
        Err(Problem::not_granted(
            "the access token is for another room than the one in the address",
        ))
    }
}

fn check_type(headers: &HeaderMap, wanted: &'static str) -> Result<(), Problem> {
    let essence = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map(str::trim);
    if essence.is_some_and(|essence| essence.eq_ignore_ascii_case(wanted)) {
        Ok(())
    } else {
        Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            format!("the body must be of the type {wanted}"),
        ))
    }
}

async fn read_text(headers: &HeaderMap, body: Body, bound: usize) -> Result<String, Problem> {
    let too_long = || {
        Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_long",
            format!("the body is over {bound} bytes"),
        )
    };
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > bound as u64) {
        return Err(too_long());
    }
    let bytes = to_bytes(body, bound).await.map_err(|_| too_long())?;
    String::from_utf8(bytes.into()).map_err(|_| Problem::malformed("the body is not UTF-8 text"))
}

async fn publish(
    State(desk): State<Arc<Desk>>,
    Path(room): Path<String>,
    OriginalUri(uri): OriginalUri,
    visitor: Option<Extension<Visitor>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let claims = participant(&desk, &headers, &room)?;
    check_type(&headers, SDP)?;
    let sdp = read_text(&headers, body, SDP_BOUND).await?;
    let (offer, tracks) = offer::publishing(&sdp)?;
    let permission = claims.video.permission();
    for track in &tracks {
        if !crate::room::may_publish(&permission, track.source) {
            let source = if track.r#type == livekit_protocol::TrackType::Video as i32 {
                "a camera"
            } else {
                "a microphone"
            };
            return Err(Problem::not_granted(format!(
                "the access token does not grant publishing {source} (canPublish, canPublishSources)"
            )));
        }
    }
    let mut newcomer = newcomer(&desk.hub, &claims);
    newcomer.is_auto_subscribe = false;
    newcomer.add_tracks = tracks;
    newcomer.offer = Some(description(&offer));
    open(desk, claims, newcomer, visitor, uri.path(), Use::Publish).await
}

#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct Parameters {
    participants: Option<String>,
}

/// Whom a player watches.
fn watched(participants: Option<&str>) -> Result<Vec<Whom>, Problem> {
    let Some(list) = participants else {
        return Ok(vec![Whom::Speaker]);
    };
    let identities: Vec<&str> = list.split(',').take(WATCHED_BOUND + 1).collect();
    if identities.len() > WATCHED_BOUND {
        return Err(Problem::malformed(format!(
            "participants: a player watches at most {WATCHED_BOUND}"
        )));
    }
    let mut sorted = identities.clone();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Problem::malformed(
            "participants: an identity is there twice",
        ));
    }
    if identities
        .iter()
        .any(|identity| identity.is_empty() || identity.len() > NAME_BOUND)
    {
        return Err(Problem::malformed(
            "participants: identities, separated by commas, none empty or too long",
        ));
    }
    Ok(identities
        .into_iter()
        .map(|identity| Whom::Identity(identity.to_owned()))
        .collect())
}

async fn watch(
    State(desk): State<Arc<Desk>>,
    Path(room): Path<String>,
    OriginalUri(uri): OriginalUri,
    parameters: Result<Query<Parameters>, axum::extract::rejection::QueryRejection>,
    visitor: Option<Extension<Visitor>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let claims = participant(&desk, &headers, &room)?;
    check_type(&headers, SDP)?;
    let Query(parameters) =
        parameters.map_err(|_| Problem::malformed("the query of the address can't be read"))?;
    let shown = watched(parameters.participants.as_deref())?;
    let sdp = read_text(&headers, body, SDP_BOUND).await?;
    let (offer, places) = offer::watching(&sdp, &shown)?;
    if !claims.video.permission().can_subscribe {
        return Err(Problem::not_granted(
            "the access token does not grant watching (canSubscribe)",
        ));
    }
    let mut newcomer = newcomer(&desk.hub, &claims);
    newcomer.view = Some(places);
    newcomer.offer = Some(description(&offer));
    open(desk, claims, newcomer, visitor, uri.path(), Use::Watch).await
}

/// Lets a participant in and gives its session an address.
async fn open(
    desk: Arc<Desk>,
    claims: Claims,
    mut newcomer: crate::room::Newcomer,
    visitor: Option<Extension<Visitor>>,
    path: &str,
    used_for: Use,
) -> Result<Response, Problem> {
    if !desk.may_offer(&claims) {
        return Err(Problem::too_often(
            "this participant starts too many sessions in too short a time",
        ));
    }
    let place = desk
        .hub
        .take_place(visitor.map(|Extension(Visitor(address))| address))?;
    desk.hub.let_in(&claims).await?;
    newcomer.is_single = true;
    newcomer.hears_others = false;
    let offer = newcomer
        .offer
        .as_ref()
        .map(|offer| offer.sdp.clone())
        .unwrap_or_default();
    let (room, identity) = (claims.video.room, claims.sub);
    let session = newcomer.session;
    let (outbox, outlet) = outbox();
    let cell = desk.hub.join(&room, newcomer, outbox)?;
    let (resource, asks) = Resource::new(used_for, room.clone(), identity.clone());
    let id = desk.new_name();
    desk.resources().insert(id.clone(), Arc::new(resource));
    let running = Session {
        desk: desk.clone(),
        id: id.clone(),
        cell,
        session,
        outlet,
        offer,
        asks,
        about: (room, identity, used_for),
        _place: place,
    };
    // In a task of its own: a client that goes before its answer must not leave a participant.
    let (begin, begun) = oneshot::channel();
    tokio::spawn(running.run(begin));
    let Opened { answer, tag } = begun
        .await
        .map_err(|_| Problem::not_now("the session ended before it began"))??;
    let mut response = (StatusCode::CREATED, answer).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(SDP));
    let location = format!("{}/{id}", path.trim_end_matches('/'));
    for (name, value) in [(header::LOCATION, location), (header::ETAG, tag)] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    for link in &desk.links {
        headers.append(header::LINK, link.clone());
    }
    Ok(response)
}

/// The session of a request, which must be its participant's.
fn find(
    desk: &Desk,
    headers: &HeaderMap,
    (room, id): &(String, String),
    used_for: Use,
) -> Result<Arc<Resource>, Problem> {
    let claims = participant(desk, headers, room)?;
    let resource = desk.resources().get(id).cloned();
    let resource = resource
        .filter(|resource| resource.used_for == used_for && resource.room == *room)
        .ok_or_else(Problem::no_session)?;
    if resource.identity == claims.sub {
        Ok(resource)
    } else {
        Err(Problem::not_granted("the session is another participant's"))
    }
}

/// The condition of a PATCH. `*` is also taken in quotes, as RFC 9725 4.3.3 writes it.
fn if_match(headers: &HeaderMap) -> Result<IfMatch, Problem> {
    let value = headers
        .get(header::IF_MATCH)
        .and_then(|value| value.to_str().ok())
        .map(str::trim)
        .ok_or_else(|| {
            Problem::new(
                StatusCode::PRECONDITION_REQUIRED,
                "if_match_required",
                "If-Match is needed: the ETag of the ICE session for candidates, * for a restart",
            )
        })?;
    Ok(if ["*", "\"*\""].contains(&value) {
        IfMatch::Any
    } else {
        IfMatch::Tags(
            value
                .split(',')
                .take(16)
                .map(|tag| tag.trim().to_owned())
                .collect(),
        )
    })
}

async fn patch(
    State(desk): State<Arc<Desk>>,
    Path(path): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
    used_for: Use,
) -> Result<Response, Problem> {
    let resource = find(&desk, &headers, &path, used_for)?;
    if !resource.may_patch() {
        return Err(Problem::too_often(
            "too many requests for this session in too short a time",
        ));
    }
    check_type(&headers, SDP_FRAGMENT)?;
    let condition = if_match(&headers)?;
    let text = read_text(&headers, body, FRAGMENT_BOUND).await?;
    let credentials = fragment::read(&text)?;
    Ok(match resource.patch(condition, credentials).await? {
        Patched::Taken => StatusCode::NO_CONTENT.into_response(),
        Patched::Restarted { tag, fragment } => {
            let kind = [
                (header::CONTENT_TYPE, SDP_FRAGMENT.to_owned()),
                (header::ETAG, tag),
            ];
            (StatusCode::OK, kind, fragment).into_response()
        }
    })
}

async fn end(
    State(desk): State<Arc<Desk>>,
    Path(path): Path<(String, String)>,
    headers: HeaderMap,
    used_for: Use,
) -> Result<Response, Problem> {
    let resource = find(&desk, &headers, &path, used_for)?;
    resource.end().await?;
    Ok(StatusCode::OK.into_response())
}
