//! Lists: the referrers of a digest over several pages, and one page of tags.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::Value;
use url::Url;

use super::client::{Call, Client};
use super::{ReferrersList, TagsPage, UpstreamError, checks};
use crate::limits::{
    MANIFEST_BYTES_MAX, REFERRERS_MAX, REFERRERS_PAGES_MAX, TAGS_BODY_BYTES_MAX, UPSTREAM_URL_BYTES_MAX,
};
use crate::net::read_at_most;
use crate::oci::{Descriptor, Digest, MediaType, RepositoryName, json};
use crate::telemetry::UpstreamOp;

/// Follows the pages of the referrers of a digest.
///
/// A link to another place than the same list is not followed, nor is one to a page that was there already; the list is
/// then reported as longer than what was read, so that nobody takes it for complete.
pub(super) async fn referrers(
    client: &Arc<Client>,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<Option<ReferrersList>, UpstreamError> {
    let first = client.url(name, &format!("referrers/{digest}"));
    let mut list = ReferrersList { manifests: Vec::new(), more: false, skipped: 0 };
    let mut visited = HashSet::new();
    let mut next = Some(first.clone());
    while let Some(url) = next {
        visited.insert(url.clone());
        let fetched = page(client, UpstreamOp::Referrers, name, url.clone(), MANIFEST_BYTES_MAX).await;
        let (headers, body) = match fetched {
            Err(UpstreamError::NotFound { .. }) if visited.len() == 1 => return Ok(None),
            other => other?,
        };
        let full = add_page(&mut list, &headers, &body).map_err(|reason| client.bad(reason))?;
        let link = checks::next_link(&headers);
        next = link.and_then(|link| same_list(&first, &url, link)).filter(|next| !visited.contains(next));
        if full || visited.len() == REFERRERS_PAGES_MAX || (link.is_some() && next.is_none()) {
            list.more = list.more || full || link.is_some();
            break;
        }
    }
    Ok(Some(list))
}

pub(super) async fn tags(
    client: &Arc<Client>,
    name: &RepositoryName,
    n: usize,
    last: Option<&str>,
) -> Result<TagsPage, UpstreamError> {
    let mut url = client.url(name, "tags/list");
    url.query_pairs_mut().append_pair("n", &n.to_string());
    if let Some(last) = last {
        url.query_pairs_mut().append_pair("last", last);
    }
    let (headers, body) = page(client, UpstreamOp::Tags, name, url, TAGS_BODY_BYTES_MAX).await?;
    let document = json::parse(&body).map_err(|_| client.bad("protocol"))?;
    let tags = match document.get("tags") {
        // An empty repository has `null`, or no key at all, at some registries.
        Some(Value::Null) => &[][..],
        Some(Value::Array(tags)) => tags,
        None if document.get("name").is_some() => &[][..],
        Some(_) | None => return Err(client.bad("protocol")),
    };
    let tags = tags.iter().filter_map(Value::as_str).filter_map(|tag| tag.parse().ok()).collect();
    Ok(TagsPage { tags, more: checks::next_link(&headers).is_some() })
}

async fn page(
    client: &Arc<Client>,
    op: UpstreamOp,
    name: &RepositoryName,
    url: Url,
    max: u64,
) -> Result<(HeaderMap, Bytes), UpstreamError> {
    let index = op == UpstreamOp::Referrers;
    let accept = HeaderValue::from_static(if index { MediaType::OciIndex.as_str() } else { "application/json" });
    let call = Call { op, method: Method::GET, name, url, accept, range: None };
    let work = async {
        let turn = client.turn().await?;
        let answer = client.answer(&call, turn).await?;
        if answer.status != StatusCode::OK {
            return Err(client.bad("protocol"));
        }
        let length = checks::length(&answer.headers).map_err(|reason| client.bad(reason))?;
        if length.is_some_and(|length| length > max) {
            return Err(client.bad("too_large"));
        }
        let body = read_at_most(answer.body, max).await.map_err(|error| UpstreamError::of(&client.host, error))?;
        drop(answer.turn);
        let received = u64::try_from(body.len()).unwrap_or(u64::MAX);
        client.telemetry.upstream_bytes(&client.host, received);
        if length.is_some_and(|length| length != received) {
            return Err(client.bad("truncated"));
        }
        Ok((answer.headers, body))
    };
    client.within_total(work).await
}

/// Takes in one page; whether the list is full. The answer must be an OCI index by header and by content.
fn add_page(list: &mut ReferrersList, headers: &HeaderMap, body: &[u8]) -> Result<bool, &'static str> {
    let content_type = checks::single(headers, &CONTENT_TYPE).ok().flatten().ok_or("media_type")?;
    if content_type.parse() != Ok(MediaType::OciIndex) {
        return Err("media_type");
    }
    let document = json::parse(body).map_err(|_| "protocol")?;
    let object = document.as_object().ok_or("protocol")?;
    json::check_keys(object, &["schemaVersion", "mediaType", "manifests"]).map_err(|_| "protocol")?;
    let own_type = object.get("mediaType").is_none_or(|own| *own == MediaType::OciIndex.as_str());
    let Some(Value::Array(entries)) = object.get("manifests").filter(|_| own_type) else { return Err("protocol") };
    for entry in entries {
        if list.manifests.len() == REFERRERS_MAX {
            return Ok(true);
        }
        match Descriptor::from_value(entry) {
            Ok(descriptor) => list.manifests.push(descriptor),
            Err(_) => list.skipped = list.skipped.saturating_add(1),
        }
    }
    Ok(false)
}

/// The next page, when the link leads to the same list; only its query is taken.
fn same_list(first: &Url, current: &Url, link: &str) -> Option<Url> {
    if link.len() > UPSTREAM_URL_BYTES_MAX {
        return None;
    }
    let next = current.join(link).ok()?;
    if next.origin() != first.origin() || next.path() != first.path() {
        return None;
    }
    let mut url = first.clone();
    url.set_query(next.query());
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_links_within_the_list_are_followed() {
        let first: Url = "https://a.example/v2/x/referrers/sha256:00".parse().unwrap();
        let next = |link: &str| same_list(&first, &first, link).map(String::from);
        let expected = Some("https://a.example/v2/x/referrers/sha256:00?n=2".to_owned());
        for good in ["?n=2", "/v2/x/referrers/sha256:00?n=2", "https://u:p@a.example/v2/x/referrers/sha256:00?n=2#f"] {
            assert_eq!(next(good), expected, "{good}");
        }
        for bad in [
            "https://b.example/v2/x/referrers/sha256:00?n=2",
            "http://a.example/v2/x/referrers/sha256:00?n=2",
            "https://a.example:8443/v2/x/referrers/sha256:00?n=2",
            "/v2/y/referrers/sha256:00?n=2",
            "../../y/referrers/sha256:00",
        ] {
            assert_eq!(next(bad), None, "{bad}");
        }
        let long = |length: usize| format!("?{}", "a".repeat(length - 1));
        assert!(next(&long(UPSTREAM_URL_BYTES_MAX)).is_some());
        assert!(next(&long(UPSTREAM_URL_BYTES_MAX + 1)).is_none());
    }
}
