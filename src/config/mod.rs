//! Text → checked settings: which file, what it says, what is wrong with it, and what changed in it.
//!
//! [`Document`] is exactly what the file says; [`Config`] holds the modules' settings after every cross-check. Modules
//! never read `Config`. May import everything below it: `admin`, `http`, `pull`, `upstream`, `store`, `policy`, …

mod checked;
pub mod document;
mod endpoints;
mod error;
mod files;
mod patterns;
mod policy;
mod reload;
mod secret;
mod trust;
mod upstreams;
mod values;
mod watch;

pub use checked::{Clients, Config, Loaded, ServerConfig};
pub use document::Document;
pub use error::{ConfigError, Place};
pub use files::ReadFile;
pub(crate) use reload::short;
pub use reload::{Changes, Reloader};
pub use secret::{HIDDEN, Secret};
pub use trust::TrustConfig;
pub use upstreams::UpstreamConfig;
pub use values::{Size, Span, ValueError};
pub use watch::Seen;

use std::path::{Path, PathBuf};

use self::checked::BuiltIn;
use self::error::Source;
use self::files::{Files, read_bounded};

/// Where the configuration is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// The copies that are compiled in; their paths are relative to the working directory.
    BuiltIn,
}

impl Origin {
    /// The file that was named; else `./config/sealgate.toml`, else `/etc/sealgate/sealgate.toml`, else what is built in.
    pub fn find(named: Option<&Path>) -> Self {
        match named {
            Some(path) => Self::File(path.to_owned()),
            None => DEFAULT_FILES
                .iter()
                .map(Path::new)
                .find(|path| is_there(path))
                .map_or(Self::BuiltIn, |path| Self::File(path.to_owned())),
        }
    }
}

/// Whether something is at that path. A file that may not be looked at, or a link that leads nowhere, is there: it must be
/// an error, not a reason to run on another configuration.
fn is_there(path: &Path) -> bool {
    match std::fs::symlink_metadata(path) {
        Ok(_) => true,
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

/// What stands in for a part of the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replacement {
    /// Another policy.json.
    ContainersPolicy(PathBuf),
    /// Other ClusterImagePolicies.
    ClusterImagePolicies(PathBuf),
    /// Another configuration with everything in it.
    Configuration(PathBuf),
}

impl Replacement {
    /// By the file's ending: `.toml`, `.yaml` or `.yml`; everything else is a policy.json.
    pub fn by_name(path: &Path) -> Self {
        match path.extension().and_then(std::ffi::OsStr::to_str) {
            Some("toml") => Self::Configuration(path.to_owned()),
            Some("yaml" | "yml") => Self::ClusterImagePolicies(path.to_owned()),
            _ => Self::ContainersPolicy(path.to_owned()),
        }
    }
}

impl Config {
    /// Reads and checks the configuration, its policy and every file that both name.
    ///
    /// # Errors
    /// [`ConfigError`] for the first thing that is wrong.
    pub fn load(origin: &Origin) -> Result<Loaded, ConfigError> {
        Self::load_noting(origin, &mut Vec::new())
    }

    /// As [`Self::load`], under another policy.
    ///
    /// # Errors
    /// [`ConfigError`] for the first thing that is wrong.
    pub fn load_replacing(origin: &Origin, replacement: &Replacement) -> Result<Loaded, ConfigError> {
        let (source, base, built_in) = read_source(origin, &mut Vec::new())?;
        let mut document: Document = toml::from_str(source.text()).map_err(|error| source.syntax(&error))?;
        let mut files = Files::relative_to(base);
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let built_in = match replacement {
            Replacement::Configuration(path) => return Self::load(&Origin::File(path.clone())),
            Replacement::ContainersPolicy(path) => {
                document.policy.containers_policy = absolute(path);
                BuiltIn::No
            }
            Replacement::ClusterImagePolicies(path) => {
                document.policy.cluster_image_policies = vec![absolute(path).display().to_string()];
                built_in
            }
        };
        checked::check_document(&source, &mut files, document, built_in)
    }

    /// As [`Self::load`]; `seen` gets each file that was looked at, also when loading fails.
    fn load_noting(origin: &Origin, seen: &mut Vec<Seen>) -> Result<Loaded, ConfigError> {
        let (source, base, built_in) = read_source(origin, seen)?;
        let mut files = Files::relative_to(base);
        let checked = checked::check(&source, &mut files, built_in);
        seen.extend(files.seen().iter().cloned());
        let mut loaded = checked?;
        let (read, warnings) = files.into_parts();
        loaded.config.read = read;
        loaded.config.seen.clone_from(seen);
        loaded.config.warnings.splice(0..0, warnings);
        Ok(loaded)
    }
}

impl Document {
    /// Reads the configuration alone, without the policy or any other file that it names.
    ///
    /// # Errors
    /// [`ConfigError`] when it cannot be read or has unknown keys or wrong values.
    pub fn load(origin: &Origin) -> Result<Self, ConfigError> {
        let (source, ..) = read_source(origin, &mut Vec::new())?;
        toml::from_str(source.text()).map_err(|error| source.syntax(&error))
    }
}

fn read_source(origin: &Origin, seen: &mut Vec<Seen>) -> Result<(Source, PathBuf, BuiltIn), ConfigError> {
    let Origin::File(path) = origin else {
        let source = Source::new(BUILT_IN_CONFIG_NAME, BUILT_IN_CONFIG.to_owned());
        return Ok((source, PathBuf::new(), BuiltIn::Yes));
    };
    seen.push(Seen::now(path));
    let error = |problem: String, hint: &str| Source::new(path, String::new()).at("", problem, hint);
    let bytes = read_bounded(path).map_err(|read| error(read.why, "name another file with --config"))?;
    let text = String::from_utf8(bytes).map_err(|_| error("it is not UTF-8".to_owned(), ""))?;
    let base = path.parent().map(Path::to_owned).unwrap_or_default();
    Ok((Source::new(path, text), base, BuiltIn::No))
}

/// `config/sealgate.toml` as it was at build time.
pub const BUILT_IN_CONFIG: &str = include_str!("../../config/sealgate.toml");
/// What stands for the name of the compiled-in configuration.
pub const BUILT_IN_CONFIG_NAME: &str = "(built-in)";
/// `config/policy.json` as it was at build time.
pub const BUILT_IN_POLICY: &str = include_str!("../../config/policy.json");

const DEFAULT_FILES: [&str; 2] = ["config/sealgate.toml", "/etc/sealgate/sealgate.toml"];
