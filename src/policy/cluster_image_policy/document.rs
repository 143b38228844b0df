//! The documents of a file, checked: what is not supported is an error that names file, line and field.

use std::collections::HashSet;
use std::fmt;

use super::attestation::{PolicyKind, RegoDocument, rego};
use super::authority::AuthorityDocument;
use super::glob::Glob;
use super::keys;
use super::reader::{Fields, Value};
use super::trust_root::TrustRootDocument;
use crate::policy::ReadFile;
use crate::policy::yaml::{self, Node};

/// The documents of one file.
#[derive(Debug, Clone, Default)]
pub struct PolicyFile {
    /// Its policies, in their order.
    pub policies: Vec<ClusterImagePolicyDocument>,
    /// Its trust roots, in their order.
    pub trust_roots: Vec<TrustRootDocument>,
}

impl PolicyFile {
    /// Reads a YAML (or JSON) file of one or more documents.
    ///
    /// `read` gives the content of a file that lies beside this one: a module that a `policy.remote` names is never
    /// fetched, but may lie there under the last part of its address.
    ///
    /// # Errors
    /// [`CipError`] for the first thing that is wrong, unknown or not supported; nothing is ever ignored.
    pub fn parse(file: &str, bytes: &[u8], read: ReadFile<'_>) -> Result<Self, CipError> {
        let documents = yaml::read(bytes).map_err(|error| CipError {
            origin: Origin { file: file.to_owned(), line: error.line },
            field: "the file".to_owned(),
            problem: error.problem,
        })?;
        let mut parsed = Self::default();
        // `---` at the start or the end of a file makes a document of nothing.
        for document in documents.iter().filter(|document| document.value != yaml::Value::Null) {
            parsed.document(&Value::document(file, document), document, &mut *read)?;
        }
        if parsed.policies.is_empty() && parsed.trust_roots.is_empty() {
            let origin = Origin { file: file.to_owned(), line: 1 };
            let problem = "holds no ClusterImagePolicy and no TrustRoot".to_owned();
            return Err(CipError { origin, field: "the file".to_owned(), problem });
        }
        Ok(parsed)
    }

    fn document(&mut self, value: &Value<'_>, node: &Node, read: ReadFile<'_>) -> Result<(), CipError> {
        // The kind decides which keys are known, so it is looked at first.
        let kind = node.as_mapping().ok().and_then(|members| members.iter().find(|member| member.key == "kind"));
        match kind.and_then(|kind| kind.value.as_str().ok()) {
            Some("ClusterImagePolicy") => {
                let fields = value.object(&keys::POLICY)?;
                let policy = ClusterImagePolicyDocument::parse(fields, read)?;
                if self.policies.iter().any(|other| other.name == policy.name) {
                    return Err(twice(policy.origin, &policy.name));
                }
                self.policies.push(policy);
            }
            Some("TrustRoot") => {
                let root = TrustRootDocument::parse(value.object(&keys::TRUST_ROOT)?)?;
                if self.trust_roots.iter().any(|other| other.name == root.name) {
                    return Err(twice(root.origin, &root.name));
                }
                self.trust_roots.push(root);
            }
            Some(other) => {
                let place = kind.map_or_else(|| value.clone(), |kind| value.under(kind));
                let problem = format!("{other:?} is not read; only ClusterImagePolicy and TrustRoot are");
                return Err(place.error(problem));
            }
            None => return Err(value.error("has no kind; ClusterImagePolicy or TrustRoot is expected")),
        }
        Ok(())
    }
}

fn twice(origin: Origin, name: &str) -> CipError {
    let problem = format!("{name:?} comes twice in this file; give each document a name of its own");
    CipError { origin, field: "metadata.name".to_owned(), problem }
}

/// A document cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {field}: {problem}")]
pub struct CipError {
    /// Where.
    pub origin: Origin,
    /// The field, such as `spec.authorities[0].key.kms`.
    pub field: String,
    /// What is wrong, and what to do instead.
    pub problem: String,
}

/// A line of a file, both for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file as it was named.
    pub file: String,
    /// Its line, from 1.
    pub line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.file, self.line)
    }
}

/// One ClusterImagePolicy.
#[derive(Debug, Clone)]
pub struct ClusterImagePolicyDocument {
    /// `metadata.name`
    pub name: String,
    /// Where it begins.
    pub origin: Origin,
    /// `spec.images`, never empty.
    pub images: Vec<Glob>,
    /// `spec.mode`
    pub mode: CipMode,
    /// `spec.authorities`, never empty.
    pub authorities: Vec<AuthorityDocument>,
    /// `spec.policy`
    pub policy: Option<RegoDocument>,
    /// `spec.policy.fetchConfigFile`
    pub fetch_config_file: bool,
}

/// `spec.mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CipMode {
    /// A failure refuses.
    Enforce,
    /// A failure is a warning.
    Warn,
}

impl ClusterImagePolicyDocument {
    fn parse(mut fields: Fields<'_>, read: ReadFile<'_>) -> Result<Self, CipError> {
        let origin = fields.origin();
        let (name, spec) = head(&mut fields, &["policy.sigstore.dev/v1alpha1", "policy.sigstore.dev/v1beta1"])?;
        let mut spec = spec.object(&keys::SPEC)?;
        let images = spec.required("images")?.elements()?.iter().map(image).collect::<Result<_, _>>()?;
        let mode = match spec.take("mode") {
            Some(mode) => mode.one_of(&[("enforce", CipMode::Enforce), ("warn", CipMode::Warn)])?,
            None => CipMode::Enforce,
        };
        let authorities = authorities(&mut spec, &mut *read)?;
        let (policy, fetch_config_file) = match spec.take("policy") {
            Some(policy) => {
                let (rego, mut rest) = rego(&policy, PolicyKind::Spec, read)?;
                let fetch = rest.take("fetchConfigFile").map(|fetch| fetch.boolean()).transpose()?;
                rest.finish()?;
                (Some(rego), fetch.unwrap_or(false))
            }
            None => (None, false),
        };
        spec.finish()?;
        fields.finish()?;
        Ok(Self { name, origin, images, mode, authorities, policy, fetch_config_file })
    }
}

/// What every document begins with: its version, which must be one of those, its name, and where its `spec` is.
pub(super) fn head<'n>(fields: &mut Fields<'n>, versions: &[&str]) -> Result<(String, Value<'n>), CipError> {
    let version = fields.required("apiVersion")?;
    let text = version.text()?;
    if !versions.contains(&text) {
        return Err(version.error(format!("unsupported value {text:?}; use {}", versions.join(" or "))));
    }
    // `kind` was looked at before; what else a cluster writes beside it says nothing about images.
    fields.required("kind")?;
    if let Some(status) = fields.take("status") {
        status.free_form()?;
    }
    let metadata = fields.required("metadata")?;
    let name = metadata.free_form()?.iter().find(|member| member.key == "name");
    let name =
        name.ok_or_else(|| metadata.error("name is missing; findings and verdicts speak of a policy by name"))?;
    let name = metadata.under(name).text()?.to_owned();
    Ok((name, fields.required("spec")?))
}

fn image(value: &Value<'_>) -> Result<Glob, CipError> {
    let mut fields = value.object(&keys::IMAGE)?;
    let glob = Glob::parse(&fields.required("glob")?)?;
    fields.finish()?;
    Ok(glob)
}

/// A policy without authorities would ask for nothing, so there is none: not even where policy-controller is told that it
/// may be so (`fail-on-empty-authorities: "false"`).
fn authorities(spec: &mut Fields<'_>, read: ReadFile<'_>) -> Result<Vec<AuthorityDocument>, CipError> {
    let why = "at least one authority must be named; to admit unsigned images say so: `static: {action: pass}`";
    let listed = spec.take("authorities").ok_or_else(|| spec.missing("authorities", why))?;
    let mut authorities = Vec::new();
    let mut names = HashSet::new();
    for (index, value) in listed
        .elements()
        .map_err(|error| CipError { problem: format!("{}: {why}", error.problem), ..error })?
        .iter()
        .enumerate()
    {
        let authority = AuthorityDocument::parse(value, index, &mut *read)?;
        if !names.insert(authority.name.clone()) {
            let problem = format!("the name {:?} comes twice; a policy could not tell the two apart", authority.name);
            return Err(value.error(problem));
        }
        authorities.push(authority);
    }
    Ok(authorities)
}
