//! Which key made a signature that a policy does not accept.
//!
//! For reports alone, so that "wrong key" can be told from "no good signature at all". It authorises nobody: what is asked here
//! is one equation, without log, certificate or time.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::authority::KeyHash;
use super::error::VerifyError;
use super::evidence::Evidence;
use super::keys::PublicKey;
use super::{SignatureMaterial, candidate, pem};
use crate::limits::NAMED_KEYS_MAX;
use crate::oci::{Digest, json};

/// Which of `keys` made this signature or attestation about `subject`, if any did.
pub fn made_by<'k>(material: &SignatureMaterial, subject: &Digest, keys: &'k [PublicKey]) -> Option<&'k PublicKey> {
    examine(material, subject, |evidence| evidence.signed_by(keys, KeyHash::Sha256).ok().map(|(key, _)| key))
}

/// The key that made this signature or attestation about `subject`, where its log entry names it. Nobody else says whose
/// key it is.
pub fn named_key(material: &SignatureMaterial, subject: &Digest) -> Option<PublicKey> {
    examine(material, subject, |evidence| {
        let bodies = evidence.log_bodies().into_iter();
        let named: Vec<PublicKey> = bodies.flat_map(|body| keys_in(&body)).take(NAMED_KEYS_MAX).collect();
        evidence.signed_by(&named, KeyHash::Sha256).ok().map(|(key, _)| key.clone())
    })
}

/// Looks at a candidate after the checks of form and subject that go before every question about its signer.
fn examine<T>(material: &SignatureMaterial, subject: &Digest, look: impl Fn(&Evidence<'_>) -> Option<T>) -> Option<T> {
    let mut found = None;
    let mut prove = |evidence: &Evidence<'_>| {
        found = look(evidence);
        // Whatever was found is no proof.
        Err(VerifyError::Signature)
    };
    let refused = candidate::signature(material, subject, &mut prove).err();
    if let Some(VerifyError::OtherKind { .. } | VerifyError::NotASignature { .. }) = refused {
        let _is_refused = candidate::attestation(material, subject, &mut prove);
    }
    found
}

/// Every public key that stands in the body of a log entry, of whatever kind and version the entry is.
fn keys_in(body: &[u8]) -> Vec<PublicKey> {
    let mut keys = Vec::new();
    if let Ok(document) = json::parse(body) {
        collect(&document, &mut keys);
    }
    keys
}

fn collect(value: &Value, keys: &mut Vec<PublicKey>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, keys)),
        Value::Object(fields) => fields.values().for_each(|field| collect(field, keys)),
        Value::String(text) if keys.len() < NAMED_KEYS_MAX => keys.extend(key_of(text)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A text as a key: base64 of PEM (Rekor v1), or of DER (Rekor v2).
fn key_of(text: &str) -> Option<PublicKey> {
    let bytes = STANDARD.decode(text).ok()?;
    if !bytes.starts_with(b"-----") {
        return PublicKey::from_spki(&bytes).ok();
    }
    match pem::blocks(&bytes).ok()?.as_slice() {
        [block] if block.label == "PUBLIC KEY" => PublicKey::from_spki(&block.der).ok(),
        _ => None,
    }
}
