//! in-toto statements: which subject they are about, and what they say of it.

use bytes::Bytes;
use serde_json::Value;

use super::VerifiedSignature;

/// The predicate type of a plain signature in a bundle.
pub(super) const COSIGN_SIGN: &str = "https://sigstore.dev/cosign/sign/v1";

/// An in-toto statement about the subject that was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// Its `predicateType`.
    pub predicate_type: String,
    /// The whole statement.
    pub json: Value,
    /// The bytes that were signed.
    pub payload: Bytes,
    /// Which of its subjects has the digest, from 0.
    pub subject: usize,
}

/// A statement with who signed it. Its signature binds no reference.
#[derive(Debug, Clone)]
pub struct VerifiedStatement {
    /// What was said.
    pub statement: Statement,
    /// By whom; `signed_reference` is absent.
    pub signature: VerifiedSignature,
}
