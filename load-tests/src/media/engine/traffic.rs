//! Packets out and in: what is due, what has come, what the clients' engines make of it.

use std::cmp::Reverse;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use rand::Rng;
use str0m::rtp::Ssrc;
use udp_batch::Receiver as BatchReceiver;

use super::connection::{Incoming, Numbering, Wire, is_media, send};
use super::{BATCH, Engine};
use crate::media::webrtc::{Happened, Received};
use crate::media::{ConnectionId, TIMELINE_STEP};
use crate::payload::Stamp;
use crate::source::{nanoseconds, wall_clock};

/// Batches taken from one socket before the others get their turn.
const BATCHES_PER_TURN: usize = 4;

/// A source that is behind by more than this skips what it missed.
const CATCH_UP: Duration = Duration::from_millis(200);

/// Who has seen no whole keyframe for so long asks for one, and again after it.
const KEYFRAME_PATIENCE: Duration = Duration::from_millis(500);

impl Engine {
    pub(super) fn send_due(&mut self) {
        loop {
            let now = Instant::now();
            match self.due.peek() {
                Some(Reverse((due, _, _))) if *due <= now => {}
                _ => return,
            }
            let Some(Reverse((due, id, at))) = self.due.pop() else {
                return;
            };
            let Some(connection) = self.connections.get_mut(&at) else {
                continue;
            };
            let Some(source) = self.sources.get_mut(&id) else {
                continue;
            };
            let late = now.saturating_duration_since(due);
            if source.is_on {
                if self.window.holds(wall_clock()) {
                    self.lateness.saturating_record(late.as_micros() as u64);
                }
                let mut failure = None;
                let mut count = 0;
                let codec = source.plan.codec;
                let wire = &mut connection.wire;
                source.frame(self.window, |packet| {
                    count += 1;
                    let sent = match wire {
                        Wire::WebRtc(wire) => wire.send(id, packet, now),
                        Wire::Plain(wire) => wire.send(id, codec, &packet),
                    };
                    failure = failure.take().or(sent.err());
                });
                self.progress.sent.fetch_add(count, Ordering::Relaxed);
                if let Some(error) = failure {
                    self.fail(&error);
                }
                self.flush(at);
                self.take_happened(at, now, 0);
            }
            let period = self.sources[&id].plan.beat.period;
            let mut next = due + period;
            if late > CATCH_UP {
                while next < now {
                    next += period;
                }
            }
            self.due.push(Reverse((next, id, at)));
        }
    }

    pub(super) fn read(&mut self) {
        for id in std::mem::take(&mut self.readable) {
            let mut batches = 0;
            while let Some(connection) = self.connections.get(&id) {
                match self.batch.receive(&connection.socket) {
                    Ok(count) => {
                        self.take_batch(id);
                        if count < BATCH {
                            break;
                        }
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                    // ICMP errors of earlier sends; they concern no packet of ours.
                    Err(_) => {}
                }
                batches += 1;
                if batches == BATCHES_PER_TURN {
                    self.readable.push(id);
                    break;
                }
            }
            self.send_due();
        }
    }

    pub(super) fn take_batch(&mut self, id: ConnectionId) {
        // The batch is lent to nobody else while its datagrams are looked at.
        let batch = std::mem::replace(&mut self.batch, BatchReceiver::new(1, 1));
        for datagram in batch.datagrams() {
            let now = Instant::now();
            let Some(connection) = self.connections.get_mut(&id) else {
                break;
            };
            if is_media(datagram.contents)
                && connection.loss > 0.0
                && self.random.random_bool(connection.loss)
            {
                continue;
            }
            let arrived = datagram.arrived_at.map_or_else(wall_clock, nanoseconds);
            let result = match &mut connection.wire {
                Wire::WebRtc(wire) => wire
                    .receive(datagram.source, datagram.contents, now)
                    .map(|()| None),
                Wire::Plain(wire) => Ok(wire.receive(&mut datagram.contents.to_vec())),
            };
            match result {
                Ok(Some(stamp)) => self.note(id, &stamp, Ssrc::from(0), arrived, now),
                Ok(None) => {}
                Err(error) => {
                    self.drop_connection(id, &error);
                    break;
                }
            }
            self.take_happened(id, now, arrived);
        }
        self.batch = batch;
        self.flush(id);
    }

    pub(super) fn note(
        &mut self,
        id: ConnectionId,
        stamp: &Stamp,
        ssrc: Ssrc,
        arrived: u64,
        now: Instant,
    ) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let Some((receiver, _)) = self.stays.get(&connection.stay) else {
            return;
        };
        self.progress.received.fetch_add(1, Ordering::Relaxed);
        if stamp.is_video {
            let incoming = connection
                .incoming
                .entry(stamp.source)
                .or_insert_with(|| Incoming {
                    ssrc,
                    turn: stamp.turn,
                    since: now,
                });
            incoming.ssrc = ssrc;
            if incoming.turn != stamp.turn {
                incoming.turn = stamp.turn;
                incoming.since = now;
            }
        }
        let latency = self.receivers[*receiver].note(stamp, arrived, self.window);
        if let Some(latency) = latency {
            let step = (stamp.sent - self.window.from) / TIMELINE_STEP;
            self.timeline
                .entry(step)
                .or_default()
                .note(stamp.is_video, latency);
        }
    }

    /// Looks whether the server's numbers and times go on as the sender's do.
    fn check_numbers(&mut self, id: ConnectionId, stamp: &Stamp, packet: &Received) {
        // A source of another thread is not known here.
        let (Some(connection), Some(source)) = (
            self.connections.get_mut(&id),
            self.sources.get(&stamp.source),
        ) else {
            return;
        };
        let sent = (f64::from(stamp.frame) * source.plan.beat.ticks) as u64 as u32;
        let numbering = Numbering {
            ssrc: packet.ssrc,
            sequence: packet.sequence.wrapping_sub(stamp.sequence),
            timestamp: packet.timestamp.wrapping_sub(sent),
        };
        let before = connection.numbering.insert(stamp.source, numbering);
        if before.is_some_and(|before| before.has_jumped(&numbering))
            && let Some((receiver, _)) = self.stays.get(&connection.stay)
        {
            self.receivers[*receiver].jumps += 1;
        }
    }

    pub(super) fn take_happened(&mut self, id: ConnectionId, now: Instant, arrived: u64) {
        loop {
            let Some(connection) = self.connections.get_mut(&id) else {
                return;
            };
            let happened = match &mut connection.wire {
                Wire::WebRtc(wire) => wire.take_happened(),
                Wire::Plain(wire) => {
                    (wire.is_connected && !connection.is_connected).then_some(Happened::Connected)
                }
            };
            match happened {
                None => return,
                Some(Happened::Connected) => self.connected(id),
                Some(Happened::Closed) => {
                    self.drop_connection(id, &anyhow!("a connection was closed by the server"));
                }
                Some(Happened::Packet(packet)) => {
                    if let Some(stamp) = Stamp::read(&packet.payload) {
                        self.note(id, &stamp, packet.ssrc, arrived, now);
                        self.check_numbers(id, &stamp, &packet);
                    }
                }
                Some(Happened::KeyframeWanted(source)) => {
                    if let Some(source) = self.sources.get_mut(&source) {
                        source.ask_keyframe();
                    }
                }
            }
        }
    }

    /// Sends what a connection has ready.
    pub(super) fn flush(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        loop {
            let next = match &mut connection.wire {
                Wire::WebRtc(wire) => wire.take_outgoing(),
                Wire::Plain(wire) => wire.outgoing.pop_front(),
            };
            let Some((destination, datagram)) = next else {
                break;
            };
            if is_media(&datagram)
                && connection.loss > 0.0
                && self.random.random_bool(connection.loss)
            {
                continue;
            }
            if !self.burst.push(destination, &datagram) {
                self.unsent += send(connection, &mut self.burst);
                let fits = self.burst.push(destination, &datagram);
                self.unsent += u64::from(!fits);
            }
        }
        if !self.burst.is_empty() {
            self.unsent += send(connection, &mut self.burst);
        }
    }

    pub(super) fn tick(&mut self, id: ConnectionId) {
        let now = Instant::now();
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.deadline() <= now {
            let result = match &mut connection.wire {
                Wire::WebRtc(wire) => wire.tick(now),
                Wire::Plain(wire) => {
                    wire.tick(now);
                    Ok(())
                }
            };
            if let Err(error) = result {
                self.drop_connection(id, &error);
                return;
            }
        }
        self.look_for_pictures(id, now);
        self.flush(id);
        self.take_happened(id, now, wall_clock());
    }

    /// Who sees packets of a camera but no keyframe asks for one, as a decoder would.
    pub(super) fn look_for_pictures(&mut self, id: ConnectionId, now: Instant) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.next_look > now {
            return;
        }
        connection.next_look = now + KEYFRAME_PATIENCE;
        let Some((receiver, _)) = self.stays.get(&connection.stay) else {
            return;
        };
        let receiver = &self.receivers[*receiver];
        let Wire::WebRtc(wire) = &mut connection.wire else {
            return;
        };
        for (source, incoming) in &mut connection.incoming {
            if now.duration_since(incoming.since) >= KEYFRAME_PATIENCE
                && !receiver.has_picture(*source, incoming.turn)
            {
                incoming.since = now;
                // A failure shows itself at the next input.
                let _ = wire.ask_keyframe(incoming.ssrc, now);
            }
        }
    }
}
