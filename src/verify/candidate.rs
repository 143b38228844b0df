//! From a candidate's bytes to what it says about the subject; who signed it is asked of the trust, which comes as `prove`.

use super::envelope::Envelope;
use super::error::{VerifyError, shown};
use super::evidence::Evidence;
use super::legacy::Annotations;
use super::proof::Proof;
use super::sigstore::{Content, SigstoreBundle, Versions};
use super::simple_signing::{PayloadKind, SimpleSigning};
use super::statement::{COSIGN_SIGN, Statement, VerifiedStatement};
use super::{BundleMaterial, LegacySignature, Place, SignatureMaterial, SignedReference, VerifiedSignature};
use crate::limits::SIGNATURE_BYTES_MAX;
use crate::oci::{Algorithm, Digest};

/// A candidate as a plain signature of `subject`.
pub(super) fn signature(
    material: &SignatureMaterial,
    subject: &Digest,
    prove: impl FnOnce(&Evidence<'_>) -> Result<Proof, VerifyError>,
) -> Result<VerifiedSignature, VerifyError> {
    match material {
        SignatureMaterial::Legacy(signature) => legacy(signature, subject, prove),
        SignatureMaterial::Bundle(material) => {
            let bundle = parse(material)?;
            let content = bundle.content()?;
            check_is_signature(&content, subject)?;
            let proof = prove(&Evidence::Bundle { bundle: &bundle, content: &content })?;
            Ok(proof.signature(SignedReference::Absent))
        }
        SignatureMaterial::Attestation(_) | SignatureMaterial::OpenPgp(_) => {
            Err(VerifyError::OtherKind { wanted: "sigstore signature", found: material.format() })
        }
    }
}

/// A candidate as an attestation about `subject`.
pub(super) fn attestation(
    material: &SignatureMaterial,
    subject: &Digest,
    prove: impl FnOnce(&Evidence<'_>) -> Result<Proof, VerifyError>,
) -> Result<VerifiedStatement, VerifyError> {
    let other = |found| Err(VerifyError::OtherKind { wanted: "attestation", found });
    let (statement, proof) = match material {
        SignatureMaterial::Attestation(attestation) => {
            let envelope = Envelope::parse(&attestation.envelope)?;
            let statement = Statement::parse(&envelope, subject)?;
            let annotations = Annotations(&attestation.annotations);
            let (bytes, envelope) = (attestation.envelope.as_ref(), &envelope);
            (statement, prove(&Evidence::Attestation { envelope, bytes, annotations })?)
        }
        SignatureMaterial::Bundle(material) => {
            let bundle = parse(material)?;
            let content = bundle.content()?;
            let Content::Envelope(envelope) = &content else { return other("message signature") };
            let statement = Statement::parse(envelope, subject)?;
            (statement, prove(&Evidence::Bundle { bundle: &bundle, content: &content })?)
        }
        SignatureMaterial::Legacy(_) | SignatureMaterial::OpenPgp(_) => return other(material.format()),
    };
    Ok(VerifiedStatement { statement, signature: proof.signature(SignedReference::Absent) })
}

/// Whether a bundle about `subject` is an attestation and not a plain signature.
pub(super) fn is_attestation(material: &BundleMaterial, subject: &Digest) -> Result<bool, VerifyError> {
    match parse(material)?.content()? {
        Content::Envelope(envelope) => Ok(Statement::parse(&envelope, subject)?.predicate_type != COSIGN_SIGN),
        Content::Message { .. } => Ok(false),
    }
}

fn legacy(
    signature: &LegacySignature,
    subject: &Digest,
    prove: impl FnOnce(&Evidence<'_>) -> Result<Proof, VerifyError>,
) -> Result<VerifiedSignature, VerifyError> {
    // Bounds and what it is about, before any cryptography.
    if subject.algorithm() != Algorithm::Sha256 {
        return Err(VerifyError::SubjectAlgorithm { subject: *subject });
    }
    let bytes = u64::try_from(signature.payload.len()).unwrap_or(u64::MAX);
    if bytes > SIGNATURE_BYTES_MAX {
        return Err(VerifyError::PayloadTooLarge { bytes, max: SIGNATURE_BYTES_MAX });
    }
    let signed = SimpleSigning::parse(&signature.payload, PayloadKind::Cosign)?;
    if signed.digest != *subject {
        return Err(VerifyError::OtherDigest { signed: signed.digest });
    }

    // Who signed exactly these bytes.
    let annotations = Annotations(&signature.annotations);
    let proof = prove(&Evidence::Signature { payload: &signature.payload, annotations })?;
    Ok(proof.signature(signed.docker_reference.into()))
}

/// A plain signature says that somebody stands behind this manifest, and no more: cosign's statement of that type, or a
/// signature over the manifest's bytes. An attestation says something else, be it signed by the right identity or not.
fn check_is_signature(content: &Content, subject: &Digest) -> Result<(), VerifyError> {
    match content {
        Content::Envelope(envelope) => {
            let statement = Statement::parse(envelope, subject)?;
            if statement.predicate_type != COSIGN_SIGN {
                return Err(VerifyError::NotASignature { predicate_type: shown(&statement.predicate_type) });
            }
        }
        Content::Message { .. } if subject.algorithm() != Algorithm::Sha256 => {
            return Err(VerifyError::SubjectAlgorithm { subject: *subject });
        }
        Content::Message { digest, .. } if digest != subject => {
            return Err(VerifyError::OtherDigest { signed: *digest });
        }
        Content::Message { .. } => (),
    }
    Ok(())
}

/// Among referrers anybody may put anything, and only v0.3 is made for registries.
fn parse(material: &BundleMaterial) -> Result<SigstoreBundle, VerifyError> {
    let versions = match material.source.place {
        Place::Referrer => Versions::V03,
        Place::Tag(_) | Place::Lookaside(_) => Versions::All,
    };
    SigstoreBundle::parse(&material.bundle, versions)
}
