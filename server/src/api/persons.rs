//! People: making, inviting, changing them, and letting them go.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode};
use directory::Timestamp;
use directory::id::{OrganisationId, PersonId};
use directory::people::{NewPerson, Person, PersonQuery, PersonState};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::extract::{Body, Caller, Id, Proven, Query, Seen, etag, id};
use super::fault::Fault;
use super::organisations::PAGE;
use super::setup::{InvitedView, invitation_link};

pub(super) fn router() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, change))
        .routes(routes!(leave))
        .routes(routes!(invite))
        .routes(routes!(reset))
}

/// Somebody.
#[derive(Serialize, ToSchema)]
#[schema(as = Person)]
pub(super) struct PersonView {
    id: String,
    /// Where they belong; what they may do there stands in their posts.
    organisation: String,
    name: String,
    login: String,
    /// `invited`, `active`, `locked` or `left`.
    state: &'static str,
    created_at: i64,
    left_at: Option<i64>,
    /// What a change says in `If-Match`.
    version: u64,
}

impl From<Person> for PersonView {
    fn from(person: Person) -> PersonView {
        PersonView {
            id: person.id.to_string(),
            organisation: person.organisation.to_string(),
            name: person.name,
            login: person.login,
            state: match person.state {
                PersonState::Invited => "invited",
                PersonState::Active => "active",
                PersonState::Locked => "locked",
                PersonState::Left => "left",
            },
            created_at: person.created_at.as_millis(),
            left_at: person.left_at.map(Timestamp::as_millis),
            version: person.version,
        }
    }
}

type Versioned = ([(HeaderName, String); 1], Json<PersonView>);

fn versioned(person: Person) -> Versioned {
    (etag(person.version), Json(person.into()))
}

/// Which people are wanted.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Part of a name, first letters of its pinyin, or of the sign-in name.
    text: Option<String>,
    /// Also those who have left.
    #[serde(default)]
    with_left: bool,
    /// `next` of the page before.
    cursor: Option<String>,
    /// How many, at most 200.
    limit: Option<u32>,
}

/// A part of an organisation's people.
#[derive(Serialize, ToSchema)]
struct PersonPage {
    persons: Vec<PersonView>,
    /// Where the next page begins, if there is one.
    next: Option<String>,
}

/// An organisation's people. That they were read is written down.
#[utoipa::path(get, path = "/api/organisations/{id}/persons", tag = "people",
    params(("id" = String, Path), ("Reason" = Option<String>, Header), ListQuery),
    responses((status = 200, body = PersonPage)))]
async fn list(
    State(api): State<Arc<Api>>,
    mut caller: Caller,
    Id(id): Id<OrganisationId>,
    Query(query): Query<ListQuery>,
) -> Result<Json<PersonPage>, Fault> {
    let wanted = PersonQuery {
        text: query.text,
        with_left: query.with_left,
        cursor: query.cursor,
        limit: query.limit.map_or(PAGE, |limit| limit as usize),
    };
    let page = api.directory.persons(&caller.act(), id, &wanted).await?;
    Ok(Json(PersonPage {
        persons: page.persons.into_iter().map(Into::into).collect(),
        next: page.next,
    }))
}

/// Somebody to be made.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewPerson)]
pub(super) struct NewPersonBody {
    pub(super) name: String,
    /// 3 to 32 small letters, digits, dots and hyphens, beginning with a letter.
    pub(super) login: String,
}

/// Makes somebody, with an invitation that is shown once.
#[utoipa::path(post, path = "/api/organisations/{id}/persons", tag = "people",
    request_body = NewPersonBody,
    params(("id" = String, Path), ("Reason" = Option<String>, Header),
        ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = InvitedView)))]
async fn create(
    State(api): State<Arc<Api>>,
    mut caller: Caller,
    Id(id): Id<OrganisationId>,
    Body(body): Body<NewPersonBody>,
) -> Result<(StatusCode, Json<InvitedView>), Fault> {
    let new = NewPerson {
        name: body.name,
        login: body.login,
    };
    let (person, token) = api
        .directory
        .create_person(&mut caller.act(), id, new)
        .await?;
    let view = InvitedView {
        person: person.into(),
        invitation: invitation_link(&api, token.as_str()),
    };
    Ok((StatusCode::CREATED, Json(view)))
}

/// One person. That they were read is written down.
#[utoipa::path(get, path = "/api/persons/{id}", tag = "people",
    params(("id" = String, Path), ("Reason" = Option<String>, Header)),
    responses((status = 200, body = PersonView)))]
async fn show(
    State(api): State<Arc<Api>>,
    mut caller: Caller,
    Id(id): Id<PersonId>,
) -> Result<Versioned, Fault> {
    Ok(versioned(api.directory.person(&caller.act(), id).await?))
}

/// One change.
#[derive(Deserialize, ToSchema)]
#[serde(tag = "change", rename_all = "snake_case")]
#[schema(as = PersonChange)]
enum ChangeBody {
    /// Somebody is called otherwise.
    Rename { name: String },
    /// Somebody belongs to another organisation from now on. All that they were by posts and for a time ends.
    Move { organisation: String },
    /// Somebody is locked out. Sessions that are open end.
    Lock,
    /// Somebody is let in again.
    Unlock,
}

/// Changes a person.
#[utoipa::path(patch, path = "/api/persons/{id}", tag = "people", request_body = ChangeBody,
    params(("id" = String, Path), ("If-Match" = String, Header), ("Reason" = Option<String>, Header)),
    responses((status = 200, body = PersonView)))]
async fn change(
    State(api): State<Arc<Api>>,
    mut caller: Proven,
    Id(person): Id<PersonId>,
    Seen(version): Seen,
    Body(body): Body<ChangeBody>,
) -> Result<Versioned, Fault> {
    let (directory, act) = (&api.directory, &mut caller.act());
    let changed = match body {
        ChangeBody::Rename { name } => directory.rename_person(act, person, version, &name).await?,
        ChangeBody::Move { organisation } => {
            let to = id(&organisation)?;
            directory.move_person(act, person, version, to).await?
        }
        ChangeBody::Lock => directory.lock_person(act, person, version, true).await?,
        ChangeBody::Unlock => directory.lock_person(act, person, version, false).await?,
    };
    Ok(versioned(changed))
}

/// Somebody has left: every right and session, and what they lent to others, ends now.
#[utoipa::path(post, path = "/api/persons/{id}/leave", tag = "people",
    params(("id" = String, Path), ("If-Match" = String, Header), ("Reason" = Option<String>, Header)),
    responses((status = 200, body = PersonView)))]
async fn leave(
    State(api): State<Arc<Api>>,
    mut caller: Proven,
    Id(id): Id<PersonId>,
    Seen(version): Seen,
) -> Result<Versioned, Fault> {
    let gone = api
        .directory
        .let_person_go(&mut caller.act(), id, version)
        .await?;
    Ok(versioned(gone))
}

/// A link, shown once.
#[derive(Serialize, ToSchema)]
struct Invitation {
    /// Who opens it chooses a password; it is good for a week, and once.
    invitation: String,
}

/// Invites somebody again: the invitation before is not good any more.
#[utoipa::path(post, path = "/api/persons/{id}/invitation", tag = "people",
    params(("id" = String, Path), ("Reason" = Option<String>, Header),
        ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = Invitation)))]
async fn invite(
    State(api): State<Arc<Api>>,
    mut caller: Proven,
    Id(id): Id<PersonId>,
) -> Result<(StatusCode, Json<Invitation>), Fault> {
    let token = api.directory.invite_person(&mut caller.act(), id).await?;
    let invitation = invitation_link(&api, token.as_str());
    Ok((StatusCode::CREATED, Json(Invitation { invitation })))
}

/// For who has lost password or factors: takes all away, ends every session, and invites anew.
#[utoipa::path(post, path = "/api/persons/{id}/reset", tag = "people",
    params(("id" = String, Path), ("Reason" = Option<String>, Header),
        ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = Invitation)))]
async fn reset(
    State(api): State<Arc<Api>>,
    mut caller: Proven,
    Id(id): Id<PersonId>,
) -> Result<(StatusCode, Json<Invitation>), Fault> {
    let token = api.sign_in.reset_sign_in(&mut caller.act(), id).await?;
    let invitation = invitation_link(&api, token.as_str());
    Ok((StatusCode::CREATED, Json(Invitation { invitation })))
}
