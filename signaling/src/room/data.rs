//! Data messages: who said it is written by the server, and they reach whom they name.

// Older clients and server SDKs address by these fields.
#![allow(deprecated)]

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use livekit_protocol as proto;
use prost::Message as _;
use proto::data_packet::Value;
use proto::request_response::Reason;
use sfu::{Channel, Command, ConnectionId};

use super::{ParticipantKey, Room};

/// The longest data message that is forwarded, in bytes.
pub const DATA_BOUND: usize = 64 * 1024;

impl Room {
    pub(super) fn forward_data(&mut self, from: ConnectionId, channel: Channel, payload: &[u8]) {
        let Some(key) = self.by_connection.get(&from).copied() else {
            return;
        };
        if payload.len() > DATA_BOUND {
            let message = format!("a data message is over {DATA_BOUND} bytes");
            self.complain(key, Reason::LimitExceeded, &message);
            return;
        }
        let Ok(mut packet) = proto::DataPacket::decode(payload) else {
            self.complain(
                key,
                Reason::InvalidRequest,
                "a data message is not a DataPacket",
            );
            return;
        };
        let Some(sender) = self.participants.get_mut(&key) else {
            return;
        };
        if !sender.permission().can_publish_data {
            let message = "does not have permission to publish data";
            self.complain(key, Reason::NotAllowed, message);
            return;
        }
        if channel == Channel::Reliable && packet.sequence != 0 {
            // What a resumed client has sent before its cut but we have not got, it sends again.
            if packet.sequence <= sender.last_reliable {
                return;
            }
            sender.last_reliable = packet.sequence;
        }
        let (sid, identity) = if sender.is_hidden() {
            (String::new(), String::new())
        } else {
            (sender.info.sid.clone(), sender.info.identity.clone())
        };
        packet.participant_sid.clone_from(&sid);
        packet.participant_identity.clone_from(&identity);
        let mut to_sids = Vec::new();
        match &mut packet.value {
            None | Some(Value::Speaker(_) | Value::Metrics(_)) => return,
            Some(Value::User(user)) => {
                user.participant_sid = sid;
                user.participant_identity = identity;
                to_sids = std::mem::take(&mut user.destination_sids);
                let identities = std::mem::take(&mut user.destination_identities);
                if packet.destination_identities.is_empty() {
                    packet.destination_identities = identities;
                }
            }
            Some(_) => {}
        }
        self.send_packet(Some(key), channel, packet, &to_sids);
    }

    /// Sends data as the server.
    pub fn send_data(&mut self, request: proto::SendDataRequest) {
        let is_lossy = request.kind == proto::data_packet::Kind::Lossy as i32;
        let packet = proto::DataPacket {
            kind: request.kind,
            destination_identities: request.destination_identities,
            value: Some(Value::User(proto::UserPacket {
                payload: request.data,
                topic: request.topic,
                nonce: request.nonce,
                ..Default::default()
            })),
            ..Default::default()
        };
        let channel = if is_lossy {
            Channel::Lossy
        } else {
            Channel::Reliable
        };
        let to_sids = request.destination_sids;
        self.send_packet(None, channel, packet, &to_sids);
    }

    fn send_packet(
        &mut self,
        from: Option<ParticipantKey>,
        channel: Channel,
        packet: proto::DataPacket,
        to_sids: &[String],
    ) {
        let is_to_all = packet.destination_identities.is_empty() && to_sids.is_empty();
        let mut to: BTreeSet<ParticipantKey> = packet
            .destination_identities
            .iter()
            .filter_map(|identity| self.by_identity.get(identity).copied())
            .collect();
        if is_to_all {
            to.extend(self.participants.keys());
        } else if !to_sids.is_empty() {
            let to_sids: HashSet<&String> = to_sids.iter().collect();
            let named = self.participants.values();
            let named = named.filter(|participant| to_sids.contains(&participant.info.sid));
            to.extend(named.map(|participant| participant.key));
        }
        let connections: Vec<ConnectionId> = to
            .into_iter()
            .filter(|key| Some(*key) != from)
            .filter_map(|key| self.participants.get(&key))
            .filter(|participant| participant.hears_others)
            .map(|participant| participant.subscriber)
            .collect();
        if !connections.is_empty() {
            let payload: Arc<[u8]> = packet.encode_to_vec().into();
            self.media(Command::SendData {
                connections,
                channel,
                payload,
            });
        }
    }
}
