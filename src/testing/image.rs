//! Images, indexes and artefacts, made from a seed.
//!
//! ```
//! use sealgate::testing::ImageBuilder;
//!
//! let image = ImageBuilder::new(1).layer(1024).layer(64 * 1024).build();
//! let arm = ImageBuilder::new(2).platform("linux", "arm64").layer(10).build();
//! let index = ImageBuilder::index([image.clone(), arm]).attestation().build();
//! assert_eq!(index.children.len(), 3);
//! assert_ne!(index.digest(), image.digest());
//! ```

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::oci::{Algorithm, Digest, MediaType};

/// Some bytes with their digest and type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The bytes.
    pub bytes: Bytes,
    /// Their digest.
    pub digest: Digest,
    /// Their type.
    pub media_type: String,
}

impl Content {
    /// Content with its digest by that algorithm.
    pub fn new(algorithm: Algorithm, media_type: impl Into<String>, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { digest: Digest::of(algorithm, &bytes), media_type: media_type.into(), bytes }
    }

    /// Its descriptor.
    pub fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest.to_string(), "size": self.bytes.len() })
    }
}

/// A manifest with all that it lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltImage {
    /// The manifest or index.
    pub manifest: Content,
    /// Config and layers, in that order; empty for an index.
    pub blobs: Vec<Content>,
    /// The children of an index.
    pub children: Vec<Self>,
    /// `os` and `architecture`; `unknown` twice for an attestation child.
    pub platform: (String, String),
    /// What its descriptor in an index carries beyond the platform.
    pub annotations: BTreeMap<String, String>,
}

impl BuiltImage {
    /// The digest of the manifest.
    pub fn digest(&self) -> Digest {
        self.manifest.digest
    }

    /// The descriptor of the manifest, as `subject` or in an index.
    pub fn descriptor(&self) -> Value {
        self.manifest.descriptor()
    }

    /// The bytes of config and layers together.
    pub fn blob_bytes(&self) -> usize {
        self.blobs.iter().map(|blob| blob.bytes.len()).sum()
    }

    fn child_descriptor(&self) -> Value {
        let mut descriptor = self.descriptor();
        let (os, architecture) = &self.platform;
        descriptor["platform"] = json!({ "architecture": architecture, "os": os });
        if !self.annotations.is_empty() {
            descriptor["annotations"] = json!(self.annotations);
        }
        descriptor
    }
}

/// Builds one image or artefact.
#[derive(Debug, Clone)]
pub struct ImageBuilder {
    seed: u64,
    docker: bool,
    algorithm: Algorithm,
    platform: (String, String),
    artifact_type: Option<String>,
    config: Option<(String, Bytes)>,
    layers: Vec<Layer>,
    subject: Option<Value>,
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
struct Layer {
    media_type: Option<String>,
    bytes: Bytes,
    annotations: BTreeMap<String, String>,
}

impl ImageBuilder {
    /// An OCI image for linux/amd64 without layers yet. Two seeds give two images.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            docker: false,
            algorithm: Algorithm::Sha256,
            platform: ("linux".to_owned(), "amd64".to_owned()),
            artifact_type: None,
            config: None,
            layers: Vec::new(),
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    /// An artefact: an image manifest with the empty config and this `artifactType`.
    pub fn artefact(artifact_type: &str) -> Self {
        let mut builder = Self::new(0).config("application/vnd.oci.empty.v1+json", &b"{}"[..]);
        builder.artifact_type = Some(artifact_type.to_owned());
        builder
    }

    /// An index of these images, in that order.
    pub fn index(children: impl IntoIterator<Item = BuiltImage>) -> IndexBuilder {
        IndexBuilder {
            docker: false,
            algorithm: Algorithm::Sha256,
            children: children.into_iter().collect(),
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    /// Docker's types (schema 2).
    #[must_use]
    pub fn docker(mut self) -> Self {
        self.docker = true;
        self
    }

    /// Digests by SHA-512, all of them.
    #[must_use]
    pub fn sha512(mut self) -> Self {
        self.algorithm = Algorithm::Sha512;
        self
    }

    /// What it runs on.
    #[must_use]
    pub fn platform(mut self, os: &str, architecture: &str) -> Self {
        self.platform = (os.to_owned(), architecture.to_owned());
        self
    }

    /// A layer of that many bytes, made from the seed and the layer's place.
    #[must_use]
    pub fn layer(mut self, bytes: usize) -> Self {
        let place = u64::try_from(self.layers.len()).unwrap();
        let bytes = pseudo_random(self.seed.wrapping_mul(1_000_003).wrapping_add(place), bytes);
        self.layers.push(Layer { media_type: None, bytes, annotations: BTreeMap::new() });
        self
    }

    /// A layer with exactly these bytes, type and annotations, such as a signature.
    #[must_use]
    pub fn layer_of(mut self, media_type: &str, bytes: impl Into<Bytes>, annotations: &[(&str, &str)]) -> Self {
        let annotations = owned(annotations);
        self.layers.push(Layer { media_type: Some(media_type.to_owned()), bytes: bytes.into(), annotations });
        self
    }

    /// Another config.
    #[must_use]
    pub fn config(mut self, media_type: &str, bytes: impl Into<Bytes>) -> Self {
        self.config = Some((media_type.to_owned(), bytes.into()));
        self
    }

    /// The manifest that this one is about, by its descriptor.
    #[must_use]
    pub fn subject(mut self, descriptor: Value) -> Self {
        self.subject = Some(descriptor);
        self
    }

    /// An annotation of the manifest.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Builds it.
    pub fn build(self) -> BuiltImage {
        let (manifest_type, config_type, layer_type) = if self.docker {
            (MediaType::DockerManifest, DOCKER_CONFIG, DOCKER_LAYER)
        } else {
            (MediaType::OciManifest, OCI_CONFIG, OCI_LAYER)
        };
        let (config_type, config) = self.config.unwrap_or_else(|| {
            let (os, architecture) = &self.platform;
            let diff_ids: Vec<String> =
                self.layers.iter().map(|layer| Digest::sha256(&layer.bytes).to_string()).collect();
            let config = json!({
                "architecture": architecture,
                "os": os,
                "config": { "Env": [format!("SEED={}", self.seed)], "Cmd": ["/app"] },
                "rootfs": { "type": "layers", "diff_ids": diff_ids },
            });
            (config_type.to_owned(), Bytes::from(config.to_string()))
        });
        let mut blobs = vec![Content::new(self.algorithm, config_type, config)];
        let mut layers = Vec::new();
        for layer in self.layers {
            let media_type = layer.media_type.unwrap_or_else(|| layer_type.to_owned());
            let blob = Content::new(self.algorithm, media_type, layer.bytes);
            let mut descriptor = blob.descriptor();
            if !layer.annotations.is_empty() {
                descriptor["annotations"] = json!(layer.annotations);
            }
            layers.push(descriptor);
            blobs.push(blob);
        }
        let mut document = head(manifest_type, self.artifact_type);
        document.insert("config".to_owned(), blobs[0].descriptor());
        document.insert("layers".to_owned(), Value::Array(layers));
        tail(&mut document, self.subject, &self.annotations);
        BuiltImage {
            manifest: Content::new(self.algorithm, manifest_type.as_str(), Value::Object(document).to_string()),
            blobs,
            children: Vec::new(),
            platform: self.platform,
            annotations: BTreeMap::new(),
        }
    }
}

/// Builds one index.
#[derive(Debug, Clone)]
pub struct IndexBuilder {
    docker: bool,
    algorithm: Algorithm,
    children: Vec<BuiltImage>,
    subject: Option<Value>,
    annotations: BTreeMap<String, String>,
}

impl IndexBuilder {
    /// Docker's type (a manifest list).
    #[must_use]
    pub fn docker(mut self) -> Self {
        self.docker = true;
        self
    }

    /// The index's own digest by SHA-512.
    #[must_use]
    pub fn sha512(mut self) -> Self {
        self.algorithm = Algorithm::Sha512;
        self
    }

    /// Another child.
    #[must_use]
    pub fn child(mut self, child: BuiltImage) -> Self {
        self.children.push(child);
        self
    }

    /// `BuildKit`'s attestation child for the first child: `unknown/unknown`, one in-toto layer.
    #[must_use]
    pub fn attestation(self) -> Self {
        let about = self.children.first().unwrap().digest().to_string();
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v0.1",
            "predicateType": "https://slsa.dev/provenance/v0.2",
            "subject": [{ "name": "image", "digest": { "sha256": about.trim_start_matches("sha256:") } }],
            "predicate": {},
        });
        let mut child = ImageBuilder::new(0)
            .platform("unknown", "unknown")
            .layer_of(
                "application/vnd.in-toto+json",
                statement.to_string(),
                &[("in-toto.io/predicate-type", "https://slsa.dev/provenance/v0.2")],
            )
            .build();
        child.annotations = owned(&[
            ("vnd.docker.reference.type", "attestation-manifest"),
            ("vnd.docker.reference.digest", about.as_str()),
        ]);
        self.child(child)
    }

    /// The manifest that this index is about, by its descriptor.
    #[must_use]
    pub fn subject(mut self, descriptor: Value) -> Self {
        self.subject = Some(descriptor);
        self
    }

    /// An annotation of the index.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Builds it.
    pub fn build(self) -> BuiltImage {
        let media_type = if self.docker { MediaType::DockerList } else { MediaType::OciIndex };
        let mut document = head(media_type, None);
        let children = self.children.iter().map(BuiltImage::child_descriptor).collect();
        document.insert("manifests".to_owned(), Value::Array(children));
        tail(&mut document, self.subject, &self.annotations);
        BuiltImage {
            manifest: Content::new(self.algorithm, media_type.as_str(), Value::Object(document).to_string()),
            blobs: Vec::new(),
            children: self.children,
            platform: (String::new(), String::new()),
            annotations: BTreeMap::new(),
        }
    }
}

/// Bytes that do not compress and that the seed alone decides (splitmix64).
pub fn pseudo_random(seed: u64, length: usize) -> Bytes {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    bytes.truncate(length);
    Bytes::from(bytes)
}

fn head(media_type: MediaType, artifact_type: Option<String>) -> Map<String, Value> {
    let mut document = Map::new();
    document.insert("schemaVersion".to_owned(), json!(2));
    document.insert("mediaType".to_owned(), json!(media_type.as_str()));
    if let Some(artifact_type) = artifact_type {
        document.insert("artifactType".to_owned(), json!(artifact_type));
    }
    document
}

fn tail(document: &mut Map<String, Value>, subject: Option<Value>, annotations: &BTreeMap<String, String>) {
    if let Some(subject) = subject {
        document.insert("subject".to_owned(), subject);
    }
    if !annotations.is_empty() {
        document.insert("annotations".to_owned(), json!(annotations));
    }
}

fn owned(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Manifest;

    #[test]
    fn what_is_built_is_what_the_product_reads() {
        let images = [
            ImageBuilder::new(1).layer(10).layer(20).build(),
            ImageBuilder::new(1).layer(10).docker().build(),
            ImageBuilder::new(1).layer(10).sha512().build(),
            ImageBuilder::artefact("application/x").layer_of("text/plain", &b"x"[..], &[("a", "b")]).build(),
        ];
        for image in &images {
            let manifest = Manifest::parse(&image.manifest.bytes, Some(&image.manifest.media_type)).unwrap();
            let listed: Vec<Digest> = manifest.blobs().map(|blob| blob.digest).collect();
            assert_eq!(listed, image.blobs.iter().map(|blob| blob.digest).collect::<Vec<_>>());
        }
        let index = ImageBuilder::index(images[..1].iter().cloned()).attestation().build();
        let manifest = Manifest::parse(&index.manifest.bytes, Some(&index.manifest.media_type)).unwrap();
        assert!(!manifest.children()[0].is_attestation_child() && manifest.children()[1].is_attestation_child());
    }

    #[test]
    fn the_seed_alone_decides() {
        let build = |seed| ImageBuilder::new(seed).layer(1000).build().digest();
        assert_eq!(build(1), build(1));
        assert_ne!(build(1), build(2));
        assert_eq!(pseudo_random(7, 13).len(), 13);
    }
}
