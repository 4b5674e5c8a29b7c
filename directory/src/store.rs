//! The database: one SQLite file, or PostgreSQL. SQL is written once, in what both understand, and run through sqlx's
//! `Any`; what differs between them is in this module and nowhere else.
//!
//! Invariants: there is one writer at a time ([`Store::write`]), on both engines, so that what a transaction has read
//! is still so when it commits; text is compared byte by byte on both; nothing of a transaction that was not committed
//! stays, whatever ended it.

mod copy;
mod error;
mod migrate;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use sqlx::any::{AnyConnectOptions, AnyPoolOptions, AnyRow};
use sqlx::{Any, AnyConnection, AnyPool, Connection as _, Executor as _, Row as _, Transaction};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

pub use copy::{CopyError, copy};
pub use error::StoreError;

/// How long a writer waits for the one before it, by default. Longer than any change but an import of a province.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long after another program was in the way of opening the database it is tried again.
const AGAIN: Duration = Duration::from_millis(20);

/// How many connections are open at most. Readers don't wait for the writer; more than this many at once wait for each other.
const CONNECTIONS: u32 = 8;

/// What a PostgreSQL transaction that writes locks for itself alone: any number, but always this one.
const WRITER_LOCK: i64 = 0x0074_6572_7261_6365;

/// Where the data are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A file, made if it is not there.
    Sqlite(PathBuf),
    /// A server, as `postgres://…`.
    Postgres(String),
}

/// Which of the two it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// SQLite, inside this process.
    Sqlite,
    /// A PostgreSQL server.
    Postgres,
}

/// The open database. Clones share it.
#[derive(Clone)]
pub struct Store {
    pool: AnyPool,
    engine: Engine,
    /// The file, and what tells it from another one that somebody put in its place.
    file: Option<(PathBuf, FileIdentity)>,
    /// Whose turn it is to write, of those in this process: they wait here and not with a connection each, so that
    /// readers have theirs.
    turn: Arc<Semaphore>,
    patience: Duration,
    /// Told after each commit.
    committed: watch::Sender<()>,
}

/// A transaction that only reads: all that it sees is of one moment.
pub struct Reading(Transaction<'static, Any>);

/// The transaction that writes. Dropped without [`Writing::commit`], it leaves nothing.
pub struct Writing {
    transaction: Transaction<'static, Any>,
    committed: watch::Sender<()>,
    /// Given back after the transaction is.
    _turn: OwnedSemaphorePermit,
}

impl Store {
    /// Opens the database and brings it to this program's version.
    pub async fn open(location: &Location) -> Result<Store, StoreError> {
        Store::open_with_patience(location, PATIENCE).await
    }

    /// The same, with how long a writer waits for the one before it.
    pub async fn open_with_patience(
        location: &Location,
        patience: Duration,
    ) -> Result<Store, StoreError> {
        static DRIVERS: Once = Once::new();
        DRIVERS.call_once(sqlx::any::install_default_drivers);
        let (url, engine) = match location {
            Location::Sqlite(file) => (sqlite_url(file), Engine::Sqlite),
            Location::Postgres(url) => (url.clone(), Engine::Postgres),
        };
        let options = AnyConnectOptions::from_str(&url)?;
        let millis = patience.as_millis();
        let greeting = match engine {
            // FULL: what was told to be done is still done after the power has failed.
            Engine::Sqlite => format!(
                "PRAGMA busy_timeout = {millis}; PRAGMA journal_mode = WAL; \
                 PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"
            ),
            Engine::Postgres => format!(
                "SET lock_timeout = {millis}; SET idle_in_transaction_session_timeout = 60000"
            ),
        };
        // A pool would try again and again; what is wrong for good is told at once. That another program opens the same
        // file is not: SQLite does not wait for it by itself when a new file is given its log.
        let begin = Instant::now();
        loop {
            match greet(&options, &greeting).await {
                Err(StoreError::Locked) if begin.elapsed() < patience => {
                    tokio::time::sleep(AGAIN).await;
                }
                greeted => break greeted?,
            }
        }
        let pool = AnyPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(patience.max(Duration::from_secs(1)))
            // SQLite ends a transaction by itself when the disk is full, and sqlx counts it as open for ever after: such a
            // connection is closed, and another one opened.
            .before_acquire(|connection, _| {
                let is_free = !connection.is_in_transaction();
                Box::pin(async move { Ok(is_free) })
            })
            .after_connect(move |connection, _| {
                let greeting = greeting.clone();
                Box::pin(async move {
                    connection
                        .execute(sqlx::raw_sql(&greeting))
                        .await
                        .map(|_| ())
                })
            })
            .connect_with(options)
            .await?;
        let file = match location {
            Location::Sqlite(file) => Some((file.clone(), identity(file)?)),
            Location::Postgres(_) => None,
        };
        let store = Store {
            pool,
            engine,
            file,
            turn: Arc::new(Semaphore::new(1)),
            patience,
            committed: watch::Sender::new(()),
        };
        migrate::migrate(&store).await?;
        Ok(store)
    }

    /// Which engine it is.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// Begins to read, as of now.
    pub async fn read(&self) -> Result<Reading, StoreError> {
        let begin = match self.engine {
            Engine::Sqlite => "BEGIN DEFERRED",
            Engine::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        Ok(Reading(self.pool.begin_with(begin).await?))
    }

    /// Begins to write, as soon as nobody else does.
    pub async fn write(&self) -> Result<Writing, StoreError> {
        let turn = tokio::time::timeout(self.patience, self.turn.clone().acquire_owned()).await;
        let turn = turn
            .map_err(|_| StoreError::Locked)?
            .map_err(|_| StoreError::Gone)?;
        let begin = match self.engine {
            Engine::Sqlite => "BEGIN IMMEDIATE",
            // Read committed: what the writer before us did is seen once its lock is ours.
            Engine::Postgres => "BEGIN ISOLATION LEVEL READ COMMITTED",
        };
        let mut writing = Writing {
            transaction: self.pool.begin_with(begin).await?,
            committed: self.committed.clone(),
            _turn: turn,
        };
        if self.engine == Engine::Postgres {
            let lock = format!("SELECT pg_advisory_xact_lock({WRITER_LOCK})");
            writing.connection().execute(sqlx::raw_sql(&lock)).await?;
        }
        match &self.file {
            // SQLite would go on to write into a file that has no name any more.
            Some((file, known)) if identity(file)? != *known => Err(StoreError::Gone),
            _ => Ok(writing),
        }
    }

    /// Told whenever something was written by this process.
    pub fn committed(&self) -> watch::Receiver<()> {
        self.committed.subscribe()
    }

    /// Writes all that it holds at this moment into a new SQLite file, while others go on to write.
    pub async fn write_copy(&self, file: &Path) -> Result<(), CopyError> {
        match self.engine {
            Engine::Sqlite => self.vacuum_into(file).await?,
            Engine::Postgres => {
                // What is written through a pool may stand in the log beside its file for a while after the pool was
                // closed. So the file is made by one who reads both.
                let beside = file.with_extension("copying");
                let new = Store::open(&Location::Sqlite(beside.clone())).await?;
                let copied = match copy(self, &new).await {
                    Ok(()) => new.vacuum_into(file).await.map_err(CopyError::from),
                    Err(error) => Err(error),
                };
                new.close().await;
                for end in ["", "-wal", "-shm"] {
                    let mut name = beside.clone().into_os_string();
                    name.push(end);
                    let _ = std::fs::remove_file(name);
                }
                copied?;
            }
        }
        Ok(())
    }

    /// Writes the whole of an SQLite database into a file that is not there yet.
    async fn vacuum_into(&self, file: &Path) -> Result<(), StoreError> {
        let name = file.display().to_string().replace('\'', "''");
        let mut connection = self.pool.acquire().await?;
        let copy = format!("VACUUM INTO '{name}'");
        connection.execute(sqlx::raw_sql(&copy)).await?;
        Ok(())
    }

    /// Waits until all connections are closed.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

impl Reading {
    pub(crate) fn connection(&mut self) -> &mut AnyConnection {
        &mut self.0
    }
}

impl Writing {
    pub(crate) fn connection(&mut self) -> &mut AnyConnection {
        &mut self.transaction
    }

    /// Makes it so. After an error, it is not so.
    pub async fn commit(self) -> Result<(), StoreError> {
        self.transaction.commit().await?;
        self.committed.send_replace(());
        Ok(())
    }
}

/// Opens one connection and closes it again.
async fn greet(options: &AnyConnectOptions, greeting: &str) -> Result<(), StoreError> {
    let mut connection = AnyConnection::connect_with(options).await?;
    connection.execute(sqlx::raw_sql(greeting)).await?;
    Ok(connection.close().await?)
}

type FileIdentity = (u64, u64);

/// Tells a file from another one under its name.
fn identity(file: &Path) -> Result<FileIdentity, StoreError> {
    use std::os::unix::fs::MetadataExt as _;
    let about = std::fs::metadata(file).map_err(|_| StoreError::Gone)?;
    Ok((about.dev(), about.ino()))
}

/// The file as a URL, in which nothing of its path means anything else.
fn sqlite_url(file: &Path) -> String {
    let mut url = String::from("sqlite://");
    for &byte in file.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte) {
            url.push(char::from(byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
    url.push_str("?mode=rwc");
    url
}

/// A column of a row as text.
pub(crate) fn text(row: &AnyRow, column: &str) -> Result<String, StoreError> {
    Ok(row.try_get(column)?)
}

/// A column of a row as text that may be missing.
pub(crate) fn maybe_text(row: &AnyRow, column: &str) -> Result<Option<String>, StoreError> {
    Ok(row.try_get(column)?)
}

/// A column of a row as a number.
pub(crate) fn number(row: &AnyRow, column: &str) -> Result<i64, StoreError> {
    Ok(row.try_get(column)?)
}

/// A column of a row as a number that may be missing.
pub(crate) fn maybe_number(row: &AnyRow, column: &str) -> Result<Option<i64>, StoreError> {
    Ok(row.try_get(column)?)
}

/// A column of a row as a moment.
pub(crate) fn moment(row: &AnyRow, column: &str) -> Result<crate::Timestamp, StoreError> {
    Ok(crate::Timestamp::from_millis(number(row, column)?))
}

/// A column of a row as a moment that may be missing.
pub(crate) fn maybe_moment(
    row: &AnyRow,
    column: &str,
) -> Result<Option<crate::Timestamp>, StoreError> {
    Ok(maybe_number(row, column)?.map(crate::Timestamp::from_millis))
}

/// A column of a row as bytes.
pub(crate) fn bytes(row: &AnyRow, column: &str) -> Result<Vec<u8>, StoreError> {
    Ok(row.try_get(column)?)
}

/// A column of a row as something that its text names.
pub(crate) fn parsed<T: std::str::FromStr>(
    row: &AnyRow,
    column: &'static str,
) -> Result<T, StoreError> {
    text(row, column)?
        .parse()
        .map_err(|_| StoreError::Unreadable(column))
}

/// A column of a row as something that its text names and that may be missing.
pub(crate) fn maybe_parsed<T: std::str::FromStr>(
    row: &AnyRow,
    column: &'static str,
) -> Result<Option<T>, StoreError> {
    maybe_text(row, column)?
        .map(|text| text.parse().map_err(|_| StoreError::Unreadable(column)))
        .transpose()
}

/// `($1, $2), ($3, $4)`: the places of so many rows of so many columns.
pub(crate) fn places(rows: usize, columns: usize) -> String {
    let row = |row: usize| {
        let places: Vec<String> = (1..=columns)
            .map(|column| format!("${}", row * columns + column))
            .collect();
        format!("({})", places.join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

/// What a `LIKE … ESCAPE '!'` finds wherever `part` stands in it.
pub(crate) fn anywhere(part: &str) -> String {
    format!("%{}%", escape(part))
}

/// What a `LIKE … ESCAPE '!'` finds that begins with `part`.
pub(crate) fn beginning(part: &str) -> String {
    format!("{}%", escape(part))
}

fn escape(part: &str) -> String {
    part.replace('!', "!!")
        .replace('%', "!%")
        .replace('_', "!_")
}
