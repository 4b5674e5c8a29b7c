//! The control core of the cascade: conferences that spread over a tree of nodes.
//!
//! A [`Node`] is a state machine. It is told what neighbours say, what is heard of media, what its
//! clients do, and the time; it says what to send, what the media core is to forward, and what
//! clients are to hear. Nothing here opens a socket, reads a clock or draws lots; so the same code
//! runs in a server and, thousandfold, in `simulation`.
//!
//! - `identity` has the ids, `message` what neighbours tell each other, `seal` who signs it.
//! - `line` knows whether a line carries control and media both ways.
//! - `channel` tells a neighbour states and events, once and in order, over losses, cuts and restarts.
//! - `topology` chooses the way up and knows which nodes are below.
//! - `conference` puts together `roster` (who is there), `register` (what was taken from whom),
//!   `wishes` (what is wanted of which track) and `speaker` (who is heard).
//! - `rule` names the rules that a simulation leaves out one by one.
//!
//! `docs/decisions/0010-cascade-control.md` says why so.
//!
//! Invariants:
//! - A node that does not know says nothing; it never says that nobody is there.
//! - What goes upwards for one person does not grow with how many there are.
//! - Everything kept for a neighbour is bounded by a named constant.

mod channel;
mod conference;
mod identity;
mod line;
mod message;
mod node;
mod register;
mod roster;
mod rule;
pub mod seal;
#[cfg(test)]
mod simulation;
mod speaker;
#[cfg(test)]
mod tests;
mod topology;
mod wishes;

pub use conference::{
    AWAY_TIME, Denied, EPOCH_WAIT, FLOOR_BOUND, LOG_BOUND, Newcomer, RESTART_GRACE, RESYNC_TIME,
};
pub use identity::{
    ConferenceId, Epoch, Identity, Incarnation, Level, Moment, NodeId, NotAPlace, NotAnId,
    OrganisationId, Place, Quality, Session, Source, TEXT_BOUND, Time, TrackId,
};
pub use line::{Cause, HEARTBEAT_INTERVAL, LOST_AFTER, Line};
pub use message::{
    Act, ActId, Announcement, Batch, Deed, Envelope, HEARD_BOUND, Heartbeat, Hop, Item, LineState,
    LogEntry, MESSAGE_BOUND, MediaLine, Message, PROTOCOL, PROTOCOL_OLDEST, Participant, Rights,
    STAGE_BOUND, Speakers, TRACKS_BOUND, TrackInfo, Voice,
};
pub use node::{Event, Node, NodeConfig, Output, Refusal, Why};
pub use register::Register;
pub use speaker::REPORT_INTERVAL;
pub use wishes::{KEYFRAME_INTERVAL, KEYFRAME_REPEAT};
