//! The client side of the distribution-spec: one [`Upstream`] a configured registry.
//!
//! Each call ends in one of three ways: the thing, a clean "it is not there" ([`UpstreamError::NotFound`], `None` for
//! referrers), or an error that says nothing about the thing. What upstream claims in headers is compared, never
//! believed. Files: `failover` chooses the endpoint, `client` sends (tokens, redirects, repetitions), `manifests`, `blobs`, `referrers` and `lists` judge the answers;
//! `challenge`, `rate_limit`, `reach`, `retry`, `breaker` and `checks` decide without I/O. May import: `net`, `telemetry`, `oci`,
//! `limits`, `clock`.

mod authorization;
mod blobs;
mod breaker;
mod challenge;
mod checks;
mod client;
mod credentials;
mod error;
mod failover;
mod lists;
mod lookaside;
mod manifests;
mod rate_limit;
mod reach;
mod referrers;
mod retry;
mod selection;
mod settings;
mod token;

pub use breaker::BreakerStanding;
pub use error::{SettingsError, UpstreamError};
pub use settings::{Content, Credentials, Fallback, Network, Settings};

use std::sync::Arc;

use bytes::Bytes;
use url::Url;

use crate::oci::{Digest, Reference, RepositoryName};
use crate::telemetry::Telemetry;
use failover::Endpoints;

/// One upstream registry; clones share connections, tokens and breakers.
#[derive(Debug, Clone)]
pub struct Upstream {
    endpoints: Arc<Endpoints>,
}

impl Upstream {
    /// Builds the client; contacts nobody.
    ///
    /// # Errors
    /// [`SettingsError`] when an address, a name, a certificate or a proxy in the settings cannot be used.
    pub fn new(settings: Settings, telemetry: Telemetry) -> Result<Self, SettingsError> {
        Self::with_network(settings, telemetry, Network::default())
    }

    /// As [`Self::new`], with other time limits or another resolver: for tests.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_network(settings: Settings, telemetry: Telemetry, network: Network) -> Result<Self, SettingsError> {
        Self::with_fallbacks(settings, Vec::new(), telemetry, network)
    }

    /// As [`Self::with_network`], with further endpoints, asked in their order when those before them fail.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_fallbacks(
        settings: Settings,
        fallbacks: Vec<Fallback>,
        telemetry: Telemetry,
        network: Network,
    ) -> Result<Self, SettingsError> {
        Ok(Self { endpoints: Arc::new(Endpoints::new(settings, fallbacks, telemetry, network)?) })
    }

    /// Each endpoint in its order, and how its breakers stand. Asks nobody.
    pub fn standings(&self) -> Vec<(Url, BreakerStanding)> {
        self.endpoints.standings()
    }

    /// HEAD of a manifest; moves no body.
    ///
    /// # Errors
    /// [`UpstreamError`]; a digest that was asked for and another that is answered are `Bad`.
    pub async fn manifest_head(
        &self,
        name: &RepositoryName,
        reference: &Reference,
    ) -> Result<ManifestHead, UpstreamError> {
        let ask = |client| async move { manifests::head(&client, name, reference).await };
        match reference {
            Reference::Tag(_) => self.endpoints.ask_complete(ask).await,
            Reference::Digest(_) => self.endpoints.ask(ask).await,
        }
    }

    /// GET of a manifest, at most [`MANIFEST_BYTES_MAX`], digest compared with what was asked and with what upstream says.
    ///
    /// # Errors
    /// [`UpstreamError`]; anything that is not exactly that manifest is `Bad`.
    ///
    /// [`MANIFEST_BYTES_MAX`]: crate::limits::MANIFEST_BYTES_MAX
    pub async fn manifest(
        &self,
        name: &RepositoryName,
        reference: &Reference,
    ) -> Result<FetchedManifest, UpstreamError> {
        let ask = |client| async move { manifests::get(&client, name, reference).await };
        match reference {
            Reference::Tag(_) => self.endpoints.ask_complete(ask).await,
            Reference::Digest(_) => self.endpoints.ask(ask).await,
        }
    }

    /// HEAD of a blob: its size, when upstream says it.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub async fn blob_head(&self, name: &RepositoryName, digest: &Digest) -> Result<Option<u64>, UpstreamError> {
        self.endpoints.ask(|client| async move { blobs::head(&client, name, digest).await }).await
    }

    /// GET of a blob or of its end; headers have been checked, the body has not.
    ///
    /// Waits for its turn at most [`UPSTREAM_BLOB_QUEUE`]. The connection and the turn belong to the stream, and are given
    /// back when it is dropped.
    ///
    /// # Errors
    /// [`UpstreamError`]; an answer with another range than asked is `Bad` with the reason `protocol`.
    ///
    /// [`UPSTREAM_BLOB_QUEUE`]: crate::limits::UPSTREAM_BLOB_QUEUE
    pub async fn blob(
        &self,
        name: &RepositoryName,
        digest: &Digest,
        range: BlobRange,
    ) -> Result<BlobBody, UpstreamError> {
        self.endpoints.ask(|client| async move { blobs::get(&client, name, digest, range).await }).await
    }

    /// GET of what is missing of a blob whose first `start` bytes have come, on condition that it is still the same
    /// (`If-Range`, where the endpoint that is asked has given a strong entity tag). A registry may send all of it again instead.
    /// An endpoint that fell silent in the middle is asked last.
    ///
    /// # Errors
    /// [`UpstreamError`]; a part of something else, or another part, is `Bad` with the reason `protocol`.
    pub async fn blob_rest(
        &self,
        name: &RepositoryName,
        digest: &Digest,
        start: u64,
        validator: &Validator,
    ) -> Result<BlobRest, UpstreamError> {
        let ask = |client| async move { blobs::rest(&client, name, digest, start, validator).await };
        self.endpoints.ask_others_first(validator.stalled.as_ref(), ask).await
    }

    /// The pause before a transfer that broke for the `breaks`th time in a row goes on; it doubles, with jitter.
    pub fn pause_after_break(&self, breaks: usize) -> std::time::Duration {
        self.endpoints.first().pause_after_break(breaks)
    }

    /// A small blob whole, at most `max` bytes, hashed and compared.
    ///
    /// # Errors
    /// [`UpstreamError`]; a longer blob is `Bad` with the reason `too_large`.
    pub async fn small_blob(&self, name: &RepositoryName, digest: &Digest, max: u64) -> Result<Bytes, UpstreamError> {
        self.endpoints.ask(|client| async move { blobs::small(&client, name, digest, max).await }).await
    }

    /// What lies at an `http` or `https` address beside the registry, at most `max` bytes; `None` on a clean 404. No credential of
    /// the registry goes there.
    ///
    /// # Errors
    /// [`UpstreamError`], in the name of that server; a longer body is `Bad` with the reason `too_large`.
    pub async fn lookaside(&self, url: &Url, max: u64) -> Result<Option<Bytes>, UpstreamError> {
        lookaside::get(self.endpoints.first(), url, max).await
    }

    /// The referrers of a digest, page by page within [`REFERRERS_PAGES_MAX`] and [`REFERRERS_MAX`]. `Ok(None)`: upstream
    /// has no referrers API (404), and the fallback tag is the place to look.
    ///
    /// # Errors
    /// [`UpstreamError`] for every other answer: it is then not known whether there are referrers.
    ///
    /// [`REFERRERS_PAGES_MAX`]: crate::limits::REFERRERS_PAGES_MAX
    /// [`REFERRERS_MAX`]: crate::limits::REFERRERS_MAX
    pub async fn referrers(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<ReferrersList>, UpstreamError> {
        let ask = |client| async move { referrers::referrers(&client, name, digest).await };
        self.endpoints.ask_complete(ask).await
    }

    /// The referrers that `interest`, out of at most [`REFERRERS_PAGES_MAX`] pages of any number of others; of very many
    /// the first, the last and some between, [`REFERRERS_MAX`] in all, without annotations; where there are too many pages, those
    /// of `artifact_type` by a list of their own, if the registry filters. `Ok(None)` as in [`Self::referrers`]. Pages that do
    /// not come by `deadline` are missing.
    ///
    /// # Errors
    /// [`UpstreamError`] when not even the first page could be read.
    ///
    /// [`REFERRERS_PAGES_MAX`]: crate::limits::REFERRERS_PAGES_MAX
    /// [`REFERRERS_MAX`]: crate::limits::REFERRERS_MAX
    pub async fn select_referrers(
        &self,
        name: &RepositoryName,
        digest: &Digest,
        artifact_type: &str,
        interest: &(dyn Fn(&crate::oci::Descriptor) -> Interest + Send + Sync),
        deadline: tokio::time::Instant,
    ) -> Result<Option<SelectedReferrers>, UpstreamError> {
        let ask =
            |client| async move { referrers::select(&client, name, digest, artifact_type, interest, deadline).await };
        self.endpoints.ask_complete(ask).await
    }

    /// One page of tags, in upstream's order: about `n`, after `last`. Registries that know no pages send all.
    ///
    /// # Errors
    /// [`UpstreamError`]; 404 is `NotFound`.
    pub async fn tags(&self, name: &RepositoryName, n: usize, last: Option<&str>) -> Result<TagsPage, UpstreamError> {
        self.endpoints.ask_complete(|client| async move { lists::tags(&client, name, n, last).await }).await
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

/// What tells that the rest of a transfer belongs to its beginning.
#[derive(Debug, Clone)]
pub struct Validator {
    size: u64,
    /// What each endpoint that has sent some of it said, who sent last at the end.
    said: Vec<Said>,
    /// Who fell silent in the middle: asked again when no other one answers.
    stalled: Option<Url>,
}

/// What one endpoint says of a blob when it sends it: of no meaning to any other one.
#[derive(Debug, Clone)]
pub struct Said {
    endpoint: Url,
    /// It has stated the size of the whole.
    size: bool,
    /// The entity tag, if it is a strong one.
    tag: Option<http::HeaderValue>,
}

impl Validator {
    /// For a blob of that size, as its manifest states it.
    pub const fn new(size: u64) -> Self {
        Self { size, said: Vec::new(), stalled: None }
    }

    /// An endpoint sends it from the beginning: what it says now is what it is held to.
    pub fn began(&mut self, body: &BlobBody) {
        self.said.retain(|said| said.endpoint != body.said.endpoint);
        self.said.push(Said::clone(&body.said));
    }

    /// An endpoint sends the rest: it is held to what it said before, and to what it adds now.
    pub fn went_on(&mut self, body: &BlobBody) {
        let mut now = Said::clone(&body.said);
        if let Some(before) = self.of(&now.endpoint) {
            now.size |= before.size;
            now.tag = before.tag.clone().or(now.tag);
        }
        self.said.retain(|said| said.endpoint != now.endpoint);
        self.said.push(now);
    }

    /// Who sent last has fallen silent.
    pub fn stalled(&mut self) {
        self.stalled = self.said.last().map(|said| said.endpoint.clone());
    }

    fn of(&self, endpoint: &Url) -> Option<&Said> {
        self.said.iter().find(|said| said.endpoint == *endpoint)
    }
}

/// The rest of a blob, or all of it once more.
#[derive(Debug)]
pub struct BlobRest {
    /// The place in the blob where the body begins: the one that was asked for, or 0.
    pub start: u64,
    /// The bytes.
    pub body: BlobBody,
}

/// The body of a blob.
pub struct BlobBody {
    /// Length of the body that follows, where upstream says it.
    pub length: Option<u64>,
    /// What its endpoint says about it.
    pub said: Box<Said>,
    /// The bytes. An item is an error, and the last one, when the transfer broke, stalled, or had another length.
    pub stream: futures_util::stream::BoxStream<'static, Result<Bytes, UpstreamError>>,
}

/// Referrers as upstream lists them.
#[derive(Debug, Clone)]
pub struct ReferrersList {
    /// The descriptors, strictly parsed.
    pub manifests: Vec<crate::oci::Descriptor>,
    /// There were more pages or entries than are followed.
    pub more: bool,
    /// Entries that are no descriptor, such as one with an unknown digest algorithm; they are passed over.
    pub skipped: usize,
}

/// How much a referrer matters to whoever looks for something among many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// It is one that was good before.
    Known,
    /// It says that it is one.
    First,
    /// It does not say what it is.
    Perhaps,
    /// It says that it is something else.
    None,
}

/// The referrers that interest.
#[derive(Debug, Clone, Default)]
pub struct SelectedReferrers {
    /// Those that were good before, wherever they stand.
    pub known: Vec<crate::oci::Descriptor>,
    /// Those that say so, in upstream's order.
    pub first: Vec<crate::oci::Descriptor>,
    /// Those that do not say what they are, in upstream's order.
    pub perhaps: Vec<crate::oci::Descriptor>,
    /// There were more that interest, or more pages, than are looked at.
    pub more: bool,
    /// Entries that are no descriptor; they are passed over.
    pub skipped: usize,
    /// Why pages after the first could not be read; there may be more that interest.
    pub missing: Option<UpstreamError>,
}

impl SelectedReferrers {
    /// Out of the index at the fallback tag (distribution-spec v1.1, "Referrers Tag Schema"), which may be longer than an
    /// index that is served.
    ///
    /// # Errors
    /// Why it is none: `protocol`.
    pub fn of_index(
        bytes: &[u8],
        interest: &(dyn Fn(&crate::oci::Descriptor) -> Interest + Send + Sync),
    ) -> Result<Self, &'static str> {
        referrers::select_of_index(bytes, interest)
    }
}

/// One page of tags.
#[derive(Debug, Clone)]
pub struct TagsPage {
    /// The tags that fit the grammar.
    pub tags: Vec<crate::oci::Tag>,
    /// There is a next page.
    pub more: bool,
}

impl std::fmt::Debug for BlobBody {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("BlobBody").field("length", &self.length).finish_non_exhaustive()
    }
}
