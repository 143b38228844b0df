//! `[policy]`: from the document to a [`PolicySet`] with its key files read in.

use std::path::{Path, PathBuf};

use super::checked::BuiltIn;
use super::document;
use super::error::{ConfigError, Place, Source};
use super::files::{Files, ReadError, Secrecy};
use super::{BUILT_IN_CONFIG_NAME, BUILT_IN_POLICY, UpstreamConfig, patterns};
use crate::policy::{
    BundlesWithoutIdentity, CipError, ClusterImagePolicies, ContainersPolicy, ContainersPolicyDocument, Exemption,
    Mode, MultiArch, NoMatch, Override, PolicyError, PolicyFile, PolicySet, RegistriesD, Scope, Settings,
};
use crate::trust::TrustRoot;
use crate::verify::SigstoreRoot;

/// A policy that can be asked.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) policy: PolicySet,
    /// Where it came from, for people.
    pub(super) origin: String,
}

/// Reads the policy and every file that it names.
pub(super) fn load(
    source: &Source,
    files: &mut Files,
    policy: &document::Policy,
    trust_root: &TrustRoot,
    built_in: BuiltIn,
) -> Result<Loaded, ConfigError> {
    let root = trust_root.sigstore_root();
    let containers_policy = containers_policy(source, files, policy, built_in)?;
    let (origin, containers_policy) = containers_policy.unzip();
    let settings = Settings {
        containers_policy,
        cluster_image_policies: cluster_image_policies(source, files, policy, root)?,
        no_match: no_match(source, policy)?,
        trust_root: Some(root.clone()),
        mode: mode(policy.mode),
        multi_arch: multi_arch(policy.multi_arch),
        overrides: overrides(source, &policy.overrides)?,
        exemptions: exemptions(source, &policy.exemptions)?,
        registries_d: registries_d(source, files, &policy.registries_d)?,
    };
    let patterns = &policy.cluster_image_policies;
    let policy = PolicySet::new(settings).map_err(|error| {
        let key = match &error {
            PolicyError::NotConfigured => "policy.containers_policy".to_owned(),
            PolicyError::OverrideTwice { index, .. } => format!("policy.override[{index}].scope"),
            PolicyError::ExemptionIncomplete { index, key } => format!("policy.exemption[{index}].{key}"),
        };
        source.at(&key, error, "")
    })?;
    let origins = origin.map(|origin| origin.display().to_string()).into_iter();
    let origin = origins.chain(patterns.iter().cloned()).collect::<Vec<_>>().join(", ");
    Ok(Loaded { policy, origin })
}

fn containers_policy(
    source: &Source,
    files: &mut Files,
    policy: &document::Policy,
    built_in: BuiltIn,
) -> Result<Option<(PathBuf, ContainersPolicy)>, ConfigError> {
    let key = "policy.containers_policy";
    let path = policy.containers_policy.as_path();
    if path.as_os_str().is_empty() {
        if !policy.cluster_image_policies.is_empty() {
            return Ok(None);
        }
        let hint = "name a containers-policy.json(5), such as \"policy.json\", or ClusterImagePolicy files in \
                    policy.cluster_image_policies; without a policy nothing can be decided";
        return Err(source.at(key, "no policy is configured", hint));
    }
    let (origin, bytes) = match built_in {
        BuiltIn::Yes => (PathBuf::from(BUILT_IN_CONFIG_NAME).join(path), BUILT_IN_POLICY.as_bytes().to_vec()),
        BuiltIn::No => {
            let bytes = files.read(key, path, Secrecy::Public).map_err(|error| source.at(key, error, ""))?;
            (files.path(path), bytes)
        }
    };
    let wrong = |problem: String| ConfigError {
        file: origin.clone(),
        place: None,
        key: String::new(),
        problem,
        hint: String::new(),
    };
    let document = ContainersPolicyDocument::parse(&bytes).map_err(|error| wrong(error.to_string()))?;
    // Key files are relative to the policy that names them.
    let directory = path.parent().unwrap_or(Path::new("")).to_owned();
    let mut read = |name: &str| {
        let read = files.read("policy.containers_policy", &directory.join(name), Secrecy::Public);
        read.map_err(|ReadError { why, .. }| why)
    };
    let resolved = ContainersPolicy::resolve(document, &mut read).map_err(|error| wrong(error.to_string()))?;
    Ok(Some((origin, resolved)))
}

/// Reads every file that is named, each once, and what it names beside itself.
fn cluster_image_policies(
    source: &Source,
    files: &mut Files,
    policy: &document::Policy,
    root: &SigstoreRoot,
) -> Result<Option<ClusterImagePolicies>, ConfigError> {
    if policy.cluster_image_policies.is_empty() {
        return Ok(None);
    }
    let mut paths: Vec<(String, PathBuf)> = Vec::new();
    for (index, pattern) in policy.cluster_image_policies.iter().enumerate() {
        let key = format!("policy.cluster_image_policies[{index}]");
        let found =
            patterns::expand(files, pattern).map_err(|error| source.at(&key, error, "name files that exist"))?;
        for path in found {
            if !paths.iter().any(|(_, other)| *other == path) {
                paths.push((key.clone(), path));
            }
        }
    }
    let mut parsed = Vec::new();
    for (key, path) in &paths {
        let bytes = files.read(key, path, Secrecy::Public).map_err(|error| source.at(key, error, ""))?;
        let directory = path.parent().unwrap_or(Path::new("")).to_owned();
        let name = files.path(path).display().to_string();
        let mut read = |name: &str| {
            let read = files.read(key, &directory.join(name), Secrecy::Public);
            read.map_err(|ReadError { why, .. }| why)
        };
        parsed.push(PolicyFile::parse(&name, &bytes, &mut read).map_err(wrong_document)?);
    }
    let policies = ClusterImagePolicies::resolve(parsed, root).map_err(wrong_document)?;
    if policies.is_empty() {
        let problem = "the files hold trust roots and no ClusterImagePolicy";
        return Err(source.at("policy.cluster_image_policies", problem, "add a policy, or remove the key"));
    }
    Ok(Some(policies))
}

fn wrong_document(error: CipError) -> ConfigError {
    let CipError { origin, field, problem } = error;
    let place = Some(Place { line: origin.line, column: 1 });
    ConfigError { file: origin.file.into(), place, key: field, problem, hint: String::new() }
}

fn no_match(source: &Source, policy: &document::Policy) -> Result<NoMatch, ConfigError> {
    let no_match = match policy.no_match {
        document::NoMatch::Deny => NoMatch::Deny,
        document::NoMatch::Allow => NoMatch::Allow,
        document::NoMatch::Warn => NoMatch::Warn,
    };
    if no_match != NoMatch::Deny && policy.cluster_image_policies.is_empty() {
        let problem = "there is no ClusterImagePolicy that an image could fail to match";
        return Err(source.at("policy.no_match", problem, "set policy.cluster_image_policies, or remove the key"));
    }
    Ok(no_match)
}

/// Signatures are looked for at configured upstreams only.
pub(super) fn check_sources(policy: &PolicySet, upstreams: &[UpstreamConfig]) -> Result<(), ConfigError> {
    for (origin, repository) in policy.signature_sources() {
        if !upstreams.iter().any(|upstream| upstream.host() == repository.host()) {
            let host = repository.host();
            let problem = format!(
                "{repository} lies on {host}, which is no configured upstream; add an [[upstream]] whose host is {host}"
            );
            let field = "source[0].oci".to_owned();
            return Err(wrong_document(CipError { origin: origin.clone(), field, problem }));
        }
    }
    Ok(())
}

/// Keys that do nothing as the others are.
pub(super) fn idle_keys(policy: &document::Policy, warnings: &mut Vec<String>) {
    if policy.no_match != document::NoMatch::Deny && !policy.containers_policy.as_os_str().is_empty() {
        warnings.push(
            "policy.no_match has no effect beside policy.containers_policy, whose default decides about images that no \
             ClusterImagePolicy matches"
                .to_owned(),
        );
    }
}

fn registries_d(source: &Source, files: &mut Files, directory: &Path) -> Result<RegistriesD, ConfigError> {
    let key = "policy.registries_d";
    if directory.as_os_str().is_empty() {
        return Ok(RegistriesD::default());
    }
    let hint = "name a directory as containers-registries.d(5) describes it; its files *.yaml are read";
    let read = files.read_directory(key, directory, ".yaml").map_err(|error| source.at(key, error, hint))?;
    let named: Vec<(String, Vec<u8>)> =
        read.into_iter().map(|(path, bytes)| (path.display().to_string(), bytes)).collect();
    RegistriesD::parse(&named).map_err(|error| ConfigError {
        file: PathBuf::from(&error.file),
        place: Some(Place { line: error.line, column: 1 }),
        key: String::new(),
        problem: error.problem,
        hint: String::new(),
    })
}

fn overrides(source: &Source, documents: &[document::Override]) -> Result<Vec<Override>, ConfigError> {
    let checked = documents.iter().enumerate().map(|(index, document)| {
        let scope = scope(source, &format!("policy.override[{index}].scope"), &document.scope)?;
        let bundles = document.bundles_without_identity.map(|accepted| {
            if accepted { BundlesWithoutIdentity::DigestIsEnough } else { BundlesWithoutIdentity::Refused }
        });
        Ok(Override {
            mode: document.mode.map(mode),
            multi_arch: document.multi_arch.map(multi_arch),
            bundles_without_identity: bundles,
            max_image_bytes: document.max_image_bytes.map(|size| size.0),
            ..Override::of(scope)
        })
    });
    checked.collect()
}

fn exemptions(source: &Source, documents: &[document::Exemption]) -> Result<Vec<Exemption>, ConfigError> {
    let checked = documents.iter().enumerate().map(|(index, document)| {
        let key = |name: &str| format!("policy.exemption[{index}].{name}");
        let expires = document.expires.parse().map_err(|error| {
            source.at(&key("expires"), format!("\"{}\" is {error}", document.expires), "an exemption must have an end")
        })?;
        Ok(Exemption {
            scope: scope(source, &key("scope"), &document.scope)?,
            reason: document.reason.clone(),
            owner: document.owner.clone(),
            expires,
        })
    });
    checked.collect()
}

fn scope(source: &Source, key: &str, text: &str) -> Result<Scope, ConfigError> {
    text.parse().map_err(|error| source.at(key, error, ""))
}

fn mode(mode: document::Mode) -> Mode {
    match mode {
        document::Mode::Enforce => Mode::Enforce,
        document::Mode::Audit => Mode::Audit,
    }
}

fn multi_arch(multi_arch: document::MultiArch) -> MultiArch {
    match multi_arch {
        document::MultiArch::IndexOrEveryLeaf => MultiArch::IndexOrEveryLeaf,
        document::MultiArch::IndexOrAnyLeaf => MultiArch::IndexOrAnyLeaf,
        document::MultiArch::LeafOnly => MultiArch::LeafOnly,
    }
}
