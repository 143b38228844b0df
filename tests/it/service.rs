//! The whole mirror over TCP: every way to name an image, modes, key rotation, restarts without an upstream, drain.

use sealgate::clock::Clock;
use sealgate::testing::sigstore::{FakeSigstore, Flaw, key_requirement};
use sealgate::testing::{
    ACCEPT_ANYTHING, BuiltImage, FakeRegistry, Fault, ImageBuilder, TestSealgate, attach_signatures,
};
use serde_json::{Value, json};

/// A policy.json that wants these requirements for docker.io and rejects the rest.
fn policy(requirements: &[Value]) -> String {
    json!({"default": [{"type": "reject"}], "transports": {"docker": {"docker.io": requirements}}}).to_string()
}

fn sigstore() -> FakeSigstore {
    FakeSigstore::from_seed(11, Clock::System.now())
}

/// Puts `docker.io/acme/app:<tag>`, signed by the key of that name.
fn put_signed(registry: &FakeRegistry, sigstore: &FakeSigstore, key: &str, tag: &str, seed: u64) -> BuiltImage {
    let image = ImageBuilder::new(seed).layer(200_000).build();
    registry.put("acme/app", tag, &image);
    let key = sigstore.key(key);
    let signature = sigstore.sign_unlogged(&key, "docker.io/acme/app", &image.digest(), Flaw::None);
    attach_signatures(registry, "acme/app", &image.digest(), &[signature]);
    image
}

/// Pulls manifest and blobs; every byte must be there.
async fn pull(mirror: &TestSealgate, image: &BuiltImage, tag: &str) {
    let manifest = mirror.get(&format!("/v2/acme/app/manifests/{tag}")).await;
    assert_eq!((manifest.status, &manifest.body), (200, &image.manifest.bytes), "{}", manifest.text());
    for blob in &image.blobs {
        let answer = mirror.get(&format!("/v2/acme/app/blobs/{}", blob.digest)).await;
        assert!(answer.status == 200 && answer.complete && answer.body == blob.bytes, "{}", answer.status);
    }
}

#[tokio::test]
async fn every_way_to_name_an_image_leads_to_the_same_verdict() {
    let (registry, other) = (FakeRegistry::start().await, FakeRegistry::start().await);
    let sigstore = sigstore();
    let image = put_signed(&registry, &sigstore, "k1", "1", 1);
    let library = ImageBuilder::new(2).layer(1000).build();
    registry.put("library/alpine", "3", &library);
    let mirror = TestSealgate::with_policy(&policy(&[key_requirement(&sigstore.key("k1"))]))
        .upstream_with("docker.io", registry.url(), "aliases = [\"index.docker.io\"]")
        .upstream("quay.io", other.url())
        .start()
        .await;
    for path in [
        "/v2/acme/app/manifests/1",
        "/v2/acme/app/manifests/1?ns=docker.io",
        "/v2/docker.io/acme/app/manifests/1",
        "/v2/index.docker.io/acme/app/manifests/1?ns=docker.io",
    ] {
        let answer = mirror.get(path).await;
        assert_eq!((answer.status, &answer.body), (200, &image.manifest.bytes), "{path}: {}", answer.text());
        assert!(answer.header("sealgate-verdict").unwrap().starts_with("allow"), "{path}");
    }
    for path in ["/v2/alpine/manifests/3", "/v2/library/alpine/manifests/3", "/v2/docker.io/alpine/manifests/3"] {
        let answer = mirror.get(path).await;
        assert_eq!((answer.status, answer.error_code().as_str()), (403, "DENIED"), "{path}");
    }
    assert_eq!(mirror.get("/v2/quay.io/acme/app/manifests/1").await.status, 404, "another registry has it not");
    assert_eq!(mirror.get("/v2/ghcr.io/acme/app/manifests/1").await.status, 404, "that upstream is not configured");
    mirror.stop().await;
}

#[tokio::test]
async fn c_03_audit_mode_serves_what_policy_denies_and_records_it() {
    let registry = FakeRegistry::start().await;
    let image = ImageBuilder::new(1).layer(1000).build();
    registry.put("acme/app", "1", &image);
    let mirror = TestSealgate::with_policy(&policy(&[key_requirement(&sigstore().key("k1"))]))
        .set("policy.mode", "audit")
        .upstream("docker.io", registry.url())
        .start()
        .await;
    pull(&mirror, &image, "1").await;
    let answer = mirror.get("/v2/acme/app/manifests/1").await;
    assert!(answer.header("sealgate-verdict").unwrap().starts_with("audit-deny"), "{:?}", answer.headers);
    let recorded = mirror.metric("sealgate_verdicts_total{decision=\"audit_deny\",reason=\"no_signature\"}");
    assert!(recorded.is_some_and(|count| count >= 1.0), "{recorded:?}");
    mirror.stop().await;
}

#[tokio::test]
async fn c_06_a_rotated_key_counts_from_the_reload_on_although_verdicts_are_kept() {
    let (registry, sigstore) = (FakeRegistry::start().await, sigstore());
    put_signed(&registry, &sigstore, "k1", "old", 1);
    put_signed(&registry, &sigstore, "k2", "new", 2);
    let keys = |paths: &[&str]| {
        let requirement = json!({
            "type": "sigstoreSigned", "keyPaths": paths, "signedIdentity": {"type": "matchRepository"},
        });
        policy(&[requirement])
    };
    let mirror = TestSealgate::with_policy(&keys(&["k1.pub"]))
        .file("k1.pub", sigstore.key("k1").public_pem())
        .file("k2.pub", sigstore.key("k2").public_pem())
        .upstream("docker.io", registry.url())
        .start()
        .await;
    for (paths, old, new) in [
        (&["k1.pub"][..], 200, 403),
        (&["k1.pub", "k2.pub"], 200, 200),
        (&["k2.pub"], 403, 200),
        (&["k1.pub"], 200, 403),
    ] {
        mirror.write_policy(&keys(paths));
        mirror.reload().await.unwrap();
        for (tag, status) in [("old", old), ("new", new)] {
            let answer = mirror.get(&format!("/v2/acme/app/manifests/{tag}")).await;
            assert_eq!(answer.status, status, "{paths:?} {tag}: {}", answer.text());
        }
    }
    // The same name, another key in the file.
    mirror.write("k1.pub", sigstore.key("k2").public_pem());
    assert!(mirror.reload().await.unwrap().policy_changed);
    assert_eq!(mirror.get("/v2/acme/app/manifests/old").await.status, 403);
    mirror.stop().await;
}

#[tokio::test]
async fn c_05_a_policy_whose_key_is_missing_or_private_is_not_put_in_force_and_its_content_not_shown() {
    let (registry, sigstore) = (FakeRegistry::start().await, sigstore());
    let image = put_signed(&registry, &sigstore, "k1", "1", 1);
    let requirement =
        json!({"type": "sigstoreSigned", "keyPath": "k1.pub", "signedIdentity": {"type": "matchRepository"}});
    let mirror = TestSealgate::with_policy(&policy(&[requirement]))
        .file("k1.pub", sigstore.key("k1").public_pem())
        .upstream("docker.io", registry.url())
        .start()
        .await;
    std::fs::remove_file(mirror.dir().join("k1.pub")).unwrap();
    let error = mirror.reload().await.unwrap_err();
    assert!(error.contains("k1.pub") && error.contains("keyPath"), "{error}");
    mirror.write("k1.pub", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n");
    let error = mirror.reload().await.unwrap_err();
    assert!(error.contains("private key") && !error.contains("c2VjcmV0"), "{error}");
    pull(&mirror, &image, "1").await;
    mirror.stop().await;
}

#[tokio::test]
async fn after_a_restart_without_upstream_what_was_allowed_is_served_whole_and_what_was_refused_is_refused() {
    let (registry, sigstore) = (FakeRegistry::start().await, sigstore());
    let image = put_signed(&registry, &sigstore, "k1", "good", 1);
    put_signed(&registry, &sigstore, "k2", "bad", 2);
    let mut mirror = TestSealgate::with_policy(&policy(&[key_requirement(&sigstore.key("k1"))]))
        .upstream("docker.io", registry.url())
        .start()
        .await;
    pull(&mirror, &image, "good").await;
    assert_eq!(mirror.get("/v2/acme/app/manifests/bad").await.status, 403);
    registry.go_down();
    mirror.restart().await;
    pull(&mirror, &image, "good").await;
    let by_digest = mirror.get(&format!("/v2/acme/app/manifests/{}", image.digest())).await;
    assert_eq!((by_digest.status, &by_digest.body), (200, &image.manifest.bytes));
    // Its bytes were never kept, so it is not decided about again; refused or out of reach, it is not served.
    let bad = mirror.get("/v2/acme/app/manifests/bad").await;
    assert!(matches!(bad.status, 403 | 502), "{} {}", bad.status, bad.reason);
    assert_eq!(mirror.get("/v2/acme/app/manifests/never-seen").await.status, 502);
    mirror.stop().await;
}

#[tokio::test]
async fn a_running_transfer_is_finished_before_the_mirror_ends() {
    let registry = FakeRegistry::start().await;
    let image = ImageBuilder::new(1).layer(2 << 20).build();
    registry.put("acme/app", "1", &image);
    let mirror = TestSealgate::with_policy(ACCEPT_ANYTHING).upstream("docker.io", registry.url()).start().await;
    assert_eq!(mirror.get("/v2/acme/app/manifests/1").await.status, 200);
    let layer = image.blobs[1].clone();
    let slow = std::time::Duration::from_millis(20);
    registry.fault(Fault::on(&format!("*/blobs/{}", layer.digest)).drip(128 << 10, slow));
    let (address, target) = (mirror.address(), format!("/v2/acme/app/blobs/{}", layer.digest));
    let client = tokio::spawn(async move { sealgate::testing::http::send(address, "GET", &target, &[]).await });
    while registry.count("GET", &format!("*/blobs/{}", layer.digest)) == 0 {
        tokio::task::yield_now().await;
    }
    mirror.stop().await;
    let answer = client.await.unwrap();
    assert!(answer.status == 200 && answer.complete && answer.body == layer.bytes, "{}", answer.status);
}
