//! Tokens: cached, fetched once however many wait, and never asked of a place that [`Reach`] does not allow.
//!
//! [`Reach`]: super::reach::Reach

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, WeakShared};
use http::HeaderValue;
use moka::sync::Cache;
use serde_json::Value;
use tokio::time::Instant;
use url::Url;

use super::UpstreamError;
use super::credentials::Secret;
use crate::limits::{TOKEN_FRESH, TOKEN_LENGTH_MAX, TOKEN_LIFE, TOKEN_RENEW_AGAIN, TOKENS_MAX};
use crate::oci::{Digest, RepositoryName, json};

/// What a token is good for. Two tokens that differ in any of it are different tokens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TokenKey {
    pub(super) realm: Url,
    pub(super) service: Option<String>,
    pub(super) scope: String,
    /// Fingerprint of the credential; `None` for anonymous tokens.
    pub(super) credential: Option<Digest>,
}

impl TokenKey {
    /// The scope is ours, whatever the challenge says: to pull from that one repository.
    pub(super) fn scope(name: &RepositoryName) -> String {
        format!("repository:{name}:pull")
    }
}

/// A token and how long it is good for.
#[derive(Debug, Clone)]
pub(super) struct Token {
    secret: Secret,
    fetched: Instant,
    life: Duration,
    /// When renewing it failed.
    not_renewed: Option<Instant>,
}

impl Token {
    /// Reads a token response (distribution, "Token Authentication"). The life is clamped to [`TOKEN_LIFE`]; one that is
    /// missing or no number is the shortest.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let document = json::parse(body).ok()?;
        let field = |key: &str| document.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let text = field("token").or_else(|| field("access_token"))?;
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        if !printable || text.len() > TOKEN_LENGTH_MAX {
            return None;
        }
        let seconds = document.get("expires_in").and_then(Value::as_f64).unwrap_or_default();
        let life = Duration::try_from_secs_f64(seconds.clamp(0.0, 1e9)).unwrap_or_default();
        let life = life.clamp(TOKEN_LIFE.0, TOKEN_LIFE.1);
        Some(Self { secret: Secret::new(text.to_owned()), fetched: Instant::now(), life, not_renewed: None })
    }

    /// `Authorization: Bearer …`, marked so that no layer prints it.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", self.secret.expose())).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Whether both are the same text.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.secret == other.secret
    }

    /// So young that the issuer and the registry cannot have changed their minds.
    pub(super) fn fresh(&self) -> bool {
        self.fetched.elapsed() < TOKEN_FRESH
    }

    /// Young enough not to be renewed yet, or not again.
    fn lasts(&self) -> bool {
        let just_tried = self.not_renewed.is_some_and(|tried| tried.elapsed() < TOKEN_RENEW_AGAIN);
        just_tried || self.fetched.elapsed() < self.life.mul_f64(RENEW_AT)
    }

    fn valid(&self) -> bool {
        self.fetched.elapsed() < self.life
    }
}

/// The part of a token's life after which it is renewed.
const RENEW_AT: f64 = 0.8;

type Fetch = BoxFuture<'static, Result<Token, UpstreamError>>;

/// The tokens of one upstream.
#[derive(Debug)]
pub(super) struct Tokens {
    kept: Cache<TokenKey, Token>,
    /// Fetches under way. The callers own them together; when the last one leaves, the fetch ends.
    flights: Mutex<HashMap<TokenKey, WeakShared<Fetch>>>,
}

impl Tokens {
    pub(super) fn new() -> Self {
        Self { kept: Cache::new(TOKENS_MAX), flights: Mutex::new(HashMap::new()) }
    }

    /// A token that is not `refused`: the kept one before it is due, else a new one. When renewing fails, a kept one that
    /// has not expired is still good.
    ///
    /// Callers that ask for the same key at the same time share one fetch. Cancel safe.
    ///
    /// # Errors
    /// Whatever `fetch` says.
    pub(super) async fn obtain(
        &self,
        key: &TokenKey,
        refused: Option<&Token>,
        fetch: impl FnOnce() -> Fetch,
    ) -> Result<Token, UpstreamError> {
        let kept = self.kept.get(key).filter(|kept| kept.valid() && !refused.is_some_and(|refused| refused.is(kept)));
        if let Some(token) = kept.clone().filter(Token::lasts) {
            return Ok(token);
        }
        let flight = {
            let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
            let under_way = flights.get(key).and_then(WeakShared::upgrade).filter(|flight| flight.peek().is_none());
            under_way.unwrap_or_else(|| {
                flights.retain(|_, flight| flight.upgrade().is_some());
                let flight = fetch().shared();
                if let Some(weak) = flight.downgrade() {
                    flights.insert(key.clone(), weak);
                }
                flight
            })
        };
        match flight.await {
            Ok(token) => {
                self.kept.insert(key.clone(), token.clone());
                Ok(token)
            }
            Err(error) => {
                let kept = kept.ok_or(error)?;
                // Else each request of the rest of its life would ask a realm that is in trouble.
                self.kept.insert(key.clone(), Token { not_renewed: Some(Instant::now()), ..kept.clone() });
                Ok(kept)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn key() -> TokenKey {
        TokenKey {
            realm: "https://a.example/token".parse().unwrap(),
            service: None,
            scope: TokenKey::scope(&"library/alpine".parse().unwrap()),
            credential: None,
        }
    }

    fn token(text: &str, seconds: u64) -> Token {
        Token::parse(format!(r#"{{"token":"{text}","expires_in":{seconds}}}"#).as_bytes()).unwrap()
    }

    fn failure() -> UpstreamError {
        UpstreamError::Timeout { upstream: "a.example".parse().unwrap() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_renewed_at_four_fifths_of_its_life() {
        let tokens = Tokens::new();
        let key = key();
        let obtain = async |fetched: Result<Token, UpstreamError>| {
            let token = tokens.obtain(&key, None, || async { fetched }.boxed()).await;
            token.map(|token| token.secret.expose().to_owned()).ok()
        };
        let is = |text: &str| Some(text.to_owned());
        assert_eq!(obtain(Ok(token("one", 100))).await, is("one"));
        tokio::time::advance(Duration::from_secs(79)).await;
        assert_eq!(obtain(Ok(token("two", 100))).await, is("one"));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(obtain(Err(failure())).await, is("one"), "still valid when renewing fails");
        assert_eq!(obtain(Ok(token("two", 100))).await, is("one"), "and not renewed again at once");
        tokio::time::advance(TOKEN_RENEW_AGAIN.checked_sub(Duration::from_millis(1)).unwrap()).await;
        assert_eq!(obtain(Ok(token("two", 100))).await, is("one"));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(obtain(Ok(token("two", 100))).await, is("two"));
        tokio::time::advance(Duration::from_secs(100)).await;
        assert_eq!(obtain(Err(failure())).await, None, "expired");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_fresh_for_ten_seconds() {
        let token = token("one", 100);
        tokio::time::advance(TOKEN_FRESH.checked_sub(Duration::from_millis(1)).unwrap()).await;
        assert!(token.fresh());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!token.fresh());
    }

    #[tokio::test]
    async fn a_refused_token_is_not_used_again() {
        let tokens = Tokens::new();
        let old = tokens.obtain(&key(), None, || async { Ok(token("old", 100)) }.boxed()).await.unwrap();
        let new = tokens.obtain(&key(), Some(&old), || async { Ok(token("new", 100)) }.boxed()).await.unwrap();
        assert!(!new.is(&old));
        let again = tokens.obtain(&key(), Some(&old), || async { Err(failure()) }.boxed()).await.unwrap();
        assert!(again.is(&new), "another caller has already fetched a new one");
    }

    #[tokio::test]
    async fn many_callers_share_one_fetch_and_the_first_may_leave() {
        let tokens = Arc::new(Tokens::new());
        let count = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(tokio::sync::Notify::new());
        let fetch = || {
            let (count, gate) = (Arc::clone(&count), Arc::clone(&gate));
            async move {
                count.fetch_add(1, Ordering::SeqCst);
                gate.notified().await;
                Ok(token("one", 100))
            }
            .boxed()
        };
        let (one, two) = (key(), key());
        let mut first = Box::pin(tokens.obtain(&one, None, fetch));
        let mut second = Box::pin(tokens.obtain(&two, None, fetch));
        assert!(futures_util::poll!(&mut first).is_pending());
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        gate.notify_one();
        assert!(second.await.is_ok());
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_fetch_that_all_callers_left_is_begun_anew() {
        let tokens = Tokens::new();
        let key = key();
        let mut left = Box::pin(tokens.obtain(&key, None, || futures_util::future::pending().boxed()));
        assert!(futures_util::poll!(&mut left).is_pending());
        drop(left);
        assert!(tokens.obtain(&key, None, || async { Ok(token("one", 100)) }.boxed()).await.is_ok());
    }

    #[test]
    fn a_token_response_is_read_strictly_and_its_life_is_clamped() {
        let life = |text: &str| Token::parse(text.as_bytes()).map(|token| token.life);
        let (shortest, longest) = TOKEN_LIFE;
        assert_eq!(life(r#"{"token":"t"}"#), Some(shortest));
        assert_eq!(life(r#"{"access_token":"t","expires_in":300}"#), Some(Duration::from_mins(5)));
        for seconds in ["-1", "0", "59", "null", "\"x\"", "-1e300"] {
            assert_eq!(life(&format!(r#"{{"token":"t","expires_in":{seconds}}}"#)), Some(shortest), "{seconds}");
        }
        for seconds in ["3600", "3601", "1e18", "1e300"] {
            assert_eq!(life(&format!(r#"{{"token":"t","expires_in":{seconds}}}"#)), Some(longest), "{seconds}");
        }
        for bad in
            ["", "null", "[]", "{}", r#"{"token":""}"#, r#"{"token":1}"#, r#"{"token":"a\nb"}"#, r#"{"token":"a b"}"#]
        {
            assert!(Token::parse(bad.as_bytes()).is_none(), "{bad}");
        }
        let long = |length: usize| format!(r#"{{"token":"{}"}}"#, "t".repeat(length));
        assert!(Token::parse(long(TOKEN_LENGTH_MAX).as_bytes()).is_some());
        assert!(Token::parse(long(TOKEN_LENGTH_MAX + 1).as_bytes()).is_none());
    }

    #[test]
    fn tokens_are_never_printed() {
        let token = token("hunter2", 60);
        assert!(!format!("{token:?} {:?}", token.header()).contains("hunter2"));
    }
}
