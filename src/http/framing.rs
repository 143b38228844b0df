//! What must hold of a request before anything else is asked: one host, no body, one length (RFC 9112). Pure.

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::Authority;
use http::{Method, Version};

use crate::limits::{UNREAD_BODY_BYTES_MAX, URI_BYTES_MAX};

/// Why a request is not looked at; the connection closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// More than 8 KiB of path and query.
    #[error("the path and query are longer than {URI_BYTES_MAX} bytes")]
    UriTooLong,
    /// No host, two, or one that is none.
    #[error("a request needs exactly one Host header, host or host:port")]
    Host,
    /// The target names another host than the header.
    #[error("the request's target names another host than its Host header")]
    OtherHost,
    /// A body where none is read.
    #[error("GET and HEAD take no body")]
    Body,
    /// Two lengths, or an encoding of the body that is not `chunked`.
    #[error("the request's body has no single length")]
    Length,
}

/// What is known of the body beside the headers.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodySeen {
    /// There is one, of whatever length.
    pub(super) present: bool,
    /// A head on this connection stated two lengths.
    pub(super) ambiguous: bool,
}

/// Checks a request's head.
pub(super) fn check(head: &Parts, body: BodySeen) -> Result<(), FramingError> {
    let encodings = head.headers.get_all(TRANSFER_ENCODING);
    let chunked_alone = encodings.iter().all(|value| value.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if body.ambiguous || !chunked_alone || encodings.iter().count() > 1 {
        return Err(FramingError::Length);
    }
    let readable = head.method == Method::GET || head.method == Method::HEAD;
    if readable && (body.present || head.headers.contains_key(TRANSFER_ENCODING)) {
        return Err(FramingError::Body);
    }
    if head.method != Method::CONNECT {
        check_host(head)?;
    }
    let uri_bytes = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if uri_bytes > URI_BYTES_MAX { Err(FramingError::UriTooLong) } else { Ok(()) }
}

/// Whether the connection must close because the body that is left on it is long, or of unknown length.
pub(super) fn leaves_long_body(head: &Parts) -> bool {
    let length = head.headers.get(CONTENT_LENGTH).map(|value| value.to_str().ok().and_then(|text| text.parse().ok()));
    let long = match length {
        None => false,
        Some(Some(length)) => UNREAD_BODY_BYTES_MAX < length,
        Some(None) => true,
    };
    long || head.headers.contains_key(TRANSFER_ENCODING)
}

/// One `Host` on HTTP/1.1, at most one before it; HTTP/2 has `:authority`. Both must agree: neither routes, but a proxy in front
/// might have believed the other.
fn check_host(head: &Parts) -> Result<(), FramingError> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(FramingError::Host);
    }
    let named = host.map(|host| Authority::try_from(host.as_bytes()).map_err(|_| FramingError::Host)).transpose()?;
    let target = head.uri.authority();
    if [named.as_ref(), target].into_iter().flatten().any(|authority| authority.as_str().contains('@')) {
        return Err(FramingError::Host);
    }
    match (named, target) {
        (Some(named), Some(target)) if named != *target => Err(FramingError::OtherHost),
        (Some(_), _) => Ok(()),
        (None, _) if head.version < Version::HTTP_11 => Ok(()),
        (None, Some(_)) if head.version >= Version::HTTP_2 => Ok(()),
        (None, _) => Err(FramingError::Host),
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const NONE: BodySeen = BodySeen { present: false, ambiguous: false };

    fn head(method: &str, target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn get(target: &str, headers: &[(&str, &str)]) -> Result<(), FramingError> {
        check(&head("GET", target, headers), NONE)
    }

    #[test]
    fn p08_there_is_exactly_one_host_and_the_target_agrees() {
        assert_eq!(get("/v2/", &[("host", "mirror:5000")]), Ok(()));
        assert_eq!(get("http://mirror:5000/v2/", &[("host", "Mirror:5000")]), Ok(()));
        assert_eq!(get("/v2/", &[]), Err(FramingError::Host));
        assert_eq!(get("/v2/", &[("host", "a"), ("host", "a")]), Err(FramingError::Host));
        assert_eq!(get("/v2/", &[("host", "u@a")]), Err(FramingError::Host));
        assert_eq!(get("/v2/", &[("host", "a b")]), Err(FramingError::Host));
        assert_eq!(get("http://evil/v2/", &[("host", "mirror")]), Err(FramingError::OtherHost));
        assert_eq!(get("http://evil/v2/", &[]), Err(FramingError::Host));
        assert_eq!(check(&head("CONNECT", "evil:443", &[]), NONE), Ok(()));
    }

    #[test]
    fn the_host_may_be_absent_only_before_http_1_1_and_in_http_2_beside_an_authority() {
        let with = |version, target: &str| {
            let mut parts = head("GET", target, &[]);
            parts.version = version;
            check(&parts, NONE)
        };
        assert_eq!(with(Version::HTTP_10, "/v2/"), Ok(()));
        assert_eq!(with(Version::HTTP_2, "https://mirror/v2/"), Ok(()));
        assert_eq!(with(Version::HTTP_2, "/v2/"), Err(FramingError::Host));
    }

    #[test]
    fn p11_get_and_head_have_no_body() {
        let host = ("host", "a");
        let body = BodySeen { present: true, ..NONE };
        for method in ["GET", "HEAD"] {
            assert_eq!(check(&head(method, "/v2/", &[host]), body), Err(FramingError::Body));
            let chunked = head(method, "/v2/", &[host, ("transfer-encoding", "chunked")]);
            assert_eq!(check(&chunked, NONE), Err(FramingError::Body));
            assert_eq!(check(&head(method, "/v2/", &[host, ("content-length", "0")]), NONE), Ok(()));
        }
        assert_eq!(check(&head("PUT", "/v2/", &[host]), body), Ok(()));
    }

    #[test]
    fn p07_a_body_has_one_length() {
        let host = ("host", "a");
        let encodings = |values: &[&str]| {
            let mut headers = vec![host];
            headers.extend(values.iter().map(|value| ("transfer-encoding", *value)));
            check(&head("POST", "/v2/", &headers), NONE)
        };
        assert_eq!(encodings(&["chunked"]), Ok(()));
        for bad in [&["identity, chunked"][..], &["gzip, chunked"], &["chunked", "chunked"], &["identity"]] {
            assert_eq!(encodings(bad), Err(FramingError::Length), "{bad:?}");
        }
        let two = BodySeen { ambiguous: true, ..NONE };
        assert_eq!(check(&head("POST", "/v2/", &[host]), two), Err(FramingError::Length));
    }

    #[test]
    fn p10_the_target_is_bounded() {
        let target = format!("/v2/{}", "a".repeat(URI_BYTES_MAX - 4));
        assert_eq!(get(&target, &[("host", "a")]), Ok(()));
        assert_eq!(get(&format!("{target}a"), &[("host", "a")]), Err(FramingError::UriTooLong));
    }

    #[test]
    fn p06_a_long_body_is_left_behind_with_its_connection() {
        let leaves = |headers: &[(&str, &str)]| leaves_long_body(&head("PUT", "/v2/", headers));
        assert!(!leaves(&[]) && !leaves(&[("content-length", "65536")]));
        assert!(leaves(&[("content-length", "65537")]) && leaves(&[("transfer-encoding", "chunked")]));
        assert!(leaves(&[("content-length", "99999999999999999999999")]));
    }
}
