//! Refreshing the trust root by TUF while running. It never changes what is in force by itself: it replaces the file, and
//! a reload takes that over as a whole, or keeps the old.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Reloads;
use crate::clock::{Clock, Timestamp};
use crate::limits::TUF_RETRY;
use crate::telemetry::Telemetry;
use crate::trust::tuf::{self, Settings};

/// Refreshes when it is time, by the settings as they are then, until `stop`.
pub(super) async fn run(
    mut settings: watch::Receiver<Option<Settings>>,
    reloads: Reloads,
    clock: Clock,
    telemetry: Telemetry,
    stop: CancellationToken,
) {
    let mut failed = None;
    loop {
        let now = settings.borrow_and_update().clone();
        let refreshing = async {
            let Some((settings, interval)) = now.and_then(|settings| Some((settings.clone(), settings.refresh?)))
            else {
                return std::future::pending().await;
            };
            tokio::time::sleep(pause(interval, last_refresh(&settings).await, failed, clock.now(), random())).await;
            refresh(&settings, &clock, &telemetry).await
        };
        // Losing the refresh is safe: nothing is kept then. Losing the change is not possible: it is seen by the next look.
        let ok = tokio::select! {
            () = stop.cancelled() => return,
            changed = settings.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            ok = refreshing => ok,
        };
        failed = (!ok).then(|| clock.now());
        if ok {
            // Whoever cannot be reloaded has said so in the log.
            drop(reloads.reload().await);
        }
    }
}

/// The time until the next refresh. `random` is any number: mirrors that started together must not ask together.
fn pause(
    interval: Duration,
    last: Option<Timestamp>,
    failed: Option<Timestamp>,
    now: Timestamp,
    random: u64,
) -> Duration {
    let (since, period) = match (failed, last) {
        (Some(failed), _) => (Some(failed), interval.min(TUF_RETRY)),
        (None, last) => (last, interval),
    };
    // A time that lies ahead is a clock that was wrong: as if just now.
    let left = since.map_or(Duration::ZERO, |since| period.saturating_sub(now.since(since)));
    let jitter_max = u64::try_from(period.as_millis()).unwrap_or(u64::MAX) / JITTER_PART;
    left.saturating_add(Duration::from_millis(random.checked_rem(jitter_max.saturating_add(1)).unwrap_or(0)))
}

async fn last_refresh(settings: &Settings) -> Option<Timestamp> {
    let settings = settings.clone();
    tokio::task::spawn_blocking(move || tuf::last_refresh(&settings)).await.ok().flatten()
}

/// Whether it succeeded.
async fn refresh(settings: &Settings, clock: &Clock, telemetry: &Telemetry) -> bool {
    let updating = AssertUnwindSafe(tuf::update(settings, clock.now())).catch_unwind();
    let ok = match updating.await {
        Ok(Ok(update)) => {
            let (fingerprint, changed) = (update.root.fingerprint, update.changed());
            tracing::info!(%fingerprint, changed, url = %settings.url, "the trust root was refreshed");
            true
        }
        Ok(Err(error)) => {
            let error = with_causes(&error);
            tracing::warn!(%error, "the trust root could not be refreshed; the last good one stays in force");
            false
        }
        Err(_panic) => {
            telemetry.panicked("trust refresh");
            false
        }
    };
    telemetry.trust_root_refreshed(ok);
    ok
}

fn with_causes(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", with_causes(cause)),
        None => error.to_string(),
    }
}

fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Jitter is at most this part of the interval.
const JITTER_PART: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_unix_seconds(hour * 3600)
    }

    #[test]
    fn the_next_refresh_is_an_interval_after_the_last_also_over_a_restart() {
        assert_eq!(pause(DAY, Some(at(0)), None, at(10), 0), Duration::from_hours(14));
        assert_eq!(pause(DAY, Some(at(0)), None, at(100), 0), Duration::ZERO);
        assert_eq!(pause(DAY, None, None, at(100), 0), Duration::ZERO);
        assert_eq!(pause(DAY, Some(at(200)), None, at(100), 0), DAY, "the clock was ahead");
    }

    #[test]
    fn a_failure_is_tried_again_sooner_but_not_at_once() {
        assert_eq!(pause(DAY, Some(at(0)), Some(at(100)), at(100), 0), TUF_RETRY);
        assert_eq!(pause(Duration::from_secs(9), None, Some(at(100)), at(100), 0), Duration::from_secs(9));
    }

    #[test]
    fn jitter_is_at_most_a_tenth_of_the_interval() {
        for random in [0, 1, 7_777_777_777, u64::MAX] {
            let jitter = pause(DAY, None, None, at(0), random);
            assert!(jitter <= DAY / 10, "{jitter:?}");
        }
        assert_eq!(pause(DAY, None, None, at(0), 8_640_000), DAY / 10);
    }
}
