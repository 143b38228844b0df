//! The keys of a TrustRoot: each is shown by a ClusterImagePolicy that names it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealgate::policy::trust_root_keys;
use sealgate::testing::sigstore::FakeSigstore;
use sealgate::verify::SignatureMaterial;
use serde_json::{Value, json};

use super::cluster_image_policy::{Lab, keyless, policy};
use super::{Case, Expected, Outcome, all_hold, case};

/// A Sigstore as a TrustRoot document of the name `root`.
pub(super) fn trust_root(sigstore: &FakeSigstore) -> Value {
    let root: Value = serde_json::from_str(&sigstore.trusted_root_json()).unwrap();
    let list = |key: &str| root[key].as_array().unwrap().clone();
    let authority = |entry: &Value| {
        let certificates = entry["certChain"]["certificates"].as_array().unwrap();
        let chain: String = certificates.iter().map(|one| pem("CERTIFICATE", &one["rawBytes"])).collect();
        json!({
            "subject": {"organization": "tests", "commonName": "authority"}, "uri": "https://authority.example",
            "certChain": STANDARD.encode(chain),
        })
    };
    let log = |entry: &Value| {
        let key = pem("PUBLIC KEY", &entry["publicKey"]["rawBytes"]);
        json!({"baseURL": "https://log.example", "hashAlgorithm": "sha-256", "publicKey": STANDARD.encode(key)})
    };
    // Rekor v2 is known by more than its key, which this format cannot state.
    json!({
        "apiVersion": "policy.sigstore.dev/v1alpha1", "kind": "TrustRoot", "metadata": {"name": "root"},
        "spec": {"sigstoreKeys": {
            "certificateAuthorities": list("certificateAuthorities").iter().map(authority).collect::<Vec<_>>(),
            "tLogs": [log(&list("tlogs")[0])],
            "ctLogs": list("ctlogs").iter().map(log).collect::<Vec<_>>(),
            "timestampAuthorities": list("timestampAuthorities").iter().map(authority).collect::<Vec<_>>(),
        }},
    })
}

/// A Sigstore's certificate authority with its root: a bundle brings the leaf alone.
pub(super) fn authorities_pem(sigstore: &FakeSigstore) -> String {
    let root: Value = serde_json::from_str(&sigstore.trusted_root_json()).unwrap();
    let certificates = root["certificateAuthorities"][0]["certChain"]["certificates"].as_array().unwrap();
    certificates.iter().map(|one| pem("CERTIFICATE", &one["rawBytes"])).collect()
}

fn pem(label: &str, der: &Value) -> String {
    let base64: Vec<char> = der.as_str().unwrap().chars().collect();
    let lines: Vec<String> = base64.chunks(64).map(|line| line.iter().collect()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[test]
fn t_15_every_key_of_a_trust_root_is_enforced() {
    let lab = Lab::new();
    let (ours, theirs) = (trust_root(&lab.sigstore), trust_root(&lab.other));
    let bundle = lab.bundle().timestamped().build().material();
    let says = |root: Value| asked_under(&lab, root, &bundle);
    let edited = |edit: &dyn Fn(&mut Value)| {
        let mut root = ours.clone();
        edit(&mut root);
        says(root)
    };
    let good = || says(ours.clone());
    let no = Expected::Deny("failed policy");
    let top = |key: &'static str, value: Value, expected: Expected| {
        case(key, good(), expected, edited(&|root| root[key] = value.clone()))
    };
    let mut cases: Vec<Case> = vec![
        top("apiVersion", "policy.sigstore.dev/v1beta1".into(), Expected::Unloadable("unsupported value")),
        top("kind", "Root".into(), Expected::Unloadable("only ClusterImagePolicy and TrustRoot")),
        top("metadata", json!({"name": "other"}), Expected::Unloadable("root")),
        top("spec", theirs["spec"].clone(), no),
        top("status", json!([]), Expected::Unloadable("an object is expected")),
        case(
            "spec.sigstoreKeys",
            good(),
            no,
            edited(&|root| root["spec"]["sigstoreKeys"] = theirs["spec"]["sigstoreKeys"].clone()),
        ),
    ];
    // Another Sigstore's list in the place of ours, and another one's key or chain in the place of ours.
    for (list, list_key, content, content_key) in [
        (
            "certificateAuthorities",
            "spec.sigstoreKeys.certificateAuthorities",
            "certChain",
            "spec.sigstoreKeys.certificateAuthorities[].certChain",
        ),
        ("tLogs", "spec.sigstoreKeys.tLogs", "publicKey", "spec.sigstoreKeys.tLogs[].publicKey"),
        ("ctLogs", "spec.sigstoreKeys.ctLogs", "publicKey", "spec.sigstoreKeys.ctLogs[].publicKey"),
        (
            "timestampAuthorities",
            "spec.sigstoreKeys.timestampAuthorities",
            "certChain",
            "spec.sigstoreKeys.timestampAuthorities[].certChain",
        ),
    ] {
        let other = &theirs["spec"]["sigstoreKeys"][list];
        cases.push(case(list_key, good(), no, edited(&|root| root["spec"]["sigstoreKeys"][list] = other.clone())));
        cases.push(case(
            content_key,
            good(),
            no,
            edited(&|root| root["spec"]["sigstoreKeys"][list][0][content] = other[0][content].clone()),
        ));
    }
    // These are for people and decide nothing, so the wrong value is one that they cannot have.
    let unloadable = |key: &'static str, pointer: &str, value: Value, why: &'static str| {
        let bad = edited(&|root| *root.pointer_mut(&format!("/spec/sigstoreKeys/{pointer}")).unwrap() = value.clone());
        case(key, good(), Expected::Unloadable(why), bad)
    };
    cases.extend([
        unloadable(
            "spec.sigstoreKeys.certificateAuthorities[].subject",
            "certificateAuthorities/0/subject",
            json!([]),
            "an object is expected",
        ),
        unloadable(
            "spec.sigstoreKeys.certificateAuthorities[].subject.organization",
            "certificateAuthorities/0/subject/organization",
            json!(1),
            "a string is expected",
        ),
        unloadable(
            "spec.sigstoreKeys.certificateAuthorities[].subject.commonName",
            "certificateAuthorities/0/subject/commonName",
            json!(1),
            "a string is expected",
        ),
        unloadable(
            "spec.sigstoreKeys.certificateAuthorities[].uri",
            "certificateAuthorities/0/uri",
            "fulcio".into(),
            "no http or https address",
        ),
        unloadable(
            "spec.sigstoreKeys.timestampAuthorities[].subject",
            "timestampAuthorities/0/subject",
            json!([]),
            "an object is expected",
        ),
        unloadable(
            "spec.sigstoreKeys.timestampAuthorities[].subject.organization",
            "timestampAuthorities/0/subject/organization",
            json!(1),
            "a string is expected",
        ),
        unloadable(
            "spec.sigstoreKeys.timestampAuthorities[].subject.commonName",
            "timestampAuthorities/0/subject/commonName",
            json!(1),
            "a string is expected",
        ),
        unloadable(
            "spec.sigstoreKeys.timestampAuthorities[].uri",
            "timestampAuthorities/0/uri",
            "tsa".into(),
            "no http or https address",
        ),
        unloadable("spec.sigstoreKeys.tLogs[].baseURL", "tLogs/0/baseURL", "rekor".into(), "no http or https address"),
        unloadable(
            "spec.sigstoreKeys.tLogs[].hashAlgorithm",
            "tLogs/0/hashAlgorithm",
            "md5".into(),
            "unsupported value",
        ),
        unloadable("spec.sigstoreKeys.ctLogs[].baseURL", "ctLogs/0/baseURL", "ct".into(), "no http or https address"),
        unloadable(
            "spec.sigstoreKeys.ctLogs[].hashAlgorithm",
            "ctLogs/0/hashAlgorithm",
            "md5".into(),
            "unsupported value",
        ),
    ]);
    all_hold(trust_root_keys(), &cases);
}

/// What a policy says that trusts that root in everything: certificates, log and time.
fn asked_under(lab: &Lab, root: Value, candidate: &SignatureMaterial) -> Outcome {
    let mut keyless = keyless();
    keyless["trustRootRef"] = "root".into();
    let authority = json!({
        "signatureFormat": "bundle", "keyless": keyless, "ctlog": {"trustRootRef": "root"},
        "rfc3161timestamp": {"trustRootRef": "root"},
    });
    let spec = json!({"images": [{"glob": "**"}], "authorities": [authority]});
    lab.documents_say(&[root, policy(spec)], vec![candidate.clone()])
}
