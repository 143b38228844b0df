//! The only place from an error to what a client sees: status, OCI code, public text, log level.
//!
//! `docs/errors.md` says per row of [`Failure`] what the client sees and who does what about it; a test keeps both alike.

mod failure;
mod from;

pub(super) use failure::Failure;

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_RANGE, RETRY_AFTER};
use http::{HeaderValue, Method, Response, StatusCode};
use hyper::ext::ReasonPhrase;
use serde_json::{Map, Value};

use self::failure::Level;
use super::body::Content;
use super::headers;
use super::log_text::LogText;
use super::refusal::{self, Opening, Stop};
use super::upstreams::Want;
use crate::limits::{OVERLOADED_RETRY_AFTER, UNDECIDED_RETRY_AFTER};
use crate::oci::{Digest, Reference};
use crate::store::VerdictId;
use crate::telemetry::DecisionLabel;

/// An answer other than the thing asked for.
#[derive(Debug, Clone)]
pub(super) struct ApiError {
    failure: Failure,
    /// What happened, for whoever asked; upstream's own texts and paths of this machine never get here.
    text: String,
    /// A closer word than the failure's.
    label: Option<&'static str>,
    about: Box<About>,
    retry_after: Option<Duration>,
    /// The size of the blob, for 416.
    size: Option<u64>,
}

/// What the request was about, and what was decided about it.
#[derive(Debug, Clone, Default)]
struct About {
    reference: Option<String>,
    digest: Option<Digest>,
    verdict: Option<VerdictId>,
    /// Fingerprint of the policy that was asked.
    policy: Option<Digest>,
}

/// How a request came, as far as it changes how a failure looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    /// A manifest was asked for: the routes on which clients can be stopped.
    pub(super) manifest: bool,
    pub(super) stop: Stop,
    /// The connection must close, and can be told so in a header.
    pub(super) close: bool,
}

impl ApiError {
    pub(super) fn new(failure: Failure, text: impl Into<String>) -> Self {
        let waits = [(Failure::Undecided, UNDECIDED_RETRY_AFTER), (Failure::Overloaded, OVERLOADED_RETRY_AFTER)];
        let retry_after = waits.into_iter().find(|(known, _)| *known == failure).map(|(_, after)| after);
        Self { failure, text: text.into(), label: None, about: Box::default(), retry_after, size: None }
    }

    pub(super) fn failure(&self) -> Failure {
        self.failure
    }

    /// A bug was hit while answering.
    pub(super) fn internal() -> Self {
        Self::new(Failure::Internal, "internal error; the operator's log has more")
    }

    /// More requests are in flight than may be.
    pub(super) fn overloaded() -> Self {
        Self::new(Failure::Overloaded, "too many requests in flight; try again")
    }

    /// One client has more in flight, or asks for more that is new, than one may.
    pub(super) fn client_limit(text: impl Into<String>, retry_after: Duration) -> Self {
        // Whole seconds, rounded up: who comes back then is let in.
        let whole =
            Duration::from_secs(retry_after.as_secs().saturating_add(u64::from(retry_after.subsec_nanos() > 0)));
        Self::new(Failure::ClientLimit, text).retry_after(Some(whole))
    }

    /// Names what was asked for, in the texts that need it and in the detail.
    #[must_use]
    pub(super) fn about(mut self, want: &Want) -> Self {
        let (reference, digest) = match want {
            Want::Base => return self,
            Want::Manifest(image) => match &image.reference {
                Reference::Tag(_) => (image.to_string(), None),
                Reference::Digest(digest) => (image.to_string(), Some(*digest)),
            },
            Want::Blob(repository, digest) | Want::Referrers(repository, digest, _) => {
                (repository.to_string(), Some(*digest))
            }
            Want::Tags(query) => (query.repository.to_string(), None),
        };
        if self.failure == Failure::ManifestUnknown {
            self.text = format!("manifest unknown: upstream has no {reference}");
        } else if self.failure == Failure::RepositoryUnknown {
            self.text = format!("repository name not known to registry: upstream has no {reference}");
        } else if self.failure == Failure::BlobUnknown {
            // The same text whether the bytes are here or not: whether another repository has them is nobody's business.
            self.text = format!("blob unknown: no admitted manifest of {reference} lists it, or upstream lost it");
        }
        self.about.reference.get_or_insert(reference);
        self.about.digest = self.about.digest.or(digest);
        self
    }

    #[must_use]
    pub(super) fn of_size(mut self, size: u64) -> Self {
        self.size = Some(size);
        self
    }

    fn labelled(mut self, label: &'static str) -> Self {
        self.label = Some(label);
        self
    }

    fn retry_after(mut self, after: Option<Duration>) -> Self {
        self.retry_after = after.or(self.retry_after);
        self
    }

    /// The one line that a human reads.
    pub(super) fn line(&self, asked: &Asked<'_>) -> String {
        let stop = if self.is_stopped(asked) { asked.stop } else { Stop::None };
        refusal::line(self.failure.opening(), &self.text, self.about.verdict, stop)
    }

    fn is_stopped(&self, asked: &Asked<'_>) -> bool {
        asked.manifest && self.failure.is_refusal()
    }

    fn status(&self, asked: &Asked<'_>) -> StatusCode {
        let fitting = self.failure.status();
        if self.is_stopped(asked) { asked.stop.status(asked.method, fitting) } else { fitting }
    }

    /// The answer. HEAD and GET have the same headers; whoever sends it leaves out the body of a HEAD.
    pub(super) fn respond(&self, asked: &Asked<'_>) -> Response<Content> {
        let (status, line) = (self.status(asked), self.line(asked));
        let body = serde_json::json!({ "errors": [
            { "code": self.failure.code().as_str(), "message": line, "detail": self.detail() }
        ]});
        let mut response = headers::answer(status, headers::JSON, Content::Whole(Bytes::from(body.to_string())));
        let fields = response.headers_mut();
        headers::no_store(fields);
        if let Some(after) = self.retry_after.filter(|_| status == self.failure.status()) {
            fields.insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        if self.failure == Failure::Method {
            fields.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        if let Some(size) = self.size {
            headers::insert(fields, CONTENT_RANGE, &format!("bytes */{size}"));
        }
        if asked.close {
            fields.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if self.failure == Failure::Denied {
            headers::verdict(fields, DecisionLabel::Deny, self.about.verdict);
        } else if self.failure == Failure::Undecided {
            headers::verdict(fields, DecisionLabel::Undecided, None);
        }
        if self.failure.is_refusal()
            && let Ok(reason) = ReasonPhrase::try_from(line)
        {
            response.extensions_mut().insert(reason);
        }
        response
    }

    fn label(&self) -> &'static str {
        self.label.unwrap_or(self.failure.as_label())
    }

    fn detail(&self) -> Value {
        let mut detail = Map::new();
        detail.insert("reason".to_owned(), self.label().into());
        if let Some(reference) = &self.about.reference {
            detail.insert("reference".to_owned(), reference.as_str().into());
        }
        if let Some(digest) = &self.about.digest {
            detail.insert("digest".to_owned(), digest.to_string().into());
        }
        if let Some(verdict) = &self.about.verdict {
            detail.insert("verdict".to_owned(), verdict.to_string().into());
        }
        if let Some(policy) = &self.about.policy {
            detail.insert("policy".to_owned(), policy.to_string().into());
        }
        if self.failure.is_refusal() {
            let reason = refusal::line(Opening::Plain, &self.text, None, Stop::None);
            detail.insert("reasons".to_owned(), vec![reason].into());
        }
        Value::Object(detail)
    }

    /// One line in the log, where the failure stops.
    pub(super) fn log(&self, asked: &Asked<'_>, client: std::net::SocketAddr, user_agent: &str) {
        let status = self.status(asked).as_u16();
        let reference = self.about.reference.as_deref().unwrap_or_default();
        let digest = self.about.digest.map(|digest| digest.to_string()).unwrap_or_default();
        let verdict = self.about.verdict.map(|verdict| verdict.to_string()).unwrap_or_default();
        macro_rules! write_line {
            ($level:ident) => {
                tracing::$level!(
                    status, reason = self.label(), reference = %LogText(reference), digest, verdict, %client,
                    user_agent = %LogText(user_agent), text = %LogText(&self.text), "not served"
                )
            };
        }
        match self.failure.level() {
            Level::Debug => write_line!(debug),
            Level::Info => write_line!(info),
            Level::Warn => write_line!(warn),
            Level::Error => write_line!(error),
        }
    }
}

#[cfg(test)]
mod tests;
