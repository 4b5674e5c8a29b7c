//! Copies one database into another one, of the same engine or the other, and compares them.

use aws_lc_rs::digest::{Context, SHA256};
use futures_util::TryStreamExt as _;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, Row as _};

use super::{Store, StoreError, number};

/// How many rows are written with one statement; with fourteen columns, far within what both engines take.
const ROWS_AT_ONCE: usize = 200;

/// What a column holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Text,
    Number,
    Bytes,
}

/// A table: its name, its columns (a number's with `#` behind it, bytes with `*`), and its key.
struct Table(&'static str, &'static str, &'static str);

/// Every table, each after those that it refers to.
const TABLES: &[Table] = &[
    Table(
        "audit_log",
        "only_row# id last_sequence# last_hash",
        "only_row",
    ),
    Table(
        "audit_entries",
        "sequence# at# actor_kind actor_id organisation_id action object_kind object_id outcome \
         reason address detail previous hash",
        "sequence",
    ),
    Table(
        "audit_heads",
        "sequence# at# hash key signature",
        "sequence, at",
    ),
    Table(
        "organisations",
        "id kind level# name search_name initials parent_id cascade_parent_id state created_at# \
         closed_at# version# sort_key",
        "id",
    ),
    Table(
        "organisation_lineages",
        "organisation_id ancestor_id depth#",
        "organisation_id, ancestor_id",
    ),
    Table(
        "division_codes",
        "organisation_id code valid_from# valid_to#",
        "organisation_id, code, valid_from",
    ),
    Table(
        "organisation_history",
        "organisation_id version# at# change name level# code parent_id cascade_parent_id state",
        "organisation_id, version",
    ),
    Table(
        "organisation_successors",
        "organisation_id successor_id at#",
        "organisation_id, successor_id",
    ),
    Table(
        "organisation_shares",
        "id organisation_id with_id actions purpose ends_at# ended_at#",
        "id",
    ),
    Table(
        "places",
        "id organisation_id kind name uses screens# seats# closed_at# version# sort_key",
        "id",
    ),
    Table(
        "persons",
        "id organisation_id name search_name initials login state created_at# left_at# version# \
         sort_key",
        "id",
    ),
    Table(
        "posts",
        "id organisation_id title roles closed_at# version#",
        "id",
    ),
    Table(
        "post_holders",
        "post_id person_id starts_at# ends_at#",
        "post_id, person_id, starts_at",
    ),
    Table(
        "temporary_grants",
        "id kind person_id role organisation_id matter_id from_person_id from_post_id purpose \
         starts_at# ends_at# ended_at#",
        "id",
    ),
    Table(
        "invitations",
        "id token_hash person_id created_at# expires_at# used_at# revoked_at#",
        "id",
    ),
    Table(
        "passwords",
        "person_id hash changed_at# earlier",
        "person_id",
    ),
    Table(
        "sign_in_failures",
        "counter failures# last_at# blocked_until#",
        "counter",
    ),
    Table(
        "factors",
        "id person_id kind name secret* confirmed_at# last_used_at# last_step# created_at#",
        "id",
    ),
    Table(
        "recovery_codes",
        "person_id hash used_at#",
        "person_id, hash",
    ),
    Table("ceremonies", "id person_id kind state expires_at#", "id"),
    Table(
        "sessions",
        "id token_hash person_id device address created_at# last_seen_at# expires_at# strength \
         verified_at# ended_at# ended_because",
        "id",
    ),
    Table(
        "device_keys",
        "id place_id name key_hash created_at# created_by last_used_at# revoked_at#",
        "id",
    ),
    Table(
        "once_requests",
        "actor once_key digest begun_at# status# answer*",
        "actor, once_key",
    ),
];

/// What an organisation refers to of its own table: written once all are there.
const LATER: [&str; 2] = ["parent_id", "cascade_parent_id"];

/// Why nothing was copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// There is something in the database that is copied into.
    #[error("the database that is copied into is in use already")]
    NotEmpty,
    /// What was read back is not what was written.
    #[error("the copy of {0} is not what was copied")]
    Differs(&'static str),
    /// One of the databases failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for CopyError {
    fn from(error: sqlx::Error) -> CopyError {
        CopyError::Store(error.into())
    }
}

impl Table {
    fn columns(&self) -> Vec<(&'static str, Type)> {
        let column = |word: &'static str| match (word.strip_suffix('#'), word.strip_suffix('*')) {
            (Some(name), _) => (name, Type::Number),
            (_, Some(name)) => (name, Type::Bytes),
            _ => (word, Type::Text),
        };
        self.1.split_whitespace().map(column).collect()
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.columns().into_iter().map(|(name, _)| name).collect();
        names.join(", ")
    }

    fn select(&self) -> String {
        format!(
            "SELECT {} FROM {} ORDER BY {}",
            self.names(),
            self.0,
            self.2
        )
    }
}

/// A column of a row.
enum Value {
    Text(Option<String>),
    Number(Option<i64>),
    Bytes(Option<Vec<u8>>),
}

impl Value {
    fn read(row: &AnyRow, name: &str, kind: Type) -> Result<Value, StoreError> {
        Ok(match kind {
            Type::Text => Value::Text(row.try_get(name)?),
            Type::Number => Value::Number(row.try_get(name)?),
            Type::Bytes => Value::Bytes(row.try_get(name)?),
        })
    }

    fn nothing(kind: Type) -> Value {
        match kind {
            Type::Text => Value::Text(None),
            Type::Number => Value::Number(None),
            Type::Bytes => Value::Bytes(None),
        }
    }

    fn bind<'q>(self, query: Query<'q, Any, AnyArguments<'q>>) -> Query<'q, Any, AnyArguments<'q>> {
        match self {
            Value::Text(text) => query.bind(text),
            Value::Number(number) => query.bind(number),
            Value::Bytes(bytes) => query.bind(bytes),
        }
    }

    fn digest(&self, context: &mut Context) {
        let number;
        let bytes = match self {
            Value::Text(text) => text.as_deref().map(str::as_bytes),
            Value::Number(value) => {
                number = value.map(i64::to_be_bytes);
                number.as_ref().map(<[u8; 8]>::as_slice)
            }
            Value::Bytes(bytes) => bytes.as_deref(),
        };
        match bytes {
            None => context.update(&[0]),
            Some(bytes) => {
                context.update(&[1]);
                context.update(&(bytes.len() as u64).to_be_bytes());
                context.update(bytes);
            }
        }
    }
}

/// Copies all that a database holds, as of one moment, into one that holds nothing, in one transaction, and compares.
pub async fn copy(from: &Store, to: &Store) -> Result<(), CopyError> {
    let mut reading = from.read().await?;
    let mut writing = to.write().await?;
    for table in ["persons", "organisations", "audit_entries"] {
        let count = format!("SELECT COUNT(*) AS rows_there FROM {table}");
        let row = sqlx::query(&count).fetch_one(writing.connection()).await?;
        if number(&row, "rows_there")? > 0 {
            return Err(CopyError::NotEmpty);
        }
    }
    // A server that was started on it has begun a log and nothing else.
    for table in ["audit_heads", "audit_log", "sign_in_failures"] {
        let clear = format!("DELETE FROM {table}");
        sqlx::query(&clear).execute(writing.connection()).await?;
    }
    for table in TABLES {
        let read = copy_table(reading.connection(), writing.connection(), table).await?;
        if table.0 == "organisations" {
            copy_parents(reading.connection(), writing.connection()).await?;
        }
        if digest(writing.connection(), table).await? != read {
            return Err(CopyError::Differs(table.0));
        }
    }
    writing.commit().await?;
    Ok(())
}

/// Copies a table; what comes back is the digest of what was read.
async fn copy_table(
    from: &mut AnyConnection,
    to: &mut AnyConnection,
    table: &Table,
) -> Result<Vec<u8>, CopyError> {
    let (select, columns) = (table.select(), table.columns());
    let is_later = |name: &str| table.0 == "organisations" && LATER.contains(&name);
    let mut context = Context::new(&SHA256);
    let mut rows = sqlx::query(&select).fetch(from);
    let mut waiting: Vec<Vec<Value>> = Vec::with_capacity(ROWS_AT_ONCE);
    while let Some(row) = rows.try_next().await? {
        let mut values = Vec::with_capacity(columns.len());
        for (name, kind) in &columns {
            let value = Value::read(&row, name, *kind)?;
            value.digest(&mut context);
            values.push(match is_later(name) {
                true => Value::nothing(*kind),
                false => value,
            });
        }
        waiting.push(values);
        if waiting.len() == ROWS_AT_ONCE {
            insert(to, table, std::mem::take(&mut waiting)).await?;
        }
    }
    insert(to, table, waiting).await?;
    Ok(context.finish().as_ref().to_vec())
}

async fn insert(
    to: &mut AnyConnection,
    table: &Table,
    rows: Vec<Vec<Value>>,
) -> Result<(), StoreError> {
    let Some(first) = rows.first() else {
        return Ok(());
    };
    let places = super::places(rows.len(), first.len());
    let statement = format!(
        "INSERT INTO {} ({}) VALUES {places}",
        table.0,
        table.names()
    );
    let mut query = sqlx::query(&statement);
    for value in rows.into_iter().flatten() {
        query = value.bind(query);
    }
    query.execute(to).await?;
    Ok(())
}

async fn copy_parents(from: &mut AnyConnection, to: &mut AnyConnection) -> Result<(), StoreError> {
    let select = "SELECT id, parent_id, cascade_parent_id FROM organisations \
                  WHERE parent_id IS NOT NULL OR cascade_parent_id IS NOT NULL";
    let mut rows = sqlx::query(select).fetch(from);
    while let Some(row) = rows.try_next().await? {
        let update =
            "UPDATE organisations SET parent_id = $1, cascade_parent_id = $2 WHERE id = $3";
        sqlx::query(update)
            .bind(super::maybe_text(&row, "parent_id")?)
            .bind(super::maybe_text(&row, "cascade_parent_id")?)
            .bind(super::text(&row, "id")?)
            .execute(&mut *to)
            .await?;
    }
    Ok(())
}

/// The digest of all that a table holds.
async fn digest(connection: &mut AnyConnection, table: &Table) -> Result<Vec<u8>, StoreError> {
    let (select, columns) = (table.select(), table.columns());
    let mut context = Context::new(&SHA256);
    let mut rows = sqlx::query(&select).fetch(connection);
    while let Some(row) = rows.try_next().await? {
        for (name, kind) in &columns {
            Value::read(&row, name, *kind)?.digest(&mut context);
        }
    }
    Ok(context.finish().as_ref().to_vec())
}

#[cfg(test)]
mod tests {
    use super::super::{Engine, Location, text};
    use super::*;
    use crate::Directory;
    use crate::divisions;
    use crate::organisation::import::Missing;
    use crate::organisation::{Change, Kind, Level, NewOrganisation};
    use crate::people::{Administrators, NewPerson};
    use crate::testing::{MORNING, by_machine, on_both_open, postgres_database, random};

    #[tokio::test(flavor = "multi_thread")]
    async fn every_table_and_column_is_copied() {
        on_both_open(|store| async move {
            let mut reading = store.read().await.unwrap();
            let tables = match store.engine() {
                Engine::Sqlite => {
                    "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
                }
                Engine::Postgres => {
                    "SELECT table_name::text AS name FROM information_schema.tables \
                     WHERE table_schema = 'public'"
                }
            };
            let rows = sqlx::query(tables).fetch_all(reading.connection()).await.unwrap();
            let mut found: Vec<String> = rows.iter().map(|row| text(row, "name").unwrap()).collect();
            found.retain(|name| name != "schema_versions");
            found.sort();
            let mut known: Vec<String> = TABLES.iter().map(|table| table.0.to_owned()).collect();
            known.sort();
            assert_eq!(found, known);
            for table in TABLES {
                let columns = match store.engine() {
                    Engine::Sqlite => format!("SELECT name FROM pragma_table_info('{}')", table.0),
                    Engine::Postgres => format!(
                        "SELECT column_name::text AS name FROM information_schema.columns \
                         WHERE table_name = '{}'",
                        table.0
                    ),
                };
                let rows = sqlx::query(&columns).fetch_all(reading.connection()).await.unwrap();
                let mut found: Vec<String> =
                    rows.iter().map(|row| text(row, "name").unwrap()).collect();
                found.sort();
                let mut known: Vec<&str> =
                    table.columns().into_iter().map(|(name, _)| name).collect();
                known.sort_unstable();
                assert_eq!(found, known, "{}", table.0);
            }
        })
        .await;
    }

    /// A province with its counties, three people, and a county that is under one that is younger.
    async fn in_use(store: &Store) -> Directory {
        let mut source = random(1);
        let directory = Directory::new(store.clone(), MORNING, &mut source)
            .await
            .unwrap();
        let mut act = by_machine(&mut source);
        let person = |login: &str| NewPerson {
            name: format!("某{login}"),
            login: login.to_owned(),
        };
        let three = Administrators {
            system: person("system"),
            security: person("security"),
            auditor: person("auditor"),
        };
        let new = |name: &str, level, code: Option<&str>, parent| NewOrganisation {
            kind: Kind::Centre,
            level: Some(level),
            name: name.to_owned(),
            code: code.map(|code| code.parse().unwrap()),
            parent,
            cascade_parent: None,
        };
        let province = new("辽宁省", Level::Province, Some("21"), None);
        let (province, _) = directory.set_up(&mut act, province, three).await.unwrap();
        let top = Some(province.id);
        let sheet = divisions::start("21", Level::County, "").unwrap();
        let plan = directory
            .plan_import(&act, top, &sheet, Missing::Keep)
            .await
            .unwrap();
        let print = plan.fingerprint;
        let apply = directory.apply_import(&mut act, top, &sheet, Missing::Keep, &print);
        apply.await.unwrap();
        let county = new("某县", Level::County, None, top);
        let county = directory
            .create_organisation(&mut act, county)
            .await
            .unwrap();
        let city = new("某市", Level::City, None, top);
        let city = directory.create_organisation(&mut act, city).await.unwrap();
        let change = Change::Move(city.id);
        directory
            .change_organisation(&mut act, county.id, 1, change)
            .await
            .unwrap();
        directory
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_database_is_copied_whole_into_either_engine_and_nothing_else() {
        on_both_open(|store| async move {
            let directory = in_use(&store).await;
            let folder = tempfile::tempdir().unwrap();
            let file = Location::Sqlite(folder.path().join("copy.sqlite"));
            for location in [file, postgres_database().await] {
                let to = Store::open(&location).await.unwrap();
                // As one that a server was started on by mistake.
                Directory::new(to.clone(), MORNING, &mut random(2))
                    .await
                    .unwrap();
                copy(&store, &to).await.unwrap();
                for table in TABLES {
                    let (mut one, mut other) =
                        (store.read().await.unwrap(), to.read().await.unwrap());
                    let one = digest(one.connection(), table).await.unwrap();
                    assert_eq!(one, digest(other.connection(), table).await.unwrap());
                }
                let copied = Directory::new(to.clone(), MORNING, &mut random(3))
                    .await
                    .unwrap();
                let report = copied.verify_audit(&[], &[]).await.unwrap();
                assert_eq!(report.findings, []);
                assert_eq!(report.entries, directory.audit_end().await.unwrap());
                let again = copy(&store, &to).await;
                assert!(matches!(again, Err(CopyError::NotEmpty)), "{again:?}");
                to.close().await;
            }
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_copy_is_written_while_others_write() {
        on_both_open(|store| async move {
            let directory = in_use(&store).await;
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("it's a copy.sqlite");
            let before = directory.audit_end().await.unwrap();
            let writer = tokio::spawn({
                let directory = directory.clone();
                async move {
                    let mut source = random(9);
                    let mut act = by_machine(&mut source);
                    for number in 0..20 {
                        let new = NewOrganisation {
                            kind: Kind::Centre,
                            level: Some(Level::Province),
                            name: format!("省{number}"),
                            code: None,
                            parent: None,
                            cascade_parent: None,
                        };
                        directory.create_organisation(&mut act, new).await.unwrap();
                    }
                }
            });
            store.write_copy(&file).await.unwrap();
            writer.await.unwrap();
            let copied = Store::open(&Location::Sqlite(file)).await.unwrap();
            let copied = Directory::new(copied, MORNING, &mut random(3))
                .await
                .unwrap();
            let report = copied.verify_audit(&[], &[]).await.unwrap();
            assert_eq!(report.findings, []);
            assert!(
                (before..=before + 20).contains(&report.entries),
                "{report:?}"
            );
        })
        .await;
    }
}
