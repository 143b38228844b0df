//! What was looked at, as the JSON that is stored and shown: what both policy formats have in common.
//!
//! Each verdict keeps, for each candidate and whoever judged it, where it came from, who signed it, when, and why it did or did
//! not count.

use serde_json::{Value, json};

use super::containers_policy::Question;
use super::containers_policy::texts::ascii_line;
use super::finding::Finding;
use super::{Decision, Evidence, Reason, Skipped};
use crate::limits::{EVIDENCE_DOCUMENT_BYTES_MAX, IDENTITY_BYTES_MAX};
use crate::verify::{SignatureMaterial, SignedReference, Signer, VerifiedSignature, VerifiedStatement, VerifyError};

/// A candidate and what it came to under one requirement or authority.
#[derive(Debug)]
pub(super) struct CandidateRecord<'a> {
    pub(super) material: &'a SignatureMaterial,
    /// When the signature is good, whether or not it counts.
    pub(super) signature: Option<VerifiedSignature>,
    /// When it is an attestation, its `predicateType`.
    pub(super) predicate_type: Option<String>,
    /// Why it does not count.
    pub(super) rejected: Option<(Reason, String)>,
    /// Why it does not verify.
    pub(super) error: Option<VerifyError>,
    /// What it turned out to be instead.
    pub(super) finding: Option<Finding>,
    pub(super) examined: bool,
}

impl<'a> CandidateRecord<'a> {
    /// A candidate after one that was enough.
    pub(super) fn not_examined(material: &'a SignatureMaterial) -> Self {
        Self {
            material,
            signature: None,
            predicate_type: None,
            rejected: None,
            error: None,
            finding: None,
            examined: false,
        }
    }

    /// A candidate that cannot satisfy what is asked for.
    pub(super) fn unverified(material: &'a SignatureMaterial, reason: Reason, text: String) -> Self {
        Self { rejected: Some((reason, text)), examined: true, ..Self::not_examined(material) }
    }

    /// A candidate that does not verify.
    pub(super) fn refused(material: &'a SignatureMaterial, error: VerifyError) -> Self {
        let record = Self::unverified(material, Reason::of(&error), error.to_string());
        Self { error: Some(error), ..record }
    }

    /// A candidate whose signature is good, and perhaps a reason why it does not count nevertheless.
    pub(super) fn verified(
        material: &'a SignatureMaterial,
        signature: VerifiedSignature,
        rejected: Option<(Reason, String)>,
    ) -> Self {
        Self { signature: Some(signature), rejected, examined: true, ..Self::not_examined(material) }
    }

    /// An attestation whose signature is good, and perhaps a reason why it does not count nevertheless.
    pub(super) fn attested(
        material: &'a SignatureMaterial,
        statement: &VerifiedStatement,
        rejected: Option<(Reason, String)>,
    ) -> Self {
        let predicate_type = Some(statement.statement.predicate_type.clone());
        Self { predicate_type, ..Self::verified(material, statement.signature.clone(), rejected) }
    }

    pub(super) fn is_accepted(&self) -> bool {
        self.examined && self.rejected.is_none() && self.signature.is_some()
    }

    /// Why it does not count, as closely as is known.
    pub(super) fn reason(&self) -> Option<Reason> {
        let (rejected, _) = self.rejected.as_ref()?;
        Some(self.finding.as_ref().map_or(*rejected, Finding::reason))
    }

    /// Why it does not count, for a refusal line in which no other program's text stands.
    pub(super) fn told(&self) -> Option<(Reason, String)> {
        let (_, text) = self.rejected.as_ref()?;
        Some((self.reason()?, self.finding.as_ref().map_or_else(|| text.clone(), Finding::line)))
    }

    pub(super) fn json(&self) -> Value {
        let source = self.material.source();
        let mut record = json!({
            "place": bounded(&source.to_string()),
            "format": self.material.format(),
            "manifest": source.manifest.to_string(),
            "layer": source.layer,
        });
        let outcome = match (&self.rejected, self.examined) {
            (Some((reason, text)), _) => {
                set(&mut record, "reason", json!(self.reason().unwrap_or(*reason).as_label()));
                set(&mut record, "text", json!(bounded(text)));
                "rejected"
            }
            (None, true) => "accepted",
            (None, false) => "not examined: an earlier one is enough",
        };
        set(&mut record, "outcome", json!(outcome));
        if let Some(predicate_type) = &self.predicate_type {
            set(&mut record, "predicate_type", json!(bounded(predicate_type)));
        }
        if let Some(finding) = &self.finding {
            set(&mut record, "finding", finding.json());
        }
        if let Some(signature) = &self.signature {
            describe(&mut record, signature);
        }
        record
    }
}

/// The reason of several rejections: that of the candidate that came closest.
pub(super) fn closest(candidates: &[CandidateRecord<'_>]) -> Reason {
    let order = [
        Reason::IdentityMismatch,
        Reason::RotatedKey,
        Reason::WrongKey,
        Reason::Expired,
        Reason::NoLogEntry,
        Reason::NotSupported,
    ];
    let is_there = |reason: &Reason| candidates.iter().any(|candidate| candidate.reason() == Some(*reason));
    order.into_iter().find(is_there).unwrap_or(Reason::BadSignature)
}

pub(super) fn describe(record: &mut Value, signature: &VerifiedSignature) {
    set(record, "signer", signer(&signature.signer));
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
    if !signature.timestamps.is_empty() {
        let timestamps: Vec<String> = signature.timestamps.iter().map(ToString::to_string).collect();
        set(record, "timestamps", json!(timestamps));
    }
    if let Some(not_after) = signature.not_after {
        set(record, "not_after", json!(not_after.to_string()));
    }
    if !signature.notes.is_empty() {
        set(record, "notes", json!(signature.notes));
    }
}

/// Who signed: a key's fingerprint, or the names of a certificate with what Fulcio recorded about its workflow.
pub(super) fn signer(signer: &Signer) -> Value {
    match signer {
        Signer::Key(fingerprint) => json!({ "key": fingerprint.to_string() }),
        Signer::OpenPgp(fingerprint) => json!({ "openpgp": fingerprint }),
        Signer::Certificate { issuer, subjects, workflow } => {
            let subjects: Vec<String> = subjects.iter().map(|subject| bounded(subject)).collect();
            let mut by = json!({ "issuer": issuer.as_deref().map(bounded), "subjects": subjects });
            let claims = [
                ("githubWorkflowTrigger", &workflow.trigger),
                ("githubWorkflowSha", &workflow.sha),
                ("githubWorkflowName", &workflow.name),
                ("githubWorkflowRepo", &workflow.repository),
                ("githubWorkflowRef", &workflow.reference),
            ];
            for (name, claim) in claims {
                if let Some(claim) = claim {
                    set(&mut by, name, json!(bounded(claim)));
                }
            }
            for (name, claim) in &workflow.extensions {
                set(&mut by, name, json!(bounded(claim)));
            }
            by
        }
    }
}

/// What stands above the parts of each format: the question and the answer.
pub(super) fn head(question: Question<'_>, decision: Decision, reason: Reason, text: &str) -> Evidence {
    Evidence(json!({
        "image": question.image.to_string(),
        "digest": question.digest.to_string(),
        "decided": question.now.to_string(),
        "decision": decision.as_str(),
        "reason": reason.as_label(),
        "text": text,
    }))
}

/// What discovery found beside the candidates.
pub(super) fn set_remainder(evidence: &mut Evidence, question: Question<'_>) {
    let material = question.material;
    let skipped: Vec<Value> = material
        .skipped
        .iter()
        .map(|Skipped { place, why }| json!({ "place": bounded(place), "why": bounded(why) }))
        .collect();
    set(&mut evidence.0, "skipped", json!(skipped));
    set(&mut evidence.0, "other_attachments", json!(material.other_attachments));
    set(&mut evidence.0, "more_candidates", json!(material.more));
}

/// Makes a document fit into its file: texts from outside are cut shorter until it does. Cutting shows as `"cut": true`.
pub(super) fn fit(evidence: &mut Evidence) {
    for chars in [1024, 256, 64] {
        if serde_json::to_vec(&evidence.0).is_ok_and(|bytes| bytes.len() <= EVIDENCE_DOCUMENT_BYTES_MAX) {
            return;
        }
        cut(&mut evidence.0, chars);
        set(&mut evidence.0, "cut", json!(true));
    }
}

fn cut(value: &mut Value, chars: usize) {
    match value {
        Value::String(text) if text.len() > chars => {
            let start: String = text.chars().take(chars).collect();
            *text = format!("{start}...");
        }
        Value::Array(items) => items.iter_mut().for_each(|item| cut(item, chars)),
        Value::Object(fields) => fields.values_mut().for_each(|field| cut(field, chars)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

pub(super) fn set(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(members) = object {
        members.insert(key.to_owned(), value);
    }
}

/// Text from outside as one line of ASCII that is not too long.
pub(super) fn bounded(text: &str) -> String {
    let start: String = text.chars().take(IDENTITY_BYTES_MAX).collect();
    ascii_line(&start)
}
