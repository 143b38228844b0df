//! Transparency logs: a Rekor v1, which promises (SET) and proves, and a Rekor v2, which proves only.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::keys::FakeKey;
use super::tree::{Notary, Place, inclusion_proof};
use crate::clock::Timestamp;
use crate::oci::Digest;

/// A Rekor v1.
#[derive(Debug)]
pub(super) struct FakeRekor {
    pub(super) key: FakeKey,
}

/// What a Rekor v1 says about a signature.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) body: Vec<u8>,
    pub(super) integrated: i64,
    pub(super) index: u64,
    pub(super) log_id: String,
    pub(super) set: Vec<u8>,
}

impl FakeRekor {
    /// Takes a signature in. `verifier` is the PEM of the key or certificate.
    pub(super) fn log(&self, payload: &[u8], signature: &[u8], verifier: &str, integrated: Timestamp) -> Entry {
        let body = json!({
            "apiVersion": "0.0.1", "kind": "hashedrekord", "spec": {
                "data": {"hash": {"algorithm": "sha256", "value": Digest::sha256(payload).hex()}},
                "signature": {
                    "content": STANDARD.encode(signature),
                    "publicKey": {"content": STANDARD.encode(verifier)},
                },
            },
        });
        self.promise(body.to_string().into_bytes(), integrated.unix_seconds())
    }

    /// Signs the promise over the canonical JSON of the four fields.
    pub(super) fn promise(&self, body: Vec<u8>, integrated: i64) -> Entry {
        self.promise_at(0, body, integrated)
    }

    /// As [`Self::promise`]; an entry that is taken in again gets another index.
    pub(super) fn promise_at(&self, number: usize, body: Vec<u8>, integrated: i64) -> Entry {
        let index = u64::from(u32::from_be_bytes(*Digest::sha256(&body).as_bytes().first_chunk().unwrap()));
        let index = index + u64::try_from(number).unwrap();
        let mut entry = Entry { body, integrated, index, log_id: self.key.fingerprint().hex(), set: Vec::new() };
        entry.set = self.key.sign(entry.canonical().as_bytes());
        entry
    }

    /// The proof that the entry is in a tree, with a checkpoint that `signer` signs in this log's name.
    pub(super) fn inclusion_proof(&self, entry: &Entry, place: Place, signer: &FakeKey) -> Value {
        let log_id = self.key.fingerprint();
        inclusion_proof(&entry.body, place, Notary { origin: ORIGIN, log_id: log_id.as_bytes(), key: signer })
    }
}

impl Entry {
    /// What the promise signs: keys in order, no spaces.
    fn canonical(&self) -> String {
        format!(
            r#"{{"body":"{}","integratedTime":{},"logID":"{}","logIndex":{}}}"#,
            STANDARD.encode(&self.body),
            self.integrated,
            self.log_id,
            self.index
        )
    }

    /// The value of cosign's annotation.
    pub(super) fn annotation(&self) -> String {
        let payload: Value = serde_json::from_str(&self.canonical()).unwrap();
        json!({"SignedEntryTimestamp": STANDARD.encode(&self.set), "Payload": payload}).to_string()
    }

    /// As it stands in a bundle.
    pub(super) fn in_bundle(&self, proof: &Value) -> Value {
        json!({
            "logIndex": self.index.to_string(),
            "logId": {"keyId": STANDARD.encode(hex::decode(&self.log_id).unwrap())},
            "kindVersion": kind_version(&self.body),
            "integratedTime": self.integrated.to_string(),
            "inclusionPromise": {"signedEntryTimestamp": STANDARD.encode(&self.set)},
            "inclusionProof": proof,
            "canonicalizedBody": STANDARD.encode(&self.body),
        })
    }
}

/// A Rekor v2: no promise and no time, entries of one kind, an Ed25519 key whose id is that of signed notes.
#[derive(Debug)]
pub(super) struct FakeRekorV2 {
    pub(super) key: FakeKey,
}

impl FakeRekorV2 {
    /// As it stands in a bundle; the checkpoint is signed by `signer` in this log's name.
    pub(super) fn entry(&self, body: &[u8], place: Place, signer: &FakeKey) -> Value {
        let log_id = self.log_id();
        let notary = Notary { origin: ORIGIN_V2, log_id: log_id.as_bytes(), key: signer };
        json!({
            "logIndex": place.index.to_string(),
            "logId": {"keyId": STANDARD.encode(log_id.as_bytes())},
            "kindVersion": kind_version(body),
            "integratedTime": "0",
            "inclusionProof": inclusion_proof(body, place, notary),
            "canonicalizedBody": STANDARD.encode(body),
        })
    }

    /// The id of a signed note's key (C2SP signed-note): hash of name, type and key.
    pub(super) fn log_id(&self) -> Digest {
        let raw = self.key.spki().last_chunk::<32>().unwrap();
        Digest::sha256(&[ORIGIN_V2.as_bytes(), b"\n\x01", raw].concat())
    }
}

/// Kind and version stand in the body of an entry, if it is one.
fn kind_version(body: &[u8]) -> Value {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    json!({"kind": body["kind"], "version": body["apiVersion"]})
}

const ORIGIN: &str = "rekor.test - 1193050959916656506";
const ORIGIN_V2: &str = "log2026-1.rekor.test";
