//! What other mirrors were measured to do wrong, shown to be right here: regression tests through the whole server.

use std::time::Duration;

use futures_util::future::join_all;
use sealgate::clock::{Clock, ManualClock};
use sealgate::testing::{ACCEPT_ANYTHING, TestSealgate};
use sealgate::testing::{Auth, BuiltImage, FakeRegistry, Fault, ImageBuilder, TokenAuth};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const MANIFEST: &str = "/v2/team/app/manifests/1.0";

/// A registry that wants tokens, an image in it, and a mirror in front on a clock that the test moves.
async fn mirror() -> (FakeRegistry, BuiltImage, TestSealgate, ManualClock) {
    let registry = FakeRegistry::builder().auth(Auth::Token(TokenAuth::default())).start().await;
    let image = ImageBuilder::new(1).layer(1_000_000).build();
    registry.put("team/app", "1.0", &image);
    let clock = ManualClock::at(Clock::System.now());
    let mirror = TestSealgate::with_policy(ACCEPT_ANYTHING)
        .upstream("registry.test", registry.url())
        .clock(&clock)
        .start()
        .await;
    (registry, image, mirror, clock)
}

fn blob(image: &BuiltImage) -> String {
    format!("/v2/team/app/blobs/{}", image.blobs[1].digest)
}

#[tokio::test]
async fn ten_cold_clients_cost_one_of_everything() {
    let (registry, image, mirror, _) = mirror().await;
    let answers = join_all((0..10).map(|_| mirror.get(MANIFEST))).await;
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == image.manifest.bytes));
    let path = blob(&image);
    let answers = join_all((0..10).map(|_| mirror.get(&path))).await;
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == image.blobs[1].bytes));
    let authorised = |method: &str, path: &str| {
        let requests = registry.requests_to(method, path);
        requests.iter().filter(|request| request.header("authorization").is_some()).count()
    };
    assert_eq!(registry.count("*", "/token"), 1, "no token is fetched for each request");
    assert_eq!((authorised("HEAD", "*/manifests/1.0"), authorised("GET", "*/manifests/*")), (1, 1));
    assert_eq!(authorised("GET", "*/blobs/*"), 1);
    mirror.stop().await;
}

#[tokio::test]
async fn a_missing_tag_costs_one_question_in_ten_seconds() {
    let (registry, _, mirror, clock) = mirror().await;
    mirror.get(MANIFEST).await;
    registry.forget_requests();
    for _ in 0..10 {
        assert_eq!(mirror.get("/v2/team/app/manifests/none").await.status, 404);
    }
    assert_eq!(registry.count("*", "*"), 1);
    registry.put("team/app", "none", &ImageBuilder::new(2).build());
    clock.advance(Duration::from_secs(11));
    assert_eq!(mirror.get("/v2/team/app/manifests/none").await.status, 200);
    mirror.stop().await;
}

#[tokio::test]
async fn a_tag_costs_one_head_in_its_time_and_a_digest_costs_nothing() {
    let (registry, image, mirror, clock) = mirror().await;
    mirror.get(MANIFEST).await;
    registry.forget_requests();
    let by_digest = format!("/v2/team/app/manifests/{}", image.digest());
    for _ in 0..5 {
        assert_eq!(mirror.get(MANIFEST).await.status, 200);
        assert_eq!(mirror.head(MANIFEST).await.status, 200);
        assert_eq!(mirror.get(&by_digest).await.status, 200);
    }
    assert_eq!(registry.count("*", "*"), 0);
    clock.advance(Duration::from_secs(61));
    for _ in 0..5 {
        assert_eq!(mirror.get(MANIFEST).await.status, 200);
        assert_eq!(mirror.get(&by_digest).await.status, 200);
    }
    assert_eq!((registry.count("HEAD", "*"), registry.count("GET", "*")), (1, 0));
    mirror.stop().await;
}

#[tokio::test]
async fn a_head_of_a_blob_moves_no_body() {
    let (registry, image, mirror, _) = mirror().await;
    mirror.get(MANIFEST).await;
    registry.forget_requests();
    let head = mirror.head(&blob(&image)).await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("1000000")));
    assert_eq!(registry.count("GET", "*"), 0);
    mirror.stop().await;
}

#[tokio::test]
async fn a_range_of_a_cold_blob_is_that_range() {
    let (_registry, image, mirror, _) = mirror().await;
    mirror.get(MANIFEST).await;
    let answer = mirror.request("GET", &blob(&image), &[("Range", "bytes=500000-500099")]).await;
    assert_eq!((answer.status, answer.header("content-range")), (206, Some("bytes 500000-500099/1000000")));
    assert_eq!(answer.body, image.blobs[1].bytes[500_000..500_100]);
    mirror.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_does_not_end_the_fill() {
    let (registry, image, mirror, _) = mirror().await;
    mirror.get(MANIFEST).await;
    registry.fault(Fault::on("*/blobs/*").times(1).drip(100_000, Duration::from_millis(20)));
    let mut leaving = tokio::net::TcpStream::connect(mirror.address()).await.unwrap();
    let request = format!("GET {} HTTP/1.1\r\nHost: mirror.test\r\n\r\n", blob(&image));
    leaving.write_all(request.as_bytes()).await.unwrap();
    assert!(leaving.read(&mut [0; 1000]).await.unwrap() > 0);
    drop(leaving);
    let answer = mirror.get(&blob(&image)).await;
    assert_eq!(answer.body, image.blobs[1].bytes);
    let fetched = registry.requests_to("GET", "*/blobs/*");
    assert_eq!(fetched.len(), 1, "the second client followed the first one's transfer");
    mirror.stop().await;
}

#[tokio::test]
async fn other_bytes_are_never_served_under_a_digest() {
    let (registry, image, mirror, _) = mirror().await;
    registry.fault(Fault::on("*/manifests/*").get().wrong_bytes().without_header("docker-content-digest"));
    let answer = mirror.get(&format!("/v2/team/app/manifests/{}", image.digest())).await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    registry.heal();
    let answer = mirror.get(&format!("/v2/team/app/manifests/{}", image.digest())).await;
    assert_eq!((answer.status, answer.body), (200, image.manifest.bytes.clone()));
    mirror.stop().await;
}

#[tokio::test]
async fn a_tag_that_moves_in_between_never_gets_the_digest_of_another_body() {
    let (registry, _, mirror, _) = mirror().await;
    let moved = ImageBuilder::new(2).layer(10).build();
    registry.put_untagged("team/app", &moved);
    // HEAD still names the first image, GET of the tag would answer the second one.
    let fault = Fault::on("*/manifests/1.0").get().body(moved.manifest.bytes.clone());
    registry.fault(fault.set_header("docker-content-digest", &moved.digest().to_string()));
    let answer = mirror.get(MANIFEST).await;
    assert_eq!(answer.status, 200);
    let stated: sealgate::oci::Digest = answer.header("docker-content-digest").unwrap().parse().unwrap();
    assert!(stated.matches(&answer.body));
    mirror.stop().await;
}

#[tokio::test]
async fn a_limit_of_upstream_is_never_a_missing_image() {
    for (status, retry_after, expected, header) in
        [(429, "7", 429, Some("7")), (503, "7", 502, Some("7")), (500, "", 502, None), (401, "", 403, None)]
    {
        let (registry, _, mirror, _) = mirror().await;
        let fault = Fault::on("/v2/*").status(status);
        registry.fault(if retry_after.is_empty() { fault } else { fault.header("retry-after", retry_after) });
        for answer in [mirror.head(MANIFEST).await, mirror.get(MANIFEST).await] {
            assert_eq!(answer.status, expected, "{status}: {}", answer.reason);
            // The breaker counts down while the test runs.
            let waits = answer.header("retry-after").map(|text| text.parse::<u64>().unwrap());
            assert_eq!(waits.is_some(), header.is_some(), "{status}");
            assert!(waits.is_none_or(|waits| (1..=7).contains(&waits)), "{status}");
            assert_eq!(answer.header("www-authenticate"), None, "{status}");
        }
        mirror.stop().await;
    }
}

#[tokio::test]
async fn a_mirror_starts_without_its_upstream_and_says_when_it_serves_stale() {
    let (registry, image, mut mirror, clock) = mirror().await;
    assert_eq!(mirror.get(MANIFEST).await.status, 200);
    assert_eq!(mirror.get(&blob(&image)).await.status, 200);
    registry.go_down();
    mirror.restart().await;
    assert_eq!(mirror.get(MANIFEST).await.status, 200, "still fresh");
    clock.advance(Duration::from_secs(3600));
    let stale = mirror.get(MANIFEST).await;
    assert_eq!((stale.status, &stale.body), (200, &image.manifest.bytes));
    assert!(stale.header("cache-status").unwrap().contains("stale"), "{:?}", stale.header("cache-status"));
    assert_eq!(mirror.get(&blob(&image)).await.status, 200);
    let unknown = mirror.get("/v2/team/app/manifests/2.0").await;
    assert_eq!(unknown.status, 502, "{}", unknown.text());
    registry.come_back().await;
    assert_eq!(mirror.get("/v2/team/app/manifests/2.0").await.status, 404);
    mirror.stop().await;
}

#[tokio::test]
async fn referrers_are_answered_whether_or_not_upstream_has_the_api() {
    for without in [false, true] {
        let (registry, image, mirror, _) = mirror().await;
        if without {
            registry.set_referrers(sealgate::testing::Referrers::FallbackTag);
        }
        let artefact = ImageBuilder::artefact("application/x")
            .subject(image.descriptor())
            .layer_of("text/plain", "x", &[])
            .build();
        registry.put_untagged("team/app", &artefact);
        mirror.get(MANIFEST).await;
        let answer = mirror.get(&format!("/v2/team/app/referrers/{}", image.digest())).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["manifests"][0]["digest"], artefact.digest().to_string(), "without: {without}");
        mirror.stop().await;
    }
}
