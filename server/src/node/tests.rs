//! Whole deployments in one process, over real HTTPS, and over real NATS servers where it says so.

mod tree;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use signaling::cascade::{
    Cause, ConferenceId, Deed, Envelope, Event, Identity, Level, Message, Newcomer, OrganisationId,
    Refusal, seal,
};
use tokio::process::{Child, Command};

use super::bus::Exchange;
use super::nats::ServerConfig;
use super::registrar::Code;
use super::runtime::Refused;
use super::store::{Invitation, Which};
use super::*;

const CONFERENCE: ConferenceId = ConferenceId(0x2026);
const ORGANISATION: OrganisationId = OrganisationId(0x21);

/// How long a test waits for something that must come.
const PATIENCE: Duration = Duration::from_secs(60);

async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) -> Duration {
    let begin = Instant::now();
    while !is_so().await {
        assert!(begin.elapsed() < PATIENCE, "it never came to this: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    begin.elapsed()
}

fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

/// A NATS server of one node.
struct Nats {
    file: PathBuf,
    listen: SocketAddr,
    leaf_listen: SocketAddr,
    process: Child,
}

impl Nats {
    fn url(&self) -> String {
        format!("tls://{}", self.listen)
    }

    fn spawn(file: &Path) -> Child {
        Command::new("nats-server")
            .arg("--config")
            .arg(file)
            .stderr(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("nats-server is installed (package nats-server)")
    }

    async fn kill(&mut self) {
        self.process.kill().await.unwrap();
    }

    fn restart(&mut self) {
        self.process = Nats::spawn(&self.file);
    }

    /// Stops its process, which keeps its connections, or lets it go on.
    fn signal(&self, signal: rustix::process::Signal) {
        let pid = self.process.id().expect("it runs");
        let pid = rustix::process::Pid::from_raw(pid as i32).expect("it has a number");
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

/// A node under test.
struct Site {
    data_dir: tempfile::TempDir,
    settings: Settings,
    nats: Option<Nats>,
    running: Option<Running>,
    media: Option<AbortHandle>,
    outputs: Arc<Mutex<Vec<(Instant, Output)>>>,
}

impl Site {
    /// A node with a place of its own below `parent`, enrolled there; not yet running.
    async fn enrolled(level: Level, name: &str, parent: Option<&Site>) -> Site {
        let settings = Settings {
            name: Some(name.into()),
            level: Some(level),
            organisation: Some(ORGANISATION),
            parent: parent.map(|parent| parent.listens().to_string()),
            listen: (level != Level::Village).then(|| "127.0.0.1:0".parse().unwrap()),
            hosts: vec!["127.0.0.1".into()],
            ..Settings::default()
        };
        let site = Site {
            data_dir: tempfile::tempdir().unwrap(),
            settings,
            nats: None,
            running: None,
            media: None,
            outputs: Arc::default(),
        };
        match parent {
            Some(parent) => {
                let code = parent.invite(level, name).await;
                site.enrol(&code.text()).await.unwrap();
            }
            None => drop(site.open().await),
        }
        site
    }

    async fn invite(&self, level: Level, name: &str) -> Code {
        let invitation = Invitation {
            place: new_place(level, ORGANISATION),
            name: name.into(),
        };
        let registrar = self.open().await;
        let time = Duration::from_secs(60);
        registrar.invite(&invitation, time).await.unwrap()
    }

    /// As `terrace node enrol` does.
    async fn enrol(&self, code: &str) -> anyhow::Result<()> {
        let folder = folder(self.data_dir.path());
        crate::serve::prepare_data_dir(&folder)?;
        let certificate = registrar::enrol(&self.settings, &folder, code).await?;
        let store = Store::open(self.data_dir.path()).await?;
        store.keep(&certificate).await
    }

    /// As the command line sees the node.
    async fn open(&self) -> Arc<Registrar> {
        super::open(&self.settings, self.data_dir.path())
            .await
            .unwrap()
    }

    /// Starts a NATS server of this node's own, a leaf of the parent's.
    async fn start_nats(&mut self, parent: Option<&Site>) {
        let registrar = self.open().await;
        let parent = parent.and_then(|parent| parent.nats.as_ref());
        let (listen, leaf_listen) = (free_address(), free_address());
        let config = ServerConfig {
            node: registrar.credentials.certificate().node(),
            listen,
            leaf_listen,
            parent: parent.map(|parent| parent.leaf_listen.to_string()),
        };
        let folder = folder(self.data_dir.path());
        let file = nats::write_config(&folder, &config, &[config.node]).unwrap();
        let process = Nats::spawn(&file);
        let nats = Nats {
            file,
            listen,
            leaf_listen,
            process,
        };
        self.settings.nats = Some(nats.url());
        self.nats = Some(nats);
        until("a NATS server listens", async || {
            tokio::net::TcpStream::connect(listen).await.is_ok()
        })
        .await;
    }

    async fn start(&mut self, exchange: &Exchange) {
        let (running, mut outputs) = super::start(&self.settings, self.data_dir.path(), exchange)
            .await
            .unwrap();
        let kept = self.outputs.clone();
        tokio::spawn(async move {
            while let Some(output) = outputs.recv().await {
                kept.lock().unwrap().push((Instant::now(), output));
            }
        });
        // Media is taken to flow on all lines: what is tried here is control.
        let cascade = running.cascade.clone();
        let media = tokio::spawn(async move {
            let hear = |node: &mut signaling::cascade::Node, moment| {
                for neighbour in node.neighbours() {
                    node.heard_media(moment, neighbour);
                }
            };
            while cascade.with(hear).await.is_some() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        self.media = Some(media.abort_handle());
        self.running = Some(running);
    }

    /// Ends the node, as when its process is killed.
    fn stop(&mut self) {
        self.running = None;
        if let Some(media) = self.media.take() {
            media.abort();
        }
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("the node runs")
    }

    fn cascade(&self) -> &Cascade {
        &self.running().cascade
    }

    fn listens(&self) -> SocketAddr {
        self.running().listens.expect("the node listens")
    }

    async fn node(&self) -> NodeId {
        self.cascade()
            .with(|node, _| node.place().node)
            .await
            .unwrap()
    }

    async fn is_line_up(&self, neighbour: NodeId) -> bool {
        let line = move |node: &mut signaling::cascade::Node, _| {
            node.line(neighbour).is_some_and(|line| line.is_up())
        };
        self.cascade().with(line).await.unwrap()
    }

    async fn has_line(&self, neighbour: NodeId) -> bool {
        let line = move |node: &mut signaling::cascade::Node, _| node.line(neighbour).is_some();
        self.cascade().with(line).await.unwrap()
    }

    async fn join(&self, root: NodeId, identity: &'static str) {
        let newcomer = Newcomer {
            identity: Identity::from(identity),
            name: identity.into(),
            organisation: ORGANISATION,
            chair_of: None,
        };
        let joined = self
            .cascade()
            .with(move |node, moment| node.join(moment, CONFERENCE, root, newcomer))
            .await;
        joined.unwrap().unwrap();
    }

    async fn sees(&self, identity: &'static str) -> bool {
        let identity = Identity::from(identity);
        self.cascade()
            .with(move |node, _| node.participant(CONFERENCE, &identity).is_some())
            .await
            .unwrap()
    }

    async fn people(&self) -> usize {
        let people = |node: &mut signaling::cascade::Node, _| node.people(CONFERENCE).len();
        self.cascade().with(people).await.unwrap()
    }

    fn refused(&self, from: NodeId, why: Refused) -> u64 {
        let counts = self.cascade().refusals.counts();
        let found = counts
            .iter()
            .find(|(node, reason, _)| *node == from && *reason == why);
        found.map_or(0, |(_, _, count)| *count)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_enrol_hop_by_hop_and_whoever_is_revoked_or_unknown_gets_nothing() {
    let exchange = Exchange::default();
    let mut province = Site::enrolled(Level::Province, "辽宁省", None).await;
    province.start(&exchange).await;
    let mut city = Site::enrolled(Level::City, "抚顺市", Some(&province)).await;
    city.start(&exchange).await;

    // A code is for one node, and for what the inviter said.
    let code = city.invite(Level::County, "清原县").await;
    let mut county = Site {
        data_dir: tempfile::tempdir().unwrap(),
        settings: Settings {
            name: Some("清原县".into()),
            level: Some(Level::County),
            organisation: Some(ORGANISATION),
            parent: Some(city.listens().to_string()),
            ..Settings::default()
        },
        nats: None,
        running: None,
        media: None,
        outputs: Arc::default(),
    };
    let wrong = Code {
        secret: [0; 16],
        ..code.clone()
    };
    let error = county.enrol(&wrong.text()).await.unwrap_err();
    assert!(format!("{error:#}").contains("code is wrong"), "{error:#}");
    let foreign = Code {
        authority: [7; 32],
        ..code.clone()
    };
    let error = county.enrol(&foreign.text()).await.unwrap_err();
    assert!(
        format!("{error:#}").contains("another deployment"),
        "{error:#}"
    );
    let elsewhere = Code {
        parent: province.node().await,
        ..code.clone()
    };
    assert!(county.enrol(&elsewhere.text()).await.is_err());
    assert!(county.enrol("nonsense").await.is_err());
    county.enrol(&code.text()).await.unwrap();
    let error = county.enrol(&code.text()).await.unwrap_err();
    assert!(format!("{error:#}").contains("code is wrong"), "{error:#}");
    let inviter = city.open().await;
    let above = Invitation {
        place: new_place(Level::Province, ORGANISATION),
        name: "x".into(),
    };
    assert!(
        inviter
            .invite(&above, Duration::from_secs(60))
            .await
            .is_err()
    );

    // What the configuration says must be what the certificate says.
    let mut other = county.settings.clone();
    other.level = Some(Level::Township);
    let error = super::open(&other, county.data_dir.path())
        .await
        .err()
        .unwrap();
    assert!(error.to_string().contains("level county"), "{error}");

    county.start(&exchange).await;
    let nodes = [
        province.node().await,
        city.node().await,
        county.node().await,
    ];
    until("the county's line is up", || city.is_line_up(nodes[2])).await;
    until("the city's line is up", || city.is_line_up(nodes[0])).await;
    county.join(nodes[0], "village-hall").await;
    until("the province sees who is in the county", || {
        province.sees("village-hall")
    })
    .await;
    let known = province.open().await;
    let known = known
        .store
        .certificates(Which::Node(nodes[2]))
        .await
        .unwrap();
    assert_eq!(known[0].0.subject.name, "清原县");
    assert_eq!(known[0].0.subject.parent, Some(nodes[1]));

    // Without a certificate of the deployment there is nothing to hear, with one that is not above
    // somebody nothing to do.
    let stranger = credentials::pinned_config(code.authority, nodes[1]).unwrap();
    let stranger = client::Client::new(&city.listens().to_string(), Arc::new(stranger)).unwrap();
    for path in [
        "/node/revocations",
        &format!("/node/certificates/{}", nodes[0]),
    ] {
        let answer = stranger.get(path).await.unwrap_err();
        assert!(answer.to_string().contains("may not"), "{answer}");
    }
    let registrar = county.open().await;
    assert!(matches!(
        registrar.revoke(nodes[1]).await,
        Err(registrar::Fault::Refused(_))
    ));

    // Revoked at the command line of the province, while everything runs.
    province.open().await.revoke(nodes[2]).await.unwrap();
    until("the city has no line to the county", async || {
        !city.has_line(nodes[2]).await
    })
    .await;
    until("nobody is left on the roster", async || {
        province.people().await == 0
    })
    .await;
    let error = registrar.refresh_revocations().await.unwrap_err();
    assert!(
        format!("{error:#}").contains("can't be reached"),
        "{error:#}"
    );
    assert!(registrar.renew_own(&[], i64::MAX).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_renewed_in_time_and_what_it_signs_is_taken_at_once() {
    let exchange = Exchange::default();
    let mut province = Site::enrolled(Level::Province, "p", None).await;
    province.start(&exchange).await;
    let city = Site::enrolled(Level::City, "c", Some(&province)).await;
    let registrar = city.open().await;
    let before = registrar.credentials.certificate();
    let hosts = city.settings.hosts.clone();
    assert!(!registrar.renew_own(&hosts, unix_now()).await.unwrap());
    let late = before.ends - 20 * 24 * 60 * 60;
    assert!(registrar.renew_own(&hosts, late).await.unwrap());
    let after = registrar.credentials.certificate();
    assert_eq!(after.subject, before.subject);
    assert_ne!(after.key, before.key);
    let again = city.open().await;
    assert_eq!(again.credentials.certificate(), after);
    let at_parent = province.open().await;
    let signature = seal::Seal::sign(&*again.credentials, b"words");
    let is_signed =
        |bytes| seal::Seal::is_signed_by(&*at_parent.credentials, after.node(), bytes, &signature);
    assert!(is_signed(b"words"));
    assert!(!is_signed(b"other"));
}

#[tokio::test]
async fn what_was_changed_on_the_way_is_not_believed() {
    let province = Site::enrolled(Level::Province, "p", None).await;
    let registrar = province.open().await;
    let credentials = &registrar.credentials;
    let der = credentials.certificate().der().to_vec();
    for at in 0..der.len() {
        let mut changed = der.clone();
        changed[at] ^= 1;
        let changed = rustls::pki_types::CertificateDer::from(changed);
        assert!(credentials.check(&changed).is_err(), "byte {at}");
    }
    let (number, list) = credentials.revocations();
    assert!(!credentials.adopt(&list).unwrap(), "it is known already");
    for at in 0..list.len() {
        let mut changed = list.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(!credentials.adopt(&changed).unwrap_or(false), "byte {at}");
    }
    assert_eq!(credentials.revocations(), (number, list));
    let code = province.invite(Level::City, "c").await.text();
    assert!(Code::read(&code).is_some_and(|read| read.text() == code));
    for at in 0..code.len() {
        assert!(Code::read(&code[at + 1..]).is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_loses_its_parent_takes_its_second_way_whose_node_never_met_it() {
    let exchange = Exchange::default();
    let mut province = Site::enrolled(Level::Province, "p", None).await;
    province.start(&exchange).await;
    let mut parent = Site::enrolled(Level::City, "a", Some(&province)).await;
    parent.start(&exchange).await;
    let mut county = Site::enrolled(Level::County, "q", Some(&parent)).await;
    let certificate = county.open().await.credentials.certificate();
    let mut second = Site::enrolled(Level::City, "b", Some(&province)).await;
    second.settings.second_for = vec![certificate.node()];
    second.start(&exchange).await;
    county.settings.second = Some(second.node().await);
    county.start(&exchange).await;
    let root = province.node().await;
    let way = async |site: &Site| site.cascade().with(|node, _| node.way()).await.unwrap();
    let (a, b) = (parent.node().await, second.node().await);
    until("both ways are there", async || {
        county.is_line_up(a).await && county.is_line_up(b).await
    })
    .await;
    until("the county takes the better way", async || {
        way(&county).await == Some(a)
    })
    .await;
    county.join(root, "somebody").await;
    until("the province sees the county", || province.sees("somebody")).await;
    parent.stop();
    until("the county takes its second way", async || {
        way(&county).await == Some(b)
    })
    .await;
    until("the second city sees the county", || {
        second.sees("somebody")
    })
    .await;
    until("the province sees the county there", async || {
        let id = certificate.node();
        let below = province
            .cascade()
            .with(move |node, _| {
                node.below()
                    .any(|one| one.place.node == id && one.way == Some(b))
            })
            .await;
        below == Some(true) && province.sees("somebody").await
    })
    .await;
}

/// Loses, doubles and delays messages.
struct Rough {
    inner: Arc<bus::MemoryBus>,
    count: AtomicU64,
}

impl Bus for Rough {
    fn listen(&self, neighbour: NodeId) {
        self.inner.listen(neighbour);
    }

    fn ignore(&self, neighbour: NodeId) {
        self.inner.ignore(neighbour);
    }

    fn send(&self, to: NodeId, message: Vec<u8>) {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        if count % 7 == 3 {
            return;
        }
        if count.is_multiple_of(3) {
            let (inner, late) = (self.inner.clone(), message.clone());
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(count % 5 * 40)).await;
                inner.send(to, late);
            });
            if count.is_multiple_of(2) {
                return;
            }
        }
        self.inner.send(to, message);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_bus_loses_doubles_and_delays_is_told_once_and_in_order() {
    const WORDS: usize = 50;
    let exchange = Exchange::default();
    let mut province = Site::enrolled(Level::Province, "p", None).await;
    province.start(&exchange).await;
    let city = Site::enrolled(Level::City, "c", Some(&province)).await;
    province.stop();
    let exchange = Exchange::default();
    let mut cascades = Vec::new();
    for site in [&province, &city] {
        let registrar = site.open().await;
        let place = registrar.credentials.certificate().subject.place;
        cascades.push((place, registrar));
    }
    let certificates = [0, 1].map(|at: usize| cascades[at].1.credentials.certificate());
    let [province, city] = [0, 1].map(|at: usize| {
        let (place, registrar) = &cascades[at];
        registrar.credentials.learn(&certificates[1 - at]).unwrap();
        let (sender, inbox) = mpsc::channel(INBOX_BOUND);
        let rough = Rough {
            inner: Arc::new(exchange.join(place.node, sender)),
            count: AtomicU64::new(at as u64),
        };
        rough.listen(certificates[1 - at].node());
        let config = NodeConfig {
            place: *place,
            ways: certificates[at].subject.parent.into_iter().collect(),
            siblings: Vec::new(),
            incarnation: 7,
            logs: Vec::new(),
        };
        let (credentials, store) = (registrar.credentials.clone(), registrar.store.clone());
        let (cascade, mut outputs) =
            Cascade::start(config, credentials, store, Arc::new(rough), inbox);
        tokio::spawn(async move { while outputs.recv().await.is_some() {} });
        let other = certificates[1 - at].node();
        let media = cascade.clone();
        tokio::spawn(async move {
            let hear = move |node: &mut signaling::cascade::Node, moment| {
                node.add_line(moment, other);
                node.heard_media(moment, other);
            };
            while media.with(hear).await.is_some() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        cascade
    });
    let root = certificates[0].node();
    let newcomer = Newcomer {
        identity: Identity::from("speaker"),
        name: "speaker".into(),
        organisation: ORGANISATION,
        chair_of: None,
    };
    let joined = city.with(move |node, moment| node.join(moment, CONFERENCE, root, newcomer));
    let session = joined.await.unwrap().unwrap();
    until("the province sees who speaks", async || {
        let speaker = Identity::from("speaker");
        let seen = province.with(move |node, _| node.participant(CONFERENCE, &speaker).is_some());
        seen.await == Some(true)
    })
    .await;
    for word in 0..WORDS {
        let deed = Deed::Chat(word.to_string().into());
        let acted = city.with(move |node, moment| node.act(moment, CONFERENCE, session, deed));
        acted.await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let said = async || {
        let log = province.with(|node, _| node.log(CONFERENCE)).await.unwrap();
        let words = log.iter().filter_map(|entry| match &entry.act.deed {
            Deed::Chat(words) => words.parse::<usize>().ok(),
            _ => None,
        });
        words.collect::<Vec<usize>>()
    };
    until("all was said", async || said().await.len() >= WORDS).await;
    assert_eq!(said().await, (0..WORDS).collect::<Vec<usize>>());
    // What took effect is in the file, once.
    let logs = cascades[0].1.store.logs().await.unwrap();
    assert_eq!(logs.len(), 1);
    assert_eq!((logs[0].0, logs[0].1), (CONFERENCE, root));
    assert_eq!(logs[0].2.len(), WORDS);
}

fn attack(credentials: &Arc<Credentials>, server: NodeId) -> async_nats::ConnectOptions {
    async_nats::ConnectOptions::new()
        .require_tls(true)
        .tls_client_config(credentials.client_config(&[server]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_nats_only_who_is_enrolled_speaks_and_only_as_itself() {
    let exchange = Exchange::default();
    let mut province = Site::enrolled(Level::Province, "p", None).await;
    province.start_nats(None).await;
    province.start(&exchange).await;
    let mut city = Site::enrolled(Level::City, "c", Some(&province)).await;
    city.start_nats(Some(&province)).await;
    city.start(&exchange).await;
    let mut county = Site::enrolled(Level::County, "q", Some(&city)).await;
    county.start_nats(Some(&city)).await;
    county.start(&exchange).await;
    // It has no NATS server: it is a client of its parent's.
    let mut sibling = Site::enrolled(Level::County, "x", Some(&city)).await;
    let city_nats = city.nats.as_ref().unwrap().url();
    sibling.settings.nats = Some(city_nats.clone());
    sibling.start(&exchange).await;
    let p = province.node().await;
    let c = city.node().await;
    let q = county.node().await;
    let x = sibling.node().await;
    until("the province's line is up", || province.is_line_up(c)).await;
    until("the county's line is up", || county.is_line_up(c)).await;
    until("the sibling's line is up", || sibling.is_line_up(c)).await;
    county.join(p, "a").await;
    until("the province sees the county", || province.sees("a")).await;

    // The city's own subject of the county is read along, to play back later what came there.
    let city_credentials = city.open().await.credentials.clone();
    let county_credentials = county.open().await.credentials.clone();
    let sibling_credentials = sibling.open().await.credentials.clone();
    let ear = attack(&city_credentials, c)
        .connect(&city_nats)
        .await
        .unwrap();
    let mut heard = ear
        .subscribe(format!("terrace.node.{c}.{q}"))
        .await
        .unwrap();
    let county_nats = county.nats.as_ref().unwrap().url();
    let mouth = attack(&county_credentials, q)
        .connect(&county_nats)
        .await
        .unwrap();
    let say = async |from: NodeId, message: Vec<u8>| {
        let subject = format!("terrace.node.{c}.{from}");
        mouth.publish(subject, message.into()).await.unwrap();
        mouth.flush().await.unwrap();
    };
    let envelope = |from: NodeId| Envelope {
        from,
        to: c,
        incarnation: 1,
        to_incarnation: Some(1),
        number: 1 << 40,
        message: Message::Unknown {
            conference: CONFERENCE,
            stream: 1,
        },
    };

    // The county signs as the province, and as its sibling.
    let bad = Refused::Sealed(seal::SealError::BadSignature);
    for (count, victim) in [(1, p), (2, x)] {
        let forged = seal::seal(&envelope(victim), &*county_credentials).unwrap();
        say(q, forged).await;
        until("a forged message is refused", async || {
            city.refused(q, bad) == count
        })
        .await;
    }
    // It passes on what its sibling really signed.
    let foreign = seal::seal(&envelope(x), &*sibling_credentials).unwrap();
    say(q, foreign.clone()).await;
    until("another's message is refused", async || {
        city.refused(q, Refused::WrongSender) == 1
    })
    .await;
    // It can't even say it where its sibling speaks.
    say(x, b"nonsense".to_vec()).await;
    say(q, b"nonsense".to_vec()).await;
    let malformed = Refused::Sealed(seal::SealError::Malformed);
    until("nonsense is refused", async || {
        city.refused(q, malformed) == 1
    })
    .await;
    assert_eq!(city.refused(x, malformed), 0);
    // What the county said itself is played back.
    let recorded = loop {
        let message = futures_util::StreamExt::next(&mut heard).await.unwrap();
        let opened = seal::open(&message.payload, c, &*city_credentials_of(&city).await);
        if matches!(
            opened,
            Ok(Envelope {
                message: Message::Heartbeat(_),
                ..
            })
        ) {
            break message.payload;
        }
    };
    // Later ones have come by then.
    futures_util::StreamExt::next(&mut heard).await.unwrap();
    futures_util::StreamExt::next(&mut heard).await.unwrap();
    let before = city.refused(q, Refused::Core(Refusal::Stale));
    say(q, recorded.to_vec()).await;
    until("a replay is refused", async || {
        city.refused(q, Refused::Core(Refusal::Stale)) > before
    })
    .await;
    assert!(city.is_line_up(q).await);

    // Somebody from another deployment does not get a connection.
    let foreign = Site::enrolled(Level::City, "f", None).await;
    let foreign = foreign.open().await.credentials.clone();
    let pin = credentials::fingerprint(city_credentials.authority());
    let mut tls = credentials::pinned_config(pin, c).unwrap();
    tls.client_auth_cert_resolver = foreign.client_config(&[c]).client_auth_cert_resolver;
    let stranger = async_nats::ConnectOptions::new().tls_client_config(tls);
    assert!(stranger.connect(&city_nats).await.is_err());

    // Nor does the sibling when it is revoked, and its line is gone.
    province.open().await.revoke(x).await.unwrap();
    until("the city has no line to the sibling", async || {
        !city.has_line(x).await
    })
    .await;
    until("NATS refuses the sibling", async || {
        attack(&sibling_credentials, c)
            .connect(&city_nats)
            .await
            .is_err()
    })
    .await;
    assert!(city.is_line_up(q).await);

    // The city's NATS server is killed and comes back: messages flow, and somebody new joins.
    city.nats.as_mut().unwrap().kill().await;
    until("the county's line is lost", async || {
        !county.is_line_up(c).await
    })
    .await;
    city.nats.as_mut().unwrap().restart();
    until("the county's line is back", || county.is_line_up(c)).await;
    until("the province's line is back", || province.is_line_up(c)).await;
    // It hangs: nobody is told, everybody notices, and it is back when it goes on.
    let stop = rustix::process::Signal::STOP;
    city.nats.as_ref().unwrap().signal(stop);
    until("the county's line is lost", async || {
        !county.is_line_up(c).await
    })
    .await;
    city.nats
        .as_ref()
        .unwrap()
        .signal(rustix::process::Signal::CONT);
    until("the county's line is back", || county.is_line_up(c)).await;
    let mut new = Site::enrolled(Level::County, "n", Some(&city)).await;
    new.settings.nats = Some(city_nats);
    new.start(&exchange).await;
    until("the new county's line is up", || new.is_line_up(c)).await;
    new.join(p, "b").await;
    until("the province sees the new county", || province.sees("b")).await;
    assert!(province.sees("a").await);
}

async fn city_credentials_of(city: &Site) -> Arc<Credentials> {
    city.open().await.credentials.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_levels_over_nats_are_one_roster_through_cut_and_heal() {
    let exchange = Exchange::default();
    let mut sites: Vec<Site> = Vec::new();
    for level in Level::ALL {
        let mut site = Site::enrolled(level, level.name(), sites.last()).await;
        match sites.last().and_then(|parent| parent.nats.as_ref()) {
            Some(nats) if level == Level::Village => site.settings.nats = Some(nats.url()),
            _ => site.start_nats(sites.last()).await,
        }
        site.start(&exchange).await;
        sites.push(site);
    }
    let [province, city, county, township, village] = &mut sites[..] else {
        panic!("there are five levels");
    };
    let (province, city, township, village) = (&*province, &*city, &*township, &*village);
    let root = province.node().await;
    let (city_node, township_node) = (city.node().await, township.node().await);
    until("the village's line is up", async || {
        village.is_line_up(township_node).await
    })
    .await;
    province.join(root, "chair").await;
    village.join(root, "villager").await;
    let took = until("the province sees the village", || {
        province.sees("villager")
    })
    .await;
    println!("from a village's join to the province's roster: {took:?}");

    // The county's NATS server is killed: the township is cut off.
    let cut = Instant::now();
    county.nats.as_mut().unwrap().kill().await;
    let told = |site: &Site| {
        let outputs = site.outputs.lock().unwrap();
        let mut own = outputs.iter().filter(|(at, output)| {
            *at > cut
                && matches!(
                    output,
                    Output::Event {
                        event: Event::Epoch { is_own: true, .. },
                        ..
                    }
                )
        });
        own.next().map(|(at, _)| *at - cut)
    };
    until("the township says that it goes on by itself", async || {
        told(township).is_some()
    })
    .await;
    let took = told(township).unwrap();
    println!("from the cut to the township's own epoch: {took:?}");
    // 3 s on a clock without other load; on a shared machine three times that.
    assert!(took < Duration::from_secs(9), "{took:?}");
    let is_lost = |output: &Output| {
        matches!(
            output,
            Output::Line {
                cause: Some(Cause::ControlSilent | Cause::NotHeard),
                ..
            }
        )
    };
    let outputs = township.outputs.lock().unwrap().clone();
    assert!(outputs.iter().any(|(_, output)| is_lost(output)));
    village.join(root, "latecomer").await;
    until("the township sees who came during the cut", || {
        township.sees("latecomer")
    })
    .await;
    until("the county is cut off too", async || {
        !county.is_line_up(city_node).await
    })
    .await;
    assert!(!province.sees("latecomer").await);

    // It comes back.
    let healed = Instant::now();
    county.nats.as_mut().unwrap().restart();
    until("the province sees who came during the cut", || {
        province.sees("latecomer")
    })
    .await;
    println!(
        "from the server's start to one roster: {:?}",
        healed.elapsed()
    );
    assert!(province.sees("villager").await);
    assert_eq!(province.people().await, 3);
    let epochs = async |site: &Site| {
        let epoch = |node: &mut signaling::cascade::Node, _| node.epoch(CONFERENCE);
        site.cascade().with(epoch).await.unwrap()
    };
    until("all are in one epoch", async || {
        epochs(village).await == epochs(province).await
    })
    .await;
}
