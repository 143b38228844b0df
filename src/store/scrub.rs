//! Hashes cached files again, in the background and at a bounded rate, so that what a disk forgets is noticed before a client
//! asks for it.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::blobs::{Blobs, FileIdentity, pread_full};
use super::error::is_unreadable;
use super::mark::{read_mark, write_mark};
use super::{Inner, disk, lock, off_thread};
use crate::clock::Timestamp;
use crate::limits::{BLOB_CHUNK_BYTES, CACHE_FILES_MAX, STORE_UPKEEP};
use crate::oci::{Algorithm, Digest, Hasher};
use crate::telemetry::ScrubOutcome;

/// How often every file is hashed, and how fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scrub {
    /// From the end of one pass to the begin of the next; zero: only when asked.
    pub every: Duration,
    /// Bytes read in a second at most.
    pub bytes_per_second: u64,
}

/// The pass that runs, or else the last one since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScrubStats {
    /// Whether one runs now.
    pub running: bool,
    /// Files looked at.
    pub files: u64,
    /// Bytes hashed.
    pub bytes: u64,
    /// Files that were not what their names say; they were set aside.
    pub wrong: u64,
    /// Files that the disk does not give back; they were set aside.
    pub unreadable: u64,
    /// Files that could not be looked at, for want of descriptors for example; they were left alone.
    pub skipped: u64,
    /// When a pass last came to its end, also in processes before this one.
    pub ended: Option<Timestamp>,
}

/// State of the passes.
#[derive(Debug, Default)]
pub(super) struct Scrubber {
    stats: Mutex<ScrubStats>,
    asked: AtomicBool,
    bell: Notify,
}

impl Scrubber {
    pub(super) fn stats(&self) -> ScrubStats {
        *lock(&self.stats)
    }

    /// Asks for a pass; `false` when one runs already.
    pub(super) fn ask(&self) -> bool {
        if self.stats().running {
            return false;
        }
        self.asked.store(true, Ordering::Relaxed);
        self.bell.notify_one();
        true
    }

    /// Hashes every file from shard `from` on. Ends early at `stop`.
    pub(super) async fn pass(&self, blobs: &Arc<Blobs>, from: usize, bytes_per_second: u64, stop: &CancellationToken) {
        {
            let mut stats = lock(&self.stats);
            *stats = ScrubStats { running: true, ended: stats.ended, ..ScrubStats::default() };
        }
        let mut pace = Pace { bytes_per_second: bytes_per_second.max(1), due: Instant::now() };
        let mut kept_at = Instant::now();
        for number in from..SHARDS {
            // Work that a restart would do again is bounded by time, and writing by the same.
            if kept_at.elapsed() >= STORE_UPKEEP {
                keep(blobs, SHARD, number).await;
                kept_at = Instant::now();
            }
            for digest in shard(blobs, number).await {
                self.look_at(blobs, digest, &mut pace, stop).await;
                if stop.is_cancelled() {
                    // The file that was left half hashed is in this shard.
                    keep(blobs, SHARD, number).await;
                    lock(&self.stats).running = false;
                    return;
                }
            }
        }
        self.end(blobs).await;
    }

    async fn end(&self, blobs: &Arc<Blobs>) {
        let now = blobs.clock.now();
        let stats = {
            let mut stats = lock(&self.stats);
            (stats.running, stats.ended) = (false, Some(now));
            *stats
        };
        keep(blobs, SHARD, 0).await;
        keep(blobs, ENDED, now.unix_millis()).await;
        blobs.telemetry.scrub_ended(now);
        let ScrubStats { files, bytes, wrong, unreadable, skipped, .. } = stats;
        tracing::info!(files, bytes, wrong, unreadable, skipped, "the cached files were hashed again");
    }

    async fn look_at(&self, blobs: &Arc<Blobs>, digest: Digest, pace: &mut Pace, stop: &CancellationToken) {
        let (file, identity) = match open(blobs, digest).await {
            Ok(Some(opened)) => opened,
            // Evicted since it was listed.
            Ok(None) => return,
            Err(error) => return self.skip(digest, &error),
        };
        let (found, bytes) = hash(blobs, file, digest.algorithm(), pace, stop).await;
        let outcome = match found {
            Ok(Some(found)) if found == digest => ScrubOutcome::Good,
            Ok(Some(_)) => ScrubOutcome::Wrong,
            // Bad sectors: the file is set aside, so that nobody is served it and nothing is written there again.
            Err(error) if is_unreadable(&error) => ScrubOutcome::Unreadable,
            Err(error) => return self.skip(digest, &error),
            Ok(None) => return,
        };
        if outcome == ScrubOutcome::Good {
            blobs.verified.insert(digest, identity);
        } else {
            tracing::warn!(%digest, outcome = outcome.as_label(), "a cached file is not what its name says");
            let blobs = Arc::clone(blobs);
            let condemned = off_thread(move || blobs.condemn(&digest, &identity)).await;
            if let Err(error) = condemned {
                tracing::warn!(%digest, %error, "a wrong file could not be set aside");
            }
        }
        let mut stats = lock(&self.stats);
        stats.files = stats.files.saturating_add(1);
        stats.bytes = stats.bytes.saturating_add(bytes);
        match outcome {
            ScrubOutcome::Good => {}
            ScrubOutcome::Wrong => stats.wrong = stats.wrong.saturating_add(1),
            ScrubOutcome::Unreadable => stats.unreadable = stats.unreadable.saturating_add(1),
        }
        blobs.telemetry.scrubbed(outcome, bytes);
    }

    fn skip(&self, digest: Digest, error: &io::Error) {
        tracing::debug!(%digest, %error, "a cached file could not be looked at");
        let mut stats = lock(&self.stats);
        stats.skipped = stats.skipped.saturating_add(1);
    }
}

/// Runs a pass whenever one is due or asked for, until `stop`. Holds no handle while it waits.
pub(super) async fn run(inner: Weak<Inner>, scrub: Scrub, stop: CancellationToken) {
    let Some((blobs, scrubber)) = parts(&inner) else { return };
    let (ended, mut unfinished) = remembered(&blobs).await;
    lock(&scrubber.stats).ended = ended;
    // The first one is due when the cache is old enough to have forgotten something.
    let begun = ended.unwrap_or_else(|| blobs.clock.now());
    if ended.is_none() {
        keep(&blobs, ENDED, begun.unix_millis()).await;
    }
    drop(blobs);
    loop {
        // Losing any branch is safe: a bell that rang stays rung.
        tokio::select! {
            () = stop.cancelled() => return,
            () = scrubber.bell.notified() => {}
            () = tokio::time::sleep(STORE_UPKEEP) => {}
        }
        let Some((blobs, _)) = parts(&inner) else { return };
        let last = scrubber.stats().ended.unwrap_or(begun);
        let is_due = !scrub.every.is_zero() && (unfinished > 0 || blobs.clock.now().since(last) >= scrub.every);
        let is_asked = scrubber.asked.swap(false, Ordering::Relaxed);
        if is_asked || is_due {
            let from = if is_asked { 0 } else { unfinished };
            unfinished = 0;
            scrubber.pass(&blobs, from, scrub.bytes_per_second, &stop).await;
        }
    }
}

fn parts(inner: &Weak<Inner>) -> Option<(Arc<Blobs>, Arc<Scrubber>)> {
    let inner = inner.upgrade()?;
    Some((Arc::clone(&inner.blobs), Arc::clone(&inner.scrubber)))
}

/// When a pass last ended, and the shard at which one was left.
async fn remembered(blobs: &Arc<Blobs>) -> (Option<Timestamp>, usize) {
    let root = blobs.layout.root().to_owned();
    let read = off_thread(move || {
        let mark = |name| read_mark(&root, name).unwrap_or_default();
        (mark(ENDED).map(Timestamp::from_unix_millis), mark(SHARD))
    });
    let (ended, shard) = read.await.unwrap_or_default();
    (ended, shard.and_then(|shard| usize::try_from(shard).ok()).filter(|shard| *shard < SHARDS).unwrap_or(0))
}

async fn keep(blobs: &Arc<Blobs>, name: &'static str, value: impl TryInto<i64>) {
    let Ok(value) = value.try_into() else { return };
    if !blobs.layout.is_kept() {
        return;
    }
    let root = blobs.layout.root().to_owned();
    if let Err(error) = off_thread(move || write_mark(&root, name, value)).await.and_then(|written| written) {
        tracing::debug!(%error, name, "how far the cache was hashed is not kept");
    }
}

/// The blobs of one shard, in order.
async fn shard(blobs: &Arc<Blobs>, number: usize) -> Vec<Digest> {
    let blobs = Arc::clone(blobs);
    let listed = off_thread(move || list_shard(&blobs, number));
    listed.await.and_then(|listed| listed).unwrap_or_else(|error| {
        if error.kind() != io::ErrorKind::NotFound {
            tracing::warn!(%error, "a part of the cache cannot be listed");
        }
        Vec::new()
    })
}

fn list_shard(blobs: &Blobs, number: usize) -> io::Result<Vec<Digest>> {
    let algorithm = if number < SHARDS / 2 { Algorithm::Sha256 } else { Algorithm::Sha512 };
    let directory = blobs.layout.blobs(algorithm).join(format!("{:02x}", number % (SHARDS / 2)));
    let mut digests = Vec::new();
    for entry in disk::list(&directory)?.take(CACHE_FILES_MAX) {
        let name = entry?.file_name();
        let digest = name.to_str().and_then(|name| format!("{}:{name}", algorithm.as_str()).parse::<Digest>().ok());
        digests.extend(digest.filter(|digest| blobs.layout.blob(digest).starts_with(&directory)));
    }
    digests.sort_unstable();
    Ok(digests)
}

/// Not a use of it.
async fn open(blobs: &Arc<Blobs>, digest: Digest) -> io::Result<Option<(File, FileIdentity)>> {
    let blobs = Arc::clone(blobs);
    off_thread(move || blobs.open_unused(&digest)).await?
}

/// The digest of the whole file, and how many bytes were read; `None` at `stop`.
async fn hash(
    blobs: &Arc<Blobs>,
    file: File,
    algorithm: Algorithm,
    pace: &mut Pace,
    stop: &CancellationToken,
) -> (io::Result<Option<Digest>>, u64) {
    let (file, mut hasher, mut position) = (Arc::new(file), Hasher::new(algorithm), 0_u64);
    loop {
        let (blobs, file) = (Arc::clone(blobs), Arc::clone(&file));
        let read = off_thread(move || {
            let mut buffer = blobs.buffers.take(BLOB_CHUNK_BYTES);
            pread_full(&blobs, &file, position, BLOB_CHUNK_BYTES, buffer.as_mut())?;
            hasher.update(buffer.as_ref());
            Ok((hasher, buffer.as_ref().len()))
        });
        let read = match read.await.and_then(|read| read) {
            Ok((so_far, read)) => {
                hasher = so_far;
                u64::try_from(read).unwrap_or(u64::MAX)
            }
            Err(error) => return (Err(error), position),
        };
        if read == 0 {
            return (Ok(Some(hasher.finish())), position);
        }
        position = position.saturating_add(read);
        // Losing the pause is all that stopping loses.
        tokio::select! {
            () = stop.cancelled() => return (Ok(None), position),
            () = pace.spend(read) => {}
        }
    }
}

/// Keeps to so many bytes a second.
struct Pace {
    bytes_per_second: u64,
    /// When the next bytes may be read.
    due: Instant,
}

impl Pace {
    async fn spend(&mut self, bytes: u64) {
        let nanos = u128::from(bytes).saturating_mul(1_000_000_000) / u128::from(self.bytes_per_second);
        // Time that went by unused is not made up for.
        self.due = self.due.max(Instant::now()) + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        tokio::time::sleep_until(self.due).await;
    }
}

/// Shards of both algorithms.
const SHARDS: usize = 512;
/// The file that says at which shard a pass was left.
const SHARD: &str = "verify-shard";
/// The file that says when the last one ended.
const ENDED: &str = "verify-ended";
