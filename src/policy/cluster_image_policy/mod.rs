//! ClusterImagePolicy (policy.sigstore.dev/v1alpha1 and v1beta1), read unmodified.
//!
//! [`PolicyFile::parse`] reads files of one or more documents into checked types; [`ClusterImagePolicies`] is what they come
//! to with trust roots resolved. Semantics: OR over authorities, AND over matching policies.

mod document;

pub use document::{
    AttestationDocument, AuthorityDocument, CipError, CipMode, ClusterImagePolicyDocument, CtlogDocument, Glob, Origin,
    PolicyFile, RegoDocument, SignatureFormat, SignerDocument, SourceDocument, StaticAction, TrustRootDocument,
};

/// All ClusterImagePolicies that were configured, ready to be asked.
#[derive(Debug)]
pub struct ClusterImagePolicies {}
