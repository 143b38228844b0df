//! Files that appear whole or not at all.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::error::StateError;

/// The whole file, at most `max` bytes; blocking.
pub(super) fn read(path: &Path, max: u64) -> Result<Vec<u8>, StateError> {
    let failed = |source: io::Error| {
        if source.kind() == io::ErrorKind::NotFound {
            return StateError::Absent { path: path.to_owned() };
        }
        StateError::Io { what: "read", path: path.to_owned(), source }
    };
    // A pipe or device would block the start for ever, so the kind is asked before the file is opened.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("it is not a regular file")));
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > max {
        return Err(StateError::TooLarge { path: path.to_owned(), max });
    }
    Ok(bytes)
}

/// Writes beside it, syncs and renames, so that a reader meets the old file or the new one; blocking. Only under
/// [`lock`], because the name beside it is always the same.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    let beside = path.with_extension("json.new");
    let failed = |source| StateError::Io { what: "write", path: path.to_owned(), source };
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let written = File::options().write(true).create_new(true).mode(FILE_MODE).open(&beside).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let renamed = written.and_then(|()| std::fs::rename(&beside, path));
    if renamed.is_err() {
        // The first failure is what is told.
        drop(std::fs::remove_file(&beside));
    }
    renamed.map_err(failed)?;
    let folder = path.parent().map(File::open);
    folder.map_or(Ok(()), |folder| folder.and_then(|folder| folder.sync_all())).map_err(failed)
}

/// Makes the directory and locks it for this process until the file is dropped; blocking, but never waiting.
pub(super) fn lock(directory: &Path) -> Result<File, StateError> {
    let failed = |source| StateError::Io { what: "lock", path: directory.to_owned(), source };
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory).map_err(failed)?;
    let file = File::options().create(true).truncate(false).write(true).mode(FILE_MODE).open(directory.join("lock"));
    let file = file.map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StateError::Busy { path: directory.to_owned() }),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Nothing in it is secret, and other tools may want the trust root; only its owner may change it.
const FILE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o700;
