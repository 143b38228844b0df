//! The table of failures: status, OCI code, label, log level. `docs/errors.md` is the same table for people.

use http::StatusCode;

use crate::http::refusal::Opening;
use crate::oci::ErrorCode;

/// Everything that can be answered but the thing asked for; one row each in `docs/errors.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::http) enum Failure {
    /// The request's framing is ambiguous, or it has a body.
    Malformed,
    /// The path and query are too long.
    UriTooLong,
    /// Not GET or HEAD.
    Method,
    /// No such endpoint.
    Endpoint,
    /// `_catalog`.
    Catalog,
    /// The name does not fit the grammar.
    Name,
    /// The tag does not fit the grammar.
    Tag,
    /// The digest does not fit the grammar.
    Digest,
    /// The query cannot be used.
    Query,
    /// `ns` is there twice.
    NamespaceTwice,
    /// Path and `ns` disagree.
    NamespaceConflict,
    /// No such upstream.
    UpstreamUnknown,
    /// The upstream has credentials and the client is unknown.
    NotServed,
    /// The client takes schema 1 alone.
    NotAcceptable,
    /// The range lies outside the blob.
    RangeNotSatisfiable,
    /// Policy says no.
    Denied,
    /// No answer could be reached.
    Undecided,
    /// Upstream has no such manifest.
    ManifestUnknown,
    /// No grant, or upstream has no such blob.
    BlobUnknown,
    /// Upstream has no such repository.
    RepositoryUnknown,
    /// The bytes are no manifest that passes, or not the ones asked for.
    BadBytes,
    /// Upstream refuses us.
    UpstreamRefused,
    /// Upstream limits us.
    UpstreamLimit,
    /// Upstream did not answer in time.
    UpstreamTimeout,
    /// Upstream failed, cannot be reached, or answered against the protocol.
    UpstreamFailed,
    /// Too much at once.
    Overloaded,
    /// Too much from this client.
    ClientLimit,
    /// A bug.
    Internal,
}

/// How loud a failure is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

impl Failure {
    /// The status that says it best; on manifest routes a client may get the one that stops it instead (design §5).
    pub(in crate::http) const fn status(self) -> StatusCode {
        match self {
            Self::Malformed
            | Self::Name
            | Self::Tag
            | Self::Digest
            | Self::Query
            | Self::NamespaceTwice
            | Self::NamespaceConflict => StatusCode::BAD_REQUEST,
            Self::NotServed | Self::Denied | Self::UpstreamRefused => StatusCode::FORBIDDEN,
            Self::Endpoint
            | Self::Catalog
            | Self::UpstreamUnknown
            | Self::NotAcceptable
            | Self::ManifestUnknown
            | Self::BlobUnknown
            | Self::RepositoryUnknown => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::RangeNotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::UpstreamLimit | Self::ClientLimit => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::BadBytes | Self::UpstreamFailed => StatusCode::BAD_GATEWAY,
            Self::Undecided | Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The code in `errors[0].code`.
    pub(in crate::http) const fn code(self) -> ErrorCode {
        match self {
            Self::Malformed
            | Self::Method
            | Self::Endpoint
            | Self::Catalog
            | Self::Query
            | Self::RangeNotSatisfiable => ErrorCode::Unsupported,
            Self::UriTooLong | Self::Name | Self::NamespaceTwice | Self::NamespaceConflict => ErrorCode::NameInvalid,
            Self::UpstreamUnknown | Self::RepositoryUnknown => ErrorCode::NameUnknown,
            Self::Tag | Self::BadBytes => ErrorCode::ManifestInvalid,
            Self::Digest => ErrorCode::DigestInvalid,
            Self::NotAcceptable | Self::ManifestUnknown => ErrorCode::ManifestUnknown,
            Self::BlobUnknown => ErrorCode::BlobUnknown,
            Self::UpstreamLimit | Self::Overloaded | Self::ClientLimit => ErrorCode::TooManyRequests,
            Self::NotServed
            | Self::Denied
            | Self::Undecided
            | Self::UpstreamRefused
            | Self::UpstreamTimeout
            | Self::UpstreamFailed
            | Self::Internal => ErrorCode::Denied,
        }
    }

    /// The word in `errors[0].detail.reason`, where nothing closer is known.
    pub(in crate::http) const fn as_label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UriTooLong => "uri_too_long",
            Self::Method => "method",
            Self::Endpoint => "endpoint",
            Self::Catalog => "catalog",
            Self::Name => "name",
            Self::Tag => "tag",
            Self::Digest => "digest",
            Self::Query => "query",
            Self::NamespaceTwice => "ns_twice",
            Self::NamespaceConflict => "ns_conflict",
            Self::UpstreamUnknown => "upstream_unknown",
            Self::NotServed => "not_served",
            Self::NotAcceptable => "not_acceptable",
            Self::RangeNotSatisfiable => "range",
            Self::Denied => "denied",
            Self::Undecided => "verification_unavailable",
            Self::ManifestUnknown => "manifest_unknown",
            Self::BlobUnknown => "blob_unknown",
            Self::RepositoryUnknown => "repository_unknown",
            Self::BadBytes => "bad_bytes",
            Self::UpstreamRefused => "upstream_refused",
            Self::UpstreamLimit => "upstream_limit",
            Self::UpstreamTimeout => "timeout",
            Self::UpstreamFailed => "upstream_failed",
            Self::Overloaded => "overloaded",
            Self::ClientLimit => "client_limit",
            Self::Internal => "internal",
        }
    }

    pub(super) const fn level(self) -> Level {
        match self {
            Self::Malformed
            | Self::UriTooLong
            | Self::Method
            | Self::Endpoint
            | Self::Catalog
            | Self::Name
            | Self::Tag
            | Self::Digest
            | Self::Query
            | Self::NamespaceTwice
            | Self::NamespaceConflict
            | Self::NotAcceptable
            | Self::RangeNotSatisfiable
            | Self::ManifestUnknown
            | Self::BlobUnknown
            | Self::RepositoryUnknown => Level::Debug,
            Self::UpstreamUnknown | Self::NotServed => Level::Info,
            Self::Denied
            | Self::Undecided
            | Self::BadBytes
            | Self::UpstreamRefused
            | Self::UpstreamLimit
            | Self::UpstreamTimeout
            | Self::UpstreamFailed
            | Self::Overloaded
            | Self::ClientLimit => Level::Warn,
            Self::Internal => Level::Error,
        }
    }

    /// Whether a client must be kept from asking somebody else: everything but its own mistakes and a clean "is not there".
    pub(in crate::http) const fn is_refusal(self) -> bool {
        match self {
            Self::Malformed
            | Self::UriTooLong
            | Self::Method
            | Self::Endpoint
            | Self::Catalog
            | Self::Name
            | Self::Tag
            | Self::Digest
            | Self::Query
            | Self::NamespaceTwice
            | Self::NamespaceConflict
            | Self::UpstreamUnknown
            | Self::NotAcceptable
            | Self::RangeNotSatisfiable
            | Self::ManifestUnknown
            | Self::BlobUnknown
            | Self::RepositoryUnknown => false,
            Self::NotServed
            | Self::Denied
            | Self::Undecided
            | Self::BadBytes
            | Self::UpstreamRefused
            | Self::UpstreamLimit
            | Self::UpstreamTimeout
            | Self::UpstreamFailed
            | Self::Overloaded
            | Self::ClientLimit
            | Self::Internal => true,
        }
    }

    pub(super) fn opening(self) -> Opening {
        if self == Self::Denied {
            Opening::Rejected
        } else if self.is_refusal() && self != Self::NotServed {
            Opening::Undecided
        } else {
            Opening::Plain
        }
    }
}

#[cfg(test)]
impl Failure {
    /// All of them. The match in [`Failure::as_label`] is exhaustive; a test counts its labels here.
    pub(in crate::http) const ALL: &[Self] = &[
        Self::Malformed,
        Self::UriTooLong,
        Self::Method,
        Self::Endpoint,
        Self::Catalog,
        Self::Name,
        Self::Tag,
        Self::Digest,
        Self::Query,
        Self::NamespaceTwice,
        Self::NamespaceConflict,
        Self::UpstreamUnknown,
        Self::NotServed,
        Self::NotAcceptable,
        Self::RangeNotSatisfiable,
        Self::Denied,
        Self::Undecided,
        Self::ManifestUnknown,
        Self::BlobUnknown,
        Self::RepositoryUnknown,
        Self::BadBytes,
        Self::UpstreamRefused,
        Self::UpstreamLimit,
        Self::UpstreamTimeout,
        Self::UpstreamFailed,
        Self::Overloaded,
        Self::ClientLimit,
        Self::Internal,
    ];
}
