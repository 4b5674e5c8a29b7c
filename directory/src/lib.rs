//! Organisations, people, their rights, sign-in, and the log of what they did.
//!
//! What may be done is decided in one place, [`authority::can`], which reads a table and nothing else. What is done is
//! done in one transaction with its entry in the audit log ([`audit`]), so that neither is without the other. Nothing
//! here reads a clock or makes up randomness: both are arguments. Nothing here knows of media, rooms or HTTP.

pub mod act;
pub mod audit;
pub mod authority;
pub mod changes;
pub mod divisions;
pub mod id;
pub mod organisation;
pub mod people;
mod permit;
pub mod place;
pub mod sign_in;
pub mod store;
pub mod time;

#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use act::{Act, Who};
pub use permit::Denied;
pub use time::Timestamp;

use audit::{HeadKey, PublicKey, Report, SignedHead};
use authority::Action;
use id::OrganisationId;
use store::{Store, StoreError};

/// A source of randomness that nobody can predict, given by whoever calls.
pub type Random = dyn rand::CryptoRng + Send + Sync;

/// The organisations, people and log of one deployment. Clones share it.
#[derive(Clone)]
pub struct Directory {
    store: Store,
}

impl Directory {
    /// What lies in a database. The audit log is begun if there is none.
    pub async fn new(
        store: Store,
        now: Timestamp,
        random: &mut Random,
    ) -> Result<Directory, StoreError> {
        audit::log::found(&store, now, random).await?;
        Ok(Directory { store })
    }

    /// Told whenever something was written by this process.
    pub fn committed(&self) -> tokio::sync::watch::Receiver<()> {
        self.store.committed()
    }

    /// Waits until the database is closed.
    pub async fn close(&self) {
        self.store.close().await;
    }

    /// Whether nobody was ever entered: then it is to be set up ([`Directory::set_up`]).
    pub async fn is_empty(&self) -> Result<bool, StoreError> {
        let mut reading = self.store.read().await?;
        let somebody = sqlx::query("SELECT id FROM persons LIMIT 1")
            .fetch_optional(reading.connection())
            .await?;
        Ok(somebody.is_none())
    }

    /// Signs where the audit log ends now. The head is to be given to somebody else every few minutes.
    pub async fn sign_audit_head(
        &self,
        key: &HeadKey,
        now: Timestamp,
    ) -> Result<SignedHead, StoreError> {
        audit::log::sign(self.store.write().await?, key, now).await
    }

    /// The heads that were signed after a moment, as kept beside the log. They prove something only to who holds them
    /// elsewhere.
    pub async fn audit_heads(&self, after: Timestamp) -> Result<Vec<SignedHead>, StoreError> {
        audit::log::heads(&self.store, after).await
    }

    /// The same for who may read an organisation's log.
    pub async fn audit_heads_for(
        &self,
        act: &Act<'_>,
        organisation: OrganisationId,
        after: Timestamp,
    ) -> Result<Vec<SignedHead>, Denied> {
        drop(self.begin(act, Action::ReadAudit, organisation).await?);
        Ok(self.audit_heads(after).await?)
    }

    /// The number of the audit log's last entry; 0 while there is none.
    pub async fn audit_end(&self) -> Result<u64, StoreError> {
        let mut reading = self.store.read().await?;
        audit::log::last(reading.connection()).await
    }

    /// One page of the audit log of an organisation and all under it. That it was read is written down.
    pub async fn audit_page(
        &self,
        act: &Act<'_>,
        organisation: OrganisationId,
        filter: &audit::Filter,
    ) -> Result<audit::Page, Denied> {
        let writing = self.begin(act, Action::ReadAudit, organisation).await?;
        audit::log::page_for(writing, act, Action::ReadAudit, organisation, filter).await
    }

    /// The same to be taken away: each entry as a line of JSON, the newest first. Who wants all asks for page after page.
    pub async fn export_audit(
        &self,
        act: &Act<'_>,
        organisation: OrganisationId,
        filter: &audit::Filter,
    ) -> Result<(String, Option<u64>), Denied> {
        let writing = self.begin(act, Action::ExportAudit, organisation).await?;
        let page =
            audit::log::page_for(writing, act, Action::ExportAudit, organisation, filter).await?;
        Ok((
            page.entries.iter().map(audit::Entry::as_line).collect(),
            page.next,
        ))
    }

    /// Reads the whole audit log through, and compares it with heads that were given away.
    pub async fn verify_audit(
        &self,
        heads: &[SignedHead],
        trusted: &[PublicKey],
    ) -> Result<Report, StoreError> {
        audit::log::verify(&self.store, heads, trusted).await
    }
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// So many bytes out of twice as many lower-case hexadecimal digits.
pub(crate) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let is_plain = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != 2 * N || !text.bytes().all(is_plain) {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}
