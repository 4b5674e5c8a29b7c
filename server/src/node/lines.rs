//! The media lines to neighbours: who begins them, what is told of their ends, and when they are made
//! anew.
//!
//! The lower end of each pair begins: it opens a connection of the media core and tells its end over
//! the bus, under a number of its own (`MediaLine`). The upper end takes that up and tells its end under
//! the same number. Each goes on saying the number while it has the line; an end that hears another one
//! knows that the line is lost, and the lower one begins anew. Messages may be lost on the way: what is
//! said is a state, told again with every heartbeat.
//!
//! Like the core, it does no IO: it is told what happens, and leaves [`Step`]s.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sfu::{Command, ConnectionId, End, Event, Role};
use signaling::cascade::{Incarnation, MediaLine, NodeId};

/// How long after a line was lost, or could not be made, the next one is begun. Shorter is of use only
/// where the other end is back at once; longer keeps a branch alone for longer.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// How long the lower end waits for the upper one to take up what it began. The upper one may have lost it
/// again before its word came.
const TAKEN_UP_WITHIN: Duration = Duration::from_secs(15);

/// What is to be done.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// By the media core.
    Command(Command),
    /// A neighbour is to be told this of our end.
    Say(NodeId, Option<MediaLine>),
    /// Media comes from a neighbour.
    Heard(NodeId),
    /// None comes any more.
    Lost(NodeId),
    /// Tracks can cross one more line from now on.
    Open,
    /// The connection is gone with everything on it.
    Gone(ConnectionId),
}

/// One end of the line to a neighbour.
#[derive(Debug)]
struct Line {
    end: End,
    /// Of the lower end: how many it has begun. Of the upper one: which it has taken up.
    number: u32,
    /// Of the upper end: in which life the lower one began it.
    incarnation: Incarnation,
    connection: Option<ConnectionId>,
    is_joined: bool,
    is_connected: bool,
    is_silent: bool,
    /// When the lower end begins the next one, and when it began this one.
    again: Option<Instant>,
    begun: Instant,
}

/// The lines of one node.
#[derive(Debug)]
pub(crate) struct Lines {
    me: NodeId,
    above: Vec<NodeId>,
    siblings: Vec<NodeId>,
    lines: BTreeMap<NodeId, Line>,
    next: u64,
    steps: Vec<Step>,
}

impl Lines {
    /// No line yet. The nodes above are those that it calls, its parent and the second way up; of two
    /// siblings the one with the higher id calls.
    pub(crate) fn new(me: NodeId, above: Vec<NodeId>, siblings: Vec<NodeId>) -> Lines {
        Lines {
            me,
            above,
            siblings,
            lines: BTreeMap::new(),
            next: 1,
            steps: Vec::new(),
        }
    }

    /// What is to be done, in order.
    pub(crate) fn take_steps(&mut self) -> Vec<Step> {
        std::mem::take(&mut self.steps)
    }

    /// The connection over which tracks cross to a neighbour now.
    pub(crate) fn connection(&self, neighbour: NodeId) -> Option<ConnectionId> {
        let line = self.lines.get(&neighbour)?;
        line.connection.filter(|_| line.is_connected)
    }

    /// A node is a neighbour now, or no longer.
    pub(crate) fn neighbour(&mut self, neighbour: NodeId, is_there: bool, now: Instant) {
        if !is_there {
            self.close(neighbour);
            self.lines.remove(&neighbour);
            return;
        }
        let is_lower = self.above.contains(&neighbour)
            || self.siblings.contains(&neighbour) && self.me > neighbour;
        let end = if is_lower { End::Lower } else { End::Upper };
        self.lines.entry(neighbour).or_insert(Line {
            end,
            number: 0,
            incarnation: 0,
            connection: None,
            is_joined: false,
            is_connected: false,
            is_silent: false,
            again: is_lower.then_some(now),
            begun: now,
        });
        self.tick(now);
    }

    /// A neighbour said something else of its end than before.
    pub(crate) fn told(
        &mut self,
        neighbour: NodeId,
        incarnation: Incarnation,
        media: Option<MediaLine>,
        now: Instant,
    ) {
        let Some(line) = self.lines.get_mut(&neighbour) else {
            return;
        };
        let number = media.as_ref().map(|media| media.number);
        let is_ours = number == Some(line.number) && line.connection.is_some();
        match line.end {
            End::Lower if is_ours => {
                if let (Some(connection), Some(other), false) = (
                    line.connection,
                    media.and_then(|media| media.end),
                    line.is_joined,
                ) {
                    line.is_joined = true;
                    let join = Command::Relay { connection, other };
                    self.steps.push(Step::Command(join));
                }
            }
            // It had ours, and has it no more.
            End::Lower if line.is_joined => {
                self.close(neighbour);
                self.begin(neighbour, now);
            }
            End::Lower => {}
            End::Upper if is_ours && line.incarnation == incarnation => {}
            End::Upper => {
                self.close(neighbour);
                if let Some(number) = number
                    && let Some(other) = media.and_then(|media| media.end)
                {
                    let connection = self.open(neighbour);
                    if let Some(line) = self.lines.get_mut(&neighbour) {
                        line.number = number;
                        line.incarnation = incarnation;
                        line.is_joined = true;
                    }
                    let join = Command::Relay { connection, other };
                    self.steps.push(Step::Command(join));
                }
            }
        }
        self.tick(now);
    }

    /// The media core tells something of a line's connection.
    pub(crate) fn event(&mut self, event: Event, now: Instant) {
        let connection = match &event {
            Event::RelayEnd { connection, .. }
            | Event::Connected { connection, .. }
            | Event::Silent { connection }
            | Event::Resumed { connection }
            | Event::Refused { connection, .. }
            | Event::Closed { connection, .. } => *connection,
            _ => return,
        };
        let mut all = self.lines.iter_mut();
        let Some((neighbour, line)) = all.find(|(_, line)| line.connection == Some(connection))
        else {
            return;
        };
        let neighbour = *neighbour;
        let say = |end| {
            let number = line.number;
            Step::Say(neighbour, Some(MediaLine { number, end }))
        };
        match event {
            Event::RelayEnd { end, .. } => self.steps.push(say(Some(end))),
            Event::Connected { .. } => {
                self.steps.push(say(None));
                line.is_connected = true;
                self.steps.push(Step::Heard(neighbour));
                self.steps.push(Step::Open);
                tracing::info!(%neighbour, "the media line to a node is there");
            }
            Event::Silent { .. } => {
                line.is_silent = true;
                self.steps.push(Step::Lost(neighbour));
            }
            Event::Resumed { .. } => {
                line.is_silent = false;
                self.steps.push(Step::Heard(neighbour));
            }
            Event::Refused { reason, .. } => {
                tracing::warn!(
                    %neighbour,
                    reason,
                    "the media line to a node can't be made with what it told; it is tried again"
                );
                self.close(neighbour);
                self.later(neighbour, now);
            }
            Event::Closed { reason, .. } => {
                tracing::warn!(
                    %neighbour,
                    reason,
                    "the media line to a node is lost and is made anew; if that goes on, look whether UDP \
                     reaches the parent's media port"
                );
                self.forget(neighbour);
                self.later(neighbour, now);
            }
            _ => {}
        }
    }

    /// Does what is due; call about twice a second.
    pub(crate) fn tick(&mut self, now: Instant) {
        let mut due = Vec::new();
        for (neighbour, line) in &self.lines {
            let is_given_up = line.end == End::Lower
                && line.connection.is_some()
                && !line.is_joined
                && now.saturating_duration_since(line.begun) >= TAKEN_UP_WITHIN;
            if is_given_up || line.again.is_some_and(|at| at <= now) {
                due.push(*neighbour);
            }
            if line.is_connected && !line.is_silent {
                self.steps.push(Step::Heard(*neighbour));
            }
        }
        for neighbour in due {
            self.close(neighbour);
            self.begin(neighbour, now);
        }
    }

    fn open(&mut self, neighbour: NodeId) -> ConnectionId {
        let connection = ConnectionId(self.next);
        self.next += 1;
        if let Some(line) = self.lines.get_mut(&neighbour) {
            line.connection = Some(connection);
            let role = Role::Relay(line.end);
            self.steps.push(Step::Command(Command::Open {
                connection,
                role,
                takes_rsa: false,
            }));
        }
        connection
    }

    fn begin(&mut self, neighbour: NodeId, now: Instant) {
        if let Some(line) = self.lines.get_mut(&neighbour) {
            line.number += 1;
            line.again = None;
            line.begun = now;
            self.open(neighbour);
        }
    }

    fn later(&mut self, neighbour: NodeId, now: Instant) {
        if let Some(line) = self.lines.get_mut(&neighbour)
            && line.end == End::Lower
        {
            line.again = Some(now + AGAIN_AFTER);
        }
    }

    fn close(&mut self, neighbour: NodeId) {
        let line = self.lines.get(&neighbour);
        if let Some(connection) = line.and_then(|line| line.connection) {
            self.steps
                .push(Step::Command(Command::Close { connection }));
            self.forget(neighbour);
        }
    }

    fn forget(&mut self, neighbour: NodeId) {
        let Some(line) = self.lines.get_mut(&neighbour) else {
            return;
        };
        let Some(connection) = line.connection.take() else {
            return;
        };
        line.is_joined = false;
        line.is_silent = false;
        self.steps.push(Step::Say(neighbour, None));
        if std::mem::take(&mut line.is_connected) {
            self.steps.push(Step::Lost(neighbour));
            self.steps.push(Step::Gone(connection));
        }
    }
}

#[cfg(test)]
mod tests {
    use sfu::RelayEnd;

    use super::*;

    const UPPER: NodeId = NodeId(1);
    const LOWER: NodeId = NodeId(2);

    /// Two ends whose media core does at once what it is told, and whose words arrive at once.
    struct Pair {
        upper: Lines,
        lower: Lines,
        now: Instant,
        /// Connections that are joined, of both ends.
        joined: [Vec<ConnectionId>; 2],
        open: [Vec<ConnectionId>; 2],
        commands: usize,
        is_deaf: bool,
    }

    fn end_of(connection: ConnectionId) -> RelayEnd {
        RelayEnd {
            user: format!("user{}", connection.0),
            password: "p".repeat(24),
            fingerprint: "sha-256 00".into(),
            addresses: Vec::new(),
        }
    }

    impl Pair {
        fn new() -> Pair {
            let now = Instant::now();
            let mut pair = Pair {
                upper: Lines::new(UPPER, vec![], vec![]),
                lower: Lines::new(LOWER, vec![UPPER], vec![]),
                now,
                joined: Default::default(),
                open: Default::default(),
                commands: 0,
                is_deaf: false,
            };
            pair.upper.neighbour(LOWER, true, now);
            pair.lower.neighbour(UPPER, true, now);
            pair.run();
            pair
        }

        fn ends(&mut self) -> [&mut Lines; 2] {
            [&mut self.upper, &mut self.lower]
        }

        fn run(&mut self) {
            loop {
                let steps = self.ends().map(Lines::take_steps);
                if steps.iter().all(Vec::is_empty) {
                    return;
                }
                for (at, step) in steps
                    .into_iter()
                    .enumerate()
                    .flat_map(|(at, steps)| steps.into_iter().map(move |step| (at, step)))
                {
                    self.follow(at, step);
                }
            }
        }

        fn follow(&mut self, at: usize, step: Step) {
            let now = self.now;
            let from = [UPPER, LOWER][at];
            match step {
                Step::Command(Command::Open { connection, .. }) => {
                    self.commands += 1;
                    let end = end_of(connection);
                    let event = Event::RelayEnd { connection, end };
                    self.ends()[at].event(event, now);
                }
                Step::Command(Command::Relay { connection, .. }) => {
                    self.joined[at].push(connection);
                    if self.joined[0].len() == self.joined[1].len() {
                        for at in 0..2 {
                            let connection = *self.joined[at].last().unwrap();
                            let remote = None;
                            let event = Event::Connected { connection, remote };
                            self.ends()[at].event(event, now);
                        }
                    }
                }
                Step::Command(_) | Step::Heard(_) | Step::Lost(_) => {}
                Step::Say(_, media) => {
                    if !self.is_deaf {
                        self.ends()[1 - at].told(from, 1, media, now);
                    }
                }
                Step::Open => {
                    let other = [LOWER, UPPER][at];
                    let connection = self.ends()[at].connection(other).unwrap();
                    self.open[at].push(connection);
                }
                Step::Gone(connection) => self.open[at].retain(|one| *one != connection),
            }
        }

        fn pass(&mut self, time: Duration) {
            self.now += time;
            let now = self.now;
            for end in self.ends() {
                end.tick(now);
            }
            self.run();
        }

        fn is_one_line_open(&self) -> bool {
            self.open.iter().all(|open| open.len() == 1)
        }
    }

    #[test]
    fn two_neighbours_have_one_line() {
        let pair = Pair::new();
        assert!(pair.is_one_line_open(), "{:?}", pair.open);
        assert_eq!(pair.commands, 2);
    }

    #[test]
    fn a_line_that_either_end_loses_is_made_anew() {
        for at in 0..2 {
            let mut pair = Pair::new();
            let connection = pair.open[at][0];
            let event = Event::Closed {
                connection,
                reason: "test",
            };
            let now = pair.now;
            pair.ends()[at].event(event, now);
            pair.run();
            pair.pass(AGAIN_AFTER);
            assert!(pair.is_one_line_open(), "end {at}: {:?}", pair.open);
            assert_eq!(pair.commands, 4, "end {at}");
        }
    }

    #[test]
    fn a_line_is_made_anew_with_an_end_that_has_restarted() {
        let mut pair = Pair::new();
        pair.upper = Lines::new(UPPER, vec![], vec![]);
        pair.upper.neighbour(LOWER, true, pair.now);
        pair.joined = Default::default();
        pair.open[0].clear();
        // As the core tells of a restart.
        pair.lower.told(UPPER, 2, None, pair.now);
        pair.run();
        assert!(pair.is_one_line_open(), "{:?}", pair.open);

        let mut pair = Pair::new();
        pair.lower = Lines::new(LOWER, vec![UPPER], vec![]);
        pair.joined = Default::default();
        pair.open[1].clear();
        pair.upper.told(LOWER, 2, None, pair.now);
        pair.lower.neighbour(UPPER, true, pair.now);
        pair.run();
        assert!(pair.is_one_line_open(), "{:?}", pair.open);
    }

    #[test]
    fn a_neighbour_that_is_revoked_has_no_line() {
        let mut pair = Pair::new();
        let now = pair.now;
        pair.is_deaf = true;
        pair.upper.neighbour(LOWER, false, now);
        pair.run();
        assert!(pair.open[0].is_empty());
        let number = 9;
        let end = Some(end_of(ConnectionId(9)));
        let media = Some(MediaLine { number, end });
        pair.upper.told(LOWER, 1, media, now);
        assert!(pair.upper.take_steps().is_empty());
    }
}
