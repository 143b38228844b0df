//! Trust material: certificate authorities, transparency logs, certificate logs and timestamp authorities.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sigstore_verify::trust_root::TrustedRoot;
use sigstore_verify::tsa::{self, verify_timestamp_for_authority};
use sigstore_verify::types::{SignatureBytes, TimestampToken};

use super::verifier::LogVerifier;
use crate::clock::Timestamp;
use crate::verify::certificate::Authority;
use crate::verify::error::{VerifyError, shown};
use crate::verify::key_error::KeyError;
use crate::verify::keys::PublicKey;

/// What a `trusted_root.json` holds, with the verifier made of it.
#[derive(Clone)]
pub(in crate::verify) struct TrustMaterial {
    verifier: Arc<LogVerifier>,
}

impl fmt::Debug for TrustMaterial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TrustMaterial").finish_non_exhaustive()
    }
}

impl TrustMaterial {
    /// Reads a `trusted_root.json`.
    pub(in crate::verify) fn from_json(document: &str) -> Result<Self, KeyError> {
        Self::of(TrustedRoot::from_json(document).map_err(|error| refused(&error.to_string()))?)
    }

    fn of(root: TrustedRoot) -> Result<Self, KeyError> {
        Ok(Self { verifier: Arc::new(LogVerifier::of(root)?) })
    }

    /// The same with these certificate authorities, each a trust anchor while its certificate is valid.
    pub(in crate::verify) fn with_authorities(&self, authorities: &[Authority]) -> Result<Self, KeyError> {
        let other = parsed(&trusted_root(authorities, &[]))?;
        let mut root = self.root().clone();
        root.certificate_authorities = other.certificate_authorities;
        Self::of(root)
    }

    /// The same with the transparency logs of another.
    pub(in crate::verify) fn with_logs_of(&self, other: &Self) -> Result<Self, KeyError> {
        let mut root = self.root().clone();
        root.tlogs.clone_from(&other.root().tlogs);
        Self::of(root)
    }

    /// The same with the timestamp authorities of another.
    pub(in crate::verify) fn with_timestamp_authorities_of(&self, other: &Self) -> Result<Self, KeyError> {
        let mut root = self.root().clone();
        root.timestamp_authorities.clone_from(&other.root().timestamp_authorities);
        Self::of(root)
    }

    /// The verifier made of it.
    pub(in crate::verify) fn verifier(&self) -> &LogVerifier {
        &self.verifier
    }

    fn root(&self) -> &TrustedRoot {
        self.verifier.root()
    }

    /// Whether it has any timestamp authority.
    pub(in crate::verify) fn has_timestamp_authorities(&self) -> bool {
        !self.root().timestamp_authorities.is_empty()
    }

    /// The time of an RFC 3161 timestamp over `message`, by one of the timestamp authorities within its window.
    pub(in crate::verify) fn timestamp(&self, token: &[u8], message: &[u8]) -> Result<Timestamp, VerifyError> {
        timestamp(self.root(), token, message)
    }

    /// The certificate authorities whose window contains `at`.
    pub(in crate::verify) fn authorities_at(&self, at: Timestamp) -> Vec<Authority> {
        authorities_at(self.root(), at)
    }
}

pub(super) fn timestamp(root: &TrustedRoot, token: &[u8], message: &[u8]) -> Result<Timestamp, VerifyError> {
    let (token, message) = (TimestampToken::from_bytes(token), SignatureBytes::from_bytes(message));
    let mut refusal = VerifyError::TimestampInvalid { why: "the policy has no timestamp authority".to_owned() };
    for authority in root.tsa_authorities() {
        match verify_timestamp_for_authority(&token, &message, &authority) {
            Ok(time) => return Ok(ours(time)),
            // Another entry may hold the same authority with a later window.
            Err(tsa::Error::TimestampOutsideValidity { time }) => {
                refusal = VerifyError::TimestampAuthorityTime { at: ours(time) };
            }
            Err(_) if matches!(refusal, VerifyError::TimestampAuthorityTime { .. }) => (),
            Err(error) => refusal = VerifyError::TimestampInvalid { why: shown(&error.to_string()) },
        }
    }
    Err(refusal)
}

pub(super) fn authorities_at(root: &TrustedRoot, at: Timestamp) -> Vec<Authority> {
    let Ok(at) = jiff::Timestamp::from_millisecond(at.unix_millis()) else { return Vec::new() };
    let windows = root.certificate_authorities.iter();
    windows
        .filter(|authority| authority.valid_for.is_none_or(|window| window.contains(at)))
        .flat_map(|authority| &authority.cert_chain.certificates)
        .filter_map(|certificate| Authority::from_der(certificate.raw_bytes.as_bytes().to_vec()).ok())
        .collect()
}

/// Their time as ours; less than a millisecond of it does not matter.
pub(super) fn ours(time: jiff::Timestamp) -> Timestamp {
    Timestamp::from_unix_millis(time.as_millisecond())
}

pub(super) fn refused(why: &str) -> KeyError {
    KeyError::Refused { why: shown(why) }
}

/// A root of exactly these. A log is known by the SHA-256 of its key; its window has no end, since a policy file states
/// none. An authority's window is its certificate's validity.
pub(super) fn root_of(authorities: &[Authority], logs: &[PublicKey]) -> Result<TrustedRoot, KeyError> {
    parsed(&trusted_root(authorities, logs))
}

fn parsed(root: &Value) -> Result<TrustedRoot, KeyError> {
    TrustedRoot::from_json(&root.to_string()).map_err(|error| refused(&error.to_string()))
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

    #[test]
    fn a_certificate_without_end_gives_a_window_without_end() {
        let authority = |not_after: &str| Authority {
            der: Vec::new(),
            validity: crate::verify::certificate::Validity {
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
