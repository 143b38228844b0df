//! What breaks: which requests, and how.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, LOCATION};
use http::{HeaderValue, Method, StatusCode};
use tokio_util::sync::CancellationToken;

use super::serve::{Reply, error};

/// One thing that breaks. Pick the requests, then say what happens to them; several changes can be combined.
///
/// In paths, `*` stands for any text: `*/manifests/*` is every manifest, `/v2/a/b/blobs/sha256:*` each blob of `a/b`,
/// `/token` the realm.
#[derive(Debug, Clone)]
pub struct Fault {
    path: String,
    method: Option<Method>,
    after: usize,
    times: usize,
    seen: usize,
    effect: Effect,
}

/// What happens to a request.
#[derive(Debug, Clone, Default)]
pub(super) struct Effect {
    pub(super) before: Before,
    pub(super) delivery: Delivery,
    /// Until when the answer, as it is now, is held back.
    pub(super) held: Option<CancellationToken>,
    status: Option<StatusCode>,
    body: Option<Bytes>,
    flip: bool,
    headers: Vec<Change>,
}

/// What happens before the headers go out.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Before {
    #[default]
    Nothing,
    Wait(Duration),
    Hang,
    Reset,
}

/// How the body goes out.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Delivery {
    #[default]
    Whole,
    /// So many bytes, then the connection closes.
    Cut(usize),
    /// So many bytes, then silence.
    Hang(usize),
    /// So many bytes, then a reset.
    Reset(usize),
    /// So many bytes at a time, with a pause before each.
    Drip(usize, Duration),
    /// Chunked, without a length.
    Chunked,
    /// Chunked: so many bytes, then the connection closes without the last chunk.
    ChunkedCut(usize),
    /// Chunked, and it never ends.
    Endless,
}

#[derive(Debug, Clone)]
enum Change {
    Add(HeaderName, HeaderValue),
    Set(HeaderName, HeaderValue),
    Remove(HeaderName),
}

impl Fault {
    /// A fault of all requests with a path that fits.
    pub fn on(path: &str) -> Self {
        Self { path: path.to_owned(), method: None, after: 0, times: usize::MAX, seen: 0, effect: Effect::default() }
    }

    /// Only GET.
    #[must_use]
    pub fn get(mut self) -> Self {
        self.method = Some(Method::GET);
        self
    }

    /// Only HEAD.
    #[must_use]
    pub fn head(mut self) -> Self {
        self.method = Some(Method::HEAD);
        self
    }

    /// Lets the first `requests` pass.
    #[must_use]
    pub fn after(mut self, requests: usize) -> Self {
        self.after = requests;
        self
    }

    /// Ends after so many requests.
    #[must_use]
    pub fn times(mut self, requests: usize) -> Self {
        self.times = requests;
        self
    }

    // ---- instead of the answer ----

    /// This status with an error body; redirects and successes have an empty one.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.effect.status = Some(StatusCode::from_u16(status).unwrap());
        self
    }

    /// A redirect (307) to this place.
    #[must_use]
    pub fn redirect(self, location: &str) -> Self {
        self.status(307).set_header(LOCATION.as_str(), location)
    }

    /// No answer at all; the connection stays open.
    #[must_use]
    pub fn hang(mut self) -> Self {
        self.effect.before = Before::Hang;
        self
    }

    /// The connection is reset before the headers.
    #[must_use]
    pub fn reset(mut self) -> Self {
        self.effect.before = Before::Reset;
        self
    }

    // ---- changes to the answer ----

    /// The answer comes after that time.
    #[must_use]
    pub fn delay(mut self, time: Duration) -> Self {
        self.effect.before = Before::Wait(time);
        self
    }

    /// The answer is made now and goes out once `released` is cancelled.
    #[must_use]
    pub fn hold(mut self, released: &CancellationToken) -> Self {
        self.effect.held = Some(released.clone());
        self
    }

    /// One more header; there may be one of that name already.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.effect.headers.push(Change::Add(name.parse().unwrap(), HeaderValue::from_bytes(value.as_ref()).unwrap()));
        self
    }

    /// This header instead of what is there.
    #[must_use]
    pub fn set_header(mut self, name: &str, value: &str) -> Self {
        self.effect.headers.push(Change::Set(name.parse().unwrap(), value.parse().unwrap()));
        self
    }

    /// Without this header.
    #[must_use]
    pub fn without_header(mut self, name: &str) -> Self {
        self.effect.headers.push(Change::Remove(name.parse().unwrap()));
        self
    }

    /// Another `Content-Type`.
    #[must_use]
    pub fn content_type(self, value: &str) -> Self {
        self.set_header(CONTENT_TYPE.as_str(), value)
    }

    /// Another body, under the same headers but for the length.
    #[must_use]
    pub fn body(mut self, bytes: impl Into<Bytes>) -> Self {
        self.effect.body = Some(bytes.into());
        self
    }

    /// Wrong bytes of the right length: the last one is flipped.
    #[must_use]
    pub fn wrong_bytes(mut self) -> Self {
        self.effect.flip = true;
        self
    }

    /// The body ends after so many bytes, the connection with it.
    #[must_use]
    pub fn truncate(mut self, bytes: usize) -> Self {
        self.effect.delivery = Delivery::Cut(bytes);
        self
    }

    /// The body stops after so many bytes; the connection stays open.
    #[must_use]
    pub fn hang_after(mut self, bytes: usize) -> Self {
        self.effect.delivery = Delivery::Hang(bytes);
        self
    }

    /// The connection is reset after so many bytes of the body.
    #[must_use]
    pub fn reset_after(mut self, bytes: usize) -> Self {
        self.effect.delivery = Delivery::Reset(bytes);
        self
    }

    /// The body comes in pieces of so many bytes, with a pause before each.
    #[must_use]
    pub fn drip(mut self, bytes: usize, pause: Duration) -> Self {
        self.effect.delivery = Delivery::Drip(bytes, pause);
        self
    }

    /// The body comes chunked, without `Content-Length`.
    #[must_use]
    pub fn chunked(mut self) -> Self {
        self.effect.delivery = Delivery::Chunked;
        self
    }

    /// The body comes chunked and ends after so many bytes without its last chunk.
    #[must_use]
    pub fn chunked_cut(mut self, bytes: usize) -> Self {
        self.effect.delivery = Delivery::ChunkedCut(bytes);
        self
    }

    /// The body comes chunked, and after its end goes on for ever.
    #[must_use]
    pub fn endless(mut self) -> Self {
        self.effect.delivery = Delivery::Endless;
        self
    }
}

/// The faults in force.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    /// What happens to this request: the effect of the first fault that fits and has not ended.
    pub(super) fn effect(&mut self, method: &Method, path: &str) -> Effect {
        for fault in &mut self.0 {
            if fault.method.as_ref().is_some_and(|wanted| wanted != method) || !matches(&fault.path, path) {
                continue;
            }
            fault.seen += 1;
            if fault.seen > fault.after && fault.seen - fault.after <= fault.times {
                return fault.effect.clone();
            }
        }
        Effect::default()
    }
}

impl Effect {
    /// Whether the true answer is not needed at all.
    pub(super) fn replaces(&self) -> bool {
        self.status.is_some() && self.body.is_none()
    }

    /// Changes the true answer.
    pub(super) fn apply(&self, mut reply: Reply) -> Reply {
        if let Some(status) = self.status {
            if self.body.is_none() && (status.is_client_error() || status.is_server_error()) {
                reply = error(status, "UNKNOWN");
            } else if self.body.is_none() {
                reply = Reply::new(Bytes::new());
            }
            *reply.status_mut() = status;
        }
        if let Some(body) = &self.body {
            *reply.body_mut() = body.clone();
            reply.headers_mut().remove(CONTENT_LENGTH);
        }
        if self.flip {
            let mut bytes = reply.body().to_vec();
            *bytes.last_mut().unwrap() ^= 1;
            *reply.body_mut() = Bytes::from(bytes);
        }
        for change in &self.headers {
            match change.clone() {
                Change::Add(name, value) => drop(reply.headers_mut().append(name, value)),
                Change::Set(name, value) => drop(reply.headers_mut().insert(name, value)),
                Change::Remove(name) => drop(reply.headers_mut().remove(name)),
            }
        }
        reply
    }
}

/// Whether the text fits the pattern, in which `*` stands for any text.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap()) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        let rows = [
            ("/a", "/a", true),
            ("/a", "/ab", false),
            ("*", "", true),
            ("*/manifests/*", "/v2/a/manifests/b", true),
            ("*/manifests/*", "/v2/a/blobs/b", false),
            ("/v2/*/blobs/*x", "/v2/a/b/blobs/yx", true),
            ("/v2/*/blobs/*x", "/v2/a/b/blobs/yz", false),
        ];
        for (pattern, text, expected) in rows {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_fault_begins_and_ends_by_count() {
        let mut faults = Faults::default();
        faults.add(Fault::on("*").get().after(1).times(2).status(503));
        let mut hit = |method: &Method| faults.effect(method, "/x").replaces();
        assert!(!hit(&Method::HEAD));
        assert_eq!([(); 5].map(|()| hit(&Method::GET)), [false, true, true, false, false]);
    }
}
