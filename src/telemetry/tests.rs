//! The table against what is exposed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::table::{Kind, Label, TABLE, Values};
use super::*;

fn hosts(count: usize) -> Vec<Host> {
    (0..count).map(|number| format!("registry-{number}.example").parse().unwrap()).collect()
}

/// The value of one line of the exposition; every value here is whole.
fn value(telemetry: &Telemetry, series: &str) -> u64 {
    let text = telemetry.render();
    let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
    line.unwrap_or_else(|| panic!("no {series}")).rsplit_once(' ').unwrap().1.parse().unwrap()
}

/// The sets of labels of each metric; a histogram's buckets count once.
fn label_sets(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.rsplit_once(' ').unwrap().0)
        .filter(|series| !series.contains("le=\"") && !series.split('{').next().unwrap().ends_with("_sum"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_metric_of_the_table_is_exposed_and_no_other() {
    let text = Telemetry::new(&hosts(1)).render();
    let mut exposed = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(exposed.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} twice");
        }
    }
    let table: BTreeMap<_, _> =
        TABLE.iter().map(|metric| (metric.name.to_owned(), metric.kind.word().to_owned())).collect();
    assert_eq!(exposed, table);
}

#[test]
fn names_carry_their_unit_and_counters_end_in_total() {
    for metric in TABLE {
        assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
        if matches!(metric.kind, Kind::Histogram(_)) {
            assert!(metric.name.ends_with("_seconds"), "{}", metric.name);
        }
        assert!(metric.help.ends_with('.'), "{}", metric.name);
    }
}

#[test]
fn series_stay_within_their_bound_with_ten_upstreams() {
    let text = Telemetry::new(&hosts(10)).render();
    let sets = label_sets(&text).len();
    let lines = text.lines().filter(|line| !line.starts_with('#')).count();
    assert!(sets <= 2200, "{sets} sets of labels");
    assert!(lines <= 4000, "{lines} lines, buckets included");
}

#[test]
fn events_add_no_series_and_unknown_upstreams_share_one() {
    let telemetry = Telemetry::new(&hosts(1));
    let before = label_sets(&telemetry.render());
    for number in 0..1000 {
        let unknown: Host = format!("unknown-{number}.example").parse().unwrap();
        telemetry.upstream_answered(&unknown, UpstreamOp::ManifestGet, CodeClass::Success, Duration::ZERO);
        telemetry.upstream_bytes(&unknown, 1);
        telemetry.stale_served(&unknown, StaleCause::Connect);
    }
    telemetry.verdict_applied(DecisionLabel::Deny, "a reason nobody listed");
    telemetry.request(RouteLabel::Manifest, MethodLabel::Get).status(418);
    assert_eq!(label_sets(&telemetry.render()), before);
    assert_eq!(value(&telemetry, "sealgate_upstream_bytes_total{upstream=\"other\"}"), 1000);
    assert_eq!(value(&telemetry, "sealgate_verdicts_total{decision=\"deny\",reason=\"other\"}"), 1);
}

#[test]
fn everything_is_zero_at_the_start() {
    let text = Telemetry::new(&hosts(2)).render();
    for line in text.lines().filter(|line| line.starts_with("sealgate_") && !line.starts_with("sealgate_build_info")) {
        assert!(line.ends_with(" 0"), "{line}");
    }
}

#[test]
fn fills_and_who_waits_for_them_are_counted() {
    let hosts = hosts(2);
    let telemetry = Telemetry::new(&hosts);
    telemetry.fill_began();
    telemetry.fill_began();
    telemetry.fill_ended(FillOutcome::DigestMismatch, 10, Duration::from_secs(2));
    telemetry.fill_joined();
    telemetry.fill_joined();
    telemetry.fill_left();
    let _queued = telemetry.transfer_queued(&hosts[1]);
    drop(telemetry.transfer_queued(&hosts[1]));
    for (series, wanted) in [
        ("sealgate_cache_fills_total{outcome=\"digest_mismatch\"}", 1),
        ("sealgate_cache_fills_in_flight", 1),
        ("sealgate_cache_fill_duration_seconds_sum", 2),
        ("sealgate_cache_filled_bytes_total", 10),
        ("sealgate_cache_fill_waiters", 1),
        ("sealgate_cache_fills_queued{upstream=\"registry-1.example\"}", 1),
        ("sealgate_cache_fills_queued{upstream=\"registry-0.example\"}", 0),
    ] {
        assert_eq!(value(&telemetry, series), wanted, "{series}");
    }
}

#[test]
fn what_the_disk_says_moves_its_own_series() {
    let telemetry = Telemetry::default();
    for code in [libc::ENOSPC, libc::EDQUOT, libc::EIO, libc::EROFS, libc::EMFILE, libc::EACCES, libc::EBUSY] {
        telemetry.cache_write_failed(&std::io::Error::from_raw_os_error(code));
    }
    telemetry.cache_write_failed(&std::io::ErrorKind::StorageFull.into());
    telemetry.scrubbed(ScrubOutcome::Wrong, 8);
    telemetry.scrub_ended(Timestamp::from_unix_seconds(12));
    for (series, wanted) in [
        ("sealgate_cache_write_errors_total{kind=\"enospc\"}", 3),
        ("sealgate_cache_write_errors_total{kind=\"eio\"}", 1),
        ("sealgate_cache_write_errors_total{kind=\"erofs\"}", 1),
        ("sealgate_cache_write_errors_total{kind=\"emfile\"}", 1),
        ("sealgate_cache_write_errors_total{kind=\"eacces\"}", 1),
        ("sealgate_cache_write_errors_total{kind=\"other\"}", 1),
        ("sealgate_cache_verified_total{outcome=\"wrong\"}", 1),
        ("sealgate_cache_verified_bytes_total", 8),
        ("sealgate_cache_verified_last_timestamp_seconds", 12),
    ] {
        assert_eq!(value(&telemetry, series), wanted, "{series}");
    }
}

#[test]
fn each_event_moves_its_own_series() {
    let hosts = hosts(2);
    let host = hosts.last().unwrap();
    let telemetry = Telemetry::new(&hosts);
    telemetry.cache_asked(CacheKind::Blob, CacheResult::Joined);
    telemetry.cache_sized(1, 2, 3);
    telemetry.evicted(EvictionReason::Corrupt, 5);
    telemetry.upstream_answered(host, UpstreamOp::Token, CodeClass::Timeout, Duration::from_secs(1));
    telemetry.upstream_bytes(host, 7);
    telemetry.upstream_retried(host);
    telemetry.upstream_resumed(host);
    telemetry.token_fetched(host, false);
    telemetry.credential_blocked(host);
    telemetry.stale_served(host, StaleCause::RateLimited);
    telemetry.verdict_applied(DecisionLabel::AuditDeny, "no_signature");
    telemetry.verify_took(VerifySource::Computed, Duration::from_millis(3));
    telemetry.verdict_store(StoreOp::Put, StoreOutcome::Dropped);
    telemetry.verdict_store_state(true, 9);
    telemetry.report_not_made(&"quay.io/a/b:1".parse().unwrap());
    telemetry.report_ended(ReportOutcome::Done);
    telemetry.verdict_mac_failed();
    telemetry.policy_reloaded(false);
    telemetry.connection_closed(CloseReason::HeaderTimeout);
    let (day, ends) = (Timestamp::from_unix_seconds(86_400), Timestamp::from_unix_seconds(172_800));
    telemetry.trust_root_in_force(TrustRootKind::Tuf, Some(day), &[(TrustPart::Tuf, Some(ends))]);
    telemetry.trust_root_refreshed(false);
    telemetry.panicked("test");
    for (series, wanted) in [
        ("sealgate_cache_requests_total{kind=\"blob\",result=\"joined\"}", 1),
        ("sealgate_cache_bytes", 1),
        ("sealgate_cache_limit_bytes", 2),
        ("sealgate_cache_entries", 3),
        ("sealgate_cache_evictions_total{reason=\"corrupt\"}", 1),
        ("sealgate_cache_evicted_bytes_total", 5),
        ("sealgate_upstream_requests_total{code_class=\"timeout\",op=\"token\",upstream=\"registry-1.example\"}", 1),
        ("sealgate_upstream_request_duration_seconds_count{op=\"token\",upstream=\"registry-1.example\"}", 1),
        ("sealgate_upstream_bytes_total{upstream=\"registry-1.example\"}", 7),
        ("sealgate_upstream_retries_total{upstream=\"registry-1.example\"}", 1),
        ("sealgate_upstream_resumes_total{upstream=\"registry-1.example\"}", 1),
        ("sealgate_upstream_token_fetches_total{outcome=\"error\",upstream=\"registry-1.example\"}", 1),
        ("sealgate_upstream_credentials_blocked_total{upstream=\"registry-1.example\"}", 1),
        ("sealgate_cache_stale_served_total{cause=\"http_429\",upstream=\"registry-1.example\"}", 1),
        ("sealgate_verdicts_total{decision=\"audit_deny\",reason=\"no_signature\"}", 1),
        ("sealgate_verify_duration_seconds_count{source=\"computed\"}", 1),
        ("sealgate_verdict_store_ops_total{op=\"put\",outcome=\"dropped\"}", 1),
        ("sealgate_verdict_store_on_disk", 1),
        ("sealgate_verdict_store_entries", 9),
        ("sealgate_audit_reports_total{outcome=\"queue_full\"}", 1),
        ("sealgate_audit_reports_total{outcome=\"done\"}", 1),
        ("sealgate_verdict_store_mac_failures_total", 1),
        ("sealgate_policy_reloads_total{outcome=\"error\"}", 1),
        ("sealgate_policy_stale", 1),
        ("sealgate_connections_closed_total{reason=\"header_timeout\"}", 1),
        ("sealgate_trust_root_last_refresh_timestamp_seconds{root=\"tuf\"}", 86_400),
        ("sealgate_trust_root_last_refresh_timestamp_seconds{root=\"built_in\"}", 0),
        ("sealgate_trust_root_expiry_timestamp_seconds{root=\"tuf\"}", 172_800),
        ("sealgate_trust_root_refreshes_total{outcome=\"error\"}", 1),
        ("sealgate_panics_total", 1),
    ] {
        assert_eq!(value(&telemetry, series), wanted, "{series}");
    }
    telemetry.policy_reloaded(true);
    assert_eq!(value(&telemetry, "sealgate_policy_stale"), 0);
}

#[test]
fn the_health_of_an_upstream_has_its_own_series() {
    let hosts = hosts(2);
    let (host, telemetry) = (hosts.last().unwrap(), Telemetry::new(&hosts));
    telemetry.upstream_failed_over(host);
    telemetry.breaker_moved(host, BreakerState::Open);
    telemetry.rate_limit_seen(host, 100, 76, Some(Duration::from_hours(6)));
    telemetry.upstream_usable(host, Timestamp::from_unix_seconds(5));
    for (series, wanted) in [
        ("sealgate_upstream_failovers_total{upstream=\"registry-1.example\"}", 1),
        ("sealgate_upstream_breaker_state{upstream=\"registry-1.example\"}", 2),
        ("sealgate_upstream_ratelimit_limit{upstream=\"registry-1.example\"}", 100),
        ("sealgate_upstream_ratelimit_remaining{upstream=\"registry-1.example\"}", 76),
        ("sealgate_upstream_ratelimit_window_seconds{upstream=\"registry-1.example\"}", 21_600),
        ("sealgate_upstream_last_success_timestamp_seconds{upstream=\"registry-1.example\"}", 5),
    ] {
        assert_eq!(value(&telemetry, series), wanted, "{series}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_counted_once_with_its_time_and_bytes() {
    let telemetry = Telemetry::default();
    let mut guard = telemetry.request(RouteLabel::Blob, MethodLabel::Get);
    assert_eq!(value(&telemetry, "sealgate_http_requests_in_flight{route=\"blob\"}"), 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    guard.status(206);
    guard.first_byte();
    tokio::time::advance(Duration::from_secs(2)).await;
    guard.first_byte();
    guard.sent(100);
    guard.sent(23);
    guard.finished();
    for (series, wanted) in [
        ("sealgate_http_requests_in_flight{route=\"blob\"}", 0),
        ("sealgate_http_requests_total{code=\"206\",method=\"GET\",route=\"blob\"}", 1),
        ("sealgate_http_requests_total{code=\"499\",method=\"GET\",route=\"blob\"}", 0),
        ("sealgate_http_response_bytes_total{route=\"blob\"}", 123),
        ("sealgate_http_ttfb_seconds_count{route=\"blob\"}", 1),
        ("sealgate_http_ttfb_seconds_sum{route=\"blob\"}", 1),
        ("sealgate_http_request_duration_seconds_sum{method=\"GET\",route=\"blob\"}", 3),
    ] {
        assert_eq!(value(&telemetry, series), wanted, "{series}");
    }
}

#[test]
fn a_request_whose_client_left_is_counted_as_cancelled() {
    let telemetry = Telemetry::default();
    let mut guard = telemetry.request(RouteLabel::Blob, MethodLabel::Get);
    guard.status(200);
    drop(guard);
    assert_eq!(value(&telemetry, "sealgate_http_requests_total{code=\"499\",method=\"GET\",route=\"blob\"}"), 1);
    assert_eq!(value(&telemetry, "sealgate_http_requests_total{code=\"200\",method=\"GET\",route=\"blob\"}"), 0);
    assert_eq!(value(&telemetry, "sealgate_http_requests_in_flight{route=\"blob\"}"), 0);
}

#[test]
fn two_servers_in_one_process_count_apart() {
    let (one, two) = (Telemetry::default(), Telemetry::default());
    one.policy_reloaded(true);
    assert_eq!(value(&one, "sealgate_policy_reloads_total{outcome=\"ok\"}"), 1);
    assert_eq!(value(&two, "sealgate_policy_reloads_total{outcome=\"ok\"}"), 0);
}

/// Run with `SEALGATE_BLESS=1` to write the page anew.
#[test]
#[expect(clippy::disallowed_methods, reason = "tells a test to write its expectation")]
fn the_metrics_page_says_what_the_table_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    let page = page();
    if std::env::var("SEALGATE_BLESS").is_ok() {
        std::fs::write(path, &page).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), page, "write it anew with `just bless`");
}

fn page() -> String {
    let mut page = String::from(PAGE_HEAD);
    for metric in TABLE {
        let labels = metric.labels.iter().map(|label| format!("`{}`", label.name)).collect::<Vec<_>>().join(", ");
        writeln!(page, "| `{}` | {} | {labels} | {} |", metric.name, metric.kind.word(), metric.help).unwrap();
    }
    page.push_str(PAGE_LABELS);
    let mut seen = BTreeSet::new();
    for (metric, label) in TABLE.iter().flat_map(|metric| metric.labels.iter().map(move |label| (metric, label))) {
        let values = values(label);
        if metric.name != "sealgate_build_info" && seen.insert((label.name, values.clone())) {
            let of = TABLE
                .iter()
                .filter(|other| other.labels.iter().any(|same| same.name == label.name && self::values(same) == values))
                .map(|metric| format!("`{}`", metric.name))
                .collect::<Vec<_>>();
            let of = if of.len() > 2 { format!("{} metrics", of.len()) } else { of.join(", ") };
            writeln!(page, "| `{}` | {of} | {values} |", label.name).unwrap();
        }
    }
    page
}

fn values(label: &Label) -> String {
    match label.values {
        Values::Upstreams => "the configured names, `other`".to_owned(),
        Values::Closed(values) => values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(" "),
    }
}

const PAGE_HEAD: &str = "# Metrics

Served as `/metrics` on the admin listener, in the Prometheus text format. This page is made from the table in
`src/telemetry/table.rs`; a test keeps both equal, and `just bless` writes it anew.

Every series exists from the start, at 0. Labels come from closed lists and from the configured upstreams alone;
repository, tag, digest, identity and client are log fields, never labels. With ten upstreams there are fewer than
2,000 sets of labels (a histogram counted once). Units are seconds and bytes.

Ways to read them:

- Share of blobs that did not need an upstream:
  `sum(rate(sealgate_cache_requests_total{kind=\"blob\",result=~\"hit|joined\"}[5m])) / sum(rate(sealgate_cache_requests_total{kind=\"blob\"}[5m]))`
- Refused pulls by reason: `sum by (reason) (rate(sealgate_verdicts_total{decision=\"deny\"}[5m]))`
- Pulls that could not be decided: `sum by (reason) (rate(sealgate_verdicts_total{decision=\"undecided\"}[5m]))`
- What enforcing would refuse: `sum by (reason) (increase(sealgate_verdicts_total{decision=~\"audit_deny|audit_undecided\"}[24h]))`
- Bytes that the cache saved: `sum(rate(sealgate_http_response_bytes_total[5m])) - sum(rate(sealgate_upstream_bytes_total[5m]))`

| metric | kind | labels | meaning |
|---|---|---|---|
";

const PAGE_LABELS: &str = "
## Labels

| label | of | values |
|---|---|---|
";
