//! Whose transfer is next: a bounded number for each upstream and in all, and a queue for each upstream.
//!
//! Each upstream has a few turns of its own, which nobody else can take; beyond them all share. Queues are served in
//! turn, one transfer each, so that neither a slow upstream nor one with a long queue delays the others.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::limits::{
    TRANSFER_QUEUE, TRANSFERS_MAX, TRANSFERS_OWN, TRANSFERS_PACED_MAX, TRANSFERS_WAITING_MAX, UPSTREAM_BLOB_CONCURRENCY,
};
use crate::oci::Host;
use crate::telemetry::Telemetry;

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

/// What a turn is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// A fill, which goes as fast as upstream sends.
    Fill,
    /// A transfer for one client, which may read slowly.
    Client,
}

/// No turn could be had: too many wait already, or the wait was too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Busy;

/// The turns of all upstreams; clones share them.
#[derive(Debug, Clone)]
pub(super) struct Turns {
    state: Arc<Mutex<State>>,
    rules: TurnRules,
    telemetry: Telemetry,
}

/// The right to have one transfer under way; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    state: Arc<Mutex<State>>,
    rules: TurnRules,
    host: Host,
    pace: Pace,
}

impl Turns {
    pub(super) fn new(rules: TurnRules, telemetry: Telemetry) -> Self {
        Self { state: Arc::default(), rules, telemetry }
    }

    /// Waits for a turn at `host`. Cancel safe: who leaves the queue takes nothing along.
    ///
    /// # Errors
    /// [`Busy`] when the queue is full, or the wait took longer than it may.
    pub(super) async fn take(&self, host: &Host, pace: Pace) -> Result<Turn, Busy> {
        let mine = {
            let mut state = lock(&self.state);
            let lane = state.lanes.entry(host.clone()).or_default();
            let queue = lane.queue(pace);
            // Those who left make room for others.
            queue.retain(|waiting| !waiting.turn.is_closed());
            if queue.is_empty() && self.is_free(&state, host, pace) {
                state.begin(&self.rules, host, pace);
                return Ok(self.turn(host, pace));
            }
            state.enqueue(&self.rules, host, pace)?
        };
        let _queued = self.telemetry.transfer_queued(host);
        match tokio::time::timeout(self.rules.queue, mine).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(Busy),
        }
    }

    /// A turn at `host` if there is one now and nobody waits for it.
    pub(super) fn try_take(&self, host: &Host, pace: Pace) -> Option<Turn> {
        let mut state = lock(&self.state);
        let nobody_waits = state.lanes.get(host).is_none_or(|lane| lane.waiting.iter().all(VecDeque::is_empty));
        if !nobody_waits || !self.is_free(&state, host, pace) {
            return None;
        }
        state.begin(&self.rules, host, pace);
        Some(self.turn(host, pace))
    }

    fn is_free(&self, state: &State, host: &Host, pace: Pace) -> bool {
        state.lanes.get(host).is_none_or(|lane| lane.is_free(&self.rules, pace, state.shared))
    }

    fn turn(&self, host: &Host, pace: Pace) -> Turn {
        Turn { state: Arc::clone(&self.state), rules: self.rules, host: host.clone(), pace }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let unwanted = {
            let mut state = lock(&self.state);
            state.end(&self.rules, &self.host, self.pace);
            state.serve(&self.rules, &self.state)
        };
        // Those of whoever left at this very moment: each comes here again, so not under the lock.
        drop(unwanted);
    }
}

#[derive(Debug, Default)]
struct State {
    lanes: HashMap<Host, Lane>,
    /// Upstreams for which somebody waits, the next to be served first.
    order: VecDeque<Host>,
    /// Turns taken beyond the upstreams' own.
    shared: usize,
    /// Arrivals so far.
    arrived: u64,
}

/// The transfers of one upstream. There are as many as configured upstreams.
#[derive(Debug, Default)]
struct Lane {
    running: usize,
    paced: usize,
    /// For fills, and for transfers at a client's pace, which wait for less.
    waiting: [VecDeque<Waiting>; 2],
}

#[derive(Debug)]
struct Waiting {
    arrival: u64,
    turn: oneshot::Sender<Turn>,
}

impl Lane {
    fn queue(&mut self, pace: Pace) -> &mut VecDeque<Waiting> {
        let [fills, paced] = &mut self.waiting;
        match pace {
            Pace::Fill => fills,
            Pace::Client => paced,
        }
    }

    fn is_free(&self, rules: &TurnRules, pace: Pace, shared: usize) -> bool {
        self.running < rules.of_one
            && (pace == Pace::Fill || self.paced < rules.paced)
            && (self.running < rules.own || shared < rules.shared)
    }

    /// Takes the one out of its queue that came first of those who can have a turn now, and those who left before it.
    fn next(&mut self, rules: &TurnRules, shared: usize) -> Option<(Pace, Waiting)> {
        for queue in &mut self.waiting {
            while queue.front().is_some_and(|waiting| waiting.turn.is_closed()) {
                queue.pop_front();
            }
        }
        let mut first: Option<(u64, Pace)> = None;
        for pace in [Pace::Fill, Pace::Client] {
            let free = self.is_free(rules, pace, shared);
            let arrival = self.queue(pace).front().map(|waiting| waiting.arrival).filter(|_| free);
            if let Some(arrival) = arrival
                && first.is_none_or(|(other, _)| arrival < other)
            {
                first = Some((arrival, pace));
            }
        }
        let (_, pace) = first?;
        self.queue(pace).pop_front().map(|waiting| (pace, waiting))
    }

    fn has_waiting(&self) -> bool {
        self.waiting.iter().any(|queue| !queue.is_empty())
    }
}

impl State {
    fn begin(&mut self, rules: &TurnRules, host: &Host, pace: Pace) {
        let lane = self.lanes.entry(host.clone()).or_default();
        self.shared += usize::from(lane.running >= rules.own);
        lane.running += 1;
        lane.paced += usize::from(pace == Pace::Client);
    }

    fn end(&mut self, rules: &TurnRules, host: &Host, pace: Pace) {
        let lane = self.lanes.entry(host.clone()).or_default();
        self.shared = self.shared.saturating_sub(usize::from(lane.running > rules.own));
        lane.running = lane.running.saturating_sub(1);
        lane.paced = lane.paced.saturating_sub(usize::from(pace == Pace::Client));
    }

    fn enqueue(&mut self, rules: &TurnRules, host: &Host, pace: Pace) -> Result<oneshot::Receiver<Turn>, Busy> {
        let arrival = self.arrived;
        let lane = self.lanes.entry(host.clone()).or_default();
        let waited_for = lane.has_waiting();
        let queue = lane.queue(pace);
        if queue.len() >= rules.waiting {
            return Err(Busy);
        }
        let (turn, mine) = oneshot::channel();
        queue.push_back(Waiting { arrival, turn });
        self.arrived = self.arrived.wrapping_add(1);
        if !waited_for && !self.order.contains(host) {
            self.order.push_back(host.clone());
        }
        Ok(mine)
    }

    /// Hands out what is free, one to each upstream in turn. Returns the turns of those who are no longer there.
    fn serve(&mut self, rules: &TurnRules, state: &Arc<Mutex<Self>>) -> Vec<Turn> {
        let mut unwanted = Vec::new();
        let mut in_vain = 0;
        while in_vain < self.order.len() {
            let Some(host) = self.order.pop_front() else { break };
            let shared = self.shared;
            let lane = self.lanes.entry(host.clone()).or_default();
            let next = lane.next(rules, shared);
            if lane.has_waiting() {
                self.order.push_back(host.clone());
            }
            match next {
                None => in_vain += 1,
                Some((pace, waiting)) => {
                    in_vain = 0;
                    self.begin(rules, &host, pace);
                    let turn = Turn { state: Arc::clone(state), rules: *rules, host, pace };
                    unwanted.extend(waiting.turn.send(turn).err());
                }
            }
        }
        unwanted
    }
}

/// Locks; what a panicking holder left is still consistent, since no step between two changes can panic.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::future::{BoxFuture, FutureExt as _};

    use super::*;

    const RULES: TurnRules =
        TurnRules { of_one: 4, paced: 2, own: 1, shared: 6, waiting: 5, queue: Duration::from_secs(10) };

    fn turns(rules: TurnRules) -> Turns {
        Turns::new(rules, Telemetry::default())
    }

    fn host(number: usize) -> Host {
        format!("registry-{number}.test").parse().unwrap()
    }

    /// Takes a turn that must be there.
    fn now(turns: &Turns, number: usize, pace: Pace) -> Option<Turn> {
        turns.take(&host(number), pace).now_or_never().map(Result::unwrap)
    }

    fn waiting(turns: &Turns, number: usize, pace: Pace) -> BoxFuture<'static, Result<Turn, Busy>> {
        let (turns, host) = (turns.clone(), host(number));
        let mut take = async move { turns.take(&host, pace).await }.boxed();
        assert!((&mut take).now_or_never().is_none(), "it has to wait");
        take
    }

    fn idle(turns: &Turns) -> bool {
        let state = lock(&turns.state);
        state.shared == 0
            && state.lanes.values().all(|lane| (lane.running, lane.paced) == (0, 0))
            && state.lanes.values().all(|lane| lane.waiting.iter().flatten().all(|waiting| waiting.turn.is_closed()))
    }

    #[tokio::test(start_paused = true)]
    async fn an_upstream_has_so_many_transfers_and_not_one_more() {
        let turns = turns(RULES);
        let running: Vec<Turn> = (0..4).map(|_| now(&turns, 0, Pace::Fill).unwrap()).collect();
        let fifth = waiting(&turns, 0, Pace::Fill);
        drop(running);
        drop(fifth.await.unwrap());
        assert!(idle(&turns));
    }

    #[tokio::test(start_paused = true)]
    async fn all_together_have_so_many_but_each_has_its_own() {
        let turns = turns(RULES);
        // Two upstreams take all that is shared: each its own turn and three more.
        let greedy: Vec<Turn> = (0..8).map(|index| now(&turns, index % 2, Pace::Fill).unwrap()).collect();
        let patient: Vec<Turn> = (2..100).map(|number| now(&turns, number, Pace::Fill).unwrap()).collect();
        let second = waiting(&turns, 50, Pace::Fill);
        drop(greedy);
        drop(second.await.unwrap());
        drop(patient);
        assert!(idle(&turns));
    }

    #[tokio::test(start_paused = true)]
    async fn the_queues_of_all_upstreams_are_served_in_turn() {
        let turns = turns(TurnRules { own: 0, shared: 1, ..RULES });
        let running = now(&turns, 0, Pace::Fill).unwrap();
        // The first upstream's queue is long before the others come.
        let order = [0, 0, 0, 0, 1, 2, 1];
        let queue: Vec<_> = order.iter().map(|number| (*number, waiting(&turns, *number, Pace::Fill))).collect();
        drop(running);
        let (served, mut left) = (Mutex::new(Vec::new()), queue);
        while !left.is_empty() {
            for index in (0..left.len()).rev() {
                if let Some(turn) = (&mut left[index].1).now_or_never() {
                    served.lock().unwrap().push(left[index].0);
                    drop(left.remove(index));
                    drop(turn.unwrap());
                    break;
                }
            }
        }
        assert_eq!(served.into_inner().unwrap(), [0, 1, 2, 0, 1, 0, 0]);
        assert!(idle(&turns));
    }

    #[tokio::test(start_paused = true)]
    async fn clients_pace_holds_up_no_fill() {
        let turns = turns(RULES);
        let paced: Vec<Turn> = (0..2).map(|_| now(&turns, 0, Pace::Client).unwrap()).collect();
        let third = waiting(&turns, 0, Pace::Client);
        assert!(turns.try_take(&host(0), Pace::Client).is_none());
        let fills: Vec<Turn> = (0..2).map(|_| now(&turns, 0, Pace::Fill).unwrap()).collect();
        drop(fills);
        drop(paced);
        drop(third.await.unwrap());
        assert!(turns.try_take(&host(0), Pace::Client).is_some());
        assert!(idle(&turns));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_and_so_does_a_queue() {
        let turns = turns(RULES);
        let running: Vec<Turn> = (0..4).map(|_| now(&turns, 0, Pace::Fill).unwrap()).collect();
        let began = tokio::time::Instant::now();
        let queue: Vec<_> = (0..5).map(|_| waiting(&turns, 0, Pace::Fill)).collect();
        let one_more = turns.take(&host(0), Pace::Fill).now_or_never().unwrap();
        assert_eq!(one_more.unwrap_err(), Busy, "the queue is full");
        assert!(now(&turns, 1, Pace::Fill).is_some(), "another upstream's is not");
        for wait in queue {
            assert_eq!(wait.await.unwrap_err(), Busy);
        }
        assert_eq!(began.elapsed(), RULES.queue);
        let again = waiting(&turns, 0, Pace::Fill);
        drop(running);
        drop(again.await.unwrap());
        assert!(idle(&turns));
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_takes_no_turn_along_whenever_that_is() {
        let turns = turns(RULES);
        let running: Vec<Turn> = (0..4).map(|_| now(&turns, 0, Pace::Fill).unwrap()).collect();
        let (left_early, left_late, stays) =
            (waiting(&turns, 0, Pace::Fill), waiting(&turns, 0, Pace::Fill), waiting(&turns, 0, Pace::Fill));
        drop(left_early);
        drop(running);
        // It was given a turn, and never looked.
        drop(left_late);
        drop(stays.await.unwrap());
        assert!(idle(&turns));
    }

    #[tokio::test(start_paused = true)]
    async fn very_many_may_leave_at_once() {
        let turns = turns(TurnRules { of_one: 1, own: 1, waiting: 100_000, ..RULES });
        let running = now(&turns, 0, Pace::Fill).unwrap();
        let leaving: Vec<_> =
            (0..100_000).map(|_| lock(&turns.state).enqueue(&turns.rules, &host(0), Pace::Fill).unwrap()).collect();
        drop(leaving);
        drop(running);
        assert!(idle(&turns));
    }

    /// What may never happen, whatever is taken, left and given back in whichever order.
    #[tokio::test(start_paused = true)]
    async fn no_order_of_events_passes_a_bound_or_leaks_a_turn() {
        for seed in 0..200_u64 {
            let turns = turns(RULES);
            let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            let mut below = |bound: usize| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                usize::try_from(random >> 1).unwrap() % bound
            };
            let (mut running, mut queue) = (Vec::new(), Vec::new());
            for _ in 0..200 {
                match below(4) {
                    0 | 1 => {
                        let (turns, host) = (turns.clone(), host(below(4)));
                        let pace = if below(3) == 0 { Pace::Client } else { Pace::Fill };
                        queue.push(async move { turns.take(&host, pace).await }.boxed());
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
                let state = lock(&turns.state);
                let beyond: usize = state.lanes.values().map(|lane| lane.running.saturating_sub(RULES.own)).sum();
                assert_eq!(state.shared, beyond, "seed {seed}");
                assert!(state.shared <= RULES.shared, "seed {seed}");
                for lane in state.lanes.values() {
                    assert!(lane.running <= RULES.of_one && lane.paced <= RULES.paced, "seed {seed}");
                    assert!(lane.waiting.iter().all(|queue| queue.len() <= RULES.waiting), "seed {seed}");
                }
            }
            drop(running);
            for wait in queue {
                drop(wait.await);
            }
            assert!(idle(&turns), "seed {seed}");
        }
    }
}
