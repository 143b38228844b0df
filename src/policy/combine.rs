//! Both formats together: policy.json AND every ClusterImagePolicy that covers the image; who denies, wins.
//!
//! A format that is not configured is absent, it does not allow. Beside a policy.json, whose `default` is there for every
//! image, ClusterImagePolicies abstain from what they do not cover; alone, `no_match` decides.

use serde_json::json;

use super::cluster_image_policy::{self, Answer, ClusterImagePolicies, Conclusion, Needs};
use super::containers_policy::texts::verdict_line;
use super::containers_policy::trap;
use super::containers_policy::{self, ContainersPolicy, Question, RegistriesD};
use super::evidence::{head, set, set_remainder};
use super::finding::{Finder, KnownKeys};
use super::lint::Finding;
use super::{
    BundlesWithoutIdentity, Decision, EvaluateError, Material, NoMatch, Plan, Reason, RestsOn, Severity, Verdict,
    Wanted,
};
use crate::clock::Timestamp;
use crate::oci::{Digest, ImageReference};
use crate::verify::quote::go_quote;

/// The policies of both formats. At least one is there.
#[derive(Debug)]
pub(super) struct Formats {
    pub(super) containers_policy: Option<ContainersPolicy>,
    pub(super) cluster_image_policies: Option<ClusterImagePolicies>,
    pub(super) no_match: NoMatch,
    pub(super) registries_d: RegistriesD,
}

impl Formats {
    /// What deciding needs: nothing where the answer is certain without.
    pub(super) fn plan(&self, image: &ImageReference) -> Plan {
        let plan = |policy| (policy, containers_policy::plan(policy, &self.registries_d, image));
        let first = self.containers_policy.as_ref().map(plan);
        if let Some((policy, Plan::WithoutMaterial)) = &first
            && denies(policy, image)
        {
            return Plan::WithoutMaterial;
        }
        let first = first.map_or(Plan::WithoutMaterial, |(_, plan)| plan);
        let second = self.cluster_image_policies.as_ref().map(|policies| cluster_image_policy::needs(policies, image));
        let second = match second {
            None | Some(Needs::NotCovered | Needs::Nothing | Needs::Denied) => Plan::WithoutMaterial,
            Some(Needs::Material(wanted)) => Plan::NeedsMaterial(wanted),
            Some(Needs::ForWarnings(wanted)) => Plan::WantsMaterial(wanted),
        };
        self.registries_d.restrict(image, both(first, second))
    }

    /// Decides.
    pub(super) fn evaluate(&self, question: Question<'_>) -> Result<Verdict, EvaluateError> {
        let first = self.containers_policy.as_ref().map(|policy| containers_policy::evaluate(policy, question));
        let Some(policies) = &self.cluster_image_policies else {
            return Ok(first.unwrap_or_else(|| no_policy(question)));
        };
        match first {
            Some(denied) if denied.decision == Decision::Deny => Ok(denied),
            first => {
                let answer = cluster_image_policy::evaluate(policies, question)?;
                Ok(self.verdict(question, first, answer))
            }
        }
    }

    fn verdict(&self, question: Question<'_>, first: Option<Verdict>, answer: Answer) -> Verdict {
        let Answer { conclusion, rests_on, evidence } = answer;
        let rests_on = match (&first, rests_on) {
            (Some(Verdict { rests_on: RestsOn::Certificates, .. }), _) | (_, RestsOn::Certificates) => {
                RestsOn::Certificates
            }
            (Some(_) | None, RestsOn::Timeless) => RestsOn::Timeless,
        };
        let own_text = match (conclusion, first) {
            (None, Some(alone)) => (alone.decision, alone.reason, alone.text.clone(), alone.not_after, Some(alone)),
            (None, None) => {
                let (decision, text) = no_match(self.no_match);
                (decision, Reason::NoMatchingPolicy, text.to_owned(), None, None)
            }
            (Some(Conclusion::Denied { reason, text }), first) => {
                (Decision::Deny, reason, verdict_line(&text), None, first)
            }
            (Some(Conclusion::Allowed { reason, signers, mut warnings, not_after }), first) => {
                // An enforcing policy would have no answer.
                if question.material.incomplete && !warnings.is_empty() {
                    warnings.push("not all signatures could be looked at".to_owned());
                }
                let text = allowed_text(first.as_ref(), &signers, &warnings);
                let reason = both_reasons(first.as_ref(), reason);
                let not_after = first.as_ref().and_then(|first| first.not_after).into_iter().chain(not_after).min();
                (Decision::Allow, reason, text, not_after, first)
            }
        };
        let (decision, reason, text, not_after, first) = own_text;
        let mut document = first.map_or_else(
            || {
                let mut document = head(question, decision, reason, &text);
                set(&mut document.0, "format", json!("ClusterImagePolicy"));
                set_remainder(&mut document, question);
                document
            },
            |first| first.evidence,
        );
        for (key, value) in [("decision", decision.as_str()), ("reason", reason.as_label()), ("text", &text)] {
            set(&mut document.0, key, json!(value));
        }
        if self.containers_policy.is_some() {
            set(&mut document.0, "format", json!("containers-policy.json and ClusterImagePolicy"));
        }
        set(&mut document.0, "cluster_image_policies", evidence);
        Verdict { decision, reason, text, not_after, rests_on, evidence: document }
    }

    /// Every key that they list, with the scope or policy that lists it.
    pub(super) fn known_keys(&self) -> KnownKeys {
        let mut known = KnownKeys::default();
        if let Some(policy) = &self.containers_policy {
            policy.add_keys(&mut known);
        }
        if let Some(policies) = &self.cluster_image_policies {
            policies.add_keys(&mut known);
        }
        known
    }

    /// Everything in them that can change an answer.
    pub(super) fn canonical(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(policy) = &self.containers_policy {
            lines.push("containers_policy".to_owned());
            lines.extend(policy.canonical());
        }
        if let Some(policies) = &self.cluster_image_policies {
            lines.push("cluster_image_policies".to_owned());
            lines.extend(policies.canonical());
            lines.push(format!("no_match {:?}", self.no_match));
        }
        lines.push("registries_d".to_owned());
        lines.extend(self.registries_d.canonical());
        lines
    }

    /// What deserves a look in them and in how they go together.
    pub(super) fn lint(&self) -> Vec<Finding> {
        let mut findings = self.containers_policy.as_ref().map(|policy| policy.document.lint()).unwrap_or_default();
        if let Some(policy) = &self.containers_policy {
            findings.extend(policy.lint_lookaside(&self.registries_d));
        }
        if let Some(policies) = &self.cluster_image_policies {
            findings.extend(cluster_image_policy::lint(policies.documents()));
        }
        if let (Some(policy), Some(_)) = (&self.containers_policy, &self.cluster_image_policies)
            && policy.document.accepts_anything_by_default()
        {
            let text = "an image that no scope here and no ClusterImagePolicy matches is accepted unsigned; no_match has no \
                        effect beside a policy.json";
            findings.push(Finding::new(Severity::Warning, "default", text));
        }
        for namespace in self.registries_d.namespaces() {
            if let Some(trap) = trap(namespace) {
                findings.push(Finding::of_scope(format!("registries_d: docker[{}]", go_quote(namespace)), trap));
            }
        }
        findings
    }
}

/// Whether policy.json refuses the image whatever is signed.
fn denies(policy: &ContainersPolicy, image: &ImageReference) -> bool {
    let (digest, material) = (Digest::sha256(b""), Material::default());
    let digest = match &image.reference {
        crate::oci::Reference::Digest(digest) => digest,
        crate::oci::Reference::Tag(_) => &digest,
    };
    let known = KnownKeys::default();
    let now = Timestamp::from_unix_millis(0);
    let question = Question {
        image,
        digest,
        material: &material,
        bundles_without_identity: BundlesWithoutIdentity::Refused,
        searched: RegistriesD::default().searched(image),
        now,
        finder: &Finder::new(&known, None, digest, now),
    };
    containers_policy::evaluate(policy, question).decision == Decision::Deny
}

fn both(first: Plan, second: Plan) -> Plan {
    let wanted = |first: Wanted, second: Wanted| first.and(second);
    match (first, second) {
        (Plan::WithoutMaterial, other) | (other, Plan::WithoutMaterial) => other,
        (Plan::WantsMaterial(first), Plan::WantsMaterial(second)) => Plan::WantsMaterial(wanted(first, second)),
        (
            Plan::NeedsMaterial(first) | Plan::WantsMaterial(first),
            Plan::NeedsMaterial(second) | Plan::WantsMaterial(second),
        ) => Plan::NeedsMaterial(wanted(first, second)),
    }
}

/// The answer for what no ClusterImagePolicy covers, where there is no policy.json.
const fn no_match(no_match: NoMatch) -> (Decision, &'static str) {
    match no_match {
        NoMatch::Deny => (Decision::Deny, "no matching policies"),
        NoMatch::Allow => (Decision::Allow, "no matching policies, and no_match allows"),
        NoMatch::Warn => (Decision::Allow, "warning: no matching policies"),
    }
}

fn both_reasons(first: Option<&Verdict>, second: Reason) -> Reason {
    match (first.map(|first| first.reason), second) {
        // What a policy.json verified stays verified beside a policy that asks for nothing.
        (Some(first), Reason::AcceptAnything) => first,
        (_, second) => second,
    }
}

fn allowed_text(first: Option<&Verdict>, signers: &[String], warnings: &[String]) -> String {
    let mut parts: Vec<String> = warnings.iter().map(|warning| format!("warning: {warning}")).collect();
    parts.extend(first.filter(|first| first.reason != Reason::AcceptAnything).map(|first| first.text.clone()));
    parts.extend(signers.iter().cloned());
    if parts.is_empty() {
        parts.push("policy accepts anything here, signed or not".to_owned());
    }
    verdict_line(&parts.join("; "))
}

/// Cannot come about: [`super::PolicySet::new`] refuses to be without a policy.
fn no_policy(question: Question<'_>) -> Verdict {
    let (decision, reason, text) = (Decision::Deny, Reason::NoMatchingPolicy, "no policy is configured");
    let evidence = head(question, decision, reason, text);
    Verdict { decision, reason, text: text.to_owned(), not_after: None, rests_on: RestsOn::Timeless, evidence }
}
