//! Identifiers: UUIDv7 in text, each kind a type of its own so that no one is taken for another.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::Random;
use crate::time::Timestamp;

/// The text is not an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not an identifier")]
pub struct NotAnId;

/// A UUIDv7 (RFC 9562 5.7) of a moment and 74 random bits.
pub(crate) fn draw(now: Timestamp, random: &mut Random) -> Uuid {
    let mut bits = [0; 10];
    random.fill_bytes(&mut bits);
    uuid::Builder::from_unix_timestamp_millis(now.as_millis().max(0) as u64, &bits).into_uuid()
}

/// Reads the form that [`draw`] writes and no other: one thing has one name in a log.
fn read(text: &str) -> Result<Uuid, NotAnId> {
    let id = Uuid::try_parse(text).map_err(|_| NotAnId)?;
    if text.len() == 36 && text.bytes().all(|byte| !byte.is_ascii_uppercase()) {
        Ok(id)
    } else {
        Err(NotAnId)
    }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh one.
            pub fn draw(now: Timestamp, random: &mut Random) -> $name {
                $name(draw(now, random))
            }

            /// As libraries take it.
            pub fn as_uuid(&self) -> &Uuid {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(out)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "{}({})", stringify!($name), self.0.hyphenated())
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<$name, NotAnId> {
                read(text).map($name)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<$name, D::Error> {
                let text = String::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

ids! {
    /// Names an organisation (机构).
    OrganisationId
    /// Names a hall or a room of an organisation.
    PlaceId
    /// Names a person.
    PersonId
    /// Names a post (岗位) of an organisation.
    PostId
    /// Names a delegation or a guest role.
    GrantId
    /// Names an invitation.
    InvitationId
    /// Names a session of somebody who is signed in.
    SessionId
    /// Names a second factor.
    FactorId
    /// Names a device key of a hall.
    DeviceKeyId
    /// Names one matter: a conference, a case, a recording.
    MatterId
    /// Names an audit log, once and for all.
    LogId
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    #[test]
    fn an_id_is_of_its_moment_and_reads_back() {
        let mut random = rand::rngs::StdRng::seed_from_u64(1);
        let early = PersonId::draw(Timestamp::from_millis(1_000), &mut random);
        let late = PersonId::draw(Timestamp::from_millis(2_000), &mut random);
        assert!(early < late);
        assert_eq!(early.to_string().parse(), Ok(early));
        assert_eq!(early.to_string().as_bytes()[14], b'7');
    }

    #[test]
    fn one_thing_has_one_name() {
        let mut random = rand::rngs::StdRng::seed_from_u64(1);
        let id = PersonId::draw(Timestamp::from_millis(1_000), &mut random).to_string();
        for odd in [
            id.to_uppercase(),
            id.replace('-', ""),
            format!("{{{id}}}"),
            format!("urn:uuid:{id}"),
            String::new(),
        ] {
            assert_eq!(odd.parse::<PersonId>(), Err(NotAnId), "{odd}");
        }
    }
}
