//! `terrace node …` and `terrace nats …`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use signaling::cascade::{ConferenceId, Level, NodeId, OrganisationId};
use signaling::token::{Claims, ConferenceGrant};

use super::authority::Authority;
use super::certificate::Certificate;
use super::credentials::Credentials;
use super::nats::{self, CLIENT_PORT, LEAF_PORT, ServerConfig};
use super::registrar::{self, INVITATION_BOUND};
use super::settings::split_address;
use super::store::{Invitation, Store, Which, new_place};
use crate::config::Config;
use crate::{Settings, read_duration};

#[derive(Subcommand)]
pub(crate) enum NodeCommand {
    /// Prints a code with which a new node may enrol below this one, once.
    Invite {
        #[command(flatten)]
        settings: Settings,
        /// The new node's name, as in its node.name.
        #[arg(long)]
        name: String,
        /// Its level: city, county, township or village; below this node's.
        #[arg(long)]
        level: Level,
        /// The id of its organisation.
        #[arg(long)]
        organisation: OrganisationId,
        /// How long the code holds, such as 2h; at most 7d.
        #[arg(long, default_value = "24h", value_parser = read_duration)]
        valid_for: Duration,
    },
    /// Enrols this node with a code of its parent's `terrace node invite`.
    Enrol {
        #[command(flatten)]
        settings: Settings,
        /// The code.
        #[arg(allow_hyphen_values = true)]
        code: String,
    },
    /// Lists the nodes that this one knows: itself and all below.
    List {
        #[command(flatten)]
        settings: Settings,
    },
    /// Takes a node below out of the deployment for good.
    Revoke {
        #[command(flatten)]
        settings: Settings,
        /// Its id, as `terrace node list` shows it.
        node: NodeId,
    },
}

#[derive(Subcommand)]
pub(crate) enum NatsCommand {
    /// Writes the configuration of this node's NATS server, and prints where.
    Config {
        #[command(flatten)]
        settings: Settings,
        /// Where this server, and nodes below that have no NATS server of their own, connect.
        #[arg(long, default_value_t = SocketAddr::from((Ipv4Addr::UNSPECIFIED, CLIENT_PORT)))]
        listen: SocketAddr,
        /// Where the NATS servers of nodes below connect.
        #[arg(long, default_value_t = SocketAddr::from((Ipv4Addr::UNSPECIFIED, LEAF_PORT)))]
        leaf_listen: SocketAddr,
        /// The parent's NATS server, HOST:PORT; its host in node.parent and port 7422 if not said.
        #[arg(long)]
        parent: Option<String>,
    },
}

/// Whom a token lets into which conference.
pub(crate) struct Grant {
    pub(crate) conference: ConferenceId,
    pub(crate) organisation: OrganisationId,
    /// The node that holds it; this one if not said.
    pub(crate) root: Option<NodeId>,
    pub(crate) chair_of: Option<NodeId>,
}

/// Signs a token with the deployment's key, where that is held.
pub(crate) fn sign_token(config: &Config, grant: Grant, claims: Claims) -> anyhow::Result<String> {
    let folder = super::folder(&config.data_dir);
    let Some(authority) = Authority::open(&folder)? else {
        bail!(
            "this server does not hold a deployment's authority: make tokens for conferences at the node \
             without a parent"
        );
    };
    let own = Credentials::open(&folder)?.context("the node's own certificate is not there")?;
    let conference = ConferenceGrant {
        root: grant.root.unwrap_or(own.certificate().node()),
        organisation: grant.organisation,
        chair_of: grant.chair_of,
    };
    authority.sign_token(grant.conference, conference, claims)
}

fn load(settings: &Settings) -> anyhow::Result<Config> {
    let config = settings.load()?;
    if !config.node.is_set() {
        bail!("this server is not a node of a deployment: set [node] in its configuration");
    }
    let faults = config.node.faults();
    if !faults.is_empty() {
        bail!(
            "these settings can't be run with:\n- {}",
            faults.join("\n- ")
        );
    }
    crate::serve::prepare_data_dir(&config.data_dir)?;
    Ok(config)
}

pub(crate) async fn node(command: NodeCommand) -> anyhow::Result<()> {
    match command {
        NodeCommand::Invite {
            settings,
            name,
            level,
            organisation,
            valid_for,
        } => {
            let config = load(&settings)?;
            if valid_for > INVITATION_BOUND {
                bail!("a code holds for at most seven days");
            }
            let name = crate::meetings::read_name(&name)
                .context("a node's name has 1 to 64 characters and no control characters")?;
            let registrar = super::open(&config.node, &config.data_dir).await?;
            let invitation = Invitation {
                place: new_place(level, organisation),
                name,
            };
            let code = registrar.invite(&invitation, valid_for).await?;
            eprintln!(
                "请在新节点上运行(一次有效)/ Run this at the new node; it works once:\n  \
                 terrace node enrol CODE"
            );
            println!("{}", code.text());
        }
        NodeCommand::Enrol { settings, code } => {
            let config = load(&settings)?;
            let folder = super::folder(&config.data_dir);
            crate::serve::prepare_data_dir(&folder)?;
            if super::credentials::own_file(&folder).exists() {
                bail!(
                    "this node is enrolled already. To enrol it anew, remove {}",
                    folder.display()
                );
            }
            let certificate = registrar::enrol(&config.node, &folder, &code).await?;
            Store::open(&config.data_dir)
                .await?
                .keep(&certificate)
                .await?;
            println!("{}", show(&certificate, None));
            super::open(&config.node, &config.data_dir).await?;
        }
        NodeCommand::List { settings } => {
            let config = load(&settings)?;
            let store = Store::open(&config.data_dir).await?;
            let mut latest: BTreeMap<NodeId, (Certificate, Option<i64>)> = BTreeMap::new();
            for (certificate, revoked) in store.certificates(Which::All).await? {
                latest.insert(certificate.node(), (certificate, revoked));
            }
            for (certificate, revoked) in latest.values() {
                println!("{}", show(certificate, *revoked));
            }
        }
        NodeCommand::Revoke { settings, node } => {
            let config = load(&settings)?;
            let registrar = super::open(&config.node, &config.data_dir).await?;
            registrar.revoke(node).await?;
            println!("已吊销 Revoked: {node}");
        }
    }
    Ok(())
}

fn show(certificate: &Certificate, revoked: Option<i64>) -> String {
    let subject = &certificate.subject;
    let parent = match subject.parent {
        Some(parent) => parent.to_string(),
        None => "-".to_owned(),
    };
    let end = match revoked {
        Some(at) => format!("已吊销 revoked {}", crate::show_time(at * 1000)),
        None => format!("至 until {}", crate::show_time(certificate.ends * 1000)),
    };
    format!(
        "{}\t{}\t{}\t上级 parent {parent}\t{end}",
        subject.place.node, subject.place.level, subject.name
    )
}

pub(crate) async fn nats(command: NatsCommand) -> anyhow::Result<()> {
    let NatsCommand::Config {
        settings,
        listen,
        leaf_listen,
        parent,
    } = command;
    let config = load(&settings)?;
    let registrar = super::open(&config.node, &config.data_dir).await?;
    let parent = match (parent, &config.node.parent) {
        (Some(parent), _) => {
            split_address(&parent).context("--parent must be HOST:PORT")?;
            Some(parent)
        }
        (None, Some(address)) => {
            let (host, _) = address
                .rsplit_once(':')
                .context("node.parent is HOST:PORT")?;
            Some(format!("{host}:{LEAF_PORT}"))
        }
        (None, None) => None,
    };
    let server = ServerConfig {
        node: registrar.credentials.certificate().node(),
        listen,
        leaf_listen,
        parent,
    };
    let mut nodes = vec![server.node];
    nodes.extend(registrar.children().await?);
    nodes.extend(&config.node.second_for);
    let folder = super::folder(&config.data_dir);
    let file = nats::write_config(&folder, &server, &nodes)?;
    println!("nats-server --config {}", file.display());
    Ok(())
}
