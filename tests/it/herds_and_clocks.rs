//! Faults of processes and clocks, by the ids of the catalogue (F-05 to F-08): clients that leave, herds, clocks that jump.
//! Kills are in `kill`, the soak in `soak`.

use std::time::Duration;

use futures_util::future::{join, join_all};
use sealgate::clock::{Clock, ManualClock};
use sealgate::testing::sigstore::{FakeSigstore, Flaw, key_requirement};
use sealgate::testing::{ACCEPT_ANYTHING, FakeRegistry, Fault, ImageBuilder, TestSealgate, attach_signatures};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::lab::{Lab, Policy};

/// The client for which a transfer was begun leaves after a tenth, a half and nearly all of it; the others get everything,
/// and upstream is asked once.
#[tokio::test]
async fn f_05_the_first_reader_of_a_fill_leaves_at_any_point_and_the_others_get_it_whole() {
    const SIZE: usize = 8 << 20;
    for percent in [10, 50, 99] {
        let registry = FakeRegistry::start().await;
        let image = ImageBuilder::new(1).layer(SIZE).build();
        registry.put("team/app", "1", &image);
        let mirror = TestSealgate::with_policy(ACCEPT_ANYTHING).upstream("registry.test", registry.url()).start().await;
        assert_eq!(mirror.get("/v2/team/app/manifests/1").await.status, 200);
        registry.fault(Fault::on("*/blobs/*").get().drip(256 * 1024, Duration::from_millis(5)));
        let target = format!("/v2/team/app/blobs/{}", image.blobs[1].digest);
        let leaves = async {
            let mut stream = TcpStream::connect(mirror.address()).await.unwrap();
            stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: mirror\r\n\r\n").as_bytes()).await.unwrap();
            let mut left = SIZE / 100 * percent;
            let mut buffer = vec![0; 64 * 1024];
            while left > 0 {
                let read = stream.read(&mut buffer).await.unwrap();
                assert_ne!(read, 0, "it was cut before the client left");
                left = left.saturating_sub(read);
            }
        };
        let stay = async {
            // They come after the first one.
            while registry.count("GET", "*/blobs/*") == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            join_all((0..4).map(|_| mirror.get(&target))).await
        };
        let ((), others) = join(leaves, stay).await;
        for answer in others {
            assert!(answer.complete && answer.body == image.blobs[1].bytes, "{percent} %: {}", answer.status);
        }
        assert_eq!(registry.count("GET", "*/blobs/*"), 1, "{percent} %");
        mirror.stop().await;
    }
}

/// A thousand callers of one cold blob: one transfer.
#[tokio::test]
async fn f_07_a_thousand_clients_of_one_cold_blob_cost_one_transfer() {
    let lab = Lab::new(Policy::Signed).await;
    let image = lab.signed_image("1");
    lab.pull("1").await.unwrap();
    let layer = image.layers[1];
    let bodies = join_all((0..1000).map(|_| lab.blob(&layer))).await;
    assert!(bodies.into_iter().all(|body| body.unwrap() == lab.content(&layer)));
    assert_eq!(lab.asked("GET", &format!("/blobs/{layer}")), 1);
}

/// A day back, a year ahead, and ten seconds to and fro: what is signed is served, what is not is refused, nothing panics, and
/// when the clock is right again everything is as before.
#[tokio::test]
async fn f_08_a_clock_that_jumps_changes_no_answer_while_upstream_is_well() {
    let registry = FakeRegistry::start().await;
    let start = Clock::System.now();
    let sigstore = FakeSigstore::from_seed(1, start);
    let (signed, unsigned) = (ImageBuilder::new(1).layer(70_000).build(), ImageBuilder::new(2).layer(10).build());
    registry.put("team/app", "signed", &signed);
    registry.put("team/app", "unsigned", &unsigned);
    let signature = sigstore.sign_unlogged(&sigstore.key("k"), "registry.test/team/app", &signed.digest(), Flaw::None);
    attach_signatures(&registry, "team/app", &signed.digest(), &[signature]);
    let clock = ManualClock::at(start);
    let policy = json!({"default": [key_requirement(&sigstore.key("k"))]}).to_string();
    let mirror =
        TestSealgate::with_policy(&policy).upstream("registry.test", registry.url()).clock(&clock).start().await;
    let (day, year) = (Duration::from_hours(24), Duration::from_hours(24 * 365));
    let flapping = (0..20).map(|turn| if turn % 2 == 0 { start.minus(Duration::from_secs(10)) } else { start });
    let times = [start, start.minus(day), start, start.plus(year), start].into_iter().chain(flapping);
    for now in times {
        clock.set(now);
        let answer = mirror.get("/v2/team/app/manifests/signed").await;
        assert_eq!((answer.status, &answer.body), (200, &signed.manifest.bytes), "{now}: {}", answer.text());
        let blob = mirror.get(&format!("/v2/team/app/blobs/{}", signed.blobs[1].digest)).await;
        assert_eq!((blob.status, &blob.body), (200, &signed.blobs[1].bytes), "{now}");
        assert_eq!(mirror.get("/v2/team/app/manifests/unsigned").await.status, 403, "{now}");
    }
    assert_eq!(mirror.metric("sealgate_panics_total"), Some(0.0));
    mirror.stop().await;
}
