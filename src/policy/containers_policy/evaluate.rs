//! The answer about one image (`signature/policy_eval*.go`): AND over requirements, OR over signatures.

use std::collections::BTreeMap;

use super::evidence::{self, Outcome, RequirementRecord};
use super::registries_d::RegistriesD;
use super::resolve::{ContainersPolicy, Requirement, Rules, SignedBy, SignedByKeys, SigstoreSigned};
use super::signed_identity::SignedIdentity;
use super::texts;
use crate::clock::Timestamp;
use crate::limits::CANDIDATES_MAX;
use crate::oci::{Algorithm, Digest, DockerReference, ImageReference, Reference};
use crate::policy::evidence::{CandidateRecord, closest};
use crate::policy::finding::{Expected, Finder};
use crate::policy::{BundlesWithoutIdentity, Decision, Material, MaterialKind, Plan, Reason, RestsOn, Verdict, Wanted};
use crate::verify::{
    Cause, OpenPgpKeys, SignatureMaterial, SignedReference, Signer, SigstoreTrust, VerifiedSignature, VerifyError,
};

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(in crate::policy) struct Question<'a> {
    /// As requested.
    pub(in crate::policy) image: &'a ImageReference,
    /// Of the manifest's bytes.
    pub(in crate::policy) digest: &'a Digest,
    /// All that discovery found for that digest.
    pub(in crate::policy) material: &'a Material,
    /// Where there was anything to look for.
    pub(in crate::policy) searched: Searched,
    /// Whether a bundle satisfies a `signedIdentity`.
    pub(in crate::policy) bundles_without_identity: BundlesWithoutIdentity,
    pub(in crate::policy) now: Timestamp,
    /// Finds out what a refused candidate is.
    pub(in crate::policy) finder: &'a Finder<'a>,
}

/// What registries.d says about an image.
#[derive(Debug, Clone, Copy)]
pub(in crate::policy) struct Searched {
    /// There is an address at which OpenPGP signatures may lie.
    pub(in crate::policy) lookaside: bool,
    /// What is attached to the image in its registry is looked at.
    pub(in crate::policy) attachments: bool,
}

/// What the answer about `image` depends on. All of it is looked for at once, although requirements are looked at in their
/// order and the first that is not satisfied ends it; what comes after one that nothing satisfies is not.
pub(in crate::policy) fn plan(policy: &ContainersPolicy, registries_d: &RegistriesD, image: &ImageReference) -> Plan {
    if let Reference::Digest(digest) = &image.reference
        && !is_bound_by_signatures(digest)
    {
        return Plan::WithoutMaterial;
    }
    let mut wanted = Wanted::default();
    for requirement in &policy.rules_for(image).requirements {
        match requirement {
            Requirement::InsecureAcceptAnything => {}
            Requirement::Reject | Requirement::SignedBaseLayer(_) => break,
            Requirement::SignedBy(_) => wanted.lookaside = registries_d.lookaside(image).cloned(),
            // Bundles also where they are refused, so that the refusal can say so.
            Requirement::SigstoreSigned(_) => {
                wanted.kinds.extend([MaterialKind::Signatures, MaterialKind::Bundles]);
            }
        }
    }
    if wanted.is_empty() { Plan::WithoutMaterial } else { Plan::NeedsMaterial(wanted) }
}

fn is_bound_by_signatures(digest: &Digest) -> bool {
    digest.algorithm() == Algorithm::Sha256
}

/// Decides.
pub(in crate::policy) fn evaluate<'a>(policy: &'a ContainersPolicy, question: Question<'a>) -> Verdict {
    let rules = policy.rules_for(question.image);
    let mut examination = Examination::new(question, &rules.json_path);
    let mut records = Vec::new();
    let mut conclusion = Conclusion::of_nothing(rules);
    for requirement in &rules.requirements {
        let (outcome, candidates) = match conclusion {
            Conclusion::Allowed(allowed) => {
                let (outcome, candidates) = examination.judge(requirement);
                conclusion = allowed.and(&outcome);
                (Some(outcome), candidates)
            }
            Conclusion::Denied { .. } => (None, Vec::new()),
        };
        records.push(RequirementRecord { requirement, outcome, candidates });
    }
    let rests_on = examination.rests_on;
    conclusion.verdict(rules, question, &records, rests_on)
}

/// What the requirements so far come to.
enum Conclusion {
    Allowed(Allowed),
    Denied { reason: Reason, text: String },
}

struct Allowed {
    reason: Reason,
    text: String,
    not_after: Option<Timestamp>,
}

impl Allowed {
    /// With one more requirement.
    fn and(self, outcome: &Outcome) -> Conclusion {
        match outcome {
            Outcome::Accepts => Conclusion::Allowed(self),
            Outcome::Signed { signer, not_after } => Conclusion::Allowed(Self {
                reason: Reason::Verified,
                text: if self.text.is_empty() { signer.clone() } else { format!("{}; {signer}", self.text) },
                not_after: [self.not_after, *not_after].into_iter().flatten().min(),
            }),
            Outcome::Denied { reason, text } => Conclusion::Denied { reason: *reason, text: text.clone() },
        }
    }
}

impl Conclusion {
    /// Before the first requirement. Rules without any do not parse; should they ever come about, they admit nothing.
    fn of_nothing(rules: &Rules) -> Self {
        if rules.requirements.is_empty() {
            return Self::Denied { reason: Reason::Rejected, text: texts::EMPTY_REQUIREMENTS.to_owned() };
        }
        Self::Allowed(Allowed { reason: Reason::AcceptAnything, text: String::new(), not_after: None })
    }

    fn verdict(
        self,
        rules: &Rules,
        question: Question<'_>,
        records: &[RequirementRecord<'_>],
        rests_on: RestsOn,
    ) -> Verdict {
        let (decision, reason, text, not_after) = match self {
            Self::Allowed(Allowed { reason: Reason::AcceptAnything, .. }) => {
                let text = "policy accepts anything here, signed or not".to_owned();
                (Decision::Allow, Reason::AcceptAnything, text, None)
            }
            Self::Allowed(Allowed { reason, text, not_after }) => {
                (Decision::Allow, reason, texts::verdict_line(&format!("signed by {text}")), not_after)
            }
            Self::Denied { reason, text } => (Decision::Deny, reason, texts::verdict_line(&text), None),
        };
        let evidence = evidence::document(rules, question, records, decision, reason, &text);
        Verdict { decision, reason, text, not_after, rests_on, evidence }
    }
}

/// One evaluation: each candidate is verified at most once under each trust.
struct Examination<'a> {
    question: Question<'a>,
    /// The scope that decides.
    place: &'a str,
    asked: DockerReference,
    /// Certificates as soon as one was judged, for or against.
    rests_on: RestsOn,
    verified: BTreeMap<(Digest, usize), Result<VerifiedSignature, VerifyError>>,
}

impl<'a> Examination<'a> {
    fn new(question: Question<'a>, place: &'a str) -> Self {
        let (tag, digest) = match &question.image.reference {
            Reference::Tag(tag) => (Some(tag.clone()), None),
            Reference::Digest(digest) => (None, Some(*digest)),
        };
        let asked = DockerReference { repository: question.image.repository.clone(), tag, digest };
        Self { question, place, asked, rests_on: RestsOn::Timeless, verified: BTreeMap::new() }
    }

    fn judge(&mut self, requirement: &Requirement) -> (Outcome, Vec<CandidateRecord<'a>>) {
        let outcome = match requirement {
            Requirement::InsecureAcceptAnything => Outcome::Accepts,
            Requirement::Reject => Outcome::denied(Reason::Rejected, texts::rejected_by_policy(self.question.image)),
            Requirement::SignedBaseLayer(_) => Outcome::denied(Reason::NotSupported, texts::BASE_LAYER),
            Requirement::SignedBy(signed_by) => return self.examine(Wants::OpenPgp(signed_by)),
            Requirement::SigstoreSigned(sigstore) => return self.examine(Wants::Sigstore(sigstore)),
        };
        (outcome, Vec::new())
    }

    fn examine(&mut self, wants: Wants<'_>) -> (Outcome, Vec<CandidateRecord<'a>>) {
        if !is_bound_by_signatures(self.question.digest) {
            return (Outcome::denied(Reason::UnsupportedDigest, texts::UNSUPPORTED_DIGEST), Vec::new());
        }
        let mut candidates = Vec::new();
        let mut accepted = None;
        let mut non_signatures = 0;
        let all = self.question.material.candidates.iter().enumerate();
        for (index, candidate) in all.filter(|(_, one)| wants.looks_at(one)).take(CANDIDATES_MAX) {
            let record = match &accepted {
                Some(_) => CandidateRecord::not_examined(candidate),
                None => match self.candidate(index, candidate, wants) {
                    Candidate::Signature(record) => *record,
                    Candidate::NoSignature => {
                        non_signatures += 1;
                        continue;
                    }
                },
            };
            if record.is_accepted() {
                accepted.clone_from(&record.signature);
            }
            candidates.push(record);
        }
        // One accepted signature is enough.
        if let Some(signature) = accepted {
            let outcome = Outcome::Signed { signer: signer(&signature.signer), not_after: signature.not_after };
            return (outcome, candidates);
        }
        self.explain(wants, &mut candidates);
        (self.summary(wants, &candidates, non_signatures), candidates)
    }

    fn candidate(&mut self, index: usize, candidate: &'a SignatureMaterial, wants: Wants<'_>) -> Candidate<'a> {
        // Signature, signer and digest first, the signed reference last: the order of containers/image, so that its text
        // about another identity is never said of a signature that is no signature.
        let verified = match wants {
            Wants::Sigstore(requirement) => {
                if requirement.rests_on == RestsOn::Certificates {
                    self.rests_on = RestsOn::Certificates;
                }
                self.verify(index, candidate, &requirement.trust)
            }
            Wants::OpenPgp(SignedBy { keys: SignedByKeys::OpenPgp(keys), .. }) => {
                self.verify_openpgp(index, candidate, keys)
            }
            Wants::OpenPgp(SignedBy { keys: SignedByKeys::Unimplemented { key_type, .. }, .. }) => {
                let text = texts::unimplemented_key_type(key_type);
                return Candidate::rejected(candidate, Reason::NotSupported, text);
            }
        };
        match verified {
            Err(VerifyError::NotASignature { .. }) => Candidate::NoSignature,
            Err(error) => Candidate::Signature(Box::new(CandidateRecord::refused(candidate, error))),
            Ok(signature) => self.identified(candidate, signature, wants.identity()),
        }
    }

    /// A good signature, for the reference that was asked for or another.
    fn identified(
        &self,
        candidate: &'a SignatureMaterial,
        mut signature: VerifiedSignature,
        identity: &SignedIdentity,
    ) -> Candidate<'a> {
        let rejected = match &signature.signed_reference {
            SignedReference::Reference(signed) if identity.accepts(&self.asked, signed) => None,
            SignedReference::Reference(signed) => Some(texts::identity_not_accepted(&signed.to_string())),
            SignedReference::Unreadable(text) => Some(texts::identity_not_accepted(text)),
            SignedReference::Absent => match self.question.bundles_without_identity {
                BundlesWithoutIdentity::Refused => Some(texts::BUNDLE_WITHOUT_IDENTITY.to_owned()),
                BundlesWithoutIdentity::DigestIsEnough => {
                    signature.notes.push("the reference was not checked: bundles_without_identity");
                    None
                }
            },
        };
        let rejected = rejected.map(|text| (Reason::IdentityMismatch, text));
        Candidate::Signature(Box::new(CandidateRecord::verified(candidate, signature, rejected)))
    }

    fn verify(
        &mut self,
        index: usize,
        candidate: &SignatureMaterial,
        trust: &SigstoreTrust,
    ) -> Result<VerifiedSignature, VerifyError> {
        let Question { digest, now, .. } = self.question;
        let verified = self.verified.entry((trust.fingerprint(), index));
        verified.or_insert_with(|| trust.verify(candidate, digest, now)).clone()
    }

    fn verify_openpgp(
        &mut self,
        index: usize,
        candidate: &SignatureMaterial,
        keys: &OpenPgpKeys,
    ) -> Result<VerifiedSignature, VerifyError> {
        let Question { digest, now, .. } = self.question;
        let SignatureMaterial::OpenPgp(signature) = candidate else {
            return Err(VerifyError::OtherKind { wanted: "OpenPGP signature", found: candidate.format() });
        };
        let verified = self.verified.entry((keys.fingerprint(), index));
        let verified = verified.or_insert_with(|| keys.verify(signature, digest, now)).clone();
        // Most keys and signatures have no end. Where one has, the answer is one about time.
        let timed = match &verified {
            Ok(signature) => signature.not_after.is_some(),
            Err(error) => error.cause() == Cause::Time,
        };
        if timed {
            self.rests_on = RestsOn::Certificates;
        }
        verified
    }

    /// Says of refused candidates what they are.
    fn explain(&self, wants: Wants<'_>, candidates: &mut [CandidateRecord<'_>]) {
        let finder = self.question.finder;
        match wants {
            Wants::Sigstore(requirement) => {
                let (keys, signer) = (requirement.trust.keys(), requirement.signer());
                finder.explain(candidates, Expected { keys, identities: &[], signer, place: self.place });
            }
            Wants::OpenPgp(SignedBy { keys: SignedByKeys::OpenPgp(keys), .. }) => {
                finder.explain_openpgp(candidates, keys, self.place);
            }
            Wants::OpenPgp(SignedBy { keys: SignedByKeys::Unimplemented { .. }, .. }) => {}
        }
    }

    /// Why no candidate was accepted.
    fn summary(&self, wants: Wants<'_>, candidates: &[CandidateRecord<'_>], non_signatures: usize) -> Outcome {
        let material = self.question.material;
        let of_its_kind = material.candidates.iter().filter(|candidate| wants.looks_at(candidate)).count();
        if material.more || of_its_kind > CANDIDATES_MAX {
            let text = format!(
                "too many signatures: none of the first {} candidates is accepted, and there are more",
                candidates.len()
            );
            return Outcome::denied(Reason::TooManySignatures, text);
        }
        if candidates.is_empty() {
            return Outcome::denied(Reason::NoSignature, no_signature(wants, self.question, non_signatures));
        }
        let rejected = candidates.iter().filter_map(|candidate| candidate.rejected.as_ref());
        let reasons: Vec<String> = rejected.map(|(_, text)| text.clone()).collect();
        // Of several the one that came closest is counted.
        Outcome::denied(closest(candidates), texts::rejections(&reasons))
    }
}

/// A requirement that a signature can satisfy.
#[derive(Debug, Clone, Copy)]
enum Wants<'a> {
    Sigstore(&'a SigstoreSigned),
    OpenPgp(&'a SignedBy),
}

impl Wants<'_> {
    /// Whether a candidate is of its kind; others are as if they were not there.
    fn looks_at(&self, candidate: &SignatureMaterial) -> bool {
        match (self, candidate) {
            (Self::Sigstore(_), SignatureMaterial::Legacy(_) | SignatureMaterial::Bundle(_))
            | (Self::OpenPgp(_), SignatureMaterial::OpenPgp(_)) => true,
            (Self::Sigstore(_), SignatureMaterial::Attestation(_) | SignatureMaterial::OpenPgp(_))
            | (
                Self::OpenPgp(_),
                SignatureMaterial::Legacy(_) | SignatureMaterial::Bundle(_) | SignatureMaterial::Attestation(_),
            ) => false,
        }
    }

    fn identity(&self) -> &SignedIdentity {
        match self {
            Self::Sigstore(requirement) => &requirement.identity,
            Self::OpenPgp(requirement) => &requirement.identity,
        }
    }
}

/// What a candidate turns out to be.
enum Candidate<'a> {
    /// A signature, good or not.
    Signature(Box<CandidateRecord<'a>>),
    /// An attestation in the form of signatures.
    NoSignature,
}

impl<'a> Candidate<'a> {
    fn rejected(candidate: &'a SignatureMaterial, reason: Reason, text: String) -> Self {
        Self::Signature(Box::new(CandidateRecord::unverified(candidate, reason, text)))
    }
}

fn no_signature(wants: Wants<'_>, question: Question<'_>, non_signatures: usize) -> String {
    let Question { material, searched, .. } = question;
    let mut notes = Vec::new();
    match wants {
        Wants::OpenPgp(_) if !searched.lookaside => {
            notes.push("registries_d names no lookaside for it".to_owned());
        }
        Wants::Sigstore(_) if !searched.attachments => {
            notes.push("registries_d sets use-sigstore-attachments: false for it".to_owned());
        }
        Wants::OpenPgp(_) | Wants::Sigstore(_) => {}
    }
    if let Wants::Sigstore(_) = wants {
        let count = |kind: fn(&SignatureMaterial) -> bool| material.candidates.iter().filter(|one| kind(one)).count();
        let others = count(|one| matches!(one, SignatureMaterial::OpenPgp(_)));
        let attestations = count(|one| matches!(one, SignatureMaterial::Attestation(_)));
        let attachments = material.other_attachments + attestations + non_signatures;
        if others > 0 || attachments > 0 {
            notes.push(format!("{others} non-sigstore signatures, {attachments} sigstore non-signature attachments"));
        }
    }
    if let Some(first) = material.skipped.first() {
        let count = material.skipped.len();
        let noun = if count == 1 { "candidate" } else { "candidates" };
        notes.push(format!("{count} {noun} could not be read: {}: {}", first.place, first.why));
    }
    if notes.is_empty() {
        texts::NO_SIGNATURE.to_owned()
    } else {
        format!("{} ({})", texts::NO_SIGNATURE, notes.join("; "))
    }
}

/// Who signed, for people.
pub(in crate::policy) fn signer(signer: &Signer) -> String {
    match signer {
        Signer::Key(fingerprint) => format!("the key {fingerprint}"),
        Signer::OpenPgp(fingerprint) => format!("the OpenPGP key {fingerprint}"),
        Signer::Certificate { issuer: Some(issuer), subjects, .. } => format!("{} ({issuer})", subjects.join(", ")),
        Signer::Certificate { issuer: None, subjects, .. } => subjects.join(", "),
    }
}
