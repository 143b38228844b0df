//! Who may come in, and who may change things. Pure.
//!
//! A browser on an operator's machine can be made to send requests here. `Host` is checked, so that a name that an attacker resolves to
//! this address is refused (DNS rebinding); `Origin` is checked, so that another site's script is; a change needs a header that no form
//! and no script of another site can send without our leave, which is never given (no CORS). On a listener that other machines reach, a
//! change needs the admin token too.

use axum::http::{HeaderMap, Method, StatusCode, Uri, header};

use super::Access;
use super::answer::Refusal;
use crate::oci::{Digest, Host};

/// The listener as far as the rules depend on it.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    /// Only this machine reaches it.
    pub(super) loopback: bool,
    /// This machine's host name.
    pub(super) host_name: Option<String>,
    pub(super) access: Access,
}

impl Guard {
    /// Whether the request may go on.
    ///
    /// # Errors
    /// 400 for a request without one clear `Host`, 403 for a foreign host or origin, or a change without the header; 401 for a change
    /// with a wrong token.
    pub(super) fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = self.check_host(uri, headers)?;
        check_origin(&host, headers)?;
        if *method == Method::GET || *method == Method::HEAD { Ok(()) } else { self.check_change(headers) }
    }

    fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<Host, Refusal> {
        let text = only(headers, header::HOST).ok_or_else(|| {
            Refusal::bad_request("the request has no Host header, or more than one", "send exactly one Host header")
        })?;
        let host: Host = text.parse().map_err(|_| foreign_host(text))?;
        // An absolute-form target must not say something else than `Host`.
        if uri.authority().is_some_and(|authority| !authority.as_str().eq_ignore_ascii_case(text)) {
            return Err(foreign_host(text));
        }
        if self.knows(host.without_port()) { Ok(host) } else { Err(foreign_host(text)) }
    }

    /// Loopback names always; on a listener that others reach also addresses, which nobody can rebind, and our own names.
    fn knows(&self, name: &str) -> bool {
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>().ok();
        let configured = || self.access.hosts.iter().any(|host| host.eq_ignore_ascii_case(name));
        let own = || !self.loopback && self.host_name.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(name));
        match address {
            Some(address) => address.is_loopback() || !self.loopback || configured(),
            None => name == "localhost" || own() || configured(),
        }
    }

    fn check_change(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if only(headers, "sealgate-admin") != Some("1") {
            return Err(Refusal::forbidden(
                "changes need the header Sealgate-Admin: 1",
                "with curl: -H 'Sealgate-Admin: 1'",
            ));
        }
        if self.loopback {
            return Ok(());
        }
        let Some(wanted) = &self.access.token else {
            return Err(Refusal::forbidden(
                "changes are switched off: other machines reach this listener, and there is no admin token",
                "set server.admin_token_file, or bind server.admin_listen to a loopback address",
            ));
        };
        let given = only(headers, header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        if given.is_some_and(|given| same(given, wanted)) {
            Ok(())
        } else {
            Err(Refusal::new(
                StatusCode::UNAUTHORIZED,
                "the admin token is missing or wrong",
                "send Authorization: Bearer followed by the content of server.admin_token_file",
            ))
        }
    }
}

/// A script of another site tells where it comes from.
fn check_origin(host: &Host, headers: &HeaderMap) -> Result<(), Refusal> {
    if !headers.contains_key(header::ORIGIN) {
        return Ok(());
    }
    let origin = only(headers, header::ORIGIN).unwrap_or("null");
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    if authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host.as_str())) {
        Ok(())
    } else {
        let hint = "other sites' pages may not talk to this API; leave the header Origin away";
        Err(Refusal::forbidden("the request comes from another site", hint))
    }
}

fn foreign_host(text: &str) -> Refusal {
    let shown: String = text.chars().take(HOST_CHARS_SHOWN).collect();
    Refusal::forbidden(
        format!("Host is {shown:?}, which is not a name of this listener"),
        "use localhost, the listener's address, or add the name to server.admin_hosts",
    )
}

/// The value of a header that must be there once and be text.
fn only(headers: &HeaderMap, name: impl header::AsHeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// Compares two secrets in a time that depends on neither: both are hashed, and the hashes compared to their end.
fn same(one: &str, other: &str) -> bool {
    let (one, other) = (Digest::sha256(one.as_bytes()), Digest::sha256(other.as_bytes()));
    let difference = one.as_bytes().iter().zip(other.as_bytes()).fold(0, |difference, (a, b)| difference | (a ^ b));
    std::hint::black_box(difference) == 0
}

/// A longer name is cut in the answer.
const HOST_CHARS_SHOWN: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: bool = true;

    fn guard(loopback: bool, token: Option<&str>) -> Guard {
        let access = Access { token: token.map(str::to_owned), hosts: vec!["mirror.example".to_owned()] };
        Guard { loopback, host_name: Some("node-7".to_owned()), access }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect_all()
    }

    /// `HeaderMap` collects by replacing; doubled headers are what some of these tests are about.
    trait CollectAll {
        fn collect_all(self) -> HeaderMap;
    }

    impl<I: Iterator<Item = (header::HeaderName, axum::http::HeaderValue)>> CollectAll for I {
        fn collect_all(self) -> HeaderMap {
            let mut map = HeaderMap::new();
            for (name, value) in self {
                map.append(name, value);
            }
            map
        }
    }

    fn status(guard: &Guard, method: &Method, pairs: &[(&'static str, &str)]) -> u16 {
        let uri = Uri::from_static("/api/v1/reload");
        guard.check(method, &uri, &headers(pairs)).map_or_else(|refusal| refusal.status.as_u16(), |()| 200)
    }

    #[test]
    fn a_loopback_listener_answers_to_loopback_names_only() {
        let guard = guard(LOCAL, None);
        for good in
            ["localhost", "localhost:5001", "LOCALHOST", "127.0.0.1:5001", "127.9.9.9", "[::1]:5001", "mirror.example"]
        {
            assert_eq!(status(&guard, &Method::GET, &[("host", good)]), 200, "{good}");
        }
        for bad in
            ["attacker.example", "localhost.attacker.example", "10.0.0.1:5001", "node-7", "169.254.169.254", "a b", ""]
        {
            assert_eq!(status(&guard, &Method::GET, &[("host", bad)]), 403, "{bad}");
        }
    }

    #[test]
    fn an_open_listener_answers_to_addresses_and_its_own_names() {
        let guard = guard(!LOCAL, None);
        for good in ["10.0.0.1:5001", "[2001:db8::1]:5001", "node-7:5001", "localhost", "mirror.example"] {
            assert_eq!(status(&guard, &Method::GET, &[("host", good)]), 200, "{good}");
        }
        assert_eq!(status(&guard, &Method::GET, &[("host", "attacker.example")]), 403);
    }

    #[test]
    fn a_request_names_exactly_one_host() {
        let guard = guard(LOCAL, None);
        assert_eq!(status(&guard, &Method::GET, &[]), 400);
        assert_eq!(status(&guard, &Method::GET, &[("host", "localhost"), ("host", "localhost")]), 400);
        let uri = Uri::from_static("http://attacker.example/livez");
        let refused = guard.check(&Method::GET, &uri, &headers(&[("host", "localhost")])).unwrap_err();
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
    }

    #[test]
    fn a_script_of_another_site_is_refused() {
        let guard = guard(LOCAL, None);
        let from = |origin| status(&guard, &Method::GET, &[("host", "localhost:5001"), ("origin", origin)]);
        assert_eq!(from("http://localhost:5001"), 200);
        for bad in ["https://attacker.example", "null", "http://localhost:8080", "http://localhost", "localhost:5001"] {
            assert_eq!(from(bad), 403, "{bad}");
        }
    }

    #[test]
    fn a_change_needs_the_header_even_on_loopback() {
        let guard = guard(LOCAL, Some("secret"));
        let post = |value| status(&guard, &Method::POST, &[("host", "localhost"), ("sealgate-admin", value)]);
        assert_eq!(post("1"), 200);
        assert_eq!(post("0"), 403);
        assert_eq!(status(&guard, &Method::POST, &[("host", "localhost")]), 403);
        assert_eq!(status(&guard, &Method::DELETE, &[("host", "localhost")]), 403);
    }

    #[test]
    fn a_change_on_an_open_listener_needs_the_token() {
        let send = |guard: &Guard, authorization: Option<&str>| {
            let mut pairs = vec![("host", "10.0.0.1"), ("sealgate-admin", "1")];
            pairs.extend(authorization.map(|value| ("authorization", value)));
            status(guard, &Method::POST, &pairs)
        };
        let with = guard(!LOCAL, Some("secret"));
        assert_eq!(send(&with, Some("Bearer secret")), 200);
        for bad in
            [None, Some("Bearer secre"), Some("Bearer secret2"), Some("Bearer "), Some("Basic secret"), Some("secret")]
        {
            assert_eq!(send(&with, bad), 401, "{bad:?}");
        }
        assert_eq!(send(&guard(!LOCAL, None), Some("Bearer secret")), 403);
    }

    #[test]
    fn the_token_is_not_printed() {
        assert!(!format!("{:?}", guard(LOCAL, Some("hunter22"))).contains("hunter22"));
    }
}
