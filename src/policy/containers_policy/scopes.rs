//! Which scope decides (`docker/policyconfiguration/naming.go`): the most specific one, and that one alone.

use crate::oci::{Digest, Host, ImageReference, RepositoryName, Tag};

/// The scopes that could decide about an image, most specific first: the reference itself, its repository and each
/// namespace above it, the registry, and the registry's domains as `*.domain`. The catch-all scope `""` is not among them.
pub(crate) fn candidates(image: &ImageReference) -> Vec<String> {
    let mut scopes = vec![image.to_string()];
    let mut name = image.repository.to_string();
    while let Some((parent, _)) = name.rsplit_once('/') {
        let parent = parent.to_owned();
        scopes.push(std::mem::replace(&mut name, parent));
    }
    scopes.push(name);
    let mut domain = image.repository.host().without_port();
    while let Some((_, above)) = domain.split_once('.') {
        scopes.push(format!("*.{above}"));
        domain = above;
    }
    scopes
}

/// Why a scope deserves a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trap {
    /// It can never be the scope of any image.
    NeverMatches(String),
    /// It probably does not mean what it looks like.
    Suspicious(String),
}

/// What is wrong with a scope of images in registries, if anything is. No trap: some reference can have it as its scope.
pub(crate) fn trap(scope: &str) -> Option<Trap> {
    let never = |why: &str| Some(Trap::NeverMatches(why.to_owned()));
    if scope.is_empty() {
        return None;
    }
    if scope.contains("://") {
        return never("a scope has no scheme: write the registry's name first, such as docker.io/library/alpine");
    }
    if let Some(domain) = scope.strip_prefix("*.") {
        let is_domain = domain.parse::<Host>().is_ok() && !domain.contains([':', '[']) && !is_upper(domain);
        return if is_domain { None } else { never("after `*.` comes a domain in lower case, without port and path") };
    }
    if scope.contains('*') {
        return never("`*` stands for something only at the start, as in `*.example.com`");
    }
    let (name, digest) = match scope.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (scope, None),
    };
    if digest.is_some_and(|digest| digest.parse::<Digest>().is_err()) {
        return never("after `@` comes a digest such as sha256: and 64 hexadecimal digits in lower case");
    }
    let (host, path) = match name.split_once('/') {
        Some((host, path)) => (host, Some(path)),
        None => (name, None),
    };
    host_trap(host, path.is_some()).or_else(|| match path {
        Some(path) => path_trap(host, path, digest.is_some()),
        None if digest.is_some() => never("a digest belongs to a repository: write registry/repository@digest"),
        None => None,
    })
}

fn host_trap(host: &str, has_path: bool) -> Option<Trap> {
    let never = |why: &str| Some(Trap::NeverMatches(why.to_owned()));
    if host.parse::<Host>().is_err() {
        return never("it does not start with a registry such as quay.io or registry.example:5000");
    }
    if is_upper(host) {
        return never("registries and repositories are written in lower case");
    }
    if matches!(host, "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" | "hub.docker.com") {
        return never("the registry of Docker Hub is docker.io here, whatever its other names");
    }
    if Host::looks_like_host(host) {
        return None;
    }
    let path = if has_path { "/..." } else { "" };
    let full = if has_path { format!("docker.io/{host}/...") } else { format!("docker.io/library/{host}") };
    Some(Trap::Suspicious(format!(
        "names are written in full: this matches nothing unless an upstream is named {host}. \
         For {host}{path} on Docker Hub write {full}"
    )))
}

fn path_trap(host: &str, path: &str, has_digest: bool) -> Option<Trap> {
    let never = |why: &str| Some(Trap::NeverMatches(why.to_owned()));
    let (name, tag) = match path.split_once(':') {
        Some((name, tag)) => (name, Some(tag)),
        None => (path, None),
    };
    if is_upper(name) {
        return never("registries and repositories are written in lower case");
    }
    if name.ends_with('/') {
        return never("a scope does not end in a slash");
    }
    if name.parse::<RepositoryName>().is_err() {
        return never("it is no repository name: parts of a-z, 0-9 and . _ - between slashes");
    }
    if tag.is_some_and(|tag| tag.parse::<Tag>().is_err()) {
        return never("after `:` comes a tag");
    }
    if tag.is_some() && has_digest {
        return never("an image is asked for by tag or by digest, never by both");
    }
    if host == "docker.io" && !name.contains('/') {
        return if tag.is_some() || has_digest {
            never("official images of Docker Hub lie under library/: write docker.io/library/...")
        } else {
            official_image(name)
        };
    }
    None
}

/// `docker.io/alpine` is a namespace of Docker Hub; whoever writes it may mean the official image.
fn official_image(name: &str) -> Option<Trap> {
    if name == "library" {
        return None;
    }
    Some(Trap::Suspicious(format!(
        "this is the namespace docker.io/{name}/...; an official image would be docker.io/library/{name}"
    )))
}

fn is_upper(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn scopes_go_from_the_reference_up_to_the_domains() {
        assert_eq!(
            candidates(&"yet.another.example.com:8443/ns/repo:1".parse().unwrap()),
            [
                "yet.another.example.com:8443/ns/repo:1",
                "yet.another.example.com:8443/ns/repo",
                "yet.another.example.com:8443/ns",
                "yet.another.example.com:8443",
                "*.another.example.com",
                "*.example.com",
                "*.com",
            ]
        );
        let by_digest = format!("localhost/app@{DIGEST}");
        assert_eq!(candidates(&by_digest.parse().unwrap()), [by_digest.as_str(), "localhost/app", "localhost"]);
        assert_eq!(candidates(&"alpine:3".parse().unwrap())[1], "docker.io/library/alpine");
    }

    #[test]
    fn every_scope_that_a_reference_has_is_without_trap() {
        for image in ["quay.io/a/b/c:V1", "registry.example:5000/a:1", "localhost/a:1", "alpine:3", "10.0.0.1:5000/a:1"]
        {
            for scope in candidates(&image.parse().unwrap()) {
                assert_eq!(trap(&scope), None, "{scope}");
            }
        }
        assert_eq!(trap(&format!("quay.io/a@{DIGEST}")), None);
        assert_eq!(trap(""), None);
    }

    #[test]
    fn scopes_that_can_never_match_are_found() {
        let both = format!("quay.io/a:1@{DIGEST}");
        let short = "quay.io/a@sha256:00";
        for scope in [
            "*",
            "*bad*",
            "*.",
            "*.example.com/a",
            "*.example.com:5000",
            "*.Example.com",
            "quay.io/*",
            "docker://quay.io/a",
            "https://quay.io",
            "QUAY.io",
            "quay.io/A",
            "quay.io/a/",
            "quay.io//a",
            "index.docker.io/library/alpine",
            "registry-1.docker.io",
            "docker.io/alpine:3",
            "quay.io/a:-",
            "a b",
            &both,
            short,
            DIGEST,
        ] {
            assert!(matches!(trap(scope), Some(Trap::NeverMatches(_))), "{scope}: {:?}", trap(scope));
        }
    }

    #[test]
    fn scopes_that_look_like_something_else_are_suspicious() {
        for scope in ["docker.io/alpine", "alpine", "grafana/grafana"] {
            assert!(matches!(trap(scope), Some(Trap::Suspicious(_))), "{scope}");
        }
    }
}
