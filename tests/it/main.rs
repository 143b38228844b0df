//! Integration tests: one binary that drives the product from outside.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a failed step is a failed test"
)]
#![expect(clippy::print_stdout, reason = "seeds, and what was skipped, are to be seen")]
#![expect(clippy::disallowed_methods, reason = "a test ends its own tasks, and knows how much its own servers send")]
#![expect(
    clippy::wildcard_enum_match_arm,
    clippy::duration_suboptimal_units,
    clippy::format_collect,
    clippy::unused_self,
    reason = "a test says what it expects; another variant, unit or method would not be clearer"
)]

mod admin;
mod admission;
mod advisories;
mod architecture;
mod audit;
mod blobs_http;
mod both_formats;
mod bundle_forgery;
mod cache_damage;
mod cache_operation;
mod catalogue;
mod cli;
mod cli_openpgp;
mod cli_replay;
mod cli_serve;
mod cli_suggest;
mod cli_tree;
mod cli_trust;
mod cli_verify;
mod cluster_image_policies;
mod config;
mod conformance;
mod discovery;
mod disk_faults;
mod endpoints;
mod fills;
mod fingerprints;
mod fixtures;
mod foreign_layers;
mod forgery;
mod freshness;
mod herds_and_clocks;
mod image_size;
mod kill;
mod lab;
mod lists_http;
mod lookaside;
mod metrics;
mod mixed_load;
mod multi_arch;
mod openpgp;
mod overload;
mod parts;
mod peers;
mod policy_examples;
mod policy_keys;
mod policy_rules;
mod policy_vectors;
mod power_loss;
mod process_faults;
mod program;
mod protocol;
mod pull;
mod random;
mod read_side;
mod real_bundles;
mod real_policies;
mod real_signatures;
mod refusal;
mod reliability;
mod reload;
mod restart;
mod runtimes;
mod service;
mod signed_bundles;
mod simulation;
mod slsa_image;
mod soak;
mod store_faults;
mod tag_answers;
mod tls;
mod trust_refresh;
mod upstream;
mod upstream_faults;
mod weakening;
mod wire;
