//! What the registry holds.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use serde_json::{Value, json};

use super::Content;
use crate::oci::{Digest, Manifest, ManifestKind};

/// All repositories and uploads.
#[derive(Debug, Default)]
pub(super) struct Contents {
    repositories: BTreeMap<String, Repository>,
    uploads: HashMap<String, Vec<u8>>,
    uploads_begun: usize,
}

#[derive(Debug, Default)]
struct Repository {
    manifests: BTreeMap<Digest, Content>,
    /// The manifests in the order in which they first came.
    arrivals: Vec<Digest>,
    blobs: BTreeMap<Digest, Bytes>,
    tags: BTreeMap<String, Digest>,
}

impl Contents {
    pub(super) fn put_manifest(&mut self, repository: &str, manifest: Content) {
        let repository = self.repository(repository);
        if !repository.arrivals.contains(&manifest.digest) {
            repository.arrivals.push(manifest.digest);
        }
        repository.manifests.insert(manifest.digest, manifest);
    }

    pub(super) fn put_blob(&mut self, repository: &str, digest: Digest, bytes: Bytes) {
        self.repository(repository).blobs.insert(digest, bytes);
    }

    pub(super) fn tag(&mut self, repository: &str, tag: &str, digest: Digest) {
        self.repository(repository).tags.insert(tag.to_owned(), digest);
    }

    pub(super) fn untag(&mut self, repository: &str, tag: &str) -> bool {
        self.repository(repository).tags.remove(tag).is_some()
    }

    pub(super) fn remove_manifest(&mut self, repository: &str, digest: &Digest) -> bool {
        self.repository(repository).manifests.remove(digest).is_some()
    }

    pub(super) fn remove_blob(&mut self, repository: &str, digest: &Digest) -> bool {
        self.repository(repository).blobs.remove(digest).is_some()
    }

    pub(super) fn has(&self, repository: &str) -> bool {
        self.repositories.contains_key(repository)
    }

    pub(super) fn resolve(&self, repository: &str, tag: &str) -> Option<Digest> {
        self.repositories.get(repository)?.tags.get(tag).copied()
    }

    pub(super) fn manifest(&self, repository: &str, digest: &Digest) -> Option<Content> {
        self.repositories.get(repository)?.manifests.get(digest).cloned()
    }

    pub(super) fn blob(&self, repository: &str, digest: &Digest) -> Option<Bytes> {
        self.repositories.get(repository)?.blobs.get(digest).cloned()
    }

    /// The tags after `last`, sorted bytewise.
    pub(super) fn tags(&self, repository: &str, last: Option<&str>) -> Vec<String> {
        let tags = self.repositories.get(repository).map(|repository| &repository.tags);
        let after = |tag: &&String| last.is_none_or(|last| tag.as_str() > last);
        tags.into_iter().flat_map(BTreeMap::keys).filter(after).cloned().collect()
    }

    /// The descriptors of the manifests whose subject is `digest`, in the order in which they came.
    pub(super) fn referrers(&self, repository: &str, digest: &Digest) -> Vec<Value> {
        let Some(repository) = self.repositories.get(repository) else { return Vec::new() };
        let manifests = repository.arrivals.iter().filter_map(|digest| repository.manifests.get(digest));
        let about = |content: &&Content| {
            let parsed = Manifest::parse(&content.bytes, Some(&content.media_type)).ok();
            parsed.and_then(|manifest| manifest.subject).is_some_and(|subject| subject.digest == *digest)
        };
        manifests.filter(about).map(referrer).collect()
    }

    /// What a manifest lists and the repository does not have.
    pub(super) fn missing(&self, repository: &str, manifest: &Manifest) -> Option<Digest> {
        let has_blob = |digest: &Digest| self.blob(repository, digest).is_some();
        let has_child = |digest: &Digest| self.manifest(repository, digest).is_some();
        match &manifest.kind {
            ManifestKind::Image(image) => std::iter::once(&image.config)
                .chain(&image.layers)
                .map(|blob| blob.digest)
                .find(|digest| !has_blob(digest)),
            ManifestKind::Index(index) => {
                index.manifests.iter().map(|child| child.digest).find(|digest| !has_child(digest))
            }
        }
    }

    pub(super) fn begin_upload(&mut self) -> String {
        self.uploads_begun += 1;
        let id = format!("upload-{}", self.uploads_begun);
        self.uploads.insert(id.clone(), Vec::new());
        id
    }

    pub(super) fn upload(&mut self, id: &str) -> Option<&mut Vec<u8>> {
        self.uploads.get_mut(id)
    }

    pub(super) fn end_upload(&mut self, id: &str) -> Option<Vec<u8>> {
        self.uploads.remove(id)
    }

    fn repository(&mut self, name: &str) -> &mut Repository {
        self.repositories.entry(name.to_owned()).or_default()
    }
}

/// A descriptor as the referrers API lists it: with artifact type and annotations of the manifest.
fn referrer(content: &Content) -> Value {
    let manifest = Manifest::parse(&content.bytes, Some(&content.media_type)).unwrap();
    let mut descriptor = content.descriptor();
    if let Some(artifact_type) = manifest.artifact_type {
        descriptor["artifactType"] = json!(artifact_type);
    }
    if !manifest.annotations.is_empty() {
        descriptor["annotations"] = json!(manifest.annotations);
    }
    descriptor
}
