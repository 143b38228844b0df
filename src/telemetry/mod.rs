//! What operators see: one method an event; log line, counter and histogram live behind it.
//!
//! Labels come from the closed enums below and from configured upstream names; repository, tag, digest, identity and client go into
//! log fields. May import: `policy`, `verify`, `oci` (to read labels), `limits`, `clock`.

mod labels;

pub use labels::*;

use std::time::Duration;

use crate::oci::Host;

/// A handle to all metrics; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Telemetry {}

impl Telemetry {
    /// Registers everything, every series at 0. `upstreams` are the configured names, the only open label.
    pub fn new(_upstreams: &[Host]) -> Self {
        Self {}
    }
    /// The exposition text of all metrics.
    pub fn render(&self) -> String {
        todo!()
    }
    /// A request begins; the guard counts it when it is dropped, as cancelled (code 499) unless `finished` was called.
    pub fn request(&self, _route: RouteLabel, _method: MethodLabel) -> RequestGuard {
        RequestGuard {}
    }
    /// A cache was asked.
    pub fn cache_asked(&self, _kind: CacheKind, _result: CacheResult) {}
    /// A fill began; see [`Self::fill_ended`].
    pub fn fill_began(&self) {}
    /// A fill ended.
    pub fn fill_ended(&self, _outcome: FillOutcome, _bytes: u64, _took: Duration) {}
    /// The cache's size changed.
    pub fn cache_sized(&self, _bytes: u64, _limit_bytes: u64, _entries: u64) {}
    /// Something was evicted.
    pub fn evicted(&self, _reason: EvictionReason, _bytes: u64) {}
    /// Writing to the cache failed.
    pub fn cache_write_failed(&self, _error: &std::io::Error) {}
    /// An upstream answered, or did not.
    pub fn upstream_answered(&self, _upstream: &Host, _op: UpstreamOp, _class: CodeClass, _took: Duration) {}
    /// Body bytes came from an upstream.
    pub fn upstream_bytes(&self, _upstream: &Host, _bytes: u64) {}
    /// A request to an upstream is tried again.
    pub fn upstream_retried(&self, _upstream: &Host) {}
    /// A broken transfer goes on.
    pub fn upstream_resumed(&self, _upstream: &Host) {}
    /// A token was fetched, or not.
    pub fn token_fetched(&self, _upstream: &Host, _ok: bool) {}
    /// A credential was withheld from a place it must not go to.
    pub fn credential_blocked(&self, _upstream: &Host) {}
    /// A stale answer was served.
    pub fn stale_served(&self, _upstream: &Host, _cause: StaleCause) {}
    /// A request was decided (counted once a request).
    pub fn verdict_applied(&self, _decision: DecisionLabel, _reason: &'static str) {}
    /// A verdict was found or computed.
    pub fn verify_took(&self, _source: VerifySource, _took: Duration) {}
    /// The verdict store did something.
    pub fn verdict_store(&self, _op: StoreOp, _outcome: StoreOutcome) {}
    /// The verdict store's state: on disk or memory only.
    pub fn verdict_store_state(&self, _on_disk: bool, _entries: u64) {}
    /// A verdict record's MAC did not fit.
    pub fn verdict_mac_failed(&self) {}
    /// A reload of configuration or policy ended.
    pub fn policy_reloaded(&self, _ok: bool) {}
    /// A connection was closed by us.
    pub fn connection_closed(&self, _reason: CloseReason) {}
    /// A task or handler panicked.
    pub fn panicked(&self, _place: &'static str) {}
}

/// Counts one request when it is dropped.
#[derive(Debug)]
pub struct RequestGuard {}

impl RequestGuard {
    /// The status that was sent.
    pub fn status(&mut self, _code: u16) {}
    /// The first body byte (or the headers of an empty body) went out.
    pub fn first_byte(&mut self) {}
    /// Body bytes went out.
    pub fn sent(&mut self, _bytes: u64) {}
    /// The response is complete.
    pub fn finished(self) {}
}
