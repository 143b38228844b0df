//! From what went wrong to the failure that a client sees; exhaustive, so that a new variant is a decision.

use std::time::Duration;

use super::{About, ApiError, Failure};
use crate::http::framing::FramingError;
use crate::http::query::QueryError;
use crate::http::route::RouteError;
use crate::oci::NameError;
use crate::pull::{Denial, PullError, UpstreamError};

impl From<FramingError> for ApiError {
    fn from(error: FramingError) -> Self {
        let failure = match error {
            FramingError::UriTooLong => Failure::UriTooLong,
            FramingError::Host | FramingError::OtherHost | FramingError::Body | FramingError::Length => {
                Failure::Malformed
            }
        };
        Self::new(failure, error.to_string())
    }
}

impl From<RouteError> for ApiError {
    fn from(error: RouteError) -> Self {
        let failure = match &error {
            RouteError::Method => Failure::Method,
            RouteError::Endpoint => Failure::Endpoint,
            RouteError::Catalog => Failure::Catalog,
            RouteError::PathByte
            | RouteError::Name(NameError::Host | NameError::Repository | NameError::TooLong | NameError::Tag) => {
                Failure::Name
            }
            RouteError::Tag => Failure::Tag,
            RouteError::Digest(_) => Failure::Digest,
            RouteError::Query(QueryError::Twice { key: "ns" }) => Failure::NamespaceTwice,
            RouteError::Query(QueryError::Encoding | QueryError::Twice { .. } | QueryError::Number) => Failure::Query,
            RouteError::UpstreamUnknown(_) => Failure::UpstreamUnknown,
            RouteError::NamespaceConflict { .. } => Failure::NamespaceConflict,
            RouteError::NotServed { .. } => Failure::NotServed,
        };
        Self::new(failure, error.to_string())
    }
}

impl From<PullError> for ApiError {
    fn from(error: PullError) -> Self {
        match error {
            PullError::Denied(denial) => denied(*denial),
            PullError::Undecided { reason, cause, hindrance: _ } => {
                let after = cause.as_ref().and_then(asked_to_wait);
                Self::new(Failure::Undecided, reason).retry_after(after)
            }
            PullError::ManifestUnknown => Self::new(Failure::ManifestUnknown, "manifest unknown"),
            PullError::BlobUnknown => Self::new(Failure::BlobUnknown, "blob unknown"),
            PullError::RepositoryUnknown => Self::new(Failure::RepositoryUnknown, "repository unknown"),
            PullError::Manifest(error) => Self::new(Failure::BadBytes, error.to_string()).labelled("manifest"),
            PullError::Upstream(error) => upstream(&error),
            PullError::Overloaded => Self::overloaded(),
            PullError::TooMany { retry_after } => Self::client_limit(error.to_string(), retry_after),
            // A panic while deciding is no answer (F-06).
            PullError::Lost => {
                Self::new(Failure::Undecided, "the work was lost inside sealgate; the operator's log has more")
            }
        }
    }
}

fn denied(denial: Denial) -> ApiError {
    let mut error = ApiError::new(Failure::Denied, denial.text).labelled(denial.reason.as_label());
    *error.about = About {
        reference: Some(denial.image.to_string()),
        digest: Some(denial.digest),
        verdict: Some(denial.verdict),
        policy: Some(denial.policy),
    };
    error
}

fn upstream(error: &UpstreamError) -> ApiError {
    let text = error.to_string();
    let answer = match error {
        UpstreamError::NotFound { .. } => ApiError::new(Failure::RepositoryUnknown, text),
        UpstreamError::Refused { .. } => ApiError::new(Failure::UpstreamRefused, text),
        UpstreamError::RateLimited { .. } => ApiError::new(Failure::UpstreamLimit, text),
        UpstreamError::Resting { .. } => ApiError::new(Failure::UpstreamFailed, text).labelled("breaker_open"),
        UpstreamError::Timeout { .. } => ApiError::new(Failure::UpstreamTimeout, text),
        UpstreamError::Failed { .. } => ApiError::new(Failure::UpstreamFailed, text),
        UpstreamError::Connect { reason, .. } => ApiError::new(Failure::UpstreamFailed, text).labelled(reason),
        UpstreamError::Bad { reason, .. } => ApiError::new(bad(reason), text).labelled(reason),
    };
    answer.retry_after(asked_to_wait(error))
}

/// Whose fault an unusable answer is: the content's, or the conversation's.
fn bad(reason: &str) -> Failure {
    match reason {
        "digest_mismatch" | "truncated" | "too_large" | "size_mismatch" | "media_type" => Failure::BadBytes,
        _ => Failure::UpstreamFailed,
    }
}

/// How long upstream wants us to wait.
fn asked_to_wait(error: &UpstreamError) -> Option<Duration> {
    match error {
        UpstreamError::RateLimited { retry_after, .. } | UpstreamError::Resting { retry_after, .. } => {
            Some(*retry_after)
        }
        UpstreamError::Failed { retry_after, .. } => *retry_after,
        UpstreamError::NotFound { .. }
        | UpstreamError::Refused { .. }
        | UpstreamError::Timeout { .. }
        | UpstreamError::Connect { .. }
        | UpstreamError::Bad { .. } => None,
    }
}
