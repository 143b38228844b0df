//! References to images: what a client asks for, and what a signer or a person writes.

use std::fmt;
use std::str::FromStr;

use super::{Digest, DigestError, Host, NameError, Repository, RepositoryName, Tag};

/// What comes after the repository in a request: a tag or a digest, never both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    /// A movable name.
    Tag(Tag),
    /// An immutable one.
    Digest(Digest),
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => fmt::Display::fmt(tag, formatter),
            Self::Digest(digest) => fmt::Display::fmt(digest, formatter),
        }
    }
}

/// A text is neither a tag nor a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It has a colon, so it should be a digest, and is not one.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// A name or tag in it does not fit its grammar.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains(':') { Ok(Self::Digest(text.parse()?)) } else { Ok(Self::Tag(text.parse()?)) }
    }
}

/// An image as it was requested: repository by its canonical upstream name, and a tag or a digest.
///
/// This is what policy sees, and part of each verdict's key. Its text is `docker.io/library/alpine:3.20` or
/// `docker.io/library/alpine@sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageReference {
    /// The repository.
    pub repository: Repository,
    /// The tag or digest.
    pub reference: Reference,
}

impl ImageReference {
    /// The image of that repository and reference.
    pub fn new(repository: Repository, reference: Reference) -> Self {
        Self { repository, reference }
    }

    /// The same repository by digest.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { repository: self.repository.clone(), reference: Reference::Digest(digest) }
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = match self.reference {
            Reference::Tag(_) => ':',
            Reference::Digest(_) => '@',
        };
        write!(formatter, "{}{separator}{}", self.repository, self.reference)
    }
}

impl FromStr for ImageReference {
    type Err = ReferenceError;

    /// Parses what a person types, with Docker's defaults: `alpine` is `docker.io/library/alpine:latest`. With both a
    /// tag and a digest the digest counts.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let DockerReference { repository, tag, digest } = text.parse()?;
        let reference = match (digest, tag) {
            (Some(digest), _) => Reference::Digest(digest),
            (None, Some(tag)) => Reference::Tag(tag),
            (None, None) => Reference::Tag("latest".parse()?),
        };
        Ok(Self { repository, reference })
    }
}

/// A reference as Docker normalises it (`distribution/reference`): `name[:tag][@digest]`, both optional.
///
/// `alpine` becomes `docker.io/library/alpine`, `index.docker.io/x/y` becomes `docker.io/x/y`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DockerReference {
    /// The repository.
    pub repository: Repository,
    /// The tag, if there is one.
    pub tag: Option<Tag>,
    /// The digest, if there is one.
    pub digest: Option<Digest>,
}

impl fmt::Display for DockerReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.repository, formatter)?;
        if let Some(tag) = &self.tag {
            write!(formatter, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(formatter, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for DockerReference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => (named, Some(digest.parse()?)),
            None => (text, None),
        };
        let (name, tag) = match named.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.parse()?)),
            _ => (named, None),
        };
        Ok(Self { repository: parse_normalized(name)?, tag, digest })
    }
}

fn parse_normalized(name: &str) -> Result<Repository, NameError> {
    let (host, path) = match name.split_once('/') {
        Some((first, rest)) if Host::looks_like_host(first) => (first, rest.to_owned()),
        Some(_) => ("docker.io", name.to_owned()),
        None => ("docker.io", format!("library/{name}")),
    };
    let (host, path) = match host {
        "docker.io" | "index.docker.io" if !path.contains('/') => ("docker.io", format!("library/{path}")),
        "index.docker.io" => ("docker.io", path),
        _ => (host, path),
    };
    Repository::new(host.parse()?, path.parse::<RepositoryName>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_types_is_normalised_as_docker_does() {
        let digest = Digest::sha256(b"");
        let rows = [
            ("alpine", "docker.io/library/alpine:latest".to_owned()),
            ("alpine:3", "docker.io/library/alpine:3".to_owned()),
            ("docker.io/alpine", "docker.io/library/alpine:latest".to_owned()),
            ("index.docker.io/a/b:1", "docker.io/a/b:1".to_owned()),
            ("a/b", "docker.io/a/b:latest".to_owned()),
            ("localhost/a:1", "localhost/a:1".to_owned()),
            ("192.168.64.2:5000/cosign-signed/key-1", "192.168.64.2:5000/cosign-signed/key-1:latest".to_owned()),
        ];
        for (typed, canonical) in rows {
            assert_eq!(typed.parse::<ImageReference>().unwrap().to_string(), canonical);
        }
        let both = format!("quay.io/a/b:1@{digest}");
        assert_eq!(both.parse::<ImageReference>().unwrap().to_string(), format!("quay.io/a/b@{digest}"));
        assert_eq!(both.parse::<DockerReference>().unwrap().to_string(), both);
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for bad in ["", ":1", "a:", "A", "quay.io/", "quay.io/a:b:c", "a@sha256:00", "a@", "quay.io/a//b"] {
            assert!(bad.parse::<ImageReference>().is_err(), "{bad}");
        }
    }
}
