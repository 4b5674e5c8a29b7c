//! Keeps pages of other sites from acting with somebody's cookie.
//!
//! The cookie itself is `SameSite=Strict`. Beside that, a request that changes something must say that it comes from
//! this deployment's own page (`Sec-Fetch-Site`, or `Origin` from browsers that have no such header); who says neither
//! is no browser. And it must be of a type that no form can send.

use axum::extract::Request;
use axum::http::{HeaderMap, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::fault::{Fault, Kind};

/// What may be sent beside JSON: tables to import.
const TABLES: [&str; 3] = [
    "text/csv",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "application/octet-stream",
];

/// Lets a request through, or says why not.
pub(crate) async fn guard(request: Request, next: Next) -> Response {
    match check(request.method(), request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(kind) => Fault::from(kind).into_response(),
    }
}

fn check(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Kind> {
    if [Method::GET, Method::HEAD, Method::OPTIONS].contains(method) {
        return Ok(());
    }
    let text = |name: header::HeaderName| headers.get(name).map(|value| value.to_str());
    let is_ours = match (text(SEC_FETCH_SITE), text(header::ORIGIN)) {
        (Some(site), _) => site.is_ok_and(|site| site == "same-origin"),
        (None, Some(origin)) => {
            let named = text(header::HOST).and_then(Result::ok);
            let host = uri
                .authority()
                .map(|authority| authority.as_str())
                .or(named);
            let origin = origin.unwrap_or_default();
            let from = origin
                .strip_prefix("https://")
                .or(origin.strip_prefix("http://"));
            from.is_some() && from == host
        }
        (None, None) => true,
    };
    if !is_ours {
        return Err(Kind::CrossSite);
    }
    if *method == Method::DELETE {
        // No form can send it.
        return Ok(());
    }
    let sent = text(header::CONTENT_TYPE).and_then(Result::ok);
    let sent = sent
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    let sent = sent.trim().to_ascii_lowercase();
    if sent == "application/json" || TABLES.contains(&sent.as_str()) {
        Ok(())
    } else {
        Err(Kind::WrongType)
    }
}

const SEC_FETCH_SITE: header::HeaderName = header::HeaderName::from_static("sec-fetch-site");

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(headers: &[(&'static str, &'static str)]) -> Result<(), Kind> {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| {
                let name = header::HeaderName::from_static(name);
                (name, value.parse().unwrap())
            })
            .collect();
        check(&Method::POST, &Uri::from_static("/api/session"), &headers)
    }

    #[test]
    fn only_the_own_pages_and_no_browser_at_all_may_change_something() {
        let json = ("content-type", "application/json");
        let host = ("host", "meet.example:7880");
        for (header, expected) in [
            (("sec-fetch-site", "same-origin"), Ok(())),
            (("sec-fetch-site", "same-site"), Err(Kind::CrossSite)),
            (("sec-fetch-site", "cross-site"), Err(Kind::CrossSite)),
            (("sec-fetch-site", "none"), Err(Kind::CrossSite)),
            (("origin", "https://meet.example:7880"), Ok(())),
            (("origin", "https://meet.example"), Err(Kind::CrossSite)),
            (("origin", "https://evil.example"), Err(Kind::CrossSite)),
            (("origin", "null"), Err(Kind::CrossSite)),
            (("accept", "*/*"), Ok(())),
        ] {
            assert_eq!(outcome(&[json, host, header]), expected, "{header:?}");
        }
        for (sent, expected) in [
            ("application/json; charset=utf-8", Ok(())),
            ("text/csv", Ok(())),
            ("text/plain", Err(Kind::WrongType)),
            ("application/x-www-form-urlencoded", Err(Kind::WrongType)),
            ("multipart/form-data; boundary=x", Err(Kind::WrongType)),
        ] {
            assert_eq!(outcome(&[host, ("content-type", sent)]), expected, "{sent}");
        }
        assert_eq!(outcome(&[host]), Err(Kind::WrongType));
    }
}
