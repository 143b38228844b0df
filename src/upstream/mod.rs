//! The client side of the distribution-spec: one [`Upstream`] a configured registry. May import: `net`, `telemetry`, `oci`, `limits`, `clock`.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use crate::oci::{Digest, Host, Reference, RepositoryName};
use crate::telemetry::Telemetry;

/// One upstream registry; clones share connections, tokens and breaker.
#[derive(Debug, Clone)]
pub struct Upstream {}

impl Upstream {
    /// Builds the client; contacts nobody.
    pub fn new(_settings: Settings, _telemetry: Telemetry) -> Result<Self, SettingsError> {
        todo!()
    }
    /// HEAD of a manifest; moves no body.
    pub async fn manifest_head(
        &self,
        _name: &RepositoryName,
        _reference: &Reference,
    ) -> Result<ManifestHead, UpstreamError> {
        todo!()
    }
    /// GET of a manifest, bounded, digest compared with what was asked and with what upstream says.
    pub async fn manifest(
        &self,
        _name: &RepositoryName,
        _reference: &Reference,
    ) -> Result<FetchedManifest, UpstreamError> {
        todo!()
    }
    /// HEAD of a blob.
    pub async fn blob_head(&self, _name: &RepositoryName, _digest: &Digest) -> Result<Option<u64>, UpstreamError> {
        todo!()
    }
    /// GET of a blob from `offset` (0: all); headers have been checked, the body has not.
    pub async fn blob(
        &self,
        _name: &RepositoryName,
        _digest: &Digest,
        _range: BlobRange,
    ) -> Result<BlobBody, UpstreamError> {
        todo!()
    }
    /// A small blob whole, at most `max` bytes, hashed and compared.
    pub async fn small_blob(
        &self,
        _name: &RepositoryName,
        _digest: &Digest,
        _max: u64,
    ) -> Result<Bytes, UpstreamError> {
        todo!()
    }
    /// All pages (bounded) of the referrers of a digest: the descriptors as upstream's JSON. `Ok(None)`: upstream has no referrers API (404).
    pub async fn referrers(
        &self,
        _name: &RepositoryName,
        _digest: &Digest,
    ) -> Result<Option<ReferrersList>, UpstreamError> {
        todo!()
    }
    /// One page of tags.
    pub async fn tags(
        &self,
        _name: &RepositoryName,
        _n: usize,
        _last: Option<&str>,
    ) -> Result<TagsPage, UpstreamError> {
        todo!()
    }
}

/// The range of a blob that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobRange {
    /// All of it.
    Whole,
    /// From this byte (> 0) to the end or to `end` inclusive.
    From {
        /// First byte.
        start: u64,
        /// Last byte.
        end: Option<u64>,
    },
}

/// What a HEAD said; nothing of it is believed before the bytes were hashed.
#[derive(Debug, Clone)]
pub struct ManifestHead {
    /// `Docker-Content-Digest`, when it was there once and well-formed.
    pub digest: Option<Digest>,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Content-Length`.
    pub size: Option<u64>,
}

/// A manifest as it was fetched.
#[derive(Debug, Clone)]
pub struct FetchedManifest {
    /// The bytes, hashed and bounded.
    pub bytes: Bytes,
    /// Their digest: by the algorithm that was asked for, else sha256.
    pub digest: Digest,
    /// `Content-Type`.
    pub content_type: String,
}

/// The body of a blob.
pub struct BlobBody {
    /// `Content-Length` of the body that follows.
    pub length: Option<u64>,
    /// The bytes; an item is an error when the transfer broke or stalled.
    pub stream: futures_util::stream::BoxStream<'static, Result<Bytes, UpstreamError>>,
}

/// Referrers as upstream lists them.
#[derive(Debug, Clone)]
pub struct ReferrersList {
    /// The descriptors, strictly parsed.
    pub manifests: Vec<crate::oci::Descriptor>,
    /// There were more pages or entries than are followed.
    pub more: bool,
}

/// One page of tags.
#[derive(Debug, Clone)]
pub struct TagsPage {
    /// The tags that fit the grammar.
    pub tags: Vec<crate::oci::Tag>,
    /// There is a next page.
    pub more: bool,
}

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
        /// `connect`, `tls`, `dns`, `reset`.
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

/// How to reach one upstream (design §3, `[[upstream]]`), checked by `config`.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Canonical name.
    pub host: Host,
    /// Base URL: http or https, no user, path, query or fragment.
    pub endpoint: url::Url,
    /// Where credentials come from.
    pub credentials: Credentials,
    /// Further hosts that the token realm may name.
    pub auth_hosts: Vec<String>,
    /// Only these redirect hosts; empty: any public https host.
    pub redirect_hosts: Vec<String>,
    /// The only roots for this upstream (PEM).
    pub ca_pem: Option<Vec<u8>>,
    /// Client certificate and key (PEM).
    pub client_identity_pem: Option<Vec<u8>>,
    /// HTTP proxy.
    pub proxy: Option<url::Url>,
    /// Whether private addresses may be dialled.
    pub allow_private_addresses: bool,
}

/// Where an upstream's credentials come from.
#[derive(Clone)]
pub enum Credentials {
    /// None.
    Anonymous,
    /// A name, and a password read from a file at load.
    Static {
        /// User.
        username: String,
        /// Password.
        password: String,
    },
    /// docker's config.json.
    DockerConfig(PathBuf),
    /// `docker-credential-<name>`.
    Helper(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Static { .. } => "Static(****)",
            Self::DockerConfig(_) => "DockerConfig",
            Self::Helper(_) => "Helper",
        })
    }
}

/// Settings that cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub String);
