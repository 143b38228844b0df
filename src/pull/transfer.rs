//! The bytes of one blob from upstream, in order and across breaks.
//!
//! A transfer that breaks goes on by `Range` where it stopped, on condition that upstream still has the same
//! (`If-Range`, the size, the entity tag). A registry that will not say so, or knows no ranges, sends all of it again and
//! what has come already is passed over. Who reads hashes over all of it: beginnings and ends of different answers are the
//! blob only if their digest says so.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{BoxStream, Fuse};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio_util::sync::CancellationToken;

use super::turns::Turn;
use crate::limits::{FILL_RESUME_PROGRESS_BYTES, FILL_RESUME_WAIT_MAX, FILL_RESUMES_MAX, MIB};
use crate::oci::{Digest, Repository};
use crate::telemetry::Telemetry;
use crate::upstream::{BlobBody, BlobRange, BlobRest, Upstream, UpstreamError, Validator};

/// Pieces of a body that are handed on at once: who writes them needs one hop off the async threads.
/// Over TLS and HTTP/2 one has at most 16 KiB.
const PIECES_AT_ONCE: usize = 64;
/// Bytes after which no further piece is taken in: who reads behind gets them while the next ones come. A fill has at most four
/// times as many in memory: those that are hashed, those that are written, those that come, and the last piece of each.
const BYTES_AT_ONCE: u64 = MIB;

/// Where a blob comes from.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) upstream: Upstream,
    pub(super) repository: Repository,
    pub(super) digest: Digest,
    /// Its size, as the manifest states it.
    pub(super) size: u64,
    pub(super) telemetry: Telemetry,
}

impl Wanted {
    pub(super) fn bad(&self, reason: &'static str) -> UpstreamError {
        UpstreamError::Bad { upstream: self.repository.host().clone(), reason }
    }
}

/// One blob on its way from upstream.
pub(super) struct Transfer {
    wanted: Wanted,
    validator: Validator,
    body: Option<Pieces>,
    /// Why the body ended early, once its last pieces have been handed on.
    broken: Option<UpstreamError>,
    /// Bytes handed on.
    received: u64,
    /// Bytes to come that were handed on before.
    repeated: u64,
    resumes: Resumes,
    /// Held for as long as there may be more, also between two answers.
    _turn: Turn,
}

type Pieces = Fuse<BoxStream<'static, Result<Bytes, UpstreamError>>>;

impl std::fmt::Debug for Transfer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Transfer").field("received", &self.received).finish_non_exhaustive()
    }
}

impl Transfer {
    /// Asks for the blob. Its headers have been checked when this returns.
    ///
    /// # Errors
    /// [`UpstreamError`]; another length than the manifest states is `Bad` with the reason `size_mismatch`.
    pub(super) async fn begin(wanted: Wanted, turn: Turn) -> Result<Self, UpstreamError> {
        let name = wanted.repository.name();
        let body = wanted.upstream.blob(name, &wanted.digest, BlobRange::Whole).await?;
        if body.length.is_some_and(|length| length != wanted.size) {
            return Err(wanted.bad("size_mismatch"));
        }
        let mut validator = Validator::new(wanted.size);
        validator.began(&body);
        Ok(Self {
            wanted,
            validator,
            body: Some(pieces(body)),
            broken: None,
            received: 0,
            repeated: 0,
            resumes: Resumes::default(),
            _turn: turn,
        })
    }

    /// The next bytes, and what comes after them until they are `wanted`, which without that they are at once; empty at the
    /// end. Not cancel safe: a transfer whose `next` was dropped is dropped too.
    ///
    /// # Errors
    /// [`UpstreamError`] when the transfer broke for good, or has fewer or more bytes than the blob.
    pub(super) async fn next(&mut self, wanted: Option<&CancellationToken>) -> Result<Vec<Bytes>, UpstreamError> {
        loop {
            if let Some(error) = self.broken.take() {
                // How a body ends after the blob's last byte does not matter: its digest tells whether it is the blob.
                if self.is_full() {
                    self.body = None;
                    return Ok(Vec::new());
                }
                self.resume(error).await?;
            }
            let arrived = match &mut self.body {
                // The first byte goes out as soon as it is there.
                Some(body) => arrived(body, if self.received == 0 { 1 } else { BYTES_AT_ONCE }, wanted).await,
                None => None,
            };
            let Some(arrived) = arrived else {
                self.body = None;
                if self.is_full() {
                    return Ok(Vec::new());
                }
                self.broken = Some(self.wanted.bad("truncated"));
                continue;
            };
            let fresh = self.accept(arrived)?;
            if !fresh.is_empty() {
                return Ok(fresh);
            }
        }
    }

    const fn is_full(&self) -> bool {
        self.received == self.wanted.size && self.repeated == 0
    }

    /// Takes in what arrived: an error is kept for later, what has come before is passed over.
    fn accept(&mut self, arrived: Vec<Result<Bytes, UpstreamError>>) -> Result<Vec<Bytes>, UpstreamError> {
        let mut fresh = Vec::with_capacity(arrived.len());
        for piece in arrived {
            match piece {
                Ok(mut bytes) => {
                    let known = self.repeated.min(length_of(&bytes));
                    self.repeated -= known;
                    drop(bytes.split_to(usize::try_from(known).unwrap_or(bytes.len())));
                    self.received = self.received.saturating_add(length_of(&bytes));
                    if self.received > self.wanted.size {
                        return Err(self.wanted.bad("too_large"));
                    }
                    if !bytes.is_empty() {
                        fresh.push(bytes);
                    }
                }
                Err(error) => {
                    self.body = None;
                    self.broken = Some(error);
                }
            }
        }
        Ok(fresh)
    }

    /// Goes on after a break, as often as it makes sense.
    async fn resume(&mut self, mut error: UpstreamError) -> Result<(), UpstreamError> {
        // The connection goes first, so that upstream does not see two.
        self.body = None;
        if matches!(error, UpstreamError::Timeout { .. }) {
            self.validator.stalled();
        }
        loop {
            let Some(breaks) = self.resumes.another(&error, self.received) else { return Err(error) };
            let pause = self.wanted.upstream.pause_after_break(breaks);
            tokio::time::sleep(pause.max(asked_to_wait(&error).unwrap_or_default())).await;
            self.wanted.telemetry.upstream_resumed(self.wanted.repository.host());
            match self.ask_for_rest().await {
                Ok((start, body)) => {
                    self.repeated = self.received.saturating_sub(start);
                    self.body = Some(pieces(body));
                    return Ok(());
                }
                Err(again) => error = again,
            }
        }
    }

    /// The place where the answer begins, and its body.
    async fn ask_for_rest(&mut self) -> Result<(u64, BlobBody), UpstreamError> {
        let Wanted { upstream, repository, digest, size, .. } = &self.wanted;
        let from = if self.resumes.whole { 0 } else { self.received };
        let BlobRest { start, body } = upstream.blob_rest(repository.name(), digest, from, &self.validator).await?;
        if body.length.is_some_and(|length| length != size.saturating_sub(start)) {
            return Err(self.wanted.bad("size_mismatch"));
        }
        if start == 0 {
            self.validator.began(&body);
        } else {
            self.validator.went_on(&body);
        }
        Ok((start, body))
    }
}

/// How often a transfer broke.
#[derive(Debug, Default)]
struct Resumes {
    /// In a row, without much progress.
    breaks: usize,
    /// Bytes that had come when that row began.
    since: u64,
    /// Upstream answered a range with something else: it is asked for the whole from now on.
    whole: bool,
}

impl Resumes {
    /// Counts a break after `received` bytes; `None` when it makes no sense to go on.
    fn another(&mut self, error: &UpstreamError, received: u64) -> Option<usize> {
        let answered_wrongly = matches!(error, UpstreamError::Bad { reason: "protocol", .. });
        if !(is_break(error) || answered_wrongly && !self.whole) {
            return None;
        }
        self.whole |= answered_wrongly;
        if received.saturating_sub(self.since) >= FILL_RESUME_PROGRESS_BYTES {
            self.breaks = 0;
        }
        if self.breaks == 0 {
            self.since = received;
        }
        self.breaks += cost(error);
        (self.breaks <= FILL_RESUMES_MAX).then_some(self.breaks)
    }
}

/// A stall has taken long already, so that the second one in a row is the last.
fn cost(error: &UpstreamError) -> usize {
    if matches!(error, UpstreamError::Timeout { .. }) { FILL_RESUMES_MAX.div_ceil(2) } else { 1 }
}

/// Whether the transfer broke although nothing that came was wrong, and it makes sense to go on soon.
fn is_break(error: &UpstreamError) -> bool {
    match error {
        UpstreamError::Timeout { .. } => true,
        UpstreamError::Connect { reason, .. } => matches!(*reason, "reset" | "connect" | "dns"),
        UpstreamError::Failed { .. } | UpstreamError::RateLimited { .. } | UpstreamError::Resting { .. } => {
            asked_to_wait(error).is_none_or(|wait| wait <= FILL_RESUME_WAIT_MAX)
        }
        UpstreamError::Bad { reason, .. } => *reason == "truncated",
        UpstreamError::NotFound { .. } | UpstreamError::Refused { .. } => false,
    }
}

/// How long upstream is to be left alone.
fn asked_to_wait(error: &UpstreamError) -> Option<Duration> {
    match error {
        UpstreamError::RateLimited { retry_after, .. } | UpstreamError::Resting { retry_after, .. } => {
            Some(*retry_after)
        }
        UpstreamError::Failed { retry_after, .. } => *retry_after,
        UpstreamError::NotFound { .. }
        | UpstreamError::Refused { .. }
        | UpstreamError::Timeout { .. }
        | UpstreamError::Connect { .. }
        | UpstreamError::Bad { .. } => None,
    }
}

fn pieces(body: BlobBody) -> Pieces {
    body.stream.fuse()
}

/// The next piece, and those that come after it until they have so many bytes or are `wanted`; `None` at the end.
async fn arrived(
    body: &mut Pieces,
    enough: u64,
    wanted: Option<&CancellationToken>,
) -> Option<Vec<Result<Bytes, UpstreamError>>> {
    let mut piece = body.next().await?;
    let (mut pieces, mut bytes) = (Vec::with_capacity(PIECES_AT_ONCE), 0_u64);
    loop {
        bytes = bytes.saturating_add(piece.as_ref().map_or(enough, length_of));
        pieces.push(piece);
        if bytes >= enough || pieces.len() >= PIECES_AT_ONCE {
            return Some(pieces);
        }
        // What is there is taken in first. What is not is asked for again by the next call.
        let next = match wanted {
            Some(wanted) => tokio::select! {
                biased;
                next = body.next() => next,
                () = wanted.cancelled() => None,
            },
            None => body.next().now_or_never().flatten(),
        };
        match next {
            Some(more) => piece = more,
            None => return Some(pieces),
        }
    }
}

fn length_of(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream() -> crate::oci::Host {
        "a.example".parse().unwrap()
    }

    fn reset() -> UpstreamError {
        UpstreamError::Connect { upstream: upstream(), reason: "reset" }
    }

    fn bad(reason: &'static str) -> UpstreamError {
        UpstreamError::Bad { upstream: upstream(), reason }
    }

    #[test]
    fn breaks_in_a_row_are_bounded() {
        let mut resumes = Resumes::default();
        for breaks in 1..=FILL_RESUMES_MAX {
            assert_eq!(resumes.another(&reset(), 1000), Some(breaks));
        }
        assert_eq!(resumes.another(&reset(), 1000), None);
    }

    #[test]
    fn a_transfer_that_gets_on_may_break_again() {
        let mut resumes = Resumes::default();
        let mut received = 0;
        for _ in 0..100 {
            assert!(resumes.another(&reset(), received).is_some());
            received += FILL_RESUME_PROGRESS_BYTES;
        }
        let mut resumes = Resumes::default();
        let outcomes: Vec<_> = (0..=4).map(|round| resumes.another(&reset(), round)).collect();
        assert_eq!(outcomes, [Some(1), Some(2), Some(3), None, None], "a little is not enough");
    }

    #[tokio::test]
    async fn the_first_piece_is_handed_on_by_itself_and_others_until_they_are_enough() {
        const PIECE: usize = 400 * 1024;
        let piece = |length: usize| Ok(Bytes::from(vec![7; length]));
        let large = (0..4).map(move |_| piece(PIECE)).chain([Err(reset()), piece(1)]);
        let small = (0..=PIECES_AT_ONCE).map(move |_| piece(1));
        let mut body = futures_util::stream::iter(large.chain(small)).boxed().fuse();
        let mut sizes = Vec::new();
        let wanted = CancellationToken::new();
        for enough in [1, BYTES_AT_ONCE, BYTES_AT_ONCE, BYTES_AT_ONCE, BYTES_AT_ONCE, BYTES_AT_ONCE] {
            sizes.push(arrived(&mut body, enough, Some(&wanted)).await.map(|pieces| pieces.len()));
        }
        assert_eq!(sizes, [Some(1), Some(3), Some(1), Some(PIECES_AT_ONCE), Some(2), None]);
        // Who wants it at once gets what is there.
        let two_and_more =
            || futures_util::stream::iter([piece(1), piece(1)]).chain(futures_util::stream::pending()).boxed().fuse();
        let at_once = arrived(&mut two_and_more(), BYTES_AT_ONCE, None).now_or_never().flatten();
        assert_eq!(at_once.map(|pieces| pieces.len()), Some(2));
        // What is there is held back only while nobody wants it.
        let mut body = two_and_more();
        let mut coming = Box::pin(arrived(&mut body, BYTES_AT_ONCE, Some(&wanted)));
        assert!(futures_util::poll!(&mut coming).is_pending());
        wanted.cancel();
        assert_eq!(coming.await.unwrap().len(), 2);
    }

    #[test]
    fn the_second_stall_in_a_row_is_the_last() {
        let stall = UpstreamError::Timeout { upstream: upstream() };
        let mut resumes = Resumes::default();
        assert!(resumes.another(&stall, 1000).is_some());
        assert_eq!(resumes.another(&stall, 1000), None);
        let mut resumes = Resumes::default();
        assert!(resumes.another(&stall, 1000).is_some() && resumes.another(&reset(), 1000).is_some());
        assert_eq!(resumes.another(&reset(), 1000), None);
    }

    #[test]
    fn only_what_broke_is_resumed() {
        let host = upstream();
        let failed = |retry_after| UpstreamError::Failed { upstream: upstream(), status: 503, retry_after };
        let limited = |retry_after| UpstreamError::RateLimited { upstream: upstream(), retry_after };
        let resting =
            |retry_after| UpstreamError::Resting { upstream: upstream(), retry_after, last: Box::new(reset()) };
        let (soon, late) = (FILL_RESUME_WAIT_MAX, FILL_RESUME_WAIT_MAX + Duration::from_millis(1));
        let broken = [reset(), bad("truncated"), UpstreamError::Timeout { upstream: host.clone() }, failed(None)];
        for error in broken.into_iter().chain([failed(Some(soon)), limited(soon), resting(soon)]) {
            assert!(Resumes::default().another(&error, 1).is_some(), "{error}");
        }
        let given_up = [
            failed(Some(late)),
            limited(late),
            resting(late),
            bad("digest_mismatch"),
            bad("too_large"),
            bad("size_mismatch"),
            bad("content_encoding"),
            UpstreamError::Connect { upstream: host.clone(), reason: "tls" },
            UpstreamError::Connect { upstream: host.clone(), reason: "address_blocked" },
            UpstreamError::NotFound { upstream: host.clone() },
            UpstreamError::Refused { upstream: host, status: 403 },
        ];
        for error in given_up {
            assert_eq!(Resumes::default().another(&error, 1), None, "{error}");
        }
    }

    #[test]
    fn a_wrong_answer_to_a_range_is_asked_about_once_and_without_the_range() {
        let mut resumes = Resumes::default();
        assert_eq!(resumes.another(&reset(), 1), Some(1));
        assert!(!resumes.whole);
        assert_eq!(resumes.another(&bad("protocol"), 1), Some(2));
        assert!(resumes.whole);
        assert_eq!(resumes.another(&bad("protocol"), 1), None);
    }
}
