//! Whether a fill that nobody reads is worth its end. Pure.

use std::time::Duration;

use crate::limits::{FILL_ALONE, FILL_ALONE_GRACE, FILL_ALONE_REST};

/// How long a fill that nobody reads goes on; the default is that of [`crate::limits`].
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// In any case, since a client that lost its connection comes back.
    pub grace: Duration,
    /// When the rest is expected within that time.
    pub rest: Duration,
    /// When half of it is there and the rest is expected within that time; and at the very most.
    pub most: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { grace: FILL_ALONE_GRACE, rest: FILL_ALONE_REST, most: FILL_ALONE }
    }
}

/// How far a fill is that nobody reads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deserted {
    /// Bytes that are there.
    pub(super) done: u64,
    /// Bytes of the blob.
    pub(super) size: u64,
    /// Time that those took.
    pub(super) took: Duration,
    /// Time since its last reader left.
    pub(super) alone: Duration,
}

impl Deserted {
    /// Whether it goes on: within the grace in any case; then while what is missing is expected soon, at the rate so far, with
    /// more patience for a blob of which half is there.
    pub(super) fn goes_on(&self, patience: &Patience) -> bool {
        self.alone < patience.grace || self.is_worth_its_end(patience)
    }

    /// The same without the grace: for a mirror that is about to end.
    pub(super) fn is_worth_its_end(&self, patience: &Patience) -> bool {
        let left = self.size.saturating_sub(self.done);
        let longest = if self.done >= left { patience.most } else { patience.rest };
        self.alone < patience.most && self.rest().is_some_and(|rest| rest <= longest)
    }

    /// The time that what is missing will take; `None` when nothing has come.
    fn rest(&self) -> Option<Duration> {
        let left = u128::from(self.size.saturating_sub(self.done));
        let millis = self.took.as_millis().checked_mul(left)?.checked_div(u128::from(self.done))?;
        Some(Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;
    const SECOND: Duration = Duration::from_secs(1);

    fn deserted(done: u64, size: u64, took: Duration) -> Deserted {
        Deserted { done, size, took, alone: FILL_ALONE_GRACE }
    }

    #[test]
    fn for_a_moment_any_fill_goes_on() {
        let hopeless = deserted(0, 1000 * MIB, SECOND);
        assert!(!hopeless.goes_on(&Patience::default()));
        assert!(
            Deserted { alone: FILL_ALONE_GRACE.saturating_sub(Duration::from_millis(1)), ..hopeless }
                .goes_on(&Patience::default())
        );
    }

    #[test]
    fn less_than_half_must_be_followed_soon_by_the_rest() {
        // 10 MiB a second: 300 MiB take the whole patience.
        assert!(deserted(10 * MIB, 310 * MIB, SECOND).goes_on(&Patience::default()));
        assert!(!deserted(10 * MIB, 311 * MIB, SECOND).goes_on(&Patience::default()));
        // The same part of a smaller blob, and of one that comes faster.
        assert!(deserted(MIB, 31 * MIB, SECOND).goes_on(&Patience::default()));
        assert!(deserted(20 * MIB, 311 * MIB, SECOND).goes_on(&Patience::default()));
    }

    #[test]
    fn what_is_there_by_half_is_given_more_time() {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        assert!(deserted(50 * MIB, 100 * MIB, minutes(5)).goes_on(&Patience::default()));
        assert!(!deserted(50 * MIB - 1, 100 * MIB, minutes(5)).goes_on(&Patience::default()));
        assert!(!deserted(50 * MIB, 100 * MIB, minutes(5) + SECOND).goes_on(&Patience::default()));
        assert!(deserted(90 * MIB, 100 * MIB, minutes(40)).goes_on(&Patience::default()));
    }

    #[test]
    fn nobodys_fill_goes_on_for_ever() {
        let nearly = deserted(100 * MIB - 1, 100 * MIB, SECOND);
        assert!(
            Deserted { alone: FILL_ALONE.saturating_sub(Duration::from_millis(1)), ..nearly }
                .goes_on(&Patience::default())
        );
        assert!(!Deserted { alone: FILL_ALONE, ..nearly }.goes_on(&Patience::default()));
    }

    #[test]
    fn nothing_is_worth_nothing_and_all_of_it_everything() {
        assert!(!deserted(0, MIB, Duration::ZERO).goes_on(&Patience::default()));
        assert!(deserted(MIB, MIB, Duration::MAX).goes_on(&Patience::default()));
        assert!(!deserted(1, u64::MAX, Duration::MAX).goes_on(&Patience::default()));
    }
}
