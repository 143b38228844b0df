//! What a rule is shown of signatures and attestations.

use serde_json::{Value, json};

use crate::oci::Digest;
use crate::verify::{SignatureMaterial, Signer, VerifiedSignature, VerifiedStatement};

/// A signature as policy-controller shows it to a rule.
pub(super) fn as_policy_controller(candidate: &SignatureMaterial, signature: &VerifiedSignature) -> Value {
    let mut fields = serde_json::Map::new();
    let mut add = |name: &str, text: &str| {
        if !text.is_empty() {
            fields.insert(name.to_owned(), json!(text));
        }
    };
    add("id", &Digest::sha256(candidate.bytes()).to_string());
    if let Signer::Certificate { issuer, subjects, workflow } = &signature.signer {
        add("subject", subjects.first().map(String::as_str).unwrap_or_default());
        add("issuer", issuer.as_deref().unwrap_or_default());
        for (name, claim) in [
            ("githubWorkflowTrigger", &workflow.trigger),
            ("githubWorkflowSha", &workflow.sha),
            ("githubWorkflowName", &workflow.name),
            ("githubWorkflowRepo", &workflow.repository),
            ("githubWorkflowRef", &workflow.reference),
        ] {
            add(name, claim.as_deref().unwrap_or_default());
        }
    }
    Value::Object(fields)
}

pub(super) fn attested(candidate: &SignatureMaterial, statement: &VerifiedStatement) -> Value {
    let mut value = as_policy_controller(candidate, &statement.signature);
    crate::policy::evidence::set(&mut value, "predicateType", json!(statement.statement.predicate_type));
    value
}
