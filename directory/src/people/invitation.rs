//! Invitations: a link that lets one person choose a password, once, within a week.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use sqlx::AnyConnection;

use super::{PeopleError, Person, PersonState, find};
use crate::act::Act;
use crate::audit::{self, Fresh, Outcome};
use crate::authority::Action;
use crate::id::{InvitationId, PersonId};
use crate::store::{self, StoreError};

/// How long an invitation is good. Long enough for a holiday; who needs longer is invited again.
pub const INVITATION_TIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// What stands in the link; 256 bits that nobody can guess. Only its hash is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct InvitationToken(String);

impl InvitationToken {
    /// As it stands in the link.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for InvitationToken {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("InvitationToken(…)")
    }
}

/// What is kept of a secret that has enough randomness of its own.
pub(crate) fn token_hash(token: &str) -> String {
    crate::hex(digest(&SHA256, token.as_bytes()).as_ref())
}

/// A fresh secret for a link, a cookie or a device.
pub(crate) fn draw_token(random: &mut crate::Random) -> String {
    let mut bytes = [0; 32];
    random.fill_bytes(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Makes an invitation; those before it are taken back.
pub(crate) async fn invite(
    connection: &mut AnyConnection,
    act: &mut Act<'_>,
    person: PersonId,
) -> Result<InvitationToken, StoreError> {
    revoke(connection, act, person).await?;
    let token = draw_token(act.random);
    let query = "INSERT INTO invitations (id, token_hash, person_id, created_at, expires_at) \
                 VALUES ($1, $2, $3, $4, $5)";
    sqlx::query(query)
        .bind(InvitationId::draw(act.now, act.random).to_string())
        .bind(token_hash(&token))
        .bind(person.to_string())
        .bind(act.now.as_millis())
        .bind(act.now.after(INVITATION_TIME).as_millis())
        .execute(&mut *connection)
        .await?;
    let fresh = Fresh {
        action: Action::ManagePersons.code(),
        object_kind: "person",
        object_id: Some(person.to_string()),
        organisation: find(connection, person)
            .await?
            .map(|person| person.organisation),
        outcome: Outcome::Done,
        detail: json!({ "change": "invite" }),
    };
    audit::append(connection, act, fresh).await?;
    Ok(InvitationToken(token))
}

/// Takes a person's invitations back.
pub(super) async fn revoke(
    connection: &mut AnyConnection,
    act: &Act<'_>,
    person: PersonId,
) -> Result<(), StoreError> {
    let query = "UPDATE invitations SET revoked_at = $1 \
                 WHERE person_id = $2 AND used_at IS NULL AND revoked_at IS NULL";
    sqlx::query(query)
        .bind(act.now.as_millis())
        .bind(person.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

/// Whom a link invites, if it is good.
pub(crate) async fn invited(
    connection: &mut AnyConnection,
    act: &Act<'_>,
    token: &str,
) -> Result<Person, PeopleError> {
    let query = "SELECT person_id FROM invitations WHERE token_hash = $1 AND used_at IS NULL \
                 AND revoked_at IS NULL AND expires_at > $2";
    let row = sqlx::query(query)
        .bind(token_hash(token))
        .bind(act.now.as_millis())
        .fetch_optional(&mut *connection)
        .await?
        .ok_or(PeopleError::BadInvitation)?;
    let person = find(connection, store::parsed(&row, "person_id")?).await?;
    person
        .filter(|person| person.state == PersonState::Invited)
        .ok_or(PeopleError::BadInvitation)
}

/// The link is used up, and the person is here.
pub(crate) async fn accept(
    connection: &mut AnyConnection,
    act: &Act<'_>,
    token: &str,
    person: &Person,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE invitations SET used_at = $1 WHERE token_hash = $2")
        .bind(act.now.as_millis())
        .bind(token_hash(token))
        .execute(&mut *connection)
        .await?;
    super::person::activate(connection, act, person).await
}
