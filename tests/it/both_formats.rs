//! policy.json and ClusterImagePolicies together, from files, through the mirror.

use sealgate::clock::Clock;
use sealgate::oci::Digest;

use sealgate::testing::sigstore::{FakeSigstore, Flaw, Identity, key_requirement};
use sealgate::testing::{
    ACCEPT_ANYTHING, BuiltImage, FakeRegistry, ImageBuilder, REJECT, Setup, TestSealgate, attach_attestations,
    attach_bundles, attach_signatures,
};
use serde_json::json;

const HOST: &str = "registry.test";
const NAME: &str = "team/app";
const ISSUER: &str = "https://issuer.test";
const SCAN: &str = "https://scan.test/v1";

struct Lab {
    registry: FakeRegistry,
    sigstore: FakeSigstore,
    image: BuiltImage,
}

impl Lab {
    async fn new() -> Self {
        let registry = FakeRegistry::start().await;
        let image = ImageBuilder::new(1).layer(1000).build();
        registry.put(NAME, "1", &image);
        Self { registry, sigstore: FakeSigstore::from_seed(7, Clock::System.now()), image }
    }

    fn digest(&self) -> Digest {
        self.image.digest()
    }

    fn identity(name: &str) -> Identity {
        Identity::email(&format!("{name}@team.test"), ISSUER)
    }

    fn sign(&self, names: &[&str]) {
        let reference = format!("{HOST}/{NAME}");
        let sign = |name: &&str| self.sigstore.sign_as(&reference, &self.digest(), &Self::identity(name), Flaw::None);
        let signatures: Vec<_> = names.iter().map(sign).collect();
        attach_signatures(&self.registry, NAME, &self.digest(), &signatures);
    }

    fn setup(&self, policy_json: Option<&str>, policies: &[String]) -> Setup {
        Setup::new(policy_json.unwrap_or_default())
            .set("policy.containers_policy", if policy_json.is_some() { "policy.json" } else { "" })
            .set("policy.cluster_image_policies", vec![toml::Value::from("cip.yaml")])
            .set("policy.trusted_root", "root.json")
            .file("cip.yaml", policies.join("---\n"))
            .file("root.json", self.sigstore.trusted_root_json())
            .upstream(HOST, self.registry.url())
    }

    /// Status and text of a pull under these policies.
    async fn pull(&self, policy_json: Option<&str>, policies: &[String]) -> (u16, String) {
        pull(self.setup(policy_json, policies)).await
    }
}

async fn pull(setup: Setup) -> (u16, String) {
    let mirror = setup.start().await;
    let answer = pull_from(&mirror).await;
    mirror.stop().await;
    answer
}

async fn pull_from(mirror: &TestSealgate) -> (u16, String) {
    let answer = mirror.get(&format!("/v2/{HOST}/{NAME}/manifests/1")).await;
    let text = if answer.status == 200 { answer.header("sealgate-verdict").unwrap().to_owned() } else { answer.text() };
    (answer.status, text)
}

fn policy(name: &str, glob: &str, authorities: &[String], more: &str) -> String {
    format!(
        "apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata:\n  name: {name}\nspec:\n{more}  images:\n    \
         - glob: \"{glob}\"\n  authorities:\n{}",
        authorities.concat()
    )
}

fn keyless(name: &str, more: &str) -> String {
    format!(
        "    - name: {name}\n      keyless:\n        identities:\n          - issuer: {ISSUER}\n            subject: \
         {name}@team.test\n{more}"
    )
}

fn fixed(action: &str) -> String {
    format!("    - name: fixed\n      static:\n        action: {action}\n")
}

fn all(name: &str, authorities: &[String]) -> String {
    policy(name, "**", authorities, "")
}

fn assert_refused((status, text): &(u16, String), says: &str) {
    assert_eq!(*status, 403, "{text}");
    assert!(text.contains(says), "{text}");
}

#[tokio::test]
async fn any_authority_of_a_policy_is_enough_and_every_policy_must_be_satisfied() {
    let lab = Lab::new().await;
    lab.sign(&["a"]);
    let either = all("either", &[keyless("b", ""), keyless("a", "")]);
    assert_eq!(lab.pull(None, &[either]).await.0, 200);
    let (a, b) = (all("a", &[keyless("a", "")]), all("b", &[keyless("b", "")]));
    assert_refused(
        &lab.pull(None, &[a.clone(), b.clone()]).await,
        "failed policy: b: authority b: no matching signatures",
    );
    assert_refused(&lab.pull(None, &[b, a]).await, "failed policy: b");
}

#[tokio::test]
async fn both_formats_must_be_satisfied_and_the_one_that_denies_speaks() {
    let lab = Lab::new().await;
    lab.sign(&["a"]);
    let (a, b) = (all("a", &[keyless("a", "")]), all("b", &[keyless("b", "")]));
    assert_eq!(lab.pull(Some(ACCEPT_ANYTHING), std::slice::from_ref(&a)).await.0, 200);
    assert_refused(&lab.pull(Some(ACCEPT_ANYTHING), std::slice::from_ref(&b)).await, "failed policy: b");
    assert_refused(&lab.pull(Some(REJECT), std::slice::from_ref(&a)).await, "is rejected by policy");
    let keyed = json!({"default": [key_requirement(&lab.sigstore.key("k"))]}).to_string();
    let refused = lab.pull(Some(&keyed), &[a]).await;
    assert_eq!(refused.0, 403);
    assert!(!refused.1.contains("failed policy"), "policy.json speaks first: {}", refused.1);
}

#[tokio::test]
async fn what_no_policy_covers_is_decided_by_no_match_and_beside_policy_json_by_its_default() {
    let lab = Lab::new().await;
    let other = policy("other", "elsewhere.test/**", &[fixed("fail")], "");
    assert_refused(&lab.pull(None, std::slice::from_ref(&other)).await, "no matching policies");
    for (no_match, status) in [("deny", 403), ("allow", 200), ("warn", 200)] {
        let setup = lab.setup(None, std::slice::from_ref(&other)).set("policy.no_match", no_match);
        assert_eq!(pull(setup).await.0, status, "{no_match}");
    }
    assert_eq!(lab.pull(Some(ACCEPT_ANYTHING), std::slice::from_ref(&other)).await.0, 200, "it abstains");
    assert_refused(&lab.pull(Some(REJECT), &[other]).await, "is rejected by policy");
    assert_eq!(lab.registry.count("GET", "*/manifests/sha256-*"), 0, "no signature was looked for");
}

#[tokio::test]
async fn static_authorities_decide_without_looking_for_anything() {
    let lab = Lab::new().await;
    assert_eq!(lab.pull(None, &[all("open", &[fixed("pass")])]).await.0, 200);
    assert_eq!(lab.pull(None, &[all("either", &[keyless("a", ""), fixed("pass")])]).await.0, 200);
    let closed = fixed("fail") + "        message: not here\n";
    let refused = lab.pull(None, &[all("signed", &[keyless("a", "")]), all("closed", &[closed])]).await;
    assert_refused(&refused, "failed policy: closed: authority fixed: disallowed by static policy: not here");
    assert_eq!(lab.registry.count("GET", "*/manifests/sha256-*"), 0);
}

#[tokio::test]
async fn a_policy_that_warns_refuses_nothing_and_the_verdict_says_what_it_would_refuse() {
    let lab = Lab::new().await;
    let warns = policy("soft", "**", &[keyless("a", "")], "  mode: warn\n");
    let mirror = lab.setup(None, &[warns]).start().await;
    assert_eq!(pull_from(&mirror).await.0, 200);
    let verdicts = mirror.admin_get("/api/v1/verdicts").await.text();
    assert!(verdicts.contains("warning: failed policy: soft") && verdicts.contains("\"warned\""), "{verdicts}");
    assert_eq!(mirror.metric("sealgate_verdicts_total{decision=\"allow\",reason=\"warned\"}"), Some(1.0));
    mirror.stop().await;
}

#[tokio::test]
async fn signatures_in_another_repository_count_for_the_authority_that_names_it_alone() {
    let lab = Lab::new().await;
    let signature = lab.sigstore.sign_as(&format!("{HOST}/{NAME}"), &lab.digest(), &Lab::identity("a"), Flaw::None);
    attach_signatures(&lab.registry, "team/signatures", &lab.digest(), &[signature]);
    let elsewhere = keyless("a", &format!("      source:\n        - oci: {HOST}/team/signatures\n"));
    assert_eq!(lab.pull(None, &[all("elsewhere", std::slice::from_ref(&elsewhere))]).await.0, 200);
    assert_refused(&lab.pull(None, &[all("here", &[keyless("a", "")])]).await, "no signatures found");
    // Not even when another policy has it fetched.
    let both = lab.pull(None, &[all("elsewhere", &[elsewhere]), all("here", &[keyless("a", "")])]).await;
    assert_refused(&both, "failed policy: here: authority a: no signatures found");
}

#[tokio::test]
async fn with_attestations_each_listed_one_is_needed_and_plain_signatures_are_not_looked_at() {
    let lab = Lab::new().await;
    lab.sign(&["a"]);
    let listed = |types: &[&str]| {
        let one =
            |(number, kind): (usize, &&str)| format!("        - name: n{number}\n          predicateType: {kind}\n");
        let types: String = types.iter().enumerate().map(one).collect();
        all("attested", &[keyless("a", &format!("      attestations:\n{types}"))])
    };
    assert_refused(&lab.pull(None, &[listed(&[SCAN])]).await, "attestation n0: no attestations found");
    let attestation = |kind: &str| {
        let signed = lab.sigstore.bundle_by(&Lab::identity("a"), &lab.digest());
        signed.predicate(kind, json!({"severity": 3})).build_attestation()
    };
    attach_attestations(&lab.registry, NAME, &lab.digest(), &[attestation(SCAN)]);
    assert_eq!(lab.pull(None, &[listed(&[SCAN])]).await.0, 200);
    assert_refused(&lab.pull(None, &[listed(&[SCAN, "https://other.test/v1"])]).await, "attestation n1: no matching");
    attach_attestations(&lab.registry, NAME, &lab.digest(), &[attestation(SCAN), attestation("https://other.test/v1")]);
    assert_eq!(lab.pull(None, &[listed(&[SCAN, "https://other.test/v1"])]).await.0, 200);
}

#[tokio::test]
async fn a_plain_signature_in_a_bundle_counts_and_an_attestation_in_its_place_does_not() {
    let lab = Lab::new().await;
    let bundles = all("bundles", &[keyless("a", "      signatureFormat: bundle\n")]);
    let scan = lab.sigstore.bundle_by(&Lab::identity("a"), &lab.digest()).predicate(SCAN, json!({})).build();
    attach_bundles(&lab.registry, NAME, &lab.image.manifest, &[scan]);
    assert_refused(&lab.pull(None, std::slice::from_ref(&bundles)).await, "no matching signatures");
    let plain = lab.sigstore.bundle_by(&Lab::identity("a"), &lab.digest()).build();
    attach_bundles(&lab.registry, NAME, &lab.image.manifest, &[plain]);
    assert_eq!(lab.pull(None, &[bundles]).await.0, 200);
}

#[tokio::test]
async fn a_rule_of_the_whole_policy_counts_who_signed() {
    let lab = Lab::new().await;
    let rule = "  policy:\n    type: rego\n    data: |\n      package sigstore\n      isCompliant {\n        \
                count(input.authorityMatches.a.signatures) > 0\n        input.authorityMatches.b.signatures[_].subject == \
                \"b@team.test\"\n      }\n";
    let two = policy("two", "**", &[keyless("a", ""), keyless("b", "")], rule);
    lab.sign(&["a"]);
    assert_refused(
        &lab.pull(None, std::slice::from_ref(&two)).await,
        "failed policy: two: the policy's Rego rule says no",
    );
    lab.sign(&["a", "b"]);
    assert_eq!(lab.pull(None, &[two]).await.0, 200);
}

#[tokio::test]
async fn a_rule_that_fails_is_no_answer_and_admits_nothing() {
    let lab = Lab::new().await;
    lab.sign(&["a"]);
    let rule = "  policy:\n    type: rego\n    data: |\n      package sigstore\n      isCompliant {\n        \
                not to_number(input.authorityMatches.a.signatures[0].subject) > 5\n      }\n";
    let failing = policy("failing", "**", &[keyless("a", "")], rule);
    let (status, text) = lab.pull(None, std::slice::from_ref(&failing)).await;
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("sealgate cannot decide: the policy failing could not be evaluated"), "{text}");
    // What another policy denies is an answer.
    let denied = lab.pull(None, &[failing, all("closed", &[keyless("b", "")])]).await;
    assert_refused(&denied, "failed policy: closed");
}

/// A rule that fails is no bug of the mirror: `internal` would send people looking for one.
#[tokio::test]
async fn an_answer_that_a_rule_withholds_counts_as_the_rules() {
    let lab = Lab::new().await;
    lab.sign(&["dev"]);
    let rule = |module: &str| {
        let module = format!("package sigstore\n{module}\n");
        let rule = format!("  policy:\n    type: rego\n    data: {}\n", serde_json::Value::from(module));
        policy("a", "**", &[keyless("dev", "")], &rule)
    };
    for (module, status, decision) in [
        ("isCompliant { input.authorityMatches }", 200, "allow"),
        ("isCompliant { input.nothing }", 403, "deny"),
        (
            "isCompliant = true { input.authorityMatches }\nisCompliant = false { input.authorityMatches }",
            503,
            "undecided",
        ),
        ("isCompliant = 1", 503, "undecided"),
    ] {
        let mirror = lab.setup(None, &[rule(module)]).start().await;
        let (answered, text) = pull_from(&mirror).await;
        assert_eq!(answered, status, "{module}: {text}");
        let reason = if status == 200 { "verified" } else { "policy_rule" };
        let counted = |reason: &str| {
            mirror.metric(&format!("sealgate_verdicts_total{{decision=\"{decision}\",reason=\"{reason}\"}}"))
        };
        assert_eq!((counted(reason), counted("internal")), (Some(1.0), Some(0.0)), "{module}: {text}");
        mirror.stop().await;
    }
}
