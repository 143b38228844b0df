//! Why an upstream gave no usable answer.

use std::time::Duration;

use crate::net::NetError;
use crate::oci::Host;

/// Why an upstream gave no usable answer. Variants say what a caller does next.
#[derive(Debug, Clone, thiserror::Error)]
pub enum UpstreamError {
    /// A clean 404: it is not there.
    #[error("{upstream} does not have it")]
    NotFound {
        /// Which upstream.
        upstream: Host,
    },
    /// 401 or 403 after one fresh token.
    #[error("{upstream} refuses access ({status}); the repository may not exist or need other credentials")]
    Refused {
        /// Which upstream.
        upstream: Host,
        /// 401 or 403.
        status: u16,
    },
    /// 429, or its breaker is open.
    #[error("{upstream} limits our requests; try again in {} s", retry_after.as_secs())]
    RateLimited {
        /// Which upstream.
        upstream: Host,
        /// Clamped to 1–300 s.
        retry_after: Duration,
    },
    /// No answer in time.
    #[error("{upstream} did not answer in time")]
    Timeout {
        /// Which upstream.
        upstream: Host,
    },
    /// 5xx after retries.
    #[error("{upstream} failed with {status}")]
    Failed {
        /// Which upstream.
        upstream: Host,
        /// The status.
        status: u16,
        /// Its `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// No connection, a broken one, or TLS that cannot be trusted.
    #[error("{upstream} cannot be reached: {reason}")]
    Connect {
        /// Which upstream.
        upstream: Host,
        /// `connect`, `tls`, `dns`, `reset`, `address_blocked`.
        reason: &'static str,
    },
    /// An answer that must not be used: wrong digest, length, type, encoding, protocol, blocked redirect or realm.
    #[error("{upstream} sent an unusable answer: {reason}")]
    Bad {
        /// Which upstream.
        upstream: Host,
        /// `digest_mismatch`, `truncated`, `too_large`, `size_mismatch`, `media_type`, `content_encoding`, `protocol`, `redirect`,
        /// `redirect_blocked`, `realm_blocked`, `upstream_auth`.
        reason: &'static str,
    },
}

impl UpstreamError {
    /// What a network failure means when it happens on the way to the headers, or in the body.
    pub(super) fn of(upstream: &Host, error: NetError) -> Self {
        let upstream = upstream.clone();
        match error {
            NetError::Timeout => Self::Timeout { upstream },
            NetError::AddressBlocked { .. } => Self::Connect { upstream, reason: "address_blocked" },
            NetError::Dns => Self::Connect { upstream, reason: "dns" },
            NetError::Connect => Self::Connect { upstream, reason: "connect" },
            NetError::Tls => Self::Connect { upstream, reason: "tls" },
            NetError::Reset => Self::Connect { upstream, reason: "reset" },
            NetError::Protocol => Self::Bad { upstream, reason: "protocol" },
            NetError::Truncated => Self::Bad { upstream, reason: "truncated" },
            NetError::TooLarge { .. } => Self::Bad { upstream, reason: "too_large" },
        }
    }
}

/// Settings that cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub String);
