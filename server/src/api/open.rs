//! Opens the directory when the server starts: the database, the keys beside it, the list of breached passwords; and
//! signs the audit log's head while the server runs.

use std::collections::HashMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, bail};
use directory::Directory;
use directory::audit::HeadKey;
use directory::sign_in::{BreachedPasswords, Hashing, Passkeys, SessionLimits, SignIn, Vault};
use directory::store::{Location, Store, StoreError};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::{Semaphore, watch};

use super::extract::now;
use super::setup::SetupCode;
use super::{Api, IMPORTS_AT_ONCE};
use crate::config::{Config, TlsMode, check_private};
use crate::guesses::Guesses;

/// The directory's SQLite file in the data folder.
pub(crate) const DATABASE: &str = "directory.sqlite";
/// The key under which secrets lie in the database.
const VAULT_KEY: &str = "vault.key";
/// The seed of the key that signs the audit log's head.
pub(crate) const AUDIT_KEY: &str = "audit.key";

/// Locked by the server that runs on the data folder.
const LOCK: &str = "directory.lock";

/// How often the audit log's head is signed. What was written since the last head that somebody else holds can be
/// written anew unseen; more often would be more heads to hold.
const SIGN_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// The largest list of breached passwords, in bytes.
const BREACHED_BOUND: u64 = 256 << 20;

/// What authenticator apps and browsers call this deployment.
pub(crate) const SHOWN: &str = "梯田视联";

/// Where the directory is.
pub(crate) fn location(config: &Config) -> Location {
    match &config.directory.postgres {
        Some(url) => Location::Postgres(url.0.clone()),
        None => Location::Sqlite(config.data_dir.join(DATABASE)),
    }
}

/// Opens the database alone.
pub(crate) async fn store(config: &Config) -> anyhow::Result<Store> {
    let location = location(config);
    if let Location::Sqlite(file) = &location
        && !file.exists()
    {
        // SQLite gives its other files the same permissions.
        crate::tls::write_private(file, b"")?;
    }
    Store::open(&location).await.map_err(|error| {
        let what = match &location {
            Location::Sqlite(file) => format!("the directory's database {}", file.display()),
            Location::Postgres(_) => "the directory's database at directory.postgres".to_owned(),
        };
        match error {
            StoreError::Other(cause) => {
                anyhow::anyhow!("{what} can't be opened: {cause}")
            }
            error => anyhow::anyhow!("{what} can't be opened: {error}"),
        }
    })
}

/// Holds the data folder for one server, or one command that must not run beside it. Given back when it is dropped, and
/// by the system when the process ends however it ends.
pub(crate) fn lock(folder: &Path) -> anyhow::Result<fs::File> {
    let file = folder.join(LOCK);
    let opened = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&file)
        .with_context(|| format!("can't write {}", file.display()))?;
    match opened.try_lock() {
        Ok(()) => Ok(opened),
        Err(fs::TryLockError::WouldBlock) => bail!(
            "another server is running on the data folder {}: stop it first",
            folder.display()
        ),
        Err(fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("can't lock {}", file.display()))
        }
    }
}

/// A key of 32 bytes in the data folder, made where that may be.
fn key(folder: &Path, name: &str, may_make: bool) -> anyhow::Result<[u8; 32]> {
    let file = folder.join(name);
    match fs::read(&file) {
        Ok(bytes) => {
            check_private(&file, "the key")?;
            bytes.try_into().map_err(|_| {
                anyhow::anyhow!(
                    "{} is damaged: it must have 32 bytes. Restore it from a backup",
                    file.display()
                )
            })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && may_make => {
            let key = Vault::draw_key(&mut StdRng::from_os_rng());
            crate::tls::write_private(&file, &key)?;
            Ok(key)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
            "{} is missing, and the directory is in use: without it nobody's second factor can be checked, or the audit \
             log's heads can't be told from others. Restore it from a backup",
            file.display()
        ),
        Err(error) => Err(error).with_context(|| format!("can't read {}", file.display())),
    }
}

/// The key that signs heads, of a deployment that is in use.
pub(crate) fn head_key(folder: &Path) -> anyhow::Result<HeadKey> {
    Ok(HeadKey::from_seed(&key(folder, AUDIT_KEY, false)?))
}

fn breached(file: &Path) -> anyhow::Result<BreachedPasswords> {
    let about = || {
        format!(
            "directory.breached_passwords {} can't be read",
            file.display()
        )
    };
    let opened = fs::File::open(file).with_context(about)?;
    let mut bytes = Vec::new();
    let mut bounded = opened.take(BREACHED_BOUND + 1);
    bounded.read_to_end(&mut bytes).with_context(about)?;
    BreachedPasswords::read(&bytes).with_context(about)
}

/// Passkeys, where the address that people use has a domain name.
fn passkeys(config: &Config, is_dev: bool) -> Option<Passkeys> {
    let url = match &config.public_url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None if is_dev => format!("http://localhost:{}", config.http.listen.port()),
        None => return None,
    };
    let rest = url.split_once("://")?.1;
    let host = rest.split(['/', '?', '#']).next()?;
    let domain = match host.rsplit_once(':') {
        Some((domain, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => domain,
        _ => host,
    };
    // One that is an IP address has none.
    Passkeys::new(domain, &url, SHOWN).ok()
}

/// Opens everything. What is asked for by `[directory]` and can't be had stops the server.
pub(crate) async fn open(config: &Config, is_dev: bool) -> anyhow::Result<(Arc<Api>, HeadKey)> {
    open_with(config, is_dev, Hashing::default()).await
}

/// The same with what hashing a password costs.
pub(super) async fn open_with(
    config: &Config,
    is_dev: bool,
    hashing: Hashing,
) -> anyhow::Result<(Arc<Api>, HeadKey)> {
    let store = store(config).await?;
    let mut random = StdRng::from_os_rng();
    let directory = Directory::new(store, now(), &mut random).await?;
    let is_empty = directory.is_empty().await?;
    if is_empty && config.directory.postgres.is_some() && config.data_dir.join(DATABASE).exists() {
        directory.close().await;
        bail!(
            "directory.postgres is empty, and {DATABASE} is in the data folder: move it with `terrace admin \
             move-to-postgres`, or delete it if nobody is in it"
        );
    }
    let vault = Vault::new(&key(&config.data_dir, VAULT_KEY, is_empty)?);
    let head = HeadKey::from_seed(&key(&config.data_dir, AUDIT_KEY, is_empty)?);
    let list = match &config.directory.breached_passwords {
        Some(file) => breached(file)?,
        None => BreachedPasswords::default(),
    };
    let limits = SessionLimits {
        idle: Duration::from_secs(60 * u64::from(config.directory.session_idle_minutes)),
        absolute: Duration::from_secs(3600 * u64::from(config.directory.session_hours)),
    };
    let passkeys = passkeys(config, is_dev);
    if passkeys.is_none() {
        tracing::info!(
            "no passkeys: they need a domain name. Set public_url to an address with one; until then one-time passwords \
             are the second factor"
        );
    }
    let sign_in = SignIn::new(directory.clone(), vault, list, passkeys, hashing);
    let api = Api {
        directory,
        sign_in: sign_in.with_limits(limits),
        is_secure: config.tls.mode != TlsMode::Off || config.http.behind_proxy,
        url: config.public_url(),
        setup: Mutex::new(is_empty.then(|| SetupCode::draw(&mut random))),
        guesses: Guesses::default(),
        imports: Arc::new(Semaphore::new(IMPORTS_AT_ONCE)),
        streams: Arc::new(Mutex::new(HashMap::new())),
        ending: watch::Sender::new(false),
    };
    Ok((Arc::new(api), head))
}

/// Waits until the server is about to end.
pub(super) async fn ended(ending: &mut watch::Receiver<bool>) {
    let _ = ending.wait_for(|is_ending| *is_ending).await;
}

/// Signs where the audit log ends, every few minutes and when the server ends.
pub(crate) async fn sign_heads(api: Arc<Api>, key: HeadKey) {
    let mut ending = api.ending.subscribe();
    let mut interval = tokio::time::interval(SIGN_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut signed = None;
    loop {
        let is_ending = tokio::select! {
            _ = interval.tick() => false,
            () = ended(&mut ending) => true,
        };
        match sign_head(&api.directory, &key, signed).await {
            Ok(sequence) => signed = Some(sequence),
            Err(error) => tracing::error!(
                %error,
                "the audit log's head could not be signed: check the directory's disk or server"
            ),
        }
        if is_ending {
            return;
        }
    }
}

/// Signs the head, unless nothing was written since.
async fn sign_head(
    directory: &Directory,
    key: &HeadKey,
    signed: Option<u64>,
) -> Result<u64, StoreError> {
    let end = directory.audit_end().await?;
    if signed == Some(end) {
        return Ok(end);
    }
    let head = directory.sign_audit_head(key, now()).await?;
    // Who keeps the machine's log elsewhere holds the heads there.
    tracing::info!(
        log = %head.log,
        sequence = head.sequence,
        hash = head.hash,
        at = head.at.as_millis(),
        key = head.key.as_str(),
        signature = head.signature,
        "audit head"
    );
    Ok(head.sequence)
}

/// What is wrong with the settings of the directory.
pub(crate) fn faults(config: &Config, is_dev: bool) -> Vec<String> {
    let mut faults = Vec::new();
    let directory = &config.directory;
    if let Some(url) = &directory.postgres {
        match url.faults() {
            Ok(Some(fault)) if !is_dev => faults.push(fault),
            Ok(_) => {}
            Err(fault) => faults.push(fault),
        }
    }
    if let Some(file) = &directory.breached_passwords
        && let Err(error) = fs::File::open(file)
    {
        let file = file.display();
        faults.push(format!("directory.breached_passwords {file}: {error}"));
    }
    if !(1..=120).contains(&directory.session_idle_minutes) {
        faults.push(
            "directory.session_idle_minutes: 1 to 120. Who walks away from a desk must not stay signed in."
                .to_owned(),
        );
    }
    if !(1..=24).contains(&directory.session_hours) {
        faults.push("directory.session_hours: 1 to 24.".to_owned());
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(folder: &Path) -> Config {
        let mut config = Config::defaults(false);
        config.data_dir = folder.to_owned();
        config
    }

    #[tokio::test]
    async fn keys_are_made_at_first_start_are_private_and_must_not_be_lost() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let config = at(folder.path());
        let (api, head) = open(&config, false).await.unwrap();
        assert!(api.setup.lock().unwrap().is_some());
        for name in [DATABASE, VAULT_KEY, AUDIT_KEY] {
            let mode = fs::metadata(folder.path().join(name))
                .unwrap()
                .permissions();
            assert_eq!(mode.mode() & 0o777, 0o600, "{name}");
        }
        super::super::tests::set_up(&api).await;
        api.directory.close().await;
        let (api, again) = open(&config, false).await.unwrap();
        assert_eq!(again.public(), head.public());
        assert!(api.setup.lock().unwrap().is_none(), "it is set up");
        api.directory.close().await;
        for name in [VAULT_KEY, AUDIT_KEY] {
            let file = folder.path().join(name);
            let kept = fs::read(&file).unwrap();
            fs::remove_file(&file).unwrap();
            let error = open(&config, false).await.err().unwrap().to_string();
            assert!(error.contains(name) && error.contains("backup"), "{error}");
            fs::write(&file, &kept[..31]).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            let error = open(&config, false).await.err().unwrap().to_string();
            assert!(error.contains("32 bytes"), "{error}");
            fs::write(&file, &kept).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
            assert!(open(&config, false).await.is_err(), "anybody can read it");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        }
        open(&config, false).await.unwrap();
    }

    #[tokio::test]
    async fn the_head_is_signed_when_something_was_written_and_when_the_server_ends() {
        let folder = tempfile::tempdir().unwrap();
        let (api, head) = open(&at(folder.path()), false).await.unwrap();
        let public = head.public();
        super::super::tests::set_up(&api).await;
        api.ending.send_replace(true);
        sign_heads(api.clone(), head).await;
        let heads = api
            .directory
            .audit_heads(directory::Timestamp::from_millis(0));
        let heads = heads.await.unwrap();
        let last = heads.last().unwrap();
        assert_eq!(last.sequence, api.directory.audit_end().await.unwrap());
        let report = api.directory.verify_audit(&heads, &[public]).await.unwrap();
        assert_eq!((report.proven_to, report.findings), (last.sequence, vec![]));
    }

    #[test]
    fn insecure_settings_of_the_directory_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let with = |change: fn(&mut crate::config::DirectorySettings)| {
            let mut config = at(folder.path());
            change(&mut config.directory);
            faults(&config, false).join(" ")
        };
        assert_eq!(with(|_| {}), "");
        let postgres = |url: &str| {
            let mut config = at(folder.path());
            config.directory.postgres = Some(crate::config::PostgresUrl(url.to_owned()));
            faults(&config, false).join(" ")
        };
        for good in [
            "postgres://terrace@localhost/terrace",
            "postgres://terrace@127.0.0.1:5433/terrace?sslmode=disable",
            "postgres://terrace@localhost/terrace?host=/run/postgresql",
            "postgres://terrace:geheim@db.example/terrace?sslmode=verify-full",
        ] {
            assert_eq!(postgres(good), "", "{good}");
        }
        for bad in [
            "postgres://terrace:geheim@db.example/terrace",
            "postgres://terrace:geheim@db.example/terrace?sslmode=require",
            "postgres://terrace:geheim@db.example/terrace?sslmode=prefer",
            "mysql://terrace@localhost/terrace",
            "terrace",
        ] {
            let told = postgres(bad);
            assert!(told.contains("directory.postgres"), "{bad}: {told}");
            assert!(!told.contains("geheim"), "{told}");
        }
        assert!(with(|d| d.session_idle_minutes = 0).contains("session_idle_minutes"));
        assert!(with(|d| d.session_idle_minutes = 600).contains("session_idle_minutes"));
        assert!(with(|d| d.session_hours = 48).contains("session_hours"));
        assert!(
            with(|d| d.breached_passwords = Some("/nowhere".into())).contains("breached_passwords")
        );
    }
}
