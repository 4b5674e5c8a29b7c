//! Several at once: two administrators, a request that is sent twice, and who looks on.

use std::time::Duration;

use super::*;

impl World {
    async fn rename(&self, cookie: &str, id: &str, version: u64, name: &str) -> Answer {
        let path = format!("/api/organisations/{id}");
        let request = self.server.request(Method::PATCH, &path, cookie);
        let request = request.header("if-match", format!("\"{version}\""));
        Answer::of(request.json(&json!({ "change": "rename", "name": name }))).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_of_two_administrators_is_told_and_nothing_is_lost() {
    on_both(|location| async move {
        let world = World::new(location).await;
        let (one, other) = (&world.system, &world.people[&Role::SystemAdministrator]);
        let path = format!("/api/organisations/{}", world.city.id);
        let seen = world.server.get(&path, one).await.expect(200);
        assert_eq!(seen.headers["etag"], "\"1\"");
        let (first, second) = tokio::join!(
            world.rename(one, &world.city.id, 1, "沈阳市综治中心"),
            world.rename(other, &world.city.id, 1, "沈阳综治"),
        );
        let (done, told) = match first.status.is_success() {
            true => (first, second),
            false => (second, first),
        };
        assert_eq!(done.headers["etag"], "\"2\"");
        let told = told.expect(412);
        assert_eq!((told.code(), &told.body["current"]), ("stale", &json!(2)));
        let now = world.server.get(&path, one).await;
        assert_eq!(now.text("name"), done.text("name"));
        let history = world.server.get(&format!("{path}/history"), one).await;
        assert_eq!(history.body.as_array().unwrap().len(), 2);
        // Who does not say what was seen is asked for it.
        let request = world.server.request(Method::PATCH, &path, one);
        let request = request.json(&json!({ "change": "rename", "name": "x" }));
        assert_eq!(
            Answer::of(request).await.expect(428).code(),
            "version_missing"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_twice_is_done_once() {
    on_both(|location| async move {
        let world = World::new(location).await;
        let path = format!("/api/organisations/{}/persons", world.city.id);
        let send = |cookie: &str, key: &str, login: &str| {
            let request = world.server.request(Method::POST, &path, cookie);
            let request = request.header("idempotency-key", key.to_owned());
            Answer::of(request.json(&json!({ "name": "李四", "login": login })))
        };
        let first = send(&world.system, "k-1", "li.si").await.expect(201);
        let again = send(&world.system, "k-1", "li.si").await.expect(201);
        assert_eq!(first.body, again.body, "the invitation too");
        assert_eq!(again.headers["idempotency-replayed"], "true");
        let other = send(&world.system, "k-1", "wang.wu").await;
        assert_eq!(other.expect(409).code(), "key_reused");
        // Another's key is another's, and what was not done may be tried again.
        let city = &world.people[&Role::SystemAdministrator];
        let taken = send(city, "k-1", "li.si").await;
        assert_eq!(taken.expect(409).code(), "login_taken");
        send(city, "k-1", "zhao.liu").await.expect(201);
        // At once, too.
        let (one, two) = tokio::join!(
            send(&world.system, "k-2", "sun.qi"),
            send(&world.system, "k-2", "sun.qi"),
        );
        for answer in [&one, &two] {
            let is_good = answer.status == StatusCode::CREATED || answer.code() == "unanswered";
            assert!(is_good, "{}", answer.raw);
        }
        assert!(one.status == StatusCode::CREATED || two.status == StatusCode::CREATED);
        for key in ["", "k".repeat(129).as_str()] {
            assert_eq!(
                send(&world.system, key, "zhou.ba").await.expect(422).code(),
                "invalid"
            );
        }
    })
    .await;
}

/// Reads a stream of events.
struct Stream {
    response: reqwest::Response,
    text: String,
}

impl Stream {
    async fn open(world: &World, cookie: &str, last: Option<&str>) -> Stream {
        let mut request = world.server.request(Method::GET, "/api/events", cookie);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let text = String::new();
        Stream { response, text }
    }

    /// The next event's name, id and data; nothing when the stream has ended.
    async fn next(&mut self) -> Option<(String, String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let mut lines = event.lines();
                    let found = lines.find_map(|line| line.strip_prefix(name));
                    found.map(|text| text.trim_start_matches(':').trim().to_owned())
                };
                let found = field("event").map(|name| {
                    let data = field("data").unwrap_or_default();
                    let data = serde_json::from_str(&data).unwrap_or_default();
                    (name, field("id").unwrap_or_default(), data)
                });
                self.text = rest.to_owned();
                match found {
                    Some(found) => return Some(found),
                    None => continue,
                }
            }
            let chunk = tokio::time::timeout(Duration::from_secs(60), self.response.chunk());
            let chunk = chunk.await.expect("something comes in time").unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_looks_on_hears_what_changes_of_what_they_may_see() {
    on_both(|location| async move {
        let world = World::new(location).await;
        let mediator = &world.people[&Role::Mediator];
        let mut stream = Stream::open(&world, mediator, None).await;
        let (name, begin, _) = stream.next().await.unwrap();
        assert_eq!(name, "begin");
        // Not the stranger's, and not the people's, whom a mediator may not read.
        world
            .rename(&world.system, &world.beside.id, 1, "大连")
            .await
            .expect(200);
        let path = format!("/api/organisations/{}/persons", world.city.id);
        let body = json!({ "name": "李四", "login": "li.si" });
        world
            .server
            .post(&path, &world.system, &body)
            .await
            .expect(201);
        world
            .rename(&world.system, &world.county.id, 1, "和平")
            .await
            .expect(200);
        let (name, first, data) = stream.next().await.unwrap();
        assert_eq!(name, "change");
        assert_eq!(
            (&data["id"], &data["change"]),
            (&json!(world.county.id), &json!("rename"))
        );
        assert!(first.parse::<u64>().unwrap() > begin.parse::<u64>().unwrap());
        // One who comes back hears what was missed, and not what was heard.
        world
            .rename(&world.system, &world.city.id, 1, "沈阳")
            .await
            .expect(200);
        let mut again = Stream::open(&world, mediator, Some(&first)).await;
        assert_eq!(again.next().await.unwrap().0, "begin");
        let (_, _, data) = again.next().await.unwrap();
        assert_eq!(data["id"], json!(world.city.id));
        // One who was with another log looks at everything anew.
        let mut lost = Stream::open(&world, mediator, Some("999999999")).await;
        assert_eq!(lost.next().await.unwrap().0, "begin");
        assert_eq!(lost.next().await.unwrap().0, "reload");
        // The stream ends with the session.
        let end = world
            .server
            .request(Method::DELETE, "/api/session", mediator);
        Answer::of(end).await.expect(204);
        let mut names = Vec::new();
        while let Some((name, _, _)) = stream.next().await {
            names.push(name);
        }
        assert_eq!(names.last().unwrap(), "signed_out");
        world.server.api.ending.send_replace(true);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_has_a_bounded_number_of_streams() {
    on_both(|location| async move {
        let world = World::new(location).await;
        let mediator = &world.people[&Role::Mediator];
        let mut streams = Vec::new();
        let refused = loop {
            let request = world.server.request(Method::GET, "/api/events", mediator);
            let response = request.send().await.unwrap();
            if response.status() != StatusCode::OK {
                break response;
            }
            streams.push(response);
            assert!(streams.len() < 100);
        };
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        // Another person has room.
        Stream::open(&world, &world.people[&Role::Head], None).await;
        world.server.api.ending.send_replace(true);
        for mut response in streams {
            while response.chunk().await.unwrap().is_some() {}
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_planned_then_applied_as_it_was_shown() {
    on_both(|location| async move {
        let world = World::new(location).await;
        let id = &world.city.id;
        let send = |path: String, table: &str| {
            let request = world.server.request(Method::POST, &path, &world.system);
            let request = request.header("content-type", "text/csv");
            Answer::of(request.body(table.to_owned()))
        };
        let path = format!("/api/organisations/{id}/import");
        let bad = "名称,类型\n市公安局,部门\n=1+1,部门\n,部门\n";
        let plan = send(format!("{path}/plan"), bad).await.expect(200);
        assert!(
            plan.body["counts"]["problems"].as_u64().unwrap() >= 1,
            "{}",
            plan.raw
        );
        assert!(plan.body["problems"][0]["message"].is_string());
        let print = plan.text("fingerprint");
        let refused = send(format!("{path}?fingerprint={print}"), bad).await;
        assert_eq!(refused.expect(422).code(), "import_problems");
        let good = "名称,区划代码\n大东区综治中心,210104\n";
        let plan = send(format!("{path}/plan"), good).await.expect(200);
        assert_eq!(plan.body["counts"]["problems"], 0, "{}", plan.raw);
        assert_eq!(plan.body["new"][0]["code"], "210104000000");
        // The province's own tree, out of what comes along.
        let path = format!("/api/organisations/{}/import", world.province.id);
        let query = "province=21&lowest=county&suffix=%E7%BB%BC%E6%B2%BB%E4%B8%AD%E5%BF%83";
        let ask = |path: String| world.server.post_with(path, &world.system);
        let plan = ask(format!("{path}/divisions/plan?{query}"))
            .await
            .expect(200);
        assert_eq!(plan.body["counts"]["new"], 114);
        let print = plan.text("fingerprint");
        let wrong = ask(format!("{path}/divisions?{query}&fingerprint=x")).await;
        assert_eq!(wrong.expect(409).code(), "import_changed");
        let done = ask(format!("{path}/divisions?{query}&fingerprint={print}"))
            .await
            .expect(200);
        assert_eq!(done.body["counts"]["new"], 114);
        let list = format!("/api/organisations?under={}&limit=200", world.province.id);
        let list = world.server.get(&list, &world.system).await.expect(200);
        let found = list.body["organisations"].as_array().unwrap().len();
        assert_eq!(found, 114 + 4);
        let page = format!("/api/organisations?under={}&limit=100", world.province.id);
        let first = world.server.get(&page, &world.system).await.expect(200);
        let next = first.text("next");
        let rest = world
            .server
            .get(&format!("{page}&cursor={next}"), &world.system)
            .await;
        assert_eq!(rest.body["organisations"].as_array().unwrap().len(), 18);
        assert_eq!(rest.body["next"], Value::Null);
    })
    .await;
}

impl Server {
    async fn post_with(&self, path: String, cookie: &str) -> Answer {
        self.post(&path, cookie, &json!({})).await
    }
}
