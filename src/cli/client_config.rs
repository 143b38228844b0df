//! `sealgate client-config RUNTIME --mirror URL`.

use serde_json::json;

use super::{CliError, ConfigArgument, OutputFormat, Status, output};
use crate::config::Document;
use crate::oci::Host;
use crate::runtimes::{Mirror, Runtime, client_config};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The container runtime
    #[arg(value_parser = runtime_parser())]
    runtime: Runtime,
    /// Where clients reach the mirror, such as `https://mirror.example:5443`
    #[arg(long, value_name = "URL")]
    mirror: Mirror,
    /// A registry that is pulled through the mirror; can be repeated [default: every upstream of the configuration]
    #[arg(long, value_name = "HOST")]
    upstream: Vec<Host>,
    /// `text` is one commented text (with one file: that file); `json` lists files and notes
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    config: ConfigArgument,
}

pub(super) fn run(arguments: &Arguments) -> Result<Status, CliError> {
    let upstreams =
        if arguments.upstream.is_empty() { configured(&arguments.config)? } else { arguments.upstream.clone() };
    let config = client_config(arguments.runtime, &arguments.mirror, &upstreams);
    match arguments.output {
        OutputFormat::Text => output::print(&config.to_text())?,
        OutputFormat::Json => output::print_json(&json!({
            "runtime": arguments.runtime.as_str(),
            "mirror": arguments.mirror.to_string(),
            "files": config.files.iter().map(|file| json!({"path": file.path, "content": file.content})).collect::<Vec<_>>(),
            "notes": config.notes,
        }))?,
    }
    Ok(Status::Done)
}

fn configured(config: &ConfigArgument) -> Result<Vec<Host>, CliError> {
    let document = Document::load(&config.origin())?;
    let hosts: Vec<String> = document.upstream.into_iter().map(|upstream| upstream.host).collect();
    let hosts = if hosts.is_empty() { vec!["docker.io".to_owned()] } else { hosts };
    hosts
        .into_iter()
        .map(|host| {
            host.parse().map_err(|error| CliError::Usage {
                what: format!("the configured upstream \"{host}\" is {error}"),
                next: "run `sealgate config check`".to_owned(),
            })
        })
        .collect()
}

fn runtime_parser() -> impl clap::builder::TypedValueParser<Value = Runtime> {
    use clap::builder::TypedValueParser as _;
    clap::builder::PossibleValuesParser::new(Runtime::ALL.map(Runtime::as_str))
        .try_map(|name| Runtime::ALL.into_iter().find(|runtime| runtime.as_str() == name).ok_or("no such runtime"))
}
