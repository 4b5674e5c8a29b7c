//! What each subscriber's line is spent on: the estimate shared among its pictures, and probes where
//! more is wanted than it is known to carry.

use std::time::{Duration, Instant};

use super::Shard;
use crate::account::Reason;
use crate::allocate::{Rank, Wish, allocate};
use crate::command::{ConnectionId, TrackId, TrackKind};
use crate::egress::Outlet;
use crate::estimate::Budget;
use crate::ladder::{self, Step};
use crate::layer::Indices;
use crate::part::Part;
use crate::peer::Peer;
use crate::redundancy::Redundancy;
use crate::subscription::{Ceiling, Subscription};
use crate::track::Track;

/// How often the padding of a probe is sent.
const PADDING_INTERVAL: Duration = Duration::from_millis(5);

/// Who is quieter than this (RFC 6464) is nobody's speaker.
const LOUD: u8 = 50;

/// A speaker stays one for so long after somebody else became the loudest.
const SPEAKER_STAYS: Duration = Duration::from_secs(2);

/// After a step down nothing is raised for so long.
const HOLD: Duration = Duration::from_secs(2);

/// A layer that costs so much more than it may, in percent, is no longer sent while the next one's
/// keyframe is awaited.
const FAR_OVER_PERCENT: u64 = 120;

/// Pictures are sent twice where the line carries this many times what that costs.
const DOUBLE_ROOM: f64 = 1.15;

/// What a track of sound costs, in bits per second, before it is measured.
const SOUND: u64 = 40_000;

/// A picture among those that a subscriber wants.
pub(super) struct Picture {
    pub(super) track: TrackId,
    /// Behind the wish's steps.
    pub(super) steps: Vec<Step>,
    pub(super) current: Option<usize>,
    pub(super) is_paused: bool,
    /// It would be given more, were it not so soon after a step down.
    is_held: bool,
}

/// What a subscriber is sent, and what it might be.
#[derive(Default)]
pub(super) struct Bill {
    /// With what goes along on a lossy line, or with what the publisher sent along.
    sound: u64,
    /// Without either.
    plain_sound: u64,
    /// Of the best steps of all pictures.
    pub(super) needed: u64,
    pub(super) pictures: Vec<Picture>,
    pub(super) wishes: Vec<Wish>,
    /// The owner of the loudest voice.
    pub(super) loudest: Option<(u8, ConnectionId)>,
}

impl Bill {
    /// What sound costs as it is sent.
    pub(super) fn sound(&self, redundancy: &Redundancy) -> u64 {
        match redundancy.is_left_out() {
            true => self.plain_sound,
            false => self.sound,
        }
    }
}

impl Shard {
    /// Reads the meters and shares every subscriber's line.
    pub(super) fn share_lines(&mut self, now: Instant) {
        for layer in self.tracks.values_mut().flat_map(|track| &mut track.layers) {
            layer.meter.read(now);
        }
        let subscribers: Vec<ConnectionId> = self.peers.keys().copied().collect();
        for id in subscribers {
            self.share_line(id, now);
        }
    }

    /// Shares a subscriber's line at once where it carries less than is sent; the tracks concerned are
    /// aimed anew.
    pub(super) fn give_way(&mut self, id: ConnectionId, now: Instant) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        if let Budget::Bits(budget) = peer.outlet.estimate.budget(now)
            && budget < peer.spent
            && Part::GiveWay.is_there()
        {
            for track in self.share_line(id, now) {
                self.aim(track, now);
            }
        }
    }

    pub(super) fn bill(&self, id: ConnectionId) -> Bill {
        let mut bill = Bill::default();
        let Some(peer) = self.peers.get(&id) else {
            return bill;
        };
        let depth = peer.redundancy.depth() as u64;
        for track_id in peer.sent() {
            let Some(track) = self.tracks.get(&track_id) else {
                continue;
            };
            let Some(one) = track.of(id) else {
                continue;
            };
            if track.publication.kind == TrackKind::Audio {
                let rate = track
                    .layers
                    .first()
                    .and_then(|layer| layer.meter.rate(Indices::ALL));
                if !track.is_muted && one.selection.is_enabled {
                    let rate = rate.unwrap_or(SOUND);
                    // What comes as RED holds one packet twice already.
                    let held = 1 + u64::from(track.is_red);
                    let may_wrap = one.mapped.is_some_and(|mapped| mapped.red.is_some());
                    let is_unwrapped = one.mapped.is_some_and(|mapped| mapped.unwrap_red);
                    let (sent, least) = match (may_wrap, is_unwrapped) {
                        (true, _) => (held.max(1 + depth), 1),
                        (false, true) => (1, 1),
                        (false, false) => (held, held),
                    };
                    bill.sound += rate * sent / held;
                    bill.plain_sound += rate * least / held;
                }
                if let Some(level) = track.level.filter(|level| *level < LOUD) {
                    let heard = (level, track.owner);
                    bill.loudest = Some(bill.loudest.map_or(heard, |one| one.min(heard)));
                }
                continue;
            }
            let wanted = one.by_processor.of(one.selection);
            if !wanted.is_enabled || track.is_muted {
                continue;
            }
            let steps = ladder::steps(
                &track.layers,
                one.encoding,
                wanted.quality,
                wanted.frame_rate,
            );
            let current = current(&steps, one);
            let wish = Wish {
                rank: rank(track, peer.speaker, one.selection.is_pinned),
                area: one.selection.area,
                steps: steps.iter().map(|step| step.bits).collect(),
                smooth: smooth(&steps),
                current,
            };
            bill.needed += wish.needed();
            bill.wishes.push(wish);
            bill.pictures.push(Picture {
                track: track_id,
                steps,
                current,
                is_paused: one.by_line == Ceiling::Nothing,
                is_held: false,
            });
        }
        bill
    }

    /// Sets what a subscriber's line leaves of each picture; returns the tracks for which it changed.
    pub(super) fn share_line(&mut self, id: ConnectionId, now: Instant) -> Vec<TrackId> {
        if let Some(peer) = self.peers.get_mut(&id) {
            let loss = peer.outlet.estimate.loss_without_queue();
            peer.redundancy.follow(loss, now);
        }
        let mut bill = self.bill(id);
        let Some(peer) = self.peers.get_mut(&id) else {
            return Vec::new();
        };
        peer.heard_speaking(bill.loudest, SPEAKER_STAYS, now);
        peer.outlet.estimate.advance(now);
        let budget = peer.outlet.estimate.budget(now);
        let doubling = double(peer, budget, &bill);
        let repaired = repaired(&peer.outlet);
        let is_narrow = match budget {
            Budget::Bits(bits) => bill.needed > for_pictures(bits, &peer.outlet, bill.sound),
            _ => false,
        };
        peer.redundancy.set_short(is_narrow);
        let sound = bill.sound(&peer.redundancy);
        let given = match budget {
            Budget::Unlimited => None,
            Budget::Unknown if !Part::BeginLow.is_there() => None,
            Budget::Unknown => Some(bill.wishes.iter().map(|wish| Some(wish.smooth)).collect()),
            Budget::Bits(bits) => {
                let left = for_pictures(bits, &peer.outlet, sound);
                let mut given = allocate(left, &bill.wishes);
                let holds = peer
                    .lowered
                    .is_some_and(|at| now.saturating_duration_since(at) < HOLD)
                    && Part::Hold.is_there();
                let pictures = given.iter_mut().zip(&mut bill.pictures);
                for (given, picture) in pictures.filter(|_| holds) {
                    let fits = *given;
                    if picture.is_paused {
                        *given = None;
                    } else if picture.current.is_some() {
                        *given = fits.min(picture.current);
                    }
                    picture.is_held = *given < fits;
                }
                Some(given)
            }
        };
        let given: Option<Vec<Option<usize>>> = given;
        let is_short = given.as_ref().is_some_and(|given| {
            let is_less = |(wish, given): (&Wish, &Option<usize>)| {
                !wish.steps.is_empty() && *given != Some(wish.steps.len() - 1)
            };
            bill.wishes.iter().zip(given).any(is_less)
        });
        peer.spent = sound;
        let mut changed = Vec::new();
        let mut is_lower = false;
        for (at, picture) in bill.pictures.iter().enumerate() {
            let given = given.as_ref().map(|given| given[at]);
            let ceiling = match given {
                None => Ceiling::None,
                Some(None) if picture.steps.is_empty() => Ceiling::None,
                Some(None) => Ceiling::Nothing,
                Some(Some(step)) => match picture.steps.get(step) {
                    Some(given) if step + 1 < picture.steps.len() => Ceiling::Layer {
                        quality: given.quality,
                        temporal: if given.is_smooth {
                            u8::MAX
                        } else {
                            given.limit.temporal
                        },
                    },
                    _ => Ceiling::None,
                },
            };
            let bits = &bill.wishes[at].steps;
            peer.spent += given
                .map_or(picture.current, |given| given)
                .and_then(|step| bits.get(step))
                .copied()
                .unwrap_or(0);
            is_lower |= given.is_some_and(|given| given < picture.current);
            let Some(one) = self
                .tracks
                .get_mut(&picture.track)
                .and_then(|track| track.subscription(id))
            else {
                continue;
            };
            one.line_reason = match budget {
                Budget::Unknown => Reason::Unmeasured,
                _ if picture.is_held => Reason::Hold,
                _ => Reason::Line,
            };
            if one.by_line != ceiling {
                one.by_line = ceiling;
                changed.push(picture.track);
            }
            let given = given.flatten();
            if let (Some(current), Some(given)) = (picture.current, given)
                && given < current
                && picture.steps[given].layer != picture.steps[current].layer
                && bits[current] * 100 > bits[given] * FAR_OVER_PERCENT
                && Part::FarOver.is_there()
                && matches!(budget, Budget::Bits(_))
            {
                // Until the lower layer's keyframe the line would be overrun.
                one.current = None;
            }
        }
        if is_lower && matches!(budget, Budget::Bits(_)) {
            peer.lowered = Some(now);
        }
        if let Some(needed) = doubling {
            peer.outlet.estimate.probe(now, needed);
        } else if (is_short || budget == Budget::Unknown) && !bill.wishes.is_empty() {
            let needed = ((bill.needed + bill.sound) as f64 * repaired) as u64;
            peer.outlet.estimate.probe(now, needed);
        }
        let is_timed = peer.outlet.is_doubled() || peer.outlet.estimate.is_probing(now);
        if is_timed && !self.probed.contains(&id) {
            self.probed.push(id);
            self.next_padding = now;
        }
        changed
    }

    /// Sends what is due of the probes under way, and of what is sent twice.
    pub(super) fn pad(&mut self, now: Instant) {
        let (peers, transmits) = (&mut self.peers, &mut self.transmits);
        self.probed.retain(|id| {
            let Some(peer) = peers.get_mut(id) else {
                return false;
            };
            peer.outlet.send_seconds(now, transmits);
            peer.outlet.pad(now, transmits);
            peer.outlet.is_doubled() || peer.outlet.estimate.is_probing(now)
        });
        self.next_padding = now + PADDING_INTERVAL;
    }
}

/// What is sent with repair, for each bit that is sent.
fn repaired(outlet: &Outlet) -> f64 {
    let twice = if outlet.is_doubled() { 1.0 } else { 0.0 };
    match Part::LossPaid.is_there() {
        true => 1.0 + outlet.repaired() + twice,
        false => 1.0 + twice,
    }
}

/// Sends pictures twice, or not, by what the line carries and what is on the bill. Returns what is to be
/// looked for where there may be room for it.
fn double(peer: &mut Peer, budget: Budget, bill: &Bill) -> Option<u64> {
    let gains = peer.outlet.gains_by_doubling() && bill.needed > 0;
    let cost = (bill.needed + bill.sound) as f64 * (2.0 + peer.outlet.repaired());
    let is_doubled = match budget {
        Budget::Bits(bits) if peer.outlet.is_doubled() => bits as f64 >= cost,
        Budget::Bits(bits) => bits as f64 >= cost * DOUBLE_ROOM,
        Budget::Unlimited | Budget::Unknown => false,
    };
    peer.outlet.set_doubled(gains && is_doubled);
    (gains && matches!(budget, Budget::Bits(_))).then_some((cost * DOUBLE_ROOM) as u64)
}

/// What so many bits per second leave for pictures.
pub(super) fn for_pictures(bits: u64, outlet: &Outlet, sound: u64) -> u64 {
    let sound = if Part::SoundFirst.is_there() {
        sound
    } else {
        0
    };
    ((bits as f64 / repaired(outlet)) as u64).saturating_sub(sound)
}

/// The rung that a subscriber is on: the uppermost of which it gets everything. One of another layer
/// that waits for a keyframe counts, as it will be sent.
fn current(steps: &[Step], one: &Subscription) -> Option<usize> {
    let is_rung = |layer: &usize| steps.iter().any(|step| step.layer == *layer);
    let layer = one.current.filter(is_rung).or(one.target)?;
    let is_sent = |step: &Step| step.layer == layer && one.filter.current().admits(step.limit);
    let lowest = || steps.iter().position(|step| step.layer == layer);
    steps.iter().rposition(is_sent).or_else(lowest)
}

/// The lowest rung with all the pictures that are wanted.
fn smooth(steps: &[Step]) -> usize {
    steps.iter().position(|step| step.is_smooth).unwrap_or(0)
}

pub(super) fn rank(
    track: &Track,
    speaker: Option<(ConnectionId, Instant)>,
    is_pinned: bool,
) -> Rank {
    let is_speaker = speaker.is_some_and(|(owner, _)| owner == track.owner);
    match (track.publication.is_screen, is_speaker, is_pinned) {
        (true, _, _) => Rank::Screen,
        (_, true, _) => Rank::Speaker,
        (_, _, true) => Rank::Pinned,
        _ => Rank::Other,
    }
}
