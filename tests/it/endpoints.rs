//! Several endpoints of one upstream, and a mirror in front of a mirror.

use std::time::Duration;

use sealgate::clock::{Clock, ManualClock};
use sealgate::limits::{BREAKER_FAILURES, UPSTREAM_CONCURRENCY, UPSTREAM_FIRST_BYTE};
use sealgate::oci::Reference;
use sealgate::telemetry::Telemetry;
use sealgate::testing::sigstore::FakeSigstore;
use sealgate::testing::{
    ACCEPT_ANYTHING, Auth, BuiltImage, FakeRegistry, Fault, ImageBuilder, TestSealgate, TokenAuth,
};
use sealgate::upstream::{
    BlobRange, Content, Credentials, Fallback, Interest, Network, Settings, Upstream, UpstreamError,
};

use crate::reliability::{sign, signed_by};
use crate::upstream::{name, quick, tag};

const HOST: &str = "registry.test";

/// Two registries with the same image.
async fn pair() -> (FakeRegistry, FakeRegistry, BuiltImage) {
    let image = ImageBuilder::new(1).layer(300_000).build();
    let (first, second) = (FakeRegistry::start().await, FakeRegistry::start().await);
    for registry in [&first, &second] {
        registry.put("team/app", "1.0", &image);
    }
    (first, second, image)
}

fn upstream(first: Settings, fallbacks: Vec<Fallback>) -> Upstream {
    let network = Network { timeouts: quick(), ..Network::default() };
    Upstream::with_fallbacks(first, fallbacks, Telemetry::default(), network).unwrap()
}

fn complete(registry: &FakeRegistry) -> Fallback {
    Fallback { settings: registry.settings(HOST), content: Content::Complete }
}

fn partial(registry: &FakeRegistry) -> Fallback {
    Fallback { settings: registry.settings(HOST), content: Content::Partial }
}

/// Every kind of call, and whether it worked.
async fn all_calls(upstream: &Upstream, image: &BuiltImage) -> Vec<Result<(), UpstreamError>> {
    let (name, tag, layer) = (name(), tag(), image.blobs[1].digest);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    let interest = |_: &sealgate::oci::Descriptor| Interest::First;
    vec![
        upstream.manifest_head(&name, &tag).await.map(drop),
        upstream.manifest(&name, &tag).await.map(drop),
        upstream.blob_head(&name, &layer).await.map(drop),
        upstream.blob(&name, &layer, BlobRange::Whole).await.map(drop),
        upstream.blob(&name, &layer, BlobRange::From { start: 7, end: None }).await.map(drop),
        upstream.small_blob(&name, &layer, 300_000).await.map(drop),
        upstream.referrers(&name, &image.digest()).await.map(drop),
        upstream.select_referrers(&name, &image.digest(), "application/x", &interest, deadline).await.map(drop),
        upstream.tags(&name, 10, None).await.map(drop),
    ]
}

#[tokio::test]
async fn the_next_endpoint_is_asked_when_one_fails_and_not_before() {
    let (first, second, image) = pair().await;
    let both = upstream(first.settings(HOST), vec![complete(&second)]);
    assert!(all_calls(&both, &image).await.iter().all(Result::is_ok));
    assert_eq!(second.count("*", "*"), 0);
    let faults = [
        Fault::on("*").status(500),
        Fault::on("*").status(502),
        Fault::on("*").status(503).header("retry-after", "7"),
        Fault::on("*").status(429),
        Fault::on("*").reset(),
    ];
    for fault in faults {
        let both = upstream(first.settings(HOST), vec![complete(&second)]);
        first.heal();
        first.fault(fault.clone());
        let calls = all_calls(&both, &image).await;
        assert!(calls.iter().all(Result::is_ok), "{fault:?}: {calls:?}");
    }
    first.go_down();
    let both = upstream(first.settings(HOST), vec![complete(&second)]);
    assert!(all_calls(&both, &image).await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn what_an_endpoint_answers_is_the_answer() {
    let (first, second, image) = pair().await;
    let faults = [
        Fault::on("*").status(404),
        Fault::on("*").status(401),
        Fault::on("*").status(403),
        Fault::on("*").status(418),
        Fault::on("*").header("content-encoding", "gzip"),
        Fault::on("*").redirect("http://169.254.169.254/"),
    ];
    for fault in faults {
        let both = upstream(first.settings(HOST), vec![complete(&second)]);
        first.heal();
        first.fault(fault.clone());
        all_calls(&both, &image).await;
        assert!(both.manifest(&name(), &tag()).await.is_err());
        assert_eq!(second.count("*", "*"), 0, "{fault:?}");
    }
}

#[tokio::test]
async fn what_a_partial_endpoint_lacks_says_nothing() {
    let (first, second, image) = pair().await;
    first.go_down();
    let empty = FakeRegistry::start().await;
    let away = |result: &Result<(), UpstreamError>| matches!(result, Err(UpstreamError::Connect { .. }));
    // The fake answers an empty list of referrers for anything.
    let gone = |result: &Result<(), UpstreamError>| matches!(result, Err(UpstreamError::NotFound { .. }) | Ok(()));
    let calls = all_calls(&upstream(first.settings(HOST), vec![partial(&empty)]), &image).await;
    let rest = |result: &Result<(), UpstreamError>| matches!(result, Err(UpstreamError::Resting { .. }));
    assert!(calls.iter().all(|call| away(call) || rest(call)), "{calls:?}");
    let calls = all_calls(&upstream(first.settings(HOST), vec![complete(&empty)]), &image).await;
    assert!(calls.iter().all(gone), "{calls:?}");
    let calls = all_calls(&upstream(first.settings(HOST), vec![partial(&empty), complete(&second)]), &image).await;
    assert!(calls.iter().all(Result::is_ok), "and the next one is asked: {calls:?}");
}

/// A mirror that has some images may be behind with their tags: it is believed what anybody can check, and nothing else.
#[tokio::test]
async fn a_partial_endpoint_is_asked_by_digest_alone() {
    let (first, second, image) = pair().await;
    let layer = image.blobs[1].digest;
    first.go_down();
    let both = upstream(first.settings(HOST), vec![partial(&second)]);
    let by_digest = Reference::Digest(image.digest());
    both.manifest_head(&name(), &by_digest).await.unwrap();
    both.manifest(&name(), &by_digest).await.unwrap();
    both.blob_head(&name(), &layer).await.unwrap();
    both.small_blob(&name(), &layer, 300_000).await.unwrap();
    second.forget_requests();
    assert!(both.manifest_head(&name(), &tag()).await.is_err());
    assert!(both.manifest(&name(), &tag()).await.is_err());
    assert!(both.tags(&name(), 10, None).await.is_err());
    assert_eq!(second.count("*", "*"), 0);
}

/// That a further endpoint does not let us in says nothing about the image: in an outage it would withdraw every tag.
#[tokio::test]
async fn a_further_endpoint_that_refuses_us_is_no_answer_and_withdraws_nothing() {
    for (status, keys) in [(401, ""), (403, ""), (403, ", partial = true")] {
        let (first, second, image) = pair().await;
        let keys = format!("fallback = [{{ endpoint = \"{}\"{keys} }}]", second.url());
        let clock = ManualClock::at(Clock::System.now());
        let mirror = TestSealgate::with_policy(ACCEPT_ANYTHING)
            .upstream_with(HOST, first.url(), &keys)
            .clock(&clock)
            .start()
            .await;
        assert_eq!(mirror.get("/v2/team/app/manifests/1.0").await.status, 200);
        first.fault(Fault::on("*").status(503));
        second.fault(Fault::on("*").status(status));
        for minutes in [2, 10, 30] {
            clock.advance(Duration::from_mins(minutes));
            let stale = mirror.get("/v2/team/app/manifests/1.0").await;
            assert_eq!((stale.status, &stale.body), (200, &image.manifest.bytes), "{status} {keys}");
        }
        let cold = mirror.get("/v2/team/app/manifests/2.0").await;
        assert_eq!(cold.status, 502, "{}", cold.text());
        mirror.stop().await;
    }
}

#[tokio::test]
async fn a_limit_is_told_when_no_endpoint_answers() {
    let (first, second, _) = pair().await;
    let both = upstream(first.settings(HOST), vec![complete(&second)]);
    first.fault(Fault::on("*").status(429).header("retry-after", "120"));
    second.go_down();
    for _ in 0..=BREAKER_FAILURES {
        let error = both.manifest(&name(), &tag()).await.unwrap_err();
        assert!(matches!(error, UpstreamError::RateLimited { .. }), "{error:?}");
    }
    assert_eq!(first.count("*", "*"), 1);
}

/// The credentials of one endpoint, and its tokens, are shown to no other, whatever that one asks for.
#[tokio::test]
async fn no_credential_of_one_endpoint_goes_to_another() {
    let token = || Auth::Token(TokenAuth::for_user("robot", "hunter2"));
    for theirs in [Auth::basic("other", "secret"), Auth::Token(TokenAuth::for_user("other", "secret"))] {
        let image = ImageBuilder::new(1).build();
        let first = FakeRegistry::builder().auth(token()).start().await;
        let second = FakeRegistry::builder().auth(theirs).start().await;
        for registry in [&first, &second] {
            registry.put("team/app", "1.0", &image);
        }
        let with = |registry: &FakeRegistry, user: &str, password: &str| Settings {
            credentials: Credentials::Static { username: user.to_owned(), password: password.to_owned() },
            ..registry.settings(HOST)
        };
        // Without credentials of its own, the second one gets none.
        let both = upstream(with(&first, "robot", "hunter2"), vec![complete(&second)]);
        both.manifest(&name(), &tag()).await.unwrap();
        first.fault(Fault::on("/v2/*").status(503));
        let told = both.manifest(&name(), &tag()).await;
        assert!(matches!(told, Err(UpstreamError::Failed { status: 503, .. })), "what the first one said: {told:?}");
        assert!(second.count("*", "/v2/*") > 0);
        let shown = |registry: &FakeRegistry| -> Vec<String> {
            let requests = registry.requests();
            requests.iter().filter_map(|request| request.header("authorization").map(str::to_owned)).collect()
        };
        let (ours, robots) = (shown(&first), "cm9ib3Q6aHVudGVyMg==");
        assert!(ours.iter().any(|value| value.contains(robots)));
        assert!(shown(&second).iter().all(|value| !value.contains(robots)), "{:?}", shown(&second));
        let tokens = shown(&second).iter().filter(|value| value.starts_with("Bearer")).count();
        assert!(tokens <= second.count("*", "/token"), "its tokens are its own");
        // With its own, each gets its own.
        let fallback = Fallback { settings: with(&second, "other", "secret"), content: Content::Complete };
        let both = upstream(with(&first, "robot", "hunter2"), vec![fallback]);
        both.manifest(&name(), &tag()).await.unwrap();
        assert!(shown(&second).iter().all(|value| !value.contains(robots)));
        assert!(shown(&second).iter().any(|value| value.contains("b3RoZXI6c2VjcmV0")));
    }
}

/// A transfer that breaks at one endpoint goes on at the next.
#[tokio::test]
async fn a_pull_goes_on_at_the_next_endpoint_through_the_whole_server() {
    let (first, second, image) = pair().await;
    let keys = format!("fallback = [{{ endpoint = \"{}\" }}]", second.url());
    let mirror = TestSealgate::with_policy(ACCEPT_ANYTHING).upstream_with(HOST, first.url(), &keys).start().await;
    assert_eq!(mirror.get("/v2/team/app/manifests/1.0").await.status, 200);
    first.fault(Fault::on("*/blobs/*").times(1).truncate(100_000));
    first.fault(Fault::on("*/blobs/*").status(503));
    let layer = &image.blobs[1];
    let answer = mirror.get(&format!("/v2/team/app/blobs/{}", layer.digest)).await;
    assert_eq!((answer.status, answer.body), (200, layer.bytes.clone()));
    let resumed = second.requests_to("GET", "*/blobs/*");
    assert_eq!(resumed.len(), 1);
    assert!(resumed[0].header("range").is_some_and(|range| range.starts_with("bytes=")), "{resumed:?}");
    assert!(mirror.metric("sealgate_upstream_failovers_total{upstream=\"registry.test\"}").unwrap() >= 1.0);
    let upstreams = mirror.admin_get("/api/v1/upstreams").await.json();
    assert_eq!(upstreams["upstreams"][0]["fallback_endpoints"][0], format!("{}/", second.url()));
    mirror.stop().await;
}

/// Entity tags are each endpoint's own: what one calls its bytes is no condition for another, and none that it fails.
#[tokio::test]
async fn u07_a_transfer_that_goes_on_elsewhere_takes_no_entity_tag_along_and_keeps_each_for_its_endpoint() {
    let (first, second, image) = pair().await;
    let keys = format!("fallback = [{{ endpoint = \"{}\" }}]", second.url());
    let mirror = TestSealgate::with_policy(ACCEPT_ANYTHING).upstream_with(HOST, first.url(), &keys).start().await;
    assert_eq!(mirror.get("/v2/team/app/manifests/1.0").await.status, 200);
    let one = |fault: Fault| fault.header("etag", "\"one\"");
    let two = |fault: Fault| fault.header("etag", "\"two\"");
    let blobs = || Fault::on("*/blobs/*");
    // It begins at the first, goes on at the second, comes back to the first, and ends at the second.
    first.fault(one(blobs().times(1).truncate(50_000)));
    first.fault(blobs().times(3).status(503));
    first.fault(one(blobs().times(1).truncate(50_000)));
    first.fault(blobs().status(503));
    second.fault(two(blobs().times(1).truncate(50_000)));
    second.fault(two(blobs()));
    let layer = &image.blobs[1];
    let answer = mirror.get(&format!("/v2/team/app/blobs/{}", layer.digest)).await;
    assert_eq!((answer.status, answer.body), (200, layer.bytes.clone()));
    let conditions = |registry: &FakeRegistry| -> Vec<(Option<String>, Option<String>)> {
        let text = |value: Option<&str>| value.map(str::to_owned);
        registry
            .requests_to("GET", "*/blobs/*")
            .iter()
            .map(|request| (text(request.header("range")), text(request.header("if-range"))))
            .collect()
    };
    let range = |start: usize| Some(format!("bytes={start}-"));
    let tag = |text: &str| Some(format!("\"{text}\""));
    let asked = conditions(&first);
    assert_eq!((&asked[0], &asked[4]), (&(None, None), &(range(100_000), tag("one"))), "{asked:?}");
    assert_eq!(conditions(&second), [(range(50_000), None), (range(150_000), tag("two"))]);
    mirror.stop().await;
}

/// Endpoints of which the next is asked beside one that is silent for so long.
fn impatient(first: &FakeRegistry, second: &FakeRegistry, patience: u64) -> Upstream {
    let network = Network { patience: Duration::from_millis(patience), ..Network::default() };
    Upstream::with_fallbacks(first.settings(HOST), vec![complete(second)], Telemetry::default(), network).unwrap()
}

/// Whoever is silent is waited for a moment, by few, and then by nobody.
#[tokio::test]
async fn u06_a_first_endpoint_that_hangs_costs_many_cold_pulls_a_moment_and_is_left_alone_after_a_few() {
    let (first, second, image) = pair().await;
    for number in 0..100 {
        second.put("team/app", &format!("t{number}"), &image);
    }
    first.fault(Fault::on("*").hang());
    let both = impatient(&first, &second, 200);
    let ask = async |number: usize| {
        let tag = Reference::Tag(format!("t{number}").parse().unwrap());
        both.manifest(&name(), &tag).await.map(|manifest| manifest.digest)
    };
    let began = std::time::Instant::now();
    let all = futures_util::future::join_all((0..64).map(ask)).await;
    assert!(all.iter().all(|answer| *answer.as_ref().unwrap() == image.digest()), "{all:?}");
    // It left those alone that its time limit would have cut.
    assert!(began.elapsed() < UPSTREAM_FIRST_BYTE, "{:?}", began.elapsed());
    let asked = first.count("*", "*");
    assert!(asked <= UPSTREAM_CONCURRENCY + BREAKER_FAILURES, "{asked}");
    for number in 64..100 {
        ask(number).await.unwrap();
    }
    // On a slow machine its pause is over by then, and one finds out that it still hangs.
    assert!(first.count("*", "*") <= asked + 1);
}

#[tokio::test]
async fn whoever_answers_first_gives_it_and_a_silent_endpoint_may_still_be_the_one() {
    let (first, second, image) = pair().await;
    let late = || Fault::on("*").delay(Duration::from_millis(600));
    // What the second one lacks, or fails at, is no answer while the first may have it.
    for fault in [Fault::on("*").status(404), Fault::on("*").status(403), Fault::on("*").status(503)] {
        first.heal();
        second.heal();
        first.fault(late());
        second.fault(fault);
        let both = impatient(&first, &second, 100);
        assert_eq!(both.manifest(&name(), &tag()).await.unwrap().digest, image.digest());
        assert!(second.count("*", "*") > 0);
    }
    // It is the answer once the first has failed.
    first.heal();
    first.fault(Fault::on("*").delay(Duration::from_millis(600)).status(503).header("retry-after", "9"));
    second.heal();
    second.fault(Fault::on("*").status(404));
    let error = impatient(&first, &second, 100).manifest(&name(), &tag()).await.unwrap_err();
    assert!(matches!(error, UpstreamError::NotFound { .. }), "{error:?}");
    // And what the first one says, however late, outranks it.
    first.heal();
    first.fault(Fault::on("*").delay(Duration::from_millis(600)).status(403));
    let error = impatient(&first, &second, 100).manifest(&name(), &tag()).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Refused { .. }), "{error:?}");
}

/// Waiting for a turn is no silence: a busy first endpoint sends its load nowhere else.
#[tokio::test]
async fn what_waits_for_its_turn_is_asked_of_no_other_endpoint() {
    let (first, second, _) = pair().await;
    first.fault(Fault::on("*").delay(Duration::from_millis(250)));
    let both = impatient(&first, &second, 1500);
    let (name, tag) = (name(), tag());
    let calls = (0..8 * UPSTREAM_CONCURRENCY).map(|_| both.manifest_head(&name, &tag));
    assert!(futures_util::future::join_all(calls).await.iter().all(Result::is_ok));
    assert_eq!(second.count("*", "*"), 0);
}

/// Headers are no answer where the whole is wanted: discovery waits for less time than a body may stall.
#[tokio::test]
async fn u05_a_small_body_that_stalls_is_asked_of_the_next_endpoint() {
    let (first, second, image) = pair().await;
    first.fault(Fault::on("*").get().hang_after(10));
    let both = impatient(&first, &second, 200);
    let (name, began) = (name(), std::time::Instant::now());
    both.manifest(&name, &tag()).await.unwrap();
    both.small_blob(&name, &image.blobs[1].digest, 300_000).await.unwrap();
    both.tags(&name, 10, None).await.unwrap();
    assert!(began.elapsed() < UPSTREAM_FIRST_BYTE, "{:?}", began.elapsed());
    assert_eq!((first.count("GET", "*"), second.count("GET", "*")), (3, 3));
}

/// Whoever is called at night sees which endpoint it is, why nobody asks it, and until when.
#[tokio::test]
async fn the_admin_api_says_of_each_endpoint_how_its_breaker_stands() {
    let (first, second, _) = pair().await;
    let keys = format!("fallback = [{{ endpoint = \"{}\" }}]", second.url());
    let mirror = TestSealgate::with_policy(ACCEPT_ANYTHING).upstream_with(HOST, first.url(), &keys).start().await;
    let endpoints = async || mirror.admin_get("/api/v1/upstreams").await.json()["upstreams"][0]["endpoints"].clone();
    let closed = |registry: &FakeRegistry| {
        serde_json::json!({
            "endpoint": format!("{}/", registry.url()), "breaker": "closed", "retry_after_seconds": null, "why": null,
        })
    };
    assert_eq!(endpoints().await, serde_json::json!([closed(&first), closed(&second)]));
    first.fault(Fault::on("*").status(429).header("retry-after", "120"));
    assert_eq!(mirror.get("/v2/team/app/manifests/1.0").await.status, 200);
    let found = endpoints().await;
    assert_eq!((&found[0]["breaker"], &found[1]), (&"open".into(), &closed(&second)), "{found}");
    assert!(found[0]["retry_after_seconds"].as_f64().is_some_and(|left| (100.0..=120.0).contains(&left)), "{found}");
    assert!(found[0]["why"].as_str().unwrap().contains("limits our requests"), "{found}");
    mirror.stop().await;
}

/// Discovery waits for less time than a request may take: without the next endpoint no verdict could be reached.
#[tokio::test]
async fn a_signed_image_is_admitted_though_the_first_endpoint_hangs() {
    let (sigstore, hanging) = (FakeSigstore::from_seed(1, Clock::System.now()), FakeRegistry::start().await);
    let (registry, image) = (FakeRegistry::start().await, ImageBuilder::new(1).layer(1000).build());
    registry.put("team/app", "1.0", &image);
    sign(&registry, &sigstore, "1.0", &image);
    hanging.fault(Fault::on("*").hang());
    let keys = format!("fallback = [{{ endpoint = \"{}\" }}]", registry.url());
    let policy = signed_by(&sigstore);
    let mirror = TestSealgate::with_policy(&policy).upstream_with(HOST, hanging.url(), &keys).start().await;
    assert_eq!(mirror.get("/v2/team/app/manifests/1.0").await.status, 200);
    mirror.stop().await;
}

/// Two real mirrors in a row, the inner one with another default: whatever is pulled passes both gates.
#[tokio::test]
async fn a_mirror_of_a_mirror_serves_everything_that_the_mirror_serves() {
    let sigstore = FakeSigstore::from_seed(1, Clock::System.now());
    let policy = signed_by(&sigstore);
    let registry = FakeRegistry::start().await;
    let image = ImageBuilder::new(1).layer(300_000).build();
    let unsigned = ImageBuilder::new(2).layer(10).build();
    registry.put("team/app", "1.0", &image);
    registry.put("team/app", "2.0", &unsigned);
    sign(&registry, &sigstore, "1.0", &image);
    let artefact =
        ImageBuilder::artefact("application/x").subject(image.descriptor()).layer_of("text/plain", "x", &[]).build();
    registry.put_untagged("team/app", &artefact);
    let inner = TestSealgate::with_policy(&policy)
        .upstream("default.test", FakeRegistry::start().await.url())
        .upstream(HOST, registry.url())
        .start()
        .await;
    let outer = TestSealgate::with_policy(&policy).upstream_with(HOST, inner.url(), "ns = true").start().await;

    let head = outer.head("/v2/team/app/manifests/1.0").await;
    assert_eq!((head.status, head.header("docker-content-digest")), (200, Some(image.digest().to_string().as_str())));
    for reference in ["1.0".to_owned(), image.digest().to_string()] {
        let answer = outer.get(&format!("/v2/team/app/manifests/{reference}")).await;
        assert_eq!((answer.status, &answer.body), (200, &image.manifest.bytes), "{reference}");
    }
    let layer = &image.blobs[1];
    let blob = format!("/v2/team/app/blobs/{}", layer.digest);
    let blob_head = outer.head(&blob).await;
    assert_eq!((blob_head.status, blob_head.header("content-length")), (200, Some("300000")));
    assert_eq!(registry.count("GET", &format!("*{}", layer.digest)), 0, "HEAD moved no body");
    let range = outer.request("GET", &blob, &[("Range", "bytes=200000-200099")]).await;
    assert_eq!((range.status, &range.body[..]), (206, &layer.bytes[200_000..200_100]));
    assert_eq!(outer.get(&blob).await.body, layer.bytes);
    let referrers = outer.get(&format!("/v2/team/app/referrers/{}", image.digest())).await;
    assert_eq!(referrers.json()["manifests"][0]["digest"], artefact.digest().to_string(), "{}", referrers.text());
    let signature = format!("/v2/team/app/manifests/sha256-{}.sig", image.digest().hex());
    assert_eq!(outer.get(&signature).await.status, 200);
    let tags = outer.get("/v2/team/app/tags/list").await.json();
    assert!(tags["tags"].as_array().unwrap().contains(&"1.0".into()), "{tags}");
    assert_eq!(outer.get("/v2/team/app/manifests/2.0").await.status, 403);
    assert_eq!(outer.get("/v2/team/app/manifests/3.0").await.status, 404);
    let missing = format!("/v2/team/app/blobs/{}", sealgate::oci::Digest::sha256(b"none"));
    assert_eq!(outer.get(&missing).await.status, 404);
    outer.stop().await;
    inner.stop().await;
}

/// Harbor#23750, through two mirrors.
#[tokio::test]
async fn u09_a_limit_passes_through_two_mirrors_as_a_limit() {
    let registry = FakeRegistry::start().await;
    registry.put("team/app", "1.0", &ImageBuilder::new(1).build());
    registry.fault(Fault::on("*").status(429).header("retry-after", "3600"));
    let inner = TestSealgate::with_policy(ACCEPT_ANYTHING).upstream(HOST, registry.url()).start().await;
    let outer = TestSealgate::with_policy(ACCEPT_ANYTHING).upstream_with(HOST, inner.url(), "ns = true").start().await;
    for _ in 0..3 {
        for answer in [outer.get("/v2/team/app/manifests/1.0").await, outer.get("/v2/team/app/tags/list").await] {
            assert_eq!((answer.status, answer.error_code()), (429, "TOOMANYREQUESTS".to_owned()));
            let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((290..=300).contains(&wait), "{wait}");
        }
    }
    assert_eq!(registry.count("*", "*"), 1);
    outer.stop().await;
    inner.stop().await;
}
