//! Why a signature does not count: one variant a rule, with its numbers.
//!
//! The texts are those of `containers/image` where it has one, so that what people search for still finds the cause.

mod cause;
mod text;

pub use cause::Cause;
use text::names;
pub(super) use text::shown;

use super::openpgp::OpenPgpError;
use super::quote::{go_quote, go_quote_list};
use super::statement::COSIGN_SIGN;
use crate::clock::Timestamp;
use crate::oci::Digest;
use crate::oci::json::JsonError;

/// A candidate is not a good signature under the given trust.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    // ---- bounds ----
    /// The payload is larger than signatures are.
    #[error("the signature payload has {bytes} bytes, more than {max}")]
    PayloadTooLarge {
        /// Its size.
        bytes: u64,
        /// The bound.
        max: u64,
    },
    /// An annotation is larger than annotations of signatures are.
    #[error("the annotation {annotation} has {bytes} bytes, more than {max}")]
    AnnotationTooLarge {
        /// Its name.
        annotation: &'static str,
        /// Its size.
        bytes: u64,
        /// The bound.
        max: u64,
    },
    /// The certificate chain is longer than chains are.
    #[error("the certificate chain has {certificates} certificates, more than {max}")]
    ChainTooLong {
        /// Its length, the leaf included.
        certificates: usize,
        /// The bound.
        max: usize,
    },
    /// A name in the payload or certificate is longer than names are.
    #[error("an identity has {bytes} bytes, more than {max}")]
    IdentityTooLong {
        /// Its size.
        bytes: usize,
        /// The bound.
        max: usize,
    },

    // ---- form ----
    /// An annotation that this requirement needs is not there.
    #[error("missing {annotation} annotation")]
    MissingAnnotation {
        /// Its name.
        annotation: &'static str,
    },
    /// The signature annotation is not base64.
    #[error("base64 decoding: the annotation {annotation} is not base64")]
    Base64 {
        /// Its name.
        annotation: &'static str,
    },
    /// The payload is no unambiguous JSON.
    #[error("{0}")]
    PayloadJson(JsonError),
    /// The payload, or an object in it, is not an object.
    #[error("JSON object expected in {field}")]
    PayloadObject {
        /// Which.
        field: &'static str,
    },
    /// The payload has a key that it must not have.
    #[error("Unknown key {}", go_quote(.key))]
    PayloadUnknownKey {
        /// The key.
        key: String,
    },
    /// The payload lacks a key.
    #[error("Key {} missing in a JSON object", go_quote(.key))]
    PayloadMissingKey {
        /// The key.
        key: &'static str,
    },
    /// A value in the payload is not of its type.
    #[error("Field {field} is not {expected}")]
    PayloadField {
        /// Which.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// The payload is not an image signature.
    #[error("Unrecognized signature type {found}")]
    PayloadType {
        /// What it says it is.
        found: String,
    },
    /// The payload names no digest.
    #[error("invalid docker-manifest-digest value {}: {why}", go_quote(.found))]
    PayloadDigest {
        /// What stands there.
        found: String,
        /// What is wrong with it.
        why: String,
    },

    // ---- form of bundles, envelopes and statements ----
    /// The candidate is of a kind that this rule does not ask for.
    #[error("a {found} is no {wanted}")]
    OtherKind {
        /// What the rule asks for.
        wanted: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// The bundle is an attestation, where a plain signature is asked for.
    #[error("an attestation of type {} is no signature: a signature's type is {COSIGN_SIGN}", go_quote(.predicate_type))]
    NotASignature {
        /// What it says it is.
        predicate_type: String,
    },
    /// A private PKI vouches for no bundle.
    #[error(
        "a sigstore bundle cannot be checked against a PKI: policy.json's pki accepts signatures at the .sig tag alone"
    )]
    PkiBundle,
    /// The bundle is no unambiguous JSON.
    #[error("malformed sigstore bundle: {0}")]
    BundleJson(JsonError),
    /// The bundle is not made as bundles are.
    #[error("malformed sigstore bundle: {why}")]
    BundleMalformed {
        /// What is wrong.
        why: String,
    },
    /// The bundle is of another version.
    #[error("a sigstore bundle of the media type {}: among referrers only v0.3 counts", go_quote(.found))]
    BundleVersion {
        /// Its media type.
        found: String,
    },
    /// There is more of something than anybody needs.
    #[error("{found} {what}, more than {max}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// The bound.
        max: usize,
    },
    /// The envelope is not made as DSSE envelopes are.
    #[error("malformed DSSE envelope: {why}")]
    EnvelopeMalformed {
        /// What is wrong.
        why: String,
    },
    /// The envelope does not have exactly one signature, so that nothing says which one the certificate vouches for.
    #[error("the DSSE envelope has {found} signatures, not exactly one")]
    EnvelopeSignatures {
        /// How many it has.
        found: usize,
    },
    /// The envelope holds something else than an in-toto statement.
    #[error("the DSSE envelope's payload is of type {}, not application/vnd.in-toto+json", go_quote(.found))]
    EnvelopeType {
        /// Its payload type.
        found: String,
    },
    /// The statement is no unambiguous JSON.
    #[error("malformed in-toto statement: {0}")]
    StatementJson(JsonError),
    /// The statement is not made as statements are.
    #[error("malformed in-toto statement: {why}")]
    StatementMalformed {
        /// What is wrong.
        why: &'static str,
    },
    /// The statement is of an unknown version.
    #[error("an in-toto statement of type {}: known are Statement/v0.1 and Statement/v1", go_quote(.found))]
    StatementType {
        /// Its `_type`.
        found: String,
    },

    // ---- binding to the image ----
    /// The statement is about something else.
    #[error("none of the statement's {subjects} subjects has the digest {subject}")]
    OtherSubject {
        /// The digest asked for.
        subject: Digest,
        /// How many subjects there are.
        subjects: usize,
    },
    /// The signature is over the image's bytes under another hash than its digest's.
    #[error(
        "a message signature counts only over the manifest's SHA-256 digest, with a key that signs digests (not Ed25519)"
    )]
    MessageHash,
    /// The image's digest is of an algorithm that signatures do not bind.
    #[error("signatures bind sha256 digests, the image was asked for by {}", .subject.algorithm().as_str())]
    SubjectAlgorithm {
        /// The image's digest.
        subject: Digest,
    },
    /// The signature is one for another manifest.
    #[error("Signature for digest {signed} does not match")]
    OtherDigest {
        /// The digest that was signed.
        signed: Digest,
    },

    // ---- signature ----
    /// The signature was not made over this payload by the key (or any of the keys).
    #[error("cryptographic signature verification failed: invalid signature")]
    Signature,

    /// The bundle names a managed key, the policy asks for a certificate.
    #[error("signed with a managed key, where a certificate is required")]
    KeyNotCertificate,
    /// The bundle brings a certificate, the policy names keys.
    #[error("signed with a certificate, where a signature by a configured key is required")]
    CertificateNotKey,
    /// A logged envelope is signed with another hash than that of the key's kind.
    #[error("a logged envelope must be signed with the hash of the key's kind (SHA-384 for P-384, else SHA-256)")]
    EnvelopeHash,

    // ---- log entry ----
    /// There is no log entry.
    #[error("the bundle has no transparency log entry")]
    LogEntryMissing,
    /// The entry has no inclusion proof with a checkpoint.
    #[error("the log entry has no inclusion proof with a checkpoint")]
    LogProofMissing,
    /// One entry stands there twice, or under two names of one log.
    #[error("the log entry {index} stands there twice")]
    LogEntryTwice {
        /// Its index.
        index: u64,
    },
    /// The entry is of the first kind that cosign wrote for attestations.
    #[error(
        "a log entry of kind intoto 0.0.1 names no signature, so it proves nothing about this one; attest again with cosign 2 or later"
    )]
    LogIntoto001,
    /// The inclusion proof does not prove that the entry is in the log.
    #[error("the log entry's inclusion proof does not hold: {why}")]
    LogProof {
        /// The verifier's own words.
        why: String,
    },
    /// The checkpoint is not one of the log.
    #[error("the log's checkpoint does not hold: {why}")]
    LogCheckpoint {
        /// What is wrong.
        why: String,
    },
    /// The entry is one for another envelope.
    #[error("the log entry is one of another signature: {why}")]
    LogOtherEnvelope {
        /// The verifier's own words.
        why: String,
    },
    /// The log's key was not yet, or no longer, in use.
    #[error("the log's key is not valid at {at}")]
    LogKeyTime {
        /// When the entry was made.
        at: Timestamp,
    },
    /// The log entry's annotation or body is not what a log entry is.
    #[error("malformed Rekor bundle: {why}")]
    LogMalformed {
        /// What is wrong.
        why: String,
    },
    /// The entry is of a kind that image signatures do not have.
    #[error("unsupported Rekor SET Payload {kind} version {}", go_quote(.version))]
    LogEntryKind {
        /// Its kind.
        kind: String,
        /// Its version.
        version: String,
    },
    /// The entry names a log whose key the requirement does not have.
    #[error("cryptographic signature verification of Rekor SET failed: no configured key has the log id {log_id}")]
    LogUnknown {
        /// The log id, in hexadecimal.
        log_id: String,
    },
    /// The log did not sign this entry, index and time.
    #[error("cryptographic signature verification of Rekor SET failed")]
    LogSet,
    /// The entry is one for another certificate.
    #[error("publicKey in Rekor SET does not match")]
    LogOtherCertificate,
    /// The entry is one for a key that is not among the requirement's.
    #[error("No public key verified against the RekorSET: publicKey in Rekor SET does not match")]
    LogOtherKey,
    /// The entry is one for another signature.
    #[error("signature in Rekor SET does not match")]
    LogOtherSignature,
    /// The entry is one for another payload.
    #[error("payload in Rekor SET does not match")]
    LogOtherPayload,

    // ---- time ----
    /// The log says that the entry was made after now.
    #[error("the log entry's time {integrated} is in the future (now {now})")]
    LoggedInFuture {
        /// When it was integrated.
        integrated: Timestamp,
        /// The time of the check.
        now: Timestamp,
    },
    /// The entry was not made while the certificate was valid.
    #[error("entry logged at {integrated}, outside the certificate's validity ({not_before} to {not_after})")]
    LoggedOutsideCertificate {
        /// When it was integrated.
        integrated: Timestamp,
        /// Start of the certificate's validity.
        not_before: Timestamp,
        /// End of the certificate's validity.
        not_after: Timestamp,
    },
    /// The leaf certificate is not valid at the time of the check (pki).
    #[error("veryfing leaf certificate failed: it is valid from {not_before} to {not_after}, not at {at}")]
    CertificateTime {
        /// The time of the check.
        at: Timestamp,
        /// Start of its validity.
        not_before: Timestamp,
        /// End of its validity.
        not_after: Timestamp,
    },
    /// None of the configured certificate authorities is valid at that time.
    #[error("veryfing leaf certificate failed: no configured CA certificate is valid at {at}")]
    AuthorityTime {
        /// The time of the check.
        at: Timestamp,
    },
    /// An intermediate certificate of the chain is not valid at that time.
    #[error("veryfing leaf certificate failed: a certificate of the chain is not valid at {at}")]
    ChainTime {
        /// The time of the check.
        at: Timestamp,
    },

    /// Neither a log's promise nor a timestamp says when the signature was made.
    #[error("no trusted time: the bundle has neither a signed entry timestamp nor an RFC 3161 timestamp")]
    NoTrustedTime,
    /// A timestamp is asked for, and there is none.
    #[error("an RFC 3161 timestamp is required, but there is none")]
    TimestampMissing,
    /// A timestamp is none of the trusted authorities' over this signature.
    #[error("the RFC 3161 timestamp does not hold: {why}")]
    TimestampInvalid {
        /// The verifier's own words.
        why: String,
    },
    /// The timestamp authority was not yet, or no longer, in use.
    #[error("the timestamp authority is not valid at {at}")]
    TimestampAuthorityTime {
        /// The timestamp's time.
        at: Timestamp,
    },
    /// The timestamp was made after now.
    #[error("the RFC 3161 timestamp {at} is in the future (now {now})")]
    TimestampInFuture {
        /// The timestamp's time.
        at: Timestamp,
        /// The time of the check.
        now: Timestamp,
    },
    /// The timestamp was not made while the certificate was valid.
    #[error("timestamp of {at}, outside the certificate's validity ({not_before} to {not_after})")]
    TimestampOutsideCertificate {
        /// The timestamp's time.
        at: Timestamp,
        /// Start of the certificate's validity.
        not_before: Timestamp,
        /// End of the certificate's validity.
        not_after: Timestamp,
    },

    // ---- certificate ----
    /// The certificate was not logged by a trusted certificate log.
    #[error("the certificate's signed certificate timestamp (SCT) does not hold: {why}")]
    Sct {
        /// The verifier's own words.
        why: String,
    },
    /// The certificate has a name of a kind that nothing here reads.
    #[error("the certificate has a subject alternative name of an unknown kind")]
    NameKind,
    /// A claim about the workflow that signed cannot be read or stands there twice.
    #[error("the certificate's extension {oid} cannot be read")]
    ClaimMalformed {
        /// Its object identifier.
        oid: String,
    },
    /// The certificate annotation holds no certificate.
    #[error("no certificate found in signature certificate data")]
    NoCertificate,
    /// The certificate annotation holds several.
    #[error("unexpected multiple certificates present in signature certificate data")]
    SeveralCertificates,
    /// A certificate cannot be read.
    #[error("parsing the certificates of the signature: {why}")]
    CertificateMalformed {
        /// What is wrong.
        why: String,
    },
    /// The certificate's key is of a kind that signatures are not verified with.
    #[error("unsupported key in the certificate: {why}")]
    CertificateKey {
        /// What is unsupported.
        why: String,
    },
    /// The certificate does not chain to the requirement's authorities, or is not one for signing code.
    #[error("veryfing leaf certificate failed: {why}")]
    ChainUntrusted {
        /// What the chain check said.
        why: String,
    },

    // ---- identity ----
    /// The certificate names no issuer.
    #[error("Fulcio certificate is missing the issuer extension")]
    IssuerMissing,
    /// The certificate's issuer extension cannot be read or stands there twice.
    #[error("invalid OIDC issuer extension: {why}")]
    IssuerMalformed {
        /// What is wrong.
        why: &'static str,
    },
    /// The certificate names two issuers.
    #[error("inconsistent OIDC issuer extension values: v1 {}, v2 {}", go_quote(.v1), go_quote(.v2))]
    IssuerInconsistent {
        /// In the extension `.1.1`.
        v1: String,
        /// In the extension `.1.8`.
        v2: String,
    },
    /// The certificate is of another issuer.
    #[error("Unexpected Fulcio OIDC issuer {}", go_quote(.found))]
    OtherIssuer {
        /// The certificate's issuer.
        found: String,
    },
    /// The certificate does not name the wanted e-mail address.
    #[error("Required email {} not found (got {})", go_quote(.wanted), go_quote_list(.found))]
    OtherEmail {
        /// What the requirement asks for.
        wanted: String,
        /// What the certificate names, the first few.
        found: Vec<String>,
    },
    /// The certificate does not name the wanted host.
    #[error("Unexpected subject hostname: x509: certificate is valid for {}, not {wanted}", names(.found))]
    OtherHostname {
        /// What the requirement asks for.
        wanted: String,
        /// What the certificate names, the first few.
        found: Vec<String>,
    },

    /// A good signature by somebody whom the policy does not name.
    #[error("signed by {} (issuer {}), whom no identity of the policy names", names(.subjects), go_quote(.issuer))]
    OtherIdentity {
        /// The certificate's issuer.
        issuer: String,
        /// What the certificate names, the first few.
        subjects: Vec<String>,
    },
    // ---- OpenPGP ----
    /// An OpenPGP signature does not count.
    #[error(transparent)]
    OpenPgp(#[from] OpenPgpError),

    // ---- the library's own reasons ----
    /// The verifier refused the signature for a reason that has no variant here.
    #[error("the verifier refused the signature: {why}")]
    Refused {
        /// The verifier's own words.
        why: String,
    },
}
