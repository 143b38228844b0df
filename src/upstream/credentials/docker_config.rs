//! Docker's `config.json` and podman's `auth.json`: which entry is for which repository.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use tokio::io::AsyncReadExt as _;

use super::{Credential, CredentialError, Secret};
use crate::limits::CONFIG_FILE_BYTES_MAX;
use crate::oci::{Host, RepositoryName, json};

/// The parts of docker's `config.json` (or podman's `auth.json`) that matter; all others are passed over.
pub(super) struct DockerConfig {
    auths: Map<String, Value>,
    helpers: Map<String, Value>,
    store: Option<String>,
}

pub(super) enum Found {
    Nothing,
    Credential(Credential),
    Malformed,
    AskHelper { helper: String, server: String },
}

impl DockerConfig {
    pub(super) async fn read(path: PathBuf) -> Result<Self, CredentialError> {
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
    pub(super) fn find(&self, candidates: &[String]) -> Found {
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

/// The keys under which a repository's credentials may stand, the longest path first.
pub(super) fn candidates(host: &Host, endpoint: &str, name: &RepositoryName) -> Vec<String> {
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
pub(super) fn server_url(host: &str) -> &str {
    if host == "docker.io" { "https://index.docker.io/v1/" } else { host }
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
}
