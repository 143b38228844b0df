//! How often an upstream in trouble is asked, and who goes first when it may be back.

use std::time::Duration;

use futures_util::future::join_all;
use sealgate::limits::{BREAKER_FAILURES, BREAKER_PAUSE, RETRY_AFTER, RETRY_AFTER_DEFAULT, UPSTREAM_RETRIES_MAX};
use sealgate::telemetry::Telemetry;
use sealgate::testing::{Auth, FakeRegistry, Fault, ImageBuilder, TokenAuth};
use sealgate::upstream::{Credentials, Network, Settings, Upstream, UpstreamError};

use super::{HOST, advance, client, name, quick, registry, tag};

fn limited<T: std::fmt::Debug>(result: Result<T, UpstreamError>) -> Duration {
    let error = result.unwrap_err();
    let UpstreamError::RateLimited { retry_after, .. } = error else { panic!("{error:?}") };
    retry_after
}

fn is_resting<T>(result: &Result<T, UpstreamError>) -> bool {
    matches!(result, Err(UpstreamError::Resting { .. }))
}

/// What `Retry-After` says in each of its forms is waited for, and a whole crowd that comes back costs one request.
#[tokio::test]
async fn u09_one_request_a_window_whatever_retry_after_says() {
    let in_a_minute = jiff_date(60);
    let rows = [
        (Some("3600"), RETRY_AFTER.1),
        (Some("0"), RETRY_AFTER.0),
        (Some(in_a_minute.as_str()), Duration::from_mins(1)),
        (Some("Sun, 06 Nov 1994 08:49:37 GMT"), RETRY_AFTER.0),
        (Some("soon"), RETRY_AFTER_DEFAULT),
        (Some("-1"), RETRY_AFTER_DEFAULT),
        (None, RETRY_AFTER_DEFAULT),
    ];
    for (header, wait) in rows {
        let (registry, image, client) = registry().await;
        let fault = Fault::on("*").status(429);
        registry.fault(header.map_or(fault.clone(), |header| fault.header("retry-after", header)));
        let first = limited(client.manifest(&name(), &tag()).await);
        assert!(first <= wait && wait.checked_sub(first).unwrap() <= Duration::from_secs(5), "{header:?}: {first:?}");
        for window in 1..=3 {
            let (name, tag) = (name(), tag());
            let crowd = join_all((0..50).map(|_| client.manifest_head(&name, &tag))).await;
            assert!(crowd.into_iter().all(|result| limited(result) <= wait), "{header:?}");
            assert!(limited(client.tags(&name, 1, None).await) <= wait);
            assert!(limited(client.blob_head(&name, &image.blobs[1].digest).await) <= wait);
            assert_eq!(registry.count("*", "*"), window, "{header:?}: one request a window");
            advance(wait).await;
            let crowd = join_all((0..50).map(|_| client.manifest_head(&name, &tag))).await;
            assert!(crowd.into_iter().all(|result| limited(result) <= wait), "{header:?}");
            assert_eq!(registry.count("*", "*"), window + 1, "{header:?}: one goes first");
        }
        registry.heal();
        advance(wait).await;
        assert!(client.manifest(&name(), &tag()).await.is_ok());
    }
}

/// The date that many seconds from now, as a registry writes it.
fn jiff_date(seconds: i64) -> String {
    let now = sealgate::clock::Clock::System.now().unix_seconds();
    let time = jiff::Timestamp::from_second(now + seconds).unwrap();
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// Harbor#23750: the login of one account is limited.
#[tokio::test]
async fn u09_a_realm_that_limits_us_is_honoured_like_the_registry() {
    let registry = FakeRegistry::builder().auth(Auth::Token(TokenAuth::default())).start().await;
    registry.put("team/app", "1.0", &ImageBuilder::new(1).build());
    let client = client(registry.settings(HOST));
    registry.fault(Fault::on("/token").status(429).header("retry-after", "20"));
    assert_eq!(limited(client.manifest(&name(), &tag()).await), Duration::from_secs(20));
    let (name, tag) = (name(), tag());
    let crowd = join_all((0..20).map(|_| client.manifest(&name, &tag))).await;
    assert!(crowd.into_iter().all(|result| limited(result) <= Duration::from_secs(20)));
    assert_eq!((registry.count("*", "/token"), registry.count("*", "*")), (1, 2));
    registry.heal();
    advance(Duration::from_secs(20)).await;
    assert!(client.manifest(&name, &tag).await.is_ok());
}

#[tokio::test]
async fn an_upstream_that_fails_in_a_row_is_left_alone_and_then_one_request_finds_out() {
    for status in [502, 503, 504] {
        let (registry, _, client) = registry().await;
        registry.fault(Fault::on("*").status(status));
        let (name, tag) = (name(), tag());
        for _ in 0..BREAKER_FAILURES {
            assert!(matches!(client.manifest(&name, &tag).await, Err(UpstreamError::Failed { .. })));
        }
        let asked = BREAKER_FAILURES * (UPSTREAM_RETRIES_MAX + 1);
        assert_eq!(registry.count("*", "*"), asked);
        let crowd = join_all((0..50).map(|_| client.manifest(&name, &tag))).await;
        assert!(crowd.iter().all(is_resting));
        assert_eq!(registry.count("*", "*"), asked, "{status}: nobody asks");
        advance(BREAKER_PAUSE.0).await;
        let crowd = join_all((0..50).map(|_| client.manifest(&name, &tag))).await;
        assert_eq!(crowd.iter().filter(|result| !is_resting(result)).count(), 1, "{status}: one goes first");
        assert_eq!(registry.count("*", "*"), asked + 1, "{status}: and asks once");
        registry.heal();
        advance(BREAKER_PAUSE.0).await;
        assert!(is_resting(&client.manifest(&name, &tag).await), "the pause has doubled");
        advance(BREAKER_PAUSE.0).await;
        let (first, second) = tokio::join!(client.manifest(&name, &tag), client.manifest(&name, &tag));
        assert!(first.is_ok() && second.is_ok(), "{status}: the others wait for the first");
        assert!(client.manifest(&name, &tag).await.is_ok());
    }
}

#[tokio::test]
async fn an_upstream_that_is_away_is_left_alone() {
    let (registry, _, client) = registry().await;
    registry.go_down();
    let (name, tag) = (name(), tag());
    for _ in 0..BREAKER_FAILURES {
        assert!(matches!(client.manifest(&name, &tag).await, Err(UpstreamError::Connect { .. })));
    }
    assert!(is_resting(&client.manifest(&name, &tag).await));
    registry.come_back().await;
    advance(BREAKER_PAUSE.0).await;
    assert!(client.manifest(&name, &tag).await.is_ok());
}

/// One image that its registry cannot serve says nothing about the others.
#[tokio::test]
async fn a_500_and_every_other_answer_leave_an_upstream_in_use() {
    for status in [401, 403, 404, 410, 418, 500, 501] {
        let (registry, _, client) = registry().await;
        registry.fault(Fault::on("*/manifests/broken").status(status));
        let broken = "broken".parse().unwrap();
        for _ in 0..3 * BREAKER_FAILURES {
            assert!(client.manifest(&name(), &broken).await.is_err());
        }
        assert!(client.manifest(&name(), &tag()).await.is_ok(), "{status}");
    }
}

/// A limit of one account is none of another's at the same registry.
#[tokio::test]
async fn a_limit_holds_for_one_credential() {
    let registry = FakeRegistry::start().await;
    let image = ImageBuilder::new(1).build();
    registry.put("team/app", "1.0", &image);
    registry.put("other/app", "1.0", &image);
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.json");
    let (robot, other) = ("cm9ib3Q6aHVudGVyMg==", "b3RoZXI6aHVudGVyMg==");
    let auths = serde_json::json!({ "auths": {
        format!("{HOST}/team"): { "auth": robot },
        format!("{HOST}/other"): { "auth": other },
    }});
    std::fs::write(&config, auths.to_string()).unwrap();
    let settings = Settings { credentials: Credentials::DockerConfig(config), ..registry.settings(HOST) };
    let client = client(settings);
    registry.fault(Fault::on("/v2/other/*").times(1).status(429).header("retry-after", "300"));
    let other: sealgate::oci::RepositoryName = "other/app".parse().unwrap();
    assert_eq!(limited(client.manifest(&other, &tag()).await), Duration::from_mins(5));
    assert!(client.manifest(&name(), &tag()).await.is_ok());
    let asked = registry.count("*", "*");
    assert!(limited(client.manifest(&other, &tag()).await) <= Duration::from_mins(5));
    assert_eq!(registry.count("*", "*"), asked);
}

#[tokio::test]
async fn what_docker_hub_says_about_its_limit_is_shown() {
    let registry = FakeRegistry::start().await;
    registry.put("team/app", "1.0", &ImageBuilder::new(1).build());
    let host = HOST.parse().unwrap();
    let telemetry = Telemetry::new(std::slice::from_ref(&host));
    let network = Network { timeouts: quick(), ..Network::default() };
    let client = Upstream::with_network(registry.settings(HOST), telemetry.clone(), network).unwrap();
    let shown = |metric: &str| {
        let (text, series) = (telemetry.render(), format!("sealgate_upstream_{metric}{{upstream=\"{HOST}\"}} "));
        text.lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse::<u64>().unwrap()
    };
    let all = || ["ratelimit_limit", "ratelimit_remaining", "ratelimit_window_seconds"].map(shown);
    client.manifest_head(&name(), &tag()).await.unwrap();
    assert_eq!(all(), [0, 0, 0], "it said nothing");
    assert!(shown("last_success_timestamp_seconds") > 1_700_000_000);
    let fault = Fault::on("*").header("ratelimit-limit", "100;w=21600").header("docker-ratelimit-source", "192.0.2.1");
    registry.fault(fault.header("ratelimit-remaining", "76;w=21600"));
    client.manifest_head(&name(), &tag()).await.unwrap();
    assert_eq!(all(), [100, 76, 21_600]);
    registry.heal();
    let fault = Fault::on("*").status(429).header("ratelimit-limit", "100;w=21600");
    registry.fault(fault.header("ratelimit-remaining", "0;w=21600"));
    assert!(client.manifest_head(&name(), &tag()).await.is_err());
    assert_eq!((all(), shown("breaker_state")), ([100, 0, 21_600], 2), "also with a refusal");
}
