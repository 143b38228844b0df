//! Where user and password of an upstream come from: settings, docker's `config.json`, a credential helper.
//!
//! Nothing here is ever logged, and the types that hold secrets print `****`.

mod docker_config;
mod helper;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use moka::sync::Cache;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{Credentials, SettingsError};
use crate::limits::{CREDENTIAL_FAILED, CREDENTIAL_LIFE, CREDENTIAL_READERS, CREDENTIAL_REREAD, CREDENTIALS_MAX};
use crate::oci::{Digest, Host, RepositoryName};
use docker_config::{DockerConfig, Found, candidates, server_url};

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::upstream) struct Secret(String);

impl Secret {
    pub(in crate::upstream) fn new(text: String) -> Self {
        Self(text)
    }

    pub(in crate::upstream) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("****")
    }
}

/// What is shown to a registry or its token realm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::upstream) enum Credential {
    /// User and password.
    Password { username: String, password: Secret },
    /// A refresh token of OAuth 2, which docker calls identity token; it goes to the realm alone.
    IdentityToken(Secret),
}

impl Credential {
    /// `Authorization: Basic …`, marked so that no layer prints it.
    pub(in crate::upstream) fn basic(&self) -> Option<HeaderValue> {
        let Self::Password { username, password } = self else { return None };
        let encoded = STANDARD.encode(format!("{username}:{}", password.expose()));
        let mut value = HeaderValue::from_str(&format!("Basic {encoded}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Tells credentials apart in keys, without keeping them there.
    pub(in crate::upstream) fn fingerprint(&self) -> Digest {
        let text = match self {
            Self::Password { username, password } => format!("password\n{username}\n{}", password.expose()),
            Self::IdentityToken(token) => format!("identity\n\n{}", token.expose()),
        };
        Digest::sha256(text.as_bytes())
    }

    fn password(username: String, password: String) -> Self {
        Self::Password { username, password: Secret::new(password) }
    }
}

/// Why there is no telling which credential to use. It never falls back to none: a request without credentials would
/// be answered "not found" for a private repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::upstream) enum CredentialError {
    #[error("docker configuration cannot be read: {0}")]
    Unreadable(std::io::ErrorKind),
    #[error("docker configuration is not the expected JSON")]
    Malformed,
    #[error("credential helper cannot be run: {0}")]
    HelperMissing(std::io::ErrorKind),
    #[error("credential helper did not answer in time")]
    HelperTimeout,
    #[error("credential helper failed or gave no usable answer")]
    HelperFailed,
}

/// Finds credentials, and keeps what files and helpers said for [`CREDENTIAL_LIFE`].
#[derive(Debug)]
pub(in crate::upstream) struct CredentialSource {
    credentials: Credentials,
    host: Host,
    /// Host and port of the endpoint, which configurations may name instead of the canonical host.
    endpoint: String,
    /// By repository, or under one key where the repository makes no difference.
    kept: Cache<String, Kept>,
    /// Files and helpers are asked by few at a time, however many requests want to know.
    turn: Semaphore,
}

#[derive(Debug, Clone)]
struct Kept {
    credential: Result<Option<Arc<Credential>>, CredentialError>,
    since: Instant,
}

impl Kept {
    /// A failure is kept for less long, but it is kept: a helper that hangs must not be run for each request.
    fn lasts(&self) -> bool {
        let life = if self.credential.is_ok() { CREDENTIAL_LIFE } else { CREDENTIAL_FAILED };
        self.since.elapsed() < life
    }
}

impl CredentialSource {
    pub(in crate::upstream) fn new(
        credentials: Credentials,
        host: Host,
        endpoint: &url::Url,
    ) -> Result<Self, SettingsError> {
        if let Credentials::Helper(name) = &credentials {
            helper::check_name(name)
                .map_err(|_| SettingsError(format!("{name:?} is no name of a credential helper")))?;
        }
        let authority = match (endpoint.host_str(), endpoint.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(host), None) => host.to_owned(),
            (None, _) => String::new(),
        };
        let kept = Cache::new(CREDENTIALS_MAX);
        Ok(Self { credentials, host, endpoint: authority, kept, turn: Semaphore::new(CREDENTIAL_READERS) })
    }

    /// The credential for a repository; `None`: ask without.
    pub(in crate::upstream) async fn of(
        &self,
        name: &RepositoryName,
    ) -> Result<Option<Arc<Credential>>, CredentialError> {
        match &self.credentials {
            Credentials::Anonymous => return Ok(None),
            Credentials::Static { username, password } => {
                return Ok(Some(Arc::new(Credential::password(username.clone(), password.clone()))));
            }
            Credentials::DockerConfig(_) | Credentials::Helper(_) => {}
        }
        let key = self.key(name);
        if let Some(kept) = self.kept.get(key).filter(Kept::lasts) {
            return kept.credential;
        }
        // Nobody closes it; should it happen, there is no bound any more, and nothing else is lost.
        let _turn = self.turn.acquire().await;
        if let Some(kept) = self.kept.get(key).filter(Kept::lasts) {
            return kept.credential;
        }
        let found = match &self.credentials {
            Credentials::DockerConfig(path) => self.in_config(path, name).await,
            Credentials::Helper(name) => helper::ask(name, server_url(self.host.as_str())).await,
            Credentials::Anonymous | Credentials::Static { .. } => Ok(None),
        };
        let credential = found.map(|found| found.map(Arc::new));
        self.kept.insert(key.to_owned(), Kept { credential: credential.clone(), since: Instant::now() });
        credential
    }

    /// The registry refused it: reads it again at the next request, unless it is that young that this just happened.
    pub(in crate::upstream) fn refused(&self, name: &RepositoryName) {
        let key = self.key(name);
        if self.kept.get(key).is_some_and(|kept| kept.since.elapsed() >= CREDENTIAL_REREAD) {
            self.kept.invalidate(key);
        }
    }

    fn key<'a>(&self, name: &'a RepositoryName) -> &'a str {
        match self.credentials {
            Credentials::DockerConfig(_) => name.as_str(),
            Credentials::Anonymous | Credentials::Static { .. } | Credentials::Helper(_) => "",
        }
    }

    async fn in_config(&self, path: &Path, name: &RepositoryName) -> Result<Option<Credential>, CredentialError> {
        let config = DockerConfig::read(path.to_owned()).await?;
        match config.find(&candidates(&self.host, &self.endpoint, name)) {
            Found::Nothing => Ok(None),
            Found::Credential(credential) => Ok(Some(credential)),
            Found::Malformed => Err(CredentialError::Malformed),
            Found::AskHelper { helper: name, server } => helper::ask(&name, &server).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_never_printed() {
        let credential = Credential::password("u".to_owned(), "hunter2".to_owned());
        assert!(!format!("{credential:?}").contains("hunter2"));
        assert!(!format!("{:?}", credential.basic().unwrap()).contains("aHVud"));
        let settings = Credentials::Static { username: "u".to_owned(), password: "hunter2".to_owned() };
        assert!(!format!("{settings:?}").contains("hunter2"));
    }

    #[tokio::test]
    async fn a_helper_that_fails_is_run_once_for_all_who_wait_and_again_later() {
        let missing = Credentials::Helper("none-of-this-name".to_owned());
        let endpoint: url::Url = "https://registry.test".parse().unwrap();
        let source = CredentialSource::new(missing, "registry.test".parse().unwrap(), &endpoint).unwrap();
        let name: RepositoryName = "team/app".parse().unwrap();
        assert_eq!(source.of(&name).await, Err(CredentialError::HelperMissing(std::io::ErrorKind::NotFound)));
        let first = source.kept.get("").unwrap().since;
        assert!(source.of(&name).await.is_err());
        assert_eq!(source.kept.get("").unwrap().since, first, "it was not run again");
        tokio::time::pause();
        tokio::time::advance(CREDENTIAL_FAILED).await;
        tokio::time::resume();
        assert!(source.of(&name).await.is_err());
        assert!(source.kept.get("").unwrap().since > first);
    }
}
