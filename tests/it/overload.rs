//! What many requests at once do to each other: bounds, queues, and that one client's flood is not everybody's.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use sealgate::pull::ColdRules;
use sealgate::testing::sigstore::{FakeSigstore, Flaw, key_requirement};
use sealgate::testing::{ACCEPT_ANYTHING, FakeRegistry, Fault, ImageBuilder, Setup, TestSealgate, attach_signatures};
use serde_json::json;

use crate::wire::{Answer, Wire};

/// A mirror of `docker.io` with these bounds on cold work.
fn bounded(registry: &FakeRegistry, cold: ColdRules) -> Setup {
    Setup::new(ACCEPT_ANYTHING)
        .upstream("docker.io", registry.url())
        .adjust(move |loaded| loaded.config.registry.caps.cold = cold)
}

/// GET of a path from one of this machine's addresses, on a connection of its own.
async fn get_from(from: &str, address: SocketAddr, target: &str) -> Answer {
    let mut wire = Wire::open_from(from, address).await;
    wire.send(format!("GET {target} HTTP/1.1\r\nHost: mirror\r\nConnection: close\r\n\r\n")).await;
    wire.answer().await
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(crate::wire::PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

fn overloads(mirror: &TestSealgate, bound: &str) -> f64 {
    mirror.metric(&format!("sealgate_overloads_total{{bound=\"{bound}\"}}")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r_03_ten_thousand_new_tags_of_one_client_are_limited_and_nobody_else_notices() {
    let registry = FakeRegistry::start().await;
    let image = ImageBuilder::new(1).layer(1000).build();
    registry.put("library/app", "1", &image);
    registry.put("library/other", "1", &image);
    let rules = ColdRules { pulls_per_minute: 300, ..ColdRules::default() };
    let mirror = bounded(&registry, rules).start().await;
    let address = mirror.address();
    assert_eq!(get_from("127.0.0.2", address, "/v2/app/manifests/1").await.status, 200);
    let flood = join_all((0..20).map(|connection| async move {
        let mut wire = Wire::open_from("127.0.0.2", address).await;
        let mut limited = 0;
        for number in 0..500 {
            let target = format!("/v2/app/manifests/flood-{connection}-{number}");
            wire.send(format!("GET {target} HTTP/1.1\r\nHost: mirror\r\n\r\n")).await;
            let answer = wire.answer().await;
            match answer.status {
                404 => {}
                429 => {
                    limited += 1;
                    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
                    assert!((1..=60).contains(&wait), "{wait}");
                    assert_eq!(
                        (answer.code().as_str(), answer.detail("reason").as_str()),
                        ("TOOMANYREQUESTS", "client_limit")
                    );
                }
                other => panic!("{other}: {answer:?}"),
            }
        }
        limited
    }));
    let others = async {
        let mut served = 0;
        for tag in 0..40 {
            let answer = get_from("127.0.0.3", address, &format!("/v2/other/manifests/new-{tag}")).await;
            assert_eq!(answer.status, 404, "{answer:?}");
            served += usize::from(get_from("127.0.0.3", address, "/v2/other/manifests/1").await.status == 200);
        }
        served
    };
    let (limited, served) = tokio::join!(flood, others);
    let limited: usize = limited.into_iter().sum();
    // While the flood ran, time bought it some more than its minute.
    assert!((9000..=9701).contains(&limited), "{limited}");
    assert_eq!(served, 40);
    assert!(registry.count("HEAD", "*/manifests/flood-*") <= 10_000 - limited, "what was refused cost no request");
    assert!(overloads(&mirror, "client_rate") >= 9000.0);
    // What is cached is not counted, not even now.
    assert_eq!(get_from("127.0.0.2", address, "/v2/app/manifests/1").await.status, 200);
    mirror.stop().await;
}

#[tokio::test]
async fn the_bound_on_new_things_holds_on_both_sides_and_stops_clients_as_any_refusal_does() {
    let registry = FakeRegistry::start().await;
    let rules = ColdRules { pulls_per_minute: 2, ..ColdRules::default() };
    let mirror = bounded(&registry, rules).start().await;
    for (tag, status) in [("a", 404), ("b", 404), ("c", 429)] {
        assert_eq!(mirror.get(&format!("/v2/app/manifests/{tag}")).await.status, status, "{tag}");
    }
    // What is known to be missing costs nothing.
    assert_eq!(mirror.get("/v2/app/manifests/a").await.status, 404);
    let docker = mirror.request("HEAD", "/v2/app/manifests/d", &[("user-agent", "docker/27.0")]).await;
    assert!(docker.status == 503 && docker.reason.ends_with("[no such process]"), "{docker:?}");
    let containerd = mirror.request("GET", "/v2/app/manifests/d", &[("user-agent", "containerd/2.0")]).await;
    assert_eq!(containerd.status, 403);
    assert_eq!(mirror.get("/v2/app/tags/list").await.status, 429, "lists are work, too");
    assert_eq!(mirror.get("/v2/").await.status, 200);
    mirror.stop().await;
}

#[tokio::test]
async fn the_configuration_says_how_much_that_is_new_a_client_may_ask_for() {
    for (bound, last) in [(2, 429), (3, 404), (0, 404)] {
        let registry = FakeRegistry::start().await;
        let setup = Setup::new(ACCEPT_ANYTHING).upstream("docker.io", registry.url());
        let mirror = setup.set("server.cold_pulls_per_minute", bound).start().await;
        for (tag, status) in [("a", 404), ("b", 404), ("c", last)] {
            assert_eq!(mirror.get(&format!("/v2/app/manifests/{tag}")).await.status, status, "{bound} {tag}");
        }
        mirror.stop().await;
    }
}

/// One client's cold pulls hang; another's go on.
#[tokio::test]
async fn a_clients_slow_pulls_leave_places_for_others_and_its_own_wait_ends() {
    let registry = FakeRegistry::start().await;
    registry.put("library/app", "1", &ImageBuilder::new(1).layer(1000).build());
    registry.fault(Fault::on("*/manifests/slow-*").hang());
    let rules = ColdRules {
        of_client: 4,
        waiting_of_one: 4,
        queue: Duration::from_millis(300),
        pulls_per_minute: 0,
        ..ColdRules::default()
    };
    let mirror = bounded(&registry, rules).start().await;
    let address = mirror.address();
    let slow: Vec<_> = (0..12)
        .map(|number| {
            tokio::spawn(
                async move { get_from("127.0.0.2", address, &format!("/v2/app/manifests/slow-{number}")).await },
            )
        })
        .collect();
    until("four are asked for, four wait, four are refused", || overloads(&mirror, "cold_work") >= 4.0).await;
    until("the four have reached upstream", || registry.count("HEAD", "*/manifests/slow-*") == 4).await;
    assert_eq!(get_from("127.0.0.3", address, "/v2/app/manifests/1").await.status, 200);
    until("those that waited are refused", || overloads(&mirror, "cold_work") >= 8.0).await;
    let mut statuses = Vec::new();
    for pull in slow {
        let answer = pull.await.unwrap();
        if answer.status == 503 {
            assert_eq!((answer.header("retry-after"), answer.detail("reason").as_str()), (Some("1"), "overloaded"));
        }
        statuses.push(answer.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [503, 503, 503, 503, 503, 503, 503, 503, 504, 504, 504, 504]);
    mirror.stop().await;
}

/// A client that leaves takes its place in the queue along, and leaves what it has begun to others.
#[tokio::test]
async fn who_leaves_the_queue_costs_nothing_and_what_it_began_keeps_its_place() {
    let registry = FakeRegistry::start().await;
    registry.put("library/app", "1", &ImageBuilder::new(1).layer(1000).build());
    registry.fault(Fault::on("*/manifests/slow").delay(Duration::from_millis(800)));
    let rules = ColdRules { of_client: 1, pulls_per_minute: 0, ..ColdRules::default() };
    let mirror = bounded(&registry, rules).start().await;
    let address = mirror.address();
    let leave = async |target: &str| {
        let mut wire = Wire::open_from("127.0.0.2", address).await;
        wire.send(format!("GET {target} HTTP/1.1\r\nHost: mirror\r\n\r\n")).await;
        wire
    };
    let first = leave("/v2/app/manifests/slow").await;
    until("it is asked for", || registry.count("HEAD", "*/manifests/slow") == 1).await;
    drop(first);
    let queued = leave("/v2/app/manifests/never").await;
    until("both requests are there", || {
        mirror.metric("sealgate_http_requests_in_flight{route=\"manifest\"}") >= Some(1.0)
    })
    .await;
    drop(queued);
    // It waits for the run that nobody waits for any more, and for nothing else.
    assert_eq!(get_from("127.0.0.2", address, "/v2/app/manifests/1").await.status, 200);
    assert_eq!(registry.count("HEAD", "*/manifests/never"), 0);
    mirror.stop().await;
}

#[tokio::test]
async fn one_clients_transfers_are_bounded_and_those_that_wait_get_their_turn() {
    let registry = FakeRegistry::start().await;
    let image = (0..6).fold(ImageBuilder::new(1), |image, _| image.layer(200_000)).build();
    registry.put("library/app", "1", &image);
    let rules = ColdRules { transfers_of_client: 2, ..ColdRules::default() };
    let mirror = bounded(&registry, rules).start().await;
    let address = mirror.address();
    assert_eq!(mirror.get("/v2/app/manifests/1").await.status, 200);
    until("the manifest is written", || mirror.metric("sealgate_cache_entries") == Some(1.0)).await;
    registry.fault(Fault::on("*/blobs/*").get().drip(20_000, Duration::from_millis(10)));
    let most = std::cell::Cell::new(0_usize);
    let pulls = join_all(image.blobs.iter().map(|blob| async {
        let answer = get_from("127.0.0.2", address, &format!("/v2/app/blobs/{}", blob.digest)).await;
        assert!(answer.status == 200 && answer.body == blob.bytes, "{}", answer.status);
    }));
    let watching = async {
        loop {
            // What is whole is named so, and waits for the disk alone.
            let staged = std::fs::read_dir(mirror.dir().join("data/staging")).unwrap();
            let names = staged.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            most.set(most.get().max(names.filter(|name| !name.contains(".sha256-")).count()));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    // Losing the watcher is the point.
    tokio::select! { _ = pulls => {}, () = watching => {} }
    assert_eq!(most.get(), 2);
    mirror.stop().await;
}

/// A place among its transfers is a client's while the transfer runs: neither longer, behind a reader that is slow, nor shorter,
/// by leaving and coming again.
#[tokio::test]
async fn a_place_among_a_clients_transfers_lasts_as_long_as_the_transfer() {
    let registry = FakeRegistry::start().await;
    let big = 16 << 20;
    let image = ImageBuilder::new(1).layer(big).layer(200_000).layer(200_001).build();
    registry.put("library/app", "1", &image);
    let rules = ColdRules { transfers_of_client: 1, ..ColdRules::default() };
    let mirror = bounded(&registry, rules).start().await;
    let address = mirror.address();
    assert_eq!(mirror.get("/v2/app/manifests/1").await.status, 200);
    let path = |index: usize| format!("/v2/app/blobs/{}", image.blobs[index].digest);
    let fills = || mirror.metric("sealgate_cache_fills_total{outcome=\"committed\"}").unwrap();
    let mut slow = Wire::open_from("127.0.0.2", address).await;
    slow.send(format!("GET {} HTTP/1.1\r\nHost: mirror\r\n\r\n", path(1))).await;
    until("the transfer has ended, and nobody has read it", || fills() >= 1.0).await;
    assert_eq!(get_from("127.0.0.2", address, &path(2)).await.status, 200);
    drop(slow);
    until("nothing is under way", || mirror.metric("sealgate_cache_fills_in_flight") == Some(0.0)).await;
    // Who leaves a transfer that goes on has begun it all the same.
    registry.fault(Fault::on("*/blobs/*").get().times(1).drip(100_000, Duration::from_millis(400)));
    let mut left = Wire::open_from("127.0.0.2", address).await;
    left.send(format!("GET {} HTTP/1.1\r\nHost: mirror\r\n\r\n", path(3))).await;
    let running = || mirror.metric("sealgate_cache_fills_in_flight").unwrap();
    until("it is under way", || running() >= 1.0).await;
    drop(left);
    assert_eq!(get_from("127.0.0.2", address, &path(0)).await.status, 200);
    until("it came after the other", || fills() >= 4.0).await;
    mirror.stop().await;
}

/// HEAD of a blob that is not here asks upstream, as everything cold does in turn.
#[tokio::test]
async fn head_of_a_blob_that_is_not_here_waits_for_a_place_among_the_cold_work() {
    let registry = FakeRegistry::start().await;
    let image = ImageBuilder::new(1).layer(1000).build();
    registry.put("library/app", "1", &image);
    let rules = ColdRules { of_client: 1, queue: Duration::from_millis(100), ..ColdRules::default() };
    let mirror = bounded(&registry, rules).start().await;
    let address = mirror.address();
    assert_eq!(mirror.get("/v2/app/manifests/1").await.status, 200);
    registry.fault(Fault::on("*/manifests/never").hang());
    let mut busy = Wire::open_from("127.0.0.2", address).await;
    busy.send("GET /v2/app/manifests/never HTTP/1.1\r\nHost: mirror\r\n\r\n").await;
    until("its place is taken", || registry.count("HEAD", "*/manifests/never") == 1).await;
    let head = async |from: &str| {
        let mut wire = Wire::open_from(from, address).await;
        let target = format!("/v2/app/blobs/{}", image.blobs[1].digest);
        wire.send(format!("HEAD {target} HTTP/1.1\r\nHost: mirror\r\nConnection: close\r\n\r\n")).await;
        wire.head().await.status
    };
    assert_eq!(head("127.0.0.2").await, 503);
    assert_eq!(registry.count("HEAD", "*/blobs/*"), 0);
    assert_eq!(head("127.0.0.3").await, 200);
    mirror.stop().await;
}

/// Every request of one client that is in flight counts, and no other client's.
#[tokio::test]
async fn one_clients_requests_in_flight_are_bounded() {
    let registry = FakeRegistry::start().await;
    registry.fault(Fault::on("*/manifests/slow-*").hang());
    let mirror = Setup::new(ACCEPT_ANYTHING)
        .upstream("docker.io", registry.url())
        .adjust(|loaded| loaded.config.registry.caps.requests_per_address = 2)
        .start()
        .await;
    let address = mirror.address();
    let mut held = Vec::new();
    for number in 0..2 {
        let mut wire = Wire::open_from("127.0.0.2", address).await;
        wire.send(format!("GET /v2/app/manifests/slow-{number} HTTP/1.1\r\nHost: mirror\r\n\r\n")).await;
        held.push(wire);
    }
    until("both are asked for", || registry.count("HEAD", "*/manifests/slow-*") == 2).await;
    let third = get_from("127.0.0.2", address, "/v2/").await;
    assert_eq!(
        (third.status, third.detail("reason").as_str(), third.header("retry-after")),
        (429, "client_limit", Some("1"))
    );
    assert_eq!(get_from("127.0.0.3", address, "/v2/").await.status, 200);
    drop(held);
    until("their places are given back", || {
        mirror.metric("sealgate_http_requests_in_flight{route=\"manifest\"}") == Some(0.0)
    })
    .await;
    assert_eq!(get_from("127.0.0.2", address, "/v2/").await.status, 200);
    mirror.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r_08_three_hundred_slow_upstreams_do_not_delay_another() {
    let (slow, quick) = (FakeRegistry::start().await, FakeRegistry::start().await);
    slow.fault(Fault::on("*").hang());
    let image = ImageBuilder::new(1).layer(100_000).build();
    for tag in 0..20 {
        quick.put("library/app", &format!("{tag}"), &image);
    }
    let setup = (0..300).fold(Setup::new(ACCEPT_ANYTHING).upstream("docker.io", quick.url()), |setup, number| {
        setup.upstream(&format!("slow-{number}.test"), slow.url())
    });
    let mirror = setup.start().await;
    let address = mirror.address();
    let hanging: Vec<_> = (0..600)
        .map(|number| {
            let target = format!("/v2/slow-{}.test/team/app/manifests/{number}", number % 300);
            let from = format!("127.0.1.{}", number % 10);
            tokio::spawn(async move { get_from(&from, address, &target).await.status })
        })
        .collect();
    until("all slow ones are asked", || slow.count("HEAD", "*") >= 600).await;
    // Twenty pulls one after another, each of which would take ten seconds behind a slow one.
    let pulls = async {
        for tag in 0..20 {
            let answer = get_from("127.0.0.2", address, &format!("/v2/app/manifests/{tag}")).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        for blob in &image.blobs {
            assert_eq!(
                get_from("127.0.0.2", address, &format!("/v2/app/blobs/{}", blob.digest)).await.body,
                blob.bytes
            );
        }
    };
    pulls.await;
    assert!(hanging.iter().all(|pull| !pull.is_finished()), "the slow ones were slow all the time");
    for pull in hanging {
        pull.abort();
    }
    slow.heal();
    slow.go_down();
    mirror.stop().await;
}

/// Verdicts wait for few threads; what is cached does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r_02_cached_pulls_are_answered_while_expensive_verifications_run() {
    let registry = FakeRegistry::start().await;
    let sigstore = FakeSigstore::from_seed(5, sealgate::clock::Clock::System.now());
    let (key, other) = (sigstore.key("team"), sigstore.key("other"));
    let image = |seed: u64| ImageBuilder::new(seed).layer(100).build();
    let sign = |tag: &str, seed: u64, bad: usize| {
        let image = image(seed);
        registry.put("acme/app", tag, &image);
        let by = |key| sigstore.sign_unlogged(key, "docker.io/acme/app", &image.digest(), Flaw::None);
        let mut signatures: Vec<_> = (0..bad).map(|_| by(&other)).collect();
        signatures.push(by(&key));
        attach_signatures(&registry, "acme/app", &image.digest(), &signatures);
    };
    sign("warm", 1, 0);
    for number in 0..64 {
        sign(&format!("cold-{number}"), 100 + number, 6);
    }
    let requirement = key_requirement(&key);
    let policy = json!({"default": [{"type": "reject"}], "transports": {"docker": {"docker.io": [requirement]}}});
    let mirror = Setup::new(&policy.to_string()).upstream("docker.io", registry.url()).start().await;
    let address = mirror.address();
    assert_eq!(mirror.get("/v2/acme/app/manifests/warm").await.status, 200);
    let cold: Vec<_> = (0..64)
        .map(|number| {
            tokio::spawn(async move {
                get_from("127.0.0.2", address, &format!("/v2/acme/app/manifests/cold-{number}")).await
            })
        })
        .collect();
    let mut served = 0;
    while cold.iter().any(|pull| !pull.is_finished()) {
        assert_eq!(get_from("127.0.0.3", address, "/v2/acme/app/manifests/warm").await.status, 200);
        served += 1;
    }
    for pull in cold {
        let answer = pull.await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    // How many depends on the machine; one after the other they were answered while the cold ones were not.
    assert!(served > 5, "{served} were served meanwhile");
    mirror.stop().await;
}

/// Five hundred clients ask for manifests of four MiB and read nothing. What is kept for them is bounded; they are told to come
/// again, and small manifests are served meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r_01_large_manifests_that_nobody_reads_are_bounded_in_memory() {
    const LARGE: usize = 4 << 20;
    let registry = FakeRegistry::start().await;
    let small = ImageBuilder::new(1).layer(1000).build();
    registry.put("library/app", "small", &small);
    let padded = |number: u64| {
        let build = |padding: usize| {
            ImageBuilder::new(100 + number).layer(10).annotation("padding", &"x".repeat(padding)).build()
        };
        let rest = LARGE - build(0).manifest.bytes.len();
        build(rest)
    };
    for number in 0..4 {
        let image = padded(number);
        assert_eq!(image.manifest.bytes.len(), LARGE);
        registry.put("library/app", &format!("large-{number}"), &image);
    }
    let mirror = Setup::new(ACCEPT_ANYTHING)
        .upstream("docker.io", registry.url())
        .adjust(|loaded| loaded.config.registry.caps.manifest_bytes = 40 << 20)
        .start()
        .await;
    let address = mirror.address();
    let asked = join_all((0..500).map(|number| async move {
        let mut wire = Wire::open_from(&format!("127.0.1.{}", number % 5), address).await;
        let target = format!("/v2/app/manifests/large-{}", number % 4);
        wire.send(format!("GET {target} HTTP/1.1\r\nHost: mirror\r\nConnection: close\r\n\r\n")).await;
        (wire.head().await.status, wire)
    }))
    .await;
    let served = asked.iter().filter(|(status, _)| *status == 200).count();
    let refused = asked.iter().filter(|(status, _)| *status == 503).count();
    // Ten of four MiB are forty; the system's socket buffers may take in one or the other whole, which makes room for another.
    assert!((10..=20).contains(&served) && served + refused == 500, "{served} served, {refused} refused");
    assert!(overloads(&mirror, "manifest_bytes") >= 480.0);
    let answer = get_from("127.0.0.2", address, "/v2/app/manifests/small").await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, &small.manifest.bytes[..]));
    assert_eq!(mirror.head("/v2/app/manifests/large-0").await.status, 200, "a HEAD keeps nothing");
    drop(asked);
    until("the room is given back", || {
        mirror.metric("sealgate_http_requests_in_flight{route=\"manifest\"}") == Some(0.0)
    })
    .await;
    let large = get_from("127.0.0.2", address, "/v2/app/manifests/large-0").await;
    assert_eq!((large.status, large.body.len()), (200, LARGE));
    mirror.stop().await;
}

#[tokio::test]
async fn artefacts_of_an_upstream_that_hangs_delay_those_of_no_other() {
    let sigstore = FakeSigstore::from_seed(1, sealgate::clock::Clock::System.now());
    let (slow, other) = (FakeRegistry::start().await, FakeRegistry::start().await);
    let mirror =
        Setup::new(ACCEPT_ANYTHING).upstream("docker.io", slow.url()).upstream("quay.io", other.url()).start().await;
    let signed = |registry: &FakeRegistry, number: u64| {
        let image = ImageBuilder::new(number).layer(10).build();
        registry.put("team/app", &format!("t{number}"), &image);
        crate::reliability::sign(registry, &sigstore, &format!("t{number}"), &image);
        format!("team/app/manifests/sha256-{}.sig", image.digest().hex())
    };
    let paths: Vec<String> = (0..12).map(|number| format!("/v2/docker.io/{}", signed(&slow, number))).collect();
    let path = format!("/v2/quay.io/{}", signed(&other, 99));
    slow.fault(Fault::on("*/blobs/*").hang());
    let address = mirror.address();
    let mut waiting = Vec::new();
    for path in paths {
        let mut wire = Wire::open_from("127.0.0.2", address).await;
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: mirror\r\n\r\n")).await;
        waiting.push(wire);
    }
    until("as many hang as may", || slow.count("GET", "*/blobs/*") >= 8).await;
    let answer = tokio::time::timeout(Duration::from_secs(8), get_from("127.0.0.3", address, &path)).await;
    assert_eq!(answer.expect("it waits for no other upstream").status, 200);
    drop(waiting);
    mirror.stop().await;
}
