//! From the document to settings that cannot be wrong: every cross-check of the configuration.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::document::{self, Document};
use super::error::{ConfigError, Source};
use super::files::{Files, ReadError, ReadFile, Secrecy};
use super::upstreams::{self, UpstreamConfig};
use super::{Secret, Seen, policy, trust};
use crate::http;
use crate::limits::{CACHE_BYTES_MIN, COLD_PULLS_PER_MINUTE_MAX, SCRUB_EVERY_MIN, SCRUB_RATE_MIN, VERDICT_TTL};
use crate::oci::{Digest, Host, ImageReference, Reference};
use crate::pull::{Snapshot, VerdictTtl};
use crate::store;
use crate::trust::{TrustRoot, tuf};

/// A configuration that can be run: what is fixed for the life of the process, and what a reload may replace.
#[derive(Debug)]
pub struct Loaded {
    /// What is used at start only.
    pub config: Config,
    /// What may change while running.
    pub snapshot: Snapshot,
}

/// Checked settings; what is used at start only.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it came from, for people.
    pub origin: PathBuf,
    /// Listeners.
    pub server: ServerConfig,
    /// Disk.
    pub store: store::Settings,
    /// How cached files are hashed again.
    pub scrub: store::Scrub,
    /// Registries.
    pub upstreams: Vec<UpstreamConfig>,
    /// Where the policy came from, for people: files and patterns.
    pub policy_origin: String,
    /// The registry listener.
    pub registry: http::Settings,
    /// The trust root whose fingerprint is part of each verdict's key.
    pub trust_root: TrustRoot,
    /// Where a newer one is fetched from; `None`: nowhere.
    pub tuf: Option<tuf::Settings>,
    /// Logging.
    pub log: document::Log,
    /// The document it was made from, with every default filled in.
    pub document: Document,
    /// Files whose content is in it.
    pub read: Vec<ReadFile>,
    /// Those files and the configuration itself, as they were when they were read.
    pub seen: Vec<Seen>,
    /// What works but should not stay so, one sentence each.
    pub warnings: Vec<String>,
}

/// Where we listen, and for whom.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Registry API.
    pub listen: SocketAddr,
    /// Admin API.
    pub admin_listen: SocketAddr,
    /// Token for changes.
    pub admin_token: Option<Secret>,
    /// Further names of the admin listener.
    pub admin_hosts: Vec<String>,
    /// Who is on the registry listener.
    pub clients: Clients,
}

/// Who reaches the registry listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clients {
    /// Users of this machine.
    Local,
    /// Holders of a certificate of `server.tls.client_ca`.
    Authenticated,
    /// Everybody who reaches the port.
    Anyone,
}

/// Checks `source`, whose files are relative to the directory of `files`.
///
/// # Errors
/// The first [`ConfigError`] in the order of the file.
pub(super) fn check(source: &Source, files: &mut Files, built_in: BuiltIn) -> Result<Loaded, ConfigError> {
    let document: Document = toml::from_str(source.text()).map_err(|error| source.syntax(&error))?;
    check_document(source, files, document, built_in)
}

/// As [`check`], for a document that says something else than its source.
pub(super) fn check_document(
    source: &Source,
    files: &mut Files,
    document: Document,
    built_in: BuiltIn,
) -> Result<Loaded, ConfigError> {
    let mut warnings = Vec::new();
    let tls = document.server.tls.as_ref().map(|tls| self::tls(source, files, tls)).transpose()?;
    let server = server(source, files, &document)?;
    let trust = trust::check(source, files, &document, &mut warnings)?;
    let loaded = policy::load(source, files, &document.policy, &trust.root, built_in)?;
    let upstreams = upstreams::check(source, files, &mut warnings, &document.upstream)?;
    policy::check_sources(&loaded.policy, &upstreams)?;
    policy::idle_keys(&document.policy, &mut warnings);
    exposure(&server, tls.is_some(), &upstreams, &mut warnings);
    idle_scopes(&document.policy, &upstreams, &mut warnings);
    let config = Config {
        origin: source.file().to_owned(),
        store: store_settings(source, files, &document)?,
        scrub: scrub(source, &document)?,
        registry: registry(source, &document, &server, tls, &upstreams)?,
        log: document.log.clone(),
        policy_origin: loaded.origin,
        trust_root: trust.root,
        tuf: trust.tuf,
        read: Vec::new(),
        seen: Vec::new(),
        server,
        upstreams,
        warnings,
        document,
    };
    let verdict_ttl = verdict_ttl(source, &config.document)?;
    let snapshot = Snapshot { policy: loaded.policy, trust_root: config.trust_root.fingerprint, verdict_ttl };
    Ok(Loaded { config, snapshot })
}

/// Whether the configuration is the one that is compiled in; then so is its policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BuiltIn {
    /// The compiled-in copies.
    Yes,
    /// A file.
    No,
}

fn server(source: &Source, files: &mut Files, document: &Document) -> Result<ServerConfig, ConfigError> {
    let server = &document.server;
    if server.listen == server.admin_listen && server.listen.port() != 0 {
        let hint = "give the admin listener a port of its own, such as 127.0.0.1:5001";
        return Err(source.at("server.admin_listen", "the same address as server.listen", hint));
    }
    let admin_token = match server.admin_token_file.as_path() {
        path if path.as_os_str().is_empty() => None,
        path => Some(token(source, files, path)?),
    };
    for (index, host) in server.admin_hosts.iter().enumerate() {
        if host.parse::<Host>().map_or(true, |parsed| parsed.without_port() != host.to_ascii_lowercase()) {
            let hint = "write the name alone, such as mirror.example";
            return Err(source.at(&format!("server.admin_hosts[{index}]"), "not a host name", hint));
        }
    }
    let authenticated = server.tls.as_ref().is_some_and(|tls| !tls.client_ca.as_os_str().is_empty());
    let clients = match (server.listen.ip().is_loopback(), authenticated) {
        (_, true) => Clients::Authenticated,
        (true, false) => Clients::Local,
        (false, false) => Clients::Anyone,
    };
    Ok(ServerConfig {
        listen: server.listen,
        admin_listen: server.admin_listen,
        admin_token,
        admin_hosts: server.admin_hosts.clone(),
        clients,
    })
}

fn token(source: &Source, files: &mut Files, path: &Path) -> Result<Secret, ConfigError> {
    let key = "server.admin_token_file";
    let bytes = files.read(key, path, Secrecy::Credential).map_err(|error| source.at(key, error, ""))?;
    let text = String::from_utf8(bytes).unwrap_or_default().trim().to_owned();
    if text.len() < TOKEN_BYTES_MIN || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let problem = format!("the file must hold one line of at least {TOKEN_BYTES_MIN} printable ASCII characters");
        return Err(source.at(key, problem, "make one with: openssl rand -hex 32"));
    }
    Ok(Secret::new(text))
}

fn tls(source: &Source, files: &mut Files, tls: &document::Tls) -> Result<http::Tls, ConfigError> {
    let mut read = |key: &str, path: &Path, secrecy| {
        files.read(key, path, secrecy).map_err(|error: ReadError| source.at(key, error, ""))
    };
    let cert = read("server.tls.cert", &tls.cert, Secrecy::Public)?;
    let key = read("server.tls.key", &tls.key, Secrecy::Credential)?;
    let client_ca = match tls.client_ca.as_path() {
        path if path.as_os_str().is_empty() => None,
        path => Some(read("server.tls.client_ca", path, Secrecy::Public)?),
    };
    http::Tls::from_pem(&cert, &key, client_ca.as_deref()).map_err(|error| {
        let problem = match std::error::Error::source(&error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        source.at("server.tls", problem, "name PEM files: the chain with the leaf first, and the key that fits it")
    })
}

fn registry(
    source: &Source,
    document: &Document,
    server: &ServerConfig,
    tls: Option<http::Tls>,
    upstreams: &[UpstreamConfig],
) -> Result<http::Settings, ConfigError> {
    let names = upstreams.iter().map(|upstream| http::UpstreamName {
        host: upstream.host().clone(),
        aliases: upstream.aliases.clone(),
        access: server.access(upstream),
    });
    let default = upstreams.iter().find(|upstream| upstream.default).map(UpstreamConfig::host);
    let upstreams = http::Upstreams::new(names.collect(), default).map_err(|error| source.at("upstream", error, ""))?;
    let hard_stop = match document.refusal.hard_stop {
        document::HardStop::Auto => http::HardStop::Auto,
        document::HardStop::Off => http::HardStop::Off,
    };
    let pulls_per_minute = document.server.cold_pulls_per_minute;
    if pulls_per_minute > COLD_PULLS_PER_MINUTE_MAX {
        let problem = format!("more than {COLD_PULLS_PER_MINUTE_MAX} is no bound");
        return Err(source.at("server.cold_pulls_per_minute", problem, "write 0 for none"));
    }
    let mut settings = http::Settings { hard_stop, tls, ..http::Settings::new(upstreams) };
    settings.caps.cold.pulls_per_minute = pulls_per_minute;
    Ok(settings)
}

fn store_settings(source: &Source, files: &Files, document: &Document) -> Result<store::Settings, ConfigError> {
    if document.server.data_dir.as_os_str().is_empty() {
        return Err(source.at("server.data_dir", "empty", "name a directory of its own, such as \"data\""));
    }
    if document.cache.max_bytes.0 < CACHE_BYTES_MIN {
        let problem = format!("less than {CACHE_BYTES_MIN} bytes holds no image");
        return Err(source.at("cache.max_bytes", problem, "write for example \"64GiB\""));
    }
    Ok(store::Settings {
        data_dir: Some(files.path(&document.server.data_dir)),
        max_bytes: document.cache.max_bytes.0,
        min_free_bytes: document.cache.min_free_bytes.0,
    })
}

fn scrub(source: &Source, document: &Document) -> Result<store::Scrub, ConfigError> {
    let (every, rate) = (document.cache.verify_every, document.cache.verify_rate.0);
    if !every.0.is_zero() && every.0 < SCRUB_EVERY_MIN {
        let problem = format!("{every} is less than {}", super::Span(SCRUB_EVERY_MIN));
        return Err(source.at(
            "cache.verify_every",
            problem,
            "write for example \"7d\"; or \"0s\" for only when asked",
        ));
    }
    if rate < SCRUB_RATE_MIN {
        let problem = format!("less than {SCRUB_RATE_MIN} bytes a second does not come to an end");
        return Err(source.at("cache.verify_rate", problem, "write for example \"16MiB\""));
    }
    Ok(store::Scrub { every: every.0, bytes_per_second: rate })
}

fn verdict_ttl(source: &Source, document: &Document) -> Result<VerdictTtl, ConfigError> {
    let (min, max) = VERDICT_TTL;
    let ttl = VerdictTtl { allow: document.verdicts.allow_ttl.0, deny: document.verdicts.deny_ttl.0 };
    for (key, value) in [("verdicts.allow_ttl", ttl.allow), ("verdicts.deny_ttl", ttl.deny)] {
        if value < min || value > max {
            let (min, max) = (super::Span(min), super::Span(max));
            return Err(source.at(key, format!("{} is not between {min} and {max}", super::Span(value)), ""));
        }
    }
    Ok(ttl)
}

/// What other machines could reach that perhaps they should not.
fn exposure(server: &ServerConfig, tls: bool, upstreams: &[UpstreamConfig], warnings: &mut Vec<String>) {
    if !server.admin_listen.ip().is_loopback() {
        warnings.push(match server.admin_token {
            None => {
                "server.admin_listen is reachable from other machines without server.admin_token_file: changes are \
                     refused there, and everybody can read verdicts and metrics"
                    .to_owned()
            }
            Some(_) => {
                "server.admin_listen is reachable from other machines: everybody can read verdicts and metrics; \
                        changes need the token, which crosses the network in the clear"
                    .to_owned()
            }
        });
    }
    if !server.listen.ip().is_loopback() && !tls {
        warnings.push(
            "server.listen is reachable from other machines over plain http: whoever sits between can answer in our \
             place; set server.tls"
                .to_owned(),
        );
    }
    for (index, upstream) in upstreams.iter().enumerate() {
        if !upstream.has_credentials() || server.clients != Clients::Anyone {
            continue;
        }
        let host = upstream.host();
        warnings.push(match server.access(upstream) {
            http::Access::Served => {
                format!(
                    "upstream[{index}] ({host}): everybody who reaches server.listen can pull what its credentials can"
                )
            }
            http::Access::NeedsKnownClients => format!(
                "upstream[{index}] ({host}) has credentials and is NOT SERVED: server.listen is reachable from other \
                 machines and does not authenticate clients; set server.tls.client_ca, or anonymous_clients = true"
            ),
        });
    }
}

/// Overrides and exemptions that do nothing. In audit mode an `enforce` that matches nothing refuses nothing, in silence.
fn idle_scopes(policy: &document::Policy, upstreams: &[UpstreamConfig], warnings: &mut Vec<String>) {
    let overrides = policy.overrides.iter().map(|over| over.scope.as_str()).enumerate();
    let exemptions = policy.exemptions.iter().map(|exemption| exemption.scope.as_str()).enumerate();
    let scopes = overrides.map(|(index, scope)| (format!("policy.override[{index}]"), scope));
    for (key, scope) in scopes.chain(exemptions.map(|(index, scope)| (format!("policy.exemption[{index}]"), scope))) {
        if !has_upstream(scope, upstreams) {
            warnings.push(format!(
                "{key}.scope: \"{scope}\" matches nothing, because no upstream has the host that it begins with; names are \
                 written in full, such as docker.io/library/alpine"
            ));
        }
    }
    for (index, over) in policy.overrides.iter().enumerate() {
        let keys = [
            over.mode.is_some(),
            over.multi_arch.is_some(),
            over.max_image_bytes.is_some(),
            over.bundles_without_identity.is_some(),
        ];
        if keys == [false; 4] {
            warnings.push(format!("policy.override[{index}]: overrides nothing; set one of its keys, or remove it"));
        }
    }
}

/// Whether an upstream's images can fall under that scope, which may also be a digest or `*.domain`.
fn has_upstream(scope: &str, upstreams: &[UpstreamConfig]) -> bool {
    if scope.parse::<Digest>().is_ok() {
        return true;
    }
    let mut hosts = upstreams.iter().map(UpstreamConfig::host);
    match scope.strip_prefix('*') {
        Some(domain) => hosts.any(|host| host.without_port().ends_with(domain)),
        None => hosts.any(|host| scope.split(['/', '@']).next() == Some(host.as_str())),
    }
}

impl Config {
    /// The image by its upstream's canonical name, as policy sees it; `None` when no upstream is configured for it.
    pub fn canonical(&self, image: &ImageReference) -> Option<ImageReference> {
        let host = image.repository.host();
        if self.upstreams.iter().any(|upstream| upstream.host() == host) {
            return Some(image.clone());
        }
        let upstream = self.upstreams.iter().find(|upstream| upstream.aliases.contains(host))?;
        let separator = match image.reference {
            Reference::Tag(_) => ':',
            Reference::Digest(_) => '@',
        };
        // Parsed again, since Docker Hub's canonical names have rules of their own.
        format!("{}/{}{separator}{}", upstream.host(), image.repository.name(), image.reference).parse().ok()
    }
}

impl ServerConfig {
    /// Whether that upstream is served on the registry listener: what only credentials can read is not for everybody
    /// who reaches the port.
    pub fn access(&self, upstream: &UpstreamConfig) -> http::Access {
        if upstream.has_credentials() && !upstream.anonymous_clients && self.clients == Clients::Anyone {
            http::Access::NeedsKnownClients
        } else {
            http::Access::Served
        }
    }
}

/// Shorter admin tokens can be guessed.
const TOKEN_BYTES_MIN: usize = 16;
