//! What is counted of one watcher while a scene is played.

use std::collections::VecDeque;
use std::time::Instant;

use super::stage::SAMPLE;
use super::viewer::{Kind, Stream, Viewer};
use crate::command::TrackKind;
use crate::estimate::Budget;
use crate::layer::Indices;
use crate::shard::Shard;

/// What is sent is counted over so many samples.
const COUNTED: usize = 10;

/// Of each stretch of time so many seconds pass before what is seen counts as steady.
const SETTLES: f64 = 10.0;

/// So much more than the estimate, in percent and in bits per second, is an encoder's unrest, not the
/// share's.
const UNREST_PERCENT: u64 = 130;
const UNREST: u64 = 20_000;

/// A longer queue is one that is heard, in milliseconds.
pub(super) const QUEUE: f64 = 200.0;

/// Of a line so much is surely there for pictures, in percent: the rest is what probes, repairs and
/// the search for the limit take.
const SURE_PERCENT: f64 = 75.0;

/// What left.
pub(super) struct Sent {
    pub(super) kind: Kind,
    pub(super) is_sound: bool,
    pub(super) bytes: usize,
    pub(super) has_come: bool,
}

/// How long something has been so, and the longest time that it was.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spell {
    since: Option<Instant>,
    pub(super) longest: f64,
}

impl Spell {
    fn note(&mut self, is: bool, now: Instant) {
        if !is {
            self.since = None;
            return;
        }
        let since = *self.since.get_or_insert(now);
        self.longest = self.longest.max((now - since).as_secs_f64());
    }
}

/// What of a stream is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rung {
    Paused,
    Of(usize, Indices),
}

#[derive(Debug)]
pub(super) struct Tally {
    /// Bits of this sample, and of the last ones.
    bits: u64,
    last: VecDeque<u64>,
    begun: Instant,
    pub(super) over: Spell,
    pub(super) queued: Spell,
    pub(super) frozen: Vec<Spell>,
    /// Paused, though it surely fits.
    pub(super) missed: Vec<Spell>,
    rungs: Vec<Option<Rung>>,
    /// Changes of rung while all is steady, the most of one picture in one stretch.
    pub(super) switches: usize,
    pub(super) most_switches: usize,
    now_switches: Vec<usize>,
    /// Seconds of steady pictures.
    pub(super) steady: f64,
    /// Bits of media that came, and what could have.
    pub(super) came: f64,
    pub(super) could: f64,
    /// Seconds for which a picture was wanted, was shown, and stood still without a word.
    pub(super) wanted: f64,
    pub(super) shown: f64,
    pub(super) still: f64,
    /// Bits beside media.
    pub(super) padding: f64,
}

impl Tally {
    pub(super) fn new(streams: usize, now: Instant) -> Tally {
        Tally {
            bits: 0,
            last: VecDeque::new(),
            begun: now,
            over: Spell::default(),
            queued: Spell::default(),
            frozen: vec![Spell::default(); streams],
            missed: vec![Spell::default(); streams],
            rungs: vec![None; streams],
            switches: 0,
            most_switches: 0,
            now_switches: vec![0; streams],
            steady: 0.0,
            came: 0.0,
            could: 0.0,
            wanted: 0.0,
            shown: 0.0,
            still: 0.0,
            padding: 0.0,
        }
    }

    pub(super) fn begin_stretch(&mut self, now: Instant) {
        self.begun = now;
        self.now_switches.fill(0);
    }

    pub(super) fn sent(&mut self, sent: Sent) {
        let bits = 8 * sent.bytes as u64;
        match sent.kind {
            Kind::Padding => self.padding += bits as f64,
            Kind::Media(_) | Kind::Repair(_) => self.bits += bits,
        }
        if sent.has_come && matches!(sent.kind, Kind::Media(_)) && !sent.is_sound {
            self.came += bits as f64;
        }
    }

    pub(super) fn sample(
        &mut self,
        shard: &Shard,
        viewer: &Viewer,
        (now, seconds): (Instant, f64),
    ) {
        self.last.push_back(std::mem::take(&mut self.bits));
        if self.last.len() > COUNTED {
            self.last.pop_front();
        }
        let rate = self.last.iter().sum::<u64>() * 1000
            / (self.last.len() as u64 * SAMPLE.as_millis() as u64);
        let peer = &shard.peers[&viewer.connection];
        let is_over = match peer.outlet.estimate.budget(now) {
            Budget::Bits(budget) => rate > budget * UNREST_PERCENT / 100 + UNREST,
            Budget::Unknown | Budget::Unlimited => false,
        };
        self.over.note(is_over, now);
        let wait = match viewer.way.waits.last() {
            Some((at, wait)) if seconds - at < 0.5 => *wait,
            _ => 0.0,
        };
        self.queued.note(wait > QUEUE, now);
        let passed = (now - self.begun).as_secs_f64();
        let is_steady = passed >= SETTLES;
        let bill = shard.bill(viewer.connection);
        let sound = bill.sound(&peer.redundancy);
        let line = viewer.way.line.rate(seconds) * (1.0 - viewer.way.line.loss);
        self.could += line.min((bill.needed + sound) as f64) * SAMPLE.as_secs_f64();
        self.could -= (sound as f64).min(line) * SAMPLE.as_secs_f64();
        for (at, stream) in viewer.streams.iter().enumerate() {
            let track = &shard.tracks[&stream.track];
            if track.publication.kind == TrackKind::Audio {
                continue;
            }
            let Some(one) = track.of(viewer.connection) else {
                continue;
            };
            let is_wanted = one.selection.is_enabled;
            let still = (now - stream.shown).as_secs_f64();
            let is_frozen = is_wanted && !stream.is_paused && still > 1.0;
            self.frozen[at].note(is_frozen, now);
            if !is_wanted {
                self.rungs[at] = None;
                continue;
            }
            self.wanted += SAMPLE.as_secs_f64();
            if !stream.is_paused && still <= 1.0 {
                self.shown += SAMPLE.as_secs_f64();
            }
            if is_frozen {
                self.still += SAMPLE.as_secs_f64();
            }
            let rung = match one.current {
                _ if stream.is_paused => Some(Rung::Paused),
                None => None,
                Some(layer) => {
                    let top = track.layers[layer].meter.top();
                    Some(Rung::Of(layer, one.filter.current().min(top)))
                }
            };
            if is_steady {
                self.steady += SAMPLE.as_secs_f64();
            }
            if let Some(rung) = rung {
                let before = self.rungs[at].replace(rung);
                if is_steady && before.is_some_and(|before| before != rung) {
                    self.switches += 1;
                    self.now_switches[at] += 1;
                    self.most_switches = self.most_switches.max(self.now_switches[at]);
                }
            }
        }
        self.check_shown(shard, viewer, line, now);
    }

    /// What surely fits is shown.
    fn check_shown(&mut self, shard: &Shard, viewer: &Viewer, line: f64, now: Instant) {
        let bill = shard.bill(viewer.connection);
        let sure = line * SURE_PERCENT / 100.0 / (1.0 + viewer.way.line.loss);
        let redundancy = &shard.peers[&viewer.connection].redundancy;
        let mut left = sure - bill.sound(redundancy) as f64;
        let mut order: Vec<usize> = (0..bill.wishes.len()).collect();
        let wish = |at: usize| &bill.wishes[at];
        order.sort_by_key(|at| (wish(*at).rank, std::cmp::Reverse(wish(*at).area)));
        let mut fits = true;
        for at in order {
            let lowest = wish(at).steps.first().copied().unwrap_or(0);
            left -= lowest as f64 * 1.15;
            fits &= left >= 0.0;
            let of = |stream: &Stream| stream.track == bill.pictures[at].track;
            let place = viewer.streams.iter().position(of);
            let place = place.expect("what is billed is received");
            let is_missed = fits && bill.pictures[at].is_paused;
            self.missed[place].note(is_missed, now);
        }
    }
}
