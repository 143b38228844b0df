//! What was looked at, as the JSON that is stored and shown: every requirement and every candidate, with the outcome.

use serde_json::{Value, json};

use super::evaluate::Question;
use super::resolve::{Requirement, Rules};
use super::texts::ascii_line;
use crate::clock::Timestamp;
use crate::limits::IDENTITY_BYTES_MAX;
use crate::policy::{Decision, Evidence, Reason, Skipped};
use crate::verify::{SignatureMaterial, SignedReference, Signer, VerifiedSignature};

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

/// A candidate and what it came to under one requirement.
pub(super) struct CandidateRecord<'a> {
    pub(super) material: &'a SignatureMaterial,
    /// When the signature is good, whether or not it is one for the reference asked for.
    pub(super) signature: Option<VerifiedSignature>,
    pub(super) rejected: Option<(Reason, String)>,
    pub(super) examined: bool,
}

impl<'a> CandidateRecord<'a> {
    /// A candidate after one that was enough.
    pub(super) fn not_examined(material: &'a SignatureMaterial) -> Self {
        Self { material, signature: None, rejected: None, examined: false }
    }

    pub(super) fn is_accepted(&self) -> bool {
        self.examined && self.rejected.is_none() && self.signature.is_some()
    }

    fn json(&self) -> Value {
        let source = self.material.source();
        let mut record = json!({
            "place": bounded(&source.to_string()),
            "format": self.material.format(),
            "manifest": source.manifest.to_string(),
            "layer": source.layer,
        });
        let outcome = match (&self.rejected, self.examined) {
            (Some((reason, text)), _) => {
                set(&mut record, "reason", json!(reason.as_label()));
                set(&mut record, "text", json!(bounded(text)));
                "rejected"
            }
            (None, true) => "accepted",
            (None, false) => "not examined: an earlier one is enough",
        };
        set(&mut record, "outcome", json!(outcome));
        if let Some(signature) = &self.signature {
            describe(&mut record, signature);
        }
        record
    }
}

fn describe(record: &mut Value, signature: &VerifiedSignature) {
    let by = match &signature.signer {
        Signer::Key(fingerprint) => json!({ "key": fingerprint.to_string() }),
        Signer::OpenPgp(fingerprint) => json!({ "openpgp": fingerprint }),
        Signer::Certificate { issuer, subjects, .. } => {
            let subjects: Vec<String> = subjects.iter().map(|subject| bounded(subject)).collect();
            json!({ "issuer": issuer.as_deref().map(bounded), "subjects": subjects })
        }
    };
    set(record, "signer", by);
    let reference = match &signature.signed_reference {
        SignedReference::Reference(reference) => Some(reference.to_string()),
        SignedReference::Unreadable(text) => Some(bounded(text)),
        SignedReference::Absent => None,
    };
    if let Some(reference) = reference {
        set(record, "docker_reference", json!(reference));
    }
    if let Some(log) = &signature.log {
        set(record, "log", json!({ "index": log.index, "integrated": log.integrated.map(|at| at.to_string()) }));
    }
    if let Some(not_after) = signature.not_after {
        set(record, "not_after", json!(not_after.to_string()));
    }
    if !signature.notes.is_empty() {
        set(record, "notes", json!(signature.notes));
    }
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
    let material = question.material;
    let requirements: Vec<Value> =
        records.iter().enumerate().map(|(index, record)| requirement(rules, index, record)).collect();
    let skipped: Vec<Value> = material
        .skipped
        .iter()
        .map(|Skipped { place, why }| json!({ "place": bounded(place), "why": bounded(why) }))
        .collect();
    let decision = match decision {
        Decision::Allow => "allow",
        Decision::Deny => "deny",
    };
    Evidence(json!({
        "image": question.image.to_string(),
        "digest": question.digest.to_string(),
        "decided": question.now.to_string(),
        "decision": decision,
        "reason": reason.as_label(),
        "text": text,
        "format": "containers-policy.json",
        "scope": rules.scope,
        "json_path": rules.json_path,
        "requirements": requirements,
        "skipped": skipped,
        "other_attachments": material.other_attachments,
        "more_candidates": material.more,
    }))
}

fn requirement(rules: &Rules, index: usize, record: &RequirementRecord<'_>) -> Value {
    let mut value = json!({
        "json_path": format!("{}[{index}]", rules.json_path),
        "type": record.requirement.kind(),
        "means": record.requirement.describe(),
    });
    if let Requirement::SigstoreSigned(sigstore) = record.requirement {
        set(&mut value, "trust", json!(sigstore.trust.fingerprint().to_string()));
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
    if matches!(record.requirement, Requirement::SigstoreSigned(_)) {
        let candidates: Vec<Value> = record.candidates.iter().map(CandidateRecord::json).collect();
        set(&mut value, "candidates", json!(candidates));
    }
    value
}

fn set(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(members) = object {
        members.insert(key.to_owned(), value);
    }
}

/// Text from outside as one line of ASCII that is not too long.
fn bounded(text: &str) -> String {
    let start: String = text.chars().take(IDENTITY_BYTES_MAX).collect();
    ascii_line(&start)
}
