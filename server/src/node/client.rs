//! Asks the node above, over HTTPS.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::settings::split_address;

/// How long an answer may take, with all hops to the authority and back.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// The largest answer, in bytes: a list of ten thousand revoked certificates.
const ANSWER_BOUND: usize = 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// The other node says no, in words.
    #[error("the parent refused: {1}")]
    Refused(StatusCode, String),
    /// The other node can't be reached, or is not the one that it should be.
    #[error("the parent can't be reached: {0:#}")]
    Unreachable(anyhow::Error),
}

/// Asks one other node. Each request has a connection of its own: there are few, and what is trusted
/// is looked at anew for each.
pub(crate) struct Client {
    address: String,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

impl Client {
    /// Whom to ask at which address, HOST:PORT; `config` says who it must be.
    pub(crate) fn new(address: &str, config: Arc<ClientConfig>) -> anyhow::Result<Client> {
        let (host, _) = split_address(address).context("an address is HOST:PORT")?;
        Ok(Client {
            address: address.to_owned(),
            name: ServerName::try_from(host.to_owned())?,
            config,
        })
    }

    /// Asks for something.
    pub(crate) async fn get(&self, path: &str) -> Result<String, AskError> {
        self.ask(Method::GET, path, Vec::new()).await
    }

    /// Tells something, as JSON.
    pub(crate) async fn post(&self, path: &str, body: &impl Serialize) -> Result<String, AskError> {
        let body = serde_json::to_vec(body).map_err(|error| AskError::Unreachable(error.into()))?;
        self.ask(Method::POST, path, body).await
    }

    async fn ask(&self, method: Method, path: &str, body: Vec<u8>) -> Result<String, AskError> {
        let asked = tokio::time::timeout(ANSWER_TIME, self.exchange(method, path, body));
        let answer = asked.await.context("no answer came in time");
        let (status, words) = answer.and_then(|answer| answer).map_err(|error| {
            AskError::Unreachable(error.context(format!("asking {}", self.address)))
        })?;
        if status.is_success() {
            Ok(words)
        } else {
            Err(AskError::Refused(status, words))
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> anyhow::Result<(StatusCode, String)> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let tls = TlsConnector::from(self.config.clone());
        let stream = tls.connect(self.name.clone(), stream).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.address)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(bytes::Bytes::from(body)))?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BOUND);
            let body = body.collect().await.map_err(anyhow::Error::from_boxed)?;
            let words = String::from_utf8(body.to_bytes().into())?;
            anyhow::Ok((status, words))
        }
        .await;
        driver.abort();
        answer
    }
}
