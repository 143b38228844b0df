//! Verdicts by key, by id, and as a list; with their evidence.

use std::sync::{Arc, Mutex};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::evidence::EvidenceFiles;
use super::history::History;
use super::{Layout, StoredVerdict, VerdictFilter, VerdictId, VerdictKey, lock, off_thread};
use crate::limits::{HOT_ENTRIES_MAX, VERDICT_MATERIAL_MAX, VERDICT_TEXT_BYTES_MAX};
use crate::oci::Digest;
use crate::policy::Evidence;

/// All verdicts: in memory, above the database.
#[derive(Debug)]
pub(super) struct Decisions {
    /// `None`: known to be forgotten, whatever a look-up that is under way may bring.
    hot: Cache<VerdictKey, Option<Arc<StoredVerdict>>>,
    history: Mutex<History>,
    evidence: Arc<EvidenceFiles>,
}

impl Decisions {
    pub(super) fn new(layout: &Layout) -> Self {
        let hot = Cache::builder().max_capacity(HOT_ENTRIES_MAX).eviction_policy(EvictionPolicy::lru()).build();
        Self { hot, history: Mutex::new(History::default()), evidence: Arc::new(EvidenceFiles::new(layout)) }
    }

    /// The verdict of that key, current or not.
    pub(super) async fn find(&self, key: &VerdictKey) -> Option<Arc<StoredVerdict>> {
        self.hot.get(key).flatten()
    }

    /// Keeps a verdict. Text and material that are too long are cut, and then the material is not complete.
    pub(super) async fn put(&self, verdict: StoredVerdict, evidence: &Evidence) {
        let mut verdict = bounded(verdict);
        verdict.evidence = self.keep_evidence(evidence).await;
        let verdict = Arc::new(verdict);
        let orphans = {
            let mut history = lock(&self.history);
            self.hot.insert(verdict.key.clone(), Some(Arc::clone(&verdict)));
            history.insert(verdict)
        };
        self.remove_evidence(orphans).await;
    }

    pub(super) fn list(&self, filter: &VerdictFilter) -> Vec<Arc<StoredVerdict>> {
        lock(&self.history).list(filter)
    }

    /// One verdict by id, with its evidence.
    pub(super) async fn find_by_id(&self, id: &VerdictId) -> Option<(Arc<StoredVerdict>, Option<serde_json::Value>)> {
        let verdict = lock(&self.history).find(id)?;
        let evidence = match verdict.evidence {
            Some(digest) => self.read_evidence(digest).await,
            None => None,
        };
        Some((verdict, evidence))
    }

    /// Forgets a verdict; whether there was one.
    pub(super) async fn forget(&self, id: &VerdictId) -> bool {
        let (verdict, orphan) = lock(&self.history).remove(id);
        if let Some(verdict) = &verdict {
            self.hot.insert(verdict.key.clone(), None);
        }
        self.remove_evidence(orphan.into_iter().collect()).await;
        verdict.is_some()
    }

    async fn keep_evidence(&self, evidence: &Evidence) -> Option<Digest> {
        let content = serde_json::to_vec(&evidence.0).ok()?;
        let files = Arc::clone(&self.evidence);
        off_thread(move || files.put(content)).await.ok().flatten()
    }

    async fn read_evidence(&self, digest: Digest) -> Option<serde_json::Value> {
        let files = Arc::clone(&self.evidence);
        let content = off_thread(move || files.find(&digest)).await.ok().flatten()?;
        serde_json::from_slice(&content).ok()
    }

    async fn remove_evidence(&self, digests: Vec<Digest>) {
        if digests.is_empty() {
            return;
        }
        let files = Arc::clone(&self.evidence);
        if let Err(error) = off_thread(move || files.remove(&digests)).await {
            tracing::warn!(%error, "evidence could not be removed");
        }
    }
}

fn bounded(mut verdict: StoredVerdict) -> StoredVerdict {
    let end = verdict.text.floor_char_boundary(VERDICT_TEXT_BYTES_MAX);
    verdict.text.truncate(end);
    if verdict.material.len() > VERDICT_MATERIAL_MAX {
        verdict.material.truncate(VERDICT_MATERIAL_MAX);
        verdict.material_complete = false;
    }
    verdict
}
