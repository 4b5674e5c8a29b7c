//! Reports: what subscribers tell of what they get, and what they are told of it.

use std::time::Instant;

use rustc_hash::FxHashMap;
use str0m::media::Mid;

use super::Shard;
use crate::command::{ConnectionId, TrackId};
use crate::egress::Sent;
use crate::rtcp::{self, Told};
use crate::track::Track;

/// RTCP by its first two bytes (RFC 7983, RFC 5761 §4).
pub(super) fn is_report(datagram: &[u8]) -> bool {
    matches!(datagram, [128..=191, 192..=223, ..])
}

/// What receivers told to be lost of all streams together: a stream of few packets, of which one is
/// lost, says little of the line.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Losses {
    packets: f32,
    lost: f32,
}

impl Losses {
    /// Of so many packets so many of 256 were lost.
    fn add(&mut self, lost: u8, packets: u32) {
        self.packets += packets as f32;
        self.lost += packets as f32 * f32::from(lost) / 256.0;
    }

    /// `None`: nothing was told.
    pub(crate) fn share(self) -> Option<f32> {
        (self.packets > 0.0).then(|| self.lost / self.packets)
    }
}

/// What a connection was sent of a track under a sequence number.
fn find(
    tracks: &FxHashMap<TrackId, Track>,
    track: TrackId,
    connection: ConnectionId,
    sequence: u16,
) -> Option<Sent> {
    let one = tracks.get(&track)?.of(connection)?;
    let mapped = one.mapped?;
    let (deltas, source) = one.rewrite.source_of(sequence)?;
    let layer = tracks
        .get(&deltas.source.track)?
        .layers
        .get(deltas.source.layer)?;
    let packet = layer.recent.get(source)?.clone();
    Some(Sent {
        marker: if deltas.source.track == track {
            one.filter.ended_picture(&packet)
        } else {
            packet.marker
        },
        payload_type: mapped
            .target
            .filter(|_| mapped.source == packet.payload_type)?,
        numbers: deltas.numbers(&packet)?,
        packet,
    })
}

impl Shard {
    /// Reads a sealed compound packet of a client. Returns whether the engine must have it too:
    /// the client publishes, and the packet speaks of that.
    pub(super) fn reported(&mut self, id: ConnectionId, datagram: &[u8], now: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(&id) else {
            return false;
        };
        let Ok(compound) = peer.outlet.open(datagram) else {
            return false;
        };
        let mut wanted: Vec<Mid> = Vec::new();
        let mut of_publisher = false;
        let mut heard = Losses::default();
        let (tracks, transmits) = (&self.tracks, &mut self.transmits);
        let is_behind = self.is_behind;
        // What does not fit ends the reading; what was read counts.
        let _ = rtcp::read(&compound, |told| match told {
            // What is missing is asked for again when there is time for it.
            Told::Missing { .. } if is_behind => {}
            Told::Missing { ssrc, sequences } => {
                let track = peer.outlet.mid_of(ssrc).and_then(|mid| peer.sent_on(mid));
                if let Some(track) = track {
                    let find = |sequence| find(tracks, track, id, sequence);
                    peer.outlet
                        .repair(now, ssrc, sequences.iter(), find, transmits);
                }
            }
            Told::KeyframeWanted { ssrc } => {
                if let Some(mid) = peer.outlet.mid_of(ssrc)
                    && !wanted.contains(&mid)
                {
                    wanted.push(mid);
                }
            }
            Told::Reception(reception) => {
                if let Some(count) = peer.outlet.received(now, &reception) {
                    heard.add(reception.lost, count);
                    peer.losses.add(reception.lost, count);
                }
            }
            Told::OfPublisher | Told::Goodbye { .. } => of_publisher = true,
            Told::Arrivals(body) => peer.outlet.estimate.arrivals(now, body),
            Told::Estimate(rate) => peer.outlet.estimate.receiver_estimate(now, rate),
        });
        if let Some(share) = heard.share() {
            peer.outlet.estimate.lost(now, f64::from(share));
        }
        let is_for_engine = of_publisher && peer.is_publishing();
        self.give_way(id, now);
        for mid in wanted {
            self.keyframe_wanted(id, mid, now);
        }
        is_for_engine
    }

    fn keyframe_wanted(&mut self, id: ConnectionId, mid: Mid, now: Instant) {
        let Some(track) = self.peers.get(&id).and_then(|peer| peer.sent_on(mid)) else {
            return;
        };
        let layer = self
            .tracks
            .get_mut(&track)
            .and_then(|track| track.subscription(id))
            .and_then(|one| one.current.or(one.target));
        if let Some(layer) = layer {
            self.ask_keyframe(track, layer, now);
        }
    }

    /// Tells every subscriber how its streams lie on the publishers' clocks.
    pub(super) fn report_sent(&mut self, now: Instant) {
        for peer in self.peers.values_mut() {
            peer.outlet.say_goodbye(&mut self.transmits);
        }
        for track in self.tracks.values() {
            let clock_rate = f64::from(track.clock_rate());
            for one in &track.subscriptions {
                let (Some(mid), Some(layer)) = (one.mid, one.current) else {
                    continue;
                };
                let report = track.layers.get(layer).and_then(|layer| layer.report);
                let Some((ntp, timestamp, came)) = report else {
                    continue;
                };
                let Some(timestamp) = one.rewrite.timestamp(timestamp) else {
                    continue;
                };
                let since = now.saturating_duration_since(came);
                let moved = (since.as_secs_f64() * clock_rate) as u64 as u32;
                if let Some(peer) = self.peers.get_mut(&one.connection) {
                    peer.outlet.report(
                        now,
                        mid,
                        ntp + since,
                        timestamp.wrapping_add(moved),
                        &mut self.transmits,
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_weighed_by_packets() {
        let mut losses = Losses::default();
        assert_eq!(losses.share(), None);
        // One packet of four, and none of a hundred and ninety-six.
        losses.add(64, 4);
        losses.add(0, 196);
        assert_eq!(losses.share(), Some(1.0 / 200.0));
    }
}
