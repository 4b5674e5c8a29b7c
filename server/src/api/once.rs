//! `Idempotency-Key`: what makes something is done once, however often a client that got no answer sends it again.

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts as _, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use directory::sign_in::Once;

use super::extract::Caller;
use super::fault::{Fault, Kind};
use super::{Api, BODY_BOUND};

/// How long a key is at most.
const KEY: usize = 128;

/// The longest answer that is kept. What is made is told of in less.
const ANSWER: usize = 64 * 1024;

/// Does what was not done yet, and answers what was as it was answered then.
pub(crate) async fn once(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let key = request.headers().get("idempotency-key").cloned();
    match key {
        Some(key) if request.method() == Method::POST => {
            match done_once(api, &key, request, next).await {
                Ok(response) => response,
                Err(fault) => fault.into_response(),
            }
        }
        _ => next.run(request).await,
    }
}

async fn done_once(
    api: Arc<Api>,
    key: &HeaderValue,
    request: Request,
    next: Next,
) -> Result<Response, Fault> {
    let key = key
        .to_str()
        .ok()
        .filter(|key| (1..=KEY).contains(&key.len()))
        .ok_or_else(|| Fault::invalid("Idempotency-Key"))?
        .to_owned();
    let (mut parts, body) = request.into_parts();
    let mut caller = Caller::from_request_parts(&mut parts, &api).await?;
    let actor = caller.person().to_string();
    let body = to_bytes(body, BODY_BOUND).await;
    let body = body.map_err(|_| Kind::TooLarge)?;
    let mut context = Context::new(&SHA256);
    let seen = parts.headers.get(header::IF_MATCH);
    let seen = seen.map_or(&b""[..], HeaderValue::as_bytes);
    let address = parts.uri.to_string();
    for part in [
        parts.method.as_str().as_bytes(),
        address.as_bytes(),
        seen,
        &body,
    ] {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let digest = directory::hex(context.finish().as_ref());
    let now = caller.0.asker.now;
    match api.sign_in.begin_once(&actor, &key, &digest, now).await? {
        Once::Done { status, body } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
            let headers = [
                (header::CONTENT_TYPE, "application/json"),
                (
                    header::HeaderName::from_static("idempotency-replayed"),
                    "true",
                ),
            ];
            return Ok((status, headers, body).into_response());
        }
        Once::First => {}
    }
    let request = Request::from_parts(parts, Body::from(body));
    // On its own: a client that goes away leaves nothing half known.
    let done = tokio::spawn(async move {
        let response = next.run(request).await;
        if !response.status().is_success() {
            api.sign_in.forget_request(&actor, &key).await?;
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        let body = to_bytes(Body::new(body), ANSWER).await;
        let body = body.map_err(|_| Kind::Internal)?;
        let status = parts.status.as_u16();
        let act = &mut caller.act();
        let kept = api.sign_in.keep_answer(act, &actor, &key, status, &body);
        if let Err(error) = kept.await {
            // It is done all the same; only a second request would not be told so.
            tracing::error!(%error, "an answer could not be kept: check the database's disk or server");
        }
        Ok(Response::from_parts(parts, Body::from(body)))
    });
    done.await.map_err(|_| Fault::from(Kind::Internal))?
}
