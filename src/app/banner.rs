//! What is said at start: to a human as a table, to a machine as one log line.

use std::fmt::{self, Display, Formatter};
use std::net::SocketAddr;

use crate::config::document::Mode;
use crate::config::{Config, Size, short};
use crate::http;
use crate::pull::Snapshot;

/// What is said at start.
#[derive(Debug, Clone)]
pub struct Banner {
    rows: Vec<(&'static str, String)>,
    warnings: Vec<String>,
    audit: bool,
    next: Vec<String>,
}

impl Banner {
    /// Describes a mirror that listens on these addresses.
    pub(super) fn new(config: &Config, snapshot: &Snapshot, registry: SocketAddr, admin: SocketAddr) -> Self {
        let scheme = if config.registry.tls.is_some() { "https" } else { "http" };
        let upstreams: Vec<String> = config.upstreams.iter().map(|upstream| describe(config, upstream)).collect();
        let data_dir =
            config.store.data_dir.as_ref().map_or_else(|| "memory".to_owned(), |dir| dir.display().to_string());
        let rows = vec![
            ("configuration", config.origin.display().to_string()),
            ("registry", format!("{scheme}://{registry}  (container clients)")),
            ("admin", format!("http://{admin}  (metrics, health, verdicts)")),
            ("upstreams", upstreams.join(", ")),
            ("policy", format!("{}, fingerprint {}", config.policy_origin, short(&snapshot.policy.fingerprint()))),
            ("mode", mode(config)),
            (
                "trust root",
                format!("{}, fingerprint {}", config.trust_root.source, short(&config.trust_root.fingerprint)),
            ),
            ("cache", format!("at most {} in {data_dir}", Size(config.store.max_bytes))),
        ];
        Self {
            rows,
            warnings: config.warnings.clone(),
            audit: config.document.policy.mode == Mode::Audit,
            next: next_steps(scheme, registry, admin, config),
        }
    }

    /// For a machine.
    pub fn log(&self) {
        let facts: Vec<String> = self.rows.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        tracing::info!(version = crate::VERSION, facts = %facts.join("; "), "started");
        if self.audit {
            tracing::warn!("audit mode: images that policy denies are served, and recorded");
        }
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
    }
}

/// For a human.
impl Display for Banner {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "sealgate {}\n", crate::VERSION)?;
        for (name, value) in &self.rows {
            writeln!(formatter, "  {name:13}  {value}")?;
        }
        if self.audit {
            writeln!(formatter, "\n  AUDIT MODE: images that policy denies ARE SERVED, and recorded.")?;
            writeln!(formatter, "  Set policy.mode = \"enforce\", or override it for some scopes, to refuse them.")?;
        }
        for warning in &self.warnings {
            writeln!(formatter, "\n  warning: {warning}")?;
        }
        writeln!(formatter, "\n  next:")?;
        for step in &self.next {
            writeln!(formatter, "    {step}")?;
        }
        writeln!(formatter)
    }
}

fn describe(config: &Config, upstream: &crate::config::UpstreamConfig) -> String {
    let mut notes = Vec::new();
    if upstream.default {
        notes.push("default");
    }
    if config.server.access(upstream) == http::Access::NeedsKnownClients {
        notes.push("NOT SERVED");
    }
    match notes.as_slice() {
        [] => upstream.host().to_string(),
        notes => format!("{} ({})", upstream.host(), notes.join(", ")),
    }
}

fn mode(config: &Config) -> String {
    let policy = &config.document.policy;
    let name = |mode| match mode {
        Mode::Enforce => "enforce",
        Mode::Audit => "audit",
    };
    let other = policy.overrides.iter().filter(|over| over.mode.is_some_and(|mode| mode != policy.mode));
    let scopes: Vec<&str> = other.map(|over| over.scope.as_str()).collect();
    let mut parts = vec![name(policy.mode).to_owned()];
    if !scopes.is_empty() {
        let differing = if policy.mode == Mode::Audit { Mode::Enforce } else { Mode::Audit };
        parts.push(format!("{} for {}", name(differing), scopes.join(", ")));
    }
    match policy.exemptions.len() {
        0 => {}
        1 => parts.push("1 exemption".to_owned()),
        many => parts.push(format!("{many} exemptions")),
    }
    parts.join("; ")
}

fn next_steps(scheme: &str, registry: SocketAddr, admin: SocketAddr, config: &Config) -> Vec<String> {
    let mut steps = vec![
        ("point a container runtime here", format!("sealgate client-config docker --mirror {scheme}://{registry}")),
        ("decide about one image, with every reason", "sealgate verify registry.k8s.io/pause:3.10".to_owned()),
    ];
    if config.document.policy.mode == Mode::Audit {
        let list = format!("sealgate verdicts list --decision deny --admin http://{admin}");
        steps.push(("see what enforcing would refuse", list));
    }
    let width = steps.iter().map(|(_, command)| command.len()).max().unwrap_or(0);
    steps.into_iter().map(|(why, command)| format!("{command:width$}  # {why}")).collect()
}
