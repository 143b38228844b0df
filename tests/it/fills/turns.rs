//! Turns: bounded transfers, fair between upstreams, and a wait that ends.

use std::time::Duration;

use sealgate::pull::{TransferRules, TurnRules};
use sealgate::testing::{FakeRegistry, Fault, ImageBuilder};

use super::{REPOSITORY, Site, until};
use crate::parts::Rig;
use crate::wire::get;

fn rig(turns: TurnRules) -> Rig {
    Rig { transfers: TransferRules { turns, ..TransferRules::default() }, ..Rig::default() }
}

fn queued(site: &Site) -> u64 {
    site.mirror.metric("sealgate_cache_fills_queued{upstream=\"docker.io\"}")
}

#[tokio::test]
async fn r08_transfers_of_a_slow_upstream_delay_no_other_upstream() {
    let quay = FakeRegistry::start().await;
    let other = ImageBuilder::new(9).layer(200_000).build();
    quay.put("team/app", "1", &other);
    let turns = TurnRules { of_one: 8, own: 1, shared: 2, ..TurnRules::default() };
    let site = Site::rigged(Rig { second: Some(quay.url()), ..rig(turns) }).await;
    let image = site.publish("1", &[100_000, 100_001, 100_002, 100_003, 100_004]).await;
    site.mirror.upstream.fault(Fault::on("*/blobs/*").get().hang());
    let slow: Vec<_> = image.blobs[1..].iter().map(|blob| site.pull(&blob.digest)).collect();
    let slow = futures_util::future::join_all(slow);
    let fast = async {
        until("the slow upstream has all that is shared", || queued(&site) == 2).await;
        let manifest = get(site.mirror.address, "/v2/quay.io/team/app/manifests/1", "").await;
        assert_eq!(manifest.status, 200, "{manifest:?}");
        for blob in &other.blobs {
            let got = get(site.mirror.address, &format!("/v2/quay.io/team/app/blobs/{}", blob.digest), "").await;
            assert_eq!((got.status, got.body.as_slice()), (200, blob.bytes.as_ref()));
        }
    };
    tokio::select! {
        _ = slow => panic!("the slow ones hang"),
        () = fast => {}
    }
    site.mirror.upstream.go_down();
    drop(site.mirror.stop().await);
}

#[tokio::test]
async fn a_transfer_that_gets_no_turn_in_time_is_told_to_come_back() {
    let turns = TurnRules { of_one: 1, queue: Duration::from_millis(300), ..TurnRules::default() };
    let site = Site::rigged(rig(turns)).await;
    let image = site.publish("1", &[200_000, 1000]).await;
    let (large, small) = (&image.blobs[1], &image.blobs[2]);
    site.mirror.upstream.fault(Fault::on(&format!("*/blobs/{}", large.digest)).times(1).hang_after(150_000));
    let (holds, answer) = site.open(&large.digest, "").await;
    assert_eq!(answer.status, 200);
    let refused = site.get(&format!("{REPOSITORY}/blobs/{}", small.digest)).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "TOOMANYREQUESTS"), "{refused:?}");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.detail("reason"), "overloaded");
    assert_eq!((site.gets(&small.digest), queued(&site)), (0, 0), "upstream was not asked");
    drop(holds);
    site.mirror.upstream.go_down();
    until("the turn is free", || site.mirror.metric("sealgate_cache_fills_in_flight") == 0).await;
    site.mirror.upstream.come_back().await;
    let got = site.pull(&small.digest).await;
    assert!(got.is_whole() && got.body == small.bytes);
    site.stop().await;
}

#[tokio::test]
async fn who_leaves_the_queue_is_not_served_in_it() {
    let turns = TurnRules { of_one: 1, ..TurnRules::default() };
    let patience = sealgate::pull::Patience { grace: Duration::from_millis(50), ..Default::default() };
    let rig = Rig { transfers: TransferRules { turns, patience }, ..Rig::default() };
    let site = Site::rigged(rig).await;
    let image = site.publish("1", &[200_000, 1000]).await;
    let (large, small) = (&image.blobs[1], &image.blobs[2]);
    site.mirror.upstream.fault(Fault::on(&format!("*/blobs/{}", large.digest)).times(1).hang_after(150_000));
    let (holds, _) = site.open(&large.digest, "").await;
    {
        let pull = site.pull(&small.digest);
        tokio::pin!(pull);
        tokio::select! {
            got = &mut pull => panic!("there is no turn: {got:?}"),
            () = until("it waits", || queued(&site) == 1) => {}
        }
    }
    until("it has left", || queued(&site) == 0 && site.fills("cancelled") == 1).await;
    assert_eq!(site.gets(&small.digest), 0);
    drop(holds);
    site.mirror.upstream.go_down();
    drop(site.mirror.stop().await);
}
