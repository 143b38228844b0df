//! policy.json as containers/image reads it: its own parser, identity and scope cases, and a real signature under it.
//!
//! The cases lie in the collection that `SEALGATE_FIXTURES` points to.

use std::path::Path;

use sealgate::clock::Timestamp;
use sealgate::oci::{Digest, DockerReference, ImageReference};
use sealgate::policy::{
    ContainersPolicy, ContainersPolicyDocument, Decision, Material, PolicySet, Reason, Settings, SignedIdentity,
    Verdict,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::fixtures::{data, fixtures, recorded_signature};

const EMAIL: &str = "mitr@redhat.com";
const ISSUER: &str = "https://github.com/login/oauth";
const SIGNED: &str = "192.168.64.2:5000/cosign-signed/fulcio-rekor-1";

fn json_of(file: impl AsRef<Path>) -> Value {
    let file = file.as_ref();
    let text = std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_json::from_slice(&text).unwrap()
}

fn policy_json(name: &str) -> Option<Value> {
    fixtures().map(|folder| json_of(folder.join("policy-json").join(name)))
}

#[derive(Deserialize)]
struct ParserCase {
    id: String,
    text: String,
    accept: bool,
}

#[test]
fn every_parser_case_loads_or_fails_with_the_text_of_containers_image() {
    let Some(cases) = policy_json("parser-vectors.json") else { return };
    let cases: Vec<ParserCase> = serde_json::from_value(cases["vectors"].clone()).unwrap();
    assert_eq!(cases.len(), 254);
    let texts = json_of(data("policy-json-error-texts.json"));
    let mut refused = 0;
    for case in cases {
        match ContainersPolicyDocument::parse(case.text.as_bytes()) {
            Ok(_) => assert!(case.accept, "{} must be refused", case.id),
            Err(error) => {
                assert!(!case.accept, "{} must load: {error}", case.id);
                assert_eq!(texts["texts"][&case.id], error.text(), "{}", case.id);
                refused += 1;
            }
        }
    }
    assert_eq!(texts["texts"].as_object().unwrap().len(), refused);
}

#[test]
fn the_two_example_policies_load() {
    let Some(folder) = fixtures() else { return };
    for (name, files) in [("policy.json", 13), ("crio-signed.json", 0)] {
        let text = std::fs::read(folder.join("policy-json").join(name)).unwrap();
        let document = ContainersPolicyDocument::parse(&text).unwrap();
        assert_eq!(document.files().len(), files, "{name}: {:#?}", document.files());
    }
}

fn identity(value: &Value) -> SignedIdentity {
    SignedIdentity::from_json(value.to_string().as_bytes()).unwrap()
}

/// What is no reference is never accepted.
fn accepts(identity: &SignedIdentity, asked: &str, signed: &str) -> bool {
    let parsed = (asked.parse::<DockerReference>(), signed.parse::<DockerReference>());
    matches!(parsed, (Ok(asked), Ok(signed)) if identity.accepts(&asked, &signed))
}

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap_or_else(|| panic!("{key} in {row}"))
}

#[test]
fn symmetric_identities_match_as_in_containers_image() {
    let Some(vectors) = policy_json("match-vectors.json") else { return };
    let default = identity(&json!({"type": "matchRepoDigestOrExact"}));
    for kind in ["matchExact", "matchRepository"] {
        let identity = identity(&json!({"type": kind}));
        let rows = vectors[kind]["rows"].as_array().unwrap();
        assert!(rows.len() > 20);
        for row in rows {
            let (a, b, expected) = (text(row, "a"), text(row, "b"), row["match"].as_bool().unwrap());
            assert_eq!(accepts(&identity, a, b), expected, "{kind} {row}");
            assert_eq!(accepts(&identity, b, a), expected, "{kind} {row}, the other way round");
            // The default accepts what is exact, and nothing of another repository.
            if (kind == "matchExact") == expected {
                assert_eq!(accepts(&default, a, b), expected, "matchRepoDigestOrExact {row}");
            }
        }
    }
}

#[test]
fn the_default_identity_matches_as_in_containers_image() {
    let Some(vectors) = policy_json("match-vectors.json") else { return };
    let default = identity(&json!({"type": "matchRepoDigestOrExact"}));
    let rows = vectors["matchRepoDigestOrExact"]["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 20);
    for row in rows {
        let matches = accepts(&default, text(row, "image"), text(row, "signature"));
        assert_eq!(matches, row["match"].as_bool().unwrap(), "{row}");
    }
}

#[test]
fn exact_identities_match_as_in_containers_image() {
    let Some(vectors) = policy_json("match-vectors.json") else { return };
    for (kind, key, rows) in [
        ("exactReference", "dockerReference", "matchExact"),
        ("exactRepository", "dockerRepository", "matchRepository"),
    ] {
        for row in vectors[rows]["rows"].as_array().unwrap() {
            let document = json!({"type": kind, key: text(row, "a")});
            // What is no reference does not even load.
            let matches = SignedIdentity::from_json(document.to_string().as_bytes())
                .is_ok_and(|identity| accepts(&identity, "unrelated.example/image:1", text(row, "b")));
            assert_eq!(matches, row["match"].as_bool().unwrap(), "{kind} {row}");
        }
    }
}

#[test]
fn remapped_identities_match_as_in_containers_image() {
    let Some(vectors) = policy_json("match-vectors.json") else { return };
    let remap = |prefix: &str, signed_prefix: &str| {
        let document = json!({"type": "remapIdentity", "prefix": prefix, "signedPrefix": signed_prefix});
        SignedIdentity::from_json(document.to_string().as_bytes())
    };
    let rows = |name: &str| vectors["remapIdentity"][name].as_array().unwrap();
    for row in rows("prefix_matches") {
        let reference = exact(text(row, "reference"));
        // What lies under the prefix is something else afterwards, what does not is as it was.
        let unchanged = accepts(&remap(text(row, "prefix"), "changed.example/x").unwrap(), &reference, &reference);
        assert_eq!(unchanged, !row["match"].as_bool().unwrap(), "{row}");
    }
    for row in rows("remapped") {
        let (reference, result) = (exact(text(row, "reference")), text(row, "result"));
        let Ok(identity) = remap(text(row, "prefix"), text(row, "signedPrefix")) else {
            assert_eq!(result, "", "{row}");
            continue;
        };
        if result.is_empty() {
            assert!(!accepts(&identity, &reference, &reference), "{row}");
        } else {
            assert!(accepts(&identity, &reference, &exact(result)), "{row}");
        }
    }
    for row in rows("match") {
        let matches = remap(text(row, "prefix"), text(row, "signedPrefix"))
            .is_ok_and(|identity| accepts(&identity, text(row, "image"), text(row, "signature")));
        assert_eq!(matches, row["match"].as_bool().unwrap(), "{row}");
    }
}

/// With a tag where there is neither tag nor digest.
fn exact(reference: &str) -> String {
    let parsed: DockerReference = reference.parse().unwrap();
    if parsed.tag.is_none() && parsed.digest.is_none() { format!("{reference}:t") } else { reference.to_owned() }
}

fn policy_of(document: &Value) -> PolicySet {
    let document = ContainersPolicyDocument::parse(document.to_string().as_bytes()).unwrap();
    let containers_policy =
        ContainersPolicy::resolve(document, &mut |path| Err(format!("{path} is not read"))).unwrap();
    let settings = Settings { containers_policy: Some(containers_policy), ..Default::default() };
    PolicySet::new(settings).unwrap()
}

fn with_scopes(scopes: &[&str]) -> PolicySet {
    let reject = json!([{"type": "reject"}]);
    let scopes: serde_json::Map<String, Value> =
        scopes.iter().map(|scope| ((*scope).to_owned(), reject.clone())).collect();
    policy_of(&json!({"default": reject, "transports": {"docker": scopes}}))
}

fn now() -> Timestamp {
    "2026-11-20T00:00:00Z".parse().unwrap()
}

#[test]
fn names_have_the_scopes_that_they_have_in_containers_image() {
    let Some(vectors) = policy_json("scope-vectors.json") else { return };
    for row in vectors["expansion"]["rows"].as_array().unwrap() {
        let image: ImageReference = format!("{}:tag", text(row, "name")).parse().unwrap();
        let scopes: Vec<&str> = row["scopes"].as_array().unwrap().iter().map(|scope| scope.as_str().unwrap()).collect();
        // With the most specific ones taken away one by one, each decides in its turn, and then none.
        for left in 0..=scopes.len() {
            let policy = with_scopes(&scopes[left..]);
            assert_eq!(
                policy.explain(&image, now()).containers_policy.unwrap().scope,
                scopes.get(left).copied(),
                "{row}"
            );
        }
    }
}

#[test]
fn the_scope_that_decides_is_the_one_that_skopeo_picks() {
    let Some(vectors) = policy_json("scope-vectors.json") else { return };
    let rows = vectors["lookup"].as_array().unwrap();
    assert!(rows.len() > 10);
    for row in rows {
        let scopes: Vec<&str> = row["scopes"].as_array().unwrap().iter().map(|scope| scope.as_str().unwrap()).collect();
        let policy = with_scopes(&scopes);
        let image = text(row, "reference").parse().unwrap();
        let decides = policy.explain(&image, now()).containers_policy.unwrap().scope.unwrap_or("default");
        assert_eq!(decides, text(row, "decides"), "{row}");
    }
}

/// The real keyless signature's requirement, changed by `change`.
fn decide_real(image: &str, change: impl FnOnce(&mut Value)) -> Verdict {
    let folder = data("fulcio-rekor");
    let read = |file: &str| std::fs::read(folder.join(file)).unwrap();
    let base64 = |file: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(read(file))
    };
    let mut requirement = json!({
        "type": "sigstoreSigned",
        "fulcio": {"caData": base64("fulcio_v1.crt.pem"), "oidcIssuer": ISSUER, "subjectEmail": EMAIL},
        "rekorPublicKeyData": base64("rekor.pub"),
        "signedIdentity": {"type": "matchRepository"},
    });
    change(&mut requirement);
    let policy = policy_of(&json!({"default": [requirement]}));
    evaluate_real(&policy, image)
}

fn evaluate_real(policy: &PolicySet, image: &str) -> Verdict {
    let folder = data("fulcio-rekor");
    let digest = Digest::sha256(&std::fs::read(folder.join("manifest.json")).unwrap());
    let candidates = vec![recorded_signature(&folder.join("signature-1"))];
    policy.evaluate(&image.parse().unwrap(), &digest, &Material { candidates, ..Material::default() }, now()).unwrap()
}

#[test]
fn the_real_keyless_signature_is_allowed_for_its_signer_and_repository() {
    for image in [SIGNED.to_owned(), format!("{SIGNED}:another-tag")] {
        let verdict = decide_real(&image, |_| {});
        assert_eq!((verdict.decision, verdict.reason), (Decision::Allow, Reason::Verified), "{}", verdict.text);
    }
    let elsewhere = json!({"type": "exactRepository", "dockerRepository": SIGNED});
    let verdict = decide_real("mirror.example/copy:1", |requirement| requirement["signedIdentity"] = elsewhere);
    assert_eq!(verdict.decision, Decision::Allow, "{}", verdict.text);
}

#[test]
fn the_real_keyless_signature_is_refused_for_anything_else() {
    let verdict = decide_real("192.168.64.2:5000/cosign-signed/other:1", |_| {});
    assert_eq!(verdict.reason, Reason::IdentityMismatch);
    assert_eq!(verdict.text, format!("Signature for identity \"{SIGNED}\" is not accepted"));
    let verdict = decide_real(SIGNED, |requirement| requirement["fulcio"]["subjectEmail"] = json!("eve@redhat.com"));
    assert_eq!(verdict.text, r#"Required email "eve@redhat.com" not found (got ["mitr@redhat.com"])"#);
    let verdict = decide_real(SIGNED, |requirement| requirement["fulcio"]["oidcIssuer"] = json!("https://other"));
    assert_eq!(verdict.text, r#"Unexpected Fulcio OIDC issuer "https://github.com/login/oauth""#);
    // The default identity wants a tag in the signature, and cosign writes none.
    let verdict = decide_real(&format!("{SIGNED}:1"), |requirement| {
        requirement.as_object_mut().unwrap().remove("signedIdentity");
    });
    assert_eq!((verdict.decision, verdict.reason), (Decision::Deny, Reason::IdentityMismatch));
}

/// The authorities and log key in `config/policy.json` are those that a real signature proves: it is refused for its
/// signer alone, which is looked at only after certificate chain and log entry were found good.
#[test]
fn the_policy_that_we_ship_trusts_the_public_good_instance_and_its_own_signers_only() {
    let shipped = json_of(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/policy.json"));
    let policy = policy_of(&shipped);
    for (image, email) in [
        ("registry.k8s.io/pause:3.10", "krel-trust@k8s-releng-prod.iam.gserviceaccount.com"),
        ("gcr.io/distroless/static:latest", "keyless@distroless.iam.gserviceaccount.com"),
    ] {
        let verdict = evaluate_real(&policy, image);
        assert_eq!((verdict.decision, verdict.reason), (Decision::Deny, Reason::IdentityMismatch), "{}", verdict.text);
        let email_wrong = format!("Required email \"{email}\" not found (got [\"{EMAIL}\"])");
        let issuer_wrong = format!("Unexpected Fulcio OIDC issuer \"{ISSUER}\"");
        assert!([email_wrong, issuer_wrong].contains(&verdict.text), "{}", verdict.text);
    }
    let mut reader = shipped;
    for requirement in ["/transports/docker/registry.k8s.io/0", "/transports/docker/gcr.io~1distroless/0"] {
        let fulcio = reader.pointer_mut(requirement).unwrap();
        fulcio["fulcio"]["oidcIssuer"] = json!(ISSUER);
        fulcio["fulcio"]["subjectEmail"] = json!(EMAIL);
        fulcio["signedIdentity"] = json!({"type": "exactRepository", "dockerRepository": SIGNED});
    }
    let policy = policy_of(&reader);
    for image in ["registry.k8s.io/pause:3.10", "gcr.io/distroless/static:latest"] {
        let verdict = evaluate_real(&policy, image);
        assert_eq!(verdict.decision, Decision::Allow, "{}", verdict.text);
    }
}
