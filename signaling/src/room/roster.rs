//! Who is told of whom: the roster that all clients of a room share, and how its news reach them.
//!
//! Everybody has the same roster: those who are announced. In a crowd, who may not publish is
//! counted and not announced. Whoever was announced stays so until they leave or hide, so nobody
//! is said to have left who is still there.
//!
//! News is gathered while the last is being digested: one message to all, encoded once, with the
//! present state of each who changed. A newcomer's join response is the state of that moment, so
//! news that is older can be told twice and can't be missed. Invariants:
//! - Nobody is told of a going that was before they came: the same identity may be there again.
//! - Goings are told before comings, for the same reason.
//! - Nobody finds themselves in the news for all; what a participant is told of itself has more in it.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use livekit_protocol as proto;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use proto::signal_response::Message;
use proto::{DisconnectReason, participant_info::State};

use super::{NEWS_LEAST, PING_TIMEOUT, Participant, ParticipantKey, RESUME_TIME, Room, encode};

/// With more participants than this a room is a crowd: who may not publish and comes from then on
/// is counted and not announced. A list of more is not read by anybody, and each of thousands would
/// hear of the coming and going of all the others.
pub const CROWD: usize = 100;
/// With fewer than this a crowd is none any more, and everybody is announced. The distance keeps a
/// room whose number goes up and down around [`CROWD`] from changing its mind.
pub const CROWD_NO_MORE: usize = 80;

/// After news was told, more is gathered for so long per receiver. Telling one costs a quarter of
/// it, so that a room's news takes no more than that share of a core: in a hall of 3,000 there is
/// news about six times a second.
const PAUSE_PER_RECEIVER: Duration = Duration::from_micros(50);
/// So many bytes of news count as one more receiver's.
const PAUSE_BYTES: usize = 4 * 1024;
/// Pauses shorter than this are not made: up to about a hundred people hear of everything at once.
const PAUSE_LEAST: Duration = Duration::from_millis(5);
/// The most news in one message, in bytes, unless one participant's is longer; the rest comes with
/// the next.
const NEWS_AT_ONCE: usize = 64 * 1024;
/// How often the number of participants is told, at most.
const COUNT_INTERVAL: Duration = Duration::from_secs(2);
/// How long a going is remembered for those who were cut off and resume: the cut may be noticed as
/// late as the ping time-out.
const GOINGS_TIME: Duration = RESUME_TIME.saturating_add(PING_TIMEOUT);
/// The most goings remembered.
const GOINGS_BOUND: usize = 4096;

// Fields by their numbers in LiveKit's protocol, of which there is one more check in the tests.
const SIGNAL_RESPONSE_JOIN: u32 = 1;
const SIGNAL_RESPONSE_UPDATE: u32 = 5;
const UPDATE_PARTICIPANTS: u32 = 1;
const JOIN_OTHERS: u32 = 3;

/// Somebody who left.
#[derive(Debug)]
struct Going {
    who: ParticipantKey,
    identity: String,
    /// The newest number when it left: only who was told the roster before knows the one who left.
    newest: u32,
    at: Instant,
    /// Its last `ParticipantInfo`.
    entry: Bytes,
}

/// The state of a room's news.
#[derive(Debug)]
pub(super) struct Roster {
    announced: BTreeSet<ParticipantKey>,
    pub(super) is_crowd: bool,
    /// Who changed and all are not told yet, in order.
    changed: VecDeque<ParticipantKey>,
    goings: VecDeque<Going>,
    /// How many of the last goings are not told yet.
    untold: usize,
    /// News is gathered until then.
    pause_until: Instant,
    told_count: usize,
    count_pause_until: Instant,
}

impl Roster {
    pub(super) fn new(now: Instant) -> Roster {
        Roster {
            announced: BTreeSet::new(),
            is_crowd: false,
            changed: VecDeque::new(),
            goings: VecDeque::new(),
            untold: 0,
            pause_until: now,
            told_count: 0,
            count_pause_until: now,
        }
    }

    pub(super) fn is_announced(&self, key: ParticipantKey) -> bool {
        self.announced.contains(&key)
    }

    pub(super) fn announced(&self) -> impl Iterator<Item = ParticipantKey> {
        self.announced.iter().copied()
    }
}

fn put_entry(field: u32, entry: &Bytes, out: &mut BytesMut) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(entry.len() as u64, out);
    out.put_slice(entry);
}

fn entry_length(field: u32, entry: &Bytes) -> usize {
    key_len(field) + encoded_len_varint(entry.len() as u64) + entry.len()
}

/// A `SignalResponse` around a message whose beginning is encoded and whose repeated `field` has
/// these entries.
fn assemble(message: u32, beginning: &[u8], field: u32, entries: &[&Bytes]) -> Bytes {
    let length = beginning.len()
        + entries
            .iter()
            .map(|entry| entry_length(field, entry))
            .sum::<usize>();
    let mut out = BytesMut::with_capacity(length + 16);
    encode_key(message, WireType::LengthDelimited, &mut out);
    encode_varint(length as u64, &mut out);
    out.put_slice(beginning);
    for entry in entries {
        put_entry(field, entry, &mut out);
    }
    out.freeze()
}

fn update(entries: &[&Bytes]) -> Bytes {
    assemble(SIGNAL_RESPONSE_UPDATE, &[], UPDATE_PARTICIPANTS, entries)
}

/// A join response with the others, each encoded before.
pub(super) fn join_response(response: &proto::JoinResponse, others: &[Bytes]) -> Bytes {
    let others: Vec<&Bytes> = others.iter().collect();
    let beginning = response.encode_to_vec();
    assemble(SIGNAL_RESPONSE_JOIN, &beginning, JOIN_OTHERS, &others)
}

/// How long news is gathered after so long a message to so many.
fn pause(receivers: usize, length: usize) -> Duration {
    let weight = receivers as f64 * (1.0 + length as f64 / PAUSE_BYTES as f64);
    let pause = PAUSE_PER_RECEIVER.mul_f64(weight);
    if pause < PAUSE_LEAST {
        Duration::ZERO
    } else {
        pause
    }
}

/// Whether somebody is announced in a crowd too.
fn speaks(participant: &Participant) -> bool {
    participant.permission().can_publish && participant.view.is_none()
}

impl Room {
    /// What others are told of a participant, encoded once for each of its versions.
    fn entry(&mut self, key: ParticipantKey) -> Option<Bytes> {
        if let Some(entry) = &self.participants.get(&key)?.entry {
            return Some(entry.clone());
        }
        let entry: Bytes = self.full_info(key, false)?.encode_to_vec().into();
        self.participants.get_mut(&key)?.entry = Some(entry.clone());
        Some(entry)
    }

    /// All who are announced but one, encoded.
    pub(super) fn others(&mut self, except: ParticipantKey) -> Vec<Bytes> {
        let keys: Vec<_> = self.roster.announced.iter().copied().collect();
        keys.into_iter()
            .filter(|key| *key != except)
            .filter_map(|key| self.entry(key))
            .collect()
    }

    /// Tells what became of a participant: itself at once, and the others with the next news; or
    /// both with the next tick that may, when it changes too quickly.
    pub(super) fn announce(&mut self, key: ParticipantKey, to_itself: bool) {
        let Some(info) = self.full_info(key, true) else {
            return;
        };
        let now = self.now;
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let to_itself = to_itself | participant.untold.unwrap_or_default();
        participant.info.version += 1;
        participant.entry = None;
        let cost = info.encoded_len().max(NEWS_LEAST);
        if !participant.news.spend(cost, now) {
            participant.untold = Some(to_itself);
            return;
        }
        participant.untold = None;
        self.tell_published(key);
        if self.has_to_be_announced(key) {
            self.put_into_news(key);
        }
        if to_itself {
            self.tell_itself(key);
        }
    }

    fn tell_itself(&mut self, key: ParticipantKey) {
        if let Some(info) = self.full_info(key, true) {
            let participants = vec![info];
            self.tell(
                key,
                Message::Update(proto::ParticipantUpdate { participants }),
            );
        }
    }

    fn has_to_be_announced(&self, key: ParticipantKey) -> bool {
        self.participants.get(&key).is_some_and(|participant| {
            !participant.is_hidden()
                && (self.roster.is_announced(key) || !self.roster.is_crowd || speaks(participant))
        })
    }

    /// Announces somebody who has something to say, such as a raised hand.
    pub(super) fn step_forward(&mut self, key: ParticipantKey) {
        let is_shown = self.participants.get(&key).is_some_and(|p| !p.is_hidden());
        if is_shown && !self.roster.is_announced(key) {
            self.put_into_news(key);
        }
    }

    fn put_into_news(&mut self, key: ParticipantKey) {
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        self.roster.announced.insert(key);
        if !participant.is_in_news {
            participant.is_in_news = true;
            self.roster.changed.push_back(key);
        }
        self.tell_news_if_due();
    }

    fn tell_news_if_due(&mut self) {
        if self.now >= self.roster.pause_until && !self.by_session.is_empty() {
            self.tell_news();
        }
    }

    /// Tells all what is new, up to what is new of one, without waiting.
    pub(super) fn tell_news_of(&mut self, key: ParticipantKey) {
        while self.participants.get(&key).is_some_and(|p| p.is_in_news) {
            self.tell_news();
        }
    }

    /// Takes somebody off the roster who left or hides, and was last like this.
    pub(super) fn take_off(
        &mut self,
        key: ParticipantKey,
        info: &proto::ParticipantInfo,
        reason: DisconnectReason,
    ) {
        if !self.roster.announced.remove(&key) {
            return;
        }
        self.roster.changed.retain(|changed| *changed != key);
        if let Some(participant) = self.participants.get_mut(&key) {
            participant.is_in_news = false;
        }
        // What it had said of itself is of no use any more.
        let info = proto::ParticipantInfo {
            state: State::Disconnected as i32,
            disconnect_reason: reason as i32,
            version: info.version + 1,
            metadata: String::new(),
            attributes: Default::default(),
            tracks: Vec::new(),
            is_publisher: false,
            ..info.clone()
        };
        self.roster.goings.push_back(Going {
            who: key,
            identity: info.identity.clone(),
            newest: self.next,
            at: self.now,
            entry: info.encode_to_vec().into(),
        });
        self.roster.untold += 1;
        self.tell_news_if_due();
    }

    /// Sees whether the room is a crowd now.
    pub(super) fn look_at_size(&mut self) {
        let count = self.participant_count();
        if count > CROWD {
            self.roster.is_crowd = true;
        } else if self.roster.is_crowd && count < CROWD_NO_MORE {
            self.roster.is_crowd = false;
            for key in self.participants.keys().copied().collect::<Vec<_>>() {
                self.step_forward(key);
            }
        }
    }

    /// Tells all what is new, as much as goes into one message.
    pub(super) fn tell_news(&mut self) {
        let mut length = 0;
        let mut has_space = |entry: &Bytes| {
            let is_first = length == 0;
            length += entry_length(UPDATE_PARTICIPANTS, entry);
            is_first || length <= NEWS_AT_ONCE
        };
        let told = self.roster.goings.len() - self.roster.untold;
        let goings: Vec<(ParticipantKey, u32, Bytes)> = self
            .roster
            .goings
            .range(told..)
            .take_while(|going| has_space(&going.entry))
            .map(|going| (going.who, going.newest, going.entry.clone()))
            .collect();
        self.roster.untold -= goings.len();
        let mut changed: Vec<(ParticipantKey, Bytes)> = Vec::new();
        while self.roster.untold == 0
            && let Some(key) = self.roster.changed.front().copied()
        {
            if let Some(entry) = self.entry(key) {
                if !has_space(&entry) {
                    break;
                }
                changed.push((key, entry));
            }
            self.roster.changed.pop_front();
            if let Some(participant) = self.participants.get_mut(&key) {
                participant.is_in_news = false;
            }
        }
        if goings.is_empty() && changed.is_empty() {
            return;
        }
        let all: Vec<&Bytes> = goings
            .iter()
            .map(|(_, _, entry)| entry)
            .chain(changed.iter().map(|(_, entry)| entry))
            .collect();
        let to_all = update(&all);
        let concerned: HashSet<ParticipantKey> = goings
            .iter()
            .map(|(who, ..)| *who)
            .chain(changed.iter().map(|(who, _)| *who))
            .collect();
        let oldest_going = goings.first().map_or(u32::MAX, |(_, newest, _)| *newest);
        let mut sends = Vec::with_capacity(self.by_session.len());
        for (key, participant) in &self.participants {
            let Some(session) = participant.session.filter(|_| participant.hears_others) else {
                continue;
            };
            if !concerned.contains(key) && participant.told_at <= oldest_going {
                sends.push((session, to_all.clone()));
                continue;
            }
            let known: Vec<&Bytes> = goings
                .iter()
                .filter(|(who, newest, _)| who != key && participant.told_at <= *newest)
                .map(|(_, _, entry)| entry)
                .chain(
                    changed
                        .iter()
                        .filter(|(who, _)| who != key)
                        .map(|(_, entry)| entry),
                )
                .collect();
            if !known.is_empty() {
                sends.push((session, update(&known)));
            }
        }
        self.roster.pause_until = self.now + pause(sends.len(), to_all.len());
        for (session, message) in sends {
            self.send(session, message);
        }
    }

    /// Tells what was gathered, if its time has come; call often.
    pub fn tell_due_news(&mut self, now: Instant) {
        self.now = now;
        self.tell_news_if_due();
    }

    /// Tells somebody who was cut off the whole roster, and who left meanwhile.
    pub(super) fn retell_roster(&mut self, key: ParticipantKey) {
        let number = self.next_number();
        let Some(participant) = self.participants.get_mut(&key) else {
            return;
        };
        let told_at = std::mem::replace(&mut participant.told_at, number);
        let is_back = |identity: &String| {
            let twin = self.by_identity.get(identity);
            twin.is_some_and(|twin| self.roster.is_announced(*twin))
        };
        let mut entries: Vec<Bytes> = self
            .roster
            .goings
            .iter()
            .filter(|going| {
                going.who != key && told_at <= going.newest && !is_back(&going.identity)
            })
            .map(|going| going.entry.clone())
            .collect();
        entries.extend(self.others(key));
        entries.extend(
            self.full_info(key, true)
                .map(|info| info.encode_to_vec().into()),
        );
        if let Some(session) = self.participants.get(&key).and_then(|p| p.session) {
            let entries: Vec<&Bytes> = entries.iter().collect();
            self.send(session, update(&entries));
        }
    }

    /// Does for the roster what a tick is for.
    pub(super) fn tick_roster(&mut self) {
        let now = self.now;
        let is_old = |going: &Going| now.saturating_duration_since(going.at) >= GOINGS_TIME;
        while self.roster.goings.len() > self.roster.untold
            && (self.roster.goings.len() > GOINGS_BOUND
                || self.roster.goings.front().is_some_and(is_old))
        {
            self.roster.goings.pop_front();
        }
        self.tell_count();
    }

    /// Tells all how many there are, now and then, when it changed.
    fn tell_count(&mut self) {
        let count = self.told_count();
        if count == self.roster.told_count || self.now < self.roster.count_pause_until {
            return;
        }
        self.tell_room();
    }

    /// Tells all what the room is like.
    pub(super) fn tell_room(&mut self) {
        let update = proto::RoomUpdate {
            room: Some(self.info()),
        };
        let message = encode(Message::RoomUpdate(update));
        let pause = pause(self.by_session.len(), message.len());
        self.roster.count_pause_until = self.now + pause.max(COUNT_INTERVAL);
        self.roster.told_count = self.told_count();
        self.send_all(&message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_together_is_what_would_be_encoded() {
        let info = |number: usize| proto::ParticipantInfo {
            identity: "x".repeat(number * 100),
            version: 7,
            ..Default::default()
        };
        let infos: Vec<_> = (0..4).map(info).collect();
        let entries: Vec<Bytes> = infos.iter().map(|i| i.encode_to_vec().into()).collect();
        let expected = proto::ParticipantUpdate {
            participants: infos.clone(),
        };
        assert_eq!(
            update(&entries.iter().collect::<Vec<_>>()),
            encode(Message::Update(expected))
        );
        let response = proto::JoinResponse {
            server_version: "1".into(),
            ping_interval: 5,
            ..Default::default()
        };
        let expected = proto::JoinResponse {
            other_participants: infos,
            ..response.clone()
        };
        let decoded = proto::SignalResponse::decode(join_response(&response, &entries)).unwrap();
        assert_eq!(decoded.message, Some(Message::Join(expected)));
    }

    #[test]
    fn small_rooms_hear_everything_at_once_and_halls_several_times_a_second() {
        assert_eq!(pause(1, 300), Duration::ZERO);
        assert_eq!(pause(90, 300), Duration::ZERO);
        assert!(pause(3000, 300) >= Duration::from_millis(150));
        assert!(pause(3000, 300) < Duration::from_millis(200));
        assert!(pause(3000, NEWS_AT_ONCE) < Duration::from_secs(3));
    }
}
