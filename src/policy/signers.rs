//! Who signed an image, whether or not the policy asks: the material of a report in audit mode, never of a decision.

use serde_json::{Value, json};

use super::containers_policy::Question;
use super::evidence::{bounded, describe, set};
use crate::limits::CANDIDATES_MAX;
use crate::oci::Digest;
use crate::verify::{
    Identified, OpenPgpClaim, OpenPgpSignature, SignatureMaterial, SigstoreRoot, VerifiedStatement, named_key,
    openpgp_claim,
};

/// Adds `signers`, every signature and attestation that verifies under `root`, and `other_signatures`, whatever does not: it may
/// be by a key, for which no trust root vouches.
pub(super) fn report(evidence: &mut Value, question: Question<'_>, root: &SigstoreRoot) {
    let (mut signers, mut others) = (Vec::new(), Vec::new());
    for candidate in question.material.candidates.iter().take(CANDIDATES_MAX) {
        if let SignatureMaterial::OpenPgp(signature) = candidate {
            others.push(openpgp(candidate, signature, question.digest));
            continue;
        }
        match root.identify(candidate, question.digest, question.now) {
            Ok(identified) => signers.push(signer(candidate, identified)),
            Err(error) => {
                let mut other = found(candidate, "unknown");
                let key = named_key(candidate, question.digest);
                set(&mut other, "key", json!(key.map(|key| key.fingerprint().to_string())));
                set(&mut other, "why", json!(bounded(&error.to_string())));
                others.push(other);
            }
        }
    }
    set(evidence, "signers", json!(signers));
    set(evidence, "other_signatures", json!(others));
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
    use serde_json::json;

    use crate::clock::{Clock, Timestamp};
    use crate::limits::{CANDIDATES_MAX, EVIDENCE_DOCUMENT_BYTES_MAX};
    use crate::oci::Digest;
    use crate::policy::{
        ContainersPolicy, ContainersPolicyDocument, Decision, Material, MaterialKind, Mode, Override, Plan, PolicySet,
        Settings, Verdict,
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

    fn decide(policy: &PolicySet, candidates: Vec<SignatureMaterial>, now: Timestamp) -> Verdict {
        let material = Material { candidates, ..Material::default() };
        policy.evaluate(&format!("{APP}:1").parse().unwrap(), &Digest::sha256(b"manifest"), &material, now).unwrap()
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
            let Plan::WantsMaterial(wanted) = audit.plan(&format!("{APP}:1").parse().unwrap()) else { panic!() };
            assert!(wanted.kinds.contains(&MaterialKind::Bundles) && wanted.kinds.len() == 3);
            let verdict = decide(&audit, candidates.clone(), now);
            assert_eq!(verdict.decision == Decision::Allow, requirement == "insecureAcceptAnything");
            let signers = verdict.evidence.0["signers"].as_array().unwrap();
            assert_eq!(signers.len(), 2, "{signers:?}");
            assert_eq!(signers[0]["kind"], "signature");
            assert_eq!(signers[0]["signer"], json!({"issuer": ISSUER, "subjects": ["dev@example.com"]}));
            assert!(signers[0]["log"]["index"].is_u64() && signers[0]["place"].is_string());
            assert_eq!(
                (&signers[1]["kind"], &signers[1]["predicate_type"]),
                (&json!("attestation"), &json!("https://slsa.dev/provenance/v1"))
            );
            let others = verdict.evidence.0["other_signatures"].as_array().unwrap();
            assert_eq!(others[0]["key"], sigstore.key("k").fingerprint().to_string());
            assert_eq!(others[1]["key"], json!(null));
        }
    }

    #[test]
    fn where_nobody_looked_nobody_is_said_to_be_absent() {
        let now = Clock::System.now();
        let sigstore = FakeSigstore::from_seed(7, now);
        let document = ContainersPolicyDocument::parse(br#"{"default": [{"type": "reject"}]}"#).unwrap();
        let policy = ContainersPolicy::resolve(document, &mut |_| Err("no files".to_owned())).unwrap();
        // The digest is not known when it is planned what to look for.
        let scope = Digest::sha256(b"manifest").to_string().parse().unwrap();
        let policy = PolicySet::new(Settings {
            containers_policy: Some(policy),
            trust_root: Some(SigstoreRoot::from_json(sigstore.trusted_root_json().as_bytes()).unwrap()),
            overrides: vec![Override { mode: Some(Mode::Audit), ..Override::of(scope) }],
            ..Settings::default()
        });
        assert_eq!(decide(&policy.unwrap(), Vec::new(), now).evidence.0.get("signers"), None);
    }

    #[test]
    fn enforcing_keeps_only_what_was_examined() {
        let now = Clock::System.now();
        let sigstore = FakeSigstore::from_seed(7, now);
        let enforce = policy(&sigstore, "reject", Mode::Enforce);
        assert_eq!(enforce.plan(&format!("{APP}:1").parse().unwrap()), Plan::WithoutMaterial);
        assert_eq!(decide(&enforce, Vec::new(), now).evidence.0.get("signers"), None);
        let audit = policy(&sigstore, "reject", Mode::Audit);
        let sha512 = format!("{APP}@sha512:{}", "0".repeat(128)).parse().unwrap();
        assert_eq!(audit.plan(&sha512), Plan::WithoutMaterial, "no signature names such a digest");
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
        let bytes = |verdict: &Verdict| serde_json::to_vec(&verdict.evidence.0).unwrap().len();
        let many = decide(&audit, vec![sign(4000); CANDIDATES_MAX + 1], now);
        assert_eq!(many.evidence.0["signers"].as_array().unwrap().len(), CANDIDATES_MAX);
        assert!(bytes(&many) <= EVIDENCE_DOCUMENT_BYTES_MAX);
        let few = decide(&audit, vec![sign(4000)], now);
        assert_eq!(few.evidence.0.get("cut"), None);
        let mut large = few.evidence;
        large.0["more"] = json!(vec!["x".repeat(10_000); 100]);
        crate::policy::evidence::fit(&mut large);
        assert_eq!(large.0["cut"], true);
        assert!(serde_json::to_vec(&large.0).unwrap().len() <= EVIDENCE_DOCUMENT_BYTES_MAX);
    }
}
