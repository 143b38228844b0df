//! Whose transfer is next: a bounded number for each upstream and in all, and a queue for each upstream.
//!
//! Each upstream has a few turns of its own, which nobody else can take; beyond them all share. Queues are served in
//! turn, one transfer each, so that neither a slow upstream nor one with a long queue delays the others.

use std::time::Duration;

use super::fair::{Asker, FairQueue, Place, Rules};
use crate::limits::{
    TRANSFER_QUEUE, TRANSFERS_MAX, TRANSFERS_OWN, TRANSFERS_PACED_MAX, TRANSFERS_WAITING_MAX, UPSTREAM_BLOB_CONCURRENCY,
};
use crate::oci::Host;
use crate::telemetry::Telemetry;

pub(super) use super::fair::{Busy, Pace};

/// How many transfers there may be; the default is that of [`crate::limits`].
#[derive(Debug, Clone, Copy)]
pub struct TurnRules {
    /// Of one upstream.
    pub of_one: usize,
    /// Of those, how many may go at a client's pace.
    pub paced: usize,
    /// Of one upstream, whatever the others do.
    pub own: usize,
    /// Beyond those, of all upstreams together.
    pub shared: usize,
    /// Waiting for one upstream, of each kind.
    pub waiting: usize,
    /// How long one waits.
    pub queue: Duration,
}

impl Default for TurnRules {
    fn default() -> Self {
        Self {
            of_one: UPSTREAM_BLOB_CONCURRENCY,
            paced: TRANSFERS_PACED_MAX,
            own: TRANSFERS_OWN,
            shared: TRANSFERS_MAX,
            waiting: TRANSFERS_WAITING_MAX,
            queue: TRANSFER_QUEUE,
        }
    }
}

impl TurnRules {
    /// An upstream asks for itself here, so that what bounds it bounds the asker.
    const fn of_queue(self) -> Rules {
        Rules {
            of_asker: self.of_one,
            of_upstream: self.of_one,
            paced: self.paced,
            own: self.own,
            shared: self.shared,
            waiting_of_asker: self.waiting,
            waiting_at_upstream: usize::MAX,
            waiting: usize::MAX,
            patience: self.queue,
        }
    }
}

/// The right to have one transfer under way; given back when it is dropped.
pub(super) type Turn = Place;

/// The turns of all upstreams; clones share them.
#[derive(Debug, Clone)]
pub(super) struct Turns {
    queue: FairQueue,
    telemetry: Telemetry,
}

impl Turns {
    pub(super) fn new(rules: TurnRules, telemetry: Telemetry) -> Self {
        Self { queue: FairQueue::new(rules.of_queue()), telemetry }
    }

    /// Waits for a turn at `host`. Cancel safe: who leaves the queue takes nothing along.
    ///
    /// # Errors
    /// [`Busy`] when the queue is full, or the wait took longer than it may.
    pub(super) async fn take(&self, host: &Host, pace: Pace) -> Result<Turn, Busy> {
        self.queue.take(Asker::Upstream(host.clone()), host, pace, || self.telemetry.transfer_queued(host)).await
    }

    /// A turn at `host` if there is one now and nobody waits for it.
    pub(super) fn try_take(&self, host: &Host, pace: Pace) -> Option<Turn> {
        self.queue.try_take(Asker::Upstream(host.clone()), host, pace)
    }
}
