//! This server as a node of a deployment: who it is, who may speak to it, and what carries that.
//!
//! - `settings` is its part of the configuration, `store` what it keeps in the server's SQLite file.
//! - `authority` is the deployment's certificate authority, `certificate` what that says of a node,
//!   `credentials` what a node proves itself with and whom it trusts.
//! - `registrar` invites, enrols, renews and revokes, over HTTPS between a node and its parent
//!   (`client`, `listener`).
//! - `bus` carries messages inside one process, `nats` between processes.
//! - `runtime` runs the control core (`signaling::cascade`) on them.
//! - `lines` are the media lines to neighbours, `tracks` what crosses them, and `branch` joins core, lines
//!   and rooms. `roster` shows who is in a conference and takes what chairs do.
//!
//! Invariants:
//! - A private key never leaves the machine on which it was made.
//! - Whoever is revoked or unknown gets nothing: no TLS connection, and no message of it is taken.
//! - Only children connect: a node needs to reach its parent, and nobody needs to reach a child.

pub(crate) mod authority;
pub(crate) mod branch;
pub(crate) mod bus;
pub(crate) mod certificate;
pub(crate) mod client;
pub(crate) mod command;
pub(crate) mod credentials;
pub(crate) mod lines;
pub(crate) mod listener;
pub(crate) mod nats;
pub(crate) mod registrar;
pub(crate) mod roster;
pub(crate) mod runtime;
pub(crate) mod settings;
pub(crate) mod store;
#[cfg(test)]
mod tests;
pub(crate) mod tracks;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use signaling::Hub;
use signaling::cascade::{NodeConfig, NodeId, Output};
use signaling::log_limit::LogLimit;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use authority::{Authority, new_request};
use bus::{Arrival, Bus, Exchange, INBOX_BOUND};
use certificate::Subject;
use credentials::{Credentials, unix_now};
use registrar::Registrar;
use runtime::Cascade;
use settings::Node as Settings;
use store::{Store, new_place};

/// How often a node looks for what was revoked and who is new below it. Shorter lets a revocation
/// travel down sooner, a level at a time; longer spares a parent of 170 nodes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

static NO_UPKEEP: LogLimit = LogLimit::new();
static NO_RENEWAL: LogLimit = LogLimit::new();

/// The node's folder in the data folder.
pub(crate) fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("node")
}

/// Opens what this node is; the one without a parent makes the deployment's authority first.
pub(crate) async fn open(settings: &Settings, data_dir: &Path) -> anyhow::Result<Arc<Registrar>> {
    let folder = folder(data_dir);
    crate::serve::prepare_data_dir(&folder)?;
    let store = Store::open(data_dir).await?;
    let mut authority = Authority::open(&folder)?;
    if Credentials::open(&folder)?.is_none() {
        if settings.parent.is_some() {
            bail!(
                "this node is not enrolled: run `terrace node invite` at its parent, and `terrace node \
                 enrol` with the code here"
            );
        }
        authority = Some(found(settings, &folder, &store).await?);
    }
    let credentials = Credentials::open(&folder)?.context("what was written can't be read")?;
    check_place(settings, &credentials)?;
    let credentials = Arc::new(credentials);
    let registrar = Registrar::new(settings, store, credentials, authority)?;
    registrar.load().await?;
    Ok(Arc::new(registrar))
}

/// Makes a deployment: its authority, and the certificate of the node that holds it.
async fn found(settings: &Settings, folder: &Path, store: &Store) -> anyhow::Result<Authority> {
    let (Some(name), Some(level), Some(organisation)) =
        (&settings.name, settings.level, settings.organisation)
    else {
        bail!("node.name, node.level and node.organisation are needed");
    };
    let now = OffsetDateTime::now_utc();
    let authority = Authority::make(folder, now)?;
    let (key, request) = new_request()?;
    let subject = Subject {
        place: new_place(level, organisation),
        name: name.clone(),
        parent: None,
        hosts: settings.hosts.clone(),
    };
    let certificate = authority.issue(&request, &subject, now)?;
    let (number, revoked) = store.revoked().await?;
    let revocations = authority.revocations(number, &revoked, now)?;
    store.keep(&certificate).await?;
    Credentials::save(
        folder,
        &key,
        &certificate,
        authority.certificate(),
        &revocations,
    )?;
    tracing::info!(node = %certificate.node(), "a deployment was founded: this node holds its authority");
    Ok(authority)
}

fn check_place(settings: &Settings, credentials: &Credentials) -> anyhow::Result<()> {
    let subject = credentials.certificate().subject;
    let place = subject.place;
    if settings.level != Some(place.level)
        || settings.organisation != Some(place.organisation)
        || settings.name.as_ref() != Some(&subject.name)
        || settings.parent.is_some() != subject.parent.is_some()
    {
        bail!(
            "[node] says something else than this node's certificate: name {:?}, level {}, organisation \
             {}, {}. Change [node] to that; or remove the folder `node` in data_dir and enrol anew",
            subject.name,
            place.level,
            place.organisation,
            if subject.parent.is_some() {
                "with a parent"
            } else {
                "without a parent"
            },
        );
    }
    Ok(())
}

/// A node that runs until this is dropped.
pub(crate) struct Running {
    /// Its control core.
    pub(crate) cascade: Cascade,
    node: NodeId,
    around: branch::Around,
    /// With which the deployment's tokens are checked.
    key: [u8; 32],
    /// Where nodes below reach it, if they do.
    #[cfg(test)]
    pub(crate) listens: Option<std::net::SocketAddr>,
    tasks: Vec<AbortHandle>,
}

impl Running {
    /// Joins the node to the media core and the rooms of a hub, which from now on lets in with the
    /// deployment's tokens.
    pub(crate) fn join(&mut self, hub: Arc<Hub>, outputs: mpsc::Receiver<Output>) {
        hub.keys().trust_deployment(&self.key);
        let (around, cascade) = (self.around.clone(), self.cascade.clone());
        let task = branch::start(self.node, around, hub, cascade, outputs);
        self.tasks.push(task);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn start_bus(
    settings: &Settings,
    credentials: &Arc<Credentials>,
    exchange: &Exchange,
    inbox: &mpsc::Sender<Arrival>,
) -> Arc<dyn Bus> {
    let subject = credentials.certificate().subject;
    let node = subject.place.node;
    let Some(url) = &settings.nats else {
        return Arc::new(exchange.join(node, inbox.clone()));
    };
    let of = |url: &String, nodes: &[NodeId]| nats::Server {
        url: url.clone(),
        tls: credentials.client_config(nodes),
    };
    // The server is this node's own or its parent's.
    let nodes: Vec<NodeId> = [node].into_iter().chain(subject.parent).collect();
    let second = settings.second.zip(settings.second_nats.as_ref());
    let second = second.map(|(second, url)| (second, of(url, &[second])));
    Arc::new(nats::NatsBus::connect(node, of(url, &nodes), second, inbox))
}

/// Starts a node. Its outputs are for whoever has the media core and the clients. Nodes of one process
/// that have no NATS share an `exchange`.
pub(crate) async fn start(
    settings: &Settings,
    data_dir: &Path,
    exchange: &Exchange,
) -> anyhow::Result<(Running, mpsc::Receiver<Output>)> {
    let registrar = open(settings, data_dir).await?;
    let credentials = registrar.credentials.clone();
    let subject = credentials.certificate().subject;
    let store = registrar.store.clone();
    let (sender, inbox) = mpsc::channel(INBOX_BOUND);
    let bus = start_bus(settings, &credentials, exchange, &sender);
    let key = certificate::authority_key(credentials.authority());
    let key = key.context("the authority's certificate has another key than Ed25519")?;
    let around = branch::Around {
        above: subject.parent.into_iter().chain(settings.second).collect(),
        siblings: settings.siblings.clone(),
    };
    let config = NodeConfig {
        place: subject.place,
        ways: around.above.clone(),
        siblings: around.siblings.clone(),
        incarnation: store.start().await?,
        logs: store.logs().await?,
    };
    let (cascade, outputs) = Cascade::start(config, credentials.clone(), store, bus.clone(), inbox);
    let mut tasks = Vec::new();
    let mut listens = None;
    if let Some(address) = settings.listen {
        let (address, task) = listener::start(address, registrar.clone())?;
        listens = Some(address);
        tasks.push(task);
    }
    let upkeep = Upkeep {
        settings: settings.clone(),
        folder: folder(data_dir),
        registrar,
        cascade: cascade.clone(),
        bus,
        neighbours: BTreeSet::new(),
    };
    tasks.push(tokio::spawn(upkeep.run()).abort_handle());
    tracing::info!(
        node = %subject.place.node,
        name = subject.name,
        level = %subject.place.level,
        listen = ?listens,
        "this server is a node of a deployment"
    );
    let running = Running {
        cascade,
        node: subject.place.node,
        around,
        key,
        #[cfg(test)]
        listens,
        tasks,
    };
    Ok((running, outputs))
}

/// Keeps current who is a neighbour, what is revoked, and this node's own key.
struct Upkeep {
    settings: Settings,
    folder: PathBuf,
    registrar: Arc<Registrar>,
    cascade: Cascade,
    bus: Arc<dyn Bus>,
    neighbours: BTreeSet<NodeId>,
}

impl Upkeep {
    async fn run(mut self) {
        let credentials = self.registrar.credentials.clone();
        let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    self.refresh().await;
                    self.meet(false).await;
                }
                () = self.registrar.changed.notified() => self.meet(false).await,
                () = credentials.wants.notified() => {}
            }
            self.registrar.fetch_wanted().await;
        }
    }

    async fn refresh(&mut self) {
        if let Err(error) = self.registrar.refresh_revocations().await
            && let Some(suppressed) = NO_UPKEEP.pass(Instant::now())
        {
            tracing::warn!(
                error = format!("{error:#}"),
                suppressed,
                "what was revoked can't be asked for: is the parent at node.parent running?"
            );
        }
        let hosts = &self.settings.hosts;
        match self.registrar.renew_own(hosts, unix_now()).await {
            Ok(false) => {}
            Ok(true) => {
                self.cascade
                    .with(|node, moment| node.announce(moment))
                    .await;
                self.meet(true).await;
            }
            Err(error) => {
                if let Some(suppressed) = NO_RENEWAL.pass(Instant::now()) {
                    let ends = self.registrar.credentials.certificate().ends;
                    tracing::warn!(
                        error = format!("{error:#}"),
                        days_left = (ends - unix_now()) / (24 * 60 * 60),
                        suppressed,
                        "this node's certificate can't be renewed: is the parent at node.parent running?"
                    );
                }
            }
        }
    }

    /// Takes up lines to those who are new, and drops those to whoever is revoked.
    async fn meet(&mut self, is_renewed: bool) {
        let credentials = self.registrar.credentials.clone();
        let subject = credentials.certificate().subject;
        let below = match self.registrar.children().await {
            Ok(children) => children,
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "the data file can't be read");
                return;
            }
        };
        let settings = &self.settings;
        let below: BTreeSet<NodeId> = below
            .into_iter()
            .chain(settings.second_for.iter().copied())
            .filter(|node| !credentials.is_revoked(*node))
            .collect();
        let above = subject.parent.into_iter().chain(settings.second);
        let beside = settings.siblings.iter().copied();
        let neighbours: BTreeSet<NodeId> = above
            .chain(beside)
            .filter(|node| !credentials.is_revoked(*node))
            .chain(below.iter().copied())
            .collect();
        for node in neighbours.difference(&self.neighbours).copied() {
            if credentials.place(node).is_none() {
                credentials.want(node);
            }
            self.bus.listen(node);
            self.cascade
                .with(move |core, moment| core.add_line(moment, node))
                .await;
        }
        for node in self.neighbours.difference(&neighbours).copied() {
            tracing::info!(%node, "a node is no longer a neighbour");
            self.bus.ignore(node);
            self.cascade
                .with(move |core, moment| core.remove_line(moment, node))
                .await;
        }
        self.neighbours = neighbours;
        let nodes: Vec<NodeId> = [subject.place.node].into_iter().chain(below).collect();
        if let Err(error) = nats::admit(&self.folder, &nodes, is_renewed) {
            tracing::warn!(
                error = format!("{error:#}"),
                "the NATS server was not told who may connect"
            );
        }
    }
}
