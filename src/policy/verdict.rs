//! Verdicts: the answer, its reason, its evidence.

use crate::clock::Timestamp;
use crate::verify::{Cause, SignatureMaterial, VerifyError};

/// The raw policy answer; audit mode and exemptions are applied when it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decision {
    /// Policy is satisfied.
    Allow,
    /// Policy is not satisfied.
    Deny,
}

impl Decision {
    /// As text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// No answer: a policy could not be evaluated. Never an allow, and never kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the policy {policy} could not be evaluated: {why}")]
pub struct EvaluateError {
    /// Which ClusterImagePolicy.
    pub policy: String,
    /// What kind of thing stood in the way.
    pub because: NoAnswer,
    /// What went wrong, one line.
    pub why: String,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoAnswer {
    /// The policy's own rule failed, contradicts itself or does not end.
    RuleFailed,
    /// Not all signatures were read, and the rule must see them all.
    EvidenceMissing,
}

/// A clean answer about one image. "Don't know" is not a verdict but an error of whoever gathers material.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The answer.
    pub decision: Decision,
    /// Its kind, for metrics and filters.
    pub reason: Reason,
    /// One line for a human, without prefix: containers/image's own text where one exists.
    pub text: String,
    /// End of certificates that were checked at `now`: the verdict must not outlive it.
    pub not_after: Option<Timestamp>,
    /// Whether the time had a part in it.
    pub rests_on: RestsOn,
    /// Everything that was looked at.
    pub evidence: Evidence,
}

/// What an answer rests on beside policy and material: a clock that stepped back leaves answers on certificates undecided
/// (design §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RestsOn {
    /// Nothing that changes with time: keys, digests, an accepting or rejecting requirement.
    #[default]
    Timeless,
    /// A certificate was judged (`fulcio`, `pki`, `keyless`), for or against, or a Rego rule was asked, which may look at the time.
    Certificates,
}

/// Why; a closed set, one label each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A signature requirement is satisfied.
    Verified,
    /// The policy asks for no signature here (`insecureAcceptAnything`).
    AcceptAnything,
    /// Admitted through its platform children.
    Children,
    /// The policy says `reject`.
    Rejected,
    /// No signature exists.
    NoSignature,
    /// Signatures exist; none verifies.
    BadSignature,
    /// A signature is good, by a key that the policy does not list.
    WrongKey,
    /// A signature is good, by a key that the policy lists elsewhere and not here.
    RotatedKey,
    /// A signature verifies but signer or signed reference is not the one wanted.
    IdentityMismatch,
    /// The log entry is missing or does not fit.
    NoLogEntry,
    /// Times do not fit.
    Expired,
    /// More candidates than are looked at, and none was good.
    TooManySignatures,
    /// More platform children than are looked at.
    TooManyChildren,
    /// The signatures are as policy wants them, and the image is larger than `max_image_bytes`.
    TooLarge,
    /// Signatures bind sha256; this digest is not.
    UnsupportedDigest,
    /// No ClusterImagePolicy covers the image, and `no_match` decides.
    NoMatchingPolicy,
    /// No attestation of the type wanted exists.
    NoAttestation,
    /// A policy's Rego rule says no.
    PolicyRule,
    /// A ClusterImagePolicy that only warns is not satisfied.
    Warned,
    /// The requirement is of a kind that no program implements.
    NotSupported,
}

impl Reason {
    /// All of them, for registering every series at 0.
    pub const ALL: &[Self] = &[
        Self::Verified,
        Self::AcceptAnything,
        Self::Children,
        Self::Rejected,
        Self::NoSignature,
        Self::BadSignature,
        Self::WrongKey,
        Self::RotatedKey,
        Self::IdentityMismatch,
        Self::NoLogEntry,
        Self::Expired,
        Self::TooManySignatures,
        Self::TooManyChildren,
        Self::TooLarge,
        Self::UnsupportedDigest,
        Self::NoMatchingPolicy,
        Self::NoAttestation,
        Self::PolicyRule,
        Self::Warned,
        Self::NotSupported,
    ];

    /// Of a candidate that does not verify.
    pub(super) fn of(error: &VerifyError) -> Self {
        match error.cause() {
            Cause::Malformed | Cause::OtherImage | Cause::Signature | Cause::Certificate => Self::BadSignature,
            Cause::Log => Self::NoLogEntry,
            Cause::Time => Self::Expired,
            Cause::Identity => Self::IdentityMismatch,
        }
    }

    /// The metric label.
    pub const fn as_label(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::AcceptAnything => "accept_anything",
            Self::Children => "children",
            Self::Rejected => "rejected",
            Self::NoSignature => "no_signature",
            Self::BadSignature => "bad_signature",
            Self::WrongKey => "wrong_key",
            Self::RotatedKey => "rotated_key",
            Self::IdentityMismatch => "identity_mismatch",
            Self::NoLogEntry => "no_log_entry",
            Self::Expired => "expired",
            Self::TooManySignatures => "too_many_signatures",
            Self::TooManyChildren => "too_many_children",
            Self::TooLarge => "too_large",
            Self::UnsupportedDigest => "unsupported_digest",
            Self::NoMatchingPolicy => "no_matching_policy",
            Self::NoAttestation => "no_attestation",
            Self::PolicyRule => "policy_rule",
            Self::Warned => "warned",
            Self::NotSupported => "not_supported",
        }
    }
}

/// Everything that discovery found for one digest.
#[derive(Debug, Clone, Default)]
pub struct Material {
    /// Candidates, in the order found, at most `limits::CANDIDATES_MAX`.
    pub candidates: Vec<SignatureMaterial>,
    /// Things that looked like candidates and could not be read.
    pub skipped: Vec<Skipped>,
    /// Layers beside the candidates that are no signatures (counted in containers/image's message).
    pub other_attachments: usize,
    /// There were more candidates than are examined.
    pub more: bool,
    /// Something was not read that may be good, so that there may be more than this: a rule that must see everything does not
    /// decide, and one good signature is still enough where one is.
    pub incomplete: bool,
}

/// A candidate that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Where it was found, such as `sha256-<hex>.sig layer 3`.
    pub place: String,
    /// Why it was skipped.
    pub why: String,
}

/// What was looked at, requirement by requirement and candidate by candidate, as the JSON that is stored and shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence(pub serde_json::Value);

impl Evidence {
    /// Says of something that a report on who signed does not cover it.
    pub fn add_not_reported(&mut self, gap: &Skipped) {
        let gap = super::signers::not_reported(gap);
        super::evidence::set(&mut self.0, "not_reported", serde_json::json!([gap]));
    }
}
