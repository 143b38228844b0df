//! Why an OpenPGP signature does not count: one variant a rule, with the texts of containers/image built with Go's openpgp.

use crate::clock::Timestamp;
use crate::verify::error::Cause;

/// An OpenPGP signature is not a good one under the keys of the requirement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenPgpError {
    /// The requirement has no key at all.
    #[error("No public keys imported")]
    NoKeys,
    /// The message is not what a signed message is.
    #[error("openpgp: invalid data: {why}")]
    InvalidData {
        /// What is wrong.
        why: &'static str,
    },
    /// The message is of a kind that is not verified here.
    #[error("openpgp: unsupported feature: {what}")]
    Unsupported {
        /// What is not supported.
        what: &'static str,
    },
    /// The message is larger than signed messages are, once it is decompressed.
    #[error("openpgp: invalid data: the message has more than {max} bytes")]
    TooLarge {
        /// The bound.
        max: u64,
    },
    /// There is data, and no signature.
    #[error("not signed")]
    NotSigned,
    /// There are several signatures, so that it would not be clear whose content it is.
    #[error("Unexpected GPG signature count {found}")]
    SignatureCount {
        /// How many were seen.
        found: usize,
    },
    /// The key that signed is not in the ring.
    #[error("Key not found for key ID {key_id} in signature")]
    KeyUnknown {
        /// As the signature names it, in hexadecimal.
        key_id: String,
    },
    /// The key that signed is in the ring, and may not sign.
    #[error("Key not found for key ID {key_id} in signature: the ring has the key, but {why}")]
    KeyRefused {
        /// Its id, in hexadecimal.
        key_id: String,
        /// Why.
        why: &'static str,
    },
    /// The key that signed has expired.
    #[error("Key not found for key ID {key_id} in signature: the ring has the key, but it expired on {at}")]
    KeyExpired {
        /// Its id, in hexadecimal.
        key_id: String,
        /// When.
        at: Timestamp,
    },
    /// The signature says that it is older than its key.
    #[error("signature error: made on {created}, before its key of {key}")]
    MadeBeforeKey {
        /// When it was made.
        created: Timestamp,
        /// When the key was.
        key: Timestamp,
    },
    /// The signature says that it was made after now.
    #[error("signature error: made in the future, on {created} (now {now})")]
    MadeInFuture {
        /// When it was made.
        created: Timestamp,
        /// The time of the check.
        now: Timestamp,
    },
    /// The signature's own end has passed.
    #[error("Signature expired on {at}")]
    Expired {
        /// When.
        at: Timestamp,
    },
    /// The signature rests on something that can be forged.
    #[error("signature error: {what} is too weak to be trusted")]
    Weak {
        /// What is weak.
        what: String,
    },
    /// The signature was not made by the key that it names, or not over this content.
    #[error("signature error: openpgp: invalid signature")]
    Signature,
}

impl OpenPgpError {
    /// What is said of the key `primary` itself, or one of its subkeys, without any signature.
    pub(super) fn of_the_key(&self, primary: &str) -> String {
        if let Self::KeyRefused { why, .. } = self {
            return format!("{primary}: {why}");
        }
        if let Self::KeyExpired { at, .. } = self {
            return format!("{primary}: it expired on {at}");
        }
        if let Self::MadeBeforeKey { key, .. } = self {
            return format!("{primary}: it was made after now, on {key}");
        }
        format!("{primary}: {self}")
    }

    /// Its kind.
    pub const fn cause(&self) -> Cause {
        match self {
            Self::InvalidData { .. }
            | Self::Unsupported { .. }
            | Self::TooLarge { .. }
            | Self::SignatureCount { .. } => Cause::Malformed,
            Self::NoKeys
            | Self::NotSigned
            | Self::KeyUnknown { .. }
            | Self::KeyRefused { .. }
            | Self::Weak { .. }
            | Self::Signature => Cause::Signature,
            Self::KeyExpired { .. } | Self::MadeBeforeKey { .. } | Self::MadeInFuture { .. } | Self::Expired { .. } => {
                Cause::Time
            }
        }
    }
}
