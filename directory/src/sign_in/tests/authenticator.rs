//! A security key in software: as much of Web Authentication as a browser and a key do together, with ES256 and without
//! attestation.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::RngCore as _;
use webauthn_rs::prelude::{
    CreationChallengeResponse, PublicKeyCredential, RegisterPublicKeyCredential,
    RequestChallengeResponse,
};

const DOMAIN: &str = "example.cn";

/// Somebody was there, and was verified by the key (6.1, flags).
const PRESENT_AND_VERIFIED: u8 = 0b0000_0101;

/// The key's data come along.
const WITH_CREDENTIAL: u8 = 0b0100_0000;

pub(super) struct Authenticator {
    pair: EcdsaKeyPair,
    name: [u8; 32],
    count: u32,
}

impl Authenticator {
    pub(super) fn new(random: &mut rand::rngs::StdRng) -> Authenticator {
        let mut name = [0; 32];
        random.fill_bytes(&mut name);
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING);
        Authenticator {
            pair: pair.expect("a key can be drawn"),
            name,
            count: 0,
        }
    }

    /// Says to be another one.
    pub(super) fn take_name_of(&mut self, other: &Authenticator) {
        self.name = other.name;
        self.count = other.count;
    }

    fn data(&mut self, flags: u8) -> Vec<u8> {
        self.count += 1;
        let mut data = digest(&SHA256, DOMAIN.as_bytes()).as_ref().to_vec();
        data.push(flags);
        data.extend(self.count.to_be_bytes());
        data
    }

    fn client_data(kind: &str, challenge: &serde_json::Value, origin: &str) -> Vec<u8> {
        serde_json::json!({
            "type": kind,
            "challenge": challenge,
            "origin": origin,
            "crossOrigin": false,
        })
        .to_string()
        .into_bytes()
    }

    pub(super) fn register(
        &mut self,
        challenge: &CreationChallengeResponse,
        origin: &str,
    ) -> RegisterPublicKeyCredential {
        let asked = serde_json::to_value(challenge).expect("it is JSON");
        let client = Self::client_data("webauthn.create", &asked["publicKey"]["challenge"], origin);
        let mut data = self.data(PRESENT_AND_VERIFIED | WITH_CREDENTIAL);
        data.extend([0; 16]);
        data.extend((self.name.len() as u16).to_be_bytes());
        data.extend(self.name);
        // The public key as COSE has it (RFC 9053 7.1.1): 1 kty: 2, 3 alg: -7, -1 crv: 1, -2 x, -3 y.
        let point = self.pair.public_key().as_ref().to_vec();
        data.extend([0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 0x20]);
        data.extend(&point[1..33]);
        data.extend([0x22, 0x58, 0x20]);
        data.extend(&point[33..65]);
        // {"fmt": "none", "attStmt": {}, "authData": data} in CBOR.
        let mut object = vec![0xa3, 0x63];
        object.extend(b"fmt");
        object.push(0x64);
        object.extend(b"none");
        object.push(0x67);
        object.extend(b"attStmt");
        object.extend([0xa0, 0x68]);
        object.extend(b"authData");
        object.push(0x59);
        object.extend((data.len() as u16).to_be_bytes());
        object.extend(data);
        let answer = serde_json::json!({
            "id": URL_SAFE_NO_PAD.encode(self.name),
            "rawId": URL_SAFE_NO_PAD.encode(self.name),
            "type": "public-key",
            "extensions": {},
            "response": {
                "attestationObject": URL_SAFE_NO_PAD.encode(object),
                "clientDataJSON": URL_SAFE_NO_PAD.encode(client),
            },
        });
        serde_json::from_value(answer).expect("it is an answer")
    }

    pub(super) fn show(
        &mut self,
        challenge: &RequestChallengeResponse,
        origin: &str,
    ) -> PublicKeyCredential {
        let asked = serde_json::to_value(challenge).expect("it is JSON");
        let client = Self::client_data("webauthn.get", &asked["publicKey"]["challenge"], origin);
        let data = self.data(PRESENT_AND_VERIFIED);
        let signed = [&data[..], digest(&SHA256, &client).as_ref()].concat();
        let signature = self.pair.sign(&SystemRandom::new(), &signed);
        let signature = signature.expect("a key signs");
        let answer = serde_json::json!({
            "id": URL_SAFE_NO_PAD.encode(self.name),
            "rawId": URL_SAFE_NO_PAD.encode(self.name),
            "type": "public-key",
            "extensions": {},
            "response": {
                "authenticatorData": URL_SAFE_NO_PAD.encode(data),
                "clientDataJSON": URL_SAFE_NO_PAD.encode(client),
                "signature": URL_SAFE_NO_PAD.encode(signature.as_ref()),
                "userHandle": null,
            },
        });
        serde_json::from_value(answer).expect("it is an answer")
    }
}
