//! A line's description, as it stands in a TOML file.

use serde::Deserialize;

use crate::condition::{Change, OutOfRange};

/// Changes that a line keeps for later at most.
pub(crate) const MAX_CHANGES: usize = 10_000;

/// The smallest packet size that IPv6 allows (RFC 8200 §5), and the largest that is of use.
const MTUS: std::ops::RangeInclusive<u16> = 1280..=9000;

/// A line to be set up.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What the dice start from. The same seed and the same packets have the same fate.
    pub seed: u64,
    /// The largest IP packet, in bytes, 1280 to 9000.
    pub mtu: u16,
    /// The line's addresses are `10.NETWORK.0.1` and `fd77:NETWORK::1` (hexadecimal
    /// there) at A, `…2` at B. Lines that meet in one namespace need different ones.
    pub network: u8,
    /// A network namespace that end A is put into, such as another line's end; it stays when the
    /// line goes. Without it the line makes one of its own.
    pub a: Option<String>,
    /// The same for end B.
    pub b: Option<String>,
    /// How the line is (at second 0) and how that changes.
    #[serde(rename = "change")]
    pub changes: Vec<Change>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            seed: 1,
            mtu: 1500,
            network: 77,
            a: None,
            b: None,
            changes: Vec::new(),
        }
    }
}

/// Why a description can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is not such a TOML file.
    #[error("not a line's description: {0}")]
    Text(#[from] toml::de::Error),
    /// A value that no line has.
    #[error(transparent)]
    Value(#[from] OutOfRange),
    /// An MTU that no line has.
    #[error("mtu is {0}; it has to be from 1280 to 9000")]
    Mtu(u16),
    /// More changes than a line keeps.
    #[error("there are {0} changes; 10000 are kept")]
    Changes(usize),
}

impl Config {
    /// Reads TOML.
    ///
    /// # Errors
    /// What is wrong with it, by the value's name.
    pub fn from_toml(text: &str) -> Result<Config, ConfigError> {
        let config: Config = toml::from_str(text)?;
        config.check()?;
        Ok(config)
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if !MTUS.contains(&self.mtu) {
            return Err(ConfigError::Mtu(self.mtu));
        }
        if self.changes.len() > MAX_CHANGES {
            return Err(ConfigError::Changes(self.changes.len()));
        }
        for change in &self.changes {
            change.check()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::Way;

    #[test]
    fn a_description_has_defaults_and_changes_in_time() {
        let config = Config::from_toml(
            r#"
            seed = 5
            [[change]]
            delay_ms = 20
            [[change]]
            second = 1.5
            direction = "a_to_b"
            outage = true
            "#,
        )
        .unwrap();
        assert_eq!(
            (config.seed, config.mtu, config.changes.len()),
            (5, 1500, 2)
        );
        assert_eq!(config.changes[1].direction, Way::AToB);
        assert_eq!(Config::from_toml("").unwrap(), Config::default());
    }

    #[test]
    fn what_no_line_has_is_refused() {
        assert!(Config::from_toml("mtu = 100").is_err());
        assert!(Config::from_toml("sed = 1").is_err());
        assert!(Config::from_toml("[[change]]\nloss = 7").is_err());
    }
}
