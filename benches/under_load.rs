//! What cached pulls feel of cold verdicts: p99 of GETs of a cached manifest, idle and while new images are verified at a rate.
//!
//! `cargo bench --bench under_load`. The mirror, its upstream and the clients run in one process, on the same cores, so that the
//! clients and the upstream make the numbers worse, never better. `RATE` (cold verdicts a second, 200), `SECONDS` (10) and `CLIENTS`
//! (4) can be set in the environment. What was measured is in `docs/performance.md`.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark that cannot do its work has nothing to say")]
#![expect(clippy::disallowed_methods, reason = "it measures, and its tasks end with it")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sealgate::clock::Clock;
use sealgate::testing::sigstore::{FakeSigstore, Identity};
use sealgate::testing::{FakeRegistry, ImageBuilder, Setup, TestSealgate, attach_bundles};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const EMAIL: &str = "dev@corp.com";
const ISSUER: &str = "https://accounts.example.com";

fn main() {
    let (rate, seconds, clients) = (setting("RATE", 200), setting("SECONDS", 10), setting("CLIENTS", 4));
    // The mirror's runtime has as many threads as the machine has cores, as it has in `serve`.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (registry, mirror) = prepare(rate * seconds).await;
        let length = Duration::from_secs(seconds.try_into().unwrap());
        // Once through, so that nothing is measured that happens once.
        measure(&mirror, clients, Duration::from_secs(1)).await;
        let idle = measure(&mirror, clients, length).await;
        let (loaded, verdicts) = tokio::join!(measure(&mirror, clients, length), verify(&mirror, rate, rate * seconds));
        let again = measure(&mirror, clients, length).await;
        report("idle", &idle);
        report("loaded", &loaded);
        report("idle again", &again);
        let (ratio, rate) = (p99(&loaded).as_secs_f64() / p99(&idle).as_secs_f64(), verdicts.per_second);
        println!("p99 loaded / idle: {ratio:.2}; verdicts per second: {rate:.0} ({} refused or late)", verdicts.failed);
        drop(registry);
        mirror.stop().await;
    });
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// A mirror in front of that many images with a keyless signature each, and one that is cached.
async fn prepare(images: usize) -> (FakeRegistry, TestSealgate) {
    let registry = FakeRegistry::start().await;
    let sigstore = FakeSigstore::from_seed(1, Clock::System.now());
    let identity = Identity::email(EMAIL, ISSUER);
    for number in 0..=images {
        let image = ImageBuilder::new(number.try_into().unwrap()).layer(64).build();
        registry.put(&repository(number), "1", &image);
        let bundle = sigstore.bundle_by(&identity, &image.digest()).build();
        attach_bundles(&registry, &repository(number), &image.manifest, &[bundle]);
    }
    let policy = json!({
        "apiVersion": "policy.sigstore.dev/v1beta1",
        "kind": "ClusterImagePolicy",
        "metadata": { "name": "signed" },
        "spec": {
            "images": [{ "glob": "**" }],
            "authorities": [{
                "keyless": { "url": "https://rekor.sigstore.dev", "identities": [{ "issuer": ISSUER, "subject": EMAIL }] },
                "ctlog": { "url": "https://rekor.sigstore.dev" },
                "signatureFormat": "bundle",
            }],
        },
    });
    let mirror = Setup::new(r#"{"default": [{"type": "insecureAcceptAnything"}]}"#)
        .file("signed.yaml", policy.to_string())
        .file("root.json", sigstore.trusted_root_json())
        .set("policy.trusted_root", "root.json")
        .set("policy.cluster_image_policies", vec![toml::Value::from("signed.yaml")])
        .set("server.cold_pulls_per_minute", 0)
        .upstream("docker.io", registry.url())
        .start()
        .await;
    let warm = mirror.get(&path(0)).await;
    assert_eq!(warm.status, 200, "{}", warm.text());
    (registry, mirror)
}

/// Each image has one of its own: the fake registry looks through all of a repository for what refers to an image.
fn repository(number: usize) -> String {
    format!("acme/app-{number}")
}

fn path(number: usize) -> String {
    format!("/v2/{}/manifests/1", repository(number))
}

/// Latencies of a cached manifest's GETs, one after another on each of `clients` connections, paced so that they are no load themselves.
async fn measure(mirror: &TestSealgate, clients: usize, length: Duration) -> Vec<Duration> {
    let (address, done) = (mirror.address(), Arc::new(AtomicBool::new(false)));
    let running: Vec<_> = (0..clients)
        .map(|_| {
            let done = Arc::clone(&done);
            tokio::spawn(async move {
                let (mut connection, mut took) = (Connection::open(address).await, Vec::new());
                while !done.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    assert_eq!(connection.get(&path(0)).await, 200);
                    took.push(began.elapsed());
                    tokio::time::sleep(PAUSE).await;
                }
                took
            })
        })
        .collect();
    tokio::time::sleep(length).await;
    done.store(true, Ordering::Relaxed);
    let mut took = Vec::new();
    for client in running {
        took.extend(client.await.unwrap());
    }
    took.sort_unstable();
    took
}

struct Verdicts {
    per_second: f64,
    failed: usize,
}

/// Pulls `images` cold images at that rate, whatever the answers take.
async fn verify(mirror: &TestSealgate, rate: usize, images: usize) -> Verdicts {
    let (address, failed) = (mirror.address(), Arc::new(AtomicUsize::new(0)));
    let began = Instant::now();
    let mut pulls = tokio::task::JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / u32::try_from(rate).unwrap());
    for number in 1..=images {
        ticks.tick().await;
        let failed = Arc::clone(&failed);
        pulls.spawn(async move {
            let status = Connection::open(address).await.get(&path(number)).await;
            failed.fetch_add(usize::from(status != 200), Ordering::Relaxed);
        });
    }
    while pulls.join_next().await.is_some() {}
    let failed = failed.load(Ordering::Relaxed);
    let done = u32::try_from(images - failed).unwrap();
    Verdicts { per_second: f64::from(done) / began.elapsed().as_secs_f64(), failed }
}

struct Connection(TcpStream);

impl Connection {
    async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// The status; the body is read to its end.
    async fn get(&mut self, path: &str) -> u16 {
        let request = format!("GET {path} HTTP/1.1\r\nHost: mirror\r\n\r\n");
        self.0.write_all(request.as_bytes()).await.unwrap();
        let mut read = Vec::with_capacity(4096);
        loop {
            assert!(self.0.read_buf(&mut read).await.unwrap() > 0, "the mirror closed");
            let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(read.get(..end).unwrap()).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if read.len() >= end + 4 + length.unwrap_or(0_usize) {
                return head.split(' ').nth(1).unwrap().parse().unwrap();
            }
        }
    }
}

fn at(sorted: &[Duration], per_mille: usize) -> Duration {
    sorted.get((sorted.len() * per_mille / 1000).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn p99(sorted: &[Duration]) -> Duration {
    at(sorted, 990)
}

fn report(what: &str, sorted: &[Duration]) {
    let [half, most, nearly] = [at(sorted, 500), p99(sorted), at(sorted, 999)];
    println!("{what:>10}: {} requests, p50 {half:?}, p99 {most:?}, p99.9 {nearly:?}", sorted.len());
}

const PAUSE: Duration = Duration::from_millis(2);
