//! Halls and rooms, and the device keys by which halls sign in.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode};
use directory::Timestamp;
use directory::id::{DeviceKeyId, OrganisationId, PlaceId};
use directory::place::{Place, PlaceData, PlaceKind, Use};
use directory::sign_in::DeviceKey;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::extract::{Body, Caller, Id, Ids, Proven, Seen, etag};
use super::fault::Fault;

pub(super) fn router() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, change))
        .routes(routes!(close))
        .routes(routes!(keys, issue_key))
        .routes(routes!(revoke_key))
}

/// What a room is used for.
#[derive(Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = RoomUse)]
enum UseView {
    /// 群众接待厅
    Reception,
    /// 矛盾纠纷调处室
    Mediation,
    /// 监控研判室
    Monitoring,
    /// 心理咨询室
    Counselling,
    /// 社会组织场所
    SocialOrganisations,
}

impl From<Use> for UseView {
    fn from(one: Use) -> UseView {
        match one {
            Use::Reception => UseView::Reception,
            Use::Mediation => UseView::Mediation,
            Use::Monitoring => UseView::Monitoring,
            Use::Counselling => UseView::Counselling,
            Use::SocialOrganisations => UseView::SocialOrganisations,
        }
    }
}

impl From<UseView> for Use {
    fn from(one: UseView) -> Use {
        match one {
            UseView::Reception => Use::Reception,
            UseView::Mediation => Use::Mediation,
            UseView::Monitoring => Use::Monitoring,
            UseView::Counselling => Use::Counselling,
            UseView::SocialOrganisations => Use::SocialOrganisations,
        }
    }
}

/// What a place is.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[schema(as = PlaceKind)]
enum PlaceKindView {
    /// A hall with one or two screens.
    Hall { screens: u8 },
    /// A room with its uses, one at least.
    Room { uses: Vec<UseView> },
}

/// A hall or room.
#[derive(Serialize, ToSchema)]
#[schema(as = Place)]
pub(super) struct PlaceView {
    id: String,
    organisation: String,
    name: String,
    #[serde(flatten)]
    kind: PlaceKindView,
    /// How many people it seats.
    seats: Option<u16>,
    closed_at: Option<i64>,
    /// What a change says in `If-Match`.
    version: u64,
}

impl From<Place> for PlaceView {
    fn from(place: Place) -> PlaceView {
        PlaceView {
            id: place.id.to_string(),
            organisation: place.organisation.to_string(),
            name: place.name,
            kind: match place.kind {
                PlaceKind::Hall { screens } => PlaceKindView::Hall { screens },
                PlaceKind::Room { uses } => PlaceKindView::Room {
                    uses: uses.into_iter().map(Into::into).collect(),
                },
            },
            seats: place.seats,
            closed_at: place.closed_at.map(Timestamp::as_millis),
            version: place.version,
        }
    }
}

/// A hall or room as it shall be.
#[derive(Deserialize, ToSchema)]
struct PlaceBody {
    name: String,
    #[serde(flatten)]
    kind: PlaceKindView,
    seats: Option<u16>,
}

impl From<PlaceBody> for PlaceData {
    fn from(body: PlaceBody) -> PlaceData {
        PlaceData {
            name: body.name,
            kind: match body.kind {
                PlaceKindView::Hall { screens } => PlaceKind::Hall { screens },
                PlaceKindView::Room { uses } => PlaceKind::Room {
                    uses: uses.into_iter().map(Into::into).collect(),
                },
            },
            seats: body.seats,
        }
    }
}

type Versioned = ([(HeaderName, String); 1], Json<PlaceView>);

fn versioned(place: Place) -> Versioned {
    (etag(place.version), Json(place.into()))
}

/// An organisation's halls and rooms that are in use.
#[utoipa::path(get, path = "/api/organisations/{id}/places", tag = "places",
    params(("id" = String, Path)), responses((status = 200, body = Vec<PlaceView>)))]
async fn list(
    State(api): State<Arc<Api>>,
    mut caller: Caller,
    Id(id): Id<OrganisationId>,
) -> Result<Json<Vec<PlaceView>>, Fault> {
    let places = api.directory.places(&caller.act(), id).await?;
    Ok(Json(places.into_iter().map(Into::into).collect()))
}

/// Makes a hall or room.
#[utoipa::path(post, path = "/api/organisations/{id}/places", tag = "places",
    request_body = PlaceBody,
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = PlaceView)))]
async fn create(
    State(api): State<Arc<Api>>,
    mut caller: Caller,
    Id(id): Id<OrganisationId>,
    Body(body): Body<PlaceBody>,
) -> Result<(StatusCode, Versioned), Fault> {
    let made = api
        .directory
        .create_place(&mut caller.act(), id, body.into())
        .await?;
    Ok((StatusCode::CREATED, versioned(made)))
}

/// One hall or room.
#[utoipa::path(get, path = "/api/places/{id}", tag = "places",
    params(("id" = String, Path)), responses((status = 200, body = PlaceView)))]
async fn show(
    State(api): State<Arc<Api>>,
    mut caller: Caller,
    Id(id): Id<PlaceId>,
) -> Result<Versioned, Fault> {
    Ok(versioned(api.directory.place(&caller.act(), id).await?))
}

/// Changes a hall or room.
#[utoipa::path(put, path = "/api/places/{id}", tag = "places", request_body = PlaceBody,
    params(("id" = String, Path), ("If-Match" = String, Header)),
    responses((status = 200, body = PlaceView)))]
async fn change(
    State(api): State<Arc<Api>>,
    mut caller: Caller,
    Id(id): Id<PlaceId>,
    Seen(version): Seen,
    Body(body): Body<PlaceBody>,
) -> Result<Versioned, Fault> {
    let act = &mut caller.act();
    let changed = api
        .directory
        .change_place(act, id, version, Some(body.into()));
    Ok(versioned(changed.await?))
}

/// Closes a hall or room, and revokes its device keys.
#[utoipa::path(post, path = "/api/places/{id}/close", tag = "places",
    params(("id" = String, Path), ("If-Match" = String, Header)),
    responses((status = 200, body = PlaceView)))]
async fn close(
    State(api): State<Arc<Api>>,
    mut caller: Proven,
    Id(id): Id<PlaceId>,
    Seen(version): Seen,
) -> Result<Versioned, Fault> {
    let closed = api
        .directory
        .change_place(&mut caller.act(), id, version, None)
        .await?;
    Ok(versioned(closed))
}

/// A hall's device key, without what opens.
#[derive(Serialize, ToSchema)]
struct DeviceKeyView {
    id: String,
    place: String,
    /// Which terminal has it.
    name: String,
    created_at: i64,
    last_used_at: Option<i64>,
    revoked_at: Option<i64>,
}

impl From<DeviceKey> for DeviceKeyView {
    fn from(key: DeviceKey) -> DeviceKeyView {
        DeviceKeyView {
            id: key.id.to_string(),
            place: key.place.to_string(),
            name: key.name,
            created_at: key.created_at.as_millis(),
            last_used_at: key.last_used_at.map(Timestamp::as_millis),
            revoked_at: key.revoked_at.map(Timestamp::as_millis),
        }
    }
}

/// A hall's keys, those that open nothing any more too.
#[utoipa::path(get, path = "/api/places/{id}/keys", tag = "places",
    params(("id" = String, Path)), responses((status = 200, body = Vec<DeviceKeyView>)))]
async fn keys(
    State(api): State<Arc<Api>>,
    mut caller: Caller,
    Id(id): Id<PlaceId>,
) -> Result<Json<Vec<DeviceKeyView>>, Fault> {
    let keys = api.sign_in.device_keys(&caller.act(), id).await?;
    Ok(Json(keys.into_iter().map(Into::into).collect()))
}

#[derive(Deserialize, ToSchema)]
struct NewKeyBody {
    /// Which terminal it is for.
    name: String,
}

/// A device key, shown once.
#[derive(Serialize, ToSchema)]
struct IssuedKey {
    #[serde(flatten)]
    about: DeviceKeyView,
    /// What the terminal keeps.
    key: String,
}

/// Issues a key for a hall's terminal.
#[utoipa::path(post, path = "/api/places/{id}/keys", tag = "places", request_body = NewKeyBody,
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = IssuedKey)))]
async fn issue_key(
    State(api): State<Arc<Api>>,
    mut caller: Proven,
    Id(id): Id<PlaceId>,
    Body(body): Body<NewKeyBody>,
) -> Result<(StatusCode, Json<IssuedKey>), Fault> {
    let issued = api
        .sign_in
        .issue_device_key(&mut caller.act(), id, &body.name)
        .await?;
    let (key, token) = issued;
    let issued = IssuedKey {
        about: key.into(),
        key: token.as_str().to_owned(),
    };
    Ok((StatusCode::CREATED, Json(issued)))
}

/// Revokes a key: it opens nothing from now on.
#[utoipa::path(delete, path = "/api/places/{id}/keys/{key}", tag = "places",
    params(("id" = String, Path), ("key" = String, Path)), responses((status = 204)))]
async fn revoke_key(
    State(api): State<Arc<Api>>,
    mut caller: Caller,
    Ids(place, key): Ids<PlaceId, DeviceKeyId>,
) -> Result<StatusCode, Fault> {
    api.sign_in
        .revoke_device_key(&mut caller.act(), place, key)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
