//! `sealgate policy suggest IMAGE…`: who signed these images, and the policy that would ask for exactly that.
//!
//! Signatures are looked for as `serve` looks for them, in audit mode and in memory; nothing that the configured policy says
//! plays a part. A suggestion is a beginning: it says who signs today, not who should.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::suggestion::{Found, OpenPgpClaim, Signed, Suggestion, Trust, comment};
use super::verify::unknown_upstream;
use super::{CliError, ConfigArgument, OutputFormat, Status, output, runtime};
use crate::app::Desk;
use crate::clock::Clock;
use crate::config::{Config, Loaded};
use crate::oci::{ImageReference, Manifest};
use crate::policy::{ContainersPolicy, ContainersPolicyDocument, Mode, PolicySet, Settings};

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
    let lookaside = |image: &ImageReference| {
        let base = loaded.snapshot.policy.registries_d().lookaside(image);
        base.map(|base| base.as_str().to_owned())
    };
    let images: Vec<_> = images.into_iter().map(|image| (lookaside(&image), image)).collect();
    let runtime = runtime()?;
    let looked = runtime.block_on(async {
        let desk = Desk::open(loaded, Clock::System).await?;
        let mut looked = Vec::new();
        for (lookaside, image) in images {
            looked.push(Looked { lookaside, ..look(&desk, image).await });
        }
        desk.close().await;
        Ok::<_, CliError>(looked)
    })?;
    let suggestion = Suggestion::of(&found(&looked), &Trust::of(&document));
    match arguments.output {
        OutputFormat::Text => output::print(&(seen_text(&looked) + &suggestion.text()))?,
        OutputFormat::Json => {
            let images: Vec<Value> = looked.iter().map(Looked::json).collect();
            output::print_json(&suggestion.json(&images))?;
        }
    }
    Ok(status(&looked))
}

fn status(looked: &[Looked]) -> Status {
    if looked.iter().any(|looked| looked.failed.is_some()) {
        Status::Undecided
    } else if looked.iter().any(|looked| !looked.is_signed()) {
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
    let registries_d = loaded.snapshot.policy.registries_d().clone();
    let settings = Settings {
        containers_policy: Some(policy),
        trust_root,
        registries_d,
        mode: Mode::Audit,
        ..Settings::default()
    };
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
    /// Below which address its OpenPGP signatures would lie; none: they are not looked for.
    lookaside: Option<String>,
}

impl Looked {
    fn openpgp(&self) -> impl Iterator<Item = OpenPgpClaim> {
        self.others.iter().filter_map(|other| OpenPgpClaim::of(other, &self.image))
    }

    /// By somebody for whom a policy can be written.
    fn is_signed(&self) -> bool {
        !self.signers.is_empty() || self.openpgp().next().is_some()
    }

    fn json(&self) -> Value {
        json!({
            "reference": self.image.to_string(),
            "digest": self.digest,
            "signers": self.signers,
            "other_signatures": self.others,
            "notes": self.notes,
            "error": self.failed,
        })
    }
}

/// Repository by repository.
fn found(looked: &[Looked]) -> BTreeMap<String, Found> {
    let mut by_repository: BTreeMap<String, Found> = BTreeMap::new();
    for looked in looked {
        let found = by_repository.entry(looked.image.repository.to_string()).or_default();
        found.signed.extend(looked.signers.iter().filter_map(Signed::of));
        found.openpgp.extend(looked.openpgp());
        found.lookaside = found.lookaside.take().or_else(|| looked.lookaside.clone());
    }
    by_repository
}

async fn look(desk: &Desk, image: ImageReference) -> Looked {
    let (mut looked, child) = look_at(desk, &image).await;
    // An index is often signed as a whole; when it is not, its images may be.
    if !looked.is_signed()
        && looked.failed.is_none()
        && let Some(child) = child
    {
        let (below, _) = look_at(desk, &child).await;
        if below.is_signed() {
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
        lookaside: None,
    };
    let admitted = match desk.puller().manifest(image).await {
        Ok(admitted) => admitted,
        Err(error) => {
            looked.failed = Some(error.to_string());
            return (looked, None);
        }
    };
    looked.digest = admitted.digest().to_string();
    desk.puller().reported().await;
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
    let gaps = list("not_reported");
    let said = gaps.iter().map(|gap| format!("{}: {}", output::field(gap, "place"), output::field(gap, "why")));
    looked.notes.extend(said.map(|gap| format!("not looked at: {gap}")));
    // That nobody signed it can be said by whoever has looked everywhere.
    if looked.signers.is_empty() && looked.others.is_empty() && !gaps.is_empty() {
        looked.failed = looked.notes.first().cloned();
    }
    let manifest = Manifest::parse(admitted.bytes(), Some(admitted.media_type().as_str())).ok();
    let child = manifest.as_ref().and_then(|manifest| {
        manifest.children().iter().find(|child| !child.is_attestation_child()).map(|child| child.digest)
    });
    (looked, child.map(|digest| image.with_digest(digest)))
}

/// What was seen, for people.
fn seen_text(looked: &[Looked]) -> String {
    let mut text = String::new();
    for looked in looked {
        comment(&mut text, &format!("{} {}", looked.image, looked.digest));
        for line in seen(looked) {
            comment(&mut text, &format!("  {line}"));
        }
    }
    text
}

/// What was seen on one image.
fn seen(looked: &Looked) -> Vec<String> {
    if let Some(failed) = &looked.failed {
        return vec![format!("could not be looked at: {failed}")];
    }
    let mut lines = looked.notes.clone();
    lines.extend(looked.signers.iter().filter_map(Signed::of).map(|signed| signed.words()));
    lines.extend(looked.openpgp().map(|claim| claim.words()));
    for other in looked.others.iter().filter(|other| other.get("openpgp").is_none_or(Value::is_null)) {
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
        lines.push("nothing is signed: no signature, attestation or bundle was found".to_owned());
    } else if !looked.is_signed() {
        lines.push("nobody signed it whom the trust root knows".to_owned());
    }
    match &looked.lookaside {
        None => lines.push(
            "OpenPGP signatures were not looked for: policy.registries_d names no lookaside for this image".to_owned(),
        ),
        Some(base) if looked.openpgp().next().is_none() => lines.push(format!("no OpenPGP signature below {base}")),
        Some(_) => {}
    }
    lines
}
