//! Answers about one tag that come in another order than they were asked for, or say different things, through the whole server.

use std::sync::Arc;
use std::time::Duration;

use sealgate::clock::{Clock, ManualClock};
use sealgate::limits::NEGATIVE_TTL_MAX;
use sealgate::testing::{ACCEPT_ANYTHING, Answer, BuiltImage, FakeRegistry, Fault, ImageBuilder, TestSealgate};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const TAG: &str = "/v2/team/app/manifests/1.0";
const TAG_TTL: Duration = Duration::from_mins(1);

struct Front {
    registry: FakeRegistry,
    mirror: Arc<TestSealgate>,
    clock: ManualClock,
}

impl Front {
    /// A mirror in front of a registry in which `team/app:1.0` is that image.
    async fn new(image: &BuiltImage) -> Self {
        let registry = FakeRegistry::start().await;
        registry.put("team/app", "1.0", image);
        let clock = ManualClock::at(Clock::System.now());
        let mirror = TestSealgate::with_policy(ACCEPT_ANYTHING)
            .upstream("registry.test", registry.url())
            .clock(&clock)
            .start()
            .await;
        Self { registry, mirror: Arc::new(mirror), clock }
    }

    async fn get(&self) -> Answer {
        self.mirror.get(TAG).await
    }

    /// HEAD names that manifest once, whatever the tag is.
    fn head_names(&self, image: &BuiltImage) {
        let digest = image.digest().to_string();
        self.registry.fault(Fault::on(TAG).head().times(1).set_header("docker-content-digest", &digest));
    }

    /// A pull whose GET of the tag is answered as things are now, once `released`. HEAD names a manifest that is not there, so that
    /// GET decides. Afterwards the tag's life is over.
    async fn slow_pull(&self, fault: Fault, released: &CancellationToken) -> JoinHandle<Answer> {
        self.head_names(&ImageBuilder::new(99).build());
        self.registry.fault(fault.hold(released));
        let mirror = Arc::clone(&self.mirror);
        let pull = tokio::spawn(async move { mirror.get(TAG).await });
        while self.registry.count("GET", TAG) == 0 {
            assert!(!pull.is_finished(), "the pull has ended without asking");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.clock.advance(TAG_TTL);
        pull
    }

    /// Once no pull is left.
    async fn stop(self) {
        Arc::try_unwrap(self.mirror).unwrap().stop().await;
    }
}

fn get_once() -> Fault {
    Fault::on(TAG).get().times(1)
}

#[tokio::test]
async fn an_older_answer_that_comes_last_moves_no_tag_back() {
    let (old, new) = (ImageBuilder::new(1).build(), ImageBuilder::new(2).build());
    let (front, released) = (Front::new(&old).await, CancellationToken::new());
    let slow = front.slow_pull(get_once(), &released).await;
    front.registry.put("team/app", "1.0", &new);
    assert_eq!(front.get().await.body, new.manifest.bytes);
    released.cancel();
    let answer = slow.await.unwrap();
    assert_eq!((answer.status, &answer.body), (200, &old.manifest.bytes), "as it was when that pull asked");
    front.registry.forget_requests();
    assert_eq!(front.get().await.body, new.manifest.bytes);
    assert_eq!(front.registry.count("*", "*"), 0, "it is fresh");
    front.stop().await;
}

#[tokio::test]
async fn an_older_answer_that_comes_last_brings_no_withdrawn_tag_back() {
    let old = ImageBuilder::new(1).build();
    let (front, released) = (Front::new(&old).await, CancellationToken::new());
    let slow = front.slow_pull(get_once(), &released).await;
    front.registry.untag("team/app", "1.0");
    assert_eq!(front.get().await.status, 404);
    released.cancel();
    assert_eq!(slow.await.unwrap().status, 200, "as it was when that pull asked");
    front.clock.advance(NEGATIVE_TTL_MAX);
    front.registry.go_down();
    assert_eq!(front.get().await.status, 502, "nothing stands in for it");
    front.stop().await;
}

#[tokio::test]
async fn an_older_no_that_comes_last_withdraws_no_tag() {
    for status in [404, 403, 401] {
        let (old, new) = (ImageBuilder::new(1).build(), ImageBuilder::new(2).build());
        let (front, released) = (Front::new(&old).await, CancellationToken::new());
        let slow = front.slow_pull(get_once().status(status), &released).await;
        front.registry.put("team/app", "1.0", &new);
        assert_eq!(front.get().await.body, new.manifest.bytes);
        released.cancel();
        assert_eq!(slow.await.unwrap().status, if status == 404 { 404 } else { 403 });
        front.registry.go_down();
        for age in [Duration::ZERO, TAG_TTL] {
            front.clock.advance(age);
            let answer = front.get().await;
            assert_eq!((answer.status, &answer.body), (200, &new.manifest.bytes), "{status}: {}", answer.text());
        }
        front.stop().await;
    }
}

#[tokio::test]
async fn what_get_says_outranks_the_head_before_it() {
    for status in [404, 403, 401] {
        let (known, named) = (ImageBuilder::new(1).build(), ImageBuilder::new(2).build());
        let front = Front::new(&known).await;
        assert_eq!(front.get().await.status, 200);
        front.clock.advance(TAG_TTL);
        front.head_names(&named);
        front.registry.fault(get_once().status(status));
        assert_eq!(front.get().await.status, if status == 404 { 404 } else { 403 });
        // What HEAD named is there after all, and the tag is not it.
        front.registry.put_untagged("team/app", &named);
        front.clock.advance(NEGATIVE_TTL_MAX);
        assert_eq!(front.mirror.get(&format!("/v2/team/app/manifests/{}", named.digest())).await.status, 200);
        assert_eq!(front.get().await.body, known.manifest.bytes, "{status}: it is asked about again");
        // And a no that is the last word stays one while upstream is down.
        front.clock.advance(TAG_TTL);
        front.head_names(&ImageBuilder::new(3).build());
        front.registry.fault(get_once().status(status));
        assert_eq!(front.get().await.status, if status == 404 { 404 } else { 403 });
        front.registry.go_down();
        front.clock.advance(NEGATIVE_TTL_MAX);
        assert_eq!(front.get().await.status, 502, "{status}");
        front.stop().await;
    }
}
