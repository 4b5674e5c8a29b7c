//! People: who they are, the posts that they hold, and the roles that they have by them or for a time.
//!
//! Invariants: of system administrator, security administrator and auditor one person has at most one, however it came
//! to it; a role for a time has an end; what somebody lent ends when they lose it themselves; who has left has no
//! right, no session and no way to sign in from that moment on.

mod grants;
mod invitation;
mod person;
mod post;
mod temporary;
#[cfg(test)]
mod tests;

use serde::Serialize;
use sqlx::AnyConnection;
use sqlx::any::AnyRow;

pub(crate) use grants::{grants_of, sees_organisations_from};
pub use invitation::{INVITATION_TIME, InvitationToken};
pub(crate) use invitation::{accept, draw_token, invite, invited, token_hash};
pub(crate) use person::set_invited;
pub use person::{Administrators, NewPerson, PersonPage, PersonQuery, PersonState};
pub use post::{Holder, Post};
pub use temporary::{LONGEST_GRANT, Temporary, TemporaryKind, Term};

use crate::Timestamp;
use crate::act::Act;
use crate::audit::{self, Fresh, Outcome};
use crate::authority::{Action, Role, may_be_one_person};
use crate::id::{OrganisationId, PersonId, PostId};
use crate::organisation::OrganisationError;
use crate::permit::Denied;
use crate::store::{self, StoreError, Writing};

/// Somebody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Person {
    /// For ever.
    pub id: PersonId,
    /// Where they belong; what they may do there stands in their posts.
    pub organisation: OrganisationId,
    /// As shown.
    pub name: String,
    /// What they sign in with.
    pub login: String,
    /// Whether they may.
    pub state: PersonState,
    /// Since when they are known.
    pub created_at: Timestamp,
    /// Since when they are not here any more.
    pub left_at: Option<Timestamp>,
    /// How often they were changed, and once for being made.
    pub version: u64,
}

/// Writes down that people of an organisation were seen, and ends the transaction.
async fn seen(
    mut writing: Writing,
    act: &Act<'_>,
    organisation: OrganisationId,
    detail: serde_json::Value,
) -> Result<(), StoreError> {
    let fresh = Fresh {
        action: Action::SeePersons.code(),
        object_kind: "organisation",
        object_id: Some(organisation.to_string()),
        organisation: Some(organisation),
        outcome: Outcome::Done,
        detail,
    };
    audit::append(writing.connection(), act, fresh).await?;
    writing.commit().await
}

/// Why a person, post or role was not changed.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    /// There is no right to it, or no such thing.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The organisation takes nobody.
    #[error(transparent)]
    Organisation(#[from] OrganisationError),
    /// Somebody changed it meanwhile: look at it again.
    #[error("it was changed meanwhile: it has version {current} now")]
    Stale {
        /// The version that it has now.
        current: u64,
    },
    /// A name has 1 to 64 characters and no control characters.
    #[error("the name can't be used")]
    BadName,
    /// A sign-in name has 3 to 32 small letters, digits, dots and hyphens, and begins with a letter.
    #[error("the sign-in name can't be used")]
    BadLogin,
    /// Somebody else has this sign-in name.
    #[error("somebody else has this sign-in name")]
    LoginTaken,
    /// The three administrators are three people.
    #[error("one person would have two of the three administrators' roles")]
    OnePersonTwoAdministrators,
    /// The role is for one matter and never a post's, or a post needs none.
    #[error("a post can't have this role")]
    WrongRole,
    /// A role for a time ends after it began, at the latest after [`LONGEST_GRANT`], and says what it is for.
    #[error("a role for a time needs an end that is not too far, and a purpose")]
    BadTerm,
    /// They have left, or are not here yet.
    #[error("this person takes no part now")]
    NotActive,
    /// Nobody rules themselves out: who manages people can't end themselves.
    #[error("nobody ends themselves")]
    Oneself,
    /// People are there already: the first administrators are made once.
    #[error("there are people already")]
    NotEmpty,
    /// The link was used, was taken back or is too old.
    #[error("the invitation is not good any more")]
    BadInvitation,
}

impl From<StoreError> for PeopleError {
    fn from(error: StoreError) -> PeopleError {
        PeopleError::Denied(Denied::Store(error))
    }
}

impl From<sqlx::Error> for PeopleError {
    fn from(error: sqlx::Error) -> PeopleError {
        PeopleError::from(StoreError::from(error))
    }
}

pub(crate) fn read_row(row: &AnyRow) -> Result<Person, StoreError> {
    Ok(Person {
        id: store::parsed(row, "id")?,
        organisation: store::parsed(row, "organisation_id")?,
        name: store::text(row, "name")?,
        login: store::text(row, "login")?,
        state: store::parsed(row, "state")?,
        created_at: store::moment(row, "created_at")?,
        left_at: store::maybe_moment(row, "left_at")?,
        version: store::number(row, "version")? as u64,
    })
}

/// One person.
pub(crate) async fn find(
    connection: &mut AnyConnection,
    id: PersonId,
) -> Result<Option<Person>, StoreError> {
    let row = sqlx::query("SELECT * FROM persons WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(read_row).transpose()
}

/// All roles that a person has or will have, by posts and for a time.
pub(crate) async fn roles_of(
    connection: &mut AnyConnection,
    person: PersonId,
    now: Timestamp,
) -> Result<Vec<Role>, StoreError> {
    let mut roles = Vec::new();
    let query = "SELECT p.roles AS roles FROM post_holders h JOIN posts p ON p.id = h.post_id \
                 WHERE h.person_id = $1 AND h.ends_at IS NULL AND p.closed_at IS NULL \
                 UNION ALL SELECT role AS roles FROM temporary_grants \
                 WHERE person_id = $1 AND ended_at IS NULL AND ends_at > $2";
    let rows = sqlx::query(query)
        .bind(person.to_string())
        .bind(now.as_millis())
        .fetch_all(connection)
        .await?;
    for row in &rows {
        roles.extend(grants::read_roles(&store::text(row, "roles")?)?);
    }
    Ok(roles)
}

/// Whether a person may have these roles too.
async fn check_roles(
    connection: &mut AnyConnection,
    person: PersonId,
    more: &[Role],
    now: Timestamp,
) -> Result<(), PeopleError> {
    let roles = roles_of(connection, person, now).await?;
    if may_be_one_person(roles.into_iter().chain(more.iter().copied())) {
        Ok(())
    } else {
        Err(PeopleError::OnePersonTwoAdministrators)
    }
}

/// Where a post is, without asking who asks.
async fn organisation_of_post(
    connection: &mut AnyConnection,
    id: PostId,
) -> Result<OrganisationId, Denied> {
    let row = sqlx::query("SELECT organisation_id FROM posts WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    let row = row.ok_or(Denied::NotFound)?;
    Ok(store::parsed(&row, "organisation_id")?)
}
