//! `spec.images[].glob`: which images a policy is about, by the rules of policy-controller.
//!
//! `*` is any run of characters without `/`, `**` any run at all; everything else, `:` and `@` too, is itself, and the whole
//! name must match. `*` alone means `index.docker.io/library/*`, `*/*` means `index.docker.io/*/*`. A name is written as
//! go-containerregistry writes it (`index.docker.io/library/alpine:3`), or as `docker.io/library/alpine:3`, or as short as a
//! person may write it (`alpine:3`); `:latest` may be left out.

use super::document::{CipError, Origin};
use super::reader::Value;
use crate::limits::GLOB_BYTES_MAX;
use crate::oci::{DockerReference, ImageReference, Reference};

/// `spec.images[].glob`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    /// As written.
    pub text: String,
    /// Where.
    pub origin: Origin,
    parts: Vec<Part>,
}

/// A part of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// This character.
    Char(u8),
    /// `*`
    Segment,
    /// `**`
    Anything,
}

impl Part {
    /// Whether a wildcard can take that character in.
    pub(super) const fn repeats(self, byte: u8) -> bool {
        match self {
            Self::Char(_) => false,
            Self::Segment => byte != b'/',
            Self::Anything => true,
        }
    }
}

/// A text is no glob.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// It is empty.
    #[error("a glob is empty")]
    Empty,
    /// It is longer than [`GLOB_BYTES_MAX`].
    #[error("a glob is longer than {GLOB_BYTES_MAX} bytes")]
    TooLong,
    /// It has a character that stands in no glob.
    #[error("invalid glob {0:?}: a-z A-Z 0-9 and - _ : / * . @ are allowed")]
    Character(String),
}

impl Glob {
    /// Parses a glob of at most [`GLOB_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// [`GlobError`] for what policy-controller refuses too, and for what is too long.
    pub fn new(text: &str, origin: Origin) -> Result<Self, GlobError> {
        if text.is_empty() {
            return Err(GlobError::Empty);
        }
        if text.len() > GLOB_BYTES_MAX {
            return Err(GlobError::TooLong);
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_:/*.@".contains(&byte);
        if !text.bytes().all(allowed) {
            return Err(GlobError::Character(text.to_owned()));
        }
        let meant = match text {
            "*" => "index.docker.io/library/*",
            "*/*" => "index.docker.io/*/*",
            _ => text,
        };
        Ok(Self { text: text.to_owned(), origin, parts: parts(meant) })
    }

    pub(super) fn parse(value: &Value<'_>) -> Result<Self, CipError> {
        Self::new(value.text()?, value.origin()).map_err(|error| value.error(error.to_string()))
    }

    /// Whether it covers that image, by the rules of policy-controller. Takes time of at most the product of both lengths.
    pub fn covers(&self, image: &ImageReference) -> bool {
        names(image).iter().any(|name| self.matches(name))
    }

    /// Whether the whole text matches.
    fn matches(&self, text: &str) -> bool {
        // Most globs name a registry, so most images are told apart by their first characters.
        let first = self.parts.iter().zip(text.bytes()).take_while(|(part, _)| matches!(part, Part::Char(_)));
        if first.clone().any(|(part, byte)| *part != Part::Char(byte)) {
            return false;
        }
        // All places in the pattern that the text read so far can have led to.
        let mut places = vec![false; self.parts.len() + 1];
        reach(&self.parts, &mut places, 0);
        for byte in text.bytes() {
            let mut next = vec![false; self.parts.len() + 1];
            for (place, part) in self.parts.iter().enumerate() {
                if places.get(place).copied().unwrap_or(false) {
                    if *part == Part::Char(byte) {
                        reach(&self.parts, &mut next, place + 1);
                    } else if part.repeats(byte) {
                        reach(&self.parts, &mut next, place);
                    }
                }
            }
            places = next;
        }
        places.last().copied().unwrap_or(false)
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }
}

/// Marks a place, and those behind it that need no character: a wildcard may stand for nothing.
pub(super) fn reach(parts: &[Part], places: &mut [bool], from: usize) {
    let wildcards = parts.iter().skip(from).take_while(|part| !matches!(part, Part::Char(_))).count();
    for place in places.iter_mut().skip(from).take(wildcards + 1) {
        *place = true;
    }
}

/// Go's `strings.ReplaceAll` of `**` first, then of `*`: `***` is `**` and `*`.
fn parts(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let (part, after) = match (first, tail) {
            (b'*', [b'*', tail @ ..]) => (Part::Anything, tail),
            (b'*', tail) => (Part::Segment, tail),
            (byte, tail) => (Part::Char(*byte), tail),
        };
        parts.push(part);
        rest = after;
    }
    parts
}

/// Every way to write an image that a glob may be meant for.
fn names(image: &ImageReference) -> Vec<String> {
    let (host, path) = (image.repository.host().as_str(), image.repository.name().as_str());
    let repositories = if host == "docker.io" {
        let short = path.strip_prefix("library/").filter(|name| !name.contains('/')).unwrap_or(path);
        // `docker.io/ghcr.io/x` cannot be written as `ghcr.io/x`: that is another image.
        let is_name = short.parse::<DockerReference>().is_ok_and(|named| named.repository == image.repository);
        let short = is_name.then(|| short.to_owned());
        [format!("index.docker.io/{path}"), format!("docker.io/{path}")].into_iter().chain(short).collect()
    } else {
        vec![format!("{host}/{path}")]
    };
    let suffix = match &image.reference {
        Reference::Tag(tag) => format!(":{tag}"),
        Reference::Digest(digest) => format!("@{digest}"),
    };
    let mut names: Vec<String> = repositories.iter().map(|repository| format!("{repository}{suffix}")).collect();
    if suffix == ":latest" {
        names.extend(repositories);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glob(text: &str) -> Glob {
        Glob::new(text, Origin { file: "f".to_owned(), line: 1 }).unwrap()
    }

    fn covers(text: &str, image: &str) -> bool {
        glob(text).covers(&image.parse().unwrap())
    }

    const DIGEST: &str = "sha256:5504f2a95018e3d8a52d80d9e1a128c6ea337581808ff9fe96f5628ce2336350";

    #[test]
    fn a_colon_and_an_at_are_characters_like_others() {
        let by_digest = format!("ghcr.io/a/b@{DIGEST}");
        for (glob, tag, digest) in [
            ("ghcr.io/a/b", false, false),
            ("ghcr.io/a/b:1", true, false),
            ("ghcr.io/a/b:*", true, false),
            ("ghcr.io/a/b*", true, true),
            ("ghcr.io/a/*", true, true),
            ("ghcr.io/a/b@*", false, true),
            ("ghcr.io/*:*", false, false),
            ("ghcr.io/**:*", true, true),
            ("ghcr.io/*/*:*", true, true),
            ("ghcr.io/a*", false, false),
            ("ghcr.io/a**", true, true),
            ("**", true, true),
            ("***", true, true),
        ] {
            assert_eq!(covers(glob, "ghcr.io/a/b:1"), tag, "{glob}");
            assert_eq!(covers(glob, &by_digest), digest, "{glob}");
        }
    }

    #[test]
    fn images_of_docker_hub_have_three_names() {
        for glob in [
            "index.docker.io/library/alpine:latest",
            "docker.io/library/alpine",
            "alpine",
            "alpine:latest",
            "*",
            "*lpine*",
        ] {
            assert!(covers(glob, "docker.io/library/alpine:latest"), "{glob}");
        }
        assert!(covers("a/b:1", "docker.io/a/b:1") && covers("*/*", "docker.io/a/b:1"));
        assert!(!covers("library/alpine", "docker.io/library/alpine:latest"));
        assert!(!covers("alpine", "docker.io/library/alpine:3"));
        assert!(!covers("alpine", "quay.io/library/alpine:latest"));
        assert!(!covers("*/*", "ghcr.io/a:1"));
    }

    #[test]
    fn a_name_on_docker_hub_cannot_pass_for_one_of_another_registry() {
        let image = "docker.io/ghcr.io/a:1".parse::<ImageReference>().unwrap();
        assert_eq!(image.to_string(), "docker.io/ghcr.io/a:1");
        for text in ["ghcr.io/**", "ghcr.io/a:1", "ghcr.io/*"] {
            assert!(!glob(text).covers(&image), "{text}");
        }
        assert!(glob("**").covers(&image) && glob("docker.io/ghcr.io/*").covers(&image));
    }

    #[test]
    fn what_policy_controller_refuses_is_refused() {
        let parse = |text: &str| Glob::new(text, Origin { file: String::new(), line: 1 }).map(drop);
        for text in ["[", ".+", "[a-z]*", "a b", "a\\", "é", "a?", "{a}"] {
            assert_eq!(parse(text), Err(GlobError::Character(text.to_owned())));
        }
        assert_eq!(parse(""), Err(GlobError::Empty));
        assert_eq!(parse(&"a".repeat(GLOB_BYTES_MAX)), Ok(()));
        assert_eq!(parse(&"a".repeat(GLOB_BYTES_MAX + 1)), Err(GlobError::TooLong));
    }

    /// Patterns that take a matcher with backtracking longer than the universe lasts.
    #[test]
    fn many_wildcards_take_no_longer_than_few() {
        let text = format!("quay.io/{}b", "a".repeat(200));
        for wildcard in ["*a", "**a", "*a**a"] {
            let pattern = format!("quay.io/{}c", wildcard.repeat(80));
            assert!(!covers(&pattern, &text), "{wildcard}");
        }
    }

    proptest::proptest! {
        /// The meaning of a glob is that of the regular expression that policy-controller makes of it.
        #[test]
        fn a_glob_means_its_regular_expression(pattern in "[ab/:@.*]{1,12}", text in "[ab/:@.]{0,14}") {
            let meant = match pattern.as_str() {
                "*" => "index.docker.io/library/*",
                "*/*" => "index.docker.io/*/*",
                other => other,
            };
            let expression = meant.replace('.', r"\.").replace("**", "#").replace('*', "[^/]*").replace('#', ".*");
            let expected = regex::Regex::new(&format!("^{expression}$")).unwrap().is_match(&text);
            proptest::prop_assert_eq!(glob(&pattern).matches(&text), expected);
        }
    }
}
