//! `/livez` and `/readyz`.

use std::sync::Arc;

use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use super::State;
use super::answer::{Answer, with_json};

/// `GET /livez`: the process answers.
pub(super) async fn live() -> Answer {
    Answer(json!({ "live": true }))
}

/// `GET /readyz`: the store is open, and a policy and a trust root are in force. Whether upstreams answer is no condition: what is cached
/// can be served without them. 503 from the moment the process begins to drain.
pub(super) async fn ready(Shared(state): Shared<Arc<State>>) -> Response {
    let snapshot = state.snapshot.load();
    let cache = state.store.cache_stats();
    let draining = state.draining.is_cancelled();
    let verdicts = if cache.verdicts_on_disk { "on disk" } else { "in memory only" };
    let value = json!({
        "ready": !draining,
        "draining": draining,
        "store": { "ready": true, "verdicts": verdicts },
        "policy": {
            "ready": true,
            "fingerprint": snapshot.policy.fingerprint().to_string(),
            "audited_scopes": snapshot.policy.audited_scopes(),
        },
        "trust_root": { "ready": true, "fingerprint": snapshot.trust_root.to_string() },
    });
    with_json(if draining { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }, &value)
}
