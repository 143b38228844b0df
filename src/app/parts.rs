//! What both a running mirror and a single decision are made of.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_util::task::TaskTracker;

use super::AppError;
use crate::clock::Clock;
use crate::config::UpstreamConfig;
use crate::oci::Host;
use crate::pull::{Puller, Snapshot, Source};
use crate::store::{self, Store};
use crate::telemetry::Telemetry;
use crate::upstream::{Network, Upstream};

/// Everything below the listeners.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) telemetry: Telemetry,
    pub(super) store: Store,
    pub(super) puller: Puller,
    /// Work that no request owns.
    pub(super) work: TaskTracker,
}

impl Parts {
    /// Opens the store and builds a client for each upstream; contacts nobody.
    pub(super) async fn open(
        upstreams: &[UpstreamConfig],
        store: store::Settings,
        snapshot: Arc<ArcSwap<Snapshot>>,
        clock: Clock,
    ) -> Result<Self, AppError> {
        let hosts: Vec<Host> = upstreams.iter().map(|upstream| upstream.host().clone()).collect();
        let telemetry = Telemetry::new(&hosts);
        let sources = upstreams.iter().map(|upstream| source(upstream, &telemetry)).collect::<Result<Vec<_>, _>>()?;
        let store = Store::open(store, clock.clone(), telemetry.clone())
            .await
            .map_err(|error| AppError::Store(Box::new(error)))?;
        let work = TaskTracker::new();
        let puller = Puller::new(sources, store.clone(), snapshot, clock, telemetry.clone(), work.clone());
        Ok(Self { telemetry, store, puller, work })
    }
}

fn source(upstream: &UpstreamConfig, telemetry: &Telemetry) -> Result<Source, AppError> {
    let (settings, fallbacks) = (upstream.settings.clone(), upstream.fallbacks.clone());
    let client = Upstream::with_fallbacks(settings, fallbacks, telemetry.clone(), Network::default())
        .map_err(|source| AppError::Upstream { host: upstream.host().to_string(), source })?;
    Ok(Source { host: upstream.host().clone(), upstream: client, tags: upstream.tags.clone() })
}
