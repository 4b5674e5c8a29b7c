//! The certificate: from files, or made on first run for trying on a local network.

use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::Path;

use anyhow::Context as _;
use axum_server::tls_rustls::RustlsConfig;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

use crate::config::{Config, TlsMode, host_name};

/// How long a self-made certificate is valid. Systems refuse server certificates that live longer
/// than 825 days.
const VALIDITY: time::Duration = time::Duration::days(820);

/// What is served over TLS, with words for the person who starts the server.
pub(crate) struct Served {
    /// For the listener.
    pub(crate) config: RustlsConfig,
    /// How to get a browser to accept it; empty for a certificate from files.
    pub(crate) words: String,
}

/// For writing a new file that only its owner may read.
pub(crate) fn private() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options
}

/// Writes a file that only its owner may read; the write is whole or not at all.
pub(crate) fn write_private(file: &Path, contents: &[u8]) -> anyhow::Result<()> {
    let beside = file.with_extension("new");
    let mut opened = private()
        .create(true)
        .truncate(true)
        .open(&beside)
        .with_context(|| format!("can't write {}", beside.display()))?;
    opened.write_all(contents)?;
    opened.sync_all()?;
    fs::rename(&beside, file).with_context(|| format!("can't write {}", file.display()))
}

/// The certificate that the configuration calls for. `addresses` are this machine's.
pub(crate) async fn load(config: &Config, addresses: &[IpAddr]) -> anyhow::Result<Option<Served>> {
    match config.tls.mode {
        TlsMode::Off => Ok(None),
        TlsMode::Files => {
            let (certificate, key) = config
                .tls
                .certificate
                .as_ref()
                .zip(config.tls.key.as_ref())
                .context("tls.certificate and tls.key are needed")?;
            let config = RustlsConfig::from_pem_file(certificate, key)
                .await
                .context("the certificate or its key can't be used")?;
            Ok(Some(Served {
                config,
                words: String::new(),
            }))
        }
        TlsMode::SelfMade => {
            let (certificate, key) = self_made(config, addresses)?;
            let fingerprint = fingerprint(&certificate)?;
            let served = RustlsConfig::from_pem(certificate.into_bytes(), key.into_bytes()).await?;
            let url = config.public_url();
            let words = format!(
                "自签证书 / self-made certificate\n  \
                 打开 {url} 时,浏览器会提示连接不安全。请点“高级”→“继续访问”(Firefox:“接受风险并继续”),\n  \
                 并核对证书的 SHA-256 指纹:\n  \
                 Browsers will warn at {url}. Choose \"Advanced\", then \"Proceed\" (Firefox: \"Accept the \
                 Risk\"),\n  after comparing the certificate's SHA-256 fingerprint:\n  {fingerprint}"
            );
            Ok(Some(Served {
                config: served,
                words,
            }))
        }
    }
}

fn self_made(config: &Config, addresses: &[IpAddr]) -> anyhow::Result<(String, String)> {
    let certificate_file = config.data_dir.join("self-made-certificate.pem");
    let key_file = config.data_dir.join("self-made-key.pem");
    if let (Ok(certificate), Ok(key)) = (
        fs::read_to_string(&certificate_file),
        fs::read_to_string(&key_file),
    ) {
        crate::config::check_private(&key_file, "the self-made key")?;
        // Its age is the file's: people have accepted this certificate, so it is kept while it lasts.
        let age = fs::metadata(&certificate_file)?
            .modified()?
            .elapsed()
            .unwrap_or_default();
        if age < std::time::Duration::from_secs(VALIDITY.whole_seconds() as u64 / 100 * 95) {
            return Ok((certificate, key));
        }
    }
    let mut names = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    names.extend(host_name());
    names.extend(config.tls.names.iter().cloned());
    names.extend(addresses.iter().map(IpAddr::to_string));
    if let Some(url) = &config.public_url {
        let host = url.split("://").nth(1).unwrap_or_default();
        let host = host.split('/').next().unwrap_or_default();
        let host = match host.strip_prefix('[') {
            Some(v6) => v6.split(']').next().unwrap_or_default(),
            None => host.split(':').next().unwrap_or_default(),
        };
        names.extend((!host.is_empty()).then(|| host.to_owned()));
    }
    names.sort();
    names.dedup();
    let mut params = CertificateParams::new(names)
        .context("tls.names or the host's name can't stand in a certificate")?;
    let now = time::OffsetDateTime::now_utc();
    params.not_before = now - time::Duration::days(1);
    params.not_after = now + VALIDITY;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, "Terrace (self-made)");
    params.distinguished_name = name;
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?.pem();
    let key = key.serialize_pem();
    write_private(&key_file, key.as_bytes())?;
    write_private(&certificate_file, certificate.as_bytes())?;
    Ok((certificate, key))
}

fn fingerprint(pem: &str) -> anyhow::Result<String> {
    use base64::Engine as _;
    let body: String = pem
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    let der = base64::engine::general_purpose::STANDARD.decode(body)?;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der);
    let pairs: Vec<String> = digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    Ok(pairs.join(":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_self_made_certificate_is_kept_and_its_key_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::defaults(false);
        config.data_dir = folder.path().to_owned();
        config.public_url = Some("https://meet.example:7880/".into());
        let first = self_made(&config, &["192.0.2.7".parse().unwrap()]).unwrap();
        assert_eq!(self_made(&config, &[]).unwrap(), first);
        assert_eq!(fingerprint(&first.0).unwrap().len(), 32 * 3 - 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(folder.path().join("self-made-key.pem")).unwrap();
            assert_eq!(mode.permissions().mode() & 0o777, 0o600);
        }
    }
}
