//! Accepts connections, bounds them in number, and ends them in order (`docs/decisions/0003-own-accept-loop.md` says why we do it ourselves).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::Connection;
use super::refusal::HardStop;
use super::upstreams::Upstreams;
use super::{Caps, Settings, Timeouts, connection};
use crate::limits::{ACCEPT_PAUSE, KIB};
use crate::pull::{ColdWork, Delivery, Puller};
use crate::telemetry::{CloseReason, Telemetry};

/// What all connections share.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) puller: Puller,
    pub(super) upstreams: Upstreams,
    pub(super) hard_stop: HardStop,
    pub(super) timeouts: Timeouts,
    pub(super) tls: Option<Acceptor>,
    pub(super) telemetry: Telemetry,
    /// Places for requests in flight.
    pub(super) in_flight: Arc<Semaphore>,
    /// KiB of large manifests in answers that have not gone out.
    pub(super) manifest_room: Arc<Semaphore>,
    /// Places for what they need that is not here.
    pub(super) cold: ColdWork,
    /// Streams of HTTP/2 connections.
    pub(super) streams: TaskTracker,
    /// No more connections; those that are open end after their current answer.
    pub(super) shutdown: CancellationToken,
    /// Connections that are still open end now.
    pub(super) cut: CancellationToken,
}

impl Server {
    /// TLS has to read what it encrypts.
    pub(super) const fn delivery(&self) -> Delivery {
        if self.tls.is_some() { Delivery::Copied } else { Delivery::ByFile }
    }
}

/// Hides rustls' large state from `Debug`.
pub(super) struct Acceptor(TlsAcceptor);

impl Acceptor {
    pub(super) fn accept(&self, stream: TcpStream) -> tokio_rustls::Accept<TcpStream> {
        self.0.accept(stream)
    }
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Acceptor")
    }
}

/// Serves the registry API on `listener` until `shutdown`, then lets running transfers end for [`Timeouts::drain`] and cuts the rest.
///
/// Returns when every connection is closed. The caller has bound `listener`, so its port is known before the first connection.
pub async fn serve(
    listener: TcpListener,
    settings: Settings,
    puller: Puller,
    telemetry: Telemetry,
    shutdown: CancellationToken,
) {
    let Settings { upstreams, hard_stop, tls, timeouts, caps } = settings;
    let server = Arc::new(Server {
        puller,
        upstreams,
        hard_stop,
        timeouts,
        tls: tls.map(|tls| Acceptor(TlsAcceptor::from(tls.0))),
        telemetry,
        in_flight: Arc::new(Semaphore::new(caps.requests_in_flight)),
        manifest_room: Arc::new(Semaphore::new(usize::try_from(caps.manifest_bytes / KIB).unwrap_or(usize::MAX))),
        cold: ColdWork::new(caps.cold),
        streams: TaskTracker::new(),
        shutdown,
        cut: CancellationToken::new(),
    });
    let places = Places::new(caps);
    let connections = TaskTracker::new();
    accept(&listener, &server, &places, &connections).await;
    drop(listener);
    connections.close();
    server.streams.close();
    if tokio::time::timeout(timeouts.drain, connections.wait()).await.is_err() {
        tracing::info!(connections = connections.len(), "cutting connections that did not end in time");
        server.cut.cancel();
        connections.wait().await;
    }
    // Streams end with their connection; nothing of theirs may hold up the process if one does not.
    if tokio::time::timeout(timeouts.drain, server.streams.wait()).await.is_err() {
        tracing::warn!(streams = server.streams.len(), "leaving streams that outlive their connections");
    }
}

async fn accept(listener: &TcpListener, server: &Arc<Server>, places: &Places, connections: &TaskTracker) {
    loop {
        // Losing a branch is safe: a connection that was not accepted stays in the kernel's queue.
        let accepted = tokio::select! {
            biased;
            () = server.shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => begin(stream, peer, server, places, connections),
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn begin(stream: TcpStream, peer: SocketAddr, server: &Arc<Server>, places: &Places, connections: &TaskTracker) {
    let place = match places.take(peer.ip()) {
        Ok(place) => place,
        Err(reason) => {
            tracing::debug!(client = %peer, reason = reason.as_label(), "connection refused");
            server.telemetry.connection_closed(reason);
            return;
        }
    };
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, client = %peer, "TCP_NODELAY");
    }
    let server = Arc::clone(server);
    let connection = Connection::new(peer, place.client.address, Arc::clone(&place.client.requests));
    connections.spawn(async move {
        let life = AssertUnwindSafe(connection::serve(stream, connection, Arc::clone(&server))).catch_unwind().await;
        if life.is_err() {
            server.telemetry.panicked("http_connection");
        }
        drop(place);
    });
}

/// Errors that say nothing about the next connection.
fn is_about_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Places for connections, in all and of one client address.
struct Places {
    total: Arc<Semaphore>,
    addresses: Addresses,
}

/// Gives a connection's place back.
struct Place {
    _total: OwnedSemaphorePermit,
    client: AddressPlace,
}

impl Places {
    fn new(caps: Caps) -> Self {
        Self { total: Arc::new(Semaphore::new(caps.connections)), addresses: Addresses::new(caps) }
    }

    fn take(&self, address: IpAddr) -> Result<Place, CloseReason> {
        let total = Arc::clone(&self.total).try_acquire_owned().map_err(|_| CloseReason::TotalLimit)?;
        let client = self.addresses.take(address).ok_or(CloseReason::AddressLimit)?;
        Ok(Place { _total: total, client })
    }
}

/// Clients with open connections. Bounded by the connections in all: a client without any has no entry.
#[derive(Clone)]
struct Addresses {
    open: Arc<Mutex<HashMap<IpAddr, Open>>>,
    caps: Caps,
}

/// What one client has.
struct Open {
    connections: usize,
    /// Places for its requests in flight.
    requests: Arc<Semaphore>,
}

struct AddressPlace {
    addresses: Addresses,
    address: IpAddr,
    requests: Arc<Semaphore>,
}

impl Addresses {
    fn new(caps: Caps) -> Self {
        Self { open: Arc::default(), caps }
    }

    fn take(&self, address: IpAddr) -> Option<AddressPlace> {
        let address = client_of(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let requests = || Arc::new(Semaphore::new(self.caps.requests_per_address));
        let client = open.entry(address).or_insert_with(|| Open { connections: 0, requests: requests() });
        if client.connections >= self.caps.per_address {
            return None;
        }
        client.connections += 1;
        Some(AddressPlace { addresses: self.clone(), address, requests: Arc::clone(&client.requests) })
    }
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut open = self.addresses.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = open.get_mut(&self.address) {
            client.connections = client.connections.saturating_sub(1);
            if client.connections == 0 {
                open.remove(&self.address);
            }
        }
    }
}

/// Who an address belongs to: one IPv4 address, or a /64, which is what one IPv6 host is given.
fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p13_an_address_has_so_many_places_and_gets_them_back() {
        let addresses = Addresses::new(Caps { per_address: 2, ..Caps::default() });
        let take = |text: &str| addresses.take(text.parse().unwrap());
        let (first, second) = (take("192.0.2.1"), take("192.0.2.1"));
        assert!(first.is_some() && second.is_some() && take("::ffff:192.0.2.1").is_none());
        assert!(take("192.0.2.2").is_some());
        drop(first);
        assert!(take("192.0.2.1").is_some());
        drop(second);
        assert!(addresses.open.lock().unwrap().is_empty(), "a client without connections leaves nothing behind");
    }

    #[test]
    fn one_ipv6_host_is_one_client() {
        assert_eq!(client_of("2001:db8::1".parse().unwrap()), client_of("2001:db8::ffff:1".parse().unwrap()));
        assert_ne!(client_of("2001:db8::1".parse().unwrap()), client_of("2001:db8:0:1::1".parse().unwrap()));
    }

    #[test]
    fn the_total_is_bounded_too() {
        let places = Places::new(Caps { connections: 1, ..Caps::default() });
        let place = places.take("192.0.2.1".parse().unwrap());
        assert!(place.is_ok());
        assert_eq!(places.take("192.0.2.2".parse().unwrap()).err(), Some(CloseReason::TotalLimit));
    }
}
