//! What is pushed: uploads of blobs, manifests, deletions.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION, RANGE};
use http::{Method, StatusCode};

use super::serve::{Reply, empty, error};
use super::{Content, Recorded, Referrers, State};
use crate::oci::{Algorithm, Digest, Manifest, Tag};

impl State {
    pub(super) fn write_manifest(&mut self, request: &Recorded, name: &str, reference: &str, body: Bytes) -> Reply {
        let stated: Option<Digest> = reference.parse().ok();
        if request.method == Method::DELETE {
            let gone = match &stated {
                Some(digest) => self.contents.remove_manifest(name, digest),
                None => self.contents.untag(name, reference),
            };
            return if gone { empty(StatusCode::ACCEPTED) } else { error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN") };
        }
        let media_type = request.header(CONTENT_TYPE.as_str()).unwrap_or_default().to_owned();
        let Ok(manifest) = Manifest::parse(&body, Some(&media_type)) else {
            return error(StatusCode::BAD_REQUEST, "MANIFEST_INVALID");
        };
        let algorithm = stated.map_or(Algorithm::Sha256, |digest| digest.algorithm());
        let content = Content::new(algorithm, media_type, body);
        let digest = content.digest;
        if stated.is_some_and(|stated| stated != digest) {
            return error(StatusCode::BAD_REQUEST, "DIGEST_INVALID");
        }
        if stated.is_none() && reference.parse::<Tag>().is_err() {
            return error(StatusCode::BAD_REQUEST, "MANIFEST_INVALID");
        }
        if self.contents.missing(name, &manifest).is_some() {
            return error(StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN");
        }
        self.contents.put_manifest(name, content);
        if stated.is_none() {
            self.contents.tag(name, reference, digest);
        }
        let mut reply = created(&format!("/v2/{name}/manifests/{digest}"), &digest);
        if let Some(subject) = manifest.subject.filter(|_| self.referrers != Referrers::FallbackTag) {
            reply.headers_mut().insert("oci-subject", subject.digest.to_string().parse().unwrap());
        }
        reply
    }

    /// Uploads: `POST` begins (or does all with `digest`, or mounts), `PATCH` appends, `PUT` ends.
    pub(super) fn upload(
        &mut self,
        method: &Method,
        name: &str,
        id: &str,
        query: &[(String, String)],
        body: Bytes,
    ) -> Reply {
        let field = |key: &str| query.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
        let digest: Option<Digest> = field("digest").and_then(|digest| digest.parse().ok());
        if *method == Method::POST {
            if let (Some(from), Some(Ok(mount))) = (field("from"), field("mount").map(str::parse::<Digest>))
                && let Some(bytes) = self.contents.blob(from, &mount)
            {
                self.contents.put_blob(name, mount, bytes);
                return created(&format!("/v2/{name}/blobs/{mount}"), &mount);
            }
            if let Some(digest) = digest {
                return self.store_blob(name, digest, body);
            }
            let id = self.contents.begin_upload();
            return upload_status(StatusCode::ACCEPTED, name, &id, 0);
        }
        let Some(upload) = self.contents.upload(id) else {
            return error(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN");
        };
        upload.extend_from_slice(&body);
        let received = upload.len();
        match (method.as_str(), digest) {
            ("PATCH", _) => upload_status(StatusCode::ACCEPTED, name, id, received),
            ("GET", _) => upload_status(StatusCode::NO_CONTENT, name, id, received),
            ("PUT", Some(digest)) => {
                let bytes = self.contents.end_upload(id).unwrap_or_default();
                self.store_blob(name, digest, Bytes::from(bytes))
            }
            ("PUT", None) => error(StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
            ("DELETE", _) => {
                self.contents.end_upload(id);
                empty(StatusCode::NO_CONTENT)
            }
            _ => error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
        }
    }

    fn store_blob(&mut self, name: &str, digest: Digest, bytes: Bytes) -> Reply {
        if !digest.matches(&bytes) {
            return error(StatusCode::BAD_REQUEST, "DIGEST_INVALID");
        }
        self.contents.put_blob(name, digest, bytes);
        created(&format!("/v2/{name}/blobs/{digest}"), &digest)
    }
}

fn created(location: &str, digest: &Digest) -> Reply {
    let mut reply = empty(StatusCode::CREATED);
    reply.headers_mut().insert(LOCATION, location.parse().unwrap());
    reply.headers_mut().insert("docker-content-digest", digest.to_string().parse().unwrap());
    reply
}

fn upload_status(status: StatusCode, name: &str, id: &str, received: usize) -> Reply {
    let mut reply = empty(status);
    reply.headers_mut().insert(LOCATION, format!("/v2/{name}/blobs/uploads/{id}").parse().unwrap());
    reply.headers_mut().insert(RANGE, format!("0-{}", received.saturating_sub(1)).parse().unwrap());
    reply
}
