//! Decides without serving: the same parts as a running mirror, in memory, without listeners.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::AppError;
use super::parts::Parts;
use crate::clock::Clock;
use crate::config::Loaded;
use crate::pull::Puller;
use crate::store::{self, Store};

/// A place where images are decided about and none is served. It never opens `data_dir`, so it runs beside `serve`.
#[derive(Debug)]
pub struct Desk(Parts);

impl Desk {
    /// Opens it for what the configuration says.
    ///
    /// # Errors
    /// [`AppError::Upstream`] when an upstream's settings cannot be used, [`AppError::Store`] when there is no room for
    /// a temporary directory.
    pub async fn open(loaded: Loaded, clock: Clock) -> Result<Self, AppError> {
        let Loaded { config, snapshot } = loaded;
        let store = store::Settings { data_dir: None, ..config.store };
        let snapshot = Arc::new(ArcSwap::from_pointee(snapshot));
        Ok(Self(Parts::open(&config.upstreams, store, snapshot, clock).await?))
    }

    /// Decides.
    pub fn puller(&self) -> &Puller {
        &self.0.puller
    }

    /// Keeps verdicts and their evidence.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Ends what still runs, bounded.
    pub async fn close(self) {
        self.0.work.close();
        // Whatever is still fetched is of no use to anybody.
        drop(tokio::time::timeout(CLOSE_MAX, self.0.work.wait()).await);
        self.0.store.close().await;
    }
}

const CLOSE_MAX: Duration = Duration::from_secs(1);
