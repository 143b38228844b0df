//! Public keys: which kinds there are, and signatures by them without any log.

use aws_lc_rs::signature::VerificationAlgorithm;
use sigstore_verify::crypto::{KeyAlgorithm, SigningScheme, VerificationKey, validate_raw_public_key};
use sigstore_verify::types::{DerPublicKey, SignatureBytes};

use crate::oci::{Algorithm, Digest};
use crate::verify::authority::KeyHash;
use crate::verify::error::VerifyError;
use crate::verify::key_error::KeyError;
use crate::verify::keys::PublicKey;

/// The kinds of keys that signatures are verified with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::verify) enum KeyKind {
    EcdsaP256,
    EcdsaP384,
    Ed25519,
    Rsa,
}

impl KeyKind {
    pub(in crate::verify) const fn is_ecdsa(self) -> bool {
        matches!(self, Self::EcdsaP256 | Self::EcdsaP384)
    }

    /// The hash that Sigstore's registry of algorithms names for such a key, and that the library takes for envelopes.
    pub(in crate::verify) const fn own_hash(self) -> KeyHash {
        match self {
            Self::EcdsaP384 => KeyHash::Sha384,
            Self::EcdsaP256 | Self::Ed25519 | Self::Rsa => KeyHash::Sha256,
        }
    }

    /// Whether it signs the message itself and no hash of it.
    pub(in crate::verify) const fn is_without_hash(self) -> bool {
        matches!(self, Self::Ed25519)
    }

    /// How the key signs over SHA-256, with PKCS#1 v1.5 for RSA, as cosign always does.
    const fn sha256_scheme(self) -> SigningScheme {
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
pub(in crate::verify) fn key_kind(spki: &[u8]) -> Result<KeyKind, KeyError> {
    let key = DerPublicKey::from_bytes(spki);
    let unsupported = |error: sigstore_verify::crypto::Error| KeyError::UnsupportedKey { why: error.to_string() };
    let kind = match KeyAlgorithm::from_spki(&key).map_err(unsupported)? {
        KeyAlgorithm::EcdsaP256 => KeyKind::EcdsaP256,
        KeyAlgorithm::EcdsaP384 => KeyKind::EcdsaP384,
        KeyAlgorithm::Ed25519 => KeyKind::Ed25519,
        KeyAlgorithm::Rsa => KeyKind::Rsa,
        other => return Err(KeyError::UnsupportedKey { why: format!("{other:?}") }),
    };
    let scheme = kind.sha256_scheme();
    let parsed = VerificationKey::from_spki_with_scheme(&key, scheme).map_err(unsupported)?;
    validate_raw_public_key(scheme, parsed.as_bytes()).map_err(unsupported)?;
    // A point that is not on its curve is found out by nobody before the first signature; find it at load.
    let parsed = aws_lc_rs::signature::ParsedPublicKey::new(algorithm(kind, KeyHash::Sha256), spki);
    parsed.map_err(|error| KeyError::MalformedKey { why: error.to_string() })?;
    Ok(kind)
}

fn algorithm(kind: KeyKind, hash: KeyHash) -> &'static dyn VerificationAlgorithm {
    use aws_lc_rs::signature as lc;
    match (kind, hash) {
        (KeyKind::EcdsaP256, KeyHash::Sha256) => &lc::ECDSA_P256_SHA256_ASN1,
        (KeyKind::EcdsaP256, KeyHash::Sha384) => &lc::ECDSA_P256_SHA384_ASN1,
        (KeyKind::EcdsaP256, KeyHash::Sha512) => &lc::ECDSA_P256_SHA512_ASN1,
        (KeyKind::EcdsaP384, KeyHash::Sha256) => &lc::ECDSA_P384_SHA256_ASN1,
        (KeyKind::EcdsaP384, KeyHash::Sha384) => &lc::ECDSA_P384_SHA384_ASN1,
        (KeyKind::EcdsaP384, KeyHash::Sha512) => &lc::ECDSA_P384_SHA512_ASN1,
        (KeyKind::Ed25519, _) => &lc::ED25519,
        (KeyKind::Rsa, KeyHash::Sha256) => &lc::RSA_PKCS1_2048_8192_SHA256,
        (KeyKind::Rsa, KeyHash::Sha384) => &lc::RSA_PKCS1_2048_8192_SHA384,
        (KeyKind::Rsa, KeyHash::Sha512) => &lc::RSA_PKCS1_2048_8192_SHA512,
    }
}

/// Verifies a signature over `message` that was made with that hash, without any log.
pub(in crate::verify) fn verify_raw(
    key: &PublicKey,
    hash: KeyHash,
    message: &[u8],
    signature: &[u8],
) -> Result<(), VerifyError> {
    let key = aws_lc_rs::signature::ParsedPublicKey::new(algorithm(key.kind(), hash), key.spki());
    let key = key.map_err(|_| VerifyError::Signature)?;
    key.verify_sig(message, signature).map_err(|_| VerifyError::Signature)
}

/// Verifies a signature over the message of which only the SHA-256 digest is known, without any log.
pub(in crate::verify) fn verify_digest(key: &PublicKey, digest: &Digest, signature: &[u8]) -> Result<(), VerifyError> {
    if key.kind().is_without_hash() || digest.algorithm() != Algorithm::Sha256 {
        return Err(VerifyError::MessageHash);
    }
    let scheme = key.kind().sha256_scheme();
    let key = VerificationKey::from_spki_with_scheme(&DerPublicKey::from_bytes(key.spki()), scheme);
    let key = key.map_err(|_| VerifyError::Signature)?;
    let signature = SignatureBytes::from_bytes(signature);
    key.verify_prehashed(digest.as_bytes(), &signature).map_err(|_| VerifyError::Signature)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    /// Made with OpenSSL: `openssl dgst -sha256 -sign`, as cosign signs with a P-384 key.
    #[test]
    fn a_p384_key_verifies_over_sha256_as_cosign_signs() {
        let key = PublicKey::from_pem(include_bytes!("../../../tests/data/p384/key.pub")).unwrap();
        let payload = include_bytes!("../../../tests/data/p384/payload");
        let decode = |text: &str| STANDARD.decode(text.replace('\n', "")).unwrap();
        let sha256 = decode(include_str!("../../../tests/data/p384/signature"));
        assert_eq!(verify_raw(&key, KeyHash::Sha256, payload, &sha256), Ok(()));
        let sha384 = decode(include_str!("../../../tests/data/p384/signature-sha384"));
        assert_eq!(verify_raw(&key, KeyHash::Sha256, payload, &sha384), Err(VerifyError::Signature));
        assert_eq!(verify_raw(&key, KeyHash::Sha384, payload, &sha384), Ok(()));
        assert_eq!(verify_raw(&key, KeyHash::Sha512, payload, &sha384), Err(VerifyError::Signature));
        let digest = Digest::sha256(payload);
        assert_eq!(verify_digest(&key, &digest, &sha256), Ok(()));
        assert_eq!(verify_digest(&key, &digest, &sha384), Err(VerifyError::Signature));
        assert_eq!(verify_raw(&key, KeyHash::Sha256, b"another payload", &sha256), Err(VerifyError::Signature));
        assert_eq!(verify_raw(&key, KeyHash::Sha256, payload, b""), Err(VerifyError::Signature));
    }
}
