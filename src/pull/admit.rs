//! The gate: the one place that makes an [`AdmittedManifest`].
//!
//! A tag is judged under its own reference, and an admitted one grants its digest. A digest is judged by a policy scope for
//! that very digest alone where there is one; else the first of these admits it: a grant that is current, a grant whose
//! verdict is reached anew, the artefact rule, its own verdict. The policy is read once a request.

use std::sync::Arc;

use bytes::Bytes;

use super::artefact::{Place, is_artefact};
use super::grants::{Admits, Held, basis_of};
use super::manifest::UnverifiedManifest;
use super::verdict::{Basis, Depth, Extent, Standing};
use super::{PullError, Puller, Snapshot};
use crate::oci::{Digest, ImageReference, MediaType, Reference, Tag};
use crate::policy::MultiArch;
use crate::store::VerdictId;
use crate::telemetry::{CacheKind, CacheResult, DecisionLabel};
use crate::upstream::UpstreamError;

/// A manifest that may be served: it has a current verdict, grant, exemption, audit mode or artefact rule behind it.
#[derive(Debug, Clone)]
pub struct AdmittedManifest {
    manifest: Arc<UnverifiedManifest>,
    standing: Standing,
    cache: CacheResult,
}

impl AdmittedManifest {
    /// The bytes that were hashed and verified.
    pub fn bytes(&self) -> &Bytes {
        self.manifest.bytes()
    }
    /// Their digest.
    pub fn digest(&self) -> &Digest {
        self.manifest.digest()
    }
    /// The type under which they are served.
    pub fn media_type(&self) -> MediaType {
        self.manifest.parsed().media_type
    }
    /// Allow, audit-deny, audit-undecided or exempt.
    pub fn decision(&self) -> DecisionLabel {
        self.standing.decision
    }
    /// The verdict behind it; artefacts have none.
    pub fn verdict(&self) -> Option<VerdictId> {
        self.standing.verdict
    }
    /// Hit, miss, revalidated or stale.
    pub fn cache(&self) -> CacheResult {
        self.cache
    }
}

impl Puller {
    /// A manifest by tag or digest, decided. HEAD and GET both ask this.
    ///
    /// A warm one costs no upstream call. Work that others may share goes on when this caller leaves. Cancel safe.
    ///
    /// # Errors
    /// [`PullError::Denied`] when policy says no; [`PullError::Undecided`], [`PullError::Overloaded`] and
    /// [`PullError::Lost`] when there is no answer; [`PullError::ManifestUnknown`] on upstream's clean 404;
    /// [`PullError::Manifest`] and [`PullError::Upstream`] when upstream's answer cannot be used.
    pub async fn manifest(&self, image: &ImageReference) -> Result<AdmittedManifest, PullError> {
        let snapshot = self.parts.snapshot.load_full();
        let (kind, admitted) = match &image.reference {
            Reference::Tag(tag) => (CacheKind::ManifestTag, self.admit_tag(&snapshot, image, tag).await),
            Reference::Digest(digest) => (CacheKind::ManifestDigest, self.admit_digest(&snapshot, image, digest).await),
        };
        if let Ok(admitted) = &admitted {
            self.parts.telemetry.cache_asked(kind, admitted.cache);
            if admitted.standing.decision != DecisionLabel::Allow {
                let (decision, reason) = (admitted.standing.decision.as_label(), admitted.standing.reason);
                tracing::info!(%image, digest = %admitted.digest(), decision, reason, "served although policy does not allow it");
            }
        }
        if let Err(PullError::Lost) = &admitted {
            self.parts.telemetry.panicked("pull");
        }
        if let Some((decision, reason)) = decided(&admitted) {
            self.parts.telemetry.verdict_applied(decision, reason);
        }
        admitted
    }

    async fn admit_tag(
        &self,
        snapshot: &Arc<Snapshot>,
        image: &ImageReference,
        tag: &Tag,
    ) -> Result<AdmittedManifest, PullError> {
        let (manifest, cache) = self.tagged(image, tag).await?;
        if let Some(place) = place(&manifest, Place::of_tag(tag))
            && self.passes_as_artefact(image, &manifest, place).await?
        {
            return Ok(AdmittedManifest { manifest, standing: ARTEFACT, cache });
        }
        self.decide(snapshot, image, manifest, cache).await
    }

    /// The bytes behind a tag: one resolution, and bytes of exactly the digest that is decided on.
    async fn tagged(
        &self,
        image: &ImageReference,
        tag: &Tag,
    ) -> Result<(Arc<UnverifiedManifest>, CacheResult), PullError> {
        let resolution = self.resolve(&image.repository, tag).await?;
        if let Some(manifest) = resolution.manifest {
            return Ok((manifest, resolution.cache));
        }
        match self.unverified(&image.repository, &resolution.digest).await {
            Ok((manifest, CacheResult::Miss)) => Ok((manifest, CacheResult::Miss)),
            Ok((manifest, _)) => Ok((manifest, resolution.cache)),
            // The tag has moved and upstream has dropped what it was, or HEAD named what never was: GET decides (U-20).
            Err(PullError::ManifestUnknown) => {
                Ok((self.fetch(&image.repository, &image.reference).await?, CacheResult::Miss))
            }
            Err(error) => Err(error),
        }
    }

    async fn admit_digest(
        &self,
        snapshot: &Arc<Snapshot>,
        image: &ImageReference,
        digest: &Digest,
    ) -> Result<AdmittedManifest, PullError> {
        if snapshot.policy.has_digest_scope(image) {
            let (manifest, cache) = self.unverified(&image.repository, digest).await?;
            return self.decide(snapshot, image, manifest, cache).await;
        }
        // No answer in time is not "there is none": what a grant admits must not be denied because a disk is slow. Its own
        // verdict may admit it without one, also where there is no database at all.
        let found = self.parts.store.find_grants(&image.repository, digest).await;
        let unknown = found.is_none().then_some(PullError::Overloaded);
        let grants = found.unwrap_or_default();
        if grants.iter().any(|grant| is_artefact(grant, digest)) {
            let (manifest, cache) = self.unverified(&image.repository, digest).await?;
            return Ok(AdmittedManifest { manifest, standing: ARTEFACT, cache });
        }
        let (manifest, cache) = self.unverified(&image.repository, digest).await?;
        if let Some(admits) = self.current_grant(snapshot, &manifest, &grants).await {
            return self.admit_by_grant(snapshot, admits, manifest, cache).await;
        }
        if passes_ungated(snapshot, image, &manifest) {
            return self.decide(snapshot, image, manifest, cache).await;
        }
        let (listed, undecided, too_large) = match self.renewed_grant(snapshot, &manifest, &grants).await {
            Held::Admits(admits) => return self.admit_by_grant(snapshot, admits, manifest, cache).await,
            Held::Nothing { listed, undecided, too_large } => (listed, undecided.or(unknown), too_large),
        };
        if let Some(place) = place(&manifest, listed.then_some(Place::AttestationChild))
            && self.passes_as_artefact(image, &manifest, place).await?
        {
            return Ok(AdmittedManifest { manifest, standing: ARTEFACT, cache });
        }
        match (self.decide(snapshot, image, manifest, cache).await, undecided) {
            // Its own verdict is no, but a grant that could not be looked at might say yes.
            (Err(PullError::Denied(_)), Some(undecided)) => Err(undecided),
            // What a grant would admit is refused for its size, not for what its own reference lacks.
            (Err(PullError::Denied(own)), None) => Err(too_large.unwrap_or(PullError::Denied(own))),
            (decided, _) => decided,
        }
    }

    async fn admit_by_grant(
        &self,
        snapshot: &Snapshot,
        admits: Admits,
        manifest: Arc<UnverifiedManifest>,
        cache: CacheResult,
    ) -> Result<AdmittedManifest, PullError> {
        let Admits { grant, standing } = admits;
        let basis = basis_of(&grant);
        if grant.size != manifest.size() {
            let upstream = basis.image.repository.host().clone();
            return Err(UpstreamError::Bad { upstream, reason: "size_mismatch" }.into());
        }
        self.keep_grants(snapshot, &basis, standing.extent, &manifest).await?;
        Ok(AdmittedManifest { manifest, standing, cache })
    }

    /// By the verdict on these bytes under the reference as requested.
    async fn decide(
        &self,
        snapshot: &Arc<Snapshot>,
        image: &ImageReference,
        manifest: Arc<UnverifiedManifest>,
        cache: CacheResult,
    ) -> Result<AdmittedManifest, PullError> {
        let basis = Basis::new(image, manifest.digest());
        let standing = if passes_ungated(snapshot, image, &manifest) {
            LEAF_ONLY_INDEX
        } else {
            let answer = self.verdict(snapshot, &basis, Depth::TOP).await;
            let standing = self.standing(snapshot, &basis, &answer)?;
            self.sized(snapshot, &basis, &manifest, standing).await?
        };
        self.keep_grants(snapshot, &basis, standing.extent, &manifest).await?;
        Ok(AdmittedManifest { manifest, standing, cache })
    }
}

/// Under `leaf-only` indexes are served, and each child is decided by itself.
fn passes_ungated(snapshot: &Snapshot, image: &ImageReference, manifest: &UnverifiedManifest) -> bool {
    manifest.parsed().is_index() && snapshot.policy.multi_arch(image, manifest.digest()) == MultiArch::LeafOnly
}

/// Where an artefact may sit: at a place of its own, else wherever its `subject` says that it is a referrer.
fn place(manifest: &UnverifiedManifest, own: Option<Place>) -> Option<Place> {
    own.or_else(|| manifest.parsed().subject.as_ref().map(|_| Place::Referrer))
}

/// How a request counts; what upstream does not have, or answers unusably, was not decided about.
fn decided(admitted: &Result<AdmittedManifest, PullError>) -> Option<(DecisionLabel, &'static str)> {
    match admitted {
        Ok(admitted) => Some((admitted.standing.decision, admitted.standing.reason)),
        Err(PullError::Denied(denial)) => Some((DecisionLabel::Deny, denial.reason.as_label())),
        Err(PullError::Undecided { hindrance, cause, .. }) => {
            Some((DecisionLabel::Undecided, hindrance.as_label(cause.as_ref())))
        }
        Err(PullError::Overloaded | PullError::TooMany { .. }) => Some((DecisionLabel::Undecided, "overloaded")),
        Err(PullError::Lost) => Some((DecisionLabel::Undecided, "internal")),
        Err(
            PullError::ManifestUnknown
            | PullError::BlobUnknown
            | PullError::RepositoryUnknown
            | PullError::Manifest(_)
            | PullError::Upstream(_),
        ) => None,
    }
}

/// How artefacts stand: no verdict, nothing beyond themselves and their blobs.
const ARTEFACT: Standing =
    Standing { decision: DecisionLabel::Allow, reason: "artefact", verdict: None, extent: Extent::Itself };

/// How indexes stand under `leaf-only`: they pass, their children are decided one by one.
const LEAF_ONLY_INDEX: Standing =
    Standing { decision: DecisionLabel::Allow, reason: "leaf_only", verdict: None, extent: Extent::Itself };
