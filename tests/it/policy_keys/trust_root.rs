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
pub(crate) fn trust_root(sigstore: &FakeSigstore) -> Value {
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
        "apiVersion": "policy.sigstore.dev/v1alpha1", "kind": "TrustRoot", "metadata": {"name": "root"}, "status": {},
        "spec": {"sigstoreKeys": {
            "certificateAuthorities": list("certificateAuthorities").iter().map(authority).collect::<Vec<_>>(),
            "tLogs": [log(&list("tlogs")[0])],
            "ctLogs": list("ctlogs").iter().map(log).collect::<Vec<_>>(),
            "timestampAuthorities": list("timestampAuthorities").iter().map(authority).collect::<Vec<_>>(),
        }},
    })
}

/// A Sigstore's certificate authority with its root: a bundle brings the leaf alone.
pub(crate) fn authorities_pem(sigstore: &FakeSigstore) -> String {
    let root: Value = serde_json::from_str(&sigstore.trusted_root_json()).unwrap();
    let certificates = root["certificateAuthorities"][0]["certChain"]["certificates"].as_array().unwrap();
    certificates.iter().map(|one| pem("CERTIFICATE", &one["rawBytes"])).collect()
}

fn pem(label: &str, der: &Value) -> String {
    let base64: Vec<char> = der.as_str().unwrap().chars().collect();
    let lines: Vec<String> = base64.chunks(64).map(|line| line.iter().collect()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// A key, where in the document another value is put, that value, and what comes of it.
type Row = (&'static str, &'static str, Value, Expected);

#[test]
fn t_15_every_key_of_a_trust_root_is_enforced() {
    let lab = Lab::new();
    let (ours, theirs) = (trust_root(&lab.sigstore), trust_root(&lab.other));
    let bundle = lab.bundle().timestamped().build().material();
    let rows = [envelope(&theirs), trusted(&theirs), for_people()].concat();
    let cases: Vec<Case> = rows
        .into_iter()
        .map(|(key, pointer, value, expected)| {
            let mut edited = ours.clone();
            *edited.pointer_mut(pointer).unwrap() = value;
            case(key, asked_under(&lab, &ours, &bundle), expected, asked_under(&lab, &edited, &bundle))
        })
        .collect();
    all_hold(trust_root_keys(), &cases);
}

fn envelope(theirs: &Value) -> Vec<Row> {
    let no = Expected::Deny("failed policy");
    vec![
        ("apiVersion", "/apiVersion", "policy.sigstore.dev/v1beta1".into(), Expected::Unloadable("unsupported value")),
        ("kind", "/kind", "Root".into(), Expected::Unloadable("only ClusterImagePolicy and TrustRoot")),
        ("metadata", "/metadata", json!({"name": "other"}), Expected::Unloadable("root")),
        ("status", "/status", json!([]), Expected::Unloadable("an object is expected")),
        ("spec", "/spec", theirs["spec"].clone(), no),
        ("spec.sigstoreKeys", "/spec/sigstoreKeys", theirs["spec"]["sigstoreKeys"].clone(), no),
    ]
}

/// Another Sigstore's list in the place of ours, and another one's key or chain in the place of ours.
fn trusted(theirs: &Value) -> Vec<Row> {
    let rows = [
        ("spec.sigstoreKeys.certificateAuthorities", "/spec/sigstoreKeys/certificateAuthorities"),
        (
            "spec.sigstoreKeys.certificateAuthorities[].certChain",
            "/spec/sigstoreKeys/certificateAuthorities/0/certChain",
        ),
        ("spec.sigstoreKeys.tLogs", "/spec/sigstoreKeys/tLogs"),
        ("spec.sigstoreKeys.tLogs[].publicKey", "/spec/sigstoreKeys/tLogs/0/publicKey"),
        ("spec.sigstoreKeys.ctLogs", "/spec/sigstoreKeys/ctLogs"),
        ("spec.sigstoreKeys.ctLogs[].publicKey", "/spec/sigstoreKeys/ctLogs/0/publicKey"),
        ("spec.sigstoreKeys.timestampAuthorities", "/spec/sigstoreKeys/timestampAuthorities"),
        ("spec.sigstoreKeys.timestampAuthorities[].certChain", "/spec/sigstoreKeys/timestampAuthorities/0/certChain"),
    ];
    let other = |pointer| theirs.pointer(pointer).unwrap().clone();
    rows.map(|(key, pointer)| (key, pointer, other(pointer), Expected::Deny("failed policy"))).to_vec()
}

/// These decide nothing, so the wrong value is one that they cannot have.
fn for_people() -> Vec<Row> {
    let text = || Expected::Unloadable("a string is expected");
    let object = || Expected::Unloadable("an object is expected");
    let address = || Expected::Unloadable("no http or https address");
    let word = || Expected::Unloadable("unsupported value");
    vec![
        (
            "spec.sigstoreKeys.certificateAuthorities[].subject",
            "/spec/sigstoreKeys/certificateAuthorities/0/subject",
            json!([]),
            object(),
        ),
        (
            "spec.sigstoreKeys.certificateAuthorities[].subject.organization",
            "/spec/sigstoreKeys/certificateAuthorities/0/subject/organization",
            json!(1),
            text(),
        ),
        (
            "spec.sigstoreKeys.certificateAuthorities[].subject.commonName",
            "/spec/sigstoreKeys/certificateAuthorities/0/subject/commonName",
            json!(1),
            text(),
        ),
        (
            "spec.sigstoreKeys.certificateAuthorities[].uri",
            "/spec/sigstoreKeys/certificateAuthorities/0/uri",
            "x".into(),
            address(),
        ),
        (
            "spec.sigstoreKeys.timestampAuthorities[].subject",
            "/spec/sigstoreKeys/timestampAuthorities/0/subject",
            json!([]),
            object(),
        ),
        (
            "spec.sigstoreKeys.timestampAuthorities[].subject.organization",
            "/spec/sigstoreKeys/timestampAuthorities/0/subject/organization",
            json!(1),
            text(),
        ),
        (
            "spec.sigstoreKeys.timestampAuthorities[].subject.commonName",
            "/spec/sigstoreKeys/timestampAuthorities/0/subject/commonName",
            json!(1),
            text(),
        ),
        (
            "spec.sigstoreKeys.timestampAuthorities[].uri",
            "/spec/sigstoreKeys/timestampAuthorities/0/uri",
            "x".into(),
            address(),
        ),
        ("spec.sigstoreKeys.tLogs[].baseURL", "/spec/sigstoreKeys/tLogs/0/baseURL", "x".into(), address()),
        ("spec.sigstoreKeys.tLogs[].hashAlgorithm", "/spec/sigstoreKeys/tLogs/0/hashAlgorithm", "md5".into(), word()),
        ("spec.sigstoreKeys.ctLogs[].baseURL", "/spec/sigstoreKeys/ctLogs/0/baseURL", "x".into(), address()),
        ("spec.sigstoreKeys.ctLogs[].hashAlgorithm", "/spec/sigstoreKeys/ctLogs/0/hashAlgorithm", "md5".into(), word()),
    ]
}

/// What a policy says that trusts that root in everything: certificates, log and time.
fn asked_under(lab: &Lab, root: &Value, candidate: &SignatureMaterial) -> Outcome {
    let mut keyless = keyless();
    keyless["trustRootRef"] = "root".into();
    let authority = json!({
        "signatureFormat": "bundle", "keyless": keyless, "ctlog": {"trustRootRef": "root"},
        "rfc3161timestamp": {"trustRootRef": "root"},
    });
    let spec = json!({"images": [{"glob": "**"}], "authorities": [authority]});
    lab.documents_say(&[root.clone(), policy(spec)], vec![candidate.clone()])
}
