//! The endpoints of one upstream, in their order: who is asked next, and whose answer counts.
//!
//! Each endpoint is a client of its own, with its own connections, credentials, tokens and breakers; nothing of one is ever
//! shown to another. The next one is asked when one fails (no connection, no answer in time, 5xx, 429, or left alone by its
//! breaker). What an endpoint answers is the answer: a 404, a refusal or bad bytes lead nowhere else.

use std::future::Future;
use std::sync::Arc;

use super::breaker::Board;
use super::client::Client;
use super::{Content, Fallback, Network, Settings, SettingsError, UpstreamError};
use crate::oci::Host;
use crate::telemetry::Telemetry;

/// All endpoints.
#[derive(Debug)]
pub(super) struct Endpoints {
    first: Arc<Client>,
    rest: Vec<(Arc<Client>, Content)>,
    host: Host,
    telemetry: Telemetry,
}

impl Endpoints {
    pub(super) fn new(
        settings: Settings,
        fallbacks: Vec<Fallback>,
        telemetry: Telemetry,
        network: Network,
    ) -> Result<Self, SettingsError> {
        let host = settings.host.clone();
        let board = Arc::new(Board::new(host.clone(), telemetry.clone()));
        let of_all = telemetry.clone();
        let client = move |settings| Client::new(settings, of_all.clone(), network.clone(), &board).map(Arc::new);
        let first = client(settings)?;
        let rest = fallbacks.into_iter().map(|fallback| Ok((client(fallback.settings)?, fallback.content)));
        let rest = rest.collect::<Result<Vec<_>, SettingsError>>()?;
        Ok(Self { first, rest, host, telemetry })
    }

    pub(super) fn first(&self) -> &Arc<Client> {
        &self.first
    }

    /// Asks one endpoint after the other for one thing.
    pub(super) async fn ask<T, F>(&self, ask: impl Fn(Arc<Client>) -> F) -> Result<T, UpstreamError>
    where
        F: Future<Output = Result<T, UpstreamError>>,
    {
        self.ask_for(What::Thing, ask).await
    }

    /// Asks one endpoint after the other for a list, which one that has not all cannot give.
    pub(super) async fn ask_for_list<T, F>(&self, ask: impl Fn(Arc<Client>) -> F) -> Result<T, UpstreamError>
    where
        F: Future<Output = Result<T, UpstreamError>>,
    {
        self.ask_for(What::List, ask).await
    }

    async fn ask_for<T, F>(&self, what: What, ask: impl Fn(Arc<Client>) -> F) -> Result<T, UpstreamError>
    where
        F: Future<Output = Result<T, UpstreamError>>,
    {
        let mut failed = match Box::pin(ask(Arc::clone(&self.first))).await {
            Err(error) if is_away(&error) => error,
            answered => return answered,
        };
        for (client, content) in &self.rest {
            let partial = *content == Content::Partial;
            if partial && what == What::List {
                continue;
            }
            self.telemetry.upstream_failed_over(&self.host);
            match Box::pin(ask(Arc::clone(client))).await {
                Err(error) if is_away(&error) => failed = more_telling(failed, error),
                Err(UpstreamError::NotFound { .. } | UpstreamError::Refused { .. }) if partial => {}
                answered => return answered,
            }
        }
        Err(failed)
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Thing,
    List,
}

/// Whether an endpoint gave no answer at all, so that another one may be asked.
fn is_away(error: &UpstreamError) -> bool {
    match error {
        UpstreamError::RateLimited { .. }
        | UpstreamError::Resting { .. }
        | UpstreamError::Timeout { .. }
        | UpstreamError::Failed { .. }
        | UpstreamError::Connect { .. } => true,
        UpstreamError::NotFound { .. } | UpstreamError::Refused { .. } | UpstreamError::Bad { .. } => false,
    }
}

/// What is told when all endpoints failed: a limit, since it says when to come back (of two the one that ends first); else
/// what the first one said.
fn more_telling(known: UpstreamError, new: UpstreamError) -> UpstreamError {
    match (&known, &new) {
        (
            UpstreamError::RateLimited { retry_after: one, .. },
            UpstreamError::RateLimited { retry_after: other, .. },
        ) => {
            if other < one {
                new
            } else {
                known
            }
        }
        (_, UpstreamError::RateLimited { .. }) => new,
        _ => known,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn host() -> Host {
        "registry.test".parse().unwrap()
    }

    fn limited(seconds: u64) -> UpstreamError {
        UpstreamError::RateLimited { upstream: host(), retry_after: Duration::from_secs(seconds) }
    }

    #[test]
    fn an_answer_leads_to_no_other_endpoint() {
        let answers = [
            UpstreamError::NotFound { upstream: host() },
            UpstreamError::Refused { upstream: host(), status: 401 },
            UpstreamError::Bad { upstream: host(), reason: "digest_mismatch" },
        ];
        assert!(answers.iter().all(|error| !is_away(error)));
        let failed = |status| UpstreamError::Failed { upstream: host(), status, retry_after: None };
        let away = [
            limited(1),
            UpstreamError::Resting {
                upstream: host(),
                retry_after: Duration::from_secs(1),
                last: Box::new(failed(503)),
            },
            UpstreamError::Timeout { upstream: host() },
            failed(500),
            UpstreamError::Connect { upstream: host(), reason: "tls" },
        ];
        assert!(away.iter().all(is_away));
    }

    #[test]
    fn a_limit_is_told_before_anything_else_and_the_shorter_one() {
        let away = || UpstreamError::Timeout { upstream: host() };
        let failed = || UpstreamError::Failed { upstream: host(), status: 503, retry_after: None };
        assert!(matches!(more_telling(away(), failed()), UpstreamError::Timeout { .. }));
        assert!(matches!(more_telling(away(), limited(7)), UpstreamError::RateLimited { .. }));
        assert!(matches!(more_telling(limited(7), away()), UpstreamError::RateLimited { .. }));
        let seven = Duration::from_secs(7);
        for (known, new) in [(limited(7), limited(9)), (limited(9), limited(7))] {
            let told = more_telling(known, new);
            assert!(matches!(told, UpstreamError::RateLimited { retry_after, .. } if retry_after == seven));
        }
    }
}
