//! Why there is no usable response.

use std::error::Error;
use std::io;

use super::AddressKind;

/// Why a request got no usable response, or a body did not end well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// The target's address may not be dialled; nothing was sent.
    #[error("the address is {} and must not be dialled", kind.as_str())]
    AddressBlocked {
        /// What it is.
        kind: AddressKind,
    },
    /// The name has no address.
    #[error("the name cannot be resolved")]
    Dns,
    /// Nobody accepted the connection.
    #[error("the connection cannot be established")]
    Connect,
    /// The handshake failed: certificate, version, or a client certificate that is missing.
    #[error("TLS failed")]
    Tls,
    /// The connection broke.
    #[error("the connection broke")]
    Reset,
    /// The bytes are no HTTP that can be used, or the headers are too large.
    #[error("the answer is not usable HTTP")]
    Protocol,
    /// A time limit passed.
    #[error("no answer in time")]
    Timeout,
    /// The body ended before its stated length.
    #[error("the body ended early")]
    Truncated,
    /// The body is longer than what is read.
    #[error("the body is longer than {limit} bytes")]
    TooLarge {
        /// How much is read.
        limit: u64,
    },
}

impl NetError {
    /// Finds the cause in the chain of a `reqwest` error. Its texts are dropped: they can contain URLs with secrets.
    pub(super) fn of(error: &reqwest::Error) -> Self {
        let mut cause: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(link) = cause {
            if let Some(found) = Self::of_link(link) {
                return found;
            }
            cause = link.source();
        }
        if error.is_timeout() {
            Self::Timeout
        } else if error.is_dns() {
            Self::Dns
        } else if error.is_connect() {
            Self::Connect
        } else {
            Self::Reset
        }
    }

    /// As [`Self::of`], for a connection that ends before the headers: it has broken, since only a body can be cut short.
    pub(super) fn before_headers(error: &reqwest::Error) -> Self {
        match Self::of(error) {
            Self::Truncated => Self::Reset,
            other @ (Self::AddressBlocked { .. }
            | Self::Dns
            | Self::Connect
            | Self::Tls
            | Self::Reset
            | Self::Protocol
            | Self::Timeout
            | Self::TooLarge { .. }) => other,
        }
    }

    fn of_link(link: &(dyn Error + 'static)) -> Option<Self> {
        if let Some(BlockedAddress(kind)) = link.downcast_ref() {
            return Some(Self::AddressBlocked { kind: *kind });
        }
        if link.is::<rustls::Error>() {
            return Some(Self::Tls);
        }
        if let Some(io) = link.downcast_ref::<io::Error>() {
            // The error inside an `io::Error` is not in its `source` chain.
            let inner = io.get_ref().and_then(|inner| Self::of_link(inner));
            return inner.or_else(|| (io.kind() == io::ErrorKind::UnexpectedEof).then_some(Self::Truncated));
        }
        let hyper = link.downcast_ref::<hyper::Error>()?;
        if hyper.is_parse() || hyper.is_parse_too_large() {
            Some(Self::Protocol)
        } else if hyper.is_incomplete_message() {
            Some(Self::Truncated)
        } else {
            None
        }
    }
}

/// What the resolver says of a name whose addresses must not be dialled.
#[derive(Debug, thiserror::Error)]
#[error("the address is {} and must not be dialled", .0.as_str())]
pub(super) struct BlockedAddress(pub(super) AddressKind);

/// Settings of a client that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpSettingsError {
    /// The CA file holds no certificate, or one that does not parse.
    #[error("the CA file must hold PEM certificates, and nothing else that looks like one")]
    Ca,
    /// The client certificate or key does not parse, or they do not belong together.
    #[error("client certificate and key must be PEM and belong together")]
    Identity,
    /// The proxy's URL cannot be used.
    #[error("the proxy must be an http or https URL")]
    Proxy,
    /// The TLS or HTTP library refuses the combination.
    #[error("the HTTP client cannot be built")]
    Client,
}
