//! Log lines that somebody else could repeat without end are written at most once a second.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// One kind of line.
#[derive(Debug, Default)]
pub(super) struct Sampled(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    withheld: u64,
}

impl Sampled {
    /// Whether the line may be written now; if so, how many were withheld since the last one.
    pub(super) fn next(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if state.last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            state.withheld = state.withheld.saturating_add(1);
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.withheld))
    }
}

const INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn repeated_lines_are_withheld_and_counted() {
        let line = Sampled::default();
        assert_eq!(line.next(), Some(0));
        assert_eq!(line.next(), None);
        assert_eq!(line.next(), None);
        tokio::time::advance(INTERVAL).await;
        assert_eq!(line.next(), Some(2));
        assert_eq!(line.next(), None);
    }
}
