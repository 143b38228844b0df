//! `sealgate policy replay`: which stored verdicts would flip under another policy. From stored material alone; no registry
//! is asked, and nothing under `data_dir` is changed.
//!
//! The verdicts of a mirror that is down are read from a copy of its database; one that runs is asked for them. Material is
//! read by digest, for each verdict into a store of its own in memory. A policy that looks in other places than the one
//! before may find what was never looked for, and not all that was found is kept: then it cannot be told.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::admin_client::{AdminAddress, AdminClient, Reply};
use super::config::counted;
use super::{CliError, ConfigArgument, OutputFormat, Status, output, page, runtime};
use crate::app::AppError;
use crate::clock::Clock;
use crate::config::{Config, Loaded, Replacement};
use crate::limits::{VERDICT_MATERIAL_MAX, VERDICTS_PAGE_MAX};
use crate::oci::{Digest, ImageReference, Manifest, ManifestKind};
use crate::policy::{Decision, Material, MultiArch, Plan, PolicySet, Wanted};
use crate::pull::{restore_material, stored_material};
use crate::store::{self, Store, StoreError, read_content, read_verdicts};
use crate::telemetry::Telemetry;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The other policy: a policy.json or a ClusterImagePolicy YAML, which replaces that format, or a configuration (.toml),
    /// whose whole `policy` section is used
    #[arg(long = "with", value_name = "FILE")]
    with: PathBuf,
    /// Admin listener of the mirror, asked when it runs; the default is `server.admin_listen` of the configuration
    #[arg(long, value_name = "URL")]
    admin: Option<AdminAddress>,
    /// `text` for people, `json` for programs
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    config: ConfigArgument,
}

/// One verdict as it is stored.
#[derive(Debug)]
struct Known {
    id: String,
    image: ImageReference,
    digest: Digest,
    decision: Decision,
    image_bytes: Option<u64>,
    material: Vec<Digest>,
    /// Whether that was all there was.
    material_complete: bool,
}

/// What the other policy would say.
#[derive(Debug)]
enum Outcome {
    Same,
    Flips(String),
    CannotTell(String),
}

/// Status 1 when something flips, else 3 when something cannot be told, else 0.
pub(super) fn run(arguments: &Arguments) -> Result<Status, CliError> {
    let origin = arguments.config.origin();
    let now = Config::load(&origin)?;
    // Else the configuration would be blamed, which names another file.
    File::open(&arguments.with).map_err(|error| CliError::Usage {
        what: format!("cannot read --with {}: {error}", arguments.with.display()),
        next: "name a policy.json, the .yaml of a ClusterImagePolicy, or a configuration (.toml)".to_owned(),
    })?;
    let replacement = Replacement::by_name(&arguments.with);
    let then = Config::load_replacing(&origin, &replacement)?.snapshot.policy;
    let directory = directory(&now)?;
    let judged = runtime()?.block_on(async {
        let mut judged = Vec::new();
        for verdict in known(&now, arguments.admin.as_ref(), &directory).await? {
            let outcome = judge(&now, &then, &verdict, &directory).await?;
            judged.push((verdict, outcome));
        }
        Ok::<_, CliError>(judged)
    })?;
    match arguments.output {
        OutputFormat::Text => output::print(&text(&judged))?,
        OutputFormat::Json => output::print_json(&json!({
            "with": arguments.with.display().to_string(),
            "verdicts": judged.iter().map(|(known, outcome)| entry(known, outcome)).collect::<Vec<_>>(),
        }))?,
    }
    let any = |is: fn(&Outcome) -> bool| judged.iter().any(|(_, outcome)| is(outcome));
    Ok(if any(|outcome| matches!(outcome, Outcome::Flips(_))) {
        Status::Denied
    } else if any(|outcome| matches!(outcome, Outcome::CannotTell(_))) {
        Status::Undecided
    } else {
        Status::Done
    })
}

fn directory(now: &Loaded) -> Result<PathBuf, CliError> {
    let directory = now.config.store.data_dir.clone().unwrap_or_default();
    if directory.is_dir() {
        return Ok(directory);
    }
    Err(CliError::Usage {
        what: format!("there are no verdicts: {} is no directory", directory.display()),
        next: "name the configuration of the mirror with --config".to_owned(),
    })
}

/// The verdicts of the policy in force.
async fn known(now: &Loaded, admin: Option<&AdminAddress>, directory: &Path) -> Result<Vec<Known>, CliError> {
    let read = match read_verdicts(directory, Clock::System.now()).await {
        Ok(read) => read,
        Err(StoreError::Locked { .. }) => return from_running(now, admin).await,
        Err(error) => return Err(unreadable(&error)),
    };
    let (policy, trust_root) = (now.snapshot.policy.fingerprint(), now.snapshot.trust_root);
    let in_force = read.iter().filter(|one| one.key.policy == policy && one.key.trust_root == trust_root);
    Ok(in_force
        .map(|one| Known {
            id: one.key.id().to_string(),
            image: one.key.image.clone(),
            digest: one.key.digest,
            decision: one.decision,
            image_bytes: one.image_size.map(|size| size.bytes),
            material: one.material.clone(),
            material_complete: one.material_complete,
        })
        .collect())
}

fn unreadable(error: &StoreError) -> CliError {
    let why = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    CliError::Usage {
        what: format!("the verdicts of the mirror cannot be read: {error}{why}"),
        next: "run it as the user of the mirror; beside the running mirror its verdicts are asked for".to_owned(),
    }
}

/// The verdicts by the admin API.
async fn from_running(now: &Loaded, admin: Option<&AdminAddress>) -> Result<Vec<Known>, CliError> {
    let default = format!("http://{}", now.config.server.admin_listen);
    let base = admin.cloned().or_else(|| default.parse().ok()).ok_or_else(|| CliError::Usage {
        what: format!("{default} is no address"),
        next: "name the admin listener with --admin URL".to_owned(),
    })?;
    let client = AdminClient::new(&base, None)?;
    let (mut known, mut after) = (Vec::new(), None::<String>);
    loop {
        let mut query = vec![("limit", VERDICTS_PAGE_MAX.to_string())];
        query.extend(after.take().map(|after| ("after", after)));
        let Reply::Found(page) = client.get("/api/v1/verdicts", &query).await? else {
            return Err(client.is_something_else());
        };
        let verdicts = page.get("verdicts").and_then(Value::as_array).ok_or_else(|| client.is_something_else())?;
        let policy = now.snapshot.policy.fingerprint().to_string();
        let trust_root = now.snapshot.trust_root.to_string();
        for verdict in verdicts {
            if text_of(verdict, "policy") == policy && text_of(verdict, "trust_root") == trust_root {
                known.push(read(verdict).ok_or_else(|| client.is_something_else())?);
            }
        }
        match page.get("next").and_then(Value::as_str) {
            Some(next) => after = Some(next.to_owned()),
            None => break,
        }
    }
    for verdict in known.iter_mut().filter(|one| one.material.is_empty() && !one.material_complete) {
        complete(&client, verdict).await?;
    }
    Ok(known)
}

/// A long list of material is not among what is listed, only with the verdict itself. One that is gone meanwhile stays as it is.
async fn complete(client: &AdminClient, known: &mut Known) -> Result<(), CliError> {
    if let Reply::Found(verdict) = client.get(&format!("/api/v1/verdicts/{}", known.id), &[]).await?
        && let Some(whole) = read(&verdict)
        // Decided again meanwhile, it is another verdict under the same name.
        && (whole.decision, whole.digest) == (known.decision, known.digest)
    {
        *known = whole;
    }
    Ok(())
}

fn text_of<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn read(verdict: &Value) -> Option<Known> {
    let material = verdict.get("material").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    Some(Known {
        id: text_of(verdict, "id").to_owned(),
        image: text_of(verdict, "image").parse().ok()?,
        digest: text_of(verdict, "digest").parse().ok()?,
        decision: match text_of(verdict, "decision") {
            "allow" => Decision::Allow,
            "deny" => Decision::Deny,
            _ => return None,
        },
        image_bytes: verdict.get("image_bytes").and_then(Value::as_u64),
        material: material
            .iter()
            .take(VERDICT_MATERIAL_MAX)
            .map(|digest| digest.as_str()?.parse().ok())
            .collect::<Option<_>>()?,
        material_complete: verdict.get("material_complete") == Some(&Value::Bool(true)),
    })
}

/// What a verdict rests on, as far as it is kept.
struct Kept {
    /// In memory.
    store: Store,
    /// Whether it is all that was found.
    is_whole: bool,
}

/// Reads what the verdict rests on; what is not there, or not what its name says, is left out.
async fn restore(now: &Loaded, verdict: &Known, directory: &Path) -> Result<Kept, CliError> {
    let in_memory = store::Settings { data_dir: None, min_free_bytes: 0, ..now.config.store.clone() };
    let store = Store::open(in_memory, Clock::System, Telemetry::default()).await;
    let store = store.map_err(|error| AppError::Store(Box::new(error)))?;
    let (mut manifests, mut is_whole) = (Vec::new(), verdict.material_complete);
    for digest in &verdict.material {
        let bytes = read_content(directory, digest).await;
        let manifest = bytes.and_then(|bytes| Some((Manifest::parse(&bytes, None).ok()?, bytes)));
        let Some((manifest, bytes)) = manifest else {
            is_whole = false;
            continue;
        };
        if let ManifestKind::Image(image) = &manifest.kind {
            for layer in &image.layers {
                match read_content(directory, &layer.digest).await {
                    Some(payload) => store.keep_content(&layer.digest, payload).await,
                    None => is_whole = false,
                }
            }
        }
        manifests.push(bytes);
    }
    restore_material(&store, &verdict.image.repository, &verdict.digest, manifests).await;
    Ok(Kept { store, is_whole })
}

async fn judge(now: &Loaded, then: &PolicySet, known: &Known, directory: &Path) -> Result<Outcome, CliError> {
    let image = &known.image;
    if let (Some(bytes), Some(max)) = (known.image_bytes, then.max_image_bytes(image, &known.digest))
        && bytes > max
    {
        return Ok(compare(known, Decision::Deny, format!("the image has {bytes} bytes, {max} are allowed")));
    }
    let at = Clock::System.now();
    let wanted = match then.plan(image) {
        Plan::NeedsMaterial(wanted) => wanted,
        // What is found has no part in the answer.
        Plan::WithoutMaterial | Plan::WantsMaterial(_) => {
            return Ok(match then.evaluate(image, &known.digest, &Material::default(), at) {
                Ok(verdict) => compare(known, verdict.decision, verdict.text),
                Err(error) => Outcome::CannotTell(format!("no answer: {error}")),
            });
        }
    };
    let before = now.snapshot.policy.plan(image);
    if !wanted.sources.is_empty() || has_sources(&before) {
        return Ok(Outcome::CannotTell("signatures of other repositories are part of the answer".to_owned()));
    }
    let kept = restore(now, known, directory).await?;
    let found = stored_material(&kept.store, &image.repository, &known.digest, &wanted).await;
    kept.store.close().await;
    let nothing_found = kept.is_whole && known.material.is_empty();
    let Some(mut material) = found.or_else(|| nothing_found.then(Material::default)) else {
        return Ok(Outcome::CannotTell("the signature material of this image is not stored".to_owned()));
    };
    // Signatures of lookaside servers are not among what is read here. A rule over all there is must not be asked about a part.
    let may_be_more = !kept.is_whole || wanted.lookaside.is_some() || !is_within(&wanted, &before);
    material.incomplete |= may_be_more;
    let verdict = match then.evaluate(image, &known.digest, &material, at) {
        Ok(verdict) => verdict,
        Err(error) => return Ok(Outcome::CannotTell(format!("no answer: {error}"))),
    };
    if verdict.decision == Decision::Deny {
        if may_be_more {
            let why = "more may be found than is stored: it was not looked for, or not kept";
            return Ok(Outcome::CannotTell(why.to_owned()));
        }
        // An index has no size, and its children may have what it has not.
        if known.image_bytes.is_none() && then.multi_arch(image, &known.digest) != MultiArch::LeafOnly {
            let why = "it may be an index that its platform images admit; see their verdicts";
            return Ok(Outcome::CannotTell(why.to_owned()));
        }
    }
    Ok(compare(known, verdict.decision, verdict.text))
}

fn has_sources(plan: &Plan) -> bool {
    match plan {
        Plan::WithoutMaterial => false,
        Plan::NeedsMaterial(wanted) | Plan::WantsMaterial(wanted) => !wanted.sources.is_empty(),
    }
}

fn compare(known: &Known, then: Decision, why: String) -> Outcome {
    if known.decision == then { Outcome::Same } else { Outcome::Flips(why) }
}

/// Whether everything that is wanted was looked for under the policy in force.
fn is_within(wanted: &Wanted, before: &Plan) -> bool {
    match before {
        // What only warnings depend on may have been left for another time.
        Plan::WithoutMaterial | Plan::WantsMaterial(_) => false,
        Plan::NeedsMaterial(before) => before.clone().and(wanted.clone()) == *before,
    }
}

fn text(judged: &[(Known, Outcome)]) -> String {
    let (mut lines, mut same, mut flips, mut unknown) = (Vec::new(), 0_usize, 0_usize, 0_usize);
    for (known, outcome) in judged {
        let (what, why) = match outcome {
            Outcome::Same => {
                same = same.saturating_add(1);
                continue;
            }
            Outcome::Flips(why) => {
                flips = flips.saturating_add(1);
                (flip(known.decision), why)
            }
            Outcome::CannotTell(why) => {
                unknown = unknown.saturating_add(1);
                ("cannot tell", why)
            }
        };
        let indent = " ".repeat(18);
        lines.push(format!("{}  {what}  {}\n{}", known.id, known.image, page::wrapped(&indent, &indent, why)));
    }
    lines.push(format!(
        "{}: {same} unchanged, {flips} flip, {unknown} cannot be told\n",
        counted(judged.len(), "verdict")
    ));
    if unknown > 0 {
        let next = "with the other policy in a configuration of its own, `sealgate verify --config FILE IMAGE` asks \
                    the registry about what cannot be told";
        lines.push(page::wrapped("next: ", "  ", next));
    }
    lines.concat()
}

fn flip(before: Decision) -> &'static str {
    match before {
        Decision::Allow => "allow -> deny",
        Decision::Deny => "deny -> allow",
    }
}

fn entry(known: &Known, outcome: &Outcome) -> Value {
    let (result, why) = match outcome {
        Outcome::Same => ("unchanged", None),
        Outcome::Flips(why) if known.decision == Decision::Allow => ("allow_to_deny", Some(why)),
        Outcome::Flips(why) => ("deny_to_allow", Some(why)),
        Outcome::CannotTell(why) => ("cannot_tell", Some(why)),
    };
    json!({
        "id": known.id, "image": known.image.to_string(), "digest": known.digest.to_string(),
        "result": result, "reason": why,
    })
}
