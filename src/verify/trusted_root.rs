//! Entries of a sigstore `trusted_root.json`, made from the keys and certificates that a TrustRoot document states.
//!
//! Such a document states no validity windows. A log's has no end; an authority's is the time for which all certificates of its
//! chain are valid, since nobody looks at the validity of a trust anchor otherwise.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use super::certificate::{Authority, Validity};
use super::key_error::KeyError;
use super::keys::PublicKey;
use super::pem;
use super::sigstore::KeyKind;
use crate::clock::Timestamp;
use crate::limits::CHAIN_CERTIFICATES_MAX;

/// Checks that a PEM text holds certificates of authorities, at least one.
///
/// # Errors
/// [`KeyError`] for anything else.
pub fn check_authorities(pem: &[u8]) -> Result<(), KeyError> {
    Authority::all_from_pem(pem).map(drop)
}

/// A certificate authority of that chain (PEM, the issuing certificate first): `certChain` and `validFor`.
///
/// # Errors
/// [`KeyError`] when there is no certificate, one that is no CA, or no time at which all are valid.
pub fn trusted_root_authority(chain: &[u8]) -> Result<Value, KeyError> {
    check_authorities(chain)?;
    trusted_root_timestamp_authority(chain)
}

/// A timestamp authority of that chain (PEM, the certificate that signs first): `certChain` and `validFor`.
///
/// # Errors
/// [`KeyError`] when there is no certificate, a broken one, or no time at which all are valid.
pub fn trusted_root_timestamp_authority(chain: &[u8]) -> Result<Value, KeyError> {
    let blocks = pem::blocks(chain).map_err(|error| KeyError::Pem { why: error.why() })?;
    let (mut certificates, mut window) = (Vec::new(), Validity { not_before: EARLIEST, not_after: LATEST });
    for (number, block) in (1..).zip(blocks) {
        let wrong = |why: String| KeyError::Certificate { number, why };
        if block.label != "CERTIFICATE" {
            return Err(wrong(format!("a {} stands where certificates are expected", block.label)));
        }
        if number > CHAIN_CERTIFICATES_MAX {
            return Err(wrong(format!("a chain has at most {CHAIN_CERTIFICATES_MAX} certificates")));
        }
        let certificate = Certificate::from_der(&block.der).map_err(|error| wrong(error.to_string()))?;
        let validity = Validity::of(&certificate);
        window.not_before = window.not_before.max(validity.not_before);
        window.not_after = window.not_after.min(validity.not_after);
        certificates.push(json!({"rawBytes": STANDARD.encode(&block.der)}));
    }
    if certificates.is_empty() {
        return Err(KeyError::NoCertificate);
    }
    if window.not_before > window.not_after {
        let why = "there is no time at which all certificates of the chain are valid".to_owned();
        return Err(KeyError::Refused { why });
    }
    let mut valid_for = json!({"start": window.not_before.to_string()});
    if let (true, Some(members)) = (window.not_after < LATEST, valid_for.as_object_mut()) {
        members.insert("end".to_owned(), json!(window.not_after.to_string()));
    }
    Ok(json!({"certChain": {"certificates": certificates}, "validFor": valid_for}))
}

/// A transparency log or certificate log of that key (PEM): `publicKey` and `logId`.
///
/// # Errors
/// [`KeyError`] when it is not exactly one key that signatures can be verified with.
pub fn trusted_root_log(key: &[u8]) -> Result<Value, KeyError> {
    let key = PublicKey::from_pem(key)?;
    let details = match key.kind() {
        KeyKind::EcdsaP256 => "PKIX_ECDSA_P256_SHA_256",
        KeyKind::EcdsaP384 => "PKIX_ECDSA_P384_SHA_384",
        KeyKind::Ed25519 => "PKIX_ED25519",
        KeyKind::Rsa => "PKIX_RSA_PKCS1V5",
    };
    let start = EARLIEST.to_string();
    Ok(json!({
        "publicKey": {"rawBytes": STANDARD.encode(key.spki()), "keyDetails": details, "validFor": {"start": start}},
        "logId": {"keyId": STANDARD.encode(key.fingerprint().as_bytes())},
    }))
}

const EARLIEST: Timestamp = Timestamp::from_unix_seconds(0);
/// What is valid until then is valid without end: 9999-12-30, which every reader of the format can represent.
const LATEST: Timestamp = Timestamp::from_unix_seconds(253_402_128_000);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sigstore::FakeKey;

    #[test]
    fn a_log_is_known_by_the_digest_of_its_key() {
        let key = FakeKey::p256(1, "log");
        let log = trusted_root_log(key.public_pem().as_bytes()).unwrap();
        assert_eq!(log["logId"]["keyId"], STANDARD.encode(key.public().fingerprint().as_bytes()));
        assert_eq!(log["publicKey"]["keyDetails"], "PKIX_ECDSA_P256_SHA_256");
        assert_eq!(log["publicKey"]["validFor"], json!({"start": "1970-01-01T00:00:00Z"}));
        assert_eq!(trusted_root_log(b"no key"), Err(KeyError::NoPem));
        let two = FakeKey::p256(2, "log").public_pem().repeat(2);
        assert_eq!(trusted_root_log(two.as_bytes()), Err(KeyError::SeveralKeys { found: 2 }));
    }

    #[test]
    fn a_chain_without_certificates_or_with_something_else_is_refused() {
        assert_eq!(trusted_root_authority(b""), Err(KeyError::NoCertificate));
        assert_eq!(trusted_root_timestamp_authority(b"x"), Err(KeyError::NoCertificate));
        let key = FakeKey::p256(1, "k").public_pem();
        assert!(matches!(
            trusted_root_timestamp_authority(key.as_bytes()),
            Err(KeyError::Certificate { number: 1, .. })
        ));
        let broken = pem::write("CERTIFICATE", b"no DER");
        assert!(matches!(trusted_root_authority(broken.as_bytes()), Err(KeyError::Certificate { number: 1, .. })));
    }
}
