//! A line between nodes, and whatever its other end says on it: that end may lose the line, and nothing
//! fails.

use arbitrary::Result;

use super::{Home, at_home};
use crate::command::{
    Codec, Command, ConnectionId, Publication, Quality, Role, Selection, TrackId, TrackKind,
};
use crate::relay::{End, STREAMS};

/// Words of one input at most.
const WORDS: usize = 64;

/// Tracks that are taken from the line, and offered to it.
const TAKEN: [(&str, TrackKind); 2] = [("a", TrackKind::Video), ("b", TrackKind::Audio)];
const OFFERED: [&str; 2] = ["c", "d"];

/// Reads each line of the bytes as a word of the other end of a line; those in even places are said to a
/// lower end, the others to an upper one.
///
/// # Errors
/// Never.
pub fn words(data: &[u8]) -> Result<()> {
    at_home(|home| home.play_words(data));
    Ok(())
}

impl Home {
    fn play_words(&mut self, data: &[u8]) {
        let first = self.next();
        let ends = [End::Lower, End::Upper];
        let lines = [ConnectionId(first), ConnectionId(first + 1)];
        for (connection, end) in lines.into_iter().zip(ends) {
            let role = Role::Relay(end);
            self.command(Command::Open {
                connection,
                role,
                takes_rsa: false,
            });
            for (at, (name, kind)) in TAKEN.into_iter().enumerate() {
                let track = TrackId(connection.0 + 10 * at as u64);
                let publication = publication(name, kind);
                self.command(Command::Publish {
                    connection,
                    track,
                    publication,
                });
            }
        }
        // What one line brings is offered to the other.
        for (at, name) in OFFERED.into_iter().enumerate() {
            self.command(Command::Subscribe {
                connection: lines[1],
                track: TrackId(first + 10 * at as u64),
                stream_name: String::new(),
                track_name: name.into(),
                selection: Selection::of(Quality::High),
            });
        }
        let said = data.split(|byte| *byte == b'\n').take(WORDS);
        for (at, word) in said.enumerate() {
            self.shard.heard_word(lines[at % 2], word, self.now);
            self.shard.advance(self.now);
            self.take();
            for line in lines {
                assert!(self.shard.streams_offered(line) <= STREAMS);
            }
        }
        for connection in lines {
            self.command(Command::Close { connection });
        }
        let totals = self.shard.totals();
        assert_eq!((totals.connections, totals.tracks), (0, 0));
        assert_eq!(totals.failures, 0, "the engine goes on");
    }

    fn command(&mut self, command: Command) {
        self.shard.command(self.now, command);
        self.take();
    }

    fn take(&mut self) {
        self.shard.flush(|_, _| {});
        while self.shard.poll_event().is_some() {}
    }
}

fn publication(name: &str, kind: TrackKind) -> Publication {
    Publication {
        cid: name.into(),
        kind,
        codecs: vec![Codec::Vp8],
        backup: None,
        layers: Vec::new(),
        is_red_allowed: true,
        is_screen: false,
    }
}
