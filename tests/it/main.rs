//! Integration tests: one binary that drives the product from outside.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a failed step is a failed test")]

mod admin;
mod admission;
mod architecture;
mod blobs_http;
mod cli;
mod cli_serve;
mod cli_verify;
mod config;
mod fixtures;
mod forgery;
mod kill;
mod lab;
mod lists_http;
mod metrics;
mod multi_arch;
mod parts;
mod peers;
mod policy_vectors;
mod program;
mod protocol;
mod pull;
mod real_policies;
mod real_signatures;
mod refusal;
mod reload;
mod restart;
mod runtimes;
mod service;
mod store_faults;
mod tls;
mod upstream;
mod weakening;
mod wire;
