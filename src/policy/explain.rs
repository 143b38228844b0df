//! What policy asks of an image, without asking any registry (`sealgate policy explain`).

use super::containers_policy::Requirement;
use super::{Exemption, Mode, MultiArch, Plan, PolicySet, overrides};
use crate::clock::Timestamp;
use crate::oci::ImageReference;

/// What applies to an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation<'a> {
    /// The scope of policy.json that decides; none: its top-level `default`.
    pub scope: Option<&'a str>,
    /// Where in policy.json, such as `transports.docker["quay.io/x"]`.
    pub json_path: &'a str,
    /// All of these must be satisfied, in this order.
    pub requirements: Vec<Requires>,
    /// Whether signatures have to be looked for.
    pub plan: Plan,
    /// Serve or only record.
    pub mode: Mode,
    /// How the image's index relates to its children.
    pub multi_arch: MultiArch,
    /// The exemption in force, as far as the reference tells.
    pub exemption: Option<&'a Exemption>,
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
        let rules = self.containers_policy.rules_for(image);
        let requires = |(index, requirement): (usize, &Requirement)| Requires {
            json_path: format!("{}[{index}]", rules.json_path),
            kind: requirement.kind(),
            means: requirement.describe(),
        };
        let mode = overrides::overridden(&self.overrides, image, None, |over| over.mode);
        Explanation {
            scope: rules.scope.as_deref(),
            json_path: &rules.json_path,
            requirements: rules.requirements.iter().enumerate().map(requires).collect(),
            plan: self.plan(image),
            mode: mode.unwrap_or(self.mode),
            multi_arch: self.multi_arch(image),
            exemption: overrides::exempted(&self.exemptions, image, None, now),
        }
    }
}
