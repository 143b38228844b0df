//! The table of all metrics: name, kind, labels and help text. `docs/metrics.md` is made from it.

use super::labels::{
    CODE_LABELS, CacheKind, CacheResult, CloseReason, CodeClass, DecisionLabel, EvictionReason, FillOutcome,
    MethodLabel, OverloadBound, REASON_LABELS, ReportOutcome, RouteLabel, ScrubOutcome, StaleCause, StoreOp,
    StoreOutcome, TrustPart, TrustRootKind, UpstreamOp, VerifySource, WriteError,
};

/// One metric.
#[derive(Debug)]
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) labels: &'static [Label],
    /// One sentence, shown by Prometheus and in the docs.
    pub(super) help: &'static str,
}

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    /// With these upper bounds, in seconds.
    Histogram(&'static [f64]),
}

impl Kind {
    /// The word in the exposition format.
    #[cfg(test)]
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// One label and the values it can have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Label {
    pub(super) name: &'static str,
    pub(super) values: Values,
}

/// What a label can say.
#[derive(Debug, Clone, Copy)]
pub(super) enum Values {
    /// One of these.
    Closed(&'static [&'static str]),
    /// The configured upstreams, and `other`.
    Upstreams,
}

const fn closed(name: &'static str, values: &'static [&'static str]) -> Label {
    Label { name, values: Values::Closed(values) }
}

const ROUTE: Label = closed("route", RouteLabel::LABELS);
const METHOD: Label = closed("method", MethodLabel::LABELS);
const UPSTREAM: Label = Label { name: "upstream", values: Values::Upstreams };
/// Did it work?
pub(super) const OUTCOMES: &[&str] = &["ok", "error"];
const OUTCOME: Label = closed("outcome", OUTCOMES);

/// From a warm manifest to a large image over a slow line.
const REQUEST_SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0];
const FIRST_BYTE_SECONDS: &[f64] = &[0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const UPSTREAM_SECONDS: &[f64] = &[0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const FILL_SECONDS: &[f64] = &[0.05, 0.25, 1.0, 5.0, 10.0, 30.0, 120.0, 600.0];
const VERIFY_SECONDS: &[f64] = &[0.0001, 0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Defines the constants and the list of them, so that none can be forgotten.
macro_rules! table {
    ($( $constant:ident: $kind:expr, $name:literal, [$($label:expr),*], $help:literal; )+) => {
        $(
            pub(super) const $constant: Metric =
                Metric { name: $name, kind: $kind, labels: &[$($label),*], help: $help };
        )+
        /// All of them, in the order of the docs.
        #[cfg(test)]
        pub(super) const TABLE: &[&Metric] = &[$( &$constant, )+];
    };
}

use Kind::{Counter, Gauge, Histogram};

table! {
    HTTP_REQUESTS: Counter, "sealgate_http_requests_total", [ROUTE, METHOD, closed("code", CODE_LABELS)],
        "Requests to the registry API that have ended, by status; 499 is a client that left before the end.";
    HTTP_REQUEST_DURATION: Histogram(REQUEST_SECONDS), "sealgate_http_request_duration_seconds", [ROUTE, METHOD],
        "Time from the request's headers to the last byte of its answer.";
    HTTP_TTFB: Histogram(FIRST_BYTE_SECONDS), "sealgate_http_ttfb_seconds", [ROUTE],
        "Time from the request's headers to the first byte of its answer.";
    HTTP_IN_FLIGHT: Gauge, "sealgate_http_requests_in_flight", [ROUTE],
        "Requests that are being answered now.";
    HTTP_RESPONSE_BYTES: Counter, "sealgate_http_response_bytes_total", [ROUTE],
        "Body bytes sent to clients.";
    CONNECTIONS_CLOSED: Counter, "sealgate_connections_closed_total", [closed("reason", CloseReason::LABELS)],
        "Client connections that the server closed or refused, by reason.";
    OVERLOADS: Counter, "sealgate_overloads_total", [closed("bound", OverloadBound::LABELS)],
        "Requests that were told to come again, by the bound that they met, whichever status their client got.";

    CACHE_REQUESTS: Counter, "sealgate_cache_requests_total",
        [closed("kind", CacheKind::LABELS), closed("result", CacheResult::LABELS)],
        "Questions to the cache, by what was asked for and what it said.";
    CACHE_FILLS: Counter, "sealgate_cache_fills_total", [closed("outcome", FillOutcome::LABELS)],
        "Transfers from an upstream into the cache that have ended, by outcome.";
    CACHE_FILL_DURATION: Histogram(FILL_SECONDS), "sealgate_cache_fill_duration_seconds", [],
        "Time that a transfer from an upstream into the cache took.";
    CACHE_FILLS_IN_FLIGHT: Gauge, "sealgate_cache_fills_in_flight", [],
        "Transfers from upstreams into the cache that run now.";
    CACHE_FILL_WAITERS: Gauge, "sealgate_cache_fill_waiters", [],
        "Requests that wait for such a transfer or read behind it now.";
    CACHE_FILLS_QUEUED: Gauge, "sealgate_cache_fills_queued", [UPSTREAM],
        "Blob transfers that wait for their turn at an upstream now.";
    CACHE_FILLED_BYTES: Counter, "sealgate_cache_filled_bytes_total", [],
        "Bytes that transfers from upstreams into the cache moved.";
    CACHE_BYTES: Gauge, "sealgate_cache_bytes", [],
        "Bytes of blobs in the cache.";
    CACHE_LIMIT_BYTES: Gauge, "sealgate_cache_limit_bytes", [],
        "Bytes of blobs that the cache may hold (cache.max_bytes).";
    CACHE_ENTRIES: Gauge, "sealgate_cache_entries", [],
        "Blobs in the cache.";
    CACHE_EVICTIONS: Counter, "sealgate_cache_evictions_total", [closed("reason", EvictionReason::LABELS)],
        "Blobs removed from the cache, by reason.";
    CACHE_EVICTED_BYTES: Counter, "sealgate_cache_evicted_bytes_total", [],
        "Bytes of blobs removed from the cache.";
    CACHE_WRITE_ERRORS: Counter, "sealgate_cache_write_errors_total", [closed("kind", WriteError::LABELS)],
        "Writes to the cache that failed, by the system's error; the answer went out without being cached.";
    CACHE_VERIFIED: Counter, "sealgate_cache_verified_total", [closed("outcome", ScrubOutcome::LABELS)],
        "Cached files that were hashed again in the background, by outcome; all but the good ones were set aside.";
    CACHE_VERIFIED_BYTES: Counter, "sealgate_cache_verified_bytes_total", [],
        "Bytes of cached files that were hashed again in the background.";
    CACHE_VERIFIED_LAST: Gauge, "sealgate_cache_verified_last_timestamp_seconds", [],
        "When all cached files had last been hashed again, in seconds since 1970; 0: not by this process.";
    CACHE_STALE_SERVED: Counter, "sealgate_cache_stale_served_total",
        [UPSTREAM, closed("cause", StaleCause::LABELS)],
        "Answers from a tag that was older than tag_ttl because its upstream did not answer, or no longer has it, by cause.";

    UPSTREAM_REQUESTS: Counter, "sealgate_upstream_requests_total",
        [UPSTREAM, closed("op", UpstreamOp::LABELS), closed("code_class", CodeClass::LABELS)],
        "Requests to upstreams, by operation and answer.";
    UPSTREAM_REQUEST_DURATION: Histogram(UPSTREAM_SECONDS), "sealgate_upstream_request_duration_seconds",
        [UPSTREAM, closed("op", UpstreamOp::LABELS)],
        "Time from a request to an upstream to the headers of its answer.";
    UPSTREAM_BYTES: Counter, "sealgate_upstream_bytes_total", [UPSTREAM],
        "Body bytes received from upstreams.";
    UPSTREAM_RETRIES: Counter, "sealgate_upstream_retries_total", [UPSTREAM],
        "Requests to upstreams that were tried again.";
    UPSTREAM_RESUMES: Counter, "sealgate_upstream_resumes_total", [UPSTREAM],
        "Broken transfers from upstreams that were resumed.";
    UPSTREAM_TOKEN_FETCHES: Counter, "sealgate_upstream_token_fetches_total", [UPSTREAM, OUTCOME],
        "Tokens asked of an upstream's token service.";
    UPSTREAM_CREDENTIALS_BLOCKED: Counter, "sealgate_upstream_credentials_blocked_total", [UPSTREAM],
        "Times that a credential was withheld from a place it must not go to.";
    UPSTREAM_FAILOVERS: Counter, "sealgate_upstream_failovers_total", [UPSTREAM],
        "Requests that were passed on to the next endpoint of the upstream, because the one before failed.";
    UPSTREAM_BREAKER: Gauge, "sealgate_upstream_breaker_state", [UPSTREAM],
        "Whether the upstream is asked: 0 yes, 1 one request finds out, 2 not before its pause or limit has passed; the worst of \
         all its endpoints and credentials.";
    UPSTREAM_RATE_LIMIT: Gauge, "sealgate_upstream_ratelimit_limit", [UPSTREAM],
        "Requests that the upstream last said it allows in one window (ratelimit-limit); 0: it has not said so.";
    UPSTREAM_RATE_LIMIT_REMAINING: Gauge, "sealgate_upstream_ratelimit_remaining", [UPSTREAM],
        "Requests that the upstream last said are left (ratelimit-remaining).";
    UPSTREAM_RATE_LIMIT_WINDOW: Gauge, "sealgate_upstream_ratelimit_window_seconds", [UPSTREAM],
        "Length of the window that the upstream last said its limit is for; 0: it has not said so.";
    UPSTREAM_LAST_SUCCESS: Gauge, "sealgate_upstream_last_success_timestamp_seconds", [UPSTREAM],
        "When the upstream last gave what it was asked for, in seconds since 1970; 0: not since the start.";

    VERDICTS: Counter, "sealgate_verdicts_total",
        [closed("decision", DecisionLabel::LABELS), closed("reason", REASON_LABELS)],
        "Requests decided, by decision and reason; audit mode and exemptions are applied.";
    VERIFY_DURATION: Histogram(VERIFY_SECONDS), "sealgate_verify_duration_seconds",
        [closed("source", VerifySource::LABELS)],
        "Time to a verdict, found in the store or computed.";
    AUDIT_REPORTS: Counter, "sealgate_audit_reports_total", [closed("outcome", ReportOutcome::LABELS)],
        "Reports of audit mode on who signed an image, by outcome; queue_full: not made, because too many waited.";
    VERDICT_STORE_OPS: Counter, "sealgate_verdict_store_ops_total",
        [closed("op", StoreOp::LABELS), closed("outcome", StoreOutcome::LABELS)],
        "Operations of the verdict database.";
    VERDICT_STORE_ENTRIES: Gauge, "sealgate_verdict_store_entries", [],
        "Records in the verdict database.";
    VERDICT_STORE_ON_DISK: Gauge, "sealgate_verdict_store_on_disk", [],
        "1 when verdicts are kept on disk, 0 when in memory only.";
    VERDICT_STORE_MAC_FAILURES: Counter, "sealgate_verdict_store_mac_failures_total", [],
        "Records of the verdict database whose authentication code did not fit; they count as missing.";

    POLICY_RELOADS: Counter, "sealgate_policy_reloads_total", [OUTCOME],
        "Reloads of configuration and policy; after an error the old ones stay in force.";
    POLICY_STALE: Gauge, "sealgate_policy_stale", [],
        "1 when the last reload failed, so that an older configuration is in force than the files say.";
    TRUST_ROOT_EXPIRY: Gauge, "sealgate_trust_root_expiry_timestamp_seconds", [closed("root", TrustPart::LABELS)],
        "When the last of that kind that the trust root in force names ends, and when the TUF metadata that vouches for it \
         does, in seconds since 1970; 0: without end.";
    TRUST_ROOT_LAST_REFRESH: Gauge, "sealgate_trust_root_last_refresh_timestamp_seconds",
        [closed("root", TrustRootKind::LABELS)],
        "When the trust root in force was last known to be current (fetched, written, or taken over into a release), in \
         seconds since 1970; 0: not in force.";
    TRUST_ROOT_REFRESHES: Counter, "sealgate_trust_root_refreshes_total", [OUTCOME],
        "Refreshes of the trust root by TUF; after an error the last good one stays in force.";
    PANICS: Counter, "sealgate_panics_total", [],
        "Panics that were caught; the request or task ended as undecided.";
    LOG_DROPPED: Counter, "sealgate_log_dropped_total", [],
        "Log lines that were dropped because nobody read the log fast enough.";
    BUILD_INFO: Gauge, "sealgate_build_info", [closed("version", BUILD_VERSION), closed("revision", BUILD_REVISION)],
        "Always 1; the labels say what runs.";

    PROCESS_CPU: Counter, "process_cpu_seconds_total", [],
        "User and system CPU time, in seconds.";
    PROCESS_RESIDENT: Gauge, "process_resident_memory_bytes", [],
        "Resident memory, in bytes.";
    PROCESS_VIRTUAL: Gauge, "process_virtual_memory_bytes", [],
        "Virtual memory, in bytes.";
    PROCESS_OPEN_FDS: Gauge, "process_open_fds", [],
        "Open file descriptors.";
    PROCESS_MAX_FDS: Gauge, "process_max_fds", [],
        "File descriptors that may be open.";
    PROCESS_THREADS: Gauge, "process_threads", [],
        "Threads.";
    PROCESS_START: Gauge, "process_start_time_seconds", [],
        "Start of the process, in seconds since 1970.";
}

const BUILD_VERSION: &[&str] = &[env!("CARGO_PKG_VERSION")];
const BUILD_REVISION: &[&str] = &[match option_env!("SEALGATE_REVISION") {
    Some(revision) => revision,
    None => "unknown",
}];
