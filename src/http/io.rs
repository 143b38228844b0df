//! A connection's bytes under watch: what arrives in time, what leaves at all, and a last word that is heard.
//!
//! hyper's own header timeout does not tell an idle connection from a slow one, and nothing in it bounds a peer that stops reading. Both
//! are one timer here: it runs only while the socket makes us wait.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::connection::{Connection, Expiry, Phase};
use super::scan::LengthScan;
use super::{Protocol, Timeouts};
use crate::limits::{LINGER, LINGER_BYTES_MAX};
use crate::store::FileRegion;

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

/// What carries a connection.
pub(super) trait Carrier: AsyncRead + AsyncWrite + Unpin {
    /// Sends up to `length` bytes of a cached file without copying them; `None` when this carrier cannot.
    fn poll_send_file(
        &mut self,
        region: &FileRegion,
        length: usize,
        context: &mut Context<'_>,
    ) -> Option<Poll<io::Result<usize>>>;
}

impl Carrier for TcpStream {
    fn poll_send_file(
        &mut self,
        region: &FileRegion,
        length: usize,
        context: &mut Context<'_>,
    ) -> Option<Poll<io::Result<usize>>> {
        loop {
            match self.poll_write_ready(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Some(Poll::Ready(Err(error))),
                Poll::Pending => return Some(Poll::Pending),
            }
            match self.try_io(Interest::WRITABLE, || region.send_to(&*self, length)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Some(Poll::Ready(sent)),
            }
        }
    }
}

impl Carrier for tokio_rustls::server::TlsStream<TcpStream> {
    fn poll_send_file(&mut self, _: &FileRegion, _: usize, _: &mut Context<'_>) -> Option<Poll<io::Result<usize>>> {
        None
    }
}

impl<S: Carrier> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let by_file =
            FileRegion::of(bytes).and_then(|region| self.stream.poll_send_file(&region, bytes.len(), context));
        let result = by_file.unwrap_or_else(|| Pin::new(&mut self.stream).poll_write(context, bytes));
        self.watch_write(result, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let mut copied = slices;
        if let Some((at, region)) = slices.iter().enumerate().find_map(|(at, slice)| Some((at, FileRegion::of(slice)?)))
        {
            let (before, from) = slices.split_at_checked(at).unwrap_or((slices, &[]));
            if before.iter().all(|slice| slice.is_empty())
                && let Some(slice) = from.first()
                && let Some(result) = this.stream.poll_send_file(&region, slice.len(), context)
            {
                return this.watch_write(result, context);
            }
            // What stands before the file goes out first; the file is the next call's.
            if !before.is_empty() {
                copied = before;
            }
        }
        let result = Pin::new(&mut this.stream).poll_write_vectored(context, copied);
        this.watch_write(result, context)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::time::{Instant, sleep, timeout};

    use super::*;
    use crate::http::connection::Busy;

    const SECOND: Duration = Duration::from_secs(1);

    impl Carrier for DuplexStream {
        fn poll_send_file(&mut self, _: &FileRegion, _: usize, _: &mut Context<'_>) -> Option<Poll<io::Result<usize>>> {
            None
        }
    }

    struct Pair {
        client: DuplexStream,
        server: Watched<DuplexStream>,
        connection: Arc<Connection>,
    }

    fn pair(protocol: Protocol) -> Pair {
        let (client, stream) = duplex(64);
        let connection = Arc::new(Connection::alone());
        let server = Watched::new(stream, Arc::clone(&connection), protocol, Timeouts::default());
        Pair { client, server, connection }
    }

    impl Pair {
        /// Takes in bytes as hyper would, and begins a request.
        async fn request(&mut self) -> Busy {
            self.client.write_all(b"GET").await.unwrap();
            let mut head = [0; 3];
            self.server.read_exact(&mut head).await.unwrap();
            self.connection.request()
        }

        /// How long the server waits for bytes until it gives up.
        async fn waited(&mut self) -> Duration {
            let began = Instant::now();
            let error = self.server.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            began.elapsed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn p12_a_silent_connection_gets_the_time_of_a_head() {
        let mut pair = pair(Protocol::Http1);
        assert_eq!(pair.waited().await.as_secs(), crate::limits::HEADER_READ.as_secs());
        assert_eq!(pair.connection.expiry(), Some(Expiry::Header));
    }

    #[tokio::test(start_paused = true)]
    async fn p12_a_byte_a_second_does_not_lengthen_a_head() {
        let Pair { mut client, mut server, .. } = pair(Protocol::Http1);
        let began = Instant::now();
        let dripping = async {
            loop {
                client.write_all(b"P").await.unwrap();
                sleep(SECOND).await;
            }
        };
        let reading = async {
            loop {
                if let Err(error) = server.read_u8().await {
                    return error;
                }
            }
        };
        // Losing the writer is the point.
        let error = tokio::select! { error = reading => error, () = dripping => unreachable!() };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), crate::limits::HEADER_READ.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_may_take_its_time_and_an_idle_connection_has_a_minute() {
        let mut pair = pair(Protocol::Http1);
        let busy = pair.request().await;
        assert!(timeout(Duration::from_hours(1), pair.server.read_u8()).await.is_err(), "busy: no deadline");
        drop(busy);
        assert_eq!(pair.waited().await.as_secs(), crate::limits::KEEP_ALIVE_IDLE.as_secs());
        assert_eq!(pair.connection.expiry(), Some(Expiry::Idle));
    }

    #[tokio::test(start_paused = true)]
    async fn each_pause_between_requests_is_measured_anew() {
        let mut pair = pair(Protocol::Http1);
        for _ in 0..5 {
            drop(pair.request().await);
            assert!(timeout(SECOND * 50, pair.server.read_u8()).await.is_err(), "50 s are not too long");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_head_has_its_time_from_its_first_byte() {
        let mut pair = pair(Protocol::Http1);
        drop(pair.request().await);
        assert!(timeout(SECOND * 50, pair.server.read_u8()).await.is_err());
        pair.client.write_all(b"P").await.unwrap();
        assert_eq!(pair.server.read_u8().await.unwrap(), b'P');
        assert_eq!(pair.waited().await.as_secs(), crate::limits::HEADER_READ.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn p12_pings_do_not_keep_an_idle_http2_connection() {
        let mut pair = pair(Protocol::Http2);
        drop(pair.request().await);
        let began = Instant::now();
        let Pair { mut client, mut server, .. } = pair;
        let error = loop {
            client.write_all(b"ping").await.unwrap();
            let reading = async {
                loop {
                    if let Err(error) = server.read_u8().await {
                        return error;
                    }
                }
            };
            if let Ok(error) = timeout(SECOND * 7, reading).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() <= crate::limits::KEEP_ALIVE_IDLE + SECOND * 7);
    }

    #[tokio::test(start_paused = true)]
    async fn p14_a_peer_that_takes_nothing_is_dropped() {
        let mut pair = pair(Protocol::Http1);
        let _busy = pair.request().await;
        let began = Instant::now();
        let error = pair.server.write_all(&[0; 1000]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), crate::limits::WRITE_IDLE.as_secs());
        assert_eq!(pair.connection.expiry(), Some(Expiry::Write));
    }

    #[tokio::test(start_paused = true)]
    async fn p14_a_peer_that_takes_a_little_is_not() {
        let Pair { mut client, mut server, .. } = pair(Protocol::Http1);
        let taking = async {
            let mut byte = [0; 1];
            for _ in 0..200 {
                sleep(SECOND * 20).await;
                client.read_exact(&mut byte).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(server.write_all(&[0; 256]), taking);
        assert!(written.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn tls_on_a_plaintext_listener_ends_at_once() {
        let Pair { mut client, mut server, .. } = pair(Protocol::Http1);
        client.write_all(&[TLS_HANDSHAKE_BYTE, 3, 1]).await.unwrap();
        assert_eq!(server.read_u8().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_answer_is_followed_by_a_bounded_wait_for_the_peer() {
        let Pair { mut client, mut server, .. } = pair(Protocol::Http1);
        let began = Instant::now();
        server.shutdown().await.unwrap();
        assert_eq!(began.elapsed().as_secs(), LINGER.as_secs(), "a peer that neither sends nor leaves");
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0, "and sees the end");

        let Pair { client, mut server, .. } = pair(Protocol::Http1);
        drop(client);
        let began = Instant::now();
        server.shutdown().await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO, "a peer that has left");
    }
}
