//! Sealing what goes out, and opening the reports that come back: SRTP and SRTCP (RFC 3711), with
//! AES-GCM (RFC 7714) or AES in counter mode and HMAC-SHA1.
//!
//! What a client sends as media is opened by the engine; this is for what leaves by the egress, which
//! the engine never sees, and for the reports about it.

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{self, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;

/// An SRTP protection profile, as DTLS agreed it (RFC 5764 §4.1.2, RFC 7714 §14.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    Aes128CmHmacSha1_80,
    AeadAes128Gcm,
    AeadAes256Gcm,
}

impl Profile {
    const fn key_length(self) -> usize {
        match self {
            Profile::Aes128CmHmacSha1_80 | Profile::AeadAes128Gcm => 16,
            Profile::AeadAes256Gcm => 32,
        }
    }

    const fn salt_length(self) -> usize {
        match self {
            Profile::Aes128CmHmacSha1_80 => 14,
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => 12,
        }
    }

    /// By how many bytes sealing makes an RTP packet longer.
    pub(crate) const fn tag_length(self) -> usize {
        match self {
            Profile::Aes128CmHmacSha1_80 => HMAC_TAG,
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => GCM_TAG,
        }
    }

    /// How much keying material DTLS exports for it, in bytes.
    pub(crate) const fn material_length(self) -> usize {
        2 * (self.key_length() + self.salt_length())
    }
}

/// Bytes of an HMAC-SHA1 tag that are sent; the profile's 80 bits.
const HMAC_TAG: usize = 10;
const GCM_TAG: usize = 16;

/// The clear beginning of an RTCP packet: its first header and the sender's SSRC.
const RTCP_CLEAR: usize = 8;

/// The word after an SRTCP packet: the flag that it is encrypted, and 31 bits of index.
const RTCP_INDEX: usize = 4;
const ENCRYPTED: u32 = 1 << 31;

/// SSRCs of a client whose reports are remembered: its own streams, and those that it only reports
/// under.
const REPORTERS: usize = 64;

/// Labels of the key derivation (RFC 3711 §4.3.2).
mod label {
    pub(super) const RTP: [u8; 3] = [0, 1, 2];
    pub(super) const RTCP: [u8; 3] = [3, 4, 5];
}

/// A packet that is not what its sender's keys would have made, or was here before.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused;

/// The keys of one direction for RTP or for RTCP.
enum Cipher {
    Gcm {
        key: LessSafeKey,
        salt: [u8; 12],
    },
    CounterAndHmac {
        key: Box<EncryptingKey>,
        salt: [u8; 14],
        authentication: Box<hmac::Key>,
    },
}

fn counter_key(key: &[u8]) -> EncryptingKey {
    let algorithm = if key.len() == 16 {
        &cipher::AES_128
    } else {
        &cipher::AES_256
    };
    UnboundCipherKey::new(algorithm, key)
        .and_then(EncryptingKey::ctr)
        .expect("the key is as long as its algorithm's")
}

/// Encrypts or decrypts in counter mode from a starting counter block.
fn counter(key: &EncryptingKey, block: [u8; 16], text: &mut [u8]) {
    let context = EncryptionContext::Iv128(FixedLength::from(block));
    key.less_safe_encrypt(text, context)
        .expect("counter mode takes any length");
}

/// The session key of a label (RFC 3711 §4.3.1 with a derivation rate of 0; RFC 7714 §11 pads the
/// salt on the right).
fn derive(master: &EncryptingKey, salt: &[u8], label: u8, key: &mut [u8]) {
    let mut block = [0; 16];
    block[..salt.len()].copy_from_slice(salt);
    block[7] ^= label;
    key.fill(0);
    counter(master, block, key);
}

impl Cipher {
    fn new(profile: Profile, master: &[u8], salt: &[u8], labels: [u8; 3]) -> Cipher {
        let master = counter_key(master);
        let mut key = [0; 32];
        let key = &mut key[..profile.key_length()];
        derive(&master, salt, labels[0], key);
        match profile {
            Profile::Aes128CmHmacSha1_80 => {
                let mut authentication = [0; 20];
                derive(&master, salt, labels[1], &mut authentication);
                let mut session_salt = [0; 14];
                derive(&master, salt, labels[2], &mut session_salt);
                Cipher::CounterAndHmac {
                    key: Box::new(counter_key(key)),
                    salt: session_salt,
                    authentication: Box::new(hmac::Key::new(
                        hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
                        &authentication,
                    )),
                }
            }
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => {
                let mut session_salt = [0; 12];
                derive(&master, salt, labels[2], &mut session_salt);
                Cipher::Gcm {
                    key: gcm_key(key),
                    salt: session_salt,
                }
            }
        }
    }
}

fn gcm_key(key: &[u8]) -> LessSafeKey {
    let algorithm = if key.len() == 16 {
        &aead::AES_128_GCM
    } else {
        &aead::AES_256_GCM
    };
    LessSafeKey::new(
        UnboundKey::new(algorithm, key).expect("the key is as long as its algorithm's"),
    )
}

/// The nonce of a packet (RFC 7714 §8.1 and §9.1): `high` and `low` are the roll-over counter and
/// the sequence number, or nothing and the SRTCP index in the last four bytes.
fn gcm_nonce(salt: &[u8; 12], ssrc: [u8; 4], index: [u8; 6]) -> Nonce {
    let mut nonce = *salt;
    xor(&mut nonce[2..6], &ssrc);
    xor(&mut nonce[6..12], &index);
    Nonce::assume_unique_for_key(nonce)
}

/// The first counter block of a packet (RFC 3711 §4.1.1).
fn counter_block(salt: &[u8; 14], ssrc: [u8; 4], index: [u8; 6]) -> [u8; 16] {
    let mut block = [0; 16];
    block[..14].copy_from_slice(salt);
    xor(&mut block[4..8], &ssrc);
    xor(&mut block[8..14], &index);
    block
}

fn xor(into: &mut [u8], with: &[u8]) {
    for (byte, other) in into.iter_mut().zip(with) {
        *byte ^= other;
    }
}

fn four(bytes: &[u8]) -> [u8; 4] {
    bytes[..4].try_into().expect("four bytes")
}

/// A roll-over counter and a sequence number, or 31 bits of SRTCP index, as 48 bits.
fn index_bytes(high: u32, low: u16) -> [u8; 6] {
    let [a, b, c, d] = high.to_be_bytes();
    let [e, f] = low.to_be_bytes();
    [a, b, c, d, e, f]
}

fn rtcp_index_bytes(index: u32) -> [u8; 6] {
    let [a, b, c, d] = index.to_be_bytes();
    [0, 0, a, b, c, d]
}

/// The keys of one connection, as DTLS exported them.
pub(crate) struct Keys {
    pub(crate) sealer: Sealer,
    pub(crate) opener: ReportOpener,
}

impl Keys {
    /// `material` is client key, server key, client salt, server salt (RFC 5764 §4.2). `None`: it
    /// has not the profile's length.
    pub(crate) fn new(profile: Profile, material: &[u8], is_dtls_client: bool) -> Option<Keys> {
        if material.len() != profile.material_length() {
            return None;
        }
        let (keys, salts) = material.split_at(2 * profile.key_length());
        let (client_key, server_key) = keys.split_at(profile.key_length());
        let (client_salt, server_salt) = salts.split_at(profile.salt_length());
        let (ours, theirs) = if is_dtls_client {
            ((client_key, client_salt), (server_key, server_salt))
        } else {
            ((server_key, server_salt), (client_key, client_salt))
        };
        Some(Keys {
            sealer: Sealer {
                profile,
                rtp: Cipher::new(profile, ours.0, ours.1, label::RTP),
                rtcp: Cipher::new(profile, ours.0, ours.1, label::RTCP),
                rtcp_index: 0,
            },
            opener: ReportOpener {
                rtcp: Cipher::new(profile, theirs.0, theirs.1, label::RTCP),
                seen: Vec::new(),
            },
        })
    }
}

/// Seals RTP and RTCP towards one client.
pub(crate) struct Sealer {
    profile: Profile,
    rtp: Cipher,
    rtcp: Cipher,
    /// Of the next report; one counter for all SSRCs of the key.
    rtcp_index: u32,
}

impl Sealer {
    pub(crate) fn tag_length(&self) -> usize {
        self.profile.tag_length()
    }

    /// Seals a packet in place: `header` bytes stay clear, the last [`Sealer::tag_length`] bytes
    /// become the tag. Whoever calls must never pass the same SSRC, counter and sequence number
    /// twice with one key.
    pub(crate) fn seal(&self, header: usize, roll_over: u32, packet: &mut [u8]) {
        let ssrc = four(&packet[8..]);
        let sequence = u16::from_be_bytes([packet[2], packet[3]]);
        let index = index_bytes(roll_over, sequence);
        let (text, tag) = packet.split_at_mut(packet.len() - self.profile.tag_length());
        let (clear, payload) = text.split_at_mut(header);
        match &self.rtp {
            Cipher::Gcm { key, salt } => {
                let nonce = gcm_nonce(salt, ssrc, index);
                let made = key
                    .seal_in_place_separate_tag(nonce, Aad::from(&*clear), payload)
                    .expect("a datagram is short enough for GCM");
                tag.copy_from_slice(made.as_ref());
            }
            Cipher::CounterAndHmac {
                key,
                salt,
                authentication,
            } => {
                counter(key, counter_block(salt, ssrc, index), payload);
                let mut signing = hmac::Context::with_key(authentication);
                signing.update(text);
                signing.update(&roll_over.to_be_bytes());
                tag.copy_from_slice(&signing.sign().as_ref()[..HMAC_TAG]);
            }
        }
    }

    /// Opens what this key sealed; `None` when it did not.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn unseal(&self, header: usize, roll_over: u32, packet: &[u8]) -> Option<Vec<u8>> {
        let index = index_bytes(roll_over, u16::from_be_bytes([packet[2], packet[3]]));
        let Cipher::Gcm { key, salt } = &self.rtp else {
            unreachable!("the tests open AES-GCM only")
        };
        let nonce = gcm_nonce(salt, four(&packet[8..]), index);
        let (clear, sealed) = packet.split_at(header);
        let mut sealed = sealed.to_vec();
        let payload = key
            .open_in_place(nonce, Aad::from(clear), &mut sealed)
            .ok()?;
        Some(payload.to_vec())
    }

    /// Seals a compound RTCP packet, which grows. `false`: the key has sealed all that it may
    /// (2³¹ reports), and nothing may be sent any more.
    pub(crate) fn seal_report(&mut self, packet: &mut Vec<u8>) -> bool {
        debug_assert!(packet.len() >= RTCP_CLEAR);
        let index = self.rtcp_index;
        if index >= ENCRYPTED {
            return false;
        }
        self.rtcp_index += 1;
        let ssrc = four(&packet[4..]);
        let word = (ENCRYPTED | index).to_be_bytes();
        match &self.rtcp {
            Cipher::Gcm { key, salt } => {
                let associated = associated_data(packet, word);
                let made = key
                    .seal_in_place_separate_tag(
                        gcm_nonce(salt, ssrc, rtcp_index_bytes(index)),
                        Aad::from(associated),
                        &mut packet[RTCP_CLEAR..],
                    )
                    .expect("a datagram is short enough for GCM");
                packet.extend_from_slice(made.as_ref());
                packet.extend_from_slice(&word);
            }
            Cipher::CounterAndHmac {
                key,
                salt,
                authentication,
            } => {
                let block = counter_block(salt, ssrc, rtcp_index_bytes(index));
                counter(key, block, &mut packet[RTCP_CLEAR..]);
                packet.extend_from_slice(&word);
                let tag = hmac::sign(authentication, packet);
                packet.extend_from_slice(&tag.as_ref()[..HMAC_TAG]);
            }
        }
        true
    }
}

/// The clear part and the index word, which GCM authenticates (RFC 7714 §9.2).
fn associated_data(packet: &[u8], word: [u8; 4]) -> [u8; RTCP_CLEAR + RTCP_INDEX] {
    let mut associated = [0; RTCP_CLEAR + RTCP_INDEX];
    associated[..RTCP_CLEAR].copy_from_slice(&packet[..RTCP_CLEAR]);
    associated[RTCP_CLEAR..].copy_from_slice(&word);
    associated
}

/// Opens the reports of one client.
pub(crate) struct ReportOpener {
    rtcp: Cipher,
    /// By the sender's SSRC, each of which has an index of its own (RFC 3711 §3.2.1); the one heard
    /// last comes last.
    seen: Vec<(u32, Window)>,
}

impl ReportOpener {
    /// Opens an SRTCP packet in place; it shrinks to the RTCP inside.
    ///
    /// # Errors
    /// Too short, not encrypted, changed, of another key, or here before. The buffer is of no use
    /// then.
    pub(crate) fn open(&mut self, packet: &mut Vec<u8>) -> Result<(), Refused> {
        let tag = match &self.rtcp {
            Cipher::Gcm { .. } => GCM_TAG,
            Cipher::CounterAndHmac { .. } => HMAC_TAG,
        };
        let Some(clear) = packet.len().checked_sub(tag + RTCP_INDEX) else {
            return Err(Refused);
        };
        if clear < RTCP_CLEAR {
            return Err(Refused);
        }
        let ssrc = four(&packet[4..]);
        let index = match &self.rtcp {
            Cipher::Gcm { key, salt } => {
                let word = four(&packet[packet.len() - RTCP_INDEX..]);
                let index = plain_index(word)?;
                let associated = associated_data(packet, word);
                let end = packet.len() - RTCP_INDEX;
                key.open_in_place(
                    gcm_nonce(salt, ssrc, rtcp_index_bytes(index)),
                    Aad::from(associated),
                    &mut packet[RTCP_CLEAR..end],
                )
                .map_err(|_| Refused)?;
                index
            }
            Cipher::CounterAndHmac {
                key,
                salt,
                authentication,
            } => {
                let (signed, tag) = packet.split_at_mut(clear + RTCP_INDEX);
                let made = hmac::sign(authentication, signed);
                aws_lc_rs::constant_time::verify_slices_are_equal(&made.as_ref()[..HMAC_TAG], tag)
                    .map_err(|_| Refused)?;
                let index = plain_index(four(&signed[clear..]))?;
                let block = counter_block(salt, ssrc, rtcp_index_bytes(index));
                counter(key, block, &mut signed[RTCP_CLEAR..clear]);
                index
            }
        };
        packet.truncate(clear);
        if self.admit(u32::from_be_bytes(ssrc), index) {
            Ok(())
        } else {
            Err(Refused)
        }
    }

    fn admit(&mut self, ssrc: u32, index: u32) -> bool {
        let mut window = match self.seen.iter().position(|(of, _)| *of == ssrc) {
            Some(at) => self.seen.remove(at).1,
            None => Window::default(),
        };
        let is_new = window.admit(u64::from(index));
        if self.seen.len() == REPORTERS {
            self.seen.remove(0);
        }
        self.seen.push((ssrc, window));
        is_new
    }
}

fn plain_index(word: [u8; 4]) -> Result<u32, Refused> {
    let word = u32::from_be_bytes(word);
    if word & ENCRYPTED == 0 {
        return Err(Refused);
    }
    Ok(word & !ENCRYPTED)
}

/// Which of the last 128 indices were used. What is older than them counts as used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Window {
    /// One above the highest index used.
    end: u64,
    /// Bit `n`: the index `end - 1 - n` was used.
    used: u128,
}

impl Window {
    /// Takes an index; `false` when it was taken before, or may have been.
    pub(crate) fn admit(&mut self, index: u64) -> bool {
        if index >= self.end {
            let step = index + 1 - self.end;
            self.used = if step < 128 { self.used << step } else { 0 };
            self.used |= 1;
            self.end = index + 1;
            return true;
        }
        let behind = self.end - 1 - index;
        if behind >= 128 || self.used & (1 << behind) != 0 {
            return false;
        }
        self.used |= 1 << behind;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex
            .chars()
            .filter_map(|digit| digit.to_digit(16).map(|value| value as u8))
            .collect();
        digits.chunks(2).map(|two| two[0] << 4 | two[1]).collect()
    }

    /// RFC 3711 B.3.
    #[test]
    fn session_keys_are_derived_as_the_standard_shows() {
        let master = counter_key(&bytes("E1F97A0D3E018BE0D64FA32C06DE4139"));
        let salt = bytes("0EC675AD498AFEEBB6960B3AABE6");
        let mut key = [0; 16];
        derive(&master, &salt, 0, &mut key);
        assert_eq!(key.to_vec(), bytes("C61E7A93744F39EE10734AFE3FF7A087"));
        let mut session_salt = [0; 14];
        derive(&master, &salt, 2, &mut session_salt);
        assert_eq!(session_salt.to_vec(), bytes("30CBBC08863D8C85D49DB34A9AE1"));
        let mut authentication = [0; 20];
        derive(&master, &salt, 1, &mut authentication);
        assert_eq!(
            authentication.to_vec(),
            bytes("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4")
        );
    }

    const PLAIN: &str = "8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976 \
        69736120 696e2070 61727465 73207472 6573";

    fn sealer(key: &str) -> Sealer {
        let cipher = || Cipher::Gcm {
            key: gcm_key(&bytes(key)),
            salt: bytes("517569642070726f2071756f").try_into().unwrap(),
        };
        Sealer {
            profile: Profile::AeadAes128Gcm,
            rtp: cipher(),
            rtcp: cipher(),
            rtcp_index: 0,
        }
    }

    /// RFC 7714 §16.1.1.
    #[test]
    fn a_packet_is_sealed_as_the_standard_shows() {
        let mut packet = bytes(PLAIN);
        packet.extend([0; GCM_TAG]);
        sealer("000102030405060708090a0b0c0d0e0f").seal(12, 0, &mut packet);
        assert_eq!(
            packet,
            bytes(
                "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f \
                 42a5f47a 51c7d19b 36de3adf 8833 899d7f27 beb16a91 52cf765e e4390cce"
            )
        );
    }

    fn material(profile: Profile) -> Vec<u8> {
        (0..profile.material_length() as u8).collect()
    }

    const PROFILES: [Profile; 3] = [
        Profile::Aes128CmHmacSha1_80,
        Profile::AeadAes128Gcm,
        Profile::AeadAes256Gcm,
    ];

    #[test]
    fn reports_are_opened_once_by_the_other_side_and_by_nobody_else() {
        for profile in PROFILES {
            let mut ours = Keys::new(profile, &material(profile), true).unwrap();
            let mut theirs = Keys::new(profile, &material(profile), false).unwrap();
            let report: Vec<u8> = (0..64).collect();
            for _ in 0..3 {
                let mut sealed = report.clone();
                assert!(ours.sealer.seal_report(&mut sealed));
                assert_eq!(
                    sealed.len(),
                    report.len() + profile.tag_length() + RTCP_INDEX
                );
                assert_ne!(sealed[RTCP_CLEAR..64], report[RTCP_CLEAR..]);
                let mut own = sealed.clone();
                assert_eq!(ours.opener.open(&mut own), Err(Refused));
                let mut opened = sealed.clone();
                theirs.opener.open(&mut opened).unwrap();
                assert_eq!(opened, report);
                assert_eq!(theirs.opener.open(&mut sealed), Err(Refused), "again");
            }
        }
    }

    #[test]
    fn each_ssrc_of_a_client_counts_its_reports_for_itself() {
        for profile in PROFILES {
            let mut client = Keys::new(profile, &material(profile), true).unwrap();
            let mut node = Keys::new(profile, &material(profile), false).unwrap();
            let mut sealed = |ssrc: u8, index: u32| {
                let mut report = vec![0; 32];
                report[7] = ssrc;
                client.sealer.rtcp_index = index;
                assert!(client.sealer.seal_report(&mut report));
                report
            };
            for index in 500..800 {
                assert_eq!(node.opener.open(&mut sealed(1, index)), Ok(()));
            }
            for index in 0..3 {
                assert_eq!(node.opener.open(&mut sealed(2, index)), Ok(()));
                assert_eq!(node.opener.open(&mut sealed(2, index)), Err(Refused));
            }
            assert_eq!(node.opener.open(&mut sealed(1, 600)), Err(Refused));
            for ssrc in 3..=255 {
                assert_eq!(node.opener.open(&mut sealed(ssrc, 0)), Ok(()));
            }
            assert!(node.opener.seen.len() <= REPORTERS);
        }
    }

    #[test]
    fn a_key_that_has_sealed_all_it_may_seals_no_more() {
        for profile in PROFILES {
            let mut keys = Keys::new(profile, &material(profile), true).unwrap();
            keys.sealer.rtcp_index = ENCRYPTED - 1;
            assert!(keys.sealer.seal_report(&mut vec![0; 12]));
            assert!(!keys.sealer.seal_report(&mut vec![0; 12]));
        }
    }

    #[test]
    fn material_of_another_length_makes_no_keys() {
        for profile in PROFILES {
            assert!(Keys::new(profile, &material(profile)[1..], true).is_none());
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_refused_or_opened(
            mut noise in proptest::collection::vec(any::<u8>(), 0..80), at in 0..3_usize,
        ) {
            let mut keys = Keys::new(PROFILES[at], &material(PROFILES[at]), true).unwrap();
            prop_assert_eq!(keys.opener.open(&mut noise), Err(Refused));
        }

        #[test]
        fn one_changed_bit_is_noticed(place in 0..92_usize, bit in 0..8_u8, at in 0..3_usize) {
            let mut ours = Keys::new(PROFILES[at], &material(PROFILES[at]), true).unwrap();
            let mut theirs = Keys::new(PROFILES[at], &material(PROFILES[at]), false).unwrap();
            let mut sealed: Vec<u8> = (0..72).collect();
            ours.sealer.seal_report(&mut sealed);
            let place = place % sealed.len();
            sealed[place] ^= 1 << bit;
            prop_assert_eq!(theirs.opener.open(&mut sealed), Err(Refused));
        }

        #[test]
        fn no_index_is_taken_twice_and_recent_new_ones_are(
            indices in proptest::collection::vec(0..400_u64, 0..300),
        ) {
            let (mut window, mut taken) = (Window::default(), HashSet::new());
            let mut highest = 0;
            for index in indices {
                let is_new = !taken.contains(&index);
                let is_recent = index + 128 > highest;
                prop_assert_eq!(window.admit(index), is_new && is_recent, "{}", index);
                taken.insert(index);
                highest = highest.max(index);
            }
        }
    }
}
