//! What is wrong with a configuration, where, and what to do.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

/// The configuration cannot be used; the process must not start with it.
///
/// One line: file, line and column where they are known, the key's path, what is wrong, what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file that is wrong.
    pub file: PathBuf,
    /// Line and column in it, from 1.
    pub place: Option<Place>,
    /// The key, such as `upstream[1].endpoint`; empty when the whole file is meant.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it; empty when the problem says it already.
    pub hint: String,
}

/// A place in a text file, from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.file.display())?;
        if let Some(place) = self.place {
            write!(formatter, ":{}:{}", place.line, place.column)?;
        }
        formatter.write_str(": ")?;
        if !self.key.is_empty() {
            write!(formatter, "{}: ", self.key)?;
        }
        formatter.write_str(&self.problem)?;
        if !self.hint.is_empty() {
            write!(formatter, "; {}", self.hint)?;
        }
        Ok(())
    }
}

/// The text of a configuration file with its name, for pointing at keys.
#[derive(Debug, Clone)]
pub(super) struct Source {
    file: PathBuf,
    text: String,
}

impl Source {
    /// That text of that file.
    pub(super) fn new(file: impl Into<PathBuf>, text: String) -> Self {
        Self { file: file.into(), text }
    }

    /// The file's name, as it was given.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// The text.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// An error that concerns the value of `key`.
    pub(super) fn at(&self, key: &str, problem: impl fmt::Display, hint: &str) -> ConfigError {
        let place = self.locate(key).and_then(|span| self.place(span.start));
        ConfigError {
            file: self.file.clone(),
            place,
            key: key.to_owned(),
            problem: problem.to_string(),
            hint: hint.to_owned(),
        }
    }

    /// An error that the TOML parser found.
    pub(super) fn syntax(&self, error: &toml::de::Error) -> ConfigError {
        let place = error.span().and_then(|span| self.place(span.start));
        ConfigError {
            file: self.file.clone(),
            place,
            key: String::new(),
            problem: one_line(error.message()),
            hint: String::new(),
        }
    }

    fn place(&self, offset: usize) -> Option<Place> {
        let before = self.text.get(..offset)?;
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.matches('\n').count() + 1;
        Some(Place { line, column: before.get(line_start..)?.chars().count() + 1 })
    }

    /// Where the value of a key path such as `upstream[1].endpoint` stands, or the nearest table around it.
    fn locate(&self, key: &str) -> Option<Range<usize>> {
        let root = DeTable::parse(&self.text).ok()?;
        let mut table = root.get_ref();
        let mut nearest = None;
        for step in key.split('.') {
            let (name, index) = step_of(step);
            let Some(mut value) = table.get(name) else { break };
            if let (Some(index), DeValue::Array(items)) = (index, value.get_ref()) {
                value = items.get(index)?;
            }
            nearest = Some(value.span());
            let DeValue::Table(inner) = value.get_ref() else { break };
            table = inner;
        }
        nearest
    }
}

/// `upstream[1]` → `upstream` and 1.
fn step_of(step: &str) -> (&str, Option<usize>) {
    match step.strip_suffix(']').and_then(|rest| rest.split_once('[')) {
        Some((name, index)) => (name, index.parse().ok()),
        None => (step, None),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Source {
        Source::new(
            "sealgate.toml",
            "[server]\nlisten = \"x\"\n\n[[upstream]]\nhost = \"a\"\n[[upstream]]\nhost = \"b\"\n".to_owned(),
        )
    }

    #[test]
    fn an_error_points_at_the_value_of_its_key() {
        let error = source().at("upstream[1].host", "no such host", "correct it");
        assert_eq!(error.to_string(), "sealgate.toml:7:8: upstream[1].host: no such host; correct it");
    }

    #[test]
    fn an_error_about_an_absent_key_points_at_the_table_around_it() {
        assert_eq!(source().at("upstream[1].endpoint", "x", "").place, Some(Place { line: 6, column: 1 }));
        assert_eq!(source().at("policy.containers_policy", "x", "").place, None);
    }

    #[test]
    fn a_syntax_error_names_line_and_column() {
        let text = "[server]\nlisten = \n";
        let source = Source::new("s.toml", text.to_owned());
        let error = source.syntax(&toml::from_str::<toml::Table>(text).unwrap_err());
        assert_eq!(error.place.map(|place| place.line), Some(2));
    }
}
