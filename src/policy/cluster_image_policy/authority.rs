//! `spec.authorities[]`: whose signatures count, and what else they must come with.

use super::attestation::{self, AttestationDocument};
use super::document::{CipError, Origin};
use super::keys;
use super::reader::{Fields, Value};
use crate::limits::TAG_BYTES_MAX;
use crate::oci::{DockerReference, Repository, Tag};
use crate::policy::ReadFile;
use crate::verify::{IdentityPattern, KeyHash, PublicKey, SctRule, TextPattern};

/// `spec.authorities[]`
#[derive(Debug, Clone)]
pub struct AuthorityDocument {
    /// `name`, else `authority-<index>`.
    pub name: String,
    /// Where.
    pub origin: Origin,
    /// Whose signatures it accepts.
    pub signer: SignerDocument,
    /// `source`
    pub source: Option<SourceDocument>,
    /// `ctlog`
    pub ctlog: Option<CtlogDocument>,
    /// `rfc3161timestamp.trustRootRef`
    pub timestamp_root: Option<String>,
    /// `signatureFormat`
    pub format: SignatureFormat,
    /// `attestations`; when there are any, plain signatures are not looked at.
    pub attestations: Vec<AttestationDocument>,
}

/// `key`, `keyless` or `static`
#[derive(Debug, Clone)]
pub enum SignerDocument {
    /// `key`
    Key {
        /// `key.data`; never empty, and any of them may have signed.
        keys: Vec<PublicKey>,
        /// `key.hashAlgorithm`
        hash: KeyHash,
    },
    /// `keyless`
    Keyless {
        /// `keyless.ca-cert`, PEM.
        ca_cert: Option<Vec<u8>>,
        /// Never empty.
        identities: Vec<IdentityPattern>,
        /// `keyless.trustRootRef`
        trust_root: Option<String>,
        /// `keyless.insecureIgnoreSCT`
        sct: SctRule,
    },
    /// `static`
    Static {
        /// `action`
        action: StaticAction,
        /// `message`
        message: String,
    },
}

/// `static.action`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StaticAction {
    /// Accepts everything.
    Pass,
    /// Refuses everything.
    Fail,
}

/// `source[0]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceDocument {
    /// `oci`
    pub repository: Option<Repository>,
    /// `tagPrefix`
    pub tag_prefix: Option<Tag>,
}

/// `ctlog`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CtlogDocument {
    /// `url`; never contacted.
    pub url: Option<String>,
    /// `trustRootRef`
    pub trust_root: Option<String>,
}

/// `signatureFormat`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignatureFormat {
    /// `legacy`: `.sig` and `.att`.
    Legacy,
    /// `bundle`: sigstore bundles among the referrers.
    Bundle,
}

impl AuthorityDocument {
    pub(super) fn parse(value: &Value<'_>, index: usize, read: ReadFile<'_>) -> Result<Self, CipError> {
        let mut fields = value.object(&keys::AUTHORITY)?;
        let name = match fields.take("name") {
            Some(name) => name.text()?.to_owned(),
            None => format!("authority-{index}"),
        };
        let signer = signer(&mut fields)?;
        if matches!(signer, SignerDocument::Static { .. }) {
            // It looks at no signature, so what says something about signatures is left over and refused.
            let this = Self {
                name,
                origin: fields.origin(),
                signer,
                source: None,
                ctlog: None,
                timestamp_root: None,
                format: SignatureFormat::Legacy,
                attestations: Vec::new(),
            };
            return fields.finish().map(|()| this);
        }
        let source = fields.take("source").map(|source| self::source(&source)).transpose()?;
        let ctlog = fields.take("ctlog").map(|ctlog| self::ctlog(&ctlog)).transpose()?;
        let timestamp_root =
            fields.take("rfc3161timestamp").map(|timestamp| self::timestamp(&timestamp)).transpose()?;
        let format = match fields.take("signatureFormat") {
            Some(format) => {
                format.one_of(&[("legacy", SignatureFormat::Legacy), ("bundle", SignatureFormat::Bundle)])?
            }
            None => SignatureFormat::Legacy,
        };
        let attestations = match fields.take("attestations") {
            Some(attestations) => attestation::all(&attestations, read)?,
            None => Vec::new(),
        };
        let origin = fields.origin();
        fields.finish()?;
        Ok(Self { name, origin, signer, source, ctlog, timestamp_root, format, attestations })
    }
}

fn signer(fields: &mut Fields<'_>) -> Result<SignerDocument, CipError> {
    match (fields.take("key"), fields.take("keyless"), fields.take("static")) {
        (Some(key), None, None) => self::key(&key),
        (None, Some(keyless), None) => self::keyless(&keyless),
        (None, None, Some(fixed)) => self::fixed(&fixed),
        (None, None, None) => Err(fields.error("expected exactly one of key, keyless and static, found none")),
        _ => Err(fields.error("expected exactly one of key, keyless and static, found several")),
    }
}

fn key(value: &Value<'_>) -> Result<SignerDocument, CipError> {
    let mut fields = value.object(&keys::KEY)?;
    let data = fields.take("data").ok_or_else(|| fields.error("expected exactly one key; put its PEM under `data`"))?;
    let keys = PublicKey::all_from_pem(data.text()?.as_bytes()).map_err(|error| data.error(error.to_string()))?;
    let hashes = [("sha256", KeyHash::Sha256), ("sha384", KeyHash::Sha384), ("sha512", KeyHash::Sha512)];
    let hash = match fields.take("hashAlgorithm") {
        Some(hash) => hash.one_of(&hashes)?,
        None => KeyHash::Sha256,
    };
    fields.finish()?;
    Ok(SignerDocument::Key { keys, hash })
}

fn keyless(value: &Value<'_>) -> Result<SignerDocument, CipError> {
    let mut fields = value.object(&keys::KEYLESS)?;
    let (url, ca_cert) = (fields.take("url"), fields.take("ca-cert"));
    if url.is_some() && ca_cert.is_some() {
        return Err(fields.error("expected at most one of url and ca-cert, found both"));
    }
    // The address is where signers get their certificates; a verifier has no business there.
    url.map(|url| url.address()).transpose()?;
    let ca_cert = ca_cert.map(|ca_cert| self::ca_cert(&ca_cert)).transpose()?;
    let missing = "at least one identity must be named, or anybody could sign";
    let identities = fields.take("identities").ok_or_else(|| fields.missing("identities", missing))?;
    let identities = identities.elements()?.iter().map(identity).collect::<Result<_, _>>()?;
    let trust_root = reference(&mut fields)?;
    let sct = match fields.take("insecureIgnoreSCT").map(|ignore| ignore.boolean()).transpose()? {
        Some(true) => SctRule::UnsafeIgnored,
        Some(false) | None => SctRule::Required,
    };
    fields.finish()?;
    Ok(SignerDocument::Keyless { ca_cert, identities, trust_root, sct })
}

fn ca_cert(value: &Value<'_>) -> Result<Vec<u8>, CipError> {
    let mut fields = value.object(&keys::CA_CERT)?;
    let data = fields.required("data")?;
    let pem = data.text()?.as_bytes().to_vec();
    crate::verify::check_authorities(&pem).map_err(|error| data.error(error.to_string()))?;
    fields.finish()?;
    Ok(pem)
}

fn identity(value: &Value<'_>) -> Result<IdentityPattern, CipError> {
    let mut fields = value.object(&keys::IDENTITY)?;
    let issuer = pattern(&mut fields, "issuer", "issuerRegExp")?;
    let subject = pattern(&mut fields, "subject", "subjectRegExp")?;
    fields.finish()?;
    Ok(IdentityPattern { issuer, subject })
}

fn pattern(fields: &mut Fields<'_>, exactly: &str, matching: &str) -> Result<TextPattern, CipError> {
    match (fields.take(exactly), fields.take(matching)) {
        (Some(text), None) => Ok(TextPattern::Exactly(text.text()?.to_owned())),
        (None, Some(pattern)) => TextPattern::matches(pattern.text()?).map_err(|error| {
            pattern.error(format!("is no regular expression: {error}; write it in RE2 syntax, as Go reads it"))
        }),
        (None, None) => Err(fields.missing(exactly, format!("missing; name {exactly} or {matching}"))),
        (Some(_), Some(_)) => {
            Err(fields.error(format!("expected exactly one of {exactly} and {matching}, found both")))
        }
    }
}

fn fixed(value: &Value<'_>) -> Result<SignerDocument, CipError> {
    let mut fields = value.object(&keys::STATIC)?;
    let action = fields.required("action")?.one_of(&[("pass", StaticAction::Pass), ("fail", StaticAction::Fail)])?;
    // With `pass` nobody would ever read a message, so it is left over and refused.
    let message = match action {
        StaticAction::Fail => fields.take("message").map(|message| message.text()).transpose()?.unwrap_or_default(),
        StaticAction::Pass => "",
    };
    let message = message.to_owned();
    fields.finish()?;
    Ok(SignerDocument::Static { action, message })
}

fn source(value: &Value<'_>) -> Result<SourceDocument, CipError> {
    let elements = value.elements()?;
    let [element] = elements.as_slice() else {
        return Err(value.error("only a single source is supported"));
    };
    let mut fields = element.object(&keys::SOURCE)?;
    let repository = fields.take("oci").map(|oci| repository(&oci)).transpose()?;
    let tag_prefix = fields.take("tagPrefix").map(|prefix| tag_prefix(&prefix)).transpose()?;
    if repository.is_none() && tag_prefix.is_none() {
        return Err(fields.error("names no source; give `oci` or `tagPrefix`"));
    }
    fields.finish()?;
    Ok(SourceDocument { repository, tag_prefix })
}

fn repository(value: &Value<'_>) -> Result<Repository, CipError> {
    let text = value.text()?;
    match text.parse::<DockerReference>() {
        Ok(DockerReference { repository, tag: None, digest: None }) => Ok(repository),
        Ok(_) => Err(value.error(format!("{text:?} has a tag or digest; name the repository alone"))),
        Err(error) => Err(value.error(format!("{text:?} is no repository: {error}"))),
    }
}

fn tag_prefix(value: &Value<'_>) -> Result<Tag, CipError> {
    let text = value.text()?;
    let tag = text.parse::<Tag>().map_err(|_| {
        value.error(format!("{text:?} is no start of a tag: A-Z a-z 0-9 _ . - and not starting with . or -"))
    })?;
    let most = TAG_BYTES_MAX.saturating_sub(SIGNATURE_TAG_BYTES);
    if text.len() > most {
        return Err(value.error(format!("is longer than {most} bytes, which leaves no room for a digest behind it")));
    }
    Ok(tag)
}

/// Bytes of `sha256-<64 hexadecimal digits>.sig`.
const SIGNATURE_TAG_BYTES: usize = 75;

fn ctlog(value: &Value<'_>) -> Result<CtlogDocument, CipError> {
    let mut fields = value.object(&keys::CTLOG)?;
    let url = fields.take("url").map(|url| url.address()).transpose()?;
    let trust_root = reference(&mut fields)?;
    fields.finish()?;
    Ok(CtlogDocument { url, trust_root })
}

fn timestamp(value: &Value<'_>) -> Result<String, CipError> {
    let mut fields = value.object(&keys::TIMESTAMP)?;
    let root = fields.required("trustRootRef")?.text()?.to_owned();
    fields.finish()?;
    Ok(root)
}

fn reference(fields: &mut Fields<'_>) -> Result<Option<String>, CipError> {
    fields.take("trustRootRef").map(|reference| reference.text().map(str::to_owned)).transpose()
}
