//! The page `docs/reliability.md`: every pain that users of mirrors and verifiers have has a row there and tests that exist;
//! and the pains that no other file has a test for.

use std::time::Duration;

use sealgate::clock::{Clock, ManualClock};
use sealgate::testing::sigstore::{FakeSigstore, Flaw, key_requirement};
use sealgate::testing::{
    ACCEPT_ANYTHING, Auth, BuiltImage, FakeRegistry, Fault, ImageBuilder, TestSealgate, TokenAuth, attach_bundles,
    attach_signatures,
};
use serde_json::json;

use crate::catalogue::{tests_by_name, tests_in};

/// What users ask of verification, and what hurts them in mirrors, by number.
const PAINS: [(&str, u32); 2] = [("A", 25), ("B", 30)];

#[test]
fn every_pain_has_a_row_and_tests_that_exist() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reliability.md");
    let page = std::fs::read_to_string(path).unwrap();
    let wrong = wrong_rows(&page, &|name| tests_by_name().contains_key(name));
    assert!(wrong.is_empty(), "docs/reliability.md:\n{}", wrong.join("\n"));
}

#[test]
fn a_pain_without_a_row_a_row_without_a_test_and_a_dead_name_are_noticed() {
    let rows = |left_out: &str| {
        let pains =
            PAINS.iter().flat_map(|(group, last)| (1..=*last).map(move |number| format!("{group}-{number:02}")));
        let kept = pains.filter(|pain| pain != left_out);
        kept.map(|pain| format!("| {pain} | a | b | `the_test` |\n")).collect::<String>()
    };
    let exists = |name: &str| name == "the_test";
    assert_eq!(wrong_rows(&rows(""), &exists), Vec::<String>::new());
    assert_eq!(wrong_rows(&rows("B-07"), &exists), ["B-07 has no row"]);
    assert_eq!(wrong_rows(&rows("").replacen("`the_test`", "", 1), &exists), ["A-01 names no test"]);
    assert_eq!(wrong_rows(&rows("").replacen("the_test", "a_dead_name", 1), &exists), ["A-01: no test a_dead_name"]);
    assert_eq!(wrong_rows(&(rows("") + "| B-31 | a | b | `the_test` |\n"), &exists), ["B-31 is no pain that is known"]);
}

fn wrong_rows(page: &str, exists: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut rows: Vec<(&str, &str)> = page
        .lines()
        .filter(|line| line.starts_with("| A-") || line.starts_with("| B-"))
        .map(|line| (line.split('|').nth(1).unwrap().trim(), line))
        .collect();
    for pain in PAINS.iter().flat_map(|(group, last)| (1..=*last).map(move |number| format!("{group}-{number:02}"))) {
        let Some(place) = rows.iter().position(|(id, _)| *id == pain) else {
            wrong.push(format!("{pain} has no row"));
            continue;
        };
        let (_, row) = rows.remove(place);
        let row = row.rsplit('|').nth(1).unwrap();
        if tests_in(row).next().is_none() {
            wrong.push(format!("{pain} names no test"));
        }
        wrong.extend(tests_in(row).filter(|name| !exists(name)).map(|name| format!("{pain}: no test {name}")));
    }
    wrong.extend(rows.iter().map(|(id, _)| format!("{id} is no pain that is known")));
    wrong
}

/// A policy that wants a signature by this key under any name of the repository.
pub(crate) fn signed_by(sigstore: &FakeSigstore) -> String {
    let mut requirement = key_requirement(&sigstore.key("k"));
    requirement["signedIdentity"] = json!({"type": "matchRepository"});
    json!({"default": [requirement]}).to_string()
}

pub(crate) fn sign(registry: &FakeRegistry, sigstore: &FakeSigstore, tag: &str, image: &BuiltImage) {
    let reference = format!("registry.test/team/app:{tag}");
    let signature = sigstore.sign_unlogged(&sigstore.key("k"), &reference, &image.digest(), Flaw::None);
    attach_signatures(registry, "team/app", &image.digest(), &[signature]);
}

#[tokio::test]
async fn what_nobody_asks_for_is_never_fetched() {
    let registry = FakeRegistry::start().await;
    let sigstore = FakeSigstore::from_seed(1, Clock::System.now());
    let [amd, arm] = [("amd64", 1), ("arm64", 2)].map(|(architecture, seed)| {
        ImageBuilder::new(seed).platform("linux", architecture).layer(70_000).layer(10).build()
    });
    let index = ImageBuilder::index([amd.clone(), arm]).build();
    registry.put("team/app", "1", &index);
    sign(&registry, &sigstore, "1", &index);
    let mirror =
        TestSealgate::with_policy(&signed_by(&sigstore)).upstream("registry.test", registry.url()).start().await;

    assert_eq!(mirror.get("/v2/team/app/manifests/1").await.status, 200);
    let child = mirror.get(&format!("/v2/team/app/manifests/{}", amd.digest())).await;
    assert_eq!((child.status, &child.body), (200, &amd.manifest.bytes));
    let layer = &amd.blobs[1];
    for other in index.children.iter().flat_map(|child| &child.blobs) {
        assert_eq!(registry.count("*", &format!("*/blobs/{}", other.digest)), 0, "a manifest needs no layer");
    }
    assert_eq!(mirror.get(&format!("/v2/team/app/blobs/{}", layer.digest)).await.body, layer.bytes);
    mirror.stop().await;

    for child in &index.children {
        let asked = registry.count("GET", &format!("*/manifests/{}", child.digest()));
        assert_eq!(asked, usize::from(child.digest() == amd.digest()), "{}", child.digest());
        for blob in &child.blobs {
            let asked = registry.count("*", &format!("*/blobs/{}", blob.digest));
            assert_eq!(asked, usize::from(blob.digest == layer.digest), "{}", blob.digest);
        }
    }
}

#[tokio::test]
async fn a_limit_of_upstream_costs_nobody_what_is_cached() {
    let registry = FakeRegistry::start().await;
    let image = ImageBuilder::new(1).layer(100_000).build();
    registry.put("team/app", "1", &image);
    let clock = ManualClock::at(Clock::System.now());
    let mirror = TestSealgate::with_policy(ACCEPT_ANYTHING)
        .upstream("registry.test", registry.url())
        .clock(&clock)
        .start()
        .await;
    let blob = format!("/v2/team/app/blobs/{}", image.blobs[1].digest);
    assert_eq!(mirror.get("/v2/team/app/manifests/1").await.status, 200);
    assert_eq!(mirror.get(&blob).await.status, 200);

    registry.fault(Fault::on("*").status(429).header("retry-after", "3600"));
    clock.advance(Duration::from_hours(1));
    registry.forget_requests();
    for _ in 0..5 {
        let answer = mirror.get("/v2/team/app/manifests/1").await;
        assert_eq!((answer.status, &answer.body), (200, &image.manifest.bytes));
        assert!(answer.header("cache-status").unwrap().contains("detail=stale"), "{:?}", answer.headers);
        assert_eq!(mirror.get(&blob).await.body, image.blobs[1].bytes);
    }
    assert_eq!(registry.count("*", "*"), 1, "who says when to come back is left alone until then");
    mirror.stop().await;
}

#[tokio::test]
async fn the_credentials_of_an_upstream_reach_its_signatures_too() {
    let user = Some(("robot".to_owned(), "secret".to_owned()));
    for by_bundle in [false, true] {
        let auth = Auth::Token(TokenAuth { user: user.clone(), ..TokenAuth::default() });
        let registry = FakeRegistry::builder().auth(auth).start().await;
        let sigstore = FakeSigstore::from_seed(1, Clock::System.now());
        let image = ImageBuilder::new(1).layer(10).build();
        registry.put("team/app", "1", &image);
        if by_bundle {
            let bundle = sigstore.bundle_keyed(&sigstore.key("k"), &image.digest()).unlogged().build();
            attach_bundles(&registry, "team/app", &image.manifest, &[bundle]);
        } else {
            sign(&registry, &sigstore, "1", &image);
        }
        let mut status = Vec::new();
        for password in ["secret", "another"] {
            let mirror = TestSealgate::with_policy(&signed_by(&sigstore))
                .file("password", password)
                .toml("[[policy.override]]\nscope = \"registry.test\"\nbundles_without_identity = true\n")
                .upstream_with("registry.test", registry.url(), "username = \"robot\"\npassword_file = \"password\"")
                .start()
                .await;
            status.push(mirror.get("/v2/team/app/manifests/1").await.status);
            mirror.stop().await;
        }
        assert_eq!(status, [200, 403], "by_bundle: {by_bundle}");
    }
}
