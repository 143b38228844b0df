//! Why a key or certificate file cannot be used: found when a policy is loaded, never at the first pull.

use super::quote::go_quote;

/// A key or certificate file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no PEM block in it.
    #[error("PEM decoding failed")]
    NoPem,
    /// A PEM block in it is broken.
    #[error("PEM decoding failed: {why}")]
    Pem {
        /// What is broken.
        why: &'static str,
    },
    /// More than one PEM block where one key is meant.
    #[error("{found} PEM blocks where one public key is expected; name each key in a file of its own")]
    SeveralKeys {
        /// How many there are.
        found: usize,
    },
    /// The PEM block is not a public key.
    #[error("unknown Public key PEM file type: {label}. Are you passing the correct public key?")]
    NotPublicKey {
        /// The block's label.
        label: String,
    },
    /// The block's content is no key.
    #[error("malformed public key: {why}")]
    MalformedKey {
        /// What is wrong.
        why: String,
    },
    /// A key of a kind that signatures are not verified with.
    #[error("unsupported public key: {why}; use ECDSA P-256 or P-384, Ed25519, or RSA of 2048 to 8192 bits")]
    UnsupportedKey {
        /// What is unsupported.
        why: String,
    },
    /// A log key cannot be used.
    #[error("parsing Rekor public key {number}: {cause}")]
    RekorKey {
        /// Its place in the list, from 1.
        number: usize,
        /// Why.
        cause: Box<KeyError>,
    },
    /// A log key is not an ECDSA key.
    #[error("Rekor public key {number} is not using ECDSA")]
    RekorNotEcdsa {
        /// Its place in the list, from 1.
        number: usize,
    },
    /// Logged signatures are wanted but there is no log key to check them with.
    #[error("no Rekor public key is given")]
    NoRekorKey,
    /// The file of Fulcio certificates cannot be used.
    #[error("error loading Fulcio CA certificates: {cause}")]
    FulcioAuthorities {
        /// Why.
        cause: Box<KeyError>,
    },
    /// The file of root certificates cannot be used.
    #[error("error loading PKI CA Roots certificates: {cause}")]
    PkiRoots {
        /// Why.
        cause: Box<KeyError>,
    },
    /// The file of intermediate certificates cannot be used.
    #[error("loading trusted intermediate certificates: {cause}")]
    PkiIntermediates {
        /// Why.
        cause: Box<KeyError>,
    },
    /// There is no certificate in the file.
    #[error("no certificate in it")]
    NoCertificate,
    /// A certificate in the file cannot be used.
    #[error("certificate {number}: {why}")]
    Certificate {
        /// Its place in the file, from 1.
        number: usize,
        /// Why.
        why: String,
    },
    /// A `pki` requirement that would accept any certificate of its roots.
    #[error("At least one of subjectEmail, subjectHostname must be specified")]
    NoIdentity,
    /// The host name is neither a DNS name nor an address.
    #[error("subjectHostname {} is not a host name", go_quote(.hostname))]
    Hostname {
        /// As configured.
        hostname: String,
    },
    /// The OpenPGP key ring cannot be used.
    #[error("malformed OpenPGP key ring: {why}")]
    OpenPgpRing {
        /// What is wrong.
        why: &'static str,
    },
    /// The OpenPGP key ring holds a secret key.
    #[error("it holds a private OpenPGP key, which does not belong on a verifier: export the public key alone")]
    OpenPgpSecret,
    /// The verifier does not accept the keys or certificates; the text says why.
    #[error("{why}")]
    Refused {
        /// The verifier's own words.
        why: String,
    },
}
