//! The bytes that are judged are the bytes that are served.

use std::time::Duration;

use sealgate::oci::Algorithm;
use sealgate::testing::sigstore::{Flaw, signature_image};
use sealgate::testing::{Content, Fault, ImageBuilder};

use super::{OCI_MANIFEST, REFERENCE, REPOSITORY, Scene, assert_served, get, signature_tag};

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// CVE-2026-111361, GHSA-pggw-qqjf-6cxw, GHSA-qq97-vm5h-rrhg, GHSA-5j5w-g665-5m35.
#[tokio::test]
async fn v05_an_ambiguous_manifest_is_refused_though_it_is_signed() {
    let scene = Scene::new().await;
    let mirror = scene.keyed_mirror().await;
    let good = String::from_utf8(ImageBuilder::new(1).layer(10).build().manifest.bytes.to_vec()).unwrap();
    let with = |member: &str| good.replacen('{', &format!("{{{member},"), 1);
    let rows = [
        ("both", with(r#""manifests":[]"#), OCI_MANIFEST),
        ("folded", with(r#""Manifests":[]"#), OCI_MANIFEST),
        ("long-s", with("\"manifest\u{17f}\":[]"), OCI_MANIFEST),
        ("twice", with(r#""layers":[]"#), OCI_MANIFEST),
        ("config-and-manifests", with(r#""manifests":[{}]"#).replace("\"layers\"", "\"x\""), OCI_MANIFEST),
        ("another-type", good.clone(), OCI_INDEX),
        ("embedded-data", good.replace("\"size\":10", "\"size\":10,\"data\":\"AAAA\""), OCI_MANIFEST),
    ];
    for (tag, bytes, media_type) in rows {
        let manifest = Content::new(Algorithm::Sha256, media_type, bytes);
        scene.registry.put_manifest(REPOSITORY, &manifest);
        scene.registry.tag(REPOSITORY, tag, manifest.digest);
        let signature = scene.sigstore.sign_unlogged(&scene.key, REFERENCE, &manifest.digest, Flaw::None);
        scene.registry.put(REPOSITORY, &signature_tag(&manifest.digest), &signature_image(&[signature]));
        for reference in [tag.to_owned(), manifest.digest.to_string()] {
            let answer = get(&mirror, &reference).await;
            assert_eq!(answer.status, 502, "{tag}: {}", answer.text());
            assert_eq!(answer.error_code(), "MANIFEST_INVALID", "{tag}");
        }
    }
    mirror.stop().await;
}

#[tokio::test]
async fn v06_the_same_bytes_keep_their_type() {
    let scene = Scene::new().await;
    let mirror = scene.keyed_mirror().await;
    // Without `mediaType` the header alone says what it is.
    let image = ImageBuilder::new(1).layer(10).build();
    let text = String::from_utf8(image.manifest.bytes.to_vec()).unwrap();
    let untyped = text.replacen(&format!("\"mediaType\":\"{OCI_MANIFEST}\","), "", 1);
    assert_ne!(untyped, text);
    let manifest = Content::new(Algorithm::Sha256, OCI_MANIFEST, untyped);
    scene.registry.put_manifest(REPOSITORY, &manifest);
    scene.registry.tag(REPOSITORY, "1.0", manifest.digest);
    let signature = scene.sigstore.sign_unlogged(&scene.key, REFERENCE, &manifest.digest, Flaw::None);
    scene.registry.put(REPOSITORY, &signature_tag(&manifest.digest), &signature_image(&[signature]));

    let first = get(&mirror, "1.0").await;
    assert_eq!((first.status, first.header("content-type")), (200, Some(OCI_MANIFEST)));
    let as_index = Fault::on(&format!("*/manifests/{}", manifest.digest)).content_type(OCI_INDEX);
    scene.registry.fault(as_index);
    scene.registry.fault(Fault::on("*/manifests/1.0").content_type(OCI_INDEX));
    for reference in ["1.0".to_owned(), manifest.digest.to_string()] {
        scene.clock.advance(Duration::from_mins(10));
        let again = get(&mirror, &reference).await;
        assert_eq!((again.status, again.header("content-type")), (200, Some(OCI_MANIFEST)), "{reference}");
        assert_eq!(again.body, first.body);
    }
    mirror.stop().await;
}

#[tokio::test]
async fn v07_the_bytes_that_were_judged_are_served_whatever_upstream_answers_next() {
    let scene = Scene::new().await;
    let mirror = scene.keyed_mirror().await;
    let image = scene.push("1.0", 1);
    scene.attach(&image, &[scene.keyed(&image, Flaw::None)]);
    let evil = ImageBuilder::new(66).layer(100).build();
    let digest_path = format!("*/manifests/{}", image.digest());
    // The first GET of tag or digest is honest, every later one is not.
    for path in ["*/manifests/1.0".to_owned(), digest_path.clone()] {
        scene.registry.fault(Fault::on(&path).get().after(1).body(evil.manifest.bytes.clone()));
    }
    assert_served(&mirror, "1.0", &image).await;
    assert_served(&mirror, image.digest(), &image).await;
    assert_served(&mirror, "1.0", &image).await;
    let fetched = scene.registry.count("GET", &digest_path) + scene.registry.count("GET", "*/manifests/1.0");
    assert_eq!(fetched, 1, "upstream saw one GET of the manifest");
    mirror.stop().await;
}

/// CVE-2026-85747, nora#581, artifact-keeper#2929.
#[tokio::test]
async fn v07_bytes_that_are_not_the_digest_asked_for_are_never_served() {
    let scene = Scene::new().await;
    let mirror = scene.keyed_mirror().await;
    let image = scene.push("1.0", 1);
    let evil = ImageBuilder::new(66).layer(100).build();
    for image in [&image, &evil] {
        scene.attach(image, &[scene.keyed(image, Flaw::None)]);
    }
    scene.registry.fault(Fault::on(&format!("*/manifests/{}", image.digest())).get().body(evil.manifest.bytes.clone()));
    let answer = get(&mirror, image.digest()).await;
    assert_eq!((answer.status, answer.error_code().as_str()), (502, "MANIFEST_INVALID"), "{}", answer.text());
    // By tag: HEAD names one digest and GET gives another's bytes.
    scene.registry.fault(Fault::on("*/manifests/1.0").get().body(evil.manifest.bytes.clone()));
    assert_eq!(get(&mirror, "1.0").await.status, 502);
    scene.registry.heal();
    assert_served(&mirror, "1.0", &image).await;
    mirror.stop().await;
}
