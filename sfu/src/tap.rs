//! Takes the keys that DTLS agreed on, on their way into the engine: the egress seals with them
//! what the engine never sees.

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, ProtocolVersion,
    SrtpProfile,
};
use str0m::crypto::{CryptoError, CryptoProvider};

use crate::srtp::{Keys, Profile};

thread_local! {
    /// Of the engine that was polled last on this thread.
    static EXPORTED: RefCell<Option<Keys>> = const { RefCell::new(None) };
}

/// The engine's cryptography, with a DTLS that [`take`] listens to: the engine's own, or the one that takes
/// RSA certificates too.
pub(crate) fn crypto(takes_rsa: bool) -> Arc<CryptoProvider> {
    static PROVIDERS: OnceLock<[Arc<CryptoProvider>; 2]> = OnceLock::new();
    let provider = |dtls_provider| {
        Arc::new(CryptoProvider {
            dtls_provider,
            ..str0m::crypto::from_feature_flags()
        })
    };
    let providers = PROVIDERS.get_or_init(|| {
        [
            provider(&Tapped { takes_rsa: false }),
            provider(&Tapped { takes_rsa: true }),
        ]
    });
    providers[usize::from(takes_rsa)].clone()
}

/// A certificate and its key for DTLS, signed by itself.
pub(crate) fn make_certificate() -> Option<DtlsCert> {
    inner().generate_certificate()
}

/// The keys that the engine's DTLS exported since the last call on this thread. To be called right
/// after polling an engine, so that they are that engine's.
pub(crate) fn take() -> Option<Keys> {
    EXPORTED.with_borrow_mut(Option::take)
}

#[derive(Debug)]
struct Tapped {
    takes_rsa: bool,
}

fn inner() -> &'static dyn DtlsProvider {
    str0m::crypto::from_feature_flags().dtls_provider
}

impl DtlsProvider for Tapped {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        inner().generate_certificate()
    }

    fn new_dtls(
        &self,
        certificate: &DtlsCert,
        now: Instant,
        version: DtlsVersion,
        mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        #[cfg(any(test, fuzzing))]
        if let Some(instance) = crate::fuzzing::plain::instance(now) {
            return Ok(Box::new(Instance(instance)));
        }
        let instance = if self.takes_rsa {
            crate::dtls::instance(certificate, now, mtu)?
        } else {
            inner().new_dtls(certificate, now, version, mtu)?
        };
        Ok(Box::new(Instance(instance)))
    }
}

#[derive(Debug)]
struct Instance(Box<dyn DtlsInstance>);

impl DtlsInstance for Instance {
    fn set_active(&mut self, active: bool) {
        self.0.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.0.handle_packet(packet)
    }

    fn poll_output<'a>(&mut self, buffer: &'a mut [u8]) -> DtlsOutput<'a> {
        let output = self.0.poll_output(buffer);
        if let DtlsOutput::KeyingMaterial(material, profile) = &output {
            let profile = match *profile {
                SrtpProfile::AEAD_AES_128_GCM => Some(Profile::AeadAes128Gcm),
                SrtpProfile::AEAD_AES_256_GCM => Some(Profile::AeadAes256Gcm),
                SrtpProfile::AES128_CM_SHA1_80 => Some(Profile::Aes128CmHmacSha1_80),
                _ => None,
            };
            let is_client = self.0.is_active();
            let keys = profile.and_then(|profile| Keys::new(profile, material.as_ref(), is_client));
            EXPORTED.set(keys);
        }
        output
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.0.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.0.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.0.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.0.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.0.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.0.close()
    }
}
