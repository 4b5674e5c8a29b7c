//! First set-up, the ways in, and what is refused there.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_is_set_up_once_by_who_has_the_code() {
    on_both(|location| async move {
        let server = Server::start(location).await;
        let state = server.get("/api/setup", "").await;
        assert_eq!(state.body["is_needed"], true);
        let body = |code: &str, logins: [&str; 3]| {
            let [system, security, auditor] =
                logins.map(|login| json!({ "name": format!("某{login}"), "login": login }));
            json!({
                "code": code, "organisation": "辽宁省综治中心",
                "administrators": { "system": system, "security": security, "auditor": auditor },
            })
        };
        let three = ["system", "security", "auditor"];
        let wrong = server.post("/api/setup", "", &body("AAAAA", three)).await;
        assert_eq!(wrong.expect(403).code(), "wrong");
        let weak = body(&server.code, ["system", "system", "auditor"]);
        let weak = server.post("/api/setup", "", &weak).await;
        assert_eq!(weak.expect(422).code(), "set_up_weak");
        // One who can't be made leaves nothing made.
        let bad = body(&server.code, ["system", "security", "AUDITOR"]);
        let bad = server.post("/api/setup", "", &bad).await;
        assert_eq!(bad.expect(422).code(), "login_invalid");
        let made = server
            .post("/api/setup", "", &body(&server.code, three))
            .await;
        let made = made.expect(201);
        assert_eq!(server.get("/api/setup", "").await.body["is_needed"], false);
        let again = server
            .post("/api/setup", "", &body(&server.code, three))
            .await;
        assert_eq!(again.expect(409).code(), "set_up_already");

        // An administrator sees nothing before the second factor is there.
        let link = made.body["system"]["invitation"].as_str().unwrap();
        assert!(link.contains("/invitation#"), "{link}");
        let cookie = server.accept(link).await;
        let me = server.get("/api/session", &cookie).await.expect(200);
        assert_eq!(me.body["session"]["needs_second_factor"], true);
        assert_eq!(me.body["roles"], json!([]));
        let refused = server.get("/api/organisations", &cookie).await;
        assert_eq!(refused.expect(403).code(), "second_factor_needed");
        let (whole, secret) = server.with_totp(&cookie).await;
        let list = server.get("/api/organisations", &whole).await.expect(200);
        assert_eq!(list.body["organisations"].as_array().unwrap().len(), 1);
        let me = server.get("/api/session", &whole).await;
        assert_eq!(me.body["roles"][0]["role"], "system_administrator");
        // The cookie before is not good any more, nor is the invitation.
        assert_eq!(
            server.get("/api/session", &cookie).await.code(),
            "signed_out"
        );
        let token = link.split_once('#').unwrap().1;
        let body = json!({ "token": token, "password": PASSWORD });
        let used = server.post("/api/invitations/accept", "", &body).await;
        assert_eq!(used.expect(410).code(), "bad_invitation");

        // Password, then a one-time password that was not used yet.
        let body = json!({ "login": "system", "password": PASSWORD });
        let half = server.post("/api/session", "", &body).await.expect(200);
        let half = half.cookie.unwrap();
        assert_eq!(
            server.get("/api/organisations", &half).await.code(),
            "second_factor_needed"
        );
        let used = json!({ "totp": totp(&secret, 0) });
        let used = server.post("/api/session/proof", &half, &used).await;
        let whole = match used.status.as_u16() {
            // The clock has gone on to the next one meanwhile.
            200 => used.cookie.unwrap(),
            status => {
                assert_eq!((status, used.code()), (403, "wrong"));
                let next = json!({ "totp": totp(&secret, 1) });
                let proved = server.post("/api/session/proof", &half, &next).await;
                proved.expect(200).cookie.unwrap()
            }
        };
        assert_eq!(
            server.get("/api/organisations", &half).await.code(),
            "signed_out"
        );
        server.get("/api/organisations", &whole).await.expect(200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replayed_and_forged_cookies_and_requests_of_other_sites_open_nothing() {
    on_both(|location| async move {
        let world = World::new(location).await;
        let server = &world.server;
        let cookie = &world.people[&Role::Mediator];
        server.get("/api/sessions", cookie).await.expect(200);
        let (name, value) = cookie.split_once('=').unwrap();
        let mut forged = value.to_owned();
        let last = if forged.ends_with('A') { "B" } else { "A" };
        forged.replace_range(forged.len() - 1.., last);
        for odd in [
            format!("{name}={forged}"),
            format!("{name}="),
            format!("{name}={value}x"),
            format!("other={value}"),
            format!("{name}={}", "x".repeat(4_000)),
            format!("__Host-terrace-session={value}"),
        ] {
            let answer = server.get("/api/sessions", &odd).await;
            assert_eq!(answer.code(), "signed_out", "{odd}");
        }
        let end = |header: (&'static str, &'static str)| {
            let request = server.request(Method::DELETE, "/api/session", cookie);
            Answer::of(request.header(header.0, header.1))
        };
        for header in [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("origin", "https://evil.example"),
            ("origin", "null"),
        ] {
            assert_eq!(end(header).await.expect(403).code(), "cross_site");
        }
        let form = server.request(Method::POST, "/api/session", "");
        let form = form.header("content-type", "text/plain").body("{}");
        assert_eq!(Answer::of(form).await.expect(415).code(), "wrong_type");
        server.get("/api/sessions", cookie).await.expect(200);
        end(("sec-fetch-site", "same-origin")).await.expect(204);
        assert_eq!(
            server.get("/api/sessions", cookie).await.code(),
            "signed_out"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_guesses_waits_and_others_come_in() {
    on_both(|location| async move {
        let world = World::new(location).await;
        let server = &world.server;
        let guess = json!({ "login": "r-head", "password": "Wrong-12345" });
        let mut told = None;
        for _ in 0..10 {
            let answer = server.post("/api/session", "", &guess).await;
            match answer.status.as_u16() {
                403 => assert_eq!(answer.code(), "wrong"),
                _ => told = Some(answer.expect(429)),
            }
        }
        let told = told.expect("guessing is slowed down");
        assert_eq!(told.code(), "too_many_attempts");
        let wait: u64 = told.headers["retry-after"]
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!((1..=15 * 60).contains(&wait), "{wait}");
        // Whoever is guessed waits from that address; everybody else comes in, and open sessions go on.
        let other = json!({ "login": "r-mediator", "password": PASSWORD });
        server.post("/api/session", "", &other).await.expect(200);
        server
            .get("/api/session", &world.people[&Role::Head])
            .await
            .expect(200);
        // What is no key of a hall is counted too.
        let mut codes = Vec::new();
        for _ in 0..=crate::guesses::PER_ADDRESS {
            let answer = server
                .post("/api/hall/session", "", &json!({ "key": "x" }))
                .await;
            codes.push(answer.code().to_owned());
        }
        assert_eq!(codes.first().unwrap(), "wrong");
        assert_eq!(codes.last().unwrap(), "too_many_attempts");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_end_in_open_sessions_and_who_leaves_is_out_at_once() {
    on_both(|location| async move {
        let world = World::new(location).await;
        let server = &world.server;
        let cookie = &world.people[&Role::Head];
        let me = server.get("/api/session", cookie).await.expect(200);
        let id = me.body["person"]["id"].as_str().unwrap();
        let persons = format!("/api/organisations/{}/persons", world.city.id);
        server.get(&persons, cookie).await.expect(200);
        let posts = format!("/api/organisations/{}/posts", world.city.id);
        let posts = server.get(&posts, &world.security).await.expect(200);
        let holds = |post: &&Value| post["roles"] == json!(["head"]);
        let post = posts.body.as_array().unwrap().iter().find(holds).unwrap();
        let path = format!("/api/posts/{}/holders/{id}", post["id"].as_str().unwrap());
        let dismiss = server.request(Method::DELETE, &path, &world.security);
        Answer::of(dismiss).await.expect(204);
        assert_eq!(server.get(&persons, cookie).await.code(), "not_found");
        let path = format!("/api/persons/{id}/leave");
        let leave = server
            .request(Method::POST, &path, &world.system)
            .json(&json!({}));
        let version = me.body["person"]["version"].as_u64().unwrap();
        let leave = leave.header("if-match", format!("\"{version}\""));
        assert_eq!(Answer::of(leave).await.expect(200).text("state"), "left");
        assert_eq!(
            server.get("/api/session", cookie).await.code(),
            "signed_out"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hall_signs_in_by_its_key_until_that_is_revoked() {
    on_both(|location| async move {
        let world = World::new(location).await;
        let server = &world.server;
        let hall = &world.city.hall;
        let path = format!("/api/places/{hall}/keys");
        let body = json!({ "name": "主席台" });
        let issued = server.post(&path, &world.system, &body).await.expect(201);
        let body = json!({ "key": issued.text("key") });
        let cookie = server
            .post("/api/hall/session", "", &body)
            .await
            .expect(200);
        let cookie = cookie.cookie.unwrap();
        let seen = server.get("/api/hall/session", &cookie).await.expect(200);
        assert_eq!(seen.body["hall"]["id"], json!(hall));
        assert_eq!(seen.body["hall"]["screens"], 2);
        // A hall is nobody where people are asked for.
        assert_eq!(
            server.get("/api/organisations", &cookie).await.code(),
            "signed_out"
        );
        let revoke = format!("{path}/{}", issued.text("id"));
        let revoke = server.request(Method::DELETE, &revoke, &world.system);
        Answer::of(revoke).await.expect(204);
        assert_eq!(
            server.get("/api/hall/session", &cookie).await.code(),
            "signed_out"
        );
        let listed = server.get(&path, &world.system).await.expect(200);
        let key = issued.text("key");
        assert!(!listed.raw.contains(&key), "a key is shown once");
    })
    .await;
}
