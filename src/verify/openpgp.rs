//! OpenPGP simple signing (`signedBy` with `GPGKeys`).

use super::VerifiedSignature;
use super::error::VerifyError;
use super::key_error::KeyError;
use super::material::OpenPgpSignature;
use crate::clock::Timestamp;
use crate::oci::Digest;

/// The keys of one `signedBy` requirement. Clones share them.
#[derive(Debug, Clone)]
pub struct OpenPgpKeys {
    fingerprint: Digest,
}

impl OpenPgpKeys {
    /// Reads key rings, binary or armored; all their keys are trusted.
    ///
    /// # Errors
    /// [`KeyError`] when a ring cannot be read.
    pub fn parse(rings: &[Vec<u8>]) -> Result<Self, KeyError> {
        let _ = rings;
        todo!()
    }

    /// Digest over everything in it that can change an answer.
    pub fn fingerprint(&self) -> Digest {
        self.fingerprint
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
        let _ = (signature, subject, now);
        todo!()
    }
}
