//! What lies in the cache, how large it is and when it was last used; and so what goes first. Pure.
//!
//! Least recently used goes first. Small files (manifests, configs, signature payloads) cost next to nothing and are
//! what offline verification needs, so as long as all of them together fit into an eighth of the budget they go after
//! every large one. What somebody reads is passed over: to remove it would free nothing, and the next reader would fetch it
//! again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::oci::Digest;

/// All files of the cache.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Bytes that the files may take.
    limit_bytes: u64,
    /// Files there may be.
    files_max: usize,
    /// Bytes of files that are being put into place.
    reserved: u64,
    files: HashMap<Digest, Entry>,
    small: Queue,
    large: Queue,
    /// Numbers entries, so that two of one millisecond keep their order.
    count: u64,
    /// Used since their times were last written to disk.
    touched: HashSet<Digest>,
}

/// Held by everybody who reads a file.
pub(super) type InUse = Arc<()>;

#[derive(Debug)]
struct Entry {
    size: u64,
    used: Place,
    /// Alive while somebody reads the file.
    reader: Weak<()>,
}

type Place = (Timestamp, u64);

/// Files by last use, oldest first.
#[derive(Debug, Default)]
struct Queue {
    order: BTreeMap<Place, Digest>,
    bytes: u64,
}

impl Ledger {
    /// An empty cache with its bounds.
    pub(super) fn new(limit_bytes: u64, files_max: usize) -> Self {
        Self {
            limit_bytes,
            files_max,
            reserved: 0,
            files: HashMap::new(),
            small: Queue::default(),
            large: Queue::default(),
            count: 0,
            touched: HashSet::new(),
        }
    }

    pub(super) fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    pub(super) fn set_limit_bytes(&mut self, limit_bytes: u64) {
        self.limit_bytes = limit_bytes;
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.small.bytes.saturating_add(self.large.bytes)
    }

    /// Number of all files.
    pub(super) fn files(&self) -> u64 {
        u64::try_from(self.files.len()).unwrap_or(u64::MAX)
    }

    pub(super) fn contains(&self, digest: &Digest) -> bool {
        self.files.contains_key(digest)
    }

    /// The size of a file that is here.
    pub(super) fn size(&self, digest: &Digest) -> Option<u64> {
        self.files.get(digest).map(|entry| entry.size)
    }

    /// Enters a file, or corrects its size.
    pub(super) fn insert(&mut self, digest: Digest, size: u64, used: Timestamp) {
        let reader = self.take(&digest).map(|entry| entry.reader).unwrap_or_default();
        self.count = self.count.wrapping_add(1);
        self.enter(digest, Entry { size, used: (used, self.count), reader });
    }

    fn enter(&mut self, digest: Digest, entry: Entry) {
        let queue = self.queue(entry.size);
        queue.order.insert(entry.used, digest);
        queue.bytes = queue.bytes.saturating_add(entry.size);
        self.files.insert(digest, entry);
    }

    /// Records a use. Uses within a second of another are not told apart.
    pub(super) fn touch(&mut self, digest: &Digest, now: Timestamp) {
        if let Some(Entry { size, used: (used, _), .. }) = self.files.get(digest)
            && now.since(*used) >= RESOLUTION
        {
            let size = *size;
            self.insert(*digest, size, now);
            self.touched.insert(*digest);
        }
    }

    /// The file does not go while what this returns lives; `None` when it is not here.
    pub(super) fn hold(&mut self, digest: &Digest) -> Option<InUse> {
        let entry = self.files.get_mut(digest)?;
        Some(entry.reader.upgrade().unwrap_or_else(|| {
            let reader = InUse::default();
            entry.reader = Arc::downgrade(&reader);
            reader
        }))
    }

    /// The file does not go while `reader` lives.
    pub(super) fn held_by(&mut self, digest: &Digest, reader: &InUse) {
        if let Some(entry) = self.files.get_mut(digest) {
            entry.reader = Arc::downgrade(reader);
        }
    }

    /// Whether somebody reads it.
    pub(super) fn is_in_use(&self, digest: &Digest) -> bool {
        self.files.get(digest).is_some_and(|entry| entry.reader.strong_count() > 0)
    }

    /// Strikes a file out; its size, if it was there.
    pub(super) fn remove(&mut self, digest: &Digest) -> Option<u64> {
        self.take(digest).map(|entry| entry.size)
    }

    fn take(&mut self, digest: &Digest) -> Option<Entry> {
        let entry = self.files.remove(digest)?;
        let queue = self.queue(entry.size);
        queue.order.remove(&entry.used);
        queue.bytes = queue.bytes.saturating_sub(entry.size);
        self.touched.remove(digest);
        Some(entry)
    }

    /// Sets room aside for a file that is being put into place, until [`Self::release`], and strikes out what must go for it.
    /// `None` when what nobody reads is not enough: then nothing was struck out and nothing set aside.
    pub(super) fn reserve(&mut self, bytes: u64) -> Option<Vec<(Digest, u64)>> {
        let (victims, enough) = self.fit(bytes, self.files_max.saturating_sub(1));
        if !enough {
            self.give_back(victims);
            return None;
        }
        self.reserved = self.reserved.saturating_add(bytes);
        Some(sizes(victims))
    }

    /// Gives back what [`Self::reserve`] set aside.
    pub(super) fn release(&mut self, bytes: u64) {
        self.reserved = self.reserved.saturating_sub(bytes);
    }

    /// Strikes out what is too much, as far as nobody reads it.
    pub(super) fn trim(&mut self) -> Vec<(Digest, u64)> {
        sizes(self.fit(0, self.files_max).0)
    }

    fn fit(&mut self, incoming: u64, files_max: usize) -> (Vec<(Digest, Entry)>, bool) {
        let incoming = incoming.saturating_add(self.reserved);
        self.evict_until(|ledger, _| {
            ledger.bytes().saturating_add(incoming) <= ledger.limit_bytes && ledger.files.len() <= files_max
        })
    }

    /// Strikes out what must go so that at least `bytes` become free, as far as nobody reads it.
    pub(super) fn shed(&mut self, bytes: u64) -> Vec<(Digest, u64)> {
        sizes(self.evict_until(|_, freed| freed >= bytes).0)
    }

    /// As [`Self::shed`], but when that does not free as much, nothing goes.
    pub(super) fn shed_all_of(&mut self, bytes: u64) -> Option<Vec<(Digest, u64)>> {
        let (victims, enough) = self.evict_until(|_, freed| freed >= bytes);
        if enough {
            return Some(sizes(victims));
        }
        self.give_back(victims);
        None
    }

    /// Strikes out one file after the other until `enough` says so of the bytes that became free, or there is none left.
    fn evict_until(&mut self, enough: impl Fn(&Self, u64) -> bool) -> (Vec<(Digest, Entry)>, bool) {
        let (mut victims, mut freed) = (Vec::new(), 0_u64);
        while !enough(self, freed) {
            let Some(digest) = self.next_victim() else { return (victims, false) };
            let Some(entry) = self.take(&digest) else { return (victims, false) };
            freed = freed.saturating_add(entry.size);
            victims.push((digest, entry));
        }
        (victims, true)
    }

    fn give_back(&mut self, victims: Vec<(Digest, Entry)>) {
        for (digest, entry) in victims {
            // Written to disk again, perhaps for nothing.
            self.touched.insert(digest);
            self.enter(digest, entry);
        }
    }

    /// Up to `count` files whose time of last use is not on disk yet.
    pub(super) fn take_touched(&mut self, count: usize) -> Vec<(Digest, Timestamp)> {
        let taken: Vec<Digest> = self.touched.iter().take(count).copied().collect();
        taken
            .into_iter()
            .filter_map(|digest| {
                self.touched.remove(&digest);
                self.files.get(&digest).map(|entry| (digest, entry.used.0))
            })
            .collect()
    }

    fn next_victim(&self) -> Option<Digest> {
        let small = self.first_idle(&self.small);
        let large = self.first_idle(&self.large);
        let small_are_many = self.small.bytes > self.limit_bytes / SMALL_SHARE;
        match (small, large) {
            (Some((small_used, small)), Some((large_used, _))) if small_are_many && small_used < large_used => {
                Some(*small)
            }
            (_, Some((_, large))) => Some(*large),
            (Some((_, small)), None) => Some(*small),
            (None, None) => None,
        }
    }

    /// The least recently used one that nobody reads. Those that are read were used lately, and are as few as connections.
    fn first_idle<'a>(&self, queue: &'a Queue) -> Option<(&'a Place, &'a Digest)> {
        queue.order.iter().find(|(_, digest)| !self.is_in_use(digest))
    }

    fn queue(&mut self, size: u64) -> &mut Queue {
        if size <= SMALL_BYTES_MAX { &mut self.small } else { &mut self.large }
    }
}

fn sizes(victims: Vec<(Digest, Entry)>) -> Vec<(Digest, u64)> {
    victims.into_iter().map(|(digest, entry)| (digest, entry.size)).collect()
}

/// Uses closer together than this are one.
const RESOLUTION: Duration = Duration::from_secs(1);
/// Bytes up to which a file is small.
const SMALL_BYTES_MAX: u64 = 64 * crate::limits::KIB;
/// Small files go last while they take less than one part in so many.
const SMALL_SHARE: u64 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: u64 = 1_000_000;

    fn digest(name: u64) -> Digest {
        Digest::sha256(&name.to_be_bytes())
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    /// What goes so that so many more bytes fit.
    fn room(ledger: &mut Ledger, bytes: u64) -> Vec<(Digest, u64)> {
        let victims = ledger.reserve(bytes).unwrap();
        ledger.release(bytes);
        victims
    }

    fn names(victims: &[(Digest, u64)]) -> Vec<Digest> {
        victims.iter().map(|(digest, _)| *digest).collect()
    }

    #[test]
    fn the_least_recently_used_goes_first_and_no_more_than_needed() {
        let mut ledger = Ledger::new(4 * LARGE, 10);
        for name in 0..4 {
            ledger.insert(digest(name), LARGE, at(i64::try_from(name).unwrap()));
        }
        ledger.touch(&digest(0), at(10));
        assert!(ledger.trim().is_empty());
        assert_eq!(names(&room(&mut ledger, 1)), [digest(1)]);
        assert_eq!(names(&room(&mut ledger, 2 * LARGE)), [digest(2)]);
        assert_eq!((ledger.bytes(), ledger.files()), (2 * LARGE, 2));
    }

    #[test]
    fn two_files_on_their_way_do_not_share_one_room() {
        let mut ledger = Ledger::new(2 * LARGE, 10);
        ledger.insert(digest(0), LARGE, at(0));
        assert!(ledger.reserve(LARGE).unwrap().is_empty());
        assert_eq!(names(&ledger.reserve(LARGE).unwrap()), [digest(0)]);
        ledger.release(LARGE);
        ledger.insert(digest(1), LARGE, at(1));
        ledger.release(LARGE);
        assert!(room(&mut ledger, LARGE).is_empty());
    }

    #[test]
    fn small_files_go_last_while_they_are_few() {
        let mut ledger = Ledger::new(2 * LARGE + 1000, 10);
        ledger.insert(digest(0), 1000, at(0));
        ledger.insert(digest(1), LARGE, at(1));
        ledger.insert(digest(2), LARGE, at(2));
        assert_eq!(names(&room(&mut ledger, LARGE)), [digest(1)]);
        assert_eq!(names(&room(&mut ledger, 2 * LARGE + 1000)), [digest(2), digest(0)]);
    }

    #[test]
    fn small_files_go_by_age_once_they_are_many() {
        let mut ledger = Ledger::new(20 * 60_000 + LARGE, 100);
        for name in 0..20 {
            ledger.insert(digest(name), 60_000, at(0));
        }
        ledger.insert(digest(100), LARGE, at(1));
        assert_eq!(names(&room(&mut ledger, 1)), [digest(0)]);
    }

    #[test]
    fn the_number_of_files_is_bounded_too() {
        let mut ledger = Ledger::new(u64::MAX, 3);
        ledger.insert(digest(0), 1, at(0));
        ledger.insert(digest(1), 1, at(1));
        assert!(room(&mut ledger, 1).is_empty());
        ledger.insert(digest(2), 1, at(2));
        assert!(ledger.trim().is_empty());
        assert_eq!(names(&room(&mut ledger, 1)), [digest(0)]);
        for name in 3..5 {
            ledger.insert(digest(name), 1, at(3));
        }
        assert_eq!(names(&ledger.trim()), [digest(1)]);
    }

    #[test]
    fn entering_a_file_again_counts_it_once() {
        let mut ledger = Ledger::new(u64::MAX, 10);
        ledger.insert(digest(0), 10, at(0));
        ledger.insert(digest(0), LARGE, at(0));
        assert_eq!((ledger.bytes(), ledger.files()), (LARGE, 1));
        assert_eq!(ledger.remove(&digest(0)), Some(LARGE));
        assert_eq!(ledger.remove(&digest(0)), None);
        assert_eq!((ledger.bytes(), ledger.files()), (0, 0));
    }

    #[test]
    fn times_are_written_once_for_many_uses() {
        let mut ledger = Ledger::new(u64::MAX, 10);
        ledger.insert(digest(0), 10, at(0));
        for second in 0..100 {
            ledger.touch(&digest(0), at(second));
        }
        assert_eq!(ledger.take_touched(10), [(digest(0), at(99))]);
        assert!(ledger.take_touched(10).is_empty());
    }

    #[test]
    fn shedding_frees_what_was_asked_or_everything() {
        let mut ledger = Ledger::new(u64::MAX, 10);
        for name in 0..4 {
            ledger.insert(digest(name), LARGE, at(0));
        }
        assert_eq!(ledger.shed(LARGE + 1).len(), 2);
        assert_eq!(ledger.shed(u64::MAX).len(), 2);
        assert!(ledger.shed(1).is_empty());
    }

    #[test]
    fn what_is_read_does_not_go_and_without_it_there_may_be_no_room() {
        let mut ledger = Ledger::new(3 * LARGE, 10);
        for name in 0..3 {
            ledger.insert(digest(name), LARGE, at(i64::try_from(name).unwrap()));
        }
        let readers = [0, 1].map(|name| ledger.hold(&digest(name)).unwrap());
        // Used again, it is still read.
        ledger.touch(&digest(1), at(100));
        assert_eq!(names(&room(&mut ledger, LARGE)), [digest(2)]);
        assert_eq!(ledger.reserve(2 * LARGE), None);
        assert_eq!((ledger.bytes(), ledger.shed_all_of(1)), (2 * LARGE, None));
        assert_eq!(ledger.shed(u64::MAX), []);
        drop(readers);
        assert_eq!(names(&ledger.shed_all_of(LARGE).unwrap()), [digest(0)]);
        assert_eq!(ledger.shed_all_of(2 * LARGE), None, "one is left");
        assert_eq!((ledger.bytes(), ledger.files()), (LARGE, 1));
    }
}
