//! Who signed what was decided about in audit mode, whoever the policy names: found out after the answer, for the verdict's record.
//!
//! No answer waits for it and none depends on it: it runs once a verdict, when the verdict is kept, on few of the upstream's
//! turns and for a bounded time. Then its record is amended: `signers`, `other_signatures`, and what could not be looked at. A
//! record without `signers` is one whose report never ended.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::discover::{Discovered, Keeping, NoEvidence};
use super::room::Level;
use super::verdict::Basis;
use super::{Puller, Snapshot};
use crate::limits::{
    DENIED_MATERIAL_BYTES_MAX, KIB, REPORT_DISCOVERY_BUDGET, REPORT_QUEUE_BYTES_MAX, REPORTS_AT_ONCE, VERDICT_BUDGET,
};
use crate::policy::{Decision, Evidence, ReportedMaterial, Skipped, Wanted};
use crate::store::StoredVerdict;
use crate::telemetry::ReportOutcome;

/// The places of those that wait, by the memory that they hold, and of those that run.
#[derive(Debug)]
pub(super) struct Reports {
    queue: Arc<Semaphore>,
    turns: Semaphore,
}

impl Reports {
    pub(super) fn new() -> Self {
        Self { queue: Arc::new(Semaphore::new(steps(REPORT_QUEUE_BYTES_MAX))), turns: Semaphore::new(REPORTS_AT_ONCE) }
    }

    /// A place for a report that holds on to so many bytes; none when too many wait.
    pub(super) fn place(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let steps = u32::try_from(steps(bytes).max(1)).ok()?;
        Arc::clone(&self.queue).try_acquire_many_owned(steps).ok()
    }
}

/// A report to be made.
#[derive(Debug)]
pub(super) struct Report {
    snapshot: Arc<Snapshot>,
    basis: Basis,
    decided_on: Option<Arc<Discovered>>,
    wished: Wanted,
    place: OwnedSemaphorePermit,
}

impl Puller {
    /// The report that a verdict is to have; none when nobody asks for one. What is not reported for want of room is said in
    /// `evidence`.
    pub(super) fn planned_report(
        &self,
        snapshot: &Arc<Snapshot>,
        basis: &Basis,
        decided_on: Option<Arc<Discovered>>,
        evidence: &mut Evidence,
    ) -> Option<Report> {
        let wished = snapshot.policy.wished(&basis.image, &basis.digest)?;
        let bytes = decided_on.as_ref().map_or(0, |found| u64::try_from(found.memory_bytes()).unwrap_or(u64::MAX));
        let Some(place) = self.parts.reports.place(bytes) else {
            self.parts.telemetry.report_not_made(&basis.image);
            let why = "too many images are being looked at for reports".to_owned();
            let nothing = Skipped { place: "all places".to_owned(), why };
            evidence.add_not_reported(&nothing);
            return None;
        };
        Some(Report { snapshot: Arc::clone(snapshot), basis: basis.clone(), decided_on, wished, place })
    }

    /// Makes it, in a task of its own.
    pub(super) fn report_later(&self, report: Report, verdict: Arc<StoredVerdict>) {
        let puller = self.clone();
        self.parts.tasks.spawn(async move { puller.report(report, &verdict).await });
    }

    /// Waits until all reports that are under way have ended, for those who ask about one image after the other and read its record
    /// at once: a verdict that is reached meanwhile may get none. Cancel safe.
    pub async fn reported(&self) {
        let all = u32::try_from(steps(REPORT_QUEUE_BYTES_MAX)).unwrap_or(u32::MAX);
        drop(self.parts.reports.queue.acquire_many(all).await);
    }

    async fn report(&self, report: Report, verdict: &StoredVerdict) {
        let Report { snapshot, basis, decided_on, wished, place } = report;
        let Ok(_turn) = self.parts.reports.turns.acquire().await else { return };
        // Whoever shuts down waits for those that run, not for those that wait.
        if self.parts.tasks.is_closed() {
            return;
        }
        let deadline = Instant::now() + REPORT_DISCOVERY_BUDGET;
        let held = self.discover_by((Level::Report, deadline), &snapshot, &basis, &wished).await;
        let found = &held.found;
        let id = verdict.key.id();
        let Some((known, Some(evidence))) = self.parts.store.verdict_by_id(&id).await else {
            return self.parts.telemetry.report_ended(ReportOutcome::Outdated);
        };
        if known.issued != verdict.issued {
            return self.parts.telemetry.report_ended(ReportOutcome::Outdated);
        }
        let deadline = Instant::now() + VERDICT_BUDGET;
        let now = self.parts.clock.now();
        let work = {
            let (found, decided_on, digest) = (Arc::clone(found), decided_on.clone(), basis.digest);
            move || {
                let mut evidence = Evidence(evidence);
                let decided_on = decided_on.as_deref().map(|found| reported(found, true));
                let all: Vec<_> = decided_on.into_iter().chain([reported(&found, false)]).collect();
                snapshot.policy.report(&mut evidence, &digest, &all, now);
                evidence
            }
        };
        let Ok(evidence) = self.parts.workers.judge(deadline, work).await else {
            let image = &basis.image;
            tracing::warn!(%image, "who signed it could not be reported: verifying it failed inside sealgate");
            return self.parts.telemetry.report_ended(ReportOutcome::Failed);
        };
        let bytes = decided_on.iter().map(|found| found.material_bytes()).sum::<u64>();
        let bytes = bytes.saturating_add(found.material_bytes());
        let mut amended = StoredVerdict::clone(&known);
        if is_worth_keeping(verdict.decision, bytes) {
            self.keep_material(&basis.digest, found, Keeping::Report).await;
            let more = found.manifest_digests().into_iter().filter(|digest| !known.material.contains(digest));
            amended.material.extend(more);
            amended.material_complete &= found.unread().is_none() && !found.material.more;
        }
        self.parts.store.amend_verdict(amended, &evidence).await;
        self.parts.telemetry.report_ended(ReportOutcome::Done);
        drop(place);
    }
}

/// An allow is verified again from its material while upstream is away. Of a denial it tells what another policy would say,
/// for which nobody's spam may crowd out the cache.
pub(super) fn is_worth_keeping(decision: Decision, bytes: u64) -> bool {
    decision == Decision::Allow || bytes <= DENIED_MATERIAL_BYTES_MAX
}

fn reported(found: &Discovered, is_decided_on: bool) -> ReportedMaterial<'_> {
    let missing = found.missing.as_ref();
    let missing = missing.map(|NoEvidence { looked_for, cause }| Skipped {
        place: looked_for.clone(),
        why: format!("it could not be read: {cause}"),
    });
    ReportedMaterial { material: &found.material, is_decided_on, missing }
}

fn steps(bytes: u64) -> usize {
    usize::try_from(bytes.div_ceil(STEP)).unwrap_or(usize::MAX)
}

/// What a waiting report counts for at least, and the unit in which more is counted.
const STEP: u64 = 64 * KIB;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn material_of_a_denial_is_kept_up_to_its_bound_and_of_an_allow_always() {
        for bytes in [DENIED_MATERIAL_BYTES_MAX, DENIED_MATERIAL_BYTES_MAX + 1] {
            assert!(is_worth_keeping(Decision::Allow, bytes));
            assert_eq!(is_worth_keeping(Decision::Deny, bytes), bytes == DENIED_MATERIAL_BYTES_MAX);
        }
    }

    #[test]
    fn as_many_reports_wait_as_have_room() {
        let reports = Reports::new();
        let most: Vec<_> = (0..steps(REPORT_QUEUE_BYTES_MAX)).map_while(|_| reports.place(0)).collect();
        assert_eq!(most.len(), steps(REPORT_QUEUE_BYTES_MAX));
        assert!(reports.place(1).is_none());
        drop(most);
        assert!(reports.place(REPORT_QUEUE_BYTES_MAX + 1).is_none());
        let all = reports.place(REPORT_QUEUE_BYTES_MAX);
        assert!(all.is_some() && reports.place(1).is_none());
    }
}
