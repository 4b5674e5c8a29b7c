//! A node's certificate: which node it is, where in the tree it stands, and its key.
//!
//! The deployment's certificate authority says all of that; a node only asks for its key to be
//! certified. One Ed25519 key (RFC 8032, RFC 8410) of a node serves TLS and signs what it says.

use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use signaling::cascade::{NodeId, Place};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::OID_SIG_ED25519;
use x509_parser::prelude::FromDer as _;

/// Under it each node's id is a host's name, which stands in its certificate. TLS clients expect the
/// one of the node that they mean, whatever address it has; nobody resolves it.
pub(crate) const NODE_DOMAIN: &str = "node.terrace.internal";

/// Before a node's place in the names of its certificate.
const PLACE: &str = "terrace:place:";

/// Before the id of its parent.
const PARENT: &str = "terrace:parent:";

/// Hosts' names and addresses in one certificate.
pub(crate) const HOSTS_BOUND: usize = 16;

/// The name under which TLS expects a node.
pub(crate) fn node_host(node: NodeId) -> String {
    format!("{node}.{NODE_DOMAIN}")
}

/// Whether a text is a host's name, in small letters and without a dot at its end, or an address.
pub(crate) fn is_host(text: &str) -> bool {
    let is_odd = |c: char| c.is_ascii_uppercase() || c == '_';
    text.parse::<IpAddr>()
        .is_ok_and(|address| address.to_string() == text)
        || (rustls::pki_types::DnsName::try_from(text).is_ok()
            && !text.contains(is_odd)
            && !text.ends_with('.'))
}

/// Why a certificate is not a node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CertificateError {
    /// It can't be read.
    #[error("a node's certificate can't be read")]
    Malformed,
    /// What it says is not what a node's certificate says.
    #[error("a certificate that is not a node's")]
    NotANode,
}

/// Who a node is, as its certificate shall say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    /// Which node, at which level, whose.
    pub(crate) place: Place,
    /// As shown.
    pub(crate) name: String,
    /// `None`: it holds the certificate authority.
    pub(crate) parent: Option<NodeId>,
    /// Where other nodes reach it.
    pub(crate) hosts: Vec<String>,
}

impl Subject {
    /// The names in the certificate that are not hosts.
    pub(crate) fn uris(&self) -> Vec<String> {
        let place = format!("{PLACE}{}", self.place);
        let parent = self.parent.map(|parent| format!("{PARENT}{parent}"));
        [place].into_iter().chain(parent).collect()
    }
}

/// A node's certificate, read. Reading checks no signature: [`super::credentials`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// Who it is.
    pub(crate) subject: Subject,
    /// Its Ed25519 public key.
    pub(crate) key: Vec<u8>,
    /// By which it is revoked.
    pub(crate) serial: Vec<u8>,
    /// From when it is valid, in seconds since 1970.
    pub(crate) begins: i64,
    /// Until when.
    pub(crate) ends: i64,
    der: CertificateDer<'static>,
}

/// The Ed25519 key in the certificate of a deployment's authority.
pub(crate) fn authority_key(authority: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let (_, read) = x509_parser::parse_x509_certificate(authority).ok()?;
    let key = read.public_key();
    let is_ed25519 = key.algorithm.algorithm == OID_SIG_ED25519;
    let key = key.subject_public_key.data.as_ref().try_into().ok();
    key.filter(|_| is_ed25519)
}

impl Certificate {
    /// Reads the DER form.
    pub(crate) fn read(der: &[u8]) -> Result<Certificate, CertificateError> {
        let (rest, read) =
            X509Certificate::from_der(der).map_err(|_| CertificateError::Malformed)?;
        let names = read.subject_alternative_name();
        let names = names.map_err(|_| CertificateError::Malformed)?;
        let names = names.ok_or(CertificateError::NotANode)?;
        let key = read.public_key();
        if !rest.is_empty() || key.algorithm.algorithm != OID_SIG_ED25519 {
            return Err(CertificateError::NotANode);
        }
        let (mut places, mut parents, mut hosts) = (Vec::new(), Vec::new(), Vec::new());
        for name in &names.value.general_names {
            match name {
                GeneralName::URI(uri) => {
                    if let Some(place) = uri.strip_prefix(PLACE) {
                        let place = place.parse::<Place>();
                        places.push(place.map_err(|_| CertificateError::NotANode)?);
                    } else if let Some(parent) = uri.strip_prefix(PARENT) {
                        let parent = parent.parse::<NodeId>();
                        parents.push(parent.map_err(|_| CertificateError::NotANode)?);
                    }
                }
                GeneralName::DNSName(host) if !host.ends_with(NODE_DOMAIN) => {
                    hosts.push((*host).to_owned());
                }
                GeneralName::IPAddress(bytes) => {
                    let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                    let v6 = <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
                    hosts.extend(v4.or(v6).map(|address| address.to_string()));
                }
                _ => {}
            }
        }
        let (&[place], true) = (&places[..], parents.len() <= 1) else {
            return Err(CertificateError::NotANode);
        };
        let name = read.subject().iter_common_name().next();
        let name = name.and_then(|name| name.as_str().ok());
        Ok(Certificate {
            subject: Subject {
                place,
                name: name.ok_or(CertificateError::NotANode)?.to_owned(),
                parent: parents.first().copied(),
                hosts,
            },
            key: key.subject_public_key.data.to_vec(),
            serial: read.raw_serial().to_vec(),
            begins: read.validity().not_before.timestamp(),
            ends: read.validity().not_after.timestamp(),
            der: CertificateDer::from(der.to_vec()),
        })
    }

    /// Reads the first certificate of a PEM text.
    pub(crate) fn read_pem(pem: &str) -> Result<Certificate, CertificateError> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes());
        Certificate::read(&der.map_err(|_| CertificateError::Malformed)?)
    }

    /// Which node it is.
    pub(crate) fn node(&self) -> NodeId {
        self.subject.place.node
    }

    /// Its DER form.
    pub(crate) fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Its PEM form.
    pub(crate) fn pem(&self) -> String {
        pem("CERTIFICATE", &self.der)
    }

    /// Whether it is valid at a time, in seconds since 1970.
    pub(crate) fn is_valid(&self, now: i64) -> bool {
        (self.begins..self.ends).contains(&now)
    }
}

/// The PEM form (RFC 7468) of something with this label.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for at in (0..text.len()).step_by(64) {
        pem.push_str(&text[at..text.len().min(at + 64)]);
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}
