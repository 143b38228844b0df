//! `sealgate trust show`: whom signatures are checked against, from when until when, and how old that knowledge is.

use clap::Subcommand;
use serde_json::{Value, json};

use super::{CliError, ConfigArgument, OutputFormat, Status, output};
use crate::clock::{Clock, Timestamp};
use crate::config::{TrustConfig, short};
use crate::trust::{Role, TrustRoot, Trusted, Window};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print every authority and log that is trusted, with its window, and how old the trust root is
    Show(ShowArguments),
}

#[derive(Debug, clap::Args)]
pub(super) struct ShowArguments {
    /// `text` for people, `json` for programs
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    config: ConfigArgument,
}

pub(super) fn run(command: &Command) -> Result<Status, CliError> {
    match command {
        Command::Show(arguments) => show(arguments),
    }
}

fn show(arguments: &ShowArguments) -> Result<Status, CliError> {
    let TrustConfig { root } = TrustConfig::load(&arguments.config.origin())?;
    let now = Clock::System.now();
    match arguments.output {
        OutputFormat::Text => output::print(&root_text(&root, now))?,
        OutputFormat::Json => output::print_json(&root_json(&root, now))?,
    }
    Ok(Status::Done)
}

fn root_text(root: &TrustRoot, now: Timestamp) -> String {
    let mut rows = vec![("trust root", root.source.to_string()), ("fingerprint", root.fingerprint.to_string())];
    if let Some(as_of) = root.as_of {
        rows.push(("as of", format!("{as_of} ({})", age(as_of, now))));
    }
    let mut parts = vec![output::Table(&rows).to_string()];
    for role in Role::ALL {
        let mut trusted = root.trusted.iter().filter(|trusted| trusted.role == role).peekable();
        if trusted.peek().is_some() {
            parts.push(format!("\n  {}\n", heading(role)));
        }
        parts.extend(trusted.map(|trusted| trusted_text(trusted, now)));
    }
    parts.extend(root.warnings(now).iter().map(|warning| format!("\n  warning: {warning}\n")));
    parts.concat()
}

/// One on two lines: who, and from when until when.
fn trusted_text(trusted: &Trusted, now: Timestamp) -> String {
    let end = |time: Option<Timestamp>, open: &str| time.map_or_else(|| open.to_owned(), |time| time.to_string());
    let state = match trusted.window(now) {
        Window::NotYet => ", NOT YET",
        Window::Current => "",
        Window::Ended => ", ended: what happened until then still counts",
    };
    format!(
        "    {}  (fingerprint {})\n      from {} until {}{state}\n",
        output::Shown(&trusted.name),
        short(&trusted.fingerprint),
        end(trusted.from, "ever"),
        end(trusted.until, "further notice"),
    )
}

fn root_json(root: &TrustRoot, now: Timestamp) -> Value {
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
    let trusted = root.trusted.iter().map(|trusted| {
        json!({
            "role": trusted.role.as_label(),
            "name": trusted.name,
            "fingerprint": trusted.fingerprint.to_string(),
            "from": time(trusted.from),
            "until": time(trusted.until),
            "window": trusted.window(now).as_label(),
        })
    });
    json!({
        "source": root.source.kind(),
        "origin": root.source.to_string(),
        "fingerprint": root.fingerprint.to_string(),
        "as_of": time(root.as_of),
        "age_seconds": root.as_of.map(|as_of| now.since(as_of).as_secs()),
        "trusted": trusted.collect::<Vec<_>>(),
        "warnings": root.warnings(now),
    })
}

fn age(since: Timestamp, now: Timestamp) -> String {
    match now.since(since).as_secs() / (24 * 60 * 60) {
        0 => "today".to_owned(),
        1 => "1 day ago".to_owned(),
        days => format!("{days} days ago"),
    }
}

fn heading(role: Role) -> &'static str {
    match role {
        Role::CertificateAuthority => "certificate authorities (issue signing certificates)",
        Role::TransparencyLog => "transparency logs (log signatures)",
        Role::CertificateLog => "certificate logs (log certificates)",
        Role::TimestampAuthority => "timestamp authorities (say when something was signed)",
    }
}
