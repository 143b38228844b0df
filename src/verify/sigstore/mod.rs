//! The one place of this module that names `sigstore-verify`: its types and errors become ours in this folder.
//!
//! The library binds, in one call, signature to payload, log promise and proof to entry, entry to signature, key and payload
//! hash, and checks the certificate chain at every time that log or timestamp authority vouch for. It reads the wall clock
//! for rules about the future; here the same rules are checked against the caller's `now`. What the library leaves open
//! (`docs/decisions/0001-sigstore-verify.md`) is checked around it: `bundle` for form and bounds, `windows` for log keys.

mod bundle;
mod keys;
mod root;
mod translate;
mod verifier;
mod windows;

pub(super) use bundle::{Content, Log, SigstoreBundle, Versions};
pub(super) use keys::{KeyKind, key_kind, verify_digest, verify_raw};
pub(super) use root::TrustMaterial;
pub(super) use verifier::{Artifact, LogVerifier, Logged};
