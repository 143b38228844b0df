//! Traps of the format: what loads and does not mean what it seems to mean.

use std::fmt::Write as _;

use super::attestation::AttestationDocument;
use super::authority::{AuthorityDocument, SignatureFormat, SignerDocument, StaticAction};
use super::document::{CipMode, ClusterImagePolicyDocument, Origin};
use super::glob::Glob;
use super::shape::Shape;
use crate::policy::lint::{Finding, Severity};
use crate::verify::{IdentityPattern, SctRule, TextPattern};

/// What deserves a look in these policies, each by itself and all together. Places are `file:line: field`.
pub(in crate::policy) fn lint<'p>(
    policies: impl Iterator<Item = &'p ClusterImagePolicyDocument> + Clone,
) -> Vec<Finding> {
    policies.clone().flat_map(ClusterImagePolicyDocument::lint).chain(overlaps(policies)).collect()
}

/// Pairs of policies that name the same images. Both must be satisfied, which is often meant as "either".
fn overlaps<'p>(policies: impl Iterator<Item = &'p ClusterImagePolicyDocument>) -> Vec<Finding> {
    let policies: Vec<_> = policies.filter(|policy| policy.mode == CipMode::Enforce).collect();
    let mut findings = Vec::new();
    for (index, policy) in policies.iter().enumerate() {
        for other in policies.iter().skip(index + 1) {
            let same = other.images.iter().find(|glob| policy.images.iter().any(|theirs| theirs.text == glob.text));
            if let Some(glob) = same {
                let text = format!(
                    "{} and {} ({}) are both about {}, so both must be satisfied; where either is enough, make them \
                     authorities of one policy",
                    other.name, policy.name, policy.origin, glob.text
                );
                findings.push(finding(Severity::Warning, &glob.origin, "spec.images", text));
            }
        }
    }
    findings
}

impl ClusterImagePolicyDocument {
    /// What deserves a look in this policy alone.
    pub fn lint(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.mode == CipMode::Warn {
            let text = format!("{} refuses nothing: what it would refuse is served with a warning", self.name);
            findings.push(finding(Severity::Note, &self.origin, "spec.mode", text));
        }
        for glob in &self.images {
            findings.extend(self::glob(glob, &self.images));
        }
        for authority in &self.authorities {
            findings.extend(authority.lint(self.authorities.len()));
        }
        findings
    }
}

fn glob(glob: &Glob, all: &[Glob]) -> Option<Finding> {
    let say = |severity, text: String| Some(finding(severity, &glob.origin, "spec.images[].glob", text));
    let (tags, digests) = (glob.can_match(Shape::Tag), glob.can_match(Shape::Digest));
    if !tags && !digests {
        return say(Severity::Error, format!("{:?} matches no image: no reference is written so", glob.text));
    }
    let hub = ["docker.io/", "index.docker.io/"].iter().find_map(|host| glob.text.strip_prefix(host));
    if let Some(path) = hub.filter(|path| !path.contains('/') && !path.contains("**")) {
        let text = format!("{:?} matches no image: on Docker Hub it is called library/{path}", glob.text);
        return say(Severity::Error, text);
    }
    let repository = repository(&glob.text);
    let covered =
        |other: &&Glob| other.can_match(Shape::Digest) && self::repository(&other.text).starts_with(repository);
    if !digests && !all.iter().any(|other| covered(&other) || is_wider(other, repository)) {
        let text = format!(
            "{:?} matches no image that is pulled by digest, as Kubernetes and lock files do; `{repository}**` matches all \
             of its images, `{repository}@*` its digests",
            glob.text
        );
        return say(Severity::Warning, text);
    }
    None
}

/// A glob's text up to where tag, digest or wildcard begin.
fn repository(text: &str) -> &str {
    let path = text.rfind('/').map_or(0, |slash| slash + 1);
    let end = text.char_indices().find(|(at, char)| *char == '*' || (*at >= path && matches!(char, ':' | '@')));
    end.and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

/// Whether another glob takes in every digest of that repository.
fn is_wider(other: &Glob, repository: &str) -> bool {
    other.text.ends_with("**") && repository.starts_with(self::repository(&other.text))
}

impl AuthorityDocument {
    fn lint(&self, of: usize) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut say = |severity: Severity, field: &str, text: String| {
            findings.push(finding(severity, &self.origin, &format!("authority {}: {field}", self.name), text));
        };
        match &self.signer {
            SignerDocument::Static { action: StaticAction::Pass, .. } => {
                let mut text = "admits every image that the policy covers, signed or not".to_owned();
                if of > 1 {
                    text += "; the other authorities change nothing, since one is enough";
                }
                say(Severity::Warning, "static", text);
            }
            SignerDocument::Static { action: StaticAction::Fail, .. } | SignerDocument::Key { .. } => {}
            SignerDocument::Keyless { identities, sct, trust_root, ca_cert } => {
                for (index, identity) in identities.iter().enumerate() {
                    self::identity(index, identity, &mut say);
                }
                if *sct == SctRule::UnsafeIgnored {
                    let text =
                        "certificates count that were never logged, so that nobody can notice one issued in error";
                    say(Severity::Warning, "keyless.insecureIgnoreSCT", text.to_owned());
                }
                if self.ctlog.is_none() {
                    let mut text =
                        "no ctlog is named; an entry in a log of the trust root is asked for all the same".to_owned();
                    if trust_root.is_some() || ca_cert.is_some() {
                        text += ", so that the root needs one";
                    }
                    say(Severity::Note, "ctlog", text);
                }
            }
        }
        if let Some(ctlog) = &self.ctlog
            && let (Some(url), None) = (&ctlog.url, &ctlog.trust_root)
            && url.trim_end_matches('/') != PUBLIC_LOG
        {
            let text = format!(
                "{url} is never asked; its key counts only when the trust root holds it, or name a trustRootRef"
            );
            say(Severity::Warning, "ctlog.url", text);
        }
        if self.attestations.len() > 1 {
            let text = format!(
                "all {} attestations must be there; where one is enough, list authorities with one each",
                self.attestations.len()
            );
            say(Severity::Note, "attestations", text);
        }
        if self.format == SignatureFormat::Legacy {
            let is_static = matches!(self.signer, SignerDocument::Static { .. });
            if !is_static {
                let text = "legacy is what cosign wrote before version 3; what it writes by default since then counts only \
                            with `signatureFormat: bundle`";
                say(Severity::Note, "signatureFormat", text.to_owned());
            }
        }
        findings.extend(self.attestations.iter().filter_map(AttestationDocument::lint));
        findings
    }
}

fn identity(index: usize, identity: &IdentityPattern, say: &mut impl FnMut(Severity, &str, String)) {
    for (key, pattern) in [("issuer", &identity.issuer), ("subject", &identity.subject)] {
        if matches!(pattern, TextPattern::Exactly(_)) {
            continue;
        }
        let field = format!("keyless.identities[{index}].{key}RegExp");
        if PROBES.iter().all(|probe| pattern.accepts(probe)) {
            let mut text = format!("accepts every {key}");
            if key == "subject" {
                write!(text, ": anybody whom the issuer knows may sign").unwrap_or_default();
            }
            say(Severity::Warning, &field, text);
        } else if pattern.is_unanchored() {
            let text = "is matched against the whole text, while policy-controller would look for it anywhere in it; write \
                        it with ^ and $, so that it means the same everywhere";
            say(Severity::Warning, &field, text.to_owned());
        }
    }
}

/// What no pattern that was written for somebody accepts together.
const PROBES: &[&str] = &["x", "https://example.invalid/any/one@else", "any-one@example.invalid"];
/// Its key is in the built-in trust root.
const PUBLIC_LOG: &str = "https://rekor.sigstore.dev";

impl AttestationDocument {
    fn lint(&self) -> Option<Finding> {
        let field = format!("attestation {}: predicateType", self.name);
        if let Some(short) = self.short_name {
            let text = format!("the short name {short} is deprecated; write {}", self.predicate_type);
            return Some(finding(Severity::Note, &self.origin, &field, text));
        }
        if url::Url::parse(&self.predicate_type).is_err() {
            let text = format!("{:?} is no URI and no short name; it is compared to the letter", self.predicate_type);
            return Some(finding(Severity::Warning, &self.origin, &field, text));
        }
        None
    }
}

fn finding(severity: Severity, origin: &Origin, field: &str, text: impl Into<String>) -> Finding {
    Finding::new(severity, format!("{origin}: {field}"), text)
}

#[cfg(test)]
mod tests {
    use super::super::PolicyFile;
    use super::*;

    fn lint_of(documents: &[&str]) -> Vec<(Severity, String)> {
        let text = documents.iter().enumerate().map(|(index, spec)| {
            format!(
                "apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata: {{name: p{index}}}\nspec: {spec}\n---\n"
            )
        });
        let file = PolicyFile::parse("f", text.collect::<String>().as_bytes(), &mut |_| Err(String::new())).unwrap();
        let findings = lint(file.policies.iter());
        findings
            .into_iter()
            .map(|finding| (finding.severity, format!("{} {}", finding.json_path, finding.text)))
            .collect()
    }

    const SOUND: &str = "keyless: {identities: [{issuer: i, subjectRegExp: '^s$'}]}, ctlog: {url: 'https://rekor.sigstore.dev'}, \
                         signatureFormat: bundle";

    /// The findings of one policy, without where they are.
    fn of(glob: &str, authority: &str) -> Vec<(Severity, String)> {
        lint_of(&[&format!("{{images: [{{glob: '{glob}'}}], authorities: [{{{authority}}}]}}")])
    }

    fn one(glob: &str, authority: &str) -> (Severity, String) {
        let mut findings = of(glob, authority);
        assert_eq!(findings.len(), 1, "{findings:?}");
        findings.remove(0)
    }

    #[test]
    fn a_sound_policy_has_no_findings() {
        assert_eq!(of("ghcr.io/a/**", SOUND), []);
        assert_eq!(of("**", "static: {action: fail}"), []);
    }

    #[test]
    fn a_finding_names_file_and_line() {
        let (severity, text) = one("**", "static: {action: pass}");
        assert_eq!(severity, Severity::Warning);
        assert!(text.starts_with("f:4: authority authority-0: static admits every image"), "{text}");
    }

    #[test]
    fn a_glob_that_matches_nothing_or_no_digest_is_found() {
        for glob in ["https://ghcr.io/a", "ghcr.io/A/**", "docker.io/alpine", "index.docker.io/alpine:*"] {
            assert_eq!(one(glob, SOUND).0, Severity::Error, "{glob}");
        }
        for glob in ["ghcr.io/a/b", "ghcr.io/a/b:*", "alpine:3"] {
            let (severity, text) = one(glob, SOUND);
            assert_eq!(severity, Severity::Warning, "{glob}");
            assert!(text.contains("by digest"), "{text}");
        }
        let two = |other: &str| {
            lint_of(&[&format!(
                "{{images: [{{glob: 'ghcr.io/a/b:*'}}, {{glob: '{other}'}}], authorities: [{{{SOUND}}}]}}"
            )])
        };
        for other in ["ghcr.io/a/b@*", "ghcr.io/a/**", "ghcr.io/a/b**"] {
            assert_eq!(two(other), [], "{other}");
        }
        assert_eq!(two("ghcr.io/c/**").len(), 1);
    }

    #[test]
    fn c_04_a_pattern_that_says_less_than_it_seems_is_found() {
        let with = |issuer: &str, subject: &str| {
            of(
                "**",
                &format!(
                    "keyless: {{identities: [{{issuerRegExp: '{issuer}', subjectRegExp: '{subject}'}}]}}, ctlog: {{}}, signatureFormat: bundle"
                ),
            )
        };
        assert_eq!(with("^i$", "^s$"), []);
        assert!(with("i", "^s$")[0].1.contains("issuerRegExp is matched against the whole text"));
        assert!(with("^i$", ".*")[0].1.contains("accepts every subject: anybody"));
        assert_eq!(with(".*", "^.*$").len(), 2);
    }

    #[test]
    fn weakened_and_missing_checks_are_found() {
        let keyless =
            |more: &str| format!("keyless: {{identities: [{{issuer: i, subject: s}}]{more}}}, signatureFormat: bundle");
        assert!(one("**", &keyless("")).1.contains("no ctlog is named"));
        assert!(one("**", &(keyless(", insecureIgnoreSCT: true") + ", ctlog: {}")).1.contains("never logged"));
        assert!(one("**", &(keyless("") + ", ctlog: {url: 'https://rekor.example'}")).1.contains("never asked"));
        let legacy = keyless("").replace("bundle", "legacy") + ", ctlog: {}";
        assert!(one("**", &legacy).1.contains("before version 3"));
        let warn = format!("{{mode: warn, images: [{{glob: '**'}}], authorities: [{{{SOUND}}}]}}");
        assert!(lint_of(&[&warn])[0].1.contains("refuses nothing"));
    }

    #[test]
    fn an_and_that_may_be_meant_as_an_or_is_found() {
        let both = ["a: vuln", "b: 'https://example.com/p'"].map(|one| {
            let (name, predicate) = one.split_once(": ").unwrap();
            format!("{{name: {name}, predicateType: {predicate}}}")
        });
        let findings = of("**", &format!("{SOUND}, attestations: [{}]", both.join(", ")));
        assert!(findings[0].1.contains("all 2 attestations must be there"), "{findings:?}");
        assert!(findings[1].1.contains("the short name vuln is deprecated"), "{findings:?}");
        let policy = |glob: &str| format!("{{images: [{{glob: '{glob}'}}], authorities: [{{{SOUND}}}]}}");
        let findings = lint_of(&[&policy("ghcr.io/a/**"), &policy("**"), &policy("ghcr.io/a/**")]);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].1.contains("p2 and p0 (f:1) are both about ghcr.io/a/**"), "{findings:?}");
    }
}
