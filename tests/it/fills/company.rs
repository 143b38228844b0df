//! Who follows a fill: many at once, slow ones, ones that leave, and nobody.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use sealgate::limits::UNSYNCED_FILLS_MAX;
use sealgate::oci::Digest;
use sealgate::pull::{Patience, TransferRules, TurnRules};
use sealgate::store::faults::{Step, observe};
use sealgate::testing::Fault;

use super::{MIB, Site, free, quick, until};
use crate::parts::Rig;

fn blobs() -> Fault {
    Fault::on("*/blobs/*").get()
}

/// A mirror that waits a moment for nobody, and then as long as that.
async fn impatient(rest: Duration, most: Duration) -> Site {
    let patience = Patience { grace: Duration::from_millis(300), rest, most };
    let transfers = TransferRules { patience, ..TransferRules::default() };
    Site::rigged(Rig { timeouts: quick(), transfers, ..Rig::default() }).await
}

fn waiters(site: &Site) -> u64 {
    site.mirror.metric("sealgate_cache_fill_waiters")
}

fn running(site: &Site) -> u64 {
    site.mirror.metric("sealgate_cache_fills_in_flight")
}

#[tokio::test]
async fn f_07_fifty_cold_clients_cost_one_transfer_and_none_waits_for_another() {
    let site = Site::rigged(Rig::default()).await;
    let (digest, bytes) = site.layer(4 * MIB).await;
    // Upstream falls silent when a part is out, long before the blob is whole.
    site.mirror.upstream.fault(blobs().times(1).hang_after(MIB));
    let clients = (0..50).map(async |_| {
        let (mut wire, answer) = site.open(&digest, "").await;
        assert_eq!(answer.status, 200);
        (wire.first(MIB / 2).await, wire)
    });
    let opened = futures_util::future::join_all(clients).await;
    assert_eq!((running(&site), waiters(&site), site.gets(&digest)), (1, 50, 1), "all have it as soon as it is there");
    // Its connections break, and the transfer goes on.
    site.mirror.upstream.go_down();
    site.mirror.upstream.come_back().await;
    let rest = opened.into_iter().map(async |(first, mut wire)| [first, wire.rest().await].concat());
    assert!(futures_util::future::join_all(rest).await.iter().all(|body| *body == bytes));
    until("it is cached", || site.fills("committed") == 1).await;
    let moved = site.mirror.metric("sealgate_upstream_bytes_total{upstream=\"docker.io\"}");
    assert!(moved < 5 * 1024 * 1024, "one blob was moved, not fifty: {moved}");
    site.stop().await;
}

#[tokio::test]
async fn f_05_who_leaves_at_any_point_leaves_the_others_their_blob() {
    for percent in [10, 50, 99] {
        let site = Site::new().await;
        let (digest, bytes) = site.layer(2 * MIB).await;
        site.mirror.upstream.fault(blobs().drip(64 * 1024, Duration::from_millis(5)));
        let (mut first, answer) = site.open(&digest, "").await;
        assert_eq!(answer.status, 200);
        let others = site.pull_by(5, &digest);
        let leaves = async {
            first.first(free(2 * MIB) * percent / 100).await;
            drop(first);
        };
        let (others, ()) = tokio::join!(others, leaves);
        assert!(others.iter().all(|got| got.is_whole() && got.body == bytes), "{percent}");
        assert_eq!(site.gets(&digest), 1, "{percent}");
        site.stop().await;
    }
}

#[tokio::test]
async fn a_fill_that_nobody_follows_stops_when_its_end_is_far() {
    let site = impatient(Duration::from_secs(1), Duration::from_secs(60)).await;
    let (digest, bytes) = site.layer(4 * MIB).await;
    // 10 s for all of it.
    site.mirror.upstream.fault(blobs().times(1).drip(128 * 1024, Duration::from_millis(300)));
    let (mut leaving, _) = site.open(&digest, "").await;
    leaving.first(1).await;
    assert_eq!(waiters(&site), 1);
    drop(leaving);
    until("the fill is given up", || site.fills("cancelled") == 1).await;
    assert_eq!((running(&site), site.staged().len(), site.is_cached(&digest)), (0, 0, false));
    assert!(site.mirror.metric("sealgate_upstream_bytes_total{upstream=\"docker.io\"}") < 3 * 1024 * 1024);
    let again = site.pull(&digest).await;
    assert!(again.is_whole() && again.body == bytes);
    site.stop().await;
}

#[tokio::test]
async fn a_fill_that_nobody_follows_goes_on_when_its_end_is_near() {
    let site = impatient(Duration::from_secs(5), Duration::from_secs(60)).await;
    let (digest, _) = site.layer(4 * MIB).await;
    // 1.6 s for all of it.
    site.mirror.upstream.fault(blobs().drip(128 * 1024, Duration::from_millis(50)));
    let (mut leaving, _) = site.open(&digest, "").await;
    leaving.first(1).await;
    drop(leaving);
    until("the blob is cached", || site.fills("committed") == 1).await;
    assert!(site.is_cached(&digest) && site.gets(&digest) == 1);
    site.stop().await;
}

#[tokio::test]
async fn a_fill_that_is_there_by_half_is_given_more_time() {
    let site = impatient(Duration::ZERO, Duration::from_secs(60)).await;
    let (digest, _) = site.layer(4 * MIB).await;
    site.mirror.upstream.fault(blobs().drip(128 * 1024, Duration::from_millis(30)));
    let (mut leaving, _) = site.open(&digest, "").await;
    leaving.first(5 * MIB / 2).await;
    drop(leaving);
    until("the blob is cached", || site.is_cached(&digest)).await;
    site.stop().await;
}

#[tokio::test]
async fn who_comes_back_in_time_finds_the_fill_running() {
    let patience = Patience { rest: Duration::ZERO, most: Duration::ZERO, ..Patience::default() };
    let transfers = TransferRules { patience, ..TransferRules::default() };
    let site = Site::rigged(Rig { timeouts: quick(), transfers, ..Rig::default() }).await;
    let (digest, bytes) = site.layer(2 * MIB).await;
    site.mirror.upstream.fault(blobs().drip(64 * 1024, Duration::from_millis(20)));
    for _ in 0..5 {
        let (mut leaving, _) = site.open(&digest, "").await;
        leaving.first(1).await;
        drop(leaving);
        until("it is noticed", || waiters(&site) == 0).await;
    }
    let got = site.pull(&digest).await;
    assert!(got.is_whole() && got.body == bytes);
    assert_eq!(site.gets(&digest), 1);
    site.stop().await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_still_keeps_the_fill_going() {
    let site = impatient(Duration::ZERO, Duration::ZERO).await;
    let (digest, _) = site.layer(8 * MIB).await;
    site.mirror.upstream.fault(blobs().drip(512 * 1024, Duration::from_millis(60)));
    let (stalled, answer) = site.open(&digest, "").await;
    assert_eq!(answer.status, 200);
    until("the blob is cached", || site.is_cached(&digest)).await;
    drop(stalled);
    site.stop().await;
}

#[tokio::test]
async fn a_mirror_that_ends_does_not_wait_for_a_fill_that_nobody_follows() {
    let patience = Patience { rest: Duration::from_secs(1), ..Patience::default() };
    let transfers = TransferRules { patience, ..TransferRules::default() };
    let site = Site::rigged(Rig { timeouts: quick(), transfers, ..Rig::default() }).await;
    let (digest, _) = site.layer(4 * MIB).await;
    site.mirror.upstream.fault(blobs().drip(64 * 1024, Duration::from_millis(250)));
    let (mut leaving, _) = site.open(&digest, "").await;
    leaving.first(1).await;
    drop(leaving);
    let began = std::time::Instant::now();
    site.stop().await;
    assert!(began.elapsed() < patience.grace, "the grace is for clients that come back");
}

#[tokio::test]
async fn p14_readers_that_stall_cost_a_buffer_each_and_nobody_any_time() {
    const STALLED: usize = 64;
    let site = Site::new().await;
    let (digest, bytes) = site.layer(24 * MIB).await;
    // The fill does not end before all of them are there.
    site.mirror.upstream.fault(blobs().times(1).hang_after(16 * MIB));
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let (wire, answer) = site.open(&digest, "").await;
        assert_eq!(answer.status, 200);
        stalled.push(wire);
    }
    let got = site.pull(&digest).await;
    assert!(got.is_whole() && got.body == bytes, "who reads is not held up");
    until("it is cached", || site.fills("committed") == 1).await;
    assert_eq!(site.gets(&digest), 2, "one transfer, resumed once");
    let taken = site.mirror.store.buffers_taken();
    assert!(taken <= STALLED, "{taken} buffers for {STALLED} readers");
    drop(stalled);
    until("all buffers are back", || site.mirror.store.buffers_taken() == 0).await;
    site.stop().await;
}

#[tokio::test]
async fn u02_when_the_body_is_bad_all_who_wait_fail_before_its_end_and_one_retry_serves_them_all() {
    const SIZE: usize = 300_000;
    let site = Site::new().await;
    let (digest, bytes) = site.layer(SIZE).await;
    for got in site.pull_together(20, &digest, blobs().wrong_bytes()).await {
        assert_eq!((got.answer.status, got.length), (200, SIZE));
        assert!(got.body.len() <= free(SIZE), "{} bytes went out", got.body.len());
    }
    assert_eq!((site.gets(&digest), site.fills("digest_mismatch")), (1, 1));
    until("nothing is staged", || site.staged().is_empty()).await;
    assert!(!site.is_cached(&digest));
    assert!(site.pull_together(20, &digest, blobs()).await.iter().all(|got| got.is_whole() && got.body == bytes));
    assert_eq!(site.gets(&digest), 2, "one retry for all");
    site.stop().await;
}

#[tokio::test]
async fn u02_wrong_bytes_of_which_nobody_saw_any_are_asked_for_once_more() {
    let site = Site::new().await;
    let (digest, bytes) = site.layer(50_000).await;
    // Whoever is told that the first was wrong has the time of the second to join it.
    site.mirror.upstream.fault(blobs().after(1).times(1).delay(Duration::from_millis(500)));
    let got = site.pull_together(20, &digest, blobs().wrong_bytes()).await;
    assert!(got.iter().all(|got| got.is_whole() && got.body == bytes));
    assert_eq!(site.gets(&digest), 2, "all who waited share the second transfer");
    site.stop().await;

    let site = Site::new().await;
    let (digest, _) = site.layer(50_000).await;
    site.mirror.upstream.fault(blobs().wrong_bytes());
    assert_eq!(site.refusal(&digest).await, (502, "digest_mismatch".to_owned()));
    assert_eq!(site.gets(&digest), 2, "and not for ever");
    assert!(!site.is_cached(&digest));
    site.stop().await;
}

/// The status and bytes of a range.
async fn range(site: &Site, digest: &Digest, range: &str) -> (u16, Vec<u8>) {
    let (mut wire, answer) = site.open(digest, &format!("Range: bytes={range}\r\n")).await;
    (answer.status, wire.rest().await)
}

#[tokio::test]
async fn a_range_far_into_a_cold_blob_does_not_wait_for_what_lies_before_it() {
    let site = Site::rigged(Rig::default()).await;
    let (digest, bytes) = site.layer(6 * MIB).await;
    site.mirror.upstream.fault(blobs().times(1).hang_after(2 * MIB));
    let near = range(&site, &digest, "1000-1999").await;
    assert_eq!(near, (206, bytes[1000..2000].to_vec()), "from the fill");
    let far = range(&site, &digest, "5000000-5000999").await;
    assert_eq!(far, (206, bytes[5_000_000..5_001_000].to_vec()), "from upstream");
    assert_eq!(site.gets(&digest), 2);
    site.mirror.upstream.go_down();
    drop(site.mirror.stop().await);
}

#[tokio::test]
async fn a_range_that_is_passed_on_and_breaks_goes_on_behind_the_fill() {
    let site = Site::new().await;
    let (digest, bytes) = site.layer(6 * MIB).await;
    site.mirror.upstream.fault(blobs().times(1).drip(MIB, Duration::from_millis(100)));
    site.mirror.upstream.fault(blobs().times(1).truncate(500_000));
    let far = range(&site, &digest, "4000000-").await;
    assert_eq!(far, (206, bytes[4_000_000..].to_vec()));
    until("it is cached", || site.fills("committed") == 1).await;
    assert_eq!(site.gets(&digest), 2);
    site.stop().await;
}

#[tokio::test]
async fn ranges_at_their_clients_pace_take_no_turn_that_a_fill_needs() {
    let turns = TurnRules { of_one: 3, paced: 1, ..TurnRules::default() };
    let transfers = TransferRules { turns, ..TransferRules::default() };
    let site = Site::rigged(Rig { transfers, ..Rig::default() }).await;
    let image = site.publish("1", &[40 * MIB, 1000]).await;
    let (large, small) = (&image.blobs[1], &image.blobs[2]);
    site.mirror.upstream.fault(Fault::on(&format!("*/blobs/{}", large.digest)).times(1).hang_after(MIB));
    let (stalled, answer) = site.open(&large.digest, "Range: bytes=4000000-\r\n").await;
    assert_eq!(answer.status, 206);
    until("it is passed on", || site.gets(&large.digest) == 2).await;
    // A second one would need a turn of which there is only one: it waits for the fill.
    let (waiting, answer) = site.open(&large.digest, "Range: bytes=5000000-5000999\r\n").await;
    assert_eq!(answer.status, 206);
    let other = site.pull(&small.digest).await;
    assert!(other.is_whole() && other.body == small.bytes, "and a fill is not held up");
    assert_eq!(site.gets(&large.digest), 2);
    drop((stalled, waiting));
    site.mirror.upstream.go_down();
    drop(site.mirror.stop().await);
}

/// Whether the disk works again, which it does when this is dropped.
#[derive(Debug, Default)]
struct StuckDisk(Arc<(Mutex<bool>, Condvar)>);

impl Drop for StuckDisk {
    fn drop(&mut self) {
        if let Ok(mut works) = self.0.0.lock() {
            *works = true;
        }
        self.0.1.notify_all();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_holds_nobody_up_until_so_many_blobs_wait_for_it() {
    let site = Site::new().await;
    let image = site.publish("1", &[100_000; UNSYNCED_FILLS_MAX + 1]).await;
    let stuck = StuckDisk::default();
    let disk = Arc::clone(&stuck.0);
    let _observed = observe(site.dir.path(), move |step| {
        // What a fill stages is named so when it is whole.
        if matches!(step, Step::SyncFile(path) if path.to_str().unwrap().contains(".sha256-")) {
            let works = disk.0.lock().unwrap();
            drop(disk.1.wait_while(works, |works| !*works));
        }
        Ok(())
    });
    let layers = &image.blobs[1..];
    for layer in &layers[1..] {
        let got = site.pull(&layer.digest).await;
        assert!(got.is_whole() && got.body == layer.bytes);
    }
    assert_eq!((site.fills("committed"), running(&site)), (0, u64::try_from(UNSYNCED_FILLS_MAX).unwrap()));
    let got = site.pull(&layers[1].digest).await;
    assert!(got.is_whole() && got.body == layers[1].bytes, "who comes now reads behind the fill");
    let (mut wire, answer) = site.open(&layers[0].digest, "").await;
    until("it is whole", || site.staged().len() == UNSYNCED_FILLS_MAX + 1).await;
    let whole = |path: &std::path::PathBuf| path.to_str().unwrap().contains(".sha256-");
    until("it is named so", || site.staged().iter().all(whole)).await;
    assert_eq!((answer.status, waiters(&site)), (200, 1), "this one waits for the disk");
    drop(stuck);
    assert_eq!(wire.rest().await, layers[0].bytes);
    until("all are cached", || site.fills("committed") == u64::try_from(layers.len()).unwrap()).await;
    assert_eq!(layers.iter().map(|layer| site.gets(&layer.digest)).sum::<usize>(), layers.len());
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_disk_loses_when_it_should_keep_it_comes_from_upstream() {
    for code in [libc::ENOSPC, libc::EIO] {
        let site = Site::new().await;
        let (digest, bytes) = site.layer(24 * MIB).await;
        let stuck = StuckDisk::default();
        let disk = Arc::clone(&stuck.0);
        let _observed = observe(site.dir.path(), move |step| {
            if matches!(step, Step::SyncFile(path) if path.to_str().unwrap().contains(".sha256-")) {
                let works = disk.0.lock().unwrap();
                drop(disk.1.wait_while(works, |works| !*works));
                return Err(std::io::Error::from_raw_os_error(code));
            }
            Ok(())
        });
        let (mut slow, answer) = site.open(&digest, "").await;
        assert_eq!(answer.status, 200);
        let whole = |path: &std::path::PathBuf| path.to_str().unwrap().contains(".sha256-");
        until("it is whole", || site.staged().iter().any(whole)).await;
        drop(stuck);
        until("the fill has ended", || site.no_fill_runs()).await;
        assert_eq!(site.fills("no_space"), 1);
        assert_eq!(slow.rest().await, bytes, "{code}");
        assert_eq!(site.gets(&digest), 2, "{code}: the rest is not believed to be there");
        assert!(!site.is_cached(&digest));
        site.stop().await;
    }
}
