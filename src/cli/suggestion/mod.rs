//! The policies that ask for exactly the signers that were found.

mod signed;
mod trust;

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

pub(super) use signed::{OpenPgpClaim, Signed};
pub(super) use trust::Trust;

use super::page;
use signed::Fits;

/// What was found on the images of one repository.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) signed: BTreeSet<Signed>,
    pub(super) openpgp: BTreeSet<OpenPgpClaim>,
    /// Below which address the OpenPGP signatures lie.
    pub(super) lookaside: Option<String>,
}

/// The policies.
#[derive(Debug, Default)]
pub(super) struct Suggestion {
    /// Scope by scope.
    docker: BTreeMap<String, Value>,
    policy_notes: Vec<String>,
    /// The registries.d that the scopes need.
    registries_d: String,
    names: BTreeSet<String>,
    cluster_image_policy_notes: Vec<String>,
    /// YAML, one document a repository.
    cluster_image_policies: String,
}

impl Suggestion {
    /// For all that was found, repository by repository.
    pub(super) fn of(found: &BTreeMap<String, Found>, trust: &Trust) -> Self {
        let mut suggestion = Self::default();
        for (repository, found) in found {
            if !found.signed.is_empty() || !found.openpgp.is_empty() {
                suggestion.scope(repository, found, trust);
                suggestion.policy(repository, found);
            }
        }
        suggestion
    }

    /// AND is all that policy.json knows: one signer, or OpenPGP keys of which any is enough.
    fn scope(&mut self, repository: &str, found: &Found, trust: &Trust) {
        let fit: Vec<&Signed> = found.signed.iter().filter(|signed| signed.fits_policy_json()).collect();
        let first = fit.iter().find(|signed| !signed.bundle).or(fit.first()).filter(|_| !trust.logs_pem.is_empty());
        let requirement = match first {
            Some(first) => self.fulcio(repository, first, trust),
            None if !found.openpgp.is_empty() => self.signed_by(repository, found),
            None => {
                self.note(
                    repository,
                    "policy.json cannot ask for these signers; it knows keys, and e-mail addresses whose signatures the log dates; use the ClusterImagePolicy",
                );
                return;
            }
        };
        let asked = if first.is_some() { 1 } else { found.openpgp.len() };
        if found.signed.len().saturating_add(found.openpgp.len()) > asked {
            self.note(
                repository,
                "not every signer is asked for, since policy.json has no `or`: what only the others signed is refused",
            );
        }
        self.docker.insert(repository.to_owned(), json!([requirement]));
    }

    fn fulcio(&mut self, repository: &str, first: &Signed, trust: &Trust) -> Value {
        if first.bundle {
            self.note(
                repository,
                &format!(
                    "bundles name no reference; add [[policy.override]] scope = \"{repository}\", bundles_without_identity = true"
                ),
            );
        }
        let logs: Vec<String> = trust.logs_pem.iter().map(|pem| STANDARD.encode(pem)).collect();
        json!({
            "type": "sigstoreSigned",
            "fulcio": {
                "caData": STANDARD.encode(&trust.authorities_pem),
                "oidcIssuer": first.issuer,
                "subjectEmail": first.subject,
            },
            "rekorPublicKeyDatas": logs,
            "signedIdentity": { "type": "matchRepository" },
        })
    }

    fn signed_by(&mut self, repository: &str, found: &Found) -> Value {
        let keys: BTreeSet<&str> = found.openpgp.iter().map(|claim| claim.key.as_str()).collect();
        let paths: Vec<String> = keys.iter().map(|key| format!("keys/{key}.gpg")).collect();
        for (key, path) in keys.iter().zip(&paths) {
            let text = format!(
                "get the public key {key} from whoever publishes the image, compare its whole fingerprint, and put it at {path}, seen from the configuration"
            );
            self.note(repository, &text);
        }
        if let Some(base) = &found.lookaside {
            if self.registries_d.is_empty() {
                self.registries_d.push_str("docker:\n");
            }
            push(&mut self.registries_d, &format!("  {}:\n    lookaside: {}\n", quoted(repository), quoted(base)));
        }
        let mut requirement = json!({ "type": "signedBy", "keyType": "GPGKeys" });
        match paths.as_slice() {
            [only] => set(&mut requirement, "keyPath", json!(only)),
            several => set(&mut requirement, "keyPaths", json!(several)),
        }
        if let Some(identity) = self.identity(repository, &found.openpgp) {
            set(&mut requirement, "signedIdentity", identity);
        }
        requirement
    }

    /// What the signatures say they are for; none: the default, the very reference.
    fn identity(&mut self, repository: &str, claims: &BTreeSet<OpenPgpClaim>) -> Option<Value> {
        let others: BTreeSet<&str> = claims
            .iter()
            .filter_map(|claim| match &claim.fits {
                Fits::OtherRepository(other) => Some(other.as_str()),
                Fits::Exactly | Fits::Repository | Fits::Unreadable => None,
            })
            .collect();
        let is_all_here = others.is_empty();
        match others.first() {
            Some(other)
                if others.len() == 1 && claims.iter().all(|claim| matches!(claim.fits, Fits::OtherRepository(_))) =>
            {
                let text = format!("the signatures are for {other}; make sure that this is where the image comes from");
                self.note(repository, &text);
                Some(json!({ "type": "exactRepository", "dockerRepository": other }))
            }
            None if is_all_here && claims.iter().all(|claim| claim.fits == Fits::Exactly) => None,
            _ => Some(json!({ "type": "matchRepository" })),
        }
    }

    /// An authority for each signer: any of them is enough.
    fn policy(&mut self, repository: &str, found: &Found) {
        if !found.openpgp.is_empty() {
            let note = format!("{repository}: no ClusterImagePolicy can ask for OpenPGP signatures; use policy.json");
            self.cluster_image_policy_notes.push(note);
        }
        if found.signed.is_empty() {
            return;
        }
        let name = self.name(repository);
        let mut yaml = format!(
            "---\napiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata:\n  name: {}\nspec:\n  images:\n",
            quoted(&name)
        );
        for glob in [format!("{repository}:*"), format!("{repository}@*")] {
            push(&mut yaml, &format!("  - glob: {}\n", quoted(&glob)));
        }
        yaml.push_str("  # Any of these authorities is enough; delete those whom you do not mean.\n  authorities:\n");
        for (number, signed) in found.signed.iter().enumerate() {
            let format = if signed.bundle { "bundle" } else { "legacy" };
            push(&mut yaml, &format!("  - name: signer-{number}\n    signatureFormat: {format}\n    keyless:\n"));
            push(&mut yaml, &format!("      identities:\n      - issuer: {}\n", quoted(&signed.issuer)));
            push(&mut yaml, &format!("        subject: {}\n", quoted(&signed.subject)));
            if let Some(predicate_type) = &signed.predicate_type {
                push(
                    &mut yaml,
                    &format!(
                        "    attestations:\n    - name: attestation-{number}\n      predicateType: {}\n",
                        quoted(predicate_type)
                    ),
                );
            }
        }
        self.cluster_image_policies.push_str(&yaml);
    }

    /// A name that no other policy has: several repositories may come to one.
    fn name(&mut self, repository: &str) -> String {
        let letters = repository.chars().map(|char| if char.is_ascii_alphanumeric() { char } else { '-' });
        let base: String = letters.take(NAME_CHARS_MAX).collect::<String>().to_ascii_lowercase();
        let base = base.trim_end_matches('-');
        let numbered = (2_usize..).map(|number| format!("{base}-{number}"));
        let mut names = std::iter::once(base.to_owned()).chain(numbered);
        let name = names.find(|name| !self.names.contains(name)).unwrap_or_default();
        self.names.insert(name.clone());
        name
    }

    fn note(&mut self, repository: &str, text: &str) {
        self.policy_notes.push(format!("{repository}: {text}"));
    }

    fn policy_json(&self) -> Option<Value> {
        let transports = json!({ "docker": self.docker });
        (!self.docker.is_empty()).then(|| json!({ "default": [{ "type": "reject" }], "transports": transports }))
    }

    /// For programs, with what was found image by image.
    pub(super) fn json(&self, images: &[Value]) -> Value {
        json!({
            "images": images,
            "policy_json": self.policy_json(),
            "policy_json_notes": self.policy_notes,
            "registries_d": self.registries_d,
            "cluster_image_policies": self.cluster_image_policies,
            "cluster_image_policy_notes": self.cluster_image_policy_notes,
        })
    }

    /// For people, after what was found.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let policy = self.policy_json();
        if policy.is_some() || !self.policy_notes.is_empty() {
            text.push('\n');
            comment(&mut text, "policy.json (policy.containers_policy); every other image is rejected by its default");
            self.policy_notes.iter().for_each(|note| comment(&mut text, note));
        }
        if let Some(policy) = policy {
            push(&mut text, &format!("{policy:#}\n"));
        }
        if !self.registries_d.is_empty() {
            text.push('\n');
            comment(&mut text, "a .yaml file in the directory policy.registries_d, which OpenPGP signatures need");
            text.push_str(&self.registries_d);
        }
        if !self.cluster_image_policies.is_empty() || !self.cluster_image_policy_notes.is_empty() {
            text.push('\n');
            comment(&mut text, "ClusterImagePolicy (policy.cluster_image_policies)");
            self.cluster_image_policy_notes.iter().for_each(|note| comment(&mut text, note));
            text.push_str(&self.cluster_image_policies);
        }
        text
    }
}

/// Adds a line that no reader of a policy looks at; indented ones stay so.
pub(super) fn comment(text: &mut String, line: &str) {
    let indent = line.len().saturating_sub(line.trim_start().len());
    let first = format!("# {}", " ".repeat(indent));
    push(text, &page::wrapped(&first, &format!("{first}  "), line));
}

fn push(text: &mut String, more: &str) {
    text.push_str(more);
}

fn set(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(fields) = object {
        fields.insert(key.to_owned(), value);
    }
}

/// As a double-quoted scalar of YAML, which takes JSON's strings as they are.
fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

/// Kubernetes takes 253, and a number may follow.
const NAME_CHARS_MAX: usize = 240;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::PolicyFile;

    fn found(subject: &str) -> Found {
        let signed = Signed {
            issuer: "https://issuer.example".to_owned(),
            subject: subject.to_owned(),
            predicate_type: None,
            bundle: false,
            timed_by_log: true,
        };
        Found { signed: [signed].into(), ..Found::default() }
    }

    /// A file with two policies of one name does not load, so each needs its own, whatever the repositories are called.
    #[test]
    fn no_two_policies_have_one_name() {
        let long = format!("a.b/{}", "x".repeat(250));
        let longer = format!("a.b/{}/y", "x".repeat(250));
        let repositories = ["a.b/c", "a.b/c-2", "a.b/c.2", "a.b/c_2", "a-b/c", "a.b:80/c", "a.b/80/c", &long, &longer];
        for order in [repositories.to_vec(), repositories.iter().rev().copied().collect()] {
            let mut suggestion = Suggestion::default();
            for repository in order {
                suggestion.policy(repository, &found("dev@example.com"));
            }
            assert_eq!(suggestion.names.len(), repositories.len());
            let yaml = suggestion.cluster_image_policies.as_bytes();
            let file = PolicyFile::parse("p.yaml", yaml, &mut |_| Err("no files".to_owned())).unwrap();
            let names: BTreeSet<&str> = file.policies.iter().map(|policy| policy.name.as_str()).collect();
            assert_eq!(names.len(), repositories.len());
            assert!(names.iter().all(|name| name.len() <= 253 && !name.ends_with('-')), "{names:?}");
        }
    }

    #[test]
    fn what_policy_json_cannot_ask_for_is_left_to_the_other_format() {
        let trust = |logs_pem: &[&str]| Trust {
            authorities_pem: "a".to_owned(),
            logs_pem: logs_pem.iter().map(|&pem| pem.to_owned()).collect(),
        };
        let suggest = |found: Found, trust: &Trust| {
            let found = BTreeMap::from([("quay.io/a".to_owned(), found)]);
            Suggestion::of(&found, trust).policy_json()
        };
        let timestamped = {
            let mut found = found("dev@example.com");
            found.signed = found.signed.into_iter().map(|signed| Signed { timed_by_log: false, ..signed }).collect();
            found
        };
        assert!(suggest(found("dev@example.com"), &trust(&["k"])).is_some());
        assert_eq!(suggest(timestamped, &trust(&["k"])), None, "no timestamp authority can be named");
        assert_eq!(suggest(found("dev@example.com"), &trust(&[])), None, "a fulcio requirement needs a log's key");
        assert_eq!(suggest(found("https://github.com/a/b/.github/workflows/x.yml@y"), &trust(&["k"])), None);
    }
}
