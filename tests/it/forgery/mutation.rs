//! Good signatures with random changes.

use std::sync::LazyLock;

use proptest::prelude::*;
use sealgate::testing::sigstore::{FakeSignature, Flaw, Identity};
use sealgate::verify::SigstoreTrust;

use super::{Bench, EMAIL, ISSUER, REFERENCE, pki};

/// One change to some bytes.
#[derive(Debug, Clone)]
enum Mutation {
    Flip { at: usize, bits: u8 },
    Insert { at: usize, byte: u8 },
    Remove { at: usize },
    Truncate { at: usize },
}

impl Mutation {
    fn strategy() -> impl Strategy<Value = Self> {
        let at = any::<usize>;
        prop_oneof![
            (at(), 1..=255_u8).prop_map(|(at, bits)| Self::Flip { at, bits }),
            (at(), any::<u8>()).prop_map(|(at, byte)| Self::Insert { at, byte }),
            at().prop_map(|at| Self::Remove { at }),
            at().prop_map(|at| Self::Truncate { at }),
        ]
    }

    fn apply(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len().max(1);
        match *self {
            Self::Insert { at, byte } => bytes.insert(at % length, byte),
            Self::Truncate { at } => bytes.truncate(at % length),
            Self::Flip { .. } | Self::Remove { .. } if bytes.is_empty() => (),
            Self::Flip { at, bits } => bytes[at % length] ^= bits,
            Self::Remove { at } => drop(bytes.remove(at % length)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_payload_never_verifies(mutation in Mutation::strategy(), which in 0..4_usize) {
        let (trust, mut signature) = BENCH.pairs()[which].clone();
        let original = signature.payload.clone();
        mutation.apply(&mut signature.payload);
        let answer = BENCH.verify(&trust, &signature);
        prop_assert!(answer.is_err() || signature.payload == original, "{answer:?}");
    }

    /// Much of an annotation can change without a change of meaning (line ends, certificates that the chain does not need). What
    /// must hold: whatever still verifies is the same signature, by the same signer, for the same image, in the same entry.
    #[test]
    fn a_changed_annotation_never_verifies_as_anything_else(
        mutations in proptest::collection::vec(Mutation::strategy(), 1..4),
        annotation in any::<proptest::sample::Index>(),
        which in 0..4_usize,
    ) {
        let (trust, mut signature) = BENCH.pairs()[which].clone();
        let original = BENCH.verify(&trust, &signature).unwrap();
        let name = annotation.get(&signature.annotations.keys().cloned().collect::<Vec<_>>()).clone();
        let mut bytes = signature.annotations[&name].clone().into_bytes();
        for mutation in &mutations {
            mutation.apply(&mut bytes);
        }
        signature.annotations.insert(name, String::from_utf8_lossy(&bytes).into_owned());
        if let Ok(verified) = BENCH.verify(&trust, &signature) {
            prop_assert_eq!(verified.signer, original.signer);
            prop_assert_eq!(verified.signed_reference, original.signed_reference);
            prop_assert_eq!(verified.log, original.log);
        }
    }

    #[test]
    fn arbitrary_annotations_are_refused_cleanly(
        texts in proptest::collection::vec(".{0,200}", 5),
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        which in 0..4_usize,
    ) {
        let (trust, mut signature) = BENCH.pairs()[which].clone();
        let names = ["dev.cosignproject.cosign/signature", "dev.sigstore.cosign/bundle", "dev.sigstore.cosign/certificate",
            "dev.sigstore.cosign/chain", "dev.sigstore.cosign/rfc3161timestamp"];
        signature.annotations = names.into_iter().map(str::to_owned).zip(texts).collect();
        prop_assert!(BENCH.verify(&trust, &signature).is_err());
        signature.payload = payload;
        prop_assert!(BENCH.verify(&trust, &signature).is_err());
    }
}

static BENCH: LazyLock<Bench> = LazyLock::new(Bench::new);

impl Bench {
    /// Each kind of trust with a signature that is good under it.
    fn pairs(&self) -> [(SigstoreTrust, FakeSignature); 4] {
        let pki_signature =
            self.sigstore.sign_pki(REFERENCE, &self.subject, &Identity::email(EMAIL, ISSUER), Flaw::None);
        [
            (self.fulcio(), self.keyless(Flaw::None)),
            (self.logged_key(), self.keyed(Flaw::None)),
            (self.bare_key(), self.unlogged(Flaw::None)),
            (pki(self, Some(EMAIL), None), pki_signature),
        ]
    }
}
