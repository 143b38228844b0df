//! `sealgate policy suggest IMAGE…`: who signed these images, and the policy that would ask for exactly that.
//!
//! Signatures are looked for as `serve` looks for them, in audit mode and in memory; nothing that the configured policy says
//! plays a part. A suggestion is a beginning: it says who signs today, not who should.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::verify::unknown_upstream;
use super::{CliError, ConfigArgument, OutputFormat, Status, output, page, runtime};
use crate::app::Desk;
use crate::clock::Clock;
use crate::config::{Config, Loaded};
use crate::oci::{ImageReference, Manifest};
use crate::policy::{ContainersPolicy, ContainersPolicyDocument, Mode, PolicySet, Settings};
use crate::verify::RekorKeys;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The images, such as registry.k8s.io/pause:3.10
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<ImageReference>,
    /// `text` for people, `json` for programs
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    config: ConfigArgument,
}

/// Status 0 when every image is signed by somebody for whom a policy can be written, 1 when one is not, 3 when one could not
/// be looked at.
pub(super) fn run(arguments: &Arguments) -> Result<Status, CliError> {
    let mut loaded = Config::load(&arguments.config.origin())?;
    let document = loaded.config.trust_root.document().to_vec();
    let canonical = |image: &ImageReference| {
        let found = loaded.config.canonical(image);
        found.ok_or_else(|| unknown_upstream(image.repository.host(), &loaded.config))
    };
    let images = arguments.images.iter().map(canonical).collect::<Result<Vec<_>, _>>()?;
    loaded.snapshot.policy = looking(&loaded)?;
    let runtime = runtime()?;
    let looked = runtime.block_on(async {
        let desk = Desk::open(loaded, Clock::System).await?;
        let mut looked = Vec::new();
        for image in images {
            looked.push(look(&desk, image).await);
        }
        desk.close().await;
        Ok::<_, CliError>(looked)
    })?;
    let suggestion = Suggestion::of(&looked, &Trust::of(&document));
    match arguments.output {
        OutputFormat::Text => output::print(&suggestion.text(&looked))?,
        OutputFormat::Json => output::print_json(&suggestion.json(&looked))?,
    }
    Ok(status(&looked))
}

fn status(looked: &[Looked]) -> Status {
    if looked.iter().any(|looked| looked.failed.is_some()) {
        Status::Undecided
    } else if looked.iter().any(|looked| looked.signers.is_empty()) {
        Status::Denied
    } else {
        Status::Done
    }
}

/// A policy that asks for nothing and reports everything.
fn looking(loaded: &Loaded) -> Result<PolicySet, CliError> {
    let inside = |what: String| CliError::Usage { what, next: "check the trust root of the configuration".to_owned() };
    let document = ContainersPolicyDocument::parse(br#"{"default":[{"type":"insecureAcceptAnything"}]}"#);
    let document = document.map_err(|error| inside(error.to_string()))?;
    let policy = ContainersPolicy::resolve(document, &mut |_| Err(String::new()));
    let policy = policy.map_err(|error| inside(error.to_string()))?;
    let trust_root = loaded.snapshot.policy.trust_root().cloned();
    let settings = Settings { containers_policy: Some(policy), trust_root, mode: Mode::Audit, ..Settings::default() };
    PolicySet::new(settings).map_err(|error| inside(error.to_string()))
}

/// What was found about one image.
struct Looked {
    image: ImageReference,
    digest: String,
    signers: Vec<Value>,
    others: Vec<Value>,
    /// Things to know.
    notes: Vec<String>,
    failed: Option<String>,
}

async fn look(desk: &Desk, image: ImageReference) -> Looked {
    let (mut looked, child) = look_at(desk, &image).await;
    // An index is often signed as a whole; when it is not, its images may be.
    if looked.signers.is_empty()
        && looked.failed.is_none()
        && let Some(child) = child
    {
        let (below, _) = look_at(desk, &child).await;
        if !below.signers.is_empty() {
            looked.notes.push("the index is not signed; these are the signers of its first platform image".to_owned());
            (looked.signers, looked.others) = (below.signers, below.others);
        }
    }
    looked
}

/// The signers of exactly that, and for an index its first platform image.
async fn look_at(desk: &Desk, image: &ImageReference) -> (Looked, Option<ImageReference>) {
    let mut looked = Looked {
        image: image.clone(),
        digest: String::new(),
        signers: Vec::new(),
        others: Vec::new(),
        notes: Vec::new(),
        failed: None,
    };
    let admitted = match desk.puller().manifest(image).await {
        Ok(admitted) => admitted,
        Err(error) => {
            looked.failed = Some(error.to_string());
            return (looked, None);
        }
    };
    looked.digest = admitted.digest().to_string();
    let evidence = match admitted.verdict() {
        Some(id) => desk.store().verdict_by_id(&id).await.and_then(|(_, evidence)| evidence),
        None => None,
    };
    let list = |key: &str| {
        let list = evidence.as_ref().and_then(|evidence| evidence.get(key)).and_then(Value::as_array);
        list.cloned().unwrap_or_default()
    };
    match evidence.as_ref().map(|evidence| evidence.get("signers").is_some()) {
        Some(true) => {}
        Some(false) | None => looked.failed = Some("its signatures could not be looked at".to_owned()),
    }
    (looked.signers, looked.others) = (list("signers"), list("other_signatures"));
    let manifest = Manifest::parse(admitted.bytes(), Some(admitted.media_type().as_str())).ok();
    let child = manifest.as_ref().and_then(|manifest| {
        manifest.children().iter().find(|child| !child.is_attestation_child()).map(|child| child.digest)
    });
    (looked, child.map(|digest| image.with_digest(digest)))
}

/// The parts of a trust root that policy.json names itself.
struct Trust {
    authorities_pem: String,
    logs_pem: Vec<String>,
}

impl Trust {
    fn of(document: &[u8]) -> Self {
        let root: Value = serde_json::from_slice(document).unwrap_or_default();
        let raw = |value: &Value| value.get("rawBytes").and_then(Value::as_str).map(str::to_owned);
        let items = |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let certificates = items(&root, "certificateAuthorities").into_iter().flat_map(|authority| {
            authority.get("certChain").map(|chain| items(chain, "certificates")).unwrap_or_default()
        });
        let authorities = certificates.filter_map(|certificate| Some(pem("CERTIFICATE", &raw(&certificate)?)));
        let logs =
            items(&root, "tlogs").into_iter().filter_map(|log| Some(pem("PUBLIC KEY", &raw(log.get("publicKey")?)?)));
        // policy.json takes ECDSA logs alone.
        let usable = |pem: &String| RekorKeys::from_pems(&[pem.clone().into_bytes()]).is_ok();
        Self { authorities_pem: authorities.collect(), logs_pem: logs.filter(usable).collect() }
    }
}

fn pem(label: &str, base64: &str) -> String {
    let mut pem = format!("-----BEGIN {label}-----\n");
    let text: Vec<char> = base64.chars().filter(|char| !char.is_whitespace()).collect();
    for line in text.chunks(64) {
        pem.extend(line);
        pem.push('\n');
    }
    pem + "-----END " + label + "-----\n"
}

/// One signer in one form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Signed {
    issuer: String,
    subject: String,
    /// None: a plain signature.
    predicate_type: Option<String>,
    bundle: bool,
}

impl Signed {
    fn of(signer: &Value) -> Option<Self> {
        let by = signer.get("signer")?;
        let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        Some(Self {
            issuer: text(by, "issuer")?,
            subject: by.get("subjects")?.as_array()?.first()?.as_str()?.to_owned(),
            predicate_type: text(signer, "predicate_type"),
            bundle: text(signer, "format")? == "sigstore bundle",
        })
    }

    fn is_email(&self) -> bool {
        self.subject.contains('@') && !self.subject.contains("://")
    }

    fn words(&self) -> String {
        let what = match &self.predicate_type {
            None => "signature".to_owned(),
            Some(predicate_type) => format!("attestation {predicate_type}"),
        };
        let form = if self.bundle { "bundle" } else { "legacy format" };
        format!("{what} by {} (issuer {}), {form}", self.subject, self.issuer)
    }
}

/// The policies.
#[derive(Default)]
struct Suggestion {
    /// Scope by scope.
    docker: BTreeMap<String, Value>,
    policy_notes: Vec<String>,
    /// How many policies have the name.
    names: BTreeMap<String, usize>,
    /// YAML, one document a repository.
    cluster_image_policies: String,
}

impl Suggestion {
    fn of(looked: &[Looked], trust: &Trust) -> Self {
        let mut by_repository: BTreeMap<String, BTreeSet<Signed>> = BTreeMap::new();
        for looked in looked {
            let signed = looked.signers.iter().filter_map(Signed::of);
            by_repository.entry(looked.image.repository.to_string()).or_default().extend(signed);
        }
        let mut suggestion = Self::default();
        for (repository, signed) in by_repository.iter().filter(|(_, signed)| !signed.is_empty()) {
            suggestion.scope(repository, signed, trust);
            suggestion.policy(repository, signed);
        }
        suggestion
    }

    /// policy.json can name e-mail addresses alone, and AND is all it knows: the first signer.
    fn scope(&mut self, repository: &str, signed: &BTreeSet<Signed>, trust: &Trust) {
        let mut fit = signed.iter().filter(|signed| signed.predicate_type.is_none() && signed.is_email());
        let Some(first) = fit
            .find(|signed| !signed.bundle)
            .or_else(|| signed.iter().find(|signed| signed.predicate_type.is_none() && signed.is_email()))
        else {
            let note = format!(
                "{repository}: policy.json can ask for signatures by e-mail addresses and by keys alone; use the ClusterImagePolicy"
            );
            self.policy_notes.push(note);
            return;
        };
        if first.bundle {
            let note = format!(
                "{repository}: bundles name no reference; add [[policy.override]] scope = \"{repository}\", bundles_without_identity = true"
            );
            self.policy_notes.push(note);
        }
        if signed.len() > 1 {
            let note =
                format!("{repository}: only the first signer; further requirements would all have to be satisfied");
            self.policy_notes.push(note);
        }
        let logs: Vec<String> = trust.logs_pem.iter().map(|pem| STANDARD.encode(pem)).collect();
        let requirement = json!({
            "type": "sigstoreSigned",
            "fulcio": {
                "caData": STANDARD.encode(&trust.authorities_pem),
                "oidcIssuer": first.issuer,
                "subjectEmail": first.subject,
            },
            "rekorPublicKeyDatas": logs,
            "signedIdentity": { "type": "matchRepository" },
        });
        self.docker.insert(repository.to_owned(), json!([requirement]));
    }

    /// An authority for each signer: any of them is enough.
    fn policy(&mut self, repository: &str, signed: &BTreeSet<Signed>) {
        let name: String =
            repository.chars().map(|char| if char.is_ascii_alphanumeric() { char } else { '-' }).collect();
        // Two repositories may come to one name, and names are unique.
        let number =
            self.names.entry(name.clone()).and_modify(|number| *number = number.saturating_add(1)).or_insert(1);
        let name = if *number > 1 { format!("{name}-{number}") } else { name };
        let mut yaml = format!(
            "---\napiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata:\n  name: {}\nspec:\n  images:\n",
            quoted(&name.to_ascii_lowercase())
        );
        for glob in [format!("{repository}:*"), format!("{repository}@*")] {
            push(&mut yaml, &format!("  - glob: {}\n", quoted(&glob)));
        }
        yaml.push_str("  # Any of these authorities is enough; delete those whom you do not mean.\n  authorities:\n");
        for (number, signed) in signed.iter().enumerate() {
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

    fn policy_json(&self) -> Option<Value> {
        let transports = json!({ "docker": self.docker });
        (!self.docker.is_empty()).then(|| json!({ "default": [{ "type": "reject" }], "transports": transports }))
    }

    fn json(&self, looked: &[Looked]) -> Value {
        let images: Vec<Value> = looked
            .iter()
            .map(|looked| {
                json!({
                    "reference": looked.image.to_string(),
                    "digest": looked.digest,
                    "signers": looked.signers,
                    "other_signatures": looked.others,
                    "notes": looked.notes,
                    "error": looked.failed,
                })
            })
            .collect();
        json!({
            "images": images,
            "policy_json": self.policy_json(),
            "policy_json_notes": self.policy_notes,
            "cluster_image_policies": self.cluster_image_policies,
        })
    }

    fn text(&self, looked: &[Looked]) -> String {
        let mut text = String::new();
        for looked in looked {
            comment(&mut text, &format!("{} {}", looked.image, looked.digest));
            for line in seen(looked) {
                comment(&mut text, &format!("  {line}"));
            }
        }
        let policy = self.policy_json();
        if policy.is_some() || !self.policy_notes.is_empty() {
            text.push('\n');
            comment(&mut text, "policy.json (policy.containers_policy); every other image is rejected by its default");
            self.policy_notes.iter().for_each(|note| comment(&mut text, note));
        }
        if let Some(policy) = policy {
            push(&mut text, &format!("{policy:#}\n"));
        }
        if !self.cluster_image_policies.is_empty() {
            text.push('\n');
            comment(&mut text, "ClusterImagePolicy (policy.cluster_image_policies)");
            text.push_str(&self.cluster_image_policies);
        }
        text
    }
}

/// What was seen on one image, for people.
fn seen(looked: &Looked) -> Vec<String> {
    if let Some(failed) = &looked.failed {
        return vec![format!("could not be looked at: {failed}")];
    }
    let mut lines = looked.notes.clone();
    lines.extend(looked.signers.iter().filter_map(Signed::of).map(|signed| signed.words()));
    for other in &looked.others {
        let field = |key: &str| output::field(other, key);
        lines.push(match other.get("key").and_then(Value::as_str) {
            Some(key) => format!(
                "{} by the key {key}, for which nobody vouches: ask its owner for the public key, and name its file in keyPath",
                field("format")
            ),
            None => format!("{} that no trust root vouches for: {}", field("format"), field("why")),
        });
    }
    if looked.signers.is_empty() && looked.others.is_empty() {
        lines.push(
            "nothing is signed by cosign: no signature, attestation or bundle was found (OpenPGP is not looked for)"
                .to_owned(),
        );
    } else if looked.signers.is_empty() {
        lines.push("nobody signed it whom the trust root knows".to_owned());
    }
    lines
}

fn comment(text: &mut String, line: &str) {
    let indent = line.len().saturating_sub(line.trim_start().len());
    let first = format!("# {}", " ".repeat(indent));
    push(text, &page::wrapped(&first, &format!("{first}  "), line));
}

fn push(text: &mut String, more: &str) {
    text.push_str(more);
}

/// As a double-quoted scalar of YAML, which takes JSON's strings as they are.
fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}
