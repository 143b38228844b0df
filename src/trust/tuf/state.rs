//! What refreshes leave behind: one file with everything that the next start needs to check it all again.
//!
//! The metadata is verified from the configured root whenever it is loaded, only its expiry is not asked then: a root
//! that was good when it was fetched stays usable while the repository is away, and its age is shown.

use serde::{Deserialize, Serialize};
use sigstore_tuf::{Error, Metadata, Root, TrustedMetadataSet};

use super::Settings;
use super::error::StateError;
use super::files;
use crate::clock::Timestamp;
use crate::limits::TUF_STATE_BYTES_MAX;
use crate::oci::{Algorithm, Digest, Hasher, json};

/// The file's content. Documents are kept as the bytes that were signed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    pub(super) schema: u64,
    /// Every root after the one that the first refresh began from, in their order: also those that came with a refresh
    /// that failed later, because a root that was replaced must stay replaced.
    pub(super) roots: Vec<String>,
    /// What the last refresh that succeeded ended with.
    pub(super) last: Option<Complete>,
}

/// A refresh that succeeded.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Complete {
    /// When, RFC 3339.
    pub(super) refreshed: String,
    /// The version of the root that its metadata is signed under.
    pub(super) root_version: u64,
    pub(super) timestamp: String,
    pub(super) snapshot: String,
    pub(super) targets: String,
    pub(super) trusted_root: String,
}

/// What a state is worth, checked.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) refreshed: Timestamp,
    /// When the first piece of the metadata ends.
    pub(super) expires: Timestamp,
}

impl Default for State {
    fn default() -> Self {
        Self { schema: SCHEMA, roots: Vec::new(), last: None }
    }
}

impl State {
    /// The state that was kept; blocking.
    ///
    /// # Errors
    /// [`StateError::Absent`] when there is none; the others when it is no state.
    pub(super) fn read(settings: &Settings) -> Result<Self, StateError> {
        let path = settings.state_path();
        let bytes = files::read(&path, TUF_STATE_BYTES_MAX)?;
        let malformed = |why: String| StateError::Malformed { path: path.clone(), why };
        let state: Self = json::parse_as(&bytes).map_err(|error| malformed(error.to_string()))?;
        if state.schema != SCHEMA {
            return Err(malformed(format!("its schema is {}, not {SCHEMA}", state.schema)));
        }
        Ok(state)
    }

    /// Keeps it, whole or not at all; blocking.
    ///
    /// # Errors
    /// [`StateError`] when it cannot be written; then the one before stays.
    pub(super) fn write(&self, settings: &Settings) -> Result<(), StateError> {
        let path = settings.state_path();
        let bytes = serde_json::to_vec(self)
            .map_err(|error| StateError::Malformed { path: path.clone(), why: error.to_string() })?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > TUF_STATE_BYTES_MAX {
            return Err(StateError::TooLarge { path, max: TUF_STATE_BYTES_MAX });
        }
        files::write(&path, &bytes)
    }

    /// Checks the last complete refresh from the configured root on, without asking whether it has expired since.
    ///
    /// # Errors
    /// [`StateError::Unfounded`] when any signature, version, length or hash is wrong, [`StateError::Absent`] when no
    /// refresh succeeded yet.
    pub(super) fn verify(&self, settings: &Settings) -> Result<(&Complete, Verified), StateError> {
        let path = settings.state_path();
        let Some(last) = &self.last else { return Err(StateError::Absent { path }) };
        let malformed = |why: &str| StateError::Malformed { path: path.clone(), why: why.to_owned() };
        let refreshed = last.refreshed.parse().map_err(|_| malformed("its time is none"))?;
        let expires =
            self.check(last, &settings.bootstrap).map_err(|error| match super::version_of(&settings.bootstrap) {
                // A root file newer than the state may have replaced the keys that signed it: then it says nothing any more.
                Ok(version) if version > last.root_version => StateError::Absent { path: path.clone() },
                _ => StateError::Unfounded { path: path.clone(), source: Box::new(error) },
            })?;
        let expires = Timestamp::from_unix_millis(expires.as_millisecond());
        Ok((last, Verified { refreshed, expires }))
    }

    /// The TUF client's workflow over what was kept: root chain, timestamp, snapshot, targets, target.
    fn check(&self, last: &Complete, bootstrap: &[u8]) -> Result<jiff::Timestamp, Error> {
        let mut trusted = TrustedMetadataSet::from_root(bootstrap)?;
        for root in &self.roots {
            let version = Metadata::<Root>::from_slice(root.as_bytes())?.signed().version;
            // A newer release, or a newer root file, begins further down the chain.
            if version > trusted.root().version && version <= last.root_version {
                trusted.update_root(root.as_bytes())?;
            }
        }
        // At the beginning of time nothing has expired yet.
        let never = jiff::Timestamp::MIN;
        trusted.update_timestamp(last.timestamp.as_bytes(), never)?;
        trusted.update_snapshot(last.snapshot.as_bytes(), never)?;
        trusted.update_targets(last.targets.as_bytes(), never)?;
        let (Some(timestamp), Some(snapshot), Some(targets)) =
            (trusted.timestamp(), trusted.snapshot(), trusted.targets_role("targets"))
        else {
            return Err(Error::NotRefreshed);
        };
        let target = targets.target(super::TARGET).ok_or_else(|| Error::TargetNotFound(super::TARGET.to_owned()))?;
        let document = last.trusted_root.as_bytes();
        let hashes =
            ["sha256", "sha512"].map(|name| target.hashes.get(name).map(|hash| hash_fits(name, hash, document)));
        let mut hashes = hashes.into_iter().flatten().peekable();
        let is_long = u64::try_from(document.len()) == Ok(target.length);
        if !is_long || hashes.peek().is_none() || !hashes.all(|fits| fits) {
            return Err(Error::IntegrityMismatch(format!("{}: length or hash differ", super::TARGET)));
        }
        let ends = [trusted.root().expires, timestamp.expires, snapshot.expires, targets.expires];
        Ok(ends.into_iter().min().unwrap_or(never))
    }
}

fn hash_fits(name: &str, expected: &str, document: &[u8]) -> bool {
    let digest = if name == "sha512" {
        let mut hasher = Hasher::new(Algorithm::Sha512);
        hasher.update(document);
        hasher.finish()
    } else {
        Digest::sha256(document)
    };
    digest.hex().eq_ignore_ascii_case(expected)
}

const SCHEMA: u64 = 1;
