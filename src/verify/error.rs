//! Why a signature does not count: one variant a rule.

/// A key or certificate file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not what is needed; the text says why.
    #[error("{0}")]
    Malformed(String),
}

/// A candidate is no good signature; `verify` owner refines the variants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Placeholder.
    #[error("cryptographic signature verification failed")]
    Signature,
}
