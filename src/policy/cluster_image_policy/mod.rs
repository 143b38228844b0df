//! ClusterImagePolicy (policy.sigstore.dev/v1alpha1 and v1beta1), read unmodified.
//!
//! [`PolicyFile::parse`] reads files of one or more documents into checked types; [`ClusterImagePolicies`] is what they come
//! to with trust roots resolved. Semantics: OR over authorities, AND over matching policies.

mod attestation;
mod authority;
mod document;
mod evaluate;
mod examine;
mod glob;
mod keys;
mod lint;
mod needs;
mod reader;
mod record;
mod rego;
mod resolve;
mod roots;
mod rule_input;
mod shape;
mod trust_root;

pub use attestation::{AttestationDocument, RegoDocument};
pub use authority::{AuthorityDocument, CtlogDocument, SignatureFormat, SignerDocument, SourceDocument, StaticAction};
pub use document::{CipError, CipMode, ClusterImagePolicyDocument, Origin, PolicyFile};
pub use glob::{Glob, GlobError};
pub use keys::{cluster_image_policy_keys, trust_root_keys};
pub use resolve::ClusterImagePolicies;
pub use trust_root::TrustRootDocument;

pub(super) use evaluate::{Answer, Conclusion, evaluate};
pub(super) use lint::lint;
pub(super) use needs::{Needs, needs};

#[cfg(test)]
mod tests;
