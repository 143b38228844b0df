//! The one file of this module that names `sigstore-verify`: their types and errors become ours.
//!
//! The library binds, in one call, signature to payload, SET to entry, entry to signature, key and payload hash, and checks
//! the certificate chain at the integrated time. It reads the wall clock for one rule, that an entry's time is not in the
//! future; the callers here check the same rule against their own `now` first.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sigstore_verify::crypto::{KeyAlgorithm, SigningScheme, VerificationKey, validate_raw_public_key};
use sigstore_verify::trust_root::TrustedRoot;
use sigstore_verify::types::bundle::{
    InclusionPromise, LogId, MessageDigest, MessageSignature, PublicKeyIdentifier, TransparencyLogEntry,
    VerificationMaterial, VerificationMaterialContent, X509Certificate,
};
use sigstore_verify::types::{
    Bundle, CanonicalizedBody, DerCertificate, DerPublicKey, DigestBytes, HashAlgorithm, KindVersion, LogIndex,
    LogKeyId, MediaType, SignatureBytes, SignatureContent, SignedTimestamp,
};
use sigstore_verify::{
    CertificateError, Error, PublicKeyVerificationPolicy, TransparencyLogError, VerificationPolicy, Verifier,
};

use super::certificate::{Authority, Leaf};
use super::error::{VerifyError, shown};
use super::key_error::KeyError;
use super::keys::PublicKey;
use super::legacy::LoggedEntry;
use crate::clock::Timestamp;
use crate::oci::Digest;

/// The kinds of keys that signatures are verified with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyKind {
    EcdsaP256,
    EcdsaP384,
    Ed25519,
    Rsa,
}

impl KeyKind {
    pub(super) const fn is_ecdsa(self) -> bool {
        matches!(self, Self::EcdsaP256 | Self::EcdsaP384)
    }

    /// How cosign signs with such a key: always over SHA-256, and with PKCS#1 v1.5 for RSA.
    const fn cosign_scheme(self) -> SigningScheme {
        match self {
            Self::EcdsaP256 => SigningScheme::EcdsaP256Sha256,
            Self::EcdsaP384 => SigningScheme::EcdsaP384Sha256,
            Self::Ed25519 => SigningScheme::Ed25519,
            Self::Rsa => SigningScheme::RsaPkcs1Sha256,
        }
    }
}

/// The kind of a key, given as `SubjectPublicKeyInfo` (DER).
#[expect(clippy::wildcard_enum_match_arm, reason = "their enum may grow; what has no name here is a refusal")]
pub(super) fn key_kind(spki: &[u8]) -> Result<KeyKind, KeyError> {
    let key = DerPublicKey::from_bytes(spki);
    let unsupported = |error: sigstore_verify::crypto::Error| KeyError::UnsupportedKey { why: error.to_string() };
    let kind = match KeyAlgorithm::from_spki(&key).map_err(unsupported)? {
        KeyAlgorithm::EcdsaP256 => KeyKind::EcdsaP256,
        KeyAlgorithm::EcdsaP384 => KeyKind::EcdsaP384,
        KeyAlgorithm::Ed25519 => KeyKind::Ed25519,
        KeyAlgorithm::Rsa => KeyKind::Rsa,
        other => return Err(KeyError::UnsupportedKey { why: format!("{other:?}") }),
    };
    let scheme = kind.cosign_scheme();
    let parsed = VerificationKey::from_spki_with_scheme(&key, scheme).map_err(unsupported)?;
    validate_raw_public_key(scheme, parsed.as_bytes()).map_err(unsupported)?;
    // A point that is not on its curve is found out by nobody before the first signature; find it at load.
    let parsed = aws_lc_rs::signature::ParsedPublicKey::new(algorithm(kind), spki);
    parsed.map_err(|error| KeyError::MalformedKey { why: error.to_string() })?;
    Ok(kind)
}

fn algorithm(kind: KeyKind) -> &'static dyn aws_lc_rs::signature::VerificationAlgorithm {
    match kind {
        KeyKind::EcdsaP256 => &aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1,
        KeyKind::EcdsaP384 => &aws_lc_rs::signature::ECDSA_P384_SHA256_ASN1,
        KeyKind::Ed25519 => &aws_lc_rs::signature::ED25519,
        KeyKind::Rsa => &aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256,
    }
}

/// Verifies a signature over `payload`, without any log.
pub(super) fn verify_raw(key: &PublicKey, payload: &[u8], signature: &[u8]) -> Result<(), VerifyError> {
    let scheme = key.kind().cosign_scheme();
    let key = VerificationKey::from_spki_with_scheme(&DerPublicKey::from_bytes(key.spki()), scheme);
    let key = key.map_err(|_| VerifyError::Signature)?;
    key.verify(payload, &SignatureBytes::from_bytes(signature)).map_err(|_| VerifyError::Signature)
}

/// Verifies signatures with a log entry, against given log keys and certificate authorities.
pub(super) struct LogVerifier {
    verifier: Verifier,
    log_ids: Vec<Digest>,
}

impl fmt::Debug for LogVerifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LogVerifier").field("log_ids", &self.log_ids).finish_non_exhaustive()
    }
}

impl LogVerifier {
    /// A verifier that trusts exactly these. Neither list may hold duplicates.
    ///
    /// A log is known by the SHA-256 of its key; its window has no end, since a policy file states none. An authority's
    /// window is its certificate's validity.
    pub(super) fn new(authorities: &[Authority], logs: &[PublicKey]) -> Result<Self, KeyError> {
        let refused = |why: String| KeyError::Refused { why };
        let root = trusted_root(authorities, logs).to_string();
        let root = TrustedRoot::from_json(&root).map_err(|error| refused(error.to_string()))?;
        let verifier = Verifier::new(&root).map_err(|error| refused(error.to_string()))?;
        Ok(Self { verifier, log_ids: logs.iter().map(PublicKey::fingerprint).collect() })
    }

    /// Verifies a signature by a managed key.
    pub(super) fn verify_key(
        &self,
        key: &PublicKey,
        payload: &[u8],
        signature: &[u8],
        entry: &LoggedEntry,
    ) -> Result<(), VerifyError> {
        let hint = PublicKeyIdentifier::new(key.fingerprint().hex());
        let bundle = bundle(VerificationMaterialContent::PublicKey(hint), payload, signature, entry)?;
        let policy = PublicKeyVerificationPolicy::new(DerPublicKey::from_bytes(key.spki()));
        match self.verifier.verify(payload, &bundle, &policy) {
            Ok(outcome) if outcome.tlog_verified() => Ok(()),
            Ok(_) => Err(VerifyError::LogSet),
            Err(error) => Err(self.translate(error, entry, None)),
        }
    }

    /// Verifies a signature by a certificate of policy.json's `fulcio`; whose certificate it is remains to be asked.
    ///
    /// policy.json knows no CT log key, so the SCT is not checked, here and nowhere else.
    pub(super) fn verify_fulcio(
        &self,
        leaf: &Leaf,
        chain: &[Vec<u8>],
        payload: &[u8],
        signature: &[u8],
        entry: &LoggedEntry,
    ) -> Result<(), VerifyError> {
        let certificates = std::iter::once(&leaf.der).chain(chain);
        let certificates = certificates.map(|der| X509Certificate::new(DerCertificate::from_bytes(der))).collect();
        let content = VerificationMaterialContent::X509CertificateChain { certificates };
        let bundle = bundle(content, payload, signature, entry)?;
        let policy = VerificationPolicy::any_identity().skip_sct();
        match self.verifier.verify(payload, &bundle, &policy) {
            Ok(outcome) if outcome.tlog_verified() && outcome.certificate_verified() => Ok(()),
            Ok(_) => Err(VerifyError::LogSet),
            Err(error) => Err(self.translate(error, entry, Some(leaf))),
        }
    }

    /// Their error as ours. Their strings are detail for a reader, never something to decide by.
    #[expect(clippy::wildcard_enum_match_arm, reason = "their enum may grow; what has no name here is a refusal")]
    fn translate(&self, error: Error, entry: &LoggedEntry, leaf: Option<&Leaf>) -> VerifyError {
        match error {
            Error::SignatureInvalid(_) => VerifyError::Signature,
            Error::ArtifactMismatch(_) => VerifyError::LogOtherPayload,
            Error::Certificate(error) => certificate_error(error, entry, leaf),
            Error::TransparencyLog(error) => self.log_error(error, entry, leaf),
            other => VerifyError::Refused { why: shown(&other.to_string()) },
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "their enum may grow; what has no name here is a refusal")]
    fn log_error(&self, error: TransparencyLogError, entry: &LoggedEntry, leaf: Option<&Leaf>) -> VerifyError {
        match error {
            TransparencyLogError::UnknownLog { log_id } => VerifyError::LogUnknown { log_id: shown(&log_id) },
            TransparencyLogError::InclusionPromise(_) if !self.knows(&entry.log_id) => {
                VerifyError::LogUnknown { log_id: shown(&hex::encode(&entry.log_id)) }
            }
            TransparencyLogError::InclusionPromise(_) => VerifyError::LogSet,
            TransparencyLogError::EntryMismatch(_) => VerifyError::LogOtherSignature,
            TransparencyLogError::MalformedEntry(why) => VerifyError::LogMalformed { why: shown(&why) },
            // The SET has been checked by then, so the time is the log's.
            TransparencyLogError::IntegratedTime(why) => {
                outside(entry, leaf).unwrap_or_else(|| VerifyError::Refused { why: shown(&why) })
            }
            other => VerifyError::Refused { why: shown(&other.to_string()) },
        }
    }

    fn knows(&self, log_id: &[u8]) -> bool {
        self.log_ids.iter().any(|known| known.as_bytes() == log_id)
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "their enum may grow; what has no name here is a refusal")]
fn certificate_error(error: CertificateError, entry: &LoggedEntry, leaf: Option<&Leaf>) -> VerifyError {
    match error {
        CertificateError::Malformed(why) => VerifyError::CertificateMalformed { why: shown(&why) },
        // The chain is looked at after the SET, so the time is the log's. A leaf used outside its validity is the
        // case that people must be able to tell from a foreign CA.
        CertificateError::ChainInvalid(why) => {
            outside(entry, leaf).unwrap_or_else(|| VerifyError::ChainUntrusted { why: shown(&why) })
        }
        CertificateError::NoValidAuthority { .. } => VerifyError::AuthorityTime { at: entry.integrated() },
        error @ (CertificateError::NotYetValid { .. } | CertificateError::Expired { .. }) => {
            outside(entry, leaf).unwrap_or_else(|| VerifyError::Refused { why: shown(&error.to_string()) })
        }
        other => VerifyError::Refused { why: shown(&other.to_string()) },
    }
}

fn outside(entry: &LoggedEntry, leaf: Option<&Leaf>) -> Option<VerifyError> {
    let validity = leaf?.validity;
    let integrated = entry.integrated();
    (!validity.contains(integrated)).then_some(VerifyError::LoggedOutsideCertificate {
        integrated,
        not_before: validity.not_before,
        not_after: validity.not_after,
    })
}

/// A v0.1 bundle: it is the version that asks for the log's promise and needs no inclusion proof, which cosign's legacy
/// format does not carry. It exists only here; no bundle of that version is ever accepted from outside.
fn bundle(
    content: VerificationMaterialContent,
    payload: &[u8],
    signature: &[u8],
    entry: &LoggedEntry,
) -> Result<Bundle, VerifyError> {
    let digest = DigestBytes::new(Digest::sha256(payload).as_bytes().to_vec());
    let signature = MessageSignature::new(SignatureBytes::from_bytes(signature))
        .with_message_digest(MessageDigest::new(HashAlgorithm::Sha2256, digest));
    let material = VerificationMaterial::new(content).with_tlog_entries(vec![log_entry(entry)?]);
    Ok(Bundle::new(MediaType::Bundle0_1, material, SignatureContent::MessageSignature(signature)))
}

fn log_entry(entry: &LoggedEntry) -> Result<TransparencyLogEntry, VerifyError> {
    let malformed = |why: &str| VerifyError::LogMalformed { why: why.to_owned() };
    let index = LogIndex::new(entry.index).map_err(|_| malformed("the log index is out of range"))?;
    let integrated = jiff::Timestamp::from_second(entry.integrated_seconds)
        .map_err(|_| malformed("the integrated time is out of range"))?;
    let log_id = LogId::new(LogKeyId::from_bytes(&entry.log_id));
    let body = CanonicalizedBody::from_bytes(&entry.body);
    Ok(TransparencyLogEntry::new(index, log_id, KindVersion::HashedRekordV001, body)
        .with_integrated_time(integrated)
        .with_inclusion_promise(InclusionPromise::new(SignedTimestamp::from_bytes(&entry.set))))
}

/// The protobuf JSON of a trusted root; the library's types have no other constructor.
fn trusted_root(authorities: &[Authority], logs: &[PublicKey]) -> Value {
    let logs: Vec<Value> = logs
        .iter()
        .map(|key| {
            json!({
                "baseUrl": "", "hashAlgorithm": "SHA2_256",
                "publicKey": {"rawBytes": STANDARD.encode(key.spki()), "keyDetails": "PKIX_ECDSA"},
                "logId": {"keyId": STANDARD.encode(key.fingerprint().as_bytes())},
            })
        })
        .collect();
    let authorities: Vec<Value> = authorities
        .iter()
        .map(|authority| {
            json!({
                "uri": "", "certChain": {"certificates": [{"rawBytes": STANDARD.encode(&authority.der)}]},
                "validFor": window(authority),
            })
        })
        .collect();
    json!({
        "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
        "tlogs": logs, "certificateAuthorities": authorities, "ctlogs": [], "timestampAuthorities": [],
    })
}

/// A certificate "without end" ends in the year 9999, a day after the last time that the library can represent.
fn window(authority: &Authority) -> Value {
    let start = authority.validity.not_before.to_string();
    let last = Timestamp::from_unix_millis(jiff::Timestamp::MAX.as_millisecond());
    if authority.validity.not_after > last {
        return json!({"start": start});
    }
    json!({"start": start, "end": authority.validity.not_after.to_string()})
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with OpenSSL: `openssl dgst -sha256 -sign`, as cosign signs with a P-384 key.
    #[test]
    fn a_p384_key_verifies_over_sha256_as_cosign_signs() {
        let key = PublicKey::from_pem(include_bytes!("../../tests/data/p384/key.pub")).unwrap();
        let payload = include_bytes!("../../tests/data/p384/payload");
        let decode = |text: &str| STANDARD.decode(text.replace('\n', "")).unwrap();
        let sha256 = decode(include_str!("../../tests/data/p384/signature"));
        assert_eq!(verify_raw(&key, payload, &sha256), Ok(()));
        let sha384 = decode(include_str!("../../tests/data/p384/signature-sha384"));
        assert_eq!(verify_raw(&key, payload, &sha384), Err(VerifyError::Signature));
        assert_eq!(verify_raw(&key, b"another payload", &sha256), Err(VerifyError::Signature));
        assert_eq!(verify_raw(&key, payload, b""), Err(VerifyError::Signature));
    }

    #[test]
    fn a_certificate_without_end_gives_a_window_without_end() {
        let authority = |not_after: &str| Authority {
            der: Vec::new(),
            validity: super::super::certificate::Validity {
                not_before: Timestamp::from_unix_seconds(0),
                not_after: not_after.parse().unwrap(),
            },
        };
        let start = "1970-01-01T00:00:00Z";
        assert_eq!(window(&authority("2030-01-01T00:00:00Z")), json!({"start": start, "end": "2030-01-01T00:00:00Z"}));
        let mut endless = authority("2030-01-01T00:00:00Z");
        endless.validity.not_after = Timestamp::from_unix_seconds(253_402_300_799);
        assert_eq!(window(&endless), json!({"start": start}));
    }
}
