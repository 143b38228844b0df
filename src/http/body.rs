//! Bodies of answers. The permit and the count of a request live as long as its body, not as long as its headers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use http::StatusCode;
use http_body::{Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use super::connection::{Busy, Handover};
use crate::pull::PullError;
use crate::telemetry::RequestGuard;

/// What goes out after the headers.
pub(super) enum Content {
    /// Nothing, as for a HEAD.
    Empty,
    /// Bytes that are there.
    Whole(Bytes),
    /// Bytes as they come, this many.
    Stream(BoxStream<'static, Result<Bytes, PullError>>, u64),
}

impl Content {
    /// Bytes to come.
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Whole(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            Self::Stream(_, remaining) => *remaining,
        }
    }
}

/// What a request holds until its last byte has gone out or its client has.
pub(super) struct Held {
    /// Counts it; gone once it has been counted as complete.
    pub(super) guard: Option<RequestGuard>,
    /// Its place among the requests in flight; a request that got none is answered without.
    pub(super) _place: Option<InFlight>,
    /// Keeps its connection from counting as idle.
    pub(super) _busy: Busy,
    /// Watches that the peer takes it, where the connection itself cannot tell.
    pub(super) handover: Option<Arc<Handover>>,
}

/// A place among the requests in flight: its client's and all.
pub(super) struct InFlight {
    pub(super) _of_client: OwnedSemaphorePermit,
    pub(super) _of_all: OwnedSemaphorePermit,
}

/// The body of an answer.
pub(super) struct Body {
    content: Content,
    held: Held,
}

/// The body ends short: the client must see a broken transfer, never a clean end.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// The bytes stopped coming, or were found wrong.
    #[error("the blob cannot be completed")]
    Broken(#[source] PullError),
    /// They ended early, or went on too long.
    #[error("the blob is not as long as its manifest says")]
    Length,
}

impl Body {
    pub(super) fn new(content: Content, held: Held) -> Self {
        let mut body = Self { content, held };
        if body.content.length() == 0 {
            body.finish();
        }
        body
    }

    fn sent(&mut self, bytes: &Bytes) {
        if let Some(guard) = &mut self.held.guard {
            guard.first_byte();
            guard.sent(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        }
        if let Some(handover) = &self.held.handover {
            handover.handed();
        }
        if self.content.length() == 0 {
            self.finish();
        }
    }

    /// Counts the request as complete. What else it holds goes with the body, when hyper has let go of it.
    fn finish(&mut self) {
        if let Some(mut guard) = self.held.guard.take() {
            guard.first_byte();
            guard.finished();
        }
    }

    /// Ends the body short. It was ours to complete, so it is counted as the 502 that it would have been before its headers went
    /// out, and not as a client that left.
    fn broken(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(mut guard) = self.held.guard.take() {
            guard.status(StatusCode::BAD_GATEWAY.as_u16());
            guard.finished();
        }
        Poll::Ready(Some(Err(error)))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = &mut *self;
        if let Some(handover) = &this.held.handover {
            handover.taken();
        }
        let bytes = match &mut this.content {
            Content::Empty | Content::Stream(_, 0) => return Poll::Ready(None),
            Content::Whole(bytes) => std::mem::take(bytes),
            Content::Stream(stream, remaining) => match ready!(stream.as_mut().poll_next(context)) {
                Some(Ok(bytes)) => {
                    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                    let Some(left) = remaining.checked_sub(length) else {
                        return this.broken(BodyError::Length);
                    };
                    *remaining = left;
                    bytes
                }
                Some(Err(error)) => return this.broken(BodyError::Broken(error)),
                None => return this.broken(BodyError::Length),
            },
        };
        if bytes.is_empty() && matches!(this.content, Content::Whole(_)) {
            return Poll::Ready(None);
        }
        this.sent(&bytes);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.content.length() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.content.length())
    }
}
