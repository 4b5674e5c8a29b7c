//! DTLS without a handshake: connected at once, under keys that everybody knows. What a client says
//! inside of DTLS is then read as it comes. And the checks by which a client is found.

use std::cell::Cell;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use str0m::crypto::dtls::{
    DtlsImplError, DtlsInstance, DtlsOutput, KeyingMaterial, ProtocolVersion, SrtpProfile,
};
use str0m::ice::{StunMessage, TransId};

use crate::srtp::Profile;

thread_local! {
    static IS_ON: Cell<bool> = const { Cell::new(false) };
}

/// Whether connections that are made on this thread from now on have no handshake.
pub fn without_handshake(is_on: bool) {
    IS_ON.set(is_on);
}

pub(crate) const PROFILE: Profile = Profile::AeadAes128Gcm;

/// What every connection exports.
pub(crate) fn material() -> Vec<u8> {
    (0..PROFILE.material_length() as u8).collect()
}

/// A connectivity check of a client whose name, with ours before it, and our password are these.
pub(crate) fn check(name: &str, password: &str, nominates: bool) -> Vec<u8> {
    let message = StunMessage::binding_request(name, TransId::new(), true, 7, 1 << 30, nominates);
    let mut out = vec![0; 256];
    let sign = |key: &[u8], parts: &[&[u8]]| {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
        let tag = hmac::sign(&key, &parts.concat());
        tag.as_ref().try_into().expect("SHA-1 has 20 bytes")
    };
    let length = message
        .to_bytes(Some(password.as_bytes()), &mut out, sign)
        .expect("there is room");
    out.truncate(length);
    out
}

/// A DTLS without a handshake, where it is wanted.
pub(crate) fn instance(now: Instant) -> Option<Box<dyn DtlsInstance>> {
    IS_ON.get().then(|| Box::new(Plain::new(now)) as _)
}

#[derive(Debug)]
struct Plain {
    is_active: bool,
    is_told: [bool; 2],
    now: Instant,
    received: VecDeque<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
}

impl Plain {
    fn new(now: Instant) -> Plain {
        Plain {
            is_active: false,
            is_told: [false; 2],
            now,
            received: VecDeque::new(),
            sent: VecDeque::new(),
        }
    }
}

/// The content type of application data, before which nothing else stands here.
pub(crate) const APPLICATION_DATA: u8 = 23;

impl DtlsInstance for Plain {
    fn set_active(&mut self, active: bool) {
        self.is_active = active;
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        if let [APPLICATION_DATA, data @ ..] = packet {
            self.received.push_back(data.to_vec());
        }
        Ok(())
    }

    fn poll_output<'a>(&mut self, buffer: &'a mut [u8]) -> DtlsOutput<'a> {
        for (told, is_told) in self.is_told.iter_mut().enumerate() {
            if !std::mem::replace(is_told, true) {
                return if told == 0 {
                    let material = KeyingMaterial::new(&material());
                    DtlsOutput::KeyingMaterial(material, SrtpProfile::AEAD_AES_128_GCM)
                } else {
                    DtlsOutput::Connected
                };
            }
        }
        let mut put = |bytes: Vec<u8>| {
            let length = bytes.len().min(buffer.len());
            buffer[..length].copy_from_slice(&bytes[..length]);
            length
        };
        if let Some(data) = self.received.pop_front() {
            let length = put(data);
            return DtlsOutput::ApplicationData(&buffer[..length]);
        }
        if let Some(packet) = self.sent.pop_front() {
            let length = put(packet);
            return DtlsOutput::Packet(&buffer[..length]);
        }
        DtlsOutput::Timeout(self.now + Duration::from_secs(1 << 30))
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.now = now;
        Ok(())
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.sent.push_back([&[APPLICATION_DATA], data].concat());
        Ok(data.len())
    }

    fn is_active(&self) -> bool {
        self.is_active
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        None
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        Ok(())
    }
}
