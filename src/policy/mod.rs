//! CORE. What must be true for an image to be admitted.
//!
//! [`PolicySet`] is all that was configured under `[policy]`, with the key files read in. It answers what it needs
//! ([`PolicySet::plan`]) and what it decides ([`PolicySet::evaluate`]); both are pure. May import: `verify`, `oci`, `limits`, `clock`.

mod cluster_image_policy;
mod combine;
mod containers_policy;
mod evidence;
mod explain;
mod finding;
mod fingerprint;
mod keys;
mod lint;
mod overrides;
mod signers;
mod verdict;
mod wanted;
mod yaml;

pub use cluster_image_policy::{
    AttestationDocument, AuthorityDocument, CipError, CipMode, ClusterImagePolicies, ClusterImagePolicyDocument,
    CtlogDocument, Glob, GlobError, Origin, PolicyFile, RegoDocument, SignatureFormat, SignerDocument, SourceDocument,
    StaticAction, TrustRootDocument, cluster_image_policy_keys, trust_root_keys,
};
pub use containers_policy::{
    ContainersPolicy, ContainersPolicyDocument, DocumentError, NamedFile, ReadFile, RegistriesD, RegistriesDError,
    ResolveError, SignedIdentity, containers_policy_keys,
};
pub use explain::{Explanation, PolicyExplanation, Requires, ScopeExplanation};
pub use keys::FormatKey;
pub use lint::{Finding, Severity};
pub use overrides::{BundlesWithoutIdentity, Exemption, Override, Scope, ScopeError};
pub use signers::ReportedMaterial;
pub use verdict::{Decision, EvaluateError, Evidence, Material, NoAnswer, Reason, RestsOn, Skipped, Verdict};
pub use wanted::{AlternateSource, LookasideBase, LookasideBaseError, MaterialKind, Wanted};

use combine::Formats;
use containers_policy::Question;
use finding::{Finder, KnownKeys};

use crate::clock::Timestamp;
use crate::oci::{Algorithm, Digest, ImageReference, Reference, Repository};
use crate::verify::SigstoreRoot;

/// Serve or only record (design §3, `mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// A denial refuses.
    #[default]
    Enforce,
    /// A denial is recorded and the image served.
    Audit,
}

/// How indexes and their children relate (design §6, "Multi-arch").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MultiArch {
    /// The index itself, or every platform child.
    #[default]
    IndexOrEveryLeaf,
    /// The index itself, or at least one platform child.
    IndexOrAnyLeaf,
    /// Indexes pass ungated; each child needs its own verdict.
    LeafOnly,
}

/// What deciding about an image will need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// The decision needs no signature material.
    WithoutMaterial,
    /// Signature material must be discovered first; without it there is no answer.
    NeedsMaterial(Wanted),
    /// The answer does not depend on material, but its warnings do: what cannot be found out is left out.
    WantsMaterial(Wanted),
}

/// What holds for an image that no ClusterImagePolicy covers (`no_match`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum NoMatch {
    /// It is refused.
    #[default]
    Deny,
    /// It is admitted.
    Allow,
    /// It is admitted, with a warning.
    Warn,
}

/// What was configured under `[policy]`.
#[derive(Debug, Default)]
pub struct Settings {
    /// The policy.json; none: that format is not configured.
    pub containers_policy: Option<ContainersPolicy>,
    /// The ClusterImagePolicies; none: that format is not configured.
    pub cluster_image_policies: Option<ClusterImagePolicies>,
    /// What holds for an image that no ClusterImagePolicy covers, when there is no policy.json.
    pub no_match: NoMatch,
    /// Whose signatures a report names (audit mode); it authorises nobody. None: nobody's.
    pub trust_root: Option<SigstoreRoot>,
    /// Where lookaside signatures lie; empty: nowhere.
    pub registries_d: RegistriesD,
    /// `mode`
    pub mode: Mode,
    /// `multi_arch`
    pub multi_arch: MultiArch,
    /// `[[policy.override]]`, in their order.
    pub overrides: Vec<Override>,
    /// `[[policy.exemption]]`, in their order.
    pub exemptions: Vec<Exemption>,
}

/// The settings do not make a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// No format is configured, and an absent policy is not one that allows.
    #[error(
        "no policy is configured: set policy.containers_policy to a containers-policy.json, or \
             policy.cluster_image_policies to ClusterImagePolicy files"
    )]
    NotConfigured,
    /// Two overrides for one scope would leave it to their order which counts.
    #[error("policy.override[{index}]: the scope {scope} has an override already; put their keys together")]
    OverrideTwice {
        /// The second one's place, from 0.
        index: usize,
        /// Their scope.
        scope: Scope,
    },
    /// An exemption that nobody answers for, or that has no reason.
    #[error("policy.exemption[{index}].{key}: empty; say why the image is exempt and who answers for it")]
    ExemptionIncomplete {
        /// Its place, from 0.
        index: usize,
        /// What is empty.
        key: &'static str,
    },
}

/// All that was configured under `[policy]`. Immutable; a reload makes a new one.
#[derive(Debug)]
pub struct PolicySet {
    formats: Formats,
    trust_root: Option<SigstoreRoot>,
    known_keys: KnownKeys,
    mode: Mode,
    multi_arch: MultiArch,
    overrides: Vec<Override>,
    exemptions: Vec<Exemption>,
    fingerprint: Digest,
}

impl PolicySet {
    /// Checks the settings against each other.
    ///
    /// # Errors
    /// [`PolicyError`] when there is no policy, or an override or exemption is ambiguous or incomplete.
    pub fn new(settings: Settings) -> Result<Self, PolicyError> {
        let Settings {
            containers_policy,
            cluster_image_policies,
            no_match,
            trust_root,
            registries_d,
            mode,
            multi_arch,
            overrides,
            exemptions,
        } = settings;
        if containers_policy.is_none() && cluster_image_policies.is_none() {
            return Err(PolicyError::NotConfigured);
        }
        let mut scopes = std::collections::BTreeSet::new();
        for (index, over) in overrides.iter().enumerate() {
            if !scopes.insert(&over.scope) {
                return Err(PolicyError::OverrideTwice { index, scope: over.scope.clone() });
            }
        }
        for (index, exemption) in exemptions.iter().enumerate() {
            for (key, text) in [("reason", &exemption.reason), ("owner", &exemption.owner)] {
                if text.trim().is_empty() {
                    return Err(PolicyError::ExemptionIncomplete { index, key });
                }
            }
        }
        let formats = Formats { containers_policy, cluster_image_policies, no_match, registries_d };
        let fingerprint = fingerprint::of(&formats, multi_arch, &overrides);
        let known_keys = formats.known_keys();
        Ok(Self { formats, trust_root, known_keys, mode, multi_arch, overrides, exemptions, fingerprint })
    }

    /// Digest over everything that can change an answer: policies, key bytes, overrides, `multi_arch`, limits. Not exemptions and
    /// modes, which are applied when a verdict is read.
    pub fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// What deciding about `image` needs.
    pub fn plan(&self, image: &ImageReference) -> Plan {
        self.formats.plan(image)
    }

    /// What a report on who signed the image looks for beyond the plan: every other place where a signature may lie. `None` where
    /// nobody asks for a report. Neither an answer nor its absence ever depends on it.
    pub fn wished(&self, image: &ImageReference, digest: &Digest) -> Option<Wanted> {
        // Signatures name sha256 digests.
        let is_bound = digest.algorithm() == Algorithm::Sha256;
        if !is_bound || self.mode(image, digest) != Mode::Audit || self.trust_root.is_none() {
            return None;
        }
        let everything = self.formats.registries_d.everything(image);
        Some(match self.plan(image) {
            Plan::WithoutMaterial => everything,
            Plan::NeedsMaterial(planned) | Plan::WantsMaterial(planned) => {
                everything.beyond(&planned, &image.repository)
            }
        })
    }

    /// Decides. `digest` is the digest of the manifest's bytes.
    ///
    /// # Errors
    /// [`EvaluateError`] when a policy's own program fails: that is no answer, and admits nothing.
    pub fn evaluate(
        &self,
        image: &ImageReference,
        digest: &Digest,
        material: &Material,
        now: Timestamp,
    ) -> Result<Verdict, EvaluateError> {
        let bundles_without_identity = self.bundles_without_identity(image, digest);
        let finder = &Finder::new(&self.known_keys, self.trust_root(), digest, now);
        let searched = self.formats.registries_d.searched(image);
        let question = Question { image, digest, material, searched, bundles_without_identity, now, finder };
        let mut verdict = self.formats.evaluate(question)?;
        evidence::fit(&mut verdict.evidence);
        Ok(verdict)
    }

    /// Adds to the evidence who signed the image, whoever the policy names, out of all that was found, and what could not be
    /// found out. For reports: it authorises nobody.
    pub fn report(&self, evidence: &mut Evidence, digest: &Digest, found: &[ReportedMaterial<'_>], now: Timestamp) {
        if let Some(root) = &self.trust_root {
            let known = &self.known_keys;
            signers::report(&mut evidence.0, found, signers::Identify { digest, root, known, now });
            evidence::fit(evidence);
        }
    }

    /// Whether a policy scope names this very digest (design §2, "Tag, then digest").
    pub fn has_digest_scope(&self, image: &ImageReference) -> bool {
        let has_scope = |policy: &ContainersPolicy| policy.has_scope(image);
        let names = |policies: &ClusterImagePolicies| policies.names_digest(image);
        matches!(image.reference, Reference::Digest(_))
            && (self.formats.containers_policy.as_ref().is_some_and(has_scope)
                || self.formats.cluster_image_policies.as_ref().is_some_and(names))
    }

    /// The mode for that image, after overrides (digest beats tag beats repository beats namespace).
    pub fn mode(&self, image: &ImageReference, digest: &Digest) -> Mode {
        overrides::overridden(&self.overrides, image, Some(digest), |over| over.mode).unwrap_or(self.mode)
    }

    /// The scopes in which a denial is only recorded, for those who watch over the mirror; `*` is everything that no override names.
    pub fn audited_scopes(&self) -> Vec<String> {
        let everything = (self.mode == Mode::Audit).then(|| "*".to_owned());
        let audited = self.overrides.iter().filter(|over| over.mode == Some(Mode::Audit));
        everything.into_iter().chain(audited.map(|over| over.scope.to_string())).collect()
    }

    /// Where OpenPGP signatures lie.
    pub fn registries_d(&self) -> &RegistriesD {
        &self.formats.registries_d
    }

    /// Whose signatures a report names, whether or not a policy trusts them; none: nobody's.
    pub fn trust_root(&self) -> Option<&SigstoreRoot> {
        self.trust_root.as_ref()
    }

    /// The repositories outside an image's own in which ClusterImagePolicies look for signatures, and where they say so.
    pub fn signature_sources(&self) -> impl Iterator<Item = (&Origin, &Repository)> {
        self.formats.cluster_image_policies.iter().flat_map(ClusterImagePolicies::sources)
    }

    /// The exemptions, in force or not.
    pub fn exemptions(&self) -> &[Exemption] {
        &self.exemptions
    }

    /// How the index with that digest relates to its children, after overrides.
    pub fn multi_arch(&self, image: &ImageReference, digest: &Digest) -> MultiArch {
        overrides::overridden(&self.overrides, image, Some(digest), |over| over.multi_arch).unwrap_or(self.multi_arch)
    }

    /// Whether a bundle, which names a digest and no reference, satisfies a `signedIdentity` for that image.
    pub fn bundles_without_identity(&self, image: &ImageReference, digest: &Digest) -> BundlesWithoutIdentity {
        let key = |over: &Override| over.bundles_without_identity;
        overrides::overridden(&self.overrides, image, Some(digest), key).unwrap_or_default()
    }

    /// Most bytes that the image's config and layers may have together, compressed; none: no bound.
    pub fn max_image_bytes(&self, image: &ImageReference, digest: &Digest) -> Option<u64> {
        let key = |over: &Override| over.max_image_bytes;
        overrides::overridden(&self.overrides, image, Some(digest), key).filter(|bytes| *bytes > 0)
    }

    /// The exemption in force for that image at `now`, if any.
    pub fn exemption(&self, image: &ImageReference, digest: &Digest, now: Timestamp) -> Option<&Exemption> {
        overrides::exempted(&self.exemptions, image, Some(digest), now)
    }
}

#[cfg(test)]
mod tests;
