//! Many referrers around one good bundle (V-18, V-19).

use sealgate::limits::CANDIDATES_MAX;
use sealgate::testing::sigstore::Flaw;
use sealgate::testing::{BUNDLE_TYPE, Referrers, attach_spam};

use super::{Lab, REPOSITORY, Wants};

/// CVE-2023-33957, CVE-2023-33958: however many there are, by whatever way they are listed.
#[tokio::test]
async fn v18_a_thousand_referrers_around_one_good_bundle_do_not_hide_it() {
    for (referrers, page) in
        [(Referrers::Api, usize::MAX), (Referrers::Unfiltered, 150), (Referrers::FallbackTag, usize::MAX)]
    {
        println!("{referrers:?} {page}");
        let lab = Lab::new(Wants::Keyless).await;
        lab.registry.set_referrers(referrers);
        lab.registry.page_referrers(page);
        let image = lab.image(1);
        attach_spam(&lab.registry, REPOSITORY, &image.manifest, "application/vnd.spam", "before", 500);
        lab.attach(&image, &[lab.bundle(Wants::Keyless, &image).rekor_v2().timestamped().build()]);
        attach_spam(&lab.registry, REPOSITORY, &image.manifest, "application/vnd.spam", "after", 500);
        Lab::is_served(&image, &lab.pull(&image).await);
        assert!(lab.registry.count("*", "*") < 100, "spam is not fetched");
        lab.stop().await;
    }
}

/// As many as are examined may hold the good one anywhere; of one more nobody knows which one is passed over.
#[tokio::test]
async fn v18_bundles_are_examined_up_to_their_bound_and_more_deny_with_a_reason_of_their_own() {
    let lab = Lab::new(Wants::Keyless).await;
    let half = CANDIDATES_MAX / 2;
    for (seed, after) in [(1, half - 1), (2, half + 1)] {
        let image = lab.image(seed);
        let bad = |number: usize| {
            let number = serde_json::json!(number);
            lab.bundle(Wants::Keyless, &image).predicate(SIGN, number).flaw(Flaw::CorruptSignature).build()
        };
        lab.attach(&image, &(0..half).map(bad).collect::<Vec<_>>());
        if after < half {
            lab.attach(&image, &[lab.bundle(Wants::Keyless, &image).build()]);
        }
        lab.attach(&image, &(half..half + after).map(bad).collect::<Vec<_>>());
        let answer = lab.pull(&image).await;
        if after < half {
            Lab::is_served(&image, &answer);
        } else {
            Lab::is_denied(&answer, "too_many_signatures");
        }
    }
    lab.stop().await;
}

/// Spam that calls itself a bundle and is none is skipped, and counts against the bound.
#[tokio::test]
async fn v18_referrers_that_call_themselves_bundles_and_are_none_deny_only_beyond_the_bound() {
    let lab = Lab::new(Wants::Keyless).await;
    let image = lab.image(1);
    attach_spam(&lab.registry, REPOSITORY, &image.manifest, BUNDLE_TYPE, "before", CANDIDATES_MAX - 1);
    lab.attach(&image, &[lab.bundle(Wants::Keyless, &image).build()]);
    Lab::is_served(&image, &lab.pull(&image).await);
    lab.stop().await;
}

/// Spam that calls itself a bundle on both sides of the good one, where no order helps: it is found, or the refusal says that
/// there is more than was looked at. What was found once is found again.
#[tokio::test]
async fn v18_a_good_bundle_at_any_place_among_a_thousand_is_found_or_the_refusal_says_that_it_may_be_hidden() {
    let seed = 20_260_731_u64;
    println!("seed {seed}");
    let lab = Lab::new(Wants::Keyless).await;
    for round in 0..3_u64 {
        let hash = sealgate::oci::Digest::sha256(&[seed, round].map(u64::to_be_bytes).concat());
        let before = usize::from(u16::from_be_bytes([hash.as_bytes()[0], hash.as_bytes()[1]])) % 1001;
        let image = lab.image(round + 1);
        attach_spam(&lab.registry, REPOSITORY, &image.manifest, BUNDLE_TYPE, "before", before);
        lab.attach(&image, &[lab.bundle(Wants::Keyless, &image).build()]);
        attach_spam(&lab.registry, REPOSITORY, &image.manifest, BUNDLE_TYPE, "after", 1000 - before);
        let answer = lab.pull(&image).await;
        println!("{before} before it: {}", answer.status);
        if answer.status != 200 {
            Lab::is_denied(&answer, "too_many_signatures");
        }
    }
    lab.stop().await;
}

const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";
