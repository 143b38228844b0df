//! How much is looked at, and that nobody's spam hides what another one signed.

use super::*;

#[tokio::test]
async fn v_18_as_many_bundles_as_are_examined_are_all_found_and_of_more_it_is_told() {
    for (count, more) in [(CANDIDATES_MAX, false), (CANDIDATES_MAX + 1, true), (129, true)] {
        let bench = Bench::new().await;
        bench.put_bundles(count);
        let found = bench.find(&[Bundles]).await;
        assert_eq!((found.material.candidates.len(), found.material.more), (CANDIDATES_MAX, more), "{count}");
        assert!(found.missing.is_none());
    }
}

/// CVE-2023-33957, CVE-2023-33958.
#[tokio::test]
async fn v_18_a_thousand_other_referrers_do_not_hide_one_bundle() {
    // (what they say they are, whether they are counted as candidates that were not looked at)
    for (artifact_type, more) in [("application/spdx+json", false), (EMPTY_TYPE, true)] {
        for referrers in [Referrers::Api, Referrers::FallbackTag] {
            let bench = Bench::new().await;
            bench.registry.set_referrers(referrers);
            attach_spam(&bench.registry, REPOSITORY, &bench.subject, artifact_type, "", 1000);
            bench.put_bundle("good");
            let found = bench.find(&[Bundles]).await;
            assert_eq!(contents(&found.material), ["good"], "{artifact_type} {referrers:?}");
            assert_eq!(found.material.more, more, "{artifact_type} {referrers:?}");
            assert!(bench.registry.count("*", "*") < 3 + CANDIDATES_MAX + 2);
        }
    }
}

#[tokio::test]
async fn v_19_signature_spam_does_not_hide_a_bundle_nor_bundle_spam_a_signature() {
    let bench = Bench::new().await;
    let spam: Vec<String> = (0..1000).map(|number| format!("spam {number}")).collect();
    bench.put_signatures(&spam.iter().map(String::as_str).collect::<Vec<_>>());
    bench.put_bundle("good");
    let found = bench.find(&ALL).await;
    assert!(contents(&found.material).contains(&"good") && found.material.more);
    assert_eq!(found.material.candidates.len(), CANDIDATES_MAX);

    let bench = Bench::new().await;
    bench.put_bundles(200);
    bench.put_signatures(&["good"]);
    bench.put_attestations(&["good too"]);
    let found = bench.find(&ALL).await;
    let contents = contents(&found.material);
    assert!(contents.contains(&"good") && contents.contains(&"good too") && found.material.more);
}

#[tokio::test]
async fn a_fallback_index_may_be_longer_than_one_that_is_served() {
    let bench = Bench::new().await;
    bench.registry.set_referrers(Referrers::FallbackTag);
    bench.put_bundle("good");
    attach_spam(&bench.registry, REPOSITORY, &bench.subject, "text/plain", "", INDEX_CHILDREN_MAX);
    assert_eq!(contents(&bench.find(&[Bundles]).await.material), ["good"]);
}

#[tokio::test]
async fn pages_are_followed_up_to_their_bound() {
    for (bundles, more) in [(REFERRERS_PAGES_MAX, false), (REFERRERS_PAGES_MAX + 1, true)] {
        for referrers in [Referrers::Api, Referrers::Unfiltered] {
            let bench = Bench::new().await;
            bench.registry.set_referrers(referrers);
            bench.put_bundles(bundles);
            bench.registry.page_referrers(1);
            let found = bench.find(&[Bundles]).await;
            assert_eq!(found.material.candidates.len(), REFERRERS_PAGES_MAX);
            assert_eq!((found.material.more, found.missing.is_some()), (more, false));
            // One more, in case the registry filters.
            assert_eq!(bench.asked("*/referrers/*"), REFERRERS_PAGES_MAX + usize::from(more));
        }
    }
}

#[tokio::test]
async fn v_18_more_pages_of_other_referrers_than_are_followed_do_not_hide_a_bundle_where_the_registry_filters() {
    for (referrers, found_it) in [(Referrers::Api, true), (Referrers::Unfiltered, false)] {
        let bench = Bench::new().await;
        bench.registry.set_referrers(referrers);
        attach_spam(&bench.registry, REPOSITORY, &bench.subject, "application/spdx+json", "", 200);
        bench.put_bundle("good");
        bench.registry.page_referrers(10);
        let found = bench.find(&[Bundles]).await;
        assert_eq!(contents(&found.material), if found_it { vec!["good"] } else { vec![] }, "{referrers:?}");
        assert!(found.material.more, "that there is more than was looked at is told in any case");
    }
}

/// Where a registry does not list by time, sign-typed spam may stand on both sides of the good one.
#[tokio::test]
async fn v_18_a_bundle_anywhere_among_a_thousand_that_call_themselves_bundles_is_found_or_said_to_be_hidden() {
    let seed = 20_260_731_u64;
    for round in 0..4_u64 {
        let hash = Digest::sha256(&[seed, round].map(u64::to_be_bytes).concat());
        let before = usize::from(u16::from_be_bytes([hash.as_bytes()[0], hash.as_bytes()[1]])) % 1001;
        let bench = Bench::new().await;
        let spam = |batch: &str, count| {
            attach_spam(&bench.registry, REPOSITORY, &bench.subject, BUNDLE_TYPE, batch, count);
        };
        spam("before", before);
        bench.put_bundle("good");
        spam("after", 1000 - before);
        let found = bench.find(&[Bundles]).await;
        let is_found = contents(&found.material) == ["good"];
        assert!(found.material.more || is_found, "seed {seed}, {before} before it: silence is no answer");
        assert!(bench.registry.count("*", "*") <= 1 + CANDIDATES_MAX + 1, "seed {seed}, {before} before it");
        let at_an_end = before < CANDIDATES_MAX / 4 || 1000 - before < CANDIDATES_MAX / 4;
        assert!(is_found || !at_an_end, "seed {seed}, {before} before it");
    }
}

/// What an allow rested on is looked at again first: spam that comes later cannot turn it into a denial.
#[tokio::test]
async fn v_18_a_bundle_that_was_good_before_is_found_wherever_it_stands_now() {
    for referrers in [Referrers::Api, Referrers::FallbackTag] {
        let bench = Bench::new().await;
        bench.registry.set_referrers(referrers);
        let spam = |batch: &str| attach_spam(&bench.registry, REPOSITORY, &bench.subject, BUNDLE_TYPE, batch, 300);
        spam("before");
        bench.put_bundle("good");
        let good = bench.find(&[Bundles]).await;
        assert!(contents(&good.material).contains(&"good"), "the newest one is looked at");
        bench.keep(&good).await;
        spam("after");
        let bench = bench.restart();
        for _look in 0..3 {
            bench.clock.advance(LIFE);
            assert!(contents(&bench.find(&[Bundles]).await.material).contains(&"good"), "{referrers:?}");
        }
    }
}

/// What only a denial or a report has seen may be somebody's spam, and must not take the places of what was not seen yet.
#[tokio::test]
async fn v_18_bundles_that_were_seen_and_not_good_are_not_looked_at_first() {
    for keeping in [Keeping::Denial, Keeping::Report] {
        let bench = Bench::new().await;
        bench.put_bundles(CANDIDATES_MAX);
        let spam = bench.find(&[Bundles]).await;
        assert_eq!(spam.material.candidates.len(), CANDIDATES_MAX);
        bench.puller.keep_material(&bench.subject.digest, &spam, Keeping::Allow).await;
        bench.puller.keep_material(&bench.subject.digest, &spam, keeping).await;
        if keeping == Keeping::Report {
            // It leaves the list of an allow alone; a denial that is too large to keep does not.
            bench.puller.doubt(&bench.subject.digest, &spam).await;
        }
        bench.put_bundle("newest");
        bench.clock.advance(LIFE);
        let found = bench.find(&[Bundles]).await;
        assert!(contents(&found.material).contains(&"newest") && found.material.more, "{keeping:?}");
    }
}

#[tokio::test]
async fn a_bundle_is_bounded_on_both_sides() {
    let fits = usize::try_from(SIGNATURE_BYTES_MAX).unwrap();
    for (length, found) in [(fits, 1), (fits + 1, 0)] {
        let bench = Bench::new().await;
        bench.put_bundle(&"x".repeat(length));
        let discovered = bench.find(&[Bundles]).await;
        assert_eq!(discovered.material.candidates.len(), found);
        assert_eq!(discovered.material.skipped.len(), 1 - found);
    }
}
