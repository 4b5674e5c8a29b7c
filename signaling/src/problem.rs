//! What a program hears over HTTP when it can't have what it asks for: problem details (RFC 9457).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::hub::Barred;
use crate::session::{Unfit, status_of};
use crate::token::TokenError;

/// How soon one who came too early or too often may come again, in seconds.
const RETRY_AFTER: &str = "5";

/// The code of the problem that a response tells.
#[derive(Clone, Copy)]
pub(crate) struct Code(pub(crate) &'static str);

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub(crate) status: StatusCode,
    /// Stable, for programs.
    code: &'static str,
    /// For the person who set up the client.
    detail: String,
    /// The value of `WWW-Authenticate` (RFC 6750 3).
    challenge: Option<&'static str>,
}

impl Problem {
    pub(crate) fn new(
        status: StatusCode,
        code: &'static str,
        detail: impl Into<String>,
    ) -> Problem {
        Problem {
            status,
            code,
            detail: detail.into(),
            challenge: None,
        }
    }

    /// The body is not what its type says.
    pub fn malformed(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "malformed", detail)
    }

    /// The offer can be read but not be answered in whole (RFC 9725 4.4.2, 4.4.3).
    pub(crate) fn not_acceptable(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", detail)
    }

    /// The offer does not speak WebRTC as it is spoken here (RFC 9725 4.4.4).
    pub(crate) fn unprocessable(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "unprocessable", detail)
    }

    /// The token does not allow it.
    pub fn not_granted(detail: impl Into<String>) -> Problem {
        Problem {
            challenge: Some("Bearer error=\"insufficient_scope\""),
            ..Problem::new(StatusCode::FORBIDDEN, "not_granted", detail)
        }
    }

    pub(crate) fn no_session() -> Problem {
        Problem::not_found(
            "no_session",
            "there is no such session (any more): start a new one",
        )
    }

    /// There is none.
    pub fn not_found(code: &'static str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, code, detail)
    }

    pub(crate) fn too_often(detail: &'static str) -> Problem {
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_often", detail)
    }

    /// It can be had in a moment.
    pub fn not_now(detail: &'static str) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_now", detail)
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Problem {
        match error {
            TokenError::NotGranted(_) => Problem::not_granted(error.to_string()),
            _ => Problem {
                challenge: Some(if error == TokenError::Missing {
                    "Bearer"
                } else {
                    "Bearer error=\"invalid_token\""
                }),
                ..Problem::new(StatusCode::UNAUTHORIZED, "no_access", error.to_string())
            },
        }
    }
}

impl From<Unfit> for Problem {
    fn from(unfit: Unfit) -> Problem {
        match unfit {
            Unfit::Token(error) => error.into(),
            Unfit::Text(reason) => Problem::malformed(reason),
        }
    }
}

impl From<Barred> for Problem {
    fn from(barred: Barred) -> Problem {
        let code = match barred {
            Barred::Draining => "draining",
            Barred::Overloaded => "overloaded",
            Barred::ServerFull => "server_full",
            Barred::AddressFull => "address_full",
            Barred::RoomFull => "room_full",
            Barred::OtherTokens => "other_tokens",
            Barred::Gate(_) => "not_admitted",
        };
        Problem::new(status_of(&barred), code, barred.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({
            "type": format!("urn:terrace:problem:{}", self.code),
            "title": self.status.canonical_reason(),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
        });
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.status, kind, body.to_string()).into_response();
        response.extensions_mut().insert(Code(self.code));
        let headers = response.headers_mut();
        if let Some(challenge) = self.challenge {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static(challenge),
            );
        }
        if matches!(
            self.status,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
        ) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
        }
        response
    }
}
