//! `sealgate config check` and `print`.

use clap::Subcommand;

use super::{CliError, ConfigArgument, Status, output};
use crate::clock::Clock;
use crate::config::{Config, Document, Loaded};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Read the configuration, the policy and every file they name, and say what is wrong
    Check(ConfigArgument),
    /// Print the configuration with every default filled in; secrets as ****
    Print(ConfigArgument),
}

pub(super) fn run(command: &Command) -> Result<Status, CliError> {
    match command {
        Command::Check(argument) => check(argument),
        Command::Print(argument) => print(argument),
    }
}

fn check(argument: &ConfigArgument) -> Result<Status, CliError> {
    let Loaded { mut config, snapshot } = Config::load(&argument.origin())?;
    config.warnings.extend(snapshot.policy.lapsed(Clock::System.now()).iter().map(ToString::to_string));
    for warning in &config.warnings {
        output::warn(&format!("warning: {warning}\n"));
    }
    output::print(&format!("{}: no errors, {}\n", config.origin.display(), counted(config.warnings.len(), "warning")))?;
    Ok(Status::Done)
}

fn print(argument: &ConfigArgument) -> Result<Status, CliError> {
    let document = Document::load(&argument.origin())?;
    let text = toml::to_string(&document).map_err(|error| CliError::Io {
        what: "cannot write the configuration as TOML",
        source: std::io::Error::other(error),
    })?;
    output::print(&text)?;
    Ok(Status::Done)
}

/// `no warnings`, `1 warning`, `2 warnings`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    match count {
        0 => format!("no {noun}s"),
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}
