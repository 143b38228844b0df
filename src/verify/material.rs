//! Signature material as it was found, parsed and bounded, not yet trusted.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::oci::Digest;

/// One candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignatureMaterial {
    /// cosign's legacy format: a layer of the manifest at the tag `sha256-<hex>.sig`.
    Legacy(LegacySignature),
}

impl SignatureMaterial {
    /// Where it was found.
    pub fn source(&self) -> &Source {
        match self {
            Self::Legacy(signature) => &signature.source,
        }
    }
}

/// A simple-signing payload with the annotations of its layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacySignature {
    /// The signed payload, whose digest is the layer's.
    pub payload: Bytes,
    /// The layer's annotations.
    pub annotations: BTreeMap<String, String>,
    /// Where it was found.
    pub source: Source,
}

/// Where a candidate was found, for evidence and messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The manifest that lists it.
    pub manifest: Digest,
    /// Such as `sha256-<hex>.sig`.
    pub tag: String,
    /// Its position among the manifest's layers, from 0.
    pub layer: usize,
}
