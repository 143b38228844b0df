//! A whole mirror in the test's process: real listeners, real store, real crypto, on ports of its own.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::http::{self, Answer};
use crate::app::{App, Drained};
use crate::clock::{Clock, ManualClock};
use crate::config::{Config, Loaded, Origin};

/// A running mirror; [`TestSealgate::stop`] it at the end of the test.
#[derive(Debug)]
pub struct TestSealgate {
    setup: Setup,
    /// Configuration, policy and `data/`; goes with the last holder.
    dir: Arc<tempfile::TempDir>,
    app: Option<App>,
}

/// What a [`TestSealgate`] is started with.
#[derive(Clone)]
pub struct Setup {
    table: toml::Table,
    files: Vec<(String, Vec<u8>)>,
    clock: Clock,
    adjust: Arc<dyn Fn(&mut Loaded) + Send + Sync>,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Setup").field("table", &self.table).finish_non_exhaustive()
    }
}

/// A policy.json that accepts everything.
pub const ACCEPT_ANYTHING: &str = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;
/// A policy.json that refuses everything.
pub const REJECT: &str = r#"{"default": [{"type": "reject"}]}"#;

impl Setup {
    /// A mirror under this policy.json, in enforce mode, without upstreams, on the machine's clock.
    pub fn new(policy_json: &str) -> Self {
        let setup =
            Self { table: toml::Table::new(), files: Vec::new(), clock: Clock::System, adjust: Arc::new(|_| {}) };
        setup
            .file("policy.json", policy_json)
            .set("policy.containers_policy", "policy.json")
            .set("server.listen", "127.0.0.1:0")
            .set("server.admin_listen", "127.0.0.1:0")
            .set("server.data_dir", "data")
            .set("cache.min_free_bytes", "0")
    }

    /// Adds the upstream `host`, reached at `endpoint` (such as a fake registry's URL); the first one is the default.
    #[must_use]
    pub fn upstream(self, host: &str, endpoint: impl Display) -> Self {
        self.upstream_with(host, endpoint, "")
    }

    /// As [`Self::upstream`], with further keys of `[[upstream]]` as TOML.
    ///
    /// # Panics
    /// When they are no TOML.
    #[must_use]
    pub fn upstream_with(mut self, host: &str, endpoint: impl Display, keys: &str) -> Self {
        let mut table: toml::Table = keys.parse().expect("keys of [[upstream]] as TOML");
        let endpoint = endpoint.to_string();
        table.insert("host".to_owned(), host.into());
        table.insert("endpoint".to_owned(), endpoint.trim_end_matches('/').into());
        let upstreams = self.table.entry("upstream").or_insert_with(|| toml::Value::Array(Vec::new()));
        let upstreams = upstreams.as_array_mut().expect("[[upstream]] is an array");
        table.entry("default").or_insert_with(|| upstreams.is_empty().into());
        upstreams.push(toml::Value::Table(table));
        self
    }

    /// Sets a key such as `verdicts.deny_ttl`.
    ///
    /// # Panics
    /// When a part of the path is a value.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        let (path, name) = key.rsplit_once('.').unwrap_or(("", key));
        let mut table = &mut self.table;
        for step in path.split('.').filter(|step| !step.is_empty()) {
            let inner = table.entry(step).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            table = inner.as_table_mut().expect("a table");
        }
        table.insert(name.to_owned(), value.into());
        self
    }

    /// Adds lines of TOML, such as a `[[policy.override]]`, whose tables are not set otherwise.
    ///
    /// # Panics
    /// When they are no TOML.
    #[must_use]
    pub fn toml(mut self, text: &str) -> Self {
        let more: toml::Table = text.parse().expect("TOML");
        merge(&mut self.table, more);
        self
    }

    /// Puts a file beside the configuration, such as a key that the policy names.
    #[must_use]
    pub fn file(mut self, name: &str, content: impl AsRef<[u8]>) -> Self {
        self.files.push((name.to_owned(), content.as_ref().to_vec()));
        self
    }

    /// Runs on a clock that the test moves.
    #[must_use]
    pub fn clock(mut self, clock: &ManualClock) -> Self {
        self.clock = Clock::Manual(clock.clone());
        self
    }

    /// Changes checked settings that no key reaches, such as time limits.
    #[must_use]
    pub fn adjust(mut self, adjust: impl Fn(&mut Loaded) + Send + Sync + 'static) -> Self {
        self.adjust = Arc::new(adjust);
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// When the configuration is wrong or the mirror does not start.
    pub async fn start(self) -> TestSealgate {
        let dir = Arc::new(tempfile::tempdir().expect("a temporary directory"));
        for (name, content) in &self.files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("it lies below the directory")).expect("a directory is made");
            std::fs::write(path, content).expect("a file is written");
        }
        let config = toml::to_string(&self.table).expect("TOML");
        std::fs::write(dir.path().join("sealgate.toml"), config).expect("the configuration is written");
        let app = start(&self, dir.path()).await;
        TestSealgate { setup: self, dir, app: Some(app) }
    }
}

async fn start(setup: &Setup, dir: &Path) -> App {
    let origin = Origin::File(dir.join("sealgate.toml"));
    let mut loaded = Config::load(&origin).unwrap_or_else(|error| panic!("{error}"));
    (setup.adjust)(&mut loaded);
    App::start(loaded, origin, setup.clock.clone()).await.unwrap_or_else(|error| panic!("{error:?}"))
}

fn merge(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => merge(old, new),
            (Some(toml::Value::Array(old)), toml::Value::Array(new)) => old.extend(new),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

impl TestSealgate {
    /// See [`Setup::new`].
    pub fn with_policy(policy_json: &str) -> Setup {
        Setup::new(policy_json)
    }

    /// The running mirror.
    ///
    /// # Panics
    /// When it is stopped.
    pub fn app(&self) -> &App {
        self.app.as_ref().expect("the mirror runs")
    }

    /// Where the registry API is.
    pub fn address(&self) -> SocketAddr {
        self.app().registry()
    }

    /// Where the registry API is, as `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Where the admin API is, as `http://127.0.0.1:PORT`.
    pub fn admin_url(&self) -> String {
        format!("http://{}", self.app().admin())
    }

    /// `GET target` of the registry API.
    pub async fn get(&self, target: &str) -> Answer {
        self.request("GET", target, &[]).await
    }

    /// `HEAD target` of the registry API.
    pub async fn head(&self, target: &str) -> Answer {
        self.request("HEAD", target, &[]).await
    }

    /// Any request of the registry API.
    pub async fn request(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
        http::send(self.address(), method, target, headers).await
    }

    /// `GET target` of the admin API.
    pub async fn admin_get(&self, target: &str) -> Answer {
        http::send(self.app().admin(), "GET", target, &[]).await
    }

    /// Any request of the admin API; changes need the header `Sealgate-Admin: 1`.
    pub async fn admin_request(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
        http::send(self.app().admin(), method, target, headers).await
    }

    /// The value of one series of `/metrics`, such as `sealgate_verdicts_total{decision="deny",reason="rejected"}`.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let text = self.app().telemetry().render();
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    /// The directory with `sealgate.toml`, `policy.json` and `data/`.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Replaces the policy's file; [`Self::reload`] puts it in force.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write_policy(&self, policy_json: &str) {
        self.write("policy.json", policy_json);
    }

    /// Writes a file beside the configuration.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.dir().join(name), content).expect("a file is written");
    }

    /// Reloads, as SIGHUP does.
    ///
    /// # Errors
    /// What is wrong with the new configuration.
    pub async fn reload(&self) -> Result<crate::config::Changes, String> {
        self.app().reloads().reload().await
    }

    /// Stops it as SIGTERM does and starts it again on the same files; the ports are others.
    pub async fn restart(&mut self) {
        self.restart_after(|_| {}).await;
    }

    /// As [`Self::restart`]; while no process has `data/`, something happens to it.
    pub async fn restart_after(&mut self, meanwhile: impl FnOnce(&Path)) {
        self.end().await;
        meanwhile(&self.dir().join("data"));
        self.app = Some(start(&self.setup, self.dir.path()).await);
    }

    /// Stops it as SIGTERM does.
    ///
    /// # Panics
    /// When tasks are left over, or files in `staging/`.
    pub async fn stop(mut self) {
        self.end().await;
    }

    async fn end(&mut self) {
        let app = self.app.take().expect("the mirror runs");
        assert_eq!(app.drain(PATIENCE).await, Drained::Clean, "tasks are left over");
        assert_eq!(self.staging(), Vec::<PathBuf>::new(), "files are left in staging");
    }

    /// The files in `staging/`.
    pub fn staging(&self) -> Vec<PathBuf> {
        match std::fs::read_dir(self.dir().join("data/staging")) {
            Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
            Err(_) => Vec::new(),
        }
    }
}

impl Drop for TestSealgate {
    fn drop(&mut self) {
        let forgotten = self.app.is_some() && !std::thread::panicking();
        assert!(!forgotten, "end the test with `mirror.stop().await`, which proves that nothing is left over");
    }
}

/// How long running answers get; far more than any needs.
const PATIENCE: Duration = Duration::from_secs(20);
