//! Signature material as it was found, parsed and bounded, not yet trusted.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

use crate::oci::{Digest, Repository};

/// One candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignatureMaterial {
    /// cosign's legacy format: a layer of the manifest at the tag `sha256-<hex>.sig`.
    Legacy(LegacySignature),
    /// cosign's legacy attestations: a DSSE layer of the manifest at the tag `sha256-<hex>.att`.
    Attestation(LegacyAttestation),
    /// A sigstore bundle v0.3, found as a referrer: a signature or an attestation, as its statement says.
    Bundle(BundleMaterial),
    /// An OpenPGP simple-signing signature from a lookaside server.
    OpenPgp(OpenPgpSignature),
}

impl SignatureMaterial {
    /// Where it was found.
    pub fn source(&self) -> &Source {
        match self {
            Self::Legacy(signature) => &signature.source,
            Self::Attestation(attestation) => &attestation.source,
            Self::Bundle(bundle) => &bundle.source,
            Self::OpenPgp(signature) => &signature.source,
        }
    }

    /// The bytes as they were found, whose digest is that of the layer.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Legacy(signature) => &signature.payload,
            Self::Attestation(attestation) => &attestation.envelope,
            Self::Bundle(bundle) => &bundle.bundle,
            Self::OpenPgp(signature) => &signature.signature,
        }
    }

    /// The word for its format, in evidence and messages.
    pub const fn format(&self) -> &'static str {
        match self {
            Self::Legacy(_) => "cosign signature",
            Self::Attestation(_) => "cosign attestation",
            Self::Bundle(_) => "sigstore bundle",
            Self::OpenPgp(_) => "OpenPGP signature",
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

/// A DSSE envelope with the annotations of its layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacyAttestation {
    /// The envelope's JSON, whose digest is the layer's.
    pub envelope: Bytes,
    /// The layer's annotations: certificate, chain, log entry.
    pub annotations: BTreeMap<String, String>,
    /// Where it was found.
    pub source: Source,
}

/// A sigstore bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleMaterial {
    /// The bundle's JSON, whose digest is the layer's.
    pub bundle: Bytes,
    /// Where it was found.
    pub source: Source,
}

/// An OpenPGP signature as containers/image stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenPgpSignature {
    /// The signed message, binary, without the container's prefix.
    pub signature: Bytes,
    /// Where it was found.
    pub source: Source,
}

/// Where a candidate was found, for evidence and messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The repository, when it is not the image's own (ClusterImagePolicy's `source`).
    pub repository: Option<Repository>,
    /// The manifest that lists it; for a lookaside signature, the digest of its own bytes.
    pub manifest: Digest,
    /// How it was found there.
    pub place: Place,
    /// Its position among the manifest's layers, from 0; for a lookaside signature its number less one.
    pub layer: usize,
}

/// How signature material is found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Under a tag such as `sha256-<hex>.sig`.
    Tag(String),
    /// Among the referrers of the image: by the API, or in the index at the fallback tag.
    Referrer,
    /// At an address below a lookaside base.
    Lookaside(String),
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(repository) = &self.repository {
            write!(formatter, "{repository} ")?;
        }
        match &self.place {
            Place::Tag(tag) => write!(formatter, "{tag} layer {}", self.layer),
            Place::Referrer => write!(formatter, "referrer {} layer {}", self.manifest, self.layer),
            Place::Lookaside(address) => formatter.write_str(address),
        }
    }
}
