//! What was looked at under a policy.json: every requirement and every candidate, with the outcome.

use serde_json::{Value, json};

use super::evaluate::Question;
use super::resolve::{Requirement, Rules, SignedBy, SignedByKeys};
use crate::clock::Timestamp;
use crate::policy::evidence::{self, CandidateRecord, bounded, set};
use crate::policy::{Decision, Evidence, Reason};

/// What one requirement came to.
pub(super) enum Outcome {
    /// It asks for nothing.
    Accepts,
    /// A signature satisfies it.
    Signed { signer: String, not_after: Option<Timestamp> },
    /// It is not satisfied.
    Denied { reason: Reason, text: String },
}

impl Outcome {
    pub(super) fn denied(reason: Reason, text: impl Into<String>) -> Self {
        Self::Denied { reason, text: text.into() }
    }
}

/// A requirement and what it came to.
pub(super) struct RequirementRecord<'a> {
    pub(super) requirement: &'a Requirement,
    /// None: one before it is not satisfied.
    pub(super) outcome: Option<Outcome>,
    pub(super) candidates: Vec<CandidateRecord<'a>>,
}

/// The whole document.
pub(super) fn document(
    rules: &Rules,
    question: Question<'_>,
    records: &[RequirementRecord<'_>],
    decision: Decision,
    reason: Reason,
    text: &str,
) -> Evidence {
    let requirements: Vec<Value> =
        records.iter().enumerate().map(|(index, record)| requirement(rules, index, record)).collect();
    let mut document = evidence::head(question, decision, reason, text);
    set(&mut document.0, "format", json!("containers-policy.json"));
    set(&mut document.0, "scope", json!(rules.scope));
    set(&mut document.0, "json_path", json!(rules.json_path));
    set(&mut document.0, "requirements", json!(requirements));
    evidence::set_remainder(&mut document, question);
    document
}

fn requirement(rules: &Rules, index: usize, record: &RequirementRecord<'_>) -> Value {
    let mut value = json!({
        "json_path": format!("{}[{index}]", rules.json_path),
        "type": record.requirement.kind(),
        "means": record.requirement.describe(),
    });
    let trust = match record.requirement {
        Requirement::SigstoreSigned(sigstore) => Some(sigstore.trust.fingerprint()),
        Requirement::SignedBy(SignedBy { keys: SignedByKeys::OpenPgp(keys), .. }) => Some(keys.fingerprint()),
        Requirement::SignedBy(SignedBy { keys: SignedByKeys::Unimplemented { .. }, .. })
        | Requirement::InsecureAcceptAnything
        | Requirement::Reject
        | Requirement::SignedBaseLayer(_) => None,
    };
    if let Some(trust) = trust {
        set(&mut value, "trust", json!(trust.to_string()));
    }
    let outcome = match &record.outcome {
        Some(Outcome::Accepts | Outcome::Signed { .. }) => "satisfied",
        None => "not evaluated: an earlier requirement is not satisfied",
        Some(Outcome::Denied { reason, text }) => {
            set(&mut value, "reason", json!(reason.as_label()));
            set(&mut value, "text", json!(bounded(text)));
            "denied"
        }
    };
    set(&mut value, "outcome", json!(outcome));
    if matches!(record.requirement, Requirement::SigstoreSigned(_) | Requirement::SignedBy(_)) {
        let candidates: Vec<Value> = record.candidates.iter().map(CandidateRecord::json).collect();
        set(&mut value, "candidates", json!(candidates));
    }
    value
}
