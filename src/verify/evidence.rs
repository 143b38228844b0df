//! One candidate as an authority looks at it: what is signed, by what, and what log and timestamps say, whatever its format.

use super::authority::KeyHash;
use super::certificate::Leaf;
use super::envelope::Envelope;
use super::error::VerifyError;
use super::keys::PublicKey;
use super::legacy::{self, Annotations};
use super::sigstore::{self, Artifact, Content, Log, SigstoreBundle};
use crate::clock::Timestamp;
use crate::oci::Digest;

/// A timestamp (DER), and the bytes that it is over.
pub(super) type Stamped = (Vec<u8>, Vec<u8>);

/// A candidate of any sigstore format, parsed.
#[derive(Debug)]
pub(super) enum Evidence<'a> {
    /// A payload with its annotations (`.sig`).
    Signature { payload: &'a [u8], annotations: Annotations<'a> },
    /// An envelope with its annotations (`.att`), and the bytes it was read from.
    Attestation { envelope: &'a Envelope, bytes: &'a [u8], annotations: Annotations<'a> },
    /// A bundle, with its content.
    Bundle { bundle: &'a SigstoreBundle, content: &'a Content },
}

impl Evidence<'_> {
    /// The signature's bytes.
    pub(super) fn signature(&self) -> Result<Vec<u8>, VerifyError> {
        match self {
            Self::Signature { annotations, .. } => annotations.signature(),
            Self::Attestation { envelope, .. } => Ok(envelope.signature.clone()),
            Self::Bundle { content: Content::Envelope(envelope), .. } => Ok(envelope.signature.clone()),
            Self::Bundle { content: Content::Message { signature, .. }, .. } => Ok(signature.clone()),
        }
    }

    /// The bytes that the signature is over, where they are known.
    fn signed_bytes(&self) -> Vec<u8> {
        match self {
            Self::Signature { payload, .. } => payload.to_vec(),
            Self::Attestation { envelope, .. } => envelope.signed_bytes(),
            Self::Bundle { content: Content::Envelope(envelope), .. } => envelope.signed_bytes(),
            Self::Bundle { content: Content::Message { .. }, .. } => Vec::new(),
        }
    }

    /// Which of these keys signed, and with which hash: the one that the policy names; with the default (SHA-256) a bundle
    /// may also use the hash that Sigstore's registry names for the key's kind, as cosign 3 does for P-384.
    pub(super) fn signed_by<'k>(
        &self,
        keys: &'k [PublicKey],
        hash: KeyHash,
    ) -> Result<(&'k PublicKey, KeyHash), VerifyError> {
        let signature = self.signature()?;
        if let Self::Bundle { content: Content::Message { digest, .. }, .. } = self {
            if hash != KeyHash::Sha256 {
                return Err(VerifyError::MessageHash);
            }
            let made = |key: &&PublicKey| sigstore::verify_digest(key, digest, &signature).is_ok();
            if let Some(key) = keys.iter().find(made) {
                return Ok((key, hash));
            }
            let unfit = keys.iter().all(|key| key.kind().is_without_hash());
            return Err(if unfit { VerifyError::MessageHash } else { VerifyError::Signature });
        }
        let message = self.signed_bytes();
        let is_bundle = matches!(self, Self::Bundle { .. });
        for key in keys {
            let own = (is_bundle && hash == KeyHash::Sha256).then(|| key.kind().own_hash());
            let hashes = std::iter::once(hash).chain(own.filter(|own| *own != hash));
            for hash in hashes {
                if sigstore::verify_raw(key, hash, &message, &signature).is_ok() {
                    return Ok((key, hash));
                }
            }
        }
        Err(VerifyError::Signature)
    }

    /// The certificate that came with it.
    pub(super) fn leaf(&self) -> Result<Leaf, VerifyError> {
        match self {
            Self::Signature { annotations, .. } | Self::Attestation { annotations, .. } => annotations.leaf(),
            Self::Bundle { bundle, .. } => {
                Leaf::from_der(bundle.certificate().ok_or(VerifyError::KeyNotCertificate)?.to_vec())
            }
        }
    }

    /// The certificates that came above it.
    pub(super) fn chain(&self) -> Result<Vec<Vec<u8>>, VerifyError> {
        match self {
            Self::Signature { annotations, .. } | Self::Attestation { annotations, .. } => annotations.chain(),
            Self::Bundle { bundle, .. } => Ok(bundle.chain()),
        }
    }

    /// Verifies it, with its log entry, as one bundle: `verify` is given the bundle, and what the library compares with a
    /// log's hash or a statement's subject.
    pub(super) fn logged<T>(
        &self,
        signer: Log<'_>,
        now: Timestamp,
        verify: impl FnOnce(&SigstoreBundle, Artifact<'_>) -> Result<T, VerifyError>,
        subject: &Digest,
    ) -> Result<T, VerifyError> {
        match self {
            Self::Signature { payload, annotations } => {
                let (signature, entry) = (annotations.signature()?, annotations.log_entry()?);
                match signer {
                    Log::Key(key) if !entry.names_key(key.spki()) => return Err(VerifyError::LogOtherKey),
                    Log::Key(_) => (),
                    Log::Certificate(leaf, _) => entry.check_certificate(leaf)?,
                }
                entry.check_signature(&signature, Digest::sha256(payload).as_bytes())?;
                if entry.integrated() > now {
                    return Err(VerifyError::LoggedInFuture { integrated: entry.integrated(), now });
                }
                let bundle = SigstoreBundle::of_signature(signer, payload, &signature, &entry)?;
                verify(&bundle, Artifact::Bytes(payload))
            }
            Self::Attestation { envelope, annotations, .. } => {
                let entry = annotations.envelope_entry()?;
                let bundle = SigstoreBundle::of_envelope(signer, envelope, &entry)?;
                verify(&bundle, Artifact::Digest(subject))
            }
            Self::Bundle { bundle, .. } => verify(bundle, Artifact::Digest(subject)),
        }
    }

    /// Its RFC 3161 timestamps, each with the bytes that it is over: the signature, and for cosign's attestations the
    /// whole envelope.
    pub(super) fn timestamps(&self) -> Result<Vec<Stamped>, VerifyError> {
        let (tokens, message) = match self {
            Self::Signature { annotations, .. } => (annotations.timestamp()?.into_iter().collect(), self.signature()?),
            Self::Attestation { annotations, bytes, .. } => {
                (annotations.timestamp()?.into_iter().collect::<Vec<_>>(), bytes.to_vec())
            }
            Self::Bundle { bundle, .. } => (bundle.timestamps().map(<[u8]>::to_vec).collect(), self.signature()?),
        };
        Ok(tokens.into_iter().map(|token| (token, message.clone())).collect())
    }

    /// The bodies of its log entries, unverified.
    pub(super) fn log_bodies(&self) -> Vec<Vec<u8>> {
        match self {
            Self::Signature { annotations, .. } => {
                annotations.log_entry().map(|entry| entry.body).into_iter().collect()
            }
            Self::Attestation { annotations, .. } => {
                annotations.envelope_entry().map(|entry| entry.body).into_iter().collect()
            }
            Self::Bundle { bundle, .. } => bundle.log_bodies(),
        }
    }

    pub(super) fn has_certificate(&self) -> bool {
        match self {
            Self::Signature { annotations, .. } | Self::Attestation { annotations, .. } => {
                annotations.has(legacy::CERTIFICATE)
            }
            Self::Bundle { bundle, .. } => bundle.certificate().is_some(),
        }
    }

    pub(super) fn has_log_entry(&self) -> bool {
        match self {
            Self::Signature { annotations, .. } | Self::Attestation { annotations, .. } => {
                annotations.has(legacy::BUNDLE)
            }
            Self::Bundle { bundle, .. } => bundle.has_log_entries(),
        }
    }

    pub(super) fn has_timestamp(&self) -> bool {
        match self {
            Self::Signature { annotations, .. } | Self::Attestation { annotations, .. } => {
                annotations.has(legacy::TIMESTAMP)
            }
            Self::Bundle { bundle, .. } => bundle.timestamps().len() > 0,
        }
    }

    pub(super) const fn is_bundle(&self) -> bool {
        matches!(self, Self::Bundle { .. })
    }
}
