//! From the name in a request to the repository of a configured upstream (design §4).
//!
//! `ns`, `Host` and path prefixes are look-up keys in this closed list; nothing that a client sends is ever dialled.

use std::collections::HashMap;
use std::sync::Arc;

use super::route::{PathName, Route, RouteError, Target, UpstreamUnknown};
use crate::oci::{Digest, Host, ImageReference, NameError, Repository, RepositoryName, Tag};

/// One configured upstream as the registry listener knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamName {
    /// Canonical name, used in policy.
    pub host: Host,
    /// Further names under which clients ask for it.
    pub aliases: Vec<Host>,
    /// Whether this listener serves it.
    pub access: Access,
}

/// Whether a listener serves an upstream (design §3, `anonymous_clients`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It does.
    Served,
    /// The upstream is fetched with our credentials, and whoever reaches this listener is unknown to us.
    NeedsKnownClients,
}

/// All configured upstreams.
#[derive(Debug, Clone)]
pub struct Upstreams {
    by_name: HashMap<Host, Arc<UpstreamName>>,
    default: Option<Arc<UpstreamName>>,
}

/// The list cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamsError {
    /// One name, two upstreams.
    #[error("{0} names two upstreams")]
    Twice(Host),
    /// The default is none of them.
    #[error("the default upstream {0} is not configured")]
    Default(Host),
}

/// A route to a repository of a configured upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routed {
    /// What is asked for.
    pub want: Want,
    /// The `ns` that chose the upstream, for the answer's `OCI-Namespace`.
    pub namespace: Option<Host>,
}

/// What is asked for, by canonical names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// Whether there is a registry here.
    Base,
    /// A manifest.
    Manifest(ImageReference),
    /// A blob.
    Blob(Repository, Digest),
    /// A page of tags.
    Tags(TagsQuery),
    /// The referrers of a digest, perhaps of one type only.
    Referrers(Repository, Digest, Option<String>),
}

/// Which page of tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagsQuery {
    /// Of which repository.
    pub repository: Repository,
    /// As the client names it: what `name` in the answer and the link to the next page say.
    pub target: Target,
    /// At most so many.
    pub n: Option<usize>,
    /// Only those after this one.
    pub last: Option<Tag>,
}

impl Upstreams {
    /// The list of `upstreams`; `default` is the canonical name of the one for clients that name none.
    ///
    /// # Errors
    /// [`UpstreamsError::Twice`] when a name or alias is not unique, [`UpstreamsError::Default`] when `default` is not listed.
    pub fn new(upstreams: Vec<UpstreamName>, default: Option<&Host>) -> Result<Self, UpstreamsError> {
        let mut by_name = HashMap::new();
        for upstream in upstreams {
            let upstream = Arc::new(upstream);
            for name in std::iter::once(&upstream.host).chain(&upstream.aliases) {
                if by_name.insert(name.clone(), Arc::clone(&upstream)).is_some() {
                    return Err(UpstreamsError::Twice(name.clone()));
                }
            }
        }
        let find = |host: &Host| by_name.get(host).cloned().ok_or_else(|| UpstreamsError::Default(host.clone()));
        let default = default.map(find).transpose()?;
        Ok(Self { by_name, default })
    }

    /// Finds the upstream and repository of a route.
    ///
    /// # Errors
    /// [`RouteError::UpstreamUnknown`], [`RouteError::NamespaceConflict`] and [`RouteError::NotServed`] as they say;
    /// [`RouteError::Name`] when host and name together are too long.
    pub fn resolve(&self, route: Route) -> Result<Routed, RouteError> {
        let (want, namespace) = match route {
            Route::Base { namespace } => {
                namespace.as_ref().map(|host| self.named(host)).transpose()?;
                (Want::Base, namespace)
            }
            Route::Manifest { target, reference } => {
                (Want::Manifest(ImageReference::new(self.repository(&target)?, reference)), target.namespace)
            }
            Route::Blob { target, digest } => (Want::Blob(self.repository(&target)?, digest), target.namespace),
            Route::Tags { target, n, last } => {
                let (repository, namespace) = (self.repository(&target)?, target.namespace.clone());
                (Want::Tags(TagsQuery { repository, target, n, last }), namespace)
            }
            Route::Referrers { target, digest, artifact_type } => {
                (Want::Referrers(self.repository(&target)?, digest, artifact_type), target.namespace)
            }
        };
        Ok(Routed { want, namespace })
    }

    fn repository(&self, target: &Target) -> Result<Repository, RouteError> {
        let (upstream, name) = self.look_up(target)?;
        match upstream.access {
            Access::Served => {}
            Access::NeedsKnownClients => return Err(RouteError::NotServed { host: upstream.host.clone() }),
        }
        let name = match name.as_str() {
            one if upstream.host.as_str() == "docker.io" && !one.contains('/') => {
                format!("library/{one}").parse().map_err(RouteError::Name)?
            }
            _ => name.clone(),
        };
        Repository::new(upstream.host.clone(), name).map_err(RouteError::Name)
    }

    /// The three ways in their order: prefix, `ns`, default.
    fn look_up<'a>(&'a self, target: &'a Target) -> Result<(&'a UpstreamName, &'a RepositoryName), RouteError> {
        let PathName { first, rest, whole } = &target.name;
        let prefix = first.as_ref().zip(rest.as_ref()).and_then(|(first, rest)| Some((self.by_name.get(first)?, rest)));
        if let Some((upstream, rest)) = prefix {
            if let Some(namespace) = &target.namespace
                && self.named(namespace)?.host != upstream.host
            {
                return Err(RouteError::NamespaceConflict {
                    path: upstream.host.clone(),
                    namespace: namespace.clone(),
                });
            }
            return Ok((upstream, rest));
        }
        let upstream = match (&target.namespace, &self.default) {
            (Some(namespace), _) => self.named(namespace)?,
            (None, Some(default)) => default,
            (None, None) => return Err(RouteError::UpstreamUnknown(UpstreamUnknown::NoDefault)),
        };
        match (whole, first) {
            (Some(whole), _) => Ok((upstream, whole)),
            // Only a host with a port is no repository component, and this one is not configured.
            (None, Some(first)) => Err(RouteError::UpstreamUnknown(UpstreamUnknown::Host(first.clone()))),
            (None, None) => Err(RouteError::Name(NameError::Repository)),
        }
    }

    fn named(&self, host: &Host) -> Result<&UpstreamName, RouteError> {
        let found = self.by_name.get(host).map(Arc::as_ref);
        found.ok_or_else(|| RouteError::UpstreamUnknown(UpstreamUnknown::Host(host.clone())))
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn host(text: &str) -> Host {
        text.parse().unwrap()
    }

    fn upstreams() -> Upstreams {
        let docker = UpstreamName {
            host: host("docker.io"),
            aliases: vec![host("index.docker.io"), host("registry-1.docker.io"), host("hub")],
            access: Access::Served,
        };
        let quay = UpstreamName { host: host("quay.io"), aliases: vec![], access: Access::Served };
        let local = UpstreamName { host: host("127.0.0.1:7005"), aliases: vec![], access: Access::Served };
        let private =
            UpstreamName { host: host("private.example"), aliases: vec![], access: Access::NeedsKnownClients };
        Upstreams::new(vec![docker, quay, local, private], Some(&host("docker.io"))).unwrap()
    }

    fn repository(path: &str) -> Result<String, RouteError> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let route = Route::parse(&Method::GET, &format!("/v2/{path}/manifests/x"), query)?;
        let Want::Manifest(image) = upstreams().resolve(route)?.want else { panic!("{path} is no manifest") };
        Ok(image.repository.to_string())
    }

    #[test]
    fn every_form_that_clients_use_leads_to_the_canonical_repository() {
        let rows = [
            ("library/alpine", "docker.io/library/alpine"),
            ("alpine", "docker.io/library/alpine"),
            ("library/alpine?ns=docker.io", "docker.io/library/alpine"),
            ("docker.io/library/alpine?ns=docker.io", "docker.io/library/alpine"),
            ("docker.io/library/alpine", "docker.io/library/alpine"),
            ("docker.io/alpine", "docker.io/library/alpine"),
            ("index.docker.io/a/b?ns=docker.io", "docker.io/a/b"),
            ("docker.io/a/b?ns=registry-1.docker.io", "docker.io/a/b"),
            ("hub/library/alpine?ns=docker.io", "docker.io/library/alpine"),
            ("quay.io/a", "quay.io/a"),
            ("a?ns=quay.io", "quay.io/a"),
            ("a?ns=127.0.0.1%3A7005", "127.0.0.1:7005/a"),
            ("127.0.0.1:7005/a/b", "127.0.0.1:7005/a/b"),
            ("my.app/tool", "docker.io/my.app/tool"),
            ("a/b?ns=QUAY.io&unknown=1", "quay.io/a/b"),
        ];
        for (path, canonical) in rows {
            assert_eq!(repository(path).as_deref(), Ok(canonical), "{path}");
        }
    }

    #[test]
    fn p19_an_unknown_upstream_is_unknown_and_nothing_else() {
        for path in ["a?ns=ghcr.io", "a?ns=169.254.169.254", "evil.example:443/a", "evil.example:443/a?ns=quay.io"] {
            let found = repository(path);
            assert!(matches!(found, Err(RouteError::UpstreamUnknown(UpstreamUnknown::Host(_)))), "{path}: {found:?}");
        }
        let route = Route::parse(&Method::GET, "/v2/", "ns=ghcr.io").unwrap();
        assert!(matches!(upstreams().resolve(route), Err(RouteError::UpstreamUnknown(_))));
    }

    #[test]
    fn p20_path_and_namespace_must_agree() {
        let conflict = RouteError::NamespaceConflict { path: host("docker.io"), namespace: host("quay.io") };
        assert_eq!(repository("index.docker.io/a/b?ns=quay.io"), Err(conflict));
        assert!(matches!(repository("quay.io/a?ns=ghcr.io"), Err(RouteError::UpstreamUnknown(_))));
    }

    #[test]
    fn without_a_default_the_request_must_name_its_upstream() {
        let quay = UpstreamName { host: host("quay.io"), aliases: vec![], access: Access::Served };
        let upstreams = Upstreams::new(vec![quay], None).unwrap();
        let route = Route::parse(&Method::GET, "/v2/a/manifests/x", "").unwrap();
        assert_eq!(upstreams.resolve(route), Err(RouteError::UpstreamUnknown(UpstreamUnknown::NoDefault)));
    }

    #[test]
    fn an_upstream_with_credentials_is_not_served_to_unknown_clients() {
        let refused = Err(RouteError::NotServed { host: host("private.example") });
        assert_eq!(repository("private.example/a"), refused);
        assert_eq!(repository("a?ns=private.example"), refused);
    }

    #[test]
    fn host_and_name_together_are_bounded() {
        let name = "a/".repeat(122);
        assert!(repository(&format!("{name}a")).is_ok());
        assert_eq!(repository(&format!("{name}ab")), Err(RouteError::Name(NameError::TooLong)));
    }

    #[test]
    fn one_name_for_two_upstreams_is_an_error() {
        let docker = UpstreamName { host: host("docker.io"), aliases: vec![host("hub")], access: Access::Served };
        let other = UpstreamName { host: host("hub"), aliases: vec![], access: Access::Served };
        let found = Upstreams::new(vec![docker.clone(), other], None).unwrap_err();
        assert_eq!(found, UpstreamsError::Twice(host("hub")));
        let found = Upstreams::new(vec![docker], Some(&host("quay.io"))).unwrap_err();
        assert_eq!(found, UpstreamsError::Default(host("quay.io")));
    }
}
