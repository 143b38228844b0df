//! Fakes and builders for tests, the demo and the benchmarks; a release build does not have them.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a failed step of a fake is a failed test"
)]

mod chaos;
mod image;
mod registry;
pub mod sigstore;

pub use chaos::{Chaos, ChaosProxy, RawServer};
pub use image::{BuiltImage, Content, ImageBuilder, IndexBuilder, pseudo_random};
pub use registry::{
    Auth, FakeRegistry, FakeRegistryBuilder, Fault, Recorded, Referrers, TestCa, TestIdentity, TokenAuth,
};
