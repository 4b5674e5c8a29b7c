//! Second factors: setting them up, listing them, taking them away; recovery codes for who has lost them.

use std::str::FromStr;

use serde::Serialize;
use serde_json::json;
use sqlx::AnyConnection;

use super::session::{self, SessionToken};
use super::{Session, SignIn, SignInError, totp};
use crate::act::{Act, Who};
use crate::audit::Outcome;
use crate::id::{FactorId, PersonId};
use crate::organisation::NoSuch;
use crate::people;
use crate::permit::Denied;
use crate::store::{self, StoreError, Writing};
use crate::{Random, Timestamp};

/// How many recovery codes somebody gets.
pub const RECOVERY_CODES: usize = 10;

/// How many letters one has; with thirty-two of them, fifty bits.
const CODE: usize = 10;

/// What a second factor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FactorKind {
    /// 动态口令
    Totp,
    /// 通行密钥
    Passkey,
}

impl FactorKind {
    pub(super) fn code(self) -> &'static str {
        match self {
            FactorKind::Totp => "totp",
            FactorKind::Passkey => "passkey",
        }
    }
}

impl FromStr for FactorKind {
    type Err = NoSuch;

    fn from_str(text: &str) -> Result<FactorKind, NoSuch> {
        match text {
            "totp" => Ok(FactorKind::Totp),
            "passkey" => Ok(FactorKind::Passkey),
            _ => Err(NoSuch),
        }
    }
}

/// A second factor that works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Factor {
    /// Names it.
    pub id: FactorId,
    /// What it is.
    pub kind: FactorKind,
    /// What its owner calls it.
    pub name: String,
    /// Since when.
    pub created_at: Timestamp,
    /// When it was last used.
    pub last_used_at: Option<Timestamp>,
}

/// One-time passwords that are being set up; shown once.
#[derive(Clone)]
pub struct NewTotp {
    /// Names the factor.
    pub id: FactorId,
    /// The secret as it is typed into an app.
    pub secret: String,
    /// What the picture to be photographed holds.
    pub uri: String,
}

impl SignIn {
    /// Begins to set up one-time passwords. They work once a first one was shown ([`SignIn::confirm_totp`]).
    pub async fn begin_totp(
        &self,
        act: &mut Act<'_>,
        token: &SessionToken,
        issuer: &str,
    ) -> Result<NewTotp, SignInError> {
        let (mut writing, session) = self.begin_for_factors(act, token).await?;
        let connection = writing.connection();
        let person = people::find(connection, session.person)
            .await?
            .ok_or(Denied::NotFound)?;
        let mut secret = [0; totp::SECRET];
        act.random.fill_bytes(&mut secret);
        let id = FactorId::draw(act.now, act.random);
        let sealed = self.vault.seal(&id.to_string(), &secret, act.random);
        // What was begun before and never confirmed goes.
        let query = "DELETE FROM factors \
                     WHERE person_id = $1 AND kind = 'totp' AND confirmed_at IS NULL";
        sqlx::query(query)
            .bind(session.person.to_string())
            .execute(&mut *connection)
            .await?;
        insert(
            connection,
            act.now,
            id,
            session.person,
            FactorKind::Totp,
            "动态口令",
            &sealed,
        )
        .await?;
        writing.commit().await?;
        Ok(NewTotp {
            id,
            secret: totp::base32(&secret),
            uri: totp::uri(issuer, &person.login, &secret),
        })
    }

    /// Shows a first one-time password: from now on they work. The session counts as proven by two factors; who had
    /// none before gets recovery codes, shown once.
    pub async fn confirm_totp(
        &self,
        act: &mut Act<'_>,
        token: &SessionToken,
        id: FactorId,
        code: &str,
    ) -> Result<(SessionToken, Option<Vec<String>>), SignInError> {
        let (mut writing, session) = self.begin_for_factors(act, token).await?;
        let connection = writing.connection();
        let query = "SELECT secret FROM factors WHERE id = $1 AND person_id = $2 \
                     AND kind = 'totp' AND confirmed_at IS NULL";
        let row = sqlx::query(query)
            .bind(id.to_string())
            .bind(session.person.to_string())
            .fetch_optional(&mut *connection)
            .await?
            .ok_or(Denied::NotFound)?;
        let sealed = store::bytes(&row, "secret")?;
        let secret = self.vault.open(&id.to_string(), &sealed);
        let secret = secret.ok_or(StoreError::Unreadable("secret"))?;
        let step = totp::check(&secret, code, act.now, 0).ok_or(SignInError::Wrong)?;
        let query = "UPDATE factors SET confirmed_at = $1, last_used_at = $1, last_step = $2 \
                     WHERE id = $3";
        sqlx::query(query)
            .bind(act.now.as_millis())
            .bind(step)
            .bind(id.to_string())
            .execute(&mut *connection)
            .await?;
        let token = raise(connection, act, &session).await?;
        let codes = self.first_codes(connection, act, session.person).await?;
        self.note_factor(connection, act, &session, "add_factor", FactorKind::Totp)
            .await?;
        writing.commit().await?;
        Ok((token, codes))
    }

    /// The second factors that whose token this is has.
    pub async fn factors(
        &self,
        token: &SessionToken,
        now: Timestamp,
    ) -> Result<Vec<Factor>, SignInError> {
        let mut reading = self.directory.store.read().await?;
        let connection = reading.connection();
        let session = self.find_session(connection, token, now).await?;
        Ok(factors_of(connection, session.person).await?)
    }

    /// Takes a factor away; an administrator keeps one.
    pub async fn remove_factor(
        &self,
        act: &mut Act<'_>,
        token: &SessionToken,
        id: FactorId,
    ) -> Result<(), SignInError> {
        let (mut writing, session) = self.begin_for_factors(act, token).await?;
        let connection = writing.connection();
        let factors = factors_of(connection, session.person).await?;
        let factor = factors
            .iter()
            .find(|factor| factor.id == id)
            .ok_or(Denied::NotFound)?;
        let roles = people::roles_of(connection, session.person, act.now).await?;
        if factors.len() == 1 && roles.into_iter().any(|role| role.is_administrator()) {
            return Err(SignInError::SecondFactorNeeded);
        }
        let kind = factor.kind;
        sqlx::query("DELETE FROM factors WHERE id = $1")
            .bind(id.to_string())
            .execute(&mut *connection)
            .await?;
        self.note_factor(connection, act, &session, "remove_factor", kind)
            .await?;
        writing.commit().await?;
        Ok(())
    }

    /// New recovery codes; the old ones open nothing any more.
    pub async fn new_recovery_codes(
        &self,
        act: &mut Act<'_>,
        token: &SessionToken,
    ) -> Result<Vec<String>, SignInError> {
        let (mut writing, session) = self.begin_for_factors(act, token).await?;
        if session.strength != session::Strength::TwoFactors {
            return Err(SignInError::SecondFactorNeeded);
        }
        let connection = writing.connection();
        let codes = self
            .draw_codes(connection, act.random, session.person)
            .await?;
        let person = people::find(connection, session.person).await?;
        let detail = json!({ "count": codes.len() });
        session::note(
            connection,
            act,
            "new_recovery_codes",
            person.as_ref(),
            Outcome::Done,
            detail,
        )
        .await?;
        writing.commit().await?;
        Ok(codes)
    }

    /// Opens the transaction for what somebody does with their own factors: who has some must have given one, and who it
    /// is must have been proven just now, so that a session left open gives nobody a factor of theirs.
    pub(super) async fn begin_for_factors(
        &self,
        act: &mut Act<'_>,
        token: &SessionToken,
    ) -> Result<(Writing, Session), SignInError> {
        let mut writing = self.directory.store.write().await?;
        let session = self
            .find_session(writing.connection(), token, act.now)
            .await?;
        act.who = Who::Person(session.person);
        let has_some = !factors_of(writing.connection(), session.person)
            .await?
            .is_empty();
        if has_some && session.strength != session::Strength::TwoFactors {
            return Err(SignInError::SecondFactorNeeded);
        }
        if !session.is_fresh(act.now) {
            return Err(SignInError::StepUpNeeded);
        }
        Ok((writing, session))
    }

    /// Recovery codes for who has none yet.
    pub(super) async fn first_codes(
        &self,
        connection: &mut AnyConnection,
        act: &mut Act<'_>,
        person: PersonId,
    ) -> Result<Option<Vec<String>>, StoreError> {
        let row = sqlx::query("SELECT hash FROM recovery_codes WHERE person_id = $1 LIMIT 1")
            .bind(person.to_string())
            .fetch_optional(&mut *connection)
            .await?;
        match row {
            Some(_) => Ok(None),
            None => self
                .draw_codes(connection, act.random, person)
                .await
                .map(Some),
        }
    }

    async fn draw_codes(
        &self,
        connection: &mut AnyConnection,
        random: &mut Random,
        person: PersonId,
    ) -> Result<Vec<String>, StoreError> {
        sqlx::query("DELETE FROM recovery_codes WHERE person_id = $1")
            .bind(person.to_string())
            .execute(&mut *connection)
            .await?;
        let mut codes = Vec::with_capacity(RECOVERY_CODES);
        for _ in 0..RECOVERY_CODES {
            let mut bytes = [0; 8];
            random.fill_bytes(&mut bytes);
            let code: String = totp::base32(&bytes).chars().take(CODE).collect();
            sqlx::query("INSERT INTO recovery_codes (person_id, hash) VALUES ($1, $2)")
                .bind(person.to_string())
                .bind(self.vault.mark(&person.to_string(), &code))
                .execute(&mut *connection)
                .await?;
            codes.push(format!("{}-{}", &code[..CODE / 2], &code[CODE / 2..]));
        }
        Ok(codes)
    }

    /// Uses a recovery code up; `false` if it is none.
    pub(super) async fn use_code(
        &self,
        connection: &mut AnyConnection,
        now: Timestamp,
        person: PersonId,
        typed: &str,
    ) -> Result<bool, StoreError> {
        let code: String = typed
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .map(|c| c.to_ascii_uppercase())
            .collect();
        let query = "UPDATE recovery_codes SET used_at = $1 \
                     WHERE person_id = $2 AND hash = $3 AND used_at IS NULL";
        let used = sqlx::query(query)
            .bind(now.as_millis())
            .bind(person.to_string())
            .bind(self.vault.mark(&person.to_string(), &code))
            .execute(connection)
            .await?;
        Ok(used.rows_affected() == 1)
    }

    /// Whether a one-time password is right, for any of somebody's apps; then it is used up.
    pub(super) async fn use_totp(
        &self,
        connection: &mut AnyConnection,
        now: Timestamp,
        person: PersonId,
        typed: &str,
    ) -> Result<bool, StoreError> {
        let query = "SELECT id, secret, last_step FROM factors \
                     WHERE person_id = $1 AND kind = 'totp' AND confirmed_at IS NOT NULL";
        let rows = sqlx::query(query)
            .bind(person.to_string())
            .fetch_all(&mut *connection)
            .await?;
        for row in &rows {
            let id = store::text(row, "id")?;
            let secret = self.vault.open(&id, &store::bytes(row, "secret")?);
            let secret = secret.ok_or(StoreError::Unreadable("secret"))?;
            let last_step = store::number(row, "last_step")?;
            if let Some(step) = totp::check(&secret, typed, now, last_step) {
                let query = "UPDATE factors SET last_step = $1, last_used_at = $2 WHERE id = $3";
                sqlx::query(query)
                    .bind(step)
                    .bind(now.as_millis())
                    .bind(id)
                    .execute(&mut *connection)
                    .await?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) async fn note_factor(
        &self,
        connection: &mut AnyConnection,
        act: &Act<'_>,
        session: &Session,
        action: &'static str,
        kind: FactorKind,
    ) -> Result<(), StoreError> {
        let person = people::find(connection, session.person).await?;
        let detail = json!({ "kind": kind });
        session::note(
            connection,
            act,
            action,
            person.as_ref(),
            Outcome::Done,
            detail,
        )
        .await
    }
}

/// Keeps a factor; it works once it is confirmed.
pub(super) async fn insert(
    connection: &mut AnyConnection,
    now: Timestamp,
    id: FactorId,
    person: PersonId,
    kind: FactorKind,
    name: &str,
    sealed: &[u8],
) -> Result<(), StoreError> {
    let query = format!(
        "INSERT INTO factors (id, person_id, kind, name, secret, last_step, created_at) VALUES {}",
        store::places(1, 7)
    );
    sqlx::query(&query)
        .bind(id.to_string())
        .bind(person.to_string())
        .bind(kind.code())
        .bind(name.to_owned())
        .bind(sealed.to_vec())
        .bind(0_i64)
        .bind(now.as_millis())
        .execute(connection)
        .await?;
    Ok(())
}

/// Ends the giving of a second factor: it is noted, and where it was right the session has another token.
pub(super) async fn settle(
    mut writing: Writing,
    act: &mut Act<'_>,
    session: &Session,
    by: &str,
    is_right: bool,
) -> Result<SessionToken, SignInError> {
    let connection = writing.connection();
    let person = people::find(connection, session.person).await?;
    let (token, outcome) = match is_right {
        true => (Some(raise(connection, act, session).await?), Outcome::Done),
        false => (None, Outcome::Failed),
    };
    let (person, detail) = (person.as_ref(), json!({ "session": session.id, "by": by }));
    session::note(connection, act, "second_factor", person, outcome, detail).await?;
    writing.commit().await?;
    token.ok_or(SignInError::Wrong)
}

/// The session is proven by two factors from now on, under a token that nobody had before.
pub(super) async fn raise(
    connection: &mut AnyConnection,
    act: &mut Act<'_>,
    session: &Session,
) -> Result<SessionToken, StoreError> {
    let token = SessionToken::draw(act.random);
    let query = "UPDATE sessions SET strength = $1, verified_at = $2, last_seen_at = $2, \
                 token_hash = $3 WHERE id = $4";
    sqlx::query(query)
        .bind(session::Strength::TwoFactors.code())
        .bind(act.now.as_millis())
        .bind(token.hash())
        .bind(session.id.to_string())
        .execute(connection)
        .await?;
    Ok(token)
}

async fn factors_of(
    connection: &mut AnyConnection,
    person: PersonId,
) -> Result<Vec<Factor>, StoreError> {
    let query = "SELECT id, kind, name, created_at, last_used_at FROM factors \
                 WHERE person_id = $1 AND confirmed_at IS NOT NULL ORDER BY created_at, id";
    let rows = sqlx::query(query)
        .bind(person.to_string())
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Factor {
                id: store::parsed(row, "id")?,
                kind: store::parsed(row, "kind")?,
                name: store::text(row, "name")?,
                created_at: store::moment(row, "created_at")?,
                last_used_at: store::maybe_moment(row, "last_used_at")?,
            })
        })
        .collect()
}
