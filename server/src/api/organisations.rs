//! Organisations: the tree, one of them, its history and its changes, and what it shares.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode};
use directory::Timestamp;
use directory::authority::{Action, Decision};
use directory::id::{GrantId, OrganisationId};
use directory::organisation::{
    Change, Kind as OrganisationKind, Level, NewOrganisation, NewShare, Organisation,
    OrganisationQuery, SharedWith, State as OrganisationState, Successor, Version,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::extract::{Body, Caller, Id, Ids, Proven, Query, Seen, etag, id};
use super::fault::Fault;

/// How long a page is where nothing is said, and at most what the directory gives.
pub(super) const PAGE: usize = 50;

/// How many successors a split has at most.
const SUCCESSORS: usize = 100;

pub(super) fn router() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, change))
        .routes(routes!(history))
        .routes(routes!(rights))
        .routes(routes!(close))
        .routes(routes!(merge))
        .routes(routes!(split))
        .routes(routes!(shares, share))
        .routes(routes!(end_share))
}

/// One of the five levels.
#[derive(Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Level)]
pub(super) enum LevelView {
    Province,
    City,
    County,
    Township,
    Village,
}

impl From<Level> for LevelView {
    fn from(level: Level) -> LevelView {
        match level {
            Level::Province => LevelView::Province,
            Level::City => LevelView::City,
            Level::County => LevelView::County,
            Level::Township => LevelView::Township,
            Level::Village => LevelView::Village,
        }
    }
}

impl From<LevelView> for Level {
    fn from(level: LevelView) -> Level {
        match level {
            LevelView::Province => Level::Province,
            LevelView::City => Level::City,
            LevelView::County => Level::County,
            LevelView::Township => Level::Township,
            LevelView::Village => Level::Village,
        }
    }
}

/// What kind of organisation it is.
#[derive(Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = OrganisationKind)]
pub(super) enum KindView {
    /// 综治中心
    Centre,
    /// 部门
    Department,
    /// 调解委员会
    Committee,
    /// 网格
    Grid,
}

impl From<OrganisationKind> for KindView {
    fn from(kind: OrganisationKind) -> KindView {
        match kind {
            OrganisationKind::Centre => KindView::Centre,
            OrganisationKind::Department => KindView::Department,
            OrganisationKind::Committee => KindView::Committee,
            OrganisationKind::Grid => KindView::Grid,
        }
    }
}

impl From<KindView> for OrganisationKind {
    fn from(kind: KindView) -> OrganisationKind {
        match kind {
            KindView::Centre => OrganisationKind::Centre,
            KindView::Department => OrganisationKind::Department,
            KindView::Committee => OrganisationKind::Committee,
            KindView::Grid => OrganisationKind::Grid,
        }
    }
}

fn state_code(state: OrganisationState) -> &'static str {
    match state {
        OrganisationState::Active => "active",
        OrganisationState::Closed => "closed",
        OrganisationState::Merged => "merged",
        OrganisationState::Split => "split",
    }
}

/// An organisation.
#[derive(Serialize, ToSchema)]
#[schema(as = Organisation)]
pub(super) struct OrganisationView {
    id: String,
    kind: KindView,
    /// A centre's level; others have none.
    level: Option<LevelView>,
    name: String,
    /// Its division code now, twelve digits.
    code: Option<String>,
    /// Whose branch it is in.
    parent: Option<String>,
    /// Whose node its own node joins, where that is not its parent's.
    cascade_parent: Option<String>,
    /// `active`, `closed`, `merged` or `split`.
    state: &'static str,
    created_at: i64,
    closed_at: Option<i64>,
    /// What a change says in `If-Match`.
    version: u64,
}

impl From<Organisation> for OrganisationView {
    fn from(organisation: Organisation) -> OrganisationView {
        OrganisationView {
            id: organisation.id.to_string(),
            kind: organisation.kind.into(),
            level: organisation.level.map(Into::into),
            name: organisation.name,
            code: organisation.code.map(String::from),
            parent: organisation.parent.map(|id| id.to_string()),
            cascade_parent: organisation.cascade_parent.map(|id| id.to_string()),
            state: state_code(organisation.state),
            created_at: organisation.created_at.as_millis(),
            closed_at: organisation.closed_at.map(Timestamp::as_millis),
            version: organisation.version,
        }
    }
}

type Versioned<T> = ([(HeaderName, String); 1], Json<T>);

fn versioned(organisation: Organisation) -> Versioned<OrganisationView> {
    (etag(organisation.version), Json(organisation.into()))
}

/// Which organisations are wanted.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Only what is directly under this one.
    parent: Option<String>,
    /// Only this one and what is anywhere under it.
    under: Option<String>,
    /// Part of a name, first letters of its pinyin, or the beginning of a code.
    text: Option<String>,
    /// Also those that do not work any more.
    #[serde(default)]
    with_closed: bool,
    /// `next` of the page before.
    cursor: Option<String>,
    /// How many, at most 200.
    limit: Option<u32>,
}

/// A part of a list.
#[derive(Serialize, ToSchema)]
struct OrganisationPage {
    organisations: Vec<OrganisationView>,
    /// Where the next page begins, if there is one.
    next: Option<String>,
}

/// Organisations that one may know of, in the order of codes and names.
#[utoipa::path(get, path = "/api/organisations", tag = "organisations", params(ListQuery),
    responses((status = 200, body = OrganisationPage)))]
async fn list(
    State(api): State<Arc<Api>>,
    mut caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<OrganisationPage>, Fault> {
    let wanted = OrganisationQuery {
        parent: query.parent.as_deref().map(id).transpose()?,
        under: query.under.as_deref().map(id).transpose()?,
        text: query.text.filter(|text| !text.is_empty()),
        with_closed: query.with_closed,
        cursor: query.cursor,
        limit: query.limit.map_or(PAGE, |limit| limit as usize),
    };
    let page = api.directory.organisations(&caller.act(), &wanted).await?;
    Ok(Json(OrganisationPage {
        organisations: page.organisations.into_iter().map(Into::into).collect(),
        next: page.next,
    }))
}

/// An organisation to be made.
#[derive(Deserialize, ToSchema)]
struct NewOrganisationBody {
    kind: KindView,
    /// A centre's level; others have none.
    level: Option<LevelView>,
    name: String,
    code: Option<String>,
    /// Whose branch it is in.
    parent: String,
    cascade_parent: Option<String>,
}

/// Makes an organisation under another one.
#[utoipa::path(post, path = "/api/organisations", tag = "organisations",
    request_body = NewOrganisationBody,
    params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = OrganisationView)))]
async fn create(
    State(api): State<Arc<Api>>,
    mut caller: Caller,
    Body(body): Body<NewOrganisationBody>,
) -> Result<(StatusCode, Versioned<OrganisationView>), Fault> {
    let new = NewOrganisation {
        kind: body.kind.into(),
        level: body.level.map(Into::into),
        name: body.name,
        code: body
            .code
            .as_deref()
            .map(str::parse)
            .transpose()
            .map_err(Fault::invalid)?,
        parent: Some(id(&body.parent)?),
        cascade_parent: body.cascade_parent.as_deref().map(id).transpose()?,
    };
    let made = api
        .directory
        .create_organisation(&mut caller.act(), new)
        .await?;
    Ok((StatusCode::CREATED, versioned(made)))
}

/// One organisation.
#[utoipa::path(get, path = "/api/organisations/{id}", tag = "organisations",
    params(("id" = String, Path)), responses((status = 200, body = OrganisationView)))]
async fn show(
    State(api): State<Arc<Api>>,
    mut caller: Caller,
    Id(id): Id<OrganisationId>,
) -> Result<Versioned<OrganisationView>, Fault> {
    Ok(versioned(
        api.directory.organisation(&caller.act(), id).await?,
    ))
}

/// One change.
#[derive(Deserialize, ToSchema)]
#[serde(tag = "change", rename_all = "snake_case")]
enum ChangeBody {
    /// It is called otherwise.
    Rename { name: String },
    /// It has another division code from now on, or none.
    Recode { code: Option<String> },
    /// It is under another one, with all that is under it.
    Move { parent: String },
    /// Its node joins another one's than its parent's, or its parent's again.
    Cascade { cascade_parent: Option<String> },
}

/// Changes an organisation.
#[utoipa::path(patch, path = "/api/organisations/{id}", tag = "organisations",
    request_body = ChangeBody,
    params(("id" = String, Path), ("If-Match" = String, Header)),
    responses((status = 200, body = OrganisationView)))]
async fn change(
    State(api): State<Arc<Api>>,
    mut caller: Caller,
    Id(organisation): Id<OrganisationId>,
    Seen(version): Seen,
    Body(body): Body<ChangeBody>,
) -> Result<Versioned<OrganisationView>, Fault> {
    let change = match body {
        ChangeBody::Rename { name } => Change::Rename(name),
        ChangeBody::Recode { code } => {
            let code = code.as_deref().map(str::parse).transpose();
            Change::Recode(code.map_err(Fault::invalid)?)
        }
        ChangeBody::Move { parent } => Change::Move(id(&parent)?),
        ChangeBody::Cascade { cascade_parent } => {
            Change::Cascade(cascade_parent.as_deref().map(id).transpose()?)
        }
    };
    let act = &mut caller.act();
    let changed = api
        .directory
        .change_organisation(act, organisation, version, change);
    Ok(versioned(changed.await?))
}

/// What an organisation was at a time.
#[derive(Serialize, ToSchema)]
struct VersionView {
    version: u64,
    at: i64,
    /// `create`, `rename`, `recode`, `move`, `cascade`, `merge`, `split` or `close`.
    change: String,
    name: String,
    code: Option<String>,
    parent: Option<String>,
    cascade_parent: Option<String>,
    state: &'static str,
}

impl From<Version> for VersionView {
    fn from(version: Version) -> VersionView {
        VersionView {
            version: version.version,
            at: version.at.as_millis(),
            change: version.change,
            name: version.name,
            code: version.code.map(String::from),
            parent: version.parent.map(|id| id.to_string()),
            cascade_parent: version.cascade_parent.map(|id| id.to_string()),
            state: state_code(version.state),
        }
    }
}

/// All that an organisation was, from its making on.
#[utoipa::path(get, path = "/api/organisations/{id}/history", tag = "organisations",
    params(("id" = String, Path)), responses((status = 200, body = Vec<VersionView>)))]
async fn history(
    State(api): State<Arc<Api>>,
    mut caller: Caller,
    Id(id): Id<OrganisationId>,
) -> Result<Json<Vec<VersionView>>, Fault> {
    let versions = api
        .directory
        .organisation_history(&caller.act(), id)
        .await?;
    Ok(Json(versions.into_iter().map(Into::into).collect()))
}

/// Whether one may do something.
#[derive(Serialize, ToSchema)]
struct RightView {
    /// The action's code, as in the rights matrix.
    action: &'static str,
    /// `yes`, `reason` (once one is said), `second_person` (once another person has approved) or `no`.
    may: &'static str,
}

/// What one may do to an organisation and what is its own: for what a page shows. It decides nothing.
#[utoipa::path(get, path = "/api/organisations/{id}/rights", tag = "organisations",
    params(("id" = String, Path)), responses((status = 200, body = Vec<RightView>)))]
async fn rights(
    State(api): State<Arc<Api>>,
    mut caller: Caller,
    Id(id): Id<OrganisationId>,
) -> Result<Json<Vec<RightView>>, Fault> {
    let rights = api.directory.rights(&caller.act(), id).await?;
    let view = |(action, decision): (Action, Decision)| RightView {
        action: action.code(),
        may: match decision {
            Decision::Allowed(_) => "yes",
            Decision::NeedsReason(_) => "reason",
            Decision::NeedsSecondPerson(_) => "second_person",
            Decision::Refused(_) | Decision::Hidden => "no",
        },
    };
    Ok(Json(rights.into_iter().map(view).collect()))
}

/// Closes an organisation that has nobody in it and nothing under it.
#[utoipa::path(post, path = "/api/organisations/{id}/close", tag = "organisations",
    params(("id" = String, Path), ("If-Match" = String, Header)),
    responses((status = 200, body = OrganisationView)))]
async fn close(
    State(api): State<Arc<Api>>,
    mut caller: Proven,
    Id(id): Id<OrganisationId>,
    Seen(version): Seen,
) -> Result<Versioned<OrganisationView>, Fault> {
    let closed = api
        .directory
        .close_organisation(&mut caller.act(), id, version)
        .await?;
    Ok(versioned(closed))
}

#[derive(Deserialize, ToSchema)]
struct MergeBody {
    /// Into which.
    into: String,
}

/// Merges an organisation into another one.
#[utoipa::path(post, path = "/api/organisations/{id}/merge", tag = "organisations",
    request_body = MergeBody,
    params(("id" = String, Path), ("If-Match" = String, Header)),
    responses((status = 200, body = OrganisationView)))]
async fn merge(
    State(api): State<Arc<Api>>,
    mut caller: Proven,
    Id(organisation): Id<OrganisationId>,
    Seen(version): Seen,
    Body(body): Body<MergeBody>,
) -> Result<Versioned<OrganisationView>, Fault> {
    let into = id(&body.into)?;
    let act = &mut caller.act();
    let merged = api
        .directory
        .merge_organisation(act, organisation, version, into);
    Ok(versioned(merged.await?))
}

#[derive(Deserialize, ToSchema)]
struct SuccessorBody {
    /// Which; it is there already.
    organisation: String,
    /// Which of the organisations under the old one go to it.
    children: Vec<String>,
}

#[derive(Deserialize, ToSchema)]
struct SplitBody {
    /// People and halls go to the first.
    successors: Vec<SuccessorBody>,
}

/// Splits an organisation into others that are there already.
#[utoipa::path(post, path = "/api/organisations/{id}/split", tag = "organisations",
    request_body = SplitBody,
    params(("id" = String, Path), ("If-Match" = String, Header)),
    responses((status = 200, body = OrganisationView)))]
async fn split(
    State(api): State<Arc<Api>>,
    mut caller: Proven,
    Id(organisation): Id<OrganisationId>,
    Seen(version): Seen,
    Body(body): Body<SplitBody>,
) -> Result<Versioned<OrganisationView>, Fault> {
    if body.successors.len() > SUCCESSORS {
        return Err(Fault::invalid("successors"));
    }
    let successor = |body: &SuccessorBody| -> Result<Successor, Fault> {
        Ok(Successor {
            id: id(&body.organisation)?,
            children: body
                .children
                .iter()
                .map(|child| id(child))
                .collect::<Result<_, _>>()?,
        })
    };
    let successors = body.successors.iter().map(successor);
    let successors: Vec<Successor> = successors.collect::<Result<_, Fault>>()?;
    let act = &mut caller.act();
    let split = api
        .directory
        .split_organisation(act, organisation, version, &successors);
    Ok(versioned(split.await?))
}

/// Something that an organisation shares.
#[derive(Serialize, ToSchema)]
struct ShareView {
    id: String,
    /// With whom, and all under it.
    with: String,
    actions: Vec<String>,
    purpose: String,
    ends_at: i64,
}

impl From<SharedWith> for ShareView {
    fn from(share: SharedWith) -> ShareView {
        ShareView {
            id: share.id.to_string(),
            with: share.with.to_string(),
            actions: share.actions,
            purpose: share.purpose,
            ends_at: share.ends_at.as_millis(),
        }
    }
}

/// What an organisation shares now.
#[utoipa::path(get, path = "/api/organisations/{id}/shares", tag = "organisations",
    params(("id" = String, Path), ("Reason" = Option<String>, Header)),
    responses((status = 200, body = Vec<ShareView>)))]
async fn shares(
    State(api): State<Arc<Api>>,
    mut caller: Caller,
    Id(id): Id<OrganisationId>,
) -> Result<Json<Vec<ShareView>>, Fault> {
    let shares = api.directory.shares(&caller.act(), id).await?;
    Ok(Json(shares.into_iter().map(Into::into).collect()))
}

#[derive(Deserialize, ToSchema)]
struct NewShareBody {
    /// With whom, and all under it: an organisation of another branch.
    with: String,
    /// What may be done; only what looks.
    actions: Vec<String>,
    /// What for.
    purpose: String,
    /// Until before when; a year at most.
    ends_at: i64,
}

/// Lets an organisation of another branch look at something of this one.
#[utoipa::path(post, path = "/api/organisations/{id}/shares", tag = "organisations",
    request_body = NewShareBody,
    params(("id" = String, Path), ("Reason" = Option<String>, Header),
        ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = ShareView)))]
async fn share(
    State(api): State<Arc<Api>>,
    mut caller: Proven,
    Id(organisation): Id<OrganisationId>,
    Body(body): Body<NewShareBody>,
) -> Result<(StatusCode, Json<ShareView>), Fault> {
    let actions = body.actions.iter().map(|action| action.parse());
    let new = NewShare {
        with: id(&body.with)?,
        actions: actions.collect::<Result<_, _>>().map_err(Fault::invalid)?,
        purpose: body.purpose,
        ends_at: Timestamp::from_millis(body.ends_at),
    };
    let act = &mut caller.act();
    let share = api
        .directory
        .share_organisation(act, organisation, new)
        .await?;
    Ok((StatusCode::CREATED, Json(share.into())))
}

/// Ends what an organisation shares, before its day.
#[utoipa::path(delete, path = "/api/organisations/{id}/shares/{share}", tag = "organisations",
    params(("id" = String, Path), ("share" = String, Path), ("Reason" = Option<String>, Header)),
    responses((status = 204)))]
async fn end_share(
    State(api): State<Arc<Api>>,
    mut caller: Caller,
    Ids(organisation, share): Ids<OrganisationId, GrantId>,
) -> Result<StatusCode, Fault> {
    api.directory
        .end_share(&mut caller.act(), organisation, share)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
