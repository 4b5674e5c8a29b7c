//! Listens for nodes below: HTTPS on which handlers know whose certificate the other end has.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Extension;
use axum::middleware::AddExtension;
use axum_server::accept::Accept;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use signaling::visitors::Places;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::server::TlsStream;
use tower::Layer as _;

use super::certificate::Certificate;
use super::registrar::{Peer, Registrar, router};
use crate::connections::{Bounded, HEADER_TIME};

/// Connections of nodes at once: each child has one for a moment now and then.
const CONNECTIONS: usize = 1024;

/// Connections from one address. Nodes behind one router share theirs.
const CONNECTIONS_PER_ADDRESS: usize = 256;

/// Tells handlers whose certificate a connection showed.
#[derive(Clone)]
struct Introducing(RustlsAcceptor);

impl<S: Send + 'static> Accept<TcpStream, S> for Introducing {
    type Stream = TlsStream<TcpStream>;
    type Service = AddExtension<S, Peer>;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let accepted = self.0.accept(stream, service);
        Box::pin(async move {
            let (stream, service) = accepted.await?;
            let shown = stream.get_ref().1.peer_certificates();
            let read = shown.and_then(|shown| Certificate::read(shown.first()?).ok());
            let service = Extension(Peer(read.map(Arc::new))).layer(service);
            Ok((stream, service))
        })
    }
}

/// Starts to listen; where, and what ends it.
pub(crate) fn start(
    address: SocketAddr,
    registrar: Arc<Registrar>,
) -> anyhow::Result<(SocketAddr, AbortHandle)> {
    let tls = Arc::new(registrar.credentials.server_config());
    let listener = crate::serve::listen(address).context("node.listen")?;
    let address = listener.local_addr()?;
    let places = Places::new(CONNECTIONS, CONNECTIONS_PER_ADDRESS);
    let tls = RustlsConfig::from_config(tls);
    let mut server = axum_server::from_tcp_rustls(listener, tls)?.map(|inner| {
        let inner = Introducing(inner.handshake_timeout(HEADER_TIME));
        Bounded::new(inner, places, &[], false)
    });
    crate::serve::set_times(server.http_builder());
    let service = router(registrar)
        .layer(axum::middleware::from_fn(crate::serve::within_time))
        .into_make_service_with_connect_info::<SocketAddr>();
    let task = tokio::spawn(async move {
        if let Err(error) = server.serve(service).await {
            tracing::error!(%error, "nodes below can't connect any more");
        }
    });
    Ok((address, task.abort_handle()))
}
