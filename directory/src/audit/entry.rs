//! One entry of the log, and the bytes that its hash covers.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use serde::Serialize;

use crate::Timestamp;
use crate::id::LogId;

/// What stands before the bytes of an entry, so that nothing else is ever taken for one.
const DOMAIN: &[u8] = b"terrace audit entry 1";

/// A SHA-256 hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash([u8; 32]);

impl Hash {
    /// What the first entry has for the one before it.
    pub const NONE: Hash = Hash([0; 32]);

    /// The hash of some bytes.
    pub(super) fn of(bytes: &[u8]) -> Hash {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
        Hash(hash)
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&crate::hex(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Hash({self})")
    }
}

/// The text is no hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not a hash")]
pub struct NotAHash;

impl FromStr for Hash {
    type Err = NotAHash;

    fn from_str(text: &str) -> Result<Hash, NotAHash> {
        Ok(Hash(crate::unhex(text).ok_or(NotAHash)?))
    }
}

/// What became of an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was refused: there was no right to it.
    Refused,
    /// It was tried and failed: a wrong password.
    Failed,
}

impl Outcome {
    /// As it is written in the database and in exports.
    pub fn code(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
        }
    }
}

impl FromStr for Outcome {
    type Err = NotAHash;

    fn from_str(text: &str) -> Result<Outcome, NotAHash> {
        match text {
            "done" => Ok(Outcome::Done),
            "refused" => Ok(Outcome::Refused),
            "failed" => Ok(Outcome::Failed),
            _ => Err(NotAHash),
        }
    }
}

/// An entry as it is kept. Texts are as the database has them: what can't be read as what it should be must still be
/// verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Counts from 1, without gaps.
    pub sequence: u64,
    /// When.
    pub at: Timestamp,
    /// What acted: `person`, `hall`, `machine`, `nobody`.
    pub actor_kind: String,
    /// Who.
    pub actor_id: Option<String>,
    /// The organisation whose auditors it concerns.
    pub organisation_id: Option<String>,
    /// What was done.
    pub action: String,
    /// To what kind of thing.
    pub object_kind: String,
    /// To which.
    pub object_id: Option<String>,
    /// What became of it: `done`, `refused`, `failed`.
    pub outcome: String,
    /// Why, in the actor's words.
    pub reason: Option<String>,
    /// From which address.
    pub address: Option<String>,
    /// More, as JSON.
    pub detail: String,
    /// The hash of the entry before.
    pub previous: Hash,
    /// The hash of this one.
    pub hash: Hash,
}

impl Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Entry {
    /// As it stands in an export: one line of JSON.
    pub fn as_line(&self) -> String {
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }

    /// The hash that this entry should have in a log.
    pub fn digest(&self, log: LogId) -> Hash {
        self.digest_as(log, self.sequence)
    }

    /// The hash that it would have under another number.
    pub(super) fn digest_as(&self, log: LogId, sequence: u64) -> Hash {
        let mut bytes = DOMAIN.to_vec();
        let mut put = |field: Option<&[u8]>| match field {
            None => bytes.push(0),
            Some(field) => {
                bytes.push(1);
                bytes.extend((field.len() as u64).to_be_bytes());
                bytes.extend(field);
            }
        };
        put(Some(log.to_string().as_bytes()));
        put(Some(&sequence.to_be_bytes()));
        put(Some(&self.at.as_millis().to_be_bytes()));
        put(Some(self.actor_kind.as_bytes()));
        put(self.actor_id.as_deref().map(str::as_bytes));
        put(self.organisation_id.as_deref().map(str::as_bytes));
        put(Some(self.action.as_bytes()));
        put(Some(self.object_kind.as_bytes()));
        put(self.object_id.as_deref().map(str::as_bytes));
        put(Some(self.outcome.as_bytes()));
        put(self.reason.as_deref().map(str::as_bytes));
        put(self.address.as_deref().map(str::as_bytes));
        put(Some(self.detail.as_bytes()));
        put(Some(self.previous.bytes()));
        Hash::of(&bytes)
    }
}
