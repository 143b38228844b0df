//! cosign's legacy format: the annotations beside a simple-signing payload, as typed and bounded parts.
//!
//! `verify/sigstore` makes a v0.1 bundle of them, so that one verifier checks every format.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::certificate::{self, Leaf};
use super::error::{VerifyError, shown};
use super::pem;
use crate::clock::Timestamp;
use crate::limits::{ANNOTATION_BYTES_MAX, CHAIN_CERTIFICATES_MAX};
use crate::oci::json;

/// The signature over the payload, base64.
pub(super) const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// The leaf certificate, PEM.
pub(super) const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
/// The certificates above the leaf, PEM.
pub(super) const CHAIN: &str = "dev.sigstore.cosign/chain";
/// The log entry with its SET, JSON.
pub(super) const BUNDLE: &str = "dev.sigstore.cosign/bundle";
/// A timestamp by RFC 3161.
pub(super) const TIMESTAMP: &str = "dev.sigstore.cosign/rfc3161timestamp";

/// The annotations of one signature layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Annotations<'a>(pub(super) &'a BTreeMap<String, String>);

impl<'a> Annotations<'a> {
    /// The signature's bytes.
    pub(super) fn signature(self) -> Result<Vec<u8>, VerifyError> {
        decode(self.required(SIGNATURE)?).ok_or(VerifyError::Base64 { annotation: SIGNATURE })
    }

    /// The leaf certificate.
    pub(super) fn leaf(self) -> Result<Leaf, VerifyError> {
        Leaf::from_pem(self.required(CERTIFICATE)?)
    }

    /// The certificates above the leaf that may have issued others, none when there is no such annotation.
    pub(super) fn chain(self) -> Result<Vec<Vec<u8>>, VerifyError> {
        let Some(pem) = self.optional(CHAIN)? else { return Ok(Vec::new()) };
        let chain = certificate::certificates(pem)?;
        let certificates = chain.len().saturating_add(1);
        if certificates > CHAIN_CERTIFICATES_MAX {
            return Err(VerifyError::ChainTooLong { certificates, max: CHAIN_CERTIFICATES_MAX });
        }
        Ok(certificate::issuers(chain))
    }

    /// The log entry of a signature over a payload.
    pub(super) fn log_entry(self) -> Result<LoggedEntry, VerifyError> {
        let entry = LoggedEntry::parse(self.required(BUNDLE)?)?;
        entry.claims()?;
        Ok(entry)
    }

    /// The log entry of a signature over an envelope.
    pub(super) fn envelope_entry(self) -> Result<LoggedEntry, VerifyError> {
        let entry = LoggedEntry::parse(self.required(BUNDLE)?)?;
        match entry.kind {
            EntryKind::Dsse | EntryKind::Intoto => Ok(entry),
            EntryKind::HashedRekord(_) => Err(kind_error("hashedrekord", "0.0.1")),
        }
    }

    /// The RFC 3161 timestamp (DER), none when there is no such annotation.
    pub(super) fn timestamp(self) -> Result<Option<Vec<u8>>, VerifyError> {
        let Some(value) = self.optional(TIMESTAMP)? else { return Ok(None) };
        let invalid = |why: &str| VerifyError::TimestampInvalid { why: shown(why) };
        let value: TimestampAnnotation =
            json::parse_as(value.as_bytes()).map_err(|error| invalid(&error.to_string()))?;
        decode(&value.token).map(Some).ok_or_else(|| invalid("the annotation is not base64"))
    }

    /// Whether an annotation of that name is there.
    pub(super) fn has(self, name: &'static str) -> bool {
        self.0.contains_key(name)
    }

    fn required(self, name: &'static str) -> Result<&'a str, VerifyError> {
        self.optional(name)?.ok_or(VerifyError::MissingAnnotation { annotation: name })
    }

    fn optional(self, name: &'static str) -> Result<Option<&'a str>, VerifyError> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        let bytes = u64::try_from(value.len()).unwrap_or(u64::MAX);
        if bytes > ANNOTATION_BYTES_MAX {
            return Err(VerifyError::AnnotationTooLarge { annotation: name, bytes, max: ANNOTATION_BYTES_MAX });
        }
        Ok(Some(value))
    }
}

/// A transparency log entry as it came, with the promise of the log (SET) that it is or will be in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LoggedEntry {
    /// The log's signature over the four fields below.
    pub(super) set: Vec<u8>,
    /// The entry itself, the bytes that the log hashed.
    pub(super) body: Vec<u8>,
    /// When the log took it in, seconds since 1970.
    pub(super) integrated_seconds: i64,
    /// Its place in the log.
    pub(super) index: u64,
    /// SHA-256 of the log's key.
    pub(super) log_id: Vec<u8>,
    /// What the body is, and for signatures over payloads what it says it is about.
    pub(super) kind: EntryKind,
}

/// The kinds of log entries that legacy signatures have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EntryKind {
    /// `hashedrekord` 0.0.1: of a signature over a payload.
    HashedRekord(Claims),
    /// `dsse` 0.0.1: of an envelope.
    Dsse,
    /// `intoto` 0.0.2: of an envelope.
    Intoto,
}

impl LoggedEntry {
    fn parse(annotation: &str) -> Result<Self, VerifyError> {
        let bundle: BundleAnnotation =
            json::parse_as(annotation.as_bytes()).map_err(|error| malformed(error.to_string()))?;
        let payload = bundle.payload;
        let body = decode(&payload.body).ok_or_else(|| malformed("the body is not base64"))?;
        Ok(Self {
            set: decode(&bundle.signed_entry_timestamp).ok_or_else(|| malformed("the SET is not base64"))?,
            kind: EntryKind::parse(&body)?,
            body,
            integrated_seconds: payload.integrated_time,
            index: payload.log_index,
            log_id: hex::decode(payload.log_id).map_err(|_| malformed("the log id is not hexadecimal"))?,
        })
    }

    /// When the log took it in.
    pub(super) fn integrated(&self) -> Timestamp {
        Timestamp::from_unix_seconds(self.integrated_seconds)
    }

    /// The public key that the entry names, if it names a key.
    pub(super) fn names_key(&self, spki: &[u8]) -> bool {
        self.claims().is_ok_and(|claims| claims.verifier.label == "PUBLIC KEY" && claims.verifier.der == spki)
    }

    fn claims(&self) -> Result<&Claims, VerifyError> {
        match &self.kind {
            EntryKind::HashedRekord(claims) => Ok(claims),
            EntryKind::Dsse => Err(kind_error("dsse", "0.0.1")),
            EntryKind::Intoto => Err(kind_error("intoto", "0.0.2")),
        }
    }

    /// Whether the entry is about this signature over this payload by this certificate.
    ///
    /// The library compares the same three; here it is done so that each has its own reason.
    pub(super) fn check_certificate(&self, leaf: &Leaf) -> Result<(), VerifyError> {
        let verifier = &self.claims()?.verifier;
        if verifier.label != "CERTIFICATE" || verifier.der != leaf.der {
            return Err(VerifyError::LogOtherCertificate);
        }
        Ok(())
    }

    /// Whether the entry is about this signature over a payload with this SHA-256.
    pub(super) fn check_signature(&self, signature: &[u8], payload_sha256: &[u8]) -> Result<(), VerifyError> {
        let claims = self.claims()?;
        if claims.signature != signature {
            return Err(VerifyError::LogOtherSignature);
        }
        if claims.payload_sha256 != payload_sha256 {
            return Err(VerifyError::LogOtherPayload);
        }
        Ok(())
    }
}

/// What the body of a `hashedrekord` entry is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claims {
    payload_sha256: Vec<u8>,
    signature: Vec<u8>,
    verifier: pem::Block,
}

impl EntryKind {
    fn parse(body: &[u8]) -> Result<Self, VerifyError> {
        let document = json::parse(body).map_err(|error| malformed(format!("body: {error}")))?;
        let Kind { kind, version } = shaped(document.clone())?;
        match (kind.as_str(), version.as_str()) {
            ("hashedrekord", "0.0.1") => Ok(Self::HashedRekord(Claims::of(document)?)),
            ("dsse", "0.0.1") => Ok(Self::Dsse),
            ("intoto", "0.0.2") => Ok(Self::Intoto),
            ("intoto", "0.0.1") => Err(VerifyError::LogIntoto001),
            (kind, version) => Err(kind_error(kind, version)),
        }
    }
}

fn kind_error(kind: &str, version: &str) -> VerifyError {
    VerifyError::LogEntryKind { kind: shown(kind), version: shown(version) }
}

impl Claims {
    fn of(document: serde_json::Value) -> Result<Self, VerifyError> {
        let Body { spec } = shaped(document)?;
        if spec.data.hash.algorithm != "sha256" {
            return Err(malformed("body: the hash is not sha256"));
        }
        let public_key = decode(&spec.signature.public_key.content);
        let public_key = public_key.ok_or_else(|| malformed("body: the public key is not base64"))?;
        let mut blocks = pem::blocks(&public_key).map_err(|error| malformed(format!("body: {}", error.why())))?;
        let (Some(verifier), None) = (blocks.pop(), blocks.pop()) else {
            return Err(malformed("body: not exactly one public key or certificate"));
        };
        Ok(Self {
            payload_sha256: hex::decode(&spec.data.hash.value).map_err(|_| malformed("body: the hash is not hex"))?,
            signature: decode(&spec.signature.content).ok_or_else(|| malformed("body: the signature is not base64"))?,
            verifier,
        })
    }
}

fn shaped<T: serde::de::DeserializeOwned>(document: serde_json::Value) -> Result<T, VerifyError> {
    json::shaped(document).map_err(|error| malformed(format!("body: {error}")))
}

fn malformed(why: impl AsRef<str>) -> VerifyError {
    VerifyError::LogMalformed { why: shown(why.as_ref()) }
}

/// Standard base64; line breaks in it mean nothing, as Go's decoder has it and `openssl base64` writes it.
fn decode(text: &str) -> Option<Vec<u8>> {
    if text.contains(['\r', '\n']) {
        return STANDARD.decode(text.replace(['\r', '\n'], "")).ok();
    }
    STANDARD.decode(text).ok()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct BundleAnnotation {
    signed_entry_timestamp: String,
    payload: BundlePayload,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BundlePayload {
    body: String,
    #[serde(rename = "integratedTime")]
    integrated_time: i64,
    #[serde(rename = "logIndex")]
    log_index: u64,
    #[serde(rename = "logID")]
    log_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TimestampAnnotation {
    #[serde(rename = "SignedRFC3161Timestamp")]
    token: String,
}

#[derive(Deserialize)]
struct Kind {
    kind: String,
    #[serde(rename = "apiVersion")]
    version: String,
}

/// Read loosely: whatever else a log adds to its entries is signed by it and decides nothing.
#[derive(Deserialize)]
struct Body {
    spec: Spec,
}

#[derive(Deserialize)]
struct Spec {
    data: SpecData,
    signature: SpecSignature,
}

#[derive(Deserialize)]
struct SpecData {
    hash: SpecHash,
}

#[derive(Deserialize)]
struct SpecHash {
    algorithm: String,
    value: String,
}

#[derive(Deserialize)]
struct SpecSignature {
    content: String,
    #[serde(rename = "publicKey")]
    public_key: SpecPublicKey,
}

#[derive(Deserialize)]
struct SpecPublicKey {
    content: String,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn annotation(edit: impl FnOnce(&mut Value, &mut Value)) -> Result<LoggedEntry, VerifyError> {
        let mut body = json!({
            "apiVersion": "0.0.1", "kind": "hashedrekord", "spec": {
                "data": {"hash": {"algorithm": "sha256", "value": "00ff"}},
                "signature": {
                    "content": "AAAA", "publicKey": {"content": STANDARD.encode(pem::write("PUBLIC KEY", b"key"))},
                },
            },
        });
        let mut bundle = json!({
            "SignedEntryTimestamp": "c2V0",
            "Payload": {"body": "", "integratedTime": 5, "logIndex": 7, "logID": "00ff"},
        });
        edit(&mut bundle, &mut body);
        if bundle.pointer("/Payload/body").is_some_and(|body| body == "") {
            bundle["Payload"]["body"] = STANDARD.encode(body.to_string()).into();
        }
        LoggedEntry::parse(&bundle.to_string())
    }

    #[test]
    fn an_entry_is_read_with_what_it_claims() {
        let entry = annotation(|_, _| ()).unwrap();
        assert_eq!((entry.integrated_seconds, entry.index, entry.log_id.as_slice()), (5, 7, [0, 0xff].as_slice()));
        assert_eq!(entry.set, b"set");
        assert!(entry.names_key(b"key") && !entry.names_key(b"other"));
        assert_eq!(entry.check_signature(&[0; 3], &[0, 0xff]), Ok(()));
        assert_eq!(entry.check_signature(&[1; 3], &[0, 0xff]), Err(VerifyError::LogOtherSignature));
        assert_eq!(entry.check_signature(&[0; 3], &[0, 0xfe]), Err(VerifyError::LogOtherPayload));
        // What the log adds to its entries is its own affair.
        assert!(annotation(|_, body| body["spec"]["extra"] = json!(1)).is_ok());
    }

    #[test]
    fn an_annotation_of_another_shape_is_malformed() {
        let edits: [fn(&mut Value, &mut Value); 14] = [
            |bundle, _| *bundle = json!([]),
            |bundle, _| bundle["extra"] = json!(1),
            |bundle, _| bundle["Payload"]["extra"] = json!(1),
            |bundle, _| bundle["Payload"]["logID"] = json!("xy"),
            |bundle, _| bundle["Payload"]["logIndex"] = json!(-1),
            |bundle, _| bundle["Payload"]["integratedTime"] = json!(5.0),
            |bundle, _| bundle["Payload"]["integratedTime"] = json!("5"),
            |bundle, _| bundle["Payload"]["body"] = json!("!"),
            |bundle, _| bundle["Payload"]["body"] = json!("e30="),
            |bundle, _| bundle["SignedEntryTimestamp"] = json!("!"),
            |_, body| body["spec"]["data"]["hash"]["algorithm"] = json!("sha512"),
            |_, body| body["spec"]["data"]["hash"]["value"] = json!("0"),
            |_, body| body["spec"]["signature"]["content"] = json!("!"),
            |_, body| body["spec"]["signature"]["publicKey"]["content"] = json!("AAAA"),
        ];
        for (number, edit) in edits.into_iter().enumerate() {
            let error = annotation(edit).unwrap_err();
            assert!(matches!(error, VerifyError::LogMalformed { .. }), "{number}: {error:?}");
        }
    }

    #[test]
    fn an_entry_of_another_kind_or_version_is_named() {
        for (key, value) in [("kind", "rekord"), ("apiVersion", "0.0.2")] {
            let error = annotation(|_, body| body[key] = json!(value)).unwrap_err();
            assert!(matches!(error, VerifyError::LogEntryKind { .. }), "{error:?}");
        }
        let old = annotation(|_, body| body["kind"] = json!("intoto"));
        assert_eq!(old.unwrap_err(), VerifyError::LogIntoto001);
        let of_envelope = annotation(|_, body| body["kind"] = json!("dsse")).unwrap();
        assert!(matches!(of_envelope.claims(), Err(VerifyError::LogEntryKind { .. })));
    }

    #[test]
    fn base64_may_be_broken_into_lines_and_is_strict_otherwise() {
        assert_eq!(decode("QUJD\r\nREVG\n").as_deref(), Some(b"ABCDEF".as_slice()));
        for bad in ["QUJ", "QU JD", "QUI", "QUJ=", "=", "Q-_D"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
