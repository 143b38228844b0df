//! Manifests by tag and digest, and what an admission grants: the real `Puller` between a fake registry and a real store.

use std::time::Duration;

use sealgate::oci::{Algorithm, Digest, MediaType};
use sealgate::policy::Reason;
use sealgate::pull::{PullError, TagList};
use sealgate::telemetry::{CacheResult, DecisionLabel};
use sealgate::testing::{Fault, Referrers};
use serde_json::json;

use crate::lab::{Lab, Policy, denied_for, is_undecided};

#[tokio::test]
async fn v_01_a_signed_image_is_served_and_an_unsigned_one_denied() {
    let lab = Lab::new(Policy::Signed).await;
    let (signed, unsigned) = (lab.image("signed"), lab.image("unsigned"));
    lab.tag("signed", &signed);
    lab.tag("unsigned", &unsigned);
    lab.sign(&signed.digest);

    let admitted = lab.pull("signed").await.unwrap();
    assert_eq!(admitted.bytes(), &signed.bytes);
    assert_eq!(admitted.digest(), &signed.digest);
    assert_eq!(admitted.media_type(), MediaType::OciManifest);
    assert_eq!(admitted.decision(), DecisionLabel::Allow);
    assert!(admitted.verdict().is_some());
    assert_eq!(denied_for(lab.pull("unsigned").await), Reason::NoSignature);
    assert_eq!(denied_for(lab.pull_digest(&unsigned.digest).await), Reason::NoSignature);
    assert!(lab.has_content(&signed.digest).await);
    assert!(!lab.has_content(&unsigned.digest).await, "nothing that was denied is kept");
}

#[tokio::test]
async fn what_one_repository_has_is_not_visible_through_another() {
    let lab = Lab::new(Policy::AcceptAnything).await;
    let image = lab.image("1");
    lab.tag("1", &image);
    lab.pull("1").await.unwrap();
    assert!(matches!(lab.pull_digest_of("team/other", &image.digest).await, Err(PullError::ManifestUnknown)));
}

#[tokio::test]
async fn a_signature_by_another_key_or_for_another_repository_denies() {
    let lab = Lab::new(Policy::Signed).await;
    let (other_key, elsewhere) = (lab.image("other key"), lab.image("elsewhere"));
    lab.tag("1", &other_key);
    lab.tag("2", &elsewhere);
    lab.sign_with_another_key(&other_key.digest);
    lab.sign_as("registry.test/team/other", &elsewhere.digest);
    assert_eq!(denied_for(lab.pull("1").await), Reason::BadSignature);
    assert_eq!(denied_for(lab.pull("2").await), Reason::IdentityMismatch);
}

#[tokio::test]
async fn an_admitted_tag_grants_its_digest_without_another_question() {
    let lab = Lab::new(Policy::Signed).await;
    let image = lab.signed_image("1");
    lab.pull("1").await.unwrap();
    let asked = lab.requests();
    let admitted = lab.pull_digest(&image.digest).await.unwrap();
    assert_eq!((admitted.cache(), admitted.bytes()), (CacheResult::Hit, &image.bytes));
    assert_eq!(lab.requests(), asked);
}

#[tokio::test]
async fn a_cold_tag_costs_one_head_one_get_and_one_look_for_signatures() {
    let lab = Lab::new(Policy::Signed).await;
    let image = lab.signed_image("1");
    lab.pull("1").await.unwrap();
    assert_eq!(lab.asked("HEAD", "/manifests/1"), 1);
    assert_eq!(lab.asked("GET", "/manifests/1"), 0);
    assert_eq!(lab.asked("GET", &format!("/manifests/{}", image.digest)), 1);
    assert_eq!(lab.asked("GET", ".sig"), 1);
    assert_eq!(lab.asked("GET", "/blobs/"), 1);
}

#[tokio::test]
async fn a_warm_tag_costs_nothing_and_an_old_one_a_head() {
    let lab = Lab::new(Policy::Signed).await;
    lab.signed_image("1");
    lab.pull("1").await.unwrap();
    let asked = lab.requests();
    lab.clock.advance(Duration::from_secs(59));
    assert_eq!(lab.pull("1").await.unwrap().cache(), CacheResult::Hit);
    assert_eq!(lab.requests(), asked);
    lab.clock.advance(Duration::from_secs(1));
    assert_eq!(lab.pull("1").await.unwrap().cache(), CacheResult::Revalidated);
    assert_eq!((lab.requests(), lab.asked("HEAD", "/manifests/1")), (asked + 1, 2));
}

#[tokio::test]
async fn a_warm_allowed_manifest_costs_no_upstream_call_no_file_and_no_database() {
    let lab = Lab::new(Policy::Signed).await;
    let image = lab.signed_image("1");
    lab.pull("1").await.unwrap();
    lab.pull_digest(&image.digest).await.unwrap();
    let before = (lab.requests(), lab.database_reads());
    assert!(before.1 > 0.0);
    lab.remove_files();
    for _ in 0..10 {
        assert_eq!(lab.pull_digest(&image.digest).await.unwrap().bytes(), &image.bytes);
        assert_eq!(lab.pull("1").await.unwrap().bytes(), &image.bytes);
    }
    assert_eq!((lab.requests(), lab.database_reads()), before);
}

/// CVE-2026-122321.
#[tokio::test]
async fn t1_a_moved_tag_is_verified_again() {
    let lab = Lab::new(Policy::Signed).await;
    lab.signed_image("1");
    lab.pull("1").await.unwrap();
    let evil = lab.image("evil");
    lab.tag("1", &evil);
    lab.clock.advance(Duration::from_secs(61));
    assert_eq!(denied_for(lab.pull("1").await), Reason::NoSignature);
    assert_eq!(denied_for(lab.pull_digest(&evil.digest).await), Reason::NoSignature);
}

/// CVE-2022-47633, CVE-2023-47630, CVE-2023-33959.
#[tokio::test]
async fn v_07_t4_what_is_served_is_what_was_verified_whatever_the_tag_names_next() {
    let lab = Lab::new(Policy::Signed).await;
    let (good, evil) = (lab.signed_image("1"), lab.image("evil"));
    lab.head_without_digest("1");
    lab.answer_in_turn("1", &[&good, &evil]);
    let admitted = lab.pull("1").await.unwrap();
    assert_eq!(admitted.bytes(), &good.bytes);
    assert_eq!(lab.asked("GET", "/manifests/1"), 1);
    assert_eq!(lab.pull_digest(admitted.digest()).await.unwrap().bytes(), &good.bytes);
    assert_eq!(lab.asked("GET", &format!("/manifests/{}", good.digest)), 0);
}

#[tokio::test]
async fn u_20_when_head_names_a_digest_that_is_not_there_get_decides() {
    let lab = Lab::new(Policy::Signed).await;
    let image = lab.signed_image("1");
    lab.head_claims("1", &Digest::sha256(b"what never was"));
    assert_eq!(lab.pull("1").await.unwrap().digest(), &image.digest);
}

#[tokio::test]
async fn u_21_a_tag_that_moves_between_head_and_get_gives_one_whole_image_or_a_refusal() {
    let lab = Lab::new(Policy::Signed).await;
    let (good, evil) = (lab.signed_image("1"), lab.image("evil"));
    lab.tag("1", &evil);
    // HEAD still says the signed one; by digest upstream has both.
    lab.head_claims("1", &good.digest);
    let admitted = lab.pull("1").await.unwrap();
    assert_eq!((admitted.digest(), admitted.bytes()), (&good.digest, &good.bytes));
    lab.clock.advance(Duration::from_secs(61));
    lab.head_claims("1", &evil.digest);
    assert_eq!(denied_for(lab.pull("1").await), Reason::NoSignature);
}

#[tokio::test]
async fn v_06_bytes_keep_the_type_under_which_they_were_first_admitted() {
    let lab = Lab::new(Policy::AcceptAnything).await;
    let image = lab.untyped_image("1", MediaType::OciManifest);
    assert_eq!(lab.pull("1").await.unwrap().media_type(), MediaType::OciManifest);
    lab.retype(&image, MediaType::DockerManifest);
    let lab = lab.with_another_puller();
    lab.clock.advance(Duration::from_secs(61));
    assert_eq!(lab.pull("1").await.unwrap().media_type(), MediaType::OciManifest);
    assert_eq!(lab.pull_digest(&image.digest).await.unwrap().media_type(), MediaType::OciManifest);
}

/// CVE-2025-46342.
#[tokio::test]
async fn t16_u_25_an_error_at_any_step_of_discovery_is_undecided_and_never_unsigned() {
    for status in [401, 403, 429, 500, 502, 503] {
        for place in [".sig", "/blobs/"] {
            let lab = Lab::new(Policy::Signed).await;
            let image = lab.signed_image("1");
            lab.fail(place, status);
            assert!(is_undecided(&lab.pull("1").await), "{status} at {place}");
            assert!(is_undecided(&lab.pull_digest(&image.digest).await), "{status} at {place}");
            assert!(lab.verdicts().await.is_empty(), "{status} at {place}");
            let lab = lab.heal().with_another_puller();
            assert_eq!(lab.pull("1").await.unwrap().digest(), &image.digest, "{status} at {place}");
        }
    }
}

#[tokio::test]
async fn t16_signatures_that_do_not_come_in_time_are_undecided() {
    let lab = Lab::new(Policy::AcceptAnything).await;
    let image = lab.signed_image("1");
    lab.pull("1").await.unwrap();
    lab.reload(Policy::Signed);
    lab.hang(".sig");
    tokio::time::pause();
    assert!(is_undecided(&lab.pull("1").await));
    assert!(is_undecided(&lab.pull_digest(&image.digest).await));
}

#[tokio::test]
async fn all_grants_of_a_blob_together_take_no_longer_than_one_verdict() {
    let lab = Lab::new(Policy::AcceptAnything).await;
    let image = lab.image("1");
    for tag in ["1", "2", "3", "4", "5"] {
        lab.tag(tag, &image);
        lab.pull(tag).await.unwrap();
    }
    lab.reload(Policy::Signed);
    lab.hang(".sig");
    tokio::time::pause();
    assert!(is_undecided(&lab.blob(&image.layers[0]).await));
    // The first takes eight seconds, the second the rest of the ten; for the other three there is no time.
    assert!(lab.asked("GET", ".sig") <= 2, "asked {} times", lab.asked("GET", ".sig"));
    // None of them was taken away.
    tokio::time::resume();
    lab.registry.heal();
    lab.reload(Policy::AcceptAnything);
    lab.blob(&image.layers[0]).await.unwrap();
}

#[tokio::test]
async fn f_08_while_the_clock_lies_behind_certificates_are_not_judged_and_old_allows_go_on() {
    let lab = Lab::new(Policy::Keyless).await;
    let (old, new) = (lab.image("old"), lab.image("new"));
    lab.tag("old", &old);
    lab.tag("new", &new);
    lab.sign_keyless(&old.digest);
    lab.sign_keyless(&new.digest);
    lab.pull("old").await.unwrap();
    let now = lab.clock.now();
    lab.clock.set(now.minus(Duration::from_secs(24 * 3600)));
    lab.pull("old").await.unwrap();
    assert!(is_undecided(&lab.pull("new").await));
    lab.clock.set(now);
    lab.pull("new").await.unwrap();
}

#[tokio::test]
async fn v_19_one_good_signature_among_bad_ones_is_found() {
    let lab = Lab::new(Policy::Signed).await;
    let image = lab.image("1");
    lab.tag("1", &image);
    lab.sign_badly(&image.digest, 64, true);
    lab.pull("1").await.unwrap();
}

/// CVE-2023-46737, CVE-2024-29902, CVE-2024-29903.
#[tokio::test]
async fn v_18_more_signatures_than_are_examined_deny_with_a_reason_of_their_own() {
    for count in [65, 5_000] {
        let lab = Lab::new(Policy::Signed).await;
        let image = lab.image("1");
        lab.tag("1", &image);
        lab.sign_badly(&image.digest, count, false);
        assert_eq!(denied_for(lab.pull("1").await), Reason::TooManySignatures, "{count}");
    }
}

#[tokio::test]
async fn v_20_bytes_of_another_digest_say_nothing_about_the_signature_that_should_be_there() {
    let lab = Lab::new(Policy::Signed).await;
    let image = lab.signed_image("1");
    lab.corrupt_payloads(&image.digest);
    assert!(
        is_undecided(&lab.pull("1").await),
        "the registry or something before it is at fault, perhaps for a moment"
    );
    assert!(lab.verdicts().await.is_empty(), "and nothing of it is kept");
    // Once it has passed nobody waits for the end of a denial.
    lab.heal().pull("1").await.unwrap();
}

#[tokio::test]
async fn v_21_a_signature_tag_that_holds_an_index_has_no_signatures() {
    let lab = Lab::new(Policy::Signed).await;
    let image = lab.image("1");
    lab.tag("1", &image);
    let index = lab.index(&[&image]);
    lab.tag(&lab.signature_tag(&image.digest), &index);
    assert!(matches!(denied_for(lab.pull("1").await), Reason::NoSignature | Reason::BadSignature));
}

/// CVE-2026-35172.
#[tokio::test]
async fn v_25_a_blob_is_there_only_for_those_whose_admitted_manifest_lists_it() {
    let lab = Lab::new(Policy::Signed).await;
    let image = lab.signed_image("1");
    let layer = image.layers[0];
    assert!(matches!(lab.blob(&layer).await, Err(PullError::BlobUnknown)));
    lab.pull("1").await.unwrap();
    assert_eq!(lab.blob(&layer).await.unwrap(), lab.content(&layer));
    assert_eq!(lab.blob(&image.config).await.unwrap(), lab.content(&image.config));

    let never = Digest::sha256(b"never linked");
    assert!(matches!(lab.blob(&never).await, Err(PullError::BlobUnknown)));
    assert!(matches!(lab.blob_of("team/other", &layer).await, Err(PullError::BlobUnknown)));
    assert!(matches!(lab.blob_of_other_upstream(&layer).await, Err(PullError::BlobUnknown)));
    // A manifest is no blob.
    assert!(matches!(lab.blob(&image.digest).await, Err(PullError::BlobUnknown)));
    // And a blob is no manifest.
    assert!(lab.pull_digest(&layer).await.is_err());
}

/// CVE-2024-39897.
#[tokio::test]
async fn v_25_a_blob_without_a_grant_costs_no_request_whether_or_not_it_is_cached() {
    let lab = Lab::new(Policy::Signed).await;
    let image = lab.signed_image("1");
    lab.pull("1").await.unwrap();
    lab.blob(&image.layers[0]).await.unwrap();
    let asked = lab.requests();
    assert!(lab.blob_of("team/other", &image.layers[0]).await.is_err());
    assert!(lab.blob_of("team/other", &Digest::sha256(b"unknown")).await.is_err());
    assert_eq!(lab.requests(), asked);
}

#[tokio::test]
async fn v_25_a_reload_that_refuses_takes_the_grants_away_at_once() {
    let lab = Lab::new(Policy::Signed).await;
    let image = lab.signed_image("1");
    lab.pull("1").await.unwrap();
    lab.blob(&image.layers[0]).await.unwrap();
    lab.reload(Policy::SignedByAnother);
    assert!(matches!(lab.blob(&image.layers[0]).await, Err(PullError::BlobUnknown)));
    assert_eq!(denied_for(lab.pull("1").await), Reason::BadSignature);
    assert_eq!(denied_for(lab.pull_digest(&image.digest).await), Reason::BadSignature);
    // Once taken away a grant does not come back by itself.
    lab.reload(Policy::Signed);
    assert!(matches!(lab.blob(&image.layers[0]).await, Err(PullError::BlobUnknown)));
    lab.pull("1").await.unwrap();
    lab.blob(&image.layers[0]).await.unwrap();
}

#[tokio::test]
async fn a_grant_whose_verdict_cannot_be_reached_is_undecided_and_stays() {
    let lab = Lab::new(Policy::Signed).await;
    let image = lab.signed_image("1");
    lab.pull("1").await.unwrap();
    // What was found a minute ago does not count any more.
    lab.clock.advance(Duration::from_secs(61));
    lab.reload(Policy::SignedByAnother);
    lab.fail(".sig", 500);
    assert!(is_undecided(&lab.blob(&image.layers[0]).await));
    lab.reload(Policy::Signed);
    lab.blob(&image.layers[0]).await.unwrap();
}

#[tokio::test]
async fn v_27_signature_artefacts_of_a_denied_image_pass() {
    let lab = Lab::new(Policy::Signed).await;
    let image = lab.image("1");
    lab.tag("1", &image);
    let payloads = lab.sign_with_another_key(&image.digest);
    assert_eq!(denied_for(lab.pull("1").await), Reason::BadSignature);
    let admitted = lab.pull(&lab.signature_tag(&image.digest)).await.unwrap();
    assert_eq!((admitted.decision(), admitted.verdict()), (DecisionLabel::Allow, None));
    lab.pull_digest(admitted.digest()).await.unwrap();
    for payload in payloads {
        lab.blob(&payload).await.unwrap();
    }
}

#[tokio::test]
async fn v_27_an_image_under_a_signature_tag_is_decided_like_any_image() {
    let lab = Lab::new(Policy::Signed).await;
    let (image, hidden) = (lab.image("1"), lab.image("hidden"));
    for suffix in [".sig", ".att", ".sbom", ""] {
        let tag = format!("sha256-{}{suffix}", image.digest.hex());
        lab.tag(&tag, &hidden);
        denied_for(lab.pull(&tag).await);
        denied_for(lab.pull_digest(&hidden.digest).await);
        assert!(matches!(lab.blob(&hidden.layers[0]).await, Err(PullError::BlobUnknown)), "{tag}");
    }
}

#[tokio::test]
async fn v_27_an_artefact_with_binary_content_does_not_pass() {
    let lab = Lab::new(Policy::Signed).await;
    let image = lab.image("1");
    for content in [&b"a tar has \0 in it"[..], &[0x1f, 0x8b, 0x08, 0x01], &[0xff, 0xfe]] {
        let artefact = lab.artefact("application/vnd.in-toto+json", content, None);
        lab.tag(&lab.signature_tag(&image.digest), &artefact);
        denied_for(lab.pull(&lab.signature_tag(&image.digest)).await);
        assert!(matches!(lab.blob(&artefact.layers[0]).await, Err(PullError::BlobUnknown)));
        lab.clock.advance(Duration::from_secs(61));
    }
}

#[tokio::test]
async fn v_27_a_referrer_passes_by_digest_and_a_manifest_hidden_in_one_does_not() {
    let lab = Lab::new(Policy::Signed).await;
    let (image, hidden) = (lab.image("1"), lab.image("hidden"));
    // The layer's text is itself the manifest of an image.
    let artefact = lab.artefact("application/vnd.in-toto+json", &hidden.bytes, Some(&image));
    lab.pull_digest(&artefact.digest).await.unwrap();
    lab.blob(&artefact.layers[0]).await.unwrap();
    denied_for(lab.pull_digest(&hidden.digest).await);
    assert!(matches!(lab.blob(&artefact.digest).await, Err(PullError::BlobUnknown)));
}

#[tokio::test]
async fn v_27_the_fallback_index_grants_nothing_but_itself() {
    let lab = Lab::new(Policy::Signed).await;
    let (image, hidden) = (lab.image("1"), lab.image("hidden"));
    let index = lab.index_without_platforms(&[&hidden]);
    let tag = format!("sha256-{}", image.digest.hex());
    lab.tag(&tag, &index);
    lab.pull(&tag).await.unwrap();
    denied_for(lab.pull_digest(&hidden.digest).await);
    // With platforms it is an index to run from.
    let index = lab.index(&[&hidden]);
    lab.tag(&tag, &index);
    lab.clock.advance(Duration::from_secs(61));
    denied_for(lab.pull(&tag).await);
}

#[tokio::test]
async fn an_artefact_that_cannot_be_read_whole_is_not_served() {
    let lab = Lab::new(Policy::Signed).await;
    let image = lab.image("1");
    lab.sign(&image.digest);
    lab.fail("/blobs/", 500);
    assert!(matches!(lab.pull(&lab.signature_tag(&image.digest)).await, Err(PullError::Upstream(_))));
}

#[tokio::test]
async fn v_31_nothing_trusted_under_sha256_is_trusted_under_sha512() {
    let lab = Lab::new(Policy::Signed).await;
    let image = lab.signed_image("1");
    lab.pull("1").await.unwrap();
    let long = Digest::of(Algorithm::Sha512, &image.bytes);
    lab.serve_under(&long, &image);
    assert_eq!(denied_for(lab.pull_digest(&long).await), Reason::UnsupportedDigest);
    lab.reload(Policy::AcceptAnything);
    assert_eq!(lab.pull_digest(&long).await.unwrap().digest(), &long);
}

#[tokio::test]
async fn v_32_a_denied_image_that_is_signed_later_is_served_within_the_life_of_the_denial() {
    let lab = Lab::new(Policy::Signed).await;
    let image = lab.image("1");
    lab.tag("1", &image);
    denied_for(lab.pull("1").await);
    lab.sign(&image.digest);
    lab.clock.advance(Duration::from_secs(30));
    denied_for(lab.pull("1").await);
    // Another reference is judged anew, from the same old look at upstream: it must not make the denial live longer.
    denied_for(lab.pull_digest(&image.digest).await);
    lab.clock.advance(Duration::from_secs(31));
    lab.pull("1").await.unwrap();
    lab.pull_digest(&image.digest).await.unwrap();
}

#[tokio::test]
async fn a_missing_manifest_is_remembered_for_ten_seconds() {
    let lab = Lab::new(Policy::Signed).await;
    let digest = Digest::sha256(b"not there");
    assert!(matches!(lab.pull("none").await, Err(PullError::ManifestUnknown)));
    assert!(matches!(lab.pull_digest(&digest).await, Err(PullError::ManifestUnknown)));
    let asked = lab.requests();
    lab.clock.advance(Duration::from_secs(9));
    assert!(matches!(lab.pull("none").await, Err(PullError::ManifestUnknown)));
    assert!(matches!(lab.pull_digest(&digest).await, Err(PullError::ManifestUnknown)));
    assert_eq!(lab.requests(), asked);
    lab.clock.advance(Duration::from_secs(1));
    lab.signed_image("none");
    lab.pull("none").await.unwrap();
}

#[tokio::test]
async fn a_stale_tag_is_served_while_upstream_fails_but_not_for_ever_and_not_after_a_404() {
    let lab = Lab::new(Policy::Signed).await;
    lab.signed_image("1");
    lab.pull("1").await.unwrap();
    lab.clock.advance(Duration::from_secs(3600));
    lab.fail("/manifests/1", 500);
    assert_eq!(lab.pull("1").await.unwrap().cache(), CacheResult::Stale);
    lab.clock.advance(Duration::from_secs(23 * 3600 + 60));
    assert!(lab.pull("1").await.is_err());
    let lab = lab.heal().with_another_puller();
    lab.pull("1").await.unwrap();
    lab.clock.advance(Duration::from_secs(61));
    lab.untag("1");
    assert!(matches!(lab.pull("1").await, Err(PullError::ManifestUnknown)));
    lab.clock.advance(Duration::from_secs(11));
    lab.fail("/manifests/1", 500);
    assert!(matches!(lab.pull("1").await, Err(PullError::Upstream(_))));
}

#[tokio::test]
async fn a_stale_tag_is_not_served_when_upstream_refuses_access() {
    let lab = Lab::new(Policy::Signed).await;
    lab.signed_image("1");
    lab.pull("1").await.unwrap();
    lab.clock.advance(Duration::from_secs(61));
    lab.fail("/manifests/1", 403);
    assert!(matches!(lab.pull("1").await, Err(PullError::Upstream(_))));
}

#[tokio::test]
async fn a_slow_upstream_is_waited_for_two_seconds_when_a_stale_tag_can_stand_in() {
    let lab = Lab::new(Policy::Signed).await;
    lab.signed_image("1");
    lab.pull("1").await.unwrap();
    lab.clock.advance(Duration::from_secs(61));
    lab.hang("/manifests/1");
    tokio::time::pause();
    assert_eq!(lab.pull("1").await.unwrap().cache(), CacheResult::Stale);
}

#[tokio::test]
async fn f_07_many_clients_of_a_cold_image_cost_one_fetch_and_one_verification() {
    let lab = Lab::new(Policy::Signed).await;
    let image = lab.signed_image("1");
    let by_tag = futures_util::future::join_all((0..1000).map(|_| lab.pull("1"))).await;
    assert!(by_tag.into_iter().all(|result| result.unwrap().digest() == &image.digest));
    assert_eq!(lab.asked("HEAD", "/manifests/1"), 1);
    assert_eq!(lab.asked("GET", &format!("/manifests/{}", image.digest)), 1);
    assert_eq!(lab.asked("GET", ".sig"), 1);
    assert_eq!(lab.verdicts().await.len(), 1);
}

#[tokio::test]
async fn f_05_a_client_that_leaves_does_not_stop_the_others() {
    let lab = Lab::new(Policy::Signed).await;
    let image = lab.signed_image("1");
    lab.registry.fault(Fault::on("*.sig").get().delay(Duration::from_millis(500)));
    let discovery_began = async {
        while lab.asked("GET", ".sig") == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        result = lab.pull("1") => panic!("it did not wait for upstream: {result:?}"),
        () = discovery_began => {}
    }
    assert_eq!(lab.pull("1").await.unwrap().digest(), &image.digest);
    assert_eq!(lab.asked("GET", ".sig"), 1);
    assert_eq!(lab.asked("GET", &format!("/manifests/{}", image.digest)), 1);
}

#[tokio::test]
async fn an_exemption_serves_until_it_ends_and_so_do_its_grants() {
    let lab = Lab::new(Policy::Signed).await;
    let image = lab.image("1");
    lab.tag("1", &image);
    lab.reload(Policy::Exempt { scope: "registry.test/team/app:1", hours: 2 });
    assert_eq!(lab.pull("1").await.unwrap().decision(), DecisionLabel::Exempt);
    lab.pull_digest(&image.digest).await.unwrap();
    lab.blob(&image.layers[0]).await.unwrap();
    lab.clock.advance(Duration::from_secs(2 * 3600 + 1));
    assert_eq!(denied_for(lab.pull("1").await), Reason::NoSignature);
    denied_for(lab.pull_digest(&image.digest).await);
    assert!(matches!(lab.blob(&image.layers[0]).await, Err(PullError::BlobUnknown)));
}

#[tokio::test]
async fn audit_mode_serves_what_is_denied_or_undecided_until_it_ends() {
    let lab = Lab::new(Policy::Audit).await;
    let (unsigned, unknown) = (lab.image("1"), lab.image("2"));
    lab.tag("1", &unsigned);
    lab.tag("2", &unknown);
    assert_eq!(lab.pull("1").await.unwrap().decision(), DecisionLabel::AuditDeny);
    lab.blob(&unsigned.layers[0]).await.unwrap();
    lab.fail(".sig", 500);
    assert_eq!(lab.pull("2").await.unwrap().decision(), DecisionLabel::AuditUndecided);
    assert_eq!(lab.pull_digest(&unknown.digest).await.unwrap().decision(), DecisionLabel::AuditUndecided);
    lab.blob(&unknown.layers[0]).await.unwrap();
    lab.reload(Policy::Signed);
    assert_eq!(denied_for(lab.pull("1").await), Reason::NoSignature);
    assert!(is_undecided(&lab.pull("2").await));
    assert!(is_undecided(&lab.blob(&unknown.layers[0]).await));
    assert!(matches!(lab.blob(&unsigned.layers[0]).await, Err(PullError::BlobUnknown)));
}

#[tokio::test]
async fn audit_mode_relaxes_no_other_rule() {
    let lab = Lab::new(Policy::Audit).await;
    lab.tag_bytes("ambiguous", br#"{"schemaVersion":2,"config":{},"layers":[],"manifests":[]}"#);
    assert!(matches!(lab.pull("ambiguous").await, Err(PullError::Manifest(_))));
    assert!(matches!(lab.pull("none").await, Err(PullError::ManifestUnknown)));
    assert!(matches!(lab.blob(&Digest::sha256(b"x")).await, Err(PullError::BlobUnknown)));
}

#[tokio::test]
async fn a_scope_for_a_digest_decides_alone() {
    let lab = Lab::new(Policy::Signed).await;
    let image = lab.signed_image("1");
    lab.pull("1").await.unwrap();
    lab.reload(Policy::RejectDigest(image.digest));
    assert_eq!(denied_for(lab.pull_digest(&image.digest).await), Reason::Rejected);
}

#[tokio::test]
async fn referrers_are_an_empty_index_only_when_upstream_says_so() {
    let lab = Lab::new(Policy::Signed).await;
    let image = lab.image("1");
    assert_eq!(lab.referrers(&image.digest, None).await.unwrap()["manifests"], json!([]));
    lab.clock.advance(Duration::from_secs(11));
    lab.fail("/referrers/", 500);
    assert!(matches!(lab.referrers(&image.digest, None).await, Err(PullError::Upstream(_))));
}

#[tokio::test]
async fn referrers_come_from_the_fallback_tag_where_there_is_no_api() {
    let lab = Lab::new(Policy::Signed).await;
    let image = lab.image("1");
    let artefact = lab.artefact("application/vnd.in-toto+json", b"{}", Some(&image));
    lab.registry.set_referrers(Referrers::FallbackTag);
    let index = lab.index_without_platforms(&[&artefact]);
    lab.tag(&format!("sha256-{}", image.digest.hex()), &index);
    let all = lab.referrers(&image.digest, None).await.unwrap();
    assert_eq!(all["manifests"][0]["digest"], json!(artefact.digest.to_string()));
    // The list names no artifact type, so the referrer itself is asked.
    let of_type = lab.referrers(&image.digest, Some("application/x")).await.unwrap();
    assert_eq!(of_type["manifests"][0]["digest"], json!(artefact.digest.to_string()));
    let of_none = lab.referrers(&image.digest, Some("application/y")).await.unwrap();
    assert_eq!(of_none["manifests"], json!([]));
}

#[tokio::test]
async fn tags_come_in_pages() {
    let lab = Lab::new(Policy::Signed).await;
    assert!(matches!(lab.tags(10, None).await, Err(PullError::RepositoryUnknown)));
    let image = lab.image("1");
    for tag in ["b", "a", "c"] {
        lab.tag(tag, &image);
    }
    let names = |list: &TagList| list.tags.iter().map(ToString::to_string).collect::<Vec<_>>();
    let first = lab.tags(2, None).await.unwrap();
    assert_eq!((names(&first), first.more), (vec!["a".to_owned(), "b".to_owned()], true));
    let second = lab.tags(2, Some("b")).await.unwrap();
    assert_eq!((names(&second), second.more), (vec!["c".to_owned()], false));
    let asked = lab.requests();
    assert!(lab.tags(0, None).await.unwrap().tags.is_empty());
    assert_eq!(lab.requests(), asked);
}
