//! Verdicts: the raw policy answer on one digest under one reference, from the store or reached now.
//!
//! What is reached here knows nothing of audit mode and exemptions; [`Puller::standing`] applies them each time an answer is
//! read, so that they end when they end. No answer ([`Unreached`]) is never stored and never admits by itself.

use std::sync::Arc;

use tokio::time::Instant;

use super::cold::Novelty;
use super::discover::{Discovered, Held, Keeping, NoEvidence};
use super::report::is_worth_keeping;
use super::room::Level;
use super::size::TooLarge;
use super::workers::Unjudged;
use super::{Denial, Hindrance, PullError, Puller, Snapshot};
use crate::clock::Timestamp;
use crate::limits::{DISCOVERY_BUDGET, REFUSAL_LINE_BYTES_MAX, REPORT_DISCOVERY_BUDGET, VERDICT_BUDGET};
use crate::oci::{Digest, ImageReference};
use crate::policy::{Decision, Evidence, Material, Mode, NoAnswer, Plan, Reason, RestsOn, Verdict, Wanted};
use crate::store::{StoredVerdict, VerdictId, VerdictKey};
use crate::telemetry::{DecisionLabel, OverloadBound, VerifySource};
use crate::upstream::UpstreamError;

/// What an admission rests on: the request, and the digest that was judged under it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Basis {
    pub(super) image: ImageReference,
    pub(super) digest: Digest,
}

impl Basis {
    pub(super) fn new(image: &ImageReference, digest: &Digest) -> Self {
        Self { image: image.clone(), digest: *digest }
    }

    pub(super) fn key(&self, snapshot: &Snapshot) -> VerdictKey {
        VerdictKey {
            image: self.image.clone(),
            digest: self.digest,
            policy: snapshot.policy.fingerprint(),
            trust_root: snapshot.trust_root,
        }
    }
}

/// No verdict could be reached.
#[derive(Debug, Clone)]
pub(super) enum Unreached {
    /// Evidence could not be read. Audit mode serves nevertheless.
    Evidence {
        /// What is missing, one line.
        reason: String,
        cause: UpstreamError,
    },
    /// Anything else; no mode relaxes it.
    Other(PullError),
}

impl Unreached {
    /// Without any upstream's fault.
    fn because(hindrance: Hindrance, reason: &str) -> Self {
        Self::Other(PullError::Undecided { reason: reason.to_owned(), hindrance, cause: None })
    }
}

impl From<NoEvidence> for Unreached {
    fn from(NoEvidence { looked_for, cause }: NoEvidence) -> Self {
        Self::Evidence { reason: format!("{looked_for} could not be read: {cause}"), cause }
    }
}

impl From<Unreached> for PullError {
    fn from(unreached: Unreached) -> Self {
        match unreached {
            Unreached::Evidence { reason, cause } => {
                Self::Undecided { reason, hindrance: Hindrance::Evidence, cause: Some(cause) }
            }
            Unreached::Other(error) => error,
        }
    }
}

/// Why something may be served, after audit mode and exemptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) decision: DecisionLabel,
    /// The label of its reason.
    pub(super) reason: &'static str,
    pub(super) verdict: Option<VerdictId>,
    pub(super) extent: Extent,
}

/// How many indexes lie above a digest that is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Depth(pub(super) usize);

impl Depth {
    /// What was asked for itself.
    pub(super) const TOP: Self = Self(0);
}

/// How far an admission reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Extent {
    /// Its own signature, an exemption or audit mode: all that it lists.
    Whole,
    /// An index admitted through its children: those that satisfied policy, and attestation children as artefacts.
    Children,
    /// Nothing beyond the manifest: an index under `leaf-only`, a signature artefact.
    Itself,
}

impl Puller {
    /// The verdict that the store holds and that is current.
    pub(super) async fn known_verdict(&self, snapshot: &Snapshot, basis: &Basis) -> Option<Arc<StoredVerdict>> {
        self.parts.store.verdict(&basis.key(snapshot), self.parts.clock.now()).await
    }

    /// The verdict on `basis`: the store's, else reached now, once for all who ask. Cancel safe.
    ///
    /// # Errors
    /// [`Unreached`] when there is no answer within [`VERDICT_BUDGET`].
    pub(super) async fn verdict(
        &self,
        snapshot: &Arc<Snapshot>,
        basis: &Basis,
        depth: Depth,
    ) -> Result<Arc<StoredVerdict>, Unreached> {
        let started = Instant::now();
        if let Some(verdict) = self.known_verdict(snapshot, basis).await {
            self.parts.telemetry.verify_took(VerifySource::VerdictStore, started.elapsed());
            return Ok(verdict);
        }
        let work = || {
            let (puller, snapshot, basis) = (self.clone(), Arc::clone(snapshot), basis.clone());
            async move { puller.reach(&snapshot, &basis, depth).await }
        };
        let at = (basis.image.repository.host(), Novelty::Known);
        match self.run(&self.parts.deciding, at, (basis.key(snapshot), depth), work).await {
            Ok(result) => result,
            Err(error) => Err(Unreached::Other(error)),
        }
    }

    async fn reach(
        &self,
        snapshot: &Arc<Snapshot>,
        basis: &Basis,
        depth: Depth,
    ) -> Result<Arc<StoredVerdict>, Unreached> {
        // Another run may have ended between the caller's look and this one's start.
        if let Some(verdict) = self.known_verdict(snapshot, basis).await {
            return Ok(verdict);
        }
        let started = Instant::now();
        let deadline = started + VERDICT_BUDGET;
        // Held until the verdict is kept.
        let (held, is_needed) = match snapshot.policy.plan(&basis.image) {
            Plan::WithoutMaterial => (None, false),
            Plan::NeedsMaterial(wanted) => {
                let level = Level::Verdict(depth);
                let held = self.discover_by((level, started + DISCOVERY_BUDGET), snapshot, basis, &wanted).await;
                if held.found.no_room {
                    self.parts.telemetry.overloaded(OverloadBound::Material);
                    return Err(Unreached::Other(PullError::Overloaded));
                }
                if let Some(nothing) = held.found.no_evidence() {
                    return Err(nothing.clone().into());
                }
                (Some(held), true)
            }
            // What only warnings depend on may be missing, and is not waited for as long.
            Plan::WantsMaterial(wanted) => {
                let by = (Level::Verdict(depth), started + REPORT_DISCOVERY_BUDGET);
                (Some(self.discover_by(by, snapshot, basis, &wanted).await), false)
            }
        };
        let found = held.as_ref().map(|held| Arc::clone(&held.found));
        let needed = found.as_ref().filter(|_| is_needed);
        let own = self.evaluate(deadline, snapshot, basis, found.clone()).await?;
        // Asked of every verdict, so that the largest time seen is known.
        let went_back = self.parts.store.time_went_back(self.parts.clock.now());
        if went_back && own.rests_on == RestsOn::Certificates {
            return Err(Unreached::because(Hindrance::Clock, CLOCK_STEPPED_BACK));
        }
        let reached = match own.decision {
            // Without material there is nothing that a child could have and its index has not.
            Decision::Deny if needed.is_some() => {
                match self.through_children(deadline, snapshot, basis, depth, &own).await? {
                    Some(reached) => reached,
                    None => Reached::own(own),
                }
            }
            Decision::Allow | Decision::Deny => Reached::own(own),
        };
        if reached.decision == Decision::Deny
            && let Some(missing) = needed.and_then(|found| found.missing.as_ref())
        {
            return Err(missing.clone().into());
        }
        let image_size = self.image_size(deadline, snapshot, basis, depth).await?;
        let reached = match TooLarge::check(&snapshot.policy, basis, image_size) {
            Some(too_large) if reached.decision == Decision::Allow && depth == Depth::TOP => too_large.deny(reached),
            Some(_) | None => reached,
        };
        let verdict = StoredVerdict { image_size, ..self.stored_form(snapshot, basis, &reached, found.as_deref()) };
        let verdict = self.keep(snapshot, basis, depth, verdict, reached, found).await;
        self.parts.telemetry.verify_took(VerifySource::Computed, started.elapsed());
        Ok(verdict)
    }

    /// Keeps a verdict with what it rests on, and has it reported on.
    async fn keep(
        &self,
        snapshot: &Arc<Snapshot>,
        basis: &Basis,
        depth: Depth,
        mut verdict: StoredVerdict,
        mut reached: Reached,
        found: Option<Arc<Discovered>>,
    ) -> Arc<StoredVerdict> {
        if let Some(found) = &found {
            let keeping = match reached.decision {
                Decision::Allow => Keeping::Allow,
                Decision::Deny => Keeping::Denial,
            };
            if is_worth_keeping(reached.decision, found.material_bytes()) {
                self.keep_material(&basis.digest, found, keeping).await;
            } else {
                self.doubt(&basis.digest, found).await;
                verdict.material = Vec::new();
                verdict.material_complete = false;
            }
        }
        // That it lies too deep below one index says nothing about it elsewhere.
        if depth != Depth::TOP && reached.reason == Reason::TooManyChildren {
            return Arc::new(verdict);
        }
        let report = self.planned_report(snapshot, basis, found, &mut reached.evidence);
        self.parts.store.put_verdict(verdict.clone(), &reached.evidence).await;
        let verdict = Arc::new(verdict);
        if let Some(report) = report {
            self.report_later(report, Arc::clone(&verdict));
        }
        verdict
    }

    pub(super) async fn discover_by(
        &self,
        by: (Level, Instant),
        snapshot: &Snapshot,
        basis: &Basis,
        wanted: &Wanted,
    ) -> Held {
        // A denial lives for `deny`, counted from when upstream was asked: older material must not prolong it (V-32).
        let since = self.parts.clock.now().minus(snapshot.verdict_ttl.deny);
        self.discover(&basis.image.repository, &basis.digest, wanted, since, by).await
    }

    /// Evaluates on the threads that verify; a panic or an overrun is no answer.
    async fn evaluate(
        &self,
        deadline: Instant,
        snapshot: &Arc<Snapshot>,
        basis: &Basis,
        found: Option<Arc<Discovered>>,
    ) -> Result<Verdict, Unreached> {
        let unread = found.as_ref().and_then(|found| found.unread().cloned());
        let (snapshot, basis, now) = (Arc::clone(snapshot), basis.clone(), self.parts.clock.now());
        let upstream = basis.image.repository.host().clone();
        let work = move || {
            let nothing = Material::default();
            let material = found.as_ref().map_or(&nothing, |found| &found.material);
            snapshot.policy.evaluate(&basis.image, &basis.digest, material, now)
        };
        match self.parts.workers.judge(deadline, work).await {
            Ok(Ok(verdict)) => Ok(verdict),
            Ok(Err(error)) => Err(match error.because {
                NoAnswer::RuleFailed => Unreached::because(Hindrance::PolicyRule, &error.to_string()),
                NoAnswer::EvidenceMissing => {
                    let cause = unread.unwrap_or(UpstreamError::Bad { upstream, reason: "too_large" });
                    Unreached::Evidence { reason: error.to_string(), cause }
                }
            }),
            Err(Unjudged::Panicked) => {
                self.parts.telemetry.panicked("policy::evaluate");
                Err(Unreached::because(Hindrance::Internal, "the verification failed inside sealgate"))
            }
            Err(Unjudged::TooLate) => {
                Err(Unreached::because(Hindrance::Timeout, "the signatures could not be verified in time"))
            }
            Err(Unjudged::Full) => {
                self.parts.telemetry.overloaded(OverloadBound::Verifications);
                Err(Unreached::Other(PullError::Overloaded))
            }
        }
    }

    fn stored_form(
        &self,
        snapshot: &Snapshot,
        basis: &Basis,
        reached: &Reached,
        found: Option<&Discovered>,
    ) -> StoredVerdict {
        let now = self.parts.clock.now();
        let end = match reached.decision {
            Decision::Allow => now.plus(snapshot.verdict_ttl.allow),
            Decision::Deny => found.map_or(now, |found| found.at).plus(snapshot.verdict_ttl.deny),
        };
        StoredVerdict {
            key: basis.key(snapshot),
            decision: reached.decision,
            reason: reached.reason,
            text: one_line(&reached.text),
            own: reached.own,
            image_size: None,
            issued: now,
            not_after: reached.not_after.map_or(end, |not_after| not_after.min(end)),
            evidence: None,
            material: found.map(Discovered::manifest_digests).unwrap_or_default(),
            material_complete: found.is_none_or(|found| found.unread().is_none() && !found.material.more),
        }
    }

    /// What a raw answer comes to now: exemptions and audit mode applied.
    ///
    /// # Errors
    /// [`PullError::Denied`] for a clean denial that nothing relaxes; the error behind `answer` when there is none.
    pub(super) fn standing(
        &self,
        snapshot: &Snapshot,
        basis: &Basis,
        answer: &Result<Arc<StoredVerdict>, Unreached>,
    ) -> Result<Standing, PullError> {
        let relaxed = match answer {
            Ok(verdict) if verdict.decision == Decision::Allow => {
                let extent = if verdict.own { Extent::Whole } else { Extent::Children };
                return Ok(Standing {
                    decision: DecisionLabel::Allow,
                    reason: verdict.reason.as_label(),
                    verdict: Some(verdict.key.id()),
                    extent,
                });
            }
            Ok(verdict) => self.relaxed(snapshot, basis, DecisionLabel::AuditDeny).map(|decision| Standing {
                decision,
                reason: verdict.reason.as_label(),
                verdict: Some(verdict.key.id()),
                extent: Extent::Whole,
            }),
            Err(Unreached::Evidence { cause, .. }) => {
                self.relaxed(snapshot, basis, DecisionLabel::AuditUndecided).map(|decision| Standing {
                    decision,
                    reason: Hindrance::Evidence.as_label(Some(cause)),
                    verdict: None,
                    extent: Extent::Whole,
                })
            }
            Err(Unreached::Other(_)) => None,
        };
        match (relaxed, answer) {
            (Some(standing), _) => Ok(standing),
            (None, Ok(verdict)) => Err(denied(basis, verdict)),
            (None, Err(unreached)) => Err(unreached.clone().into()),
        }
    }

    /// Whether an exemption or audit mode is in force for `basis` now: then a denial does not refuse it.
    pub(super) fn relaxed(&self, snapshot: &Snapshot, basis: &Basis, audit: DecisionLabel) -> Option<DecisionLabel> {
        let now = self.parts.clock.now();
        if snapshot.policy.exemption(&basis.image, &basis.digest, now).is_some() {
            return Some(DecisionLabel::Exempt);
        }
        match snapshot.policy.mode(&basis.image, &basis.digest) {
            Mode::Audit => Some(audit),
            Mode::Enforce => None,
        }
    }
}

/// Why certificates are not judged.
const CLOCK_STEPPED_BACK: &str = "the clock stepped back, so certificates cannot be judged";

pub(super) fn denied(basis: &Basis, verdict: &StoredVerdict) -> PullError {
    PullError::Denied(Box::new(Denial {
        image: basis.image.clone(),
        digest: basis.digest,
        verdict: verdict.key.id(),
        policy: verdict.key.policy,
        reason: verdict.reason,
        text: verdict.text.clone(),
    }))
}

/// An answer before it gets its dates.
#[derive(Debug)]
pub(super) struct Reached {
    pub(super) decision: Decision,
    pub(super) reason: Reason,
    pub(super) text: String,
    pub(super) own: bool,
    pub(super) not_after: Option<Timestamp>,
    pub(super) evidence: Evidence,
}

impl Reached {
    /// By what was found about the digest itself.
    fn own(verdict: Verdict) -> Self {
        Self {
            decision: verdict.decision,
            reason: verdict.reason,
            text: verdict.text,
            own: true,
            not_after: verdict.not_after,
            evidence: verdict.evidence,
        }
    }
}

/// Cut to what fits into the refusal line, at a character's end.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    for char in text.chars() {
        let char = if char.is_control() { ' ' } else { char };
        if line.len().saturating_add(char.len_utf8()) > REFUSAL_LINE_BYTES_MAX {
            break;
        }
        line.push(char);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_one_line_of_bounded_length() {
        assert_eq!(one_line("a\r\nb"), "a  b");
        assert_eq!(one_line(&"x".repeat(REFUSAL_LINE_BYTES_MAX)).len(), REFUSAL_LINE_BYTES_MAX);
        assert_eq!(one_line(&"x".repeat(REFUSAL_LINE_BYTES_MAX + 1)).len(), REFUSAL_LINE_BYTES_MAX);
        let umlauts = one_line(&"ä".repeat(REFUSAL_LINE_BYTES_MAX));
        assert_eq!(umlauts.len(), REFUSAL_LINE_BYTES_MAX);
    }
}
