//! The API over real HTTP, on both engines: a deployment with a province, two cities and a county, and people of every
//! role in one of the cities.

mod description;
mod rights;
mod sign_in;
mod together;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use aws_lc_rs::hmac;
use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use directory::act::Who;
use directory::authority::Role;
use directory::organisation::{Kind, Level, NewOrganisation};
use directory::people::{Administrators, NewPerson};
use directory::sign_in::Hashing;
use directory::store::Location;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use signaling::token::KeyRing;
use signaling::{Hub, HubConfig, Media};

use super::Api;
use super::extract::Asker;
use super::open::open_with;
use crate::config::{Config, PostgresUrl};
use crate::door::{Door, own_keys};
use crate::guesses::Guesses;
use crate::meetings::Meetings;

const PASSWORD: &str = "Abcdefgh12";

/// What hashing a password costs in tests.
const CHEAP: Hashing = Hashing {
    memory: 64,
    passes: 1,
};

struct NoMedia;

impl Media for NoMedia {
    fn send(&self, _: usize, _: sfu::Command) {}
}

fn new_person(name: &str, login: &str) -> NewPerson {
    NewPerson {
        name: name.to_owned(),
        login: login.to_owned(),
    }
}

/// Makes the first organisation and its administrators, without HTTP.
pub(crate) async fn set_up(api: &Api) {
    let province = NewOrganisation {
        kind: Kind::Centre,
        level: Some(Level::Province),
        name: "辽宁省".to_owned(),
        code: None,
        parent: None,
        cascade_parent: None,
    };
    let three = Administrators {
        system: new_person("系统", "system"),
        security: new_person("安全", "security"),
        auditor: new_person("审计", "auditor"),
    };
    let mut asker = machine();
    let done = api
        .directory
        .set_up(&mut asker.act(), province, three)
        .await;
    done.unwrap();
}

/// The machine itself, now.
fn machine() -> Asker {
    let (mut parts, ()) = axum::http::Request::new(()).into_parts();
    let asker = <Asker as FromRequestParts<()>>::from_request_parts(&mut parts, &());
    let mut asker = futures_util::FutureExt::now_or_never(asker)
        .unwrap()
        .unwrap();
    asker.who = Who::Machine;
    asker
}

/// A server with an empty directory.
struct Server {
    api: Arc<Api>,
    url: String,
    client: Client,
    code: String,
    _folder: tempfile::TempDir,
}

impl Server {
    async fn start(location: Location) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::defaults(true);
        config.data_dir = folder.path().to_owned();
        if let Location::Postgres(url) = location {
            config.directory.postgres = Some(PostgresUrl(url));
        }
        let (api, _) = open_with(&config, true, CHEAP).await.unwrap();
        let meetings = Meetings::open(folder.path()).await.unwrap();
        let secret = "s".repeat(40);
        let hub = Hub::new(
            HubConfig {
                keys: KeyRing::new([(crate::meetings::MEETING_KEY.to_owned(), secret.clone())]),
                limits: Default::default(),
                gate: None,
                ice_servers: Vec::new(),
            },
            Arc::new(NoMedia),
        );
        let door = Door {
            hub,
            meetings,
            keys: own_keys(&secret),
            guesses: Guesses::default(),
            trusted_proxies: Vec::new(),
        };
        let app = crate::serve::app(Arc::new(door), &api, None, false);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = app.into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, service).await });
        let code = api.setup_code().unwrap();
        Server {
            api,
            url,
            client: Client::new(),
            code,
            _folder: folder,
        }
    }

    fn request(&self, method: Method, path: &str, cookie: &str) -> RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.url))
            .header("accept-language", "en")
            .header("cookie", cookie)
    }

    async fn get(&self, path: &str, cookie: &str) -> Answer {
        Answer::of(self.request(Method::GET, path, cookie)).await
    }

    async fn post(&self, path: &str, cookie: &str, body: &Value) -> Answer {
        Answer::of(self.request(Method::POST, path, cookie).json(body)).await
    }

    /// Chooses a password by an invitation's link. What comes back is the cookie.
    async fn accept(&self, link: &str) -> String {
        let token = link.split_once('#').unwrap().1;
        let body = json!({ "token": token, "password": PASSWORD });
        let answer = self.post("/api/invitations/accept", "", &body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        answer.cookie.unwrap()
    }

    /// Sets up one-time passwords, so that the session is whole. What comes back is the cookie and the secret.
    async fn with_totp(&self, cookie: &str) -> (String, String) {
        let new = self.post("/api/factors/totp", cookie, &json!({})).await;
        assert_eq!(new.status, StatusCode::CREATED, "{}", new.body);
        let secret = new.text("secret");
        let path = format!("/api/factors/totp/{}", new.text("id"));
        let body = json!({ "code": totp(&secret, 0) });
        let answer = self.post(&path, cookie, &body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        assert_eq!(answer.body["recovery_codes"].as_array().unwrap().len(), 10);
        (answer.cookie.unwrap(), secret)
    }
}

/// What came back.
struct Answer {
    status: StatusCode,
    body: Value,
    /// All of it, whatever it is.
    raw: String,
    cookie: Option<String>,
    headers: reqwest::header::HeaderMap,
}

impl Answer {
    async fn of(request: RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let set = headers
            .get("set-cookie")
            .map(|value| value.to_str().unwrap());
        if let Some(set) = set {
            assert!(
                set.contains("HttpOnly") && set.contains("SameSite=Strict"),
                "{set}"
            );
        }
        let cookie = set.and_then(|set| set.split(';').next()).map(str::to_owned);
        let raw = response.text().await.unwrap();
        let body: Value = serde_json::from_str(&raw).unwrap_or_default();
        if status.is_client_error() || status.is_server_error() {
            let kind = headers["content-type"].to_str().unwrap();
            assert!(
                kind.starts_with("application/problem+json"),
                "{kind}: {raw}"
            );
            assert!(
                body["code"].is_string() && body["title"].is_string(),
                "{raw}"
            );
        }
        Answer {
            status,
            body,
            raw,
            cookie,
            headers,
        }
    }

    fn text(&self, name: &str) -> String {
        let text = self.body[name].as_str();
        text.unwrap_or_else(|| panic!("{name} in {}", self.raw))
            .to_owned()
    }

    fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    #[track_caller]
    fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status.as_u16(), status, "{}", self.raw);
        self
    }
}

/// The one-time password of a secret, so many steps from now.
fn totp(secret: &str, steps: i64) -> String {
    const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut bytes = Vec::new();
    let (mut held, mut count) = (0_u32, 0);
    for letter in secret.chars() {
        held = held << 5 | LETTERS.find(letter).unwrap() as u32;
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push((held >> count & 0xff) as u8);
        }
    }
    let step = crate::meetings::now_ms().div_euclid(30_000) + steps;
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &bytes);
    let tag = hmac::sign(&key, &step.to_be_bytes());
    let tag = tag.as_ref();
    let at = usize::from(tag[19] & 0xf);
    let number = u32::from_be_bytes(tag[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
    format!("{:06}", number % 1_000_000)
}

/// An organisation with what is its own.
#[derive(Clone)]
struct Unit {
    id: String,
    hall: String,
    post: String,
    person: String,
}

/// A deployment that is in use.
struct World {
    server: Server,
    /// The province's administrators' cookies.
    system: String,
    security: String,
    province: Unit,
    city: Unit,
    county: Unit,
    /// Beside the city: its names hold [`MARKER`].
    beside: Unit,
    /// Who has one role in the city, by the role.
    people: BTreeMap<Role, String>,
}

/// What stands in everything that is the other city's.
const MARKER: &str = "旁系标记";

impl World {
    async fn new(location: Location) -> World {
        let server = Server::start(location).await;
        let person = |name: &str, login: &str| json!({ "name": name, "login": login });
        let body = json!({
            "code": server.code,
            "organisation": "辽宁省综治中心",
            "division_code": "21",
            "administrators": {
                "system": person("省系统", "system"),
                "security": person("省安全", "security"),
                "auditor": person("省审计", "auditor"),
            },
        });
        let made = server.post("/api/setup", "", &body).await.expect(201);
        let invitation = |of: &str| made.body[of]["invitation"].as_str().unwrap().to_owned();
        let (system, _) = server
            .with_totp(&server.accept(&invitation("system")).await)
            .await;
        let (security, _) = server
            .with_totp(&server.accept(&invitation("security")).await)
            .await;
        let id = made.body["organisation"]["id"].as_str().unwrap().to_owned();
        let unit = |id: &str| Unit {
            id: id.to_owned(),
            hall: String::new(),
            post: String::new(),
            person: String::new(),
        };
        let mut world = World {
            server,
            system,
            security,
            province: unit(&id),
            city: unit(""),
            county: unit(""),
            beside: unit(""),
            people: BTreeMap::new(),
        };
        world.province = world.furnish(id, "省", "p").await;
        let (top, mark) = (world.province.id.clone(), MARKER.to_owned());
        let city = world.organisation("沈阳市", "city", &top).await;
        world.city = world.furnish(city, "市", "c").await;
        let county = world
            .organisation("和平区", "county", &world.city.id.clone())
            .await;
        world.county = world.furnish(county, "区", "x").await;
        let beside = world
            .organisation(&format!("大连市{mark}"), "city", &top)
            .await;
        world.beside = world.furnish(beside, &mark, "b").await;
        for role in Role::ALL {
            let cookie = world.somebody(*role).await;
            world.people.insert(*role, cookie);
        }
        world
    }

    async fn organisation(&self, name: &str, level: &str, parent: &str) -> String {
        let body = json!({ "kind": "centre", "level": level, "name": name, "parent": parent });
        let made = self
            .server
            .post("/api/organisations", &self.system, &body)
            .await;
        made.expect(201).text("id")
    }

    /// A hall with a key, a post and somebody in an organisation.
    async fn furnish(&self, id: String, mark: &str, letter: &str) -> Unit {
        let under = |what: &str| format!("/api/organisations/{id}/{what}");
        let hall = json!({ "name": format!("会场{mark}"), "kind": "hall", "screens": 2 });
        let hall = self
            .server
            .post(&under("places"), &self.system, &hall)
            .await;
        let hall = hall.expect(201).text("id");
        let key = json!({ "name": format!("终端{mark}") });
        let keys = format!("/api/places/{hall}/keys");
        self.server
            .post(&keys, &self.system, &key)
            .await
            .expect(201);
        let post = json!({ "title": format!("岗位{mark}"), "roles": ["mediator"] });
        let post = self
            .server
            .post(&under("posts"), &self.security, &post)
            .await;
        let person = json!({ "name": format!("人员{mark}"), "login": format!("{letter}-someone") });
        let person = self
            .server
            .post(&under("persons"), &self.system, &person)
            .await;
        let person = person.expect(201).body["person"]["id"]
            .as_str()
            .unwrap()
            .to_owned();
        Unit {
            id,
            hall,
            post: post.expect(201).text("id"),
            person,
        }
    }

    /// Somebody with one role in the city, signed in.
    async fn somebody(&self, role: Role) -> String {
        let login = format!("r-{}", role.code().replace('_', "-"));
        let login = login[..login.len().min(32)].to_owned();
        let path = format!("/api/organisations/{}/persons", self.city.id);
        let body = json!({ "name": format!("某{}", role.chinese()), "login": login });
        let made = self
            .server
            .post(&path, &self.system, &body)
            .await
            .expect(201);
        let id = made.body["person"]["id"].as_str().unwrap().to_owned();
        let cookie = self.server.accept(&made.text("invitation")).await;
        if role.is_of_a_matter() {
            let path = format!("/api/organisations/{}/guests", self.city.id);
            let body = json!({
                "matter": self.city.id, "role": role.code(), "person": id, "purpose": "一次会议",
                "ends_at": crate::meetings::now_ms() + 3_600_000,
            });
            self.server
                .post(&path, &self.security, &body)
                .await
                .expect(201);
            return cookie;
        }
        let path = format!("/api/organisations/{}/posts", self.city.id);
        let body = json!({ "title": role.chinese(), "roles": [role.code()] });
        let post = self
            .server
            .post(&path, &self.security, &body)
            .await
            .expect(201);
        let path = format!("/api/posts/{}/holders/{id}", post.text("id"));
        let appoint = self.server.request(Method::PUT, &path, &self.security);
        Answer::of(appoint.json(&json!({}))).await.expect(204);
        if role.is_administrator() {
            return self.server.with_totp(&cookie).await.0;
        }
        cookie
    }
}

/// Runs a test with a server on each engine.
async fn on_both<F: Future<Output = ()>>(test: impl Fn(Location) -> F) {
    directory::testing::on_both(test).await;
}
