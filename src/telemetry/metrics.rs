//! The metrics themselves. Their registry belongs to the struct, so that several servers can run in one process.

use std::collections::HashMap;

use prometheus::{Histogram, IntCounter, IntGauge, Registry, TextEncoder};

use super::family::Family;
use super::process::Process;
use super::table;
use crate::oci::Host;

/// Every metric of the table.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    upstreams: HashMap<Host, usize>,
    pub(super) http_requests: Family<IntCounter>,
    pub(super) http_request_duration: Family<Histogram>,
    pub(super) http_ttfb: Family<Histogram>,
    pub(super) http_in_flight: Family<IntGauge>,
    pub(super) http_response_bytes: Family<IntCounter>,
    pub(super) connections_closed: Family<IntCounter>,
    pub(super) overloads: Family<IntCounter>,
    pub(super) cache_requests: Family<IntCounter>,
    pub(super) cache_fills: Family<IntCounter>,
    pub(super) cache_fill_duration: Family<Histogram>,
    pub(super) cache_fills_in_flight: Family<IntGauge>,
    pub(super) cache_fill_waiters: Family<IntGauge>,
    pub(super) cache_fills_queued: Family<IntGauge>,
    pub(super) cache_filled_bytes: Family<IntCounter>,
    pub(super) cache_bytes: Family<IntGauge>,
    pub(super) cache_limit_bytes: Family<IntGauge>,
    pub(super) cache_entries: Family<IntGauge>,
    pub(super) cache_evictions: Family<IntCounter>,
    pub(super) cache_evicted_bytes: Family<IntCounter>,
    pub(super) cache_write_errors: Family<IntCounter>,
    pub(super) cache_verified: Family<IntCounter>,
    pub(super) cache_verified_bytes: Family<IntCounter>,
    pub(super) cache_verified_last: Family<IntGauge>,
    pub(super) cache_stale_served: Family<IntCounter>,
    pub(super) upstream_requests: Family<IntCounter>,
    pub(super) upstream_request_duration: Family<Histogram>,
    pub(super) upstream_bytes: Family<IntCounter>,
    pub(super) upstream_retries: Family<IntCounter>,
    pub(super) upstream_resumes: Family<IntCounter>,
    pub(super) upstream_token_fetches: Family<IntCounter>,
    pub(super) upstream_credentials_blocked: Family<IntCounter>,
    pub(super) upstream_failovers: Family<IntCounter>,
    pub(super) upstream_breaker: Family<IntGauge>,
    pub(super) upstream_rate_limit: Family<IntGauge>,
    pub(super) upstream_rate_limit_remaining: Family<IntGauge>,
    pub(super) upstream_rate_limit_window: Family<IntGauge>,
    pub(super) upstream_last_success: Family<IntGauge>,
    pub(super) verdicts: Family<IntCounter>,
    pub(super) verify_duration: Family<Histogram>,
    pub(super) audit_reports: Family<IntCounter>,
    pub(super) verdict_store_ops: Family<IntCounter>,
    pub(super) verdict_store_entries: Family<IntGauge>,
    pub(super) verdict_store_on_disk: Family<IntGauge>,
    pub(super) verdict_store_mac_failures: Family<IntCounter>,
    pub(super) policy_reloads: Family<IntCounter>,
    pub(super) policy_stale: Family<IntGauge>,
    pub(super) trust_root_expiry: Family<IntGauge>,
    pub(super) trust_root_last_refresh: Family<IntGauge>,
    pub(super) trust_root_refreshes: Family<IntCounter>,
    pub(super) panics: Family<IntCounter>,
    pub(super) log_dropped: Family<IntCounter>,
}

impl Metrics {
    pub(super) fn new(hosts: &[Host]) -> Self {
        let registry = Registry::new();
        let names: Vec<&str> = hosts.iter().map(Host::as_str).collect();
        let counter = |metric| Family::counter(metric, &names, &registry);
        let gauge = |metric| Family::gauge(metric, &names, &registry);
        let histogram = |metric| Family::histogram(metric, &names, &registry);
        gauge(&table::BUILD_INFO).change(&[0, 0], 1);
        // Cannot collide: the names of process.rs are in the same table as all others, and a test makes them all.
        registry.register(Box::new(Process::new())).unwrap_or_default();
        Self {
            upstreams: hosts.iter().cloned().zip(0..).collect(),
            http_requests: counter(&table::HTTP_REQUESTS),
            http_request_duration: histogram(&table::HTTP_REQUEST_DURATION),
            http_ttfb: histogram(&table::HTTP_TTFB),
            http_in_flight: gauge(&table::HTTP_IN_FLIGHT),
            http_response_bytes: counter(&table::HTTP_RESPONSE_BYTES),
            connections_closed: counter(&table::CONNECTIONS_CLOSED),
            overloads: counter(&table::OVERLOADS),
            cache_requests: counter(&table::CACHE_REQUESTS),
            cache_fills: counter(&table::CACHE_FILLS),
            cache_fill_duration: histogram(&table::CACHE_FILL_DURATION),
            cache_fills_in_flight: gauge(&table::CACHE_FILLS_IN_FLIGHT),
            cache_fill_waiters: gauge(&table::CACHE_FILL_WAITERS),
            cache_fills_queued: gauge(&table::CACHE_FILLS_QUEUED),
            cache_filled_bytes: counter(&table::CACHE_FILLED_BYTES),
            cache_bytes: gauge(&table::CACHE_BYTES),
            cache_limit_bytes: gauge(&table::CACHE_LIMIT_BYTES),
            cache_entries: gauge(&table::CACHE_ENTRIES),
            cache_evictions: counter(&table::CACHE_EVICTIONS),
            cache_evicted_bytes: counter(&table::CACHE_EVICTED_BYTES),
            cache_write_errors: counter(&table::CACHE_WRITE_ERRORS),
            cache_verified: counter(&table::CACHE_VERIFIED),
            cache_verified_bytes: counter(&table::CACHE_VERIFIED_BYTES),
            cache_verified_last: gauge(&table::CACHE_VERIFIED_LAST),
            cache_stale_served: counter(&table::CACHE_STALE_SERVED),
            upstream_requests: counter(&table::UPSTREAM_REQUESTS),
            upstream_request_duration: histogram(&table::UPSTREAM_REQUEST_DURATION),
            upstream_bytes: counter(&table::UPSTREAM_BYTES),
            upstream_retries: counter(&table::UPSTREAM_RETRIES),
            upstream_resumes: counter(&table::UPSTREAM_RESUMES),
            upstream_token_fetches: counter(&table::UPSTREAM_TOKEN_FETCHES),
            upstream_credentials_blocked: counter(&table::UPSTREAM_CREDENTIALS_BLOCKED),
            upstream_failovers: counter(&table::UPSTREAM_FAILOVERS),
            upstream_breaker: gauge(&table::UPSTREAM_BREAKER),
            upstream_rate_limit: gauge(&table::UPSTREAM_RATE_LIMIT),
            upstream_rate_limit_remaining: gauge(&table::UPSTREAM_RATE_LIMIT_REMAINING),
            upstream_rate_limit_window: gauge(&table::UPSTREAM_RATE_LIMIT_WINDOW),
            upstream_last_success: gauge(&table::UPSTREAM_LAST_SUCCESS),
            verdicts: counter(&table::VERDICTS),
            verify_duration: histogram(&table::VERIFY_DURATION),
            audit_reports: counter(&table::AUDIT_REPORTS),
            verdict_store_ops: counter(&table::VERDICT_STORE_OPS),
            verdict_store_entries: gauge(&table::VERDICT_STORE_ENTRIES),
            verdict_store_on_disk: gauge(&table::VERDICT_STORE_ON_DISK),
            verdict_store_mac_failures: counter(&table::VERDICT_STORE_MAC_FAILURES),
            policy_reloads: counter(&table::POLICY_RELOADS),
            policy_stale: gauge(&table::POLICY_STALE),
            trust_root_expiry: gauge(&table::TRUST_ROOT_EXPIRY),
            trust_root_last_refresh: gauge(&table::TRUST_ROOT_LAST_REFRESH),
            trust_root_refreshes: counter(&table::TRUST_ROOT_REFRESHES),
            panics: counter(&table::PANICS),
            log_dropped: counter(&table::LOG_DROPPED),
            registry,
        }
    }

    /// The place of an upstream among the values of its label; an unknown one is `other`.
    pub(super) fn upstream(&self, host: &Host) -> usize {
        self.upstreams.get(host).copied().unwrap_or(self.upstreams.len())
    }

    /// The exposition text (Prometheus text format 0.0.4).
    pub(super) fn render(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_else(|error| {
            tracing::error!(%error, "metrics cannot be written");
            String::new()
        })
    }
}
