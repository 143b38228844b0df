//! The error codes of the distribution-spec ("Error codes"); the client sees nothing else in `errors[].code`.

/// A code of the distribution-spec's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The blob is not there, or nothing that was admitted lists it.
    BlobUnknown,
    /// A digest in the request does not parse.
    DigestInvalid,
    /// The manifest cannot be used.
    ManifestInvalid,
    /// The manifest is not there.
    ManifestUnknown,
    /// A name in the request does not parse.
    NameInvalid,
    /// The repository, or the upstream, is not there.
    NameUnknown,
    /// The client has to authenticate itself to this mirror.
    Unauthorized,
    /// Policy, or the upstream, refuses.
    Denied,
    /// The operation is not one of a read-only registry.
    Unsupported,
    /// Too many requests, here or upstream.
    TooManyRequests,
}

impl ErrorCode {
    /// As it stands in the JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
        }
    }
}
