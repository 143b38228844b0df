//! Asks the admin API of a running mirror.

use std::path::Path;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::Value;
use url::Url;

use super::CliError;
use crate::limits::{ADMIN_ANSWER_BYTES_MAX, CONFIG_FILE_BYTES_MAX};
use crate::net::{AddressRules, HttpClient, HttpSettings, NetError, Request, read_at_most};

/// A client of one mirror's admin listener.
#[derive(Debug)]
pub(super) struct AdminClient {
    http: HttpClient,
    base: Url,
    token: Option<HeaderValue>,
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
    pub(super) fn new(base: &Url, token_file: Option<&Path>) -> Result<Self, CliError> {
        let usage = |what: String, next: &str| CliError::Usage { what, next: next.to_owned() };
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            return Err(usage(
                format!("\"{base}\" is no address of an admin listener"),
                "write --admin http://127.0.0.1:5001",
            ));
        }
        // The operator wrote the address down, so it may be a private one.
        let addresses = AddressRules { loopback: true, private: true, named: Vec::new() };
        let http = HttpClient::new(HttpSettings { addresses, ..HttpSettings::default() }).map_err(|error| {
            usage(format!("cannot make an HTTP client: {error}"), "check the system's certificates")
        })?;
        Ok(Self { http, base: base.clone(), token: token_file.map(read_token).transpose()? })
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
            next: "is `sealgate serve` running, and is this its admin_listen? Name another with --admin URL".to_owned(),
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
        let message = serde_json::from_slice::<Value>(body)
            .ok()
            .and_then(|value| value.get("error")?.as_str().map(str::to_owned))
            .unwrap_or_default();
        CliError::Admin {
            what: format!("{} refuses: {status} {message}", self.base).trim_end().to_owned(),
            next: "changes over a listener that is not loopback need --admin-token-file FILE".to_owned(),
        }
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
