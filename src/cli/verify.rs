//! `sealgate verify IMAGE`: the code path of `serve`, in memory, for one image; every reason is printed.

use std::fmt::{self, Display, Formatter};

use serde_json::{Value, json};

use super::{CliError, ConfigArgument, OutputFormat, Status, output, page, runtime, tree};
use crate::app::Desk;
use crate::clock::Clock;
use crate::config::{Config, short};
use crate::oci::{Digest, ImageReference, ImageSize};
use crate::policy::Decision;
use crate::pull::{AdmittedManifest, Denial, PullError};
use crate::store::{StoredVerdict, VerdictId};
use crate::telemetry::DecisionLabel;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The image, such as registry.k8s.io/pause:3.10 or NAME@sha256:…
    #[arg(value_name = "IMAGE")]
    image: ImageReference,
    /// `text` for people, `json` for programs
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    config: ConfigArgument,
}

pub(super) fn run(arguments: &Arguments) -> Result<Status, CliError> {
    let loaded = Config::load(&arguments.config.origin())?;
    let image = loaded.config.canonical(&arguments.image);
    let image = image.ok_or_else(|| unknown_upstream(arguments.image.repository.host(), &loaded.config))?;
    let runtime = runtime()?;
    let report = runtime.block_on(async {
        let desk = Desk::open(loaded, Clock::System).await?;
        let report = decide(&desk, &image).await;
        desk.close().await;
        Ok::<_, CliError>(report)
    })?;
    match arguments.output {
        OutputFormat::Text => output::print(&report.to_string())?,
        OutputFormat::Json => output::print_json(&report.to_json())?,
    }
    Ok(report.status())
}

pub(super) fn unknown_upstream(host: &crate::oci::Host, config: &Config) -> CliError {
    let hosts: Vec<&str> = config.upstreams.iter().map(|upstream| upstream.host().as_str()).collect();
    CliError::Usage {
        what: format!("{host} is not a configured upstream"),
        next: format!("the upstreams are {}; add an [[upstream]] for another one", hosts.join(", ")),
    }
}

/// What was found out about one image.
struct Report {
    image: ImageReference,
    digest: Option<Digest>,
    /// What the policy says, before audit mode and exemptions; `None`: undecided.
    decision: Option<Decision>,
    /// Its kind.
    reason: String,
    /// One line.
    text: String,
    /// What `serve` would do.
    serve: Serve,
    verdict: Option<VerdictId>,
    policy: Option<Digest>,
    image_size: Option<ImageSize>,
    evidence: Option<Value>,
    causes: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Serve {
    Yes,
    YesBecauseOfAudit,
    YesBecauseOfExemption,
    No,
}

async fn decide(desk: &Desk, image: &ImageReference) -> Report {
    match desk.puller().manifest(image).await {
        Ok(manifest) => admitted(desk, image, &manifest).await,
        Err(PullError::Denied(denial)) => denied(desk, image, &denial).await,
        Err(error) => undecided(image, &error),
    }
}

async fn admitted(desk: &Desk, image: &ImageReference, manifest: &AdmittedManifest) -> Report {
    let stored = stored(desk, manifest.verdict()).await;
    let serve = match manifest.decision() {
        DecisionLabel::AuditDeny | DecisionLabel::AuditUndecided => Serve::YesBecauseOfAudit,
        DecisionLabel::Exempt => Serve::YesBecauseOfExemption,
        DecisionLabel::Allow | DecisionLabel::Deny | DecisionLabel::Undecided => Serve::Yes,
    };
    let raw = match (manifest.decision(), &stored.verdict) {
        (_, Some(verdict)) => Some(verdict.decision),
        (DecisionLabel::Allow, None) => Some(Decision::Allow),
        (DecisionLabel::AuditDeny | DecisionLabel::Deny, None) => Some(Decision::Deny),
        (DecisionLabel::AuditUndecided | DecisionLabel::Exempt | DecisionLabel::Undecided, None) => None,
    };
    let (reason, text) = match &stored.verdict {
        Some(verdict) => (verdict.reason.as_label().to_owned(), verdict.text.clone()),
        None => (manifest.decision().as_label().to_owned(), String::new()),
    };
    Report {
        image: image.clone(),
        digest: Some(*manifest.digest()),
        decision: raw,
        reason,
        text,
        serve,
        verdict: manifest.verdict(),
        policy: stored.verdict.as_ref().map(|verdict| verdict.key.policy),
        image_size: stored.verdict.as_ref().and_then(|verdict| verdict.image_size),
        evidence: stored.evidence,
        causes: Vec::new(),
    }
}

async fn denied(desk: &Desk, image: &ImageReference, denial: &Denial) -> Report {
    let stored = stored(desk, Some(denial.verdict)).await;
    Report {
        image: image.clone(),
        digest: Some(denial.digest),
        decision: Some(Decision::Deny),
        reason: denial.reason.as_label().to_owned(),
        text: denial.text.clone(),
        serve: Serve::No,
        verdict: Some(denial.verdict),
        policy: stored.verdict.as_ref().map(|verdict| verdict.key.policy),
        image_size: stored.verdict.as_ref().and_then(|verdict| verdict.image_size),
        evidence: stored.evidence,
        causes: Vec::new(),
    }
}

fn undecided(image: &ImageReference, error: &PullError) -> Report {
    let mut causes = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        causes.push(source.to_string());
        cause = source.source();
    }
    let text = if matches!(error, PullError::ManifestUnknown) {
        format!("{} has no such image", image.repository.host())
    } else {
        error.to_string()
    };
    Report {
        image: image.clone(),
        digest: None,
        decision: None,
        reason: "undecided".to_owned(),
        text,
        serve: Serve::No,
        verdict: None,
        policy: None,
        image_size: None,
        evidence: None,
        causes,
    }
}

/// What the store keeps about a verdict.
#[derive(Default)]
struct Stored {
    verdict: Option<std::sync::Arc<StoredVerdict>>,
    evidence: Option<Value>,
}

async fn stored(desk: &Desk, id: Option<VerdictId>) -> Stored {
    let Some(id) = id else { return Stored::default() };
    desk.puller().reported().await;
    match desk.store().verdict_by_id(&id).await {
        Some((verdict, evidence)) => Stored { verdict: Some(verdict), evidence },
        None => Stored::default(),
    }
}

impl Report {
    fn status(&self) -> Status {
        match (self.decision, self.serve) {
            (_, Serve::YesBecauseOfExemption) | (Some(Decision::Allow), _) => Status::Done,
            (Some(Decision::Deny), _) => Status::Denied,
            (None, _) => Status::Undecided,
        }
    }

    fn decision_label(&self) -> &'static str {
        match self.decision {
            Some(Decision::Allow) => "allow",
            Some(Decision::Deny) => "deny",
            None => "undecided",
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "reference": self.image.to_string(),
            "digest": self.digest.as_ref().map(ToString::to_string),
            "decision": self.decision_label(),
            "reason": self.reason,
            "text": self.text,
            "served": self.serve != Serve::No,
            "applied": match self.serve {
                Serve::Yes | Serve::No => self.decision_label(),
                Serve::YesBecauseOfAudit => "audit",
                Serve::YesBecauseOfExemption => "exempt",
            },
            "verdict": self.verdict.map(|id| id.to_string()),
            "policy": self.policy.as_ref().map(ToString::to_string),
            "image_bytes": self.image_size.map(|size| size.bytes),
            "layers": self.image_size.map(|size| size.layers),
            "causes": self.causes,
            "evidence": self.evidence,
        })
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = Vec::new();
        let label = self.decision_label().to_uppercase();
        rows.push(("verdict", if self.decision.is_some() { format!("{label} ({})", self.reason) } else { label }));
        if !self.text.is_empty() {
            rows.push(("reason", self.text.clone()));
        }
        rows.extend(self.causes.iter().map(|cause| ("because", cause.clone())));
        rows.push(("serve", self.serve_text().to_owned()));
        if let Some(size) = self.image_size {
            rows.push(("size", tree::size(size.bytes, size.layers)));
        }
        if let Some(policy) = &self.policy {
            rows.push(("policy", format!("fingerprint {}", short(policy))));
        }
        rows
    }

    fn serve_text(&self) -> &'static str {
        match (self.serve, self.decision) {
            (Serve::Yes, _) => "would serve it",
            (Serve::YesBecauseOfAudit, _) => "would serve it and record this, because the mode is audit",
            (Serve::YesBecauseOfExemption, _) => "would serve it, because of an exemption",
            (Serve::No, Some(_)) => "would refuse it",
            (Serve::No, None) => "would not serve it now",
        }
    }

    fn next(&self) -> Option<String> {
        match self.decision {
            Some(Decision::Allow) => None,
            Some(Decision::Deny) => Some(denied_next(&self.reason, &self.image)),
            None => Some("no verdict was reached; mend the cause above and try again".to_owned()),
        }
    }
}

/// What to do about a denial, by its reason's label; docs/errors.md has more.
fn denied_next(reason: &str, image: &ImageReference) -> String {
    match reason {
        "no_signature" | "no_attestation" => {
            "have the image signed as the policy wants it, or pull one that is; a [[policy.exemption]] lets it pass for a time"
                .to_owned()
        }
        "wrong_key" => {
            "ask its publisher whose key that is; list it in the policy only when they confirm it".to_owned()
        }
        "rotated_key" => {
            "list the key here too, or have the image signed again with the key that is listed here".to_owned()
        }
        "identity_mismatch" => format!(
            "compare found and wanted; `sealgate policy suggest {image}` writes a policy for the signers that are there"
        ),
        _ => format!("`sealgate policy explain {image}` shows what the policy asks of it"),
    }
}

impl Display for Report {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}", self.image)?;
        if let Some(digest) = &self.digest {
            writeln!(formatter, "{digest}")?;
        }
        write!(formatter, "{}", page::Rows(&self.rows()))?;
        if let Some(evidence) = &self.evidence {
            write!(formatter, "\n  what was looked at\n{}", tree::Looked(evidence))?;
        }
        match self.next() {
            Some(next) => write!(formatter, "\n{}", page::Rows(&[("next", next)])),
            None => Ok(()),
        }
    }
}
