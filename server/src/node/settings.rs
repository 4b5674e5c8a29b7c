//! The `[node]` part of the configuration.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use signaling::cascade::{Level, NodeId, OrganisationId};

use super::certificate::{NODE_DOMAIN, is_host};
use crate::config::one_or_many;
use crate::meetings::read_name;

/// This server's place among the nodes of a deployment.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Node {
    /// The node's name, such as `清原县`. Without it this server stands alone, and nothing else is set
    /// under `node`.
    pub(crate) name: Option<String>,
    /// `province`, `city`, `county`, `township` or `village`.
    #[schemars(with = "Option<String>")]
    pub(crate) level: Option<Level>,
    /// The id of the organisation whose node this is, a UUID.
    #[schemars(with = "Option<String>")]
    pub(crate) organisation: Option<OrganisationId>,
    /// The parent's address for nodes, HOST:PORT: its `node.listen` as this node reaches it. The node
    /// without one holds the deployment's certificate authority.
    pub(crate) parent: Option<String>,
    /// The id of the node over which the way up leads when the parent can't be reached. That node
    /// names this one in `node.second_for`.
    #[schemars(with = "Option<String>")]
    pub(crate) second: Option<NodeId>,
    /// The ids of the nodes whose second way up this node is.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "Vec<String>")]
    pub(crate) second_for: Vec<NodeId>,
    /// The ids of nodes of this level with the same parent, which name this one likewise.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "Vec<String>")]
    pub(crate) siblings: Vec<NodeId>,
    /// The TCP address to listen on for the nodes below, such as `0.0.0.0:7887`. Without it there are
    /// none.
    #[schemars(with = "Option<String>")]
    pub(crate) listen: Option<SocketAddr>,
    /// The names and addresses under which the nodes below reach this node and its NATS server. They
    /// stand in its certificate.
    #[serde(deserialize_with = "one_or_many")]
    pub(crate) hosts: Vec<String>,
    /// The NATS server that carries what nodes tell each other, such as `tls://localhost:4222`: this
    /// node's own, or, where it has none, its parent's.
    pub(crate) nats: Option<String>,
    /// The NATS server of the node in `node.second`.
    pub(crate) second_nats: Option<String>,
}

/// `HOST:PORT` in its two parts, of an IPv6 address without its brackets.
pub(crate) fn split_address(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(host) => host.strip_suffix(']')?,
        None => host,
    };
    let port = port.parse().ok().filter(|port| *port != 0)?;
    is_host(host).then_some((host, port))
}

/// The address in `tls://HOST:PORT`.
pub(crate) fn nats_address(url: &str) -> Option<&str> {
    let address = url.strip_prefix("tls://")?;
    split_address(address).map(|_| address)
}

impl Node {
    /// Whether this server is a node of a deployment.
    pub(crate) fn is_set(&self) -> bool {
        self.name.is_some()
    }

    /// What can't be run with, in words.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |is_wrong: bool, words: &str| {
            if is_wrong {
                faults.push(words.to_owned());
            }
        };
        let Some(name) = &self.name else {
            let is_empty = self.level.is_none()
                && self.organisation.is_none()
                && self.parent.is_none()
                && self.second.is_none()
                && self.second_for.is_empty()
                && self.siblings.is_empty()
                && self.listen.is_none()
                && self.hosts.is_empty()
                && self.nats.is_none()
                && self.second_nats.is_none();
            fault(
                !is_empty,
                "node.name is missing, but other settings of [node] are there: give the node a name, \
                 or take them out.",
            );
            return faults;
        };
        fault(
            read_name(name).is_none(),
            "node.name has 1 to 64 characters and no control characters.",
        );
        fault(
            self.level.is_none(),
            "node.level is missing: province, city, county, township or village.",
        );
        fault(
            self.organisation.is_none(),
            "node.organisation is missing: the id of the organisation whose node this is.",
        );
        fault(
            self.parent
                .as_deref()
                .is_some_and(|address| split_address(address).is_none()),
            "node.parent must be HOST:PORT, such as county.example.gov.cn:7887.",
        );
        fault(
            self.parent.is_none() && (self.second.is_some() || !self.siblings.is_empty()),
            "node.second and node.siblings are for nodes that have a node.parent.",
        );
        fault(
            self.parent.is_none() && self.level == Some(Level::Village),
            "node.parent is missing: a village is below something.",
        );
        fault(
            self.level == Some(Level::Village) && self.listen.is_some(),
            "node.listen is for nodes that have others below; a village has none.",
        );
        fault(
            self.parent.is_some() && self.nats.is_none(),
            "node.nats is missing: without a NATS server nothing is told to the parent. A node without \
             one of its own names its parent's.",
        );
        fault(
            self.second.is_some() != self.second_nats.is_some(),
            "node.second and node.second_nats go together.",
        );
        for (setting, url) in [
            ("node.nats", &self.nats),
            ("node.second_nats", &self.second_nats),
        ] {
            fault(
                url.as_deref()
                    .is_some_and(|url| nats_address(url).is_none()),
                &format!(
                    "{setting} must be tls://HOST:PORT. Nodes speak to NATS over TLS only, each with \
                     its own certificate."
                ),
            );
        }
        let others: Vec<NodeId> = self.second.iter().chain(&self.siblings).copied().collect();
        let others: Vec<NodeId> = others.into_iter().chain(self.second_for.clone()).collect();
        let mut unlike = others.clone();
        unlike.sort_unstable();
        unlike.dedup();
        fault(
            unlike.len() != others.len(),
            "a node stands once in node.second, node.second_for and node.siblings together.",
        );
        for host in &self.hosts {
            fault(
                !is_host(host) || host.ends_with(NODE_DOMAIN),
                &format!("node.hosts: {host:?} is neither a host's name nor an address."),
            );
        }
        fault(
            self.listen.is_some() && self.hosts.is_empty(),
            "node.listen needs node.hosts: under which names or addresses the nodes below reach this \
             one.",
        );
        faults
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn county() -> Node {
        Node {
            name: Some("清原县".into()),
            level: Some(Level::County),
            organisation: Some(OrganisationId(3)),
            parent: Some("city.example.gov.cn:7887".into()),
            listen: Some("127.0.0.1:7887".parse().unwrap()),
            hosts: vec!["county.example.gov.cn".into(), "10.1.2.3".into()],
            nats: Some("tls://localhost:4222".into()),
            ..Node::default()
        }
    }

    #[test]
    fn a_single_node_needs_nothing_and_a_county_what_it_is() {
        assert!(Node::default().faults().is_empty());
        assert!(county().faults().is_empty());
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let with = |change: fn(&mut Node)| {
            let mut node = county();
            change(&mut node);
            let faults = node.faults();
            assert_eq!(faults.len(), 1, "{faults:?}");
            faults[0].clone()
        };
        assert!(with(|n| n.name = None).contains("node.name"));
        assert!(with(|n| n.name = Some(" ".into())).contains("node.name"));
        assert!(with(|n| n.level = None).contains("node.level"));
        assert!(with(|n| n.organisation = None).contains("node.organisation"));
        for parent in ["city", "city:", "city:0", "ci ty:1", ":1", "https://city:1"] {
            let mut node = county();
            node.parent = Some(parent.into());
            assert!(node.faults()[0].contains("node.parent"), "{parent}");
        }
        assert!(with(|n| n.nats = None).contains("node.nats"));
        assert!(with(|n| n.nats = Some("nats://localhost:4222".into())).contains("tls://"));
        assert!(with(|n| n.second = Some(NodeId(1))).contains("second_nats"));
        assert!(with(|n| n.siblings = vec![NodeId(1); 2]).contains("stands once"));
        assert!(with(|n| n.hosts = vec!["a b".into()]).contains("node.hosts"));
        assert!(with(|n| n.hosts = vec![format!("x.{NODE_DOMAIN}")]).contains("node.hosts"));
        assert!(with(|n| n.hosts.clear()).contains("node.hosts"));
    }

    #[test]
    fn the_file_is_read_with_ids_and_levels_checked() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("terrace.toml");
        let load = |text: &str| {
            std::fs::write(&file, text).unwrap();
            crate::config::Config::load(Some(&file), false)
        };
        let config = load(
            "[node]\nname = \"a\"\nlevel = \"city\"\n\
             organisation = \"0190a000-0000-7000-8000-0000000000ff\"\n\
             siblings = [\"0190a000-0000-7000-8000-0000000000fe\"]\n",
        )
        .unwrap();
        assert_eq!(config.node.level, Some(Level::City));
        assert_eq!(config.node.siblings.len(), 1);
        for (bad, named) in [
            ("level = \"state\"", "state"),
            ("organisation = \"21\"", "UUID"),
            ("siblings = [\"x\"]", "UUID"),
            ("listen = \"here\"", "listen"),
            ("parents = \"x:1\"", "parents"),
        ] {
            let error = load(&format!("[node]\n{bad}\n")).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
