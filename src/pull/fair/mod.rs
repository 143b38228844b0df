//! A fair queue for a bounded number of places: who may have one, and who is next.
//!
//! Places are bounded for each asker, at each upstream and in all; each upstream has a few of its own, which nobody else can
//! take, and beyond them all share. Askers that wait are served in turn, one place each, so that neither one with a long queue
//! nor one whose upstream is slow delays the others. Of one asker's, the first is served that can be: who waits for one
//! upstream is in nobody's way to another. Cold work and transfers wait here, each in a queue of its own.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::oci::Host;

/// How many places there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// For one asker.
    pub(super) of_asker: usize,
    /// At one upstream.
    pub(super) of_upstream: usize,
    /// At one upstream, how many may go at a client's pace.
    pub(super) paced: usize,
    /// At one upstream, whatever the others do.
    pub(super) own: usize,
    /// Beyond those, at all upstreams together.
    pub(super) shared: usize,
    /// Waiting, for one asker and pace.
    pub(super) waiting_of_asker: usize,
    /// Waiting, for one upstream.
    pub(super) waiting_at_upstream: usize,
    /// Waiting in all.
    pub(super) waiting: usize,
    /// How long one waits.
    pub(super) patience: Duration,
}

/// How fast the work of a place goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// As fast as upstream sends.
    Full,
    /// As one client reads.
    Client,
}

/// Too many wait already, or the wait was too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Busy;

/// Whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Asker {
    /// A client's.
    Client(IpAddr),
    /// An upstream's, whoever wants something of it.
    Upstream(Host),
}

/// The places of all askers; clones share them.
#[derive(Debug, Clone)]
pub(super) struct FairQueue {
    state: Arc<Mutex<State>>,
    rules: Rules,
}

/// The right to do some work; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    queue: FairQueue,
    holder: Ticket,
}

impl Drop for Place {
    fn drop(&mut self) {
        let unwanted = {
            let mut state = self.queue.lock();
            state.end(&self.queue.rules, &self.holder);
            state.serve(&self.queue)
        };
        // Those of whoever left at this very moment: each comes here again, so not under the lock.
        drop(unwanted);
    }
}

/// Whose place it is, and where.
#[derive(Debug, Clone)]
struct Ticket {
    asker: Asker,
    host: Host,
    pace: Pace,
}

impl FairQueue {
    pub(super) fn new(rules: Rules) -> Self {
        Self { state: Arc::new(Mutex::new(State::default())), rules }
    }

    /// Waits for a place; `queued` is held meanwhile, if it has to wait. Cancel safe: who leaves takes nothing along.
    ///
    /// # Errors
    /// [`Busy`] when the queue is full, or the wait took longer than it may.
    pub(super) async fn take<G>(
        &self,
        asker: Asker,
        host: &Host,
        pace: Pace,
        queued: impl FnOnce() -> G,
    ) -> Result<Place, Busy> {
        let ticket = Ticket { asker, host: host.clone(), pace };
        let mine = {
            let mut state = self.lock();
            state.forget_those_who_left();
            if state.is_next(&self.rules, &ticket) {
                return Ok(state.begin(self, ticket));
            }
            state.enqueue(&self.rules, ticket)?
        };
        let _queued = queued();
        match tokio::time::timeout(self.rules.patience, mine).await {
            Ok(Ok(given)) => Ok(given),
            Ok(Err(_)) | Err(_) => Err(Busy),
        }
    }

    /// A place if there is one now and nobody waits for one at that upstream.
    pub(super) fn try_take(&self, asker: Asker, host: &Host, pace: Pace) -> Option<Place> {
        let ticket = Ticket { asker, host: host.clone(), pace };
        let mut state = self.lock();
        state.forget_those_who_left();
        let is_waited_for = state.waiting().any(|waiting| waiting.ticket.host == *host);
        let free = !is_waited_for && state.is_free(&self.rules, &ticket);
        free.then(|| state.begin(self, ticket))
    }

    /// Locks; what a panicking holder left is still consistent, since no step between two changes can panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct State {
    /// Those that have a place or wait; nobody else has an entry.
    askers: HashMap<Asker, Line>,
    /// Those that wait, the next to be served first.
    order: VecDeque<Asker>,
    /// Work by upstream. There are as many as configured upstreams.
    upstreams: HashMap<Host, Running>,
    /// Work beyond the upstreams' own.
    shared: usize,
}

/// What one asker has and waits for.
#[derive(Debug, Default)]
struct Line {
    running: usize,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    place: oneshot::Sender<Place>,
}

/// Work at one upstream.
#[derive(Debug, Default, Clone, Copy)]
struct Running {
    all: usize,
    paced: usize,
}

impl State {
    fn waiting(&self) -> impl Iterator<Item = &Waiting> {
        self.order.iter().filter_map(|asker| self.askers.get(asker)).flat_map(|line| &line.waiting)
    }

    fn is_free(&self, rules: &Rules, ticket: &Ticket) -> bool {
        let at = self.upstreams.get(&ticket.host).copied().unwrap_or_default();
        self.askers.get(&ticket.asker).is_none_or(|line| line.running < rules.of_asker)
            && at.all < rules.of_upstream
            && (ticket.pace == Pace::Full || at.paced < rules.paced)
            && (at.all < rules.own || self.shared < rules.shared)
    }

    /// Whether it may begin at once: there is a place, and the same asker does not wait for one like it.
    fn is_next(&self, rules: &Rules, ticket: &Ticket) -> bool {
        let like_it = |other: &Ticket| other.host == ticket.host && other.pace == ticket.pace;
        let waits = self
            .askers
            .get(&ticket.asker)
            .is_some_and(|line| line.waiting.iter().any(|waiting| like_it(&waiting.ticket)));
        !waits && self.is_free(rules, ticket)
    }

    fn begin(&mut self, queue: &FairQueue, ticket: Ticket) -> Place {
        let at = self.upstreams.entry(ticket.host.clone()).or_default();
        self.shared += usize::from(at.all >= queue.rules.own);
        at.all += 1;
        at.paced += usize::from(ticket.pace == Pace::Client);
        self.askers.entry(ticket.asker.clone()).or_default().running += 1;
        Place { queue: queue.clone(), holder: ticket }
    }

    fn end(&mut self, rules: &Rules, ticket: &Ticket) {
        if let Some(at) = self.upstreams.get_mut(&ticket.host) {
            self.shared = self.shared.saturating_sub(usize::from(at.all > rules.own));
            at.all = at.all.saturating_sub(1);
            at.paced = at.paced.saturating_sub(usize::from(ticket.pace == Pace::Client));
        }
        if let Some(line) = self.askers.get_mut(&ticket.asker) {
            line.running = line.running.saturating_sub(1);
            if line.running == 0 && line.waiting.is_empty() {
                self.askers.remove(&ticket.asker);
            }
        }
    }

    fn enqueue(&mut self, rules: &Rules, ticket: Ticket) -> Result<oneshot::Receiver<Place>, Busy> {
        let line = self.askers.get(&ticket.asker);
        let waits_too = line.into_iter().flat_map(|line| &line.waiting);
        let of_asker = waits_too.filter(|waiting| waiting.ticket.pace == ticket.pace).count();
        let at_upstream = self.waiting().filter(|waiting| waiting.ticket.host == ticket.host).count();
        let is_full = of_asker >= rules.waiting_of_asker
            || at_upstream >= rules.waiting_at_upstream
            || self.waiting().count() >= rules.waiting;
        if is_full {
            return Err(Busy);
        }
        let (place, mine) = oneshot::channel();
        let line = self.askers.entry(ticket.asker.clone()).or_default();
        if line.waiting.is_empty() {
            self.order.push_back(ticket.asker.clone());
        }
        line.waiting.push_back(Waiting { ticket, place });
        Ok(mine)
    }

    /// Hands out what is free, one to each asker in turn. Returns the places of those who are no longer there.
    fn serve(&mut self, queue: &FairQueue) -> Vec<Place> {
        let mut unwanted = Vec::new();
        // Those that have not been asked since a place was last given.
        let mut left = self.order.len();
        while left > 0 {
            left -= 1;
            let Some(asker) = self.order.pop_front() else { break };
            let next = self.next(&queue.rules, &asker);
            if self.askers.get(&asker).is_some_and(|line| !line.waiting.is_empty()) {
                self.order.push_back(asker);
            }
            if let Some(Waiting { ticket, place }) = next {
                unwanted.extend(place.send(self.begin(queue, ticket)).err());
                left = self.order.len();
            }
        }
        unwanted
    }

    /// Takes the first of an asker's that can have a place now, and is still there, out of its queue.
    fn next(&mut self, rules: &Rules, asker: &Asker) -> Option<Waiting> {
        self.askers.get_mut(asker)?.waiting.retain(|waiting| !waiting.place.is_closed());
        let line = self.askers.get(asker)?;
        if let Some(at) = line.waiting.iter().position(|waiting| self.is_free(rules, &waiting.ticket)) {
            return self.askers.get_mut(asker)?.waiting.remove(at);
        }
        if line.running == 0 && line.waiting.is_empty() {
            self.askers.remove(asker);
        }
        None
    }

    /// Those who left make room for others.
    fn forget_those_who_left(&mut self) {
        if self.order.is_empty() {
            return;
        }
        for asker in &self.order {
            if let Some(line) = self.askers.get_mut(asker) {
                line.waiting.retain(|waiting| !waiting.place.is_closed());
            }
        }
        self.askers.retain(|_, line| line.running > 0 || !line.waiting.is_empty());
        let askers = &self.askers;
        self.order.retain(|asker| askers.get(asker).is_some_and(|line| !line.waiting.is_empty()));
    }
}

#[cfg(test)]
mod tests;
