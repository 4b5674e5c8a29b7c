//! Puts everything together and runs it until it is asked to end.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use axum::routing::get;
use axum_server::Handle;
use base64::Engine as _;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rand::RngCore as _;
use signaling::token::KeyRing;
use signaling::visitors::{Places, Visitor};
use signaling::{EventSink, Hub, HubConfig, Media};

use crate::config::{Config, TlsMode};
use crate::connections::{Bounded, HEADER_TIME, UNREAD_TIME, bound_by_files};
use crate::door::{Door, MeetingGate, own_keys};
use crate::guesses::Guesses;
use crate::meetings::Meetings;
use crate::node::runtime::Cascade;
use crate::{api, door, tls, web};

/// How often a silent HTTP/2 connection is asked whether its client is still there.
const ASK_INTERVAL: Duration = Duration::from_secs(20);
/// Requests at once on one HTTP/2 connection; the web client's pages take some twenty.
const REQUESTS_AT_ONCE: u32 = 64;
/// Connections to the metrics address; monitoring takes one or two.
const METRICS_CONNECTIONS: usize = 64;
/// How long an answer may take; a WebSocket is answered when it opens.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// How long sessions have to hear why they end before connections are cut.
const DRAIN_TIME: Duration = Duration::from_secs(3);

/// The media core: shards, each with a thread and UDP ports of its own.
#[derive(Clone)]
pub(crate) struct Shards(Arc<[sfu::driver::ShardHandle]>);

impl Media for Shards {
    fn shards(&self) -> usize {
        self.0.len()
    }

    fn send(&self, shard: usize, command: sfu::Command) {
        self.0[shard].send(command);
    }

    fn busy(&self, shard: usize) -> u64 {
        self.0[shard].metrics().busy
    }
}

impl Shards {
    /// Starts them, each at the ports after the one before.
    pub(crate) fn start(media: &crate::config::Media, sink: &EventSink) -> anyhow::Result<Shards> {
        let start = |shard: u16| {
            let sink = sink.of_shard(usize::from(shard));
            let config = sfu::driver::DriverConfig {
                listen: media.listen_of(shard)?,
                announce: media.announce.clone(),
            };
            sfu::driver::start(config, move |event| sink.put(event)).context(
                "the media core can't start: each shard needs a UDP port, upwards from \
                 media.listen; media.shards bounds them",
            )
        };
        let shards: anyhow::Result<_> = (0..media.shard_count()).map(start).collect();
        Ok(Shards(shards?))
    }

    /// The addresses at which clients reach them.
    fn candidates(&self) -> Vec<SocketAddr> {
        let all = self.0.iter().flat_map(|shard| shard.candidates());
        all.copied().collect()
    }

    pub(crate) fn totals(&self) -> sfu::Totals {
        self.0.iter().map(sfu::driver::ShardHandle::metrics).sum()
    }

    pub(crate) fn shutdown(&self) {
        for shard in &*self.0 {
            shard.shutdown();
        }
    }
}

/// Makes the data folder, for its owner only.
pub(crate) fn prepare_data_dir(folder: &Path) -> anyhow::Result<()> {
    let is_new = !folder.exists();
    fs::create_dir_all(folder).with_context(|| {
        format!(
            "the data folder {} can't be made: set data_dir",
            folder.display()
        )
    })?;
    #[cfg(unix)]
    if is_new {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// The secret of the server's own tokens; made at first.
fn own_secret(folder: &Path) -> anyhow::Result<String> {
    let file = folder.join("meetings.key");
    match fs::read_to_string(&file) {
        Ok(secret) => {
            crate::config::check_private(&file, "the key of meetings")?;
            let secret = secret.trim().to_owned();
            if secret.len() < crate::config::SECRET_LENGTH {
                bail!(
                    "{} is damaged: delete it to have a new one made",
                    file.display()
                );
            }
            Ok(secret)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut bytes = [0; 48];
            rand::rng().fill_bytes(&mut bytes);
            let secret = base64::engine::general_purpose::STANDARD_NO_PAD.encode(bytes);
            tls::write_private(&file, secret.as_bytes())?;
            Ok(secret)
        }
        Err(error) => Err(error).with_context(|| format!("can't read {}", file.display())),
    }
}

/// Everything that answers on the public address.
pub(crate) fn app(
    door: Arc<Door>,
    api: &Arc<api::Api>,
    cascade: Option<&Cascade>,
    is_strict: bool,
) -> Router {
    let hub = door.hub.clone();
    let of_door = door.clone();
    let conferences = cascade.map_or_else(Router::new, |cascade| {
        crate::node::roster::router(hub.clone(), cascade.clone())
    });
    Router::new()
        .merge(conferences)
        .merge(signaling::session::router(hub.clone()))
        .merge(signaling::twirp::router(hub.clone()))
        .merge(signaling::diagnostics::router(hub.clone()))
        .merge(signaling::whip::router(hub.clone()))
        .merge(api::router(api))
        .merge(door::router(door))
        .merge(health(hub))
        .merge(web::router())
        .layer(from_fn(move |request: Request, next: Next| {
            web::guard(is_strict, request, next)
        }))
        .layer(from_fn(within_time))
        .layer(from_fn(move |request: Request, next: Next| {
            name_visitor(of_door.clone(), request, next)
        }))
}

/// Tells those behind where a request comes from.
async fn name_visitor(
    door: Arc<Door>,
    mut request: Request,
    next: Next,
) -> axum::response::Response {
    if let Some(ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<SocketAddr>>() {
        let address = door::visitor(peer.ip(), request.headers(), &door.trusted_proxies);
        request.extensions_mut().insert(Visitor(address));
    }
    next.run(request).await
}

/// Ends a request that takes too long.
pub(crate) async fn within_time(request: Request, next: Next) -> axum::response::Response {
    match tokio::time::timeout(ANSWER_TIME, next.run(request)).await {
        Ok(response) => response,
        Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
    }
}

fn health(hub: Arc<Hub>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(ready))
        .with_state(hub)
}

async fn ready(State(hub): State<Arc<Hub>>) -> (StatusCode, &'static str) {
    if hub.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining")
    } else {
        (StatusCode::OK, "ready")
    }
}

fn metrics_router(hub: Arc<Hub>, shards: Shards, cascade: Option<Cascade>) -> Router {
    let show = {
        let hub = hub.clone();
        move || async move {
            let text = metrics(&hub, &shards, cascade.as_ref());
            (
                [(
                    header::CONTENT_TYPE,
                    "text/plain; version=0.0.4; charset=utf-8",
                )],
                text,
            )
        }
    };
    health(hub)
        .route("/metrics", get(show))
        .layer(from_fn(within_time))
}

fn metrics(hub: &Hub, shards: &Shards, cascade: Option<&Cascade>) -> String {
    let counts = hub.counts();
    let totals = shards.totals();
    let mut text = String::new();
    let mut put = |name: &str, kind: &str, help: &str, value: u64| {
        text.push_str(&format!(
            "# HELP terrace_{name} {help}\n# TYPE terrace_{name} {kind}\nterrace_{name} {value}\n"
        ));
    };
    put("rooms", "gauge", "Rooms open.", counts.rooms as u64);
    put(
        "participants",
        "gauge",
        "Participants in rooms.",
        counts.participants as u64,
    );
    put(
        "tracks",
        "gauge",
        "Tracks that are live.",
        counts.tracks as u64,
    );
    put(
        "sessions",
        "gauge",
        "Sessions of clients: WebSockets, WHIP and WHEP.",
        counts.sessions as u64,
    );
    put("joins_total", "counter", "Joins since start.", counts.joins);
    put(
        "resumes_total",
        "counter",
        "Sessions resumed since start.",
        counts.resumes,
    );
    put(
        "joins_refused_overload_total",
        "counter",
        "Joins refused because the media core was at its limit.",
        counts.overloaded,
    );
    put(
        "sessions_refused_total",
        "counter",
        "Sessions ended for breaking the protocol or a bound.",
        counts.refused,
    );
    put(
        "sessions_slow_total",
        "counter",
        "Sessions ended for reading too slowly.",
        counts.slow,
    );
    put(
        "draining",
        "gauge",
        "1 while the server lets nobody in.",
        hub.is_draining().into(),
    );
    put(
        "media_shards",
        "gauge",
        "Threads of the media core.",
        shards.shards() as u64,
    );
    put(
        "media_connections",
        "gauge",
        "WebRTC connections.",
        totals.connections,
    );
    put(
        "media_tracks",
        "gauge",
        "Tracks known to the media core.",
        totals.tracks,
    );
    put(
        "media_subscriptions",
        "gauge",
        "Tracks sent to receivers.",
        totals.subscriptions,
    );
    put(
        "media_datagrams_in_total",
        "counter",
        "Datagrams received.",
        totals.datagrams_in,
    );
    put(
        "media_datagrams_out_total",
        "counter",
        "Datagrams sent.",
        totals.datagrams_out,
    );
    put(
        "media_messages_out_total",
        "counter",
        "Messages that the datagrams sent were joined into for the kernel to cut.",
        totals.messages_out,
    );
    put(
        "media_sends_total",
        "counter",
        "Times that messages were handed to the kernel.",
        totals.sends,
    );
    put(
        "media_busy_permille",
        "gauge",
        "Thousandths of about the last second in which the busiest media thread was not waiting.",
        totals.busy,
    );
    put(
        "media_bytes_in_total",
        "counter",
        "Bytes received.",
        totals.bytes_in,
    );
    put(
        "media_bytes_out_total",
        "counter",
        "Bytes sent.",
        totals.bytes_out,
    );
    put(
        "media_strangers_total",
        "counter",
        "Datagrams of nobody known.",
        totals.strangers,
    );
    put(
        "media_late_total",
        "counter",
        "Media datagrams left out because they had waited too long for the processor.",
        totals.late,
    );
    put(
        "media_failures_total",
        "counter",
        "Connections that failed.",
        totals.failures,
    );
    if let Some(cascade) = cascade {
        put(
            "node_lines_up",
            "gauge",
            "Lines to other nodes that carry control and media.",
            cascade.lines_up.load(Ordering::Relaxed),
        );
        put(
            "node_messages_refused_total",
            "counter",
            "Messages from other nodes that were not taken.",
            cascade.refusals.total(),
        );
    }
    text
}

/// Runs the server until SIGTERM or SIGINT.
pub(crate) async fn run(config: Config, is_dev: bool) -> anyhow::Result<()> {
    config.check(is_dev)?;
    prepare_data_dir(&config.data_dir)?;
    let meetings = Meetings::open(&config.data_dir).await?;
    let lock = api::open::lock(&config.data_dir)?;
    let (api, head_key) = api::open::open(&config, is_dev).await?;
    let secret = own_secret(&config.data_dir)?;
    let own = own_keys(&secret);
    let mut pairs: Vec<(String, String)> = config
        .keys
        .iter()
        .map(|(key, secret)| (key.clone(), secret.clone()))
        .collect();
    pairs.push((crate::meetings::MEETING_KEY.to_owned(), secret));

    let (sink, events) = signaling::event_queue();
    let shards = Shards::start(&config.media, &sink)?;
    let hub = Hub::new(
        HubConfig {
            keys: KeyRing::new(pairs),
            limits: config.signaling_limits(),
            gate: Some(Arc::new(MeetingGate(meetings.clone()))),
            ice_servers: config
                .media
                .ice_servers
                .iter()
                .map(|server| server.0.clone())
                .collect(),
        },
        Arc::new(shards.clone()),
    );
    let door = Arc::new(Door {
        hub: hub.clone(),
        meetings,
        keys: own,
        guesses: Guesses::default(),
        trusted_proxies: if config.http.behind_proxy {
            config.http.trusted_proxies.clone()
        } else {
            Vec::new()
        },
    });
    tokio::spawn(hub.clone().run(events));
    tokio::spawn(door::watch(door.clone()));

    let node = if config.node.is_set() {
        let exchange = crate::node::bus::Exchange::default();
        let (mut node, outputs) =
            crate::node::start(&config.node, &config.data_dir, &exchange).await?;
        node.join(hub.clone(), outputs);
        Some(node)
    } else {
        None
    };
    let cascade = node.as_ref().map(|node| node.cascade.clone());

    let candidates = shards.candidates();
    let addresses: Vec<_> = candidates.iter().map(SocketAddr::ip).collect();
    let served = tls::load(&config, &addresses).await?;
    let is_tls = config.tls.mode != TlsMode::Off;
    // Only a certificate that browsers trust by itself: after it, they take no other for a year.
    let is_trusted = config.tls.mode == TlsMode::Files;
    let service = app(door.clone(), &api, cascade.as_ref(), is_trusted)
        .into_make_service_with_connect_info::<SocketAddr>();
    let handle = Handle::new();
    let listener = listen(config.http.listen)?;
    let metrics_listener = listen(config.metrics.listen)?;
    let metrics_service = metrics_router(hub.clone(), shards.clone(), cascade).into_make_service();
    let metrics_handle = Handle::new();
    let metrics_places = Places::new(METRICS_CONNECTIONS, 0);
    let mut metrics_server = axum_server::from_tcp(metrics_listener)?
        .handle(metrics_handle.clone())
        .map(|inner| Bounded::new(inner, metrics_places, &[], true));
    set_times(metrics_server.http_builder());
    let metrics_task = tokio::spawn(metrics_server.serve(metrics_service));

    let words = served
        .as_ref()
        .map(|served| served.words.clone())
        .unwrap_or_default();
    let main_task = {
        let handle = handle.clone();
        let places = Places::new(
            bound_by_files(config.limits.connections),
            config.limits.connections_per_address,
        );
        let proxies = door.trusted_proxies.clone();
        match served {
            Some(served) => {
                let mut server = axum_server::from_tcp_rustls(listener, served.config)?
                    .handle(handle)
                    .map(|inner| {
                        let inner = inner.handshake_timeout(HEADER_TIME);
                        Bounded::new(inner, places, &proxies, false)
                    });
                set_times(server.http_builder());
                tokio::spawn(async move { server.serve(service).await })
            }
            None => {
                let mut server = axum_server::from_tcp(listener)?
                    .handle(handle)
                    .map(|inner| Bounded::new(inner, places, &proxies, true));
                set_times(server.http_builder());
                tokio::spawn(async move { server.serve(service).await })
            }
        }
    };
    println!("梯田视联 Terrace {}", env!("CARGO_PKG_VERSION"));
    println!("  {}", config.public_url());
    if !words.is_empty() {
        println!("{words}");
    }
    if let Some(code) = api.setup_code() {
        println!(
            "  初始设置码 set-up code: {code}\n  \
             还没有人员。打开 {0}/setup,用此码建立首个机构和三位管理员。\n  \
             Nobody is there yet: with it the first organisation and the three administrators are made at {0}/setup.",
            config.public_url()
        );
    }
    if is_dev {
        println!("  --dev: API key devkey, secret \"secret\". For developing only.");
        if !config.http.listen.ip().is_loopback() {
            tracing::warn!(
                listen = %config.http.listen,
                "--dev on an address that others can reach: anybody can make tokens. Use it in \
                 closed test networks only"
            );
        }
    }
    tracing::info!(
        http = %config.http.listen,
        media = ?candidates,
        metrics = %config.metrics.listen,
        tls = is_tls,
        "ready"
    );

    let heads = tokio::spawn(api::open::sign_heads(api.clone(), head_key));

    asked_to_end().await?;
    tracing::info!("draining: clients are told to come back to the next process");
    hub.drain();
    api.ending.send_replace(true);
    // The leaves are on their way when the connections that still linger are cut.
    tokio::time::sleep(Duration::from_millis(300)).await;
    handle.graceful_shutdown(Some(DRAIN_TIME));
    let _ = tokio::time::timeout(DRAIN_TIME + Duration::from_secs(1), main_task).await;
    metrics_handle.shutdown();
    let _ = tokio::time::timeout(Duration::from_secs(1), metrics_task).await;
    // The head was signed as the drain began; what the last requests wrote is under the first one of the next start.
    let _ = tokio::time::timeout(DRAIN_TIME, heads).await;
    api.directory.close().await;
    drop(lock);
    tokio::task::spawn_blocking(move || shards.shutdown()).await?;
    drop(node);
    tracing::info!("ended");
    Ok(())
}

/// How long HTTP waits for its clients.
pub(crate) fn set_times(builder: &mut hyper_util::server::conn::auto::Builder<TokioExecutor>) {
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(ASK_INTERVAL)
        .keep_alive_timeout(UNREAD_TIME)
        .max_concurrent_streams(REQUESTS_AT_ONCE);
}

pub(crate) fn listen(address: SocketAddr) -> anyhow::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)
        .with_context(|| format!("can't listen on {address}: is another server running there?"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn asked_to_end() -> anyhow::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            result = tokio::signal::ctrl_c() => result?,
            _ = terminate.recv() => {}
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::ConnectInfo;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    struct NoMedia;
    impl Media for NoMedia {
        fn send(&self, _: usize, _: sfu::Command) {}
    }

    async fn door() -> (Arc<Door>, Arc<api::Api>, Meetings, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let meetings = Meetings::open(folder.path()).await.unwrap();
        let secret = own_secret(folder.path()).unwrap();
        assert_eq!(own_secret(folder.path()).unwrap(), secret);
        let hub = Hub::new(
            HubConfig {
                keys: KeyRing::new([(crate::meetings::MEETING_KEY.to_owned(), secret.clone())]),
                limits: Default::default(),
                gate: Some(Arc::new(MeetingGate(meetings.clone()))),
                ice_servers: Vec::new(),
            },
            Arc::new(NoMedia),
        );
        let door = Door {
            hub,
            meetings: meetings.clone(),
            keys: own_keys(&secret),
            guesses: Guesses::default(),
            trusted_proxies: Vec::new(),
        };
        let mut config = Config::defaults(true);
        config.data_dir = folder.path().to_owned();
        let (api, _) = api::open::open(&config, true).await.unwrap();
        (Arc::new(door), api, meetings, folder)
    }

    async fn ask(
        app: &Router,
        request: axum::http::request::Builder,
        body: &str,
    ) -> (StatusCode, serde_json::Value, axum::http::HeaderMap) {
        let mut request = request.body(Body::from(body.to_owned())).unwrap();
        request
            .extensions_mut()
            .insert(ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 5))));
        let response = app.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (
            status,
            serde_json::from_slice(&body).unwrap_or_default(),
            headers,
        )
    }

    fn request(method: &str, uri: &str) -> axum::http::request::Builder {
        Request::builder()
            .method(method)
            .uri(uri)
            .header("host", "meet.example")
    }

    #[tokio::test]
    async fn a_guest_joins_by_code_and_keeps_the_seat() {
        let (door, api, meetings, _folder) = door().await;
        let meeting = meetings.create("例会", None).await.unwrap();
        let app = app(door.clone(), &api, None, true);
        let uri = format!("/api/meetings/{}", meeting.code);
        let (status, shown, headers) = ask(&app, request("GET", &uri), "").await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(shown["name"], "例会");
        assert_eq!(shown["participants"], 0);
        assert!(headers.contains_key("strict-transport-security"));
        let join = format!("{uri}/join");
        let (status, first, _) = ask(&app, request("POST", &join), r#"{"name":"张三"}"#).await;
        assert_eq!(status, StatusCode::OK);
        let claims = door
            .hub
            .keys()
            .verify(
                first["token"].as_str().unwrap(),
                std::time::SystemTime::now(),
            )
            .unwrap();
        claims.require_join().unwrap();
        assert_eq!(claims.video.room, meeting.id);
        let body = serde_json::json!({ "name": "张三", "seat": first["seat"] }).to_string();
        let (_, again, _) = ask(&app, request("POST", &join), &body).await;
        assert_eq!(again["identity"], first["identity"]);
        let body = serde_json::json!({ "name": "x", "seat": "forged" }).to_string();
        let (_, other, _) = ask(&app, request("POST", &join), &body).await;
        assert_ne!(other["identity"], first["identity"]);
        // A seat opens no room, and a token is no seat.
        let seat = first["seat"].as_str().unwrap();
        assert!(
            door.hub
                .keys()
                .verify(seat, std::time::SystemTime::now())
                .is_err()
        );
        let body = serde_json::json!({ "name": "x", "seat": first["token"] }).to_string();
        let (_, other, _) = ask(&app, request("POST", &join), &body).await;
        assert_ne!(other["identity"], first["identity"]);
    }

    #[tokio::test]
    async fn the_door_says_why_it_stays_shut() {
        let (door, api, meetings, _folder) = door().await;
        let meeting = meetings.create("m", None).await.unwrap();
        let app = app(door.clone(), &api, None, false);
        let uri = format!("/api/meetings/{}", meeting.code);
        let join = format!("{uri}/join");
        for (body, expected) in [
            (r#"{"name":"  "}"#, "invalid_name"),
            ("{", "invalid_request"),
            (r#"{"name":"a\u0007"}"#, "invalid_name"),
        ] {
            let (_, problem, _) = ask(&app, request("POST", &join), body).await;
            assert_eq!(problem["code"], expected);
        }
        meetings.end(&meeting.code).await.unwrap();
        let (status, problem, _) = ask(&app, request("GET", &uri), "").await;
        assert_eq!(
            (status, &problem["code"]),
            (StatusCode::GONE, &"meeting_ended".into())
        );
        let english = request("GET", "/api/meetings/0000000000").header("accept-language", "en");
        let (status, problem, _) = ask(&app, english, "").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert_eq!(problem["title"], "No such meeting");
        for _ in 0..crate::guesses::PER_ADDRESS {
            ask(&app, request("GET", "/api/meetings/1"), "").await;
        }
        let (status, problem, headers) = ask(&app, request("GET", &uri), "").await;
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(problem["code"], "too_many_attempts");
        assert!(headers.contains_key("retry-after"));
        door.hub.drain();
        let (status, problem, _) = ask(&app, request("POST", &join), r#"{"name":"a"}"#).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(problem["code"], "draining");
        assert_eq!(
            ask(&app, request("GET", "/readyz"), "").await.0,
            StatusCode::SERVICE_UNAVAILABLE
        );
        assert_eq!(
            ask(&app, request("GET", "/healthz"), "").await.0,
            StatusCode::OK
        );
        assert_eq!(
            ask(&app, request("GET", "/api/none"), "").await.1["code"],
            "not_found"
        );
    }
}
