//! The values that the store keeps.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::oci::{Digest, ImageReference, MediaType};
use crate::policy::{Decision, Reason};

/// What one verdict depends on. There is no look-up by tag alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VerdictKey {
    /// The reference as requested.
    pub image: ImageReference,
    /// The digest of the manifest's bytes.
    pub digest: Digest,
    /// Fingerprint of the policy.
    pub policy: Digest,
    /// Fingerprint of the trust root.
    pub trust_root: Digest,
}

impl VerdictKey {
    /// A short name for people: the first 8 bytes of the SHA-256 of the key and the verifier's version.
    pub fn id(&self) -> VerdictId {
        let text = format!(
            "{}\n{}\n{}\n{}\n{}",
            self.image,
            self.digest,
            self.policy,
            self.trust_root,
            crate::verify::VERIFIER_VERSION
        );
        let mut id = [0; 8];
        for (to, from) in id.iter_mut().zip(Digest::sha256(text.as_bytes()).as_bytes()) {
            *to = *from;
        }
        VerdictId(id)
    }
}

/// The short name of a verdict: 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VerdictId(pub [u8; 8]);

impl fmt::Display for VerdictId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

/// The text is not 16 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a verdict id: 16 hexadecimal digits")]
pub struct VerdictIdError;

impl FromStr for VerdictId {
    type Err = VerdictIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = hex::decode(text).map_err(|_| VerdictIdError)?;
        Ok(Self(bytes.try_into().map_err(|_| VerdictIdError)?))
    }
}

/// A verdict as it is kept: the raw policy answer, before audit mode and exemptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredVerdict {
    /// What it depends on.
    pub key: VerdictKey,
    /// The answer.
    pub decision: Decision,
    /// Its kind.
    pub reason: Reason,
    /// One line for a human, at most 250 bytes.
    pub text: String,
    /// Whether the image was admitted by itself (its own signature or an accepting policy) rather than through its children:
    /// only then does an index grant all its children.
    pub own: bool,
    /// When it was reached.
    pub issued: Timestamp,
    /// When it must be reached again.
    pub not_after: Timestamp,
    /// The evidence file, if it was kept.
    pub evidence: Option<Digest>,
    /// Signature manifests whose bytes (and whose layers' bytes) are in the store, for verifying again offline; empty
    /// when the answer needed none, or when discovery found none.
    pub material: Vec<Digest>,
    /// Whether the stored material is all there was, so that it can be verified again offline.
    pub material_complete: bool,
}

/// Which verdicts to list.
#[derive(Debug, Clone, Default)]
pub struct VerdictFilter {
    /// Only this answer.
    pub decision: Option<Decision>,
    /// Only this repository (canonical name).
    pub repository: Option<String>,
    /// At most so many, up to `limits::VERDICTS_PAGE_MAX`.
    pub limit: Option<usize>,
    /// Only those after this one in the listing.
    pub after: Option<VerdictId>,
}

/// The right to fetch something by digest from one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Of what kind.
    pub kind: GrantKind,
    /// Size in bytes, as the admitting manifest states it.
    pub size: u64,
    /// The admitting manifest.
    pub admitting: Digest,
    /// The request that was admitted: its verdict is the one behind this grant.
    pub image: ImageReference,
}

/// What a grant is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GrantKind {
    /// The manifest that an admitted tag points at.
    Manifest,
    /// A child of an admitted index.
    Child,
    /// A config or layer of an admitted manifest.
    Blob,
    /// A signature artefact, or a blob of one; needs no verdict.
    Artefact,
}

/// What a tag pointed at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagPointer {
    /// The manifest.
    pub digest: Digest,
    /// The type under which upstream serves it, when known.
    pub media_type: Option<MediaType>,
    /// When upstream said so.
    pub checked: Timestamp,
}

/// Size and bound of the blob cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheStats {
    /// Bytes on disk.
    pub bytes: u64,
    /// The bound.
    pub limit_bytes: u64,
    /// Files.
    pub entries: u64,
    /// Whether verdicts are on disk (`false`: memory only).
    pub verdicts_on_disk: bool,
}

/// A cached blob, open for reading: it stays readable when it is evicted meanwhile. The owner of `store` refines this type; the way
/// bytes leave (chunks of a file, later `sendfile` or a mapping) is decided in one place.
#[derive(Debug)]
pub struct BlobFile {}

impl BlobFile {
    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        todo!()
    }
    /// Whether this process has hashed the file whole before (then it may be served without hashing).
    pub fn is_verified(&self) -> bool {
        todo!()
    }
    /// Up to `limits::BLOB_CHUNK_BYTES` bytes from `offset`; empty at the end.
    pub async fn read_at(&self, _offset: u64, _length: usize) -> std::io::Result<Bytes> {
        todo!()
    }
    /// Records that a whole service hashed it and it matched.
    pub fn mark_verified(&self) {
        todo!()
    }
}

/// A file in `staging/`, hashed while it is written; dropping it removes the file.
#[derive(Debug)]
pub struct Staged {}

impl Staged {
    /// Appends; fails when the bound is passed.
    pub async fn write(&mut self, _bytes: &Bytes) -> Result<(), StoreError> {
        todo!()
    }
    /// Bytes so far.
    pub fn written(&self) -> u64 {
        todo!()
    }
    /// Another handle that reads what was written so far.
    pub fn reader(&self) -> std::io::Result<StagedReader> {
        todo!()
    }
    /// The digest of what was written so far.
    pub fn digest(&self) -> Digest {
        todo!()
    }
    /// Syncs and renames into place if the content has that digest.
    pub async fn commit(self, _digest: &Digest) -> Result<(), StoreError> {
        todo!()
    }
}

/// Reads a staged file while it grows, and after it was committed or removed.
#[derive(Debug)]
pub struct StagedReader {}

impl StagedReader {
    /// Bytes from `offset`, up to `length`; the caller knows how far the writer is.
    pub async fn read_at(&self, _offset: u64, _length: usize) -> std::io::Result<Bytes> {
        todo!()
    }
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process uses the directory.
    #[error("{path} is in use by another sealgate process (lock held); stop it or set another server.data_dir")]
    Locked {
        /// The directory.
        path: std::path::PathBuf,
    },
    /// No space left.
    #[error("no space left in the cache")]
    NoSpace,
    /// More bytes than allowed.
    #[error("more than {allowed} bytes")]
    TooLong {
        /// The bound.
        allowed: u64,
    },
    /// The content has another digest.
    #[error("the content is {found}, not {wanted}")]
    DigestMismatch {
        /// Wanted.
        wanted: Digest,
        /// Found.
        found: Digest,
    },
    /// The file system says no.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: std::path::PathBuf,
        /// What.
        #[source]
        source: std::io::Error,
    },
}
