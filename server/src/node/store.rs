//! What a node keeps over restarts, in the one SQLite file of the server: how often it was started,
//! whom it knows, whom it has invited, and the logs of conferences.
//!
//! The command line writes into the same file while the server runs.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use signaling::cascade::{
    ConferenceId, Incarnation, LOG_BOUND, Level, LogEntry, NodeId, OrganisationId, Place,
};
use sqlx::sqlite::SqliteSynchronous;
use sqlx::{Row as _, SqlitePool};

use super::certificate::Certificate;
use crate::meetings::{now_ms, open_file};

/// How long the log of a conference is kept after its last entry, in milliseconds. Longer than a branch
/// may be cut off and still be told everything.
const LOG_KEPT: i64 = 30 * 24 * 60 * 60 * 1000;

/// How long a certificate is kept after it has ended, in seconds: `terrace node list` shows who was
/// there.
const CERTIFICATE_KEPT: i64 = 365 * 24 * 60 * 60;

/// A log as a node is given it when it starts: of which conference, who holds that, and what took
/// effect.
pub(crate) type StoredLog = (ConferenceId, NodeId, Vec<Arc<LogEntry>>);

/// One who was invited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invitation {
    /// What it will be.
    pub(crate) place: Place,
    /// As shown.
    pub(crate) name: String,
}

/// Which nodes' certificates are asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which {
    /// All that are known.
    All,
    /// One node's.
    Node(NodeId),
    /// Those of the nodes whose parent this is.
    Children(NodeId),
}

/// The node's part of the file.
#[derive(Clone)]
pub(crate) struct Store(SqlitePool);

fn hash(secret: &[u8]) -> Vec<u8> {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, secret);
    digest.as_ref().to_vec()
}

impl Store {
    /// Opens the file, and makes it if it is not there.
    pub(crate) async fn open(data_dir: &Path) -> anyhow::Result<Store> {
        // An incarnation or an act that was told must not be forgotten when the power fails.
        let pool = open_file(data_dir, SqliteSynchronous::Full).await?;
        for table in [
            "CREATE TABLE IF NOT EXISTS node_counts (name TEXT PRIMARY KEY, value BIGINT NOT NULL)",
            "CREATE TABLE IF NOT EXISTS node_certificates (serial BLOB PRIMARY KEY, \
             node TEXT NOT NULL, parent TEXT, der BLOB NOT NULL, begins_at BIGINT NOT NULL, \
             ends_at BIGINT NOT NULL, revoked_at BIGINT)",
            "CREATE INDEX IF NOT EXISTS node_certificates_node ON node_certificates (node)",
            "CREATE TABLE IF NOT EXISTS node_invitations (hash BLOB PRIMARY KEY, \
             place TEXT NOT NULL, name TEXT NOT NULL, ends_at BIGINT NOT NULL)",
            "CREATE TABLE IF NOT EXISTS node_logs (conference TEXT NOT NULL, root TEXT NOT NULL, \
             writer TEXT NOT NULL, number BIGINT NOT NULL, entry TEXT NOT NULL, kept_at BIGINT NOT NULL, \
             PRIMARY KEY (conference, writer, number))",
        ] {
            sqlx::query(table).execute(&pool).await?;
        }
        Ok(Store(pool))
    }

    /// Counts a start.
    pub(crate) async fn start(&self) -> anyhow::Result<Incarnation> {
        let row = sqlx::query(
            "INSERT INTO node_counts (name, value) VALUES ('incarnation', 1) \
             ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value",
        )
        .fetch_one(&self.0)
        .await?;
        let count: i64 = row.try_get("value")?;
        Incarnation::try_from(count).context("this node was started too often")
    }

    // Who is there.

    /// Keeps a certificate.
    pub(crate) async fn keep(&self, certificate: &Certificate) -> anyhow::Result<()> {
        sqlx::query(
            "INSERT INTO node_certificates (serial, node, parent, der, begins_at, ends_at) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (serial) DO NOTHING",
        )
        .bind(&certificate.serial)
        .bind(certificate.node().to_string())
        .bind(certificate.subject.parent.map(|parent| parent.to_string()))
        .bind(certificate.der().as_ref())
        .bind(certificate.begins)
        .bind(certificate.ends)
        .execute(&self.0)
        .await?;
        sqlx::query("DELETE FROM node_certificates WHERE ends_at < $1")
            .bind(now_ms() / 1000 - CERTIFICATE_KEPT)
            .execute(&self.0)
            .await?;
        Ok(())
    }

    /// The certificates of some nodes that have not ended, the latest of each node last; with when they
    /// were revoked, in seconds since 1970.
    pub(crate) async fn certificates(
        &self,
        which: Which,
    ) -> anyhow::Result<Vec<(Certificate, Option<i64>)>> {
        let (condition, id) = match which {
            Which::All => ("$1 = ''", None),
            Which::Node(node) => ("node = $1", Some(node)),
            Which::Children(parent) => ("parent = $1", Some(parent)),
        };
        let query = format!(
            "SELECT der, revoked_at FROM node_certificates \
             WHERE {condition} AND ends_at > $2 ORDER BY node, begins_at, ends_at"
        );
        let rows = sqlx::query(&query)
            .bind(id.map(|id| id.to_string()).unwrap_or_default())
            .bind(now_ms() / 1000)
            .fetch_all(&self.0)
            .await?;
        let read = rows.iter().map(|row| {
            let der: Vec<u8> = row.try_get("der")?;
            anyhow::Ok((Certificate::read(&der)?, row.try_get("revoked_at")?))
        });
        read.collect()
    }

    /// Marks all certificates of a node as revoked; whether there were any.
    pub(crate) async fn revoke(&self, node: NodeId) -> anyhow::Result<bool> {
        let done = sqlx::query(
            "UPDATE node_certificates SET revoked_at = $1 WHERE node = $2 AND revoked_at IS NULL",
        )
        .bind(now_ms() / 1000)
        .bind(node.to_string())
        .execute(&self.0)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// The serial numbers that are revoked, and when, in seconds since 1970; and the number of the list
    /// that has them. One that has ended stays on the list for as long as it is kept here.
    pub(crate) async fn revoked(&self) -> anyhow::Result<(u64, Vec<(Vec<u8>, i64)>)> {
        let rows = sqlx::query(
            "SELECT serial, revoked_at FROM node_certificates WHERE revoked_at IS NOT NULL \
             ORDER BY serial",
        )
        .fetch_all(&self.0)
        .await?;
        let mut revoked: Vec<(Vec<u8>, i64)> = Vec::new();
        for row in &rows {
            revoked.push((row.try_get("serial")?, row.try_get("revoked_at")?));
        }
        // Each change of the list is one more revocation, or one less when it is no longer kept.
        let latest = revoked.iter().map(|(_, at)| *at).max().unwrap_or(0) as u64;
        Ok(((latest << 20) + revoked.len() as u64 + 1, revoked))
    }

    // Who was invited.

    /// Keeps an invitation, of whose secret only a hash is kept. `ends_at` is in seconds since 1970.
    pub(crate) async fn invite(
        &self,
        secret: &[u8],
        invitation: &Invitation,
        ends_at: i64,
    ) -> anyhow::Result<()> {
        sqlx::query(
            "INSERT INTO node_invitations (hash, place, name, ends_at) VALUES ($1, $2, $3, $4)",
        )
        .bind(hash(secret))
        .bind(invitation.place.to_string())
        .bind(&invitation.name)
        .bind(ends_at)
        .execute(&self.0)
        .await?;
        Ok(())
    }

    /// Takes an invitation, once.
    pub(crate) async fn take_invitation(
        &self,
        secret: &[u8],
    ) -> anyhow::Result<Option<Invitation>> {
        let now = now_ms() / 1000;
        sqlx::query("DELETE FROM node_invitations WHERE ends_at <= $1")
            .bind(now)
            .execute(&self.0)
            .await?;
        let row = sqlx::query("DELETE FROM node_invitations WHERE hash = $1 RETURNING place, name")
            .bind(hash(secret))
            .fetch_optional(&self.0)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let place: String = row.try_get("place")?;
        Ok(Some(Invitation {
            place: place.parse()?,
            name: row.try_get("name")?,
        }))
    }

    // Conferences.

    /// Keeps what took effect in conferences: in which, who holds it, and what.
    pub(crate) async fn log(
        &self,
        entries: &[(ConferenceId, NodeId, Arc<LogEntry>)],
    ) -> anyhow::Result<()> {
        let mut transaction = self.0.begin().await?;
        for (conference, root, entry) in entries {
            sqlx::query(
                "INSERT INTO node_logs (conference, root, writer, number, entry, kept_at) \
                 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
            )
            .bind(conference.to_string())
            .bind(root.to_string())
            .bind(entry.epoch.root.to_string())
            .bind(i64::try_from(entry.number)?)
            .bind(serde_json::to_string(entry)?)
            .bind(now_ms())
            .execute(&mut *transaction)
            .await?;
        }
        Ok(transaction.commit().await?)
    }

    /// The logs of all conferences, the latest entries of each.
    pub(crate) async fn logs(&self) -> anyhow::Result<Vec<StoredLog>> {
        sqlx::query(
            "DELETE FROM node_logs WHERE conference NOT IN \
             (SELECT conference FROM node_logs WHERE kept_at >= $1)",
        )
        .bind(now_ms() - LOG_KEPT)
        .execute(&self.0)
        .await?;
        let rows = sqlx::query(
            "SELECT conference, root, entry FROM node_logs ORDER BY conference, kept_at, rowid",
        )
        .fetch_all(&self.0)
        .await?;
        let mut logs: Vec<StoredLog> = Vec::new();
        for row in &rows {
            let conference: String = row.try_get("conference")?;
            let conference: ConferenceId = conference.parse()?;
            let root: String = row.try_get("root")?;
            let entry: String = row.try_get("entry")?;
            let entry = Arc::new(serde_json::from_str(&entry)?);
            match logs.last_mut() {
                Some((last, _, entries)) if *last == conference => entries.push(entry),
                _ => logs.push((conference, root.parse()?, vec![entry])),
            }
        }
        for (_, _, entries) in &mut logs {
            let more = entries.len().saturating_sub(LOG_BOUND);
            entries.drain(..more);
        }
        Ok(logs)
    }
}

/// A place that an invitation is for, with a new node's id.
pub(crate) fn new_place(level: Level, organisation: OrganisationId) -> Place {
    Place {
        node: NodeId(uuid::Uuid::now_v7().as_u128()),
        level,
        organisation,
    }
}

#[cfg(test)]
mod tests {
    use signaling::cascade::{Act, ActId, Deed, Epoch, Identity};

    use super::*;

    #[tokio::test]
    async fn starts_are_counted_and_an_invitation_holds_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        assert_eq!(store.start().await.unwrap(), 1);
        let again = Store::open(folder.path()).await.unwrap();
        assert_eq!(again.start().await.unwrap(), 2);
        let invitation = Invitation {
            place: new_place(Level::County, OrganisationId(3)),
            name: "清原县".into(),
        };
        let now = now_ms() / 1000;
        store.invite(b"one", &invitation, now + 60).await.unwrap();
        store.invite(b"late", &invitation, now - 1).await.unwrap();
        assert_eq!(again.take_invitation(b"other").await.unwrap(), None);
        assert_eq!(again.take_invitation(b"late").await.unwrap(), None);
        assert_eq!(
            again.take_invitation(b"one").await.unwrap(),
            Some(invitation)
        );
        assert_eq!(store.take_invitation(b"one").await.unwrap(), None);
    }

    #[tokio::test]
    async fn logs_come_back_in_order_and_each_entry_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let conference = ConferenceId(7);
        let entry = |number| {
            Arc::new(LogEntry {
                epoch: Epoch {
                    root: NodeId(1),
                    number: 1,
                },
                number,
                at: 5,
                act: Arc::new(Act {
                    id: ActId {
                        node: NodeId(1),
                        incarnation: 1,
                        number: number as u32,
                    },
                    actor: Identity::from("a"),
                    deed: Deed::OpenFloor(true),
                }),
            })
        };
        let kept: Vec<_> = (1..4)
            .map(|number| (conference, NodeId(2), entry(number)))
            .collect();
        store.log(&kept).await.unwrap();
        store.log(&kept[1..]).await.unwrap();
        let logs = store.logs().await.unwrap();
        assert_eq!(
            logs,
            [(conference, NodeId(2), vec![entry(1), entry(2), entry(3)])]
        );
    }
}
