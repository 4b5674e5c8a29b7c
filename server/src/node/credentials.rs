//! What a node proves itself with, and what it takes as proof from others.
//!
//! Its key and certificate lie in one file that only the server's user may read, and both change
//! together when they are renewed. Whoever is revoked or unknown to the deployment's certificate
//! authority is refused in every TLS handshake and in every message. All connections see a change at
//! once; none has a configuration of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use rcgen::KeyPair;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
};
use signaling::cascade::seal::Seal;
use signaling::cascade::{NodeId, Place};
use tokio::sync::Notify;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};

use super::authority::certificate_file;
use super::certificate::{Certificate, node_host};
use crate::config::check_private;
use crate::tls::write_private;

/// How long a node's certificate is not asked for again. Shorter lets a node that has just enrolled be
/// heard sooner; longer keeps whoever invents ids from making us ask.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Nodes that are asked for at a time.
const WANTED_BOUND: usize = 1024;

/// Certificates of one node: the present one, and the one before, with which older announcements are
/// signed.
const CERTIFICATES_BOUND: usize = 2;

/// Nodes whose certificates are kept in memory: all of a province, twice.
const NODES_BOUND: usize = 50_000;

/// Now, in seconds since 1970.
pub(crate) fn unix_now() -> i64 {
    crate::meetings::now_ms() / 1000
}

/// This node's key and certificate.
struct Own {
    certificate: Certificate,
    tls: Arc<CertifiedKey>,
    signing: Ed25519KeyPair,
}

/// What is trusted: the authority, less what it has revoked.
struct Trust {
    clients: Arc<dyn ClientCertVerifier>,
    servers: Arc<WebPkiServerVerifier>,
    number: u64,
    revoked: BTreeSet<Vec<u8>>,
    /// The list as the authority signed it.
    list: String,
}

impl Trust {
    fn holds(&self, certificate: &Certificate) -> bool {
        certificate.is_valid(unix_now()) && !self.revoked.contains(&certificate.serial)
    }
}

#[derive(Default)]
struct Wanted {
    open: BTreeSet<NodeId>,
    asked: BTreeMap<NodeId, Instant>,
}

/// Of one node: its own, and what is known of the others'.
pub(crate) struct Credentials {
    folder: PathBuf,
    authority: CertificateDer<'static>,
    own: RwLock<Arc<Own>>,
    trust: RwLock<Arc<Trust>>,
    others: RwLock<BTreeMap<NodeId, Vec<Certificate>>>,
    wanted: Mutex<Wanted>,
    /// Told when a certificate is wanted.
    pub(crate) wants: Notify,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// A node's key and certificate, in one file, so that one never lies there without the other.
pub(crate) fn own_file(folder: &Path) -> PathBuf {
    folder.join("node.pem")
}

fn revocations_file(folder: &Path) -> PathBuf {
    folder.join("revocations.pem")
}

fn read_own(pem: &str, authority: &CertificateDer<'static>) -> anyhow::Result<Own> {
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).context("no key")?;
    let certificate = Certificate::read_pem(pem)?;
    let signing = Ed25519KeyPair::from_pkcs8(key.secret_der())
        .ok()
        .context("another key than Ed25519")?;
    let public = aws_lc_rs::signature::KeyPair::public_key(&signing);
    ensure!(
        certificate.key == public.as_ref(),
        "the certificate is of another key"
    );
    // The authority's goes along, for those who only know its fingerprint yet.
    let chain = vec![certificate.der().clone(), authority.clone()];
    let tls = CertifiedKey::new(chain, provider::sign::any_supported_type(&key)?);
    Ok(Own {
        certificate,
        tls: Arc::new(tls),
        signing,
    })
}

/// Reads a list of what is revoked, and checks who signed it.
fn read_trust(list: &str, authority: &CertificateDer<'static>) -> anyhow::Result<Trust> {
    let der = CertificateRevocationListDer::from_pem_slice(list.as_bytes())
        .context("a list of revoked certificates that can't be read")?;
    let (_, read) = CertificateRevocationList::from_der(der.as_ref())
        .context("a list of revoked certificates that can't be read")?;
    let (_, issuer) = X509Certificate::from_der(authority)?;
    read.verify_signature(issuer.public_key())
        .context("a list of revoked certificates that the authority has not signed")?;
    let number = read.crl_number().and_then(|number| number.try_into().ok());
    let revoked = read.iter_revoked_certificates();
    let revoked = revoked.map(|one| one.raw_serial().to_vec()).collect();
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone())?;
    let roots = Arc::new(roots);
    let crypto = Arc::new(provider::default_provider());
    Ok(Trust {
        clients: WebPkiClientVerifier::builder_with_provider(roots.clone(), crypto.clone())
            .with_crls([der.clone()])
            .allow_unauthenticated()
            .build()?,
        servers: WebPkiServerVerifier::builder_with_provider(roots, crypto)
            .with_crls([der.clone()])
            .build()?,
        number: number.context("a list of revoked certificates without a number")?,
        revoked,
        list: list.to_owned(),
    })
}

impl Credentials {
    /// What a folder has of a node; `None` if it is not enrolled yet.
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Option<Credentials>> {
        let file = own_file(folder);
        if !file.exists() {
            return Ok(None);
        }
        check_private(&file, "the node's key")?;
        let read = |file: &Path| {
            std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))
        };
        let authority = read(&certificate_file(folder))?;
        let authority = CertificateDer::from_pem_slice(authority.as_bytes())
            .context("the authority's certificate is damaged")?;
        let own = read_own(&read(&file)?, &authority)
            .with_context(|| format!("{} can't be used", file.display()))?;
        let trust = read_trust(&read(&revocations_file(folder))?, &authority)?;
        Ok(Some(Credentials {
            folder: folder.to_owned(),
            authority,
            own: RwLock::new(Arc::new(own)),
            trust: RwLock::new(Arc::new(trust)),
            others: RwLock::default(),
            wanted: Mutex::default(),
            wants: Notify::new(),
        }))
    }

    /// Keeps what a node was enrolled with.
    pub(crate) fn save(
        folder: &Path,
        key: &KeyPair,
        certificate: &Certificate,
        authority: &CertificateDer<'static>,
        revocations: &str,
    ) -> anyhow::Result<()> {
        read_trust(revocations, authority)?;
        let pem = super::certificate::pem("CERTIFICATE", authority);
        write_private(&certificate_file(folder), pem.as_bytes())?;
        write_private(&revocations_file(folder), revocations.as_bytes())?;
        let own = key.serialize_pem() + &certificate.pem();
        read_own(&own, authority)?;
        write_private(&own_file(folder), own.as_bytes())
    }

    fn own(&self) -> Arc<Own> {
        self.own.read().expect("no panic while it is held").clone()
    }

    fn trust(&self) -> Arc<Trust> {
        self.trust
            .read()
            .expect("no panic while it is held")
            .clone()
    }

    /// This node's certificate.
    pub(crate) fn certificate(&self) -> Certificate {
        self.own().certificate.clone()
    }

    /// The certificate of the deployment's authority.
    pub(crate) fn authority(&self) -> &CertificateDer<'static> {
        &self.authority
    }

    /// From now on this node has another key.
    pub(crate) fn renew(&self, key: &KeyPair, certificate: &Certificate) -> anyhow::Result<()> {
        self.check(certificate.der())?;
        ensure!(
            certificate.subject.place == self.own().certificate.subject.place,
            "a certificate of another node"
        );
        let pem = key.serialize_pem() + &certificate.pem();
        let own = read_own(&pem, &self.authority)?;
        write_private(&own_file(&self.folder), pem.as_bytes())?;
        *self.own.write().expect("no panic while it is held") = Arc::new(own);
        Ok(())
    }

    /// The list of what is revoked, as the authority signed it, and its number.
    pub(crate) fn revocations(&self) -> (u64, String) {
        let trust = self.trust();
        (trust.number, trust.list.clone())
    }

    /// Takes a list of what is revoked if it is later than the one that is known; whether it was.
    pub(crate) fn adopt(&self, list: &str) -> anyhow::Result<bool> {
        let trust = read_trust(list, &self.authority)?;
        let mut present = self.trust.write().expect("no panic while it is held");
        if trust.number <= present.number {
            return Ok(false);
        }
        write_private(&revocations_file(&self.folder), list.as_bytes())?;
        *present = Arc::new(trust);
        Ok(true)
    }

    /// Reads a certificate that the authority has issued, that is valid now, and is not revoked.
    pub(crate) fn check(&self, der: &CertificateDer<'_>) -> anyhow::Result<Certificate> {
        let trust = self.trust();
        trust
            .clients
            .verify_client_cert(der, &[], UnixTime::now())
            .context("a certificate that does not hold")?;
        Ok(Certificate::read(der)?)
    }

    /// Takes in another node's certificate, from wherever it comes.
    pub(crate) fn learn(&self, certificate: &Certificate) -> anyhow::Result<()> {
        self.check(certificate.der())?;
        let node = certificate.node();
        let mut others = self.others.write().expect("no panic while it is held");
        if others.len() >= NODES_BOUND && !others.contains_key(&node) {
            bail!("more nodes than there may be");
        }
        let known = others.entry(node).or_default();
        if !known.contains(certificate) {
            known.push(certificate.clone());
            known.sort_by_key(|one| std::cmp::Reverse((one.begins, one.ends)));
            known.truncate(CERTIFICATES_BOUND);
        }
        let mut wanted = self.wanted.lock().expect("no panic while it is held");
        wanted.open.remove(&node);
        Ok(())
    }

    /// Whether a certificate that was checked once still holds.
    pub(crate) fn holds(&self, certificate: &Certificate) -> bool {
        self.trust().holds(certificate)
    }

    /// What a node is, if it is known and not revoked.
    pub(crate) fn place(&self, node: NodeId) -> Option<Place> {
        let trust = self.trust();
        let others = self.others.read().expect("no panic while it is held");
        let mut good = others.get(&node)?.iter();
        let good = good.find(|one| trust.holds(one))?;
        Some(good.subject.place)
    }

    /// Whether something of a node was revoked, and nothing good is left of it.
    pub(crate) fn is_revoked(&self, node: NodeId) -> bool {
        let trust = self.trust();
        let others = self.others.read().expect("no panic while it is held");
        others.get(&node).is_some_and(|known| {
            known.iter().any(|one| trust.revoked.contains(&one.serial))
                && !known.iter().any(|one| trust.holds(one))
        })
    }

    /// A node's certificate is wanted; `false` if it was asked for a moment ago.
    pub(crate) fn want(&self, node: NodeId) -> bool {
        let mut wanted = self.wanted.lock().expect("no panic while it is held");
        let now = Instant::now();
        let is_old = |asked: &Instant| now.saturating_duration_since(*asked) >= ASK_AGAIN;
        if wanted.asked.len() >= WANTED_BOUND {
            wanted.asked.retain(|_, asked| !is_old(asked));
        }
        let is_asked = wanted.asked.get(&node).is_some_and(|asked| !is_old(asked));
        if is_asked || wanted.asked.len() >= WANTED_BOUND {
            return wanted.open.contains(&node);
        }
        wanted.asked.insert(node, now);
        wanted.open.insert(node);
        self.wants.notify_one();
        true
    }

    /// The nodes whose certificates are wanted.
    pub(crate) fn wanted(&self) -> Vec<NodeId> {
        let wanted = self.wanted.lock().expect("no panic while it is held");
        wanted.open.iter().copied().collect()
    }

    /// Nobody has a certificate of this node.
    pub(crate) fn is_absent(&self, node: NodeId) {
        let mut wanted = self.wanted.lock().expect("no panic while it is held");
        wanted.open.remove(&node);
    }

    /// TLS towards one of these nodes, whatever its address, with this node's certificate.
    pub(crate) fn client_config(self: &Arc<Self>, nodes: &[NodeId]) -> ClientConfig {
        let names = nodes.iter().map(|node| {
            ServerName::try_from(node_host(*node)).expect("a node's name is a host's name")
        });
        let checks = Checks {
            credentials: self.clone(),
            names: names.collect(),
        };
        ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has ciphers of TLS 1.2 and 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(checks))
            .with_client_cert_resolver(Arc::new(Resolver(self.clone())))
    }

    /// TLS for nodes below. Who has no certificate yet may ask for one; handlers look who it is.
    pub(crate) fn server_config(self: &Arc<Self>) -> ServerConfig {
        let checks = Checks {
            credentials: self.clone(),
            names: Vec::new(),
        };
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("the provider has ciphers of TLS 1.2 and 1.3")
                .with_client_cert_verifier(Arc::new(checks))
                .with_cert_resolver(Arc::new(Resolver(self.clone())));
        // A session that is taken up again would not be checked for what was revoked since.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config
    }
}

impl Seal for Credentials {
    fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        self.own().signing.sign(bytes).as_ref().to_vec()
    }

    fn is_signed_by(&self, node: NodeId, bytes: &[u8], signature: &[u8]) -> bool {
        let trust = self.trust();
        let others = self.others.read().expect("no panic while it is held");
        others.get(&node).is_some_and(|known| {
            known.iter().any(|one| {
                let key = UnparsedPublicKey::new(&ED25519, &one.key);
                trust.holds(one) && key.verify(bytes, signature).is_ok()
            })
        })
    }
}

/// This node's certificate, in each handshake the present one.
#[derive(Debug)]
struct Resolver(Arc<Credentials>);

impl rustls::client::ResolvesClientCert for Resolver {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.own().tls.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl rustls::server::ResolvesServerCert for Resolver {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.own().tls.clone())
    }
}

/// Checks the other end in each handshake against what is trusted at that moment.
#[derive(Debug)]
struct Checks {
    credentials: Arc<Credentials>,
    /// Of a server: whose it may be.
    names: Vec<ServerName<'static>>,
}

impl ServerCertVerifier for Checks {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let trust = self.credentials.trust();
        let check = |name: &ServerName<'_>| {
            trust
                .servers
                .verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
        };
        let mut result = Err(rustls::Error::General("no node is expected here".into()));
        for name in &self.names {
            result = check(name);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let trust = self.credentials.trust();
        trust.servers.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let trust = self.credentials.trust();
        trust.servers.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.credentials.trust().servers.supported_verify_schemes()
    }
}

impl ClientCertVerifier for Checks {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let trust = self.credentials.trust();
        trust
            .clients
            .verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let trust = self.credentials.trust();
        trust.clients.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let trust = self.credentials.trust();
        trust.clients.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.credentials.trust().clients.supported_verify_schemes()
    }
}

/// TLS towards a parent of which only this is known: its node's id, and the SHA-256 of the certificate
/// of the authority that certified it.
pub(crate) fn pinned_config(authority: [u8; 32], parent: NodeId) -> anyhow::Result<ClientConfig> {
    let crypto = Arc::new(provider::default_provider());
    let pin = Pin {
        authority,
        name: ServerName::try_from(node_host(parent))?,
        crypto: crypto.clone(),
    };
    Ok(ClientConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pin))
        .with_no_client_auth())
}

/// The SHA-256 of a certificate.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[derive(Debug)]
struct Pin {
    authority: [u8; 32],
    name: ServerName<'static>,
    crypto: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let pinned = intermediates
            .iter()
            .find(|one| fingerprint(one) == self.authority);
        let Some(authority) = pinned else {
            return Err(rustls::Error::General(
                "another deployment's certificate authority".into(),
            ));
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.crypto.clone())
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, &[], &self.name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.crypto.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.crypto.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.crypto
            .signature_verification_algorithms
            .supported_schemes()
    }
}
