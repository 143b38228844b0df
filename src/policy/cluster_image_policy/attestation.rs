//! `attestations[]` and policies in Rego.

use std::collections::HashSet;

use super::document::{CipError, Origin};
use super::keys;
use super::reader::{Fields, Value};
use crate::oci::Digest;
use crate::policy::ReadFile;

/// `attestations[]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestationDocument {
    /// `name`
    pub name: String,
    /// `predicateType` as a URI; short names are resolved.
    pub predicate_type: String,
    /// The short name as written, which decides what a policy is given.
    pub short_name: Option<&'static str>,
    /// `policy`
    pub policy: Option<RegoDocument>,
    /// Where.
    pub origin: Origin,
}

/// `policy` of type `rego`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegoDocument {
    /// The module's text.
    pub module: String,
    /// Where.
    pub origin: Origin,
}

/// Short names of predicate types, as cosign resolves them. Deprecated, since the same name meant other types in other
/// versions.
const SHORT_NAMES: &[(&str, &str)] = &[
    ("custom", "https://cosign.sigstore.dev/attestation/v1"),
    ("slsaprovenance", "https://slsa.dev/provenance/v0.2"),
    ("spdx", "https://spdx.dev/Document"),
    ("spdxjson", "https://spdx.dev/Document"),
    ("cyclonedx", "https://cyclonedx.org/bom"),
    ("link", "https://in-toto.io/Link/v1"),
    ("vuln", "https://cosign.sigstore.dev/attestation/vuln/v1"),
];

/// Every attestation of an authority; all of them must be there.
pub(super) fn all(value: &Value<'_>, read: ReadFile<'_>) -> Result<Vec<AttestationDocument>, CipError> {
    let mut attestations: Vec<AttestationDocument> = Vec::new();
    let mut names = HashSet::new();
    for value in value.elements()? {
        let attestation = AttestationDocument::parse(&value, &mut *read)?;
        if !names.insert(attestation.name.clone()) {
            let problem = format!("the name {:?} comes twice; a policy could not tell the two apart", attestation.name);
            return Err(value.error(problem));
        }
        attestations.push(attestation);
    }
    Ok(attestations)
}

impl AttestationDocument {
    fn parse(value: &Value<'_>, read: ReadFile<'_>) -> Result<Self, CipError> {
        let mut fields = value.object(&keys::ATTESTATION)?;
        let origin = fields.origin();
        let name = fields.required("name")?.text()?.to_owned();
        let predicate = fields.required("predicateType")?.text()?;
        let short = SHORT_NAMES.iter().find(|(short, _)| *short == predicate);
        let policy = match fields.take("policy") {
            Some(policy) => {
                let (rego, rest) = rego(&policy, PolicyKind::Attestation, read)?;
                rest.finish()?;
                Some(rego)
            }
            None => None,
        };
        fields.finish()?;
        Ok(Self {
            name,
            predicate_type: short.map_or(predicate, |(_, uri)| uri).to_owned(),
            short_name: short.map(|(short, _)| *short),
            policy,
            origin,
        })
    }
}

/// Where a policy in Rego stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PolicyKind {
    /// It judges one attestation.
    Attestation,
    /// It judges all that the authorities found.
    Spec,
}

/// A policy, and the fields that its kind alone has, not yet finished.
pub(super) fn rego<'n>(
    value: &Value<'n>,
    kind: PolicyKind,
    read: ReadFile<'_>,
) -> Result<(RegoDocument, Fields<'n>), CipError> {
    let (object, remote_object) = match kind {
        PolicyKind::Attestation => (&keys::ATTESTATION_POLICY, &keys::ATTESTATION_REMOTE),
        PolicyKind::Spec => (&keys::SPEC_POLICY, &keys::SPEC_REMOTE),
    };
    let mut fields = value.object(object)?;
    let language = fields.required("type")?;
    match language.text()? {
        "rego" => {}
        "cue" => {
            let problem = "CUE is not supported, since it exists for Go programs alone; write the same rule in Rego \
                           (type: rego)";
            return Err(language.error(problem));
        }
        other => return Err(language.error(format!("unsupported value {other:?}; use rego"))),
    }
    let (data, remote) = (fields.take("data"), fields.take("remote"));
    let (place, module) = match (data, remote) {
        (Some(data), None) => {
            let module = data.text()?.to_owned();
            (data, module)
        }
        (None, Some(remote)) => {
            let module = vendored(remote.object(remote_object)?, read)?;
            (remote, module)
        }
        (None, None) => return Err(fields.error("expected exactly one of data and remote, found none")),
        (Some(_), Some(_)) => return Err(fields.error("expected exactly one of data and remote, found both")),
    };
    Ok((RegoDocument { module, origin: place.origin() }, fields))
}

/// A module that a policy would have fetched: it must lie beside the policy's file, and be the one that is meant.
fn vendored(mut fields: Fields<'_>, read: ReadFile<'_>) -> Result<String, CipError> {
    let (address, sum) = (fields.required("url")?, fields.required("sha256sum")?);
    let url = address.address()?;
    let name = url::Url::parse(&url).ok().and_then(|url| file_name(&url));
    let name = name.ok_or_else(|| address.error(format!("{url:?} does not end in the name of a file")))?;
    let expected = sum.text()?;
    if expected.len() != 64 || !expected.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(sum.error("is no SHA-256: 64 hexadecimal digits are expected"));
    }
    let instead = format!("it is never fetched; put that file beside the policy as {name:?}");
    let bytes = read(&name).map_err(|why| address.error(format!("{instead}: {why}")))?;
    let found = Digest::sha256(&bytes);
    if !found.hex().eq_ignore_ascii_case(expected) {
        return Err(sum.error(format!("the file {name:?} beside the policy has another one: {}", found.hex())));
    }
    let module = String::from_utf8(bytes).map_err(|_| address.error(format!("the file {name:?} is not UTF-8")))?;
    fields.finish()?;
    Ok(module)
}

/// The last part of an address, when it can be nothing but the name of a file in a folder.
fn file_name(url: &url::Url) -> Option<String> {
    let name = url.path_segments()?.next_back()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (!name.is_empty() && !name.starts_with('.') && name.bytes().all(plain)).then(|| name.to_owned())
}
