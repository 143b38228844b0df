//! Referrers lists (distribution-spec v1.1, "Listing Referrers"), from the API or, where upstream has none, from the
//! fallback tag.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Map, Value, json};

use super::cold::Novelty;
use super::{PullError, Puller};
use crate::limits::{CANDIDATES_MAX, MATERIAL_CONCURRENCY, REFERRERS_MAX};
use crate::oci::{Descriptor, Digest, ManifestKind, MediaType, Reference, Repository, Tag};
use crate::telemetry::{CacheKind, CacheResult};
use crate::upstream::UpstreamError;

/// Referrers as an OCI index.
#[derive(Debug, Clone)]
pub struct ReferrersDocument {
    /// The JSON.
    pub bytes: Bytes,
    /// Whether a filter by artifact type was applied.
    pub filtered: bool,
}

/// The referrers of one digest, shared.
#[derive(Debug, Clone)]
pub(super) struct Listed(Arc<[Descriptor]>);

impl Listed {
    pub(super) fn memory_bytes(&self) -> usize {
        let annotations = |descriptor: &Descriptor| {
            descriptor.annotations.iter().map(|(key, value)| key.len().saturating_add(value.len())).sum::<usize>()
        };
        self.0.iter().fold(0, |sum, descriptor| sum.saturating_add(annotations(descriptor)).saturating_add(512))
    }
}

impl Puller {
    /// The referrers of a digest as an OCI index, only those of `artifact_type` when that is given. Empty when upstream
    /// says that there are none; remembered for at most 10 s. Cancel safe.
    ///
    /// # Errors
    /// [`PullError::Upstream`] when upstream gave no usable answer: a list that could not be read is not an empty one.
    pub async fn referrers(
        &self,
        repository: &Repository,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<ReferrersDocument, PullError> {
        let listed = self.listed(repository, digest).await?;
        let descriptors = match artifact_type {
            None => listed.0.to_vec(),
            Some(wanted) => self.of_type(repository, &listed.0, wanted).await?,
        };
        Ok(ReferrersDocument { bytes: document(&descriptors), filtered: artifact_type.is_some() })
    }

    async fn listed(&self, repository: &Repository, digest: &Digest) -> Result<Listed, PullError> {
        if let Some(listed) = self.parts.hot.referrers(repository, digest, self.parts.clock.now()) {
            self.parts.telemetry.cache_asked(CacheKind::Referrers, CacheResult::Hit);
            return Ok(listed);
        }
        self.parts.telemetry.cache_asked(CacheKind::Referrers, CacheResult::Miss);
        let work = || {
            let (puller, repository, digest) = (self.clone(), repository.clone(), *digest);
            async move { puller.list(&repository, &digest).await }
        };
        let at = (repository.host(), Novelty::New);
        self.run(&self.parts.listing, at, (repository.clone(), *digest), work).await?
    }

    async fn list(&self, repository: &Repository, digest: &Digest) -> Result<Listed, PullError> {
        let now = self.parts.clock.now();
        let upstream = &self.source(repository)?.upstream;
        let mut descriptors = match upstream.referrers(repository.name(), digest).await {
            Ok(Some(list)) => list.manifests,
            Ok(None) | Err(UpstreamError::NotFound { .. }) => self.fallback_list(repository, digest).await?,
            Err(error) => return Err(error.into()),
        };
        descriptors.truncate(REFERRERS_MAX);
        let listed = Listed(descriptors.into());
        self.parts.hot.keep_referrers(repository, digest, listed.clone(), now);
        Ok(listed)
    }

    /// The index at the tag `<algorithm>-<hex>`, cut to 64 digits (distribution-spec, "Referrers Tag Schema").
    async fn fallback_list(&self, repository: &Repository, digest: &Digest) -> Result<Vec<Descriptor>, PullError> {
        let hex: String = digest.hex().chars().take(64).collect();
        let Ok(tag) = format!("{}-{hex}", digest.algorithm().as_str()).parse::<Tag>() else {
            return Ok(Vec::new());
        };
        match self.fetch(repository, &Reference::Tag(tag)).await {
            Ok(manifest) => Ok(manifest.parsed().children().to_vec()),
            Err(PullError::ManifestUnknown) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Those of the type that is asked for. Lists written by older tools name the empty type for everything; then the
    /// referrer itself is looked at, of at most [`CANDIDATES_MAX`].
    async fn of_type(
        &self,
        repository: &Repository,
        listed: &[Descriptor],
        wanted: &str,
    ) -> Result<Vec<Descriptor>, PullError> {
        let mut looked_at = 0_usize;
        let typed = listed.iter().map(|descriptor| {
            let unclear = match descriptor.artifact_type.as_deref() {
                None | Some("" | EMPTY_TYPE) => true,
                Some(_) => false,
            };
            looked_at = looked_at.saturating_add(usize::from(unclear));
            let look = unclear && looked_at <= CANDIDATES_MAX;
            let descriptor = descriptor.clone();
            async move { if look { self.with_own_type(repository, descriptor).await } else { Ok(descriptor) } }
        });
        let typed: Vec<Descriptor> =
            stream::iter(typed.collect::<Vec<_>>()).buffered(MATERIAL_CONCURRENCY).try_collect().await?;
        Ok(typed.into_iter().filter(|descriptor| descriptor.artifact_type.as_deref() == Some(wanted)).collect())
    }

    /// The artifact type that the referrer states, else the media type of its first layer.
    async fn with_own_type(&self, repository: &Repository, listed: Descriptor) -> Result<Descriptor, PullError> {
        let manifest = match self.unverified(repository, &listed.digest).await {
            Ok((manifest, _)) => manifest,
            // Listed but not there, or no manifest: it has no type to match.
            Err(PullError::ManifestUnknown | PullError::Manifest(_)) => return Ok(listed),
            Err(error) => return Err(error),
        };
        let stated = manifest.parsed().artifact_type.clone().filter(|stated| stated != EMPTY_TYPE);
        let layer = match &manifest.parsed().kind {
            ManifestKind::Image(image) => image.layers.first().map(|layer| layer.media_type.clone()),
            ManifestKind::Index(_) => None,
        };
        Ok(Descriptor { artifact_type: stated.or(layer).or(listed.artifact_type), ..listed })
    }
}

const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";

fn document(descriptors: &[Descriptor]) -> Bytes {
    let manifests: Vec<Value> = descriptors.iter().map(descriptor_json).collect();
    let index = json!({ "schemaVersion": 2, "mediaType": MediaType::OciIndex.as_str(), "manifests": manifests });
    index.to_string().into()
}

fn descriptor_json(descriptor: &Descriptor) -> Value {
    let mut object = Map::new();
    object.insert("mediaType".to_owned(), json!(descriptor.media_type));
    object.insert("digest".to_owned(), json!(descriptor.digest.to_string()));
    object.insert("size".to_owned(), json!(descriptor.size));
    if let Some(artifact_type) = &descriptor.artifact_type {
        object.insert("artifactType".to_owned(), json!(artifact_type));
    }
    if !descriptor.annotations.is_empty() {
        object.insert("annotations".to_owned(), json!(descriptor.annotations));
    }
    if let Some(platform) = &descriptor.platform {
        let platform = json!({ "architecture": platform.architecture, "os": platform.os });
        object.insert("platform".to_owned(), platform);
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_is_an_index_with_an_empty_list() {
        let value: Value = serde_json::from_slice(&document(&[])).unwrap();
        assert_eq!(
            value,
            json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []})
        );
    }

    #[test]
    fn a_descriptor_survives_its_json() {
        let text = format!(
            r#"{{"mediaType":"a/b","digest":"{}","size":3,"artifactType":"c/d","annotations":{{"k":"v"}}}}"#,
            Digest::sha256(b"x")
        );
        let value: Value = serde_json::from_str(&text).unwrap();
        let descriptor = Descriptor::from_value(&value).unwrap();
        assert_eq!(descriptor_json(&descriptor), value);
    }
}
