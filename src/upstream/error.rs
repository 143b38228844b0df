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
    /// 429, or the time that one named has not passed.
    #[error("{upstream} limits our requests; try again in {} s", retry_after.as_secs())]
    RateLimited {
        /// Which upstream.
        upstream: Host,
        /// Clamped to 1–300 s.
        retry_after: Duration,
    },
    /// It failed so often in a row that it is not asked for a while.
    #[error("{upstream} is asked again in {} s, since {last}", retry_after.as_secs())]
    Resting {
        /// Which upstream.
        upstream: Host,
        /// Until then.
        retry_after: Duration,
        /// How it failed last.
        last: Box<UpstreamError>,
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
    #[error("{upstream} cannot be reached: {}", unreachable(reason))]
    Connect {
        /// Which upstream.
        upstream: Host,
        /// `connect`, `tls`, `dns`, `reset`, `address_blocked`.
        reason: &'static str,
    },
    /// An answer that must not be used: wrong digest, length, type, encoding, protocol, blocked redirect or realm.
    #[error("{upstream} sent an unusable answer: {}", unusable(reason))]
    Bad {
        /// Which upstream.
        upstream: Host,
        /// `digest_mismatch`, `truncated`, `too_large`, `size_mismatch`, `media_type`, `content_encoding`, `protocol`, `redirect`,
        /// `redirect_blocked`, `realm_blocked`, `upstream_auth`, `lookaside_type`, `lookaside_file`, `lookaside_directory`.
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

/// What a reason of [`UpstreamError::Connect`] means, and which key helps.
fn unreachable(reason: &'static str) -> &'static str {
    match reason {
        "connect" => "no connection can be made",
        "dns" => "its name cannot be resolved",
        "tls" => "TLS failed, or its certificate is not trusted (ca_file names another CA)",
        "reset" => "the connection broke",
        "address_blocked" => "it is at an address that may not be dialled (allow_private_addresses)",
        other => other,
    }
}

/// What a reason of [`UpstreamError::Bad`] means, and which key helps.
fn unusable(reason: &'static str) -> &'static str {
    match reason {
        "digest_mismatch" => "the bytes are not what their digest says",
        "truncated" => "the body ended early",
        "too_large" => "the body is too large",
        "size_mismatch" => "the body has another length than stated",
        "media_type" => "the Content-Type is missing or not that of a manifest",
        "lookaside_type" => "it is a page for people (text/html), not a signature",
        "lookaside_file" => "the file cannot be read, or lies outside of its directory",
        "lookaside_directory" => "the directory of its lookaside signatures (registries_d) cannot be read",
        "content_encoding" => "the body is encoded, though it was asked for as it is",
        "protocol" => "it does not follow the distribution-spec",
        "redirect" => "it redirects to nowhere, or too often",
        "redirect_blocked" => "it redirects to a place that may not be asked (redirect_hosts)",
        "realm_blocked" => "it wants tokens from a place that may not be asked (auth_hosts)",
        "upstream_auth" => "no credential or token can be had for it",
        other => other,
    }
}

/// Settings that cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_told_in_words() {
        let upstream: Host = "docker.io".parse().unwrap();
        for reason in ["connect", "dns", "tls", "reset", "address_blocked"] {
            let text = UpstreamError::Connect { upstream: upstream.clone(), reason }.to_string();
            assert!(
                text.starts_with("docker.io cannot be reached: ") && !text.ends_with(&format!(": {reason}")),
                "{text}"
            );
        }
        let bad = [
            "digest_mismatch",
            "truncated",
            "too_large",
            "size_mismatch",
            "media_type",
            "content_encoding",
            "lookaside_type",
            "lookaside_file",
            "lookaside_directory",
            "protocol",
            "redirect",
            "redirect_blocked",
            "realm_blocked",
            "upstream_auth",
        ];
        for reason in bad {
            let text = UpstreamError::Bad { upstream: upstream.clone(), reason }.to_string();
            assert!(!text.ends_with(&format!(": {reason}")) && text.is_ascii() && text.len() < 150, "{text}");
        }
    }
}
