//! Whose cold work is next: places that are bounded by client, by upstream and in all, and a queue for each client.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::ColdRules;
use crate::oci::Host;

/// Too much waits already, or the wait was too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Busy;

/// The right to do some cold work; given back when it is dropped.
#[derive(Debug)]
pub(in crate::pull) struct Place {
    state: Arc<Mutex<State>>,
    rules: ColdRules,
    client: IpAddr,
    host: Host,
}

impl Drop for Place {
    fn drop(&mut self) {
        let unwanted = {
            let mut state = lock(&self.state);
            state.end(&self.rules, self.client, &self.host);
            state.serve(&self.rules, &self.state)
        };
        // Each of them comes here again, so not under the lock.
        drop(unwanted);
    }
}

/// The places of all clients at all upstreams.
#[derive(Debug)]
pub(super) struct Gate {
    state: Arc<Mutex<State>>,
    rules: ColdRules,
}

#[derive(Debug, Default)]
struct State {
    /// Clients that have work or wait; nobody else has an entry.
    clients: HashMap<IpAddr, Client>,
    /// Clients that wait, the next to be served first.
    order: VecDeque<IpAddr>,
    /// Work by upstream. There are as many as configured upstreams.
    upstreams: HashMap<Host, usize>,
    /// Work beyond the upstreams' own.
    shared: usize,
}

#[derive(Debug, Default)]
struct Client {
    running: usize,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    host: Host,
    place: oneshot::Sender<Place>,
}

impl Gate {
    pub(super) fn new(rules: ColdRules) -> Self {
        Self { state: Arc::default(), rules }
    }

    /// Waits for a place. Cancel safe: who leaves takes nothing along.
    ///
    /// # Errors
    /// [`Busy`].
    pub(super) async fn take(&self, client: IpAddr, host: &Host) -> Result<Place, Busy> {
        let mine = {
            let mut state = lock(&self.state);
            if !state.order.is_empty() {
                state.forget_those_who_left();
            }
            let nobody_waits = state.clients.get(&client).is_none_or(|client| client.waiting.is_empty());
            if nobody_waits && state.is_free(&self.rules, client, host) {
                state.begin(&self.rules, client, host);
                return Ok(Place { state: Arc::clone(&self.state), rules: self.rules, client, host: host.clone() });
            }
            state.enqueue(&self.rules, client, host)?
        };
        match tokio::time::timeout(self.rules.queue, mine).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => Err(Busy),
        }
    }
}

impl State {
    fn is_free(&self, rules: &ColdRules, client: IpAddr, host: &Host) -> bool {
        let at_upstream = self.upstreams.get(host).copied().unwrap_or(0);
        self.clients.get(&client).is_none_or(|client| client.running < rules.of_client)
            && at_upstream < rules.of_upstream
            && (at_upstream < rules.own || self.shared < rules.shared)
    }

    fn begin(&mut self, rules: &ColdRules, client: IpAddr, host: &Host) {
        let at_upstream = self.upstreams.entry(host.clone()).or_default();
        self.shared += usize::from(*at_upstream >= rules.own);
        *at_upstream += 1;
        self.clients.entry(client).or_default().running += 1;
    }

    fn end(&mut self, rules: &ColdRules, client: IpAddr, host: &Host) {
        if let Some(at_upstream) = self.upstreams.get_mut(host) {
            self.shared = self.shared.saturating_sub(usize::from(*at_upstream > rules.own));
            *at_upstream = at_upstream.saturating_sub(1);
        }
        if let Some(entry) = self.clients.get_mut(&client) {
            entry.running = entry.running.saturating_sub(1);
        }
        self.forget_if_idle(client);
    }

    fn enqueue(&mut self, rules: &ColdRules, client: IpAddr, host: &Host) -> Result<oneshot::Receiver<Place>, Busy> {
        let waiting = || self.clients.values().flat_map(|client| &client.waiting);
        let of_client = self.clients.get(&client).map_or(0, |client| client.waiting.len());
        let at_upstream = waiting().filter(|waiting| waiting.host == *host).count();
        if of_client.max(at_upstream) >= rules.waiting_of_one || waiting().count() >= rules.waiting {
            return Err(Busy);
        }
        let (place, mine) = oneshot::channel();
        let entry = self.clients.entry(client).or_default();
        if entry.waiting.is_empty() {
            self.order.push_back(client);
        }
        entry.waiting.push_back(Waiting { host: host.clone(), place });
        Ok(mine)
    }

    /// Hands out what is free, one to each client in turn. Returns the places of those who are no longer there.
    fn serve(&mut self, rules: &ColdRules, state: &Arc<Mutex<Self>>) -> Vec<Place> {
        let mut unwanted = Vec::new();
        let mut in_vain = 0;
        while in_vain < self.order.len() {
            let Some(client) = self.order.pop_front() else { break };
            let next = self.next(rules, client);
            if self.clients.get(&client).is_some_and(|client| !client.waiting.is_empty()) {
                self.order.push_back(client);
            }
            match next {
                None => in_vain += 1,
                Some(Waiting { host, place }) => {
                    in_vain = 0;
                    self.begin(rules, client, &host);
                    let taken = Place { state: Arc::clone(state), rules: *rules, client, host };
                    unwanted.extend(place.send(taken).err());
                }
            }
        }
        unwanted
    }

    /// Takes the first of a client's waiting whose upstream has a place out of its queue.
    fn next(&mut self, rules: &ColdRules, client: IpAddr) -> Option<Waiting> {
        let waiting = &self.clients.get(&client)?.waiting;
        let at = waiting.iter().position(|waiting| self.is_free(rules, client, &waiting.host))?;
        self.clients.get_mut(&client)?.waiting.remove(at)
    }

    fn forget_those_who_left(&mut self) {
        for client in self.clients.values_mut() {
            client.waiting.retain(|waiting| !waiting.place.is_closed());
        }
        self.clients.retain(|_, client| client.running > 0 || !client.waiting.is_empty());
        let clients = &self.clients;
        self.order.retain(|client| clients.get(client).is_some_and(|client| !client.waiting.is_empty()));
    }

    fn forget_if_idle(&mut self, client: IpAddr) {
        if self.clients.get(&client).is_some_and(|client| client.running == 0 && client.waiting.is_empty()) {
            self.clients.remove(&client);
        }
    }
}

/// Locks; what a panicking holder left is still consistent, since no step between two changes can panic.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::future::{BoxFuture, FutureExt as _};

    use super::*;

    const RULES: ColdRules = ColdRules {
        of_client: 3,
        of_upstream: 4,
        own: 1,
        shared: 5,
        waiting_of_one: 5,
        waiting: 8,
        queue: Duration::from_secs(10),
        pulls_per_minute: 0,
        transfers_of_client: 2,
    };

    fn client(number: usize) -> IpAddr {
        format!("192.0.2.{number}").parse().unwrap()
    }

    fn host(number: usize) -> Host {
        format!("registry-{number}.test").parse().unwrap()
    }

    /// A place that must be free.
    fn now(gate: &Gate, of: usize, at: usize) -> Place {
        gate.take(client(of), &host(at)).now_or_never().expect("it is free").unwrap()
    }

    type Wait<'a> = BoxFuture<'a, Result<Place, Busy>>;

    fn waiting(gate: &Gate, of: usize, at: usize) -> Wait<'_> {
        let mut take = async move { gate.take(client(of), &host(at)).await }.boxed();
        assert!((&mut take).now_or_never().is_none(), "it has to wait");
        take
    }

    fn refused(gate: &Gate, of: usize, at: usize) -> bool {
        gate.take(client(of), &host(at)).now_or_never().is_some_and(|taken| taken.is_err())
    }

    fn assert_idle(gate: &Gate, what: &str) {
        let mut state = lock(&gate.state);
        state.forget_those_who_left();
        let at_upstreams: usize = state.upstreams.values().sum();
        assert_eq!((state.clients.len(), state.order.len(), at_upstreams, state.shared), (0, 0, 0, 0), "{what}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_has_its_part_and_not_one_more_and_others_have_theirs() {
        let gate = Gate::new(RULES);
        let mine: Vec<Place> = (0..3).map(|_| now(&gate, 1, 0)).collect();
        let fourth = waiting(&gate, 1, 1);
        let other = now(&gate, 2, 0);
        drop(mine);
        drop((fourth.await.unwrap(), other));
        assert_idle(&gate, "all have left");
    }

    #[tokio::test(start_paused = true)]
    async fn r_08_an_upstream_has_its_part_and_each_has_some_of_its_own() {
        let gate = Gate::new(RULES);
        let mut slow: Vec<Place> = (0..4).map(|of| now(&gate, of, 0)).collect();
        let fifth = waiting(&gate, 5, 0);
        // Three of them are shared ones; the second upstream takes the other two.
        slow.extend((0..3).map(|of| now(&gate, of, 1)));
        let more = waiting(&gate, 6, 1);
        let own: Vec<Place> = (2..300).map(|at| now(&gate, at % 100 + 10, at)).collect();
        let second = waiting(&gate, 150, 2);
        drop(slow);
        for wait in [fifth, more, second] {
            drop(wait.await.unwrap());
        }
        drop(own);
        assert_idle(&gate, "all have left");
    }

    #[tokio::test(start_paused = true)]
    async fn r_03_clients_that_wait_are_served_in_turn_however_long_their_queues_are() {
        let gate = Gate::new(ColdRules { own: 0, shared: 1, waiting_of_one: 7, ..RULES });
        let running = now(&gate, 1, 0);
        let order = [1, 1, 1, 1, 2, 3, 2];
        let mut left: Vec<_> = order.iter().map(|of| (*of, waiting(&gate, *of, 0))).collect();
        drop(running);
        let mut served = Vec::new();
        while !left.is_empty() {
            let index = left.iter_mut().position(|(_, wait)| match wait.now_or_never() {
                Some(place) => {
                    drop(place.unwrap());
                    true
                }
                None => false,
            });
            served.push(left.remove(index.expect("somebody is served")).0);
        }
        assert_eq!(served, [1, 2, 3, 1, 2, 1, 1]);
        assert_idle(&gate, "all have left");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_full_upstream_holds_up_nothing_else_of_its_client() {
        let gate = Gate::new(RULES);
        let full: Vec<Place> = (1..5).map(|of| now(&gate, of, 0)).collect();
        let more: Vec<Place> = (0..2).map(|_| now(&gate, 9, 1)).collect();
        let last = now(&gate, 9, 2);
        let (stuck, free) = (waiting(&gate, 9, 0), waiting(&gate, 9, 1));
        drop(last);
        drop(free.await.unwrap());
        drop((full, more));
        drop(stuck.await.unwrap());
        assert_idle(&gate, "all have left");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_and_queues_are_bounded_for_each_and_in_all() {
        let gate = Gate::new(RULES);
        let running: Vec<Place> = (0..4).map(|of| now(&gate, of + 1, 0)).collect();
        let began = tokio::time::Instant::now();
        let mut queue: Vec<Wait<'_>> = (0..3).map(|_| waiting(&gate, 1, 0)).collect();
        queue.extend((0..2).map(|_| waiting(&gate, 2, 0)));
        assert!(refused(&gate, 3, 0), "five wait for that upstream");
        let others: Vec<Place> = (0..3).map(|_| now(&gate, 7, 1)).collect();
        queue.extend((0..3).map(|_| waiting(&gate, 7, 1)));
        assert!(refused(&gate, 7, 2), "eight wait in all");
        for wait in queue {
            assert_eq!(wait.await.unwrap_err(), Busy);
        }
        assert_eq!(began.elapsed(), RULES.queue);
        drop((running, others));
        assert_idle(&gate, "all have left");
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_takes_no_place_along_whenever_that_is() {
        let gate = Gate::new(RULES);
        let running: Vec<Place> = (0..3).map(|_| now(&gate, 1, 0)).collect();
        let (left_early, left_late, stays) = (waiting(&gate, 1, 0), waiting(&gate, 1, 0), waiting(&gate, 1, 0));
        drop(left_early);
        drop(running);
        // It was given a place, and never looked.
        drop(left_late);
        drop(stays.await.unwrap());
        assert_idle(&gate, "all have left");
    }

    /// What may never happen, whatever is taken, left and given back in whichever order.
    #[tokio::test(start_paused = true)]
    async fn no_order_of_events_passes_a_bound_or_leaks_a_place() {
        for seed in 0..200_u64 {
            let gate = Gate::new(RULES);
            let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            let mut below = |bound: usize| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                usize::try_from(random % u64::try_from(bound).unwrap()).unwrap()
            };
            let (mut running, mut queue): (Vec<Place>, Vec<Wait<'_>>) = (Vec::new(), Vec::new());
            for _ in 0..200 {
                match below(4) {
                    0 | 1 => {
                        let (of, at) = (client(below(4)), host(below(4)));
                        let gate = &gate;
                        queue.push(async move { gate.take(of, &at).await }.boxed());
                    }
                    2 if !running.is_empty() => drop(running.swap_remove(below(running.len()))),
                    _ if !queue.is_empty() => drop(queue.swap_remove(below(queue.len()))),
                    _ => {}
                }
                for index in (0..queue.len()).rev() {
                    if let Some(ended) = (&mut queue[index]).now_or_never() {
                        drop(queue.swap_remove(index));
                        running.extend(ended.ok());
                    }
                }
                let state = lock(&gate.state);
                let beyond: usize = state.upstreams.values().map(|at| at.saturating_sub(RULES.own)).sum();
                assert_eq!(state.shared, beyond, "seed {seed}");
                assert!(state.shared <= RULES.shared, "seed {seed}");
                assert!(state.upstreams.values().all(|at| *at <= RULES.of_upstream), "seed {seed}");
                assert!(state.clients.values().all(|client| client.running <= RULES.of_client), "seed {seed}");
                let waiting: usize = state.clients.values().map(|client| client.waiting.len()).sum();
                assert!(waiting <= RULES.waiting, "seed {seed}");
            }
            drop(running);
            for wait in queue {
                drop(wait.await);
            }
            assert_idle(&gate, &format!("seed {seed}"));
        }
    }
}
