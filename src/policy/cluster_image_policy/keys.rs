//! Every key of the formats, in one table that the readers accept keys from.
//!
//! A reader opens an object as one of these ([`super::reader::Value::object`]), which refuses every key that stands in none
//! of the two lists, and every key that it then does not take. So a key cannot be accepted without being listed here, and
//! `tests/it/policy_keys.rs` wants a test of its effect for each one listed.

/// The keys of one kind of object.
#[derive(Debug)]
pub(super) struct Object {
    /// Where it stands.
    pub(super) path: &'static str,
    /// The keys that are enforced.
    pub(super) keys: &'static [&'static str],
    /// Keys of the format that are refused, each with what to do instead.
    pub(super) refused: &'static [(&'static str, &'static str)],
}

pub(super) const POLICY: Object =
    Object { path: "", keys: &["apiVersion", "kind", "metadata", "spec", "status"], refused: &[] };

pub(super) const SPEC: Object = Object {
    path: "spec",
    keys: &["images", "mode", "authorities", "policy"],
    refused: &[("match", "it selects Kubernetes resources, and a mirror sees images alone; remove it")],
};

pub(super) const IMAGE: Object = Object { path: "spec.images[]", keys: &["glob"], refused: &[] };

pub(super) const AUTHORITY: Object = Object {
    path: "spec.authorities[]",
    keys: &[
        "name",
        "key",
        "keyless",
        "static",
        "source",
        "ctlog",
        "rfc3161timestamp",
        "signatureFormat",
        "attestations",
    ],
    refused: &[],
};

pub(super) const KEY: Object = Object {
    path: "spec.authorities[].key",
    keys: &["data", "hashAlgorithm"],
    refused: &[("secretRef", SECRET), ("kms", KMS)],
};

pub(super) const KEYLESS: Object = Object {
    path: "spec.authorities[].keyless",
    keys: &["url", "ca-cert", "identities", "trustRootRef", "insecureIgnoreSCT"],
    refused: &[],
};

pub(super) const CA_CERT: Object = Object {
    path: "spec.authorities[].keyless.ca-cert",
    keys: &["data"],
    refused: &[("secretRef", SECRET), ("kms", KMS), ("hashAlgorithm", "a certificate names its own; remove it")],
};

pub(super) const IDENTITY: Object = Object {
    path: "spec.authorities[].keyless.identities[]",
    keys: &["issuer", "issuerRegExp", "subject", "subjectRegExp"],
    refused: &[],
};

pub(super) const STATIC: Object =
    Object { path: "spec.authorities[].static", keys: &["action", "message"], refused: &[] };

pub(super) const SOURCE: Object = Object {
    path: "spec.authorities[].source[]",
    keys: &["oci", "tagPrefix"],
    refused: &[(
        "signaturePullSecrets",
        "it names secrets of Kubernetes; give the credentials to the [[upstream]] in the configuration",
    )],
};

pub(super) const CTLOG: Object =
    Object { path: "spec.authorities[].ctlog", keys: &["url", "trustRootRef"], refused: &[] };

pub(super) const TIMESTAMP: Object =
    Object { path: "spec.authorities[].rfc3161timestamp", keys: &["trustRootRef"], refused: &[] };

pub(super) const ATTESTATION: Object =
    Object { path: "spec.authorities[].attestations[]", keys: &["name", "predicateType", "policy"], refused: &[] };

pub(super) const ATTESTATION_POLICY: Object = Object {
    path: "spec.authorities[].attestations[].policy",
    keys: &["type", "data", "remote"],
    refused: &[
        ("configMapRef", CONFIG_MAP),
        ("fetchConfigFile", "a decision is made before any config is fetched; attest what matters, or remove it"),
        ("includeSpec", POD),
        ("includeObjectMeta", POD),
        ("includeTypeMeta", POD),
    ],
};

pub(super) const ATTESTATION_REMOTE: Object =
    Object { path: "spec.authorities[].attestations[].policy.remote", keys: &["url", "sha256sum"], refused: &[] };

pub(super) const SPEC_POLICY: Object = Object {
    path: "spec.policy",
    keys: &["type", "data", "remote", "fetchConfigFile"],
    refused: &[
        ("configMapRef", CONFIG_MAP),
        ("includeSpec", POD),
        ("includeObjectMeta", POD),
        ("includeTypeMeta", POD),
    ],
};

pub(super) const SPEC_REMOTE: Object = Object { path: "spec.policy.remote", keys: &["url", "sha256sum"], refused: &[] };

pub(super) const TRUST_ROOT: Object =
    Object { path: "", keys: &["apiVersion", "kind", "metadata", "spec", "status"], refused: &[] };

pub(super) const TRUST_ROOT_SPEC: Object =
    Object { path: "spec", keys: &["sigstoreKeys"], refused: &[("remote", TUF), ("repository", TUF)] };

pub(super) const SIGSTORE_KEYS: Object = Object {
    path: "spec.sigstoreKeys",
    keys: &["certificateAuthorities", "tLogs", "ctLogs", "timestampAuthorities"],
    refused: &[],
};

pub(super) const CERTIFICATE_AUTHORITY: Object =
    Object { path: "spec.sigstoreKeys.certificateAuthorities[]", keys: &["subject", "uri", "certChain"], refused: &[] };

pub(super) const CERTIFICATE_AUTHORITY_SUBJECT: Object = Object {
    path: "spec.sigstoreKeys.certificateAuthorities[].subject",
    keys: &["organization", "commonName"],
    refused: &[],
};

pub(super) const TIMESTAMP_AUTHORITY: Object =
    Object { path: "spec.sigstoreKeys.timestampAuthorities[]", keys: &["subject", "uri", "certChain"], refused: &[] };

pub(super) const TIMESTAMP_AUTHORITY_SUBJECT: Object = Object {
    path: "spec.sigstoreKeys.timestampAuthorities[].subject",
    keys: &["organization", "commonName"],
    refused: &[],
};

pub(super) const TLOG: Object =
    Object { path: "spec.sigstoreKeys.tLogs[]", keys: &["baseURL", "hashAlgorithm", "publicKey"], refused: &[] };

pub(super) const CTLOG_KEY: Object =
    Object { path: "spec.sigstoreKeys.ctLogs[]", keys: &["baseURL", "hashAlgorithm", "publicKey"], refused: &[] };

/// The objects of a ClusterImagePolicy.
pub(super) const CLUSTER_IMAGE_POLICY: &[&Object] = &[
    &POLICY,
    &SPEC,
    &IMAGE,
    &AUTHORITY,
    &KEY,
    &KEYLESS,
    &CA_CERT,
    &IDENTITY,
    &STATIC,
    &SOURCE,
    &CTLOG,
    &TIMESTAMP,
    &ATTESTATION,
    &ATTESTATION_POLICY,
    &ATTESTATION_REMOTE,
    &SPEC_POLICY,
    &SPEC_REMOTE,
];

/// The objects of a TrustRoot.
pub(super) const TRUST_ROOT_OBJECTS: &[&Object] = &[
    &TRUST_ROOT,
    &TRUST_ROOT_SPEC,
    &SIGSTORE_KEYS,
    &CERTIFICATE_AUTHORITY,
    &CERTIFICATE_AUTHORITY_SUBJECT,
    &TLOG,
    &CTLOG_KEY,
    &TIMESTAMP_AUTHORITY,
    &TIMESTAMP_AUTHORITY_SUBJECT,
];

const SECRET: &str = "it names a secret of Kubernetes; put the PEM under `data`";
const KMS: &str = "key services are not asked; export the public key and put its PEM under `data`";
const CONFIG_MAP: &str = "it names a config map of Kubernetes; put the module under `data`";
const POD: &str = "it asks for the Kubernetes resource that uses the image, which a mirror never sees; remove it";
const TUF: &str = "fetch the repository with `sealgate trust update` and name its trusted_root.json in policy.trusted_root, \
                   or state the keys under `sigstoreKeys`";

/// A key of a format, with what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FormatKey {
    /// The object that it stands in, such as `spec.authorities[].key`; empty at the top.
    pub object: &'static str,
    /// Its name.
    pub name: &'static str,
    /// None: it is enforced. Otherwise it is refused, and this says what to do instead.
    pub refused: Option<&'static str>,
}

impl std::fmt::Display for FormatKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.object.is_empty() {
            write!(formatter, "{}.", self.object)?;
        }
        formatter.write_str(self.name)
    }
}

/// Every key of a ClusterImagePolicy.
pub fn cluster_image_policy_keys() -> impl Iterator<Item = FormatKey> {
    CLUSTER_IMAGE_POLICY.iter().flat_map(|object| object.format_keys())
}

/// Every key of a TrustRoot.
pub fn trust_root_keys() -> impl Iterator<Item = FormatKey> {
    TRUST_ROOT_OBJECTS.iter().flat_map(|object| object.format_keys())
}

impl Object {
    fn format_keys(&self) -> impl Iterator<Item = FormatKey> {
        let object = self.path;
        let enforced = self.keys.iter().map(move |name| FormatKey { object, name, refused: None });
        let refused = self.refused.iter().map(move |(name, hint)| FormatKey { object, name, refused: Some(hint) });
        enforced.chain(refused)
    }
}
