//! The closed sets that metric labels come from.

/// The route of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteLabel {
    /// `base`
    Base,
    /// `manifest`
    Manifest,
    /// `blob`
    Blob,
    /// `tags`
    Tags,
    /// `referrers`
    Referrers,
    /// `catalog`
    Catalog,
    /// `other`
    Other,
}

impl RouteLabel {
    /// All of them, for registering every series at 0.
    pub const ALL: &[Self] =
        &[Self::Base, Self::Manifest, Self::Blob, Self::Tags, Self::Referrers, Self::Catalog, Self::Other];

    /// The label.
    pub const fn as_label(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Tags => "tags",
            Self::Referrers => "referrers",
            Self::Catalog => "catalog",
            Self::Other => "other",
        }
    }
}

/// The method of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MethodLabel {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `other`
    Other,
}

impl MethodLabel {
    /// All of them, for registering every series at 0.
    pub const ALL: &[Self] = &[Self::Get, Self::Head, Self::Other];

    /// The label.
    pub const fn as_label(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Other => "other",
        }
    }
}

/// Which cache was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheKind {
    /// `manifest_tag`
    ManifestTag,
    /// `manifest_digest`
    ManifestDigest,
    /// `blob`
    Blob,
    /// `referrers`
    Referrers,
    /// `tags`
    Tags,
}

impl CacheKind {
    /// All of them, for registering every series at 0.
    pub const ALL: &[Self] = &[Self::ManifestTag, Self::ManifestDigest, Self::Blob, Self::Referrers, Self::Tags];

    /// The label.
    pub const fn as_label(self) -> &'static str {
        match self {
            Self::ManifestTag => "manifest_tag",
            Self::ManifestDigest => "manifest_digest",
            Self::Blob => "blob",
            Self::Referrers => "referrers",
            Self::Tags => "tags",
        }
    }
}

/// What a cache said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheResult {
    /// `hit`
    Hit,
    /// `revalidated`
    Revalidated,
    /// `stale`
    Stale,
    /// `miss`
    Miss,
    /// `joined`
    Joined,
    /// `bypass`
    Bypass,
    /// `negative_hit`
    NegativeHit,
}

impl CacheResult {
    /// All of them, for registering every series at 0.
    pub const ALL: &[Self] =
        &[Self::Hit, Self::Revalidated, Self::Stale, Self::Miss, Self::Joined, Self::Bypass, Self::NegativeHit];

    /// The label.
    pub const fn as_label(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Revalidated => "revalidated",
            Self::Stale => "stale",
            Self::Miss => "miss",
            Self::Joined => "joined",
            Self::Bypass => "bypass",
            Self::NegativeHit => "negative_hit",
        }
    }
}

/// How a fill ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FillOutcome {
    /// `committed`
    Committed,
    /// `digest_mismatch`
    DigestMismatch,
    /// `truncated`
    Truncated,
    /// `cancelled`
    Cancelled,
    /// `upstream_error`
    UpstreamError,
    /// `no_space`
    NoSpace,
}

impl FillOutcome {
    /// All of them, for registering every series at 0.
    pub const ALL: &[Self] =
        &[Self::Committed, Self::DigestMismatch, Self::Truncated, Self::Cancelled, Self::UpstreamError, Self::NoSpace];

    /// The label.
    pub const fn as_label(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::DigestMismatch => "digest_mismatch",
            Self::Truncated => "truncated",
            Self::Cancelled => "cancelled",
            Self::UpstreamError => "upstream_error",
            Self::NoSpace => "no_space",
        }
    }
}

/// Why something was evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EvictionReason {
    /// `size`
    Size,
    /// `age`
    Age,
    /// `free_space`
    FreeSpace,
    /// `admin`
    Admin,
    /// `corrupt`
    Corrupt,
}

impl EvictionReason {
    /// All of them, for registering every series at 0.
    pub const ALL: &[Self] = &[Self::Size, Self::Age, Self::FreeSpace, Self::Admin, Self::Corrupt];

    /// The label.
    pub const fn as_label(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Age => "age",
            Self::FreeSpace => "free_space",
            Self::Admin => "admin",
            Self::Corrupt => "corrupt",
        }
    }
}

/// What was asked of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UpstreamOp {
    /// `ping`
    Ping,
    /// `token`
    Token,
    /// `manifest_head`
    ManifestHead,
    /// `manifest_get`
    ManifestGet,
    /// `blob_head`
    BlobHead,
    /// `blob_get`
    BlobGet,
    /// `referrers`
    Referrers,
    /// `tags`
    Tags,
}

impl UpstreamOp {
    /// All of them, for registering every series at 0.
    pub const ALL: &[Self] = &[
        Self::Ping,
        Self::Token,
        Self::ManifestHead,
        Self::ManifestGet,
        Self::BlobHead,
        Self::BlobGet,
        Self::Referrers,
        Self::Tags,
    ];

    /// The label.
    pub const fn as_label(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Token => "token",
            Self::ManifestHead => "manifest_head",
            Self::ManifestGet => "manifest_get",
            Self::BlobHead => "blob_head",
            Self::BlobGet => "blob_get",
            Self::Referrers => "referrers",
            Self::Tags => "tags",
        }
    }
}

/// How an upstream answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CodeClass {
    /// `2xx`
    Success,
    /// `3xx`
    Redirect,
    /// `401`
    Unauthorized,
    /// `403`
    Forbidden,
    /// `404`
    NotFound,
    /// `429`
    TooManyRequests,
    /// `4xx`
    Client,
    /// `5xx`
    Server,
    /// `timeout`
    Timeout,
    /// `connect`
    Connect,
    /// `tls`
    Tls,
}

impl CodeClass {
    /// All of them, for registering every series at 0.
    pub const ALL: &[Self] = &[
        Self::Success,
        Self::Redirect,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::TooManyRequests,
        Self::Client,
        Self::Server,
        Self::Timeout,
        Self::Connect,
        Self::Tls,
    ];

    /// The label.
    pub const fn as_label(self) -> &'static str {
        match self {
            Self::Success => "2xx",
            Self::Redirect => "3xx",
            Self::Unauthorized => "401",
            Self::Forbidden => "403",
            Self::NotFound => "404",
            Self::TooManyRequests => "429",
            Self::Client => "4xx",
            Self::Server => "5xx",
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::Tls => "tls",
        }
    }
}

/// Why a stale answer was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StaleCause {
    /// `timeout`
    Timeout,
    /// `connect`
    Connect,
    /// `http_5xx`
    Server,
    /// `http_429`
    RateLimited,
    /// `breaker_open`
    BreakerOpen,
}

impl StaleCause {
    /// All of them, for registering every series at 0.
    pub const ALL: &[Self] = &[Self::Timeout, Self::Connect, Self::Server, Self::RateLimited, Self::BreakerOpen];

    /// The label.
    pub const fn as_label(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::Server => "http_5xx",
            Self::RateLimited => "http_429",
            Self::BreakerOpen => "breaker_open",
        }
    }
}

/// How a request was decided (design §12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DecisionLabel {
    /// `allow`
    Allow,
    /// `deny`
    Deny,
    /// `audit_deny`
    AuditDeny,
    /// `audit_undecided`
    AuditUndecided,
    /// `exempt`
    Exempt,
    /// `undecided`
    Undecided,
}

impl DecisionLabel {
    /// All of them, for registering every series at 0.
    pub const ALL: &[Self] =
        &[Self::Allow, Self::Deny, Self::AuditDeny, Self::AuditUndecided, Self::Exempt, Self::Undecided];

    /// The label.
    pub const fn as_label(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::AuditDeny => "audit_deny",
            Self::AuditUndecided => "audit_undecided",
            Self::Exempt => "exempt",
            Self::Undecided => "undecided",
        }
    }
}

/// Where a verdict came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VerifySource {
    /// `verdict_store`
    VerdictStore,
    /// `computed`
    Computed,
}

impl VerifySource {
    /// All of them, for registering every series at 0.
    pub const ALL: &[Self] = &[Self::VerdictStore, Self::Computed];

    /// The label.
    pub const fn as_label(self) -> &'static str {
        match self {
            Self::VerdictStore => "verdict_store",
            Self::Computed => "computed",
        }
    }
}

/// What the verdict store did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreOp {
    /// `open`
    Open,
    /// `get`
    Get,
    /// `put`
    Put,
    /// `delete`
    Delete,
    /// `flush`
    Flush,
}

impl StoreOp {
    /// All of them, for registering every series at 0.
    pub const ALL: &[Self] = &[Self::Open, Self::Get, Self::Put, Self::Delete, Self::Flush];

    /// The label.
    pub const fn as_label(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Get => "get",
            Self::Put => "put",
            Self::Delete => "delete",
            Self::Flush => "flush",
        }
    }
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreOutcome {
    /// `ok`
    Ok,
    /// `miss`
    Miss,
    /// `dropped`
    Dropped,
    /// `timeout`
    Timeout,
    /// `error`
    Error,
    /// `corrupt`
    Corrupt,
}

impl StoreOutcome {
    /// All of them, for registering every series at 0.
    pub const ALL: &[Self] = &[Self::Ok, Self::Miss, Self::Dropped, Self::Timeout, Self::Error, Self::Corrupt];

    /// The label.
    pub const fn as_label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Miss => "miss",
            Self::Dropped => "dropped",
            Self::Timeout => "timeout",
            Self::Error => "error",
            Self::Corrupt => "corrupt",
        }
    }
}

/// Why we closed a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// `header_timeout`
    HeaderTimeout,
    /// `write_timeout`
    WriteTimeout,
    /// `total_limit`
    TotalLimit,
    /// `address_limit`
    AddressLimit,
    /// `malformed`
    Malformed,
    /// `drain`
    Drain,
    /// `tls`
    TlsFailed,
}

impl CloseReason {
    /// All of them, for registering every series at 0.
    pub const ALL: &[Self] = &[
        Self::HeaderTimeout,
        Self::WriteTimeout,
        Self::TotalLimit,
        Self::AddressLimit,
        Self::Malformed,
        Self::Drain,
        Self::TlsFailed,
    ];

    /// The label.
    pub const fn as_label(self) -> &'static str {
        match self {
            Self::HeaderTimeout => "header_timeout",
            Self::WriteTimeout => "write_timeout",
            Self::TotalLimit => "total_limit",
            Self::AddressLimit => "address_limit",
            Self::Malformed => "malformed",
            Self::Drain => "drain",
            Self::TlsFailed => "tls",
        }
    }
}
