//! What handlers take out of a request: who asks, what is named, and what was sent; each bounded and checked.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use cookie::{Cookie, SameSite};
use directory::Timestamp;
use directory::act::{Act, Who};
use directory::id::PersonId;
use directory::sign_in::{Session, SessionToken};
use percent_encoding::percent_decode_str;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde::de::DeserializeOwned;
use signaling::visitors::Visitor;

use super::Api;
use super::fault::{Fault, Kind};

/// The cookie of a session where people come over TLS. Its name makes browsers hold it to this host and to TLS.
pub(crate) const SESSION_COOKIE: &str = "__Host-terrace-session";
/// The same over plain HTTP on the machine itself.
const PLAIN_SESSION_COOKIE: &str = "terrace-session";
/// The cookie of a hall's terminal.
const HALL_COOKIE: &str = "__Host-terrace-hall";
const PLAIN_HALL_COOKIE: &str = "terrace-hall";

/// How long a terminal keeps its hall's key; browsers keep no cookie longer than 400 days.
const HALL_COOKIE_DAYS: i64 = 400;

/// How long a reason may be, in bytes of UTF-8.
const REASON: usize = 2_000;

/// Which cookie.
#[derive(Clone, Copy)]
pub(crate) enum Kept {
    Session,
    Hall,
}

impl Kept {
    fn name(self, is_secure: bool) -> &'static str {
        match (self, is_secure) {
            (Kept::Session, true) => SESSION_COOKIE,
            (Kept::Session, false) => PLAIN_SESSION_COOKIE,
            (Kept::Hall, true) => HALL_COOKIE,
            (Kept::Hall, false) => PLAIN_HALL_COOKIE,
        }
    }

    /// What the request holds of it.
    pub(crate) fn read(self, headers: &HeaderMap, is_secure: bool) -> Option<String> {
        let name = self.name(is_secure);
        headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(Cookie::split_parse)
            .flatten()
            .find(|cookie| cookie.name() == name)
            .map(|cookie| cookie.value().to_owned())
    }

    /// The header that sets it; with nothing, takes it away.
    pub(crate) fn set(self, value: Option<&str>, is_secure: bool) -> HeaderValue {
        let mut cookie = Cookie::build((self.name(is_secure), value.unwrap_or_default()))
            .path("/")
            .http_only(true)
            .secure(is_secure)
            .same_site(SameSite::Strict)
            .build();
        match (value, self) {
            (None, _) => cookie.set_max_age(cookie::time::Duration::ZERO),
            (Some(_), Kept::Hall) => {
                cookie.set_max_age(cookie::time::Duration::days(HALL_COOKIE_DAYS));
            }
            (Some(_), Kept::Session) => {}
        }
        HeaderValue::from_str(&cookie.to_string()).expect("tokens are plain letters")
    }
}

/// Now.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_millis(crate::meetings::now_ms())
}

/// Who asks, when, from where, and why; signed in or not.
pub(crate) struct Asker {
    pub(crate) who: Who,
    pub(crate) now: Timestamp,
    pub(crate) address: Option<IpAddr>,
    reason: Option<String>,
    /// What the browser calls itself.
    pub(crate) device: String,
    random: StdRng,
}

impl Asker {
    /// What is done.
    pub(crate) fn act(&mut self) -> Act<'_> {
        Act {
            who: self.who,
            now: self.now,
            address: self.address,
            reason: self.reason.clone(),
            random: &mut self.random,
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Asker {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Asker, Fault> {
        let reason = match parts.headers.get("reason") {
            None => None,
            Some(value) if value.len() > 3 * REASON => return Err(Kind::TooLarge.into()),
            Some(value) => {
                let text = value.to_str().map_err(|_| Kind::Unreadable)?;
                let text = percent_decode_str(text).decode_utf8();
                let text = text.map_err(|_| Kind::Unreadable)?;
                if text.contains('\0') {
                    return Err(Kind::Unreadable.into());
                }
                Some(text.into_owned())
            }
        };
        let device = parts.headers.get(header::USER_AGENT);
        let device = device.and_then(|value| value.to_str().ok());
        Ok(Asker {
            who: Who::Nobody,
            now: now(),
            address: parts.extensions.get::<Visitor>().map(|visitor| visitor.0),
            reason,
            device: device.unwrap_or_default().to_owned(),
            random: StdRng::from_os_rng(),
        })
    }
}

/// Somebody with a session that is open, but perhaps not more: the second factor may be missing.
pub(crate) struct HalfSignedIn {
    pub(crate) asker: Asker,
    pub(crate) token: SessionToken,
    pub(crate) session: Session,
}

impl FromRequestParts<Arc<Api>> for HalfSignedIn {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<HalfSignedIn, Fault> {
        let mut asker = Asker::from_request_parts(parts, api).await?;
        let token = Kept::Session.read(&parts.headers, api.is_secure);
        let token = SessionToken::from_text(&token.ok_or(Kind::SignedOut)?);
        let session = api.sign_in.session(&token, asker.now).await?;
        asker.who = Who::Person(session.person);
        Ok(HalfSignedIn {
            asker,
            token,
            session,
        })
    }
}

/// Somebody who is signed in.
pub(crate) struct Caller(pub(crate) HalfSignedIn);

impl Caller {
    /// What is done.
    pub(crate) fn act(&mut self) -> Act<'_> {
        self.0.asker.act()
    }

    pub(crate) fn person(&self) -> PersonId {
        self.0.session.person
    }
}

impl FromRequestParts<Arc<Api>> for Caller {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Caller, Fault> {
        let half = HalfSignedIn::from_request_parts(parts, api).await?;
        if !half.session.is_complete() {
            return Err(Kind::SecondFactorNeeded.into());
        }
        Ok(Caller(half))
    }
}

/// Somebody who has proved who they are a short while ago, for dangerous acts.
pub(crate) struct Proven(pub(crate) Caller);

impl Proven {
    /// What is done.
    pub(crate) fn act(&mut self) -> Act<'_> {
        self.0.act()
    }
}

impl FromRequestParts<Arc<Api>> for Proven {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Proven, Fault> {
        let caller = Caller::from_request_parts(parts, api).await?;
        if !caller.0.session.is_fresh(caller.0.asker.now) {
            return Err(Kind::StepUpNeeded.into());
        }
        Ok(Proven(caller))
    }
}

/// An identifier from the path. What is none names nothing.
pub(crate) struct Id<T>(pub(crate) T);

impl<T: FromStr, S: Send + Sync> FromRequestParts<S> for Id<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Id<T>, Fault> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| Kind::NotFound)?;
        Ok(Id(text.parse().map_err(|_| Kind::NotFound)?))
    }
}

/// Two identifiers from the path.
pub(crate) struct Ids<T, U>(pub(crate) T, pub(crate) U);

impl<T: FromStr, U: FromStr, S: Send + Sync> FromRequestParts<S> for Ids<T, U> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Ids<T, U>, Fault> {
        let Path((one, other)) = Path::<(String, String)>::from_request_parts(parts, state)
            .await
            .map_err(|_| Kind::NotFound)?;
        let one = one.parse().map_err(|_| Kind::NotFound)?;
        Ok(Ids(one, other.parse().map_err(|_| Kind::NotFound)?))
    }
}

/// Which version of something was seen (`If-Match`, RFC 9110 13.1.1), as a number between quotes.
pub(crate) struct Seen(pub(crate) u64);

impl<S: Sync> FromRequestParts<S> for Seen {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Seen, Fault> {
        let value = parts.headers.get(header::IF_MATCH);
        let value = value.ok_or(Kind::VersionMissing)?;
        let number = value.to_str().ok().and_then(|text| {
            text.trim()
                .strip_prefix('"')?
                .strip_suffix('"')?
                .parse()
                .ok()
        });
        Ok(Seen(number.ok_or(Kind::Unreadable)?))
    }
}

/// The address's parameters.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Query<T>, Fault> {
        let text = parts.uri.query().unwrap_or_default();
        // PostgreSQL keeps no such character, and nothing here has one.
        if text.contains("%00") {
            return Err(Kind::Unreadable.into());
        }
        let query = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        match query {
            Ok(axum::extract::Query(query)) => Ok(Query(query)),
            Err(error) => {
                Err(Fault::from(Kind::Unreadable)
                    .with("about", serde_json::json!(error.body_text())))
            }
        }
    }
}

/// What was sent, as JSON.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &S) -> Result<Body<T>, Fault> {
        let bytes = bytes(request, state).await?;
        let value: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|_| Kind::Unreadable)?;
        if has_nul(&value) {
            return Err(Fault::invalid("U+0000"));
        }
        serde_json::from_value(value)
            .map(Body)
            .map_err(Fault::invalid)
    }
}

/// The whole body, if it is not too long.
pub(crate) async fn bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Fault> {
    Bytes::from_request(request, state).await.map_err(|error| {
        match error.status() {
            axum::http::StatusCode::PAYLOAD_TOO_LARGE => Kind::TooLarge,
            _ => Kind::Unreadable,
        }
        .into()
    })
}

fn has_nul(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::String(text) => text.contains('\0'),
        serde_json::Value::Array(values) => values.iter().any(has_nul),
        serde_json::Value::Object(members) => members
            .iter()
            .any(|(name, value)| name.contains('\0') || has_nul(value)),
        _ => false,
    }
}

/// An identifier that was sent.
pub(crate) fn id<T: FromStr>(text: &str) -> Result<T, Fault> {
    text.parse()
        .map_err(|_| Fault::invalid(format!("{text:.64} is not an identifier")))
}

/// The header that says which version something has.
pub(crate) fn etag(version: u64) -> [(header::HeaderName, String); 1] {
    [(header::ETAG, format!("\"{version}\""))]
}
