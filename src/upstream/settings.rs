//! What `config` hands over, checked.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::limits::ENDPOINT_PATIENCE;
use crate::net::{Lookup, Timeouts};
use crate::oci::Host;

/// How to reach one upstream at one endpoint (design §3, `[[upstream]]`), checked by `config`.
#[derive(Clone)]
pub struct Settings {
    /// Canonical name.
    pub host: Host,
    /// Base URL: http or https, no user, path, query or fragment.
    pub endpoint: url::Url,
    /// Where credentials come from.
    pub credentials: Credentials,
    /// Further hosts that the token realm may name.
    pub auth_hosts: Vec<String>,
    /// Only these redirect hosts; empty: any public https host.
    pub redirect_hosts: Vec<String>,
    /// The only roots for this upstream (PEM).
    pub ca_pem: Option<Vec<u8>>,
    /// Client certificate and key (PEM).
    pub client_identity_pem: Option<Vec<u8>>,
    /// HTTP proxy.
    pub proxy: Option<url::Url>,
    /// Whether private addresses may be dialled.
    pub allow_private_addresses: bool,
    /// Whether requests name the upstream in `?ns=`: the endpoint is a mirror of several registries.
    pub ns: bool,
}

/// A further endpoint of an upstream, asked when those before it fail.
#[derive(Debug, Clone)]
pub struct Fallback {
    /// How to reach it; `host` is the upstream's.
    pub settings: Settings,
    /// How much of the upstream it has.
    pub content: Content,
}

/// How much of an upstream an endpoint has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// All: what is not there, the upstream does not have.
    Complete,
    /// Perhaps not all: what is not there says nothing.
    Partial,
}

impl fmt::Debug for Settings {
    /// Keys, and passwords in a proxy's URL, stay out of it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Settings")
            .field("host", &self.host)
            .field("endpoint", &self.endpoint.as_str())
            .field("credentials", &self.credentials)
            .field("auth_hosts", &self.auth_hosts)
            .field("redirect_hosts", &self.redirect_hosts)
            .field("allow_private_addresses", &self.allow_private_addresses)
            .finish_non_exhaustive()
    }
}

/// Where an upstream's credentials come from.
#[derive(Clone)]
pub enum Credentials {
    /// None.
    Anonymous,
    /// A name, and a password read from a file at load.
    Static {
        /// User.
        username: String,
        /// Password.
        password: String,
    },
    /// docker's config.json.
    DockerConfig(PathBuf),
    /// `docker-credential-<name>`.
    Helper(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Static { .. } => "Static(****)",
            Self::DockerConfig(_) => "DockerConfig",
            Self::Helper(_) => "Helper",
        })
    }
}

/// What tests change about the network.
#[derive(Debug, Clone)]
pub struct Network {
    /// Time limits.
    pub timeouts: Timeouts,
    /// Where addresses of names come from.
    pub lookup: Lookup,
    /// How long an endpoint may be silent until the next one is asked beside it.
    pub patience: Duration,
}

impl Default for Network {
    fn default() -> Self {
        Self { timeouts: Timeouts::default(), lookup: Lookup::default(), patience: ENDPOINT_PATIENCE }
    }
}
