//! What is kept in memory between requests. Losing any of it costs time, never an answer; every map is bounded.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use moka::policy::EvictionPolicy;
use moka::sync::{Cache, CacheBuilder};
use tokio::time::Instant;

use super::discover::Discovered;
use super::manifest::UnverifiedManifest;
use super::referrers::Listed;
use super::verdict::{Basis, Extent};
use crate::clock::Timestamp;
use crate::limits::{
    GRANTS_REFRESH, HOT_ENTRIES_MAX, HOT_MANIFEST_BYTES_MAX, HOT_MATERIAL_BYTES_MAX, NEGATIVE_ENTRIES_MAX,
    NEGATIVE_TTL_MAX, REFERRERS_TTL,
};
use crate::oci::{Digest, Reference, Repository};
use crate::policy::Wanted;

/// The maps. Times are the product's clock, so that a test moves them.
#[derive(Debug)]
pub(super) struct Hot {
    manifests: Cache<(Repository, Digest), Arc<UnverifiedManifest>>,
    materials: Cache<LookedFor, Arc<Discovered>>,
    missing: Cache<(Repository, Reference), Timestamp>,
    granted: Cache<GrantedKey, Timestamp>,
    referrers: Cache<(Repository, Digest), (Timestamp, Listed)>,
    said: Cache<SaidOf, (Instant, Arc<HashSet<Digest>>)>,
}

impl Hot {
    pub(super) fn new() -> Self {
        Self {
            manifests: lru(HOT_MANIFEST_BYTES_MAX)
                .weigher(|_, manifest: &Arc<UnverifiedManifest>| weight(manifest.memory_bytes()))
                .build(),
            materials: lru(HOT_MATERIAL_BYTES_MAX)
                .weigher(|_, material: &Arc<Discovered>| weight(material.memory_bytes()))
                .build(),
            missing: lru(NEGATIVE_ENTRIES_MAX).build(),
            granted: lru(HOT_ENTRIES_MAX).build(),
            referrers: lru(HOT_MATERIAL_BYTES_MAX)
                .weigher(|_, (_, list): &(Timestamp, Listed)| weight(list.memory_bytes()))
                .build(),
            said: lru(HOT_MATERIAL_BYTES_MAX)
                .weigher(|_, (_, digests): &(Instant, Arc<HashSet<Digest>>)| {
                    weight(digests.len().saturating_mul(2 * size_of::<Digest>()))
                })
                .build(),
        }
    }

    /// A manifest that this repository has served to us, by digest.
    pub(super) fn manifest(&self, repository: &Repository, digest: &Digest) -> Option<Arc<UnverifiedManifest>> {
        self.manifests.get(&(repository.clone(), *digest))
    }

    pub(super) fn keep_manifest(&self, repository: &Repository, manifest: &Arc<UnverifiedManifest>) {
        self.manifests.insert((repository.clone(), *manifest.digest()), Arc::clone(manifest));
    }

    /// Signature material that upstream showed after `since`.
    pub(super) fn material(&self, looked_for: &LookedFor, since: Timestamp) -> Option<Arc<Discovered>> {
        self.materials.get(looked_for).filter(|material| material.at > since)
    }

    /// Unless a search that began later was faster.
    pub(super) fn keep_material(&self, looked_for: LookedFor, material: &Arc<Discovered>) {
        if self.materials.get(&looked_for).is_none_or(|known| known.began <= material.began) {
            self.materials.insert(looked_for, Arc::clone(material));
        }
    }

    /// Upstream has just said what lies at a place of signatures.
    pub(super) fn keep_said(&self, of: SaidOf, digests: Arc<HashSet<Digest>>) {
        self.said.insert(of, (Instant::now(), digests));
    }

    /// Whether upstream has said after `since` that one of these lies there no more.
    pub(super) fn has_lost<'a>(&self, of: &SaidOf, since: Instant, digests: impl Iterator<Item = &'a Digest>) -> bool {
        let said = self.said.get(of).filter(|(at, _)| *at >= since);
        said.is_some_and(|(_, there)| digests.into_iter().any(|digest| !there.contains(digest)))
    }

    /// Whether upstream said, at most 10 s before `now`, that it does not have it.
    pub(super) fn is_missing(&self, repository: &Repository, reference: &Reference, now: Timestamp) -> bool {
        let said = self.missing.get(&(repository.clone(), reference.clone()));
        said.is_some_and(|said| said <= now && now.since(said) < NEGATIVE_TTL_MAX)
    }

    pub(super) fn keep_missing(&self, repository: &Repository, reference: Reference, now: Timestamp) {
        self.missing.insert((repository.clone(), reference), now);
    }

    /// Whether what that admission grants was kept lately.
    pub(super) fn is_granted(&self, key: &GrantedKey, now: Timestamp) -> bool {
        let kept = self.granted.get(key);
        kept.is_some_and(|kept| kept <= now && now.since(kept) < GRANTS_REFRESH)
    }

    pub(super) fn keep_granted(&self, key: GrantedKey, now: Timestamp) {
        self.granted.insert(key, now);
    }

    /// After a grant was taken away: others on the same digest may have been crowded out by it, so all are kept anew.
    pub(super) fn forget_granted(&self) {
        self.granted.invalidate_all();
    }

    pub(super) fn referrers(&self, repository: &Repository, digest: &Digest, now: Timestamp) -> Option<Listed> {
        let (said, list) = self.referrers.get(&(repository.clone(), *digest))?;
        (said <= now && now.since(said) < REFERRERS_TTL).then_some(list)
    }

    pub(super) fn keep_referrers(&self, repository: &Repository, digest: &Digest, list: Listed, now: Timestamp) {
        self.referrers.insert((repository.clone(), *digest), (now, list));
    }
}

/// What discovery found depends on no more than this.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct LookedFor {
    pub(super) repository: Repository,
    pub(super) digest: Digest,
    pub(super) wanted: Wanted,
}

/// A place of signatures about which upstream has said what lies there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct SaidOf {
    pub(super) repository: Repository,
    pub(super) place: String,
}

/// What an admission grants depends on no more than this.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct GrantedKey {
    pub(super) basis: Basis,
    pub(super) digest: Digest,
    pub(super) extent: Extent,
    /// The policy's fingerprint.
    pub(super) policy: Digest,
}

/// Least recently used, not least frequently: what was kept just now must be found by the very next request.
fn lru<K: Eq + Hash + Send + Sync + 'static, V: Clone + Send + Sync + 'static>(
    max: u64,
) -> CacheBuilder<K, V, Cache<K, V>> {
    Cache::builder().max_capacity(max).eviction_policy(EvictionPolicy::lru())
}

/// A weight that moka understands; nothing weighs nothing.
fn weight(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX).max(256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r_06_a_million_names_that_strangers_choose_leave_a_bounded_trace() {
        let (hot, now) = (Hot::new(), Timestamp::from_unix_seconds(0));
        let repository = Repository::new("docker.io".parse().unwrap(), "team/app".parse().unwrap()).unwrap();
        for number in 0..1_000_000_u32 {
            hot.keep_missing(&repository, Reference::Tag(format!("t{number}").parse().unwrap()), now);
        }
        hot.missing.run_pending_tasks();
        assert_eq!(hot.missing.entry_count(), NEGATIVE_ENTRIES_MAX);
        let last = Reference::Tag("t999999".parse().unwrap());
        assert!(hot.is_missing(&repository, &last, now), "and what was kept last is there");
    }
}
