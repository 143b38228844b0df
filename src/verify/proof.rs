//! Who signed a candidate, and what logs and timestamp authorities say about it.

use super::authority::{KeyHash, SctRule};
use super::certificate::{Leaf, NAMES_SHOWN_MAX};
use super::error::{VerifyError, shown};
use super::evidence::{Evidence, Stamped};
use super::keys::PublicKey;
use super::sigstore::{Artifact, Log, Logged, SigstoreBundle, TrustMaterial};
use super::{LogEntry, SignedReference, Signer, VerifiedSignature, chain};
use crate::clock::Timestamp;
use crate::oci::Digest;

/// A good signature, whatever it is about.
#[derive(Debug)]
pub(super) struct Proof {
    pub(super) signer: Signer,
    pub(super) log: Option<LogEntry>,
    pub(super) timestamps: Vec<Timestamp>,
    pub(super) not_after: Option<Timestamp>,
    pub(super) notes: Vec<&'static str>,
}

impl Proof {
    pub(super) fn signature(self, signed_reference: SignedReference) -> VerifiedSignature {
        let Self { signer, log, timestamps, not_after, notes } = self;
        VerifiedSignature { signer, signed_reference, log, timestamps, not_after, notes }
    }
}

/// What is checked beside the signature itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Checks<'a> {
    /// Logs and authorities; `None` where no log is asked for.
    pub(super) material: Option<&'a TrustMaterial>,
    /// The timestamp authorities of which one must have signed; `None` where none is asked for.
    pub(super) required: Option<&'a TrustMaterial>,
    pub(super) subject: &'a Digest,
    pub(super) now: Timestamp,
}

/// A signature by one of these keys.
pub(super) fn keyed(
    keys: &[PublicKey],
    hash: KeyHash,
    evidence: &Evidence<'_>,
    checks: Checks<'_>,
) -> Result<Proof, VerifyError> {
    if evidence.is_bundle() && evidence.has_certificate() {
        return Err(VerifyError::CertificateNotKey);
    }
    let (key, hash) = evidence.signed_by(keys, hash)?;
    let mut notes = Vec::new();
    if evidence.has_certificate() {
        notes.push("the attached certificate was not looked at: the policy names keys");
    }
    let logged = if let Some(material) = checks.material {
        let verify = |bundle: &SigstoreBundle, artifact: Artifact<'_>| {
            let bundle = checkable(bundle, material);
            material.verifier().verify_key(key, hash, &bundle, artifact, checks.now)
        };
        Some(evidence.logged(Log::Key(key), checks.now, verify, checks.subject)?)
    } else {
        if evidence.has_log_entry() {
            notes.push("the attached log entry was not looked at: the policy names no log for this key");
        }
        None
    };
    let timestamps = timestamps(evidence, logged.as_ref(), checks, None, &mut notes)?;
    let log = logged.map(|logged| logged.log);
    Ok(Proof { signer: Signer::Key(key.fingerprint()), log, timestamps, not_after: None, notes })
}

/// A signature by a certificate of one of the authorities; whose it is remains to be asked.
pub(super) fn keyless(
    material: &TrustMaterial,
    sct: SctRule,
    evidence: &Evidence<'_>,
    checks: Checks<'_>,
) -> Result<Proof, VerifyError> {
    let (leaf, attached) = (evidence.leaf()?, evidence.chain()?);
    let verify = |bundle: &SigstoreBundle, artifact: Artifact<'_>| {
        let bundle = checkable(bundle, material);
        material.verifier().verify_certificate(&leaf, sct, &bundle, artifact, checks.now)
    };
    let logged = evidence.logged(Log::Certificate(&leaf, &attached), checks.now, verify, checks.subject)?;
    let mut notes = Vec::new();
    if sct == SctRule::UnsafeIgnored {
        notes.push("sct: not checked, the policy says insecureIgnoreSCT");
    }
    let timestamps = timestamps(evidence, Some(&logged), checks, Some((&leaf, &attached)), &mut notes)?;
    Ok(Proof { signer: signer(&leaf)?, log: Some(logged.log), timestamps, not_after: None, notes })
}

/// Without any timestamp authority nobody can check timestamps; then a log's promise must say the time.
fn checkable(bundle: &SigstoreBundle, material: &TrustMaterial) -> SigstoreBundle {
    if material.has_timestamp_authorities() { bundle.clone() } else { bundle.without_timestamps() }
}

/// The holder of a certificate that was verified. A name that cannot be read could be anybody's.
fn signer(leaf: &Leaf) -> Result<Signer, VerifyError> {
    if leaf.other_names {
        return Err(VerifyError::NameKind);
    }
    let (issuer, workflow) = (leaf.oidc_issuer()?, leaf.workflow()?);
    Ok(Signer::Certificate { issuer: Some(issuer), subjects: leaf.subjects(), workflow: Box::new(workflow) })
}

/// Good, and by somebody else.
pub(super) fn other_identity(signer: &Signer) -> VerifyError {
    let (issuer, subjects) = match signer {
        Signer::Certificate { issuer, subjects, .. } => (issuer.as_deref().unwrap_or_default(), subjects.as_slice()),
        Signer::Key(_) | Signer::OpenPgp(_) => ("", [].as_slice()),
    };
    let subjects = subjects.iter().take(NAMES_SHOWN_MAX).map(|subject| shown(subject)).collect();
    VerifyError::OtherIdentity { issuer: shown(issuer), subjects }
}

/// The verified times of timestamps. In a bundle with a log entry the verifier has checked them all; elsewhere they are
/// checked here, where the policy asks for one.
fn timestamps(
    evidence: &Evidence<'_>,
    logged: Option<&Logged>,
    checks: Checks<'_>,
    certificate: Option<(&Leaf, &[Vec<u8>])>,
    notes: &mut Vec<&'static str>,
) -> Result<Vec<Timestamp>, VerifyError> {
    let checked = match logged {
        Some(logged) if evidence.is_bundle() => logged.timestamps.clone(),
        _ => Vec::new(),
    };
    let Some(authorities) = checks.required else {
        if checked.is_empty() && evidence.has_timestamp() {
            notes.push("the attached RFC 3161 timestamp was not looked at: the policy names no timestamp authority");
        }
        return Ok(checked);
    };
    if !evidence.has_timestamp() {
        return Err(VerifyError::TimestampMissing);
    }
    if !checked.is_empty() {
        return Ok(checked);
    }
    let check = |(token, message): Stamped| {
        let at = authorities.timestamp(&token, &message)?;
        if at > checks.now {
            return Err(VerifyError::TimestampInFuture { at, now: checks.now });
        }
        if let (Some((leaf, attached)), Some(material)) = (certificate, checks.material) {
            check_certificate(leaf, attached, material, at)?;
        }
        Ok(at)
    };
    evidence.timestamps()?.into_iter().map(check).collect()
}

/// The certificate, and the chain above it, must hold at a timestamp's time as at the log's.
fn check_certificate(
    leaf: &Leaf,
    attached: &[Vec<u8>],
    material: &TrustMaterial,
    at: Timestamp,
) -> Result<(), VerifyError> {
    let validity = leaf.validity;
    if !validity.contains(at) {
        let (not_before, not_after) = (validity.not_before, validity.not_after);
        return Err(VerifyError::TimestampOutsideCertificate { at, not_before, not_after });
    }
    chain::check(leaf, &material.authorities_at(at), attached.iter(), at).map(drop)
}
