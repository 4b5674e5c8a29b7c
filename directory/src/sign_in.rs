//! How people and halls prove who they are: password, second factor, session, device key.
//!
//! A password alone is enough for who has neither a second factor nor an administrator's role; whoever has, is let in
//! to give the second factor, or to set one up, and to nothing else ([`Session::is_complete`]).
//!
//! Invariants: an attempt is counted before it is looked at, so that many at once are not more than one after another;
//! what is not known and what is wrong take the same way and the same words; no secret is kept as it is: passwords as
//! Argon2id hashes, tokens and device keys as SHA-256 hashes, recovery codes under a key, factors' secrets sealed with
//! one, and that key lies outside the database.

mod breached;
mod device;
mod factor;
mod flow;
mod lockout;
mod once;
mod passkey;
mod password;
mod session;
#[cfg(test)]
mod tests;
mod totp;
mod vault;

pub use breached::BreachedPasswords;
pub use device::{DeviceKey, DeviceKeyToken};
pub use factor::{Factor, FactorKind, NewTotp, RECOVERY_CODES};
pub use flow::Proof;
pub use lockout::{Counter, Policy};
pub use once::{ANSWER_TIME, NotOnce, Once};
pub use passkey::{Passkeys, PasskeysUnavailable};
pub use password::{Hashing, PasswordProblem};
pub use session::{
    ABSOLUTE_TIME, IDLE_TIME, STEP_UP_TIME, Session, SessionLimits, SessionToken, Strength,
};
pub use vault::Vault;
pub use webauthn_rs::prelude::{
    CreationChallengeResponse, PublicKeyCredential, RegisterPublicKeyCredential,
    RequestChallengeResponse,
};

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::people::PeopleError;
use crate::permit::Denied;
use crate::store::StoreError;
use crate::{Directory, Timestamp};

/// How many passwords are hashed at once. Each takes tens of megabytes; a flood of sign-ins must not take them all.
const HASHES_AT_ONCE: usize = 4;

/// Sign-in to a directory. Clones share it.
#[derive(Clone)]
pub struct SignIn {
    directory: Directory,
    vault: Arc<Vault>,
    breached: Arc<BreachedPasswords>,
    passkeys: Option<Arc<Passkeys>>,
    hashing: Hashing,
    hashers: Arc<Semaphore>,
    limits: SessionLimits,
}

/// Why somebody was not let in, or a secret not set.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// The name, the password, the code, or the key is wrong; which one is not said.
    #[error("this is not right")]
    Wrong,
    /// Too many were wrong: try again later.
    #[error("too many attempts")]
    TooManyAttempts {
        /// When.
        until: Timestamp,
    },
    /// Too many sign in at once: try again soon.
    #[error("too many sign in at once")]
    Busy,
    /// The session was ended, is too old, or never was.
    #[error("the session has ended")]
    SessionEnded,
    /// The second factor is to be given first.
    #[error("the second factor is missing")]
    SecondFactorNeeded,
    /// Who did this last proved it too long ago: prove it again.
    #[error("it must be proved again who you are")]
    StepUpNeeded,
    /// The password can't be used.
    #[error("the password can't be used")]
    Password(PasswordProblem),
    /// Passkeys need a domain name, and this deployment has none.
    #[error("passkeys need a domain name")]
    NoPasskeys,
    /// There is no right to it, no such thing, or the database failed.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The invitation is not good, or the person takes no part.
    #[error(transparent)]
    People(#[from] PeopleError),
}

impl From<StoreError> for SignInError {
    fn from(error: StoreError) -> SignInError {
        SignInError::Denied(Denied::Store(error))
    }
}

impl From<sqlx::Error> for SignInError {
    fn from(error: sqlx::Error) -> SignInError {
        SignInError::from(StoreError::from(error))
    }
}

impl SignIn {
    /// Sign-in with what it needs beside the database.
    pub fn new(
        directory: Directory,
        vault: Vault,
        breached: BreachedPasswords,
        passkeys: Option<Passkeys>,
        hashing: Hashing,
    ) -> SignIn {
        SignIn {
            directory,
            vault: Arc::new(vault),
            breached: Arc::new(breached),
            passkeys: passkeys.map(Arc::new),
            hashing,
            hashers: Arc::new(Semaphore::new(HASHES_AT_ONCE)),
            limits: SessionLimits::default(),
        }
    }

    /// The same with other limits for sessions. They hold at once for those that are open, but for the end that each was
    /// given when it was opened.
    pub fn with_limits(mut self, limits: SessionLimits) -> SignIn {
        self.limits = limits;
        self
    }

    /// The directory that this signs in to.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Whether passkeys can be used.
    pub fn has_passkeys(&self) -> bool {
        self.passkeys.is_some()
    }
}
