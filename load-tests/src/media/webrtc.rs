//! One peer connection of a client, by str0m in RTP mode.
//!
//! Every change of the engine is followed by [`WebRtc::drain`]; that is str0m's contract.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::crypto::dtls::DtlsCert;
use str0m::format::Codec as Format;
use str0m::media::{Direction, KeyframeRequestKind, MediaKind, Mid, Pt};
use str0m::net::{DatagramRecv, Protocol, Receive};
use str0m::rtp::{ExtensionValues, RtpWrite, Ssrc};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};

use super::{Line, profile};
use crate::scenario::Codec;
use crate::source::{Packet, SourceId, SourcePlan};

/// Packets kept per sent stream to answer NACKs: over a second of 4 Mbit/s.
const REPAIR_PACKETS: usize = 512;

/// A packet older than this is not sent again.
const REPAIR_AGE: Duration = Duration::from_secs(2);

/// Share of what is sent that may be repeated.
const REPAIR_SHARE: f32 = 0.5;

/// Loudness told with audio, in dBov: somebody who speaks.
const LOUDNESS: i8 = -20;

/// How often a connection that is being set up is given the time, whatever the engine says: str0m
/// 0.25 may name no deadline when it learns its remote candidates after its first timeout.
const SETTING_UP_TICK: Duration = Duration::from_millis(20);

/// The LiveKit protocol's name of a channel for messages that all arrive.
const CHANNEL: &str = "_reliable";

/// What came out of a connection.
pub(crate) enum Happened {
    /// It is up: ICE and DTLS are done.
    Connected,
    /// It is down.
    Closed,
    /// A packet.
    Packet(Received),
    /// The server wants a keyframe of a source.
    KeyframeWanted(SourceId),
}

/// A packet that came, by its stream's numbers.
pub(crate) struct Received {
    pub(crate) ssrc: Ssrc,
    /// With its roll-overs.
    pub(crate) sequence: u64,
    pub(crate) timestamp: u32,
    pub(crate) payload: std::sync::Arc<[u8]>,
}

struct Sending {
    mid: Mid,
    plan: SourcePlan,
    payload_type: Option<Pt>,
}

pub(crate) struct WebRtc {
    rtc: Rtc,
    local: SocketAddr,
    pub(crate) deadline: Instant,
    is_connected: bool,
    pending: Option<SdpPendingOffer>,
    sending: Vec<Sending>,
    outgoing: VecDeque<(SocketAddr, Vec<u8>)>,
    happened: VecDeque<Happened>,
}

impl WebRtc {
    pub(crate) fn new(
        local: SocketAddr,
        codecs: &[Codec],
        certificate: &DtlsCert,
        now: Instant,
    ) -> Result<WebRtc> {
        let mut rtc = RtcConfig::new()
            .set_crypto_provider(profile::crypto())
            .set_dtls_cert(certificate.clone())
            .set_rtp_mode(true)
            .clear_codecs()
            .enable_opus(true, false)
            .enable_vp8(codecs.contains(&Codec::Vp8))
            .enable_h264(codecs.contains(&Codec::H264))
            .build(now);
        rtc.add_local_candidate(Candidate::host(local, "udp")?);
        Ok(WebRtc {
            rtc,
            local,
            deadline: now,
            is_connected: false,
            pending: None,
            sending: Vec::new(),
            outgoing: VecDeque::new(),
            happened: VecDeque::new(),
        })
    }

    /// Adds m-lines and makes an offer.
    pub(crate) fn offer(&mut self, lines: &[Line], now: Instant) -> Result<String> {
        let mut api = self.rtc.sdp_api();
        for line in lines {
            match line {
                Line::Send { plan, track } => {
                    let kind = match plan.codec {
                        Codec::Opus => MediaKind::Audio,
                        _ => MediaKind::Video,
                    };
                    let mid = api.add_media(
                        kind,
                        Direction::SendOnly,
                        Some("load".into()),
                        Some(track.clone()),
                        None,
                    );
                    self.sending.push(Sending {
                        mid,
                        plan: *plan,
                        payload_type: None,
                    });
                }
                Line::ReceiveAudio => {
                    api.add_media(MediaKind::Audio, Direction::RecvOnly, None, None, None);
                }
                Line::Channel => {
                    api.add_channel(CHANNEL.into());
                }
                Line::ReceiveVideo => {
                    api.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
                }
            }
        }
        let (offer, pending) = api.apply().context("nothing to offer")?;
        self.pending = Some(pending);
        self.drain(now)?;
        Ok(offer.to_sdp_string())
    }

    pub(crate) fn accept_answer(&mut self, sdp: &str, now: Instant) -> Result<()> {
        let answer = SdpAnswer::from_sdp_string(sdp).context("the server's answer")?;
        let Some(pending) = self.pending.take() else {
            bail!("the server answered without an offer");
        };
        self.rtc
            .sdp_api()
            .accept_answer(pending, answer)
            .context("the server's answer")?;
        self.drain(now)
    }

    pub(crate) fn accept_offer(&mut self, sdp: &str, now: Instant) -> Result<String> {
        let offer = SdpOffer::from_sdp_string(sdp).context("the server's offer")?;
        let answer = self
            .rtc
            .sdp_api()
            .accept_offer(offer)
            .context("the server's offer")?;
        self.drain(now)?;
        Ok(answer.to_sdp_string())
    }

    /// Candidates that can't be read or reached (TCP, names) are passed over.
    pub(crate) fn add_candidate(&mut self, text: &str, now: Instant) -> Result<()> {
        let Ok(candidate) = Candidate::from_sdp_string(text) else {
            return Ok(());
        };
        if candidate.addr().is_ipv4() == self.local.is_ipv4() {
            self.rtc.add_remote_candidate(candidate);
        }
        self.drain(now)
    }

    pub(crate) fn receive(
        &mut self,
        source: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) -> Result<()> {
        let Ok(contents) = DatagramRecv::try_from(datagram) else {
            return Ok(());
        };
        let receive = Receive {
            proto: Protocol::Udp,
            source,
            destination: self.local,
            contents,
        };
        self.rtc.handle_input(Input::Receive(now, receive))?;
        self.drain(now)
    }

    pub(crate) fn tick(&mut self, now: Instant) -> Result<()> {
        self.rtc.handle_input(Input::Timeout(now))?;
        self.drain(now)
    }

    pub(crate) fn send(&mut self, source: SourceId, packet: Packet, now: Instant) -> Result<()> {
        let Some(sending) = self
            .sending
            .iter_mut()
            .find(|sending| sending.plan.id == source)
        else {
            return Ok(());
        };
        let mid = sending.mid;
        let is_new = sending.payload_type.is_none();
        if is_new {
            sending.payload_type = payload_type(&self.rtc, mid, sending.plan.codec);
        }
        let Some(payload_type) = sending.payload_type else {
            bail!("the server does not take {:?}", sending.plan.codec);
        };
        let is_audio = sending.plan.codec == Codec::Opus;
        let extensions = ExtensionValues {
            mid: Some(mid),
            audio_level: is_audio.then_some(LOUDNESS),
            voice_activity: is_audio.then_some(true),
            ..Default::default()
        };
        let write = RtpWrite::new(
            payload_type,
            packet.sequence.into(),
            packet.timestamp,
            now,
            packet.payload,
        )
        .marker(packet.marker)
        .nackable(true)
        .ext_vals(extensions);
        let mut direct = self.rtc.direct_api();
        let stream = direct
            .stream_tx_by_mid(mid, None)
            .context("the engine has no stream for this m-line")?;
        if is_new {
            stream.set_rtx_cache(REPAIR_PACKETS, REPAIR_AGE, Some(REPAIR_SHARE));
        }
        stream.write_rtp(write);
        self.drain(now)
    }

    /// Asks the server for a keyframe.
    pub(crate) fn ask_keyframe(&mut self, ssrc: Ssrc, now: Instant) -> Result<()> {
        if let Some(stream) = self.rtc.direct_api().stream_rx(&ssrc) {
            stream.request_keyframe(KeyframeRequestKind::Pli);
        }
        self.drain(now)
    }

    pub(crate) fn close(&mut self, now: Instant) -> Result<()> {
        self.rtc.disconnect();
        self.drain(now)
    }

    pub(crate) fn take_outgoing(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.outgoing.pop_front()
    }

    pub(crate) fn take_happened(&mut self) -> Option<Happened> {
        self.happened.pop_front()
    }

    fn drain(&mut self, now: Instant) -> Result<()> {
        let mut deadline = self.take_all()?;
        if deadline <= now && self.rtc.is_alive() {
            self.rtc.handle_input(Input::Timeout(now))?;
            // What is due now was done; if the engine wants more at once, the next turn will do.
            deadline = self.take_all()?.max(now + Duration::from_millis(1));
        }
        self.deadline = if self.is_connected {
            deadline
        } else {
            deadline.min(now + SETTING_UP_TICK)
        };
        Ok(())
    }

    /// Everything up to the next timeout, which is returned.
    fn take_all(&mut self) -> Result<Instant> {
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(deadline) => return Ok(deadline),
                output => self.note(output),
            }
        }
    }

    fn note(&mut self, output: Output) {
        match output {
            Output::Timeout(_) => {}
            Output::Transmit(transmit) => self
                .outgoing
                .push_back((transmit.destination, transmit.contents.into())),
            Output::Event(Event::Connected) => {
                self.is_connected = true;
                self.happened.push_back(Happened::Connected);
            }
            Output::Event(Event::Closed) => self.happened.push_back(Happened::Closed),
            Output::Event(Event::IceConnectionStateChange(state)) if state.is_disconnected() => {
                self.happened.push_back(Happened::Closed);
            }
            Output::Event(Event::RtpPacket(packet)) => {
                self.happened.push_back(Happened::Packet(Received {
                    ssrc: packet.header.ssrc,
                    sequence: *packet.seq_no,
                    timestamp: packet.header.timestamp,
                    payload: packet.payload,
                }));
            }
            Output::Event(Event::KeyframeRequest(request)) => {
                let source = self
                    .sending
                    .iter()
                    .find(|sending| sending.mid == request.mid);
                if let Some(source) = source {
                    self.happened
                        .push_back(Happened::KeyframeWanted(source.plan.id));
                }
            }
            Output::Event(_) => {}
        }
    }
}

/// The payload type that the server takes for a codec on an m-line.
fn payload_type(rtc: &Rtc, mid: Mid, codec: Codec) -> Option<Pt> {
    let agreed = rtc.media(mid)?.remote_pts();
    let wanted = match codec {
        Codec::Vp8 => Format::Vp8,
        Codec::H264 => Format::H264,
        Codec::Opus => Format::Opus,
    };
    let fits = |pt: &&Pt| {
        rtc.codec_config().params().iter().any(|params| {
            let spec = params.spec();
            params.pt() == **pt
                && spec.codec == wanted
                && (codec != Codec::H264 || spec.format.packetization_mode == Some(1))
        })
    };
    agreed.iter().find(fits).copied()
}
