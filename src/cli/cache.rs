//! `sealgate cache stats|verify|evict`: the cache of a mirror that runs, or, with `--offline`, of one that does not.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use super::admin_client::{AdminAddress, AdminClient, DEFAULT_ADMIN, Reply};
use super::{CliError, ConfigArgument, OutputFormat, Status, output, runtime, tree};
use crate::clock::Clock;
use crate::config::{Config, Size};
use crate::oci::Digest;
use crate::store::{Evicted, Eviction, OfflineCache, StoreError};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Admin listener of the running mirror
    #[arg(long, value_name = "URL", default_value = DEFAULT_ADMIN, global = true, conflicts_with = "offline")]
    admin: AdminAddress,
    /// File with the admin token, for changes over a listener that is not loopback
    #[arg(long, value_name = "FILE", global = true, conflicts_with = "offline")]
    admin_token_file: Option<PathBuf>,
    /// Work on the configuration's `server.data_dir`, while no mirror uses it
    #[arg(long, global = true)]
    offline: bool,
    /// `text` for people, `json` for programs
    #[arg(long, value_name = "FORMAT", default_value = "text", global = true)]
    output: OutputFormat,
    /// Configuration file, for --offline [default: as for `serve`]
    #[arg(long, value_name = "FILE", global = true, requires = "offline")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show how much is cached, and when it was last hashed again
    Stats,
    /// Hash every cached file again; what is wrong is set aside, and the next pull fetches it again
    Verify {
        /// Only begin; `sealgate cache stats` says how far it is
        #[arg(long, conflicts_with = "offline")]
        no_wait: bool,
    },
    /// Remove blobs that nobody reads
    Evict(What),
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct What {
    /// This blob
    #[arg(value_name = "DIGEST")]
    digest: Option<Digest>,
    /// The least recently used, until so much is free, such as 10GiB
    #[arg(long, value_name = "SIZE")]
    bytes: Option<Size>,
    /// Everything
    #[arg(long)]
    all: bool,
}

impl What {
    fn eviction(&self) -> Eviction {
        match (self.digest, self.bytes) {
            (Some(digest), _) => Eviction::Blob(digest),
            (None, Some(Size(bytes))) => Eviction::Bytes(bytes),
            (None, None) => Eviction::All,
        }
    }
}

/// Status 1 when files were found wrong, 3 when some could not be looked at.
pub(super) fn run(arguments: &Arguments) -> Result<Status, CliError> {
    runtime()?.block_on(async {
        if arguments.offline {
            return offline(arguments).await;
        }
        let client = AdminClient::new(&arguments.admin, arguments.admin_token_file.as_deref())?
            .instead("; --offline is for the cache of a mirror that is down");
        match &arguments.command {
            Command::Stats => show(&stats(&client).await?, arguments.output),
            Command::Verify { no_wait } => verify(&client, *no_wait, arguments.output).await,
            Command::Evict(what) => evict(&client, what.eviction(), arguments.output).await,
        }
    })
}

async fn stats(client: &AdminClient) -> Result<Value, CliError> {
    match client.get("/api/v1/cache", &[]).await? {
        Reply::Found(stats) => Ok(stats),
        Reply::NotFound => Err(client.is_something_else()),
    }
}

/// Waits for as long as it takes; whoever has waited enough can leave, and it goes on.
async fn verify(client: &AdminClient, no_wait: bool, format: OutputFormat) -> Result<Status, CliError> {
    let before = stats(client).await?;
    if matches!(client.post("/api/v1/cache/verify", &[]).await?, Reply::NotFound) {
        return Err(client.is_something_else());
    }
    let mut now = stats(client).await?;
    while !no_wait && last_ended(&now) == last_ended(&before) {
        tokio::time::sleep(POLL).await;
        now = stats(client).await?;
    }
    let shown = show(&now, format)?;
    Ok(if no_wait { shown } else { status(&now) })
}

fn last_ended(stats: &Value) -> Option<&Value> {
    stats.pointer("/verify/last_ended")
}

async fn evict(client: &AdminClient, what: Eviction, format: OutputFormat) -> Result<Status, CliError> {
    let query = match what {
        Eviction::Blob(digest) => ("digest", digest.to_string()),
        Eviction::Bytes(bytes) => ("bytes", bytes.to_string()),
        Eviction::All => ("all", "true".to_owned()),
    };
    match client.post("/api/v1/cache/evict", &[query]).await? {
        Reply::Found(gone) => show_evicted(&gone, format),
        Reply::NotFound => Err(unknown()),
    }
}

async fn offline(arguments: &Arguments) -> Result<Status, CliError> {
    let config = ConfigArgument { config: arguments.config.clone() };
    let settings = Config::load(&config.origin())?.config.store;
    let cache = OfflineCache::open(&settings, Clock::System).await;
    let cache = cache.map_err(|error| CliError::Cache(Box::new(error)))?;
    match &arguments.command {
        Command::Stats => show(&found(&cache), arguments.output),
        Command::Verify { .. } => {
            let verified = cache.verify().await;
            let mut stats = found(&cache);
            if let Some(fields) = stats.as_object_mut() {
                let verify = json!({
                    "running": false,
                    "files": verified.files,
                    "bytes": verified.bytes,
                    "wrong": verified.wrong,
                    "unreadable": verified.unreadable,
                    "skipped": verified.skipped,
                    "last_ended": verified.ended.map(|ended| ended.to_string()),
                });
                fields.insert("verify".to_owned(), verify);
            }
            show(&stats, arguments.output)?;
            Ok(status(&stats))
        }
        Command::Evict(what) => match cache.evict(what.eviction()).await {
            Evicted::Gone { files, bytes } => {
                show_evicted(&json!({ "files": files, "bytes": bytes }), arguments.output)
            }
            Evicted::InUse | Evicted::Unknown => Err(unknown()),
        },
    }
}

/// What to do about a cache that cannot be used offline.
pub(super) const fn next(error: &StoreError) -> Option<&'static str> {
    match error {
        StoreError::NoCache { .. } => Some(
            "`sealgate serve` makes it; if the mirror keeps it elsewhere, name the mirror's configuration with --config FILE",
        ),
        StoreError::Locked { .. } => Some("leave --offline away to ask the mirror that runs"),
        StoreError::Io { .. } => Some("run it as the user that the mirror runs as"),
        StoreError::NoSpace | StoreError::TooLong { .. } | StoreError::DigestMismatch { .. } => None,
    }
}

fn found(cache: &OfflineCache) -> Value {
    let stats = cache.stats();
    json!({ "bytes": stats.bytes, "limit_bytes": stats.limit_bytes, "entries": stats.entries })
}

fn unknown() -> CliError {
    CliError::Usage {
        what: "the blob is not in the cache".to_owned(),
        next: "nothing has to be done; the next pull fetches it".to_owned(),
    }
}

fn status(stats: &Value) -> Status {
    let number = |name| stats.pointer(name).and_then(Value::as_u64).unwrap_or(0);
    let bad = number("/verify/wrong").saturating_add(number("/verify/unreadable"));
    match (bad, number("/verify/skipped")) {
        (0, 0) => Status::Done,
        (0, _) => Status::Undecided,
        _ => Status::Denied,
    }
}

fn show(stats: &Value, format: OutputFormat) -> Result<Status, CliError> {
    match format {
        OutputFormat::Json => output::print_json(stats)?,
        OutputFormat::Text => output::print(&text(stats))?,
    }
    Ok(Status::Done)
}

fn text(stats: &Value) -> String {
    let number = |name| stats.pointer(name).and_then(Value::as_u64).unwrap_or(0);
    let mut rows = vec![
        ("cached", amount(number("/bytes"), number("/entries"))),
        ("at most", tree::bytes(number("/limit_bytes"))),
    ];
    if let Some(verify) = stats.get("verify") {
        let running = verify.get("running").and_then(Value::as_bool) == Some(true);
        let ended = output::field(verify, "last_ended");
        rows.push((
            "hashed",
            match (running, ended.as_str()) {
                (true, _) => "under way".to_owned(),
                (false, "" | "-") => "not yet".to_owned(),
                (false, ended) => format!("last at {ended}"),
            },
        ));
        // What a process before this one found is not known.
        if running || number("/verify/files") > 0 || number("/verify/skipped") > 0 {
            let seen = if running { "so far" } else { "looked at" };
            rows.push((seen, amount(number("/verify/bytes"), number("/verify/files"))));
            rows.push(("wrong", number("/verify/wrong").to_string()));
            rows.push(("unreadable", number("/verify/unreadable").to_string()));
            rows.push(("skipped", number("/verify/skipped").to_string()));
        }
    }
    output::Table(&rows).to_string()
}

fn amount(bytes: u64, files: u64) -> String {
    let noun = if files == 1 { "file" } else { "files" };
    format!("{} in {files} {noun}", tree::bytes(bytes))
}

fn show_evicted(gone: &Value, format: OutputFormat) -> Result<Status, CliError> {
    let number = |name| gone.get(name).and_then(Value::as_u64).unwrap_or(0);
    match format {
        OutputFormat::Json => output::print_json(gone)?,
        OutputFormat::Text => {
            output::print(&format!("removed {}\n", amount(number("bytes"), number("files"))))?;
        }
    }
    Ok(Status::Done)
}

/// Time between two questions how far the mirror is.
const POLL: Duration = Duration::from_millis(500);
