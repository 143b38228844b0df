//! Lists: one page of tags, and how a page of any list is read.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::Value;
use url::Url;

use super::client::Call;
use super::failover::Endpoint;
use super::{TagsPage, UpstreamError, checks};
use crate::limits::TAGS_BODY_BYTES_MAX;
use crate::net::read_at_most;
use crate::oci::{MediaType, RepositoryName, json};
use crate::telemetry::UpstreamOp;

pub(super) async fn tags(
    client: &Endpoint,
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

/// One page of a list, read whole.
pub(super) async fn page(
    client: &Endpoint,
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
