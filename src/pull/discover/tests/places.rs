//! What lies where, and what is asked for it.

use super::*;

#[tokio::test]
async fn each_kind_is_found_at_its_place() {
    let bench = Bench::new().await;
    bench.put_signatures(&["signature 0", "signature 1"]);
    bench.put_attestations(&["attestation"]);
    let referrer = bench.put_bundle("bundle");
    let found = bench.find(&ALL).await;
    assert!(is_clean(&found), "{found:?}");
    assert_eq!(contents(&found.material), ["signature 0", "signature 1", "attestation", "bundle"]);
    assert_eq!(
        places(&found.material),
        [
            ("cosign signature", None, 0),
            ("cosign signature", None, 1),
            ("cosign attestation", None, 0),
            ("sigstore bundle", None, 0),
        ]
    );
    let source = found.material.candidates[3].source();
    assert_eq!((source.place.clone(), source.manifest), (Place::Referrer, referrer));
    assert_eq!(found.material.candidates[2].source().place, Place::Tag(bench.tag(".att")));
    assert_eq!(found.manifest_digests().len(), 3);
}

#[tokio::test]
async fn nothing_is_asked_that_is_not_wanted_and_nothing_twice() {
    let places = [(Signatures, "*.sig", 2), (Attestations, "*.att", 2), (Bundles, "*/referrers/*", 3)];
    for (kind, place, requests) in places {
        let bench = Bench::new().await;
        bench.put_signatures(&["signature"]);
        bench.put_attestations(&["attestation"]);
        bench.put_bundle("bundle");
        assert_eq!(bench.find(&[kind]).await.material.candidates.len(), 1);
        assert_eq!((bench.asked(place), bench.registry.count("*", "*")), (1, requests), "{kind:?}");
        bench.find(&[kind]).await;
        assert_eq!(bench.registry.count("*", "*"), requests, "what is warm costs nothing");
        // What was not looked for then is looked for now.
        assert_eq!(bench.find(&ALL).await.material.candidates.len(), 3);
        bench.clock.advance(LIFE);
        bench.registry.forget_requests();
        bench.find(&[kind]).await;
        assert_eq!(bench.asked(place), 1, "{kind:?} is asked for again when it is old");
    }
}

#[tokio::test]
async fn where_there_is_nothing_a_clean_404_is_an_answer() {
    for referrers in [Referrers::Api, Referrers::FallbackTag] {
        let bench = Bench::new().await;
        bench.registry.set_referrers(referrers);
        let found = bench.find(&ALL).await;
        assert!(is_clean(&found) && found.material.candidates.is_empty() && found.no_evidence().is_none());
        let fallback = usize::from(referrers == Referrers::FallbackTag);
        assert_eq!(bench.registry.count("*", "*"), 3 + fallback);
    }
}

#[tokio::test]
async fn the_fallback_tag_is_asked_where_there_is_no_api() {
    let bench = Bench::new().await;
    bench.registry.set_referrers(Referrers::FallbackTag);
    bench.put_bundle("bundle");
    let found = bench.find(&[Bundles]).await;
    assert!(is_clean(&found));
    assert_eq!(contents(&found.material), ["bundle"]);
}

#[tokio::test]
async fn a_fallback_index_that_lies_about_types_is_looked_into() {
    for stated in [Some(EMPTY_TYPE), Some(""), None, Some(BUNDLE_TYPE)] {
        let bench = Bench::new().await;
        bench.registry.set_referrers(Referrers::FallbackTag);
        let (bundle, sbom) = (layered(BUNDLE_TYPE, &["bundle"]), layered("application/spdx+json", &["{}"]));
        let images = [bundle.subject(bench.subject.descriptor()).build(), sbom.build()];
        let descriptors = images.map(|image| {
            bench.registry.put_untagged(REPOSITORY, &image);
            let mut descriptor = image.descriptor();
            if let Some(stated) = stated {
                descriptor["artifactType"] = json!(stated);
            }
            descriptor
        });
        put_fallback_index(&bench.registry, REPOSITORY, &bench.subject.digest, &descriptors);
        let found = bench.find(&[Bundles]).await;
        assert_eq!(contents(&found.material), ["bundle"], "{stated:?}");
        // One that says that it is a bundle and is none is reported.
        assert_eq!(found.material.skipped.len(), usize::from(stated == Some(BUNDLE_TYPE)), "{stated:?}");
    }
}

#[tokio::test]
async fn what_says_that_it_is_something_else_is_not_looked_into() {
    let bench = Bench::new().await;
    let sbom = ImageBuilder::artefact("application/spdx+json").layer_of(BUNDLE_TYPE, "bundle", &[]);
    bench.registry.put_untagged(REPOSITORY, &sbom.subject(bench.subject.descriptor()).build());
    let found = bench.find(&[Bundles]).await;
    assert!(is_clean(&found) && found.material.candidates.is_empty());
    assert_eq!(bench.registry.count("*", "*"), 1);
}

#[tokio::test]
async fn other_repositories_have_material_too() {
    let bench = Bench::new().await;
    bench.put_signatures(&["own"]);
    let other = "team/signatures";
    let image = |media_type: &str, content: &str| layered(media_type, &[content]).build();
    bench.registry.put(other, &format!("v1-{}", bench.tag(".sig")), &image(SIMPLE_SIGNING, "other signature"));
    bench.registry.put(other, &format!("v1-{}", bench.tag(".att")), &image(DSSE, "other attestation"));
    bench.registry.put(other, &bench.tag(".sig"), &image(SIMPLE_SIGNING, "without the prefix"));
    let bundle = layered(BUNDLE_TYPE, &["other bundle"]).subject(bench.subject.descriptor()).build();
    bench.registry.put_untagged(other, &bundle);
    let source = AlternateSource {
        repository: repository(other),
        tag_prefix: Some("v1-".parse::<Tag>().unwrap()),
        kinds: ALL.into_iter().collect(),
    };
    let wanted = Wanted { sources: [source].into(), ..wanted(&[Signatures]) };
    let found = bench.find_wanted(&wanted, Duration::from_mins(1)).await;
    assert!(is_clean(&found));
    assert_eq!(contents(&found.material), ["own", "other signature", "other attestation", "other bundle"]);
    let elsewhere = Some(format!("{HOST}/{other}"));
    let repositories: Vec<_> = places(&found.material).into_iter().map(|(_, repository, _)| repository).collect();
    assert_eq!(repositories, [None, elsewhere.clone(), elsewhere.clone(), elsewhere]);
    // And they are kept like the image's own.
    bench.keep(&found).await;
    let bench = bench.restart();
    bench.registry.go_down();
    let stored = bench.find_wanted(&wanted, Duration::from_mins(1)).await;
    assert_eq!(contents(&stored.material), contents(&found.material));
}

#[tokio::test]
async fn nothing_is_looked_for_under_another_digest_than_sha256() {
    let bench = Bench::new().await;
    let digest = Digest::of(Algorithm::Sha512, b"image");
    let deadline = Instant::now() + LIFE;
    let since = bench.clock.now().minus(LIFE);
    let found = bench
        .puller
        .discover(&repository(REPOSITORY), &digest, &wanted(&ALL), since, (Level::Verdict(Depth::TOP), deadline))
        .await
        .found;
    assert!(is_clean(&found) && found.material.candidates.is_empty());
    assert_eq!(bench.registry.count("*", "*"), 0);
    assert!(stored_material(&bench.store, &repository(REPOSITORY), &digest, &wanted(&ALL)).await.is_none());
}
