//! Cached files as memory that nobody reads: what names a piece of a file to the connection, which sends it by `sendfile`.
//!
//! hyper keeps the protocol and passes body frames on as slices of memory. A slice of a mapping that is registered here can
//! be told from all others by its address ([`FileRegion::of`]), and then leaves from the file's descriptor without ever being
//! copied into this process. A writer that does not ask just writes the same valid bytes. Decision 0005 has the measurements.
#![expect(unsafe_code, reason = "the one place that maps files; the argument stands at the call")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::AsFd;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use memmap2::{Mmap, MmapOptions};
use rustix::io::ReadWriteFlags;

use super::ledger::InUse;

/// Mappings that live now, by the address of their first byte. At most as many as there are connections.
static LIVE: RwLock<BTreeMap<usize, Live>> = RwLock::new(BTreeMap::new());

#[derive(Debug)]
struct Live {
    length: usize,
    file: Arc<File>,
}

/// All of `file`, which has `length` bytes or will have them, as memory; it holds `reader` for as long as it lives. Costs two system calls and
/// no page.
///
/// # Errors
/// What the file system says.
pub(super) fn map(file: &Arc<File>, length: u64, reader: InUse) -> io::Result<Bytes> {
    let length = usize::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the file is written once, from its beginning to its end, and never again; slices are taken of what is written
    // alone. Eviction unlinks it, which leaves the mapping intact. Should somebody else change or cut it all the same, nothing happens here, because no code of this
    // process reads the memory: slices of it go to a plaintext socket alone, by `sendfile` (which reports a cut file) or
    // by `writev` (where the kernel reports a page that is not there as an error, not as a signal).
    let map = unsafe { MmapOptions::new().len(length).map(file.as_ref()) }?;
    let start = map.as_ptr().addr();
    let live = Live { length, file: Arc::clone(file) };
    LIVE.write().unwrap_or_else(PoisonError::into_inner).insert(start, live);
    Ok(Bytes::from_owner(Mapping { map, start, _reader: reader }))
}

/// A registered mapping; dropping it takes it off the list before the memory can become something else.
struct Mapping {
    map: Mmap,
    start: usize,
    _reader: InUse,
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        LIVE.write().unwrap_or_else(PoisonError::into_inner).remove(&self.start);
    }
}

/// Whether these bytes of a file can be sent without waiting for the disk, as far as looks at both ends and once a chunk between
/// them can tell: what was evicted from memory goes in larger pieces than that. A file system that does not say counts as
/// memory. Costs a system call a look, and never waits.
pub(super) fn is_in_memory(file: &File, offset: u64, length: u64) -> bool {
    let last = offset.saturating_add(length.saturating_sub(1));
    let starts = std::iter::successors(Some(offset), |at| at.checked_add(LOOK_BYTES)).take_while(|at| *at < last);
    starts.chain([last]).all(|at| {
        let mut byte = [0];
        let looked = rustix::io::preadv2(file, &mut [IoSliceMut::new(&mut byte)], at, ReadWriteFlags::NOWAIT);
        looked != Err(rustix::io::Errno::AGAIN)
    })
}

/// Bytes between two looks.
const LOOK_BYTES: u64 = 256 * 1024;

/// A piece of a cached file.
#[derive(Debug)]
pub struct FileRegion {
    file: Arc<File>,
    offset: u64,
}

impl FileRegion {
    /// The file that `slice` is a piece of, if it lies in a mapping of one.
    pub fn of(slice: &[u8]) -> Option<Self> {
        if slice.is_empty() {
            return None;
        }
        let start = slice.as_ptr().addr();
        let live = LIVE.read().unwrap_or_else(PoisonError::into_inner);
        let (mapped, region) = live.range(..=start).next_back()?;
        let before = start.checked_sub(*mapped)?;
        if before.checked_add(slice.len())? > region.length {
            return None;
        }
        Some(Self { file: Arc::clone(&region.file), offset: u64::try_from(before).ok()? })
    }

    /// Sends up to `length` bytes of it to `socket`, which must not block. Returns how many the socket took.
    ///
    /// # Errors
    /// `WouldBlock` when the socket takes none now; `UnexpectedEof` when the file has been cut; what the system says.
    pub fn send_to(&self, socket: impl AsFd, length: usize) -> io::Result<usize> {
        let mut offset = self.offset;
        match rustix::fs::sendfile(socket, self.file.as_ref(), Some(&mut offset), length)? {
            0 if length > 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            sent => Ok(sent),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn file(content: &[u8]) -> Arc<File> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        Arc::new(file)
    }

    #[test]
    fn a_slice_of_a_mapping_is_known_by_its_address_for_as_long_as_it_lives() {
        let mapping = map(&file(b"0123456789"), 10, InUse::default()).unwrap();
        let region = FileRegion::of(&mapping.slice(3..7)).unwrap();
        assert_eq!(region.offset, 3);
        assert!(FileRegion::of(b"0123456789").is_none());
        let start = mapping.as_ptr().addr();
        let part = mapping.slice(9..);
        drop(mapping);
        assert!(FileRegion::of(&part).is_some(), "a part keeps the whole");
        drop(part);
        assert!(!LIVE.read().unwrap().contains_key(&start));
    }

    /// Takes a file's pages out of memory, which needs that they are on the disk.
    fn forget(file: &File) {
        file.sync_all().unwrap();
        rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }

    #[test]
    fn what_has_left_memory_is_seen_at_either_end_and_between() {
        let length = 8 * LOOK_BYTES;
        let file = file(&vec![7; usize::try_from(length).unwrap()]);
        assert!(is_in_memory(&file, 0, length) && is_in_memory(&file, 5, 1) && is_in_memory(&file, length - 1, 1));
        forget(&file);
        if is_in_memory(&file, 0, length) {
            // Files of this file system are memory.
            return;
        }
        assert!(!is_in_memory(&file, length - 1, 1));
        // Without readahead, reading one place brings in that place.
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random).unwrap();
        std::os::unix::fs::FileExt::read_exact_at(&*file, &mut [0; 1], 4 * LOOK_BYTES).unwrap();
        assert!(is_in_memory(&file, 4 * LOOK_BYTES, 1));
        assert!(!is_in_memory(&file, 4 * LOOK_BYTES, LOOK_BYTES), "not its other end");
        assert!(!is_in_memory(&file, 3 * LOOK_BYTES, LOOK_BYTES + 1), "not its beginning");
        assert!(!is_in_memory(&file, 0, length));
    }

    #[test]
    fn a_region_is_sent_from_its_place_and_no_further_than_asked() {
        let mapping = map(&file(b"0123456789"), 10, InUse::default()).unwrap();
        let (mut reader, writer) = UnixStream::pair().unwrap();
        assert_eq!(FileRegion::of(&mapping.slice(3..7)).unwrap().send_to(&writer, 4).unwrap(), 4);
        drop(writer);
        let mut sent = String::new();
        reader.read_to_string(&mut sent).unwrap();
        assert_eq!(sent, "3456");
    }

    #[test]
    fn a_file_that_was_cut_is_an_error_and_no_signal() {
        let file = file(&[7; 10_000]);
        let mapping = map(&file, 10_000, InUse::default()).unwrap();
        let region = FileRegion::of(&mapping.slice(5000..)).unwrap();
        file.set_len(5000).unwrap();
        let (_reader, writer) = UnixStream::pair().unwrap();
        assert_eq!(region.send_to(&writer, 5000).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
