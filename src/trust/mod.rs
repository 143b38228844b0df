//! The trust root: certificate authorities and logs of a Sigstore, from its `trusted_root.json`.
//!
//! A policy.json names its own authorities and logs, so nothing there is verified against this root; it is loaded, checked,
//! shown, and part of each verdict's key. May import: `oci`, `limits`, `clock`.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use sigstore_verify::Verifier;
use sigstore_verify::trust_root::{SigstoreInstance, TrustedRoot};
use sigstore_verify::types::TimeRange;

use crate::clock::Timestamp;
use crate::limits::CONFIG_FILE_BYTES_MAX;
use crate::oci::{Digest, json};

/// Where a trust root comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustSource {
    /// The public-good instance, as it was when `sigstore-verify` was released.
    BuiltIn,
    /// An operator's file.
    File(PathBuf),
}

impl fmt::Display for TrustSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => formatter.write_str("built-in (Sigstore public good, as of sigstore-verify 0.15.1)"),
            Self::File(path) => path.display().fmt(formatter),
        }
    }
}

/// A trust root cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file cannot be read.
    #[error("trust root {}: cannot read the file", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is larger than trust roots are.
    #[error("trust root {}: more than {max} bytes", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        max: u64,
    },
    /// The content is no trust root, or one with keys or certificates that cannot be used.
    #[error("trust root {from}: {why}")]
    Malformed {
        /// Where it came from.
        from: TrustSource,
        /// What is wrong.
        why: String,
    },
    /// It trusts nobody.
    #[error("trust root {from}: it names no certificate authority and no transparency log")]
    Empty {
        /// Where it came from.
        from: TrustSource,
    },
}

/// A trust root that was loaded and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustRoot {
    /// Where it came from.
    pub source: TrustSource,
    /// SHA-256 of its bytes: any change is another root.
    pub fingerprint: Digest,
    /// When the file was last written; the built-in root has no such time.
    pub modified: Option<Timestamp>,
    /// Everybody it trusts, in the order of the document.
    pub trusted: Vec<Trusted>,
}

/// One authority or log that a trust root names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted {
    /// What it is trusted for.
    pub role: Role,
    /// Its address, for display; it is never contacted.
    pub name: String,
    /// From when it is trusted; `None`: always.
    pub from: Option<Timestamp>,
    /// Until when it is trusted; `None`: without end.
    pub until: Option<Timestamp>,
}

impl Trusted {
    /// Whether it is trusted for what happens at that time.
    pub fn is_current(&self, at: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= at) && self.until.is_none_or(|until| at <= until)
    }
}

/// What somebody is trusted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Issues signing certificates (Fulcio).
    CertificateAuthority,
    /// Logs signatures (Rekor).
    TransparencyLog,
    /// Logs certificates.
    CertificateLog,
    /// Signs timestamps (RFC 3161).
    TimestampAuthority,
}

impl Role {
    /// The word for it, in log lines and on the command line.
    pub const fn as_label(self) -> &'static str {
        match self {
            Self::CertificateAuthority => "certificate_authority",
            Self::TransparencyLog => "transparency_log",
            Self::CertificateLog => "certificate_log",
            Self::TimestampAuthority => "timestamp_authority",
        }
    }
}

impl TrustRoot {
    /// Loads a trust root and checks that every key and certificate in it can be used. Reads one file, blocking.
    ///
    /// # Errors
    /// [`TrustError`]; a root that is in use stays in use then.
    pub fn load(source: &TrustSource) -> Result<Self, TrustError> {
        match source {
            TrustSource::BuiltIn => {
                let document = SigstoreInstance::PublicGood.embedded_trusted_root_json();
                Self::parse(source, document.as_bytes(), None)
            }
            TrustSource::File(path) => {
                let (document, modified) = read(path)?;
                Self::parse(source, &document, modified)
            }
        }
    }

    fn parse(source: &TrustSource, document: &[u8], modified: Option<Timestamp>) -> Result<Self, TrustError> {
        let malformed = |why: String| TrustError::Malformed { from: source.clone(), why };
        // Strictly first: two readers must not see two roots in the same bytes.
        json::parse(document).map_err(|error| malformed(error.to_string()))?;
        let text = std::str::from_utf8(document).map_err(|error| malformed(error.to_string()))?;
        let root = TrustedRoot::from_json(text).map_err(|error| malformed(error.to_string()))?;
        if root.media_type != MEDIA_TYPE {
            return Err(malformed(format!("its mediaType is {:?}, not {MEDIA_TYPE:?}", root.media_type)));
        }
        Verifier::new(&root).map_err(|error| malformed(error.to_string()))?;
        if root.certificate_authorities.is_empty() && root.tlogs.is_empty() {
            return Err(TrustError::Empty { from: source.clone() });
        }
        Ok(Self { source: source.clone(), fingerprint: Digest::sha256(document), modified, trusted: trusted(&root) })
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

fn trusted(root: &TrustedRoot) -> Vec<Trusted> {
    let entry = |role, name: &str, window: Option<TimeRange>| Trusted {
        role,
        name: name.to_owned(),
        from: window.map(|window| millis(window.start)),
        until: window.and_then(|window| window.end).map(millis),
    };
    let authorities = root.certificate_authorities.iter();
    let authorities = authorities.map(|ca| entry(Role::CertificateAuthority, &ca.uri, ca.valid_for));
    let logs = root.tlogs.iter();
    let logs = logs.map(|log| entry(Role::TransparencyLog, &log.base_url, log.public_key.valid_for));
    let ct_logs = root.ctlogs.iter();
    let ct_logs = ct_logs.map(|log| entry(Role::CertificateLog, &log.base_url, log.public_key.valid_for));
    let timestamps = root.timestamp_authorities.iter();
    let timestamps = timestamps
        .map(|tsa| entry(Role::TimestampAuthority, tsa.uri.as_deref().unwrap_or("(no address)"), tsa.valid_for));
    authorities.chain(logs).chain(ct_logs).chain(timestamps).collect()
}

fn millis(time: jiff::Timestamp) -> Timestamp {
    Timestamp::from_unix_millis(time.as_millisecond())
}

/// protobuf-specs, `sigstore_trustroot.proto`.
const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.trustedroot+json;version=0.1";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::testing::sigstore::FakeSigstore;

    fn load(document: &[u8]) -> Result<TrustRoot, TrustError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trusted_root.json");
        std::fs::write(&path, document).unwrap();
        TrustRoot::load(&TrustSource::File(path))
    }

    #[test]
    fn the_built_in_root_trusts_the_public_good_instance() {
        let root = TrustRoot::load(&TrustSource::BuiltIn).unwrap();
        let now = "2026-11-20T00:00:00Z".parse().unwrap();
        for role in [Role::CertificateAuthority, Role::TransparencyLog, Role::CertificateLog] {
            assert!(root.current(role, now).next().is_some(), "{}", role.as_label());
        }
        assert!(root.trusted.iter().any(|trusted| trusted.name == "https://rekor.sigstore.dev"));
        assert!(!root.trusted[0].is_current(Timestamp::from_unix_seconds(0)), "Fulcio is younger than that");
        assert_eq!(root.modified, None);
        assert_eq!(root, TrustRoot::load(&TrustSource::BuiltIn).unwrap());
    }

    #[test]
    fn a_file_is_loaded_and_any_change_is_another_root() {
        let document = FakeSigstore::from_seed(1, Clock::System.now()).trusted_root_json();
        let root = load(document.as_bytes()).unwrap();
        assert_eq!(root.trusted.len(), 3);
        assert!(root.modified.is_some());
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
        let missing = TrustSource::File("no/such/file".into());
        assert!(matches!(TrustRoot::load(&missing), Err(TrustError::Read { .. })));
    }

    #[test]
    fn a_file_is_bounded_on_both_sides() {
        let good = FakeSigstore::from_seed(1, Clock::System.now()).trusted_root_json();
        let padding = " ".repeat(usize::try_from(CONFIG_FILE_BYTES_MAX).unwrap() - good.len());
        assert!(load(format!("{good}{padding}").as_bytes()).is_ok());
        assert!(matches!(load(format!("{good}{padding} ").as_bytes()), Err(TrustError::TooLarge { .. })));
    }
}
