//! Outgoing HTTP, once: time limits, roots, address checks, bounded reading. The home of `reqwest`.
//!
//! [`HttpClient`] sends one request and returns one response. It follows no redirect, decodes nothing, keeps no cookie
//! and reads no environment: what goes over the wire is what the caller wrote. Names are resolved by us, and only the
//! addresses that passed [`AddressRules`] are dialled; nothing is resolved twice. May import: `telemetry`, `limits`.

pub mod address;
pub mod body;
mod error;
mod lookup;
mod tls;

pub use address::{AddressKind, AddressRules};
pub use body::{Body, read_at_most};
pub use error::{HttpSettingsError, NetError};
pub use lookup::{Lookup, Script};

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use url::{Host, Url};

use crate::limits;
use lookup::CheckedResolver;

/// Sends requests; clones share the connection pool.
#[derive(Debug, Clone)]
pub struct HttpClient {
    inner: reqwest::Client,
    addresses: AddressRules,
    timeouts: Timeouts,
}

/// How to build an [`HttpClient`].
#[derive(Default)]
pub struct HttpSettings {
    /// The only roots (PEM); without it the system's, and without those Mozilla's.
    pub ca_pem: Option<Vec<u8>>,
    /// Client certificate chain and key (PEM).
    pub client_identity_pem: Option<Vec<u8>>,
    /// HTTP proxy. It resolves names itself, so that behind one only address literals are checked.
    pub proxy: Option<Url>,
    /// Which addresses may be dialled.
    pub addresses: AddressRules,
    /// Time limits.
    pub timeouts: Timeouts,
    /// Where addresses of names come from.
    pub lookup: Lookup,
}

impl fmt::Debug for HttpSettings {
    /// Keys and passwords stay out of it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HttpSettings").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// Time limits of outgoing requests; the defaults are those of [`limits`], tests use smaller ones.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// To connect, TLS included.
    pub connect: Duration,
    /// From request to response headers, connecting included.
    pub first_byte: Duration,
    /// For [`limits::UPSTREAM_PROGRESS_BYTES`] of a body to arrive.
    pub idle: Duration,
    /// For a whole manifest, page or token.
    pub total: Duration,
    /// Before the first repetition of a request; doubles, with jitter.
    pub retry_pause: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: limits::UPSTREAM_CONNECT,
            first_byte: limits::UPSTREAM_FIRST_BYTE,
            idle: limits::UPSTREAM_IDLE,
            total: limits::UPSTREAM_MANIFEST_TOTAL,
            retry_pause: limits::UPSTREAM_RETRY_PAUSE,
        }
    }
}

/// A request: everything that is sent beyond `Host`, `User-Agent` and `Accept-Encoding: identity`.
#[derive(Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The target: http or https, without user and fragment.
    pub url: Url,
    /// Headers.
    pub headers: HeaderMap,
    /// The body; empty for all but a few token requests.
    pub body: Bytes,
}

/// A response whose headers have arrived.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The headers, at most [`limits::UPSTREAM_HEADER_BYTES_MAX`].
    pub headers: HeaderMap,
    /// The body, unread.
    pub body: Body,
}

impl HttpClient {
    /// Builds the client; contacts nobody.
    ///
    /// # Errors
    /// [`HttpSettingsError`] when certificates, key or proxy cannot be used.
    pub fn new(settings: HttpSettings) -> Result<Self, HttpSettingsError> {
        let HttpSettings { ca_pem, client_identity_pem, proxy, addresses, timeouts, lookup } = settings;
        let tls = tls::client_config(ca_pem.as_deref(), client_identity_pem.as_deref())?;
        if proxy.as_ref().is_some_and(|proxy| !matches!(proxy.scheme(), "http" | "https")) {
            return Err(HttpSettingsError::Proxy);
        }
        let proxy_host = proxy.as_ref().and_then(Url::host_str).map(str::to_owned);
        let resolver = CheckedResolver { lookup, addresses: addresses.clone(), proxy_host };
        // `no_proxy` comes first: it also clears proxies that were set before.
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .user_agent(concat!("sealgate/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(timeouts.connect)
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(limits::UPSTREAM_CONCURRENCY)
            .http2_max_header_list_size(HEADER_LIST_BYTES)
            .http2_initial_stream_window_size(HTTP2_BODY_WINDOW)
            .http2_initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
            .dns_resolver(resolver)
            .tls_backend_preconfigured(tls);
        if let Some(url) = proxy {
            builder = builder.proxy(reqwest::Proxy::all(url).map_err(|_| HttpSettingsError::Proxy)?);
        }
        let inner = builder.build().map_err(|_| HttpSettingsError::Client)?;
        Ok(Self { inner, addresses, timeouts })
    }

    /// Sends one request and waits for the response's headers.
    ///
    /// Cancel safe: dropping the future closes the connection.
    ///
    /// # Errors
    /// [`NetError`] when there is no usable response; its variants say why.
    pub async fn send(&self, request: Request) -> Result<Response, NetError> {
        self.check_literal(&request.url)?;
        let sending = self
            .inner
            .request(request.method, request.url)
            .headers(request.headers)
            .header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let sending = if request.body.is_empty() { sending } else { sending.body(request.body) };
        let answered = tokio::time::timeout(self.timeouts.first_byte, sending.send()).await;
        let response = answered.map_err(|_| NetError::Timeout)?.map_err(|error| NetError::before_headers(&error))?;
        let response: http::Response<reqwest::Body> = response.into();
        let (head, body) = response.into_parts();
        let header_bytes: usize =
            head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len()).sum();
        if header_bytes > limits::UPSTREAM_HEADER_BYTES_MAX {
            return Err(NetError::Protocol);
        }
        Ok(Response { status: head.status, headers: head.headers, body: Body::new(body, self.timeouts.idle) })
    }

    /// The time limits in force.
    pub fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// Checks a host that is written as an address: no resolver ever sees it.
    fn check_literal(&self, url: &Url) -> Result<(), NetError> {
        let address = match url.host() {
            Some(Host::Ipv4(address)) => address.into(),
            Some(Host::Ipv6(address)) => address.into(),
            Some(Host::Domain(_)) => return Ok(()),
            None => return Err(NetError::Protocol),
        };
        self.addresses.check(address).map_err(|kind| NetError::AddressBlocked { kind })
    }
}

/// Time an idle connection is kept.
const POOL_IDLE: Duration = Duration::from_secs(30);

/// [`limits::UPSTREAM_HEADER_BYTES_MAX`] in the type that HTTP/2 wants.
const HEADER_LIST_BYTES: u32 = 32 * 1024;

/// Bytes of one HTTP/2 body that may arrive before they are read.
const HTTP2_BODY_WINDOW: u32 = 2 * 1024 * 1024;
/// The same of all bodies of a connection: each of [`limits::UPSTREAM_CONCURRENCY`] may leave its own unread, and holds up no other.
const HTTP2_CONNECTION_WINDOW: u32 = 32 * HTTP2_BODY_WINDOW;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_bound_agree() {
        assert_eq!(usize::try_from(HEADER_LIST_BYTES).unwrap(), limits::UPSTREAM_HEADER_BYTES_MAX);
        assert_eq!(usize::try_from(HTTP2_CONNECTION_WINDOW / HTTP2_BODY_WINDOW).unwrap(), limits::UPSTREAM_CONCURRENCY);
    }

    #[tokio::test]
    async fn an_address_literal_is_checked_before_anything_is_sent() {
        let client = HttpClient::new(HttpSettings::default()).unwrap();
        let literals =
            ["127.0.0.1", "10.0.0.1", "169.254.169.254", "2130706433", "0x7f.1", "[::ffff:169.254.169.254]", "[::1]"];
        for host in literals {
            let url = Url::parse(&format!("http://{host}:9/")).unwrap();
            let request = Request { method: Method::GET, url, headers: HeaderMap::new(), body: Bytes::new() };
            assert!(matches!(client.send(request).await, Err(NetError::AddressBlocked { .. })), "{host}");
        }
    }
}
