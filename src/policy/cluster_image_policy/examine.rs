//! What one policy says of an image: OR over its authorities, AND over an authority's attestations, OR over the candidates
//! for each of them; its own rule has the last word.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::record::{AttestationRecord, AuthorityRecord, Outcome, PolicyRecord, closest};
use super::rego::{Rego, Ruling};
use super::resolve::{Attestation, Authority, AuthorityKind, Policy, Signed};
use super::rule_input::{as_policy_controller, attested};
use super::{SignatureFormat, StaticAction};
use crate::clock::Timestamp;
use crate::limits::CANDIDATES_MAX;
use crate::oci::{Algorithm, Digest};
use crate::policy::containers_policy::{Question, signer};
use crate::policy::evidence::CandidateRecord;
use crate::policy::finding::Expected;
use crate::policy::{Reason, RestsOn, Skipped};
use crate::verify::{Place, SignatureMaterial, VerifiedSignature, VerifiedStatement, VerifyError};

/// What satisfied authorities come to.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Satisfied {
    /// For people, such as `signed by …`.
    pub(super) signers: Vec<String>,
    pub(super) warnings: Vec<String>,
    pub(super) not_after: Option<Timestamp>,
    /// What the policy's own rule is given of this authority.
    matched: Value,
}

/// How a candidate is verified; the answer is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum As {
    Signature,
    Attestation,
}

#[derive(Debug, Clone)]
enum Verified {
    Signature(Box<VerifiedSignature>),
    Statement(Box<VerifiedStatement>),
}

/// One evaluation: each candidate is verified at most once under each trust.
pub(super) struct Examination<'a> {
    question: Question<'a>,
    /// The policy that is evaluated.
    place: String,
    /// Certificates as soon as one was judged, or a rule was asked.
    pub(super) rests_on: RestsOn,
    verified: BTreeMap<(Digest, usize, As), Result<Verified, VerifyError>>,
}

/// Whether looking ends at the first that is good enough, or all of them are wanted for a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    FirstIsEnough,
    All,
}

impl<'a> Examination<'a> {
    pub(super) fn new(question: Question<'a>) -> Self {
        Self { question, place: String::new(), rests_on: RestsOn::Timeless, verified: BTreeMap::new() }
    }

    pub(super) fn policy<'p>(&mut self, policy: &'p Policy) -> PolicyRecord<'a, 'p> {
        self.place = policy.place();
        let extent = if policy.rule.is_some() { Extent::All } else { Extent::FirstIsEnough };
        let mut records: Vec<AuthorityRecord<'a, 'p>> = Vec::new();
        for authority in &policy.authorities {
            let enough = extent == Extent::FirstIsEnough && records.iter().any(AuthorityRecord::is_satisfied);
            records.push(if enough {
                AuthorityRecord::not_evaluated(authority)
            } else {
                self.authority(authority, extent)
            });
        }
        let outcome = self.policy_outcome(policy, &records);
        PolicyRecord { policy, outcome, authorities: records }
    }

    fn policy_outcome(&mut self, policy: &Policy, records: &[AuthorityRecord<'_, '_>]) -> Outcome {
        let satisfied: Vec<(&str, &Satisfied)> = records.iter().filter_map(AuthorityRecord::satisfied).collect();
        let no_answer = records.iter().find_map(AuthorityRecord::no_answer);
        match (&policy.rule, no_answer) {
            // A rule must see every authority that matches, so that nothing is hidden from it by failing.
            (Some(_), Some(why)) => return Outcome::NoAnswer { why },
            (None, Some(why)) if satisfied.is_empty() => return Outcome::NoAnswer { why },
            (_, _) => {}
        }
        if satisfied.is_empty() {
            return denied(records);
        }
        let mut all = Satisfied::default();
        let mut matches = serde_json::Map::new();
        for (name, one) in satisfied {
            all.signers.extend(one.signers.iter().cloned());
            all.warnings.extend(one.warnings.iter().cloned());
            all.not_after = [all.not_after, one.not_after].into_iter().flatten().min();
            matches.insert(name.to_owned(), one.matched.clone());
        }
        let Some(rule) = &policy.rule else { return Outcome::Satisfied(all) };
        if let Some(outcome) = self.unseen(records) {
            return outcome;
        }
        match self.rule(rule, &json!({ "authorityMatches": matches })) {
            Ok(Ruling::Passes { warning }) => {
                all.warnings.extend(warning);
                Outcome::Satisfied(all)
            }
            Ok(Ruling::Fails { why }) => refused_by_rule(rule, records, no("the policy's Rego rule", why)),
            Err(why) => Outcome::NoAnswer { why },
        }
    }

    /// What a policy comes to whose rule would not see all there is: it may ask that something is not there, so it must not
    /// decide on a part.
    fn unseen(&self, records: &[AuthorityRecord<'_, '_>]) -> Option<Outcome> {
        if !records.iter().any(|record| matches!(record.authority.kind, AuthorityKind::Signed(_))) {
            return None;
        }
        let denied = |reason, text: &str| Some(Outcome::Denied { reason, text: text.to_owned() });
        let Question { material, digest, searched, .. } = self.question;
        if digest.algorithm() != Algorithm::Sha256 {
            return denied(Reason::UnsupportedDigest, UNSUPPORTED_DIGEST);
        }
        if !searched.attachments {
            return denied(Reason::NoSignature, NOT_SEARCHED);
        }
        if material.more {
            return denied(Reason::TooManySignatures, "too many signatures: the policy's Rego rule must see them all");
        }
        let why = || {
            let unread = unread(&material.skipped);
            format!("not all signatures could be read, and the policy's Rego rule must see them all{unread}")
        };
        material.incomplete.then(|| Outcome::Unseen { why: why() })
    }

    fn rule(&mut self, rule: &Rego, input: &Value) -> Result<Ruling, String> {
        // A rule may look at the time.
        self.rests_on = RestsOn::Certificates;
        rule.evaluate(input, self.question.now).map_err(|error| error.to_string())
    }

    fn authority<'p>(&mut self, authority: &'p Authority, extent: Extent) -> AuthorityRecord<'a, 'p> {
        let signed = match &authority.kind {
            AuthorityKind::Static { action: StaticAction::Pass, .. } => {
                let matched = json!({ "static": true });
                let outcome = Outcome::Satisfied(Satisfied { matched, ..Satisfied::default() });
                return AuthorityRecord::of(authority, outcome);
            }
            AuthorityKind::Static { action: StaticAction::Fail, message } => {
                let text = match message.as_str() {
                    "" => "disallowed by static policy".to_owned(),
                    message => format!("disallowed by static policy: {message}"),
                };
                return AuthorityRecord::of(authority, Outcome::Denied { reason: Reason::Rejected, text });
            }
            AuthorityKind::Signed(signed) => signed.as_ref(),
        };
        if self.question.digest.algorithm() != Algorithm::Sha256 {
            let text = UNSUPPORTED_DIGEST.to_owned();
            return AuthorityRecord::of(authority, Outcome::Denied { reason: Reason::UnsupportedDigest, text });
        }
        if signed.rests_on == RestsOn::Certificates {
            self.rests_on = RestsOn::Certificates;
        }
        if signed.attestations.is_empty() {
            let (outcome, candidates) = self.signatures(signed, extent);
            return AuthorityRecord { candidates, ..AuthorityRecord::of(authority, outcome) };
        }
        let (outcome, attestations) = self.attestations(signed, extent);
        AuthorityRecord { attestations, ..AuthorityRecord::of(authority, outcome) }
    }

    /// Any plain signature is enough.
    fn signatures(&mut self, signed: &Signed, extent: Extent) -> (Outcome, Vec<CandidateRecord<'a>>) {
        let mut records: Vec<CandidateRecord<'a>> = Vec::new();
        let mut satisfied = Satisfied::default();
        let mut matched = Vec::new();
        for (index, candidate) in self.candidates(signed) {
            if extent == Extent::FirstIsEnough && !matched.is_empty() {
                records.push(CandidateRecord::not_examined(candidate));
                continue;
            }
            records.push(match self.verify(index, candidate, signed, As::Signature) {
                Ok(Verified::Signature(signature)) => {
                    matched.push(as_policy_controller(candidate, &signature));
                    satisfied.add("signed by", &signature);
                    CandidateRecord::verified(candidate, *signature, None)
                }
                Ok(Verified::Statement(_)) => CandidateRecord::not_examined(candidate),
                Err(error) => CandidateRecord::refused(candidate, error),
            });
        }
        if matched.is_empty() {
            self.explain(signed, &mut records);
            return (self.none(&records, "signatures", Reason::NoSignature), records);
        }
        satisfied.matched = json!({ "signatures": matched });
        (Outcome::Satisfied(satisfied), records)
    }

    /// Each of the attestations must be there.
    fn attestations<'p>(&mut self, signed: &'p Signed, extent: Extent) -> (Outcome, Vec<AttestationRecord<'a, 'p>>) {
        let mut records: Vec<AttestationRecord<'a, 'p>> = Vec::new();
        let mut all = Satisfied::default();
        let mut matched = serde_json::Map::new();
        let mut no_answer = None;
        for attestation in &signed.attestations {
            let record = self.attestation(signed, attestation, extent);
            match &record.outcome {
                Outcome::Satisfied(one) => {
                    all.signers.extend(one.signers.iter().cloned());
                    all.warnings.extend(one.warnings.iter().cloned());
                    all.not_after = [all.not_after, one.not_after].into_iter().flatten().min();
                    matched.insert(attestation.name.clone(), one.matched.clone());
                }
                Outcome::Denied { reason, text } => {
                    let text = format!("attestation {}: {text}", attestation.name);
                    let denied = Outcome::Denied { reason: *reason, text };
                    records.push(record);
                    return (denied, records);
                }
                Outcome::NoAnswer { why } => {
                    let why = format!("attestation {}: {why}", attestation.name);
                    no_answer.get_or_insert(Outcome::NoAnswer { why });
                }
                // Of a whole policy alone.
                Outcome::Unseen { .. } | Outcome::NotEvaluated => {}
            }
            records.push(record);
        }
        all.matched = json!({ "attestations": matched });
        (no_answer.unwrap_or(Outcome::Satisfied(all)), records)
    }

    /// Any statement of the right type, about this image, by the right signer, that the rule accepts.
    fn attestation<'p>(
        &mut self,
        signed: &Signed,
        attestation: &'p Attestation,
        extent: Extent,
    ) -> AttestationRecord<'a, 'p> {
        let mut candidates: Vec<CandidateRecord<'a>> = Vec::new();
        let mut satisfied = Satisfied::default();
        let mut matched = Vec::new();
        let mut no_answer = None;
        for (index, candidate) in self.candidates(signed) {
            if extent == Extent::FirstIsEnough && !matched.is_empty() {
                candidates.push(CandidateRecord::not_examined(candidate));
                continue;
            }
            let statement = match self.verify(index, candidate, signed, As::Attestation) {
                Ok(Verified::Statement(statement)) => statement,
                Ok(Verified::Signature(_)) => {
                    candidates.push(CandidateRecord::not_examined(candidate));
                    continue;
                }
                Err(error) => {
                    candidates.push(CandidateRecord::refused(candidate, error));
                    continue;
                }
            };
            let rejected = match self.accepts(attestation, &statement) {
                Accepted::Yes { warning } => {
                    matched.push(attested(candidate, &statement));
                    satisfied.add("attested by", &statement.signature);
                    satisfied.warnings.extend(warning);
                    None
                }
                Accepted::No(reason, text) => Some((reason, text)),
                Accepted::NoAnswer(why) => {
                    no_answer.get_or_insert(why.clone());
                    Some((Reason::PolicyRule, why))
                }
            };
            candidates.push(CandidateRecord::attested(candidate, &statement, rejected));
        }
        if matched.is_empty() {
            self.explain(signed, &mut candidates);
        }
        let outcome = match (matched.is_empty(), no_answer) {
            // A rule of the whole policy must see all that match.
            (false, Some(why)) if extent == Extent::All => Outcome::NoAnswer { why },
            (false, _) => {
                satisfied.matched = Value::Array(matched);
                Outcome::Satisfied(satisfied)
            }
            (true, Some(why)) => Outcome::NoAnswer { why },
            (true, None) => self.none(&candidates, "attestations", Reason::NoAttestation),
        };
        AttestationRecord { name: &attestation.name, predicate_type: &attestation.predicate_type, outcome, candidates }
    }

    fn accepts(&mut self, attestation: &Attestation, statement: &VerifiedStatement) -> Accepted {
        let VerifiedStatement { statement, .. } = statement;
        if statement.predicate_type != attestation.predicate_type {
            let text =
                format!("its predicate type is {}, not {}", statement.predicate_type, attestation.predicate_type);
            return Accepted::No(Reason::NoAttestation, text);
        }
        let Some(rule) = &attestation.rule else { return Accepted::Yes { warning: None } };
        match self.rule(rule, &statement.json) {
            Ok(Ruling::Passes { warning }) => Accepted::Yes { warning },
            Ok(Ruling::Fails { why }) => Accepted::No(Reason::PolicyRule, no("the Rego rule", why)),
            Err(why) => Accepted::NoAnswer(why),
        }
    }

    /// The candidates in the place and format that the authority names, with their numbers.
    fn candidates(&self, signed: &Signed) -> Vec<(usize, &'a SignatureMaterial)> {
        let Question { image, digest, material, .. } = self.question;
        let repository = signed.repository(image);
        let tag = signed.tag(digest);
        let is_meant = |candidate: &SignatureMaterial| {
            let source = candidate.source();
            let found_in = source.repository.as_ref().unwrap_or(&image.repository);
            let format = match candidate {
                SignatureMaterial::Legacy(_) => {
                    signed.format == SignatureFormat::Legacy && signed.attestations.is_empty()
                }
                SignatureMaterial::Attestation(_) => {
                    signed.format == SignatureFormat::Legacy && !signed.attestations.is_empty()
                }
                SignatureMaterial::Bundle(_) => signed.format == SignatureFormat::Bundle,
                SignatureMaterial::OpenPgp(_) => false,
            };
            let place = match &source.place {
                Place::Tag(found) => *found == tag,
                Place::Referrer => signed.format == SignatureFormat::Bundle,
                Place::Lookaside(_) => false,
            };
            format && place && found_in == repository
        };
        let candidates = material.candidates.iter().take(CANDIDATES_MAX).enumerate();
        candidates.filter(|(_, candidate)| is_meant(candidate)).collect()
    }

    fn verify(
        &mut self,
        index: usize,
        candidate: &SignatureMaterial,
        signed: &Signed,
        how: As,
    ) -> Result<Verified, VerifyError> {
        let Question { digest, now, .. } = self.question;
        let trust = &signed.trust;
        let verified = self.verified.entry((trust.fingerprint(), index, how)).or_insert_with(|| match how {
            As::Signature => {
                trust.verify_signature(candidate, digest, now).map(|one| Verified::Signature(Box::new(one)))
            }
            As::Attestation => {
                trust.verify_attestation(candidate, digest, now).map(|one| Verified::Statement(Box::new(one)))
            }
        });
        verified.clone()
    }

    /// Says of refused candidates what they are.
    fn explain(&self, signed: &Signed, records: &mut [CandidateRecord<'_>]) {
        let (keys, identities) = (signed.trust.keys(), signed.trust.identities());
        let expected = Expected { keys, identities, signer: signed.signer(), place: &self.place };
        self.question.finder.explain(records, expected);
    }

    /// Why none of the candidates is accepted.
    fn none(&self, records: &[CandidateRecord<'_>], what: &str, nothing: Reason) -> Outcome {
        let material = self.question.material;
        if material.more || material.candidates.len() > CANDIDATES_MAX {
            let text = "too many signatures: none of those looked at is accepted, and there are more".to_owned();
            return Outcome::Denied { reason: Reason::TooManySignatures, text };
        }
        let rejected: Vec<(Reason, String)> = records.iter().filter_map(CandidateRecord::told).collect();
        if rejected.is_empty() {
            let unread = unread(&material.skipped);
            return Outcome::Denied { reason: nothing, text: format!("no {what} found{unread}") };
        }
        let texts: Vec<&str> = rejected.iter().map(|(_, text)| text.as_str()).collect();
        let reason = closest(rejected.iter().map(|(reason, _)| *reason)).unwrap_or(Reason::BadSignature);
        Outcome::Denied { reason, text: format!("no matching {what}: {}", texts.join("; ")) }
    }
}

enum Accepted {
    Yes { warning: Option<String> },
    No(Reason, String),
    NoAnswer(String),
}

impl Satisfied {
    fn add(&mut self, verb: &str, signature: &VerifiedSignature) {
        let signer = format!("{verb} {}", signer(&signature.signer));
        if !self.signers.contains(&signer) {
            self.signers.push(signer);
        }
        self.not_after = [self.not_after, signature.not_after].into_iter().flatten().min();
    }
}

/// No authority is satisfied.
fn denied(records: &[AuthorityRecord<'_, '_>]) -> Outcome {
    let denials: Vec<(&str, Reason, &str)> = records.iter().filter_map(AuthorityRecord::denied).collect();
    let reason = closest(denials.iter().map(|(_, reason, _)| *reason)).unwrap_or(Reason::NoSignature);
    let texts: Vec<String> = denials.iter().map(|(name, _, text)| format!("authority {name}: {text}")).collect();
    Outcome::Denied { reason, text: texts.join("; ") }
}

/// The policy's rule says no. Where an authority that it names found nothing at all, that is what it lacks, and not what it has
/// decided.
fn refused_by_rule(rule: &Rego, records: &[AuthorityRecord<'_, '_>], text: String) -> Outcome {
    let denials = records.iter().filter_map(AuthorityRecord::denied).filter(|(name, _, _)| rule.names(name));
    let denials: Vec<(&str, Reason, &str)> = denials.collect();
    let lacking = denials.iter().map(|(_, reason, _)| *reason);
    let lacking = lacking.filter(|reason| matches!(reason, Reason::NoSignature | Reason::NoAttestation));
    let reason = closest(lacking).unwrap_or(Reason::PolicyRule);
    let found = denials.iter().map(|(name, _, why)| format!("authority {name}: {why}"));
    let texts: Vec<String> = std::iter::once(text).chain(found).collect();
    Outcome::Denied { reason, text: texts.join("; ") }
}

/// What was passed over, for the end of a text.
fn unread(skipped: &[Skipped]) -> String {
    match skipped {
        [] => String::new(),
        [first, rest @ ..] => {
            let others = if rest.is_empty() { String::new() } else { format!(", and {} more", rest.len()) };
            format!(" (not readable: {}: {}{others})", first.place, first.why)
        }
    }
}

fn no(who: &str, why: Option<String>) -> String {
    match why {
        Some(why) => format!("{who} says no: {why}"),
        None => format!("{who} says no"),
    }
}

const NOT_SEARCHED: &str = "registries.d switches the signatures in this registry off (use-sigstore-attachments: false), and the \
                            policy's Rego rule must see them all";
const UNSUPPORTED_DIGEST: &str = "signatures bind sha256 digests; pull the image by tag or by its sha256 digest";
