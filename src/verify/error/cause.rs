//! The closed set of causes that metrics and filters know.

use super::VerifyError;

/// What kind of reason a [`VerifyError`] is; a closed set for metrics and filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Something in it cannot be read, is missing or too large.
    Malformed,
    /// It is a signature for something else.
    OtherImage,
    /// The signature is not by the key over the payload, or a timestamp that is asked for is not one of it.
    Signature,
    /// The log entry is missing, not signed by the log, or one of another signature.
    Log,
    /// Times do not fit, or nothing that is trusted says when it was made.
    Time,
    /// The certificate is not one of the requirement's authorities.
    Certificate,
    /// It is a good signature by somebody else.
    Identity,
}

impl Cause {
    /// The label.
    pub const fn as_label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::OtherImage => "other_image",
            Self::Signature => "signature",
            Self::Log => "log",
            Self::Time => "time",
            Self::Certificate => "certificate",
            Self::Identity => "identity",
        }
    }
}

impl VerifyError {
    /// Its kind.
    #[rustfmt::skip]
    pub fn cause(&self) -> Cause {
        match self {
            Self::OpenPgp(error) => error.cause(),
            Self::MissingAnnotation { annotation } if *annotation == crate::verify::legacy::BUNDLE => Cause::Log,
            Self::PayloadTooLarge { .. } | Self::OtherKind { .. } | Self::NotASignature { .. } | Self::PkiBundle
            | Self::BundleJson(_) | Self::BundleMalformed { .. } | Self::BundleVersion { .. }
            | Self::TooMany { .. } | Self::EnvelopeMalformed { .. } | Self::EnvelopeSignatures { .. }
            | Self::EnvelopeType { .. } | Self::StatementJson(_) | Self::StatementMalformed { .. }
            | Self::StatementType { .. } | Self::AnnotationTooLarge { .. } | Self::ChainTooLong { .. }
            | Self::IdentityTooLong { .. } | Self::MissingAnnotation { .. } | Self::Base64 { .. }
            | Self::PayloadJson(_) | Self::PayloadObject { .. } | Self::PayloadUnknownKey { .. }
            | Self::PayloadMissingKey { .. } | Self::PayloadField { .. } | Self::PayloadType { .. }
            | Self::PayloadDigest { .. } | Self::NoCertificate | Self::SeveralCertificates
            | Self::CertificateMalformed { .. } => Cause::Malformed,
            Self::SubjectAlgorithm { .. } | Self::OtherDigest { .. } | Self::OtherSubject { .. } => Cause::OtherImage,
            Self::Signature | Self::MessageHash | Self::KeyNotCertificate | Self::CertificateNotKey
            | Self::EnvelopeHash | Self::Refused { .. } | Self::TimestampMissing | Self::TimestampInvalid { .. } => Cause::Signature,
            Self::LogMalformed { .. } | Self::LogEntryMissing | Self::LogProofMissing | Self::LogEntryTwice { .. }
            | Self::LogIntoto001 | Self::LogProof { .. } | Self::LogCheckpoint { .. }
            | Self::LogOtherEnvelope { .. } | Self::LogEntryKind { .. } | Self::LogUnknown { .. } | Self::LogSet
            | Self::LogOtherCertificate | Self::LogOtherKey | Self::LogOtherSignature | Self::LogOtherPayload => Cause::Log,
            Self::LoggedInFuture { .. } | Self::LogKeyTime { .. } | Self::TimestampAuthorityTime { .. } | Self::TimestampInFuture { .. }
            | Self::TimestampOutsideCertificate { .. } | Self::LoggedOutsideCertificate { .. }
            | Self::CertificateTime { .. } | Self::AuthorityTime { .. } | Self::ChainTime { .. } | Self::NoTrustedTime => Cause::Time,
            Self::CertificateKey { .. } | Self::ChainUntrusted { .. } | Self::Sct { .. } => Cause::Certificate,
            Self::IssuerMissing | Self::NameKind | Self::ClaimMalformed { .. } | Self::OtherIdentity { .. }
            | Self::IssuerMalformed { .. } | Self::IssuerInconsistent { .. } | Self::OtherIssuer { .. }
            | Self::OtherEmail { .. } | Self::OtherHostname { .. } => Cause::Identity,
        }
    }
}
