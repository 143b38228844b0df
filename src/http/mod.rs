//! The registry API: the read side of the distribution-spec over HTTP (design §4, §5).
//!
//! [`serve`] accepts connections under time limits and caps, [`Route`] reads each raw path once, [`Upstreams`] finds the repository,
//! and a handler asks [`Puller`](crate::pull::Puller). What is sent is an admitted manifest, an admitted blob, a list, or an error that
//! this module alone words. May import: `pull`, `store`, `telemetry`, `policy`, `oci`, `limits`, `clock`.

mod blobs;
mod body;
mod connection;
mod error;
mod framing;
mod headers;
mod io;
mod layers;
mod log_text;
mod manifests;
mod query;
mod range;
mod referrers;
mod refusal;
mod route;
mod scan;
mod server;
mod tags;
mod tls;
mod upstreams;

pub use framing::FramingError;
pub use query::QueryError;
pub use refusal::HardStop;
pub use route::{PathName, Route, RouteError, Target, UpstreamUnknown};
pub use server::serve;
pub use tls::{Tls, TlsError};
pub use upstreams::{Access, Routed, TagsQuery, UpstreamName, Upstreams, UpstreamsError, Want};

use std::time::Duration;

use crate::limits;
use crate::pull::ColdRules;

/// What the registry listener is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The configured upstreams by name.
    pub upstreams: Upstreams,
    /// Whether clients that can be stopped are stopped.
    pub hard_stop: HardStop,
    /// TLS; without it the listener speaks HTTP/1.1 in the clear.
    pub tls: Option<Tls>,
    /// Time limits.
    pub timeouts: Timeouts,
    /// Bounds on connections and requests.
    pub caps: Caps,
}

impl Settings {
    /// Plaintext, hard stop on, all limits as in [`limits`].
    pub fn new(upstreams: Upstreams) -> Self {
        Self {
            upstreams,
            hard_stop: HardStop::default(),
            tls: None,
            timeouts: Timeouts::default(),
            caps: Caps::default(),
        }
    }
}

/// Time limits of the listener; tests make them shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// To the end of a request's head; also what a silent new connection gets.
    pub header_read: Duration,
    /// Between requests on one connection.
    pub keep_alive_idle: Duration,
    /// Without the client taking a byte of an answer.
    pub write_idle: Duration,
    /// For a TLS handshake.
    pub tls_handshake: Duration,
    /// For running transfers after shutdown began.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            header_read: limits::HEADER_READ,
            keep_alive_idle: limits::KEEP_ALIVE_IDLE,
            write_idle: limits::WRITE_IDLE,
            tls_handshake: limits::TLS_HANDSHAKE,
            drain: limits::DRAIN,
        }
    }
}

/// Bounds of the listener; tests make them smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Connections in all.
    pub connections: usize,
    /// Connections of one client address.
    pub per_address: usize,
    /// Requests in flight.
    pub requests_in_flight: usize,
    /// Requests in flight of one client address.
    pub requests_per_address: usize,
    /// Bytes of large manifests in answers that have not gone out.
    pub manifest_bytes: u64,
    /// Bounds on what requests need that is not here.
    pub cold: ColdRules,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            connections: limits::CONNECTIONS_MAX,
            per_address: limits::CONNECTIONS_PER_ADDRESS_MAX,
            requests_in_flight: limits::REQUESTS_IN_FLIGHT_MAX,
            requests_per_address: limits::REQUESTS_PER_ADDRESS_MAX,
            manifest_bytes: limits::MANIFESTS_IN_FLIGHT_BYTES_MAX,
            cold: ColdRules::default(),
        }
    }
}

/// Which HTTP a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}
