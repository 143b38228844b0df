//! The strict parser: the document as it stands, and every text with which containers/image refuses one.
//!
//! Follows containers-policy.json(5) and `signature/policy_config.go`: members are looked at in the order of the document,
//! each object refuses a key that it does not know or has seen, and one bad leaf refuses the whole file.

use std::fmt;

use super::json::{self, Node};
use super::keys;
use super::requirement::RequirementDocument;
use super::texts;
use crate::limits::CONFIG_FILE_BYTES_MAX;
use crate::policy::keys::Object;
use crate::verify::quote::go_quote;

/// A containers-policy.json as it was written; the key files that it names are not read yet.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainersPolicyDocument {
    pub(super) default: Vec<RequirementDocument>,
    /// In the order of the document.
    pub(super) transports: Vec<Transport>,
}

/// The scopes of one transport.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Transport {
    pub(super) name: String,
    /// In the order of the document; no scope comes twice.
    pub(super) scopes: Vec<(String, Vec<RequirementDocument>)>,
}

/// The transport that a registry mirror has to do with.
pub(super) const DOCKER: &str = "docker";
/// All transports that containers/image knows.
pub(super) const TRANSPORTS: [&str; 11] = [
    DOCKER,
    "atomic",
    "containers-storage",
    "dir",
    "docker-archive",
    "docker-daemon",
    "oci",
    "oci-archive",
    "ostree",
    "sif",
    "tarball",
];

/// A file that a policy names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// As written.
    pub path: String,
    /// Where it is named, such as `transports.docker["quay.io/x"][0].keyPath`.
    pub json_path: String,
}

impl ContainersPolicyDocument {
    /// Parses a document of at most [`CONFIG_FILE_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// [`DocumentError`] with containers/image's own text, and where.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        if u64::try_from(bytes.len()).is_ok_and(|length| length > CONFIG_FILE_BYTES_MAX) {
            return Err(DocumentError::new(format!("the file has more than {CONFIG_FILE_BYTES_MAX} bytes")));
        }
        let root = json::read(bytes)?;
        let (mut default, mut transports) = (None, Vec::new());
        object(&root, &keys::POLICY, |key, value| {
            match key {
                "default" => default = Some(requirements(value)?),
                "transports" => transports = self::transports(value)?,
                _ => return Ok(Key::Unknown),
            }
            Ok(Key::Known)
        })?;
        let default = default.ok_or_else(|| DocumentError::new("Default policy is missing"))?;
        Ok(Self { default, transports })
    }

    /// Every file that the document names, under all transports, in the document's order.
    pub fn files(&self) -> Vec<NamedFile> {
        let mut files = Vec::new();
        for (json_path, requirements) in self.requirements() {
            for (index, requirement) in requirements.iter().enumerate() {
                for source in requirement.sources() {
                    if let Some(path) = source.path() {
                        let json_path = format!("{json_path}[{index}].{}", source.key);
                        files.push(NamedFile { path: path.to_owned(), json_path });
                    }
                }
            }
        }
        files
    }

    /// The scopes under `docker`, which are the ones that decide about images of registries.
    pub(super) fn docker_scopes(&self) -> impl Iterator<Item = &(String, Vec<RequirementDocument>)> {
        self.transports.iter().filter(|transport| transport.name == DOCKER).flat_map(|transport| &transport.scopes)
    }

    /// Every list of requirements, with its place.
    pub(super) fn requirements(&self) -> impl Iterator<Item = (String, &Vec<RequirementDocument>)> {
        let scopes = self.transports.iter().flat_map(|transport| {
            transport.scopes.iter().map(|(scope, list)| (json_path(&transport.name, scope), list))
        });
        std::iter::once((DEFAULT.to_owned(), &self.default)).chain(scopes)
    }
}

/// The JSON path of the requirements that decide where no scope does.
pub(super) const DEFAULT: &str = "default";

/// The JSON path of a scope's requirements.
pub(super) fn json_path(transport: &str, scope: &str) -> String {
    format!("transports{}[{}]", member(transport), go_quote(scope))
}

fn transports(node: &Node) -> Result<Vec<Transport>, DocumentError> {
    let mut transports = Vec::new();
    object_of(node, Segments::Members, |name, value| {
        transports.push(Transport { name: name.to_owned(), scopes: scopes(value)? });
        Ok(Key::Known)
    })?;
    Ok(transports)
}

/// The scopes of a transport. containers/image asks some transports whether a scope can be one of theirs; `docker` says
/// yes to everything (the linter does better), and of the others nothing is ever evaluated here.
fn scopes(node: &Node) -> Result<Vec<(String, Vec<RequirementDocument>)>, DocumentError> {
    let mut scopes = Vec::new();
    object_of(node, Segments::Scopes, |scope, value| {
        scopes.push((scope.to_owned(), requirements(value)?));
        Ok(Key::Known)
    })?;
    Ok(scopes)
}

fn requirements(node: &Node) -> Result<Vec<RequirementDocument>, DocumentError> {
    let elements = match node {
        Node::Array(elements) => elements.as_slice(),
        Node::Null => &[],
        Node::Bool(_) | Node::Number(_) | Node::String(_) | Node::Object(_) => {
            return Err(DocumentError::wrong_type(node, "Go value of type []json.RawMessage"));
        }
    };
    if elements.is_empty() {
        return Err(DocumentError::new(texts::EMPTY_REQUIREMENTS));
    }
    let numbered = elements.iter().enumerate();
    numbered
        .map(|(index, element)| {
            RequirementDocument::parse(element).map_err(|error| error.within(&format!("[{index}]")))
        })
        .collect()
}

/// Whether an object's reader knows a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Known,
    Unknown,
}

/// Reads an object member by member in the document's order: a key that comes twice is refused before its value is looked
/// at, one that its table does not list or `member` does not know as well.
pub(super) fn object<'n>(
    node: &'n Node,
    table: &Object,
    mut member: impl FnMut(&'n str, &'n Node) -> Result<Key, DocumentError>,
) -> Result<(), DocumentError> {
    object_of(
        node,
        Segments::Members,
        |key, value| if table.accepts(key) { member(key, value) } else { Ok(Key::Unknown) },
    )
}

/// How the keys of an object are written in a JSON path.
#[derive(Debug, Clone, Copy)]
enum Segments {
    /// As `.keyPath`.
    Members,
    /// As `["quay.io/x"]`.
    Scopes,
}

fn object_of<'n>(
    node: &'n Node,
    segments: Segments,
    mut member: impl FnMut(&'n str, &'n Node) -> Result<Key, DocumentError>,
) -> Result<(), DocumentError> {
    let Node::Object(members) = node else {
        return Err(DocumentError::new(format!("JSON object expected, got {}", node.first_token())));
    };
    let mut seen = std::collections::HashSet::new();
    for (key, value) in members {
        if !seen.insert(key.as_str()) {
            return Err(DocumentError::new(format!("Duplicate key {}", go_quote(key))));
        }
        let known = member(key, value).map_err(|error| match segments {
            Segments::Members => error.within(&self::member(key)),
            Segments::Scopes => error.within(&format!("[{}]", go_quote(key))),
        })?;
        if known == Key::Unknown {
            return Err(DocumentError::new(format!("Unknown key {}", go_quote(key))));
        }
    }
    Ok(())
}

fn member(key: &str) -> String {
    let plain = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if plain { format!(".{key}") } else { format!("[{}]", go_quote(key)) }
}

/// A document cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentError {
    text: String,
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// A JSON path; empty: the document as a whole.
    Path(String),
    Position {
        line: usize,
        column: usize,
    },
}

impl DocumentError {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), place: Place::Path(String::new()) }
    }

    pub(super) fn at_position(text: &str, line: usize, column: usize) -> Self {
        Self { text: text.to_owned(), place: Place::Position { line, column } }
    }

    pub(super) fn wrong_type(found: &Node, wanted: &str) -> Self {
        Self::new(format!("json: cannot unmarshal {} into {wanted}", found.kind()))
    }

    pub(super) fn missing(key: &str) -> Self {
        Self::new(format!("Key {} missing in a JSON object", go_quote(key)))
    }

    /// The same error, of something that lies under `segment`.
    pub(super) fn within(mut self, segment: &str) -> Self {
        if let Place::Path(path) = &mut self.place {
            path.insert_str(0, segment);
        }
        self
    }

    /// What is wrong, in containers/image's words.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where it is wrong, as a JSON path, when it is not the syntax that is.
    pub fn json_path(&self) -> Option<&str> {
        match &self.place {
            Place::Path(path) if path.is_empty() => None,
            Place::Path(path) => Some(path.strip_prefix('.').unwrap_or(path)),
            Place::Position { .. } => None,
        }
    }
}

impl fmt::Display for DocumentError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)?;
        match (&self.place, self.json_path()) {
            (Place::Position { line, column }, _) => write!(formatter, " (line {line}, column {column})"),
            (Place::Path(_), Some(path)) => write!(formatter, " (at {path})"),
            (Place::Path(_), None) => Ok(()),
        }
    }
}

impl std::error::Error for DocumentError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(document: &str) -> String {
        ContainersPolicyDocument::parse(document.as_bytes()).unwrap_err().text().to_owned()
    }

    #[test]
    fn c_01_a_typo_a_duplicate_and_an_empty_file_are_refused_in_the_words_of_containers_image() {
        for (document, expected) in [
            ("", "unexpected end of JSON input"),
            ("1", "JSON object expected, got 1"),
            ("null", "JSON object expected, got <nil>"),
            (r#"{"defualt":[{"type":"reject"}]}"#, r#"Unknown key "defualt""#),
            (r#"{"Default":[{"type":"reject"}]}"#, r#"Unknown key "Default""#),
            (r#"{"default":[{"type":"reject"}],"default":[{"type":"reject"}]}"#, r#"Duplicate key "default""#),
            (r#"{"default":[{"type":"reject"}]} x"#, "invalid character 'x' after top-level value"),
            (r#"{"default":[{"type":"rejekt"}]}"#, r#"Unknown policy requirement type "rejekt""#),
            (r#"{"default":[{"Type":"reject"}]}"#, r#"Unknown key "Type""#),
            (r#"{"default":[{"type":"reject","x":1}]}"#, r#"Unknown key "x""#),
            (r#"{"default":[]}"#, "List of verification policy requirements must not be empty"),
            (r#"{"default":null}"#, "List of verification policy requirements must not be empty"),
            (r#"{"default":{}}"#, "json: cannot unmarshal object into Go value of type []json.RawMessage"),
            (r#"{"default":[1]}"#, "json: cannot unmarshal number into Go value of type signature.prCommon"),
            (r#"{"default":[null]}"#, r#"Unknown policy requirement type """#),
            (r#"{"transports":[]}"#, "JSON object expected, got 91"),
        ] {
            assert_eq!(text(document), expected, "{document}");
        }
    }

    #[test]
    fn c_01_a_file_of_two_mebibytes_is_refused_and_one_at_the_bound_is_read() {
        let padded = |length: usize| {
            let start = r#"{"default":[{"type":"reject"}]}"#;
            format!("{start}{}", " ".repeat(length - start.len()))
        };
        let max = usize::try_from(CONFIG_FILE_BYTES_MAX).unwrap();
        assert!(ContainersPolicyDocument::parse(padded(max).as_bytes()).is_ok());
        assert!(ContainersPolicyDocument::parse(padded(max + 1).as_bytes()).is_err());
        assert!(ContainersPolicyDocument::parse(padded(2 * max).as_bytes()).is_err());
    }

    #[test]
    fn c_02_a_document_without_a_default_is_refused() {
        assert_eq!(text("{}"), "Default policy is missing");
        assert_eq!(text(r#"{"transports":{"docker":{"":[{"type":"reject"}]}}}"#), "Default policy is missing");
    }

    #[test]
    fn errors_come_in_the_order_of_the_document_and_say_where() {
        let document = r#"{"default":[{"type":"reject"}],
            "transports":{"docker":{"quay.io/x":[{"type":"reject"},{"type":"signedBy","keyType":"G"}],"quay.io/x":1}}}"#;
        let error = ContainersPolicyDocument::parse(document.as_bytes()).unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"Unrecognized keyType value "G" (at transports.docker["quay.io/x"][1].keyType)"#
        );
    }

    #[test]
    fn all_files_are_listed_with_their_places() {
        let document = r#"{"default":[{"type":"sigstoreSigned","keyPaths":["a","b"],"rekorPublicKeyPath":"r"}],"transports":{
            "docker":{"quay.io/x":[{"type":"reject"},{"type":"sigstoreSigned","rekorPublicKeyDatas":["YQ=="],
                "fulcio":{"caPath":"f","oidcIssuer":"i","subjectEmail":"e"}}]},
            "oci":{"":[{"type":"sigstoreSigned","pki":{"caRootsPath":"p","caIntermediatesPath":"q","subjectEmail":"e"}}]}}}"#;
        let files = ContainersPolicyDocument::parse(document.as_bytes()).unwrap().files();
        let listed: Vec<String> = files.iter().map(|file| format!("{} {}", file.path, file.json_path)).collect();
        assert_eq!(
            listed,
            [
                "a default[0].keyPaths[0]",
                "b default[0].keyPaths[1]",
                "r default[0].rekorPublicKeyPath",
                r#"f transports.docker["quay.io/x"][1].fulcio.caPath"#,
                r#"p transports.oci[""][0].pki.caRootsPath"#,
                r#"q transports.oci[""][0].pki.caIntermediatesPath"#,
            ]
        );
    }

    #[test]
    fn other_transports_are_read_and_their_scopes_are_not_judged() {
        let document = r#"{"default":[{"type":"reject"}],"transports":{"unknown":{"anything":[{"type":"reject"}]}}}"#;
        assert!(ContainersPolicyDocument::parse(document.as_bytes()).is_ok());
        assert_eq!(text(r#"{"default":[{"type":"reject"}],"transports":{"dir":{"":[]}}}"#), texts::EMPTY_REQUIREMENTS);
    }
}
