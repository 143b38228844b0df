//! File operations that fail, one after the other, and a process that dies at each of them.
//! Ids such as S-03 are those of the test catalogue in `docs/threat-model.md`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use bytes::Bytes;
use sealgate::clock::{Clock, ManualClock, Timestamp};
use sealgate::oci::{Algorithm, Digest};
use sealgate::store::faults::{Observed, Step, observe};
use sealgate::store::{BlobFile, Eviction, Settings, Store, StoreError};
use sealgate::telemetry::Telemetry;
use sealgate::testing::{ACCEPT_ANYTHING, BuiltImage, FakeRegistry, ImageBuilder, TestSealgate, http, pseudo_random};

use crate::random::Random;

const CODES: [i32; 5] = [libc::ENOSPC, libc::EIO, libc::EROFS, libc::EMFILE, libc::EACCES];

/// In memory where the system has such a directory: nothing here needs a disk to be synced.
fn fast() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

async fn open(directory: &Path) -> Result<Store, StoreError> {
    let settings = Settings { data_dir: Some(directory.to_owned()), max_bytes: 1 << 20, min_free_bytes: 1 };
    let clock = ManualClock::at(Timestamp::from_unix_seconds(1_800_000_000));
    Store::open(settings, Clock::Manual(clock), Telemetry::default()).await
}

/// Which operations fail, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failing {
    None,
    Only(u64),
    From(u64),
}

impl Failing {
    fn hits(self, number: u64) -> bool {
        match self {
            Self::None => false,
            Self::Only(this) => number == this,
            Self::From(this) => number >= this,
        }
    }
}

/// Lets operations below `directory` fail, and counts them.
fn fail(directory: &Path, failing: Failing, code: i32) -> (Observed, Arc<AtomicU64>) {
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    let observed = observe(directory, move |_| {
        if failing.hits(counted.fetch_add(1, Ordering::SeqCst)) {
            Err(io::Error::from_raw_os_error(code))
        } else {
            Ok(())
        }
    });
    (observed, count)
}

fn blob(number: u8) -> Bytes {
    Bytes::from(vec![number; 150_000])
}

async fn put(store: &Store, content: &Bytes) -> Result<(), StoreError> {
    let mut staged = store.stage(Algorithm::Sha256, u64::try_from(content.len()).unwrap()).await?;
    let reader = staged.reader();
    let (first, second) = (content.slice(..100_000), content.slice(100_000..));
    staged.write(&first).await?;
    staged.write_pieces(vec![second]).await?;
    staged.whole(&Digest::sha256(content)).await?.commit().await?;
    if let Ok(read) = reader.read_at(99_990, 20).await {
        assert_eq!(read, content.slice(99_990..100_010));
    }
    Ok(())
}

/// What is hashed beside the writing must not count when the writing failed: the file would be short and called right.
#[tokio::test]
async fn a_file_of_which_a_write_failed_or_was_given_up_is_never_whole() {
    let content = blob(1);
    let (digest, size) = (Digest::sha256(&content), u64::try_from(content.len()).unwrap());
    for given_up in [false, true] {
        let directory = fast();
        let store = open(directory.path()).await.unwrap();
        let mut staged = store.stage(Algorithm::Sha256, size).await.unwrap();
        staged.write(&content.slice(..100_000)).await.unwrap();
        if given_up {
            let (begun, meet) = (Arc::new(AtomicBool::new(false)), Arc::new(Barrier::new(2)));
            let (has_begun, waits) = (Arc::clone(&begun), Arc::clone(&meet));
            let slow = observe(directory.path(), move |step| {
                if matches!(step, Step::Write { .. }) {
                    has_begun.store(true, Ordering::SeqCst);
                    waits.wait();
                }
                Ok(())
            });
            let mut write = Box::pin(staged.write_pieces(vec![content.slice(100_000..)]));
            while !begun.load(Ordering::SeqCst) {
                assert!(futures_util::poll!(&mut write).is_pending());
                tokio::task::yield_now().await;
            }
            drop(write);
            meet.wait();
            drop(slow);
        } else {
            let failing = observe(directory.path(), |step| {
                let is_write = matches!(step, Step::Write { .. });
                if is_write { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
            });
            staged.write_pieces(vec![content.slice(100_000..)]).await.unwrap_err();
            drop(failing);
        }
        let ended = staged.whole(&digest).await;
        assert!(matches!(ended, Err(StoreError::Io { .. })), "{given_up}: {ended:?}");
        assert!(store.blob(&digest).await.is_none(), "{given_up}");
        store.close().await;
        assert_eq!(std::fs::read_dir(directory.path().join("staging")).unwrap().count(), 0, "{given_up}");
    }
}

/// All of it, or what the disk said.
async fn read(blob: &BlobFile) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let chunk = blob.read_at(u64::try_from(content.len()).unwrap(), 1 << 20).await?;
        if chunk.is_empty() {
            return Ok(content);
        }
        content.extend_from_slice(&chunk);
    }
}

/// Everything that a store does with files. Whatever the disk says, what comes is right.
async fn one_life(directory: &Path) {
    let Ok(store) = open(directory).await else { return };
    let manifest = Bytes::from_static(b"{\"layers\":[]}");
    let digest = Digest::sha256(&manifest);
    if let Some(found) = store.content(&digest).await {
        assert_eq!(found, manifest);
    }
    store.keep_content(&digest, manifest.clone()).await;
    assert_eq!(store.content(&digest).await, Some(manifest), "memory has it");
    for number in [1, 2] {
        let content = blob(number);
        // An error here means: not cached.
        drop(put(&store, &content).await);
        if let Some(found) = store.blob(&Digest::sha256(&content)).await {
            match read(&found).await {
                Ok(read) => assert_eq!(read, content),
                Err(error) => println!("{error}"),
            }
        }
    }
    if let Some(found) = store.blob(&Digest::sha256(&blob(2))).await {
        found.condemn().await;
    }
    store.evict(Eviction::Bytes(1)).await;
    store.close().await;
}

/// Every file of the cache has the content that its name says.
fn every_file_is_right(directory: &Path) {
    for entry in std::fs::read_dir(directory.join("blobs")).into_iter().flatten() {
        for (path, content) in files(&entry.unwrap().path()) {
            assert_eq!(
                Digest::sha256(&content).hex(),
                path.file_name().unwrap().to_str().unwrap(),
                "{}",
                path.display()
            );
        }
    }
}

fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let content = std::fs::read(&path).unwrap();
            found.insert(path, content);
        }
    }
    found
}

/// With a disk that works again it does what it did before.
async fn it_works_again(directory: &Path) {
    every_file_is_right(directory);
    let mut opened = open(directory).await;
    // The life before may still be ending on a machine that is busy.
    while matches!(opened, Err(StoreError::Locked { .. })) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        opened = open(directory).await;
    }
    let store = opened.unwrap();
    assert_eq!(std::fs::read_dir(directory.join("staging")).unwrap().count(), 0);
    let content = blob(3);
    put(&store, &content).await.unwrap();
    assert_eq!(read(&store.blob(&Digest::sha256(&content)).await.unwrap()).await.unwrap(), content);
    let manifest = Bytes::from_static(b"{\"layers\":[]}");
    store.keep_content(&Digest::sha256(&manifest), manifest.clone()).await;
    store.close().await;
    every_file_is_right(directory);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s_03_whichever_file_operation_fails_no_wrong_byte_comes_and_it_recovers() {
    let directory = fast();
    let (observed, count) = fail(directory.path(), Failing::None, 0);
    one_life(directory.path()).await;
    drop(observed);
    let all = count.load(Ordering::SeqCst);
    println!("{all} operations");
    assert!(all > 60, "the layer sees too little: {all}");
    let mut lives = tokio::task::JoinSet::new();
    for number in 0..all {
        for (place, code) in CODES.into_iter().enumerate() {
            let failing = [Failing::Only(number), Failing::From(number)];
            // Every error at every operation; a disk that stays broken, with each error in turn.
            let stays = number % 5 == u64::try_from(place).unwrap();
            for failing in failing.into_iter().take(if stays { 2 } else { 1 }) {
                lives.spawn(async move {
                    let directory = fast();
                    let (observed, _) = fail(directory.path(), failing, code);
                    one_life(directory.path()).await;
                    drop(observed);
                    it_works_again(directory.path()).await;
                });
                if lives.len() >= 4 {
                    lives.join_next().await.unwrap().unwrap();
                }
            }
        }
    }
    while let Some(lived) = lives.join_next().await {
        lived.unwrap();
    }
}

const REPOSITORY: &str = "team/app";

/// What a client got of an image: `true` when all of it came. What comes whole must be right.
async fn pull(mirror: &TestSealgate, image: &BuiltImage) -> bool {
    let get = async |target: String| http::try_send(mirror.address(), "GET", &target, &[]).await;
    let manifest = get(format!("/v2/{REPOSITORY}/manifests/{}", image.digest())).await;
    let Some(manifest) = manifest.filter(|manifest| manifest.status == 200) else { return false };
    assert!(image.digest().matches(&manifest.body), "a wrong manifest");
    let mut whole = true;
    for blob in &image.blobs {
        // A connection may end before the head, too.
        let answer = get(format!("/v2/{REPOSITORY}/blobs/{}", blob.digest)).await;
        let answer = answer.filter(|answer| answer.status == 200 && answer.complete);
        assert!(answer.as_ref().is_none_or(|answer| blob.digest.matches(&answer.body)), "a wrong blob");
        whole &= answer.is_some();
    }
    whole
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_03_whichever_file_operation_fails_during_a_pull_no_wrong_byte_is_served() {
    let registry = FakeRegistry::start().await;
    let mirror = TestSealgate::with_policy(ACCEPT_ANYTHING).upstream("registry.test", registry.url()).start().await;
    let image = |round: u64| {
        let image = ImageBuilder::new(round).layer(200_000).layer(70_000).build();
        registry.put(REPOSITORY, &format!("r{round}"), &image);
        image
    };
    let data = mirror.dir().join("data");
    let (observed, count) = fail(&data, Failing::None, 0);
    let first = image(1000);
    assert!(pull(&mirror, &first).await && pull(&mirror, &first).await);
    drop(observed);
    let all = count.load(Ordering::SeqCst);
    println!("{all} operations");
    let mut whole = 0;
    for number in 0..all {
        let image = image(number);
        let code = CODES[usize::try_from(number).unwrap() % CODES.len()];
        let (observed, _) = fail(&data, Failing::Only(number), code);
        // Cold, then from what is cached by now.
        whole += u64::from(pull(&mirror, &image).await) + u64::from(pull(&mirror, &image).await);
        drop(observed);
        assert!(pull(&mirror, &image).await, "operation {number}: it does not recover");
    }
    println!("{whole} of {} pulls were whole", 2 * all);
    assert!(whole * 10 >= 2 * all * 8, "a disk that fails once costs too many pulls");
    every_file_is_right(&data);
    mirror.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cached_blob_that_cannot_always_be_opened_is_served_whole_all_the_same() {
    let registry = FakeRegistry::start().await;
    let mirror = TestSealgate::with_policy(ACCEPT_ANYTHING).upstream("registry.test", registry.url()).start().await;
    let image = ImageBuilder::new(1).layer(1000).build();
    registry.put(REPOSITORY, "1", &image);
    assert!(pull(&mirror, &image).await);
    let random = std::sync::Mutex::new(Random::new(1));
    let observed = observe(&mirror.dir().join("data"), move |step| match step {
        Step::Open(_) if random.lock().unwrap().percent(30) => Err(io::Error::from_raw_os_error(libc::EMFILE)),
        _ => Ok(()),
    });
    for number in 0..100 {
        assert!(pull(&mirror, &image).await, "pull {number}");
    }
    drop(observed);
    mirror.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_gives_nothing_back_costs_the_cache_and_no_answer() {
    let registry = FakeRegistry::start().await;
    let mut mirror = TestSealgate::with_policy(ACCEPT_ANYTHING).upstream("registry.test", registry.url()).start().await;
    let image = ImageBuilder::new(1).layer(1000).layer(200_000).build();
    registry.put(REPOSITORY, "1", &image);
    for is_cached in [false, true] {
        let observed = fail_those(&mirror.dir().join("data"), |step| matches!(step, Step::Read(_)));
        for number in 0..3 {
            assert!(pull(&mirror, &image).await, "pull {number}, cached: {is_cached}");
        }
        drop(observed);
        assert!(pull(&mirror, &image).await);
        // Nothing is in memory, and no file was hashed yet.
        mirror.restart().await;
    }
    mirror.stop().await;
}

#[tokio::test]
async fn a_pull_is_counted_by_what_the_disk_said() {
    let registry = FakeRegistry::start().await;
    let mirror = TestSealgate::with_policy(ACCEPT_ANYTHING).upstream("registry.test", registry.url()).start().await;
    let image = ImageBuilder::new(1).layer(200_000).build();
    registry.put(REPOSITORY, "1", &image);
    for (code, kind) in [(libc::ENOSPC, "enospc"), (libc::EROFS, "erofs"), (libc::EMFILE, "emfile")] {
        let (observed, _) = fail(&mirror.dir().join("data/staging"), Failing::From(0), code);
        assert!(pull(&mirror, &image).await, "{kind}");
        drop(observed);
        assert!(mirror.metric(&format!("sealgate_cache_write_errors_total{{kind=\"{kind}\"}}")).unwrap() > 0.0);
    }
    assert_eq!(mirror.staging(), Vec::<PathBuf>::new());
    mirror.stop().await;
}

#[tokio::test]
async fn a_disk_that_is_found_full_by_a_sync_or_a_rename_is_counted_too() {
    let directory = fast();
    let telemetry = Telemetry::default();
    let settings = Settings { data_dir: Some(directory.path().to_owned()), max_bytes: 1 << 20, min_free_bytes: 1 };
    let store = Store::open(settings, Clock::System, telemetry.clone()).await.unwrap();
    let full = || {
        let text = telemetry.render();
        let line = text.lines().find(|line| line.starts_with("sealgate_cache_write_errors_total{kind=\"enospc\"}"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap()
    };
    let steps: [fn(&Step<'_>) -> bool; 4] = [
        |step| matches!(step, Step::SyncFile(_)),
        |step| matches!(step, Step::Rename { .. }),
        |step| matches!(step, Step::CreateDirectory(_)),
        |step| matches!(step, Step::SyncDirectory(_)),
    ];
    for (number, is_it) in (1..).zip(steps) {
        let before = full();
        let observed = observe(directory.path(), move |step| {
            if is_it(step) { Err(io::Error::from_raw_os_error(libc::ENOSPC)) } else { Ok(()) }
        });
        let refused = put(&store, &blob(number)).await;
        drop(observed);
        match number {
            // What a sync refuses may be lost, whatever the reason.
            1 => assert!(matches!(refused, Err(StoreError::Io { .. })), "{refused:?}"),
            _ => assert!(matches!(refused, Err(StoreError::NoSpace)), "{refused:?}"),
        }
        assert_eq!(full(), before + 1, "blob {number}");
    }
    // What is larger than the cache is no failure of the disk.
    let before = full();
    assert!(store.stage(Algorithm::Sha256, 2 << 20).await.is_err());
    assert_eq!(full(), before);
    store.close().await;
}

/// The test runs itself as the process that dies: at operation `KILL_AT`, in `KILL_IN`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f_02_a_kill_at_each_step_of_a_commit_leaves_nothing_wrong() {
    const KILL_AT: &str = "SEALGATE_TEST_KILL_AT";
    const KILL_IN: &str = "SEALGATE_TEST_KILL_IN";
    if let (Some(at), Some(directory)) = (std::env::var_os(KILL_AT), std::env::var_os(KILL_IN)) {
        return dies(Path::new(&directory), at.to_str().unwrap().parse().unwrap()).await;
    }
    for at in 0_u64.. {
        let directory = fast();
        let run = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "disk_faults::f_02_a_kill_at_each_step_of_a_commit_leaves_nothing_wrong", "--nocapture"])
            .env(KILL_AT, at.to_string())
            .env(KILL_IN, directory.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stdout).into_owned();
        every_file_is_right(directory.path());
        let started = std::time::Instant::now();
        let store = open(directory.path()).await.unwrap();
        assert!(started.elapsed() < Duration::from_secs(5));
        assert_eq!(std::fs::read_dir(directory.path().join("staging")).unwrap().count(), 0, "kill at {at}");
        for number in [1, 2] {
            let found = store.blob(&Digest::sha256(&blob(number))).await;
            // What was acknowledged is there.
            assert!(found.is_some() || !said.contains(&format!("acknowledged {number}")), "kill at {at}: {said}");
            if let Some(found) = found {
                assert_eq!(read(&found).await.unwrap(), blob(number));
            }
        }
        store.close().await;
        drop(store);
        it_works_again(directory.path()).await;
        if run.status.success() {
            println!("{at} steps");
            assert!(at > 30, "the layer sees too little: {at}");
            return;
        }
    }
}

async fn dies(directory: &Path, at: u64) {
    let count = AtomicU64::new(0);
    let _observed = observe(directory, move |_| {
        if count.fetch_add(1, Ordering::SeqCst) == at {
            // As the kernel or an operator does it: nothing of this process runs any more.
            drop(std::process::Command::new("sh").args(["-c", "kill -9 $PPID"]).status());
            std::thread::sleep(Duration::from_secs(60));
        }
        Ok(())
    });
    let store = open(directory).await.unwrap();
    for number in [1, 2] {
        put(&store, &blob(number)).await.unwrap();
        println!("acknowledged {number}");
    }
    store.keep_content(&Digest::sha256(b"{}"), Bytes::from_static(b"{}")).await;
    store.close().await;
}

/// Puts so many blobs where a store has them.
fn lay_down(directory: &Path, blobs: u64) {
    for number in 0..blobs {
        let content = pseudo_random(number, 40);
        let hex = Digest::sha256(&content).hex();
        let shard = directory.join("blobs/sha256").join(&hex[..2]);
        std::fs::create_dir_all(&shard).unwrap();
        std::fs::write(shard.join(hex), content).unwrap();
    }
}

#[tokio::test]
async fn a_start_costs_the_same_however_much_is_cached() {
    let mut costs = Vec::new();
    for blobs in [0, 3000] {
        let directory = fast();
        open(directory.path()).await.unwrap().close().await;
        lay_down(directory.path(), blobs);
        let (observed, count) = fail(directory.path(), Failing::None, 0);
        // Nothing runs beside it before it is awaited again.
        let store = open(directory.path()).await.unwrap();
        costs.push(count.load(Ordering::SeqCst));
        drop(observed);
        // What eviction needs to know is learnt in the background.
        while store.cache_stats().entries < blobs {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(store.cache_stats().bytes, blobs * 40);
        store.close().await;
    }
    assert_eq!(costs[0], costs[1]);
}

/// The directory's operations that `fails` names fail.
fn fail_those(directory: &Path, fails: fn(&Step<'_>) -> bool) -> Observed {
    observe(directory, move |step| if fails(step) { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) })
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_listed_at_the_start_is_counted_within_minutes() {
    let directory = fast();
    open(directory.path()).await.unwrap().close().await;
    lay_down(directory.path(), 50);
    let observed = fail_those(directory.path(), |step| matches!(step, Step::List(path) if path.ends_with("sha256")));
    let store = open(directory.path()).await.unwrap();
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(store.cache_stats().entries, 0);
    drop(observed);
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!((store.cache_stats().entries, store.cache_stats().bytes), (50, 50 * 40));
    store.close().await;
}

/// Whether it is the directory of the blobs that begin with 8 to f.
fn is_late_shard(path: &Path) -> bool {
    let is_shard = path.parent().is_some_and(|parent| parent.ends_with("sha256"));
    is_shard && path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] >= b'8')
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_cannot_be_listed_hides_no_other() {
    let directory = fast();
    open(directory.path()).await.unwrap().close().await;
    lay_down(directory.path(), 50);
    let observed = fail_those(directory.path(), |step| matches!(step, Step::List(path) if is_late_shard(path)));
    let shards = std::fs::read_dir(directory.path().join("blobs/sha256")).unwrap().map(|shard| shard.unwrap().path());
    let files: usize =
        shards.filter(|shard| !is_late_shard(shard)).map(|shard| std::fs::read_dir(shard).unwrap().count()).sum();
    let store = open(directory.path()).await.unwrap();
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert!((1..50).contains(&files));
    assert_eq!(store.cache_stats().entries, u64::try_from(files).unwrap());
    drop(observed);
    store.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_staged_file_that_could_not_be_removed_is_removed_later() {
    let directory = fast();
    let store = open(directory.path()).await.unwrap();
    let staged = || std::fs::read_dir(directory.path().join("staging")).unwrap().count();
    let observed = fail_those(directory.path(), |step| matches!(step, Step::Remove(_)));
    let mut deserted = store.stage(Algorithm::Sha256, 1000).await.unwrap();
    deserted.write(&Bytes::from_static(b"half")).await.unwrap();
    drop(deserted);
    let mut wrong = store.stage(Algorithm::Sha256, 1000).await.unwrap();
    wrong.write(&Bytes::from_static(b"wrong")).await.unwrap();
    wrong.whole(&Digest::sha256(b"right")).await.unwrap_err();
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(staged(), 2);
    drop(observed);
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(staged(), 0);
    store.close().await;
}

#[tokio::test]
#[ignore = "makes 100 000 files; its number is in docs/performance.md"]
async fn ready_within_a_second_with_100_000_blobs() {
    let registry = FakeRegistry::start().await;
    let mut mirror = TestSealgate::with_policy(ACCEPT_ANYTHING).upstream("registry.test", registry.url()).start().await;
    lay_down(&mirror.dir().join("data"), 100_000);
    let before = std::time::Instant::now();
    mirror.restart().await;
    let ready = mirror.admin_get("/readyz").await.status;
    let took = before.elapsed();
    while mirror.metric("sealgate_cache_entries") < Some(100_000.0) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("ready after {took:?}, with the stop before; all counted after {:?}", before.elapsed());
    assert!(ready == 200 && took < Duration::from_secs(1), "{ready} after {took:?}");
    mirror.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_staged_file_that_a_start_cannot_remove_stops_no_start_and_is_removed_later() {
    let directory = fast();
    open(directory.path()).await.unwrap().close().await;
    let left = directory.path().join("staging/fill-0000000000000001-0");
    std::fs::write(&left, "half").unwrap();
    let observed = fail_those(directory.path(), |step| matches!(step, Step::Remove(_)));
    let store = open(directory.path()).await.unwrap();
    assert!(left.exists());
    drop(observed);
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert!(!left.exists());
    store.close().await;
}
