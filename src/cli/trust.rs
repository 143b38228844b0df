//! `sealgate trust show` and `update`: whom signatures are checked against, from when until when, how old that knowledge
//! is, and how to get newer one.

use clap::Subcommand;
use serde_json::{Value, json};

use super::{CliError, ConfigArgument, OutputFormat, Status, output, page, runtime};
use crate::clock::{Clock, Timestamp};
use crate::config::{TrustConfig, short};
use crate::trust::tuf::{self, StateError, TufError, Update};
use crate::trust::{Role, TrustRoot, Trusted, Window};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print every authority and log that is trusted, with its window, and how old the trust root is
    Show(ShowArguments),
    /// Fetch the newest trust root by TUF, check it, and say what changed
    Update(UpdateArguments),
}

#[derive(Debug, clap::Args)]
pub(super) struct ShowArguments {
    /// `text` for people, `json` for programs
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    config: ConfigArgument,
}

#[derive(Debug, clap::Args)]
pub(super) struct UpdateArguments {
    /// `text` for people, `json` for programs
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    config: ConfigArgument,
}

pub(super) fn run(command: &Command) -> Result<Status, CliError> {
    match command {
        Command::Show(arguments) => show(arguments),
        Command::Update(arguments) => update(arguments),
    }
}

fn show(arguments: &ShowArguments) -> Result<Status, CliError> {
    let (root, mut warnings) = TrustConfig::load(&arguments.config.origin())?.root()?;
    let now = Clock::System.now();
    warnings.extend(root.warnings(now));
    match arguments.output {
        OutputFormat::Text => output::print(&root_text(&root, &warnings, now))?,
        OutputFormat::Json => output::print_json(&root_json(&root, &warnings, now))?,
    }
    Ok(Status::Done)
}

fn update(arguments: &UpdateArguments) -> Result<Status, CliError> {
    let config = TrustConfig::load(&arguments.config.origin())?;
    let now = Clock::System.now();
    let updating = tuf::update(&config.tuf, now);
    let update = runtime()?.block_on(updating).map_err(|source| CliError::Trust { next: next(&source), source })?;
    match arguments.output {
        OutputFormat::Text => output::print(&update_text(&update, &config, now))?,
        OutputFormat::Json => output::print_json(&update_json(&update, &config, now))?,
    }
    Ok(Status::Done)
}

/// 1: the repository was heard and is refused. 3: it was not heard.
pub(super) fn status(error: &TufError) -> Status {
    match error {
        TufError::Refused { .. } | TufError::Unusable { .. } => Status::Denied,
        TufError::Unreachable { .. } | TufError::TooSlow { .. } | TufError::State(StateError::Busy { .. }) => {
            Status::Undecided
        }
        TufError::State(_) | TufError::Client { .. } => Status::Usage,
    }
}

fn next(error: &TufError) -> String {
    let next = match error {
        TufError::Refused { .. } => {
            "try again later; if it stays so, tell whoever runs the repository, and do not trust it until it is explained"
        }
        TufError::Unusable { .. } => {
            "a newer release of sealgate may be able to use it; tell whoever runs the repository"
        }
        TufError::Unreachable { .. } | TufError::TooSlow { .. } => {
            "check trust.tuf.url, the network and trust.tuf.proxy; `sealgate trust show` shows what is in force"
        }
        TufError::State(state) => state.next(),
        TufError::Client { .. } => "check trust.tuf.ca_file and trust.tuf.proxy",
    };
    next.to_owned()
}

fn update_text(update: &Update, config: &TrustConfig, now: Timestamp) -> String {
    let root = &update.root;
    let (from, to) = update.tuf_root;
    let mut parts = vec![match (&update.before, update.changed()) {
        (None, _) => format!("fetched from {}: the first trust root from there\n", config.tuf.url),
        (Some(_), true) => format!("fetched from {}: another trust root than before\n", config.tuf.url),
        (Some(_), false) => format!("fetched from {}: the trust root has not changed\n", config.tuf.url),
    }];
    let mut rows = vec![
        ("fingerprint", root.fingerprint.to_string()),
        ("TUF root", if from == to { format!("version {to}") } else { format!("version {from}, now {to}") }),
        ("kept in", config.tuf.state_path().display().to_string()),
    ];
    if let Some(expires) = root.expires {
        rows.insert(2, ("fresh until", expires.to_string()));
    }
    parts.push(output::Table(&rows).to_string());
    if update.before.is_some() {
        let line =
            |sign: char| move |one: &Trusted| format!("  {sign} {}\n{}", one.role.as_label(), trusted_text(one, now));
        parts.extend(update.added().map(line('+')));
        parts.extend(update.removed().map(line('-')));
    }
    if !config.tuf_enabled {
        parts.push(NOT_USED.to_owned());
    }
    parts.concat()
}

fn update_json(update: &Update, config: &TrustConfig, now: Timestamp) -> Value {
    let (from, to) = update.tuf_root;
    json!({
        "url": config.tuf.url.to_string(),
        "changed": update.changed(),
        "first": update.before.is_none(),
        "used": config.tuf_enabled,
        "tuf_root_version": { "before": from, "now": to },
        "fresh_until": update.root.expires.map(|time| time.to_string()),
        "added": update.added().map(|one| trusted_json(one, now)).collect::<Vec<_>>(),
        "removed": update.removed().map(|one| trusted_json(one, now)).collect::<Vec<_>>(),
        "trust_root": root_json(&update.root, &update.root.warnings(now), now),
    })
}

const NOT_USED: &str = "\n  It is not used: trust.tuf.enabled is false.\n";

fn root_text(root: &TrustRoot, warnings: &[String], now: Timestamp) -> String {
    let mut rows = vec![("trust root", root.source.to_string()), ("fingerprint", root.fingerprint.to_string())];
    if let Some(as_of) = root.as_of {
        rows.push(("as of", format!("{as_of} ({})", age(as_of, now))));
    }
    if let Some(expires) = root.expires {
        rows.push(("fresh until", expires.to_string()));
    }
    let mut parts = vec![output::Table(&rows).to_string()];
    for role in Role::ALL {
        let mut trusted = root.trusted.iter().filter(|trusted| trusted.role == role).peekable();
        if trusted.peek().is_some() {
            parts.push(format!("\n  {}\n", heading(role)));
        }
        parts.extend(trusted.map(|trusted| trusted_text(trusted, now)));
    }
    let warning = |text: &String| format!("\n{}", page::wrapped("  warning: ", "    ", text));
    parts.extend(warnings.iter().map(warning));
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
    let window = format!("from {} until {}{state}", end(trusted.from, "ever"), end(trusted.until, "further notice"));
    format!(
        "    {}  (fingerprint {})\n{}",
        output::Shown(&trusted.name),
        short(&trusted.fingerprint),
        page::wrapped("      ", "      ", &window),
    )
}

fn root_json(root: &TrustRoot, warnings: &[String], now: Timestamp) -> Value {
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
    json!({
        "source": root.source.kind(),
        "origin": root.source.to_string(),
        "fingerprint": root.fingerprint.to_string(),
        "as_of": time(root.as_of),
        "age_seconds": root.as_of.map(|as_of| now.since(as_of).as_secs()),
        "fresh_until": time(root.expires),
        "trusted": root.trusted.iter().map(|trusted| trusted_json(trusted, now)).collect::<Vec<_>>(),
        "warnings": warnings,
    })
}

fn trusted_json(trusted: &Trusted, now: Timestamp) -> Value {
    json!({
        "role": trusted.role.as_label(),
        "name": trusted.name,
        "fingerprint": trusted.fingerprint.to_string(),
        "from": trusted.from.map(|time| time.to_string()),
        "until": trusted.until.map(|time| time.to_string()),
        "window": trusted.window(now).as_label(),
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
