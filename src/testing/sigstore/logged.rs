//! What logs and timestamp authority say about a bundle's envelope.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::bundle::{BundleBuilder, FakeBundle, Log, Signing};
use super::ca::Issued;
use super::entry::{self, Verifier};
use super::keys::FakeKey;
use super::log::Entry;
use super::statement::{Claim, Envelope};
use super::tree::Place;
use super::{FakeSigstore, Flaw};
use crate::oci::Digest;

impl FakeSigstore {
    /// The bundle with another entry of the same kind: as if its log had taken in these bytes, whatever they are.
    pub fn logged_anyhow(&self, bundle: &FakeBundle, body: &[u8]) -> FakeBundle {
        let mut bundle = bundle.clone();
        let entry = &mut bundle.json["verificationMaterial"]["tlogEntries"][0];
        let old = entry.clone();
        *entry = if old["inclusionPromise"].is_null() {
            self.rekor_v2.entry(body, Place::ALONE, &self.rekor_v2.key)
        } else {
            let at = old["integratedTime"].as_str().unwrap().parse().unwrap();
            let entry = self.rekor.promise(body.to_vec(), at);
            entry.in_bundle(&self.rekor.inclusion_proof(&entry, Place::ALONE, &self.rekor.key))
        };
        entry["kindVersion"] = old["kindVersion"].clone();
        bundle
    }
}

impl BundleBuilder<'_> {
    /// The envelope that the log took in with who checks it: this one, but for the flaws of foreign entries.
    fn logged<'s>(&self, envelope: &Envelope, signing: &Signing<'s>, other: &'s FakeKey) -> (Envelope, Verifier<'s>) {
        let other_payload = Claim { digest: Digest::sha256(b"another manifest"), ..self.claim.clone() };
        let other_payload = other_payload.statement(Flaw::None);
        let sign = |payload: &[u8], key| Envelope::sign(payload.to_vec(), key, Flaw::None);
        match self.flaw {
            Flaw::GarbageSignature | Flaw::EntryOfOtherPayload | Flaw::KeyUsedAfterCertificate => {
                (sign(&other_payload, signing.key), signing.verifier)
            }
            Flaw::SignatureOfOtherPayload => {
                (Envelope { payload: b"{}".to_vec(), ..envelope.clone() }, signing.verifier)
            }
            Flaw::EntryOfOtherSigner => (sign(&envelope.payload, other), Verifier::Key(other.spki())),
            Flaw::UnrelatedEntry => (sign(&other_payload, other), Verifier::Key(other.spki())),
            _ => (envelope.clone(), signing.verifier),
        }
    }

    pub(super) fn log_entries(&self, envelope: &Envelope, signing: &Signing<'_>) -> Vec<Value> {
        if self.log == Log::None || self.flaw == Flaw::NoLogEntry {
            return Vec::new();
        }
        let entry = |number| match self.log {
            Log::V2 => self.proved(envelope, signing, number),
            _ => self.entry_v1(envelope, signing, number),
        };
        let mut entries: Vec<Value> = (0..self.entries).map(entry).collect();
        if self.flaw == Flaw::SameEntryTwice {
            entries.extend(entries.last().cloned());
        }
        for entry in &mut entries {
            entry::edit(entry, self.flaw);
        }
        entries
    }

    fn entry_v1(&self, envelope: &Envelope, signing: &Signing<'_>, number: usize) -> Value {
        let sigstore = self.sigstore;
        let entry = self.promised(envelope, signing, number);
        let log = if self.flaw == Flaw::OtherLog { &sigstore.other_rekor } else { &sigstore.rekor };
        let signer = if self.flaw == Flaw::CheckpointByOtherLog { &sigstore.other_rekor.key } else { &log.key };
        entry.in_bundle(&log.inclusion_proof(&entry, self.place, signer))
    }

    /// Rekor v2's entry, in which the place in the tree is the index.
    fn proved(&self, envelope: &Envelope, signing: &Signing<'_>, number: usize) -> Value {
        let sigstore = self.sigstore;
        let other = sigstore.key("somebody else's");
        let (envelope, verifier) = self.logged(envelope, signing, &other);
        let body = match self.flaw {
            Flaw::OtherEntryKind => entry::dsse_v2(&envelope, verifier),
            _ => entry::hashedrekord_v2(&envelope.pae(), &envelope.signature, verifier),
        };
        let log = if self.flaw == Flaw::OtherLog { &sigstore.other_rekor_v2 } else { &sigstore.rekor_v2 };
        let signer = if self.flaw == Flaw::CheckpointByOtherLog { &sigstore.other_rekor_v2.key } else { &log.key };
        let index = self.place.index + number;
        log.entry(&body, Place { index, size: self.place.size.max(index + 1) }, signer)
    }

    /// Rekor v1's entry with its promise.
    pub(super) fn promised(&self, envelope: &Envelope, signing: &Signing<'_>, number: usize) -> Entry {
        let sigstore = self.sigstore;
        let other = sigstore.key("somebody else's");
        let (envelope, verifier) = self.logged(envelope, signing, &other);
        let mut body = match self.log {
            Log::V1Intoto => entry::intoto(&envelope, verifier),
            _ => entry::dsse(&envelope, verifier),
        };
        if self.flaw == Flaw::OtherEntryKind {
            body = String::from_utf8(body).unwrap().replacen("0.0.", "0.7.", 1).into_bytes();
        }
        let at = signing.at.unix_seconds();
        match self.flaw {
            Flaw::OtherLog => sigstore.other_rekor.promise_at(number, body, at),
            Flaw::SetByOtherLog => {
                let entry = sigstore.other_rekor.promise_at(number, body, at);
                Entry { log_id: sigstore.rekor.key.fingerprint().hex(), ..entry }
            }
            _ => sigstore.rekor.promise_at(number, body, at),
        }
    }

    pub(super) fn stamps(&self, message: &[u8], issued: Option<&Issued>) -> Vec<Value> {
        if self.flaw == Flaw::NoTimestamp {
            return Vec::new();
        }
        let now = self.sigstore.now;
        let (start, end) = match issued {
            Some(issued) => (issued.not_before, issued.not_after),
            None => (now.minus(Duration::from_hours(1)), now),
        };
        let at = match self.flaw {
            Flaw::TimestampAfterCertificate => end.plus(Duration::from_secs(1)),
            Flaw::TimestampBeforeCertificate => start.minus(Duration::from_secs(1)),
            _ => start.plus(Duration::from_mins(2)),
        };
        let stamp = || self.sigstore.tsa.stamp(message, at, self.flaw);
        (0..self.timestamps).map(|_| json!({"signedTimestamp": STANDARD.encode(stamp())})).collect()
    }
}
