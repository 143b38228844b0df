//! The bodies of log entries for envelopes, and what can be changed in an entry after the log took it in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::Flaw;
use super::statement::Envelope;
use crate::oci::Digest;
use crate::verify::pem;

/// Who can check a signature.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verifier<'a> {
    /// A certificate, DER.
    Certificate(&'a [u8]),
    /// A public key, DER.
    Key(&'a [u8]),
}

impl Verifier<'_> {
    pub(super) fn pem(self) -> String {
        match self {
            Self::Certificate(der) => pem::write("CERTIFICATE", der),
            Self::Key(der) => pem::write("PUBLIC KEY", der),
        }
    }

    fn in_rekor_v2(self) -> Value {
        let mut verifier = json!({"keyDetails": "PKIX_ECDSA_P256_SHA_256"});
        match self {
            Self::Certificate(der) => verifier["x509Certificate"] = json!({"rawBytes": STANDARD.encode(der)}),
            Self::Key(der) => verifier["publicKey"] = json!({"rawBytes": STANDARD.encode(der)}),
        }
        verifier
    }
}

/// Rekor v1's `dsse` 0.0.1.
pub(super) fn dsse(envelope: &Envelope, verifier: Verifier<'_>) -> Vec<u8> {
    let body = json!({
        "apiVersion": "0.0.1", "kind": "dsse", "spec": {
            "envelopeHash": sha256(envelope.json().to_string().as_bytes()),
            "payloadHash": sha256(&envelope.payload),
            "signatures": [{
                "signature": STANDARD.encode(&envelope.signature), "verifier": STANDARD.encode(verifier.pem()),
            }],
        },
    });
    body.to_string().into_bytes()
}

/// Rekor v1's `intoto` 0.0.2, in which signatures are encoded twice.
pub(super) fn intoto(envelope: &Envelope, verifier: Verifier<'_>) -> Vec<u8> {
    let body = json!({
        "apiVersion": "0.0.2", "kind": "intoto", "spec": {"content": {
            "envelope": {
                "payloadType": envelope.payload_type,
                "signatures": [{
                    "publicKey": STANDARD.encode(verifier.pem()),
                    "sig": STANDARD.encode(STANDARD.encode(&envelope.signature)),
                }],
            },
            "hash": sha256(envelope.json().to_string().as_bytes()),
            "payloadHash": sha256(&envelope.payload),
        }},
    });
    body.to_string().into_bytes()
}

/// Rekor v2's `hashedrekord` 0.0.2, over what DSSE signs.
pub(super) fn hashedrekord_v2(signed: &[u8], signature: &[u8], verifier: Verifier<'_>) -> Vec<u8> {
    let body = json!({
        "apiVersion": "0.0.2", "kind": "hashedrekord", "spec": {"hashedRekordV002": {
            "data": {"algorithm": "SHA2_256", "digest": STANDARD.encode(Digest::sha256(signed).as_bytes())},
            "signature": {"content": STANDARD.encode(signature), "verifier": verifier.in_rekor_v2()},
        }},
    });
    body.to_string().into_bytes()
}

/// Rekor v2's `dsse` 0.0.2, which no verifier at hand knows.
pub(super) fn dsse_v2(envelope: &Envelope, verifier: Verifier<'_>) -> Vec<u8> {
    let body = json!({
        "apiVersion": "0.0.2", "kind": "dsse", "spec": {"dsseV002": {
            "payloadHash": {
                "algorithm": "SHA2_256", "digest": STANDARD.encode(Digest::sha256(&envelope.payload).as_bytes()),
            },
            "signatures": [{"content": STANDARD.encode(&envelope.signature), "verifier": verifier.in_rekor_v2()}],
        }},
    });
    body.to_string().into_bytes()
}

/// Changes an entry after the log made it.
pub(super) fn edit(entry: &mut Value, flaw: Flaw) {
    match flaw {
        Flaw::IntegratedTimeEdited => raise(&mut entry["integratedTime"]),
        Flaw::LogIndexEdited => raise(&mut entry["logIndex"]),
        Flaw::SetCorrupt => flip(&mut entry["inclusionPromise"]["signedEntryTimestamp"]),
        Flaw::NoPromise => drop(entry.as_object_mut().unwrap().remove("inclusionPromise")),
        Flaw::NoProof => drop(entry.as_object_mut().unwrap().remove("inclusionProof")),
        _ => edit_proof(&mut entry["inclusionProof"], flaw),
    }
}

fn edit_proof(proof: &mut Value, flaw: Flaw) {
    match flaw {
        Flaw::RootHashEdited => flip(&mut proof["rootHash"]),
        Flaw::ProofHashEdited => flip(&mut proof["hashes"][0]),
        Flaw::TreeSizeEdited => raise(&mut proof["treeSize"]),
        Flaw::ProofIndexEdited => raise(&mut proof["logIndex"]),
        Flaw::NoCheckpoint => drop(proof.as_object_mut().unwrap().remove("checkpoint")),
        Flaw::CheckpointCorrupt | Flaw::CheckpointOriginEdited | Flaw::CheckpointRootEdited => {
            edit_checkpoint(&mut proof["checkpoint"]["envelope"], flaw);
        }
        _ => (),
    }
}

fn edit_checkpoint(checkpoint: &mut Value, flaw: Flaw) {
    let text = checkpoint.as_str().unwrap().to_owned();
    let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    match flaw {
        Flaw::CheckpointOriginEdited => "other.test".clone_into(&mut lines[0]),
        Flaw::CheckpointRootEdited => lines[2] = flipped(&lines[2]),
        _ => {
            let (name, signature) = lines[4].rsplit_once(' ').unwrap();
            lines[4] = format!("{name} {}", flipped(signature));
        }
    }
    *checkpoint = lines.join("\n").into();
}

/// A number in a text, plus one.
fn raise(number: &mut Value) {
    let raised = number.as_str().unwrap().parse::<u64>().unwrap() + 1;
    *number = raised.to_string().into();
}

/// The last bit of what is base64 in a text.
fn flip(text: &mut Value) {
    *text = flipped(text.as_str().unwrap()).into();
}

fn flipped(base64: &str) -> String {
    let mut bytes = STANDARD.decode(base64).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    STANDARD.encode(bytes)
}

fn sha256(bytes: &[u8]) -> Value {
    json!({"algorithm": "sha256", "value": Digest::sha256(bytes).hex()})
}
