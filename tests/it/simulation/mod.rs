//! Simulation: the real mirror, over TCP, between random clients and a hostile upstream, compared with a model after each
//! answer.
//!
//! A seed determines what is asked and what happens: tags move, signatures appear and vanish, upstream fails in all its ways,
//! so do file operations, files of the cache are damaged, policies are reloaded, the mirror is restarted on its directory, dies
//! in the middle of its work, or finds its database spoilt, the clock jumps. Time of the runtime stands still and is moved by the
//! driver, so that no time limit is waited for; what the network and the threads of the store do between two steps is theirs.
//!
//! Between all that there are calms: everything in the way ends, and then answers are exactly what is true, everything allowed can
//! be pulled, no file is left in staging, and the cache has counted what lies on the disk.
//!
//! `just simulate 10000` runs so many seeds; `SEALGATE_SEED=17 just it simulation` replays one and prints its steps.

mod calm;
mod changes;
mod coverage;
mod disk;
mod driver;
mod judge;
mod mishaps;
mod model;
mod request;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use self::driver::Run;
use crate::mixed_load::number;

/// Seeds of an ordinary test run.
const SEEDS: u64 = 150;
/// Seeds that run at once: more than there are cores, for they wait for disks.
const AT_ONCE: usize = 4;
/// From so many seeds on, everything that can happen must have happened.
const ENOUGH: u64 = 100;

/// How often each thing happened.
pub(crate) type Counts = BTreeMap<String, u64>;

#[test]
fn what_a_mirror_answers_is_always_what_its_model_allows() {
    if let Some(seed) = number("SEALGATE_SEED") {
        let run = run(seed);
        println!("{}", run.steps.join("\n"));
        print(&run.counts);
        assert_eq!(run.wrong, None, "seed {seed}");
        return;
    }
    let (first, seeds) = (number("SEALGATE_FIRST_SEED").unwrap_or(0), number("SEALGATE_SEEDS").unwrap_or(SEEDS));
    println!("simulating the seeds from {first} on, {seeds} of them");
    let (next, totals, wrong) = (AtomicU64::new(0), Mutex::new(Counts::new()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= seeds || wrong.lock().unwrap().len() >= 5 {
                        return;
                    }
                    let run = run(first + seed);
                    if let Some(why) = &run.wrong {
                        let seed = first + seed;
                        println!("SEALGATE_SEED={seed} fails: {why}");
                        wrong.lock().unwrap().push(format!("SEALGATE_SEED={seed}: {why}\n{}", run.last_steps()));
                    }
                    let mut totals = totals.lock().unwrap();
                    for (what, times) in run.counts {
                        *totals.entry(what).or_default() += times;
                    }
                }
            });
        }
    });
    let (totals, wrong) = (totals.into_inner().unwrap(), wrong.into_inner().unwrap());
    print(&totals);
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    if seeds >= ENOUGH {
        let missing: Vec<String> =
            coverage::everything().into_iter().filter(|what| !totals.contains_key(what)).collect();
        assert_eq!(missing, Vec::<String>::new(), "{seeds} seeds did not cover everything");
    }
}

/// Runs a seed to its end; a panic of the mirror or of the driver is a failure like others.
fn run(seed: u64) -> Run {
    let run = Mutex::new(Run::default());
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(driver::simulate(seed, &run))
    }));
    let mut run = run.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    run.wrong = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(why)) => Some(why),
        Err(panic) => Some(driver::panic_text(&*panic)),
    };
    run
}

fn print(counts: &Counts) {
    for (what, times) in counts {
        println!("{times:>8}  {what}");
    }
}
