//! `sealgate serve`: run until SIGTERM or SIGINT, then finish what is running.

use super::{CliError, ConfigArgument, Status, logging, output, runtime};
use crate::app::{App, Signals};
use crate::clock::Clock;
use crate::config::Config;
use crate::config::document::LogFormat;

pub(super) fn run(argument: &ConfigArgument) -> Result<Status, CliError> {
    let origin = argument.origin();
    let loaded = Config::load(&origin)?;
    let format = loaded.config.log.format;
    let flush =
        logging::install(&loaded.config.log).map_err(|source| CliError::Io { what: "cannot start the log", source })?;
    keep_freed_memory();
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        let signals = Signals::listen()?;
        let app = App::start(loaded, origin, Clock::System).await?;
        flush.count_in(app.telemetry());
        match format {
            LogFormat::Text => output::print(&app.banner().to_string())?,
            LogFormat::Json => app.banner().log(),
        }
        app.run(signals).await;
        Ok(Status::Done)
    });
    // A file system that hangs must not keep the process: what matters was waited for by the drain.
    runtime.shutdown_timeout(LEFTOVERS_MAX);
    drop(flush);
    outcome
}

/// Has glibc keep what is freed of up to so many bytes a heap, instead of giving each received piece of a blob back to the
/// kernel, to have it mapped and zeroed again for the next. It takes the largest mapping that was freed as its
/// measure (mallopt(3), `M_MMAP_THRESHOLD`) and gives back what is more than twice that. Other allocators do not care.
fn keep_freed_memory() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(FREED_KEPT_BYTES / 2)));
}

const FREED_KEPT_BYTES: usize = 8 * 1024 * 1024;

const LEFTOVERS_MAX: std::time::Duration = std::time::Duration::from_secs(2);
