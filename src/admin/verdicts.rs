//! `/api/v1/verdicts`: what was decided, and why.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State as Shared};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::State;
use super::answer::{Answer, Refusal};
use super::query::Query;
use crate::clock::Timestamp;
use crate::limits::VERDICTS_PAGE_MAX;
use crate::oci::{Digest, DockerReference};
use crate::policy::Decision;
use crate::store::{Forgotten, StoredVerdict, VerdictFilter, VerdictId};

/// `GET /api/v1/verdicts?decision=&repository=&limit=&after=`: newest first. `next` is the `after` of the next page, which may turn out
/// empty; null says that there is none.
pub(super) async fn list(Shared(state): Shared<Arc<State>>, RawQuery(raw): RawQuery) -> Result<Answer, Refusal> {
    let mut filter = parse_filter(raw.as_deref())?;
    let page = filter.limit.unwrap_or(PAGE_DEFAULT);
    filter.limit = Some(page);
    let found = state.store.verdicts(&filter).await;
    let next = found.last().filter(|_| found.len() >= page).map(|verdict| verdict.key.id().to_string());
    let verdicts: Vec<Value> = found.iter().map(|verdict| describe(verdict, &state)).collect();
    Ok(Answer(json!({ "verdicts": verdicts, "next": next })))
}

/// `GET /api/v1/verdicts/{id}`: with the evidence.
pub(super) async fn show(Shared(state): Shared<Arc<State>>, id: Named) -> Result<Answer, Refusal> {
    let id = parse_id(id)?;
    let (verdict, evidence) = state.store.verdict_by_id(&id).await.ok_or_else(|| unknown(id))?;
    let mut value = describe(&verdict, &state);
    if let Value::Object(fields) = &mut value {
        fields.insert("evidence".to_owned(), evidence.unwrap_or(Value::Null));
    }
    Ok(Answer(value))
}

/// `DELETE /api/v1/verdicts/{id}`: the next request for that image decides again. 503 when the database gave no answer.
pub(super) async fn forget(Shared(state): Shared<Arc<State>>, id: Named) -> Result<Answer, Refusal> {
    let id = parse_id(id)?;
    match state.store.forget_verdict(&id).await {
        Forgotten::Gone => {
            tracing::info!(verdict = %id, "verdict forgotten by an operator");
            Ok(Answer(json!({ "forgotten": id.to_string() })))
        }
        Forgotten::NoAnswer => {
            tracing::warn!(verdict = %id, "verdict forgotten by an operator, in memory only");
            Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the verdict is forgotten in memory only: the database of verdicts gave no answer",
                "forget it again in a minute, or it may be back after the next start",
            ))
        }
        Forgotten::Unknown => Err(unknown(id)),
    }
}

/// An id in a path, if it is text at all.
type Named = Result<Path<String>, PathRejection>;

fn parse_filter(raw: Option<&str>) -> Result<VerdictFilter, Refusal> {
    let query = Query::parse(raw, &["decision", "repository", "limit", "after"])?;
    let decision = match query.text("decision") {
        None => None,
        Some("allow") => Some(Decision::Allow),
        Some("deny") => Some(Decision::Deny),
        Some(other) => {
            return Err(Refusal::bad_request(
                format!("decision={other:?} cannot be used"),
                "decision is allow or deny",
            ));
        }
    };
    let wanted = format!("a number from 1 to {VERDICTS_PAGE_MAX}");
    let limit: Option<usize> = query.parsed("limit", &wanted)?;
    if limit.is_some_and(|limit| !(1..=VERDICTS_PAGE_MAX).contains(&limit)) {
        return Err(Refusal::bad_request("limit is out of bounds", format!("limit is {wanted}")));
    }
    let after = query.parsed("after", "the id of a verdict, as `next` of the page before gives it")?;
    let repository = query.text("repository").map(repository).transpose()?;
    Ok(VerdictFilter { decision, repository, limit, after })
}

/// A repository as people write it, by its canonical name.
fn repository(text: &str) -> Result<String, Refusal> {
    let hint = "repository is a name such as docker.io/library/alpine, without tag and digest";
    match text.parse() {
        Ok(DockerReference { repository, tag: None, digest: None }) => Ok(repository.to_string()),
        Ok(_) | Err(_) => Err(Refusal::bad_request(format!("repository={text:?} cannot be used"), hint)),
    }
}

fn parse_id(id: Named) -> Result<VerdictId, Refusal> {
    let text = id.map(|Path(text)| text).unwrap_or_default();
    text.parse().map_err(|error: crate::store::VerdictIdError| {
        Refusal::bad_request(error.to_string(), "GET /api/v1/verdicts lists the ids")
    })
}

fn unknown(id: VerdictId) -> Refusal {
    Refusal::not_found(
        format!("no verdict {id}"),
        "it may have been forgotten or replaced; GET /api/v1/verdicts lists what there is",
    )
}

/// The verdict as policy gave it; audit mode and exemptions are applied when an image is served, and are not part of it.
fn describe(verdict: &StoredVerdict, state: &State) -> Value {
    let snapshot = state.snapshot.load();
    let key = &verdict.key;
    let status = status(verdict, state.clock.now(), &snapshot.policy.fingerprint(), &snapshot.trust_root);
    json!({
        "id": key.id().to_string(),
        "image": key.image.to_string(),
        "repository": key.image.repository.to_string(),
        "digest": key.digest.to_string(),
        "decision": match verdict.decision { Decision::Allow => "allow", Decision::Deny => "deny" },
        "reason": verdict.reason.as_label(),
        "text": verdict.text,
        "image_bytes": verdict.image_size.map(|size| size.bytes),
        "layers": verdict.image_size.map(|size| size.layers),
        "material": verdict.material.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "material_complete": verdict.material_complete,
        "issued": verdict.issued.to_string(),
        "not_after": verdict.not_after.to_string(),
        "status": status,
        "policy": key.policy.to_string(),
        "trust_root": key.trust_root.to_string(),
    })
}

/// Whether the verdict still counts: `current`, `expired` (decided again at the next request), or `other_policy`.
fn status(verdict: &StoredVerdict, now: Timestamp, policy: &Digest, trust_root: &Digest) -> &'static str {
    if verdict.key.policy != *policy || verdict.key.trust_root != *trust_root {
        "other_policy"
    } else if now > verdict.not_after {
        "expired"
    } else {
        "current"
    }
}

/// Verdicts in a page when the request names no number.
const PAGE_DEFAULT: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Reason;
    use crate::store::VerdictKey;

    #[test]
    fn a_filter_is_parsed_strictly() {
        let filter = parse_filter(Some("decision=deny&repository=docker.io%2Flibrary%2Falpine&limit=1000")).unwrap();
        assert_eq!(filter.decision, Some(Decision::Deny));
        assert_eq!(filter.repository.as_deref(), Some("docker.io/library/alpine"));
        assert_eq!(filter.limit, Some(VERDICTS_PAGE_MAX));
        assert!(parse_filter(None).is_ok());
        for bad in [
            "decision=maybe",
            "limit=0",
            "limit=1001",
            "limit=x",
            "repository=a%3A1",
            "repository=A%20b",
            "after=xyz",
            "colour=red",
            "limit=1&limit=1",
        ] {
            assert!(parse_filter(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_verdict_counts_until_its_end_and_under_its_policy_only() {
        let (policy, trust_root) = (Digest::sha256(b"policy"), Digest::sha256(b"root"));
        let key =
            VerdictKey { image: "quay.io/a/b:1".parse().unwrap(), digest: Digest::sha256(b""), policy, trust_root };
        let verdict = StoredVerdict {
            key,
            decision: Decision::Allow,
            reason: Reason::Verified,
            text: String::new(),
            own: true,
            image_size: None,
            issued: Timestamp::from_unix_seconds(100),
            not_after: Timestamp::from_unix_seconds(200),
            evidence: None,
            material: Vec::new(),
            material_complete: false,
        };
        let at = |seconds| status(&verdict, Timestamp::from_unix_seconds(seconds), &policy, &trust_root);
        assert_eq!((at(200), at(201)), ("current", "expired"));
        let now = Timestamp::from_unix_seconds(150);
        assert_eq!(status(&verdict, now, &Digest::sha256(b"new"), &trust_root), "other_policy");
        assert_eq!(status(&verdict, now, &policy, &Digest::sha256(b"new")), "other_policy");
    }
}
