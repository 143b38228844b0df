//! Sigstore bundles v0.3 as cosign v3 writes them, and cosign's older attestations.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use super::ca::{Identity, Issued};
use super::entry::Verifier;
use super::flaw::Part;
use super::keys::{FakeKey, seed_bytes};
use super::sign::corrupt;
use super::statement::{self, COSIGN_SIGN, Claim, Envelope};
use super::tree::Place;
use super::{FakeSignature, FakeSigstore, Flaw, attach_certificate};
use crate::clock::Timestamp;
use crate::oci::Digest;
use crate::verify::{BundleMaterial, LegacyAttestation, SignatureMaterial, Source};

/// A bundle.
#[derive(Debug, Clone, PartialEq)]
pub struct FakeBundle {
    /// The whole document.
    pub json: Value,
    /// What its statement says it is, for the annotation of its manifest.
    pub predicate_type: String,
}

impl FakeBundle {
    /// The layer's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        self.json.to_string().into_bytes()
    }

    /// As verification wants it.
    pub fn material(&self) -> SignatureMaterial {
        let bundle = Bytes::from(self.bytes());
        let manifest = Digest::sha256(&bundle);
        let place = crate::verify::Place::Referrer;
        SignatureMaterial::Bundle(BundleMaterial {
            bundle,
            source: Source { repository: None, manifest, place, layer: 0 },
        })
    }
}

impl FakeSignature {
    /// A layer of an `.att` manifest, as verification wants it.
    pub fn attestation_material(&self) -> SignatureMaterial {
        SignatureMaterial::Attestation(LegacyAttestation {
            envelope: self.payload.clone().into(),
            annotations: self.annotations.clone(),
            source: Source {
                repository: None,
                manifest: Digest::sha256(b"fake"),
                place: crate::verify::Place::Tag("fake.att".to_owned()),
                layer: 0,
            },
        })
    }
}

/// Makes one bundle: a plain signature in Rekor v1, unless it is told otherwise.
#[derive(Debug, Clone)]
pub struct BundleBuilder<'a> {
    pub(super) sigstore: &'a FakeSigstore,
    pub(super) by: By<'a>,
    pub(super) claim: Claim,
    pub(super) log: Log,
    pub(super) place: Place,
    pub(super) entries: usize,
    pub(super) timestamps: usize,
    pub(super) flaw: Flaw,
}

#[derive(Debug, Clone)]
pub(super) enum By<'a> {
    Identity(Identity),
    Key(&'a FakeKey),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Log {
    None,
    V1,
    V1Intoto,
    V2,
}

/// A key at work: who can check what it signs, and when it signs.
pub(super) struct Signing<'a> {
    pub(super) key: &'a FakeKey,
    pub(super) verifier: Verifier<'a>,
    pub(super) at: Timestamp,
}

impl FakeSigstore {
    /// A bundle about that manifest by a certificate for that identity.
    pub fn bundle_by(&self, identity: &Identity, digest: &Digest) -> BundleBuilder<'_> {
        self.builder(By::Identity(identity.clone()), digest)
    }

    /// A bundle about that manifest by a key.
    pub fn bundle_keyed<'a>(&'a self, key: &'a FakeKey, digest: &Digest) -> BundleBuilder<'a> {
        self.builder(By::Key(key), digest)
    }

    fn builder<'a>(&'a self, by: By<'a>, digest: &Digest) -> BundleBuilder<'a> {
        let (predicate_type, predicate) = (COSIGN_SIGN.to_owned(), json!({}));
        let claim = Claim { digest: *digest, predicate_type, predicate, subjects: 1, digests: 1 };
        let (place, flaw) = (Place::ALONE, Flaw::None);
        BundleBuilder { sigstore: self, by, claim, log: Log::V1, place, entries: 1, timestamps: 0, flaw }
    }
}

impl BundleBuilder<'_> {
    /// An attestation of that type instead of a plain signature.
    #[must_use]
    pub fn predicate(mut self, predicate_type: &str, predicate: Value) -> Self {
        predicate_type.clone_into(&mut self.claim.predicate_type);
        self.claim.predicate = predicate;
        self
    }

    /// So many subjects, of which the last one is the manifest.
    #[must_use]
    pub fn subjects(mut self, count: usize) -> Self {
        self.claim.subjects = count;
        self
    }

    /// So many digests of the manifest, of which one is a SHA-256.
    #[must_use]
    pub fn digests(mut self, count: usize) -> Self {
        self.claim.digests = count;
        self
    }

    /// Logged by Rekor v2, which gives no time: certificates need [`Self::timestamped`] then.
    #[must_use]
    pub fn rekor_v2(mut self) -> Self {
        self.log = Log::V2;
        self
    }

    /// Logged by Rekor v1 as `intoto` 0.0.2.
    #[must_use]
    pub fn intoto(mut self) -> Self {
        self.log = Log::V1Intoto;
        self
    }

    /// Not logged.
    #[must_use]
    pub fn unlogged(mut self) -> Self {
        self.log = Log::None;
        self
    }

    /// The log's tree has so many leaves, of which this entry is the one at `index`.
    #[must_use]
    pub fn tree(mut self, size: usize, index: usize) -> Self {
        assert!(index < size, "a leaf of the tree");
        self.place = Place { index, size };
        self
    }

    /// Logged so many times.
    #[must_use]
    pub fn entries(mut self, count: usize) -> Self {
        self.entries = count;
        self
    }

    /// With a timestamp of the authority.
    #[must_use]
    pub fn timestamped(self) -> Self {
        self.timestamps(1)
    }

    /// With so many timestamps of the authority.
    #[must_use]
    pub fn timestamps(mut self, count: usize) -> Self {
        self.timestamps = count;
        self
    }

    /// With one thing wrong.
    #[must_use]
    pub fn flaw(mut self, flaw: Flaw) -> Self {
        self.flaw = flaw;
        self
    }

    /// Signs and logs it.
    pub fn build(&self) -> FakeBundle {
        self.assert_that_the_flaw_has_a_place();
        let issued = self.issue();
        let signing = self.signing(issued.as_ref());
        let envelope = self.envelope(&signing);
        let (entries, timestamps) =
            (self.log_entries(&envelope, &signing), self.stamps(&envelope.signature, issued.as_ref()));
        let mut material = match (&self.by, &issued) {
            (By::Key(key), _) => json!({"publicKey": {"hint": STANDARD.encode(key.fingerprint().as_bytes())}}),
            (By::Identity(_), Some(issued)) => self.certificate(issued),
            (By::Identity(_), None) => unreachable!("a certificate is issued to an identity"),
        };
        material["tlogEntries"] = entries.into();
        material["timestampVerificationData"] = json!({"rfc3161Timestamps": timestamps});
        let mut envelope = envelope.json();
        statement::edit(&mut envelope, self.flaw);
        let media_type = match self.flaw {
            Flaw::MediaTypeV01 => "application/vnd.dev.sigstore.bundle+json;version=0.1",
            Flaw::MediaTypeV02 => "application/vnd.dev.sigstore.bundle+json;version=0.2",
            _ => "application/vnd.dev.sigstore.bundle.v0.3+json",
        };
        FakeBundle {
            json: json!({
                "mediaType": media_type, "verificationMaterial": material, "dsseEnvelope": envelope,
            }),
            predicate_type: self.claim.predicate_type.clone(),
        }
    }

    /// Signs and logs it as `cosign attest` did before bundles: a layer of an `.att` manifest.
    pub fn build_attestation(&self) -> FakeSignature {
        self.assert_that_the_flaw_has_a_place();
        let issued = self.issue();
        let signing = self.signing(issued.as_ref());
        let envelope = self.envelope(&signing);
        let mut json = envelope.json();
        json["signatures"][0]["keyid"] = "".into();
        statement::edit(&mut json, self.flaw);
        let mut annotations = BTreeMap::from([
            ("dev.cosignproject.cosign/signature".to_owned(), String::new()),
            ("predicateType".to_owned(), self.claim.predicate_type.clone()),
        ]);
        if self.log != Log::None && self.flaw != Flaw::NoLogEntry {
            let mut entry = self.promised(&envelope, &signing, 0);
            match self.flaw {
                Flaw::IntegratedTimeEdited => entry.integrated += 1,
                Flaw::LogIndexEdited => entry.index += 1,
                Flaw::SetCorrupt => corrupt(&mut entry.set),
                _ => (),
            }
            annotations.insert("dev.sigstore.cosign/bundle".to_owned(), entry.annotation());
        }
        let payload = json.to_string().into_bytes();
        // For attestations cosign stamps the whole envelope.
        if let Some(stamp) = self.stamps(&payload, issued.as_ref()).first() {
            let stamp = json!({"SignedRFC3161Timestamp": stamp["signedTimestamp"]});
            annotations.insert("dev.sigstore.cosign/rfc3161timestamp".to_owned(), stamp.to_string());
        }
        let mut layer = FakeSignature { payload, annotations };
        if let (Some(issued), Verifier::Certificate(_)) = (&issued, signing.verifier) {
            attach_certificate(&mut layer, issued, &signing.verifier.pem(), self.flaw);
        }
        layer
    }

    fn issue(&self) -> Option<Issued> {
        let By::Identity(identity) = &self.by else { return None };
        let sigstore = self.sigstore;
        let ca = if self.flaw == Flaw::OtherCa { &sigstore.other_fulcio } else { &sigstore.fulcio };
        Some(ca.issue(identity, "bundle", self.flaw))
    }

    fn signing<'s>(&'s self, issued: Option<&'s Issued>) -> Signing<'s> {
        let now = self.sigstore.now;
        let (key, verifier, start, end) = match (&self.by, issued) {
            (By::Identity(_), Some(issued)) => {
                (&issued.key, Verifier::Certificate(&issued.leaf), issued.not_before, issued.not_after)
            }
            (By::Key(key), _) => (*key, Verifier::Key(key.spki()), now.minus(Duration::from_hours(1)), now),
            (By::Identity(_), None) => unreachable!("a certificate is issued to an identity"),
        };
        let at = match self.flaw {
            Flaw::IntegratedAfterCertificate => end.plus(Duration::from_secs(1)),
            Flaw::IntegratedBeforeCertificate => start.minus(Duration::from_secs(1)),
            Flaw::IntegratedInFuture => now.plus(Duration::from_hours(1)),
            _ => start.plus(Duration::from_mins(1)),
        };
        Signing { key, verifier, at }
    }

    fn envelope(&self, signing: &Signing<'_>) -> Envelope {
        let mut envelope = Envelope::sign(self.claim.statement(self.flaw), signing.key, self.flaw);
        if self.flaw == Flaw::GarbageSignature {
            envelope.signature = seed_bytes(self.sigstore.seed, "garbage").repeat(2);
        }
        envelope
    }

    fn certificate(&self, issued: &Issued) -> Value {
        let raw = |der: &Vec<u8>| json!({"rawBytes": STANDARD.encode(der)});
        match self.flaw {
            Flaw::EmptyChain => json!({"x509CertificateChain": {"certificates": []}}),
            Flaw::RootInChain => {
                let chain: Vec<Value> = std::iter::once(&issued.leaf).chain(&issued.chain).map(raw).collect();
                json!({"x509CertificateChain": {"certificates": chain}})
            }
            _ => json!({"certificate": raw(&issued.leaf)}),
        }
    }

    /// A flaw without a place would make a good bundle, and a test that proves nothing.
    fn assert_that_the_flaw_has_a_place(&self) {
        let keyless = matches!(self.by, By::Identity(_));
        let v1 = matches!(self.log, Log::V1 | Log::V1Intoto);
        let fits = match self.flaw.part() {
            Part::Nothing | Part::Statement | Part::Envelope | Part::Signature => true,
            Part::SimpleSigning | Part::AttachedChain => false,
            Part::Leaf | Part::Bundle => keyless,
            Part::Entry => self.log != Log::None && (keyless || self.flaw != Flaw::KeyUsedAfterCertificate),
            Part::EntryTime => v1 && (keyless || self.flaw == Flaw::IntegratedInFuture),
            Part::Promise => v1,
            Part::Proof => self.log != Log::None && (self.flaw != Flaw::ProofHashEdited || self.place.size > 1),
            Part::Timestamp => self.timestamps > 0,
            Part::TimestampTime => self.timestamps > 0 && keyless,
        };
        assert!(fits, "{:?} has no place in {self:?}", self.flaw);
    }
}
