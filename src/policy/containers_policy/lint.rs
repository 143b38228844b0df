//! Traps of the format: what loads and does not mean what it seems to mean.

use super::document::{ContainersPolicyDocument, DOCKER, TRANSPORTS, json_path};
use super::registries_d::RegistriesD;
use super::requirement::{RequirementDocument, SignedByDocument};
use super::resolve::{ContainersPolicy, NamedRing, Requirement, Rules, SignedBy, SignedByKeys};
use super::scopes::trap;
use super::signed_identity::SignedIdentity;
use super::sigstore_signed::{SigstoreSignedDocument, TrustDocument};
use crate::clock::Timestamp;
use crate::policy::lint::{Finding, Severity};
use crate::verify::quote::go_quote;

impl ContainersPolicyDocument {
    /// Whether what no scope matches is accepted unsigned.
    pub(in crate::policy) fn accepts_anything_by_default(&self) -> bool {
        matches!(self.default.as_slice(), [RequirementDocument::InsecureAcceptAnything])
    }

    /// What deserves a look, in the order of the document.
    pub fn lint(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for transport in self.transports.iter().filter(|transport| transport.name != DOCKER) {
            let known = TRANSPORTS.contains(&transport.name.as_str());
            let json_path = format!("transports.{}", transport.name);
            findings.push(if known {
                let text = "a registry mirror evaluates only the transport docker; these scopes are for other programs";
                Finding::new(Severity::Note, json_path, text)
            } else {
                let text = format!("no program has a transport {}; is docker meant?", go_quote(&transport.name));
                Finding::new(Severity::Warning, json_path, text)
            });
        }
        for (scope, _) in self.docker_scopes() {
            if let Some(trap) = trap(scope) {
                findings.push(Finding::of_scope(json_path(DOCKER, scope), trap));
            }
        }
        if self.accepts_anything_by_default() {
            let text =
                "whatever no scope matches is accepted unsigned; `reject` makes the policy a list of what may pass";
            findings.push(Finding::new(Severity::Warning, "default", text));
        }
        let docker = self.docker_scopes().map(|(scope, list)| (json_path(DOCKER, scope), list));
        for (json_path, list) in std::iter::once(("default".to_owned(), &self.default)).chain(docker) {
            requirements(&mut findings, &json_path, list);
        }
        findings
    }
}

impl ContainersPolicy {
    /// OpenPGP signatures that are asked for, where none is looked for.
    pub(in crate::policy) fn lint_lookaside(&self, registries_d: &RegistriesD) -> Vec<Finding> {
        let wants = |rules: &&Rules| {
            rules.requirements.iter().any(|requirement| match requirement {
                Requirement::SignedBy(SignedBy { keys: SignedByKeys::OpenPgp(_), .. }) => true,
                Requirement::SignedBy(SignedBy { keys: SignedByKeys::Unimplemented { .. }, .. })
                | Requirement::InsecureAcceptAnything
                | Requirement::Reject
                | Requirement::SigstoreSigned(_)
                | Requirement::SignedBaseLayer(_) => false,
            })
        };
        let unheard = self.rules().filter(|_| registries_d.names_no_lookaside()).filter(wants);
        let text = "an OpenPGP signature is asked for, and no file in policy.registries_d names a lookaside to look for it: \
                    everything in this scope is refused";
        unheard.map(|rules| Finding::new(Severity::Warning, &rules.json_path, text)).collect()
    }

    /// Key rings of which time has left nothing: expired, revoked, or never fit for signing.
    pub(in crate::policy) fn lapsed(&self, now: Timestamp) -> Vec<Finding> {
        let mut findings = Vec::new();
        for rules in self.rules() {
            for (index, requirement) in rules.requirements.iter().enumerate() {
                if let Requirement::SignedBy(signed_by) = requirement {
                    findings.extend(lapsed_rings(&format!("{}[{index}]", rules.json_path), signed_by, now));
                }
            }
        }
        findings
    }
}

fn lapsed_rings(json_path: &str, SignedBy { rings, .. }: &SignedBy, now: Timestamp) -> Vec<Finding> {
    let lapsed: Vec<_> = rings.iter().filter_map(|ring| Some((ring, ring.keys.unusable(now)?))).collect();
    let comes_to = if lapsed.len() == rings.len() {
        "everything in this scope is refused until there is a newer ring"
    } else {
        "signatures by its keys do not count; fetch a newer ring, or remove this one"
    };
    let finding = |(ring, why): &(&NamedRing, String)| {
        let file = ring.path.as_deref().map(|path| format!("the file {}: ", go_quote(path))).unwrap_or_default();
        let text = format!("{file}no key in the ring can sign: {why}; {comes_to}");
        Finding::new(Severity::Warning, format!("{json_path}.{}", ring.key), text)
    };
    lapsed.iter().map(finding).collect()
}

fn requirements(findings: &mut Vec<Finding>, json_path: &str, list: &[RequirementDocument]) {
    let count = |wanted: fn(&RequirementDocument) -> bool| list.iter().filter(|one| wanted(one)).count();
    let signatures =
        count(|one| matches!(one, RequirementDocument::SigstoreSigned(_) | RequirementDocument::SignedBy(_)));
    if signatures > 1 {
        let text = format!(
            "all {signatures} signature requirements must be satisfied at once; where any one is enough, \
             name the keys in keyPaths or keyDatas of one requirement"
        );
        findings.push(Finding::new(Severity::Warning, json_path, text));
    }
    if list.len() > 1 && count(|one| matches!(one, RequirementDocument::InsecureAcceptAnything)) > 0 {
        let text = "insecureAcceptAnything changes nothing beside other requirements: all of them must be satisfied";
        findings.push(Finding::new(Severity::Warning, json_path, text));
    }
    for (index, requirement) in list.iter().enumerate() {
        let json_path = format!("{json_path}[{index}]");
        match requirement {
            RequirementDocument::InsecureAcceptAnything | RequirementDocument::Reject => {}
            RequirementDocument::SignedBy(signed_by) => findings.extend(self::signed_by(&json_path, signed_by)),
            RequirementDocument::SignedBaseLayer(_) => {
                let text = "no program implements signedBaseLayer: everything in this scope is refused";
                findings.push(Finding::new(Severity::Warning, json_path, text));
            }
            RequirementDocument::SigstoreSigned(sigstore) => sigstore_signed(findings, &json_path, sigstore),
        }
    }
}

/// Requirements that load and that no signature can satisfy.
fn signed_by(json_path: &str, signed_by: &SignedByDocument) -> Option<Finding> {
    if signed_by.key_type != "GPGKeys" {
        let text = format!(
            "no program implements the key type {}: everything in this scope is refused; GPGKeys is the one that works",
            signed_by.key_type
        );
        return Some(Finding::new(Severity::Warning, format!("{json_path}.keyType"), text));
    }
    let text = "there is no key in the list: everything in this scope is refused";
    signed_by.keys.is_empty().then(|| Finding::new(Severity::Warning, format!("{json_path}.keyPaths"), text))
}

fn sigstore_signed(findings: &mut Vec<Finding>, json_path: &str, sigstore: &SigstoreSignedDocument) {
    let by_default = if sigstore.identity_given { "" } else { "without signedIdentity, " };
    let wants_a_tag = match &sigstore.identity {
        SignedIdentity::MatchExact | SignedIdentity::MatchRepoDigestOrExact | SignedIdentity::RemapIdentity { .. } => {
            true
        }
        SignedIdentity::MatchRepository
        | SignedIdentity::ExactReference { .. }
        | SignedIdentity::ExactRepository { .. } => false,
    };
    if wants_a_tag {
        let text = format!(
            "{by_default}{} wants the tag in the signature, which cosign does not write: signatures of \
             `cosign sign` will not count; use matchRepository or exactRepository",
            sigstore.identity.as_str()
        );
        findings.push(Finding::new(Severity::Warning, format!("{json_path}.signedIdentity"), text));
    }
    if let Some(key) = sigstore.empty_rekor {
        let text = "it is empty, so no log entry is asked for; remove it, or name the log's key";
        findings.push(Finding::new(Severity::Warning, format!("{json_path}.{key}"), text));
    }
    let wanted = match &sigstore.trust {
        TrustDocument::Keys(_) => Vec::new(),
        TrustDocument::Fulcio(fulcio) => {
            vec![("fulcio.oidcIssuer", &fulcio.issuer), ("fulcio.subjectEmail", &fulcio.email)]
        }
        TrustDocument::Pki(pki) => {
            let email = pki.email.iter().map(|email| ("pki.subjectEmail", email));
            email.chain(pki.hostname.iter().map(|hostname| ("pki.subjectHostname", hostname))).collect()
        }
    };
    for (key, text) in wanted {
        if text.contains(['*', '^', '$', '(', '\\', '?']) || text.starts_with("(?") {
            let text = format!("{} is compared to the letter, not as a pattern", go_quote(text));
            findings.push(Finding::new(Severity::Warning, format!("{json_path}.{key}"), text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lint(text: &str) -> Vec<(Severity, String)> {
        let findings = ContainersPolicyDocument::parse(text.as_bytes()).unwrap().lint();
        findings.into_iter().map(|finding| (finding.severity, finding.json_path)).collect()
    }

    fn scope(scope: &str, requirements: &str) -> String {
        format!(r#"{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{"{scope}":[{requirements}]}}}}}}"#)
    }

    const SIGNED: &str = r#"{"type":"sigstoreSigned","keyPath":"k","signedIdentity":{"type":"matchRepository"}}"#;

    #[test]
    fn a_sound_policy_has_no_findings() {
        assert_eq!(lint(&scope("quay.io/a", SIGNED)), []);
        assert_eq!(lint(r#"{"default":[{"type":"reject"}]}"#), []);
    }

    #[test]
    fn two_signature_requirements_are_an_and() {
        let path = r#"transports.docker["quay.io/a"]"#.to_owned();
        assert_eq!(lint(&scope("quay.io/a", &format!("{SIGNED},{SIGNED}"))), [(Severity::Warning, path)]);
    }

    #[test]
    fn scopes_that_never_match_are_errors() {
        for bad in ["*", "*bad*", "docker://quay.io", "QUAY.io/a", "docker.io/alpine:3"] {
            let path = format!("transports.docker[\"{bad}\"]");
            assert_eq!(lint(&scope(bad, SIGNED)), [(Severity::Error, path)], "{bad}");
        }
        let path = r#"transports.docker["docker.io/alpine"]"#.to_owned();
        assert_eq!(lint(&scope("docker.io/alpine", SIGNED)), [(Severity::Warning, path)]);
    }

    #[test]
    fn an_identity_that_wants_a_tag_is_a_trap_also_by_default() {
        let path = r#"transports.docker["quay.io/a"][0].signedIdentity"#.to_owned();
        for identity in ["", r#","signedIdentity":{"type":"matchExact"}"#] {
            let requirement = format!(r#"{{"type":"sigstoreSigned","keyPath":"k"{identity}}}"#);
            assert_eq!(lint(&scope("quay.io/a", &requirement)), [(Severity::Warning, path.clone())], "{identity}");
        }
    }

    #[test]
    fn an_open_default_and_unknown_transports_are_found() {
        let policy = r#"{"default":[{"type":"insecureAcceptAnything"}],"transports":{"dokcer":{},"oci":{}}}"#;
        assert_eq!(
            lint(policy),
            [
                (Severity::Warning, "transports.dokcer".to_owned()),
                (Severity::Note, "transports.oci".to_owned()),
                (Severity::Warning, "default".to_owned()),
            ]
        );
    }

    #[test]
    fn c_04_a_pattern_where_text_is_compared_is_found() {
        let requirement = r#"{"type":"sigstoreSigned","signedIdentity":{"type":"matchRepository"},"rekorPublicKeyPath":"r",
            "fulcio":{"caPath":"c","oidcIssuer":"https://i","subjectEmail":".*"}}"#;
        let path = r#"transports.docker["quay.io/a"][0].fulcio.subjectEmail"#.to_owned();
        assert_eq!(lint(&scope("quay.io/a", requirement)), [(Severity::Warning, path)]);
    }

    #[test]
    fn what_refuses_or_asks_for_nothing_unawares_is_found() {
        let signed_by = r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"k"}"#;
        let x509 = signed_by.replace("GPGKeys", "signedByX509CAs");
        let no_keys = signed_by.replace(r#""keyPath":"k""#, r#""keyPaths":[]"#);
        let anything = r#"{"type":"insecureAcceptAnything"}"#;
        let path = r#"transports.docker["quay.io/a"]"#;
        assert_eq!(lint(&scope("quay.io/a", signed_by)), []);
        assert_eq!(lint(&scope("quay.io/a", &x509)), [(Severity::Warning, format!("{path}[0].keyType"))]);
        assert_eq!(lint(&scope("quay.io/a", &no_keys)), [(Severity::Warning, format!("{path}[0].keyPaths"))]);
        assert_eq!(lint(&scope("quay.io/a", &format!("{anything},{SIGNED}"))), [(Severity::Warning, path.to_owned())]);
        let empty = SIGNED.replace("\"keyPath\"", "\"rekorPublicKeyPath\":\"\",\"keyPath\"");
        assert_eq!(lint(&scope("quay.io/a", &empty)), [(Severity::Warning, format!("{path}[0].rekorPublicKeyPath"))]);
    }
}
