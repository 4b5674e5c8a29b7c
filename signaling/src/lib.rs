//! The LiveKit protocol in front of the media core.
//!
//! [`token`] says who may do what, [`room`] is the state machine of one room, [`hub`] holds the
//! rooms and is the only place that turns what happens into messages and media commands,
//! [`session`] is the WebSocket of one client, [`whip`] the HTTP of encoders and players,
//! [`twirp`] the server API, [`diagnostics`] says what a participant is sent and why, and [`cascade`]
//! is the control core of conferences that spread over a tree of nodes.
//!
//! Invariants:
//! - `room` does no IO, reads no clock and starts no task: it is told a [`room::Moment`] and
//!   leaves [`room::Effect`]s.
//! - What a client sends can cost that message or that session, never the room.
//! - Everything kept per client is bounded by a named constant.

// The cascade's simulation is also an example, which stands outside.
#[cfg(test)]
extern crate self as signaling;

mod budget;
pub mod cascade;
pub mod diagnostics;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod hub;
mod ice;
pub mod log_limit;
pub mod problem;
pub mod room;
pub mod session;
pub mod token;
pub mod twirp;
pub mod visitors;
pub mod whip;

pub use hub::{EventQueue, EventSink, Gate, Hub, HubConfig, Limits, Media, event_queue};
pub use ice::IceServer;
pub use livekit_protocol as proto;
