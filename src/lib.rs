//! Sealgate, a pull-through, verifying mirror for container images.
#![forbid(non_ascii_idents)]

pub mod admin;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod http;
pub mod limits;
pub mod net;
pub mod oci;
pub mod policy;
pub mod pull;
pub mod runtimes;
pub mod store;
pub mod telemetry;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod trust;
pub mod upstream;
pub mod verify;

/// The version, with the commit where one was known at build time.
pub const VERSION: &str = env!("SEALGATE_VERSION");
