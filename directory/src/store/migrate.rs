//! Brings a database to this program's version, in one transaction: a program that is killed meanwhile leaves the old
//! version, whole.

use sqlx::{Executor as _, Row as _};

use super::{Engine, Store, StoreError};

/// Each version's script, from the first on. A script that was released is never changed.
const SCRIPTS: &[&str] = &[
    include_str!("migrations/0001_foundation.sql"),
    include_str!("migrations/0002_once.sql"),
];

/// Applies what is missing.
pub(super) async fn migrate(store: &Store) -> Result<(), StoreError> {
    let mut writing = store.write().await?;
    let connection = writing.connection();
    connection
        .execute(
            "CREATE TABLE IF NOT EXISTS schema_versions (\
             version BIGINT PRIMARY KEY, \
             script TEXT NOT NULL)",
        )
        .await?;
    let rows = sqlx::query("SELECT version, script FROM schema_versions ORDER BY version")
        .fetch_all(&mut *connection)
        .await?;
    let mut done = 0;
    for row in &rows {
        let version: i64 = row.try_get("version")?;
        let script: String = row.try_get("script")?;
        match usize::try_from(version - 1)
            .ok()
            .and_then(|at| SCRIPTS.get(at))
        {
            None => {
                let known = SCRIPTS.len() as i64;
                return Err(StoreError::Newer {
                    found: version,
                    known,
                });
            }
            Some(known) if digest(known) != script => return Err(StoreError::Altered(version)),
            Some(_) => done = version,
        }
    }
    for (version, script) in (1i64..).zip(SCRIPTS).skip(done as usize) {
        connection
            .execute(sqlx::raw_sql(&for_engine(script, store.engine)))
            .await?;
        sqlx::query("INSERT INTO schema_versions (version, script) VALUES ($1, $2)")
            .bind(version)
            .bind(digest(script))
            .execute(&mut *connection)
            .await?;
    }
    writing.commit().await
}

fn digest(script: &str) -> String {
    crate::hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, script.as_bytes()).as_ref())
}

/// The script as one engine has it. PostgreSQL compares text by the rules of a language unless told otherwise, and
/// calls bytes by another name. What stands between `-- only sqlite` and `-- end` (or `-- only postgres`) is for one.
fn for_engine(script: &str, engine: Engine) -> String {
    let mut out = String::new();
    let mut only = None;
    for line in script.lines() {
        match line.trim() {
            "-- only sqlite" => only = Some(Engine::Sqlite),
            "-- only postgres" => only = Some(Engine::Postgres),
            "-- end" => only = None,
            trimmed if trimmed.starts_with("--") => {}
            _ if only.is_some_and(|only| only != engine) => {}
            _ => {
                let line = match engine {
                    Engine::Sqlite => line.to_owned(),
                    Engine::Postgres => line
                        .replace(" TEXT", " TEXT COLLATE \"C\"")
                        .replace(" BLOB", " BYTEA"),
                };
                out.push_str(&line);
                out.push('\n');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_keeps_what_is_for_its_engine() {
        let script = "CREATE TABLE a (b TEXT, c BLOB);\n-- only sqlite\nx;\n-- end\n-- only postgres\ny;\n-- end\nz;";
        assert_eq!(
            for_engine(script, Engine::Sqlite),
            "CREATE TABLE a (b TEXT, c BLOB);\nx;\nz;\n"
        );
        assert_eq!(
            for_engine(script, Engine::Postgres),
            "CREATE TABLE a (b TEXT COLLATE \"C\", c BYTEA);\ny;\nz;\n"
        );
    }
}
