//! From bytes on a connection to a reply, by the distribution-spec.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, LINK, RANGE, TRANSFER_ENCODING,
};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::fault::{Before, Delivery};
use super::socket::{ResetSwitch, Socket};
use super::{Content, Recorded, Referrers, Shared, State};
use crate::oci::{Algorithm, Digest, MediaType, RepositoryName};

/// A reply before it goes out; the body is there on HEAD too.
pub(super) type Reply = Response<Bytes>;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Accepts connections until it is dropped, and with it all of them.
pub(super) async fn accept(listener: TcpListener, tls: Option<Arc<ServerConfig>>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        while connections.try_join_next().is_some() {}
        let number = {
            let mut state = shared.state();
            state.connections += 1;
            state.connections - 1
        };
        let reset = ResetSwitch::default();
        let socket = Socket::new(stream, reset.clone());
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&shared), number, reset.clone(), request));
            // How a connection ends is for the other side to judge.
            match tls {
                None => drop(http1::Builder::new().serve_connection(TokioIo::new(socket), service).await),
                Some(tls) => {
                    let Ok(socket) = TlsAcceptor::from(tls).accept(socket).await else { return };
                    let http2 = socket.get_ref().1.alpn_protocol() == Some(b"h2");
                    let socket = TokioIo::new(socket);
                    if http2 {
                        drop(http2::Builder::new(Streams::default()).serve_connection(socket, service).await);
                    } else {
                        drop(http1::Builder::new().serve_connection(socket, service).await);
                    }
                }
            }
        });
    }
}

/// The tasks of an HTTP/2 connection's streams; they end with it.
#[derive(Debug, Clone, Default)]
struct Streams(Arc<Mutex<JoinSet<()>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        self.0.lock().unwrap().spawn(stream);
    }
}

async fn answer(
    shared: Arc<Shared>,
    connection: usize,
    reset: ResetSwitch,
    request: Request<Incoming>,
) -> Result<Response<Body>, io::Error> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let query = head.uri.query().unwrap_or_default().to_owned();
    let recorded = Recorded {
        method: head.method.clone(),
        path: path.clone(),
        query,
        headers: head.headers,
        version: head.version,
        connection,
    };
    let effect = {
        let mut state = shared.state();
        state.requests.push(recorded.clone());
        state.faults.effect(&head.method, &path)
    };
    match effect.before {
        Before::Nothing => {}
        Before::Wait(time) => tokio::time::sleep(time).await,
        Before::Hang => std::future::pending().await,
        Before::Reset => {
            reset.switch_on();
            return Err(io::ErrorKind::ConnectionReset.into());
        }
    }
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let reply = if effect.replaces() { Reply::new(Bytes::new()) } else { shared.state().reply(&recorded, body) };
    if let Some(released) = &effect.held {
        released.cancelled().await;
    }
    Ok(deliver(effect.apply(reply), effect.delivery, reset))
}

/// Puts the body on its way.
fn deliver(reply: Reply, delivery: Delivery, reset: ResetSwitch) -> Response<Body> {
    let (mut head, bytes) = reply.into_parts();
    let chunked = matches!(delivery, Delivery::Chunked | Delivery::ChunkedCut(_) | Delivery::Endless);
    if chunked {
        head.headers.remove(CONTENT_LENGTH);
        head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    } else if !head.headers.contains_key(CONTENT_LENGTH) && !bodiless(head.status) {
        head.headers.insert(CONTENT_LENGTH, bytes.len().into());
    }
    let up_to = |count: usize| bytes.slice(..count.min(bytes.len()));
    let then_error = move |error: io::ErrorKind| {
        stream::once(async move {
            // What was sent so far has been flushed when this is polled for the second time.
            tokio::task::yield_now().await;
            if error == io::ErrorKind::ConnectionReset {
                reset.switch_on();
            }
            Err(error.into())
        })
    };
    let pieces: BoxStream<'static, io::Result<Bytes>> = match delivery {
        Delivery::Whole => return Response::from_parts(head, Full::new(bytes).map_err(never).boxed_unsync()),
        Delivery::Chunked => stream::iter([Ok(bytes)]).boxed(),
        Delivery::Cut(count) | Delivery::ChunkedCut(count) => {
            stream::iter([Ok(up_to(count))]).chain(then_error(io::ErrorKind::BrokenPipe)).boxed()
        }
        Delivery::Reset(count) => {
            stream::iter([Ok(up_to(count))]).chain(then_error(io::ErrorKind::ConnectionReset)).boxed()
        }
        Delivery::Hang(count) => stream::iter([Ok(up_to(count))]).chain(stream::pending()).boxed(),
        Delivery::Drip(count, pause) => drip(bytes, count, pause),
        Delivery::Endless => {
            let zeros = Bytes::from(vec![0; 64 * 1024]);
            stream::iter([Ok(bytes)]).chain(stream::repeat_with(move || Ok(zeros.clone()))).boxed()
        }
    };
    let filled = pieces.filter(|piece| std::future::ready(!piece.as_ref().is_ok_and(Bytes::is_empty)));
    let frames = filled.map(|piece| piece.map(Frame::data)).boxed();
    Response::from_parts(head, http_body_util::BodyExt::boxed_unsync(StreamBody::new(frames)))
}

fn drip(bytes: Bytes, count: usize, pause: Duration) -> BoxStream<'static, io::Result<Bytes>> {
    stream::unfold(bytes, move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        tokio::time::sleep(pause).await;
        let piece = rest.split_to(count.min(rest.len()));
        Some((Ok(piece), rest))
    })
    .boxed()
}

fn never(never: Infallible) -> io::Error {
    match never {}
}

fn bodiless(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// A path of the distribution-spec.
enum Route<'a> {
    Manifest(&'a str),
    Blob(&'a str),
    Upload(&'a str),
    Tags,
    Referrers(&'a str),
}

impl State {
    fn reply(&mut self, request: &Recorded, body: Bytes) -> Reply {
        if request.path == "/token" {
            let form = if request.method == Method::POST { &body[..] } else { request.query.as_bytes() };
            return self.auth.token(&request.headers, &pairs(form));
        }
        if !request.path.starts_with("/v2") {
            let file = self.files.get(&request.path);
            return file.map_or_else(|| empty(StatusCode::NOT_FOUND), |bytes| Reply::new(bytes.clone()));
        }
        let write = !matches!(request.method, Method::GET | Method::HEAD);
        let action = if write { "pull,push" } else { "pull" };
        if request.path == "/v2/" || request.path == "/v2" {
            return self
                .auth
                .check(&request.headers, "", action, &self.origin)
                .unwrap_or_else(|| json_reply(StatusCode::OK, &json!({})));
        }
        let Some((name, route)) = request.path.strip_prefix("/v2/").and_then(route) else {
            return error(StatusCode::NOT_FOUND, "UNSUPPORTED");
        };
        if name.parse::<RepositoryName>().is_err() {
            return error(StatusCode::BAD_REQUEST, "NAME_INVALID");
        }
        if let Some(refusal) = self.auth.check(&request.headers, name, action, &self.origin) {
            return refusal;
        }
        let query = pairs(request.query.as_bytes());
        match route {
            Route::Upload(id) => self.upload(&request.method, name, id, &query, body),
            Route::Manifest(reference) if write => self.write_manifest(request, name, reference, body),
            Route::Blob(digest) if write => match digest.parse() {
                Ok(digest) if self.contents.remove_blob(name, &digest) => empty(StatusCode::ACCEPTED),
                _ => error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
            },
            Route::Tags | Route::Referrers(_) if write => error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
            Route::Manifest(reference) => self.manifest(name, reference),
            Route::Blob(digest) => self.blob(name, digest, &request.headers),
            Route::Tags => self.tags(name, &query),
            Route::Referrers(digest) => self.referrers(name, digest, &query),
        }
    }

    fn manifest(&self, name: &str, reference: &str) -> Reply {
        let digest = if reference.contains(':') {
            match reference.parse() {
                Ok(digest) => Some(digest),
                Err(_) => return error(StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
            }
        } else {
            self.contents.resolve(name, reference)
        };
        let found = digest.and_then(|digest| self.contents.manifest(name, &digest));
        match found.or_else(|| self.fallback_index(name, reference)) {
            None => error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
            Some(content) => {
                let mut reply = Reply::new(content.bytes);
                let headers = reply.headers_mut();
                headers.insert(CONTENT_TYPE, content.media_type.parse().unwrap());
                headers.insert("docker-content-digest", content.digest.to_string().parse().unwrap());
                reply
            }
        }
    }

    /// The index under `sha256-<hex>`, while there is no referrers API.
    fn fallback_index(&self, name: &str, tag: &str) -> Option<Content> {
        let digest: Digest = tag.replacen('-', ":", 1).parse().ok()?;
        if self.referrers != Referrers::FallbackTag || tag.contains(':') {
            return None;
        }
        let manifests = self.contents.referrers(name, &digest);
        let index = index_of(&manifests);
        let filled = index["manifests"].as_array().is_some_and(|manifests| !manifests.is_empty());
        filled.then(|| Content::new(Algorithm::Sha256, MediaType::OciIndex.as_str(), index.to_string()))
    }

    fn blob(&self, name: &str, digest: &str, headers: &HeaderMap) -> Reply {
        let Ok(digest) = digest.parse::<Digest>() else { return error(StatusCode::BAD_REQUEST, "DIGEST_INVALID") };
        let Some(bytes) = self.contents.blob(name, &digest) else {
            return error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN");
        };
        let size = bytes.len();
        let range =
            headers.get(RANGE).and_then(|range| range.to_str().ok()).and_then(|range| range.strip_prefix("bytes="));
        let mut reply = match range.map(|range| bounds(range, size)) {
            None => Reply::new(bytes),
            Some(None) => {
                let mut reply = error(StatusCode::RANGE_NOT_SATISFIABLE, "UNSUPPORTED");
                reply.headers_mut().insert(CONTENT_RANGE, format!("bytes */{size}").parse().unwrap());
                return reply;
            }
            Some(Some((first, last))) => {
                let mut reply = Reply::new(bytes.slice(first..=last));
                *reply.status_mut() = StatusCode::PARTIAL_CONTENT;
                let range = format!("bytes {first}-{last}/{size}");
                reply.headers_mut().insert(CONTENT_RANGE, range.parse().unwrap());
                reply
            }
        };
        let headers = reply.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert("docker-content-digest", digest.to_string().parse().unwrap());
        reply
    }

    fn tags(&self, name: &str, query: &[(String, String)]) -> Reply {
        if !self.contents.has(name) {
            return error(StatusCode::NOT_FOUND, "NAME_UNKNOWN");
        }
        let field = |key: &str| query.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
        let mut tags = self.contents.tags(name, field("last"));
        let mut link = None;
        if let Some(n) = field("n") {
            let Ok(n) = n.parse::<usize>() else { return error(StatusCode::BAD_REQUEST, "UNSUPPORTED") };
            if n < tags.len() {
                tags.truncate(n);
                link = tags.last().map(|last| format!("</v2/{name}/tags/list?n={n}&last={last}>; rel=\"next\""));
            }
        }
        let mut reply = json_reply(StatusCode::OK, &json!({ "name": name, "tags": tags }));
        if let Some(link) = link {
            reply.headers_mut().insert(LINK, link.parse().unwrap());
        }
        reply
    }

    fn referrers(&self, name: &str, digest: &str, query: &[(String, String)]) -> Reply {
        let Ok(digest) = digest.parse::<Digest>() else { return error(StatusCode::BAD_REQUEST, "DIGEST_INVALID") };
        if self.referrers == Referrers::FallbackTag {
            return error(StatusCode::NOT_FOUND, "UNSUPPORTED");
        }
        let field = |key: &str| query.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
        let wanted = field("artifactType").filter(|_| self.referrers == Referrers::Api);
        let mut manifests = self.contents.referrers(name, &digest);
        manifests.retain(|manifest| wanted.is_none_or(|wanted| manifest["artifactType"] == wanted));
        let Ok(from) = field("from").unwrap_or("0").parse::<usize>() else {
            return error(StatusCode::BAD_REQUEST, "UNSUPPORTED");
        };
        let rest = manifests.split_off(from.min(manifests.len()));
        let page = &rest[..self.referrers_page.min(rest.len())];
        let mut reply = json_reply(StatusCode::OK, &index_of(page));
        if page.len() < rest.len() {
            let mut next = url::form_urlencoded::Serializer::new(String::new());
            next.append_pair("from", &(from + page.len()).to_string());
            if let Some(wanted) = wanted {
                next.append_pair("artifactType", wanted);
            }
            let next = format!("</v2/{name}/referrers/{digest}?{}>; rel=\"next\"", next.finish());
            reply.headers_mut().insert(LINK, next.parse().unwrap());
        }
        reply.headers_mut().insert(CONTENT_TYPE, MediaType::OciIndex.as_str().parse().unwrap());
        if wanted.is_some() {
            reply.headers_mut().insert("oci-filters-applied", HeaderValue::from_static("artifactType"));
        }
        reply
    }
}

fn route(path: &str) -> Option<(&str, Route<'_>)> {
    if let Some(name) = path.strip_suffix("/tags/list") {
        return Some((name, Route::Tags));
    }
    if let Some((name, id)) = path.rsplit_once("/blobs/uploads/") {
        return Some((name, Route::Upload(id)));
    }
    let (rest, last) = path.rsplit_once('/')?;
    let (name, kind) = rest.rsplit_once('/')?;
    match kind {
        "manifests" => Some((name, Route::Manifest(last))),
        "blobs" if last == "uploads" => Some((name, Route::Upload(""))),
        "blobs" => Some((name, Route::Blob(last))),
        "referrers" => Some((name, Route::Referrers(last))),
        _ => None,
    }
}

/// First and last byte of a single range; `None` when it cannot be satisfied.
fn bounds(range: &str, size: usize) -> Option<(usize, usize)> {
    let (first, last) = range.split_once('-')?;
    let end = size.checked_sub(1)?;
    let (first, last) = match (first, last) {
        ("", suffix) => (size.saturating_sub(suffix.parse().ok()?), end),
        (first, "") => (first.parse().ok()?, end),
        (first, last) => (first.parse().ok()?, last.parse::<usize>().ok()?.min(end)),
    };
    (first <= last).then_some((first, last))
}

fn index_of(manifests: &[Value]) -> Value {
    json!({ "schemaVersion": 2, "mediaType": MediaType::OciIndex.as_str(), "manifests": manifests })
}

fn pairs(query: &[u8]) -> Vec<(String, String)> {
    url::form_urlencoded::parse(query).into_owned().collect()
}

pub(super) fn empty(status: StatusCode) -> Reply {
    let mut reply = Reply::new(Bytes::new());
    *reply.status_mut() = status;
    reply
}

pub(super) fn json_reply(status: StatusCode, body: &Value) -> Reply {
    let mut reply = Reply::new(Bytes::from(body.to_string()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

pub(super) fn error(status: StatusCode, code: &str) -> Reply {
    json_reply(status, &json!({ "errors": [{ "code": code, "message": code.to_lowercase() }] }))
}
