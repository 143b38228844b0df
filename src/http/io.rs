//! A connection's bytes under watch: what arrives in time, what leaves at all, and a last word that is heard.
//!
//! hyper's own header timeout does not tell an idle connection from a slow one, and nothing in it bounds a peer that stops reading. Both
//! are one timer here: it runs only while the socket makes us wait.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::connection::{Connection, Expiry, Phase};
use super::scan::LengthScan;
use super::{Protocol, Timeouts};
use crate::limits::{LINGER, LINGER_BYTES_MAX};

/// The first byte of a TLS record that begins a handshake (RFC 8446, section 5.1).
const TLS_HANDSHAKE_BYTE: u8 = 0x16;
const DISCARD_BYTES: usize = 4096;

/// A stream that gives up on a peer that is too slow. A failed read or write drops the connection.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    connection: Arc<Connection>,
    protocol: Protocol,
    timeouts: Timeouts,
    scan: LengthScan,
    read_timer: Timer<(Phase, usize)>,
    write_timer: Timer<()>,
    lingering: Option<Lingering>,
    /// Whether any byte has come.
    begun: bool,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, connection: Arc<Connection>, protocol: Protocol, timeouts: Timeouts) -> Self {
        Self {
            stream,
            connection,
            protocol,
            timeouts,
            scan: LengthScan::default(),
            read_timer: Timer::new(),
            write_timer: Timer::new(),
            lingering: None,
            begun: false,
        }
    }

    /// Looks at bytes that have come, before hyper does.
    fn arrived(&mut self, bytes: &[u8]) -> io::Result<()> {
        let first = !std::mem::replace(&mut self.begun, true);
        match self.protocol {
            Protocol::Http2 => return Ok(()),
            Protocol::Http1 if first && bytes.first() == Some(&TLS_HANDSHAKE_BYTE) => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "TLS on a plaintext listener"));
            }
            Protocol::Http1 => {}
        }
        self.connection.head_began();
        self.scan.feed(bytes);
        if self.scan.is_ambiguous() {
            self.connection.length_is_ambiguous();
        }
        Ok(())
    }

    fn poll_read_deadline(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let phase = self.connection.phase();
        let (allowed, expiry) = match phase {
            Phase::Busy => {
                self.read_timer.disarm();
                return Poll::Pending;
            }
            Phase::Head => (self.timeouts.header_read, Expiry::Header),
            Phase::Idle => (self.timeouts.keep_alive_idle, Expiry::Idle),
        };
        ready!(self.read_timer.poll((phase, self.connection.requests()), allowed, context));
        self.connection.expired(expiry);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "nothing came in time")))
    }

    fn watch_write<T>(&mut self, result: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.write_timer.disarm();
            return result;
        }
        ready!(self.write_timer.poll((), self.timeouts.write_idle, context));
        self.connection.expired(Expiry::Write);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer stopped reading")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if Pin::new(&mut self.stream).poll_read(context, buffer)?.is_pending() {
            return self.poll_read_deadline(context);
        }
        match buffer.filled().split_at_checked(before) {
            Some((_, [])) | None => Poll::Ready(Ok(())),
            Some((_, arrived)) => Poll::Ready(self.arrived(arrived)),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch_write(result, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch_write(result, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(context);
        self.watch_write(result, context)
    }

    /// Ends our half and reads on for a moment: bytes left unread would make the kernel reset the connection, and the peer would never see
    /// why it was refused (RFC 9112, section 9.6).
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            let ended = Pin::new(&mut this.stream).poll_shutdown(context);
            ready!(this.watch_write(ended, context))?;
        }
        this.lingering.get_or_insert_with(Lingering::begin).poll(&mut this.stream, context)
    }
}

/// Reading on after our half has ended.
#[derive(Debug)]
struct Lingering {
    until: Pin<Box<Sleep>>,
    room: usize,
}

impl Lingering {
    fn begin() -> Self {
        Self { until: Box::pin(tokio::time::sleep(LINGER)), room: LINGER_BYTES_MAX }
    }

    fn poll<S: AsyncRead + Unpin>(&mut self, stream: &mut S, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut discarded = [0; DISCARD_BYTES];
        loop {
            let mut buffer = ReadBuf::new(&mut discarded);
            match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    match self.room.checked_sub(buffer.filled().len()) {
                        Some(left) => self.room = left,
                        None => return Poll::Ready(Ok(())),
                    }
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return self.until.as_mut().poll(context).map(Ok),
            }
        }
    }
}

/// A deadline that starts when it is first asked about under a key, and starts again under another.
#[derive(Debug)]
struct Timer<K> {
    armed: Option<K>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl<K: PartialEq> Timer<K> {
    fn new() -> Self {
        Self { armed: None, sleep: None }
    }

    fn disarm(&mut self) {
        self.armed = None;
    }

    fn poll(&mut self, key: K, allowed: Duration, context: &mut Context<'_>) -> Poll<()> {
        let deadline = Instant::now() + allowed;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if self.armed.as_ref() != Some(&key) {
            sleep.as_mut().reset(deadline);
            self.armed = Some(key);
        }
        sleep.as_mut().poll(context)
    }
}
