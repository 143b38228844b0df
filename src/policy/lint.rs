//! Findings of `sealgate policy check`: what loads and does not mean what it seems to mean.

use std::fmt;

use super::containers_policy::Trap;
use super::{Exemption, PolicySet};
use crate::clock::Timestamp;
use crate::limits::EXEMPTION_END_WARNED;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Probably a mistake.
    Warning,
    /// Certainly a mistake.
    Error,
}

impl Severity {
    /// As text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Something that deserves a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// Where: in policy.json such as `transports.docker["quay.io/x"][0]`, in the configuration such as `policy.override[0]`.
    pub json_path: String,
    /// What is the matter, and what to do.
    pub text: String,
}

impl fmt::Display for Finding {
    /// Where, and what; not how much it matters.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.json_path, self.text)
    }
}

impl Finding {
    pub(super) fn new(severity: Severity, json_path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { severity, json_path: json_path.into(), text: text.into() }
    }

    pub(super) fn of_scope(json_path: String, trap: Trap) -> Self {
        match trap {
            Trap::NeverMatches(why) => {
                Self::new(Severity::Error, json_path, format!("this scope never matches: {why}"))
            }
            Trap::Suspicious(why) => Self::new(Severity::Warning, json_path, why),
        }
    }
}

impl PolicySet {
    /// What deserves a look in the policies, overrides and exemptions, at the time `now`.
    pub fn lint(&self, now: Timestamp) -> Vec<Finding> {
        let mut findings = self.formats.lint();
        for (index, scope) in self.overrides.iter().map(|one| &one.scope).enumerate() {
            if let Some(trap) = scope.trap() {
                findings.push(Finding::of_scope(format!("policy.override[{index}].scope"), trap));
            }
        }
        for (index, exemption) in self.exemptions.iter().enumerate() {
            if let Some(trap) = exemption.scope.trap() {
                findings.push(Finding::of_scope(format!("policy.exemption[{index}].scope"), trap));
            }
        }
        findings.extend(self.lapsed(now));
        findings
    }

    /// What time has made useless or soon will, worth a word whenever the policy is loaded.
    pub fn lapsed(&self, now: Timestamp) -> Vec<Finding> {
        let mut findings = self.formats.containers_policy.as_ref().map(|one| one.lapsed(now)).unwrap_or_default();
        for (index, exemption) in self.exemptions.iter().enumerate() {
            let Exemption { scope, owner, expires, .. } = exemption;
            let text = if exemption.is_expired(now) {
                format!("the exemption of {scope} expired on {expires} and is inert; remove it (its owner: {owner})")
            } else if *expires <= now.plus(EXEMPTION_END_WARNED) {
                format!(
                    "the exemption of {scope} expires on {expires}, and policy decides from then on; its owner: {owner}"
                )
            } else {
                continue;
            };
            findings.push(Finding::new(Severity::Warning, format!("policy.exemption[{index}].expires"), text));
        }
        findings
    }
}
