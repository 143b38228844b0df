//! The answer about one image: AND over the policies that cover it. What each of them says is found out in `examine`.
//!
//! A rule that gives no answer is neither yes nor no: it matters only where nothing else decides, and then there is no answer.

use serde_json::Value;

use super::CipMode;
use super::examine::Examination;
use super::record::{Outcome, PolicyRecord};
use super::resolve::{ClusterImagePolicies, Policy};
use crate::clock::Timestamp;
use crate::policy::containers_policy::Question;
use crate::policy::{EvaluateError, NoAnswer, Reason, RestsOn};

/// What the policies that cover an image say.
#[derive(Debug)]
pub(in crate::policy) struct Answer {
    /// None: no policy covers it.
    pub(in crate::policy) conclusion: Option<Conclusion>,
    pub(in crate::policy) rests_on: RestsOn,
    /// Each policy with its authorities and candidates.
    pub(in crate::policy) evidence: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::policy) enum Conclusion {
    Allowed { reason: Reason, signers: Vec<String>, warnings: Vec<String>, not_after: Option<Timestamp> },
    Denied { reason: Reason, text: String },
}

/// Decides.
///
/// # Errors
/// [`EvaluateError`] when a policy's rule gives no answer and nothing else decides.
pub(in crate::policy) fn evaluate(
    policies: &ClusterImagePolicies,
    question: Question<'_>,
) -> Result<Answer, EvaluateError> {
    let mut examination = Examination::new(question);
    let mut records = Vec::new();
    let mut conclusion = None;
    let mut no_answer: Option<EvaluateError> = None;
    for policy in policies.covering(question.image) {
        if matches!(conclusion, Some(Conclusion::Denied { .. })) {
            records.push(PolicyRecord::not_evaluated(policy));
            continue;
        }
        let record = examination.policy(policy);
        match with(conclusion, policy, &record.outcome) {
            Ok(next) => conclusion = Some(next),
            // A later policy may still say no, which is an answer.
            Err(no) => {
                let (unchanged, error) = *no;
                conclusion = unchanged;
                // What failed is told before what is only missing, which audit mode serves.
                no_answer = match no_answer {
                    Some(first @ EvaluateError { because: NoAnswer::RuleFailed, .. }) => Some(first),
                    Some(first) if error.because == NoAnswer::EvidenceMissing => Some(first),
                    Some(_) | None => Some(error),
                };
            }
        }
        records.push(record);
    }
    if let (Some(error), None | Some(Conclusion::Allowed { .. })) = (no_answer, &conclusion) {
        return Err(error);
    }
    let evidence = records.iter().map(PolicyRecord::json).collect();
    Ok(Answer { conclusion, rests_on: examination.rests_on, evidence })
}

/// The conclusion with one more policy.
fn with(
    conclusion: Option<Conclusion>,
    policy: &Policy,
    outcome: &Outcome,
) -> Result<Conclusion, Box<(Option<Conclusion>, EvaluateError)>> {
    let name = &policy.document.name;
    let accumulated = |conclusion| match conclusion {
        Some(Conclusion::Allowed { reason, signers, warnings, not_after }) => (reason, signers, warnings, not_after),
        Some(Conclusion::Denied { .. }) | None => (Reason::AcceptAnything, Vec::new(), Vec::new(), None),
    };
    let warning = match (outcome, policy.document.mode) {
        (Outcome::Satisfied(satisfied), _) => {
            let (mut reason, mut signers, mut warnings, mut not_after) = accumulated(conclusion);
            if !satisfied.signers.is_empty() && reason == Reason::AcceptAnything {
                reason = Reason::Verified;
            }
            for signer in &satisfied.signers {
                if !signers.contains(signer) {
                    signers.push(signer.clone());
                }
            }
            for warning in &satisfied.warnings {
                warnings.push(format!("policy {name}: {warning}"));
                reason = Reason::Warned;
            }
            not_after = [not_after, satisfied.not_after].into_iter().flatten().min();
            return Ok(Conclusion::Allowed { reason, signers, warnings, not_after });
        }
        (Outcome::Denied { reason, text }, CipMode::Enforce) => {
            return Ok(Conclusion::Denied { reason: *reason, text: failed(name, text) });
        }
        (Outcome::Denied { text, .. }, CipMode::Warn) => failed(name, text),
        (Outcome::NoAnswer { why }, CipMode::Enforce) => {
            let because = NoAnswer::RuleFailed;
            return Err(Box::new((conclusion, EvaluateError { policy: name.clone(), because, why: why.clone() })));
        }
        (Outcome::Unseen { why }, CipMode::Enforce) => {
            let because = NoAnswer::EvidenceMissing;
            return Err(Box::new((conclusion, EvaluateError { policy: name.clone(), because, why: why.clone() })));
        }
        // It would not refuse, whatever the answer.
        (Outcome::NoAnswer { why } | Outcome::Unseen { why }, CipMode::Warn) => {
            format!("policy {name} could not be evaluated: {why}")
        }
        (Outcome::NotEvaluated, _) => format!("policy {name} was not evaluated"),
    };
    let (_, signers, mut warnings, not_after) = accumulated(conclusion);
    warnings.push(warning);
    Ok(Conclusion::Allowed { reason: Reason::Warned, signers, warnings, not_after })
}

fn failed(policy: &str, text: &str) -> String {
    format!("failed policy: {policy}: {text}")
}
