//! The media core: a selective forwarding unit as a state machine.
//!
//! [`Shard`] takes packets, [`Command`]s and time, and gives packets, [`Event`]s and the next
//! deadline. It opens no socket, reads no clock and starts no thread; [`driver`] does that around
//! it. It knows connections, tracks and subscriptions, but neither rooms nor people: who may do
//! what is decided before a command reaches it.
//!
//! Invariants:
//! - What a peer sends can cost that packet or that connection, never another connection.
//! - A subscriber's sequence numbers have a gap only where the publisher's had one; its
//!   timestamps and VP8 picture ids never jump at a change of layer. A change between simulcast
//!   layers happens at a keyframe; within a stream a subscriber goes up only where what it gets
//!   decodes.
//! - Everything kept per connection is bounded by a named constant.

// Tests' streams are made by code that stands outside.
#[cfg(test)]
extern crate self as sfu;

pub mod account;
mod allocate;
mod command;
mod dependency;
pub mod driver;
mod dtls;
mod egress;
mod encoding;
mod estimate;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod header;
mod ladder;
mod layer;
mod layer_filter;
#[cfg(test)]
mod line;
mod part;
mod payload;
mod peer;
mod redundancy;
mod relay;
mod rewrite;
mod rtcp;
mod sdp;
mod shard;
mod shed;
mod srtp;
mod subscription;
mod tap;
mod track;
mod wheel;

pub use command::{
    Channel, Codec, Command, ConnectionId, Encoding, Event, Layer, LineReport, Publication,
    Quality, Role, Selection, TrackId, TrackKind,
};
pub use relay::{End, NAME_BOUND, RelayEnd};
pub use shard::{Shard, ShardConfig, Totals};
pub use udp_batch::Burst;
