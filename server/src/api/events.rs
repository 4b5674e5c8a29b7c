//! `/api/events`: server-sent events (HTML, 9.2) that tell somebody what has changed of what they may see.
//!
//! An event says that something changed and not what it is now. Its id is the number of its entry in the audit log: a
//! client that comes back with `Last-Event-ID` hears what it missed, or that it is to look at everything anew.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use directory::changes::Change;
use directory::id::PersonId;
use directory::sign_in::{SessionToken, SignInError};
use futures_util::Stream;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Caller, now};
use super::fault::{Fault, Kind};
use super::{Api, open};

/// How many streams one person has at most; a browser's pages have one each.
const STREAMS: usize = 8;

/// What is changed by many at once is told of together, at most so often.
const PACE: Duration = Duration::from_secs(1);

/// How often it is looked whether the session is still open, and whether another process has written something.
const LOOK_INTERVAL: Duration = Duration::from_secs(15);

/// How soon a client comes back whose stream has ended, in milliseconds.
const RETRY: Duration = Duration::from_secs(3);

pub(super) fn router() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(events))
}

/// What an event of the name `change` holds.
#[derive(Serialize, ToSchema)]
struct ChangeView {
    at: i64,
    /// `organisation`, `place`, `person`, `post` or `grant`.
    kind: String,
    id: Option<String>,
    organisation: Option<String>,
    /// The action's code.
    action: String,
    /// What about it: `create`, `rename`, `move` …
    change: Option<String>,
    /// Whether it is about oneself: one's rights, one's sign-in.
    is_own: bool,
}

impl From<Change> for ChangeView {
    fn from(change: Change) -> ChangeView {
        ChangeView {
            at: change.at.as_millis(),
            kind: change.kind,
            id: change.id,
            organisation: change.organisation.map(|id| id.to_string()),
            action: change.action,
            change: change.change,
            is_own: change.is_own,
        }
    }
}

/// One of a person's places for a stream; given back when it is dropped.
struct Place {
    streams: Arc<Mutex<HashMap<PersonId, usize>>>,
    person: PersonId,
}

impl Place {
    fn take(api: &Api, person: PersonId) -> Option<Place> {
        let mut streams = api.streams.lock().expect("no panic while counting");
        let count = streams.entry(person).or_default();
        if *count >= STREAMS {
            return None;
        }
        *count += 1;
        Some(Place {
            streams: api.streams.clone(),
            person,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut streams = self.streams.lock().expect("no panic while counting");
        if let Some(count) = streams.get_mut(&self.person) {
            *count -= 1;
            if *count == 0 {
                streams.remove(&self.person);
            }
        }
    }
}

/// Where a stream is.
struct Teller {
    api: Arc<Api>,
    token: SessionToken,
    person: PersonId,
    committed: watch::Receiver<()>,
    ending: watch::Receiver<bool>,
    /// Up to which entry the client has heard.
    last: u64,
    /// What is to be told next, the last first.
    waiting: Vec<Event>,
    is_over: bool,
    _place: Place,
}

impl Teller {
    /// The next event; nothing when the stream ends.
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Teller)> {
        loop {
            if let Some(event) = self.waiting.pop() {
                return Some((Ok(event), self));
            }
            if self.is_over {
                return None;
            }
            tokio::select! {
                () = open::ended(&mut self.ending) => return None,
                changed = self.committed.changed() => {
                    changed.ok()?;
                    tokio::time::sleep(PACE).await;
                }
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
            self.committed.mark_unchanged();
            self.look().await;
        }
    }

    /// Sees what has changed since.
    async fn look(&mut self) {
        match self.api.sign_in.peek_session(&self.token, now()).await {
            Ok(session) if session.is_complete() => {}
            Ok(_) | Err(SignInError::SessionEnded) => {
                self.waiting = vec![Event::default().event("signed_out").data("{}")];
                self.is_over = true;
                return;
            }
            // The database is away: the client comes back.
            Err(_) => {
                self.is_over = true;
                return;
            }
        }
        let changes = self.api.directory.changes(self.person, self.last, now());
        let Ok(changes) = changes.await else {
            self.is_over = true;
            return;
        };
        let id = changes.last.to_string();
        if changes.is_cut {
            self.waiting = vec![Event::default().event("reload").id(id).data("{}")];
        } else {
            self.waiting = changes.changes.into_iter().rev().filter_map(told).collect();
        }
        self.last = changes.last;
    }
}

fn told(change: Change) -> Option<Event> {
    let event = Event::default()
        .event("change")
        .id(change.sequence.to_string());
    event.json_data(ChangeView::from(change)).ok()
}

/// What changes of what one may see, while one is signed in: `change` with a `ChangeView`, `reload` where there was too
/// much to tell one by one, `signed_out` when the session has ended. `begin` says from where on it is told.
#[utoipa::path(get, path = "/api/events", tag = "events",
    params(("Last-Event-ID" = Option<u64>, Header)),
    responses((status = 200, body = ChangeView, content_type = "text/event-stream")))]
async fn events(
    State(api): State<Arc<Api>>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>> + use<>>, Fault> {
    let person = caller.person();
    let place = Place::take(&api, person).ok_or(Kind::TooManyStreams)?;
    // Before the log's end is read: nothing is written in between unseen.
    let mut committed = api.directory.committed();
    let seen = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let end = api.directory.audit_end().await?;
    let last = seen.unwrap_or(end);
    if seen.is_some() {
        committed.mark_changed();
    }
    let begin = Event::default()
        .event("begin")
        .id(last.to_string())
        .retry(RETRY)
        .data("{}");
    let teller = Teller {
        ending: api.ending.subscribe(),
        token: caller.0.token,
        person,
        committed,
        last,
        waiting: vec![begin],
        is_over: false,
        _place: place,
        api,
    };
    Ok(Sse::new(stream::unfold(teller, Teller::next)).keep_alive(KeepAlive::default()))
}
