//! The web client, embedded and precompressed, with headers that let a page do only what it needs.

use std::borrow::Cow;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "$OUT_DIR/web"]
struct Files;

/// The pages and their parts.
pub(crate) fn router() -> Router {
    Router::new().fallback(serve)
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "webp" => "image/webp",
        "woff2" => "font/woff2",
        "wasm" => "application/wasm",
        "wav" => "audio/wav",
        "mp3" => "audio/mpeg",
        "ogg" => "audio/ogg",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// The encodings that a client takes, best first (RFC 9110 12.5.3).
fn encodings(headers: &HeaderMap) -> Vec<(&'static str, &'static str)> {
    let accepted = headers
        .get(header::ACCEPT_ENCODING)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    let takes = |name: &str| {
        accepted.split(',').any(|part| {
            let mut pieces = part.trim().split(';');
            let is_named = pieces
                .next()
                .is_some_and(|token| token.trim().eq_ignore_ascii_case(name));
            let refused = pieces.any(|piece| {
                piece
                    .trim()
                    .strip_prefix("q=")
                    .is_some_and(|q| q.parse() == Ok(0.0f32))
            });
            is_named && !refused
        })
    };
    [("br", ".br"), ("gzip", ".gz")]
        .into_iter()
        .filter(|(name, _)| takes(name))
        .collect()
}

fn file(path: &str, request: &HeaderMap, caching: &'static str) -> Option<Response> {
    let plain = Files::get(path)?;
    let mut chosen = (plain.data, plain.metadata.sha256_hash(), None);
    for (name, ending) in encodings(request) {
        if let Some(packed) = Files::get(&format!("{path}{ending}")) {
            chosen = (packed.data, packed.metadata.sha256_hash(), Some(name));
            break;
        }
    }
    let (data, hash, encoding) = chosen;
    let tag = directory::hex(&hash[..12]);
    let tag = HeaderValue::from_str(&format!("\"{tag}\"")).ok()?;
    let is_known = request
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|known| {
            known
                .split(',')
                .any(|one| one.trim().as_bytes() == tag.as_bytes())
        });
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        // Not copied: many may ask for it and read it slowly.
        match data {
            Cow::Borrowed(bytes) => Bytes::from_static(bytes).into_response(),
            Cow::Owned(bytes) => bytes.into_response(),
        }
    };
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(content_type(path)),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    headers.insert(header::ETAG, tag);
    if let Some(encoding) = encoding {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    Some(response)
}

async fn serve(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let path = uri.path().trim_start_matches('/');
    if path.starts_with("assets/") {
        // Their names change with their contents.
        return file(path, &headers, "public, max-age=31536000, immutable")
            .unwrap_or_else(|| StatusCode::NOT_FOUND.into_response());
    }
    let is_page = path.is_empty() || path == "index.html";
    if !is_page && let Some(response) = file(path, &headers, "no-cache") {
        return response;
    }
    // A missing picture or script is missing; any other address is a page of the client.
    let last = path.rsplit('/').next().unwrap_or_default();
    let is_file = last.rsplit_once('.').is_some_and(|(_, ending)| {
        content_type(last) != "application/octet-stream"
            || matches!(ending, "br" | "gz" | "php" | "env")
    });
    if !is_page && is_file {
        return StatusCode::NOT_FOUND.into_response();
    }
    file("index.html", &headers, "no-cache")
        .unwrap_or_else(|| StatusCode::NOT_FOUND.into_response())
}

/// `ws:` and `wss:` of the host that the request names: `'self'` does not cover them everywhere.
/// HTTP/2 names it in the address, HTTP/1 in a header.
fn socket_sources(uri: &Uri, headers: &HeaderMap) -> String {
    let named = headers
        .get(header::HOST)
        .and_then(|value| value.to_str().ok());
    let host = uri
        .authority()
        .map(|authority| authority.as_str())
        .or(named)
        .unwrap_or_default();
    let is_plain = !host.is_empty()
        && host.len() <= 255
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b));
    if is_plain {
        format!(" wss://{host} ws://{host}")
    } else {
        String::new()
    }
}

/// Puts the security headers on every answer. `is_strict` makes browsers remember to use TLS only.
pub(crate) async fn guard(is_strict: bool, request: Request, next: Next) -> Response {
    let sockets = socket_sources(request.uri(), request.headers());
    let mut response = next.run(request).await;
    let policy = format!(
        "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
         media-src 'self' blob: mediastream:; connect-src 'self'{sockets}; worker-src 'self' blob:; \
         object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    );
    let headers = response.headers_mut();
    let mut put = |name: &'static str, value: &'static str| {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    };
    put("x-content-type-options", "nosniff");
    put("referrer-policy", "no-referrer");
    put(
        "permissions-policy",
        "camera=(self), microphone=(self), display-capture=(self), speaker-selection=(self), \
         fullscreen=(self), autoplay=(self), screen-wake-lock=(self), geolocation=(), payment=(), usb=()",
    );
    put("cross-origin-opener-policy", "same-origin");
    if is_strict {
        put("strict-transport-security", "max-age=31536000");
    }
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &'static str, encoding: &'static str) -> impl Future<Output = Response> {
        let headers =
            HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(encoding))]);
        serve(Method::GET, Uri::from_static(path), headers)
    }

    #[tokio::test]
    async fn any_page_address_is_the_client_and_is_not_cached() {
        for path in ["/", "/join", "/m/1234567890", "/index.html"] {
            let response = get(path, "").await;
            assert_eq!(response.status(), StatusCode::OK, "{path}");
            assert_eq!(response.headers()[header::CACHE_CONTROL], "no-cache");
            assert!(
                response.headers()[header::CONTENT_TYPE]
                    .to_str()
                    .unwrap()
                    .starts_with("text/html")
            );
        }
        for path in [
            "/assets/none.js",
            "/none.js",
            "/../Cargo.toml",
            "/wp-login.php",
        ] {
            let status = get(path, "").await.status();
            assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{path}");
        }
        assert_eq!(
            get("/assets/none.js", "").await.status(),
            StatusCode::NOT_FOUND
        );
    }

    #[tokio::test]
    async fn what_was_packed_is_sent_packed_to_who_takes_it() {
        if Files::get("index.html.br").is_none() {
            return;
        }
        let response = get("/", "gzip, br").await;
        assert_eq!(response.headers()[header::CONTENT_ENCODING], "br");
        assert!(
            get("/", "br;q=0")
                .await
                .headers()
                .get(header::CONTENT_ENCODING)
                .is_none()
        );
    }

    #[test]
    fn a_strange_host_does_not_get_into_the_policy() {
        let host = |value: &'static str| {
            socket_sources(
                &Uri::from_static("/"),
                &HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(value))]),
            )
        };
        assert_eq!(
            host("meet.example:7880"),
            " wss://meet.example:7880 ws://meet.example:7880"
        );
        assert_eq!(host("x; script-src *"), "");
        let http2 = Uri::from_static("https://meet.example/join");
        assert_eq!(
            socket_sources(&http2, &HeaderMap::new()),
            " wss://meet.example ws://meet.example"
        );
    }
}
