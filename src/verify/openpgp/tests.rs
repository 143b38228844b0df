//! Keys and messages with one thing wrong, and bytes that nobody made.

#![expect(clippy::wildcard_enum_match_arm, reason = "every other refusal is a failed test")]
#![expect(clippy::print_stdout, reason = "seeds are to be seen")]

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::*;
use crate::clock::Clock;
use crate::testing::openpgp::{FakeOpenPgpKey, KeyFlaw, OpenPgpFlaw};
use crate::verify::{Cause, Place, Source};

const REFERENCE: &str = "quay.io/team/app:1";
const HOUR: std::time::Duration = std::time::Duration::from_hours(1);

fn subject() -> Digest {
    Digest::sha256(b"manifest")
}

fn candidate(message: Vec<u8>) -> OpenPgpSignature {
    let place = Place::Lookaside("https://lookaside.test/x/signature-1".to_owned());
    let source = Source { repository: None, manifest: Digest::sha256(&message), place, layer: 0 };
    OpenPgpSignature { signature: message.into(), source }
}

struct Holder {
    key: FakeOpenPgpKey,
    now: Timestamp,
}

impl Holder {
    fn new(flaw: KeyFlaw) -> Self {
        let now = Clock::System.now();
        Self { key: FakeOpenPgpKey::flawed(7, "holder", now, flaw), now }
    }

    fn keys(&self) -> OpenPgpKeys {
        OpenPgpKeys::parse(&[self.key.ring()]).unwrap()
    }

    fn verify(&self, message: Vec<u8>) -> Result<VerifiedSignature, VerifyError> {
        self.keys().verify(&candidate(message), &subject(), self.now)
    }

    fn sign(&self, flaw: OpenPgpFlaw) -> Vec<u8> {
        self.key.sign(REFERENCE, &subject(), flaw)
    }

    fn sign_with_subkey(&self) -> Vec<u8> {
        self.key.sign_with_subkey(REFERENCE, &subject(), OpenPgpFlaw::None)
    }
}

fn openpgp(result: Result<VerifiedSignature, VerifyError>) -> OpenPgpError {
    match result {
        Err(VerifyError::OpenPgp(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn primary_key_and_subkey_sign_in_the_name_of_the_primary_key() {
    let holder = Holder::new(KeyFlaw::None);
    for (message, notes) in [(holder.sign(OpenPgpFlaw::None), 0), (holder.sign_with_subkey(), 1)] {
        let verified = holder.verify(message).unwrap();
        assert_eq!(verified.signer, Signer::OpenPgp(holder.key.fingerprint()));
        assert_eq!(verified.signed_reference.to_string(), REFERENCE);
        assert_eq!((verified.not_after, verified.notes.len()), (None, notes));
    }
    let armored = OpenPgpKeys::parse(&[holder.key.armored_ring().into_bytes()]).unwrap();
    assert!(armored.verify(&candidate(holder.sign(OpenPgpFlaw::None)), &subject(), holder.now).is_ok());
    assert_eq!(armored.primary_fingerprints(), [holder.key.fingerprint()]);
    assert_ne!(armored.fingerprint(), holder.keys().fingerprint());
}

#[test]
fn each_flaw_of_a_message_refuses_it_for_its_own_reason() {
    let holder = Holder::new(KeyFlaw::None);
    let refused = |flaw| holder.verify(holder.sign(flaw)).unwrap_err();
    assert_eq!(refused(OpenPgpFlaw::OtherDigest).cause(), Cause::OtherImage);
    assert!(matches!(refused(OpenPgpFlaw::OtherType), VerifyError::PayloadType { .. }));
    assert!(matches!(refused(OpenPgpFlaw::DuplicateKey), VerifyError::PayloadJson(_)));
    assert!(matches!(refused(OpenPgpFlaw::UnknownField), VerifyError::PayloadUnknownKey { .. }));
    assert!(matches!(refused(OpenPgpFlaw::NoIdentity), VerifyError::PayloadMissingKey { .. }));
    assert!(matches!(refused(OpenPgpFlaw::TimestampNotInteger), VerifyError::PayloadField { .. }));
    assert!(matches!(refused(OpenPgpFlaw::NotJson), VerifyError::PayloadJson(_)));
    let of_message = |flaw| openpgp(holder.verify(holder.sign(flaw)));
    assert_eq!(of_message(OpenPgpFlaw::Unsigned), OpenPgpError::NotSigned);
    assert_eq!(of_message(OpenPgpFlaw::SignedTwice), OpenPgpError::SignatureCount { found: 2 });
    assert_eq!(of_message(OpenPgpFlaw::Corrupt), OpenPgpError::Signature);
    assert_eq!(of_message(OpenPgpFlaw::PayloadEdited), OpenPgpError::Signature);
    assert!(matches!(of_message(OpenPgpFlaw::Expired), OpenPgpError::Expired { .. }));
    assert!(matches!(of_message(OpenPgpFlaw::FromTheFuture), OpenPgpError::MadeInFuture { .. }));
    assert!(matches!(of_message(OpenPgpFlaw::TrailingBytes), OpenPgpError::InvalidData { .. }));
    assert!(matches!(of_message(OpenPgpFlaw::NotOpenPgp), OpenPgpError::InvalidData { .. }));
}

#[test]
fn a_signature_over_text_is_none_over_bytes() {
    let holder = Holder::new(KeyFlaw::None);
    let error = openpgp(holder.verify(holder.sign(OpenPgpFlaw::OverText)));
    assert_eq!(error, OpenPgpError::Unsupported { what: "signatures of this type" });
}

/// RFC 9580, 5.2.3.7.
#[test]
fn a_critical_subpacket_that_is_not_understood_takes_the_signature_away() {
    let holder = Holder::new(KeyFlaw::None);
    assert!(holder.verify(holder.sign(OpenPgpFlaw::Notation)).is_ok(), "what is not critical is passed over");
    for flaw in [OpenPgpFlaw::CriticalNotation, OpenPgpFlaw::CriticalExperiment] {
        let error = openpgp(holder.verify(holder.sign(flaw)));
        assert_eq!(error, OpenPgpError::Unsupported { what: "a critical subpacket of the signature" }, "{flaw:?}");
    }
}

#[test]
fn a_cut_message_and_one_with_a_byte_more_are_no_messages() {
    let holder = Holder::new(KeyFlaw::None);
    let message = holder.sign(OpenPgpFlaw::None);
    for byte in 0..=u8::MAX {
        let longer = [message.as_slice(), &[byte]].concat();
        assert!(holder.verify(longer).is_err(), "{byte:#x} after the message");
    }
    for length in 0..message.len() {
        assert!(holder.verify(message[..length].to_vec()).is_err(), "cut to {length}");
    }
}

#[test]
fn each_flaw_of_a_key_takes_its_signatures_away() {
    let why = |flaw: KeyFlaw, subkey: bool| {
        let holder = Holder::new(flaw);
        let message = if subkey { holder.sign_with_subkey() } else { holder.sign(OpenPgpFlaw::None) };
        match openpgp(holder.verify(message)) {
            OpenPgpError::KeyRefused { why, .. } => why,
            OpenPgpError::KeyExpired { .. } => "expired",
            other => panic!("{flaw:?}: {other}"),
        }
    };
    for subkey in [false, true] {
        assert_eq!(why(KeyFlaw::Expired, subkey), "expired", "a subkey ends with its primary key");
        assert_eq!(why(KeyFlaw::Revoked, subkey), "it is revoked");
    }
    for subkey in [false, true] {
        assert_eq!(why(KeyFlaw::UserIdRevoked, subkey), "it has no valid self-signature");
        let again = Holder::new(KeyFlaw::UserIdCertifiedAgain);
        let message = if subkey { again.sign_with_subkey() } else { again.sign(OpenPgpFlaw::None) };
        assert!(again.verify(message).is_ok(), "the newest statement counts");
    }
    assert_eq!(why(KeyFlaw::SubkeyExpired, true), "expired");
    assert_eq!(why(KeyFlaw::SubkeyRevoked, true), "it is revoked");
    assert_eq!(why(KeyFlaw::SubkeyNotForSigning, true), "it is not for signing");
    assert_eq!(why(KeyFlaw::SubkeyWithoutBackSignature, true), "it does not confirm its primary key");
    for flaw in [KeyFlaw::SubkeyExpired, KeyFlaw::SubkeyRevoked, KeyFlaw::SubkeyNotForSigning] {
        let holder = Holder::new(flaw);
        assert!(holder.verify(holder.sign(OpenPgpFlaw::None)).is_ok(), "{flaw:?}: the primary key itself may sign");
    }
}

#[test]
fn a_key_that_ends_bounds_the_verdict_and_ends_at_that_moment() {
    let holder = Holder::new(KeyFlaw::Expired);
    let end = match openpgp(holder.verify(holder.sign(OpenPgpFlaw::None))) {
        OpenPgpError::KeyExpired { at, .. } => at,
        other => panic!("{other}"),
    };
    // The signature is of two hours ago, the end an hour ago.
    let at = |now| holder.keys().verify(&candidate(holder.sign(OpenPgpFlaw::None)), &subject(), now);
    let before = end.minus(std::time::Duration::from_millis(1));
    assert_eq!(at(before).unwrap().not_after, Some(end));
    assert!(matches!(openpgp(at(end)), OpenPgpError::KeyExpired { .. }));
    assert!(holder.keys().unusable(end).is_some() && holder.keys().unusable(before).is_none());
}

#[test]
fn a_signature_older_than_its_key_is_refused() {
    let older = FakeOpenPgpKey::from_seed(7, "holder", Clock::System.now().minus(HOUR * 24 * 800));
    let holder = Holder::new(KeyFlaw::None);
    let error =
        holder.keys().verify(&candidate(older.sign(REFERENCE, &subject(), OpenPgpFlaw::None)), &subject(), holder.now);
    // The fake makes another key for another time, since its fingerprint holds it.
    assert!(matches!(openpgp(error), OpenPgpError::KeyUnknown { .. }));
    let key = &holder.keys().keys[0];
    assert!(matches!(
        key.check(holder.now.minus(HOUR * 24 * 366), holder.now),
        Err(OpenPgpError::MadeBeforeKey { .. })
    ));
}

#[test]
fn compressed_messages_are_read_and_bounded_on_both_sides() {
    let holder = Holder::new(KeyFlaw::None);
    let payload = holder.key.sign_bytes(b"not a payload");
    assert!(matches!(holder.verify(payload), Err(VerifyError::PayloadJson(_))));
    let max = usize::try_from(SIGNATURE_BYTES_MAX).unwrap();
    let overhead = 512;
    let fits = holder.key.sign_compressed(&vec![b' '; max - overhead]);
    assert!(fits.len() < 10_000, "it is compressed");
    assert!(matches!(holder.verify(fits), Err(VerifyError::PayloadJson(_))));
    let bomb = holder.key.sign_compressed(&vec![b' '; max + 1]);
    assert!(bomb.len() < 10_000);
    assert_eq!(openpgp(holder.verify(bomb)), OpenPgpError::TooLarge { max: SIGNATURE_BYTES_MAX });
    let bomb = holder.key.sign_compressed(&vec![b' '; 64 * max]);
    assert_eq!(openpgp(holder.verify(bomb)), OpenPgpError::TooLarge { max: SIGNATURE_BYTES_MAX });
    let long = vec![0xa3; max + 1];
    assert!(matches!(holder.verify(long), Err(VerifyError::PayloadTooLarge { .. })));
}

#[test]
fn weak_hashes_are_refused_whoever_signs() {
    for weak in [
        HashAlgorithm::Md5,
        HashAlgorithm::Sha1,
        HashAlgorithm::Ripemd160,
        HashAlgorithm::None,
        HashAlgorithm::Other(99),
    ] {
        assert!(!is_strong(weak), "{weak:?}");
    }
    // A message that says SHA-1 in its signature: the byte after version, type and key algorithm.
    let holder = Holder::new(KeyFlaw::None);
    let message = holder.sign(OpenPgpFlaw::None);
    let signature = message::read(&message).unwrap().signature;
    let (strong, weak) = (signature.hash_alg().unwrap(), HashAlgorithm::Sha1);
    let mut found = 0;
    for at in 0..message.len() {
        if message[at] != u8::from(strong) {
            continue;
        }
        for other in at..message.len() {
            let mut edited = message.clone();
            edited[at] = u8::from(weak);
            if message[other] == u8::from(strong) {
                edited[other] = u8::from(weak);
            }
            if matches!(holder.verify(edited), Err(VerifyError::OpenPgp(OpenPgpError::Weak { .. }))) {
                found += 1;
            }
        }
    }
    assert!(found > 0, "announcement and signature both say SHA-1");
}

#[test]
fn rings_that_are_none_are_errors_that_print_nothing_of_them() {
    let holder = Holder::new(KeyFlaw::None);
    let armored = holder.key.armored_ring();
    for (ring, word) in [
        (b"hush".to_vec(), "neither binary nor armored"),
        (vec![0xff; 40], "malformed OpenPGP key ring"),
        (holder.sign(OpenPgpFlaw::None), "there is no public key in it"),
        (armored.replace("PUBLIC KEY BLOCK", "MESSAGE").into_bytes(), "no PGP PUBLIC KEY BLOCK"),
        (armored.replace("PUBLIC KEY", "PRIVATE KEY").into_bytes(), "private OpenPGP key"),
        ([&[0; 8], b"KBXf".as_slice()].concat(), "gpg --export"),
    ] {
        let error = OpenPgpKeys::parse(&[ring]).unwrap_err().to_string();
        assert!(error.contains(word) && !error.contains("hush"), "{error}");
    }
    let ring = holder.key.ring();
    assert!(OpenPgpKeys::parse(&[ring[..ring.len() / 2].to_vec()]).map_or(true, |keys| keys.keys.len() < 2));
    let nobody = OpenPgpKeys::parse(&[]).unwrap();
    let error = nobody.verify(&candidate(holder.sign(OpenPgpFlaw::None)), &subject(), holder.now);
    assert_eq!(openpgp(error), OpenPgpError::NoKeys);
}

#[test]
fn the_other_digest_algorithm_is_not_bound() {
    let holder = Holder::new(KeyFlaw::None);
    let subject = Digest::of(Algorithm::Sha512, b"manifest");
    let error = holder.keys().verify(&candidate(holder.sign(OpenPgpFlaw::None)), &subject, holder.now);
    assert_eq!(error.map(drop), Err(VerifyError::SubjectAlgorithm { subject }));
}

/// A runner whose seed is printed when it fails.
fn runner(cases: u32) -> TestRunner {
    let seed = [7; 32];
    println!("seed {seed:?}");
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
}

#[test]
fn no_changed_byte_makes_another_signed_statement_and_none_panics() {
    let holder = Holder::new(KeyFlaw::None);
    let keys = holder.keys();
    let messages = [holder.sign(OpenPgpFlaw::None), holder.sign_with_subkey(), holder.key.sign_compressed(b"{}")];
    let change = (0..messages.len(), any::<prop::sample::Index>(), any::<u8>(), any::<bool>());
    let checked = runner(4000).run(&change, |(which, at, byte, insert)| {
        let mut message = messages[which].clone();
        let at = at.index(message.len());
        if insert {
            message.insert(at, byte);
        } else {
            message[at] = byte;
        }
        if let Ok(verified) = keys.verify(&candidate(message), &subject(), holder.now) {
            // What is not signed may change, such as a date beside the data; what is signed may not.
            prop_assert_eq!(verified.signer, Signer::OpenPgp(holder.key.fingerprint()));
            prop_assert_eq!(verified.signed_reference.to_string(), REFERENCE);
        }
        Ok(())
    });
    checked.unwrap();
}

#[test]
fn bytes_that_nobody_made_are_refused_and_none_panics() {
    let holder = Holder::new(KeyFlaw::None);
    let keys = holder.keys();
    let ring = holder.key.ring();
    let bytes = prop::collection::vec(any::<u8>(), 0..400);
    runner(4000)
        .run(&(bytes, any::<prop::sample::Index>(), any::<u8>()), |(mut bytes, at, byte)| {
            prop_assert!(keys.verify(&candidate(bytes.clone()), &subject(), holder.now).is_err());
            drop(OpenPgpKeys::parse(&[bytes.clone()]));
            if let Some(first) = bytes.first_mut() {
                *first |= 0xc0;
            }
            prop_assert!(keys.verify(&candidate(bytes.clone()), &subject(), holder.now).is_err());
            drop(OpenPgpKeys::parse(&[bytes]));
            let mut edited = ring.clone();
            let at = at.index(edited.len());
            edited[at] = byte;
            drop(OpenPgpKeys::parse(&[edited]));
            Ok(())
        })
        .unwrap();
}
