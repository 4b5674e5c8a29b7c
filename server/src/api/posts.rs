//! Posts with their roles and holders, and roles for a time: delegations and guests.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode};
use directory::Timestamp;
use directory::authority::Role;
use directory::id::{GrantId, OrganisationId, PersonId, PostId};
use directory::people::{Holder, Post, Temporary, TemporaryKind, Term};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::extract::{Body, Caller, Id, Ids, Proven, Seen, etag, id};
use super::fault::Fault;

pub(super) fn router() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(change))
        .routes(routes!(close))
        .routes(routes!(appoint, dismiss))
        .routes(routes!(delegate))
        .routes(routes!(grants))
        .routes(routes!(invite_guest))
        .routes(routes!(end_grant))
}

/// Who has a post, since when.
#[derive(Serialize, ToSchema)]
struct HolderView {
    person: String,
    since: i64,
}

/// A post.
#[derive(Serialize, ToSchema)]
#[schema(as = Post)]
struct PostView {
    id: String,
    organisation: String,
    title: String,
    /// Their codes, as in the rights matrix.
    roles: Vec<&'static str>,
    closed_at: Option<i64>,
    /// What a change says in `If-Match`.
    version: u64,
    /// Nothing where it was not asked who has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    holders: Option<Vec<HolderView>>,
}

impl PostView {
    fn of(post: Post, holders: Option<Vec<Holder>>) -> PostView {
        let holder = |holder: Holder| HolderView {
            person: holder.person.to_string(),
            since: holder.since.as_millis(),
        };
        PostView {
            id: post.id.to_string(),
            organisation: post.organisation.to_string(),
            title: post.title,
            roles: post.roles.iter().map(|role| role.code()).collect(),
            closed_at: post.closed_at.map(Timestamp::as_millis),
            version: post.version,
            holders: holders.map(|holders| holders.into_iter().map(holder).collect()),
        }
    }
}

type Versioned = ([(HeaderName, String); 1], Json<PostView>);

fn versioned(post: Post) -> Versioned {
    (etag(post.version), Json(PostView::of(post, None)))
}

fn roles(codes: &[String]) -> Result<Vec<Role>, Fault> {
    let roles = codes.iter().map(|code| code.parse());
    roles.collect::<Result<_, _>>().map_err(Fault::invalid)
}

/// An organisation's posts with who has them. That they were read is written down.
#[utoipa::path(get, path = "/api/organisations/{id}/posts", tag = "posts",
    params(("id" = String, Path), ("Reason" = Option<String>, Header)),
    responses((status = 200, body = Vec<PostView>)))]
async fn list(
    State(api): State<Arc<Api>>,
    mut caller: Caller,
    Id(id): Id<OrganisationId>,
) -> Result<Json<Vec<PostView>>, Fault> {
    let posts = api.directory.posts(&caller.act(), id).await?;
    let views = posts
        .into_iter()
        .map(|(post, holders)| PostView::of(post, Some(holders)));
    Ok(Json(views.collect()))
}

#[derive(Deserialize, ToSchema)]
struct NewPostBody {
    title: String,
    /// Their codes, one at least.
    roles: Vec<String>,
}

/// Makes a post.
#[utoipa::path(post, path = "/api/organisations/{id}/posts", tag = "posts",
    request_body = NewPostBody,
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = PostView)))]
async fn create(
    State(api): State<Arc<Api>>,
    mut caller: Proven,
    Id(id): Id<OrganisationId>,
    Body(body): Body<NewPostBody>,
) -> Result<(StatusCode, Versioned), Fault> {
    let roles = roles(&body.roles)?;
    let made = api
        .directory
        .create_post(&mut caller.act(), id, &body.title, &roles)
        .await?;
    Ok((StatusCode::CREATED, versioned(made)))
}

#[derive(Deserialize, ToSchema)]
struct RolesBody {
    /// Their codes, one at least.
    roles: Vec<String>,
}

/// Gives a post other roles. Holds for who has it at once.
#[utoipa::path(put, path = "/api/posts/{id}", tag = "posts", request_body = RolesBody,
    params(("id" = String, Path), ("If-Match" = String, Header)),
    responses((status = 200, body = PostView)))]
async fn change(
    State(api): State<Arc<Api>>,
    mut caller: Proven,
    Id(id): Id<PostId>,
    Seen(version): Seen,
    Body(body): Body<RolesBody>,
) -> Result<Versioned, Fault> {
    let roles = roles(&body.roles)?;
    if roles.is_empty() {
        return Err(Fault::invalid("roles"));
    }
    let changed = api
        .directory
        .change_post(&mut caller.act(), id, version, &roles)
        .await?;
    Ok(versioned(changed))
}

/// Closes a post.
#[utoipa::path(post, path = "/api/posts/{id}/close", tag = "posts",
    params(("id" = String, Path), ("If-Match" = String, Header)),
    responses((status = 200, body = PostView)))]
async fn close(
    State(api): State<Arc<Api>>,
    mut caller: Proven,
    Id(id): Id<PostId>,
    Seen(version): Seen,
) -> Result<Versioned, Fault> {
    let closed = api
        .directory
        .change_post(&mut caller.act(), id, version, &[])
        .await?;
    Ok(versioned(closed))
}

/// Somebody has a post from now on.
#[utoipa::path(put, path = "/api/posts/{id}/holders/{person}", tag = "posts",
    params(("id" = String, Path), ("person" = String, Path)), responses((status = 204)))]
async fn appoint(
    State(api): State<Arc<Api>>,
    mut caller: Proven,
    Ids(post, person): Ids<PostId, PersonId>,
) -> Result<StatusCode, Fault> {
    api.directory
        .appoint(&mut caller.act(), post, person)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Somebody does not have a post any more.
#[utoipa::path(delete, path = "/api/posts/{id}/holders/{person}", tag = "posts",
    params(("id" = String, Path), ("person" = String, Path)), responses((status = 204)))]
async fn dismiss(
    State(api): State<Arc<Api>>,
    mut caller: Proven,
    Ids(post, person): Ids<PostId, PersonId>,
) -> Result<StatusCode, Fault> {
    api.directory
        .dismiss(&mut caller.act(), post, person)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A role for a time.
#[derive(Serialize, ToSchema)]
struct TemporaryView {
    id: String,
    /// `delegation` or `guest`.
    kind: &'static str,
    /// Who lent it.
    from: Option<String>,
    /// Of which post.
    post: Option<String>,
    /// In which matter a guest has it.
    matter: Option<String>,
    person: String,
    role: &'static str,
    organisation: String,
    purpose: String,
    starts_at: i64,
    ends_at: i64,
}

impl From<Temporary> for TemporaryView {
    fn from(grant: Temporary) -> TemporaryView {
        let (kind, from, post, matter) = match grant.kind {
            TemporaryKind::Delegation { from, post } => {
                let (from, post) = (from.to_string(), post.to_string());
                ("delegation", Some(from), Some(post), None)
            }
            TemporaryKind::Guest { matter } => ("guest", None, None, Some(matter.to_string())),
        };
        TemporaryView {
            id: grant.id.to_string(),
            kind,
            from,
            post,
            matter,
            person: grant.person.to_string(),
            role: grant.role.code(),
            organisation: grant.organisation.to_string(),
            purpose: grant.purpose,
            starts_at: grant.starts_at.as_millis(),
            ends_at: grant.ends_at.as_millis(),
        }
    }
}

#[derive(Deserialize, ToSchema)]
struct DelegationBody {
    /// One's own, of the post.
    role: String,
    /// To whom, of the same branch.
    to: String,
    purpose: String,
    /// Until before when; 90 days at most.
    ends_at: i64,
}

/// Lends a role of a post of one's own to somebody of the same branch.
#[utoipa::path(post, path = "/api/posts/{id}/delegations", tag = "posts",
    request_body = DelegationBody,
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = TemporaryView)))]
async fn delegate(
    State(api): State<Arc<Api>>,
    mut caller: Proven,
    Id(post): Id<PostId>,
    Body(body): Body<DelegationBody>,
) -> Result<(StatusCode, Json<TemporaryView>), Fault> {
    let role: Role = body.role.parse().map_err(Fault::invalid)?;
    let to = id(&body.to)?;
    let term = Term {
        ends_at: Timestamp::from_millis(body.ends_at),
        purpose: &body.purpose,
    };
    let act = &mut caller.act();
    let lent = api.directory.delegate(act, post, role, to, term).await?;
    Ok((StatusCode::CREATED, Json(lent.into())))
}

/// The roles for a time that an organisation's people and guests have. That they were read is written down.
#[utoipa::path(get, path = "/api/organisations/{id}/grants", tag = "posts",
    params(("id" = String, Path), ("Reason" = Option<String>, Header)),
    responses((status = 200, body = Vec<TemporaryView>)))]
async fn grants(
    State(api): State<Arc<Api>>,
    mut caller: Caller,
    Id(id): Id<OrganisationId>,
) -> Result<Json<Vec<TemporaryView>>, Fault> {
    let grants = api.directory.temporary_grants(&caller.act(), id).await?;
    Ok(Json(grants.into_iter().map(Into::into).collect()))
}

#[derive(Deserialize, ToSchema)]
struct GuestBody {
    /// In which matter.
    matter: String,
    role: String,
    person: String,
    purpose: String,
    /// Until before when; 90 days at most.
    ends_at: i64,
}

/// Gives a guest a role in one matter of an organisation.
#[utoipa::path(post, path = "/api/organisations/{id}/guests", tag = "posts",
    request_body = GuestBody,
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = TemporaryView)))]
async fn invite_guest(
    State(api): State<Arc<Api>>,
    mut caller: Proven,
    Id(organisation): Id<OrganisationId>,
    Body(body): Body<GuestBody>,
) -> Result<(StatusCode, Json<TemporaryView>), Fault> {
    let role: Role = body.role.parse().map_err(Fault::invalid)?;
    let (matter, person) = (id(&body.matter)?, id(&body.person)?);
    let term = Term {
        ends_at: Timestamp::from_millis(body.ends_at),
        purpose: &body.purpose,
    };
    let act = &mut caller.act();
    let directory = &api.directory;
    let guest = directory.invite_guest(act, organisation, matter, role, person, term);
    Ok((StatusCode::CREATED, Json(guest.await?.into())))
}

/// Ends a role for a time before its end.
#[utoipa::path(delete, path = "/api/grants/{id}", tag = "posts",
    params(("id" = String, Path)), responses((status = 204)))]
async fn end_grant(
    State(api): State<Arc<Api>>,
    mut caller: Caller,
    Id(id): Id<GrantId>,
) -> Result<StatusCode, Fault> {
    api.directory.end_grant(&mut caller.act(), id).await?;
    Ok(StatusCode::NO_CONTENT)
}
