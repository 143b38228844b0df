//! One connection: what phase it is in, and its life from handshake to end.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::io::{Carrier, Watched};
use super::layers;
use super::server::Server;
use super::{Protocol, Timeouts};
use crate::limits::{
    HTTP2_HEADER_LIST_BYTES_MAX, HTTP2_PING_INTERVAL, HTTP2_PING_TIMEOUT, HTTP2_STREAMS_MAX, REQUEST_HEADER_BYTES_MAX,
    REQUEST_HEADERS_MAX,
};
use crate::telemetry::CloseReason;

/// What a connection is doing, as far as deadlines are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// A head is awaited or has begun: also a new connection that has sent nothing.
    Head,
    /// A request is being answered.
    Busy,
    /// Kept alive between requests.
    Idle,
}

/// Which deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expiry {
    /// A head did not come whole.
    Header,
    /// No further request came.
    Idle,
    /// The peer took nothing.
    Write,
}

/// What the bytes, the requests and the bodies of one connection know of each other.
#[derive(Debug)]
pub(super) struct Connection {
    /// The peer, for the log.
    pub(super) peer: SocketAddr,
    /// Who it counts as.
    pub(super) client: IpAddr,
    /// Places for the requests in flight of all its connections.
    pub(super) requests_of_client: Arc<Semaphore>,
    /// Between requests a byte of a next head has come.
    in_head: AtomicBool,
    /// Requests that are being answered.
    busy: AtomicUsize,
    /// Requests so far.
    requests: AtomicUsize,
    ambiguous: AtomicBool,
    expired: AtomicU8,
    began: Instant,
    /// Bodies on their way, where one connection has several (HTTP/2).
    bodies: Mutex<Vec<Weak<Handover>>>,
}

impl Connection {
    pub(super) fn new(peer: SocketAddr, client: IpAddr, requests_of_client: Arc<Semaphore>) -> Self {
        Self {
            peer,
            client,
            requests_of_client,
            in_head: AtomicBool::new(true),
            busy: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            ambiguous: AtomicBool::new(false),
            expired: AtomicU8::new(0),
            began: Instant::now(),
            bodies: Mutex::default(),
        }
    }

    #[cfg(test)]
    pub(super) fn alone() -> Self {
        let peer = SocketAddr::from(([192, 0, 2, 1], 1));
        Self::new(peer, peer.ip(), Arc::new(Semaphore::new(1)))
    }

    pub(super) fn phase(&self) -> Phase {
        if self.busy.load(Ordering::Acquire) > 0 {
            Phase::Busy
        } else if self.in_head.load(Ordering::Acquire) {
            Phase::Head
        } else {
            Phase::Idle
        }
    }

    /// Requests so far.
    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::Acquire)
    }

    /// Bytes have come while no request was being answered.
    pub(super) fn head_began(&self) {
        if self.busy.load(Ordering::Acquire) == 0 {
            self.in_head.store(true, Ordering::Release);
        }
    }

    /// A request has come whole; it is being answered until the guard drops.
    pub(super) fn request(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::AcqRel);
        self.requests.fetch_add(1, Ordering::AcqRel);
        self.in_head.store(false, Ordering::Release);
        Busy(Arc::clone(self))
    }

    /// A head stated two lengths.
    pub(super) fn length_is_ambiguous(&self) {
        self.ambiguous.store(true, Ordering::Release);
    }

    /// Whether any head stated two lengths.
    pub(super) fn is_ambiguous(&self) -> bool {
        self.ambiguous.load(Ordering::Acquire)
    }

    pub(super) fn expired(&self, expiry: Expiry) {
        let code = match expiry {
            Expiry::Header => 1,
            Expiry::Idle => 2,
            Expiry::Write => 3,
        };
        self.expired.store(code, Ordering::Release);
    }

    pub(super) fn expiry(&self) -> Option<Expiry> {
        match self.expired.load(Ordering::Acquire) {
            1 => Some(Expiry::Header),
            2 => Some(Expiry::Idle),
            3 => Some(Expiry::Write),
            _ => None,
        }
    }

    /// Watches a body whose peer may stop taking it without the connection standing still.
    pub(super) fn handover(&self) -> Arc<Handover> {
        let handover = Arc::new(Handover { began: self.began, handed_ms: AtomicU64::new(0) });
        let mut bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        bodies.retain(|body| body.strong_count() > 0);
        bodies.push(Arc::downgrade(&handover));
        handover
    }

    /// Whether the peer has left some body untaken for so long.
    fn has_stalled_body(&self, allowed: Duration) -> bool {
        let bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        bodies.iter().filter_map(Weak::upgrade).any(|body| body.untaken_for() > allowed)
    }
}

/// A request is being answered while this lives.
#[derive(Debug)]
pub(super) struct Busy(Arc<Connection>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

/// When a body's latest bytes were handed over without the next having been asked for.
#[derive(Debug)]
pub(super) struct Handover {
    began: Instant,
    /// Milliseconds since `began`, plus one; 0 while the next bytes are being waited for.
    handed_ms: AtomicU64,
}

impl Handover {
    /// Bytes go to the peer; they are taken when it asks for more.
    pub(super) fn handed(&self) {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.handed_ms.store(millis.saturating_add(1), Ordering::Release);
    }

    /// The peer asks for bytes.
    pub(super) fn taken(&self) {
        self.handed_ms.store(0, Ordering::Release);
    }

    fn untaken_for(&self) -> Duration {
        match self.handed_ms.load(Ordering::Acquire).checked_sub(1) {
            Some(handed) => self.began.elapsed().saturating_sub(Duration::from_millis(handed)),
            None => Duration::ZERO,
        }
    }
}

/// Serves one accepted connection to its end.
pub(super) async fn serve(stream: TcpStream, connection: Connection, server: Arc<Server>) {
    let connection = Arc::new(connection);
    let closed = match &server.tls {
        None => speak(stream, Protocol::Http1, Arc::clone(&connection), &server).await,
        Some(tls) => {
            let handshake = tokio::time::timeout(server.timeouts.tls_handshake, tls.accept(stream));
            let Ok(Ok(stream)) = handshake.await else {
                server.telemetry.connection_closed(CloseReason::TlsFailed);
                return;
            };
            let protocol = match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => Protocol::Http2,
                _ => Protocol::Http1,
            };
            speak(stream, protocol, Arc::clone(&connection), &server).await
        }
    };
    let reason = match (closed, connection.expiry()) {
        (_, Some(Expiry::Header)) => CloseReason::HeaderTimeout,
        (_, Some(Expiry::Write)) => CloseReason::WriteTimeout,
        (Some(reason), None) => reason,
        (_, Some(Expiry::Idle)) | (None, None) => return,
    };
    tracing::debug!(client = %connection.peer, reason = reason.as_label(), "connection closed");
    server.telemetry.connection_closed(reason);
}

async fn speak<S>(
    stream: S,
    protocol: Protocol,
    connection: Arc<Connection>,
    server: &Arc<Server>,
) -> Option<CloseReason>
where
    S: Carrier + Send + 'static,
{
    let Timeouts { keep_alive_idle, header_read, .. } = server.timeouts;
    let io = TokioIo::new(Watched::new(stream, Arc::clone(&connection), protocol, server.timeouts));
    let service = {
        let (server, connection) = (Arc::clone(server), Arc::clone(&connection));
        service_fn(move |request| layers::answer(Arc::clone(&server), Arc::clone(&connection), protocol, request))
    };
    match protocol {
        Protocol::Http1 => {
            let mut builder = http1::Builder::new();
            // Ours runs out first; hyper's covers a head that lay in its buffer when the answer before it ended.
            builder.timer(TokioTimer::new()).header_read_timeout(keep_alive_idle + header_read);
            builder.max_headers(REQUEST_HEADERS_MAX);
            builder.max_header_size(REQUEST_HEADER_BYTES_MAX).max_buf_size(REQUEST_HEADER_BYTES_MAX);
            let serving = pin!(builder.serve_connection(io, service));
            drive(serving, http1::Connection::graceful_shutdown, &connection, protocol, server).await
        }
        Protocol::Http2 => {
            let mut builder = http2::Builder::new(Tracked(server.streams.clone()));
            builder.timer(TokioTimer::new());
            builder.keep_alive_interval(HTTP2_PING_INTERVAL).keep_alive_timeout(HTTP2_PING_TIMEOUT);
            builder.max_concurrent_streams(HTTP2_STREAMS_MAX).max_header_list_size(HTTP2_HEADER_LIST_BYTES_MAX);
            let serving = pin!(builder.serve_connection(io, service));
            drive(serving, http2::Connection::graceful_shutdown, &connection, protocol, server).await
        }
    }
}

/// Runs a connection until it ends, is asked to end and has, or must end now. Says why we closed it, if we did.
async fn drive<C>(
    mut serving: std::pin::Pin<&mut C>,
    end_gracefully: impl Fn(std::pin::Pin<&mut C>),
    connection: &Connection,
    protocol: Protocol,
    server: &Server,
) -> Option<CloseReason>
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut look = tokio::time::interval(server.timeouts.write_idle / 2);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut draining = false;
    loop {
        // Losing a branch is safe: the connection is borrowed, the others hold no state.
        tokio::select! {
            biased;
            ended = serving.as_mut() => {
                return ended.err().filter(hyper::Error::is_parse).map(|_| CloseReason::Malformed);
            }
            () = server.cut.cancelled() => return Some(CloseReason::Drain),
            () = server.shutdown.cancelled(), if !draining => {
                draining = true;
                end_gracefully(serving.as_mut());
            }
            _ = look.tick(), if protocol == Protocol::Http2 => {
                if connection.has_stalled_body(server.timeouts.write_idle) {
                    return Some(CloseReason::WriteTimeout);
                }
            }
        }
    }
}

/// Runs HTTP/2's streams as tasks that shutdown waits for.
#[derive(Debug, Clone)]
struct Tracked(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn(stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: Duration = Duration::from_secs(30);

    fn connection() -> Arc<Connection> {
        Arc::new(Connection::alone())
    }

    #[tokio::test(start_paused = true)]
    async fn p14_a_body_that_its_peer_leaves_untaken_is_seen_among_others() {
        let connection = connection();
        let (stalled, lively) = (connection.handover(), connection.handover());
        stalled.handed();
        tokio::time::advance(ALLOWED).await;
        lively.handed();
        assert!(!connection.has_stalled_body(ALLOWED), "exactly so long is allowed");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(connection.has_stalled_body(ALLOWED));
        stalled.taken();
        assert!(!connection.has_stalled_body(ALLOWED), "it is our turn now, however long it takes");
        stalled.handed();
        tokio::time::advance(ALLOWED * 2).await;
        drop(stalled);
        lively.taken();
        assert!(!connection.has_stalled_body(ALLOWED), "a body that has ended does not count");
    }

    #[test]
    fn a_connection_is_busy_until_its_last_request_is_done() {
        let connection = connection();
        assert_eq!(connection.phase(), Phase::Head);
        let (first, second) = (connection.request(), connection.request());
        drop(first);
        assert_eq!(connection.phase(), Phase::Busy);
        connection.head_began();
        drop(second);
        assert_eq!((connection.phase(), connection.requests()), (Phase::Idle, 2));
        connection.head_began();
        assert_eq!(connection.phase(), Phase::Head);
    }
}
