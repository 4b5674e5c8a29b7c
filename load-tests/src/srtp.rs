//! SRTP by keys that both ends know: what the floor does and nothing more (RFC 3711, RFC 7714).
//!
//! Session keys are taken as they are: deriving them from a master key costs once per connection, not per packet.

use anyhow::{Result, anyhow, bail};
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, DecryptionContext, EncryptingKey, EncryptionContext};
use aws_lc_rs::cipher::{DecryptingKey, UnboundCipherKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;

/// Bytes of an RTP header without contributing sources and extensions.
pub const FIXED_HEADER: usize = 12;

/// Bytes of the truncated HMAC-SHA1 tag.
const HMAC_TAG: usize = 10;

/// A protection profile of DTLS-SRTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub enum Profile {
    /// `SRTP_AEAD_AES_128_GCM`
    #[value(name = "aes-128-gcm")]
    Aes128Gcm,
    /// `SRTP_AEAD_AES_256_GCM`
    #[value(name = "aes-256-gcm")]
    Aes256Gcm,
    /// `SRTP_AES128_CM_HMAC_SHA1_80`
    #[value(name = "aes-128-cm-sha1-80")]
    Aes128CmSha1,
}

impl Profile {
    /// All of them.
    pub const ALL: [Profile; 3] = [
        Profile::Aes128Gcm,
        Profile::Aes256Gcm,
        Profile::Aes128CmSha1,
    ];

    /// Its name on the command line and in results.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Aes128Gcm => "aes-128-gcm",
            Profile::Aes256Gcm => "aes-256-gcm",
            Profile::Aes128CmSha1 => "aes-128-cm-sha1-80",
        }
    }

    /// Bytes that a packet grows by.
    pub fn tag(self) -> usize {
        match self {
            Profile::Aes128CmSha1 => HMAC_TAG,
            _ => 16,
        }
    }
}

enum Cipher {
    Gcm {
        key: Box<LessSafeKey>,
        salt: [u8; 12],
    },
    Counter {
        encrypt: Box<EncryptingKey>,
        decrypt: Box<DecryptingKey>,
        authenticate: Box<hmac::Key>,
        salt: [u8; 14],
    },
}

/// One direction of one connection.
pub struct Context {
    profile: Profile,
    cipher: Cipher,
}

impl Context {
    /// With keys made from a seed that both ends know; they protect nothing but a benchmark.
    pub fn from_seed(profile: Profile, seed: &[u8]) -> Context {
        let block = |label: u8| {
            let mut input = vec![label];
            input.extend(seed);
            digest(&SHA256, &input)
        };
        let (key, salt, mac) = (block(0), block(1), block(2));
        let (key, salt, mac) = (key.as_ref(), salt.as_ref(), mac.as_ref());
        let length = match profile {
            Profile::Aes256Gcm => 32,
            _ => 16,
        };
        Context::new(profile, &key[..length], salt, mac)
            .expect("the lengths are those of the profile")
    }

    /// With session keys. `salt` and `mac` may be longer than needed.
    fn new(profile: Profile, key: &[u8], salt: &[u8], mac: &[u8]) -> Result<Context> {
        let wrong = |_| anyhow!("a key of the wrong length");
        let cipher = match profile {
            Profile::Aes128Gcm | Profile::Aes256Gcm => {
                let algorithm = match profile {
                    Profile::Aes128Gcm => &AES_128_GCM,
                    _ => &AES_256_GCM,
                };
                Cipher::Gcm {
                    key: Box::new(LessSafeKey::new(
                        UnboundKey::new(algorithm, key).map_err(wrong)?,
                    )),
                    salt: salt[..12].try_into()?,
                }
            }
            Profile::Aes128CmSha1 => {
                let unbound = || UnboundCipherKey::new(&AES_128, key).map_err(wrong);
                Cipher::Counter {
                    encrypt: Box::new(EncryptingKey::ctr(unbound()?).map_err(wrong)?),
                    decrypt: Box::new(DecryptingKey::ctr(unbound()?).map_err(wrong)?),
                    authenticate: Box::new(hmac::Key::new(
                        hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
                        &mac[..20],
                    )),
                    salt: salt[..14].try_into()?,
                }
            }
        };
        Ok(Context { profile, cipher })
    }

    /// Seals the packet in the first `length` bytes of `room`, whose header has `header` bytes; its tag
    /// is written behind it. Returns the new length.
    ///
    /// # Errors
    /// When there is no room for the tag.
    pub fn seal(
        &self,
        room: &mut [u8],
        header: usize,
        length: usize,
        rollover: u32,
    ) -> Result<usize> {
        let end = length + self.profile.tag();
        if room.len() < end || header < FIXED_HEADER || header > length {
            bail!("no room for the tag");
        }
        let packet = &mut room[..end];
        match &self.cipher {
            Cipher::Gcm { key, salt } => {
                let nonce = gcm_nonce(salt, packet, rollover);
                let (head, rest) = packet.split_at_mut(header);
                let (body, tag) = rest.split_at_mut(length - header);
                let sealed = key
                    .seal_in_place_separate_tag(nonce, Aad::from(&*head), body)
                    .map_err(|_| anyhow!("can't be sealed"))?;
                tag.copy_from_slice(sealed.as_ref());
            }
            Cipher::Counter {
                encrypt,
                authenticate,
                salt,
                ..
            } => {
                let iv = counter_iv(salt, packet, rollover);
                encrypt
                    .less_safe_encrypt(
                        &mut packet[header..length],
                        EncryptionContext::Iv128(FixedLength::from(iv)),
                    )
                    .map_err(|_| anyhow!("can't be sealed"))?;
                let tag = counter_tag(authenticate, &packet[..length], rollover);
                packet[length..].copy_from_slice(&tag.as_ref()[..HMAC_TAG]);
            }
        }
        Ok(end)
    }

    /// Opens a packet in place, whose header has `header` bytes. Returns its length without the tag.
    ///
    /// # Errors
    /// When it is not authentic.
    pub fn open(&self, packet: &mut [u8], header: usize, rollover: u32) -> Result<usize> {
        if header < FIXED_HEADER || packet.len() < header + self.profile.tag() {
            bail!("too short");
        }
        let length = packet.len() - self.profile.tag();
        match &self.cipher {
            Cipher::Gcm { key, salt } => {
                let nonce = gcm_nonce(salt, packet, rollover);
                let (head, body) = packet.split_at_mut(header);
                key.open_in_place(nonce, Aad::from(&*head), body)
                    .map_err(|_| anyhow!("not authentic"))?;
            }
            Cipher::Counter {
                decrypt,
                authenticate,
                salt,
                ..
            } => {
                let tag = counter_tag(authenticate, &packet[..length], rollover);
                if tag.as_ref()[..HMAC_TAG] != packet[length..] {
                    bail!("not authentic");
                }
                let iv = counter_iv(salt, packet, rollover);
                decrypt
                    .decrypt(
                        &mut packet[header..length],
                        DecryptionContext::Iv128(FixedLength::from(iv)),
                    )
                    .map_err(|_| anyhow!("not authentic"))?;
            }
        }
        Ok(length)
    }
}

/// RFC 7714, 8.1.
fn gcm_nonce(salt: &[u8; 12], packet: &[u8], rollover: u32) -> Nonce {
    let mut iv = *salt;
    xor(&mut iv[2..6], &packet[8..12]);
    xor(&mut iv[6..10], &rollover.to_be_bytes());
    xor(&mut iv[10..12], &packet[2..4]);
    Nonce::assume_unique_for_key(iv)
}

/// RFC 3711, 4.1.1.
fn counter_iv(salt: &[u8; 14], packet: &[u8], rollover: u32) -> [u8; 16] {
    let mut iv = [0; 16];
    iv[..14].copy_from_slice(salt);
    xor(&mut iv[4..8], &packet[8..12]);
    xor(&mut iv[8..12], &rollover.to_be_bytes());
    xor(&mut iv[12..14], &packet[2..4]);
    iv
}

fn counter_tag(key: &hmac::Key, packet: &[u8], rollover: u32) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    context.update(packet);
    context.update(&rollover.to_be_bytes());
    context.sign()
}

fn xor(to: &mut [u8], with: &[u8]) {
    for (to, with) in to.iter_mut().zip(with) {
        *to ^= with;
    }
}

/// Bytes of a packet's header with its extension; `None` if it is no RTP packet.
pub fn header_length(packet: &[u8]) -> Option<usize> {
    let first = *packet.first()?;
    if first >> 6 != 2 || packet.len() < FIXED_HEADER {
        return None;
    }
    let mut length = FIXED_HEADER + 4 * usize::from(first & 0x0f);
    if first & 0x10 != 0 {
        let words = packet.get(length + 2..length + 4)?;
        length += 4 + 4 * usize::from(u16::from_be_bytes([words[0], words[1]]));
    }
    (length <= packet.len()).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet() -> Vec<u8> {
        let mut packet = vec![0x80, 96, 0x12, 0x34, 0, 0, 0, 1, 0xde, 0xad, 0xbe, 0xef];
        packet.extend((0..200).map(|at| at as u8));
        packet
    }

    #[test]
    fn what_was_sealed_is_opened_and_nothing_else() {
        for profile in Profile::ALL {
            let context = Context::from_seed(profile, b"seed");
            let mut sealed = packet();
            let length = sealed.len();
            sealed.resize(length + 32, 0);
            let end = context.seal(&mut sealed, 12, length, 7).unwrap();
            assert_eq!(end, length + profile.tag());
            sealed.truncate(end);
            assert_ne!(sealed[12..length], packet()[12..]);
            let mut opened = sealed.clone();
            assert_eq!(context.open(&mut opened, 12, 7).unwrap(), length);
            assert_eq!(opened[..length], packet());
            assert!(context.open(&mut sealed.clone(), 12, 8).is_err());
            sealed[20] ^= 1;
            assert!(context.open(&mut sealed, 12, 7).is_err());
        }
    }

    #[test]
    fn the_vector_of_rfc_7714_is_reproduced() {
        let hex = |text: &str| -> Vec<u8> {
            (0..text.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
                .collect()
        };
        let key = hex("000102030405060708090a0b0c0d0e0f");
        let salt = hex("517569642070726f2071756f");
        let context = Context::new(Profile::Aes128Gcm, &key, &salt, &[]).unwrap();
        let mut packet = hex("8040f17b8041f8d35501a0b2");
        packet.extend(b"Gallia est omnis divisa in partes tres");
        let length = packet.len();
        packet.resize(length + 16, 0);
        context.seal(&mut packet, 12, length, 0).unwrap();
        assert_eq!(
            packet[12..],
            hex(
                "f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833\
                 899d7f27beb16a9152cf765ee4390cce"
            )
        );
    }

    #[test]
    fn headers_are_measured() {
        assert_eq!(header_length(&packet()), Some(12));
        let mut extended = packet();
        extended[0] |= 0x10;
        extended[12..16].copy_from_slice(&[0xbe, 0xde, 0, 1]);
        assert_eq!(header_length(&extended), Some(20));
        assert_eq!(header_length(&[0x80; 5]), None);
        assert_eq!(header_length(&[0x16; 50]), None);
    }
}
