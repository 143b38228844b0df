//! The library's errors as ours. Its strings are detail for a reader, never something to decide by.

use sigstore_verify::trust_root::TrustedRoot;
use sigstore_verify::{CertificateError, Error, TimestampError, TransparencyLogError};

use super::bundle::SigstoreBundle;
use super::root::{authorities_at, ours};
use crate::clock::Timestamp;
use crate::verify::certificate::Leaf;
use crate::verify::chain;
use crate::verify::error::{VerifyError, shown};

/// What an error is about.
pub(super) struct Translator<'a> {
    pub(super) root: &'a TrustedRoot,
    pub(super) bundle: &'a SigstoreBundle,
    pub(super) leaf: Option<&'a Leaf>,
}

impl Translator<'_> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "their enum may grow; what has no name here is a refusal")]
    pub(super) fn translate(&self, error: Error) -> VerifyError {
        match error {
            Error::SignatureInvalid(_) => VerifyError::Signature,
            // The statement's subjects were compared before, so this is the log's hash of the payload.
            Error::ArtifactMismatch(_) => VerifyError::LogOtherPayload,
            Error::UnsupportedArtifact(_) => VerifyError::MessageHash,
            Error::Certificate(error) => self.certificate(error),
            Error::TransparencyLog(error) => self.log(error),
            Error::Timestamp(error) => timestamp(error),
            other => VerifyError::Refused { why: shown(&other.to_string()) },
        }
    }

    fn log(&self, error: TransparencyLogError) -> VerifyError {
        match error {
            TransparencyLogError::UnknownLog { log_id } => VerifyError::LogUnknown { log_id: shown(&log_id) },
            TransparencyLogError::InclusionPromise(_) => VerifyError::LogSet,
            TransparencyLogError::InclusionProof(why) => VerifyError::LogProof { why: shown(&why) },
            TransparencyLogError::Checkpoint(why) => VerifyError::LogCheckpoint { why: shown(&why) },
            TransparencyLogError::EntryMismatch(why) if self.bundle.is_envelope() => {
                VerifyError::LogOtherEnvelope { why: shown(&why) }
            }
            TransparencyLogError::EntryMismatch(_) => VerifyError::LogOtherSignature,
            TransparencyLogError::MalformedEntry(why) => VerifyError::LogMalformed { why: shown(&why) },
            // The promise has been checked by then, so the time is the log's.
            TransparencyLogError::IntegratedTime(why) => {
                self.outside().unwrap_or_else(|| VerifyError::Refused { why: shown(&why) })
            }
            other => VerifyError::Refused { why: shown(&other.to_string()) },
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "their enum may grow; what has no name here is a refusal")]
    fn certificate(&self, error: CertificateError) -> VerifyError {
        match error {
            CertificateError::Malformed(why) => VerifyError::CertificateMalformed { why: shown(&why) },
            CertificateError::Sct(why) => VerifyError::Sct { why: shown(&why) },
            // The chain is looked at after promises and timestamps, so the times are theirs. A leaf used outside its
            // validity is the case that people must be able to tell from a foreign CA.
            CertificateError::ChainInvalid(why) => {
                let why = VerifyError::ChainUntrusted { why: shown(&why) };
                self.outside().or_else(|| self.chain()).unwrap_or(why)
            }
            CertificateError::NoValidAuthority { time } => VerifyError::AuthorityTime { at: ours(time) },
            error @ (CertificateError::NotYetValid { .. } | CertificateError::Expired { .. }) => {
                self.outside().unwrap_or_else(|| VerifyError::Refused { why: shown(&error.to_string()) })
            }
            other => VerifyError::Refused { why: shown(&other.to_string()) },
        }
    }

    /// The library says in words alone why a chain does not hold; the same check by ourselves gives the reason.
    fn chain(&self) -> Option<VerifyError> {
        let (leaf, attached) = (self.leaf?, self.bundle.chain());
        let mut times = self.bundle.promised().chain(self.stamped());
        times.find_map(|at| chain::check(leaf, &authorities_at(self.root, at), attached.iter(), at).err())
    }

    /// The first time that lies outside the leaf's validity.
    fn outside(&self) -> Option<VerifyError> {
        let validity = self.leaf?.validity;
        let (not_before, not_after) = (validity.not_before, validity.not_after);
        let outside = |at: &Timestamp| !validity.contains(*at);
        let logged = self.bundle.promised().find(outside).map(|integrated| VerifyError::LoggedOutsideCertificate {
            integrated,
            not_before,
            not_after,
        });
        logged.or_else(|| {
            let at = self.stamped().find(outside)?;
            Some(VerifyError::TimestampOutsideCertificate { at, not_before, not_after })
        })
    }

    fn stamped(&self) -> impl Iterator<Item = Timestamp> {
        let signature = self.bundle.signature();
        self.bundle.timestamps().filter_map(move |token| super::root::timestamp(self.root, token, &signature).ok())
    }
}

fn timestamp(error: TimestampError) -> VerifyError {
    match error {
        TimestampError::Invalid(why) => VerifyError::TimestampInvalid { why: shown(&why) },
        TimestampError::OutsideAuthorityValidity { time } => VerifyError::TimestampAuthorityTime { at: ours(time) },
        TimestampError::NoVerifiedTimestamp(_) => VerifyError::NoTrustedTime,
        other => VerifyError::Refused { why: shown(&other.to_string()) },
    }
}
