//! Putting signatures where cosign puts them.

use serde_json::{Value, json};

use super::sigstore::{FakeBundle, FakeSignature, attestation_image, signature_image};
use super::{BuiltImage, Content, FakeRegistry, ImageBuilder};
use crate::oci::{Algorithm, Digest, MediaType};

/// The media type of bundles: artifact type of their manifests and type of their layers.
pub const BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// The artifact type that indexes at the fallback tag often state for whatever they list.
pub const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";

/// Attaches signatures to the manifest `digest`: a manifest at the tag `sha256-<hex>.sig`, with their payloads as layers.
pub fn attach_signatures(registry: &FakeRegistry, repository: &str, digest: &Digest, signatures: &[FakeSignature]) {
    registry.put(repository, &format!("sha256-{}.sig", digest.hex()), &signature_image(signatures));
}

/// Attaches attestations to the manifest `digest`: a manifest at the tag `sha256-<hex>.att`, with their envelopes as layers.
pub fn attach_attestations(registry: &FakeRegistry, repository: &str, digest: &Digest, attestations: &[FakeSignature]) {
    registry.put(repository, &format!("sha256-{}.att", digest.hex()), &attestation_image(attestations));
}

/// Attaches bundles to `subject` as cosign v3 does, one manifest each; a registry without the referrers API lists them in
/// the index at the fallback tag. Returns the digests of their manifests.
pub fn attach_bundles(
    registry: &FakeRegistry,
    repository: &str,
    subject: &Content,
    bundles: &[FakeBundle],
) -> Vec<Digest> {
    let images = bundles.iter().map(|bundle| bundle_image(subject, bundle));
    images
        .map(|image| {
            registry.put_untagged(repository, &image);
            image.digest()
        })
        .collect()
}

/// Attaches bundles in an index of their own at the fallback tag `sha256-<hex>`, whose descriptors state this artifact type
/// (`None`: none), whatever the manifests say. Their manifests name no subject, so that no API lists them.
pub fn attach_bundles_at_fallback_tag(
    registry: &FakeRegistry,
    repository: &str,
    subject: &Content,
    bundles: &[FakeBundle],
    stated: Option<&str>,
) {
    let descriptors: Vec<Value> = bundles
        .iter()
        .map(|bundle| {
            let image = bundle_layer(bundle).build();
            registry.put_untagged(repository, &image);
            let mut descriptor = image.descriptor();
            if let Some(stated) = stated {
                descriptor["artifactType"] = stated.into();
            }
            descriptor
        })
        .collect();
    put_fallback_index(registry, repository, &subject.digest, &descriptors);
}

/// Puts an index of these descriptors at the fallback tag of `digest`.
pub fn put_fallback_index(registry: &FakeRegistry, repository: &str, digest: &Digest, descriptors: &[Value]) {
    let media_type = MediaType::OciIndex.as_str();
    let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": descriptors});
    let index = Content::new(Algorithm::Sha256, media_type, index.to_string());
    registry.put_manifest(repository, &index);
    registry.tag(repository, &format!("sha256-{}", digest.hex()), index.digest);
}

/// Attaches `count` artefacts of that type to `subject`, which sign nothing; `batch` makes them others than those of another batch.
pub fn attach_spam(
    registry: &FakeRegistry,
    repository: &str,
    subject: &Content,
    artifact_type: &str,
    batch: &str,
    count: usize,
) {
    for number in 0..count {
        let spam = ImageBuilder::artefact(artifact_type)
            .layer_of("text/plain", format!("spam {batch} {number}"), &[])
            .subject(subject.descriptor())
            .build();
        registry.put_untagged(repository, &spam);
    }
}

/// Puts OpenPGP signatures where a lookaside server has them, below [`FakeRegistry::lookaside_url`]; `path` is the
/// repository without its host.
pub fn put_lookaside(registry: &FakeRegistry, path: &str, digest: &Digest, signatures: &[Vec<u8>]) {
    for (number, signature) in signatures.iter().enumerate() {
        let file = format!("/lookaside/{path}@sha256={}/signature-{}", digest.hex(), number + 1);
        registry.put_file(&file, signature.clone());
    }
}

/// The manifest that cosign v3 writes for a bundle.
pub fn bundle_image(subject: &Content, bundle: &FakeBundle) -> BuiltImage {
    bundle_layer(bundle).subject(subject.descriptor()).build()
}

fn bundle_layer(bundle: &FakeBundle) -> ImageBuilder {
    ImageBuilder::artefact(BUNDLE_TYPE)
        .layer_of(BUNDLE_TYPE, bundle.bytes(), &[])
        .annotation("dev.sigstore.bundle.content", "dsse-envelope")
        .annotation("dev.sigstore.bundle.predicateType", &bundle.predicate_type)
}
