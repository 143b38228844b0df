//! What is found again while upstream is away.

use super::*;

#[tokio::test]
async fn what_an_allow_rests_on_is_found_again_while_upstream_is_away() {
    let bench = Bench::new().await;
    bench.put_signatures(&["signature"]);
    bench.put_attestations(&["attestation"]);
    bench.put_bundle("bundle 1");
    bench.put_bundle("bundle 2");
    let found = bench.find(&ALL).await;
    assert!(bench.stored(&ALL).await.is_none(), "what is not kept is not there");
    bench.keep(&found).await;
    let bench = bench.restart();
    bench.registry.go_down();
    let stored = bench.find(&ALL).await;
    assert_eq!(contents(&stored.material), contents(&found.material));
    assert_eq!(places(&stored.material), places(&found.material));
    assert!(stored.missing.is_some(), "it is perhaps not all");
    for kind in ALL {
        let count = if kind == Bundles { 2 } else { 1 };
        assert_eq!(bench.stored(&[kind]).await.unwrap().candidates.len(), count);
    }
    // It is nobody else's.
    let other = stored_material(&bench.store, &repository("team/other"), &bench.subject.digest, &wanted(&ALL)).await;
    assert!(other.is_none());
}

#[tokio::test]
async fn what_upstream_took_away_is_not_found_again_when_it_is_away() {
    for (kind, replaced) in
        [(Signatures, false), (Attestations, false), (Bundles, false), (Signatures, true), (Bundles, true)]
    {
        let bench = Bench::new().await;
        bench.put_signatures(&["signature"]);
        bench.put_attestations(&["attestation"]);
        let bundle = bench.put_bundle("bundle");
        let found = bench.find(&ALL).await;
        bench.keep(&found).await;
        match kind {
            Signatures => bench.registry.untag(REPOSITORY, &bench.tag(".sig")),
            Attestations => bench.registry.untag(REPOSITORY, &bench.tag(".att")),
            Bundles => bench.registry.remove_manifest(REPOSITORY, &bundle),
        }
        if replaced {
            match kind {
                Signatures | Attestations => bench.put_signatures(&["another"]),
                Bundles => drop(bench.put_bundle("another")),
            }
        }
        bench.clock.advance(LIFE);
        bench.find(&ALL).await;
        let bench = bench.restart();
        bench.registry.go_down();
        let stored = bench.find(&ALL).await;
        assert_eq!(stored.material.candidates.len(), 2, "{kind:?} {replaced}: {:?}", contents(&stored.material));
    }
}

/// A search that was slow knows less than one that was asked later and answered first.
#[tokio::test]
async fn a_slow_search_does_not_bring_back_what_was_taken_away_meanwhile() {
    for (kind, replaced) in
        [(Signatures, false), (Attestations, false), (Bundles, false), (Signatures, true), (Bundles, true)]
    {
        let bench = Bench::new().await;
        bench.put_signatures(&["signature"]);
        bench.put_attestations(&["attestation"]);
        let bundle = bench.put_bundle("bundle");
        let slow = bench.find(&[kind]).await;
        match kind {
            Signatures => bench.registry.untag(REPOSITORY, &bench.tag(".sig")),
            Attestations => bench.registry.untag(REPOSITORY, &bench.tag(".att")),
            Bundles => bench.registry.remove_manifest(REPOSITORY, &bundle),
        }
        if replaced {
            match kind {
                Signatures | Attestations => bench.put_signatures(&["another"]),
                Bundles => drop(bench.put_bundle("another")),
            }
        }
        bench.clock.advance(LIFE);
        let fast = bench.find(&[kind]).await;
        assert_eq!(fast.material.candidates.len(), usize::from(replaced));
        bench.keep(&slow).await;
        assert!(bench.stored(&[kind]).await.is_none(), "{kind:?} {replaced}");
        // And the faster one's own is kept.
        bench.keep(&fast).await;
        assert_eq!(bench.stored(&[kind]).await.is_some(), replaced, "{kind:?} {replaced}");
    }
}

#[tokio::test]
async fn an_error_takes_nothing_away() {
    for place in ["*.sig", "*.att", "*/referrers/*"] {
        let bench = Bench::new().await;
        bench.put_signatures(&["signature"]);
        bench.put_attestations(&["attestation"]);
        bench.put_bundle("bundle");
        let found = bench.find(&ALL).await;
        bench.keep(&found).await;
        bench.registry.fault(Fault::on(place).status(500));
        let bench = bench.restart();
        let found = bench.find(&ALL).await;
        assert_eq!(found.material.candidates.len(), 3, "the store stands in at {place}");
        assert!(found.missing.is_some());
        bench.keep(&found).await;
        let bench = bench.restart();
        bench.registry.go_down();
        assert_eq!(bench.find(&ALL).await.material.candidates.len(), 3, "{place}");
    }
}

#[tokio::test]
async fn what_lies_elsewhere_by_digest_alone_is_restored_to_the_places_it_came_from() {
    let bench = Bench::new().await;
    bench.put_signatures(&["signature"]);
    bench.put_attestations(&["attestation"]);
    bench.put_bundle("bundle 1");
    bench.put_bundle("bundle 2");
    let found = bench.find(&ALL).await;
    bench.keep(&found).await;
    let elsewhere = Bench::new().await.store;
    for content in contents(&found.material) {
        elsewhere.keep_content(&Digest::sha256(content.as_bytes()), content.to_owned().into()).await;
    }
    let mut manifests = vec![Bytes::from_static(b"no manifest"), bench.subject.bytes.clone()];
    for digest in found.manifest_digests() {
        manifests.push(bench.store.content(&digest).await.unwrap());
    }
    restore_material(&elsewhere, &repository(REPOSITORY), &bench.subject.digest, manifests).await;
    for kinds in [&ALL[..], &[Signatures], &[Attestations], &[Bundles]] {
        let restored =
            stored_material(&elsewhere, &repository(REPOSITORY), &bench.subject.digest, &wanted(kinds)).await.unwrap();
        let kept = bench.stored(kinds).await.unwrap();
        let sorted = |material: &Material| {
            let mut all: Vec<String> = contents(material).into_iter().map(str::to_owned).collect();
            all.sort();
            all
        };
        assert_eq!(sorted(&restored), sorted(&kept), "{kinds:?}");
    }
}
