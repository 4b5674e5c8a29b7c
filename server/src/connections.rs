//! TCP connections, bounded: how many there are, how many an address has, how long one may take to
//! say what it wants, and how long it may leave unread what it is told.
//!
//! HTTP itself bounds the time in which a request's headers come, but not the time until it is
//! known which HTTP is spoken, and not the reading of answers; WebSockets bound themselves.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum_server::accept::Accept;
use signaling::log_limit::LogLimit;
use signaling::visitors::{Full, Place, Places};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// How long a client may take to send a request's headers, and for the handshake of TLS.
pub(crate) const HEADER_TIME: Duration = Duration::from_secs(10);
/// Bytes by which it is known which HTTP is spoken: the preface of HTTP/2 (RFC 9113 3.4).
const PREFACE: usize = 24;
/// How long a client may leave unread what it is told. A telephone in a tunnel takes some seconds.
pub(crate) const UNREAD_TIME: Duration = Duration::from_secs(30);
/// File descriptors kept for everything but connections: the database, UDP, logs.
const OTHER_FILES: usize = 128;
/// How long writing a refusal may take.
const REFUSAL_TIME: Duration = Duration::from_secs(1);
/// What one who comes too many hears where TLS is not spoken.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\n\
    connection: close\r\ncontent-type: text/plain\r\ncontent-length: 30\r\n\r\n\
    too many connections are open\n";

static TOO_MANY: LogLimit = LogLimit::new();
static TOO_SLOW: LogLimit = LogLimit::new();

/// Bounds connections before anything else sees them.
#[derive(Clone)]
pub(crate) struct Bounded<A> {
    inner: A,
    places: Arc<Places>,
    /// All its visitors come from a proxy's address; what each of them may have is bounded by
    /// sessions.
    proxies: Arc<[IpAddr]>,
    speaks_first: bool,
}

/// As many connections as there are files for; 0 is as many as there are files for.
pub(crate) fn bound_by_files(wanted: usize) -> usize {
    let files = raise_file_limit().saturating_sub(OTHER_FILES).max(1);
    if wanted > files {
        tracing::warn!(
            wanted,
            files,
            "limits.connections is over what the system lets this process open: raise its \
             LimitNOFILE or ulimit -n"
        );
    }
    if wanted == 0 {
        files
    } else {
        wanted.min(files)
    }
}

/// Takes as many files as the system lets this process have; returns how many.
#[cfg(unix)]
fn raise_file_limit() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: now.maximum,
        maximum: now.maximum,
    };
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => now.maximum,
        Err(_) => now.current,
    };
    limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    })
}

#[cfg(not(unix))]
fn raise_file_limit() -> usize {
    usize::MAX
}

impl<A> Bounded<A> {
    /// `speaks_first` says that a refusal may be written in plain HTTP.
    pub(crate) fn new(
        inner: A,
        places: Arc<Places>,
        proxies: &[IpAddr],
        speaks_first: bool,
    ) -> Bounded<A> {
        Bounded {
            inner,
            places,
            proxies: proxies.into(),
            speaks_first,
        }
    }
}

impl<A, S> Accept<TcpStream, S> for Bounded<A>
where
    A: Accept<TcpStream, S> + Clone + Send + Sync + 'static,
    A::Future: Send,
    A::Stream: Send,
    A::Service: Send,
    S: Send + 'static,
{
    type Stream = Watched<A::Stream>;
    type Service = A::Service;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let address = stream.peer_addr()?.ip();
            let counted = (!this.proxies.contains(&address.to_canonical())).then_some(address);
            let place = match this.places.take(counted) {
                Ok(place) => place,
                Err(full) => {
                    if let Some(suppressed) = TOO_MANY.pass(Instant::now()) {
                        tracing::warn!(
                            %address,
                            bound = match full {
                                Full::Address => "limits.connections_per_address",
                                Full::All => "limits.connections",
                            },
                            suppressed,
                            "a connection was refused: too many are open"
                        );
                    }
                    return Err(refuse(stream, this.speaks_first).await);
                }
            };
            // Small messages must not wait for each other's acknowledgement.
            stream.set_nodelay(true)?;
            let (stream, service) =
                this.inner
                    .accept(stream, service)
                    .await
                    .inspect_err(|error| {
                        if error.kind() == io::ErrorKind::TimedOut {
                            log_slow("the handshake of TLS took too long");
                        }
                    })?;
            Ok((Watched::new(stream, place), service))
        })
    }
}

async fn refuse(mut stream: TcpStream, speaks_first: bool) -> io::Error {
    if speaks_first {
        let _ = tokio::time::timeout(REFUSAL_TIME, async {
            stream.write_all(REFUSAL).await?;
            stream.shutdown().await?;
            // What has come is read, or the refusal would be lost with a reset.
            let mut rest = [0; 1024];
            while tokio::io::AsyncReadExt::read(&mut stream, &mut rest).await? > 0 {}
            io::Result::Ok(())
        })
        .await;
    }
    io::Error::other("too many connections")
}

fn log_slow(reason: &str) {
    if let Some(suppressed) = TOO_SLOW.pass(Instant::now()) {
        tracing::warn!(
            reason,
            suppressed,
            "a connection was closed: it is too slow"
        );
    }
}

/// A connection with its place, under watch.
pub(crate) struct Watched<S> {
    stream: S,
    _place: Place,
    /// Until when it must be known what is spoken; `None` once it is.
    preface: Option<Pin<Box<Sleep>>>,
    read: usize,
    opened: Instant,
    has_written: bool,
    /// Until when something must be read of what was written; `None` while nothing waits.
    unread: Option<Pin<Box<Sleep>>>,
}

impl<S> Watched<S> {
    fn new(stream: S, place: Place) -> Watched<S> {
        Watched {
            stream,
            _place: place,
            preface: Some(Box::pin(tokio::time::sleep(HEADER_TIME))),
            read: 0,
            opened: Instant::now(),
            has_written: false,
            unread: None,
        }
    }

    /// Passes a write's outcome on; one that waits for too long fails.
    fn watch<T>(
        &mut self,
        outcome: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.unread = None;
            return outcome;
        }
        let unread = self
            .unread
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(UNREAD_TIME)));
        if unread.as_mut().poll(context).is_ready() {
            log_slow("it does not read what it is told");
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl<S> Drop for Watched<S> {
    fn drop(&mut self) {
        // HTTP itself cuts off who sends headers too slowly, and says nothing of it.
        if self.read > 0 && !self.has_written && self.opened.elapsed() >= HEADER_TIME {
            log_slow("its request did not come whole");
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.preface.is_none() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.read += buffer.filled().len() - before;
        if self.read >= PREFACE {
            self.preface = None;
        } else if outcome.is_pending()
            && let Some(preface) = &mut self.preface
            && preface.as_mut().poll(context).is_ready()
        {
            log_slow("it does not say what it wants");
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // A request shorter than a preface has its answer: it was known what it wants.
        self.preface = None;
        self.has_written = true;
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(outcome, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(outcome, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch(outcome, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.preface = None;
        self.has_written = true;
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.watch(outcome, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, duplex};

    use super::*;

    fn watched(capacity: usize) -> (Watched<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (ours, theirs) = duplex(capacity);
        let place = Places::new(0, 0).take(None).unwrap();
        (Watched::new(ours, place), theirs)
    }

    async fn kind<T>(outcome: impl Future<Output = io::Result<T>>) -> Option<io::ErrorKind> {
        outcome.await.err().map(|error| error.kind())
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_too_little_for_too_long_is_cut_off() {
        let (mut ours, mut theirs) = watched(1024);
        theirs.write_all(b"PRI * HTTP/2.0").await.unwrap();
        let mut buffer = [0; 64];
        assert_eq!(ours.read(&mut buffer).await.unwrap(), 14);
        let begin = tokio::time::Instant::now();
        assert_eq!(
            kind(ours.read(&mut buffer)).await,
            Some(io::ErrorKind::TimedOut)
        );
        assert_eq!(begin.elapsed(), HEADER_TIME);
    }

    #[tokio::test(start_paused = true)]
    async fn who_said_what_it_wants_may_be_silent() {
        let (mut ours, mut theirs) = watched(1024);
        let mut buffer = [0; 64];
        theirs.write_all(&[b'x'; PREFACE]).await.unwrap();
        assert_eq!(ours.read(&mut buffer).await.unwrap(), PREFACE);
        let silence = tokio::time::timeout(HEADER_TIME * 10, ours.read(&mut buffer));
        assert!(silence.await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_is_cut_off_and_who_reads_slowly_is_not() {
        let (mut ours, mut theirs) = watched(16);
        let reader = tokio::spawn(async move {
            let mut buffer = [0; 8];
            for _ in 0..4 {
                tokio::time::sleep(UNREAD_TIME / 2).await;
                theirs.read_exact(&mut buffer).await.unwrap();
            }
            theirs
        });
        ours.write_all(&[0; 48]).await.unwrap();
        let _theirs = reader.await.unwrap();
        assert_eq!(
            kind(ours.write_all(&[0; 48])).await,
            Some(io::ErrorKind::TimedOut)
        );
    }

    #[tokio::test]
    async fn one_too_many_hears_so() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let places = Places::new(0, 1);
        let bounded = Bounded::new(
            axum_server::accept::DefaultAcceptor::new(),
            places.clone(),
            &[],
            true,
        );
        let mut clients = Vec::new();
        for is_let_in in [true, false] {
            let client = TcpStream::connect(address).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let accepted = tokio::spawn(bounded.accept(stream, ()));
            clients.push((client, accepted, is_let_in));
        }
        let (mut refused, accepted, _) = clients.pop().unwrap();
        let mut text = String::new();
        refused.read_to_string(&mut text).await.unwrap();
        drop(refused);
        assert!(
            text.starts_with("HTTP/1.1 503") && text.ends_with("too many connections are open\n")
        );
        assert!(accepted.await.unwrap().is_err());
        let (_client, accepted, _) = clients.pop().unwrap();
        let (watched, ()) = accepted.await.unwrap().unwrap();
        assert_eq!(places.taken(), 1);
        drop(watched);
        assert_eq!(places.taken(), 0);
    }

    #[test]
    fn there_are_never_more_connections_than_files() {
        assert_eq!(bound_by_files(1), 1);
        assert!(bound_by_files(0) >= 1);
        assert!(bound_by_files(usize::MAX) <= raise_file_limit());
    }
}
