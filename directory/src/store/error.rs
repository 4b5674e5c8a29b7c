//! What can go wrong with the database, named for what the operator or the caller can do about it.

use sqlx::error::ErrorKind;

/// Why the database did not do what it was asked. Nothing of a failed transaction stays.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk, or the room that the database may take, is full: free some, then try again.
    #[error("the database is full")]
    Full,
    /// The file, its folder or the server lets nothing be written: set the permissions right.
    #[error("the database can only be read")]
    ReadOnly,
    /// Somebody else wrote for longer than we waited: try again.
    #[error("the database is busy with another writer")]
    Locked,
    /// The file was taken away or the server can't be reached: bring it back.
    #[error("the database is gone")]
    Gone,
    /// The file is no database, or is damaged: restore a backup.
    #[error("the database is damaged")]
    Damaged,
    /// A newer program has changed the database: run that program, or restore a backup.
    #[error("the database is of version {found}, and this program knows versions up to {known}")]
    Newer {
        /// What the database says.
        found: i64,
        /// The newest that this program knows.
        known: i64,
    },
    /// A migration is not the one that was applied to this database under its number.
    #[error("migration {0} is not the one that this database was made with")]
    Altered(i64),
    /// Something that must be there only once is there already.
    #[error("this is there already")]
    Taken,
    /// A row holds what this program would never write.
    #[error("the database holds something that can't be read: {0}")]
    Unreadable(&'static str),
    /// Anything else.
    #[error("the database failed")]
    Other(#[source] sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> StoreError {
        match &error {
            sqlx::Error::Database(database) => {
                if matches!(database.kind(), ErrorKind::UniqueViolation) {
                    return StoreError::Taken;
                }
                let code = database.code().unwrap_or_default();
                by_code(&code).unwrap_or(StoreError::Other(error))
            }
            sqlx::Error::PoolTimedOut => StoreError::Locked,
            sqlx::Error::Io(_) | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
                StoreError::Gone
            }
            _ => StoreError::Other(error),
        }
    }
}

/// SQLSTATE classes of PostgreSQL (five characters; its appendix A) and extended result codes of SQLite (at most four
/// digits; sqlite.org/rescode.html), whose low byte is the primary one.
fn by_code(code: &str) -> Option<StoreError> {
    /// `SQLITE_READONLY_DBMOVED`: the file under the connection is not the one with this name any more.
    const MOVED: u32 = 1032;
    if code.len() == 5 {
        return match code {
            "53100" => Some(StoreError::Full),
            "25006" | "42501" => Some(StoreError::ReadOnly),
            "55P03" | "40P01" | "40001" | "53300" => Some(StoreError::Locked),
            "57P01" | "57P02" | "57P03" | "3D000" => Some(StoreError::Gone),
            "XX001" | "XX002" => Some(StoreError::Damaged),
            _ if code.starts_with("08") => Some(StoreError::Gone),
            _ => None,
        };
    }
    let code: u32 = code.parse().ok()?;
    match (code, code & 0xff) {
        (MOVED, _) => Some(StoreError::Gone),
        (_, 5 | 6) => Some(StoreError::Locked),
        (_, 8) => Some(StoreError::ReadOnly),
        (_, 10 | 14) => Some(StoreError::Gone),
        (_, 11 | 26) => Some(StoreError::Damaged),
        (_, 13) => Some(StoreError::Full),
        _ => None,
    }
}
