//! `/api/v1/policy`, `/api/v1/reload`, `/api/v1/upstreams`: what is known without asking anybody.

use std::sync::Arc;

use axum::extract::State as Shared;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::State;
use super::answer::{Answer, Refusal};
use crate::pull::BreakerStanding;

/// `GET /api/v1/policy`
pub(super) async fn policy(Shared(state): Shared<Arc<State>>) -> Answer {
    let snapshot = state.snapshot.load();
    let now = state.clock.now();
    let exemptions: Vec<_> = snapshot
        .policy
        .exemptions()
        .iter()
        .map(|exemption| {
            json!({
                "scope": exemption.scope.to_string(),
                "reason": exemption.reason,
                "owner": exemption.owner,
                "expires": exemption.expires.to_string(),
                "in_force": now < exemption.expires,
            })
        })
        .collect();
    Answer(json!({
        "fingerprint": snapshot.policy.fingerprint().to_string(),
        "audited_scopes": snapshot.policy.audited_scopes(),
        "exemptions": exemptions,
        "trust_root": snapshot.trust_root.to_string(),
        "allow_ttl_seconds": snapshot.verdict_ttl.allow.as_secs(),
        "deny_ttl_seconds": snapshot.verdict_ttl.deny.as_secs(),
        "verifier": crate::verify::VERIFIER_VERSION,
    }))
}

/// `POST /api/v1/reload`: 409 when the new configuration cannot be used; the old one stays in force then.
pub(super) async fn reload(Shared(state): Shared<Arc<State>>) -> Result<Answer, Refusal> {
    match (state.reload)().await {
        Ok(reloaded) => Ok(Answer(json!({
            "reloaded": true,
            "policy": state.snapshot.load().policy.fingerprint().to_string(),
            "policy_changed": reloaded.policy_changed,
            "trust_root": state.snapshot.load().trust_root.to_string(),
            "trust_root_changed": reloaded.trust_root_changed,
            "restart_needed": reloaded.restart_needed,
            "warnings": reloaded.warnings,
        }))),
        Err(error) => {
            let hint =
                "the old configuration stays in force; correct the new one (sealgate config check) and reload again";
            Err(Refusal::new(StatusCode::CONFLICT, error, hint))
        }
    }
}

/// `GET /api/v1/upstreams`
pub(super) async fn upstreams(Shared(state): Shared<Arc<State>>) -> Answer {
    let upstreams: Vec<_> = state
        .upstreams
        .iter()
        .map(|upstream| {
            json!({
                "host": upstream.host,
                "aliases": upstream.aliases,
                "endpoint": upstream.endpoint,
                "fallback_endpoints": upstream.fallback_endpoints,
                "default": upstream.default,
                "tag_ttl_seconds": upstream.tag_ttl_seconds,
                "stale_while_revalidate_seconds": upstream.stale_while_revalidate_seconds,
                "stale_if_error_seconds": upstream.stale_if_error_seconds,
                "on_upstream_404": upstream.on_upstream_404,
                "endpoints": (state.standings)(&upstream.host).into_iter().map(endpoint).collect::<Vec<_>>(),
            })
        })
        .collect();
    Answer(json!({ "upstreams": upstreams }))
}

fn endpoint((address, standing): (String, BreakerStanding)) -> Value {
    json!({
        "endpoint": address,
        "breaker": standing.state.as_label(),
        "retry_after_seconds": standing.rests_for.map(|left| left.as_secs_f64().ceil()),
        "why": standing.why,
    })
}
