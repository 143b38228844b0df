//! What is shown to the upstream: nothing, user and password, or a token from a realm that may be asked.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use http::{HeaderValue, Method};
use url::Url;
use url::form_urlencoded::Serializer;

use super::UpstreamError;
use super::challenge::{self, Challenge};
use super::client::Client;
use super::credentials::Credential;
use super::token::{Token, TokenKey};
use crate::limits::TOKEN_BYTES_MAX;
use crate::net::{NetError, Request, read_at_most};
use crate::oci::RepositoryName;
use crate::telemetry::UpstreamOp;

/// A challenge whose realm has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KnownChallenge {
    Bearer { realm: Url, service: Option<String> },
    Basic,
}

/// What a request brings along.
#[derive(Debug)]
pub(super) enum Shown {
    Nothing,
    Basic(HeaderValue),
    Token { header: HeaderValue, key: Box<TokenKey>, token: Token },
}

impl Shown {
    pub(super) fn header(&self) -> Option<&HeaderValue> {
        match self {
            Self::Nothing => None,
            Self::Basic(header) | Self::Token { header, .. } => Some(header),
        }
    }
}

impl Client {
    /// What the upstream wanted last time; nothing before it has asked.
    pub(super) async fn known_authorization(self: &Arc<Self>, name: &RepositoryName) -> Result<Shown, UpstreamError> {
        let known = self.challenge.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match known {
            None => Ok(Shown::Nothing),
            Some(challenge) => {
                let shown = self.authorization(name, &challenge, None).await;
                if shown.is_err() {
                    // The realm may have moved: the next request asks the upstream again.
                    self.forget_challenge();
                }
                shown
            }
        }
    }

    /// The answer to a 401 that came in spite of `shown`.
    ///
    /// # Errors
    /// [`UpstreamError::Refused`] when there is nothing better to show, `Bad` when the realm must not be asked.
    pub(super) async fn reauthorise(
        self: &Arc<Self>,
        name: &RepositoryName,
        headers: &HeaderMap,
        shown: &Shown,
    ) -> Result<Shown, UpstreamError> {
        let refused = || UpstreamError::Refused { upstream: self.host.clone(), status: 401 };
        let challenge = Arc::new(match challenge::find(headers) {
            None => return Err(refused()),
            Some(Challenge::Basic) => KnownChallenge::Basic,
            Some(Challenge::Bearer { realm, service }) => {
                let realm = self.reach.realm(&realm).map_err(|_| self.realm_blocked())?;
                KnownChallenge::Bearer { realm, service }
            }
        });
        self.credentials.refused(name);
        let again = self.authorization(name, &challenge, Some(shown)).await?;
        if again.header().is_none() || again.header() == shown.header() {
            return Err(refused());
        }
        *self.challenge.lock().unwrap_or_else(PoisonError::into_inner) = Some(challenge);
        Ok(again)
    }

    /// Nothing was sent to that realm.
    fn realm_blocked(&self) -> UpstreamError {
        self.telemetry.credential_blocked(&self.host);
        self.bad("realm_blocked")
    }

    pub(super) fn forget_challenge(&self) {
        *self.challenge.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    async fn authorization(
        self: &Arc<Self>,
        name: &RepositoryName,
        challenge: &KnownChallenge,
        refused: Option<&Shown>,
    ) -> Result<Shown, UpstreamError> {
        let credential = self.credentials.of(name).await.map_err(|error| {
            tracing::warn!(upstream = %self.host, %error, "credentials cannot be had");
            self.bad("upstream_auth")
        })?;
        let (realm, service) = match challenge {
            KnownChallenge::Basic => {
                return Ok(credential.and_then(|credential| credential.basic()).map_or(Shown::Nothing, Shown::Basic));
            }
            KnownChallenge::Bearer { realm, service } => (realm, service),
        };
        let key = TokenKey {
            realm: realm.clone(),
            service: service.clone(),
            scope: TokenKey::scope(name),
            credential: credential.as_deref().map(Credential::fingerprint),
        };
        let old = match refused {
            Some(Shown::Token { key: old, token, .. }) if **old == key => Some(token),
            Some(Shown::Nothing | Shown::Basic(_) | Shown::Token { .. }) | None => None,
        };
        if old.is_some_and(Token::fresh) {
            // Another one would be refused too.
            return Err(UpstreamError::Refused { upstream: self.host.clone(), status: 401 });
        }
        let fetch = || {
            let (client, key) = (Arc::clone(self), key.clone());
            async move { client.fetch_token(&key, credential.as_deref()).await }.boxed()
        };
        let token = self.tokens.obtain(&key, old, fetch).await?;
        let header = token.header().ok_or_else(|| self.bad("upstream_auth"))?;
        Ok(Shown::Token { header, key: Box::new(key), token })
    }

    async fn fetch_token(&self, key: &TokenKey, credential: Option<&Credential>) -> Result<Token, UpstreamError> {
        let token = self.within_total(self.ask_realm(key, credential)).await;
        self.telemetry.token_fetched(&self.host, token.is_ok());
        token
    }

    /// One request to the realm: no redirects, no more than [`TOKEN_BYTES_MAX`].
    async fn ask_realm(&self, key: &TokenKey, credential: Option<&Credential>) -> Result<Token, UpstreamError> {
        let failed = |error| {
            if matches!(error, NetError::AddressBlocked { .. }) {
                return self.realm_blocked();
            }
            UpstreamError::of(&self.host, error)
        };
        let response = self.exchange(UpstreamOp::Token, token_request(key, credential)).await.map_err(failed)?;
        if response.status.is_redirection() {
            return Err(self.realm_blocked());
        }
        let response = self.judge(response).map_err(|error| {
            // The realm's 404 says nothing about the image.
            let misplaced = matches!(error, UpstreamError::NotFound { .. } | UpstreamError::Bad { .. });
            if misplaced { self.bad("upstream_auth") } else { error }
        })?;
        super::checks::identity_encoding(&response.headers).map_err(|reason| self.bad(reason))?;
        let body = read_at_most(response.body, TOKEN_BYTES_MAX).await.map_err(failed)?;
        Token::parse(&body).ok_or_else(|| self.bad("upstream_auth"))
    }
}

/// The request for a token (distribution, "Token Authentication"); with an identity token, RFC 6749, 6.
fn token_request(key: &TokenKey, credential: Option<&Credential>) -> Request {
    let mut url = key.realm.clone();
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    if let Some(Credential::IdentityToken(token)) = credential {
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "refresh_token")
            .append_pair("client_id", "sealgate")
            .append_pair("service", key.service.as_deref().unwrap_or_default())
            .append_pair("scope", &key.scope)
            .append_pair("refresh_token", token.expose());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        return Request { method: Method::POST, url, headers, body: Bytes::from(form.finish()) };
    }
    if let Some(service) = &key.service {
        url.query_pairs_mut().append_pair("service", service);
    }
    url.query_pairs_mut().append_pair("scope", &key.scope);
    if let Some(basic) = credential.and_then(Credential::basic) {
        headers.insert(AUTHORIZATION, basic);
    }
    Request { method: Method::GET, url, headers, body: Bytes::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::credentials::Secret;

    fn key() -> TokenKey {
        TokenKey {
            realm: "https://a.example/token?x=y".parse().unwrap(),
            service: Some("a b".to_owned()),
            scope: TokenKey::scope(&"team/app".parse().unwrap()),
            credential: None,
        }
    }

    #[test]
    fn a_token_is_asked_for_to_pull_from_one_repository() {
        let request = token_request(&key(), None);
        assert_eq!(
            request.url.as_str(),
            "https://a.example/token?x=y&service=a+b&scope=repository%3Ateam%2Fapp%3Apull"
        );
        assert_eq!(request.method, Method::GET);
        assert!(!request.headers.contains_key(AUTHORIZATION));
    }

    #[test]
    fn an_identity_token_goes_into_the_body() {
        let request = token_request(&key(), Some(&Credential::IdentityToken(Secret::new("s&1".to_owned()))));
        assert_eq!(request.method, Method::POST);
        assert_eq!(request.url.as_str(), "https://a.example/token?x=y");
        let body = std::str::from_utf8(&request.body).unwrap();
        assert!(body.ends_with("scope=repository%3Ateam%2Fapp%3Apull&refresh_token=s%261"), "{body}");
    }
}
