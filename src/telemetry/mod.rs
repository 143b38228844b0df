//! What operators see: one method an event; log line, counter and histogram live behind it.
//!
//! Labels come from the closed enums below and from configured upstream names; repository, tag, digest, identity and client go into
//! log fields. May import: `policy`, `verify`, `oci` (to read labels), `limits`, `clock`.

mod family;
mod labels;
mod metrics;
mod process;
mod request;
mod sampling;
mod table;
#[cfg(test)]
mod tests;

pub use labels::{
    BreakerState, CacheKind, CacheResult, CloseReason, CodeClass, DecisionLabel, EvictionReason, FillOutcome,
    MethodLabel, OverloadBound, ReportOutcome, RouteLabel, ScrubOutcome, StaleCause, StoreOp, StoreOutcome, TrustPart,
    TrustRootKind, UpstreamOp, VerifySource, WriteError,
};
pub use request::{QueueGuard, RequestGuard};

use std::sync::Arc;
use std::time::Duration;

use self::labels::reason_position;
use self::metrics::Metrics;
use self::sampling::Sampled;
use crate::clock::Timestamp;
use crate::oci::{Host, ImageReference};

/// A handle to all metrics; clones share them.
#[derive(Debug, Clone)]
pub struct Telemetry {
    metrics: Arc<Metrics>,
    logs: Arc<Logs>,
}

/// Lines that a client, an upstream or a full disk could repeat without end.
#[derive(Debug, Default)]
struct Logs {
    write_failed: Sampled,
    stale: Sampled,
    mac: Sampled,
    credential: Sampled,
    breaker: Sampled,
    store: Sampled,
    overload: Sampled,
    report: Sampled,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new(&[])
    }
}

impl Telemetry {
    /// Registers everything, every series at 0. `upstreams` are the configured names, the only open label.
    pub fn new(upstreams: &[Host]) -> Self {
        Self { metrics: Arc::new(Metrics::new(upstreams)), logs: Arc::default() }
    }

    /// The exposition text of all metrics.
    pub fn render(&self) -> String {
        self.metrics.render()
    }

    /// A request begins; the guard counts it when it is dropped, as cancelled (code 499) unless `finished` was called.
    pub fn request(&self, route: RouteLabel, method: MethodLabel) -> RequestGuard {
        RequestGuard::new(Arc::clone(&self.metrics), route, method)
    }

    /// A cache was asked.
    pub fn cache_asked(&self, kind: CacheKind, result: CacheResult) {
        self.metrics.cache_requests.increment(&[kind.position(), result.position()]);
    }

    /// A fill began; see [`Self::fill_ended`].
    pub fn fill_began(&self) {
        self.metrics.cache_fills_in_flight.change(&[], 1);
    }

    /// A fill ended.
    pub fn fill_ended(&self, outcome: FillOutcome, bytes: u64, took: Duration) {
        self.metrics.cache_fills_in_flight.change(&[], -1);
        self.metrics.cache_fills.increment(&[outcome.position()]);
        self.metrics.cache_filled_bytes.add(&[], bytes);
        self.metrics.cache_fill_duration.observe(&[], took);
        tracing::debug!(outcome = outcome.as_label(), bytes, took_ms = millis(took), "fill ended");
    }

    /// A request waits for a fill or reads behind it; see [`Self::fill_left`].
    pub fn fill_joined(&self) {
        self.metrics.cache_fill_waiters.change(&[], 1);
    }

    /// It does so no more.
    pub fn fill_left(&self) {
        self.metrics.cache_fill_waiters.change(&[], -1);
    }

    /// A transfer waits for its turn at an upstream, until the guard is dropped.
    pub fn transfer_queued(&self, upstream: &Host) -> QueueGuard {
        QueueGuard::new(Arc::clone(&self.metrics), self.metrics.upstream(upstream))
    }

    /// The cache's size changed.
    pub fn cache_sized(&self, bytes: u64, limit_bytes: u64, entries: u64) {
        self.metrics.cache_bytes.set(bytes);
        self.metrics.cache_limit_bytes.set(limit_bytes);
        self.metrics.cache_entries.set(entries);
    }

    /// Something was evicted.
    pub fn evicted(&self, reason: EvictionReason, bytes: u64) {
        self.metrics.cache_evictions.increment(&[reason.position()]);
        self.metrics.cache_evicted_bytes.add(&[], bytes);
        tracing::debug!(reason = reason.as_label(), bytes, "evicted from the cache");
    }

    /// Writing to the cache failed.
    pub fn cache_write_failed(&self, error: &std::io::Error) {
        self.metrics.cache_write_errors.increment(&[WriteError::of(error).position()]);
        if let Some(withheld) = self.logs.write_failed.next() {
            tracing::warn!(%error, withheld, "the cache cannot be written; answers go out uncached");
        }
    }

    /// A cached file was hashed again.
    pub fn scrubbed(&self, outcome: ScrubOutcome, bytes: u64) {
        self.metrics.cache_verified.increment(&[outcome.position()]);
        self.metrics.cache_verified_bytes.add(&[], bytes);
    }

    /// All of them were.
    pub fn scrub_ended(&self, now: Timestamp) {
        self.metrics.cache_verified_last.set(u64::try_from(now.unix_seconds()).unwrap_or(0));
    }

    /// An upstream answered, or did not.
    pub fn upstream_answered(&self, upstream: &Host, op: UpstreamOp, class: CodeClass, took: Duration) {
        let place = self.metrics.upstream(upstream);
        self.metrics.upstream_requests.increment(&[place, op.position(), class.position()]);
        self.metrics.upstream_request_duration.observe(&[place, op.position()], took);
        tracing::debug!(%upstream, op = op.as_label(), class = class.as_label(), took_ms = millis(took), "upstream answered");
    }

    /// Body bytes came from an upstream.
    pub fn upstream_bytes(&self, upstream: &Host, bytes: u64) {
        self.metrics.upstream_bytes.add(&[self.metrics.upstream(upstream)], bytes);
    }

    /// A request to an upstream is tried again.
    pub fn upstream_retried(&self, upstream: &Host) {
        self.metrics.upstream_retries.increment(&[self.metrics.upstream(upstream)]);
    }

    /// A broken transfer goes on.
    pub fn upstream_resumed(&self, upstream: &Host) {
        self.metrics.upstream_resumes.increment(&[self.metrics.upstream(upstream)]);
        tracing::debug!(%upstream, "a broken transfer is resumed");
    }

    /// A token was fetched, or not.
    pub fn token_fetched(&self, upstream: &Host, ok: bool) {
        self.metrics.upstream_token_fetches.increment(&[self.metrics.upstream(upstream), outcome_position(ok)]);
    }

    /// A request is passed on to the next endpoint of an upstream.
    pub fn upstream_failed_over(&self, upstream: &Host) {
        self.metrics.upstream_failovers.increment(&[self.metrics.upstream(upstream)]);
    }

    /// The breakers of an upstream came to stand so; the caller has the worst of them.
    pub fn breaker_moved(&self, upstream: &Host, worst: BreakerState) {
        let value = i64::try_from(worst.position()).unwrap_or_default();
        self.metrics.upstream_breaker.set_at(&[self.metrics.upstream(upstream)], value);
        match worst {
            BreakerState::Closed => tracing::info!(%upstream, "the upstream is asked as usual again"),
            BreakerState::HalfOpen => tracing::debug!(%upstream, "one request finds out whether the upstream is back"),
            BreakerState::Open => {
                if let Some(withheld) = self.logs.breaker.next() {
                    tracing::warn!(%upstream, withheld, "the upstream fails or limits us and is left alone for a while");
                }
            }
        }
    }

    /// An upstream said how many requests it allows.
    pub fn rate_limit_seen(&self, upstream: &Host, requests: u64, remaining: u64, window: Option<Duration>) {
        let places = [self.metrics.upstream(upstream)];
        let value = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.metrics.upstream_rate_limit.set_at(&places, value(requests));
        self.metrics.upstream_rate_limit_remaining.set_at(&places, value(remaining));
        self.metrics.upstream_rate_limit_window.set_at(&places, value(window.map_or(0, |window| window.as_secs())));
    }

    /// An upstream gave what it was asked for.
    pub fn upstream_usable(&self, upstream: &Host, now: Timestamp) {
        self.metrics.upstream_last_success.set_at(&[self.metrics.upstream(upstream)], now.unix_seconds());
    }

    /// A credential was withheld from a place it must not go to.
    pub fn credential_blocked(&self, upstream: &Host) {
        self.metrics.upstream_credentials_blocked.increment(&[self.metrics.upstream(upstream)]);
        if let Some(withheld) = self.logs.credential.next() {
            tracing::warn!(%upstream, withheld, "a credential was not sent to a place it must not go to");
        }
    }

    /// A stale answer was served.
    pub fn stale_served(&self, upstream: &Host, cause: StaleCause) {
        self.metrics.cache_stale_served.increment(&[self.metrics.upstream(upstream), cause.position()]);
        if let Some(withheld) = self.logs.stale.next() {
            tracing::warn!(%upstream, cause = cause.as_label(), withheld, "upstream gives no answer; a stale tag was served");
        }
    }

    /// A request was decided (counted once a request).
    pub fn verdict_applied(&self, decision: DecisionLabel, reason: &'static str) {
        self.metrics.verdicts.increment(&[decision.position(), reason_position(reason)]);
    }

    /// A verdict was found or computed.
    pub fn verify_took(&self, source: VerifySource, took: Duration) {
        self.metrics.verify_duration.observe(&[source.position()], took);
    }

    /// The verdict store did something.
    pub fn verdict_store(&self, op: StoreOp, outcome: StoreOutcome) {
        self.metrics.verdict_store_ops.increment(&[op.position(), outcome.position()]);
        let failed = match outcome {
            StoreOutcome::Ok | StoreOutcome::Miss => false,
            StoreOutcome::Dropped | StoreOutcome::Timeout | StoreOutcome::Error | StoreOutcome::Corrupt => true,
        };
        if failed && let Some(withheld) = self.logs.store.next() {
            tracing::warn!(
                op = op.as_label(),
                outcome = outcome.as_label(),
                withheld,
                "the verdict database failed; it counts as a miss"
            );
        }
    }

    /// The verdict store's state: on disk or memory only.
    pub fn verdict_store_state(&self, on_disk: bool, entries: u64) {
        self.metrics.verdict_store_on_disk.set(u64::from(on_disk));
        self.metrics.verdict_store_entries.set(entries);
    }

    /// A verdict record's MAC did not fit.
    pub fn verdict_mac_failed(&self) {
        self.metrics.verdict_store_mac_failures.increment(&[]);
        if let Some(withheld) = self.logs.mac.next() {
            tracing::warn!(withheld, "a verdict record was not written by us or is damaged; it counts as missing");
        }
    }

    /// A reload of configuration or policy ended.
    pub fn policy_reloaded(&self, ok: bool) {
        self.metrics.policy_reloads.increment(&[outcome_position(ok)]);
        self.metrics.policy_stale.set(u64::from(!ok));
    }

    /// This trust root is in force now, current as of then; each part of it ends then, or never.
    pub fn trust_root_in_force(
        &self,
        kind: TrustRootKind,
        as_of: Option<Timestamp>,
        ends: &[(TrustPart, Option<Timestamp>)],
    ) {
        let seconds = |time: Option<Timestamp>| time.map_or(0, Timestamp::unix_seconds);
        for other in TrustRootKind::ALL {
            let value = if *other == kind { seconds(as_of) } else { 0 };
            self.metrics.trust_root_last_refresh.set_at(&[other.position()], value);
        }
        for (part, end) in ends {
            self.metrics.trust_root_expiry.set_at(&[part.position()], seconds(*end));
        }
    }

    /// A refresh of the trust root by TUF ended; the caller has logged how.
    pub fn trust_root_refreshed(&self, ok: bool) {
        self.metrics.trust_root_refreshes.increment(&[outcome_position(ok)]);
    }

    /// A connection was closed by us.
    pub fn connection_closed(&self, reason: CloseReason) {
        self.metrics.connections_closed.increment(&[reason.position()]);
        tracing::debug!(reason = reason.as_label(), "connection closed");
    }

    /// A request is told to come again, because it met that bound.
    pub fn overloaded(&self, bound: OverloadBound) {
        self.metrics.overloads.increment(&[bound.position()]);
        if let Some(withheld) = self.logs.overload.next() {
            tracing::warn!(bound = bound.as_label(), withheld, "too much at once; requests are told to come again");
        }
    }

    /// A report of audit mode on who signed came to its end.
    pub fn report_ended(&self, outcome: ReportOutcome) {
        self.metrics.audit_reports.increment(&[outcome.position()]);
    }

    /// A report of audit mode is not made, because too many wait.
    pub fn report_not_made(&self, image: &ImageReference) {
        self.report_ended(ReportOutcome::QueueFull);
        if let Some(withheld) = self.logs.report.next() {
            let text = "who signed it is not looked for: too many images are being looked at for reports";
            tracing::warn!(%image, withheld, "{text}");
        }
    }

    /// A log line was dropped. Logs nothing, for the same reason.
    pub fn log_dropped(&self) {
        self.metrics.log_dropped.increment(&[]);
    }

    /// A task or handler panicked.
    pub fn panicked(&self, place: &'static str) {
        self.metrics.panics.increment(&[]);
        tracing::error!(place, "a panic was caught; this is a bug, please report it with the lines above");
    }
}

fn outcome_position(ok: bool) -> usize {
    usize::from(!ok)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
