//! What a person types. One file a subcommand; no logic below the flags.
//!
//! Exit statuses are decided here and nowhere else: 0 yes or done, 1 denied, 2 usage or configuration, 3 undecided.

mod admin_client;
mod cache;
mod client_config;
mod config;
mod logging;
mod output;
mod page;
mod policy;
mod replay;
mod serve;
mod suggest;
mod suggestion;
mod tree;
mod trust;
mod verdicts;
mod verify;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::config::{ConfigError, Origin};

/// Parses the arguments, does what they say, reports what went wrong, and gives the exit status.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let status = match Cli::try_parse_from(arguments) {
        Ok(cli) => dispatch(cli.command).unwrap_or_else(|error| {
            output::complain(&error);
            error.status()
        }),
        Err(error) => {
            let status = if error.use_stderr() { Status::Usage } else { Status::Done };
            // Nothing can be said to somebody who cannot be written to.
            drop(error.print());
            status
        }
    };
    ExitCode::from(status.code())
}

fn dispatch(command: Command) -> Result<Status, CliError> {
    match command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Policy(command) => policy::run(&command),
        Command::ClientConfig(arguments) => client_config::run(&arguments),
        Command::Verdicts(arguments) => verdicts::run(&arguments),
        Command::Cache(arguments) => cache::run(&arguments),
        Command::Trust(command) => trust::run(&command),
        Command::Config(command) => config::run(&command),
        Command::Completions { shell } => completions(shell),
    }
}

/// A pull-through, verifying mirror for container images: it serves a manifest only when its signatures satisfy policy.
#[derive(Debug, Parser)]
#[command(
    name = "sealgate",
    version = crate::VERSION,
    arg_required_else_help = true,
    disable_help_subcommand = false,
    max_term_width = 100,
    after_help = "Exit status: 0 yes or done, 1 denied, 2 usage or configuration, 3 undecided.\n\n\
                  Start with `sealgate serve`; it says what to do next."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the mirror
    Serve(ConfigArgument),
    /// Decide about one image as `serve` would, and print every reason
    Verify(verify::Arguments),
    /// Check, explain and replay the policy; suggest one for signed images
    #[command(subcommand)]
    Policy(policy::Command),
    /// Print the configuration that makes a container runtime pull through the mirror
    ClientConfig(client_config::Arguments),
    /// List, show or forget what a running mirror decided
    Verdicts(verdicts::Arguments),
    /// Show, check or shrink the cache of a mirror, running or not
    Cache(cache::Arguments),
    /// Show whom signatures are checked against, or fetch the newest trust root
    #[command(subcommand)]
    Trust(trust::Command),
    /// Check or print the configuration
    #[command(subcommand)]
    Config(config::Command),
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// `--config FILE`, as every command that needs the configuration has it.
#[derive(Debug, clap::Args)]
struct ConfigArgument {
    /// Configuration file [default: ./config/sealgate.toml, else /etc/sealgate/sealgate.toml, else what is built in]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigArgument {
    fn origin(&self) -> Origin {
        Origin::find(self.config.as_deref())
    }
}

/// `--output text|json`
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum OutputFormat {
    /// For people
    Text,
    /// For programs; its fields stay
    Json,
}

/// The exit statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    /// Yes, or done.
    Done,
    /// Policy says no.
    Denied,
    /// Wrong usage or configuration.
    Usage,
    /// No answer could be reached.
    Undecided,
}

impl Status {
    const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Denied => 1,
            Self::Usage => 2,
            Self::Undecided => 3,
        }
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
enum CliError {
    /// The configuration cannot be used.
    #[error("{0}")]
    Config(Box<ConfigError>),
    /// What was typed cannot be meant.
    #[error("{what}")]
    Usage {
        /// What is wrong with it.
        what: String,
        /// What to do.
        next: String,
    },
    /// The mirror does not start.
    #[error("the mirror cannot run")]
    App(#[from] crate::app::AppError),
    /// The cache of a mirror that is down cannot be used.
    #[error("the cache cannot be used")]
    Cache(#[source] Box<crate::store::StoreError>),
    /// The trust root was not updated.
    #[error("the trust root was not updated; what was in force stays in force")]
    Trust {
        /// Why.
        source: crate::trust::tuf::TufError,
        /// What to do.
        next: String,
    },
    /// The running mirror gave no usable answer.
    #[error("{what}")]
    Admin {
        /// What happened.
        what: String,
        /// What to do.
        next: String,
    },
    /// Something below us failed.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What happened.
        #[source]
        source: std::io::Error,
    },
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self::Config(Box::new(error))
    }
}

impl CliError {
    fn status(&self) -> Status {
        match self {
            Self::Config(_) | Self::Usage { .. } | Self::App(_) | Self::Cache(_) => Status::Usage,
            Self::Trust { source, .. } => trust::status(source),
            Self::Admin { .. } | Self::Io { .. } => Status::Undecided,
        }
    }

    fn next(&self) -> Option<&str> {
        match self {
            Self::Usage { next, .. } | Self::Admin { next, .. } | Self::Trust { next, .. } => Some(next),
            Self::Config(error) if error.hint.is_empty() => {
                Some("correct it; `sealgate config check` says when it is right")
            }
            Self::App(error) => error.next(),
            Self::Cache(error) => cache::next(error),
            Self::Config(_) | Self::Io { .. } => None,
        }
    }
}

fn completions(shell: clap_complete::Shell) -> Result<Status, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sealgate", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(Status::Done)
}

/// The runtime that asynchronous commands run on.
fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| CliError::Io { what: "cannot start worker threads", source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn each_status_has_its_number() {
        let codes = [Status::Done, Status::Denied, Status::Usage, Status::Undecided].map(Status::code);
        assert_eq!(codes, [0, 1, 2, 3]);
    }
}
