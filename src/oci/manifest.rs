//! Image manifests and indexes (image-spec; Docker's schema 2), read strictly.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::json::{self, JsonError};
use super::{Descriptor, DigestError, MediaType};
use crate::limits::{INDEX_CHILDREN_MAX, LAYERS_MAX, MANIFEST_BYTES_MAX};

/// Why bytes are not a manifest that passes through the mirror.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Longer than 4 MiB.
    #[error("the manifest is longer than {MANIFEST_BYTES_MAX} bytes")]
    TooLong,
    /// Not strict JSON, or a key that a lenient reader would take for another.
    #[error("ambiguous manifest: {0}")]
    Json(#[from] JsonError),
    /// A field is missing or of the wrong kind.
    #[error("malformed manifest: {0}")]
    Shape(String),
    /// A digest in it does not parse.
    #[error("malformed manifest: {0}")]
    Digest(#[from] DigestError),
    /// A descriptor states more than 2^53 bytes.
    #[error("malformed manifest: a descriptor states {size} bytes")]
    SizeTooLarge {
        /// What it states.
        size: u64,
    },
    /// A descriptor's embedded `data` does not fit its digest and size.
    #[error("malformed manifest: embedded data does not match its descriptor")]
    EmbeddedData,
    /// It could be read as an index by one client and as an image by another.
    #[error("ambiguous manifest: it has \"manifests\" beside {beside:?}")]
    IndexAndImage {
        /// The key beside `manifests`.
        beside: &'static str,
    },
    /// `schemaVersion` is not 2.
    #[error("unsupported manifest: schemaVersion is not 2")]
    SchemaVersion,
    /// The type is none that passes through the mirror.
    #[error("unsupported manifest type {found:?}")]
    MediaType {
        /// What the document or the header says.
        found: String,
    },
    /// The document names one type and the `Content-Type` header another.
    #[error("ambiguous manifest: it calls itself {document} and upstream calls it {header}")]
    MediaTypeMismatch {
        /// What the document says.
        document: MediaType,
        /// What the header says.
        header: MediaType,
    },
    /// More layers or children than are looked at.
    #[error("the manifest lists {found} entries, more than {allowed}")]
    TooMany {
        /// How many it lists.
        found: usize,
        /// How many may be.
        allowed: usize,
    },
}

/// A manifest, read once from the bytes that are hashed, stored and served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The type under which it is served, now and later.
    pub media_type: MediaType,
    /// What it lists.
    pub kind: ManifestKind,
    /// The manifest that this one is about, on referrers.
    pub subject: Option<Descriptor>,
    /// The artifact type that it states, or its config's media type where the image-spec says so.
    pub artifact_type: Option<String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// An image or an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestKind {
    /// One image, or an artifact in the same form.
    Image(Image),
    /// A list of manifests.
    Index(Index),
}

/// What an image manifest lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The config blob.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
}

/// What pulling an image transfers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ImageSize {
    /// Bytes of config and layers as they are listed, that is compressed.
    pub bytes: u64,
    /// Number of layers.
    pub layers: usize,
}

/// What an index lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// The children.
    pub manifests: Vec<Descriptor>,
}

const KEYS: [&str; 9] = [
    "schemaVersion",
    "mediaType",
    "artifactType",
    "config",
    "layers",
    "manifests",
    "subject",
    "annotations",
    "fsLayers",
];

impl Manifest {
    /// Reads a manifest from its bytes and the `Content-Type` under which upstream sent it (`None` when it comes from a
    /// place that keeps no type: then the document must name it, or its shape decides among the OCI types).
    ///
    /// # Errors
    /// [`ManifestError`] for everything that is not one unambiguous manifest of a supported type.
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, ManifestError> {
        if u64::try_from(bytes.len()).map_or(true, |length| length > MANIFEST_BYTES_MAX) {
            return Err(ManifestError::TooLong);
        }
        let document = json::parse(bytes)?;
        let object = document.as_object().ok_or(ManifestError::Shape("not an object".to_owned()))?;
        json::check_keys(object, &KEYS)?;
        if object.get("schemaVersion").and_then(Value::as_u64) != Some(2) {
            return Err(ManifestError::SchemaVersion);
        }
        let media_type = media_type(object, content_type)?;
        let kind = if media_type.is_index() {
            ManifestKind::Index(index(object)?)
        } else {
            ManifestKind::Image(image(object)?)
        };
        let subject = match object.get("subject") {
            None | Some(Value::Null) => None,
            Some(value) => Some(Descriptor::from_value(value)?),
        };
        let artifact_type = artifact_type(object, &kind)?;
        let annotations = match object.get("annotations") {
            None | Some(Value::Null) => BTreeMap::new(),
            Some(value) => json::shaped(value.clone())?,
        };
        Ok(Self { media_type, kind, subject, artifact_type, annotations })
    }

    /// The children, empty for an image.
    pub fn children(&self) -> &[Descriptor] {
        match &self.kind {
            ManifestKind::Index(index) => &index.manifests,
            ManifestKind::Image(_) => &[],
        }
    }

    /// The blobs that it lists: config and layers; none for an index.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        match &self.kind {
            ManifestKind::Image(image) => Some(std::iter::once(&image.config).chain(&image.layers)),
            ManifestKind::Index(_) => None,
        }
        .into_iter()
        .flatten()
    }

    /// What pulling it transfers; none for an index, whose children have sizes of their own. A sum that no number holds is
    /// larger than every bound.
    pub fn image_size(&self) -> Option<ImageSize> {
        let ManifestKind::Image(image) = &self.kind else { return None };
        let sum = self.blobs().try_fold(0_u64, |sum, blob| sum.checked_add(blob.size));
        Some(ImageSize { bytes: sum.unwrap_or(u64::MAX), layers: image.layers.len() })
    }

    /// Whether it is an index.
    pub const fn is_index(&self) -> bool {
        self.media_type.is_index()
    }
}

/// The document's own type, the header's, or, where neither says, the OCI type of its shape.
fn media_type(object: &Map<String, Value>, content_type: Option<&str>) -> Result<MediaType, ManifestError> {
    let unsupported = |found: &str| ManifestError::MediaType { found: found.chars().take(128).collect() };
    let header = match content_type {
        None => None,
        Some(text) => Some(text.parse::<MediaType>().map_err(|_| unsupported(text))?),
    };
    let document = match object.get("mediaType") {
        None => None,
        Some(Value::String(text)) => {
            // Byte for byte: a type with another case or a parameter is a different one to some client.
            let known = MediaType::ALL.into_iter().find(|known| known.as_str() == text);
            Some(known.ok_or_else(|| unsupported(text))?)
        }
        Some(_) => return Err(ManifestError::Shape("mediaType is not a string".to_owned())),
    };
    let has_children = object.contains_key("manifests");
    let media_type = match (document, header) {
        (Some(document), Some(header)) if document != header => {
            return Err(ManifestError::MediaTypeMismatch { document, header });
        }
        (Some(known), _) | (None, Some(known)) => known,
        (None, None) if has_children => MediaType::OciIndex,
        (None, None) => MediaType::OciManifest,
    };
    let other: &[&'static str] = &["config", "layers", "fsLayers"];
    if has_children && let Some(beside) = other.iter().find(|key| object.contains_key(**key)) {
        return Err(ManifestError::IndexAndImage { beside });
    }
    if object.contains_key("fsLayers") {
        return Err(ManifestError::SchemaVersion);
    }
    if has_children != media_type.is_index() {
        return Err(ManifestError::Shape(format!("its content is not that of {media_type}")));
    }
    Ok(media_type)
}

fn image(object: &Map<String, Value>) -> Result<Image, ManifestError> {
    let config = object.get("config").ok_or(ManifestError::Shape("config is missing".to_owned()))?;
    Ok(Image { config: Descriptor::from_value(config)?, layers: descriptors(object, "layers", LAYERS_MAX)? })
}

fn index(object: &Map<String, Value>) -> Result<Index, ManifestError> {
    Ok(Index { manifests: descriptors(object, "manifests", INDEX_CHILDREN_MAX)? })
}

fn descriptors(
    object: &Map<String, Value>,
    key: &'static str,
    allowed: usize,
) -> Result<Vec<Descriptor>, ManifestError> {
    let list = object
        .get(key)
        .and_then(Value::as_array)
        .ok_or_else(|| ManifestError::Shape(format!("{key} is missing or no list")))?;
    if list.len() > allowed {
        return Err(ManifestError::TooMany { found: list.len(), allowed });
    }
    list.iter().map(Descriptor::from_value).collect()
}

/// image-spec, "Guidelines for Artifact Usage": the manifest's own type, else its config's media type.
fn artifact_type(object: &Map<String, Value>, kind: &ManifestKind) -> Result<Option<String>, ManifestError> {
    let own = match object.get("artifactType") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) if text.is_empty() => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(_) => return Err(ManifestError::Shape("artifactType is not a string".to_owned())),
    };
    Ok(own.or_else(|| match kind {
        ManifestKind::Image(image) => Some(image.config.media_type.clone()).filter(|text| !text.is_empty()),
        ManifestKind::Index(_) => None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
    const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

    fn descriptor() -> String {
        format!(r#"{{"mediaType":"x/y","digest":"{}","size":3}}"#, Digest::sha256(b"abc"))
    }

    fn image(extra: &str) -> String {
        format!(r#"{{"schemaVersion":2,"config":{0},"layers":[{0}]{extra}}}"#, descriptor())
    }

    #[test]
    fn an_image_lists_its_config_and_layers() {
        let manifest = Manifest::parse(image("").as_bytes(), Some(OCI)).unwrap();
        assert_eq!(manifest.media_type, MediaType::OciManifest);
        assert_eq!(manifest.blobs().count(), 2);
        assert_eq!(manifest.artifact_type.as_deref(), Some("x/y"));
    }

    #[test]
    fn the_stored_type_is_that_of_the_document_the_header_or_the_shape() {
        assert_eq!(Manifest::parse(image("").as_bytes(), None).unwrap().media_type, MediaType::OciManifest);
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, descriptor());
        assert!(Manifest::parse(index.as_bytes(), None).unwrap().is_index());
        let docker = MediaType::DockerManifest.as_str();
        let header = format!("{docker}; charset=utf-8");
        assert_eq!(Manifest::parse(image("").as_bytes(), Some(&header)).unwrap().media_type, MediaType::DockerManifest);
    }

    #[test]
    fn what_one_client_reads_as_an_image_and_another_as_an_index_is_refused() {
        let list = format!(r#","manifests":[{}]"#, descriptor());
        for header in [Some(OCI), Some(OCI_INDEX), None] {
            assert!(matches!(
                Manifest::parse(image(&list).as_bytes(), header),
                Err(ManifestError::IndexAndImage { .. })
            ));
        }
        for key in ["Manifests", "manifest\u{017f}", "LAYERS", "MediaType", "Config"] {
            let bytes = image(&format!(r#","{key}":[]"#));
            assert!(matches!(Manifest::parse(bytes.as_bytes(), Some(OCI)), Err(ManifestError::Json(_))), "{key}");
        }
        let twice = image(r#","layers":[]"#);
        assert!(matches!(Manifest::parse(twice.as_bytes(), Some(OCI)), Err(ManifestError::Json(_))));
        let other = image(&format!(r#","mediaType":"{}""#, MediaType::DockerManifest));
        assert!(matches!(Manifest::parse(other.as_bytes(), Some(OCI)), Err(ManifestError::MediaTypeMismatch { .. })));
        assert!(matches!(Manifest::parse(image("").as_bytes(), Some(OCI_INDEX)), Err(ManifestError::Shape(_))));
    }

    /// CVE-2014-8179.
    #[test]
    fn schema_1_and_foreign_types_are_refused() {
        let one = br#"{"schemaVersion":1,"fsLayers":[]}"#;
        assert_eq!(Manifest::parse(one, None), Err(ManifestError::SchemaVersion));
        assert!(matches!(
            Manifest::parse(image("").as_bytes(), Some("text/html")),
            Err(ManifestError::MediaType { .. })
        ));
        assert!(matches!(
            Manifest::parse(image(r#","mediaType":"a/b""#).as_bytes(), None),
            Err(ManifestError::MediaType { .. })
        ));
    }

    #[test]
    fn embedded_data_must_be_the_content() {
        let with = |data: &str| {
            let descriptor =
                format!(r#"{{"mediaType":"x/y","digest":"{}","size":3,"data":"{data}"}}"#, Digest::sha256(b"abc"));
            Manifest::parse(format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[]}}"#).as_bytes(), Some(OCI))
        };
        assert!(with("YWJj").is_ok());
        assert_eq!(with("YWJk"), Err(ManifestError::EmbeddedData));
        assert_eq!(with("!"), Err(ManifestError::EmbeddedData));
    }

    #[test]
    fn sizes_and_counts_are_bounded_on_both_sides() {
        let sized = |size: &str| {
            let digest = Digest::sha256(b"");
            let config = format!(r#"{{"mediaType":"x/y","digest":"{digest}","size":{size}}}"#);
            Manifest::parse(format!(r#"{{"schemaVersion":2,"config":{config},"layers":[]}}"#).as_bytes(), Some(OCI))
        };
        assert!(sized("9007199254740992").is_ok());
        assert!(matches!(sized("9007199254740993"), Err(ManifestError::SizeTooLarge { .. })));
        for bad in ["-1", "1.5", "\"1\"", "1e3"] {
            assert!(sized(bad).is_err(), "{bad}");
        }
        let children = |count: usize| {
            let list = vec![descriptor(); count].join(",");
            Manifest::parse(format!(r#"{{"schemaVersion":2,"manifests":[{list}]}}"#).as_bytes(), Some(OCI_INDEX))
        };
        assert!(children(INDEX_CHILDREN_MAX).is_ok());
        assert!(matches!(children(INDEX_CHILDREN_MAX + 1), Err(ManifestError::TooMany { .. })));
    }

    #[test]
    fn an_image_has_the_size_of_its_config_and_layers_and_an_index_has_none() {
        let size = Manifest::parse(image("").as_bytes(), Some(OCI)).unwrap().image_size();
        assert_eq!(size, Some(ImageSize { bytes: 6, layers: 1 }));
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, descriptor());
        assert_eq!(Manifest::parse(index.as_bytes(), Some(OCI_INDEX)).unwrap().image_size(), None);
        let mut huge = Manifest::parse(image("").as_bytes(), Some(OCI)).unwrap();
        let ManifestKind::Image(list) = &mut huge.kind else { panic!("an image") };
        list.config.size = u64::MAX;
        assert_eq!(huge.image_size(), Some(ImageSize { bytes: u64::MAX, layers: 1 }), "the sum does not wrap");
    }

    #[test]
    fn the_length_is_bounded_on_both_sides() {
        let padded = |length: usize| {
            let start = image("");
            format!("{start}{}", " ".repeat(length - start.len()))
        };
        let max = usize::try_from(MANIFEST_BYTES_MAX).unwrap();
        assert!(Manifest::parse(padded(max).as_bytes(), Some(OCI)).is_ok());
        assert_eq!(Manifest::parse(padded(max + 1).as_bytes(), Some(OCI)), Err(ManifestError::TooLong));
    }
}
