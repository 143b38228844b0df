//! `GET|HEAD /v2/<name>/blobs/<digest>`, whole or a range; the bytes pass frame by frame as the store hands them out.

use futures_util::{StreamExt as _, TryStreamExt as _};
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, IF_RANGE, RANGE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use super::body::Content;
use super::error::{ApiError, Failure};
use super::headers;
use super::log_text::LogText;
use super::range::{self, Selection, Span};
use crate::oci::{Digest, Repository};
use crate::pull::{AdmittedBlob, Delivery, Puller};

const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

pub(super) async fn answer(
    puller: &Puller,
    repository: &Repository,
    digest: &Digest,
    request: &Parts,
    delivery: Delivery,
) -> Result<Response<Content>, ApiError> {
    let etag = headers::etag(digest);
    let known = headers::is_known(&request.headers, &etag);
    // Ranges are defined for GET alone (RFC 9110, 14.2). Neither a HEAD nor a client that has the bytes moves any.
    let (mut response, cache) = if request.method == Method::HEAD || known {
        let head = puller.blob_head(repository, digest).await?;
        let mut response = headers::answer(StatusCode::OK, OCTETS, Content::Empty);
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(head.size));
        (response, head.cache)
    } else {
        let blob = puller.blob(repository, digest).await?;
        let (size, cache) = (blob.size(), blob.cache());
        let subject = (repository.clone(), *digest);
        let selection = select(&request.headers, &etag, size);
        (selected(blob, selection, subject, delivery)?, cache)
    };
    let fields = response.headers_mut();
    fields.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers::name_content(fields, digest);
    headers::cache_status(fields, cache);
    if known { Ok(headers::not_modified(response)) } else { Ok(response) }
}

fn selected(
    blob: AdmittedBlob,
    selection: Selection,
    subject: (Repository, Digest),
    delivery: Delivery,
) -> Result<Response<Content>, ApiError> {
    let size = blob.size();
    match selection {
        Selection::Whole => {
            let content = match size.checked_sub(1) {
                Some(end) => part(blob, Span { start: 0, end, size }, subject, delivery),
                None => Content::Empty,
            };
            Ok(headers::answer(StatusCode::OK, OCTETS, content))
        }
        Selection::Part(span) => {
            let content = part(blob, span, subject, delivery);
            let mut response = headers::answer(StatusCode::PARTIAL_CONTENT, OCTETS, content);
            headers::insert(response.headers_mut(), CONTENT_RANGE, &span.to_string());
            Ok(response)
        }
        Selection::Unsatisfiable => {
            let text = format!("the range lies outside the blob's {size} bytes");
            Err(ApiError::new(Failure::RangeNotSatisfiable, text).of_size(size))
        }
    }
}

/// The bytes of that part. Headers are out when they break, so the log is the only place that can say why.
fn part(blob: AdmittedBlob, span: Span, (repository, digest): (Repository, Digest), delivery: Delivery) -> Content {
    let bytes = blob.stream(span.start, span.end, delivery).inspect_err(move |error| {
        tracing::warn!(%repository, %digest, error = %LogText(&error.to_string()), "a blob's body ends short");
    });
    Content::Stream(bytes.boxed(), span.length())
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
