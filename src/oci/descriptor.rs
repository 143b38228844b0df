//! Descriptors (image-spec, "Content Descriptors").

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::json;
use super::{Digest, ManifestError};
use crate::limits::DESCRIPTOR_SIZE_MAX;

/// A pointer to content: type, digest and size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// The media type, any text.
    pub media_type: String,
    /// The digest of the content.
    pub digest: Digest,
    /// The size of the content in bytes, at most 2^53.
    pub size: u64,
    /// The artifact type, on descriptors in indexes and referrers lists.
    pub artifact_type: Option<String>,
    /// The platform, on descriptors in indexes.
    pub platform: Option<Platform>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// What a child of an index runs on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// Such as `amd64`; `unknown` on attestation children.
    pub architecture: String,
    /// Such as `linux`; `unknown` on attestation children.
    pub os: String,
}

const KEYS: [&str; 8] = ["mediaType", "digest", "size", "urls", "annotations", "data", "artifactType", "platform"];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    artifact_type: Option<String>,
    platform: Option<Platform>,
    annotations: Option<BTreeMap<String, String>>,
    data: Option<String>,
}

impl Descriptor {
    /// Reads a descriptor out of a strictly parsed document.
    ///
    /// # Errors
    /// [`ManifestError`] when a field is missing, malformed or ambiguous, or when the embedded `data` is not the
    /// content that digest and size describe.
    pub fn from_value(value: &Value) -> Result<Self, ManifestError> {
        let object: &Map<String, Value> =
            value.as_object().ok_or(ManifestError::Shape("a descriptor is not an object".to_owned()))?;
        json::check_keys(object, &KEYS)?;
        let document: Document = json::shaped(value.clone())?;
        let digest: Digest = document.digest.parse()?;
        if document.size > DESCRIPTOR_SIZE_MAX {
            return Err(ManifestError::SizeTooLarge { size: document.size });
        }
        if let Some(data) = document.data {
            let content = STANDARD.decode(data).map_err(|_| ManifestError::EmbeddedData)?;
            let size_fits = u64::try_from(content.len()).is_ok_and(|length| length == document.size);
            if !size_fits || !digest.matches(&content) {
                return Err(ManifestError::EmbeddedData);
            }
        }
        Ok(Self {
            media_type: document.media_type,
            digest,
            size: document.size,
            artifact_type: document.artifact_type,
            platform: document.platform,
            annotations: document.annotations.unwrap_or_default(),
        })
    }

    /// Whether this is an attestation child that `BuildKit` puts into indexes; it runs nowhere.
    pub fn is_attestation_child(&self) -> bool {
        self.platform.as_ref().is_some_and(|platform| platform.os == "unknown" && platform.architecture == "unknown")
    }
}
