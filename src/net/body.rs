//! Reading bodies: bounded in bytes and in time.

use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use super::NetError;
use crate::limits::UPSTREAM_PROGRESS_BYTES;

/// The body of a response.
///
/// It stalls, as [`NetError::Timeout`], when less than [`UPSTREAM_PROGRESS_BYTES`] arrive within the idle time. Only time
/// spent waiting for the peer counts: a reader that is slow itself does not make the peer late.
#[derive(Debug)]
pub struct Body {
    inner: Pin<Box<reqwest::Body>>,
    idle: Duration,
    /// Time waited since the window began.
    waited: Duration,
    /// Bytes that arrived since then.
    arrived: u64,
}

impl Body {
    pub(super) fn new(inner: reqwest::Body, idle: Duration) -> Self {
        Self { inner: Box::pin(inner), idle, waited: Duration::ZERO, arrived: 0 }
    }

    /// The next bytes; `None` at the end. Cancel safe: nothing is lost.
    ///
    /// # Errors
    /// [`NetError::Timeout`] when the peer stalls, [`NetError::Truncated`] and [`NetError::Reset`] when the transfer broke.
    pub async fn next(&mut self) -> Result<Option<Bytes>, NetError> {
        loop {
            let began = Instant::now();
            let left = self.idle.saturating_sub(self.waited);
            let frame = tokio::time::timeout(left, self.inner.frame()).await.map_err(|_| NetError::Timeout)?;
            self.waited = self.waited.saturating_add(began.elapsed());
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(NetError::of(&error)),
                Some(Ok(frame)) => {
                    // Trailers carry nothing that we read.
                    let Ok(bytes) = frame.into_data() else { continue };
                    self.progress(bytes.len());
                    if !bytes.is_empty() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    fn progress(&mut self, bytes: usize) {
        self.arrived = self.arrived.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        if self.arrived >= UPSTREAM_PROGRESS_BYTES {
            self.arrived = 0;
            self.waited = Duration::ZERO;
        }
    }
}

/// Reads a whole body of at most `limit` bytes. It asks for one byte more, so that a full body and one that is too long
/// differ.
///
/// # Errors
/// [`NetError::TooLarge`] when there is more, else as [`Body::next`].
pub async fn read_at_most(mut body: Body, limit: u64) -> Result<Bytes, NetError> {
    let expected = body.inner.size_hint().exact().filter(|length| *length <= limit);
    let fits = |length: usize| u64::try_from(length).is_ok_and(|length| length <= limit);
    let Some(first) = body.next().await? else { return Ok(Bytes::new()) };
    if !fits(first.len()) {
        return Err(NetError::TooLarge { limit });
    }
    let Some(second) = body.next().await? else { return Ok(first) };
    // Of a length that is known no more is taken: doubling would keep twice as much for a moment.
    let expected = expected.and_then(|length| usize::try_from(length).ok()).unwrap_or(first.len());
    let mut whole = BytesMut::with_capacity(expected.max(first.len()));
    whole.extend_from_slice(&first);
    let mut next = Some(second);
    while let Some(bytes) = next {
        if !fits(whole.len().saturating_add(bytes.len())) {
            return Err(NetError::TooLarge { limit });
        }
        whole.extend_from_slice(&bytes);
        next = body.next().await?;
    }
    Ok(whole.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(30);

    /// A body of these pieces, each after a pause.
    fn paced(pieces: Vec<(Duration, Vec<u8>)>) -> Body {
        let stream = futures_util::stream::unfold(pieces.into_iter(), |mut pieces| async move {
            let (pause, bytes) = pieces.next()?;
            tokio::time::sleep(pause).await;
            Some((Ok::<_, std::io::Error>(bytes), pieces))
        });
        Body::new(reqwest::Body::wrap_stream(stream), IDLE)
    }

    fn pieces(count: usize, bytes: usize, pause: Duration) -> Body {
        paced(vec![(pause, vec![0; bytes]); count])
    }

    #[tokio::test]
    async fn a_full_body_passes_and_one_byte_more_does_not() {
        for count in [1, 2, 5] {
            let length = u64::try_from(count * 10).unwrap();
            let read = |limit| read_at_most(pieces(count, 10, Duration::ZERO), limit);
            assert_eq!(read(length).await.unwrap().len(), count * 10);
            assert_eq!(read(length - 1).await, Err(NetError::TooLarge { limit: length - 1 }));
        }
        assert_eq!(read_at_most(pieces(0, 0, Duration::ZERO), 0).await, Ok(Bytes::new()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_times_out() {
        let read = read_at_most(pieces(1, 1, IDLE + Duration::from_millis(1)), 10).await;
        assert_eq!(read, Err(NetError::Timeout));
        assert!(read_at_most(pieces(1, 1, IDLE.checked_sub(Duration::from_millis(1)).unwrap()), 10).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_dripping_peer_times_out_though_it_never_falls_silent() {
        let read = read_at_most(pieces(1000, 1, Duration::from_secs(1)), 10_000).await;
        assert_eq!(read, Err(NetError::Timeout));
        let enough = usize::try_from(UPSTREAM_PROGRESS_BYTES).unwrap();
        assert!(read_at_most(pieces(20, enough, IDLE / 2), u64::MAX).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_does_not_make_the_peer_late() {
        let mut body = pieces(10, 1, Duration::from_millis(1));
        for _ in 0..10 {
            tokio::time::sleep(IDLE * 2).await;
            assert_eq!(body.next().await.unwrap().unwrap().len(), 1);
        }
        assert_eq!(body.next().await, Ok(None));
    }
}
