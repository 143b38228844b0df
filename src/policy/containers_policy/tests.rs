//! Files that a policy names, and the policy that we ship.

use std::cell::RefCell;

use serde_json::{Value, json};

use super::*;
use crate::testing::sigstore::FakeSigstore;

fn resolve(requirement: &Value, file: &[u8]) -> Result<(), ResolveError> {
    let document = json!({"default": [{"type": "reject"}], "transports": {"docker": {"quay.io/x": [requirement]}}});
    let parsed = ContainersPolicyDocument::parse(document.to_string().as_bytes()).unwrap();
    ContainersPolicy::resolve(parsed, &mut |_| Ok(file.to_vec())).map(|_| ())
}

fn sigstore() -> FakeSigstore {
    FakeSigstore::from_seed(7, crate::clock::Clock::System.now())
}

fn key_path() -> Value {
    json!({"type": "sigstoreSigned", "keyPath": "keys/a.pub"})
}

/// The four ways to name a file, with the keys that name it.
fn every_kind_of_file() -> Vec<(&'static str, Value)> {
    let fulcio = json!({"caPath": "f", "oidcIssuer": "https://i", "subjectEmail": "e"});
    let pki = json!({"caRootsPath": "f", "subjectEmail": "e"});
    vec![
        ("keyPath", key_path()),
        ("keyPaths[0]", json!({"type": "sigstoreSigned", "keyPaths": ["f", "g"]})),
        ("fulcio.caPath", json!({"type": "sigstoreSigned", "fulcio": fulcio, "rekorPublicKeyData": "{rekor}"})),
        ("pki.caRootsPath", json!({"type": "sigstoreSigned", "pki": pki})),
        ("keyPath", json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": "f"})),
    ]
}

/// With a Rekor key where the requirement needs one.
fn completed(requirement: &Value) -> Value {
    use base64::Engine as _;
    let rekor = base64::engine::general_purpose::STANDARD.encode(sigstore().rekor_pem());
    serde_json::from_str(&requirement.to_string().replace("{rekor}", &rekor)).unwrap()
}

#[test]
fn c_05_a_file_that_cannot_be_read_is_an_error_that_names_file_and_place() {
    let document = json!({"default": [key_path()]});
    let parsed = ContainersPolicyDocument::parse(document.to_string().as_bytes()).unwrap();
    let error = ContainersPolicy::resolve(parsed, &mut |_| Err("No such file or directory".to_owned())).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"default[0].keyPath: the file "keys/a.pub" cannot be read: No such file or directory"#
    );
}

#[test]
fn c_05_an_empty_file_is_an_error_wherever_it_is_named() {
    for (key, requirement) in every_kind_of_file() {
        for empty in [&b""[..], b" \n"] {
            let error = resolve(&completed(&requirement), empty).unwrap_err();
            assert_eq!(error.json_path, format!(r#"transports.docker["quay.io/x"][0].{key}"#));
            assert_eq!(error.problem, "is empty");
        }
    }
}

#[test]
fn c_05_a_private_key_is_an_error_wherever_it_is_named_and_is_never_printed() {
    const SECRET: &str = "c2VjcmV0IHNlY3JldA==";
    for label in ["EC PRIVATE KEY", "PRIVATE KEY", "ENCRYPTED SIGSTORE PRIVATE KEY", "PGP PRIVATE KEY BLOCK"] {
        let file = format!("comment\n-----BEGIN {label}-----\n{SECRET}\n-----END {label}-----\n");
        for (key, requirement) in every_kind_of_file() {
            let error = resolve(&completed(&requirement), file.as_bytes()).unwrap_err();
            assert!(error.json_path.ends_with(key) && error.path.is_some(), "{error}");
            assert!(error.problem.starts_with("holds a private key"), "{error}");
            assert!(!error.to_string().contains(SECRET), "{error}");
        }
    }
}

#[test]
fn c_05_content_that_is_no_key_is_never_printed() {
    for (_, requirement) in every_kind_of_file() {
        for file in ["hush hush", "-----BEGIN PUBLIC KEY-----\naHVzaA==\n-----END PUBLIC KEY-----\n"] {
            let error = resolve(&completed(&requirement), file.as_bytes()).unwrap_err();
            assert!(error.problem.starts_with("cannot be used: "), "{error}");
            assert!(!error.to_string().contains("hush") && !error.to_string().contains("aHVzaA"), "{error}");
        }
    }
}

#[test]
fn a_bad_key_among_good_ones_fails_the_requirement() {
    let good = sigstore().key("a").public_pem();
    let document = json!({"default": [{"type": "sigstoreSigned", "keyPaths": ["good", "bad"]}]});
    let parsed = ContainersPolicyDocument::parse(document.to_string().as_bytes()).unwrap();
    let mut read = |path: &str| Ok(if path == "good" { good.clone().into_bytes() } else { b"bad".to_vec() });
    let error = ContainersPolicy::resolve(parsed, &mut read).unwrap_err();
    assert_eq!(error.json_path, "default[0].keyPaths[1]");
}

#[test]
fn a_file_is_bounded_on_both_sides() {
    let key = sigstore().key("a").public_pem();
    let padded = |length: u64| {
        let mut bytes = key.clone().into_bytes();
        bytes.resize(usize::try_from(length).unwrap(), b'\n');
        bytes
    };
    let max = crate::limits::CONFIG_FILE_BYTES_MAX;
    assert_eq!(resolve(&key_path(), &padded(max)), Ok(()));
    assert!(resolve(&key_path(), &padded(max + 1)).unwrap_err().problem.starts_with("has more than"));
}

#[test]
fn only_files_that_can_decide_about_registries_are_read() {
    let requirement = |path: &str| json!([{"type": "sigstoreSigned", "keyPath": path}]);
    let document = json!({
        "default": requirement("default"),
        "transports": {"docker": {"quay.io": requirement("docker")}, "dir": {"": requirement("elsewhere")}},
    });
    let parsed = ContainersPolicyDocument::parse(document.to_string().as_bytes()).unwrap();
    assert_eq!(parsed.files().len(), 3);
    let read = RefCell::new(Vec::new());
    let key = sigstore().key("a").public_pem();
    ContainersPolicy::resolve(parsed, &mut |path| {
        read.borrow_mut().push(path.to_owned());
        Ok(key.clone().into_bytes())
    })
    .unwrap();
    assert_eq!(read.into_inner(), ["default", "docker"]);
}

#[test]
fn the_policy_that_we_ship_needs_no_file_and_has_no_trap() {
    let document = ContainersPolicyDocument::parse(include_bytes!("../../../config/policy.json")).unwrap();
    assert_eq!((document.files(), document.lint()), (Vec::new(), Vec::new()));
    let policy = ContainersPolicy::resolve(document, &mut |path| Err(path.to_owned())).unwrap();
    for (image, scope, words) in [
        (
            "registry.k8s.io/kube-apiserver:v1.35.0",
            Some("registry.k8s.io"),
            "krel-trust@k8s-releng-prod.iam.gserviceaccount.com",
        ),
        ("gcr.io/distroless/static:latest", Some("gcr.io/distroless"), "keyless@distroless.iam.gserviceaccount.com"),
        ("docker.io/library/alpine:3", None, "everything is refused"),
        ("gcr.io/other/image:1", None, "everything is refused"),
    ] {
        let rules = policy.rules_for(&image.parse().unwrap());
        assert_eq!(rules.scope.as_deref(), scope, "{image}");
        let means: Vec<String> = rules.requirements.iter().map(Requirement::describe).collect();
        assert!(means.len() == 1 && means[0].contains(words), "{means:?}");
        if scope.is_some() {
            assert!(means[0].contains("https://accounts.google.com, logged in Rekor"), "{means:?}");
        }
    }
}

#[test]
fn rules_without_requirements_would_admit_nothing() {
    use crate::oci::Digest;
    use crate::policy::{Decision, Material, Reason};

    let document = ContainersPolicyDocument::parse(br#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
    let mut policy = ContainersPolicy::resolve(document, &mut |path| Err(path.to_owned())).unwrap();
    policy.clear_default();
    let (image, digest, material) = ("quay.io/a:1".parse().unwrap(), Digest::sha256(b"m"), Material::default());
    let now = crate::clock::Timestamp::from_unix_seconds(0);
    let bundles_without_identity = crate::policy::BundlesWithoutIdentity::Refused;
    let known = crate::policy::finding::KnownKeys::default();
    let finder = &crate::policy::finding::Finder::new(&known, None, &digest, now);
    let searched = evaluate::Searched { lookaside: false, attachments: true };
    let question = Question {
        image: &image,
        digest: &digest,
        material: &material,
        bundles_without_identity,
        searched,
        now,
        finder,
    };
    let verdict = evaluate(&policy, question);
    assert_eq!((verdict.decision, verdict.reason), (Decision::Deny, Reason::Rejected));
    assert_eq!(verdict.text, "List of verification policy requirements must not be empty");
}
