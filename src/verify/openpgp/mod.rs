//! OpenPGP simple signing (`signedBy` with `GPGKeys`): key rings and signed messages, read by rPGP (`pgp`).
//!
//! rPGP parses packets and does the mathematics; the rules are ours. What a message may look like is in `message`, what a
//! key of a ring may do in `certificate`. The texts are those of containers/image built with Go's openpgp.

mod certificate;
mod error;
mod message;
mod ring;

use std::sync::Arc;

use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureConfig, SignatureVersion, SubpacketData};

use super::error::{Cause, VerifyError};
use super::key_error::KeyError;
use super::material::OpenPgpSignature;
use super::simple_signing::{PayloadKind, SimpleSigning};
use super::trust_root::Fingerprint;
use super::{Signer, VerifiedSignature};
use crate::clock::Timestamp;
use crate::limits::SIGNATURE_BYTES_MAX;
use crate::oci::{Algorithm, Digest};
use certificate::{REVOKED, SigningKey};
pub use error::OpenPgpError;
use message::SignedMessage;

/// The keys of one `signedBy` requirement. Clones share them.
#[derive(Debug, Clone)]
pub struct OpenPgpKeys {
    keys: Arc<[SigningKey]>,
    fingerprint: Digest,
}

impl OpenPgpKeys {
    /// Reads key rings, binary or armored; all their keys are trusted. A key that may not sign, now or ever, is kept
    /// with the reason.
    ///
    /// # Errors
    /// [`KeyError`] when a ring cannot be read, holds no key, or a secret one.
    pub fn parse(rings: &[Vec<u8>]) -> Result<Self, KeyError> {
        let mut keys = Vec::new();
        for ring in rings {
            for certificate in ring::read(ring)? {
                keys.extend(certificate::signing_keys(&certificate));
            }
        }
        let fingerprint = Fingerprint::new("openpgp").list(rings.iter().map(Vec::as_slice)).finish();
        Ok(Self { keys: keys.into(), fingerprint })
    }

    /// Digest over everything in it that can change an answer.
    pub fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// The fingerprints of the primary keys, in upper case hexadecimal, in the order of the rings.
    pub fn primary_fingerprints(&self) -> Vec<String> {
        let mut fingerprints: Vec<String> = self.keys.iter().map(|key| key.primary.clone()).collect();
        fingerprints.dedup();
        fingerprints
    }

    /// Why none of the keys can verify anything at `now`; none when at least one can. Of several reasons one that time
    /// brought, since the others were there from the start.
    pub fn unusable(&self, now: Timestamp) -> Option<String> {
        let refused = |key: &'_ SigningKey| Some((key.primary.clone(), key.check(now, now).err()?));
        let refused: Vec<(String, OpenPgpError)> = self.keys.iter().map(refused).collect::<Option<_>>()?;
        let expired = refused.iter().find(|(_, why)| why.cause() == Cause::Time);
        let revoked = || refused.iter().find(|(_, why)| matches!(why, OpenPgpError::KeyRefused { why: REVOKED, .. }));
        let worst = expired.or_else(revoked).or(refused.first());
        Some(worst.map_or_else(|| OpenPgpError::NoKeys.to_string(), |(key, why)| why.of_the_key(key)))
    }

    /// Verifies one signature for the image `subject`; the caller still has to compare the signed reference.
    ///
    /// # Errors
    /// A [`VerifyError`], with containers/image's text.
    pub fn verify(
        &self,
        signature: &OpenPgpSignature,
        subject: &Digest,
        now: Timestamp,
    ) -> Result<VerifiedSignature, VerifyError> {
        // 1. Bounds and what it is about, before any cryptography.
        if subject.algorithm() != Algorithm::Sha256 {
            return Err(VerifyError::SubjectAlgorithm { subject: *subject });
        }
        let bytes = u64::try_from(signature.signature.len()).unwrap_or(u64::MAX);
        if bytes > SIGNATURE_BYTES_MAX {
            return Err(VerifyError::PayloadTooLarge { bytes, max: SIGNATURE_BYTES_MAX });
        }
        if self.keys.is_empty() {
            return Err(OpenPgpError::NoKeys.into());
        }

        // 2. One signature over one piece of data.
        let message = message::read(&signature.signature)?;
        check_form(&message.signature)?;

        // 3. Who signed exactly these bytes, and might do so.
        let (key, not_after) = self.signer(&message, now)?;

        // 4. Only now is what stands there a statement by anybody.
        let signed = SimpleSigning::parse(&message.content, PayloadKind::Atomic)?;
        if signed.digest != *subject {
            return Err(VerifyError::OtherDigest { signed: signed.digest });
        }
        Ok(VerifiedSignature {
            signer: Signer::OpenPgp(key.primary.clone()),
            signed_reference: signed.docker_reference.into(),
            log: None,
            timestamps: Vec::new(),
            not_after: [not_after, key.expires].into_iter().flatten().min(),
            notes: if key.is_subkey { vec!["made with a subkey; its primary key is named"] } else { Vec::new() },
        })
    }

    /// The key that made the message's signature, and the signature's own end.
    fn signer(
        &self,
        message: &SignedMessage,
        now: Timestamp,
    ) -> Result<(&SigningKey, Option<Timestamp>), OpenPgpError> {
        let created = message
            .signature
            .created()
            .map(timestamp)
            .ok_or(OpenPgpError::InvalidData { why: "the signature does not say when it was made" })?;
        let mut closest = None;
        // Key ids can collide, so more than one key may have to be tried.
        for key in self.keys.iter().filter(|key| message.names(key.id, &key.fingerprint)) {
            match key.check(created, now).and_then(|()| key.verify(message)) {
                Ok(()) => return time_of(&message.signature, created, now).map(|end| (key, end)),
                Err(why) => closest = closest.or(Some(why)),
            }
        }
        Err(closest.unwrap_or_else(|| OpenPgpError::KeyUnknown { key_id: message.key_id() }))
    }
}

/// What a signature says of itself, and anybody could say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenPgpClaim {
    /// The key that made it: its fingerprint in upper case hexadecimal, or else its id.
    pub key: String,
    /// The reference that was signed, or what stands in its place.
    pub reference: String,
}

/// What a signature about `subject` says of itself. For reports alone: nothing of it is verified.
pub fn openpgp_claim(signature: &OpenPgpSignature, subject: &Digest) -> Option<OpenPgpClaim> {
    if u64::try_from(signature.signature.len()).is_ok_and(|bytes| bytes > SIGNATURE_BYTES_MAX) {
        return None;
    }
    let message = message::read(&signature.signature).ok()?;
    let signed = SimpleSigning::parse(&message.content, PayloadKind::Atomic).ok()?;
    if signed.digest != *subject {
        return None;
    }
    let reference = signed.docker_reference.map_or_else(|text| text, |reference| reference.to_string());
    Some(OpenPgpClaim { key: message.claimed_key()?, reference })
}

/// What can be said of a signature without its key.
fn check_form(signature: &Signature) -> Result<(), OpenPgpError> {
    match signature.version() {
        SignatureVersion::V3 | SignatureVersion::V4 | SignatureVersion::V6 => {}
        SignatureVersion::V2 | SignatureVersion::V5 | SignatureVersion::Other(_) => {
            return Err(OpenPgpError::Unsupported { what: "this version of signature packets" });
        }
    }
    match signature.hash_alg() {
        Some(hash) if is_strong(hash) => {}
        Some(hash) => return Err(OpenPgpError::Weak { what: format!("the hash algorithm {hash}") }),
        None => return Err(OpenPgpError::Unsupported { what: "this signature packet" }),
    }
    // RFC 9580, 5.2.3.7: a critical part that is not understood makes the signature worthless. rPGP refuses unknown types.
    let mut subpackets = signature.config().into_iter().flat_map(SignatureConfig::hashed_subpackets);
    let not_understood = subpackets.any(|subpacket| {
        subpacket.is_critical
            && matches!(
                subpacket.data,
                SubpacketData::Notation(_) | SubpacketData::Experimental(..) | SubpacketData::Other(..)
            )
    });
    if not_understood {
        return Err(OpenPgpError::Unsupported { what: "a critical subpacket of the signature" });
    }
    Ok(())
}

/// When the signature ends, if it does; it must be now that it holds.
fn time_of(signature: &Signature, created: Timestamp, now: Timestamp) -> Result<Option<Timestamp>, OpenPgpError> {
    if created > now {
        return Err(OpenPgpError::MadeInFuture { created, now });
    }
    let life = signature.signature_expiration_time().map(pgp::types::Duration::as_secs).filter(|life| *life > 0);
    let end = life.map(|life| created.plus(std::time::Duration::from_secs(life.into())));
    match end {
        Some(end) if end < now => Err(OpenPgpError::Expired { at: end }),
        end => Ok(end),
    }
}

/// Whether a message may be signed over such a hash: no collisions can be made.
fn is_strong(hash: HashAlgorithm) -> bool {
    matches!(
        hash,
        HashAlgorithm::Sha224
            | HashAlgorithm::Sha256
            | HashAlgorithm::Sha384
            | HashAlgorithm::Sha512
            | HashAlgorithm::Sha3_256
            | HashAlgorithm::Sha3_512
    )
}

fn timestamp(time: pgp::types::Timestamp) -> Timestamp {
    Timestamp::from_unix_seconds(time.as_secs().into())
}

#[cfg(test)]
mod tests;
