//! CORE. The field's words as types: digests, names, references, descriptors, manifests.
//!
//! Text from outside becomes one of these types once, at the edge, and cannot be wrong afterwards. No I/O, no clock.
//! May import: `limits`, `clock`.

mod descriptor;
mod digest;
mod error_code;
pub mod json;
mod manifest;
mod media_type;
mod name;
mod reference;

pub use descriptor::{Descriptor, Platform};
pub use digest::{Algorithm, Digest, DigestError, Hasher};
pub use error_code::ErrorCode;
pub use manifest::{Image, ImageSize, Index, Manifest, ManifestError, ManifestKind};
pub use media_type::{MediaType, MediaTypeError};
pub use name::{Host, NameError, Repository, RepositoryName, Tag};
pub use reference::{DockerReference, ImageReference, Reference, ReferenceError};
