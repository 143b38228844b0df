//! `GET|HEAD /v2/<name>/blobs/<digest>`, whole or a range; the bytes pass frame by frame as the store hands them out.

use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, IF_RANGE, RANGE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use super::body::Content;
use super::error::{ApiError, Failure};
use super::headers;
use super::range::{self, Selection};
use crate::oci::{Digest, Repository};
use crate::pull::{AdmittedBlob, Puller};

const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

pub(super) async fn answer(
    puller: &Puller,
    repository: &Repository,
    digest: &Digest,
    request: &Parts,
) -> Result<Response<Content>, ApiError> {
    // Ranges are defined for GET alone (RFC 9110, 14.2), and a HEAD moves no bytes.
    let (mut response, cache) = if request.method == Method::HEAD {
        let head = puller.blob_head(repository, digest).await?;
        let mut response = headers::answer(StatusCode::OK, OCTETS, Content::Empty);
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(head.size));
        (response, head.cache)
    } else {
        let blob = puller.blob(repository, digest).await?;
        let cache = blob.cache();
        let selection = select(&request.headers, &headers::etag(digest), blob.size());
        (selected(blob, selection)?, cache)
    };
    let fields = response.headers_mut();
    fields.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers::name_content(fields, digest);
    headers::cache_status(fields, cache);
    if headers::is_known(&request.headers, &headers::etag(digest)) {
        return Ok(headers::not_modified(response));
    }
    Ok(response)
}

fn selected(blob: AdmittedBlob, selection: Selection) -> Result<Response<Content>, ApiError> {
    match selection {
        Selection::Whole => Ok(headers::answer(StatusCode::OK, OCTETS, whole(blob))),
        Selection::Part(span) => {
            let content = Content::Stream(blob.stream(span.start, span.end), span.length());
            let mut response = headers::answer(StatusCode::PARTIAL_CONTENT, OCTETS, content);
            headers::insert(response.headers_mut(), CONTENT_RANGE, &span.to_string());
            Ok(response)
        }
        Selection::Unsatisfiable => {
            let text = format!("the range lies outside the blob's {} bytes", blob.size());
            Err(ApiError::new(Failure::RangeNotSatisfiable, text).of_size(blob.size()))
        }
    }
}

fn whole(blob: AdmittedBlob) -> Content {
    match blob.size().checked_sub(1) {
        Some(end) => Content::Stream(blob.stream(0, end), end.saturating_add(1)),
        None => Content::Empty,
    }
}

fn select(request: &HeaderMap, etag: &str, size: u64) -> Selection {
    let text = |name| request.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or_default());
    let one_range = request.get_all(RANGE).iter().count() == 1;
    if !one_range || !range::still_holds(text(IF_RANGE), etag) {
        return Selection::Whole;
    }
    range::select(text(RANGE), size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::range::Span;

    #[test]
    fn p16_a_range_counts_once_and_only_while_its_condition_holds() {
        let etag = "\"sha256:aa\"";
        let of = |fields: &[(http::HeaderName, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(name, HeaderValue::from_static(value));
            }
            select(&headers, etag, 10)
        };
        let part = Selection::Part(Span { start: 1, end: 2, size: 10 });
        assert_eq!(of(&[]), Selection::Whole);
        assert_eq!(of(&[(RANGE, "bytes=1-2")]), part);
        assert_eq!(of(&[(RANGE, "bytes=1-2"), (IF_RANGE, etag)]), part);
        assert_eq!(of(&[(RANGE, "bytes=1-2"), (IF_RANGE, "\"other\"")]), Selection::Whole);
        assert_eq!(of(&[(RANGE, "bytes=1-2"), (RANGE, "bytes=3-4")]), Selection::Whole);
        assert_eq!(of(&[(RANGE, "bytes=9-1"), (IF_RANGE, etag)]), Selection::Unsatisfiable);
    }
}
