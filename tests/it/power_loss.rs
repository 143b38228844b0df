//! Power loss: the file operations of a store are recorded, and every prefix of them is replayed as a disk might have it
//! afterwards, with and without what was not synced. F-03 of the test catalogue in `docs/threat-model.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use sealgate::clock::{Clock, ManualClock, Timestamp};
use sealgate::oci::{Algorithm, Digest};
use sealgate::store::faults::{Step, observe};
use sealgate::store::{Settings, Store};
use sealgate::telemetry::Telemetry;
use sealgate::testing::pseudo_random;

/// One operation that changes what is on disk; paths are below the data directory.
#[derive(Debug, Clone)]
enum Change {
    CreateDirectory(PathBuf),
    Create(PathBuf),
    Write {
        path: PathBuf,
        bytes: Vec<u8>,
        offset: usize,
    },
    SyncFile(PathBuf),
    SyncDirectory(PathBuf),
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove(PathBuf),
    /// The caller was told that the blob is kept.
    Acknowledged(Digest),
}

fn change(root: &Path, step: &Step<'_>) -> Option<Change> {
    let below = |path: &Path| path.strip_prefix(root).unwrap().to_owned();
    Some(match step {
        Step::CreateDirectory(path) => Change::CreateDirectory(below(path)),
        Step::Create(path) => Change::Create(below(path)),
        Step::Write { path, bytes, offset } => {
            Change::Write { path: below(path), bytes: bytes.to_vec(), offset: usize::try_from(*offset).unwrap() }
        }
        Step::SyncFile(path) => Change::SyncFile(below(path)),
        Step::SyncDirectory(path) => Change::SyncDirectory(below(path)),
        Step::Rename { from, to } => Change::Rename { from: below(from), to: below(to) },
        Step::Remove(path) => Change::Remove(below(path)),
        Step::Open(_) | Step::Read(_) | Step::List(_) | Step::Look(_) | Step::SetTimes(_) | Step::FreeSpace(_) => {
            return None;
        }
    })
}

async fn open(directory: &Path, max_bytes: u64) -> Store {
    let settings = Settings { data_dir: Some(directory.to_owned()), max_bytes, min_free_bytes: 0 };
    let clock = ManualClock::at(Timestamp::from_unix_seconds(1_800_000_000));
    Store::open(settings, Clock::Manual(clock), Telemetry::default()).await.unwrap()
}

fn blob(number: u64) -> Bytes {
    pseudo_random(number, 100_000)
}

async fn put(store: &Store, content: &Bytes) {
    let mut staged = store.stage(Algorithm::Sha256, u64::try_from(content.len()).unwrap()).await.unwrap();
    staged.write(&content.slice(..60_000)).await.unwrap();
    staged.write(&content.slice(60_000..)).await.unwrap();
    staged.whole(&Digest::sha256(content)).await.unwrap().commit().await.unwrap();
}

/// The first life of a store, operation by operation.
async fn record() -> Vec<Change> {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().to_owned();
    let changes: Arc<Mutex<Vec<Change>>> = Arc::default();
    let recorded = Arc::clone(&changes);
    let observed = observe(directory.path(), move |step| {
        recorded.lock().unwrap().extend(change(&root, step));
        Ok(())
    });
    // Room for three of the four blobs: the record has an eviction too.
    let store = open(directory.path(), 350_000).await;
    for number in 0..4 {
        put(&store, &blob(number)).await;
        changes.lock().unwrap().push(Change::Acknowledged(Digest::sha256(&blob(number))));
    }
    let manifest = Bytes::from_static(b"{}");
    store.keep_content(&Digest::sha256(&manifest), manifest).await;
    store.blob(&Digest::sha256(&blob(3))).await.unwrap().condemn().await;
    store.close().await;
    drop(observed);
    changes.lock().unwrap().clone()
}

/// What became of writes that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unsynced {
    Kept,
    Lost,
    /// The length is there, the content is not.
    Zeros,
    Half,
}

const UNSYNCED: [Unsynced; 4] = [Unsynced::Kept, Unsynced::Lost, Unsynced::Zeros, Unsynced::Half];

/// Which changes of directories that were not synced are there.
#[derive(Debug, Clone, Copy)]
enum Names {
    All,
    None,
    /// Each by a bit of this number.
    Some(u64),
}

/// A file, by whatever name.
#[derive(Debug, Default, Clone)]
struct Inode {
    content: Vec<u8>,
    synced: Vec<u8>,
}

impl Inode {
    fn after(&self, unsynced: Unsynced) -> Vec<u8> {
        match unsynced {
            Unsynced::Kept => self.content.clone(),
            Unsynced::Lost => self.synced.clone(),
            Unsynced::Zeros => {
                let mut content = self.synced.clone();
                content.resize(self.content.len().max(content.len()), 0);
                content
            }
            Unsynced::Half => {
                let more = self.content.get(self.synced.len()..).unwrap_or_default();
                [&self.synced[..], &more[..more.len() / 2]].concat()
            }
        }
    }
}

/// A change of a directory.
#[derive(Debug, Clone)]
struct Entry {
    directories: Vec<PathBuf>,
    what: What,
    synced: bool,
}

#[derive(Debug, Clone)]
enum What {
    Directory(PathBuf),
    Name { path: PathBuf, inode: usize },
    Move { from: PathBuf, to: PathBuf, inode: usize },
    Gone(PathBuf),
}

/// What has happened until the power goes.
#[derive(Debug, Default)]
struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    directories: BTreeSet<PathBuf>,
    entries: Vec<Entry>,
    acknowledged: BTreeSet<Digest>,
    /// Blobs that were taken away again, by eviction or for being wrong.
    removed: BTreeSet<PathBuf>,
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap().to_owned()
}

impl Disk {
    fn of(changes: &[Change]) -> Self {
        let mut disk = Self::default();
        for change in changes {
            disk.apply(change);
        }
        disk
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::CreateDirectory(path) => {
                let missing: Vec<PathBuf> = path
                    .ancestors()
                    .filter(|path| !path.as_os_str().is_empty() && !self.directories.contains(*path))
                    .map(Path::to_owned)
                    .collect();
                for path in missing.into_iter().rev() {
                    self.enter(vec![parent(&path)], What::Directory(path.clone()));
                    self.directories.insert(path);
                }
            }
            Change::Create(path) => {
                let inode = self.inodes.len();
                self.inodes.push(Inode::default());
                self.names.insert(path.clone(), inode);
                self.enter(vec![parent(path)], What::Name { path: path.clone(), inode });
            }
            Change::Write { path, bytes, offset } => {
                let content = &mut self.inodes[self.names[path]].content;
                content.resize(content.len().max(offset + bytes.len()), 0);
                content[*offset..offset + bytes.len()].copy_from_slice(bytes);
            }
            Change::SyncFile(path) => {
                let inode = &mut self.inodes[self.names[path]];
                inode.synced = inode.content.clone();
            }
            Change::SyncDirectory(path) => {
                let of_it = self.entries.iter_mut().filter(|entry| entry.directories.contains(path));
                of_it.for_each(|entry| entry.synced = true);
            }
            Change::Rename { from, to } => {
                if let Some(inode) = self.names.remove(from) {
                    self.names.insert(to.clone(), inode);
                    self.taken_away(from);
                    // A journal has both sides or none; syncing where it went to is enough.
                    self.enter(vec![parent(to)], What::Move { from: from.clone(), to: to.clone(), inode });
                }
            }
            Change::Remove(path) => {
                if self.names.remove(path).is_some() {
                    self.taken_away(path);
                    self.enter(vec![parent(path)], What::Gone(path.clone()));
                }
            }
            Change::Acknowledged(digest) => {
                self.acknowledged.insert(*digest);
            }
        }
    }

    fn taken_away(&mut self, path: &Path) {
        if path.starts_with("blobs") {
            self.removed.insert(path.to_owned());
        }
    }

    fn enter(&mut self, directories: Vec<PathBuf>, what: What) {
        self.entries.push(Entry { directories, what, synced: false });
    }

    /// The files that are there when the power comes back.
    fn after(&self, unsynced: Unsynced, names: Names) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files: BTreeMap<PathBuf, usize> = BTreeMap::new();
        let mut directories = BTreeSet::from([PathBuf::new()]);
        for (number, entry) in self.entries.iter().enumerate() {
            let is_there = match names {
                Names::All => true,
                Names::None => entry.synced,
                Names::Some(bits) => entry.synced || bits.rotate_right(u32::try_from(number).unwrap()) & 1 == 1,
            };
            if !is_there {
                continue;
            }
            match &entry.what {
                What::Directory(path) => drop(directories.insert(path.clone())),
                What::Name { path, inode } => drop(files.insert(path.clone(), *inode)),
                What::Move { from, to, inode } => {
                    files.remove(from);
                    files.insert(to.clone(), *inode);
                }
                What::Gone(path) => drop(files.remove(path)),
            }
        }
        let is_reached = |path: &Path| path.ancestors().skip(1).all(|above| directories.contains(above));
        files.retain(|path, _| is_reached(path));
        files.into_iter().map(|(path, inode)| (path, self.inodes[inode].after(unsynced))).collect()
    }

    /// What is wrong with a disk that was left like that.
    fn faults(&self, files: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<String> {
        let blobs: Vec<_> = files.iter().filter(|(path, _)| path.starts_with("blobs")).collect();
        let wrong = blobs
            .iter()
            .filter(|(path, content)| Digest::sha256(content).hex() != path.file_name().unwrap().to_str().unwrap());
        let mut faults: Vec<String> = wrong.map(|(path, _)| format!("{} has other content", path.display())).collect();
        for digest in &self.acknowledged {
            let path = place(digest);
            if !files.contains_key(&path) && !self.removed.contains(&path) {
                faults.push(format!("{digest} was acknowledged and is lost"));
            }
        }
        faults
    }
}

fn place(digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    Path::new("blobs/sha256").join(&hex[..2]).join(&hex)
}

/// Everything that any prefix of the changes can leave, and what is wrong with it.
fn replay(changes: &[Change], mut visit: impl FnMut(usize, &Disk, BTreeMap<PathBuf, Vec<u8>>)) {
    let bits = pseudo_random(7, changes.len() * 16);
    for end in 0..=changes.len() {
        let disk = Disk::of(&changes[..end]);
        let some = |at: usize| {
            let at = (end * 16 + at * 8).min(bits.len() - 8);
            Names::Some(u64::from_be_bytes(bits[at..at + 8].try_into().unwrap()))
        };
        for names in [Names::All, Names::None, some(0), some(1)] {
            for unsynced in UNSYNCED {
                visit(end, &disk, disk.after(unsynced, names));
            }
        }
    }
}

fn faults(changes: &[Change]) -> Vec<String> {
    let mut found = Vec::new();
    replay(changes, |end, disk, files| {
        found.extend(disk.faults(&files).into_iter().map(|fault| format!("after {end} changes: {fault}")));
    });
    found
}

#[tokio::test]
async fn f_03_whatever_a_power_cut_leaves_every_blob_is_right_and_what_was_acknowledged_is_there() {
    let changes = record().await;
    println!("{} changes", changes.len());
    assert_eq!(faults(&changes), Vec::<String>::new());
    // That can fail: without one kind of sync it does.
    let without = |is_it: fn(&Change) -> bool| {
        let left: Vec<Change> = changes.iter().filter(|change| !is_it(change)).cloned().collect();
        assert!(left.len() < changes.len());
        faults(&left)
    };
    assert!(
        without(|change| matches!(change, Change::SyncFile(_))).iter().any(|fault| fault.contains("other content"))
    );
    for directory in ["blobs/sha256", "blobs", ""] {
        let lost = without(match directory {
            "blobs" => |change| matches!(change, Change::SyncDirectory(path) if path == Path::new("blobs")),
            "" => |change| matches!(change, Change::SyncDirectory(path) if path == Path::new("")),
            _ => |change| matches!(change, Change::SyncDirectory(path) if path.starts_with("blobs/sha256")),
        });
        assert!(lost.iter().any(|fault| fault.contains("is lost")), "{directory}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn f_03_whatever_a_power_cut_leaves_the_store_starts_and_serves_nothing_wrong() {
    let changes = record().await;
    let mut disks: BTreeSet<Vec<(PathBuf, Vec<u8>)>> = BTreeSet::new();
    replay(&changes, |_, _, files| {
        disks.insert(files.into_iter().collect());
    });
    println!("{} different disks", disks.len());
    let mut starts = tokio::task::JoinSet::new();
    for files in disks {
        starts.spawn(starts_and_serves(files));
        if starts.len() >= 8 {
            starts.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(started) = starts.join_next().await {
        started.unwrap();
    }
}

async fn starts_and_serves(files: Vec<(PathBuf, Vec<u8>)>) {
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    for (path, content) in &files {
        // Who was cut off starts anew, as another boot than the one that wrote the file.
        let path = path.to_str().unwrap().replace(boot.trim(), "00000000-0000-4000-8000-000000000000");
        let path = directory.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let store = open(directory.path(), 1 << 30).await;
    assert_eq!(std::fs::read_dir(directory.path().join("staging")).unwrap().count(), 0);
    for number in 0..4 {
        let (content, digest) = (blob(number), Digest::sha256(&blob(number)));
        let found = store.blob(&digest).await;
        assert_eq!(found.is_some(), files.iter().any(|(path, _)| *path == place(&digest)));
        if let Some(found) = found {
            assert!(!found.is_verified(), "it was written before the power went");
            assert_eq!(found.read_at(0, 100_000).await.unwrap(), content);
        }
    }
    put(&store, &blob(9)).await;
    assert_eq!(store.blob(&Digest::sha256(&blob(9))).await.unwrap().read_at(0, 100_000).await.unwrap(), blob(9));
    store.close().await;
}

/// Two blobs of one shard.
fn of_one_shard() -> [Bytes; 2] {
    let first = blob(0);
    let shard = |content: &Bytes| Digest::sha256(content).hex()[..2].to_owned();
    let place = |content: &Bytes| Digest::sha256(content).as_bytes().last().copied().unwrap_or(0) % 64;
    let like = |content: &Bytes| shard(content) == shard(&first) && place(content) != place(&first);
    let second = (1..100_000).map(blob).find(like).unwrap();
    [first, second]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f_03_a_blob_is_acknowledged_only_when_the_directory_that_another_one_made_for_it_is_synced() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), u64::MAX).await;
    let shards = directory.path().join("blobs/sha256");
    let (synced, may_sync) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (made, made_it) = tokio::sync::oneshot::channel();
    let made = Mutex::new(Some(made));
    let observed = observe(directory.path(), {
        let (synced, may_sync) = (Arc::clone(&synced), Arc::clone(&may_sync));
        move |step| {
            if matches!(step, Step::SyncDirectory(path) if *path == shards) {
                if let Some(made) = made.lock().unwrap().take() {
                    made.send(()).unwrap();
                }
                while !may_sync.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                synced.store(true, Ordering::SeqCst);
            }
            Ok(())
        }
    });
    let [first, second] = of_one_shard();
    let writing = tokio::spawn({
        let store = store.clone();
        async move { put(&store, &first).await }
    });
    made_it.await.unwrap();
    // The directory is there, and a power cut would take it away.
    let after = tokio::spawn({
        let (store, synced) = (store.clone(), Arc::clone(&synced));
        async move {
            put(&store, &second).await;
            synced.load(Ordering::SeqCst)
        }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    may_sync.store(true, Ordering::SeqCst);
    assert!(after.await.unwrap(), "acknowledged in a directory that was not synced");
    writing.await.unwrap();
    drop(observed);
    store.close().await;
}

#[tokio::test]
async fn f_03_a_data_directory_that_is_made_at_the_start_stays() {
    let directory = tempfile::tempdir().unwrap();
    let synced: Arc<Mutex<BTreeSet<PathBuf>>> = Arc::default();
    let observed = observe(directory.path(), {
        let synced = Arc::clone(&synced);
        move |step| {
            if let Step::SyncDirectory(path) = step {
                synced.lock().unwrap().insert(path.to_path_buf());
            }
            Ok(())
        }
    });
    let data = directory.path().join("var/cache/sealgate");
    let store = open(&data, u64::MAX).await;
    store.close().await;
    drop(observed);
    // Each has an entry that is new.
    for above in ["", "var", "var/cache", "var/cache/sealgate", "var/cache/sealgate/blobs"] {
        let above = if above.is_empty() { directory.path().to_owned() } else { directory.path().join(above) };
        assert!(synced.lock().unwrap().contains(&above), "{}", above.display());
    }
}
