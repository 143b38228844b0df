//! Reading the files that a configuration names: bounded, remembered, checked for who may read them.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::watch::Seen;
use crate::limits::{CONFIG_DIRECTORY_FILES_MAX, CONFIG_FILE_BYTES_MAX};
use crate::oci::Digest;

/// Reads files relative to one directory and remembers which, and what was in them.
#[derive(Debug)]
pub(super) struct Files {
    base: PathBuf,
    read: Vec<ReadFile>,
    seen: Vec<Seen>,
    warnings: Vec<String>,
}

/// A file that was read, for noticing later that it changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadFile {
    /// The key that names it, such as `upstream[1].ca_file`.
    pub key: String,
    /// Where it is.
    pub path: PathBuf,
    /// What was in it.
    pub digest: Digest,
}

/// Whether others on the machine may know a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrecy {
    /// Anyone may read it.
    Public,
    /// A credential: a warning when everybody on the machine can read it.
    Credential,
}

/// A file cannot be read; the text names it and says why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read {path}: {why}")]
pub(super) struct ReadError {
    /// The file.
    pub path: String,
    /// Why.
    pub why: String,
}

impl Files {
    /// Files relative to `base`.
    pub(super) fn relative_to(base: PathBuf) -> Self {
        Self { base, read: Vec::new(), seen: Vec::new(), warnings: Vec::new() }
    }

    /// The path, seen from the base directory.
    pub(super) fn path(&self, path: &Path) -> PathBuf {
        if self.base.as_os_str().is_empty() { path.to_owned() } else { self.base.join(path) }
    }

    /// The whole file that `key` names, at most [`CONFIG_FILE_BYTES_MAX`] bytes and not empty.
    ///
    /// # Errors
    /// [`ReadError`] when it is missing, no regular file, empty, too big or unreadable.
    pub(super) fn read(&mut self, key: &str, path: &Path, secrecy: Secrecy) -> Result<Vec<u8>, ReadError> {
        let path = self.path(path);
        self.seen.push(Seen::now(&path));
        let bytes = read_bounded(&path)?;
        if secrecy == Secrecy::Credential && is_readable_by_everybody(&path) {
            self.warnings.push(format!(
                "{key}: {} can be read by every user of this machine; run: chmod o-rwx {0}",
                path.display()
            ));
        }
        self.read.push(ReadFile { key: key.to_owned(), path, digest: Digest::sha256(&bytes) });
        Ok(bytes)
    }

    /// All files of a directory whose names end in `suffix`, in the order of their names; empty ones too. A file that comes or goes
    /// later is noticed, since the directory then changes.
    ///
    /// # Errors
    /// [`ReadError`] when the directory cannot be listed, one of the files cannot be read, or there are more than
    /// [`CONFIG_DIRECTORY_FILES_MAX`].
    pub(super) fn read_directory(
        &mut self,
        key: &str,
        directory: &Path,
        suffix: &str,
    ) -> Result<Vec<(PathBuf, Vec<u8>)>, ReadError> {
        let path = self.path(directory);
        self.seen.push(Seen::now(&path));
        let error = |why: String| ReadError { path: path.display().to_string(), why };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&path).map_err(|source| error(reason(&source)))? {
            let name = entry.map_err(|source| error(reason(&source)))?.file_name();
            if name.to_str().is_some_and(|name| name.ends_with(suffix)) {
                names.push(name);
            }
        }
        if names.len() > CONFIG_DIRECTORY_FILES_MAX {
            return Err(error(format!("it has more than {CONFIG_DIRECTORY_FILES_MAX} files {suffix}")));
        }
        names.sort();
        let mut files = Vec::new();
        for name in names {
            let file = path.join(name);
            self.seen.push(Seen::now(&file));
            let is_empty = std::fs::metadata(&file).is_ok_and(|metadata| metadata.is_file() && metadata.len() == 0);
            let bytes = if is_empty { Vec::new() } else { read_bounded(&file)? };
            self.read.push(ReadFile { key: key.to_owned(), path: file.clone(), digest: Digest::sha256(&bytes) });
            files.push((file, bytes));
        }
        Ok(files)
    }

    /// A file whose content somebody else reads later: it must be there, and not be open to everybody.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(super) fn check(&mut self, key: &str, path: &Path, secrecy: Secrecy) -> Result<PathBuf, ReadError> {
        self.read(key, path, secrecy)?;
        // Its reader looks at it again for each use, so that a change of it is no reason for a restart.
        self.read.pop();
        Ok(self.path(path))
    }

    /// A file or directory that another module reads, and that counts when it changes or comes into being.
    pub(super) fn watch(&mut self, path: &Path) {
        self.seen.push(Seen::now(path));
    }

    /// Every file that was looked at, the missing ones too.
    pub(super) fn seen(&self) -> &[Seen] {
        &self.seen
    }

    /// What was read, and what was strange about it.
    pub(super) fn into_parts(self) -> (Vec<ReadFile>, Vec<String>) {
        (self.read, self.warnings)
    }
}

/// The whole file, at most [`CONFIG_FILE_BYTES_MAX`] bytes and not empty.
pub(super) fn read_bounded(path: &Path) -> Result<Vec<u8>, ReadError> {
    let error = |why: String| ReadError { path: path.display().to_string(), why };
    // A pipe or device named here would block the start for ever, so the kind is asked before the file is opened.
    let metadata = std::fs::metadata(path).map_err(|source| error(reason(&source)))?;
    if !metadata.is_file() {
        return Err(error("it is not a regular file".to_owned()));
    }
    let file = File::open(path).map_err(|source| error(reason(&source)))?;
    let mut bytes = Vec::new();
    file.take(CONFIG_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|source| error(reason(&source)))?;
    match u64::try_from(bytes.len()) {
        Ok(0) => Err(error("it is empty".to_owned())),
        Ok(length) if length <= CONFIG_FILE_BYTES_MAX => Ok(bytes),
        _ => Err(error(format!("it is larger than {CONFIG_FILE_BYTES_MAX} bytes"))),
    }
}

fn reason(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    if error.kind() == ErrorKind::NotFound {
        "there is no such file".to_owned()
    } else if error.kind() == ErrorKind::PermissionDenied {
        "this user may not read it".to_owned()
    } else {
        error.to_string()
    }
}

fn is_readable_by_everybody(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(dir: &tempfile::TempDir) -> Files {
        Files::relative_to(dir.path().to_owned())
    }

    #[test]
    fn a_file_of_exactly_the_bound_is_read_and_one_byte_more_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let max = usize::try_from(CONFIG_FILE_BYTES_MAX).unwrap();
        std::fs::write(dir.path().join("fits"), vec![b'a'; max]).unwrap();
        std::fs::write(dir.path().join("long"), vec![b'a'; max + 1]).unwrap();
        assert_eq!(files(&dir).read("k", Path::new("fits"), Secrecy::Public).unwrap().len(), max);
        assert!(files(&dir).read("k", Path::new("long"), Secrecy::Public).unwrap_err().why.contains("larger"));
    }

    #[test]
    fn a_missing_an_empty_and_a_special_file_are_errors_that_name_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("empty"), b"").unwrap();
        for name in ["missing", "empty", "."] {
            let error = files(&dir).read("k", Path::new(name), Secrecy::Public).unwrap_err();
            assert!(error.path.contains(name), "{error}");
        }
    }

    #[test]
    fn a_credential_that_everybody_can_read_is_warned_about() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        std::fs::write(&path, b"x").unwrap();
        for (mode, secrecy, warnings) in
            [(0o644, Secrecy::Credential, 1), (0o600, Secrecy::Credential, 0), (0o644, Secrecy::Public, 0)]
        {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let mut files = files(&dir);
            files.read("upstream[0].password_file", Path::new("password"), secrecy).unwrap();
            assert_eq!(files.into_parts().1.len(), warnings, "{mode:o}");
        }
    }
}
