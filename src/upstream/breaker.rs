//! What a 429 means: nobody asks this upstream again before the time it names has passed.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::limits::{RETRY_AFTER, RETRY_AFTER_DEFAULT};

/// Open until a point in time; one for each upstream.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    open_until: Mutex<Option<Instant>>,
}

impl Breaker {
    /// How long to wait before asking again; `None`: ask.
    pub(super) fn remaining(&self) -> Option<Duration> {
        let until = (*self.open_until.lock().unwrap_or_else(PoisonError::into_inner))?;
        let left = until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Opens for that long, or longer where it already is.
    pub(super) fn open(&self, wait: Duration) {
        let until = Instant::now().checked_add(wait);
        let mut open_until = self.open_until.lock().unwrap_or_else(PoisonError::into_inner);
        *open_until = (*open_until).max(until);
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
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_and_clamped() {
        let now: Timestamp = "1994-11-06T08:49:00Z".parse().unwrap();
        let rows = [
            (Some("7"), Some(7)),
            (Some("0"), Some(1)),
            (Some("1"), Some(1)),
            (Some("300"), Some(300)),
            (Some("301"), Some(300)),
            (Some("99999999999999999999999"), Some(300)),
            (Some("Sun, 06 Nov 1994 08:49:37 GMT"), Some(37)),
            (Some("Sun, 06 Nov 1994 07:49:37 GMT"), Some(1)),
            (Some("Mon, 07 Nov 1994 08:49:37 GMT"), Some(300)),
            (Some("soon"), None),
            (Some("-1"), None),
            (Some(""), None),
            (None, None),
        ];
        for (text, seconds) in rows {
            assert_eq!(retry_after(text, now), seconds.map(Duration::from_secs), "{text:?}");
        }
        assert_eq!(limited_for(Some("soon"), now), RETRY_AFTER_DEFAULT);
    }

    #[tokio::test(start_paused = true)]
    async fn the_breaker_closes_when_its_time_has_passed() {
        let breaker = Breaker::default();
        assert_eq!(breaker.remaining(), None);
        breaker.open(Duration::from_secs(20));
        breaker.open(Duration::from_secs(5));
        tokio::time::advance(Duration::from_secs(19)).await;
        assert_eq!(breaker.remaining(), Some(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(breaker.remaining(), None);
    }
}
