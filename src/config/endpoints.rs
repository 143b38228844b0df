//! One endpoint of an upstream: from the document to a client's settings.

use url::Url;

use super::document::Fallback;
use super::error::{ConfigError, Source};
use super::files::{Files, Secrecy};
use crate::net::{HttpClient, HttpSettings, HttpSettingsError};
use crate::oci::Host;
use crate::upstream::{Credentials, Settings};

/// An endpoint in its table.
pub(super) struct Place<'a> {
    pub(super) source: &'a Source,
    /// The full name of one of its keys.
    pub(super) key: &'a dyn Fn(&str) -> String,
    /// The upstream's canonical name.
    pub(super) host: &'a Host,
    pub(super) document: &'a Fallback,
}

/// Whether an endpoint is asked with credentials of ours.
pub(super) fn has_credentials(settings: &Settings) -> bool {
    !matches!(settings.credentials, Credentials::Anonymous) || settings.client_identity_pem.is_some()
}

impl Place<'_> {
    pub(super) fn check(&self, files: &mut Files, warnings: &mut Vec<String>) -> Result<Settings, ConfigError> {
        let document = self.document;
        let endpoint = self.endpoint()?;
        let settings = Settings {
            host: self.host.clone(),
            credentials: self.credentials(files)?,
            auth_hosts: self.hosts("auth_hosts", &document.auth_hosts)?,
            redirect_hosts: self.hosts("redirect_hosts", &document.redirect_hosts)?,
            ca_pem: self.optional_file(files, "ca_file", &document.ca_file)?,
            client_identity_pem: self.client_identity(files)?,
            proxy: self.proxy()?,
            allow_private_addresses: document.allow_private_addresses,
            ns: document.ns,
            endpoint,
        };
        self.certificates(&settings)?;
        if settings.endpoint.scheme() == "http" && has_credentials(&settings) && !is_loopback(&settings.endpoint) {
            warnings.push(format!(
                "{}: {} is plain http, so its credentials cross the network in the clear; use https",
                (self.key)("endpoint"),
                settings.endpoint
            ));
        }
        Ok(settings)
    }

    fn hosts(&self, key: &str, texts: &[String]) -> Result<Vec<String>, ConfigError> {
        let host = |text: &String| {
            let host: Host = text.parse().map_err(|error| self.error(key, format!("\"{text}\" is {error}"), ""))?;
            Ok(host.as_str().to_owned())
        };
        texts.iter().map(host).collect()
    }

    /// http or https, host and port; nothing that could be mistaken for a part of a request.
    fn endpoint(&self) -> Result<Url, ConfigError> {
        let text = match (self.document.endpoint.as_str(), self.host.as_str()) {
            ("", DOCKER_HUB) => "https://registry-1.docker.io".to_owned(),
            ("", host) => format!("https://{host}"),
            (endpoint, _) => endpoint.to_owned(),
        };
        let hint = "write for example \"https://quay.io\"";
        // The text may hold a password by mistake, so no message repeats it.
        let url: Url = text.parse().map_err(|error| self.error("endpoint", format!("no URL ({error})"), hint))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(self.error("endpoint", "neither http nor https", hint));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(self.error("endpoint", "a URL with a user in it", "use username and password_file"));
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(self.error("endpoint", "more than scheme, host and port", hint));
        }
        Ok(url)
    }

    fn credentials(&self, files: &mut Files) -> Result<Credentials, ConfigError> {
        let document = self.document;
        let named = !document.username.is_empty() || !document.password_file.as_os_str().is_empty();
        let docker = !document.docker_config.as_os_str().is_empty();
        let helper = !document.credential_helper.is_empty();
        match (named, docker, helper) {
            (false, false, false) => Ok(Credentials::Anonymous),
            (true, false, false) => self.named_credentials(files),
            (false, true, false) => files
                .check(&(self.key)("docker_config"), &document.docker_config, Secrecy::Credential)
                .map(Credentials::DockerConfig)
                .map_err(|error| self.error("docker_config", error, "")),
            (false, false, true) => self.helper().map(Credentials::Helper),
            _ => Err(self.error(
                "host",
                "has credentials from more than one source",
                "keep one of username with password_file, docker_config, credential_helper",
            )),
        }
    }

    fn named_credentials(&self, files: &mut Files) -> Result<Credentials, ConfigError> {
        let document = self.document;
        if document.username.is_empty() {
            return Err(self.error("password_file", "stands alone", "set username too"));
        }
        if document.password_file.as_os_str().is_empty() {
            return Err(self.error("username", "stands alone", "set password_file too"));
        }
        let bytes = files
            .read(&(self.key)("password_file"), &document.password_file, Secrecy::Credential)
            .map_err(|error| self.error("password_file", error, ""))?;
        let text = String::from_utf8(bytes).map_err(|_| self.error("password_file", "the file is not UTF-8", ""))?;
        // Editors end files with a newline that no password has.
        let password = text.trim_end_matches(['\r', '\n']);
        if password.is_empty() || password.contains(['\r', '\n', '\0']) {
            return Err(self.error("password_file", "the file must hold one line, the password", ""));
        }
        Ok(Credentials::Static { username: document.username.clone(), password: password.to_owned() })
    }

    /// The name becomes part of a program's name, so it is letters, digits and dashes only.
    fn helper(&self) -> Result<String, ConfigError> {
        let name = &self.document.credential_helper;
        if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            Ok(name.clone())
        } else {
            Err(self.error(
                "credential_helper",
                "letters, digits and dashes only",
                "write pass for docker-credential-pass",
            ))
        }
    }

    fn client_identity(&self, files: &mut Files) -> Result<Option<Vec<u8>>, ConfigError> {
        let document = self.document;
        match (document.client_cert.as_os_str().is_empty(), document.client_key.as_os_str().is_empty()) {
            (true, true) => Ok(None),
            (false, true) => Err(self.error("client_cert", "stands alone", "set client_key too")),
            (true, false) => Err(self.error("client_key", "stands alone", "set client_cert too")),
            (false, false) => {
                let mut pem = files
                    .read(&(self.key)("client_cert"), &document.client_cert, Secrecy::Public)
                    .map_err(|error| self.error("client_cert", error, ""))?;
                let key = files
                    .read(&(self.key)("client_key"), &document.client_key, Secrecy::Credential)
                    .map_err(|error| self.error("client_key", error, ""))?;
                pem.push(b'\n');
                pem.extend(key);
                Ok(Some(pem))
            }
        }
    }

    /// What is in the files is looked at here, so that it is `config check` that finds it, and not the next start.
    fn certificates(&self, settings: &Settings) -> Result<(), ConfigError> {
        let (ca_pem, client_identity_pem) = (settings.ca_pem.clone(), settings.client_identity_pem.clone());
        if ca_pem.is_none() && client_identity_pem.is_none() {
            return Ok(());
        }
        let key = if ca_pem.is_some() { "ca_file" } else { "client_cert" };
        HttpClient::new(HttpSettings { ca_pem, client_identity_pem, ..HttpSettings::default() }).map(drop).map_err(
            |error| match error {
                HttpSettingsError::Identity => self.error("client_cert", error, ""),
                HttpSettingsError::Ca | HttpSettingsError::Proxy | HttpSettingsError::Client => {
                    self.error(key, error, "")
                }
            },
        )
    }

    fn optional_file(
        &self,
        files: &mut Files,
        key: &str,
        path: &std::path::Path,
    ) -> Result<Option<Vec<u8>>, ConfigError> {
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        files.read(&(self.key)(key), path, Secrecy::Public).map(Some).map_err(|error| self.error(key, error, ""))
    }

    fn proxy(&self) -> Result<Option<Url>, ConfigError> {
        let Some(proxy) = self.document.proxy.as_ref().filter(|proxy| !proxy.reveal().is_empty()) else {
            return Ok(None);
        };
        // The text may hold a password, so no message repeats it either.
        match proxy.reveal().parse::<Url>() {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(Some(url)),
            _ => Err(self.error("proxy", "no http or https URL", "write for example \"http://proxy.example:3128\"")),
        }
    }

    pub(super) fn error(&self, key: &str, problem: impl std::fmt::Display, hint: &str) -> ConfigError {
        self.source.at(&(self.key)(key), problem, hint)
    }
}

/// Whether a URL leads to this very machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(domain)) => domain == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

pub(super) const DOCKER_HUB: &str = "docker.io";
