//! containers-registries.d(5): where an image's lookaside signatures lie, and whether attached ones count.
//!
//! Read from a directory that the configuration names, as containers/image reads its own: all files `*.yaml`, whose definitions
//! must not overlap. For each key the most specific namespace that has it decides, then `default-docker`. There is no built-in
//! directory of signatures: containers/image looks into `/var/lib/containers/sigstore` where nothing is configured, which a
//! mirror would have no reason to trust or to find filled.

use std::collections::BTreeMap;

use super::evaluate::Searched;
use super::scopes;
use crate::oci::ImageReference;
use crate::policy::wanted::LookasideBaseError;
use crate::policy::yaml::{self, Node, Value};
use crate::policy::{LookasideBase, MaterialKind, Plan, Wanted};
use crate::verify::quote::go_quote;

/// The settings of all files of a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistriesD {
    default: Namespace,
    docker: BTreeMap<String, Namespace>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Namespace {
    lookaside: Option<LookasideBase>,
    attachments: Option<bool>,
}

/// The directory's files make no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: line {line}: {problem}")]
pub struct RegistriesDError {
    /// Which file.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// What is wrong, and what to do.
    pub problem: String,
}

impl RegistriesD {
    /// Reads the files, each with its name.
    ///
    /// # Errors
    /// [`RegistriesDError`] for the first that is no YAML, has a key or a value that the format does not have, or defines what
    /// another one has defined.
    pub fn parse(files: &[(String, Vec<u8>)]) -> Result<Self, RegistriesDError> {
        let mut reading = Reading::default();
        for (file, bytes) in files {
            let error = |line, problem| RegistriesDError { file: file.clone(), line, problem };
            let documents = yaml::read(bytes).map_err(|why| error(why.line, why.problem))?;
            match documents.as_slice() {
                [] => {}
                [document] => reading.take(file, document).map_err(|(line, problem)| error(line, problem))?,
                [_, second, ..] => return Err(error(second.line, "one document a file; put them together".to_owned())),
            }
        }
        Ok(reading.settings)
    }

    /// Below which address the signatures of an image lie.
    pub fn lookaside(&self, image: &ImageReference) -> Option<&LookasideBase> {
        self.of(image).find_map(|namespace| namespace.lookaside.as_ref())
    }

    /// Whether no file names an address below which OpenPGP signatures lie.
    pub(in crate::policy) fn names_no_lookaside(&self) -> bool {
        std::iter::once(&self.default).chain(self.docker.values()).all(|namespace| namespace.lookaside.is_none())
    }

    /// Whether signatures that are attached to an image in its registry are to be left alone: only where a file says so.
    pub(in crate::policy) fn attachments_are_off(&self, image: &ImageReference) -> bool {
        self.of(image).find_map(|namespace| namespace.attachments) == Some(false)
    }

    /// What there is to look for an image, for the text of a search that found nothing.
    pub(in crate::policy) fn searched(&self, image: &ImageReference) -> Searched {
        Searched { lookaside: self.lookaside(image).is_some(), attachments: !self.attachments_are_off(image) }
    }

    /// Every place where signatures of an image may lie.
    pub(in crate::policy) fn everything(&self, image: &ImageReference) -> Wanted {
        let kinds = if self.attachments_are_off(image) {
            std::collections::BTreeSet::new()
        } else {
            [MaterialKind::Signatures, MaterialKind::Attestations, MaterialKind::Bundles].into()
        };
        Wanted { kinds, lookaside: self.lookaside(image).cloned(), ..Wanted::default() }
    }

    /// A plan without what is attached to the image, where that is to be left alone; for every format, since what one of them
    /// found the other would see.
    pub(in crate::policy) fn restrict(&self, image: &ImageReference, plan: Plan) -> Plan {
        if !self.attachments_are_off(image) {
            return plan;
        }
        let rest = |wanted: Wanted| Wanted { lookaside: wanted.lookaside, ..Wanted::default() };
        match plan {
            Plan::NeedsMaterial(wanted) if wanted.lookaside.is_some() => Plan::NeedsMaterial(rest(wanted)),
            Plan::WantsMaterial(wanted) if wanted.lookaside.is_some() => Plan::WantsMaterial(rest(wanted)),
            Plan::NeedsMaterial(_) | Plan::WantsMaterial(_) | Plan::WithoutMaterial => Plan::WithoutMaterial,
        }
    }

    /// The most specific first.
    fn of(&self, image: &ImageReference) -> impl Iterator<Item = &Namespace> {
        let scopes = scopes::candidates(image);
        let named: Vec<&Namespace> = scopes.iter().filter_map(|scope| self.docker.get(scope)).collect();
        named.into_iter().chain([&self.default])
    }

    /// Everything in it that can change an answer.
    pub(in crate::policy) fn canonical(&self) -> Vec<String> {
        let named = self.docker.iter().map(|(name, namespace)| (go_quote(name), namespace));
        let all = std::iter::once(("default-docker".to_owned(), &self.default)).chain(named);
        all.filter(|(_, namespace)| **namespace != Namespace::default())
            .map(|(name, Namespace { lookaside, attachments })| {
                let lookaside = lookaside.as_ref().map(LookasideBase::as_str).unwrap_or_default();
                format!("{name} lookaside {lookaside} attachments {attachments:?}")
            })
            .collect()
    }

    /// The namespaces that are no scope of any image, for the linter.
    pub(in crate::policy) fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.docker.keys().map(String::as_str)
    }
}

/// The files that were read so far, and which of them defined what.
#[derive(Default)]
struct Reading {
    settings: RegistriesD,
    default_from: Option<String>,
    docker_from: BTreeMap<String, String>,
}

type Problem = (usize, String);

impl Reading {
    fn take(&mut self, file: &str, document: &Node) -> Result<(), Problem> {
        if document.value == Value::Null {
            return Ok(());
        }
        let at = |line: usize| move |problem: String| (line, problem);
        for member in document.as_mapping().map_err(at(document.line))? {
            match member.key.as_str() {
                "default-docker" => {
                    if let Some(first) = self.default_from.replace(file.to_owned()) {
                        let problem = format!(
                            "Error parsing signature storage configuration: \"default-docker\" defined both in {} and {}",
                            go_quote(&first),
                            go_quote(file)
                        );
                        return Err((member.line, problem));
                    }
                    self.settings.default = namespace(&member.value)?;
                }
                "docker" if member.value.value == Value::Null => {}
                "docker" => {
                    for inner in member.value.as_mapping().map_err(at(member.line))? {
                        self.take_namespace(file, &inner.key, inner.line, &inner.value)?;
                    }
                }
                other => return Err((member.line, unknown(other, "default-docker, docker"))),
            }
        }
        Ok(())
    }

    fn take_namespace(&mut self, file: &str, name: &str, line: usize, value: &Node) -> Result<(), Problem> {
        if let Some(first) = self.docker_from.insert(name.to_owned(), file.to_owned()) {
            let problem = format!(
                "Error parsing signature storage configuration: \"docker\" namespace {} defined both in {} and {}",
                go_quote(name),
                go_quote(&first),
                go_quote(file)
            );
            return Err((line, problem));
        }
        self.settings.docker.insert(name.to_owned(), namespace(value)?);
        Ok(())
    }
}

fn namespace(node: &Node) -> Result<Namespace, Problem> {
    if node.value == Value::Null {
        return Ok(Namespace::default());
    }
    let (mut lookaside, mut sigstore, mut attachments) = (None, None, None);
    for member in node.as_mapping().map_err(|problem| (node.line, problem))? {
        let at = |problem: String| (member.line, problem);
        match member.key.as_str() {
            "lookaside" => lookaside = base(&member.value).map_err(at)?,
            "sigstore" => sigstore = base(&member.value).map_err(at)?,
            // Where signatures are written; nothing is written here.
            "lookaside-staging" | "sigstore-staging" => {
                member.value.as_str().map_err(at)?;
            }
            "use-sigstore-attachments" => attachments = Some(member.value.as_bool().map_err(at)?),
            other => {
                let known = "lookaside, sigstore, lookaside-staging, sigstore-staging, use-sigstore-attachments";
                return Err((member.line, unknown(other, known)));
            }
        }
    }
    // The old name counts where the new one is not given.
    Ok(Namespace { lookaside: lookaside.or(sigstore), attachments })
}

/// An empty text counts as absent, as it does for containers/image.
fn base(node: &Node) -> Result<Option<LookasideBase>, String> {
    let text = node.as_str()?;
    if text.is_empty() {
        return Ok(None);
    }
    let error = |why: LookasideBaseError| format!("Invalid signature storage URL {}: {why}", go_quote(text));
    text.parse().map(Some).map_err(error)
}

fn unknown(key: &str, known: &str) -> String {
    format!("unknown key {}; the keys here are {known}", go_quote(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(files: &[(&str, &str)]) -> Result<RegistriesD, String> {
        let files: Vec<(String, Vec<u8>)> =
            files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect();
        RegistriesD::parse(&files).map_err(|error| error.to_string())
    }

    fn lookaside(settings: &RegistriesD, image: &str) -> Option<String> {
        settings.lookaside(&image.parse().unwrap()).map(|base| base.as_str().to_owned())
    }

    #[test]
    fn the_most_specific_namespace_that_has_the_key_decides() {
        let settings = parse(&[
            ("a.yaml", "default-docker: {sigstore: 'file:///default'}\ndocker:\n  quay.io: {lookaside: 'https://quay'}"),
            ("b.yaml", "docker:\n  quay.io/team: {use-sigstore-attachments: false}\n  quay.io/team/app: {sigstore: 'https://app'}"),
            ("c.yaml", "docker:\n  quay.io/team/app:1: {lookaside: 'https://tag'}\n  '*.test': {lookaside: 'https://wild'}"),
            ("d.yaml", ""),
            ("e.yaml", "# nothing\n"),
        ])
        .unwrap();
        for (image, base) in [
            ("quay.io/team/app:1", "https://tag/"),
            ("quay.io/team/app:2", "https://app/"),
            ("quay.io/team/other:1", "https://quay/"),
            ("quay.io/teams/other:1", "https://quay/"),
            ("registry.test/a:1", "https://wild/"),
            ("gcr.io/a:1", "file:///default"),
        ] {
            assert_eq!(lookaside(&settings, image).as_deref(), Some(base), "{image}");
        }
        let off = |image: &str| settings.attachments_are_off(&image.parse().unwrap());
        assert_eq!([off("quay.io/team/app:1"), off("quay.io/team/x:1"), off("quay.io/x:1")], [true, true, false]);
        assert_eq!(lookaside(&RegistriesD::default(), "quay.io/a:1"), None, "nothing is built in");
    }

    #[test]
    fn the_old_name_counts_where_the_new_one_is_not_given() {
        let both = "docker: {quay.io: {sigstore: 'https://old', lookaside: 'https://new'}}";
        assert_eq!(lookaside(&parse(&[("a", both)]).unwrap(), "quay.io/a:1").as_deref(), Some("https://new/"));
        let empty = "docker: {quay.io: {sigstore: 'https://old', lookaside: ''}}";
        assert_eq!(lookaside(&parse(&[("a", empty)]).unwrap(), "quay.io/a:1").as_deref(), Some("https://old/"));
        let staging = "docker: {quay.io: {sigstore-staging: 'file:///x', lookaside-staging: 'file:///y'}}";
        assert_eq!(lookaside(&parse(&[("a", staging)]).unwrap(), "quay.io/a:1"), None, "nothing is written here");
    }

    #[test]
    fn what_is_defined_twice_is_an_error_that_names_both_files() {
        let docker = "docker:\n  quay.io: {}";
        assert_eq!(
            parse(&[("a.yaml", docker), ("b.yaml", docker)]).unwrap_err(),
            "b.yaml: line 2: Error parsing signature storage configuration: \"docker\" namespace \"quay.io\" defined both in \
             \"a.yaml\" and \"b.yaml\""
        );
        let default = "default-docker: {}";
        assert_eq!(
            parse(&[("a.yaml", default), ("b.yaml", default)]).unwrap_err(),
            "b.yaml: line 1: Error parsing signature storage configuration: \"default-docker\" defined both in \"a.yaml\" and \
             \"b.yaml\""
        );
    }

    #[test]
    fn what_the_format_does_not_have_is_an_error_with_its_line() {
        for (text, line, word) in [
            ("dokcer: {}", 1, "unknown key \"dokcer\""),
            ("docker:\n  quay.io:\n    lookasid: x", 3, "unknown key \"lookasid\""),
            ("docker:\n  quay.io:\n    lookaside: [x]", 3, "a string is expected"),
            ("docker:\n  quay.io:\n    use-sigstore-attachments: 'false'", 3, "without quotes"),
            ("docker:\n  quay.io: x", 2, "an object is expected"),
            ("docker: []", 1, "an object is expected"),
            ("- x", 1, "an object is expected"),
            ("docker: {}\n---\ndocker: {}", 3, "one document a file"),
            ("docker: {quay.io: {lookaside: ftp://x}}", 1, "only https, http and file"),
            ("docker: {quay.io: {lookaside: 'https://u:p@x'}}", 1, "user or password"),
            ("docker: {quay.io: {lookaside: 'https://x?y'}}", 1, "query or fragment"),
            ("docker: {quay.io: {lookaside: 'https://x#y'}}", 1, "query or fragment"),
            ("docker: {quay.io: {lookaside: 'file://host/x'}}", 1, "three slashes"),
            ("docker: {quay.io: {lookaside: 'file:relative'}}", 1, "three slashes"),
            ("docker: {quay.io: {lookaside: /var/lib}}", 1, "it is no URL"),
        ] {
            let error = parse(&[("a.yaml", text)]).unwrap_err();
            assert!(error.starts_with(&format!("a.yaml: line {line}: ")) && error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn everything_that_decides_is_in_the_canonical_form() {
        let of = |text: &str| parse(&[("a.yaml", text)]).unwrap().canonical();
        let base = of("docker: {quay.io: {lookaside: 'https://x'}}");
        for other in [
            "docker: {quay.io: {lookaside: 'https://y'}}",
            "docker: {quay.io/a: {lookaside: 'https://x'}}",
            "default-docker: {lookaside: 'https://x'}",
            "docker: {quay.io: {lookaside: 'https://x', use-sigstore-attachments: false}}",
            "",
        ] {
            assert_ne!(of(other), base, "{other}");
        }
        assert_eq!(of("docker: {quay.io: {sigstore: 'https://x', lookaside-staging: 'file:///y'}, a.test: {}}"), base);
    }

    #[test]
    fn the_path_of_a_signature_is_the_base_s_and_the_image_s() {
        let digest = crate::oci::Digest::sha256(b"x");
        for (base, path) in [("https://x", "/"), ("https://x/", "/"), ("https://x/a/b/", "/a/b/"), ("file:///a", "/a/")]
        {
            let base: LookasideBase = base.parse().unwrap();
            let url = base.signature(&"team/app".parse().unwrap(), &digest, 7);
            assert_eq!(url.path(), format!("{path}team/app@sha256={}/signature-7", digest.hex()));
        }
    }
}
