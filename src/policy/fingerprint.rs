//! One digest over everything that can change an answer, so that an old verdict never counts under another policy.

use super::MultiArch;
use super::combine::Formats;
use super::overrides::Override;
use crate::limits::{
    ANNOTATION_BYTES_MAX, BUNDLE_LOG_ENTRIES_MAX, BUNDLE_TIMESTAMPS_MAX, CANDIDATES_MAX, CHAIN_CERTIFICATES_MAX,
    CHECKPOINT_SIGNATURES_MAX, CHILDREN_EXAMINED_MAX, IDENTITY_BYTES_MAX, INDEX_CHILDREN_MAX, INDEX_DEPTH_MAX,
    MATERIAL_BYTES_MAX, OPENPGP_PACKETS_MAX, OPENPGP_RSA_BITS_MIN, PATTERN_BYTES_MAX, PATTERN_COMPILED_BYTES_MAX,
    REFERRER_BYTES_MAX, REFERRERS_MAX, REFERRERS_PAGES_MAX, REGO_INPUT_BYTES_MAX, REGO_MODULE_BYTES_MAX, REGO_TIME_MAX,
    SIGNATURE_BYTES_MAX, STATEMENT_SUBJECTS_MAX, SUBJECT_DIGESTS_MAX,
};
use crate::oci::{Algorithm, Digest, Hasher};

/// The fingerprint. Independent of where keys were read from, of the order of scopes and overrides, and of formatting;
/// the order of requirements counts, since the first that is not satisfied gives the answer's text.
pub(super) fn of(formats: &Formats, multi_arch: MultiArch, overrides: &[Override]) -> Digest {
    let mut lines = vec![VERSION.to_owned(), format!("multi_arch {multi_arch:?}"), limits()];
    lines.extend(formats.canonical());
    // A mode does not change the raw verdict, which is what is kept.
    let mut changing: Vec<String> = overrides.iter().flat_map(canonical).collect();
    changing.sort();
    lines.extend(changing);
    let mut hasher = Hasher::new(Algorithm::Sha256);
    for line in lines {
        hasher.update(&u64::try_from(line.len()).unwrap_or(u64::MAX).to_be_bytes());
        hasher.update(line.as_bytes());
    }
    hasher.finish()
}

/// To be raised when the same policy begins to mean something else.
const VERSION: &str = "sealgate policy 4, regorus 0.14";

fn canonical(over: &Override) -> Vec<String> {
    let Override { scope, mode: _, multi_arch, bundles_without_identity, max_image_bytes } = over;
    let keys = [
        multi_arch.map(|value| format!("multi_arch {value:?}")),
        bundles_without_identity.map(|value| format!("bundles_without_identity {value:?}")),
        max_image_bytes.map(|value| format!("max_image_bytes {value}")),
    ];
    keys.into_iter().flatten().map(|key| format!("override {scope} {key}")).collect()
}

fn limits() -> String {
    let counts = [
        BUNDLE_LOG_ENTRIES_MAX,
        BUNDLE_TIMESTAMPS_MAX,
        CANDIDATES_MAX,
        CHAIN_CERTIFICATES_MAX,
        CHECKPOINT_SIGNATURES_MAX,
        CHILDREN_EXAMINED_MAX,
        IDENTITY_BYTES_MAX,
        INDEX_CHILDREN_MAX,
        INDEX_DEPTH_MAX,
        OPENPGP_PACKETS_MAX,
        PATTERN_BYTES_MAX,
        PATTERN_COMPILED_BYTES_MAX,
        REFERRERS_MAX,
        REFERRERS_PAGES_MAX,
        REGO_INPUT_BYTES_MAX,
        REGO_MODULE_BYTES_MAX,
        STATEMENT_SUBJECTS_MAX,
        SUBJECT_DIGESTS_MAX,
    ];
    let bytes = [ANNOTATION_BYTES_MAX, MATERIAL_BYTES_MAX, REFERRER_BYTES_MAX, SIGNATURE_BYTES_MAX];
    format!("limits {counts:?} {bytes:?} {OPENPGP_RSA_BITS_MIN} {REGO_TIME_MAX:?}")
}
