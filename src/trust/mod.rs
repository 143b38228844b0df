//! The trust root: certificate authorities and logs of a Sigstore, from its `trusted_root.json`.
//!
//! [`TrustRoot`] is one that was loaded and checked, with whom it trusts and how old it is; what verification needs of it is
//! [`TrustRoot::sigstore_root`]. A policy.json names its own authorities and logs, so nothing there is verified against this
//! root. Its fingerprint is part of each verdict's key. May import: `net`, `verify`, `oci`, `limits`, `clock`.

mod age;
mod error;
mod trusted;
pub mod tuf;

pub use error::TrustError;
pub use trusted::{Role, Trusted, Window};

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sigstore_verify::trust_root::{SigstoreInstance, TrustedRoot};

use crate::clock::Timestamp;
use crate::limits::CONFIG_FILE_BYTES_MAX;
use crate::oci::{Digest, json};
use crate::verify::SigstoreRoot;

/// Where a trust root comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustSource {
    /// The public-good instance, as it was when `sigstore-verify` was released.
    BuiltIn,
    /// An operator's file.
    File(PathBuf),
    /// Fetched by TUF, with [`tuf::update`]; [`tuf::stored`] loads it.
    Tuf {
        /// The repository.
        url: String,
        /// The file that keeps it.
        path: PathBuf,
    },
}

impl TrustSource {
    /// The word for its kind, in output for programs and as a label.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::BuiltIn => "built_in",
            Self::File(_) => "file",
            Self::Tuf { .. } => "tuf",
        }
    }
}

impl fmt::Display for TrustSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => formatter.write_str("built-in (Sigstore public good, as of sigstore-verify 0.15.1)"),
            Self::File(path) => path.display().fmt(formatter),
            Self::Tuf { url, path } => write!(formatter, "TUF repository {url} (kept in {})", path.display()),
        }
    }
}

/// A trust root that was loaded and checked.
#[derive(Debug, Clone)]
pub struct TrustRoot {
    /// Where it came from.
    pub source: TrustSource,
    /// SHA-256 of its bytes: any change is another root.
    pub fingerprint: Digest,
    /// When it was last known to be current: when the file was written, when the built-in root was taken over.
    pub as_of: Option<Timestamp>,
    /// Until when what vouches for it is fresh; `None`: nothing says so.
    pub expires: Option<Timestamp>,
    /// Everybody it trusts, in the order of the document.
    pub trusted: Vec<Trusted>,
    document: Arc<[u8]>,
    sigstore_root: SigstoreRoot,
}

impl TrustRoot {
    /// The root that is compiled in.
    ///
    /// # Errors
    /// None with the document that is compiled in; a test loads it.
    pub fn built_in() -> Result<Self, TrustError> {
        let document = SigstoreInstance::PublicGood.embedded_trusted_root_json();
        Self::parse(&TrustSource::BuiltIn, document.as_bytes(), Some(BUILT_IN_AS_OF))
    }

    /// Loads an operator's file and checks that every key and certificate in it can be used; blocking.
    ///
    /// # Errors
    /// [`TrustError`]; a root that is in use stays in use then.
    pub fn from_file(path: &Path) -> Result<Self, TrustError> {
        let (document, modified) = read(path)?;
        Self::parse(&TrustSource::File(path.to_owned()), &document, modified)
    }

    fn parse(source: &TrustSource, document: &[u8], as_of: Option<Timestamp>) -> Result<Self, TrustError> {
        let malformed = |why: String| TrustError::Malformed { from: source.clone(), why };
        // Strictly first: two readers must not see two roots in the same bytes.
        json::parse(document).map_err(|error| malformed(error.to_string()))?;
        let text = std::str::from_utf8(document).map_err(|error| malformed(error.to_string()))?;
        let root = TrustedRoot::from_json(text).map_err(|error| malformed(error.to_string()))?;
        if root.media_type != MEDIA_TYPE {
            return Err(malformed(format!("its mediaType is {:?}, not {MEDIA_TYPE:?}", root.media_type)));
        }
        // Whatever verification cannot use is found now, not at the first pull.
        let sigstore_root = SigstoreRoot::from_json(document).map_err(|error| malformed(error.to_string()))?;
        if root.certificate_authorities.is_empty() && root.tlogs.is_empty() {
            return Err(TrustError::Empty { from: source.clone() });
        }
        Ok(Self {
            source: source.clone(),
            fingerprint: Digest::sha256(document),
            as_of,
            expires: None,
            trusted: trusted::of(&root),
            document: document.into(),
            sigstore_root,
        })
    }

    /// It as verification wants it.
    pub fn sigstore_root(&self) -> &SigstoreRoot {
        &self.sigstore_root
    }

    /// The document, as it was read.
    pub fn document(&self) -> &[u8] {
        &self.document
    }

    /// Those of that role that are trusted for what happens at that time.
    pub fn current(&self, role: Role, at: Timestamp) -> impl Iterator<Item = &Trusted> {
        self.trusted.iter().filter(move |trusted| trusted.role == role && trusted.is_current(at))
    }
}

fn read(path: &Path) -> Result<(Vec<u8>, Option<Timestamp>), TrustError> {
    let failed = |source| TrustError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let modified = file.metadata().and_then(|metadata| metadata.modified()).ok();
    let modified = modified.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    let mut document = Vec::new();
    file.take(CONFIG_FILE_BYTES_MAX.saturating_add(1)).read_to_end(&mut document).map_err(failed)?;
    if u64::try_from(document.len()).unwrap_or(u64::MAX) > CONFIG_FILE_BYTES_MAX {
        return Err(TrustError::TooLarge { path: path.to_owned(), max: CONFIG_FILE_BYTES_MAX });
    }
    Ok((document, modified.map(|since| Timestamp::from_unix_millis(0).plus(since))))
}

/// protobuf-specs, `sigstore_trustroot.proto`.
const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.trustedroot+json;version=0.1";

/// The release of `sigstore-trust-root` 0.15.1, which refreshed what is embedded: 2026-10-23.
const BUILT_IN_AS_OF: Timestamp = Timestamp::from_unix_seconds(1_792_713_600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::testing::sigstore::FakeSigstore;

    fn load(document: &[u8]) -> Result<TrustRoot, TrustError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trusted_root.json");
        std::fs::write(&path, document).unwrap();
        TrustRoot::from_file(&path)
    }

    #[test]
    fn the_built_in_root_trusts_the_public_good_instance() {
        let root = TrustRoot::built_in().unwrap();
        let now = "2026-11-20T00:00:00Z".parse().unwrap();
        for role in [Role::CertificateAuthority, Role::TransparencyLog, Role::CertificateLog] {
            assert!(root.current(role, now).next().is_some(), "{}", role.as_label());
        }
        assert!(root.trusted.iter().any(|trusted| trusted.name == "https://rekor.sigstore.dev"));
        assert!(!root.trusted[0].is_current(Timestamp::from_unix_seconds(0)), "Fulcio is younger than that");
        assert_eq!(root.as_of, Some("2026-10-23T00:00:00Z".parse().unwrap()));
        assert_eq!(root.fingerprint, TrustRoot::built_in().unwrap().fingerprint);
    }

    #[test]
    fn a_file_is_loaded_and_any_change_is_another_root() {
        let document = FakeSigstore::from_seed(1, Clock::System.now()).trusted_root_json();
        let root = load(document.as_bytes()).unwrap();
        assert!(root.trusted.len() >= 3, "authority, transparency log, certificate log");
        assert!(root.as_of.is_some());
        assert_eq!(root.fingerprint, Digest::sha256(document.as_bytes()));
        assert_ne!(load(format!("{document} ").as_bytes()).unwrap().fingerprint, root.fingerprint);
    }

    #[test]
    fn what_is_no_usable_root_is_refused() {
        let good = FakeSigstore::from_seed(1, Clock::System.now()).trusted_root_json();
        let bad = [
            String::new(),
            "{}".to_owned(),
            good.replacen('{', "{\"tlogs\":[],", 1),
            good.replace("version=0.1", "version=9.9"),
            good.replace("2020-01-01T00:00:00Z", "yesterday"),
            good.replace("\"rawBytes\":\"MFkw", "\"rawBytes\":\"AAAA"),
        ];
        for document in bad {
            assert!(matches!(load(document.as_bytes()), Err(TrustError::Malformed { .. })), "{document}");
        }
        let empty = format!("{{\"mediaType\":\"{MEDIA_TYPE}\"}}");
        assert!(matches!(load(empty.as_bytes()), Err(TrustError::Empty { .. })));
        let missing = TrustRoot::from_file(Path::new("no/such/file"));
        assert!(matches!(missing, Err(TrustError::Read { .. })));
    }

    #[test]
    fn a_file_is_bounded_on_both_sides() {
        let good = FakeSigstore::from_seed(1, Clock::System.now()).trusted_root_json();
        let padding = " ".repeat(usize::try_from(CONFIG_FILE_BYTES_MAX).unwrap() - good.len());
        assert!(load(format!("{good}{padding}").as_bytes()).is_ok());
        assert!(matches!(load(format!("{good}{padding} ").as_bytes()), Err(TrustError::TooLarge { .. })));
    }
}
