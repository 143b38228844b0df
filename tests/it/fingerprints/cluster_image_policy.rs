//! The keys of ClusterImagePolicy and TrustRoot.

use sealgate::oci::Digest;
use sealgate::policy::{ClusterImagePolicies, PolicyFile, Settings, cluster_image_policy_keys, trust_root_keys};
use sealgate::testing::sigstore::FakeSigstore;
use sealgate::verify::SigstoreRoot;
use serde_json::{Value, json};

use super::Effect::{Changes, OnlyValue, Stays};
use super::{Row, all_hold, now, of, row};
use crate::policy_keys::{authorities_pem, trust_root};

const RULE: &str = "package sigstore\ndefault isCompliant = false\nisCompliant { input.a }\n";
const OTHER_RULE: &str = "package sigstore\ndefault isCompliant = false\nisCompliant { input.b }\n";
const URL: &str = "https://rules.test/rule.rego";
/// Beside the policy under two names, the same rule.
const SAME_RULE_URL: &str = "https://rules.test/copy.rego";
const OTHER_RULE_URL: &str = "https://rules.test/other.rego";
const NOT_CONTACTED: &str = "it is never contacted";

struct Lab {
    ours: FakeSigstore,
    theirs: FakeSigstore,
}

impl Lab {
    fn new() -> Self {
        Self { ours: FakeSigstore::from_seed(31, now()), theirs: FakeSigstore::from_seed(32, now()) }
    }

    /// The fingerprint of a policy set with these documents alone.
    fn fingerprint(&self, documents: &Value) -> Result<Digest, String> {
        Self::under(documents, &self.ours)
    }

    /// The same with that one's default trust root.
    fn under(documents: &Value, default: &FakeSigstore) -> Result<Digest, String> {
        let text: Vec<String> = documents.as_array().unwrap().iter().map(Value::to_string).collect();
        let beside = |name: &str| match name {
            "rule.rego" | "copy.rego" => Ok(RULE.as_bytes().to_vec()),
            "other.rego" => Ok(OTHER_RULE.as_bytes().to_vec()),
            _ => Err("no such file".to_owned()),
        };
        let file = PolicyFile::parse("cip.yaml", text.join("\n---\n").as_bytes(), &mut { beside });
        let root = SigstoreRoot::from_json(default.trusted_root_json().as_bytes()).unwrap();
        let policies = file.and_then(|file| ClusterImagePolicies::resolve(vec![file], &root));
        let policies = policies.map_err(|error| error.to_string())?;
        Ok(of(Settings { cluster_image_policies: Some(policies), ..Settings::default() }))
    }

    /// Documents in which every key of the format stands.
    fn documents(&self) -> Value {
        let mut other_root = trust_root(&self.theirs);
        other_root["metadata"]["name"] = "other".into();
        let remote = json!({"type": "rego", "remote": {"url": URL, "sha256sum": sum(RULE)}});
        let inline = json!({"type": "rego", "data": RULE, "fetchConfigFile": false});
        let authorities = [self.keyed(), self.keyless(&remote), self.certified(), fixed()];
        let spec = |authorities: &[Value], policy: &Value| json!({"images": [{"glob": "quay.io/**"}], "mode": "enforce", "authorities": authorities, "policy": policy});
        json!([
            document("first", &spec(&authorities, &remote)),
            document("second", &spec(&[fixed()], &inline)),
            trust_root(&self.ours),
            other_root
        ])
    }

    fn keyed(&self) -> Value {
        json!({
            "name": "keyed", "key": {"data": self.ours.key("a").public_pem(), "hashAlgorithm": "sha256"},
            "source": [{"oci": "quay.io/signatures", "tagPrefix": "pre"}], "signatureFormat": "legacy",
            "ctlog": {"url": "https://rekor.test", "trustRootRef": "root"}, "rfc3161timestamp": {"trustRootRef": "root"},
        })
    }

    fn keyless(&self, remote: &Value) -> Value {
        let rule = json!({"type": "rego", "data": RULE});
        json!({
            "name": "keyless", "signatureFormat": "bundle",
            "keyless": {
                "url": "https://fulcio.test", "trustRootRef": "root", "insecureIgnoreSCT": false,
                "identities": [
                    {"issuer": "https://issuer.test", "subject": "a"},
                    {"issuerRegExp": "https://.*", "subjectRegExp": "b.*"},
                ],
            },
            "attestations": [
                {"name": "inline", "predicateType": "https://spdx.dev/Document", "policy": rule},
                {"name": "remote", "predicateType": "https://slsa.dev/provenance/v1", "policy": remote},
            ],
        })
    }

    fn certified(&self) -> Value {
        let identities = json!([{"issuer": "https://issuer.test", "subject": "a"}]);
        json!({
            "name": "certified",
            "keyless": {"ca-cert": {"data": authorities_pem(&self.ours)}, "identities": identities},
        })
    }
}

fn fixed() -> Value {
    json!({"name": "fixed", "static": {"action": "fail", "message": "ask the platform team"}})
}

fn document(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "policy.sigstore.dev/v1beta1", "kind": "ClusterImagePolicy", "metadata": {"name": name}, "spec": spec,
        "status": {},
    })
}

fn sum(rule: &str) -> String {
    Digest::sha256(rule.as_bytes()).hex()
}

#[test]
fn every_key_of_a_cluster_image_policy_that_changes_an_answer_changes_the_fingerprint() {
    let lab = Lab::new();
    let rows = [envelope(), authority(&lab), keys(&lab), keyless(&lab), places(), rules()];
    let rows: Vec<Row> = rows.into_iter().flatten().collect();
    all_hold(cluster_image_policy_keys(), &lab.documents(), &rows, |documents| lab.fingerprint(documents));
}

fn envelope() -> Vec<Row> {
    let fixed_pass = json!([{"static": {"action": "pass"}}]);
    vec![
        row("apiVersion", "/0/apiVersion", "policy.sigstore.dev/v1alpha1", Stays("both versions mean the same")),
        row("kind", "/0/kind", "Policy", OnlyValue),
        row("metadata", "/0/metadata", json!({"name": "renamed"}), Changes),
        row(
            "metadata",
            "/0/metadata",
            json!({"name": "first", "labels": {"a": "b"}}),
            Stays("labels are for the cluster"),
        ),
        row("status", "/0/status", json!({"conditions": []}), Stays("it is for the cluster")),
        row("spec", "/1/spec", json!({"images": [{"glob": "quay.io/**"}], "authorities": fixed_pass}), Changes),
        row("spec.images", "/0/spec/images", json!([{"glob": "quay.io/**"}, {"glob": "ghcr.io/**"}]), Changes),
        row("spec.images[].glob", "/0/spec/images/0/glob", "quay.io/*/**", Changes),
        row("spec.mode", "/0/spec/mode", "warn", Changes),
        row("spec.policy", "/1/spec/policy", json!({"type": "rego", "data": OTHER_RULE}), Changes),
        row("spec.authorities", "/1/spec/authorities", fixed_pass, Changes),
    ]
}

fn authority(lab: &Lab) -> Vec<Row> {
    let other_log = json!({"url": "https://rekor.test", "trustRootRef": "other"});
    let other_key = json!({"data": lab.ours.key("b").public_pem()});
    let no_rule = json!([{"name": "inline", "predicateType": "https://spdx.dev/Document"}]);
    let other_identity = json!({"identities": [{"issuer": "https://issuer.test", "subject": "b"}]});
    vec![
        row("spec.authorities[].name", "/0/spec/authorities/0/name", "renamed", Changes),
        row("spec.authorities[].key", "/0/spec/authorities/0/key", other_key, Changes),
        row("spec.authorities[].keyless", "/0/spec/authorities/1/keyless", other_identity, Changes),
        row("spec.authorities[].static", "/0/spec/authorities/3/static", json!({"action": "pass"}), Changes),
        row("spec.authorities[].static.action", "/1/spec/authorities/0/static", json!({"action": "pass"}), Changes),
        row("spec.authorities[].static.message", "/0/spec/authorities/3/static/message", "ask", Changes),
        row(
            "spec.authorities[].source",
            "/0/spec/authorities/0/source",
            json!([{"oci": "quay.io/signatures"}]),
            Changes,
        ),
        row("spec.authorities[].ctlog", "/0/spec/authorities/0/ctlog", other_log, Changes),
        row(
            "spec.authorities[].rfc3161timestamp",
            "/0/spec/authorities/0/rfc3161timestamp",
            json!({"trustRootRef": "other"}),
            Changes,
        ),
        row("spec.authorities[].signatureFormat", "/0/spec/authorities/1/signatureFormat", "legacy", Changes),
        row("spec.authorities[].attestations", "/0/spec/authorities/1/attestations", no_rule, Changes),
    ]
}

fn keys(lab: &Lab) -> Vec<Row> {
    let (ours, other) = (lab.ours.key("a").public_pem(), lab.ours.key("b").public_pem());
    let key = "/0/spec/authorities/0/key/data";
    let spaced = format!("# our key\n{ours}\n");
    vec![
        row("spec.authorities[].key.data", key, format!("{ours}{other}"), Changes),
        row("spec.authorities[].key.data", key, other, Changes),
        row("spec.authorities[].key.data", key, spaced, Stays("it is the same key")),
        row("spec.authorities[].key.hashAlgorithm", "/0/spec/authorities/0/key/hashAlgorithm", "sha512", Changes),
    ]
}

fn keyless(lab: &Lab) -> Vec<Row> {
    let certificates = json!({"data": authorities_pem(&lab.theirs)});
    let one_less = json!([{"issuer": "https://issuer.test", "subject": "a"}]);
    let mut rows = vec![
        row(
            "spec.authorities[].keyless.url",
            "/0/spec/authorities/1/keyless/url",
            "https://other.test",
            Stays(NOT_CONTACTED),
        ),
        row(
            "spec.authorities[].keyless.ca-cert",
            "/0/spec/authorities/2/keyless/ca-cert",
            certificates.clone(),
            Changes,
        ),
        row(
            "spec.authorities[].keyless.ca-cert.data",
            "/0/spec/authorities/2/keyless/ca-cert/data",
            certificates["data"].clone(),
            Changes,
        ),
        row("spec.authorities[].keyless.identities", "/0/spec/authorities/1/keyless/identities", one_less, Changes),
        row("spec.authorities[].keyless.trustRootRef", "/0/spec/authorities/1/keyless/trustRootRef", "other", Changes),
        row(
            "spec.authorities[].keyless.insecureIgnoreSCT",
            "/0/spec/authorities/1/keyless/insecureIgnoreSCT",
            true,
            Changes,
        ),
    ];
    for (key, at, value) in [
        ("spec.authorities[].keyless.identities[].issuer", "0/issuer", "https://issuer.test/"),
        ("spec.authorities[].keyless.identities[].subject", "0/subject", "b"),
        ("spec.authorities[].keyless.identities[].issuerRegExp", "1/issuerRegExp", "https://[a-z.]*"),
        ("spec.authorities[].keyless.identities[].subjectRegExp", "1/subjectRegExp", "b.+"),
    ] {
        let at = format!("/0/spec/authorities/1/keyless/identities/{at}");
        rows.push(row(key, at, value, Changes));
    }
    rows
}

fn places() -> Vec<Row> {
    vec![
        row("spec.authorities[].source[].oci", "/0/spec/authorities/0/source/0/oci", "quay.io/others", Changes),
        row("spec.authorities[].source[].tagPrefix", "/0/spec/authorities/0/source/0/tagPrefix", "other", Changes),
        row("spec.authorities[].ctlog.url", "/0/spec/authorities/0/ctlog/url", "https://x.test", Stays(NOT_CONTACTED)),
        row("spec.authorities[].ctlog.trustRootRef", "/0/spec/authorities/0/ctlog/trustRootRef", "other", Changes),
        row(
            "spec.authorities[].rfc3161timestamp.trustRootRef",
            "/0/spec/authorities/0/rfc3161timestamp/trustRootRef",
            "other",
            Changes,
        ),
    ]
}

fn rules() -> Vec<Row> {
    let other_remote = json!({"url": OTHER_RULE_URL, "sha256sum": sum(OTHER_RULE)});
    let name = "/0/spec/authorities/1/attestations/0/name";
    vec![
        row("spec.authorities[].attestations[].name", name, "renamed", Changes),
        row(
            "spec.authorities[].attestations[].predicateType",
            "/0/spec/authorities/1/attestations/0/predicateType",
            "https://spdx.dev/Document/v2",
            Changes,
        ),
        row(
            "spec.authorities[].attestations[].policy",
            "/0/spec/authorities/1/attestations/0/policy",
            json!({"type": "rego", "data": OTHER_RULE}),
            Changes,
        ),
        row(
            "spec.authorities[].attestations[].policy.type",
            "/0/spec/authorities/1/attestations/0/policy/type",
            "cue",
            OnlyValue,
        ),
        row(
            "spec.authorities[].attestations[].policy.data",
            "/0/spec/authorities/1/attestations/0/policy/data",
            format!("{RULE}# a remark\n"),
            Changes,
        ),
        row(
            "spec.authorities[].attestations[].policy.remote",
            "/0/spec/authorities/1/attestations/1/policy/remote",
            other_remote.clone(),
            Changes,
        ),
        row(
            "spec.authorities[].attestations[].policy.remote.url",
            "/0/spec/authorities/1/attestations/1/policy/remote/url",
            SAME_RULE_URL,
            Stays("the rule is the same"),
        ),
        row(
            "spec.authorities[].attestations[].policy.remote.sha256sum",
            "/0/spec/authorities/1/attestations/1/policy/remote/sha256sum",
            sum(OTHER_RULE),
            OnlyValue,
        ),
        row("spec.policy.type", "/1/spec/policy/type", "cue", OnlyValue),
        row("spec.policy.data", "/1/spec/policy/data", OTHER_RULE, Changes),
        row("spec.policy.fetchConfigFile", "/1/spec/policy/fetchConfigFile", true, OnlyValue),
        row("spec.policy.remote", "/0/spec/policy/remote", other_remote, Changes),
        row("spec.policy.remote.url", "/0/spec/policy/remote/url", SAME_RULE_URL, Stays("the rule is the same")),
        row("spec.policy.remote.sha256sum", "/0/spec/policy/remote/sha256sum", sum(OTHER_RULE), OnlyValue),
    ]
}

#[test]
fn every_key_of_a_trust_root_that_changes_an_answer_changes_the_fingerprint() {
    let lab = Lab::new();
    let theirs = trust_root(&lab.theirs);
    let rows: Vec<Row> = [root_envelope(&theirs), root_lists(&theirs), root_entries()].into_iter().flatten().collect();
    all_hold(trust_root_keys(), &lab.documents(), &rows, |documents| lab.fingerprint(documents));
}

fn root_envelope(theirs: &Value) -> Vec<Row> {
    vec![
        row("apiVersion", "/2/apiVersion", "policy.sigstore.dev/v1beta1", OnlyValue),
        row("kind", "/2/kind", "Root", OnlyValue),
        // Who names it does not find it any more.
        row("metadata", "/2/metadata", json!({"name": "renamed"}), OnlyValue),
        row("status", "/2/status", json!({"conditions": []}), Stays("it is for the cluster")),
        row("spec", "/2/spec", theirs["spec"].clone(), Changes),
        row("spec.sigstoreKeys", "/2/spec/sigstoreKeys", theirs["spec"]["sigstoreKeys"].clone(), Changes),
    ]
}

/// Another Sigstore's list in the place of ours, and another one's key or chain.
fn root_lists(theirs: &Value) -> Vec<Row> {
    let keys = [
        "spec.sigstoreKeys.certificateAuthorities",
        "spec.sigstoreKeys.certificateAuthorities[].certChain",
        "spec.sigstoreKeys.tLogs",
        "spec.sigstoreKeys.tLogs[].publicKey",
        "spec.sigstoreKeys.ctLogs",
        "spec.sigstoreKeys.ctLogs[].publicKey",
        "spec.sigstoreKeys.timestampAuthorities",
        "spec.sigstoreKeys.timestampAuthorities[].certChain",
    ];
    let other = |key: &str| theirs.pointer(&pointer(key)).unwrap().clone();
    keys.map(|key| row(key, format!("/2{}", pointer(key)), other(key), Changes)).into()
}

/// A root counts as a whole: what is for people alone costs a verdict more, never one less.
fn root_entries() -> Vec<Row> {
    let (name, address) = (|| Value::from("x"), || Value::from("https://x.test"));
    [
        ("spec.sigstoreKeys.tLogs[].hashAlgorithm", "sha-512".into()),
        ("spec.sigstoreKeys.ctLogs[].hashAlgorithm", "sha-512".into()),
        ("spec.sigstoreKeys.tLogs[].baseURL", address()),
        ("spec.sigstoreKeys.ctLogs[].baseURL", address()),
        ("spec.sigstoreKeys.certificateAuthorities[].uri", address()),
        ("spec.sigstoreKeys.certificateAuthorities[].subject", json!({"commonName": "x"})),
        ("spec.sigstoreKeys.certificateAuthorities[].subject.organization", name()),
        ("spec.sigstoreKeys.certificateAuthorities[].subject.commonName", name()),
        ("spec.sigstoreKeys.timestampAuthorities[].uri", address()),
        ("spec.sigstoreKeys.timestampAuthorities[].subject", json!({"commonName": "x"})),
        ("spec.sigstoreKeys.timestampAuthorities[].subject.organization", name()),
        ("spec.sigstoreKeys.timestampAuthorities[].subject.commonName", name()),
    ]
    .map(|(key, value)| row(key, format!("/2{}", pointer(key)), value, Changes))
    .into()
}

/// The first element at the path of a key.
fn pointer(key: &str) -> String {
    format!("/{}", key.replace("[]", "/0").replace('.', "/"))
}

/// Of authorities that name no other one.
#[test]
fn another_default_trust_root_is_another_policy_where_it_is_asked() {
    let lab = Lab::new();
    let fingerprints = |authority: &Value| {
        let documents = json!([document("p", &json!({"images": [{"glob": "**"}], "authorities": [authority]}))]);
        [&lab.ours, &lab.theirs].map(|default| Lab::under(&documents, default).unwrap())
    };
    let keyless = json!({"keyless": {"identities": [{"issuer": "https://issuer.test", "subject": "a"}]}});
    let key = json!({"data": lab.ours.key("a").public_pem()});
    let logged = json!({"key": key, "ctlog": {"url": "https://rekor.test"}});
    for authority in [keyless, logged] {
        let [ours, theirs] = fingerprints(&authority);
        assert_ne!(ours, theirs, "{authority}");
    }
    for authority in [json!({"key": key}), fixed()] {
        let [ours, theirs] = fingerprints(&authority);
        assert_eq!(ours, theirs, "{authority}");
    }
}
