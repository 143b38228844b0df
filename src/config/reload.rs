//! Reloading while running: SIGHUP, a request of the admin API, or a file that changed. Atomic: the new policy is in
//! force as a whole, or the old one stays.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use tokio::sync::watch;

use super::watch::Watch;
use super::{Config, ConfigError, Document, Loaded, Origin, ReadFile};
use crate::clock::Clock;
use crate::pull::Snapshot;
use crate::telemetry::{Telemetry, TrustPart, TrustRootKind};
use crate::trust::{Role, TrustRoot, TrustSource, tuf};

/// Loads the configuration again and puts what may change while running in force.
#[derive(Debug)]
pub struct Reloader {
    origin: Origin,
    running: Running,
    watch: Mutex<Watch>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    tuf: watch::Sender<Option<tuf::Settings>>,
    telemetry: Telemetry,
    clock: Clock,
}

/// What the process was started with: the keys that need a restart still have these values.
#[derive(Debug)]
struct Running {
    document: Document,
    read: Vec<ReadFile>,
}

/// What a reload did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Fingerprint of the policy now in force, short.
    pub policy: String,
    /// Whether it is another one than before.
    pub policy_changed: bool,
    /// Fingerprint of the trust root now in force, short.
    pub trust_root: String,
    /// Whether it is another one than before.
    pub trust_root_changed: bool,
    /// Keys that changed and take effect at the next start only.
    pub restart_needed: Vec<String>,
    /// What works but should not stay so.
    pub warnings: Vec<String>,
}

impl Reloader {
    /// Reloads `origin` into `snapshot`, which was made from `config`.
    pub fn new(
        origin: Origin,
        config: &Config,
        snapshot: Arc<ArcSwap<Snapshot>>,
        telemetry: Telemetry,
        clock: Clock,
    ) -> Self {
        let running = Running { document: config.document.clone(), read: config.read.clone() };
        let watch = Mutex::new(Watch::over(config.seen.clone()));
        let tuf = watch::Sender::new(config.tuf.clone());
        report_trust(&telemetry, &config.trust_root);
        Self { origin, running, watch, snapshot, tuf, telemetry, clock }
    }

    /// Where the trust root is fetched from now, and that it changed.
    pub fn tuf(&self) -> watch::Receiver<Option<tuf::Settings>> {
        self.tuf.subscribe()
    }

    /// Whether a file of the configuration changed and has come to rest since the last look. Blocking, briefly.
    pub fn look(&self) -> bool {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner).look()
    }

    /// Loads and swaps; blocking. A configuration that cannot be used leaves the old one in force.
    ///
    /// # Errors
    /// [`ConfigError`] for what is wrong with the new configuration.
    pub fn reload(&self) -> Result<Changes, ConfigError> {
        let mut seen = Vec::new();
        let result = Config::load_noting(&self.origin, &mut seen).map(|loaded| self.put_in_force(loaded));
        // Also after a failure: the file that is missing now may appear later.
        *self.watch.lock().unwrap_or_else(PoisonError::into_inner) = Watch::over(seen);
        self.telemetry.policy_reloaded(result.is_ok());
        match &result {
            Ok(changes) => log_changes(changes),
            Err(error) => {
                tracing::error!(%error, "the new configuration cannot be used; the old one stays in force");
            }
        }
        result
    }

    fn put_in_force(&self, loaded: Loaded) -> Changes {
        let Loaded { config, snapshot } = loaded;
        let restart_needed = self.running.differences(&config);
        let fingerprint = snapshot.policy.fingerprint();
        let policy_changed = fingerprint != self.snapshot.load().policy.fingerprint();
        let trust_root_changed = snapshot.trust_root != self.snapshot.load().trust_root;
        let mut warnings = config.warnings;
        warnings.extend(snapshot.policy.lapsed(self.clock.now()).iter().map(ToString::to_string));
        self.snapshot.store(Arc::new(snapshot));
        report_trust(&self.telemetry, &config.trust_root);
        self.tuf.send_if_modified(|tuf| std::mem::replace(tuf, config.tuf.clone()) != config.tuf);
        Changes {
            policy: short(&fingerprint),
            policy_changed,
            trust_root: short(&config.trust_root.fingerprint),
            trust_root_changed,
            restart_needed,
            warnings,
        }
    }
}

/// Tells the metrics which trust root is in force, how old it is and when it ends.
fn report_trust(telemetry: &Telemetry, root: &TrustRoot) {
    let kind = match &root.source {
        TrustSource::BuiltIn => TrustRootKind::BuiltIn,
        TrustSource::File(_) => TrustRootKind::File,
        TrustSource::Tuf { .. } => TrustRootKind::Tuf,
    };
    let part = |part, role| (part, root.ends(role));
    let ends = [
        part(TrustPart::CertificateAuthority, Role::CertificateAuthority),
        part(TrustPart::TransparencyLog, Role::TransparencyLog),
        part(TrustPart::CertificateLog, Role::CertificateLog),
        part(TrustPart::TimestampAuthority, Role::TimestampAuthority),
        (TrustPart::Tuf, root.expires),
    ];
    telemetry.trust_root_in_force(kind, root.as_of, &ends);
}

fn log_changes(changes: &Changes) {
    if changes.policy_changed {
        tracing::info!(policy = %changes.policy, "another policy is in force; earlier verdicts do not count under it");
    } else {
        tracing::info!(policy = %changes.policy, "configuration reloaded; the policy is the same");
    }
    if changes.trust_root_changed {
        tracing::info!(trust_root = %changes.trust_root, "another trust root is in force; earlier verdicts do not count under it");
    }
    for warning in &changes.warnings {
        tracing::warn!("{warning}");
    }
    if !changes.restart_needed.is_empty() {
        tracing::warn!(keys = %changes.restart_needed.join(", "), "changed keys take effect at the next start only");
    }
}

/// The first 12 hexadecimal digits: enough to tell two apart by eye.
pub(crate) fn short(fingerprint: &crate::oci::Digest) -> String {
    fingerprint.hex().chars().take(12).collect()
}

impl Running {
    /// Keys outside `[policy]`, `[trust]` and `[verdicts]` whose value, or whose file's content, is another one.
    fn differences(&self, config: &Config) -> Vec<String> {
        let (old, new) = (flat(&self.document), flat(&config.document));
        let keys = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key)));
        let mut differences: Vec<String> =
            keys.filter(|key| needs_restart(key) && old.get(*key) != new.get(*key)).cloned().collect();
        for file in &config.read {
            let changed = self.read.iter().any(|old| old.key == file.key && old.digest != file.digest);
            if changed && needs_restart(&file.key) {
                differences.push(format!("{} (its content)", file.key));
            }
        }
        differences.sort();
        differences
    }
}

fn needs_restart(key: &str) -> bool {
    !["policy.", "trust.", "verdicts."].iter().any(|table| key.starts_with(table))
}

/// Every key path with its value as text.
fn flat(document: &Document) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    if let Ok(toml::Value::Table(table)) = toml::Value::try_from(document) {
        flatten("", &table, &mut keys);
    }
    if let Some(proxies) = non_empty(document.upstream.iter().filter_map(|upstream| upstream.proxy.as_ref())) {
        // The serialised form hides them, so that a changed proxy would go unnoticed.
        keys.insert("upstream.proxy".to_owned(), proxies);
    }
    keys
}

fn non_empty<'a>(proxies: impl Iterator<Item = &'a super::Secret>) -> Option<String> {
    let all: Vec<&str> = proxies.map(super::Secret::reveal).collect();
    (!all.is_empty()).then(|| all.join("\n"))
}

fn flatten(prefix: &str, table: &toml::Table, keys: &mut BTreeMap<String, String>) {
    for (name, value) in table {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        if let toml::Value::Table(inner) = value {
            flatten(&path, inner, keys);
            continue;
        }
        let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
        if items.iter().any(toml::Value::is_table) {
            for (index, item) in items.iter().enumerate() {
                if let toml::Value::Table(inner) = item {
                    flatten(&format!("{path}[{index}]"), inner, keys);
                }
            }
        } else {
            keys.insert(path, value.to_string());
        }
    }
}
