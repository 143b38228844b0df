//! Putting signatures where cosign puts them.

use super::sigstore::{FakeSignature, signature_manifest};
use super::{Content, FakeRegistry};
use crate::oci::{Algorithm, Digest};

/// Attaches signatures to the manifest `digest`: a manifest at the tag `sha256-<hex>.sig`, with their payloads as layers.
pub fn attach_signatures(registry: &FakeRegistry, repository: &str, digest: &Digest, signatures: &[FakeSignature]) {
    let attached = signature_manifest(signatures);
    for (_, bytes) in attached.blobs {
        registry.put_blob(repository, bytes);
    }
    let content = Content::new(Algorithm::Sha256, attached.media_type, attached.manifest);
    registry.put_manifest(repository, &content);
    registry.tag(repository, &format!("sha256-{}.sig", digest.hex()), content.digest);
}
