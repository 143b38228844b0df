//! The documents of a file, checked: what is not supported is an error that names file, line and field.

use std::fmt;

use crate::oci::{ImageReference, Repository, Tag};
use crate::verify::{IdentityPattern, KeyHash, PublicKey, SctRule};

/// The documents of one file.
#[derive(Debug, Clone, Default)]
pub struct PolicyFile {
    /// Its policies, in their order.
    pub policies: Vec<ClusterImagePolicyDocument>,
    /// Its trust roots, in their order.
    pub trust_roots: Vec<TrustRootDocument>,
}

impl PolicyFile {
    /// Reads a YAML (or JSON) file of one or more documents.
    ///
    /// # Errors
    /// [`CipError`] for the first thing that is wrong, unknown or not supported; nothing is ever ignored.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, CipError> {
        let _ = (file, bytes);
        todo!()
    }
}

/// A document cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {field}: {problem}")]
pub struct CipError {
    /// Where.
    pub origin: Origin,
    /// The field, such as `spec.authorities[0].key.kms`.
    pub field: String,
    /// What is wrong, and what to do instead.
    pub problem: String,
}

/// A line of a file, both for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file as it was named.
    pub file: String,
    /// Its line, from 1.
    pub line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.file, self.line)
    }
}

/// One ClusterImagePolicy.
#[derive(Debug, Clone)]
pub struct ClusterImagePolicyDocument {
    /// `metadata.name`
    pub name: String,
    /// Where it begins.
    pub origin: Origin,
    /// `spec.images`, never empty.
    pub images: Vec<Glob>,
    /// `spec.mode`
    pub mode: CipMode,
    /// `spec.authorities`, never empty.
    pub authorities: Vec<AuthorityDocument>,
    /// `spec.policy`
    pub policy: Option<RegoDocument>,
    /// `spec.policy.fetchConfigFile`
    pub fetch_config_file: bool,
}

/// `spec.mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CipMode {
    /// A failure refuses.
    Enforce,
    /// A failure is a warning.
    Warn,
}

/// `spec.images[].glob`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    /// As written.
    pub text: String,
    /// Where.
    pub origin: Origin,
}

impl Glob {
    /// Whether it covers that image, by the rules of policy-controller.
    pub fn covers(&self, image: &ImageReference) -> bool {
        let _ = image;
        todo!()
    }
}

/// `spec.authorities[]`
#[derive(Debug, Clone)]
pub struct AuthorityDocument {
    /// `name`, else `authority-<index>`.
    pub name: String,
    /// Where.
    pub origin: Origin,
    /// Whose signatures it accepts.
    pub signer: SignerDocument,
    /// `source`
    pub source: Option<SourceDocument>,
    /// `ctlog`
    pub ctlog: Option<CtlogDocument>,
    /// `rfc3161timestamp.trustRootRef`
    pub timestamp_root: Option<String>,
    /// `signatureFormat`
    pub format: SignatureFormat,
    /// `attestations`; when there are any, plain signatures are not looked at.
    pub attestations: Vec<AttestationDocument>,
}

/// `key`, `keyless` or `static`
#[derive(Debug, Clone)]
pub enum SignerDocument {
    /// `key.data`, or a file that was read in.
    Key {
        /// Never empty.
        keys: Vec<PublicKey>,
        /// `key.hashAlgorithm`
        hash: KeyHash,
    },
    /// `keyless`
    Keyless {
        /// `keyless.ca-cert`, PEM.
        ca_cert: Option<Vec<u8>>,
        /// Never empty.
        identities: Vec<IdentityPattern>,
        /// `keyless.trustRootRef`
        trust_root: Option<String>,
        /// `keyless.insecureIgnoreSCT`
        sct: SctRule,
    },
    /// `static`
    Static {
        /// `action`
        action: StaticAction,
        /// `message`
        message: String,
    },
}

/// `static.action`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StaticAction {
    /// Accepts everything.
    Pass,
    /// Refuses everything.
    Fail,
}

/// `source[0]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceDocument {
    /// `oci`
    pub repository: Option<Repository>,
    /// `tagPrefix`
    pub tag_prefix: Option<Tag>,
}

/// `ctlog`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CtlogDocument {
    /// `url`; never contacted.
    pub url: Option<String>,
    /// `trustRootRef`
    pub trust_root: Option<String>,
}

/// `signatureFormat`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignatureFormat {
    /// `legacy`: `.sig` and `.att`.
    Legacy,
    /// `bundle`: sigstore bundles among the referrers.
    Bundle,
}

/// `attestations[]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestationDocument {
    /// `name`
    pub name: String,
    /// `predicateType` as a URI; short names are resolved.
    pub predicate_type: String,
    /// The short name as written, which decides what a policy is given.
    pub short_name: Option<&'static str>,
    /// `policy`
    pub policy: Option<RegoDocument>,
    /// Where.
    pub origin: Origin,
}

/// `policy` of type `rego`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegoDocument {
    /// The module's text.
    pub module: String,
    /// Where.
    pub origin: Origin,
}

/// A TrustRoot document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustRootDocument {
    /// `metadata.name`
    pub name: String,
    /// Where it begins.
    pub origin: Origin,
    /// As a sigstore `trusted_root.json`.
    pub trusted_root_json: Vec<u8>,
}
