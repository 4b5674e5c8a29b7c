//! WHIP and WHEP against a server of this file: str0m behind RFC 9725's two requests.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, post};
use load_tests::door::{Address, Endpoint, Kind};
use load_tests::run::{Options, play};
use load_tests::scenario::Scenario;
use load_tests::srtp::Profile;
use str0m::change::SdpOffer;
use str0m::media::{KeyframeRequestKind, MediaKind, Mid};
use str0m::net::{DatagramRecv, Protocol, Receive};
use str0m::rtp::{RtpPacket, RtpWrite};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};

/// What is forwarded: payload, time, marker.
type Forwarded = Arc<(MediaKind, RtpPacket)>;

#[derive(Default)]
struct Server {
    viewers: Mutex<Vec<Sender<Forwarded>>>,
    wants_key: AtomicBool,
    is_over: AtomicBool,
    /// Counts on from another number in the middle of a stream.
    is_jumping: bool,
    asked_for: Mutex<Vec<String>>,
    deleted: AtomicUsize,
}

/// One peer connection on a thread of its own.
struct Peer {
    rtc: Rtc,
    socket: UdpSocket,
    local: SocketAddr,
    mids: Vec<(Mid, MediaKind)>,
    is_connected: bool,
}

impl Peer {
    fn run(mut self, server: &Server, forwarded: Option<Receiver<Forwarded>>) {
        let mut buffer = [0; 2000];
        while !server.is_over.load(Ordering::Relaxed) && self.rtc.is_alive() {
            self.drain(server);
            match self.socket.recv_from(&mut buffer) {
                Ok((length, source)) => {
                    if let Ok(contents) = DatagramRecv::try_from(&buffer[..length]) {
                        let receive = Receive {
                            proto: Protocol::Udp,
                            source,
                            destination: self.local,
                            contents,
                        };
                        let input = Input::Receive(Instant::now(), receive);
                        self.rtc.handle_input(input).unwrap();
                        self.drain(server);
                    }
                }
                Err(_) => {
                    let now = Input::Timeout(Instant::now());
                    self.rtc.handle_input(now).unwrap();
                    self.drain(server);
                }
            }
            if forwarded.is_none() && server.wants_key.swap(false, Ordering::Relaxed) {
                for (mid, _) in self.mids.clone() {
                    let mut direct = self.rtc.direct_api();
                    if let Some(stream) = direct.stream_rx_by_mid(mid, None) {
                        stream.request_keyframe(KeyframeRequestKind::Pli);
                    }
                    self.drain(server);
                }
            }
            for packet in forwarded.iter().flat_map(Receiver::try_iter) {
                self.forward(server, &packet.0, &packet.1);
                self.drain(server);
            }
        }
    }

    fn forward(&mut self, server: &Server, kind: &MediaKind, packet: &RtpPacket) {
        let found = self.mids.iter().find(|(_, of)| of == kind);
        let (Some((mid, _)), true) = (found.copied(), self.is_connected) else {
            return;
        };
        let agreed = self.rtc.media(mid).unwrap().remote_pts()[0];
        let jump = if server.is_jumping && *packet.seq_no > 40 {
            3
        } else {
            0
        };
        let write = RtpWrite::new(
            agreed,
            (*packet.seq_no + jump).into(),
            packet.header.timestamp,
            Instant::now(),
            packet.payload.clone(),
        );
        let mut direct = self.rtc.direct_api();
        let stream = direct.stream_tx_by_mid(mid, None).unwrap();
        stream.write_rtp(write.marker(packet.header.marker));
    }

    fn drain(&mut self, server: &Server) {
        loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(_) => return,
                Output::Transmit(transmit) => {
                    let _ = self
                        .socket
                        .send_to(&transmit.contents, transmit.destination);
                }
                Output::Event(Event::Connected) => self.is_connected = true,
                Output::Event(Event::MediaAdded(added)) => {
                    self.mids.push((added.mid, added.kind));
                }
                Output::Event(Event::KeyframeRequest(_)) => {
                    server.wants_key.store(true, Ordering::Relaxed);
                }
                Output::Event(Event::RtpPacket(packet)) => {
                    let mut direct = self.rtc.direct_api();
                    let mid = direct.stream_rx(&packet.header.ssrc).unwrap().mid();
                    let kind = self.mids.iter().find(|(of, _)| *of == mid).unwrap().1;
                    let packet = Arc::new((kind, packet));
                    for viewer in server.viewers.lock().unwrap().iter() {
                        let _ = viewer.send(packet.clone());
                    }
                }
                Output::Event(_) => {}
            }
        }
    }
}

fn answer(server: &Arc<Server>, headers: &HeaderMap, offer: &str, is_viewer: bool) -> Response {
    let bearer = headers[header::AUTHORIZATION].to_str().unwrap();
    if !bearer.starts_with("Bearer ey") || headers[header::CONTENT_TYPE] != "application/sdp" {
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, "not like this").into_response();
    }
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(2)))
        .unwrap();
    let local = socket.local_addr().unwrap();
    let mut rtc = RtcConfig::new()
        .set_rtp_mode(true)
        .set_ice_lite(true)
        .build(Instant::now());
    rtc.add_local_candidate(Candidate::host(local, "udp").unwrap());
    let offer = SdpOffer::from_sdp_string(offer).unwrap();
    let answer = rtc.sdp_api().accept_offer(offer).unwrap();
    let peer = Peer {
        rtc,
        socket,
        local,
        mids: Vec::new(),
        is_connected: false,
    };
    let forwarded = is_viewer.then(|| {
        let (sender, receiver) = channel();
        server.viewers.lock().unwrap().push(sender);
        receiver
    });
    let server = server.clone();
    std::thread::spawn(move || peer.run(&server, forwarded));
    let headers = [
        (header::LOCATION, "/resource/1"),
        (header::CONTENT_TYPE, "application/sdp"),
    ];
    (StatusCode::CREATED, headers, answer.to_sdp_string()).into_response()
}

async fn serve(server: Arc<Server>) -> SocketAddr {
    let whip = async |State(server): State<Arc<Server>>,
                      Path(_): Path<String>,
                      headers: HeaderMap,
                      offer: String| answer(&server, &headers, &offer, false);
    let whep = async |State(server): State<Arc<Server>>,
                      Path(_): Path<String>,
                      Query(query): Query<Vec<(String, String)>>,
                      headers: HeaderMap,
                      offer: String| {
        let names = query.into_iter().map(|(_, value)| value);
        server.asked_for.lock().unwrap().extend(names);
        answer(&server, &headers, &offer, true)
    };
    let gone = async |State(server): State<Arc<Server>>| {
        server.deleted.fetch_add(1, Ordering::Relaxed);
    };
    let router = Router::new()
        .route("/whip/{room}", post(whip))
        .route("/whep/{room}", post(whep))
        .route("/resource/{id}", delete(gone))
        .with_state(server);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

fn options(server: String) -> Options {
    let mut scenario = Scenario::load("smoke").unwrap();
    scenario.seconds = 1.0;
    Options {
        scenario,
        kind: Kind::Whip,
        address: Address {
            server,
            key: ("devkey".into(), "secret".into()),
            profile: Profile::Aes128Gcm,
            endpoint: Endpoint::default(),
        },
        process: None,
        metrics: None,
        rooms: None,
        bind: Some("127.0.0.1".parse().unwrap()),
        threads: 1,
        seed: 1,
        shows_progress: false,
    }
}

#[tokio::test]
async fn who_sends_by_whip_is_seen_by_whep_and_both_are_deleted() {
    let server = Arc::new(Server::default());
    let address = serve(server.clone()).await;
    let report = play(&options(format!("http://{address}"))).await.unwrap();
    server.is_over.store(true, Ordering::Relaxed);
    assert_eq!(report.subscribers.len(), 3);
    for subscriber in &report.subscribers {
        assert!(subscriber.count.received > 60, "{subscriber:?}");
        assert!(subscriber.first_keyframe_ms.is_some(), "{subscriber:?}");
    }
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(report.total.jumps, 0);
    assert_eq!(server.deleted.load(Ordering::Relaxed), 4);
    assert_eq!(*server.asked_for.lock().unwrap(), ["speaker-0-0"; 3]);
}

#[tokio::test]
async fn a_server_that_numbers_anew_is_found_out() {
    let server = Arc::new(Server {
        is_jumping: true,
        ..Server::default()
    });
    let address = serve(server.clone()).await;
    let report = play(&options(format!("http://{address}"))).await.unwrap();
    server.is_over.store(true, Ordering::Relaxed);
    // Audio and video of each viewer.
    assert!(
        (3..=6).contains(&report.total.jumps),
        "{}",
        report.total.jumps
    );
}

#[tokio::test]
async fn a_refusal_is_told_with_its_status() {
    let error = play(&options("http://127.0.0.1:9".into()))
        .await
        .unwrap_err();
    assert!(
        format!("{error:#}").contains("does not answer"),
        "{error:#}"
    );
    let server = Arc::new(Server::default());
    let address = serve(server).await;
    let error = play(&options(format!("http://{address}/elsewhere")))
        .await
        .unwrap_err();
    assert!(format!("{error:#}").contains("404"), "{error:#}");
}
