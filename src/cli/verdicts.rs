//! `sealgate verdicts list|show|forget`: what a running mirror decided.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use super::admin_client::{AdminAddress, AdminClient, DEFAULT_ADMIN, Reply};
use super::{CliError, OutputFormat, Status, output, page, runtime, tree};
use crate::config::short;
use crate::oci::{Digest, DockerReference, ReferenceError, Repository};
use crate::store::VerdictId;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Admin listener of the running mirror
    #[arg(long, value_name = "URL", default_value = DEFAULT_ADMIN, global = true)]
    admin: AdminAddress,
    /// File with the admin token, for changes over a listener that is not loopback
    #[arg(long, value_name = "FILE", global = true)]
    admin_token_file: Option<PathBuf>,
    /// `text` for people, `json` for programs
    #[arg(long, value_name = "FORMAT", default_value = "text", global = true)]
    output: OutputFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List verdicts, newest first
    List {
        /// Only these: allow or deny
        #[arg(long, value_parser = ["allow", "deny"])]
        decision: Option<String>,
        /// Only of this repository, such as docker.io/library/alpine
        #[arg(long, value_parser = repository)]
        repository: Option<Repository>,
        /// At most so many
        #[arg(long, default_value_t = LIMIT_DEFAULT, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        /// Only those after this verdict of an earlier list
        #[arg(long, value_name = "ID")]
        after: Option<VerdictId>,
    },
    /// Show one verdict with everything that was looked at
    Show {
        /// The verdict's id, as in lists, in the header Sealgate-Verdict and in the log
        id: VerdictId,
    },
    /// Forget a verdict: the next pull decides again
    Forget {
        /// The verdict's id
        id: VerdictId,
    },
}

pub(super) fn run(arguments: &Arguments) -> Result<Status, CliError> {
    let client = AdminClient::new(&arguments.admin, arguments.admin_token_file.as_deref())?;
    runtime()?.block_on(async {
        match &arguments.command {
            Command::List { decision, repository, limit, after } => {
                let mut query = vec![("limit", limit.to_string())];
                query.extend(decision.clone().map(|decision| ("decision", decision)));
                query.extend(repository.as_ref().map(|repository| ("repository", repository.to_string())));
                query.extend(after.map(|after| ("after", after.to_string())));
                let from_here = FromHere { query: &query, admin: &arguments.admin };
                list(&client, from_here, arguments.output).await
            }
            Command::Show { id } => show(&client, *id, arguments.output).await,
            Command::Forget { id } => forget(&client, *id, arguments.output).await,
        }
    })
}

/// As people write it: `alpine` is docker.io/library/alpine, under which its verdicts stand.
fn repository(text: &str) -> Result<Repository, String> {
    let DockerReference { repository, tag, digest } =
        text.parse().map_err(|error: ReferenceError| error.to_string())?;
    if tag.is_some() || digest.is_some() {
        Err("a repository has no tag and no digest".to_owned())
    } else {
        Ok(repository)
    }
}

/// What was asked, to be asked again for what comes after it.
struct FromHere<'a> {
    query: &'a [(&'static str, String)],
    admin: &'a AdminAddress,
}

impl FromHere<'_> {
    fn value(&self, wanted: &str) -> Option<&str> {
        self.query.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.as_str())
    }

    /// The command for the next page, with everything that was asked for.
    fn command(&self, next: &str) -> String {
        let mut words = vec!["sealgate verdicts list".to_owned()];
        for (name, value) in self.query {
            let is_default = *name == "limit" && *value == LIMIT_DEFAULT.to_string();
            if *name != "after" && !is_default {
                words.push(format!("--{name} {value}"));
            }
        }
        let admin = self.admin.to_string();
        words.extend((admin != DEFAULT_ADMIN).then(|| format!("--admin {admin}")));
        words.push(format!("--after {next}"));
        words.join(" ")
    }
}

async fn list(client: &AdminClient, asked: FromHere<'_>, format: OutputFormat) -> Result<Status, CliError> {
    let Reply::Found(page) = client.get("/api/v1/verdicts", asked.query).await? else {
        return Err(client.is_something_else());
    };
    match format {
        OutputFormat::Json => output::print_json(&page)?,
        OutputFormat::Text => output::print(&list_text(&page, &asked))?,
    }
    Ok(Status::Done)
}

fn list_text(page: &Value, asked: &FromHere<'_>) -> String {
    let verdicts = page.get("verdicts").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if verdicts.is_empty() {
        // Whoever wrote `team/app` sees which registry that was taken for.
        let of = asked.value("repository").map(|repository| format!(" of {repository}")).unwrap_or_default();
        return format!("no verdicts{of}\n");
    }
    let mut lines: Vec<String> = verdicts.iter().flat_map(lines_of).collect();
    if let Some(next) = page.get("next").and_then(Value::as_str) {
        lines.push(format!("more: {}", asked.command(next)));
    }
    lines.join("\n") + "\n"
}

/// One verdict on two lines: what, and why.
fn lines_of(verdict: &Value) -> [String; 2] {
    let field = |name: &str| output::field(verdict, name);
    let indent = " ".repeat(25);
    let state = match field("status").as_str() {
        "current" | "" => String::new(),
        status => format!(" ({})", status.replace('_', " ")),
    };
    [
        format!("{}  {:5}  {}{state}", field("id"), field("decision").to_uppercase(), field("image")),
        page::wrapped(&indent, &indent, &format!("{}: {}", field("reason"), field("text"))).trim_end().to_owned(),
    ]
}

async fn show(client: &AdminClient, id: VerdictId, format: OutputFormat) -> Result<Status, CliError> {
    let verdict = found(client.get(&format!("/api/v1/verdicts/{id}"), &[]).await?, &format!("verdict {id}"))?;
    match format {
        OutputFormat::Json => output::print_json(&verdict)?,
        OutputFormat::Text => {
            output::print(&show_text(&verdict))?;
        }
    }
    Ok(Status::Done)
}

/// As `sealgate verify` shows it.
fn show_text(verdict: &Value) -> String {
    let field = |name: &str| output::field(verdict, name);
    let number = |name: &str| verdict.get(name).and_then(Value::as_u64);
    let mut rows = vec![
        ("verdict", format!("{} ({})", field("decision").to_uppercase(), field("reason"))),
        ("reason", field("text")),
        ("status", field("status").replace('_', " ")),
        ("decided", field("issued")),
        ("until", field("not_after")),
    ];
    if let (Some(bytes), Some(layers)) = (number("image_bytes"), number("layers")) {
        rows.push(("size", tree::size(bytes, usize::try_from(layers).unwrap_or(usize::MAX))));
    }
    let policy = field("policy").parse::<Digest>();
    rows.extend(policy.ok().map(|policy| ("policy", format!("fingerprint {}", short(&policy)))));
    rows.push(("id", field("id")));
    rows.retain(|(_, text)| !text.is_empty());
    let head = format!("{}\n{}\n{}", field("image"), field("digest"), page::Rows(&rows));
    match verdict.get("evidence") {
        None | Some(Value::Null) => head,
        Some(evidence) => format!("{head}\n  what was looked at\n{}", tree::Looked(evidence)),
    }
}

async fn forget(client: &AdminClient, id: VerdictId, format: OutputFormat) -> Result<Status, CliError> {
    found(client.delete(&format!("/api/v1/verdicts/{id}")).await?, &format!("verdict {id}"))?;
    match format {
        OutputFormat::Json => output::print_json(&json!({"forgotten": id.to_string()}))?,
        OutputFormat::Text => output::print(&format!("verdict {id} is forgotten; the next pull decides again\n"))?,
    }
    Ok(Status::Done)
}

fn found(reply: Reply, what: &str) -> Result<Value, CliError> {
    match reply {
        Reply::Found(value) => Ok(value),
        Reply::NotFound => Err(CliError::Usage {
            what: format!("{what} is not there"),
            next: "`sealgate verdicts list` shows which are; forgotten and long expired ones are gone".to_owned(),
        }),
    }
}

const LIMIT_DEFAULT: u16 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_named_as_people_name_it() {
        let read = |text: &str| repository(text).map(|repository| repository.to_string());
        assert_eq!(read("alpine").as_deref(), Ok("docker.io/library/alpine"));
        assert_eq!(read("quay.io/team/app").as_deref(), Ok("quay.io/team/app"));
        for bad in ["alpine:3", "Foo Bar", ""] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
