//! The bytes of one blob on their way to one client.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::watch;

use super::PullError;
use super::blob::Delivery;
use super::fill::{Fill, Progress};
use super::held_back::{HeldBack, Mismatch};
use crate::limits::{BLOB_CHUNK_BYTES, HOLD_BACK_BYTES, MAPPED_FRAME_BYTES, MIB};
use crate::oci::{Digest, Repository};
use crate::store::{BlobFile, Store};
use crate::upstream::{BlobBody, BlobRange, Upstream, UpstreamError};

/// Which blob, and who else has it.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) upstream: Upstream,
    pub(super) repository: Repository,
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) store: Store,
}

impl Origin {
    pub(super) fn bad(&self, reason: &'static str) -> PullError {
        PullError::Upstream(UpstreamError::Bad { upstream: self.repository.host().clone(), reason })
    }

    pub(super) async fn fetch(&self, range: BlobRange, length: u64) -> Result<BlobBody, PullError> {
        let body = self.upstream.blob(self.repository.name(), &self.digest, range).await.map_err(unknown_blob)?;
        match body.length {
            Some(announced) if announced != length => Err(self.bad("size_mismatch")),
            _ => Ok(body),
        }
    }
}

/// A body that is being read.
pub(super) enum Reading {
    /// A file that this process has hashed before, or a part of one that does not reach what is held back.
    File { file: BlobFile, position: u64, stop: u64 },
    /// The same, as memory that nobody reads.
    Mapped { mapping: Bytes, position: usize, stop: usize },
    /// Bytes that are hashed on the way.
    Hashed(Box<HashedReading>),
    /// A fill.
    Fill(FillReading),
}

impl Reading {
    /// Bytes `start..stop` of a cached file. Its first service by a process hashes it, unless that leaves out what would be
    /// held back anyway.
    pub(super) fn of_file(origin: Origin, file: BlobFile, start: u64, stop: u64, delivery: Delivery) -> Self {
        if !file.is_verified() && stop > origin.size.saturating_sub(HOLD_BACK_BYTES) {
            return Self::Hashed(Box::new(HashedReading::new(origin, Feed::File { file, position: 0 }, start, stop)));
        }
        match delivery {
            Delivery::ByFile => Self::mapped(&file, start, stop).unwrap_or(Self::File { file, position: start, stop }),
            Delivery::Copied => Self::File { file, position: start, stop },
        }
    }

    fn mapped(file: &BlobFile, start: u64, stop: u64) -> Option<Self> {
        let (position, stop) = (usize::try_from(start).ok()?, usize::try_from(stop).ok()?);
        let mapping = file.map().ok().filter(|mapping| mapping.len() >= stop)?;
        Some(Self::Mapped { mapping, position, stop })
    }

    /// Bytes `start..stop` of what upstream sends.
    pub(super) fn of_body(origin: Origin, body: BlobBody, start: u64, stop: u64) -> Self {
        Self::Hashed(Box::new(HashedReading::new(origin, Feed::Body(body), start, stop)))
    }

    /// Bytes `start..stop` behind a fill.
    pub(super) fn of_fill(origin: Origin, fill: Arc<Fill>, start: u64, stop: u64) -> Self {
        Self::Fill(FillReading::new(origin, fill, start, stop))
    }

    /// The next bytes, `None` at the end. Not cancel safe: a reading whose `next` was dropped is dropped too.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, PullError> {
        match self {
            Self::File { file, position, stop } => {
                if position == stop {
                    return Ok(None);
                }
                let bytes = file.read_at(*position, chunk(*position, *stop)).await.map_err(|_| PullError::Lost)?;
                advance(position, &bytes)?;
                Ok(Some(bytes))
            }
            Self::Mapped { mapping, position, stop } => {
                let end = position.saturating_add(MAPPED_FRAME_BYTES).min(*stop);
                let frame = mapping.slice(*position..end);
                *position = end;
                Ok(Some(frame).filter(|frame| !frame.is_empty()))
            }
            Self::Hashed(reading) => reading.next().await,
            Self::Fill(reading) => reading.next().await,
        }
    }
}

/// Where bytes that are hashed on the way come from.
enum Feed {
    File { file: BlobFile, position: u64 },
    Body(BlobBody),
}

pub(super) struct HashedReading {
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
pub(super) struct FillReading {
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

pub(super) fn unknown_blob(error: UpstreamError) -> PullError {
    if matches!(error, UpstreamError::NotFound { .. }) { PullError::BlobUnknown } else { PullError::Upstream(error) }
}

/// A range that starts this far beyond what a fill has is asked of upstream rather than waited for.
const FORWARD_GAP_BYTES: u64 = MIB;
