//! What the system tells the process.

use tokio::signal::unix::{SignalKind, signal};

use super::AppError;

/// SIGTERM, SIGINT and SIGHUP, from the moment of [`Signals::listen`] on: one that comes before it is waited for is kept.
#[derive(Debug)]
pub struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// End in order.
    End,
    /// Load the configuration again.
    Reload,
}

impl Signals {
    /// Takes the signals over; without it they would kill the process. To be called before anything is announced.
    ///
    /// # Errors
    /// [`AppError::Signals`] when the system refuses.
    pub fn listen() -> Result<Self, AppError> {
        let listen = |kind| signal(kind).map_err(AppError::Signals);
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one. Cancel safe: signals stay pending.
    pub(super) async fn next(&mut self) -> Signal {
        // Losing a branch is safe: signals stay pending.
        tokio::select! {
            _ = self.terminate.recv() => Signal::End,
            _ = self.interrupt.recv() => Signal::End,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }
}
