//! What policy asks of an image, without asking any registry (`sealgate policy explain`).

use super::cluster_image_policy::ClusterImagePolicies;
use super::containers_policy::{ContainersPolicy, Requirement};
use super::{CipMode, Exemption, LookasideBase, Mode, MultiArch, NoMatch, Plan, PolicySet, overrides};
use crate::clock::Timestamp;
use crate::oci::ImageReference;

/// What applies to an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation<'a> {
    /// What policy.json asks, where there is one.
    pub containers_policy: Option<ScopeExplanation<'a>>,
    /// The ClusterImagePolicies that cover the image, where that format is configured; all of them must be satisfied.
    pub cluster_image_policies: Option<Vec<PolicyExplanation>>,
    /// What holds when none covers it; none: another format decides.
    pub no_match: Option<NoMatch>,
    /// Whether signatures have to be looked for.
    pub plan: Plan,
    /// Serve or only record.
    pub mode: Mode,
    /// How the image's index relates to its children.
    pub multi_arch: MultiArch,
    /// Below which address its OpenPGP signatures lie; none: they are not looked for.
    pub lookaside: Option<&'a LookasideBase>,
    /// Most bytes that the image may have; none: no bound.
    pub max_image_bytes: Option<u64>,
    /// The exemption in force, as far as the reference tells.
    pub exemption: Option<&'a Exemption>,
}

/// The part of a policy.json that decides about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeExplanation<'a> {
    /// The scope; none: the top-level `default`.
    pub scope: Option<&'a str>,
    /// Where, such as `transports.docker["quay.io/x"]`.
    pub json_path: &'a str,
    /// All of these must be satisfied, in this order.
    pub requirements: Vec<Requires>,
}

/// A ClusterImagePolicy that covers an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyExplanation {
    /// `metadata.name`
    pub name: String,
    /// File and line.
    pub defined: String,
    /// Refuse, or only warn.
    pub mode: CipMode,
    /// Names and meanings of its authorities; any of them is enough.
    pub authorities: Vec<(String, String)>,
    /// Whether a Rego rule of its own has the last word.
    pub has_rule: bool,
}

/// One requirement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requires {
    /// Where in policy.json.
    pub json_path: String,
    /// Its type, such as `sigstoreSigned`.
    pub kind: &'static str,
    /// Its meaning for people.
    pub means: String,
}

impl PolicySet {
    /// What applies to `image` at `now`. An override or exemption for a digest shows only when the image is named by it.
    pub fn explain(&self, image: &ImageReference, now: Timestamp) -> Explanation<'_> {
        let formats = &self.formats;
        let covering = formats.cluster_image_policies.as_ref().map(|policies| covering(policies, image));
        let uncovered = formats.containers_policy.is_none() && covering.as_ref().is_some_and(Vec::is_empty);
        let max_image_bytes = overrides::overridden(&self.overrides, image, None, |over| over.max_image_bytes);
        let mode = overrides::overridden(&self.overrides, image, None, |over| over.mode);
        let multi_arch = overrides::overridden(&self.overrides, image, None, |over| over.multi_arch);
        Explanation {
            containers_policy: formats.containers_policy.as_ref().map(|policy| scope(policy, image)),
            cluster_image_policies: covering,
            no_match: uncovered.then_some(formats.no_match),
            plan: self.plan(image),
            mode: mode.unwrap_or(self.mode),
            multi_arch: multi_arch.unwrap_or(self.multi_arch),
            lookaside: formats.registries_d.lookaside(image),
            max_image_bytes: max_image_bytes.filter(|bytes| *bytes > 0),
            exemption: overrides::exempted(&self.exemptions, image, None, now),
        }
    }
}

fn scope<'a>(policy: &'a ContainersPolicy, image: &ImageReference) -> ScopeExplanation<'a> {
    let rules = policy.rules_for(image);
    let requires = |(index, requirement): (usize, &Requirement)| Requires {
        json_path: format!("{}[{index}]", rules.json_path),
        kind: requirement.kind(),
        means: requirement.describe(),
    };
    ScopeExplanation {
        scope: rules.scope.as_deref(),
        json_path: &rules.json_path,
        requirements: rules.requirements.iter().enumerate().map(requires).collect(),
    }
}

fn covering(policies: &ClusterImagePolicies, image: &ImageReference) -> Vec<PolicyExplanation> {
    let explained = policies.covering(image).map(|policy| PolicyExplanation {
        name: policy.document.name.clone(),
        defined: policy.document.origin.to_string(),
        mode: policy.document.mode,
        authorities: policy.describe(),
        has_rule: policy.has_rule(),
    });
    explained.collect()
}
