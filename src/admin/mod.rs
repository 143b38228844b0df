//! The operators' listener: health, metrics and the JSON API (design §11), apart from the registry API.
//!
//! Everything here can be read without a credential, so nothing here is secret; changes need more (see `guard.rs`). May import: `pull`
//! (for the snapshot), `store`, `telemetry`, `policy`, `oci`, `limits`, `clock`.

mod answer;
mod cache;
mod facts;
mod guard;
mod health;
mod query;
mod server;
#[cfg(test)]
mod tests;
mod verdicts;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State as Shared;
use axum::http::{HeaderValue, Method, Uri, header};
use axum::response::Response;
use axum::routing::{get, post};
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use self::answer::Refusal;
use crate::clock::Clock;
use crate::pull::{BreakerStanding, Snapshot};
use crate::store::Store;
use crate::telemetry::Telemetry;

pub use server::serve;

/// What the listener shows and changes.
#[derive(Clone)]
pub struct State {
    /// Who may come in, and who may change things.
    pub access: Access,
    /// Verdicts and cache.
    pub store: Store,
    /// What is in force.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Metrics.
    pub telemetry: Telemetry,
    /// For telling current verdicts from old ones.
    pub clock: Clock,
    /// Loads the configuration again.
    pub reload: Reload,
    /// The configured upstreams.
    pub upstreams: Vec<UpstreamFacts>,
    /// How their endpoints stand.
    pub standings: Standings,
    /// Cancelled when the process begins to drain: `/readyz` says so from then on.
    pub draining: CancellationToken,
}

impl fmt::Debug for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("State").field("access", &self.access).finish_non_exhaustive()
    }
}

/// Who may come in, and who may change things.
#[derive(Clone, Default)]
pub struct Access {
    /// What `Authorization: Bearer …` must say for changes on a listener that is not loopback. `None`: no changes there.
    pub token: Option<String>,
    /// Further names that `Host` may have, beside loopback names, IP addresses and this machine's host name.
    pub hosts: Vec<String>,
}

impl fmt::Debug for Access {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_ref().map(|_| "****");
        formatter.debug_struct("Access").field("token", &token).field("hosts", &self.hosts).finish()
    }
}

/// Loads the configuration again and says what came of it; an error is what is wrong with the new configuration, for a human.
pub type Reload = Arc<dyn Fn() -> BoxFuture<'static, Result<Reloaded, String>> + Send + Sync>;

/// What a reload did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Whether another policy is in force than before.
    pub policy_changed: bool,
    /// Whether another trust root is in force than before.
    pub trust_root_changed: bool,
    /// Keys that changed and take effect at the next start only.
    pub restart_needed: Vec<String>,
    /// What works but should not stay so.
    pub warnings: Vec<String>,
}

/// Tells of the upstream of that name each endpoint, and how its breakers stand.
pub type Standings = Arc<dyn Fn(&str) -> Vec<(String, BreakerStanding)> + Send + Sync>;

/// What is worth showing of one upstream; no secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamFacts {
    /// Canonical name.
    pub host: String,
    /// Other names.
    pub aliases: Vec<String>,
    /// Where it is reached.
    pub endpoint: String,
    /// Where else, in this order.
    pub fallback_endpoints: Vec<String>,
    /// Whether it serves clients that name no registry.
    pub default: bool,
    /// Life of a tag that no pattern fits, in seconds; `None` is for ever.
    pub tag_ttl_seconds: Option<u64>,
    /// How long after that it is served while upstream is asked, in seconds.
    pub stale_while_revalidate_seconds: u64,
    /// How long a stale tag may be served, in seconds.
    pub stale_if_error_seconds: u64,
    /// What becomes of a tag that upstream no longer has: `deny` or `serve-stale`.
    pub on_upstream_404: &'static str,
}

/// The routes, without the checks of [`guard`].
fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics))
        .route("/api/v1/verdicts", get(verdicts::list))
        .route("/api/v1/verdicts/{id}", get(verdicts::show).delete(verdicts::forget))
        .route("/api/v1/policy", get(facts::policy))
        .route("/api/v1/reload", post(facts::reload))
        .route("/api/v1/cache", get(cache::stats))
        .route("/api/v1/cache/evict", post(cache::evict))
        .route("/api/v1/cache/verify", post(cache::verify))
        .route("/api/v1/upstreams", get(facts::upstreams))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .with_state(state)
}

/// `GET /metrics`
async fn metrics(Shared(state): Shared<Arc<State>>) -> Response {
    let mut response = Response::new(state.telemetry.render().into());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    response
}

async fn unknown(uri: Uri) -> Refusal {
    let hint = match uri.path() {
        path if path.starts_with("/v2") => {
            "this is the admin listener; pull from the registry listener (server.listen)"
        }
        _ => "the paths are /livez, /readyz, /metrics and /api/v1/{verdicts,policy,reload,cache,upstreams}",
    };
    Refusal::not_found("no such path", hint)
}

async fn wrong_method(method: Method) -> Refusal {
    Refusal::wrong_method(&method)
}
