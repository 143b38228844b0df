//! What can be wrong with a signature.

/// The one thing that is wrong with a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flaw {
    /// Nothing: a good signature.
    None,

    // ---- the payload; signed and logged as it is ----
    /// It names another manifest.
    OtherDigest,
    /// `critical` stands there twice.
    DuplicateKey,
    /// `Critical` stands beside `critical`.
    FoldedKey,
    /// `critical` has a member that it must not have.
    UnknownField,
    /// Its type is that of OpenPGP signatures.
    OtherType,

    // ---- the statement of a bundle or attestation; signed and logged as it is ----
    /// It is of another predicate type.
    OtherPredicateType,
    /// Its `_type` is none of in-toto's.
    OtherStatementType,
    /// It is no JSON at all.
    StatementNotJson,
    /// It has no subject.
    NoSubject,
    /// The digest's text stands under `sha512`, twice, so that it is as long as one.
    SubjectUnderSha512,
    /// The digest is the subject's name; its digest is another.
    SubjectByNameOnly,
    /// The envelope's payload type is another one.
    OtherPayloadType,

    // ---- the envelope, changed after it was signed and logged ----
    /// The payload type is another one.
    PayloadTypeEdited,
    /// The payload is another statement about the same digest.
    PayloadEdited,
    /// It has no signature.
    NoSignature,
    /// It has the good signature twice.
    TwoSignatures,
    /// It has a good signature and a bad one after it.
    SecondSignatureBad,
    /// The signature is no base64.
    MalformedBase64,

    // ---- the signature ----
    /// It covers the payload alone, without DSSE's encoding.
    SignatureOverBodyOnly,
    /// It covers an encoding without the lengths, in which type and payload can be shifted against each other.
    SignatureWithoutLengths,
    /// Certificate or key, and log entry, of a signature over another payload; the signature is garbage.
    GarbageSignature,
    /// Certificate or key, log entry and signature are those of another payload.
    SignatureOfOtherPayload,
    /// One bit is changed, in the log entry too: only the cryptography can tell.
    CorruptSignature,

    // ---- the certificate ----
    /// The leaf's key signs again after the certificate ended, with the log entry of an earlier signature.
    KeyUsedAfterCertificate,
    /// Issued by another authority of the same names.
    OtherCa,
    /// No certificate is attached.
    NoCertificate,
    /// Two are attached.
    TwoCertificates,
    /// No chain is attached.
    NoChain,
    /// 50 certificates are attached.
    LongChain,
    /// The intermediate had ended when the signature was logged.
    ExpiredIntermediate,
    /// The intermediate is a CA's, and may sign revocation lists alone.
    IntermediateForListsAlone,
    /// The attached certificate is the authority's own.
    RootAsLeaf,
    /// It is for TLS servers.
    OtherPurpose,
    /// The two issuer extensions differ.
    InconsistentIssuer,
    /// The newer issuer extension stands there a second time, with another issuer.
    IssuerTwice,
    /// It has one more name, of a kind that is no text.
    NameOfOtherKind,
    /// It has no SCT.
    NoSct,
    /// Its SCT is by an unknown log.
    SctByUnknownLog,
    /// Its SCT is one for another certificate.
    SctForOtherCertificate,

    // ---- the bundle ----
    /// Its media type is that of bundles v0.1, which need no inclusion proof.
    MediaTypeV01,
    /// Its media type is that of bundles v0.2.
    MediaTypeV02,
    /// It has an empty chain in place of the certificate.
    EmptyChain,
    /// It has a chain with the root in place of the certificate.
    RootInChain,

    // ---- the log entry ----
    /// There is none.
    NoLogEntry,
    /// It was taken in after the certificate's end.
    IntegratedAfterCertificate,
    /// It was taken in before the certificate's start.
    IntegratedBeforeCertificate,
    /// It was taken in an hour from now.
    IntegratedInFuture,
    /// Its time was changed after the log signed it.
    IntegratedTimeEdited,
    /// Its index was changed after the log signed it.
    LogIndexEdited,
    /// One bit of the log's signature is changed.
    SetCorrupt,
    /// The log's signature is by another log, under this log's id.
    SetByOtherLog,
    /// The entry is one of another log.
    OtherLog,
    /// It is the good entry of a signature by somebody else over something else.
    UnrelatedEntry,
    /// It is the good entry of a signature by the same signer over another payload.
    EntryOfOtherPayload,
    /// It is the good entry of a signature by another signer over the same payload.
    EntryOfOtherSigner,
    /// It is an entry of another kind, promised by the log.
    OtherEntryKind,
    /// It stands there twice.
    SameEntryTwice,
    /// It has no promise, so that nothing says when it was taken in.
    NoPromise,

    // ---- the proof that the entry is in the log ----
    /// There is none.
    NoProof,
    /// One bit of the root hash is changed.
    RootHashEdited,
    /// One bit of the first hash of the path is changed; needs a tree of more than one leaf.
    ProofHashEdited,
    /// The tree's size was raised.
    TreeSizeEdited,
    /// The entry's place in the tree was changed.
    ProofIndexEdited,
    /// There is no checkpoint.
    NoCheckpoint,
    /// One bit of the checkpoint's signature is changed.
    CheckpointCorrupt,
    /// The checkpoint's origin was changed after it was signed.
    CheckpointOriginEdited,
    /// The checkpoint's root hash was changed after it was signed.
    CheckpointRootEdited,
    /// The checkpoint is signed by another log, under this log's id.
    CheckpointByOtherLog,

    // ---- the timestamp ----
    /// There is none.
    NoTimestamp,
    /// It is one for another signature.
    TimestampOfOtherSignature,
    /// It is by an authority of the same names with other keys.
    TimestampByOtherAuthority,
    /// One bit of the authority's signature is changed.
    TimestampCorrupt,
    /// The authority's answer is a refusal, with a good token in it.
    TimestampNotGranted,
    /// It was made after the certificate's end.
    TimestampAfterCertificate,
    /// It was made before the certificate's start.
    TimestampBeforeCertificate,
    /// It was made by somebody else's certificate for timestamps; the authority's own lies beside it in the token.
    TimestampWithDecoy,
}

/// The part of a signature that a flaw is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Nothing,
    /// The payload of cosign's legacy format.
    SimpleSigning,
    /// Payload or statement.
    Statement,
    Envelope,
    Signature,
    Leaf,
    /// What is attached to a legacy signature beside the leaf.
    AttachedChain,
    Bundle,
    Entry,
    EntryTime,
    Promise,
    Proof,
    Timestamp,
    TimestampTime,
}

impl Flaw {
    /// Where it is.
    #[rustfmt::skip]
    pub(super) fn part(self) -> Part {
        match self {
            Self::None => Part::Nothing,
            Self::FoldedKey | Self::UnknownField | Self::OtherType => Part::SimpleSigning,
            Self::OtherDigest | Self::DuplicateKey | Self::OtherPredicateType | Self::OtherStatementType
            | Self::StatementNotJson | Self::NoSubject | Self::SubjectUnderSha512 | Self::SubjectByNameOnly
            | Self::OtherPayloadType => Part::Statement,
            Self::PayloadTypeEdited | Self::PayloadEdited | Self::NoSignature | Self::TwoSignatures
            | Self::SecondSignatureBad | Self::MalformedBase64 => Part::Envelope,
            Self::SignatureOverBodyOnly | Self::SignatureWithoutLengths | Self::GarbageSignature
            | Self::SignatureOfOtherPayload | Self::CorruptSignature => Part::Signature,
            Self::OtherCa | Self::RootAsLeaf | Self::OtherPurpose | Self::InconsistentIssuer | Self::IssuerTwice | Self::NameOfOtherKind | Self::NoSct
            | Self::SctByUnknownLog | Self::SctForOtherCertificate => Part::Leaf,
            Self::NoCertificate | Self::TwoCertificates | Self::NoChain | Self::LongChain
            | Self::ExpiredIntermediate
            | Self::IntermediateForListsAlone => Part::AttachedChain,
            Self::MediaTypeV01 | Self::MediaTypeV02 | Self::EmptyChain | Self::RootInChain => Part::Bundle,
            Self::NoLogEntry | Self::SameEntryTwice | Self::LogIndexEdited | Self::OtherLog | Self::UnrelatedEntry | Self::EntryOfOtherPayload
            | Self::EntryOfOtherSigner | Self::OtherEntryKind | Self::KeyUsedAfterCertificate => Part::Entry,
            Self::IntegratedAfterCertificate | Self::IntegratedBeforeCertificate
            | Self::IntegratedInFuture => Part::EntryTime,
            Self::IntegratedTimeEdited | Self::SetCorrupt | Self::SetByOtherLog | Self::NoPromise => Part::Promise,
            Self::NoProof | Self::RootHashEdited | Self::ProofHashEdited | Self::TreeSizeEdited | Self::ProofIndexEdited
            | Self::NoCheckpoint | Self::CheckpointCorrupt | Self::CheckpointOriginEdited | Self::CheckpointRootEdited
            | Self::CheckpointByOtherLog => Part::Proof,
            Self::NoTimestamp | Self::TimestampOfOtherSignature | Self::TimestampByOtherAuthority
            | Self::TimestampCorrupt | Self::TimestampNotGranted | Self::TimestampWithDecoy => Part::Timestamp,
            Self::TimestampAfterCertificate | Self::TimestampBeforeCertificate => Part::TimestampTime,
        }
    }
}

/// The one thing that is wrong with a trust root, as against the signatures that [`FakeSigstore`] makes.
///
/// [`FakeSigstore`]: super::FakeSigstore
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RootFlaw {
    /// Nothing.
    None,
    /// The Rekor v1 key's validity ended before the entries were taken in.
    LogKeyEnded,
    /// The Rekor v1 key's validity begins after it.
    LogKeyNotYetValid,
    /// The Rekor v2 key's validity ended before the signatures were made.
    LogKeyV2Ended,
    /// The Rekor v2 key's validity begins after it.
    LogKeyV2NotYetValid,
    /// Fulcio's validity ended before its certificates were issued.
    AuthorityEnded,
    /// Fulcio's validity begins after it.
    AuthorityNotYetValid,
    /// The certificate log's key ended before the certificates were logged.
    CertificateLogEnded,
    /// The timestamp authority's validity ended before its timestamps.
    TimestampAuthorityEnded,
    /// The timestamp authority's validity begins after them.
    TimestampAuthorityNotYetValid,
    /// There is no timestamp authority.
    NoTimestampAuthority,
    /// There is no Rekor v1.
    NoLog,
    /// There is no Rekor v2.
    NoLogV2,
    /// There is no certificate log.
    NoCertificateLog,
    /// The Rekor v1 key stands there twice, under two ids.
    LogUnderTwoIds,
}
