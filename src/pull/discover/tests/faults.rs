//! What goes wrong on the way, and what it costs.

use super::*;

#[tokio::test]
async fn a_repository_of_an_upstream_that_is_not_configured_is_no_answer() {
    let bench = Bench::new().await;
    let repository = Repository::new("other.test".parse().unwrap(), "a".parse().unwrap()).unwrap();
    let source = AlternateSource { repository, tag_prefix: None, kinds: [Signatures].into() };
    let wanted = Wanted { sources: [source].into(), ..Wanted::default() };
    let found = bench.find_wanted(&wanted, Duration::from_mins(1)).await;
    assert!(found.no_evidence().is_some());
}

/// Every request of discovery, with what is still found when it fails.
fn steps(bench: &Bench, referrer: &Digest) -> Vec<(String, Vec<&'static str>)> {
    let blob = |content: &str| format!("*/blobs/{}", Digest::sha256(content.as_bytes()));
    vec![
        ("*.sig".to_owned(), vec!["attestation", "bundle"]),
        ("*.att".to_owned(), vec!["signature", "bundle"]),
        ("*/referrers/*".to_owned(), vec!["signature", "attestation"]),
        (format!("*/manifests/{}", bench.tag("")), vec!["signature", "attestation"]),
        (format!("*/manifests/{referrer}"), vec!["signature", "attestation"]),
        (blob("signature"), vec!["attestation", "bundle"]),
        (blob("attestation"), vec!["signature", "bundle"]),
        (blob("bundle"), vec!["signature", "attestation"]),
    ]
}

#[tokio::test]
async fn u_25_an_error_at_any_step_leaves_the_search_incomplete_and_costs_nothing_else() {
    for status in [401, 403, 429, 500] {
        for step in 0..8 {
            let bench = Bench::new().await;
            bench.put_signatures(&["signature"]);
            bench.put_attestations(&["attestation"]);
            let referrer = bench.put_bundle("bundle");
            let (path, rest) = steps(&bench, &referrer).swap_remove(step);
            if step == 3 {
                bench.registry.set_referrers(Referrers::FallbackTag);
            }
            bench.registry.fault(Fault::on(&path).status(status));
            let found = bench.find(&ALL).await;
            assert!(found.missing.is_some(), "{status} at {path}");
            // A limit holds for all that is asked of that registry from then on.
            if status != 429 {
                assert_eq!(contents(&found.material), rest, "{status} at {path}");
            }
            // It is not remembered.
            bench.registry.heal();
            let bench = bench.restart();
            assert_eq!(bench.find(&ALL).await.material.candidates.len(), 3, "{status} at {path}");
        }
    }
}

#[tokio::test]
async fn when_nothing_could_be_read_it_is_said_what_was_looked_for() {
    let places = [(Signatures, "the signature tag"), (Attestations, "the attestation tag"), (Bundles, "the list of")];
    for (kind, place) in places {
        let bench = Bench::new().await;
        bench.registry.fault(Fault::on("*").status(500));
        let found = bench.find(&[kind]).await;
        let nothing = found.no_evidence().unwrap();
        assert!(nothing.looked_for.starts_with(place), "{}", nothing.looked_for);
    }
}

#[tokio::test]
async fn a_place_that_does_not_answer_in_time_costs_no_other_one_its_material() {
    let bench = Bench::new().await;
    bench.put_signatures(&["signature"]);
    bench.registry.fault(Fault::on("*/referrers/*").hang());
    let found = bench.find_wanted(&wanted(&ALL), Duration::from_secs(3)).await;
    assert!(matches!(found.missing.as_ref().unwrap().cause, UpstreamError::Timeout { .. }));
    assert_eq!(contents(&found.material), ["signature"]);
}

#[tokio::test]
async fn a_web_page_for_the_api_is_no_answer_but_the_fallback_tag_may_have_one() {
    for (status, body) in [(200, "<html>"), (400, "{}"), (405, "{}")] {
        let bench = Bench::new().await;
        bench.registry.set_referrers(Referrers::FallbackTag);
        let page = Fault::on("*/referrers/*").status(status).content_type("text/html").body(body);
        bench.registry.fault(page);
        assert!(bench.find(&[Bundles]).await.no_evidence().is_some(), "{status}");
        bench.put_bundle("bundle");
        let found = bench.find(&[Bundles]).await;
        assert_eq!(contents(&found.material), ["bundle"], "{status}");
        assert!(found.missing.is_some(), "{status}");
    }
}

#[tokio::test]
async fn v_21_what_is_listed_and_not_there_or_no_bundle_is_skipped_and_reported() {
    let bench = Bench::new().await;
    bench.put_bundle("good");
    let subject = || bench.subject.descriptor();
    let another = ImageBuilder::new(2).layer(10).build();
    let bundle = |content: &str| layered(BUNDLE_TYPE, &[content]);
    let old = "application/vnd.dev.sigstore.bundle+json;version=0.1";
    let images = [
        layered(old, &["an old version"]).subject(subject()).build(),
        ImageBuilder::artefact(BUNDLE_TYPE).layer_of("text/plain", "none", &[]).subject(subject()).build(),
        bundle("about another image").subject(another.descriptor()).build(),
    ];
    let index = Content::new(
        crate::oci::Algorithm::Sha256,
        "application/vnd.oci.image.index.v1+json",
        json!({"schemaVersion": 2, "manifests": [], "subject": subject(), "artifactType": BUNDLE_TYPE}).to_string(),
    );
    bench.registry.put_manifest(REPOSITORY, &index);
    let gone = bundle("gone").subject(subject()).build();
    let garbage = Content::new(crate::oci::Algorithm::Sha256, crate::oci::MediaType::OciManifest.as_str(), "{}");
    bench.registry.put_manifest(REPOSITORY, &garbage);
    let mut list: Vec<Value> = images.iter().map(BuiltImage::descriptor).collect();
    for image in &images {
        bench.registry.put_untagged(REPOSITORY, image);
    }
    list.extend([gone.descriptor(), garbage.descriptor()]);
    let mut called_manifest = index.descriptor();
    called_manifest["mediaType"] = json!(crate::oci::MediaType::OciManifest.as_str());
    list.push(called_manifest);
    let good = bench.find(&[Bundles]).await.material.candidates[0].source().manifest;
    let manifest = bench.puller.unverified(&repository(REPOSITORY), &good).await.unwrap().0;
    list.push(json!({"mediaType": manifest.parsed().media_type.as_str(), "digest": good.to_string(), "size": manifest.size()}));
    for entry in &mut list {
        entry["artifactType"] = json!(BUNDLE_TYPE);
    }
    list.push(json!({"mediaType": "a/b", "digest": "sha999:00", "size": 1}));
    bench.registry.set_referrers(Referrers::FallbackTag);
    put_fallback_index(&bench.registry, REPOSITORY, &bench.subject.digest, &list);
    bench.clock.advance(LIFE);
    let found = bench.find(&[Bundles]).await;
    assert_eq!(contents(&found.material), ["good"]);
    assert!(found.missing.is_none());
    let whys: Vec<&str> = found.material.skipped.iter().map(|skipped| skipped.why.as_str()).collect();
    for why in [
        "entries that are no descriptors: 1",
        "it holds a bundle of another version than v0.3",
        "it holds no sigstore bundle, though its type says so",
        "its subject is another manifest",
        "registry.test does not have it",
        "unsupported manifest: schemaVersion is not 2",
        "it is an index, not an image manifest",
    ] {
        assert!(whys.contains(&why), "{why} is not in {whys:?}");
    }
    assert_eq!(whys.len(), 7);
}

#[tokio::test]
async fn v_20_bytes_of_another_digest_are_no_answer_about_the_bundle_that_should_be_there() {
    let bench = Bench::new().await;
    bench.put_bundle("good");
    bench.put_bundle("bad");
    let bad = Digest::sha256(b"bad");
    bench.registry.fault(Fault::on(&format!("*/blobs/{bad}")).wrong_bytes());
    let found = bench.find(&[Bundles]).await;
    assert_eq!(contents(&found.material), ["good"]);
    assert!(found.missing.is_some() && found.material.skipped.len() == 1);
    // It is asked for again.
    bench.registry.heal();
    let found = bench.find(&[Bundles]).await;
    assert!(is_clean(&found) && found.material.candidates.len() == 2);
}

/// Whoever can push can state a wrong size, and gains nothing: it is passed over, and a denial stays one.
#[tokio::test]
async fn v_20_a_descriptor_that_lies_about_a_size_is_skipped_and_leaves_the_answer_clean() {
    let bench = Bench::new().await;
    bench.put_bundle("good");
    for stated in [0, 2, 4] {
        let mut lying = layered(BUNDLE_TYPE, &["bad"]).subject(bench.subject.descriptor()).build();
        let mut document: Value = serde_json::from_slice(&lying.manifest.bytes).unwrap();
        document["layers"][0]["size"] = json!(stated);
        let media_type = lying.manifest.media_type.clone();
        lying.manifest = Content::new(Algorithm::Sha256, &media_type, document.to_string());
        bench.registry.put_untagged(REPOSITORY, &lying);
    }
    let found = bench.find(&[Bundles]).await;
    assert_eq!(contents(&found.material), ["good"]);
    assert!(found.missing.is_none() && found.material.skipped.len() == 3, "{:?}", found.material.skipped);
}

#[tokio::test]
async fn what_lies_at_the_fallback_tag_and_is_no_index_is_reported() {
    for media_type in ["application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"] {
        let bench = Bench::new().await;
        bench.registry.set_referrers(Referrers::FallbackTag);
        let garbage = Content::new(crate::oci::Algorithm::Sha256, media_type, "[]");
        bench.registry.put_manifest(REPOSITORY, &garbage);
        bench.registry.tag(REPOSITORY, &bench.tag(""), garbage.digest);
        let found = bench.find(&[Bundles]).await;
        assert!(found.missing.is_none() && found.material.skipped.len() == 1, "{media_type}");
    }
}

#[tokio::test]
async fn a_page_that_fails_leaves_what_the_pages_before_had() {
    for status in [404, 429, 500] {
        let bench = Bench::new().await;
        bench.put_bundles(3);
        bench.registry.page_referrers(2);
        bench.registry.fault(Fault::on("*/referrers/*").after(1).status(status));
        let found = bench.find(&[Bundles]).await;
        assert!(found.missing.is_some(), "{status}");
        if status != 429 {
            assert_eq!(found.material.candidates.len(), 2, "{status}");
        }
    }
}

#[tokio::test]
async fn a_link_that_leads_in_circles_or_away_leaves_the_search_incomplete() {
    let elsewhere = FakeRegistry::start().await;
    let away = format!("<{}/v2/team/app/referrers/x>; rel=\"next\"", elsewhere.url());
    for link in ["<?from=0>; rel=\"next\"", "</v2/>; rel=\"next\"", away.as_str()] {
        let bench = Bench::new().await;
        bench.put_bundle("bundle");
        bench.registry.fault(Fault::on("*/referrers/*").set_header("link", link));
        let found = bench.find(&[Bundles]).await;
        assert!(found.missing.is_some(), "{link}");
        assert_eq!(contents(&found.material), ["bundle"]);
        assert!(bench.asked("*/referrers/*") <= 2, "{link}");
    }
    assert_eq!(elsewhere.count("*", "*"), 0);
}

#[test]
fn only_an_answer_about_the_content_itself_skips_it() {
    let upstream: Host = "quay.io".parse().unwrap();
    let bad = |reason| UpstreamError::Bad { upstream: upstream.clone(), reason };
    assert!(is_about_the_content(&bad("size_mismatch")) && is_about_the_content(&bad("too_large")));
    assert!(is_about_the_content(&UpstreamError::NotFound { upstream: upstream.clone() }));
    for error in [
        bad("digest_mismatch"),
        bad("truncated"),
        bad("redirect_blocked"),
        UpstreamError::Timeout { upstream: upstream.clone() },
        UpstreamError::Failed { upstream: upstream.clone(), status: 500, retry_after: None },
        UpstreamError::Refused { upstream: upstream.clone(), status: 403 },
    ] {
        assert!(!is_about_the_content(&error), "{error}");
    }
}
