//! What every request passes, in this order: framing, raw-path grammar, upstream, place in flight (its client's and all), handler,
//! panic catcher.
//!
//! The count of a request and its place in flight go into its body: they end when the last byte has left, or the client has.

use std::borrow::Cow;
use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{CONNECTION, USER_AGENT};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;

use super::body::{Body, Content, Held, InFlight};
use super::connection::Connection;
use super::error::{ApiError, Asked, Failure};
use super::framing::{self, BodySeen};
use super::refusal::{Client, Stop};
use super::route::Route;
use super::server::Server;
use super::upstreams::{Routed, Upstreams, Want};
use super::{Protocol, blobs, headers, manifests, referrers, tags};
use crate::limits::{MANIFEST_UNCOUNTED_BYTES, OVERLOADED_RETRY_AFTER};
use crate::pull::Puller;
use crate::telemetry::{CloseReason, MethodLabel, OverloadBound, RouteLabel, Telemetry};

/// Answers one request, whatever it is.
pub(super) async fn answer(
    server: Arc<Server>,
    connection: Arc<Connection>,
    protocol: Protocol,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let busy = connection.request();
    // The body is dropped unread: nothing is asked of it but whether it is there, and hyper sends no `100 Continue`.
    let (head, unread) = request.into_parts();
    let seen = BodySeen { present: !unread.is_end_stream(), ambiguous: connection.is_ambiguous() };
    drop(unread);
    let read = Read::of(&head, seen, &server.upstreams);
    let mut guard = server.telemetry.request(read.label, method_label(&head.method));
    let place = enter(&server, &connection);
    let asked = read.asked(&head, protocol, &server);
    let (outcome, place) = match (read.routed, place) {
        (Ok(routed), Ok(place)) => {
            let handled = handle(&server, &connection, &routed, &head).await;
            let counted = handled.and_then(|response| counted(&server, &head.method, response));
            (counted.map_err(|error| error.about(&routed.want)), Some(place))
        }
        (Ok(routed), Err(error)) => (Err(error.about(&routed.want)), None),
        (Err(error), place) => (Err(error), place.ok()),
    };
    let mut response = outcome.unwrap_or_else(|error| {
        error.log(&asked, connection.peer, &user_agent(&head));
        if error.failure() == Failure::Malformed {
            server.telemetry.connection_closed(CloseReason::Malformed);
        }
        error.respond(&asked)
    });
    if asked.close {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    guard.status(response.status().as_u16());
    if head.method == Method::HEAD {
        *response.body_mut() = Content::Empty;
    }
    let handover = match protocol {
        Protocol::Http1 => None,
        Protocol::Http2 => Some(connection.handover()),
    };
    let tail = Held { guard: Some(guard), _place: place, _busy: busy, handover };
    Ok(response.map(|content| Body::new(content, tail)))
}

/// A place in flight. A client that has too many is told so; it costs nobody else one.
fn enter(server: &Server, connection: &Connection) -> Result<InFlight, ApiError> {
    let Ok(of_client) = Arc::clone(&connection.requests_of_client).try_acquire_owned() else {
        server.telemetry.overloaded(OverloadBound::ClientRequests);
        return Err(ApiError::client_limit(TOO_MANY_IN_FLIGHT, OVERLOADED_RETRY_AFTER));
    };
    let Ok(of_all) = Arc::clone(&server.in_flight).try_acquire_owned() else {
        server.telemetry.overloaded(OverloadBound::Requests);
        return Err(ApiError::overloaded());
    };
    Ok(InFlight { _of_client: of_client, _of_all: of_all })
}

/// Counts a large manifest until its bytes have gone out or their client has: those that do not read must not make us keep more of
/// them than that. The bytes carry the permit, since hyper lets go of a body when it has its last frame.
fn counted(server: &Server, method: &Method, response: Response<Content>) -> Result<Response<Content>, ApiError> {
    let (head, content) = response.into_parts();
    let content = match content {
        Content::Whole(bytes) if *method == Method::GET && bytes.len() > MANIFEST_UNCOUNTED_BYTES => {
            let kib = u32::try_from(bytes.len().div_ceil(1024)).unwrap_or(u32::MAX);
            let Ok(room) = Arc::clone(&server.manifest_room).try_acquire_many_owned(kib) else {
                server.telemetry.overloaded(OverloadBound::ManifestBytes);
                return Err(ApiError::overloaded());
            };
            Content::Whole(Bytes::from_owner(Counted { bytes, _room: room }))
        }
        content @ (Content::Empty | Content::Whole(_) | Content::Stream(..)) => content,
    };
    Ok(Response::from_parts(head, content))
}

struct Counted {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

const TOO_MANY_IN_FLIGHT: &str = "this client has more requests in flight than one may; try again";

/// A request as far as it is understood before anything is fetched.
struct Read {
    routed: Result<Routed, ApiError>,
    label: RouteLabel,
    /// The connection cannot go on after this request.
    close: bool,
}

impl Read {
    fn of(head: &Parts, seen: BodySeen, upstreams: &Upstreams) -> Self {
        if let Err(error) = framing::check(head, seen) {
            return Self { routed: Err(error.into()), label: RouteLabel::Other, close: true };
        }
        let close = framing::leaves_long_body(head) || head.method == Method::CONNECT;
        match Route::parse(&head.method, head.uri.path(), head.uri.query().unwrap_or_default()) {
            Ok(route) => {
                let label = route.label();
                Self { routed: upstreams.resolve(route).map_err(ApiError::from), label, close }
            }
            Err(error) => {
                let error = ApiError::from(error);
                let catalog = error.failure() == Failure::Catalog;
                let label = if catalog { RouteLabel::Catalog } else { RouteLabel::Other };
                Self { routed: Err(error), label, close }
            }
        }
    }

    fn asked<'a>(&self, head: &'a Parts, protocol: Protocol, server: &Server) -> Asked<'a> {
        let stop = Stop::of(server.hard_stop, Client::of(&user_agent(head)));
        let close = self.close && protocol == Protocol::Http1;
        Asked { method: &head.method, manifest: self.label == RouteLabel::Manifest, stop, close }
    }
}

async fn handle(
    server: &Server,
    connection: &Connection,
    routed: &Routed,
    head: &Parts,
) -> Result<Response<Content>, ApiError> {
    let puller = server.puller.on_behalf_of(connection.client, &server.cold);
    let outcome = surviving(&server.telemetry, serve(server, &puller, &routed.want, head)).await;
    let mut response = outcome.map_err(|error| error.about(&routed.want))?;
    if let Some(namespace) = &routed.namespace {
        headers::namespace(response.headers_mut(), namespace);
    }
    Ok(response)
}

/// Runs a handler; a panic fails this request alone.
async fn surviving<T>(
    telemetry: &Telemetry,
    handling: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    AssertUnwindSafe(handling).catch_unwind().await.unwrap_or_else(|_| {
        telemetry.panicked("http");
        Err(ApiError::internal())
    })
}

async fn serve(server: &Server, puller: &Puller, want: &Want, head: &Parts) -> Result<Response<Content>, ApiError> {
    match want {
        Want::Base => Ok(headers::answer(StatusCode::OK, headers::JSON, Content::Whole("{}".into()))),
        Want::Manifest(image) => manifests::answer(puller, image, &head.headers).await,
        Want::Blob(repository, digest) => blobs::answer(puller, repository, digest, head, server.delivery()).await,
        Want::Tags(query) => tags::answer(puller, query).await,
        Want::Referrers(repository, digest, artifact_type) => {
            referrers::answer(puller, repository, digest, artifact_type.as_deref()).await
        }
    }
}

fn method_label(method: &Method) -> MethodLabel {
    match *method {
        Method::GET => MethodLabel::Get,
        Method::HEAD => MethodLabel::Head,
        _ => MethodLabel::Other,
    }
}

/// How the client calls itself. Bytes that are no UTF-8 are replaced: a name that begins well must not lose its hard stop.
fn user_agent(head: &Parts) -> Cow<'_, str> {
    head.headers.get(USER_AGENT).map_or(Cow::Borrowed(""), |value| String::from_utf8_lossy(value.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_internal_error_of_its_own_request() {
        let telemetry = Telemetry::new(&[]);
        let broken = surviving::<()>(&telemetry, async { panic!("a bug") }).await.unwrap_err();
        assert_eq!(broken.failure(), Failure::Internal);
        assert_eq!(surviving(&telemetry, async { Ok(1) }).await.unwrap(), 1);
        let counted =
            telemetry.render().lines().any(|line| line.starts_with("sealgate_panics_total") && line.ends_with(" 1"));
        assert!(counted, "{}", telemetry.render());
    }
}
