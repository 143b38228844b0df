//! Tag pointers: (repository, tag) → what upstream last said it is. And pointers to lists of referrers, of the same form.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::record::{Reader, Record, RecordKey, Writer};
use super::records::Records;
use super::{Store, lock};
use crate::clock::{Clock, Timestamp};
use crate::limits::{GRANT_RETENTION, HOT_ENTRIES_MAX};
use crate::oci::{Digest, MediaType, Repository, Tag};
use crate::telemetry::StoreOp;

/// What a tag pointed at, or where a list lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagPointer {
    /// The manifest.
    pub digest: Digest,
    /// The type under which upstream serves it, when known.
    pub media_type: Option<MediaType>,
    /// When upstream said so.
    pub checked: Timestamp,
}

/// The place of a question about tags among all that this process asks upstreams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TagQuestion(u64);

/// What is known of a tag, and from the answer to which question.
#[derive(Debug, Clone)]
struct Known {
    /// `None`: upstream said no, and nothing was remembered.
    pointer: Option<TagPointer>,
    asked: TagQuestion,
}

impl Store {
    /// What a tag pointed at, and when upstream said so.
    pub async fn tag(&self, repository: &Repository, tag: &Tag) -> Option<TagPointer> {
        self.inner.tags.find(repository, tag).await
    }

    /// A question about a tag that upstream is asked from now on.
    pub fn tag_question(&self) -> TagQuestion {
        self.inner.tags.question()
    }

    /// Remembers what upstream answered to that question, whenever the answer came: one to a later question stays. `None` says
    /// that nothing may stand in for the tag. False when the answer was out of date.
    #[expect(clippy::unused_async, reason = "what it costs is this module's to change")]
    pub async fn answer_tag(
        &self,
        repository: &Repository,
        tag: &Tag,
        asked: TagQuestion,
        pointer: Option<TagPointer>,
    ) -> bool {
        self.inner.tags.answer(repository, tag, asked, pointer)
    }

    /// Remembers a tag.
    #[expect(clippy::unused_async, reason = "what it costs is this module's to change")]
    pub async fn put_tag(&self, repository: &Repository, tag: &Tag, pointer: TagPointer) {
        self.inner.tags.put(repository, tag, pointer);
    }
}

/// All tag pointers, and the media types of manifests: in memory, above the database.
#[derive(Debug)]
pub(super) struct Tags {
    pointers: Cache<(Repository, Tag), Known>,
    /// Questions so far. 0 is that of what an earlier process has learned.
    questions: AtomicU64,
    /// (repository, subject) → the list of those of its referrers that an allow rests on.
    lists: Cache<(Repository, Digest), TagPointer>,
    media_types: Cache<Digest, MediaType>,
    /// Held while a value is put, so that memory and database see puts in the same order.
    order: Mutex<()>,
    records: Records,
    clock: Clock,
}

impl Tags {
    pub(super) fn new(records: Records, clock: Clock) -> Self {
        Self {
            pointers: Cache::builder().max_capacity(HOT_ENTRIES_MAX).eviction_policy(EvictionPolicy::lru()).build(),
            lists: Cache::builder().max_capacity(HOT_ENTRIES_MAX).eviction_policy(EvictionPolicy::lru()).build(),
            media_types: Cache::builder().max_capacity(HOT_ENTRIES_MAX).eviction_policy(EvictionPolicy::lru()).build(),
            questions: AtomicU64::new(0),
            order: Mutex::new(()),
            records,
            clock,
        }
    }

    pub(super) async fn find(&self, repository: &Repository, tag: &Tag) -> Option<TagPointer> {
        let key = (repository.clone(), tag.clone());
        if let Some(known) = self.pointers.get(&key) {
            return known.pointer;
        }
        let pointer = self.read(RecordKey::tag(repository, tag)).await?;
        // What was put meanwhile is newer.
        self.pointers.entry(key).or_insert(Known { pointer: Some(pointer), asked: TagQuestion(0) }).into_value().pointer
    }

    /// A question that is put from now on.
    pub(super) fn question(&self) -> TagQuestion {
        TagQuestion(self.questions.fetch_add(1, Ordering::Relaxed).saturating_add(1))
    }

    /// Takes in the answer to that question; false when a later one was answered already.
    pub(super) fn answer(
        &self,
        repository: &Repository,
        tag: &Tag,
        asked: TagQuestion,
        pointer: Option<TagPointer>,
    ) -> bool {
        let record = pointer.as_ref().map(|pointer| (RecordKey::tag(repository, tag), encode(pointer)));
        let key = (repository.clone(), tag.clone());
        let _held = lock(&self.order);
        if self.pointers.get(&key).is_some_and(|known| known.asked > asked) {
            return false;
        }
        self.pointers.insert(key, Known { pointer, asked });
        if let Some(record) = record {
            self.records.write(StoreOp::Put, move |database| database.put(&[record]));
        }
        true
    }

    pub(super) fn put(&self, repository: &Repository, tag: &Tag, pointer: TagPointer) {
        self.answer(repository, tag, self.question(), Some(pointer));
    }

    pub(super) async fn find_list(&self, repository: &Repository, subject: &Digest) -> Option<TagPointer> {
        let key = (repository.clone(), *subject);
        if let Some(pointer) = self.lists.get(&key) {
            return Some(pointer);
        }
        let pointer = self.read(RecordKey::referrers(repository, subject)).await?;
        Some(self.lists.entry(key).or_insert(pointer).into_value())
    }

    pub(super) fn put_list(&self, repository: &Repository, subject: &Digest, pointer: TagPointer) {
        let key = RecordKey::referrers(repository, subject);
        let record = encode(&pointer);
        let _held = lock(&self.order);
        self.lists.insert((repository.clone(), *subject), pointer);
        self.records.write(StoreOp::Put, move |database| database.put(&[(key, record)]));
    }

    pub(super) async fn find_lookaside(&self, repository: &Repository, subject: &Digest) -> Option<TagPointer> {
        self.read(RecordKey::lookaside(repository, subject)).await
    }

    pub(super) fn put_lookaside(&self, repository: &Repository, subject: &Digest, pointer: &TagPointer) {
        let key = RecordKey::lookaside(repository, subject);
        let record = encode(pointer);
        self.records.write(StoreOp::Put, move |database| database.put(&[(key, record)]));
    }

    async fn read(&self, key: RecordKey) -> Option<TagPointer> {
        let found = self.records.find(move |database| Ok(database.find(&key)?.and_then(|record| decode(&record))));
        found.await.found()
    }

    pub(super) async fn media_type(&self, digest: &Digest) -> Option<MediaType> {
        if let Some(media_type) = self.media_types.get(digest) {
            return Some(media_type);
        }
        let key = RecordKey::media_type(digest);
        let found = self.records.find(move |database| {
            Ok(database.find(&key)?.and_then(|record| std::str::from_utf8(&record.body).ok()?.parse().ok()))
        });
        let media_type = found.await.found()?;
        Some(self.media_types.entry(*digest).or_insert(media_type).into_value())
    }

    /// Fixes the media type of a manifest; the first one stays.
    pub(super) async fn put_media_type(&self, digest: &Digest, media_type: MediaType) {
        if self.media_type(digest).await.is_some() {
            return;
        }
        let now = self.clock.now();
        let not_after = now.plus(GRANT_RETENTION.saturating_mul(4));
        let record = Record { issued: now, not_after, body: media_type.as_str().as_bytes().to_vec() };
        let key = RecordKey::media_type(digest);
        let _held = lock(&self.order);
        if self.media_types.entry(*digest).or_insert(media_type).is_fresh() {
            self.records.write(StoreOp::Put, move |database| database.put(&[(key, record)]));
        }
    }
}

fn encode(pointer: &TagPointer) -> Record {
    let mut writer = Writer::default();
    writer.digest(&pointer.digest);
    writer.text(pointer.media_type.map(MediaType::as_str).unwrap_or_default());
    Record { issued: pointer.checked, not_after: pointer.checked.plus(GRANT_RETENTION), body: writer.0 }
}

fn decode(record: &Record) -> Option<TagPointer> {
    let mut reader = Reader(&record.body);
    let digest = reader.digest()?;
    let media_type = match reader.text()? {
        "" => None,
        text => Some(text.parse().ok()?),
    };
    reader.is_empty().then_some(TagPointer { digest, media_type, checked: record.issued })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_survives_the_disk() {
        for media_type in [None, Some(MediaType::OciIndex)] {
            let pointer = TagPointer {
                digest: Digest::sha256(b"manifest"),
                media_type,
                checked: Timestamp::from_unix_seconds(5),
            };
            assert_eq!(decode(&encode(&pointer)), Some(pointer));
        }
        let empty = Record { issued: Timestamp::MIN, not_after: Timestamp::MAX, body: Vec::new() };
        assert_eq!(decode(&empty), None);
    }
}
