//! `sigstoreSigned` as it stands in the document (`signature/policy_config_sigstore.go`).

use super::document::{DocumentError, Key, object};
use super::json::Node;
use super::keys;
use super::requirement::{Source, byte_lists, bytes, string, strings};
use super::signed_identity::SignedIdentity;

/// A `sigstoreSigned` requirement.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SigstoreSignedDocument {
    pub(super) trust: TrustDocument,
    /// Empty: none is asked for.
    pub(super) rekor: Vec<Source>,
    /// A Rekor key was named with nothing in it, and so asks for nothing: containers/image reads it so, the linter warns.
    pub(super) empty_rekor: Option<&'static str>,
    pub(super) identity: SignedIdentity,
    pub(super) identity_given: bool,
}

/// Whose signatures are wanted.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum TrustDocument {
    Keys(Vec<Source>),
    Fulcio(FulcioDocument),
    Pki(PkiDocument),
}

/// `fulcio`
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FulcioDocument {
    pub(super) authorities: Source,
    pub(super) issuer: String,
    pub(super) email: String,
}

/// `pki`
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PkiDocument {
    pub(super) roots: Source,
    pub(super) intermediates: Option<Source>,
    pub(super) email: Option<String>,
    pub(super) hostname: Option<String>,
}

impl SigstoreSignedDocument {
    pub(super) fn parse(node: &Node) -> Result<Self, DocumentError> {
        let mut signers = Material::new("keyPath", "keyPaths", "keyData", "keyDatas");
        let mut rekor =
            Material::new("rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas");
        let (mut fulcio, mut pki, mut identity) = (None, None, None);
        object(node, &keys::SIGSTORE_SIGNED, |key, value| {
            match key {
                "type" => {
                    string(value)?;
                }
                "fulcio" => fulcio = Some(FulcioDocument::parse(value)?),
                "pki" => pki = Some(PkiDocument::parse(value)?),
                "signedIdentity" => identity = Some(value),
                _ => {
                    return match signers.read(key, value)? {
                        Key::Known => Ok(Key::Known),
                        Key::Unknown => rekor.read(key, value),
                    };
                }
            }
            Ok(Key::Known)
        })?;
        let parsed_identity = SignedIdentity::parse_or_default(identity)?;
        // The two texts spell the keys as containers/image does.
        signers.no_empty_list("keyPaths", "keyDatas")?;
        rekor.no_empty_list("rekorPublickeyPaths", "rekorPublickeyDatas")?;
        let (key_kinds, rekor_kinds) = (signers.kinds(), rekor.kinds());
        let trust = match (key_kinds, fulcio, pki) {
            (1, None, None) => TrustDocument::Keys(signers.sources()),
            (0, Some(fulcio), None) => TrustDocument::Fulcio(fulcio),
            (0, None, Some(pki)) => TrustDocument::Pki(pki),
            _ => return Err(DocumentError::new(ONE_TRUST)),
        };
        let empty_rekor = rekor.empty;
        match &trust {
            _ if rekor_kinds > 1 => {
                return Err(DocumentError::new(format!("at most one of {REKOR_KEYS} can be used simultaneously")));
            }
            TrustDocument::Fulcio(_) if rekor_kinds == 0 => {
                let text = format!("At least one of {REKOR_KEYS} must be specified if fulcio is used");
                return Err(DocumentError::new(text));
            }
            TrustDocument::Pki(_) if rekor_kinds > 0 => {
                return Err(DocumentError::new(format!("{REKOR_KEYS} are not supported for pki")));
            }
            TrustDocument::Keys(_) | TrustDocument::Fulcio(_) | TrustDocument::Pki(_) => {}
        }
        Ok(Self {
            trust,
            rekor: rekor.sources(),
            empty_rekor,
            identity: parsed_identity,
            identity_given: identity.is_some(),
        })
    }

    pub(super) fn sources(&self) -> Vec<&Source> {
        let trust: Vec<&Source> = match &self.trust {
            TrustDocument::Keys(keys) => keys.iter().collect(),
            TrustDocument::Fulcio(fulcio) => vec![&fulcio.authorities],
            TrustDocument::Pki(pki) => std::iter::once(&pki.roots).chain(&pki.intermediates).collect(),
        };
        trust.into_iter().chain(&self.rekor).collect()
    }
}

const ONE_TRUST: &str = "exactly one of keyPath, keyPaths, keyData, keyDatas, fulcio, and pki must be specified";
const REKOR_KEYS: &str = "rekorPublickeyPath, rekorPublicKeyPaths, rekorPublickeyData and rekorPublicKeyDatas";

/// Key material under one of four keys.
struct Material {
    names: [&'static str; 4],
    path: Option<String>,
    paths: Option<Vec<String>>,
    data: Option<Vec<u8>>,
    datas: Option<Vec<Vec<u8>>>,
    /// A key with an empty path or `null`, which counts as absent, as it does for containers/image.
    empty: Option<&'static str>,
}

impl Material {
    fn new(path: &'static str, paths: &'static str, data: &'static str, datas: &'static str) -> Self {
        Self { names: [path, paths, data, datas], path: None, paths: None, data: None, datas: None, empty: None }
    }

    /// Takes the value in when `key` is one of the four.
    fn read(&mut self, key: &str, value: &Node) -> Result<Key, DocumentError> {
        let [path, paths, data, datas] = self.names;
        match key {
            _ if key == path => self.path = Some(string(value)?).filter(|path| !path.is_empty()),
            _ if key == paths => self.paths = Some(strings(value)?.unwrap_or_default()),
            _ if key == data => self.data = bytes(value)?,
            _ if key == datas => self.datas = Some(byte_lists(value)?.unwrap_or_default()),
            _ => return Ok(Key::Unknown),
        }
        if key == path && self.path.is_none() {
            self.empty = Some(path);
        } else if key == data && self.data.is_none() {
            self.empty = Some(data);
        }
        Ok(Key::Known)
    }

    /// A list that is given has an entry.
    fn no_empty_list(&self, paths: &str, datas: &str) -> Result<(), DocumentError> {
        let empty = |name: &str| Err(DocumentError::new(format!("\"{name}\" contains no entries")));
        if self.paths.as_ref().is_some_and(Vec::is_empty) {
            return empty(paths);
        }
        if self.datas.as_ref().is_some_and(Vec::is_empty) {
            return empty(datas);
        }
        Ok(())
    }

    /// How many of the four hold something.
    fn kinds(&self) -> usize {
        let given = [self.path.is_some(), self.paths.is_some(), self.data.is_some(), self.datas.is_some()];
        given.into_iter().filter(|given| *given).count()
    }

    fn sources(self) -> Vec<Source> {
        let [path, paths, data, datas] = self.names;
        let one = Source::one(path, self.path.as_deref(), data, self.data);
        let mut sources: Vec<Source> = one.into_iter().collect();
        sources.extend(Source::paths(paths, self.paths.unwrap_or_default()));
        sources.extend(Source::datas(datas, self.datas.unwrap_or_default()));
        sources
    }
}

impl FulcioDocument {
    fn parse(node: &Node) -> Result<Self, DocumentError> {
        let (mut path, mut data, mut issuer, mut email) = (None, None, String::new(), String::new());
        object(node, &keys::FULCIO, |key, value| {
            match key {
                "caPath" => path = Some(string(value)?),
                "caData" => data = bytes(value)?,
                "oidcIssuer" => issuer = string(value)?,
                "subjectEmail" => email = string(value)?,
                _ => return Ok(Key::Unknown),
            }
            Ok(Key::Known)
        })?;
        let authorities = required("fulcio.", "caPath", path.as_deref(), "caData", data)?;
        if issuer.is_empty() {
            return Err(DocumentError::new("oidcIssuer not specified"));
        }
        if email.is_empty() {
            return Err(DocumentError::new("subjectEmail not specified"));
        }
        Ok(Self { authorities, issuer, email })
    }
}

impl PkiDocument {
    fn parse(node: &Node) -> Result<Self, DocumentError> {
        let (mut roots_path, mut roots_data, mut path, mut data) = (None, None, None, None);
        let (mut email, mut hostname) = (String::new(), String::new());
        object(node, &keys::PKI, |key, value| {
            match key {
                "caRootsPath" => roots_path = Some(string(value)?),
                "caRootsData" => roots_data = bytes(value)?,
                "caIntermediatesPath" => path = Some(string(value)?),
                "caIntermediatesData" => data = bytes(value)?,
                "subjectEmail" => email = string(value)?,
                "subjectHostname" => hostname = string(value)?,
                _ => return Ok(Key::Unknown),
            }
            Ok(Key::Known)
        })?;
        let roots = required("pki.", "caRootsPath", roots_path.as_deref(), "caRootsData", roots_data)?;
        let intermediates = optional("pki.", "caIntermediatesPath", path.as_deref(), "caIntermediatesData", data)?;
        if email.is_empty() && hostname.is_empty() {
            return Err(DocumentError::new("At least one of subjectEmail, subjectHostname must be specified"));
        }
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        Ok(Self { roots, intermediates, email: given(email), hostname: given(hostname) })
    }
}

fn required(
    prefix: &str,
    path_key: &str,
    path: Option<&str>,
    data_key: &str,
    data: Option<Vec<u8>>,
) -> Result<Source, DocumentError> {
    optional(prefix, path_key, path, data_key, data)?
        .ok_or_else(|| DocumentError::new(format!("At least one of {path_key} and {data_key} must be specified")))
}

fn optional(
    prefix: &str,
    path_key: &str,
    path: Option<&str>,
    data_key: &str,
    data: Option<Vec<u8>>,
) -> Result<Option<Source>, DocumentError> {
    if path.is_some_and(|path| !path.is_empty()) && data.is_some() {
        return Err(DocumentError::new(format!("{path_key} and {data_key} cannot be used simultaneously")));
    }
    Ok(Source::one(&format!("{prefix}{path_key}"), path, &format!("{prefix}{data_key}"), data))
}

#[cfg(test)]
mod tests {
    use super::super::json;
    use super::*;

    const FULCIO: &str = r#""fulcio":{"caPath":"c","oidcIssuer":"i","subjectEmail":"e"}"#;
    const PKI: &str = r#""pki":{"caRootsPath":"c","subjectEmail":"e"}"#;

    fn parse(members: &str) -> Result<SigstoreSignedDocument, String> {
        let node = json::read(format!(r#"{{"type":"sigstoreSigned",{members}}}"#).as_bytes()).unwrap();
        SigstoreSignedDocument::parse(&node).map_err(|error| error.text().to_owned())
    }

    #[test]
    fn exactly_one_kind_of_trust_is_given() {
        for members in [
            r#""signedIdentity":{"type":"matchExact"}"#.to_owned(),
            r#""keyPath":"a","keyData":"YQ==""#.to_owned(),
            r#""keyPaths":["a"],"keyDatas":["YQ=="]"#.to_owned(),
            r#""keyPath":"""#.to_owned(),
            r#""keyData":null"#.to_owned(),
            format!(r#""keyPath":"a",{PKI}"#),
            format!(r#"{FULCIO},{PKI},"rekorPublicKeyPath":"r""#),
        ] {
            assert_eq!(parse(&members).unwrap_err(), ONE_TRUST, "{members}");
        }
        for list in ["keyPaths", "keyDatas"] {
            assert_eq!(parse(&format!(r#""{list}":[]"#)).unwrap_err(), format!(r#""{list}" contains no entries"#));
            assert_eq!(parse(&format!(r#""{list}":null"#)).unwrap_err(), format!(r#""{list}" contains no entries"#));
        }
    }

    #[test]
    fn rekor_keys_are_given_once_and_only_where_there_is_a_log() {
        let one = r#""rekorPublicKeyPath":"r""#;
        let other = r#""rekorPublicKeyDatas":["YQ=="]"#;
        assert!(parse(&format!(r#""keyPath":"a",{one}"#)).is_ok());
        assert!(parse(&format!("{FULCIO},{other}")).is_ok());
        assert_eq!(
            parse(&format!(r#""keyPath":"a",{one},{other}"#)).unwrap_err(),
            format!("at most one of {REKOR_KEYS} can be used simultaneously")
        );
        assert_eq!(
            parse(FULCIO).unwrap_err(),
            format!("At least one of {REKOR_KEYS} must be specified if fulcio is used")
        );
        assert_eq!(parse(&format!("{PKI},{one}")).unwrap_err(), format!("{REKOR_KEYS} are not supported for pki"));
        assert_eq!(
            parse(r#""keyPath":"a","rekorPublicKeyPaths":[]"#).unwrap_err(),
            r#""rekorPublickeyPaths" contains no entries"#
        );
        assert_eq!(
            parse(r#""keyPath":"a","rekorPublicKeyDatas":[]"#).unwrap_err(),
            r#""rekorPublickeyDatas" contains no entries"#
        );
    }

    #[test]
    fn an_empty_rekor_key_asks_for_nothing_and_is_remembered() {
        let parsed = parse(r#""keyPath":"a","rekorPublicKeyPath":"""#).unwrap();
        assert_eq!((parsed.rekor.len(), parsed.empty_rekor), (0, Some("rekorPublicKeyPath")));
        assert_eq!(parse(r#""keyPath":"a""#).unwrap().empty_rekor, None);
    }

    #[test]
    fn c_04_keyless_without_an_issuer_or_a_subject_is_refused() {
        let with = |fulcio: &str| parse(&format!(r#""fulcio":{{{fulcio}}},"rekorPublicKeyPath":"r""#)).unwrap_err();
        for (fulcio, expected) in [
            (r#""caPath":"c","subjectEmail":"e""#, "oidcIssuer not specified"),
            (r#""caPath":"c","subjectEmail":"e","oidcIssuer":"""#, "oidcIssuer not specified"),
            (r#""caPath":"c","oidcIssuer":"i""#, "subjectEmail not specified"),
            (r#""oidcIssuer":"i","subjectEmail":"e""#, "At least one of caPath and caData must be specified"),
            (r#""caPath":"c","caData":"YQ==""#, "caPath and caData cannot be used simultaneously"),
            (r#""caPath":"c","subjectRegExp":".*""#, r#"Unknown key "subjectRegExp""#),
        ] {
            assert_eq!(with(fulcio), expected, "{fulcio}");
        }
        assert_eq!(parse(r#""fulcio":null"#).unwrap_err(), "JSON object expected, got <nil>");
    }

    #[test]
    fn pki_needs_roots_and_a_subject() {
        let with = |pki: &str| parse(&format!(r#""pki":{{{pki}}}"#)).map(|_| ()).unwrap_err();
        for (pki, expected) in [
            (r#""subjectEmail":"e""#, "At least one of caRootsPath and caRootsData must be specified"),
            (r#""caRootsPath":"c","caRootsData":"YQ==""#, "caRootsPath and caRootsData cannot be used simultaneously"),
            (
                r#""caRootsPath":"c","caIntermediatesPath":"d","caIntermediatesData":"YQ==""#,
                "caIntermediatesPath and caIntermediatesData cannot be used simultaneously",
            ),
            (r#""caRootsPath":"c""#, "At least one of subjectEmail, subjectHostname must be specified"),
        ] {
            assert_eq!(with(pki), expected, "{pki}");
        }
        assert!(parse(r#""pki":{"caRootsData":"YQ==","subjectHostname":"h"}"#).is_ok());
    }
}
