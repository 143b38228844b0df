//! Every key of ClusterImagePolicy and TrustRoot.

use crate::policy::keys::{FormatKey, objects};

objects! {
    /// The objects of a ClusterImagePolicy.
    CLUSTER_IMAGE_POLICY;
    POLICY = "" ["apiVersion", "kind", "metadata", "spec", "status"];
    SPEC = "spec" ["images", "mode", "authorities", "policy"] refuse [
        "match": "it selects Kubernetes resources, and a mirror sees images alone; remove it",
    ];
    IMAGE = "spec.images[]" ["glob"];
    AUTHORITY = "spec.authorities[]" [
        "name", "key", "keyless", "static", "source", "ctlog", "rfc3161timestamp", "signatureFormat", "attestations",
    ];
    KEY = "spec.authorities[].key" ["data", "hashAlgorithm"] refuse ["secretRef": SECRET, "kms": KMS];
    KEYLESS = "spec.authorities[].keyless" ["url", "ca-cert", "identities", "trustRootRef", "insecureIgnoreSCT"];
    CA_CERT = "spec.authorities[].keyless.ca-cert" ["data"] refuse [
        "secretRef": SECRET,
        "kms": KMS,
        "hashAlgorithm": "a certificate names its own; remove it",
    ];
    IDENTITY = "spec.authorities[].keyless.identities[]" ["issuer", "issuerRegExp", "subject", "subjectRegExp"];
    STATIC = "spec.authorities[].static" ["action", "message"];
    SOURCE = "spec.authorities[].source[]" ["oci", "tagPrefix"] refuse [
        "signaturePullSecrets":
            "it names secrets of Kubernetes; give the credentials to the [[upstream]] in the configuration",
    ];
    CTLOG = "spec.authorities[].ctlog" ["url", "trustRootRef"];
    TIMESTAMP = "spec.authorities[].rfc3161timestamp" ["trustRootRef"];
    ATTESTATION = "spec.authorities[].attestations[]" ["name", "predicateType", "policy"];
    ATTESTATION_POLICY = "spec.authorities[].attestations[].policy" ["type", "data", "remote"] refuse [
        "configMapRef": CONFIG_MAP,
        "fetchConfigFile": "a decision is made before any config is fetched; attest what matters, or remove it",
        "includeSpec": POD,
        "includeObjectMeta": POD,
        "includeTypeMeta": POD,
    ];
    ATTESTATION_REMOTE = "spec.authorities[].attestations[].policy.remote" ["url", "sha256sum"];
    SPEC_POLICY = "spec.policy" ["type", "data", "remote", "fetchConfigFile"] refuse [
        "configMapRef": CONFIG_MAP,
        "includeSpec": POD,
        "includeObjectMeta": POD,
        "includeTypeMeta": POD,
    ];
    SPEC_REMOTE = "spec.policy.remote" ["url", "sha256sum"];
}

objects! {
    /// The objects of a TrustRoot.
    TRUST_ROOT_OBJECTS;
    TRUST_ROOT = "" ["apiVersion", "kind", "metadata", "spec", "status"];
    TRUST_ROOT_SPEC = "spec" ["sigstoreKeys"] refuse ["remote": TUF, "repository": TUF];
    SIGSTORE_KEYS = "spec.sigstoreKeys" ["certificateAuthorities", "tLogs", "ctLogs", "timestampAuthorities"];
    CERTIFICATE_AUTHORITY = "spec.sigstoreKeys.certificateAuthorities[]" ["subject", "uri", "certChain"];
    CERTIFICATE_AUTHORITY_SUBJECT =
        "spec.sigstoreKeys.certificateAuthorities[].subject" ["organization", "commonName"];
    TLOG = "spec.sigstoreKeys.tLogs[]" ["baseURL", "hashAlgorithm", "publicKey"];
    CTLOG_KEY = "spec.sigstoreKeys.ctLogs[]" ["baseURL", "hashAlgorithm", "publicKey"];
    TIMESTAMP_AUTHORITY = "spec.sigstoreKeys.timestampAuthorities[]" ["subject", "uri", "certChain"];
    TIMESTAMP_AUTHORITY_SUBJECT = "spec.sigstoreKeys.timestampAuthorities[].subject" ["organization", "commonName"];
}

const SECRET: &str = "it names a secret of Kubernetes; put the PEM under `data`";
const KMS: &str = "key services are not asked; export the public key and put its PEM under `data`";
const CONFIG_MAP: &str = "it names a config map of Kubernetes; put the module under `data`";
const POD: &str = "it asks for the Kubernetes resource that uses the image, which a mirror never sees; remove it";
const TUF: &str = "fetch the repository with `sealgate trust update` and name its trusted_root.json in policy.trusted_root, \
                   or state the keys under `sigstoreKeys`";

/// Every key of a ClusterImagePolicy.
pub fn cluster_image_policy_keys() -> impl Iterator<Item = FormatKey> {
    CLUSTER_IMAGE_POLICY.iter().flat_map(|object| object.format_keys())
}

/// Every key of a TrustRoot.
pub fn trust_root_keys() -> impl Iterator<Item = FormatKey> {
    TRUST_ROOT_OBJECTS.iter().flat_map(|object| object.format_keys())
}
