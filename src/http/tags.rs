//! `GET /v2/<name>/tags/list`, page by page.

use bytes::Bytes;
use http::header::LINK;
use http::{Response, StatusCode};

use super::body::Content;
use super::error::ApiError;
use super::headers;
use super::route::Route;
use super::upstreams::TagsQuery;
use crate::limits::TAGS_PAGE_MAX;
use crate::pull::{Puller, TagList};

pub(super) async fn answer(puller: &Puller, query: &TagsQuery) -> Result<Response<Content>, ApiError> {
    let n = query.n.unwrap_or(TAGS_PAGE_MAX).min(TAGS_PAGE_MAX);
    // `n=0` still says whether the repository is there; one tag is asked for and none shown.
    let mut page = puller.tags(&query.repository, n.max(1), query.last.as_ref()).await?;
    page.tags.truncate(n);
    let body = serde_json::json!({ "name": query.target.name.to_string(), "tags": names(&page) });
    let mut response = headers::answer(StatusCode::OK, headers::JSON, Content::Whole(Bytes::from(body.to_string())));
    if let Some(next) = next(query, n, &page) {
        headers::insert(response.headers_mut(), LINK, &format!("<{next}>; rel=\"next\""));
    }
    Ok(response)
}

fn names(page: &TagList) -> Vec<&str> {
    page.tags.iter().map(crate::oci::Tag::as_str).collect()
}

/// The request for what follows, under the name that the client used. Built from our own parts, never from an upstream's link.
fn next(query: &TagsQuery, n: usize, page: &TagList) -> Option<Route> {
    let last = page.tags.last().filter(|_| page.more)?;
    Some(Route::Tags { target: query.target.clone(), n: Some(n), last: Some(last.clone()) })
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::oci::Tag;

    fn query(path_query: &str) -> TagsQuery {
        let Ok(Route::Tags { target, n, last }) = Route::parse(&Method::GET, "/v2/quay.io/a/tags/list", path_query)
        else {
            panic!("not a route");
        };
        let repository = crate::oci::Repository::new("quay.io".parse().unwrap(), "a".parse().unwrap()).unwrap();
        TagsQuery { repository, target, n, last }
    }

    fn page(tags: &[&str], more: bool) -> TagList {
        TagList { tags: tags.iter().map(|tag| tag.parse::<Tag>().unwrap()).collect(), more }
    }

    #[test]
    fn the_next_page_is_linked_under_the_name_that_the_client_used() {
        let next = next(&query("n=2&ns=quay.io"), 2, &page(&["a", "b"], true)).unwrap();
        assert_eq!(next.to_string(), "/v2/quay.io/a/tags/list?n=2&last=b&ns=quay.io");
    }

    #[test]
    fn the_last_page_and_an_empty_one_have_no_link() {
        assert_eq!(next(&query("n=2"), 2, &page(&["a", "b"], false)), None);
        assert_eq!(next(&query("n=0"), 0, &page(&[], true)), None);
    }
}
