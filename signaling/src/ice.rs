//! STUN and TURN servers that clients are told of.

use axum::http::HeaderValue;
use livekit_protocol as proto;

/// A STUN or TURN server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceServer {
    /// `stun:`, `turn:` or `turns:` address (RFC 7064, RFC 7065).
    pub url: String,
    /// For TURN.
    pub username: String,
    /// For TURN.
    pub credential: String,
}

impl IceServer {
    /// The value of a Link header (RFC 9725 4.6), for encoders and players.
    pub(crate) fn link(&self) -> Option<HeaderValue> {
        let mut link = format!("<{}>; rel=\"ice-server\"", self.url);
        if !self.username.is_empty() {
            let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
            link.push_str(&format!(
                "; username=\"{}\"; credential=\"{}\"; credential-type=\"password\"",
                quoted(&self.username),
                quoted(&self.credential)
            ));
        }
        HeaderValue::from_str(&link).ok()
    }

    /// The same in LiveKit's words.
    pub(crate) fn message(&self) -> proto::IceServer {
        proto::IceServer {
            urls: vec![self.url.clone()],
            username: self.username.clone(),
            credential: self.credential.clone(),
        }
    }
}
