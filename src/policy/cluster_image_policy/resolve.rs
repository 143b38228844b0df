//! From documents to policies that can be asked: trust roots by name, authorities with what they trust, rules compiled.
//!
//! Where policy-controller would check less than the document seems to say, more is checked here (`docs/policy.md`, "Where
//! Sealgate differs"): a keyless signature always needs a log entry, and a timestamp authority does not switch the log off.

use std::collections::{BTreeMap, HashSet};

use super::rego::Rego;
use super::roots::{At, Roots, unique};
use super::{
    AttestationDocument, AuthorityDocument, CipError, CipMode, ClusterImagePolicyDocument, Origin, PolicyFile,
    SignatureFormat, SignerDocument, SourceDocument, StaticAction,
};
use crate::oci::{Digest, ImageReference, Reference, Repository};
use crate::policy::finding::KnownKeys;
use crate::policy::{AlternateSource, MaterialKind, RestsOn, Wanted};
use crate::verify::{AuthorityTrust, LogRule, Signers, SigstoreRoot, TextPattern, TimestampRule};

/// All ClusterImagePolicies that were configured, ready to be asked.
#[derive(Debug)]
pub struct ClusterImagePolicies {
    /// Those that need no signature material first, else in the order of the files.
    policies: Vec<Policy>,
    /// Those that their globs name.
    digests: HashSet<Digest>,
}

/// One of them.
#[derive(Debug)]
pub(in crate::policy) struct Policy {
    pub(in crate::policy) document: ClusterImagePolicyDocument,
    /// Any of them is enough. Static ones come first, since they need nothing to be looked for. Never empty.
    pub(super) authorities: Vec<Authority>,
    /// `spec.policy`: the last word once an authority is satisfied.
    pub(super) rule: Option<Rego>,
}

/// Who may say that an image is good.
#[derive(Debug)]
pub(super) struct Authority {
    pub(super) name: String,
    pub(super) kind: AuthorityKind,
}

#[derive(Debug)]
pub(super) enum AuthorityKind {
    /// Whatever the image is.
    Static { action: StaticAction, message: String },
    /// A signature, or attestations.
    Signed(Box<Signed>),
}

/// Signatures or attestations of somebody, somewhere.
#[derive(Debug)]
pub(super) struct Signed {
    pub(super) trust: AuthorityTrust,
    pub(super) rests_on: RestsOn,
    pub(super) format: SignatureFormat,
    pub(super) source: Option<SourceDocument>,
    /// All of them are needed; none: a plain signature is.
    pub(super) attestations: Vec<Attestation>,
    /// Whose, for people.
    signer: String,
}

impl Signed {
    /// Whose, for people.
    pub(super) fn signer(&self) -> &str {
        &self.signer
    }
}

/// An attestation that is needed.
#[derive(Debug)]
pub(super) struct Attestation {
    pub(super) name: String,
    pub(super) predicate_type: String,
    pub(super) rule: Option<Rego>,
}

impl ClusterImagePolicies {
    /// Resolves the documents of all files together; `default` is the trust root of authorities that name none.
    ///
    /// # Errors
    /// [`CipError`] when a name comes twice, a trust root is not there or cannot be used, a rule does not compile, or something
    /// is asked for that a mirror cannot look at.
    pub fn resolve(files: Vec<PolicyFile>, default: &SigstoreRoot) -> Result<Self, CipError> {
        let (mut documents, mut trust_roots) = (Vec::new(), Vec::new());
        for file in files {
            documents.extend(file.policies);
            trust_roots.extend(file.trust_roots);
        }
        let roots = Roots::resolve(trust_roots, default)?;
        let mut names: BTreeMap<String, Origin> = BTreeMap::new();
        let mut policies = Vec::new();
        for document in documents {
            unique(&mut names, &document.name, &document.origin)?;
            policies.push(Policy::resolve(document, &roots)?);
        }
        // Stable, so that the first that denies gives the text, and nothing is looked for when that is certain before.
        policies.sort_by_key(|policy| !policy.needs_no_material());
        let globs = policies.iter().flat_map(|policy| &policy.document.images);
        let digests = globs.filter_map(|glob| glob.text.rsplit_once('@')?.1.parse().ok()).collect();
        Ok(Self { policies, digests })
    }

    /// Those that cover the image; all of them must be satisfied.
    pub(in crate::policy) fn covering(&self, image: &ImageReference) -> impl Iterator<Item = &Policy> {
        self.policies.iter().filter(|policy| policy.document.images.iter().any(|glob| glob.covers(image)))
    }

    /// Whether a policy names the very digest that was asked for, and covers it.
    pub(in crate::policy) fn names_digest(&self, image: &ImageReference) -> bool {
        // Asked for every digest that is pulled: one look-up, where no policy names any.
        let Reference::Digest(digest) = &image.reference else { return false };
        if !self.digests.contains(digest) {
            return false;
        }
        let end = format!("@{digest}");
        let mut globs = self.policies.iter().flat_map(|policy| &policy.document.images);
        globs.any(|glob| glob.text.ends_with(&end) && glob.covers(image))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.policies.len()
    }

    /// Whether there is none: files with trust roots alone.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// The documents, for those who look for traps.
    pub(in crate::policy) fn documents(&self) -> impl Iterator<Item = &ClusterImagePolicyDocument> + Clone {
        self.policies.iter().map(|policy| &policy.document)
    }

    /// The repositories outside the image's own in which signatures are looked for, and where the policy says so.
    pub fn sources(&self) -> impl Iterator<Item = (&Origin, &Repository)> {
        let authorities = self.documents().flat_map(|document| &document.authorities);
        authorities.filter_map(|authority| Some((&authority.origin, authority.source.as_ref()?.repository.as_ref()?)))
    }

    /// Every key that signs images, with the policy that lists it.
    pub(in crate::policy) fn add_keys(&self, known: &mut KnownKeys) {
        for policy in &self.policies {
            for authority in &policy.authorities {
                if let AuthorityKind::Signed(signed) = &authority.kind {
                    known.add(signed.trust.keys(), &policy.place());
                }
            }
        }
    }

    /// Everything in it that can change an answer, in its order.
    pub(in crate::policy) fn canonical(&self) -> Vec<String> {
        self.policies.iter().flat_map(Policy::canonical).collect()
    }
}

impl Policy {
    fn resolve(document: ClusterImagePolicyDocument, roots: &Roots<'_>) -> Result<Self, CipError> {
        let error = |field: &str, problem: &str| CipError {
            origin: document.origin.clone(),
            field: field.to_owned(),
            problem: problem.to_owned(),
        };
        if document.authorities.is_empty() {
            return Err(error(
                "spec.authorities",
                "a policy without authorities says nothing; name one, or `static: {action: pass}`",
            ));
        }
        if document.fetch_config_file {
            let problem = "not supported: a decision is made from the signatures alone, before any config is fetched; \
                           sign an attestation about what matters, or remove the field";
            return Err(error("spec.policy.fetchConfigFile", problem));
        }
        let mut authorities = Vec::new();
        for (index, authority) in document.authorities.iter().enumerate() {
            authorities.push(Authority::resolve(authority, &At { origin: &authority.origin, index }, roots)?);
        }
        authorities.sort_by_key(|authority| matches!(authority.kind, AuthorityKind::Signed(_)));
        let rule = document.policy.as_ref().map(|rule| Rego::load(rule, "spec.policy")).transpose()?;
        Ok(Self { document, authorities, rule })
    }

    /// Whether its answer is known without any signature.
    pub(super) fn needs_no_material(&self) -> bool {
        let is_static = |authority: &Authority| matches!(authority.kind, AuthorityKind::Static { .. });
        self.authorities.iter().all(is_static)
            || (self.rule.is_none() && self.authorities.iter().any(Authority::passes))
    }

    /// Whether it refuses everything, whatever is signed.
    pub(super) fn denies_everything(&self) -> bool {
        let fails =
            |authority: &Authority| matches!(authority.kind, AuthorityKind::Static { action: StaticAction::Fail, .. });
        self.document.mode == CipMode::Enforce && self.authorities.iter().all(fails)
    }

    /// What has to be looked for.
    pub(super) fn wanted(&self, image: &ImageReference) -> Wanted {
        if self.needs_no_material() {
            return Wanted::default();
        }
        self.authorities.iter().fold(Wanted::default(), |wanted, authority| match &authority.kind {
            AuthorityKind::Static { .. } => wanted,
            AuthorityKind::Signed(signed) => wanted.and(signed.wanted(image)),
        })
    }

    /// What its authorities accept, for people.
    pub(in crate::policy) fn describe(&self) -> Vec<(String, String)> {
        self.authorities.iter().map(|authority| (authority.name.clone(), authority.describe())).collect()
    }

    /// Its name where keys are listed by place.
    pub(super) fn place(&self) -> String {
        format!("ClusterImagePolicy {}", self.document.name)
    }

    /// Whether its own rule has the last word.
    pub(in crate::policy) fn has_rule(&self) -> bool {
        self.rule.is_some()
    }

    fn canonical(&self) -> Vec<String> {
        let ClusterImagePolicyDocument { name, images, mode, .. } = &self.document;
        let mut lines = vec![format!("policy {name:?} {mode:?}")];
        lines.extend(images.iter().map(|glob| format!("glob {:?}", glob.text)));
        lines.extend(self.authorities.iter().flat_map(Authority::canonical));
        lines.extend(self.rule.iter().map(|rule| format!("policy rule {}", rule.module())));
        lines
    }
}

impl Authority {
    fn resolve(document: &AuthorityDocument, at: &At<'_>, roots: &Roots<'_>) -> Result<Self, CipError> {
        let kind = match &document.signer {
            SignerDocument::Static { action, message } => {
                AuthorityKind::Static { action: *action, message: message.clone() }
            }
            SignerDocument::Key { .. } | SignerDocument::Keyless { .. } => {
                AuthorityKind::Signed(Box::new(Signed::resolve(document, at, roots)?))
            }
        };
        Ok(Self { name: document.name.clone(), kind })
    }

    fn passes(&self) -> bool {
        matches!(self.kind, AuthorityKind::Static { action: StaticAction::Pass, .. })
    }

    /// Its meaning for people.
    pub(super) fn describe(&self) -> String {
        match &self.kind {
            AuthorityKind::Static { action: StaticAction::Pass, .. } => {
                "anything is accepted, signed or not".to_owned()
            }
            AuthorityKind::Static { action: StaticAction::Fail, message } if message.is_empty() => {
                "everything is refused".to_owned()
            }
            AuthorityKind::Static { action: StaticAction::Fail, message } => {
                format!("everything is refused: {message}")
            }
            AuthorityKind::Signed(signed) => signed.describe(),
        }
    }

    fn canonical(&self) -> Vec<String> {
        let mut lines = vec![format!("authority {:?}", self.name)];
        match &self.kind {
            AuthorityKind::Static { action, message } => lines.push(format!("static {action:?} {message:?}")),
            AuthorityKind::Signed(signed) => {
                lines.push(format!("trust {} {:?}", signed.trust.fingerprint(), signed.format));
                let place = |source: &SourceDocument| {
                    let repository = source.repository.as_ref().map(ToString::to_string);
                    let prefix = source.tag_prefix.as_ref().map(ToString::to_string);
                    format!("source {repository:?} {prefix:?}")
                };
                lines.extend(signed.source.iter().map(place));
                for Attestation { name, predicate_type, rule } in &signed.attestations {
                    lines.push(format!("attestation {name:?} {predicate_type:?}"));
                    lines.extend(rule.iter().map(|rule| format!("attestation rule {}", rule.module())));
                }
            }
        }
        lines
    }
}

impl Signed {
    fn resolve(document: &AuthorityDocument, at: &At<'_>, roots: &Roots<'_>) -> Result<Self, CipError> {
        let (signers, signer, root) = signers(document, at, roots)?;
        let rests_on = match &signers {
            Signers::Keys { .. } => RestsOn::Timeless,
            Signers::Keyless { .. } => RestsOn::Certificates,
        };
        let trust =
            AuthorityTrust::new(signers, log_rule(document, at, roots, &root)?, timestamp_rule(document, at, roots)?);
        let with_prefix = document.source.as_ref().is_some_and(|source| source.tag_prefix.is_some());
        if with_prefix && document.format == SignatureFormat::Bundle {
            let problem =
                "bundles lie among the referrers, which have no tags; remove it, or use signatureFormat: legacy";
            return Err(at.error("source[0].tagPrefix", problem));
        }
        let mut attestations = Vec::new();
        for (index, attestation) in document.attestations.iter().enumerate() {
            let AttestationDocument { name, predicate_type, policy, .. } = attestation;
            let field = format!("spec.authorities[{}].attestations[{index}].policy", at.index);
            let rule = policy.as_ref().map(|rule| Rego::load(rule, &field)).transpose()?;
            attestations.push(Attestation { name: name.clone(), predicate_type: predicate_type.clone(), rule });
        }
        Ok(Self { trust, rests_on, format: document.format, source: document.source.clone(), attestations, signer })
    }

    /// Where its signatures lie: this repository, and what is put before `sha256-<hex>` there.
    pub(super) fn repository<'a>(&'a self, image: &'a ImageReference) -> &'a Repository {
        let named = self.source.as_ref().and_then(|source| source.repository.as_ref());
        named.unwrap_or(&image.repository)
    }

    /// The tag under which its signatures of that digest lie, in the legacy format.
    pub(super) fn tag(&self, digest: &Digest) -> String {
        let prefix = self.source.as_ref().and_then(|source| source.tag_prefix.as_ref());
        let prefix = prefix.map(ToString::to_string).unwrap_or_default();
        let suffix = if self.attestations.is_empty() { "sig" } else { "att" };
        format!("{prefix}{}-{}.{suffix}", digest.algorithm().as_str(), digest.hex())
    }

    fn kind(&self) -> MaterialKind {
        match (self.format, self.attestations.is_empty()) {
            (SignatureFormat::Bundle, _) => MaterialKind::Bundles,
            (SignatureFormat::Legacy, true) => MaterialKind::Signatures,
            (SignatureFormat::Legacy, false) => MaterialKind::Attestations,
        }
    }

    fn wanted(&self, image: &ImageReference) -> Wanted {
        let kinds = [self.kind()].into();
        let tag_prefix = self.source.as_ref().and_then(|source| source.tag_prefix.clone());
        let repository = self.repository(image);
        if repository == &image.repository && tag_prefix.is_none() {
            return Wanted { kinds, ..Wanted::default() };
        }
        let source = AlternateSource { repository: repository.clone(), tag_prefix, kinds };
        Wanted { sources: [source].into(), ..Wanted::default() }
    }

    fn describe(&self) -> String {
        let what = match (self.format, self.attestations.as_slice()) {
            (SignatureFormat::Legacy, []) => "a cosign signature".to_owned(),
            (SignatureFormat::Bundle, []) => "a signature in a sigstore bundle".to_owned(),
            (SignatureFormat::Legacy | SignatureFormat::Bundle, attestations) => {
                let one = |attestation: &Attestation| {
                    let rule = if attestation.rule.is_some() { " that its Rego rule accepts" } else { "" };
                    format!("an attestation {}{rule}", attestation.predicate_type)
                };
                attestations.iter().map(one).collect::<Vec<_>>().join(" and ")
            }
        };
        let place = match &self.source {
            None => String::new(),
            Some(SourceDocument { repository, tag_prefix }) => {
                let repository = repository.iter().map(|repository| format!(" in {repository}"));
                let prefix = tag_prefix.iter().map(|prefix| format!(" under tags with the prefix {prefix}"));
                repository.chain(prefix).collect()
            }
        };
        format!("{what} by {}{place}", self.signer)
    }
}

/// Who may sign, the same for people, and the trust root that vouches for them.
fn signers(
    document: &AuthorityDocument,
    at: &At<'_>,
    roots: &Roots<'_>,
) -> Result<(Signers, String, SigstoreRoot), CipError> {
    match &document.signer {
        SignerDocument::Key { keys, hash } => {
            let names: Vec<String> = keys.iter().map(|key| short(&key.fingerprint())).collect();
            let which = if names.len() == 1 { "the key" } else { "any of the keys" };
            let signers = Signers::Keys { keys: keys.clone(), hash: *hash };
            Ok((signers, format!("{which} {}", names.join(", ")), roots.default.clone()))
        }
        SignerDocument::Keyless { ca_cert, identities, trust_root, sct } => {
            let mut root = roots.named_or(at, "keyless.trustRootRef", trust_root.as_deref(), roots.default)?;
            if let Some(pem) = ca_cert {
                let cannot = |error| at.error("keyless.ca-cert", format!("cannot be used: {error}"));
                root = root.with_authorities(pem).map_err(cannot)?;
            }
            let one = |issuer: &TextPattern, subject: &TextPattern| format!("{subject} (issuer {issuer})");
            let names = identities.iter().map(|identity| one(&identity.issuer, &identity.subject));
            let signer = names.collect::<Vec<_>>().join(" or ");
            let signers = Signers::Keyless { root: root.clone(), identities: identities.clone(), sct: *sct };
            Ok((signers, signer, root))
        }
        SignerDocument::Static { .. } => Err(at.error("static", "signs nothing")),
    }
}

/// A key needs a log entry where the policy says `ctlog`; a keyless signature always does, by a log of the root that vouches
/// for its certificate unless `ctlog` names another. `ctlog.url` is never contacted: what counts is attached.
fn log_rule(
    document: &AuthorityDocument,
    at: &At<'_>,
    roots: &Roots<'_>,
    root: &SigstoreRoot,
) -> Result<LogRule, CipError> {
    match (&document.signer, &document.ctlog) {
        (SignerDocument::Key { .. } | SignerDocument::Static { .. }, None) => Ok(LogRule::NotAsked),
        (SignerDocument::Keyless { .. }, None) => Ok(LogRule::Required(root.clone())),
        (_, Some(ctlog)) => {
            let named = ctlog.trust_root.as_deref();
            Ok(LogRule::Required(roots.named_or(at, "ctlog.trustRootRef", named, root)?))
        }
    }
}

fn timestamp_rule(document: &AuthorityDocument, at: &At<'_>, roots: &Roots<'_>) -> Result<TimestampRule, CipError> {
    match &document.timestamp_root {
        None => Ok(TimestampRule::NotAsked),
        Some(name) => Ok(TimestampRule::Required(roots.named(at, "rfc3161timestamp.trustRootRef", name)?)),
    }
}

/// The start of a fingerprint, as people compare them.
fn short(fingerprint: &Digest) -> String {
    let hex: String = fingerprint.hex().chars().take(16).collect();
    format!("{}:{hex}...", fingerprint.algorithm().as_str())
}
