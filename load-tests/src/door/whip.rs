//! WHIP (RFC 9725) for those who send and WHEP for those who receive, at `/whip/{room}` and `/whep/{room}`.

use anyhow::{Context, Result, bail};
use futures_util::future::BoxFuture;
use reqwest::{Client, Url, header};

use super::{Address, Door, JOIN_WITHIN, Visit, is_set, token};
use crate::media::Line;

/// Clients by WHIP and WHEP.
pub struct WhipDoor {
    address: Address,
    http: Client,
}

/// A resource of the server that stands for a peer connection.
struct Resource {
    url: Url,
    token: String,
}

impl WhipDoor {
    /// To the server at `http://host:port`.
    pub fn new(address: &Address) -> WhipDoor {
        WhipDoor {
            address: address.clone(),
            http: Client::new(),
        }
    }

    async fn stay(&self, mut visit: Visit) -> Result<()> {
        let mut resources = Vec::new();
        let result = self.enter_and_wait(&mut visit, &mut resources).await;
        for resource in resources {
            let delete = self
                .http
                .delete(resource.url)
                .bearer_auth(&resource.token)
                .timeout(JOIN_WITHIN)
                .send();
            let response = delete.await.context("the server does not answer DELETE")?;
            if result.is_ok() && !response.status().is_success() {
                bail!("the server answered DELETE with {}", response.status());
            }
        }
        result
    }

    async fn enter_and_wait(&self, visit: &mut Visit, resources: &mut Vec<Resource>) -> Result<()> {
        if !visit.sends.is_empty() {
            let lines = visit
                .sends
                .iter()
                .map(|plan| Line::Send {
                    plan: *plan,
                    track: format!("source-{}", plan.id),
                })
                .collect();
            let path = format!("whip/{}", visit.room_name());
            let resource = self.post(visit, &path, &visit.identity, lines).await?;
            resources.push(resource);
        }
        let wanted: Vec<_> = visit
            .senders
            .iter()
            .filter(|(identity, _)| visit.receives && *identity != visit.identity)
            .collect();
        if !wanted.is_empty() {
            let names: Vec<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
            // A place for both from each, whether or not it sends both.
            let lines = wanted
                .iter()
                .flat_map(|_| [Line::ReceiveVideo, Line::ReceiveAudio])
                .collect();
            let path = format!(
                "whep/{}?participants={}",
                visit.room_name(),
                names.join(",")
            );
            let identity = format!("{}-view", visit.identity);
            let resource = self.post(visit, &path, &identity, lines).await?;
            resources.push(resource);
        }
        visit.has_entered();
        is_set(&mut visit.leave).await;
        Ok(())
    }

    /// Offers and waits until the connection is up.
    async fn post(
        &self,
        visit: &Visit,
        path: &str,
        identity: &str,
        lines: Vec<Line>,
    ) -> Result<Resource> {
        let connection = visit.media.open(visit.stay).await?;
        let offer = visit.media.offer(connection, lines).await?;
        let base = self.address.server.trim_end_matches('/');
        let url: Url = format!("{base}/{path}").parse()?;
        let token = token(&self.address, &visit.room_name(), identity)?;
        let response = self
            .http
            .post(url.clone())
            .bearer_auth(&token)
            .header(header::CONTENT_TYPE, "application/sdp")
            .timeout(JOIN_WITHIN)
            .body(offer)
            .send()
            .await
            .with_context(|| format!("the server does not answer at {url}"))?;
        let status = response.status();
        let location = response
            .headers()
            .get(header::LOCATION)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let body = response.text().await?;
        if status != reqwest::StatusCode::CREATED {
            bail!(
                "{url}: {status} {}",
                body.chars().take(300).collect::<String>()
            );
        }
        let location = location.context("201 without a Location")?;
        let resource = Resource {
            url: url.join(&location)?,
            token,
        };
        visit.media.accept_answer(connection, body).await?;
        tokio::time::timeout(JOIN_WITHIN, visit.media.connected(connection))
            .await
            .with_context(|| format!("not connected within {} s", JOIN_WITHIN.as_secs()))??;
        Ok(resource)
    }
}

impl Door for WhipDoor {
    fn attend(&self, visit: Visit) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.stay(visit))
    }
}
