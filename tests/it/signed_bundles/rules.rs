//! Rules over a whole policy, which may ask that something is not there.

use sealgate::limits::SIGNATURE_BYTES_MAX;
use sealgate::testing::sigstore::Flaw;
use sealgate::testing::{BuiltImage, attach_attestations, attach_signatures};
use serde_json::json;

use super::named::{Scene, by_key, keyless, sigstores};
use super::{REPOSITORY, VULNERABILITIES, signer};

const RULE: &str = "package sigstore\ndefault isCompliant = false\nisCompliant {\n  input.authorityMatches.team\n  \
                    not input.authorityMatches.findings\n}\n";

/// What was found in a scan too long to be read must not count as nothing found.
#[tokio::test]
async fn a_rule_does_not_decide_where_an_attestation_is_too_long_to_be_read() {
    let (ours, _) = sigstores();
    let key = ours.key("team");
    let mut findings = json!({"name": "findings", "keyless": keyless(&json!({}))});
    findings["attestations"] = json!([{"name": "scan", "predicateType": VULNERABILITIES}]);
    let spec = json!({
        "images": [{"glob": "**"}], "authorities": [by_key(&key, &json!({})), findings],
        "policy": {"type": "rego", "data": RULE},
    });
    let policy = json!({
        "apiVersion": "policy.sigstore.dev/v1beta1", "kind": "ClusterImagePolicy", "metadata": {"name": "clean"}, "spec": spec,
    });
    let scene = Scene::new(ours.trusted_root_json(), &[policy]).await;
    let signed = |seed| {
        let image = scene.image(seed);
        let signature = ours.sign_unlogged(&key, "registry.test/team/app", &image.digest(), Flaw::None);
        attach_signatures(&scene.registry, REPOSITORY, &image.digest(), &[signature]);
        image
    };
    let scan = |image: &BuiltImage, bytes: usize| {
        let predicate = json!({"found": "x".repeat(bytes)});
        let scan = ours.bundle_by(&signer(), &image.digest()).predicate(VULNERABILITIES, predicate).build_attestation();
        attach_attestations(&scene.registry, REPOSITORY, &image.digest(), &[scan]);
    };
    let [clean, found, unread] = [1, 2, 3].map(signed);
    scan(&found, 10);
    scan(&unread, usize::try_from(SIGNATURE_BYTES_MAX).unwrap());
    scene.is_served(&clean).await;
    scene.is_denied(&found, "policy_rule").await;
    let answer = scene.pull(&unread).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.text().contains("must see them all"), "{}", answer.text());
    scene.stop().await;
}
