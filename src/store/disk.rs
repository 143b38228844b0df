//! The file operations of the cache, each in one place: so a test can make any of them fail, and record their order.
//!
//! In a release each function is the system call and nothing else.

use std::fs::{DirBuilder, File, Metadata, ReadDir};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timestamps};
use rustix::io::Errno;

use super::faults::{Step, step};

/// Creates a new file, 0600; what lies there already is an error, links too.
pub(super) fn create_file(path: &Path) -> io::Result<File> {
    step(&Step::Create(path))?;
    File::options().read(true).write(true).create_new(true).mode(FILE_MODE).open(path)
}

/// Creates a directory and its parents, 0700, where they are missing.
pub(super) fn create_directory(path: &Path) -> io::Result<()> {
    step(&Step::CreateDirectory(path))?;
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)
}

/// Opens `name` in a directory that is open, or by itself; `path` is where that lies.
pub(super) fn open_at(path: &Path, directory: Option<&OwnedFd>, name: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    step(&Step::Open(path)).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    match directory {
        Some(directory) => rustix::fs::openat(directory, name, flags, Mode::empty()),
        None => rustix::fs::open(name, flags, Mode::empty()),
    }
}

/// Writes all of `bytes` at `offset` of `file`, which lies at `path`.
pub(super) fn write_at(path: &Path, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    if let Err(error) = step(&Step::Write { path, bytes, offset }) {
        // A disk that fails has often taken a part.
        file.write_all_at(bytes.get(..bytes.len() / 2).unwrap_or_default(), offset)?;
        return Err(error);
    }
    file.write_all_at(bytes, offset)
}

/// Reads at `offset` of a file below `root` into the unused room of `buffer`; returns how many bytes came, 0 at the end.
pub(super) fn read_at(root: &Path, file: &File, offset: u64, buffer: &mut Vec<u8>) -> io::Result<usize> {
    step(&Step::Read(root))?;
    loop {
        match rustix::io::pread(file, rustix::buffer::spare_capacity(buffer), offset) {
            Err(Errno::INTR) => {}
            read => return Ok(read?),
        }
    }
}

/// Makes the content of `file`, which lies at `path`, survive a power cut.
pub(super) fn sync_file(path: &Path, file: &File) -> io::Result<()> {
    step(&Step::SyncFile(path))?;
    file.sync_data()
}

/// Makes a rename or creation in that directory survive a power cut.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    step(&Step::SyncDirectory(path))?;
    match File::open(path)?.sync_all() {
        // Not every file system knows such a thing; those that do not keep names by other means.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        synced => synced,
    }
}

/// Renames, in place of what lies there.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    step(&Step::Rename { from, to })?;
    std::fs::rename(from, to)
}

/// Removes a file.
pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    step(&Step::Remove(path))?;
    std::fs::remove_file(path)
}

/// Lists a directory.
pub(super) fn list(path: &Path) -> io::Result<ReadDir> {
    step(&Step::List(path))?;
    std::fs::read_dir(path)
}

/// What lies at `path`, which may be a link.
pub(super) fn look(path: &Path) -> io::Result<Metadata> {
    step(&Step::Look(path))?;
    std::fs::symlink_metadata(path)
}

/// Sets times of a file.
pub(super) fn set_times(path: &Path, times: &Timestamps) -> io::Result<()> {
    step(&Step::SetTimes(path))?;
    Ok(rustix::fs::utimensat(CWD, path, times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Bytes free for us on the file system that holds `path`.
pub(super) fn free_bytes(path: &Path) -> io::Result<u64> {
    step(&Step::FreeSpace(path))?;
    let file_system = rustix::fs::statvfs(path)?;
    Ok(file_system.f_bavail.saturating_mul(file_system.f_frsize))
}

pub(super) const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
