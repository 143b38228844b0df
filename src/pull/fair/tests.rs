use futures_util::future::{BoxFuture, FutureExt as _};

use super::*;

const RULES: Rules = Rules {
    of_asker: 3,
    of_upstream: 4,
    paced: 2,
    own: 1,
    shared: 5,
    waiting_of_asker: 5,
    waiting_at_upstream: 6,
    waiting: 8,
    patience: Duration::from_secs(10),
};

/// As transfers wait: each upstream for itself.
const TRANSFERS: Rules =
    Rules { of_asker: usize::MAX, waiting_at_upstream: usize::MAX, waiting: usize::MAX, shared: 6, ..RULES };

type Wait = BoxFuture<'static, Result<Place, Busy>>;

fn client(number: usize) -> Asker {
    Asker::Client(format!("192.0.2.{number}").parse().unwrap())
}

fn host(number: usize) -> Host {
    format!("registry-{number}.test").parse().unwrap()
}

fn itself(number: usize) -> Asker {
    Asker::Upstream(host(number))
}

fn take(queue: &FairQueue, asker: Asker, at: usize, pace: Pace) -> Wait {
    let queue = queue.clone();
    async move { queue.take(asker, &host(at), pace, || ()).await }.boxed()
}

/// A place that must be free.
#[track_caller]
fn now(queue: &FairQueue, asker: Asker, at: usize) -> Place {
    take(queue, asker, at, Pace::Full).now_or_never().expect("it is free").unwrap()
}

#[track_caller]
fn waiting(queue: &FairQueue, asker: Asker, at: usize, pace: Pace) -> Wait {
    let mut take = take(queue, asker, at, pace);
    assert!((&mut take).now_or_never().is_none(), "it has to wait");
    take
}

fn is_refused(queue: &FairQueue, asker: Asker, at: usize, pace: Pace) -> bool {
    matches!(take(queue, asker, at, pace).now_or_never(), Some(Err(Busy)))
}

/// Serves all who wait, and says in which order.
fn served(mut queue: Vec<(usize, Wait)>) -> Vec<usize> {
    let mut order = Vec::new();
    while !queue.is_empty() {
        let next = (0..queue.len()).find_map(|index| Some((index, (&mut queue[index].1).now_or_never()?)));
        let (index, place) = next.expect("somebody is served");
        order.push(queue.remove(index).0);
        drop(place.unwrap());
    }
    order
}

#[track_caller]
fn assert_idle(queue: &FairQueue, what: &str) {
    let mut state = queue.lock();
    state.forget_those_who_left();
    assert!(state.askers.is_empty() && state.order.is_empty() && state.shared == 0, "{what}: {state:?}");
    assert!(state.upstreams.values().all(|at| (at.all, at.paced) == (0, 0)), "{what}: {state:?}");
}

#[tokio::test(start_paused = true)]
async fn an_asker_has_so_many_places_wherever_they_are_and_not_one_more() {
    let queue = FairQueue::new(RULES);
    let running: Vec<Place> = (0..3).map(|at| now(&queue, client(1), at)).collect();
    let fourth = waiting(&queue, client(1), 3, Pace::Full);
    drop(now(&queue, client(2), 3));
    drop(running);
    drop(fourth.await.unwrap());
    assert_idle(&queue, "all have left");
}

#[tokio::test(start_paused = true)]
async fn an_upstream_has_so_many_places_whoever_has_them_and_not_one_more() {
    let queue = FairQueue::new(RULES);
    let running: Vec<Place> = (0..4).map(|number| now(&queue, client(number), 0)).collect();
    let fifth = waiting(&queue, client(5), 0, Pace::Full);
    drop(now(&queue, client(5), 1));
    drop(running);
    drop(fifth.await.unwrap());
    assert_idle(&queue, "all have left");
}

#[tokio::test(start_paused = true)]
async fn r_08_an_upstream_has_its_part_and_each_has_some_of_its_own() {
    let queue = FairQueue::new(RULES);
    // Two upstreams take all that is shared: each its own place, and five more.
    let greedy: Vec<Place> = (0..7).map(|number| now(&queue, client(number), number % 2)).collect();
    let patient: Vec<Place> = (2..20).map(|at| now(&queue, client(100 + at), at)).collect();
    let second = waiting(&queue, client(99), 10, Pace::Full);
    drop(greedy);
    drop(second.await.unwrap());
    drop(patient);
    assert_idle(&queue, "all have left");
}

#[tokio::test(start_paused = true)]
async fn r_03_clients_that_wait_are_served_in_turn_however_long_their_queues_are() {
    let queue = FairQueue::new(Rules { of_asker: 1, of_upstream: 1, ..RULES });
    let running = now(&queue, client(9), 0);
    let order = [1, 1, 1, 1, 2, 3];
    let wait = order.map(|number| (number, waiting(&queue, client(number), 0, Pace::Full)));
    drop(running);
    assert_eq!(served(wait.into()), [1, 2, 3, 1, 1, 1]);
    assert_idle(&queue, "all have left");
}

#[tokio::test(start_paused = true)]
async fn upstreams_are_served_in_turn_where_they_are_who_asks() {
    let queue = FairQueue::new(Rules { own: 0, shared: 1, ..TRANSFERS });
    let running = now(&queue, itself(0), 0);
    // The first one's queue is long before the others come.
    let order = [0, 0, 0, 0, 1, 2, 1];
    let wait = order.map(|number| (number, waiting(&queue, itself(number), number, Pace::Full)));
    drop(running);
    assert_eq!(served(wait.into()), [0, 1, 2, 0, 1, 0, 0]);
    assert_idle(&queue, "all have left");
}

/// A client behind which many people sit must not wait at one upstream because it waits at another.
#[tokio::test(start_paused = true)]
async fn who_waits_at_a_slow_upstream_is_served_at_once_at_another() {
    let queue = FairQueue::new(RULES);
    let slow: Vec<Place> = (0..4).map(|number| now(&queue, client(number), 0)).collect();
    let at_slow = waiting(&queue, client(7), 0, Pace::Full);
    let elsewhere = now(&queue, client(7), 1);
    // And none passes those of its own kind.
    let behind = waiting(&queue, client(7), 0, Pace::Full);
    drop(slow);
    drop(at_slow.await.unwrap());
    drop(behind.await.unwrap());
    drop(elsewhere);
    assert_idle(&queue, "all have left");
}

#[tokio::test(start_paused = true)]
async fn who_waits_at_a_slow_upstream_is_in_nobodys_way_when_places_are_handed_out() {
    let queue = FairQueue::new(RULES);
    let slow: Vec<Place> = (0..4).map(|number| now(&queue, client(number), 0)).collect();
    let own: Vec<Place> = (1..4).map(|at| now(&queue, client(7), at)).collect();
    let at_slow = waiting(&queue, client(7), 0, Pace::Full);
    let elsewhere = waiting(&queue, client(7), 1, Pace::Full);
    drop(own);
    drop(elsewhere.now_or_never().expect("its turn has come").unwrap());
    drop(slow);
    drop(at_slow.await.unwrap());
    assert_idle(&queue, "all have left");
}

#[tokio::test(start_paused = true)]
async fn what_goes_at_a_clients_pace_is_bounded_by_itself_and_holds_up_nothing_else() {
    let queue = FairQueue::new(TRANSFERS);
    let paced: Vec<Place> =
        (0..2).map(|_| take(&queue, itself(0), 0, Pace::Client).now_or_never().expect("it is free").unwrap()).collect();
    let third = waiting(&queue, itself(0), 0, Pace::Client);
    assert!(queue.try_take(itself(0), &host(0), Pace::Client).is_none());
    let fills: Vec<Place> = (0..2).map(|_| now(&queue, itself(0), 0)).collect();
    drop(fills);
    drop(paced);
    drop(third.await.unwrap());
    assert!(queue.try_take(itself(0), &host(0), Pace::Client).is_some());
    assert_idle(&queue, "all have left");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_passed_who_waits_at_the_same_upstream() {
    let queue = FairQueue::new(TRANSFERS);
    let running: Vec<Place> = (0..4).map(|_| now(&queue, itself(0), 0)).collect();
    let first = waiting(&queue, itself(0), 0, Pace::Full);
    assert!(queue.try_take(itself(0), &host(0), Pace::Full).is_none());
    assert!(queue.try_take(itself(1), &host(1), Pace::Full).is_some());
    drop(running);
    assert!(queue.try_take(itself(0), &host(0), Pace::Full).is_some(), "its turn was handed on");
    drop(first.await.unwrap());
    assert_idle(&queue, "all have left");
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_and_every_queue_is_bounded_on_both_sides() {
    let queue = FairQueue::new(RULES);
    let mut running: Vec<Place> = (0..3).map(|_| now(&queue, client(1), 0)).collect();
    running.push(now(&queue, client(2), 0));
    let began = tokio::time::Instant::now();
    let mut queued: Vec<Wait> = (0..5).map(|_| waiting(&queue, client(1), 0, Pace::Full)).collect();
    assert!(is_refused(&queue, client(1), 1, Pace::Full), "five of one asker wait");
    queued.push(waiting(&queue, client(2), 0, Pace::Full));
    assert!(is_refused(&queue, client(3), 0, Pace::Full), "six wait for that upstream");
    let others: Vec<Place> = (0..3).map(|_| now(&queue, client(7), 1)).collect();
    queued.extend((0..2).map(|_| waiting(&queue, client(7), 1, Pace::Full)));
    assert!(is_refused(&queue, client(7), 2, Pace::Full), "eight wait in all");
    for wait in queued {
        assert_eq!(wait.await.unwrap_err(), Busy);
    }
    assert_eq!(began.elapsed(), RULES.patience);
    let again = waiting(&queue, client(1), 0, Pace::Full);
    drop((running, others));
    drop(again.await.unwrap());
    assert_idle(&queue, "all have left");
}

#[tokio::test(start_paused = true)]
async fn each_pace_has_a_queue_of_its_own_length() {
    let queue = FairQueue::new(TRANSFERS);
    let running: Vec<Place> = (0..4).map(|_| now(&queue, itself(0), 0)).collect();
    let fills: Vec<Wait> = (0..5).map(|_| waiting(&queue, itself(0), 0, Pace::Full)).collect();
    assert!(is_refused(&queue, itself(0), 0, Pace::Full));
    let paced: Vec<Wait> = (0..5).map(|_| waiting(&queue, itself(0), 0, Pace::Client)).collect();
    assert!(is_refused(&queue, itself(0), 0, Pace::Client));
    drop(now(&queue, itself(1), 1));
    drop((running, fills, paced));
    assert_idle(&queue, "all have left");
}

#[tokio::test(start_paused = true)]
async fn who_leaves_takes_no_place_along_whenever_that_is() {
    let queue = FairQueue::new(RULES);
    let running: Vec<Place> = (0..3).map(|_| now(&queue, client(1), 0)).collect();
    let (left_early, left_late, stays) = (
        waiting(&queue, client(1), 0, Pace::Full),
        waiting(&queue, client(1), 0, Pace::Full),
        waiting(&queue, client(1), 0, Pace::Full),
    );
    drop(left_early);
    drop(running);
    // It was given a place, and never looked.
    drop(left_late);
    drop(stays.await.unwrap());
    assert_idle(&queue, "all have left");
}

#[tokio::test(start_paused = true)]
async fn who_has_left_stands_in_nobodys_way_when_a_place_is_given_back() {
    let queue = FairQueue::new(Rules { own: 0, shared: 1, ..TRANSFERS });
    let running = now(&queue, itself(0), 0);
    let left = waiting(&queue, itself(1), 1, Pace::Full);
    let stays = waiting(&queue, itself(2), 2, Pace::Full);
    drop(left);
    drop(running);
    drop(stays.now_or_never().expect("its turn has come").unwrap());
    assert_idle(&queue, "all have left");
}

#[tokio::test(start_paused = true)]
async fn very_many_may_leave_at_once() {
    let queue = FairQueue::new(Rules { of_upstream: 1, waiting_of_asker: 100_000, ..TRANSFERS });
    let running = now(&queue, itself(0), 0);
    let ticket = Ticket { asker: itself(0), host: host(0), pace: Pace::Full };
    let (place, mine): (Vec<_>, Vec<_>) = (0..100_000).map(|_| oneshot::channel()).unzip();
    let waiting = place.into_iter().map(|place| Waiting { ticket: ticket.clone(), place });
    {
        let mut state = queue.lock();
        state.askers.get_mut(&itself(0)).unwrap().waiting.extend(waiting);
        state.order.push_back(itself(0));
    }
    drop(mine);
    drop(running);
    assert_idle(&queue, "all have left");
}

/// What may never happen, whatever is taken, left and given back in whichever order.
#[tokio::test(start_paused = true)]
async fn no_order_of_events_passes_a_bound_leaks_a_place_or_leaves_one_idle() {
    for (seed, rules) in (0..150_u64).flat_map(|seed| [(seed, RULES), (seed, TRANSFERS)]) {
        let queue = FairQueue::new(rules);
        let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut below = |bound: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random >> 1).unwrap() % bound
        };
        let (mut running, mut queued): (Vec<Place>, Vec<Wait>) = (Vec::new(), Vec::new());
        for _ in 0..200 {
            match below(4) {
                0 | 1 => {
                    let at = below(4);
                    let asker = if rules.of_asker == usize::MAX { itself(at) } else { client(below(4)) };
                    let pace = if below(3) == 0 { Pace::Client } else { Pace::Full };
                    queued.push(take(&queue, asker, at, pace));
                }
                2 if !running.is_empty() => drop(running.swap_remove(below(running.len()))),
                _ if !queued.is_empty() => drop(queued.swap_remove(below(queued.len()))),
                _ => {}
            }
            for index in (0..queued.len()).rev() {
                if let Some(ended) = (&mut queued[index]).now_or_never() {
                    drop(queued.swap_remove(index));
                    running.extend(ended.ok());
                }
            }
            let state = queue.lock();
            let beyond: usize = state.upstreams.values().map(|at| at.all.saturating_sub(rules.own)).sum();
            assert!(state.shared == beyond && state.shared <= rules.shared, "seed {seed}: {state:?}");
            for at in state.upstreams.values() {
                assert!(at.all <= rules.of_upstream && at.paced <= rules.paced, "seed {seed}: {state:?}");
            }
            assert!(state.askers.values().all(|line| line.running <= rules.of_asker), "seed {seed}: {state:?}");
            let idle = |waiting: &Waiting| !waiting.place.is_closed() && state.is_free(&rules, &waiting.ticket);
            assert!(!state.waiting().any(idle), "seed {seed}: who waits could go on: {state:?}");
            assert!(state.waiting().count() <= rules.waiting, "seed {seed}");
        }
        drop(running);
        for wait in queued {
            drop(wait.await);
        }
        assert_idle(&queue, &format!("seed {seed}"));
    }
}
