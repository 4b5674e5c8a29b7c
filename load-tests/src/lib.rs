//! Load tests: real WebRTC clients in numbers, and what a server makes of them.
//!
//! - [`scenario`] says who comes and what they send; [`schedule`], [`payload`] and [`source`] make the packets.
//! - [`media`] drives the clients, many to a thread, and [`stats`] counts what arrives. It knows no server.
//! - [`door`] has one way in for each kind of server.
//! - [`run`] plays a scenario, [`report`] adds it up, [`page`] draws it.
//! - [`floor`] is the yardstick. [`bench`] measures one of the [`servers`] once, [`peers`] several side by side, and
//!   [`curve`] what one costs as the load grows.
//!
//! Invariant: a figure is only reported together with what tells whether it can be trusted: the generator's own
//! processor time, its lateness, and whether everybody was connected.

pub mod bench;
pub mod curve;
pub mod door;
pub mod floor;
pub mod media;
pub mod page;
pub mod payload;
pub mod peers;
pub mod process;
pub mod report;
pub mod run;
pub mod scenario;
pub mod schedule;
pub mod servers;
pub mod source;
pub mod srtp;
pub mod stats;
