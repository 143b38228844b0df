//! A strict reader for the YAML that operators write: ClusterImagePolicies and containers-registries.d(5).
//!
//! Both were made for Go programs that turn YAML into JSON first (`sigs.k8s.io/yaml`), so the tree is JSON's, with a line for
//! each node. JSON files are read by the same reader, since YAML 1.2 includes JSON.
//!
//! Scalars mean what they mean to Kubernetes, which reads YAML 1.1: unquoted `yes`, `on` and `y` are `true`, `no`, `off`
//! and `n` are `false`, `0o17`, `0x1f` and `1_000` are numbers. Where a text is wanted these are refused with the advice to
//! quote them, never taken as text. A key that comes twice is an error, also where other readers let the last one win.
//! Anchors and aliases are followed within bounds; merge keys (`<<`) and tags beyond JSON's types are refused.

mod scalar;

use std::collections::{BTreeMap, HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use crate::limits::{CONFIG_FILE_BYTES_MAX, YAML_DEPTH_MAX, YAML_EXPANDED_BYTES_MAX, YAML_NODES_MAX};

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::policy) struct Node {
    /// From 1.
    pub(in crate::policy) line: usize,
    pub(in crate::policy) value: Value,
}

/// A value of JSON's types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::policy) enum Value {
    Null,
    Bool(bool),
    /// As written.
    Number(String),
    String(String),
    Sequence(Vec<Node>),
    /// In the order of the file; no key comes twice.
    Mapping(Vec<Member>),
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::policy) struct Member {
    pub(in crate::policy) key: String,
    /// The key's line, from 1.
    pub(in crate::policy) line: usize,
    pub(in crate::policy) value: Node,
}

/// A file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub(in crate::policy) struct YamlError {
    /// From 1.
    pub(in crate::policy) line: usize,
    /// What is wrong, and what to do.
    pub(in crate::policy) problem: String,
}

impl YamlError {
    pub(in crate::policy) fn new(line: usize, problem: impl Into<String>) -> Self {
        Self { line, problem: problem.into() }
    }

    fn at(span: Span, problem: impl Into<String>) -> Self {
        Self::new(span.start.line(), problem)
    }
}

impl From<ScanError> for YamlError {
    fn from(error: ScanError) -> Self {
        Self::new(error.marker().line(), error.info())
    }
}

/// Reads all documents of a file of at most [`CONFIG_FILE_BYTES_MAX`] bytes, the empty ones too (they are null).
///
/// # Errors
/// [`YamlError`] for what is no UTF-8 or no YAML, a key that comes twice or is no text, a merge key, a foreign tag, an alias
/// of something that has not ended, and more than [`YAML_DEPTH_MAX`] levels, [`YAML_NODES_MAX`] values or
/// [`YAML_EXPANDED_BYTES_MAX`] bytes of text, counted with aliases followed.
pub(in crate::policy) fn read(bytes: &[u8]) -> Result<Vec<Node>, YamlError> {
    if u64::try_from(bytes.len()).map_or(true, |length| length > CONFIG_FILE_BYTES_MAX) {
        return Err(YamlError::new(1, format!("the file has more than {CONFIG_FILE_BYTES_MAX} bytes")));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        YamlError::new(before.split(|byte| *byte == b'\n').count(), "not UTF-8")
    })?;
    Reader { events: Parser::new_from_str(text), anchors: BTreeMap::new(), nodes: 0, text_bytes: 0 }.documents()
}

impl Node {
    /// What it is, for an error.
    pub(in crate::policy) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "an object",
        }
    }

    /// The text, when it is one.
    ///
    /// # Errors
    /// What is there instead, and what to do: an unquoted `yes` or `1` is no text to Kubernetes either.
    pub(in crate::policy) fn as_str(&self) -> Result<&str, String> {
        match &self.value {
            Value::String(text) => Ok(text),
            Value::Bool(_) | Value::Number(_) => Err(format!("a string is expected, found {}; quote it", self.kind())),
            Value::Null | Value::Sequence(_) | Value::Mapping(_) => {
                Err(format!("a string is expected, found {}", self.kind()))
            }
        }
    }

    /// The boolean, when it is one.
    ///
    /// # Errors
    /// What is there instead.
    pub(in crate::policy) fn as_bool(&self) -> Result<bool, String> {
        match &self.value {
            Value::Bool(value) => Ok(*value),
            Value::String(text) if matches!(text.as_str(), "true" | "false") => {
                Err("true or false is expected, found a string; write it without quotes".to_owned())
            }
            Value::String(_) | Value::Null | Value::Number(_) | Value::Sequence(_) | Value::Mapping(_) => {
                Err(format!("true or false is expected, found {}", self.kind()))
            }
        }
    }

    /// The members, when it is an object.
    ///
    /// # Errors
    /// What is there instead.
    pub(in crate::policy) fn as_mapping(&self) -> Result<&[Member], String> {
        match &self.value {
            Value::Mapping(members) => Ok(members),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Sequence(_) => {
                Err(format!("an object is expected, found {}", self.kind()))
            }
        }
    }

    /// The elements, when it is a list.
    ///
    /// # Errors
    /// What is there instead.
    pub(in crate::policy) fn as_sequence(&self) -> Result<&[Self], String> {
        match &self.value {
            Value::Sequence(elements) => Ok(elements),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Mapping(_) => {
                Err(format!("a list is expected, found {}", self.kind()))
            }
        }
    }
}

/// Builds trees out of the parser's events, counting as it goes.
struct Reader<'input> {
    events: Parser<'input, StrInput<'input>>,
    /// What the anchors of the document that is read stand for, once it has ended.
    anchors: BTreeMap<usize, Anchored>,
    nodes: usize,
    text_bytes: usize,
}

#[derive(Clone)]
struct Anchored {
    node: Node,
    size: Size,
}

/// How large a tree is.
#[derive(Debug, Clone, Copy)]
struct Size {
    nodes: usize,
    text_bytes: usize,
    /// Levels of collections in it.
    depth: usize,
}

impl<'input> Reader<'input> {
    fn documents(mut self) -> Result<Vec<Node>, YamlError> {
        let mut documents = Vec::new();
        loop {
            match self.event()? {
                (Event::StreamEnd, _) => return Ok(documents),
                (Event::DocumentStart(_), _) => {
                    self.anchors.clear();
                    let first = self.event()?;
                    documents.push(self.node(first, 0)?.0);
                }
                (
                    Event::Nothing
                    | Event::StreamStart
                    | Event::DocumentEnd
                    | Event::Alias(_)
                    | Event::Scalar(..)
                    | Event::SequenceStart(..)
                    | Event::SequenceEnd
                    | Event::MappingStart(..)
                    | Event::MappingEnd,
                    _,
                ) => {}
            }
        }
    }

    fn event(&mut self) -> Result<(Event<'input>, Span), YamlError> {
        match self.events.next_event() {
            Some(event) => Ok(event?),
            None => Err(YamlError::new(1, "the file ends in the middle of a document")),
        }
    }

    /// The node that begins with that event, and its levels of collections. `depth` collections are open around it.
    fn node(&mut self, (event, span): (Event<'input>, Span), depth: usize) -> Result<(Node, usize), YamlError> {
        let before = (self.nodes, self.text_bytes);
        let line = span.start.line();
        let (value, anchor, levels) = match event {
            Event::Alias(id) => return self.alias(id, span, depth),
            Event::Scalar(text, style, anchor, tag) => {
                self.count(span, Size { nodes: 1, text_bytes: text.len(), depth }, 0)?;
                (scalar::resolve(&text, style == ScalarStyle::Plain, tag.as_deref(), span)?, anchor, 0)
            }
            Event::SequenceStart(anchor, tag) => {
                self.count(span, Size { nodes: 1, text_bytes: 0, depth }, 1)?;
                collection_tag(tag.as_deref(), "seq", span)?;
                let (elements, levels) = self.elements(depth + 1)?;
                (Value::Sequence(elements), anchor, levels + 1)
            }
            Event::MappingStart(anchor, tag) => {
                self.count(span, Size { nodes: 1, text_bytes: 0, depth }, 1)?;
                collection_tag(tag.as_deref(), "map", span)?;
                let (members, levels) = self.members(depth + 1)?;
                (Value::Mapping(members), anchor, levels + 1)
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => return Err(YamlError::at(span, "a value is missing")),
        };
        let node = Node { line, value };
        if anchor > 0 {
            let (nodes, text_bytes) = (self.nodes.saturating_sub(before.0), self.text_bytes.saturating_sub(before.1));
            let size = Size { nodes, text_bytes, depth: levels };
            // The copy that is kept counts like any other, so that anchors alone cannot take more memory than aliases.
            self.count(span, Size { depth: 0, ..size }, 0)?;
            self.anchors.insert(anchor, Anchored { node: node.clone(), size });
        }
        Ok((node, levels))
    }

    fn alias(&mut self, id: usize, span: Span, depth: usize) -> Result<(Node, usize), YamlError> {
        let size = match self.anchors.get(&id) {
            Some(anchored) => anchored.size,
            None => return Err(YamlError::at(span, "an alias stands within what it is an alias of")),
        };
        self.count(span, Size { depth, ..size }, size.depth)?;
        match self.anchors.get(&id) {
            // Its own line is what a reader of an error looks for.
            Some(anchored) => Ok((Node { line: span.start.line(), ..anchored.node.clone() }, size.depth)),
            None => Err(YamlError::at(span, "an alias has no anchor")),
        }
    }

    fn elements(&mut self, depth: usize) -> Result<(Vec<Node>, usize), YamlError> {
        let (mut elements, mut deepest) = (Vec::new(), 0);
        loop {
            let event = self.event()?;
            if matches!(event.0, Event::SequenceEnd) {
                return Ok((elements, deepest));
            }
            let (node, levels) = self.node(event, depth)?;
            deepest = deepest.max(levels);
            elements.push(node);
        }
    }

    fn members(&mut self, depth: usize) -> Result<(Vec<Member>, usize), YamlError> {
        let (mut members, mut deepest, mut seen) = (Vec::new(), 0, HashSet::new());
        loop {
            let event = self.event()?;
            if matches!(event.0, Event::MappingEnd) {
                return Ok((members, deepest));
            }
            let (key, line) = self.key(event)?;
            if !seen.insert(key.clone()) {
                return Err(YamlError::new(line, format!("the key {key:?} comes twice in one object")));
            }
            let value = self.event()?;
            let (value, levels) = self.node(value, depth)?;
            deepest = deepest.max(levels);
            members.push(Member { key, line, value });
        }
    }

    /// A key, as the text that it becomes in JSON.
    fn key(&mut self, (event, span): (Event<'input>, Span)) -> Result<(String, usize), YamlError> {
        let Event::Scalar(text, style, 0, None) = event else {
            return Err(YamlError::at(span, "a key must be a plain text, without anchor, alias or tag"));
        };
        self.count(span, Size { nodes: 1, text_bytes: text.len(), depth: 0 }, 0)?;
        if style == ScalarStyle::Plain && text == "<<" {
            return Err(YamlError::at(span, "merge keys (<<) are not supported; write the fields out"));
        }
        if style == ScalarStyle::Plain && text.is_empty() {
            return Err(YamlError::at(span, "a key is missing"));
        }
        Ok((text.into_owned(), span.start.line()))
    }

    /// Takes in a tree of that size whose root lies under `size.depth` collections and has `levels` of its own.
    fn count(&mut self, span: Span, size: Size, levels: usize) -> Result<(), YamlError> {
        self.nodes = self.nodes.saturating_add(size.nodes);
        self.text_bytes = self.text_bytes.saturating_add(size.text_bytes);
        if size.depth.saturating_add(levels) > YAML_DEPTH_MAX {
            return Err(YamlError::at(span, format!("more than {YAML_DEPTH_MAX} levels")));
        }
        if self.nodes > YAML_NODES_MAX {
            return Err(YamlError::at(span, format!("more than {YAML_NODES_MAX} values, aliases followed")));
        }
        if self.text_bytes > YAML_EXPANDED_BYTES_MAX {
            return Err(YamlError::at(span, format!("more than {YAML_EXPANDED_BYTES_MAX} bytes, aliases followed")));
        }
        Ok(())
    }
}

/// A collection may say that it is what it is.
fn collection_tag(tag: Option<&Tag>, own: &str, span: Span) -> Result<(), YamlError> {
    match tag {
        None => Ok(()),
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == own => Ok(()),
        Some(tag) => Err(YamlError::at(span, format!("the tag {tag} is not supported"))),
    }
}

#[cfg(test)]
mod tests;
