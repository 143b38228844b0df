//! Memory for signature material that is being judged, of all verdicts together.
//!
//! One verdict may rest on 32 MiB, and many are reached at once: what they hold together is bounded too. A little is counted to
//! nobody, since nearly all signatures are that small and must not wait behind one image that was flooded with large ones. An
//! index holds its own while its children are judged, so each level has a pool of its own: nobody who holds room waits for
//! somebody who waits for the same room.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::verdict::Depth;
use crate::limits::{INDEX_DEPTH_MAX, KIB, MATERIAL_IN_FLIGHT_BYTES_MAX, MATERIAL_UNCOUNTED_BYTES};

/// Room for what lies in registries, and room for what lies at lookaside servers: one verdict may need both, and must not wait
/// for the one while it holds the other.
#[derive(Debug)]
pub(super) struct Rooms {
    pub(super) registries: Pools,
    pub(super) lookasides: Pools,
}

/// The pools, one for each level at which something is judged, and one for reports.
#[derive(Debug)]
pub(super) struct Pools([Arc<Semaphore>; LEVELS]);

/// What is looked for signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// Something that is judged, with so many indexes above it.
    Verdict(Depth),
    /// Something on which there is a verdict.
    Report,
}

/// Room for so many bytes, until it is dropped.
#[derive(Debug, Default)]
pub(super) struct Room {
    counted: Option<OwnedSemaphorePermit>,
}

/// There is none, and was none in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoRoom;

impl Room {
    /// Gives back what is more than `bytes`: nobody says before how much there is.
    pub(super) fn shrink(&mut self, bytes: u64) {
        if let Some(counted) = &mut self.counted {
            let more = counted.num_permits().saturating_sub(steps(bytes));
            drop(counted.split(more));
        }
    }
}

impl Rooms {
    pub(super) fn new() -> Self {
        Self { registries: Pools::new(), lookasides: Pools::new() }
    }
}

impl Pools {
    fn new() -> Self {
        Self(std::array::from_fn(|_| Arc::new(Semaphore::new(steps(MATERIAL_IN_FLIGHT_BYTES_MAX)))))
    }

    /// Room for `bytes`, waited for until `deadline`; at once where they are too few to be counted. Whoever has some at that level
    /// must not ask for more. Cancel safe.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub(super) async fn take(&self, level: Level, bytes: u64, deadline: Instant) -> Result<Room, NoRoom> {
        if bytes <= MATERIAL_UNCOUNTED_BYTES {
            return Ok(Room::default());
        }
        let steps = u32::try_from(steps(bytes)).map_err(|_| NoRoom)?;
        let taken = timeout_at(deadline, self.pool(level).acquire_many_owned(steps)).await;
        Ok(Room { counted: Some(taken.map_err(|_| NoRoom)?.map_err(|_| NoRoom)?) })
    }

    /// The same if there is room now.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub(super) fn try_take(&self, level: Level, bytes: u64) -> Result<Room, NoRoom> {
        if bytes <= MATERIAL_UNCOUNTED_BYTES {
            return Ok(Room::default());
        }
        let steps = u32::try_from(steps(bytes)).map_err(|_| NoRoom)?;
        Ok(Room { counted: Some(self.pool(level).try_acquire_many_owned(steps).map_err(|_| NoRoom)?) })
    }

    fn pool(&self, level: Level) -> Arc<Semaphore> {
        let [reports, levels @ ..] = &self.0;
        match level {
            Level::Report => Arc::clone(reports),
            Level::Verdict(Depth(above)) => Arc::clone(levels.get(above).unwrap_or(reports)),
        }
    }
}

/// What was asked for itself, as many indexes as may lie above something, and reports.
const LEVELS: usize = INDEX_DEPTH_MAX + 2;

/// The unit in which bytes are counted.
const STEP: u64 = 4 * KIB;

fn steps(bytes: u64) -> usize {
    usize::try_from(bytes.div_ceil(STEP)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::limits::MATERIAL_BYTES_MAX;

    const TOP: Level = Level::Verdict(Depth::TOP);

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(8)
    }

    #[tokio::test(start_paused = true)]
    async fn r_02_all_verdicts_together_hold_so_much_material_and_not_a_byte_more() {
        let rooms = Pools::new();
        let most = MATERIAL_IN_FLIGHT_BYTES_MAX / MATERIAL_BYTES_MAX;
        let mut held = Vec::new();
        for _ in 0..most {
            held.push(rooms.take(TOP, MATERIAL_BYTES_MAX, soon()).await.unwrap());
        }
        assert_eq!(rooms.try_take(TOP, MATERIAL_UNCOUNTED_BYTES + 1).unwrap_err(), NoRoom);
        let began = Instant::now();
        assert_eq!(rooms.take(TOP, MATERIAL_UNCOUNTED_BYTES + 1, soon()).await.unwrap_err(), NoRoom);
        assert_eq!(began.elapsed(), Duration::from_secs(8), "it waited as long as it may");
        assert!(rooms.try_take(TOP, MATERIAL_UNCOUNTED_BYTES).is_ok(), "what is small never waits");
        held.pop();
        let again = rooms.take(TOP, MATERIAL_BYTES_MAX, soon()).await.unwrap();
        assert!(rooms.try_take(TOP, MATERIAL_UNCOUNTED_BYTES + 1).is_err());
        drop((held, again));
        assert!(rooms.take(TOP, MATERIAL_IN_FLIGHT_BYTES_MAX, soon()).await.is_ok());
        assert!(rooms.take(TOP, MATERIAL_IN_FLIGHT_BYTES_MAX + 1, soon()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn an_index_that_holds_room_takes_none_from_its_children_and_no_report_from_a_verdict() {
        let rooms = Pools::new();
        let levels = (0..=INDEX_DEPTH_MAX).map(|above| Level::Verdict(Depth(above))).chain([Level::Report]);
        let mut held = Vec::new();
        for level in levels {
            held.push(rooms.take(level, MATERIAL_IN_FLIGHT_BYTES_MAX, soon()).await.unwrap());
            assert!(rooms.try_take(level, MATERIAL_BYTES_MAX).is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_takes_no_room_along() {
        let rooms = Pools::new();
        let all = rooms.take(TOP, MATERIAL_IN_FLIGHT_BYTES_MAX, soon()).await.unwrap();
        {
            let mut left = Box::pin(rooms.take(TOP, MATERIAL_BYTES_MAX, soon()));
            assert!(futures_util::poll!(&mut left).is_pending());
        }
        drop(all);
        assert!(rooms.try_take(TOP, MATERIAL_IN_FLIGHT_BYTES_MAX).is_ok());
    }
}
