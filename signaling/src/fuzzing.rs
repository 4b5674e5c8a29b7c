//! The door for the fuzz targets in `../fuzz`: what can be reached only from inside. Each function
//! makes of a fuzzer's bytes what a client could have sent, and checks what comes of it.

#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;

mod descriptions;
mod requests;

use std::cell::LazyCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arbitrary::{Result, Unstructured};
use base64::Engine as _;
use jsonwebtoken::{Algorithm, EncodingKey};

use crate::hub::{Hub, HubConfig, Limits, Media, outbox};
use crate::token::{CLOCK_SKEW, Claims, KeyRing, VideoGrant};

pub use descriptions::descriptions;
pub use requests::requests;

const SECRET: &str = "a secret of at least thirty-two bytes";

/// When tokens are looked at, in seconds since 1970.
const NOW: u64 = 1_800_000_000;

fn keys(secret: &str) -> KeyRing {
    KeyRing::new([("key".to_owned(), secret.to_owned())])
}

/// Reads the bytes as the `join_request` of an address.
///
/// # Errors
/// Never.
pub fn joins(data: &[u8]) -> Result<()> {
    // As it stands in the address, and as what is packed in it.
    crate::session::check_join_request(&String::from_utf8_lossy(data));
    let packed = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(data);
    crate::session::check_join_request(&packed);
    Ok(())
}

/// Reads the bytes as an access token that nobody signed, and as the two parts of one that was.
///
/// # Errors
/// The input has ended.
pub fn tokens(data: &[u8]) -> Result<()> {
    let now = UNIX_EPOCH + Duration::from_secs(NOW);
    let text = String::from_utf8_lossy(data);
    let unknown = keys("another secret, which signed nothing at all");
    assert!(unknown.verify(&text, now).is_err(), "nobody signed it");
    let mut input = Unstructured::new(data);
    let length = input.int_in_range(0..=u16::MAX)?;
    let header = input
        .bytes(usize::from(length).min(input.len()) % 64)?
        .to_vec();
    check_signed(
        &header,
        input.peek_bytes(input.len()).unwrap_or_default(),
        now,
    );
    check_signed(br#"{"alg":"HS256","typ":"JWT"}"#, data, now);
    Ok(())
}

fn check_signed(header: &[u8], claims: &[u8], now: SystemTime) {
    let encode = |part| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(part);
    let message = format!("{}.{}", encode(header), encode(claims));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256)
        .expect("HMAC signs everything");
    let ring = keys(SECRET);
    let Ok(read) = ring.verify(&format!("{message}.{signature}"), now) else {
        return;
    };
    assert_eq!(read.iss, "key");
    assert!(read.exp.saturating_add(CLOCK_SKEW.as_secs()) >= NOW);
    let _ = (read.require_join(), read.require_admin("room"));
    let permission = read.video.permission();
    assert!(
        permission.can_publish || permission.can_publish_sources.is_empty() || {
            read.video.can_publish == Some(false)
        }
    );
    let again = ring.sign(&read).expect("the key is there");
    assert_eq!(ring.verify(&again, now), Ok(read));
}

/// Reads the bytes as what encoders and players send: an offer, or a fragment of ICE.
///
/// # Errors
/// Never.
pub fn http_media(data: &[u8]) -> Result<()> {
    crate::whip::check(&String::from_utf8_lossy(data));
    Ok(())
}

struct Deaf;

impl Media for Deaf {
    fn send(&self, _: usize, _: sfu::Command) {}
}

const METHODS: [&str; 12] = [
    "CreateRoom",
    "ListRooms",
    "DeleteRoom",
    "ListParticipants",
    "GetParticipant",
    "RemoveParticipant",
    "MutePublishedTrack",
    "UpdateParticipant",
    "UpdateSubscriptions",
    "SendData",
    "UpdateRoomMetadata",
    "PerformRpc",
];

thread_local! {
    static HUB: LazyCell<Arc<Hub>> = LazyCell::new(|| {
        let config = HubConfig {
            keys: keys(SECRET),
            limits: Limits::default(),
            gate: None,
            ice_servers: Vec::new(),
        };
        Hub::new(config, Arc::new(Deaf))
    });
}

/// Calls the server API, in a room with two people, with the bytes as the body. The first byte is the
/// method, the second the format.
///
/// # Errors
/// The input has ended.
pub fn calls(data: &[u8]) -> Result<()> {
    let [method, format, body @ ..] = data else {
        return Err(arbitrary::Error::NotEnoughData);
    };
    let method = METHODS[usize::from(*method) % METHODS.len()];
    HUB.with(|hub| {
        let claims = Claims {
            iss: "key".into(),
            sub: "ana".into(),
            video: VideoGrant {
                room: "room".into(),
                room_join: true,
                room_create: true,
                room_list: true,
                room_admin: true,
                ..VideoGrant::default()
            },
            attributes: HashMap::new(),
            ..Claims::default()
        };
        let mut outlets = Vec::new();
        for identity in ["ana", "bo"] {
            let (outbox, outlet) = outbox();
            let mut newcomer = crate::session::newcomer(hub, &claims);
            newcomer.identity = identity.to_owned();
            hub.join("room", newcomer, outbox)
                .expect("there is room for it");
            outlets.push(outlet);
        }
        crate::twirp::check(hub, &claims, method, format & 1 == 1, body);
        for room in hub.room_names() {
            hub.delete_room(&room);
        }
        assert_eq!(hub.counts().participants, 0);
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::replay::{Target, damaged, whole};
    use super::*;

    const TARGETS: &[Target] = &[
        ("calls", calls),
        ("descriptions", descriptions),
        ("http-media", http_media),
        ("joins", joins),
        ("requests", requests),
        ("tokens", tokens),
    ];

    #[test]
    fn what_fuzzing_begins_with_is_survived() {
        whole(TARGETS);
    }

    proptest! {
        // Every case is one of every target.
        #![proptest_config(ProptestConfig {
            cases: ProptestConfig::default().cases / 8,
            ..ProptestConfig::default()
        })]
        #[test]
        fn damaged_seeds_are_survived(
            place: prop::sample::Index,
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            length: prop::sample::Index,
        ) {
            damaged(TARGETS, place, &damage, length);
        }
    }
}
