//! Where bundles are attached: the API, the fallback tag, indexes and children.

use sealgate::testing::sigstore::Flaw;
use sealgate::testing::{EMPTY_TYPE, Fault, ImageBuilder, Referrers, attach_bundles_at_fallback_tag};

use super::{Lab, REPOSITORY, Wants, malformed};

#[tokio::test]
async fn signed_children_admit_an_unsigned_index_and_one_unsigned_child_does_not() {
    let lab = Lab::new(Wants::Keyless).await;
    let [a, b, c, d] = [1, 2, 3, 4].map(|seed| lab.image(seed));
    for image in [&a, &b, &c] {
        lab.attach(image, &[lab.bundle(Wants::Keyless, image).build()]);
    }
    let good = ImageBuilder::index([a.clone(), b.clone()]).build();
    let bad = ImageBuilder::index([c.clone(), d.clone()]).build();
    for index in [&good, &bad] {
        lab.registry.put_untagged(REPOSITORY, index);
    }
    Lab::is_served(&good, &lab.pull(&good).await);
    Lab::is_served(&a, &lab.pull(&a).await);
    Lab::is_denied(&lab.pull(&bad).await, "no_signature");
    Lab::is_served(&c, &lab.pull(&c).await);
    Lab::is_denied(&lab.pull(&d).await, "no_signature");
    lab.stop().await;
}

#[tokio::test]
async fn a_signature_of_the_index_alone_admits_its_children_and_their_blobs_once_it_was_pulled() {
    for wants in [Wants::Key, Wants::Keyless] {
        let lab = Lab::new(wants).await;
        let [a, b] = [1, 2].map(|seed| lab.image(seed));
        let index = ImageBuilder::index([a.clone(), b.clone()]).attestation().build();
        lab.registry.put_untagged(REPOSITORY, &index);
        lab.attach(&index, &[lab.bundle(wants, &index).rekor_v2().timestamped().build()]);
        Lab::is_denied(&lab.pull(&a).await, "no_signature");
        Lab::is_served(&index, &lab.pull(&index).await);
        for child in &index.children {
            Lab::is_served(child, &lab.pull(child).await);
        }
        let blob = format!("/v2/{REPOSITORY}/blobs/{}", b.blobs[1].digest);
        assert_eq!(lab.mirror.get(&blob).await.body, b.blobs[1].bytes);
        lab.stop().await;
    }
}

#[tokio::test]
async fn a_fallback_tag_that_lies_about_types_is_looked_into() {
    for stated in [None, Some(EMPTY_TYPE), Some(sealgate::testing::BUNDLE_TYPE)] {
        let lab = Lab::new(Wants::Keyless).await;
        lab.registry.set_referrers(Referrers::FallbackTag);
        let image = lab.image(1);
        let bundle = lab.bundle(Wants::Keyless, &image).build();
        attach_bundles_at_fallback_tag(&lab.registry, REPOSITORY, &image.manifest, &[bundle], stated);
        Lab::is_served(&image, &lab.pull(&image).await);
        lab.stop().await;
    }
}

/// Kyverno's `fetchBundles`: one malformed bundle must not deny the image, in whatever order they come (T22).
#[tokio::test]
async fn t22_good_bad_and_malformed_bundles_count_the_same_in_every_order() {
    let lab = Lab::new(Wants::Keyless).await;
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for (seed, order) in (1..).zip(orders) {
        let image = lab.image(seed);
        let good = lab.bundle(Wants::Keyless, &image).build();
        let bad = lab.bundle(Wants::Keyless, &image).flaw(Flaw::CorruptSignature).build();
        let bundles = [good, bad, malformed()];
        lab.attach(&image, &order.map(|place| bundles[place].clone()));
        Lab::is_served(&image, &lab.pull(&image).await);
    }
    for (seed, order) in (101..).zip([[1, 2], [2, 1]]) {
        let image = lab.image(seed);
        let bad = lab.bundle(Wants::Keyless, &image).flaw(Flaw::CorruptSignature).build();
        let bundles = [malformed(), bad, malformed()];
        lab.attach(&image, &order.map(|place| bundles[place].clone()));
        Lab::is_denied(&lab.pull(&image).await, "bad_signature");
    }
    lab.stop().await;
}

/// CVE-2025-46342: an error while looking for bundles is no answer.
#[tokio::test]
async fn referrers_that_cannot_be_listed_leave_the_image_undecided() {
    let lab = Lab::new(Wants::Keyless).await;
    let image = lab.image(1);
    lab.registry.fault(Fault::on("*/referrers/*").status(500));
    let answer = lab.pull(&image).await;
    assert_eq!(answer.status, 503, "{} {}", answer.reason, answer.text());
    lab.registry.heal();
    lab.attach(&image, &[lab.bundle(Wants::Keyless, &image).build()]);
    Lab::is_served(&image, &lab.pull(&image).await);
    lab.stop().await;
}
