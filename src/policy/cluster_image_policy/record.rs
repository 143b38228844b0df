//! What was looked at under ClusterImagePolicies: every policy, authority, attestation and candidate, with the outcome.

use serde_json::{Value, json};

use super::CipMode;
use super::examine::Satisfied;
use super::resolve::{Authority, AuthorityKind, Policy};
use crate::policy::Reason;
use crate::policy::evidence::{CandidateRecord, bounded, set};

/// What a policy, authority or attestation came to.
#[derive(Debug)]
pub(super) enum Outcome {
    Satisfied(Satisfied),
    Denied {
        reason: Reason,
        text: String,
    },
    /// Its rule failed.
    NoAnswer {
        why: String,
    },
    /// Its rule was not asked, since it would not have seen all there is.
    Unseen {
        why: String,
    },
    /// Something else has decided before.
    NotEvaluated,
}

#[derive(Debug)]
pub(super) struct PolicyRecord<'a, 'p> {
    pub(super) policy: &'p Policy,
    pub(super) outcome: Outcome,
    pub(super) authorities: Vec<AuthorityRecord<'a, 'p>>,
}

#[derive(Debug)]
pub(super) struct AuthorityRecord<'a, 'p> {
    pub(super) authority: &'p Authority,
    pub(super) outcome: Outcome,
    pub(super) candidates: Vec<CandidateRecord<'a>>,
    pub(super) attestations: Vec<AttestationRecord<'a, 'p>>,
}

#[derive(Debug)]
pub(super) struct AttestationRecord<'a, 'p> {
    pub(super) name: &'p str,
    pub(super) predicate_type: &'p str,
    pub(super) outcome: Outcome,
    pub(super) candidates: Vec<CandidateRecord<'a>>,
}

impl<'p> PolicyRecord<'_, 'p> {
    /// A policy after one that denies.
    pub(super) fn not_evaluated(policy: &'p Policy) -> Self {
        Self { policy, outcome: Outcome::NotEvaluated, authorities: Vec::new() }
    }

    pub(super) fn json(&self) -> Value {
        let document = &self.policy.document;
        let mut value = json!({
            "name": bounded(&document.name),
            "defined": bounded(&document.origin.to_string()),
            "mode": match document.mode { CipMode::Enforce => "enforce", CipMode::Warn => "warn" },
        });
        set_outcome(&mut value, &self.outcome, "not evaluated: an earlier policy is not satisfied");
        let authorities: Vec<Value> = self.authorities.iter().map(AuthorityRecord::json).collect();
        set(&mut value, "authorities", json!(authorities));
        value
    }
}

impl<'p> AuthorityRecord<'_, 'p> {
    pub(super) fn of(authority: &'p Authority, outcome: Outcome) -> Self {
        Self { authority, outcome, candidates: Vec::new(), attestations: Vec::new() }
    }

    /// An authority after one that is enough.
    pub(super) fn not_evaluated(authority: &'p Authority) -> Self {
        Self::of(authority, Outcome::NotEvaluated)
    }

    pub(super) fn is_satisfied(&self) -> bool {
        matches!(self.outcome, Outcome::Satisfied(_))
    }

    pub(super) fn satisfied(&self) -> Option<(&str, &Satisfied)> {
        match &self.outcome {
            Outcome::Satisfied(satisfied) => Some((&self.authority.name, satisfied)),
            Outcome::Denied { .. } | Outcome::NoAnswer { .. } | Outcome::Unseen { .. } | Outcome::NotEvaluated => None,
        }
    }

    pub(super) fn denied(&self) -> Option<(&str, Reason, &str)> {
        match &self.outcome {
            Outcome::Denied { reason, text } => Some((&self.authority.name, *reason, text)),
            Outcome::Satisfied(_) | Outcome::NoAnswer { .. } | Outcome::Unseen { .. } | Outcome::NotEvaluated => None,
        }
    }

    pub(super) fn no_answer(&self) -> Option<String> {
        match &self.outcome {
            Outcome::NoAnswer { why } => Some(format!("authority {}: {why}", self.authority.name)),
            Outcome::Satisfied(_) | Outcome::Denied { .. } | Outcome::Unseen { .. } | Outcome::NotEvaluated => None,
        }
    }

    fn json(&self) -> Value {
        let mut value = json!({
            "name": bounded(&self.authority.name),
            "means": bounded(&self.authority.describe()),
        });
        let AuthorityKind::Signed(signed) = &self.authority.kind else {
            set_outcome(&mut value, &self.outcome, ENOUGH);
            return value;
        };
        set(&mut value, "trust", json!(signed.trust.fingerprint().to_string()));
        set_outcome(&mut value, &self.outcome, ENOUGH);
        if signed.attestations.is_empty() {
            set(&mut value, "candidates", candidates(&self.candidates));
        } else {
            let attestations: Vec<Value> = self.attestations.iter().map(AttestationRecord::json).collect();
            set(&mut value, "attestations", json!(attestations));
        }
        value
    }
}

impl AttestationRecord<'_, '_> {
    fn json(&self) -> Value {
        let mut value = json!({ "name": bounded(self.name), "predicate_type": bounded(self.predicate_type) });
        set_outcome(&mut value, &self.outcome, ENOUGH);
        set(&mut value, "candidates", candidates(&self.candidates));
        value
    }
}

fn candidates(records: &[CandidateRecord<'_>]) -> Value {
    records.iter().map(CandidateRecord::json).collect()
}

fn set_outcome(value: &mut Value, outcome: &Outcome, not_evaluated: &str) {
    let outcome = match outcome {
        Outcome::Satisfied(satisfied) => {
            if !satisfied.warnings.is_empty() {
                let warnings: Vec<String> = satisfied.warnings.iter().map(|warning| bounded(warning)).collect();
                set(value, "warnings", json!(warnings));
            }
            "satisfied"
        }
        Outcome::Denied { reason, text } => {
            set(value, "reason", json!(reason.as_label()));
            set(value, "text", json!(bounded(text)));
            "denied"
        }
        Outcome::NoAnswer { why } | Outcome::Unseen { why } => {
            set(value, "text", json!(bounded(why)));
            "no answer"
        }
        Outcome::NotEvaluated => not_evaluated,
    };
    set(value, "outcome", json!(outcome));
}

/// Of several reasons the one that came closest.
pub(super) fn closest(reasons: impl Iterator<Item = Reason>) -> Option<Reason> {
    let reasons: Vec<Reason> = reasons.collect();
    let order = [
        Reason::PolicyRule,
        Reason::IdentityMismatch,
        Reason::RotatedKey,
        Reason::WrongKey,
        Reason::Expired,
        Reason::NoLogEntry,
        Reason::NoAttestation,
        Reason::TooManySignatures,
        Reason::BadSignature,
    ];
    order.into_iter().find(|reason| reasons.contains(reason)).or_else(|| reasons.first().copied())
}

const ENOUGH: &str = "not evaluated: an earlier one is enough";
