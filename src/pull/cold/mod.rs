//! Cold work: what a request needs that is not here yet. It is bounded in all, and shared out fairly between clients.
//!
//! Whoever makes us ask an upstream or verify takes a [`Place`] first. No client and no upstream can have more than its part
//! of them, each upstream has a few that nobody else can take, and clients that wait are served in turn: a thousand cold
//! pulls of one delay nobody else's. Beyond that a client may ask for so many things a minute that we have never seen. What
//! is warm needs no place.

mod rate;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

pub(super) use super::fair::Place;

use self::rate::Rate;
use super::fair::{Asker as Who, Busy, FairQueue, Pace, Rules};
use super::flight::Flights;
use super::{PullError, Puller};
use crate::limits::{
    COLD_OF_CLIENT_MAX, COLD_OF_UPSTREAM_MAX, COLD_OWN, COLD_PULLS_PER_MINUTE, COLD_QUEUE, COLD_SHARED_MAX,
    COLD_TRANSFERS_OF_CLIENT_MAX, COLD_TRANSFERS_QUEUE, COLD_WAITING_MAX, COLD_WAITING_OF_ONE_MAX,
};
use crate::oci::Host;
use crate::telemetry::OverloadBound;

/// How much cold work there may be; the default is that of [`crate::limits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColdRules {
    /// Of one client at once.
    pub of_client: usize,
    /// Of one upstream at once.
    pub of_upstream: usize,
    /// Of one upstream at once, whatever the others do.
    pub own: usize,
    /// Beyond those, of all upstreams together.
    pub shared: usize,
    /// Waiting, for one client or one upstream.
    pub waiting_of_one: usize,
    /// Waiting in all.
    pub waiting: usize,
    /// How long one waits.
    pub queue: Duration,
    /// Things that we have never seen, asked for by one client in a minute; as many may come at once. 0: no bound.
    pub pulls_per_minute: u32,
    /// Transfers of blobs that are not here, begun by one client and under way at once.
    pub transfers_of_client: usize,
}

impl Default for ColdRules {
    fn default() -> Self {
        Self {
            of_client: COLD_OF_CLIENT_MAX,
            of_upstream: COLD_OF_UPSTREAM_MAX,
            own: COLD_OWN,
            shared: COLD_SHARED_MAX,
            waiting_of_one: COLD_WAITING_OF_ONE_MAX,
            waiting: COLD_WAITING_MAX,
            queue: COLD_QUEUE,
            pulls_per_minute: COLD_PULLS_PER_MINUTE,
            transfers_of_client: COLD_TRANSFERS_OF_CLIENT_MAX,
        }
    }
}

impl ColdRules {
    const fn of_pulls(self) -> Rules {
        Rules {
            of_asker: self.of_client,
            of_upstream: self.of_upstream,
            paced: usize::MAX,
            own: self.own,
            shared: self.shared,
            waiting_of_asker: self.waiting_of_one,
            waiting_at_upstream: self.waiting_of_one,
            waiting: self.waiting,
            patience: self.queue,
        }
    }

    /// Transfers wait for their client's other transfers; how many one upstream has is not decided here.
    const fn of_transfers(self) -> Rules {
        Rules {
            of_asker: self.transfers_of_client,
            of_upstream: usize::MAX,
            own: usize::MAX,
            patience: COLD_TRANSFERS_QUEUE,
            ..self.of_pulls()
        }
    }
}

/// The cold work of all clients; clones share it.
#[derive(Debug, Clone)]
pub struct ColdWork(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pulls: FairQueue,
    transfers: FairQueue,
    rate: Rate,
}

impl ColdWork {
    /// None yet.
    pub fn new(rules: ColdRules) -> Self {
        let (pulls, transfers) = (FairQueue::new(rules.of_pulls()), FairQueue::new(rules.of_transfers()));
        Self(Arc::new(Shared { pulls, transfers, rate: Rate::new(rules.pulls_per_minute) }))
    }
}

impl Default for ColdWork {
    fn default() -> Self {
        Self::new(ColdRules::default())
    }
}

/// Whether something that was never seen is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Novelty {
    /// It counts against its client's minute.
    New,
    /// We have it, or had it, and look again.
    Known,
}

/// On whose behalf a request is answered, and its place once it has one.
#[derive(Debug)]
pub(super) struct Asker {
    work: ColdWork,
    client: IpAddr,
    place: Mutex<Option<Arc<Place>>>,
}

impl Puller {
    /// The same for one request of that client. Clones of it are on nobody's behalf: they do the work that it has a place for.
    #[must_use]
    pub fn on_behalf_of(&self, client: IpAddr, work: &ColdWork) -> Self {
        let asker = Asker { work: work.clone(), client, place: Mutex::default() };
        Self { parts: Arc::clone(&self.parts), asker: Some(asker) }
    }

    /// The request's place among the cold work at `host`: the one it has, else one that is waited for. Cancel safe.
    ///
    /// # Errors
    /// [`PullError::TooMany`] when its client has asked for too much that is new; [`PullError::Overloaded`] when too much waits,
    /// or the wait was too long.
    pub(super) async fn cold_place(&self, host: &Host, novelty: Novelty) -> Result<Option<Arc<Place>>, PullError> {
        let Some(Asker { work, client, place }) = &self.asker else { return Ok(None) };
        if let Some(place) = lock(place).as_ref() {
            return Ok(Some(Arc::clone(place)));
        }
        if novelty == Novelty::New {
            work.0.rate.charge(*client, Instant::now()).map_err(|retry_after| {
                self.parts.telemetry.overloaded(OverloadBound::ClientRate);
                PullError::TooMany { retry_after }
            })?;
        }
        let taken = Arc::new(self.taken(take(&work.0.pulls, *client, host).await, OverloadBound::ColdWork)?);
        Ok(Some(Arc::clone(lock(place).insert(taken))))
    }

    /// A place among its client's transfers. One among the cold work is not needed any more, and not kept while this is waited
    /// for. Cancel safe.
    ///
    /// # Errors
    /// [`PullError::Overloaded`] when too much waits, or the wait was too long.
    pub(super) async fn transfer_place(&self, host: &Host) -> Result<Option<Place>, PullError> {
        let Some(Asker { work, client, place }) = &self.asker else { return Ok(None) };
        drop(lock(place).take());
        Ok(Some(self.taken(take(&work.0.transfers, *client, host).await, OverloadBound::Transfers)?))
    }

    fn taken(&self, taken: Result<Place, Busy>, bound: OverloadBound) -> Result<Place, PullError> {
        taken.map_err(|Busy| {
            self.parts.telemetry.overloaded(bound);
            PullError::Overloaded
        })
    }

    /// Joins the run for `key`. One that has to begin needs a place, which it keeps to its end, whoever leaves.
    ///
    /// The place is waited for before the run is there for others to find: nobody waits in another client's queue.
    ///
    /// # Errors
    /// As [`Self::cold_place`]; [`PullError::Lost`] when the run panicked.
    pub(super) async fn run<K, V, W, F>(
        &self,
        flights: &Flights<K, V>,
        (host, novelty): (&Host, Novelty),
        key: K,
        work: W,
    ) -> Result<V, PullError>
    where
        K: Eq + std::hash::Hash + Clone + Send + 'static,
        V: Clone + Send + Sync + 'static,
        W: FnOnce() -> F,
        F: Future<Output = V> + Send + 'static,
    {
        if let Some(running) = flights.join_running(&key) {
            return Ok(running.await?);
        }
        let place = self.cold_place(host, novelty).await?;
        let begin = || {
            let run = work();
            async move {
                let _place = place;
                run.await
            }
        };
        Ok(flights.join(key, begin).await?)
    }
}

async fn take(queue: &FairQueue, client: IpAddr, host: &Host) -> Result<Place, Busy> {
    queue.take(Who::Client(client), host, Pace::Full, || ()).await
}

fn lock(place: &Mutex<Option<Arc<Place>>>) -> MutexGuard<'_, Option<Arc<Place>>> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}
