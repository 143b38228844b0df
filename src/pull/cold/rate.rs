//! How much that is new a client may ask for: a minute's worth at once, and then as time goes by.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::limits::COLD_CLIENTS_MAX;

/// How often each client asks for something new: so many at once, and then as time goes by (GCRA).
#[derive(Debug)]
pub(super) struct Rate {
    /// Time that one costs; `None`: no bound.
    interval: Option<Duration>,
    /// When all that a client has asked for is paid; a client that has paid needs no entry.
    paid: Mutex<HashMap<IpAddr, Instant>>,
}

impl Rate {
    /// So many in a minute; 0: no bound.
    pub(super) fn new(per_minute: u32) -> Self {
        Self { interval: MINUTE.checked_div(per_minute), paid: Mutex::default() }
    }

    /// Charges one.
    ///
    /// # Errors
    /// How long to wait for it.
    pub(super) fn charge(&self, client: IpAddr, now: Instant) -> Result<(), Duration> {
        let Some(interval) = self.interval else { return Ok(()) };
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        if paid.len() >= COLD_CLIENTS_MAX && !paid.contains_key(&client) {
            make_room(&mut paid, now);
        }
        let at = paid.get(&client).copied().unwrap_or(now).max(now);
        let debt = at.saturating_duration_since(now).saturating_add(interval);
        match debt.checked_sub(MINUTE) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => {
                paid.insert(client, at + interval);
                Ok(())
            }
        }
    }
}

/// Forgets those who have paid; when all are in debt, the one who owes least.
fn make_room(paid: &mut HashMap<IpAddr, Instant>, now: Instant) {
    paid.retain(|_, at| *at > now);
    if paid.len() >= COLD_CLIENTS_MAX
        && let Some(client) = paid.iter().min_by_key(|(_, at)| **at).map(|(client, _)| *client)
    {
        paid.remove(&client);
    }
}

const MINUTE: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[tokio::test(start_paused = true)]
    async fn r_03_a_minutes_worth_may_come_at_once_and_then_one_at_a_time() {
        let (rate, now) = (Rate::new(60), Instant::now());
        for _ in 0..60 {
            rate.charge(client(1), now).unwrap();
        }
        assert_eq!(rate.charge(client(1), now), Err(Duration::from_secs(1)));
        assert_eq!(rate.charge(client(2), now), Ok(()), "another one pays for itself");
        let later = now + Duration::from_millis(2500);
        assert_eq!(rate.charge(client(1), later), Ok(()));
        assert_eq!(rate.charge(client(1), later), Ok(()));
        assert_eq!(rate.charge(client(1), later), Err(Duration::from_millis(500)));
        let much_later = now + Duration::from_hours(1);
        assert!((0..60).all(|_| rate.charge(client(1), much_later).is_ok()));
        assert!(rate.charge(client(1), much_later).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_bound_nothing_is_kept() {
        let (rate, now) = (Rate::new(0), Instant::now());
        assert!((0..100_000).all(|_| rate.charge(client(1), now).is_ok()));
        assert!(rate.paid.lock().unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn r_06_very_many_clients_leave_a_bounded_trace_and_the_worst_is_not_forgotten() {
        let (rate, now) = (Rate::new(60), Instant::now());
        while rate.charge(client(0), now).is_ok() {}
        for number in 1..=2 * u32::try_from(COLD_CLIENTS_MAX).unwrap() {
            rate.charge(client(number), now).unwrap();
        }
        assert_eq!(rate.paid.lock().unwrap().len(), COLD_CLIENTS_MAX);
        assert!(rate.charge(client(0), now).is_err());
        // All have paid by then.
        rate.charge(client(u32::MAX), now + Duration::from_mins(2)).unwrap();
        assert_eq!(rate.paid.lock().unwrap().len(), 1);
    }
}
