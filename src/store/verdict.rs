//! Verdicts as they are kept: what they depend on, their short name, and how they are listed.

use std::fmt;
use std::str::FromStr;

use super::record::{Reader, Record, Writer};
use crate::clock::Timestamp;
use crate::oci::{Algorithm, Digest, Hasher, ImageReference, ImageSize, Reference};
use crate::policy::{Decision, Reason};
use crate::verify::VERIFIER_VERSION;

/// What one verdict depends on. There is no look-up by tag alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VerdictKey {
    /// The reference as requested.
    pub image: ImageReference,
    /// The digest of the manifest's bytes.
    pub digest: Digest,
    /// Fingerprint of the policy.
    pub policy: Digest,
    /// Fingerprint of the trust root.
    pub trust_root: Digest,
}

impl VerdictKey {
    /// A short name for people: the first 8 bytes of the SHA-256 of the key and the verifier's version.
    pub fn id(&self) -> VerdictId {
        let mut id = [0; 8];
        for (to, from) in id.iter_mut().zip(self.hash().as_bytes()) {
            *to = *from;
        }
        VerdictId(id)
    }

    /// SHA-256 of the key and the verifier's version.
    pub(super) fn hash(&self) -> Digest {
        let Self { image, digest, policy, trust_root } = self;
        // Without an allocation: ids are made for every request. No part can run into the next: names have no line ends,
        // and a hash's length follows from its algorithm.
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut text = |text: &str| hasher.update(text.as_bytes());
        text(image.repository.host().as_str());
        text("/");
        text(image.repository.name().as_str());
        text("\n");
        match &image.reference {
            Reference::Tag(tag) => text(tag.as_str()),
            Reference::Digest(digest) => update(&mut hasher, digest),
        }
        hasher.update(b"\n");
        for digest in [digest, policy, trust_root] {
            update(&mut hasher, digest);
        }
        hasher.update(VERIFIER_VERSION.as_bytes());
        hasher.finish()
    }
}

/// A tag has no colon, so a digest cannot be taken for one.
fn update(hasher: &mut Hasher, digest: &Digest) {
    hasher.update(digest.algorithm().as_str().as_bytes());
    hasher.update(b":");
    hasher.update(digest.as_bytes());
}

/// The short name of a verdict: 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VerdictId(pub [u8; 8]);

impl fmt::Display for VerdictId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

/// The text is not 16 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a verdict id: 16 hexadecimal digits")]
pub struct VerdictIdError;

impl FromStr for VerdictId {
    type Err = VerdictIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = hex::decode(text).map_err(|_| VerdictIdError)?;
        Ok(Self(bytes.try_into().map_err(|_| VerdictIdError)?))
    }
}

/// A verdict as it is kept: the raw policy answer, before audit mode and exemptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredVerdict {
    /// What it depends on.
    pub key: VerdictKey,
    /// The answer.
    pub decision: Decision,
    /// Its kind.
    pub reason: Reason,
    /// One line for a human, at most 250 bytes.
    pub text: String,
    /// Whether the image was admitted by itself (its own signature or an accepting policy) rather than through its children:
    /// only then does an index grant all its children.
    pub own: bool,
    /// What pulling the image transfers, where its manifest was at hand; an index has no size of its own.
    pub image_size: Option<ImageSize>,
    /// When it was reached.
    pub issued: Timestamp,
    /// When it must be reached again.
    pub not_after: Timestamp,
    /// The evidence file, if it was kept.
    pub evidence: Option<Digest>,
    /// Signature manifests whose bytes (and whose layers' bytes) are in the store, for verifying again offline; empty
    /// when the answer needed none, or when discovery found none.
    pub material: Vec<Digest>,
    /// Whether the stored material is all there was, so that it can be verified again offline.
    pub material_complete: bool,
}

/// Which verdicts to list.
#[derive(Debug, Clone, Default)]
pub struct VerdictFilter {
    /// Only this answer.
    pub decision: Option<Decision>,
    /// Only this repository (canonical name).
    pub repository: Option<String>,
    /// At most so many, up to `limits::VERDICTS_PAGE_MAX`.
    pub limit: Option<usize>,
    /// Only those after this one in the listing.
    pub after: Option<VerdictId>,
}

impl StoredVerdict {
    /// As a record whose body has at most `bytes_max` bytes: a longer list of material is left to the evidence file, a
    /// longer text is cut.
    pub(super) fn to_record(&self, bytes_max: usize) -> Record {
        let mut body = self.body(&self.text, Place::Record);
        if body.len() > bytes_max {
            body = self.body(&self.text, Place::Evidence);
        }
        if body.len() > bytes_max {
            let excess = body.len().saturating_sub(bytes_max);
            let end = self.text.floor_char_boundary(self.text.len().saturating_sub(excess));
            body = self.body(self.text.get(..end).unwrap_or_default(), Place::Evidence);
        }
        Record { issued: self.issued, not_after: self.not_after, body }
    }

    fn body(&self, text: &str, place: Place) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.byte(BODY_FORM);
        writer.byte(match self.decision {
            Decision::Allow => 1,
            Decision::Deny => 2,
        });
        writer.byte(reason_code(self.reason));
        writer.byte(u8::from(self.own));
        writer.byte(u8::from(self.material_complete));
        writer.byte(u8::from(self.evidence.is_some()));
        if let Some(evidence) = &self.evidence {
            writer.digest(evidence);
        }
        writer.byte(u8::from(self.image_size.is_some()));
        if let Some(ImageSize { bytes, layers }) = self.image_size {
            writer.number(bytes);
            writer.number(u64::try_from(layers).unwrap_or(u64::MAX));
        }
        writer.text(text);
        match place {
            Place::Evidence => writer.byte(IN_EVIDENCE),
            Place::Record => {
                writer.byte(u8::try_from(self.material.len()).unwrap_or(IN_EVIDENCE));
                for digest in &self.material {
                    writer.digest(digest);
                }
            }
        }
        writer.0
    }

    /// Out of a record, and where its material is listed; `None` when the record is not one.
    pub(super) fn of_record(key: VerdictKey, record: &Record) -> Option<(Self, Place)> {
        let mut reader = Reader(&record.body);
        if reader.byte()? != BODY_FORM {
            return None;
        }
        let decision = match reader.byte()? {
            1 => Decision::Allow,
            2 => Decision::Deny,
            _ => return None,
        };
        let reason = reason_of(reader.byte()?)?;
        let own = flag(&mut reader)?;
        let material_complete = flag(&mut reader)?;
        let evidence = if flag(&mut reader)? { Some(reader.digest()?) } else { None };
        let image_size = if flag(&mut reader)? { Some(image_size(&mut reader)?) } else { None };
        let text = reader.text()?.to_owned();
        let (place, material) = match reader.byte()? {
            IN_EVIDENCE => (Place::Evidence, Vec::new()),
            count => (Place::Record, (0..count).map(|_| reader.digest()).collect::<Option<_>>()?),
        };
        let (issued, not_after) = (record.issued, record.not_after);
        let verdict = Self {
            key,
            decision,
            reason,
            text,
            own,
            image_size,
            issued,
            not_after,
            evidence,
            material,
            // Nothing is complete until it has been found.
            material_complete: material_complete && place == Place::Record,
        };
        reader.is_empty().then_some((verdict, place))
    }
}

/// Where a verdict's material is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In the record itself.
    Record,
    /// In the evidence file, because it is too long for a record.
    Evidence,
}

fn image_size(reader: &mut Reader<'_>) -> Option<ImageSize> {
    Some(ImageSize { bytes: reader.number()?, layers: usize::try_from(reader.number()?).ok()? })
}

fn flag(reader: &mut Reader<'_>) -> Option<bool> {
    match reader.byte()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// Never change a number: it is on disk.
const fn reason_code(reason: Reason) -> u8 {
    match reason {
        Reason::Verified => 1,
        Reason::AcceptAnything => 2,
        Reason::Children => 3,
        Reason::Rejected => 4,
        Reason::NoSignature => 5,
        Reason::BadSignature => 6,
        Reason::IdentityMismatch => 7,
        Reason::NoLogEntry => 8,
        Reason::Expired => 9,
        Reason::TooManySignatures => 10,
        Reason::TooManyChildren => 11,
        Reason::UnsupportedDigest => 12,
        Reason::NotSupported => 13,
        Reason::TooLarge => 14,
        Reason::NoMatchingPolicy => 15,
        Reason::NoAttestation => 16,
        Reason::PolicyRule => 17,
        Reason::Warned => 18,
        Reason::WrongKey => 19,
        Reason::RotatedKey => 20,
    }
}

fn reason_of(code: u8) -> Option<Reason> {
    Reason::ALL.iter().copied().find(|reason| reason_code(*reason) == code)
}

/// The first byte of a verdict's body. A body of another form is none, so its verdict is reached again.
const BODY_FORM: u8 = 0x12;
/// Instead of a number of digests.
const IN_EVIDENCE: u8 = u8::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{VERDICT_MATERIAL_MAX, VERDICT_RECORD_BYTES_MAX, VERDICT_TEXT_BYTES_MAX};
    use crate::store::record::{Codec, RecordKey};
    use crate::store::testing::verdict;

    fn full() -> StoredVerdict {
        let material = (0..VERDICT_MATERIAL_MAX).map(|number| Digest::sha256(&number.to_be_bytes())).collect();
        StoredVerdict {
            evidence: Some(Digest::sha256(b"evidence")),
            material,
            text: "é".repeat(VERDICT_TEXT_BYTES_MAX / 2),
            image_size: Some(ImageSize { bytes: u64::MAX, layers: 1024 }),
            ..verdict("quay.io/a/b:1", Decision::Allow, 1)
        }
    }

    #[test]
    fn a_verdict_survives_its_record() {
        for reason in Reason::ALL.iter().copied() {
            for decision in [Decision::Allow, Decision::Deny] {
                let mut verdict = StoredVerdict { decision, reason, ..full() };
                verdict.material.truncate(3);
                let record = verdict.to_record(1000);
                let read = StoredVerdict::of_record(verdict.key.clone(), &record);
                assert_eq!(read, Some((verdict, Place::Record)));
            }
        }
    }

    #[test]
    fn material_that_does_not_fit_is_incomplete_until_it_is_found() {
        let record = full().to_record(600);
        let (read, place) = StoredVerdict::of_record(full().key, &record).unwrap();
        assert_eq!(place, Place::Evidence);
        assert_eq!(read, StoredVerdict { material: Vec::new(), material_complete: false, ..full() });
    }

    #[test]
    fn a_verdict_with_everything_at_its_longest_fits_into_a_record() {
        let name = "a".repeat(crate::limits::REPOSITORY_BYTES_MAX - "localhost:5000/".len());
        let image = format!("localhost:5000/{name}@sha512:{}", "0".repeat(128));
        let long = StoredVerdict { key: verdict(&image, Decision::Allow, 1).key, ..full() };
        let key = RecordKey::verdict(&long.key);
        let record = long.to_record(Codec::body_bytes_max(&key));
        let sealed = Codec::new(&[1; 32]).seal(&key, &record).unwrap();
        assert!(sealed.len() <= VERDICT_RECORD_BYTES_MAX);
        let tight = long.to_record(150);
        assert!(tight.body.len() <= 150);
        assert!(long.text.starts_with(&StoredVerdict::of_record(long.key.clone(), &tight).unwrap().0.text));
    }

    #[test]
    fn a_body_of_another_form_is_none() {
        let record = full().to_record(1000);
        for end in 0..record.body.len() {
            let cut = Record { body: record.body[..end].to_vec(), ..record.clone() };
            assert_eq!(StoredVerdict::of_record(full().key, &cut), None);
        }
        let mut longer = record;
        longer.body.push(0);
        assert_eq!(StoredVerdict::of_record(full().key, &longer), None);
        // As they were written before images had a size.
        let mut former = full().to_record(1000);
        former.body.remove(0);
        assert_eq!(StoredVerdict::of_record(full().key, &former), None);
    }

    #[test]
    fn a_verdicts_id_survives_its_text() {
        let id = full().key.id();
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "00", "00000000000000000", "000000000000000g"] {
            assert_eq!(bad.parse::<VerdictId>(), Err(VerdictIdError), "{bad}");
        }
    }
}
