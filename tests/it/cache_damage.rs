//! Cached files that are damaged, that the disk does not give back, or that are all in use.
//! Ids such as S-04 are those of the test catalogue in `docs/threat-model.md`.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sealgate::oci::Digest;
use sealgate::store::faults::{Step, observe};
use sealgate::testing::{ACCEPT_ANYTHING, Answer, BuiltImage, FakeRegistry, ImageBuilder, TestSealgate};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::cache_operation::{flip_bit, path_of, quarantined};
use crate::program::Place;

const REPOSITORY: &str = "team/app";
const MIB: usize = 1 << 20;
const HELD_BACK: usize = 64 * 1024;

/// A mirror that has the image's blobs in its cache and, since it was started again, has hashed none of them.
async fn cached(settings: &[(&str, &str)], layers: &[usize]) -> (FakeRegistry, TestSealgate, BuiltImage) {
    let registry = FakeRegistry::start().await;
    let mut setup = TestSealgate::with_policy(ACCEPT_ANYTHING).upstream("registry.test", registry.url());
    for (key, value) in settings {
        setup = setup.set(key, *value);
    }
    let image = layers.iter().fold(ImageBuilder::new(1), |image, layer| image.layer(*layer)).build();
    registry.put(REPOSITORY, "1", &image);
    let mut mirror = setup.start().await;
    assert_eq!(mirror.get(&format!("/v2/{REPOSITORY}/manifests/1")).await.status, 200);
    for layer in &image.blobs[1..=layers.len()] {
        assert!(whole(&mirror, &layer.digest).await.complete);
    }
    mirror.restart().await;
    (registry, mirror, image)
}

async fn whole(mirror: &TestSealgate, digest: &Digest) -> Answer {
    mirror.get(&format!("/v2/{REPOSITORY}/blobs/{digest}")).await
}

async fn part(mirror: &TestSealgate, digest: &Digest, range: &str) -> Answer {
    mirror.request("GET", &format!("/v2/{REPOSITORY}/blobs/{digest}"), &[("Range", range)]).await
}

/// Waits until what was served is cached.
async fn no_fill_runs(mirror: &TestSealgate) {
    while mirror.metric("sealgate_cache_fills_in_flight") != Some(0.0) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn s_04_a_small_file_that_was_damaged_is_fetched_again_before_its_client_has_any_of_it() {
    let (registry, mut mirror, image) = cached(&[], &[40_000, HELD_BACK]).await;
    for (number, at) in [(1, 0), (1, 39_999), (2, 0), (2, HELD_BACK - 1)] {
        let blob = &image.blobs[number];
        let data = mirror.dir().join("data");
        flip_bit(&path_of(&data, &blob.digest), at);
        let asked = registry.count("GET", "*/blobs/*");
        let answers: Vec<Answer> = futures_util::future::join_all((0..8).map(|_| whole(&mirror, &blob.digest))).await;
        for answer in answers {
            assert!(answer.status == 200 && answer.complete, "byte {at}: {} bytes came", answer.body.len());
            assert_eq!(answer.body, blob.bytes);
        }
        no_fill_runs(&mirror).await;
        assert_eq!(quarantined(&data), [format!("sha256-{}", blob.digest.hex())]);
        assert_eq!(registry.count("GET", "*/blobs/*"), asked + 1, "one transfer for all of them");
        assert_eq!(mirror.metric("sealgate_cache_evictions_total{reason=\"corrupt\"}"), Some(1.0));
        assert_eq!(std::fs::read(path_of(&data, &blob.digest)).unwrap(), blob.bytes);
        std::fs::remove_dir_all(data.join("quarantine")).unwrap();
        mirror.restart().await;
    }
    mirror.stop().await;
}

#[tokio::test]
async fn s_04_a_range_that_waits_for_the_hash_of_a_damaged_file_is_right_all_the_same() {
    let (_registry, mut mirror, image) = cached(&[], &[40_000, 300_000]).await;
    for (number, range, start, stop) in
        [(1, "bytes=10-19", 10, 20), (2, "bytes=299000-", 299_000, 300_000), (2, "bytes=-65536", 234_464, 300_000)]
    {
        let blob = &image.blobs[number];
        flip_bit(&path_of(&mirror.dir().join("data"), &blob.digest), 12);
        let answer = part(&mirror, &blob.digest, range).await;
        assert!(answer.status == 206 && answer.complete, "{range}: {} bytes came", answer.body.len());
        assert_eq!(answer.body, blob.bytes.slice(start..stop));
        assert!(whole(&mirror, &blob.digest).await.complete);
        mirror.restart().await;
    }
    mirror.stop().await;
}

#[tokio::test]
async fn s_04_without_an_upstream_a_damaged_file_ends_short_and_the_mirror_goes_on() {
    let (registry, mirror, image) = cached(&[], &[40_000, 1000]).await;
    let data = mirror.dir().join("data");
    flip_bit(&path_of(&data, &image.blobs[1].digest), 7);
    drop(registry);
    let answer = whole(&mirror, &image.blobs[1].digest).await;
    assert!(!(answer.status == 200 && answer.complete), "{}", answer.status);
    assert!(answer.body.len() < 40_000);
    assert!(whole(&mirror, &image.blobs[2].digest).await.complete);
    mirror.stop().await;
}

/// The next read below the mirror's data says so; later ones do not.
fn unreadable_once(data: &Path) -> sealgate::store::faults::Observed {
    let reads = AtomicUsize::new(0);
    observe(data, move |step| match step {
        Step::Read(_) if reads.fetch_add(1, Ordering::SeqCst) == 0 => Err(io::Error::from_raw_os_error(libc::EIO)),
        _ => Ok(()),
    })
}

#[tokio::test]
async fn s_03_a_file_that_the_disk_does_not_give_back_is_fetched_again_before_its_client_has_any_of_it() {
    let (registry, mirror, image) = cached(&[], &[40_000, 300_000]).await;
    let data = mirror.dir().join("data");
    for blob in &image.blobs[1..] {
        let asked = registry.count("GET", "*/blobs/*");
        let observed = unreadable_once(&data);
        let answer = whole(&mirror, &blob.digest).await;
        drop(observed);
        assert!(answer.status == 200 && answer.complete, "{} bytes came", answer.body.len());
        assert_eq!(answer.body, blob.bytes);
        assert_eq!(registry.count("GET", "*/blobs/*"), asked + 1);
    }
    assert_eq!(quarantined(&data).len(), 2, "nothing is written to bad sectors again");
    mirror.stop().await;
}

#[tokio::test]
async fn s_04_a_damaged_file_that_cannot_be_taken_away_is_served_to_nobody_else() {
    let (_registry, mirror, image) = cached(&[], &[300_000]).await;
    let (data, blob) = (mirror.dir().join("data"), &image.blobs[1]);
    flip_bit(&path_of(&data, &blob.digest), 7);
    // The file system has become one that can only be read.
    let observed = observe(&data, |step| match step {
        Step::Open(_) | Step::Read(_) | Step::List(_) | Step::Look(_) | Step::FreeSpace(_) => Ok(()),
        _ => Err(io::Error::from_raw_os_error(libc::EROFS)),
    });
    assert!(!whole(&mirror, &blob.digest).await.complete);
    for _ in 0..2 {
        let answer = whole(&mirror, &blob.digest).await;
        assert!(answer.status == 200 && answer.complete, "{} bytes came", answer.body.len());
        assert_eq!(answer.body, blob.bytes);
    }
    drop(observed);
    // Written again, it is the cache's again.
    assert!(whole(&mirror, &blob.digest).await.complete);
    no_fill_runs(&mirror).await;
    assert_eq!(std::fs::read(path_of(&data, &blob.digest)).unwrap(), blob.bytes);
    let answer = whole(&mirror, &blob.digest).await;
    assert!(answer.complete && answer.header("cache-status").is_some_and(|status| status.contains("hit")));
    mirror.stop().await;
}

/// A client that has the beginning of a blob and takes no more.
async fn stalled(mirror: &TestSealgate, digest: &Digest) -> TcpStream {
    let mut stream = TcpStream::connect(mirror.address()).await.unwrap();
    let request = format!("GET /v2/{REPOSITORY}/blobs/{digest} HTTP/1.1\r\nHost: mirror.test\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut beginning = [0; 16];
    stream.read_exact(&mut beginning).await.unwrap();
    assert_eq!(&beginning[..12], b"HTTP/1.1 200");
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_10_while_all_that_is_cached_is_being_read_new_blobs_pass_through_and_are_cached_later() {
    let (registry, mirror, image) = cached(&[("cache.max_bytes", "24MiB")], &[16 * MIB, 17 * MIB]).await;
    let [old, new] = [1, 2].map(|number: usize| &image.blobs[number]);
    // The second one took the place of the first.
    let reader = stalled(&mirror, &new.digest).await;
    let asked = registry.count("GET", &format!("*/blobs/{}", old.digest));
    for round in 1..=2 {
        let answer = whole(&mirror, &old.digest).await;
        assert!(answer.complete && old.digest.matches(&answer.body));
        assert_eq!(registry.count("GET", &format!("*/blobs/{}", old.digest)), asked + round, "it is not cached");
        no_fill_runs(&mirror).await;
    }
    no_fill_runs(&mirror).await;
    assert_eq!(mirror.metric("sealgate_cache_fills_total{outcome=\"no_space\"}"), Some(2.0));
    assert_eq!(mirror.metric("sealgate_cache_fills_total{outcome=\"committed\"}"), Some(0.0));
    assert!(path_of(&mirror.dir().join("data"), &new.digest).exists(), "nothing is taken from under a reader");
    let admin = mirror.admin_url();
    let name = new.digest.to_string();
    let evict = move || Place::new().run(&["cache", "evict", &name, "--admin", &admin]);
    let refused = tokio::task::spawn_blocking(evict).await.unwrap();
    assert!(refused.status == 3 && refused.stderr.contains("the blob is being read"), "{refused}");
    assert!(refused.stderr.contains("next: try again when its clients have it"), "{refused}");
    // Small things are kept in memory meanwhile: the image stays servable.
    assert_eq!(mirror.get(&format!("/v2/{REPOSITORY}/manifests/1")).await.status, 200);
    drop(reader);
    let asked = registry.count("GET", &format!("*/blobs/{}", old.digest));
    let mut pulls = 0;
    // The mirror sees with its next write that the client has left.
    while registry.count("GET", &format!("*/blobs/{}", old.digest)) == asked + pulls {
        pulls += 1;
        assert!(pulls < 100, "it is never cached");
        assert!(whole(&mirror, &old.digest).await.complete);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    mirror.stop().await;
}

#[test]
fn without_a_cache_there_offline_commands_say_so_and_make_nothing() {
    let place = Place::with_policy(ACCEPT_ANYTHING);
    let data = |place: &Place| place.path().join("config/data").exists() || place.path().join("data").exists();
    for command in [&["stats"][..], &["verify"], &["evict", "--all"], &["stats", "--output", "json"]] {
        let ran = place.run(&[&["cache", "--offline"], command].concat());
        assert!(ran.status == 2 && ran.stdout.is_empty(), "{ran}");
        assert!(ran.stderr.contains("there is no cache at ") && ran.stderr.contains("data yet"), "{ran}");
        assert!(ran.stderr.contains("next: ") && ran.stderr.contains("--config"), "{ran}");
        assert!(!ran.stderr.contains("No such file") && !data(&place), "{ran}");
    }
    // A directory that is something else stays as it is.
    let elsewhere = place.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let policy = "[policy]\ncontainers_policy = \"policy.json\"";
    place.write("config/sealgate.toml", &format!("[server]\ndata_dir = \"../elsewhere\"\n{policy}\n"));
    let ran = place.run(&["cache", "--offline", "stats"]);
    assert!(ran.status == 2 && ran.stderr.contains("there is no cache at "), "{ran}");
    assert_eq!(std::fs::read_dir(elsewhere).unwrap().count(), 0);
}
