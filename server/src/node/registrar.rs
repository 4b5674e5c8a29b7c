//! Who belongs to the deployment: invitations, certificates, renewal and revocation.
//!
//! A node asks its parent, over HTTPS. What only the certificate authority can do, the parent asks its
//! own parent for, and so on; each node on the way asks only for those below it, and remembers whom it
//! asked for. So each node knows all nodes below it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Extension, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::TryStreamExt as _;
use rand::RngCore as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use signaling::cascade::{NodeId, Place};
use signaling::log_limit::LogLimit;
use time::OffsetDateTime;
use tokio::sync::Notify;

use super::authority::{Authority, NODE_VALIDITY, new_request};
use super::certificate::{Certificate, HOSTS_BOUND, Subject};
use super::client::{AskError, Client};
use super::credentials::{Credentials, fingerprint, pinned_config, unix_now};
use super::settings::Node as Settings;
use super::store::{Invitation, Store, Which};
use crate::guesses::Guesses;

/// The longest that an invitation holds.
pub(crate) const INVITATION_BOUND: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The largest request of a node, in bytes.
const BODY_BOUND: usize = 16 * 1024;

/// Certificates of one node that have not ended. Two are usual; each change of `node.hosts` takes one.
const CERTIFICATES_BOUND: usize = 32;

/// Certificates that are fetched at a time. A county that comes over its second way brings hundreds of
/// nodes that are not known there.
const FETCHES_AT_ONCE: usize = 8;

/// How deep a node may stand below the authority: who is above whom is followed so far.
const DEPTH_BOUND: usize = 12;

static WRONG: LogLimit = LogLimit::new();

/// What an invitation's code says: whom to ask, and what proves that one was invited. Whoever has it
/// can enrol a node in that place, once.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Code {
    /// SHA-256 of the authority's certificate.
    pub(crate) authority: [u8; 32],
    /// The node that invites, which will be the parent.
    pub(crate) parent: NodeId,
    /// Random.
    pub(crate) secret: [u8; 16],
}

impl Code {
    /// As text without characters that need quoting.
    pub(crate) fn text(&self) -> String {
        let mut bytes = self.authority.to_vec();
        bytes.extend(self.parent.0.to_be_bytes());
        bytes.extend(self.secret);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads it.
    pub(crate) fn read(text: &str) -> Option<Code> {
        let bytes = URL_SAFE_NO_PAD.decode(text.trim()).ok()?;
        let bytes: [u8; 64] = bytes.try_into().ok()?;
        Some(Code {
            authority: bytes[..32].try_into().ok()?,
            parent: NodeId(u128::from_be_bytes(bytes[32..48].try_into().ok()?)),
            secret: bytes[48..].try_into().ok()?,
        })
    }
}

/// Why a node does not get what it asks for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// No, or no longer, such an invitation.
    #[error("the code is wrong, was used, or is too old")]
    WrongCode,
    /// Too many wrong codes came from there.
    #[error("too many wrong codes; wait a few minutes")]
    TooManyGuesses,
    /// It has no certificate, or asks for somebody who is not below it.
    #[error("this node may not ask for that")]
    NotAllowed,
    /// What it says can't be.
    #[error("{0}")]
    Refused(String),
    /// Nothing of that node is known.
    #[error("no such node")]
    NotFound,
    /// The way up to the authority is cut.
    #[error("the certificate authority can't be reached now; try again later")]
    Unreachable,
    /// Something went wrong here.
    #[error("something went wrong at the parent; its log says what")]
    Broken,
}

impl Fault {
    fn status(&self) -> StatusCode {
        match self {
            Fault::WrongCode | Fault::NotAllowed => StatusCode::FORBIDDEN,
            Fault::TooManyGuesses => StatusCode::TOO_MANY_REQUESTS,
            Fault::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Fault::NotFound => StatusCode::NOT_FOUND,
            Fault::Unreachable => StatusCode::BAD_GATEWAY,
            Fault::Broken => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        (self.status(), self.to_string()).into_response()
    }
}

impl From<anyhow::Error> for Fault {
    fn from(error: anyhow::Error) -> Fault {
        tracing::error!(error = format!("{error:#}"), "a node's request failed");
        Fault::Broken
    }
}

impl From<AskError> for Fault {
    fn from(error: AskError) -> Fault {
        match error {
            AskError::Refused(StatusCode::NOT_FOUND, _) => Fault::NotFound,
            AskError::Refused(_, words) => Fault::Refused(words),
            AskError::Unreachable(error) => {
                tracing::warn!(error = format!("{error:#}"), "the parent can't be asked");
                Fault::Unreachable
            }
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Enrol {
    secret: String,
    request: String,
    hosts: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Enrolled {
    certificate: String,
    authority: String,
    revocations: String,
}

#[derive(Serialize, Deserialize)]
struct Renew {
    request: String,
    hosts: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Issue {
    request: String,
    place: Place,
    name: String,
    parent: NodeId,
    hosts: Vec<String>,
}

/// Whose certificate the other end of a connection showed; of that it is valid TLS has made sure.
#[derive(Clone, Debug)]
pub(crate) struct Peer(pub(crate) Option<Arc<Certificate>>);

/// What answers nodes below, and asks the node above.
pub(crate) struct Registrar {
    pub(crate) store: Store,
    pub(crate) credentials: Arc<Credentials>,
    authority: Option<Authority>,
    parent: Option<Client>,
    guesses: Guesses,
    /// Told when somebody was enrolled or revoked.
    pub(crate) changed: Notify,
}

impl Registrar {
    /// From what is configured and was enrolled with.
    pub(crate) fn new(
        settings: &Settings,
        store: Store,
        credentials: Arc<Credentials>,
        authority: Option<Authority>,
    ) -> anyhow::Result<Registrar> {
        let parent = match (&settings.parent, credentials.certificate().subject.parent) {
            (Some(address), Some(parent)) => Some(Client::new(
                address,
                Arc::new(credentials.client_config(&[parent])),
            )?),
            _ => None,
        };
        Ok(Registrar {
            store,
            credentials,
            authority,
            parent,
            guesses: Guesses::default(),
            changed: Notify::new(),
        })
    }

    fn me(&self) -> NodeId {
        self.credentials.certificate().node()
    }

    /// Takes in all certificates that the file has.
    pub(crate) async fn load(&self) -> anyhow::Result<()> {
        for (certificate, _) in self.store.certificates(Which::All).await? {
            // One that is revoked must be known to be.
            let _ = self.credentials.learn(&certificate);
        }
        Ok(())
    }

    async fn keep(&self, certificate: &Certificate) -> anyhow::Result<()> {
        self.credentials.learn(certificate)?;
        self.store.keep(certificate).await?;
        self.changed.notify_one();
        Ok(())
    }

    /// The nodes whose parent this is.
    pub(crate) async fn children(&self) -> anyhow::Result<Vec<NodeId>> {
        let me = self.me();
        let all = self.store.certificates(Which::Children(me)).await?;
        let children = all.iter().filter(|(certificate, revoked)| {
            revoked.is_none() && self.credentials.holds(certificate)
        });
        let mut children: Vec<NodeId> = children.map(|(one, _)| one.node()).collect();
        children.dedup();
        Ok(children)
    }

    /// Whether a node is `top` or below it, as the certificates say that this node knows.
    async fn is_below(&self, node: NodeId, top: NodeId) -> anyhow::Result<bool> {
        let mut at = node;
        for _ in 0..DEPTH_BOUND {
            if at == top {
                return Ok(true);
            }
            let known = self.store.certificates(Which::Node(at)).await?;
            match known.last().and_then(|(one, _)| one.subject.parent) {
                Some(parent) => at = parent,
                None => return Ok(false),
            }
        }
        Ok(false)
    }

    /// Invites a node to the place below this one. The code's secret is kept nowhere.
    pub(crate) async fn invite(
        &self,
        invitation: &Invitation,
        time: Duration,
    ) -> anyhow::Result<Code> {
        let own = self.credentials.certificate().subject.place;
        anyhow::ensure!(
            own.level < invitation.place.level,
            "a {} is not below a {}",
            invitation.place.level,
            own.level
        );
        let mut secret = [0; 16];
        rand::rng().fill_bytes(&mut secret);
        let ends_at = unix_now() + time.min(INVITATION_BOUND).as_secs() as i64;
        self.store.invite(&secret, invitation, ends_at).await?;
        Ok(Code {
            authority: fingerprint(self.credentials.authority()),
            parent: own.node,
            secret,
        })
    }

    async fn enrol(&self, from: IpAddr, enrol: Enrol) -> Result<Enrolled, Fault> {
        let now = Instant::now();
        if self.guesses.may_try(from, now).is_err() {
            return Err(Fault::TooManyGuesses);
        }
        let secret = URL_SAFE_NO_PAD.decode(&enrol.secret).unwrap_or_default();
        let Some(invitation) = self.store.take_invitation(&secret).await? else {
            self.guesses.failed(from, now);
            if let Some(suppressed) = WRONG.pass(now) {
                tracing::warn!(%from, suppressed, "somebody tried to enrol a node with a wrong code");
            }
            return Err(Fault::WrongCode);
        };
        let issue = Issue {
            request: enrol.request,
            place: invitation.place,
            name: invitation.name.clone(),
            parent: self.me(),
            hosts: enrol.hosts,
        };
        let issued = self.issue(issue).await;
        if matches!(issued, Err(Fault::Unreachable | Fault::Refused(_))) {
            // Nothing came of it: the same code may be tried again for an hour.
            let ends_at = unix_now() + 60 * 60;
            self.store.invite(&secret, &invitation, ends_at).await?;
        }
        let certificate = issued?;
        tracing::info!(
            node = %certificate.node(),
            name = certificate.subject.name,
            "a node was enrolled"
        );
        Ok(Enrolled {
            certificate: certificate.pem(),
            authority: super::certificate::pem("CERTIFICATE", self.credentials.authority()),
            revocations: self.credentials.revocations().1,
        })
    }

    async fn renew(&self, peer: &Certificate, renew: Renew) -> Result<Certificate, Fault> {
        if peer.subject.parent != Some(self.me()) {
            return Err(Fault::NotAllowed);
        }
        self.issue(Issue {
            request: renew.request,
            place: peer.subject.place,
            name: peer.subject.name.clone(),
            parent: self.me(),
            hosts: renew.hosts,
        })
        .await
    }

    /// Has a node's key certified, here or above.
    async fn issue(&self, issue: Issue) -> Result<Certificate, Fault> {
        if issue.hosts.len() > HOSTS_BOUND {
            return Err(Fault::Refused("too many names and addresses".into()));
        }
        let known = self
            .store
            .certificates(Which::Node(issue.place.node))
            .await?;
        if known.len() >= CERTIFICATES_BOUND {
            return Err(Fault::Refused("this node was certified too often".into()));
        }
        if let Some((known, revoked)) = known.last() {
            let is_same =
                known.subject.place == issue.place && known.subject.parent == Some(issue.parent);
            if !is_same || revoked.is_some() || self.credentials.is_revoked(issue.place.node) {
                return Err(Fault::NotAllowed);
            }
        }
        let certificate = match (&self.authority, &self.parent) {
            (Some(authority), _) => {
                let subject = Subject {
                    place: issue.place,
                    name: issue.name,
                    parent: Some(issue.parent),
                    hosts: issue.hosts,
                };
                authority
                    .issue(&issue.request, &subject, OffsetDateTime::now_utc())
                    .map_err(|error| Fault::Refused(format!("{error:#}")))?
            }
            (None, Some(parent)) => {
                let pem = parent.post("/node/issue", &issue).await?;
                Certificate::read_pem(&pem).context("the parent's answer")?
            }
            (None, None) => return Err(Fault::Unreachable),
        };
        self.keep(&certificate).await?;
        Ok(certificate)
    }

    /// What another node below asks to be issued: only for nodes that are below it.
    async fn issue_for(&self, peer: &Certificate, issue: Issue) -> Result<Certificate, Fault> {
        if peer.subject.parent != Some(self.me())
            || issue.place.level <= peer.subject.place.level
            || !self.is_below(issue.parent, peer.node()).await?
        {
            return Err(Fault::NotAllowed);
        }
        self.issue(issue).await
    }

    /// The certificates of a node that are known here or above, the latest last.
    pub(crate) async fn certificates(&self, node: NodeId) -> Result<Vec<Certificate>, Fault> {
        if let Some(parent) = &self.parent
            && !self.is_below(node, self.me()).await?
        {
            let text = parent.get(&format!("/node/certificates/{node}")).await?;
            let read = CertificateDer::pem_slice_iter(text.as_bytes());
            let mut found = Vec::new();
            for der in read {
                let der = der.context("the parent's answer")?;
                found.push(Certificate::read(&der).context("the parent's answer")?);
            }
            for certificate in &found {
                self.keep(certificate).await?;
            }
            return Ok(found);
        }
        let known = self.store.certificates(Which::Node(node)).await?;
        let good = known
            .into_iter()
            .filter(|(one, revoked)| revoked.is_none() && self.credentials.holds(one));
        let found: Vec<Certificate> = good.map(|(one, _)| one).collect();
        if found.is_empty() {
            return Err(Fault::NotFound);
        }
        Ok(found)
    }

    /// Revokes a node: here if this node holds the authority, else above. It and what it has said are
    /// gone from every node that hears of it.
    pub(crate) async fn revoke(&self, node: NodeId) -> Result<(), Fault> {
        match (&self.authority, &self.parent) {
            (Some(_), _) => {
                if node == self.me() {
                    return Err(Fault::Refused("the authority's own node stays".into()));
                }
                if !self.store.revoke(node).await? {
                    return Err(Fault::NotFound);
                }
                self.publish_revocations().await?;
                tracing::info!(%node, "a node was revoked");
            }
            (None, Some(parent)) => {
                parent.post(&format!("/node/revoke/{node}"), &()).await?;
                self.store.revoke(node).await?;
            }
            (None, None) => return Err(Fault::Unreachable),
        }
        self.changed.notify_one();
        Ok(())
    }

    /// At the authority: signs the list of what is revoked if it has changed; whether it has.
    async fn publish_revocations(&self) -> anyhow::Result<bool> {
        let Some(authority) = &self.authority else {
            return Ok(false);
        };
        let (number, revoked) = self.store.revoked().await?;
        if number <= self.credentials.revocations().0 {
            return Ok(false);
        }
        let list = authority.revocations(number, &revoked, OffsetDateTime::now_utc())?;
        self.credentials.adopt(&list)
    }

    /// Learns what was revoked meanwhile; whether anything was.
    pub(crate) async fn refresh_revocations(&self) -> anyhow::Result<bool> {
        match &self.parent {
            Some(parent) => {
                let list = parent.get("/node/revocations").await?;
                self.credentials.adopt(&list)
            }
            None => self.publish_revocations().await,
        }
    }

    /// Fetches the certificates that are wanted, until the way up fails.
    pub(crate) async fn fetch_wanted(&self) {
        let wanted = self.credentials.wanted().into_iter().map(Ok);
        let fetched = futures_util::stream::iter(wanted)
            .try_for_each_concurrent(FETCHES_AT_ONCE, |node| self.fetch(node));
        // What is missing is wanted again, by whoever speaks for it.
        let _ = fetched.await;
    }

    async fn fetch(&self, node: NodeId) -> Result<(), Fault> {
        match self.certificates(node).await {
            Ok(found) => {
                for certificate in &found {
                    let _ = self.credentials.learn(certificate);
                }
                self.credentials.is_absent(node);
                Ok(())
            }
            Err(Fault::NotFound) => {
                self.credentials.is_absent(node);
                Ok(())
            }
            Err(fault) => Err(fault),
        }
    }

    /// Renews this node's key and certificate if a third of its time or less is left, or if `hosts` is
    /// not what it says; whether it did.
    pub(crate) async fn renew_own(&self, hosts: &[String], now: i64) -> anyhow::Result<bool> {
        let present = self.credentials.certificate();
        let is_young = present.ends - now > NODE_VALIDITY.whole_seconds() / 3;
        if is_young && present.subject.hosts == hosts {
            return Ok(false);
        }
        let (key, request) = new_request()?;
        let certificate = match (&self.authority, &self.parent) {
            (Some(authority), _) => {
                let mut subject = present.subject;
                subject.hosts = hosts.to_vec();
                authority.issue(&request, &subject, OffsetDateTime::now_utc())?
            }
            (None, Some(parent)) => {
                let hosts = hosts.to_vec();
                let pem = parent
                    .post("/node/renew", &Renew { request, hosts })
                    .await?;
                Certificate::read_pem(&pem)?
            }
            (None, None) => return Ok(false),
        };
        self.credentials.renew(&key, &certificate)?;
        self.store.keep(&certificate).await?;
        tracing::info!("this node has a new key and certificate");
        Ok(true)
    }
}

/// Enrols this node with a code: makes its key, has it certified, and keeps both.
pub(crate) async fn enrol(
    settings: &Settings,
    folder: &std::path::Path,
    code: &str,
) -> anyhow::Result<Certificate> {
    let code = Code::read(code).context("this is not a code of `terrace node invite`")?;
    let address = settings
        .parent
        .as_deref()
        .context("node.parent is missing: the address of the node that gave the code")?;
    let config = pinned_config(code.authority, code.parent)?;
    let parent = Client::new(address, Arc::new(config))?;
    let (key, request) = new_request()?;
    let enrol = Enrol {
        secret: URL_SAFE_NO_PAD.encode(code.secret),
        request,
        hosts: settings.hosts.clone(),
    };
    let answer = parent.post("/node/enrol", &enrol).await?;
    let enrolled: Enrolled = serde_json::from_str(&answer).context("the parent's answer")?;
    let authority = CertificateDer::from_pem_slice(enrolled.authority.as_bytes())?;
    anyhow::ensure!(
        fingerprint(&authority) == code.authority,
        "the parent belongs to another deployment than the code"
    );
    let certificate = Certificate::read_pem(&enrolled.certificate)?;
    anyhow::ensure!(
        certificate.subject.parent == Some(code.parent),
        "the certificate is for a place below another node"
    );
    Credentials::save(
        folder,
        &key,
        &certificate,
        &authority,
        &enrolled.revocations,
    )?;
    Ok(certificate)
}

// What nodes below ask over HTTPS.

type Shared = State<Arc<Registrar>>;

/// Who asks. A connection may be older than what was revoked since.
fn known<'a>(registrar: &Registrar, peer: &'a Peer) -> Result<&'a Certificate, Fault> {
    let peer = peer.0.as_deref().ok_or(Fault::NotAllowed)?;
    if !registrar.credentials.holds(peer) {
        return Err(Fault::NotAllowed);
    }
    Ok(peer)
}

async fn answer_enrol(
    State(registrar): Shared,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    Json(body): Json<Enrol>,
) -> Result<Json<Enrolled>, Fault> {
    registrar.enrol(from.ip(), body).await.map(Json)
}

async fn answer_renew(
    State(registrar): Shared,
    Extension(peer): Extension<Peer>,
    Json(body): Json<Renew>,
) -> Result<String, Fault> {
    let certificate = registrar.renew(known(&registrar, &peer)?, body).await?;
    Ok(certificate.pem())
}

async fn answer_issue(
    State(registrar): Shared,
    Extension(peer): Extension<Peer>,
    Json(body): Json<Issue>,
) -> Result<String, Fault> {
    let certificate = registrar.issue_for(known(&registrar, &peer)?, body).await?;
    Ok(certificate.pem())
}

async fn answer_certificates(
    State(registrar): Shared,
    Extension(peer): Extension<Peer>,
    Path(node): Path<String>,
) -> Result<String, Fault> {
    known(&registrar, &peer)?;
    let node = node.parse().map_err(|_| Fault::NotFound)?;
    let found = registrar.certificates(node).await?;
    Ok(found.iter().map(Certificate::pem).collect())
}

async fn answer_revocations(
    State(registrar): Shared,
    Extension(peer): Extension<Peer>,
) -> Result<String, Fault> {
    known(&registrar, &peer)?;
    Ok(registrar.credentials.revocations().1)
}

async fn answer_revoke(
    State(registrar): Shared,
    Extension(peer): Extension<Peer>,
    Path(node): Path<String>,
) -> Result<(), Fault> {
    let peer = known(&registrar, &peer)?;
    let node: NodeId = node.parse().map_err(|_| Fault::NotFound)?;
    if node == peer.node() || !registrar.is_below(node, peer.node()).await? {
        return Err(Fault::NotAllowed);
    }
    registrar.revoke(node).await
}

/// Everything that nodes below ask for.
pub(crate) fn router(registrar: Arc<Registrar>) -> Router {
    Router::new()
        .route("/node/enrol", post(answer_enrol))
        .route("/node/renew", post(answer_renew))
        .route("/node/issue", post(answer_issue))
        .route("/node/certificates/{node}", get(answer_certificates))
        .route("/node/revocations", get(answer_revocations))
        .route("/node/revoke/{node}", post(answer_revoke))
        .layer(DefaultBodyLimit::max(BODY_BOUND))
        .with_state(registrar)
}
