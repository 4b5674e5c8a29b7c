//! What is to be played: who comes into how many rooms, what they send and whom they hear, read from TOML.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// The most clients in one scenario: more have no ports left on one address.
pub(crate) const CLIENT_BOUND: u64 = 20_000;

/// The most processes that compute beside a server on each of its cores.
const RIVALS_BOUND: u32 = 64;

/// The longest measured time, in seconds.
const SECONDS_BOUND: f64 = 3600.0;

/// The scenarios that come with the program, by name.
pub const BUNDLED: [(&str, &str); 16] = [
    ("f50", include_str!("../scenarios/f50.toml")),
    ("f200", include_str!("../scenarios/f200.toml")),
    ("picture", include_str!("../scenarios/picture.toml")),
    ("m10", include_str!("../scenarios/m10.toml")),
    ("meeting", include_str!("../scenarios/meeting.toml")),
    ("senders", include_str!("../scenarios/senders.toml")),
    ("mediations", include_str!("../scenarios/mediations.toml")),
    ("roll-call", include_str!("../scenarios/roll-call.toml")),
    ("join-storm", include_str!("../scenarios/join-storm.toml")),
    ("churn", include_str!("../scenarios/churn.toml")),
    ("lossy", include_str!("../scenarios/lossy.toml")),
    ("h264-hd", include_str!("../scenarios/h264-hd.toml")),
    ("hd-clip", include_str!("../scenarios/hd-clip.toml")),
    ("idle", include_str!("../scenarios/idle.toml")),
    ("overload", include_str!("../scenarios/overload.toml")),
    ("smoke", include_str!("../scenarios/smoke.toml")),
];

/// A scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The name of its file without the ending.
    #[serde(default)]
    pub name: String,
    /// One line for people.
    pub about: String,
    /// How many rooms are played at once, each with all groups.
    #[serde(default = "one")]
    pub rooms: u32,
    /// How long is measured, in seconds.
    pub seconds: f64,
    /// How long everything runs between the last join and the measurement, in seconds.
    #[serde(default = "settle")]
    pub settle_seconds: f64,
    /// A roll call: only one of those who send is on at a time, and the next one follows after
    /// so many seconds.
    #[serde(default)]
    pub turn_seconds: Option<f64>,
    /// Who takes processor time from the server.
    #[serde(default)]
    pub rivals: Option<Rivals>,
    /// Who is in each room.
    #[serde(rename = "group")]
    pub groups: Vec<Group>,
}

/// Processes that compute on the server's cores for a part of the measured time, so that it has a
/// share of them only.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rivals {
    /// How many there are on each core.
    pub count: u32,
    /// When they begin, in seconds after the measurement.
    pub from_seconds: f64,
    /// For how many seconds they compute.
    pub for_seconds: f64,
}

/// Participants of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// What they are called in results.
    pub name: String,
    /// How many there are in each room.
    pub count: u32,
    /// What their camera sends, if they have one.
    #[serde(default)]
    pub video: Option<Video>,
    /// Whether they send a microphone: Opus, 50 packets a second.
    #[serde(default)]
    pub audio: bool,
    /// Whether they receive everybody else in their room.
    #[serde(default)]
    pub receives: bool,
    /// Share of their media datagrams that is thrown away in each direction, 0 to 1.
    #[serde(default)]
    pub loss: f64,
    /// When they come.
    #[serde(default)]
    pub arrives: Arrival,
    /// Over how many seconds they come, evenly.
    #[serde(default = "arrival_seconds")]
    pub arrive_seconds: f64,
    /// They leave after about so many seconds (half to one and a half of it) and come again.
    #[serde(default)]
    pub stay_seconds: Option<f64>,
}

/// When a group comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrival {
    /// Before the measurement.
    #[default]
    Before,
    /// While it runs.
    During,
}

/// What a camera sends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Video {
    /// The codec.
    #[serde(default)]
    pub codec: Codec,
    /// Bits of RTP payload a second, in thousands.
    pub kbps: u32,
    /// Packets of a frame, which are sent at once; what makes about 30 frames a second if absent.
    #[serde(default)]
    pub frame_packets: Option<u32>,
    /// A real picture that can be decoded, 1080p in H.264, instead of noise.
    #[serde(default)]
    pub clip: bool,
}

/// A codec whose packets can be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// RFC 7741.
    #[default]
    Vp8,
    /// RFC 6184, packetisation mode 1.
    H264,
    /// RFC 7587.
    Opus,
}

fn one() -> u32 {
    1
}

fn settle() -> f64 {
    2.0
}

fn arrival_seconds() -> f64 {
    1.0
}

impl Scenario {
    /// Reads the bundled scenario of that name, or else the file.
    ///
    /// # Errors
    /// When there is neither, or it can't be played.
    pub fn load(name_or_file: &str) -> Result<Scenario> {
        if let Some((name, text)) = BUNDLED.iter().find(|(name, _)| *name == name_or_file) {
            return Scenario::parse(name, text);
        }
        let path = Path::new(name_or_file);
        let text = std::fs::read_to_string(path).with_context(|| {
            let names: Vec<&str> = BUNDLED.iter().map(|(name, _)| *name).collect();
            format!(
                "there is no scenario {name_or_file}: give a TOML file or one of {}",
                names.join(", ")
            )
        })?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        Scenario::parse(&name, &text)
    }

    /// Reads a scenario from TOML.
    ///
    /// # Errors
    /// When it is no scenario, or one that can't be played; the message says why.
    pub fn parse(name: &str, text: &str) -> Result<Scenario> {
        let mut scenario: Scenario =
            toml::from_str(text).with_context(|| format!("scenario {name}"))?;
        scenario.name = name.to_owned();
        scenario
            .check()
            .with_context(|| format!("scenario {name}"))?;
        Ok(scenario)
    }

    /// Changes how many there are of a group in each room. More of them come at the same pace.
    ///
    /// # Errors
    /// When there is no such group, or the scenario can't be played any more.
    pub fn set_count(&mut self, group: &str, count: u32) -> Result<()> {
        let found = self.groups.iter_mut().find(|it| it.name == group);
        let found =
            found.with_context(|| format!("scenario {} has no group {group}", self.name))?;
        let more = f64::from(count) / f64::from(found.count.max(1));
        found.arrive_seconds *= more.max(1.0);
        found.count = count;
        self.check()
    }

    /// Changes how many processes take processor time from the server.
    ///
    /// # Errors
    /// When the scenario has none, or they are too many.
    pub fn set_rivals(&mut self, count: u32) -> Result<()> {
        let rivals = self.rivals.as_mut();
        rivals
            .with_context(|| format!("scenario {} has no rivals", self.name))?
            .count = count;
        self.check()
    }

    /// All clients in all rooms.
    pub fn clients(&self) -> u64 {
        let in_room: u64 = self.groups.iter().map(|group| u64::from(group.count)).sum();
        in_room * u64::from(self.rooms)
    }

    /// The rate of the clip that somebody sends, if anybody does.
    pub fn clip_kbps(&self) -> Option<u32> {
        let mut videos = self.groups.iter().filter_map(|group| group.video.as_ref());
        videos.find(|video| video.clip).map(|video| video.kbps)
    }

    fn check(&self) -> Result<()> {
        if self.groups.is_empty() || self.rooms == 0 {
            bail!("there is nobody in it: it needs a [[group]] and at least one room");
        }
        if !(self.seconds > 0.0 && self.seconds <= SECONDS_BOUND) {
            bail!("`seconds` must lie between 0 and {SECONDS_BOUND}");
        }
        if !(0.0..=SECONDS_BOUND).contains(&self.settle_seconds) {
            bail!("`settle_seconds` must lie between 0 and {SECONDS_BOUND}");
        }
        if self
            .turn_seconds
            .is_some_and(|turn| !(0.1..=SECONDS_BOUND).contains(&turn))
        {
            bail!("`turn_seconds` must lie between 0.1 and {SECONDS_BOUND}");
        }
        if let Some(rivals) = self.rivals {
            if !(1..=RIVALS_BOUND).contains(&rivals.count) {
                bail!("rivals: `count` must lie between 1 and {RIVALS_BOUND}");
            }
            let is_time = |seconds: f64| (0.0..=SECONDS_BOUND).contains(&seconds);
            if !is_time(rivals.from_seconds) || !is_time(rivals.for_seconds) {
                bail!("rivals: the times must lie between 0 and {SECONDS_BOUND} seconds");
            }
        }
        if self.clients() > CLIENT_BOUND {
            bail!(
                "{} clients are more than the {CLIENT_BOUND} that can be played",
                self.clients()
            );
        }
        for group in &self.groups {
            let name = &group.name;
            if !(0.0..1.0).contains(&group.loss) {
                bail!("group {name}: `loss` must lie between 0 and 1");
            }
            if group
                .stay_seconds
                .is_some_and(|stay| !(1.0..=SECONDS_BOUND).contains(&stay))
            {
                bail!("group {name}: `stay_seconds` must lie between 1 and {SECONDS_BOUND}");
            }
            if !(0.0..=SECONDS_BOUND).contains(&group.arrive_seconds) {
                bail!("group {name}: `arrive_seconds` must lie between 0 and {SECONDS_BOUND}");
            }
            if let Some(video) = &group.video {
                if !(50..=50_000).contains(&video.kbps) {
                    bail!("group {name}: `kbps` must lie between 50 and 50,000");
                }
                if video.codec == Codec::Opus {
                    bail!("group {name}: Opus is no video codec; say `audio = true`");
                }
                if video.clip && video.codec != Codec::H264 {
                    bail!("group {name}: a clip needs `codec = \"h264\"`");
                }
                if video.clip && video.frame_packets.is_some() {
                    bail!("group {name}: a clip's frames have the packets they need");
                }
                if video.clip && self.clip_kbps() != Some(video.kbps) {
                    bail!("group {name}: all clips of a scenario have the same `kbps`");
                }
                if video.frame_packets.is_some_and(|n| !(1..=64).contains(&n)) {
                    bail!("group {name}: `frame_packets` must lie between 1 and 64");
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bundled_scenario_can_be_played() {
        for (name, text) in BUNDLED {
            let scenario = Scenario::parse(name, text).unwrap();
            assert!(!scenario.about.is_empty());
        }
    }

    #[test]
    fn what_can_not_be_played_is_refused_with_a_reason() {
        let base = "about = 'x'\nseconds = 1\n";
        for (text, reason) in [
            (
                "[[group]]\nname = 'a'\ncount = 1\naudio = true\nloss = 1.5\n",
                "loss",
            ),
            (
                "[[group]]\nname = 'a'\ncount = 1\nvideo = { kbps = 3 }\n",
                "kbps",
            ),
            (
                "[[group]]\nname = 'a'\ncount = 1\nvideo = { kbps = 4000, clip = true }\n",
                "h264",
            ),
            (
                "[[group]]\nname = 'a'\ncount = 1\naudio = true\nlos = 0.5\n",
                "los",
            ),
            (
                "[rivals]\ncount = 0\nfrom_seconds = 1\nfor_seconds = 1\n[[group]]\nname = 'a'\ncount = 1\naudio = true\n",
                "rivals",
            ),
            (
                "rooms = 30000\n[[group]]\nname = 'a'\ncount = 1\naudio = true\n",
                "30000 clients",
            ),
        ] {
            let error = Scenario::parse("x", &format!("{base}{text}")).unwrap_err();
            assert!(format!("{error:#}").contains(reason), "{error:#}");
        }
    }

    #[test]
    fn counts_are_changed_within_the_bound() {
        let mut scenario = Scenario::load("f50").unwrap();
        scenario.set_count("viewer", 7).unwrap();
        assert_eq!(scenario.clients(), 8);
        assert_eq!(scenario.groups[1].arrive_seconds, 1.0);
        scenario.set_count("viewer", 70).unwrap();
        assert_eq!(scenario.groups[1].arrive_seconds, 10.0);
        assert!(scenario.set_count("nobody", 7).is_err());
        assert!(scenario.set_count("viewer", 1_000_000).is_err());
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = Scenario::load("no-such").unwrap_err();
        assert!(error.to_string().contains("f50, f200, picture"));
    }
}
