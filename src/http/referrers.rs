//! `GET /v2/<name>/referrers/<digest>`: always an index, empty when nothing refers.

use http::{HeaderValue, Response, StatusCode};

use super::body::Content;
use super::error::ApiError;
use super::headers;
use crate::oci::{Digest, MediaType, Repository};
use crate::pull::Puller;

pub(super) async fn answer(
    puller: &Puller,
    repository: &Repository,
    digest: &Digest,
    artifact_type: Option<&str>,
) -> Result<Response<Content>, ApiError> {
    let document = puller.referrers(repository, digest, artifact_type).await?;
    let content_type = HeaderValue::from_static(MediaType::OciIndex.as_str());
    let mut response = headers::answer(StatusCode::OK, content_type, Content::Whole(document.bytes));
    if document.filtered {
        response.headers_mut().insert(headers::FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    Ok(response)
}
