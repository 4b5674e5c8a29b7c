//! What the hub does for conferences that spread over a tree of nodes (`cascade`): whoever joins the
//! tree to the rooms here hears of the lines between nodes and of what such rooms have to tell, and
//! commands both.
//!
//! Lines lie on one shard, and so do the rooms whose tracks cross them. A track from elsewhere has an id
//! of its conference's own serial, as it may be there before a room is, and after it.

use std::collections::HashMap;

use sfu::{Command, Event, TrackId};
use tokio::sync::mpsc;

use super::{Hub, Rooms};
use crate::room::tree::News;

/// The serial of lines' connections, which are of no room. Rooms begin with a higher one.
pub const LINES: u32 = 0;

/// The shard on which lines lie, and with them all that crosses them.
pub(super) const SHARD: usize = 0;

/// What is told to whoever joins the tree to the rooms.
#[derive(Debug)]
pub enum TreeNews {
    /// Of a line's connection.
    Line(Event),
    /// Of a room of this name.
    Room(String, News),
}

/// Numbers of a conference's tracks from elsewhere.
#[derive(Debug)]
pub struct Spreading {
    serial: u32,
    next: u32,
}

impl Spreading {
    /// An id that was not there before.
    pub fn next_track(&mut self) -> TrackId {
        self.next += 1;
        TrackId(u64::from(self.serial) << 32 | u64::from(self.next))
    }
}

/// Which rooms are conferences of the tree.
#[derive(Default)]
pub(super) struct Spread {
    /// By the room's name, the serial of tracks from elsewhere.
    serials: HashMap<String, u32>,
    /// From these serials to those of the rooms that are open.
    rooms: HashMap<u32, u32>,
}

impl Spread {
    pub(super) fn has(&self, name: &str) -> bool {
        self.serials.contains_key(name)
    }

    /// The serial of the room whose connection or track has an id of this serial.
    pub(super) fn room_of(&self, serial: u32) -> u32 {
        self.rooms.get(&serial).copied().unwrap_or(serial)
    }

    pub(super) fn opened(&mut self, name: &str, room: u32) {
        if let Some(serial) = self.serials.get(name) {
            self.rooms.insert(*serial, room);
        }
    }

    pub(super) fn closed(&mut self, name: &str) {
        if let Some(serial) = self.serials.get(name) {
            self.rooms.remove(serial);
        }
    }
}

impl Hub {
    /// Everything about the tree goes to the receiver; there is one.
    pub fn join_tree(&self) -> mpsc::UnboundedReceiver<TreeNews> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *self.tree.lock().expect("it is only replaced and read") = Some(sender);
        receiver
    }

    pub(super) fn tell_tree(&self, news: TreeNews) {
        if let Some(tree) = &*self.tree.lock().expect("it is only replaced and read") {
            let _ = tree.send(news);
        }
    }

    /// Commands the media core about a line or what crosses it.
    pub fn command_line(&self, command: Command) {
        self.media.send(SHARD, command);
    }

    /// The room of this name, open or not, is a conference of the tree, until [`Hub::unspread`].
    pub(super) fn spread_in(&self, rooms: &mut Rooms, name: &str) -> u32 {
        if let Some(serial) = rooms.spread.serials.get(name) {
            return *serial;
        }
        let serial = self.serial_on(SHARD);
        rooms.spread.serials.insert(name.to_owned(), serial);
        serial
    }

    /// Ids for a conference's tracks from elsewhere.
    pub fn spreading(&self, name: &str) -> Spreading {
        let serial = self.spread_in(&mut self.rooms(), name);
        Spreading { serial, next: 0 }
    }

    /// Nothing crosses lines for this conference any more. `false`: its room is open.
    pub fn unspread(&self, name: &str) -> bool {
        let mut rooms = self.rooms();
        if rooms.by_name.contains_key(name) {
            return false;
        }
        rooms.spread.serials.remove(name);
        true
    }
}
