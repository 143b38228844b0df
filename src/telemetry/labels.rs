//! The closed sets that metric labels come from.

/// Defines one closed set: an enum, all its values, and the label of each.
macro_rules! closed_sets {
    ($( $(#[doc = $about:literal])+ $set:ident { $( $variant:ident => $label:literal, )+ } )+) => {$(
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $set {
            $( #[doc = concat!("`", $label, "`")] $variant, )+
        }

        impl $set {
            /// All of them, for registering every series at 0.
            pub const ALL: &[Self] = &[$( Self::$variant, )+];
            /// The label of each, in the same order.
            pub const LABELS: &[&'static str] = &[$( $label, )+];

            /// The label.
            pub const fn as_label(self) -> &'static str {
                match self {
                    $( Self::$variant => $label, )+
                }
            }

            /// Its place in [`Self::ALL`].
            pub(super) fn position(self) -> usize {
                Self::ALL.iter().position(|other| *other == self).unwrap_or(0)
            }
        }
    )+};
}

closed_sets! {
    /// Where the trust root in force comes from.
    TrustRootKind {
        BuiltIn => "built_in",
        File => "file",
        Tuf => "tuf",
    }

    /// What of a trust root ends.
    TrustPart {
        CertificateAuthority => "certificate_authority",
        TransparencyLog => "transparency_log",
        CertificateLog => "certificate_log",
        TimestampAuthority => "timestamp_authority",
        Tuf => "tuf",
    }

    /// The route of a request.
    RouteLabel {
        Base => "base",
        Manifest => "manifest",
        Blob => "blob",
        Tags => "tags",
        Referrers => "referrers",
        Catalog => "catalog",
        Other => "other",
    }

    /// The method of a request.
    MethodLabel {
        Get => "GET",
        Head => "HEAD",
        Other => "other",
    }

    /// Which cache was asked.
    CacheKind {
        ManifestTag => "manifest_tag",
        ManifestDigest => "manifest_digest",
        Blob => "blob",
        Referrers => "referrers",
        Tags => "tags",
    }

    /// What a cache said.
    CacheResult {
        Hit => "hit",
        Revalidated => "revalidated",
        Stale => "stale",
        Miss => "miss",
        Joined => "joined",
        Bypass => "bypass",
        NegativeHit => "negative_hit",
    }

    /// How a fill ended.
    FillOutcome {
        Committed => "committed",
        DigestMismatch => "digest_mismatch",
        Truncated => "truncated",
        Cancelled => "cancelled",
        UpstreamError => "upstream_error",
        NoSpace => "no_space",
    }

    /// Why something was evicted.
    EvictionReason {
        Size => "size",
        Age => "age",
        FreeSpace => "free_space",
        Admin => "admin",
        Corrupt => "corrupt",
    }

    /// Why the cache could not be written.
    WriteError {
        Full => "enospc",
        Io => "eio",
        ReadOnly => "erofs",
        Descriptors => "emfile",
        Permission => "eacces",
        Other => "other",
    }

    /// What became of a cached file that was hashed again.
    ScrubOutcome {
        Good => "good",
        Wrong => "wrong",
        Unreadable => "unreadable",
    }

    /// What was asked of an upstream.
    UpstreamOp {
        Ping => "ping",
        Token => "token",
        ManifestHead => "manifest_head",
        ManifestGet => "manifest_get",
        BlobHead => "blob_head",
        BlobGet => "blob_get",
        Referrers => "referrers",
        Tags => "tags",
        Lookaside => "lookaside",
    }

    /// How an upstream answered.
    CodeClass {
        Success => "2xx",
        Redirect => "3xx",
        Unauthorized => "401",
        Forbidden => "403",
        NotFound => "404",
        TooManyRequests => "429",
        Client => "4xx",
        Server => "5xx",
        Timeout => "timeout",
        Connect => "connect",
        Tls => "tls",
    }

    /// How the breakers of an upstream stand: 0, 1 and 2 in the gauge.
    BreakerState {
        Closed => "closed",
        HalfOpen => "half_open",
        Open => "open",
    }

    /// Why a stale answer was served.
    StaleCause {
        Timeout => "timeout",
        Connect => "connect",
        Server => "http_5xx",
        RateLimited => "http_429",
        BreakerOpen => "breaker_open",
        Overloaded => "overloaded",
        NotFound => "http_404",
    }

    /// How a request was decided (design §12).
    DecisionLabel {
        Allow => "allow",
        Deny => "deny",
        AuditDeny => "audit_deny",
        AuditUndecided => "audit_undecided",
        Exempt => "exempt",
        Undecided => "undecided",
    }

    /// Where a verdict came from.
    VerifySource {
        VerdictStore => "verdict_store",
        Computed => "computed",
    }

    /// How a report of audit mode on who signed ended.
    ReportOutcome {
        Done => "done",
        QueueFull => "queue_full",
        Outdated => "outdated",
        Failed => "failed",
    }

    /// What the verdict store did.
    StoreOp {
        Open => "open",
        Get => "get",
        Put => "put",
        Delete => "delete",
        Flush => "flush",
    }

    /// How it went.
    StoreOutcome {
        Ok => "ok",
        Miss => "miss",
        Dropped => "dropped",
        Timeout => "timeout",
        Error => "error",
        Corrupt => "corrupt",
    }

    /// Which bound a request met that was told to come again.
    OverloadBound {
        Requests => "requests",
        ClientRequests => "client_requests",
        ClientRate => "client_rate",
        ColdWork => "cold_work",
        Transfers => "transfers",
        Verifications => "verifications",
        Material => "material",
        ManifestBytes => "manifest_bytes",
    }

    /// Why we closed a connection.
    CloseReason {
        HeaderTimeout => "header_timeout",
        WriteTimeout => "write_timeout",
        TotalLimit => "total_limit",
        AddressLimit => "address_limit",
        Malformed => "malformed",
        Drain => "drain",
        TlsFailed => "tls",
    }
}

impl WriteError {
    /// What a failed write is counted as.
    pub fn of(error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        // Those that `ErrorKind` does not name have these numbers on every Unix.
        const EIO: i32 = 5;
        const ENFILE: i32 = 23;
        const EMFILE: i32 = 24;
        match (error.kind(), error.raw_os_error()) {
            (ErrorKind::StorageFull | ErrorKind::QuotaExceeded, _) => Self::Full,
            (ErrorKind::ReadOnlyFilesystem, _) => Self::ReadOnly,
            (ErrorKind::PermissionDenied, _) => Self::Permission,
            (_, Some(EIO)) => Self::Io,
            (_, Some(EMFILE | ENFILE)) => Self::Descriptors,
            _ => Self::Other,
        }
    }
}

/// The status codes that are counted one by one; every other one is `other`. 499 is a request that its client left.
pub(super) const CODES: &[u16] =
    &[200, 206, 300, 304, 400, 401, 403, 404, 405, 414, 416, 429, CODE_CANCELLED, 500, 502, 503, 504];
/// Their labels, in the same order, and `other`.
pub(super) const CODE_LABELS: &[&str] = &[
    "200", "206", "300", "304", "400", "401", "403", "404", "405", "414", "416", "429", "499", "500", "502", "503",
    "504", "other",
];
/// The client left before the response was complete.
pub(super) const CODE_CANCELLED: u16 = 499;

/// The place of a status code in [`CODE_LABELS`].
pub(super) fn code_position(code: u16) -> usize {
    CODES.iter().position(|listed| *listed == code).unwrap_or(CODES.len())
}

/// Why a request was decided as it was: policy's reasons, what passes without one, what can keep us from deciding, and `other`.
pub(super) const REASON_LABELS: &[&str] = &[
    "verified",
    "accept_anything",
    "children",
    "rejected",
    "no_signature",
    "bad_signature",
    "wrong_key",
    "rotated_key",
    "identity_mismatch",
    "no_log_entry",
    "expired",
    "too_many_signatures",
    "too_many_children",
    "too_large",
    "unsupported_digest",
    "no_matching_policy",
    "no_attestation",
    "policy_rule",
    "warned",
    "not_supported",
    "artefact",
    "leaf_only",
    "upstream_error",
    "timeout",
    "clock",
    "overloaded",
    "internal",
    "other",
];

/// The place of a reason in [`REASON_LABELS`].
pub(super) fn reason_position(reason: &str) -> usize {
    let last = REASON_LABELS.len().saturating_sub(1);
    REASON_LABELS.iter().position(|listed| *listed == reason).unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_code_has_its_own_label_and_others_share_one() {
        for (code, label) in CODES.iter().zip(CODE_LABELS) {
            assert_eq!(code.to_string(), **label);
        }
        assert_eq!(CODE_LABELS.get(code_position(418)), Some(&"other"));
        assert_eq!(CODE_LABELS.get(code_position(403)), Some(&"403"));
    }

    #[test]
    fn unknown_reasons_share_one_label() {
        assert_eq!(REASON_LABELS.get(reason_position("no such reason")), Some(&"other"));
        assert_eq!(REASON_LABELS.get(reason_position("rejected")), Some(&"rejected"));
    }

    #[test]
    fn every_reason_of_policy_has_a_label() {
        for reason in crate::policy::Reason::ALL {
            assert!(REASON_LABELS.contains(&reason.as_label()), "{reason:?}");
        }
    }

    #[test]
    fn a_position_finds_its_label() {
        for route in RouteLabel::ALL {
            assert_eq!(RouteLabel::LABELS.get(route.position()), Some(&route.as_label()));
        }
    }
}
