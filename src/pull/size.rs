//! `max_image_bytes`: the largest image that is served (design §3).
//!
//! A size is known only with the manifest, so the question is put wherever one is about to be served, whatever admits it: its own
//! verdict, or a grant by a tag or an index. It is put last: a verdict that says `too_large` is one on an image that policy
//! would have admitted. An index has no size; its children are asked about one by one when they are pulled, and a large one
//! costs the others nothing. Audit mode and exemptions relax this like any denial.

use std::fmt;

use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::children::{too_late, unread};
use super::manifest::UnverifiedManifest;
use super::verdict::{Basis, Depth, Reached, Standing, Unreached, denied};
use super::{PullError, Puller, Snapshot};
use crate::oci::ImageSize;
use crate::policy::{Decision, Evidence, PolicySet, Reason};
use crate::store::{StoredVerdict, VerdictId};
use crate::telemetry::DecisionLabel;

/// An image that is larger than its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLarge {
    size: ImageSize,
    max_image_bytes: u64,
}

impl TooLarge {
    /// Whether an image of that size is too large; `None` when it is not.
    pub(super) fn check(policy: &PolicySet, basis: &Basis, size: Option<ImageSize>) -> Option<Self> {
        let (size, max_image_bytes) = (size?, policy.max_image_bytes(&basis.image, &basis.digest)?);
        (size.bytes > max_image_bytes).then_some(Self { size, max_image_bytes })
    }

    /// The answer that was an allow, with this as its end.
    pub(super) fn deny(self, reached: Reached) -> Reached {
        Reached {
            decision: Decision::Deny,
            reason: Reason::TooLarge,
            text: self.to_string(),
            own: true,
            not_after: reached.not_after,
            evidence: self.evidence(reached.evidence),
        }
    }

    /// What was looked at, and that it did not come to that.
    fn evidence(self, Evidence(mut document): Evidence) -> Evidence {
        let told = json!({
            "decision": "deny",
            "reason": Reason::TooLarge.as_label(),
            "text": self.to_string(),
            "image_size": {
                "bytes": self.size.bytes,
                "layers": self.size.layers,
                "max_image_bytes": self.max_image_bytes,
            },
        });
        if let (Value::Object(document), Value::Object(told)) = (&mut document, told) {
            document.extend(told);
        }
        Evidence(document)
    }
}

impl fmt::Display for TooLarge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size: ImageSize { bytes, layers }, max_image_bytes } = self;
        let layers = format!("{layers} {}", if *layers == 1 { "layer" } else { "layers" });
        write!(
            formatter,
            "the image is larger than max_image_bytes: {bytes} bytes in its config and {layers}, {max_image_bytes} allowed"
        )
    }
}

impl Puller {
    /// The size of what `basis` is about, `None` for an index. Without a bound only what is here already is looked at.
    ///
    /// # Errors
    /// [`Unreached`] when there is a bound and the manifest cannot be read now.
    pub(super) async fn image_size(
        &self,
        deadline: Instant,
        snapshot: &Snapshot,
        basis: &Basis,
        depth: Depth,
    ) -> Result<Option<ImageSize>, Unreached> {
        let repository = &basis.image.repository;
        let bound = snapshot.policy.max_image_bytes(&basis.image, &basis.digest);
        let manifest = match (bound, depth) {
            (Some(_), Depth::TOP) => {
                let manifest = timeout_at(deadline, self.unverified(repository, &basis.digest)).await;
                match manifest.map_err(|_| too_late(basis, "the manifest could not be read in time"))? {
                    Ok((manifest, _)) => Some(manifest),
                    // Then it cannot be served either.
                    Err(PullError::ManifestUnknown | PullError::Manifest(_)) => None,
                    Err(error) => return Err(unread(error, "manifest")),
                }
            }
            // A child that is judged for its index: how large it is counts when it is asked for.
            (Some(_) | None, _) => self.held(repository, &basis.digest).await,
        };
        Ok(manifest.and_then(|manifest| manifest.parsed().image_size()))
    }

    /// `standing`, unless the image is larger than its bound and nothing relaxes that. `basis` is what admits the manifest.
    ///
    /// # Errors
    /// [`PullError::Denied`].
    pub(super) async fn sized(
        &self,
        snapshot: &Snapshot,
        basis: &Basis,
        manifest: &UnverifiedManifest,
        standing: Standing,
    ) -> Result<Standing, PullError> {
        let image = Basis::new(&basis.image, manifest.digest());
        let Some(too_large) = TooLarge::check(&snapshot.policy, &image, manifest.parsed().image_size()) else {
            return Ok(standing);
        };
        let relaxed = self.relaxed(snapshot, &image, DecisionLabel::AuditDeny);
        // It is relaxed already, for a reason that came first.
        if relaxed.is_some() && standing.decision != DecisionLabel::Allow {
            return Ok(standing);
        }
        let kept = self.keep_too_large(snapshot, basis, manifest, &standing, too_large).await;
        match relaxed {
            Some(decision) => {
                Ok(Standing { decision, reason: Reason::TooLarge.as_label(), verdict: kept.0, extent: standing.extent })
            }
            None => Err(kept.1),
        }
    }

    /// Keeps the denial, so that it can be listed and explained; its id, and the denial.
    ///
    /// It is kept under what was asked for: for a child that an index grants that is its own digest. There it stands only
    /// when the bound is one for the digest too, not for the tag of the index alone.
    async fn keep_too_large(
        &self,
        snapshot: &Snapshot,
        basis: &Basis,
        manifest: &UnverifiedManifest,
        standing: &Standing,
        too_large: TooLarge,
    ) -> (Option<VerdictId>, PullError) {
        let own = if basis.digest == *manifest.digest() {
            basis.clone()
        } else {
            Basis::new(&basis.image.with_digest(*manifest.digest()), manifest.digest())
        };
        let now = self.parts.clock.now();
        let mut verdict = StoredVerdict {
            key: own.key(snapshot),
            decision: Decision::Deny,
            reason: Reason::TooLarge,
            text: too_large.to_string(),
            own: true,
            image_size: Some(too_large.size),
            issued: now,
            not_after: now.plus(snapshot.verdict_ttl.deny),
            evidence: None,
            material: Vec::new(),
            material_complete: false,
        };
        if TooLarge::check(&snapshot.policy, &own, Some(too_large.size)).is_none() {
            let denial = denied(&own, &StoredVerdict { key: basis.key(snapshot), ..verdict });
            return (standing.verdict, denial);
        }
        let known = self.known_verdict(snapshot, &own).await;
        if known.as_ref().is_none_or(|known| known.reason != Reason::TooLarge) {
            if let Some(known) = known {
                verdict.material.clone_from(&known.material);
                verdict.material_complete = known.material_complete;
            }
            let document = json!({
                "image": own.image.to_string(),
                "digest": own.digest.to_string(),
                "decided": now.to_string(),
                "admitted_by": {
                    "image": basis.image.to_string(),
                    "digest": basis.digest.to_string(),
                    "verdict": standing.verdict.map(|id| id.to_string()),
                },
            });
            self.parts.store.put_verdict(verdict.clone(), &too_large.evidence(Evidence(document))).await;
        }
        (Some(verdict.key.id()), denied(&own, &verdict))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_size_and_bound() {
        let too_large = TooLarge { size: ImageSize { bytes: 1001, layers: 1 }, max_image_bytes: 1000 };
        assert_eq!(
            too_large.to_string(),
            "the image is larger than max_image_bytes: 1001 bytes in its config and 1 layer, 1000 allowed"
        );
    }
}
