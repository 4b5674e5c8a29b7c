//! Every role × every action that has an endpoint × where the organisation is, against the fixture that was typed from
//! the requirements; and that nothing of a stranger's is in any answer.

use super::*;

/// What is expected of `can`; the table that the code reads is another file.
const FIXTURE: &str = include_str!("../../../../directory/src/authority/fixture.txt");

/// Of an action and a role: own, below, above, beside, where nothing of a matter is so.
fn expected() -> BTreeMap<(String, Role), Vec<char>> {
    let mut expected = BTreeMap::new();
    for line in FIXTURE.lines().filter(|line| !line.starts_with('#')) {
        let (action, cells) = line.split_once(": ").unwrap();
        for role in Role::ALL {
            expected.insert((action.to_owned(), *role), vec!['-'; 4]);
        }
        for cell in cells.split(' ') {
            let (role, outcome) = cell.split_once('=').unwrap();
            let bare = outcome.split_once('/').unwrap().1.chars().collect();
            expected.insert((action.to_owned(), role.parse().unwrap()), bare);
        }
    }
    expected
}

/// How an action is tried: a request that changes nothing where it is allowed, and what is answered then.
fn attempt(action: &str, unit: &Unit) -> Option<(Method, String, Value, &'static str)> {
    let Unit { id, hall, post, .. } = unit;
    let of = |rest: &str| format!("/api/organisations/{id}{rest}");
    let get = |path: String| Some((Method::GET, path, Value::Null, ""));
    // What is sent is wrong, which is told only to who may do it.
    let post_to = |path: String, body: Value, code| Some((Method::POST, path, body, code));
    match action {
        "see_organisation" => get(of("")),
        "manage_organisations" => post_to(
            of("/places"),
            json!({ "name": "", "kind": "hall", "screens": 1 }),
            "name_invalid",
        ),
        "issue_hall_keys" => get(format!("/api/places/{hall}/keys")),
        "share_organisation" => get(of("/shares")),
        "see_persons" => get(of("/persons")),
        "manage_persons" => post_to(
            of("/persons"),
            json!({ "name": "某", "login": "1" }),
            "login_invalid",
        ),
        "grant_roles" => post_to(
            of("/posts"),
            json!({ "title": "某", "roles": [] }),
            "wrong_role",
        ),
        "delegate_roles" => post_to(
            format!("/api/posts/{post}/delegations"),
            json!({ "role": "party", "to": unit.person, "purpose": "出差", "ends_at": 1 }),
            "wrong_role",
        ),
        "read_audit" => get(of("/audit")),
        "export_audit" => get(of("/audit/export")),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_may_over_http_what_the_requirements_say_and_nothing_else() {
    on_both(|location| async move {
        let world = World::new(location).await;
        let expected = expected();
        let units = [&world.city, &world.county, &world.province, &world.beside];
        let mut tried = 0;
        for ((action, role), outcome) in &expected {
            for (at, unit) in units.into_iter().enumerate() {
                let Some((method, path, body, code)) = attempt(action, unit) else {
                    continue;
                };
                let ask = |reason: Option<&'static str>| {
                    let cookie = &world.people[role];
                    let mut request = world.server.request(method.clone(), &path, cookie);
                    if method == Method::POST {
                        request = request.json(&body);
                    }
                    if let Some(reason) = reason {
                        request = request.header("reason", reason);
                    }
                    Answer::of(request)
                };
                let what = format!("{action} by {role} at {at}");
                let answer = ask(None).await;
                let may = |answer: &Answer| match code {
                    "" => answer.status == StatusCode::OK,
                    code => answer.code() == code,
                };
                let knows = expected[&("see_organisation".to_owned(), *role)][at] == 'Y';
                match outcome[at] {
                    'Y' => assert!(may(&answer), "{what}: {}", answer.raw),
                    'R' => {
                        assert_eq!(answer.code(), "reason_needed", "{what}");
                        // 核查
                        let answer = ask(Some("%E6%A0%B8%E6%9F%A5")).await;
                        assert!(may(&answer), "{what} with a reason: {}", answer.raw);
                    }
                    '-' if knows => {
                        assert_eq!(answer.code(), "refused", "{what}");
                        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{what}");
                    }
                    '-' => {
                        assert_eq!(answer.code(), "not_found", "{what}");
                        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{what}");
                    }
                    other => panic!("{what}: {other}"),
                }
                tried += 1;
            }
        }
        assert_eq!(tried, 10 * Role::ALL.len() * 4);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_strangers_is_in_any_answer() {
    on_both(|location| async move {
        let world = World::new(location).await;
        let Unit {
            id,
            hall,
            post,
            person,
        } = &world.beside;
        // A province's administrator sees all of it: the marker is there.
        let seen = world
            .server
            .get(&format!("/api/organisations/{id}"), &world.system)
            .await;
        assert!(seen.raw.contains(MARKER));
        let (city, mark) = (&world.city.id, MARKER);
        let paths = [
            format!("/api/organisations/{id}"),
            format!("/api/organisations/{id}/history"),
            format!("/api/organisations/{id}/rights"),
            format!("/api/organisations/{id}/places"),
            format!("/api/organisations/{id}/shares"),
            format!("/api/organisations/{id}/persons"),
            format!("/api/organisations/{id}/posts"),
            format!("/api/organisations/{id}/grants"),
            format!("/api/organisations/{id}/audit"),
            format!("/api/organisations/{id}/audit/export"),
            format!("/api/organisations/{id}/audit/heads"),
            format!("/api/places/{hall}"),
            format!("/api/places/{hall}/keys"),
            format!("/api/persons/{person}"),
            "/api/organisations?limit=200&with_closed=true".to_owned(),
            format!("/api/organisations?text={mark}"),
            "/api/organisations?text=dls".to_owned(),
            format!("/api/organisations?under={}", world.province.id),
            format!("/api/organisations?parent={}", world.province.id),
            format!("/api/organisations?under={id}"),
            format!("/api/organisations/{city}/persons?text={mark}"),
            format!("/api/organisations/{city}/audit?limit=500"),
            format!("/api/organisations/{city}/audit?object={id}"),
            format!("/api/organisations/{city}/audit/export?limit=500"),
            format!("/api/organisations/{city}/audit/export?format=csv"),
        ];
        let writes = [
            (
                Method::PATCH,
                format!("/api/organisations/{id}"),
                json!({ "change": "rename", "name": "x" }),
            ),
            (
                Method::POST,
                format!("/api/organisations/{id}/close"),
                json!({}),
            ),
            (
                Method::POST,
                format!("/api/organisations/{id}/merge"),
                json!({ "into": city }),
            ),
            (
                Method::POST,
                format!("/api/organisations/{city}/merge"),
                json!({ "into": id }),
            ),
            (
                Method::PATCH,
                format!("/api/organisations/{city}"),
                json!({ "change": "move", "parent": id }),
            ),
            (
                Method::POST,
                format!("/api/organisations/{id}/import/plan"),
                json!({}),
            ),
            (
                Method::PUT,
                format!("/api/places/{hall}"),
                json!({ "name": "x", "kind": "hall", "screens": 1 }),
            ),
            (
                Method::POST,
                format!("/api/places/{hall}/keys"),
                json!({ "name": "x" }),
            ),
            (
                Method::PATCH,
                format!("/api/persons/{person}"),
                json!({ "change": "lock" }),
            ),
            (
                Method::POST,
                format!("/api/persons/{person}/leave"),
                json!({}),
            ),
            (
                Method::POST,
                format!("/api/persons/{person}/reset"),
                json!({}),
            ),
            (
                Method::PUT,
                format!("/api/posts/{post}"),
                json!({ "roles": ["head"] }),
            ),
            (
                Method::PUT,
                format!("/api/posts/{post}/holders/{person}"),
                json!({}),
            ),
        ];
        for (role, cookie) in &world.people {
            for path in &paths {
                let reason = "%E6%A0%B8%E6%9F%A5";
                let request = world.server.request(Method::GET, path, cookie);
                let answer = Answer::of(request.header("reason", reason)).await;
                assert!(
                    !answer.raw.contains(MARKER),
                    "{role} {path}: {}",
                    answer.raw
                );
            }
            for (method, path, body) in &writes {
                let request = world.server.request(method.clone(), path, cookie);
                let request = request.header("if-match", "\"1\"").json(body);
                let answer = Answer::of(request).await;
                assert!(
                    answer.status.is_client_error(),
                    "{role} {path}: {}",
                    answer.raw
                );
                assert!(
                    !answer.raw.contains(MARKER),
                    "{role} {path}: {}",
                    answer.raw
                );
            }
        }
        // What does not exist is answered with the same words.
        let head = &world.people[&Role::Head];
        let hidden = world
            .server
            .get(&format!("/api/organisations/{id}"), head)
            .await;
        let nothing = "/api/organisations/01890000-0000-7000-8000-000000000000";
        let nothing = world.server.get(nothing, head).await;
        assert_eq!(hidden.raw, nothing.raw);
        assert_eq!(
            world.server.get("/api/organisations/x", head).await.raw,
            nothing.raw
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_wants_a_session_and_no_nonsense_brings_the_server_down() {
    on_both(|location| async move {
        let world = World::new(location).await;
        let document = world.server.get("/api/openapi.json", "").await;
        assert!(document.text("openapi").starts_with("3.1"));
        let paths = document.body["paths"].as_object().unwrap();
        assert!(paths.len() > 40, "{}", paths.len());
        let nonsense = [
            json!({}),
            json!([]),
            json!("x"),
            json!({ "name": "\u{0}", "login": "\u{0}", "title": "\u{0}" }),
            json!({ "name": "x".repeat(10_000), "change": "rename", "kind": "room", "uses": [] }),
            json!({ "name": 1, "roles": ["no"], "ends_at": i64::MAX, "purpose": "x", "actions": [] }),
            json!({ "change": "move", "parent": "x", "organisation": "x", "into": "x", "to": "x" }),
        ];
        let real = [&world.city.id, &world.city.hall, &world.city.post, &world.city.person];
        for (path, item) in paths {
            for (method, operation) in item.as_object().unwrap() {
                assert!(operation["responses"]["default"].is_object(), "{method} {path}");
                let method: Method = method.to_uppercase().parse().unwrap();
                let nobody = path
                    .replace("{id}", real[0])
                    .replace("{share}", real[0])
                    .replace("{key}", real[0])
                    .replace("{person}", real[3]);
                let request = world.server.request(method.clone(), &nobody, "");
                let request = request.header("if-match", "\"1\"").json(&json!({}));
                let answer = Answer::of(request).await;
                if !super::super::OPEN.contains(&path.as_str()) {
                    assert_eq!(answer.code(), "signed_out", "{method} {path}: {}", answer.raw);
                }
                if path == "/api/events" || path == "/api/session" && method == Method::DELETE {
                    continue;
                }
                for id in real {
                    for body in &nonsense {
                        let path = path.replace("{id}", id);
                        let path = path
                            .replace("{share}", "x")
                            .replace("{key}", real[0])
                            .replace("{person}", real[3]);
                        let path = format!("{path}?cursor=%25%00&limit=0&text=%27%25_!&from=x");
                        let plain = path.split('?').next().unwrap();
                        for path in [path.as_str(), plain] {
                            let cookie = &world.people[&Role::Superior];
                            let request = world.server.request(method.clone(), path, cookie);
                            let request = request
                                .header("if-match", "\"18446744073709551615\"")
                                .header("reason", "%E6%A0%B8%E6%9F%A5")
                                .json(body);
                            let answer = Answer::of(request).await;
                            assert!(
                                !answer.status.is_server_error(),
                                "{method} {path} {body}: {}",
                                answer.raw
                            );
                        }
                    }
                }
            }
        }
    })
    .await;
}
