//! The soak: the real program at full load between clients and an upstream that fails all the time. What it uses stays flat, and
//! nothing is left over at the end.
//!
//! `just soak 10` goes on for ten minutes and prints a line each half minute.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sealgate::limits::VERDICT_STORE_CLOSE;
use sealgate::testing::{FakeRegistry, Fault};
use tokio::time::Instant;

use crate::mixed_load::{Program, Tally, Upstream, Usage, client, number, seed};
use crate::random::Random;

/// An ordinary test run.
const SHORT: Duration = Duration::from_secs(5);
const CLIENTS: u64 = 16;
/// Images of 3 MB: four times what the cache may hold.
const IMAGES: u64 = 40;
/// How far memory may move after the first minute.
const DRIFT_PERCENT: u64 = 10;
/// Descriptors that may be open when nobody asks: listeners, database, connections that are kept for later.
const DESCRIPTORS_AT_REST: usize = 128;
/// Threads that may run when nobody asks: those of the database and a few more. Those for blocking work end when idle.
const THREADS_AT_REST: usize = 32;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f_10_what_a_mirror_uses_under_load_and_faults_stays_flat_and_nothing_is_left_over() {
    let seed = seed();
    let minutes = number("SEALGATE_SOAK_MINUTES");
    let length = minutes.map_or(SHORT, |minutes| Duration::from_secs(minutes * 60));
    let upstream = Upstream::start(seed).await;
    let dir = tempfile::tempdir().unwrap();
    upstream.configure(dir.path(), "max_bytes = \"32MiB\"\n");
    let images: Vec<_> =
        (0..IMAGES).map(|number| upstream.signed_image(number, &[2_000_000, 900_000, 70_000, 100])).collect();
    let mirror = Program::start(dir.path()).await;

    let tally = Arc::new(Tally::default());
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        let (tally, images, unsigned) = (Arc::clone(&tally), images.clone(), upstream.unsigned.clone());
        let address = mirror.address;
        clients.spawn(async move { client(address, images, unsigned, &tally, seed ^ number).await });
    }
    let samples = watch(&upstream.registry, &mirror, &tally, length, seed).await;
    clients.abort_all();
    while let Some(ended) = clients.join_next().await {
        assert!(!ended.is_err_and(|error| error.is_panic()), "a client has seen something wrong");
    }
    assert!(tally.whole.load(Ordering::Relaxed) > 0, "something was served");

    let late: Vec<u64> =
        samples.iter().filter(|(at, _)| *at > Duration::from_secs(60)).map(|(_, usage)| usage.rss_kib).collect();
    if let (Some(first), Some(most), Some(least)) = (late.first(), late.iter().max(), late.iter().min()) {
        let bound = first * DRIFT_PERCENT / 100;
        assert!(*most <= first + bound && *least + bound >= *first, "RSS after the first minute: {late:?} KiB");
    }
    nothing_is_left_over(&upstream.registry, &mirror).await;
    let (status, took) = mirror.terminate();
    assert!(status.success(), "{status}");
    // Whatever waits for a task waits at least so long.
    assert!(took < VERDICT_STORE_CLOSE, "tasks are left over: the drain waited {took:?} for them");
}

/// Breaks upstream in another way each second, and looks at the process each five seconds.
async fn watch(
    registry: &FakeRegistry,
    mirror: &Program,
    tally: &Tally,
    length: Duration,
    seed: u64,
) -> Vec<(Duration, Usage)> {
    let mut random = Random::new(seed);
    let (began, mut samples, mut printed) = (Instant::now(), Vec::new(), None);
    println!(
        "  seconds      RSS  anonymous  descriptors  threads  staging     whole  refused   failed      cut     left     MiB"
    );
    for second in 0.. {
        let at = began.elapsed();
        if at >= length {
            break;
        }
        registry.heal();
        registry.forget_requests();
        for _ in 0..random.below(3) {
            registry.fault(fault(&mut random));
        }
        if second % 5 == 0 {
            let usage = mirror.usage();
            samples.push((at, usage));
            if printed.is_none_or(|printed: Duration| at >= printed + Duration::from_secs(30)) {
                printed = Some(at);
                print(at, usage, mirror.staging().len(), tally);
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    print(began.elapsed(), mirror.usage(), mirror.staging().len(), tally);
    samples
}

fn print(at: Duration, usage: Usage, staging: usize, tally: &Tally) {
    let count = |of: &std::sync::atomic::AtomicU64| of.load(Ordering::Relaxed);
    println!(
        "{:>9} {:>8} {:>10} {:>12} {:>8} {:>8} {:>9} {:>8} {:>8} {:>8} {:>8} {:>7}",
        at.as_secs(),
        usage.rss_kib,
        usage.anonymous_kib,
        usage.descriptors,
        usage.threads,
        staging,
        count(&tally.whole),
        count(&tally.refused),
        count(&tally.failed),
        count(&tally.cut),
        count(&tally.left),
        count(&tally.bytes) >> 20,
    );
}

/// Faults that last for a second, on a part of the requests.
fn fault(random: &mut Random) -> Fault {
    let paths = ["*", "*/manifests/*", "*/blobs/*", "*/referrers/*", "*.sig"];
    let fault = Fault::on(paths[random.below(paths.len())]);
    let fault = match random.below(9) {
        0 => fault.status(500),
        1 => fault.status(503).header("retry-after", "1"),
        2 => fault.status(429).header("retry-after", "1"),
        3 => fault.get().wrong_bytes(),
        4 => fault.reset(),
        5 => fault.get().truncate(70_000),
        6 => fault.get().reset_after(500_000),
        7 => fault.get().drip(64 * 1024, Duration::from_millis(5)),
        // A silent transfer holds its clients for half a minute: one at a time, or soon nobody asks for anything.
        _ => return fault.get().hang_after(100_000).times(1),
    };
    fault.times(1 + random.below(20))
}

/// Waits until nobody is served and nothing is fetched: no request, no fill, no staging file, few descriptors and threads.
async fn nothing_is_left_over(registry: &FakeRegistry, mirror: &Program) {
    registry.heal();
    registry.go_down();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // The runtime and those who verify have so many.
    let threads_max = u64::try_from(THREADS_AT_REST + 2 * cores).unwrap();
    let mut left = String::new();
    for _ in 0..600 {
        let requests = mirror.metric("sealgate_http_requests_in_flight").await;
        let fills = mirror.metric("sealgate_cache_fills_in_flight").await;
        let (staging, Usage { descriptors, threads, .. }) = (mirror.staging(), mirror.usage());
        if (requests, fills) == (Some(0.0), Some(0.0))
            && staging == Vec::<PathBuf>::new()
            && descriptors <= DESCRIPTORS_AT_REST
            && threads <= threads_max
        {
            println!("at rest: {descriptors} descriptors, {threads} threads, no request, no fill, no staging file");
            return;
        }
        left = format!(
            "{requests:?} requests, {fills:?} fills, {staging:?} in staging, {descriptors} descriptors, {threads} threads"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("a minute after the last client: {left}");
}
