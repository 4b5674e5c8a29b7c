//! The key under which secrets lie in the database. It lies outside of it, so that a stolen copy of the database opens
//! nothing.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;

use crate::Random;

/// Seals and opens, and marks.
pub struct Vault {
    key: LessSafeKey,
    marks: hmac::Key,
}

impl Vault {
    /// The vault of a key of 32 random bytes.
    pub fn new(key: &[u8; 32]) -> Vault {
        // One key for each use, both from the one that is kept.
        let derive = |what: &[u8]| {
            let parent = hmac::Key::new(hmac::HMAC_SHA256, key);
            hmac::sign(&parent, what)
        };
        let sealing = derive(b"terrace vault sealing 1");
        let key = UnboundKey::new(&AES_256_GCM, sealing.as_ref());
        Vault {
            key: LessSafeKey::new(key.expect("an HMAC-SHA-256 is as long as the key must be")),
            marks: hmac::Key::new(hmac::HMAC_SHA256, derive(b"terrace vault marks 1").as_ref()),
        }
    }

    /// A fresh key to be kept.
    pub fn draw_key(random: &mut Random) -> [u8; 32] {
        let mut key = [0; 32];
        random.fill_bytes(&mut key);
        key
    }

    /// Seals a secret for one place, in which alone it opens again.
    pub(super) fn seal(&self, place: &str, secret: &[u8], random: &mut Random) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        random.fill_bytes(&mut nonce);
        let mut sealed = secret.to_vec();
        let aad = Aad::from(place.as_bytes());
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed)
            .expect("a secret is far shorter than what AES-GCM takes");
        [&nonce[..], &sealed].concat()
    }

    /// Opens what was sealed for a place; `None` if it was not.
    pub(super) fn open(&self, place: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let aad = Aad::from(place.as_bytes());
        let opened = self.key.open_in_place(nonce, aad, &mut sealed).ok()?;
        Some(opened.to_vec())
    }

    /// What is kept of a short secret in a place: nobody without the key can try out which one it is.
    pub(super) fn mark(&self, place: &str, secret: &str) -> String {
        let mut context = hmac::Context::with_key(&self.marks);
        context.update(&(place.len() as u64).to_be_bytes());
        context.update(place.as_bytes());
        context.update(secret.as_bytes());
        crate::hex(context.sign().as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    #[test]
    fn what_is_sealed_opens_in_its_place_with_its_key_and_nowhere_else() {
        let mut random = random(1);
        let vault = Vault::new(&[1; 32]);
        let sealed = vault.seal("a", b"secret", &mut random);
        assert_eq!(vault.open("a", &sealed).as_deref(), Some(&b"secret"[..]));
        assert_eq!(vault.open("b", &sealed), None);
        assert_eq!(Vault::new(&[2; 32]).open("a", &sealed), None);
        for at in 0..sealed.len() {
            let mut other = sealed.clone();
            other[at] ^= 1;
            assert_eq!(vault.open("a", &other), None);
            assert_eq!(vault.open("a", &sealed[..at]), None);
        }
        assert_ne!(sealed, vault.seal("a", b"secret", &mut random));
        assert_ne!(vault.mark("a", "bc"), vault.mark("ab", "c"));
    }
}
