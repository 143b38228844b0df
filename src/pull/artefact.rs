//! Signature artefacts: what passes the gate without a verdict, so that cosign and CRI-O can verify again behind us
//! (design §6, V-27).
//!
//! The rule is narrow on purpose, so that nothing that passes here can be run: all layer types are on a list, all blobs are
//! small, UTF-8, without NUL and neither tar archives nor compressed, and all of that is checked on the whole content before
//! the first byte of the manifest goes out.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::cold::Novelty;
use super::fair::{Asker, Pace, Rules};
use super::manifest::UnverifiedManifest;
use super::{PullError, Puller};
use crate::limits::{
    ARTEFACT_BLOB_BYTES_MAX, ARTEFACT_BYTES_MAX, ARTEFACT_LAYERS_MAX, COLD_OWN, COLD_QUEUE, MATERIAL_CONCURRENCY,
};
use crate::oci::{Descriptor, Digest, ImageReference, Manifest, ManifestKind, MediaType, Repository, Tag};
use crate::store::{Grant, GrantKind};
use crate::telemetry::OverloadBound;
use crate::upstream::UpstreamError;

/// Layer types of signatures, attestations and SBOMs, compared byte for byte.
const LAYER_TYPES: [&str; 15] = [
    super::discover::SIMPLE_SIGNING,
    "application/vnd.dsse.envelope.v1+json",
    "application/vnd.in-toto+json",
    "application/vnd.dev.sigstore.bundle.v0.3+json",
    "application/vnd.dev.sigstore.bundle+json;version=0.1",
    "application/vnd.dev.sigstore.bundle+json;version=0.2",
    "application/vnd.dev.sigstore.bundle+json;version=0.3",
    "application/spdx+json",
    "text/spdx",
    "text/spdx+json",
    "text/spdx+xml",
    "spdx+json",
    "application/vnd.cyclonedx",
    "application/vnd.cyclonedx+json",
    "application/vnd.cyclonedx+xml",
];
/// How many blobs are looked at at once: one upstream that sends slowly leaves the others some.
pub(super) const PLACES: Rules = Rules {
    of_asker: usize::MAX,
    of_upstream: MATERIAL_CONCURRENCY,
    paced: 0,
    own: COLD_OWN,
    shared: MATERIAL_CONCURRENCY - COLD_OWN,
    waiting_of_asker: usize::MAX,
    waiting_at_upstream: usize::MAX,
    waiting: usize::MAX,
    patience: COLD_QUEUE,
};
const OCI_IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_IMAGE_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// Where an artefact was found; what may sit there differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// The tag `sha256-<hex>.sig`, `.att` or `.sbom`.
    SignatureTag,
    /// The tag `sha256-<hex>`, where registries without the referrers API keep an index of referrers.
    FallbackTag,
    /// Anywhere, with a `subject`.
    Referrer,
    /// A child of an admitted index.
    AttestationChild,
}

impl Place {
    /// Which place a tag is, if it is one.
    pub(super) fn of_tag(tag: &Tag) -> Option<Self> {
        let rest = tag.as_str().strip_prefix("sha256-")?;
        let (hex, suffix) = rest.split_at_checked(64)?;
        if !hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        match suffix {
            "" => Some(Self::FallbackTag),
            ".sig" | ".att" | ".sbom" => Some(Self::SignatureTag),
            _ => None,
        }
    }
}

/// Whether a manifest found there can be an artefact, by all that it says of itself.
pub(super) fn has_the_form(manifest: &Manifest, place: Place) -> bool {
    match (&manifest.kind, place) {
        // Referrers have no platform; with one this would be an index to run from.
        (ManifestKind::Index(index), Place::FallbackTag) => {
            manifest.media_type == MediaType::OciIndex && index.manifests.iter().all(|child| child.platform.is_none())
        }
        (ManifestKind::Index(_), _) => false,
        (ManifestKind::Image(image), _) => {
            let in_place = match place {
                Place::SignatureTag | Place::AttestationChild => true,
                Place::Referrer | Place::FallbackTag => manifest.subject.is_some(),
            };
            let total = manifest.blobs().try_fold(0_u64, |sum, blob| sum.checked_add(blob.size));
            in_place
                && manifest.media_type == MediaType::OciManifest
                && !image.layers.is_empty()
                && image.layers.len() <= ARTEFACT_LAYERS_MAX
                && image.layers.iter().all(|layer| LAYER_TYPES.contains(&layer.media_type.as_str()))
                && config_may_be(&image.config, place)
                && manifest.blobs().all(|blob| blob.size <= ARTEFACT_BLOB_BYTES_MAX)
                && total.is_some_and(|total| total <= ARTEFACT_BYTES_MAX)
        }
    }
}

/// An OCI image config sits only where cosign's and `BuildKit`'s own manifests have one, Docker's nowhere.
fn config_may_be(config: &Descriptor, place: Place) -> bool {
    let essence = config.media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "" | DOCKER_IMAGE_CONFIG => false,
        OCI_IMAGE_CONFIG => match place {
            Place::SignatureTag | Place::AttestationChild => true,
            Place::Referrer | Place::FallbackTag => false,
        },
        _ => true,
    }
}

/// Text as UTF-8 without NUL: no compressed archive, no executable. A tar archive of the oldest form can do without NUL (all
/// its fields filled up, no end blocks) and so might bzip2, so both are looked for.
fn is_text(bytes: &[u8]) -> bool {
    !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok() && !bytes.starts_with(b"BZh") && !begins_as_tar(bytes)
}

/// Whether the first block is the header of a tar archive: its checksum is right, as every reader of them demands, summed up
/// over signed or unsigned bytes.
fn begins_as_tar(bytes: &[u8]) -> bool {
    let Some(block) = bytes.get(..TAR_BLOCK_BYTES) else { return false };
    let field = block.get(TAR_CHECKSUM).and_then(|field| std::str::from_utf8(field).ok()).unwrap_or_default();
    let Ok(stated) = i64::from_str_radix(field.trim_matches([' ', '\0']), 8) else { return false };
    let sum = |value: fn(u8) -> i64| -> i64 {
        let bytes = block.iter().enumerate();
        bytes.map(|(at, byte)| value(if TAR_CHECKSUM.contains(&at) { b' ' } else { *byte })).sum()
    };
    stated == sum(i64::from) || stated == sum(|byte| i64::from(byte.cast_signed()))
}

const TAR_BLOCK_BYTES: usize = 512;
/// Where a header's own checksum stands; it counts as spaces.
const TAR_CHECKSUM: std::ops::Range<usize> = 148..156;

impl Puller {
    /// Whether `manifest` passes as an artefact; then it and its blobs are kept and granted. Once for all who ask.
    ///
    /// # Errors
    /// [`PullError::Upstream`] when a blob that must be looked at could not be read.
    pub(super) async fn passes_as_artefact(
        &self,
        image: &ImageReference,
        manifest: &Arc<UnverifiedManifest>,
        place: Place,
    ) -> Result<bool, PullError> {
        if !has_the_form(manifest.parsed(), place) {
            return Ok(false);
        }
        if self.is_known_artefact(image, manifest).await {
            return Ok(true);
        }
        let work = || {
            let (puller, image, manifest) = (self.clone(), image.clone(), Arc::clone(manifest));
            async move { puller.check_artefact(&image, &manifest).await }
        };
        let key = (image.repository.clone(), *manifest.digest());
        self.run(&self.parts.checking, (image.repository.host(), Novelty::Known), key, work).await?
    }

    async fn is_known_artefact(&self, image: &ImageReference, manifest: &UnverifiedManifest) -> bool {
        let grants = self.parts.store.grants(&image.repository, manifest.digest()).await;
        grants.iter().any(|grant| is_artefact(grant, manifest.digest()))
    }

    async fn check_artefact(&self, image: &ImageReference, manifest: &UnverifiedManifest) -> Result<bool, PullError> {
        // Another run may have ended between the caller's look and this one's start.
        if self.is_known_artefact(image, manifest).await {
            return Ok(true);
        }
        let mut blobs: Vec<Descriptor> = manifest.parsed().blobs().cloned().collect();
        blobs.sort_by_key(|blob| blob.digest);
        blobs.dedup_by_key(|blob| blob.digest);
        let checks: Vec<_> = blobs.iter().map(|blob| self.check_artefact_blob(&image.repository, blob)).collect();
        let all_text = stream::iter(checks)
            .buffer_unordered(MATERIAL_CONCURRENCY)
            .try_fold(true, |all, is_text| async move { Ok(all && is_text) })
            .await?;
        if !all_text {
            return Ok(false);
        }
        let digest = *manifest.digest();
        let grant = |size| Grant { kind: GrantKind::Artefact, size, admitting: digest, image: image.clone() };
        let mut grants = vec![(digest, grant(manifest.size()))];
        grants.extend(manifest.parsed().blobs().map(|blob| (blob.digest, grant(blob.size))));
        self.parts.store.put_media_type(&digest, manifest.parsed().media_type).await;
        self.parts.store.keep_content(&digest, manifest.bytes().clone()).await;
        self.parts.store.put_grants(&image.repository, grants).await;
        Ok(true)
    }

    /// Reads one blob whole and looks at it. It is kept when it passes; without a grant nobody can fetch it.
    async fn check_artefact_blob(&self, repository: &Repository, blob: &Descriptor) -> Result<bool, PullError> {
        // Those before it may read from an upstream that sends slowly.
        let host = repository.host();
        let asker = Asker::Upstream(host.clone());
        let Ok(_place) = self.parts.artefacts.take(asker, host, Pace::Full, || ()).await else {
            self.parts.telemetry.overloaded(OverloadBound::ColdWork);
            return Err(PullError::Overloaded);
        };
        let bytes = self.artefact_blob(repository, &blob.digest, blob.size).await?;
        if !is_text(&bytes) {
            return Ok(false);
        }
        self.parts.store.keep_content(&blob.digest, bytes).await;
        Ok(true)
    }

    /// From upstream, unless this repository is known to have it: the store's content is not this repository's.
    async fn artefact_blob(&self, repository: &Repository, digest: &Digest, size: u64) -> Result<Bytes, PullError> {
        let is_here = !self.parts.store.grants(repository, digest).await.is_empty();
        let stored = if is_here { self.parts.store.content(digest).await } else { None };
        let bytes = match stored {
            Some(bytes) => bytes,
            None => self.source(repository)?.upstream.small_blob(repository.name(), digest, size).await?,
        };
        if u64::try_from(bytes.len()).is_ok_and(|length| length == size) {
            Ok(bytes)
        } else {
            Err(UpstreamError::Bad { upstream: repository.host().clone(), reason: "size_mismatch" }.into())
        }
    }
}

/// Whether a grant on `digest` says that it is an artefact's manifest. One on an artefact's blob says nothing about
/// bytes that happen to be a manifest.
pub(super) fn is_artefact(grant: &Grant, digest: &Digest) -> bool {
    grant.kind == GrantKind::Artefact && grant.admitting == *digest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(suffix: &str) -> Option<Place> {
        Place::of_tag(&format!("sha256-{}{suffix}", "a".repeat(64)).parse().unwrap())
    }

    fn descriptor(media_type: &str, size: u64) -> String {
        format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":{size}}}"#, Digest::sha256(b"x"))
    }

    fn image(config: &str, layers: &[String], subject: &str) -> Manifest {
        let (config, layers) = (descriptor(config, 2), layers.join(","));
        let text = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}]{subject}}}"#);
        Manifest::parse(text.as_bytes(), Some(MediaType::OciManifest.as_str())).unwrap()
    }

    fn signature() -> String {
        descriptor(super::super::discover::SIMPLE_SIGNING, 10)
    }

    #[test]
    fn only_the_exact_tags_are_places_of_artefacts() {
        assert_eq!(tag(".sig"), Some(Place::SignatureTag));
        assert_eq!(tag(".att"), Some(Place::SignatureTag));
        assert_eq!(tag(".sbom"), Some(Place::SignatureTag));
        assert_eq!(tag(""), Some(Place::FallbackTag));
        for suffix in [".si", ".sig2", "a", "a.sig", ".SIG"] {
            assert_eq!(tag(suffix), None, "{suffix}");
        }
        for text in ["sha256-abc.sig", &format!("sha256-{}.sig", "A".repeat(64)), &format!("sha512-{}", "a".repeat(64))]
        {
            assert_eq!(Place::of_tag(&text.parse().unwrap()), None, "{text}");
        }
    }

    #[test]
    fn one_layer_of_another_type_makes_it_an_image() {
        let tar = descriptor("application/vnd.oci.image.layer.v1.tar+gzip", 10);
        assert!(has_the_form(&image(OCI_IMAGE_CONFIG, &[signature()], ""), Place::SignatureTag));
        assert!(!has_the_form(&image(OCI_IMAGE_CONFIG, &[signature(), tar.clone()], ""), Place::SignatureTag));
        assert!(!has_the_form(&image(OCI_IMAGE_CONFIG, &[tar], ""), Place::SignatureTag));
        assert!(!has_the_form(&image(OCI_IMAGE_CONFIG, &[], ""), Place::SignatureTag));
    }

    #[test]
    fn an_image_config_sits_only_under_the_tags_and_on_attestation_children() {
        let subject = format!(r#","subject":{}"#, descriptor(MediaType::OciManifest.as_str(), 3));
        let empty = "application/vnd.oci.empty.v1+json";
        assert!(has_the_form(&image(OCI_IMAGE_CONFIG, &[signature()], ""), Place::AttestationChild));
        assert!(has_the_form(&image(empty, &[signature()], &subject), Place::Referrer));
        assert!(!has_the_form(&image(empty, &[signature()], ""), Place::Referrer));
        for config in [OCI_IMAGE_CONFIG, "Application/vnd.OCI.image.config.v1+json; x=y"] {
            assert!(!has_the_form(&image(config, &[signature()], &subject), Place::Referrer), "{config}");
        }
        for place in [Place::SignatureTag, Place::Referrer, Place::AttestationChild] {
            assert!(!has_the_form(&image(DOCKER_IMAGE_CONFIG, &[signature()], &subject), place));
            assert!(!has_the_form(&image("", &[signature()], &subject), place));
        }
    }

    #[test]
    fn sizes_and_numbers_are_bounded_on_both_sides() {
        let sized = |size| descriptor(super::super::discover::SIMPLE_SIGNING, size);
        let form = |layers: &[String]| has_the_form(&image(OCI_IMAGE_CONFIG, layers, ""), Place::SignatureTag);
        assert!(form(&[sized(ARTEFACT_BLOB_BYTES_MAX)]));
        assert!(!form(&[sized(ARTEFACT_BLOB_BYTES_MAX + 1)]));
        assert!(form(&vec![sized(1); ARTEFACT_LAYERS_MAX]));
        assert!(!form(&vec![sized(1); ARTEFACT_LAYERS_MAX + 1]));
        let fits = usize::try_from(ARTEFACT_BYTES_MAX / ARTEFACT_BLOB_BYTES_MAX).unwrap() - 1;
        assert!(form(&vec![sized(ARTEFACT_BLOB_BYTES_MAX); fits]));
        assert!(!form(&vec![sized(ARTEFACT_BLOB_BYTES_MAX); fits + 1]));
    }

    #[test]
    fn the_fallback_index_has_no_platforms() {
        let index = |platform: &str| {
            let child = format!(
                r#"{{"mediaType":"{}","digest":"{}","size":3{platform}}}"#,
                MediaType::OciManifest,
                Digest::sha256(b"x")
            );
            let text = format!(r#"{{"schemaVersion":2,"manifests":[{child}]}}"#);
            Manifest::parse(text.as_bytes(), Some(MediaType::OciIndex.as_str())).unwrap()
        };
        assert!(has_the_form(&index(""), Place::FallbackTag));
        assert!(!has_the_form(&index(r#","platform":{"architecture":"amd64","os":"linux"}"#), Place::FallbackTag));
        assert!(!has_the_form(&index(""), Place::SignatureTag));
        assert!(!has_the_form(&index(""), Place::AttestationChild));
    }

    #[test]
    fn what_has_a_nul_or_is_not_utf_8_is_no_text() {
        assert!(is_text(b"") && is_text("{\"ü\":1}".as_bytes()));
        assert!(!is_text(b"a\0b") && !is_text(&[0x1f, 0x8b, 0x08]) && !is_text(&[0x28, 0xb5, 0x2f, 0xfd]));
        assert!(!is_text(b"BZh91AY&SY"));
    }

    /// A tar archive as Go's reader takes it: version 7, no magic, every field filled up, no end blocks.
    fn tar_without_nul(filler: &str) -> Vec<u8> {
        let name = format!("{}bin/sh", "./".repeat(47));
        let mut header =
            format!("{name}0000755 0000000 0000000 00000000020 00000000000         0{filler}").into_bytes();
        header.resize(TAR_BLOCK_BYTES, b'x');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[TAR_CHECKSUM].copy_from_slice(format!("{sum:06o}  ").as_bytes());
        let mut archive = header;
        archive.extend_from_slice(&[b'#'; TAR_BLOCK_BYTES]);
        archive
    }

    #[test]
    fn v_27_a_tar_archive_without_a_nul_is_no_text() {
        for filler in ["", "üüü"] {
            let archive = tar_without_nul(filler);
            assert!(!archive.contains(&0) && std::str::from_utf8(&archive).is_ok());
            assert!(!is_text(&archive));
            let mut signed = archive.clone();
            let high = i64::try_from(archive[..TAR_BLOCK_BYTES].iter().filter(|byte| **byte > 127).count()).unwrap();
            let stated = std::str::from_utf8(&archive[148..154]).unwrap();
            let stated = i64::from_str_radix(stated, 8).unwrap() - 256 * high;
            signed[TAR_CHECKSUM].copy_from_slice(format!("{stated:06o}  ").as_bytes());
            assert!(!is_text(&signed));
            let mut other = archive;
            other[0] = b'A';
            assert!(is_text(&other), "a text with digits there is no archive");
        }
        assert!(is_text(&[b' '; TAR_BLOCK_BYTES]) && is_text(&[b'7'; 2 * TAR_BLOCK_BYTES]));
    }
}
