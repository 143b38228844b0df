//! `[policy]`: from the document to a [`PolicySet`] with its key files read in.

use std::path::{Path, PathBuf};

use super::checked::BuiltIn;
use super::document;
use super::error::{ConfigError, Source};
use super::files::{Files, ReadError, Secrecy};
use super::{BUILT_IN_CONFIG_NAME, BUILT_IN_POLICY};
use crate::policy::{
    BundlesWithoutIdentity, ContainersPolicy, ContainersPolicyDocument, Exemption, Mode, MultiArch, Override,
    PolicyError, PolicySet, Scope, Settings,
};

/// A policy that can be asked.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) policy: PolicySet,
    /// Where it came from, for people.
    pub(super) origin: PathBuf,
}

/// Reads the policy and every file that it names.
pub(super) fn load(
    source: &Source,
    files: &mut Files,
    policy: &document::Policy,
    built_in: BuiltIn,
) -> Result<Loaded, ConfigError> {
    let (origin, containers_policy) = containers_policy(source, files, policy, built_in)?;
    let settings = Settings {
        containers_policy: Some(containers_policy),
        mode: mode(policy.mode),
        multi_arch: multi_arch(policy.multi_arch),
        overrides: overrides(source, &policy.overrides)?,
        exemptions: exemptions(source, &policy.exemptions)?,
        ..Settings::default()
    };
    let policy = PolicySet::new(settings).map_err(|error| {
        let key = match &error {
            PolicyError::NotConfigured => "policy.containers_policy".to_owned(),
            PolicyError::OverrideTwice { index, .. } => format!("policy.override[{index}].scope"),
            PolicyError::ExemptionIncomplete { index, key } => format!("policy.exemption[{index}].{key}"),
        };
        source.at(&key, error, "")
    })?;
    Ok(Loaded { policy, origin })
}

fn containers_policy(
    source: &Source,
    files: &mut Files,
    policy: &document::Policy,
    built_in: BuiltIn,
) -> Result<(PathBuf, ContainersPolicy), ConfigError> {
    let key = "policy.containers_policy";
    let path = policy.containers_policy.as_path();
    if path.as_os_str().is_empty() {
        let hint = "name a containers-policy.json(5), such as \"policy.json\"; without a policy nothing can be decided";
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
    Ok((origin, resolved))
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
