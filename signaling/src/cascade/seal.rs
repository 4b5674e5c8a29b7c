//! The carrier is not trusted: envelopes and announcements are signed by their node's key (Ed25519,
//! RFC 8032), and read only with the key that the node was enrolled with.

use std::collections::BTreeMap;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::Deserialize;

use super::identity::NodeId;
use super::message::{Envelope, MESSAGE_BOUND};

/// Why an envelope was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It can't be read.
    #[error("a message from another node can't be read")]
    Malformed,
    /// It is larger than a message may be.
    #[error("a message from another node is larger than 64 kB")]
    TooLarge,
    /// Somebody else signed it, it was changed, or its sender is not enrolled.
    #[error("a message that no enrolled node has signed")]
    BadSignature,
    /// It is for another node.
    #[error("a message for another node")]
    NotForUs,
    /// The key can't be used.
    #[error("a node's key can't be used")]
    BadKey,
}

/// What signs and checks for one node. A simulation has one that does neither.
pub trait Seal: Send + Sync {
    /// Signs with this node's key.
    fn sign(&self, bytes: &[u8]) -> Vec<u8>;
    /// Whether `node` signed `bytes`. `false` for whoever is not enrolled.
    fn is_signed_by(&self, node: NodeId, bytes: &[u8], signature: &[u8]) -> bool;
}

/// This node's key pair, and the public keys of those who are enrolled.
pub struct Keys {
    own: Ed25519KeyPair,
    enrolled: BTreeMap<NodeId, Vec<u8>>,
}

impl Keys {
    /// From a private key as PKCS #8.
    pub fn from_pkcs8(own: &[u8]) -> Result<Keys, SealError> {
        Ok(Keys {
            own: Ed25519KeyPair::from_pkcs8(own).map_err(|_| SealError::BadKey)?,
            enrolled: BTreeMap::new(),
        })
    }

    /// A new key pair. The caller takes care of its private half.
    pub fn generate() -> Result<Keys, SealError> {
        Ok(Keys {
            own: Ed25519KeyPair::generate().map_err(|_| SealError::BadKey)?,
            enrolled: BTreeMap::new(),
        })
    }

    /// This node's public key.
    pub fn public(&self) -> &[u8] {
        self.own.public_key().as_ref()
    }

    /// From now on `node` is known by `public`; the one before is void.
    pub fn enrol(&mut self, node: NodeId, public: &[u8]) {
        self.enrolled.insert(node, public.to_vec());
    }

    /// From now on nothing of `node` is taken.
    pub fn revoke(&mut self, node: NodeId) {
        self.enrolled.remove(&node);
    }
}

impl Seal for Keys {
    fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        self.own.sign(bytes).as_ref().to_vec()
    }

    fn is_signed_by(&self, node: NodeId, bytes: &[u8], signature: &[u8]) -> bool {
        self.enrolled.get(&node).is_some_and(|public| {
            UnparsedPublicKey::new(&ED25519, public)
                .verify(bytes, signature)
                .is_ok()
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) || text.len() > 256 {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

/// Between the signature and the envelope in a sealed message.
const SEPARATOR: u8 = b'\n';

/// The bytes of an envelope, signed: the signature in hexadecimal, a line feed, the envelope as JSON.
pub fn seal(envelope: &Envelope, keys: &dyn Seal) -> Result<Vec<u8>, SealError> {
    let body = serde_json::to_vec(envelope).map_err(|_| SealError::Malformed)?;
    let mut bytes = hex(&keys.sign(&body)).into_bytes();
    bytes.push(SEPARATOR);
    bytes.extend_from_slice(&body);
    if bytes.len() > MESSAGE_BOUND {
        return Err(SealError::TooLarge);
    }
    Ok(bytes)
}

/// Reads what [`seal`] made, for the node `to`. The signature is checked before the rest is looked
/// at, but for who is said to have signed.
pub fn open(bytes: &[u8], to: NodeId, keys: &dyn Seal) -> Result<Envelope, SealError> {
    if bytes.len() > MESSAGE_BOUND {
        return Err(SealError::TooLarge);
    }
    /// Who is said to have signed.
    #[derive(Deserialize)]
    struct Sender {
        from: NodeId,
    }
    let at = bytes.iter().position(|byte| *byte == SEPARATOR);
    let at = at.ok_or(SealError::Malformed)?;
    let (signature, body) = (&bytes[..at], &bytes[at + 1..]);
    let signature = std::str::from_utf8(signature).ok().and_then(from_hex);
    let signature = signature.ok_or(SealError::Malformed)?;
    let Sender { from } = serde_json::from_slice(body).map_err(|_| SealError::Malformed)?;
    if !keys.is_signed_by(from, body, &signature) {
        return Err(SealError::BadSignature);
    }
    let envelope: Envelope = serde_json::from_slice(body).map_err(|_| SealError::Malformed)?;
    if envelope.to != to {
        return Err(SealError::NotForUs);
    }
    Ok(envelope)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cascade::identity::ConferenceId;
    use crate::cascade::message::Message;

    fn envelope(from: u128, to: u128) -> Envelope {
        Envelope {
            from: NodeId(from),
            to: NodeId(to),
            incarnation: 1,
            to_incarnation: Some(1),
            number: 7,
            message: Message::Acknowledge {
                conference: ConferenceId(9),
                stream: 1,
                next: 4,
            },
        }
    }

    #[test]
    fn only_what_an_enrolled_node_signed_for_us_is_opened() {
        let sender = Keys::generate().unwrap();
        let stranger = Keys::generate().unwrap();
        let mut receiver = Keys::generate().unwrap();
        receiver.enrol(NodeId(1), sender.public());
        let good = seal(&envelope(1, 2), &sender).unwrap();
        assert_eq!(open(&good, NodeId(2), &receiver), Ok(envelope(1, 2)));
        assert_eq!(open(&good, NodeId(3), &receiver), Err(SealError::NotForUs));
        let forged = seal(&envelope(1, 2), &stranger).unwrap();
        assert_eq!(
            open(&forged, NodeId(2), &receiver),
            Err(SealError::BadSignature)
        );
        let unknown = seal(&envelope(5, 2), &stranger).unwrap();
        assert_eq!(
            open(&unknown, NodeId(2), &receiver),
            Err(SealError::BadSignature)
        );
        for at in 0..good.len() {
            let mut changed = good.clone();
            changed[at] ^= 1;
            assert!(open(&changed, NodeId(2), &receiver).is_err(), "byte {at}");
        }
        receiver.revoke(NodeId(1));
        assert_eq!(
            open(&good, NodeId(2), &receiver),
            Err(SealError::BadSignature)
        );
    }

    #[test]
    fn what_is_too_large_or_no_message_is_refused() {
        let keys = Keys::generate().unwrap();
        let open = |bytes: &[u8]| open(bytes, NodeId(2), &keys);
        assert_eq!(
            open(&vec![b'0'; MESSAGE_BOUND + 1]),
            Err(SealError::TooLarge)
        );
        for bad in [
            &b""[..],
            b"\n",
            b"zz\n{}",
            b"00\n{\"from\":1}",
            "é\n{}".as_bytes(),
        ] {
            assert_eq!(open(bad), Err(SealError::Malformed), "{bad:?}");
        }
    }
}
