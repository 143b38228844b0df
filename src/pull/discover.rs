//! The signature material of a digest: where it is looked for, how much of it is read, and what counts as an answer.
//!
//! A clean 404 is an answer: there is none. Everything else that goes wrong is not (rule "Closed"): what was read may still
//! allow, but it can deny nothing, and [`Discovered::missing`] says why. cosign's tag `sha256-<hex>.sig` is the one place so
//! far; further places add their candidates to the same [`Search`].

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::Puller;
use super::manifest::UnverifiedManifest;
use crate::clock::Timestamp;
use crate::limits::{CANDIDATES_MAX, MATERIAL_BYTES_MAX, MATERIAL_CONCURRENCY, SIGNATURE_BYTES_MAX};
use crate::oci::{Algorithm, Descriptor, Digest, ManifestError, ManifestKind, Reference, Repository, Tag};
use crate::policy::{Material, Skipped};
use crate::store::TagPointer;
use crate::upstream::{Upstream, UpstreamError};
use crate::verify::{LegacySignature, Place, SignatureMaterial, Source};

/// The media type of cosign's simple signing payloads.
pub(super) const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// What was found.
#[derive(Debug)]
pub(super) struct Discovered {
    pub(super) material: Material,
    /// Why it may not be all there is; then it can allow, but not deny.
    pub(super) missing: Option<UpstreamError>,
    /// When upstream was asked.
    pub(super) at: Timestamp,
    /// The manifests that list the candidates, with the tags under which they were found.
    manifests: Vec<(Tag, Arc<UnverifiedManifest>)>,
}

impl Discovered {
    /// The digests of the manifests that list the candidates.
    pub(super) fn manifest_digests(&self) -> Vec<Digest> {
        self.manifests.iter().map(|(_, manifest)| *manifest.digest()).collect()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let manifests = self.manifests.iter().map(|(_, manifest)| manifest.memory_bytes());
        let payloads = self.material.candidates.iter().map(|candidate| {
            let annotations = match candidate {
                SignatureMaterial::Legacy(signature) => Some(&signature.annotations),
                SignatureMaterial::Attestation(attestation) => Some(&attestation.annotations),
                SignatureMaterial::Bundle(_) | SignatureMaterial::OpenPgp(_) => None,
            };
            let annotations = annotations.into_iter().flatten();
            let annotations = annotations.map(|(key, value)| key.len().saturating_add(value.len()));
            candidate.bytes().len().saturating_add(annotations.sum::<usize>())
        });
        manifests.chain(payloads).fold(512, usize::saturating_add)
    }
}

/// Nothing could be found out.
#[derive(Debug, Clone)]
pub(super) struct NoEvidence {
    /// What was looked for, one line.
    pub(super) looked_for: String,
    pub(super) cause: UpstreamError,
}

impl Puller {
    /// Finds the signature material of `digest` in its own repository.
    ///
    /// Costs at most one manifest and [`CANDIDATES_MAX`] payloads; none when upstream was asked after `since`. When
    /// upstream is away, what the store kept of it is the answer, marked as perhaps not all. Bounded by the caller's
    /// deadline. Cancel safe.
    ///
    /// # Errors
    /// [`NoEvidence`] when upstream gave no usable answer and the store has nothing.
    pub(super) async fn discover(
        &self,
        repository: &Repository,
        digest: &Digest,
        since: Timestamp,
    ) -> Result<Arc<Discovered>, NoEvidence> {
        let at = self.parts.clock.now();
        let mut search = Search::default();
        // Signatures bind sha256 digests; nothing is found under another.
        if digest.algorithm() == Algorithm::Sha256 {
            // Not what was read while the clock was ahead: it would be the newest until the clock is there again.
            let known = self.parts.hot.material(repository, digest, since).filter(|known| known.at <= at);
            if let Some(known) = known {
                return Ok(known);
            }
            self.search_signature_tag(repository, digest, &mut search).await?;
        }
        let found = Arc::new(search.finish(at));
        if found.missing.is_none() {
            self.parts.hot.keep_material(repository, digest, &found);
        }
        Ok(found)
    }

    /// Keeps what an allow rests on, so that it can be verified again while upstream is away.
    pub(super) async fn keep_material(&self, repository: &Repository, found: &Discovered) {
        for candidate in &found.material.candidates {
            let digest = Digest::sha256(candidate.bytes());
            self.parts.store.keep_content(&digest, candidate.bytes().clone()).await;
        }
        for (tag, manifest) in &found.manifests {
            self.parts.store.keep_content(manifest.digest(), manifest.bytes().clone()).await;
            // What was read from the store, upstream has not said again.
            if found.missing.is_some()
                && let Some(known) = self.parts.store.tag(repository, tag).await
                && known.digest == *manifest.digest()
            {
                continue;
            }
            let media_type = Some(manifest.parsed().media_type);
            let pointer = TagPointer { digest: *manifest.digest(), media_type, checked: found.at };
            self.parts.store.put_tag(repository, tag, pointer).await;
        }
    }

    /// cosign's legacy place: the layers of the image manifest at `sha256-<hex>.sig`.
    async fn search_signature_tag(
        &self,
        repository: &Repository,
        digest: &Digest,
        search: &mut Search,
    ) -> Result<(), NoEvidence> {
        let Ok(tag) = format!("{}-{}.sig", digest.algorithm().as_str(), digest.hex()).parse::<Tag>() else {
            return Ok(());
        };
        let no_evidence = |cause| NoEvidence { looked_for: format!("the signature tag {tag}"), cause };
        let source = self.source(repository).map_err(|_| no_evidence(not_configured(repository)))?;
        // By tag, and never again by digest: some registries lose the manifest under the one and keep it under the other.
        let fetched = source.upstream.manifest(repository.name(), &Reference::Tag(tag.clone())).await;
        match &fetched {
            Ok(fetched) => self.forget_stored(repository, &tag, Some(&fetched.digest)).await,
            Err(UpstreamError::NotFound { .. }) => self.forget_stored(repository, &tag, None).await,
            Err(_) => {}
        }
        let manifest = match fetched {
            Ok(fetched) => match self.parse_fetched(fetched).await {
                Ok(manifest) => Arc::new(manifest),
                Err(error) => {
                    return search
                        .skip_manifest(&tag, &error)
                        .map_err(|reason| no_evidence(UpstreamError::Bad { upstream: source.host.clone(), reason }));
                }
            },
            Err(UpstreamError::NotFound { .. }) => return Ok(()),
            Err(cause) => match self.stored_by_tag(repository, &tag).await {
                Some(manifest) => {
                    search.missing = Some(cause);
                    manifest
                }
                None => return Err(no_evidence(cause)),
            },
        };
        self.read_signatures(repository, &source.upstream, tag, manifest, search).await;
        Ok(())
    }

    /// Upstream has another manifest there now, or none: what it has taken away must not allow when it is down later.
    async fn forget_stored(&self, repository: &Repository, tag: &Tag, now: Option<&Digest>) {
        if let Some(pointer) = self.parts.store.tag(repository, tag).await
            && now != Some(&pointer.digest)
        {
            let pointer = TagPointer { checked: Timestamp::MIN, ..pointer };
            self.parts.store.put_tag(repository, tag, pointer).await;
        }
    }

    async fn stored_by_tag(&self, repository: &Repository, tag: &Tag) -> Option<Arc<UnverifiedManifest>> {
        let pointer = self.parts.store.tag(repository, tag).await.filter(|pointer| pointer.checked > Timestamp::MIN)?;
        self.stored(repository, &pointer.digest).await
    }

    async fn read_signatures(
        &self,
        repository: &Repository,
        upstream: &Upstream,
        tag: Tag,
        manifest: Arc<UnverifiedManifest>,
        search: &mut Search,
    ) {
        let ManifestKind::Image(image) = &manifest.parsed().kind else {
            search.skip(tag.to_string(), "it is an index, not an image manifest");
            return;
        };
        let chosen = search.choose(&tag, &image.layers);
        let reading = chosen.into_iter().map(|(layer, descriptor)| async move {
            (layer, descriptor, self.payload(repository, upstream, descriptor).await)
        });
        let mut read = stream::iter(reading.collect::<Vec<_>>()).buffered(MATERIAL_CONCURRENCY);
        while let Some((layer, descriptor, payload)) = read.next().await {
            let source =
                Source { repository: None, manifest: *manifest.digest(), place: Place::Tag(tag.to_string()), layer };
            search.take(source, &descriptor.annotations, payload);
        }
        drop(read);
        search.manifests.push((tag, Arc::clone(&manifest)));
    }

    /// One payload: from the store, else from upstream; bounded, hashed, of the size that its descriptor states.
    async fn payload(
        &self,
        repository: &Repository,
        upstream: &Upstream,
        descriptor: &Descriptor,
    ) -> Result<Bytes, UpstreamError> {
        let bytes = match self.parts.store.content(&descriptor.digest).await {
            Some(bytes) => bytes,
            None => upstream.small_blob(repository.name(), &descriptor.digest, descriptor.size).await?,
        };
        if u64::try_from(bytes.len()).is_ok_and(|length| length == descriptor.size) {
            Ok(bytes)
        } else {
            Err(UpstreamError::Bad { upstream: repository.host().clone(), reason: "size_mismatch" })
        }
    }
}

/// A search under way.
#[derive(Debug, Default)]
struct Search {
    material: Material,
    missing: Option<UpstreamError>,
    manifests: Vec<(Tag, Arc<UnverifiedManifest>)>,
    bytes: u64,
}

impl Search {
    fn finish(self, at: Timestamp) -> Discovered {
        Discovered { material: self.material, missing: self.missing, at, manifests: self.manifests }
    }

    fn skip(&mut self, place: String, why: &(impl ToString + ?Sized)) {
        self.material.skipped.push(Skipped { place, why: why.to_string() });
    }

    /// What sits at the tag is no manifest: skipped and reported, unless the answer was none to our question.
    fn skip_manifest(&mut self, tag: &Tag, error: &ManifestError) -> Result<(), &'static str> {
        match error {
            // Such as a login page with status 200.
            ManifestError::MediaType { .. } => return Err("media_type"),
            ManifestError::TooMany { .. } => self.material.more = true,
            ManifestError::TooLong
            | ManifestError::Json(_)
            | ManifestError::Shape(_)
            | ManifestError::Digest(_)
            | ManifestError::SizeTooLarge { .. }
            | ManifestError::EmbeddedData
            | ManifestError::IndexAndImage { .. }
            | ManifestError::SchemaVersion
            | ManifestError::MediaTypeMismatch { .. } => {}
        }
        self.skip(tag.to_string(), error);
        Ok(())
    }

    /// The layers that are looked at. Of more than [`CANDIDATES_MAX`] the first and the last half are: signers append, so
    /// neither the oldest nor the newest signature can be crowded out from one end.
    fn choose<'layers>(&mut self, tag: &Tag, layers: &'layers [Descriptor]) -> Vec<(usize, &'layers Descriptor)> {
        let (signatures, others): (Vec<_>, Vec<_>) =
            layers.iter().enumerate().partition(|(_, layer)| layer.media_type == SIMPLE_SIGNING);
        self.material.other_attachments = self.material.other_attachments.saturating_add(others.len());
        let room = CANDIDATES_MAX.saturating_sub(self.material.candidates.len());
        let total = signatures.len();
        let (head, tail) = (room.div_ceil(2), total.saturating_sub(room / 2));
        let mut chosen = Vec::new();
        for (position, (layer, descriptor)) in signatures.into_iter().enumerate() {
            if total > room && position >= head && position < tail {
                self.material.more = true;
                continue;
            }
            if descriptor.size > SIGNATURE_BYTES_MAX {
                self.skip(format!("{tag} layer {layer}"), "the payload is longer than 1 MiB");
                continue;
            }
            let bytes = self.bytes.saturating_add(descriptor.size);
            if bytes > MATERIAL_BYTES_MAX {
                self.material.more = true;
                continue;
            }
            self.bytes = bytes;
            chosen.push((layer, descriptor));
        }
        chosen
    }

    /// A payload was read, or not. A bad one is skipped; one that could not be read leaves the search incomplete.
    fn take(&mut self, source: Source, annotations: &BTreeMap<String, String>, payload: Result<Bytes, UpstreamError>) {
        match payload {
            Ok(payload) => {
                let signature = LegacySignature { payload, annotations: annotations.clone(), source };
                self.material.candidates.push(SignatureMaterial::Legacy(signature));
            }
            Err(error) => {
                if !is_about_the_payload(&error) {
                    self.missing.get_or_insert_with(|| error.clone());
                }
                self.skip(source.to_string(), &error);
            }
        }
    }
}

/// Whether upstream answered, and what it has there is no payload of that digest and size.
fn is_about_the_payload(error: &UpstreamError) -> bool {
    match error {
        UpstreamError::NotFound { .. } => true,
        UpstreamError::Bad { reason, .. } => matches!(*reason, "digest_mismatch" | "size_mismatch" | "too_large"),
        UpstreamError::Refused { .. }
        | UpstreamError::RateLimited { .. }
        | UpstreamError::Timeout { .. }
        | UpstreamError::Failed { .. }
        | UpstreamError::Connect { .. } => false,
    }
}

fn not_configured(repository: &Repository) -> UpstreamError {
    UpstreamError::Connect { upstream: repository.host().clone(), reason: "connect" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(count: usize, size: u64) -> Vec<Descriptor> {
        (0..count)
            .map(|number| Descriptor {
                media_type: SIMPLE_SIGNING.to_owned(),
                digest: Digest::sha256(number.to_string().as_bytes()),
                size,
                artifact_type: None,
                platform: None,
                annotations: BTreeMap::new(),
            })
            .collect()
    }

    fn chosen(layers: &[Descriptor]) -> (Vec<usize>, Search) {
        let mut search = Search::default();
        let tag = "t".parse().unwrap();
        let chosen = search.choose(&tag, layers).into_iter().map(|(layer, _)| layer).collect();
        (chosen, search)
    }

    #[test]
    fn as_many_candidates_as_allowed_are_all_looked_at() {
        let (chosen, search) = chosen(&layers(CANDIDATES_MAX, 1));
        assert_eq!(chosen.len(), CANDIDATES_MAX);
        assert!(!search.material.more);
    }

    #[test]
    fn of_more_candidates_the_oldest_and_the_newest_are_looked_at() {
        let (chosen, search) = chosen(&layers(CANDIDATES_MAX + 6, 1));
        assert_eq!(chosen.len(), CANDIDATES_MAX);
        assert_eq!((chosen.first(), chosen.last()), (Some(&0), Some(&(CANDIDATES_MAX + 5))));
        assert!(search.material.more);
    }

    #[test]
    fn payloads_are_bounded_one_by_one_and_together() {
        let (one_too_long, search) = chosen(&layers(1, SIGNATURE_BYTES_MAX + 1));
        assert!(one_too_long.is_empty() && !search.material.more);
        assert_eq!(search.material.skipped.len(), 1);
        let fits = usize::try_from(MATERIAL_BYTES_MAX / SIGNATURE_BYTES_MAX).unwrap();
        let (all, search) = chosen(&layers(fits, SIGNATURE_BYTES_MAX));
        assert!(all.len() == fits && !search.material.more);
        let (all, search) = chosen(&layers(fits + 1, SIGNATURE_BYTES_MAX));
        assert!(all.len() == fits && search.material.more);
    }

    #[test]
    fn layers_that_are_no_signatures_are_counted_and_do_not_crowd_out_one() {
        let mut list = layers(200, 1);
        for layer in &mut list {
            layer.media_type = "text/plain".to_owned();
        }
        list.extend(layers(1, 1));
        let (chosen, search) = chosen(&list);
        assert_eq!(chosen, [200]);
        assert!(search.material.other_attachments == 200 && !search.material.more);
    }

    #[test]
    fn only_an_answer_about_the_payload_itself_skips_it() {
        let upstream: crate::oci::Host = "quay.io".parse().unwrap();
        let bad = |reason| UpstreamError::Bad { upstream: upstream.clone(), reason };
        assert!(is_about_the_payload(&bad("digest_mismatch")));
        assert!(is_about_the_payload(&UpstreamError::NotFound { upstream: upstream.clone() }));
        for error in [
            bad("truncated"),
            bad("redirect_blocked"),
            UpstreamError::Timeout { upstream: upstream.clone() },
            UpstreamError::Failed { upstream: upstream.clone(), status: 500, retry_after: None },
            UpstreamError::Refused { upstream: upstream.clone(), status: 403 },
        ] {
            assert!(!is_about_the_payload(&error), "{error}");
        }
    }
}
