//! Three connections of a shard, and everything that their clients, and strangers, can send: nothing
//! fails that is not the sender's own, and what is sent and told is bounded by what came.
//!
//! The first publishes a camera in three layers and a microphone. The second publishes a camera, and
//! sees and hears the first. The third only receives, in places.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use udp_batch::Burst;

use super::{Home, SERVER, at_home, plain};
use crate::account::{Account, Reason, Step};
use crate::command::{
    Channel, Codec, Command, ConnectionId, Event, Publication, Quality, Role, Selection, TrackId,
    TrackKind,
};
use crate::header::{self, Element, Header};
use crate::rtcp::{self, SenderReport};
use crate::srtp::Keys;

/// Steps that one input plays at most.
const STEPS: usize = 40;

/// Milliseconds that may pass in one input's long waits; several steps of it give up a silent client.
const LONG: u64 = 70_000;

/// Datagrams and events that one datagram that came, or a quarter of a second, may cause beside
/// what is repaired: a DTLS flight and its repetitions, checks, answers.
const CAUSED: usize = 32;

/// Calls at one time that lead to the next: the sweep may find a line to probe, at once.
const AT_ONCE: usize = 3;

const CLIENTS: usize = 3;

/// What the clients bring: the first sends, the second does both, the third receives.
const OFFERS: [&str; CLIENTS] = [
    concat!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1 2\r\na=extmap-allow-mixed\r\n",
        "m=audio 9 UDP/TLS/RTP/SAVPF 63 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=sendonly\r\na=msid:- mic\r\n",
        "a=ice-ufrag:frag0\r\na=ice-pwd:passwordpasswordpassword\r\n",
        "a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n",
        "a=setup:actpass\r\na=rtcp-mux\r\na=ssrc:1001 cname:c\r\n",
        "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\na=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n",
        "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n",
        "a=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\na=rtcp-fb:111 transport-cc\r\n",
        "m=video 9 UDP/TLS/RTP/SAVPF 96 97 98 99 45 46 103 104\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=sendonly\r\na=msid:- camera\r\n",
        "a=ice-ufrag:frag0\r\na=ice-pwd:passwordpasswordpassword\r\n",
        "a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n",
        "a=setup:actpass\r\na=rtcp-mux\r\na=rtcp-rsize\r\n",
        "a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\na=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n",
        "a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\na=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id\r\n",
        "a=extmap:13 urn:3gpp:video-orientation\r\na=extmap:9 https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension\r\n",
        "a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 transport-cc\r\na=rtcp-fb:96 ccm fir\r\na=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n",
        "a=rtpmap:98 VP9/90000\r\na=rtcp-fb:98 nack\r\na=rtcp-fb:98 nack pli\r\na=fmtp:98 profile-id=0\r\na=rtpmap:99 rtx/90000\r\na=fmtp:99 apt=98\r\n",
        "a=rtpmap:45 AV1/90000\r\na=rtcp-fb:45 nack\r\na=rtcp-fb:45 nack pli\r\na=rtpmap:46 rtx/90000\r\na=fmtp:46 apt=45\r\n",
        "a=rtpmap:103 H264/90000\r\na=rtcp-fb:103 nack\r\na=rtcp-fb:103 nack pli\r\na=fmtp:103 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\na=rtpmap:104 rtx/90000\r\na=fmtp:104 apt=103\r\n",
        "a=rid:q send\r\na=rid:h send\r\na=rid:f send\r\na=simulcast:send q;h;f\r\n",
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:2\r\n",
        "a=ice-ufrag:frag0\r\na=ice-pwd:passwordpasswordpassword\r\n",
        "a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n",
        "a=setup:actpass\r\na=sctp-port:5000\r\na=max-message-size:262144\r\n",
    ),
    concat!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1 2\r\n",
        "m=video 9 UDP/TLS/RTP/SAVPF 96 97 98 99 45 46\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=sendonly\r\na=msid:- camera\r\n",
        "a=ice-ufrag:frag1\r\na=ice-pwd:passwordpasswordpassword\r\n",
        "a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n",
        "a=setup:actpass\r\na=rtcp-mux\r\na=ssrc-group:FID 2001 2002\r\na=ssrc:2001 cname:c\r\na=ssrc:2002 cname:c\r\n",
        "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=extmap:9 https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension\r\n",
        "a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n",
        "a=rtpmap:98 VP9/90000\r\na=rtcp-fb:98 nack\r\na=rtcp-fb:98 nack pli\r\na=fmtp:98 profile-id=0\r\na=rtpmap:99 rtx/90000\r\na=fmtp:99 apt=98\r\n",
        "a=rtpmap:45 AV1/90000\r\na=rtcp-fb:45 nack\r\na=rtcp-fb:45 nack pli\r\na=rtpmap:46 rtx/90000\r\na=fmtp:46 apt=45\r\n",
        "m=video 9 UDP/TLS/RTP/SAVPF 96 97 98 99 45 46\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=recvonly\r\n",
        "a=ice-ufrag:frag1\r\na=ice-pwd:passwordpasswordpassword\r\n",
        "a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n",
        "a=setup:actpass\r\na=rtcp-mux\r\n",
        "a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\na=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n",
        "a=extmap:13 urn:3gpp:video-orientation\r\na=extmap:9 https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension\r\n",
        "a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 transport-cc\r\na=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n",
        "a=rtpmap:98 VP9/90000\r\na=rtcp-fb:98 nack\r\na=rtcp-fb:98 nack pli\r\na=fmtp:98 profile-id=0\r\na=rtpmap:99 rtx/90000\r\na=fmtp:99 apt=98\r\n",
        "a=rtpmap:45 AV1/90000\r\na=rtcp-fb:45 nack\r\na=rtcp-fb:45 nack pli\r\na=rtpmap:46 rtx/90000\r\na=fmtp:46 apt=45\r\n",
        // Without RED, so that it is unwrapped.
        "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:2\r\na=recvonly\r\n",
        "a=ice-ufrag:frag1\r\na=ice-pwd:passwordpasswordpassword\r\n",
        "a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n",
        "a=setup:actpass\r\na=rtcp-mux\r\na=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n",
        "a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n",
    ),
    concat!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\na=extmap-allow-mixed\r\n",
        "m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=recvonly\r\n",
        "a=ice-ufrag:frag2\r\na=ice-pwd:passwordpasswordpassword\r\n",
        "a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n",
        "a=setup:actpass\r\na=rtcp-mux\r\na=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n",
        "a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n",
        "m=audio 9 UDP/TLS/RTP/SAVPF 63 111\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=recvonly\r\n",
        "a=ice-ufrag:frag2\r\na=ice-pwd:passwordpasswordpassword\r\n",
        "a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n",
        "a=setup:actpass\r\na=rtcp-mux\r\n",
        "a=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\na=rtpmap:111 opus/48000/2\r\n",
    ),
];

const ROLES: [Role; CLIENTS] = [Role::Publish, Role::Single, Role::View];

/// Payload types of the offers, and two of nothing.
const PAYLOAD_TYPES: [u8; 12] = [111, 63, 96, 97, 98, 99, 45, 46, 103, 104, 0, 127];

/// SSRCs that the clients send under; those of the first one's layers are told by their packets alone,
/// and 0 is a probe's.
const SSRCS: [u32; 12] = [
    1001, 1011, 1012, 1013, 1021, 1022, 1023, 2001, 2002, 3001, 0, 1001,
];

/// One client, as far as it needs a state.
struct Client {
    connection: ConnectionId,
    address: SocketAddr,
    /// Its side of the keys.
    keys: Keys,
    /// Our user name and password for it.
    user: String,
    password: String,
    /// SSRCs under which it is sent something.
    receives: Vec<u32>,
    is_lost: bool,
}

struct Stage<'a> {
    home: &'a mut Home,
    clients: Vec<Client>,
    /// The next sequence number by client and SSRC.
    sequences: HashMap<(usize, u32), u64>,
    /// The last sequence number that was sent to a client under an SSRC.
    last: HashMap<(usize, u32), u64>,
    /// What left, by client, SSRC and index.
    seen: HashSet<(usize, u32, u64)>,
    media: usize,
    sent: usize,
    told: usize,
    allowed: usize,
    waited: u64,
    answers: Vec<String>,
    /// Opens what leaves.
    ours: Keys,
}

/// Plays what an input says at three connections; see the module.
///
/// # Errors
/// The input has ended.
pub fn datagrams(data: &[u8]) -> Result<()> {
    at_home(|home| {
        let mut input = Unstructured::new(data);
        let has_handshake = input.int_in_range(0..=7_u8)? == 7;
        plain::without_handshake(!has_handshake);
        let mut stage = Stage::open(home);
        plain::without_handshake(false);
        if !has_handshake {
            stage.connect();
        }
        let mut played = Ok(());
        for _ in 0..STEPS {
            if input.is_empty() || played.is_err() {
                break;
            }
            played = stage.step(&mut input);
        }
        stage.close();
        played
    })
}

/// An account does not contradict itself.
fn in_order(account: &Account) {
    assert!(account.line.for_pictures <= account.line.budget);
    for picture in &account.pictures {
        let steps = &picture.steps;
        assert!(steps.is_sorted_by_key(|step| step.bits), "{picture:?}");
        let is_choice = |given: &Step| steps.contains(given);
        assert!(picture.given.as_ref().is_none_or(is_choice), "{picture:?}");
        let is_sent = picture.sent.is_some();
        assert!(is_sent || picture.reason != Reason::All, "{picture:?}");
    }
}

fn attribute<'a>(sdp: &'a str, name: &str) -> &'a str {
    let find = |line: &'a str| line.strip_prefix(name);
    sdp.lines().find_map(find).expect("a whole description")
}

fn wish(quality: u8) -> Selection {
    Selection {
        is_enabled: quality != 3,
        frame_rate: u32::from(quality >> 2),
        ..Selection::of([Quality::Low, Quality::Medium, Quality::High][usize::from(quality % 3)])
    }
}

impl<'a> Stage<'a> {
    fn open(home: &'a mut Home) -> Stage<'a> {
        let first = home.next();
        let mut stage = Stage {
            home,
            clients: Vec::new(),
            sequences: HashMap::new(),
            last: HashMap::new(),
            seen: HashSet::new(),
            media: 0,
            sent: 0,
            told: 0,
            allowed: 0,
            waited: 0,
            answers: Vec::new(),
            ours: Keys::new(plain::PROFILE, &plain::material(), false).expect("its length"),
        };
        let video = |cid: &str, codec| Publication {
            cid: cid.into(),
            kind: TrackKind::Video,
            codecs: vec![codec],
            backup: None,
            layers: Vec::new(),
            is_red_allowed: true,
            is_screen: false,
        };
        let audio = Publication {
            kind: TrackKind::Audio,
            ..video("mic", Codec::Opus)
        };
        let tracks = [
            vec![video("camera", Codec::Vp8), audio],
            vec![video("camera", Codec::Vp9)],
            vec![],
        ];
        for (at, publications) in tracks.into_iter().enumerate() {
            let connection = ConnectionId(first + at as u64);
            stage.command(Command::Open {
                connection,
                role: ROLES[at],
                takes_rsa: false,
            });
            for (of, publication) in publications.into_iter().enumerate() {
                stage.command(Command::Publish {
                    connection,
                    track: TrackId(connection.0 + 10 * of as u64),
                    publication,
                });
            }
            if at == 1 {
                for track in [TrackId(first), TrackId(first + 10)] {
                    stage.command(Command::Subscribe {
                        connection,
                        track,
                        stream_name: "PA|camera".into(),
                        track_name: format!("TR{}", track.0 - first),
                        selection: wish(2),
                    });
                }
            }
            stage.command(Command::Offer {
                connection,
                sdp: OFFERS[at].to_owned(),
            });
            let sdp = stage.answers.pop().expect("a right offer is answered");
            let ssrc = |line: &str| {
                line.strip_prefix("a=ssrc:")?
                    .split(' ')
                    .next()?
                    .parse()
                    .ok()
            };
            let mut receives: Vec<u32> = sdp.lines().filter_map(ssrc).collect();
            receives.dedup();
            stage.clients.push(Client {
                connection,
                address: SocketAddr::from(([10, 0, 1, at as u8 + 1], 5000)),
                keys: Keys::new(plain::PROFILE, &plain::material(), true).expect("its length"),
                user: attribute(&sdp, "a=ice-ufrag:").to_owned(),
                password: attribute(&sdp, "a=ice-pwd:").to_owned(),
                receives,
                is_lost: false,
            });
        }
        for (mid, track) in [("0", first), ("1", first + 10)] {
            stage.command(Command::Place {
                connection: ConnectionId(first + 2),
                mid: mid.into(),
                track: Some(TrackId(track)),
                selection: wish(0),
            });
        }
        stage
    }

    /// Every client's first check, with which it is connected.
    fn connect(&mut self) {
        for at in 0..CLIENTS {
            let bytes = self.check(at, true);
            self.receive(Some(at), self.clients[at].address, &bytes);
            assert!(!self.clients[at].is_lost, "it is connected");
        }
    }

    /// Closes what is left, after which nothing is.
    fn close(&mut self) {
        for at in 0..CLIENTS {
            let connection = self.clients[at].connection;
            let was_lost = std::mem::replace(&mut self.clients[at].is_lost, true);
            let account = self.home.shard.explain(connection, self.home.now);
            assert_eq!(account.is_none(), was_lost, "an account is of who is there");
            account.iter().for_each(in_order);
            self.command(Command::Close { connection });
        }
        let totals = self.home.shard.totals();
        assert_eq!(
            (totals.connections, totals.tracks, totals.subscriptions),
            (0, 0, 0),
            "nothing stays of connections that ended"
        );
    }

    fn command(&mut self, command: Command) {
        self.home.shard.command(self.home.now, command);
        self.take();
    }

    fn receive(&mut self, from: Option<usize>, source: SocketAddr, bytes: &[u8]) {
        let were_lost: Vec<bool> = self.clients.iter().map(|client| client.is_lost).collect();
        let before = self.home.shard.totals();
        let now = self.home.now;
        self.home.shard.receive(now, source, SERVER.into(), bytes);
        let after = self.home.shard.totals();
        assert_eq!(after.datagrams_in, before.datagrams_in + 1);
        assert_eq!(after.bytes_in, before.bytes_in + bytes.len() as u64);
        if from.is_none() {
            assert_eq!(after.failures, before.failures, "a stranger costs nobody");
        }
        self.take();
        for (at, client) in self.clients.iter().enumerate() {
            let may_be_lost = were_lost[at] || Some(at) == from;
            assert!(may_be_lost || !client.is_lost, "one costs another");
        }
    }

    /// Takes everything that the shard gives, and looks at it as the clients would.
    fn take(&mut self) {
        // What is repaired is bounded by what there was to repair.
        self.allowed += CAUSED + CLIENTS * self.media;
        let mut sent = Vec::new();
        self.home.shard.flush(|_, burst: &mut Burst| {
            for message in burst.messages() {
                let contents = &burst.arena()[message.range()];
                let datagrams = contents.chunks(message.segment_size().max(1));
                sent.extend(datagrams.map(|one| (message.destination(), one.to_vec())));
            }
        });
        self.sent += sent.len();
        for (destination, datagram) in sent {
            let at = |client: &Client| client.address == destination;
            if let Some(at) = self.clients.iter().position(at) {
                self.look(at, &datagram);
            }
        }
        while let Some(event) = self.home.shard.poll_event() {
            self.told += 1;
            match event {
                Event::Answer { sdp, .. } => self.answers.push(sdp),
                Event::Closed { connection, .. } => {
                    let of = |client: &&mut Client| client.connection == connection;
                    if let Some(client) = self.clients.iter_mut().find(of) {
                        client.is_lost = true;
                    }
                }
                _ => {}
            }
        }
        let totals = self.home.shard.totals();
        assert!(totals.connections <= CLIENTS as u64 && totals.tracks <= 3);
        assert!(totals.subscriptions <= 5);
        assert!(self.sent <= self.allowed, "{} datagrams", self.sent);
        assert!(self.told <= self.allowed, "{} events", self.told);
    }

    /// Media that is sent can be opened, and no index is used twice.
    fn look(&mut self, at: usize, datagram: &[u8]) {
        let is_media = matches!(datagram, [128..=191, 0..=191 | 224..=255, ..]);
        if !is_media || self.clients[at].receives.is_empty() {
            return;
        }
        let ssrc = u32::from_be_bytes(datagram[8..12].try_into().expect("four bytes"));
        let low = u16::from_be_bytes([datagram[2], datagram[3]]);
        let highest = *self.last.get(&(at, ssrc)).unwrap_or(&u64::from(low));
        let ahead = low.wrapping_sub(highest as u16) as i16;
        let index = highest.saturating_add_signed(i64::from(ahead));
        self.last.insert((at, ssrc), highest.max(index));
        assert!(self.seen.insert((at, ssrc, index)), "{ssrc}: {index} again");
        let header = header_length(datagram).expect("a whole header");
        let roll_over = (index >> 16) as u32;
        let opened = self.ours.sealer.unseal(header, roll_over, datagram);
        assert!(opened.is_some(), "the client can open it");
    }

    fn wait(&mut self, milliseconds: u64) {
        let time = Duration::from_millis(milliseconds);
        let end = self.home.now + time;
        let mut at_once = 0;
        while self.home.shard.deadline() <= end {
            let due = self.home.shard.deadline();
            at_once = if due > self.home.now { 0 } else { at_once + 1 };
            assert!(at_once <= AT_ONCE, "time goes on");
            self.home.now = self.home.now.max(due);
            self.home.shard.advance(self.home.now);
            self.take();
        }
        self.home.now = end;
    }

    fn check(&self, at: usize, nominates: bool) -> Vec<u8> {
        let client = &self.clients[at];
        let name = format!("{}:frag{at}", client.user);
        plain::check(&name, &client.password, nominates)
    }

    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let at = input.int_in_range(0..=CLIENTS - 1)?;
        match input.int_in_range(0..=15_u8)? {
            0..=5 => self.send_media(at, input),
            6 => {
                let mut packet = bytes(input)?;
                if packet.len() < 12 {
                    return Ok(());
                }
                packet[0] = 0x80 | (packet[0] & 0x3f);
                self.seal_and_receive(at, 0, packet);
                Ok(())
            }
            7 => {
                let compound = bytes(input)?;
                self.report(at, compound);
                Ok(())
            }
            8 | 9 => self.send_feedback(at, input),
            10 => {
                let mut packet = bytes(input)?;
                if packet.len() >= 12 {
                    packet[8..12].fill(0);
                    let sum = crc32c(&packet).to_le_bytes();
                    packet[8..12].copy_from_slice(&sum);
                }
                packet.insert(0, plain::APPLICATION_DATA);
                self.receive(Some(at), self.clients[at].address, &packet);
                Ok(())
            }
            11 => {
                // Address 0 is a stranger's; a client may come from others than its own.
                let from: u8 = input.int_in_range(0..=7)?;
                let datagram = bytes(input)?;
                let source = SocketAddr::from(([10, 0, 1, from], 5000));
                let client = usize::from(from).checked_sub(1).filter(|at| *at < CLIENTS);
                self.receive(client, source, &datagram);
                Ok(())
            }
            12 => {
                let mut check = self.check(at, input.arbitrary()?);
                let damage: Option<(u8, u8)> = input.arbitrary()?;
                if let Some((place, bits)) = damage {
                    let place = usize::from(place) % check.len();
                    check[place] ^= bits;
                }
                let from: u8 = input.int_in_range(0..=15)?;
                let source = match from {
                    0..=9 => self.clients[at].address,
                    other => SocketAddr::from(([10, 0, 1, other], 5000)),
                };
                self.receive(Some(at), source, &check);
                Ok(())
            }
            13 => self.tell(at, input),
            14 => {
                self.wait(input.int_in_range(0..=300)?);
                Ok(())
            }
            _ => {
                let time = input.int_in_range(0..=20_000)?.min(LONG - self.waited);
                self.waited += time;
                self.wait(time);
                Ok(())
            }
        }
    }

    /// A packet of media whose header says what the fuzzer chose of what there is.
    fn send_media(&mut self, at: usize, input: &mut Unstructured<'_>) -> Result<()> {
        let ssrc = match input.int_in_range(0..=SSRCS.len())? {
            place if place < SSRCS.len() => SSRCS[place],
            _ => input.arbitrary()?,
        };
        let payload_type = *input.choose(&PAYLOAD_TYPES)?;
        let flags: u8 = input.arbitrary()?;
        let next = self.sequences.entry((at, ssrc)).or_insert(65_530);
        let step: i8 = if flags & 1 != 0 {
            input.arbitrary()?
        } else {
            0
        };
        let sequence = next.saturating_add_signed(i64::from(step));
        *next = sequence.max(*next) + 1;
        let mut values: Vec<(u8, Vec<u8>)> = Vec::new();
        if flags & 2 != 0 {
            let mid: &[u8] = *input.choose(&[b"0", b"1", b"2", b"x"])?;
            values.push((4, mid.to_vec()));
        }
        if flags & 4 != 0 {
            let rids: [&[u8]; 6] = [b"q", b"h", b"f", b"", b"fff", b"\xff"];
            let rid = *input.choose(&rids)?;
            let id = if input.arbitrary()? { 10 } else { 11 };
            values.push((id, rid.to_vec()));
        }
        if flags & 8 != 0 {
            let length = input.int_in_range(0..=48_usize)?.min(input.len());
            values.push((9, input.bytes(length)?.to_vec()));
        }
        if flags & 16 != 0 {
            values.push((1, vec![input.arbitrary()?]));
            values.push((13, vec![input.arbitrary()?]));
        }
        if flags & 32 != 0 {
            let number: u16 = input.arbitrary()?;
            values.push((3, number.to_be_bytes().to_vec()));
        }
        let elements: Vec<_> = values
            .iter()
            .map(|(id, value)| Element { id: *id, value })
            .collect();
        let fields = Header {
            marker: flags & 64 != 0,
            payload_type,
            sequence: sequence as u16,
            timestamp: sequence as u32 * 3000,
            ssrc,
        };
        let mut payload = bytes(input)?;
        if flags & 128 != 0 && !payload.is_empty() {
            payload.resize(1200, 7);
        }
        let mut packet = vec![0; 400];
        let length =
            header::write(&mut packet, &fields, &elements, true).expect("there is room for it");
        packet.truncate(length);
        packet.extend(payload);
        self.seal_and_receive(at, (sequence >> 16) as u32, packet);
        Ok(())
    }

    fn seal_and_receive(&mut self, at: usize, roll_over: u32, mut packet: Vec<u8>) {
        let length = header_length(&packet).unwrap_or(12).min(packet.len());
        let tag = self.clients[at].keys.sealer.tag_length();
        packet.resize(packet.len() + tag, 0);
        self.clients[at]
            .keys
            .sealer
            .seal(length, roll_over, &mut packet);
        self.media += 1;
        self.receive(Some(at), self.clients[at].address, &packet);
    }

    fn report(&mut self, at: usize, mut compound: Vec<u8>) {
        if compound.len() < 8 {
            return;
        }
        compound[0] = 0x80 | (compound[0] & 0x3f);
        compound[1] = 192 + compound[1] % 32;
        self.clients[at].keys.sealer.seal_report(&mut compound);
        self.receive(Some(at), self.clients[at].address, &compound);
    }

    /// A report that speaks of what is really sent.
    fn send_feedback(&mut self, at: usize, input: &mut Unstructured<'_>) -> Result<()> {
        let receives = &self.clients[at].receives;
        let known = input.int_in_range(0..=7_usize)?;
        let ssrc = match receives.get(known) {
            Some(ssrc) => *ssrc,
            None => *input.choose(&SSRCS)?,
        };
        let last = *self.last.get(&(at, ssrc)).unwrap_or(&0) as u16;
        let mut body = Vec::new();
        let (count, kind): (u8, u8) = match input.int_in_range(0..=7_u8)? {
            0..=2 => {
                for _ in 0..input.int_in_range(1..=8_u8)? {
                    let behind: u8 = input.arbitrary()?;
                    body.extend(last.wrapping_sub(u16::from(behind)).to_be_bytes());
                    body.extend(input.arbitrary::<[u8; 2]>()?);
                }
                (1, 205)
            }
            3 => (1, 206),
            4 => {
                body.extend(ssrc.to_be_bytes());
                body.extend(input.arbitrary::<[u8; 4]>()?);
                (4, 206)
            }
            5 => {
                let words = input.int_in_range(1..=16_usize)?.min(input.len() / 4);
                body.extend(input.bytes(4 * words)?);
                (15, 205)
            }
            6 => {
                body.extend(b"REMB");
                body.extend(input.arbitrary::<[u8; 4]>()?);
                body.extend(ssrc.to_be_bytes());
                (15, 206)
            }
            _ => {
                let mut compound = Vec::new();
                let report = SenderReport {
                    ssrc: *input.choose(&SSRCS)?,
                    ntp: input.arbitrary()?,
                    timestamp: input.arbitrary()?,
                    packets: 1,
                    octets: 1,
                };
                rtcp::write_report(&mut compound, &report, "c");
                if input.arbitrary()? {
                    rtcp::write_goodbye(&mut compound, report.ssrc);
                }
                self.report(at, compound);
                return Ok(());
            }
        };
        // An empty receiver report, with which compounds begin, and the feedback.
        let mut compound = vec![0x80, 201, 0, 1, 0, 0, 0, 1, 0x80 | count, kind];
        compound.extend((2 + body.len() as u16 / 4).to_be_bytes());
        compound.extend(1_u32.to_be_bytes());
        compound.extend(ssrc.to_be_bytes());
        compound.extend(body);
        self.report(at, compound);
        Ok(())
    }

    /// What signalling may say meanwhile.
    fn tell(&mut self, at: usize, input: &mut Unstructured<'_>) -> Result<()> {
        let first = self.clients[0].connection.0;
        let connection = self.clients[at].connection;
        let track = TrackId(first + *input.choose(&[0, 10, 1])?);
        let selection = wish(input.int_in_range(0..=3)?);
        let command = match input.int_in_range(0..=6_u8)? {
            0 => Command::Select {
                connection,
                track,
                selection,
            },
            1 => Command::Mute {
                track,
                is_muted: input.arbitrary()?,
            },
            2 | 3 => Command::Place {
                connection,
                mid: (*input.choose(&["0", "1", "x"])?).into(),
                track: input.arbitrary::<bool>()?.then_some(track),
                selection,
            },
            4 => Command::Unsubscribe { connection, track },
            5 => Command::SendData {
                connections: vec![connection],
                channel: Channel::Reliable,
                payload: Arc::from(&b"said"[..]),
            },
            _ => Command::Offer {
                connection,
                sdp: OFFERS[at].to_owned(),
            },
        };
        self.command(command);
        self.answers.clear();
        Ok(())
    }
}

/// Where an RTP packet's payload begins (RFC 3550 §5.1).
fn header_length(packet: &[u8]) -> Option<usize> {
    let fixed = 12 + 4 * usize::from(packet.first()? & 15);
    if packet[0] & 0x10 == 0 {
        return Some(fixed);
    }
    let words = packet.get(fixed + 2..fixed + 4)?;
    Some(fixed + 4 + 4 * usize::from(u16::from_be_bytes([words[0], words[1]])))
}

/// Most are short.
fn bytes(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let length: u8 = input.arbitrary()?;
    let length = usize::from(length).min(input.len());
    Ok(input.bytes(length)?.to_vec())
}

/// The sum of an SCTP packet (RFC 9260 appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let mut sum = !0_u32;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !sum
}
