//! The configuration: one file, variables on top, and a check that says no to insecure settings.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use figment::Figment;
use figment::providers::{Env, Format as _, Serialized, Toml};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// The shortest secret of an API key outside `--dev`, in characters. HS256 keys shorter than its
/// hash can be searched for.
pub(crate) const SECRET_LENGTH: usize = 32;

/// The API key that `--dev` has, as developers of LiveKit applications expect.
pub(crate) const DEV_KEY: &str = "devkey";
/// Its secret.
pub(crate) const DEV_SECRET: &str = "secret";

/// Secrets from examples and tutorials: known to everybody.
const KNOWN_SECRETS: [&str; 3] = [
    DEV_SECRET,
    "abcdefghijklmnopqrstuvwxyz012345",
    "this-is-a-secret-of-at-least-32-characters",
];

/// All settings.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The folder for everything that must survive a restart: meetings, the directory, keys and the
    /// self-made certificate. Only the server's user may read it.
    pub(crate) data_dir: PathBuf,
    /// The address at which people reach this server, such as `https://meet.example.gov.cn`. It
    /// stands in the links that are printed. Without it they name the host and port of
    /// `http.listen`.
    pub(crate) public_url: Option<String>,
    /// Pages, signalling and server API.
    pub(crate) http: Http,
    /// The certificate.
    pub(crate) tls: Tls,
    /// Audio and video.
    pub(crate) media: Media,
    /// Numbers for monitoring.
    pub(crate) metrics: Metrics,
    /// API keys and their secrets for applications that use the LiveKit server API or make their
    /// own tokens, such as `my-application = "…"`. A secret has at least 32 characters. None are
    /// needed for meetings made with `terrace meeting create`.
    pub(crate) keys: BTreeMap<String, String>,
    /// Organisations, people, sign-in and the audit log.
    pub(crate) directory: DirectorySettings,
    /// Bounds of the whole server.
    pub(crate) limits: Limits,
    /// This server's place among the nodes of a deployment.
    pub(crate) node: crate::node::settings::Node,
}

/// Organisations, people, sign-in and the audit log.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DirectorySettings {
    /// The PostgreSQL database, such as `postgres://terrace@localhost/terrace?host=/run/postgresql`, or
    /// `postgres://terrace:PASSWORD@db.example/terrace?sslmode=verify-full`. Over a network it must be
    /// `verify-full` or `verify-ca`. Without it the directory is the file `directory.sqlite` in
    /// `data_dir`. `terrace admin move-to-postgres` moves it.
    #[schemars(with = "Option<String>")]
    pub(crate) postgres: Option<PostgresUrl>,
    /// A list of passwords that everybody who guesses tries first: on each line one, or the SHA-1 of
    /// one as published lists have it, with or without a colon and a count. At most 256 MiB.
    pub(crate) breached_passwords: Option<PathBuf>,
    /// After how many minutes without anything done a session ends; 1 to 120.
    pub(crate) session_idle_minutes: u32,
    /// After how many hours a session ends whatever is done; 1 to 24.
    pub(crate) session_hours: u32,
}

/// The address of a PostgreSQL database; written without its password.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct PostgresUrl(pub(crate) String);

impl PostgresUrl {
    /// The part that may be shown.
    fn shown(&self) -> String {
        match self.0.split_once("://") {
            Some((scheme, rest)) => {
                // A password may stand before the host, and as a parameter.
                let rest = rest.split(['?', '#']).next().unwrap_or_default();
                let rest = match rest.rsplit_once('@') {
                    Some((who, place)) => {
                        let name = who.split(':').next().unwrap_or_default();
                        format!("{name}@{place}")
                    }
                    None => rest.to_owned(),
                };
                format!("{scheme}://{rest}")
            }
            None => "(not an address)".to_owned(),
        }
    }

    /// `Err` when it is no address of a database, `Ok(Some)` when it is not safe to use.
    pub(crate) fn faults(&self) -> Result<Option<String>, String> {
        let shown = self.shown();
        let rest = self
            .0
            .strip_prefix("postgres://")
            .or(self.0.strip_prefix("postgresql://"));
        let Some(rest) = rest else {
            return Err(format!(
                "directory.postgres {shown}: it must begin with postgres://."
            ));
        };
        let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let parameter = |name: &str| {
            let mut pairs = parameters
                .split('&')
                .filter_map(|pair| pair.split_once('='));
            pairs
                .find(|(named, _)| *named == name)
                .map(|(_, value)| value)
        };
        let place = place.split('/').next().unwrap_or_default();
        let host = place.rsplit('@').next().unwrap_or_default();
        let host = match host.strip_prefix('[') {
            Some(v6) => v6.split(']').next().unwrap_or_default(),
            None => host.split(':').next().unwrap_or_default(),
        };
        let host = parameter("host").or(parameter("hostaddr")).unwrap_or(host);
        let is_local = host.is_empty()
            || host == "localhost"
            || host.starts_with('/')
            || host.starts_with("%2F")
            || host.starts_with("%2f")
            || host
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback());
        let is_verified = matches!(
            parameter("sslmode").or(parameter("ssl-mode")),
            Some("verify-full" | "verify-ca")
        );
        Ok((!is_local && !is_verified).then(|| {
            format!(
                "directory.postgres {shown}: the password and everybody's data would go over the network without the \
                 server being known. Add sslmode=verify-full to the address (and sslrootcert=FILE for an authority of \
                 your own)."
            )
        }))
    }
}

impl std::fmt::Debug for PostgresUrl {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.shown())
    }
}

impl Serialize for PostgresUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.shown())
    }
}

/// Pages, signalling and server API.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Http {
    /// The TCP address to listen on.
    #[schemars(with = "String")]
    pub(crate) listen: SocketAddr,
    /// Whether a reverse proxy in front of this server does TLS. Only then may `tls.mode` be `off`
    /// on an address that others can reach.
    pub(crate) behind_proxy: bool,
    /// Addresses of the reverse proxies whose `X-Forwarded-For` is believed.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "Vec<String>")]
    pub(crate) trusted_proxies: Vec<IpAddr>,
}

/// Where the certificate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TlsMode {
    /// From `tls.certificate` and `tls.key`.
    Files,
    /// Made on first run and kept in `data_dir`; browsers ask before they accept it.
    SelfMade,
    /// Plain HTTP.
    Off,
}

/// The certificate.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    /// `files`: from `tls.certificate` and `tls.key`. `self-made`: made on first run and kept in
    /// `data_dir`, for trying on a local network. `off`: plain HTTP, on this machine only or
    /// behind a proxy. Browsers open cameras only over TLS or on the machine itself.
    #[schemars(with = "String")]
    pub(crate) mode: TlsMode,
    /// The certificate chain, a PEM file, for `files`.
    pub(crate) certificate: Option<PathBuf>,
    /// The private key, a PEM file that others can't read, for `files`.
    pub(crate) key: Option<PathBuf>,
    /// Names and addresses that the self-made certificate shall also carry.
    #[serde(deserialize_with = "one_or_many")]
    pub(crate) names: Vec<String>,
}

/// Audio and video.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Media {
    /// The UDP addresses to listen on. `0.0.0.0` and `[::]` stand for all addresses of this machine.
    /// The first shard listens on this port, and each further one on the port after it.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "Vec<String>")]
    pub(crate) listen: Vec<SocketAddr>,
    /// Threads of the media core (shards), each with a UDP port of its own; a room lies on one of them.
    /// 0: as many as there are processor cores, at most 16.
    pub(crate) shards: u16,
    /// Addresses to tell clients instead, such as a router's public address that is forwarded here.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "Vec<String>")]
    pub(crate) announce: Vec<IpAddr>,
    /// STUN and TURN servers that clients, encoders and players are told of, such as
    /// `stun:stun.example.net`, or `turn:turn.example.net?transport=udp NAME PASSWORD`. None is
    /// needed where they reach the addresses above.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "Vec<String>")]
    pub(crate) ice_servers: Vec<IceServer>,
}

/// Shards unless more are wanted: so many ports stand in a firewall's rule.
const SHARDS_UNASKED: usize = 16;

/// The most shards.
const SHARDS_BOUND: u16 = 256;

impl Media {
    /// How many shards are started.
    pub(crate) fn shard_count(&self) -> u16 {
        if self.shards > 0 {
            return self.shards;
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        cores.min(SHARDS_UNASKED) as u16
    }

    /// Where a shard listens.
    ///
    /// # Errors
    /// When there is no such port.
    pub(crate) fn listen_of(&self, shard: u16) -> anyhow::Result<Vec<SocketAddr>> {
        let of_shard = |address: &SocketAddr| {
            let mut address = *address;
            // 0 is any free one.
            if address.port() != 0 {
                let port = address.port().checked_add(shard);
                address.set_port(port.with_context(|| {
                    format!("media.listen: there is no port for shard {shard} after {address}")
                })?);
            }
            Ok(address)
        };
        self.listen.iter().map(of_shard).collect()
    }
}

/// A STUN or TURN server; written without its password.
#[derive(Clone, Debug)]
pub(crate) struct IceServer(pub(crate) signaling::IceServer);

impl Serialize for IceServer {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.url)
    }
}

impl std::str::FromStr for IceServer {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<IceServer, Self::Err> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let (url, username, credential) = match words[..] {
            [url] if !url.starts_with("turn") => (url, "", ""),
            [url, username, credential] => (url, username, credential),
            _ => return Err("write stun:HOST, or turn:HOST and a name and a password after it"),
        };
        let is_known = ["stun:", "stuns:", "turn:", "turns:"]
            .iter()
            .any(|scheme| url.starts_with(scheme) && url.len() > scheme.len());
        if !is_known || !text.is_ascii() || url.contains(['<', '>', '"']) {
            return Err("an address begins with stun:, stuns:, turn: or turns:");
        }
        Ok(IceServer(signaling::IceServer {
            url: url.to_owned(),
            username: username.to_owned(),
            credential: credential.to_owned(),
        }))
    }
}

/// Numbers for monitoring.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Metrics {
    /// The TCP address that serves `/metrics`, `/healthz` and `/readyz` over plain HTTP. Keep it
    /// away from the public.
    #[schemars(with = "String")]
    pub(crate) listen: SocketAddr,
}

/// Bounds of the whole server.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    /// The most rooms at once.
    pub(crate) rooms: usize,
    /// The most participants in all rooms.
    pub(crate) participants: usize,
    /// The most participants in one room that sets no bound itself; 0 is no bound.
    pub(crate) participants_per_room: u32,
    /// The most TCP connections, those of WebSockets included; 0 is as many as the system lets
    /// this process open, and more than that is never taken.
    pub(crate) connections: usize,
    /// The most TCP connections from one address (of IPv6: one /64); 0 is no bound. Everybody
    /// behind one router shares an address: raise it for large offices. Proxies named in
    /// `http.trusted_proxies` are not counted.
    pub(crate) connections_per_address: usize,
    /// The most sessions (participants' WebSockets) from one address, proxies seen through; 0 is
    /// no bound.
    pub(crate) sessions_per_address: usize,
    /// How long a room stays open while nobody has come, in seconds.
    pub(crate) empty_timeout: u64,
    /// How long a room stays open after the last participant has gone, in seconds.
    pub(crate) departure_timeout: u64,
}

/// A list in the file; in a variable also one value, or several with commas between.
pub(crate) fn one_or_many<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum List {
        Text(String),
        Many(Vec<String>),
    }
    let texts = match List::deserialize(deserializer)? {
        List::Text(text) => text.split(',').map(|part| part.trim().to_owned()).collect(),
        List::Many(texts) => texts,
    };
    texts
        .iter()
        .filter(|text| !text.is_empty())
        .map(|text| {
            text.parse()
                .map_err(|error| serde::de::Error::custom(format!("{text:?}: {error}")))
        })
        .collect()
}

impl Config {
    /// What holds where nothing is set.
    pub(crate) fn defaults(is_dev: bool) -> Config {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Config {
            data_dir: if is_dev {
                "terrace-data"
            } else {
                "/var/lib/terrace"
            }
            .into(),
            public_url: None,
            http: Http {
                listen: if is_dev {
                    local(7880)
                } else {
                    SocketAddr::from((Ipv4Addr::UNSPECIFIED, 7880))
                },
                behind_proxy: false,
                trusted_proxies: Vec::new(),
            },
            tls: Tls {
                mode: if is_dev {
                    TlsMode::Off
                } else {
                    TlsMode::SelfMade
                },
                certificate: None,
                key: None,
                names: Vec::new(),
            },
            media: Media {
                listen: if is_dev {
                    // Firefox sends nothing to a server that has a loopback address alone.
                    vec![local(7882), SocketAddr::from((Ipv4Addr::UNSPECIFIED, 7882))]
                } else {
                    vec![
                        SocketAddr::from((Ipv4Addr::UNSPECIFIED, 7882)),
                        SocketAddr::from((Ipv6Addr::UNSPECIFIED, 7882)),
                    ]
                },
                shards: 0,
                announce: Vec::new(),
                ice_servers: Vec::new(),
            },
            metrics: Metrics {
                listen: local(7889),
            },
            keys: if is_dev {
                BTreeMap::from([(DEV_KEY.to_owned(), DEV_SECRET.to_owned())])
            } else {
                BTreeMap::new()
            },
            directory: DirectorySettings {
                postgres: None,
                breached_passwords: None,
                session_idle_minutes: 30,
                session_hours: 12,
            },
            limits: Limits {
                rooms: 1_000,
                participants: 1_000,
                participants_per_room: 0,
                connections: 0,
                connections_per_address: 2_000,
                sessions_per_address: 500,
                empty_timeout: 300,
                departure_timeout: 20,
            },
            node: crate::node::settings::Node::default(),
        }
    }

    /// Reads the file, if one is named, and the variables.
    pub(crate) fn load(file: Option<&Path>, is_dev: bool) -> anyhow::Result<Config> {
        const SECTIONS: [&str; 10] = [
            "data_dir",
            "public_url",
            "http__",
            "tls__",
            "media__",
            "metrics__",
            "keys__",
            "directory__",
            "limits__",
            "node__",
        ];
        let mut figment = Figment::from(Serialized::defaults(Config::defaults(is_dev)));
        if let Some(file) = file {
            if !file.is_file() {
                bail!("the configuration file {} is not there", file.display());
            }
            figment = figment.merge(Toml::file_exact(file));
        }
        // Other programs of this project have variables of their own with the same beginning.
        let variables = Env::prefixed("TERRACE_")
            .filter(|key| {
                let key = key.as_str().to_ascii_lowercase();
                SECTIONS.iter().any(|section| {
                    if section.ends_with("__") {
                        key.starts_with(section)
                    } else {
                        key == *section
                    }
                })
            })
            .split("__");
        let config: Config = figment.merge(variables).extract().map_err(|error| {
            anyhow::anyhow!(
                "{}",
                error
                    .into_iter()
                    .map(|error| error.to_string())
                    .collect::<Vec<_>>()
                    .join("; ")
            )
        })?;
        let has_passwords = config
            .media
            .ice_servers
            .iter()
            .any(|server| !server.0.credential.is_empty());
        if let Some(file) = file
            && (!config.keys.is_empty() || has_passwords || config.directory.postgres.is_some())
        {
            check_private(file, "the configuration file with API secrets")?;
        }
        Ok(config)
    }

    /// Refuses what is not safe to run.
    pub(crate) fn check(&self, is_dev: bool) -> anyhow::Result<()> {
        let mut faults = Vec::new();
        if !is_dev {
            for (key, secret) in &self.keys {
                if KNOWN_SECRETS.contains(&secret.as_str()) || key == DEV_KEY {
                    faults.push(format!(
                        "keys.{key}: this key or its secret is known to everybody. Make a secret \
                         with `openssl rand -base64 48`."
                    ));
                } else if secret.chars().count() < SECRET_LENGTH {
                    faults.push(format!(
                        "keys.{key}: the secret has fewer than {SECRET_LENGTH} characters. Make one \
                         with `openssl rand -base64 48`."
                    ));
                }
            }
            if self.tls.mode == TlsMode::Off
                && !self.http.listen.ip().is_loopback()
                && !self.http.behind_proxy
            {
                faults.push(format!(
                    "tls.mode = \"off\" with http.listen = \"{}\": access tokens would go \
                     over the network in the clear, and browsers would refuse cameras. Set tls.mode \
                     to \"files\" or \"self-made\", or http.behind_proxy = true if a proxy does TLS.",
                    self.http.listen
                ));
            }
        }
        if self.keys.contains_key(crate::meetings::MEETING_KEY) {
            faults.push(format!(
                "keys.{}: this name is the server's own; choose another.",
                crate::meetings::MEETING_KEY
            ));
        }
        if self.http.behind_proxy && self.http.trusted_proxies.is_empty() {
            faults.push(
                "http.behind_proxy = true needs http.trusted_proxies, or all visitors would share \
                 one address and lock each other out by wrong meeting codes."
                    .to_owned(),
            );
        }
        match self.tls.mode {
            TlsMode::Files => match (&self.tls.certificate, &self.tls.key) {
                (Some(certificate), Some(key)) => {
                    if let Err(error) = std::fs::File::open(certificate) {
                        faults.push(format!(
                            "tls.certificate {}: {error}",
                            certificate.display()
                        ));
                    }
                    if let Err(error) = check_private(key, "the private key") {
                        faults.push(format!("tls.key: {error:#}"));
                    }
                }
                _ => faults
                    .push("tls.mode = \"files\" needs tls.certificate and tls.key.".to_owned()),
            },
            TlsMode::SelfMade | TlsMode::Off => {}
        }
        if self.media.listen.is_empty() {
            faults.push("media.listen: at least one UDP address is needed.".to_owned());
        }
        if self.media.shards > SHARDS_BOUND {
            faults.push(format!("media.shards: {SHARDS_BOUND} are the most."));
        } else if let Err(error) = self.media.listen_of(self.media.shard_count() - 1) {
            faults.push(error.to_string());
        }
        if let Some(url) = &self.public_url
            && !(url.starts_with("https://") || url.starts_with("http://"))
        {
            faults.push("public_url must begin with https:// (or http:// for trying).".to_owned());
        }
        faults.extend(self.node.faults());
        faults.extend(crate::api::open::faults(self, is_dev));
        if faults.is_empty() {
            Ok(())
        } else {
            bail!(
                "these settings can't be run with:\n- {}",
                faults.join("\n- ")
            )
        }
    }

    /// The address that stands in printed links, without a slash at its end.
    pub(crate) fn public_url(&self) -> String {
        if let Some(url) = &self.public_url {
            return url.trim_end_matches('/').to_owned();
        }
        let scheme = if self.tls.mode == TlsMode::Off {
            "http"
        } else {
            "https"
        };
        let address = self.http.listen;
        let host = if address.ip().is_unspecified() {
            host_name().unwrap_or_else(|| "localhost".to_owned())
        } else if address.is_ipv6() {
            format!("[{}]", address.ip())
        } else {
            address.ip().to_string()
        };
        match (scheme, address.port()) {
            ("http", 80) | ("https", 443) => format!("{scheme}://{host}"),
            (_, port) => format!("{scheme}://{host}:{port}"),
        }
    }

    /// The limits as signalling takes them.
    pub(crate) fn signaling_limits(&self) -> signaling::Limits {
        signaling::Limits {
            rooms: self.limits.rooms,
            participants: self.limits.participants,
            participants_per_room: self.limits.participants_per_room,
            sessions_per_address: self.limits.sessions_per_address,
            empty_timeout: Duration::from_secs(self.limits.empty_timeout),
            departure_timeout: Duration::from_secs(self.limits.departure_timeout),
        }
    }
}

/// This machine's name.
pub(crate) fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim().to_owned();
    (!name.is_empty() && name != "(none)").then_some(name)
}

/// Refuses a file that other users may read or that its group may change.
pub(crate) fn check_private(file: &Path, what: &str) -> anyhow::Result<()> {
    let metadata = std::fs::metadata(file)
        .with_context(|| format!("{what} {} can't be read", file.display()))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        if metadata.permissions().mode() & 0o027 != 0 {
            bail!(
                "{what} {0} may be read by every user of this machine or changed by its group. \
                 Run `chmod 600 {0}` (or 640 with a group of its own).",
                file.display()
            );
        }
    }
    let _ = metadata;
    Ok(())
}

/// One setting, for the guide and for `--check`.
pub(crate) struct Setting {
    /// Its full name, such as `http.listen`.
    pub(crate) name: String,
    /// What it does.
    pub(crate) about: String,
    /// Its value, as JSON; secrets are left out.
    pub(crate) value: String,
}

/// Every setting with its documentation from the types and its value in `config`.
pub(crate) fn settings(config: &Config) -> Vec<Setting> {
    let schema = schemars::generate::SchemaSettings::default()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator()
        .into_root_schema_for::<Config>();
    let mut config = config.clone();
    for secret in config.keys.values_mut() {
        *secret = "(not shown)".to_owned();
    }
    let values = serde_json::to_value(&config).expect("the configuration is plain data");
    let mut found = Vec::new();
    collect(schema.as_value(), &values, "", &mut found);
    found
}

fn collect(
    schema: &serde_json::Value,
    value: &serde_json::Value,
    prefix: &str,
    found: &mut Vec<Setting>,
) {
    let Some(properties) = schema.get("properties").and_then(|p| p.as_object()) else {
        return;
    };
    for (name, property) in properties {
        let full = format!("{prefix}{name}");
        let value = value.get(name).cloned().unwrap_or_default();
        if property.get("properties").is_some() {
            collect(property, &value, &format!("{full}."), found);
        } else {
            let about = property.get("description").and_then(|text| text.as_str());
            found.push(Setting {
                name: full,
                about: about.unwrap_or_default().replace('\n', " "),
                value: value.to_string(),
            });
        }
    }
}

/// The page of the guide that documents every setting.
pub(crate) fn guide() -> String {
    let mut page = String::from(
        "# Configuration\n\n\
         <!-- Made from the types by `terrace config-doc`; change server/src/config.rs instead. -->\n\n\
         `terrace serve --config FILE` reads one TOML file. A variable goes over the file: its name is\n\
         `TERRACE_` and the setting in capitals, with two underscores for each dot\n\
         (`TERRACE_HTTP__LISTEN=0.0.0.0:443`). Lists in a variable have commas between their values.\n\
         `terrace serve --config FILE --check` says what every setting will be and refuses what is not\n\
         safe. Settings that are not listed here are refused.\n\n\
         A file with `[keys]` and the private key of the certificate must not be readable by every user\n\
         of the machine, or the server does not start.\n\n",
    );
    let normal = settings(&Config::defaults(false));
    let dev = settings(&Config::defaults(true));
    for (setting, dev) in normal.iter().zip(dev) {
        page.push_str(&format!(
            "## `{}`\n\n{}\n\n",
            setting.name,
            wrap(&setting.about)
        ));
        let shown = if setting.value == "null" {
            "none"
        } else {
            &setting.value
        };
        page.push_str(&format!("Default: `{shown}`"));
        if dev.value != setting.value && setting.name != "keys" {
            page.push_str(&format!("; with `--dev`: `{}`", dev.value));
        }
        if setting.name == "keys" {
            page.push_str("; with `--dev`: the key `devkey` with the secret `secret`");
            page.push_str(
                ". Variable: `TERRACE_KEYS__NAME`, where the key's name becomes small letters\n\n",
            );
        } else {
            let variable = setting.name.to_uppercase().replace('.', "__");
            page.push_str(&format!(". Variable: `TERRACE_{variable}`\n\n"));
        }
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

fn wrap(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always one");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > 100 {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secure() -> Config {
        Config::defaults(false)
    }

    #[test]
    fn the_guide_is_current() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide/configuration.md");
        let committed = std::fs::read_to_string(file).unwrap_or_default();
        assert!(
            committed == guide(),
            "run `cargo run -p server -- config-doc > docs/guide/configuration.md`"
        );
    }

    #[test]
    fn every_setting_is_documented() {
        for setting in settings(&secure()) {
            assert!(!setting.about.is_empty(), "{} has no words", setting.name);
        }
    }

    #[test]
    fn the_defaults_are_safe_to_run() {
        secure().check(false).unwrap();
        Config::defaults(true).check(true).unwrap();
    }

    #[test]
    fn insecure_settings_are_refused() {
        let with = |change: fn(&mut Config)| {
            let mut config = secure();
            change(&mut config);
            config.check(false).unwrap_err().to_string()
        };
        assert!(with(|c| c.tls.mode = TlsMode::Off).contains("tls.mode"));
        assert!(with(|c| drop(c.keys.insert("app".into(), "short".into()))).contains("keys.app"));
        assert!(with(|c| drop(c.keys.insert("devkey".into(), "x".repeat(40)))).contains("devkey"));
        assert!(with(|c| c.http.behind_proxy = true).contains("trusted_proxies"));
        assert!(with(|c| c.tls.mode = TlsMode::Files).contains("tls.certificate"));
        assert!(with(|c| c.media.listen.clear()).contains("media.listen"));
        Config::defaults(true).check(false).unwrap_err();
    }

    #[test]
    fn plain_http_is_for_this_machine_or_behind_a_proxy() {
        let mut config = secure();
        config.tls.mode = TlsMode::Off;
        config.http.listen = "127.0.0.1:80".parse().unwrap();
        config.check(false).unwrap();
        config.http.listen = "0.0.0.0:80".parse().unwrap();
        config.http.behind_proxy = true;
        config.http.trusted_proxies = vec!["10.0.0.1".parse().unwrap()];
        config.check(false).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_readable_file_with_secrets_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("terrace.toml");
        std::fs::write(&file, format!("[keys]\napp = \"{}\"\n", "s".repeat(40))).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Config::load(Some(&file), false).is_err());
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let config = Config::load(Some(&file), false).unwrap();
        assert_eq!(config.keys.len(), 1);
        assert!(
            !format!(
                "{:?}",
                settings(&config)
                    .iter()
                    .map(|s| &s.value)
                    .collect::<Vec<_>>()
            )
            .contains("ssss")
        );
    }

    #[test]
    fn an_unknown_setting_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("terrace.toml");
        std::fs::write(&file, "[http]\nlisten = \"127.0.0.1:1\"\nlisten_on = 1\n").unwrap();
        let error = Config::load(Some(&file), false).unwrap_err().to_string();
        assert!(error.contains("listen_on"), "{error}");
        std::fs::write(&file, "[media]\nlisten = [\"127.0.0.1:5\", \"[::1]:5\"]\n").unwrap();
        assert_eq!(
            Config::load(Some(&file), false).unwrap().media.listen.len(),
            2
        );
    }
}
