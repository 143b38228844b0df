//! A Rekor v1: entries with the log's promise (SET), and the proof that an entry is in a tree of one leaf.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::keys::FakeKey;
use crate::clock::Timestamp;
use crate::oci::Digest;

/// A transparency log.
#[derive(Debug)]
pub(super) struct FakeRekor {
    pub(super) key: FakeKey,
}

/// What a log says about a signature.
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
        let index = u64::from(u32::from_be_bytes(*Digest::sha256(&body).as_bytes().first_chunk().unwrap()));
        let mut entry = Entry { body, integrated, index, log_id: self.key.fingerprint().hex(), set: Vec::new() };
        entry.set = self.key.sign(entry.canonical().as_bytes());
        entry
    }

    /// The proof of a tree that holds this entry alone (RFC 6962, 2.1), with a signed checkpoint.
    pub(super) fn inclusion_proof(&self, entry: &Entry) -> Value {
        let mut leaf = vec![0];
        leaf.extend(&entry.body);
        let root = Digest::sha256(&leaf);
        let note = format!("{ORIGIN}\n1\n{}\n", STANDARD.encode(root.as_bytes()));
        let mut signature = self.key.fingerprint().as_bytes().first_chunk::<4>().unwrap().to_vec();
        signature.extend(self.key.sign(note.as_bytes()));
        let envelope = format!("{note}\n\u{2014} {ORIGIN} {}\n", STANDARD.encode(signature));
        json!({
            "logIndex": "0", "rootHash": STANDARD.encode(root.as_bytes()), "treeSize": "1", "hashes": [],
            "checkpoint": {"envelope": envelope},
        })
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
            "kindVersion": {"kind": "hashedrekord", "version": "0.0.1"},
            "integratedTime": self.integrated.to_string(),
            "inclusionPromise": {"signedEntryTimestamp": STANDARD.encode(&self.set)},
            "inclusionProof": proof,
            "canonicalizedBody": STANDARD.encode(&self.body),
        })
    }
}

const ORIGIN: &str = "rekor.test";
