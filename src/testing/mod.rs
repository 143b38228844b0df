//! Fakes and builders for tests, the demo and the benchmarks; a release build does not have them.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed step of a fake is a failed test")]

pub mod sigstore;
