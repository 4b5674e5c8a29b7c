//! Which tracks of one conference are taken from lines here, and which are sent over which.
//!
//! What the core wants is kept, and made so as far as lines are there: the media core is commanded only
//! what differs from what it has. A track has a name on all lines (`name_of`) and an id of its own at
//! each node.

use std::collections::{BTreeMap, BTreeSet};

use sfu::{Codec, Command, ConnectionId, Publication, Quality, Selection, TrackKind};
use signaling::cascade::{ConferenceId, NodeId, Source, TrackId};
use signaling::hub::Spreading;

/// A track that is taken from a line.
#[derive(Debug)]
struct Taken {
    connection: ConnectionId,
    id: sfu::TrackId,
}

/// The tracks of one conference at one node.
#[derive(Debug)]
pub(crate) struct Tracks {
    conference: ConferenceId,
    ids: Spreading,
    /// Of clients here.
    here: BTreeMap<TrackId, sfu::TrackId>,
    /// From elsewhere, that the room here shows.
    shown: BTreeSet<TrackId>,
    taken: BTreeMap<TrackId, Taken>,
    /// What is to be sent to whom, and over which connection it is.
    forwards: BTreeMap<(TrackId, NodeId), Option<(ConnectionId, sfu::TrackId)>>,
    commands: Vec<Command>,
}

/// The name of a track on lines, the same at both ends of each.
fn name_of(conference: ConferenceId, track: TrackId) -> String {
    let session = track.session;
    let source = match track.source {
        Source::Microphone => "m",
        Source::Camera => "c",
        Source::Screen => "s",
        Source::ScreenSound => "t",
    };
    format!(
        "{:x}/{:x}.{:x}.{:x}/{source}{:x}",
        conference.0, session.node.0, session.incarnation, session.number, track.number
    )
}

fn publication(name: String, track: TrackId) -> Publication {
    let (kind, codec) = if track.is_sound() {
        (TrackKind::Audio, Codec::Opus)
    } else {
        (TrackKind::Video, Codec::Vp8)
    };
    Publication {
        cid: name,
        kind,
        // Which codec it is, and the rest, the other end tells.
        codecs: vec![codec],
        backup: None,
        layers: Vec::new(),
        is_red_allowed: kind == TrackKind::Audio,
        is_screen: track.source == Source::Screen,
    }
}

impl Tracks {
    pub(crate) fn new(conference: ConferenceId, ids: Spreading) -> Tracks {
        Tracks {
            conference,
            ids,
            here: BTreeMap::new(),
            shown: BTreeSet::new(),
            taken: BTreeMap::new(),
            forwards: BTreeMap::new(),
            commands: Vec::new(),
        }
    }

    /// Nothing is had or wanted.
    pub(crate) fn is_idle(&self) -> bool {
        self.taken.is_empty() && self.forwards.is_empty() && self.here.is_empty()
    }

    /// What the media core is to do, in order.
    pub(crate) fn take_commands(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.commands)
    }

    /// A client here publishes a track under this id, or no longer.
    pub(crate) fn set_here(&mut self, track: TrackId, id: Option<sfu::TrackId>) {
        match id {
            Some(id) => {
                self.here.insert(track, id);
            }
            None => {
                if let Some(id) = self.here.remove(&track) {
                    self.forget(id);
                }
            }
        }
    }

    /// Which tracks from elsewhere the room here shows.
    pub(crate) fn set_shown(&mut self, shown: BTreeSet<TrackId>) {
        self.shown = shown;
    }

    /// A track is to be sent to a neighbour, or no longer.
    pub(crate) fn set_forward(&mut self, track: TrackId, to: NodeId, is_wanted: bool) {
        if is_wanted {
            self.forwards.entry((track, to)).or_insert(None);
        } else if let Some(Some((connection, track))) = self.forwards.remove(&(track, to)) {
            self.commands
                .push(Command::Unsubscribe { connection, track });
        }
    }

    /// A line's connection is gone, with what was taken from it.
    pub(crate) fn gone(&mut self, connection: ConnectionId) {
        let lost = self
            .taken
            .extract_if(.., |_, one| one.connection == connection);
        let lost: Vec<sfu::TrackId> = lost.map(|(_, one)| one.id).collect();
        for id in lost {
            self.forget(id);
        }
        for sent in self.forwards.values_mut() {
            *sent = sent.filter(|(of, _)| *of != connection);
        }
    }

    /// The media core has no track of this id any more.
    fn forget(&mut self, id: sfu::TrackId) {
        for sent in self.forwards.values_mut() {
            *sent = sent.filter(|(_, of)| *of != id);
        }
    }

    /// Tracks from elsewhere that are needed here.
    pub(crate) fn needed(&self) -> BTreeSet<TrackId> {
        let forwarded = self.forwards.keys().map(|(track, _)| *track);
        let forwarded = forwarded.filter(|track| !self.here.contains_key(track));
        self.shown.iter().copied().chain(forwarded).collect()
    }

    /// The id of a track from elsewhere that is taken.
    pub(crate) fn id(&self, track: TrackId) -> Option<sfu::TrackId> {
        self.taken.get(&track).map(|one| one.id)
    }

    /// The same of one that the room here shows.
    pub(crate) fn shown(&self, track: TrackId) -> Option<sfu::TrackId> {
        self.id(track).filter(|_| self.shown.contains(&track))
    }

    /// The track from elsewhere that has this id here.
    pub(crate) fn track(&self, id: sfu::TrackId) -> Option<TrackId> {
        let mut all = self.taken.iter();
        all.find(|(_, one)| one.id == id).map(|(track, _)| *track)
    }

    /// Makes it so. `sources`: over which connection what is needed comes; what has none now stays as it
    /// is. `lines`: the connections to neighbours.
    pub(crate) fn arrange(
        &mut self,
        sources: &BTreeMap<TrackId, ConnectionId>,
        lines: impl Fn(NodeId) -> Option<ConnectionId>,
    ) {
        let needed = self.needed();
        let is_over = |track: &TrackId, one: &Taken| {
            let moves = |to: &ConnectionId| *to != one.connection;
            !needed.contains(track) || sources.get(track).is_some_and(moves)
        };
        let over = self.taken.extract_if(.., |track, one| is_over(track, one));
        let over: Vec<sfu::TrackId> = over.map(|(_, one)| one.id).collect();
        for track in over {
            self.forget(track);
            self.commands.push(Command::Unpublish { track });
        }
        for track in needed {
            let Some(connection) = sources.get(&track).copied() else {
                continue;
            };
            if self.taken.contains_key(&track) {
                continue;
            }
            let id = self.ids.next_track();
            self.taken.insert(track, Taken { connection, id });
            self.commands.push(Command::Publish {
                connection,
                track: id,
                publication: publication(name_of(self.conference, track), track),
            });
        }
        for ((track, to), sent) in &mut self.forwards {
            let here = self.here.get(track).copied();
            let id = here.or_else(|| self.taken.get(track).map(|one| one.id));
            let due = lines(*to).zip(id);
            if *sent == due {
                continue;
            }
            if let Some((connection, track)) = sent.take() {
                self.commands
                    .push(Command::Unsubscribe { connection, track });
            }
            if let Some((connection, id)) = due {
                self.commands.push(Command::Subscribe {
                    connection,
                    track: id,
                    stream_name: String::new(),
                    track_name: name_of(self.conference, *track),
                    // The other end says on the line how much it wants.
                    selection: Selection::of(Quality::High),
                });
            }
            *sent = due;
        }
    }
}
