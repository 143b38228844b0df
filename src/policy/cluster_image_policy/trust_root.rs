//! TrustRoot documents: keys and certificates of a private Sigstore, as a `trusted_root.json`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::document::{CipError, Origin, head};
use super::keys;
use super::reader::{Fields, Value};
use crate::policy::keys::Object;
use crate::verify::{KeyError, trusted_root_authority, trusted_root_log, trusted_root_timestamp_authority};

/// A TrustRoot document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustRootDocument {
    /// `metadata.name`
    pub name: String,
    /// Where it begins.
    pub origin: Origin,
    /// As a sigstore `trusted_root.json`.
    pub trusted_root_json: Vec<u8>,
}

type Entries = Vec<serde_json::Value>;

impl TrustRootDocument {
    pub(super) fn parse(mut fields: Fields<'_>) -> Result<Self, CipError> {
        let origin = fields.origin();
        let (name, spec) = head(&mut fields, &["policy.sigstore.dev/v1alpha1"])?;
        let mut spec = spec.object(&keys::TRUST_ROOT_SPEC)?;
        let mut sigstore = spec.required("sigstoreKeys")?.object(&keys::SIGSTORE_KEYS)?;
        let authorities = listed(&mut sigstore, "certificateAuthorities", |value| {
            let objects = (&keys::CERTIFICATE_AUTHORITY, &keys::CERTIFICATE_AUTHORITY_SUBJECT);
            authority(value, objects, trusted_root_authority)
        })?;
        let logs = listed(&mut sigstore, "tLogs", |value| log(value, &keys::TLOG))?;
        let certificate_logs = listed(&mut sigstore, "ctLogs", |value| log(value, &keys::CTLOG_KEY))?;
        let timestamp_authorities = listed(&mut sigstore, "timestampAuthorities", |value| {
            let objects = (&keys::TIMESTAMP_AUTHORITY, &keys::TIMESTAMP_AUTHORITY_SUBJECT);
            authority(value, objects, trusted_root_timestamp_authority)
        })?;
        if [&authorities, &logs, &certificate_logs, &timestamp_authorities].iter().all(|list| list.is_empty()) {
            return Err(sigstore.error("states no key and no certificate"));
        }
        sigstore.finish()?;
        spec.finish()?;
        fields.finish()?;
        let root = json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": logs,
            "certificateAuthorities": authorities,
            "ctlogs": certificate_logs,
            "timestampAuthorities": timestamp_authorities,
        });
        Ok(Self { name, origin, trusted_root_json: root.to_string().into_bytes() })
    }
}

fn listed(
    fields: &mut Fields<'_>,
    key: &str,
    entry: impl Fn(&Value<'_>) -> Result<serde_json::Value, CipError>,
) -> Result<Entries, CipError> {
    match fields.take(key) {
        Some(list) => list.elements()?.iter().map(entry).collect(),
        None => Ok(Vec::new()),
    }
}

fn authority(
    value: &Value<'_>,
    (object, subject_object): (&'static Object, &'static Object),
    entry: impl Fn(&[u8]) -> Result<serde_json::Value, KeyError>,
) -> Result<serde_json::Value, CipError> {
    let mut fields = value.object(object)?;
    let subject = fields.take("subject").map(|subject| self::subject(&subject, subject_object)).transpose()?;
    let uri = fields.take("uri").map(|uri| uri.address()).transpose()?;
    let chain = fields.required("certChain")?;
    let mut entry = entry(&decoded(&chain)?).map_err(|error| chain.error(error.to_string()))?;
    fields.finish()?;
    if let Some(members) = entry.as_object_mut() {
        members.insert("subject".to_owned(), subject.unwrap_or_else(|| json!({})));
        members.insert("uri".to_owned(), json!(uri.unwrap_or_default()));
    }
    Ok(entry)
}

fn subject(value: &Value<'_>, object: &'static Object) -> Result<serde_json::Value, CipError> {
    let mut fields = value.object(object)?;
    let organization = fields.take("organization").map(|text| text.text()).transpose()?.unwrap_or_default();
    let common_name = fields.take("commonName").map(|text| text.text()).transpose()?.unwrap_or_default();
    fields.finish()?;
    Ok(json!({"organization": organization, "commonName": common_name}))
}

fn log(value: &Value<'_>, object: &'static Object) -> Result<serde_json::Value, CipError> {
    let mut fields = value.object(object)?;
    let base_url = fields.take("baseURL").map(|url| url.address()).transpose()?.unwrap_or_default();
    let hashes = [("sha-256", "SHA2_256"), ("sha-384", "SHA2_384"), ("sha-512", "SHA2_512")];
    let hash = match fields.take("hashAlgorithm") {
        Some(hash) => hash.one_of(&hashes)?,
        None => "SHA2_256",
    };
    let key = fields.required("publicKey")?;
    let mut entry = trusted_root_log(&decoded(&key)?).map_err(|error| key.error(error.to_string()))?;
    fields.finish()?;
    if let Some(members) = entry.as_object_mut() {
        members.insert("baseUrl".to_owned(), json!(base_url));
        members.insert("hashAlgorithm".to_owned(), json!(hash));
    }
    Ok(entry)
}

/// The format's fields of bytes: base64, as Kubernetes writes them, of PEM.
fn decoded(value: &Value<'_>) -> Result<Vec<u8>, CipError> {
    let text: String = value.text()?.split_ascii_whitespace().collect();
    STANDARD.decode(text).map_err(|_| value.error("is no base64; the PEM text is expected in base64"))
}
