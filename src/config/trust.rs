//! The trust root that the configuration names.

use super::document::Document;
use super::error::{ConfigError, Source};
use super::files::{Files, Secrecy};
use super::{Origin, read_source};
use crate::trust::{TrustRoot, TrustSource};

/// What the configuration says about trust, and nothing else: it can be looked at while the policy cannot be loaded.
#[derive(Debug)]
pub struct TrustConfig {
    /// The root that `sealgate serve` would use.
    pub root: TrustRoot,
}

impl TrustConfig {
    /// Reads the configuration and the trust root that it names, and no other file.
    ///
    /// # Errors
    /// [`ConfigError`] when either cannot be used.
    pub fn load(origin: &Origin) -> Result<Self, ConfigError> {
        let (source, base, _) = read_source(origin, &mut Vec::new())?;
        let document: Document = toml::from_str(source.text()).map_err(|error| source.syntax(&error))?;
        let mut files = Files::relative_to(base);
        Ok(Self { root: root(&source, &mut files, &document)? })
    }
}

/// The root in force.
pub(super) fn root(source: &Source, files: &mut Files, document: &Document) -> Result<TrustRoot, ConfigError> {
    let key = "policy.trusted_root";
    let from = match document.policy.trusted_root.as_path() {
        path if path.as_os_str().is_empty() => TrustSource::BuiltIn,
        path => {
            files.read(key, path, Secrecy::Public).map_err(|error| source.at(key, error, ""))?;
            TrustSource::File(files.path(path))
        }
    };
    TrustRoot::load(&from)
        .map_err(|error| source.at(key, error, "name a sigstore trusted_root.json, or remove the key"))
}
