//! The policy as a whole: real keys, certificates and log entries of a Sigstore of our own.

mod fingerprint;

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::limits::{CANDIDATES_MAX, EXEMPTION_END_WARNED};
use crate::oci::Algorithm;
use crate::testing::sigstore::{FakeSignature, FakeSigstore, Flaw, Identity, key_requirement};
use crate::verify::SignatureMaterial;

const APP: &str = "quay.io/team/app";
const EMAIL: &str = "dev@example.com";
const ISSUER: &str = "https://issuer.example";

fn now() -> Timestamp {
    crate::clock::Clock::System.now()
}

fn sigstore() -> FakeSigstore {
    FakeSigstore::from_seed(7, now())
}

fn digest() -> Digest {
    Digest::sha256(b"manifest")
}

fn image(text: &str) -> ImageReference {
    text.parse().unwrap()
}

/// A policy with these requirements for the scope `quay.io`, and `reject` elsewhere.
fn document(requirements: &Value) -> Value {
    json!({"default": [{"type": "reject"}], "transports": {"docker": {"quay.io": requirements}}})
}

fn containers_policy(document: &Value) -> ContainersPolicy {
    let parsed = ContainersPolicyDocument::parse(document.to_string().as_bytes()).unwrap();
    ContainersPolicy::resolve(parsed, &mut |path| Err(format!("{path} must not be read"))).unwrap()
}

fn settings(document: &Value) -> Settings {
    Settings { containers_policy: Some(containers_policy(document)), ..Settings::default() }
}

fn policy(requirements: &Value) -> PolicySet {
    PolicySet::new(settings(&document(requirements))).unwrap()
}

fn material(signatures: &[FakeSignature]) -> Material {
    Material { candidates: signatures.iter().map(FakeSignature::material).collect(), ..Material::default() }
}

fn decide(policy: &PolicySet, name: &str, signatures: &[FakeSignature]) -> Verdict {
    policy.evaluate(&image(name), &digest(), &material(signatures), now()).unwrap()
}

fn keyed(name: &str, reference: &str, flaw: Flaw) -> FakeSignature {
    let sigstore = sigstore();
    sigstore.sign_unlogged(&sigstore.key(name), reference, &digest(), flaw)
}

fn requirement(name: &str) -> Value {
    key_requirement(&sigstore().key(name))
}

fn answer(verdict: &Verdict) -> (Decision, Reason, &str) {
    (verdict.decision, verdict.reason, verdict.text.as_str())
}

fn signatures_needed() -> Plan {
    let kinds = [MaterialKind::Signatures, MaterialKind::Bundles].into();
    Plan::NeedsMaterial(Wanted { kinds, ..Wanted::default() })
}

#[test]
fn c_02_where_no_scope_matches_the_default_decides() {
    let policy = policy(&json!([{"type": "insecureAcceptAnything"}]));
    let verdict = decide(&policy, "ghcr.io/other:1", &[]);
    let text = "Running image docker://ghcr.io/other:1 is rejected by policy.";
    assert_eq!(answer(&verdict), (Decision::Deny, Reason::Rejected, text));
    assert_eq!(verdict.evidence.0["scope"], Value::Null);
    assert_eq!(verdict.evidence.0["json_path"], "default");
    let verdict = decide(&policy, "quay.io/team/app:1", &[]);
    assert_eq!((verdict.decision, verdict.reason), (Decision::Allow, Reason::AcceptAnything));
}

#[test]
fn c_02_without_any_policy_there_is_no_set() {
    let settings = Settings { containers_policy: None, ..settings(&document(&json!([{"type": "reject"}]))) };
    assert_eq!(PolicySet::new(settings).unwrap_err(), PolicyError::NotConfigured);
}

#[test]
fn requirements_that_need_no_signature_need_no_material() {
    let anything = json!({"type": "insecureAcceptAnything"});
    let reject = json!({"type": "reject"});
    let signed = requirement("k");
    for (requirements, plan) in [
        (json!([anything]), Plan::WithoutMaterial),
        (json!([reject]), Plan::WithoutMaterial),
        (json!([anything, signed]), signatures_needed()),
        (json!([signed, reject]), signatures_needed()),
        (json!([reject, signed]), Plan::WithoutMaterial),
    ] {
        assert_eq!(policy(&requirements).plan(&image("quay.io/a:1")), plan, "{requirements}");
    }
    let sha512 = format!("quay.io/a@{}", Digest::of(Algorithm::Sha512, b"manifest"));
    assert_eq!(policy(&json!([signed])).plan(&image(&sha512)), Plan::WithoutMaterial);
}

#[test]
fn one_good_signature_among_bad_ones_is_enough_in_any_order() {
    let policy = policy(&json!([requirement("k")]));
    let good = keyed("k", APP, Flaw::None);
    let bad = [
        keyed("other", APP, Flaw::None),
        keyed("k", "quay.io/other/app", Flaw::None),
        keyed("k", APP, Flaw::OtherDigest),
    ];
    for place in 0..=bad.len() {
        let mut signatures = bad.to_vec();
        signatures.insert(place, good.clone());
        let verdict = decide(&policy, "quay.io/team/app:1", &signatures);
        assert_eq!((verdict.decision, verdict.reason), (Decision::Allow, Reason::Verified), "{place}");
        assert_eq!(verdict.text, format!("signed by the key {}", sigstore().key("k").fingerprint()));
        let outcomes: Vec<&str> = verdict.evidence.0["requirements"][0]["candidates"]
            .as_array()
            .unwrap()
            .iter()
            .map(|candidate| candidate["outcome"].as_str().unwrap())
            .collect();
        let expected: Vec<&str> = (0..=bad.len())
            .map(|at| match at.cmp(&place) {
                std::cmp::Ordering::Less => "rejected",
                std::cmp::Ordering::Equal => "accepted",
                std::cmp::Ordering::Greater => "not examined: an earlier one is enough",
            })
            .collect();
        assert_eq!(outcomes, expected);
    }
}

#[test]
fn all_requirements_must_be_satisfied_and_the_first_denial_speaks() {
    let both = policy(&json!([{"type": "insecureAcceptAnything"}, requirement("a"), requirement("b")]));
    let (a, b) = (keyed("a", APP, Flaw::None), keyed("b", APP, Flaw::None));
    let verdict = decide(&both, "quay.io/team/app:1", &[a.clone(), b.clone()]);
    assert_eq!((verdict.decision, verdict.reason), (Decision::Allow, Reason::Verified));
    assert!(verdict.text.contains("; "), "{}", verdict.text);
    let verdict = decide(&both, "quay.io/team/app:1", &[b]);
    assert_eq!((verdict.decision, verdict.reason), (Decision::Deny, Reason::BadSignature));
    let outcome = |index: usize| verdict.evidence.0["requirements"][index]["outcome"].clone();
    assert_eq!((outcome(0), outcome(1)), (json!("satisfied"), json!("denied")));
    assert_eq!(outcome(2), "not evaluated: an earlier requirement is not satisfied");
    let rejected = policy(&json!([requirement("a"), {"type": "reject"}]));
    assert_eq!(decide(&rejected, "quay.io/team/app:1", &[a]).reason, Reason::Rejected);
}

#[test]
fn without_signatures_the_text_is_the_one_that_users_know() {
    let policy = policy(&json!([requirement("k")]));
    let decide =
        |material: &Material| policy.evaluate(&image("quay.io/team/app:1"), &digest(), material, now()).unwrap();
    let none = Material::default();
    let text = "A signature was required, but no signature exists";
    assert_eq!(answer(&decide(&none)), (Decision::Deny, Reason::NoSignature, text));
    let others = Material { other_attachments: 1, ..Material::default() };
    let counted = format!("{text} (0 non-sigstore signatures, 1 sigstore non-signature attachments)");
    assert_eq!(answer(&decide(&others)), (Decision::Deny, Reason::NoSignature, counted.as_str()));
    let skipped = Skipped { place: "sha256-00.sig layer 3".to_owned(), why: "too large\n".to_owned() };
    let unread = Material { skipped: vec![skipped], ..Material::default() };
    let told = format!(r"{text} (1 candidate could not be read: sha256-00.sig layer 3: too large\n)");
    assert_eq!(answer(&decide(&unread)), (Decision::Deny, Reason::NoSignature, told.as_str()));
    assert_eq!(decide(&unread).evidence.0["skipped"][0]["why"], r"too large\n");
}

#[test]
fn a_signature_for_another_reference_is_named_after_it_proved_good() {
    let policy = policy(&json!([requirement("k")]));
    let verdict = decide(&policy, "quay.io/team/app:1", &[keyed("k", "quay.io/team/other", Flaw::None)]);
    let text = r#"Signature for identity "quay.io/team/other" is not accepted"#;
    assert_eq!(answer(&verdict), (Decision::Deny, Reason::IdentityMismatch, text));
    // The same claim by somebody whom the requirement does not know is no claim at all.
    let verdict = decide(&policy, "quay.io/team/app:1", &[keyed("other", "quay.io/team/other", Flaw::None)]);
    assert_eq!(verdict.reason, Reason::BadSignature);
}

/// Bundles name no reference either, and that may be allowed; this is another thing.
#[test]
fn a_signature_whose_reference_cannot_be_read_is_for_no_image() {
    let signatures = ["quay.io/Team/App", "quay.io/team/app:1 ", ""].map(|reference| keyed("k", reference, Flaw::None));
    for identity in [
        json!({"type": "matchExact"}),
        json!({"type": "matchRepoDigestOrExact"}),
        json!({"type": "matchRepository"}),
        json!({"type": "exactReference", "dockerReference": "quay.io/team/app:1"}),
        json!({"type": "exactRepository", "dockerRepository": APP}),
        json!({"type": "remapIdentity", "prefix": "quay.io", "signedPrefix": "other.example"}),
    ] {
        let mut asked = requirement("k");
        asked["signedIdentity"] = identity.clone();
        let over = Override {
            bundles_without_identity: Some(BundlesWithoutIdentity::DigestIsEnough),
            ..Override::of("quay.io".parse().unwrap())
        };
        let settings = Settings { overrides: vec![over], ..settings(&document(&json!([asked]))) };
        let policy = PolicySet::new(settings).unwrap();
        for signature in &signatures {
            let verdict = decide(&policy, "quay.io/team/app:1", std::slice::from_ref(signature));
            assert_eq!((verdict.decision, verdict.reason), (Decision::Deny, Reason::IdentityMismatch), "{identity}");
            assert!(verdict.text.contains("is not accepted"), "{}", verdict.text);
        }
    }
}

#[test]
fn the_identity_of_the_requirement_decides_about_tags() {
    let exact = policy(&json!([{
        "type": "sigstoreSigned", "keyData": requirement("k")["keyData"], "signedIdentity": {"type": "matchExact"},
    }]));
    let signature = [keyed("k", "quay.io/team/app:1", Flaw::None)];
    assert_eq!(decide(&exact, "quay.io/team/app:1", &signature).decision, Decision::Allow);
    assert_eq!(decide(&exact, "quay.io/team/app:2", &signature).decision, Decision::Deny);
    let by_digest = format!("quay.io/team/app@{}", digest());
    assert_eq!(decide(&exact, &by_digest, &signature).decision, Decision::Deny);
}

#[test]
fn several_rejections_are_joined_and_the_closest_is_counted() {
    let policy = policy(&json!([requirement("k")]));
    let signatures = [keyed("k", "quay.io/x", Flaw::None), keyed("k", APP, Flaw::OtherDigest)];
    let verdict = decide(&policy, "quay.io/team/app:1", &signatures);
    assert!(verdict.text.starts_with("None of the signatures were accepted, reasons: Signature for identity"));
    assert!(verdict.text.contains("; Signature for digest sha256:"), "{}", verdict.text);
    assert_eq!(verdict.reason, Reason::IdentityMismatch);
}

#[test]
fn keyless_signatures_are_judged_by_address_issuer_and_log() {
    let sigstore = sigstore();
    let policy = policy(&json!([sigstore.fulcio_requirement(EMAIL, ISSUER)]));
    let sign = |email: &str, flaw| sigstore.sign_keyless(APP, &digest(), email, ISSUER, flaw);
    let verdict = decide(&policy, "quay.io/team/app:1", &[sign(EMAIL, Flaw::None)]);
    assert_eq!(
        answer(&verdict),
        (Decision::Allow, Reason::Verified, "signed by dev@example.com (https://issuer.example)")
    );
    assert_eq!((verdict.rests_on, verdict.not_after), (RestsOn::Certificates, None));
    let candidate = &verdict.evidence.0["requirements"][0]["candidates"][0];
    assert_eq!(candidate["signer"], json!({"issuer": ISSUER, "subjects": [EMAIL]}));
    assert!(candidate["log"]["index"].is_u64() && candidate["notes"].is_array(), "{candidate}");

    let verdict = decide(&policy, "quay.io/team/app:1", &[sign("eve@example.com", Flaw::None)]);
    let text = r#"Required email "dev@example.com" not found (got ["eve@example.com"])"#;
    assert_eq!(answer(&verdict), (Decision::Deny, Reason::IdentityMismatch, text));
    assert_eq!(verdict.rests_on, RestsOn::Certificates);
    let verdict = decide(&policy, "quay.io/team/app:1", &[sign(EMAIL, Flaw::NoLogEntry)]);
    assert_eq!(verdict.reason, Reason::NoLogEntry);
    let verdict = decide(&policy, "quay.io/team/app:1", &[sign(EMAIL, Flaw::IntegratedAfterCertificate)]);
    assert_eq!(verdict.reason, Reason::Expired);
    assert_eq!(decide(&policy, "quay.io/team/app:1", &[]).rests_on, RestsOn::Timeless, "no certificate was judged");
}

#[test]
fn an_allow_ends_with_the_first_certificate_that_was_checked_now() {
    let sigstore = sigstore();
    let identity = Identity { emails: vec![EMAIL.to_owned()], ..Identity::default() };
    let until = |hours: u64| {
        let hours = std::time::Duration::from_hours(hours);
        let validity = (now().minus(std::time::Duration::from_hours(1)), now().plus(hours));
        sigstore.sign_pki_for(APP, &digest(), &identity, validity, Flaw::None)
    };
    let policy = policy(&json!([requirement("k"), sigstore.pki_requirement(EMAIL)]));
    let verdict = decide(&policy, "quay.io/team/app:1", &[keyed("k", APP, Flaw::None), until(2), until(9)]);
    assert_eq!(verdict.decision, Decision::Allow, "{}", verdict.text);
    let left = verdict.not_after.unwrap().since(now());
    assert!(left <= std::time::Duration::from_hours(2), "{left:?}");
    assert_eq!(verdict.rests_on, RestsOn::Certificates);
}

#[test]
fn a_sha512_digest_is_denied_by_a_signature_requirement_and_served_where_anything_is() {
    let sha512 = Digest::of(Algorithm::Sha512, b"manifest");
    let by_digest = image(&format!("quay.io/team/app@{sha512}"));
    let signed = policy(&json!([requirement("k")]));
    let verdict = signed.evaluate(&by_digest, &sha512, &material(&[keyed("k", APP, Flaw::None)]), now()).unwrap();
    assert_eq!((verdict.decision, verdict.reason), (Decision::Deny, Reason::UnsupportedDigest));
    assert!(verdict.text.starts_with("signatures bind sha256 digests"), "{}", verdict.text);
    let open = policy(&json!([{"type": "insecureAcceptAnything"}]));
    assert_eq!(open.evaluate(&by_digest, &sha512, &Material::default(), now()).unwrap().decision, Decision::Allow);
}

#[test]
fn more_candidates_than_are_examined_are_a_reason_of_their_own() {
    let policy = policy(&json!([requirement("k")]));
    let decide = |candidates: Vec<SignatureMaterial>, more: bool| {
        let material = Material { candidates, more, ..Material::default() };
        policy.evaluate(&image("quay.io/team/app:1"), &digest(), &material, now()).unwrap()
    };
    let bad = keyed("k", APP, Flaw::OtherDigest).material();
    let good = keyed("k", APP, Flaw::None).material();
    let full = vec![bad.clone(); CANDIDATES_MAX];
    assert_eq!(decide(full.clone(), false).reason, Reason::BadSignature);
    let verdict = decide(full.clone(), true);
    assert_eq!((verdict.decision, verdict.reason), (Decision::Deny, Reason::TooManySignatures));
    assert!(verdict.text.starts_with("too many signatures"), "{}", verdict.text);
    let mut last = full.clone();
    last[CANDIDATES_MAX - 1] = good.clone();
    assert_eq!(decide(last, true).decision, Decision::Allow, "a good one found allows");
    let mut beyond = full;
    beyond.push(good);
    assert_eq!(decide(beyond, false).reason, Reason::TooManySignatures, "one past the bound is not looked at");
}

#[test]
fn what_is_not_supported_denies_and_says_so() {
    // A signature of cosign is none to a requirement for OpenPGP signatures.
    let signed_by = json!({"type": "signedBy", "keyType": "signedByX509CAs", "keyData": "YWJj"});
    let verdict = decide(&policy(&json!([signed_by])), "quay.io/team/app:1", &[keyed("k", APP, Flaw::None)]);
    let text = "A signature was required, but no signature exists (registries_d names no lookaside for it)";
    assert_eq!(answer(&verdict), (Decision::Deny, Reason::NoSignature, text));
    let base_layer = json!({"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchExact"}});
    let verdict = decide(&policy(&json!([base_layer])), "quay.io/team/app:1", &[]);
    assert_eq!(answer(&verdict), (Decision::Deny, Reason::NotSupported, "signedBaseLayer not implemented yet!"));
}

#[test]
fn a_verdict_s_text_is_one_short_line_of_ascii() {
    let policy = policy(&json!([requirement("k")]));
    let mut odd = keyed("k", APP, Flaw::None);
    odd.payload = br#"{"critical":{"type":"\u202e\n"},"x\u0000y":1}"#.to_vec();
    let many: Vec<FakeSignature> = std::iter::repeat_n(odd, 40).collect();
    let verdict = decide(&policy, "quay.io/team/app:1", &many);
    assert!(verdict.text.len() <= crate::limits::REFUSAL_LINE_BYTES_MAX);
    assert!(verdict.text.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{:?}", verdict.text);
}

#[test]
fn only_a_scope_of_policy_json_names_a_digest() {
    let named = format!("quay.io/team/app@{}", digest());
    let mut document = document(&json!([{"type": "reject"}]));
    document["transports"]["docker"][&named] = json!([{"type": "insecureAcceptAnything"}]);
    let policy = PolicySet::new(settings(&document)).unwrap();
    assert!(policy.has_digest_scope(&image(&named)));
    assert!(!policy.has_digest_scope(&image(&format!("quay.io/team/other@{}", digest()))));
    assert!(!policy.has_digest_scope(&image("quay.io/team/app:1")));
}

#[test]
fn an_explanation_names_scope_requirements_and_overrides() {
    let over = Override { mode: Some(Mode::Audit), ..Override::of("quay.io/team".parse().unwrap()) };
    let requirements = document(&json!([sigstore().fulcio_requirement(EMAIL, ISSUER)]));
    let policy = PolicySet::new(Settings { overrides: vec![over], ..settings(&requirements) }).unwrap();
    let app = image("quay.io/team/app:1");
    let explained = policy.explain(&app, now());
    let scope = explained.containers_policy.as_ref().unwrap();
    assert_eq!((scope.scope, scope.json_path), (Some("quay.io"), r#"transports.docker["quay.io"]"#));
    assert_eq!((explained.mode, explained.plan.clone()), (Mode::Audit, signatures_needed()));
    assert_eq!(
        scope.requirements,
        [Requires {
            json_path: r#"transports.docker["quay.io"][0]"#.to_owned(),
            kind: "sigstoreSigned",
            means: "a keyless cosign signature by dev@example.com, authenticated by https://issuer.example, logged in Rekor, \
                    signed for the repository that is pulled (matchRepository) (sigstoreSigned)"
                .to_owned(),
        }]
    );
    assert_eq!(policy.explain(&image("ghcr.io/a:1"), now()).containers_policy.unwrap().scope, None);
}

#[test]
fn size_and_binding_of_bundles_are_overridden_key_by_key() {
    let base = settings(&document(&json!([{"type": "reject"}])));
    let wide = Override { max_image_bytes: Some(100), ..Override::of("quay.io".parse().unwrap()) };
    let unbounded = Override { max_image_bytes: Some(0), ..Override::of("quay.io/big".parse().unwrap()) };
    let bundles = Override {
        bundles_without_identity: Some(BundlesWithoutIdentity::DigestIsEnough),
        ..Override::of("quay.io/team".parse().unwrap())
    };
    let policy = PolicySet::new(Settings { overrides: vec![wide, unbounded, bundles], ..base }).unwrap();
    let size = |name| policy.max_image_bytes(&image(name), &digest());
    assert_eq!([size("quay.io/team:1"), size("quay.io/big:1"), size("ghcr.io/a:1")], [Some(100), None, None]);
    let bundles = |name| policy.bundles_without_identity(&image(name), &digest());
    assert_eq!(bundles("quay.io/team:1"), BundlesWithoutIdentity::DigestIsEnough);
    assert_eq!(bundles("quay.io/other:1"), BundlesWithoutIdentity::Refused);
}

#[test]
fn incomplete_exemptions_and_doubled_overrides_are_refused() {
    let document = document(&json!([{"type": "reject"}]));
    let over = Override { mode: Some(Mode::Audit), ..Override::of("quay.io".parse().unwrap()) };
    let twice = Settings { overrides: vec![over.clone(), over], ..settings(&document) };
    assert!(matches!(PolicySet::new(twice), Err(PolicyError::OverrideTwice { index: 1, .. })));
    for (reason, owner, missing) in [(" ", "o", "reason"), ("r", "", "owner")] {
        let (reason, owner) = (reason.to_owned(), owner.to_owned());
        let exemption = Exemption { scope: "quay.io".parse().unwrap(), reason, owner, expires: now() };
        let settings = Settings { exemptions: vec![exemption], ..settings(&document) };
        let expected = PolicyError::ExemptionIncomplete { index: 0, key: missing };
        assert_eq!(PolicySet::new(settings).unwrap_err(), expected);
    }
}

#[test]
fn lint_finds_expired_exemptions_and_doubtful_scopes_outside_policy_json() {
    let exemption = Exemption {
        scope: "docker.io/alpine".parse().unwrap(),
        reason: "r".to_owned(),
        owner: "o".to_owned(),
        expires: now(),
    };
    let base = settings(&document(&json!([{"type": "reject"}])));
    let policy = PolicySet::new(Settings { exemptions: vec![exemption], ..base }).unwrap();
    let places: Vec<String> = policy.lint(now()).into_iter().map(|finding| finding.json_path).collect();
    assert_eq!(places, ["policy.exemption[0].scope", "policy.exemption[0].expires"]);
}

#[test]
fn an_exemption_is_warned_about_from_two_weeks_before_its_end() {
    let now = now();
    let until = |expires| {
        let scope = "quay.io/legacy".parse().unwrap();
        let exemption = Exemption { scope, reason: "r".to_owned(), owner: "platform".to_owned(), expires };
        let base = settings(&document(&json!([{"type": "reject"}])));
        let policy = PolicySet::new(Settings { exemptions: vec![exemption], ..base }).unwrap();
        policy.lapsed(now).into_iter().map(|finding| finding.to_string()).collect::<Vec<_>>()
    };
    let (end, second) = (now.plus(EXEMPTION_END_WARNED), Duration::from_secs(1));
    assert_eq!(until(end.plus(second)), Vec::<String>::new());
    for (expires, says) in [(end, "expires on"), (now.plus(second), "expires on"), (now, "expired on")] {
        let [warning] = until(expires).try_into().unwrap();
        assert!(
            warning
                .starts_with(&format!("policy.exemption[0].expires: the exemption of quay.io/legacy {says} {expires}"))
        );
        assert!(warning.contains("platform"), "{warning}");
    }
}

#[test]
fn audited_scopes_name_what_is_only_recorded() {
    let document = document(&json!([{"type": "reject"}]));
    let over = |scope: &str, mode| Override { mode, ..Override::of(scope.parse().unwrap()) };
    let mut given = settings(&document);
    given.overrides =
        vec![over("docker.io", Some(Mode::Audit)), over("quay.io", Some(Mode::Enforce)), over("ghcr.io", None)];
    assert_eq!(PolicySet::new(given).unwrap().audited_scopes(), ["docker.io"]);
    let mut given = settings(&document);
    given.mode = Mode::Audit;
    assert_eq!(PolicySet::new(given).unwrap().audited_scopes(), ["*"]);
}
