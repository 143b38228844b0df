//! How many signatures there are, what lies where signatures should, and what artefacts pass.

use sealgate::oci::{Algorithm, Digest};
use sealgate::testing::sigstore::{FakeSignature, Flaw, signature_image};
use sealgate::testing::{Content, Fault, ImageBuilder};

use super::{OCI_MANIFEST, REFERENCE, REPOSITORY, Scene, assert_denied, assert_served, get, signature_tag};

#[tokio::test]
async fn v19_a_good_signature_counts_after_64_bad_ones() {
    let scene = Scene::new().await;
    let mirror = scene.keyed_mirror().await;
    let image = scene.push("1.0", 1);
    let mut signatures: Vec<FakeSignature> = (0..64)
        .map(|number| {
            let key = scene.sigstore.key(&format!("other {number}"));
            scene.sigstore.sign_unlogged(&key, &format!("{REFERENCE}:{number}"), &image.digest(), Flaw::None)
        })
        .collect();
    signatures.push(scene.keyed(&image, Flaw::None));
    scene.attach(&image, &signatures);
    assert_served(&mirror, "1.0", &image).await;

    // Without the good one there are as many as are looked at, and one more is too many.
    let unsigned = scene.push("2.0", 2);
    scene.attach(&unsigned, &signatures[..64]);
    assert_denied(&mirror, "2.0", "bad_signature").await;
    let crowded = scene.push("3.0", 3);
    let last = scene.sigstore.sign_unlogged(&scene.sigstore.key("65"), REFERENCE, &crowded.digest(), Flaw::None);
    scene.attach(&crowded, &[&signatures[..64], &[last]].concat());
    assert_denied(&mirror, "3.0", "too_many_signatures").await;
    mirror.stop().await;
}

#[tokio::test]
async fn v20_a_payload_that_is_not_what_its_descriptor_says_does_not_count() {
    let scene = Scene::new().await;
    let mirror = scene.keyed_mirror().await;

    let image = scene.push("digest", 1);
    let signature = scene.keyed(&image, Flaw::None);
    scene.attach(&image, std::slice::from_ref(&signature));
    let payload = Digest::sha256(&signature.payload);
    scene.registry.fault(Fault::on(&format!("*/blobs/{payload}")).wrong_bytes());
    assert_eq!(get(&mirror, "digest").await.status, 503, "no answer about the signature");

    let image = scene.push("size", 2);
    let built = signature_image(&[scene.keyed(&image, Flaw::None)]);
    let size = built.blobs[1].bytes.len();
    let lie = String::from_utf8(built.manifest.bytes.to_vec()).unwrap();
    let lie = lie.replace(&format!("\"size\":{size}"), &format!("\"size\":{}", size + 1));
    for blob in &built.blobs {
        scene.registry.put_blob(REPOSITORY, blob.bytes.clone());
    }
    let lie = Content::new(Algorithm::Sha256, OCI_MANIFEST, lie);
    scene.registry.put_manifest(REPOSITORY, &lie);
    scene.registry.tag(REPOSITORY, &signature_tag(&image.digest()), lie.digest);
    // Whoever pushed it can lie about a size: that is an answer.
    assert_denied(&mirror, "size", "no_signature").await;

    // Beside a good one the bad one does no harm.
    let image = scene.push("both", 3);
    let spoilt = scene.sigstore.sign_unlogged(&scene.key, "quay.io/team/x", &image.digest(), Flaw::None);
    scene.registry.fault(Fault::on(&format!("*/blobs/{}", Digest::sha256(&spoilt.payload))).wrong_bytes());
    scene.attach(&image, &[spoilt, scene.keyed(&image, Flaw::None)]);
    assert_served(&mirror, "both", &image).await;
    mirror.stop().await;
}

#[tokio::test]
async fn v21_a_signature_tag_that_holds_something_else_is_no_signature() {
    let scene = Scene::new().await;
    let mirror = scene.keyed_mirror().await;

    // An index, of the good signature and of the image itself.
    let image = scene.push("index", 1);
    let signatures = signature_image(&[scene.keyed(&image, Flaw::None)]);
    let index = ImageBuilder::index([signatures, image.clone()]).build();
    scene.registry.put(REPOSITORY, &signature_tag(&image.digest()), &index);
    assert_denied(&mirror, "index", "no_signature").await;

    // The tag points back at the image that it should sign.
    let image = scene.push("itself", 2);
    scene.registry.tag(REPOSITORY, &signature_tag(&image.digest()), image.digest());
    assert_denied(&mirror, "itself", "no_signature").await;

    // Two images, each at the other's signature tag.
    let (one, two) = (scene.push("one", 3), scene.push("two", 4));
    scene.registry.tag(REPOSITORY, &signature_tag(&one.digest()), two.digest());
    scene.registry.tag(REPOSITORY, &signature_tag(&two.digest()), one.digest());
    assert_denied(&mirror, "one", "no_signature").await;
    assert_denied(&mirror, "two", "no_signature").await;

    // What the signature manifest calls its subject decides nothing; what was signed does.
    for (seed, tag, flaw) in [(5, "signed", Flaw::None), (6, "unsigned", Flaw::OtherDigest)] {
        let image = scene.push(tag, seed);
        let signature = scene.keyed(&image, flaw);
        let annotations: Vec<(&str, &str)> =
            signature.annotations.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let built = ImageBuilder::new(0)
            .layer_of("application/vnd.dev.cosign.simplesigning.v1+json", signature.payload.clone(), &annotations)
            .subject(two.descriptor())
            .build();
        scene.registry.put(REPOSITORY, &signature_tag(&image.digest()), &built);
        match flaw {
            Flaw::None => assert_served(&mirror, tag, &image).await,
            _ => drop(assert_denied(&mirror, tag, "bad_signature").await),
        }
    }
    mirror.stop().await;
}

#[tokio::test]
async fn v27_signature_artefacts_of_a_refused_image_pass_and_images_in_their_place_do_not() {
    let scene = Scene::new().await;
    let mirror = scene.keyed_mirror().await;
    let image = scene.push("1.0", 1);
    let signatures = signature_image(&[scene.keyed(&image, Flaw::OtherDigest)]);
    let tag = signature_tag(&image.digest());
    scene.registry.put(REPOSITORY, &tag, &signatures);
    assert_denied(&mirror, "1.0", "bad_signature").await;
    assert_served(&mirror, &tag, &signatures).await;
    assert_served(&mirror, signatures.digest(), &signatures).await;
    for blob in &signatures.blobs {
        let answer = mirror.get(&format!("/v2/{REFERENCE}/blobs/{}", blob.digest)).await;
        assert_eq!((answer.status, &answer.body), (200, &blob.bytes));
    }

    let attestation = ImageBuilder::new(0)
        .layer_of("application/vnd.dsse.envelope.v1+json", &br#"{"payload":"","signatures":[]}"#[..], &[])
        .build();
    let attestation_tag = format!("sha256-{}.att", image.digest().hex());
    scene.registry.put(REPOSITORY, &attestation_tag, &attestation);
    assert_served(&mirror, &attestation_tag, &attestation).await;

    let referrer = ImageBuilder::artefact("application/spdx+json")
        .layer_of("application/spdx+json", &b"{}"[..], &[])
        .subject(image.descriptor())
        .build();
    scene.registry.put_untagged(REPOSITORY, &referrer);
    assert_served(&mirror, referrer.digest(), &referrer).await;

    // What can be run stays behind the gate, wherever it lies and whatever its layers are called.
    let disguised =
        ImageBuilder::new(9).layer_of("application/vnd.dev.cosign.simplesigning.v1+json", vec![0_u8; 512], &[]).build();
    for (seed, runnable) in [(7, ImageBuilder::new(7).layer(100).build()), (8, disguised)] {
        let subject = ImageBuilder::new(1000 + seed).layer(10).build();
        for suffix in ["sig", "att"] {
            let tag = format!("sha256-{}.{suffix}", subject.digest().hex());
            scene.registry.put(REPOSITORY, &tag, &runnable);
            assert_denied(&mirror, &tag, "no_signature").await;
        }
        assert_denied(&mirror, runnable.digest(), "no_signature").await;
    }
    mirror.stop().await;
}

#[tokio::test]
async fn v29_signatures_of_absurd_size_are_refused_and_others_are_judged_meanwhile() {
    let scene = Scene::new().await;
    let mirror = scene.keyless_mirror().await;
    let (absurd, good) = (scene.push("absurd", 1), scene.push("good", 2));
    scene.attach(&good, &[scene.keyless(&good, Flaw::None)]);
    // 3 MiB of annotations in all: a deep one, a long one, many certificates.
    let mut signatures: Vec<FakeSignature> =
        ["dev.sigstore.cosign/bundle", "dev.sigstore.cosign/certificate", "dev.sigstore.cosign/chain"]
            .into_iter()
            .map(|annotation| {
                let mut signature = scene.keyless(&absurd, Flaw::None);
                let text = signature.annotations.get_mut(annotation).unwrap();
                let copies = 1024 * 1024 / text.len();
                *text = if annotation.ends_with("bundle") { "[".repeat(1024 * 1024) } else { text.repeat(copies) };
                signature
            })
            .collect();
    // Each has a payload of its own, so that they are different layers.
    for (number, signature) in signatures.iter_mut().enumerate() {
        signature.payload.extend(std::iter::repeat_n(b' ', number));
    }
    scene.attach(&absurd, &signatures);
    let (refused, served) = tokio::join!(get(&mirror, "absurd"), get(&mirror, "good"));
    assert_eq!((refused.status, served.status), (403, 200), "{} {}", refused.text(), served.text());
    mirror.stop().await;
}
