//! Blobs that have a grant: from the cache, from a fill, or, when the disk is full, straight from upstream.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::sync::watch;

use super::fill::{Fill, Fills, Joined, Progress};
use super::held_back::{HeldBack, Mismatch};
use super::{PullError, Source};
use crate::limits::{BLOB_CHUNK_BYTES, HOLD_BACK_BYTES, MIB};
use crate::oci::{Digest, Repository};
use crate::store::{BlobFile, Store};
use crate::telemetry::{CacheKind, CacheResult, Telemetry};
use crate::upstream::{BlobBody, BlobRange, Upstream, UpstreamError};

/// A range that starts this far beyond what a fill has is asked of upstream rather than waited for.
const FORWARD_GAP_BYTES: u64 = MIB;

/// What a HEAD of a blob says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobHead {
    /// Its size in bytes, as the admitting manifest states it.
    pub size: u64,
    /// Hit, joined or miss.
    pub cache: CacheResult,
}

/// A blob that may be served. Its headers can be sent: it is cached, or upstream has begun to send it.
#[derive(Debug)]
pub struct AdmittedBlob {
    origin: Origin,
    bytes: BytesFrom,
    cache: CacheResult,
}

impl AdmittedBlob {
    /// Its size in bytes.
    pub const fn size(&self) -> u64 {
        self.origin.size
    }

    /// Hit, joined, or miss.
    pub const fn cache(&self) -> CacheResult {
        self.cache
    }

    /// The bytes from `start` up to and including `end`, both cut to the blob.
    ///
    /// An error item means that the rest will not come: whoever sends them must cut the connection, so that the client
    /// sees a body that ends short. The last 64 KiB of the blob come only after its digest was found right.
    pub fn stream(self, start: u64, end: u64) -> BoxStream<'static, Result<Bytes, PullError>> {
        let size = self.origin.size;
        if start >= size || end < start {
            return stream::empty().boxed();
        }
        let stop = end.saturating_add(1).min(size);
        let reading = match self.bytes {
            BytesFrom::File(file) => file_reading(self.origin, file, start, stop),
            BytesFrom::Fill(fill) => Reading::Fill(FillReading::new(self.origin, fill, start, stop)),
            BytesFrom::Upstream(body) => {
                Reading::Hashed(Box::new(HashedReading::new(self.origin, Feed::Body(body), start, stop)))
            }
        };
        stream::try_unfold(reading, |mut reading| async move {
            let bytes = reading.next().await?;
            Ok(bytes.map(|bytes| (bytes, reading)))
        })
        .boxed()
    }
}

/// Which blob, and who else has it.
#[derive(Debug, Clone)]
struct Origin {
    upstream: Upstream,
    repository: Repository,
    digest: Digest,
    size: u64,
    store: Store,
}

impl Origin {
    fn bad(&self, reason: &'static str) -> PullError {
        PullError::Upstream(UpstreamError::Bad { upstream: self.repository.host().clone(), reason })
    }

    async fn fetch(&self, range: BlobRange, length: u64) -> Result<BlobBody, PullError> {
        let body = self.upstream.blob(self.repository.name(), &self.digest, range).await.map_err(unknown_blob)?;
        match body.length {
            Some(announced) if announced != length => Err(self.bad("size_mismatch")),
            _ => Ok(body),
        }
    }
}

/// Where the bytes come from.
enum BytesFrom {
    File(BlobFile),
    Fill(Arc<Fill>),
    Upstream(BlobBody),
}

impl fmt::Debug for BytesFrom {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::File(_) => "File",
            Self::Fill(_) => "Fill",
            Self::Upstream(_) => "Upstream",
        })
    }
}

/// Opens blobs; clones share the fills.
#[derive(Debug, Clone)]
pub(super) struct Blobs {
    store: Store,
    telemetry: Telemetry,
    fills: Fills,
}

impl Blobs {
    /// Over that store.
    pub(super) fn new(store: Store, telemetry: Telemetry, fills: Fills) -> Self {
        Self { store, telemetry, fills }
    }

    /// The size of a granted blob; costs at most one upstream HEAD and moves no body.
    pub(super) async fn head(
        &self,
        source: &Source,
        repository: &Repository,
        digest: &Digest,
        size: u64,
    ) -> Result<BlobHead, PullError> {
        let cache = if self.store.blob(digest).await.is_some_and(|file| file.size() == size) {
            CacheResult::Hit
        } else if self.fills.find(repository.host(), digest).is_some() {
            CacheResult::Joined
        } else {
            let announced = source.upstream.blob_head(repository.name(), digest).await.map_err(unknown_blob)?;
            if announced.is_some_and(|announced| announced != size) {
                let upstream = repository.host().clone();
                return Err(UpstreamError::Bad { upstream, reason: "size_mismatch" }.into());
            }
            CacheResult::Miss
        };
        self.telemetry.cache_asked(CacheKind::Blob, cache);
        Ok(BlobHead { size, cache })
    }

    /// Opens a granted blob of `size` bytes.
    ///
    /// Returns when the first bytes can be sent, or, for one no longer than what is held back, when its digest is known.
    pub(super) async fn open(
        &self,
        source: &Source,
        repository: &Repository,
        digest: &Digest,
        size: u64,
    ) -> Result<AdmittedBlob, PullError> {
        let origin = Origin {
            upstream: source.upstream.clone(),
            repository: repository.clone(),
            digest: *digest,
            size,
            store: self.store.clone(),
        };
        let (bytes, cache) = match self.cached(&origin).await? {
            Some(file) => (BytesFrom::File(file), CacheResult::Hit),
            None => self.fill(&origin).await?,
        };
        self.telemetry.cache_asked(CacheKind::Blob, cache);
        Ok(AdmittedBlob { origin, bytes, cache })
    }

    async fn cached(&self, origin: &Origin) -> Result<Option<BlobFile>, PullError> {
        match self.store.blob(&origin.digest).await {
            Some(file) if file.size() == origin.size => Ok(Some(file)),
            // The content has that digest, so it is the manifest's size that is wrong.
            Some(file) if file.is_verified() => Err(origin.bad("size_mismatch")),
            Some(_) => {
                self.store.drop_blob(&origin.digest).await;
                Ok(None)
            }
            None => Ok(None),
        }
    }

    async fn fill(&self, origin: &Origin) -> Result<(BytesFrom, CacheResult), PullError> {
        let mut again = true;
        loop {
            let (fill, joined) = self.fills.join(&origin.upstream, &origin.repository, origin.digest, origin.size);
            let cache = match joined {
                Joined::Started => CacheResult::Miss,
                Joined::Found => CacheResult::Joined,
            };
            let mut progress = fill.progress();
            let begun = progress.wait_for(|progress| has_begun(progress, origin.size)).await;
            let begun = begun.map_err(|_| PullError::Lost)?.clone();
            match begun {
                Progress::Starting | Progress::Streaming { .. } | Progress::Verified => {
                    return Ok((BytesFrom::Fill(fill), cache));
                }
                Progress::Cached => {
                    let file = self.cached(origin).await?;
                    return Ok((BytesFrom::File(file.ok_or(PullError::Lost)?), CacheResult::Hit));
                }
                Progress::Unstorable => {
                    let body = origin.fetch(BlobRange::Whole, origin.size).await?;
                    return Ok((BytesFrom::Upstream(body), CacheResult::Bypass));
                }
                // Another repository's failure is not ours: ask our own once.
                Progress::Failed(_) if again && *fill.repository() != origin.repository => again = false,
                Progress::Failed(error) => return Err(error),
            }
        }
    }
}

/// Whether an answer's headers can be sent.
fn has_begun(progress: &Progress, size: u64) -> bool {
    match progress {
        Progress::Starting => false,
        Progress::Streaming { .. } => size > HOLD_BACK_BYTES,
        Progress::Verified | Progress::Cached | Progress::Unstorable | Progress::Failed(_) => true,
    }
}

fn unknown_blob(error: UpstreamError) -> PullError {
    match error {
        UpstreamError::NotFound { .. } => PullError::BlobUnknown,
        other => PullError::Upstream(other),
    }
}

/// A body that is being read.
enum Reading {
    /// A file that this process has hashed before, or a part of one that does not reach what is held back.
    File { file: BlobFile, position: u64, stop: u64 },
    /// Bytes that are hashed on the way.
    Hashed(Box<HashedReading>),
    /// A fill.
    Fill(FillReading),
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>, PullError> {
        match self {
            Self::File { file, position, stop } => {
                if position == stop {
                    return Ok(None);
                }
                let bytes = file.read_at(*position, chunk(*position, *stop)).await.map_err(|_| PullError::Lost)?;
                advance(position, &bytes)?;
                Ok(Some(bytes))
            }
            Self::Hashed(reading) => reading.next().await,
            Self::Fill(reading) => reading.next().await,
        }
    }
}

/// The first service of a cached file by a process hashes it, unless it leaves out what would be held back anyway.
fn file_reading(origin: Origin, file: BlobFile, start: u64, stop: u64) -> Reading {
    if file.is_verified() || stop <= origin.size.saturating_sub(HOLD_BACK_BYTES) {
        Reading::File { file, position: start, stop }
    } else {
        Reading::Hashed(Box::new(HashedReading::new(origin, Feed::File { file, position: 0 }, start, stop)))
    }
}

/// Where bytes that are hashed on the way come from.
enum Feed {
    File { file: BlobFile, position: u64 },
    Body(BlobBody),
}

struct HashedReading {
    origin: Origin,
    feed: Feed,
    held_back: HeldBack,
    /// Bytes that still have to go out.
    left: u64,
    finished: bool,
}

impl HashedReading {
    fn new(origin: Origin, feed: Feed, start: u64, stop: u64) -> Self {
        let held_back = HeldBack::new(origin.digest, origin.size, start, stop.saturating_sub(1));
        Self { origin, feed, held_back, left: stop.saturating_sub(start), finished: false }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, PullError> {
        loop {
            if let Some(bytes) = self.held_back.pop() {
                self.left = self.left.saturating_sub(length_of(&bytes));
                return Ok(Some(bytes));
            }
            if self.finished || self.left == 0 {
                return Ok(None);
            }
            match self.feed().await? {
                Some(bytes) => match self.held_back.push(&bytes) {
                    Ok(()) => {}
                    Err(mismatch) => return Err(self.wrong(mismatch).await),
                },
                None => self.finish().await?,
            }
        }
    }

    async fn feed(&mut self) -> Result<Option<Bytes>, PullError> {
        match &mut self.feed {
            Feed::File { .. } if self.held_back.is_full() => Ok(None),
            Feed::File { file, position } => {
                let length = chunk(*position, self.origin.size);
                let bytes = file.read_at(*position, length).await.map_err(|_| PullError::Lost)?;
                *position = position.saturating_add(length_of(&bytes));
                Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
            }
            Feed::Body(body) => Ok(body.stream.next().await.transpose()?),
        }
    }

    async fn finish(&mut self) -> Result<(), PullError> {
        self.finished = true;
        match self.held_back.finish() {
            Ok(()) => {
                if let Feed::File { file, .. } = &self.feed {
                    file.mark_verified();
                }
                Ok(())
            }
            Err(mismatch) => Err(self.wrong(mismatch).await),
        }
    }

    /// A file found wrong is dropped, so that the next client gets the blob from upstream again.
    async fn wrong(&mut self, mismatch: Mismatch) -> PullError {
        if matches!(self.feed, Feed::File { .. }) {
            self.origin.store.drop_blob(&self.origin.digest).await;
        }
        self.origin.bad(match mismatch {
            Mismatch::TooLong => "too_large",
            Mismatch::Truncated => "truncated",
            Mismatch::Digest => "digest_mismatch",
        })
    }
}

/// Follows a fill.
struct FillReading {
    origin: Origin,
    fill: Arc<Fill>,
    progress: watch::Receiver<Progress>,
    position: u64,
    stop: u64,
    /// A range forwarded to upstream, or not worth it.
    forward: Forward,
    /// Takes over when the cache cannot take the blob.
    instead: Option<Box<HashedReading>>,
}

enum Forward {
    Undecided,
    No,
    Yes(BlobBody),
}

impl FillReading {
    fn new(origin: Origin, fill: Arc<Fill>, position: u64, stop: u64) -> Self {
        let progress = fill.progress();
        let forward = if position > 0 { Forward::Undecided } else { Forward::No };
        Self { origin, fill, progress, position, stop, forward, instead: None }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, PullError> {
        loop {
            if let Some(instead) = &mut self.instead {
                return instead.next().await;
            }
            if self.position == self.stop {
                return Ok(None);
            }
            if let Forward::Yes(body) = &mut self.forward {
                let bytes = body.stream.next().await.transpose()?.ok_or_else(|| self.origin.bad("truncated"))?;
                return self.pass(bytes).map(Some);
            }
            let progress = self.progress.borrow_and_update().clone();
            let readable = match progress {
                Progress::Starting => 0,
                Progress::Streaming { written } => written.min(self.origin.size.saturating_sub(HOLD_BACK_BYTES)),
                Progress::Verified => self.origin.size,
                Progress::Failed(error) => return Err(error),
                Progress::Cached | Progress::Unstorable => {
                    self.fetch_instead().await?;
                    continue;
                }
            };
            if self.position < readable {
                let length = chunk(self.position, self.stop.min(readable));
                let staged = self.fill.staged().ok_or(PullError::Lost)?;
                let bytes = staged.read_at(self.position, length).await.map_err(|_| PullError::Lost)?;
                return self.pass(bytes).map(Some);
            }
            if matches!(self.forward, Forward::Undecided) {
                self.forward = self.decide_forward(readable).await;
            } else {
                self.progress.changed().await.map_err(|_| PullError::Lost)?;
            }
        }
    }

    fn pass(&mut self, bytes: Bytes) -> Result<Bytes, PullError> {
        let wanted = self.stop.saturating_sub(self.position);
        let bytes = match usize::try_from(wanted) {
            Ok(wanted) if wanted < bytes.len() => bytes.slice(..wanted),
            _ => bytes,
        };
        advance(&mut self.position, &bytes)?;
        Ok(bytes)
    }

    /// design §8: a range that starts past what has arrived may be answered by upstream while the fill runs; the client
    /// checks the whole. When upstream will not, the fill comes to it in time.
    async fn decide_forward(&mut self, readable: u64) -> Forward {
        if self.position < readable.saturating_add(FORWARD_GAP_BYTES) {
            return Forward::No;
        }
        let range = BlobRange::From { start: self.position, end: Some(self.stop.saturating_sub(1)) };
        match self.origin.fetch(range, self.stop.saturating_sub(self.position)).await {
            Ok(body) => Forward::Yes(body),
            Err(_) => Forward::No,
        }
    }

    /// From the beginning, since only the whole can be hashed; what was sent already is left out.
    async fn fetch_instead(&mut self) -> Result<(), PullError> {
        let body = self.origin.fetch(BlobRange::Whole, self.origin.size).await?;
        let reading = HashedReading::new(self.origin.clone(), Feed::Body(body), self.position, self.stop);
        self.instead = Some(Box::new(reading));
        Ok(())
    }
}

/// Moves `position` on; no bytes where some were promised means that the file was cut.
fn advance(position: &mut u64, bytes: &Bytes) -> Result<(), PullError> {
    if bytes.is_empty() {
        return Err(PullError::Lost);
    }
    *position = position.saturating_add(length_of(bytes));
    Ok(())
}

fn chunk(position: u64, stop: u64) -> usize {
    usize::try_from(stop.saturating_sub(position)).unwrap_or(BLOB_CHUNK_BYTES).min(BLOB_CHUNK_BYTES)
}

fn length_of(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
