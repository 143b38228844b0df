//! What we keep, on disk and in memory: blobs, verdicts, grants, tags, evidence. May import: `telemetry`, `policy`, `verify`, `oci`, `limits`, `clock`.

mod types;

pub use types::*;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::{Clock, Timestamp};
use crate::oci::{Algorithm, Digest, MediaType, Repository, Tag};
use crate::telemetry::Telemetry;

/// Everything; clones share it.
#[derive(Debug, Clone)]
pub struct Store {}

impl Store {
    /// Opens everything under `settings.data_dir`, or in memory. Ready in O(1).
    pub async fn open(_settings: Settings, _clock: Clock, _telemetry: Telemetry) -> Result<Self, StoreError> {
        todo!()
    }
    /// Flushes and closes (bounded by 5 s).
    pub async fn close(&self) {}

    // ---- small content: manifests and signature payloads, whole, verified against their digest when read ----

    /// The bytes of that digest, from memory or disk; hashed when read from disk; a wrong file is dropped and is a miss.
    pub async fn content(&self, _digest: &Digest) -> Option<Bytes> {
        todo!()
    }
    /// Keeps them; failure to write is counted, never fatal. The caller has hashed them.
    pub async fn keep_content(&self, _digest: &Digest, _bytes: Bytes) {}

    // ---- blobs ----

    /// Opens a cached blob.
    pub async fn blob(&self, _digest: &Digest) -> Option<BlobFile> {
        todo!()
    }
    /// Begins to write a blob of at most `size_max` bytes.
    pub async fn stage(&self, _algorithm: Algorithm, _size_max: u64) -> Result<Staged, StoreError> {
        todo!()
    }
    /// Drops a file found wrong.
    pub async fn drop_blob(&self, _digest: &Digest) {}
    /// Size and bound.
    pub fn cache_stats(&self) -> CacheStats {
        todo!()
    }

    // ---- verdicts ----

    /// The verdict of that key, if it is current at `now` (not past its `not_after`).
    pub async fn verdict(&self, _key: &VerdictKey, _now: Timestamp) -> Option<Arc<StoredVerdict>> {
        todo!()
    }
    /// Also the expired one, to find stored material for verifying again offline.
    pub async fn verdict_any_age(&self, _key: &VerdictKey) -> Option<Arc<StoredVerdict>> {
        todo!()
    }
    /// Keeps a verdict with its evidence.
    pub async fn put_verdict(&self, _verdict: StoredVerdict, _evidence: &crate::policy::Evidence) {}
    /// Verdicts by the filter, newest first; also expired denials from the bounded history.
    pub async fn verdicts(&self, _filter: &VerdictFilter) -> Vec<Arc<StoredVerdict>> {
        todo!()
    }
    /// One verdict by id, with its evidence.
    pub async fn verdict_by_id(&self, _id: &VerdictId) -> Option<(Arc<StoredVerdict>, Option<serde_json::Value>)> {
        todo!()
    }
    /// Forgets a verdict: the next request decides again.
    pub async fn forget_verdict(&self, _id: &VerdictId) -> bool {
        todo!()
    }

    // ---- grants ----

    /// The grants of that digest in that repository, newest first.
    pub async fn grants(&self, _repository: &Repository, _digest: &Digest) -> Arc<[Grant]> {
        todo!()
    }
    /// Keeps grants that one admission gives, all at once.
    pub async fn put_grants(&self, _repository: &Repository, _grants: Vec<(Digest, Grant)>) {}
    /// Takes away every grant on that digest that stems from `image`.
    pub async fn revoke_grants(&self, _repository: &Repository, _digest: &Digest, _image: &crate::oci::ImageReference) {
    }

    // ---- tags and index edges ----

    /// What a tag pointed at, and when upstream said so.
    pub async fn tag(&self, _repository: &Repository, _tag: &Tag) -> Option<TagPointer> {
        todo!()
    }
    /// Remembers a tag.
    pub async fn put_tag(&self, _repository: &Repository, _tag: &Tag, _pointer: TagPointer) {}
    /// The media type a manifest was first served with in that repository; fixed for ever.
    pub async fn media_type(&self, _digest: &Digest) -> Option<MediaType> {
        todo!()
    }
    /// Fixes the media type of a manifest.
    pub async fn put_media_type(&self, _digest: &Digest, _media_type: MediaType) {}
}

/// Where and how much.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `None`: everything in memory, nothing touches the disk but blobs in a temporary directory that is never shared.
    pub data_dir: Option<PathBuf>,
    /// Bound of the blob cache in bytes.
    pub max_bytes: u64,
    /// Free space to leave on the file system, in bytes.
    pub min_free_bytes: u64,
}
