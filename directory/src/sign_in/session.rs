//! Sessions: who is signed in, where, since when, and for how long yet.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::{SignIn, SignInError};
use crate::act::{Act, Who};
use crate::audit::{self, Fresh, Outcome};
use crate::authority::Role;
use crate::id::{PersonId, SessionId};
use crate::organisation::NoSuch;
use crate::people::{self, Person};
use crate::store::{self, StoreError};
use crate::{Random, Timestamp};

/// After how long without anything done a session ends, unless another time is set.
pub const IDLE_TIME: Duration = Duration::from_secs(30 * 60);

/// After how long it ends whatever is done, unless another time is set: a long day.
pub const ABSOLUTE_TIME: Duration = Duration::from_secs(12 * 3600);

/// How long a proof of who somebody is holds for dangerous acts.
pub const STEP_UP_TIME: Duration = Duration::from_secs(5 * 60);

/// How exactly it is known when a session was last used. Less would be a write with each request.
const SEEN_STEP: Duration = Duration::from_secs(60);

/// How many characters of what a browser calls itself are kept.
const DEVICE: usize = 200;

/// How long a deployment's sessions last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// After how long without anything done one ends.
    pub idle: Duration,
    /// After how long it ends whatever is done.
    pub absolute: Duration,
}

impl Default for SessionLimits {
    /// [`IDLE_TIME`] and [`ABSOLUTE_TIME`].
    fn default() -> SessionLimits {
        SessionLimits {
            idle: IDLE_TIME,
            absolute: ABSOLUTE_TIME,
        }
    }
}

/// How somebody was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strength {
    /// By the password.
    Password,
    /// By the password and a second factor.
    TwoFactors,
}

impl Strength {
    pub(super) fn code(self) -> &'static str {
        match self {
            Strength::Password => "password",
            Strength::TwoFactors => "two_factors",
        }
    }
}

impl FromStr for Strength {
    type Err = NoSuch;

    fn from_str(text: &str) -> Result<Strength, NoSuch> {
        match text {
            "password" => Ok(Strength::Password),
            "two_factors" => Ok(Strength::TwoFactors),
            _ => Err(NoSuch),
        }
    }
}

/// What the browser's cookie holds; 256 bits that nobody can guess. Only its hash is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionToken(String);

impl SessionToken {
    /// A fresh one.
    pub(super) fn draw(random: &mut Random) -> SessionToken {
        SessionToken(people::draw_token(random))
    }

    /// What a browser sent.
    pub fn from_text(text: &str) -> SessionToken {
        SessionToken(text.to_owned())
    }

    /// As it stands in the cookie.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn hash(&self) -> String {
        people::token_hash(&self.0)
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("SessionToken(…)")
    }
}

/// Somebody's session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Session {
    /// Names it in lists; opens nothing.
    pub id: SessionId,
    /// Whose.
    pub person: PersonId,
    /// What the browser calls itself.
    pub device: String,
    /// From where it was opened.
    pub address: Option<String>,
    /// Since when.
    pub created_at: Timestamp,
    /// When it was last used, to the minute.
    pub last_seen_at: Timestamp,
    /// When it ends at the latest.
    pub expires_at: Timestamp,
    /// How the person was recognised.
    pub strength: Strength,
    /// When last.
    pub verified_at: Timestamp,
    /// Whether the person must give or set up a second factor first.
    pub needs_second_factor: bool,
}

impl Session {
    /// Whether all is proven that must be: only then it opens more than the second factor's own pages.
    pub fn is_complete(&self) -> bool {
        self.strength == Strength::TwoFactors || !self.needs_second_factor
    }

    /// Whether who it is was proven a short while ago: for dangerous acts.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        now.since(self.verified_at) <= STEP_UP_TIME
    }
}

/// Whether a person must have a second factor: who has one, and every administrator.
pub(super) async fn needs_second_factor(
    connection: &mut AnyConnection,
    person: PersonId,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let query = "SELECT id FROM factors WHERE person_id = $1 AND confirmed_at IS NOT NULL LIMIT 1";
    let factor = sqlx::query(query)
        .bind(person.to_string())
        .fetch_optional(&mut *connection)
        .await?;
    if factor.is_some() {
        return Ok(true);
    }
    let roles = people::roles_of(connection, person, now).await?;
    Ok(roles.into_iter().any(Role::is_administrator))
}

/// Opens a session.
pub(super) async fn open(
    connection: &mut AnyConnection,
    act: &mut Act<'_>,
    person: PersonId,
    device: &str,
    strength: Strength,
    limits: SessionLimits,
) -> Result<(SessionToken, Session), StoreError> {
    let token = SessionToken::draw(act.random);
    let session = Session {
        id: SessionId::draw(act.now, act.random),
        person,
        device: device
            .chars()
            .filter(|c| !c.is_control())
            .take(DEVICE)
            .collect(),
        address: act.address.map(|address| address.to_string()),
        created_at: act.now,
        last_seen_at: act.now,
        expires_at: act.now.after(limits.absolute),
        strength,
        verified_at: act.now,
        needs_second_factor: needs_second_factor(connection, person, act.now).await?,
    };
    let query = format!(
        "INSERT INTO sessions (id, token_hash, person_id, device, address, created_at, \
         last_seen_at, expires_at, strength, verified_at) VALUES {}",
        store::places(1, 10)
    );
    sqlx::query(&query)
        .bind(session.id.to_string())
        .bind(token.hash())
        .bind(person.to_string())
        .bind(session.device.clone())
        .bind(session.address.clone())
        .bind(act.now.as_millis())
        .bind(act.now.as_millis())
        .bind(session.expires_at.as_millis())
        .bind(strength.code())
        .bind(act.now.as_millis())
        .execute(connection)
        .await?;
    Ok((token, session))
}

/// What ends a session or has ended it stands in these columns; those that are open now.
const OPEN: &str = "s.ended_at IS NULL AND s.expires_at > $1 AND s.last_seen_at > $2 \
                    AND x.state = 'active'";

async fn read_row(
    connection: &mut AnyConnection,
    row: &AnyRow,
    now: Timestamp,
) -> Result<Session, StoreError> {
    let person = store::parsed(row, "person_id")?;
    Ok(Session {
        id: store::parsed(row, "id")?,
        person,
        device: store::text(row, "device")?,
        address: store::maybe_text(row, "address")?,
        created_at: store::moment(row, "created_at")?,
        last_seen_at: store::moment(row, "last_seen_at")?,
        expires_at: store::moment(row, "expires_at")?,
        strength: store::parsed(row, "strength")?,
        verified_at: store::moment(row, "verified_at")?,
        needs_second_factor: needs_second_factor(connection, person, now).await?,
    })
}

impl SignIn {
    /// The open session of a token.
    pub(super) async fn find_session(
        &self,
        connection: &mut AnyConnection,
        token: &SessionToken,
        now: Timestamp,
    ) -> Result<Session, SignInError> {
        let query = format!(
            "SELECT s.* FROM sessions s JOIN persons x ON x.id = s.person_id \
             WHERE {OPEN} AND s.token_hash = $3"
        );
        let row = sqlx::query(&query)
            .bind(now.as_millis())
            .bind(now.before(self.limits.idle).as_millis())
            .bind(token.hash())
            .fetch_optional(&mut *connection)
            .await?
            .ok_or(SignInError::SessionEnded)?;
        Ok(read_row(connection, &row, now).await?)
    }

    /// Whose a token is, if its session is open, without keeping it from being idle: for what goes on by itself.
    pub async fn peek_session(
        &self,
        token: &SessionToken,
        now: Timestamp,
    ) -> Result<Session, SignInError> {
        let mut reading = self.directory.store.read().await?;
        self.find_session(reading.connection(), token, now).await
    }

    /// Whose a token is, if its session is open. Using it keeps it from being idle.
    pub async fn session(
        &self,
        token: &SessionToken,
        now: Timestamp,
    ) -> Result<Session, SignInError> {
        let mut reading = self.directory.store.read().await?;
        let mut session = self.find_session(reading.connection(), token, now).await?;
        drop(reading);
        // Where the idle time is short, so is what it is measured in.
        if now.since(session.last_seen_at) >= SEEN_STEP.min(self.limits.idle / 4) {
            let mut writing = self.directory.store.write().await?;
            // It may have been ended since it was read: then it stays so.
            let query = "UPDATE sessions SET last_seen_at = $1 WHERE id = $2 AND ended_at IS NULL";
            let seen = sqlx::query(query)
                .bind(now.as_millis())
                .bind(session.id.to_string())
                .execute(writing.connection())
                .await?;
            writing.commit().await?;
            if seen.rows_affected() == 0 {
                return Err(SignInError::SessionEnded);
            }
            session.last_seen_at = now;
        }
        Ok(session)
    }

    /// The sessions that whose token this is has open, the newest first.
    pub async fn sessions(
        &self,
        token: &SessionToken,
        now: Timestamp,
    ) -> Result<Vec<Session>, SignInError> {
        let mut reading = self.directory.store.read().await?;
        let connection = reading.connection();
        let own = self.find_session(connection, token, now).await?;
        let query = format!(
            "SELECT s.* FROM sessions s JOIN persons x ON x.id = s.person_id \
             WHERE {OPEN} AND s.person_id = $3 ORDER BY s.created_at DESC, s.id"
        );
        let rows = sqlx::query(&query)
            .bind(now.as_millis())
            .bind(now.before(self.limits.idle).as_millis())
            .bind(own.person.to_string())
            .fetch_all(&mut *connection)
            .await?;
        let mut sessions = Vec::with_capacity(rows.len());
        for row in &rows {
            sessions.push(read_row(connection, row, now).await?);
        }
        Ok(sessions)
    }

    /// Ends one of the own sessions: this one, or another one that is named.
    pub async fn end_session(
        &self,
        act: &mut Act<'_>,
        token: &SessionToken,
        which: Option<SessionId>,
    ) -> Result<(), SignInError> {
        let mut writing = self.directory.store.write().await?;
        let connection = writing.connection();
        let own = self.find_session(connection, token, act.now).await?;
        act.who = Who::Person(own.person);
        let which = which.unwrap_or(own.id);
        let query = "UPDATE sessions SET ended_at = $1, ended_because = 'signed_out' \
                     WHERE id = $2 AND person_id = $3 AND ended_at IS NULL";
        let ended = sqlx::query(query)
            .bind(act.now.as_millis())
            .bind(which.to_string())
            .bind(own.person.to_string())
            .execute(&mut *connection)
            .await?;
        if ended.rows_affected() == 0 {
            return Err(crate::permit::Denied::NotFound.into());
        }
        let person = people::find(connection, own.person).await?;
        let detail = json!({ "session": which });
        note(
            connection,
            act,
            "sign_out",
            person.as_ref(),
            Outcome::Done,
            detail,
        )
        .await?;
        writing.commit().await?;
        Ok(())
    }
}

/// Writes down what somebody did with their own sign-in.
pub(super) async fn note(
    connection: &mut AnyConnection,
    act: &Act<'_>,
    action: &'static str,
    person: Option<&Person>,
    outcome: Outcome,
    detail: serde_json::Value,
) -> Result<(), StoreError> {
    let fresh = Fresh {
        action,
        object_kind: "person",
        object_id: person.map(|person| person.id.to_string()),
        organisation: person.map(|person| person.organisation),
        outcome,
        detail,
    };
    audit::append(connection, act, fresh).await
}
