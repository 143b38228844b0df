//! Sending: one call becomes one usable answer, by way of tokens, redirects and repetitions.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, IF_RANGE, LOCATION, RANGE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use url::Url;

use super::authorization::{KnownChallenge, Shown};
use super::breaker::{self, Board, BreakerStanding, Breakers, Manners};
use super::credentials::CredentialSource;
use super::lookaside::Lookasides;
use super::rate_limit::RateLimit;
use super::reach::Reach;
use super::retry;
use super::token::Tokens;
use super::{Network, Settings, SettingsError, UpstreamError, checks};
use crate::clock::Clock;
use crate::limits::{REDIRECTS_MAX, UPSTREAM_BLOB_CONCURRENCY, UPSTREAM_BLOB_QUEUE, UPSTREAM_CONCURRENCY};
use crate::net::{Body, HttpClient, HttpSettings, NetError, Request, Response, Timeouts};
use crate::oci::{Host, RepositoryName};
use crate::telemetry::{CodeClass, Telemetry, UpstreamOp};

/// One upstream.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) host: Host,
    ns: bool,
    pub(super) reach: Reach,
    pub(super) http: HttpClient,
    /// For places that are not the upstream's own: without its client certificate.
    pub(super) elsewhere: HttpClient,
    pub(super) lookasides: Lookasides,
    pub(super) credentials: CredentialSource,
    pub(super) tokens: Tokens,
    /// What the last 401 asked for, so that the next request brings it along.
    pub(super) challenge: Mutex<Option<Arc<KnownChallenge>>>,
    pub(super) telemetry: Telemetry,
    breakers: Breakers,
    /// All requests.
    turns: Arc<Semaphore>,
    /// Blob transfers; the rest of `turns` is for requests that are over soon.
    blob_turns: Arc<Semaphore>,
    clock: Clock,
}

/// One call, built from typed parts only.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) op: UpstreamOp,
    pub(super) method: Method,
    pub(super) name: &'a RepositoryName,
    pub(super) url: Url,
    pub(super) accept: HeaderValue,
    pub(super) range: Option<AskedRange>,
}

/// A `Range`, and the `If-Range` that goes with it.
#[derive(Debug)]
pub(super) struct AskedRange {
    pub(super) range: HeaderValue,
    pub(super) if_range: Option<HeaderValue>,
}

/// A 2xx answer whose body has not been read. It holds the call's turn.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
    pub(super) turn: Turn,
}

/// The right to have one request under way; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _any: OwnedSemaphorePermit,
    _blob: Option<OwnedSemaphorePermit>,
}

/// A response, and whether the upstream itself sent it, without detour.
pub(super) struct Exchange {
    pub(super) response: Response,
    pub(super) from_endpoint: bool,
}

impl Client {
    pub(super) fn new(
        settings: Settings,
        telemetry: Telemetry,
        network: Network,
        board: &Arc<Board>,
        manners: Manners,
    ) -> Result<Self, SettingsError> {
        let reach = Reach::new(settings.endpoint, &settings.auth_hosts, &settings.redirect_hosts)?;
        let credentials = CredentialSource::new(settings.credentials, settings.host.clone(), reach.endpoint())?;
        let lookasides = Lookasides::new(settings.proxy.clone(), settings.allow_private_addresses, network.clone());
        let Network { timeouts, lookup, .. } = network;
        let http = |identity: Option<Vec<u8>>| {
            HttpClient::new(HttpSettings {
                ca_pem: settings.ca_pem.clone(),
                client_identity_pem: identity,
                proxy: settings.proxy.clone(),
                addresses: reach.address_rules(settings.allow_private_addresses),
                timeouts,
                lookup: lookup.clone(),
            })
            .map_err(|error| SettingsError(error.to_string()))
        };
        let breakers = Breakers::new(Arc::clone(board), manners);
        let elsewhere = http(None)?;
        let http = match settings.client_identity_pem {
            None => elsewhere.clone(),
            identity @ Some(_) => http(identity)?,
        };
        Ok(Self {
            host: settings.host,
            ns: settings.ns,
            reach,
            http,
            elsewhere,
            lookasides,
            credentials,
            tokens: Tokens::new(),
            challenge: Mutex::new(None),
            telemetry,
            breakers,
            turns: Arc::new(Semaphore::new(UPSTREAM_CONCURRENCY)),
            blob_turns: Arc::new(Semaphore::new(UPSTREAM_BLOB_CONCURRENCY)),
            clock: Clock::System,
        })
    }

    /// `<endpoint>/v2/<name>/<rest>`; all parts fit their grammars, so that none can leave its place.
    pub(super) fn url(&self, name: &RepositoryName, rest: &str) -> Url {
        let mut url = self.reach.endpoint().clone();
        url.set_path(&format!("/v2/{name}/{rest}"));
        self.name_upstream(&mut url);
        url
    }

    /// Says which registry is meant, to an endpoint that has several.
    pub(super) fn name_upstream(&self, url: &mut Url) {
        if self.ns && !url.query_pairs().any(|(key, _)| key == "ns") {
            url.query_pairs_mut().append_pair("ns", self.host.as_str());
        }
    }

    pub(super) fn timeouts(&self) -> &Timeouts {
        self.http.timeouts()
    }

    pub(super) fn bad(&self, reason: &'static str) -> UpstreamError {
        UpstreamError::Bad { upstream: self.host.clone(), reason }
    }

    /// How its breakers stand.
    pub(super) fn standing(&self) -> BreakerStanding {
        self.breakers.worst()
    }

    /// Runs `work` within the total time of a manifest.
    pub(super) async fn within_total<T>(
        &self,
        work: impl Future<Output = Result<T, UpstreamError>>,
    ) -> Result<T, UpstreamError> {
        let ended = tokio::time::timeout(self.timeouts().total, Box::pin(work)).await;
        ended.unwrap_or_else(|_| Err(UpstreamError::Timeout { upstream: self.host.clone() }))
    }

    /// Waits for a turn; for requests that are over soon, within their total time.
    pub(super) async fn turn(&self) -> Result<Turn, UpstreamError> {
        let any = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| self.closed())?;
        Ok(Turn { _any: any, _blob: None })
    }

    /// Waits for the turn of a transfer, at most [`UPSTREAM_BLOB_QUEUE`].
    pub(super) async fn blob_turn(&self) -> Result<Turn, UpstreamError> {
        let waiting = tokio::time::timeout(UPSTREAM_BLOB_QUEUE, Arc::clone(&self.blob_turns).acquire_owned());
        let waited = waiting.await.map_err(|_| UpstreamError::Timeout { upstream: self.host.clone() })?;
        let blob = waited.map_err(|_| self.closed())?;
        Ok(Turn { _blob: Some(blob), ..self.turn().await? })
    }

    /// Nobody closes the semaphores; should it happen, nothing can be sent.
    fn closed(&self) -> UpstreamError {
        UpstreamError::Connect { upstream: self.host.clone(), reason: "connect" }
    }

    /// Sends the call until there is an answer or no point in going on.
    ///
    /// # Errors
    /// [`UpstreamError`] for everything but a 2xx.
    pub(super) async fn answer(self: &Arc<Self>, call: &Call<'_>, turn: Turn) -> Result<Answer, UpstreamError> {
        // Where a credential cannot be had, the request may not need one; if it does, that is said then.
        let credential = self.credentials.of(call.name).await.ok().flatten();
        let breaker = self.breakers.of(credential.map(|credential| credential.fingerprint()));
        let pass = breaker.pass(&self.host).await?;
        let probe = pass.is_probe();
        // Unless others wait for what this call says, or somebody has learned that nobody should ask.
        let goes_on = || !probe && breaker.is_closed();
        let result = self.repeated(|| Box::pin(self.attempt(call)), goes_on).await;
        pass.conclude(&result);
        let Response { status, headers, body } = result?;
        self.telemetry.upstream_usable(&self.host, self.clock.now());
        checks::identity_encoding(&headers).map_err(|reason| self.bad(reason))?;
        Ok(Answer { status, headers, body, turn })
    }

    /// What the attempt brings, or a later one while repeating it is worth it; before and after each pause `goes_on` is asked.
    pub(super) async fn repeated<T, F>(
        &self,
        mut attempt: impl FnMut() -> F,
        goes_on: impl Fn() -> bool,
    ) -> Result<T, UpstreamError>
    where
        F: Future<Output = Result<T, UpstreamError>>,
    {
        let mut failures = 0;
        loop {
            let error = match attempt().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            failures += 1;
            let Some(pause) = retry::pause(failures, &error, self.timeouts().retry_pause, random_byte()) else {
                return Err(error);
            };
            if !goes_on() {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            if !goes_on() {
                return Err(error);
            }
            self.telemetry.upstream_retried(&self.host);
        }
    }

    /// Sends the call, and again while the upstream asks for something better than it was shown: after nothing, a kept
    /// token; after that, a fresh one.
    async fn attempt(self: &Arc<Self>, call: &Call<'_>) -> Result<Response, UpstreamError> {
        let mut shown = self.known_authorization(call.name).await?;
        let mut exchange = self.follow(call, &shown).await?;
        for _ in 0..REAUTHORISATIONS_MAX {
            if exchange.response.status != StatusCode::UNAUTHORIZED || !exchange.from_endpoint {
                break;
            }
            shown = self.reauthorise(call.name, &exchange.response.headers, &shown).await?;
            exchange = self.follow(call, &shown).await?;
        }
        self.judge(exchange.response)
    }

    /// Sends the call and follows redirects by hand. The authorization goes to the upstream's own origin only, and not
    /// there either once another place has had a say in where to go.
    async fn follow(&self, call: &Call<'_>, shown: &Shown) -> Result<Exchange, UpstreamError> {
        let mut url = call.url.clone();
        let mut from_endpoint = true;
        for hop in 0..=REDIRECTS_MAX {
            from_endpoint = from_endpoint && self.reach.is_endpoint(&url);
            let authorization = shown.header().filter(|_| from_endpoint);
            let request = request(call, url.clone(), authorization);
            let response = self.exchange(call.op, request).await.map_err(|error| {
                let blocked = matches!(error, NetError::AddressBlocked { .. }) && hop > 0;
                if blocked { self.bad("redirect_blocked") } else { UpstreamError::of(&self.host, error) }
            })?;
            if !is_redirect(response.status) {
                return Ok(Exchange { response, from_endpoint });
            }
            let location = checks::single(&response.headers, &LOCATION).ok().flatten();
            let location = location.ok_or_else(|| self.bad("redirect"))?;
            url = self.reach.redirect(&url, location).map_err(|_| self.bad("redirect_blocked"))?;
        }
        Err(self.bad("redirect"))
    }

    /// Sends one request and reports how it went. A client certificate is a credential: only the upstream itself and the
    /// realm of its tokens see it, never a place that a redirect leads to.
    pub(super) async fn exchange(&self, op: UpstreamOp, request: Request) -> Result<Response, NetError> {
        let ours = op == UpstreamOp::Token || self.reach.is_endpoint(&request.url);
        let result = self.send(if ours { &self.http } else { &self.elsewhere }, op, request).await;
        if let Ok(response) = &result
            && op != UpstreamOp::Token
            && ours
            && let Some(limit) = RateLimit::read(&response.headers)
        {
            self.telemetry.rate_limit_seen(&self.host, limit.requests, limit.remaining, limit.window);
        }
        result
    }

    /// The same by a client of the caller's choice.
    pub(super) async fn send(&self, http: &HttpClient, op: UpstreamOp, request: Request) -> Result<Response, NetError> {
        let began = Instant::now();
        let result = http.send(request).await;
        let class = match &result {
            Ok(response) => class_of(response.status),
            Err(NetError::Timeout) => CodeClass::Timeout,
            Err(NetError::Tls) => CodeClass::Tls,
            Err(
                NetError::AddressBlocked { .. }
                | NetError::Dns
                | NetError::Connect
                | NetError::Reset
                | NetError::Protocol
                | NetError::Truncated
                | NetError::TooLarge { .. },
            ) => CodeClass::Connect,
        };
        self.telemetry.upstream_answered(&self.host, op, class, began.elapsed());
        result
    }

    /// Turns a status into an answer or an error.
    pub(super) fn judge(&self, response: Response) -> Result<Response, UpstreamError> {
        let upstream = self.host.clone();
        let status = response.status;
        let wait = checks::single(&response.headers, &RETRY_AFTER).ok().flatten();
        match status.as_u16() {
            200..=299 => Ok(response),
            401 | 403 => Err(UpstreamError::Refused { upstream, status: status.as_u16() }),
            404 => Err(UpstreamError::NotFound { upstream }),
            429 => {
                let retry_after = breaker::limited_for(wait, self.clock.now());
                Err(UpstreamError::RateLimited { upstream, retry_after })
            }
            500..=599 => {
                let retry_after = breaker::retry_after(wait, self.clock.now());
                Err(UpstreamError::Failed { upstream, status: status.as_u16(), retry_after })
            }
            _ => Err(self.bad("protocol")),
        }
    }

    pub(super) fn pause_after_break(&self, breaks: usize) -> Duration {
        // Longer than before a request is repeated: there a client waits for an answer, here one of a few attempts is at stake.
        retry::doubled(5 * self.timeouts().retry_pause, breaks, random_byte())
    }
}

fn request(call: &Call<'_>, url: Url, authorization: Option<&HeaderValue>) -> Request {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, call.accept.clone());
    if let Some(asked) = &call.range {
        headers.insert(RANGE, asked.range.clone());
        if let Some(if_range) = &asked.if_range {
            headers.insert(IF_RANGE, if_range.clone());
        }
    }
    if let Some(authorization) = authorization {
        headers.insert(AUTHORIZATION, authorization.clone());
    }
    Request { method: call.method.clone(), url, headers, body: Bytes::new() }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn class_of(status: StatusCode) -> CodeClass {
    match status.as_u16() {
        200..=299 => CodeClass::Success,
        300..=399 => CodeClass::Redirect,
        401 => CodeClass::Unauthorized,
        403 => CodeClass::Forbidden,
        404 => CodeClass::NotFound,
        429 => CodeClass::TooManyRequests,
        500..=599 => CodeClass::Server,
        _ => CodeClass::Client,
    }
}

/// From nothing to a kept token, from that to a fresh one.
const REAUTHORISATIONS_MAX: usize = 2;

/// Spreads repetitions; that it cannot be had is no reason to fail.
fn random_byte() -> u8 {
    let mut byte = [0];
    match aws_lc_rs::rand::fill(&mut byte) {
        Ok(()) => u8::from_be_bytes(byte),
        Err(_) => 0,
    }
}
