//! Storage faults: what lies on the disk is changed, taken away, locked or full, and the store is opened over it.
//! Ids such as S-05 are those of the test catalogue in `docs/threat-model.md`.

use std::collections::HashMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use sealgate::clock::{Clock, ManualClock, Timestamp};
use sealgate::limits;
use sealgate::oci::{Algorithm, Digest, ImageReference, ImageSize, MediaType, Repository};
use sealgate::policy::{Decision, Evidence, Reason};
use sealgate::store::{
    BlobFile, Evicted, Eviction, Forgotten, Grant, GrantKind, Settings, Store, StoreError, StoredVerdict, TagPointer,
    VerdictFilter, VerdictKey,
};
use sealgate::telemetry::Telemetry;
use serde_json::json;

/// A data directory, and a clock that stands still.
struct Disk {
    directory: tempfile::TempDir,
    clock: ManualClock,
    max_bytes: u64,
}

impl Disk {
    fn new() -> Self {
        Self::of(tempfile::tempdir().unwrap())
    }

    /// In memory where the system has such a directory: what is changed between two starts needs no disk to be synced.
    fn fast() -> Self {
        Self::of(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap())
    }

    fn of(directory: tempfile::TempDir) -> Self {
        let clock = ManualClock::at(Timestamp::from_unix_seconds(1_800_000_000));
        Self { directory, clock, max_bytes: 1 << 30 }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn open(&self) -> Store {
        self.try_open().await.unwrap()
    }

    async fn try_open(&self) -> Result<Store, StoreError> {
        let settings =
            Settings { data_dir: Some(self.path().to_owned()), max_bytes: self.max_bytes, min_free_bytes: 0 };
        Store::open(settings, Clock::Manual(self.clock.clone()), Telemetry::default()).await
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.path().join("blobs").join(digest.algorithm().as_str()).join(&hex[..2]).join(&hex)
    }

    fn entries(&self, prefix: &str) -> Vec<String> {
        let names = std::fs::read_dir(self.path()).unwrap();
        names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with(prefix))
            .collect()
    }

    fn staged(&self) -> usize {
        std::fs::read_dir(self.path().join("staging")).unwrap().count()
    }

    /// What is given up is removed off the async threads.
    async fn nothing_stays_staged(&self) {
        while self.staged() > 0 {
            tokio::task::yield_now().await;
        }
    }

    fn verdict(&self, image: &str, decision: Decision) -> StoredVerdict {
        StoredVerdict {
            key: key(image),
            decision,
            reason: if decision == Decision::Allow { Reason::Verified } else { Reason::NoSignature },
            text: format!("{decision:?} for {image}"),
            own: decision == Decision::Allow,
            image_size: Some(ImageSize { bytes: 12_345, layers: 3 }),
            issued: self.now(),
            not_after: self.now().plus(Duration::from_hours(24)),
            evidence: None,
            material: vec![Digest::sha256(image.as_bytes())],
            material_complete: true,
        }
    }
}

fn key(image: &str) -> VerdictKey {
    VerdictKey {
        image: image.parse().unwrap(),
        digest: Digest::sha256(image.as_bytes()),
        policy: Digest::sha256(b"policy"),
        trust_root: Digest::sha256(b"trust root"),
    }
}

fn grant(image: &str, kind: GrantKind) -> Grant {
    Grant { kind, size: 7, admitting: Digest::sha256(b"manifest"), image: image.parse().unwrap() }
}

fn repository(image: &str) -> Repository {
    image.parse::<ImageReference>().unwrap().repository
}

fn evidence() -> Evidence {
    Evidence(json!({ "candidates": 0 }))
}

async fn put_blob(store: &Store, content: &[u8]) -> Digest {
    let digest = Digest::sha256(content);
    let mut staged = store.stage(Algorithm::Sha256, u64::try_from(content.len()).unwrap()).await.unwrap();
    staged.write(&Bytes::copy_from_slice(content)).await.unwrap();
    staged.whole(&digest).await.unwrap().commit().await.unwrap();
    digest
}

async fn read(blob: &BlobFile) -> Vec<u8> {
    let mut content = Vec::new();
    loop {
        let chunk = blob.read_at(u64::try_from(content.len()).unwrap(), 1 << 20).await.unwrap();
        if chunk.is_empty() {
            return content;
        }
        content.extend_from_slice(&chunk);
    }
}

#[tokio::test]
async fn a_restart_keeps_verdicts_grants_tags_and_content() {
    let disk = Disk::new();
    let store = disk.open().await;
    let (allow, deny) = (disk.verdict("quay.io/a/b:1", Decision::Allow), disk.verdict("quay.io/a/b:2", Decision::Deny));
    let repository = repository("quay.io/a/b:1");
    let manifest = Bytes::from_static(b"{}");
    let pointer = TagPointer { digest: allow.key.digest, media_type: Some(MediaType::OciIndex), checked: disk.now() };
    store.put_verdict(allow.clone(), &evidence()).await;
    store.put_verdict(deny.clone(), &evidence()).await;
    store.put_grants(&repository, vec![(Digest::sha256(b"layer"), grant("quay.io/a/b:1", GrantKind::Blob))]).await;
    store.put_tag(&repository, &"1".parse().unwrap(), pointer.clone()).await;
    store.put_media_type(&allow.key.digest, MediaType::OciIndex).await;
    store.put_media_type(&allow.key.digest, MediaType::OciManifest).await;
    store.keep_content(&Digest::sha256(&manifest), manifest.clone()).await;
    let blob = put_blob(&store, b"layer").await;
    store.close().await;
    drop(store);

    let store = disk.open().await;
    let found = store.verdict(&allow.key, disk.now()).await.unwrap();
    assert_eq!(*found, StoredVerdict { evidence: found.evidence, ..allow.clone() });
    assert_eq!(store.verdict(&deny.key, disk.now()).await.unwrap().decision, Decision::Deny);
    assert_eq!(*store.grants(&repository, &blob).await, [grant("quay.io/a/b:1", GrantKind::Blob)]);
    assert_eq!(store.tag(&repository, &"1".parse().unwrap()).await, Some(pointer));
    assert_eq!(store.media_type(&allow.key.digest).await, Some(MediaType::OciIndex));
    assert_eq!(store.content(&Digest::sha256(&manifest)).await, Some(manifest));
    let blob = store.blob(&blob).await.unwrap();
    assert!(!blob.is_verified(), "this process has not hashed it");
    assert_eq!((blob.size(), read(&blob).await.as_slice()), (5, b"layer".as_slice()));
    let (_, shown) = store.verdict_by_id(&deny.key.id()).await.unwrap();
    assert_eq!(shown, Some(evidence().0));
    assert!(store.cache_stats().verdicts_on_disk);
}

#[tokio::test]
async fn an_expired_verdict_is_found_only_by_who_asks_for_it_and_a_forgotten_one_not_at_all() {
    let disk = Disk::new();
    let store = disk.open().await;
    let verdict = disk.verdict("quay.io/a/b:1", Decision::Deny);
    store.put_verdict(verdict.clone(), &evidence()).await;
    assert!(store.verdict(&verdict.key, verdict.not_after).await.is_some());
    let later = verdict.not_after.plus(Duration::from_millis(1));
    assert!(store.verdict(&verdict.key, later).await.is_none());
    assert!(store.verdict_any_age(&verdict.key).await.is_some());
    assert_eq!(store.verdicts(&VerdictFilter::default()).await.len(), 1);
    assert_eq!(store.forget_verdict(&verdict.key.id()).await, Forgotten::Gone);
    assert_eq!(store.forget_verdict(&verdict.key.id()).await, Forgotten::Unknown);
    for store in [store.clone(), reopened(&disk, store).await] {
        assert!(store.verdict_any_age(&verdict.key).await.is_none());
        assert!(store.verdict_by_id(&verdict.key.id()).await.is_none());
    }
}

async fn reopened(disk: &Disk, store: Store) -> Store {
    store.close().await;
    drop(store);
    disk.open().await
}

#[tokio::test]
async fn a_verdict_with_much_material_finds_it_again() {
    let disk = Disk::new();
    let store = disk.open().await;
    let material: Vec<Digest> = (0_u8..64).map(|number| Digest::sha256(&[number])).collect();
    let verdict = StoredVerdict { material: material.clone(), ..disk.verdict("quay.io/a/b:1", Decision::Allow) };
    store.put_verdict(verdict.clone(), &evidence()).await;
    let store = reopened(&disk, store).await;
    let found = store.verdict_any_age(&verdict.key).await.unwrap();
    assert_eq!((&found.material, found.material_complete), (&material, true));
    // Without the file it is the same answer, but nothing to reach it again with.
    std::fs::remove_dir_all(disk.path().join("evidence")).unwrap();
    let store = reopened(&disk, store).await;
    let found = store.verdict_any_age(&verdict.key).await.unwrap();
    assert_eq!((found.decision, found.material_complete), (Decision::Allow, false));
}

#[tokio::test]
async fn s_05_a_manifest_whose_file_is_not_what_its_name_says_is_dropped() {
    let faults: [fn(&Path); 4] = [
        |path| flip_bit(path, 1),
        |path| std::fs::write(path, b"{").unwrap(),
        |path| std::fs::write(path, b"{\"swapped\":1}").unwrap(),
        |path| std::fs::write(path, b"").unwrap(),
    ];
    for fault in faults {
        let disk = Disk::new();
        let store = disk.open().await;
        let manifest = Bytes::from_static(b"{\"layers\":[]}");
        let digest = Digest::sha256(&manifest);
        store.keep_content(&digest, manifest.clone()).await;
        let store = reopened(&disk, store).await;
        fault(&disk.blob(&digest));
        assert_eq!(store.content(&digest).await, None);
        assert!(!disk.blob(&digest).exists());
        store.keep_content(&digest, manifest.clone()).await;
        assert_eq!(reopened(&disk, store).await.content(&digest).await, Some(manifest));
    }
}

#[tokio::test]
async fn content_is_kept_whole_up_to_its_bound() {
    let disk = Disk::new();
    let store = disk.open().await;
    let most = Bytes::from(vec![b' '; sealgate::limits::CONTENT_BYTES_MAX]);
    let more = Bytes::from(vec![b' '; sealgate::limits::CONTENT_BYTES_MAX + 1]);
    for content in [&most, &more] {
        store.keep_content(&Digest::sha256(content), content.clone()).await;
    }
    let store = reopened(&disk, store).await;
    assert_eq!(store.content(&Digest::sha256(&most)).await, Some(most));
    assert_eq!(store.content(&Digest::sha256(&more)).await, None);
    // A blob of that size is none either, whoever put it there.
    put_blob(&store, &more).await;
    assert_eq!(store.content(&Digest::sha256(&more)).await, None);
}

/// Asking for a blob while it is put into place must not undo that.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_blob_asked_for_while_it_is_committed_stays() {
    let disk = Disk::new();
    let store = disk.open().await;
    for number in 0_u8..50 {
        let digest = Digest::sha256(&[number]);
        let asking = {
            let store = store.clone();
            tokio::task::spawn(async move { while store.blob(&digest).await.is_none() {} })
        };
        put_blob(&store, &[number]).await;
        tokio::time::timeout(Duration::from_secs(30), asking).await.expect("it is there").unwrap();
    }
    assert_eq!((store.cache_stats().bytes, store.cache_stats().entries), (50, 50));
}

fn flip_bit(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// Small and good enough to place faults; the seed is printed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }
}

const FAULTS: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s_06_no_corruption_of_the_database_makes_an_allow_or_stops_the_start() {
    let template = Disk::fast();
    let mut written = HashMap::new();
    for session in 0..2 {
        let store = template.open().await;
        for number in 0..16 {
            let decision = if number % 2 == 0 { Decision::Allow } else { Decision::Deny };
            let verdict = template.verdict(&format!("quay.io/a/b:{session}-{number}"), decision);
            written.insert(verdict.key.clone(), verdict.clone());
            store.put_verdict(verdict, &evidence()).await;
        }
        store.close().await;
    }
    let written = std::sync::Arc::new(written);
    let mut running = tokio::task::JoinSet::new();
    let mut outcomes: HashMap<Outcome, usize> = HashMap::new();
    for seed in 0..FAULTS {
        let disk = Disk::fast();
        copy(template.path(), disk.path());
        running.spawn(one_corruption(disk, seed, std::sync::Arc::clone(&written)));
        if running.len() == 4 {
            *outcomes.entry(running.join_next().await.unwrap().unwrap()).or_default() += 1;
        }
    }
    while let Some(done) = running.join_next().await {
        *outcomes.entry(done.unwrap()).or_default() += 1;
    }
    println!("{outcomes:?}");
    // Else the faults hit nothing that matters.
    assert!([Outcome::Lost, Outcome::Quarantined].iter().all(|outcome| outcomes.contains_key(outcome)));
}

/// What a fault led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Outcome {
    Unharmed,
    Lost,
    Quarantined,
}

async fn one_corruption(
    disk: Disk,
    seed: usize,
    written: std::sync::Arc<HashMap<VerdictKey, StoredVerdict>>,
) -> Outcome {
    let fault = corrupt(&disk.path().join("verdicts-v1"), seed);
    println!("seed {seed}: {fault}");
    let opened = tokio::time::timeout(Duration::from_secs(35), disk.try_open()).await;
    let store = opened.expect("the store starts in time").expect("the store starts");
    let mut found_ones = 0;
    for (key, written) in written.iter() {
        if let Some(found) = store.verdict_any_age(key).await {
            assert_eq!(*found, StoredVerdict { evidence: found.evidence, ..written.clone() }, "seed {seed}: {fault}");
            found_ones += 1;
        }
    }
    assert!(store.verdict_any_age(&key("quay.io/a/b:never")).await.is_none());
    // Whatever happened, it works again, on disk.
    let fresh = disk.verdict("quay.io/a/b:fresh", Decision::Allow);
    store.put_verdict(fresh.clone(), &evidence()).await;
    assert!(store.verdict(&fresh.key, disk.now()).await.is_some(), "seed {seed}: {fault}");
    store.close().await;
    match disk.entries("verdicts.quarantine-").len() {
        0 if found_ones == written.len() => Outcome::Unharmed,
        0 => Outcome::Lost,
        copies => {
            assert_eq!(copies, 1);
            Outcome::Quarantined
        }
    }
}

/// Damages one file; says how.
fn corrupt(database: &Path, seed: usize) -> String {
    let mut random =
        Random(0x9e37_79b9_7f4a_7c15 ^ (u64::try_from(seed).unwrap() + 1).wrapping_mul(0xd134_2543_de82_ef95));
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(database).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    files.sort();
    // Mostly the file with the records.
    let file = if seed % 4 == 3 { files[random.below(files.len())].clone() } else { database.join("db") };
    let mut bytes = std::fs::read(&file).unwrap();
    // Most of a young database is zeros: faults go to where something is.
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
    let at = random.below(used);
    let end = (at + 4096).min(bytes.len());
    let how = match random.below(4) {
        0 => {
            bytes.truncate(at);
            "truncated"
        }
        1 => {
            bytes[at..end].fill(0);
            "4 KiB zeroed"
        }
        2 => {
            bytes[at..end].iter_mut().for_each(|byte| *byte = u8::try_from(random.below(256)).unwrap());
            "4 KiB random"
        }
        _ => {
            bytes[at.min(used - 1)] ^= 1 << random.below(8);
            "one bit flipped"
        }
    };
    std::fs::write(&file, bytes).unwrap();
    format!("{} {how} at {at}", file.file_name().unwrap().display())
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn s_07_a_record_edited_or_copied_under_another_key_is_none() {
    type Edit = fn(&mut Vec<(sled::IVec, sled::IVec)>);
    let faults: [Edit; 2] = [
        // The allow's record under the denial's key, and the other way round.
        |records| {
            let (first, second) = (records[0].1.clone(), records[1].1.clone());
            (records[0].1, records[1].1) = (second, first);
        },
        // Every byte of the body that could be the decision.
        |records| {
            for (_, value) in records.iter_mut() {
                let place = value.windows(b"Deny".len()).position(|window| window == b"Deny").unwrap_or(60);
                let mut edited = value.to_vec();
                edited[place - 4..place].fill(1);
                *value = edited.into();
            }
        },
    ];
    for fault in faults {
        let disk = Disk::new();
        let store = disk.open().await;
        let (allow, deny) =
            (disk.verdict("quay.io/a/b:1", Decision::Allow), disk.verdict("quay.io/a/b:2", Decision::Deny));
        store.put_verdict(allow.clone(), &evidence()).await;
        store.put_verdict(deny.clone(), &evidence()).await;
        store.close().await;
        drop(store);
        let database = sled::open(disk.path().join("verdicts-v1")).unwrap();
        let mut records: Vec<_> = database.iter().map(Result::unwrap).collect();
        assert_eq!(records.len(), 2);
        fault(&mut records);
        for (place, record) in records {
            database.insert(place, record).unwrap();
        }
        drop(database);
        let store = disk.open().await;
        assert!(store.verdict_any_age(&allow.key).await.is_none());
        assert!(store.verdict_any_age(&deny.key).await.is_none());
    }
}

#[tokio::test]
async fn s_07_records_sealed_with_another_key_are_none() {
    let disk = Disk::new();
    let store = disk.open().await;
    let verdict = disk.verdict("quay.io/a/b:1", Decision::Allow);
    store.put_verdict(verdict.clone(), &evidence()).await;
    store.close().await;
    drop(store);
    std::fs::write(disk.path().join("verdict.key"), "00".repeat(32)).unwrap();
    assert!(disk.open().await.verdict_any_age(&verdict.key).await.is_none());
}

#[tokio::test]
async fn s_07_an_old_database_put_back_is_bounded_by_its_times_and_its_policy() {
    let disk = Disk::new();
    let store = disk.open().await;
    let verdict = disk.verdict("quay.io/a/b:1", Decision::Allow);
    store.put_verdict(verdict.clone(), &evidence()).await;
    store.close().await;
    drop(store);
    let old = Disk::new();
    copy(disk.path(), old.path());
    let store = disk.open().await;
    assert_eq!(store.forget_verdict(&verdict.key.id()).await, Forgotten::Gone);
    store.close().await;
    drop(store);
    std::fs::remove_dir_all(disk.path().join("verdicts-v1")).unwrap();
    copy(&old.path().join("verdicts-v1"), &disk.path().join("verdicts-v1"));
    let store = disk.open().await;
    let after = VerdictKey { policy: Digest::sha256(b"the policy after the revocation"), ..verdict.key.clone() };
    assert!(store.verdict_any_age(&after).await.is_none());
    assert!(store.verdict(&verdict.key, verdict.not_after.plus(Duration::from_millis(1))).await.is_none());
}

#[tokio::test]
async fn s_08_a_second_store_on_the_same_directory_is_refused_and_harms_nothing() {
    let disk = Disk::new();
    let first = disk.open().await;
    let mut staged = first.stage(Algorithm::Sha256, 100).await.unwrap();
    staged.write(&Bytes::from_static(b"half")).await.unwrap();
    let refused = disk.try_open().await;
    assert!(matches!(&refused, Err(StoreError::Locked { path }) if path == disk.path()), "{refused:?}");
    assert_eq!(disk.staged(), 1);
    assert_eq!(disk.entries("verdicts.quarantine-"), [""; 0]);
    staged.whole(&Digest::sha256(b"half")).await.unwrap().commit().await.unwrap();
    assert!(first.blob(&Digest::sha256(b"half")).await.is_some());
    // Memory-only stores, as `sealgate verify` has them, run beside it.
    let settings = Settings { data_dir: None, max_bytes: 100, min_free_bytes: 0 };
    assert!(Store::open(settings, Clock::System, Telemetry::default()).await.is_ok());
}

#[tokio::test]
async fn s_08_the_lock_holds_also_when_its_file_is_taken_away() {
    let disk = Disk::new();
    let first = disk.open().await;
    std::fs::remove_file(disk.path().join("lock")).unwrap();
    let refused = disk.try_open().await;
    assert!(matches!(&refused, Err(StoreError::Locked { path }) if path == disk.path()), "{refused:?}");
    let read = sealgate::store::read_verdicts(disk.path(), disk.now()).await;
    assert!(matches!(&read, Err(StoreError::Locked { path }) if path == disk.path()), "{read:?}");
    first.close().await;
    assert!(disk.try_open().await.is_ok());
}

#[tokio::test]
async fn s_09_what_is_no_plain_file_of_ours_is_never_read() {
    let disk = Disk::new();
    let store = disk.open().await;
    let secret = disk.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    let digest = Digest::sha256(b"secret");
    let path = disk.blob(&digest);
    let shard = path.parent().unwrap();
    std::fs::create_dir_all(shard).unwrap();
    let plant: [fn(&Path, &Path); 4] = [
        |secret, path| symlink(secret, path).unwrap(),
        |secret, path| std::fs::hard_link(secret, path).unwrap(),
        |_, path| assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success()),
        |_, path| symlink("/dev/zero", path).unwrap(),
    ];
    for plant in plant {
        plant(&secret, &path);
        assert!(store.blob(&digest).await.is_none());
        assert_eq!(store.content(&digest).await, None);
        // The next fill puts the real one in its place.
        assert_eq!(put_blob(&store, b"secret").await, digest);
        assert_eq!(read(&store.blob(&digest).await.unwrap()).await, b"secret");
        assert_eq!(std::fs::read(&secret).unwrap(), b"secret");
        std::fs::remove_file(&path).unwrap();
    }
    // A link in place of a shard's directory.
    std::fs::remove_dir(shard).unwrap();
    let elsewhere = disk.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::write(elsewhere.join(digest.hex()), "secret").unwrap();
    symlink(&elsewhere, shard).unwrap();
    assert!(store.blob(&digest).await.is_none());
}

#[tokio::test]
async fn s_10_a_blob_does_not_go_while_it_is_read_and_goes_later() {
    let mut disk = Disk::new();
    disk.max_bytes = 1 << 20;
    let store = disk.open().await;
    let content = vec![7; 700_000];
    let digest = put_blob(&store, &content).await;
    let mut readers = Vec::new();
    for _ in 0..10 {
        let blob = store.blob(&digest).await.unwrap();
        assert_eq!(blob.read_at(0, 10).await.unwrap().len(), 10);
        readers.push(blob);
    }
    // As a connection has it that sends the file without reading it.
    let mapping = readers.pop().unwrap().map().unwrap();
    let other = Bytes::from(vec![8; 700_000]);
    let other_digest = Digest::sha256(&other);
    let put_other = async || {
        let mut staged = store.stage(Algorithm::Sha256, 700_000).await.unwrap();
        staged.write(&other).await.unwrap();
        staged.whole(&other_digest).await.unwrap().commit().await
    };
    assert!(matches!(put_other().await, Err(StoreError::NoSpace)));
    assert!(store.blob(&digest).await.is_some());
    assert_eq!((store.evict(Eviction::Blob(digest)).await, disk.staged()), (Evicted::InUse, 0));
    assert_eq!(store.evict(Eviction::All).await, Evicted::Gone { files: 0, bytes: 0 });
    for reader in readers {
        assert_eq!(read(&reader).await, content);
    }
    assert!(matches!(put_other().await, Err(StoreError::NoSpace)), "the mapping is still there");
    drop(mapping);
    put_other().await.unwrap();
    assert!(store.blob(&digest).await.is_none());
    assert!(!disk.blob(&digest).exists());
    assert_eq!((store.cache_stats().bytes, store.cache_stats().entries), (700_000, 1));
}

#[tokio::test]
async fn s_10_who_follows_a_fill_reads_the_blob_that_it_became() {
    let mut disk = Disk::new();
    disk.max_bytes = 1 << 20;
    let store = disk.open().await;
    let content = Bytes::from(vec![7; 700_000]);
    let digest = Digest::sha256(&content);
    let mut staged = store.stage(Algorithm::Sha256, 700_000).await.unwrap();
    staged.write(&content).await.unwrap();
    let follower = staged.reader();
    staged.whole(&digest).await.unwrap().commit().await.unwrap();
    assert_eq!(store.evict(Eviction::Blob(digest)).await, Evicted::InUse);
    assert_eq!(follower.read_at(699_990, 100).await.unwrap(), [7; 10].as_slice());
    drop(follower);
    assert_eq!(store.evict(Eviction::Blob(digest)).await, Evicted::Gone { files: 1, bytes: 700_000 });
    assert_eq!(store.evict(Eviction::Blob(digest)).await, Evicted::Unknown);
}

#[tokio::test]
async fn an_operator_evicts_what_was_used_longest_ago_or_everything() {
    let disk = Disk::new();
    let store = disk.open().await;
    let mut blobs = Vec::new();
    for number in 0_u8..4 {
        disk.clock.advance(Duration::from_secs(2));
        blobs.push(put_blob(&store, &vec![number; 100_000]).await);
    }
    disk.clock.advance(Duration::from_secs(2));
    drop(store.blob(&blobs[0]).await.unwrap());
    let manifest = Bytes::from_static(b"{}");
    store.keep_content(&Digest::sha256(&manifest), manifest.clone()).await;
    assert_eq!(store.evict(Eviction::Bytes(100_001)).await, Evicted::Gone { files: 2, bytes: 200_000 });
    let mut left = Vec::new();
    for blob in &blobs {
        left.push(store.blob(blob).await.is_some());
    }
    assert_eq!(left, [true, false, false, true]);
    assert_eq!(store.evict(Eviction::All).await, Evicted::Gone { files: 3, bytes: 200_002 });
    // Neither from the disk nor from memory.
    assert_eq!(store.content(&Digest::sha256(&manifest)).await, None);
    assert_eq!((store.cache_stats().bytes, store.cache_stats().entries), (0, 0));
}

#[tokio::test]
async fn s_11_a_grant_without_a_file_is_a_miss_and_nothing_worse() {
    let disk = Disk::new();
    let store = disk.open().await;
    let digest = put_blob(&store, b"layer").await;
    let repository = repository("quay.io/a/b:1");
    store.put_grants(&repository, vec![(digest, grant("quay.io/a/b:1", GrantKind::Blob))]).await;
    std::fs::remove_file(disk.blob(&digest)).unwrap();
    assert!(store.blob(&digest).await.is_none());
    assert_eq!((store.cache_stats().bytes, store.cache_stats().entries), (0, 0));
    assert_eq!(store.grants(&repository, &digest).await.len(), 1);
    put_blob(&store, b"layer").await;
    assert!(store.blob(&digest).await.is_some());
}

#[tokio::test]
async fn s_12_directories_taken_away_while_it_runs_come_back() {
    let disk = Disk::new();
    let store = disk.open().await;
    let digest = put_blob(&store, b"layer").await;
    let verdict = disk.verdict("quay.io/a/b:1", Decision::Allow);
    let mut staged = store.stage(Algorithm::Sha256, 100).await.unwrap();
    staged.write(&Bytes::from_static(b"half")).await.unwrap();
    let reader = staged.reader();
    for entry in std::fs::read_dir(disk.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { std::fs::remove_dir_all(path).unwrap() } else { std::fs::remove_file(path).unwrap() }
    }
    assert!(store.blob(&digest).await.is_none());
    let whole = staged.whole(&Digest::sha256(b"half")).await.unwrap();
    assert!(matches!(whole.commit().await, Err(StoreError::Io { .. })));
    assert_eq!(reader.read_at(0, 10).await.unwrap(), "half");
    store.put_verdict(verdict.clone(), &evidence()).await;
    assert!(store.verdict(&verdict.key, disk.now()).await.is_some());
    put_blob(&store, b"layer").await;
    assert_eq!(read(&store.blob(&digest).await.unwrap()).await, b"layer");
    assert_eq!(store.cache_stats().entries, 1);
    store.close().await;
}

#[tokio::test]
async fn a_snapshot_left_half_written_costs_no_verdict() {
    let disk = Disk::new();
    let store = disk.open().await;
    let verdict = disk.verdict("quay.io/a/b:1", Decision::Allow);
    store.put_verdict(verdict.clone(), &evidence()).await;
    store.close().await;
    drop(store);
    std::fs::write(disk.path().join("verdicts-v1/snap.00000000FFFFFFFF.generating"), "half").unwrap();
    let store = disk.open().await;
    assert!(store.verdict(&verdict.key, disk.now()).await.is_some());
    assert_eq!(disk.entries("verdicts.quarantine-"), [""; 0]);
}

#[tokio::test]
async fn s_13_databases_of_other_forms_are_left_alone() {
    let disk = Disk::new();
    for other in ["verdicts-v0", "verdicts-v2"] {
        std::fs::create_dir(disk.path().join(other)).unwrap();
        std::fs::write(disk.path().join(other).join("db"), "another form").unwrap();
    }
    let store = disk.open().await;
    store.put_verdict(disk.verdict("quay.io/a/b:1", Decision::Allow), &evidence()).await;
    store.close().await;
    for other in ["verdicts-v0", "verdicts-v2"] {
        assert_eq!(std::fs::read(disk.path().join(other).join("db")).unwrap(), b"another form");
    }
    assert!(disk.path().join("verdicts-v1").is_dir());
}

#[tokio::test]
async fn s_02_without_a_usable_database_everything_goes_on_in_memory() {
    let disk = Disk::new();
    std::fs::write(disk.path().join("verdicts-v1"), "not a directory").unwrap();
    let store = disk.open().await;
    assert!(!store.cache_stats().verdicts_on_disk);
    let verdict = disk.verdict("quay.io/a/b:1", Decision::Allow);
    let repository = repository("quay.io/a/b:1");
    store.put_verdict(verdict.clone(), &evidence()).await;
    store.put_grants(&repository, vec![(verdict.key.digest, grant("quay.io/a/b:1", GrantKind::Manifest))]).await;
    assert!(store.verdict(&verdict.key, disk.now()).await.is_some());
    assert_eq!(store.grants(&repository, &verdict.key.digest).await.len(), 1);
    store.close().await;
    assert_eq!(std::fs::read(disk.path().join("verdicts-v1")).unwrap(), b"not a directory");
    assert_eq!(disk.entries("verdicts.quarantine-"), [""; 0]);
}

#[tokio::test]
async fn r_04_a_blob_larger_than_the_cache_is_not_cached_and_evicts_nothing() {
    let mut disk = Disk::new();
    disk.max_bytes = 100;
    let store = disk.open().await;
    let small = put_blob(&store, b"small").await;
    for _ in 0..3 {
        // It does not even take room on the disk on its way.
        assert!(matches!(store.stage(Algorithm::Sha256, 101).await, Err(StoreError::NoSpace)));
    }
    assert!(store.blob(&small).await.is_some());
    assert_eq!((store.cache_stats().entries, disk.staged()), (1, 0));
    // Exactly as large is cached.
    put_blob(&store, &[2; 100]).await;
    assert_eq!(store.cache_stats().bytes, 100);
}

#[tokio::test]
async fn a_blob_that_three_repositories_share_is_stored_once() {
    let disk = Disk::new();
    let store = disk.open().await;
    for image in ["quay.io/a/a:1", "quay.io/b/b:1", "docker.io/c/c:1"] {
        let digest = put_blob(&store, b"shared layer").await;
        store.put_grants(&repository(image), vec![(digest, grant(image, GrantKind::Blob))]).await;
    }
    assert_eq!((store.cache_stats().bytes, store.cache_stats().entries), (12, 1));
    assert!(store.grants(&repository("quay.io/d/d:1"), &Digest::sha256(b"shared layer")).await.is_empty());
}

#[tokio::test]
async fn grants_on_disk_are_not_lost_to_new_ones_and_a_revoked_one_stays_away() {
    let disk = Disk::new();
    let store = disk.open().await;
    let (layer, repository) = (Digest::sha256(b"layer"), repository("quay.io/a/b:1"));
    let [one, two] = ["quay.io/a/b:1", "quay.io/a/b:2"].map(|image| grant(image, GrantKind::Blob));
    store.put_grants(&repository, vec![(layer, one.clone())]).await;
    let store = reopened(&disk, store).await;
    store.put_grants(&repository, vec![(layer, two.clone())]).await;
    assert_eq!(*store.grants(&repository, &layer).await, [two.clone(), one.clone()]);
    store.revoke_grants(&repository, &layer, &two.image).await;
    assert_eq!(&*store.grants(&repository, &layer).await, std::slice::from_ref(&one));
    let store = reopened(&disk, store).await;
    assert_eq!(&*store.grants(&repository, &layer).await, std::slice::from_ref(&one));
    store.revoke_grants(&repository, &layer, &one.image).await;
    assert!(store.grants(&repository, &layer).await.is_empty());
    assert!(reopened(&disk, store).await.grants(&repository, &layer).await.is_empty());
}

#[tokio::test]
async fn a_grant_given_after_it_was_asked_for_in_vain_is_found() {
    let disk = Disk::new();
    let store = disk.open().await;
    let (layer, repository) = (Digest::sha256(b"layer"), repository("quay.io/a/b:1"));
    assert_eq!(store.find_grants(&repository, &layer).await.unwrap().len(), 0);
    store.put_grants(&repository, vec![(layer, grant("quay.io/a/b:1", GrantKind::Blob))]).await;
    assert_eq!(store.find_grants(&repository, &layer).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_a_killed_process_left_half_written_is_gone_after_the_start() {
    let disk = Disk::new();
    let store = disk.open().await;
    let digest = put_blob(&store, b"whole").await;
    let mut staged = store.stage(Algorithm::Sha256, 100).await.unwrap();
    staged.write(&Bytes::from_static(b"half")).await.unwrap();
    // As after kill -9: the files as they are now, and nobody who tidies up.
    let after = Disk::new();
    copy(disk.path(), after.path());
    assert_eq!(after.staged(), 1);
    let restarted = after.open().await;
    assert_eq!(after.staged(), 0);
    assert_eq!(read(&restarted.blob(&digest).await.unwrap()).await, b"whole");
    assert!(restarted.blob(&Digest::sha256(b"half")).await.is_none());
}

#[tokio::test]
async fn a_staged_file_is_removed_unless_its_digest_and_size_are_right() {
    let disk = Disk::new();
    let store = disk.open().await;
    let mut staged = store.stage(Algorithm::Sha256, 4).await.unwrap();
    staged.write(&Bytes::from_static(b"half")).await.unwrap();
    let more = staged.write(&Bytes::from_static(b"!")).await;
    assert!(matches!(more, Err(StoreError::TooLong { allowed: 4 })), "{more:?}");
    assert_eq!(staged.written(), 4);
    let reader = staged.reader();
    let wrong = staged.whole(&Digest::sha256(b"whole")).await;
    assert!(
        matches!(&wrong, Err(StoreError::DigestMismatch { found, .. }) if **found == Digest::sha256(b"half")),
        "{wrong:?}"
    );
    disk.nothing_stays_staged().await;
    assert!(!disk.blob(&Digest::sha256(b"half")).exists());
    assert_eq!(reader.read_at(1, 2).await.unwrap(), "al");
    drop(store.stage(Algorithm::Sha256, 4).await.unwrap());
    disk.nothing_stays_staged().await;
    // The same bytes by another algorithm are another blob.
    let long = Digest::of(Algorithm::Sha512, b"half");
    let mut staged = store.stage(Algorithm::Sha512, 4).await.unwrap();
    staged.write_pieces(vec![Bytes::from_static(b"ha"), Bytes::from_static(b"lf")]).await.unwrap();
    staged.whole(&long).await.unwrap().commit().await.unwrap();
    assert_eq!(read(&store.blob(&long).await.unwrap()).await, b"half");
    assert!(store.blob(&Digest::sha256(b"half")).await.is_none());
}

/// What lies on the disk of a process that was killed when these blobs were whole and not in place.
async fn killed_with_whole(blobs: &[&'static [u8]]) -> Disk {
    let (disk, killed) = (Disk::fast(), Disk::fast());
    let store = disk.open().await;
    let mut whole = Vec::new();
    for content in blobs {
        let mut staged = store.stage(Algorithm::Sha256, 100).await.unwrap();
        staged.write(&Bytes::from_static(content)).await.unwrap();
        whole.push(staged.whole(&Digest::sha256(content)).await.unwrap());
    }
    let mut unfinished = store.stage(Algorithm::Sha256, 100).await.unwrap();
    unfinished.write(&Bytes::from_static(b"a part")).await.unwrap();
    std::fs::create_dir(killed.path().join("staging")).unwrap();
    for entry in std::fs::read_dir(disk.path().join("staging")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), killed.path().join("staging").join(entry.file_name())).unwrap();
    }
    assert_eq!(killed.staged(), blobs.len() + 1);
    drop((whole, unfinished));
    store.close().await;
    killed
}

/// The names in `staging/` of blobs that were whole.
fn names_of_whole(disk: &Disk) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(disk.path().join("staging")).unwrap();
    let names = entries.map(|entry| entry.unwrap().path());
    names.filter(|path| path.to_str().unwrap().contains(".sha256-")).collect()
}

#[tokio::test]
async fn f_02_a_blob_that_was_whole_when_the_process_was_killed_is_there_after_the_next_start() {
    let disk = killed_with_whole(&[b"layer", b"config"]).await;
    let store = disk.open().await;
    disk.nothing_stays_staged().await;
    for content in [&b"layer"[..], b"config"] {
        let blob = store.blob(&Digest::sha256(content)).await.unwrap();
        assert!(blob.is_verified(), "it has been hashed again");
        assert_eq!(read(&blob).await, content);
    }
    assert_eq!((disk.staged(), store.cache_stats().bytes, store.cache_stats().entries), (0, 11, 2));
}

#[tokio::test]
async fn f_03_a_blob_that_was_whole_before_the_machine_was_started_again_is_not_believed() {
    let disk = killed_with_whole(&[b"layer"]).await;
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    for path in names_of_whole(&disk) {
        let other = path.to_str().unwrap().replace(boot.trim(), "00000000-0000-4000-8000-000000000000");
        std::fs::rename(path, other).unwrap();
    }
    let store = disk.open().await;
    disk.nothing_stays_staged().await;
    assert!(store.blob(&Digest::sha256(b"layer")).await.is_none());
    assert_eq!((disk.staged(), store.cache_stats().entries), (0, 0));
}

#[tokio::test]
async fn f_03_a_blob_that_was_whole_and_has_lost_some_of_it_is_not_put_into_place() {
    let disk = killed_with_whole(&[b"layer", b"config"]).await;
    for path in names_of_whole(&disk) {
        flip_bit(&path, 0);
    }
    let store = disk.open().await;
    disk.nothing_stays_staged().await;
    for content in [&b"layer"[..], b"config"] {
        assert!(store.blob(&Digest::sha256(content)).await.is_none());
    }
    assert_eq!((disk.staged(), store.cache_stats().entries), (0, 0));
}

#[tokio::test]
async fn f_02_a_blob_that_was_whole_takes_the_place_of_none_that_is_there() {
    let disk = killed_with_whole(&[b"layer"]).await;
    let place = disk.blob(&Digest::sha256(b"layer"));
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    std::fs::write(&place, b"layer").unwrap();
    let there = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&place).unwrap());
    let store = disk.open().await;
    disk.nothing_stays_staged().await;
    assert!(store.blob(&Digest::sha256(b"layer")).await.is_some());
    assert_eq!(std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&place).unwrap()), there);
    assert_eq!(disk.staged(), 0);
}

#[tokio::test]
async fn s_09_what_only_looks_like_a_whole_blob_is_not_put_into_place() {
    let disk = killed_with_whole(&[b"layer", b"config"]).await;
    let elsewhere = disk.path().join("elsewhere");
    std::fs::write(&elsewhere, "mine").unwrap();
    for (number, path) in names_of_whole(&disk).into_iter().enumerate() {
        std::fs::remove_file(&path).unwrap();
        if number == 0 {
            std::fs::hard_link(&elsewhere, path).unwrap();
        } else {
            symlink(&elsewhere, path).unwrap();
        }
    }
    let store = disk.open().await;
    assert!(store.blob(&Digest::sha256(b"layer")).await.is_none());
    assert!(store.blob(&Digest::sha256(b"config")).await.is_none());
    assert_eq!(std::fs::read(&elsewhere).unwrap(), b"mine");
}

#[tokio::test]
async fn a_start_puts_so_many_blobs_into_place_and_no_more() {
    let disk = killed_with_whole(&[b"layer"]).await;
    let [path] = <[PathBuf; 1]>::try_from(names_of_whole(&disk)).unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    std::fs::remove_file(&path).unwrap();
    for number in 0..=limits::RESCUED_FILES_MAX {
        let content = number.to_string();
        let hex = Digest::sha256(content.as_bytes()).hex();
        let name = format!("fill-{number}.{}.sha256-{hex}", boot.trim());
        std::fs::write(path.with_file_name(name), content).unwrap();
    }
    let store = disk.open().await;
    while disk.staged() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.cache_stats().entries, u64::try_from(limits::RESCUED_FILES_MAX).unwrap());
}

#[tokio::test]
async fn a_commit_whose_caller_leaves_ends_all_the_same() {
    let disk = Disk::new();
    let store = disk.open().await;
    let content = Bytes::from_static(b"layer");
    let digest = Digest::sha256(&content);
    let mut staged = store.stage(Algorithm::Sha256, 5).await.unwrap();
    staged.write(&content).await.unwrap();
    let mut commit = Box::pin(staged.whole(&digest).await.unwrap().commit());
    // Polled once, then dropped.
    assert!(futures_util::poll!(&mut commit).is_pending());
    drop(commit);
    while store.blob(&digest).await.is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(disk.staged(), 0);
}

#[tokio::test]
async fn a_blob_is_verified_until_its_file_is_another() {
    let disk = Disk::new();
    let store = disk.open().await;
    let digest = put_blob(&store, b"layer").await;
    assert!(store.blob(&digest).await.unwrap().is_verified());
    flip_bit(&disk.blob(&digest), 0);
    // Another time of modification, whatever the clock's resolution.
    let touched = std::fs::File::options().write(true).open(disk.blob(&digest)).unwrap();
    touched.set_modified(std::time::UNIX_EPOCH).unwrap();
    let blob = store.blob(&digest).await.unwrap();
    assert!(!blob.is_verified());
    blob.mark_verified();
    assert!(store.blob(&digest).await.unwrap().is_verified());
    blob.condemn().await;
    assert!(store.blob(&digest).await.is_none());
    put_blob(&store, b"layer").await;
    let store = reopened(&disk, store).await;
    assert!(!store.blob(&digest).await.unwrap().is_verified());
}

#[tokio::test]
async fn listed_verdicts_outlive_the_process() {
    let disk = Disk::new();
    let store = disk.open().await;
    for (tag, decision) in [("1", Decision::Allow), ("2", Decision::Deny), ("3", Decision::Deny)] {
        let verdict = disk.verdict(&format!("quay.io/a/b:{tag}"), decision);
        store.put_verdict(verdict, &Evidence(json!({ "tag": tag }))).await;
        disk.clock.advance(Duration::from_secs(1));
    }
    assert_eq!(evidence_files(&disk), 3);
    let store = reopened(&disk, store).await;
    let denied = VerdictFilter { decision: Some(Decision::Deny), ..VerdictFilter::default() };
    // The list is read in the background.
    let mut listed = store.verdicts(&denied).await;
    while listed.len() < 2 {
        tokio::task::yield_now().await;
        listed = store.verdicts(&denied).await;
    }
    let images: Vec<String> = listed.iter().map(|verdict| verdict.key.image.to_string()).collect();
    assert_eq!(images, ["quay.io/a/b:3", "quay.io/a/b:2"]);
    // A verdict reached again takes its old evidence along.
    let again = disk.verdict("quay.io/a/b:3", Decision::Allow);
    store.put_verdict(again, &Evidence(json!({ "tag": "3, again" }))).await;
    assert_eq!(evidence_files(&disk), 3);
}

fn evidence_files(disk: &Disk) -> usize {
    let shards = std::fs::read_dir(disk.path().join("evidence")).unwrap();
    shards.map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap().count()).sum()
}

#[tokio::test]
async fn time_that_steps_back_is_noticed_after_a_restart_too() {
    let disk = Disk::new();
    let store = disk.open().await;
    assert!(!store.time_went_back(disk.now()));
    let store = reopened(&disk, store).await;
    assert!(!store.time_went_back(disk.now().minus(Duration::from_mins(5))));
    assert!(store.time_went_back(disk.now().minus(Duration::from_hours(24))));
}

#[tokio::test]
async fn a_store_in_memory_leaves_nothing_behind() {
    let settings = Settings { data_dir: None, max_bytes: 1 << 20, min_free_bytes: 0 };
    let store = Store::open(settings, Clock::System, Telemetry::default()).await.unwrap();
    let disk = Disk::new();
    let verdict = disk.verdict("quay.io/a/b:1", Decision::Allow);
    let (manifest, digest) = (Bytes::from_static(b"{}"), Digest::sha256(b"{}"));
    store.keep_content(&digest, manifest.clone()).await;
    store.put_verdict(verdict.clone(), &evidence()).await;
    assert_eq!(store.content(&digest).await, Some(manifest));
    assert_eq!(store.verdict_by_id(&verdict.key.id()).await.unwrap().1, Some(evidence().0));
    assert!(!store.cache_stats().verdicts_on_disk);
    let blob = put_blob(&store, b"layer").await;
    assert_eq!(read(&store.blob(&blob).await.unwrap()).await, b"layer");
    store.close().await;
}

/// Takes all room that is left.
fn fill(path: &Path) {
    let mut ballast = std::fs::File::create(path).unwrap();
    while std::io::Write::write(&mut ballast, &[0; 4096]).is_ok_and(|written| written > 0) {}
}

/// A file system of 4 MiB in a name space of its own; this test runs itself there.
/// CVE-2024-51491.
#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story: a disk fills up, and is emptied again")]
async fn s_01_s_02_a_full_disk_costs_the_cache_and_no_answer() {
    const INSIDE: &str = "SEALGATE_TEST_SMALL_DISK";
    let Some(small) = std::env::var_os(INSIDE) else {
        let directory = tempfile::tempdir().unwrap();
        let script = format!(
            "mount -t tmpfs -o size=4m none '{0}' && {INSIDE}='{0}' exec \"$0\" --exact \
            store_faults::s_01_s_02_a_full_disk_costs_the_cache_and_no_answer --nocapture",
            directory.path().display()
        );
        let run = |script: &str| {
            std::process::Command::new("unshare")
                .args(["-Urm", "sh", "-c", script])
                .arg(std::env::current_exe().unwrap())
                .output()
        };
        let possible = format!("mount -t tmpfs -o size=4m none '{}'", directory.path().display());
        if !run(&possible).is_ok_and(|output| output.status.success()) {
            println!("skipped: this system lets us make no name space with a small file system");
            return;
        }
        let output = run(&script).unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    };
    let disk = Disk::of(tempfile::tempdir_in(small).unwrap());
    let store = disk.open().await;
    let small = put_blob(&store, b"small").await;
    let verdict = disk.verdict("quay.io/a/b:1", Decision::Allow);
    store.put_verdict(verdict.clone(), &evidence()).await;
    let store = reopened(&disk, store).await;
    assert!(store.verdict(&verdict.key, disk.now()).await.is_some());

    // What cannot find room is not begun; what was begun ends when somebody else fills the disk.
    assert!(matches!(store.stage(Algorithm::Sha256, 1 << 29).await, Err(StoreError::NoSpace)));
    let mut staged = store.stage(Algorithm::Sha256, 2_000_000).await.unwrap();
    let piece = Bytes::from(vec![7; 100_000]);
    staged.write(&piece).await.unwrap();
    fill(&disk.path().join("others"));
    let full = loop {
        if let Err(error) = staged.write(&piece).await {
            break error;
        }
    };
    assert!(matches!(full, StoreError::NoSpace), "{full:?}");
    let written = staged.written();
    let last = staged.reader().read_at(written - 10, 100).await.unwrap();
    assert!(last.starts_with(&[7; 10]));

    // While it is full: nothing can be put on disk, and everything is answered.
    let manifest = Bytes::from(vec![b' '; 200_000]);
    store.keep_content(&Digest::sha256(&manifest), manifest.clone()).await;
    assert_eq!(store.content(&Digest::sha256(&manifest)).await, Some(manifest));
    let mut many = Vec::new();
    for number in 0..3000 {
        let image = format!("quay.io/a/b:full-{number}");
        let verdict = StoredVerdict { material: Vec::new(), ..disk.verdict(&image, Decision::Deny) };
        store.put_verdict(verdict.clone(), &evidence()).await;
        many.push(verdict.key);
    }
    for key in &many {
        assert_eq!(store.verdict(key, disk.now()).await.unwrap().decision, Decision::Deny);
    }
    assert!(store.verdict(&verdict.key, disk.now()).await.is_some());
    assert_eq!(read(&store.blob(&small).await.unwrap()).await, b"small");
    store.close().await;
    drop(store);

    // Started while it is full: nothing is moved aside, and it serves.
    let blocked = disk.path().join("ballast");
    drop(staged);
    disk.nothing_stays_staged().await;
    fill(&blocked);
    let store = disk.open().await;
    assert_eq!(disk.entries("verdicts.quarantine-"), [""; 0]);
    assert_eq!(read(&store.blob(&small).await.unwrap()).await, b"small");
    store.close().await;
    drop(store);

    // With space again everything that was flushed is there.
    std::fs::remove_file(blocked).unwrap();
    std::fs::remove_file(disk.path().join("others")).unwrap();
    let store = disk.open().await;
    assert_eq!(disk.entries("verdicts.quarantine-"), [""; 0]);
    assert!(store.verdict(&verdict.key, disk.now()).await.is_some());
    put_blob(&store, b"fits again").await;
}
