//! The reload loop: who may cause a reload, one at a time.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::config::{Changes, Reloader};
use crate::limits::{CONFIG_POLL, RELOAD_QUEUE};
use crate::telemetry::Telemetry;

/// Asks for reloads; clones ask the same loop.
#[derive(Debug, Clone)]
pub struct Reloads(mpsc::Sender<Asker>);

/// Who waits for what came of a reload.
type Asker = oneshot::Sender<Result<Changes, String>>;

/// What the loop gets its requests from.
#[derive(Debug)]
pub(super) struct Requests(mpsc::Receiver<Asker>);

/// A way to ask, and the end that the loop takes.
pub(super) fn channel() -> (Reloads, Requests) {
    let (sender, receiver) = mpsc::channel(RELOAD_QUEUE);
    (Reloads(sender), Requests(receiver))
}

impl Reloads {
    /// Asks for a reload and waits for nothing; the log says what came of it. With many waiting already, one more changes
    /// nothing.
    pub fn request(&self) {
        let (asker, _nobody) = oneshot::channel();
        drop(self.0.try_send(asker));
    }

    /// Reloads configuration and policy. Cancel safe: the reload goes on.
    ///
    /// # Errors
    /// One line that says what is wrong with the new configuration; the old one stays in force.
    pub async fn reload(&self) -> Result<Changes, String> {
        let (asker, answer) = oneshot::channel();
        if self.0.send(asker).await.is_err() {
            return Err(SHUTTING_DOWN.to_owned());
        }
        answer.await.unwrap_or_else(|_| Err(SHUTTING_DOWN.to_owned()))
    }
}

/// Reloads when asked, and when a file changed, until `stop`.
pub(super) async fn run(reloader: Reloader, requests: Requests, telemetry: Telemetry, stop: CancellationToken) {
    let Requests(mut requests) = requests;
    let reloader = Arc::new(reloader);
    let mut ticks = tokio::time::interval(CONFIG_POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Losing a branch is safe: a request stays queued, a tick comes again.
        let asker = tokio::select! {
            () = stop.cancelled() => return,
            request = requests.recv() => match request {
                Some(asker) => Some(asker),
                None => return,
            },
            _ = ticks.tick() => {
                let looking = Arc::clone(&reloader);
                match off_thread(&telemetry, move || looking.look()).await {
                    Some(true) => None,
                    Some(false) | None => continue,
                }
            }
        };
        let reloading = Arc::clone(&reloader);
        let outcome = off_thread(&telemetry, move || reloading.reload()).await;
        if let Some(asker) = asker {
            let answer = match outcome {
                Some(result) => result.map_err(|error| error.to_string()),
                None => Err("the reload failed inside; the old configuration stays in force".to_owned()),
            };
            // Whoever asked may have left; the reload counts all the same.
            drop(asker.send(answer));
        }
    }
}

/// Reading files blocks. `None`: it panicked, which is counted and changes nothing.
async fn off_thread<T: Send + 'static>(telemetry: &Telemetry, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::error!(%error, "the reload panicked; the old configuration stays in force");
            telemetry.panicked("reload");
            None
        }
    }
}

const SHUTTING_DOWN: &str = "the mirror is shutting down";
