//! The log in the database: entries are appended within the transaction of what they tell of, and read by page.

use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::{Entry, Hash, HeadKey, Outcome, PublicKey, Report, SignedHead, Tail, Verifier};
use crate::act::Act;
use crate::authority::Action;
use crate::id::{LogId, OrganisationId};
use crate::permit::{self, Denied};
use crate::store::{self, Store, StoreError, Writing};
use crate::{Random, Timestamp};

/// How many entries are read at once, and how many a page has at most.
const PAGE: usize = 500;

/// How many entries are written with one statement.
const ENTRIES_AT_ONCE: usize = 200;

/// How many characters of what somebody gives as a reason are kept.
const REASON: usize = 500;

/// Something new to be written down.
pub(crate) struct Fresh {
    pub(crate) action: &'static str,
    pub(crate) object_kind: &'static str,
    pub(crate) object_id: Option<String>,
    pub(crate) organisation: Option<OrganisationId>,
    pub(crate) outcome: Outcome,
    pub(crate) detail: serde_json::Value,
}

/// Appends an entry.
pub(crate) async fn append(
    connection: &mut AnyConnection,
    act: &Act<'_>,
    fresh: Fresh,
) -> Result<(), StoreError> {
    append_all(connection, act, vec![fresh]).await
}

/// Appends entries one after another.
pub(crate) async fn append_all(
    connection: &mut AnyConnection,
    act: &Act<'_>,
    fresh: Vec<Fresh>,
) -> Result<(), StoreError> {
    let (log, mut tail) = end(connection).await?;
    let entries: Vec<Entry> = fresh
        .into_iter()
        .map(|fresh| {
            let mut entry = Entry {
                sequence: tail.sequence + 1,
                at: act.now,
                actor_kind: act.who.kind().to_owned(),
                actor_id: act.who.id(),
                organisation_id: fresh.organisation.map(|id| id.to_string()),
                action: fresh.action.to_owned(),
                object_kind: fresh.object_kind.to_owned(),
                object_id: fresh.object_id,
                outcome: fresh.outcome.code().to_owned(),
                reason: act
                    .reason
                    .as_ref()
                    .map(|reason| reason.chars().take(REASON).collect()),
                address: act.address.map(|address| address.to_string()),
                detail: fresh.detail.to_string(),
                previous: tail.hash,
                hash: Hash::NONE,
            };
            entry.hash = entry.digest(log);
            tail = Tail {
                sequence: entry.sequence,
                hash: entry.hash,
            };
            entry
        })
        .collect();
    for some in entries.chunks(ENTRIES_AT_ONCE) {
        insert(connection, some).await?;
    }
    sqlx::query("UPDATE audit_log SET last_sequence = $1, last_hash = $2 WHERE only_row = 1")
        .bind(tail.sequence as i64)
        .bind(tail.hash.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

async fn insert(connection: &mut AnyConnection, entries: &[Entry]) -> Result<(), StoreError> {
    let statement = format!(
        "INSERT INTO audit_entries ({COLUMNS}) VALUES {}",
        store::places(entries.len(), 14)
    );
    let mut query = sqlx::query(&statement);
    for entry in entries {
        query = query
            .bind(entry.sequence as i64)
            .bind(entry.at.as_millis())
            .bind(entry.actor_kind.clone())
            .bind(entry.actor_id.clone())
            .bind(entry.organisation_id.clone())
            .bind(entry.action.clone())
            .bind(entry.object_kind.clone())
            .bind(entry.object_id.clone())
            .bind(entry.outcome.clone())
            .bind(entry.reason.clone())
            .bind(entry.address.clone())
            .bind(entry.detail.clone())
            .bind(entry.previous.to_string())
            .bind(entry.hash.to_string());
    }
    query.execute(connection).await?;
    Ok(())
}

const COLUMNS: &str = "sequence, at, actor_kind, actor_id, organisation_id, action, object_kind, \
                       object_id, outcome, reason, address, detail, previous, hash";

/// Which log this is, and where it ends.
async fn end(connection: &mut AnyConnection) -> Result<(LogId, Tail), StoreError> {
    let row = sqlx::query("SELECT id, last_sequence, last_hash FROM audit_log WHERE only_row = 1")
        .fetch_one(connection)
        .await?;
    let tail = Tail {
        sequence: store::number(&row, "last_sequence")? as u64,
        hash: store::parsed(&row, "last_hash")?,
    };
    Ok((store::parsed(&row, "id")?, tail))
}

/// The last entry's number.
pub(crate) async fn last(connection: &mut AnyConnection) -> Result<u64, StoreError> {
    Ok(end(connection).await?.1.sequence)
}

/// Makes the log, unless it is there.
pub(crate) async fn found(
    store: &Store,
    now: Timestamp,
    random: &mut Random,
) -> Result<LogId, StoreError> {
    let mut writing = store.write().await?;
    let query = "INSERT INTO audit_log (only_row, id, last_sequence, last_hash) \
                 VALUES (1, $1, 0, $2) ON CONFLICT (only_row) DO NOTHING";
    sqlx::query(query)
        .bind(LogId::draw(now, random).to_string())
        .bind(Hash::NONE.to_string())
        .execute(writing.connection())
        .await?;
    let (log, _) = end(writing.connection()).await?;
    writing.commit().await?;
    Ok(log)
}

/// Which entries are wanted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// By whom.
    pub actor: Option<String>,
    /// Done to what.
    pub object: Option<String>,
    /// What was done.
    pub action: Option<String>,
    /// From when.
    pub from: Option<Timestamp>,
    /// Until before when.
    pub until: Option<Timestamp>,
    /// Only entries before this one: the last of the page before.
    pub before: Option<u64>,
    /// How many at most.
    pub limit: usize,
}

/// A part of the log, the newest first.
#[derive(Clone, Debug)]
pub struct Page {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Where the next page begins, if there is one.
    pub next: Option<u64>,
}

/// One page of what concerns an organisation and all under it; of what concerns none too, if nothing is above it.
pub(crate) async fn page_for(
    mut writing: Writing,
    act: &Act<'_>,
    action: Action,
    organisation: OrganisationId,
    filter: &Filter,
) -> Result<Page, Denied> {
    let connection = writing.connection();
    let lineage = permit::lineage(connection, organisation).await?;
    let is_top = lineage.is_some_and(|lineage| lineage.upwards().len() == 1);
    let limit = filter.limit.clamp(1, PAGE);
    let query = format!(
        "SELECT {COLUMNS} FROM audit_entries WHERE sequence < $1 AND at >= $2 AND at < $3 \
         AND ($4 = '' OR actor_id = $4) AND ($5 = '' OR object_id = $5) \
         AND ($6 = '' OR action = $6) AND (organisation_id IN \
         (SELECT organisation_id FROM organisation_lineages WHERE ancestor_id = $7) \
         OR ($8 = 1 AND organisation_id IS NULL)) \
         ORDER BY sequence DESC LIMIT $9"
    );
    let rows = sqlx::query(&query)
        .bind(filter.before.map_or(i64::MAX, |before| before as i64))
        .bind(filter.from.map_or(i64::MIN, Timestamp::as_millis))
        .bind(filter.until.map_or(i64::MAX, Timestamp::as_millis))
        .bind(filter.actor.clone().unwrap_or_default())
        .bind(filter.object.clone().unwrap_or_default())
        .bind(filter.action.clone().unwrap_or_default())
        .bind(organisation.to_string())
        .bind(i64::from(is_top))
        .bind(limit as i64 + 1)
        .fetch_all(&mut *connection)
        .await?;
    let mut entries = rows
        .iter()
        .map(read_row)
        .collect::<Result<Vec<_>, StoreError>>()?;
    let has_more = entries.len() > limit;
    entries.truncate(limit);
    let last = entries.last().map(|last| last.sequence);
    let fresh = Fresh {
        action: action.code(),
        object_kind: "audit_log",
        object_id: Some(organisation.to_string()),
        organisation: Some(organisation),
        outcome: Outcome::Done,
        detail: serde_json::json!({ "count": entries.len() }),
    };
    append(connection, act, fresh).await?;
    writing.commit().await?;
    Ok(Page {
        entries,
        next: last.filter(|_| has_more),
    })
}

fn read_row(row: &AnyRow) -> Result<Entry, StoreError> {
    // A hash that can't be read is wrong, and the verifier shall say so, not this.
    let hash = |column| store::parsed(row, column).unwrap_or(Hash::NONE);
    Ok(Entry {
        sequence: store::number(row, "sequence")? as u64,
        at: store::moment(row, "at")?,
        actor_kind: store::text(row, "actor_kind")?,
        actor_id: store::maybe_text(row, "actor_id")?,
        organisation_id: store::maybe_text(row, "organisation_id")?,
        action: store::text(row, "action")?,
        object_kind: store::text(row, "object_kind")?,
        object_id: store::maybe_text(row, "object_id")?,
        outcome: store::text(row, "outcome")?,
        reason: store::maybe_text(row, "reason")?,
        address: store::maybe_text(row, "address")?,
        detail: store::text(row, "detail")?,
        previous: hash("previous"),
        hash: hash("hash"),
    })
}

/// Reads the whole log through and tells what was done to it.
pub(crate) async fn verify(
    store: &Store,
    heads: &[SignedHead],
    trusted: &[PublicKey],
) -> Result<Report, StoreError> {
    let mut reading = store.read().await?;
    let (log, tail) = end(reading.connection()).await?;
    let mut verifier = Verifier::new(log, heads, trusted);
    let mut last = i64::MIN;
    loop {
        let query = format!(
            "SELECT {COLUMNS} FROM audit_entries WHERE sequence > $1 ORDER BY sequence LIMIT {PAGE}"
        );
        let rows = sqlx::query(&query)
            .bind(last)
            .fetch_all(reading.connection())
            .await?;
        for row in &rows {
            verifier.read(&read_row(row)?);
            last = store::number(row, "sequence")?;
        }
        if rows.len() < PAGE {
            return Ok(verifier.finish(Some(tail)));
        }
    }
}

/// Signs where the log ends now, and keeps that.
pub(crate) async fn sign(
    mut writing: Writing,
    key: &HeadKey,
    now: Timestamp,
) -> Result<SignedHead, StoreError> {
    let (log, tail) = end(writing.connection()).await?;
    let head = key.sign(log, tail.sequence, tail.hash, now);
    let query = "INSERT INTO audit_heads (sequence, at, hash, key, signature) \
                 VALUES ($1, $2, $3, $4, $5) ON CONFLICT (sequence, at) DO NOTHING";
    sqlx::query(query)
        .bind(head.sequence as i64)
        .bind(now.as_millis())
        .bind(head.hash.clone())
        .bind(head.key.as_str().to_owned())
        .bind(head.signature.clone())
        .execute(writing.connection())
        .await?;
    writing.commit().await?;
    Ok(head)
}

/// How many heads are given at once: those of more than three days.
const HEADS: usize = 1_000;

/// The heads that were signed after a moment, the oldest first.
pub(crate) async fn heads(store: &Store, after: Timestamp) -> Result<Vec<SignedHead>, StoreError> {
    let mut reading = store.read().await?;
    let connection = reading.connection();
    let (log, _) = end(connection).await?;
    let query = format!(
        "SELECT sequence, at, hash, key, signature FROM audit_heads \
         WHERE at > $1 ORDER BY at, sequence LIMIT {HEADS}"
    );
    let rows = sqlx::query(&query)
        .bind(after.as_millis())
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(SignedHead {
                log,
                sequence: store::number(row, "sequence")? as u64,
                hash: store::text(row, "hash")?,
                at: store::moment(row, "at")?,
                key: PublicKey::from_text(store::text(row, "key")?),
                signature: store::text(row, "signature")?,
            })
        })
        .collect()
}
