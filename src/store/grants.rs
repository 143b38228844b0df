//! Grants: (repository, digest) → what admits it.

use std::sync::{Arc, Mutex};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::lock;
use crate::limits::{GRANTS_PER_DIGEST_MAX, HOT_ENTRIES_MAX};
use crate::oci::{Digest, ImageReference, Repository};

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

/// All grants: in memory, above the database.
#[derive(Debug)]
pub(super) struct Grants {
    hot: Cache<(Repository, Digest), Arc<[Grant]>>,
    /// Held while a list is changed, never while anything is waited for.
    order: Mutex<()>,
}

impl Grants {
    pub(super) fn new() -> Self {
        // Least recently used, not least frequently: what was granted just now must be found by the very next request.
        let hot = Cache::builder().max_capacity(HOT_ENTRIES_MAX).eviction_policy(EvictionPolicy::lru()).build();
        Self { hot, order: Mutex::new(()) }
    }

    /// The grants of that digest in that repository, newest first.
    pub(super) async fn find(&self, repository: &Repository, digest: &Digest) -> Arc<[Grant]> {
        self.hot.get(&(repository.clone(), *digest)).unwrap_or_default()
    }

    /// Adds grants.
    pub(super) async fn put(&self, repository: &Repository, grants: Vec<(Digest, Grant)>) {
        let _held = lock(&self.order);
        for (digest, grant) in grants {
            let key = (repository.clone(), digest);
            let known = self.hot.get(&key).unwrap_or_default();
            self.hot.insert(key, merge(&known, grant).into());
        }
    }

    /// Takes away every grant on that digest that stems from `image`.
    pub(super) async fn revoke(&self, repository: &Repository, digest: &Digest, image: &ImageReference) {
        let _held = lock(&self.order);
        let key = (repository.clone(), *digest);
        let known = self.hot.get(&key).unwrap_or_default();
        self.hot.insert(key, known.iter().filter(|grant| grant.image != *image).cloned().collect());
    }
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
}
