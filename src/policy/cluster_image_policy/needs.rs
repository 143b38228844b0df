//! What the policies that cover an image need, before anything is looked for.

use super::CipMode;
use super::resolve::{ClusterImagePolicies, Policy};
use crate::oci::{Algorithm, ImageReference, Reference};
use crate::policy::Wanted;

/// What the policies that cover an image need, before anything is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::policy) enum Needs {
    /// No policy covers it.
    NotCovered,
    /// The answer is certain: no.
    Denied,
    /// The answer is certain once it is asked for.
    Nothing,
    /// This, to decide.
    Material(Wanted),
    /// This, to warn; it is admitted either way.
    ForWarnings(Wanted),
}

/// What deciding about `image` needs.
pub(in crate::policy) fn needs(policies: &ClusterImagePolicies, image: &ImageReference) -> Needs {
    let covering: Vec<&Policy> = policies.covering(image).collect();
    if covering.is_empty() {
        return Needs::NotCovered;
    }
    if covering.iter().any(|policy| policy.denies_everything()) {
        return Needs::Denied;
    }
    if matches!(&image.reference, Reference::Digest(digest) if digest.algorithm() != Algorithm::Sha256) {
        return Needs::Nothing;
    }
    let wanted = |mode| {
        let of_mode = covering.iter().filter(|policy| policy.document.mode == mode);
        of_mode.fold(Wanted::default(), |wanted, policy| wanted.and(policy.wanted(image)))
    };
    let (enforce, warn) = (wanted(CipMode::Enforce), wanted(CipMode::Warn));
    match (enforce.is_empty(), warn.is_empty()) {
        (true, true) => Needs::Nothing,
        (true, false) => Needs::ForWarnings(warn),
        (false, _) => Needs::Material(enforce.and(warn)),
    }
}
