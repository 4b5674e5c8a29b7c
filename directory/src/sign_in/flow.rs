//! The ways in: an invitation, a password, a second factor; and the ways to change them.

use serde_json::json;
use sqlx::AnyConnection;

use super::lockout::{self, ADDRESS, Counter, FACTOR, FORGET, LOGIN, PAIR, Policy};
use super::session::{self, Session, SessionToken, Strength};
use super::{PasswordProblem, SignIn, SignInError, factor, password};
use crate::Timestamp;
use crate::act::{Act, Who};
use crate::audit::Outcome;
use crate::authority::Action;
use crate::id::PersonId;
use crate::people::{self, InvitationToken, Person, PersonState};
use crate::permit::Denied;
use crate::store::{self, StoreError};

/// How many earlier passwords are remembered.
const EARLIER: usize = 5;

/// How long a name may be that is looked at at all.
const LOGIN_LENGTH: usize = 64;

/// What proves who somebody is, beside the password.
#[derive(Clone, Copy)]
pub enum Proof<'a> {
    /// A one-time password.
    Totp(&'a str),
    /// A recovery code; it is used up.
    RecoveryCode(&'a str),
}

impl SignIn {
    /// Whoever has the link chooses a password, and is here.
    pub async fn accept_invitation(
        &self,
        act: &mut Act<'_>,
        token: &str,
        password: &str,
        device: &str,
    ) -> Result<(SessionToken, Session), SignInError> {
        let mut reading = self.directory.store.read().await?;
        let person = people::invited(reading.connection(), act, token).await?;
        drop(reading);
        let hash = self.fresh_hash(act, &person, password).await?;
        let mut writing = self.directory.store.write().await?;
        let connection = writing.connection();
        // The link may have been used or taken back meanwhile.
        let person = people::invited(connection, act, token).await?;
        act.who = Who::Person(person.id);
        people::accept(connection, act, token, &person).await?;
        keep_password(connection, act.now, person.id, &hash, &[]).await?;
        let opened = self
            .open(connection, act, &person, device, "invitation")
            .await?;
        writing.commit().await?;
        Ok(opened)
    }

    /// Signs in with a password.
    pub async fn sign_in(
        &self,
        act: &mut Act<'_>,
        login: &str,
        password: &str,
        device: &str,
    ) -> Result<(SessionToken, Session), SignInError> {
        act.who = Who::Nobody;
        let login: String = login
            .trim()
            .to_lowercase()
            .chars()
            .take(LOGIN_LENGTH)
            .collect();
        let counters = counters(&login, act);
        let mut writing = self.directory.store.write().await?;
        count(writing.connection(), act.now, &counters).await?;
        let found = by_login(writing.connection(), &login).await?;
        writing.commit().await?;
        let nobodys = || password::nobodys(self.hashing);
        let kept = found
            .as_ref()
            .map_or_else(nobodys, |(_, hash)| hash.clone());
        let is_right = self.verify(password, &kept).await? && found.is_some();

        let mut writing = self.directory.store.write().await?;
        let connection = writing.connection();
        // Read anew: who was locked while the password was hashed stays out.
        let now = by_login(connection, &login).await?;
        let person = match (is_right, now) {
            (true, Some((person, hash))) if hash == kept => person,
            (_, now) => {
                // A name that nobody has is perhaps a password: it is not kept.
                let person = now.map(|(person, _)| person);
                let detail = json!({ "by": "password" });
                let outcome = Outcome::Failed;
                session::note(connection, act, "sign_in", person.as_ref(), outcome, detail).await?;
                writing.commit().await?;
                return Err(SignInError::Wrong);
            }
        };
        act.who = Who::Person(person.id);
        // The address stays counted: one right password must not free it for guessing others.
        for (counter, policy) in &counters {
            if *policy == ADDRESS {
                take_back(connection, counter).await?;
            } else {
                forget(connection, counter).await?;
            }
        }
        let opened = self
            .open(connection, act, &person, device, "password")
            .await?;
        writing.commit().await?;
        Ok(opened)
    }

    /// Gives the second factor, at sign-in or again before a dangerous act. The token is another one from now on.
    pub async fn prove(
        &self,
        act: &mut Act<'_>,
        token: &SessionToken,
        proof: Proof<'_>,
    ) -> Result<SessionToken, SignInError> {
        let mut writing = self.directory.store.write().await?;
        let connection = writing.connection();
        let session = self.find_session(connection, token, act.now).await?;
        act.who = Who::Person(session.person);
        let counter = format!("factor:{}", session.person);
        count(connection, act.now, &[(counter.clone(), FACTOR)]).await?;
        let (is_right, by) = match proof {
            Proof::Totp(code) => (
                self.use_totp(connection, act.now, session.person, code)
                    .await?,
                "totp",
            ),
            Proof::RecoveryCode(code) => (
                self.use_code(connection, act.now, session.person, code)
                    .await?,
                "recovery_code",
            ),
        };
        if is_right {
            forget(connection, &counter).await?;
        }
        factor::settle(writing, act, &session, by, is_right).await
    }

    /// Proves who somebody is by the password once more, where they have no second factor.
    pub async fn prove_by_password(
        &self,
        act: &mut Act<'_>,
        token: &SessionToken,
        password: &str,
    ) -> Result<(), SignInError> {
        let session = self.own_password(act, token, password).await?;
        let mut writing = self.directory.store.write().await?;
        let connection = writing.connection();
        if session.needs_second_factor {
            return Err(SignInError::SecondFactorNeeded);
        }
        sqlx::query("UPDATE sessions SET verified_at = $1 WHERE id = $2 AND ended_at IS NULL")
            .bind(act.now.as_millis())
            .bind(session.id.to_string())
            .execute(connection)
            .await?;
        writing.commit().await?;
        Ok(())
    }

    /// Chooses another password. Every other session of the person ends.
    pub async fn change_password(
        &self,
        act: &mut Act<'_>,
        token: &SessionToken,
        old: &str,
        new: &str,
    ) -> Result<(), SignInError> {
        let session = self.own_password(act, token, old).await?;
        if !session.is_complete() {
            return Err(SignInError::SecondFactorNeeded);
        }
        let mut reading = self.directory.store.read().await?;
        let connection = reading.connection();
        let person = people::find(connection, session.person)
            .await?
            .ok_or(Denied::NotFound)?;
        let before = passwords_of(connection, session.person).await?;
        drop(reading);
        for kept in &before {
            if self.verify(new, kept).await? {
                return Err(SignInError::Password(PasswordProblem::UsedBefore));
            }
        }
        let hash = self.fresh_hash(act, &person, new).await?;
        let mut writing = self.directory.store.write().await?;
        let connection = writing.connection();
        let session = self.find_session(connection, token, act.now).await?;
        if passwords_of(connection, session.person).await? != before {
            return Err(SignInError::Wrong);
        }
        keep_password(connection, act.now, session.person, &hash, &before).await?;
        let query = "UPDATE sessions SET ended_at = $1, ended_because = 'password_changed' \
                     WHERE person_id = $2 AND id <> $3 AND ended_at IS NULL";
        sqlx::query(query)
            .bind(act.now.as_millis())
            .bind(session.person.to_string())
            .bind(session.id.to_string())
            .execute(&mut *connection)
            .await?;
        let detail = serde_json::Value::Null;
        session::note(
            connection,
            act,
            "change_password",
            Some(&person),
            Outcome::Done,
            detail,
        )
        .await?;
        writing.commit().await?;
        Ok(())
    }

    /// For who has lost password or factors: an administrator takes all away, ends every session, and invites anew.
    pub async fn reset_sign_in(
        &self,
        act: &mut Act<'_>,
        person: PersonId,
    ) -> Result<InvitationToken, SignInError> {
        let action = Action::ManagePersons;
        let begun = self.directory.begin_with_person(act, action, person).await;
        let (mut writing, person) = begun?;
        if person.state == PersonState::Locked || act.who.person() == Some(person.id) {
            return Err(people::PeopleError::NotActive.into());
        }
        let connection = writing.connection();
        people::set_invited(connection, act, &person).await?;
        let token = people::invite(connection, act, person.id).await?;
        writing.commit().await?;
        Ok(token)
    }

    /// Whose a session is, once the password was given again; counted like the second factor.
    async fn own_password(
        &self,
        act: &mut Act<'_>,
        token: &SessionToken,
        password: &str,
    ) -> Result<Session, SignInError> {
        let mut writing = self.directory.store.write().await?;
        let connection = writing.connection();
        let session = self.find_session(connection, token, act.now).await?;
        act.who = Who::Person(session.person);
        let counter = format!("own:{}", session.person);
        count(connection, act.now, &[(counter.clone(), FACTOR)]).await?;
        let kept = passwords_of(connection, session.person).await?;
        let person = people::find(connection, session.person).await?;
        writing.commit().await?;
        let is_right = match kept.first() {
            Some(kept) => self.verify(password, kept).await?,
            None => false,
        };
        let mut writing = self.directory.store.write().await?;
        let connection = writing.connection();
        if !is_right {
            let detail = json!({ "session": session.id, "by": "password" });
            let outcome = Outcome::Failed;
            session::note(connection, act, "prove", person.as_ref(), outcome, detail).await?;
            writing.commit().await?;
            return Err(SignInError::Wrong);
        }
        forget(connection, &counter).await?;
        // Ended meanwhile, it proves nothing any more.
        let session = self.find_session(connection, token, act.now).await?;
        writing.commit().await?;
        Ok(session)
    }

    /// The hash of a password that somebody chooses, if it may be one.
    async fn fresh_hash(
        &self,
        act: &mut Act<'_>,
        person: &Person,
        chosen: &str,
    ) -> Result<String, SignInError> {
        password::check(chosen, &[&person.login, &person.name], &self.breached)
            .map_err(SignInError::Password)?;
        let salt = password::draw_salt(act.random);
        let (chosen, hashing) = (chosen.to_owned(), self.hashing);
        self.hashed(move || password::hash(&chosen, &salt, hashing))
            .await
    }

    async fn verify(&self, typed: &str, kept: &str) -> Result<bool, SignInError> {
        let (typed, kept) = (typed.to_owned(), kept.to_owned());
        self.hashed(move || password::verify(&typed, &kept)).await
    }

    /// Opens a session for somebody whose password was right, and notes by what they came in.
    async fn open(
        &self,
        connection: &mut AnyConnection,
        act: &mut Act<'_>,
        person: &Person,
        device: &str,
        by: &str,
    ) -> Result<(SessionToken, Session), StoreError> {
        let (strength, limits) = (Strength::Password, self.limits);
        let opened = session::open(connection, act, person.id, device, strength, limits).await?;
        let detail = json!({ "session": opened.1.id, "by": by });
        let (person, outcome) = (Some(person), Outcome::Done);
        session::note(connection, act, "sign_in", person, outcome, detail).await?;
        Ok(opened)
    }

    /// Runs what takes much memory and time, a few at once, beside what else waits for this thread.
    async fn hashed<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, SignInError> {
        let turn = self.hashers.clone().acquire_owned();
        let turn = tokio::time::timeout(LONGEST_QUEUE, turn).await;
        let turn = turn
            .map_err(|_| SignInError::Busy)?
            .map_err(|_| SignInError::Busy)?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        done.await.map_err(|_| SignInError::Busy)
    }
}

/// How long somebody waits for a turn to have a password hashed, before it is said that too many sign in.
const LONGEST_QUEUE: std::time::Duration = std::time::Duration::from_secs(10);

/// Under what an attempt to sign in is counted.
fn counters(login: &str, act: &Act<'_>) -> Vec<(String, Policy)> {
    let mut counters = vec![(format!("login:{login}"), LOGIN)];
    if let Some(address) = act.address {
        let network = lockout::network(address);
        counters.push((format!("pair:{network} {login}"), PAIR));
        counters.push((format!("address:{network}"), ADDRESS));
    }
    counters
}

/// Counts an attempt under all of these as wrong, or says until when it has to wait; then none is counted.
async fn count(
    connection: &mut AnyConnection,
    now: Timestamp,
    counters: &[(String, Policy)],
) -> Result<(), SignInError> {
    let mut next = Vec::with_capacity(counters.len());
    for (name, policy) in counters {
        let row = sqlx::query("SELECT * FROM sign_in_failures WHERE counter = $1")
            .bind(name.clone())
            .fetch_optional(&mut *connection)
            .await?;
        let counter = match &row {
            None => Counter::NONE,
            Some(row) => Counter {
                failures: u32::try_from(store::number(row, "failures")?).unwrap_or(u32::MAX),
                last_at: store::moment(row, "last_at")?,
                blocked_until: store::moment(row, "blocked_until")?,
            },
        };
        let counted = counter.attempt(*policy, now);
        next.push((
            name,
            counted.map_err(|until| SignInError::TooManyAttempts { until })?,
        ));
    }
    // What nobody asks for any more goes, so that a flood of names does not stay.
    sqlx::query("DELETE FROM sign_in_failures WHERE last_at < $1")
        .bind(now.before(FORGET).as_millis())
        .execute(&mut *connection)
        .await?;
    for (name, counter) in next {
        let query = "INSERT INTO sign_in_failures (counter, failures, last_at, blocked_until) \
                     VALUES ($1, $2, $3, $4) ON CONFLICT (counter) DO UPDATE \
                     SET failures = $2, last_at = $3, blocked_until = $4";
        sqlx::query(query)
            .bind(name.clone())
            .bind(i64::from(counter.failures))
            .bind(counter.last_at.as_millis())
            .bind(counter.blocked_until.as_millis())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// It was right: what was wrong before does not count any more.
async fn forget(connection: &mut AnyConnection, counter: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM sign_in_failures WHERE counter = $1")
        .bind(counter.to_owned())
        .execute(connection)
        .await?;
    Ok(())
}

/// It was right: this one does not count, and those before it do.
async fn take_back(connection: &mut AnyConnection, counter: &str) -> Result<(), StoreError> {
    let query = "UPDATE sign_in_failures SET failures = failures - 1, blocked_until = last_at \
                 WHERE counter = $1 AND failures > 0";
    sqlx::query(query)
        .bind(counter.to_owned())
        .execute(connection)
        .await?;
    Ok(())
}

/// Who has a sign-in name and may sign in, with what is kept of the password.
async fn by_login(
    connection: &mut AnyConnection,
    login: &str,
) -> Result<Option<(Person, String)>, StoreError> {
    let query = "SELECT x.*, p.hash FROM persons x JOIN passwords p ON p.person_id = x.id \
                 WHERE x.login = $1 AND x.state = 'active'";
    let row = sqlx::query(query)
        .bind(login.to_owned())
        .fetch_optional(connection)
        .await?;
    row.map(|row| Ok((people::read_row(&row)?, store::text(&row, "hash")?)))
        .transpose()
}

/// What is kept of a person's password and of those before it, the newest first.
async fn passwords_of(
    connection: &mut AnyConnection,
    person: PersonId,
) -> Result<Vec<String>, StoreError> {
    let row = sqlx::query("SELECT hash, earlier FROM passwords WHERE person_id = $1")
        .bind(person.to_string())
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else {
        return Ok(Vec::new());
    };
    let earlier = store::text(&row, "earlier")?;
    let earlier = earlier.lines().map(str::to_owned);
    Ok(std::iter::once(store::text(&row, "hash")?)
        .chain(earlier)
        .collect())
}

async fn keep_password(
    connection: &mut AnyConnection,
    now: Timestamp,
    person: PersonId,
    hash: &str,
    before: &[String],
) -> Result<(), StoreError> {
    let earlier: Vec<&str> = before.iter().take(EARLIER).map(String::as_str).collect();
    let query = "INSERT INTO passwords (person_id, hash, changed_at, earlier) \
                 VALUES ($1, $2, $3, $4) ON CONFLICT (person_id) DO UPDATE \
                 SET hash = $2, changed_at = $3, earlier = $4";
    sqlx::query(query)
        .bind(person.to_string())
        .bind(hash.to_owned())
        .bind(now.as_millis())
        .bind(earlier.join("\n"))
        .execute(connection)
        .await?;
    Ok(())
}
