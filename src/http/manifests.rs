//! `GET|HEAD /v2/<name>/manifests/<reference>`: can send nothing but an [`AdmittedManifest`].

use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::body::Content;
use super::error::{ApiError, Failure};
use super::headers;
use crate::oci::ImageReference;
use crate::pull::{AdmittedManifest, Puller};

/// Docker's schema 1 in its two forms, which is never served.
const SCHEMA_1: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

pub(super) async fn answer(
    puller: &Puller,
    image: &ImageReference,
    request: &HeaderMap,
) -> Result<Response<Content>, ApiError> {
    let manifest = puller.manifest(image).await?;
    // Only after admission: that something is known to a client says nothing about whether it may still be had.
    if wants_schema_1_only(request) {
        let text = format!("{image} exists as {}, and only schema 1 is accepted", manifest.media_type());
        return Err(ApiError::new(Failure::NotAcceptable, text));
    }
    let response = serve(&manifest);
    if headers::is_known(request, &headers::etag(manifest.digest())) {
        return Ok(headers::not_modified(response));
    }
    Ok(response)
}

fn serve(manifest: &AdmittedManifest) -> Response<Content> {
    let content_type = HeaderValue::from_static(manifest.media_type().as_str());
    let mut response = headers::answer(StatusCode::OK, content_type, Content::Whole(manifest.bytes().clone()));
    let headers = response.headers_mut();
    headers::name_content(headers, manifest.digest());
    headers::cache_status(headers, manifest.cache());
    headers::verdict(headers, manifest.decision(), manifest.verdict());
    response
}

/// Whether `Accept` names schema 1 and nothing else. Otherwise it is advice: bytes are never converted, and a client that is given
/// another type than it named can still say so better than a 404 would.
fn wants_schema_1_only(request: &HeaderMap) -> bool {
    let values = request.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges = values.flat_map(|value| value.split(',')).map(|range| range.split(';').next().unwrap_or(range).trim());
    let mut named = ranges.filter(|range| !range.is_empty()).peekable();
    named.peek().is_some() && named.all(|range| SCHEMA_1.iter().any(|known| known.eq_ignore_ascii_case(range)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(values: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(ACCEPT, HeaderValue::from_str(value).unwrap());
        }
        wants_schema_1_only(&headers)
    }

    #[test]
    fn p18_only_schema_1_is_not_acceptable() {
        let [json, signed] = SCHEMA_1;
        assert!(refused(&[json]) && refused(&[signed, json]) && refused(&[&format!("{json}, {signed};q=0.5")]));
    }

    #[test]
    fn p18_any_other_accept_is_advice() {
        let [json, _] = SCHEMA_1;
        let many = vec!["application/x"; 200].join(",");
        for accept in [
            &[][..],
            &["*/*"],
            &[""],
            &[json, "*/*"],
            &["application/vnd.oci.image.index.v1+json"],
            &["text/html"],
            &[&many],
        ] {
            assert!(!refused(accept), "{accept:?}");
        }
    }
}
