//! From the document to a policy that can be asked: the files that it names are read, their keys parsed.

use std::collections::BTreeMap;

use super::document::{ContainersPolicyDocument, DEFAULT, DOCKER, json_path};
use super::requirement::{Content, RequirementDocument, SignedByDocument, Source};
use super::scopes;
use super::signed_identity::SignedIdentity;
use super::sigstore_signed::{SigstoreSignedDocument, TrustDocument};
use crate::limits::CONFIG_FILE_BYTES_MAX;
use crate::oci::{Digest, ImageReference};
use crate::policy::RestsOn;
use crate::policy::finding::KnownKeys;
use crate::verify::quote::go_quote;
use crate::verify::{KeyError, OpenPgpKeys, PublicKey, RekorKeys, SigstoreTrust};

/// A containers-policy.json with its key files read in.
#[derive(Debug)]
pub struct ContainersPolicy {
    /// As it was written, for the linter.
    pub(in crate::policy) document: ContainersPolicyDocument,
    default: Rules,
    docker: BTreeMap<String, Rules>,
}

/// What must be true where a scope decides: all of it.
#[derive(Debug)]
pub(in crate::policy) struct Rules {
    /// None: the policy's top-level default.
    pub(in crate::policy) scope: Option<String>,
    /// Such as `transports.docker["quay.io/x"]`.
    pub(in crate::policy) json_path: String,
    /// Never empty.
    pub(in crate::policy) requirements: Vec<Requirement>,
}

/// One thing that must be true.
#[derive(Debug)]
pub(in crate::policy) enum Requirement {
    InsecureAcceptAnything,
    Reject,
    SignedBy(SignedBy),
    SigstoreSigned(SigstoreSigned),
    SignedBaseLayer(SignedIdentity),
}

/// A signature of cosign by somebody, for something.
#[derive(Debug)]
pub(in crate::policy) struct SigstoreSigned {
    pub(in crate::policy) trust: SigstoreTrust,
    pub(in crate::policy) identity: SignedIdentity,
    /// Whether a certificate says who signs.
    pub(in crate::policy) rests_on: RestsOn,
    /// Whose signature, for people.
    signer: String,
}

impl SigstoreSigned {
    /// Whose signature, for people.
    pub(in crate::policy) fn signer(&self) -> &str {
        &self.signer
    }
}

/// An OpenPGP signature by somebody, for something.
#[derive(Debug)]
pub(in crate::policy) struct SignedBy {
    pub(in crate::policy) keys: SignedByKeys,
    /// Where they come from, ring by ring; of `GPGKeys` alone.
    pub(super) rings: Vec<NamedRing>,
    pub(in crate::policy) identity: SignedIdentity,
}

/// One ring of a `signedBy` requirement.
#[derive(Debug)]
pub(super) struct NamedRing {
    /// Such as `keyPaths[1]`.
    pub(super) key: String,
    /// The file, as written; none when the ring stands in the policy itself.
    pub(super) path: Option<String>,
    pub(super) keys: OpenPgpKeys,
}

/// Whose signatures a `signedBy` requirement accepts.
#[derive(Debug)]
pub(in crate::policy) enum SignedByKeys {
    /// `GPGKeys`.
    OpenPgp(OpenPgpKeys),
    /// The key types that are in the format, and in no program: no signature satisfies them.
    Unimplemented { key_type: String, contents: Vec<Digest> },
}

/// A file that the policy names cannot be used, or its content cannot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{json_path}: {}{problem}", named(.path.as_deref()))]
pub struct ResolveError {
    /// Where the policy names it.
    pub json_path: String,
    /// The file, as written; none when the content stands in the policy itself.
    pub path: Option<String>,
    /// What is wrong; never any content.
    pub problem: String,
}

fn named(path: Option<&str>) -> String {
    path.map(|path| format!("the file {} ", go_quote(path))).unwrap_or_default()
}

/// Gives a file's bytes, or why they cannot be had.
pub type ReadFile<'a> = &'a mut dyn FnMut(&str) -> Result<Vec<u8>, String>;

impl ContainersPolicy {
    /// Reads and parses every key and certificate that could decide about an image of a registry.
    ///
    /// Only `default` and the scopes under `docker` can: what other transports name is for programs that pull from
    /// directories, archives and daemons, perhaps on other machines, so their files need not exist here.
    ///
    /// # Errors
    /// [`ResolveError`] for the first file that is missing, unreadable, empty or of the wrong kind. containers/image finds
    /// such a file only when it pulls; here the mistake shows when the policy is loaded.
    pub fn resolve(document: ContainersPolicyDocument, read: ReadFile<'_>) -> Result<Self, ResolveError> {
        let default = rules(None, DEFAULT.to_owned(), &document.default, read)?;
        let mut docker = BTreeMap::new();
        for (scope, requirements) in document.docker_scopes() {
            let rules = rules(Some(scope.clone()), json_path(DOCKER, scope), requirements, read)?;
            docker.insert(scope.clone(), rules);
        }
        Ok(Self { document, default, docker })
    }

    /// The rules that decide about an image: those of its most specific scope, never several together.
    pub(in crate::policy) fn rules_for(&self, image: &ImageReference) -> &Rules {
        let scopes = scopes::candidates(image);
        let most_specific = scopes.iter().find_map(|scope| self.docker.get(scope));
        most_specific.or_else(|| self.docker.get("")).unwrap_or(&self.default)
    }

    /// The default's and those of every scope.
    pub(super) fn rules(&self) -> impl Iterator<Item = &Rules> {
        std::iter::once(&self.default).chain(self.docker.values())
    }

    /// Every key that signs images, with the place that lists it.
    pub(in crate::policy) fn add_keys(&self, known: &mut KnownKeys) {
        for rules in self.rules() {
            for requirement in &rules.requirements {
                match requirement {
                    Requirement::SigstoreSigned(signed) => known.add(signed.trust.keys(), &rules.json_path),
                    Requirement::SignedBy(SignedBy { keys: SignedByKeys::OpenPgp(keys), .. }) => {
                        known.add_openpgp(keys, &rules.json_path);
                    }
                    Requirement::SignedBy(SignedBy { keys: SignedByKeys::Unimplemented { .. }, .. })
                    | Requirement::InsecureAcceptAnything
                    | Requirement::Reject
                    | Requirement::SignedBaseLayer(_) => {}
                }
            }
        }
    }

    /// Whether there is a scope for exactly that reference.
    pub(in crate::policy) fn has_scope(&self, reference: &ImageReference) -> bool {
        self.docker.contains_key(&reference.to_string())
    }

    /// Everything in it that can change an answer, in an order of its own; independent of where keys were read from.
    pub(in crate::policy) fn canonical(&self) -> Vec<String> {
        let scopes = self.docker.iter().map(|(scope, rules)| (format!("scope {}", go_quote(scope)), rules));
        let mut lines = Vec::new();
        for (name, rules) in std::iter::once(("default".to_owned(), &self.default)).chain(scopes) {
            lines.push(name);
            lines.extend(rules.requirements.iter().map(Requirement::canonical));
        }
        lines
    }
}

impl Requirement {
    /// The name in the format.
    pub(in crate::policy) const fn kind(&self) -> &'static str {
        match self {
            Self::InsecureAcceptAnything => "insecureAcceptAnything",
            Self::Reject => "reject",
            Self::SignedBy(_) => "signedBy",
            Self::SigstoreSigned(_) => "sigstoreSigned",
            Self::SignedBaseLayer(_) => "signedBaseLayer",
        }
    }

    /// Its meaning for people.
    pub(in crate::policy) fn describe(&self) -> String {
        match self {
            Self::InsecureAcceptAnything => "anything is accepted, signed or not (insecureAcceptAnything)".to_owned(),
            Self::Reject => "everything is refused (reject)".to_owned(),
            Self::SigstoreSigned(sigstore) => {
                format!("{}, {} (sigstoreSigned)", sigstore.signer, sigstore.identity.describe())
            }
            Self::SignedBy(SignedBy { keys: SignedByKeys::OpenPgp(keys), identity, .. }) => {
                format!("an OpenPGP signature by {}, {} (signedBy)", holders(keys), identity.describe())
            }
            Self::SignedBy(SignedBy { keys: SignedByKeys::Unimplemented { key_type, .. }, .. }) => {
                format!("no program implements the key type {key_type}: refuses everything (signedBy)")
            }
            Self::SignedBaseLayer(_) => "a signed base layer (signedBaseLayer): refuses everything".to_owned(),
        }
    }

    fn canonical(&self) -> String {
        match self {
            Self::InsecureAcceptAnything | Self::Reject => self.kind().to_owned(),
            Self::SigstoreSigned(SigstoreSigned { trust, identity, .. }) => {
                format!("{} {} {}", self.kind(), trust.fingerprint(), identity.canonical())
            }
            Self::SignedBy(SignedBy { keys, identity, .. }) => {
                let keys = match keys {
                    SignedByKeys::OpenPgp(keys) => format!("OpenPGP {}", keys.fingerprint()),
                    SignedByKeys::Unimplemented { key_type, contents } => format!("{key_type} {contents:?}"),
                };
                format!("{} {keys} {}", self.kind(), identity.canonical())
            }
            Self::SignedBaseLayer(identity) => format!("{} {}", self.kind(), identity.canonical()),
        }
    }
}

fn rules(
    scope: Option<String>,
    json_path: String,
    requirements: &[RequirementDocument],
    read: ReadFile<'_>,
) -> Result<Rules, ResolveError> {
    let mut resolved = Vec::new();
    for (index, requirement) in requirements.iter().enumerate() {
        let mut loader = Loader { json_path: format!("{json_path}[{index}]"), read: &mut *read };
        resolved.push(match requirement {
            RequirementDocument::InsecureAcceptAnything => Requirement::InsecureAcceptAnything,
            RequirementDocument::Reject => Requirement::Reject,
            RequirementDocument::SignedBaseLayer(identity) => Requirement::SignedBaseLayer(identity.clone()),
            RequirementDocument::SignedBy(signed_by) => Requirement::SignedBy(loader.signed_by(signed_by)?),
            RequirementDocument::SigstoreSigned(sigstore) => {
                Requirement::SigstoreSigned(loader.sigstore_signed(sigstore)?)
            }
        });
    }
    Ok(Rules { scope, json_path, requirements: resolved })
}

/// Loads what one requirement names.
struct Loader<'a> {
    /// Of the requirement.
    json_path: String,
    read: ReadFile<'a>,
}

impl Loader<'_> {
    fn sigstore_signed(&mut self, document: &SigstoreSignedDocument) -> Result<SigstoreSigned, ResolveError> {
        let rekor = self.rekor(&document.rekor)?;
        let log = if rekor.is_some() { "logged in Rekor, " } else { "" };
        let (trust, signer) = match &document.trust {
            TrustDocument::Keys(sources) => {
                let mut keys = Vec::new();
                for source in sources {
                    let pem = self.public(source)?;
                    keys.push(PublicKey::from_pem(&pem).map_err(|error| self.unusable(source, &error))?);
                }
                let names: Vec<String> = keys.iter().map(|key| short(&key.fingerprint())).collect();
                let which = if names.len() == 1 { "the key" } else { "any of the keys" };
                let signer = format!("a cosign signature by {which} {}, {log}", names.join(", "));
                (SigstoreTrust::keyed(keys, rekor), signer)
            }
            TrustDocument::Fulcio(fulcio) => {
                let pem = self.public(&fulcio.authorities)?;
                // The parser lets no `fulcio` without Rekor keys through.
                let rekor = rekor.ok_or_else(|| self.unusable(&fulcio.authorities, &KeyError::NoRekorKey))?;
                let trust = SigstoreTrust::fulcio(&pem, rekor, fulcio.issuer.clone(), fulcio.email.clone())
                    .map_err(|error| self.unusable(&fulcio.authorities, &error))?;
                let (email, issuer) = (&fulcio.email, &fulcio.issuer);
                (trust, format!("a keyless cosign signature by {email}, authenticated by {issuer}, {log}"))
            }
            TrustDocument::Pki(pki) => {
                let roots = self.public(&pki.roots)?;
                let intermediates = pki.intermediates.as_ref().map(|source| self.public(source)).transpose()?;
                let trust =
                    SigstoreTrust::pki(&roots, intermediates.as_deref(), pki.email.clone(), pki.hostname.clone())
                        .map_err(|error| {
                            let of_intermediates = matches!(error, KeyError::PkiIntermediates { .. });
                            let source = pki.intermediates.as_ref().filter(|_| of_intermediates);
                            self.unusable(source.unwrap_or(&pki.roots), &error)
                        })?;
                let subjects: Vec<&str> = pki.email.iter().chain(&pki.hostname).map(String::as_str).collect();
                (
                    trust,
                    format!("a cosign signature with a certificate of your own PKI for {}, ", subjects.join(" and ")),
                )
            }
        };
        let rests_on = match document.trust {
            TrustDocument::Keys(_) => RestsOn::Timeless,
            TrustDocument::Fulcio(_) | TrustDocument::Pki(_) => RestsOn::Certificates,
        };
        let signer = signer.trim_end_matches([',', ' ']).to_owned();
        Ok(SigstoreSigned { trust, identity: document.identity.clone(), rests_on, signer })
    }

    fn rekor(&mut self, sources: &[Source]) -> Result<Option<RekorKeys>, ResolveError> {
        let Some(first) = sources.first() else { return Ok(None) };
        let mut pems = Vec::new();
        for source in sources {
            pems.push(self.public(source)?);
        }
        RekorKeys::from_pems(&pems).map(Some).map_err(|error| self.unusable(first, &error))
    }

    fn signed_by(&mut self, document: &SignedByDocument) -> Result<SignedBy, ResolveError> {
        let (mut contents, mut rings) = (Vec::new(), Vec::new());
        for source in &document.keys {
            let ring = self.public(source)?;
            if document.key_type == GPG_KEYS {
                // Each by itself first, so that an error names the ring.
                let keys = OpenPgpKeys::parse(std::slice::from_ref(&ring));
                let keys = keys.map_err(|error| self.unusable(source, &error))?;
                rings.push(NamedRing { key: source.key.clone(), path: source.path().map(str::to_owned), keys });
            }
            contents.push(ring);
        }
        let keys = if document.key_type == GPG_KEYS {
            let keys = OpenPgpKeys::parse(&contents);
            SignedByKeys::OpenPgp(keys.map_err(|error| self.error_of_all(&error))?)
        } else {
            let contents = contents.iter().map(|ring| Digest::sha256(ring)).collect();
            SignedByKeys::Unimplemented { key_type: document.key_type.clone(), contents }
        };
        Ok(SignedBy { keys, rings, identity: document.identity.clone() })
    }

    /// The content of a source that must hold public keys or certificates, and nothing secret.
    fn public(&mut self, source: &Source) -> Result<Vec<u8>, ResolveError> {
        let bytes = match &source.content {
            Content::Data(data) => data.clone(),
            Content::Path(path) if path.is_empty() => {
                return Err(self.error(source, "the path is empty".to_owned()));
            }
            Content::Path(path) => {
                (self.read)(path).map_err(|why| self.error(source, format!("cannot be read: {why}")))?
            }
        };
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(self.error(source, "is empty".to_owned()));
        }
        if u64::try_from(bytes.len()).is_ok_and(|length| length > CONFIG_FILE_BYTES_MAX) {
            return Err(self.error(source, format!("has more than {CONFIG_FILE_BYTES_MAX} bytes")));
        }
        if has_private_key(&bytes) {
            let problem =
                "holds a private key, which does not belong on a verifier: name the public key or certificate";
            return Err(self.error(source, problem.to_owned()));
        }
        Ok(bytes)
    }

    fn unusable(&self, source: &Source, error: &KeyError) -> ResolveError {
        self.error(source, format!("cannot be used: {error}"))
    }

    fn error_of_all(&self, error: &KeyError) -> ResolveError {
        ResolveError { json_path: self.json_path.clone(), path: None, problem: format!("cannot be used: {error}") }
    }

    fn error(&self, source: &Source, problem: String) -> ResolveError {
        let json_path = format!("{}.{}", self.json_path, source.key);
        ResolveError { json_path, path: source.path().map(str::to_owned), problem }
    }
}

/// The one key type that programs implement.
const GPG_KEYS: &str = "GPGKeys";

/// Whether there is a PEM or OpenPGP armour line that begins a private key.
fn has_private_key(bytes: &[u8]) -> bool {
    bytes.split(|byte| *byte == b'\n').any(|line| {
        let line = String::from_utf8_lossy(line);
        line.trim_start().starts_with("-----BEGIN ") && line.contains("PRIVATE KEY")
    })
}

/// The keys of a requirement, for people: as many as a line can hold.
fn holders(keys: &OpenPgpKeys) -> String {
    let fingerprints = keys.primary_fingerprints();
    match fingerprints.as_slice() {
        [] => "nobody (there is no key)".to_owned(),
        [one] => format!("the key {one}"),
        [first, second] => format!("any of the keys {first}, {second}"),
        [first, .., last] => format!("any of {} keys, {first} to {last}", fingerprints.len()),
    }
}

/// The start of a fingerprint, as people compare them.
fn short(fingerprint: &Digest) -> String {
    let hex: String = fingerprint.hex().chars().take(16).collect();
    format!("{}:{hex}...", fingerprint.algorithm().as_str())
}

#[cfg(test)]
impl ContainersPolicy {
    /// Makes rules that no document can give.
    pub(super) fn clear_default(&mut self) {
        self.default.requirements.clear();
    }
}
