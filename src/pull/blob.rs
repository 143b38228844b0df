//! Blobs that have a grant: from the cache, from a fill, or, when the disk is full, straight from upstream.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};

use super::fill::{Fill, Fills, Joined, Progress};
use super::reading::{Origin, Reading, unknown_blob};
use super::{PullError, Source};
use crate::limits::HOLD_BACK_BYTES;
use crate::oci::{Digest, Repository};
use crate::store::{BlobFile, Store};
use crate::telemetry::{CacheKind, CacheResult, Telemetry};
use crate::upstream::{BlobBody, BlobRange, UpstreamError};

/// What a HEAD of a blob says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobHead {
    /// Its size in bytes, as the admitting manifest states it.
    pub size: u64,
    /// Hit, joined or miss.
    pub cache: CacheResult,
}

/// A blob that may be served. Its headers can be sent: it is cached, or upstream has begun to send it.
#[derive(Debug)]
pub struct AdmittedBlob {
    origin: Origin,
    bytes: BytesFrom,
    cache: CacheResult,
}

impl AdmittedBlob {
    /// Its size in bytes.
    pub const fn size(&self) -> u64 {
        self.origin.size
    }

    /// Hit, joined, or miss.
    pub const fn cache(&self) -> CacheResult {
        self.cache
    }

    /// The bytes from `start` up to and including `end`, both cut to the blob.
    ///
    /// An error item means that the rest will not come: whoever sends them must cut the connection, so that the client
    /// sees a body that ends short. The last 64 KiB of the blob come only after its digest was found right.
    pub fn stream(self, start: u64, end: u64, delivery: Delivery) -> BoxStream<'static, Result<Bytes, PullError>> {
        let size = self.origin.size;
        if start >= size || end < start {
            return stream::empty().boxed();
        }
        let stop = end.saturating_add(1).min(size);
        let reading = match self.bytes {
            BytesFrom::File(file) => Reading::of_file(self.origin, file, start, stop, delivery),
            BytesFrom::Fill(fill) => Reading::of_fill(self.origin, fill, start, stop),
            BytesFrom::Upstream(body) => Reading::of_body(self.origin, body, start, stop),
        };
        stream::try_unfold(reading, |mut reading| async move {
            let bytes = reading.next().await?;
            Ok(bytes.map(|bytes| (bytes, reading)))
        })
        .boxed()
    }
}

/// How the bytes of a cached file may reach whoever sends them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// As memory that can be read: over TLS, or to anything but a connection of ours.
    Copied,
    /// As memory that names the file ([`crate::store::FileRegion`]) and must only be handed to a plaintext socket.
    ByFile,
}

/// Where the bytes come from.
enum BytesFrom {
    File(BlobFile),
    Fill(Arc<Fill>),
    Upstream(BlobBody),
}

impl fmt::Debug for BytesFrom {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::File(_) => "File",
            Self::Fill(_) => "Fill",
            Self::Upstream(_) => "Upstream",
        })
    }
}

/// Opens blobs; clones share the fills.
#[derive(Debug, Clone)]
pub(super) struct Blobs {
    store: Store,
    telemetry: Telemetry,
    fills: Fills,
}

impl Blobs {
    /// Over that store.
    pub(super) fn new(store: Store, telemetry: Telemetry, fills: Fills) -> Self {
        Self { store, telemetry, fills }
    }

    /// The size of a granted blob; costs at most one upstream HEAD and moves no body.
    pub(super) async fn head(
        &self,
        source: &Source,
        repository: &Repository,
        digest: &Digest,
        size: u64,
    ) -> Result<BlobHead, PullError> {
        let cache = if self.store.blob(digest).await.is_some_and(|file| file.size() == size) {
            CacheResult::Hit
        } else if self.fills.find(repository.host(), digest, size).is_some() {
            CacheResult::Joined
        } else {
            let announced = source.upstream.blob_head(repository.name(), digest).await.map_err(unknown_blob)?;
            if announced.is_some_and(|announced| announced != size) {
                let upstream = repository.host().clone();
                return Err(UpstreamError::Bad { upstream, reason: "size_mismatch" }.into());
            }
            CacheResult::Miss
        };
        self.telemetry.cache_asked(CacheKind::Blob, cache);
        Ok(BlobHead { size, cache })
    }

    /// Opens a granted blob of `size` bytes.
    ///
    /// Returns when the first bytes can be sent, or, for one no longer than what is held back, when its digest is known.
    pub(super) async fn open(
        &self,
        source: &Source,
        repository: &Repository,
        digest: &Digest,
        size: u64,
    ) -> Result<AdmittedBlob, PullError> {
        let origin = Origin {
            upstream: source.upstream.clone(),
            repository: repository.clone(),
            digest: *digest,
            size,
            store: self.store.clone(),
        };
        let (bytes, cache) = match self.cached(&origin).await? {
            Some(file) => (BytesFrom::File(file), CacheResult::Hit),
            None => self.fill(&origin).await?,
        };
        self.telemetry.cache_asked(CacheKind::Blob, cache);
        Ok(AdmittedBlob { origin, bytes, cache })
    }

    async fn cached(&self, origin: &Origin) -> Result<Option<BlobFile>, PullError> {
        match self.store.blob(&origin.digest).await {
            Some(file) if file.size() == origin.size => Ok(Some(file)),
            // The content has that digest, so it is the manifest's size that is wrong.
            Some(file) if file.is_verified() => Err(origin.bad("size_mismatch")),
            // The file or the manifest is wrong. What upstream sends decides: if it is the blob, it takes the file's place; if
            // not, other manifests' clients still have the file.
            Some(_) | None => Ok(None),
        }
    }

    async fn fill(&self, origin: &Origin) -> Result<(BytesFrom, CacheResult), PullError> {
        let mut again = true;
        loop {
            let (fill, joined) = self.fills.join(&origin.upstream, &origin.repository, origin.digest, origin.size);
            let cache = match joined {
                Joined::Started => CacheResult::Miss,
                Joined::Found => CacheResult::Joined,
            };
            let mut progress = fill.progress();
            let begun = progress.wait_for(|progress| has_begun(progress, origin.size)).await;
            let begun = begun.map_err(|_| PullError::Lost)?.clone();
            match begun {
                Progress::Starting | Progress::Streaming { .. } | Progress::Verified => {
                    return Ok((BytesFrom::Fill(fill), cache));
                }
                Progress::Cached => {
                    let cached = self.cached(origin).await?.ok_or(PullError::Lost)?;
                    return Ok((BytesFrom::File(cached), CacheResult::Hit));
                }
                Progress::Unstorable => {
                    let body = origin.fetch(BlobRange::Whole, origin.size).await?;
                    return Ok((BytesFrom::Upstream(body), CacheResult::Bypass));
                }
                // Another repository's failure is not ours: ask our own once.
                Progress::Failed(_) if again && *fill.repository() != origin.repository => again = false,
                Progress::Failed(error) => return Err(error),
            }
        }
    }
}

/// Whether an answer's headers can be sent.
fn has_begun(progress: &Progress, size: u64) -> bool {
    match progress {
        Progress::Starting => false,
        Progress::Streaming { .. } => size > HOLD_BACK_BYTES,
        Progress::Verified | Progress::Cached | Progress::Unstorable | Progress::Failed(_) => true,
    }
}
