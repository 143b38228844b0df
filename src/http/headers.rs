//! Headers of answers: a fixed list, each value from typed data; nothing of an upstream's is relayed.

use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::body::Content;
use crate::oci::{Digest, Host};
use crate::store::VerdictId;
use crate::telemetry::{CacheResult, DecisionLabel};

pub(super) const DISTRIBUTION_API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
pub(super) const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
pub(super) const NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");
pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
pub(super) const VERDICT: HeaderName = HeaderName::from_static("sealgate-verdict");
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer with the headers that every answer has, and the length of its content.
pub(super) fn answer(status: StatusCode, content_type: HeaderValue, content: Content) -> Response<Content> {
    let length = content.length();
    let mut response = Response::new(content);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(DISTRIBUTION_API_VERSION, HeaderValue::from_static("registry/2.0"));
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The entity tag of content: its digest, quoted.
pub(super) fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// Adds what names content that never changes.
pub(super) fn name_content(headers: &mut HeaderMap, digest: &Digest) {
    insert(headers, CONTENT_DIGEST, &digest.to_string());
    insert(headers, ETAG, &etag(digest));
}

/// Whether `If-None-Match` names `etag`: weak comparison, a list, or `*` (RFC 9110, 13.1.2).
pub(super) fn is_known(request: &HeaderMap, etag: &str) -> bool {
    let values = request.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = values.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// 304 with the headers that the 200 would have had.
pub(super) fn not_modified(mut response: Response<Content>) -> Response<Content> {
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    *response.body_mut() = Content::Empty;
    response.headers_mut().remove(CONTENT_LENGTH);
    response.headers_mut().remove(CONTENT_TYPE);
    response
}

/// Says where an answer came from (RFC 9211).
pub(super) fn cache_status(headers: &mut HeaderMap, result: CacheResult) {
    let status = match result {
        CacheResult::Hit => "sealgate; hit",
        CacheResult::NegativeHit => "sealgate; hit; detail=negative",
        CacheResult::Stale => "sealgate; hit; detail=stale",
        CacheResult::Revalidated => "sealgate; fwd=stale; fwd-status=304; detail=revalidated",
        CacheResult::Miss => "sealgate; fwd=miss",
        CacheResult::Joined => "sealgate; fwd=miss; collapsed",
        CacheResult::Bypass => "sealgate; fwd=bypass",
    };
    headers.insert(CACHE_STATUS, HeaderValue::from_static(status));
}

/// Says what was decided, and under which verdict.
pub(super) fn verdict(headers: &mut HeaderMap, decision: DecisionLabel, id: Option<VerdictId>) {
    let decision = match decision {
        DecisionLabel::Allow => "allow",
        DecisionLabel::Deny => "deny",
        DecisionLabel::AuditDeny => "audit-deny",
        DecisionLabel::AuditUndecided => "audit-undecided",
        DecisionLabel::Exempt => "exempt",
        DecisionLabel::Undecided => "undecided",
    };
    let value = id.map_or_else(|| decision.to_owned(), |id| format!("{decision}; id={id}"));
    insert(headers, VERDICT, &value);
}

/// Says which `ns` was used, and that shared caches must not mix answers for several.
pub(super) fn namespace(headers: &mut HeaderMap, host: &Host) {
    insert(headers, NAMESPACE, host.as_str());
}

/// Forbids keeping an answer.
pub(super) fn no_store(headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

/// Adds a header whose value consists of typed parts; a value that is none is left out rather than sent.
pub(super) fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_tag_is_found_in_lists_weakly_and_by_star() {
        let known = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(IF_NONE_MATCH, HeaderValue::from_static(value));
            }
            is_known(&headers, "\"sha256:aa\"")
        };
        assert!(known(&["\"sha256:aa\""]) && known(&["W/\"sha256:aa\""]) && known(&["*"]));
        assert!(known(&["\"x\", \"sha256:aa\""]) && known(&["\"x\"", "\"sha256:aa\""]));
        assert!(!known(&[]) && !known(&["sha256:aa"]) && !known(&["\"sha256:ab\""]) && !known(&[""]));
    }

    #[test]
    fn a_verdict_is_shown_as_the_contract_words_it() {
        let shown = |decision, id| {
            let mut headers = HeaderMap::new();
            verdict(&mut headers, decision, id);
            headers.get(VERDICT).unwrap().to_str().unwrap().to_owned()
        };
        let id = VerdictId([1; 8]);
        assert_eq!(shown(DecisionLabel::AuditDeny, Some(id)), "audit-deny; id=0101010101010101");
        assert_eq!(shown(DecisionLabel::Allow, None), "allow");
    }

    #[test]
    fn what_is_served_stale_says_so() {
        let mut headers = HeaderMap::new();
        cache_status(&mut headers, CacheResult::Stale);
        assert!(headers.get(CACHE_STATUS).unwrap().to_str().unwrap().contains("stale"));
    }
}
