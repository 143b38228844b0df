//! What happens to the process: signals, panics, reloads under load, no descriptors left, a log that nobody reads.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sealgate::net::Lookup;
use sealgate::testing::http::try_send;
use sealgate::testing::{ACCEPT_ANYTHING, FakeRegistry, Fault, ImageBuilder, REJECT, Setup};

use crate::parts::{Mirror, Rig};
use crate::program::{Place, Serving};
use crate::wire::{PATIENCE, Wire, get};

/// A directory for a mirror of `docker.io` on any ports.
fn place(policy: &str, registry: &FakeRegistry) -> Place {
    let place = Place::with_policy(policy);
    place.write(
        "config/sealgate.toml",
        &format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n\
             [policy]\ncontainers_policy = \"policy.json\"\n[cache]\nmin_free_bytes = \"0\"\n\
             [[upstream]]\nhost = \"docker.io\"\nendpoint = \"{}\"\ndefault = true\n",
            registry.url().trim_end_matches('/')
        ),
    );
    place
}

/// An address that the text names after `what`.
fn address_in(text: &str, what: &str) -> SocketAddr {
    let line = &text[text.find(what).unwrap_or_else(|| panic!("no {what}: {text}"))..];
    let rest = &line[line.find("http://").unwrap() + "http://".len()..];
    let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':')).unwrap_or(rest.len());
    rest[..end].parse().unwrap()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f_04_on_sigterm_a_hundred_transfers_end_whole_and_nobody_else_gets_in() {
    let registry = FakeRegistry::start().await;
    let image = (0..100).fold(ImageBuilder::new(1), |image, _| image.layer(120_000)).build();
    registry.put("library/app", "1", &image);
    let place = place(ACCEPT_ANYTHING, &registry);
    let serving = Serving::start(&place, &["serve"]);
    let (address, admin) = (address_in(&serving.banner, "registry"), address_in(&serving.banner, "admin"));
    assert_eq!(get(address, "/v2/app/manifests/1", "").await.status, 200);
    // Each takes two seconds, the first half of it before the signal.
    registry.fault(Fault::on("*/blobs/*").get().drip(6_000, Duration::from_millis(100)));
    let layers = &image.blobs[1..];
    let clients: Vec<_> = layers
        .iter()
        .enumerate()
        .map(|(number, blob)| {
            let (from, target) = (format!("127.0.1.{}", number / 10 + 1), format!("/v2/app/blobs/{}", blob.digest));
            tokio::spawn(async move {
                let mut wire = Wire::open_from(&from, address).await;
                wire.send(format!("GET {target} HTTP/1.1\r\nHost: mirror\r\n\r\n")).await;
                wire.answer().await
            })
        })
        .collect();
    until("transfers run, and others wait for their turn", async || registry.count("GET", "*/blobs/*") >= 20).await;
    serving.signal("-TERM");
    let signalled = Instant::now();
    until("nobody gets in", async || tokio::net::TcpStream::connect(address).await.is_err()).await;
    assert!(signalled.elapsed() < Duration::from_secs(1), "{:?}", signalled.elapsed());
    let ready = try_send(admin, "GET", "/readyz", &[]).await.unwrap();
    assert_eq!((ready.status, ready.json()["draining"].as_bool()), (503, Some(true)));
    let mut whole = 0;
    for (client, blob) in clients.into_iter().zip(layers) {
        let answer = client.await.unwrap();
        assert!(answer.status == 200 && answer.body == blob.bytes, "{}", answer.status);
        whole += 1;
    }
    assert_eq!(whole, 100);
    let ran = serving.end();
    assert_eq!(ran.status, 0, "{ran}");
    assert!(ran.stderr.contains("drained"), "{ran}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f_04_a_second_signal_ends_at_once() {
    let registry = FakeRegistry::start().await;
    let image = ImageBuilder::new(1).layer(2 << 20).build();
    registry.put("library/app", "1", &image);
    let place = place(ACCEPT_ANYTHING, &registry);
    let serving = Serving::start(&place, &["serve"]);
    let address = address_in(&serving.banner, "registry");
    assert_eq!(get(address, "/v2/app/manifests/1", "").await.status, 200);
    registry.fault(Fault::on("*/blobs/*").get().hang_after(1 << 20));
    let mut stuck = Wire::open(address).await;
    stuck.send(format!("GET /v2/app/blobs/{} HTTP/1.1\r\nHost: mirror\r\n\r\n", image.blobs[1].digest)).await;
    assert_eq!(stuck.head().await.status, 200);
    serving.signal("-TERM");
    until("it drains", async || tokio::net::TcpStream::connect(address).await.is_err()).await;
    serving.signal("-TERM");
    let signalled = Instant::now();
    let ran = tokio::task::spawn_blocking(move || serving.end()).await.unwrap();
    assert!(signalled.elapsed() < Duration::from_secs(10), "less than a drain: {:?}", signalled.elapsed());
    assert_eq!(ran.status, 0, "{ran}");
    assert!(stuck.rest().await.len() < 2 << 20, "it was cut");
}

/// A mirror whose way to its upstream panics while the switch is on.
async fn panicking(policy: &str) -> (Mirror, Arc<AtomicBool>) {
    let panics = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&panics);
    let answer = move |_: &str| -> Vec<IpAddr> {
        assert!(!switch.load(Ordering::SeqCst), "a bug, as the test wants");
        vec!["127.0.0.1".parse().unwrap()]
    };
    let rig = Rig {
        endpoint: Some("http://upstream.localhost:{port}".to_owned()),
        lookup: Lookup::Scripted(Arc::new(answer)),
        ..Rig::default()
    };
    let mirror = Mirror::rigged(policy, rig, |_| {}).await;
    (mirror, panics)
}

#[tokio::test]
async fn f_06_when_the_work_that_many_wait_for_panics_they_are_told_to_come_again_and_the_next_succeeds() {
    let (mirror, panics) = panicking(ACCEPT_ANYTHING).await;
    let image = ImageBuilder::new(1).layer(1000).build();
    mirror.upstream.put("library/app", "1", &image);
    let all = join_all((0..10).map(|_| get(mirror.address, "/v2/app/manifests/1", ""))).await;
    for answer in &all {
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")), "{answer:?}");
        assert_eq!(answer.detail("reason"), "verification_unavailable");
    }
    assert!(mirror.metric("sealgate_panics_total") >= 1);
    panics.store(false, Ordering::SeqCst);
    let answer = get(mirror.address, "/v2/app/manifests/1", "").await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, &image.manifest.bytes[..]));
    mirror.stop().await;
}

#[tokio::test]
async fn f_11_a_panic_in_a_handler_fails_its_request_alone() {
    let (mirror, panics) = panicking(ACCEPT_ANYTHING).await;
    mirror.upstream.put("library/app", "1", &ImageBuilder::new(1).layer(1000).build());
    let mut wire = Wire::open(mirror.address).await;
    let request = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: mirror\r\n\r\n");
    // Tag lists are fetched by the request itself.
    wire.send(request("/v2/app/tags/list")).await;
    let broken = wire.answer().await;
    assert_eq!((broken.status, broken.detail("reason").as_str()), (500, "internal"), "{broken:?}");
    assert_eq!(mirror.metric("sealgate_panics_total"), 1);
    wire.send(request("/v2/")).await;
    assert_eq!(wire.answer().await.status, 200, "the connection goes on, too");
    panics.store(false, Ordering::SeqCst);
    wire.send(request("/v2/app/tags/list")).await;
    assert_eq!(wire.answer().await.status, 200);
    drop(wire);
    let stopped = mirror.stop().await;
    assert_eq!(stopped.metric(r#"sealgate_http_requests_in_flight{route="tags"}"#), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f_09_while_the_policy_flips_each_answer_is_by_one_policy_and_the_last_one_stays() {
    let registry = FakeRegistry::start().await;
    let image = ImageBuilder::new(1).layer(1000).build();
    registry.put("library/app", "1", &image);
    let mirror = Setup::new(ACCEPT_ANYTHING).upstream("docker.io", registry.url()).start().await;
    let (address, done) = (mirror.address(), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (done, bytes) = (Arc::clone(&done), image.manifest.bytes.clone());
            tokio::spawn(async move {
                let (mut wire, mut seen) = (Wire::open(address).await, [0, 0]);
                while !done.load(Ordering::SeqCst) {
                    wire.send("GET /v2/app/manifests/1 HTTP/1.1\r\nHost: mirror\r\n\r\n").await;
                    let answer = wire.answer().await;
                    let verdict = answer.header("sealgate-verdict").unwrap_or_default();
                    match answer.status {
                        200 => assert!(verdict.starts_with("allow") && answer.body == bytes, "{answer:?}"),
                        403 => assert!(verdict.starts_with("deny") && answer.code() == "DENIED", "{answer:?}"),
                        other => panic!("{other}: {answer:?}"),
                    }
                    seen[usize::from(answer.status == 403)] += 1;
                }
                seen
            })
        })
        .collect();
    for number in 0..100 {
        mirror.write_policy(if number % 2 == 0 { REJECT } else { ACCEPT_ANYTHING });
        mirror.reload().await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    mirror.write_policy(REJECT);
    mirror.reload().await.unwrap();
    for _ in 0..50 {
        assert_eq!(mirror.get("/v2/app/manifests/1").await.status, 403, "an answer by the old policy");
    }
    done.store(true, Ordering::SeqCst);
    let seen: Vec<[usize; 2]> = join_all(clients).await.into_iter().map(Result::unwrap).collect();
    assert!(seen.iter().any(|[served, _]| *served > 0) && seen.iter().any(|[_, refused]| *refused > 0), "{seen:?}");
    mirror.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f_12_a_log_that_nobody_reads_holds_nothing_up_and_what_is_dropped_is_counted() {
    let registry = FakeRegistry::start().await;
    registry.put("library/app", "1", &ImageBuilder::new(1).layer(1000).build());
    let place = place(REJECT, &registry);
    // Nobody reads standard error, which is a pipe of 64 KiB.
    let mut serving = Serving::start(&place, &["serve"]);
    let (address, admin) = (address_in(&serving.banner, "registry"), address_in(&serving.banner, "admin"));
    let clients = join_all((0..4).map(|_| async {
        let mut wire = Wire::open(address).await;
        for _ in 0..2500 {
            wire.send("GET /v2/app/manifests/1 HTTP/1.1\r\nHost: mirror\r\n\r\n").await;
            assert_eq!(wire.answer().await.status, 403);
        }
    }));
    clients.await;
    let dropped = async || {
        let metrics = try_send(admin, "GET", "/metrics", &[]).await.unwrap().text();
        let count = metrics.lines().find_map(|line| line.strip_prefix("sealgate_log_dropped_total ")).unwrap();
        count.parse::<u64>().unwrap()
    };
    assert!(dropped().await > 1000, "{}", dropped().await);
    // Whoever reads again is told.
    let mut log = serving.child.stderr.take().unwrap();
    let reading = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        log.read_to_string(&mut text).unwrap();
        text
    });
    until("there is room for a line", async || {
        let before = dropped().await;
        assert_eq!(get(address, "/v2/app/manifests/1", "").await.status, 403);
        dropped().await == before
    })
    .await;
    serving.signal("-TERM");
    let text = reading.await.unwrap();
    assert!(text.contains("log lines were lost") && text.contains("drained"), "{}", text.len());
    assert_eq!(serving.child.wait().unwrap().code(), Some(0));
}

#[tokio::test]
async fn f_12_with_standard_output_closed_it_serves() {
    let registry = FakeRegistry::start().await;
    let place = place(ACCEPT_ANYTHING, &registry);
    let config = std::fs::read_to_string(place.path().join("config/sealgate.toml")).unwrap();
    place.write("config/sealgate.toml", &format!("{config}[log]\nformat = \"json\"\n"));
    let mut child = place.command(&["serve"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("\"started\"") {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "it has ended");
    }
    assert_eq!(get(address_in(&line, "registry"), "/v2/", "").await.status, 200);
    let ended = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(ended.success());
    log.read_to_string(&mut line).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r_05_without_descriptors_accepting_pauses_and_goes_on_when_there_are_some() {
    let registry = FakeRegistry::start().await;
    let image = ImageBuilder::new(1).layer(1000).build();
    registry.put("library/app", "1", &image);
    let place = place(ACCEPT_ANYTHING, &registry);
    let mut command = Command::new("sh");
    let run = format!("ulimit -n 128; exec {} serve", env!("CARGO_BIN_EXE_sealgate"));
    command.args(["-c", &run]).current_dir(place.path()).stdin(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut banner = String::new();
    while !banner.contains("next:") {
        assert_ne!(stdout.read_line(&mut banner).unwrap(), 0, "{banner}");
    }
    let serving = Serving { child, banner, stdout };
    let (address, admin) = (address_in(&serving.banner, "registry"), address_in(&serving.banner, "admin"));
    assert_eq!(get(address, "/v2/app/manifests/1", "").await.status, 200);
    // The kernel completes connections that the mirror cannot accept.
    let held = join_all((0..200).map(|_| Wire::open(address))).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    drop(held);
    until("it accepts again", async || {
        let asked = tokio::time::timeout(Duration::from_secs(5), try_send(address, "GET", "/v2/", &[])).await;
        matches!(asked, Ok(Some(answer)) if answer.status == 200)
    })
    .await;
    let pulled = get(address, &format!("/v2/app/blobs/{}", image.blobs[1].digest), "").await;
    assert_eq!((pulled.status, pulled.body.as_slice()), (200, &image.blobs[1].bytes[..]));
    assert_eq!(try_send(admin, "GET", "/readyz", &[]).await.unwrap().status, 200);
    serving.signal("-TERM");
    let ran = tokio::task::spawn_blocking(move || serving.end()).await.unwrap();
    assert_eq!(ran.status, 0, "{ran}");
    let failures = ran.stderr.matches("cannot accept connections").count();
    assert!((1..200).contains(&failures), "{failures}: it pauses and does not spin");
}
