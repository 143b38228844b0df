//! Names of registries, repositories and tags (distribution-spec v1.1, "Pulling manifests").

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::limits::{REPOSITORY_BYTES_MAX, TAG_BYTES_MAX};

/// A name does not fit its grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not `host` or `host:port`.
    #[error("not a registry host such as registry.example or registry.example:5000")]
    Host,
    /// Not lower-case path components of letters, digits and single separators.
    #[error("not a repository name: components of a-z, 0-9 and the separators . _ __ - between them")]
    Repository,
    /// Host and name together are too long.
    #[error("host and repository name together are longer than 255 bytes")]
    TooLong,
    /// Not a tag.
    #[error("not a tag: up to 128 of A-Z a-z 0-9 _ . - and not starting with . or -")]
    Tag,
}

/// The canonical host of a registry, `host` or `host:port`, in lower case. A key in a closed list, never dialled.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(Arc<str>);

impl Host {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Without the port.
    pub fn without_port(&self) -> &str {
        match self.0.rsplit_once(':') {
            Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => &self.0,
        }
    }

    /// Whether a path's first component can be a host at all: it has a dot or a colon, or is `localhost`.
    pub fn looks_like_host(component: &str) -> bool {
        component == "localhost" || component.contains(['.', ':'])
    }
}

impl FromStr for Host {
    type Err = NameError;

    /// Parses `host` or `host:port`: DNS labels, an IPv4 address, or an IPv6 address in brackets.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower = text.to_ascii_lowercase();
        if lower.is_empty() || lower.len() > REPOSITORY_BYTES_MAX {
            return Err(NameError::Host);
        }
        let (host, port) = match lower.strip_prefix('[') {
            Some(rest) => {
                let (address, after) = rest.split_once(']').ok_or(NameError::Host)?;
                address.parse::<std::net::Ipv6Addr>().map_err(|_| NameError::Host)?;
                let port = match after.strip_prefix(':') {
                    Some(port) => Some(port),
                    None if after.is_empty() => None,
                    None => return Err(NameError::Host),
                };
                (None, port)
            }
            None => match lower.split_once(':') {
                Some((host, port)) => (Some(host), Some(port)),
                None => (Some(lower.as_str()), None),
            },
        };
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        let host_ok = host.is_none_or(|host| host.split('.').all(label));
        let port_ok = port.is_none_or(|port| {
            port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if host_ok && port_ok { Ok(Self(lower.into())) } else { Err(NameError::Host) }
    }
}

/// A repository's name within its registry, such as `library/alpine`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryName(Arc<str>);

impl RepositoryName {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepositoryName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > REPOSITORY_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        if text.split('/').all(is_component) { Ok(Self(text.into())) } else { Err(NameError::Repository) }
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(component: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends_well =
        component.bytes().next().is_some_and(alphanumeric) && component.bytes().next_back().is_some_and(alphanumeric);
    let separators_ok = component
        .split(|char: char| char.is_ascii_lowercase() || char.is_ascii_digit())
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-'));
    ends_well && separators_ok
}

/// A tag.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(Arc<str>);

impl Tag {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = NameError;

    /// Parses `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let first_ok = text.bytes().next().is_some_and(word);
        let rest_ok = text.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'));
        if first_ok && rest_ok && text.len() <= TAG_BYTES_MAX { Ok(Self(text.into())) } else { Err(NameError::Tag) }
    }
}

/// A repository of an upstream by its canonical name, such as `docker.io/library/alpine`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository {
    host: Host,
    name: RepositoryName,
}

impl Repository {
    /// The repository `name` of the registry `host`.
    ///
    /// # Errors
    /// [`NameError::TooLong`] when both together exceed 255 bytes.
    pub fn new(host: Host, name: RepositoryName) -> Result<Self, NameError> {
        if host.as_str().len() + 1 + name.as_str().len() > REPOSITORY_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        Ok(Self { host, name })
    }

    /// The registry.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The name within the registry.
    pub fn name(&self) -> &RepositoryName {
        &self.name
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.host.0, self.name.0)
    }
}

macro_rules! text {
    ($($type:ident)*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    )*};
}
text!(Host RepositoryName Tag);

impl fmt::Debug for Repository {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_names_follow_the_grammar() {
        for good in ["a", "library/alpine", "a__b", "a-----b", "a.b_c-d/e", "0/1/2"] {
            assert!(good.parse::<RepositoryName>().is_ok(), "{good}");
        }
        for bad in
            ["", "/", "a/", "/a", "a//b", "A", "-a", "a-", "a___b", "a..b", "a._b", ".", "..", "a/../b", "a b", "é"]
        {
            assert_eq!(bad.parse::<RepositoryName>(), Err(NameError::Repository), "{bad}");
        }
        assert!("a".repeat(255).parse::<RepositoryName>().is_ok());
        assert_eq!("a".repeat(256).parse::<RepositoryName>(), Err(NameError::TooLong));
    }

    #[test]
    fn host_and_name_together_are_bounded() {
        let host: Host = "quay.io".parse().unwrap();
        let fits: RepositoryName = "a".repeat(247).parse().unwrap();
        let long: RepositoryName = "a".repeat(248).parse().unwrap();
        assert!(Repository::new(host.clone(), fits).is_ok());
        assert_eq!(Repository::new(host, long).unwrap_err(), NameError::TooLong);
    }

    #[test]
    fn tags_follow_the_grammar() {
        for good in ["latest", "v1.2-3", "_x", "A", &"t".repeat(128)] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        for bad in ["", ".a", "-a", "a:b", "a/b", "a b", "é", &"t".repeat(129)] {
            assert_eq!(bad.parse::<Tag>(), Err(NameError::Tag), "{bad}");
        }
    }

    #[test]
    fn hosts_have_labels_and_an_optional_port() {
        for good in ["docker.io", "localhost", "localhost:5000", "192.168.64.2:5000", "[::1]:5000", "[::1]", "QUAY.io"]
        {
            assert!(good.parse::<Host>().is_ok(), "{good}");
        }
        for bad in ["", "a:", "a:0", "a:65536", "a:b", "a..b", "-a", "a-", "a/b", "a b", "::1", "[::1", "[::1]x", "u@h"]
        {
            assert_eq!(bad.parse::<Host>(), Err(NameError::Host), "{bad}");
        }
        let host: Host = "QUAY.io:443".parse().unwrap();
        assert_eq!((host.as_str(), host.without_port()), ("quay.io:443", "quay.io"));
    }
}
