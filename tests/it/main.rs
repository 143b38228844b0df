//! Integration tests: one binary, real servers over TCP, fakes that break exactly one thing.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a failed step is a failed test")]

mod fixtures;
mod real_signatures;
