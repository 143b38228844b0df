//! Files by name or by pattern: `*` and `?` in the parts of a path, as a shell expands them.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use super::files::Files;
use crate::limits::POLICY_FILES_MAX;

/// A pattern cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PatternError {
    /// A policy that is not there would be a policy that is not asked.
    #[error("no file matches \"{0}\"")]
    NoMatch(String),
    /// More than anybody writes.
    #[error("\"{0}\" matches more than {POLICY_FILES_MAX} files")]
    TooMany(String),
    /// A directory cannot be listed.
    #[error("cannot list {directory}: {why}")]
    Unreadable {
        /// The directory.
        directory: String,
        /// Why.
        why: String,
    },
    /// What other programs expand, and this one does not.
    #[error("\"{0}\" uses `[` or `**`; only `*` and `?` are known, each within one part of a path")]
    Unknown(String),
}

/// The files that `pattern` names, sorted, relative as the pattern is. Directories that are looked into are watched, so that
/// a file which appears later is noticed. Hidden files match only a pattern that begins with a dot.
pub(super) fn expand(files: &mut Files, pattern: &str) -> Result<Vec<PathBuf>, PatternError> {
    if pattern.contains('[') || pattern.contains("**") {
        return Err(PatternError::Unknown(pattern.to_owned()));
    }
    if !is_pattern(pattern) {
        return Ok(vec![PathBuf::from(pattern)]);
    }
    let mut found = vec![PathBuf::new()];
    for part in Path::new(pattern).components() {
        found = match part {
            Component::Normal(name) if name.to_str().is_some_and(is_pattern) => {
                let mut deeper = Vec::new();
                for directory in &found {
                    deeper.extend(matching(files, directory, name)?);
                    if deeper.len() > POLICY_FILES_MAX {
                        return Err(PatternError::TooMany(pattern.to_owned()));
                    }
                }
                deeper
            }
            Component::Normal(_)
            | Component::Prefix(_)
            | Component::RootDir
            | Component::CurDir
            | Component::ParentDir => found.into_iter().map(|path| path.join(part)).collect(),
        };
    }
    // What cannot be looked at, such as a link to nowhere, stays and is an error when it is read: a policy that vanishes
    // must not be one less to satisfy.
    found.retain(|path| {
        let path = files.path(path);
        match std::fs::symlink_metadata(&path) {
            Ok(_) => !path.is_dir(),
            Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
        }
    });
    found.sort();
    if found.is_empty() {
        return Err(PatternError::NoMatch(pattern.to_owned()));
    }
    Ok(found)
}

fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?'])
}

fn matching(files: &mut Files, directory: &Path, pattern: &OsStr) -> Result<Vec<PathBuf>, PatternError> {
    let looked_into = match files.path(directory) {
        path if path.as_os_str().is_empty() => PathBuf::from("."),
        path => path,
    };
    files.watch(&looked_into);
    let unreadable = |error: std::io::Error| PatternError::Unreadable {
        directory: looked_into.display().to_string(),
        why: error.to_string(),
    };
    if !looked_into.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for (number, entry) in std::fs::read_dir(&looked_into).map_err(unreadable)?.enumerate() {
        if number >= ENTRIES_MAX {
            return Err(unreadable(std::io::Error::other(format!("it has more than {ENTRIES_MAX} entries"))));
        }
        let name = entry.map_err(unreadable)?.file_name();
        let (Some(text), Some(pattern)) = (name.to_str(), pattern.to_str()) else { continue };
        let hidden = text.starts_with('.') && !pattern.starts_with('.');
        if !hidden && matches(pattern.as_bytes(), text.as_bytes()) {
            found.push(directory.join(&name));
        }
    }
    Ok(found)
}

/// Whether `*` (any run) and `?` (any one byte) make `text` of `pattern`. Linear in both: only the last `*` is tried again.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut seen) = (0_usize, 0_usize);
    let mut retry: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(seen) {
        match pattern.get(at) {
            Some(b'*') => {
                retry = Some((at + 1, seen));
                at += 1;
            }
            Some(wanted) if wanted == byte || *wanted == b'?' => {
                at += 1;
                seen += 1;
            }
            Some(_) | None => {
                let Some((after, from)) = retry else { return false };
                retry = Some((after, from + 1));
                (at, seen) = (after, from + 1);
            }
        }
    }
    pattern.get(at..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

/// Entries of one directory that are looked at.
const ENTRIES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::watch::Watch;

    fn expanded(dir: &Path, pattern: &str) -> Result<Vec<String>, PatternError> {
        let found = expand(&mut Files::relative_to(dir.to_owned()), pattern)?;
        Ok(found.iter().map(|path| path.display().to_string()).collect())
    }

    #[test]
    fn a_pattern_names_files_in_their_order_and_no_hidden_ones() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.yaml", "c.json", ".hidden.yaml"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        for name in ["one/p.yaml", "two/p.yaml", "d.yaml/p"] {
            std::fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        assert_eq!(expanded(dir.path(), "*.yaml").unwrap(), ["a.yaml", "b.yaml"]);
        assert_eq!(expanded(dir.path(), "./?.yaml").unwrap(), ["./a.yaml", "./b.yaml"]);
        assert_eq!(expanded(dir.path(), "*/p.yaml").unwrap(), ["one/p.yaml", "two/p.yaml"]);
        assert_eq!(
            expanded(dir.path(), "named.yaml").unwrap(),
            ["named.yaml"],
            "whoever reads it says that it is missing"
        );
        let absolute = format!("{}/*.json", dir.path().display());
        assert_eq!(expanded(Path::new("elsewhere"), &absolute).unwrap().len(), 1);
    }

    #[test]
    fn a_pattern_that_matches_nothing_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        for pattern in ["*.yaml", "missing/*.yaml", "*/x/*.yaml"] {
            assert_eq!(expanded(dir.path(), pattern), Err(PatternError::NoMatch(pattern.to_owned())), "{pattern}");
        }
        for pattern in ["[ab].yaml", "**/a.yaml"] {
            assert_eq!(expanded(dir.path(), pattern), Err(PatternError::Unknown(pattern.to_owned())));
        }
    }

    #[test]
    fn a_file_that_appears_later_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.yaml"), "x").unwrap();
        let mut files = Files::relative_to(dir.path().to_owned());
        expand(&mut files, "*.yaml").unwrap();
        let mut watch = Watch::over(files.seen().to_vec());
        assert!(!watch.look());
        std::fs::write(dir.path().join("b.yaml"), "x").unwrap();
        assert_eq!([watch.look(), watch.look()], [false, true]);
    }

    #[test]
    fn the_number_of_files_is_bounded_on_both_sides() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..POLICY_FILES_MAX {
            std::fs::write(dir.path().join(format!("{number}.yaml")), "x").unwrap();
        }
        assert_eq!(expanded(dir.path(), "*.yaml").unwrap().len(), POLICY_FILES_MAX);
        std::fs::write(dir.path().join("more.yaml"), "x").unwrap();
        assert_eq!(expanded(dir.path(), "*.yaml"), Err(PatternError::TooMany("*.yaml".to_owned())));
    }

    #[test]
    fn stars_and_question_marks_match_as_in_a_shell() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("?", "a", true),
            ("?", "", false),
            ("*.yaml", "a.yaml.bak", false),
            ("*a", "aaaa", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_link_to_nowhere_is_not_left_out() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.yaml"), "").unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("b.yaml")).unwrap();
        std::fs::create_dir(folder.path().join("c.yaml")).unwrap();
        let mut files = Files::relative_to(folder.path().to_owned());
        let found = expand(&mut files, "*.yaml").unwrap();
        assert_eq!(found, [PathBuf::from("a.yaml"), PathBuf::from("b.yaml")], "reading b.yaml says what is wrong");
    }
}
