//! The audit log: every sign-in, refusal, reading of personal data, change and export, in the transaction of what it
//! tells of.
//!
//! Entries are chained: each holds the hash of the one before, and its own covers all that it says. So whoever changes,
//! removes or reorders one without the rest is found out by reading the log ([`Verifier`]). Whoever has the whole
//! database could write everything anew; that is what the signed head is for ([`SignedHead`]), which goes to another
//! node or to the auditor every few minutes: a log that does not contain a head that was given away is not that log.
//!
//! Invariants: an entry is never changed or removed, which the database refuses too; numbers have no gaps; no entry
//! holds a password, a token, a phone or identity number.

mod entry;
mod head;
pub(crate) mod log;
#[cfg(test)]
mod tests;
mod verify;

pub use entry::{Entry, Hash, Outcome};
pub use head::{HeadKey, HeadProblem, PublicKey, SignedHead};
pub use log::{Filter, Page};
pub(crate) use log::{Fresh, append, append_all};
pub use verify::{BadHead, Finding, RangeEnds, Report, Tail, Verifier};
