//! Grants: (repository, digest) → what admits it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::lock;
use super::record::{Codec, Reader, Record, RecordKey, Writer};
use super::records::{Lookup, Records};
use super::verdicts::{Database, DatabaseError};
use crate::clock::{Clock, Timestamp};
use crate::limits::{
    GRANT_RETENTION, GRANTS_PER_DIGEST_MAX, GRANTS_READ, HOT_ENTRIES_MAX, NEGATIVE_ENTRIES_MAX, NEGATIVE_TTL_MAX,
};
use crate::oci::{Digest, ImageReference, Repository};
use crate::telemetry::StoreOp;

/// The right to fetch something by digest from one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Of what kind.
    pub kind: GrantKind,
    /// Size in bytes, as the admitting manifest states it.
    pub size: u64,
    /// The admitting manifest.
    pub admitting: Digest,
    /// The request that was admitted: its verdict is the one behind this grant.
    pub image: ImageReference,
}

/// What a grant is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GrantKind {
    /// The manifest that an admitted tag points at.
    Manifest,
    /// A child of an admitted index.
    Child,
    /// A config or layer of an admitted manifest.
    Blob,
    /// A signature artefact, or a blob of one; needs no verdict.
    Artefact,
}

impl GrantKind {
    const ALL: [Self; 4] = [Self::Manifest, Self::Child, Self::Blob, Self::Artefact];

    /// Never change a number: it is on disk.
    const fn code(self) -> u8 {
        match self {
            Self::Manifest => 1,
            Self::Child => 2,
            Self::Blob => 3,
            Self::Artefact => 4,
        }
    }
}

/// All grants: in memory, above the database.
#[derive(Debug)]
pub(super) struct Grants {
    hot: Cache<Key, Arc<[Grant]>>,
    /// Looked up and not there, a little while ago. Apart, so that guessing digests does not push out what is granted.
    absent: Cache<Key, ()>,
    /// Held while a list is changed, never while anything is waited for.
    order: Mutex<()>,
    records: Records,
    clock: Clock,
}

type Key = (Repository, Digest);

impl Grants {
    pub(super) fn new(records: Records, clock: Clock) -> Self {
        // Least recently used, not least frequently: what was granted just now must be found by the very next request.
        let hot = Cache::builder().max_capacity(HOT_ENTRIES_MAX).eviction_policy(EvictionPolicy::lru()).build();
        let absent = Cache::builder().max_capacity(NEGATIVE_ENTRIES_MAX).time_to_live(NEGATIVE_TTL_MAX).build();
        Self { hot, absent, order: Mutex::new(()), records, clock }
    }

    /// The grants of that digest in that repository, newest first; `None`: the database gave no answer in time.
    pub(super) async fn find(&self, repository: &Repository, digest: &Digest) -> Option<Arc<[Grant]>> {
        let key = (repository.clone(), *digest);
        if let Some(known) = self.hot.get(&key) {
            return Some(known);
        }
        if self.absent.contains_key(&key) {
            return Some(Arc::default());
        }
        let owner = repository.clone();
        let record_key = RecordKey::grants(repository, digest);
        let found = self
            .records
            .find(move |database| Ok(database.find(&record_key)?.map(|record| decode(&owner, &record.body))));
        match found.await {
            Lookup::Found(grants) => {
                let _held = lock(&self.order);
                // What was put or revoked meanwhile is newer.
                Some(self.hot.entry(key).or_insert_with(|| grants.into()).into_value())
            }
            Lookup::Absent => {
                self.absent.insert(key.clone(), ());
                // Put meanwhile?
                Some(self.hot.get(&key).unwrap_or_default())
            }
            Lookup::Unknown => self.hot.get(&key),
        }
    }

    /// Adds grants, all at once.
    pub(super) async fn put(&self, repository: &Repository, grants: Vec<(Digest, Grant)>) {
        let mut stored = self.stored(repository, grants.iter().map(|(digest, _)| *digest).collect()).await;
        let _held = lock(&self.order);
        for (digest, grant) in &grants {
            let key = (repository.clone(), *digest);
            let known = self.hot.get(&key).or_else(|| stored.remove(digest).map(Arc::from)).unwrap_or_default();
            self.absent.invalidate(&key);
            self.hot.insert(key, merge(&known, grant.clone()).into());
        }
        // In the database the lists are merged again: what is in memory may be less than what lies there.
        let (owner, now) = (repository.clone(), self.clock.now());
        self.records.write(StoreOp::Put, move |database| {
            let mut changed: BTreeMap<Digest, Vec<Grant>> = BTreeMap::new();
            for (digest, grant) in grants {
                let known = match changed.remove(&digest) {
                    Some(known) => known,
                    None => read(database, &owner, &digest)?,
                };
                changed.insert(digest, merge(&known, grant));
            }
            let records: Vec<_> =
                changed.into_iter().map(|(digest, grants)| to_record(&owner, &digest, grants, now)).collect();
            database.put(&records)
        });
    }

    /// Takes away every grant on that digest that stems from `image`.
    pub(super) async fn revoke(&self, repository: &Repository, digest: &Digest, image: &ImageReference) {
        let mut stored = self.stored(repository, vec![*digest]).await;
        let _held = lock(&self.order);
        let key = (repository.clone(), *digest);
        let known = self.hot.get(&key).or_else(|| stored.remove(digest).map(Arc::from)).unwrap_or_default();
        self.hot.insert(key, known.iter().filter(|grant| grant.image != *image).cloned().collect());
        let (owner, digest, image, now) = (repository.clone(), *digest, image.clone(), self.clock.now());
        self.records.write(StoreOp::Delete, move |database| {
            let mut grants = read(database, &owner, &digest)?;
            let before = grants.len();
            grants.retain(|grant| grant.image != image);
            if grants.is_empty() {
                database.remove(&RecordKey::grants(&owner, &digest)).map(|_| ())
            } else if grants.len() < before {
                database.put(&[to_record(&owner, &digest, grants, now)])
            } else {
                Ok(())
            }
        });
    }

    /// What the database has of the lists that are not in memory. Without an answer in time: nothing, and then memory
    /// knows less than the disk, which costs time when it is asked.
    async fn stored(&self, repository: &Repository, mut digests: Vec<Digest>) -> HashMap<Digest, Vec<Grant>> {
        digests.retain(|digest| !self.hot.contains_key(&(repository.clone(), *digest)));
        if digests.is_empty() {
            return HashMap::new();
        }
        let owner = repository.clone();
        let stored = self.records.ask(StoreOp::Get, GRANTS_READ, move |database| {
            digests.into_iter().map(|digest| Ok((digest, read(database, &owner, &digest)?))).collect()
        });
        stored.await.unwrap_or_default()
    }
}

fn read(database: &Database, repository: &Repository, digest: &Digest) -> Result<Vec<Grant>, DatabaseError> {
    let record = database.find(&RecordKey::grants(repository, digest))?;
    Ok(record.map(|record| decode(repository, &record.body)).unwrap_or_default())
}

fn to_record(repository: &Repository, digest: &Digest, grants: Vec<Grant>, now: Timestamp) -> (RecordKey, Record) {
    let key = RecordKey::grants(repository, digest);
    let body = encode(repository, grants, Codec::body_bytes_max(&key));
    (key, Record { issued: now, not_after: now.plus(GRANT_RETENTION), body })
}

/// At most `bytes_max` bytes; what does not fit is dropped as by [`merge`].
fn encode(repository: &Repository, mut grants: Vec<Grant>, bytes_max: usize) -> Vec<u8> {
    loop {
        let mut writer = Writer::default();
        for grant in &grants {
            writer.byte(grant.kind.code());
            writer.number(grant.size);
            writer.digest(&grant.admitting);
            if grant.image.repository == *repository {
                writer.byte(SAME_REPOSITORY);
                writer.reference(&grant.image.reference);
            } else {
                writer.byte(OTHER_REPOSITORY);
                writer.image(&grant.image);
            }
        }
        if writer.0.len() <= bytes_max {
            return writer.0;
        }
        drop_least(&mut grants);
    }
}

/// As many as are whole.
fn decode(repository: &Repository, body: &[u8]) -> Vec<Grant> {
    let mut reader = Reader(body);
    let next = || decode_one(repository, &mut reader);
    std::iter::from_fn(next).take(GRANTS_PER_DIGEST_MAX).collect()
}

fn decode_one(repository: &Repository, reader: &mut Reader<'_>) -> Option<Grant> {
    let code = reader.byte()?;
    Some(Grant {
        kind: GrantKind::ALL.into_iter().find(|kind| kind.code() == code)?,
        size: reader.number()?,
        admitting: reader.digest()?,
        image: match reader.byte()? {
            SAME_REPOSITORY => ImageReference::new(repository.clone(), reader.reference()?),
            OTHER_REPOSITORY => reader.image()?,
            _ => return None,
        },
    })
}

/// `known` with `new` in front, newest first and bounded.
///
/// A grant of the same image, admitting manifest and kind is replaced. When there are too many, artefact grants go
/// before others, old before new: an artefact grant never displaces one that has a verdict behind it.
pub(super) fn merge(known: &[Grant], new: Grant) -> Vec<Grant> {
    let same = |grant: &Grant| grant.kind == new.kind && grant.admitting == new.admitting && grant.image == new.image;
    let rest: Vec<Grant> = known.iter().filter(|grant| !same(grant)).cloned().collect();
    let mut merged: Vec<Grant> = std::iter::once(new).chain(rest).collect();
    while merged.len() > GRANTS_PER_DIGEST_MAX {
        drop_least(&mut merged);
    }
    merged
}

/// Drops the oldest artefact grant, or else the oldest grant.
pub(super) fn drop_least(grants: &mut Vec<Grant>) {
    match grants.iter().rposition(|grant| grant.kind == GrantKind::Artefact) {
        Some(place) => drop(grants.remove(place)),
        None => drop(grants.pop()),
    }
}

const SAME_REPOSITORY: u8 = 1;
const OTHER_REPOSITORY: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(kind: GrantKind, tag: usize) -> Grant {
        let image = format!("quay.io/a/b:{tag}").parse().unwrap();
        Grant { kind, size: 1, admitting: Digest::sha256(b"manifest"), image }
    }

    fn all(kind: GrantKind, tags: std::ops::Range<usize>) -> Vec<Grant> {
        tags.fold(Vec::new(), |known, tag| merge(&known, grant(kind, tag)))
    }

    #[test]
    fn the_newest_is_first_and_the_oldest_goes() {
        let fits = all(GrantKind::Blob, 0..GRANTS_PER_DIGEST_MAX);
        assert_eq!((fits.len(), fits.last()), (GRANTS_PER_DIGEST_MAX, Some(&grant(GrantKind::Blob, 0))));
        let full = merge(&fits, grant(GrantKind::Blob, 100));
        assert_eq!((full.len(), full.first()), (GRANTS_PER_DIGEST_MAX, Some(&grant(GrantKind::Blob, 100))));
        assert_eq!(full.last(), Some(&grant(GrantKind::Blob, 1)));
    }

    #[test]
    fn the_same_grant_is_kept_once_with_its_newest_size() {
        let newer = Grant { size: 2, ..grant(GrantKind::Blob, 0) };
        let merged = merge(&all(GrantKind::Blob, 0..2), newer.clone());
        assert_eq!(merged, [newer, grant(GrantKind::Blob, 1)]);
        let other_kind = merge(&merged, grant(GrantKind::Child, 0));
        assert_eq!(other_kind.len(), 3);
    }

    #[test]
    fn an_artefact_grant_displaces_no_other() {
        let full = all(GrantKind::Blob, 0..GRANTS_PER_DIGEST_MAX);
        assert_eq!(merge(&full, grant(GrantKind::Artefact, 100)), full);
        let mut mixed = full.clone();
        mixed[3] = grant(GrantKind::Artefact, 3);
        let merged = merge(&mixed, grant(GrantKind::Blob, 100));
        assert!(merged.iter().all(|grant| grant.kind == GrantKind::Blob), "{merged:?}");
        assert_eq!(merged.len(), GRANTS_PER_DIGEST_MAX);
    }

    #[test]
    fn grants_survive_the_disk() {
        let mut grants = all(GrantKind::Child, 0..3);
        grants[1].image = format!("docker.io/c/d@{}", Digest::sha256(b"x")).parse().unwrap();
        grants[2].kind = GrantKind::Artefact;
        let repository = grants[0].image.repository.clone();
        assert_eq!(decode(&repository, &encode(&repository, grants.clone(), 1000)), grants);
        let few = decode(&repository, &encode(&repository, grants.clone(), 160));
        assert_eq!(few, grants[..2]);
        assert_eq!(decode(&repository, &[1, 2, 3]), []);
    }

    #[test]
    fn a_full_list_of_ordinary_grants_fits_into_a_record() {
        let grants = all(GrantKind::Blob, 0..GRANTS_PER_DIGEST_MAX);
        let repository = grants[0].image.repository.clone();
        let (key, record) = to_record(&repository, &Digest::sha256(b"layer"), grants.clone(), Timestamp::MIN);
        assert_eq!(decode(&repository, &record.body), grants);
        assert!(Codec::new(&[1; 32]).seal(&key, &record).is_some());
    }
}
