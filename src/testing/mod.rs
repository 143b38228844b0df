//! Fakes and builders for tests, the demo and the benchmarks; a release build does not have them.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a failed step of a fake is a failed test"
)]

mod attach;
mod chaos;
mod conformance;
pub mod http;
mod image;
pub mod openpgp;
mod registry;
mod sealgate;
pub mod sigstore;
mod tuf;

pub use attach::{
    BUNDLE_TYPE, EMPTY_TYPE, attach_attestations, attach_bundles, attach_bundles_at_fallback_tag, attach_signatures,
    attach_spam, bundle_image, put_fallback_index, put_lookaside,
};
pub use chaos::{Chaos, ChaosProxy, RawServer};
pub use conformance::ConformanceCase;
pub use http::Answer;
pub use image::{BuiltImage, Content, ImageBuilder, IndexBuilder, pseudo_random};
pub use registry::{
    Auth, FakeRegistry, FakeRegistryBuilder, Fault, Recorded, Referrers, TestCa, TestIdentity, TokenAuth,
};
pub use sealgate::{ACCEPT_ANYTHING, REJECT, Setup, TestSealgate};
pub use tuf::{FakeTuf, TufRole, TufRoles};
