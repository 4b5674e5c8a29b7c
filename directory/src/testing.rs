//! What the tests share, those of the server too (feature `testing`): a database of each engine, fresh for each test.
//!
//! PostgreSQL is a real server, started from the distribution's programs once for all tests of a run, as a user
//! without rights, in a temporary folder with a Unix socket. It sorts text as Chinese is sorted, so that a query which
//! leans on the server's language is found out. When the tests end, however they end, it ends too.

use std::future::Future;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rand::SeedableRng as _;
use sqlx::Connection as _;

use crate::Timestamp;
use crate::act::{Act, Who};
use crate::store::{Location, Store};

/// The day on which the tests' time begins: 2026-03-02 08:00 in Shanghai.
pub const MORNING: Timestamp = Timestamp::from_millis(1_772_409_600_000);

/// `nobody` has this number on every Linux that we know.
const NOBODY: u32 = 65_534;

/// How long the server may take to be there.
const START_TIME: Duration = Duration::from_secs(60);

struct Server {
    folder: PathBuf,
    /// Closed by the kernel when this process ends: then the server is told to end as well.
    _alive: ChildStdin,
}

/// Randomness that is the same each time.
pub fn random(seed: u64) -> rand::rngs::StdRng {
    rand::rngs::StdRng::seed_from_u64(seed)
}

/// What the machine itself does in the morning.
pub fn by_machine(random: &mut rand::rngs::StdRng) -> Act<'_> {
    Act {
        who: Who::Machine,
        now: MORNING,
        address: None,
        reason: None,
        random,
    }
}

/// Runs a test on a fresh database of each engine.
pub async fn on_both<F: Future<Output = ()>>(test: impl Fn(Location) -> F) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    test(Location::Sqlite(folder.path().join("terrace.sqlite"))).await;
    test(postgres_database().await).await;
}

/// The same with the database open.
pub async fn on_both_open<F: Future<Output = ()>>(test: impl Fn(Store) -> F) {
    let test = &test;
    on_both(|location| async move {
        let store = Store::open(&location).await.expect("the database opens");
        test(store.clone()).await;
        store.close().await;
    })
    .await;
}

/// A fresh database on the server.
pub async fn postgres_database() -> Location {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let folder = tokio::task::spawn_blocking(|| server().folder.clone())
        .await
        .expect("PostgreSQL starts");
    let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let url = |database: &str| {
        format!(
            "postgres://terrace@localhost/{database}?host={}&sslmode=disable",
            folder.display()
        )
    };
    let mut connection = sqlx::PgConnection::connect(&url("postgres"))
        .await
        .expect("the server lets us in");
    sqlx::raw_sql(&format!("CREATE DATABASE {name}"))
        .execute(&mut connection)
        .await
        .expect("a database can be made");
    Location::Postgres(url(&name))
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(start)
}

/// The folder of the newest PostgreSQL that the distribution has installed.
fn programs() -> PathBuf {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let version = path.file_name()?.to_str()?.parse().ok()?;
            Some((version, path.join("bin")))
        })
        .filter(|(_, path)| path.join("initdb").exists())
        .collect();
    versions.sort();
    versions.pop().map(|(_, path)| path).expect(
        "PostgreSQL's programs are not in /usr/lib/postgresql, and storage is tested on it too: \
         install them with `cargo xtask test --only install` (or `apt-get install postgresql`)",
    )
}

fn start() -> Server {
    let programs = programs();
    let folder = tempfile::Builder::new()
        .prefix("terrace-postgres-")
        .tempdir()
        .expect("a temporary folder can be made")
        .keep();
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let unprivileged = |program: &Path| {
        let mut command = Command::new(program);
        command.current_dir(&folder);
        if is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    };
    if is_root {
        std::os::unix::fs::chown(&folder, Some(NOBODY), Some(NOBODY))
            .expect("a folder of ours can be given away");
    }
    let made = unprivileged(&programs.join("initdb"))
        .args(["-D", "data", "-U", "terrace", "--auth=trust", "--no-sync"])
        .args(["--encoding=UTF8", "--locale=C.UTF-8"])
        .args(["--locale-provider=icu", "--icu-locale=zh"])
        .output()
        .expect("initdb runs");
    assert!(
        made.status.success(),
        "initdb: {}",
        String::from_utf8_lossy(&made.stderr)
    );
    let script = r#"
        "$0/postgres" -D data -k "$PWD" -c listen_addresses= -c fsync=off -c max_connections=400 \
            </dev/null >log 2>&1 &
        server=$!
        cat >/dev/null
        kill -INT $server
        wait $server
        rm -rf "$PWD"
    "#;
    #[expect(clippy::zombie_processes, reason = "it ends after us")]
    let mut keeper = unprivileged(Path::new("/bin/sh"))
        .args(["-c", script])
        .arg(&programs)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("a shell runs");
    let alive = keeper.stdin.take().expect("its input is a pipe");
    let begin = Instant::now();
    while !is_ready(&programs, &folder) {
        let log = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
        assert!(begin.elapsed() < START_TIME, "PostgreSQL: {}", log());
        std::thread::sleep(Duration::from_millis(50));
    }
    Server {
        folder,
        _alive: alive,
    }
}

fn is_ready(programs: &Path, folder: &Path) -> bool {
    Command::new(programs.join("pg_isready"))
        .arg("-q")
        .arg("-h")
        .arg(folder)
        .args(["-U", "terrace", "-d", "postgres"])
        .status()
        .is_ok_and(|status| status.success())
}

/// Somebody who has roles in an organisation by a post, written straight into the database.
pub async fn appoint(
    store: &Store,
    organisation: crate::id::OrganisationId,
    roles: &[&str],
    now: Timestamp,
) -> crate::id::PersonId {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut source = random(1_000 + u64::from(number));
    let person = crate::id::PersonId::draw(now, &mut source);
    let post = crate::id::PostId::draw(now, &mut source);
    let mut writing = store.write().await.expect("the database takes a writer");
    let statements = [
        format!(
            "INSERT INTO persons (id, organisation_id, name, search_name, initials, login, state, \
             created_at, version, sort_key) VALUES ('{person}', '{organisation}', '某人', '某人', \
             ' mr', 'user{number}', 'active', 0, 1, '{person}')"
        ),
        format!(
            "INSERT INTO posts (id, organisation_id, title, roles, version) \
             VALUES ('{post}', '{organisation}', '某岗', '{}', 1)",
            roles.join(",")
        ),
        format!(
            "INSERT INTO post_holders (post_id, person_id, starts_at) \
             VALUES ('{post}', '{person}', {})",
            now.as_millis()
        ),
    ];
    for statement in &statements {
        sqlx::raw_sql(statement)
            .execute(writing.connection())
            .await
            .expect("the row fits");
    }
    writing.commit().await.expect("the rows are there");
    person
}
