//! Carries messages over NATS, and writes what a node's NATS server is started with.
//!
//! There is a subject for each pair of nodes and direction, `terrace.node.TO.FROM`. A node may publish
//! only as itself and subscribe only to what is for it; its certificate tells the server who it is.
//! Servers are joined as leaf nodes: a child's server connects to its parent's with the child's
//! certificate, and over it goes what that node says and is told, and nothing else. A node subscribes
//! to each neighbour by name, since a server passes on only what the permissions of the other end
//! cover as a whole.
//!
//! Nothing is stored on the way. Whatever happens to a server, the node goes on without it, and comes
//! back to it by itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_nats::connection::State;
use futures_util::StreamExt as _;
use signaling::cascade::{MESSAGE_BOUND, NodeId};
use signaling::log_limit::LogLimit;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::bus::{Arrival, Bus, arrive};
use super::certificate::node_host;
use crate::tls::write_private;

/// The port of NATS for nodes without a server of their own.
pub(crate) const CLIENT_PORT: u16 = 4222;

/// The port of NATS for the servers of nodes below.
pub(crate) const LEAF_PORT: u16 = 7422;

/// How often a connection to the server is probed. Two probes without an answer end it, which is
/// sooner than a line is given up for.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// How long a connection may take to be made.
const CONNECT_TIME: Duration = Duration::from_secs(3);

/// The pause before the second try to connect; each further one is twice as long.
const RETRY_FIRST: Duration = Duration::from_millis(100);

/// The longest pause. Longer spares a server that everybody comes back to at once; shorter heals
/// sooner.
const RETRY_AT_MOST: Duration = Duration::from_secs(1);

/// Messages that wait to be handed to the server.
const QUEUE_BOUND: usize = 1024;

static TROUBLE: LogLimit = LogLimit::new();

/// Where `from` speaks to `to`.
fn subject(to: NodeId, from: NodeId) -> String {
    format!("terrace.node.{to}.{from}")
}

/// What a connection is to do.
struct Queue {
    /// To whom it is to listen, or no longer. None of these may be lost: there are few.
    heard: mpsc::UnboundedSender<(NodeId, bool)>,
    /// What is to be sent, to whom. These may be lost.
    messages: mpsc::Sender<(NodeId, Vec<u8>)>,
}

/// A NATS server to connect to, and how.
pub(crate) struct Server {
    /// `tls://HOST:PORT`.
    pub(crate) url: String,
    /// Whose server it must be, and this node's certificate.
    pub(crate) tls: rustls::ClientConfig,
}

/// A node's connections to NATS.
pub(crate) struct NatsBus {
    first: Queue,
    second: Option<(NodeId, Queue)>,
}

impl NatsBus {
    /// Connects, and goes on trying. What the node `second` says and is told goes over a server of its
    /// own, if there is one.
    pub(crate) fn connect(
        node: NodeId,
        first: Server,
        second: Option<(NodeId, Server)>,
        inbox: &mpsc::Sender<Arrival>,
    ) -> NatsBus {
        let start = |server| {
            let (heard, changes) = mpsc::unbounded_channel();
            let (messages, outgoing) = mpsc::channel(QUEUE_BOUND);
            tokio::spawn(carry(node, server, changes, outgoing, inbox.clone()));
            Queue { heard, messages }
        };
        NatsBus {
            first: start(first),
            second: second.map(|(second, server)| (second, start(server))),
        }
    }

    fn queue(&self, neighbour: NodeId) -> &Queue {
        match &self.second {
            Some((second, queue)) if *second == neighbour => queue,
            _ => &self.first,
        }
    }
}

impl Bus for NatsBus {
    fn listen(&self, neighbour: NodeId) {
        let _ = self.queue(neighbour).heard.send((neighbour, true));
    }

    fn ignore(&self, neighbour: NodeId) {
        let _ = self.queue(neighbour).heard.send((neighbour, false));
    }

    fn send(&self, to: NodeId, message: Vec<u8>) {
        let _ = self.queue(to).messages.try_send((to, message));
    }
}

fn retry_delay(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(2)).unwrap_or(u32::MAX);
    match attempts {
        0 | 1 => Duration::ZERO,
        _ => RETRY_AT_MOST.min(RETRY_FIRST.saturating_mul(2u32.saturating_pow(doublings))),
    }
}

async fn connect(server: &Server) -> async_nats::Client {
    loop {
        let options = async_nats::ConnectOptions::new()
            .name("terrace")
            .require_tls(true)
            .tls_client_config(server.tls.clone())
            .ping_interval(PING_INTERVAL)
            .connection_timeout(CONNECT_TIME)
            .reconnect_delay_callback(retry_delay)
            .retry_on_initial_connect()
            .ignore_discovered_servers()
            .client_capacity(QUEUE_BOUND)
            .event_callback(report);
        match options.connect(server.url.as_str()).await {
            Ok(client) => return client,
            Err(error) => {
                tracing::error!(
                    url = server.url,
                    %error,
                    "NATS can't be used: check node.nats and this machine's trusted certificates"
                );
                tokio::time::sleep(RETRY_AT_MOST).await;
            }
        }
    }
}

async fn report(event: async_nats::Event) {
    match event {
        async_nats::Event::Connected => tracing::info!("connected to the NATS server"),
        async_nats::Event::Disconnected => tracing::warn!(
            "the NATS server can't be reached: is it running? Calls go on; other nodes hear nothing"
        ),
        other => {
            if let Some(suppressed) = TROUBLE.pass(Instant::now()) {
                tracing::warn!(
                    event = %other,
                    suppressed,
                    "the NATS server does not take this node: does it run, and is this node enrolled \
                     where the server stands?"
                );
            }
        }
    }
}

async fn carry(
    node: NodeId,
    server: Server,
    mut changes: mpsc::UnboundedReceiver<(NodeId, bool)>,
    mut outgoing: mpsc::Receiver<(NodeId, Vec<u8>)>,
    inbox: mpsc::Sender<Arrival>,
) {
    let client = connect(&server).await;
    let mut readers: BTreeMap<NodeId, AbortHandle> = BTreeMap::new();
    loop {
        tokio::select! {
            biased;
            Some((neighbour, is_heard)) = changes.recv() => {
                if let Some(reader) = readers.remove(&neighbour) {
                    reader.abort();
                }
                if is_heard
                    && let Ok(messages) = client.subscribe(subject(node, neighbour)).await
                {
                    let reader = tokio::spawn(read(neighbour, messages, inbox.clone()));
                    readers.insert(neighbour, reader.abort_handle());
                }
            }
            message = outgoing.recv() => {
                let Some((to, message)) = message else { break };
                // What can't be sent now would come too late.
                if client.connection_state() == State::Connected {
                    let _ = client.publish(subject(to, node), message.into()).await;
                }
            }
        }
    }
    for reader in readers.into_values() {
        reader.abort();
    }
}

async fn read(from: NodeId, mut messages: async_nats::Subscriber, inbox: mpsc::Sender<Arrival>) {
    while let Some(message) = messages.next().await {
        let message = message.payload;
        arrive(&inbox, Arrival { from, message });
    }
}

/// What a node's NATS server is to do.
#[derive(Clone, Debug)]
pub(crate) struct ServerConfig {
    /// The node.
    pub(crate) node: NodeId,
    /// Where nodes without a server of their own, and this one, connect.
    pub(crate) listen: SocketAddr,
    /// Where the servers of nodes below connect.
    pub(crate) leaf_listen: SocketAddr,
    /// The parent's server, HOST:PORT.
    pub(crate) parent: Option<String>,
}

/// The file that a node's NATS server is started with.
pub(crate) fn config_file(folder: &Path) -> PathBuf {
    folder.join("nats.conf")
}

fn nodes_file(folder: &Path) -> PathBuf {
    folder.join("nats-nodes.conf")
}

fn pid_file(folder: &Path) -> PathBuf {
    folder.join("nats.pid")
}

/// A path or an address as a string in NATS' configuration.
fn quoted(text: impl std::fmt::Display) -> String {
    let text = text.to_string().replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{text}\"")
}

/// Writes the configuration of a node's NATS server into the node's folder. Certificate and key are the
/// node's own. `nodes` are those that may connect, this one included.
pub(crate) fn write_config(
    folder: &Path,
    config: &ServerConfig,
    nodes: &[NodeId],
) -> anyhow::Result<PathBuf> {
    let folder = std::path::absolute(folder)?;
    let own = quoted(super::credentials::own_file(&folder).display());
    let authority = quoted(super::authority::certificate_file(&folder).display());
    let tls = |extra: &str| {
        format!(
            "tls {{ cert_file: {own}, key_file: {own}, ca_file: {authority}, timeout: 5{extra} }}"
        )
    };
    let verified = tls(", verify_and_map: true");
    let remotes = config.parent.as_ref().map(|parent| {
        let url = quoted(format!("tls://{parent}"));
        format!("\n  remotes: [ {{ url: {url}, {} }} ]", tls(""))
    });
    let text = format!(
        "# Made by `terrace nats config`. `terrace serve` keeps {nodes_file} current.\n\
         server_name: {name}\n\
         listen: {listen}\n\
         pid_file: {pid}\n\
         max_payload: {MESSAGE_BOUND}\n\
         ping_interval: \"1s\"\n\
         ping_max: 2\n\
         write_deadline: \"2s\"\n\
         {verified}\n\
         authorization {{ include {nodes_file} }}\n\
         leafnodes {{\n  \
         listen: {leaf_listen}\n  \
         reconnect: 1\n  \
         {verified}{remotes}\n\
         }}\n",
        nodes_file = quoted("nats-nodes.conf"),
        name = quoted(config.node),
        listen = quoted(config.listen),
        pid = quoted(pid_file(&folder).display()),
        leaf_listen = quoted(config.leaf_listen),
        remotes = remotes.unwrap_or_default(),
    );
    write_nodes(&folder, nodes)?;
    let file = config_file(&folder);
    write_private(&file, text.as_bytes())?;
    Ok(file)
}

/// Writes who may connect to a node's NATS server, and what each may publish and subscribe to; whether
/// anything changed.
fn write_nodes(folder: &Path, nodes: &[NodeId]) -> anyhow::Result<bool> {
    let mut text = String::from("users: [\n");
    for node in nodes {
        let (user, all) = (quoted(node_host(*node)), "*");
        let _ = writeln!(
            text,
            "  {{ user: {user}, permissions: {{ publish: {{ allow: [{}] }}, \
             subscribe: {{ allow: [{}] }} }} }}",
            quoted(format!("terrace.node.{all}.{node}")),
            quoted(format!("terrace.node.{node}.{all}")),
        );
    }
    text.push_str("]\n");
    let file = nodes_file(folder);
    if std::fs::read_to_string(&file).is_ok_and(|present| present == text) {
        return Ok(false);
    }
    write_private(&file, text.as_bytes())?;
    Ok(true)
}

/// If there is a configuration of a NATS server in the node's folder: lets just these nodes connect. The
/// server, if it runs, is asked to read its files again when that changed or `is_renewed` says so.
pub(crate) fn admit(folder: &Path, nodes: &[NodeId], is_renewed: bool) -> anyhow::Result<()> {
    if !config_file(folder).exists() || !(write_nodes(folder, nodes)? | is_renewed) {
        return Ok(());
    }
    reload(folder).context(
        "the NATS server must read its configuration again: run `nats-server --signal reload`",
    )
}

#[cfg(target_os = "linux")]
fn reload(folder: &Path) -> anyhow::Result<()> {
    use rustix::process::{Pid, Signal, kill_process};
    let Ok(pid) = std::fs::read_to_string(pid_file(folder)) else {
        // It is not running.
        return Ok(());
    };
    let pid: i32 = pid.trim().parse().context("nats.pid is damaged")?;
    // After a crash its number may be another program's.
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    match Pid::from_raw(pid) {
        Some(pid) if name.trim() == "nats-server" => Ok(kill_process(pid, Signal::HUP)?),
        _ => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
fn reload(_: &Path) -> anyhow::Result<()> {
    anyhow::bail!("this system is not known here")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        let delays: Vec<u128> = [1, 2, 3, 4, 5, 6, 7, 1000, usize::MAX]
            .map(|attempts| retry_delay(attempts).as_millis())
            .into();
        assert_eq!(delays, [0, 100, 200, 400, 800, 1000, 1000, 1000, 1000]);
    }

    #[test]
    fn a_node_may_publish_as_itself_and_read_what_is_for_it() {
        let folder = tempfile::tempdir().unwrap();
        assert!(write_nodes(folder.path(), &[NodeId(1)]).unwrap());
        assert!(!write_nodes(folder.path(), &[NodeId(1)]).unwrap());
        let text = std::fs::read_to_string(nodes_file(folder.path())).unwrap();
        let id = NodeId(1);
        assert_eq!(
            text,
            format!(
                "users: [\n  {{ user: \"{id}.node.terrace.internal\", permissions: {{ \
                 publish: {{ allow: [\"terrace.node.*.{id}\"] }}, \
                 subscribe: {{ allow: [\"terrace.node.{id}.*\"] }} }} }}\n]\n"
            )
        );
    }
}
