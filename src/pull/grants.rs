//! Grants: what an admission gives on to digests, and whether that still holds.
//!
//! A grant is as good as the answer it rests on, read again each time: a verdict that ended or belongs to another policy is
//! reached anew, exemptions and audit mode are applied as of now. Only a clean denial takes a grant away.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::artefact::is_artefact;
use super::children::{child_basis, satisfies_policy};
use super::hot::GrantedKey;
use super::manifest::UnverifiedManifest;
use super::verdict::{Basis, Depth, Extent, Standing, Unreached};
use super::{PullError, Puller, Snapshot};
use crate::limits::VERDICT_BUDGET;
use crate::oci::{Descriptor, Digest, Repository};
use crate::policy::{Mode, MultiArch, Reason};
use crate::store::{Grant, GrantKind, StoredVerdict};
use crate::telemetry::DecisionLabel;
use crate::upstream::UpstreamError;

/// What the grants of a digest come to.
#[derive(Debug)]
pub(super) enum Held {
    /// One of them admits it.
    Admits(Admits),
    /// None does.
    Nothing {
        /// An index that was admitted through its children lists it: it can pass as an artefact.
        listed: bool,
        /// Why nothing is known about one of them; without an answer elsewhere, this is the answer.
        undecided: Option<PullError>,
        /// The denial, when one would admit it but for its size.
        too_large: Option<PullError>,
    },
}

/// A grant that admits.
#[derive(Debug)]
pub(super) struct Admits {
    pub(super) grant: Grant,
    pub(super) standing: Standing,
}

/// One grant, judged.
enum Judged {
    Admits(Standing),
    /// By an index that was admitted through its children.
    Listed,
    Denied,
    /// It would admit, but for the size.
    TooLarge(PullError),
    /// Under the rule that is in force, such a grant says nothing.
    Void,
    Unknown(PullError),
}

impl Puller {
    /// The first grant on a manifest that admits it by what the store knows: no discovery, no upstream.
    pub(super) async fn current_grant(
        &self,
        snapshot: &Snapshot,
        manifest: &UnverifiedManifest,
        grants: &[Grant],
    ) -> Option<Admits> {
        let digest = manifest.digest();
        for grant in grants.iter().filter(|grant| is_on_manifest(grant)) {
            let basis = basis_of(grant);
            let Some(verdict) = self.known_verdict(snapshot, &basis).await else { continue };
            if self.is_void(snapshot, grant).await {
                continue;
            }
            let Ok(standing) = self.standing(snapshot, &basis, &Ok(verdict)) else { continue };
            if reaches(&standing, grant, digest)
                && holds_for_child(snapshot, &standing, grant, digest)
                && let Ok(standing) = self.sized(snapshot, &basis, manifest, standing).await
            {
                return Some(Admits { grant: grant.clone(), standing });
            }
        }
        None
    }

    /// The first grant on a manifest that admits it, after reaching anew the verdicts that are not current.
    pub(super) async fn renewed_grant(
        &self,
        snapshot: &Arc<Snapshot>,
        manifest: &UnverifiedManifest,
        grants: &[Grant],
    ) -> Held {
        let grants = grants.iter().filter(|grant| is_on_manifest(grant));
        self.renew(snapshot, manifest.digest(), Some(manifest), grants).await
    }

    /// The right to fetch a blob: asked before anything that depends on whether its bytes are cached, so that neither the
    /// answer nor the work tells who has what. Grants that state a size which is not `wanted` are passed over.
    ///
    /// # Errors
    /// [`PullError::BlobUnknown`] when no admitted manifest of this repository lists it; [`PullError::Overloaded`] when the
    /// verdict store does not answer; [`PullError::Undecided`] and other errors of a verdict when the only grants rest on
    /// one that cannot be reached now.
    pub(super) async fn blob_grant(
        &self,
        repository: &Repository,
        digest: &Digest,
        wanted: impl Fn(u64) -> bool + Send + Sync,
    ) -> Result<Grant, PullError> {
        let snapshot = self.parts.snapshot.load_full();
        // No answer in time is not "there is none": a client would take the 404 as the image's and go round us.
        let Some(grants) = self.parts.store.find_grants(repository, digest).await else {
            return Err(PullError::Overloaded);
        };
        let grants = || grants.iter().filter(|grant| wanted(grant.size));
        for grant in grants() {
            if grant.kind == GrantKind::Artefact && !is_artefact(grant, digest) {
                return Ok(grant.clone());
            }
            if grant.kind == GrantKind::Blob && self.is_current_blob(&snapshot, digest, grant).await {
                return Ok(grant.clone());
            }
        }
        match self.renew(&snapshot, digest, None, grants().filter(|grant| grant.kind == GrantKind::Blob)).await {
            Held::Admits(admits) => Ok(admits.grant),
            Held::Nothing { undecided, .. } => Err(undecided.unwrap_or(PullError::BlobUnknown)),
        }
    }

    /// Whether a blob's grant holds by what is known. While an exemption or audit mode is in force it does, whatever the
    /// verdict would be: its manifest was served under the same.
    async fn is_current_blob(&self, snapshot: &Snapshot, digest: &Digest, grant: &Grant) -> bool {
        if self.is_void(snapshot, grant).await {
            return false;
        }
        let basis = basis_of(grant);
        match self.known_verdict(snapshot, &basis).await {
            Some(verdict) => {
                self.standing(snapshot, &basis, &Ok(verdict)).is_ok_and(|standing| reaches(&standing, grant, digest))
            }
            None => self.relaxed(snapshot, &basis, DecisionLabel::AuditUndecided).is_some(),
        }
    }

    /// Judges grants until one admits; those on a manifest by its size too. When none does, those that a clean denial stands behind are taken away.
    async fn renew(
        &self,
        snapshot: &Arc<Snapshot>,
        digest: &Digest,
        manifest: Option<&UnverifiedManifest>,
        grants: impl Iterator<Item = &Grant> + Send,
    ) -> Held {
        let (mut listed, mut undecided, mut too_large) = (false, None, None);
        let (mut denied, mut kept) = (Vec::new(), Vec::new());
        // However many there are: whoever asks waits for one answer.
        let deadline = Instant::now() + VERDICT_BUDGET;
        for grant in grants {
            match self.judge(deadline, snapshot, digest, manifest, grant).await {
                Judged::Admits(standing) => return Held::Admits(Admits { grant: grant.clone(), standing }),
                Judged::Denied => {
                    denied.push(&grant.image);
                    continue;
                }
                Judged::Listed => listed = true,
                Judged::TooLarge(denial) => too_large = too_large.or(Some(denial)),
                Judged::Void => {}
                Judged::Unknown(error) => undecided = undecided.or(Some(error)),
            }
            kept.push(&grant.image);
        }
        // A grant is named by its image; one image can stand behind several, after its tag moved.
        for image in denied.into_iter().filter(|image| !kept.contains(image)) {
            self.parts.store.revoke_grants(&image.repository, digest, image).await;
            self.parts.hot.forget_granted();
        }
        Held::Nothing { listed, undecided, too_large }
    }

    async fn judge(
        &self,
        deadline: Instant,
        snapshot: &Arc<Snapshot>,
        digest: &Digest,
        manifest: Option<&UnverifiedManifest>,
        grant: &Grant,
    ) -> Judged {
        if self.is_void(snapshot, grant).await {
            return Judged::Void;
        }
        let basis = basis_of(grant);
        let answer = self.verdict_by(deadline, snapshot, &basis).await;
        match self.standing(snapshot, &basis, &answer) {
            Ok(standing) if !reaches(&standing, grant, digest) => Judged::Listed,
            Ok(standing) if !holds_for_child(snapshot, &standing, grant, digest) => Judged::Void,
            Ok(standing) => match manifest {
                Some(manifest) => match self.sized(snapshot, &basis, manifest, standing).await {
                    Ok(standing) => Judged::Admits(standing),
                    Err(denial) => Judged::TooLarge(denial),
                },
                None => Judged::Admits(standing),
            },
            // Policy wants it as it is; with another bound the grant is good again.
            Err(denial @ PullError::Denied(_)) if is_too_large(&denial) => Judged::TooLarge(denial),
            Err(PullError::Denied(_)) => Judged::Denied,
            Err(error) => Judged::Unknown(error),
        }
    }

    async fn verdict_by(
        &self,
        deadline: Instant,
        snapshot: &Arc<Snapshot>,
        basis: &Basis,
    ) -> Result<Arc<StoredVerdict>, Unreached> {
        let late = || {
            let cause = UpstreamError::Timeout { upstream: basis.image.repository.host().clone() };
            Err(Unreached::Evidence { reason: format!("no verdict on {} in time", basis.image), cause })
        };
        if Instant::now() >= deadline {
            return late();
        }
        let verdict = timeout_at(deadline, self.verdict(snapshot, basis, Depth::TOP)).await;
        verdict.unwrap_or_else(|_| late())
    }

    /// Under `leaf-only` indexes grant nothing, also not what they granted under another rule.
    async fn is_void(&self, snapshot: &Snapshot, grant: &Grant) -> bool {
        grant.kind != GrantKind::Manifest
            && snapshot.policy.multi_arch(&grant.image, &grant.admitting) == MultiArch::LeafOnly
            && self.parts.store.media_type(&grant.admitting).await.is_none_or(crate::oci::MediaType::is_index)
    }

    /// Keeps what admitting `manifest` on `basis` grants, before anybody is told that it was admitted: blobs may be asked
    /// first, from another process, after a restart. Costs nothing when it was done lately.
    ///
    /// # Errors
    /// As [`Puller::check_listing`], for a child.
    pub(super) async fn keep_grants(
        &self,
        snapshot: &Snapshot,
        basis: &Basis,
        extent: Extent,
        manifest: &UnverifiedManifest,
    ) -> Result<(), PullError> {
        let digest = *manifest.digest();
        let key = GrantedKey { basis: basis.clone(), digest, extent, policy: snapshot.policy.fingerprint() };
        let now = self.parts.clock.now();
        if self.parts.hot.is_granted(&key, now) {
            return Ok(());
        }
        let repository = &basis.image.repository;
        if basis.digest != digest {
            self.check_listing(repository, &basis.digest, manifest).await?;
        }
        let grants = self.grants_of(snapshot, basis, extent, manifest).await;
        self.parts.store.put_media_type(&digest, manifest.parsed().media_type).await;
        self.parts.store.keep_content(&digest, manifest.bytes().clone()).await;
        self.parts.store.put_grants(repository, grants).await;
        self.parts.hot.keep_granted(key, now);
        Ok(())
    }

    async fn grants_of(
        &self,
        snapshot: &Snapshot,
        basis: &Basis,
        extent: Extent,
        manifest: &UnverifiedManifest,
    ) -> Vec<(Digest, Grant)> {
        let grant = |kind, size| Grant { kind, size, admitting: basis.digest, image: basis.image.clone() };
        let mut grants = Vec::new();
        if basis.digest == *manifest.digest() {
            grants.push((basis.digest, grant(GrantKind::Manifest, manifest.size())));
        }
        if extent == Extent::Itself {
            return grants;
        }
        grants.extend(manifest.parsed().blobs().map(|blob| (blob.digest, grant(GrantKind::Blob, blob.size))));
        for child in manifest.parsed().children() {
            match extent {
                Extent::Whole => grants.push((child.digest, grant(GrantKind::Child, child.size))),
                // Such a grant reaches no further than the artefact rule.
                Extent::Children if child.is_attestation_child() => {
                    grants.push((child.digest, grant(GrantKind::Child, child.size)));
                }
                Extent::Children => grants.extend(self.own_grant(snapshot, basis, child).await),
                Extent::Itself => {}
            }
        }
        grants
    }

    /// The grant of a child that satisfied policy: it rests on the child's own verdict, not on the index's.
    async fn own_grant(&self, snapshot: &Snapshot, index: &Basis, child: &Descriptor) -> Option<(Digest, Grant)> {
        let basis = child_basis(snapshot, &index.image, &child.digest);
        let verdict = self.known_verdict(snapshot, &basis).await?;
        let grant =
            Grant { kind: GrantKind::Child, size: child.size, admitting: child.digest, image: basis.image.clone() };
        satisfies_policy(&verdict).then_some((child.digest, grant))
    }
}

/// What a grant rests on.
pub(super) fn basis_of(grant: &Grant) -> Basis {
    Basis::new(&grant.image, &grant.admitting)
}

fn is_too_large(error: &PullError) -> bool {
    matches!(error, PullError::Denied(denial) if denial.reason == Reason::TooLarge)
}

fn is_on_manifest(grant: &Grant) -> bool {
    matches!(grant.kind, GrantKind::Manifest | GrantKind::Child)
}

/// Whether an admission reaches what the grant is on: the admitted manifest itself, a blob of an image, or anything listed
/// by an index that was admitted by its own signature, an exemption or audit mode.
fn reaches(standing: &Standing, grant: &Grant, digest: &Digest) -> bool {
    grant.admitting == *digest || standing.extent == Extent::Whole
}

/// Whether what an index owes to audit mode alone may pass to a child: an override for the child's own digest is more
/// specific than any for the reference that was asked for.
fn holds_for_child(snapshot: &Snapshot, standing: &Standing, grant: &Grant, digest: &Digest) -> bool {
    match (grant.kind, standing.decision) {
        (GrantKind::Child, DecisionLabel::AuditDeny | DecisionLabel::AuditUndecided) => {
            snapshot.policy.mode(&grant.image, digest) == Mode::Audit
        }
        (GrantKind::Child | GrantKind::Manifest | GrantKind::Blob | GrantKind::Artefact, _) => true,
    }
}
