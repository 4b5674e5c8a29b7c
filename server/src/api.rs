//! REST under `/api`: organisations, people, rights, sign-in and the audit log of the [`directory`] over HTTP.
//!
//! Handlers turn requests into the directory's calls and its answers into JSON; what may be done is decided there and
//! nowhere here. `openapi.json` is made from the handlers.
//!
//! Invariants: every error is problem details; what one may not know of is answered as what does not exist; a request
//! that changes something comes from this deployment's own pages or from no browser; every body is bounded, and lists
//! that grow with organisations, people and what they do come in pages; no secret is logged.

mod audit;
mod events;
mod extract;
mod fault;
mod guard;
mod import;
mod once;
pub(crate) mod open;
mod organisations;
mod persons;
mod places;
mod posts;
mod setup;
mod sign_in;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::set_up as set_up_for_tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::IntoResponse as _;
use axum::routing::get;
use axum::{Json, Router};
use directory::Directory;
use directory::id::PersonId;
use directory::sign_in::SignIn;
use tokio::sync::{Semaphore, watch};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, ResponseBuilder, Schema};
use utoipa::{OpenApi as _, ToSchema};
use utoipa_axum::router::OpenApiRouter;

use crate::guesses::Guesses;
use fault::{Fault, Kind};

/// The longest JSON that is read, in bytes.
const BODY_BOUND: usize = 64 * 1024;

/// How many files are imported at once; each may take a hundred megabytes of memory while it is read.
const IMPORTS_AT_ONCE: usize = 2;

/// The endpoints that answer who is not signed in as a person.
const OPEN: [&str; 4] = [
    "/api/setup",
    "/api/session",
    "/api/invitations/accept",
    "/api/hall/session",
];

/// What the endpoints need.
pub(crate) struct Api {
    pub(crate) directory: Directory,
    pub(crate) sign_in: SignIn,
    /// Whether people reach this server over TLS, so that cookies need it too.
    pub(crate) is_secure: bool,
    /// Where people reach it, for links; without a slash at its end.
    pub(crate) url: String,
    /// The code with which a deployment where nobody is yet is set up.
    pub(crate) setup: Mutex<Option<setup::SetupCode>>,
    /// Wrong set-up codes, device keys and invitations.
    pub(crate) guesses: Guesses,
    pub(crate) imports: Arc<Semaphore>,
    /// How many event streams each person has open.
    pub(crate) streams: Arc<Mutex<HashMap<PersonId, usize>>>,
    /// Whether the server is about to end.
    pub(crate) ending: watch::Sender<bool>,
}

impl Api {
    /// The code to be shown, while nobody is there.
    pub(crate) fn setup_code(&self) -> Option<String> {
        let code = self.setup.lock().expect("no panic while it is held");
        code.as_ref().map(setup::SetupCode::shown)
    }
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Terrace",
        description = "Organisations, people, rights, sign-in and audit of a deployment. Moments are UTC milliseconds \
                       since 1970, identifiers UUIDv7 in text. Errors are problem details (RFC 9457). An act that the \
                       rights matrix wants a reason for takes it in the header `Reason`, percent-encoded UTF-8. What \
                       makes something takes an `Idempotency-Key`. What changes something says in `If-Match` which \
                       version was seen."
    ),
    components(schemas(ProblemDetails))
)]
struct Document;

/// Problem details (RFC 9457).
#[derive(ToSchema)]
#[schema(as = Problem)]
#[expect(dead_code, reason = "it describes what `fault` writes")]
struct ProblemDetails {
    /// `urn:terrace:problem:` and the code.
    r#type: String,
    /// What happened, in the reader's language.
    title: String,
    /// The HTTP status.
    status: u16,
    /// Why.
    detail: String,
    /// For programs; never changes.
    code: String,
    /// What to do now.
    next: String,
}

/// The endpoints, and their description.
fn described(api: &Arc<Api>) -> (Router, OpenApi) {
    let kept = OpenApiRouter::with_openapi(Document::openapi())
        .merge(organisations::router())
        .merge(places::router())
        .merge(persons::router())
        .merge(posts::router())
        .merge(audit::router())
        .route_layer(from_fn_with_state(api.clone(), once::once));
    let (router, mut openapi) = kept
        .merge(sign_in::router())
        .merge(setup::router())
        .merge(events::router())
        .layer(DefaultBodyLimit::max(BODY_BOUND))
        .merge(import::router())
        .split_for_parts();
    finish(&mut openapi);
    let router = router
        .method_not_allowed_fallback(async || Fault::from(Kind::MethodNotAllowed))
        .with_state(api.clone());
    (router, openapi)
}

/// Everything under `/api` that is of the directory.
pub(crate) fn router(api: &Arc<Api>) -> Router {
    let (router, openapi) = described(api);
    let document = Arc::new(openapi);
    let show = move || {
        let document = document.clone();
        async move { Json(&*document).into_response() }
    };
    router
        .route("/api/openapi.json", get(show))
        .layer(from_fn(guard::guard))
        .layer(from_fn(fault::told))
}

/// What holds for every operation.
fn finish(openapi: &mut OpenApi) {
    let problem = ResponseBuilder::new()
        .description("Anything else: problem details")
        .content(
            "application/problem+json",
            ContentBuilder::new()
                .schema(Some(RefOr::<Schema>::Ref(Ref::from_schema_name("Problem"))))
                .build(),
        )
        .build();
    for (path, item) in &mut openapi.paths.paths {
        let operations = [
            ("get", &mut item.get),
            ("post", &mut item.post),
            ("put", &mut item.put),
            ("patch", &mut item.patch),
            ("delete", &mut item.delete),
        ];
        for (method, operation) in operations {
            let Some(operation) = operation else { continue };
            let name = path.trim_start_matches("/api").replace(['{', '}'], "");
            operation.operation_id = Some(format!("{method}{}", name.replace(['/', '-'], "_")));
            if !OPEN.contains(&path.as_str()) {
                let nothing: [&str; 0] = [];
                operation.security = Some(vec![SecurityRequirement::new("session", nothing)]);
            }
            let responses = &mut operation.responses.responses;
            responses.insert("default".to_owned(), RefOr::T(problem.clone()));
        }
    }
    if let Some(components) = &mut openapi.components {
        let cookie = ApiKey::Cookie(ApiKeyValue::new(extract::SESSION_COOKIE));
        components.add_security_scheme("session", SecurityScheme::ApiKey(cookie));
    }
}
