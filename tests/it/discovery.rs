//! Bundles and attestations on their way through the gate: found, kept, found again offline, and served to those who verify
//! behind us. What discovery does at each place and for each fault is tested beside its code.

use std::time::Duration;

use sealgate::policy::{Decision, Reason};
use sealgate::pull::PullError;
use sealgate::testing::{Fault, Referrers};

use crate::lab::{Image, Lab, Policy, denied_for, is_undecided};

const HOUR: Duration = Duration::from_secs(3600);

async fn lab_with_image() -> (Lab, Image) {
    let lab = Lab::new(Policy::Bundles).await;
    let image = lab.image("1");
    lab.tag("1", &image);
    (lab, image)
}

#[tokio::test]
async fn an_image_signed_by_a_bundle_alone_is_admitted() {
    for referrers in [Referrers::Api, Referrers::FallbackTag] {
        let (lab, image) = lab_with_image().await;
        lab.registry.set_referrers(referrers);
        let referrer = lab.sign_by_bundle(&image);
        assert_eq!(lab.pull("1").await.unwrap().bytes(), &image.bytes);
        let verdict = lab.verdicts().await.remove(0);
        assert_eq!((verdict.decision, verdict.reason), (Decision::Allow, Reason::Verified));
        assert_eq!((verdict.material.as_slice(), verdict.material_complete), (&[referrer][..], true));
    }
}

#[tokio::test]
async fn a_bundle_by_another_key_admits_nothing() {
    let (lab, image) = lab_with_image().await;
    lab.sign_by_bundle_with_another_key(&image);
    assert_eq!(denied_for(lab.pull("1").await), Reason::WrongKey);
}

#[tokio::test]
async fn a_cold_verdict_asks_each_place_once_and_a_warm_one_none() {
    let (lab, image) = lab_with_image().await;
    let referrer = lab.sign_by_bundle(&image);
    lab.pull("1").await.unwrap();
    for (path, requests) in [(".sig", 1), (".att", 0), ("/referrers/", 1), ("/manifests/sha256-", 1), ("/blobs/", 1)] {
        assert_eq!(lab.asked("GET", path), requests, "{path}");
    }
    assert_eq!(lab.asked("GET", &format!("/manifests/{referrer}")), 1);
    let asked = lab.requests();
    lab.pull("1").await.unwrap();
    lab.pull_digest(&image.digest).await.unwrap();
    assert_eq!(lab.requests(), asked);
}

#[tokio::test]
async fn t16_an_error_among_the_referrers_is_undecided_unless_another_place_allows() {
    for status in [401, 403, 429, 500, 502, 503] {
        let (lab, image) = lab_with_image().await;
        lab.sign_by_bundle(&image);
        lab.fail("/referrers/", status);
        assert!(is_undecided(&lab.pull("1").await), "{status}");
        assert!(lab.verdicts().await.is_empty(), "{status}");
        let lab = lab.heal().with_another_puller();
        lab.pull("1").await.unwrap();

        let (lab, image) = lab_with_image().await;
        lab.sign(&image.digest);
        lab.fail("/referrers/", status);
        // A limit holds for the whole registry, and which request meets it first is chance.
        if status != 429 {
            lab.pull("1").await.unwrap();
        }
    }
}

#[tokio::test]
async fn v_18_a_thousand_spam_referrers_do_not_hide_one_good_bundle() {
    for artifact_type in ["application/spdx+json", "application/vnd.oci.empty.v1+json"] {
        for referrers in [Referrers::Api, Referrers::FallbackTag] {
            let (lab, image) = lab_with_image().await;
            lab.registry.set_referrers(referrers);
            lab.spam(&image, artifact_type, 1000);
            lab.sign_by_bundle(&image);
            lab.pull("1").await.unwrap();
        }
    }
}

#[tokio::test]
async fn v_18_too_many_bundles_and_none_good_are_denied_for_that() {
    let (lab, image) = lab_with_image().await;
    lab.spam(&image, "application/vnd.dev.sigstore.bundle.v0.3+json", 129);
    assert_eq!(denied_for(lab.pull("1").await), Reason::TooManySignatures);
}

#[tokio::test]
async fn an_allow_by_a_bundle_that_ends_while_upstream_is_away_is_verified_again_offline() {
    let (lab, image) = lab_with_image().await;
    lab.sign_by_bundle(&image);
    lab.pull("1").await.unwrap();
    let lab = lab.stop_upstream();
    for round in 1..3 {
        lab.clock.advance(25 * HOUR);
        lab.pull_digest(&image.digest).await.unwrap();
        assert!(!lab.verdicts().await[0].material_complete, "round {round}: perhaps there is more by now");
    }
    let lab = lab.restart().await;
    lab.clock.advance(25 * HOUR);
    lab.pull_digest(&image.digest).await.unwrap();
}

#[tokio::test]
async fn a_withdrawn_bundle_stays_withdrawn_when_upstream_is_away() {
    for referrers in [Referrers::Api, Referrers::FallbackTag] {
        for replaced in [false, true] {
            let (lab, image) = lab_with_image().await;
            lab.registry.set_referrers(referrers);
            let referrer = lab.sign_by_bundle(&image);
            lab.pull("1").await.unwrap();
            lab.remove(&referrer);
            if replaced {
                lab.sign_by_bundle_with_another_key(&image);
            }
            lab.clock.advance(25 * HOUR);
            denied_for(lab.pull("1").await);
            lab.clock.advance(Duration::from_secs(61));
            let lab = lab.stop_upstream();
            assert!(is_undecided(&lab.pull_digest(&image.digest).await), "{referrers:?} {replaced}");
            assert!(is_undecided(&lab.restart().await.pull_digest(&image.digest).await), "{referrers:?} {replaced}");
        }
    }
}

#[tokio::test]
async fn v_32_a_bundle_that_comes_after_a_denial_counts_when_the_denial_ends() {
    let (lab, image) = lab_with_image().await;
    denied_for(lab.pull("1").await);
    lab.sign_by_bundle(&image);
    lab.clock.advance(Duration::from_secs(61));
    lab.pull("1").await.unwrap();
}

#[tokio::test]
async fn v_27_those_who_verify_behind_us_get_bundles_and_attestations() {
    let (lab, image) = lab_with_image().await;
    let referrer = lab.sign_by_bundle(&image);
    lab.attest(&image);
    lab.pull("1").await.unwrap();
    let bundle_type = "application/vnd.dev.sigstore.bundle.v0.3+json";
    let listed = lab.referrers(&image.digest, Some(bundle_type)).await.unwrap();
    assert_eq!(listed["manifests"][0]["digest"], referrer.to_string());
    let attestations = format!("sha256-{}.att", image.digest.hex());
    for manifest in [lab.pull_digest(&referrer).await.unwrap(), lab.pull(&attestations).await.unwrap()] {
        let document: serde_json::Value = serde_json::from_slice(manifest.bytes()).unwrap();
        for blob in document["layers"].as_array().unwrap().iter().chain([&document["config"]]) {
            let digest = blob["digest"].as_str().unwrap().parse().unwrap();
            lab.blob(&digest).await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_was_found_for_one_policy_does_not_stand_for_what_another_wants() {
    let lab = Lab::new(Policy::AcceptAnything).await;
    let image = lab.image("1");
    lab.tag("1", &image);
    lab.sign_by_bundle(&image);
    lab.pull("1").await.unwrap();
    assert_eq!(lab.asked("GET", "/referrers/") + lab.asked("GET", ".sig"), 0);
    lab.reload(Policy::Bundles);
    lab.pull("1").await.unwrap();
    assert_eq!(lab.asked("GET", "/referrers/"), 1);
}

#[tokio::test]
async fn a_referrer_whose_bytes_are_wrong_denies_nothing_and_a_good_one_beside_it_counts() {
    let (lab, image) = lab_with_image().await;
    let bad = lab.sign_by_bundle_with_another_key(&image);
    lab.registry.fault(Fault::on(&format!("*/manifests/{bad}")).wrong_bytes());
    assert!(is_undecided(&lab.pull("1").await));
    lab.sign_by_bundle(&image);
    lab.pull("1").await.unwrap();
    assert!(
        !matches!(lab.pull_digest(&bad).await, Err(PullError::Denied(_))),
        "what upstream sends wrong is not decided"
    );
}

#[tokio::test]
async fn attestations_admit_and_are_found_again_while_upstream_is_away() {
    let lab = Lab::new(Policy::Attested).await;
    let image = lab.image("1");
    lab.tag("1", &image);
    denied_for(lab.pull("1").await);
    lab.attest(&image);
    lab.clock.advance(Duration::from_secs(61));
    lab.pull("1").await.unwrap();
    let lab = lab.stop_upstream().restart().await;
    lab.clock.advance(25 * HOUR);
    lab.pull_digest(&image.digest).await.unwrap();
}

#[tokio::test]
async fn what_only_a_warning_depends_on_never_keeps_an_image_from_anybody() {
    for status in [404, 429, 500] {
        let lab = Lab::new(Policy::Warned).await;
        let image = lab.image("1");
        lab.tag("1", &image);
        lab.pull_digest(&image.digest).await.unwrap();
        let lab = lab.with_another_puller();
        for place in [".att", "/referrers/"] {
            lab.fail(place, status);
        }
        lab.pull("1").await.unwrap();
        assert!(lab.asked("GET", ".att") + lab.asked("GET", "/referrers/") > 0, "it was looked for");
    }
}
