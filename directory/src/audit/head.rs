//! The signed head: what says how far the log had come, and that it was this log.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use super::Hash;
use crate::id::LogId;
use crate::{Random, Timestamp};

/// What stands before the bytes of a head, so that nothing else that is signed is ever taken for one.
const DOMAIN: &[u8] = b"terrace audit head 1";

/// Who signed a head: an Ed25519 public key (RFC 8032), in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PublicKey(String);

impl PublicKey {
    /// What was written down. Whether it is a key is found out when something is checked with it.
    pub fn from_text(text: String) -> PublicKey {
        PublicKey(text)
    }

    /// As it is written down.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Signs heads. Lies outside the database, so that who has that one can't sign.
pub struct HeadKey {
    pair: Ed25519KeyPair,
}

/// What the log's end was at a moment, signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedHead {
    /// Of which log.
    pub log: LogId,
    /// The last entry's number; 0 while there is none.
    pub sequence: u64,
    /// Its hash, in hexadecimal digits.
    pub hash: String,
    /// When it was signed.
    pub at: Timestamp,
    /// By whom.
    pub key: PublicKey,
    /// The signature, in hexadecimal digits.
    pub signature: String,
}

/// Why a head proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadProblem {
    /// Its key is none of those that are trusted.
    #[error("the head is signed by an unknown key")]
    UnknownKey,
    /// Its signature is not of its key and what it says.
    #[error("the head's signature is wrong")]
    WrongSignature,
    /// It is of another log.
    #[error("the head is of another log")]
    AnotherLog,
}

impl HeadKey {
    /// The key of a seed (RFC 8032 5.1.5), which is secret.
    pub fn from_seed(seed: &[u8; 32]) -> HeadKey {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed);
        HeadKey {
            pair: pair.expect("any 32 bytes are a seed"),
        }
    }

    /// A fresh seed.
    pub fn draw_seed(random: &mut Random) -> [u8; 32] {
        let mut seed = [0; 32];
        random.fill_bytes(&mut seed);
        seed
    }

    /// By what others know this key.
    pub fn public(&self) -> PublicKey {
        PublicKey(crate::hex(self.pair.public_key().as_ref()))
    }

    /// Signs where a log ends.
    pub fn sign(&self, log: LogId, sequence: u64, hash: Hash, at: Timestamp) -> SignedHead {
        let hash = hash.to_string();
        let signature = self.pair.sign(&message(log, sequence, &hash, at));
        SignedHead {
            log,
            sequence,
            hash,
            at,
            key: self.public(),
            signature: crate::hex(signature.as_ref()),
        }
    }
}

impl SignedHead {
    /// Checks whose it is and that it says what was signed.
    pub fn check(&self, log: LogId, trusted: &[PublicKey]) -> Result<Hash, HeadProblem> {
        if !trusted.contains(&self.key) {
            return Err(HeadProblem::UnknownKey);
        }
        let wrong = HeadProblem::WrongSignature;
        let key: [u8; 32] = crate::unhex(&self.key.0).ok_or(wrong)?;
        let signature: [u8; 64] = crate::unhex(&self.signature).ok_or(wrong)?;
        let message = message(self.log, self.sequence, &self.hash, self.at);
        UnparsedPublicKey::new(&ED25519, key)
            .verify(&message, &signature)
            .map_err(|_| wrong)?;
        if self.log != log {
            return Err(HeadProblem::AnotherLog);
        }
        self.hash.parse().map_err(|_| wrong)
    }
}

fn message(log: LogId, sequence: u64, hash: &str, at: Timestamp) -> Vec<u8> {
    let mut bytes = DOMAIN.to_vec();
    bytes.extend(log.to_string().as_bytes());
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(at.as_millis().to_be_bytes());
    bytes.extend(hash.as_bytes());
    bytes
}
