//! Conferences that spread over the nodes of a deployment in one process, with real media over loopback:
//! encoders publish by WHIP, players watch by WHEP.

use std::net::UdpSocket;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use signaling::proto;
use signaling::token::{Claims, KeyRing, VideoGrant};
use signaling::{Hub, HubConfig, Limits};
use str0m::change::SdpAnswer;
use str0m::media::{Direction, Frequency, MediaKind, MediaTime, Mid};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event as RtcEvent, Input, Output as RtcOutput, Rtc};
use tower::ServiceExt as _;

use super::*;
use crate::node::command::{Grant, sign_token};
use crate::serve::Shards;

/// A VP8 keyframe's beginning (RFC 6386, section 9.1), and something to fill it.
const KEYFRAME: [u8; 600] = {
    let mut frame = [7; 600];
    let header = [0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x40, 0x01, 0xb4, 0x00];
    let mut at = 0;
    while at < header.len() {
        frame[at] = header[at];
        at += 1;
    }
    frame
};

/// A node with a media core and rooms.
struct Branch {
    site: Site,
    hub: Arc<Hub>,
    shards: Shards,
}

impl Drop for Branch {
    fn drop(&mut self) {
        self.site.running = None;
        self.shards.shutdown();
    }
}

impl Branch {
    async fn start(mut site: Site, exchange: &Exchange) -> Branch {
        let (hub, shards) = Branch::open(&mut site, exchange).await;
        Branch { site, hub, shards }
    }

    /// Ends the node, as when its process is killed, and starts it again.
    async fn restart(&mut self, exchange: &Exchange) {
        let refusals = self.site.cascade().refusals.clone();
        self.site.running = None;
        self.shards.shutdown();
        until("the node has ended", async || {
            Arc::strong_count(&refusals) == 1
        })
        .await;
        (self.hub, self.shards) = Branch::open(&mut self.site, exchange).await;
    }

    async fn open(site: &mut Site, exchange: &Exchange) -> (Arc<Hub>, Shards) {
        let (sink, events) = signaling::event_queue();
        let media = crate::config::Media {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            // Rooms of the tree lie where lines do, however many there are.
            shards: 2,
            ..crate::config::Config::defaults(false).media
        };
        let shards = Shards::start(&media, &sink).unwrap();
        let config = HubConfig {
            keys: KeyRing::default(),
            limits: Limits::default(),
            gate: None,
            ice_servers: Vec::new(),
        };
        let hub = Hub::new(config, Arc::new(shards.clone()));
        tokio::spawn(hub.clone().run(events));
        let (mut running, outputs) =
            super::super::start(&site.settings, site.data_dir.path(), exchange)
                .await
                .unwrap();
        running.join(hub.clone(), outputs);
        site.running = Some(running);
        (hub, shards)
    }

    async fn post(&self, path: &str, token: &str, sdp: String) -> (StatusCode, String) {
        let request = Request::post(path)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, "application/sdp")
            .body(Body::from(sdp))
            .unwrap();
        let router = signaling::whip::router(self.hub.clone());
        let response = router.oneshot(request).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await;
        (status, String::from_utf8(body.unwrap().into()).unwrap())
    }

    async fn publish(&self, token: &str) -> Client {
        Client::start(self, "/whip", token, Direction::SendOnly).await
    }

    async fn watch(&self, identity: &str, token: &str) -> Client {
        let query = format!("?participants={identity}");
        let path = format!("/whep/{CONFERENCE}{query}");
        Client::start_at(self, &path, token, Direction::RecvOnly).await
    }

    async fn is_line_up(&self, neighbour: NodeId) -> bool {
        self.site.is_line_up(neighbour).await
    }

    /// Asks for the roster, or does something; the answer's status and body.
    async fn roster(&self, token: &str, deed: Option<Deed>) -> (StatusCode, serde_json::Value) {
        let conference = format!("/conferences/{CONFERENCE}");
        let request = match &deed {
            None => Request::get(format!("{conference}/people")),
            Some(_) => Request::post(format!("{conference}/acts")),
        };
        let request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        let body = deed.map(|deed| serde_json::to_vec(&deed).unwrap());
        let request = request.body(Body::from(body.unwrap_or_default())).unwrap();
        let cascade = self.site.cascade().clone();
        let router = crate::node::roster::router(self.hub.clone(), cascade);
        let response = router.oneshot(request).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await;
        (status, serde_json::from_slice(&body.unwrap()).unwrap())
    }

    async fn act(&self, token: &str, deed: Deed) {
        let (status, answer) = self.roster(token, Some(deed)).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    }

    fn shows(&self, identity: &str) -> Option<signaling::proto::ParticipantInfo> {
        let found = self
            .hub
            .in_room(&CONFERENCE.to_string(), |room, _| room.find(identity));
        found?.ok()
    }

    async fn forwards(&self) -> usize {
        let count = |node: &mut signaling::cascade::Node, _| node.forwards(CONFERENCE).len();
        self.site.cascade().with(count).await.unwrap()
    }
}

fn engine() -> Rtc {
    let config = Rtc::builder().clear_codecs();
    let config = config.enable_vp8(true).enable_opus(true, false);
    config.build(Instant::now())
}

/// An encoder or a player, with a thread of its own.
struct Client {
    pictures: Arc<AtomicU64>,
    sounds: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl Client {
    async fn start(at: &Branch, path: &str, token: &str, direction: Direction) -> Client {
        Client::start_at(at, &format!("{path}/{CONFERENCE}"), token, direction).await
    }

    async fn start_at(at: &Branch, path: &str, token: &str, direction: Direction) -> Client {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let mut rtc = engine();
        rtc.add_local_candidate(Candidate::host(address, "udp").unwrap());
        let mut api = rtc.sdp_api();
        let stream = || Some("stream".to_owned());
        let video = api.add_media(MediaKind::Video, direction, stream(), None, None);
        let audio = api.add_media(MediaKind::Audio, direction, stream(), None, None);
        let (offer, pending) = api.apply().unwrap();
        let (status, answer) = at.post(path, token, offer.to_sdp_string()).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        let answer = SdpAnswer::from_sdp_string(&answer).unwrap();
        rtc.sdp_api().accept_answer(pending, answer).unwrap();
        let client = Client {
            pictures: Arc::default(),
            sounds: Arc::default(),
            is_over: Arc::default(),
        };
        let counts = (client.pictures.clone(), client.sounds.clone());
        let is_over = client.is_over.clone();
        let sends = direction == Direction::SendOnly;
        std::thread::spawn(move || run(rtc, &socket, (video, audio), sends, &counts, &is_over));
        client
    }

    fn pictures(&self) -> u64 {
        self.pictures.load(Ordering::Relaxed)
    }

    fn sounds(&self) -> u64 {
        self.sounds.load(Ordering::Relaxed)
    }
}

/// Runs a client until it is over: sends a picture and a sound every 20 ms, or counts what comes.
fn run(
    mut rtc: Rtc,
    socket: &UdpSocket,
    (video, audio): (Mid, Mid),
    sends: bool,
    counts: &(Arc<AtomicU64>, Arc<AtomicU64>),
    is_over: &AtomicBool,
) {
    const FRAME: Duration = Duration::from_millis(20);
    let (begin, local) = (Instant::now(), socket.local_addr().unwrap());
    let (mut next, mut is_connected) = (begin, false);
    let mut buffer = vec![0; 2000];
    while !is_over.load(Ordering::Relaxed) && rtc.is_alive() {
        let deadline = loop {
            match rtc.poll_output().unwrap() {
                RtcOutput::Timeout(deadline) => break deadline,
                RtcOutput::Transmit(transmit) => {
                    let _ = socket.send_to(&transmit.contents, transmit.destination);
                }
                RtcOutput::Event(RtcEvent::Connected) => is_connected = true,
                RtcOutput::Event(RtcEvent::MediaData(data)) => {
                    let count = if data.mid == video {
                        &counts.0
                    } else {
                        &counts.1
                    };
                    count.fetch_add(1, Ordering::Relaxed);
                }
                RtcOutput::Event(_) => {}
            }
        };
        let now = Instant::now();
        if sends && is_connected && now >= next {
            next = now + FRAME;
            let since = begin.elapsed().as_millis() as u64;
            for mid in [video, audio] {
                let Some(writer) = rtc.writer(mid) else {
                    continue;
                };
                let pt = writer.payload_params().next().unwrap().pt();
                let sent = if mid == video {
                    let time = MediaTime::from_90khz(since * 90);
                    writer.write(pt, now, time, KEYFRAME.to_vec())
                } else {
                    let time = MediaTime::new(since * 48, Frequency::FORTY_EIGHT_KHZ);
                    let writer = writer.audio_level(-20, true);
                    writer.write(pt, now, time, vec![9; 80])
                };
                sent.unwrap();
            }
            continue;
        }
        let until = if sends && is_connected {
            deadline.min(next)
        } else {
            deadline
        };
        let wait = until
            .saturating_duration_since(now)
            .min(Duration::from_millis(50));
        socket
            .set_read_timeout(Some(wait.max(Duration::from_millis(1))))
            .unwrap();
        let input = match socket.recv_from(&mut buffer) {
            Ok((length, source)) => {
                let contents = buffer[..length].try_into();
                let Ok(contents) = contents else { continue };
                Input::Receive(
                    Instant::now(),
                    Receive {
                        proto: Protocol::Udp,
                        source,
                        destination: local,
                        contents,
                    },
                )
            }
            Err(_) => Input::Timeout(Instant::now()),
        };
        rtc.handle_input(input).unwrap();
    }
}

/// A token of the deployment.
async fn token(authority: &Site, root: NodeId, identity: &str, chair_of: Option<NodeId>) -> String {
    let mut config = crate::config::Config::defaults(false);
    config.data_dir = authority.data_dir.path().to_owned();
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let claims = Claims {
        sub: identity.into(),
        exp: now.as_secs() + 600,
        video: VideoGrant {
            room_join: true,
            ..VideoGrant::default()
        },
        ..Claims::default()
    };
    let grant = Grant {
        conference: CONFERENCE,
        organisation: ORGANISATION,
        root: Some(root),
        chair_of,
    };
    sign_token(&config, grant, claims).unwrap()
}

/// A row of nodes from the province down, all lines up.
async fn row(exchange: &Exchange, levels: &[(Level, &str)]) -> (Vec<Branch>, Vec<NodeId>) {
    let (mut row, mut nodes): (Vec<Branch>, Vec<NodeId>) = Default::default();
    for (level, name) in levels {
        let parent = row.last().map(|branch| &branch.site);
        let site = Site::enrolled(*level, name, parent).await;
        let branch = Branch::start(site, exchange).await;
        let node = branch.site.node().await;
        if let (Some(parent), Some(id)) = (row.last(), nodes.last()) {
            until("the line is up at both ends", async || {
                parent.is_line_up(node).await && branch.is_line_up(*id).await
            })
            .await;
        }
        row.push(branch);
        nodes.push(node);
    }
    (row, nodes)
}

async fn grows(what: &str, count: impl Fn() -> u64) {
    let before = count();
    until(what, async || count() > before + 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_speaker_at_the_top_is_seen_and_heard_below_and_the_other_way_round() {
    let levels = [(Level::Province, "辽宁省"), (Level::City, "抚顺市")];
    let (row, nodes) = row(&Exchange::default(), &levels).await;
    let [province, city] = &row[..] else {
        panic!("two nodes")
    };
    let root = nodes[0];
    let chair = token(&province.site, root, "chair", Some(root)).await;
    let viewer = token(&province.site, root, "viewer", None).await;

    let encoder = province.publish(&chair).await;
    let player = city.watch("chair", &viewer).await;
    until("the province knows of the viewer", || {
        province.site.sees("viewer")
    })
    .await;
    // Nobody is on stage: nothing crosses the line.
    assert!(city.shows("chair").is_none());
    assert_eq!(province.forwards().await, 0);

    province.act(&chair, Deed::Stage("chair".into())).await;
    let seen = until("pictures of the chair come down", async || {
        player.pictures() > 10
    })
    .await;
    println!("from the stage at the top to ten pictures below: {seen:?}");
    grows("sound comes down", || player.sounds()).await;
    let info = city.shows("chair").expect("it is shown");
    assert_eq!(info.attributes["terrace.level"], "province");
    assert_eq!(
        info.attributes["terrace.organisation"],
        ORGANISATION.to_string()
    );

    // The other way round.
    let speaker = token(&province.site, root, "speaker", None).await;
    let second = city.publish(&speaker).await;
    let watcher = token(&province.site, root, "watcher", None).await;
    let screen = province.watch("speaker", &watcher).await;
    until("the province knows of the speaker", || {
        province.site.sees("speaker")
    })
    .await;
    province.act(&chair, Deed::Stage("speaker".into())).await;
    until("pictures come up", async || screen.pictures() > 10).await;
    grows("sound comes up", || screen.sounds()).await;

    // A chair acts on whom its branch has, and nobody else does.
    let (status, _) = city.roster(&speaker, Some(Deed::End)).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let (status, _) = city.roster(&chair, Some(Deed::End)).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "the chair is not there");
    let is_muted = || {
        let info = province.shows("speaker");
        let mut tracks = info.into_iter().flat_map(|info| info.tracks);
        let is_microphone =
            |track: &proto::TrackInfo| track.source() == proto::TrackSource::Microphone;
        tracks.any(|track| is_microphone(&track) && track.muted)
    };
    assert!(!is_muted());
    province.act(&chair, Deed::Mute("speaker".into())).await;
    until("the speaker is muted", async || is_muted()).await;
    let (status, page) = province.roster(&chair, None).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(page["total"], 4);
    let people = page["people"].as_array().unwrap();
    let speaks = people.iter().find(|one| one["identity"] == "speaker");
    let speaks = speaks.expect("it is on the roster");
    assert_eq!(speaks["is_on_stage"], true);
    assert_eq!(speaks["may_be_heard"], false);

    // Off stage nothing is sent any more, nor to nobody.
    province.act(&chair, Deed::OffStage("speaker".into())).await;
    until("the speaker is off the stage", async || {
        province.shows("speaker").is_none()
    })
    .await;
    until("nothing goes up", async || city.forwards().await == 0).await;
    drop(player);
    drop(encoder);
    drop((second, screen));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_track_crosses_each_line_once_to_where_somebody_wants_it() {
    let levels = [
        (Level::Province, "辽宁省"),
        (Level::City, "抚顺市"),
        (Level::County, "清原县"),
    ];
    let (row, nodes) = row(&Exchange::default(), &levels).await;
    let [province, city, county] = &row[..] else {
        panic!("three nodes")
    };
    let root = nodes[0];
    let chair = token(&province.site, root, "chair", Some(root)).await;
    let encoder = county.publish(&chair).await;
    until("the province knows of the chair", || {
        province.site.sees("chair")
    })
    .await;
    county.act(&chair, Deed::Stage("chair".into())).await;
    let mut viewers = Vec::new();
    for number in 0..3 {
        let viewer = token(&province.site, root, &format!("viewer{number}"), None).await;
        viewers.push(province.watch("chair", &viewer).await);
    }
    // Nobody is at the city, which passes it on.
    for viewer in &viewers {
        until("pictures come up two levels", async || {
            viewer.pictures() > 10
        })
        .await;
        grows("sound comes up", || viewer.sounds()).await;
    }
    for branch in [county, city] {
        assert_eq!(branch.forwards().await, 2, "a picture and a sound");
    }
    assert_eq!(province.forwards().await, 0, "nothing goes back");
    let sent = county.shards.totals().subscriptions;
    assert_eq!(sent, 2, "once, however many watch");
    // The last who wanted it goes.
    for viewer in 0..3 {
        let name = CONFERENCE.to_string();
        let gone = province.hub.in_room(&name, |room, at| {
            room.expel(&format!("viewer{viewer}"), at.now)
        });
        gone.unwrap().unwrap();
    }
    until("nothing is sent any more", async || {
        county.forwards().await == 0 && city.forwards().await == 0
    })
    .await;
    drop(encoder);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_tokens_of_the_deployment_let_into_its_conferences() {
    let (row, nodes) = row(&Exchange::default(), &[(Level::Province, "辽宁省")]).await;
    let province = &row[0];
    let offer = || {
        let mut rtc = engine();
        let mut api = rtc.sdp_api();
        api.add_media(MediaKind::Video, Direction::SendOnly, None, None, None);
        api.apply().unwrap().0.to_sdp_string()
    };
    let path = format!("/whip/{CONFERENCE}");
    let other = Site::enrolled(Level::Province, "吉林省", None).await;
    let foreign = token(&other, nodes[0], "eve", None).await;
    let (status, _) = province.post(&path, &foreign, offer()).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let own = token(&province.site, nodes[0], "ana", None).await;
    let (status, _) = province.post("/whip/another", &own, offer()).await;
    assert_ne!(status, StatusCode::CREATED);
    let (status, words) = province.post(&path, &own, offer()).await;
    assert_eq!(status, StatusCode::CREATED, "{words}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_restarts_has_its_line_and_its_conference_again() {
    let exchange = Exchange::default();
    let levels = [(Level::Province, "辽宁省"), (Level::City, "抚顺市")];
    let (mut row, nodes) = row(&exchange, &levels).await;
    let root = nodes[0];
    let chair = token(&row[0].site, root, "chair", Some(root)).await;
    let viewer = token(&row[0].site, root, "viewer", None).await;
    let mut encoder = row[0].publish(&chair).await;
    until("the chair is there", || row[0].site.sees("chair")).await;
    row[0].act(&chair, Deed::Stage("chair".into())).await;
    for restarted in [1, 0] {
        row[restarted].restart(&exchange).await;
        let begin = Instant::now();
        if restarted == 0 {
            encoder = row[0].publish(&chair).await;
        }
        let player = row[1].watch("chair", &viewer).await;
        until("pictures come down again", async || player.pictures() > 10).await;
        println!(
            "from a restart of {restarted} to pictures: {:?}",
            begin.elapsed()
        );
        grows("and sound", || player.sounds()).await;
    }
    drop(encoder);
}
