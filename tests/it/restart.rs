//! What a restart keeps, also while upstream is away.

use std::time::Duration;

use sealgate::policy::Reason;
use sealgate::pull::PullError;
use sealgate::telemetry::CacheResult;

use crate::lab::{Lab, Policy, denied_for, is_undecided};

#[tokio::test]
async fn after_a_restart_without_upstream_allowed_is_served_and_refused_stays_refused() {
    let lab = Lab::new(Policy::Signed).await;
    let (good, bad) = (lab.signed_image("good"), lab.image("bad"));
    lab.tag("bad", &bad);
    lab.pull("good").await.unwrap();
    lab.blob(&good.layers[0]).await.unwrap();
    denied_for(lab.pull("bad").await);

    let lab = lab.stop_upstream().restart().await;
    // Blobs first: some clients hold the manifest already.
    assert_eq!(lab.blob(&good.layers[0]).await.unwrap(), lab.content(&good.layers[0]));
    assert_eq!(lab.pull("good").await.unwrap().bytes(), &good.bytes);
    assert_eq!(lab.pull_digest(&good.digest).await.unwrap().bytes(), &good.bytes);
    assert!(lab.pull("bad").await.is_err());
    assert!(lab.pull_digest(&bad.digest).await.is_err());
    lab.clock.advance(Duration::from_secs(61));
    assert_eq!(lab.pull("good").await.unwrap().cache(), CacheResult::Stale);
    assert!(lab.pull("bad").await.is_err());
    assert!(matches!(lab.blob(&bad.layers[0]).await, Err(PullError::BlobUnknown)));
}

#[tokio::test]
async fn the_children_of_an_allowed_index_are_served_after_a_restart() {
    let lab = Lab::new(Policy::Signed).await;
    let child = lab.image("child");
    let index = lab.index(&[&child]);
    lab.tag("1", &index);
    lab.sign(&index.digest);
    lab.pull("1").await.unwrap();
    lab.pull_digest(&child.digest).await.unwrap();
    lab.blob(&child.layers[0]).await.unwrap();
    let lab = lab.stop_upstream().restart().await;
    lab.blob(&child.layers[0]).await.unwrap();
    lab.pull_digest(&child.digest).await.unwrap();
    lab.pull("1").await.unwrap();
}

#[tokio::test]
async fn an_allow_that_expires_while_upstream_is_away_is_verified_again_offline() {
    let lab = Lab::new(Policy::Signed).await;
    let image = lab.signed_image("1");
    lab.pull("1").await.unwrap();
    lab.blob(&image.layers[0]).await.unwrap();
    let lab = lab.stop_upstream().restart().await;
    lab.clock.advance(Duration::from_secs(25 * 3600));
    lab.pull_digest(&image.digest).await.unwrap();
    lab.blob(&image.layers[0]).await.unwrap();
    // A new policy is judged by the same material; what it does not allow is not denied but undecided.
    lab.reload(Policy::SignedByAnother);
    assert!(is_undecided(&lab.pull_digest(&image.digest).await));
    assert!(is_undecided(&lab.blob(&image.layers[0]).await));
}

#[tokio::test]
async fn the_absence_of_signatures_while_upstream_is_away_is_undecided() {
    let lab = Lab::new(Policy::AcceptAnything).await;
    let image = lab.image("1");
    lab.tag("1", &image);
    lab.pull("1").await.unwrap();
    let lab = lab.stop_upstream();
    lab.reload(Policy::Signed);
    assert!(is_undecided(&lab.pull("1").await));
    assert!(is_undecided(&lab.pull_digest(&image.digest).await));
}

#[tokio::test]
async fn a_denial_survives_a_restart_for_its_life() {
    let lab = Lab::new(Policy::Signed).await;
    let image = lab.image("1");
    lab.tag("1", &image);
    denied_for(lab.pull("1").await);
    let asked = lab.asked("GET", ".sig");
    let lab = lab.restart().await;
    assert_eq!(denied_for(lab.pull("1").await), Reason::NoSignature);
    assert_eq!(lab.asked("GET", ".sig"), asked);
}

#[tokio::test]
async fn a_signature_that_upstream_took_away_or_replaced_does_not_come_back_when_upstream_is_away() {
    for replaced in [false, true] {
        let lab = Lab::new(Policy::Signed).await;
        let image = lab.signed_image("1");
        lab.pull("1").await.unwrap();
        lab.clock.advance(Duration::from_secs(25 * 3600));
        if replaced {
            lab.sign_with_another_key(&image.digest);
        } else {
            lab.untag(&lab.signature_tag(&image.digest));
        }
        denied_for(lab.pull("1").await);
        lab.clock.advance(Duration::from_secs(61));
        let lab = lab.stop_upstream();
        assert!(is_undecided(&lab.pull("1").await), "replaced: {replaced}");
        assert!(is_undecided(&lab.restart().await.pull("1").await), "replaced: {replaced}");
    }
}

#[tokio::test]
async fn without_a_database_a_digest_is_decided_by_its_own_verdict() {
    let lab = Lab::new(Policy::Signed).await;
    let (good, bad) = (lab.signed_image("good"), lab.image("bad"));
    let lab = lab.restart_without_database().await;
    assert_eq!(lab.pull_digest(&good.digest).await.unwrap().bytes(), &good.bytes);
    lab.blob(&good.layers[0]).await.unwrap();
    // A grant that cannot be looked up might admit it.
    assert!(matches!(lab.pull_digest(&bad.digest).await, Err(PullError::Overloaded)));
    lab.tag("bad", &bad);
    denied_for(lab.pull("bad").await);
}

#[tokio::test]
async fn no_verdict_counts_for_longer_than_its_life_when_the_clock_was_far_ahead() {
    let lab = Lab::new(Policy::Signed).await;
    let (good, bad) = (lab.signed_image("good"), lab.image("bad"));
    lab.tag("bad", &bad);
    let day = Duration::from_secs(24 * 3600);
    lab.clock.advance(400 * day);
    lab.pull("good").await.unwrap();
    denied_for(lab.pull("bad").await);
    lab.clock.set(lab.clock.now().minus(400 * day));
    lab.sign(&bad.digest);
    lab.pull("bad").await.unwrap();
    lab.untag(&lab.signature_tag(&good.digest));
    denied_for(lab.pull("good").await);
}

#[tokio::test]
async fn a_manifest_that_lies_about_a_size_costs_no_other_one_the_blob() {
    let lab = Lab::new(Policy::AcceptAnything).await;
    let image = lab.image("1");
    lab.tag("1", &image);
    let layer = image.layers.last().unwrap();
    let liars = [50_000, 200_000].map(|size| lab.image_lying_of("team/liar", &image, size));
    lab.pull("1").await.unwrap();
    lab.blob(layer).await.unwrap();
    let lab = lab.restart().await;
    for liar in liars {
        lab.pull_digest_of("team/liar", &liar).await.unwrap();
        let (sent, ended) = lab.raw_blob_of("team/liar", layer).await;
        assert!(ended.is_err(), "{sent} bytes");
    }
    let lab = lab.stop_upstream();
    assert_eq!(lab.blob(layer).await.unwrap(), lab.content(layer), "what was cached stays servable");
}

#[tokio::test]
async fn a_manifest_of_the_same_repository_that_lies_about_a_size_costs_no_other_one_the_blob() {
    for cached in [false, true] {
        let lab = Lab::new(Policy::AcceptAnything).await;
        let image = lab.image("1");
        lab.tag("1", &image);
        let layer = image.layers.last().unwrap();
        lab.pull("1").await.unwrap();
        if cached {
            lab.blob(layer).await.unwrap();
        }
        for size in [50_000, 200_000] {
            let liar = lab.image_lying_of("team/app", &image, size);
            lab.pull_digest(&liar).await.unwrap();
            assert_eq!(lab.blob(layer).await.unwrap(), lab.content(layer), "cached: {cached}, size {size}");
        }
        // And after a restart, when nobody has hashed the file yet.
        let lab = lab.restart().await;
        assert_eq!(lab.blob(layer).await.unwrap(), lab.content(layer));
    }
}

#[tokio::test]
async fn while_upstream_is_away_a_lying_size_costs_nobody_a_cached_blob() {
    let lab = Lab::new(Policy::AcceptAnything).await;
    let image = lab.image("1");
    lab.tag("1", &image);
    let layer = image.layers.last().unwrap();
    lab.pull("1").await.unwrap();
    lab.blob(layer).await.unwrap();
    for size in [50_000, 200_000] {
        lab.pull_digest(&lab.image_lying_of("team/app", &image, size)).await.unwrap();
    }
    // The newest grant lies, and nobody has hashed the file yet.
    let lab = lab.restart().await.stop_upstream();
    assert_eq!(lab.blob(layer).await.unwrap(), lab.content(layer));
}
