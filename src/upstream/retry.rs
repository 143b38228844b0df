//! Whether a failed request is worth repeating. Pure.

use std::time::Duration;

use super::UpstreamError;
use crate::limits::UPSTREAM_RETRIES_MAX;

/// The pause before the next attempt; `None`: give up. `failures` counts the attempts that failed, `random` is any byte.
///
/// Broken connections and 5xx are repeated. A time limit that passed is not: it would only double the wait. Neither is a
/// 5xx that says when to come back, nor a failed handshake, which fails again.
pub(super) fn pause(failures: usize, error: &UpstreamError, base: Duration, random: u8) -> Option<Duration> {
    let transient = match error {
        UpstreamError::Connect { reason, .. } => matches!(*reason, "connect" | "reset" | "dns"),
        UpstreamError::Failed { status, retry_after, .. } => {
            retry_after.is_none() && matches!(status, 500 | 502 | 503 | 504)
        }
        UpstreamError::NotFound { .. }
        | UpstreamError::Refused { .. }
        | UpstreamError::RateLimited { .. }
        | UpstreamError::Resting { .. }
        | UpstreamError::Timeout { .. }
        | UpstreamError::Bad { .. } => false,
    };
    if !transient || failures == 0 || failures > UPSTREAM_RETRIES_MAX {
        return None;
    }
    Some(doubled(base, failures, random))
}

/// `base`, doubled for each failure after the first, and up to as much again at random.
pub(super) fn doubled(base: Duration, failures: usize, random: u8) -> Duration {
    let doubled = base.saturating_mul(1 << failures.saturating_sub(1).min(8));
    doubled.saturating_add(doubled.saturating_mul(random.into()) / 255)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Host;

    const BASE: Duration = Duration::from_millis(100);

    fn host() -> Host {
        "a.example".parse().unwrap()
    }

    #[test]
    fn the_number_of_repetitions_is_bounded_on_both_sides() {
        let broken = UpstreamError::Connect { upstream: host(), reason: "reset" };
        assert_eq!(pause(1, &broken, BASE, 0), Some(BASE));
        assert_eq!(pause(2, &broken, BASE, 0), Some(BASE * 2));
        assert_eq!(pause(2, &broken, BASE, 255), Some(BASE * 4));
        assert_eq!(pause(UPSTREAM_RETRIES_MAX + 1, &broken, BASE, 0), None);
    }

    #[test]
    fn only_what_may_pass_by_itself_is_repeated() {
        let upstream = host();
        let failed = |status, retry_after| UpstreamError::Failed { upstream: host(), status, retry_after };
        assert!(pause(1, &failed(502, None), BASE, 0).is_some());
        let given_up = [
            failed(503, Some(Duration::from_secs(7))),
            failed(501, None),
            UpstreamError::NotFound { upstream: upstream.clone() },
            UpstreamError::Refused { upstream: upstream.clone(), status: 401 },
            UpstreamError::RateLimited { upstream: upstream.clone(), retry_after: BASE },
            UpstreamError::Timeout { upstream: upstream.clone() },
            UpstreamError::Connect { upstream: upstream.clone(), reason: "tls" },
            UpstreamError::Connect { upstream: upstream.clone(), reason: "address_blocked" },
            UpstreamError::Bad { upstream, reason: "protocol" },
        ];
        for error in given_up {
            assert_eq!(pause(1, &error, BASE, 0), None, "{error}");
        }
    }
}
