//! The LiveKit protocol with two peer connections (`/rtc`) or one (`/rtc/v1`): for Terrace and for LiveKit's own
//! server.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt as _, StreamExt as _};
use livekit_protocol as proto;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, interval, timeout_at};
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::{Address, Door, Endpoint, JOIN_WITHIN, Visit, is_set, token};
use crate::clip;
use crate::media::{ConnectionId, Line};
use crate::scenario::Codec;
use crate::source::{SourceId, SourcePlan};

/// The version of the protocol that is spoken.
const PROTOCOL: u32 = 15;

/// How often a client says that it is alive unless the server wants it oftener.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// The most m-lines of a kind that a server may ask for at once.
const LINES_BOUND: u32 = 200;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Clients of a LiveKit server.
pub struct LiveKitDoor {
    address: Address,
    base: String,
}

impl LiveKitDoor {
    /// To the server at `http://host:port` or `ws://host:port`.
    ///
    /// # Errors
    /// When the address has another scheme.
    pub fn new(address: &Address) -> Result<LiveKitDoor> {
        let rest = address
            .server
            .strip_prefix("http://")
            .or_else(|| address.server.strip_prefix("ws://"))
            .with_context(|| {
                format!(
                    "{} is no address such as http://127.0.0.1:7880 (TLS is not measured)",
                    address.server
                )
            })?;
        Ok(LiveKitDoor {
            base: format!("ws://{}", rest.trim_end_matches('/')),
            address: address.clone(),
        })
    }

    async fn stay(&self, visit: Visit) -> Result<()> {
        let token = token(&self.address, &visit.room_name(), &visit.identity)?;
        let is_single = self.address.endpoint == Endpoint::One;
        let settings = if is_single {
            format!("join_request={}", join_request(visit.receives))
        } else {
            format!(
                "protocol={PROTOCOL}&sdk=rust&version=1&auto_subscribe={}",
                u8::from(visit.receives)
            )
        };
        let path = self.address.endpoint.path();
        let url = format!("{}/{path}?access_token={token}&{settings}", self.base);
        let deadline = Instant::now() + JOIN_WITHIN;
        let (socket, _) = timeout_at(deadline, connect_async(url))
            .await
            .context("the server does not answer the WebSocket")?
            .context("the server refused the WebSocket")?;
        let subscriber = visit.media.open(visit.stay).await?;
        let mut session = Session {
            subscriber,
            publisher: is_single.then_some(subscriber),
            is_single,
            socket,
            tracks: HashMap::new(),
            unpublished: visit.sends.len(),
            wanted: Vec::new(),
            offers: 0,
            is_offering: false,
            visit,
        };
        session.run(deadline).await
    }
}

impl Door for LiveKitDoor {
    fn attend(&self, visit: Visit) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.stay(visit))
    }
}

struct Session {
    visit: Visit,
    socket: Socket,
    subscriber: ConnectionId,
    /// The same if there is only one.
    publisher: Option<ConnectionId>,
    is_single: bool,
    /// The server's names of the tracks.
    tracks: HashMap<SourceId, String>,
    /// Tracks that the server has not confirmed yet.
    unpublished: usize,
    /// What the server wants to have offered.
    wanted: Vec<Line>,
    offers: u32,
    /// An offer has no answer yet.
    is_offering: bool,
}

enum Next {
    Frame(Option<Result<Frame, tokio_tungstenite::tungstenite::Error>>),
    Ping,
    Up(Result<()>),
    Speaking(bool),
    Leave,
    TooLate,
}

impl Session {
    async fn run(&mut self, deadline: Instant) -> Result<()> {
        let mut leave = self.visit.leave.clone();
        let mut speaking = self.visit.is_speaking.clone();
        let mut can_change = true;
        let mut pings = interval(PING_INTERVAL);
        pings.tick().await;
        let media = self.visit.media.clone();
        let mut coming_up = FuturesUnordered::new();
        coming_up.push(media.connected(self.subscriber));
        let has_two = !self.is_single && !self.visit.sends.is_empty();
        let mut missing = 1 + usize::from(has_two);
        let mut is_publisher_watched = self.is_single;
        loop {
            if let Some(publisher) = self.publisher
                && !is_publisher_watched
            {
                is_publisher_watched = true;
                coming_up.push(media.connected(publisher));
            }
            let next = tokio::select! {
                frame = self.socket.next() => Next::Frame(frame),
                _ = pings.tick() => Next::Ping,
                Some(up) = coming_up.next(), if missing > 0 => Next::Up(up),
                changed = speaking.changed(), if can_change => {
                    can_change = changed.is_ok();
                    Next::Speaking(*speaking.borrow_and_update())
                }
                () = is_set(&mut leave) => Next::Leave,
                () = tokio::time::sleep_until(deadline), if missing > 0 => Next::TooLate,
            };
            match next {
                Next::Frame(Some(Ok(Frame::Binary(bytes)))) => {
                    let response = proto::SignalResponse::decode(bytes)
                        .context("the server's message can't be read")?;
                    if let Some(message) = response.message {
                        self.take(message).await?;
                    }
                }
                Next::Frame(Some(Ok(Frame::Close(_))) | None) => {
                    bail!("the server closed the WebSocket")
                }
                Next::Frame(Some(Err(error))) => return Err(error).context("the WebSocket broke"),
                Next::Frame(Some(Ok(_))) => {}
                Next::Ping => {
                    let timestamp = (crate::source::wall_clock() / 1_000_000) as i64;
                    self.say(Request::PingReq(proto::Ping { timestamp, rtt: 0 }))
                        .await?;
                }
                Next::Up(up) => {
                    up?;
                    missing -= 1;
                    if missing == 0 {
                        self.visit.has_entered();
                    }
                }
                Next::Speaking(is_speaking) => self.mute(!is_speaking).await?,
                Next::Leave => {
                    self.say(Request::Leave(proto::LeaveRequest::default()))
                        .await?;
                    // The server may close first.
                    let _ = self.socket.close(None).await;
                    return Ok(());
                }
                Next::TooLate => bail!(
                    "not connected within {} s ({missing} connections missing)",
                    JOIN_WITHIN.as_secs()
                ),
            }
        }
    }

    async fn take(&mut self, message: Response) -> Result<()> {
        let media = self.visit.media.clone();
        match message {
            Response::Join(_) => {
                self.add_tracks().await?;
                if self.is_single && self.unpublished == 0 {
                    self.offer().await?;
                }
            }
            Response::MediaSectionsRequirement(more) => {
                for (line, count) in [
                    (Line::ReceiveAudio, more.num_audios),
                    (Line::ReceiveVideo, more.num_videos),
                ] {
                    let count = count.min(LINES_BOUND) as usize;
                    self.wanted.extend(std::iter::repeat_n(line, count));
                }
                if self.offers > 0 && !self.is_offering {
                    self.offer().await?;
                }
            }
            Response::Offer(offer) => {
                let sdp = media.accept_offer(self.subscriber, offer.sdp).await?;
                self.say(Request::Answer(proto::SessionDescription {
                    r#type: "answer".into(),
                    sdp,
                    id: offer.id,
                    ..Default::default()
                }))
                .await?;
            }
            Response::Answer(answer) => {
                let publisher = self
                    .publisher
                    .ok_or_else(|| anyhow!("an answer without an offer"))?;
                media.accept_answer(publisher, answer.sdp).await?;
                self.is_offering = false;
                if !self.wanted.is_empty() {
                    self.offer().await?;
                }
            }
            Response::Trickle(trickle) => {
                let init: serde_json::Value = serde_json::from_str(&trickle.candidate_init)
                    .context("the server's candidate can't be read")?;
                let connection = match trickle.target() {
                    proto::SignalTarget::Publisher => self.publisher,
                    proto::SignalTarget::Subscriber => Some(self.subscriber),
                };
                if let (Some(connection), Some(candidate)) =
                    (connection, init["candidate"].as_str())
                {
                    media.add_candidate(connection, candidate.to_owned());
                }
            }
            Response::TrackPublished(published) => {
                let source = published
                    .cid
                    .rsplit('-')
                    .next()
                    .and_then(|n| n.parse().ok());
                if let (Some(source), Some(track)) = (source, published.track) {
                    self.tracks.insert(source, track.sid);
                }
                self.unpublished = self.unpublished.saturating_sub(1);
                if self.unpublished == 0 && self.offers == 0 {
                    self.offer().await?;
                }
            }
            Response::Leave(leave) => bail!("the server sent it away: {:?}", leave.reason()),
            _ => {}
        }
        Ok(())
    }

    async fn add_tracks(&mut self) -> Result<()> {
        for plan in self.visit.sends.clone() {
            let is_audio = plan.codec == Codec::Opus;
            let muted = !*self.visit.is_speaking.borrow();
            let (kind, source, mime) = match plan.codec {
                Codec::Opus => (
                    proto::TrackType::Audio,
                    proto::TrackSource::Microphone,
                    "audio/opus",
                ),
                Codec::Vp8 => (
                    proto::TrackType::Video,
                    proto::TrackSource::Camera,
                    "video/vp8",
                ),
                Codec::H264 => (
                    proto::TrackType::Video,
                    proto::TrackSource::Camera,
                    "video/h264",
                ),
            };
            let (width, height) = match plan {
                _ if is_audio => (0, 0),
                SourcePlan { is_clip: true, .. } => clip::SIZE,
                _ => (1280, 720),
            };
            let layers = (!is_audio).then(|| proto::VideoLayer {
                quality: proto::VideoQuality::High as i32,
                width,
                height,
                bitrate: (plan.beat.packets_per_second() * f64::from(plan.beat.bytes) * 8.0) as u32,
                ..Default::default()
            });
            let codecs = (!is_audio).then(|| proto::SimulcastCodec {
                codec: mime.rsplit('/').next().unwrap_or_default().into(),
                cid: cid(plan.id),
                ..Default::default()
            });
            self.say(Request::AddTrack(proto::AddTrackRequest {
                cid: cid(plan.id),
                name: mime.into(),
                r#type: kind as i32,
                source: source as i32,
                width,
                height,
                muted,
                disable_red: true,
                layers: layers.into_iter().collect(),
                simulcast_codecs: codecs.into_iter().collect(),
                ..Default::default()
            }))
            .await?;
        }
        Ok(())
    }

    async fn offer(&mut self) -> Result<()> {
        let publisher = match self.publisher {
            Some(publisher) => publisher,
            None => self.visit.media.open(self.visit.stay).await?,
        };
        self.publisher = Some(publisher);
        let mut lines = Vec::new();
        if self.offers == 0 {
            lines.extend(self.is_single.then_some(Line::Channel));
            lines.extend(self.visit.sends.iter().map(|plan| Line::Send {
                plan: *plan,
                track: cid(plan.id),
            }));
        }
        lines.append(&mut self.wanted);
        let sdp = self.visit.media.offer(publisher, lines).await?;
        self.offers += 1;
        self.is_offering = true;
        self.say(Request::Offer(proto::SessionDescription {
            r#type: "offer".into(),
            sdp,
            id: self.offers,
            ..Default::default()
        }))
        .await
    }

    async fn mute(&mut self, muted: bool) -> Result<()> {
        for sid in self.tracks.values().cloned().collect::<Vec<_>>() {
            self.say(Request::Mute(proto::MuteTrackRequest { sid, muted }))
                .await?;
        }
        Ok(())
    }

    async fn say(&mut self, message: Request) -> Result<()> {
        let request = proto::SignalRequest {
            message: Some(message),
        };
        self.socket
            .send(Frame::Binary(request.encode_to_vec().into()))
            .await
            .context("the WebSocket broke")
    }
}

/// The join request of the one-connection endpoint.
fn join_request(auto_subscribe: bool) -> String {
    let request = proto::JoinRequest {
        client_info: Some(proto::ClientInfo {
            sdk: proto::client_info::Sdk::Rust as i32,
            version: "1".into(),
            protocol: PROTOCOL as i32,
            ..Default::default()
        }),
        connection_settings: Some(proto::ConnectionSettings {
            auto_subscribe,
            ..Default::default()
        }),
        ..Default::default()
    };
    let wrapped = proto::WrappedJoinRequest {
        join_request: request.encode_to_vec(),
        ..Default::default()
    };
    URL_SAFE_NO_PAD.encode(wrapped.encode_to_vec())
}

/// The client's name of a track: its number follows the last dash.
fn cid(source: SourceId) -> String {
    format!("source-{source}")
}
