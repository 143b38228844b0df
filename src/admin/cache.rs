//! `/api/v1/cache`: what is cached, and what an operator does about it.

use std::sync::Arc;

use axum::extract::{RawQuery, State as Shared};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::State;
use super::answer::{Answer, Refusal};
use super::query::Query;
use crate::oci::Digest;
use crate::store::{CacheStats, Evicted, Eviction, ScrubStats};

/// `GET /api/v1/cache`
pub(super) async fn stats(Shared(state): Shared<Arc<State>>) -> Answer {
    Answer(document(&state.store.cache_stats(), &state.store.scrub_stats()))
}

/// `POST /api/v1/cache/verify`: hashes every cached file again, in the background; `started` is false when that is under way.
pub(super) async fn verify(Shared(state): Shared<Arc<State>>) -> Answer {
    Answer(json!({ "started": state.store.verify_cache() }))
}

/// `POST /api/v1/cache/evict?digest=|bytes=|all=true`: exactly one of them.
pub(super) async fn evict(Shared(state): Shared<Arc<State>>, RawQuery(query): RawQuery) -> Result<Answer, Refusal> {
    let what = eviction(&Query::parse(query.as_deref(), &["digest", "bytes", "all"])?)?;
    match state.store.evict(what).await {
        Evicted::Gone { files, bytes } => Ok(Answer(json!({ "files": files, "bytes": bytes }))),
        Evicted::InUse => {
            let hint = "try again when its clients have it";
            Err(Refusal::new(StatusCode::CONFLICT, "the blob is being read", hint))
        }
        Evicted::Unknown => Err(Refusal::not_found("the blob is not in the cache", "nothing has to be done")),
    }
}

fn eviction(query: &Query) -> Result<Eviction, Refusal> {
    let digest: Option<Digest> = query.parsed("digest", "sha256: or sha512: and its digits")?;
    let bytes: Option<u64> = query.parsed("bytes", "a whole number")?;
    let all: Option<bool> = query.parsed("all", "true")?;
    match (digest, bytes, all) {
        (Some(digest), None, None) => Ok(Eviction::Blob(digest)),
        (None, Some(bytes), None) => Ok(Eviction::Bytes(bytes)),
        (None, None, Some(true)) => Ok(Eviction::All),
        _ => Err(Refusal::bad_request(
            "it is not said what to evict",
            "name exactly one of digest=DIGEST, bytes=NUMBER and all=true",
        )),
    }
}

fn document(cache: &CacheStats, scrub: &ScrubStats) -> Value {
    json!({
        "bytes": cache.bytes,
        "limit_bytes": cache.limit_bytes,
        "entries": cache.entries,
        "verdicts_on_disk": cache.verdicts_on_disk,
        "verify": {
            "running": scrub.running,
            "files": scrub.files,
            "bytes": scrub.bytes,
            "wrong": scrub.wrong,
            "unreadable": scrub.unreadable,
            "skipped": scrub.skipped,
            "last_ended": scrub.ended.map(|ended| ended.to_string()),
        },
    })
}
