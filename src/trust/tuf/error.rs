//! Why a trust root could not be had by TUF.

use std::path::PathBuf;

use crate::net::HttpSettingsError;
use crate::trust::TrustError;

/// A refresh did not succeed. What was in force stays in force.
#[derive(Debug, thiserror::Error)]
pub enum TufError {
    /// There is no usable answer from the repository: nothing is known about it.
    #[error("{url} gave no usable answer")]
    Unreachable {
        /// The repository.
        url: String,
        /// Why.
        source: Box<sigstore_tuf::Error>,
    },
    /// It took longer than a refresh may.
    #[error("{url} did not answer everything within {seconds} s")]
    TooSlow {
        /// The repository.
        url: String,
        /// The bound.
        seconds: u64,
    },
    /// What the repository serves breaks a rule: signatures, versions, expiry, lengths, hashes.
    #[error("what {url} serves is refused")]
    Refused {
        /// The repository.
        url: String,
        /// Which rule.
        source: Box<sigstore_tuf::Error>,
    },
    /// The metadata is right, but the trust root that it vouches for cannot be used for verification.
    #[error("the trust root that {url} serves cannot be used")]
    Unusable {
        /// The repository.
        url: String,
        /// What is wrong with it.
        source: Box<TrustError>,
    },
    /// What earlier refreshes kept cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// No HTTP client could be made.
    #[error("cannot make an HTTP client for {url}")]
    Client {
        /// The repository.
        url: String,
        /// Why.
        source: HttpSettingsError,
    },
}

impl TufError {
    /// The class of a failure below the metadata's rules: a transport's errors say nothing about what is served.
    pub(super) fn of(url: &str, error: sigstore_tuf::Error) -> Self {
        let (url, transport) = (url.to_owned(), matches!(error, sigstore_tuf::Error::Transport { .. }));
        let source = Box::new(error);
        if transport { Self::Unreachable { url, source } } else { Self::Refused { url, source } }
    }
}

/// What earlier refreshes kept cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Nothing was ever fetched.
    #[error("no trust root was fetched yet; {} is not there", .path.display())]
    Absent {
        /// Where it would be.
        path: PathBuf,
    },
    /// It cannot be read or written.
    #[error("cannot {what} {}", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is larger than it can be.
    #[error("{} has more than {max} bytes", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        max: u64,
    },
    /// It is no state of ours.
    #[error("{} is damaged: {why}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Its metadata does not follow from the root to begin from.
    #[error("{} does not follow from the configured TUF root", .path.display())]
    Unfounded {
        /// The file.
        path: PathBuf,
        /// Which rule is broken.
        source: Box<sigstore_tuf::Error>,
    },
    /// Another process refreshes now.
    #[error("another update of {} runs now", .path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
}

impl StateError {
    /// What to do about it.
    pub fn next(&self) -> &'static str {
        match self {
            Self::Absent { .. } => "run `sealgate trust update`",
            Self::Io { .. } => "make the directory one that this user may read and write, or set trust.tuf.state_dir",
            Self::TooLarge { .. } | Self::Malformed { .. } | Self::Unfounded { .. } => {
                "when the repository or trust.tuf.root_file was changed on purpose, remove the file and run \
                 `sealgate trust update`; otherwise find out who changed it"
            }
            Self::Busy { .. } => "wait for it to end",
        }
    }
}
