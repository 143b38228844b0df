//! Indexes and their children (design §6, "Multi-arch").

use std::time::Duration;

use sealgate::limits::{CHILDREN_EXAMINED_MAX, INDEX_DEPTH_MAX};
use sealgate::policy::Reason;
use sealgate::pull::PullError;
use sealgate::telemetry::DecisionLabel;
use sealgate::upstream::UpstreamError;

use crate::lab::{Image, Lab, Policy, denied_for};

fn is_bad(result: &Result<sealgate::pull::AdmittedManifest, PullError>, wanted: &str) -> bool {
    matches!(result, Err(PullError::Upstream(UpstreamError::Bad { reason, .. })) if *reason == wanted)
}

#[tokio::test]
async fn v_22_a_signed_index_grants_all_its_children_and_their_blobs() {
    let lab = Lab::new(Policy::Signed).await;
    let (amd64, arm64) = (lab.image("amd64"), lab.image("arm64"));
    let index = lab.index(&[&amd64, &arm64]);
    lab.tag("1", &index);
    lab.sign(&index.digest);
    // Before: a child is decided on its own.
    assert_eq!(denied_for(lab.pull_digest(&amd64.digest).await), Reason::NoSignature);
    lab.pull("1").await.unwrap();
    lab.pull_digest(&index.digest).await.unwrap();
    for child in [&amd64, &arm64] {
        assert_eq!(lab.pull_digest(&child.digest).await.unwrap().bytes(), &child.bytes);
        lab.blob(&child.layers[0]).await.unwrap();
    }
    // In that repository only.
    assert!(lab.pull_digest_of("team/other", &amd64.digest).await.is_err());
}

#[tokio::test]
async fn v_22_a_child_of_a_denied_index_is_refused() {
    let lab = Lab::new(Policy::Signed).await;
    let child = lab.image("child");
    let index = lab.index(&[&child]);
    lab.tag("1", &index);
    assert_eq!(denied_for(lab.pull("1").await), Reason::NoSignature);
    assert_eq!(denied_for(lab.pull_digest(&child.digest).await), Reason::NoSignature);
}

#[tokio::test]
async fn an_unsigned_index_is_admitted_when_every_platform_child_is_signed() {
    let lab = Lab::new(Policy::Signed).await;
    let children: Vec<Image> = ["a", "b", "c"].map(|name| lab.image(name)).into();
    let index = lab.index(&children.iter().collect::<Vec<_>>());
    lab.tag("1", &index);
    for child in &children {
        lab.sign(&child.digest);
    }
    let admitted = lab.pull("1").await.unwrap();
    assert_eq!(admitted.decision(), DecisionLabel::Allow);
    let asked = lab.asked("GET", ".sig");
    for child in &children {
        lab.pull_digest(&child.digest).await.unwrap();
        lab.blob(&child.layers[0]).await.unwrap();
    }
    assert_eq!(lab.asked("GET", ".sig"), asked, "their verdicts are known");
}

#[tokio::test]
async fn one_unsigned_child_denies_the_index_and_looking_stops_there() {
    let lab = Lab::new(Policy::Signed).await;
    let children: Vec<Image> = (0..20).map(|number| lab.image(&number.to_string())).collect();
    let index = lab.index(&children.iter().collect::<Vec<_>>());
    lab.tag("1", &index);
    for child in children.iter().skip(1) {
        lab.sign(&child.digest);
    }
    assert_eq!(denied_for(lab.pull("1").await), Reason::NoSignature);
    assert_eq!(lab.asked("GET", ".sig"), 2, "the index's and the first child's");
    // The signed children pass by themselves.
    lab.pull_digest(&children[3].digest).await.unwrap();
    denied_for(lab.pull_digest(&children[0].digest).await);
}

#[tokio::test]
async fn under_any_leaf_one_signed_child_admits_the_index_but_not_its_siblings() {
    let lab = Lab::new(Policy::AnyLeaf).await;
    let (evil, copied) = (lab.image("evil"), lab.image("copied"));
    let index = lab.index(&[&evil, &copied]);
    lab.tag("1", &index);
    lab.sign(&copied.digest);
    lab.pull("1").await.unwrap();
    lab.pull_digest(&copied.digest).await.unwrap();
    denied_for(lab.pull_digest(&evil.digest).await);
    assert!(matches!(lab.blob(&evil.layers[0]).await, Err(PullError::BlobUnknown)));
}

#[tokio::test]
async fn under_leaf_only_an_index_passes_and_each_child_needs_its_own_verdict() {
    let lab = Lab::new(Policy::LeafOnly).await;
    let (signed, unsigned) = (lab.image("signed"), lab.image("unsigned"));
    let index = lab.index(&[&signed, &unsigned]);
    lab.tag("1", &index);
    lab.sign(&index.digest);
    lab.sign(&signed.digest);
    assert_eq!(lab.pull("1").await.unwrap().verdict(), None);
    lab.pull_digest(&index.digest).await.unwrap();
    lab.pull_digest(&signed.digest).await.unwrap();
    denied_for(lab.pull_digest(&unsigned.digest).await);
}

#[tokio::test]
async fn grants_of_a_signed_index_mean_nothing_once_the_rule_is_leaf_only() {
    let lab = Lab::new(Policy::Signed).await;
    let child = lab.image("child");
    let index = lab.index(&[&child]);
    lab.tag("1", &index);
    lab.sign(&index.digest);
    lab.pull("1").await.unwrap();
    lab.pull_digest(&child.digest).await.unwrap();
    lab.reload(Policy::LeafOnly);
    denied_for(lab.pull_digest(&child.digest).await);
    assert!(matches!(lab.blob(&child.layers[0]).await, Err(PullError::BlobUnknown)));
}

#[tokio::test]
async fn children_are_judged_under_the_reference_that_was_asked_for() {
    // The repository accepts anything; the tag `prod` wants a signature.
    let lab = Lab::new(Policy::SignedTag("prod")).await;
    let child = lab.image("child");
    let index = lab.index(&[&child]);
    lab.tag("prod", &index);
    lab.tag("dev", &index);
    lab.pull("dev").await.unwrap();
    assert_eq!(denied_for(lab.pull("prod").await), Reason::NoSignature);
    lab.sign(&child.digest);
    lab.clock.advance(Duration::from_secs(61));
    lab.pull("prod").await.unwrap();
}

#[tokio::test]
async fn at_most_32_platform_children_are_looked_at() {
    let lab = Lab::new(Policy::Signed).await;
    for (count, fits) in [(CHILDREN_EXAMINED_MAX, true), (CHILDREN_EXAMINED_MAX + 1, false)] {
        let children: Vec<Image> = (0..count).map(|number| lab.image(&format!("{count} {number}"))).collect();
        for child in &children {
            lab.sign(&child.digest);
        }
        let index = lab.index(&children.iter().collect::<Vec<_>>());
        let tag = count.to_string();
        lab.tag(&tag, &index);
        let pulled = lab.pull(&tag).await;
        if fits {
            pulled.unwrap();
        } else {
            assert_eq!(denied_for(pulled), Reason::TooManyChildren);
        }
    }
}

#[tokio::test]
async fn an_index_of_attestations_alone_admits_nothing() {
    let lab = Lab::new(Policy::Signed).await;
    let evil = lab.image("evil");
    let index = lab.index_with_attestations(&[], &[&evil]);
    lab.tag("1", &index);
    denied_for(lab.pull("1").await);
}

#[tokio::test]
async fn an_attestation_child_passes_as_an_artefact_and_an_image_labelled_as_one_does_not() {
    let lab = Lab::new(Policy::Signed).await;
    let (child, evil) = (lab.image("child"), lab.image("evil"));
    let attestation = lab.attestation(b"{\"predicateType\":\"https://slsa.dev/provenance/v1\"}");
    let index = lab.index_with_attestations(&[&child], &[&attestation, &evil]);
    lab.tag("1", &index);
    lab.sign(&child.digest);
    // Alone, with an image config, it is an image.
    denied_for(lab.pull_digest(&attestation.digest).await);
    lab.pull("1").await.unwrap();
    lab.pull_digest(&attestation.digest).await.unwrap();
    lab.blob(&attestation.layers[0]).await.unwrap();
    denied_for(lab.pull_digest(&evil.digest).await);
}

#[tokio::test]
async fn v_23_v_24_a_child_that_is_not_what_its_index_says_is_bad() {
    let lab = Lab::new(Policy::Signed).await;
    let (replaced, small, typed) = (lab.image("replaced"), lab.image("small"), lab.image("typed"));
    let index = lab.index_lying(&replaced, &small, &typed);
    lab.tag("1", &index);
    lab.sign(&index.digest);
    lab.replace_bytes(&replaced.digest, b"{\"schemaVersion\":2}");
    lab.pull("1").await.unwrap();
    assert!(is_bad(&lab.pull_digest(&replaced.digest).await, "digest_mismatch"));
    assert!(is_bad(&lab.pull_digest(&small.digest).await, "size_mismatch"));
    assert!(is_bad(&lab.pull_digest(&typed.digest).await, "media_type"));
}

#[tokio::test]
async fn v_24_indexes_nest_four_deep_and_no_deeper() {
    for signed_top in [true, false] {
        let lab = Lab::new(Policy::Signed).await;
        let leaf = lab.image("leaf");
        lab.sign(&leaf.digest);
        let mut levels = vec![lab.index(&[&leaf])];
        while levels.len() < INDEX_DEPTH_MAX + 1 {
            let below = lab.index(&[levels.last().unwrap()]);
            levels.push(below);
        }
        let (fits, too_deep) = (&levels[INDEX_DEPTH_MAX - 1], &levels[INDEX_DEPTH_MAX]);
        lab.tag("fits", fits);
        lab.tag("deep", too_deep);
        if signed_top {
            lab.sign(&too_deep.digest);
            lab.pull("deep").await.unwrap();
            for level in levels[1..INDEX_DEPTH_MAX].iter().rev() {
                lab.pull_digest(&level.digest).await.unwrap();
            }
            assert!(matches!(lab.pull_digest(&levels[0].digest).await, Err(PullError::Manifest(_))));
        } else {
            lab.pull("fits").await.unwrap();
            assert_eq!(denied_for(lab.pull("deep").await), Reason::TooManyChildren);
        }
    }
}

#[tokio::test]
async fn what_lies_too_deep_below_one_index_is_not_too_deep_by_itself() {
    let lab = Lab::new(Policy::Signed).await;
    let leaf = lab.image("leaf");
    lab.sign(&leaf.digest);
    let mut levels = vec![lab.index(&[&leaf])];
    while levels.len() < INDEX_DEPTH_MAX + 1 {
        let below = lab.index(&[levels.last().unwrap()]);
        levels.push(below);
    }
    // With a scope of its own it is judged under one key, wherever it lies.
    lab.reload(Policy::SignedDigest(levels[0].digest));
    lab.tag("deep", &levels[INDEX_DEPTH_MAX]);
    assert_eq!(denied_for(lab.pull("deep").await), Reason::TooManyChildren);
    lab.pull_digest(&levels[0].digest).await.unwrap();
}

#[tokio::test]
async fn an_index_whose_nested_index_is_not_there_is_denied_and_not_missing() {
    let lab = Lab::new(Policy::Signed).await;
    let leaf = lab.image("leaf");
    lab.sign(&leaf.digest);
    let nested = lab.index(&[&leaf]);
    let index = lab.index(&[&nested]);
    lab.tag("1", &index);
    lab.remove(&nested.digest);
    assert_eq!(denied_for(lab.pull("1").await), Reason::NoSignature);
}

#[tokio::test]
async fn an_index_that_another_one_calls_an_image_is_judged_by_its_bytes() {
    let lab = Lab::new(Policy::Signed).await;
    let leaf = lab.image("leaf");
    lab.sign(&leaf.digest);
    let nested = lab.index(&[&leaf]);
    let liar = lab.index_of_images(&nested);
    lab.tag("liar", &liar);
    lab.tag("nested", &nested);
    lab.pull("liar").await.unwrap();
    // And what was reached for it there denies it nowhere.
    lab.pull_digest(&nested.digest).await.unwrap();
    lab.pull("nested").await.unwrap();
}

#[tokio::test]
async fn an_audited_index_serves_its_children_until_the_mode_ends() {
    let lab = Lab::new(Policy::AuditTag("1")).await;
    let child = lab.image("child");
    let index = lab.index(&[&child]);
    lab.tag("1", &index);
    assert_eq!(lab.pull("1").await.unwrap().decision(), DecisionLabel::AuditDeny);
    lab.pull_digest(&child.digest).await.unwrap();
    lab.blob(&child.layers[0]).await.unwrap();
    lab.reload(Policy::Signed);
    denied_for(lab.pull_digest(&child.digest).await);
    assert!(matches!(lab.blob(&child.layers[0]).await, Err(PullError::BlobUnknown)));
}

#[tokio::test]
async fn a_child_whose_digest_is_enforced_is_refused_under_an_audited_index() {
    let lab = Lab::new(Policy::Audit).await;
    let (enforced, other) = (lab.image("enforced"), lab.image("other"));
    let index = lab.index(&[&enforced, &other]);
    lab.tag("1", &index);
    lab.pull("1").await.unwrap();
    lab.pull_digest(&enforced.digest).await.unwrap();
    lab.reload(Policy::AuditBut(enforced.digest));
    assert_eq!(lab.pull("1").await.unwrap().decision(), DecisionLabel::AuditDeny);
    assert_eq!(denied_for(lab.pull_digest(&enforced.digest).await), Reason::NoSignature);
    assert_eq!(lab.pull_digest(&other.digest).await.unwrap().decision(), DecisionLabel::AuditDeny);
    // Signed, it passes by its own verdict; and audit mode, when it is back, by the index's.
    lab.reload(Policy::Audit);
    lab.pull_digest(&enforced.digest).await.unwrap();
}

#[tokio::test]
async fn an_override_of_multi_arch_for_a_digest_counts_also_when_a_tag_is_asked_for() {
    let lab = Lab::new(Policy::Signed).await;
    let (child, other) = (lab.image("child"), lab.image("other"));
    let (index, another) = (lab.index(&[&child]), lab.index(&[&other]));
    lab.tag("1", &index);
    lab.tag("2", &another);
    lab.reload(Policy::LeafOnlyOf(index.digest));
    // It passes and grants nothing; of the other one nobody has said so.
    assert_eq!(lab.pull("1").await.unwrap().bytes(), &index.bytes);
    assert_eq!(lab.pull_digest(&index.digest).await.unwrap().bytes(), &index.bytes);
    assert_eq!(denied_for(lab.pull_digest(&child.digest).await), Reason::NoSignature);
    assert_eq!(denied_for(lab.pull("2").await), Reason::NoSignature);
    assert_eq!(lab.asked("HEAD", "/manifests/1"), 1, "one resolution");
}
