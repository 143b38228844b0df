//! Who may pull: everybody, who knows a password, or who fetched a token.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::serve::{Reply, error, json_reply};

/// Who may pull.
#[derive(Debug, Clone, Default)]
pub enum Auth {
    /// Everybody.
    #[default]
    Open,
    /// Who sends this user and password.
    Basic {
        /// User.
        username: String,
        /// Password.
        password: String,
    },
    /// Who sends a token from the realm.
    Token(TokenAuth),
}

impl Auth {
    /// User and password.
    pub fn basic(username: &str, password: &str) -> Self {
        Self::Basic { username: username.to_owned(), password: password.to_owned() }
    }
}

/// Tokens, as Docker Hub issues them: the registry's own `/token` is the realm.
#[derive(Debug, Clone)]
pub struct TokenAuth {
    /// What a `WWW-Authenticate` header says instead, byte for byte, such as one with a hostile realm.
    pub challenge: Option<Vec<u8>>,
    /// The service it names.
    pub service: String,
    /// Who gets access. Without, everybody. Others get a token that opens nothing, as at Docker Hub.
    pub user: Option<(String, String)>,
    /// What the realm says in `expires_in`; nothing without.
    pub expires_in: Option<Value>,
    /// The body of the realm's answer instead of a token, such as one without `token`.
    pub answer: Option<Value>,
}

impl Default for TokenAuth {
    fn default() -> Self {
        Self {
            challenge: None,
            service: "registry.test".to_owned(),
            user: None,
            expires_in: Some(json!(300)),
            answer: None,
        }
    }
}

impl TokenAuth {
    /// Tokens for this user only.
    pub fn for_user(username: &str, password: &str) -> Self {
        Self { user: Some((username.to_owned(), password.to_owned())), ..Self::default() }
    }

    /// This `WWW-Authenticate` header instead of the true one.
    #[must_use]
    pub fn challenge(mut self, header: impl AsRef<[u8]>) -> Self {
        self.challenge = Some(header.as_ref().to_vec());
        self
    }

    /// This body instead of a token.
    #[must_use]
    pub fn answer(mut self, body: Value) -> Self {
        self.answer = Some(body);
        self
    }

    /// This `expires_in`.
    #[must_use]
    pub fn expires_in(mut self, seconds: Value) -> Self {
        self.expires_in = Some(seconds);
        self
    }
}

/// Checks requests and issues tokens.
#[derive(Debug)]
pub(super) struct Guard {
    auth: Auth,
    /// Token to the scope that it opens.
    tokens: HashMap<String, String>,
    issued: usize,
}

impl Guard {
    pub(super) fn new(auth: Auth) -> Self {
        Self { auth, tokens: HashMap::new(), issued: 0 }
    }

    pub(super) fn revoke(&mut self) {
        self.tokens.clear();
    }

    /// No token is ever issued twice.
    pub(super) fn change(&mut self, auth: Auth) {
        self.auth = auth;
        self.revoke();
    }

    /// `None`: come in; else the 401. `action` is `pull` or `push,pull`.
    pub(super) fn check(&self, headers: &HeaderMap, repository: &str, action: &str, origin: &str) -> Option<Reply> {
        let sent = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        match &self.auth {
            Auth::Open => None,
            Auth::Basic { username, password } => {
                let good = basic(username, password);
                (sent != Some(good.as_bytes())).then(|| challenge(b"Basic realm=\"registry\""))
            }
            Auth::Token(token) => {
                let scope = format!("repository:{repository}:{action}");
                let sent = sent.and_then(|sent| std::str::from_utf8(sent).ok()?.strip_prefix("Bearer "));
                let opens = |granted: &String| {
                    // Who may push may pull.
                    *granted == scope || *granted == format!("repository:{repository}:pull,push")
                };
                if sent.and_then(|sent| self.tokens.get(sent)).is_some_and(opens) {
                    return None;
                }
                let true_one = format!(r#"Bearer realm="{origin}/token",service="{}",scope="{scope}""#, token.service);
                Some(challenge(token.challenge.as_deref().unwrap_or(true_one.as_bytes())))
            }
        }
    }

    /// The realm's answer. `fields` are those of the query, or of the form.
    pub(super) fn token(&mut self, headers: &HeaderMap, fields: &[(String, String)]) -> Reply {
        let Auth::Token(auth) = &self.auth else { return error(StatusCode::NOT_FOUND, "UNSUPPORTED") };
        let field = |key: &str| fields.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
        if field("service") != Some(&auth.service) {
            return error(StatusCode::BAD_REQUEST, "UNSUPPORTED");
        }
        let sent = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let known = match &auth.user {
            None => true,
            Some((username, password)) => match (sent, field("refresh_token")) {
                (None, None) => false,
                (None, Some(refresh)) => refresh == password,
                (Some(sent), _) if sent == basic(username, password).as_bytes() => true,
                (Some(_), _) => return error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED"),
            },
        };
        if let Some(answer) = &auth.answer {
            return json_reply(StatusCode::OK, answer);
        }
        let mut answer = json!({});
        if let Some(seconds) = &auth.expires_in {
            answer["expires_in"] = seconds.clone();
        }
        self.issued += 1;
        let token = format!("token-{}", self.issued);
        let scope = field("scope").unwrap_or_default().to_owned();
        self.tokens.insert(token.clone(), if known { scope } else { String::new() });
        answer["token"] = json!(token);
        json_reply(StatusCode::OK, &answer)
    }
}

fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}

fn challenge(header: &[u8]) -> Reply {
    let body = json!({ "errors": [{ "code": "UNAUTHORIZED", "message": "authentication required" }] });
    let mut reply = Response::new(bytes::Bytes::from(body.to_string()));
    *reply.status_mut() = StatusCode::UNAUTHORIZED;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_bytes(header).unwrap());
    reply
}
