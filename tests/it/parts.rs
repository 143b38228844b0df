//! A mirror of one upstream, wired in the test's process: real listener, puller, store and policy, in front of a fake registry.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use sealgate::clock::Clock;
use sealgate::http::{self, Access, UpstreamName, Upstreams};
use sealgate::net::{Lookup, Timeouts};
use sealgate::oci::Digest;
use sealgate::policy::{self, ContainersPolicy, ContainersPolicyDocument, PolicySet};

use sealgate::pull::{Puller, Snapshot, Source, TagRules, TransferRules, VerdictTtl};
use sealgate::store::{Settings, Store};
use sealgate::telemetry::Telemetry;
use sealgate::testing::FakeRegistry;
use sealgate::upstream::{Content, Fallback, Network, Settings as UpstreamSettings, Upstream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) const ACCEPT_ANYTHING: &str = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;
pub(crate) const REJECT: &str = r#"{"default": [{"type": "reject"}]}"#;

/// A mirror of `docker.io`, which is the fake registry.
pub(crate) struct Mirror {
    pub(crate) address: SocketAddr,
    pub(crate) upstream: FakeRegistry,
    pub(crate) telemetry: Telemetry,
    pub(crate) shutdown: CancellationToken,
    snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) serving: JoinHandle<()>,
    /// What it caches in.
    pub(crate) store: Store,
    tasks: TaskTracker,
}

/// What of a mirror a test may want otherwise.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rig {
    /// Time limits of upstreams.
    pub(crate) timeouts: Timeouts,
    /// How blobs are fetched.
    pub(crate) transfers: TransferRules,
    /// Where the cache is; without it, it goes with the mirror.
    pub(crate) data_dir: Option<PathBuf>,
    /// Where `docker.io` is, if not at the mirror's own registry, whose port is `{port}`.
    pub(crate) endpoint: Option<String>,
    /// How names are resolved.
    pub(crate) lookup: Lookup,
    /// Where redirects may lead.
    pub(crate) redirect_hosts: Vec<String>,
    /// Where each of them is too, when that fails.
    pub(crate) fallback: Option<String>,
    /// Where `quay.io` is.
    pub(crate) second: Option<String>,
}

impl Mirror {
    /// Under that policy.json.
    pub(crate) async fn start(policy_json: &str) -> Self {
        Self::start_with(policy_json, |_| {}).await
    }

    /// With other settings of the listener.
    pub(crate) async fn start_with(policy_json: &str, adjust: impl FnOnce(&mut http::Settings)) -> Self {
        Self::rigged(policy_json, Rig::default(), adjust).await
    }

    /// With other parts.
    pub(crate) async fn rigged(policy_json: &str, rig: Rig, adjust: impl FnOnce(&mut http::Settings)) -> Self {
        let upstream = FakeRegistry::start().await;
        let telemetry = Telemetry::new(&["docker.io".parse().unwrap(), "quay.io".parse().unwrap()]);
        let port = upstream.address().port().to_string();
        let source = |host: &str, endpoint: &Option<String>| {
            let mut settings = upstream.settings(host);
            settings.redirect_hosts.clone_from(&rig.redirect_hosts);
            if let Some(endpoint) = endpoint {
                settings.endpoint = endpoint.replace("{port}", &port).parse().unwrap();
            }
            let network = Network { timeouts: rig.timeouts, lookup: rig.lookup.clone(), ..Network::default() };
            let fallback = |url: &String| Fallback {
                settings: UpstreamSettings { endpoint: url.parse().unwrap(), ..settings.clone() },
                content: Content::Complete,
            };
            let fallbacks = rig.fallback.iter().map(fallback).collect();
            Source {
                host: host.parse().unwrap(),
                upstream: Upstream::with_fallbacks(settings, fallbacks, telemetry.clone(), network).unwrap(),
                tags: TagRules::of(Duration::from_mins(1), Duration::from_mins(1)),
            }
        };
        let mut sources = vec![source("docker.io", &rig.endpoint)];
        sources.extend(rig.second.as_ref().map(|_| source("quay.io", &rig.second)));
        let store = Settings { data_dir: rig.data_dir.clone(), max_bytes: 1 << 30, min_free_bytes: 0 };
        let store = Store::open(store, Clock::System, telemetry.clone()).await.unwrap();
        let snapshot = Arc::new(ArcSwap::from_pointee(snapshot(policy_json)));
        let tasks = TaskTracker::new();
        let (clock, current, metrics) = (Clock::System, Arc::clone(&snapshot), telemetry.clone());
        let puller =
            Puller::with_transfers(sources, store.clone(), current, clock, metrics, tasks.clone(), rig.transfers);
        let mut settings = http::Settings::new(upstreams());
        adjust(&mut settings);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
        let serving = tasks.spawn(http::serve(listener, settings, puller, telemetry.clone(), shutdown.clone()));
        Self { address, upstream, telemetry, shutdown, snapshot, serving, store, tasks }
    }

    /// Puts another policy.json in force.
    pub(crate) fn set_policy(&self, policy_json: &str) {
        self.snapshot.store(Arc::new(snapshot(policy_json)));
    }

    /// The value of a series.
    pub(crate) fn metric(&self, series: &str) -> u64 {
        let text = self.telemetry.render();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned));
        value.unwrap_or_else(|| panic!("no series {series}")).parse().unwrap()
    }

    /// Stops; panics when the server did. What was counted is complete then.
    pub(crate) async fn stop(self) -> Stopped {
        self.shutdown.cancel();
        self.serving.await.unwrap();
        self.tasks.close();
        self.tasks.wait().await;
        self.store.close().await;
        Stopped { telemetry: self.telemetry, upstream: self.upstream }
    }
}

/// What a mirror leaves behind.
pub(crate) struct Stopped {
    telemetry: Telemetry,
    pub(crate) upstream: FakeRegistry,
}

impl Stopped {
    /// Connections closed for that reason.
    pub(crate) fn closed(&self, reason: &str) -> u64 {
        self.metric(&format!("sealgate_connections_closed_total{{reason=\"{reason}\"}}"))
    }

    pub(crate) fn metric(&self, series: &str) -> u64 {
        let text = self.telemetry.render();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned));
        value.unwrap_or_else(|| panic!("no series {series}")).parse().unwrap()
    }
}

fn upstreams() -> Upstreams {
    let name = |host: &str, aliases: &[&str], access| UpstreamName {
        host: host.parse().unwrap(),
        aliases: aliases.iter().map(|alias| alias.parse().unwrap()).collect(),
        access,
    };
    let names = vec![
        name("docker.io", &["index.docker.io"], Access::Served),
        name("quay.io", &[], Access::Served),
        name("private.example", &[], Access::NeedsKnownClients),
    ];
    Upstreams::new(names, Some(&"docker.io".parse().unwrap())).unwrap()
}

fn snapshot(policy_json: &str) -> Snapshot {
    let document = ContainersPolicyDocument::parse(policy_json.as_bytes()).unwrap();
    let containers_policy = ContainersPolicy::resolve(document, &mut |path| Err(path.to_owned())).unwrap();
    let settings = policy::Settings { containers_policy: Some(containers_policy), ..Default::default() };
    let verdict_ttl = VerdictTtl { allow: Duration::from_mins(10), deny: Duration::from_mins(10) };
    Snapshot { policy: PolicySet::new(settings).unwrap(), trust_root: Digest::sha256(b""), verdict_ttl }
}
