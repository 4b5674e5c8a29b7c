//! One encoder or player from its offer to its end: a participant like others, whose session is
//! held here instead of by a WebSocket.
//!
//! The room speaks to it in LiveKit's messages; of these it needs the answers to its offers and
//! the end. It leaves the room when its client deletes it, and is out of the room when its media
//! is lost or the room sends it away.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use tokio::sync::{mpsc, oneshot};

use super::fragment::{self, Credentials};
use super::offer::{as_offered, is_whole};
use super::{Desk, Use};
use crate::budget::Budget;
use crate::hub::{Outgoing, Outlet, RoomCell};
use crate::log_limit::LogLimit;
use crate::problem::Problem;
use crate::room::SessionId;
use crate::visitors::Place;

/// How long the media core may take to answer an offer.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Requests that may wait for a session's turn.
const ASKS: usize = 8;
/// The most PATCH requests of one session at once: a client that trickles sends some twenty.
const PATCHES_BURST: usize = 50;
/// PATCH requests of one session per second, in the long run.
const PATCHES_PER_SECOND: usize = 2;
/// ICE restarts in a session's life; the media core remembers each. A phone that changes its
/// network every minute makes as many in a day.
const RESTARTS_IN_ALL: u32 = 1500;

static OPENED: LogLimit = LogLimit::of(200);
static CLOSED: LogLimit = LogLimit::of(200);

/// The condition of a PATCH (RFC 9110 13.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum IfMatch {
    /// Any ICE session: that of a restart.
    Any,
    /// This one.
    Tags(Vec<String>),
}

/// What came of a PATCH.
#[derive(Debug)]
pub(super) enum Patched {
    /// Nothing to tell: candidates.
    Taken,
    /// A new ICE session, with its tag and what the client needs of it.
    Restarted { tag: String, fragment: String },
}

/// What came of a POST.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) answer: String,
    pub(super) tag: String,
}

/// What a request asks of a session.
pub(super) enum Ask {
    Patch {
        condition: IfMatch,
        credentials: Option<Credentials>,
        reply: oneshot::Sender<Result<Patched, Problem>>,
    },
    End {
        reply: oneshot::Sender<()>,
    },
}

/// A session as the table of them knows it.
pub(super) struct Resource {
    pub(super) used_for: Use,
    pub(super) room: String,
    pub(super) identity: String,
    asks: mpsc::Sender<Ask>,
    patches: Mutex<Budget>,
}

impl Resource {
    pub(super) fn new(
        used_for: Use,
        room: String,
        identity: String,
    ) -> (Resource, mpsc::Receiver<Ask>) {
        let (asks, inbox) = mpsc::channel(ASKS);
        let resource = Resource {
            used_for,
            room,
            identity,
            asks,
            patches: Mutex::new(Budget::new(
                PATCHES_BURST,
                PATCHES_PER_SECOND,
                Instant::now(),
            )),
        };
        (resource, inbox)
    }

    /// Asks for candidates to be taken or ICE to be restarted.
    pub(super) async fn patch(
        &self,
        condition: IfMatch,
        credentials: Option<Credentials>,
    ) -> Result<Patched, Problem> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Patch {
            condition,
            credentials,
            reply,
        })?;
        answer.await.unwrap_or_else(|_| Err(Problem::no_session()))
    }

    pub(super) fn may_patch(&self) -> bool {
        self.patches
            .lock()
            .expect("no panic while counting")
            .spend(1, Instant::now())
    }

    /// Ends the session; returns when it is out of its room.
    pub(super) async fn end(&self) -> Result<(), Problem> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::End { reply })?;
        answer.await.map_err(|_| Problem::no_session())
    }

    fn ask(&self, ask: Ask) -> Result<(), Problem> {
        self.asks.try_send(ask).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                Problem::too_often("too many requests wait for this session")
            }
            mpsc::error::TrySendError::Closed(_) => Problem::no_session(),
        })
    }
}

/// Why there is no answer (any more).
#[derive(Debug)]
enum End {
    /// The room sent it away, saying why.
    Closed { is_fault: bool, reason: String },
    /// The room did not let it publish.
    Refused(String),
    /// It took too long, here.
    Late,
}

fn gone() -> End {
    End::Closed {
        is_fault: false,
        reason: "it is no longer in its room".into(),
    }
}

impl From<End> for Problem {
    fn from(end: End) -> Problem {
        match end {
            End::Closed { is_fault, reason } if is_fault => {
                Problem::malformed(format!("the media engine can't take this offer: {reason}"))
            }
            End::Closed { reason, .. } => Problem::new(
                axum::http::StatusCode::CONFLICT,
                "ended",
                format!("the session was ended as it began: {reason}"),
            ),
            End::Refused(reason) => Problem::not_granted(reason),
            End::Late => Problem::not_now("the server is too busy to answer the offer in time"),
        }
    }
}

/// The running half of a session.
pub(super) struct Session {
    pub(super) desk: Arc<Desk>,
    /// The last part of its address.
    pub(super) id: String,
    pub(super) cell: Arc<RoomCell>,
    pub(super) session: SessionId,
    pub(super) outlet: Outlet,
    pub(super) offer: String,
    pub(super) asks: mpsc::Receiver<Ask>,
    pub(super) about: (String, String, Use),
    pub(super) _place: Place,
}

impl Session {
    /// Runs the session to its end. `opened` hears of its beginning; when nobody listens there any
    /// more, the client has gone, and so does the session.
    pub(super) async fn run(mut self, opened: oneshot::Sender<Result<Opened, Problem>>) {
        let (room, identity, used_for) = self.about.clone();
        let tag = self.desk.new_tag();
        let begun = match self.answer().await {
            Ok(answer) if is_whole(&answer) => Ok(Opened {
                answer: as_offered(&answer, &self.offer),
                tag: tag.clone(),
            }),
            Ok(_) => Err(Problem::not_acceptable(
                "the offer has an m-line with no codec that this server knows: it takes Opus, \
                 H.264, VP8, VP9 and AV1",
            )),
            Err(end) => Err(end.into()),
        };
        let is_begun = begun.is_ok();
        if opened.send(begun).is_err() || !is_begun {
            self.leave();
            self.desk.forget(&self.id);
            return;
        }
        if let Some(suppressed) = OPENED.pass(Instant::now()) {
            tracing::info!(
                room,
                participant = identity,
                r#use = used_for.name(),
                session = self.session.0,
                suppressed,
                "session opened"
            );
        }
        let reason = self.go_on(tag).await;
        self.desk.forget(&self.id);
        if let Some(suppressed) = CLOSED.pass(Instant::now()) {
            tracing::info!(
                room,
                participant = identity,
                r#use = used_for.name(),
                session = self.session.0,
                reason,
                suppressed,
                "session closed"
            );
        }
    }

    async fn go_on(&mut self, mut tag: String) -> String {
        let mut current = fragment::credentials(&self.offer).ok().flatten();
        let mut restarts = 0;
        let kill = self.outlet.kill.clone();
        loop {
            tokio::select! {
                () = kill.notified() => {
                    // It is always read at once: the machine is overloaded.
                    self.leave();
                    return "its messages were not read in time".into();
                }
                outgoing = self.outlet.next() => match outgoing {
                    Some(Outgoing::Message(_)) => {}
                    Some(Outgoing::Close { reason, .. }) => return reason,
                    None => return "the session was replaced".into(),
                },
                ask = self.asks.recv() => match ask {
                    Some(Ask::Patch { condition, credentials, reply }) => {
                        let is_met = match &condition {
                            IfMatch::Any => true,
                            IfMatch::Tags(tags) => tags.contains(&tag),
                        };
                        let outcome = if !is_met {
                            Err(Problem::new(
                                axum::http::StatusCode::PRECONDITION_FAILED,
                                "other_ice_session",
                                "If-Match names another ICE session than the present one",
                            ))
                        } else if credentials.is_none() || credentials == current {
                            Ok(Patched::Taken)
                        } else if restarts == RESTARTS_IN_ALL {
                            Err(Problem::too_often(
                                "ICE was restarted too often: start a new session",
                            ))
                        } else {
                            restarts += 1;
                            match self.restart(&credentials).await {
                                Ok(fragment) => {
                                    current = credentials;
                                    tag = self.desk.new_tag();
                                    Ok(Patched::Restarted { tag: tag.clone(), fragment })
                                }
                                Err(End::Closed { reason, .. }) => {
                                    let _ = reply.send(Err(Problem::no_session()));
                                    return reason;
                                }
                                Err(end) => Err(end.into()),
                            }
                        };
                        let _ = reply.send(outcome);
                    }
                    Some(Ask::End { reply }) => {
                        self.leave();
                        self.desk.forget(&self.id);
                        let _ = reply.send(());
                        return "deleted by its client".into();
                    }
                    None => return "its address is gone".into(),
                }
            }
        }
    }

    /// Offers the same again with other credentials.
    async fn restart(&mut self, credentials: &Option<Credentials>) -> Result<String, End> {
        let Some(credentials) = credentials else {
            return Err(End::Late);
        };
        let offer = fragment::with_credentials(&self.offer, credentials);
        let request = Request::Offer(description(&offer));
        if self
            .desk
            .hub
            .handle(&self.cell, self.session, request)
            .is_err()
        {
            return Err(gone());
        }
        let answer = self.answer().await?;
        self.offer = offer;
        fragment::of_answer(&answer).ok_or(End::Late)
    }

    /// Waits for the answer to an offer.
    async fn answer(&mut self) -> Result<String, End> {
        let waiting = async {
            loop {
                match self.outlet.next().await {
                    Some(Outgoing::Message(message)) => {
                        let Ok(response) = proto::SignalResponse::decode(message) else {
                            continue;
                        };
                        match response.message {
                            Some(Response::Answer(answer)) => return Ok(answer.sdp),
                            Some(Response::RequestResponse(refused)) => {
                                return Err(End::Refused(refused.message));
                            }
                            _ => {}
                        }
                    }
                    Some(Outgoing::Close { is_fault, reason }) => {
                        return Err(End::Closed { is_fault, reason });
                    }
                    None => return Err(gone()),
                }
            }
        };
        tokio::time::timeout(ANSWER_TIME, waiting)
            .await
            .unwrap_or(Err(End::Late))
    }

    fn leave(&self) {
        // It may be out of the room already.
        let request = Request::Leave(proto::LeaveRequest::default());
        let _ = self.desk.hub.handle(&self.cell, self.session, request);
    }
}

/// An offer as the room takes it.
pub(super) fn description(sdp: &str) -> proto::SessionDescription {
    proto::SessionDescription {
        r#type: "offer".into(),
        sdp: sdp.to_owned(),
        ..Default::default()
    }
}
