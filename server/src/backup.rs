//! `terrace backup` and `terrace restore`: the whole data folder in one file, keys and all, taken while the server runs.
//!
//! A backup is a tar archive. Its first entry, `manifest.json`, names the others with their lengths and SHA-256. Each
//! database in it is a whole one as of one moment, an SQLite file whatever engine it came from.
//!
//! Invariants: a backup is there whole or not at all, and only its owner may read it; nothing is restored over anything;
//! what is restored is what was backed up.

use std::fs;
use std::io::{Read, Seek as _, Write as _};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail};
use aws_lc_rs::digest::{Context, SHA256};
use directory::Directory;
use directory::audit::HeadKey;
use directory::store::{Location, Store};
use rand::SeedableRng as _;
use serde::{Deserialize, Serialize};
use sqlx::{Connection as _, Executor as _};

use crate::api::open::{AUDIT_KEY, DATABASE};
use crate::config::Config;
use crate::meetings::now_ms;

/// The archive's first entry.
const MANIFEST: &str = "manifest.json";

/// The form of the archive.
const VERSION: u32 = 1;

/// How many files a backup has at most; a data folder has some ten.
const FILES: usize = 10_000;

/// How long the manifest is at most, in bytes.
const MANIFEST_BOUND: u64 = 4 << 20;

/// How deep folders lie in each other at most.
const DEPTH: usize = 8;

#[derive(Serialize, Deserialize)]
struct Manifest {
    version: u32,
    /// Of the program that wrote it.
    terrace: String,
    /// UTC milliseconds since 1970.
    created_at: i64,
    files: Vec<Listed>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Listed {
    path: String,
    length: u64,
    sha256: String,
}

/// Whether a file goes into a backup as it is.
fn is_plain(name: &str) -> bool {
    let is_of_database = [".sqlite", ".sqlite-wal", ".sqlite-shm", ".sqlite-journal"]
        .iter()
        .any(|ending| name.ends_with(ending));
    !is_of_database && !name.ends_with(".lock") && !name.ends_with(".new")
}

/// The files under a folder, by their paths in it.
fn files_under(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![(PathBuf::new(), 0)];
    while let Some((inner, depth)) = folders.pop() {
        let path = folder.join(&inner);
        let entries =
            fs::read_dir(&path).with_context(|| format!("can't read {}", path.display()))?;
        for entry in entries {
            let entry = entry?;
            let inner = inner.join(entry.file_name());
            let kind = entry.file_type()?;
            if kind.is_dir() && depth < DEPTH {
                folders.push((inner, depth + 1));
            } else if kind.is_file() {
                found.push(inner);
            }
        }
        if found.len() > FILES {
            bail!("{} has more than {FILES} files", folder.display());
        }
    }
    found.sort();
    Ok(found)
}

fn digest(file: &mut impl Read) -> anyhow::Result<(u64, String)> {
    let mut context = Context::new(&SHA256);
    let (mut buffer, mut length) = (vec![0; 1 << 16], 0);
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        context.update(&buffer[..count]);
        length += count as u64;
    }
    Ok((length, directory::hex(context.finish().as_ref())))
}

fn create_private(file: &Path) -> std::io::Result<fs::File> {
    crate::tls::private().create_new(true).open(file)
}

/// A whole copy of an SQLite file that others may be writing to.
async fn copy_sqlite(from: &Path, to: &Path) -> anyhow::Result<()> {
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(from)
        .busy_timeout(std::time::Duration::from_secs(10));
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await?;
    let name = to.display().to_string().replace('\'', "''");
    let copied = connection
        .execute(sqlx::raw_sql(&format!("VACUUM INTO '{name}'")))
        .await;
    copied.with_context(|| format!("{} can't be copied", from.display()))?;
    connection.close().await?;
    Ok(())
}

/// Writes everything that must survive into one file.
pub(crate) async fn backup(config: &Config, file: &Path) -> anyhow::Result<()> {
    let folder = &config.data_dir;
    if file.exists() {
        bail!(
            "{} is there already: name a file that is not",
            file.display()
        );
    }
    // Beside the file: there must be room for it there anyway.
    let beside = file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let beside = beside.unwrap_or(Path::new("."));
    let is_inside = match (beside.canonicalize(), folder.canonicalize()) {
        (Ok(beside), Ok(folder)) => beside.starts_with(folder),
        _ => false,
    };
    if is_inside {
        bail!("a backup does not lie in the data folder, with which it would be lost");
    }
    let staging = Staging::new(beside)?;
    let mut listed: Vec<(String, PathBuf)> = Vec::new();
    let mut databases = 0;
    for inner in files_under(folder)? {
        let name = inner
            .to_str()
            .context("a file's name is not UTF-8")?
            .to_owned();
        let from = folder.join(&inner);
        if name == DATABASE && config.directory.postgres.is_some() {
            bail!(
                "{} is there and directory.postgres is set: move or delete the one that is not used",
                from.display()
            );
        }
        if is_plain(&name) {
            listed.push((name, from));
        } else if name.ends_with(".sqlite") && name != DATABASE {
            databases += 1;
            let to = staging.0.join(format!("{databases}.sqlite"));
            copy_sqlite(&from, &to).await?;
            listed.push((name, to));
        }
    }
    let store = crate::api::open::store(config).await?;
    let to = staging.0.join("directory.sqlite");
    store
        .write_copy(&to)
        .await
        .context("the directory can't be copied")?;
    store.close().await;
    listed.push((DATABASE.to_owned(), to));

    let whole = staging.0.join("backup.tar");
    let (listed, target) = (listed, file.to_owned());
    tokio::task::spawn_blocking(move || {
        write_archive(&whole, &listed)?;
        if target.exists() {
            bail!("{} is there already", target.display());
        }
        fs::rename(&whole, &target).with_context(|| format!("can't write {}", target.display()))
    })
    .await??;
    println!("备份完成 Backed up: {}", file.display());
    Ok(())
}

fn write_archive(whole: &Path, listed: &[(String, PathBuf)]) -> anyhow::Result<()> {
    let mut opened = Vec::with_capacity(listed.len());
    let mut manifest = Manifest {
        version: VERSION,
        terrace: env!("CARGO_PKG_VERSION").to_owned(),
        created_at: now_ms(),
        files: Vec::with_capacity(listed.len()),
    };
    for (path, from) in listed {
        let mut file =
            fs::File::open(from).with_context(|| format!("can't read {}", from.display()))?;
        let (length, sha256) = digest(&mut file)?;
        manifest.files.push(Listed {
            path: path.clone(),
            length,
            sha256,
        });
        opened.push(file);
    }
    let mut archive = tar::Builder::new(create_private(whole)?);
    let text = serde_json::to_vec_pretty(&manifest)?;
    append(&mut archive, MANIFEST, text.len() as u64, &text[..])?;
    for (listed, mut file) in manifest.files.iter().zip(opened) {
        file.rewind()?;
        append(
            &mut archive,
            &listed.path,
            listed.length,
            file.take(listed.length),
        )?;
    }
    archive.into_inner()?.sync_all()?;
    Ok(())
}

fn append(
    archive: &mut tar::Builder<fs::File>,
    path: &str,
    length: u64,
    data: impl Read,
) -> anyhow::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(length);
    header.set_mode(0o600);
    header.set_mtime((now_ms() / 1000).max(0) as u64);
    archive.append_data(&mut header, path, data)?;
    Ok(())
}

/// A folder for what is only needed until the backup is whole.
struct Staging(PathBuf);

impl Staging {
    fn new(beside: &Path) -> anyhow::Result<Staging> {
        let folder = beside.join(format!(".terrace-backup-{}", uuid::Uuid::now_v7().simple()));
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        {
            use std::os::unix::fs::DirBuilderExt as _;
            builder.mode(0o700);
        }
        builder
            .create(&folder)
            .with_context(|| format!("can't write into {}", beside.display()))?;
        Ok(Staging(folder))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Puts a backup into a data folder that is empty, and checks the audit log in it.
pub(crate) async fn restore(config: &Config, file: &Path) -> anyhow::Result<()> {
    let folder = config.data_dir.clone();
    crate::serve::prepare_data_dir(&folder)?;
    if !files_under(&folder)?.is_empty() {
        bail!(
            "the data folder {} is not empty: nothing is restored over anything. Move what is in it elsewhere",
            folder.display()
        );
    }
    let archive = file.to_owned();
    let target = folder.clone();
    tokio::task::spawn_blocking(move || {
        extract(&archive, &target).inspect_err(|_| {
            // Half a folder would be taken for a whole one.
            for file in files_under(&target).unwrap_or_default() {
                let _ = fs::remove_file(target.join(file));
            }
        })
    })
    .await??;
    let store = Store::open(&Location::Sqlite(folder.join(DATABASE))).await?;
    let mut random = rand::rngs::StdRng::from_os_rng();
    let now = directory::Timestamp::from_millis(now_ms());
    let directory = Directory::new(store, now, &mut random).await?;
    let heads = crate::admin::all_heads(&directory).await?;
    let trusted = match fs::read(folder.join(AUDIT_KEY)) {
        Ok(seed) => {
            let seed: [u8; 32] = seed
                .try_into()
                .map_err(|_| anyhow::anyhow!("{AUDIT_KEY} is damaged"))?;
            vec![HeadKey::from_seed(&seed).public()]
        }
        Err(_) => Vec::new(),
    };
    let report = directory.verify_audit(&heads, &trusted).await?;
    directory.close().await;
    println!("已恢复 Restored: {}", folder.display());
    crate::admin::tell(&report);
    if config.directory.postgres.is_some() {
        println!(
            "directory.postgres is set: run `terrace admin move-to-postgres` before you start the server."
        );
    }
    if report.findings.is_empty() {
        Ok(())
    } else {
        bail!("the audit log that was restored is not whole")
    }
}

/// The path of an entry, if it stays in the folder.
fn safe(path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    let is_safe = path.components().count() > 0
        && path.components().count() <= DEPTH + 1
        && path
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
    is_safe.then(|| path.to_owned())
}

fn extract(file: &Path, folder: &Path) -> anyhow::Result<()> {
    let damaged = || format!("{} is no backup, or is damaged", file.display());
    let opened = fs::File::open(file).with_context(|| format!("can't read {}", file.display()))?;
    let mut archive = tar::Archive::new(std::io::BufReader::new(opened));
    let mut entries = archive.entries().with_context(damaged)?;
    let first = entries
        .next()
        .with_context(damaged)?
        .with_context(damaged)?;
    if first.path().with_context(damaged)? != Path::new(MANIFEST) {
        bail!("{}", damaged());
    }
    let manifest: Manifest =
        serde_json::from_reader(first.take(MANIFEST_BOUND)).with_context(damaged)?;
    if manifest.version != VERSION {
        bail!(
            "{} was written by Terrace {}, in a form that this program does not know: restore it with that one",
            file.display(),
            manifest.terrace
        );
    }
    if manifest.files.len() > FILES {
        bail!("{}", damaged());
    }
    for listed in &manifest.files {
        let path = safe(&listed.path).with_context(damaged)?;
        let entry = entries
            .next()
            .with_context(damaged)?
            .with_context(damaged)?;
        let is_it = entry.path().with_context(damaged)? == path && entry.size() == listed.length;
        if !is_it || !entry.header().entry_type().is_file() {
            bail!("{}", damaged());
        }
        let target = folder.join(&path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut written =
            create_private(&target).with_context(|| format!("can't write {}", target.display()))?;
        std::io::copy(&mut entry.take(listed.length), &mut written).with_context(damaged)?;
        written.flush()?;
        written.sync_all()?;
        let (length, sha256) = digest(&mut fs::File::open(&target)?)?;
        if (length, &sha256) != (listed.length, &listed.sha256) {
            bail!("{}: {} is not what was backed up", damaged(), listed.path);
        }
    }
    if entries.next().is_some() {
        bail!("{}", damaged());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::open::open;
    use crate::meetings::Meetings;

    fn at(folder: &Path) -> Config {
        let mut config = Config::defaults(true);
        config.data_dir = folder.to_owned();
        config
    }

    /// A deployment that runs, and a backup of it.
    async fn backed_up(folder: &Path, config: &Config) -> PathBuf {
        crate::serve::prepare_data_dir(&config.data_dir).unwrap();
        let (api, _) = open(config, true).await.unwrap();
        crate::api::set_up_for_tests(&api).await;
        let meetings = Meetings::open(&config.data_dir).await.unwrap();
        meetings.create("例会", None).await.unwrap();
        let file = folder.join("terrace.backup");
        backup(config, &file).await.unwrap();
        api.directory.close().await;
        file
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_backup_of_either_engine_is_restored_on_an_empty_machine() {
        directory::testing::on_both(|location| async move {
            let folder = tempfile::tempdir().unwrap();
            let mut config = at(&folder.path().join("data"));
            if let Location::Postgres(url) = location {
                config.directory.postgres = Some(crate::config::PostgresUrl(url));
            }
            let file = backed_up(folder.path(), &config).await;
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
            assert_eq!(left.len(), 2, "nothing is left beside: {left:?}");
            assert!(
                backup(&config, &file).await.is_err(),
                "nothing is overwritten"
            );

            let other = at(&folder.path().join("other"));
            restore(&other, &file).await.unwrap();
            assert!(
                restore(&other, &file).await.is_err(),
                "nothing is restored over anything"
            );
            let (api, _) = open(&other, true).await.unwrap();
            assert!(api.setup_code().is_none(), "people are there");
            api.directory.close().await;
            let meetings = Meetings::open(&other.data_dir).await.unwrap();
            assert_eq!(meetings.list().await.unwrap().len(), 1);
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_backup_that_was_touched_is_not_restored_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let config = at(&folder.path().join("data"));
        let file = backed_up(folder.path(), &config).await;
        let whole = fs::read(&file).unwrap();
        let other = at(&folder.path().join("other"));
        let cut = folder.path().join("cut");
        let mut attempts: Vec<Vec<u8>> = vec![b"x".to_vec(), Vec::new()];
        for part in [4, 2] {
            attempts.push(whole[..whole.len() / part].to_vec());
        }
        // Whatever is not padding.
        for at in (0..whole.len()).step_by(whole.len() / 40) {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            if changed[at] != 0 && changed[at] != 1 {
                attempts.push(changed);
            }
        }
        for (number, attempt) in attempts.iter().enumerate() {
            fs::write(&cut, attempt).unwrap();
            let outcome = restore(&other, &cut).await;
            if outcome.is_err() {
                assert_eq!(files_under(&other.data_dir).unwrap(), Vec::<PathBuf>::new());
            } else {
                // What is between entries means nothing.
                let found = fs::read(other.data_dir.join("vault.key")).unwrap();
                assert_eq!(
                    found,
                    fs::read(config.data_dir.join("vault.key")).unwrap(),
                    "{number}"
                );
                fs::remove_dir_all(&other.data_dir).unwrap();
            }
        }
    }

    #[test]
    fn no_entry_leaves_the_folder() {
        for path in ["", "/etc/passwd", "../x", "a/../../x", "./x", "a//../x"] {
            assert_eq!(safe(path), None, "{path}");
        }
        assert!(safe("node/outbox.key").is_some());
    }
}
