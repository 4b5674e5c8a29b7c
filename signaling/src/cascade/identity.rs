//! Who and what is spoken of between nodes: ids, levels, sessions, epochs, and the time.

use std::fmt;
use std::ops::Add;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// The longest identity, name or text id that is taken, in bytes.
pub const TEXT_BOUND: usize = 256;

/// Milliseconds on the clock of one process, which never runs backwards. Nodes never compare theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Time(pub u64);

impl Time {
    /// How long ago `earlier` was; nothing if it is still to come.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    fn add(self, duration: Duration) -> Time {
        Time(self.0 + duration.as_millis() as u64)
    }
}

/// A point in time, both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// For durations.
    pub now: Time,
    /// For people and the log: UTC milliseconds since 1970, by a clock that may be wrong.
    pub unix_ms: u64,
}

/// An id could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID")]
pub struct NotAnId;

/// Writes an id's `u128` as the text of a UUID, and reads it.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let hex = format!("{:032x}", self.0);
                let (a, b, c) = (&hex[..8], &hex[8..12], &hex[12..16]);
                write!(f, "{a}-{b}-{c}-{}-{}", &hex[16..20], &hex[20..])
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:x})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                let hex: String = text.chars().filter(|c| *c != '-').collect();
                if hex.len() != 32 || hex.starts_with('+') {
                    return Err(NotAnId);
                }
                u128::from_str_radix(&hex, 16).map($name).map_err(|_| NotAnId)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(D::Error::custom)
            }
        }
    };
}

id! {
    /// One running server; kept in its file, so that it is the same after every restart.
    NodeId
}
id! {
    /// An organisation of the directory.
    OrganisationId
}
id! {
    /// One conference, everywhere and for ever.
    ConferenceId
}

impl ConferenceId {
    /// Under this id neighbours tell each other which nodes there are.
    pub const TOPOLOGY: ConferenceId = ConferenceId(0);
}

/// The five levels; the uppermost first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// 省.
    Province,
    /// 市.
    City,
    /// 县.
    County,
    /// 乡镇、街道.
    Township,
    /// 村、社区.
    Village,
}

impl Level {
    /// All of them, the uppermost first.
    pub const ALL: [Level; 5] = [
        Level::Province,
        Level::City,
        Level::County,
        Level::Township,
        Level::Village,
    ];

    /// Its name in configurations, certificates and messages.
    pub fn name(self) -> &'static str {
        match self {
            Level::Province => "province",
            Level::City => "city",
            Level::County => "county",
            Level::Township => "township",
            Level::Village => "village",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        let level = Level::ALL.into_iter().find(|level| level.name() == text);
        level.ok_or(NotAPlace)
    }
}

/// How often a node has been started, counted in its file. A higher one exposes a restart that was
/// faster than any timer.
pub type Incarnation = u32;

/// The name by which a conference tells its people apart, from the token.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity(pub Arc<str>);

impl From<&str> for Identity {
    fn from(text: &str) -> Self {
        Identity(text.into())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One stay of a person in a conference: where, and which since when. Never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Session {
    /// The node at which the person is.
    pub node: NodeId,
    /// Of that node.
    pub incarnation: Incarnation,
    /// Counts the sessions of that incarnation.
    pub number: u32,
}

/// A published track: of a session, and which of its tracks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TrackId {
    /// Who publishes it, and so where it comes from.
    pub session: Session,
    /// Counts the tracks of that session.
    pub number: u16,
    /// What it is of.
    pub source: Source,
}

impl TrackId {
    /// Whether it is sound, which has neither layers nor keyframes.
    pub fn is_sound(&self) -> bool {
        matches!(self.source, Source::Microphone | Source::ScreenSound)
    }
}

/// What a track is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Sound.
    Microphone,
    /// A picture.
    Camera,
    /// A picture.
    Screen,
    /// Sound.
    ScreenSound,
}

/// The quality of a picture's layer, as `sfu` names it; ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quality {
    /// The smallest.
    Low,
    /// The middle one.
    Medium,
    /// The largest; of sound: all there is.
    High,
}

impl From<sfu::Quality> for Quality {
    fn from(quality: sfu::Quality) -> Self {
        match quality {
            sfu::Quality::Low => Quality::Low,
            sfu::Quality::Medium => Quality::Medium,
            sfu::Quality::High => Quality::High,
        }
    }
}

impl From<Quality> for sfu::Quality {
    fn from(quality: Quality) -> Self {
        match quality {
            Quality::Low => sfu::Quality::Low,
            Quality::Medium => sfu::Quality::Medium,
            Quality::High => sfu::Quality::High,
        }
    }
}

/// A stretch of a conference under one authority. The conference's root opens one whenever it
/// starts; a branch that is cut off opens its own and gives it up when it is back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Epoch {
    /// The node that decides in it.
    pub root: NodeId,
    /// Grows with each that this node opens, over restarts too.
    pub number: u64,
}

impl Epoch {
    /// The epoch that a node opens as the `count`th of an incarnation.
    pub(crate) fn open(root: NodeId, incarnation: Incarnation, count: u32) -> Epoch {
        Epoch {
            root,
            number: u64::from(incarnation) << 24 | u64::from(count),
        }
    }
}

/// What a node is, as its configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The node.
    pub node: NodeId,
    /// Where in the tree it stands.
    pub level: Level,
    /// Whose it is.
    pub organisation: OrganisationId,
}

/// A level or a place could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a level (province, city, county, township, village) or not a node's place")]
pub struct NotAPlace;

/// As it stands in a node's certificate: node, level and organisation, with slashes between.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.node, self.level, self.organisation)
    }
}

impl FromStr for Place {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        let mut parts = text.split('/');
        let mut next = || parts.next().ok_or(NotAPlace);
        let place = Place {
            node: next()?.parse().map_err(|_| NotAPlace)?,
            level: next()?.parse()?,
            organisation: next()?.parse().map_err(|_| NotAPlace)?,
        };
        match parts.next() {
            None => Ok(place),
            Some(_) => Err(NotAPlace),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_written_as_uuids_and_read_back() {
        let id = NodeId(0x0190_a000_0000_7000_8000_0000_0000_00ff);
        assert_eq!(id.to_string(), "0190a000-0000-7000-8000-0000000000ff");
        assert_eq!(id.to_string().parse(), Ok(id));
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<NodeId>(&json).unwrap(), id);
        for bad in ["", "+0190a00000070008000000000000ff", "zz", "é"] {
            assert_eq!(bad.parse::<NodeId>(), Err(NotAnId), "{bad}");
        }
    }

    #[test]
    fn a_restart_opens_a_later_epoch() {
        let before = Epoch::open(NodeId(1), 3, 7000);
        assert!(Epoch::open(NodeId(1), 4, 1) > before);
    }

    #[test]
    fn a_place_is_written_into_a_certificate_and_read_back() {
        for level in Level::ALL {
            let place = Place {
                node: NodeId(7),
                level,
                organisation: OrganisationId(9),
            };
            assert_eq!(place.to_string().parse(), Ok(place));
            assert_eq!(
                serde_json::to_string(&level).unwrap(),
                format!("\"{level}\"")
            );
        }
        let id = NodeId(7);
        for bad in [
            String::new(),
            id.to_string(),
            format!("{id}/county"),
            format!("{id}/state/{id}"),
            format!("{id}/county/{id}/{id}"),
        ] {
            assert_eq!(bad.parse::<Place>(), Err(NotAPlace), "{bad}");
        }
    }
}
