//! Where user and password of an upstream come from: settings, docker's `config.json`, a credential helper.
//!
//! Nothing here is ever logged, and the types that hold secrets print `****`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use moka::sync::Cache;
use serde_json::{Map, Value};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::time::Instant;

use super::{Credentials, SettingsError};
use crate::limits::{
    CONFIG_FILE_BYTES_MAX, CREDENTIAL_BYTES_MAX, CREDENTIAL_HELPER, CREDENTIAL_LIFE, CREDENTIAL_REREAD, CREDENTIALS_MAX,
};
use crate::oci::{Digest, Host, RepositoryName, json};

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(String);

impl Secret {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }

    pub(super) fn expose(&self) -> &str {
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
pub(super) enum Credential {
    /// User and password.
    Password { username: String, password: Secret },
    /// A refresh token of OAuth 2, which docker calls identity token; it goes to the realm alone.
    IdentityToken(Secret),
}

impl Credential {
    /// `Authorization: Basic …`, marked so that no layer prints it.
    pub(super) fn basic(&self) -> Option<HeaderValue> {
        let Self::Password { username, password } = self else { return None };
        let encoded = STANDARD.encode(format!("{username}:{}", password.expose()));
        let mut value = HeaderValue::from_str(&format!("Basic {encoded}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Tells credentials apart in keys, without keeping them there.
    pub(super) fn fingerprint(&self) -> Digest {
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
pub(super) enum CredentialError {
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
pub(super) struct CredentialSource {
    credentials: Credentials,
    host: Host,
    /// Host and port of the endpoint, which configurations may name instead of the canonical host.
    endpoint: String,
    /// By repository, or under one key where the repository makes no difference.
    kept: Cache<String, Kept>,
}

#[derive(Debug, Clone)]
struct Kept {
    credential: Option<Arc<Credential>>,
    since: Instant,
}

impl CredentialSource {
    pub(super) fn new(credentials: Credentials, host: Host, endpoint: &url::Url) -> Result<Self, SettingsError> {
        if let Credentials::Helper(name) = &credentials {
            check_helper_name(name)
                .map_err(|_| SettingsError(format!("{name:?} is no name of a credential helper")))?;
        }
        let authority = match (endpoint.host_str(), endpoint.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(host), None) => host.to_owned(),
            (None, _) => String::new(),
        };
        Ok(Self { credentials, host, endpoint: authority, kept: Cache::new(CREDENTIALS_MAX) })
    }

    /// The credential for a repository; `None`: ask without.
    pub(super) async fn of(&self, name: &RepositoryName) -> Result<Option<Arc<Credential>>, CredentialError> {
        match &self.credentials {
            Credentials::Anonymous => return Ok(None),
            Credentials::Static { username, password } => {
                return Ok(Some(Arc::new(Credential::password(username.clone(), password.clone()))));
            }
            Credentials::DockerConfig(_) | Credentials::Helper(_) => {}
        }
        let key = self.key(name);
        if let Some(kept) = self.kept.get(key)
            && kept.since.elapsed() < CREDENTIAL_LIFE
        {
            return Ok(kept.credential);
        }
        let credential = match &self.credentials {
            Credentials::DockerConfig(path) => self.in_config(path, name).await?,
            Credentials::Helper(helper) => ask_helper(helper, server_url(self.host.as_str())).await?,
            Credentials::Anonymous | Credentials::Static { .. } => None,
        };
        let credential = credential.map(Arc::new);
        self.kept.insert(key.to_owned(), Kept { credential: credential.clone(), since: Instant::now() });
        Ok(credential)
    }

    /// The registry refused it: reads it again at the next request, unless it is that young that this just happened.
    pub(super) fn refused(&self, name: &RepositoryName) {
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
            Found::AskHelper { helper, server } => ask_helper(&helper, &server).await,
        }
    }
}

/// The keys under which a repository's credentials may stand, the longest path first.
fn candidates(host: &Host, endpoint: &str, name: &RepositoryName) -> Vec<String> {
    let mut hosts = vec![host.as_str().to_owned()];
    if endpoint != host.as_str() && !(host.as_str() == "docker.io" && is_docker_hub(endpoint)) {
        hosts.push(endpoint.to_owned());
    }
    let mut path = Some(name.as_str());
    let mut keys = Vec::new();
    while let Some(prefix) = path {
        keys.extend(hosts.iter().map(|host| format!("{host}/{prefix}")));
        path = prefix.rsplit_once('/').map(|(parent, _)| parent);
    }
    keys.extend(hosts);
    keys
}

/// A key as `docker login` or `podman login` wrote it, in the form of [`candidates`].
fn normalised(key: &str) -> String {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let bare = bare.trim_end_matches('/');
    let bare = bare.strip_suffix("/v1").or_else(|| bare.strip_suffix("/v2")).unwrap_or(bare);
    match bare.split_once('/') {
        Some((host, path)) if is_docker_hub(host) => format!("docker.io/{path}"),
        None if is_docker_hub(bare) => "docker.io".to_owned(),
        _ => bare.to_owned(),
    }
}

fn is_docker_hub(host: &str) -> bool {
    matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io")
}

/// The name under which helpers keep a registry.
fn server_url(host: &str) -> &str {
    if host == "docker.io" { "https://index.docker.io/v1/" } else { host }
}

/// The parts of docker's `config.json` (or podman's `auth.json`) that matter; all others are passed over.
struct DockerConfig {
    auths: Map<String, Value>,
    helpers: Map<String, Value>,
    store: Option<String>,
}

enum Found {
    Nothing,
    Credential(Credential),
    Malformed,
    AskHelper { helper: String, server: String },
}

impl DockerConfig {
    async fn read(path: PathBuf) -> Result<Self, CredentialError> {
        let unreadable = |error: std::io::Error| CredentialError::Unreadable(error.kind());
        let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
        let mut bytes = Vec::new();
        file.take(CONFIG_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).await.map_err(unreadable)?;
        if u64::try_from(bytes.len()).map_or(true, |length| length > CONFIG_FILE_BYTES_MAX) {
            return Err(CredentialError::Malformed);
        }
        Self::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> Result<Self, CredentialError> {
        let Ok(Value::Object(mut document)) = json::parse(bytes) else { return Err(CredentialError::Malformed) };
        let mut object = |key: &str| match document.remove(key) {
            None | Some(Value::Null) => Ok(Map::new()),
            Some(Value::Object(object)) => Ok(object),
            Some(_) => Err(CredentialError::Malformed),
        };
        let (auths, helpers) = (object("auths")?, object("credHelpers")?);
        let store = document.get("credsStore").and_then(Value::as_str).filter(|store| !store.is_empty());
        Ok(Self { auths, helpers, store: store.map(str::to_owned) })
    }

    /// The entry for the first candidate that has one; a helper of its own goes before what stands in the file. With a
    /// store and no entry, the store is asked for the registry.
    fn find(&self, candidates: &[String]) -> Found {
        for candidate in candidates {
            let of = |map: &Map<String, Value>| {
                map.iter()
                    .find(|(key, _)| normalised(key) == *candidate)
                    .map(|(key, value)| (key.clone(), value.clone()))
            };
            if let Some((server, helper)) = of(&self.helpers) {
                let helper = helper.as_str().map(str::to_owned);
                return helper.map_or(Found::Malformed, |helper| Found::AskHelper { helper, server });
            }
            if let Some((server, entry)) = of(&self.auths) {
                match (entry_credential(&entry), &self.store) {
                    (Ok(Some(credential)), _) => return Found::Credential(credential),
                    (Ok(None), Some(store)) => return Found::AskHelper { helper: store.clone(), server },
                    (Ok(None), None) => {}
                    (Err(()), _) => return Found::Malformed,
                }
            }
        }
        let registry = candidates.iter().find(|candidate| !candidate.contains('/'));
        match (&self.store, registry) {
            (Some(store), Some(host)) => {
                Found::AskHelper { helper: store.clone(), server: server_url(host).to_owned() }
            }
            _ => Found::Nothing,
        }
    }
}

/// The credential of one entry of `auths`; `Ok(None)`: an empty entry, which says that a store has it.
fn entry_credential(entry: &Value) -> Result<Option<Credential>, ()> {
    let field = |key: &str| entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(token) = field("identitytoken") {
        return Ok(Some(Credential::IdentityToken(Secret::new(token.to_owned()))));
    }
    if let Some(auth) = field("auth") {
        let text = String::from_utf8(STANDARD.decode(auth).map_err(|_| ())?).map_err(|_| ())?;
        let (username, password) = text.split_once(':').ok_or(())?;
        return Ok(Some(Credential::password(username.to_owned(), password.trim_end_matches('\0').to_owned())));
    }
    let both = field("username").zip(field("password"));
    Ok(both.map(|(username, password)| Credential::password(username.to_owned(), password.to_owned())))
}

/// Asks `docker-credential-<name> get`; `Ok(None)`: it has nothing for that server.
async fn ask_helper(name: &str, server: &str) -> Result<Option<Credential>, CredentialError> {
    check_helper_name(name)?;
    let mut command = Command::new(format!("docker-credential-{name}"));
    command.arg("get");
    converse(command, server).await
}

/// Tells a helper the server's name and reads its answer.
///
/// The process ends with the future: when the time has passed, or when nobody waits any more.
async fn converse(mut command: Command, server: &str) -> Result<Option<Credential>, CredentialError> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| CredentialError::HelperMissing(error.kind()))?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(CredentialError::HelperFailed);
    };
    let conversation = async {
        // A helper may answer without reading; what counts is its answer.
        let written = stdin.write_all(server.as_bytes()).await;
        drop(stdin);
        let mut answer = Vec::new();
        let read = stdout.take(CREDENTIAL_BYTES_MAX + 1).read_to_end(&mut answer).await;
        let status = child.wait().await;
        (written, read, status, answer)
    };
    let (_, read, status, answer) =
        tokio::time::timeout(CREDENTIAL_HELPER, conversation).await.map_err(|_| CredentialError::HelperTimeout)?;
    let (Ok(length), Ok(status)) = (read, status) else { return Err(CredentialError::HelperFailed) };
    if u64::try_from(length).map_or(true, |length| length > CREDENTIAL_BYTES_MAX) {
        return Err(CredentialError::HelperFailed);
    }
    helper_answer(status.success(), &answer)
}

/// Reads the answer of a helper (docker-credential-helpers, "get").
fn helper_answer(success: bool, answer: &[u8]) -> Result<Option<Credential>, CredentialError> {
    if !success {
        let text = String::from_utf8_lossy(answer);
        let nothing = text.contains("credentials not found in native keychain");
        return if nothing { Ok(None) } else { Err(CredentialError::HelperFailed) };
    }
    let document = json::parse(answer).map_err(|_| CredentialError::HelperFailed)?;
    let field = |key: &str| document.get(key).and_then(Value::as_str).map(str::to_owned);
    let (Some(username), Some(secret)) = (field("Username"), field("Secret")) else {
        return Err(CredentialError::HelperFailed);
    };
    Ok(Some(match username.as_str() {
        "<token>" => Credential::IdentityToken(Secret::new(secret)),
        _ => Credential::password(username, secret),
    }))
}

/// A helper's name becomes part of a program's name, never of a path.
fn check_helper_name(name: &str) -> Result<(), CredentialError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !name.is_empty() && name.bytes().all(plain) { Ok(()) } else { Err(CredentialError::Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(config: &str, host: &str, endpoint: &str, name: &str) -> Found {
        let config = DockerConfig::parse(config.as_bytes()).unwrap();
        config.find(&candidates(&host.parse().unwrap(), endpoint, &name.parse().unwrap()))
    }

    fn user(config: &str, host: &str, name: &str) -> Option<String> {
        let Found::Credential(Credential::Password { username, .. }) = found(config, host, host, name) else {
            return None;
        };
        Some(username)
    }

    fn auth(user: &str) -> String {
        STANDARD.encode(format!("{user}:pa:ss"))
    }

    #[test]
    fn the_longest_path_decides() {
        let config = format!(
            r#"{{"auths":{{"quay.io":{{"auth":"{}"}},"quay.io/team":{{"auth":"{}"}},"quay.io/team/app":{{"auth":"{}"}}}}}}"#,
            auth("host"),
            auth("team"),
            auth("app"),
        );
        for (name, expected) in [("team/app", "app"), ("team/app/sub", "app"), ("team/other", "team"), ("x", "host")] {
            assert_eq!(user(&config, "quay.io", name).as_deref(), Some(expected), "{name}");
        }
        assert_eq!(user(&config, "ghcr.io", "team/app"), None);
        assert_eq!(user(&config, "quay.io", "teamx/app").as_deref(), Some("host"));
    }

    #[test]
    fn docker_hub_is_found_under_all_its_names() {
        for key in ["https://index.docker.io/v1/", "docker.io", "index.docker.io", "https://registry-1.docker.io"] {
            let config = format!(r#"{{"auths":{{"{key}":{{"auth":"{}"}}}}}}"#, auth("hub"));
            assert_eq!(user(&config, "docker.io", "library/alpine").as_deref(), Some("hub"), "{key}");
            assert_eq!(user(&config, "evil.example", "library/alpine"), None, "{key}");
        }
        let by_endpoint = format!(r#"{{"auths":{{"127.0.0.1:5000":{{"auth":"{}"}}}}}}"#, auth("e"));
        assert!(matches!(found(&by_endpoint, "registry.example", "127.0.0.1:5000", "a"), Found::Credential(_)));
    }

    #[test]
    fn helpers_go_before_entries_and_the_store_comes_last() {
        let config = format!(
            r#"{{"auths":{{"a.example":{{"auth":"{0}"}},"b.example":{{}}}},"credHelpers":{{"a.example":"ecr-login"}},"credsStore":"pass"}}"#,
            auth("x"),
        );
        let helper = |host: &str| {
            let Found::AskHelper { helper, server } = found(&config, host, host, "x/y") else { panic!("{host}") };
            (helper, server)
        };
        assert_eq!(helper("a.example"), ("ecr-login".to_owned(), "a.example".to_owned()));
        assert_eq!(helper("b.example"), ("pass".to_owned(), "b.example".to_owned()));
        assert_eq!(helper("c.example"), ("pass".to_owned(), "c.example".to_owned()));
        assert_eq!(helper("docker.io"), ("pass".to_owned(), "https://index.docker.io/v1/".to_owned()));
    }

    #[test]
    fn entries_hold_passwords_with_colons_and_identity_tokens() {
        let entry = |text: &str| entry_credential(&serde_json::from_str(text).unwrap());
        let expected = Credential::password("u".to_owned(), "pa:ss".to_owned());
        assert_eq!(entry(&format!(r#"{{"auth":"{}"}}"#, auth("u"))), Ok(Some(expected.clone())));
        assert_eq!(entry(r#"{"username":"u","password":"pa:ss"}"#), Ok(Some(expected)));
        let token = Credential::IdentityToken(Secret::new("t".to_owned()));
        assert_eq!(entry(&format!(r#"{{"auth":"{}","identitytoken":"t"}}"#, auth("u"))), Ok(Some(token)));
        assert_eq!(entry("{}"), Ok(None));
        assert_eq!(entry(r#"{"auth":"!"}"#), Err(()));
    }

    #[test]
    fn a_helper_has_an_answer_nothing_or_fails() {
        let answer = br#"{"ServerURL":"a","Username":"u","Secret":"s"}"#;
        assert_eq!(helper_answer(true, answer), Ok(Some(Credential::password("u".to_owned(), "s".to_owned()))));
        let token = br#"{"Username":"<token>","Secret":"s"}"#;
        assert_eq!(helper_answer(true, token), Ok(Some(Credential::IdentityToken(Secret::new("s".to_owned())))));
        assert_eq!(helper_answer(false, b"credentials not found in native keychain\n"), Ok(None));
        assert_eq!(helper_answer(false, b"locked"), Err(CredentialError::HelperFailed));
        assert_eq!(helper_answer(true, b"{}"), Err(CredentialError::HelperFailed));
    }

    #[tokio::test]
    async fn a_helper_that_is_not_there_is_an_error_and_no_path() {
        assert!(matches!(ask_helper("sealgate-none", "a").await, Err(CredentialError::HelperMissing(_))));
        for name in ["", "../x", "a/b", "a b"] {
            assert_eq!(ask_helper(name, "a").await, Err(CredentialError::Malformed), "{name}");
        }
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn a_helper_is_told_the_server_and_heard() {
        let script = r#"read server; printf '{"Username":"u","Secret":"%s"}' "$server""#;
        let expected = Credential::password("u".to_owned(), "https://index.docker.io/v1/".to_owned());
        assert_eq!(converse(shell(script), server_url("docker.io")).await, Ok(Some(expected)));
        let deaf = r#"printf '{"Username":"u","Secret":"s"}'"#;
        assert!(converse(shell(deaf), "a").await.unwrap().is_some(), "it need not read to answer");
        assert_eq!(converse(shell("exit 1"), "a").await, Err(CredentialError::HelperFailed));
        let nothing = "echo credentials not found in native keychain; exit 1";
        assert_eq!(converse(shell(nothing), "a").await, Ok(None));
    }

    #[tokio::test]
    async fn a_helper_that_says_too_much_is_stopped() {
        assert_eq!(
            converse(shell("while :; do echo aaaaaaaaaaaaaaaa; done"), "a").await,
            Err(CredentialError::HelperFailed)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_helper_that_says_nothing_is_stopped() {
        assert_eq!(converse(shell("exec sleep 1000"), "a").await, Err(CredentialError::HelperTimeout));
    }

    #[test]
    fn secrets_are_never_printed() {
        let credential = Credential::password("u".to_owned(), "hunter2".to_owned());
        assert!(!format!("{credential:?}").contains("hunter2"));
        assert!(!format!("{:?}", credential.basic().unwrap()).contains("aHVud"));
        let settings = Credentials::Static { username: "u".to_owned(), password: "hunter2".to_owned() };
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}
