//! The one parser of raw paths: what a request asks for, as types that cannot be wrong.
//!
//! Follows distribution-spec v1.1 "Endpoints", read side, with `host[:port]` admitted as a name's first component. Nothing is
//! decoded in the path: any `%`, `\`, control or non-ASCII byte is refused, so no second reading of it can exist.

use std::fmt;

use http::Method;

use super::query::{Query, QueryError, encode};
use crate::oci::{Digest, DigestError, Host, NameError, Reference, RepositoryName, Tag};
use crate::telemetry::RouteLabel;

/// What a request asks for. Its text is the path and query that parse to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `/v2/`
    Base {
        /// `?ns=`
        namespace: Option<Host>,
    },
    /// `/v2/<name>/manifests/<reference>`
    Manifest {
        /// Of which repository.
        target: Target,
        /// The tag or digest.
        reference: Reference,
    },
    /// `/v2/<name>/blobs/<digest>`
    Blob {
        /// Of which repository.
        target: Target,
        /// The digest.
        digest: Digest,
    },
    /// `/v2/<name>/tags/list`
    Tags {
        /// Of which repository.
        target: Target,
        /// At most so many, when the client says; at most `limits::TAGS_PAGE_MAX`.
        n: Option<usize>,
        /// Only those after this one.
        last: Option<Tag>,
    },
    /// `/v2/<name>/referrers/<digest>`
    Referrers {
        /// Of which repository.
        target: Target,
        /// The subject.
        digest: Digest,
        /// Only referrers of this type.
        artifact_type: Option<String>,
    },
}

/// The repository as the client names it, before it is looked up among the upstreams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The name in the path.
    pub name: PathName,
    /// `?ns=`
    pub namespace: Option<Host>,
}

/// A name in a path. Its first component may be a host; whether it is one is for the configured upstreams to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathName {
    /// The first component, when it can be a host.
    pub(super) first: Option<Host>,
    /// What follows it, when that is a repository name.
    pub(super) rest: Option<RepositoryName>,
    /// All of it, when that is a repository name.
    pub(super) whole: Option<RepositoryName>,
}

/// Why a request is none that we answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Not GET or HEAD.
    #[error("this registry is read-only: only GET and HEAD are answered")]
    Method,
    /// No endpoint of the read side of the distribution-spec.
    #[error("no such endpoint; see /v2/<name>/manifests/<reference>, /blobs/<digest>, /tags/list, /referrers/<digest>")]
    Endpoint,
    /// `_catalog`.
    #[error("the catalog is not served: a mirror does not know what its upstreams hold")]
    Catalog,
    /// A byte that no name has.
    #[error("the path has a %, a backslash, a control or a non-ASCII byte")]
    PathByte,
    /// The name does not fit the grammar.
    #[error("{0}")]
    Name(NameError),
    /// The tag does not fit the grammar.
    #[error("not a tag: up to 128 of A-Z a-z 0-9 _ . - and not starting with . or -")]
    Tag,
    /// The digest does not fit the grammar.
    #[error("{0}")]
    Digest(#[from] DigestError),
    /// The query cannot be used.
    #[error("{0}")]
    Query(#[from] QueryError),
    /// No configured upstream has that name.
    #[error("{0}")]
    UpstreamUnknown(UpstreamUnknown),
    /// Path and `ns` name different upstreams.
    #[error("the path names the upstream {path} and ns names {namespace}")]
    NamespaceConflict {
        /// What the path says.
        path: Host,
        /// What `ns` says.
        namespace: Host,
    },
    /// The upstream has credentials, and this listener does not know its clients.
    #[error(
        "{host} is fetched with this mirror's credentials and is not served to unknown clients; set [server.tls] client_ca, \
         or anonymous_clients = true for it"
    )]
    NotServed {
        /// Which upstream.
        host: Host,
    },
}

/// Which name was looked up in vain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamUnknown {
    /// The host is not configured.
    #[error("{0} is not an upstream of this mirror")]
    Host(Host),
    /// `ns` is not even a host.
    #[error("ns is not an upstream of this mirror")]
    NotAHost,
    /// The request names none, and none is the default.
    #[error("the request names no upstream and this mirror has no default; put the registry's host first in the path")]
    NoDefault,
}

impl Route {
    /// Reads a request's method, raw path and raw query (without `?`).
    ///
    /// # Errors
    /// Each variant of [`RouteError`] but the last three, which need the configured upstreams.
    pub fn parse(method: &Method, raw_path: &str, query: &str) -> Result<Self, RouteError> {
        if method != Method::GET && method != Method::HEAD {
            return Err(RouteError::Method);
        }
        if raw_path.bytes().any(|byte| !matches!(byte, b'!'..=b'~') || matches!(byte, b'%' | b'\\')) {
            return Err(RouteError::PathByte);
        }
        let rest = match raw_path.strip_prefix("/v2") {
            Some("" | "/") => return Ok(Self::Base { namespace: namespace(&Query::parse(query)?)? }),
            Some("/_catalog") => return Err(RouteError::Catalog),
            Some(rest) => rest.strip_prefix('/').ok_or(RouteError::Endpoint)?,
            None => return Err(RouteError::Endpoint),
        };
        let endpoint = Endpoint::find(rest).ok_or(RouteError::Endpoint)?;
        let query = Query::parse(query)?;
        let name = endpoint.name.parse().map_err(RouteError::Name)?;
        let target = Target { name, namespace: namespace(&query)? };
        Ok(match endpoint.kind {
            Kind::Manifests => Self::Manifest { target, reference: reference(endpoint.argument)? },
            Kind::Blobs => Self::Blob { target, digest: endpoint.argument.parse()? },
            Kind::Tags => {
                let last = query.one("last")?.map(|last| last.parse().map_err(|_| RouteError::Tag)).transpose()?;
                Self::Tags { target, n: query.page_size()?, last }
            }
            Kind::Referrers => Self::Referrers {
                target,
                digest: endpoint.argument.parse()?,
                artifact_type: query.one("artifactType")?.filter(|text| !text.is_empty()).map(str::to_owned),
            },
        })
    }

    /// The label under which it is counted.
    pub const fn label(&self) -> RouteLabel {
        match self {
            Self::Base { .. } => RouteLabel::Base,
            Self::Manifest { .. } => RouteLabel::Manifest,
            Self::Blob { .. } => RouteLabel::Blob,
            Self::Tags { .. } => RouteLabel::Tags,
            Self::Referrers { .. } => RouteLabel::Referrers,
        }
    }
}

/// The endpoint's word, what is before it and what is after it.
struct Endpoint<'a> {
    name: &'a str,
    kind: Kind,
    argument: &'a str,
}

#[derive(Clone, Copy)]
enum Kind {
    Manifests,
    Blobs,
    Tags,
    Referrers,
}

impl<'a> Endpoint<'a> {
    /// Splits `<name>/<word>/<argument>` at the last word that something follows.
    ///
    /// Names may contain the words themselves (`a/manifests/blobs/sha256:…` is a blob of `a/manifests`); no argument that is
    /// valid has a slash, so the last word decides, and a bad argument is reported as one.
    fn find(rest: &'a str) -> Option<Self> {
        if let Some(name) = rest.strip_suffix("/tags/list") {
            return Some(Self { name, kind: Kind::Tags, argument: "" });
        }
        let words = [("/manifests/", Kind::Manifests), ("/blobs/", Kind::Blobs), ("/referrers/", Kind::Referrers)];
        let found = words.into_iter().filter_map(|(word, kind)| Some((rest.rfind(word)?, word, kind)));
        let (_, word, kind) = found.max_by_key(|(position, ..)| *position)?;
        let (name, argument) = rest.rsplit_once(word)?;
        Some(Self { name, kind, argument })
    }
}

fn reference(text: &str) -> Result<Reference, RouteError> {
    // What has a colon is meant as a digest: no tag has one.
    if text.contains(':') {
        Ok(Reference::Digest(text.parse()?))
    } else {
        text.parse().map(Reference::Tag).map_err(|_| RouteError::Tag)
    }
}

fn namespace(query: &Query) -> Result<Option<Host>, RouteError> {
    let Some(text) = query.one("ns")? else { return Ok(None) };
    // What cannot be a host cannot be a configured one either.
    text.parse().map(Some).map_err(|_| RouteError::UpstreamUnknown(UpstreamUnknown::NotAHost))
}

impl std::str::FromStr for PathName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let whole = text.parse::<RepositoryName>();
        let hosted = text.split_once('/').and_then(|(first, rest)| {
            let host = first.parse::<Host>().ok().filter(|host| host.as_str() == first)?;
            Some((host, rest.parse::<RepositoryName>().ok()?))
        });
        match (hosted, whole) {
            (Some((host, rest)), whole) => Ok(Self { first: Some(host), rest: Some(rest), whole: whole.ok() }),
            (None, Ok(whole)) => Ok(Self { first: None, rest: None, whole: Some(whole) }),
            (None, Err(error)) => Err(error),
        }
    }
}

impl fmt::Display for PathName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.whole, &self.first, &self.rest) {
            (Some(whole), ..) => fmt::Display::fmt(whole, formatter),
            (None, Some(first), Some(rest)) => write!(formatter, "{first}/{rest}"),
            (None, ..) => Ok(()),
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (target, query) = match self {
            Self::Base { namespace } => {
                formatter.write_str("/v2/")?;
                (namespace, String::new())
            }
            Self::Manifest { target, reference } => {
                write!(formatter, "/v2/{}/manifests/{reference}", target.name)?;
                (&target.namespace, String::new())
            }
            Self::Blob { target, digest } => {
                write!(formatter, "/v2/{}/blobs/{digest}", target.name)?;
                (&target.namespace, String::new())
            }
            Self::Tags { target, n, last } => {
                write!(formatter, "/v2/{}/tags/list", target.name)?;
                let n = n.map(|n| format!("&n={n}")).unwrap_or_default();
                let last = last.as_ref().map(|last| format!("&last={last}")).unwrap_or_default();
                (&target.namespace, n + &last)
            }
            Self::Referrers { target, digest, artifact_type } => {
                write!(formatter, "/v2/{}/referrers/{digest}", target.name)?;
                let kind = artifact_type.as_ref().map(|kind| format!("&artifactType={}", encode(kind)));
                (&target.namespace, kind.unwrap_or_default())
            }
        };
        let namespace = target.as_ref().map(|host| format!("&ns={}", encode(host.as_str()))).unwrap_or_default();
        match format!("{query}{namespace}").strip_prefix('&') {
            Some(query) => write!(formatter, "?{query}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::TAG_BYTES_MAX;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn get(path: &str) -> Result<Route, RouteError> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        Route::parse(&Method::GET, path, query)
    }

    #[test]
    fn every_endpoint_of_the_read_side_parses() {
        let digest = format!("sha256:{HEX}");
        for path in [
            "/v2/".to_owned(),
            "/v2/a/manifests/latest".to_owned(),
            "/v2/docker.io/library/alpine/manifests/3.20?ns=docker.io".to_owned(),
            format!("/v2/quay.io:5000/a/b/blobs/{digest}"),
            format!("/v2/a/b/c/manifests/{digest}"),
            "/v2/a/tags/list?n=10&last=v1".to_owned(),
            format!("/v2/a/referrers/{digest}?artifactType=application%2Fx%2Bjson&ns=127.0.0.1%3A7005"),
        ] {
            assert_eq!(get(&path).unwrap().to_string(), path);
        }
        assert_eq!(get("/v2"), get("/v2/"));
    }

    #[test]
    fn names_may_contain_the_words_of_endpoints() {
        let name = |path: &str| match get(path).unwrap() {
            Route::Manifest { target, .. }
            | Route::Blob { target, .. }
            | Route::Tags { target, .. }
            | Route::Referrers { target, .. } => target.name.to_string(),
            Route::Base { .. } => String::new(),
        };
        assert_eq!(name("/v2/a/manifests/manifests/x"), "a/manifests");
        assert_eq!(name(&format!("/v2/a/manifests/blobs/sha256:{HEX}")), "a/manifests");
        assert_eq!(name("/v2/manifests/tags/tags/list"), "manifests/tags");
        assert_eq!(name("/v2/a/blobs/manifests/manifests"), "a/blobs");
    }

    #[test]
    fn anything_else_is_no_endpoint() {
        for path in
            ["/", "/v1/", "/v2x", "/v2/a", "/v2/a/manifests", "/metrics", "/v2//tags", "/v2/../../etc/passwd", "*", ""]
        {
            assert_eq!(get(path), Err(RouteError::Endpoint), "{path}");
        }
        assert_eq!(get("/v2/_catalog?n=99999999999"), Err(RouteError::Catalog));
    }

    #[test]
    fn only_get_and_head_are_routes() {
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS, Method::CONNECT] {
            assert_eq!(Route::parse(&method, "/v2/a/blobs/uploads/", "mount=x"), Err(RouteError::Method));
        }
        assert!(Route::parse(&Method::HEAD, "/v2/a/manifests/x", "").is_ok());
    }

    #[test]
    fn p02_bytes_that_need_decoding_are_refused_everywhere() {
        for bad in ["%2e%2e", "%2f", "%00", "%0d%0a", "\\", "%ff", "é", "\u{1}", "\u{7f}", " "] {
            for path in [
                format!("/{bad}"),
                format!("/v2/{bad}/manifests/x"),
                format!("/v2/a{bad}/manifests/x"),
                format!("/v2/a/manifests/{bad}"),
                format!("/v2/a/blobs/sha256:{HEX}{bad}"),
                format!("/v2/a/tags/list{bad}"),
            ] {
                assert_eq!(get(&path), Err(RouteError::PathByte), "{path}");
            }
        }
    }

    #[test]
    fn p03_names_follow_the_grammar_of_the_specification() {
        for good in ["a__b", "a-----b", "a.b/c", "0", &"a".repeat(255)] {
            assert!(get(&format!("/v2/{good}/manifests/x")).is_ok(), "{good}");
        }
        for bad in ["A", "-a", "a//b", "a___b", "a/../b", "a/Docker.io/b", "Docker.io/a", "a/b:5000/c", "", "/"] {
            assert!(matches!(get(&format!("/v2/{bad}/manifests/x")), Err(RouteError::Name(_))), "{bad}");
        }
        assert_eq!(get(&format!("/v2/{}/manifests/x", "a".repeat(256))), Err(RouteError::Name(NameError::TooLong)));
    }

    #[test]
    fn p04_tags_follow_the_grammar_of_the_specification() {
        let tag = |tag: &str| get(&format!("/v2/a/manifests/{tag}"));
        assert!(tag(&"t".repeat(TAG_BYTES_MAX)).is_ok());
        for bad in ["", ".a", "-a", "a/b", "a+b", &"t".repeat(TAG_BYTES_MAX + 1)] {
            assert_eq!(tag(bad), Err(RouteError::Tag), "{bad}");
        }
    }

    #[test]
    fn p05_digests_follow_the_grammar_of_the_specification() {
        for bad in [
            format!("sha256:{}", HEX.get(1..).unwrap()),
            format!("sha256:{HEX}0"),
            format!("sha256:{}", HEX.to_uppercase()),
            format!("SHA256:{HEX}"),
            format!("md5:{}", HEX.get(32..).unwrap()),
            "sha256:../../x".to_owned(),
            format!("sha256:{HEX}/.."),
            format!("sha512:{HEX}"),
        ] {
            for endpoint in ["manifests", "blobs", "referrers"] {
                let found = get(&format!("/v2/a/{endpoint}/{bad}"));
                assert!(matches!(found, Err(RouteError::Digest(_))), "{endpoint}/{bad}: {found:?}");
            }
        }
        assert!(matches!(get("/v2/a/blobs/uploads/"), Err(RouteError::Digest(_))));
    }

    #[test]
    fn p19_what_is_no_host_is_no_upstream() {
        let none = Err(RouteError::UpstreamUnknown(UpstreamUnknown::NotAHost));
        for ns in ["", "docker.io%0d%0ax:1", "http://x", "a/b", "%00"] {
            assert_eq!(get(&format!("/v2/a/manifests/x?ns={ns}")), none, "{ns}");
        }
        let twice = Err(RouteError::Query(QueryError::Twice { key: "ns" }));
        assert_eq!(get("/v2/a/manifests/x?ns=docker.io&ns=docker.io"), twice);
    }

    #[test]
    fn p21_a_page_has_a_number_and_a_tag() {
        assert_eq!(get("/v2/a/tags/list?n=-1"), Err(RouteError::Query(QueryError::Number)));
        assert_eq!(get("/v2/a/tags/list?last=%0a"), Err(RouteError::Tag));
        assert!(matches!(get("/v2/a/tags/list?n=99999999999"), Ok(Route::Tags { n: Some(1000), .. })));
    }

    proptest! {
        #[test]
        fn no_input_panics(path in ".{0,80}", query in ".{0,80}") {
            drop(Route::parse(&Method::GET, &path, &query));
            drop(Route::parse(&Method::GET, &format!("/v2/{path}/manifests/x"), &query));
        }

        #[test]
        fn whatever_parses_renders_to_what_parses_the_same(
            name in "[a-z0-9._:/-]{1,30}",
            endpoint in prop::sample::select(vec!["manifests/v1", "tags/list", "manifests/manifests", "blobs/DIGEST", "referrers/DIGEST"]),
            query in "((ns|n|last|artifactType|x)=[a-z0-9.%+/:-]{0,8}&?){0,3}",
        ) {
            let path = format!("/v2/{name}/{}", endpoint.replace("DIGEST", &format!("sha256:{HEX}")));
            if let Ok(route) = Route::parse(&Method::GET, &path, &query) {
                let rendered = route.to_string();
                prop_assert!(rendered.starts_with(&path), "{rendered} is not {path}");
                prop_assert_eq!(get(&rendered), Ok(route));
            }
        }
    }
}
