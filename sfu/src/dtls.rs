//! A DTLS that takes RSA certificates as well as ECDSA ones, for encoders and players that make such: GStreamer's
//! webrtcbin does. The engine's own takes ECDSA alone.
//!
//! Invariants: what comes before the handshake is done is bounded, and costs at most the handshake; afterwards only
//! who has the keys can end the connection.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rtc_crypto::providers::AwsLcRsProvider;
use rtc_crypto::{RTCCryptoProvider, SignatureScheme};
use rtc_dtls::cipher_suite::CipherSuiteId;
use rtc_dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc_dtls::crypto::Certificate;
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc_shared::TransportProtocol;
use rtc_shared::error::Error;
use str0m::crypto::CryptoError;
use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, KeyingMaterial, ProtocolVersion, SrtpProfile,
};

/// What a handshake may bring us, all its repetitions together. One has about 3 kB.
const HANDSHAKE_BYTES: usize = 64 * 1024;

/// Room for the headers of records and of handshake messages, which the library does not count as
/// part of a fragment.
const HEADERS: usize = 64;

/// The content type of handshake messages (RFC 5246 §6.2.1).
const HANDSHAKE: u8 = 22;

/// When there is nothing to wait for.
const LONG: Duration = Duration::from_secs(24 * 3600);

/// The library tells associations apart by address. Here each has one, and any name for it serves.
const OTHER_END: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1));

/// RFC 5764 §4.2.
const SRTP_LABEL: &str = "EXTRACTOR-dtls_srtp";

/// The SRTP profiles that are agreed on, the best first: as the library names them, as the engine does, and the length
/// of their keys and salts (RFC 5764 §4.1.2, RFC 7714 §14.2).
const PROFILES: [(SrtpProtectionProfile, SrtpProfile, usize); 3] = [
    (
        SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
        SrtpProfile::AEAD_AES_128_GCM,
        2 * (16 + 12),
    ),
    (
        SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm,
        SrtpProfile::AEAD_AES_256_GCM,
        2 * (32 + 12),
    ),
    (
        SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
        SrtpProfile::AES128_CM_SHA1_80,
        2 * (16 + 14),
    ),
];

fn provider() -> Arc<dyn RTCCryptoProvider> {
    static PROVIDER: OnceLock<Arc<AwsLcRsProvider>> = OnceLock::new();
    PROVIDER
        .get_or_init(|| Arc::new(AwsLcRsProvider::new()))
        .clone()
}

/// A connection that shows this certificate.
pub(crate) fn instance(
    certificate: &DtlsCert,
    now: Instant,
    mtu: Option<usize>,
) -> Result<Box<dyn DtlsInstance>, CryptoError> {
    let connection = Connection::new(certificate, SignatureScheme::EcdsaP256Sha256, now, mtu);
    connection.map(|connection| Box::new(connection) as _)
}

struct Connection {
    server: Arc<HandshakeConfig>,
    client: Arc<HandshakeConfig>,
    is_active: bool,
    /// As soon as it is known which end this is. The engine asks for what can be shared between threads, which the
    /// library is not; nobody else ever waits for it.
    endpoint: Option<Mutex<Endpoint>>,
    now: Instant,
    handshake_bytes: usize,
    seen: HashSet<Fragment>,
    is_connected: bool,
    is_closing: bool,
    packets: VecDeque<BytesMut>,
    told: VecDeque<Told>,
}

/// A piece of a handshake message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Fragment {
    message: u16,
    offset: [u8; 3],
    length: [u8; 3],
}

/// The pieces in a datagram of a handshake that holds nothing else (RFC 6347 §4.1 and §4.2.2).
fn fragments(mut datagram: &[u8]) -> Option<Vec<Fragment>> {
    let mut fragments = Vec::new();
    while !datagram.is_empty() {
        let (header, rest) = datagram.split_first_chunk::<13>()?;
        let [HANDSHAKE, _, _, 0, 0, .., high, low] = *header else {
            return None;
        };
        let (mut record, rest) =
            rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
        datagram = rest;
        while !record.is_empty() {
            let (header, rest) = record.split_first_chunk::<12>()?;
            let [_, _, _, _, high, low, offset @ .., a, b, c] = *header;
            let length = [a, b, c];
            fragments.push(Fragment {
                message: u16::from_be_bytes([high, low]),
                offset,
                length,
            });
            record = rest.get(u32::from_be_bytes([0, a, b, c]) as usize..)?;
        }
    }
    (!fragments.is_empty()).then_some(fragments)
}

/// What waits to be polled.
enum Told {
    Connected,
    Certificate(Vec<u8>),
    Keys(KeyingMaterial, SrtpProfile),
    Data(Vec<u8>),
    Closed,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("is_active", &self.is_active)
            .field("is_connected", &self.is_connected)
            .finish_non_exhaustive()
    }
}

/// The engine has no word of its own for what another library says.
fn failed(error: impl fmt::Display) -> DtlsImplError {
    tracing::debug!(%error, "DTLS failed");
    DtlsImplError::ConnectionClosed
}

impl Connection {
    fn new(
        certificate: &DtlsCert,
        scheme: SignatureScheme,
        now: Instant,
        mtu: Option<usize>,
    ) -> Result<Connection, CryptoError> {
        let failed = |error: &dyn fmt::Display| CryptoError::Other(error.to_string());
        let key = provider()
            .crypto()
            .import_signing_key(scheme, &certificate.private_key)
            .map_err(|error| failed(&error))?;
        let chain = vec![certificate.certificate.clone().into()];
        let certificate = Certificate::from_signing_key(chain, key);
        let config = |is_client| {
            let mut builder = ConfigBuilder::default()
                .with_crypto_provider(provider())
                .with_certificates(vec![certificate.clone()])
                .with_cipher_suites(vec![
                    CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_128_Gcm_Sha256,
                    CipherSuiteId::Tls_Ecdhe_Rsa_With_Aes_128_Gcm_Sha256,
                    CipherSuiteId::Tls_Ecdhe_Ecdsa_With_ChaCha20_Poly1305_Sha256,
                    CipherSuiteId::Tls_Ecdhe_Rsa_With_ChaCha20_Poly1305_Sha256,
                ])
                .with_srtp_protection_profiles(PROFILES.map(|(profile, ..)| profile).to_vec())
                .with_extended_master_secret(ExtendedMasterSecretType::Require)
                .with_client_auth(ClientAuthType::RequireAnyClientCert)
                // There is no authority: the engine compares with the fingerprint in the description.
                .with_insecure_skip_verify(true);
            if let Some(mtu) = mtu {
                builder = builder.with_mtu(mtu.saturating_sub(HEADERS));
            }
            builder.build(is_client, Some(OTHER_END)).map(Arc::new)
        };
        Ok(Connection {
            server: config(false).map_err(|error| failed(&error))?,
            client: config(true).map_err(|error| failed(&error))?,
            is_active: false,
            endpoint: None,
            now,
            handshake_bytes: 0,
            seen: HashSet::new(),
            is_connected: false,
            is_closing: false,
            packets: VecDeque::new(),
            told: VecDeque::new(),
        })
    }

    fn endpoint(&mut self) -> Option<&mut Endpoint> {
        let endpoint = self.endpoint.as_mut()?.get_mut();
        Some(endpoint.unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether all of a datagram was there before, and nothing is lost by leaving it out. The library takes any handshake
    /// message for the answer to its own and stops its clock, so that it would wait for ever where its answer was lost.
    /// So repetitions are left out while its clock runs; but a server repeats its first answer only when it is asked again.
    fn is_repeated(&mut self, datagram: &[u8]) -> bool {
        let Some(fragments) = fragments(datagram) else {
            return false;
        };
        let is_first = |fragment: &Fragment| fragment.message == 0;
        let is_asked_again =
            !self.is_active && fragments.iter().any(is_first) && self.seen.iter().all(is_first);
        let mut is_new = false;
        for fragment in fragments {
            is_new |= self.seen.insert(fragment);
        }
        let clock = self
            .endpoint()
            .and_then(|endpoint| endpoint.poll_timeout(&OTHER_END));
        clock.is_some() && !is_new && !is_asked_again
    }

    fn take_packets(&mut self) {
        if let Some(endpoint) = self.endpoint() {
            let transmits = std::iter::from_fn(|| endpoint.poll_transmit());
            let packets: Vec<_> = transmits.map(|transmit| transmit.message).collect();
            self.packets.extend(packets);
        }
    }

    fn take(&mut self, event: EndpointEvent) -> Result<(), DtlsImplError> {
        match event {
            EndpointEvent::HandshakeComplete => self.connected()?,
            EndpointEvent::ApplicationData(data) => self.told.push_back(Told::Data(data.to_vec())),
            EndpointEvent::PeerClosed => {
                self.is_closing = true;
                self.told.push_back(Told::Closed);
            }
            _ => {}
        }
        Ok(())
    }

    fn connected(&mut self) -> Result<(), DtlsImplError> {
        let state = self
            .endpoint()
            .and_then(|endpoint| endpoint.get_connection_state(OTHER_END))
            .ok_or(DtlsImplError::ConnectionClosed)?;
        let certificate = state
            .peer_certificates
            .first()
            .cloned()
            .ok_or_else(|| failed("no certificate of the other end"))?;
        let (_, profile, length) = PROFILES
            .into_iter()
            .find(|(profile, ..)| *profile == state.srtp_protection_profile())
            .ok_or_else(|| failed("no SRTP profile in common"))?;
        let keys = state
            .export_keying_material(SRTP_LABEL, &[], length)
            .map_err(failed)?;
        self.is_connected = true;
        self.told.extend([
            Told::Certificate(certificate),
            Told::Keys(KeyingMaterial::new(keys.as_ref()), profile),
            Told::Connected,
        ]);
        Ok(())
    }
}

impl DtlsInstance for Connection {
    fn set_active(&mut self, active: bool) {
        self.is_active = active;
        let config = (!active).then(|| self.server.clone());
        let mut endpoint = Endpoint::new(OTHER_END, TransportProtocol::UDP, config);
        if active {
            let begun = endpoint.connect(self.now, OTHER_END, self.client.clone(), None);
            // Nothing is sent then, and the connection is given up when its time is over.
            let _ = begun.map_err(failed);
        }
        self.endpoint = Some(Mutex::new(endpoint));
        self.take_packets();
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        if self.is_closing {
            return Ok(());
        }
        if !self.is_connected {
            self.handshake_bytes += packet.len();
            if self.handshake_bytes > HANDSHAKE_BYTES {
                return Err(failed("the handshake is too long"));
            }
            if self.is_repeated(packet) {
                return Ok(());
            }
        }
        let was_connected = self.is_connected;
        let now = self.now;
        let Some(endpoint) = self.endpoint() else {
            return Ok(());
        };
        let read = endpoint.read(now, OTHER_END, None, packet.into());
        self.take_packets();
        match read {
            Ok(events) => events.into_iter().try_for_each(|event| self.take(event)),
            // Once there are keys, nobody else can have said that it is over.
            Err(Error::ErrAlertFatalOrClose) if was_connected => {
                Err(failed("ended by the other end"))
            }
            Err(error) => {
                tracing::debug!(%error, "a DTLS datagram is left out");
                Ok(())
            }
        }
    }

    fn poll_output<'a>(&mut self, buffer: &'a mut [u8]) -> DtlsOutput<'a> {
        fn put<'a>(bytes: &[u8], buffer: &'a mut [u8]) -> Result<&'a [u8], DtlsOutput<'a>> {
            let needed = bytes.len();
            let place = buffer
                .get_mut(..needed)
                .ok_or(DtlsOutput::BufferTooSmall { needed })?;
            place.copy_from_slice(bytes);
            Ok(place)
        }
        if let Some(packet) = self.packets.pop_front() {
            return put(&packet, buffer).map_or_else(|error| error, DtlsOutput::Packet);
        }
        match self.told.pop_front() {
            Some(Told::Connected) => DtlsOutput::Connected,
            Some(Told::Certificate(bytes)) => {
                put(&bytes, buffer).map_or_else(|error| error, DtlsOutput::PeerCert)
            }
            Some(Told::Keys(material, profile)) => DtlsOutput::KeyingMaterial(material, profile),
            Some(Told::Data(bytes)) => {
                put(&bytes, buffer).map_or_else(|error| error, DtlsOutput::ApplicationData)
            }
            Some(Told::Closed) => DtlsOutput::CloseNotify,
            None => {
                let endpoint = self.endpoint();
                let next = endpoint.and_then(|endpoint| endpoint.poll_timeout(&OTHER_END));
                DtlsOutput::Timeout(next.unwrap_or(self.now + LONG))
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.now = now;
        let outcome = match self.endpoint() {
            Some(endpoint) if endpoint.poll_timeout(&OTHER_END).is_some() => {
                endpoint.handle_timeout(OTHER_END, now)
            }
            _ => Ok(()),
        };
        self.take_packets();
        outcome.map_err(failed)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        let now = self.now;
        let is_open = self.is_connected && !self.is_closing;
        let Some(endpoint) = self.endpoint().filter(|_| is_open) else {
            return Ok(0);
        };
        let written = endpoint.write(now, OTHER_END, data);
        self.take_packets();
        written.map(|()| data.len()).map_err(failed)
    }

    fn is_active(&self) -> bool {
        self.is_active
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.is_connected.then_some(ProtocolVersion::DTLS1_2)
    }

    fn is_closing(&self) -> bool {
        self.is_closing
    }

    fn is_closed(&self) -> bool {
        self.is_closing && self.packets.is_empty()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        let now = self.now;
        if !std::mem::replace(&mut self.is_closing, true)
            && let Some(endpoint) = self.endpoint()
        {
            endpoint.stop(now, OTHER_END);
            self.take_packets();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _};

    use super::*;

    /// What the two ends of a handshake are made of.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Kind {
        /// The engine's own.
        Engine,
        Ecdsa,
        Rsa,
    }

    fn rsa_certificate() -> DtlsCert {
        // Making a key takes long.
        static CERTIFICATE: OnceLock<DtlsCert> = OnceLock::new();
        let make = || {
            let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
            let params = rcgen::CertificateParams::new(["WebRTC".to_owned()]).unwrap();
            DtlsCert {
                certificate: params.self_signed(&key).unwrap().der().to_vec(),
                private_key: key.serialize_der(),
            }
        };
        CERTIFICATE.get_or_init(make).clone()
    }

    struct End {
        instance: Box<dyn DtlsInstance>,
        certificate: Vec<u8>,
        due: Instant,
        is_connected: bool,
        is_closed: bool,
        shown: Option<Vec<u8>>,
        keys: Option<(Vec<u8>, SrtpProfile)>,
        data: Vec<Vec<u8>>,
    }

    impl End {
        fn new(kind: Kind, is_active: bool, now: Instant) -> End {
            let engine = str0m::crypto::from_feature_flags().dtls_provider;
            let mut certificate = engine.generate_certificate().unwrap();
            let mtu = Some(1150);
            let mut instance = match kind {
                Kind::Engine => engine
                    .new_dtls(&certificate, now, Default::default(), mtu)
                    .unwrap(),
                Kind::Ecdsa => instance(&certificate, now, mtu).unwrap(),
                Kind::Rsa => {
                    certificate = rsa_certificate();
                    let scheme = SignatureScheme::RsaPkcs1Sha256;
                    Box::new(Connection::new(&certificate, scheme, now, mtu).unwrap())
                }
            };
            instance.set_active(is_active);
            instance.handle_timeout(now).unwrap();
            End {
                instance,
                certificate: certificate.certificate,
                due: now,
                is_connected: false,
                is_closed: false,
                shown: None,
                keys: None,
                data: Vec::new(),
            }
        }

        /// The datagrams that it sends now.
        fn drain(&mut self) -> Vec<Vec<u8>> {
            let mut packets = Vec::new();
            let mut buffer = vec![0; 2000];
            loop {
                match self.instance.poll_output(&mut buffer) {
                    DtlsOutput::Packet(packet) => packets.push(packet.to_vec()),
                    DtlsOutput::Connected => self.is_connected = true,
                    DtlsOutput::PeerCert(shown) => self.shown = Some(shown.to_vec()),
                    DtlsOutput::KeyingMaterial(keys, profile) => {
                        self.keys = Some((keys.to_vec(), profile));
                    }
                    DtlsOutput::ApplicationData(data) => self.data.push(data.to_vec()),
                    DtlsOutput::CloseNotify => self.is_closed = true,
                    DtlsOutput::Timeout(due) => {
                        self.due = due;
                        return packets;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    struct Line {
        now: Instant,
        ends: [End; 2],
        /// How many datagrams went, and which of them are lost.
        sent: usize,
        lost: Vec<usize>,
        longest: usize,
    }

    impl Line {
        /// The first one calls.
        fn new(kinds: [Kind; 2]) -> Line {
            let now = Instant::now();
            Line {
                now,
                ends: [
                    End::new(kinds[0], true, now),
                    End::new(kinds[1], false, now),
                ],
                sent: 0,
                lost: Vec::new(),
                longest: 0,
            }
        }

        /// Carries what is sent until nobody sends any more; whether there was something.
        fn carry(&mut self) -> bool {
            let mut was_any = false;
            loop {
                let mut is_any = false;
                for from in 0..2 {
                    for packet in self.ends[from].drain() {
                        is_any = true;
                        self.longest = self.longest.max(packet.len());
                        if !self.lost.contains(&self.sent) {
                            self.ends[1 - from].instance.handle_packet(&packet).unwrap();
                        }
                        self.sent += 1;
                    }
                }
                if !is_any {
                    return was_any;
                }
                was_any = true;
            }
        }

        /// Goes on until both are connected, or for half a minute.
        fn connect(&mut self) -> bool {
            let end = self.now + Duration::from_secs(30);
            while self.now < end {
                self.carry();
                if self.ends.iter().all(|end| end.is_connected) {
                    return true;
                }
                self.now = self
                    .ends
                    .iter()
                    .map(|end| end.due)
                    .min()
                    .unwrap()
                    .max(self.now + Duration::from_millis(1));
                for end in &mut self.ends {
                    end.instance.handle_timeout(self.now).unwrap();
                }
            }
            false
        }
    }

    const PAIRS: [[Kind; 2]; 7] = [
        [Kind::Rsa, Kind::Ecdsa],
        [Kind::Ecdsa, Kind::Rsa],
        [Kind::Rsa, Kind::Rsa],
        [Kind::Ecdsa, Kind::Ecdsa],
        [Kind::Engine, Kind::Ecdsa],
        [Kind::Ecdsa, Kind::Engine],
        [Kind::Engine, Kind::Engine],
    ];

    #[test]
    fn ends_with_either_certificate_agree_in_either_role() {
        for kinds in PAIRS {
            let mut line = Line::new(kinds);
            assert!(line.connect(), "{kinds:?}");
            let [caller, called] = &mut line.ends;
            assert_eq!(
                caller.shown.as_ref(),
                Some(&called.certificate),
                "{kinds:?}"
            );
            assert_eq!(
                called.shown.as_ref(),
                Some(&caller.certificate),
                "{kinds:?}"
            );
            let (keys, profile) = caller.keys.as_ref().unwrap();
            assert_eq!(called.keys, caller.keys, "{kinds:?}");
            let (_, _, length) = PROFILES
                .into_iter()
                .find(|(_, of_engine, _)| of_engine == profile)
                .unwrap();
            assert_eq!(keys.len(), length);
            assert_ne!(*profile, SrtpProfile::AES128_CM_SHA1_80);
            caller.instance.send_application_data(b"there").unwrap();
            called.instance.send_application_data(b"back").unwrap();
            line.carry();
            assert_eq!(line.ends[0].data, [b"back"], "{kinds:?}");
            assert_eq!(line.ends[1].data, [b"there"], "{kinds:?}");
            assert!(line.longest <= 1150, "{} of {kinds:?}", line.longest);
            line.ends[0].instance.close().unwrap();
            line.carry();
            assert!(
                line.ends[0].instance.is_closed() && line.ends[1].is_closed,
                "{kinds:?}"
            );
        }
    }

    #[test]
    fn any_two_datagrams_of_the_handshake_may_be_lost() {
        for kinds in PAIRS {
            for lost in (0..64).map(|pair| [pair / 8, pair % 8]) {
                let mut line = Line::new(kinds);
                line.lost = lost.to_vec();
                let begin = line.now;
                assert!(line.connect(), "datagrams {lost:?} of {kinds:?}");
                assert!(
                    line.now - begin <= Duration::from_secs(8),
                    "datagrams {lost:?} of {kinds:?}"
                );
                assert_eq!(line.ends[0].keys, line.ends[1].keys);
            }
        }
    }

    #[test]
    fn an_end_that_is_not_there_is_given_up() {
        let mut line = Line::new([Kind::Ecdsa, Kind::Engine]);
        let outcome = loop {
            line.ends[0].drain();
            line.now = line.ends[0].due;
            if let Err(error) = line.ends[0].instance.handle_timeout(line.now) {
                break error;
            }
            assert!(line.ends[0].due - line.now < Duration::from_secs(60));
        };
        assert!(matches!(outcome, DtlsImplError::ConnectionClosed));
    }

    /// A record that needs no keys: a fatal alert, data, or what means nothing.
    fn forged() -> Vec<Vec<u8>> {
        let record = |kind: u8, sequence: u8, body: &[u8]| {
            let mut record = vec![kind, 254, 253, 0, 0, 0, 0, 0, 0, 0, sequence];
            record.extend((body.len() as u16).to_be_bytes());
            record.extend_from_slice(body);
            record
        };
        vec![
            record(23, 41, b"data"),
            record(20, 42, &[7, 7]),
            record(22, 43, &[0xff; 40]),
            record(99, 44, &[1; 40]),
            record(22, 45, &[]),
            vec![22; 20],
            vec![22],
            vec![],
            record(21, 46, &[2, 40]),
        ]
    }

    #[test]
    fn who_has_no_keys_ends_nothing() {
        for kinds in [[Kind::Engine, Kind::Ecdsa], [Kind::Rsa, Kind::Ecdsa]] {
            for (at, packet) in forged().into_iter().enumerate() {
                let mut line = Line::new(kinds);
                line.ends[1].instance.handle_packet(&packet).unwrap();
                // What is answered to it does not reach the caller, which has another address.
                line.ends[1].drain();
                assert!(line.connect(), "record {at} before {kinds:?}");
            }
            let mut line = Line::new(kinds);
            assert!(line.connect(), "{kinds:?}");
            for packet in forged() {
                line.ends[1].instance.handle_packet(&packet).unwrap();
            }
            line.ends[0].instance.send_application_data(b"on").unwrap();
            line.carry();
            assert_eq!(line.ends[1].data, [b"on"], "{kinds:?}");
            assert!(!line.ends[1].is_closed && !line.ends[1].instance.is_closing());
        }
    }

    #[test]
    fn garbled_datagrams_cost_the_handshake_at_most() {
        let mut random = rand::rngs::StdRng::seed_from_u64(1);
        for _ in 0..300 {
            let mut line = Line::new([Kind::Ecdsa, Kind::Ecdsa]);
            for _ in 0..6 {
                for from in 0..2 {
                    for mut packet in line.ends[from].drain() {
                        if random.random_bool(0.5) {
                            let at = random.random_range(0..packet.len());
                            match random.random_range(0..3) {
                                0 => packet[at] = random.random(),
                                1 => packet.truncate(at),
                                _ => packet.insert(at, random.random()),
                            }
                        }
                        let _ = line.ends[1 - from].instance.handle_packet(&packet);
                    }
                }
                line.now += Duration::from_secs(1);
                for end in &mut line.ends {
                    let _ = end.instance.handle_timeout(line.now);
                }
            }
            let [caller, called] = &line.ends;
            if caller.is_connected && called.is_connected {
                assert_eq!(caller.keys, called.keys);
            }
        }
    }

    #[test]
    fn a_handshake_that_never_ends_is_given_up() {
        let mut line = Line::new([Kind::Engine, Kind::Ecdsa]);
        let end = &mut line.ends[1].instance;
        // Records of the next epoch, which wait for the keys.
        let mut record = vec![23, 254, 253, 0, 1, 0, 0, 0, 0, 0, 1, 4, 0];
        record.extend([7; 1024]);
        let taken = (0..1000).take_while(|_| end.handle_packet(&record).is_ok());
        assert_eq!(taken.count(), HANDSHAKE_BYTES / record.len());
    }
}
