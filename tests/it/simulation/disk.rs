//! The disk below the mirror: operations that fail, files that change behind its back, and what a process that dies leaves.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use sealgate::oci::Digest;
use sealgate::store::faults::{Observed, Step, observe};

use crate::random::Random;

/// Ways in which file operations fail. A write that fails has taken a half.
pub(super) const DISK_FAULTS: [&str; 9] = [
    "full",
    "read-only",
    "no descriptors",
    "an error of a write",
    "an error of a sync",
    "an error of a rename",
    "an error of a read",
    "an error of a look",
    "an error of a removal",
];

/// What may have become of the database when a process starts.
pub(super) const WRECKS: [&str; 5] =
    ["is lost", "is torn", "has wrong bits", "has another key", "and all else is lost"];

/// One of [`DISK_FAULTS`], at some of the operations that it fits.
#[derive(Debug, Clone)]
struct DiskFault {
    name: &'static str,
    /// How many more operations it lets fail.
    times: usize,
    percent: usize,
    random: Random,
}

impl DiskFault {
    /// The error number, if this operation is one of those that fail.
    fn hits(&mut self, step: &Step<'_>) -> Option<i32> {
        let creates = matches!(step, Step::Create(_) | Step::CreateDirectory(_));
        let writes = matches!(step, Step::Write { .. });
        let changes = creates || writes || matches!(step, Step::Rename { .. } | Step::Remove(_) | Step::SetTimes(_));
        let (fits, code) = match self.name {
            "full" => (creates || writes || matches!(step, Step::SyncFile(_) | Step::Rename { .. }), libc::ENOSPC),
            "read-only" => (changes, libc::EROFS),
            "no descriptors" => (matches!(step, Step::Create(_) | Step::Open(_) | Step::List(_)), libc::EMFILE),
            "an error of a write" => (creates || writes, libc::EIO),
            "an error of a sync" => (matches!(step, Step::SyncFile(_) | Step::SyncDirectory(_)), libc::EIO),
            "an error of a rename" => (matches!(step, Step::Rename { .. }), libc::EIO),
            "an error of a read" => (matches!(step, Step::Read(_)), libc::EIO),
            "an error of a look" => {
                (matches!(step, Step::Open(_) | Step::List(_) | Step::Look(_) | Step::FreeSpace(_)), libc::EIO)
            }
            _ => (matches!(step, Step::Remove(_)), libc::EIO),
        };
        let hits = fits && self.times > 0 && self.random.percent(self.percent);
        self.times -= usize::from(hits);
        hits.then_some(code)
    }
}

/// All of them, and how many operations each has let fail.
#[derive(Debug, Default)]
struct State {
    faults: Vec<DiskFault>,
    failed: BTreeMap<&'static str, u64>,
}

/// What lies below a mirror; its faults end with it.
#[derive(Debug)]
pub(super) struct Disk {
    data: PathBuf,
    state: Arc<Mutex<State>>,
    /// Files that were removed behind the mirror's back.
    pub(super) removed: Vec<Digest>,
    _observed: Observed,
}

impl Disk {
    /// The disk with that data directory.
    pub(super) fn below(data: &Path) -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let observing = Arc::clone(&state);
        let observed = observe(data, move |step| {
            let State { faults, failed } = &mut *observing.lock().unwrap();
            let hit = faults.iter_mut().find_map(|fault| Some((fault.name, fault.hits(step)?)));
            let Some((name, code)) = hit else { return Ok(()) };
            *failed.entry(name).or_default() += 1;
            Err(io::Error::from_raw_os_error(code))
        });
        Self { data: data.to_owned(), state, removed: Vec::new(), _observed: observed }
    }

    /// One fault more; says which.
    pub(super) fn fail(&self, random: &mut Random) -> String {
        let name = *random.one_of(&DISK_FAULTS);
        let times = *random.one_of(&[1, 3, usize::MAX]);
        let percent = *random.one_of(&[100, 100, 30]);
        let own = Random::new(random.below(1 << 30).try_into().unwrap());
        self.state.lock().unwrap().faults.push(DiskFault { name, times, percent, random: own });
        format!("{name}, {times} times, {percent} %")
    }

    /// Ends all faults. Returns how many operations each has let fail so far, and forgets that.
    pub(super) fn heal(&self) -> BTreeMap<&'static str, u64> {
        let State { faults, failed } = &mut *self.state.lock().unwrap();
        faults.clear();
        std::mem::take(failed)
    }

    /// Does `work` without faults; they go on afterwards.
    pub(super) async fn without_faults<T>(&self, work: impl Future<Output = T>) -> T {
        let faults = std::mem::take(&mut self.state.lock().unwrap().faults);
        let done = work.await;
        self.state.lock().unwrap().faults = faults;
        done
    }

    /// Changes a file of the cache behind the mirror's back; says what was done.
    pub(super) fn damage(&mut self, random: &mut Random) -> Option<&'static str> {
        let files = files_below(&self.data.join("blobs"));
        let file = files.get(random.below(files.len().max(1)))?;
        let mut content = std::fs::read(file).ok()?;
        let what = *random.one_of(&["a bit", "the end", "the file"]);
        match what {
            "a bit" if !content.is_empty() => {
                let place = random.below(content.len());
                content[place] ^= 1;
                std::fs::write(file, content).unwrap();
            }
            "the file" => {
                std::fs::remove_file(file).unwrap();
                self.removed.push(digest_of(file));
            }
            _ => {
                content.truncate(content.len() / 2);
                std::fs::write(file, content).unwrap();
            }
        }
        Some(what)
    }

    /// Bytes of all cached files.
    pub(super) fn bytes(&self) -> u64 {
        files_below(&self.data.join("blobs")).iter().filter_map(|file| Some(file.metadata().ok()?.len())).sum()
    }

    /// The first cached file that is not what its name says.
    pub(super) fn wrong_file(&self) -> Option<PathBuf> {
        let is_wrong = |file: &PathBuf| std::fs::read(file).is_ok_and(|content| !digest_of(file).matches(&content));
        files_below(&self.data.join("blobs")).into_iter().find(is_wrong)
    }

    /// Keeps what is on the disk now, as if the process died at this moment; how many files it had in staging.
    pub(super) fn remember(&self) -> usize {
        copy(&self.data, &self.remembered());
        files_below(&self.remembered().join("staging")).len()
    }

    fn remembered(&self) -> PathBuf {
        self.data.with_extension("remembered")
    }

    /// Puts back what [`Self::remember`] kept. No mirror may run.
    pub(super) fn put_back(&self) {
        std::fs::remove_dir_all(&self.data).unwrap();
        std::fs::rename(self.remembered(), &self.data).unwrap();
    }

    /// Spoils the database, all of which can be derived again. No mirror may run.
    pub(super) fn wreck(&self, wreck: &str, random: &mut Random) {
        let database = self.data.join("verdicts-v1");
        match wreck {
            "is lost" => drop(std::fs::remove_dir_all(&database)),
            "has another key" => drop(std::fs::remove_file(self.data.join("verdict.key"))),
            "and all else is lost" => std::fs::remove_dir_all(&self.data).unwrap(),
            _ => {
                let files = files_below(&database);
                let Some(file) = files.get(random.below(files.len().max(1))) else { return };
                let mut content = std::fs::read(file).unwrap();
                if wreck == "is torn" {
                    content.truncate(random.below(content.len() + 1));
                } else if !content.is_empty() {
                    for _ in 0..20 {
                        let place = random.below(content.len());
                        content[place] ^= 1 << random.below(8);
                    }
                }
                std::fs::write(file, content).unwrap();
            }
        }
    }
}

fn digest_of(file: &Path) -> Digest {
    format!("sha256:{}", file.file_name().unwrap().to_str().unwrap()).parse().unwrap()
}

/// All files there are, in order; one may go while they are listed.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut files: Vec<PathBuf> =
        paths.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect();
    files.sort();
    files
}

/// Copies what can be copied: files may go meanwhile.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).into_iter().flatten().flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            drop(std::fs::copy(&path, &target));
        }
    }
}
