//! `signedIdentity`: which reference a signature must have been made for (`signature/policy_reference_match.go`).

use super::document::DocumentError;
use super::json::{self, Node};
use super::keys;
use super::requirement::{empty, exactly, loose_type, string};
use crate::oci::{DockerReference, Host, ReferenceError, RepositoryName};
use crate::policy::keys::Object;
use crate::verify::quote::go_quote;

/// What the signed reference is compared with, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignedIdentity {
    /// The reference asked for, to the letter, tag or digest included.
    MatchExact,
    /// The reference asked for; when that is by digest alone, its repository. The default.
    MatchRepoDigestOrExact,
    /// The repository asked for.
    MatchRepository,
    /// This very reference, whatever was asked for.
    ExactReference {
        /// With a tag or a digest, or both.
        reference: Box<DockerReference>,
    },
    /// This repository, whatever was asked for.
    ExactRepository {
        /// A tag in it counts for nothing.
        repository: Box<DockerReference>,
    },
    /// As `MatchRepoDigestOrExact`, once `prefix` of the reference asked for was replaced.
    RemapIdentity {
        /// `host[:port]`, a namespace or a repository.
        prefix: String,
        /// What the signer's references have in its place.
        signed_prefix: String,
    },
}

impl SignedIdentity {
    /// Parses the JSON object as it stands under `signedIdentity`.
    ///
    /// # Errors
    /// [`DocumentError`] with containers/image's own text.
    pub fn from_json(bytes: &[u8]) -> Result<Self, DocumentError> {
        Self::parse(&json::read(bytes)?)
    }

    pub(super) fn parse(node: &Node) -> Result<Self, DocumentError> {
        let kind = loose_type(node, "signature.prmCommon", "signature.prmTypeIdentifier")?;
        match kind.as_str() {
            "matchExact" => empty(node, &keys::MATCH_EXACT).map(|()| Self::MatchExact),
            "matchRepoDigestOrExact" => {
                empty(node, &keys::MATCH_REPO_DIGEST_OR_EXACT).map(|()| Self::MatchRepoDigestOrExact)
            }
            "matchRepository" => empty(node, &keys::MATCH_REPOSITORY).map(|()| Self::MatchRepository),
            "exactReference" => {
                let [text] = strings(node, &keys::EXACT_REFERENCE, ["dockerReference"])?;
                let reference = docker_reference("dockerReference", &text)?;
                if reference.tag.is_none() && reference.digest.is_none() {
                    let text = format!("dockerReference {} contains neither a tag nor digest", go_quote(&text));
                    return Err(DocumentError::new(text).within(".dockerReference"));
                }
                Ok(Self::ExactReference { reference: Box::new(reference) })
            }
            "exactRepository" => {
                let [text] = strings(node, &keys::EXACT_REPOSITORY, ["dockerRepository"])?;
                let repository = docker_reference("dockerRepository", &text)?;
                Ok(Self::ExactRepository { repository: Box::new(repository) })
            }
            "remapIdentity" => {
                let [prefix, signed_prefix] = strings(node, &keys::REMAP_IDENTITY, ["prefix", "signedPrefix"])?;
                for (key, text) in [(".prefix", &prefix), (".signedPrefix", &signed_prefix)] {
                    if !is_prefix(text) {
                        let text = format!("prefix {} is not valid", go_quote(text));
                        return Err(DocumentError::new(text).within(key));
                    }
                }
                Ok(Self::RemapIdentity { prefix, signed_prefix })
            }
            other => Err(DocumentError::new(format!("Unknown policy reference match type {}", go_quote(other)))),
        }
    }

    /// The value of a `signedIdentity` that may be absent.
    pub(super) fn parse_or_default(node: Option<&Node>) -> Result<Self, DocumentError> {
        match node {
            Some(node) => Self::parse(node).map_err(|error| error.within(".signedIdentity")),
            None => Ok(Self::MatchRepoDigestOrExact),
        }
    }

    /// Whether a signature made for `signed` counts when `asked` was asked for.
    pub fn accepts(&self, asked: &DockerReference, signed: &DockerReference) -> bool {
        match self {
            Self::MatchExact => is_exact(asked) && asked == signed,
            Self::MatchRepoDigestOrExact => repo_digest_or_exact(asked, signed),
            Self::MatchRepository => asked.repository == signed.repository,
            Self::ExactReference { reference } => is_exact(signed) && **reference == *signed,
            Self::ExactRepository { repository } => repository.repository == signed.repository,
            Self::RemapIdentity { prefix, signed_prefix } => {
                remapped(asked, prefix, signed_prefix).is_some_and(|asked| repo_digest_or_exact(&asked, signed))
            }
        }
    }

    /// The name in the format.
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::MatchExact => "matchExact",
            Self::MatchRepoDigestOrExact => "matchRepoDigestOrExact",
            Self::MatchRepository => "matchRepository",
            Self::ExactReference { .. } => "exactReference",
            Self::ExactRepository { .. } => "exactRepository",
            Self::RemapIdentity { .. } => "remapIdentity",
        }
    }

    /// Its meaning for people.
    pub(super) fn describe(&self) -> String {
        let meaning = match self {
            Self::MatchExact => "signed for exactly the reference that is pulled".to_owned(),
            Self::MatchRepoDigestOrExact => {
                "signed for exactly the reference that is pulled, or for its repository when that is by digest"
                    .to_owned()
            }
            Self::MatchRepository => "signed for the repository that is pulled".to_owned(),
            Self::ExactReference { reference } => format!("signed for {reference}"),
            Self::ExactRepository { repository } => format!("signed for the repository {}", repository.repository),
            Self::RemapIdentity { prefix, signed_prefix } => {
                format!("signed for exactly the reference that is pulled, with {prefix} replaced by {signed_prefix}")
            }
        };
        format!("{meaning} ({})", self.as_str())
    }

    /// Everything in it, unambiguously, for fingerprints.
    pub(super) fn canonical(&self) -> String {
        match self {
            Self::MatchExact | Self::MatchRepoDigestOrExact | Self::MatchRepository => self.as_str().to_owned(),
            Self::ExactReference { reference } => format!("exactReference {reference}"),
            Self::ExactRepository { repository } => format!("exactRepository {}", repository.repository),
            Self::RemapIdentity { prefix, signed_prefix } => {
                format!("remapIdentity {} {}", go_quote(prefix), go_quote(signed_prefix))
            }
        }
    }
}

fn is_exact(reference: &DockerReference) -> bool {
    reference.tag.is_some() || reference.digest.is_some()
}

fn repo_digest_or_exact(asked: &DockerReference, signed: &DockerReference) -> bool {
    match (&asked.tag, &asked.digest) {
        (Some(_), _) => asked == signed,
        // The digest itself was compared before, against the signed one.
        (None, Some(_)) => is_exact(signed) && asked.repository == signed.repository,
        (None, None) => false,
    }
}

/// `asked` with `prefix` replaced, when the repository is `prefix` or lies under it; as it is when it does not; none when
/// what comes out is no canonical reference.
fn remapped(asked: &DockerReference, prefix: &str, signed_prefix: &str) -> Option<DockerReference> {
    let name = asked.repository.to_string();
    let under = name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if !under {
        return Some(asked.clone());
    }
    let text = asked.to_string().replacen(prefix, signed_prefix, 1);
    text.parse().ok().filter(|reference: &DockerReference| reference.to_string() == text)
}

/// `host[:port]`, or that and a path; no tag, no digest, no trailing slash.
fn is_prefix(text: &str) -> bool {
    match text.split_once('/') {
        None => text.parse::<Host>().is_ok(),
        Some((host, path)) => host.parse::<Host>().is_ok() && path.parse::<RepositoryName>().is_ok(),
    }
}

fn strings<const N: usize>(node: &Node, table: &Object, keys: [&'static str; N]) -> Result<[String; N], DocumentError> {
    let members = exactly(node, table, keys, |member| string(member).map(drop))?;
    let mut texts = [const { String::new() }; N];
    for ((key, member), text) in keys.iter().zip(members).zip(&mut texts) {
        *text = string(member).map_err(|error| error.within(&format!(".{key}")))?;
    }
    Ok(texts)
}

fn docker_reference(key: &str, text: &str) -> Result<DockerReference, DocumentError> {
    text.parse().map_err(|_: ReferenceError| {
        // Docker's own words: they tell upper case apart, and nothing else.
        let name = text.split(['@', ':']).next().unwrap_or_default();
        let why = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            "invalid reference format: repository name must be lowercase"
        } else {
            "invalid reference format"
        };
        DocumentError::new(format!("Invalid format of {key} {}: {why}", go_quote(text))).within(&format!(".{key}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const OTHER: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn parse(text: &str) -> Result<SignedIdentity, String> {
        SignedIdentity::from_json(text.as_bytes()).map_err(|error| error.text().to_owned())
    }

    fn accepts(identity: &SignedIdentity, asked: &str, signed: &str) -> bool {
        identity.accepts(&asked.parse().unwrap(), &signed.parse().unwrap())
    }

    #[test]
    fn match_exact_wants_the_same_tag_or_digest() {
        let exact = SignedIdentity::MatchExact;
        assert!(accepts(&exact, "busybox:1", "docker.io/library/busybox:1"));
        assert!(accepts(&exact, &format!("quay.io/a@{DIGEST}"), &format!("quay.io/a@{DIGEST}")));
        assert!(!accepts(&exact, "busybox:1", "busybox:2"));
        assert!(!accepts(&exact, "busybox:1", "busybox"));
        assert!(!accepts(&exact, "busybox", "busybox"));
        assert!(!accepts(&exact, &format!("busybox@{DIGEST}"), "busybox:1"));
        assert!(!accepts(&exact, &format!("busybox@{DIGEST}"), &format!("busybox@{OTHER}")));
    }

    #[test]
    fn the_default_takes_any_tag_of_the_repository_for_a_digest() {
        let default = SignedIdentity::parse_or_default(None).unwrap();
        assert!(accepts(&default, "quay.io/a:1", "quay.io/a:1"));
        assert!(accepts(&default, &format!("quay.io/a@{DIGEST}"), "quay.io/a:1"));
        assert!(accepts(&default, &format!("quay.io/a@{DIGEST}"), &format!("quay.io/a@{OTHER}")));
        assert!(!accepts(&default, "quay.io/a:1", "quay.io/a"), "cosign signs without a tag");
        assert!(!accepts(&default, &format!("quay.io/a@{DIGEST}"), "quay.io/a"));
        assert!(!accepts(&default, &format!("quay.io/a@{DIGEST}"), "quay.io/b:1"));
        assert!(!accepts(&default, "quay.io/a:1", "quay.io/a:2"));
    }

    #[test]
    fn match_repository_looks_at_nothing_else() {
        let repository = SignedIdentity::MatchRepository;
        assert!(accepts(&repository, "quay.io/a:1", "quay.io/a"));
        assert!(accepts(&repository, "busybox", "docker.io/library/busybox:2"));
        assert!(!accepts(&repository, "quay.io/a:1", "quay.io/a/b"));
        assert!(!accepts(&repository, "quay.io/a:1", "quay.io:443/a"));
    }

    #[test]
    fn exact_kinds_do_not_depend_on_what_is_asked_for() {
        let reference = parse(r#"{"type":"exactReference","dockerReference":"quay.io/a:1"}"#).unwrap();
        assert!(accepts(&reference, "other/image:9", "quay.io/a:1"));
        assert!(!accepts(&reference, "quay.io/a:1", "quay.io/a:2"));
        assert!(!accepts(&reference, "quay.io/a:1", "quay.io/a"));
        let repository = parse(r#"{"type":"exactRepository","dockerRepository":"quay.io/a:1"}"#).unwrap();
        assert!(accepts(&repository, "other/image:9", "quay.io/a"));
        assert!(!accepts(&repository, "quay.io/a:1", "quay.io/b"));
    }

    #[test]
    fn remap_replaces_a_whole_prefix_once() {
        let remap = |prefix: &str, signed: &str| {
            parse(&format!(r#"{{"type":"remapIdentity","prefix":"{prefix}","signedPrefix":"{signed}"}}"#)).unwrap()
        };
        let mirror = remap("mirror.example:5000/vendor", "vendor.example");
        assert!(accepts(&mirror, "mirror.example:5000/vendor/app:1", "vendor.example/app:1"));
        assert!(accepts(&mirror, "elsewhere.example/app:1", "elsewhere.example/app:1"));
        assert!(!accepts(&mirror, "mirror.example:5000/vendor/app:1", "mirror.example:5000/vendor/app:1"));
        assert!(!accepts(&mirror, "mirror.example:5000/vendors/app:1", "vendor.examples/app:1"));
        let whole = remap("a.example/x", "b.example/y/z");
        assert!(accepts(&whole, "a.example/x:1", "b.example/y/z:1"));
        // `docker.io/busybox` is not how that repository is written.
        let hub = remap("a.example", "docker.io");
        assert!(!accepts(&hub, "a.example/busybox:1", "docker.io/library/busybox:1"));
        assert!(accepts(&hub, "a.example/library/busybox:1", "docker.io/library/busybox:1"));
    }

    #[test]
    fn what_is_malformed_is_refused_in_the_words_of_containers_image() {
        for (text, expected) in [
            (r#""matchExact""#, "json: cannot unmarshal string into Go value of type signature.prmCommon"),
            ("null", r#"Unknown policy reference match type """#),
            (r#"{"type":"matchAny"}"#, r#"Unknown policy reference match type "matchAny""#),
            (r#"{"type":"matchExact","x":1}"#, r#"Unknown key "x""#),
            (
                r#"{"type":"exactReference","dockerReference":1,"x":1}"#,
                "json: cannot unmarshal number into Go value of type string",
            ),
            (r#"{"type":"exactReference"}"#, r#"Key "dockerReference" missing in a JSON object"#),
            (
                r#"{"type":"exactReference","dockerReference":"busybox"}"#,
                r#"dockerReference "busybox" contains neither a tag nor digest"#,
            ),
            (
                r#"{"type":"exactReference","dockerReference":""}"#,
                r#"Invalid format of dockerReference "": invalid reference format"#,
            ),
            (
                r#"{"type":"exactRepository","dockerRepository":"UPPER"}"#,
                r#"Invalid format of dockerRepository "UPPER": invalid reference format: repository name must be lowercase"#,
            ),
            (
                r#"{"type":"remapIdentity","prefix":"a.example/","signedPrefix":"b"}"#,
                r#"prefix "a.example/" is not valid"#,
            ),
            (
                r#"{"type":"remapIdentity","prefix":"a.example","signedPrefix":"b/c:1"}"#,
                r#"prefix "b/c:1" is not valid"#,
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), expected, "{text}");
        }
    }
}
