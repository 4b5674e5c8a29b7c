//! One line to a neighbour: whether it carries control and media, both ways.
//!
//! The two ends agree by three states, as in bidirectional forwarding detection (RFC 5880): an end
//! that hears nothing says `Down`, one that hears a `Down` says `Init`, and only who is known to hear
//! and to be heard says `Up`. So a line that is dead in one direction is dead for both ends. Media
//! that is not heard counts as not hearing: a line that carries only control is no line.

use std::sync::Arc;
use std::time::Duration;

use super::identity::{Incarnation, NodeId, Time};
use super::message::{HOPS_BOUND, Heartbeat, Hop, LineState, MediaLine, PROTOCOL, PROTOCOL_OLDEST};
use super::rule::Rule;

/// How often each end of a line says that it is there. Shorter notices a loss with fewer mistakes on
/// bad lines; longer spares a township that has 170 lines.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(500);

/// The same for [`HASTE_TIME`] after a change, so that the other end hears of it although messages
/// are lost.
pub(crate) const HASTE_INTERVAL: Duration = Duration::from_millis(125);

/// How long after a change heartbeats are sent in haste.
pub(crate) const HASTE_TIME: Duration = Duration::from_millis(1500);

/// A line on which nothing was heard for so long is lost. With the time in which the other end is
/// told it stays below the three seconds in which a branch must know; shorter would take five lost
/// heartbeats in a row for a cut.
pub const LOST_AFTER: Duration = Duration::from_millis(2250);

/// Media is taken to be heard for so long after the last packet. The relay sends something at least
/// as often as heartbeats are sent.
pub(crate) const MEDIA_LOST_AFTER: Duration = LOST_AFTER;

/// Why a line is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It has not been up yet.
    New,
    /// No control message comes.
    ControlSilent,
    /// Control comes, but no media.
    MediaSilent,
    /// The other end does not hear us, or does not hear our media.
    NotHeard,
    /// The other end has restarted.
    Restarted,
    /// The other end speaks versions that we don't, the newest of which is this.
    Version(u16),
}

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Up,
    Down(Cause),
}

/// One end of a line.
#[derive(Clone, Debug)]
pub struct Line {
    state: LineState,
    cause: Cause,
    /// Since when it is in this state.
    pub(crate) since: Time,
    control_heard: Option<Time>,
    media_heard: Option<Time>,
    /// Of the other end, once it was heard.
    pub(crate) incarnation: Option<Incarnation>,
    /// The other end's way up, itself first.
    pub(crate) path: Arc<[Hop]>,
    /// Our end of the media line, and the other one as it was last told.
    pub(crate) media: Option<MediaLine>,
    pub(crate) media_told: Option<MediaLine>,
    /// The number of the last envelope of the other end that may be lost.
    pub(crate) number_heard: u64,
    /// The number of the last envelope that was sent.
    pub(crate) number_sent: u64,
    next_heartbeat: Time,
    haste_until: Time,
}

impl Line {
    pub(crate) fn new(now: Time) -> Line {
        Line {
            state: LineState::Down,
            cause: Cause::New,
            since: now,
            control_heard: None,
            media_heard: None,
            incarnation: None,
            path: Arc::new([]),
            media: None,
            media_told: None,
            number_heard: 0,
            number_sent: 0,
            next_heartbeat: now,
            haste_until: now + HASTE_TIME,
        }
    }

    /// Whether it carries control and media, both ways, as far as is known.
    pub fn is_up(&self) -> bool {
        self.state == LineState::Up
    }

    /// Why it is down, if it is.
    pub fn cause(&self) -> Option<Cause> {
        (!self.is_up()).then_some(self.cause)
    }

    /// What heartbeats say of it.
    pub(crate) fn state(&self) -> LineState {
        self.state
    }

    /// Whether the other end takes `node` for its way up.
    pub(crate) fn is_way(&self, node: NodeId) -> bool {
        self.path.get(1).is_some_and(|hop| hop.node == node)
    }

    /// Whether the other end's way up leads over `node`.
    pub(crate) fn leads_over(&self, node: NodeId) -> bool {
        self.path.iter().any(|hop| hop.node == node)
    }

    pub(crate) fn heard_media(&mut self, now: Time) {
        self.media_heard = Some(now);
    }

    /// It is known that no media comes any more.
    pub(crate) fn lost_media(&mut self, now: Time) -> Option<Change> {
        self.media_heard = None;
        self.look(now)
    }

    fn hears_media(&self, now: Time) -> bool {
        !Rule::MediaWatched.holds()
            || self
                .media_heard
                .is_some_and(|at| now.since(at) < MEDIA_LOST_AFTER)
    }

    fn enter(&mut self, now: Time, state: LineState, cause: Cause) -> Option<Change> {
        let was_up = self.is_up();
        if self.state != state {
            self.state = state;
            self.since = now;
            self.next_heartbeat = now;
            self.haste_until = now + HASTE_TIME;
        }
        self.cause = cause;
        match (was_up, self.is_up()) {
            (true, false) => Some(Change::Down(cause)),
            (false, true) => Some(Change::Up),
            _ => None,
        }
    }

    /// Some envelope of the other end came, which restarted if its incarnation is a higher one.
    pub(crate) fn heard(&mut self, now: Time, incarnation: Incarnation) -> Option<Change> {
        self.control_heard = Some(now);
        let known = self.incarnation.replace(incarnation);
        if known.is_some_and(|known| known != incarnation) {
            self.number_heard = 0;
            self.path = Arc::new([]);
            if Rule::RestartExposed.holds() {
                return self.enter(now, LineState::Down, Cause::Restarted);
            }
        }
        None
    }

    /// A heartbeat came. `knows_us`: the sender has heard this incarnation of ours.
    pub(crate) fn heartbeat(
        &mut self,
        now: Time,
        beat: &Heartbeat,
        knows_us: bool,
    ) -> Option<Change> {
        if beat.version < PROTOCOL_OLDEST || beat.oldest > PROTOCOL {
            return self.enter(now, LineState::Down, Cause::Version(beat.version));
        }
        self.path = if beat.path.len() <= HOPS_BOUND {
            beat.path.clone()
        } else {
            Arc::new([])
        };
        if !self.hears_media(now) {
            return self.enter(now, LineState::Down, Cause::MediaSilent);
        }
        let theirs = if knows_us {
            beat.state
        } else {
            LineState::Down
        };
        match (self.state, theirs) {
            (LineState::Down, LineState::Down) => self.enter(now, LineState::Init, self.cause),
            (LineState::Down, LineState::Init)
            | (LineState::Init, LineState::Init | LineState::Up) => {
                self.enter(now, LineState::Up, self.cause)
            }
            (LineState::Up, LineState::Down) if Rule::DeafnessNoticed.holds() => {
                self.enter(now, LineState::Down, Cause::NotHeard)
            }
            _ => None,
        }
    }

    /// Looks whether it has been silent for too long.
    pub(crate) fn look(&mut self, now: Time) -> Option<Change> {
        if self.state == LineState::Down {
            return None;
        }
        let is_heard = self
            .control_heard
            .is_some_and(|at| now.since(at) < LOST_AFTER);
        if !is_heard {
            return self.enter(now, LineState::Down, Cause::ControlSilent);
        }
        if !self.hears_media(now) {
            return self.enter(now, LineState::Down, Cause::MediaSilent);
        }
        None
    }

    /// Whether a heartbeat is due; then the next one is put off.
    pub(crate) fn heartbeat_is_due(&mut self, now: Time) -> bool {
        if now < self.next_heartbeat {
            return false;
        }
        let interval = if now < self.haste_until {
            HASTE_INTERVAL
        } else {
            HEARTBEAT_INTERVAL
        };
        self.next_heartbeat = now + interval;
        true
    }

    /// The other end shall hear at once.
    pub(crate) fn hasten(&mut self, now: Time) {
        self.next_heartbeat = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(line: &Line) -> Heartbeat {
        Heartbeat {
            version: PROTOCOL,
            oldest: PROTOCOL_OLDEST,
            state: line.state(),
            path: Arc::new([]),
            totals: Vec::new(),
            media: None,
        }
    }

    /// Two ends that exchange heartbeats; in which directions control and media go.
    fn run(ends: &mut [Line; 2], from: u64, to: u64, control: [bool; 2], media: [bool; 2]) {
        for ms in (from..to).step_by(125) {
            let now = Time(ms);
            for at in 0..2 {
                if media[at] {
                    ends[1 - at].heard_media(now);
                }
                let beat = beat(&ends[at]);
                if ends[at].heartbeat_is_due(now) && control[at] {
                    let _ = ends[1 - at].heard(now, 1);
                    let _ = ends[1 - at].heartbeat(now, &beat, true);
                }
                let _ = ends[at].look(now);
            }
        }
    }

    #[test]
    fn both_ends_know_within_three_seconds_whatever_dies_and_come_back() {
        const BOTH: [bool; 2] = [true; 2];
        for (control, media) in [
            ([false, false], [false, false]),
            ([false, false], BOTH),
            (BOTH, [false, false]),
            ([true, false], BOTH),
            ([false, true], BOTH),
            (BOTH, [true, false]),
            (BOTH, [false, true]),
        ] {
            let mut ends = [Line::new(Time(0)), Line::new(Time(0))];
            run(&mut ends, 0, 1000, BOTH, BOTH);
            assert!(ends.iter().all(Line::is_up));
            run(&mut ends, 1000, 4000, control, media);
            for end in &ends {
                assert!(!end.is_up(), "{control:?} {media:?} {end:?}");
            }
            run(&mut ends, 4000, 60_000, control, media);
            assert!(ends.iter().all(|end| !end.is_up()));
            run(&mut ends, 60_000, 61_250, BOTH, BOTH);
            assert!(
                ends.iter().all(Line::is_up),
                "{control:?} {media:?} {ends:?}"
            );
        }
    }

    #[test]
    fn a_restart_is_noticed_though_no_timer_ran_out() {
        let mut ends = [Line::new(Time(0)), Line::new(Time(0))];
        run(&mut ends, 0, 1000, [true; 2], [true; 2]);
        assert_eq!(
            ends[0].heard(Time(1100), 2),
            Some(Change::Down(Cause::Restarted))
        );
    }

    #[test]
    fn another_version_works_or_says_why() {
        let mut line = Line::new(Time(0));
        line.heard_media(Time(0));
        let newer = Heartbeat {
            version: PROTOCOL + 1,
            oldest: PROTOCOL,
            ..beat(&line)
        };
        line.heartbeat(Time(0), &newer, true);
        assert_eq!(line.state(), LineState::Init);
        let too_new = Heartbeat {
            version: PROTOCOL + 2,
            oldest: PROTOCOL + 1,
            ..beat(&line)
        };
        line.heartbeat(Time(100), &too_new, true);
        assert_eq!(line.cause(), Some(Cause::Version(PROTOCOL + 2)));
    }
}
