//! The bytes of one blob on their way to one client.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::watch;

use super::PullError;
use super::blob::Delivery;
use super::fill::{Fills, Follower, Progress};
use super::held_back::{HeldBack, Mismatch};
use super::transfer::{Transfer, Wanted};
use super::turns::{Busy, Pace, Turn};
use crate::limits::{BLOB_CHUNK_BYTES, HOLD_BACK_BYTES, MAPPED_FRAME_BYTES, MIB};
use crate::store::BlobFile;
use crate::upstream::{BlobBody, BlobRange, UpstreamError};

/// Which blob, and who else has it.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) wanted: Wanted,
    pub(super) fills: Arc<Fills>,
}

impl Origin {
    pub(super) fn bad(&self, reason: &'static str) -> PullError {
        PullError::Upstream(self.wanted.bad(reason))
    }

    /// A transfer of all of it for one client.
    pub(super) async fn fetch(&self) -> Result<Transfer, PullError> {
        let turn = self.fills.turns().take(self.wanted.repository.host(), Pace::Client).await;
        let turn = turn.map_err(|Busy| PullError::Overloaded)?;
        Transfer::begin(self.wanted.clone(), turn).await.map_err(unknown_blob)
    }
}

/// A body that is being read.
pub(super) struct Reading {
    way: Way,
    /// What a client is to get that has nothing yet of a cached file.
    unseen: Option<Unseen>,
}

/// How the bytes come.
enum Way {
    /// A file that this process has hashed before, or a part of one that does not reach what is held back.
    File { file: BlobFile, position: u64, stop: u64 },
    /// The same, as memory that nobody reads.
    Mapped { file: BlobFile, mapping: Bytes, position: u64, stop: u64 },
    /// Bytes that are hashed on the way.
    Hashed(Box<HashedReading>),
    /// A fill.
    Fill(Box<FillReading>),
}

/// Bytes `start..stop`, of which none went out.
struct Unseen {
    origin: Origin,
    start: u64,
    stop: u64,
}

impl Reading {
    /// Bytes `start..stop` of a cached file. Its first service by a process hashes it, unless that leaves out what would be
    /// held back anyway. Damage that is found before the first byte went out is the client's no more than the cache's: it gets
    /// the bytes of a fill.
    pub(super) fn of_file(origin: Origin, file: BlobFile, start: u64, stop: u64, delivery: Delivery) -> Self {
        let way = if !file.is_verified() && stop > origin.wanted.size.saturating_sub(HOLD_BACK_BYTES) {
            let feed = Feed::File { file, position: 0 };
            Way::Hashed(Box::new(HashedReading::new(origin.clone(), feed, start, stop)))
        } else {
            match delivery {
                Delivery::ByFile => match file.map() {
                    Ok(mapping) => Way::Mapped { file, mapping, position: start, stop },
                    Err(_) => Way::File { file, position: start, stop },
                },
                Delivery::Copied => Way::File { file, position: start, stop },
            }
        };
        Self { way, unseen: Some(Unseen { origin, start, stop }) }
    }

    /// Bytes `start..stop` of what upstream sends.
    pub(super) fn of_transfer(origin: Origin, transfer: Transfer, start: u64, stop: u64) -> Self {
        let reading = HashedReading::new(origin, Feed::of(transfer), start, stop);
        Self { way: Way::Hashed(Box::new(reading)), unseen: None }
    }

    /// Bytes `start..stop` behind a fill.
    pub(super) fn of_fill(origin: Origin, follower: Follower, start: u64, stop: u64, delivery: Delivery) -> Self {
        Self { way: Way::Fill(Box::new(FillReading::new(origin, follower, start, stop, delivery))), unseen: None }
    }

    /// The next bytes, `None` at the end. Not cancel safe: a reading whose `next` was dropped is dropped too.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, PullError> {
        match (self.way.next().await, self.unseen.take()) {
            (Err(_), Some(Unseen { origin, start, stop })) => {
                let (follower, _) = origin.fills.join(&origin.wanted, None);
                *self = Self::of_fill(origin, follower, start, stop, Delivery::Copied);
                self.way.next().await
            }
            (read, _) => read,
        }
    }
}

impl Way {
    async fn next(&mut self) -> Result<Option<Bytes>, PullError> {
        match self {
            Self::File { file, position, stop } => {
                if position == stop {
                    return Ok(None);
                }
                let bytes = read_file(file, *position, *stop).await?;
                advance(position, &bytes)?;
                Ok(Some(bytes))
            }
            Self::Mapped { file, mapping, position, stop } => {
                if position == stop {
                    return Ok(None);
                }
                let frame =
                    frame(mapping, *position, *stop).filter(|frame| file.is_in_memory(*position, length_of(frame)));
                let bytes = match frame {
                    Some(frame) => frame,
                    // `sendfile` would wait for the disk where nobody may wait.
                    None => read_file(file, *position, *stop).await?,
                };
                advance(position, &bytes)?;
                Ok(Some(bytes))
            }
            Self::Hashed(reading) => reading.next().await,
            Self::Fill(reading) => reading.next().await,
        }
    }
}

/// Bytes of a cached file.
async fn read_file(file: &BlobFile, position: u64, stop: u64) -> Result<Bytes, PullError> {
    file.read_at(position, chunk(position, stop)).await.map_err(|_| PullError::Lost)
}

/// The piece of a mapping that goes out at once; `None` when the file is shorter than it was.
fn frame(mapping: &Bytes, position: u64, stop: u64) -> Option<Bytes> {
    let (position, stop) = (usize::try_from(position).ok()?, usize::try_from(stop).ok()?);
    let end = position.saturating_add(MAPPED_FRAME_BYTES).min(stop);
    (end <= mapping.len()).then(|| mapping.slice(position..end))
}

/// Where bytes that are hashed on the way come from.
enum Feed {
    File { file: BlobFile, position: u64 },
    Transfer { transfer: Box<Transfer>, arrived: VecDeque<Bytes> },
}

impl Feed {
    fn of(transfer: Transfer) -> Self {
        Self::Transfer { transfer: Box::new(transfer), arrived: VecDeque::new() }
    }
}

pub(super) struct HashedReading {
    origin: Origin,
    feed: Feed,
    held_back: HeldBack,
    /// What went out of the blob before this reading took over.
    sent: Option<Sent>,
    /// Bytes that still have to go out.
    left: u64,
    finished: bool,
}

/// Bytes `start..stop` that a client has from a fill that broke off. They were never hashed to their end, so that what takes
/// over must begin with the same: else the client would get a beginning and an end of different things, ended well.
struct Sent {
    follower: Follower,
    start: u64,
    stop: u64,
}

impl Sent {
    /// Whether `bytes` from `offset` on agree with what was sent.
    async fn agrees(&self, offset: u64, bytes: &Bytes) -> Result<bool, PullError> {
        let end = offset.saturating_add(length_of(bytes)).min(self.stop);
        let mut position = offset.max(self.start);
        while position < end {
            let staged = self.follower.staged().ok_or(PullError::Lost)?;
            let sent = staged.read_at(position, chunk(position, end)).await.map_err(|_| PullError::Lost)?;
            let from = usize::try_from(position.saturating_sub(offset)).map_err(|_| PullError::Lost)?;
            let same = bytes.get(from..from.saturating_add(sent.len())) == Some(&sent[..]);
            if sent.is_empty() || !same {
                return Ok(false);
            }
            position = position.saturating_add(length_of(&sent));
        }
        Ok(true)
    }
}

impl HashedReading {
    fn new(origin: Origin, feed: Feed, start: u64, stop: u64) -> Self {
        let held_back = HeldBack::new(origin.wanted.digest, origin.wanted.size, start, stop.saturating_sub(1));
        Self { origin, feed, held_back, sent: None, left: stop.saturating_sub(start), finished: false }
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
                Some(bytes) => {
                    if let Some(sent) = &self.sent
                        && !sent.agrees(self.held_back.seen(), &bytes).await?
                    {
                        return Err(self.origin.bad("digest_mismatch"));
                    }
                    if let Err(mismatch) = self.held_back.push(&bytes) {
                        return Err(self.wrong(mismatch).await);
                    }
                }
                None => self.finish().await?,
            }
        }
    }

    async fn feed(&mut self) -> Result<Option<Bytes>, PullError> {
        match &mut self.feed {
            Feed::File { .. } if self.held_back.is_full() => Ok(None),
            Feed::File { file, position } => {
                let bytes = read_file(file, *position, self.origin.wanted.size).await?;
                *position = position.saturating_add(length_of(&bytes));
                Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
            }
            Feed::Transfer { transfer, arrived } => {
                if arrived.is_empty() {
                    arrived.extend(transfer.next(None).await?);
                }
                Ok(arrived.pop_front())
            }
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
        if let Feed::File { file, .. } = &self.feed {
            file.condemn().await;
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
    follower: Follower,
    progress: watch::Receiver<Progress>,
    start: u64,
    position: u64,
    stop: u64,
    delivery: Delivery,
    /// Of the whole blob, also where it is not written yet: frames end where the fill is.
    mapping: Option<Bytes>,
    forward: Forward,
    /// Takes over when the cache cannot take the blob.
    instead: Option<Box<HashedReading>>,
}

/// Whether a range is passed on to upstream.
enum Forward {
    Undecided,
    No,
    Yes {
        body: BlobBody,
        _turn: Turn,
    },
    /// It was, and the fill goes on from there.
    Ended,
}

impl FillReading {
    fn new(origin: Origin, follower: Follower, start: u64, stop: u64, delivery: Delivery) -> Self {
        let progress = follower.progress();
        let forward = if start > 0 { Forward::Undecided } else { Forward::No };
        let mapping = None;
        Self { origin, follower, progress, start, position: start, stop, delivery, mapping, forward, instead: None }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, PullError> {
        loop {
            if let Some(instead) = &mut self.instead {
                return instead.next().await;
            }
            if self.position == self.stop {
                return Ok(None);
            }
            let progress = self.progress.borrow_and_update().clone();
            let readable = match (readable(&progress, self.origin.wanted.size), progress) {
                (Some(readable), _) => readable,
                (None, Progress::Failed(error)) if !self.is_passed_on() || is_wrong(&error) => return Err(error),
                (None, Progress::Cached | Progress::Unstorable) if !self.is_passed_on() => {
                    self.fetch_instead().await?;
                    continue;
                }
                // What is passed on does not depend on the fill, unless that has shown that upstream has something else.
                (None, _) => 0,
            };
            if self.position < readable {
                if self.is_passed_on() {
                    self.forward = Forward::Ended;
                }
                let stop = self.stop.min(readable);
                if let Some(frame) = self.frame(stop) {
                    return self.pass(frame).map(Some);
                }
                let length = chunk(self.position, stop);
                let staged = self.follower.staged().ok_or(PullError::Lost)?;
                match staged.read_at(self.position, length).await {
                    Ok(bytes) => return self.pass(bytes).map(Some),
                    // The disk takes bytes and does not give them back.
                    Err(_) => self.fetch_instead().await?,
                }
                continue;
            }
            match &mut self.forward {
                Forward::Undecided => self.forward = self.decide_forward(readable).await,
                // Losing the wait for either loses nothing.
                Forward::Yes { body, .. } => tokio::select! {
                    piece = body.stream.next() => match piece {
                        Some(Ok(bytes)) if !bytes.is_empty() => return self.pass(bytes).map(Some),
                        Some(Ok(_)) => {}
                        // The fill comes to it in time.
                        Some(Err(_)) | None => self.forward = Forward::Ended,
                    },
                    changed = self.progress.changed() => changed.map_err(|_| PullError::Lost)?,
                },
                Forward::No | Forward::Ended => self.progress.changed().await.map_err(|_| PullError::Lost)?,
            }
        }
    }

    /// What is written, as memory that names the file, if it can go out like that.
    fn frame(&mut self, stop: u64) -> Option<Bytes> {
        if self.delivery == Delivery::Copied {
            return None;
        }
        let staged = self.follower.staged()?;
        if self.mapping.is_none() {
            self.mapping = staged.map(self.origin.wanted.size).ok();
        }
        let frame = frame(self.mapping.as_ref()?, self.position, stop)?;
        staged.is_in_memory(self.position, length_of(&frame)).then_some(frame)
    }

    const fn is_passed_on(&self) -> bool {
        matches!(self.forward, Forward::Yes { .. })
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
    /// checks the whole. When upstream will not, or has enough to do, the fill comes to it in time.
    async fn decide_forward(&mut self, arrived: u64) -> Forward {
        if self.position < arrived.saturating_add(FORWARD_GAP_BYTES) {
            return Forward::No;
        }
        let Wanted { upstream, repository, digest, size, .. } = &self.origin.wanted;
        let Some(turn) = self.origin.fills.turns().try_take(repository.host(), Pace::Client) else {
            return Forward::No;
        };
        let range = BlobRange::From { start: self.position, end: Some(self.stop.saturating_sub(1)) };
        let (position, mut progress) = (self.position, self.progress.clone());
        // Losing the request is what the fill's being faster means.
        tokio::select! {
            answer = upstream.blob(repository.name(), digest, range) => match answer {
                Ok(body) if body.length == Some(self.stop.saturating_sub(position)) => Forward::Yes { body, _turn: turn },
                Ok(_) | Err(_) => Forward::No,
            },
            _ = progress.wait_for(|progress| readable(progress, *size).is_some_and(|bytes| bytes > position)) => {
                Forward::No
            }
        }
    }

    /// From the beginning, since only the whole can be hashed; what was sent already is left out.
    async fn fetch_instead(&mut self) -> Result<(), PullError> {
        let feed = Feed::of(self.origin.fetch().await?);
        let mut reading = HashedReading::new(self.origin.clone(), feed, self.position, self.stop);
        // What was passed on is the client's to check in any case.
        if self.position > self.start && matches!(self.forward, Forward::Undecided | Forward::No) {
            reading.sent = Some(Sent { follower: self.follower.clone(), start: self.start, stop: self.position });
        }
        self.instead = Some(Box::new(reading));
        Ok(())
    }
}

/// Bytes of a fill that may go out; `None` when there will be no more.
fn readable(progress: &Progress, size: u64) -> Option<u64> {
    match progress {
        Progress::Starting => Some(0),
        Progress::Streaming { written } => Some((*written).min(size.saturating_sub(HOLD_BACK_BYTES))),
        Progress::Verified => Some(size),
        Progress::Cached | Progress::Unstorable | Progress::Failed(_) => None,
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

/// Whether upstream was found to have other bytes than the digest says.
pub(super) fn is_wrong(error: &PullError) -> bool {
    matches!(error, PullError::Upstream(UpstreamError::Bad { reason: "digest_mismatch", .. }))
}

pub(super) fn unknown_blob(error: UpstreamError) -> PullError {
    if matches!(error, UpstreamError::NotFound { .. }) { PullError::BlobUnknown } else { PullError::Upstream(error) }
}

/// A range that starts this far beyond what a fill has is asked of upstream rather than waited for.
const FORWARD_GAP_BYTES: u64 = MIB;
