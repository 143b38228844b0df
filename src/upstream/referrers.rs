//! The referrers of a digest over several pages: all of them for clients, or those that may be signatures.

use std::collections::HashSet;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::failover::Endpoint;
use super::lists::page;
use super::selection::Selection;
use super::{Interest, ReferrersList, SelectedReferrers, UpstreamError, checks};
use crate::limits::{MANIFEST_BYTES_MAX, REFERRERS_MAX, REFERRERS_PAGES_MAX, UPSTREAM_URL_BYTES_MAX};
use crate::oci::{Descriptor, Digest, MediaType, RepositoryName, json};
use crate::telemetry::UpstreamOp;

/// The first [`REFERRERS_MAX`] referrers of a digest.
///
/// A link to another place than the same list is not followed, nor is one to a page that was there already; the list is
/// then reported as longer than what was read, so that nobody takes it for complete.
pub(super) async fn referrers(
    client: &Endpoint,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<Option<ReferrersList>, UpstreamError> {
    let mut list = ReferrersList { manifests: Vec::new(), more: false, skipped: 0 };
    let take = |entry: &Value| {
        if list.manifests.len() == REFERRERS_MAX {
            return Room::None;
        }
        match Descriptor::from_value(entry) {
            Ok(descriptor) => list.manifests.push(descriptor),
            Err(_) => list.skipped = list.skipped.saturating_add(1),
        }
        Room::More
    };
    let end = follow(client, List { name, digest, artifact_type: None }, None, take).await?;
    match end {
        None => Ok(None),
        Some(End::Whole) => Ok(Some(list)),
        Some(End::Full | End::TooManyPages | End::Unfiltered | End::Astray) => {
            Ok(Some(ReferrersList { more: true, ..list }))
        }
        Some(End::Failed(error)) => Err(error),
    }
}

/// Those referrers that interest whoever looks for signatures, however many others there are.
///
/// Where there are more pages than are followed, the registry is asked for those of `artifact_type` alone: one that filters shows
/// them among any number of others.
pub(super) async fn select(
    client: &Endpoint,
    name: &RepositoryName,
    digest: &Digest,
    artifact_type: &str,
    interest: &(dyn Fn(&Descriptor) -> Interest + Send + Sync),
    deadline: Instant,
) -> Result<Option<SelectedReferrers>, UpstreamError> {
    let mut selection = Selection::new(interest);
    let list = List { name, digest, artifact_type: None };
    let take = |entry: &Value| {
        selection.take(entry);
        Room::More
    };
    let end = follow(client, list, Some(deadline), take).await?;
    let mut selected = selection.finish();
    match end {
        None => return Ok(None),
        Some(End::Whole) => {}
        Some(End::Full | End::Unfiltered) => selected.more = true,
        Some(End::TooManyPages) => {
            selected.more = true;
            select_filtered(
                client,
                List { artifact_type: Some(artifact_type), ..list },
                interest,
                deadline,
                &mut selected,
            )
            .await;
        }
        Some(End::Astray) => selected.missing = Some(client.bad("protocol")),
        Some(End::Failed(error)) => selected.missing = Some(error),
    }
    Ok(Some(selected))
}

/// Adds what the first page of the filtered list has: where there are few of that type, all of them.
async fn select_filtered(
    client: &Endpoint,
    list: List<'_>,
    interest: &(dyn Fn(&Descriptor) -> Interest + Send + Sync),
    deadline: Instant,
    selected: &mut SelectedReferrers,
) {
    let mut selection = Selection::new(interest);
    let take = |entry: &Value| {
        selection.take(entry);
        Room::More
    };
    let end = follow(client, list, Some(deadline), take).await;
    let SelectedReferrers { known, first, .. } = selection.finish();
    match end {
        // Such as a registry that takes no filter.
        Ok(_) | Err(UpstreamError::Bad { .. } | UpstreamError::NotFound { .. }) => {}
        Err(error) => selected.missing = Some(error),
    }
    selected.known.extend(known);
    selected.first.extend(first);
}

/// The same out of the index that lies at the fallback tag; it has the form of one page.
pub(super) fn select_of_index(
    bytes: &[u8],
    interest: &(dyn Fn(&Descriptor) -> Interest + Send + Sync),
) -> Result<SelectedReferrers, &'static str> {
    let mut selection = Selection::new(interest);
    let mut take = |entry: &Value| {
        selection.take(entry);
        Room::More
    };
    add_page(bytes, &mut take)?;
    Ok(selection.finish())
}

/// Which list is read.
#[derive(Debug, Clone, Copy)]
struct List<'a> {
    name: &'a RepositoryName,
    digest: &'a Digest,
    /// Only those of this type, where the registry filters.
    artifact_type: Option<&'a str>,
}

/// Whether a list takes in more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    More,
    None,
}

/// How following the pages ended, after the first one was read.
#[derive(Debug)]
enum End {
    Whole,
    /// The list takes in no more.
    Full,
    TooManyPages,
    /// The registry does not filter, and all of it was read before.
    Unfiltered,
    /// The link leads out of the list, or to a page that was there already.
    Astray,
    /// A later page could not be read.
    Failed(UpstreamError),
}

/// Follows the pages. `None`: there is no referrers API.
async fn follow(
    client: &Endpoint,
    List { name, digest, artifact_type }: List<'_>,
    deadline: Option<Instant>,
    mut take: impl FnMut(&Value) -> Room,
) -> Result<Option<End>, UpstreamError> {
    let mut first = client.url(name, &format!("referrers/{digest}"));
    if let Some(artifact_type) = artifact_type {
        first.query_pairs_mut().append_pair("artifactType", artifact_type);
    }
    let mut visited = HashSet::new();
    let mut url = first.clone();
    loop {
        visited.insert(url.clone());
        let fetch = page(client, UpstreamOp::Referrers, name, url.clone(), MANIFEST_BYTES_MAX);
        let fetched = match deadline {
            None => fetch.await,
            Some(deadline) => timeout_at(deadline, fetch)
                .await
                .unwrap_or_else(|_| Err(UpstreamError::Timeout { upstream: client.host.clone() })),
        };
        let added = fetched.and_then(|(headers, body)| {
            let room = check_type(&headers).and_then(|()| add_page(&body, &mut take));
            room.map(|room| (room, headers)).map_err(|reason| client.bad(reason))
        });
        let (room, headers) = match added {
            Ok(added) => added,
            Err(UpstreamError::NotFound { .. }) if visited.len() == 1 => return Ok(None),
            Err(error) if visited.len() == 1 => return Err(error),
            Err(error) => return Ok(Some(End::Failed(error))),
        };
        let filters = checks::single(&headers, &FILTERS_APPLIED).ok().flatten();
        if artifact_type.is_some() && !filters.is_some_and(|filters| filters.contains("artifactType")) {
            return Ok(Some(End::Unfiltered));
        }
        let Some(link) = checks::next_link(&headers) else {
            return Ok(Some(if room == Room::None { End::Full } else { End::Whole }));
        };
        if room == Room::None {
            return Ok(Some(End::Full));
        }
        if artifact_type.is_some() || visited.len() == REFERRERS_PAGES_MAX {
            return Ok(Some(End::TooManyPages));
        }
        let next = same_list(&first, &url, link).map(|mut next| {
            client.name_upstream(&mut next);
            next
        });
        match next.filter(|next| !visited.contains(next)) {
            Some(next) => url = next,
            None => return Ok(Some(End::Astray)),
        }
    }
}

/// The answer must be an OCI index by its header.
fn check_type(headers: &HeaderMap) -> Result<(), &'static str> {
    let content_type = checks::single(headers, &CONTENT_TYPE).ok().flatten().ok_or("media_type")?;
    if content_type.parse() == Ok(MediaType::OciIndex) { Ok(()) } else { Err("media_type") }
}

/// Takes in one page; it must be an OCI index by its content too.
fn add_page(body: &[u8], take: &mut impl FnMut(&Value) -> Room) -> Result<Room, &'static str> {
    let document = json::parse(body).map_err(|_| "protocol")?;
    let object = document.as_object().ok_or("protocol")?;
    json::check_keys(object, &["schemaVersion", "mediaType", "manifests"]).map_err(|_| "protocol")?;
    let own_type = object.get("mediaType").is_none_or(|own| *own == MediaType::OciIndex.as_str());
    let Some(Value::Array(entries)) = object.get("manifests").filter(|_| own_type) else { return Err("protocol") };
    let full = entries.iter().any(|entry| take(entry) == Room::None);
    Ok(if full { Room::None } else { Room::More })
}

/// What a registry says that has filtered (distribution-spec v1.1, "Listing Referrers").
const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

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
