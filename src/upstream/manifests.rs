//! Manifests: asked for by tag or digest, read once, hashed, compared.

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode};

use super::client::{Answer, Call, Client};
use super::failover::Endpoint;
use super::{FetchedManifest, ManifestHead, UpstreamError, checks};
use crate::limits::MANIFEST_BYTES_MAX;
use crate::net::read_at_most;
use crate::oci::{Algorithm, Digest, Reference, RepositoryName};
use crate::telemetry::UpstreamOp;

pub(super) async fn head(
    client: &Endpoint,
    name: &RepositoryName,
    reference: &Reference,
) -> Result<ManifestHead, UpstreamError> {
    let answer = client.within_total(ask(client, UpstreamOp::ManifestHead, Method::HEAD, name, reference)).await?;
    let stated = checks::stated_digest(&answer.headers);
    let digest = match (reference, stated) {
        (Reference::Digest(asked), Ok(Some(stated))) if stated.algorithm() == asked.algorithm() && stated != *asked => {
            return Err(client.bad("digest_mismatch"));
        }
        (_, stated) => stated.ok().flatten(),
    };
    let content_type = checks::single(&answer.headers, &CONTENT_TYPE).ok().flatten().map(str::to_owned);
    let size = checks::length(&answer.headers).map_err(|reason| client.bad(reason))?;
    Ok(ManifestHead { digest, content_type, size })
}

pub(super) async fn get(
    client: &Endpoint,
    name: &RepositoryName,
    reference: &Reference,
) -> Result<FetchedManifest, UpstreamError> {
    let work = async {
        let answer = ask(client, UpstreamOp::ManifestGet, Method::GET, name, reference).await?;
        read(client, answer, reference).await
    };
    client.within_total(work).await
}

async fn ask(
    client: &Endpoint,
    op: UpstreamOp,
    method: Method,
    name: &RepositoryName,
    reference: &Reference,
) -> Result<Answer, UpstreamError> {
    let url = client.url(name, &format!("manifests/{reference}"));
    let call = Call { op, method, name, url, accept: HeaderValue::from_static(ACCEPT), range: None };
    let turn = client.turn().await?;
    let answer = client.answer(&call, turn).await?;
    if answer.status == StatusCode::OK { Ok(answer) } else { Err(client.bad("protocol")) }
}

/// Reads and checks the body; what is returned is the buffer that was hashed.
async fn read(client: &Client, answer: Answer, reference: &Reference) -> Result<FetchedManifest, UpstreamError> {
    let bad = |reason| client.bad(reason);
    let content_type = checks::manifest_type(&answer.headers).map_err(bad)?.to_owned();
    let stated = checks::stated_digest(&answer.headers).map_err(bad)?;
    let length = checks::length(&answer.headers).map_err(bad)?;
    if length.is_some_and(|length| length > MANIFEST_BYTES_MAX) {
        return Err(bad("too_large"));
    }
    let bytes =
        read_at_most(answer.body, MANIFEST_BYTES_MAX).await.map_err(|error| UpstreamError::of(&client.host, error))?;
    drop(answer.turn);
    let received = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    client.telemetry.upstream_bytes(&client.host, received);
    if length.is_some_and(|length| length != received) {
        return Err(bad("truncated"));
    }
    let algorithm = match reference {
        Reference::Digest(asked) => asked.algorithm(),
        Reference::Tag(_) => Algorithm::Sha256,
    };
    let digest = Digest::of(algorithm, &bytes);
    let as_asked = match reference {
        Reference::Digest(asked) => *asked == digest,
        Reference::Tag(_) => true,
    };
    if !as_asked || stated.is_some_and(|stated| !stated.matches(&bytes)) {
        return Err(bad("digest_mismatch"));
    }
    Ok(FetchedManifest { bytes, digest, content_type })
}

/// The types that pass through the mirror, the ones with children first.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::MediaType;

    #[test]
    fn all_types_that_pass_are_asked_for() {
        assert_eq!(ACCEPT, MediaType::ALL.map(MediaType::as_str).join(", "));
    }
}
