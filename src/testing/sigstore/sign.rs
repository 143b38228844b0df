//! Signing as cosign does: a simple-signing payload, its annotations, and the manifest that carries them.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::ca::{Identity, Issued};
use super::flaw::Part;
use super::keys::{FakeKey, seed_bytes};
use super::log::Entry;
use super::tree::Place as TreePlace;
use super::{FakeSigstore, Flaw};
use crate::clock::Timestamp;
use crate::oci::Digest;
use crate::testing::{BuiltImage, ImageBuilder};
use crate::verify::{LegacySignature, Place, SignatureMaterial, Source, pem};

/// One signature: a layer of a `.sig` manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeSignature {
    /// The layer's bytes.
    pub payload: Vec<u8>,
    /// The layer's annotations.
    pub annotations: BTreeMap<String, String>,
}

impl FakeSignature {
    /// As verification wants it.
    pub fn material(&self) -> SignatureMaterial {
        SignatureMaterial::Legacy(LegacySignature {
            payload: self.payload.clone().into(),
            annotations: self.annotations.clone(),
            source: Source {
                repository: None,
                manifest: Digest::sha256(b"fake"),
                place: Place::Tag("fake.sig".to_owned()),
                layer: 0,
            },
        })
    }
}

impl FakeSigstore {
    /// Signs without a key, as `cosign sign` does after a log-in with that address at that issuer.
    ///
    /// `reference` is what the signer writes into the payload, such as `quay.io/team/app`.
    pub fn sign_keyless(
        &self,
        reference: &str,
        digest: &Digest,
        email: &str,
        issuer: &str,
        flaw: Flaw,
    ) -> FakeSignature {
        self.sign_as(reference, digest, &Identity::email(email, issuer), flaw)
    }

    /// Signs without a key, with a certificate for that identity.
    pub fn sign_as(&self, reference: &str, digest: &Digest, identity: &Identity, flaw: Flaw) -> FakeSignature {
        let ca = if flaw == Flaw::OtherCa { &self.other_fulcio } else { &self.fulcio };
        let issued = ca.issue(identity, "signer", flaw);
        let certificate = pem::write("CERTIFICATE", &issued.leaf);
        let logged = match flaw {
            Flaw::IntegratedAfterCertificate => issued.not_after.plus(Duration::from_secs(1)),
            Flaw::IntegratedBeforeCertificate => issued.not_before.minus(Duration::from_secs(1)),
            Flaw::IntegratedInFuture => self.now.plus(Duration::from_hours(1)),
            _ => issued.not_before.plus(Duration::from_mins(1)),
        };
        let other =
            self.fulcio.issue(&Identity::email("other@example.com", "https://other.example"), "other", Flaw::None);
        let other_signer = Signer { key: &other.key, verifier: &pem::write("CERTIFICATE", &other.leaf) };
        let signer = Signer { key: &issued.key, verifier: &certificate };
        let mut signature = self.sign(reference, digest, &signer, &other_signer, logged, flaw);
        attach_certificate(&mut signature, &issued, &certificate, flaw);
        signature
    }

    /// Signs with a key, as `cosign sign --key` does, with a log entry.
    pub fn sign_keyed(&self, key: &FakeKey, reference: &str, digest: &Digest, flaw: Flaw) -> FakeSignature {
        let logged = match flaw {
            Flaw::IntegratedInFuture => self.now.plus(Duration::from_hours(1)),
            _ => self.now.minus(Duration::from_hours(1)),
        };
        let other = self.key("somebody else's");
        let (verifier, other_verifier) = (key.public_pem(), other.public_pem());
        let signer = Signer { key, verifier: &verifier };
        let other = Signer { key: &other, verifier: &other_verifier };
        let signature = self.sign(reference, digest, &signer, &other, logged, flaw);
        let about_certificates = matches!(flaw.part(), Part::Leaf | Part::AttachedChain)
            || matches!(flaw.part(), Part::EntryTime) && flaw != Flaw::IntegratedInFuture
            || flaw == Flaw::KeyUsedAfterCertificate;
        assert!(!about_certificates, "{flaw:?} is no flaw of a keyed signature");
        signature
    }

    /// Signs with a key and no log, as `cosign sign --key --tlog-upload=false` does.
    pub fn sign_unlogged(&self, key: &FakeKey, reference: &str, digest: &Digest, flaw: Flaw) -> FakeSignature {
        let mut signature = self.sign_keyed(key, reference, digest, flaw);
        signature.annotations.remove(BUNDLE);
        signature
    }

    /// Signs with a certificate of the private PKI that is valid for a day from an hour ago.
    pub fn sign_pki(&self, reference: &str, digest: &Digest, identity: &Identity, flaw: Flaw) -> FakeSignature {
        let from = self.now.minus(Duration::from_hours(1));
        self.sign_pki_for(reference, digest, identity, (from, from.plus(Duration::from_hours(24))), flaw)
    }

    /// Signs with a certificate of the private PKI of that validity.
    pub fn sign_pki_for(
        &self,
        reference: &str,
        digest: &Digest,
        identity: &Identity,
        validity: (Timestamp, Timestamp),
        flaw: Flaw,
    ) -> FakeSignature {
        let ca = if flaw == Flaw::OtherCa { &self.other_fulcio } else { &self.pki };
        let issued = ca.issue_for(identity, "signer", validity, flaw);
        let certificate = pem::write("CERTIFICATE", &issued.leaf);
        let other_key = self.key("somebody else's");
        let other = Signer { key: &other_key, verifier: &other_key.public_pem() };
        let signer = Signer { key: &issued.key, verifier: &certificate };
        let mut signature = self.sign(reference, digest, &signer, &other, self.now, flaw);
        signature.annotations.remove(BUNDLE);
        attach_certificate(&mut signature, &issued, &certificate, flaw);
        signature
    }

    fn sign(
        &self,
        reference: &str,
        digest: &Digest,
        signer: &Signer<'_>,
        other: &Signer<'_>,
        logged: Timestamp,
        flaw: Flaw,
    ) -> FakeSignature {
        let of_bundles =
            [Part::Envelope, Part::Bundle, Part::Proof, Part::Timestamp, Part::TimestampTime].contains(&flaw.part());
        assert!(!of_bundles, "{flaw:?} is no flaw of a legacy signature");
        let payload = payload(reference, digest, flaw);
        let other_payload = payload_of(reference, &Digest::sha256(b"another manifest")).to_string().into_bytes();
        let mut signature = match flaw {
            Flaw::SignatureOfOtherPayload => signer.key.sign(&other_payload),
            _ => signer.key.sign(&payload),
        };
        if flaw == Flaw::CorruptSignature {
            corrupt(&mut signature);
        }
        let entry = |signer: &Signer<'_>, payload: &[u8]| {
            self.rekor.log(payload, &signer.key.sign(payload), signer.verifier, logged)
        };
        let entry = match flaw {
            Flaw::NoLogEntry => None,
            Flaw::SignatureOfOtherPayload => Some(self.rekor.log(&other_payload, &signature, signer.verifier, logged)),
            Flaw::GarbageSignature | Flaw::EntryOfOtherPayload | Flaw::KeyUsedAfterCertificate => {
                Some(entry(signer, &other_payload))
            }
            Flaw::UnrelatedEntry => Some(entry(other, &other_payload)),
            Flaw::EntryOfOtherSigner => Some(entry(other, &payload)),
            _ => Some(self.rekor.log(&payload, &signature, signer.verifier, logged)),
        };
        if flaw == Flaw::GarbageSignature {
            signature = seed_bytes(self.seed, "garbage").repeat(2);
        }
        let mut annotations = BTreeMap::from([(SIGNATURE.to_owned(), STANDARD.encode(&signature))]);
        if let Some(entry) = entry {
            annotations.insert(BUNDLE.to_owned(), self.spoil(entry, flaw).annotation());
        }
        FakeSignature { payload, annotations }
    }

    /// What is wrong between log and entry.
    fn spoil(&self, mut entry: Entry, flaw: Flaw) -> Entry {
        match flaw {
            Flaw::IntegratedTimeEdited => entry.integrated += 1,
            Flaw::LogIndexEdited => entry.index += 1,
            Flaw::SetCorrupt => corrupt(&mut entry.set),
            Flaw::SetByOtherLog => {
                let ours = entry.log_id.clone();
                entry = self.other_rekor.promise(entry.body, entry.integrated);
                entry.log_id = ours;
            }
            Flaw::OtherLog => entry = self.other_rekor.promise(entry.body, entry.integrated),
            Flaw::OtherEntryKind => {
                let body = String::from_utf8(entry.body).unwrap().replace("hashedrekord", "rekord");
                entry = self.rekor.promise(body.into_bytes(), entry.integrated);
            }
            _ => (),
        }
        entry
    }

    /// A v0.3 bundle with a message signature over `message` by a certificate for that identity, proof included.
    pub fn bundle(&self, message: &[u8], identity: &Identity, flaw: Flaw) -> Value {
        let issued = self.fulcio.issue(identity, "bundle", flaw);
        let signature = issued.key.sign(message);
        let logged = issued.not_before.plus(Duration::from_mins(1));
        let entry = self.rekor.log(message, &signature, &pem::write("CERTIFICATE", &issued.leaf), logged);
        json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "certificate": {"rawBytes": STANDARD.encode(&issued.leaf)},
                "tlogEntries": [entry.in_bundle(&self.rekor.inclusion_proof(&entry, TreePlace::ALONE, &self.rekor.key))],
            },
            "messageSignature": {
                "messageDigest": {
                    "algorithm": "SHA2_256", "digest": STANDARD.encode(Digest::sha256(message).as_bytes()),
                },
                "signature": STANDARD.encode(&signature),
            },
        })
    }
}

struct Signer<'a> {
    key: &'a FakeKey,
    /// PEM of the key or certificate.
    verifier: &'a str,
}

pub(super) fn attach_certificate(signature: &mut FakeSignature, issued: &Issued, certificate: &str, flaw: Flaw) {
    let chain: String = issued.chain.iter().map(|der| pem::write("CERTIFICATE", der)).collect();
    let attached = match flaw {
        Flaw::NoCertificate => None,
        Flaw::TwoCertificates => Some(certificate.repeat(2)),
        _ => Some(certificate.to_owned()),
    };
    if let Some(attached) = attached {
        signature.annotations.insert(CERTIFICATE.to_owned(), attached);
    }
    if !chain.is_empty() {
        signature.annotations.insert(CHAIN.to_owned(), chain);
    }
}

fn payload_of(reference: &str, digest: &Digest) -> Value {
    json!({
        "critical": {
            "identity": {"docker-reference": reference},
            "image": {"docker-manifest-digest": digest.to_string()},
            "type": "cosign container image signature",
        },
        "optional": null,
    })
}

fn payload(reference: &str, digest: &Digest, flaw: Flaw) -> Vec<u8> {
    let mut payload = payload_of(reference, digest);
    match flaw {
        Flaw::OtherDigest => payload = payload_of(reference, &Digest::sha256(b"another manifest")),
        Flaw::FoldedKey => payload["Critical"] = payload["critical"].clone(),
        Flaw::UnknownField => payload["critical"]["issued-by"] = "nobody".into(),
        Flaw::OtherType => payload["critical"]["type"] = "atomic container signature".into(),
        _ => (),
    }
    let text = payload.to_string();
    let text = match flaw {
        Flaw::DuplicateKey => text.replacen('{', &format!("{{\"critical\":{},", payload["critical"]), 1),
        _ => text,
    };
    text.into_bytes()
}

pub(super) fn corrupt(bytes: &mut [u8]) {
    *bytes.last_mut().unwrap() ^= 1;
}

/// The image manifest that cosign writes for these signatures, one layer each, to be put under the tag `sha256-<hex>.sig`.
pub fn signature_image(signatures: &[FakeSignature]) -> BuiltImage {
    image_of(SIMPLE_SIGNING, signatures)
}

/// The image manifest that cosign writes for these attestations, one layer each, to be put under the tag `sha256-<hex>.att`.
pub fn attestation_image(attestations: &[FakeSignature]) -> BuiltImage {
    image_of(DSSE, attestations)
}

fn image_of(layer_type: &str, signatures: &[FakeSignature]) -> BuiltImage {
    let diff_ids: Vec<String> =
        signatures.iter().map(|signature| Digest::sha256(&signature.payload).to_string()).collect();
    let config = json!({
        "architecture": "", "created": "0001-01-01T00:00:00Z", "history": [], "os": "",
        "rootfs": {"type": "layers", "diff_ids": diff_ids}, "config": {},
    });
    let image = ImageBuilder::new(0).config("application/vnd.oci.image.config.v1+json", config.to_string());
    let image = signatures.iter().fold(image, |image, signature| {
        let annotations: Vec<(&str, &str)> =
            signature.annotations.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        image.layer_of(layer_type, signature.payload.clone(), &annotations)
    });
    image.build()
}

/// A manifest for the tag `sha256-<hex>.sig` as plain bytes, with the blobs that it lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureManifest {
    /// Its media type.
    pub media_type: &'static str,
    /// Its bytes.
    pub manifest: Vec<u8>,
    /// Config and payloads.
    pub blobs: Vec<(Digest, Vec<u8>)>,
}

/// [`signature_image`] as plain bytes, for who pushes it over the wire.
pub fn signature_manifest(signatures: &[FakeSignature]) -> SignatureManifest {
    let image = signature_image(signatures);
    SignatureManifest {
        media_type: "application/vnd.oci.image.manifest.v1+json",
        manifest: image.manifest.bytes.to_vec(),
        blobs: image.blobs.into_iter().map(|blob| (blob.digest, blob.bytes.to_vec())).collect(),
    }
}

const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const DSSE: &str = "application/vnd.dsse.envelope.v1+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
const CHAIN: &str = "dev.sigstore.cosign/chain";
const BUNDLE: &str = "dev.sigstore.cosign/bundle";
