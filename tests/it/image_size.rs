//! `max_image_bytes`: both sides of the bound, whatever admits the image (design §3).

use std::time::Duration;

use sealgate::oci::ImageSize;
use sealgate::policy::{Decision, Reason};
use sealgate::pull::{AdmittedManifest, PullError};
use sealgate::telemetry::DecisionLabel;

use crate::lab::{Image, Lab, Policy, denied_for};

const REGISTRY: &str = "registry.test";

fn text(result: Result<AdmittedManifest, PullError>) -> String {
    match result {
        Err(PullError::Denied(denial)) => denial.text,
        other => panic!("not denied: {other:?}"),
    }
}

/// Pulls a tag and then its digest, as clients do.
async fn pull_both(lab: &Lab, tag: &str, image: &Image) -> [Result<AdmittedManifest, PullError>; 2] {
    [lab.pull(tag).await, lab.pull_digest(&image.digest).await]
}

#[tokio::test]
async fn an_image_as_large_as_the_bound_is_served_and_one_byte_more_is_refused() {
    for policy in [Policy::Signed, Policy::AcceptAnything] {
        let lab = Lab::new(policy).await;
        let image = lab.signed_image("1");
        lab.bound(policy, &[(REGISTRY, image.size())]);
        for pulled in pull_both(&lab, "1", &image).await {
            assert_eq!(pulled.unwrap().decision(), DecisionLabel::Allow);
        }
        lab.blob(&image.layers[0]).await.unwrap();
        lab.bound(policy, &[(REGISTRY, image.size() - 1)]);
        for pulled in pull_both(&lab, "1", &image).await {
            assert_eq!(denied_for(pulled), Reason::TooLarge);
        }
        assert!(matches!(lab.blob(&image.layers[0]).await, Err(PullError::BlobUnknown)));
        let told = text(lab.pull("1").await);
        assert!(told.contains(&format!("{} bytes", image.size())), "{told}");
        assert!(told.contains(&format!("{} allowed", image.size() - 1)), "{told}");
        lab.bound(policy, &[(REGISTRY, 0)]);
        lab.pull("1").await.unwrap();
    }
}

#[tokio::test]
async fn a_kept_verdict_knows_the_size_of_its_image() {
    let lab = Lab::new(Policy::Signed).await;
    let image = lab.signed_image("1");
    lab.pull("1").await.unwrap();
    let size = Some(ImageSize { bytes: image.size(), layers: 2 });
    assert_eq!(lab.verdicts().await[0].image_size, size, "without a bound too");
    lab.bound(Policy::Signed, &[(REGISTRY, 1)]);
    denied_for(lab.pull("1").await);
    let verdicts = lab.verdicts().await;
    let denial = verdicts.iter().find(|verdict| verdict.decision == Decision::Deny).unwrap();
    assert_eq!((denial.reason, denial.image_size), (Reason::TooLarge, size));
    let restarted = lab.restart().await;
    restarted.pull("1").await.unwrap_err();
}

#[tokio::test]
async fn what_policy_denies_is_denied_for_that_and_not_for_its_size() {
    let lab = Lab::new(Policy::Signed).await;
    let image = lab.image("unsigned");
    lab.tag("1", &image);
    lab.bound(Policy::Signed, &[(REGISTRY, 1)]);
    for pulled in pull_both(&lab, "1", &image).await {
        assert_eq!(denied_for(pulled), Reason::NoSignature);
    }
}

#[tokio::test]
async fn a_signed_index_is_served_and_each_of_its_children_is_bounded_by_itself() {
    let lab = Lab::new(Policy::Signed).await;
    let (small, large) = (lab.image("small"), lab.image_with_layer("large", 200_000));
    let index = lab.index(&[&large, &small]);
    lab.tag("1", &index);
    lab.sign(&index.digest);
    lab.bound(Policy::Signed, &[(REGISTRY, small.size())]);
    for pulled in pull_both(&lab, "1", &index).await {
        assert_eq!(pulled.unwrap().decision(), DecisionLabel::Allow);
    }
    lab.pull_digest(&small.digest).await.unwrap();
    lab.blob(&small.layers[0]).await.unwrap();
    // The first time and again, also when nothing is in memory.
    let lab = lab.with_another_puller();
    for _ in 0..2 {
        assert_eq!(denied_for(lab.pull_digest(&large.digest).await), Reason::TooLarge);
    }
    assert!(matches!(lab.blob(large.layers.last().unwrap()).await, Err(PullError::BlobUnknown)));
    let verdicts = lab.verdicts().await;
    let denials: Vec<_> = verdicts.iter().filter(|verdict| verdict.decision == Decision::Deny).collect();
    assert_eq!(denials.len(), 1, "it is listed, once");
    assert_eq!((denials[0].key.digest, denials[0].reason), (large.digest, Reason::TooLarge));
    lab.bound(Policy::Signed, &[(REGISTRY, large.size())]);
    lab.pull("1").await.unwrap();
    lab.pull_digest(&large.digest).await.unwrap();
}

#[tokio::test]
async fn a_child_that_is_too_large_does_not_deny_an_index_that_rests_on_its_children() {
    for policy in [Policy::Signed, Policy::AnyLeaf] {
        let lab = Lab::new(policy).await;
        let (large, small) = (lab.image_with_layer("large", 200_000), lab.image("small"));
        let index = lab.index(&[&large, &small]);
        lab.tag("1", &index);
        lab.sign(&large.digest);
        lab.sign(&small.digest);
        lab.bound(policy, &[(REGISTRY, small.size())]);
        // Twice: the second time the large child has a verdict of its own.
        for _ in 0..2 {
            lab.pull("1").await.unwrap();
            assert_eq!(denied_for(lab.pull_digest(&large.digest).await), Reason::TooLarge);
            lab.pull_digest(&small.digest).await.unwrap();
            lab.clock.advance(Duration::from_hours(25));
        }
        assert!(matches!(lab.blob(large.layers.last().unwrap()).await, Err(PullError::BlobUnknown)));
    }
}

#[tokio::test]
async fn under_leaf_only_each_child_is_bounded() {
    let lab = Lab::new(Policy::LeafOnly).await;
    let (large, small) = (lab.image_with_layer("large", 200_000), lab.image("small"));
    let index = lab.index(&[&large, &small]);
    lab.tag("1", &index);
    lab.sign(&large.digest);
    lab.sign(&small.digest);
    lab.bound(Policy::LeafOnly, &[(REGISTRY, small.size())]);
    lab.pull("1").await.unwrap();
    lab.pull_digest(&small.digest).await.unwrap();
    assert_eq!(denied_for(lab.pull_digest(&large.digest).await), Reason::TooLarge);
}

#[tokio::test]
async fn audit_mode_serves_what_is_too_large_and_records_it() {
    let lab = Lab::new(Policy::Audit).await;
    let image = lab.signed_image("1");
    let child = lab.image("child");
    let index = lab.index(&[&child]);
    lab.tag("index", &index);
    lab.sign(&index.digest);
    lab.bound(Policy::Audit, &[(REGISTRY, 1)]);
    for pulled in pull_both(&lab, "1", &image).await {
        assert_eq!(pulled.unwrap().decision(), DecisionLabel::AuditDeny);
    }
    lab.blob(&image.layers[0]).await.unwrap();
    assert_eq!(lab.pull("index").await.unwrap().decision(), DecisionLabel::Allow);
    assert_eq!(lab.pull_digest(&child.digest).await.unwrap().decision(), DecisionLabel::AuditDeny);
    lab.blob(&child.layers[0]).await.unwrap();
    let verdicts = lab.verdicts().await;
    let denied = verdicts.iter().filter(|verdict| verdict.reason == Reason::TooLarge);
    assert_eq!(denied.count(), 2, "the raw verdict is a denial");
    // Enforced from now on: what was served in audit mode is not, not even its blobs.
    lab.bound(Policy::Signed, &[(REGISTRY, 1)]);
    assert_eq!(denied_for(lab.pull_digest(&image.digest).await), Reason::TooLarge);
    assert!(matches!(lab.blob(&image.layers[0]).await, Err(PullError::BlobUnknown)));
    assert_eq!(denied_for(lab.pull_digest(&child.digest).await), Reason::TooLarge);
}

#[tokio::test]
async fn an_exemption_serves_what_is_too_large_until_it_ends() {
    let policy = Policy::Exempt { scope: "registry.test/team/app:1", hours: 1 };
    let lab = Lab::new(policy).await;
    let image = lab.signed_image("1");
    lab.signed_image("2");
    lab.bound(policy, &[(REGISTRY, 1)]);
    for pulled in pull_both(&lab, "1", &image).await {
        assert_eq!(pulled.unwrap().decision(), DecisionLabel::Exempt);
    }
    lab.blob(&image.layers[0]).await.unwrap();
    assert_eq!(denied_for(lab.pull("2").await), Reason::TooLarge);
    lab.clock.advance(Duration::from_hours(1));
    for pulled in pull_both(&lab, "1", &image).await {
        assert_eq!(denied_for(pulled), Reason::TooLarge);
    }
}

#[tokio::test]
async fn the_most_specific_bound_counts_for_a_digest_reached_through_its_tag_too() {
    let lab = Lab::new(Policy::Signed).await;
    let image = lab.signed_image("1");
    lab.tag("2", &image);
    let tag = "registry.test/team/app:1";
    // The tag's larger bound, and what it grants.
    lab.bound(Policy::Signed, &[(REGISTRY, 1), (tag, image.size())]);
    assert_eq!(denied_for(lab.pull_digest(&image.digest).await), Reason::TooLarge);
    for pulled in pull_both(&lab, "1", &image).await {
        pulled.unwrap();
    }
    assert_eq!(denied_for(lab.pull("2").await), Reason::TooLarge);
    // The digest's own bound beats the tag's, however one comes to it.
    let digest = image.digest.to_string();
    lab.bound(Policy::Signed, &[(REGISTRY, 1), (tag, 1), (&digest, 0)]);
    for pulled in pull_both(&lab, "1", &image).await {
        pulled.unwrap();
    }
    lab.bound(Policy::Signed, &[(REGISTRY, 0), (tag, image.size()), (&digest, image.size() - 1)]);
    for pulled in pull_both(&lab, "1", &image).await {
        assert_eq!(denied_for(pulled), Reason::TooLarge);
    }
}
