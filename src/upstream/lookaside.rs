//! GET from a lookaside server: where an upstream's OpenPGP signatures lie, beside the registry.
//!
//! It is another server than the registry, so it sees no credential, no client certificate and no token of it. It is reached as
//! the registry is: by the same proxy, on private addresses only with `allow_private_addresses`, and on loopback or an address of
//! another kind only when the base names it so. On the registry's own host, `ca_file` holds for it too. Requests are repeated and
//! counted as the registry's own are, in the name of the upstream whose signatures they are for.

use std::sync::Mutex;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, Method};
use url::{Host as UrlHost, Url};

use super::client::Client;
use super::{Network, UpstreamError, breaker, checks};
use crate::clock::Clock;
use crate::limits::{LOOKASIDE_CLIENTS_MAX, REDIRECTS_MAX, UPSTREAM_URL_BYTES_MAX};
use crate::net::{AddressKind, AddressRules, HttpClient, HttpSettings, Request, read_at_most};
use crate::oci::Host;
use crate::telemetry::UpstreamOp;

/// How lookaside servers are reached, and the clients for those that were.
#[derive(Debug)]
pub(super) struct Lookasides {
    proxy: Option<Url>,
    allow_private: bool,
    network: Network,
    clients: Mutex<Vec<(Key, HttpClient)>>,
}

/// What a client is good for: a server that the operator named, or any that one of those redirects to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    Named(String),
    Elsewhere,
}

impl Lookasides {
    pub(super) fn new(proxy: Option<Url>, allow_private: bool, network: Network) -> Self {
        Self { proxy, allow_private, network, clients: Mutex::new(Vec::new()) }
    }

    fn client(&self, base: &Url, url: &Url) -> Option<HttpClient> {
        let named = base.origin() == url.origin();
        let key = if named { Key::Named(url.origin().ascii_serialization()) } else { Key::Elsewhere };
        let mut clients = self.clients.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((_, client)) = clients.iter().find(|(known, _)| *known == key) {
            return Some(client.clone());
        }
        let addresses = if named { self.named(url) } else { self.elsewhere() };
        let Network { timeouts, lookup, .. } = self.network.clone();
        let settings =
            HttpSettings { proxy: self.proxy.clone(), addresses, timeouts, lookup, ..HttpSettings::default() };
        let client = HttpClient::new(settings).ok()?;
        if clients.len() >= LOOKASIDE_CLIENTS_MAX {
            clients.clear();
        }
        clients.push((key, client.clone()));
        Some(client)
    }

    fn elsewhere(&self) -> AddressRules {
        AddressRules { loopback: false, private: self.allow_private, named: Vec::new() }
    }

    /// For a host that the operator wrote down: its very address, when it is one.
    fn named(&self, url: &Url) -> AddressRules {
        let address = match url.host() {
            Some(UrlHost::Ipv4(address)) => Some(address.into()),
            Some(UrlHost::Ipv6(address)) => Some(address.into()),
            Some(UrlHost::Domain(_)) | None => None,
        };
        let loopback = match (url.host(), address) {
            (Some(UrlHost::Domain(name)), _) => name == "localhost" || name.ends_with(".localhost"),
            (_, Some(address)) => AddressKind::of(address) == AddressKind::Loopback,
            _ => false,
        };
        AddressRules { loopback, named: address.into_iter().collect(), ..self.elsewhere() }
    }
}

/// The bytes at `base`, at most `max`; `None` on a clean 404.
pub(super) async fn get(client: &Client, base: &Url, max: u64) -> Result<Option<Bytes>, UpstreamError> {
    client
        .within_total(async {
            let _turn = client.turn().await?;
            client.repeated(|| follow(client, base, max), || true).await
        })
        .await
}

async fn follow(client: &Client, base: &Url, max: u64) -> Result<Option<Bytes>, UpstreamError> {
    let server = server(client, base);
    let bad = |reason| UpstreamError::Bad { upstream: server.clone(), reason };
    let mut url = base.clone();
    for _hop in 0..=REDIRECTS_MAX {
        // The registry's own host is reached as the registry is; a redirect to another port of it is one to anywhere.
        let endpoint = client.reach.endpoint();
        let is_registry =
            endpoint.origin() == url.origin() || (url.origin() == base.origin() && endpoint.host() == url.host());
        let http = if is_registry {
            client.elsewhere.clone()
        } else {
            client.lookasides.client(base, &url).ok_or_else(|| bad("protocol"))?
        };
        let request = Request { method: Method::GET, url: url.clone(), headers: HeaderMap::new(), body: Bytes::new() };
        let sent = client.send(&http, UpstreamOp::Lookaside, request).await;
        let response = sent.map_err(|error| UpstreamError::of(&server, error))?;
        let header = |name| checks::single(&response.headers, name).ok().flatten();
        match response.status.as_u16() {
            200 => {
                checks::identity_encoding(&response.headers).map_err(bad)?;
                // Such as a login page: nothing that is no signature, but no answer to our question.
                if header(&CONTENT_TYPE).is_some_and(is_html) {
                    return Err(bad("lookaside_type"));
                }
                let bytes =
                    read_at_most(response.body, max).await.map_err(|error| UpstreamError::of(&server, error))?;
                client.telemetry.upstream_bytes(&client.host, u64::try_from(bytes.len()).unwrap_or(u64::MAX));
                return Ok(Some(bytes));
            }
            404 => return Ok(None),
            301 | 302 | 303 | 307 | 308 => {
                let location = header(&LOCATION).ok_or_else(|| bad("redirect"))?;
                let to = redirected(&url, location);
                let to = to.filter(|to| to.origin() == base.origin() || client.reach.may_redirect_to(to));
                url = to.ok_or_else(|| bad("redirect_blocked"))?;
            }
            status @ (401 | 403) => return Err(UpstreamError::Refused { upstream: server, status }),
            429 => {
                let retry_after = breaker::limited_for(header(&RETRY_AFTER), Clock::System.now());
                return Err(UpstreamError::RateLimited { upstream: server, retry_after });
            }
            status @ 500..=599 => {
                let retry_after = breaker::retry_after(header(&RETRY_AFTER), Clock::System.now());
                return Err(UpstreamError::Failed { upstream: server, status, retry_after });
            }
            _ => return Err(bad("protocol")),
        }
    }
    Err(bad("redirect"))
}

/// Where a redirect leads: any host, checked when it is dialled; never from https to http.
fn redirected(from: &Url, location: &str) -> Option<Url> {
    if location.len() > UPSTREAM_URL_BYTES_MAX {
        return None;
    }
    let mut to = from.join(location).ok()?;
    to.set_fragment(None);
    let scheme_is_good = match to.scheme() {
        "https" => true,
        "http" => from.scheme() == "http",
        _ => false,
    };
    (scheme_is_good && to.username().is_empty() && to.password().is_none()).then_some(to)
}

fn is_html(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("text/html")
}

/// The server's name in errors; the registry's, should it have none that is a registry's too.
fn server(client: &Client, url: &Url) -> Host {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let name = format!("{}{port}", url.host_str().unwrap_or_default());
    name.parse().unwrap_or_else(|_| client.host.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn only_what_the_operator_names_opens_more_than_public_addresses() {
        let lookasides = |allow_private| Lookasides::new(None, allow_private, Network::default());
        let allowed = |base: &str, address: &str, allow_private: bool| {
            lookasides(allow_private).named(&url(base)).check(address.parse().unwrap()).is_ok()
        };
        assert!(allowed("https://signatures.test/x", "8.8.8.8", false));
        for address in ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1"] {
            assert!(!allowed("https://signatures.test/x", address, false), "{address}");
        }
        assert!(allowed("https://signatures.test/x", "10.0.0.1", true), "as the upstream itself");
        assert!(!allowed("https://signatures.test/x", "127.0.0.1", true));
        assert!(allowed("http://127.0.0.1:1/x", "127.0.0.1", false));
        assert!(allowed("http://localhost/x", "127.0.0.1", false));
        assert!(allowed("http://10.0.0.1/x", "10.0.0.1", false));
        assert!(!allowed("http://10.0.0.1/x", "10.0.0.2", false));
        assert!(lookasides(false).elsewhere().check("127.0.0.1".parse().unwrap()).is_err(), "a redirect names nothing");
    }

    #[test]
    fn redirects_never_leave_https_and_carry_no_user() {
        let from = url("https://a.test/x/signature-1");
        assert_eq!(redirected(&from, "../y#z"), Some(url("https://a.test/y")));
        assert_eq!(redirected(&from, "https://b.test/"), Some(url("https://b.test/")));
        for bad in ["http://a.test/", "ftp://a.test/", "file:///etc/passwd", "https://user@a.test/", "https://"] {
            assert_eq!(redirected(&from, bad), None, "{bad}");
        }
        assert!(redirected(&url("http://a.test/"), "http://b.test/").is_some());
        let long = |bytes: usize| format!("/{}", "a".repeat(bytes - 1));
        assert!(redirected(&from, &long(UPSTREAM_URL_BYTES_MAX)).is_some());
        assert!(redirected(&from, &long(UPSTREAM_URL_BYTES_MAX + 1)).is_none());
    }

    #[test]
    fn a_page_for_people_is_known_by_its_type() {
        for html in ["text/html", "TEXT/HTML; charset=utf-8", " text/html "] {
            assert!(is_html(html), "{html}");
        }
        for other in ["", "application/octet-stream", "text/plain", "text/htmlx"] {
            assert!(!is_html(other), "{other}");
        }
    }
}
