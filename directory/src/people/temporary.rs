//! Roles for a time: lent by who has them by a post (委托代理), or given to a guest for one matter.

use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::{
    PeopleError, PersonState, check_roles, find as find_person, grants, organisation_of_post,
};
use crate::act::Act;
use crate::audit::{self, Fresh, Outcome};
use crate::authority::{Action, Role};
use crate::id::{GrantId, MatterId, OrganisationId, PersonId, PostId};
use crate::organisation::active;
use crate::permit::{self, Denied};
use crate::store::{self, StoreError};
use crate::{Directory, Timestamp};

/// How long a role for a time lasts at most. What is needed for longer is a post.
pub const LONGEST_GRANT: Duration = Duration::from_secs(90 * 24 * 3600);

/// How many an organisation's list has at most.
const LISTED: usize = 1_000;

/// How a role for a time came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum TemporaryKind {
    /// Lent by somebody, of a post.
    Delegation {
        /// By whom.
        from: PersonId,
        /// Of which post.
        post: PostId,
    },
    /// Given to a guest of one matter.
    Guest {
        /// Which.
        matter: MatterId,
    },
}

/// For how long a role is had, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term<'a> {
    /// Until before when.
    pub ends_at: Timestamp,
    /// Why; a word at least.
    pub purpose: &'a str,
}

/// A role for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Temporary {
    /// For ever.
    pub id: GrantId,
    /// How it came about.
    pub kind: TemporaryKind,
    /// Who has it.
    pub person: PersonId,
    /// Which role.
    pub role: Role,
    /// Where.
    pub organisation: OrganisationId,
    /// What for.
    pub purpose: String,
    /// From when.
    pub starts_at: Timestamp,
    /// Until before when.
    pub ends_at: Timestamp,
}

impl Directory {
    /// The actor lends a role of a post of theirs to somebody of the same branch.
    pub async fn delegate(
        &self,
        act: &mut Act<'_>,
        post: PostId,
        role: Role,
        to: PersonId,
        term: Term<'_>,
    ) -> Result<Temporary, PeopleError> {
        let from = act.who.person().ok_or(Denied::NotFound)?;
        let mut reading = self.store.read().await?;
        let organisation = organisation_of_post(reading.connection(), post).await?;
        drop(reading);
        let mut writing = self.begin(act, Action::DelegateRoles, organisation).await?;
        let connection = writing.connection();
        let (own, theirs) = (from.to_string(), post.to_string());
        let is_theirs = grants::holds(connection, &own, &theirs, role, act.now).await?;
        if !is_theirs || role.is_administrator() {
            return Err(PeopleError::WrongRole);
        }
        let grant = Temporary {
            id: GrantId::draw(act.now, act.random),
            kind: TemporaryKind::Delegation { from, post },
            person: to,
            role,
            organisation,
            purpose: term.purpose.trim().to_owned(),
            starts_at: act.now,
            ends_at: term.ends_at,
        };
        let receiver = find_person(connection, to).await?.ok_or(Denied::NotFound)?;
        let at = permit::lineage(connection, receiver.organisation).await?;
        if to == from || !at.is_some_and(|at| at.is_in(organisation)) {
            return Err(Denied::NotFound.into());
        }
        insert(connection, act, &grant).await?;
        writing.commit().await?;
        Ok(grant)
    }

    /// Gives a guest a role in one matter of an organisation.
    pub async fn invite_guest(
        &self,
        act: &mut Act<'_>,
        organisation: OrganisationId,
        matter: MatterId,
        role: Role,
        person: PersonId,
        term: Term<'_>,
    ) -> Result<Temporary, PeopleError> {
        let mut writing = self.begin(act, Action::GrantRoles, organisation).await?;
        let connection = writing.connection();
        active(connection, organisation).await?;
        if role.is_administrator() {
            return Err(PeopleError::WrongRole);
        }
        let grant = Temporary {
            id: GrantId::draw(act.now, act.random),
            kind: TemporaryKind::Guest { matter },
            person,
            role,
            organisation,
            purpose: term.purpose.trim().to_owned(),
            starts_at: act.now,
            ends_at: term.ends_at,
        };
        insert(connection, act, &grant).await?;
        writing.commit().await?;
        Ok(grant)
    }

    /// The roles for a time that an organisation's people and guests have now or will have. That they were read is
    /// written down.
    pub async fn temporary_grants(
        &self,
        act: &Act<'_>,
        organisation: OrganisationId,
    ) -> Result<Vec<Temporary>, PeopleError> {
        let mut writing = self.begin(act, Action::SeePersons, organisation).await?;
        let connection = writing.connection();
        let query = format!(
            "SELECT * FROM temporary_grants WHERE organisation_id = $1 AND ended_at IS NULL \
             AND ends_at > $2 ORDER BY id LIMIT {LISTED}"
        );
        let rows = sqlx::query(&query)
            .bind(organisation.to_string())
            .bind(act.now.as_millis())
            .fetch_all(&mut *connection)
            .await?;
        let grants = rows.iter().map(read_row).collect::<Result<Vec<_>, _>>()?;
        let detail = json!({ "grants": grants.len() });
        super::seen(writing, act, organisation, detail).await?;
        Ok(grants)
    }

    /// Ends a role for a time before its end: who lent it may, and who grants roles there.
    pub async fn end_grant(&self, act: &mut Act<'_>, id: GrantId) -> Result<(), PeopleError> {
        let mut reading = self.store.read().await?;
        let query = "SELECT organisation_id, from_person_id FROM temporary_grants \
                     WHERE id = $1 AND ended_at IS NULL";
        let row = sqlx::query(query)
            .bind(id.to_string())
            .fetch_optional(reading.connection())
            .await?
            .ok_or(Denied::NotFound)?;
        drop(reading);
        let organisation = store::parsed(&row, "organisation_id")?;
        let from: Option<PersonId> = store::maybe_parsed(&row, "from_person_id")?;
        let mut writing = match from {
            Some(from) if act.who.person() == Some(from) => self.store.write().await?,
            _ => self.begin(act, Action::GrantRoles, organisation).await?,
        };
        let connection = writing.connection();
        let query = "UPDATE temporary_grants SET ended_at = $1 WHERE id = $2 AND ended_at IS NULL";
        sqlx::query(query)
            .bind(act.now.as_millis())
            .bind(id.to_string())
            .execute(&mut *connection)
            .await?;
        let fresh = Fresh {
            action: Action::GrantRoles.code(),
            object_kind: "grant",
            object_id: Some(id.to_string()),
            organisation: Some(organisation),
            outcome: Outcome::Done,
            detail: json!({ "change": "end" }),
        };
        audit::append(connection, act, fresh).await?;
        writing.commit().await?;
        Ok(())
    }
}

fn read_row(row: &AnyRow) -> Result<Temporary, StoreError> {
    let unreadable = StoreError::Unreadable;
    let kind = match store::text(row, "kind")?.as_str() {
        "delegation" => TemporaryKind::Delegation {
            from: store::parsed(row, "from_person_id")?,
            post: store::parsed(row, "from_post_id")?,
        },
        "guest" => TemporaryKind::Guest {
            matter: store::parsed(row, "matter_id")?,
        },
        _ => return Err(unreadable("kind")),
    };
    Ok(Temporary {
        id: store::parsed(row, "id")?,
        kind,
        person: store::parsed(row, "person_id")?,
        role: store::parsed(row, "role")?,
        organisation: store::parsed(row, "organisation_id")?,
        purpose: store::text(row, "purpose")?,
        starts_at: store::moment(row, "starts_at")?,
        ends_at: store::moment(row, "ends_at")?,
    })
}

async fn insert(
    connection: &mut AnyConnection,
    act: &Act<'_>,
    grant: &Temporary,
) -> Result<(), PeopleError> {
    let is_short = grant.ends_at.since(act.now) <= LONGEST_GRANT;
    if grant.ends_at <= act.now || !is_short || !permit::is_reason(&grant.purpose) {
        return Err(PeopleError::BadTerm);
    }
    let person = find_person(connection, grant.person)
        .await?
        .ok_or(Denied::NotFound)?;
    if person.state != PersonState::Active {
        return Err(PeopleError::NotActive);
    }
    check_roles(connection, grant.person, &[grant.role], act.now).await?;
    let (kind, matter, from, post) = match grant.kind {
        TemporaryKind::Delegation { from, post } => ("delegation", None, Some(from), Some(post)),
        TemporaryKind::Guest { matter } => ("guest", Some(matter), None, None),
    };
    let query = format!(
        "INSERT INTO temporary_grants (id, kind, person_id, role, organisation_id, matter_id, \
         from_person_id, from_post_id, purpose, starts_at, ends_at) VALUES {}",
        store::places(1, 11)
    );
    sqlx::query(&query)
        .bind(grant.id.to_string())
        .bind(kind)
        .bind(grant.person.to_string())
        .bind(grant.role.code())
        .bind(grant.organisation.to_string())
        .bind(matter.map(|id| id.to_string()))
        .bind(from.map(|id| id.to_string()))
        .bind(post.map(|id| id.to_string()))
        .bind(grant.purpose.clone())
        .bind(grant.starts_at.as_millis())
        .bind(grant.ends_at.as_millis())
        .execute(&mut *connection)
        .await
        .map_err(StoreError::from)?;
    let action = match grant.kind {
        TemporaryKind::Delegation { .. } => Action::DelegateRoles,
        TemporaryKind::Guest { .. } => Action::GrantRoles,
    };
    let fresh = Fresh {
        action: action.code(),
        object_kind: "grant",
        object_id: Some(grant.id.to_string()),
        organisation: Some(grant.organisation),
        outcome: Outcome::Done,
        detail: json!({
            "change": "begin",
            "how": grant.kind,
            "person": grant.person,
            "role": grant.role.code(),
            "purpose": grant.purpose,
            "ends_at": grant.ends_at,
        }),
    };
    audit::append(connection, act, fresh).await?;
    Ok(())
}
