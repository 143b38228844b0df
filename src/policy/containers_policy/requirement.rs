//! Requirements as they stand in the document (`signature/policy_config.go`).

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::document::{DocumentError, Key, object};
use super::json::Node;
use super::keys;
use super::signed_identity::SignedIdentity;
use super::sigstore_signed::SigstoreSignedDocument;
use crate::policy::keys::Object;
use crate::verify::quote::go_quote;

/// One element of a list of requirements.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum RequirementDocument {
    InsecureAcceptAnything,
    Reject,
    SignedBy(SignedByDocument),
    SigstoreSigned(Box<SigstoreSignedDocument>),
    SignedBaseLayer(SignedIdentity),
}

/// An OpenPGP simple-signing requirement.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SignedByDocument {
    pub(super) key_type: String,
    pub(super) keys: Vec<Source>,
    pub(super) identity: SignedIdentity,
}

/// Key material that a requirement names, by its place under the requirement.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Source {
    /// Such as `keyPaths[1]` or `fulcio.caPath`.
    pub(super) key: String,
    pub(super) content: Content,
}

/// Where key material is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content {
    Path(String),
    Data(Vec<u8>),
}

impl Source {
    pub(super) fn path(&self) -> Option<&str> {
        match &self.content {
            Content::Path(path) => Some(path),
            Content::Data(_) => None,
        }
    }

    /// The one source of `key`, when there is one. An empty path counts as absent, as it does for containers/image.
    pub(super) fn one(path_key: &str, path: Option<&str>, data_key: &str, data: Option<Vec<u8>>) -> Option<Self> {
        let path = path.filter(|path| !path.is_empty());
        match (path, data) {
            (Some(path), _) => Some(Self { key: path_key.to_owned(), content: Content::Path(path.to_owned()) }),
            (None, Some(data)) => Some(Self { key: data_key.to_owned(), content: Content::Data(data) }),
            (None, None) => None,
        }
    }

    pub(super) fn paths(key: &str, paths: Vec<String>) -> Vec<Self> {
        let numbered = paths.into_iter().enumerate();
        numbered.map(|(index, path)| Self { key: format!("{key}[{index}]"), content: Content::Path(path) }).collect()
    }

    pub(super) fn datas(key: &str, datas: Vec<Vec<u8>>) -> Vec<Self> {
        let numbered = datas.into_iter().enumerate();
        numbered.map(|(index, data)| Self { key: format!("{key}[{index}]"), content: Content::Data(data) }).collect()
    }
}

impl RequirementDocument {
    pub(super) fn parse(node: &Node) -> Result<Self, DocumentError> {
        let kind = loose_type(node, "signature.prCommon", "signature.prTypeIdentifier")?;
        match kind.as_str() {
            "insecureAcceptAnything" => empty(node, &keys::ACCEPT_ANYTHING).map(|()| Self::InsecureAcceptAnything),
            "reject" => empty(node, &keys::REJECT).map(|()| Self::Reject),
            "signedBy" => SignedByDocument::parse(node).map(Self::SignedBy),
            "signedBaseLayer" => {
                let [identity] = exactly(node, &keys::SIGNED_BASE_LAYER, ["baseLayerIdentity"], |_| Ok(()))?;
                let parsed = SignedIdentity::parse(identity).map_err(|error| error.within(".baseLayerIdentity"))?;
                Ok(Self::SignedBaseLayer(parsed))
            }
            "sigstoreSigned" => {
                SigstoreSignedDocument::parse(node).map(|parsed| Self::SigstoreSigned(Box::new(parsed)))
            }
            other => Err(DocumentError::new(format!("Unknown policy requirement type {}", go_quote(other)))),
        }
    }

    /// All key material that the requirement names, in a fixed order.
    pub(super) fn sources(&self) -> Vec<&Source> {
        match self {
            Self::InsecureAcceptAnything | Self::Reject | Self::SignedBaseLayer(_) => Vec::new(),
            Self::SignedBy(signed_by) => signed_by.keys.iter().collect(),
            Self::SigstoreSigned(sigstore) => sigstore.sources(),
        }
    }
}

impl SignedByDocument {
    fn parse(node: &Node) -> Result<Self, DocumentError> {
        let mut key_type = String::new();
        let (mut path, mut paths, mut data, mut identity) = (None, None, None, None);
        object(node, &keys::SIGNED_BY, |key, value| {
            match key {
                "type" => {
                    string(value)?;
                }
                "keyType" => key_type = self::key_type(value)?,
                "keyPath" => path = Some(string(value)?),
                "keyPaths" => paths = Some(strings(value)?),
                "keyData" => data = Some(bytes(value)?),
                "signedIdentity" => identity = Some(value),
                _ => return Ok(Key::Unknown),
            }
            Ok(Key::Known)
        })?;
        let identity = SignedIdentity::parse_or_default(identity)?;
        let given = [path.is_some(), paths.is_some(), data.is_some()].into_iter().filter(|given| *given).count();
        let rule = "Exactly one of keyPath, keyPaths and keyData must be specified";
        match given {
            0 => return Err(DocumentError::new(format!("{rule}, none of them present"))),
            1 => {}
            _ => return Err(DocumentError::new(format!("{rule}, more than one present"))),
        }
        if key_type.is_empty() {
            return Err(DocumentError::new("invalid keyType \"\""));
        }
        let keys = match (Source::one("keyPath", path.as_deref(), "keyData", data.flatten()), paths.flatten()) {
            (Some(one), _) => vec![one],
            (None, Some(paths)) => Source::paths("keyPaths", paths),
            (None, None) => {
                return Err(DocumentError::new("exactly one of keyPath, keyPaths and keyData must be specified"));
            }
        };
        Ok(Self { key_type, keys, identity })
    }
}

fn key_type(node: &Node) -> Result<String, DocumentError> {
    let text = string(node)?;
    match text.as_str() {
        "GPGKeys" | "signedByGPGKeys" | "X509Certificates" | "signedByX509CAs" => Ok(text),
        _ => Err(DocumentError::new(format!("Unrecognized keyType value {}", go_quote(&text)))),
    }
}

/// The `type` of an object as containers/image first looks at it, before it knows what the object must be: loosely, with
/// Go's case folding, the last of several. The strict reader of that type comes afterwards and refuses what is not exact.
pub(super) fn loose_type(node: &Node, go_struct: &str, go_type: &str) -> Result<String, DocumentError> {
    let members = match node {
        Node::Object(members) => members.as_slice(),
        Node::Null => &[],
        Node::Bool(_) | Node::Number(_) | Node::String(_) | Node::Array(_) => {
            return Err(DocumentError::wrong_type(node, &format!("Go value of type {go_struct}")));
        }
    };
    let mut kind = String::new();
    for (_, value) in members.iter().filter(|(key, _)| key.eq_ignore_ascii_case("type")) {
        match value {
            Node::String(text) => kind.clone_from(text),
            Node::Null => {}
            Node::Bool(_) | Node::Number(_) | Node::Array(_) | Node::Object(_) => {
                let field = go_struct.rsplit('.').next().unwrap_or(go_struct);
                let error =
                    DocumentError::wrong_type(value, &format!("Go struct field {field}.type of type {go_type}"));
                return Err(error.within(".type"));
            }
        }
    }
    Ok(kind)
}

/// The members `keys` of an object that has those, `type`, and nothing else; each is checked in its turn.
pub(super) fn exactly<'n, const N: usize>(
    node: &'n Node,
    table: &Object,
    keys: [&'static str; N],
    check: impl Fn(&Node) -> Result<(), DocumentError>,
) -> Result<[&'n Node; N], DocumentError> {
    let mut found: [Option<&'n Node>; N] = [None; N];
    let mut kind = None;
    object(node, table, |key, value| {
        if key == "type" {
            kind = Some(string(value)?);
            return Ok(Key::Known);
        }
        match keys.iter().zip(&mut found).find(|(wanted, _)| **wanted == key) {
            Some((_, place)) => {
                check(value)?;
                *place = Some(value);
            }
            None => return Ok(Key::Unknown),
        }
        Ok(Key::Known)
    })?;
    if kind.is_none() {
        return Err(DocumentError::missing("type"));
    }
    let mut members = [node; N];
    for ((key, value), member) in keys.iter().zip(found).zip(&mut members) {
        *member = value.ok_or_else(|| DocumentError::missing(key))?;
    }
    Ok(members)
}

/// An object that has a `type` and nothing else.
pub(super) fn empty(node: &Node, table: &Object) -> Result<(), DocumentError> {
    exactly(node, table, [], |_| Ok(())).map(|[]| ())
}

/// A string; `null` is the empty one, as in Go.
pub(super) fn string(node: &Node) -> Result<String, DocumentError> {
    match node {
        Node::String(text) => Ok(text.clone()),
        Node::Null => Ok(String::new()),
        Node::Bool(_) | Node::Number(_) | Node::Array(_) | Node::Object(_) => {
            Err(DocumentError::wrong_type(node, "Go value of type string"))
        }
    }
}

/// A list of strings; `null` is none at all, as in Go.
pub(super) fn strings(node: &Node) -> Result<Option<Vec<String>>, DocumentError> {
    list(node, "Go value of type []string", string)
}

/// Base64; `null` is none at all, as in Go.
pub(super) fn bytes(node: &Node) -> Result<Option<Vec<u8>>, DocumentError> {
    match node {
        Node::String(text) => decoded(text).map(Some),
        Node::Null => Ok(None),
        Node::Bool(_) | Node::Number(_) | Node::Array(_) | Node::Object(_) => {
            Err(DocumentError::wrong_type(node, "Go value of type []uint8"))
        }
    }
}

/// A list of base64; `null` is none at all, as in Go.
pub(super) fn byte_lists(node: &Node) -> Result<Option<Vec<Vec<u8>>>, DocumentError> {
    list(node, "Go value of type [][]uint8", |element| bytes(element).map(Option::unwrap_or_default))
}

fn list<T>(
    node: &Node,
    wanted: &str,
    element: impl Fn(&Node) -> Result<T, DocumentError>,
) -> Result<Option<Vec<T>>, DocumentError> {
    match node {
        Node::Array(elements) => elements.iter().map(element).collect::<Result<_, _>>().map(Some),
        Node::Null => Ok(None),
        Node::Bool(_) | Node::Number(_) | Node::String(_) | Node::Object(_) => {
            Err(DocumentError::wrong_type(node, wanted))
        }
    }
}

/// As Go's `base64.StdEncoding`: line ends are skipped, padding is needed, unused bits may have any value.
const GO_BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

fn decoded(text: &str) -> Result<Vec<u8>, DocumentError> {
    let (positions, characters): (Vec<usize>, Vec<u8>) =
        text.bytes().enumerate().filter(|(_, byte)| !matches!(byte, b'\r' | b'\n')).unzip();
    GO_BASE64.decode(&characters).map_err(|error| {
        let at = match error {
            base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol { offset: at, .. } => at,
            // Go points at the start of the group of four that is not complete, or at the end when padding is.
            base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => {
                if characters.ends_with(b"=") { characters.len() } else { characters.len() / 4 * 4 }
            }
        };
        let position = positions.get(at).copied().unwrap_or(text.len());
        DocumentError::new(format!("illegal base64 data at input byte {position}"))
    })
}

#[cfg(test)]
mod tests {
    use super::super::json;
    use super::*;

    fn parse(text: &str) -> Result<RequirementDocument, String> {
        RequirementDocument::parse(&json::read(text.as_bytes()).unwrap()).map_err(|error| error.text().to_owned())
    }

    fn signed_by(members: &str) -> Result<RequirementDocument, String> {
        parse(&format!(r#"{{"type":"signedBy",{members}}}"#))
    }

    #[test]
    fn signed_by_needs_one_kind_of_keys_and_a_key_type() {
        let rule = "Exactly one of keyPath, keyPaths and keyData must be specified";
        for (members, expected) in [
            (r#""keyPath":"a""#, r#"invalid keyType """#.to_owned()),
            (r#""keyType":"x","keyPath":"a""#, r#"Unrecognized keyType value "x""#.to_owned()),
            (r#""keyType":"GPGKeys""#, format!("{rule}, none of them present")),
            (r#""keyType":"GPGKeys","keyPath":"a","keyData":"YQ==""#, format!("{rule}, more than one present")),
            (r#""keyType":"GPGKeys","keyPath":"a","keyPaths":["a"]"#, format!("{rule}, more than one present")),
            (r#""keyType":"GPGKeys","keyPath":"""#, rule.replace('E', "e")),
            (r#""keyType":"GPGKeys","keyData":null"#, rule.replace('E', "e")),
            (r#""keyType":"GPGKeys","keyDatas":["YQ=="]"#, r#"Unknown key "keyDatas""#.to_owned()),
        ] {
            assert_eq!(signed_by(members), Err(expected), "{members}");
        }
        for kind in ["GPGKeys", "signedByGPGKeys", "X509Certificates", "signedByX509CAs"] {
            assert!(signed_by(&format!(r#""keyType":"{kind}","keyPath":"a""#)).is_ok(), "{kind}");
        }
        assert!(signed_by(r#""keyType":"GPGKeys","keyPaths":[]"#).is_ok());
    }

    #[test]
    fn a_wrong_type_is_named_as_go_names_it() {
        let go =
            |found: &str, wanted: &str| Err(format!("json: cannot unmarshal {found} into Go value of type {wanted}"));
        let with = |member: &str| signed_by(&format!(r#""keyType":"GPGKeys",{member}"#));
        assert_eq!(with(r#""keyPath":1"#), go("number", "string"));
        assert_eq!(with(r#""keyPaths":{}"#), go("object", "[]string"));
        assert_eq!(with(r#""keyPaths":[true]"#), go("bool", "string"));
        assert_eq!(with(r#""keyData":["a"]"#), go("array", "[]uint8"));
        assert_eq!(
            parse(r#"{"type":1}"#),
            Err("json: cannot unmarshal number into Go struct field prCommon.type of type signature.prTypeIdentifier"
                .to_owned())
        );
    }

    #[test]
    fn a_missing_key_is_named() {
        assert_eq!(
            parse(r#"{"type":"signedBaseLayer"}"#),
            Err(r#"Key "baseLayerIdentity" missing in a JSON object"#.to_owned())
        );
        let identity = r#"{"type":"signedBaseLayer","baseLayerIdentity":{"type":"matchExact"}}"#;
        assert_eq!(parse(identity), Ok(RequirementDocument::SignedBaseLayer(SignedIdentity::MatchExact)));
    }

    #[test]
    fn base64_is_go_s() {
        assert_eq!(decoded("YW\r\nJj"), Ok(b"abc".to_vec()));
        assert_eq!(decoded("YR=="), Ok(b"a".to_vec()), "unused bits may be set");
        assert_eq!(decoded(""), Ok(Vec::new()));
        for (text, at) in
            [("this is invalid base64", 4), ("YQ", 0), ("YWJjYQ", 4), ("YQ=", 3), ("YW\nJ!", 4), ("not base64!", 3)]
        {
            assert_eq!(decoded(text).unwrap_err().text(), format!("illegal base64 data at input byte {at}"), "{text}");
        }
    }
}
