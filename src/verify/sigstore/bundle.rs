//! Sigstore bundles, as they come or made of cosign's legacy annotations: form and bounds before any cryptography.

use serde_json::{Map, Value};
use sigstore_verify::types::bundle::{
    InclusionPromise, LogId, MessageDigest, MessageSignature, PublicKeyIdentifier, TransparencyLogEntry,
    VerificationMaterial, VerificationMaterialContent, X509Certificate,
};
use sigstore_verify::types::{
    Bundle, CanonicalizedBody, DerCertificate, DigestBytes, DsseEnvelope, DsseSignature, HashAlgorithm, KeyId,
    KindVersion, LogIndex, LogKeyId, MediaType, PayloadBytes, SignatureBytes, SignatureContent, SignedTimestamp,
};

use super::root::ours;
use crate::clock::Timestamp;
use crate::limits::{BUNDLE_LOG_ENTRIES_MAX, BUNDLE_TIMESTAMPS_MAX, CHAIN_CERTIFICATES_MAX, SIGNATURE_BYTES_MAX};
use crate::oci::json::JsonError;
use crate::oci::{Digest, json};
use crate::verify::certificate::Leaf;
use crate::verify::envelope::{self, Envelope};
use crate::verify::error::{VerifyError, shown};
use crate::verify::keys::PublicKey;
use crate::verify::legacy::{EntryKind, LoggedEntry};

/// A bundle whose form has been checked. Nothing in it is trusted.
#[derive(Debug, Clone)]
pub(in crate::verify) struct SigstoreBundle {
    pub(super) bundle: Bundle,
    /// Whether each log entry must have an inclusion proof; cosign's legacy format carries none.
    pub(super) proofs: bool,
}

/// Which versions of bundles are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::verify) enum Versions {
    /// v0.3: everything found among referrers.
    V03,
    /// Older ones too. Whatever version it claims, each log entry must have its inclusion proof: the media type is not
    /// signed, so it must not decide what is checked.
    All,
}

/// What is signed, and the signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::verify) enum Content {
    /// An envelope.
    Envelope(Envelope),
    /// A message that is known by this SHA-256 digest.
    Message {
        /// The digest that the bundle states.
        digest: Digest,
        /// The signature over the message.
        signature: Vec<u8>,
    },
}

/// A log entry as a bundle is made with it.
#[derive(Debug, Clone, Copy)]
pub(in crate::verify) enum Log<'a> {
    /// Signed by this key.
    Key(&'a PublicKey),
    /// Signed by this certificate, with the others above it.
    Certificate(&'a Leaf, &'a [Vec<u8>]),
}

impl SigstoreBundle {
    /// Reads a bundle: unambiguous JSON, a known version, exactly one certificate or key, exactly one content with exactly
    /// one signature, bounded numbers of everything.
    pub(in crate::verify) fn parse(bytes: &[u8], versions: Versions) -> Result<Self, VerifyError> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if length > SIGNATURE_BYTES_MAX {
            return Err(VerifyError::PayloadTooLarge { bytes: length, max: SIGNATURE_BYTES_MAX });
        }
        let document = json::parse(bytes).map_err(bundle_json)?;
        check_form(&document, versions)?;
        let text = std::str::from_utf8(bytes).map_err(|_| malformed("not UTF-8"))?;
        let bundle = Bundle::from_json(text).map_err(|error| malformed(&error.to_string()))?;
        let bundle = Self { bundle, proofs: true };
        bundle.content()?;
        Ok(bundle)
    }

    /// A v0.1 bundle of a signature in cosign's legacy format. That version asks for the log's promise and needs no
    /// inclusion proof; it exists only here, no bundle is accepted from outside without a proof.
    pub(in crate::verify) fn of_signature(
        signer: Log<'_>,
        payload: &[u8],
        signature: &[u8],
        entry: &LoggedEntry,
    ) -> Result<Self, VerifyError> {
        let digest = DigestBytes::new(Digest::sha256(payload).as_bytes().to_vec());
        let signature = MessageSignature::new(SignatureBytes::from_bytes(signature))
            .with_message_digest(MessageDigest::new(HashAlgorithm::Sha2256, digest));
        Self::legacy(signer, SignatureContent::MessageSignature(signature), entry)
    }

    /// A v0.1 bundle of an attestation in cosign's legacy format.
    pub(in crate::verify) fn of_envelope(
        signer: Log<'_>,
        envelope: &Envelope,
        entry: &LoggedEntry,
    ) -> Result<Self, VerifyError> {
        let signature = DsseSignature::new(SignatureBytes::from_bytes(&envelope.signature), KeyId::default());
        let payload = PayloadBytes::from_bytes(&envelope.payload);
        let envelope = DsseEnvelope::new(envelope::IN_TOTO, payload, signature);
        Self::legacy(signer, SignatureContent::DsseEnvelope(envelope), entry)
    }

    fn legacy(signer: Log<'_>, content: SignatureContent, entry: &LoggedEntry) -> Result<Self, VerifyError> {
        let signer = match signer {
            Log::Key(key) => VerificationMaterialContent::PublicKey(PublicKeyIdentifier::new(key.fingerprint().hex())),
            Log::Certificate(leaf, chain) => {
                let certificates = std::iter::once(&leaf.der).chain(chain);
                let certificates = certificates.map(|der| X509Certificate::new(DerCertificate::from_bytes(der)));
                VerificationMaterialContent::X509CertificateChain { certificates: certificates.collect() }
            }
        };
        let material = VerificationMaterial::new(signer).with_tlog_entries(vec![log_entry(entry)?]);
        Ok(Self { bundle: Bundle::new(MediaType::Bundle0_1, material, content), proofs: false })
    }

    /// What is signed.
    pub(in crate::verify) fn content(&self) -> Result<Content, VerifyError> {
        match &self.bundle.content {
            SignatureContent::DsseEnvelope(envelope) => Ok(Content::Envelope(Envelope {
                payload_type: envelope.payload_type.clone(),
                payload: envelope.payload.as_bytes().to_vec().into(),
                signature: envelope.signature.sig.as_bytes().to_vec(),
            })),
            SignatureContent::MessageSignature(message) => {
                let stated = message.message_digest.as_ref().ok_or(VerifyError::MessageHash)?;
                if stated.algorithm != HashAlgorithm::Sha2256 {
                    return Err(VerifyError::MessageHash);
                }
                let digest = format!("sha256:{}", hex::encode(stated.digest.as_bytes())).parse();
                let digest = digest.map_err(|_| malformed("the message digest is no SHA-256 digest"))?;
                Ok(Content::Message { digest, signature: message.signature.as_bytes().to_vec() })
            }
            _ => Err(malformed("unknown content")),
        }
    }

    /// The signing certificate, DER.
    pub(in crate::verify) fn certificate(&self) -> Option<&[u8]> {
        self.bundle.signing_certificate().map(DerCertificate::as_bytes)
    }

    /// The certificates above it; v0.3 has none.
    pub(in crate::verify) fn chain(&self) -> Vec<Vec<u8>> {
        let VerificationMaterialContent::X509CertificateChain { certificates } =
            &self.bundle.verification_material.content
        else {
            return Vec::new();
        };
        certificates.iter().skip(1).map(|certificate| certificate.raw_bytes.as_bytes().to_vec()).collect()
    }

    /// Its RFC 3161 timestamps, DER.
    pub(in crate::verify) fn timestamps(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let timestamps = &self.bundle.verification_material.timestamp_verification_data.rfc3161_timestamps;
        timestamps.iter().map(|timestamp| timestamp.signed_timestamp.as_bytes())
    }

    /// The same without its timestamps, for a policy that names no timestamp authority: nobody could check them.
    pub(in crate::verify) fn without_timestamps(&self) -> Self {
        let mut bundle = self.clone();
        bundle.bundle.verification_material.timestamp_verification_data.rfc3161_timestamps.clear();
        bundle
    }

    /// The bytes of its one signature.
    pub(super) fn signature(&self) -> Vec<u8> {
        match &self.bundle.content {
            SignatureContent::DsseEnvelope(envelope) => envelope.signature.sig.as_bytes().to_vec(),
            SignatureContent::MessageSignature(message) => message.signature.as_bytes().to_vec(),
            _ => Vec::new(),
        }
    }

    pub(super) fn is_envelope(&self) -> bool {
        matches!(self.bundle.content, SignatureContent::DsseEnvelope(_))
    }

    /// Whether it brings any log entry.
    pub(in crate::verify) fn has_log_entries(&self) -> bool {
        !self.entries().is_empty()
    }

    /// The bodies of its log entries, as yet unverified.
    pub(in crate::verify) fn log_bodies(&self) -> Vec<Vec<u8>> {
        self.entries().iter().map(|entry| entry.canonicalized_body.as_bytes().to_vec()).collect()
    }

    pub(super) fn entries(&self) -> &[TransparencyLogEntry] {
        &self.bundle.verification_material.tlog_entries
    }

    /// The times that logs promise for its entries; as yet unverified.
    pub(super) fn promised(&self) -> impl Iterator<Item = Timestamp> {
        self.entries().iter().filter_map(promised)
    }
}

/// The time at which the log promises to have taken the entry in. A time without promise says nothing.
pub(super) fn promised(entry: &TransparencyLogEntry) -> Option<Timestamp> {
    let is_v2 = entry.kind_version == KindVersion::HashedRekordV002;
    entry.integrated_time.filter(|_| entry.inclusion_promise.is_some() && !is_v2).map(ours)
}

fn log_entry(entry: &LoggedEntry) -> Result<TransparencyLogEntry, VerifyError> {
    let malformed = |why: &str| VerifyError::LogMalformed { why: why.to_owned() };
    let index = LogIndex::new(entry.index).map_err(|_| malformed("the log index is out of range"))?;
    let integrated = jiff::Timestamp::from_second(entry.integrated_seconds)
        .map_err(|_| malformed("the integrated time is out of range"))?;
    let log_id = LogId::new(LogKeyId::from_bytes(&entry.log_id));
    let kind = match entry.kind {
        EntryKind::HashedRekord(_) => KindVersion::HashedRekordV001,
        EntryKind::Dsse => KindVersion::DsseV001,
        EntryKind::Intoto => KindVersion::IntotoV002,
    };
    let body = CanonicalizedBody::from_bytes(&entry.body);
    Ok(TransparencyLogEntry::new(index, log_id, kind, body)
        .with_integrated_time(integrated)
        .with_inclusion_promise(InclusionPromise::new(SignedTimestamp::from_bytes(&entry.set))))
}

/// What the library would refuse with a text, or not at all, refused with a reason of its own.
fn check_form(document: &Value, versions: Versions) -> Result<(), VerifyError> {
    // 1. One reading of the keys; the version.
    let bundle = object(document, "the bundle")?;
    json::check_keys(bundle, &["mediaType", "verificationMaterial", MESSAGE, ENVELOPE]).map_err(bundle_json)?;
    let version = bundle.get("mediaType").and_then(Value::as_str).unwrap_or_default();
    let known = match versions {
        Versions::V03 => V03.contains(&version),
        Versions::All => V03.contains(&version) || OLDER.contains(&version),
    };
    if !known {
        return Err(VerifyError::BundleVersion { found: shown(version) });
    }

    // 2. Exactly one content, with exactly one signature.
    match (bundle.get(MESSAGE), bundle.get(ENVELOPE)) {
        (Some(_), None) => (),
        (None, Some(envelope)) => envelope::check_form(object(envelope, "the envelope")?)?,
        _ => return Err(malformed("not exactly one of messageSignature and dsseEnvelope")),
    }

    // 3. Exactly one signer; bounded numbers of entries and timestamps.
    let material = bundle.get("verificationMaterial").ok_or_else(|| malformed("no verificationMaterial"))?;
    let material = object(material, "verificationMaterial")?;
    let signers = ["certificate", CHAIN, "publicKey"];
    json::check_keys(material, &[signers[0], signers[1], signers[2], ENTRIES, TIMESTAMPS]).map_err(bundle_json)?;
    if signers.iter().filter(|signer| material.contains_key(**signer)).count() != 1 {
        return Err(malformed("not exactly one of certificate and publicKey"));
    }
    if let Some(chain) = material.get(CHAIN) {
        if versions == Versions::V03 || V03.contains(&version) {
            return Err(malformed("a v0.3 bundle has one certificate and no chain"));
        }
        match list(chain.get("certificates"))? {
            [] => return Err(VerifyError::NoCertificate),
            chain if chain.len() > CHAIN_CERTIFICATES_MAX => {
                return Err(VerifyError::ChainTooLong { certificates: chain.len(), max: CHAIN_CERTIFICATES_MAX });
            }
            _ => (),
        }
    }
    let entries = list(material.get(ENTRIES))?;
    bounded("log entries in one bundle", entries.len(), BUNDLE_LOG_ENTRIES_MAX)?;
    let timestamps = material.get(TIMESTAMPS).and_then(|data| data.get("rfc3161Timestamps"));
    bounded("timestamps in one bundle", list(timestamps)?.len(), BUNDLE_TIMESTAMPS_MAX)?;
    entries.iter().try_for_each(check_kind)
}

/// An unknown kind of entry would make the whole bundle unreadable for the library; here it gets a name.
fn check_kind(entry: &Value) -> Result<(), VerifyError> {
    let word = |key: &str| entry.pointer(key).and_then(Value::as_str).unwrap_or_default();
    let (kind, version) = (word("/kindVersion/kind"), word("/kindVersion/version"));
    match (kind, version) {
        ("hashedrekord", "0.0.1" | "0.0.2") | ("dsse", "0.0.1") | ("intoto", "0.0.2") => Ok(()),
        ("intoto", "0.0.1") => Err(VerifyError::LogIntoto001),
        _ => Err(VerifyError::LogEntryKind { kind: shown(kind), version: shown(version) }),
    }
}

fn list(value: Option<&Value>) -> Result<&[Value], VerifyError> {
    match value {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(list)) => Ok(list),
        Some(_) => Err(malformed("a list was expected")),
    }
}

fn bounded(what: &'static str, found: usize, max: usize) -> Result<(), VerifyError> {
    if found > max { Err(VerifyError::TooMany { what, found, max }) } else { Ok(()) }
}

fn object<'a>(value: &'a Value, what: &str) -> Result<&'a Map<String, Value>, VerifyError> {
    value.as_object().ok_or_else(|| malformed(&format!("{what} is no object")))
}

fn bundle_json(error: JsonError) -> VerifyError {
    VerifyError::BundleJson(match error {
        JsonError::Syntax(text) => JsonError::Syntax(shown(&text)),
        JsonError::AmbiguousKey { found, known } => JsonError::AmbiguousKey { found: shown(&found), known },
        JsonError::Shape(text) => JsonError::Shape(shown(&text)),
    })
}

fn malformed(why: &str) -> VerifyError {
    VerifyError::BundleMalformed { why: shown(why) }
}

const MESSAGE: &str = "messageSignature";
const ENVELOPE: &str = "dsseEnvelope";
const CHAIN: &str = "x509CertificateChain";
const ENTRIES: &str = "tlogEntries";
const TIMESTAMPS: &str = "timestampVerificationData";
/// Both ways in which v0.3 is written.
const V03: [&str; 2] =
    ["application/vnd.dev.sigstore.bundle.v0.3+json", "application/vnd.dev.sigstore.bundle+json;version=0.3"];
const OLDER: [&str; 2] =
    ["application/vnd.dev.sigstore.bundle+json;version=0.1", "application/vnd.dev.sigstore.bundle+json;version=0.2"];
