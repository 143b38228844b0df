//! Which log vouches for an entry, and whether its key was in use then.
//!
//! The library checks a log key's window where the log promised a time. An inclusion proof names no time, so there it takes
//! the key of any trusted log whose window has begun; here the log that the entry names must have signed the checkpoint,
//! with a key whose window contains every time that is known of the signature (CVE-2026-54787).

use std::collections::BTreeSet;

use sigstore_verify::crypto::VerificationKey;
use sigstore_verify::trust_root::{TransparencyLog, TrustedRoot};
use sigstore_verify::types::{Checkpoint, InclusionProof, TransparencyLogEntry};

use super::bundle::{SigstoreBundle, promised};
use crate::clock::Timestamp;
use crate::limits::CHECKPOINT_SIGNATURES_MAX;
use crate::verify::error::{VerifyError, shown};

/// Checks before any cryptography that each entry is there once, has a proof where one is needed, and names a log that is
/// trusted and, where it promises a time, was in use then.
pub(super) fn check_entries(root: &TrustedRoot, bundle: &SigstoreBundle, now: Timestamp) -> Result<(), VerifyError> {
    if bundle.entries().is_empty() {
        return Err(VerifyError::LogEntryMissing);
    }
    let mut seen = BTreeSet::new();
    for entry in bundle.entries() {
        match entry.inclusion_proof.as_ref().map(|proof| (proof, proof.checkpoint.checkpoint())) {
            Some((proof, Some(checkpoint))) => check_tree(proof, checkpoint)?,
            _ if bundle.proofs => return Err(VerifyError::LogProofMissing),
            _ => (),
        }
        let id = entry.log_id.key_id.as_bytes();
        let log = log(root, entry).ok_or_else(|| VerifyError::LogUnknown { log_id: shown(&hex::encode(id)) })?;
        // One log under two ids has one key, and promises nothing twice (CVE-2026-49834).
        if !seen.insert((log.public_key.raw_bytes.as_bytes(), entry.log_index.get())) {
            return Err(VerifyError::LogEntryTwice { index: entry.log_index.get() });
        }
        if let Some(integrated) = promised(entry) {
            if integrated > now {
                return Err(VerifyError::LoggedInFuture { integrated, now });
            }
            if !in_use(log, integrated) {
                return Err(VerifyError::LogKeyTime { at: integrated });
            }
        }
    }
    Ok(())
}

/// Checks that the checkpoint of each entry is signed by the log that it names, in use at the entry's time; `times` are
/// those that were verified, for entries without a time of their own.
pub(super) fn check_checkpoints(
    root: &TrustedRoot,
    bundle: &SigstoreBundle,
    times: &[Timestamp],
) -> Result<(), VerifyError> {
    for entry in bundle.entries() {
        let Some(checkpoint) = entry.inclusion_proof.as_ref().and_then(|proof| proof.checkpoint.checkpoint()) else {
            continue;
        };
        let log = log(root, entry).filter(|log| signed(log, checkpoint)).ok_or_else(|| VerifyError::LogCheckpoint {
            why: "it is not signed by the log that the entry names".to_owned(),
        })?;
        let own = promised(entry);
        let mut times = own.iter().chain(times.iter().filter(|_| own.is_none()));
        if let Some(at) = times.find(|at| !in_use(log, **at)) {
            return Err(VerifyError::LogKeyTime { at: *at });
        }
    }
    Ok(())
}

/// The checkpoint is one that can be checked in bounded time, of the tree of the proof.
///
/// Size and root stand in the proof and in the signed checkpoint. The library does not compare the sizes, and for a Rekor v2
/// neither; paths of trees of different sizes can be the same.
fn check_tree(proof: &InclusionProof, checkpoint: &Checkpoint) -> Result<(), VerifyError> {
    let (found, max) = (checkpoint.signatures().len(), CHECKPOINT_SIGNATURES_MAX);
    if found > max {
        return Err(VerifyError::TooMany { what: "signatures under one checkpoint", found, max });
    }
    if proof.tree_size == checkpoint.tree_size() && proof.root_hash == *checkpoint.root_hash() {
        return Ok(());
    }
    Err(VerifyError::LogCheckpoint { why: "it is one of another tree than the inclusion proof".to_owned() })
}

fn log<'a>(root: &'a TrustedRoot, entry: &TransparencyLogEntry) -> Option<&'a TransparencyLog> {
    root.tlogs.iter().find(|log| log.log_id == entry.log_id)
}

fn in_use(log: &TransparencyLog, at: Timestamp) -> bool {
    let Ok(at) = jiff::Timestamp::from_millisecond(at.unix_millis()) else { return false };
    log.public_key.valid_for.is_none_or(|window| window.contains(at))
}

fn signed(log: &TransparencyLog, checkpoint: &Checkpoint) -> bool {
    let Ok(key) = VerificationKey::from_spki(&log.public_key.raw_bytes) else { return false };
    let hint = log.log_id.key_id.as_bytes();
    let signatures = checkpoint.signatures().iter();
    let mut ours = signatures.filter(|signature| hint.starts_with(signature.key_id.as_slice()));
    ours.any(|signature| key.verify(checkpoint.signed_data(), &signature.signature).is_ok())
}
