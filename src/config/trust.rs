//! `policy.trusted_root` and `[trust]`: which trust root is in force.

use url::Url;

use super::document::{self, Document};
use super::endpoints::is_loopback;
use super::error::{ConfigError, Source};
use super::files::{Files, Secrecy};
use super::{Origin, Secret, Span, read_source};
use crate::limits::TUF_INTERVAL;
use crate::net::{HttpClient, HttpSettings};
use crate::trust::tuf::{self, Addresses, PUBLIC_GOOD_ROOT, StateError};
use crate::trust::{TrustError, TrustRoot};

/// What the configuration says about trust, and nothing else: it can be looked at while the policy cannot be loaded.
#[derive(Debug)]
pub struct TrustConfig {
    /// Where a newer root is fetched from, whether or not it is used.
    pub tuf: tuf::Settings,
    /// Whether what is fetched is used.
    pub tuf_enabled: bool,
    files: Files,
    source: Source,
    document: Document,
}

impl TrustConfig {
    /// Reads the configuration and the files that `[trust]` names, and no other.
    ///
    /// # Errors
    /// [`ConfigError`] when they cannot be used.
    pub fn load(origin: &Origin) -> Result<Self, ConfigError> {
        let (source, base, _) = read_source(origin, &mut Vec::new())?;
        let document: Document = toml::from_str(source.text()).map_err(|error| source.syntax(&error))?;
        let mut files = Files::relative_to(base);
        let tuf = tuf(&source, &mut files, &document)?;
        Ok(Self { tuf, tuf_enabled: document.trust.tuf.enabled, files, source, document })
    }

    /// The trust root that `sealgate serve` would use, and what is strange about that.
    ///
    /// # Errors
    /// [`ConfigError`] when it cannot be used, or was never fetched.
    pub fn root(mut self) -> Result<(TrustRoot, Vec<String>), ConfigError> {
        let mut warnings = Vec::new();
        let root = choose(&self.source, &mut self.files, &self.document, &self.tuf, &mut warnings)?;
        Ok((root, warnings))
    }
}

/// What a running mirror needs: the root in force, and how to refresh it.
#[derive(Debug, Clone)]
pub(super) struct Trust {
    pub(super) root: TrustRoot,
    /// `None`: TUF is off.
    pub(super) tuf: Option<tuf::Settings>,
}

/// The root in force. What its user should worry about goes to `warnings`, but for what depends on the time.
pub(super) fn check(
    source: &Source,
    files: &mut Files,
    document: &Document,
    warnings: &mut Vec<String>,
) -> Result<Trust, ConfigError> {
    let tuf = tuf(source, files, document)?;
    let root = choose(source, files, document, &tuf, warnings)?;
    Ok(Trust { root, tuf: document.trust.tuf.enabled.then_some(tuf) })
}

fn choose(
    source: &Source,
    files: &mut Files,
    document: &Document,
    tuf: &tuf::Settings,
    warnings: &mut Vec<String>,
) -> Result<TrustRoot, ConfigError> {
    let key = "policy.trusted_root";
    let path = document.policy.trusted_root.as_path();
    if document.trust.tuf.enabled {
        if !path.as_os_str().is_empty() {
            let hint = "remove one of them: they name two trust roots";
            return Err(source.at(key, "trust.tuf.enabled is set, too", hint));
        }
        return fetched(source, files, tuf, warnings);
    }
    let root = if path.as_os_str().is_empty() {
        TrustRoot::built_in()
    } else {
        files.read(key, path, Secrecy::Public).map_err(|error| source.at(key, error, ""))?;
        TrustRoot::from_file(&files.path(path))
    };
    root.map_err(|error| source.at(key, error, "name a sigstore trusted_root.json, or remove the key"))
}

/// The root that was fetched last. The built-in one stands in for it when the same people vouch for both; anybody else's
/// would trust strangers.
fn fetched(
    source: &Source,
    files: &mut Files,
    tuf: &tuf::Settings,
    warnings: &mut Vec<String>,
) -> Result<TrustRoot, ConfigError> {
    let key = "trust.tuf.enabled";
    files.watch(&tuf.state_path());
    let (problem, next) = match tuf::stored(tuf) {
        Ok(root) => return Ok(root),
        Err(TrustError::Stored { source: stored }) => {
            if tuf.is_public_good() && matches!(*stored, StateError::Absent { .. }) {
                warnings.push(
                    "trust.tuf: no trust root was fetched yet, so the built-in one is used; run `sealgate trust update`"
                        .to_owned(),
                );
                return TrustRoot::built_in().map_err(|error| source.at(key, error, ""));
            }
            (with_cause(&*stored), stored.next())
        }
        Err(error) => (with_cause(&error), "run `sealgate trust update`"),
    };
    Err(source.at(key, problem, next))
}

fn with_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", with_cause(cause)),
        None => error.to_string(),
    }
}

/// `[trust.tuf]`, checked whether or not it is enabled: `sealgate trust update` uses it either way.
fn tuf(source: &Source, files: &mut Files, document: &Document) -> Result<tuf::Settings, ConfigError> {
    let tuf = &document.trust.tuf;
    let error =
        |key: &str, problem: &dyn std::fmt::Display, hint: &str| source.at(&format!("trust.tuf.{key}"), problem, hint);
    let url = url(source, &tuf.url)?;
    let mut optional = |key: &str, path: &std::path::Path| {
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        let read = files.read(&format!("trust.tuf.{key}"), path, Secrecy::Public);
        read.map(Some).map_err(|problem| error(key, &problem, ""))
    };
    let bootstrap = optional("root_file", &tuf.root_file)?;
    let ca_pem = optional("ca_file", &tuf.ca_file)?;
    let bootstrap = bootstrap.unwrap_or_else(|| PUBLIC_GOOD_ROOT.to_vec());
    tuf::check_bootstrap(&bootstrap)
        .map_err(|problem| error("root_file", &problem, "name the root.json of the TUF repository"))?;
    let addresses = match (is_loopback(&url), tuf.allow_private_addresses) {
        (true, _) => Addresses::Loopback,
        (false, true) => Addresses::Private,
        (false, false) => Addresses::Public,
    };
    let state_dir = if tuf.state_dir.as_os_str().is_empty() {
        files.path(&document.server.data_dir).join("trust")
    } else {
        files.path(&tuf.state_dir)
    };
    let settings = tuf::Settings {
        url,
        bootstrap: bootstrap.into(),
        state_dir,
        refresh: refresh(source, tuf)?,
        ca_pem,
        proxy: proxy(source, tuf.proxy.as_ref())?,
        addresses,
    };
    if settings.ca_pem.is_some() {
        // What is in the file is looked at here, so that it is `config check` that finds it, and not the first refresh.
        let ca_pem = settings.ca_pem.clone();
        HttpClient::new(HttpSettings { ca_pem, ..HttpSettings::default() })
            .map_err(|problem| error("ca_file", &problem, ""))?;
    }
    Ok(settings)
}

/// http or https, with a path that ends in a slash; nothing that could be mistaken for a part of a request.
fn url(source: &Source, text: &str) -> Result<Url, ConfigError> {
    let wrong = |problem: &str| source.at("trust.tuf.url", problem, "write for example \"https://tuf.example/\"");
    // The text may hold a password by mistake, so no message repeats it.
    let mut url: Url = text.parse().map_err(|error| wrong(&format!("no URL ({error})")))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(wrong("neither http nor https"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("more than scheme, host, port and path"));
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

fn refresh(source: &Source, tuf: &document::Tuf) -> Result<Option<std::time::Duration>, ConfigError> {
    let (min, max) = TUF_INTERVAL;
    match tuf.refresh.0 {
        std::time::Duration::ZERO => Ok(None),
        refresh if refresh < min || refresh > max => {
            let problem = format!("{} is not between {} and {}", Span(refresh), Span(min), Span(max));
            Err(source.at("trust.tuf.refresh", problem, "write \"0s\" for never"))
        }
        refresh => Ok(Some(refresh)),
    }
}

fn proxy(source: &Source, proxy: Option<&Secret>) -> Result<Option<Url>, ConfigError> {
    let Some(proxy) = proxy.filter(|proxy| !proxy.reveal().is_empty()) else { return Ok(None) };
    match proxy.reveal().parse::<Url>() {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(Some(url)),
        _ => {
            let hint = "write for example \"http://proxy.example:3128\"";
            Err(source.at("trust.tuf.proxy", "no http or https URL", hint))
        }
    }
}
