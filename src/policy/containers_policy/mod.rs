//! containers-policy.json(5), unmodified, with the answers that containers/image gives.
//!
//! Two steps: [`ContainersPolicyDocument::parse`] takes the text, [`ContainersPolicy::resolve`] the files that it names.
//! Then a look-up finds the one scope that decides, and its requirements are evaluated: all of them must be satisfied,
//! each by any one signature.

mod document;
mod evaluate;
mod evidence;
mod json;
mod keys;
mod lint;
mod registries_d;
mod requirement;
mod resolve;
mod scopes;
mod signed_identity;
mod sigstore_signed;
pub(crate) mod texts;

pub use document::{ContainersPolicyDocument, DocumentError, NamedFile};
pub use keys::containers_policy_keys;
pub use registries_d::{RegistriesD, RegistriesDError};
pub use resolve::{ContainersPolicy, ReadFile, ResolveError};
pub use signed_identity::SignedIdentity;

pub(super) use evaluate::{Question, evaluate, plan, signer};
pub(super) use resolve::Requirement;
pub(super) use scopes::{Trap, candidates, trap};

#[cfg(test)]
mod tests;
