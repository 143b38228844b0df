//! The only place that wires parts together: start, ready, drain.
//!
//! **Start.** Settings are checked already. Both listeners are bound before anything else, so that a wrong address fails
//! at once and nothing is announced that cannot be reached. Then the store opens, clients are built (nobody is
//! contacted), and the servers run. **Ready** is when [`App::start`] returns. **Drain**, at SIGTERM or SIGINT: readiness
//! goes, no new connections, running answers and fills get [`limits::DRAIN`], then the store closes. May import
//! everything but `cli` and `runtimes`.

mod banner;
mod desk;
mod parts;
mod reloads;
mod settings;
mod signals;
mod trust_refresh;

pub use banner::Banner;
pub use desk::Desk;
pub use reloads::Reloads;
pub use signals::Signals;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::parts::Parts;
use self::signals::Signal;
use crate::admin;
use crate::clock::Clock;
use crate::config::{Loaded, Origin, Reloader};
use crate::http;
use crate::limits;
use crate::store::{Store, StoreError};
use crate::telemetry::Telemetry;
use crate::upstream::SettingsError;

/// A running mirror.
#[derive(Debug)]
pub struct App {
    registry: SocketAddr,
    admin: SocketAddr,
    banner: Banner,
    store: Store,
    telemetry: Telemetry,
    reloads: Reloads,
    tasks: Tasks,
    stop: Stop,
}

/// What drain waits for, in this order.
#[derive(Debug, Clone, Default)]
struct Tasks {
    /// The registry listener and its connections.
    registry: TaskTracker,
    /// Work that no request owns: fills, flights.
    work: TaskTracker,
    /// The reload loop and the refresh of the trust root.
    background: TaskTracker,
    /// The admin listener and its connections: last, so that a drain can be watched.
    admin: TaskTracker,
}

/// What tells them to end.
#[derive(Debug, Clone, Default)]
struct Stop {
    /// No new requests; readiness goes too.
    registry: CancellationToken,
    background: CancellationToken,
    admin: CancellationToken,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Everything that ran was finished.
    Clean,
    /// Some of it was still running when time was up.
    Cut,
}

/// Why a mirror does not start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// An address cannot be listened on.
    #[error("{key}: cannot listen on {address}")]
    Bind {
        /// The configuration's key.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The store does not open.
    #[error("server.data_dir cannot be used")]
    Store(#[source] Box<StoreError>),
    /// An upstream's settings cannot be used.
    #[error("the settings of upstream {host} cannot be used")]
    Upstream {
        /// Which.
        host: String,
        /// Why.
        #[source]
        source: SettingsError,
    },
    /// The system gives us no signals.
    #[error("the system gives no signals")]
    Signals(#[source] std::io::Error),
}

impl AppError {
    /// What to do about it, where that is known.
    pub fn next(&self) -> Option<&'static str> {
        match self {
            Self::Bind { source, .. } => bind_hint(source.kind()),
            Self::Store(error) => match error.as_ref() {
                StoreError::Io { .. } => Some("name a directory that this user may make and write to"),
                StoreError::Locked { .. }
                | StoreError::NoCache { .. }
                | StoreError::NoSpace
                | StoreError::TooLong { .. }
                | StoreError::DigestMismatch { .. } => None,
            },
            Self::Upstream { .. } | Self::Signals(_) => None,
        }
    }
}

impl App {
    /// Starts everything that the configuration, which was loaded from `origin`, says; returns when both listeners
    /// answer.
    ///
    /// # Errors
    /// [`AppError`] when an address, the data directory, a certificate or an upstream's settings cannot be used.
    pub async fn start(loaded: Loaded, origin: Origin, clock: Clock) -> Result<Self, AppError> {
        let Loaded { mut config, snapshot } = loaded;
        let worries = config.trust_root.warnings(clock.now());
        config.warnings.extend(worries.into_iter().map(|worry| format!("trust root: {worry}")));
        config.warnings.extend(snapshot.policy.lapsed(clock.now()).iter().map(ToString::to_string));
        let registry_listener = bind("server.listen", config.server.listen).await?;
        let admin_listener = bind("server.admin_listen", config.server.admin_listen).await?;
        let registry = registry_listener.local_addr().unwrap_or(config.server.listen);
        let admin = admin_listener.local_addr().unwrap_or(config.server.admin_listen);

        let banner = Banner::new(&config, &snapshot, registry, admin);
        let snapshot = Arc::new(ArcSwap::from_pointee(snapshot));
        let parts = Parts::open(&config.upstreams, config.store.clone(), Arc::clone(&snapshot), clock.clone()).await?;
        let Parts { telemetry, store, puller, work } = parts;
        store.scrub(config.scrub);

        // Nothing can fail from here on, so that nothing has to be undone.
        let tasks = Tasks { work, ..Tasks::default() };
        let stop = Stop::default();
        let (reloads, requests) = reloads::channel();
        let reloader = Reloader::new(origin, &config, Arc::clone(&snapshot), telemetry.clone(), clock.clone());
        let (tuf, stopped) = (reloader.tuf(), stop.background.clone());
        tasks.background.spawn(trust_refresh::run(tuf, reloads.clone(), clock.clone(), telemetry.clone(), stopped));
        tasks.background.spawn(reloads::run(reloader, requests, telemetry.clone(), stop.background.clone()));
        let state = admin::State {
            access: settings::access(&config),
            store: store.clone(),
            snapshot,
            telemetry: telemetry.clone(),
            clock,
            reload: settings::reload(&reloads),
            upstreams: settings::facts(&config),
            standings: settings::standings(&puller),
            draining: stop.registry.clone(),
        };
        tasks.admin.spawn(admin::serve(admin_listener, state, stop.admin.clone(), tasks.admin.clone()));
        let registry_ends = stop.registry.clone();
        tasks.registry.spawn(http::serve(registry_listener, config.registry, puller, telemetry.clone(), registry_ends));
        Ok(Self { registry, admin, banner, store, telemetry, reloads, tasks, stop })
    }

    /// Where the registry API is.
    pub fn registry(&self) -> SocketAddr {
        self.registry
    }

    /// Where the admin API is.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// What to say at start.
    pub fn banner(&self) -> &Banner {
        &self.banner
    }

    /// For asking for reloads.
    pub fn reloads(&self) -> &Reloads {
        &self.reloads
    }

    /// The store, for looking into it.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The metrics, for reading them.
    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// Runs until SIGTERM or SIGINT, reloads on SIGHUP, then drains. A second SIGTERM or SIGINT ends the drain at once.
    pub async fn run(self, mut signals: Signals) -> Drained {
        loop {
            match signals.next().await {
                Signal::End => break,
                // Not waited for: a file system that hangs must not keep us from ending.
                Signal::Reload => self.reloads.request(),
            }
        }
        tracing::info!("draining: running answers get {} s", limits::DRAIN.as_secs());
        let again = async { while signals.next().await != Signal::End {} };
        // Losing the drain is what the second signal asks for.
        tokio::select! {
            drained = self.drain(limits::DRAIN) => drained,
            () = again => Drained::Cut,
        }
    }

    /// Ends: no new connections, running answers and fills get `patience`, then the store closes and the admin listener
    /// goes.
    pub async fn drain(self, patience: Duration) -> Drained {
        let deadline = Instant::now() + patience;
        let Self { tasks, stop, store, .. } = self;
        stop.registry.cancel();
        stop.background.cancel();
        let mut drained = Drained::Clean;
        for tracker in [&tasks.registry, &tasks.work, &tasks.background] {
            tracker.close();
            if tokio::time::timeout_at(deadline, tracker.wait()).await.is_err() {
                drained = Drained::Cut;
            }
        }
        store.close().await;
        stop.admin.cancel();
        tasks.admin.close();
        if tokio::time::timeout(ADMIN_DRAIN, tasks.admin.wait()).await.is_err() {
            drained = Drained::Cut;
        }
        match drained {
            Drained::Clean => tracing::info!("drained"),
            Drained::Cut => tracing::warn!("time was up: running transfers were cut"),
        }
        drained
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "three kinds are met in practice; the system's words do for the rest"
)]
fn bind_hint(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::AddrInUse => Some("another process listens there: end that one, or set another port"),
        ErrorKind::AddrNotAvailable => Some("this machine has no such address; 0.0.0.0 stands for all it has"),
        ErrorKind::PermissionDenied => Some("this user may not use that port; set one from 1024 on"),
        _ => None,
    }
}

async fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, AppError> {
    TcpListener::bind(address).await.map_err(|source| AppError::Bind { key, address, source })
}

/// Answers of the admin listener are small.
const ADMIN_DRAIN: Duration = Duration::from_secs(1);
