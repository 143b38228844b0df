//! How a record looks on disk, whatever the database does to it.
//!
//! `magic | kind | key echo | issued | not_after | body | MAC`. The echo is the whole logical key (for a verdict: image,
//! digest, policy, trust root and verifier version), so a record copied under another key is none. The MAC covers the
//! database's key and everything before it. Whatever does not fit is corrupt, and a corrupt record is a miss.

use aws_lc_rs::hmac;

use super::VerdictKey;
use crate::clock::Timestamp;
use crate::limits::VERDICT_RECORD_BYTES_MAX;
use crate::oci::{Algorithm, Digest, ImageReference, Reference, Repository, Tag};
use crate::verify::VERIFIER_VERSION;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Verdict,
    Grants,
    Tag,
    MediaType,
    Referrers,
    Lookaside,
}

impl Kind {
    const ALL: [Self; 6] = [Self::Verdict, Self::Grants, Self::Tag, Self::MediaType, Self::Referrers, Self::Lookaside];

    /// The first byte of the database's key.
    pub(super) const fn prefix(self) -> u8 {
        match self {
            Self::Verdict => b'v',
            Self::Grants => b'g',
            Self::Tag => b't',
            Self::MediaType => b'm',
            Self::Referrers => b'r',
            Self::Lookaside => b'l',
        }
    }
}

/// The key of a record: its place in the database, and the echo that the record must carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RecordKey {
    place: Vec<u8>,
    kind: Kind,
    echo: Vec<u8>,
}

impl RecordKey {
    /// Begins with the verdict's id, so that one can be found by it.
    pub(super) fn verdict(key: &VerdictKey) -> Self {
        let mut echo = Writer::default();
        echo.image(&key.image);
        echo.digest(&key.digest);
        echo.digest(&key.policy);
        echo.digest(&key.trust_root);
        echo.text(VERIFIER_VERSION);
        Self { place: place(Kind::Verdict, key.hash().as_bytes()), kind: Kind::Verdict, echo: echo.0 }
    }

    pub(super) fn grants(repository: &Repository, digest: &Digest) -> Self {
        let mut echo = Writer::default();
        echo.repository(repository);
        echo.digest(digest);
        Self::of(Kind::Grants, echo.0)
    }

    pub(super) fn tag(repository: &Repository, tag: &Tag) -> Self {
        let mut echo = Writer::default();
        echo.repository(repository);
        echo.text(tag.as_str());
        Self::of(Kind::Tag, echo.0)
    }

    pub(super) fn referrers(repository: &Repository, digest: &Digest) -> Self {
        let mut echo = Writer::default();
        echo.repository(repository);
        echo.digest(digest);
        Self::of(Kind::Referrers, echo.0)
    }

    pub(super) fn lookaside(repository: &Repository, digest: &Digest) -> Self {
        let mut echo = Writer::default();
        echo.repository(repository);
        echo.digest(digest);
        Self::of(Kind::Lookaside, echo.0)
    }

    pub(super) fn media_type(digest: &Digest) -> Self {
        let mut echo = Writer::default();
        echo.digest(digest);
        Self::of(Kind::MediaType, echo.0)
    }

    fn of(kind: Kind, echo: Vec<u8>) -> Self {
        Self { place: place(kind, Digest::sha256(&echo).as_bytes()), kind, echo }
    }

    /// The key in the database: the kind, then a hash.
    pub(super) fn place(&self) -> &[u8] {
        &self.place
    }
}

fn place(kind: Kind, hash: &[u8]) -> Vec<u8> {
    std::iter::once(kind.prefix()).chain(hash.iter().copied()).collect()
}

/// The key of a verdict, out of its echo; `None` when another version of the verifier reached it.
pub(super) fn verdict_key(echo: &[u8]) -> Option<VerdictKey> {
    let mut reader = Reader(echo);
    let key = VerdictKey {
        image: reader.image()?,
        digest: reader.digest()?,
        policy: reader.digest()?,
        trust_root: reader.digest()?,
    };
    (reader.text()? == VERIFIER_VERSION && reader.is_empty()).then_some(key)
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) issued: Timestamp,
    pub(super) not_after: Timestamp,
    pub(super) body: Vec<u8>,
}

/// A record whose MAC and form are right, found without knowing its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) kind: Kind,
    pub(super) echo: Vec<u8>,
    pub(super) record: Record,
}

/// Not a record of ours, or not the one for that key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Corrupt;

/// Seals and opens records with one MAC key.
#[derive(Debug)]
pub(super) struct Codec(hmac::Key);

impl Codec {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The record's bytes; `None` when they would be more than `limits::VERDICT_RECORD_BYTES_MAX`.
    pub(super) fn seal(&self, key: &RecordKey, record: &Record) -> Option<Vec<u8>> {
        let mut writer = Writer(MAGIC.to_vec());
        writer.byte(key.kind.prefix());
        writer.bytes(&key.echo);
        writer.time(record.issued);
        writer.time(record.not_after);
        writer.bytes(&record.body);
        let mac = self.mac(&key.place, &writer.0);
        writer.0.extend_from_slice(mac.as_ref());
        (writer.0.len() <= VERDICT_RECORD_BYTES_MAX).then_some(writer.0)
    }

    /// Bytes that the body of a record of that key can have.
    pub(super) fn body_bytes_max(key: &RecordKey) -> usize {
        VERDICT_RECORD_BYTES_MAX.saturating_sub(ENVELOPE_BYTES + key.echo.len())
    }

    /// Opens the record that lies at `key`.
    pub(super) fn open(&self, key: &RecordKey, sealed: &[u8]) -> Result<Record, Corrupt> {
        let found = self.open_any(&key.place, sealed)?;
        if found.kind == key.kind && found.echo == key.echo { Ok(found.record) } else { Err(Corrupt) }
    }

    /// Opens the record that lies at `place`.
    pub(super) fn open_any(&self, place: &[u8], sealed: &[u8]) -> Result<Found, Corrupt> {
        let split = sealed.len().checked_sub(MAC_BYTES).ok_or(Corrupt)?;
        let (content, mac) = sealed.split_at_checked(split).ok_or(Corrupt)?;
        hmac::verify(&self.0, &mac_input(place, content), mac).map_err(|_| Corrupt)?;
        let mut reader = Reader(content.strip_prefix(MAGIC.as_slice()).ok_or(Corrupt)?);
        read_content(&mut reader).filter(|_| reader.is_empty()).ok_or(Corrupt)
    }

    fn mac(&self, place: &[u8], content: &[u8]) -> hmac::Tag {
        hmac::sign(&self.0, &mac_input(place, content))
    }
}

fn mac_input(place: &[u8], content: &[u8]) -> Vec<u8> {
    let mut input = Writer::default();
    input.bytes(place);
    input.0.extend_from_slice(content);
    input.0
}

fn read_content(reader: &mut Reader<'_>) -> Option<Found> {
    let prefix = reader.byte()?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.prefix() == prefix)?;
    let echo = reader.bytes()?.to_vec();
    let record = Record { issued: reader.time()?, not_after: reader.time()?, body: reader.bytes()?.to_vec() };
    Some(Found { kind, echo, record })
}

/// Appends values of fixed form.
#[derive(Debug, Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub(super) fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    pub(super) fn time(&mut self, time: Timestamp) {
        self.0.extend_from_slice(&time.unix_millis().to_be_bytes());
    }

    /// At most 65535 bytes: more could not be a record.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    pub(super) fn digest(&mut self, digest: &Digest) {
        self.byte(match digest.algorithm() {
            Algorithm::Sha256 => 1,
            Algorithm::Sha512 => 2,
        });
        self.0.extend_from_slice(digest.as_bytes());
    }

    pub(super) fn repository(&mut self, repository: &Repository) {
        self.text(repository.host().as_str());
        self.text(repository.name().as_str());
    }

    pub(super) fn reference(&mut self, reference: &Reference) {
        match reference {
            Reference::Tag(tag) => {
                self.byte(1);
                self.text(tag.as_str());
            }
            Reference::Digest(digest) => {
                self.byte(2);
                self.digest(digest);
            }
        }
    }

    pub(super) fn image(&mut self, image: &ImageReference) {
        self.repository(&image.repository);
        self.reference(&image.reference);
    }
}

/// Reads them back; `None` when they are not there.
#[derive(Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const COUNT: usize>(&mut self) -> Option<[u8; COUNT]> {
        self.take(COUNT)?.try_into().ok()
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn time(&mut self) -> Option<Timestamp> {
        self.array().map(i64::from_be_bytes).map(Timestamp::from_unix_millis)
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.array().map(u16::from_be_bytes)?;
        self.take(usize::from(length))
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    pub(super) fn digest(&mut self) -> Option<Digest> {
        let (name, hash) = match self.byte()? {
            1 => ("sha256", self.take(32)?),
            2 => ("sha512", self.take(64)?),
            _ => return None,
        };
        format!("{name}:{}", hex::encode(hash)).parse().ok()
    }

    pub(super) fn repository(&mut self) -> Option<Repository> {
        let host = self.text()?.parse().ok()?;
        let name = self.text()?.parse().ok()?;
        Repository::new(host, name).ok()
    }

    pub(super) fn reference(&mut self) -> Option<Reference> {
        match self.byte()? {
            1 => Some(Reference::Tag(self.text()?.parse().ok()?)),
            2 => Some(Reference::Digest(self.digest()?)),
            _ => None,
        }
    }

    pub(super) fn image(&mut self) -> Option<ImageReference> {
        Some(ImageReference::new(self.repository()?, self.reference()?))
    }
}

/// Also says which form of record this is; another form gets another directory and another magic.
const MAGIC: [u8; 4] = *b"sgr1";
const MAC_BYTES: usize = 32;
/// Magic, kind, two lengths, two times, MAC.
const ENVELOPE_BYTES: usize = 4 + 1 + 2 + 2 + 8 + 8 + MAC_BYTES;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::Decision;
    use crate::store::testing::verdict;

    fn codec() -> Codec {
        Codec::new(&[7; 32])
    }

    fn key(name: &str) -> RecordKey {
        RecordKey::media_type(&Digest::sha256(name.as_bytes()))
    }

    fn record(body: &[u8]) -> Record {
        Record { issued: Timestamp::from_unix_millis(-5), not_after: Timestamp::MAX, body: body.to_vec() }
    }

    #[test]
    fn a_record_survives_the_disk() {
        let sealed = codec().seal(&key("a"), &record(b"body")).unwrap();
        assert_eq!(codec().open(&key("a"), &sealed), Ok(record(b"body")));
    }

    #[test]
    fn a_record_under_another_key_is_none() {
        let sealed = codec().seal(&key("a"), &record(b"body")).unwrap();
        assert_eq!(codec().open(&key("b"), &sealed), Err(Corrupt));
        // Also for somebody who can sign it for that place, but not with the right echo.
        let forged = RecordKey { place: key("b").place, ..key("a") };
        let sealed = codec().seal(&forged, &record(b"body")).unwrap();
        assert_eq!(codec().open(&key("b"), &sealed), Err(Corrupt));
    }

    #[test]
    fn a_record_sealed_with_another_mac_key_is_none() {
        let sealed = Codec::new(&[8; 32]).seal(&key("a"), &record(b"body")).unwrap();
        assert_eq!(codec().open(&key("a"), &sealed), Err(Corrupt));
    }

    #[test]
    fn a_record_is_bounded() {
        let most = Codec::body_bytes_max(&key("a"));
        let sealed = codec().seal(&key("a"), &record(&vec![0; most])).unwrap();
        assert_eq!(sealed.len(), VERDICT_RECORD_BYTES_MAX);
        assert_eq!(codec().seal(&key("a"), &record(&vec![0; most + 1])), None);
    }

    #[test]
    fn a_verdicts_key_survives_its_echo() {
        let long = format!("localhost:5000/{}@sha512:{}", "a".repeat(240), "0".repeat(128));
        for image in ["quay.io/a/b:1", "myregistry.example:1/a:1", &long] {
            let key = verdict(image, Decision::Allow, 1).key;
            let record_key = RecordKey::verdict(&key);
            assert_eq!(verdict_key(&record_key.echo), Some(key.clone()));
            assert_eq!(record_key.place.get(1..9), Some(key.id().0.as_slice()));
        }
    }

    #[test]
    fn different_keys_lie_in_different_places() {
        let repository: ImageReference = "quay.io/a/b:1".parse().unwrap();
        let tag = "1".parse().unwrap();
        let digest = Digest::sha256(b"");
        let keys = [
            RecordKey::grants(&repository.repository, &digest),
            RecordKey::tag(&repository.repository, &tag),
            RecordKey::media_type(&digest),
            RecordKey::verdict(&verdict("quay.io/a/b:1", Decision::Allow, 1).key),
        ];
        for (place, one) in keys.iter().enumerate() {
            assert!(keys.iter().skip(place + 1).all(|other| one.place != other.place));
        }
    }

    proptest! {
        #[test]
        fn any_change_of_a_record_is_noticed(body in any::<Vec<u8>>(), at in any::<prop::sample::Index>(), bit in 0..8_u32) {
            let body: Vec<u8> = body.into_iter().take(500).collect();
            let mut sealed = codec().seal(&key("a"), &record(&body)).unwrap();
            let cut = at.index(sealed.len());
            prop_assert_eq!(codec().open(&key("a"), &sealed[..cut]), Err(Corrupt));
            sealed[cut] ^= 1_u8 << bit;
            prop_assert_eq!(codec().open(&key("a"), &sealed), Err(Corrupt));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in any::<Vec<u8>>()) {
            prop_assert_eq!(codec().open_any(b"place", &bytes), Err(Corrupt));
            let mut reader = Reader(&bytes);
            let _read = (reader.image(), reader.digest(), reader.time(), reader.number());
            let _content = read_content(&mut Reader(&bytes));
        }
    }
}
