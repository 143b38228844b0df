//! `sealgate policy check` and `explain`: what the policy says, without asking any registry.

use clap::Subcommand;
use serde_json::{Value, json};

use super::config::counted;
use super::{CliError, ConfigArgument, OutputFormat, Status, output, page, tree};
use crate::clock::Clock;
use crate::config::{Config, short};
use crate::oci::ImageReference;
use crate::policy::{
    CipMode, Explanation, Finding, Mode, MultiArch, NoMatch, Plan, PolicyExplanation, Requires, ScopeExplanation,
    Severity, Wanted,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Find mistakes in the policy, and traps such as scopes that never match
    Check(CheckArguments),
    /// Print which scope and requirements apply to an image; asks no registry
    Explain(ExplainArguments),
    /// Print policies that ask for the signers found on these images
    Suggest(super::suggest::Arguments),
    /// Print which stored verdicts would flip under another policy; asks no registry
    Replay(super::replay::Arguments),
}

#[derive(Debug, clap::Args)]
pub(super) struct CheckArguments {
    /// `text` for people, `json` for programs
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    config: ConfigArgument,
}

#[derive(Debug, clap::Args)]
pub(super) struct ExplainArguments {
    /// The image, such as registry.k8s.io/pause:3.10 or NAME@sha256:…
    #[arg(value_name = "IMAGE")]
    image: ImageReference,
    /// `text` for people, `json` for programs
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    config: ConfigArgument,
}

pub(super) fn run(command: &Command) -> Result<Status, CliError> {
    match command {
        Command::Check(arguments) => check(arguments),
        Command::Explain(arguments) => explain(arguments),
        Command::Suggest(arguments) => super::suggest::run(arguments),
        Command::Replay(arguments) => super::replay::run(arguments),
    }
}

/// Status 2 when there is certainly a mistake; warnings and notes alone are status 0.
fn check(arguments: &CheckArguments) -> Result<Status, CliError> {
    let loaded = Config::load(&arguments.config.origin())?;
    let mut findings = loaded.snapshot.policy.lint(Clock::System.now());
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let origin = loaded.config.policy_origin.clone();
    let fingerprint = loaded.snapshot.policy.fingerprint();
    match arguments.output {
        OutputFormat::Text => output::print(&findings_text(&origin, &short(&fingerprint), &findings))?,
        OutputFormat::Json => output::print_json(&json!({
            "policy": origin,
            "fingerprint": fingerprint.to_string(),
            "findings": findings.iter().map(finding_json).collect::<Vec<_>>(),
        }))?,
    }
    let wrong = findings.iter().any(|finding| finding.severity == Severity::Error);
    Ok(if wrong { Status::Usage } else { Status::Done })
}

fn findings_text(origin: &str, fingerprint: &str, findings: &[Finding]) -> String {
    let shown = |finding: &Finding| {
        let head = format!("{}: {}\n", finding.severity.as_str(), output::Shown(&finding.json_path));
        head + page::wrapped("  ", "  ", &finding.text).as_str()
    };
    let lines: String = findings.iter().map(shown).collect();
    let count = |severity, noun| counted(findings.iter().filter(|finding| finding.severity == severity).count(), noun);
    let counts = [count(Severity::Error, "error"), count(Severity::Warning, "warning"), count(Severity::Note, "note")];
    format!("{lines}{origin} (fingerprint {fingerprint}): {}\n", counts.join(", "))
}

fn finding_json(finding: &Finding) -> Value {
    json!({ "severity": finding.severity.as_str(), "path": finding.json_path, "text": finding.text })
}

fn explain(arguments: &ExplainArguments) -> Result<Status, CliError> {
    let loaded = Config::load(&arguments.config.origin())?;
    let canonical = loaded.config.canonical(&arguments.image);
    let upstream = canonical.is_some();
    let image = canonical.as_ref().unwrap_or(&arguments.image);
    let explanation = loaded.snapshot.policy.explain(image, Clock::System.now());
    let origin = loaded.config.policy_origin.clone();
    match arguments.output {
        OutputFormat::Text => output::print(&explanation_text(image, upstream, &origin, &explanation))?,
        OutputFormat::Json => output::print_json(&explanation_json(image, upstream, &origin, &explanation))?,
    }
    Ok(Status::Done)
}

fn explanation_text(image: &ImageReference, upstream: bool, origin: &str, explanation: &Explanation<'_>) -> String {
    let mut rows = vec![("policy", origin.to_owned())];
    if let Some(scope) = &explanation.containers_policy {
        rows.extend(scope_rows(scope));
    }
    if let Some(policies) = &explanation.cluster_image_policies {
        rows.extend(policies.iter().flat_map(policy_rows));
        if policies.is_empty() {
            let text = match explanation.no_match {
                None => "none matches, so policy.json alone decides",
                Some(NoMatch::Deny) => "none matches, so the image is refused (no_match)",
                Some(NoMatch::Allow) => "none matches, so the image is served (no_match)",
                Some(NoMatch::Warn) => "none matches, so the image is served with a warning (no_match)",
            };
            rows.push(("ClusterImagePolicy", text.to_owned()));
        }
    }
    rows.push(("signatures", signatures(explanation)));
    rows.push(("platforms", platforms(explanation.multi_arch).to_owned()));
    if let Some(bytes) = explanation.max_image_bytes {
        rows.push(("size", format!("at most {} in config and layers (max_image_bytes)", tree::bytes(bytes))));
    }
    rows.push(("mode", mode_text(explanation.mode).to_owned()));
    if let Some(exemption) = explanation.exemption {
        let text = format!(
            "{} until {}, by {}: {}",
            exemption.scope.as_str(),
            exemption.expires,
            exemption.owner,
            exemption.reason
        );
        rows.push(("exempt", text));
    }
    if !upstream {
        let text = format!("{} is not a configured upstream, so its images cannot be pulled", image.repository.host());
        rows.push(("upstream", text));
    }
    format!("{image}\n{}", page::Rows(&rows))
}

fn scope_rows(explained: &ScopeExplanation<'_>) -> Vec<(&'static str, String)> {
    let scope = match explained.scope {
        Some("") => "\"\" (every image of a registry)".to_owned(),
        Some(scope) => format!("\"{scope}\""),
        None => "none matches, so the default decides".to_owned(),
    };
    let mut rows = vec![("scope", scope), ("where", explained.json_path.to_owned())];
    for (index, requires) in explained.requirements.iter().enumerate() {
        rows.push((if index == 0 { "requires" } else { "and" }, requires.means.clone()));
    }
    rows
}

fn policy_rows(policy: &PolicyExplanation) -> Vec<(&'static str, String)> {
    let mode = match policy.mode {
        CipMode::Enforce => "",
        CipMode::Warn => ", warns only",
    };
    let mut rows = vec![("ClusterImagePolicy", format!("{} ({}{mode})", policy.name, policy.defined))];
    for (index, (name, means)) in policy.authorities.iter().enumerate() {
        rows.push((if index == 0 { "requires" } else { "or" }, format!("{means} (authority {name})")));
    }
    if policy.has_rule {
        rows.push(("and", "what its Rego rule says of all that match".to_owned()));
    }
    rows
}

fn explanation_json(image: &ImageReference, upstream: bool, origin: &str, explanation: &Explanation<'_>) -> Value {
    let applies = explanation.containers_policy.as_ref();
    let requirements = applies.map(|applies| {
        let requires = |one: &Requires| json!({ "path": one.json_path, "type": one.kind, "means": one.means });
        applies.requirements.iter().map(requires).collect::<Vec<Value>>()
    });
    let policies = explanation
        .cluster_image_policies
        .as_ref()
        .map(|policies| policies.iter().map(policy_json).collect::<Vec<Value>>());
    json!({
        "reference": image.to_string(),
        "upstream_configured": upstream,
        "policy": origin,
        "scope": applies.and_then(|applies| applies.scope),
        "path": applies.map(|applies| applies.json_path),
        "requirements": requirements,
        "cluster_image_policies": policies,
        "no_match": explanation.no_match.map(|no_match| match no_match {
            NoMatch::Deny => "deny",
            NoMatch::Allow => "allow",
            NoMatch::Warn => "warn",
        }),
        "needs_signatures": matches!(explanation.plan, Plan::NeedsMaterial(_)),
        "multi_arch": multi_arch(explanation.multi_arch),
        "max_image_bytes": explanation.max_image_bytes,
        "mode": match explanation.mode { Mode::Enforce => "enforce", Mode::Audit => "audit" },
        "exemption": explanation.exemption.map(|exemption| json!({
            "scope": exemption.scope.as_str(),
            "reason": exemption.reason,
            "owner": exemption.owner,
            "expires": exemption.expires.to_string(),
        })),
    })
}

fn policy_json(policy: &PolicyExplanation) -> Value {
    let authority = |(name, means): &(String, String)| json!({ "name": name, "means": means });
    json!({
        "name": policy.name,
        "defined": policy.defined,
        "mode": match policy.mode { CipMode::Enforce => "enforce", CipMode::Warn => "warn" },
        "authorities": policy.authorities.iter().map(authority).collect::<Vec<_>>(),
        "has_rule": policy.has_rule,
    })
}

fn signatures(explanation: &Explanation<'_>) -> String {
    let mut requirements = explanation.containers_policy.iter().flat_map(|scope| &scope.requirements);
    let wants_openpgp = requirements.any(|one| one.kind == "signedBy");
    match &explanation.plan {
        Plan::WithoutMaterial if wants_openpgp && explanation.lookaside.is_none() => {
            "are not looked for: policy.registries_d names no lookaside for the image, so it is refused".to_owned()
        }
        Plan::WithoutMaterial => "need not be looked for".to_owned(),
        Plan::NeedsMaterial(wanted) => format!("are looked for {}", places(wanted)),
        Plan::WantsMaterial(wanted) => format!("are looked for {}, for warnings alone", places(wanted)),
    }
}

fn places(wanted: &Wanted) -> String {
    let upstream = (!wanted.kinds.is_empty()).then(|| "at the upstream".to_owned());
    let lookaside = wanted.lookaside.iter().map(|base| format!("below {}", base.as_str()));
    let sources = wanted.sources.iter().map(|source| format!("in {}", source.repository));
    upstream.into_iter().chain(lookaside).chain(sources).collect::<Vec<_>>().join(" and ")
}

fn mode_text(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce: a denial refuses",
        Mode::Audit => "audit: a denial is recorded and the image served; who signed it is looked for everywhere",
    }
}

fn platforms(multi_arch: MultiArch) -> &'static str {
    match multi_arch {
        MultiArch::IndexOrEveryLeaf => {
            "an index needs its own signature, or every image of it one (index-or-every-leaf)"
        }
        MultiArch::IndexOrAnyLeaf => "an index needs its own signature, or one image of it one (index-or-any-leaf)",
        MultiArch::LeafOnly => "an index passes, each image of it is decided by itself (leaf-only)",
    }
}

fn multi_arch(multi_arch: MultiArch) -> &'static str {
    match multi_arch {
        MultiArch::IndexOrEveryLeaf => "index-or-every-leaf",
        MultiArch::IndexOrAnyLeaf => "index-or-any-leaf",
        MultiArch::LeafOnly => "leaf-only",
    }
}
