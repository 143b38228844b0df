//! Public keys of a policy: those that sign images, and those of transparency logs.

use std::fmt;
use std::sync::Arc;

use x509_cert::der::asn1::BitString;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Any, Encode as _};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use super::key_error::KeyError;
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
        Self::from_block(block)
    }

    /// Parses PEM public keys, at least one; a key given twice counts once. One bad key fails them all.
    ///
    /// # Errors
    /// [`KeyError`] for the first that cannot be used.
    pub fn all_from_pem(pem: &[u8]) -> Result<Vec<Self>, KeyError> {
        let blocks = pem::blocks(pem).map_err(|error| KeyError::Pem { why: error.why() })?;
        let mut keys = Vec::new();
        for block in &blocks {
            let key = Self::from_block(block)?;
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        if keys.is_empty() { Err(KeyError::NoPem) } else { Ok(keys) }
    }

    fn from_block(block: &pem::Block) -> Result<Self, KeyError> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sigstore::FakeKey;

    const P521: &str = "-----BEGIN PUBLIC KEY-----
MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQAJ7TVaywd3zerNoNa4Tgv8iziG5NO
yUfTkJklC0j57TlKCwzZSYZP11pTqV+qdCbOBg7snkbDycPjkN24qPc0xiYA+anx
yNrvIrsS4GIfatIycog8pSLtHAEwJrgJ9xgJ+YLwZc4CXyDgUQ3Ic6B4hJN/G+Sc
o20X6wZlzawM0ueVL60=
-----END PUBLIC KEY-----
";
    const RSA_1024: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCk7I5MLZxQThWZnBAdI7d4yiui
2m9farSlx8n8u1oiPT8938x5e5nUc93vm/F1rrKjfdxb2cssBZQ13B7/i5gqBDzS
EHbJREs+hPquuKSLuX9nd51WgAHvWpTkOj3T4KTXj4NgCPHRG8HZe4JVJ34Rz1X+
/4ZLhIpWFfJ/L+0eiwIDAQAB
-----END PUBLIC KEY-----
";

    #[test]
    fn the_usual_kinds_of_keys_load() {
        let p384 = include_str!("../../tests/data/p384/key.pub");
        let keys =
            [FakeKey::p256(1, "a").public_pem(), FakeKey::ed25519(1, "a").public_pem(), FakeKey::rsa().public_pem()];
        let kinds = [KeyKind::EcdsaP256, KeyKind::Ed25519, KeyKind::Rsa, KeyKind::EcdsaP384];
        for (pem, kind) in keys.iter().map(String::as_str).chain([p384]).zip(kinds) {
            let key = PublicKey::from_pem(pem.as_bytes()).unwrap();
            assert_eq!(key.kind(), kind);
            assert_eq!(key.fingerprint(), Digest::sha256(key.spki()));
        }
    }

    #[test]
    fn a_pkcs1_key_is_the_same_key_as_its_subject_public_key_info() {
        let key = FakeKey::rsa().public();
        let spki = SubjectPublicKeyInfoOwned::try_from(key.spki()).unwrap();
        let pkcs1 = pem::write("RSA PUBLIC KEY", spki.subject_public_key.raw_bytes());
        assert_eq!(PublicKey::from_pem(pkcs1.as_bytes()), Ok(key));
    }

    #[test]
    fn what_is_no_usable_key_is_refused_for_its_reason() {
        let good = FakeKey::p256(1, "a").public_pem();
        let refused = |pem: &str| PublicKey::from_pem(pem.as_bytes()).unwrap_err();
        assert_eq!(refused(""), KeyError::NoPem);
        assert_eq!(refused("-----BEGIN PUBLIC KEY-----"), KeyError::Pem { why: "a block does not end" });
        assert_eq!(refused(&good.repeat(2)), KeyError::SeveralKeys { found: 2 });
        let private = good.replace("PUBLIC", "PRIVATE");
        assert_eq!(refused(&private), KeyError::NotPublicKey { label: "PRIVATE KEY".to_owned() });
        for pem in [P521, RSA_1024, &pem::write("PUBLIC KEY", b"no DER"), &pem::write("PUBLIC KEY", b"")] {
            assert!(matches!(refused(pem), KeyError::UnsupportedKey { .. }), "{pem}");
        }
        assert!(matches!(refused(&pem::write("RSA PUBLIC KEY", b"no DER")), KeyError::UnsupportedKey { .. }));

        let mut off_curve = FakeKey::p256(1, "a").public().spki().to_vec();
        *off_curve.last_mut().unwrap() ^= 1;
        assert!(matches!(refused(&pem::write("PUBLIC KEY", &off_curve)), KeyError::MalformedKey { .. }));
    }

    #[test]
    fn several_keys_in_one_text_are_all_read_and_one_bad_key_fails_them() {
        let (a, b) = (FakeKey::p256(1, "a"), FakeKey::ed25519(1, "b"));
        let all = |pem: &str| PublicKey::all_from_pem(pem.as_bytes());
        let both = format!("# a\n{}# b\n{}{0}", a.public_pem(), b.public_pem());
        assert_eq!(all(&both), Ok(vec![a.public(), b.public()]), "a key given twice counts once");
        assert_eq!(all("# none"), Err(KeyError::NoPem));
        let bad = both.replacen("PUBLIC", "PRIVATE", 2);
        assert_eq!(all(&bad), Err(KeyError::NotPublicKey { label: "PRIVATE KEY".to_owned() }));
    }

    #[test]
    fn log_keys_must_be_ecdsa_and_one_bad_key_fails_the_list() {
        let pem = |key: FakeKey| key.public_pem().into_bytes();
        let load = |pems: &[Vec<u8>]| RekorKeys::from_pems(pems).map(|rekor| rekor.keys.len());
        let (a, b) = (pem(FakeKey::p256(1, "a")), pem(FakeKey::p256(1, "b")));
        assert_eq!(load(&[a.clone(), b.clone(), a.clone()]), Ok(2), "a key given twice counts once");
        assert_eq!(load(&[]), Err(KeyError::NoRekorKey));
        assert_eq!(load(&[a.clone(), pem(FakeKey::rsa())]), Err(KeyError::RekorNotEcdsa { number: 2 }));
        let error = load(&[a, b, b"?".to_vec()]).unwrap_err();
        assert_eq!(error.to_string(), "parsing Rekor public key 3: PEM decoding failed");
    }
}
