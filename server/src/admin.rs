//! What an operator does to the directory at the machine: reading the audit log through, and moving to PostgreSQL.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use directory::audit::{BadHead, Finding, PublicKey, RangeEnds, Report, SignedHead};
use directory::store::{CopyError, Location, Store};
use directory::{Directory, Timestamp};
use rand::SeedableRng as _;

use crate::api::open::{self, DATABASE};
use crate::config::Config;
use crate::meetings::now_ms;

/// What the file that was moved is called from then on.
const MOVED: &str = "directory-moved";

/// How large a file of heads may be, in bytes: those of thirty years.
const HEADS_BOUND: u64 = 1 << 30;

/// All heads that lie beside the log.
pub(crate) async fn all_heads(directory: &Directory) -> anyhow::Result<Vec<SignedHead>> {
    let mut heads: Vec<SignedHead> = Vec::new();
    loop {
        let after = heads
            .last()
            .map_or(Timestamp::from_millis(i64::MIN), |last| last.at);
        let more = directory.audit_heads(after).await?;
        if more.is_empty() {
            return Ok(heads);
        }
        heads.extend(more);
    }
}

/// Reads heads that somebody has kept: a JSON array as `/api` gives it, or an object in each line.
fn read_heads(file: &Path) -> anyhow::Result<Vec<SignedHead>> {
    let about = || format!("{} can't be read as heads", file.display());
    if fs::metadata(file).with_context(about)?.len() > HEADS_BOUND {
        bail!("{} is too large", file.display());
    }
    let text = fs::read_to_string(file).with_context(about)?;
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(&text).with_context(about);
    }
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| serde_json::from_str(line).with_context(about))
        .collect()
}

/// Reads the whole log through, and compares it with the heads that others hold.
pub(crate) async fn verify_audit(
    config: &Config,
    files: &[PathBuf],
    trust: &[String],
) -> anyhow::Result<()> {
    let directory = opened(open::store(config).await?).await?;
    let mut heads = all_heads(&directory).await?;
    for file in files {
        heads.extend(read_heads(file)?);
    }
    let mut trusted = vec![open::head_key(&config.data_dir)?.public()];
    trusted.extend(trust.iter().cloned().map(PublicKey::from_text));
    let report = directory.verify_audit(&heads, &trusted).await?;
    directory.close().await;
    tell(&report);
    if files.is_empty() {
        println!(
            "只与本机保存的签名比对;能改动整个数据库的人也能改动它们。请用 --heads 加上审计员另存的签名。\n\
             Compared with the heads of this machine only, which whoever can change the database can change too: name \
             those that an auditor has kept with --heads."
        );
    }
    if report.findings.is_empty() {
        Ok(())
    } else {
        bail!(
            "the audit log is not what it was: {} findings",
            report.findings.len()
        )
    }
}

async fn opened(store: Store) -> anyhow::Result<Directory> {
    let mut random = rand::rngs::StdRng::from_os_rng();
    let now = Timestamp::from_millis(now_ms());
    Ok(Directory::new(store, now, &mut random).await?)
}

/// Prints what was found.
pub(crate) fn tell(report: &Report) {
    println!(
        "审计日志 Audit log: {} 条 entries, 签名证明至 proven by a signed head to {}",
        report.entries, report.proven_to
    );
    for finding in &report.findings {
        println!("- {}", words(finding));
    }
    if report.findings.is_empty() {
        println!("没有发现改动 Nothing was found.");
    }
}

fn range(range: &RangeEnds) -> String {
    match range.first == range.last {
        true => format!("{}", range.first),
        false => format!("{}–{}", range.first, range.last),
    }
}

fn words(finding: &Finding) -> String {
    match finding {
        Finding::Removed(ends) => format!("缺少 missing: {}", range(ends)),
        Finding::Changed(number) => format!("被改动 changed: {number}"),
        Finding::Reordered { now, was } => {
            format!("被移动 moved: {now} 原为 was {was}")
        }
        Finding::CutOff { last, known } => {
            format!("尾部被截断 cut off: 止于 ends at {last}, 曾有 had {known}")
        }
        Finding::Rewritten(ends) => format!("被重写 written anew: {}", range(ends)),
        Finding::BadHead(number, why) => {
            let why = match why {
                BadHead::UnknownKey => "未知的密钥 unknown key",
                BadHead::WrongSignature => "签名错误 wrong signature",
                BadHead::AnotherLog => "另一日志的签名 of another log",
            };
            format!("签名无效 head of {number}: {why}")
        }
        Finding::HeadsDisagree(number) => {
            format!("签名互相矛盾 heads contradict each other: {number}")
        }
    }
}

/// Moves the directory from its file in the data folder into the PostgreSQL database that the configuration names.
pub(crate) async fn move_to_postgres(config: &Config) -> anyhow::Result<()> {
    let Some(_) = &config.directory.postgres else {
        bail!("set directory.postgres in the configuration to where the directory shall be");
    };
    let folder = &config.data_dir;
    let file = folder.join(DATABASE);
    if !file.is_file() {
        bail!("{} is not there: nothing to move", file.display());
    }
    let lock = open::lock(folder)?;
    let from = Store::open(&Location::Sqlite(file.clone())).await?;
    let to = open::store(config).await?;
    directory::store::copy(&from, &to).await.map_err(|error| match error {
        CopyError::NotEmpty => anyhow::anyhow!(
            "the database at directory.postgres holds a directory already: name one that is empty"
        ),
        error => anyhow::Error::new(error).context("nothing was moved"),
    })?;
    from.close().await;
    let directory = opened(to).await?;
    let heads = all_heads(&directory).await?;
    let trusted = [open::head_key(folder)?.public()];
    let report = directory.verify_audit(&heads, &trusted).await?;
    directory.close().await;
    tell(&report);
    if !report.findings.is_empty() {
        bail!(
            "the audit log is not what it was, and was not before either; {} is left as it is",
            file.display()
        );
    }
    for ending in ["", "-wal", "-shm"] {
        let from = folder.join(format!("{DATABASE}{ending}"));
        if from.exists() {
            fs::rename(&from, folder.join(format!("{MOVED}.sqlite{ending}")))?;
        }
    }
    drop(lock);
    println!(
        "已移至 PostgreSQL,原文件改名为 {MOVED}.sqlite。\nMoved to PostgreSQL; the file is called {MOVED}.sqlite now."
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PostgresUrl;

    async fn in_use(folder: &Path) -> Config {
        let mut config = Config::defaults(true);
        config.data_dir = folder.to_owned();
        let (api, head) = open::open(&config, true).await.unwrap();
        crate::api::set_up_for_tests(&api).await;
        let now = Timestamp::from_millis(now_ms());
        api.directory.sign_audit_head(&head, now).await.unwrap();
        api.directory.close().await;
        config
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_directory_is_moved_to_postgres_once_and_while_no_server_runs() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = in_use(folder.path()).await;
        assert!(
            move_to_postgres(&config).await.is_err(),
            "it is not said where to"
        );
        let Location::Postgres(url) = directory::testing::postgres_database().await else {
            panic!("it is a server");
        };
        config.directory.postgres = Some(PostgresUrl(url));
        let error = open::open(&config, true).await.err().unwrap().to_string();
        assert!(error.contains("move-to-postgres"), "{error}");
        let lock = open::lock(folder.path()).unwrap();
        let error = move_to_postgres(&config).await.unwrap_err().to_string();
        assert!(error.contains("running"), "{error}");
        drop(lock);
        move_to_postgres(&config).await.unwrap();
        let (api, _) = open::open(&config, true).await.unwrap();
        assert!(api.setup_code().is_none(), "people are there");
        api.directory.close().await;
        assert!(!folder.path().join(DATABASE).exists());
        assert!(move_to_postgres(&config).await.is_err(), "it is moved once");
        verify_audit(&config, &[], &[]).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_log_that_was_cut_is_found_by_the_heads_that_somebody_has_kept() {
        let folder = tempfile::tempdir().unwrap();
        let config = in_use(folder.path()).await;
        let directory = opened(open::store(&config).await.unwrap()).await.unwrap();
        let heads = all_heads(&directory).await.unwrap();
        directory.close().await;
        let kept = folder.path().join("heads.jsonl");
        let lines: Vec<String> = heads
            .iter()
            .map(|head| serde_json::to_string(head).unwrap())
            .collect();
        fs::write(&kept, lines.join("\n")).unwrap();
        verify_audit(&config, std::slice::from_ref(&kept), &[])
            .await
            .unwrap();
        // Whoever has the whole file takes the last entry away, and all that tells of it.
        let options =
            sqlx::sqlite::SqliteConnectOptions::new().filename(folder.path().join(DATABASE));
        let mut connection = <sqlx::SqliteConnection as sqlx::Connection>::connect_with(&options)
            .await
            .unwrap();
        let cut = "DROP TRIGGER audit_entries_are_kept; DELETE FROM audit_heads; \
                   DELETE FROM audit_entries WHERE sequence = (SELECT last_sequence FROM audit_log); \
                   UPDATE audit_log SET last_sequence = last_sequence - 1, last_hash = (SELECT hash \
                   FROM audit_entries ORDER BY sequence DESC LIMIT 1)";
        sqlx::raw_sql(cut).execute(&mut connection).await.unwrap();
        sqlx::Connection::close(connection).await.unwrap();
        verify_audit(&config, &[], &[]).await.unwrap();
        let found = verify_audit(&config, std::slice::from_ref(&kept), &[]).await;
        assert!(
            found.unwrap_err().to_string().contains("findings"),
            "found by the kept head"
        );
        fs::write(&kept, "{}").unwrap();
        assert!(
            verify_audit(&config, &[kept], &[]).await.is_err(),
            "it is no head"
        );
    }
}
