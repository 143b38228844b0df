//! The listener: accepts, bounds, checks, answers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;

use super::answer::Refusal;
use super::guard::Guard;
use super::{State, router};
use crate::limits::{
    ACCEPT_PAUSE, ADMIN_CONNECTION_LIFE, ADMIN_CONNECTIONS_MAX, ADMIN_REQUEST, HEADER_READ, REQUEST_HEADER_BYTES_MAX,
    REQUEST_HEADERS_MAX,
};
use crate::telemetry::Telemetry;

/// Serves the admin listener until `shutdown` is cancelled; connections then end with their current answer. Connections are tasks of
/// `tasks`, which shutdown waits for.
pub async fn serve(listener: TcpListener, state: State, shutdown: CancellationToken, tasks: TaskTracker) {
    let loopback = listener.local_addr().as_ref().map(SocketAddr::ip).is_ok_and(|ip| ip.is_loopback());
    let service = Arc::new(Service::new(loopback, state));
    let permits = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
    loop {
        // Losing any branch is safe: a permit is given back, and an accepted connection is not lost since `accept` is cancel safe.
        let permit = tokio::select! {
            () = shutdown.cancelled() => return,
            permit = Arc::clone(&permits).acquire_owned() => permit,
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match (permit, accepted) {
            (Ok(permit), Ok((stream, _))) => {
                let (service, shutdown) = (Arc::clone(&service), shutdown.clone());
                tasks.spawn(async move {
                    connection(stream, service, shutdown).await;
                    drop(permit);
                });
            }
            // Out of descriptors, or the client left already: wait a little rather than spin.
            (_, Err(error)) => {
                tracing::warn!(%error, "the admin listener cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            (Err(_), Ok(_)) => return,
        }
    }
}

/// Answers the requests of one connection, for a bounded time.
pub(super) async fn connection<S>(stream: S, service: Arc<Service>, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let answer = service_fn(move |request| {
        let service = Arc::clone(&service);
        async move { Ok::<_, Infallible>(service.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ)
        .max_headers(REQUEST_HEADERS_MAX)
        .max_buf_size(REQUEST_HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), answer);
    tokio::pin!(connection);
    // Losing a branch is safe: the connection is polled on below, and a sleep has no state.
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = shutdown.cancelled() => None,
        () = tokio::time::sleep(ADMIN_CONNECTION_LIFE) => None,
    };
    let ended = if let Some(ended) = ended {
        ended
    } else {
        connection.as_mut().graceful_shutdown();
        // A client that does not read its answer does not hold the connection for ever.
        match tokio::time::timeout(ADMIN_REQUEST, connection).await {
            Ok(ended) => ended,
            Err(_) => return,
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an admin connection ended early");
    }
}

/// What answers a request: the checks, then the routes.
#[derive(Debug)]
pub(super) struct Service {
    guard: Guard,
    router: Router,
    telemetry: Telemetry,
}

impl Service {
    pub(super) fn new(loopback: bool, state: State) -> Self {
        let guard = Guard { loopback, host_name: host_name(), access: state.access.clone() };
        let telemetry = state.telemetry.clone();
        Self { guard, router: router(Arc::new(state)), telemetry }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response {
        let mut response = match self.guard.check(request.method(), request.uri(), request.headers()) {
            Ok(()) => self.route(request.map(Body::new)).await,
            Err(refusal) => refusal.into_response(),
        };
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }

    async fn route(&self, request: Request<Body>) -> Response {
        let routed = AssertUnwindSafe(self.router.clone().call(request)).catch_unwind();
        match tokio::time::timeout(ADMIN_REQUEST, routed).await {
            Ok(Ok(Ok(response))) => response,
            Ok(Err(_)) => {
                self.telemetry.panicked("admin");
                let hint = "this is a bug; the log says more";
                Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error", hint).into_response()
            }
            Err(_) => {
                let hint = "the server is busy; try again";
                Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the answer took too long", hint).into_response()
            }
        }
    }
}

/// This machine's name, where the kernel tells.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim().to_ascii_lowercase();
    (!name.is_empty()).then_some(name)
}
