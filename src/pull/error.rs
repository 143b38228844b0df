//! Why nothing is served.

use std::time::Duration;

use crate::oci::{Digest, ImageReference, ManifestError};
use crate::policy::Reason;
use crate::store::VerdictId;
/// The cause that some of the errors below have; `http` words it and knows no upstream otherwise.
pub use crate::upstream::UpstreamError;

/// Policy says no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// What was asked for.
    pub image: ImageReference,
    /// The manifest.
    pub digest: Digest,
    /// The verdict.
    pub verdict: VerdictId,
    /// Fingerprint of the policy that said so.
    pub policy: Digest,
    /// Its kind.
    pub reason: Reason,
    /// One line, without prefix.
    pub text: String,
}

/// Why nothing is served. `http::error` maps each variant to status, code and text.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PullError {
    /// Policy says no: an answer, kept and shown.
    #[error("{}", .0.text)]
    Denied(Box<Denial>),
    /// No answer could be reached: not served, not stored.
    #[error("{reason}")]
    Undecided {
        /// What is missing, one line.
        reason: String,
        /// What kind of thing stood in the way.
        hindrance: Hindrance,
        /// The cause, when it was an upstream.
        #[source]
        cause: Option<UpstreamError>,
    },
    /// Upstream has no such manifest (clean 404).
    #[error("manifest unknown")]
    ManifestUnknown,
    /// No grant, or upstream has no such blob.
    #[error("blob unknown")]
    BlobUnknown,
    /// Upstream has no such repository (clean 404 on tags).
    #[error("repository name not known to registry")]
    RepositoryUnknown,
    /// The bytes are no manifest that passes.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Upstream gave no usable answer.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// Too much at once; try again.
    #[error("too many requests in flight")]
    Overloaded,
    /// The client asks for more that is new than one client may; try again later.
    #[error("this client asks for more images that are new here than one client may")]
    TooMany {
        /// How long to wait for the next.
        retry_after: Duration,
    },
    /// The task that did the work panicked; not served.
    #[error("internal error")]
    Lost,
}

/// What stands in the way of an answer; a closed set for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hindrance {
    /// Evidence could not be read.
    Evidence,
    /// The clock stepped back, so certificates cannot be judged.
    Clock,
    /// A policy's own rule in Rego failed, or did not end in time.
    PolicyRule,
    /// The signatures could not be verified in time.
    Timeout,
    /// Something failed inside.
    Internal,
}

impl Hindrance {
    /// The metric label, where `cause` is the upstream's failure.
    pub(super) fn as_label(self, cause: Option<&UpstreamError>) -> &'static str {
        match (self, cause) {
            (Self::Clock, _) => "clock",
            (Self::PolicyRule, _) => Reason::PolicyRule.as_label(),
            (Self::Timeout, _) | (Self::Evidence, Some(UpstreamError::Timeout { .. })) => "timeout",
            (Self::Evidence, _) => "upstream_error",
            (Self::Internal, _) => "internal",
        }
    }
}

impl From<super::flight::Lost> for PullError {
    fn from(_: super::flight::Lost) -> Self {
        Self::Lost
    }
}
