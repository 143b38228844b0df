//! The configuration file as it is written: every key of it, and nothing else.
//!
//! Unknown keys are errors. Each key has its default here, in one place; `checked` turns the document into settings
//! that cannot be wrong.

mod upstream;

pub use upstream::{Fallback, OnUpstream404, TagLifeSpan, Tags, Upstream};

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::{Secret, Size, Span};
use crate::limits::{COLD_PULLS_PER_MINUTE, GIB, MIB};

/// The whole file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Document {
    /// `[server]`
    pub server: Server,
    /// `[policy]`
    pub policy: Policy,
    /// `[trust]`
    pub trust: Trust,
    /// `[[upstream]]`
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub upstream: Vec<Upstream>,
    /// `[cache]`
    pub cache: Cache,
    /// `[verdicts]`
    pub verdicts: Verdicts,
    /// `[refusal]`
    pub refusal: Refusal,
    /// `[log]`
    pub log: Log,
}

/// `[server]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Where container clients connect.
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
    /// Where operators and Prometheus connect.
    #[serde(deserialize_with = "address")]
    pub admin_listen: SocketAddr,
    /// Where blobs, verdicts and evidence lie.
    pub data_dir: PathBuf,
    /// File with the token for changes; empty: none.
    pub admin_token_file: PathBuf,
    /// Further names under which the admin listener is reached.
    pub admin_hosts: Vec<String>,
    /// Images that are new here for which one client address may ask in a minute; 0: any number.
    pub cold_pulls_per_minute: u32,
    /// `[server.tls]`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 5000)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 5001)),
            data_dir: "data".into(),
            admin_token_file: PathBuf::new(),
            admin_hosts: Vec::new(),
            cold_pulls_per_minute: COLD_PULLS_PER_MINUTE,
            tls: None,
        }
    }
}

/// `[server.tls]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Roots that client certificates must chain to, PEM; empty: clients need none.
    #[serde(default)]
    pub client_ca: PathBuf,
}

/// `[policy]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// containers-policy.json(5); empty: none.
    pub containers_policy: PathBuf,
    /// ClusterImagePolicy files or globs.
    pub cluster_image_policies: Vec<String>,
    /// What no ClusterImagePolicy matches.
    pub no_match: NoMatch,
    /// sigstore `trusted_root.json`; empty: the built-in one.
    pub trusted_root: PathBuf,
    /// containers-registries.d(5) directory; empty: none.
    pub registries_d: PathBuf,
    /// Refuse, or only record.
    pub mode: Mode,
    /// How indexes and their children relate.
    pub multi_arch: MultiArch,
    /// `[[policy.override]]`
    #[serde(rename = "override", skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<Override>,
    /// `[[policy.exemption]]`
    #[serde(rename = "exemption", skip_serializing_if = "Vec::is_empty")]
    pub exemptions: Vec<Exemption>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            containers_policy: PathBuf::new(),
            cluster_image_policies: Vec::new(),
            no_match: NoMatch::Deny,
            trusted_root: PathBuf::new(),
            registries_d: PathBuf::new(),
            mode: Mode::Enforce,
            multi_arch: MultiArch::IndexOrEveryLeaf,
            overrides: Vec::new(),
            exemptions: Vec::new(),
        }
    }
}

/// `no_match`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoMatch {
    /// Refuse.
    Deny,
    /// Serve.
    Allow,
    /// Serve and log.
    Warn,
}

/// `mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A denial refuses.
    Enforce,
    /// A denial is recorded and the image served.
    Audit,
}

/// `multi_arch`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MultiArch {
    /// The index itself, or every platform child.
    IndexOrEveryLeaf,
    /// The index itself, or at least one platform child.
    IndexOrAnyLeaf,
    /// Indexes pass ungated; each child needs its own verdict.
    LeafOnly,
}

/// `[[policy.override]]`: keys that are absent are not overridden.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// As in policy.json.
    pub scope: String,
    /// Refuse, or only record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// How indexes and their children relate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multi_arch: Option<MultiArch>,
    /// Largest image (config and layers, compressed); 0: no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_image_bytes: Option<Size>,
    /// Accept a bundle that names no reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundles_without_identity: Option<bool>,
}

/// `[[policy.exemption]]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exemption {
    /// As in policy.json, or a digest.
    pub scope: String,
    /// Why.
    pub reason: String,
    /// Who answers for it.
    pub owner: String,
    /// RFC 3339; after it the exemption is inert.
    pub expires: String,
}

/// `[trust]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trust {
    /// `[trust.tuf]`
    pub tuf: Tuf,
}

/// `[trust.tuf]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tuf {
    /// Whether what was fetched is used.
    pub enabled: bool,
    /// The repository.
    pub url: String,
    /// The TUF root to begin from; empty: the Sigstore project's.
    pub root_file: PathBuf,
    /// Where what was fetched is kept; empty: `trust` in `server.data_dir`.
    pub state_dir: PathBuf,
    /// How often a running mirror asks; zero: never.
    pub refresh: Span,
    /// The only TLS roots for it, PEM.
    pub ca_file: PathBuf,
    /// HTTP proxy; may hold a password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Secret>,
    /// Whether private addresses may be dialled.
    pub allow_private_addresses: bool,
}

impl Default for Tuf {
    fn default() -> Self {
        Self {
            enabled: false,
            url: crate::trust::tuf::PUBLIC_GOOD_URL.to_owned(),
            root_file: PathBuf::new(),
            state_dir: PathBuf::new(),
            refresh: Span(Duration::ZERO),
            ca_file: PathBuf::new(),
            proxy: None,
            allow_private_addresses: false,
        }
    }
}

/// `[cache]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cache {
    /// Bound of the blob cache.
    pub max_bytes: Size,
    /// Free space to leave on the file system.
    pub min_free_bytes: Size,
    /// Time until every cached file has been hashed again; zero: only when asked.
    pub verify_every: Span,
    /// Bytes a second read for that at most.
    pub verify_rate: Size,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            max_bytes: Size(64 * GIB),
            min_free_bytes: Size(GIB),
            verify_every: Span(Duration::from_hours(7 * 24)),
            verify_rate: Size(16 * MIB),
        }
    }
}

/// `[verdicts]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Verdicts {
    /// Life of an allow.
    pub allow_ttl: Span,
    /// Life of a deny.
    pub deny_ttl: Span,
}

impl Default for Verdicts {
    fn default() -> Self {
        Self { allow_ttl: Span(Duration::from_hours(24)), deny_ttl: Span(Duration::from_mins(1)) }
    }
}

/// `[refusal]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Refusal {
    /// Whether refusals are shaped so that clients do not go round us.
    pub hard_stop: HardStop,
}

impl Default for Refusal {
    fn default() -> Self {
        Self { hard_stop: HardStop::Auto }
    }
}

/// `hard_stop`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HardStop {
    /// By User-Agent.
    Auto,
    /// Plain statuses only.
    Off,
}

/// `[log]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// For people or for machines.
    pub format: LogFormat,
    /// From which level on.
    pub level: LogLevel,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: LogLevel::Info }
    }
}

/// `format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line for a human.
    Text,
    /// One JSON object a line.
    Json,
}

/// `level`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Only what failed.
    Error,
    /// And what needs attention.
    Warn,
    /// And what happened.
    Info,
    /// And why.
    Debug,
    /// And every step.
    Trace,
}

/// An address to listen on. A name is refused: it may be several addresses, or another one tomorrow.
fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        D::Error::custom("not an address: write an IP address and a port, such as \"127.0.0.1:5000\" or \"[::]:5000\"")
    })
}

#[cfg(test)]
mod tests;
