//! Why a trust root cannot be used.

use std::path::PathBuf;

use super::TrustSource;
use super::tuf::StateError;

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
    /// What was fetched by TUF cannot be used.
    #[error("the trust root that was fetched by TUF cannot be used")]
    Stored {
        /// Why.
        source: Box<StateError>,
    },
}
