//! Access tokens: LiveKit's JSON Web Tokens, signed with HS256 by an API key's secret, or for conferences
//! that spread over a deployment's nodes with EdDSA by the deployment's key, which every node knows.
//!
//! The algorithm is pinned, and with it the key: a token that names another one is refused before its
//! signature is looked at.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind};
use livekit_protocol as proto;
use serde::{Deserialize, Serialize};

use crate::cascade::{ConferenceId, NodeId, OrganisationId};

/// How far two clocks may be apart. Longer lets a hall with a wrong clock in; shorter lets an
/// expired token die sooner.
pub const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// The longest token that is looked at, in bytes.
pub const TOKEN_BOUND: usize = 16 * 1024;

/// Why a token was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There is none.
    #[error("no access token: send it as access_token or in the Authorization header")]
    Missing,
    /// It is not a JSON Web Token with HS256.
    #[error("the access token can't be read")]
    Malformed,
    /// Its issuer is no API key of this server.
    #[error("the access token was made with an API key that this server does not have")]
    UnknownKey,
    /// The signature does not fit.
    #[error("the access token's signature is wrong: was it made with another secret?")]
    BadSignature,
    /// It has expired.
    #[error("the access token has expired")]
    Expired,
    /// It is for later.
    #[error("the access token is not valid yet: are both clocks right?")]
    NotYetValid,
    /// It is valid but does not allow this.
    #[error("the access token does not grant {0}")]
    NotGranted(&'static str),
}

/// What a token says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Claims {
    /// The API key that signed it.
    pub iss: String,
    /// The participant's identity.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sub: String,
    /// When it ends, in seconds since 1970.
    pub exp: u64,
    /// From when it is valid, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// The participant's name as shown.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The participant's metadata.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub metadata: String,
    /// The participant's attributes.
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    pub attributes: HashMap<String, String>,
    /// `standard`, `agent`, `ingress`, `egress` or `sip`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// What it allows.
    pub video: VideoGrant,
    /// That the room is a conference that spreads over a deployment's nodes. Only a token of the deployment
    /// may say so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conference: Option<ConferenceGrant>,
}

/// Who somebody is in a conference of the tree, whose id is the room's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConferenceGrant {
    /// The node that holds the conference.
    pub root: NodeId,
    /// The participant's organisation.
    pub organisation: OrganisationId,
    /// The node at the top of the branch of which it is a chair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chair_of: Option<NodeId>,
}

/// What a token allows in rooms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct VideoGrant {
    /// The room that it is for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub room: String,
    /// May join that room.
    #[serde(skip_serializing_if = "is_false")]
    pub room_join: bool,
    /// May create and delete rooms.
    #[serde(skip_serializing_if = "is_false")]
    pub room_create: bool,
    /// May list rooms.
    #[serde(skip_serializing_if = "is_false")]
    pub room_list: bool,
    /// May moderate that room.
    #[serde(skip_serializing_if = "is_false")]
    pub room_admin: bool,
    /// May publish tracks; yes when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish: Option<bool>,
    /// May subscribe to tracks; yes when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_subscribe: Option<bool>,
    /// May send data; as `can_publish` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish_data: Option<bool>,
    /// If not empty, only these sources may be published.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub can_publish_sources: Vec<String>,
    /// May change its own name, metadata and attributes; no when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_update_own_metadata: Option<bool>,
    /// Is not shown to others.
    #[serde(skip_serializing_if = "is_false")]
    pub hidden: bool,
    /// Is a recorder.
    #[serde(skip_serializing_if = "is_false")]
    pub recorder: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// The name of a track source as grants write it.
pub fn source_from_name(name: &str) -> Option<proto::TrackSource> {
    match name.to_ascii_lowercase().as_str() {
        "camera" => Some(proto::TrackSource::Camera),
        "microphone" => Some(proto::TrackSource::Microphone),
        "screen_share" => Some(proto::TrackSource::ScreenShare),
        "screen_share_audio" => Some(proto::TrackSource::ScreenShareAudio),
        _ => None,
    }
}

impl VideoGrant {
    /// The permission of a participant who joins with this grant.
    pub fn permission(&self) -> proto::ParticipantPermission {
        let can_publish = self.can_publish.unwrap_or(true);
        // A list with only unknown names must not become "every source": such a token may
        // publish nothing.
        let sources: Vec<i32> = self
            .can_publish_sources
            .iter()
            .filter_map(|name| source_from_name(name))
            .map(|source| source as i32)
            .collect();
        let names_no_source = !self.can_publish_sources.is_empty() && sources.is_empty();
        proto::ParticipantPermission {
            can_subscribe: self.can_subscribe.unwrap_or(true),
            can_publish: can_publish && !names_no_source,
            can_publish_data: self.can_publish_data.unwrap_or(can_publish),
            can_publish_sources: sources,
            hidden: self.hidden,
            can_update_metadata: self.can_update_own_metadata.unwrap_or(false),
            ..Default::default()
        }
    }
}

/// The issuer of a deployment's tokens.
pub const DEPLOYMENT: &str = "deployment";

/// The API keys and their secrets, and the public key of the deployment that this node is of.
#[derive(Clone, Default)]
pub struct KeyRing {
    secrets: HashMap<String, String>,
    deployment: Arc<OnceLock<Vec<u8>>>,
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.secrets.keys()).finish()
    }
}

impl KeyRing {
    /// Key and secret pairs.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> KeyRing {
        KeyRing {
            secrets: pairs.into_iter().collect(),
            deployment: Arc::default(),
        }
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty()
    }

    /// From now on tokens of the deployment hold, which are signed by this Ed25519 key (RFC 8032).
    pub fn trust_deployment(&self, key: &[u8; 32]) {
        let _ = self.deployment.set(key.to_vec());
    }

    /// Checks a token's algorithm, signature and times at `now`.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Claims, TokenError> {
        if token.is_empty() {
            return Err(TokenError::Missing);
        }
        if token.len() > TOKEN_BOUND {
            return Err(TokenError::Malformed);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
        let key = match header.alg {
            Algorithm::HS256 => {
                // The issuer is read before the signature only to find the secret.
                let payload = token.split('.').nth(1).ok_or(TokenError::Malformed)?;
                let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD
                    .decode(payload)
                    .map_err(|_| TokenError::Malformed)?;
                let unverified: Claims =
                    serde_json::from_slice(&payload).map_err(|_| TokenError::Malformed)?;
                let secret = self.secrets.get(&unverified.iss);
                DecodingKey::from_secret(secret.ok_or(TokenError::UnknownKey)?.as_bytes())
            }
            Algorithm::EdDSA => {
                DecodingKey::from_ed_der(self.deployment.get().ok_or(TokenError::UnknownKey)?)
            }
            _ => return Err(TokenError::Malformed),
        };
        let mut validation = Validation::new(header.alg);
        validation.set_required_spec_claims(&["exp", "iss"]);
        validation.validate_aud = false;
        // The times are compared below, with the caller's clock.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let mut claims = jsonwebtoken::decode::<Claims>(token, &key, &validation)
            .map_err(|error| match error.kind() {
                ErrorKind::InvalidSignature => TokenError::BadSignature,
                _ => TokenError::Malformed,
            })?
            .claims;
        match header.alg {
            // An API key is one node's.
            Algorithm::HS256 => claims.conference = None,
            // What is signed for a deployment is for conferences of its own.
            _ => claims.require_conference()?,
        }
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if now > claims.exp.saturating_add(CLOCK_SKEW.as_secs()) {
            return Err(TokenError::Expired);
        }
        if claims
            .nbf
            .is_some_and(|nbf| nbf > now.saturating_add(CLOCK_SKEW.as_secs()))
        {
            return Err(TokenError::NotYetValid);
        }
        Ok(claims)
    }

    /// Signs claims with the secret of the key in `claims.iss`.
    pub fn sign(&self, claims: &Claims) -> Result<String, TokenError> {
        let secret = self.secrets.get(&claims.iss);
        let secret = secret.ok_or(TokenError::UnknownKey)?;
        let key = EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key)
            .map_err(|_| TokenError::Malformed)
    }
}

/// Signs claims for conferences of a deployment with its key, an Ed25519 key as PKCS #8.
pub fn sign_for_deployment(claims: &Claims, key: &[u8]) -> Result<String, TokenError> {
    claims.require_conference()?;
    let key = EncodingKey::from_ed_der(key);
    jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), claims, &key)
        .map_err(|_| TokenError::Malformed)
}

impl Claims {
    /// A grant for one conference of the deployment, and for nothing else.
    fn require_conference(&self) -> Result<(), TokenError> {
        let room = &self.video.room;
        let id = room.parse::<ConferenceId>().ok();
        let is_written_so = |id: &ConferenceId| id.to_string() == *room;
        let may_more = self.video.room_create || self.video.room_list || self.video.room_admin;
        if self.iss != DEPLOYMENT
            || self.conference.is_none()
            || may_more
            || !id.is_some_and(|id| id != ConferenceId::TOPOLOGY && is_written_so(&id))
        {
            return Err(TokenError::NotGranted("a conference of the deployment"));
        }
        Ok(())
    }

    /// The grant to join: identity, room and `roomJoin` must be there.
    pub fn require_join(&self) -> Result<(), TokenError> {
        if !self.video.room_join || self.video.room.is_empty() {
            return Err(TokenError::NotGranted("joining this room"));
        }
        if self.sub.is_empty() {
            return Err(TokenError::NotGranted("an identity"));
        }
        Ok(())
    }

    /// The grant to moderate `room`.
    pub fn require_admin(&self, room: &str) -> Result<(), TokenError> {
        if self.video.room_admin && !room.is_empty() && self.video.room == room {
            Ok(())
        } else {
            Err(TokenError::NotGranted("moderating this room (roomAdmin)"))
        }
    }

    /// LiveKit's kind of participant.
    pub fn participant_kind(&self) -> proto::participant_info::Kind {
        use proto::participant_info::Kind;
        match self.kind.to_ascii_lowercase().as_str() {
            "agent" => Kind::Agent,
            "ingress" => Kind::Ingress,
            "egress" => Kind::Egress,
            "sip" => Kind::Sip,
            _ => Kind::Standard,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> KeyRing {
        KeyRing::new([(
            "key".to_owned(),
            "a secret of at least thirty-two bytes".to_owned(),
        )])
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn claims() -> Claims {
        Claims {
            iss: "key".into(),
            sub: "ana".into(),
            exp: 10_000,
            nbf: Some(5_000),
            video: VideoGrant {
                room: "r".into(),
                room_join: true,
                ..Default::default()
            },
            ..Default::default()
        }
    }

    #[test]
    fn a_signed_token_comes_back_as_it_was() {
        let token = ring().sign(&claims()).unwrap();
        assert_eq!(ring().verify(&token, at(6_000)), Ok(claims()));
        claims().require_join().unwrap();
    }

    #[test]
    fn an_api_key_is_for_no_conference_and_the_deployments_for_nothing_else() {
        use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

        let grant = ConferenceGrant {
            root: NodeId(1),
            organisation: OrganisationId(2),
            chair_of: Some(NodeId(1)),
        };
        let of_key = Claims {
            conference: Some(grant.clone()),
            ..claims()
        };
        let token = ring().sign(&of_key).unwrap();
        assert_eq!(ring().verify(&token, at(6_000)), Ok(claims()));

        let pair = Ed25519KeyPair::generate().unwrap();
        let key = pair.to_pkcs8().unwrap();
        let mut of_deployment = Claims {
            iss: DEPLOYMENT.into(),
            ..of_key
        };
        of_deployment.video.room = ConferenceId(7).to_string();
        let token = sign_for_deployment(&of_deployment, key.as_ref()).unwrap();
        let keys = ring();
        assert_eq!(
            keys.verify(&token, at(6_000)),
            Err(TokenError::UnknownKey),
            "a server that is no node"
        );
        let public = pair.public_key().as_ref().try_into().unwrap();
        keys.trust_deployment(&public);
        assert_eq!(keys.verify(&token, at(6_000)), Ok(of_deployment.clone()));
        assert_eq!(keys.verify(&token, at(10_301)), Err(TokenError::Expired));
        let stolen = Claims {
            sub: "eve".into(),
            ..of_deployment.clone()
        };
        let other = Ed25519KeyPair::generate().unwrap().to_pkcs8().unwrap();
        let forged = sign_for_deployment(&stolen, other.as_ref()).unwrap();
        assert_eq!(
            keys.verify(&forged, at(6_000)),
            Err(TokenError::BadSignature)
        );
        let wrong: [fn(&mut Claims); 4] = [
            |one| one.conference = None,
            |one| one.video.room = "r".into(),
            |one| one.video.room = ConferenceId::TOPOLOGY.to_string(),
            |one| one.video.room_admin = true,
        ];
        for (at, spoil) in wrong.into_iter().enumerate() {
            let mut claims = of_deployment.clone();
            spoil(&mut claims);
            let signed = sign_for_deployment(&claims, key.as_ref());
            assert!(matches!(signed, Err(TokenError::NotGranted(_))), "{at}");
        }
    }

    #[test]
    fn times_are_kept_with_five_minutes_of_skew() {
        let token = ring().sign(&claims()).unwrap();
        assert!(ring().verify(&token, at(10_300)).is_ok());
        assert_eq!(ring().verify(&token, at(10_301)), Err(TokenError::Expired));
        assert!(ring().verify(&token, at(4_700)).is_ok());
        assert_eq!(
            ring().verify(&token, at(4_699)),
            Err(TokenError::NotYetValid)
        );
    }

    #[test]
    fn a_token_of_another_secret_key_or_algorithm_is_refused() {
        let other = KeyRing::new([(
            "key".to_owned(),
            "another secret entirely, of 32 bytes".into(),
        )]);
        let token = other.sign(&claims()).unwrap();
        assert_eq!(
            ring().verify(&token, at(6_000)),
            Err(TokenError::BadSignature)
        );
        let token = ring().sign(&claims()).unwrap();
        assert_eq!(
            KeyRing::default().verify(&token, at(6_000)),
            Err(TokenError::UnknownKey)
        );
        let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        let body = serde_json::to_string(&claims()).unwrap();
        for alg in ["none", "HS384", "RS256", "NONE"] {
            let header = encode(&format!(r#"{{"alg":"{alg}","typ":"JWT"}}"#));
            let signature = token.rsplit('.').next().unwrap();
            for signature in ["", signature] {
                let forged = format!("{header}.{}.{signature}", encode(&body));
                assert_eq!(
                    ring().verify(&forged, at(6_000)),
                    Err(TokenError::Malformed),
                    "{alg}"
                );
            }
        }
        assert_eq!(ring().verify("", at(0)), Err(TokenError::Missing));
        for junk in ["x", "a.b", "a.b.c", "....", "e30.e30.e30"] {
            assert!(ring().verify(junk, at(0)).is_err());
        }
    }

    #[test]
    fn absent_grants_have_livekits_defaults() {
        let permission = VideoGrant::default().permission();
        assert!(permission.can_publish && permission.can_subscribe && permission.can_publish_data);
        assert!(!permission.can_update_metadata && !permission.hidden);
        let only_unknown = VideoGrant {
            can_publish_sources: vec!["hologram".into()],
            ..Default::default()
        };
        assert!(!only_unknown.permission().can_publish);
        let listener = VideoGrant {
            can_publish: Some(false),
            ..Default::default()
        };
        assert!(!listener.permission().can_publish_data);
    }

    #[test]
    fn moderating_needs_the_very_room() {
        let mut claims = claims();
        claims.video.room_admin = true;
        assert!(claims.require_admin("r").is_ok());
        assert!(claims.require_admin("s").is_err());
        claims.video.room = String::new();
        assert!(claims.require_admin("").is_err());
        assert!(claims.require_join().is_err());
    }
}
