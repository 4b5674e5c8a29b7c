use std::time::Duration;

use sqlx::Executor as _;

use super::*;
use crate::testing::{on_both, on_both_open, postgres_database};

const SHORT: Duration = Duration::from_millis(100);

async fn insert(writing: &mut Writing, id: &str) -> Result<(), StoreError> {
    let query = "INSERT INTO organisations (id, kind, level, name, search_name, initials, state, \
                 created_at, version, sort_key) VALUES ($1, 'level', 1, $2, '', '', 'active', $3, 1, $1)";
    sqlx::query(query)
        .bind(id.to_owned())
        .bind("省")
        .bind(1_772_409_600_000_i64)
        .execute(writing.connection())
        .await?;
    Ok(())
}

async fn ids(store: &Store) -> Vec<String> {
    let mut reading = store.read().await.unwrap();
    let rows = sqlx::query("SELECT id, created_at, parent_id FROM organisations ORDER BY id")
        .fetch_all(reading.connection())
        .await
        .unwrap();
    rows.iter()
        .map(|row| {
            assert_eq!(number(row, "created_at").unwrap(), 1_772_409_600_000);
            assert_eq!(maybe_text(row, "parent_id").unwrap(), None);
            text(row, "id").unwrap()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_stays_and_what_is_not_leaves_nothing() {
    on_both(|location| async move {
        let store = Store::open(&location).await.unwrap();
        let mut writing = store.write().await.unwrap();
        insert(&mut writing, "a").await.unwrap();
        assert!(
            ids(&store).await.is_empty(),
            "nobody sees what is not committed"
        );
        writing.commit().await.unwrap();
        let mut writing = store.write().await.unwrap();
        insert(&mut writing, "b").await.unwrap();
        drop(writing);
        store.close().await;
        let store = Store::open(&location).await.unwrap();
        assert_eq!(ids(&store).await, ["a"]);
        store.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_is_compared_byte_by_byte_whatever_the_servers_language() {
    on_both_open(|store| async move {
        let mut writing = store.write().await.unwrap();
        for id in ["b", "B", "a", "乙", "甲", "_", "-", "1"] {
            insert(&mut writing, id).await.unwrap();
        }
        writing.commit().await.unwrap();
        assert_eq!(
            ids(&store).await,
            ["-", "1", "B", "_", "a", "b", "乙", "甲"]
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_writer_waits_and_sees_what_the_first_did() {
    on_both_open(|store| async move {
        let mut first = store.write().await.unwrap();
        insert(&mut first, "a").await.unwrap();
        let second = tokio::spawn({
            let store = store.clone();
            async move {
                let mut second = store.write().await.unwrap();
                sqlx::query("SELECT id FROM organisations")
                    .fetch_all(second.connection())
                    .await
                    .unwrap()
                    .len()
            }
        });
        tokio::time::sleep(SHORT).await;
        assert!(!second.is_finished());
        first.commit().await.unwrap();
        assert_eq!(second.await.unwrap(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_wait_to_write_leave_room_for_who_reads() {
    on_both_open(|store| async move {
        let first = store.write().await.unwrap();
        let waiting: Vec<_> = (0..50)
            .map(|number| {
                let store = store.clone();
                tokio::spawn(async move {
                    let mut writing = store.write().await.unwrap();
                    insert(&mut writing, &format!("{number}")).await.unwrap();
                    writing.commit().await.unwrap();
                })
            })
            .collect();
        tokio::time::sleep(SHORT).await;
        assert!(ids(&store).await.is_empty());
        drop(first);
        for one in waiting {
            one.await.unwrap();
        }
        assert_eq!(ids(&store).await.len(), 50);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_of_another_program_is_waited_for_too() {
    on_both(|location| async move {
        let store = Store::open_with_patience(&location, SHORT).await.unwrap();
        let other = Store::open_with_patience(&location, SHORT).await.unwrap();
        let first = store.write().await.unwrap();
        let second = other.write().await;
        assert!(matches!(second.err(), Some(StoreError::Locked)));
        drop(first);
        let mut writing = other.write().await.unwrap();
        insert(&mut writing, "a").await.unwrap();
        writing.commit().await.unwrap();
        assert_eq!(ids(&store).await, ["a"]);
        store.close().await;
        other.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_who_waits_too_long_is_told_that_it_is_locked() {
    on_both(|location| async move {
        let store = Store::open_with_patience(&location, SHORT).await.unwrap();
        let first = store.write().await.unwrap();
        let second = store.write().await;
        assert!(matches!(second.err(), Some(StoreError::Locked)));
        drop(first);
        store.write().await.unwrap();
        store.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_can_only_be_read_says_so_and_can_be_read() {
    on_both_open(|store| async move {
        let mut writing = store.write().await.unwrap();
        insert(&mut writing, "a").await.unwrap();
        writing.commit().await.unwrap();
        let mut writing = store.write().await.unwrap();
        let make_so = match store.engine() {
            Engine::Sqlite => "PRAGMA query_only = 1",
            Engine::Postgres => "SET TRANSACTION READ ONLY",
        };
        writing.connection().execute(make_so).await.unwrap();
        let refused = insert(&mut writing, "b").await;
        assert!(matches!(refused, Err(StoreError::ReadOnly)), "{refused:?}");
        writing.connection().execute("SELECT 1").await.ok();
        drop(writing);
        assert_eq!(ids(&store).await, ["a"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_database_says_so_and_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let location = Location::Sqlite(folder.path().join("terrace.sqlite"));
    let store = Store::open(&location).await.unwrap();
    let mut writing = store.write().await.unwrap();
    insert(&mut writing, "a").await.unwrap();
    writing.commit().await.unwrap();
    let mut writing = store.write().await.unwrap();
    writing
        .connection()
        .execute("PRAGMA max_page_count = 1")
        .await
        .unwrap();
    let mut outcome = Ok(());
    for number in 0..10_000 {
        outcome = insert(&mut writing, &format!("{number:0200}")).await;
        if outcome.is_err() {
            break;
        }
    }
    assert!(matches!(outcome, Err(StoreError::Full)), "{outcome:?}");
    writing
        .connection()
        .execute("PRAGMA max_page_count = 1000000")
        .await
        .unwrap();
    drop(writing);
    assert_eq!(ids(&store).await, ["a"]);
    let mut writing = store.write().await.unwrap();
    insert(&mut writing, "b").await.unwrap();
    writing.commit().await.unwrap();
    assert_eq!(ids(&store).await, ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_taken_away_takes_no_more_writes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("terrace.sqlite");
    let store = Store::open(&Location::Sqlite(file.clone())).await.unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(store.write().await.err(), Some(StoreError::Gone)));
    std::fs::write(&file, "another").unwrap();
    assert!(matches!(store.write().await.err(), Some(StoreError::Gone)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_away_in_the_middle_costs_the_transaction_only() {
    let location = postgres_database().await;
    let store = Store::open(&location).await.unwrap();
    let other = Store::open(&location).await.unwrap();
    let mut writing = store.write().await.unwrap();
    insert(&mut writing, "a").await.unwrap();
    let mut reading = other.read().await.unwrap();
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    reading.connection().execute(end).await.unwrap();
    drop(reading);
    let outcome = insert(&mut writing, "b").await;
    assert!(matches!(outcome, Err(StoreError::Gone)), "{outcome:?}");
    drop(writing);
    let mut writing = store.write().await.unwrap();
    insert(&mut writing, "c").await.unwrap();
    writing.commit().await.unwrap();
    assert_eq!(ids(&store).await, ["c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_database_is_not_taken_for_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("terrace.sqlite");
    std::fs::write(
        &file,
        "not a database, but long enough to be looked at".repeat(100),
    )
    .unwrap();
    let outcome = Store::open(&Location::Sqlite(file)).await.err();
    assert!(matches!(outcome, Some(StoreError::Damaged)), "{outcome:?}");
    let outcome = Store::open(&Location::Sqlite("/proc/none/terrace.sqlite".into()))
        .await
        .err();
    assert!(matches!(outcome, Some(StoreError::Gone)), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_a_newer_program_is_left_alone() {
    on_both(|location| async move {
        let store = Store::open(&location).await.unwrap();
        let mut writing = store.write().await.unwrap();
        let newer = "INSERT INTO schema_versions (version, script) VALUES (1000, 'x')";
        writing.connection().execute(newer).await.unwrap();
        writing.commit().await.unwrap();
        store.close().await;
        let outcome = Store::open(&location).await.err();
        assert!(
            matches!(outcome, Some(StoreError::Newer { found: 1000, .. })),
            "{outcome:?}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_is_only_a_path() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("数据?mode=memory&x=1 #%20.sqlite");
    let store = Store::open(&Location::Sqlite(file.clone())).await.unwrap();
    store.close().await;
    assert!(file.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_programs_that_start_at_once_make_one_database() {
    for _ in 0..20 {
        on_both(|location| async move {
            let open = || {
                let location = location.clone();
                tokio::spawn(async move { Store::open(&location).await })
            };
            let both = [open(), open()];
            for one in both {
                let store = one.await.unwrap().unwrap();
                assert!(ids(&store).await.is_empty());
                store.close().await;
            }
        })
        .await;
    }
}

#[test]
fn patterns_mean_what_was_typed() {
    assert_eq!(anywhere("50%_!"), "%50!%!_!!%");
    assert_eq!(beginning("a"), "a%");
    assert_eq!(places(2, 2), "($1, $2), ($3, $4)");
}
