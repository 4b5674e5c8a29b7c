//! How clients come in: one file for each kind of server. What they do once inside is the same for all.

mod floor;
mod janus;
mod livekit;
mod whip;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use futures_util::future::BoxFuture;
use tokio::sync::{oneshot, watch};

use crate::media::{Media, StayId};
use crate::source::SourcePlan;
use crate::srtp::Profile;

pub use self::floor::FloorDoor;
pub use self::janus::JanusDoor;
pub use self::livekit::LiveKitDoor;
pub use self::whip::WhipDoor;

/// How long a client may take to come in.
pub const JOIN_WITHIN: Duration = Duration::from_secs(20);

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Terrace, by the LiveKit protocol.
    Terrace,
    /// LiveKit's server.
    Livekit,
    /// Janus, by its VideoRoom plugin over HTTP.
    Janus,
    /// Any server with WHIP and WHEP.
    Whip,
    /// The yardstick `load-test floor`.
    Floor,
}

impl Kind {
    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Terrace => "terrace",
            Kind::Livekit => "livekit",
            Kind::Janus => "janus",
            Kind::Whip => "whip",
            Kind::Floor => "floor",
        }
    }
}

/// How the LiveKit protocol is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Endpoint {
    /// A peer connection to publish and another to subscribe
    #[default]
    #[value(name = "rtc")]
    Two,
    /// One peer connection for both
    #[value(name = "rtc/v1")]
    One,
}

impl Endpoint {
    /// Its path.
    pub fn path(self) -> &'static str {
        match self {
            Endpoint::Two => "rtc",
            Endpoint::One => "rtc/v1",
        }
    }
}

/// Where and how to come in.
#[derive(Clone, Debug)]
pub struct Address {
    /// The server's address: `http://host:port`, with a path for Janus and WHIP; `host:port` for
    /// the floor.
    pub server: String,
    /// The API key whose tokens the server takes, and its secret.
    pub key: (String, String),
    /// The floor's SRTP profile.
    pub profile: Profile,
    /// The LiveKit protocol's endpoint.
    pub endpoint: Endpoint,
}

/// Who sends in a room, and what.
pub type Senders = Arc<Vec<(String, Vec<SourcePlan>)>>;

/// One client's stay in a room.
pub struct Visit {
    /// The clients' media.
    pub media: Arc<Media>,
    /// This client's stay.
    pub stay: StayId,
    /// Its number within the run.
    pub client: u32,
    /// The room's number within the run.
    pub room: u32,
    /// A word that rooms of this run begin with, so that runs do not meet.
    pub run: String,
    /// Its name, unique within the run.
    pub identity: String,
    /// What it sends.
    pub sends: Vec<SourcePlan>,
    /// Whether it receives the others of its room.
    pub receives: bool,
    /// All clients that send in its room, in their order, with what they send: for doors where
    /// the receiver must name whom it wants.
    pub senders: Senders,
    /// Whether it is its turn to speak; doors that can tell the server do.
    pub is_speaking: watch::Receiver<bool>,
    /// To be told once the client is inside with all its connections up.
    pub entered: Option<oneshot::Sender<()>>,
    /// Becomes true when it is to leave.
    pub leave: watch::Receiver<bool>,
}

impl Visit {
    /// The client is inside.
    pub(crate) fn has_entered(&mut self) {
        if let Some(entered) = self.entered.take() {
            // The run may have been broken off.
            let _ = entered.send(());
        }
    }

    /// The room's name.
    pub(crate) fn room_name(&self) -> String {
        format!("{}-{}", self.run, self.room)
    }
}

/// Waits until a flag is true; for ever once nobody can set it any more.
pub(crate) async fn is_set(flag: &mut watch::Receiver<bool>) {
    if flag.wait_for(|it| *it).await.is_err() {
        std::future::pending().await
    }
}

/// How a client joins, publishes and subscribes on one kind of server.
pub trait Door: Send + Sync {
    /// Brings a client in, keeps it there until it is to leave, and leaves politely. Media is left
    /// to [`Visit::media`]; the caller closes it afterwards.
    fn attend(&self, visit: Visit) -> BoxFuture<'_, Result<()>>;
}

/// The door of a kind of server.
///
/// # Errors
/// When the address does not fit the kind.
pub fn door(kind: Kind, address: &Address) -> Result<Arc<dyn Door>> {
    Ok(match kind {
        Kind::Terrace | Kind::Livekit => Arc::new(LiveKitDoor::new(address)?),
        Kind::Janus => Arc::new(JanusDoor::new(address)),
        Kind::Whip => Arc::new(WhipDoor::new(address)),
        Kind::Floor => match address.server.parse() {
            Ok(server) => Arc::new(FloorDoor::new(server, address.profile)),
            Err(_) => bail!(
                "{} is no address of the floor, such as 127.0.0.1:7990",
                address.server
            ),
        },
    })
}

/// A token by LiveKit's grants, valid for an hour.
pub(crate) fn token(address: &Address, room: &str, identity: &str) -> Result<String> {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_secs();
    let claims = serde_json::json!({
        "iss": address.key.0,
        "sub": identity,
        "name": identity,
        "nbf": now.saturating_sub(10),
        "exp": now + 3600,
        "video": { "room": room, "roomJoin": true, "canPublish": true, "canSubscribe": true },
    });
    let key = jsonwebtoken::EncodingKey::from_secret(address.key.1.as_bytes());
    Ok(jsonwebtoken::encode(
        &jsonwebtoken::Header::default(),
        &claims,
        &key,
    )?)
}
