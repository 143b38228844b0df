//! in-toto statements, and the DSSE envelopes that carry them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::Flaw;
use super::keys::FakeKey;
use super::sign::corrupt;
use crate::oci::Digest;

/// The predicate type of a plain signature.
pub(super) const COSIGN_SIGN: &str = "https://sigstore.dev/cosign/sign/v1";

/// What a statement says, and of how many things.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) digest: Digest,
    pub(super) predicate_type: String,
    pub(super) predicate: Value,
    /// How many subjects; the one that matters is the last.
    pub(super) subjects: usize,
    /// How many digests that one has.
    pub(super) digests: usize,
}

impl Claim {
    /// The statement's bytes, as cosign v3 writes them for signatures and for attestations.
    pub(super) fn statement(&self, flaw: Flaw) -> Vec<u8> {
        let other = Digest::sha256(b"another manifest");
        let stranger = |number: usize| json!({"digest": {"sha256": Digest::sha256(&number.to_be_bytes()).hex()}});
        let mut subjects: Vec<Value> = (1..self.subjects).map(stranger).collect();
        let mut subject = json!({"digest": {"sha256": self.digest.hex()}});
        for number in 1..self.digests {
            subject["digest"][format!("algorithm{number}")] = number.to_string().into();
        }
        match flaw {
            Flaw::OtherDigest => subject["digest"]["sha256"] = other.hex().into(),
            Flaw::SubjectUnderSha512 => subject["digest"] = json!({"sha512": self.digest.hex().repeat(2)}),
            Flaw::SubjectByNameOnly => {
                subject = json!({"name": self.digest.to_string(), "digest": {"sha256": other.hex()}});
            }
            _ => (),
        }
        if flaw != Flaw::NoSubject {
            subjects.push(subject);
        }
        let mut statement = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": subjects,
            "predicateType": self.predicate_type,
            "predicate": self.predicate,
        });
        match flaw {
            Flaw::OtherPredicateType => statement["predicateType"] = "https://other.example/predicate/v1".into(),
            Flaw::OtherStatementType => statement["_type"] = "https://other.example/Statement/v1".into(),
            _ => (),
        }
        let text = statement.to_string();
        match flaw {
            Flaw::StatementNotJson => b"this is no statement".to_vec(),
            Flaw::DuplicateKey => text.replacen('{', r#"{"predicateType":"https://other.example/v1","#, 1).into_bytes(),
            _ => text.into_bytes(),
        }
    }
}

/// A signed envelope.
#[derive(Debug, Clone)]
pub(super) struct Envelope {
    pub(super) payload_type: &'static str,
    pub(super) payload: Vec<u8>,
    pub(super) signature: Vec<u8>,
}

impl Envelope {
    /// Signs over the payload in DSSE's encoding.
    pub(super) fn sign(payload: Vec<u8>, key: &FakeKey, flaw: Flaw) -> Self {
        let payload_type = if flaw == Flaw::OtherPayloadType { "application/json" } else { IN_TOTO };
        let mut signature = match flaw {
            Flaw::SignatureOverBodyOnly => key.sign(&payload),
            Flaw::SignatureWithoutLengths => key.sign(&[b"DSSEv1 ", payload_type.as_bytes(), b" ", &payload].concat()),
            Flaw::SignatureOfOtherPayload => key.sign(&pae(payload_type, b"{}")),
            _ => key.sign(&pae(payload_type, &payload)),
        };
        if flaw == Flaw::CorruptSignature {
            corrupt(&mut signature);
        }
        Self { payload_type, payload, signature }
    }

    /// What is signed.
    pub(super) fn pae(&self) -> Vec<u8> {
        pae(self.payload_type, &self.payload)
    }

    /// As JSON, in the member order of sigstore's bundles.
    pub(super) fn json(&self) -> Value {
        json!({
            "payload": STANDARD.encode(&self.payload),
            "payloadType": self.payload_type,
            "signatures": [{"sig": STANDARD.encode(&self.signature)}],
        })
    }
}

/// Changes an envelope after it was signed.
pub(super) fn edit(envelope: &mut Value, flaw: Flaw) {
    match flaw {
        Flaw::PayloadTypeEdited => envelope["payloadType"] = "application/json".into(),
        Flaw::PayloadEdited => {
            let payload = STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap();
            let mut statement: Value = serde_json::from_slice(&payload).unwrap();
            statement["predicate"] = json!({"edited": true});
            envelope["payload"] = STANDARD.encode(statement.to_string()).into();
        }
        Flaw::NoSignature => envelope["signatures"] = json!([]),
        Flaw::TwoSignatures => {
            let signature = envelope["signatures"][0].clone();
            envelope["signatures"] = json!([signature, signature]);
        }
        Flaw::SecondSignatureBad => {
            let signature = envelope["signatures"][0].clone();
            envelope["signatures"] = json!([signature, {"sig": STANDARD.encode([0; 64])}]);
        }
        Flaw::MalformedBase64 => envelope["signatures"][0]["sig"] = "this is no base64".into(),
        _ => (),
    }
}

/// DSSE's pre-authentication encoding.
fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

const IN_TOTO: &str = "application/vnd.in-toto+json";
