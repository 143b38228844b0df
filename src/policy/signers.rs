//! Who signed an image, whether or not the policy asks: the material of a report in audit mode, never of a decision.

use serde_json::{Value, json};

use super::evidence::{bounded, describe, set};
use super::finding::KnownKeys;
use super::{Material, Skipped};
use crate::clock::Timestamp;
use crate::limits::{CANDIDATES_MAX, FINDING_CHECKS_MAX};
use crate::oci::Digest;
use crate::verify::{
    Identified, OpenPgpClaim, OpenPgpSignature, SignatureMaterial, SigstoreRoot, VerifiedStatement, named_key,
    openpgp_claim,
};

/// What one search found, and what it could not look at.
#[derive(Debug, Clone)]
pub struct ReportedMaterial<'a> {
    /// What it found.
    pub material: &'a Material,
    /// Whether the document says already what was skipped, since the decision rests on this search.
    pub is_decided_on: bool,
    /// Why there may be more.
    pub missing: Option<Skipped>,
}

/// For whom signatures are to be identified, and by what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identify<'a> {
    pub(super) digest: &'a Digest,
    pub(super) root: &'a SigstoreRoot,
    /// Holders of OpenPGP keys are known by the policy's rings alone.
    pub(super) known: &'a KnownKeys,
    pub(super) now: Timestamp,
}

impl Identify<'_> {
    /// A record of who signed it, or of what it is else.
    fn one(&self, candidate: &SignatureMaterial, checks: &mut usize) -> Result<Value, Value> {
        if let SignatureMaterial::OpenPgp(signature) = candidate {
            return match self.known.identify_openpgp(signature, self.digest, self.now, checks) {
                Some(verified) => Ok(signer(candidate, Identified::Signature(verified))),
                None => Err(openpgp(candidate, signature, self.digest)),
            };
        }
        self.root.identify(candidate, self.digest, self.now).map(|identified| signer(candidate, identified)).map_err(
            |error| {
                let mut other = found(candidate, "unknown");
                let key = named_key(candidate, self.digest);
                set(&mut other, "key", json!(key.map(|key| key.fingerprint().to_string())));
                set(&mut other, "why", json!(bounded(&error.to_string())));
                other
            },
        )
    }
}

/// Adds `signers`, every signature and attestation that verifies under the trust root, or by an OpenPGP key of the policy;
/// `other_signatures`, whatever does not: it may be by a key, for which nobody vouches; and `not_reported`, what could not be
/// looked at.
pub(super) fn report(evidence: &mut Value, found: &[ReportedMaterial<'_>], identify: Identify<'_>) {
    let (mut signers, mut others, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    let mut checks = FINDING_CHECKS_MAX;
    for ReportedMaterial { material, is_decided_on, missing: gap } in found {
        for candidate in material.candidates.iter().take(CANDIDATES_MAX) {
            match identify.one(candidate, &mut checks) {
                Ok(signer) => signers.push(signer),
                Err(other) => others.push(other),
            }
        }
        missing.extend(gap.iter().map(not_reported));
        if !is_decided_on {
            missing.extend(material.skipped.iter().map(not_reported));
        }
        if material.more {
            let why = format!("there are more candidates than are looked at ({CANDIDATES_MAX})");
            missing.push(not_reported(&Skipped { place: "all places together".to_owned(), why }));
        }
    }
    set(evidence, "signers", json!(signers));
    set(evidence, "other_signatures", json!(others));
    set(evidence, "not_reported", json!(missing));
}

pub(super) fn not_reported(Skipped { place, why }: &Skipped) -> Value {
    json!({ "place": bounded(place), "why": bounded(why) })
}

fn signer(candidate: &SignatureMaterial, identified: Identified) -> Value {
    let (mut record, signature) = match identified {
        Identified::Signature(signature) => (found(candidate, "signature"), signature),
        Identified::Attestation(VerifiedStatement { statement, signature }) => {
            let mut record = found(candidate, "attestation");
            set(&mut record, "predicate_type", json!(bounded(&statement.predicate_type)));
            (record, signature)
        }
    };
    describe(&mut record, &signature);
    record
}

/// What an OpenPGP signature says of itself, which nobody has verified.
fn openpgp(candidate: &SignatureMaterial, signature: &OpenPgpSignature, digest: &Digest) -> Value {
    let mut other = found(candidate, "unknown");
    let why = match openpgp_claim(signature, digest) {
        Some(OpenPgpClaim { key, reference }) => {
            set(&mut other, "openpgp", json!(key));
            set(&mut other, "docker_reference", json!(bounded(&reference)));
            "no trust root vouches for OpenPGP keys; the signature says this of itself"
        }
        None => "it is no OpenPGP signature of this image",
    };
    set(&mut other, "why", json!(why));
    other
}

fn found(candidate: &SignatureMaterial, kind: &str) -> Value {
    json!({ "kind": kind, "format": candidate.format(), "place": bounded(&candidate.source().to_string()) })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::clock::{Clock, Timestamp};
    use crate::limits::{CANDIDATES_MAX, EVIDENCE_DOCUMENT_BYTES_MAX};
    use crate::oci::{Algorithm, Digest, ImageReference};
    use crate::policy::{
        ContainersPolicy, ContainersPolicyDocument, Evidence, Material, MaterialKind, Mode, Override, Plan, PolicySet,
        ReportedMaterial, Settings, Skipped,
    };
    use crate::testing::sigstore::{FakeSigstore, Flaw, Identity};
    use crate::verify::{SignatureMaterial, SigstoreRoot};

    const APP: &str = "quay.io/team/app";
    const ISSUER: &str = "https://issuer.example";

    fn policy(sigstore: &FakeSigstore, requirement: &str, mode: Mode) -> PolicySet {
        let document = json!({"default": [{"type": requirement}]}).to_string();
        let document = ContainersPolicyDocument::parse(document.as_bytes()).unwrap();
        let policy = ContainersPolicy::resolve(document, &mut |_| Err("no files".to_owned())).unwrap();
        let root = SigstoreRoot::from_json(sigstore.trusted_root_json().as_bytes()).unwrap();
        let settings =
            Settings { containers_policy: Some(policy), trust_root: Some(root), mode, ..Settings::default() };
        PolicySet::new(settings).unwrap()
    }

    /// The evidence with what is reported of these candidates.
    fn reported(policy: &PolicySet, candidates: Vec<SignatureMaterial>, now: Timestamp) -> Value {
        let material = Material { candidates, ..Material::default() };
        let mut evidence = Evidence(json!({}));
        let found = ReportedMaterial { material: &material, is_decided_on: true, missing: None };
        policy.report(&mut evidence, &Digest::sha256(b"manifest"), &[found], now);
        evidence.0
    }

    #[test]
    fn audit_mode_names_everybody_who_signed_whatever_the_policy_asks() {
        let now = Clock::System.now();
        let sigstore = FakeSigstore::from_seed(7, now);
        let digest = Digest::sha256(b"manifest");
        let uri = Identity::uri("https://github.com/acme/app/.github/workflows/release.yml@refs/heads/main", ISSUER);
        let candidates = vec![
            sigstore.sign_keyless(APP, &digest, "dev@example.com", ISSUER, Flaw::None).material(),
            sigstore.bundle_by(&uri, &digest).predicate("https://slsa.dev/provenance/v1", json!({})).build().material(),
            sigstore.sign_keyed(&sigstore.key("k"), APP, &digest, Flaw::None).material(),
            sigstore
                .sign_keyless(APP, &digest, "late@example.com", ISSUER, Flaw::IntegratedAfterCertificate)
                .material(),
        ];
        for requirement in ["reject", "insecureAcceptAnything"] {
            let audit = policy(&sigstore, requirement, Mode::Audit);
            let image: ImageReference = format!("{APP}:1").parse().unwrap();
            assert_eq!(audit.plan(&image), Plan::WithoutMaterial, "the decision waits for nothing");
            let wished = audit.wished(&image, &digest).unwrap();
            assert!(wished.kinds.contains(&MaterialKind::Bundles) && wished.kinds.len() == 3);
            let evidence = reported(&audit, candidates.clone(), now);
            let signers = evidence["signers"].as_array().unwrap();
            assert_eq!(signers.len(), 2, "{signers:?}");
            assert_eq!(signers[0]["kind"], "signature");
            assert_eq!(signers[0]["signer"], json!({"issuer": ISSUER, "subjects": ["dev@example.com"]}));
            assert!(signers[0]["log"]["index"].is_u64() && signers[0]["place"].is_string());
            assert_eq!(
                (&signers[1]["kind"], &signers[1]["predicate_type"]),
                (&json!("attestation"), &json!("https://slsa.dev/provenance/v1"))
            );
            let others = evidence["other_signatures"].as_array().unwrap();
            assert_eq!(others[0]["key"], sigstore.key("k").fingerprint().to_string());
            assert_eq!(others[1]["key"], json!(null));
        }
    }

    #[test]
    fn an_override_for_the_digest_counts_also_when_a_tag_was_asked_for() {
        let now = Clock::System.now();
        let sigstore = FakeSigstore::from_seed(7, now);
        let document = ContainersPolicyDocument::parse(br#"{"default": [{"type": "reject"}]}"#).unwrap();
        let policy = ContainersPolicy::resolve(document, &mut |_| Err("no files".to_owned())).unwrap();
        let digest = Digest::sha256(b"manifest");
        let policy = PolicySet::new(Settings {
            containers_policy: Some(policy),
            trust_root: Some(SigstoreRoot::from_json(sigstore.trusted_root_json().as_bytes()).unwrap()),
            overrides: vec![Override { mode: Some(Mode::Audit), ..Override::of(digest.to_string().parse().unwrap()) }],
            ..Settings::default()
        })
        .unwrap();
        let image: ImageReference = format!("{APP}:1").parse().unwrap();
        assert!(policy.wished(&image, &digest).is_some());
        assert_eq!(policy.wished(&image, &Digest::sha256(b"another")), None);
    }

    #[test]
    fn enforcing_keeps_only_what_was_examined() {
        let now = Clock::System.now();
        let sigstore = FakeSigstore::from_seed(7, now);
        let image: ImageReference = format!("{APP}:1").parse().unwrap();
        let enforce = policy(&sigstore, "reject", Mode::Enforce);
        assert_eq!(enforce.wished(&image, &Digest::sha256(b"manifest")), None);
        let audit = policy(&sigstore, "reject", Mode::Audit);
        let sha512 = Digest::of(Algorithm::Sha512, b"manifest");
        assert_eq!(audit.wished(&image.with_digest(sha512), &sha512), None, "no signature names such a digest");
    }

    #[test]
    fn what_could_not_be_looked_at_is_told_once() {
        let now = Clock::System.now();
        let sigstore = FakeSigstore::from_seed(7, now);
        let audit = policy(&sigstore, "reject", Mode::Audit);
        let skipped = |place: &str| Skipped { place: place.to_owned(), why: "unreadable".to_owned() };
        let needed = Material { skipped: vec![skipped("needed")], ..Material::default() };
        let wished = Material { skipped: vec![skipped("wished")], more: true, ..Material::default() };
        let found = [
            ReportedMaterial { material: &needed, is_decided_on: true, missing: None },
            ReportedMaterial { material: &wished, is_decided_on: false, missing: Some(skipped("the list")) },
        ];
        let mut evidence = Evidence(json!({}));
        audit.report(&mut evidence, &Digest::sha256(b"manifest"), &found, now);
        let places: Vec<&Value> =
            evidence.0["not_reported"].as_array().unwrap().iter().map(|gap| &gap["place"]).collect();
        assert_eq!(places, ["the list", "wished", "all places together"]);
    }

    #[test]
    fn evidence_of_many_candidates_with_long_identities_fits_and_says_that_it_was_cut() {
        let now = Clock::System.now();
        let sigstore = FakeSigstore::from_seed(7, now);
        let digest = Digest::sha256(b"manifest");
        let audit = policy(&sigstore, "reject", Mode::Audit);
        let sign = |length: usize| {
            let identity = Identity::uri(&format!("https://example.com/{}", "a".repeat(length)), ISSUER);
            sigstore.sign_as(APP, &digest, &identity, Flaw::None).material()
        };
        let bytes = |evidence: &Value| serde_json::to_vec(evidence).unwrap().len();
        let many = reported(&audit, vec![sign(4000); CANDIDATES_MAX + 1], now);
        assert_eq!(many["signers"].as_array().unwrap().len(), CANDIDATES_MAX);
        assert!(bytes(&many) <= EVIDENCE_DOCUMENT_BYTES_MAX);
        let few = reported(&audit, vec![sign(4000)], now);
        assert_eq!(few.get("cut"), None);
        let mut large = Evidence(few);
        large.0["more"] = json!(vec!["x".repeat(10_000); 100]);
        crate::policy::evidence::fit(&mut large);
        assert_eq!(large.0["cut"], true);
        assert!(bytes(&large.0) <= EVIDENCE_DOCUMENT_BYTES_MAX);
    }
}
