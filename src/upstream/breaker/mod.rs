//! Whether an upstream is asked at all, by what it said and did to requests with the same credential.
//!
//! After a 429 nobody asks before the time that it names has passed; after a row of failures, not for a pause that doubles
//! with each further one. Then one request goes first, the probe, and the others wait for what it says.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::UpstreamError;
use crate::clock::Timestamp;
use crate::limits::{
    BREAKER_FAILURES, BREAKER_PAUSE, BREAKER_PROBE_WAIT, CREDENTIALS_MAX, RETRY_AFTER, RETRY_AFTER_DEFAULT,
};
use crate::oci::{Digest, Host};
use crate::telemetry::{BreakerState, Telemetry};

/// The breakers of one endpoint, one for each credential that it is shown.
#[derive(Debug)]
pub(super) struct Breakers {
    /// By the fingerprint of the credential; `None` is for requests without one.
    by_credential: Cache<Option<Digest>, Arc<Breaker>>,
    board: Arc<Board>,
    manners: Manners,
}

/// How much those who ask put up with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manners {
    /// How long others wait for a probe.
    pub(super) probe_patience: Duration,
    /// A call that is given up after so long has failed.
    pub(super) slow: Duration,
}

impl Breakers {
    pub(super) fn new(board: Arc<Board>, manners: Manners) -> Self {
        Self { by_credential: Cache::new(CREDENTIALS_MAX), board, manners }
    }

    /// The one of them that lets the least through: an open one, and of several the one that is open for longest.
    pub(super) fn worst(&self) -> BreakerStanding {
        let standings = self.by_credential.iter().map(|(_, breaker)| breaker.standing());
        let rank = |standing: &BreakerStanding| match standing.state {
            BreakerState::Closed => (0, Duration::ZERO),
            BreakerState::HalfOpen => (1, Duration::ZERO),
            BreakerState::Open => (2, standing.rests_for.unwrap_or_default()),
        };
        let closed = BreakerStanding { state: BreakerState::Closed, rests_for: None, why: None };
        standings.max_by_key(rank).unwrap_or(closed)
    }

    pub(super) fn of(&self, credential: Option<Digest>) -> Arc<Breaker> {
        self.by_credential.get_with(credential, || Arc::new(Breaker::new(Arc::clone(&self.board), self.manners)))
    }
}

/// How one breaker stands.
#[derive(Debug, Clone)]
pub struct BreakerStanding {
    /// Closed, open, or waiting for its probe.
    pub state: BreakerState,
    /// How long nobody asks.
    pub rests_for: Option<Duration>,
    /// Why, one line.
    pub why: Option<String>,
}

/// How the breakers of one upstream stand, of all its endpoints and credentials; it keeps the gauge.
#[derive(Debug)]
pub(super) struct Board {
    host: Host,
    telemetry: Telemetry,
    /// How many probe, how many are open.
    count: Mutex<(usize, usize)>,
}

impl Board {
    pub(super) fn new(host: Host, telemetry: Telemetry) -> Self {
        Self { host, telemetry, count: Mutex::new((0, 0)) }
    }

    fn moved(&self, from: BreakerState, to: BreakerState) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        match from {
            BreakerState::Closed => {}
            BreakerState::HalfOpen => count.0 = count.0.saturating_sub(1),
            BreakerState::Open => count.1 = count.1.saturating_sub(1),
        }
        match to {
            BreakerState::Closed => {}
            BreakerState::HalfOpen => count.0 = count.0.saturating_add(1),
            BreakerState::Open => count.1 = count.1.saturating_add(1),
        }
        let worst = match *count {
            (0, 0) => BreakerState::Closed,
            (_, 0) => BreakerState::HalfOpen,
            _ => BreakerState::Open,
        };
        self.telemetry.breaker_moved(&self.host, worst);
    }
}

/// Closed, open until a point in time, or waiting for its probe.
#[derive(Debug)]
pub(super) struct Breaker {
    state: Mutex<State>,
    /// Told whenever a call was concluded.
    told: Notify,
    board: Arc<Board>,
    manners: Manners,
}

#[derive(Debug, Clone)]
enum State {
    /// So many calls in a row have failed.
    Closed {
        failures: usize,
    },
    Open {
        until: Instant,
        why: Why,
    },
    /// The probe is under way.
    HalfOpen {
        why: Why,
    },
}

/// Why a breaker is not closed.
#[derive(Debug, Clone)]
enum Why {
    /// A 429.
    Limited,
    /// Failures, the last of them this one; the pause after it.
    Failing { last: Box<UpstreamError>, pause: Duration },
}

impl State {
    fn shown(&self) -> BreakerState {
        match self {
            Self::Closed { .. } => BreakerState::Closed,
            Self::Open { .. } => BreakerState::Open,
            Self::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }
}

/// The right to make one call; what comes of it is told by [`Pass::conclude`].
#[derive(Debug)]
pub(super) struct Pass {
    breaker: Arc<Breaker>,
    began: Instant,
    probe: bool,
    concluded: bool,
}

impl Breaker {
    fn new(board: Arc<Board>, manners: Manners) -> Self {
        Self { state: Mutex::new(State::Closed { failures: 0 }), told: Notify::new(), board, manners }
    }

    /// Whether to ask now; while the probe is under way, when it has told, or the patience for it has passed: a pull
    /// asks for several things at once, and must not fail because the first of them is the probe. Cancel safe.
    ///
    /// # Errors
    /// Why not, and for how long, as the error that the call has.
    pub(super) async fn pass(self: &Arc<Self>, upstream: &Host) -> Result<Pass, UpstreamError> {
        let waiting = async {
            loop {
                let mut told = pin!(self.told.notified());
                told.as_mut().enable();
                let refused = match self.admit(upstream) {
                    Ok(pass) => return Ok(pass),
                    Err(refused) => refused,
                };
                let now = self.lock().shown();
                match now {
                    BreakerState::HalfOpen => told.as_mut().await,
                    BreakerState::Closed => {}
                    BreakerState::Open => return Err(refused),
                }
            }
        };
        match tokio::time::timeout(self.manners.probe_patience, waiting).await {
            Ok(decided) => decided,
            Err(_elapsed) => self.admit(upstream),
        }
    }

    /// Whether to ask at this moment.
    ///
    /// # Errors
    /// As [`Self::pass`].
    fn admit(self: &Arc<Self>, upstream: &Host) -> Result<Pass, UpstreamError> {
        let now = Instant::now();
        let (probe, refused) = self.change(|state| match state.clone() {
            State::Closed { .. } => (false, None),
            State::Open { until, why } if until > now => (false, Some((why, until.duration_since(now)))),
            State::Open { why, .. } => {
                *state = State::HalfOpen { why };
                (true, None)
            }
            State::HalfOpen { why } => (false, Some((why, BREAKER_PROBE_WAIT))),
        });
        match refused {
            None => Ok(Pass { breaker: Arc::clone(self), began: now, probe, concluded: false }),
            Some((why, left)) => Err(why.refusal(upstream, left)),
        }
    }

    fn standing(&self) -> BreakerStanding {
        let state = self.lock().clone();
        let why = |why: &Why| match why {
            Why::Limited => "it limits our requests (429)".to_owned(),
            Why::Failing { last, .. } => last.to_string(),
        };
        let (rests_for, reason) = match &state {
            State::Closed { .. } => (None, None),
            State::HalfOpen { why: reason } => (None, Some(why(reason))),
            State::Open { until, why: reason } => {
                (Some(until.saturating_duration_since(Instant::now())), Some(why(reason)))
            }
        };
        BreakerStanding { state: state.shown(), rests_for, why: reason }
    }

    /// Whether somebody else has learned meanwhile that nobody should ask.
    pub(super) fn is_closed(&self) -> bool {
        matches!(*self.lock(), State::Closed { .. })
    }

    fn conclude(&self, probe: bool, outcome: Outcome) {
        let now = Instant::now();
        self.change(|state| match (outcome, state.clone()) {
            (Outcome::Limited(wait), before) => {
                let until = now.checked_add(wait).unwrap_or(now);
                let until = match before {
                    State::Open { until: open, .. } => until.max(open),
                    State::Closed { .. } | State::HalfOpen { .. } => until,
                };
                *state = State::Open { until, why: Why::Limited };
            }
            (Outcome::Answered, State::Closed { .. }) => *state = State::Closed { failures: 0 },
            (Outcome::Answered, State::HalfOpen { .. }) if probe => *state = State::Closed { failures: 0 },
            (Outcome::Failed(last), State::Closed { failures }) => {
                let failures = failures.saturating_add(1);
                *state = if failures < BREAKER_FAILURES {
                    State::Closed { failures }
                } else {
                    State::failing(now, last, BREAKER_PAUSE.0)
                };
            }
            (Outcome::Failed(last), State::HalfOpen { why }) if probe => {
                let pause = match why {
                    Why::Limited => BREAKER_PAUSE.0,
                    Why::Failing { pause, .. } => pause.saturating_mul(2).min(BREAKER_PAUSE.1),
                };
                *state = State::failing(now, last, pause);
            }
            // The probe says nothing: the next caller is the next probe.
            (Outcome::Nothing, State::HalfOpen { why }) if probe => *state = State::Open { until: now, why },
            // Who began earlier knows less than what opened it.
            (Outcome::Answered | Outcome::Failed(_), State::Open { .. } | State::HalfOpen { .. })
            | (Outcome::Nothing, _) => {}
        });
        self.told.notify_waiters();
    }

    /// Changes the state, and shows what it became.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let before = state.shown();
        let result = change(&mut state);
        let after = state.shown();
        if before != after {
            self.board.moved(before, after);
        }
        result
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Breaker {
    /// A breaker that is forgotten is not open.
    fn drop(&mut self) {
        self.change(|state| *state = State::Closed { failures: 0 });
    }
}

impl State {
    fn failing(now: Instant, last: Box<UpstreamError>, pause: Duration) -> Self {
        Self::Open { until: now.checked_add(pause).unwrap_or(now), why: Why::Failing { last, pause } }
    }
}

impl Why {
    /// The error of a call that is not made. Whole seconds, rounded up: who comes back then finds it closed.
    fn refusal(self, upstream: &Host, left: Duration) -> UpstreamError {
        let retry_after = Duration::from_secs(left.as_secs().saturating_add(u64::from(left.subsec_nanos() > 0)));
        let upstream = upstream.clone();
        match self {
            Self::Limited => UpstreamError::RateLimited { upstream, retry_after },
            Self::Failing { last, .. } => UpstreamError::Resting { upstream, retry_after, last },
        }
    }
}

/// What a call says about the upstream.
#[derive(Debug)]
enum Outcome {
    /// It answers, whatever it says.
    Answered,
    /// It cannot be reached, does not answer, or stands behind a gateway that cannot reach it. A 500 is no such thing: it may
    /// be about one image alone.
    Failed(Box<UpstreamError>),
    Limited(Duration),
    /// The call was given up.
    Nothing,
}

impl Outcome {
    fn of<T>(result: &Result<T, UpstreamError>) -> Self {
        match result {
            Ok(_) | Err(UpstreamError::NotFound { .. } | UpstreamError::Refused { .. } | UpstreamError::Bad { .. }) => {
                Self::Answered
            }
            Err(UpstreamError::RateLimited { retry_after, .. }) => Self::Limited(*retry_after),
            Err(error @ UpstreamError::Failed { status: 502..=504, .. }) => Self::Failed(Box::new(error.clone())),
            Err(UpstreamError::Failed { .. }) => Self::Answered,
            Err(error @ (UpstreamError::Connect { .. } | UpstreamError::Timeout { .. })) => {
                Self::Failed(Box::new(error.clone()))
            }
            Err(UpstreamError::Resting { .. }) => Self::Nothing,
        }
    }
}

impl Pass {
    /// Whether others wait for what this call says.
    pub(super) const fn is_probe(&self) -> bool {
        self.probe
    }

    /// Tells how the call went.
    pub(super) fn conclude<T>(mut self, result: &Result<T, UpstreamError>) {
        self.concluded = true;
        self.breaker.conclude(self.probe, Outcome::of(result));
    }
}

impl Drop for Pass {
    /// Who asked has left. When that was after waiting for long, it is a failure like one of our own time limits.
    fn drop(&mut self) {
        if self.concluded {
            return;
        }
        let outcome = if self.began.elapsed() < self.breaker.manners.slow {
            Outcome::Nothing
        } else {
            let upstream = self.breaker.board.host.clone();
            Outcome::Failed(Box::new(UpstreamError::Timeout { upstream }))
        };
        self.breaker.conclude(self.probe, outcome);
    }
}

/// Reads `Retry-After` (RFC 9110, 10.2.3): seconds or a date, clamped to [`RETRY_AFTER`]. `None` for anything else.
pub(super) fn retry_after(value: Option<&str>, now: Timestamp) -> Option<Duration> {
    let text = value?.trim();
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let wait = if digits {
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let date = jiff::fmt::rfc2822::parse(text).ok()?;
        Timestamp::from_unix_seconds(date.timestamp().as_second()).since(now)
    };
    Some(wait.clamp(RETRY_AFTER.0, RETRY_AFTER.1))
}

/// The wait that a 429 asks for.
pub(super) fn limited_for(value: Option<&str>, now: Timestamp) -> Duration {
    retry_after(value, now).unwrap_or(RETRY_AFTER_DEFAULT)
}

#[cfg(test)]
mod tests;
