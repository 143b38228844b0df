//! Public keys of a policy: those that sign images, and those of transparency logs.

use std::fmt;
use std::sync::Arc;

use x509_cert::der::asn1::BitString;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Any, Encode as _};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use super::error::KeyError;
use super::pem;
use super::sigstore::{self, KeyKind, LogVerifier};
use crate::oci::Digest;

/// One public key that signatures or log entries may be made with.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// `SubjectPublicKeyInfo`, DER.
    spki: Arc<[u8]>,
    kind: KeyKind,
    fingerprint: Digest,
}

impl PublicKey {
    /// Parses one PEM public key (`PUBLIC KEY`, or `RSA PUBLIC KEY` as PKCS#1 has it).
    ///
    /// ECDSA P-256 and P-384, Ed25519, and RSA of 2048 to 8192 bits; a point that is not on its curve is refused.
    /// # Errors
    /// [`KeyError`] for anything else, and for more than one block: the second would be silently without effect.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let blocks = pem::blocks(pem).map_err(|error| KeyError::Pem { why: error.why() })?;
        let [block] = blocks.as_slice() else {
            return Err(match blocks.len() {
                0 => KeyError::NoPem,
                found => KeyError::SeveralKeys { found },
            });
        };
        match block.label.as_str() {
            "PUBLIC KEY" => Self::from_spki(&block.der),
            "RSA PUBLIC KEY" => Self::from_spki(&rsa_spki(&block.der)?),
            label => Err(KeyError::NotPublicKey { label: label.to_owned() }),
        }
    }

    /// The key with that `SubjectPublicKeyInfo` (DER).
    ///
    /// # Errors
    /// As [`Self::from_pem`].
    pub fn from_spki(spki: &[u8]) -> Result<Self, KeyError> {
        Ok(Self { spki: spki.into(), kind: sigstore::key_kind(spki)?, fingerprint: Digest::sha256(spki) })
    }

    /// SHA-256 of its `SubjectPublicKeyInfo`.
    pub fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    pub(super) fn spki(&self) -> &[u8] {
        &self.spki
    }

    pub(super) fn kind(&self) -> KeyKind {
        self.kind
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PublicKey({:?}, {})", self.kind, self.fingerprint)
    }
}

/// The Rekor keys of one requirement; any of them may have signed an entry.
#[derive(Debug, Clone)]
pub struct RekorKeys {
    /// Without duplicates, in the order given.
    keys: Vec<PublicKey>,
    verifier: Arc<LogVerifier>,
}

impl RekorKeys {
    /// Parses PEM keys, one per element; all must be ECDSA. A key given twice counts once.
    ///
    /// # Errors
    /// [`KeyError::NoRekorKey`] for an empty list; [`KeyError::RekorKey`] or [`KeyError::RekorNotEcdsa`] for the first
    /// element that is no such key. One bad key fails the whole list, as in `containers/image`.
    pub fn from_pems(pems: &[Vec<u8>]) -> Result<Self, KeyError> {
        let mut keys = Vec::new();
        for (number, pem) in (1..).zip(pems) {
            let key =
                PublicKey::from_pem(pem).map_err(|cause| KeyError::RekorKey { number, cause: Box::new(cause) })?;
            if !key.kind().is_ecdsa() {
                return Err(KeyError::RekorNotEcdsa { number });
            }
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        if keys.is_empty() {
            return Err(KeyError::NoRekorKey);
        }
        let verifier = Arc::new(LogVerifier::new(&[], &keys)?);
        Ok(Self { keys, verifier })
    }

    pub(super) fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    pub(super) fn verifier(&self) -> &LogVerifier {
        &self.verifier
    }
}

/// Wraps a PKCS#1 `RSAPublicKey` as `SubjectPublicKeyInfo` (RFC 3279, 2.3.1).
fn rsa_spki(pkcs1: &[u8]) -> Result<Vec<u8>, KeyError> {
    let malformed = |error: x509_cert::der::Error| KeyError::MalformedKey { why: error.to_string() };
    let spki = SubjectPublicKeyInfoOwned {
        algorithm: AlgorithmIdentifierOwned { oid: RSA_ENCRYPTION, parameters: Some(Any::null()) },
        subject_public_key: BitString::from_bytes(pkcs1).map_err(malformed)?,
    };
    spki.to_der().map_err(malformed)
}

/// RFC 8017, appendix A.1.
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
