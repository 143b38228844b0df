//! The endpoints of one upstream, in their order: who is asked next, and whose answer counts.
//!
//! Each endpoint is a client of its own, with its own connections, credentials, tokens and breakers; nothing of one is ever
//! shown to another. The next one is asked when one fails (no connection, no answer in time, 5xx, 429, or left alone by its
//! breaker), and beside one that has not answered for a while: then whichever has it first gives it. What an endpoint answers
//! is the answer: a 404, a refusal or bad bytes lead nowhere else, and count only once those before it have failed. But that a
//! further endpoint refuses us says something about it and us, and nothing about what the upstream has.

use std::future::Future;
use std::ops::Deref;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::Instant;
use url::Url;

use super::breaker::{Board, BreakerStanding, Manners};
use super::client::{Answer, Call, Client, Turn};
use super::{Content, Fallback, Network, Settings, SettingsError, UpstreamError};
use crate::limits::{BREAKER_PROBE_PATIENCE, STALE_SOFT_DEADLINE};
use crate::oci::Host;
use crate::telemetry::Telemetry;

/// All endpoints.
#[derive(Debug)]
pub(super) struct Endpoints {
    first: Arc<Client>,
    rest: Vec<(Arc<Client>, Content)>,
    host: Host,
    telemetry: Telemetry,
    /// How long one may be silent until the next is asked beside it.
    patience: Duration,
}

/// One endpoint, asked for one thing.
#[derive(Debug)]
pub(super) struct Endpoint {
    client: Arc<Client>,
    /// Since when it owes an answer.
    silent: watch::Sender<Option<Instant>>,
}

impl Deref for Endpoint {
    type Target = Arc<Client>;

    fn deref(&self) -> &Self::Target {
        &self.client
    }
}

impl Endpoint {
    /// As [`Client::answer`].
    pub(super) async fn answer(&self, call: &Call<'_>, turn: Turn) -> Result<Answer, UpstreamError> {
        self.silent.send_replace(Some(Instant::now()));
        let answer = self.client.answer(call, turn).await;
        // What is read whole owes its body too; the body of a blob is read when this has ended.
        self.silent.send_replace(Some(Instant::now()));
        answer
    }
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
        let patience = network.patience;
        // Who has another one behind it is not waited for.
        let last = fallbacks.iter().rposition(|fallback| fallback.content == Content::Complete);
        let manners = |place: Option<usize>| match last {
            Some(last) if place.is_none_or(|place| place < last) => {
                Manners { probe_patience: Duration::ZERO, slow: patience.min(STALE_SOFT_DEADLINE) }
            }
            Some(_) | None => Manners { probe_patience: BREAKER_PROBE_PATIENCE, slow: STALE_SOFT_DEADLINE },
        };
        let of_all = telemetry.clone();
        let client = move |settings, manners| {
            Client::new(settings, of_all.clone(), network.clone(), &board, manners).map(Arc::new)
        };
        let first = client(settings, manners(None))?;
        let rest = fallbacks
            .into_iter()
            .enumerate()
            .map(|(place, fallback)| Ok((client(fallback.settings, manners(Some(place)))?, fallback.content)));
        let rest = rest.collect::<Result<Vec<_>, SettingsError>>()?;
        Ok(Self { first, rest, host, telemetry, patience })
    }

    pub(super) fn first(&self) -> &Arc<Client> {
        &self.first
    }

    /// Asks one endpoint after the other for one thing.
    pub(super) async fn ask<T, F>(&self, ask: impl Fn(Endpoint) -> F) -> Result<T, UpstreamError>
    where
        F: Future<Output = Result<T, UpstreamError>>,
    {
        self.ask_in_order(self.all().collect(), ask).await
    }

    /// The same, with that endpoint as the last one.
    pub(super) async fn ask_others_first<T, F>(
        &self,
        last: Option<&Url>,
        ask: impl Fn(Endpoint) -> F,
    ) -> Result<T, UpstreamError>
    where
        F: Future<Output = Result<T, UpstreamError>>,
    {
        let (last, mut order): (Vec<_>, Vec<_>) =
            self.all().partition(|(client, _)| Some(client.reach.endpoint()) == last);
        order.extend(last);
        self.ask_in_order(order, ask).await
    }

    /// The same without those that have not all: for a list, and for what a tag names.
    pub(super) async fn ask_complete<T, F>(&self, ask: impl Fn(Endpoint) -> F) -> Result<T, UpstreamError>
    where
        F: Future<Output = Result<T, UpstreamError>>,
    {
        self.ask_in_order(self.all().filter(|(_, role)| *role != Role::Partial).collect(), ask).await
    }

    /// Each endpoint, and how it stands.
    pub(super) fn standings(&self) -> Vec<(Url, BreakerStanding)> {
        self.all().map(|(client, _)| (client.reach.endpoint().clone(), client.standing())).collect()
    }

    fn all(&self) -> impl Iterator<Item = (&Arc<Client>, Role)> {
        let rest = self.rest.iter().map(|(client, content)| (client, Role::of_further(*content)));
        std::iter::once((&self.first, Role::First)).chain(rest)
    }

    async fn ask_in_order<T, F>(
        &self,
        order: Vec<(&Arc<Client>, Role)>,
        ask: impl Fn(Endpoint) -> F,
    ) -> Result<T, UpstreamError>
    where
        F: Future<Output = Result<T, UpstreamError>>,
    {
        let mut course = Course { ends: Vec::with_capacity(order.len()) };
        let mut left = order.into_iter();
        let mut under_way = FuturesUnordered::new();
        let mut silent = watch::Sender::new(None).subscribe();
        let mut next = true;
        loop {
            if next && let Some((client, role)) = left.next() {
                if !course.ends.is_empty() {
                    self.telemetry.upstream_failed_over(&self.host);
                }
                let place = course.begin(role);
                let owed = watch::Sender::new(None);
                silent = owed.subscribe();
                let asking = ask(Endpoint { client: Arc::clone(client), silent: owed });
                under_way.push(Box::pin(async move { (place, asking.await) }));
            }
            let may_ask = left.len() > 0 && !course.is_answered();
            // Losing the wait for silence loses nothing; who is under way stays so.
            next = tokio::select! {
                biased;
                ended = under_way.next() => match ended {
                    Some((_, Ok(answer))) => return Ok(answer),
                    Some((place, Err(error))) => {
                        course.end(place, error);
                        if let Some(error) = course.settled() {
                            return Err(error);
                        }
                        course.is_last(place) && !course.is_answered()
                    }
                    None => return Err(course.told(&self.host)),
                },
                () = silence(&mut silent, self.patience), if may_ask => true,
            };
        }
    }
}

/// Ends when an answer has been owed for so long.
async fn silence(owed: &mut watch::Receiver<Option<Instant>>, patience: Duration) {
    loop {
        let since = *owed.borrow_and_update();
        let mut waited = pin!(async {
            match since {
                Some(since) => tokio::time::sleep_until(since + patience).await,
                None => std::future::pending().await,
            }
        });
        tokio::select! {
            () = &mut waited => return,
            changed = owed.changed() => if changed.is_err() {
                // It has ended, and that is told elsewhere.
                std::future::pending::<()>().await;
            },
        }
    }
}

/// What an endpoint is among those of its upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The upstream itself.
    First,
    /// Stands in for it.
    Complete,
    /// May lack what the upstream has.
    Partial,
}

impl Role {
    const fn of_further(content: Content) -> Self {
        match content {
            Content::Complete => Self::Complete,
            Content::Partial => Self::Partial,
        }
    }
}

/// How those endpoints stand that have been asked, in their order.
struct Course {
    ends: Vec<(Role, End)>,
}

/// What became of asking one.
enum End {
    UnderWay,
    /// It gave no answer at all.
    Away(UpstreamError),
    /// It does not have, or not for us, what others may have.
    Lacks,
    /// An answer, though not the thing.
    Answer(UpstreamError),
}

impl Course {
    fn begin(&mut self, role: Role) -> usize {
        self.ends.push((role, End::UnderWay));
        self.ends.len().saturating_sub(1)
    }

    fn end(&mut self, place: usize, error: UpstreamError) {
        if let Some((role, end)) = self.ends.get_mut(place) {
            *end = match (*role, error) {
                (_, error) if is_away(&error) => End::Away(error),
                (Role::Partial, UpstreamError::NotFound { .. })
                | (Role::Partial | Role::Complete, UpstreamError::Refused { .. }) => End::Lacks,
                (Role::First | Role::Complete | Role::Partial, error) => End::Answer(error),
            };
        }
    }

    /// Nobody after it has been asked.
    fn is_last(&self, place: usize) -> bool {
        place.saturating_add(1) == self.ends.len()
    }

    /// Whether there is an answer that may count, so that nobody further is asked.
    fn is_answered(&self) -> bool {
        self.ends.iter().any(|(_, end)| matches!(end, End::Answer(_)))
    }

    /// The answer, once all before it have failed.
    fn settled(&self) -> Option<UpstreamError> {
        self.ends.iter().find_map(|(_, end)| match end {
            End::Away(_) | End::Lacks => None,
            End::UnderWay => Some(None),
            End::Answer(error) => Some(Some(error.clone())),
        })?
    }

    /// What is told when none has answered.
    fn told(self, host: &Host) -> UpstreamError {
        let away = self.ends.into_iter().filter_map(|(_, end)| match end {
            End::Away(error) => Some(error),
            End::UnderWay | End::Lacks | End::Answer(_) => None,
        });
        away.reduce(more_telling).unwrap_or_else(|| UpstreamError::NotFound { upstream: host.clone() })
    }
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
