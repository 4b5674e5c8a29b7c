//! The one door through which media leaves: a packet and the list of who gets it go in, datagrams
//! come out of the connections. What is behind it is str0m's `write_rtp`.

use std::collections::HashMap;
use std::sync::Arc;

use str0m::media::{Mid, Pt};
use str0m::rtp::{RtpWrite, SeqNo, Vp8Descriptor, Vp8Patch};

use crate::command::ConnectionId;
use crate::payload::red_primary;
use crate::peer::Peer;
use crate::rewrite::Numbers;
use crate::track::Packet;

/// One receiver of a packet, and how it is numbered for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing {
    pub(crate) connection: ConnectionId,
    pub(crate) mid: Mid,
    pub(crate) payload_type: Pt,
    pub(crate) unwrap_red: bool,
    pub(crate) numbers: Numbers,
}

/// Writes one packet to everyone on the list. The caller drains the connections afterwards.
pub(crate) fn send(
    peers: &mut HashMap<ConnectionId, Box<Peer>>,
    packet: &Packet,
    is_video: bool,
    receivers: &[Outgoing],
) {
    for receiver in receivers {
        let Some(peer) = peers.get_mut(&receiver.connection) else {
            continue;
        };
        let payload: Arc<[u8]> = if receiver.unwrap_red {
            match red_primary(&packet.payload) {
                Some(primary) if !primary.is_empty() => primary.into(),
                _ => continue,
            }
        } else {
            packet.payload.clone()
        };
        let patch = receiver
            .numbers
            .vp8
            .and_then(|_| vp8_patch(packet, &receiver.numbers));
        let sequence = SeqNo::from(receiver.numbers.sequence);
        let timestamp = receiver.numbers.timestamp;
        let mut write = RtpWrite::new(
            receiver.payload_type,
            sequence,
            timestamp,
            packet.arrived,
            payload,
        )
        .marker(packet.marker)
        .ext_vals(packet.extensions.clone())
        .nackable(is_video);
        if let Some(patch) = patch {
            write = write.vp8_patch(patch);
        }
        peer.write(receiver.mid, write);
    }
}

fn vp8_patch(packet: &Packet, numbers: &Numbers) -> Option<Vp8Patch> {
    let vp8 = numbers.vp8?;
    let mut patch = Vp8Descriptor::parse(&packet.payload).ok()?.patch();
    if let Some((id, _)) = vp8.picture_id {
        patch = patch.picture_id(id);
    }
    if let Some(index) = vp8.tl0_pic_idx {
        patch = patch.tl0_pic_idx(index);
    }
    if let Some(index) = vp8.key_idx {
        patch = patch.key_idx(index);
    }
    patch.build().ok()
}
