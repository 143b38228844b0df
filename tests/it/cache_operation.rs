//! Operating the cache: hashing it again, evicting, wrong files, over TCP, by the command line and by the store itself.
//! Ids such as S-04 are those of the test catalogue in `docs/threat-model.md`.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use sealgate::clock::{Clock, ManualClock, Timestamp};
use sealgate::oci::{Algorithm, Digest};
use sealgate::store::faults::{Step, observe};
use sealgate::store::{Scrub, ScrubStats, Settings, Store};
use sealgate::telemetry::Telemetry;
use sealgate::testing::{ACCEPT_ANYTHING, Answer, BuiltImage, FakeRegistry, ImageBuilder, TestSealgate, pseudo_random};

use crate::program::{Place, Ran};
use crate::wire::PATIENCE;

const REPOSITORY: &str = "team/app";
const MIB: usize = 1 << 20;
const EVERY: Duration = Duration::from_hours(7 * 24);

fn clock() -> ManualClock {
    ManualClock::at(Timestamp::from_unix_seconds(1_800_000_000))
}

async fn open(directory: &Path, clock: &ManualClock) -> Store {
    let settings = Settings { data_dir: Some(directory.to_owned()), max_bytes: 1 << 30, min_free_bytes: 0 };
    Store::open(settings, Clock::Manual(clock.clone()), Telemetry::default()).await.unwrap()
}

async fn put(store: &Store, content: Bytes) -> Digest {
    let digest = Digest::sha256(&content);
    let mut staged = store.stage(Algorithm::Sha256, u64::try_from(content.len()).unwrap()).await.unwrap();
    staged.write(&content).await.unwrap();
    staged.whole(&digest).await.unwrap().commit().await.unwrap();
    digest
}

pub(crate) fn path_of(data: &Path, digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    data.join("blobs").join(digest.algorithm().as_str()).join(&hex[..2]).join(hex)
}

pub(crate) fn flip_bit(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

pub(crate) fn quarantined(data: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(data.join("quarantine")).into_iter().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Waits for a pass to end that was asked for or is due.
async fn passed(store: &Store, before: Option<Timestamp>) -> ScrubStats {
    loop {
        let stats = store.scrub_stats();
        if !stats.running && stats.ended != before {
            return stats;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn verified(store: &Store, clock: &ManualClock) -> ScrubStats {
    let before = store.scrub_stats().ended;
    clock.advance(Duration::from_secs(1));
    assert!(store.verify_cache());
    passed(store, before).await
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn hashing_again_sets_wrong_files_aside_and_vouches_for_the_others() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let store = open(directory.path(), &clock).await;
    let mut blobs = Vec::new();
    for number in 0..4 {
        blobs.push(put(&store, pseudo_random(number, 300_000)).await);
    }
    store.close().await;
    drop(store);
    flip_bit(&path_of(directory.path(), &blobs[0]), 250_000);
    std::fs::File::options().write(true).open(path_of(directory.path(), &blobs[1])).unwrap().set_len(1000).unwrap();
    let store = open(directory.path(), &clock).await;
    store.scrub(Scrub { every: EVERY, bytes_per_second: u64::MAX });
    let stats = verified(&store, &clock).await;
    assert_eq!((stats.files, stats.wrong, stats.unreadable, stats.bytes), (4, 2, 0, 901_000));
    let mut wrong = [&blobs[0], &blobs[1]].map(|digest| format!("sha256-{}", digest.hex()));
    wrong.sort();
    assert_eq!(quarantined(directory.path()), wrong);
    for digest in &blobs[..2] {
        assert!(store.blob(digest).await.is_none());
    }
    for digest in &blobs[2..] {
        assert!(store.blob(digest).await.unwrap().is_verified(), "nobody has to hash it again");
    }
    assert_eq!(store.cache_stats().entries, 2);
    // The next fill puts the right one in its place.
    put(&store, pseudo_random(0, 300_000)).await;
    assert_eq!(verified(&store, &clock).await.wrong, 0);
    store.close().await;
}

#[tokio::test]
async fn a_file_that_the_disk_does_not_give_back_is_set_aside_and_one_of_a_tired_system_is_not() {
    for (code, is_bad) in [(libc::EIO, true), (libc::EMFILE, false)] {
        let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
        let store = open(directory.path(), &clock).await;
        let digest = put(&store, pseudo_random(1, 300_000)).await;
        store.scrub(Scrub { every: EVERY, bytes_per_second: u64::MAX });
        let observed = observe(directory.path(), move |step| match step {
            Step::Read(_) => Err(std::io::Error::from_raw_os_error(code)),
            _ => Ok(()),
        });
        let stats = verified(&store, &clock).await;
        drop(observed);
        assert_eq!((stats.unreadable, stats.skipped), (u64::from(is_bad), u64::from(!is_bad)));
        assert_eq!(store.blob(&digest).await.is_none(), is_bad);
        store.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn hashing_again_keeps_to_its_rate_and_to_its_time() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let store = open(directory.path(), &clock).await;
    for number in 0..4 {
        put(&store, pseudo_random(number, MIB)).await;
    }
    store.scrub(Scrub { every: EVERY, bytes_per_second: 1 << 20 });
    // Not before it is due.
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!((store.scrub_stats().running, store.scrub_stats().files), (false, 0));
    clock.advance(EVERY);
    while !store.scrub_stats().running {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let began = tokio::time::Instant::now();
    assert!(!store.verify_cache(), "one runs");
    let stats = passed(&store, None).await;
    let took = began.elapsed();
    assert_eq!((stats.files, stats.bytes), (4, 4 << 20));
    assert!(took > Duration::from_millis(3900) && took < Duration::from_millis(4500), "{took:?}");
    // And not again before it is due again.
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!(store.scrub_stats(), stats);
    store.close().await;
}

#[tokio::test(start_paused = true)]
async fn hashing_again_goes_on_after_a_restart_where_it_was_left() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let mut store = open(directory.path(), &clock).await;
    for number in 0..20 {
        put(&store, pseudo_random(number, MIB)).await;
    }
    store.scrub(Scrub { every: EVERY, bytes_per_second: 1 << 20 });
    tokio::time::sleep(Duration::from_secs(1)).await;
    clock.advance(EVERY);
    while store.scrub_stats().files < 10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    store.close().await;
    let first = store.scrub_stats().files;
    store = open(directory.path(), &clock).await;
    store.scrub(Scrub { every: EVERY, bytes_per_second: 1 << 20 });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let second = passed(&store, store.scrub_stats().ended).await.files;
    // Those of the shard at which it was left are looked at twice.
    assert!(first + second >= 20 && second < 20, "{first} and {second}");
    store.close().await;
}

#[tokio::test]
async fn hashing_again_is_no_use_of_a_file() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let store = open(directory.path(), &clock).await;
    let digest = put(&store, pseudo_random(1, 100_000)).await;
    let path = path_of(directory.path(), &digest);
    // A time from which on most systems would note any reading.
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
    let times = std::fs::FileTimes::new().set_accessed(long_ago);
    std::fs::File::options().write(true).open(&path).unwrap().set_times(times).unwrap();
    store.scrub(Scrub { every: EVERY, bytes_per_second: u64::MAX });
    assert_eq!(verified(&store, &clock).await.files, 1);
    assert_eq!(std::fs::metadata(&path).unwrap().atime(), 1000);
    store.close().await;
}

#[tokio::test]
async fn wrong_files_that_are_kept_are_bounded() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let store = open(directory.path(), &clock).await;
    for number in 0..20_u8 {
        let digest = put(&store, Bytes::from(vec![number; 10])).await;
        store.blob(&digest).await.unwrap().condemn().await;
    }
    assert_eq!(quarantined(directory.path()).len(), sealgate::limits::QUARANTINE_FILES_MAX);
    store.close().await;
}

#[test]
fn the_rate_and_the_time_of_hashing_again_have_bounds() {
    let place = Place::with_policy(ACCEPT_ANYTHING);
    for (keys, status) in [
        ("verify_every = \"1h\"", 0),
        ("verify_every = \"59m\"", 2),
        ("verify_every = \"0s\"", 0),
        ("verify_rate = \"1MiB\"", 0),
        ("verify_rate = \"1023KiB\"", 2),
        ("verify_rate = \"0\"", 2),
    ] {
        let text = format!("[policy]\ncontainers_policy = \"policy.json\"\n[cache]\n{keys}\n");
        place.write("config/sealgate.toml", &text);
        let ran = place.run(&["config", "check"]);
        assert_eq!(ran.status, status, "{keys}: {ran}");
    }
}

#[tokio::test]
async fn only_the_file_that_was_found_wrong_is_taken_away() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let store = open(directory.path(), &clock).await;
    let content = pseudo_random(1, 1000);
    let digest = put(&store, content.clone()).await;
    let wrong = store.blob(&digest).await.unwrap();
    // Meanwhile a fill has put another one there.
    put(&store, content).await;
    wrong.condemn().await;
    assert!(store.blob(&digest).await.is_some());
    assert_eq!((store.cache_stats().entries, quarantined(directory.path())), (1, Vec::new()));
    store.close().await;
}

async fn serving(settings: &[(&str, &str)], layers: &[usize]) -> (FakeRegistry, TestSealgate, BuiltImage) {
    let registry = FakeRegistry::start().await;
    let mut setup = TestSealgate::with_policy(ACCEPT_ANYTHING).upstream("registry.test", registry.url());
    for (key, value) in settings {
        setup = setup.set(key, *value);
    }
    let image = layers.iter().fold(ImageBuilder::new(1), |image, layer| image.layer(*layer)).build();
    registry.put(REPOSITORY, "1", &image);
    (registry, setup.start().await, image)
}

async fn manifest(mirror: &TestSealgate) -> Answer {
    mirror.get(&format!("/v2/{REPOSITORY}/manifests/1")).await
}

async fn blob(mirror: &TestSealgate, digest: &Digest) -> Answer {
    mirror.get(&format!("/v2/{REPOSITORY}/blobs/{digest}")).await
}

#[tokio::test]
async fn s_04_a_flipped_bit_ends_short_and_the_next_client_gets_the_blob() {
    let (registry, mut mirror, image) = serving(&[], &[300_000]).await;
    let layer = image.blobs.last().unwrap().digest;
    assert_eq!(manifest(&mirror).await.status, 200);
    assert!(blob(&mirror, &layer).await.complete);
    // In the middle, in what is held back, and in the first byte: each time after a restart, since what this process has
    // hashed it does not hash again.
    for at in [150_000, 299_999, 0] {
        mirror.restart().await;
        let data = mirror.dir().join("data");
        flip_bit(&path_of(&data, &layer), at);
        let asked = registry.count("GET", "*/blobs/*");
        let broken = blob(&mirror, &layer).await;
        assert!(broken.status == 200 && !broken.complete, "byte {at}: never a clean end");
        assert!(broken.body.len() <= 300_000 - 64 * 1024);
        assert_eq!(quarantined(&data), [format!("sha256-{}", layer.hex())]);
        let right = blob(&mirror, &layer).await;
        assert!(right.complete && layer.matches(&right.body), "byte {at}");
        assert_eq!(registry.count("GET", "*/blobs/*"), asked + 1);
        assert_eq!(mirror.metric("sealgate_cache_evictions_total{reason=\"corrupt\"}"), Some(1.0));
    }
    mirror.stop().await;
}

#[tokio::test]
async fn s_05_a_manifest_that_was_changed_on_disk_is_fetched_again() {
    let (_registry, mut mirror, image) = serving(&[], &[1000]).await;
    assert_eq!(manifest(&mirror).await.status, 200);
    mirror.restart().await;
    let path = path_of(&mirror.dir().join("data"), &image.digest());
    flip_bit(&path, 3);
    let answer = manifest(&mirror).await;
    assert!(answer.status == 200 && image.digest().matches(&answer.body));
    // It is written soon after the answer.
    until("the file is there again", || path.exists()).await;
    assert!(image.digest().matches(&std::fs::read(path).unwrap()));
    mirror.stop().await;
}

#[tokio::test]
async fn s_11_a_file_taken_away_under_a_live_link_is_fetched_again() {
    let (_registry, mut mirror, image) = serving(&[], &[200_000]).await;
    assert_eq!(manifest(&mirror).await.status, 200);
    let digests: Vec<Digest> = image.blobs.iter().map(|blob| blob.digest).chain([image.digest()]).collect();
    for restart in [false, true] {
        for digest in &image.blobs {
            assert!(blob(&mirror, &digest.digest).await.complete);
        }
        if restart {
            mirror.restart().await;
        }
        for digest in &digests {
            drop(std::fs::remove_file(path_of(&mirror.dir().join("data"), digest)));
        }
        let by_digest = mirror.get(&format!("/v2/{REPOSITORY}/manifests/{}", image.digest())).await;
        assert!(by_digest.status == 200 && image.digest().matches(&by_digest.body));
        for one in &image.blobs {
            let answer = blob(&mirror, &one.digest).await;
            assert!(answer.status == 200 && answer.complete && one.digest.matches(&answer.body));
        }
    }
    mirror.stop().await;
}

#[tokio::test]
async fn s_12_a_cache_deleted_while_it_runs_is_made_again() {
    let (_registry, mirror, image) = serving(&[], &[200_000]).await;
    for _ in 0..2 {
        assert_eq!(manifest(&mirror).await.status, 200);
        for one in &image.blobs {
            assert!(blob(&mirror, &one.digest).await.complete);
        }
        for directory in ["blobs", "staging"] {
            let directory = mirror.dir().join("data").join(directory);
            until("nothing is written just now", || std::fs::remove_dir_all(&directory).is_ok()).await;
        }
    }
    assert_eq!(mirror.metric("sealgate_panics_total"), Some(0.0));
    mirror.stop().await;
}

#[tokio::test]
async fn r_04_a_blob_larger_than_the_whole_cache_is_streamed_and_evicts_nothing() {
    let (registry, mirror, image) = serving(&[("cache.max_bytes", "1MiB")], &[100_000, 2 * MIB]).await;
    assert_eq!(manifest(&mirror).await.status, 200);
    let [small, large] = [1, 2].map(|place: usize| image.blobs[place].digest);
    assert!(blob(&mirror, &small).await.complete);
    until("manifest and blob are cached", || mirror.metric("sealgate_cache_entries") == Some(2.0)).await;
    for _ in 0..3 {
        let answer = blob(&mirror, &large).await;
        assert!(answer.complete && large.matches(&answer.body));
    }
    assert_eq!(registry.count("GET", &format!("*/blobs/{large}")), 3);
    assert_eq!(mirror.metric("sealgate_cache_entries"), Some(2.0));
    assert_eq!(mirror.metric("sealgate_cache_evictions_total{reason=\"size\"}"), Some(0.0));
    mirror.stop().await;
}

/// The program, asked about a running mirror.
async fn cache(mirror: &TestSealgate, arguments: &[&str]) -> Ran {
    let admin = mirror.admin_url();
    let mut all = vec!["cache".to_owned()];
    all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    all.extend(["--admin".to_owned(), admin]);
    let run = move || Place::new().run(&all.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sees_hashes_and_shrinks_the_cache_of_a_running_mirror() {
    let (_registry, mut mirror, image) = serving(&[], &[300_000]).await;
    let layer = image.blobs.last().unwrap().digest;
    assert_eq!(manifest(&mirror).await.status, 200);
    assert!(blob(&mirror, &layer).await.complete);
    mirror.restart().await;
    while mirror.metric("sealgate_cache_entries") < Some(2.0) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let stats = cache(&mirror, &["stats"]).await;
    assert!(stats.status == 0 && stats.stdout.contains("in 2 files") && stats.stdout.contains("64.0 GiB"), "{stats}");
    let verified = cache(&mirror, &["verify"]).await;
    assert!(verified.status == 0 && verified.stdout.contains("wrong       0"), "{verified}");
    flip_bit(&path_of(&mirror.dir().join("data"), &layer), 7);
    let verified = cache(&mirror, &["verify", "--output", "json"]).await;
    let found: serde_json::Value = serde_json::from_str(&verified.stdout).unwrap();
    assert_eq!((verified.status, found["verify"]["wrong"].as_u64()), (1, Some(1)), "{verified}");
    assert_eq!(mirror.metric("sealgate_cache_verified_total{outcome=\"wrong\"}"), Some(1.0));
    assert!(layer.matches(&blob(&mirror, &layer).await.body));

    let name = layer.to_string();
    let evicted = cache(&mirror, &["evict", &name]).await;
    assert!(
        evicted.status == 0 && evicted.stdout.contains("removed ") && evicted.stdout.contains(" in 1 file\n"),
        "{evicted}"
    );
    let again = cache(&mirror, &["evict", &name]).await;
    assert!(again.status == 2 && again.stderr.contains("not in the cache"), "{again}");
    let all = cache(&mirror, &["evict", "--all", "--output", "json"]).await;
    let gone: serde_json::Value = serde_json::from_str(&all.stdout).unwrap();
    assert_eq!((all.status, gone["files"].as_u64()), (0, Some(1)), "{all}");
    for wrong in [&["evict"][..], &["evict", "--all", "--bytes", "1GiB"], &["evict", "sha256:ab"]] {
        assert_eq!(cache(&mirror, wrong).await.status, 2, "{wrong:?}");
    }
    // What is evicted is a miss and nothing else.
    assert!(layer.matches(&blob(&mirror, &layer).await.body));
    mirror.stop().await;
}

#[tokio::test]
async fn evicting_is_a_change_and_says_exactly_what() {
    let (_registry, mirror, _image) = serving(&[], &[1000]).await;
    let change: &[(&str, &str)] = &[("Sealgate-Admin", "1")];
    for (target, headers, status) in [
        ("/api/v1/cache/evict?all=true", &[][..], 403),
        ("/api/v1/cache/verify", &[], 403),
        ("/api/v1/cache/evict", change, 400),
        ("/api/v1/cache/evict?all=true&bytes=1", change, 400),
        ("/api/v1/cache/evict?all=false", change, 400),
        ("/api/v1/cache/evict?digest=sha256:ab", change, 400),
        ("/api/v1/cache/evict?everything=true", change, 400),
        ("/api/v1/cache/evict?bytes=1", change, 200),
    ] {
        assert_eq!(mirror.admin_request("POST", target, headers).await.status, status, "{target}");
    }
    mirror.stop().await;
}

/// A place with a configuration that uses that data directory.
fn over(data: &str) -> Place {
    let place = Place::with_policy(ACCEPT_ANYTHING);
    configure(&place, data);
    place
}

fn configure(place: &Place, data: &str) {
    let listeners = "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"";
    let policy = "[policy]\ncontainers_policy = \"policy.json\"";
    place.write("config/sealgate.toml", &format!("[server]\n{listeners}\ndata_dir = \"{data}\"\n{policy}\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_08_a_second_program_on_the_same_directory_says_so_and_ends() {
    let (_registry, mirror, image) = serving(&[], &[100_000]).await;
    let data = mirror.dir().join("data").display().to_string();
    let place = over(&data);
    let ran = tokio::task::spawn_blocking(move || place.run(&["serve"]));
    let ran = tokio::time::timeout(Duration::from_secs(60), ran).await.expect("it ends").unwrap();
    assert!(ran.status == 2 && ran.stderr.contains(&format!("{data} is in use by another sealgate process")), "{ran}");
    // The first one goes on, and nothing of it was moved aside.
    assert_eq!(manifest(&mirror).await.status, 200);
    assert!(blob(&mirror, &image.blobs.last().unwrap().digest).await.complete);
    let names = std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(!names.into_iter().any(|name| name.contains("quarantine")));
    mirror.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cache_of_a_mirror_that_is_down_is_seen_hashed_and_shrunk_too() {
    let (_registry, mirror, image) = serving(&[], &[300_000]).await;
    assert_eq!(manifest(&mirror).await.status, 200);
    let layer = image.blobs.last().unwrap().digest;
    assert!(blob(&mirror, &layer).await.complete);
    let place = over(&mirror.dir().join("data").display().to_string());
    let run = |arguments: &[&str]| place.run(&[&["cache", "--offline"], arguments].concat());
    let refused = run(&["stats"]);
    assert!(refused.status == 2 && refused.stderr.contains("in use by another sealgate process"), "{refused}");
    let data = mirror.dir().join("data");
    let copy = place.path().join("data");
    assert!(std::process::Command::new("cp").arg("-r").args([&data, &copy]).status().unwrap().success());
    configure(&place, "../data");
    let stats = run(&["stats"]);
    assert!(stats.status == 0 && stats.stdout.contains("in 2 files"), "{stats}");
    assert_eq!(run(&["verify"]).status, 0);
    flip_bit(&path_of(&copy, &layer), 7);
    let verified = run(&["verify", "--output", "json"]);
    let found: serde_json::Value = serde_json::from_str(&verified.stdout).unwrap();
    assert_eq!((verified.status, found["verify"]["wrong"].as_u64()), (1, Some(1)), "{verified}");
    assert_eq!(quarantined(&copy).len(), 1);
    let evicted = run(&["evict", "--bytes", "1KiB"]);
    assert!(
        evicted.status == 0 && evicted.stdout.contains("removed ") && evicted.stdout.contains(" in 1 file\n"),
        "{evicted}"
    );
    mirror.stop().await;
}
