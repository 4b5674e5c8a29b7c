//! What is asked for once is done once, however often it is sent: a request that makes something carries a key of its
//! sender's choice (`Idempotency-Key`), and the answer is kept under it for a day.
//!
//! Answers may hold what is shown once, such as an invitation. So they lie sealed, like other secrets.

use std::time::Duration;

use super::SignIn;
use crate::Timestamp;
use crate::act::Act;
use crate::store::{self, StoreError};

/// How long an answer is kept.
pub const ANSWER_TIME: Duration = Duration::from_secs(24 * 3600);

/// How many answers are kept for one actor. More than anybody makes by hand in a day; what imports make is one.
const ANSWERS: i64 = 2_000;

/// What a request is under its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Once {
    /// It is the first: it is to be done, and then [`SignIn::keep_answer`] or [`SignIn::forget_request`] to be called.
    First,
    /// It was done; this was answered.
    Done {
        /// The HTTP status.
        status: u16,
        /// The body.
        body: Vec<u8>,
    },
}

/// Why a request is neither done nor answered again.
#[derive(Debug, thiserror::Error)]
pub enum NotOnce {
    /// The key was used for another request.
    #[error("the key was used for another request")]
    Another,
    /// The first is being done, or the server ended in its middle: whether it was done has to be looked up.
    #[error("the first request has no answer yet")]
    Unanswered,
    /// Too many keys within a day.
    #[error("too many keys")]
    TooMany,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for NotOnce {
    fn from(error: sqlx::Error) -> NotOnce {
        NotOnce::Store(error.into())
    }
}

fn place(actor: &str, key: &str) -> String {
    format!("answer:{actor}:{key}")
}

impl SignIn {
    /// Notes that an actor's request begins under a key; `digest` tells it from others.
    pub async fn begin_once(
        &self,
        actor: &str,
        key: &str,
        digest: &str,
        now: Timestamp,
    ) -> Result<Once, NotOnce> {
        let mut writing = self.directory.store.write().await?;
        let connection = writing.connection();
        sqlx::query("DELETE FROM once_requests WHERE begun_at <= $1")
            .bind(now.before(ANSWER_TIME).as_millis())
            .execute(&mut *connection)
            .await?;
        let query = "SELECT digest, status, answer FROM once_requests \
                     WHERE actor = $1 AND once_key = $2";
        let row = sqlx::query(query)
            .bind(actor.to_owned())
            .bind(key.to_owned())
            .fetch_optional(&mut *connection)
            .await?;
        if let Some(row) = row {
            if store::text(&row, "digest")? != digest {
                return Err(NotOnce::Another);
            }
            let Some(status) = store::maybe_number(&row, "status")? else {
                return Err(NotOnce::Unanswered);
            };
            let sealed = store::bytes(&row, "answer")?;
            let body = self.vault.open(&place(actor, key), &sealed);
            return Ok(Once::Done {
                status: u16::try_from(status).map_err(|_| StoreError::Unreadable("status"))?,
                body: body.ok_or(StoreError::Unreadable("answer"))?,
            });
        }
        let row = sqlx::query("SELECT COUNT(*) AS kept FROM once_requests WHERE actor = $1")
            .bind(actor.to_owned())
            .fetch_one(&mut *connection)
            .await?;
        if store::number(&row, "kept")? >= ANSWERS {
            return Err(NotOnce::TooMany);
        }
        let query = "INSERT INTO once_requests (actor, once_key, digest, begun_at) \
                     VALUES ($1, $2, $3, $4)";
        sqlx::query(query)
            .bind(actor.to_owned())
            .bind(key.to_owned())
            .bind(digest.to_owned())
            .bind(now.as_millis())
            .execute(connection)
            .await?;
        writing.commit().await?;
        Ok(Once::First)
    }

    /// Keeps what was answered.
    pub async fn keep_answer(
        &self,
        act: &mut Act<'_>,
        actor: &str,
        key: &str,
        status: u16,
        body: &[u8],
    ) -> Result<(), StoreError> {
        let sealed = self.vault.seal(&place(actor, key), body, act.random);
        let mut writing = self.directory.store.write().await?;
        let query = "UPDATE once_requests SET status = $1, answer = $2 \
                     WHERE actor = $3 AND once_key = $4";
        sqlx::query(query)
            .bind(i64::from(status))
            .bind(sealed)
            .bind(actor.to_owned())
            .bind(key.to_owned())
            .execute(writing.connection())
            .await?;
        writing.commit().await
    }

    /// Nothing was made: the key may be used again.
    pub async fn forget_request(&self, actor: &str, key: &str) -> Result<(), StoreError> {
        let mut writing = self.directory.store.write().await?;
        sqlx::query("DELETE FROM once_requests WHERE actor = $1 AND once_key = $2")
            .bind(actor.to_owned())
            .bind(key.to_owned())
            .execute(writing.connection())
            .await?;
        writing.commit().await
    }
}
