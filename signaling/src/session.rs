//! The WebSocket of one client, `/rtc` and `/rtc/v1`, and the answers to "why was I refused".

use std::io::Read as _;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::ws::{CloseFrame, Message as Frame, WebSocket, WebSocketUpgrade};
use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use livekit_protocol as proto;
use prost::Message as _;
use proto::wrapped_join_request::Compression;
use proto::{DisconnectReason, leave_request::Action};

use crate::budget::Budget;
use crate::hub::{Barred, Hub, OUTGOING_BYTES, Outbox, Outgoing, Outlet, RoomCell, outbox};
use crate::log_limit::LogLimit;
use crate::room::{
    ATTRIBUTES_BOUND, METADATA_BOUND, NAME_BOUND, Newcomer, PING_TIMEOUT, SessionId, check_sdp,
    encode, is_plain, refusal,
};
use crate::token::{Claims, TokenError};
use crate::visitors::{Place, Visitor};

/// The longest message of a client, in bytes.
pub const MESSAGE_BOUND: usize = 1024 * 1024;
/// The longest join request, unpacked, in bytes: an offer, tracks and metadata.
pub const JOIN_REQUEST_BOUND: usize = 1024 * 1024;
/// The longest join request as it stands in the address, in bytes.
pub const JOIN_REQUEST_TEXT_BOUND: usize = 256 * 1024;
/// The most messages of a client at once, pings too. A browser that joins a hall of a thousand
/// people says about two for each; one that says more has gone mad or means harm.
pub const MESSAGES_BURST: usize = 3000;
/// Messages of a client per second, in the long run.
pub const MESSAGES_PER_SECOND: usize = 100;
/// The most bytes of a client's messages at once: some fifty long offers.
pub const MESSAGE_BYTES_BURST: usize = 8 * 1024 * 1024;
/// Bytes of a client's messages per second, in the long run.
pub const MESSAGE_BYTES_PER_SECOND: usize = 512 * 1024;
/// Bytes read at once from a WebSocket; they are kept for as long as it is open.
const READ_BUFFER: usize = 2 * 1024;
/// How long one message may take to be written to a client.
pub const WRITE_TIME: Duration = Duration::from_secs(10);
/// How many messages are read of a client that is gone, looking for its leave.
const LAST_WORDS: usize = 32;
/// How long they may take to be read: they are here already, if at all.
const LAST_WORDS_TIME: Duration = Duration::from_millis(500);
/// How long a client may take to close its side.
const CLOSE_TIME: Duration = Duration::from_secs(2);
/// How often a client gets a fresh token to come back with.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// How long a fresh token is valid, unless the old one is valid for longer.
const REFRESH_VALIDITY: Duration = Duration::from_secs(10 * 60);
/// The most tracks announced with a join.
const JOIN_TRACKS_BOUND: usize = 32;
/// The most text in a close frame, by RFC 6455 5.5, in bytes.
const CLOSE_REASON_BOUND: usize = 120;

/// The codes of RFC 6455 7.4.1 that close frames carry.
mod close_code {
    pub(super) const NORMAL: u16 = 1000;
    pub(super) const PROTOCOL_ERROR: u16 = 1002;
    pub(super) const TEXT_REFUSED: u16 = 1003;
    pub(super) const NOT_A_MESSAGE: u16 = 1007;
    pub(super) const BOUND_BROKEN: u16 = 1008;
    pub(super) const TOO_LONG: u16 = 1009;
}

static BAD_TOKEN: LogLimit = LogLimit::new();
static BAD_MESSAGE: LogLimit = LogLimit::new();
static BAD_JOIN: LogLimit = LogLimit::new();
static SLOW_READER: LogLimit = LogLimit::new();
static TURNED_AWAY: LogLimit = LogLimit::new();
// A hall's whole attendance may come within a few seconds, and each is worth its line.
static OPENED: LogLimit = LogLimit::of(200);
static CLOSED: LogLimit = LogLimit::of(200);

/// The endpoints of clients.
pub fn router(hub: Arc<Hub>) -> Router {
    Router::new()
        .route("/rtc", get(rtc))
        .route("/rtc/v1", get(rtc_v1))
        .route("/rtc/validate", get(validate).options(preflight))
        .route("/rtc/v1/validate", get(validate_v1).options(preflight))
        .with_state(hub)
}

/// The query of all four endpoints.
#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct Parameters {
    access_token: String,
    join_request: String,
    auto_subscribe: Option<String>,
    adaptive_stream: Option<String>,
    reconnect: String,
    sid: String,
    client_protocol: Option<i32>,
}

fn is_set(value: &str) -> bool {
    matches!(value, "1" | "true" | "True" | "TRUE")
}

/// Why a client is refused before it has a session.
struct Rejection(StatusCode, String);

impl From<Barred> for Rejection {
    fn from(barred: Barred) -> Self {
        Rejection(status_of(&barred), barred.to_string())
    }
}

/// How HTTP says that somebody can't come in; the log hears of it too.
pub(crate) fn status_of(barred: &Barred) -> StatusCode {
    if *barred != Barred::Draining
        && let Some(suppressed) = TURNED_AWAY.pass(Instant::now())
    {
        tracing::warn!(reason = %barred, suppressed, "a client was turned away");
    }
    match barred {
        Barred::Draining | Barred::Overloaded | Barred::ServerFull => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Barred::AddressFull => StatusCode::TOO_MANY_REQUESTS,
        Barred::RoomFull | Barred::OtherTokens | Barred::Gate(_) => StatusCode::FORBIDDEN,
    }
}

fn with_cors(mut response: Response) -> Response {
    // The token is the guard, and a page on another origin has it or not.
    let headers = response.headers_mut();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        HeaderValue::from_static("*"),
    );
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("*, authorization"),
    );
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, OPTIONS"),
    );
    headers.insert(
        header::ACCESS_CONTROL_MAX_AGE,
        HeaderValue::from_static("86400"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        HeaderName::from_static("x-content-type-options"),
        HeaderValue::from_static("nosniff"),
    );
    response
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let mut response = (self.0, self.1).into_response();
        if matches!(
            self.0,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
        ) {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        with_cors(response)
    }
}

/// The token of a request, from its header or its address.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Why a token lets nobody in.
pub(crate) enum Unfit {
    /// It is not valid, or not for this.
    Token(TokenError),
    /// It is valid, but what it says can't be used.
    Text(&'static str),
}

impl From<TokenError> for Unfit {
    fn from(error: TokenError) -> Unfit {
        Unfit::Token(error)
    }
}

impl From<Unfit> for Rejection {
    fn from(unfit: Unfit) -> Rejection {
        match unfit {
            Unfit::Token(error) => Rejection(StatusCode::UNAUTHORIZED, error.to_string()),
            Unfit::Text(reason) => Rejection(StatusCode::BAD_REQUEST, reason.into()),
        }
    }
}

fn check_claims(
    hub: &Hub,
    headers: &HeaderMap,
    parameters: &Parameters,
) -> Result<Claims, Rejection> {
    let token = bearer(headers).unwrap_or(&parameters.access_token);
    Ok(fit_claims(hub, token)?)
}

/// What a token says that lets somebody join.
pub(crate) fn fit_claims(hub: &Hub, token: &str) -> Result<Claims, Unfit> {
    let checked = hub
        .keys()
        .verify(token, SystemTime::now())
        .and_then(|claims| claims.require_join().map(|()| claims));
    let claims = checked.inspect_err(|error| {
        if let Some(suppressed) = BAD_TOKEN.pass(Instant::now()) {
            tracing::warn!(%error, suppressed, "a client's access token was refused");
        }
    })?;
    let too_long = claims.sub.len() > NAME_BOUND
        || claims.name.len() > NAME_BOUND
        || claims.video.room.len() > NAME_BOUND
        || claims.metadata.len() > METADATA_BOUND;
    let reason = if too_long {
        "the token's identity, name, room or metadata is too long"
    } else if ![&claims.sub, &claims.name, &claims.video.room]
        .into_iter()
        .all(|text| is_plain(text))
    {
        "the token's identity, name or room has control characters"
    } else {
        return Ok(claims);
    };
    if let Some(suppressed) = BAD_JOIN.pass(Instant::now()) {
        tracing::warn!(reason, suppressed, "a client's join was refused");
    }
    Err(Unfit::Text(reason))
}

async fn preflight() -> Response {
    with_cors(StatusCode::NO_CONTENT.into_response())
}

async fn validate(
    State(hub): State<Arc<Hub>>,
    headers: HeaderMap,
    Query(parameters): Query<Parameters>,
) -> Result<Response, Rejection> {
    let claims = check_claims(&hub, &headers, &parameters)?;
    hub.admit(&claims).await?;
    Ok(with_cors("success".into_response()))
}

async fn validate_v1(
    State(hub): State<Arc<Hub>>,
    headers: HeaderMap,
    Query(parameters): Query<Parameters>,
) -> Result<Response, Rejection> {
    let claims = check_claims(&hub, &headers, &parameters)?;
    read_join_request(&parameters.join_request)?;
    hub.admit(&claims).await?;
    Ok(with_cors("success".into_response()))
}

/// How somebody comes.
enum Arrival {
    Join(Box<Newcomer>),
    Resume { sid: String },
}

async fn rtc(
    State(hub): State<Arc<Hub>>,
    headers: HeaderMap,
    Query(parameters): Query<Parameters>,
    visitor: Option<Extension<Visitor>>,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Rejection> {
    let claims = check_claims(&hub, &headers, &parameters)?;
    let arrival = if is_set(&parameters.reconnect) {
        Arrival::Resume {
            sid: parameters.sid,
        }
    } else {
        let mut newcomer = newcomer(&hub, &claims);
        newcomer.is_auto_subscribe = parameters.auto_subscribe.as_deref().is_none_or(is_set);
        newcomer.is_adaptive = parameters.adaptive_stream.as_deref().is_some_and(is_set);
        newcomer.client_protocol = parameters.client_protocol.unwrap_or_default();
        Arrival::Join(Box::new(newcomer))
    };
    enter(hub, claims, arrival, visitor, upgrade).await
}

async fn rtc_v1(
    State(hub): State<Arc<Hub>>,
    headers: HeaderMap,
    Query(parameters): Query<Parameters>,
    visitor: Option<Extension<Visitor>>,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Rejection> {
    let claims = check_claims(&hub, &headers, &parameters)?;
    let request = read_join_request(&parameters.join_request)?;
    let arrival = if request.reconnect {
        Arrival::Resume {
            sid: request.participant_sid,
        }
    } else {
        let mut newcomer = newcomer(&hub, &claims);
        newcomer.is_single = true;
        if let Some(settings) = request.connection_settings {
            newcomer.is_auto_subscribe = settings.auto_subscribe;
            newcomer.is_adaptive = settings.adaptive_stream;
        }
        if let Some(client) = request.client_info {
            newcomer.client_protocol = client.client_protocol;
            newcomer.capabilities = client.capabilities.into_iter().take(32).collect();
        }
        if newcomer.permission.can_update_metadata {
            if !request.metadata.is_empty() {
                newcomer.metadata = request.metadata;
            }
            newcomer.attributes.extend(request.participant_attributes);
        }
        newcomer.add_tracks = request.add_track_requests;
        newcomer.offer = request.publisher_offer;
        Arrival::Join(Box::new(newcomer))
    };
    enter(hub, claims, arrival, visitor, upgrade).await
}

pub(crate) fn newcomer(hub: &Hub, claims: &Claims) -> Newcomer {
    Newcomer {
        session: hub.next_session(),
        identity: claims.sub.clone(),
        name: claims.name.clone(),
        metadata: claims.metadata.clone(),
        attributes: claims.attributes.clone(),
        kind: claims.participant_kind() as i32,
        permission: claims.video.permission(),
        client_protocol: 0,
        capabilities: Vec::new(),
        is_single: false,
        is_auto_subscribe: true,
        is_adaptive: false,
        add_tracks: Vec::new(),
        offer: None,
        hears_others: true,
        view: None,
        conference: claims.conference.clone().map(Arc::new),
    }
}

/// Unpacks the `join_request` parameter: base64url of a wrapper, which may be gzipped inside.
fn read_join_request(text: &str) -> Result<proto::JoinRequest, Rejection> {
    unpack_join_request(text).map_err(|reason| {
        if let Some(suppressed) = BAD_JOIN.pass(Instant::now()) {
            tracing::warn!(reason, suppressed, "a client's join was refused");
        }
        Rejection(StatusCode::BAD_REQUEST, format!("join_request: {reason}"))
    })
}

fn unpack_join_request(text: &str) -> Result<proto::JoinRequest, String> {
    if text.is_empty() {
        return Err("is missing".into());
    }
    if text.len() > JOIN_REQUEST_TEXT_BOUND {
        return Err("is too long".into());
    }
    // SDKs differ in alphabet and padding.
    let plain: String = text
        .trim_end_matches('=')
        .chars()
        .map(|c| match c {
            '+' | ' ' => '-',
            '/' => '_',
            other => other,
        })
        .collect();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(plain)
        .map_err(|_| "is not base64")?;
    let wrapped =
        proto::WrappedJoinRequest::decode(&*bytes).map_err(|_| "is not a WrappedJoinRequest")?;
    let inner = match Compression::try_from(wrapped.compression) {
        Ok(Compression::None) => wrapped.join_request,
        Ok(Compression::Gzip) => {
            let mut unpacked = Vec::new();
            flate2::read::GzDecoder::new(&*wrapped.join_request)
                .take(JOIN_REQUEST_BOUND as u64 + 1)
                .read_to_end(&mut unpacked)
                .map_err(|_| "is not gzip")?;
            unpacked
        }
        Err(_) => return Err("is packed in an unknown way".into()),
    };
    if inner.len() > JOIN_REQUEST_BOUND {
        return Err("is too long".into());
    }
    let request = proto::JoinRequest::decode(&*inner).map_err(|_| "is not a JoinRequest")?;
    if let Some(offer) = &request.publisher_offer {
        check_sdp(&offer.sdp).map_err(|refusal| refusal.to_string())?;
    }
    let attributes: usize = request
        .participant_attributes
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    if request.metadata.len() > METADATA_BOUND || attributes > ATTRIBUTES_BOUND {
        return Err("has too much metadata".into());
    }
    if request.add_track_requests.len() > JOIN_TRACKS_BOUND {
        return Err("has too many tracks".into());
    }
    Ok(request)
}

/// Checks that a join request is refused or within its bounds.
#[cfg(any(test, fuzzing))]
pub(crate) fn check_join_request(text: &str) {
    if let Ok(request) = unpack_join_request(text) {
        assert!(request.metadata.len() <= METADATA_BOUND);
        assert!(request.add_track_requests.len() <= JOIN_TRACKS_BOUND);
        if let Some(offer) = request.publisher_offer {
            assert!(check_sdp(&offer.sdp).is_ok());
        }
    }
}

async fn enter(
    hub: Arc<Hub>,
    claims: Claims,
    arrival: Arrival,
    visitor: Option<Extension<Visitor>>,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Rejection> {
    let place = hub.take_place(visitor.map(|Extension(Visitor(address))| address))?;
    hub.let_in(&claims).await?;
    let upgrade = upgrade
        .max_message_size(MESSAGE_BOUND)
        .max_frame_size(MESSAGE_BOUND)
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        // The longest is a join into a full hall, which the queue's bound also holds for.
        .max_write_buffer_size(OUTGOING_BYTES + READ_BUFFER);
    Ok(upgrade.on_upgrade(move |socket| async move {
        run(hub, claims, arrival, socket, place).await;
    }))
}

/// Runs a session from its first message to its close frame.
async fn run(
    hub: Arc<Hub>,
    claims: Claims,
    arrival: Arrival,
    mut socket: WebSocket,
    _place: Place,
) {
    let (outbox, mut outlet) = outbox();
    let entered = come_in(&hub, &claims, arrival, outbox);
    let (session, cell) = match entered {
        Ok(entered) => entered,
        Err((reason, action, text)) => {
            let _ = write(&mut socket, Frame::Binary(refusal(reason, action)), &outlet).await;
            close(&mut socket, close_code::NORMAL, &text).await;
            return;
        }
    };
    if let Some(suppressed) = OPENED.pass(Instant::now()) {
        tracing::info!(
            room = claims.video.room,
            participant = claims.sub,
            session = session.0,
            suppressed,
            "session opened"
        );
    }
    let end = converse(&hub, &claims, session, &cell, &mut socket, &mut outlet).await;
    match &end {
        End::Closed { .. } => {}
        End::Lost(_) => hub.session_lost(&cell, session),
        End::Slow => {
            hub.read_too_slowly(&cell, session);
            if let Some(suppressed) = SLOW_READER.pass(Instant::now()) {
                tracing::warn!(
                    room = claims.video.room,
                    participant = claims.sub,
                    suppressed,
                    "a client reads its messages too slowly: its WebSocket was closed, and it may \
                     resume"
                );
            }
        }
        End::Broken { reason, .. } => {
            hub.refuse(&cell, session, reason);
            if let Some(suppressed) = BAD_MESSAGE.pass(Instant::now()) {
                tracing::warn!(
                    room = claims.video.room,
                    participant = claims.sub,
                    reason,
                    suppressed,
                    "a client broke the protocol: its session was ended"
                );
            }
        }
    }
    let (code, text) = match end {
        End::Closed { is_fault, reason } if is_fault => (close_code::BOUND_BROKEN, reason),
        End::Closed { reason, .. } => (close_code::NORMAL, reason),
        End::Lost(text) => (close_code::NORMAL, text.to_owned()),
        End::Slow => (
            close_code::BOUND_BROKEN,
            "messages were read too slowly".to_owned(),
        ),
        End::Broken { code, reason } => {
            // What was queued last says why, so it is sent before the close.
            let _ = tokio::time::timeout(CLOSE_TIME, async {
                while let Some(Outgoing::Message(message)) = outlet.next().await {
                    if write(&mut socket, Frame::Binary(message), &outlet)
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
            })
            .await;
            (code, reason)
        }
    };
    if let Some(suppressed) = CLOSED.pass(Instant::now()) {
        tracing::info!(
            room = claims.video.room,
            participant = claims.sub,
            session = session.0,
            reason = text,
            suppressed,
            "session closed"
        );
    }
    close(&mut socket, code, &text).await;
}

type Refused = (DisconnectReason, Action, String);

fn come_in(
    hub: &Hub,
    claims: &Claims,
    arrival: Arrival,
    outbox: Outbox,
) -> Result<(SessionId, Arc<RoomCell>), Refused> {
    match arrival {
        Arrival::Join(newcomer) => {
            let session = newcomer.session;
            let joined = hub.join(&claims.video.room, *newcomer, outbox);
            joined.map(|cell| (session, cell)).map_err(|barred| {
                let (reason, action) = match barred {
                    Barred::Draining => (DisconnectReason::ServerShutdown, Action::Reconnect),
                    _ => (DisconnectReason::JoinFailure, Action::Disconnect),
                };
                (reason, action, barred.to_string())
            })
        }
        Arrival::Resume { sid } => {
            let session = hub.next_session();
            hub.resume(&claims.video.room, &sid, &claims.sub, session, outbox)
                .map(|cell| (session, cell))
                .ok_or_else(|| {
                    (
                        DisconnectReason::StateMismatch,
                        Action::Reconnect,
                        "nothing to resume: join anew".to_owned(),
                    )
                })
        }
    }
}

/// How a session ended.
#[derive(Debug)]
enum End {
    /// The room ended it.
    Closed { is_fault: bool, reason: String },
    /// The client is gone; it may come back.
    Lost(&'static str),
    /// The client does not read what it is told; it may come back.
    Slow,
    /// The client broke the protocol.
    Broken { code: u16, reason: String },
}

fn broken(code: u16, reason: impl Into<String>) -> End {
    End::Broken {
        code,
        reason: reason.into(),
    }
}

/// What a failed read of a WebSocket means. The library under it is not named by its own types:
/// what its errors say is all there is.
fn end_of(error: &axum::Error) -> End {
    let text = error.to_string();
    if text.contains("Space limit exceeded") {
        return broken(
            close_code::TOO_LONG,
            format!("a message is over {MESSAGE_BOUND} bytes"),
        );
    }
    let is_reset = text.contains("without closing handshake");
    if !is_reset && (text.contains("protocol error") || text.contains("UTF-8")) {
        return broken(
            close_code::PROTOCOL_ERROR,
            "a frame is not a WebSocket frame",
        );
    }
    End::Lost("the connection was lost")
}

async fn converse(
    hub: &Hub,
    claims: &Claims,
    session: SessionId,
    cell: &RoomCell,
    socket: &mut WebSocket,
    outlet: &mut Outlet,
) -> End {
    let kill = outlet.kill.clone();
    let mut last_heard = tokio::time::Instant::now();
    let mut messages = Budget::new(MESSAGES_BURST, MESSAGES_PER_SECOND, last_heard.into_std());
    let mut bytes = Budget::new(
        MESSAGE_BYTES_BURST,
        MESSAGE_BYTES_PER_SECOND,
        last_heard.into_std(),
    );
    let mut refresh = tokio::time::interval_at(
        tokio::time::Instant::now() + REFRESH_INTERVAL,
        REFRESH_INTERVAL,
    );
    loop {
        tokio::select! {
            biased;
            () = kill.notified() => return End::Slow,
            outgoing = outlet.next() => match outgoing {
                Some(Outgoing::Message(message)) => {
                    if let Err(end) = write(socket, Frame::Binary(message), outlet).await {
                        return match end {
                            End::Lost(_) if has_left(socket).await => {
                                let leave = proto::LeaveRequest::default();
                                let leave = proto::signal_request::Message::Leave(leave);
                                let _ = hub.handle(cell, session, leave);
                                End::Closed {
                                    is_fault: false,
                                    reason: "the client left".into(),
                                }
                            }
                            end => end,
                        };
                    }
                }
                Some(Outgoing::Close { is_fault, reason }) => {
                    return End::Closed { is_fault, reason };
                }
                None => return End::Lost("the session was replaced"),
            },
            _ = refresh.tick() => {
                if let Some(token) = fresh_token(hub, claims) {
                    let message = encode(proto::signal_response::Message::RefreshToken(token));
                    if let Err(end) = write(socket, Frame::Binary(message), outlet).await {
                        return end;
                    }
                }
            }
            () = tokio::time::sleep_until(last_heard + PING_TIMEOUT) => {
                return End::Lost("nothing was heard within the ping time-out");
            }
            frame = socket.recv() => {
                last_heard = tokio::time::Instant::now();
                if let Some(Ok(frame)) = &frame {
                    let now = last_heard.into_std();
                    if !messages.spend(1, now) || !bytes.spend(length(frame), now) {
                        return broken(
                            close_code::BOUND_BROKEN,
                            "too many messages in too short a time",
                        );
                    }
                }
                match frame {
                    Some(Ok(Frame::Binary(bytes))) => {
                        let Ok(request) = proto::SignalRequest::decode(bytes) else {
                            return broken(
                                close_code::NOT_A_MESSAGE,
                                "a message is not a SignalRequest",
                            );
                        };
                        // A request of a newer protocol decodes as nothing.
                        if let Some(message) = request.message
                            && let Err(crate::room::Refusal::Broken(reason)) =
                                hub.handle(cell, session, message)
                        {
                            return broken(close_code::BOUND_BROKEN, reason);
                        }
                    }
                    Some(Ok(Frame::Text(_))) => {
                        return broken(
                            close_code::TEXT_REFUSED,
                            "only binary protobuf messages are spoken here",
                        );
                    }
                    Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => {}
                    Some(Ok(Frame::Close(_))) | None => return End::Lost("closed by the client"),
                    Some(Err(error)) => return end_of(&error),
                }
            }
        }
    }
}

/// Whether a client whose connection is lost had said before that it leaves. Clients close their
/// connection right after these words, and in a busy room they still lie here unread.
async fn has_left(socket: &mut WebSocket) -> bool {
    let reading = async {
        for _ in 0..LAST_WORDS {
            let Some(Ok(frame)) = socket.recv().await else {
                return false;
            };
            if let Frame::Binary(bytes) = frame
                && let Ok(request) = proto::SignalRequest::decode(bytes)
                && let Some(proto::signal_request::Message::Leave(_)) = request.message
            {
                return true;
            }
        }
        false
    };
    let read = tokio::time::timeout(LAST_WORDS_TIME, reading).await;
    read.unwrap_or_default()
}

fn length(frame: &Frame) -> usize {
    match frame {
        Frame::Binary(bytes) | Frame::Ping(bytes) | Frame::Pong(bytes) => bytes.len(),
        Frame::Text(text) => text.len(),
        Frame::Close(_) => 0,
    }
}

fn fresh_token(hub: &Hub, claims: &Claims) -> Option<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let mut claims = claims.clone();
    claims.exp = claims.exp.max((now + REFRESH_VALIDITY).as_secs());
    hub.keys().sign(&claims).ok()
}

async fn write(socket: &mut WebSocket, frame: Frame, outlet: &Outlet) -> Result<(), End> {
    tokio::select! {
        sent = tokio::time::timeout(WRITE_TIME, socket.send(frame)) => match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Lost("the connection was lost")),
            Err(_) => Err(End::Slow),
        },
        () = outlet.kill.notified() => Err(End::Slow),
    }
}

async fn close(socket: &mut WebSocket, code: u16, reason: &str) {
    let mut end = reason.len().min(CLOSE_REASON_BOUND);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let frame = CloseFrame {
        code,
        reason: reason[..end].into(),
    };
    let _ = tokio::time::timeout(CLOSE_TIME, async {
        if socket.send(Frame::Close(Some(frame))).await.is_ok() {
            while let Some(Ok(_)) = socket.recv().await {}
            if code == close_code::TOO_LONG {
                // The rest of the message is not read. A connection closed over it is reset, and a
                // client that still sends would hear of the reset and not of the reason.
                std::future::pending::<()>().await;
            }
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn wrap(request: &[u8], compression: Compression) -> String {
        let join_request = match compression {
            Compression::None => request.to_vec(),
            Compression::Gzip => {
                let mut packer = flate2::write::GzEncoder::new(Vec::new(), Default::default());
                packer.write_all(request).unwrap();
                packer.finish().unwrap()
            }
        };
        let wrapped = proto::WrappedJoinRequest {
            compression: compression as i32,
            join_request,
        };
        base64::engine::general_purpose::URL_SAFE.encode(wrapped.encode_to_vec())
    }

    #[test]
    fn a_join_request_is_read_plain_and_gzipped() {
        let request = proto::JoinRequest {
            metadata: "花".repeat(100),
            ..Default::default()
        };
        for compression in [Compression::None, Compression::Gzip] {
            let text = wrap(&request.encode_to_vec(), compression);
            assert_eq!(unpack_join_request(&text), Ok(request.clone()));
        }
    }

    #[test]
    fn a_bomb_or_noise_is_refused() {
        let bomb = wrap(&vec![0; 64 * 1024 * 1024], Compression::Gzip);
        assert_eq!(unpack_join_request(&bomb), Err("is too long".into()));
        for text in ["", "!!!", "AAAA", "////"] {
            assert!(unpack_join_request(text).is_err(), "{text}");
        }
        let lines = "\nm=audio 9 x 0".repeat(600);
        let request = proto::JoinRequest {
            publisher_offer: Some(proto::SessionDescription {
                sdp: lines,
                ..Default::default()
            }),
            ..Default::default()
        };
        assert!(unpack_join_request(&wrap(&request.encode_to_vec(), Compression::Gzip)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,300}") {
            check_join_request(&text);
        }
    }
}
