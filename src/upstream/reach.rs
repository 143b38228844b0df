//! Where requests of one upstream may go: its endpoint, the realms of its tokens, its redirects. Pure.
//!
//! Addresses are checked later, when they are known (`net::address`); here it is about schemes, names and ports.

use std::net::IpAddr;

use url::{Host, Url};

use super::SettingsError;
use crate::limits::UPSTREAM_URL_BYTES_MAX;
use crate::net::{AddressKind, AddressRules};

/// The closed world of one upstream.
#[derive(Debug)]
pub(super) struct Reach {
    endpoint: Url,
    auth_hosts: Vec<HostRule>,
    redirect_hosts: Vec<HostRule>,
}

/// Why a realm or redirect is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blocked {
    /// Not an absolute URL, or too long.
    Malformed,
    /// Neither https nor, for an http upstream, http.
    Scheme,
    /// It carries a user or password.
    UserInfo,
    /// A port beyond the scheme's default, the upstream's own and the listed ones.
    Port,
    /// A host that may not be asked.
    Host,
}

impl Reach {
    pub(super) fn new(endpoint: Url, auth_hosts: &[String], redirect_hosts: &[String]) -> Result<Self, SettingsError> {
        let scheme_ok = matches!(endpoint.scheme(), "http" | "https") && endpoint.host().is_some();
        let bare = endpoint.username().is_empty()
            && endpoint.password().is_none()
            && endpoint.path() == "/"
            && endpoint.query().is_none()
            && endpoint.fragment().is_none();
        if !scheme_ok || !bare {
            return Err(SettingsError(
                "endpoint must be http:// or https:// with a host and nothing after it".to_owned(),
            ));
        }
        let rules = |texts: &[String]| texts.iter().map(|text| HostRule::parse(text)).collect::<Result<Vec<_>, _>>();
        Ok(Self { endpoint, auth_hosts: rules(auth_hosts)?, redirect_hosts: rules(redirect_hosts)? })
    }

    pub(super) fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    /// Whether `url` is at the upstream itself: the only origin whose challenges are heard and which sees credentials.
    pub(super) fn is_endpoint(&self, url: &Url) -> bool {
        url.origin() == self.endpoint.origin()
    }

    /// The addresses that may be dialled. An address that stands in the settings is allowed, exactly that one; a
    /// loopback endpoint opens loopback.
    pub(super) fn address_rules(&self, allow_private: bool) -> AddressRules {
        let rules = self.auth_hosts.iter().chain(&self.redirect_hosts).filter_map(HostRule::address);
        let named: Vec<IpAddr> =
            self.endpoint.host().and_then(|host| address(&host)).into_iter().chain(rules).collect();
        let loopback = match self.endpoint.host() {
            Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(host) => address(&host).is_some_and(|address| AddressKind::of(address) == AddressKind::Loopback),
            None => false,
        };
        AddressRules { loopback, private: allow_private, named }
    }

    /// Checks a token realm: on the upstream's registrable domain or in `auth_hosts`; https unless the upstream itself
    /// is http. Query and path stay, but for the parameters that we set ourselves.
    pub(super) fn realm(&self, text: &str) -> Result<Url, Blocked> {
        let mut realm = self.checked(Url::parse(text).map_err(|_| Blocked::Malformed)?, text.len())?;
        let listed = self.auth_hosts.iter().any(|rule| self.rule_fits(rule, &realm));
        if !listed {
            if !same_site(&self.endpoint, &realm) {
                return Err(Blocked::Host);
            }
            if !self.usual_port(&realm) {
                return Err(Blocked::Port);
            }
        }
        let ours = ["service", "scope", "account", "client_id", "offline_token"];
        let kept: Vec<(String, String)> =
            realm.query_pairs().filter(|(key, _)| !ours.contains(&key.as_ref())).map(into_owned).collect();
        realm.set_query(None);
        if !kept.is_empty() {
            realm.query_pairs_mut().extend_pairs(kept);
        }
        Ok(realm)
    }

    /// Checks where a redirect leads: to the upstream itself, or to `redirect_hosts` if there are any, else to any host.
    pub(super) fn redirect(&self, from: &Url, location: &str) -> Result<Url, Blocked> {
        let to = self.checked(from.join(location).map_err(|_| Blocked::Malformed)?, location.len())?;
        if self.is_endpoint(&to) || self.redirect_hosts.iter().any(|rule| self.rule_fits(rule, &to)) {
            return Ok(to);
        }
        if !self.redirect_hosts.is_empty() {
            return Err(Blocked::Host);
        }
        if self.usual_port(&to) { Ok(to) } else { Err(Blocked::Port) }
    }

    /// Whether `redirect_hosts` lets anything lead there: all may where it is empty.
    pub(super) fn may_redirect_to(&self, to: &Url) -> bool {
        self.redirect_hosts.is_empty()
            || self.is_endpoint(to)
            || self.redirect_hosts.iter().any(|rule| self.rule_fits(rule, to))
    }

    fn checked(&self, mut url: Url, bytes: usize) -> Result<Url, Blocked> {
        if bytes > UPSTREAM_URL_BYTES_MAX || url.as_str().len() > UPSTREAM_URL_BYTES_MAX {
            return Err(Blocked::Malformed);
        }
        match url.scheme() {
            "https" => {}
            "http" if self.endpoint.scheme() == "http" => {}
            _ => return Err(Blocked::Scheme),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Blocked::UserInfo);
        }
        url.set_fragment(None);
        if url.host().is_some() { Ok(url) } else { Err(Blocked::Malformed) }
    }

    fn rule_fits(&self, rule: &HostRule, url: &Url) -> bool {
        let port_fits = match rule.port {
            Some(port) => url.port_or_known_default() == Some(port),
            None => self.usual_port(url),
        };
        url.host().is_some_and(|host| host.to_owned() == rule.host) && port_fits
    }

    /// The scheme's default port, or the upstream's own on the upstream's own host.
    fn usual_port(&self, url: &Url) -> bool {
        let own =
            url.host() == self.endpoint.host() && url.port_or_known_default() == self.endpoint.port_or_known_default();
        url.port().is_none() || own
    }
}

/// `host` or `host:port` from the settings.
#[derive(Debug)]
struct HostRule {
    host: Host,
    port: Option<u16>,
}

impl HostRule {
    fn parse(text: &str) -> Result<Self, SettingsError> {
        let bad = || SettingsError(format!("{text:?} is not a host or host:port"));
        if text.is_empty() || text.contains(['/', '@', '?', '#', '\\', ' ', '*']) {
            return Err(bad());
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, Some(port.parse().map_err(|_| bad())?))
            }
            _ => (text, None),
        };
        Ok(Self { host: Host::parse(host).map_err(|_| bad())?, port })
    }

    fn address(&self) -> Option<IpAddr> {
        address(&self.host)
    }
}

fn address<T>(host: &Host<T>) -> Option<IpAddr> {
    match host {
        Host::Ipv4(address) => Some((*address).into()),
        Host::Ipv6(address) => Some((*address).into()),
        Host::Domain(_) => None,
    }
}

/// Whether both names belong to the same registrant: equal, or below the same registrable domain of the public suffix
/// list. An address is only itself.
fn same_site(one: &Url, other: &Url) -> bool {
    if one.host() == other.host() {
        return true;
    }
    let site = |url: &Url| match url.host() {
        Some(Host::Domain(name)) => psl::domain_str(name.trim_end_matches('.')).map(str::to_owned),
        Some(Host::Ipv4(_) | Host::Ipv6(_)) | None => None,
    };
    site(one).is_some_and(|domain| site(other) == Some(domain))
}

fn into_owned((key, value): (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)) -> (String, String) {
    (key.into_owned(), value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(endpoint: &str, auth: &[&str], redirect: &[&str]) -> Reach {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        Reach::new(endpoint.parse().unwrap(), &owned(auth), &owned(redirect)).unwrap()
    }

    #[test]
    fn a_realm_is_on_the_registrable_domain_or_listed() {
        let hub = reach("https://registry-1.docker.io", &["login.example", "10.1.2.3:8443"], &[]);
        let good = [
            "https://auth.docker.io/token",
            "https://registry-1.docker.io/token",
            "https://docker.io/t",
            "https://login.example/t",
            "https://10.1.2.3:8443/t",
        ];
        for realm in good {
            assert!(hub.realm(realm).is_ok(), "{realm}");
        }
        let bad = [
            ("https://docker.io.evil.example/t", Blocked::Host),
            ("https://evil.example/t", Blocked::Host),
            ("https://xdocker.io/t", Blocked::Host),
            ("https://169.254.169.254/t", Blocked::Host),
            ("http://auth.docker.io/t", Blocked::Scheme),
            ("file:///etc/passwd", Blocked::Scheme),
            ("https://user@auth.docker.io/t", Blocked::UserInfo),
            ("https://:pw@auth.docker.io/t", Blocked::UserInfo),
            ("https://auth.docker.io:22/t", Blocked::Port),
            ("https://login.example:22/t", Blocked::Host),
            ("https://10.1.2.3/t", Blocked::Host),
            ("/token", Blocked::Malformed),
            ("", Blocked::Malformed),
        ];
        for (realm, why) in bad {
            assert_eq!(hub.realm(realm), Err(why), "{realm}");
        }
    }

    #[test]
    fn where_redirect_hosts_are_listed_a_lookaside_leads_nowhere_else() {
        let to = |reach: &Reach, url: &str| reach.may_redirect_to(&url.parse().unwrap());
        let open = reach("https://registry.test", &[], &[]);
        assert!(to(&open, "https://cdn.test/x"));
        let listed = reach("https://registry.test", &[], &["cdn.test"]);
        assert!(to(&listed, "https://cdn.test/x") && to(&listed, "https://registry.test/x"));
        assert!(!to(&listed, "https://other.test/x") && !to(&listed, "https://registry.test:8443/x"));
    }

    #[test]
    fn two_tenants_of_one_public_suffix_are_strangers() {
        let tenant = reach("https://one.github.io", &[], &[]);
        assert!(tenant.realm("https://one.github.io/token").is_ok());
        assert_eq!(tenant.realm("https://two.github.io/token"), Err(Blocked::Host));
        let british = reach("https://registry.one.co.uk", &[], &[]);
        assert!(british.realm("https://auth.one.co.uk/").is_ok());
        assert_eq!(british.realm("https://two.co.uk/"), Err(Blocked::Host));
        let local = reach("http://10.0.0.5:5000", &[], &[]);
        assert!(local.realm("http://10.0.0.5:5000/token").is_ok());
        assert!(local.realm("https://10.0.0.5/token").is_ok());
        assert_eq!(local.realm("http://10.0.0.6:5000/token"), Err(Blocked::Host));
        assert_eq!(local.realm("http://10.0.0.5:5001/token"), Err(Blocked::Port));
    }

    #[test]
    fn what_we_ask_for_is_never_taken_from_the_realm() {
        let hub = reach("https://registry-1.docker.io", &[], &[]);
        let realm = hub.realm("https://auth.docker.io/t?a=b&scope=repository:*:*&service=x&account=y#f").unwrap();
        assert_eq!(realm.as_str(), "https://auth.docker.io/t?a=b");
    }

    #[test]
    fn a_redirect_leads_to_https_on_a_usual_port() {
        let open = reach("https://registry.example:5000", &[], &[]);
        let from: Url = "https://registry.example:5000/v2/a/blobs/x".parse().unwrap();
        let good = [
            ("/other", "https://registry.example:5000/other"),
            ("https://cdn.example/x?sig=1", "https://cdn.example/x?sig=1"),
            ("https://registry.example:5000/y#z", "https://registry.example:5000/y"),
            ("//cdn.example/x", "https://cdn.example/x"),
        ];
        for (location, to) in good {
            assert_eq!(open.redirect(&from, location).unwrap().as_str(), to);
        }
        let bad = [
            ("http://cdn.example/x", Blocked::Scheme),
            ("file:///etc/passwd", Blocked::Scheme),
            ("ftp://cdn.example/x", Blocked::Scheme),
            ("https://u:p@cdn.example/x", Blocked::UserInfo),
            ("https://cdn.example:22/x", Blocked::Port),
            ("https://cdn.example:5000/x", Blocked::Port),
            ("https://cdn.example:80/x", Blocked::Port),
            ("https://", Blocked::Malformed),
        ];
        for (location, why) in bad {
            assert_eq!(open.redirect(&from, location), Err(why), "{location}");
        }
        let plain = reach("http://registry.example", &[], &[]);
        assert!(plain.redirect(plain.endpoint(), "http://cdn.example/x").is_ok());
    }

    #[test]
    fn listed_redirect_hosts_are_the_only_ones() {
        let closed = reach("https://registry.example", &[], &["cdn.example", "store.example:8443"]);
        let from = closed.endpoint().clone();
        for good in ["https://cdn.example/x", "https://store.example:8443/x", "https://registry.example/x"] {
            assert!(closed.redirect(&from, good).is_ok(), "{good}");
        }
        for bad in ["https://other.example/x", "https://store.example/x", "https://cdn.example:8443/x"] {
            assert_eq!(closed.redirect(&from, bad), Err(Blocked::Host), "{bad}");
        }
    }

    #[test]
    fn a_loopback_endpoint_opens_loopback_and_nothing_else() {
        let allows = |endpoint: &str, private: bool, text: &str| {
            reach(endpoint, &["169.254.7.7"], &[]).address_rules(private).check(text.parse().unwrap()).is_ok()
        };
        for endpoint in ["http://127.0.0.1:5000", "http://localhost:5000", "http://[::1]:5000", "http://a.localhost"] {
            assert!(allows(endpoint, false, "127.0.0.2"), "{endpoint}");
            assert!(!allows(endpoint, false, "10.0.0.1"), "{endpoint}");
            assert!(!allows(endpoint, true, "169.254.169.254"), "{endpoint}");
        }
        assert!(!allows("https://registry.example", true, "127.0.0.1"));
        assert!(allows("https://registry.example", true, "10.0.0.1"));
        assert!(allows("https://10.0.0.5", false, "10.0.0.5"));
        assert!(!allows("https://10.0.0.5", false, "10.0.0.6"));
        assert!(allows("https://registry.example", false, "169.254.7.7"));
    }

    #[test]
    fn settings_that_are_no_endpoint_or_host_are_refused() {
        for endpoint in ["ftp://a", "https://u@a", "https://a/path", "https://a/?q", "https://a/#f"] {
            assert!(Reach::new(endpoint.parse().unwrap(), &[], &[]).is_err(), "{endpoint}");
        }
        for host in ["", "https://a", "a/b", "u@a", "a:b", "a:99999", "*.a"] {
            assert!(HostRule::parse(host).is_err(), "{host}");
        }
        for (text, port) in [("a.example", None), ("a:5000", Some(5000)), ("[::1]", None), ("[::1]:5000", Some(5000))] {
            assert_eq!(HostRule::parse(text).unwrap().port, port, "{text}");
        }
    }

    #[test]
    fn the_length_of_a_url_is_bounded_on_both_sides() {
        let open = reach("https://registry.example", &[], &[]);
        let url = |length: usize| format!("https://registry.example/{}", "a".repeat(length - 25));
        assert!(open.redirect(open.endpoint(), &url(UPSTREAM_URL_BYTES_MAX)).is_ok());
        assert_eq!(open.redirect(open.endpoint(), &url(UPSTREAM_URL_BYTES_MAX + 1)), Err(Blocked::Malformed));
        assert_eq!(open.realm(&url(UPSTREAM_URL_BYTES_MAX + 1)), Err(Blocked::Malformed));
    }
}
