//! Every key of containers-policy.json(5).
//!
//! The path of a requirement or an identity is its `type`, since that decides which keys it may have.

use crate::policy::keys::{FormatKey, objects};

objects! {
    /// The objects of a policy.json whose keys are fixed; the names of transports and scopes are free.
    OBJECTS;
    POLICY = "" ["default", "transports"];
    ACCEPT_ANYTHING = "insecureAcceptAnything" ["type"];
    REJECT = "reject" ["type"];
    SIGNED_BY = "signedBy" ["type", "keyType", "keyPath", "keyPaths", "keyData", "signedIdentity"];
    SIGNED_BASE_LAYER = "signedBaseLayer" ["type", "baseLayerIdentity"];
    SIGSTORE_SIGNED = "sigstoreSigned" [
        "type", "keyPath", "keyPaths", "keyData", "keyDatas", "fulcio", "pki", "rekorPublicKeyPath", "rekorPublicKeyPaths",
        "rekorPublicKeyData", "rekorPublicKeyDatas", "signedIdentity",
    ];
    FULCIO = "sigstoreSigned.fulcio" ["caPath", "caData", "oidcIssuer", "subjectEmail"];
    PKI = "sigstoreSigned.pki" [
        "caRootsPath", "caRootsData", "caIntermediatesPath", "caIntermediatesData", "subjectEmail", "subjectHostname",
    ];
    MATCH_EXACT = "matchExact" ["type"];
    MATCH_REPO_DIGEST_OR_EXACT = "matchRepoDigestOrExact" ["type"];
    MATCH_REPOSITORY = "matchRepository" ["type"];
    EXACT_REFERENCE = "exactReference" ["type", "dockerReference"];
    EXACT_REPOSITORY = "exactRepository" ["type", "dockerRepository"];
    REMAP_IDENTITY = "remapIdentity" ["type", "prefix", "signedPrefix"];
}

/// Every key of a policy.json.
pub fn containers_policy_keys() -> impl Iterator<Item = FormatKey> {
    OBJECTS.iter().flat_map(|object| object.format_keys())
}
