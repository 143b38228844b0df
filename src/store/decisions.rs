//! Verdicts by key, by id, and as a list; with their evidence.

use std::sync::{Arc, Mutex};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::evidence::EvidenceFiles;
use super::history::History;
use super::record::{Codec, Found, Kind, RecordKey, verdict_key};
use super::records::{Lookup, Records};
use super::verdict::Place;
use super::{Forgotten, Layout, StoredVerdict, VerdictFilter, VerdictId, VerdictKey, lock, off_thread};
use crate::clock::{Clock, Timestamp};
use crate::limits::{
    HOT_ENTRIES_MAX, VERDICT_MATERIAL_MAX, VERDICT_RETENTION, VERDICT_STORE_CLOSE, VERDICT_STORE_PAGE,
    VERDICT_STORE_PAGE_RECORDS, VERDICT_TEXT_BYTES_MAX,
};
use crate::oci::Digest;
use crate::policy::Evidence;
use crate::telemetry::StoreOp;

/// All verdicts: in memory, above the database.
#[derive(Debug)]
pub(super) struct Decisions {
    /// `None`: known to be forgotten, whatever a look-up that is under way may bring.
    hot: Cache<VerdictKey, Option<Arc<StoredVerdict>>>,
    history: Mutex<History>,
    evidence: Arc<EvidenceFiles>,
    records: Records,
    clock: Clock,
}

impl Decisions {
    pub(super) fn new(layout: &Layout, records: Records, clock: Clock) -> Self {
        let hot = Cache::builder().max_capacity(HOT_ENTRIES_MAX).eviction_policy(EvictionPolicy::lru()).build();
        let evidence = Arc::new(EvidenceFiles::new(layout));
        Self { hot, history: Mutex::new(History::default()), evidence, records, clock }
    }

    /// The verdict of that key, current or not.
    pub(super) async fn find(&self, key: &VerdictKey) -> Option<Arc<StoredVerdict>> {
        if let Some(known) = self.hot.get(key) {
            return known;
        }
        let (record_key, owned) = (RecordKey::verdict(key), key.clone());
        let found = self.records.find(move |database| {
            Ok(database.find(&record_key)?.and_then(|record| StoredVerdict::of_record(owned, &record)))
        });
        let verdict = self.with_material(found.await.found()?).await;
        // What was put or forgotten meanwhile is newer.
        self.hot.entry_by_ref(key).or_insert_with(|| Some(Arc::new(verdict))).into_value()
    }

    /// Keeps a verdict. Text and material that are too long are cut, and then the material is not complete.
    pub(super) async fn put(&self, verdict: StoredVerdict, evidence: &Evidence) {
        let mut verdict = bounded(verdict);
        verdict.evidence = self.keep_evidence(&verdict, evidence).await;
        let orphans = self.enter(&mut lock(&self.history), verdict);
        self.remove_evidence(orphans).await;
    }

    /// Replaces a verdict by the same one with other evidence and material, unless it is gone or another of its key is there.
    pub(super) async fn amend(&self, verdict: StoredVerdict, evidence: &Evidence) {
        let mut verdict = bounded(verdict);
        let Some(digest) = self.keep_evidence(&verdict, evidence).await else { return };
        verdict.evidence = Some(digest);
        let orphans = {
            let mut history = lock(&self.history);
            let known = history.find(verdict.key.id());
            if known.is_some_and(|known| known.issued == verdict.issued && known.decision == verdict.decision) {
                self.enter(&mut history, verdict)
            } else if history.evidence().any(|other| other == digest) {
                Vec::new()
            } else {
                vec![digest]
            }
        };
        self.remove_evidence(orphans).await;
    }

    /// One lock for all three places, so that they agree on which of two verdicts came last; the evidence that nobody points at
    /// any more.
    fn enter(&self, history: &mut History, verdict: StoredVerdict) -> Vec<Digest> {
        let key = RecordKey::verdict(&verdict.key);
        let record = verdict.to_record(Codec::body_bytes_max(&key));
        let verdict = Arc::new(verdict);
        self.hot.insert(verdict.key.clone(), Some(Arc::clone(&verdict)));
        self.records.write(StoreOp::Put, move |database| database.put(&[(key, record)]));
        history.insert(verdict)
    }

    pub(super) fn list(&self, filter: &VerdictFilter) -> Vec<Arc<StoredVerdict>> {
        lock(&self.history).list(filter)
    }

    /// One verdict by id, with its evidence, and its material also where that is listed in the evidence file alone.
    pub(super) async fn find_by_id(&self, id: &VerdictId) -> Option<(Arc<StoredVerdict>, Option<Value>)> {
        let listed = lock(&self.history).find(*id);
        let verdict = match listed {
            Some(verdict) => verdict,
            None => Arc::new(self.stored(id).await?),
        };
        let document = match verdict.evidence {
            Some(digest) => self.read_evidence(digest).await,
            None => None,
        };
        let Some(mut document) = document else { return Some((verdict, None)) };
        // What was listed from the database has no more than its record.
        let is_elsewhere = verdict.material.is_empty() && !verdict.material_complete;
        let verdict = if is_elsewhere {
            Arc::new(with_listed_material(StoredVerdict::clone(&verdict), &document))
        } else {
            verdict
        };
        Some((verdict, document.get_mut(EVIDENCE).map(Value::take)))
    }

    /// Forgets a verdict. Waits until the database has forgotten it too.
    pub(super) async fn forget(&self, id: &VerdictId) -> Forgotten {
        let (listed, wanted) = (lock(&self.history).find(*id), *id);
        let key = match listed {
            Some(verdict) => verdict.key.clone(),
            // Also one that memory has forgotten before, when the database gave no answer.
            None => match self.records.find(move |database| database.find_verdict(wanted)).await {
                Lookup::Found(found) => match verdict_key(&found.echo) {
                    Some(key) => key,
                    None => return Forgotten::Unknown,
                },
                Lookup::Absent => return Forgotten::Unknown,
                Lookup::Unknown => return Forgotten::NoAnswer,
            },
        };
        let orphan = {
            let mut history = lock(&self.history);
            self.hot.insert(key.clone(), None);
            history.remove(*id).1
        };
        let record_key = RecordKey::verdict(&key);
        let removed =
            self.records.ask(StoreOp::Delete, VERDICT_STORE_CLOSE, move |database| database.remove(&record_key));
        let is_gone = removed.await.is_some() || !self.records.is_kept();
        self.remove_evidence(orphan.into_iter().collect()).await;
        if is_gone { Forgotten::Gone } else { Forgotten::NoAnswer }
    }

    /// Goes through all records: lists verdicts, removes what is too old, counts. Stops at `stop`.
    pub(super) async fn sweep(&self, stop: &CancellationToken) {
        let mut from = Vec::new();
        let (mut seen, mut kept): (usize, usize) = (0, 0);
        loop {
            if stop.is_cancelled() {
                return;
            }
            let now = self.clock.now();
            let page = self.records.ask(StoreOp::Get, VERDICT_STORE_PAGE, move |database| {
                database.page(&from, VERDICT_STORE_PAGE_RECORDS, |found| is_kept(found, now))
            });
            // No database, or none that answers: next time.
            let Some(page) = page.await else { return };
            seen = seen.saturating_add(page.seen);
            kept = kept.saturating_add(page.found.len());
            let orphans = page.found.iter().flat_map(|found| self.list_stored(found)).collect();
            self.remove_evidence(orphans).await;
            match page.next {
                Some(next) => from = next,
                None => break,
            }
        }
        self.swept(seen, kept).await;
    }

    async fn swept(&self, seen: usize, kept: usize) {
        let [seen, kept] = [seen, kept].map(|count| u64::try_from(count).unwrap_or(u64::MAX));
        let counted = self.records.ask(StoreOp::Get, VERDICT_STORE_PAGE, move |database| {
            database.counted(kept);
            Ok(())
        });
        if counted.await.is_none() {
            return;
        }
        if let Some(lost) = self.records.count_ended(seen) {
            tracing::warn!(verdict_store_records_lost = lost, "the verdict database lost records; they are made anew");
        }
        self.records.report();
        let evidence = Arc::clone(&self.evidence);
        let wanted: std::collections::HashSet<Digest> = lock(&self.history).evidence().collect();
        match off_thread(move || evidence.sweep(|digest| wanted.contains(digest))).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) | Err(error) => tracing::warn!(%error, "old evidence could not be removed"),
        }
    }

    /// Lists a verdict found in the database; the evidence that nobody points at any more.
    fn list_stored(&self, found: &Found) -> Vec<Digest> {
        let read = || StoredVerdict::of_record(verdict_key(&found.echo)?, &found.record);
        match (found.kind, read()) {
            (Kind::Verdict, Some((verdict, _))) => {
                let mut history = lock(&self.history);
                // What was entered since is at least as new, also when it is the same verdict: it may have been amended.
                let known = history.find(verdict.key.id());
                let is_listed = known.is_some_and(|known| known.issued >= verdict.issued);
                if is_listed || self.hot.get(&verdict.key) == Some(None) {
                    return Vec::new();
                }
                history.insert(Arc::new(verdict))
            }
            _ => Vec::new(),
        }
    }

    async fn stored(&self, id: &VerdictId) -> Option<StoredVerdict> {
        let wanted = *id;
        let found = self.records.find(move |database| database.find_verdict(wanted)).await.found()?;
        let key = verdict_key(&found.echo)?;
        if self.hot.get(&key) == Some(None) {
            return None;
        }
        Some(self.with_material(StoredVerdict::of_record(key, &found.record)?).await)
    }

    /// Completes a verdict whose list of material was too long for its record.
    async fn with_material(&self, (mut verdict, place): (StoredVerdict, Place)) -> StoredVerdict {
        if place == Place::Evidence
            && let Some(digest) = verdict.evidence
            && let Some(document) = self.read_evidence(digest).await
        {
            verdict = with_listed_material(verdict, &document);
        }
        verdict
    }

    async fn keep_evidence(&self, verdict: &StoredVerdict, evidence: &Evidence) -> Option<Digest> {
        let material: Vec<String> = verdict.material.iter().map(Digest::to_string).collect();
        let document = json!({ EVIDENCE: evidence.0, MATERIAL: material, COMPLETE: verdict.material_complete });
        let files = Arc::clone(&self.evidence);
        off_thread(move || files.put(serde_json::to_vec(&document).ok()?)).await.ok().flatten()
    }

    async fn read_evidence(&self, digest: Digest) -> Option<Value> {
        let files = Arc::clone(&self.evidence);
        off_thread(move || serde_json::from_slice(&files.find(&digest)?).ok()).await.ok().flatten()
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

/// Whether a record stays; verdicts stay beyond their end, to be reached again offline and to be listed.
pub(super) fn is_kept(found: &Found, now: Timestamp) -> bool {
    match found.kind {
        // Nothing of another verifier can be hit any more.
        Kind::Verdict if verdict_key(&found.echo).is_none() => false,
        Kind::Verdict => now <= found.record.not_after.plus(VERDICT_RETENTION),
        Kind::Grants | Kind::Tag | Kind::MediaType | Kind::Referrers | Kind::Lookaside => now <= found.record.not_after,
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

/// The verdict with the material that its evidence file lists.
pub(super) fn with_listed_material(mut verdict: StoredVerdict, document: &Value) -> StoredVerdict {
    if let Some(material) = listed_material(document) {
        verdict.material = material;
        verdict.material_complete = document.get(COMPLETE) == Some(&Value::Bool(true));
    }
    verdict
}

fn listed_material(document: &Value) -> Option<Vec<Digest>> {
    document.get(MATERIAL)?.as_array()?.iter().map(|digest| digest.as_str()?.parse().ok()).collect()
}

const EVIDENCE: &str = "evidence";
const MATERIAL: &str = "material";
const COMPLETE: &str = "material_complete";

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::clock::ManualClock;
    use crate::policy::Decision;
    use crate::store::testing::verdict;
    use crate::store::{Settings, Store};
    use crate::telemetry::Telemetry;

    async fn open(dir: &Path) -> Store {
        let clock = ManualClock::at(Timestamp::from_unix_seconds(1));
        let settings = Settings { data_dir: Some(dir.to_owned()), max_bytes: 1 << 30, min_free_bytes: 0 };
        Store::open(settings, Clock::Manual(clock), Telemetry::default()).await.unwrap()
    }

    fn evidence(text: &str) -> Evidence {
        Evidence(json!({ "text": text }))
    }

    async fn shown(store: &Store, id: &VerdictId) -> Option<Value> {
        store.verdict_by_id(id).await.and_then(|(_, evidence)| evidence).map(|evidence| evidence["text"].clone())
    }

    #[tokio::test]
    async fn a_record_is_amended_while_it_is_that_very_verdicts_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        let first = verdict("quay.io/a/b:1", Decision::Deny, 1);
        let (id, material) = (first.key.id(), vec![Digest::sha256(b"manifest")]);
        store.put_verdict(first.clone(), &evidence("first")).await;
        let amended = StoredVerdict { material: material.clone(), ..first.clone() };
        store.amend_verdict(amended.clone(), &evidence("amended")).await;
        assert_eq!(shown(&store, &id).await.unwrap(), "amended");
        assert_eq!(store.verdict_any_age(&first.key).await.unwrap().material, material);

        // Another one of its key stays as it is.
        let second = StoredVerdict { issued: first.issued.plus(Duration::from_mins(1)), ..first };
        store.put_verdict(second.clone(), &evidence("second")).await;
        store.amend_verdict(amended.clone(), &evidence("too late")).await;
        assert_eq!(shown(&store, &id).await.unwrap(), "second");
        // What its evidence has in common with others is not taken away.
        store.amend_verdict(amended.clone(), &evidence("second")).await;
        assert_eq!(shown(&store, &id).await.unwrap(), "second");

        // A forgotten one does not come back.
        assert_eq!(store.forget_verdict(&id).await, Forgotten::Gone);
        store.amend_verdict(second, &evidence("never")).await;
        assert!(store.verdict_by_id(&id).await.is_none());
        let files = walk(&dir.path().join("evidence"));
        assert_eq!(files, 0, "no evidence without its verdict");
    }

    #[tokio::test]
    async fn an_amended_record_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        let verdict = verdict("quay.io/a/b:1", Decision::Allow, 1);
        store.put_verdict(verdict.clone(), &evidence("first")).await;
        store.amend_verdict(verdict.clone(), &evidence("amended")).await;
        store.close().await;
        drop(store);
        let store = open(dir.path()).await;
        assert_eq!(shown(&store, &verdict.key.id()).await.unwrap(), "amended");
    }

    #[tokio::test]
    async fn a_record_read_before_it_was_amended_does_not_take_the_place_of_the_amended_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        let verdict = verdict("quay.io/a/b:1", Decision::Allow, 1);
        store.put_verdict(verdict.clone(), &evidence("first")).await;
        let decisions = &store.inner.decisions;
        let records = &decisions.records;
        let page = records.ask(StoreOp::Get, VERDICT_STORE_PAGE, |database| database.page(&[], 10, |_| true)).await;
        let page = page.unwrap();
        assert_eq!(page.found.len(), 1);

        store.amend_verdict(verdict.clone(), &evidence("amended")).await;
        let orphans: Vec<Digest> = page.found.iter().flat_map(|found| decisions.list_stored(found)).collect();
        assert_eq!(orphans, []);
        assert_eq!(shown(&store, &verdict.key.id()).await.unwrap(), "amended");
    }

    #[tokio::test]
    async fn a_verdict_that_the_database_may_bring_back_is_not_called_gone_and_goes_when_it_is_asked_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        let verdict = verdict("quay.io/a/b:1", Decision::Allow, 1);
        let id = verdict.key.id();
        store.put_verdict(verdict.clone(), &evidence("first")).await;
        let records = &store.inner.decisions.records;
        records.write(StoreOp::Put, |_| Err(crate::store::verdicts::DatabaseError::from_fault()));
        assert_eq!(store.forget_verdict(&id).await, Forgotten::NoAnswer);
        assert_eq!(store.verdict_any_age(&verdict.key).await, None, "memory knows");
        assert_eq!(store.forget_verdict(&id).await, Forgotten::NoAnswer);
        store.close().await;
        drop(store);

        let store = open(dir.path()).await;
        assert!(store.verdict_any_age(&verdict.key).await.is_some());
        // As when the database comes back while the process goes on.
        let decisions = &store.inner.decisions;
        lock(&decisions.history).remove(id);
        decisions.hot.insert(verdict.key.clone(), None);
        assert_eq!(store.forget_verdict(&id).await, Forgotten::Gone);
        assert_eq!(store.forget_verdict(&id).await, Forgotten::Unknown);
        store.close().await;
        drop(store);
        assert_eq!(open(dir.path()).await.verdict_any_age(&verdict.key).await, None);
    }

    fn walk(directory: &Path) -> usize {
        let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| if path.is_dir() { walk(&path) } else { 1 }).sum()
    }
}
