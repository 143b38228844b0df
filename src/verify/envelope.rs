//! DSSE envelopes: one payload, its type, and exactly one signature over both.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::error::{VerifyError, shown};
use crate::limits::SIGNATURE_BYTES_MAX;
use crate::oci::json;

/// The only payload type that is read.
pub(super) const IN_TOTO: &str = "application/vnd.in-toto+json";

/// An envelope. Nothing in it is trusted before its signature was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Envelope {
    pub(super) payload_type: String,
    pub(super) payload: Bytes,
    pub(super) signature: Vec<u8>,
}

impl Envelope {
    /// Reads an envelope's JSON.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, VerifyError> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if length > SIGNATURE_BYTES_MAX {
            return Err(VerifyError::PayloadTooLarge { bytes: length, max: SIGNATURE_BYTES_MAX });
        }
        let document = json::parse(bytes).map_err(|error| malformed(&error.to_string()))?;
        check_form(document.as_object().ok_or_else(|| malformed("no object"))?)?;
        let wire: Wire = json::shaped(document).map_err(|error| malformed(&error.to_string()))?;
        let decode = |text: &str, why| STANDARD.decode(text).map_err(|_| malformed(why));
        let [signature] = wire.signatures.as_slice() else {
            return Err(VerifyError::EnvelopeSignatures { found: wire.signatures.len() });
        };
        Ok(Self {
            payload: decode(&wire.payload, "the payload is not base64")?.into(),
            signature: decode(&signature.sig, "the signature is not base64")?,
            payload_type: wire.payload_type,
        })
    }

    /// What the signature is over (DSSE v1, pre-authentication encoding): type and payload, each with its length, so that
    /// neither can flow into the other.
    pub(super) fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = format!("DSSEv1 {} {} ", self.payload_type.len(), self.payload_type).into_bytes();
        bytes.extend_from_slice(format!("{} ", self.payload.len()).as_bytes());
        bytes.extend_from_slice(&self.payload);
        bytes
    }
}

/// Checks that no key of an envelope can be read in two ways, and that there is exactly one signature.
pub(super) fn check_form(envelope: &Map<String, Value>) -> Result<(), VerifyError> {
    let keys = ["payloadType", "payload", "signatures"];
    json::check_keys(envelope, &keys).map_err(|error| malformed(&error.to_string()))?;
    let signatures = envelope.get("signatures").and_then(Value::as_array);
    let found = signatures.ok_or_else(|| malformed("no list of signatures"))?.len();
    if found == 1 { Ok(()) } else { Err(VerifyError::EnvelopeSignatures { found }) }
}

fn malformed(why: &str) -> VerifyError {
    VerifyError::EnvelopeMalformed { why: shown(why) }
}

#[derive(Deserialize)]
struct Wire {
    #[serde(rename = "payloadType")]
    payload_type: String,
    payload: String,
    signatures: Vec<WireSignature>,
}

/// The key id is a hint that nobody signed; it decides nothing.
#[derive(Deserialize)]
struct WireSignature {
    sig: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn envelope(edit: impl FnOnce(&mut Value)) -> Result<Envelope, VerifyError> {
        let mut envelope =
            json!({"payloadType": "a/b", "payload": "aGVsbG8gd29ybGQ=", "signatures": [{"keyid": "", "sig": "AAAA"}]});
        edit(&mut envelope);
        Envelope::parse(envelope.to_string().as_bytes())
    }

    /// The test vector of the DSSE specification.
    #[test]
    fn type_and_payload_are_signed_with_their_lengths() {
        let envelope = envelope(|envelope| envelope["payloadType"] = "http://example.com/HelloWorld".into()).unwrap();
        assert_eq!(envelope.signed_bytes(), b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
        assert_eq!(envelope.signature, [0; 3]);
    }

    #[test]
    fn v_16_an_envelope_has_exactly_one_signature() {
        for found in [0, 2] {
            let error = envelope(|envelope| envelope["signatures"] = vec![json!({"sig": "AAAA"}); found].into());
            assert_eq!(error, Err(VerifyError::EnvelopeSignatures { found }));
        }
    }

    #[test]
    fn an_envelope_of_another_shape_is_malformed() {
        let edits: [fn(&mut Value); 7] = [
            |envelope| *envelope = json!([]),
            |envelope| envelope["payload"] = "!".into(),
            |envelope| envelope["payload"] = 1.into(),
            |envelope| envelope["signatures"] = "AAAA".into(),
            |envelope| envelope["signatures"][0]["sig"] = "!".into(),
            |envelope| envelope["PayloadType"] = "a/c".into(),
            |envelope| drop(envelope.as_object_mut().unwrap().remove("payloadType")),
        ];
        for (number, edit) in edits.into_iter().enumerate() {
            let error = envelope(edit).unwrap_err();
            assert!(matches!(error, VerifyError::EnvelopeMalformed { .. }), "{number}: {error:?}");
        }
        let doubled = br#"{"payloadType": "a", "payloadType": "b", "payload": "", "signatures": [{"sig": ""}]}"#;
        assert!(matches!(Envelope::parse(doubled), Err(VerifyError::EnvelopeMalformed { .. })));
        let mut long = vec![b' '; usize::try_from(SIGNATURE_BYTES_MAX).unwrap() + 1];
        assert!(matches!(Envelope::parse(&long), Err(VerifyError::PayloadTooLarge { .. })));
        long.pop();
        assert!(matches!(Envelope::parse(&long), Err(VerifyError::EnvelopeMalformed { .. })));
    }
}
