//! One act of one actor: who, when, from where, and why. What every change takes and the audit log keeps.

use std::net::IpAddr;

use crate::id::{PersonId, PlaceId};
use crate::{Random, Timestamp};

/// Who acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Somebody who is signed in.
    Person(PersonId),
    /// A hall's terminal, by its device key.
    Hall(PlaceId),
    /// Whoever has the server's own command line, or the server by itself.
    Machine,
    /// Somebody who is not signed in.
    Nobody,
}

impl Who {
    /// The person, if it is one.
    pub fn person(self) -> Option<PersonId> {
        match self {
            Who::Person(person) => Some(person),
            _ => None,
        }
    }

    pub(crate) fn kind(self) -> &'static str {
        match self {
            Who::Person(_) => "person",
            Who::Hall(_) => "hall",
            Who::Machine => "machine",
            Who::Nobody => "nobody",
        }
    }

    pub(crate) fn id(self) -> Option<String> {
        match self {
            Who::Person(person) => Some(person.to_string()),
            Who::Hall(place) => Some(place.to_string()),
            Who::Machine | Who::Nobody => None,
        }
    }
}

/// An act.
pub struct Act<'a> {
    /// Who.
    pub who: Who,
    /// When.
    pub now: Timestamp,
    /// From which address.
    pub address: Option<IpAddr>,
    /// Why, where that was asked for; kept in the audit log.
    pub reason: Option<String>,
    /// Where fresh names and secrets come from.
    pub random: &'a mut Random,
}
