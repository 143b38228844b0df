//! Indexes and their children (design §6, "Multi-arch").
//!
//! An index without a signature of its own can be admitted by its platform children, each judged under the reference that
//! was asked for, as containers/image does: a strict scope for one tag holds for the children reached through that tag.
//! Attestation children count for nothing here; they pass by the artefact rule alone.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::manifest::UnverifiedManifest;
use super::verdict::{Basis, Depth, Reached, Unreached};
use super::{PullError, Puller, Snapshot};
use crate::limits::{CHILDREN_EXAMINED_MAX, INDEX_DEPTH_MAX, MATERIAL_CONCURRENCY};
use crate::oci::{Descriptor, Digest, ImageReference, ManifestError, MediaType, Repository};
use crate::policy::{Decision, Evidence, MultiArch, Reason, Verdict};
use crate::store::StoredVerdict;
use crate::upstream::UpstreamError;

impl Puller {
    /// What the children make of an index whose own verdict is `own`, a denial; `None` when they have no say.
    ///
    /// Looking stops at the first child that settles it. The first is looked at alone, since it settles most cases.
    ///
    /// # Errors
    /// [`Unreached`] when a child whose verdict matters has none, or `deadline` passes.
    pub(super) async fn through_children(
        &self,
        deadline: Instant,
        snapshot: &Arc<Snapshot>,
        basis: &Basis,
        depth: Depth,
        own: &Verdict,
    ) -> Result<Option<Reached>, Unreached> {
        let rule = snapshot.policy.multi_arch(&basis.image, &basis.digest);
        // Nothing that is trusted under one algorithm is trusted under another.
        if rule == MultiArch::LeafOnly || own.reason == Reason::UnsupportedDigest {
            return Ok(None);
        }
        let Depth(above) = depth;
        let index = self.unverified(&basis.image.repository, &basis.digest);
        let index = match timeout_at(deadline, index).await.map_err(|_| too_late(basis, CHILDREN_TOO_LATE))? {
            Ok((index, _)) => index,
            // Not there, or no manifest: it has no children to speak for it, so its own verdict stands.
            Err(PullError::ManifestUnknown | PullError::Manifest(_)) => return Ok(None),
            Err(error) => return Err(unread(error, "index")),
        };
        let children: Vec<&Descriptor> =
            index.parsed().children().iter().filter(|child| !child.is_attestation_child()).collect();
        if children.is_empty() {
            return Ok(None);
        }
        if children.len() > CHILDREN_EXAMINED_MAX {
            let text = format!("too many children: {} platform images in an unsigned index", children.len());
            return Ok(Some(denial(own, Reason::TooManyChildren, text, &[])));
        }
        if above >= INDEX_DEPTH_MAX {
            let text = format!("too many children: indexes are nested deeper than {INDEX_DEPTH_MAX}");
            return Ok(Some(denial(own, Reason::TooManyChildren, text, &[])));
        }
        let judging = self.judge_children(snapshot, basis, above, rule, own, children);
        timeout_at(deadline, judging).await.map_err(|_| too_late(basis, CHILDREN_TOO_LATE))?.map(Some)
    }

    async fn judge_children(
        &self,
        snapshot: &Arc<Snapshot>,
        basis: &Basis,
        above: usize,
        rule: MultiArch,
        own: &Verdict,
        children: Vec<&Descriptor>,
    ) -> Result<Reached, Unreached> {
        let judging = children.into_iter().map(|child| self.judge_child(snapshot, basis, above, child));
        let mut judging = judging.collect::<Vec<_>>().into_iter();
        let first = stream::iter(judging.next()).buffered(1);
        let mut judged = first.chain(stream::iter(judging).buffered(MATERIAL_CONCURRENCY));
        let mut tally = Tally::default();
        while let Some((child, verdict)) = judged.next().await {
            match (rule, verdict) {
                (MultiArch::IndexOrAnyLeaf, Ok(verdict)) if satisfies_policy(&verdict) => {
                    tally.add(child, &verdict);
                    return Ok(tally.allow(own));
                }
                (MultiArch::IndexOrAnyLeaf, Ok(verdict)) => tally.add(child, &verdict),
                (MultiArch::IndexOrAnyLeaf, Err(unreached)) => {
                    tally.unreached.get_or_insert(unreached);
                }
                (MultiArch::IndexOrEveryLeaf | MultiArch::LeafOnly, verdict) => {
                    let verdict = verdict?;
                    tally.add(child, &verdict);
                    if !satisfies_policy(&verdict) {
                        return Ok(tally.deny(own));
                    }
                }
            }
        }
        match (rule, tally.unreached.take()) {
            (_, Some(unreached)) => Err(unreached),
            (MultiArch::IndexOrAnyLeaf, None) => Ok(tally.deny(own)),
            (MultiArch::IndexOrEveryLeaf | MultiArch::LeafOnly, None) => Ok(tally.allow(own)),
        }
    }

    /// Boxed, because judging a child that is an index judges its children.
    fn judge_child<'a>(
        &'a self,
        snapshot: &'a Arc<Snapshot>,
        index: &'a Basis,
        above: usize,
        child: &'a Descriptor,
    ) -> BoxFuture<'a, (&'a Descriptor, Result<Arc<StoredVerdict>, Unreached>)> {
        Box::pin(async move {
            // Its bytes say what it is, not its descriptor: one that lies would else have a denial kept for a child that its
            // own children admit.
            let depth = Depth(above.saturating_add(1));
            let basis = child_basis(snapshot, &index.image, &child.digest);
            (child, self.verdict(snapshot, &basis, depth).await)
        })
    }

    /// Checks a child against the index at `top` that grants it: type and size as listed, nested at most
    /// [`INDEX_DEPTH_MAX`] deep.
    ///
    /// # Errors
    /// [`UpstreamError::Bad`] when the listing lies; [`ManifestError::Shape`] when it is nested too deep.
    pub(super) async fn check_listing(
        &self,
        repository: &Repository,
        top: &Digest,
        child: &UnverifiedManifest,
    ) -> Result<(), PullError> {
        let bad = |reason| PullError::Upstream(UpstreamError::Bad { upstream: repository.host().clone(), reason });
        let Some((listed, level)) = self.find_listing(repository, top, child.digest()).await else {
            // The index is no longer here. An image was listed when its grant was made; for an index that is not enough.
            return if child.parsed().is_index() { Err(too_deep()) } else { Ok(()) };
        };
        if listed.size != child.size() {
            return Err(bad("size_mismatch"));
        }
        if !listed.media_type.is_empty() && listed.media_type != child.parsed().media_type.as_str() {
            return Err(bad("media_type"));
        }
        if child.parsed().is_index() && level >= INDEX_DEPTH_MAX { Err(too_deep()) } else { Ok(()) }
    }

    /// The descriptor of `digest` and how many indexes lie above it, looked for breadth first in few indexes.
    async fn find_listing(
        &self,
        repository: &Repository,
        top: &Digest,
        digest: &Digest,
    ) -> Option<(Descriptor, usize)> {
        let mut level = vec![*top];
        let mut looked_at = 0_usize;
        for above in 1..=INDEX_DEPTH_MAX {
            let mut next = Vec::new();
            for index in level {
                looked_at = looked_at.saturating_add(1);
                if looked_at > CHILDREN_EXAMINED_MAX {
                    return None;
                }
                let Ok((index, _)) = self.unverified(repository, &index).await else { continue };
                let children = index.parsed().children();
                if let Some(listed) = children.iter().find(|child| child.digest == *digest) {
                    return Some((listed.clone(), above));
                }
                next.extend(children.iter().filter(|child| is_index(child)).map(|child| child.digest));
            }
            level = next;
        }
        None
    }
}

/// A child is judged under the reference that was asked for, unless policy has a scope for that very digest.
pub(super) fn child_basis(snapshot: &Snapshot, image: &ImageReference, child: &Digest) -> Basis {
    let by_digest = image.with_digest(*child);
    let image = if snapshot.policy.has_digest_scope(&by_digest) { &by_digest } else { image };
    Basis::new(image, child)
}

/// Whether the signatures are as policy wants them. A child that is too large says nothing against its index: it is refused
/// when it is asked for itself.
pub(super) fn satisfies_policy(verdict: &StoredVerdict) -> bool {
    match (verdict.decision, verdict.reason) {
        (Decision::Allow, _) | (Decision::Deny, Reason::TooLarge) => true,
        (Decision::Deny, _) => false,
    }
}

fn is_index(child: &Descriptor) -> bool {
    child.media_type.parse::<MediaType>().is_ok_and(MediaType::is_index)
}

/// What the children said so far.
#[derive(Debug, Default)]
struct Tally {
    evidence: Vec<Value>,
    not_after: Option<crate::clock::Timestamp>,
    last: Option<(String, Reason, String)>,
    unreached: Option<Unreached>,
}

impl Tally {
    fn add(&mut self, child: &Descriptor, verdict: &StoredVerdict) {
        let platform = child
            .platform
            .as_ref()
            .map_or_else(|| child.digest.to_string(), |platform| format!("{}/{}", platform.os, platform.architecture));
        self.evidence.push(json!({
            "digest": child.digest.to_string(),
            "platform": platform,
            "verdict": verdict.key.id().to_string(),
            "decision": match verdict.decision { Decision::Allow => "allow", Decision::Deny => "deny" },
            "reason": verdict.reason.as_label(),
            "text": verdict.text,
        }));
        if satisfies_policy(verdict) {
            let end = self.not_after.map_or(verdict.not_after, |end| end.min(verdict.not_after));
            self.not_after = Some(end);
        }
        self.last = Some((platform, verdict.reason, verdict.text.clone()));
    }

    fn allow(self, own: &Verdict) -> Reached {
        Reached {
            decision: Decision::Allow,
            reason: Reason::Children,
            text: format!("admitted through {} of its platform images", self.evidence.len()),
            own: false,
            not_after: self.not_after,
            evidence: evidence(own, &self.evidence),
        }
    }

    /// The index's own reason, since that is what its publisher can mend first, unless a bound was passed below.
    fn deny(self, own: &Verdict) -> Reached {
        match &self.last {
            Some((_, Reason::TooManyChildren, text)) => {
                denial(own, Reason::TooManyChildren, text.clone(), &self.evidence)
            }
            Some((platform, _, text)) if *text != own.text => {
                denial(own, own.reason, format!("{} (and {platform}: {text})", own.text), &self.evidence)
            }
            Some(_) | None => denial(own, own.reason, own.text.clone(), &self.evidence),
        }
    }
}

fn denial(own: &Verdict, reason: Reason, text: String, children: &[Value]) -> Reached {
    Reached { decision: Decision::Deny, reason, text, own: true, not_after: None, evidence: evidence(own, children) }
}

fn evidence(own: &Verdict, children: &[Value]) -> Evidence {
    Evidence(json!({ "index": own.evidence.0, "children": children }))
}

const CHILDREN_TOO_LATE: &str = "the index's children could not be judged in time";

fn too_deep() -> PullError {
    ManifestError::Shape(format!("indexes are nested deeper than {INDEX_DEPTH_MAX}")).into()
}

pub(super) fn too_late(basis: &Basis, reason: &str) -> Unreached {
    let cause = UpstreamError::Timeout { upstream: basis.image.repository.host().clone() };
    Unreached::Evidence { reason: reason.to_owned(), cause }
}

/// Without its bytes an index has no children to ask, and an image no size.
pub(super) fn unread(error: PullError, what: &str) -> Unreached {
    match error {
        PullError::Upstream(cause) => {
            Unreached::Evidence { reason: format!("the {what} could not be read: {cause}"), cause }
        }
        PullError::Denied(_)
        | PullError::Undecided { .. }
        | PullError::ManifestUnknown
        | PullError::BlobUnknown
        | PullError::RepositoryUnknown
        | PullError::Manifest(_)
        | PullError::Overloaded
        | PullError::TooMany { .. }
        | PullError::Lost => Unreached::Other(error),
    }
}
