//! Walking a document: every value knows its file, its line and its field, every object accepts the keys of its table alone.

use super::document::{CipError, Origin};
use crate::policy::keys::Object;
use crate::policy::yaml::{Member, Node};

/// A value of a document and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Value<'n> {
    node: &'n Node,
    file: &'n str,
    /// Such as `spec.authorities[0].key`; empty for the document.
    path: String,
    /// Of the key that it stands under.
    line: usize,
}

/// An object whose keys are all known; [`Fields::finish`] refuses those that nobody took.
#[derive(Debug)]
pub(super) struct Fields<'n> {
    place: Value<'n>,
    object: &'static Object,
    left: Vec<&'n Member>,
}

impl<'n> Value<'n> {
    /// A document of a file.
    pub(super) fn document(file: &'n str, node: &'n Node) -> Self {
        Self { node, file, path: String::new(), line: node.line }
    }

    pub(super) fn origin(&self) -> Origin {
        Origin { file: self.file.to_owned(), line: self.line }
    }

    /// An error at this value.
    pub(super) fn error(&self, problem: impl Into<String>) -> CipError {
        let field = if self.path.is_empty() { "the document" } else { &self.path };
        CipError { origin: self.origin(), field: field.to_owned(), problem: problem.into() }
    }

    /// A text that is not empty.
    pub(super) fn text(&self) -> Result<&'n str, CipError> {
        match self.node.as_str() {
            Ok("") => Err(self.error("is empty; remove it, or give it a value")),
            Ok(text) => Ok(text),
            Err(problem) => Err(self.error(problem)),
        }
    }

    pub(super) fn boolean(&self) -> Result<bool, CipError> {
        self.node.as_bool().map_err(|problem| self.error(problem))
    }

    /// One of a closed set of words.
    pub(super) fn one_of<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, CipError> {
        let text = self.text()?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(*value);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        Err(self.error(format!("unsupported value {text:?}; use {}", known.join(" or "))))
    }

    /// An `http` or `https` address. It is never contacted.
    pub(super) fn address(&self) -> Result<String, CipError> {
        let text = self.text()?;
        match url::Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(text.to_owned()),
            Ok(_) => Err(self.error(format!("{text:?} is no http or https address"))),
            Err(error) => Err(self.error(format!("{text:?} is no http or https address: {error}"))),
        }
    }

    /// The elements of a list that has some.
    pub(super) fn elements(&self) -> Result<Vec<Self>, CipError> {
        let elements = self.node.as_sequence().map_err(|problem| self.error(problem))?;
        if elements.is_empty() {
            return Err(self.error("is an empty list; remove it, or list something"));
        }
        let numbered = elements.iter().enumerate();
        Ok(numbered
            .map(|(index, node)| Self {
                node,
                file: self.file,
                path: format!("{}[{index}]", self.path),
                line: node.line,
            })
            .collect())
    }

    /// The members of an object of that kind: a key that its table does not list is an error, so is null.
    pub(super) fn object(&self, object: &'static Object) -> Result<Fields<'n>, CipError> {
        let members = self.node.as_mapping().map_err(|problem| self.error(problem))?;
        for member in members {
            let place = self.under(member);
            if let Some((_, instead)) = object.refused.iter().find(|(name, _)| *name == member.key) {
                return Err(place.error(format!("is not supported: {instead}")));
            }
            if !object.accepts(&member.key) {
                return Err(place.error(unknown(&member.key, object)));
            }
            if member.value.value == crate::policy::yaml::Value::Null {
                return Err(place.error("has no value; remove it, or give it one"));
            }
        }
        Ok(Fields { place: self.clone(), object, left: members.iter().collect() })
    }

    /// An object whose content nobody looks at, such as labels.
    pub(super) fn free_form(&self) -> Result<&'n [Member], CipError> {
        self.node.as_mapping().map_err(|problem| self.error(problem))
    }

    /// The value of a member of this object.
    pub(super) fn under(&self, member: &'n Member) -> Self {
        let path = if self.path.is_empty() { member.key.clone() } else { format!("{}.{}", self.path, member.key) };
        Self { node: &member.value, file: self.file, path, line: member.line }
    }
}

/// What to say about a key that is in no table, with the one that may be meant.
fn unknown(key: &str, object: &Object) -> String {
    let bare = |key: &str| key.to_ascii_lowercase().replace(['-', '_'], "");
    let meant = object.keys.iter().find(|known| bare(known) == bare(key));
    let known = || format!("known here: {}", object.keys.join(", "));
    format!("unknown field; {}", meant.map_or_else(known, |meant| format!("is {meant} meant?")))
}

impl<'n> Fields<'n> {
    /// The value of a key, when there is one.
    pub(super) fn take(&mut self, key: &str) -> Option<Value<'n>> {
        debug_assert!(self.object.accepts(key), "{key} is missing in the table of {}", self.object.path);
        let place = self.left.iter().position(|member| member.key == key)?;
        Some(self.place.under(self.left.remove(place)))
    }

    /// The value of a key that must be there.
    pub(super) fn required(&mut self, key: &str) -> Result<Value<'n>, CipError> {
        self.take(key).ok_or_else(|| self.missing(key, "missing"))
    }

    /// An error about a key that is not there.
    pub(super) fn missing(&self, key: &str, problem: impl Into<String>) -> CipError {
        let path = if self.place.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.place.path) };
        CipError { origin: self.place.origin(), field: path, problem: problem.into() }
    }

    /// An error at the object itself.
    pub(super) fn error(&self, problem: impl Into<String>) -> CipError {
        self.place.error(problem)
    }

    pub(super) fn origin(&self) -> Origin {
        self.place.origin()
    }

    /// The end of the object: a key that is known but has no effect here is refused, not ignored.
    pub(super) fn finish(self) -> Result<(), CipError> {
        match self.left.first() {
            None => Ok(()),
            Some(member) => Err(self.place.under(member).error("has no effect here; remove it")),
        }
    }
}
