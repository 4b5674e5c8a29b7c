//! LiveKit's server API, RoomService over Twirp: protobuf and JSON, version 7 of its rules.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use livekit_protocol as proto;
use prost::Message;
use serde::{Serialize, de::DeserializeOwned};

use crate::hub::{Barred, Hub};
use crate::log_limit::LogLimit;
use crate::room::{CallError, METADATA_BOUND, NAME_BOUND, RoomSettings, is_plain};
use crate::session::bearer;
use crate::token::{Claims, TokenError};

/// The longest request, in bytes.
pub const BODY_BOUND: usize = 1024 * 1024;

/// The most of a reader's words about a request that can't be read, in bytes.
const ERROR_BOUND: usize = 200;

static CALL_REFUSED: LogLimit = LogLimit::new();

/// The endpoints of the server API.
pub fn router(hub: Arc<Hub>) -> Router {
    Router::new()
        .route("/twirp/livekit.RoomService/{method}", post(call))
        .with_state(hub)
}

/// An error by Twirp's rules.
#[derive(Debug)]
struct TwirpError(&'static str, String);

impl TwirpError {
    fn status(&self) -> StatusCode {
        match self.0 {
            "invalid_argument" | "malformed" | "out_of_range" => StatusCode::BAD_REQUEST,
            "unauthenticated" => StatusCode::UNAUTHORIZED,
            "permission_denied" => StatusCode::FORBIDDEN,
            "not_found" | "bad_route" => StatusCode::NOT_FOUND,
            "failed_precondition" => StatusCode::PRECONDITION_FAILED,
            "resource_exhausted" => StatusCode::TOO_MANY_REQUESTS,
            "unimplemented" => StatusCode::NOT_IMPLEMENTED,
            "unavailable" => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for TwirpError {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "code": self.0, "msg": self.1 });
        (self.status(), axum::Json(body)).into_response()
    }
}

impl From<CallError> for TwirpError {
    fn from(error: CallError) -> Self {
        let code = match error {
            CallError::NoParticipant | CallError::NoTrack => "not_found",
            CallError::RemoteUnmute => "failed_precondition",
            CallError::TooLong | CallError::NotPlain => "invalid_argument",
        };
        TwirpError(code, error.to_string())
    }
}

impl From<TokenError> for TwirpError {
    fn from(error: TokenError) -> Self {
        let code = match error {
            TokenError::NotGranted(_) => "permission_denied",
            _ => "unauthenticated",
        };
        TwirpError(code, error.to_string())
    }
}

impl From<Barred> for TwirpError {
    fn from(barred: Barred) -> Self {
        let code = match barred {
            Barred::Draining | Barred::Overloaded => "unavailable",
            Barred::ServerFull | Barred::RoomFull | Barred::AddressFull => "resource_exhausted",
            Barred::OtherTokens | Barred::Gate(_) => "permission_denied",
        };
        TwirpError(code, barred.to_string())
    }
}

fn no_room() -> TwirpError {
    TwirpError("not_found", "requested room does not exist".into())
}

#[derive(Clone, Copy, PartialEq)]
enum Format {
    Protobuf,
    Json,
}

/// Reads a request, runs a method on it, and writes the answer in the same format.
fn answer<Q, A>(
    format: Format,
    body: &Bytes,
    method: impl FnOnce(Q) -> Result<A, TwirpError>,
) -> Result<Response, TwirpError>
where
    Q: Message + Default + DeserializeOwned,
    A: Message + Serialize,
{
    let malformed = |mut error: String| {
        error.truncate(error.floor_char_boundary(ERROR_BOUND));
        TwirpError("malformed", format!("the request can't be read: {error}"))
    };
    match format {
        Format::Protobuf => {
            let request = Q::decode(&**body).map_err(|error| malformed(error.to_string()))?;
            let answer = method(request)?.encode_to_vec();
            Ok(([(header::CONTENT_TYPE, "application/protobuf")], answer).into_response())
        }
        Format::Json => {
            let request =
                serde_json::from_slice(body).map_err(|error| malformed(error.to_string()))?;
            Ok(axum::Json(method(request)?).into_response())
        }
    }
}

fn check_length(what: &'static str, text: &str, bound: usize) -> Result<(), TwirpError> {
    if text.len() > bound {
        return Err(TwirpError(
            "invalid_argument",
            format!("{what} is over {bound} bytes"),
        ));
    }
    Ok(())
}

fn require(granted: bool, what: &'static str) -> Result<(), TwirpError> {
    if granted {
        Ok(())
    } else {
        Err(TokenError::NotGranted(what).into())
    }
}

async fn call(
    State(hub): State<Arc<Hub>>,
    Path(method): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, TwirpError> {
    let answered = read_and_answer(&hub, &method, &headers, body).await;
    // The words of other errors may repeat what the caller sent.
    if let Err(TwirpError(code, message)) = &answered
        && matches!(*code, "unauthenticated" | "permission_denied" | "malformed")
        && let Some(suppressed) = CALL_REFUSED.pass(Instant::now())
    {
        let reason = if *code == "malformed" {
            "the request can't be read"
        } else {
            message
        };
        let is_known = method.len() <= 40 && method.chars().all(|c| c.is_ascii_alphabetic());
        let method = if is_known { &method } else { "unknown" };
        tracing::warn!(
            method,
            code,
            reason,
            suppressed,
            "a server API call was refused"
        );
    }
    answered
}

async fn read_and_answer(
    hub: &Hub,
    method: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, TwirpError> {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map(|value| value.trim().to_ascii_lowercase());
    let format = match content_type.as_deref() {
        Some("application/protobuf") => Format::Protobuf,
        Some("application/json") => Format::Json,
        other => {
            let other = other.unwrap_or_default();
            return Err(TwirpError(
                "bad_route",
                format!("unexpected Content-Type: {other:?}"),
            ));
        }
    };
    let claims = hub
        .keys()
        .verify(bearer(headers).unwrap_or(""), SystemTime::now())?;
    // Whoever has no token has nothing kept for it.
    let body = to_bytes(body, BODY_BOUND).await.map_err(|_| {
        let message = format!("the request is over {BODY_BOUND} bytes or did not come whole");
        TwirpError("malformed", message)
    })?;
    dispatch(hub, &claims, method, format, &body)
}

fn dispatch(
    hub: &Hub,
    claims: &Claims,
    method: &str,
    format: Format,
    body: &Bytes,
) -> Result<Response, TwirpError> {
    match method {
        "CreateRoom" => answer(format, body, |request: proto::CreateRoomRequest| {
            require(claims.video.room_create, "creating rooms (roomCreate)")?;
            if request.name.is_empty() {
                return Err(TwirpError("invalid_argument", "a room needs a name".into()));
            }
            check_length("name", &request.name, NAME_BOUND)?;
            if !is_plain(&request.name) {
                let message = "a room's name must have no control characters";
                return Err(TwirpError("invalid_argument", message.into()));
            }
            check_length("metadata", &request.metadata, METADATA_BOUND)?;
            Ok(hub.create_room(RoomSettings {
                name: request.name,
                empty_timeout: Duration::from_secs(request.empty_timeout.into()),
                departure_timeout: Duration::from_secs(request.departure_timeout.into()),
                max_participants: request.max_participants,
                metadata: request.metadata,
            })?)
        }),
        "ListRooms" => answer(format, body, |request: proto::ListRoomsRequest| {
            require(claims.video.room_list, "listing rooms (roomList)")?;
            Ok(proto::ListRoomsResponse {
                rooms: hub.list_rooms(&request.names),
            })
        }),
        "DeleteRoom" => answer(format, body, |request: proto::DeleteRoomRequest| {
            require(claims.video.room_create, "deleting rooms (roomCreate)")?;
            if hub.delete_room(&request.room) {
                Ok(proto::DeleteRoomResponse {})
            } else {
                Err(no_room())
            }
        }),
        "ListParticipants" => answer(format, body, |request: proto::ListParticipantsRequest| {
            claims.require_admin(&request.room)?;
            let participants = hub
                .in_room(&request.room, |room, _| room.list())
                .unwrap_or_default();
            Ok(proto::ListParticipantsResponse { participants })
        }),
        "GetParticipant" => answer(format, body, |request: proto::RoomParticipantIdentity| {
            claims.require_admin(&request.room)?;
            let found = hub.in_room(&request.room, |room, _| room.find(&request.identity));
            Ok(found.ok_or_else(no_room)??)
        }),
        "RemoveParticipant" => answer(format, body, |request: proto::RoomParticipantIdentity| {
            claims.require_admin(&request.room)?;
            hub.in_room(&request.room, |room, at| {
                room.expel(&request.identity, at.now)
            })
            .ok_or_else(no_room)??;
            Ok(proto::RemoveParticipantResponse {})
        }),
        "MutePublishedTrack" => answer(format, body, |request: proto::MuteRoomTrackRequest| {
            claims.require_admin(&request.room)?;
            let track = hub
                .in_room(&request.room, |room, _| {
                    room.mute_published(&request.identity, &request.track_sid, request.muted)
                })
                .ok_or_else(no_room)??;
            Ok(proto::MuteRoomTrackResponse { track: Some(track) })
        }),
        "UpdateParticipant" => answer(format, body, |request: proto::UpdateParticipantRequest| {
            claims.require_admin(&request.room)?;
            let room = request.room.clone();
            let updated = hub.in_room(&room, |room, _| room.update_participant(request));
            Ok(updated.ok_or_else(no_room)??)
        }),
        "UpdateSubscriptions" => answer(
            format,
            body,
            |request: proto::UpdateSubscriptionsRequest| {
                claims.require_admin(&request.room)?;
                let update = proto::UpdateSubscription {
                    track_sids: request.track_sids,
                    subscribe: request.subscribe,
                    participant_tracks: request.participant_tracks,
                };
                hub.in_room(&request.room, |room, _| {
                    room.update_subscriptions_of(&request.identity, &update)
                })
                .ok_or_else(no_room)??;
                Ok(proto::UpdateSubscriptionsResponse {})
            },
        ),
        "SendData" => answer(format, body, |request: proto::SendDataRequest| {
            claims.require_admin(&request.room)?;
            if request.data.len() > crate::room::DATA_BOUND {
                return Err(TwirpError("invalid_argument", "data is too long".into()));
            }
            let room = request.room.clone();
            hub.in_room(&room, |room, _| room.send_data(request))
                .ok_or_else(no_room)?;
            Ok(proto::SendDataResponse {})
        }),
        "UpdateRoomMetadata" => {
            answer(format, body, |request: proto::UpdateRoomMetadataRequest| {
                claims.require_admin(&request.room)?;
                let updated = hub.in_room(&request.room, |room, _| {
                    room.set_room_metadata(request.metadata)
                        .map(|()| room.info())
                });
                Ok(updated.ok_or_else(no_room)??)
            })
        }
        "ForwardParticipant" | "MoveParticipant" | "PerformRpc" => Err(TwirpError(
            "unimplemented",
            format!("{method} is not offered by this server"),
        )),
        other => Err(TwirpError("bad_route", format!("no method {other:?}"))),
    }
}

/// Checks that a call is answered or refused for what its caller did.
#[cfg(any(test, fuzzing))]
pub(crate) fn check(hub: &Hub, claims: &Claims, method: &str, is_json: bool, body: &[u8]) {
    let format = if is_json {
        Format::Json
    } else {
        Format::Protobuf
    };
    let body = Bytes::copy_from_slice(body);
    if let Err(error) = dispatch(hub, claims, method, format, &body) {
        assert_ne!(error.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}
