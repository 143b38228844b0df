//! How much is looked at, and that nobody's spam hides what another one signed.

use super::*;
use crate::limits::REFERRER_BYTES_MAX;
use crate::policy::{ClusterImagePolicies, Mode, PolicyFile};
use crate::pull::{Hindrance, PullError};
use crate::store::VerdictFilter;
use crate::testing::sigstore::{FakeSigstore, key_requirement};
use crate::testing::{bundle_image, put_lookaside};
use crate::verify::SigstoreRoot;

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

/// An image with a good bundle, under a policy whose rule must see all there is, or that has none.
async fn released(with_rule: bool) -> Bench {
    released_in(Mode::Enforce, with_rule).await
}

async fn released_in(mode: Mode, with_rule: bool) -> Bench {
    let bench = Bench::new().await;
    let rule = with_rule.then_some("isCompliant {\n  not input.authorityMatches.revoked\n}");
    let sigstore = set_policy(&bench, mode, rule);
    let bundle = sigstore.bundle_keyed(&sigstore.key("release"), &bench.subject.digest).unlogged().build();
    bench.registry.put_untagged(REPOSITORY, &bundle_image(&bench.subject, &bundle));
    bench
}

fn set_policy(bench: &Bench, mode: Mode, rule: Option<&str>) -> FakeSigstore {
    let sigstore = FakeSigstore::from_seed(7, Clock::System.now());
    let root = SigstoreRoot::from_json(sigstore.trusted_root_json().as_bytes()).unwrap();
    let key = sigstore.key("release");
    let authority = json!({ "key": { "data": key.public_pem() }, "signatureFormat": "bundle" });
    let mut document = json!({
        "apiVersion": "policy.sigstore.dev/v1beta1", "kind": "ClusterImagePolicy", "metadata": { "name": "p" },
        "spec": { "images": [{ "glob": "**" }], "authorities": [authority] },
    });
    if let Some(rule) = rule {
        let module = format!("package sigstore\n{rule}\n");
        document["spec"]["policy"] = json!({ "type": "rego", "data": module });
    }
    let file = PolicyFile::parse("a.yaml", document.to_string().as_bytes(), &mut |_| Err("no files".to_owned()));
    let policies = ClusterImagePolicies::resolve(vec![file.unwrap()], &root).unwrap();
    let policy = PolicySet::new(PolicySettings { cluster_image_policies: Some(policies), mode, ..Default::default() });
    let snapshot = Snapshot { policy: policy.unwrap(), ..snapshot() };
    bench.puller.parts.snapshot.store(Arc::new(snapshot));
    sigstore
}

/// Whether it is served: no answer at all is an error.
async fn is_served(bench: &Bench) -> Result<(), PullError> {
    let image = format!("{HOST}/{REPOSITORY}:1").parse().unwrap();
    bench.puller.manifest(&image).await.map(drop)
}

/// A referrer whose manifest has that many bytes.
fn padded_referrer(bench: &Bench, bytes: u64) -> BuiltImage {
    let build = |padding: usize| {
        let artefact = layered(BUNDLE_TYPE, &["not looked at"]).subject(bench.subject.descriptor());
        artefact.annotation("padding", &"x".repeat(padding)).build()
    };
    let bytes = usize::try_from(bytes).unwrap();
    let padded = build(bytes - build(0).manifest.bytes.len());
    assert_eq!(padded.manifest.bytes.len(), bytes);
    padded
}

#[tokio::test]
async fn v_18_a_rule_decides_on_no_part_of_what_there_is_when_a_referrer_is_longer_than_its_bound() {
    for (bytes, fits) in [(REFERRER_BYTES_MAX, true), (REFERRER_BYTES_MAX + 1, false)] {
        for with_rule in [false, true] {
            let bench = released(with_rule).await;
            assert!(is_served(&bench).await.is_ok(), "alone");
            let bench = released(with_rule).await;
            bench.registry.put_untagged(REPOSITORY, &padded_referrer(&bench, bytes));
            let answer = is_served(&bench).await;
            assert_eq!(answer.is_ok(), fits || !with_rule, "{bytes} bytes, rule {with_rule}: {answer:?}");
            if let Err(error) = answer {
                assert!(!matches!(error, PullError::Denied(_)), "no answer: {error:?}");
                assert!(format!("{error:?}").contains("longer than 256 KiB"), "it says what is not read: {error:?}");
            }
        }
    }
}

/// What is listed and cannot be had may say what the rule must hear.
#[tokio::test]
async fn a_rule_decides_on_no_part_of_what_there_is_when_what_is_listed_is_not_there() {
    for with_rule in [false, true] {
        for blob in [false, true] {
            let bench = released(with_rule).await;
            let digest = bench.put_bundle("revoked");
            let path =
                if blob { format!("*/blobs/{}", Digest::sha256(b"revoked")) } else { format!("*/manifests/{digest}") };
            bench.registry.fault(Fault::on(&path).status(404));
            let answer = is_served(&bench).await;
            assert_eq!(answer.is_ok(), !with_rule, "{path}, rule {with_rule}: {answer:?}");
        }
    }
}

/// A rule that lacks evidence is no rule that failed: audit mode serves, and the reason is what stands in the way.
#[tokio::test]
async fn audit_mode_serves_what_a_rule_lacks_evidence_for_and_not_what_it_fails_at() {
    for (status, fails, served) in [(500, false, true), (404, false, true), (500, true, false)] {
        for mode in [Mode::Enforce, Mode::Audit] {
            let bench = released_in(mode, true).await;
            if fails {
                let rule =
                    "isCompliant = true { input.authorityMatches }\nisCompliant = false { input.authorityMatches }";
                set_policy(&bench, mode, Some(rule));
            } else {
                bench.put_bundle("revoked");
                bench.registry.fault(Fault::on(&format!("*/blobs/{}", Digest::sha256(b"revoked"))).status(status));
            }
            let answer = is_served(&bench).await;
            assert_eq!(answer.is_ok(), served && mode == Mode::Audit, "{status} {fails} {mode:?}: {answer:?}");
            let expected = if fails { Hindrance::PolicyRule } else { Hindrance::Evidence };
            if let Err(error) = answer {
                assert!(
                    matches!(&error, PullError::Undecided { hindrance, .. } if *hindrance == expected),
                    "{error:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn all_that_an_allow_rested_on_is_looked_at_again() {
    let bench = Bench::new().await;
    bench.put_bundles(CANDIDATES_MAX);
    let all = bench.find(&[Bundles]).await;
    assert_eq!(all.material.candidates.len(), CANDIDATES_MAX);
    bench.keep(&all).await;
    let bench = bench.restart();
    bench.clock.advance(LIFE);
    let again = bench.find(&[Bundles]).await;
    assert!(again.missing.is_none());
    assert_eq!((again.material.candidates.len(), again.material.more), (CANDIDATES_MAX, false));
    // Whatever is put beside it later.
    for number in 0..300 {
        bench.put_bundle(&format!("spam {number}"));
    }
    bench.clock.advance(LIFE);
    let (last, again) = (CANDIDATES_MAX - 1, bench.find(&[Bundles]).await);
    assert!(contents(&again.material).contains(&format!("bundle {last}").as_str()) && again.material.more);
}

/// However many verdicts are reached at once, what they hold of signatures is bounded; small ones do not notice.
#[tokio::test]
async fn r_02_large_material_waits_for_room_and_what_got_none_denies_nothing_and_is_not_remembered() {
    let bench = Bench::new().await;
    let large = "x".repeat(usize::try_from(MATERIAL_UNCOUNTED_BYTES).unwrap() - 1);
    bench.put_signatures(&[&large]);
    let top = Level::Verdict(Depth::TOP);
    let all =
        bench.puller.parts.rooms.registries.take(top, MATERIAL_IN_FLIGHT_BYTES_MAX, Instant::now()).await.unwrap();
    let small = bench.find(&[Signatures]).await;
    assert!(is_clean(&small) && small.material.candidates.len() == 1, "what is small has room");
    bench.put_bundle("too much together with the other");
    let budget = Duration::from_secs(1);
    let nothing = bench.find_wanted(&wanted(&ALL), budget).await;
    assert!(nothing.no_room && nothing.missing.is_some() && nothing.material.candidates.is_empty());
    drop(all);
    let held = bench.hold(&wanted(&ALL), budget).await;
    assert!(is_clean(&held.found) && held.found.material.candidates.len() == 2);
    let rooms = &bench.puller.parts.rooms.registries;
    assert!(rooms.try_take(top, MATERIAL_IN_FLIGHT_BYTES_MAX).is_err(), "it has its room for as long as it is held");
    assert!(rooms.try_take(Level::Report, MATERIAL_IN_FLIGHT_BYTES_MAX).is_ok());
    let found = Arc::clone(&held.found);
    drop(held);
    assert!(rooms.try_take(top, MATERIAL_IN_FLIGHT_BYTES_MAX).is_ok(), "what is remembered takes none");
    assert!(Arc::ptr_eq(&found, &bench.hold(&wanted(&ALL), budget).await.found));
    assert!(rooms.try_take(top, MATERIAL_IN_FLIGHT_BYTES_MAX).is_ok(), "nor what comes from memory");
}

/// Lookaside servers do not say how much they have, so that room for the most is taken, and given back but for what came.
#[tokio::test]
async fn r_02_lookaside_signatures_take_the_room_that_they_need_and_keep_none() {
    let bench = Bench::new().await;
    let signature = vec![0xa3; 40 * 1024];
    put_lookaside(&bench.registry, REPOSITORY, &bench.subject.digest, &[signature.clone(), signature]);
    let base: LookasideBase = bench.registry.lookaside_url().parse().unwrap();
    let wanted = Wanted { lookaside: Some(base), ..wanted(&ALL) };
    let budget = Duration::from_secs(1);
    let (rooms, top) = (&bench.puller.parts.rooms, Level::Verdict(Depth::TOP));
    let all = rooms.lookasides.try_take(top, MATERIAL_IN_FLIGHT_BYTES_MAX).unwrap();
    let nothing = bench.hold(&wanted, budget).await;
    assert!(nothing.found.no_room && nothing.found.missing.is_some());
    drop((all, nothing));
    // What registries have takes nothing from it, nor the other way round.
    let registries = rooms.registries.try_take(top, MATERIAL_IN_FLIGHT_BYTES_MAX).unwrap();
    let held = bench.hold(&wanted, budget).await;
    assert!(!held.found.no_room && held.found.missing.is_none(), "{held:?}");
    assert!(rooms.lookasides.try_take(top, MATERIAL_IN_FLIGHT_BYTES_MAX - 80 * 1024).is_ok());
    assert!(rooms.lookasides.try_take(top, MATERIAL_IN_FLIGHT_BYTES_MAX - 80 * 1024 + 1).is_err());
    drop((held, registries));
    assert!(rooms.lookasides.try_take(top, MATERIAL_IN_FLIGHT_BYTES_MAX).is_ok());
}

/// Want of room is a limit, which audit mode does not lift, and no verdict.
#[tokio::test]
async fn r_02_who_gets_no_room_is_told_to_come_again_also_in_audit_mode() {
    let bench = Bench::new().await;
    let key = FakeSigstore::from_seed(7, Clock::System.now()).key("k");
    let document = json!({ "default": [key_requirement(&key)] }).to_string();
    let document = ContainersPolicyDocument::parse(document.as_bytes()).unwrap();
    let policy = ContainersPolicy::resolve(document, &mut |_| Err("no files".to_owned())).unwrap();
    let settings = PolicySettings { containers_policy: Some(policy), mode: Mode::Audit, ..PolicySettings::default() };
    let snapshot = Snapshot { policy: PolicySet::new(settings).unwrap(), ..snapshot() };
    bench.puller.parts.snapshot.store(Arc::new(snapshot));
    bench.put_signatures(&[&"x".repeat(usize::try_from(MATERIAL_UNCOUNTED_BYTES).unwrap() + 1)]);
    let top = Level::Verdict(Depth::TOP);
    let all = bench.puller.parts.rooms.registries.try_take(top, MATERIAL_IN_FLIGHT_BYTES_MAX).unwrap();
    let image = format!("{HOST}/{REPOSITORY}:1").parse().unwrap();
    tokio::time::pause();
    assert!(matches!(bench.puller.manifest(&image).await, Err(PullError::Overloaded)));
    tokio::time::resume();
    let metrics = bench.puller.parts.telemetry.render();
    assert!(metrics.contains("sealgate_overloads_total{bound=\"material\"} 1"), "{metrics}");
    assert!(bench.store.verdicts(&VerdictFilter::default()).await.is_empty());
    drop(all);
    assert!(bench.puller.manifest(&image).await.is_ok(), "with room it is judged, and served in audit mode");
}
