//! Learns which SRTP profile each handshake agreed on, by looking over the shoulder of str0m's DTLS.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, ProtocolVersion,
    SrtpProfile,
};
use str0m::crypto::{CryptoError, CryptoProvider};

use crate::srtp::Profile;

/// How many handshakes agreed on each profile, in the order of [`Profile::ALL`].
static AGREED: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];

/// How often each profile was agreed on in this process.
pub(crate) fn agreed() -> BTreeMap<Profile, u32> {
    Profile::ALL
        .into_iter()
        .zip(&AGREED)
        .map(|(profile, count)| (profile, count.load(Ordering::Relaxed)))
        .filter(|(_, count)| *count > 0)
        .collect()
}

/// str0m's cryptography with such a DTLS.
pub(crate) fn crypto() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let provider = PROVIDER.get_or_init(|| {
        Arc::new(CryptoProvider {
            dtls_provider: &Watched,
            ..str0m::crypto::from_feature_flags()
        })
    });
    provider.clone()
}

#[derive(Debug)]
struct Watched;

impl DtlsProvider for Watched {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        str0m::crypto::from_feature_flags()
            .dtls_provider
            .generate_certificate()
    }

    fn new_dtls(
        &self,
        certificate: &DtlsCert,
        now: Instant,
        version: DtlsVersion,
        mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let inner = str0m::crypto::from_feature_flags().dtls_provider.new_dtls(
            certificate,
            now,
            version,
            mtu,
        )?;
        Ok(Box::new(Instance(inner)))
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
        if let DtlsOutput::KeyingMaterial(_, profile) = &output {
            let place = match *profile {
                SrtpProfile::AEAD_AES_128_GCM => Some(0),
                SrtpProfile::AEAD_AES_256_GCM => Some(1),
                SrtpProfile::AES128_CM_SHA1_80 => Some(2),
                _ => None,
            };
            if let Some(place) = place {
                AGREED[place].fetch_add(1, Ordering::Relaxed);
            }
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
