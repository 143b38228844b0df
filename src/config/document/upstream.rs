//! `[[upstream]]` as it is written.

use std::path::PathBuf;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::config::{Secret, Span};

/// `[[upstream]]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of its own")]
pub struct Upstream {
    /// Canonical name, as policy sees it.
    pub host: String,
    /// Other names for it.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Base URL; empty: `https://` and the host.
    #[serde(default)]
    pub endpoint: String,
    /// Name the upstream in `?ns=`, for an endpoint that is a mirror of several registries.
    #[serde(default)]
    pub ns: bool,
    /// For clients that name no registry.
    #[serde(default)]
    pub default: bool,
    /// Life of a tag without asking upstream.
    #[serde(default = "tag_ttl")]
    pub tag_ttl: Span,
    /// How long a stale tag may be served when upstream is down.
    #[serde(default = "stale_if_error")]
    pub stale_if_error: Span,
    /// How long after its life a tag is served while upstream is asked in the background.
    #[serde(default = "no_time")]
    pub stale_while_revalidate: Span,
    /// What becomes of a tag that upstream no longer has.
    #[serde(default)]
    pub on_upstream_404: OnUpstream404,
    /// User; needs `password_file`.
    #[serde(default)]
    pub username: String,
    /// File with the password.
    #[serde(default)]
    pub password_file: PathBuf,
    /// docker's config.json.
    #[serde(default)]
    pub docker_config: PathBuf,
    /// `docker-credential-<this>`.
    #[serde(default)]
    pub credential_helper: String,
    /// Serve what these credentials can read to clients without certificates, off loopback too.
    #[serde(default)]
    pub anonymous_clients: bool,
    /// Further hosts that the token realm may name.
    #[serde(default)]
    pub auth_hosts: Vec<String>,
    /// Only these redirect hosts; empty: any public https host.
    #[serde(default)]
    pub redirect_hosts: Vec<String>,
    /// The only roots for this upstream, PEM.
    #[serde(default)]
    pub ca_file: PathBuf,
    /// Client certificate, PEM.
    #[serde(default)]
    pub client_cert: PathBuf,
    /// Its key, PEM.
    #[serde(default)]
    pub client_key: PathBuf,
    /// HTTP proxy; may hold a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Secret>,
    /// Whether private addresses may be dialled.
    #[serde(default)]
    pub allow_private_addresses: bool,
    /// Other lives for some tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tags>,
    /// Where else it is reached, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallback: Vec<Fallback>,
}

impl Upstream {
    /// The upstream of that canonical name, every other key at its default.
    pub fn named(host: &str) -> Self {
        Self {
            host: host.to_owned(),
            aliases: Vec::new(),
            endpoint: String::new(),
            ns: false,
            default: false,
            tag_ttl: tag_ttl(),
            stale_if_error: stale_if_error(),
            stale_while_revalidate: no_time(),
            on_upstream_404: OnUpstream404::Deny,
            username: String::new(),
            password_file: PathBuf::new(),
            docker_config: PathBuf::new(),
            credential_helper: String::new(),
            anonymous_clients: false,
            auth_hosts: Vec::new(),
            redirect_hosts: Vec::new(),
            ca_file: PathBuf::new(),
            client_cert: PathBuf::new(),
            client_key: PathBuf::new(),
            proxy: None,
            allow_private_addresses: false,
            tags: Vec::new(),
            fallback: Vec::new(),
        }
    }

    /// The endpoint that is asked first, in the form of the others.
    pub(in crate::config) fn first(&self) -> Fallback {
        Fallback {
            endpoint: self.endpoint.clone(),
            partial: false,
            ns: self.ns,
            username: self.username.clone(),
            password_file: self.password_file.clone(),
            docker_config: self.docker_config.clone(),
            credential_helper: self.credential_helper.clone(),
            auth_hosts: self.auth_hosts.clone(),
            redirect_hosts: self.redirect_hosts.clone(),
            ca_file: self.ca_file.clone(),
            client_cert: self.client_cert.clone(),
            client_key: self.client_key.clone(),
            proxy: self.proxy.clone(),
            allow_private_addresses: self.allow_private_addresses,
        }
    }
}

/// `[[upstream.fallback]]`; it takes over nothing of the upstream's own keys.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fallback {
    /// Base URL.
    pub endpoint: String,
    /// Whether it may lack what the upstream has.
    #[serde(default)]
    pub partial: bool,
    /// As in `[[upstream]]`, and all that follow.
    #[serde(default)]
    pub ns: bool,
    /// User; needs `password_file`.
    #[serde(default)]
    pub username: String,
    /// File with the password.
    #[serde(default)]
    pub password_file: PathBuf,
    /// docker's config.json.
    #[serde(default)]
    pub docker_config: PathBuf,
    /// `docker-credential-<this>`.
    #[serde(default)]
    pub credential_helper: String,
    /// Further hosts that the token realm may name.
    #[serde(default)]
    pub auth_hosts: Vec<String>,
    /// Only these redirect hosts; empty: any public https host.
    #[serde(default)]
    pub redirect_hosts: Vec<String>,
    /// The only roots for this endpoint, PEM.
    #[serde(default)]
    pub ca_file: PathBuf,
    /// Client certificate, PEM.
    #[serde(default)]
    pub client_cert: PathBuf,
    /// Its key, PEM.
    #[serde(default)]
    pub client_key: PathBuf,
    /// HTTP proxy; may hold a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Secret>,
    /// Whether private addresses may be dialled.
    #[serde(default)]
    pub allow_private_addresses: bool,
}

/// `[[upstream.tags]]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tags {
    /// `REPOSITORY:TAG` without the host, with `*` and `?`.
    pub pattern: String,
    /// Life of these tags; the upstream's without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag_ttl: Option<TagLifeSpan>,
    /// As the upstream's key; that one without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_while_revalidate: Option<Span>,
}

/// A duration, or `"immutable"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagLifeSpan {
    /// So long.
    For(Span),
    /// As long as the tag is remembered.
    Immutable,
}

impl<'de> Deserialize<'de> for TagLifeSpan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            IMMUTABLE => Ok(Self::Immutable),
            text => {
                text.parse().map(Self::For).map_err(|error| D::Error::custom(format!("{error}; or \"{IMMUTABLE}\"")))
            }
        }
    }
}

impl Serialize for TagLifeSpan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::For(span) => span.serialize(serializer),
            Self::Immutable => serializer.serialize_str(IMMUTABLE),
        }
    }
}

const IMMUTABLE: &str = "immutable";

/// `on_upstream_404`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnUpstream404 {
    /// It is no longer there for our clients either.
    #[default]
    Deny,
    /// It is served as if upstream were down.
    ServeStale,
}

pub(super) const fn tag_ttl() -> Span {
    Span(Duration::from_mins(1))
}

pub(super) const fn stale_if_error() -> Span {
    Span(Duration::from_hours(24))
}

const fn no_time() -> Span {
    Span(Duration::ZERO)
}
