//! `kill -9` at random moments of mixed load: the real program, killed and started again on the same directory.
//!
//! `just kill 200` does it 200 times.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sealgate::oci::Digest;
use sealgate::testing::Fault;

use crate::mixed_load::{Program, REPOSITORY, Tally, Upstream, client, number, pull, seed};
use crate::random::Random;
use crate::wire::PATIENCE;

/// Kills of an ordinary test run.
const KILLS: u64 = 10;
/// Clients at once.
const CLIENTS: u64 = 8;
/// Images that clients pull at a time; each round adds one.
const IMAGES: usize = 4;
/// How soon a mirror answers after its start, whatever the last one left behind. Tests that run beside others, without
/// optimisation, get more.
const READY: Duration = Duration::from_secs(1);
const READY_BESIDE_OTHERS: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f_01_a_kill_at_any_moment_of_mixed_load_leaves_nothing_wrong_and_loses_nothing_that_was_served_whole() {
    let seed = seed();
    let asked = number("SEALGATE_KILLS");
    let (kills, ready) = asked.map_or((KILLS, READY_BESIDE_OTHERS), |kills| (kills, READY));
    let upstream = Upstream::start(seed).await;
    let dir = tempfile::tempdir().unwrap();
    upstream.configure(dir.path(), "");
    let mut random = Random::new(seed);
    let (mut images, mut checked, mut times) = (Vec::new(), BTreeSet::new(), Vec::new());
    let mut served = 0;
    let mut mirror = Program::start(dir.path()).await;
    for round in 0..kills {
        images.push(upstream.signed_image(round, &[300_000, 200_000, 70_000, 10]));
        let current = images[images.len().saturating_sub(IMAGES)..].to_vec();
        // Slow enough that kills fall into the middle of transfers.
        upstream.registry.fault(Fault::on("*/blobs/*").get().drip(16 * 1024, Duration::from_millis(2)));
        let tally = Arc::new(Tally::default());
        let mut clients = tokio::task::JoinSet::new();
        for number in 0..CLIENTS {
            let (tally, current, unsigned) = (Arc::clone(&tally), current.clone(), upstream.unsigned.clone());
            let (address, seed) = (mirror.address, seed ^ (round << 8) ^ number);
            clients.spawn(async move { client(address, current, unsigned, &tally, seed).await });
        }
        // Any moment will do: none of the assertions depends on how far the clients came.
        tokio::time::sleep(Duration::from_millis(random.below(300).try_into().unwrap())).await;
        mirror.kill();
        clients.abort_all();
        while let Some(ended) = clients.join_next().await {
            assert!(!ended.is_err_and(|error| error.is_panic()), "round {round}: a client has seen something wrong");
        }
        every_cached_file_is_what_its_name_says(&dir.path().join("data/blobs"), &mut checked);

        mirror = Program::start(dir.path()).await;
        times.push(mirror.ready_in);
        // What was whole is put into place beside the service where that takes long.
        let began = std::time::Instant::now();
        while !mirror.staging().is_empty() {
            assert!(began.elapsed() < PATIENCE, "round {round}: staging holds {:?}", mirror.staging());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        served += what_was_acknowledged_is_still_there(&upstream, &mirror, &current, &tally, round).await;
    }
    mirror.kill();
    every_cached_file_is_what_its_name_says(&dir.path().join("data/blobs"), &mut BTreeSet::new());
    times.sort();
    let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
    println!(
        "{kills} kills: {} files are what their names say, {served} blobs that were served whole are still there; \
         ready in {median:.0?} (median), {longest:.0?} (longest)",
        checked.len()
    );
    assert!(longest < ready, "ready in less than {ready:?}: {times:?}");
}

/// Upstream gives no blob any more: what a client had whole before the kill comes from the cache; unsigned stays refused.
/// Returns how many there were.
async fn what_was_acknowledged_is_still_there(
    upstream: &Upstream,
    mirror: &Program,
    images: &[sealgate::testing::BuiltImage],
    tally: &Tally,
    round: u64,
) -> usize {
    let acknowledged: BTreeSet<Digest> = tally.acknowledged.lock().unwrap().iter().copied().collect();
    upstream.registry.heal();
    for digest in &acknowledged {
        upstream.registry.fault(Fault::on(&format!("*/blobs/{digest}")).status(503).header("retry-after", "1"));
    }
    let after = Tally::default();
    for image in images {
        let complete = image.blobs.iter().all(|blob| acknowledged.contains(&blob.digest));
        let pulled = pull(mirror.address, image, &after).await;
        assert!(pulled || !complete, "round {round}: image {} was served whole, and is lost", image.digest());
    }
    for digest in &acknowledged {
        let target = format!("/v2/{REPOSITORY}/blobs/{digest}");
        let answer = crate::mixed_load::get(mirror.address, "GET", &target, None).await;
        let right = answer.is_some_and(|answer| answer.status == 200 && digest.matches(&answer.body));
        assert!(right, "round {round}: {digest} was served whole, and is lost");
    }
    let refused = pull(mirror.address, &upstream.unsigned, &after).await;
    assert!(!refused, "round {round}: an unsigned image was served");
    upstream.registry.heal();
    upstream.registry.forget_requests();
    acknowledged.len()
}

fn every_cached_file_is_what_its_name_says(dir: &Path, checked: &mut BTreeSet<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            every_cached_file_is_what_its_name_says(&path, checked);
        } else if !checked.contains(&path) {
            let content = std::fs::read(&path).unwrap();
            let name = path.file_name().unwrap().to_str().unwrap();
            assert_eq!(Digest::sha256(&content).hex(), name, "{}", path.display());
            checked.insert(path);
        }
    }
}
