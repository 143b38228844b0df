//! Asks the admin API of a running mirror.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::Value;
use url::Url;

use super::CliError;
use super::output::Shown;
use crate::limits::{ADMIN_ANSWER_BYTES_MAX, CONFIG_FILE_BYTES_MAX};
use crate::net::{AddressRules, HttpClient, HttpSettings, NetError, Request, read_at_most};

/// Where an admin listener is reached, as an operator writes it.
#[derive(Debug, Clone)]
pub(super) struct AdminAddress(Url);

/// A text is no address of an admin listener.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum AddressError {
    /// No scheme, or another one.
    #[error("write http:// or https:// in front, such as {DEFAULT_ADMIN}")]
    Scheme,
    /// Something after the host.
    #[error("write only scheme, host and port, such as {DEFAULT_ADMIN}, without a path")]
    Path,
}

impl FromStr for AdminAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url: Url = text.parse().map_err(|_| AddressError::Scheme)?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            Err(AddressError::Scheme)
        } else if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            Err(AddressError::Path)
        } else {
            Ok(Self(url))
        }
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

/// Where a mirror listens when its configuration says nothing else.
pub(super) const DEFAULT_ADMIN: &str = "http://127.0.0.1:5001";

/// A client of one mirror's admin listener.
#[derive(Debug)]
pub(super) struct AdminClient {
    http: HttpClient,
    base: Url,
    token: Option<HeaderValue>,
    /// What else can be done when there is no answer.
    instead: &'static str,
}

/// What the API answered.
#[derive(Debug)]
pub(super) enum Reply {
    /// The thing asked for.
    Found(Value),
    /// There is no such thing.
    NotFound,
}

impl AdminClient {
    /// A client for `base`; changes carry the token in `token_file`.
    pub(super) fn new(address: &AdminAddress, token_file: Option<&Path>) -> Result<Self, CliError> {
        let usage = |what: String, next: &str| CliError::Usage { what, next: next.to_owned() };
        let base = &address.0;
        // Every message names the address.
        if !base.username().is_empty() || base.password().is_some() {
            return Err(usage(
                "the address of --admin has a user name or a password in it".to_owned(),
                "leave them away; changes take the token of --admin-token-file FILE",
            ));
        }
        // The operator wrote the address down, so it may be a private one.
        let addresses = AddressRules { loopback: true, private: true, named: Vec::new() };
        let http = HttpClient::new(HttpSettings { addresses, ..HttpSettings::default() }).map_err(|error| {
            usage(format!("cannot make an HTTP client: {error}"), "check the system's certificates")
        })?;
        Ok(Self { http, base: base.clone(), token: token_file.map(read_token).transpose()?, instead: "" })
    }

    /// The same, that also says what else can be done when there is no answer.
    pub(super) fn instead(self, instead: &'static str) -> Self {
        Self { instead, ..self }
    }

    /// `GET path?query`.
    pub(super) async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Reply, CliError> {
        self.send(Method::GET, path, query).await
    }

    /// A change: `DELETE path`.
    pub(super) async fn delete(&self, path: &str) -> Result<Reply, CliError> {
        self.send(Method::DELETE, path, &[]).await
    }

    /// A change: `POST path?query`.
    pub(super) async fn post(&self, path: &str, query: &[(&str, String)]) -> Result<Reply, CliError> {
        self.send(Method::POST, path, query).await
    }

    async fn send(&self, method: Method, path: &str, query: &[(&str, String)]) -> Result<Reply, CliError> {
        let mut url = self.base.clone();
        url.set_path(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut headers = HeaderMap::new();
        if method != Method::GET {
            // No cross-site form can send this header, so a browser cannot be made to change anything.
            headers.insert("sealgate-admin", HeaderValue::from_static("1"));
            if let Some(token) = &self.token {
                headers.insert(header::AUTHORIZATION, token.clone());
            }
        }
        let request = Request { method, url, headers, body: Bytes::new() };
        let response = self.http.send(request).await.map_err(|error| self.unreachable(error))?;
        let status = response.status;
        let body =
            read_at_most(response.body, ADMIN_ANSWER_BYTES_MAX).await.map_err(|error| self.unreachable(error))?;
        match status {
            StatusCode::NOT_FOUND => Ok(Reply::NotFound),
            status if status.is_success() && body.is_empty() => Ok(Reply::Found(Value::Null)),
            status if status.is_success() => {
                serde_json::from_slice(&body).map(Reply::Found).map_err(|_| self.is_something_else())
            }
            status => Err(self.refused(status, &body)),
        }
    }

    fn unreachable(&self, error: NetError) -> CliError {
        CliError::Admin {
            what: format!("no answer from {}: {error}", self.base),
            next: format!(
                "is `sealgate serve` running, and is this its admin_listen? Name another with --admin URL{}",
                self.instead
            ),
        }
    }

    /// What answers there is no admin listener.
    pub(super) fn is_something_else(&self) -> CliError {
        CliError::Admin {
            what: format!("{} does not answer as an admin listener of sealgate does", self.base),
            next: "name the address of server.admin_listen with --admin URL".to_owned(),
        }
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> CliError {
        let answer = serde_json::from_slice::<Value>(body).unwrap_or_default();
        let said = |name: &str| answer.get(name).and_then(Value::as_str).map(|text| Shown(text).to_string());
        let next = match (status, said("hint")) {
            (StatusCode::UNAUTHORIZED, _) => {
                "name the file that the mirror has as server.admin_token_file with --admin-token-file FILE".to_owned()
            }
            (_, Some(hint)) => hint,
            (_, None) => "the log of the mirror, or of what stands before it, says more".to_owned(),
        };
        let message = said("error").unwrap_or_default();
        CliError::Admin { what: format!("{} refuses: {status} {message}", self.base).trim_end().to_owned(), next }
    }
}

/// The token is read from a file, because arguments can be seen by everybody on the machine.
fn read_token(path: &Path) -> Result<HeaderValue, CliError> {
    use std::io::Read as _;
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(CONFIG_FILE_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|source| CliError::Usage {
        what: format!("cannot read the admin token from {}: {source}", path.display()),
        next: "name the file of server.admin_token_file".to_owned(),
    })?;
    let mut value = HeaderValue::try_from(format!("Bearer {}", text.trim())).map_err(|_| CliError::Usage {
        what: format!("{} holds no admin token", path.display()),
        next: "name the file of server.admin_token_file".to_owned(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}
