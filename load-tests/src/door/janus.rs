//! Janus by its VideoRoom plugin over HTTP with long polling. Who receives takes all others in one connection.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::future::BoxFuture;
use reqwest::Client;
use serde_json::{Value, json};

use super::{Address, Door, JOIN_WITHIN, Visit, is_set};
use crate::media::{ConnectionId, Line};
use crate::scenario::Codec;

/// Janus answers a long poll after at most 30 s.
const POLL_WITHIN: Duration = Duration::from_secs(40);

/// Participants that a room is made for.
const PUBLISHERS: u32 = 200;

/// Clients of Janus.
pub struct JanusDoor {
    base: String,
    http: Client,
    transaction: AtomicU64,
}

/// A session of Janus with its handles.
struct Session<'a> {
    door: &'a JanusDoor,
    url: String,
}

impl JanusDoor {
    /// To the Janus API at `http://host:8088/janus`.
    pub fn new(address: &Address) -> JanusDoor {
        JanusDoor {
            base: address.server.trim_end_matches('/').to_owned(),
            http: Client::new(),
            transaction: AtomicU64::new(0),
        }
    }

    async fn post(&self, url: &str, mut body: Value) -> Result<Value> {
        let number = self.transaction.fetch_add(1, Ordering::Relaxed);
        body["transaction"] = json!(format!("t{number}"));
        let answer: Value = self
            .http
            .post(url)
            .json(&body)
            .timeout(JOIN_WITHIN)
            .send()
            .await
            .with_context(|| format!("Janus does not answer at {url}"))?
            .json()
            .await?;
        if answer["janus"] == "error" {
            bail!("Janus refused {}: {}", body["janus"], answer["error"]);
        }
        Ok(answer)
    }

    async fn stay(&self, mut visit: Visit) -> Result<()> {
        let answer = self.post(&self.base, json!({ "janus": "create" })).await?;
        let id = answer["data"]["id"].as_u64().context("no session id")?;
        let session = Session {
            door: self,
            url: format!("{}/{id}", self.base),
        };
        let result = session.run(&mut visit).await;
        let destroyed = self.post(&session.url, json!({ "janus": "destroy" })).await;
        result.and(destroyed.map(drop))
    }
}

impl Door for JanusDoor {
    fn attend(&self, visit: Visit) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.stay(visit))
    }
}

impl Session<'_> {
    async fn run(&self, visit: &mut Visit) -> Result<()> {
        let room = room_number(&visit.room_name());
        let publisher = self.attach().await?;
        let created = self
            .ask(
                publisher,
                json!({
                    "request": "create", "room": room, "publishers": PUBLISHERS, "bitrate": 0,
                    "videocodec": "vp8,h264", "audiocodec": "opus", "audiolevel_ext": true,
                    "notify_joining": false,
                }),
            )
            .await?;
        let code = created["plugindata"]["data"]["error_code"].as_u64();
        // 427: another client was first.
        if code.is_some_and(|code| code != 427) {
            bail!(
                "Janus made no room: {}",
                created["plugindata"]["data"]["error"]
            );
        }
        self.message(
            publisher,
            json!({
                "request": "join", "ptype": "publisher", "room": room, "display": visit.identity,
            }),
            None,
        )
        .await?;
        let joined = self.event(publisher).await?;
        let mut waiting = feeds(&joined);
        if !visit.sends.is_empty() {
            waiting.extend(self.publish(visit, publisher).await?);
        }
        let wanted = visit
            .senders
            .iter()
            .filter(|(name, _)| visit.receives && *name != visit.identity)
            .count();
        let mut subscriber: Option<(u64, ConnectionId)> = None;
        let mut followed: Vec<u64> = Vec::new();
        let mut leave = visit.leave.clone();
        loop {
            waiting.retain(|feed| !followed.contains(feed));
            waiting.dedup();
            if visit.receives && !waiting.is_empty() {
                let fresh = std::mem::take(&mut waiting);
                let more;
                (subscriber, more) = self.follow(visit, room, subscriber, &fresh).await?;
                waiting = more;
                followed.extend(fresh);
            }
            if followed.len() >= wanted {
                visit.has_entered();
            }
            let event = tokio::select! {
                event = self.poll() => event?,
                () = is_set(&mut leave) => return Ok(()),
            };
            waiting.extend(feeds(&event));
        }
    }

    async fn publish(&self, visit: &Visit, handle: u64) -> Result<Vec<u64>> {
        let connection = visit.media.open(visit.stay).await?;
        let lines = visit
            .sends
            .iter()
            .map(|plan| Line::Send {
                plan: *plan,
                track: format!("source-{}", plan.id),
            })
            .collect();
        let sdp = visit.media.offer(connection, lines).await?;
        let codec = visit
            .sends
            .iter()
            .find(|plan| plan.codec != Codec::Opus)
            .map_or("vp8", |plan| match plan.codec {
                Codec::H264 => "h264",
                _ => "vp8",
            });
        self.message(
            handle,
            json!({ "request": "publish", "videocodec": codec, "audiocodec": "opus" }),
            Some(json!({ "type": "offer", "sdp": sdp })),
        )
        .await?;
        let (answer, met) = self.description(handle).await?;
        visit.media.accept_answer(connection, answer).await?;
        tokio::time::timeout(JOIN_WITHIN, visit.media.connected(connection))
            .await
            .with_context(|| format!("not connected within {} s", JOIN_WITHIN.as_secs()))??;
        Ok(met)
    }

    /// Subscribes to feeds; returns the subscriber and feeds heard of meanwhile.
    async fn follow(
        &self,
        visit: &Visit,
        room: u64,
        subscriber: Option<(u64, ConnectionId)>,
        wanted: &[u64],
    ) -> Result<(Option<(u64, ConnectionId)>, Vec<u64>)> {
        let streams: Vec<Value> = wanted.iter().map(|feed| json!({ "feed": feed })).collect();
        let (handle, connection, request) = match subscriber {
            Some((handle, connection)) => (
                handle,
                connection,
                json!({ "request": "subscribe", "streams": streams }),
            ),
            None => (
                self.attach().await?,
                visit.media.open(visit.stay).await?,
                json!({
                    "request": "join", "ptype": "subscriber", "room": room, "streams": streams,
                }),
            ),
        };
        self.message(handle, request, None).await?;
        let (offer, met) = self.description(handle).await?;
        let answer = visit.media.accept_offer(connection, offer).await?;
        self.message(
            handle,
            json!({ "request": "start" }),
            Some(json!({ "type": "answer", "sdp": answer })),
        )
        .await?;
        tokio::time::timeout(JOIN_WITHIN, visit.media.connected(connection))
            .await
            .with_context(|| format!("not connected within {} s", JOIN_WITHIN.as_secs()))??;
        Ok((Some((handle, connection)), met))
    }

    async fn attach(&self) -> Result<u64> {
        let answer = self
            .door
            .post(
                &self.url,
                json!({ "janus": "attach", "plugin": "janus.plugin.videoroom" }),
            )
            .await?;
        answer["data"]["id"].as_u64().context("no handle id")
    }

    /// A request that is answered at once.
    async fn ask(&self, handle: u64, body: Value) -> Result<Value> {
        self.message(handle, body, None).await
    }

    async fn message(&self, handle: u64, body: Value, jsep: Option<Value>) -> Result<Value> {
        let mut message = json!({ "janus": "message", "body": body });
        if let Some(jsep) = jsep {
            message["jsep"] = jsep;
        }
        self.door
            .post(&format!("{}/{handle}", self.url), message)
            .await
    }

    /// The next event, whatever it is.
    async fn poll(&self) -> Result<Value> {
        let event: Value = self
            .door
            .http
            .get(&self.url)
            .timeout(POLL_WITHIN)
            .send()
            .await
            .context("Janus does not answer the long poll")?
            .json()
            .await?;
        let data = &event["plugindata"]["data"];
        if data["error_code"].is_u64() {
            bail!("Janus refused: {}", data["error"]);
        }
        Ok(event)
    }

    /// The next event of a handle's plugin.
    async fn event(&self, handle: u64) -> Result<Value> {
        loop {
            let event = tokio::time::timeout(JOIN_WITHIN, self.poll())
                .await
                .context("Janus told nothing")??;
            if event["janus"] == "event" && event["sender"] == handle {
                return Ok(event);
            }
        }
    }

    /// The next description for a handle, and feeds heard of meanwhile.
    async fn description(&self, handle: u64) -> Result<(String, Vec<u64>)> {
        let mut met = Vec::new();
        loop {
            let event = tokio::time::timeout(JOIN_WITHIN, self.poll())
                .await
                .context("Janus sent no description")??;
            met.extend(feeds(&event));
            if event["sender"] == handle
                && let Some(sdp) = event["jsep"]["sdp"].as_str()
            {
                return Ok((sdp.to_owned(), met));
            }
        }
    }
}

/// The publishers that an event tells of.
fn feeds(event: &Value) -> Vec<u64> {
    event["plugindata"]["data"]["publishers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|publisher| publisher["id"].as_u64())
        .collect()
}

/// Janus numbers its rooms.
fn room_number(name: &str) -> u64 {
    // FNV-1a, cut to what JSON numbers keep.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash >> 12
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishers_are_found_in_events() {
        let event = json!({ "plugindata": { "data": { "publishers": [{ "id": 4 }, {}] } } });
        assert_eq!(feeds(&event), [4]);
        assert!(feeds(&json!({ "janus": "keepalive" })).is_empty());
    }

    #[test]
    fn rooms_have_numbers_of_their_own() {
        assert_ne!(room_number("a-1"), room_number("a-2"));
    }
}
