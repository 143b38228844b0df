//! The keys of a ClusterImagePolicy.

use sealgate::oci::{Digest, ImageReference};
use sealgate::policy::{ClusterImagePolicies, PolicyFile, PolicySet, Settings, cluster_image_policy_keys};
use sealgate::testing::sigstore::{BundleBuilder, FakeKey, FakeSigstore, Flaw, Identity};
use sealgate::verify::{Place, SignatureMaterial, SigstoreRoot};
use serde_json::{Value, json};

use super::trust_root::{authorities_pem, trust_root};
use super::{Case, Expected, Outcome, all_hold, case, decide, found, now};

const REPOSITORY: &str = "quay.io/team/app";
const ISSUER: &str = "https://issuer.example";
const SUBJECT: &str = "https://ci.example/team/app@refs/heads/main";
const PREDICATE: &str = "https://example.com/scan/v1";
const NO: Expected = Expected::Deny("failed policy");
const RULE: &str =
    "package sigstore\ndefault isCompliant = false\nisCompliant { input.predicate.severity == \"low\" }\n";
const OTHER_RULE: &str =
    "package sigstore\ndefault isCompliant = false\nisCompliant { input.predicate.severity == \"none\" }\n";
/// A rule of a whole policy: authority `a` and authority `b` must both have signed.
const BOTH: &str = "package sigstore\ndefault isCompliant = false\nisCompliant {\n  count(input.authorityMatches.a.signatures) > 0\n  \
                    count(input.authorityMatches.b.signatures) > 0\n}\n";

pub(super) struct Lab {
    pub(super) sigstore: FakeSigstore,
    pub(super) other: FakeSigstore,
    pub(super) digest: Digest,
    ours: FakeKey,
    theirs: FakeKey,
}

/// CVE-2025-29778.
#[test]
fn t_15_every_key_of_a_cluster_image_policy_is_enforced() {
    let lab = Lab::new();
    let parts = [
        lab.documents(),
        lab.spec(),
        lab.keys(),
        lab.keyless(),
        lab.identities(),
        lab.logs_and_times(),
        lab.places(),
        lab.attestations(),
        lab.rules(),
    ];
    all_hold(cluster_image_policy_keys(), &parts.into_iter().flatten().collect::<Vec<_>>());
}

impl Lab {
    pub(super) fn new() -> Self {
        let (sigstore, other) = (FakeSigstore::from_seed(153, now()), FakeSigstore::from_seed(154, now()));
        Self {
            ours: sigstore.key("ours"),
            theirs: other.key("ours"),
            digest: Digest::sha256(b"an image"),
            sigstore,
            other,
        }
    }

    /// What these documents say about these signatures. The default trust root is our Sigstore's.
    pub(super) fn documents_say(&self, documents: &[Value], candidates: Vec<SignatureMaterial>) -> Outcome {
        let text: Vec<String> = documents.iter().map(Value::to_string).collect();
        let beside = |name: &str| match name {
            "rule.rego" => Ok(RULE.as_bytes().to_vec()),
            "both.rego" => Ok(BOTH.as_bytes().to_vec()),
            _ => Err("no such file".to_owned()),
        };
        let file = PolicyFile::parse("cip.yaml", text.join("\n---\n").as_bytes(), &mut { beside });
        let root = SigstoreRoot::from_json(self.sigstore.trusted_root_json().as_bytes()).unwrap();
        let policies = match file.and_then(|file| ClusterImagePolicies::resolve(vec![file], &root)) {
            Ok(policies) => policies,
            Err(error) => return Outcome::Unloadable(error.to_string()),
        };
        let settings = Settings { cluster_image_policies: Some(policies), ..Settings::default() };
        let image: ImageReference = format!("{REPOSITORY}:1").parse().unwrap();
        decide(&PolicySet::new(settings).unwrap(), &image, &self.digest, candidates)
    }

    /// What a policy with that `spec` says.
    fn spec_says(&self, spec: Value, candidates: Vec<SignatureMaterial>) -> Outcome {
        self.documents_say(&[policy(spec)], candidates)
    }

    /// What one authority says about one signature.
    fn says(&self, authority: &Value, candidate: &SignatureMaterial) -> Outcome {
        self.spec_says(json!({"images": [{"glob": "**"}], "authorities": [authority]}), vec![candidate.clone()])
    }

    fn tag(&self, suffix: &str) -> Place {
        Place::Tag(format!("sha256-{}.{suffix}", self.digest.hex()))
    }

    fn by_key(&self, key: &FakeKey) -> SignatureMaterial {
        found(self.sigstore.sign_keyed(key, REPOSITORY, &self.digest, Flaw::None).material(), None, self.tag("sig"))
    }

    fn unlogged(&self) -> SignatureMaterial {
        found(
            self.sigstore.sign_unlogged(&self.ours, REPOSITORY, &self.digest, Flaw::None).material(),
            None,
            self.tag("sig"),
        )
    }

    pub(super) fn bundle(&self) -> BundleBuilder<'_> {
        self.sigstore.bundle_by(&Identity::uri(SUBJECT, ISSUER), &self.digest)
    }

    /// An attestation that a scan found what `severity` says.
    fn scan(&self, severity: &str) -> SignatureMaterial {
        self.bundle().predicate(PREDICATE, json!({"severity": severity})).build().material()
    }

    fn documents(&self) -> Vec<Case> {
        let pass = || json!({"images": [{"glob": "**"}], "authorities": [{"static": {"action": "pass"}}]});
        let with = |key: &str, value: Value| {
            let mut document = policy(pass());
            document[key] = value;
            self.documents_say(&[document], Vec::new())
        };
        let good = || self.spec_says(pass(), Vec::new());
        let fail = json!({"images": [{"glob": "**"}], "authorities": [{"static": {"action": "fail"}}]});
        let twice = self.documents_say(&[policy(pass()), policy(pass())], Vec::new());
        vec![
            case(
                "apiVersion",
                good(),
                Expected::Unloadable("unsupported value"),
                with("apiVersion", "policy.sigstore.dev/v2".into()),
            ),
            case("kind", good(), Expected::Unloadable("only ClusterImagePolicy"), with("kind", "Policy".into())),
            // Its name is what a second document may not have.
            case("metadata", good(), Expected::Unloadable("twice"), twice),
            case("spec", good(), NO, with("spec", fail)),
            // It is for the cluster: whatever it says, it must be an object, and changes nothing.
            case(
                "status",
                with("status", json!({"conditions": []})),
                Expected::Unloadable("an object is expected"),
                with("status", json!([])),
            ),
        ]
    }

    fn spec(&self) -> Vec<Case> {
        let spec = |key: &str, value: Value| {
            let mut spec = json!({"images": [{"glob": "**"}], "authorities": [{"static": {"action": "fail", "message": "not today"}}]});
            spec[key] = value;
            self.spec_says(spec, Vec::new())
        };
        let pass = json!([{"static": {"action": "pass"}}]);
        let covering =
            |glob: &str| self.spec_says(json!({"images": [{"glob": glob}], "authorities": pass}), Vec::new());
        let named = |name: &str| {
            let authorities = json!([{"name": name, "static": {"action": "pass"}}]);
            let rule = "package sigstore\ndefault isCompliant = false\nisCompliant { input.authorityMatches.a }\n";
            let policy = json!({"type": "rego", "data": rule});
            self.spec_says(
                json!({"images": [{"glob": "**"}], "authorities": authorities, "policy": policy}),
                Vec::new(),
            )
        };
        let fixed = |fixed: Value| self.says(&json!({"static": fixed}), &self.unlogged());
        let none = Expected::Deny("no matching policies");
        vec![
            case("spec.images", covering("quay.io/team/**"), none, covering("quay.io/team")),
            case("spec.images[].glob", covering("quay.io/*/app:1"), none, covering("quay.io/*:1")),
            case("spec.mode", spec("mode", "warn".into()), Expected::Deny("not today"), spec("mode", "enforce".into())),
            case(
                "spec.authorities",
                spec("authorities", pass.clone()),
                NO,
                spec("authorities", json!([{"static": {"action": "fail"}}])),
            ),
            case("spec.authorities[].name", named("a"), NO, named("b")),
            case("spec.authorities[].static", fixed(json!({"action": "pass"})), NO, fixed(json!({"action": "fail"}))),
            case(
                "spec.authorities[].static.action",
                fixed(json!({"action": "pass"})),
                NO,
                fixed(json!({"action": "fail"})),
            ),
            Case {
                key: "spec.authorities[].static.message",
                first: (
                    Expected::Deny("disallowed by static policy: ask the platform team"),
                    fixed(json!({"action": "fail", "message": "ask the platform team"})),
                ),
                second: (
                    Expected::Deny("disallowed by static policy: not today"),
                    fixed(json!({"action": "fail", "message": "not today"})),
                ),
            },
        ]
    }

    fn keys(&self) -> Vec<Case> {
        let signature = self.by_key(&self.ours);
        let by = |key: &FakeKey| self.says(&json!({"key": {"data": key.public_pem()}}), &signature);
        let hash = |hash: &str| {
            self.says(&json!({"key": {"data": self.ours.public_pem(), "hashAlgorithm": hash}}), &signature)
        };
        vec![
            case("spec.authorities[].key", by(&self.ours), NO, by(&self.theirs)),
            case("spec.authorities[].key.data", by(&self.ours), NO, by(&self.theirs)),
            case("spec.authorities[].key.hashAlgorithm", hash("sha256"), NO, hash("sha512")),
        ]
    }

    fn keyless(&self) -> Vec<Case> {
        let bundle = self.bundle().build().material();
        let with = |key: &str, value: Value| {
            let mut keyless = keyless();
            keyless[key] = value;
            json!({"signatureFormat": "bundle", "keyless": keyless})
        };
        let says = |key: &str, value: Value| self.says(&with(key, value), &bundle);
        let good = || self.says(&json!({"signatureFormat": "bundle", "keyless": keyless()}), &bundle);
        let identity = |subject: &str| json!([{"issuer": ISSUER, "subject": subject}]);
        let ca = |sigstore: &FakeSigstore| json!({"data": authorities_pem(sigstore)});
        let root = |named: &FakeSigstore| {
            let spec = json!({"images": [{"glob": "**"}], "authorities": [with("trustRootRef", "root".into())]});
            self.documents_say(&[trust_root(named), policy(spec)], vec![bundle.clone()])
        };
        let no_sct = self.bundle().flaw(Flaw::NoSct).build().material();
        let sct = |ignored: bool| self.says(&with("insecureIgnoreSCT", ignored.into()), &no_sct);
        vec![
            case(
                "spec.authorities[].keyless",
                good(),
                NO,
                says("identities", identity("https://ci.example/team/app@refs/heads/dev")),
            ),
            // It is never contacted; with `ca-cert` there would be two authorities.
            case(
                "spec.authorities[].keyless.url",
                says("url", "https://fulcio.example".into()),
                Expected::Unloadable("no http or https address"),
                says("url", "fulcio".into()),
            ),
            case(
                "spec.authorities[].keyless.ca-cert",
                says("ca-cert", ca(&self.sigstore)),
                NO,
                says("ca-cert", ca(&self.other)),
            ),
            case(
                "spec.authorities[].keyless.ca-cert.data",
                says("ca-cert", ca(&self.sigstore)),
                NO,
                says("ca-cert", ca(&self.other)),
            ),
            case(
                "spec.authorities[].keyless.identities",
                good(),
                NO,
                says("identities", identity("https://ci.example/team/ap")),
            ),
            case("spec.authorities[].keyless.trustRootRef", root(&self.sigstore), NO, root(&self.other)),
            case("spec.authorities[].keyless.insecureIgnoreSCT", sct(true), NO, sct(false)),
        ]
    }

    fn identities(&self) -> Vec<Case> {
        let bundle = self.bundle().build().material();
        let by = |issuer: (&str, &str), subject: (&str, &str)| {
            let identity = json!({issuer.0: issuer.1, subject.0: subject.1});
            self.says(&json!({"signatureFormat": "bundle", "keyless": {"identities": [identity]}}), &bundle)
        };
        let (issuer, subject) = (("issuer", ISSUER), ("subject", SUBJECT));
        let good = || by(issuer, subject);
        vec![
            case(
                "spec.authorities[].keyless.identities[].issuer",
                good(),
                NO,
                by(("issuer", "https://issuer.example/"), subject),
            ),
            case(
                "spec.authorities[].keyless.identities[].subject",
                good(),
                NO,
                by(issuer, ("subject", "https://ci.example/team/app")),
            ),
            // Patterns match the whole text.
            case(
                "spec.authorities[].keyless.identities[].issuerRegExp",
                by(("issuerRegExp", "https://[a-z]+\\.example"), subject),
                NO,
                by(("issuerRegExp", "https://[a-z]+"), subject),
            ),
            case(
                "spec.authorities[].keyless.identities[].subjectRegExp",
                by(issuer, ("subjectRegExp", "https://ci\\.example/team/.*")),
                NO,
                by(issuer, ("subjectRegExp", "ci\\.example/team/")),
            ),
        ]
    }

    fn logs_and_times(&self) -> Vec<Case> {
        let key = |more: Value| {
            let mut authority = json!({"key": {"data": self.ours.public_pem()}});
            for (name, value) in more.as_object().unwrap() {
                authority[name] = value.clone();
            }
            authority
        };
        let with_root = |authority: &Value, named: Value, candidate: &SignatureMaterial| {
            let spec = json!({"images": [{"glob": "**"}], "authorities": [authority]});
            self.documents_say(&[named, policy(spec)], vec![candidate.clone()])
        };
        let (logged, unlogged) = (self.by_key(&self.ours), self.unlogged());
        let log = key(json!({"ctlog": {"url": "https://rekor.example"}}));
        let log_of = key(json!({"ctlog": {"trustRootRef": "root"}}));
        let bad_url = key(json!({"ctlog": {"url": "rekor"}}));
        let stamped = |candidate: &SignatureMaterial, root: &str, of: &FakeSigstore| {
            let authority = json!({
                "signatureFormat": "bundle", "keyless": keyless(), "rfc3161timestamp": {"trustRootRef": root},
            });
            with_root(&authority, trust_root(of), candidate)
        };
        let (with_time, without) = (self.bundle().timestamped().build().material(), self.bundle().build().material());
        vec![
            case("spec.authorities[].ctlog", self.says(&log, &logged), NO, self.says(&log, &unlogged)),
            // It is never contacted.
            case(
                "spec.authorities[].ctlog.url",
                self.says(&log, &logged),
                Expected::Unloadable("no http or https address"),
                self.says(&bad_url, &logged),
            ),
            case(
                "spec.authorities[].ctlog.trustRootRef",
                with_root(&log_of, trust_root(&self.sigstore), &logged),
                NO,
                with_root(&log_of, trust_root(&self.other), &logged),
            ),
            case(
                "spec.authorities[].rfc3161timestamp",
                stamped(&with_time, "root", &self.sigstore),
                NO,
                stamped(&without, "root", &self.sigstore),
            ),
            case(
                "spec.authorities[].rfc3161timestamp.trustRootRef",
                stamped(&with_time, "root", &self.sigstore),
                NO,
                stamped(&with_time, "root", &self.other),
            ),
        ]
    }

    fn places(&self) -> Vec<Case> {
        let signature = self.by_key(&self.ours);
        let key = |more: (&str, Value)| json!({"key": {"data": self.ours.public_pem()}, more.0: more.1});
        let elsewhere = |repository: Option<&str>, prefix: &str| {
            let tag = Place::Tag(format!("{prefix}sha256-{}.sig", self.digest.hex()));
            found(signature.clone(), repository, tag)
        };
        let source = |source: Value| key(("source", json!([source])));
        let oci = source(json!({"oci": "quay.io/team/signatures"}));
        let prefix = source(json!({"tagPrefix": "pre"}));
        let there = elsewhere(Some("quay.io/team/signatures"), "");
        let bundle = self.sigstore.bundle_keyed(&self.ours, &self.digest).build().material();
        let format = |format: &str, candidate: &SignatureMaterial| {
            self.says(&key(("signatureFormat", format.into())), candidate)
        };
        vec![
            case("spec.authorities[].source", self.says(&oci, &there), NO, self.says(&oci, &signature)),
            case(
                "spec.authorities[].source[].oci",
                self.says(&oci, &there),
                NO,
                self.says(&oci, &elsewhere(Some("quay.io/team/other"), "")),
            ),
            case(
                "spec.authorities[].source[].tagPrefix",
                self.says(&prefix, &elsewhere(None, "pre")),
                NO,
                self.says(&prefix, &signature),
            ),
            case("spec.authorities[].signatureFormat", format("bundle", &bundle), NO, format("legacy", &bundle)),
        ]
    }

    fn attestations(&self) -> Vec<Case> {
        let (low, high) = (self.scan("low"), self.scan("high"));
        let attested = |attestations: Value| json!({"signatureFormat": "bundle", "keyless": keyless(), "attestations": attestations});
        let of = |predicate: &str| attested(json!([{"name": "scan", "predicateType": predicate}]));
        let ruled = |policy: Value| attested(json!([{"name": "scan", "predicateType": PREDICATE, "policy": policy}]));
        let rego = |module: &str| ruled(json!({"type": "rego", "data": module}));
        let remote = |url: &str, sum: &str| ruled(json!({"type": "rego", "remote": {"url": url, "sha256sum": sum}}));
        let url = "https://rules.example/rule.rego";
        let sum = Digest::sha256(RULE.as_bytes()).hex();
        let named = |name: &str| {
            let authority = json!({"name": "a", "signatureFormat": "bundle", "keyless": keyless(),
                "attestations": [{"name": name, "predicateType": PREDICATE}]});
            let rule = "package sigstore\ndefault isCompliant = false\nisCompliant { count(input.authorityMatches.a.attestations.scan) > 0 }\n";
            let spec = json!({"images": [{"glob": "**"}], "authorities": [authority], "policy": {"type": "rego", "data": rule}});
            self.spec_says(spec, vec![low.clone()])
        };
        let good = || self.says(&rego(RULE), &low);
        let plain = self.bundle().build().material();
        let cue = ruled(json!({"type": "cue", "data": RULE}));
        vec![
            case(
                "spec.authorities[].attestations",
                self.says(&of(PREDICATE), &low),
                NO,
                self.says(&of(PREDICATE), &plain),
            ),
            case("spec.authorities[].attestations[].name", named("scan"), NO, named("other")),
            case(
                "spec.authorities[].attestations[].predicateType",
                self.says(&of(PREDICATE), &low),
                NO,
                self.says(&of("https://example.com/scan/v2"), &low),
            ),
            case("spec.authorities[].attestations[].policy", good(), NO, self.says(&rego(RULE), &high)),
            case(
                "spec.authorities[].attestations[].policy.type",
                good(),
                Expected::Unloadable("CUE is not supported"),
                self.says(&cue, &low),
            ),
            case("spec.authorities[].attestations[].policy.data", good(), NO, self.says(&rego(OTHER_RULE), &low)),
            case(
                "spec.authorities[].attestations[].policy.remote",
                self.says(&remote(url, &sum), &low),
                NO,
                self.says(&remote(url, &sum), &high),
            ),
            case(
                "spec.authorities[].attestations[].policy.remote.url",
                self.says(&remote(url, &sum), &low),
                Expected::Unloadable("never fetched"),
                self.says(&remote("https://rules.example/other.rego", &sum), &low),
            ),
            case(
                "spec.authorities[].attestations[].policy.remote.sha256sum",
                self.says(&remote(url, &sum), &low),
                Expected::Unloadable("has another one"),
                self.says(&remote(url, &"0".repeat(64)), &low),
            ),
        ]
    }

    fn rules(&self) -> Vec<Case> {
        let authority = |name: &str, key: &FakeKey| json!({"name": name, "key": {"data": key.public_pem()}});
        let both = || vec![self.by_key(&self.ours), self.by_key(&self.theirs)];
        let under = |policy: Value, candidates: Vec<SignatureMaterial>| {
            let authorities = json!([authority("a", &self.ours), authority("b", &self.theirs)]);
            self.spec_says(
                json!({"images": [{"glob": "**"}], "authorities": authorities, "policy": policy}),
                candidates,
            )
        };
        let rego = |module: &str| json!({"type": "rego", "data": module});
        let good = || under(rego(BOTH), both());
        let (url, sum) = ("https://rules.example/both.rego", Digest::sha256(BOTH.as_bytes()).hex());
        let remote = |url: &str, sum: &str| json!({"type": "rego", "remote": {"url": url, "sha256sum": sum}});
        let fetching = |fetch: bool| under(json!({"type": "rego", "data": BOTH, "fetchConfigFile": fetch}), both());
        let never =
            "package sigstore\ndefault isCompliant = false\nisCompliant { count(input.authorityMatches) > 2 }\n";
        vec![
            case("spec.policy", good(), NO, under(rego(BOTH), vec![self.by_key(&self.ours)])),
            case(
                "spec.policy.type",
                good(),
                Expected::Unloadable("CUE is not supported"),
                under(json!({"type": "cue", "data": BOTH}), both()),
            ),
            case("spec.policy.data", good(), NO, under(rego(never), both())),
            case(
                "spec.policy.remote",
                under(remote(url, &sum), both()),
                NO,
                under(remote(url, &sum), vec![self.by_key(&self.ours)]),
            ),
            case(
                "spec.policy.remote.url",
                under(remote(url, &sum), both()),
                Expected::Unloadable("never fetched"),
                under(remote("https://rules.example/c.rego", &sum), both()),
            ),
            case(
                "spec.policy.remote.sha256sum",
                under(remote(url, &sum), both()),
                Expected::Unloadable("has another one"),
                under(remote(url, &"0".repeat(64)), both()),
            ),
            case(
                "spec.policy.fetchConfigFile",
                fetching(false),
                Expected::Unloadable("fetchConfigFile"),
                fetching(true),
            ),
        ]
    }
}

#[expect(clippy::needless_pass_by_value, reason = "a spec is made where it is asked about")]
pub(super) fn policy(spec: Value) -> Value {
    json!({"apiVersion": "policy.sigstore.dev/v1beta1", "kind": "ClusterImagePolicy", "metadata": {"name": "p"}, "spec": spec})
}

/// The signer of every bundle here.
pub(super) fn keyless() -> Value {
    json!({"identities": [{"issuer": ISSUER, "subject": SUBJECT}]})
}
