//! Real policies and trust roots: policy-controller's own test data (`SEALGATE_FIXTURES/cip`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sealgate::oci::ImageReference;
use sealgate::policy::{CipError, Glob, Origin, PolicyFile};
use serde_json::Value;

use crate::fixtures::fixtures;

/// Files that policy-controller accepts, and the first field of each that a mirror cannot honour.
const VALID: &[(&str, &str)] = &[
    ("v1beta1-valid-keyref-awskms.yaml", "spec.authorities[0].key.kms"),
    ("v1beta1-valid-policy.yaml", "spec.authorities[0].keyless.ca-cert.secretRef"),
    ("valid-keyless-with-source.yaml", "spec.authorities[0].keyless.ca-cert.secretRef"),
    ("valid-keylessref-awskms.yaml", "spec.authorities[0].keyless.ca-cert.kms"),
    ("valid-keyref-awskms.yaml", "spec.authorities[0].key.kms"),
    ("valid-policy-glob.yaml", "spec.authorities[0].keyless.ca-cert.secretRef"),
    ("valid-policy-hash-algo.yaml", "spec.authorities[0].keyless.ca-cert.secretRef"),
    ("valid-policy-keyless-ignore-sct.yaml", "spec.authorities[0].keyless.ca-cert.secretRef"),
    ("valid-policy-match-resource-label.yaml", "spec.match"),
    ("valid-policy-match-resource.yaml", "spec.match"),
    ("valid-policy.yaml", "spec.authorities[0].keyless.ca-cert.secretRef"),
];

/// Files that policy-controller refuses, and why they are refused here.
const INVALID: &[(&str, &str)] = &[
    ("empty-keyref-and-keylessref.yaml", "spec.authorities[0]"),
    ("empty-keyref.yaml", "spec.authorities[0].key"),
    ("invalid-authority.yaml", "spec.authorities[0]"),
    ("invalid-glob.yaml", "spec.images[0].glob"),
    ("invalid-keyref-awskms.yaml", "spec.authorities[0].key.kms"),
    ("invalid-mode.yaml", "spec.mode"),
    ("invalid-pubkey.yaml", "spec.authorities[0].key.data"),
    ("keylessref-with-empty-authorities.yaml", "spec.authorities"),
    ("keylessref-with-malformed-issuer.yaml", "spec.authorities[0].keyless.identities[0].issuerRegExp"),
    ("keylessref-with-malformed-subject.yaml", "spec.authorities[0].keyless.identities[0].issuer"),
    ("keylessref-with-multiple-properties.yaml", "spec.authorities[0].keyless"),
    ("keyref-with-multiple-properties.yaml", "spec.authorities[0].key.kms"),
    ("missing-identity.yaml", "spec.authorities[0].keyless.identities"),
    ("missing-issuer.yaml", "spec.authorities[0].keyless.identities[0].issuer"),
    ("missing-subject.yaml", "spec.authorities[0].keyless.identities[0].subject"),
    ("v1beta1-invalid-hash-algo.yaml", "spec.authorities[0].key.hashAlgorithm"),
    ("valid-keyref-and-keylessref.yaml", "spec.authorities[0]"),
];

/// Files whose policies are written in CUE, and where.
const CUE: &[(&str, &str)] = &[
    ("cip-keyless-with-source-prefix-tag.yaml", "spec.authorities[0].attestations[0].policy.type"),
    ("cip-requires-two-signatures-and-two-attestations-rego.yaml", "spec.authorities[0].attestations[0].policy.type"),
];

#[test]
fn every_valid_policy_is_refused_for_a_documented_field() {
    let Some(folder) = cip("valid") else { return };
    let documented = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/policy.md")).unwrap();
    all_refused(&folder, VALID, |error| {
        let key = error.field.rsplit('.').next().unwrap();
        assert!(documented.contains(&format!("{key}`")), "docs/policy.md does not speak of {key}");
    });
}

#[test]
fn every_invalid_policy_is_refused() {
    let Some(folder) = cip("invalid") else { return };
    all_refused(&folder, INVALID, |_| ());
}

#[test]
fn a_policy_without_authorities_is_refused_present_or_absent() {
    let Some(folder) = cip("empty-authorities") else { return };
    let expected = [("authorities-absent.yaml", "spec.authorities"), ("authorities-present.yaml", "spec.authorities")];
    all_refused(&folder, &expected, |_| ());
}

#[test]
fn the_policies_that_people_start_from_load_and_those_in_cue_say_what_to_do() {
    let Some(e2e) = cip("e2e") else { return };
    let mut loaded = 0;
    let cue: BTreeMap<&str, &str> = CUE.iter().copied().collect();
    for path in files(&e2e).into_iter().chain(files(&cip("examples").unwrap())) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        match (parse(&path), cue.get(name.as_str())) {
            (Ok(file), None) => {
                assert_eq!(file.policies.len(), 1, "{name}");
                loaded += 1;
            }
            (Err(error), Some(field)) => {
                assert_eq!(error.field, **field, "{name}");
                assert!(error.problem.contains("Rego"), "{name}: {error}");
            }
            (Ok(_), Some(_)) => panic!("{name} is in CUE and loads"),
            (Err(error), None) => panic!("{name}: {error}"),
        }
    }
    println!("{loaded} policies loaded, {} in CUE refused", cue.len());
    assert_eq!(loaded, 11);
}

#[test]
fn a_trust_root_loads_and_one_that_is_a_template_does_not() {
    let Some(folder) = cip("trustroot") else { return };
    let root = parse(&folder.join("valid-sigstore-keys.yaml")).unwrap().trust_roots.remove(0);
    assert_eq!(root.name, "bring-your-own-sigstore-keys");
    sealgate::verify::SigstoreRoot::from_json(&root.trusted_root_json).unwrap();
    let error = parse(&folder.join("bring-your-own-keys.yaml")).unwrap_err();
    assert_eq!(error.field, "spec.sigstoreKeys.certificateAuthorities[0].certChain");
}

/// CVE-2021-41087, GHSA-pmwq-pjrm-6p5r.
#[test]
fn t_21_every_glob_vector_holds() {
    let Some(folder) = fixtures() else { return };
    let text = std::fs::read(folder.join("cip/glob-vectors.json")).unwrap();
    let vectors: Value = serde_json::from_slice(&text).unwrap();
    let vectors = vectors["vectors"].as_array().unwrap();
    for vector in vectors {
        let (image, text) = (vector["image"].as_str().unwrap(), vector["glob"].as_str().unwrap());
        let origin = Origin { file: "vectors".to_owned(), line: 1 };
        let answer = match (Glob::new(text, origin), image.parse::<ImageReference>()) {
            (Ok(glob), Ok(image)) => Some(glob.covers(&image)),
            (Err(_), _) | (_, Err(_)) => None,
        };
        let expected = (!vector["error"].as_bool().unwrap()).then(|| vector["match"].as_bool().unwrap());
        assert_eq!(answer, expected, "{vector}");
    }
    println!("{} glob vectors hold", vectors.len());
    assert_eq!(vectors.len(), 42);
}

fn cip(folder: &str) -> Option<PathBuf> {
    fixtures().map(|fixtures| fixtures.join("cip").join(folder))
}

fn parse(path: &Path) -> Result<PolicyFile, CipError> {
    let nothing = &mut |_: &str| Err("nothing lies beside it".to_owned());
    PolicyFile::parse(path.file_name().unwrap().to_str().unwrap(), &std::fs::read(path).unwrap(), nothing)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Each file of the folder is refused at its field, and the error points at the line where that stands.
fn all_refused(folder: &Path, expected: &[(&str, &str)], check: impl Fn(&CipError)) {
    let fields: BTreeMap<&str, &str> = expected.iter().copied().collect();
    let files = files(folder);
    assert_eq!(files.len(), expected.len(), "{}", folder.display());
    for path in files {
        let name = path.file_name().unwrap().to_str().unwrap();
        let error = parse(&path).expect_err(name);
        assert_eq!(Some(&error.field.as_str()), fields.get(name), "{name}: {error}");
        let text = std::fs::read_to_string(&path).unwrap();
        let line = text.lines().nth(error.origin.line - 1).unwrap_or_default();
        let key = error.field.rsplit('.').next().unwrap().split('[').next().unwrap();
        let stands_there = line.contains(&format!("{key}:")) || line.trim_start().starts_with("- ");
        assert!(stands_there || error.problem.contains("must be named"), "{name}: {error} points at {line:?}");
        check(&error);
    }
    println!("{} files of {} refused", expected.len(), folder.display());
}
