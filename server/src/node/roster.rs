//! The roster of a conference of the tree, and what its chairs do, over HTTP.
//!
//! `GET /conferences/{id}/people` lists who is at this node and below, a page at a time, and how many there are
//! of each organisation. `POST /conferences/{id}/acts` does something to the conference; it takes effect
//! where the epoch's root is, if that finds that the chair's branch has whom it is done to. Both take the
//! token of a chair; who acts must be in the conference at this node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use signaling::Hub;
use signaling::cascade::{
    ActId, ConferenceId, Deed, Denied, Identity, Level, OrganisationId, Participant,
};
use signaling::problem::Problem;
use signaling::session::bearer;
use signaling::token::Claims;

use super::runtime::Cascade;

/// The most people on a page.
const PAGE_BOUND: usize = 500;

/// People on a page unless another number is asked for.
const PAGE: usize = 100;

/// The longest body of a request, in bytes: a chat message whose every byte is escaped.
const BODY_BOUND: usize = 100 * 1024;

struct Desk {
    hub: Arc<Hub>,
    cascade: Cascade,
}

/// What answers for conferences of the tree.
pub(crate) fn router(hub: Arc<Hub>, cascade: Cascade) -> Router {
    Router::new()
        .route("/conferences/{conference}/people", get(people))
        .route("/conferences/{conference}/acts", post(act))
        .layer(DefaultBodyLimit::max(BODY_BOUND))
        .with_state(Arc::new(Desk { hub, cascade }))
}

/// Somebody on the roster.
#[derive(Serialize)]
struct Person {
    identity: String,
    name: String,
    organisation: OrganisationId,
    level: Level,
    is_on_stage: bool,
    may_be_heard: bool,
    may_publish: bool,
}

/// A page of the roster.
#[derive(Serialize)]
struct Page {
    /// In the whole conference, as far as is known here.
    total: u32,
    /// At this node and below.
    organisations: BTreeMap<String, u32>,
    people: Vec<Person>,
    /// What to ask for as `after` to have the next page, if there is one.
    next: Option<String>,
}

#[derive(Deserialize)]
struct Asked {
    after: Option<String>,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct Done {
    act: ActId,
}

impl Desk {
    /// Who asks, with a token of this conference.
    fn claims(
        &self,
        headers: &HeaderMap,
        conference: &str,
    ) -> Result<(ConferenceId, Claims), Problem> {
        let token = bearer(headers).unwrap_or_default();
        let claims = self.hub.keys().verify(token, SystemTime::now())?;
        claims.require_join()?;
        let id = conference.parse::<ConferenceId>().ok();
        match id {
            Some(id) if claims.conference.is_some() && claims.video.room == id.to_string() => {
                Ok((id, claims))
            }
            _ => Err(Problem::not_granted(
                "the access token is not for this conference",
            )),
        }
    }
}

fn require_chair(claims: &Claims) -> Result<(), Problem> {
    let grant = claims.conference.as_ref();
    if grant.is_some_and(|grant| grant.chair_of.is_some()) {
        return Ok(());
    }
    Err(Problem::not_granted("the access token is not a chair's"))
}

/// The node's core has ended.
fn ending() -> Problem {
    Problem::not_now("the server is restarting")
}

async fn people(
    State(desk): State<Arc<Desk>>,
    Path(conference): Path<String>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Json<Page>, Problem> {
    let (id, claims) = desk.claims(&headers, &conference)?;
    require_chair(&claims)?;
    let limit = asked.limit.unwrap_or(PAGE).clamp(1, PAGE_BOUND);
    let after = asked.after.map(|after| Identity(after.into()));
    let page = desk.cascade.with(move |node, _| {
        let stage = node.stage(id);
        let is_on_stage = |one: &Participant| {
            let mut stage = stage.iter();
            stage.any(|staged| staged.identity == one.identity)
        };
        let page = node.page(id, after.as_ref(), limit, |_| true);
        let next = page.last().filter(|_| page.len() == limit);
        let counts = node.counts(id).into_iter();
        Page {
            total: node.total(id),
            organisations: counts.map(|(id, count)| (id.to_string(), count)).collect(),
            next: next.map(|one| one.identity.to_string()),
            people: page
                .iter()
                .map(|one| Person {
                    identity: one.identity.to_string(),
                    name: one.name.to_string(),
                    organisation: one.organisation,
                    level: one.level,
                    is_on_stage: is_on_stage(one),
                    may_be_heard: one.rights.may_be_heard(),
                    may_publish: one.rights.publish.is_open(),
                })
                .collect(),
        }
    });
    page.await.map(Json).ok_or_else(ending)
}

async fn act(
    State(desk): State<Arc<Desk>>,
    Path(conference): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(StatusCode, Json<Done>), Problem> {
    let (id, claims) = desk.claims(&headers, &conference)?;
    let deed: Deed = serde_json::from_slice(&body)
        .map_err(|_| Problem::malformed("the body is no act: see the guide"))?;
    if !matches!(deed, Deed::Chat(_)) {
        require_chair(&claims)?;
    }
    let actor = Identity::from(claims.sub.as_str());
    let done = desk.cascade.with(move |node, moment| {
        let one = node.participant(id, &actor).ok_or(Denied::NoSession)?;
        node.act(moment, id, one.session, deed)
    });
    match done.await.ok_or_else(ending)? {
        Ok(act) => Ok((StatusCode::ACCEPTED, Json(Done { act }))),
        Err(Denied::NoSession) => Err(Problem::not_found(
            "not_here",
            "whoever acts must be in the conference at this node",
        )),
        Err(denied) => Err(Problem::not_granted(denied.to_string())),
    }
}
