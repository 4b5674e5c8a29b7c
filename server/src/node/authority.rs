//! The deployment's certificate authority, which the node without a parent holds.
//!
//! It says who a node is. Its key lies in a file that only the server's user may read, and leaves this
//! module for nothing but signing.

use std::path::Path;

use anyhow::{Context as _, bail};
use rand::RngCore as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams,
    CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ED25519, RevokedCertParams, SanType,
    SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use signaling::cascade::ConferenceId;
use signaling::token::{Claims, ConferenceGrant, DEPLOYMENT, VideoGrant, sign_for_deployment};
use time::{Duration, OffsetDateTime};

use super::certificate::{Certificate, HOSTS_BOUND, NODE_DOMAIN, Subject, is_host, node_host};
use crate::config::check_private;
use crate::meetings::read_name;
use crate::tls::write_private;

/// How long the authority's own certificate is valid.
const AUTHORITY_VALIDITY: Duration = Duration::days(20 * 365);

/// How long a node's certificate is valid. A node renews it when a third is left, so that it may be
/// cut off for a month.
pub(crate) const NODE_VALIDITY: Duration = Duration::days(90);

/// How much earlier than now validity begins, for clocks that are behind.
const CLOCK_SKEW: Duration = Duration::minutes(5);

/// The largest request for a certificate, in bytes.
const REQUEST_BOUND: usize = 4096;

/// The certificate authority with its key.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

/// The authority's certificate in a node's folder.
pub(crate) fn certificate_file(folder: &Path) -> std::path::PathBuf {
    folder.join("authority.pem")
}

fn key_file(folder: &Path) -> std::path::PathBuf {
    folder.join("authority-key.pem")
}

impl Authority {
    /// The authority in this folder; `None` if this node holds none.
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Option<Authority>> {
        let file = key_file(folder);
        if !file.exists() {
            return Ok(None);
        }
        check_private(&file, "the key of the certificate authority")?;
        let key = KeyPair::from_pem(&std::fs::read_to_string(&file)?)
            .with_context(|| format!("{} is damaged", file.display()))?;
        let file = certificate_file(folder);
        let pem = std::fs::read_to_string(&file)
            .with_context(|| format!("{} can't be read", file.display()))?;
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .with_context(|| format!("{} is damaged", file.display()))?;
        Ok(Some(Authority {
            issuer: Issuer::from_ca_cert_pem(&pem, key)?,
            certificate,
        }))
    }

    /// Makes one, and keeps it in this folder.
    pub(crate) fn make(folder: &Path, now: OffsetDateTime) -> anyhow::Result<Authority> {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, "Terrace");
        params.distinguished_name = name;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = now - CLOCK_SKEW;
        params.not_after = now + AUTHORITY_VALIDITY;
        params.serial_number = Some(new_serial());
        let certificate = params.self_signed(&key)?;
        write_private(&certificate_file(folder), certificate.pem().as_bytes())?;
        write_private(&key_file(folder), key.serialize_pem().as_bytes())?;
        Ok(Authority {
            certificate: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        })
    }

    /// Its certificate, which all nodes of the deployment trust.
    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Certifies the key in a request (PKCS #10, as PEM), whose signature shows that the sender has it.
    /// Of what else the request says nothing is taken.
    pub(crate) fn issue(
        &self,
        request: &str,
        subject: &Subject,
        now: OffsetDateTime,
    ) -> anyhow::Result<Certificate> {
        if request.len() > REQUEST_BOUND {
            bail!("a request for a certificate that is too long");
        }
        let request = CertificateSigningRequestParams::from_pem(request)
            .context("a request for a certificate that can't be read")?;
        if request.public_key.algorithm() != &PKCS_ED25519 {
            bail!("a request for a certificate with another key than Ed25519");
        }
        if read_name(&subject.name).as_ref() != Some(&subject.name) {
            bail!("a node's name has 1 to 64 characters and no control characters");
        }
        if subject.hosts.len() > HOSTS_BOUND {
            bail!("a node has at most {HOSTS_BOUND} names and addresses");
        }
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, subject.name.clone());
        params.distinguished_name = name;
        let own = node_host(subject.place.node);
        for host in subject.hosts.iter().chain([&own]) {
            if !is_host(host) || (host.ends_with(NODE_DOMAIN) && *host != own) {
                bail!("{host:?} is neither a host's name nor an address");
            }
            params.subject_alt_names.push(match host.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(host.as_str().try_into()?),
            });
        }
        for uri in subject.uris() {
            params.subject_alt_names.push(SanType::URI(uri.try_into()?));
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        params.not_before = now - CLOCK_SKEW;
        params.not_after = now + NODE_VALIDITY;
        params.serial_number = Some(new_serial());
        let certificate = params.signed_by(&request.public_key, &self.issuer)?;
        Ok(Certificate::read(certificate.der())?)
    }

    /// Makes a token for a conference of the deployment of these claims.
    pub(crate) fn sign_token(
        &self,
        conference: ConferenceId,
        grant: ConferenceGrant,
        claims: Claims,
    ) -> anyhow::Result<String> {
        let claims = Claims {
            iss: DEPLOYMENT.to_owned(),
            video: VideoGrant {
                room: conference.to_string(),
                ..claims.video
            },
            conference: Some(grant),
            ..claims
        };
        let key = self.issuer.key().serialize_der();
        Ok(sign_for_deployment(&claims, &key)?)
    }

    /// A signed list of the serial numbers that are revoked, with when, in seconds since 1970, as PEM.
    /// Higher numbers are later lists.
    pub(crate) fn revocations(
        &self,
        number: u64,
        revoked: &[(Vec<u8>, i64)],
        now: OffsetDateTime,
    ) -> anyhow::Result<String> {
        let revoked = revoked.iter().map(|(serial, at)| {
            anyhow::Ok(RevokedCertParams {
                serial_number: SerialNumber::from_slice(serial),
                revocation_time: OffsetDateTime::from_unix_timestamp(*at)?,
                reason_code: None,
                invalidity_date: None,
            })
        });
        let params = CertificateRevocationListParams {
            this_update: now - CLOCK_SKEW,
            // A branch that is cut off goes on with the list that it has.
            next_update: now + AUTHORITY_VALIDITY,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect::<anyhow::Result<_>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(params.signed_by(&self.issuer)?.pem()?)
    }
}

/// Sixteen random bytes that are a positive number without leading zeros (RFC 5280, section 4.1.2.2).
fn new_serial() -> SerialNumber {
    let mut bytes = [0; 16];
    rand::rng().fill_bytes(&mut bytes);
    bytes[0] = bytes[0] & 0x3f | 0x40;
    SerialNumber::from_slice(&bytes)
}

/// A new key of a node, with the request to certify it, as PEM.
pub(crate) fn new_request() -> anyhow::Result<(KeyPair, String)> {
    let key = KeyPair::generate_for(&PKCS_ED25519)?;
    let request = CertificateParams::default()
        .serialize_request(&key)?
        .pem()?;
    Ok((key, request))
}

#[cfg(test)]
mod tests {
    use signaling::cascade::{Level, NodeId, OrganisationId, Place};

    use super::*;

    fn subject() -> Subject {
        Subject {
            place: Place {
                node: NodeId(5),
                level: Level::County,
                organisation: OrganisationId(6),
            },
            name: "清原县".into(),
            parent: Some(NodeId(4)),
            hosts: vec![
                "county.example".into(),
                "10.1.2.3".into(),
                "2001:db8::1".into(),
            ],
        }
    }

    #[test]
    fn a_certificate_says_what_the_authority_says_and_nothing_that_the_node_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc();
        Authority::make(folder.path(), now).unwrap();
        let authority = Authority::open(folder.path()).unwrap().unwrap();
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut greedy = CertificateParams::new(vec!["province.example".to_owned()]).unwrap();
        greedy.is_ca = IsCa::NoCa;
        let request = greedy.serialize_request(&key).unwrap().pem().unwrap();
        let certificate = authority.issue(&request, &subject(), now).unwrap();
        assert_eq!(certificate.subject, subject());
        assert_eq!(
            Certificate::read_pem(&certificate.pem()).unwrap(),
            certificate
        );
        assert_eq!(certificate.key, rcgen::PublicKeyData::der_bytes(&key));
        assert!(certificate.is_valid(now.unix_timestamp()));
        assert!(!certificate.is_valid((now + NODE_VALIDITY).unix_timestamp()));
    }

    #[test]
    fn what_may_not_be_certified_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc();
        let authority = Authority::make(folder.path(), now).unwrap();
        let (_, request) = new_request().unwrap();
        let refused = |request: &str, change: &dyn Fn(&mut Subject)| {
            let mut subject = subject();
            change(&mut subject);
            authority.issue(request, &subject, now).is_err()
        };
        assert!(!refused(&request, &|_| {}));
        assert!(refused("no request", &|_| {}));
        assert!(refused(&request.replace('A', "B"), &|_| {}));
        assert!(refused(&request, &|one| one.name = "a\u{7}".into()));
        assert!(refused(&request, &|one| one.hosts = vec!["a b".into()]));
        assert!(refused(&request, &|one| one.hosts = vec![node_host(NodeId(1))]));
        assert!(refused(&request, &|one| one.hosts =
            vec!["a".into(); HOSTS_BOUND + 1]));
        let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let other = CertificateParams::default()
            .serialize_request(&other)
            .unwrap();
        assert!(refused(&other.pem().unwrap(), &|_| {}));
    }

    #[cfg(unix)]
    #[test]
    fn the_authoritys_key_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        Authority::make(folder.path(), OffsetDateTime::now_utc()).unwrap();
        let file = key_file(folder.path());
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Authority::open(folder.path()).is_err());
    }
}
