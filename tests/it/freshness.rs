//! Tags in time, through the whole server: fresh, asked about in the background, stale, withdrawn.

use std::time::Duration;

use futures_util::future::join_all;
use sealgate::clock::{Clock, ManualClock, Timestamp};
use sealgate::limits::{BREAKER_FAILURES, NEGATIVE_TTL_MAX, REVALIDATIONS_MAX, STALE_SOFT_DEADLINE, TIME_STEP_BACK};
use sealgate::pull::{TagLife, TagRules, TagTtl, Withdrawn};
use sealgate::testing::Answer;
use sealgate::testing::{ACCEPT_ANYTHING, BuiltImage, FakeRegistry, Fault, ImageBuilder, REJECT, TestSealgate};

use crate::lab::{Lab, Policy};

const MANIFEST: &str = "/v2/team/app/manifests/1.0";
const TAG_TTL: Duration = Duration::from_mins(1);

struct Front {
    registry: FakeRegistry,
    image: BuiltImage,
    mirror: TestSealgate,
    clock: ManualClock,
    start: Timestamp,
}

impl Front {
    /// A mirror with these keys of `[[upstream]]` in front of a registry with `team/app:1.0`, which was pulled once.
    async fn new(keys: &str) -> Self {
        let registry = FakeRegistry::start().await;
        let image = ImageBuilder::new(1).layer(100_000).build();
        registry.put("team/app", "1.0", &image);
        let start = Clock::System.now();
        let clock = ManualClock::at(start);
        let mirror = TestSealgate::with_policy(ACCEPT_ANYTHING)
            .upstream_with("registry.test", registry.url(), keys)
            .clock(&clock)
            .start()
            .await;
        let front = Self { registry, image, mirror, clock, start };
        assert_eq!(front.get().await.status, 200);
        front.registry.forget_requests();
        front
    }

    async fn get(&self) -> Answer {
        self.mirror.get(MANIFEST).await
    }

    async fn by_digest(&self) -> u16 {
        self.mirror.get(&format!("/v2/team/app/manifests/{}", self.image.digest())).await.status
    }

    /// The tag names another image from now on.
    fn moved(&self) -> BuiltImage {
        let moved = ImageBuilder::new(2).layer(10).build();
        self.registry.put("team/app", "1.0", &moved);
        moved
    }

    fn asked(&self) -> usize {
        self.registry.count("*", "*")
    }

    fn stale_served(&self, cause: &str) -> Option<f64> {
        let series = format!("sealgate_cache_stale_served_total{{cause=\"{cause}\",upstream=\"registry.test\"}}");
        self.mirror.metric(&series)
    }
}

fn is_stale(answer: &Answer) -> bool {
    answer.status == 200 && answer.header("cache-status") == Some("sealgate; hit; detail=stale")
}

#[tokio::test]
async fn at_its_end_a_tag_costs_one_question_however_many_ask() {
    let front = Front::new("").await;
    front.clock.advance(TAG_TTL);
    front.registry.fault(Fault::on("*").head().delay(Duration::from_millis(100)));
    let answers = join_all((0..50).map(|_| front.get())).await;
    assert!(answers.iter().all(|answer| answer.status == 200 && !is_stale(answer)));
    assert_eq!(front.asked(), 1);
    front.mirror.stop().await;
}

#[tokio::test]
async fn a_tag_that_may_be_asked_about_meanwhile_keeps_nobody_waiting() {
    let front = Front::new("stale_while_revalidate = \"10m\"").await;
    let moved = front.moved();
    front.clock.advance(TAG_TTL);
    front.registry.fault(Fault::on("*").head().delay(Duration::from_millis(500)));
    let began = std::time::Instant::now();
    let answers = join_all((0..50).map(|_| front.get())).await;
    assert!(answers.iter().all(|answer| is_stale(answer) && answer.body == front.image.manifest.bytes));
    assert!(began.elapsed() < Duration::from_millis(500), "nobody waited");
    let mut next = front.get().await;
    while is_stale(&next) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        next = front.get().await;
    }
    assert_eq!((next.status, &next.body), (200, &moved.manifest.bytes), "it is noticed when the answer is there");
    assert_eq!(front.registry.count("HEAD", "*"), 1);
    front.mirror.stop().await;
}

#[tokio::test]
async fn the_time_for_asking_meanwhile_ends() {
    let front = Front::new("stale_while_revalidate = \"10m\"\nstale_if_error = \"0s\"").await;
    let moved = front.moved();
    front.clock.advance(TAG_TTL + Duration::from_mins(10));
    assert_eq!(front.get().await.body, moved.manifest.bytes, "now it is asked first");
    front.mirror.stop().await;
}

#[tokio::test]
async fn an_immutable_tag_is_asked_for_once_and_each_pattern_has_its_life() {
    let keys =
        "tags = [{ pattern = \"team/*:*.*\", tag_ttl = \"immutable\" }, { pattern = \"*:nightly\", tag_ttl = \"1h\" }]";
    let front = Front::new(keys).await;
    for tag in ["nightly", "latest"] {
        front.registry.put("team/app", tag, &front.image);
        assert_eq!(front.mirror.get(&format!("/v2/team/app/manifests/{tag}")).await.status, 200);
    }
    front.registry.forget_requests();
    let heads = |tag: &str| front.registry.count("HEAD", &format!("*/manifests/{tag}"));
    for minutes in [2, 58] {
        front.clock.advance(Duration::from_mins(minutes));
        for tag in ["1.0", "nightly", "latest"] {
            assert_eq!(front.mirror.get(&format!("/v2/team/app/manifests/{tag}")).await.status, 200);
        }
    }
    assert_eq!((heads("1.0"), heads("nightly"), heads("latest")), (0, 1, 2));
    front.clock.advance(Duration::from_hours(30 * 24));
    front.registry.go_down();
    let answer = front.get().await;
    assert_eq!((answer.status, is_stale(&answer)), (200, false));
    front.mirror.stop().await;
}

#[tokio::test]
async fn an_image_that_upstream_withdrew_is_gone_and_nothing_old_stands_in_for_it() {
    let front = Front::new("").await;
    front.registry.untag("team/app", "1.0");
    assert_eq!(front.get().await.status, 200, "within its life nobody asks");
    front.clock.advance(TAG_TTL);
    assert_eq!(front.get().await.status, 404);
    front.registry.go_down();
    front.clock.advance(NEGATIVE_TTL_MAX);
    let down = front.get().await;
    assert_eq!(down.status, 502, "{}", down.text());
    assert_eq!(front.by_digest().await, 200, "what was pulled by digest stays");
    front.registry.come_back().await;
    front.registry.put("team/app", "1.0", &front.image);
    assert_eq!(front.get().await.status, 200, "it is there again");
    front.mirror.stop().await;
}

#[tokio::test]
async fn an_image_that_upstream_withdrew_is_served_for_as_long_as_the_operator_wants() {
    let front = Front::new("on_upstream_404 = \"serve-stale\"\nstale_if_error = \"1h\"").await;
    front.registry.untag("team/app", "1.0");
    front.clock.advance(TAG_TTL);
    for _ in 0..5 {
        let answer = front.get().await;
        assert!(is_stale(&answer) && answer.body == front.image.manifest.bytes, "{answer:?}");
    }
    assert_eq!(front.asked(), 1, "what is missing is remembered");
    assert_eq!(front.stale_served("http_404"), Some(5.0));
    front.clock.advance(Duration::from_hours(1) - Duration::from_secs(1));
    assert!(is_stale(&front.get().await));
    front.clock.advance(Duration::from_secs(1) + NEGATIVE_TTL_MAX);
    assert_eq!(front.get().await.status, 404, "its time is over");
    // A tag that was never there is not invented.
    assert_eq!(front.mirror.get("/v2/team/app/manifests/never").await.status, 404);
    front.mirror.stop().await;
}

#[tokio::test]
async fn a_tag_that_upstream_keeps_from_us_is_not_served_from_memory_now_or_later() {
    // Some registries answer HEAD badly, and then GET says it.
    for (status, heads) in [(401, true), (403, true), (403, false)] {
        let front = Front::new("on_upstream_404 = \"serve-stale\"\nstale_while_revalidate = \"30s\"").await;
        if !heads {
            front.registry.fault(Fault::on("*").head().status(405));
        }
        front.registry.fault(Fault::on("*").status(status));
        front.clock.advance(TAG_TTL + Duration::from_secs(30));
        assert_eq!(front.get().await.status, 403, "{status}");
        front.registry.go_down();
        assert_eq!(front.get().await.status, 502, "{status}: nor while it is down");
        front.registry.come_back().await;
        front.registry.heal();
        assert_eq!(front.get().await.status, 200);
        front.mirror.stop().await;
    }
}

#[tokio::test]
async fn what_policy_no_longer_allows_is_not_served_stale_either() {
    for keys in ["", "stale_while_revalidate = \"1h\"", "on_upstream_404 = \"serve-stale\""] {
        let front = Front::new(keys).await;
        front.clock.advance(TAG_TTL);
        front.registry.fault(Fault::on("*").status(if keys.contains("404") { 404 } else { 503 }));
        assert!(is_stale(&front.get().await), "{keys}");
        front.mirror.write_policy(REJECT);
        front.mirror.reload().await.unwrap();
        assert_eq!(front.get().await.status, 403, "{keys}");
        assert_eq!(front.by_digest().await, 403, "{keys}");
        front.mirror.stop().await;
    }
}

#[tokio::test]
async fn an_upstream_that_is_left_alone_costs_a_stale_pull_no_time_and_no_question() {
    let front = Front::new("").await;
    front.registry.fault(Fault::on("*").status(503));
    front.clock.advance(TAG_TTL);
    for _ in 0..BREAKER_FAILURES {
        assert!(is_stale(&front.get().await));
    }
    let asked = front.asked();
    let began = std::time::Instant::now();
    for _ in 0..20 {
        assert!(is_stale(&front.get().await));
    }
    assert!(began.elapsed() < STALE_SOFT_DEADLINE);
    assert_eq!(front.asked(), asked);
    assert_eq!(front.stale_served("breaker_open"), Some(20.0));
    let cold = front.mirror.get("/v2/team/app/manifests/2.0").await;
    assert_eq!((cold.status, cold.json()["errors"][0]["detail"]["reason"].as_str()), (502, Some("breaker_open")));
    assert!(cold.header("retry-after").is_some(), "{cold:?}");
    front.mirror.stop().await;
}

#[tokio::test]
async fn a_stale_tag_does_not_outlive_its_time_when_the_clock_jumps() {
    let front = Front::new("stale_if_error = \"1h\"").await;
    // The clock is a year ahead for a while, and in that time the tag is looked up.
    front.clock.advance(Duration::from_hours(365 * 24));
    assert_eq!(front.get().await.status, 200);
    front.clock.set(front.start);
    front.registry.go_down();
    assert_eq!(front.get().await.status, 502, "nobody knows how old it is");
    front.registry.come_back().await;
    assert_eq!(front.get().await.status, 200);
    // A clock that is corrected by a little is no reason.
    front.clock.set(front.start.minus(TIME_STEP_BACK));
    front.registry.go_down();
    assert!(is_stale(&front.get().await));
    front.mirror.stop().await;
}

#[tokio::test]
async fn questions_in_the_background_are_bounded() {
    let life = TagLife { ttl: TagTtl::For(TAG_TTL), stale_while_revalidate: Duration::from_hours(1) };
    let rules = TagRules { life, on_upstream_404: Withdrawn::Deny, ..TagRules::of(TAG_TTL, TAG_TTL) };
    let lab = Lab::new(Policy::AcceptAnything).await.with_tags(rules);
    let image = lab.image("1");
    let tags: Vec<String> = (0..2 * REVALIDATIONS_MAX).map(|number| format!("t{number}")).collect();
    for tag in &tags {
        lab.tag(tag, &image);
        lab.pull(tag).await.unwrap();
    }
    lab.clock.advance(TAG_TTL);
    lab.registry.fault(Fault::on("*").head().hang());
    for tag in tags.iter().chain(&tags) {
        assert_eq!(lab.pull(tag).await.unwrap().digest(), &image.digest);
    }
    assert_eq!(lab.running(), REVALIDATIONS_MAX);
}
