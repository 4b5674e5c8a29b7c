//! One WebRTC connection: str0m around one client, its m-lines and its data channels.
//!
//! Every change of the engine is followed by [`Peer::drain`] before the next one; that is str0m's
//! contract.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::channel::{ChannelConfig, ChannelId, Reliability};
use str0m::config::Fingerprint;
use str0m::crypto::dtls::DtlsCert;
use str0m::format::PayloadParams;
use str0m::media::{Direction, KeyframeRequestKind, MediaKind, Mid, Pt, Rid};
use str0m::rtp::{Extension, ExtensionMap, ExtensionSerializer, ExtensionValues, Ssrc};
use str0m::{Candidate, Event as RtcEvent, IceCreds, Input, Output, Rtc, RtcConfig};

use crate::command::{
    Channel, Codec, ConnectionId, Encoding, LineReport, Publication, Quality, Role, TrackId,
    TrackKind,
};
use crate::egress::{Agreed, ExtensionIds, Outlet};
use crate::encoding::Codecs;
use crate::estimate::Budget;
use crate::redundancy::Redundancy;
use crate::relay::{self, End, Relay, RelayEnd, Stream, Word};
use crate::rewrite::Rewrite;
use crate::sdp::{self, Edit, Section};
use crate::shard::Transmit;
use crate::shard::report::Losses;
use crate::subscription::Mapped;

/// How often a connection's line is reported.
pub(crate) const LINE_REPORT_INTERVAL: Duration = Duration::from_secs(2);

/// Bytes of reliable messages kept for a client that does not read them (or whose channel is not
/// open yet) before its connection is closed. A quick sender may be this far ahead of a slow line;
/// the messages are shared by everyone who waits for them.
const DATA_BACKLOG_BYTES: usize = 16 << 20;

/// Bytes that the data channels of one connection may hold unsent inside the engine.
const DATA_BUFFERED_BYTES: usize = 256 * 1024;

/// The longest time between two checks of a line between nodes, and how many may stay unanswered, so
/// that a line that was away for long is back at once.
const RELAY_CHECKS: Duration = Duration::from_millis(500);
const RELAY_CHECKS_UNANSWERED: usize = 100_000;

/// Turns of the engine without new input in one drain; more would mean that it never rests.
const DRAIN_TURNS: usize = 16;

/// A subscription that has no m-line yet.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) track: TrackId,
    pub(crate) kind: TrackKind,
    pub(crate) stream_name: String,
    pub(crate) track_name: String,
}

/// An m-line on which we send.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) mid: Mid,
    pub(crate) kind: TrackKind,
    pub(crate) wanted: Option<Wanted>,
    /// The client has been told what is sent here.
    is_agreed: bool,
    /// The last agreed description says that nothing is sent here, so that it may be given to
    /// another track: a browser announces a track only on the way from inactive to sending.
    is_idle: bool,
    /// Our offer under way says so.
    is_offered_idle: bool,
    /// Something was sent here before: a new track gets new SSRCs.
    was_used: bool,
    /// The numbers of what was last sent here, from which the next track of a [`Role::View`] goes
    /// on under the same SSRC.
    pub(crate) rewrite: Option<Rewrite>,
}

impl Place {
    fn new(mid: Mid, kind: TrackKind, wanted: Option<Wanted>) -> Self {
        let was_used = wanted.is_some();
        Place {
            mid,
            kind,
            wanted,
            is_agreed: false,
            is_idle: false,
            is_offered_idle: false,
            was_used,
            rewrite: None,
        }
    }

    /// What the description says of this m-line.
    fn edit(&self) -> (String, Edit) {
        let edit = match &self.wanted {
            Some(wanted) => Edit::Name {
                stream: wanted.stream_name.clone(),
                track: wanted.track_name.clone(),
            },
            None => Edit::Idle,
        };
        (self.mid.to_string(), edit)
    }
}

/// An encoding that the client will send.
#[derive(Clone, Debug)]
pub(crate) struct Announced {
    pub(crate) track: TrackId,
    pub(crate) encoding: Encoding,
    pub(crate) publication: Publication,
}

/// An encoding whose m-line was found in the client's offer.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) track: TrackId,
    pub(crate) encoding: Encoding,
    pub(crate) mid: Mid,
    pub(crate) codec: Codec,
    pub(crate) rids: Vec<Rid>,
}

/// What came of an offer.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    pub(crate) sdp: String,
    pub(crate) mids: Vec<(String, String)>,
    pub(crate) bound: Vec<Bound>,
    pub(crate) ended: Vec<(TrackId, Encoding)>,
    pub(crate) agreed: Vec<(TrackId, Mid)>,
}

/// One connection.
pub(crate) struct Peer {
    pub(crate) id: ConnectionId,
    pub(crate) role: Role,
    rtc: Rtc,
    /// When the engine wants to be called next.
    pub(crate) deadline: Instant,
    pending_offer: Option<SdpPendingOffer>,
    needs_offer: bool,
    restart_ice: bool,
    wanted: Vec<Wanted>,
    places: Vec<Place>,
    asked_places: bool,
    pub(crate) announced: Vec<Announced>,
    bound: Vec<(Mid, TrackId, Encoding)>,
    lines: Vec<Section>,
    /// Where packets of an SSRC belong.
    pub(crate) sources: Vec<(Ssrc, TrackId, usize)>,
    channels: [Option<ChannelId>; 2],
    backlog: VecDeque<Arc<[u8]>>,
    backlog_bytes: usize,
    /// When a datagram of the client was last accepted.
    pub(crate) heard: Instant,
    pub(crate) is_silent: bool,
    pub(crate) is_connected: bool,
    /// Since when the connection is being set up; `None` until there is a description.
    pub(crate) connecting_since: Option<Instant>,
    pub(crate) addresses: Vec<SocketAddr>,
    /// Of our ICE user names; the current one comes last.
    pub(crate) fragments: Vec<String>,
    /// The turn of the wheel at which it stands.
    pub(crate) turn: Option<u64>,
    pub(crate) addresses_seen: u32,
    pub(crate) sources_seen: u32,
    pub(crate) channels_seen: u32,
    /// What it told to be lost since the last report of its line.
    pub(crate) losses: Losses,
    total_bytes: (u64, u64),
    /// The client takes header extensions in their longer form (RFC 8285 §6).
    takes_two_byte: bool,
    /// What is sent to the client as media.
    pub(crate) outlet: Outlet,
    /// Bits per second of what its line is spent on.
    pub(crate) spent: u64,
    /// How its sound is kept whole.
    pub(crate) redundancy: Redundancy,
    /// When it was last given less than before.
    pub(crate) lowered: Option<Instant>,
    /// Who speaks, of those it hears, by their connection, and when that was last the loudest.
    pub(crate) speaker: Option<(ConnectionId, Instant)>,
    /// Of a [`Role::Relay`].
    pub(crate) relay: Option<Box<Relay>>,
}

impl Peer {
    pub(crate) fn new(
        id: ConnectionId,
        role: Role,
        takes_rsa: bool,
        candidates: &[SocketAddr],
        certificate: Option<DtlsCert>,
        now: Instant,
    ) -> Self {
        let mut extensions = ExtensionMap::standard();
        let dependency =
            Extension::with_serializer(DEPENDENCY_DESCRIPTOR_URI, DependencyDescriptor);
        extensions.set(DEPENDENCY_DESCRIPTOR_ID, dependency);
        let relay = match role {
            Role::Relay(end) => Some(Box::new(Relay::new(end))),
            _ => None,
        };
        let is_caller = role == Role::Relay(End::Lower);
        let mut config = RtcConfig::new();
        if relay.is_some() {
            config.set_max_stun_rto(RELAY_CHECKS);
            config.set_max_stun_retransmits(RELAY_CHECKS_UNANSWERED);
        }
        if let Some(certificate) = certificate {
            config = config.set_dtls_cert(certificate);
        }
        let mut rtc = config
            .set_crypto_provider(crate::tap::crypto(takes_rsa))
            .set_rtp_mode(true)
            .set_ice_lite(!is_caller)
            .clear_codecs()
            .enable_opus(true, true)
            .enable_vp8(true)
            .enable_h264(true)
            .enable_vp9(true)
            .enable_av1(true)
            .set_extension_map(extensions)
            .set_stats_interval(Some(LINE_REPORT_INTERVAL))
            .set_sctp_max_buffered_amount(DATA_BUFFERED_BYTES)
            .build(now);
        for address in candidates {
            if let Ok(candidate) = Candidate::host(*address, "udp") {
                rtc.add_local_candidate(candidate);
            }
        }
        Peer {
            id,
            role,
            rtc,
            deadline: now,
            pending_offer: None,
            needs_offer: role == Role::Subscribe,
            restart_ice: false,
            wanted: Vec::new(),
            places: Vec::new(),
            asked_places: false,
            announced: Vec::new(),
            bound: Vec::new(),
            lines: Vec::new(),
            sources: Vec::new(),
            channels: [None; 2],
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            heard: now,
            is_silent: false,
            is_connected: false,
            connecting_since: None,
            addresses: Vec::new(),
            fragments: Vec::new(),
            turn: None,
            addresses_seen: 0,
            sources_seen: 0,
            channels_seen: 0,
            losses: Losses::default(),
            total_bytes: (0, 0),
            takes_two_byte: relay.is_some(),
            outlet: Outlet::new(now),
            spent: 0,
            redundancy: Redundancy::default(),
            lowered: None,
            speaker: None,
            relay,
        }
    }

    /// The ICE user name fragment by which the client's STUN requests are told from others'.
    pub(crate) fn user_fragment(&mut self) -> String {
        self.rtc.direct_api().local_ice_credentials().ufrag
    }

    pub(crate) fn accepts(&self, input: &Input) -> bool {
        self.rtc.accepts(input)
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.rtc.is_alive()
    }

    /// Gives the engine a datagram or the time. An error means that the engine gave up.
    pub(crate) fn input(&mut self, input: Input) -> Result<(), str0m::RtcError> {
        self.rtc.handle_input(input)
    }

    /// Takes everything out of the engine until it only waits.
    pub(crate) fn drain(
        &mut self,
        now: Instant,
        transmits: &mut VecDeque<Transmit>,
        events: &mut VecDeque<(ConnectionId, RtcEvent)>,
    ) -> Result<(), str0m::RtcError> {
        let outcome = self.drain_engine(now, transmits, events);
        if let Some(keys) = crate::tap::take() {
            self.outlet.set_keys(keys);
        }
        outcome
    }

    fn drain_engine(
        &mut self,
        now: Instant,
        transmits: &mut VecDeque<Transmit>,
        events: &mut VecDeque<(ConnectionId, RtcEvent)>,
    ) -> Result<(), str0m::RtcError> {
        for _ in 0..DRAIN_TURNS {
            let timeout = loop {
                match self.rtc.poll_output()? {
                    Output::Timeout(timeout) => break timeout,
                    Output::Transmit(transmit) => {
                        if self.outlet.may_leave(now, &transmit.contents) {
                            if self.role == Role::Relay(End::Lower)
                                && transmit.contents.first().is_some_and(|first| *first > 3)
                            {
                                // Who calls sends where its engine does, which has chosen the way.
                                let way = (transmit.source, transmit.destination);
                                self.outlet.take_way(way, now);
                            }
                            transmits.push_back(Transmit {
                                source: transmit.source,
                                destination: transmit.destination,
                                contents: transmit.contents.into(),
                            });
                        }
                    }
                    Output::Event(event) => events.push_back((self.id, event)),
                }
            };
            self.deadline = timeout;
            if timeout > now {
                return Ok(());
            }
            self.rtc.handle_input(Input::Timeout(now))?;
        }
        self.deadline = now + Duration::from_millis(1);
        Ok(())
    }

    /// Asks the client for a keyframe of one of its streams; the caller drains. By SSRC, for an
    /// m-line that was published on twice has two streams of each name in the engine's books.
    pub(crate) fn ask_keyframe(&mut self, ssrc: Ssrc) {
        if let Some(stream) = self.rtc.direct_api().stream_rx(&ssrc) {
            stream.request_keyframe(KeyframeRequestKind::Pli);
        }
    }

    /// From now on asks the client again for what is missing of a stream, or not.
    pub(crate) fn ask_again(&mut self, ssrc: Ssrc, asks: bool) {
        if let Some(stream) = self.rtc.direct_api().stream_rx(&ssrc) {
            stream.suppress_nack(!asks);
        }
    }

    /// Which track, m-line and layer an SSRC belongs to, by the engine's books.
    pub(crate) fn find_source(&mut self, ssrc: Ssrc) -> Option<(TrackId, Mid, Option<Rid>)> {
        let mut direct = self.rtc.direct_api();
        let stream = direct.stream_rx(&ssrc)?;
        let (mid, rid) = (stream.mid(), stream.rid());
        self.track_of(mid).map(|track| (track, mid, rid))
    }

    pub(crate) fn track_of(&self, mid: Mid) -> Option<TrackId> {
        self.bound
            .iter()
            .find(|(of, _, _)| *of == mid)
            .map(|(_, track, _)| *track)
    }

    /// The track sent on an m-line.
    pub(crate) fn sent_on(&self, mid: Mid) -> Option<TrackId> {
        let place = self.places.iter().find(|place| place.mid == mid)?;
        place.wanted.as_ref().map(|wanted| wanted.track)
    }

    /// Every track that the client announced.
    pub(crate) fn published(&self) -> Vec<TrackId> {
        self.announced.iter().map(|one| one.track).collect()
    }

    /// Whether the client announced the backup of a track.
    pub(crate) fn has_backup(&self, track: TrackId) -> bool {
        let is_it = |one: &Announced| one.track == track && one.encoding == Encoding::Backup;
        self.announced.iter().any(is_it)
    }

    /// Every track that is sent or shall be.
    pub(crate) fn subscribed(&self) -> Vec<TrackId> {
        let placed = self.places.iter().filter_map(|place| place.wanted.as_ref());
        let all = placed.chain(&self.wanted);
        all.map(|wanted| wanted.track).collect()
    }

    /// Every track that is sent on an agreed m-line.
    pub(crate) fn sent(&self) -> impl Iterator<Item = TrackId> {
        let placed = self.places.iter().filter_map(|place| place.wanted.as_ref());
        placed.map(|wanted| wanted.track)
    }

    /// Notes whose voice is the loudest of those that the client hears; a speaker stays one for a
    /// while.
    pub(crate) fn heard_speaking(
        &mut self,
        loudest: Option<(u8, ConnectionId)>,
        stays: Duration,
        now: Instant,
    ) {
        let Some((_, owner)) = loudest else {
            return;
        };
        let is_free = self.speaker.is_none_or(|(speaker, at)| {
            speaker == owner || now.saturating_duration_since(at) >= stays
        });
        if is_free {
            self.speaker = Some((owner, now));
        }
    }

    /// The parameters agreed for an m-line, in our order.
    fn agreed_params(&self, mid: Mid) -> Vec<PayloadParams> {
        let Some(media) = self.rtc.media(mid) else {
            return Vec::new();
        };
        let agreed = media.remote_pts();
        self.rtc
            .codec_config()
            .params()
            .iter()
            .filter(|params| self.relay.is_some() || agreed.contains(&params.pt()))
            .copied()
            .collect()
    }

    /// What the client takes on an m-line.
    pub(crate) fn takes(&self, mid: Mid) -> Codecs {
        self.agreed_params(mid)
            .iter()
            .filter_map(codec_of)
            .collect()
    }

    /// The parameters behind a payload type that the client sends, and whether it is RED.
    pub(crate) fn received_as(&self, payload_type: Pt) -> Option<(PayloadParams, bool)> {
        self.rtc.codec_config().params().iter().find_map(|params| {
            if params.pt() == payload_type {
                Some((*params, false))
            } else if params.red() == Some(payload_type) {
                Some((*params, true))
            } else {
                None
            }
        })
    }

    /// How what comes with a payload type, of the parameters `source`, is sent on our m-line; what may
    /// not come as RED is not made to either.
    pub(crate) fn send_as(
        &self,
        mid: Mid,
        payload_type: Pt,
        source: &PayloadParams,
        is_red: bool,
        is_red_allowed: bool,
    ) -> Mapped {
        let params = self.agreed_params(mid);
        let of_codec = || {
            params
                .iter()
                .filter(|params| params.spec().codec == source.spec().codec)
        };
        let same_mode = |params: &&PayloadParams| {
            params.spec().format.packetization_mode == source.spec().format.packetization_mode
        };
        let found = of_codec()
            .find(|params| params.spec() == source.spec())
            .or_else(|| of_codec().find(same_mode))
            .or_else(|| of_codec().next());
        let red = found.and_then(|found| Some((found.red()?, found.pt())));
        Mapped {
            source: payload_type,
            target: match red {
                Some((red, _)) if is_red => Some(red),
                _ => found.map(|found| found.pt()),
            },
            unwrap_red: is_red && red.is_none(),
            red: red.filter(|_| is_red_allowed),
        }
    }

    /// Wants to send a track. Returns at once; the m-line comes with a negotiation.
    pub(crate) fn want(&mut self, wanted: Wanted) {
        self.wanted.push(wanted);
        self.needs_offer = true;
    }

    /// No longer sends a track.
    pub(crate) fn unwant(&mut self, track: TrackId) {
        if self.relay.is_some() {
            self.stop_offering(track);
            return;
        }
        self.wanted.retain(|wanted| wanted.track != track);
        for place in &mut self.places {
            if place
                .wanted
                .as_ref()
                .is_some_and(|wanted| wanted.track == track)
            {
                place.wanted = None;
                place.is_idle = false;
                self.needs_offer = true;
            }
        }
    }

    /// A place of a [`Role::View`].
    pub(crate) fn view_place(&mut self, mid: Mid) -> Option<&mut Place> {
        if self.role != Role::View {
            return None;
        }
        self.places.iter_mut().find(|place| place.mid == mid)
    }

    /// What stands in the places of a [`Role::View`].
    pub(crate) fn placed(&self) -> Vec<(TrackId, Mid)> {
        if self.role != Role::View {
            return Vec::new();
        }
        let track = |place: &Place| Some((place.wanted.as_ref()?.track, place.mid));
        self.places.iter().filter_map(track).collect()
    }

    /// Keeps the numbers of what was sent on an m-line, where they go on.
    pub(crate) fn keep_numbers(&mut self, mid: Mid, rewrite: Rewrite) {
        if let Some(place) = self.view_place(mid) {
            place.rewrite = Some(rewrite);
        }
    }

    pub(crate) fn restart_ice(&mut self) {
        self.restart_ice = true;
        self.needs_offer = true;
    }

    /// How many more places the client must bring; also `Some((0, 0))` when it only needs to
    /// negotiate again. `None` when nothing is to be asked now.
    pub(crate) fn places_needed(&mut self) -> Option<(u32, u32)> {
        if self.role != Role::Single
            || !self.needs_offer
            || self.asked_places
            || self.connecting_since.is_none()
        {
            return None;
        }
        self.needs_offer = false;
        self.asked_places = true;
        let missing = |kind| {
            let wanted = self
                .wanted
                .iter()
                .filter(|wanted| wanted.kind == kind)
                .count();
            let free = self
                .places
                .iter()
                .filter(|place| place.kind == kind && place.wanted.is_none() && place.is_idle)
                .count();
            wanted.saturating_sub(free) as u32
        };
        Some((missing(TrackKind::Audio), missing(TrackKind::Video)))
    }

    /// Our next offer, where one is due and none is under way.
    pub(crate) fn make_offer(&mut self) -> Option<String> {
        if self.role != Role::Subscribe || !self.needs_offer || self.pending_offer.is_some() {
            return None;
        }
        self.needs_offer = false;
        let is_first = self.connecting_since.is_none();
        let reused = self.give_idle_places();
        self.lend_streams();
        let mut api = self.rtc.sdp_api();
        for mid in reused {
            api.set_direction(mid, Direction::SendOnly);
        }
        if is_first {
            api.add_channel_with_config(ChannelConfig {
                label: "_reliable".into(),
                ..Default::default()
            });
            api.add_channel_with_config(ChannelConfig {
                label: "_lossy".into(),
                ordered: false,
                reliability: Reliability::MaxRetransmits { retransmits: 0 },
                ..Default::default()
            });
        }
        if std::mem::take(&mut self.restart_ice) && !is_first {
            api.ice_restart(true);
        }
        for place in &mut self.places {
            place.is_offered_idle = place.wanted.is_none();
            if place.is_offered_idle {
                api.set_direction(place.mid, Direction::Inactive);
            }
        }
        for wanted in self.wanted.drain(..) {
            let mid = api.add_media(
                media_kind(wanted.kind),
                Direction::SendOnly,
                Some(wanted.stream_name.clone()),
                Some(wanted.track_name.clone()),
                None,
            );
            self.places.push(Place::new(mid, wanted.kind, Some(wanted)));
        }
        let applied = api.apply();
        let edits: Vec<_> = self.places.iter().map(Place::edit).collect();
        self.take_streams(&edits);
        let (offer, pending) = applied?;
        self.pending_offer = Some(pending);
        Some(sdp::edit(&offer.to_sdp_string(), &edits))
    }

    /// Takes the client's answer. Returns the tracks whose m-lines are agreed now.
    pub(crate) fn accept_answer(
        &mut self,
        sdp: &str,
        now: Instant,
    ) -> Result<Vec<(TrackId, Mid)>, String> {
        sdp::check_size(sdp)?;
        self.takes_two_byte = sdp.contains(ALLOW_MIXED);
        let answer = SdpAnswer::from_sdp_string(&sdp::without_candidates(sdp))
            .map_err(|error| error.to_string())?;
        let pending = self
            .pending_offer
            .take()
            .ok_or("there is no offer to answer")?;
        self.connecting_since.get_or_insert(now);
        self.lend_streams();
        let accepted = self.rtc.sdp_api().accept_answer(pending, answer);
        let edits: Vec<_> = self.places.iter().map(Place::edit).collect();
        self.take_streams(&edits);
        if let Err(error) = accepted {
            self.needs_offer = true;
            return Err(error.to_string());
        }
        let mut agreed = Vec::new();
        for place in &mut self.places {
            place.is_idle = std::mem::take(&mut place.is_offered_idle);
            if let (false, Some(wanted)) = (place.is_agreed, &place.wanted) {
                place.is_agreed = true;
                agreed.push((wanted.track, place.mid));
            }
        }
        Ok(agreed)
    }

    /// Takes the client's offer and makes the answer.
    pub(crate) fn accept_offer(&mut self, sdp: &str, now: Instant) -> Result<Answered, String> {
        sdp::check_size(sdp)?;
        sdp::check_kinds(sdp)?;
        self.takes_two_byte = sdp.contains(ALLOW_MIXED);
        let offer = SdpOffer::from_sdp_string(&sdp::without_candidates(sdp))
            .map_err(|error| error.to_string())?;
        let lines = sdp::sections(sdp);
        self.give_idle_places();
        self.lend_streams();
        let answer = self.rtc.sdp_api().accept_offer(offer);
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.take_streams(&[]);
                return Err(error.to_string());
            }
        };
        self.connecting_since.get_or_insert(now);
        self.asked_places = false;
        self.lines = lines;
        let mut answered = Answered::default();
        let mut edits = Vec::new();
        self.unbind_stopped(&mut answered);
        self.bind_announced(&mut answered, &mut edits);
        if self.role == Role::Single {
            self.take_new_places();
            self.name_places(&mut answered, &mut edits);
            self.needs_offer |= !self.wanted.is_empty();
        } else if self.role == Role::View {
            self.take_new_places();
            self.pair_places(&mut edits);
        }
        self.take_streams(&edits);
        answered.sdp = sdp::edit(&answer.to_sdp_string(), &edits);
        Ok(answered)
    }

    /// Lends our streams to the engine, so that its descriptions say of them what a client must
    /// know. Until [`Peer::take_streams`] it must be given nothing and asked for nothing.
    fn lend_streams(&mut self) {
        for (mid, ssrc, rtx) in self.outlet.lent().collect::<Vec<_>>() {
            if self.rtc.media(mid).is_some() {
                self.rtc.direct_api().declare_stream_tx(
                    ssrc.into(),
                    rtx.map(Into::into),
                    mid,
                    None,
                );
            }
        }
    }

    /// Takes our streams back, and with them those that the engine made for new m-lines. Reports name
    /// them as the edited description does.
    fn take_streams(&mut self, edits: &[(String, Edit)]) {
        let lent: Vec<u32> = self.outlet.lent().map(|(_, ssrc, _)| ssrc).collect();
        for mid in self
            .places
            .iter()
            .map(|place| place.mid)
            .collect::<Vec<_>>()
        {
            let Some(mut agreed) = self.agreed(mid) else {
                continue;
            };
            let edit = edits.iter().find(|(of, _)| Mid::from(of.as_str()) == mid);
            if let Some((_, Edit::Name { stream, .. })) = edit {
                sdp::cname(stream).clone_into(&mut agreed.cname);
            }
            let mut direct = self.rtc.direct_api();
            let stream = direct
                .stream_tx_by_mid(mid, None)
                .map(|stream| (stream.ssrc(), stream.rtx()));
            if let Some((ssrc, rtx)) = stream {
                direct.remove_stream_tx(ssrc);
                self.outlet.adopt(mid, *ssrc, rtx.map(|rtx| *rtx), agreed);
            }
        }
        for ssrc in lent {
            self.rtc.direct_api().remove_stream_tx(ssrc.into());
        }
    }

    fn agreed(&self, mid: Mid) -> Option<Agreed> {
        let media = self.rtc.media(mid)?;
        let extensions = media.remote_extmap();
        let dependency =
            Extension::with_serializer(DEPENDENCY_DESCRIPTOR_URI, DependencyDescriptor);
        let repair_types = self
            .agreed_params(mid)
            .iter()
            .filter_map(|params| Some((*params.pt(), *params.resend()?)))
            .collect();
        Some(Agreed {
            extensions: ExtensionIds {
                mid: extensions.id_of(Extension::RtpMid),
                transport: extensions.id_of(Extension::TransportSequenceNumber),
                audio_level: extensions.id_of(Extension::AudioLevel),
                orientation: extensions.id_of(Extension::VideoOrientation),
                dependency: extensions.id_of(dependency),
            },
            repair_types,
            two_byte: self.takes_two_byte,
            cname: media.cname().to_owned(),
        })
    }

    /// Whether the client publishes anything.
    pub(crate) fn is_publishing(&self) -> bool {
        !self.bound.is_empty()
    }

    /// Binds a track announced after the offer that brought its m-line.
    pub(crate) fn bind_late(&mut self) -> Vec<Bound> {
        let mut answered = Answered::default();
        self.bind_announced(&mut answered, &mut Vec::new());
        answered.bound
    }

    /// Gives idle places to tracks that wait for one; returns which.
    fn give_idle_places(&mut self) -> Vec<Mid> {
        let mut given = Vec::new();
        for place in &mut self.places {
            if place.wanted.is_some() || !place.is_idle {
                continue;
            }
            let Some(at) = self
                .wanted
                .iter()
                .position(|wanted| wanted.kind == place.kind)
            else {
                continue;
            };
            place.wanted = Some(self.wanted.remove(at));
            place.is_idle = false;
            place.is_agreed = false;
            if place.was_used {
                let direct = self.rtc.direct_api();
                self.outlet
                    .renew(place.mid, *direct.new_ssrc(), *direct.new_ssrc());
            }
            place.was_used = true;
            given.push(place.mid);
        }
        given
    }

    fn take_new_places(&mut self) {
        for line in &self.lines {
            let mid: Mid = line.mid.as_str().into();
            let is_place = (line.is_audio || line.is_video)
                && line.is_receiving
                && !line.is_sending
                && !line.is_stopped;
            if !is_place || self.places.iter().any(|place| place.mid == mid) {
                continue;
            }
            let kind = if line.is_audio {
                TrackKind::Audio
            } else {
                TrackKind::Video
            };
            let at = self.wanted.iter().position(|wanted| wanted.kind == kind);
            let wanted = at.map(|at| self.wanted.remove(at));
            self.places.push(Place::new(mid, kind, wanted));
        }
    }

    fn name_places(&mut self, answered: &mut Answered, edits: &mut Vec<(String, Edit)>) {
        for place in &mut self.places {
            edits.push(place.edit());
            let Some(wanted) = &place.wanted else {
                place.is_idle = true;
                continue;
            };
            answered
                .mids
                .push((place.mid.to_string(), wanted.track_name.clone()));
            if !place.is_agreed {
                place.is_agreed = true;
                answered.agreed.push((wanted.track, place.mid));
            }
        }
    }

    /// Names the places of a [`Role::View`] for good, whatever will be sent in them.
    fn pair_places(&self, edits: &mut Vec<(String, Edit)>) {
        for (kind, name) in [(TrackKind::Audio, "audio"), (TrackKind::Video, "video")] {
            let of_kind = self.places.iter().filter(|place| place.kind == kind);
            edits.extend(of_kind.enumerate().map(|(pair, place)| {
                let stream = format!("view-{pair}");
                let track = format!("view-{pair}-{name}");
                (place.mid.to_string(), Edit::Name { stream, track })
            }));
        }
    }

    fn unbind_stopped(&mut self, answered: &mut Answered) {
        let lines = &self.lines;
        self.bound.retain(|(mid, track, encoding)| {
            let line = lines
                .iter()
                .find(|line| Mid::from(line.mid.as_str()) == *mid);
            let goes_on = line.is_some_and(|line| line.is_sending && !line.is_stopped);
            if !goes_on {
                answered.ended.push((*track, *encoding));
            }
            goes_on
        });
    }

    fn bind_announced(&mut self, answered: &mut Answered, edits: &mut Vec<(String, Edit)>) {
        for line in self.lines.clone() {
            if !(line.is_audio || line.is_video) || !line.is_sending || line.is_stopped {
                continue;
            }
            let mid = Mid::from(line.mid.as_str());
            let bound = self.bound.iter().find(|(of, _, _)| *of == mid);
            let bound = bound.map(|(_, track, encoding)| (*track, *encoding));
            let kind = if line.is_audio {
                TrackKind::Audio
            } else {
                TrackKind::Video
            };
            let is_on_line = |one: &&Announced| match bound {
                Some(bound) => bound == (one.track, one.encoding),
                None => {
                    one.publication.kind == kind
                        && Some(&one.publication.cid) == line.track_name.as_ref()
                        && !self
                            .bound
                            .iter()
                            .any(|(_, track, of)| (*track, *of) == (one.track, one.encoding))
                }
            };
            let Some(announced) = self.announced.iter().find(is_on_line).cloned() else {
                continue;
            };
            let Announced {
                track,
                encoding,
                publication,
            } = announced;
            let params = self.agreed_params(mid);
            let (order, codec) = codec_order(&params, &publication);
            edits.push((line.mid.clone(), Edit::Prefer(order)));
            let Some(codec) = codec else { continue };
            if bound.is_none() {
                self.bound.push((mid, track, encoding));
                let rids = line
                    .rids
                    .iter()
                    .map(|rid| Rid::from(rid.as_str()))
                    .collect();
                answered.bound.push(Bound {
                    track,
                    encoding,
                    mid,
                    codec,
                    rids,
                });
            }
        }
    }

    /// What the other end of a line between nodes must know.
    pub(crate) fn relay_end(&mut self, addresses: &[SocketAddr]) -> RelayEnd {
        let direct = self.rtc.direct_api();
        let ours = direct.local_ice_credentials();
        RelayEnd {
            user: ours.ufrag,
            password: ours.pass,
            fingerprint: direct.local_dtls_fingerprint().to_string(),
            addresses: addresses.to_vec(),
        }
    }

    /// Joins the line to its other end.
    pub(crate) fn join(&mut self, other: &RelayEnd, now: Instant) -> Result<(), String> {
        let Some(end) = self.relay.as_ref().map(|relay| relay.end) else {
            return Err("not a line between nodes".into());
        };
        if self.connecting_since.is_some() {
            return Err("the line is joined already".into());
        }
        if !other.is_sound() {
            return Err("what the other end of the line told can't be right".into());
        }
        let fingerprint: Fingerprint = other.fingerprint.parse()?;
        let is_caller = end == End::Lower;
        if is_caller {
            for address in &other.addresses {
                let candidate = Candidate::host(*address, "udp");
                self.rtc
                    .add_remote_candidate(candidate.map_err(|error| error.to_string())?);
            }
        }
        self.connecting_since = Some(now);
        let mut direct = self.rtc.direct_api();
        direct.set_remote_ice_credentials(IceCreds {
            ufrag: other.user.clone(),
            pass: other.password.clone(),
        });
        direct.set_ice_controlling(is_caller);
        direct.set_remote_fingerprint(fingerprint);
        direct
            .start_dtls(is_caller)
            .map_err(|error| error.to_string())?;
        direct.start_sctp(is_caller);
        direct.enable_twcc_feedback();
        direct.create_data_channel(ChannelConfig {
            label: relay::LABEL.into(),
            negotiated: Some(relay::CHANNEL),
            ..Default::default()
        });
        Ok(())
    }

    /// A check came from `source` to the upper end of a line. The engine keeps to the way that was, while
    /// it still counts on it; after a change of the lower end's address for fifteen seconds. It can only
    /// be told of candidates that it was given.
    pub(crate) fn checked_from(&mut self, source: SocketAddr, now: Instant) {
        if self.role != Role::Relay(End::Upper) {
            return;
        }
        let candidate = |address| Candidate::host(address, "udp").ok();
        if !self.addresses.contains(&source)
            && let Some(new) = candidate(source)
        {
            self.rtc.add_remote_candidate(new);
        }
        let silent = self.outlet.silent_way(now).filter(|old| *old != source);
        if let Some(old) = silent.and_then(candidate) {
            self.rtc.direct_api().invalidate_candidate(&old);
        }
    }

    /// Says something to the other end of the line; what is said before it is open waits. `false`: it
    /// has not read so much that it must go.
    pub(crate) fn say(&mut self, word: &Word) -> bool {
        self.send_data(Channel::Reliable, &word.write().into())
    }

    /// Under which name a track is taken from the line.
    fn name_taken(&self, track: TrackId) -> Option<String> {
        let mut taken = self.relay.as_ref()?.taken.iter();
        let named = taken.find(|(_, of)| **of == track);
        named.map(|(name, _)| name.clone())
    }

    /// Says what is wanted of a track that is taken from the line.
    pub(crate) fn say_wanted(&mut self, track: TrackId, quality: Option<Quality>) {
        if let Some(name) = self.name_taken(track) {
            let quality = quality.map(Into::into);
            self.say(&Word::Want { name, quality });
        }
    }

    /// Makes a stream for a track that was wanted ([`Peer::want`]); returns its m-line and what is to
    /// be said of it.
    pub(crate) fn offer_stream(
        &mut self,
        track: TrackId,
        codec: Codec,
        publication: &Publication,
    ) -> Option<(Mid, Word)> {
        let at = self
            .wanted
            .iter()
            .position(|wanted| wanted.track == track)?;
        let (mid, ssrc, rtx) = self.relay.as_mut()?.number();
        let wanted = self.wanted.remove(at);
        let is_video = wanted.kind == TrackKind::Video;
        let rtx = is_video.then_some(rtx);
        let stream = Stream {
            name: wanted.track_name.clone(),
            mid: mid.to_string(),
            ssrc,
            rtx,
            is_video,
            codec: codec.mime_type().into(),
            is_screen: publication.is_screen,
            is_red_allowed: publication.is_red_allowed,
        };
        self.rtc
            .direct_api()
            .declare_media(mid, media_kind(wanted.kind));
        let agreed = Agreed {
            cname: relay::LABEL.into(),
            ..self.agreed(mid)?
        };
        self.outlet.adopt(mid, ssrc, rtx, agreed);
        self.places.push(Place {
            is_agreed: true,
            ..Place::new(mid, wanted.kind, Some(wanted))
        });
        Some((mid, Word::Offer(stream)))
    }

    /// Ends the stream of a track on the line.
    fn stop_offering(&mut self, track: TrackId) {
        self.wanted.retain(|wanted| wanted.track != track);
        let is_it = |place: &Place| {
            let wanted = place.wanted.as_ref();
            wanted.is_some_and(|wanted| wanted.track == track)
        };
        let Some(at) = self.places.iter().position(is_it) else {
            return;
        };
        let place = self.places.remove(at);
        self.outlet.stop(place.mid);
        self.rtc.direct_api().remove_media(place.mid);
        if let Some(wanted) = place.wanted {
            self.say(&Word::End {
                name: wanted.track_name,
            });
        }
    }

    /// The track that is sent on the line under a name.
    pub(crate) fn offered_as(&self, name: &str) -> Option<TrackId> {
        let placed = self.places.iter().filter_map(|place| place.wanted.as_ref());
        let mut named = placed.filter(|wanted| wanted.track_name == name);
        named.next().map(|wanted| wanted.track)
    }

    /// Takes what the other end offers under a name, where a track of that name is to be taken and is of
    /// that kind; returns the track and the stream.
    pub(crate) fn take_stream(&mut self, name: &str, kind: TrackKind) -> Option<(TrackId, Stream)> {
        let relay = self.relay.as_ref()?;
        let track = *relay.taken.get(name)?;
        let stream = relay.offered.get(name)?.clone();
        let mid = Mid::from(stream.mid.as_str());
        if stream.kind() != kind || self.rtc.media(mid).is_some() {
            return None;
        }
        let mut direct = self.rtc.direct_api();
        direct.declare_media(mid, media_kind(kind));
        direct.expect_stream_rx(stream.ssrc.into(), stream.rtx.map(Into::into), mid, None);
        self.bound.push((mid, track, Encoding::Primary));
        Some((track, stream))
    }

    /// Lets go of the stream that is taken under a name.
    pub(crate) fn drop_stream(&mut self, stream: &Stream) {
        let mid = Mid::from(stream.mid.as_str());
        if self.rtc.media(mid).is_some() {
            self.rtc.direct_api().remove_media(mid);
        }
        self.bound.retain(|(of, _, _)| *of != mid);
        self.sources.retain(|(of, _, _)| **of != stream.ssrc);
    }

    /// No longer takes a track from the line.
    fn stop_taking(&mut self, track: TrackId) {
        let (Some(name), Some(relay)) = (self.name_taken(track), &mut self.relay) else {
            return;
        };
        relay.taken.remove(&name);
        if let Some(stream) = relay.offered.get(&name).cloned() {
            self.drop_stream(&stream);
            self.say(&Word::Want {
                name,
                quality: None,
            });
        }
    }

    /// Forgets a track that this client published.
    pub(crate) fn forget_track(&mut self, track: TrackId) {
        self.stop_taking(track);
        self.announced.retain(|one| one.track != track);
        self.bound.retain(|(_, of, _)| *of != track);
        self.sources.retain(|(_, of, _)| *of != track);
    }

    /// Forgets a track's backup, of which its layers from `first` on were.
    pub(crate) fn forget_backup(&mut self, track: TrackId, first: usize) {
        self.announced
            .retain(|one| one.track != track || one.encoding == Encoding::Primary);
        self.bound
            .retain(|(_, of, encoding)| *of != track || *encoding == Encoding::Primary);
        self.sources
            .retain(|(_, of, layer)| *of != track || *layer < first);
    }

    /// A data channel opened under a label; other labels are not ours.
    pub(crate) fn channel_opened(&mut self, id: ChannelId, label: &str) -> Option<Channel> {
        let channel = match label {
            "_reliable" => Channel::Reliable,
            "_lossy" => Channel::Lossy,
            relay::LABEL if self.relay.is_some() => Channel::Reliable,
            _ => return None,
        };
        self.channels[channel as usize] = Some(id);
        if let Some(mut open) = self.rtc.channel(id) {
            open.set_buffered_amount_low_threshold(DATA_BUFFERED_BYTES / 4);
        }
        Some(channel)
    }

    pub(crate) fn channel_of(&self, id: ChannelId) -> Option<Channel> {
        [Channel::Reliable, Channel::Lossy]
            .into_iter()
            .find(|channel| self.channels[*channel as usize] == Some(id))
    }

    /// Queues a message. `false`: the client has not read so much that it must go.
    pub(crate) fn send_data(&mut self, channel: Channel, payload: &Arc<[u8]>) -> bool {
        match channel {
            Channel::Lossy => {
                if let Some(mut open) =
                    self.channels[channel as usize].and_then(|id| self.rtc.channel(id))
                {
                    // A full buffer loses this message; that is what the channel is for.
                    let _ = open.write(true, payload);
                }
                true
            }
            Channel::Reliable => {
                self.backlog_bytes += payload.len();
                self.backlog.push_back(payload.clone());
                self.flush_data();
                self.backlog_bytes <= DATA_BACKLOG_BYTES
            }
        }
    }

    /// Writes what waits for room in the reliable channel.
    pub(crate) fn flush_data(&mut self) {
        let Some(id) = self.channels[Channel::Reliable as usize] else {
            return;
        };
        while let Some(message) = self.backlog.front() {
            let Some(mut open) = self.rtc.channel(id) else {
                return;
            };
            match open.write(true, message) {
                Ok(true) => {
                    self.backlog_bytes -= message.len();
                    self.backlog.pop_front();
                }
                Ok(false) => return,
                Err(_) => {
                    // Too long for the client's channel: this message only.
                    self.backlog_bytes -= message.len();
                    self.backlog.pop_front();
                }
            }
        }
    }

    /// Completes the line report from the engine's statistics and hands it out.
    pub(crate) fn report_line(&mut self, stats: &str0m::stats::PeerStats) -> LineReport {
        let mut report = LineReport {
            loss_up: stats.ingress_loss_fraction,
            ..LineReport::default()
        };
        let losses = std::mem::take(&mut self.losses);
        report.loss_down = losses.share().or(stats.egress_loss_fraction);
        report.round_trip = self.outlet.round_trip().or(stats.rtt);
        report.bytes_up = stats.peer_bytes_rx.saturating_sub(self.total_bytes.0);
        let bytes_down = stats.peer_bytes_tx + self.outlet.sent_bytes();
        report.bytes_down = bytes_down.saturating_sub(self.total_bytes.1);
        self.total_bytes = (stats.peer_bytes_rx, bytes_down);
        let estimate = &self.outlet.estimate;
        report.available_down = match estimate.budget(self.heard) {
            Budget::Bits(bits) => Some(bits),
            Budget::Unknown | Budget::Unlimited => None,
        };
        report.queue_down = estimate.queue();
        report
    }

    /// Says goodbye to the client; the caller drains and forgets.
    pub(crate) fn close(&mut self) {
        let _ = self.rtc.close();
    }
}

fn media_kind(kind: TrackKind) -> MediaKind {
    match kind {
        TrackKind::Audio => MediaKind::Audio,
        TrackKind::Video => MediaKind::Video,
    }
}

/// The payload types of an answer's m-line in the order that makes the client send what it
/// announced, and the codec that then comes first.
fn codec_order(params: &[PayloadParams], publication: &Publication) -> (Vec<u8>, Option<Codec>) {
    let known = |params: &PayloadParams| codec_of(params);
    let first = publication
        .codecs
        .iter()
        .copied()
        .find(|codec| params.iter().any(|params| known(params) == Some(*codec)))
        .or_else(|| params.iter().find_map(known));
    let mut order = Vec::new();
    for params in params.iter().filter(|params| known(params) == first) {
        let red = params.red().filter(|_| publication.is_red_allowed);
        order.extend(red.map(|pt| *pt));
        order.push(*params.pt());
        order.extend(params.resend().map(|pt| *pt));
    }
    (order, first)
}

/// The codec of agreed parameters.
pub(crate) fn codec_of(params: &PayloadParams) -> Option<Codec> {
    match params.spec().codec {
        str0m::format::Codec::Opus => Some(Codec::Opus),
        str0m::format::Codec::Vp8 => Some(Codec::Vp8),
        str0m::format::Codec::Vp9 => Some(Codec::Vp9),
        str0m::format::Codec::H264 => Some(Codec::H264),
        str0m::format::Codec::Av1 => Some(Codec::Av1),
        _ => None,
    }
}

/// RFC 8285 §6.
const ALLOW_MIXED: &str = "a=extmap-allow-mixed";

const DEPENDENCY_DESCRIPTOR_URI: &str =
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";

/// The local id of the dependency descriptor, free in [`ExtensionMap::standard`].
const DEPENDENCY_DESCRIPTOR_ID: u8 = 9;

/// AV1's dependency descriptor, passed on as it came.
#[derive(Debug)]
struct DependencyDescriptor;

/// The descriptor's bytes among a packet's extension values.
struct DependencyBytes(Vec<u8>);

impl DependencyBytes {
    fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

impl ExtensionSerializer for DependencyDescriptor {
    fn write_to(&self, buf: &mut [u8], values: &ExtensionValues) -> usize {
        match values.user_values.get::<DependencyBytes>() {
            Some(bytes) if bytes.0.len() <= buf.len() => {
                buf[..bytes.0.len()].copy_from_slice(&bytes.0);
                bytes.0.len()
            }
            _ => 0,
        }
    }

    fn parse_value(&self, buf: &[u8], values: &mut ExtensionValues) -> bool {
        values.user_values.set(DependencyBytes(buf.to_vec()));
        true
    }

    fn is_video(&self) -> bool {
        true
    }

    fn is_audio(&self) -> bool {
        false
    }

    fn requires_two_byte_form(&self, values: &ExtensionValues) -> bool {
        values
            .user_values
            .get::<DependencyBytes>()
            .is_some_and(|bytes| bytes.0.len() > 16)
    }
}

/// Puts a dependency descriptor among a packet's extension values, as one that came.
#[cfg(test)]
pub(crate) fn describe(values: &mut ExtensionValues, descriptor: Vec<u8>) {
    values.user_values.set(DependencyBytes(descriptor));
}

/// The dependency descriptor of a received packet.
#[inline]
pub(crate) fn dependency_descriptor(received: &ExtensionValues) -> Option<&[u8]> {
    let descriptor = received.user_values.get::<DependencyBytes>();
    descriptor.map(DependencyBytes::as_slice)
}

/// The extensions of a received packet that go on to subscribers.
pub(crate) fn passed_on(received: &ExtensionValues) -> ExtensionValues {
    let mut passed = ExtensionValues {
        audio_level: received.audio_level,
        voice_activity: received.voice_activity,
        video_orientation: received.video_orientation,
        ..ExtensionValues::default()
    };
    if let Some(descriptor) = received.user_values.get_arc::<DependencyBytes>() {
        passed.user_values.set_arc(descriptor);
    }
    passed
}
