//! The keys of policy.json, and what the files that it names hold.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealgate::oci::Digest;
use sealgate::policy::{ContainersPolicy, ContainersPolicyDocument, Settings, containers_policy_keys};
use sealgate::testing::openpgp::FakeOpenPgpKey;
use sealgate::testing::sigstore::FakeSigstore;
use serde_json::{Value, json};

use super::Effect::{Changes, Stays};
use super::{Row, all_hold, now, of, row};

const NOT_FILES: &str = "what counts is what the file holds";

struct Lab {
    ours: FakeSigstore,
    theirs: FakeSigstore,
    rings: [FakeOpenPgpKey; 2],
}

impl Lab {
    fn new() -> Self {
        Self {
            ours: FakeSigstore::from_seed(33, now()),
            theirs: FakeSigstore::from_seed(34, now()),
            rings: [33, 34].map(|seed| FakeOpenPgpKey::from_seed(seed, "holder", now())),
        }
    }

    /// A file of that name: `other-` is another one's, `copy-` the same under another name.
    fn file(&self, name: &str) -> Result<Vec<u8>, String> {
        let (sigstore, ring) = match name.strip_prefix("other-") {
            Some(_) => (&self.theirs, &self.rings[1]),
            None => (&self.ours, &self.rings[0]),
        };
        let what = name.strip_prefix("other-").or_else(|| name.strip_prefix("copy-")).unwrap_or(name);
        let text = match what {
            "key" => sigstore.key("a").public_pem(),
            "ca" => sigstore.fulcio_ca_pem(),
            "rekor" => sigstore.rekor_pem(),
            "roots" => sigstore.pki_root_pem(),
            "intermediates" => sigstore.pki_intermediate_pem(),
            "ring" => return Ok(ring.ring()),
            _ => return Err("no such file".to_owned()),
        };
        Ok(text.into_bytes())
    }

    fn data(&self, name: &str) -> Value {
        STANDARD.encode(self.file(name).unwrap()).into()
    }

    /// The fingerprint where the file `changed` holds what another one's does.
    fn with_other(&self, document: &Value, changed: &str) -> Result<Digest, String> {
        let mut read = |name: &str| {
            let other = format!("other-{name}");
            self.file(if name == changed { &other } else { name })
        };
        let parsed = ContainersPolicyDocument::parse(document.to_string().as_bytes());
        let policy = ContainersPolicy::resolve(parsed.map_err(|error| error.to_string())?, &mut read);
        let policy = policy.map_err(|error| error.to_string())?;
        Ok(of(Settings { containers_policy: Some(policy), ..Settings::default() }))
    }

    fn fingerprint(&self, document: &Value) -> Result<Digest, String> {
        self.with_other(document, "")
    }

    /// A document in which every key of the format stands; each scope shows some.
    fn document(&self) -> Value {
        let any = json!({"type": "matchRepository"});
        let signed = |keys: Value| {
            let mut requirement = json!({"type": "sigstoreSigned", "signedIdentity": any});
            merge(&mut requirement, &keys);
            json!([requirement])
        };
        let pgp = |keys: Value| {
            let mut requirement = json!({"type": "signedBy", "keyType": "GPGKeys", "signedIdentity": any});
            merge(&mut requirement, &keys);
            json!([requirement])
        };
        let as_identity = |identity: Value| signed(json!({"keyPath": "key", "signedIdentity": identity}));
        let issued = |ca: &str, value: Value| {
            let fulcio = json!({ca: value, "oidcIssuer": "https://issuer.test", "subjectEmail": "a@x.test"});
            signed(json!({"fulcio": fulcio, "rekorPublicKeyPath": "rekor"}))
        };
        let own = |pki: Value| signed(json!({"pki": pki}));
        let scopes = json!({
            "a": signed(json!({"keyPath": "key", "rekorPublicKeyPath": "rekor"})),
            "b": signed(json!({"keyPaths": ["key", "other-key"], "rekorPublicKeyPaths": ["rekor", "other-rekor"]})),
            "c": signed(json!({"keyData": self.data("key"), "rekorPublicKeyData": self.data("rekor")})),
            "d": signed(json!({"keyDatas": [self.data("key")], "rekorPublicKeyDatas": [self.data("rekor")]})),
            "e": issued("caPath", "ca".into()),
            "f": issued("caData", self.data("ca")),
            "g": own(json!({"caRootsPath": "roots", "caIntermediatesPath": "intermediates", "subjectEmail": "a@x.test"})),
            "h": own(json!({
                "caRootsData": self.data("roots"), "caIntermediatesData": self.data("intermediates"),
                "subjectHostname": "x.test",
            })),
            "i": pgp(json!({"keyPath": "ring"})),
            "j": pgp(json!({"keyPaths": ["ring"]})),
            "k": pgp(json!({"keyData": self.data("ring")})),
            "l": [{"type": "signedBaseLayer", "baseLayerIdentity": any}],
            "m": [{"type": "insecureAcceptAnything"}],
            "n": as_identity(json!({"type": "matchExact"})),
            "o": as_identity(json!({"type": "matchRepoDigestOrExact"})),
            "p": as_identity(json!({"type": "exactReference", "dockerReference": "quay.io/a/b:1"})),
            "q": as_identity(json!({"type": "exactRepository", "dockerRepository": "quay.io/a/b"})),
            "r": as_identity(json!({"type": "remapIdentity", "prefix": "a.test", "signedPrefix": "b.test"})),
        });
        let docker: serde_json::Map<String, Value> = scopes
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, requirements)| (format!("{name}.test"), requirements.clone()))
            .collect();
        json!({"default": [{"type": "reject"}], "transports": {"docker": docker}})
    }
}

fn merge(into: &mut Value, from: &Value) {
    for (key, value) in from.as_object().unwrap() {
        into[key] = value.clone();
    }
}

/// A place in the requirement of a scope.
fn in_scope(scope: &str, rest: &str) -> String {
    format!("/transports/docker/{scope}.test/0{rest}")
}

#[test]
fn every_key_of_policy_json_that_changes_an_answer_changes_the_fingerprint() {
    let lab = Lab::new();
    let rows = [fixed(), keys(&lab), authorities(&lab), holders(&lab), identities()];
    let rows: Vec<Row> = rows.into_iter().flatten().collect();
    all_hold(containers_policy_keys(), &lab.document(), &rows, |document| lab.fingerprint(document));
}

fn fixed() -> Vec<Row> {
    let accept = json!([{"type": "insecureAcceptAnything"}]);
    let reject = json!({"type": "reject"});
    let any = json!({"type": "matchRepository"});
    let mut rows = vec![
        row("default", "/default", accept.clone(), Changes),
        row("reject.type", "/default/0/type", "insecureAcceptAnything", Changes),
        row("transports", "/transports", json!({}), Changes),
        row("insecureAcceptAnything.type", in_scope("m", "/type"), "reject", Changes),
        row("sigstoreSigned.type", in_scope("a", ""), reject.clone(), Changes),
        row("signedBy.type", in_scope("i", ""), reject.clone(), Changes),
        row("signedBaseLayer.type", in_scope("l", ""), reject, Changes),
        row("signedBaseLayer.baseLayerIdentity", in_scope("l", "/baseLayerIdentity/type"), "matchExact", Changes),
        row("sigstoreSigned.signedIdentity", in_scope("a", "/signedIdentity/type"), "matchExact", Changes),
        row("signedBy.signedIdentity", in_scope("i", "/signedIdentity/type"), "matchExact", Changes),
        row("matchRepository.type", in_scope("a", "/signedIdentity/type"), "matchRepoDigestOrExact", Changes),
        row("matchExact.type", in_scope("n", "/signedIdentity/type"), "matchRepository", Changes),
        row("matchRepoDigestOrExact.type", in_scope("o", "/signedIdentity/type"), "matchRepository", Changes),
    ];
    for (key, scope) in [("exactReference.type", "p"), ("exactRepository.type", "q"), ("remapIdentity.type", "r")] {
        rows.push(row(key, in_scope(scope, "/signedIdentity"), any.clone(), Changes));
    }
    rows
}

/// The three rows of a key that names a file: another file, the same under another name.
fn path(key: &'static str, scope: &str, rest: &str, name: &str) -> [Row; 2] {
    [
        row(key, in_scope(scope, rest), format!("other-{name}"), Changes),
        row(key, in_scope(scope, rest), format!("copy-{name}"), Stays(NOT_FILES)),
    ]
}

fn keys(lab: &Lab) -> Vec<Row> {
    let mut rows = Vec::new();
    rows.extend(path("sigstoreSigned.keyPath", "a", "/keyPath", "key"));
    rows.extend(path("sigstoreSigned.rekorPublicKeyPath", "a", "/rekorPublicKeyPath", "rekor"));
    rows.extend(path("sigstoreSigned.keyPaths", "b", "/keyPaths/0", "key"));
    rows.extend(path("sigstoreSigned.rekorPublicKeyPaths", "b", "/rekorPublicKeyPaths/0", "rekor"));
    for (key, scope, rest, name) in [
        ("sigstoreSigned.keyData", "c", "/keyData", "other-key"),
        ("sigstoreSigned.rekorPublicKeyData", "c", "/rekorPublicKeyData", "other-rekor"),
        ("sigstoreSigned.keyDatas", "d", "/keyDatas/0", "other-key"),
        ("sigstoreSigned.rekorPublicKeyDatas", "d", "/rekorPublicKeyDatas/0", "other-rekor"),
    ] {
        rows.push(row(key, in_scope(scope, rest), lab.data(name), Changes));
    }
    rows
}

fn authorities(lab: &Lab) -> Vec<Row> {
    let other = json!({"caPath": "other-ca", "oidcIssuer": "https://issuer.test", "subjectEmail": "a@x.test"});
    let other_pki = json!({"caRootsPath": "other-roots", "subjectEmail": "a@x.test"});
    let mut rows = vec![
        row("sigstoreSigned.fulcio", in_scope("e", "/fulcio"), other, Changes),
        row("sigstoreSigned.fulcio.caData", in_scope("f", "/fulcio/caData"), lab.data("other-ca"), Changes),
        row("sigstoreSigned.fulcio.oidcIssuer", in_scope("e", "/fulcio/oidcIssuer"), "https://issuer.test/", Changes),
        row("sigstoreSigned.fulcio.subjectEmail", in_scope("e", "/fulcio/subjectEmail"), "b@x.test", Changes),
        row("sigstoreSigned.pki", in_scope("g", "/pki"), other_pki, Changes),
        row("sigstoreSigned.pki.caRootsData", in_scope("h", "/pki/caRootsData"), lab.data("other-roots"), Changes),
        row(
            "sigstoreSigned.pki.caIntermediatesData",
            in_scope("h", "/pki/caIntermediatesData"),
            lab.data("other-intermediates"),
            Changes,
        ),
        row("sigstoreSigned.pki.subjectEmail", in_scope("g", "/pki/subjectEmail"), "b@x.test", Changes),
        row("sigstoreSigned.pki.subjectHostname", in_scope("h", "/pki/subjectHostname"), "y.test", Changes),
    ];
    rows.extend(path("sigstoreSigned.fulcio.caPath", "e", "/fulcio/caPath", "ca"));
    rows.extend(path("sigstoreSigned.pki.caRootsPath", "g", "/pki/caRootsPath", "roots"));
    rows.extend(path("sigstoreSigned.pki.caIntermediatesPath", "g", "/pki/caIntermediatesPath", "intermediates"));
    rows
}

fn holders(lab: &Lab) -> Vec<Row> {
    let mut rows = vec![
        row("signedBy.keyData", in_scope("k", "/keyData"), lab.data("other-ring"), Changes),
        row("signedBy.keyType", in_scope("i", "/keyType"), "X509Certificates", Changes),
    ];
    rows.extend(path("signedBy.keyPath", "i", "/keyPath", "ring"));
    rows.extend(path("signedBy.keyPaths", "j", "/keyPaths/0", "ring"));
    rows
}

fn identities() -> Vec<Row> {
    let at = |scope: &str, key: &str| in_scope(scope, &format!("/signedIdentity/{key}"));
    vec![
        row("exactReference.dockerReference", at("p", "dockerReference"), "quay.io/a/b:2", Changes),
        row("exactRepository.dockerRepository", at("q", "dockerRepository"), "quay.io/a/c", Changes),
        row("remapIdentity.prefix", at("r", "prefix"), "c.test", Changes),
        row("remapIdentity.signedPrefix", at("r", "signedPrefix"), "c.test", Changes),
    ]
}

/// The policy stays the same text, and its meaning does not.
#[test]
fn another_content_of_any_file_that_policy_json_names_changes_the_fingerprint() {
    let (lab, mut seen) = (Lab::new(), std::collections::BTreeSet::new());
    let document = lab.document();
    assert!(seen.insert(lab.fingerprint(&document).unwrap()));
    for name in ["key", "rekor", "ca", "roots", "intermediates", "ring"] {
        assert!(seen.insert(lab.with_other(&document, name).unwrap()), "{name}");
    }
}

#[test]
fn the_order_of_requirements_and_one_more_scope_change_the_fingerprint() {
    let lab = Lab::new();
    let policy = |requirements: &[&str], scope: &str| {
        let requirements: Vec<Value> = requirements.iter().map(|kind| json!({ "type": kind })).collect();
        lab.fingerprint(&json!({"default": requirements, "transports": {"docker": {scope: requirements}}})).unwrap()
    };
    let (accept, reject) = ("insecureAcceptAnything", "reject");
    let all = [
        policy(&[accept, reject], "quay.io"),
        policy(&[reject, accept], "quay.io"),
        policy(&[accept, reject], "quay.io/a"),
        policy(&[reject], "quay.io"),
        policy(&[accept], "quay.io"),
    ];
    let distinct: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
}
