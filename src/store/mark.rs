//! Small files of ours that must be whole or not be believed: one number with its checksum, and the key of the MACs.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use super::layout::{open_below, replace_file};
use crate::clock::Timestamp;
use crate::limits::TIME_STEP_BACK;
use crate::oci::Digest;

/// The number in that file; `None` when there is none or it is damaged.
pub(super) fn read_mark(directory: &Path, name: &str) -> io::Result<Option<i64>> {
    let Some(text) = read_small(directory, name)? else { return Ok(None) };
    let mark = text.split_whitespace().next().and_then(|number| number.parse().ok());
    match mark {
        Some(mark) if text == mark_text(name, mark) => Ok(Some(mark)),
        _ => {
            tracing::warn!(path = %directory.join(name).display(), "the file is damaged and is ignored");
            Ok(None)
        }
    }
}

/// Replaces the number in that file.
pub(super) fn write_mark(directory: &Path, name: &str, mark: i64) -> io::Result<()> {
    replace_file(&directory.join(name), mark_text(name, mark).as_bytes())
}

/// The key of the records' MACs: 64 hexadecimal digits in a file of its own, made up where there is none.
pub(super) fn mac_key(directory: &Path) -> io::Result<[u8; 32]> {
    let name = MAC_KEY;
    let known = read_small(directory, name)?;
    if let Some(text) = &known {
        let mut key = [0; 32];
        match hex::decode_to_slice(text.trim(), &mut key) {
            Ok(()) => return Ok(key),
            Err(error) => {
                tracing::warn!(%error, path = %directory.join(name).display(),
                    "not a key of 64 hexadecimal digits; a new one is made and every verdict is reached again");
            }
        }
    }
    let mut key = [0; 32];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| io::Error::other("the system gives no random bytes"))?;
    replace_file(&directory.join(name), format!("{}\n", hex::encode(key)).as_bytes())?;
    tracing::info!(path = %directory.join(name).display(),
        "made a key for the verdict store: it detects corruption, not tampering by whoever can read it");
    Ok(key)
}

/// The key that [`mac_key`] made; nothing is made here.
///
/// # Errors
/// Also when there is none, or something else in its file.
pub(super) fn known_mac_key(directory: &Path) -> io::Result<[u8; 32]> {
    let text = read_small(directory, MAC_KEY)?;
    let text = text.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{MAC_KEY} is not there")))?;
    let mut key = [0; 32];
    let decoded = hex::decode_to_slice(text.trim(), &mut key);
    decoded.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{MAC_KEY}: {error}")))?;
    Ok(key)
}

fn mark_text(name: &str, mark: i64) -> String {
    format!("{mark} {}\n", Digest::sha256(format!("{name} {mark}").as_bytes()).hex())
}

fn read_small(directory: &Path, name: &str) -> io::Result<Option<String>> {
    let Some(file) = open_below(directory, &[], name)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(SMALL_FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

const MAC_KEY: &str = "verdict.key";
const SMALL_FILE_BYTES_MAX: u64 = 4096;

/// The largest time seen, by this process and the ones before it.
#[derive(Debug)]
pub(super) struct SeenTime {
    /// `None`: nothing is kept.
    directory: Option<PathBuf>,
    largest: AtomicI64,
    written: AtomicI64,
    said: AtomicBool,
}

impl SeenTime {
    /// Blocks.
    pub(super) fn open(directory: Option<PathBuf>) -> Self {
        let mark = directory.as_deref().map_or(Ok(None), |directory| read_mark(directory, SEEN_TIME));
        let mark = mark.unwrap_or_else(|error| {
            tracing::warn!(%error, "the largest time seen is not known");
            None
        });
        let mark = AtomicI64::new(mark.unwrap_or(i64::MIN));
        let written = AtomicI64::new(mark.load(Ordering::Relaxed));
        Self { directory, largest: mark, written, said: AtomicBool::new(false) }
    }

    /// Whether `now` lies more than `limits::TIME_STEP_BACK` behind the largest time seen.
    pub(super) fn went_back(&self, now: Timestamp) -> bool {
        let before = self.largest.fetch_max(now.unix_millis(), Ordering::Relaxed);
        let largest = Timestamp::from_unix_millis(before);
        let back = largest.since(now) > TIME_STEP_BACK;
        if back && !self.said.swap(true, Ordering::Relaxed) {
            tracing::error!(%now, %largest, file = SEEN_TIME,
                "the clock stepped back: new keyless signatures cannot be judged. Set the clock right; \
                 if it had been wrong before, stop sealgate, remove the file from server.data_dir and start it again");
        }
        back
    }

    /// Keeps it for the next process; at most once a call, and only when it grew. Blocks.
    pub(super) fn persist(&self) {
        let largest = self.largest.load(Ordering::Relaxed);
        let Some(directory) = &self.directory else { return };
        if largest <= self.written.load(Ordering::Relaxed) {
            return;
        }
        match write_mark(directory, SEEN_TIME, largest) {
            Ok(()) => self.written.store(largest, Ordering::Relaxed),
            Err(error) => tracing::warn!(%error, "the largest time seen is not kept"),
        }
    }
}

const SEEN_TIME: &str = "seen-time";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn time_may_step_back_a_little() {
        let seen = SeenTime::open(None);
        let now = Timestamp::from_unix_seconds(1_000_000);
        assert!(!seen.went_back(now));
        assert!(!seen.went_back(now.minus(TIME_STEP_BACK)));
        assert!(seen.went_back(now.minus(TIME_STEP_BACK + Duration::from_millis(1))));
        assert!(!seen.went_back(now));
        assert!(!seen.went_back(Timestamp::MAX));
        assert!(seen.went_back(Timestamp::MIN));
    }

    #[test]
    fn the_largest_time_seen_outlives_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let open = || SeenTime::open(Some(directory.path().to_owned()));
        let now = Timestamp::from_unix_seconds(1_000_000);
        let seen = open();
        assert!(!seen.went_back(now));
        seen.persist();
        assert!(open().went_back(now.minus(Duration::from_hours(1))));
        std::fs::write(directory.path().join(SEEN_TIME), "1 2\n").unwrap();
        assert!(!open().went_back(now.minus(Duration::from_hours(1))));
    }

    #[test]
    fn a_mark_with_another_name_or_number_is_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        write_mark(directory.path(), "one", 5).unwrap();
        assert_eq!(read_mark(directory.path(), "one").unwrap(), Some(5));
        std::fs::copy(directory.path().join("one"), directory.path().join("two")).unwrap();
        assert_eq!(read_mark(directory.path(), "two").unwrap(), None);
        let text = std::fs::read_to_string(directory.path().join("one")).unwrap();
        std::fs::write(directory.path().join("one"), text.replacen('5', "6", 1)).unwrap();
        assert_eq!(read_mark(directory.path(), "one").unwrap(), None);
        assert_eq!(read_mark(directory.path(), "three").unwrap(), None);
    }

    #[test]
    fn a_mac_key_is_made_once_and_replaced_when_it_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let key = mac_key(directory.path()).unwrap();
        assert_eq!(mac_key(directory.path()).unwrap(), key);
        std::fs::write(directory.path().join("verdict.key"), "short").unwrap();
        let other = mac_key(directory.path()).unwrap();
        assert_ne!(other, key);
        assert_eq!(mac_key(directory.path()).unwrap(), other);
    }
}
