//! Tag pointers: (repository, tag) → what upstream last said it is.

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::clock::Timestamp;
use crate::limits::HOT_ENTRIES_MAX;
use crate::oci::{Digest, MediaType, Repository, Tag};

/// What a tag pointed at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagPointer {
    /// The manifest.
    pub digest: Digest,
    /// The type under which upstream serves it, when known.
    pub media_type: Option<MediaType>,
    /// When upstream said so.
    pub checked: Timestamp,
}

/// All tag pointers, and the media types of manifests: in memory, above the database.
#[derive(Debug)]
pub(super) struct Tags {
    pointers: Cache<(Repository, Tag), TagPointer>,
    media_types: Cache<Digest, MediaType>,
}

impl Tags {
    pub(super) fn new() -> Self {
        Self {
            pointers: Cache::builder().max_capacity(HOT_ENTRIES_MAX).eviction_policy(EvictionPolicy::lru()).build(),
            media_types: Cache::builder().max_capacity(HOT_ENTRIES_MAX).eviction_policy(EvictionPolicy::lru()).build(),
        }
    }

    pub(super) async fn find(&self, repository: &Repository, tag: &Tag) -> Option<TagPointer> {
        self.pointers.get(&(repository.clone(), tag.clone()))
    }

    pub(super) async fn put(&self, repository: &Repository, tag: &Tag, pointer: TagPointer) {
        self.pointers.insert((repository.clone(), tag.clone()), pointer);
    }

    pub(super) async fn media_type(&self, digest: &Digest) -> Option<MediaType> {
        self.media_types.get(digest)
    }

    /// Fixes the media type of a manifest; the first one stays.
    pub(super) async fn put_media_type(&self, digest: &Digest, media_type: MediaType) {
        if self.media_type(digest).await.is_none() {
            self.media_types.entry(*digest).or_insert(media_type);
        }
    }
}
