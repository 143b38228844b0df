//! Bundles v0.3 and `.att` attestations under a trust root: every good kind is accepted, every flaw is refused for its own
//! reason (the list "Bundles v0.3" of the forgery matrix).

use sealgate::clock::{Clock, Timestamp};
use sealgate::oci::Digest;
use sealgate::testing::sigstore::{BundleBuilder, FakeKey, FakeSigstore, Flaw, Identity, RootFlaw};
use sealgate::verify::{
    AuthorityTrust, IdentityPattern, KeyHash, LogRule, SctRule, SignatureMaterial, Signer, Signers, SigstoreRoot,
    TextPattern, TimestampRule, VerifyError,
};

use super::{EMAIL, ISSUER, SEED};

const BOTH: [By; 2] = [By::Keyless, By::Keyed];
const V1: [Log; 2] = [Log::V1, Log::V1Intoto];
const ALL: [Log; 3] = [Log::V1, Log::V1Intoto, Log::V2];

/// Under which trust a bundle is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Keyless,
    Keyed,
}

/// Which log takes it in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Log {
    V1,
    V1Intoto,
    V2,
}

pub(super) struct Bench {
    pub(super) sigstore: FakeSigstore,
    identity: Identity,
    key: FakeKey,
    pub(super) subject: Digest,
    now: Timestamp,
}

impl Bench {
    pub(super) fn new() -> Self {
        let now = Clock::System.now();
        println!("seed {SEED}, now {now}");
        let sigstore = FakeSigstore::from_seed(SEED, now);
        let key = sigstore.key("team");
        Self { sigstore, identity: Identity::email(EMAIL, ISSUER), key, subject: Digest::sha256(b"the manifest"), now }
    }

    /// A good bundle: entries of v1 in a tree of three, those of v2 with a timestamp.
    pub(super) fn good(&self, by: By, log: Log) -> BundleBuilder<'_> {
        let builder = match by {
            By::Keyless => self.sigstore.bundle_by(&self.identity, &self.subject),
            By::Keyed => self.sigstore.bundle_keyed(&self.key, &self.subject),
        };
        match log {
            Log::V1 => builder.tree(3, 1),
            Log::V1Intoto => builder.intoto().tree(3, 1),
            Log::V2 => builder.rekor_v2().timestamped().tree(3, 1),
        }
    }

    fn root(&self, flaw: RootFlaw) -> SigstoreRoot {
        SigstoreRoot::from_json(self.sigstore.trusted_root_but(flaw).as_bytes()).unwrap()
    }

    pub(super) fn trust(&self, by: By, root: RootFlaw) -> AuthorityTrust {
        let root = self.root(root);
        AuthorityTrust::new(self.signers(by, root.clone()), LogRule::Required(root), TimestampRule::NotAsked)
    }

    fn signers(&self, by: By, root: SigstoreRoot) -> Signers {
        match by {
            By::Keyless => Signers::Keyless { root, identities: vec![identity(EMAIL)], sct: SctRule::Required },
            By::Keyed => Signers::Keys { keys: vec![self.key.public()], hash: KeyHash::Sha256 },
        }
    }

    pub(super) fn signature(
        &self,
        trust: &AuthorityTrust,
        material: &SignatureMaterial,
    ) -> Result<Signer, VerifyError> {
        trust.verify_signature(material, &self.subject, self.now).map(|verified| verified.signer)
    }

    fn accepted(&self, by: By, bundle: &BundleBuilder<'_>) {
        let accepted = self.signature(&self.trust(by, RootFlaw::None), &bundle.build().material());
        accepted.unwrap_or_else(|error| panic!("{by:?} {bundle:?}: {error}"));
    }

    /// The variant that refuses this bundle.
    fn refused(&self, by: By, bundle: &BundleBuilder<'_>) -> String {
        let error = self.signature(&self.trust(by, RootFlaw::None), &bundle.build().material()).unwrap_err();
        println!("{error}");
        variant(&error)
    }

    /// Each flaw is refused by its variant.
    fn all_refused(&self, by: &[By], logs: &[Log], rows: &[(Flaw, &str)]) {
        for (by, log) in by.iter().flat_map(|by| logs.iter().map(move |log| (*by, *log))) {
            for (flaw, expected) in rows {
                println!("{by:?} {log:?} {flaw:?}");
                let found = self.refused(by, &self.good(by, log).flaw(*flaw));
                assert_eq!(found, *expected, "{by:?} {log:?} {flaw:?}");
            }
        }
    }
}

fn identity(subject: &str) -> IdentityPattern {
    let (issuer, subject) = (TextPattern::Exactly(ISSUER.to_owned()), TextPattern::Exactly(subject.to_owned()));
    IdentityPattern { issuer, subject }
}

/// The name of the variant.
fn variant(error: &VerifyError) -> String {
    let debug = format!("{error:?}");
    debug.split([' ', '(', '{']).next().unwrap().to_owned()
}

#[test]
fn every_good_bundle_is_accepted_with_its_signer() {
    let bench = Bench::new();
    for (by, log) in BOTH.iter().flat_map(|by| ALL.iter().map(move |log| (*by, *log))) {
        let bundle = bench.good(by, log).build();
        let signer = bench.signature(&bench.trust(by, RootFlaw::None), &bundle.material()).unwrap();
        match by {
            By::Keyless => assert!(
                matches!(&signer, Signer::Certificate { subjects, .. } if subjects == &[EMAIL]),
                "{log:?}: {signer:?}"
            ),
            By::Keyed => assert_eq!(signer, Signer::Key(bench.key.fingerprint()), "{log:?}"),
        }
    }
}

#[test]
fn a_keyed_bundle_without_a_log_is_accepted_where_the_policy_asks_for_none_and_nowhere_else() {
    let bench = Bench::new();
    let bundle = bench.sigstore.bundle_keyed(&bench.key, &bench.subject).unlogged();
    let signers = bench.signers(By::Keyed, bench.root(RootFlaw::None));
    let bare = AuthorityTrust::new(signers, LogRule::NotAsked, TimestampRule::NotAsked);
    bench.signature(&bare, &bundle.build().material()).unwrap();
    for flaw in [Flaw::CorruptSignature, Flaw::SignatureOverBodyOnly, Flaw::PayloadEdited, Flaw::GarbageSignature] {
        let error = bench.signature(&bare, &bundle.clone().flaw(flaw).build().material()).unwrap_err();
        assert_eq!(error, VerifyError::Signature, "{flaw:?}");
    }
    assert_eq!(bench.refused(By::Keyed, &bundle), "LogEntryMissing");
    let keyless = bench.sigstore.bundle_by(&bench.identity, &bench.subject).unlogged();
    assert_eq!(bench.refused(By::Keyless, &keyless), "LogEntryMissing");
}

#[test]
fn key_and_certificate_do_not_stand_in_for_each_other() {
    let bench = Bench::new();
    assert_eq!(bench.refused(By::Keyed, &bench.good(By::Keyless, Log::V1)), "CertificateNotKey");
    assert_eq!(bench.refused(By::Keyless, &bench.good(By::Keyed, Log::V1)), "KeyNotCertificate");
    let stranger = bench.sigstore.key("somebody else's");
    assert_eq!(bench.refused(By::Keyed, &bench.sigstore.bundle_keyed(&stranger, &bench.subject)), "Signature");
    let stranger = Identity::email("other@corp.com", ISSUER);
    assert_eq!(bench.refused(By::Keyless, &bench.sigstore.bundle_by(&stranger, &bench.subject)), "OtherIdentity");
}

/// The proof that an entry is in the log, each part changed alone; the promise stays good.
#[test]
fn v09_a_proof_that_does_not_hold_is_refused_though_the_promise_does() {
    let bench = Bench::new();
    bench.all_refused(
        &BOTH,
        &ALL,
        &[
            (Flaw::NoProof, "LogProofMissing"),
            (Flaw::NoCheckpoint, "LogProofMissing"),
            (Flaw::ProofHashEdited, "LogProof"),
            (Flaw::RootHashEdited, "LogCheckpoint"),
            (Flaw::TreeSizeEdited, "LogCheckpoint"),
            (Flaw::CheckpointCorrupt, "LogCheckpoint"),
            (Flaw::CheckpointOriginEdited, "LogCheckpoint"),
            (Flaw::CheckpointRootEdited, "LogCheckpoint"),
            (Flaw::CheckpointByOtherLog, "LogCheckpoint"),
            (Flaw::OtherLog, "LogUnknown"),
        ],
    );
    bench.all_refused(&BOTH, &V1, &[(Flaw::ProofIndexEdited, "LogProof")]);
    bench.all_refused(&BOTH, &[Log::V2], &[(Flaw::LogIndexEdited, "LogProof")]);
}

#[test]
fn a_promise_that_does_not_hold_is_refused_though_the_proof_does() {
    let bench = Bench::new();
    bench.all_refused(
        &BOTH,
        &V1,
        &[
            (Flaw::IntegratedTimeEdited, "LogSet"),
            (Flaw::LogIndexEdited, "LogSet"),
            (Flaw::SetCorrupt, "LogSet"),
            (Flaw::SetByOtherLog, "LogSet"),
            (Flaw::NoPromise, "NoTrustedTime"),
            (Flaw::IntegratedInFuture, "LoggedInFuture"),
        ],
    );
    bench.all_refused(
        &[By::Keyless],
        &V1,
        &[
            (Flaw::IntegratedAfterCertificate, "LoggedOutsideCertificate"),
            (Flaw::IntegratedBeforeCertificate, "LoggedOutsideCertificate"),
        ],
    );
}

/// CVE-2022-36056, CVE-2026-22703: a valid entry of something else.
/// CVE-2024-51746, CVE-2024-53267.
#[test]
fn the_entry_of_another_envelope_is_refused() {
    let bench = Bench::new();
    let rows = [Flaw::UnrelatedEntry, Flaw::EntryOfOtherPayload, Flaw::EntryOfOtherSigner];
    bench.all_refused(&BOTH, &V1, &rows.map(|flaw| (flaw, "LogOtherEnvelope")));
    bench.all_refused(
        &BOTH,
        &[Log::V2],
        &[
            (Flaw::UnrelatedEntry, "LogOtherPayload"),
            (Flaw::EntryOfOtherPayload, "LogOtherPayload"),
            (Flaw::EntryOfOtherSigner, "LogOtherEnvelope"),
        ],
    );
    bench.all_refused(&[By::Keyless], &V1, &[(Flaw::KeyUsedAfterCertificate, "LogOtherEnvelope")]);
    bench.all_refused(&BOTH, &ALL, &[(Flaw::OtherEntryKind, "LogEntryKind"), (Flaw::NoLogEntry, "LogEntryMissing")]);
}

/// CVE-2026-49834: an entry counts once, and a log counts once under whatever ids.
#[test]
fn v12_an_entry_or_a_log_counts_once() {
    let bench = Bench::new();
    bench.all_refused(&BOTH, &ALL, &[(Flaw::SameEntryTwice, "LogEntryTwice")]);

    // The root has the log under two ids, the bundle has its entry under both.
    let mut bundle = bench.good(By::Keyless, Log::V1).build();
    let other_id = bench.sigstore.trusted_root_but(RootFlaw::LogUnderTwoIds);
    let other_id: serde_json::Value = serde_json::from_str(&other_id).unwrap();
    let entries = &mut bundle.json["verificationMaterial"]["tlogEntries"];
    let mut again = entries[0].clone();
    again["logId"] = other_id["tlogs"][1]["logId"].clone();
    again.as_object_mut().unwrap().remove("inclusionPromise");
    entries.as_array_mut().unwrap().push(again);
    let error = bench.signature(&bench.trust(By::Keyless, RootFlaw::LogUnderTwoIds), &bundle.material()).unwrap_err();
    assert_eq!(variant(&error), "LogEntryTwice", "{error}");
}

#[test]
fn several_entries_of_which_all_verify_are_accepted() {
    let bench = Bench::new();
    for (by, log) in BOTH.iter().flat_map(|by| ALL.iter().map(move |log| (*by, *log))) {
        bench.accepted(by, &bench.good(by, log).entries(2));
    }
}

/// CVE-2026-54787, CVE-2026-24122: a key or an authority outside its window in the trust root, looked at when it was used.
#[test]
fn v13_keys_and_authorities_count_within_their_windows_alone() {
    let bench = Bench::new();
    let rows: [(&[By], &[Log], RootFlaw, &str); 9] = [
        (&BOTH, &V1, RootFlaw::LogKeyEnded, "LogKeyTime"),
        (&BOTH, &V1, RootFlaw::LogKeyNotYetValid, "LogKeyTime"),
        (&BOTH, &[Log::V2], RootFlaw::LogKeyV2Ended, "LogKeyTime"),
        (&BOTH, &[Log::V2], RootFlaw::LogKeyV2NotYetValid, "LogKeyTime"),
        (&[By::Keyless], &ALL, RootFlaw::AuthorityEnded, "AuthorityTime"),
        (&[By::Keyless], &ALL, RootFlaw::AuthorityNotYetValid, "AuthorityTime"),
        (&[By::Keyless], &ALL, RootFlaw::CertificateLogEnded, "Sct"),
        (&BOTH, &[Log::V2], RootFlaw::TimestampAuthorityEnded, "TimestampAuthorityTime"),
        (&BOTH, &[Log::V2], RootFlaw::TimestampAuthorityNotYetValid, "TimestampAuthorityTime"),
    ];
    for (by, logs, root, expected) in rows {
        for (by, log) in by.iter().flat_map(|by| logs.iter().map(move |log| (*by, *log))) {
            let bundle = bench.good(by, log).build();
            let error = bench.signature(&bench.trust(by, root), &bundle.material()).unwrap_err();
            assert_eq!(variant(&error), expected, "{by:?} {log:?} {root:?}: {error}");
        }
    }
}

#[test]
fn what_the_root_does_not_hold_vouches_for_nothing() {
    let bench = Bench::new();
    let rows = [
        (By::Keyless, Log::V1, RootFlaw::NoLog, "LogUnknown"),
        (By::Keyed, Log::V1, RootFlaw::NoLog, "LogUnknown"),
        (By::Keyless, Log::V2, RootFlaw::NoLogV2, "LogUnknown"),
        (By::Keyed, Log::V2, RootFlaw::NoLogV2, "LogUnknown"),
        (By::Keyless, Log::V2, RootFlaw::NoTimestampAuthority, "NoTrustedTime"),
        (By::Keyed, Log::V2, RootFlaw::NoTimestampAuthority, "NoTrustedTime"),
    ];
    for (by, log, root, expected) in rows {
        let bundle = bench.good(by, log).build();
        let error = bench.signature(&bench.trust(by, root), &bundle.material()).unwrap_err();
        assert_eq!(variant(&error), expected, "{by:?} {log:?} {root:?}: {error}");
    }
    bench
        .signature(
            &bench.trust(By::Keyless, RootFlaw::NoCertificateLog),
            &bench.good(By::Keyless, Log::V1).build().material(),
        )
        .unwrap_err();
}

/// CVE-2026-39984: the token's own certificate counts, whatever lies beside it. V-11 for timestamps.
#[test]
fn a_timestamp_counts_only_by_a_trusted_authority_over_this_signature_within_the_certificate() {
    let bench = Bench::new();
    let rows = [
        Flaw::TimestampOfOtherSignature,
        Flaw::TimestampByOtherAuthority,
        Flaw::TimestampCorrupt,
        Flaw::TimestampNotGranted,
        Flaw::TimestampWithDecoy,
    ];
    bench.all_refused(&BOTH, &[Log::V2], &rows.map(|flaw| (flaw, "TimestampInvalid")));
    bench.all_refused(&BOTH, &[Log::V2], &[(Flaw::NoTimestamp, "NoTrustedTime")]);
    bench.all_refused(
        &[By::Keyless],
        &[Log::V2],
        &[
            (Flaw::TimestampAfterCertificate, "TimestampOutsideCertificate"),
            (Flaw::TimestampBeforeCertificate, "TimestampOutsideCertificate"),
        ],
    );
    // A bad timestamp is not made good by the log's promise.
    for flaw in rows {
        let bundle = bench.good(By::Keyless, Log::V1).timestamped().flaw(flaw);
        assert_eq!(bench.refused(By::Keyless, &bundle), "TimestampInvalid", "{flaw:?}");
    }
}

/// CVE-2022-35929, CVE-2026-39395: an attestation, or something that cannot be read, is no signature.
/// CVE-2022-35930.
#[test]
fn v16_an_envelope_that_is_not_exactly_one_signature_over_one_statement_is_refused() {
    let bench = Bench::new();
    bench.all_refused(
        &BOTH,
        &ALL,
        &[
            (Flaw::OtherPayloadType, "EnvelopeType"),
            (Flaw::PayloadTypeEdited, "EnvelopeType"),
            (Flaw::PayloadEdited, "Signature"),
            (Flaw::SignatureOverBodyOnly, "Signature"),
            (Flaw::SignatureWithoutLengths, "Signature"),
            (Flaw::SignatureOfOtherPayload, "Signature"),
            (Flaw::GarbageSignature, "Signature"),
            (Flaw::CorruptSignature, "Signature"),
            (Flaw::NoSignature, "EnvelopeSignatures"),
            (Flaw::TwoSignatures, "EnvelopeSignatures"),
            (Flaw::SecondSignatureBad, "EnvelopeSignatures"),
            (Flaw::MalformedBase64, "BundleMalformed"),
            (Flaw::StatementNotJson, "StatementJson"),
            (Flaw::DuplicateKey, "StatementJson"),
            (Flaw::OtherStatementType, "StatementType"),
            (Flaw::OtherPredicateType, "NotASignature"),
        ],
    );
}

#[test]
fn v17_a_statement_binds_by_the_sha256_of_one_of_its_subjects_within_bounds() {
    let bench = Bench::new();
    let rows = [Flaw::OtherDigest, Flaw::NoSubject, Flaw::SubjectUnderSha512, Flaw::SubjectByNameOnly];
    bench.all_refused(&BOTH, &ALL, &rows.map(|flaw| (flaw, "OtherSubject")));

    for by in BOTH {
        let good = || bench.good(by, Log::V1);
        bench.accepted(by, &good().subjects(2));
        bench.accepted(by, &good().subjects(1024));
        assert_eq!(bench.refused(by, &good().subjects(1025)), "TooMany");
        bench.accepted(by, &good().digests(32));
        assert_eq!(bench.refused(by, &good().digests(33)), "TooMany");
    }
}

/// CVE-2024-45395.
#[test]
fn v18_log_entries_and_timestamps_are_bounded_on_both_sides() {
    let bench = Bench::new();
    for by in BOTH {
        for log in [Log::V1, Log::V2] {
            let good = || bench.good(by, log).timestamped();
            bench.accepted(by, &good().entries(32));
            assert_eq!(bench.refused(by, &good().entries(33)), "TooMany");
            bench.accepted(by, &good().timestamps(32));
            assert_eq!(bench.refused(by, &good().timestamps(33)), "TooMany");
        }
    }
}

#[test]
fn certificates_are_checked_in_bundles_as_elsewhere() {
    let bench = Bench::new();
    bench.all_refused(
        &[By::Keyless],
        &ALL,
        &[
            (Flaw::OtherCa, "ChainUntrusted"),
            (Flaw::RootAsLeaf, "ChainUntrusted"),
            (Flaw::OtherPurpose, "ChainUntrusted"),
            (Flaw::InconsistentIssuer, "IssuerInconsistent"),
            (Flaw::NoSct, "Sct"),
            (Flaw::SctByUnknownLog, "Sct"),
            (Flaw::SctForOtherCertificate, "Sct"),
            (Flaw::EmptyChain, "BundleMalformed"),
            (Flaw::RootInChain, "BundleMalformed"),
            (Flaw::MediaTypeV01, "BundleVersion"),
            (Flaw::MediaTypeV02, "BundleVersion"),
        ],
    );
}

#[test]
fn a_timestamp_that_the_policy_asks_for_must_be_there_and_hold() {
    let bench = Bench::new();
    let root = bench.root(RootFlaw::None);
    for by in BOTH {
        let signers = bench.signers(by, root.clone());
        let trust =
            AuthorityTrust::new(signers, LogRule::Required(root.clone()), TimestampRule::Required(root.clone()));
        let judge = |bundle: BundleBuilder<'_>| bench.signature(&trust, &bundle.build().material());
        judge(bench.good(by, Log::V1).timestamped()).unwrap();
        assert_eq!(judge(bench.good(by, Log::V1)), Err(VerifyError::TimestampMissing));
        let error = judge(bench.good(by, Log::V1).timestamped().flaw(Flaw::TimestampCorrupt)).unwrap_err();
        assert_eq!(variant(&error), "TimestampInvalid");
    }
}

/// GHSA of policy-controller's `--enable-oci11` (policy-controller#1971): an attestation is verified as strictly as a
/// signature, in bundles and at `.att`.
#[test]
fn an_attestation_counts_only_when_it_is_signed_logged_and_about_the_image() {
    let bench = Bench::new();
    let rows = [
        (Flaw::OtherDigest, "OtherSubject"),
        (Flaw::SubjectByNameOnly, "OtherSubject"),
        (Flaw::StatementNotJson, "StatementJson"),
        (Flaw::OtherPayloadType, "EnvelopeType"),
        (Flaw::PayloadEdited, "Signature"),
        (Flaw::SignatureOverBodyOnly, "Signature"),
        (Flaw::CorruptSignature, "Signature"),
        (Flaw::NoSignature, "EnvelopeSignatures"),
        (Flaw::TwoSignatures, "EnvelopeSignatures"),
        (Flaw::SecondSignatureBad, "EnvelopeSignatures"),
        (Flaw::SetCorrupt, "LogSet"),
        (Flaw::EntryOfOtherPayload, "LogOtherEnvelope"),
        (Flaw::EntryOfOtherSigner, "LogOtherEnvelope"),
    ];
    for (by, log) in BOTH.iter().flat_map(|by| V1.iter().map(move |log| (*by, *log))) {
        let trust = bench.trust(by, RootFlaw::None);
        let attest = |flaw| bench.good(by, log).predicate(PROVENANCE, serde_json::json!({"a": 1})).flaw(flaw);
        let judge = |material: SignatureMaterial| trust.verify_attestation(&material, &bench.subject, bench.now);
        for material in
            [attest(Flaw::None).build().material(), attest(Flaw::None).build_attestation().attestation_material()]
        {
            let verified = judge(material).unwrap();
            assert_eq!(verified.statement.predicate_type, PROVENANCE);
            assert_eq!(verified.statement.json["predicate"]["a"], 1);
        }
        for (flaw, expected) in rows {
            let error = judge(attest(flaw).build().material()).unwrap_err();
            assert_eq!(variant(&error), expected, "bundle {by:?} {log:?} {flaw:?}: {error}");
            // `.att` layers bring promises without proofs; the annotation is what is edited there.
            if flaw != Flaw::SetCorrupt {
                let error = judge(attest(flaw).build_attestation().attestation_material()).unwrap_err();
                assert_eq!(variant(&error), expected, ".att {by:?} {log:?} {flaw:?}: {error}");
            }
        }
        let unlogged = attest(Flaw::NoLogEntry).build_attestation();
        let error = judge(unlogged.attestation_material()).unwrap_err();
        assert_eq!(error.cause(), sealgate::verify::Cause::Log, "{error}");
        // An attestation is no signature, and nothing else at `.att` is one either.
        let attestation = attest(Flaw::None).build().material();
        assert_eq!(variant(&bench.signature(&trust, &attestation).unwrap_err()), "NotASignature");
        let att = bench.good(by, log).build_attestation().attestation_material();
        assert_eq!(variant(&bench.signature(&trust, &att).unwrap_err()), "OtherKind");
    }
}

const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
