//! Meetings: a name, a ten-digit code, and perhaps an end. Kept in one SQLite file that the
//! running server and the command line share.
//!
//! Until people and rights exist, whoever has the code may join by name.

use std::path::Path;
use std::str::FromStr as _;
use std::time::Duration;

use anyhow::Context as _;
use rand::Rng as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row as _, SqlitePool};

/// The issuer of the server's own tokens.
pub(crate) const MEETING_KEY: &str = "terrace-meetings";

/// How many digits a code has. Ten digits and the bounds on guessing make a hit unlikely for
/// years, and can still be read out over the telephone.
pub(crate) const CODE_DIGITS: usize = 10;

/// How long a call waits for another process that writes.
const BUSY_TIME: Duration = Duration::from_secs(5);

/// A meeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meeting {
    /// Also the name of its room.
    pub(crate) id: String,
    /// Ten digits.
    pub(crate) code: String,
    /// As shown.
    pub(crate) name: String,
    /// UTC milliseconds since 1970.
    pub(crate) created_at: i64,
    /// When it ends by itself, likewise.
    pub(crate) ends_at: Option<i64>,
    /// When it was ended by hand, likewise.
    pub(crate) ended_at: Option<i64>,
}

impl Meeting {
    /// Whether it is over.
    pub(crate) fn is_over(&self, now: i64) -> bool {
        self.ended_at.is_some() || self.ends_at.is_some_and(|end| end <= now)
    }

    /// The code as people read it: `123-456-7890`.
    pub(crate) fn spaced_code(&self) -> String {
        match (self.code.get(..3), self.code.get(3..6), self.code.get(6..)) {
            (Some(a), Some(b), Some(c)) => format!("{a}-{b}-{c}"),
            _ => self.code.clone(),
        }
    }
}

/// Ten digits out of what somebody typed; `None` if that is something else.
pub(crate) fn read_code(text: &str) -> Option<String> {
    if text.len() > 64 {
        return None;
    }
    let digits: String = text.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    (digits.len() == CODE_DIGITS && digits.bytes().all(|digit| digit.is_ascii_digit()))
        .then_some(digits)
}

/// A name that people may join with or a meeting may have: 1–64 characters, none of them control
/// or direction characters.
pub(crate) fn read_name(text: &str) -> Option<String> {
    let name = text.trim();
    let is_odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let count = name.chars().count();
    ((1..=64).contains(&count) && !name.chars().any(is_odd)).then(|| name.to_owned())
}

/// Now, in UTC milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    unix.unwrap_or_default().as_millis() as i64
}

/// The meetings' file.
#[derive(Clone)]
pub(crate) struct Meetings(SqlitePool);

/// Opens the SQLite file in a data folder, and makes both if they are not there.
pub(crate) async fn open_file(
    data_dir: &Path,
    synchronous: SqliteSynchronous,
) -> anyhow::Result<SqlitePool> {
    let file = data_dir.join("terrace.sqlite");
    let options = SqliteConnectOptions::from_str("sqlite:")?
        .filename(&file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous)
        .busy_timeout(BUSY_TIME);
    SqlitePoolOptions::new()
        .max_connections(4)
        .connect_with(options)
        .await
        .with_context(|| format!("the database {} can't be opened", file.display()))
}

fn read_row(row: &sqlx::sqlite::SqliteRow) -> Result<Meeting, sqlx::Error> {
    Ok(Meeting {
        id: row.try_get("id")?,
        code: row.try_get("code")?,
        name: row.try_get("name")?,
        created_at: row.try_get("created_at")?,
        ends_at: row.try_get("ends_at")?,
        ended_at: row.try_get("ended_at")?,
    })
}

impl Meetings {
    /// Opens the file in a data folder, and makes both if they are not there.
    pub(crate) async fn open(data_dir: &Path) -> anyhow::Result<Meetings> {
        let pool = open_file(data_dir, SqliteSynchronous::Normal).await?;
        sqlx::query(
            "CREATE TABLE IF NOT EXISTS meetings (\
             id TEXT PRIMARY KEY, \
             code TEXT NOT NULL UNIQUE, \
             name TEXT NOT NULL, \
             created_at BIGINT NOT NULL, \
             ends_at BIGINT, \
             ended_at BIGINT)",
        )
        .execute(&pool)
        .await?;
        Ok(Meetings(pool))
    }

    /// Makes a meeting with a fresh code.
    pub(crate) async fn create(&self, name: &str, ends_at: Option<i64>) -> anyhow::Result<Meeting> {
        loop {
            let code: String = {
                let mut random = rand::rng();
                (0..CODE_DIGITS)
                    .map(|_| char::from(b'0' + random.random_range(0..10u8)))
                    .collect()
            };
            let meeting = Meeting {
                id: uuid::Uuid::now_v7().to_string(),
                code,
                name: name.to_owned(),
                created_at: now_ms(),
                ends_at,
                ended_at: None,
            };
            let made = sqlx::query(
                "INSERT INTO meetings (id, code, name, created_at, ends_at) \
                 VALUES ($1, $2, $3, $4, $5) ON CONFLICT (code) DO NOTHING",
            )
            .bind(&meeting.id)
            .bind(&meeting.code)
            .bind(&meeting.name)
            .bind(meeting.created_at)
            .bind(meeting.ends_at)
            .execute(&self.0)
            .await?;
            if made.rows_affected() == 1 {
                return Ok(meeting);
            }
        }
    }

    /// The meeting with a code.
    pub(crate) async fn by_code(&self, code: &str) -> Result<Option<Meeting>, sqlx::Error> {
        let row = sqlx::query("SELECT * FROM meetings WHERE code = $1")
            .bind(code)
            .fetch_optional(&self.0)
            .await?;
        row.as_ref().map(read_row).transpose()
    }

    /// The meeting of a room.
    pub(crate) async fn by_id(&self, id: &str) -> Result<Option<Meeting>, sqlx::Error> {
        let row = sqlx::query("SELECT * FROM meetings WHERE id = $1")
            .bind(id)
            .fetch_optional(&self.0)
            .await?;
        row.as_ref().map(read_row).transpose()
    }

    /// All that are not over, newest first.
    pub(crate) async fn list(&self) -> Result<Vec<Meeting>, sqlx::Error> {
        let rows = sqlx::query(
            "SELECT * FROM meetings WHERE ended_at IS NULL AND (ends_at IS NULL OR ends_at > $1) \
             ORDER BY created_at DESC",
        )
        .bind(now_ms())
        .fetch_all(&self.0)
        .await?;
        rows.iter().map(read_row).collect()
    }

    /// Ends a meeting. `false` if there is none with this code that runs.
    pub(crate) async fn end(&self, code: &str) -> Result<bool, sqlx::Error> {
        let ended =
            sqlx::query("UPDATE meetings SET ended_at = $1 WHERE code = $2 AND ended_at IS NULL")
                .bind(now_ms())
                .bind(code)
                .execute(&self.0)
                .await?;
        Ok(ended.rows_affected() > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_ten_digits_however_it_is_spaced() {
        for text in ["1234567890", "123-456-7890", " 123 456 7890 "] {
            assert_eq!(read_code(text).as_deref(), Some("1234567890"), "{text}");
        }
        for text in [
            "",
            "123456789",
            "12345678901",
            "123456789a",
            "１２３４５６７８９０",
        ] {
            assert_eq!(read_code(text), None, "{text}");
        }
    }

    #[test]
    fn a_name_is_one_to_64_plain_characters() {
        assert_eq!(read_name("  张三 ").as_deref(), Some("张三"));
        assert!(read_name(&"村".repeat(64)).is_some());
        for text in ["", "   ", "a\nb", "a\u{202e}b", &"村".repeat(65)] {
            assert_eq!(read_name(text), None, "{text:?}");
        }
    }

    #[tokio::test]
    async fn a_meeting_is_shared_between_two_openings_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let server = Meetings::open(folder.path()).await.unwrap();
        let command = Meetings::open(folder.path()).await.unwrap();
        let meeting = command
            .create("例会", Some(now_ms() + 60_000))
            .await
            .unwrap();
        assert_eq!(meeting.code.len(), CODE_DIGITS);
        assert_eq!(
            server.by_code(&meeting.code).await.unwrap(),
            Some(meeting.clone())
        );
        assert_eq!(server.list().await.unwrap().len(), 1);
        assert!(command.end(&meeting.code).await.unwrap());
        assert!(!command.end(&meeting.code).await.unwrap());
        assert!(
            server
                .by_id(&meeting.id)
                .await
                .unwrap()
                .unwrap()
                .is_over(now_ms())
        );
        assert!(server.list().await.unwrap().is_empty());
    }
}
