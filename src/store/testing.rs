//! Values for the tests of this module.

use super::{StoredVerdict, VerdictKey};
use crate::clock::Timestamp;
use crate::oci::Digest;
use crate::policy::{Decision, Reason};

/// A verdict about `image`, reached at that second and good for an hour.
pub(super) fn verdict(image: &str, decision: Decision, issued_seconds: i64) -> StoredVerdict {
    let reason = match decision {
        Decision::Allow => Reason::Verified,
        Decision::Deny => Reason::NoSignature,
    };
    StoredVerdict {
        key: VerdictKey {
            image: image.parse().unwrap(),
            digest: Digest::sha256(image.as_bytes()),
            policy: Digest::sha256(b"policy"),
            trust_root: Digest::sha256(b"trust root"),
        },
        decision,
        reason,
        text: format!("{decision:?}"),
        own: decision == Decision::Allow,
        image_size: None,
        issued: Timestamp::from_unix_seconds(issued_seconds),
        not_after: Timestamp::from_unix_seconds(issued_seconds + 3600),
        evidence: None,
        material: Vec::new(),
        material_complete: true,
    }
}
