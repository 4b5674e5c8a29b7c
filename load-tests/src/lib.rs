//! Load tests: real WebRTC clients in numbers, and what a server makes of them.
//!
//! - [`scenario`] says who comes and what they send; [`schedule`], [`payload`], [`clip`] and [`source`] make the packets.
//! - [`media`] drives the clients, many to a thread, and [`stats`] counts what arrives. It knows no server.
//! - [`door`] has one way in for each kind of server.
//! - [`process`] and [`metrics`] tell what the server used and how it sent.
//! - [`run`] plays a scenario, [`report`] adds it up, [`page`] draws it.
//! - [`floor`] is the yardstick. [`bench`] measures one of the [`servers`] once, [`peers`] several side by side,
//!   [`curve`] what one costs as a load grows, [`curves`] all of that for the documentation, and [`overload`] what one
//!   does when its processor is full.
//!
//! Invariant: a figure is only reported together with what tells whether it can be trusted: the generator's own
//! processor time, its lateness, and whether everybody was connected.

pub mod bench;
pub mod clip;
pub mod curve;
pub mod curves;
pub mod door;
pub mod floor;
pub mod media;
pub mod metrics;
pub mod overload;
pub mod page;
pub mod payload;
pub mod peers;
pub mod process;
pub mod report;
mod rivals;
pub mod run;
pub mod scenario;
pub mod schedule;
pub mod servers;
pub mod source;
pub mod srtp;
pub mod stats;
